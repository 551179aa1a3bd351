//! Tokens that hold, and tokens that must not: the table of attacks.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::algorithm::Algorithms;
use super::*;
use crate::base::clock::{self, Moment};
use crate::base::reason::Reason;
use crate::identity::keys::{Key, KeySet, Public};
use crate::identity::provider::{Keys, Provider, Providers, Settings, Verified};
use crate::identity::signing::{SigningKey, verifying};
use crate::identity::token::{Refusal, Token};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example/";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Rs256).unwrap().0);
static EC: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).unwrap().0);
static STRANGER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).unwrap().0);

fn at(unix: i64) -> Moment {
    Moment { now: clock::now(), wall: UNIX_EPOCH + Duration::from_secs(unix.unsigned_abs()) }
}

fn algorithms(all: &[Algorithm]) -> Algorithms {
    all.iter().copied().collect()
}

fn rules() -> Rules {
    Rules {
        issuer: Some(ISSUER.into()),
        audience: ["shop".into(), "stock".into()].into(),
        typ: None,
        leeway: 60,
        require: ["exp".into(), "sub".into()].into(),
        roles_claim: "roles".into(),
    }
}

fn provider(name: &str, rules: Rules, allowed: &[Algorithm], keys: Vec<Key>) -> Arc<Provider> {
    Arc::new(Provider::new(Settings {
        name: name.into(),
        rules,
        algorithms: algorithms(allowed),
        keys: Keys::Fixed(KeySet::new(keys)),
        issuer: None,
        consumer: None,
        generated: None,
    }))
}

/// Takes ES256 and RS256, each of one key.
fn both() -> Providers {
    let allowed = [Algorithm::Es256, Algorithm::Rs256];
    let key = |key: &SigningKey| verifying(key.public(), algorithms(Algorithm::ALL));
    Providers::new([provider("both", rules(), &allowed, vec![key(&EC), key(&RSA)])])
}

fn shared() -> Providers {
    let key = Key::secret(None, SECRET, algorithms(Algorithm::ALL));
    Providers::new([provider("shared", rules(), &[Algorithm::Hs256], vec![key])])
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of any two parts, signed with any bytes.
fn token(header: &str, payload: &str, signature: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(payload));
    let signature = signature(signed.as_bytes());
    format!("{signed}.{}", encode(signature))
}

fn es256(header: &str, payload: &str) -> String {
    token(header, payload, |message| EC.sign(Algorithm::Es256, message).unwrap())
}

fn hs256(secret: &[u8], header: &str, payload: &str) -> String {
    token(header, payload, |message| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
    })
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "shop", "sub": "alice", "exp": NOW + 600 })
}

/// The claims with `changes`; null takes one away.
fn with(changes: Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().shift_remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

/// A well-signed token with these changes of the claims.
fn says(changes: Value) -> String {
    es256(&header(json!({})), &with(changes))
}

fn header(changes: Value) -> String {
    let mut header = json!({ "alg": "ES256", "typ": "JWT", "kid": EC.public().thumbprint() });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(header.as_object_mut().unwrap().shift_remove(name)),
            value => header[name] = value.clone(),
        }
    }
    header.to_string()
}

/// A well-signed token with these changes of the header.
fn headed(changes: Value) -> String {
    es256(&header(changes), &claims().to_string())
}

fn judge(providers: &Providers, token: &str, now: i64) -> Result<Arc<Token>, Refusal> {
    match providers.verify(token, &at(now)) {
        Verified::Ok(token) => Ok(token),
        Verified::Refused(refusal) => Err(refusal),
        Verified::Wait(_) => panic!("nothing is fetched here"),
    }
}

/// Everything public about a key that somebody might take for a secret.
fn faces(public: &Public) -> Vec<(&'static str, Vec<u8>)> {
    let members = public.members();
    let part = |name: &str| members[name].as_str().map(|text| URL_SAFE_NO_PAD.decode(text).unwrap());
    let (x, y) = (part("x").unwrap(), part("y").unwrap());
    let point = [&[4][..], &x, &y].concat();
    let prefix = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
    let prefix: Vec<u8> =
        (0..prefix.len()).step_by(2).map(|at| u8::from_str_radix(&prefix[at..at + 2], 16).unwrap()).collect();
    let der = [&prefix[..], &point].concat();
    let body = STANDARD.encode(&der);
    let pem =
        format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----", &body[..64], &body[64..]);
    vec![
        ("PEM", pem.clone().into()),
        ("PEM with a line end", format!("{pem}\n").into()),
        ("PEM with the other line ends", format!("{pem}\n").replace('\n', "\r\n").into()),
        ("the body of the PEM", body.clone().into()),
        ("DER", der),
        ("the point", point),
        ("x and y", [&x[..], &y].concat()),
        ("x", x),
        ("JWK", members.to_string().into()),
        ("thumbprint", public.thumbprint().into()),
    ]
}

/// The two numbers of an ECDSA signature as DER, which JOSE does not use (RFC 7518 section 3.4).
fn to_der(signature: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
        let pad: &[u8] = if bytes[start] & 0x80 == 0 { &[] } else { &[0] };
        let bytes = [pad, &bytes[start..]].concat();
        [&[2, bytes.len() as u8][..], &bytes].concat()
    };
    let body = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [&[0x30, body.len() as u8][..], &body].concat()
}

/// The last character of `text` with a bit set that belongs to no byte.
fn unclean(text: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = text.split_at(text.len() - 1);
    let place = ALPHABET.find(last).unwrap();
    format!("{start}{}", &ALPHABET[place + 1..place + 2])
}

fn attacks() -> Vec<(String, String, Reason)> {
    use Reason::{TokenExpired, TokenInvalid, TokenMalformed, TokenNotYetValid};
    let good = says(json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let plain = claims().to_string();
    let es = header(json!({}));
    let mut all: Vec<(String, String, Reason)> = Vec::new();
    let mut add = |name: &str, token: String, reason| all.push((name.to_owned(), token, reason));

    // No token at all.
    add("nothing", String::new(), TokenMalformed);
    add("dots", "..".to_owned(), TokenMalformed);
    add("one part", head.to_owned(), TokenMalformed);
    add("two parts", format!("{head}.{body}"), TokenMalformed);
    add("four parts", format!("{good}."), TokenMalformed);
    add("five parts, as an encrypted token", format!("{good}.{body}.{signature}"), TokenMalformed);
    add(
        "flattened JSON",
        json!({ "protected": head, "payload": body, "signature": signature }).to_string(),
        TokenMalformed,
    );
    add(
        "general JSON",
        json!({ "payload": body, "signatures": [{ "protected": head, "signature": signature }] }).to_string(),
        TokenMalformed,
    );
    add("a space before", format!(" {good}"), TokenMalformed);
    add("a line end behind", format!("{good}\n"), TokenMalformed);
    add("NUL behind", format!("{good}\0"), TokenMalformed);
    add("a scheme before", format!("Bearer {good}"), TokenMalformed);
    add("another alphabet", good.replace(['-', '_'], "+") + "+", TokenMalformed);
    add("not ASCII", good.replace('e', "é"), TokenMalformed);
    add("full-width dots", good.replace('.', "．"), TokenMalformed);
    add("percent-encoded", good.replace('.', "%2E"), TokenMalformed);
    add("padding of the header", format!("{head}=.{body}.{signature}"), TokenMalformed);
    add("padding of the payload", format!("{head}.{body}==.{signature}"), TokenMalformed);
    add("padding of the signature", format!("{good}=="), TokenMalformed);
    add(
        "bits behind the end of the signature",
        format!("{head}.{body}.{}", unclean(signature)),
        TokenMalformed,
    );
    add("too long", headed(json!({ "x": "a".repeat(TOKEN_BYTES_MAX) })), TokenMalformed);
    add("a huge signature", format!("{head}.{body}.{}", "A".repeat(1 << 20)), TokenMalformed);

    // Headers that are none.
    add("header is text", es256("alg=ES256", &plain), TokenMalformed);
    add("header is a list", es256(&format!("[{es}]"), &plain), TokenMalformed);
    add("header is empty", format!(".{body}.{signature}"), TokenMalformed);
    add("header has something behind it", es256(&format!("{es}{{}}"), &plain), TokenMalformed);
    add("alg twice", es256(&es.replacen('{', "{\"alg\":\"none\",", 1), &plain), TokenMalformed);
    add(
        "alg twice, once escaped",
        es256(&es.replacen('{', "{\"\\u0061lg\":\"none\",", 1), &plain),
        TokenMalformed,
    );
    add("without alg", headed(json!({ "alg": null })), TokenMalformed);
    add("alg is a list", headed(json!({ "alg": ["ES256"] })), TokenMalformed);
    add("kid is a number", headed(json!({ "kid": 1 })), TokenMalformed);
    add("kid is huge", headed(json!({ "kid": "k".repeat(257) })), TokenMalformed);
    add("typ is a number", headed(json!({ "typ": 1 })), TokenMalformed);
    add("crit is empty", headed(json!({ "crit": [] })), TokenMalformed);
    add("crit is a text", headed(json!({ "crit": "exp" })), TokenMalformed);
    add("crit holds a number", headed(json!({ "crit": [1] })), TokenMalformed);

    // Headers that ask for too much.
    add("crit names what nobody knows", headed(json!({ "crit": ["pay"], "pay": 1 })), TokenInvalid);
    add("crit names what is not there", headed(json!({ "crit": ["exp"] })), TokenInvalid);
    add("crit names alg", headed(json!({ "crit": ["alg"] })), TokenInvalid);
    add("an unencoded payload", headed(json!({ "crit": ["b64"], "b64": false })), TokenInvalid);
    add("an unencoded payload, not critical", headed(json!({ "b64": false })), TokenInvalid);
    add("b64 is a text", headed(json!({ "b64": "true" })), TokenInvalid);
    add("jku", headed(json!({ "jku": "https://attacker.example/jwks.json" })), TokenInvalid);
    add("x5u", headed(json!({ "x5u": "https://attacker.example/cert.pem" })), TokenInvalid);
    add("jwk of our own key", headed(json!({ "jwk": EC.public().members() })), TokenInvalid);
    let own =
        |header: &str| token(header, &plain, |message| STRANGER.sign(Algorithm::Es256, message).unwrap());
    add(
        "jwk of the attacker's key",
        own(&header(json!({ "jwk": STRANGER.public().members() }))),
        TokenInvalid,
    );
    add("x5c of the attacker's key", own(&header(json!({ "x5c": ["MIIB"], "kid": null }))), TokenInvalid);
    add("a token within a token", headed(json!({ "cty": "JWT" })), TokenInvalid);
    add("a logout token", headed(json!({ "typ": "logout+jwt" })), TokenInvalid);
    add("a proof of possession", headed(json!({ "typ": "dpop+jwt" })), TokenInvalid);

    // Algorithms.
    for none in ["none", "None", "NONE", "nOnE", "", " none"] {
        let none = header(json!({ "alg": none, "kid": null }));
        add("alg none", token(&none, &plain, |_| Vec::new()), TokenInvalid);
        add("alg none with a signature", es256(&none, &plain), TokenInvalid);
    }
    add("alg in small letters", headed(json!({ "alg": "es256" })), TokenInvalid);
    add("alg with a space", headed(json!({ "alg": "ES256 " })), TokenInvalid);
    add("alg of another curve", headed(json!({ "alg": "ES384" })), TokenInvalid);
    add("alg that nobody has", headed(json!({ "alg": "ES257" })), TokenInvalid);
    add("alg of encryption", headed(json!({ "alg": "A256GCM" })), TokenInvalid);
    let rsa = |alg: &str, by| {
        let header = header(json!({ "alg": alg, "kid": RSA.public().thumbprint() }));
        token(&header, &plain, |message| RSA.sign(by, message).unwrap())
    };
    add("good under an algorithm that is not allowed", rsa("RS512", Algorithm::Rs512), TokenInvalid);
    add("good with the other padding", rsa("PS256", Algorithm::Ps256), TokenInvalid);
    add("PSS that says PKCS#1", rsa("RS256", Algorithm::Ps256), TokenInvalid);
    add("RS512 that says RS256", rsa("RS256", Algorithm::Rs512), TokenInvalid);
    for (face, bytes) in faces(EC.public()) {
        let header = header(json!({ "alg": "HS256" }));
        add(&format!("HS256 with the public key: {face}"), hs256(&bytes, &header, &plain), TokenInvalid);
        add(
            &format!("HS256 with the public key, without kid: {face}"),
            hs256(&bytes, "{\"alg\":\"HS256\"}", &plain),
            TokenInvalid,
        );
    }
    add("HS256 without a secret", hs256(b"", "{\"alg\":\"HS256\"}", &plain), TokenInvalid);

    // Keys.
    add("a key that nobody has", headed(json!({ "kid": "other" })), TokenInvalid);
    add("a key that is a path", headed(json!({ "kid": "../../../dev/null" })), TokenInvalid);
    add("a key that is a query", headed(json!({ "kid": "' OR 1=1 --" })), TokenInvalid);
    add("a key without a name", headed(json!({ "kid": "" })), TokenInvalid);
    add("a key of another kind", headed(json!({ "kid": RSA.public().thumbprint() })), TokenInvalid);
    add("a stranger's signature", own(&es), TokenInvalid);
    add(
        "a stranger's signature under a name of theirs",
        own(&header(json!({ "kid": STRANGER.public().thumbprint() }))),
        TokenInvalid,
    );

    // Signatures.
    let signed = |signature: Vec<u8>| format!("{head}.{body}.{}", encode(signature));
    add("no signature", format!("{head}.{body}."), TokenInvalid);
    add("a byte more", signed([&raw[..], &[0]].concat()), TokenInvalid);
    add("a byte before", signed([&[0][..], &raw].concat()), TokenInvalid);
    add("a byte less", signed(raw[..63].to_vec()), TokenInvalid);
    add("all zeros", signed(vec![0; 64]), TokenInvalid);
    add("all ones", signed(vec![0xff; 64]), TokenInvalid);
    add("r is zero", signed([&[0; 32][..], &raw[32..]].concat()), TokenInvalid);
    add("s is zero", signed([&raw[..32], &[0; 32][..]].concat()), TokenInvalid);
    add("r and s are one", signed([&[0; 31][..], &[1], &[0; 31], &[1]].concat()), TokenInvalid);
    add("DER", signed(to_der(&raw)), TokenInvalid);
    add("r and s swapped", signed([&raw[32..], &raw[..32]].concat()), TokenInvalid);
    add(
        "the signature in hex",
        signed(raw.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()),
        TokenInvalid,
    );
    add(
        "of another payload",
        format!("{head}.{}.{signature}", encode(with(json!({ "sub": "root" })))),
        TokenInvalid,
    );
    add(
        "of another header",
        format!("{}.{body}.{signature}", encode(header(json!({ "typ": "at+jwt" })))),
        TokenInvalid,
    );

    // Payloads that are none.
    add("payload is empty", es256(&es, ""), TokenMalformed);
    add("payload is text", es256(&es, "hello"), TokenMalformed);
    add("payload is a list", es256(&es, &format!("[{plain}]")), TokenMalformed);
    add("payload is null", es256(&es, "null"), TokenMalformed);
    add("payload has something behind it", es256(&es, &format!("{plain}{plain}")), TokenMalformed);
    add("payload begins with a mark", es256(&es, &format!("\u{feff}{plain}")), TokenMalformed);
    add("a claim twice", es256(&es, &plain.replacen('{', "{\"sub\":\"root\",", 1)), TokenMalformed);
    add(
        "a claim twice, once escaped",
        es256(&es, &plain.replacen('{', "{\"\\u0073ub\":\"root\",", 1)),
        TokenMalformed,
    );
    add(
        "a claim twice, further in",
        es256(&es, &plain.replacen('{', "{\"a\":{\"b\":1,\"b\":2},", 1)),
        TokenMalformed,
    );
    add(
        "nested without end",
        es256(&es, &plain.replacen('{', &format!("{{\"a\":{}{},", "[".repeat(900), "]".repeat(900)), 1)),
        TokenMalformed,
    );
    add("a number out of range", es256(&es, &plain.replacen('{', "{\"a\":1e999,", 1)), TokenMalformed);
    add(
        "not UTF-8",
        token(&es, "{\"sub\":\"?\"}", |message| message.to_vec())
            .replace(&encode("{\"sub\":\"?\"}"), &encode(b"{\"sub\":\"\xff\"}")),
        TokenMalformed,
    );

    // Claims.
    for (name, changes) in [
        ("iss missing", json!({ "iss": null })),
        ("iss of another", json!({ "iss": "https://attacker.example/" })),
        ("iss without its slash", json!({ "iss": "https://issuer.example" })),
        ("iss with more behind it", json!({ "iss": format!("{ISSUER}x") })),
        ("iss in capitals", json!({ "iss": ISSUER.to_uppercase() })),
        ("iss is a list", json!({ "iss": [ISSUER] })),
        ("iss is a number", json!({ "iss": 1 })),
        ("aud missing", json!({ "aud": null })),
        ("aud of another", json!({ "aud": "admin" })),
        ("aud is part of it", json!({ "aud": "sho" })),
        ("aud has it among others", json!({ "aud": "shop stock" })),
        ("aud is empty", json!({ "aud": [] })),
        ("aud lists others", json!({ "aud": ["admin", "shopping"] })),
        ("aud lists a number, too", json!({ "aud": ["shop", 1] })),
        ("aud is a number", json!({ "aud": 1 })),
        ("aud is an object", json!({ "aud": { "shop": true } })),
        ("aud is nested", json!({ "aud": [["shop"]] })),
        ("exp missing", json!({ "exp": null })),
        ("exp is a text", json!({ "exp": (NOW + 600).to_string() })),
        ("exp is a date", json!({ "exp": "2099-01-01T00:00:00Z" })),
        ("exp is true", json!({ "exp": true })),
        ("exp is a list", json!({ "exp": [NOW + 600] })),
        ("exp in milliseconds", json!({ "exp": (NOW + 600) * 1000 })),
        ("exp beyond all time", json!({ "exp": 1e300 })),
        ("exp is the largest number", json!({ "exp": u64::MAX })),
        ("nbf is a text", json!({ "nbf": "0" })),
        ("iat is a text", json!({ "iat": "0" })),
        ("sub missing, and required", json!({ "sub": null })),
        ("sub is a number", json!({ "sub": 1 })),
        ("sub is a list", json!({ "sub": ["alice", "root"] })),
        ("jti is a number", json!({ "jti": 1 })),
    ] {
        add(name, says(changes), TokenInvalid);
    }
    let null = |name: &str| es256(&es, &plain.replacen('{', &format!("{{\"{name}\":null,"), 1));
    add("nbf is null", null("nbf"), TokenInvalid);
    add("iat is null", null("iat"), TokenInvalid);
    add("jti is null", null("jti"), TokenInvalid);
    add(
        "exp is null",
        es256(&es, &with(json!({ "exp": null })).replacen('{', "{\"exp\":null,", 1)),
        TokenInvalid,
    );
    for (name, exp) in [
        ("exp is 0", json!(0)),
        ("exp before all time", json!(-1)),
        ("exp is over", json!(NOW - 3600)),
        ("exp is over to the second", json!(NOW - 60)),
        ("exp is over by a fraction", json!(NOW as f64 - 59.5 - 1.0)),
    ] {
        add(name, says(json!({ "exp": exp })), TokenExpired);
    }
    for (name, changes) in [
        ("nbf is to come", json!({ "nbf": NOW + 61 })),
        ("nbf is to come by a fraction", json!({ "nbf": NOW as f64 + 60.5 })),
        ("iat is to come", json!({ "iat": NOW + 3600 })),
        ("nbf is after exp", json!({ "nbf": NOW + 3600, "exp": NOW + 60 })),
    ] {
        add(name, says(changes), TokenNotYetValid);
    }
    all
}

/// What libraries and gateways were found to let through, and what they should never see: each refused, each with the
/// code that a client can act on.
#[test]
fn attacks_are_refused_with_the_right_code() {
    let (providers, attacks) = (both(), attacks());
    let mut wrong = Vec::new();
    for (name, token, expected) in &attacks {
        match judge(&providers, token, NOW) {
            Err(refusal) if refusal.reason == *expected => {}
            Err(refusal) => wrong.push(format!("{name}: {:?} ({})", refusal.reason, refusal.detail)),
            Ok(_) => wrong.push(format!("{name}: accepted")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(attacks.len() >= 60);
    assert!(judge(&providers, &says(json!({})), NOW).is_ok(), "and the token they were made from is good");
    println!("{} attacks", attacks.len());
}

/// A provider of secrets never takes what any key pair signed, nor any public text for its secret.
#[test]
fn a_shared_secret_is_that_secret_alone() {
    let (providers, plain) = (shared(), claims().to_string());
    let header = "{\"alg\":\"HS256\"}";
    assert!(judge(&providers, &hs256(SECRET, header, &plain), NOW).is_ok());
    for secret in [&b""[..], b"secret", &SECRET[..31], &[SECRET, b"\n"].concat()] {
        let refusal = judge(&providers, &hs256(secret, header, &plain), NOW).unwrap_err();
        assert_eq!(refusal.reason, Reason::TokenInvalid, "{secret:?}");
    }
    for alg in ["HS384", "HS512", "ES256", "RS256"] {
        let token = hs256(SECRET, &format!("{{\"alg\":\"{alg}\"}}"), &plain);
        assert_eq!(judge(&providers, &token, NOW).unwrap_err().reason, Reason::TokenInvalid, "{alg}");
    }
    assert_eq!(judge(&providers, &says(json!({})), NOW).unwrap_err().reason, Reason::TokenInvalid);
}

#[test]
fn good_tokens_are_taken_in_all_their_forms() {
    let providers = both();
    let rs256 = {
        let header = json!({ "alg": "RS256", "kid": RSA.public().thumbprint() }).to_string();
        token(&header, &claims().to_string(), |message| RSA.sign(Algorithm::Rs256, message).unwrap())
    };
    for token in [
        rs256,
        headed(json!({ "kid": null })),
        headed(json!({ "typ": null })),
        headed(json!({ "typ": "jwt" })),
        headed(json!({ "typ": "at+jwt" })),
        headed(json!({ "typ": "application/AT+JWT" })),
        headed(json!({ "b64": true })),
        headed(json!({ "x5t": "abc", "x5c": ["MIIB"], "other": {} })),
        says(json!({ "aud": ["admin", "stock"] })),
        says(json!({ "exp": NOW - 59 })),
        says(json!({ "exp": NOW as f64 + 0.5 })),
        says(json!({ "nbf": NOW + 60, "iat": NOW + 60 })),
        says(json!({ "nbf": 0, "iat": 0, "jti": "" })),
        es256(&header(json!({})), &format!(" \n{} ", claims())),
    ] {
        let verified = judge(&providers, &token, NOW);
        assert!(verified.is_ok(), "{verified:?}");
    }
}

#[test]
fn a_token_says_who_it_is() {
    let read = |roles_claim: &str, changes: Value| {
        let rules = Rules { roles_claim: roles_claim.into(), ..rules() };
        let key = verifying(EC.public(), algorithms(Algorithm::ALL));
        let providers = Providers::new([provider("local", rules, &[Algorithm::Es256], vec![key])]);
        judge(&providers, &says(changes), NOW).unwrap()
    };
    let token =
        read("roles", json!({ "jti": "1", "iat": NOW - 5, "scope": "read write", "roles": ["a b", "c", 1] }));
    assert_eq!(&*token.provider, "local");
    assert_eq!((token.subject.as_deref(), token.id.as_deref()), (Some("alice"), Some("1")));
    assert_eq!((token.issued_at, token.expires_at), (Some(NOW - 5), Some(NOW + 600)));
    assert_eq!(*token.roles, ["a b", "c"].map(Box::<str>::from));
    assert_eq!(*token.scopes, ["read", "write"].map(Box::<str>::from));
    let payload: Value = serde_json::from_slice(&token.payload).unwrap();
    assert_eq!(payload, Value::Object(token.claims.clone()));

    let roles = |claim: &str, changes: Value| read(claim, changes).roles.join(",");
    let url = "https://example.com/roles";
    assert_eq!(roles(url, json!({ url: ["x"] })), "x");
    assert_eq!(roles("realm_access.roles", json!({ "realm_access": { "roles": ["x", "y"] } })), "x,y");
    assert_eq!(roles("a.b", json!({ "a.b": "literal first", "a": { "b": ["path"] } })), "literal,first");
    assert_eq!(roles("a.b", json!({ "a.b": 1, "a": { "b": ["path"] } })), "");
    assert_eq!(roles("roles", json!({ "roles": "  a  b " })), "a,b");
    for nothing in
        [json!({}), json!({ "roles": { "a": 1 } }), json!({ "roles": 1 }), json!({ "roles": [["a"]] })]
    {
        assert_eq!(roles("roles", nothing), "");
    }
    assert_eq!(*read("roles", json!({ "scp": ["a", "b"] })).scopes, ["a", "b"].map(Box::<str>::from));
}

#[test]
fn a_type_that_is_demanded_has_to_be_there() {
    let rules = Rules { typ: Some("at+jwt".into()), ..rules() };
    let key = verifying(EC.public(), algorithms(Algorithm::ALL));
    let providers = Providers::new([provider("local", rules, &[Algorithm::Es256], vec![key])]);
    let judge = |typ: Value| judge(&providers, &headed(json!({ "typ": typ })), NOW).is_ok();
    assert!(judge(json!("at+jwt")) && judge(json!("application/at+JWT")));
    assert!(!judge(json!("JWT")) && !judge(Value::Null) && !judge(json!("application/")));
}

/// Of several providers the issuer decides which one judges, and nobody else is asked.
#[test]
fn the_issuer_decides_who_judges() {
    let key = |key: &SigningKey| vec![verifying(key.public(), algorithms(Algorithm::ALL))];
    let of = |name: &str, issuer: Option<&str>, signer: &SigningKey| {
        let rules = Rules { issuer: issuer.map(Into::into), ..rules() };
        provider(name, rules, &[Algorithm::Es256], key(signer))
    };
    let ours = of("ours", Some(ISSUER), &EC);
    let theirs = of("theirs", Some("theirs"), &STRANGER);
    let any = of("any", None, &STRANGER);
    let stranger = |issuer: &str| {
        let header = json!({ "alg": "ES256" }).to_string();
        token(&header, &with(json!({ "iss": issuer })), |message| {
            STRANGER.sign(Algorithm::Es256, message).unwrap()
        })
    };
    let providers = Providers::new([ours.clone(), theirs.clone()]);
    assert_eq!(&*judge(&providers, &says(json!({})), NOW).unwrap().provider, "ours");
    assert_eq!(&*judge(&providers, &stranger("theirs"), NOW).unwrap().provider, "theirs");
    let refusal = judge(&providers, &stranger(ISSUER), NOW).unwrap_err();
    assert!(refusal.detail.starts_with("provider ours: "), "{}", refusal.detail);
    assert_eq!(judge(&providers, &stranger("unknown"), NOW).unwrap_err().reason, Reason::TokenInvalid);
    assert_eq!(judge(&providers, &stranger("THEIRS"), NOW).unwrap_err().reason, Reason::TokenInvalid);

    let with_any = Providers::new([any.clone(), ours.clone()]);
    assert_eq!(&*judge(&with_any, &stranger("unknown"), NOW).unwrap().provider, "any");
    assert!(judge(&with_any, &stranger(ISSUER), NOW).is_err(), "ours alone judges its own");

    assert_eq!(Providers::alike(&[ours.clone(), theirs, any]), None);
    assert_eq!(Providers::alike(&[ours.clone(), ours]), Some((0, 1)));
    assert_eq!(judge(&Providers::default(), &says(json!({})), NOW).unwrap_err().reason, Reason::TokenInvalid);
}

/// A token that was seen before is the same object, and stops being one when it ends.
#[test]
fn a_verified_token_is_kept_until_it_ends() {
    let (providers, token) = (both(), says(json!({})));
    let first = judge(&providers, &token, NOW).unwrap();
    assert!(Arc::ptr_eq(&first, &judge(&providers, &token, NOW + 600 + 59).unwrap()));
    assert_eq!(judge(&providers, &token, NOW + 600 + 60).unwrap_err().reason, Reason::TokenExpired);
    assert_eq!(providers.all()[0].cached().0, 1);
    // What was refused is not kept, and a token of one provider is none of another with the same keys.
    let other = provider(
        "other",
        Rules { audience: ["admin".into()].into(), ..rules() },
        &[Algorithm::Es256],
        vec![verifying(EC.public(), algorithms(Algorithm::ALL))],
    );
    let other = Providers::new([other]);
    assert_eq!(judge(&other, &token, NOW).unwrap_err().reason, Reason::TokenInvalid);
    assert_eq!(other.all()[0].cached().0, 0);
}

/// RFC 7519 section 3.1, with the key of RFC 7515 appendix A.1.
#[test]
fn the_example_of_the_standard() {
    let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let key = Key::secret(None, &URL_SAFE_NO_PAD.decode(secret).unwrap(), algorithms(Algorithm::ALL));
    let rules = Rules {
        issuer: Some("joe".into()),
        audience: Box::default(),
        require: ["exp".into()].into(),
        ..rules()
    };
    let providers = Providers::new([provider("joe", rules, &[Algorithm::Hs256], vec![key])]);
    let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let read = judge(&providers, token, 1_300_819_000).unwrap();
    assert_eq!(read.claims["http://example.com/is_root"], true);
    assert_eq!(judge(&providers, token, NOW).unwrap_err().reason, Reason::TokenExpired);
}

proptest! {
    /// Whatever is sent, the answer is a refusal, not a panic, and one that fits into a log line.
    #[test]
    fn anything_at_all_is_refused(text in ".{0,300}", parts in prop::collection::vec("[A-Za-z0-9_-]{0,80}", 1..5)) {
        let providers = both();
        for token in [text, parts.join(".")] {
            let refusal = judge(&providers, &token, NOW).unwrap_err();
            prop_assert!(refusal.detail.len() < 400);
        }
    }

    /// Any JSON in a header and in a payload, well signed: accepted only if it says what it must.
    #[test]
    fn any_header_and_payload_is_judged(header in "\\{(\"(alg|kid|typ|crit|b64)\":(\"[A-Za-z0-9]{0,5}\"|[0-9]|null|\\[\\]),){0,3}\"alg\":\"ES256\"\\}", payload in "\\{(\"(iss|aud|exp|sub)\":(\"[a-z]{0,4}\"|[0-9]{1,12}|null|\\[\\]),){0,4}\"a\":1\\}") {
        prop_assert!(judge(&both(), &es256(&header, &payload), NOW).is_err());
    }

    /// A token with one character changed is no token any more.
    #[test]
    fn a_changed_token_is_refused(place in 0..usize::MAX, with in any::<char>(), what in 0..3) {
        let good = says(json!({ "roles": ["user"] }));
        let place = place % good.len();
        let mut changed: Vec<char> = good.chars().collect();
        match what {
            0 => changed[place] = with,
            1 => changed.insert(place, with),
            _ => drop(changed.remove(place)),
        }
        let changed: String = changed.into_iter().collect();
        prop_assume!(changed != good);
        prop_assert!(judge(&both(), &changed, NOW).is_err(), "{changed}");
    }
}
