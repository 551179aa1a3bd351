//! Providers of tokens: their keys are fetched, kept and shown, whatever the identity provider does.

use std::os::unix::fs::PermissionsExt;

use edgeward::identity::jwt::Algorithm;
use edgeward::identity::signing::{Issuer, SigningKey};

use crate::support::*;

const CONTROL: &str = "[server]\ncontrol_socket = \"run/control.sock\"\n";
const FIXED: &str = "[[routes]]\npath = \"/*\"\nrespond = {}\n";

fn set() -> Answer {
    let (key, _) = SigningKey::generate(Algorithm::Es256).unwrap();
    let issuer = Issuer::new(key, Algorithm::Es256, &[]).unwrap();
    Answer::json(serde_json::from_slice(&issuer.jwks()).unwrap())
}

fn provider(name: &str, path: &str) -> String {
    format!(
        "[identity.providers.{name}]\nissuer = \"https://{name}.example/\"\naudience = [\"shop\"]\n\
         algorithms = [\"ES256\"]\njwks_url = \"http://{{idp}}{path}\"\n"
    )
}

async fn readyz(gw: &Gateway) -> String {
    gw.admin().get("/readyz?verbose").await.expect_status(200).text()
}

/// What was fetched is shown and counted, and not fetched again by a reload, also when the provider is changed.
#[tokio::test]
async fn keys_are_fetched_and_outlive_reloads() {
    let idp = upstream().on("/jwks", set()).start().await;
    let gw =
        gateway(&format!("{CONTROL}{}{FIXED}", provider("idp", "/jwks"))).with("idp", &idp).start().await;
    let ready = readyz(&gw).await;
    assert!(ready.contains("provider idp: 1 keys, fetched "), "{ready}");
    gw.metric_is("edgeward_jwks_refresh_total", &["idp", "success"], 1.0).await;
    assert!(gw.metric("edgeward_jwks_last_success_timestamp_seconds", &["idp"]).await.unwrap() > 1e9);
    let seen = idp.last();
    assert_eq!(seen.uri.path(), "/jwks");
    assert!(seen.header("user-agent").unwrap().starts_with("edgeward/"));

    gw.rewrite("edgeward.toml", |text| text.replace("\"shop\"", "\"stock\""));
    let ran = gw.order("reload").await;
    assert_eq!(ran.stdout.lines().next(), Some("altered provider idp"), "{}", ran.stderr);
    let ready = readyz(&gw).await;
    assert!(ready.contains("provider idp: 1 keys, fetched "), "{ready}");
    assert_eq!(idp.requests(), 1);
    gw.stop().await;
}

/// An identity provider that is down is no reason not to start, and its keys are there soon after it is back.
#[tokio::test]
async fn an_identity_provider_may_come_later() {
    let mut idp = upstream().on("/jwks", set()).start().await;
    idp.stop().await;
    let gw = gateway(&format!("{}{FIXED}", provider("idp", "/jwks"))).with("idp", &idp).start().await;
    gw.get("/").await.expect_status(200);
    eventually("the trouble to be shown", async || {
        readyz(&gw).await.contains("provider idp: keys were never fetched; last fetch failed: ").then_some(())
    })
    .await;
    idp.restart().await;
    gw.metric_is("edgeward_jwks_refresh_total", &["idp", "success"], 1.0).await;
    assert!(readyz(&gw).await.contains("provider idp: 1 keys, fetched "));
    assert!(gw.stderr().contains("provider=idp") && gw.stderr().contains("keys not fetched"));
    gw.stop().await;
}

/// Whatever answers in place of a key set is told apart, bounded, and changes nothing else.
#[tokio::test]
async fn what_is_no_key_set_is_told_apart() {
    let html = Answer::text("<html>Sign in</html>");
    let idp = upstream()
        .on("/html", html)
        .on("/large", Answer::Zeros(10 << 20))
        .on("/broken", Answer::Truncated(100, "{".into()))
        .on("/moved", Answer::status(302).header("location", "/jwks"))
        .on("/error", Answer::status(500))
        .on("/empty", Answer::json(serde_json::json!({ "keys": [] })))
        .on("/silent", Answer::Hang)
        .on("/jwks", set())
        .start()
        .await;
    let cases = [
        ("html", "invalid"),
        ("large", "too_large"),
        ("broken", "connect"),
        ("moved", "status"),
        ("error", "status"),
        ("empty", "invalid"),
        ("silent", "timeout"),
        ("jwks", "success"),
    ];
    let providers: String = cases.iter().map(|(name, _)| provider(name, &format!("/{name}"))).collect();
    let gw = gateway(&format!("{providers}{FIXED}")).with("idp", &idp).start().await;
    for (name, word) in cases {
        eventually(name, async || {
            let count = gw.metric("edgeward_jwks_refresh_total", &[name, word]).await?;
            (count >= 1.0).then_some(())
        })
        .await;
    }
    let ready = readyz(&gw).await;
    for line in [
        "provider html: keys were never fetched; last fetch failed: the key set is not valid JSON",
        "provider large: keys were never fetched; last fetch failed: the answer is larger than 1 MiB",
        "provider moved: keys were never fetched; last fetch failed: answered 302",
        "provider empty: keys were never fetched; last fetch failed: no key of the set can be used",
        "provider silent: keys were never fetched; last fetch failed: no answer in time",
        "provider jwks: 1 keys",
    ] {
        assert!(ready.contains(line), "{line} in {ready}");
    }
    gw.get("/").await.expect_status(200);
    gw.stop().await;
}

/// Over https the provider must be who the URL says, by an authority that the system trusts.
#[tokio::test]
async fn keys_are_fetched_over_https_from_whom_the_system_trusts() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let idp = upstream().tls(&authority.server(&["127.0.0.1"])).on("/jwks", set()).start().await;
    let config = format!("{}{FIXED}", provider("idp", "/jwks").replace("http://", "https://"));
    for (trusted, word) in [(&authority, "success"), (&stranger, "connect")] {
        let directory = tempfile::tempdir().unwrap();
        let roots = trusted.write(directory.path(), "roots");
        let gw =
            gateway(&config).with("idp", &idp).env("SSL_CERT_FILE", roots.to_str().unwrap()).start().await;
        eventually(word, async || {
            let count = gw.metric("edgeward_jwks_refresh_total", &["idp", word]).await?;
            (count >= 1.0).then_some(())
        })
        .await;
        gw.stop().await;
    }
    assert_eq!(idp.requests(), 1, "a stranger is asked nothing");
}

const MADE: &str = "[identity.providers.local]\nissuer = \"me\"\naudience = [\"shop\"]\nalgorithms = [\"EdDSA\"]\n\
                    signing_key = \"keys/made.pem\"\ngenerate = true\n";

/// A key is made by who serves, not by who asks; and one that cannot be kept is not used.
#[tokio::test]
async fn a_signing_key_is_made_at_start() {
    let check = gateway(&format!("{MADE}{FIXED}")).command(&["check", "-c", "edgeward.toml"]).await;
    assert_eq!(check.status, 0, "{}", check.stderr);

    let gw = gateway(&format!("{CONTROL}{MADE}{FIXED}")).start().await;
    let path = gw.directory().join("keys/made.pem");
    let made = std::fs::read_to_string(&path).unwrap();
    assert!(SigningKey::from_pem(made.as_bytes()).is_ok());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("nothing changed"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), made, "a reload keeps it");

    gw.rewrite("edgeward.toml", |text| text.replace("made.pem", "other.pem"));
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("altered provider local"));
    assert!(gw.directory().join("keys/other.pem").exists());
    gw.rewrite("edgeward.toml", |text| text.replace("keys/other.pem", "edgeward.toml/no.pem"));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.contains("the signing key of the provider \"local\" cannot be written"),
        "{}",
        ran.stderr
    );
    gw.get("/").await.expect_status(200);
    gw.stop().await;

    let lost = MADE.replace("keys/made.pem", "edgeward.toml/no.pem");
    let ran = gateway(&format!("{lost}{FIXED}")).refused().await;
    assert!(ran.stderr.contains("cannot be written to"), "{}", ran.stderr);
}
