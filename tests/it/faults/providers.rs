//! Identity providers whose keys are fetched: without any, tokens are nobody's to judge; with some, those hold.

use serde_json::json;

use super::*;

/// Longest a fetch may take, which the first token waits for.
const BOUND: Duration = Duration::from_secs(5);

fn provider(name: &str, chaos: &Chaos) -> String {
    format!(
        "[identity.providers.{name}]\nissuer = \"{name}\"\naudience = [\"shop\"]\nalgorithms = [\"RS256\"]\n\
         jwks_url = \"http://{}/jwks\"\n[[routes]]\npath = \"/{name}\"\nauth = {{ with = [\"jwt:{name}\"] }}\n\
         respond = {{ text = \"in\" }}\n",
        chaos.address()
    )
}

#[tokio::test]
async fn dead_slow_and_talking_nonsense() {
    let signer = Signer::rsa("known");
    let idp = upstream().on("/jwks", Answer::json(key_set(&[&signer]))).start().await;
    let mut kinds = Vec::new();
    for (name, fault) in [
        ("dead", Faults::refused()),
        ("silent", Faults::silent()),
        ("slow", Faults::slow(BOUND * 2)),
        ("nonsense", Faults::nonsense(NONSENSE)),
    ] {
        let chaos = Chaos::before(idp.address()).await;
        chaos.set(fault.clone());
        kinds.push((name, chaos, fault));
    }
    let mut config = String::from("[[routes]]\npath = \"/plain\"\nrespond = {}\n");
    config.extend(kinds.iter().map(|(name, chaos, _)| provider(name, chaos)));
    let gw = gateway(&config).start().await;
    let shows = |name: &str, signer: &Signer| {
        // Another token each time: none is known from before.
        let claims =
            json!({ "iss": name, "aud": "shop", "sub": "alice", "jti": fastrand::u64(..).to_string() });
        gw.get(&format!("/{name}")).header("authorization", &signer.bearer(claims))
    };
    gw.get("/plain").await.expect_status(200);
    let first = kinds.iter().map(|(name, ..)| within_ten(BOUND, shows(name, &signer)));
    for answer in futures_util::future::join_all(first).await {
        let refused = answer.expect_problem(503, "auth.keys_unavailable");
        assert!(refused.header("retry-after").is_some());
    }
    for (name, chaos, _) in &kinds {
        reports(&gw, &format!("provider {name}: keys were never fetched; last fetch failed: ")).await;
        chaos.heal();
    }
    for (name, chaos, fault) in &kinds {
        eventually(&format!("keys of {name}"), async || {
            (shows(name, &signer).await.status == 200).then_some(())
        })
        .await;
        chaos.strike(fault.clone());
    }
    // A key that nobody knows makes it ask again, in vain; those it has hold on.
    let stranger = Signer::rsa("unknown");
    let strange = kinds.iter().map(|(name, ..)| within_ten(BOUND, shows(name, &stranger)));
    for answer in futures_util::future::join_all(strange).await {
        answer.expect_problem(401, "auth.token_invalid");
    }
    for (name, ..) in &kinds {
        shows(name, &signer).await.expect_status(200);
        let ready = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
        assert!(ready.contains(&format!("provider {name}: 1 keys, fetched ")), "{ready}");
    }
    gw.stop().await;
}
