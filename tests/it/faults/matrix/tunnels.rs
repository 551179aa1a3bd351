//! WebSockets: a tunnel that cannot be made is an error, and one that breaks ends on both sides.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::servers::{HASTY, right};
use super::*;

const COLUMNS: Columns = Columns { head: 20, up: 6000, down: 6000, is_long: true };
/// `limits.stream_idle`: what ends a tunnel in which nothing is said.
const IDLE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn tunnels() {
    let open = nonsense(&[
        ("a frame of 2^63 bytes", b"\x82\x7f\x80\0\0\0\0\0\0\0", Sees::Nonsense),
        ("no frame at all", b"\x0f\x7f\xff\xff\xff\xff", Sees::Nonsense),
    ]);
    in_lanes(4, &[COLUMNS.all(), open].concat(), suffers).await;
}

async fn suffers(faults: Vec<Fault>) {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let (chaos, beside) = (Chaos::before(app.address()).await, upstream().start().await);
    let gw = gateway(&format!(
        "[limits]\nstream_idle = \"{}ms\"\nbody_timeout = \"900ms\"\n[upstreams.app]\nservers = [\"{{app}}\"]\n\
         retry = {{ attempts = 1 }}\ntimeouts = {{ connect = \"5s\", read = \"5s\" }}\n\
         [upstreams.beside]\nservers = [\"{{beside}}\"]\n\
         [[routes]]\npath = \"/patient\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/hasty\"\nupstream = \"app\"\ntimeout = \"{}ms\"\n\
         [[routes]]\npath = \"/beside\"\nupstream = \"beside\"\n[[routes]]\npath = \"/plain\"\nrespond = {{ text = \"ok\" }}\n",
        IDLE.as_millis(),
        HASTY.as_millis()
    ))
    .with("app", &chaos)
    .with("beside", &beside)
    .start()
    .await;
    let row = Row {
        name: "a WebSocket".to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: false,
        bound: IDLE,
        beside: &["/plain", "/beside"],
        codes: super::servers::codes,
        hears_all: true,
    };
    // Where the tunnel is to stand before the fault comes, it waits here.
    let standing = tokio::sync::Mutex::new(None);
    row.suffers(&faults, async |how| {
        let mut standing = standing.lock().await;
        let socket = match standing.take().filter(|_| how.kept) {
            Some(socket) => socket,
            None => {
                let path = if how.hasty { "hasty" } else { "patient" };
                let stream = TcpStream::connect(gw.address()).await.unwrap();
                let request = format!("ws://localhost/{path}").into_client_request().unwrap();
                match within("a tunnel", client_async(request, stream)).await {
                    Ok((socket, _)) => socket,
                    Err(Error::Http(answer)) => {
                        let code: serde_json::Value =
                            serde_json::from_slice(answer.body().as_deref().unwrap_or_default())
                                .unwrap_or_default();
                        return Outcome::Refused(code["code"].as_str().unwrap_or_default().to_owned());
                    }
                    Err(_) => return Outcome::Cut,
                }
            }
        };
        let (outcome, socket) = echoed(socket).await;
        if how.kept && outcome == Outcome::Right {
            *standing = Some(socket);
        }
        outcome
    })
    .await;
    drop(standing);
    gw.stop().await;
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

/// A message there and back.
async fn echoed(mut socket: Socket) -> (Outcome, Socket) {
    if socket.send(Message::binary(right())).await.is_err() {
        return (Outcome::Cut, socket);
    }
    let outcome = match within("an echo, or the end", socket.next()).await {
        Some(Ok(Message::Binary(back))) => outcome::compared(&back, &right()),
        None | Some(Err(_) | Ok(Message::Close(_))) => Outcome::Cut,
        // Of what was damaged.
        Some(Ok(_)) => Outcome::Cut,
    };
    (outcome, socket)
}
