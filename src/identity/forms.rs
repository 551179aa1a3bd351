//! How services read of a token: header values, made once a token and not once a request.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;

/// A value for a header, if there is one.
#[derive(Debug, Clone, Default)]
pub enum Form {
    /// There is nothing to say.
    #[default]
    Absent,
    /// It cannot stand in a header: control characters, or not ASCII.
    Unusable,
    /// It can.
    Value(HeaderValue),
}

impl Form {
    /// The value of a text. Only visible ASCII and spaces between it: bytes beyond that are read by every service in a
    /// way of its own.
    pub fn of(text: &str) -> Self {
        let visible = |byte: u8| (b' '..=b'~').contains(&byte);
        match HeaderValue::from_str(text) {
            _ if text.is_empty() => Self::Absent,
            Ok(value) if text.bytes().all(visible) && text.trim_matches(' ').len() == text.len() => {
                Self::Value(value)
            }
            _ => Self::Unusable,
        }
    }

    /// The values of texts, separated by commas; one that holds a comma would be two.
    pub fn list<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let mut list = String::new();
        for text in texts {
            if text.contains(',') {
                return Self::Unusable;
            }
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(text);
        }
        Self::of(&list)
    }
}

/// How claims are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 4648 section 5, without padding.
    Base64Url,
    /// RFC 4648 section 4, with padding.
    Base64,
}

/// The forms of one token, each made when it is first asked for.
#[derive(Debug, Default)]
pub struct Forms {
    subject: OnceLock<Form>,
    roles: OnceLock<Form>,
    base64url: OnceLock<Form>,
    base64: OnceLock<Form>,
}

impl Forms {
    pub(super) fn subject(&self, subject: Option<&str>) -> &Form {
        self.subject.get_or_init(|| subject.map(Form::of).unwrap_or_default())
    }

    pub(super) fn roles(&self, roles: &[Box<str>]) -> &Form {
        self.roles.get_or_init(|| Form::list(roles.iter().map(|role| &**role)))
    }

    pub(super) fn claims(&self, payload: &[u8], encoding: Encoding) -> &Form {
        let (form, engine) = match encoding {
            Encoding::Base64Url => (&self.base64url, &URL_SAFE_NO_PAD),
            Encoding::Base64 => (&self.base64, &STANDARD),
        };
        form.get_or_init(|| Form::of(&engine.encode(payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(form: &Form) -> &str {
        match form {
            Form::Absent => "absent",
            Form::Unusable => "unusable",
            Form::Value(value) => value.to_str().unwrap(),
        }
    }

    #[test]
    fn what_no_header_can_hold_is_told_apart_from_nothing() {
        for (text, expected) in [
            ("alice", "alice"),
            ("a b", "a b"),
            ("", "absent"),
            ("a\r\nX-Auth-Roles: admin", "unusable"),
            ("m\u{fc}ller", "unusable"),
            (" a", "unusable"),
            ("a\t", "unusable"),
        ] {
            assert_eq!(shown(&Form::of(text)), expected, "{text:?}");
        }
        assert_eq!(shown(&Form::list(["a", "b"].into_iter())), "a,b");
        assert_eq!(shown(&Form::list(["a,admin"].into_iter())), "unusable");
        assert_eq!(shown(&Form::list([].into_iter())), "absent");
        let forms = Forms::default();
        assert_eq!(shown(forms.claims(b"{\"a\":\"?>\"}", Encoding::Base64Url)), "eyJhIjoiPz4ifQ");
        assert_eq!(shown(forms.claims(b"{\"a\":\"?>\"}", Encoding::Base64)), "eyJhIjoiPz4ifQ==");
    }
}
