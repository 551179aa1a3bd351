//! What a login, a refresh or a logout says: a small JSON object of strings, read strictly.
//!
//! What two programs could read in two ways is refused: members that come twice, members of other kinds, other members.

use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::de::SliceRead;

use crate::identity::password::PASSWORD_BYTES_MAX;

/// Longest body of these requests, in bytes.
pub const BODY_BYTES_MAX: usize = 4096;

/// Longest name of a user, in bytes.
pub const USERNAME_BYTES_MAX: usize = 256;

/// A name and the password that is to prove it.
#[derive(PartialEq, Eq)]
pub struct Credentials {
    /// Whose it is said to be.
    pub username: String,
    /// Never shown.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Whether `content_type` says JSON (RFC 8259): nothing else is read, which also keeps forms of other sites out, for
/// which browsers ask nobody.
pub fn is_json(content_type: Option<&[u8]>) -> bool {
    let Some(text) = content_type.and_then(|value| std::str::from_utf8(value).ok()) else { return false };
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    essence.eq_ignore_ascii_case("application/json")
        && parts.all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}

/// Reads `{"username": "…", "password": "…"}`, or says what is wrong with it.
pub fn credentials(body: &[u8]) -> Result<Credentials, String> {
    let [username, password] = members(body, ["username", "password"])?;
    let username = username.ok_or("`username` is missing")?;
    let password = password.ok_or("`password` is missing")?;
    if username.is_empty() || username.len() > USERNAME_BYTES_MAX || username.chars().any(char::is_control) {
        return Err("`username` is empty, too long, or holds control characters".to_owned());
    }
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        return Err("`password` is empty or too long".to_owned());
    }
    Ok(Credentials { username, password })
}

/// Reads `{"refresh_token": "…"}`, or says what is wrong with it.
pub fn refresh_token(body: &[u8]) -> Result<String, String> {
    let [token] = members(body, ["refresh_token"])?;
    token.filter(|token| !token.is_empty()).ok_or_else(|| "`refresh_token` is missing or empty".to_owned())
}

/// The members called `names` of the JSON object in `body`, which has no others.
fn members<const N: usize>(body: &[u8], names: [&'static str; N]) -> Result<[Option<String>; N], String> {
    if body.len() > BODY_BYTES_MAX {
        return Err(format!("the body is longer than {BODY_BYTES_MAX} bytes"));
    }
    let mut reader = serde_json::Deserializer::new(SliceRead::new(body));
    let read = reader.deserialize_map(Members { names }).and_then(|read| reader.end().map(|()| read));
    // The message names lines and columns, and no values.
    read.map_err(|error| format!("the body: {error}"))
}

struct Members<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<String>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found: Self::Value = std::array::from_fn(|_| None);
        while let Some(name) = map.next_key::<String>()? {
            let place = self.names.iter().position(|known| *known == name);
            let Some(place) = place.and_then(|place| found.get_mut(place)) else {
                let names = self.names.map(|name| format!("`{name}`")).join(" and ");
                return Err(A::Error::custom(format!("it has another member than {names}")));
            };
            let known = self.names.iter().find(|known| **known == name).copied().unwrap_or_default();
            // A value of another kind is told by its kind: serde's own message shows it, and it may be a password.
            match map.next_value::<Member>()? {
                Member::Text(text) if place.is_none() => *place = Some(text),
                Member::Text(_) => {
                    return Err(A::Error::custom(format!("`{known}` stands there twice")));
                }
                Member::Other(kind) => {
                    let message = format!("`{known}` is {kind}, and has to be a string");
                    return Err(A::Error::custom(message));
                }
            }
        }
        Ok(found)
    }
}

/// A string; of anything else, what kind of thing it is.
enum Member {
    Text(String),
    Other(&'static str),
}

impl<'de> serde::Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Quiet;
        impl<'de> Visitor<'de> for Quiet {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Member, E> {
                Ok(Member::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Member, E> {
                Ok(Member::Other("a number"))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Member, E> {
                Ok(Member::Other("a number"))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Member, E> {
                Ok(Member::Other("a number"))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Member, E> {
                Ok(Member::Other("true or false"))
            }

            fn visit_unit<E: Error>(self) -> Result<Member, E> {
                Ok(Member::Other("null"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Member::Other("a list"))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Member::Other("an object"))
            }
        }
        deserializer.deserialize_any(Quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_whole() {
        let read = credentials(br#" {"password": "p\u00e4ss \"1\"", "username": "alice@example.com"} "#);
        let wanted = Credentials { username: "alice@example.com".into(), password: "p\u{e4}ss \"1\"".into() };
        assert_eq!(read, Ok(wanted));
        assert_eq!(refresh_token(br#"{"refresh_token":"abc"}"#), Ok("abc".into()));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let nested = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
        let long = format!(r#"{{"username":"a","password":"{}"}}"#, "x".repeat(PASSWORD_BYTES_MAX + 1));
        let padded = format!(r#"{{"username":"a","password":"b"}}{}"#, " ".repeat(BODY_BYTES_MAX));
        let nested_value = format!(r#"{{"username":"a","password":{nested}}}"#);
        for body in [
            "",
            "null",
            "1",
            "[]",
            "\"username\"",
            "username=a&password=b",
            "{}",
            r#"{"username":"a"}"#,
            r#"{"password":"b"}"#,
            r#"{"username":"a","password":"b""#,
            r#"{"username":"a","password":"b"}x"#,
            r#"{"username":"a","password":"b"}{"username":"a","password":"b"}"#,
            r#"{"username":"a","password":"b",}"#,
            r#"{"username":"a","username":"b","password":"b"}"#,
            r#"{"username":"a","\u0075sername":"b","password":"b"}"#,
            r#"{"username":"a","password":"b","password":"c"}"#,
            r#"{"username":"a","password":"b","admin":true}"#,
            r#"{"username":"a","password":"b","extra":{"username":"c"}}"#,
            r#"{"username":["a"],"password":"b"}"#,
            r#"{"username":{"a":"b"},"password":"b"}"#,
            r#"{"username":"a","password":1234}"#,
            r#"{"username":"a","password":12.5}"#,
            r#"{"username":"a","password":-3}"#,
            r#"{"username":"a","password":null}"#,
            r#"{"username":"a","password":true}"#,
            r#"{"username":"","password":"b"}"#,
            r#"{"username":"a","password":""}"#,
            r#"{"username":"a\u0000","password":"b"}"#,
            r#"{"username":"a\nb","password":"b"}"#,
            r#"{"username":"\ud800","password":"b"}"#,
            r#"{'username':'a','password':'b'}"#,
            "\u{feff}{\"username\":\"a\",\"password\":\"b\"}",
            &nested,
            &nested_value,
            &long,
            &padded,
        ] {
            let read = credentials(body.as_bytes());
            let Err(why) = read else { panic!("{body:?}: {read:?}") };
            assert!(!why.contains("1234") && !why.contains("12.5"), "{why}");
        }
        assert!(credentials(b"{\"username\":\"\xff\",\"password\":\"b\"}").is_err());
        for (body, wanted) in [
            ("{}", "`username` is missing"),
            (r#"{"username":"a"}"#, "`password` is missing"),
            (r#"{"username":"a","password":12345}"#, "`password` is a number, and has to be a string"),
            (r#"{"username":"a","password":{"s3cret":[1]}}"#, "`password` is an object, and"),
            (r#"{"username":["s3cret"],"password":"b"}"#, "`username` is a list, and has to be a string"),
            (r#"{"username":"a","password":null}"#, "`password` is null, and has to be a string"),
            (r#"{"username":"a","s3cret":"b"}"#, "it has another member than `username` and `password`"),
            (r#"{"username":"a","username":"s3cret"}"#, "`username` stands there twice"),
        ] {
            let why = credentials(body.as_bytes()).unwrap_err();
            assert!(
                why.contains(wanted) && !why.contains("s3cret") && !why.contains("12345"),
                "{body}: {why}"
            );
        }
        assert!(refresh_token(br#"{"refresh_token":""}"#).is_err());
        assert!(refresh_token(br#"{"username":"a","password":"b"}"#).is_err());
    }

    #[test]
    fn only_json_is_read() {
        for yes in
            ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""]
        {
            assert!(is_json(Some(yes.as_bytes())), "{yes}");
        }
        for no in [
            "",
            "text/plain",
            "text/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json-patch+json",
            "application/json; charset=utf-16",
            "text/plain; application/json",
        ] {
            assert!(!is_json(Some(no.as_bytes())), "{no}");
        }
        assert!(!is_json(None) && !is_json(Some(b"\xff")));
    }
}
