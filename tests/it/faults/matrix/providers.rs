//! Identity providers: nobody's token is judged without keys, and what keys there are hold on.

use serde_json::json;

use super::*;

const COLUMNS: Columns = Columns { head: 20, up: 60, down: 300, is_long: false };
/// Longest a fetch may take, which the first token waits for.
const BOUND: Duration = Duration::from_secs(5);

/// Answers that are no key set, however well they look.
fn sets() -> Vec<Fault> {
    let answer = |what: &'static str, body: &str| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        nonsense(&[(what, answer.as_bytes(), Sees::Nonsense)])
    };
    [
        answer("a list", "[]"),
        answer("keys that are no list", "{\"keys\":{\"kid\":\"known\"}}"),
        answer(
            "a key of three bits",
            "{\"keys\":[{\"kty\":\"RSA\",\"kid\":\"known\",\"alg\":\"RS256\",\"n\":\"Bw\",\"e\":\"Aw\"}]}",
        ),
        answer("a secret", "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"known\",\"k\":\"AAAA\"}]}"),
        answer("a page", "<html>Please log in</html>"),
        answer("depth", &"[".repeat(5000)),
        nonsense(&[
            ("4 GiB to come", b"HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n{", Sees::Nonsense),
            (
                "a length of twenty digits",
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
                Sees::Nonsense,
            ),
            ("an error", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Sees::Nonsense),
        ]),
    ]
    .concat()
}

#[tokio::test]
async fn key_sets() {
    let (signer, stranger) = (Signer::rsa("known"), Signer::rsa("unknown"));
    let idp = upstream().on("/jwks", Answer::json(key_set(&[&signer]))).start().await;
    let mut cells = Vec::new();
    let mut config = String::from("[[routes]]\npath = \"/plain\"\nrespond = { text = \"ok\" }\n");
    for (number, fault) in [COLUMNS.all(), sets()].concat().into_iter().enumerate() {
        let chaos = Chaos::before(idp.address()).await;
        chaos.set(fault.faults.clone());
        config.push_str(&format!(
            "[identity.providers.p{number}]\nissuer = \"p{number}\"\naudience = [\"shop\"]\nalgorithms = [\"RS256\"]\n\
             jwks_url = \"http://{}/jwks\"\n[[routes]]\npath = \"/{number}\"\nauth = {{ with = [\"jwt:p{number}\"] }}\n\
             respond = {{ text = \"in\" }}\n",
            chaos.address()
        ));
        cells.push((number, chaos, fault));
    }
    let gw = gateway(&config).start().await;
    let before = Held::of(&gw);
    let shows = async |number: usize, signer: &Signer| {
        // Another token each time: none is known from before.
        let id = fastrand::u64(..).to_string();
        let claims = json!({ "iss": format!("p{number}"), "aud": "shop", "sub": "alice", "jti": id });
        let request = gw.get(&format!("/{number}")).header("authorization", &signer.bearer(claims));
        judged::<()>(Ok(within_ten(BOUND, request).await), b"in")
    };
    let refused = |code: &str| Outcome::Refused(code.to_owned());
    let tried = cells.iter().map(async |(number, chaos, fault)| {
        let (number, what) = (*number, &fault.what);
        let began = Instant::now();
        let first = shows(number, &signer).await;
        let took = began.elapsed();
        let codes = match fault.sees {
            Sees::Right => Some(&[][..]),
            Sees::Damaged => None,
            _ => Some(&["auth.keys_unavailable"][..]),
        };
        assert!(fault.sees.allows(&first, codes), "{what}: {first:?}");
        chaos.heal();
        // Who damages what nobody signs may have given it another key, which is believed.
        if fault.sees == Sees::Damaged && first != refused("auth.keys_unavailable") {
            return;
        }
        let well = async || (shows(number, &signer).await == Outcome::Right).then_some(());
        eventually(&format!("keys after {what}"), well).await;
        if took > BOUND / 2 {
            // The same for as long again; `faults::providers` waits for that.
            return;
        }
        chaos.strike(fault.faults.clone());
        // A key that nobody knows makes it ask again; those it has hold on.
        assert_eq!(shows(number, &stranger).await, refused("auth.token_invalid"), "{what}");
        if fault.sees != Sees::Damaged {
            assert_eq!(shows(number, &signer).await, Outcome::Right, "{what}");
        }
        chaos.heal();
    });
    let others = async {
        for _ in 0..10 {
            within_ten(Duration::from_secs(1), gw.get("/plain")).await.expect_status(200);
        }
    };
    tokio::join!(futures_util::future::join_all(tried), others);
    before.is_all(&gw).await;
    gw.stop().await;
}
