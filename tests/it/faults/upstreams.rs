//! Servers, on each of the ways they are spoken to: what cannot be answered is an error that says what it was, soon; what
//! has begun is broken off and never looks whole; and the next request after it is well is answered.

use super::*;

const BODY: usize = 20_000;
/// `timeouts.read` and `timeouts.connect` below.
const BOUND: Duration = Duration::from_secs(1);

/// What clients see.
#[derive(Clone, Copy, Debug)]
enum Sees {
    /// All of it.
    All,
    /// One of these.
    Failure(&'static [&'static str]),
    /// The beginning, and that it is not all; or a failure.
    Part,
    /// A failure or a part of it; or, where nothing can tell, all of it with some bytes that are others.
    Damaged,
}

fn faults() -> Vec<(&'static str, Faults, Sees)> {
    use Sees::{All, Failure, Part};
    let late =
        Way { latency: Duration::from_millis(20), jitter: Duration::from_millis(10), ..Way::slices(60) };
    let slow_close = Way { slow_close: Duration::from_millis(200), ..Way::default() };
    let lost = Failure(&["upstream.reset", "upstream.tls_failed", "upstream.connect_failed"]);
    let nonsense = Failure(&[
        "upstream.bad_response",
        "upstream.tls_failed",
        "upstream.reset",
        "upstream.connect_failed",
    ]);
    let silent = Failure(&["upstream.timeout", "upstream.connect_timeout"]);
    vec![
        ("late and in pieces", Faults::both(late), All),
        ("narrow", Faults::down(Way { rate: 200_000, ..Way::default() }), All),
        ("closed slowly", Faults::both(slow_close), All),
        ("refused", Faults::refused(), lost),
        ("silent", Faults::silent(), silent),
        ("slow", Faults::slow(BOUND * 3), silent),
        ("silent in the answer", Faults::down(Way::end(8000, End::Silence)), Part),
        ("reset at once", Faults::down(Way::end(0, End::Reset)), lost),
        ("reset in the head", Faults::down(Way::end(20, End::Reset)), lost),
        ("reset in the answer", Faults::down(Way::end(8000, End::Reset)), Part),
        ("closed in the answer", Faults::down(Way::end(8000, End::HalfClose)), Part),
        ("reset in the request", Faults::up(Way::end(10, End::Reset)), lost),
        ("nonsense", Faults::nonsense(NONSENSE), nonsense),
        (
            "damaged",
            Faults::down(Way { garbage: Some(Garbage::Flipped(700)), ..Way::default() }),
            Sees::Damaged,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_every_way() {
    let authority = Authority::new();
    let whole = || Answer::text(vec![b'x'; BODY]);
    let plain = upstream().on("/x", whole()).start().await;
    let secure = upstream().tls(&authority.server(&["app.internal"])).on("/x", whole()).start().await;
    let ways = [
        ("http1", Chaos::before(plain.address()).await, ""),
        ("http2", Chaos::before(plain.address()).await, "http2 = true\n"),
        ("tls", Chaos::before(secure.address()).await, "tls = { ca = \"ca.pem\", sni = \"app.internal\" }\n"),
    ];
    let mut config = String::from(
        "[upstream_defaults]\ntimeouts = { connect = \"1s\", read = \"1s\" }\nretry = { attempts = 1 }\n\
         [limits]\nbody_timeout = \"900ms\"\n\
         [[routes]]\npath = \"/plain\"\nrespond = { text = \"ok\" }\n",
    );
    for (name, chaos, more) in &ways {
        config.push_str(&format!(
            "[upstreams.{name}]\nservers = [\"{}\"]\n{more}[[routes]]\npath = \"/{name}\"\nupstream = \"{name}\"\n\
             rewrite = {{ path = \"/x\" }}\n",
            chaos.address()
        ));
    }
    let gw = gateway(&config).file("ca.pem", &authority.pem).start().await;
    for (what, fault, sees) in faults() {
        let each = ways.iter().map(|(name, chaos, _)| tried(&gw, name, chaos, what, &fault, sees));
        futures_util::future::join_all(each).await;
    }
    gw.stop().await;
}

fn is_all(answer: &Response) -> bool {
    answer.status == 200 && answer.body.len() == BODY && answer.broken.is_none()
}

/// One request over one way: well before, wrong as it should be, and well again.
async fn tried(gw: &Gateway, name: &str, chaos: &Chaos, what: &str, fault: &Faults, sees: Sees) {
    let path = format!("/{name}");
    let well = async || {
        eventually(&format!("{name} to be well before or after {what}"), async || {
            gw.get(&path).send().await.is_ok_and(|answer| is_all(&answer)).then_some(())
        })
        .await;
    };
    well().await;
    // Counts are of new connections.
    chaos.strike(fault.clone());
    let began = Instant::now();
    let answer = gw.get(&path).send().await;
    let took = began.elapsed();
    assert!(took < BOUND * 10, "{what}, {name}: {took:?}");
    let shown = format!("{what}, {name}: {sees:?}, but {answer:?}");
    match (sees, answer) {
        (Sees::Part | Sees::Damaged, Err(_)) => {}
        (Sees::Damaged, Ok(answer)) => {
            let is_like = answer.body.iter().all(|byte| [b'x', b'x' ^ 0x15].contains(byte));
            let is_failure = answer.status >= 502;
            let is_part = answer.status == 200 && is_like && answer.broken.is_some();
            // TLS tells.
            let is_whole = answer.status == 200 && is_like && answer.body.len() == BODY && name != "tls";
            assert!(is_failure || is_part || is_whole, "{shown}");
        }
        (Sees::All, Ok(answer)) => assert!(is_all(&answer), "{shown}"),
        (Sees::Part, Ok(answer)) => {
            assert!(answer.broken.is_some() || answer.status >= 502, "{shown}");
        }
        (Sees::Failure(codes), Ok(answer)) => {
            let code = answer.json()["code"].as_str().unwrap_or_default().to_owned();
            assert!(codes.contains(&code.as_str()), "{shown}");
            assert!((502..=504).contains(&answer.status), "{shown}");
        }
        (Sees::All | Sees::Failure(_), Err(_)) => panic!("{shown}"),
    }
    gw.get("/plain").await.expect_status(200);
    chaos.heal();
    chaos.cut();
    well().await;
}
