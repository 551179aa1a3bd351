//! Servers of upstreams: over HTTP/1.1 and HTTP/2, with TLS and without, told of the client by a PROXY header, and gRPC.

use super::*;

/// What is sent, and what comes back for that alone: nothing else in it looks the same in two places.
pub(super) fn question() -> Vec<u8> {
    numbers(700)
}

pub(super) fn right() -> Vec<u8> {
    numbers(1500)
}

fn numbers(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| format!("{number:07}\n").into_bytes()).collect()
}

/// What ends early ends in the head or a handshake, and what ends later in a body.
pub(super) const COLUMNS: Columns = Columns { head: 20, up: 4500, down: 9000, is_long: true };
/// `timeout` of the route for those who are in a hurry.
pub(super) const HASTY: Duration = Duration::from_millis(300);

/// A server that answers the right question rightly, and any other as an error.
pub(super) fn strict() -> UpstreamBuilder {
    upstream().otherwise(Answer::with(|seen| match seen.body == question() {
        true => Fixed::new(200, right().into()),
        false => Fixed::new(422, "another question".into()),
    }))
}

pub(super) fn codes(sees: Sees) -> Option<&'static [&'static str]> {
    match sees {
        Sees::Right => Some(&[]),
        Sees::Lost => Some(&["upstream.reset", "upstream.tls_failed", "upstream.connect_failed"]),
        Sees::Silent => Some(&["upstream.timeout", "upstream.connect_timeout", "request.deadline_exceeded"]),
        Sees::Nonsense => Some(&[
            "upstream.bad_response",
            "upstream.reset",
            "upstream.tls_failed",
            "upstream.connect_failed",
            "upstream.timeout",
            "upstream.connect_timeout",
            "request.deadline_exceeded",
        ]),
        // What is asked may be damaged, and an error the right answer.
        Sees::Damaged | Sees::Any => None,
    }
}

/// A gateway in front of `server`, with another one beside it, and what is said of the upstream.
async fn before(server: &Chaos, beside: &Upstream, more: &str) -> GatewayBuilder {
    gateway(&format!(
        "[limits]\nbody_timeout = \"4s\"\n[upstream_defaults]\nretry = {{ attempts = 1 }}\n\
         timeouts = {{ connect = \"5s\", read = \"5s\" }}\n\
         [upstreams.app]\nservers = [\"{{app}}\"]\n{more}\n[upstreams.beside]\nservers = [\"{{beside}}\"]\n\
         [[routes]]\npath = \"/patient/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/hasty/*\"\nupstream = \"app\"\ntimeout = \"{}ms\"\n\
         [[routes]]\npath = \"/echo.Echo/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/hasty.Echo/*\"\nupstream = \"app\"\ntimeout = \"{0}ms\"\n\
         rewrite = {{ path = \"/echo.Echo/Unary\" }}\n\
         [[routes]]\npath = \"/beside\"\nupstream = \"beside\"\n[[routes]]\npath = \"/plain\"\nrespond = {{ text = \"ok\" }}\n",
        HASTY.as_millis()
    ))
    .with("app", server)
    .with("beside", beside)
}

const BESIDE: &[&str] = &["/plain", "/beside"];

/// Has a server at `address` suffer, which is spoken to as `more` says.
async fn suffers(name: &str, address: std::net::SocketAddr, more: &str, ca: &str, faults: &[Fault]) {
    in_lanes(2, faults, async |faults| suffers_some(name, address, more, ca, &faults).await).await;
}

async fn suffers_some(name: &str, address: std::net::SocketAddr, more: &str, ca: &str, faults: &[Fault]) {
    let (chaos, beside) = (Chaos::before(address).await, upstream().start().await);
    let gw = before(&chaos, &beside, more).await.file("ca.pem", ca).start().await;
    let row = Row {
        name: name.to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: false,
        bound: HASTY,
        beside: BESIDE,
        codes,
        hears_all: true,
    };
    let client = gw.client();
    row.suffers(faults, async |how| {
        let path = if how.hasty { "/hasty/x" } else { "/patient/x" };
        judged(client.request("POST", path).body(question()).send().await, &right())
    })
    .await;
    gw.stop().await;
}

const TLS: &str = "tls = { ca = \"ca.pem\", sni = \"app.internal\" }\n";

/// Answers with numbers that no answer has.
fn http1_nonsense() -> Vec<Fault> {
    nonsense(&[
        (
            "a length of twenty digits",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
            Sees::Nonsense,
        ),
        ("a length below zero", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok", Sees::Nonsense),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
            Sees::Nonsense,
        ),
        (
            "a chunk without end",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nok",
            Sees::Nonsense,
        ),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Sees::Nonsense),
        ("a status that is none", b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", Sees::Nonsense),
        ("a version of the future", b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok", Sees::Nonsense),
        (
            "switched protocols",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            Sees::Nonsense,
        ),
        ("always to be continued", b"HTTP/1.1 100 Continue\r\n\r\n", Sees::Nonsense),
    ])
}

fn http2_nonsense() -> Vec<Fault> {
    nonsense(&[
        ("a frame of 16 MiB", b"\xff\xff\xff\x04\0\0\0\0\0", Sees::Nonsense),
        ("a window of 4 GiB", b"\0\0\x06\x04\0\0\0\0\0\0\x04\xff\xff\xff\xff", Sees::Nonsense),
        (
            "a window that grows by nothing",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x08\0\0\0\0\0\0\0\0\0",
            Sees::Nonsense,
        ),
        ("an answer to nobody", b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\x7f\xff\xff\xff\x88", Sees::Nonsense),
        ("goodbye", b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0", Sees::Nonsense),
    ])
}

fn tls_nonsense() -> Vec<Fault> {
    nonsense(&[
        ("a record of 64 KiB", b"\x16\x03\x03\xff\xff\x02\0\0\0", Sees::Nonsense),
        ("an alert", b"\x15\x03\x03\0\x02\x02\x28", Sees::Nonsense),
        ("an empty hello", b"\x16\x03\x03\0\x04\x02\0\0\0", Sees::Nonsense),
    ])
}

#[tokio::test]
async fn http1_servers() {
    let app = strict().start().await;
    let faults = [COLUMNS.all(), http1_nonsense()].concat();
    suffers("HTTP/1.1", app.address(), "", "", &faults).await;
}

#[tokio::test]
async fn http1_servers_over_tls() {
    let authority = Authority::new();
    let app = strict().tls(&authority.server(&["app.internal"])).start().await;
    let faults = [COLUMNS.all(), tls_nonsense()].concat();
    suffers("HTTP/1.1 over TLS", app.address(), TLS, &authority.pem, &faults).await;
}

#[tokio::test]
async fn http2_servers() {
    let app = strict().start().await;
    let faults = [COLUMNS.all(), http2_nonsense()].concat();
    suffers("HTTP/2", app.address(), "http2 = true\n", "", &faults).await;
}

#[tokio::test]
async fn http2_servers_over_tls() {
    let authority = Authority::new();
    let app = strict().tls(&authority.server(&["app.internal"])).start().await;
    let faults = [COLUMNS.all(), tls_nonsense()].concat();
    suffers("HTTP/2 over TLS", app.address(), &format!("http2 = true\n{TLS}"), &authority.pem, &faults).await;
}

#[tokio::test]
async fn servers_that_are_told_of_the_client() {
    let app = RawUpstream::script(|mut peer| async move {
        let fixed = peer.body(16).await;
        let [.., high, low] = fixed[..] else { return };
        peer.body(usize::from(u16::from_be_bytes([high, low]))).await;
        while let Some(head) = peer.head().await {
            let is_right = head.to_ascii_lowercase().contains("content-length: 5600\r\n");
            let asked = peer.body(question().len()).await;
            if asked.len() < question().len() {
                return;
            }
            let is_right = is_right && asked == question();
            let (line, body) = if is_right { ("200 OK", right()) } else { ("422 No", Vec::new()) };
            let head = format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n", body.len());
            peer.write(&[head.into_bytes(), body].concat()).await;
            if !is_right {
                return;
            }
        }
    })
    .await;
    let faults = [COLUMNS.all(), http1_nonsense()].concat();
    suffers("behind a PROXY header", app.address(), "proxy_protocol = true\n", "", &faults).await;
}

/// Errors of the gateway are gRPC's own, and an answer is whole only with its trailers.
#[tokio::test]
async fn grpc_servers() {
    in_lanes(2, &[COLUMNS.all(), http2_nonsense()].concat(), grpc).await;
}

async fn grpc(faults: Vec<Fault>) {
    let app = upstream().otherwise(Answer::Grpc).start().await;
    let (chaos, beside) = (Chaos::before(app.address()).await, upstream().start().await);
    let gw = before(&chaos, &beside, "http2 = true\n").await.start().await;
    let row = Row {
        name: "gRPC".to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: false,
        bound: HASTY,
        beside: BESIDE,
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE.
        codes: |sees| match sees {
            Sees::Right => Some(&[]),
            Sees::Silent => Some(&["4", "14"]),
            Sees::Lost | Sees::Nonsense => Some(&["2", "4", "13", "14"]),
            Sees::Damaged | Sees::Any => None,
        },
        hears_all: false,
    };
    let client = gw.client().http2();
    row.suffers(&faults, async |how| {
        let path = if how.hasty { "/hasty.Echo/Unary" } else { "/echo.Echo/Unary" };
        let call = client.request("POST", path).header("content-type", "application/grpc");
        let answer = match call.header("te", "trailers").body(frame(&right())).send().await {
            Ok(answer) => answer,
            // The head of an answer that is broken off at once may go with it.
            Err(_) => return Outcome::Nothing,
        };
        let status = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        let status = status.or(answer.headers.get("grpc-status"));
        match status.map(|status| status.to_str().unwrap()) {
            Some("0") => judged::<()>(Ok(answer), &frame(&right())),
            Some(other) => Outcome::Refused(other.to_owned()),
            None => match judged::<()>(Ok(answer), &frame(&right())) {
                Outcome::Right | Outcome::Damaged => Outcome::Wrong("whole without a status".to_owned()),
                other => other,
            },
        }
    })
    .await;
    gw.stop().await;
}
