//! Providers as people write them, down to the tokens they take.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::*;
use crate::base::clock::{self, Moment};
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;
use crate::identity::config::compile::Compiled;
use crate::identity::live::Live;
use crate::identity::provider::{Providers, Verified};
use crate::identity::signing::{Issuer, SigningKey};
use crate::telemetry::metrics::Metrics;

const NOW: u64 = 1_800_000_000;

struct Bench {
    directory: tempfile::TempDir,
    live: std::sync::Arc<Live>,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), live: Live::offline(Metrics::new()) }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    fn compile_in(&self, text: &str, clustered: bool) -> (Compiled, Diagnostics) {
        let directory = self.directory.path().display().to_string();
        let text = format!("issuer = 'me'\naudience = ['shop']\n{}", text.replace("DIR", &directory));
        let (raw, mut out) = decode_str::<ProviderRaw>(&text);
        let raw = raw.unwrap_or_else(|| panic!("{out:?}"));
        let surroundings = Surroundings { live: &self.live, now: clock::now(), clustered };
        (raw.compile("p", "identity.providers.p", &Origin::Default, surroundings, &mut out), out)
    }

    fn compile(&self, text: &str) -> Compiled {
        let (compiled, out) = self.compile_in(text, false);
        assert!(out.iter().all(|problem| problem.code == "literal-secret"), "{out:?}");
        compiled
    }
}

fn claims() -> Map<String, Value> {
    json!({ "iss": "me", "aud": "shop", "sub": "a", "exp": NOW + 60 }).as_object().unwrap().clone()
}

fn takes(compiled: &Compiled, token: &str) -> bool {
    let at = Moment { now: clock::now(), wall: UNIX_EPOCH + Duration::from_secs(NOW) };
    matches!(Providers::new([compiled.provider.clone()]).verify(token, &at), Verified::Ok(_))
}

fn issued(compiled: &Compiled) -> String {
    compiled.provider.issuer().unwrap().issue(&claims()).unwrap()
}

#[test]
fn keys_come_from_everywhere() {
    let bench = Bench::new();
    let (key, private) = SigningKey::generate(Algorithm::Rs256).unwrap();
    let issuer = Issuer::new(key, Algorithm::Rs256, &[]).unwrap();
    bench.write("private.pem", &private);
    bench.write("set.json", issuer.jwks());
    let token = issuer.issue(&claims()).unwrap();

    let by_set = bench.compile("algorithms = ['RS256']\njwks_file = 'DIR/set.json'");
    assert!(takes(&by_set, &token) && by_set.provider.issuer().is_none());
    let by_key = bench.compile("algorithms = ['RS256']\nsigning_key = 'DIR/private.pem'");
    assert!(takes(&by_key, &token) && takes(&by_key, &issued(&by_key)) && takes(&by_set, &issued(&by_key)));
    let by_secret = bench.compile("algorithms = ['HS256']\nsecret = '0123456789abcdef0123456789abcdef'");
    assert!(!takes(&by_secret, &token) && takes(&by_secret, &issued(&by_secret)));
    let fetched = bench.compile("algorithms = ['RS256']\njwks_url = 'https://idp.example/jwks'");
    assert!(!takes(&fetched, &token) && !fetched.provider.has_keys(clock::now()));
}

/// The formats in which public keys lie around, made by another program.
#[test]
fn public_keys_are_read_in_every_format() {
    let bench = Bench::new();
    let openssl = |arguments: &str| {
        let ran = std::process::Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(bench.directory.path())
            .output()
            .expect("openssl is there");
        assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    };
    openssl("genrsa -out rsa.pem 2048");
    openssl("rsa -in rsa.pem -traditional -out rsa-old.pem");
    openssl("rsa -in rsa.pem -pubout -out rsa-public.pem");
    openssl("rsa -in rsa.pem -RSAPublicKey_out -out rsa-public-old.pem");
    openssl("req -x509 -key rsa.pem -subj /CN=x -out rsa-certificate.pem");
    openssl("ecparam -genkey -noout -name prime256v1 -out ec-old.pem");
    openssl("pkcs8 -topk8 -nocrypt -in ec-old.pem -out ec.pem");
    openssl("ec -in ec.pem -pubout -out ec-public.pem");
    openssl("ecparam -genkey -noout -name secp384r1 -out ec384.pem");
    openssl("ec -in ec384.pem -pubout -out ec384-public.pem");
    openssl("genpkey -algorithm ed25519 -out ed.pem");
    openssl("pkey -in ed.pem -pubout -out ed-public.pem");
    for (algorithm, private, public) in [
        ("RS256", "rsa", "rsa-public"),
        ("PS512", "rsa-old", "rsa-public-old"),
        ("RS512", "rsa", "rsa-certificate"),
        ("ES256", "ec", "ec-public"),
        ("ES256", "ec-old", "ec-public"),
        ("ES384", "ec384", "ec384-public"),
        ("EdDSA", "ed", "ed-public"),
    ] {
        let of = |key: &str, file: &str| {
            bench.compile(&format!("algorithms = ['{algorithm}']\n{key} = 'DIR/{file}.pem'"))
        };
        let (signing, verifying) = (of("signing_key", private), of("public_key", public));
        assert!(takes(&verifying, &issued(&signing)), "{algorithm} {private} {public}");
    }
}

/// What did not change is the same object, with the tokens it has seen; a key replaced under its old name is noticed.
#[test]
fn a_provider_is_kept_until_it_changes() {
    let bench = Bench::new();
    let text = "algorithms = ['ES256']\nsigning_key = 'DIR/key.pem'";
    bench.write("key.pem", SigningKey::generate(Algorithm::Es256).unwrap().1);
    let (first, second) = (bench.compile(text), bench.compile(text));
    assert!(std::sync::Arc::ptr_eq(&first.provider, &second.provider));
    let other = bench.compile(&format!("{text}\nleeway = '1s'"));
    assert!(!std::sync::Arc::ptr_eq(&first.provider, &other.provider));
    let token = issued(&first);
    bench.write("key.pem", SigningKey::generate(Algorithm::Es256).unwrap().1);
    let third = bench.compile(text);
    assert_ne!(first.content, third.content);
    assert!(takes(&first, &token) && !takes(&third, &token));

    let secret =
        |secret: &str| bench.compile(&format!("algorithms = ['HS256']\nsecret = '{secret}'")).provider;
    let (one, two) = (secret("0123456789abcdef0123456789abcdef"), secret("0123456789abcdef0123456789abcdeX"));
    assert!(!std::sync::Arc::ptr_eq(&one, &two), "what a secret is does not show in how it is written");
}

/// Rotation, step by step: the key to come is published, then signs, then the old one goes.
#[test]
fn a_signing_key_is_replaced_without_refusing_anybody() {
    let bench = Bench::new();
    for name in ["old.pem", "new.pem"] {
        bench.write(name, SigningKey::generate(Algorithm::Es256).unwrap().1);
    }
    let step = |signing: &str, verify: &str| {
        bench.compile(&format!(
            "algorithms = ['ES256']\nsigning_key = 'DIR/{signing}'\nverify_keys = [{verify}]"
        ))
    };
    let published = |compiled: &Compiled| {
        let set: Value = serde_json::from_slice(&compiled.provider.issuer().unwrap().jwks()).unwrap();
        set["keys"].as_array().unwrap().len()
    };
    let (before, announced) = (step("old.pem", ""), step("old.pem", "'DIR/new.pem'"));
    let (switched, after) = (step("new.pem", "'DIR/old.pem'"), step("new.pem", ""));
    let counts = [&before, &announced, &switched, &after].map(published);
    assert_eq!(counts, [1, 2, 2, 1]);
    let (old, new) = (issued(&announced), issued(&switched));
    assert!(takes(&announced, &new), "another instance may be a step ahead");
    assert!(takes(&switched, &old) && takes(&switched, &new));
    assert!(takes(&after, &new) && !takes(&after, &old));
}

#[test]
fn a_key_is_made_once_and_for_us_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let text = "algorithms = ['ES256', 'ES384']\nsigning_key = 'DIR/keys/made.pem'\ngenerate = true";
    let path = bench.path("keys/made.pem");
    let first = bench.compile(text);
    assert!(!path.exists(), "compiling writes nothing");
    let own = |_: &Path| Ok(());
    first.provider.keep_generated(own).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    first.provider.keep_generated(own).unwrap();
    let second = bench.compile(text);
    assert!(takes(&second, &issued(&first)), "the next process reads what the first has written");
    assert!(std::sync::Arc::ptr_eq(&first.provider, &second.provider), "and a reload changes nothing");
    // Somebody was faster: their key counts, and this configuration is not put into force.
    std::fs::remove_file(&path).unwrap();
    let (late, other) = (bench.compile(text), bench.compile(text));
    other.provider.keep_generated(own).unwrap();
    assert!(late.provider.keep_generated(own).unwrap_err().contains("made.pem"));

    let (_, out) = bench.compile_in(text, true);
    let problems: Vec<_> = out.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(problems, ["every instance of the cluster would make a key of its own"]);
}
