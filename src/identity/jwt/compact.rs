//! The compact form of a signed token (RFC 7515 section 7.1), taken apart without believing any of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::json;
use crate::base::reason::Reason;
use crate::identity::token::Refusal;

/// Largest token looked at, in bytes; larger ones are refused before anything is decoded. What fits into a header beside
/// others, and four times what identity providers issue with a long list of groups.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Longest `kid` looked for. Those in use are thumbprints and UUIDs.
const KID_BYTES_MAX: usize = 256;

/// Header parameters that bring a key along or say where to get one. Believing them lets anybody sign (RFC 8725 section
/// 2.8); a token that tries is refused.
const KEY_CARRIERS: &[&str] = &["jku", "jwk", "x5u"];

/// A token in compact form. Nothing of it is verified.
#[derive(Debug)]
pub struct Jws<'t> {
    /// What it says to be signed with.
    pub algorithm: Algorithm,
    /// Which key it says to be signed with.
    pub key_id: Option<Box<str>>,
    /// What kind of token it says to be.
    pub typ: Option<Box<str>>,
    /// The payload, decoded.
    pub payload: Vec<u8>,
    /// What is signed: header and payload as they came.
    pub(crate) signed: &'t str,
    /// The signature, as it came: base64url.
    pub(crate) signature: &'t str,
}

impl<'t> Jws<'t> {
    /// Takes `text` apart.
    ///
    /// Refuses what is longer than [`TOKEN_BYTES_MAX`], has other than three parts, is not base64url without padding in
    /// its one form (RFC 4648 section 3.5: unused bits are 0), or whose header is not one JSON object with an algorithm
    /// that is known here; what carries a key along; what says that something in it must be understood (`crit`), since
    /// nothing of that kind is; and an unencoded payload (RFC 7797).
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`] for what is no such token at all, [`Reason::TokenInvalid`] for one that nobody may use.
    pub fn parse(text: &'t str) -> Result<Self, Refusal> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(malformed(format!("{} bytes long, more than {TOKEN_BYTES_MAX}", text.len())));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            let parts = memchr::memchr_iter(b'.', text.as_bytes()).count() + 1;
            return Err(malformed(format!("{parts} parts instead of three")));
        };
        let signed = text.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let header = decode(header, "header")?;
        let header = json::object(&header).map_err(|why| malformed(format!("header: {why}")))?;
        let payload = decode(payload, "payload")?;
        decode(signature, "signature")?;
        check_extensions(&header)?;
        let word = text_of(&header, "alg")?.ok_or_else(|| malformed("header without alg".to_owned()))?;
        let Some(algorithm) = Algorithm::from_word(word) else {
            return Err(invalid(format!("algorithm {} is not known here", shown(word))));
        };
        let key_id = text_of(&header, "kid")?;
        if key_id.is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
            return Err(malformed(format!("kid longer than {KID_BYTES_MAX} bytes")));
        }
        let typ = text_of(&header, "typ")?.map(Into::into);
        if text_of(&header, "cty")?.is_some_and(|cty| cty.eq_ignore_ascii_case("JWT")) {
            return Err(invalid("a token within a token".to_owned()));
        }
        Ok(Self { algorithm, key_id: key_id.map(Into::into), typ, payload, signed, signature })
    }
}

fn decode(part: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    // The engine refuses padding, other alphabets, and set bits at the end that belong to no byte.
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(format!("{what} is not base64url")))
}

fn check_extensions(header: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(critical) = header.get("crit") {
        let names = critical.as_array().filter(|names| !names.is_empty());
        let names: Option<Vec<&str>> = names.and_then(|names| names.iter().map(Value::as_str).collect());
        return Err(match names {
            Some(names) => invalid(format!("crit demands {}", shown(&names.join(", ")))),
            None => malformed("crit is not a list of names".to_owned()),
        });
    }
    if header.get("b64").is_some_and(|encoded| *encoded != Value::Bool(true)) {
        return Err(invalid("b64 is not true".to_owned()));
    }
    match KEY_CARRIERS.iter().find(|name| header.contains_key(**name)) {
        Some(name) => Err(invalid(format!("the header brings its own key ({name})"))),
        None => Ok(()),
    }
}

/// The string under `name`; another type is no such header.
fn text_of<'h>(header: &'h Map<String, Value>, name: &str) -> Result<Option<&'h str>, Refusal> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(malformed(format!("{name} of the header is not a string"))),
    }
}

/// Bytes of a client's text that a log line shows.
const SHOWN_BYTES_MAX: usize = 64;

/// `text` of a client for the log: quoted, escaped, and cut.
pub(crate) fn shown(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= SHOWN_BYTES_MAX).last();
    match end.filter(|_| text.len() > SHOWN_BYTES_MAX) {
        Some(end) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn malformed(detail: String) -> Refusal {
    Refusal::new(Reason::TokenMalformed, detail)
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Reason::TokenInvalid, detail)
}
