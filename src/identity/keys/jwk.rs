//! JSON Web Keys and sets of them (RFC 7517), as others publish them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{KEYS_MAX, Key, KeySet, Public};
use crate::identity::jwt::algorithm::{Algorithm, Algorithms, Kind};
use crate::identity::jwt::compact::shown;
use crate::identity::jwt::json;

/// Whether a set may hold secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// It is a file that only we read.
    Allowed,
    /// It is published: a secret in it is known to everybody.
    Refused,
}

/// Reads a set: `{"keys": […]}`, or a single key.
///
/// Keys that are broken, weak, or meant for something else are left out, each with a line in `skipped`; the others work.
/// A secret beside public keys is left out, too: whoever mixes them invites a public key to be taken for a secret.
///
/// # Errors
/// It is not a set at all; the text completes "the key set is …".
pub fn parse_set(bytes: &[u8], secrets: Secrets, skipped: &mut Vec<String>) -> Result<KeySet, String> {
    // RFC 7517 section 5 has it as an object; what is read leniently is read in two ways.
    let map = json::object(bytes)?;
    let single = map.contains_key("kty");
    let entries = match map.get("keys") {
        Some(Value::Array(keys)) => keys.iter().map(Value::as_object).collect(),
        None if single => vec![Some(&map)],
        Some(_) => return Err("without a list under \"keys\"".to_owned()),
        None => return Err("without \"keys\"".to_owned()),
    };
    if entries.len() > KEYS_MAX {
        skipped.push(format!("{} keys past the first {KEYS_MAX}", entries.len() - KEYS_MAX));
    }
    let mut keys = Vec::new();
    // Broken ones that would be good for signatures, by name and kind.
    let mut broken = Vec::new();
    for (index, entry) in entries.into_iter().take(KEYS_MAX).enumerate() {
        let member = |name| entry.and_then(|key| key.get(name)).and_then(Value::as_str);
        let name = match member("kid") {
            Some(kid) => format!("key {}", shown(kid)),
            None => format!("key {index}"),
        };
        match entry.ok_or_else(|| "not an object".to_owned()).and_then(parse_key) {
            Ok(key) => keys.push((name, member("kty"), key)),
            Err(why) => {
                skipped.push(format!("{name}: {why}"));
                if entry.is_some_and(is_for_signatures) {
                    broken.push((member("kid"), member("kty")));
                }
            }
        }
    }
    let mixed = keys.iter().any(|(_, _, key)| key.public.is_some());
    keys.retain(|(name, kty, key)| {
        let why = match (key.public.is_none(), secrets) {
            (true, Secrets::Refused) => "a published secret",
            (true, Secrets::Allowed) if mixed => "a secret beside public keys",
            // Which of the two is meant nobody can tell.
            _ if key.id.is_some() && broken.contains(&(key.id(), *kty)) => "a broken key has its name, too",
            _ => return true,
        };
        skipped.push(format!("{name}: {why}"));
        false
    });
    Ok(KeySet::new(keys.into_iter().map(|(_, _, key)| key)))
}

/// Whether `key`, broken or not, says to verify signatures of a kind known here.
fn is_for_signatures(key: &Map<String, Value>) -> bool {
    let has = |name: &str, fits: fn(&str) -> bool| {
        key.get(name).is_none_or(|value| value.as_str().is_some_and(fits))
    };
    has("use", |purpose| purpose == "sig")
        && has("alg", |word| Algorithm::from_word(word).is_some())
        && check_operations(key).is_ok()
}

/// Reads one key.
///
/// `kty`, `crv`, `alg`, `use` and `key_ops` have to agree with each other and with verifying signatures.
///
/// # Errors
/// Why it cannot be used.
fn parse_key(key: &Map<String, Value>) -> Result<Key, String> {
    let id: Option<Box<str>> = text(key, "kid")?.map(Into::into);
    if let Some(purpose) = text(key, "use")?
        && purpose != "sig"
    {
        return Err(format!("its use is {}", shown(purpose)));
    }
    check_operations(key)?;
    let algorithm = match text(key, "alg")? {
        None => None,
        Some(word) => {
            Some(Algorithm::from_word(word).ok_or_else(|| format!("its algorithm is {}", shown(word)))?)
        }
    };
    let allowed: Algorithms = match algorithm {
        Some(algorithm) => [algorithm].into_iter().collect(),
        None => Algorithm::ALL.iter().copied().collect(),
    };
    let key = match text(key, "kty")? {
        Some("oct") => Key::secret(id, &bytes(key, "k")?, allowed),
        Some(kty) => Key::public(id, public(kty, key)?, allowed),
        None => return Err("without kty".to_owned()),
    };
    if !key.algorithms().is_empty() {
        return Ok(key);
    }
    Err(match (algorithm, key.public_half()) {
        (Some(algorithm), Some(public)) => {
            format!("{} cannot serve {}", public.kind().describe(), algorithm.as_str())
        }
        (Some(algorithm), None) if algorithm.kind() == Kind::Secret => {
            format!("shorter than the {} bytes of {}", algorithm.secret_bytes_min(), algorithm.as_str())
        }
        (Some(algorithm), None) => format!("a secret cannot serve {}", algorithm.as_str()),
        (None, _) => "too short for any algorithm".to_owned(),
    })
}

/// `key_ops` (RFC 7517 section 4.3), if there, has to have `verify`, or for a secret or a private half `sign`; nothing twice.
fn check_operations(key: &Map<String, Value>) -> Result<(), String> {
    let Some(operations) = key.get("key_ops") else { return Ok(()) };
    let operations: Option<Vec<&str>> =
        operations.as_array().and_then(|operations| operations.iter().map(Value::as_str).collect());
    let operations = operations.ok_or("key_ops is not a list of strings")?;
    if operations.iter().enumerate().any(|(index, name)| operations.iter().skip(index + 1).any(|n| n == name))
    {
        return Err("key_ops has something twice".to_owned());
    }
    let is_secret = key.get("kty").and_then(Value::as_str) == Some("oct") || key.contains_key("d");
    if operations.iter().any(|name| *name == "verify" || is_secret && *name == "sign") {
        return Ok(());
    }
    Err("its key_ops do not have verify".to_owned())
}

fn public(kty: &str, key: &Map<String, Value>) -> Result<Public, String> {
    let made = match (kty, text(key, "crv")?) {
        ("RSA", None) => Public::rsa(&bytes(key, "n")?, &bytes(key, "e")?),
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (kind, length) = if curve == "P-256" { (Kind::P256, 32) } else { (Kind::P384, 48) };
            let (x, y) = (bytes(key, "x")?, bytes(key, "y")?);
            // RFC 7518 section 6.2.1.2: of full length, zeros included.
            if x.len() != length || y.len() != length {
                return Err(format!("its coordinates are not {length} bytes long"));
            }
            Public::ec(kind, &[&[4], &x[..], &y[..]].concat())
        }
        ("OKP", Some("Ed25519")) => Public::ed25519(&bytes(key, "x")?),
        ("EC" | "OKP", Some(curve)) => return Err(format!("its curve is {}", shown(curve))),
        ("EC" | "OKP", None) => return Err("without crv".to_owned()),
        ("RSA", Some(_)) => return Err("an RSA key with a curve".to_owned()),
        _ => return Err(format!("its kty is {}", shown(kty))),
    };
    made.map_err(|weak| format!("it {weak}"))
}

fn text<'k>(key: &'k Map<String, Value>, name: &str) -> Result<Option<&'k str>, String> {
    match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{name} is not a string")),
    }
}

fn bytes(key: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = text(key, name)?.ok_or_else(|| format!("without {name}"))?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{name} is not base64url"))
}
