//! Sets of methods, as `methods` and `Allow` have them.

use std::fmt;

use http::Method;

use super::Mistake;
use crate::base::names::nearest;

/// The methods that can be named: the common ones as `Allow` lists them, then what is registered with IANA or in use.
/// CONNECT and PRI are missing: neither ever reaches a route.
const NAMES: [&str; 45] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "ACL",
    "BAN",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "M-SEARCH",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "NOTIFY",
    "ORDERPATCH",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SUBSCRIBE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "VIEW",
];

/// A set of methods. Where GET is, HEAD is, too (RFC 9110 section 9.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MethodSet(u64);

impl MethodSet {
    /// No method.
    pub const EMPTY: Self = Self(0);

    /// The set of the method of this name, and HEAD with GET. Names are case-sensitive (RFC 9110 section 9.1).
    pub fn named(name: &str) -> Result<Self, Mistake> {
        match position(name) {
            Some(0) => Ok(Self(0b11)),
            Some(index) => Ok(Self(1 << index)),
            None if name == "CONNECT" => Err(Mistake::new(0..name.len(), "CONNECT is never routed")
                .hint("WebSocket and gRPC pass on GET and POST")),
            None => {
                let mistake = Mistake::new(0..name.len(), format!("\"{name}\" is not a known method"));
                Err(match nearest(name, NAMES) {
                    Some(near) => mistake.hint(format!("did you mean \"{near}\"?")),
                    None => mistake.hint("leave `methods` out for any method"),
                })
            }
        }
    }

    /// Whether `method` is among them. A method that cannot be named is in no set.
    pub fn contains(self, method: &Method) -> bool {
        bit(method).is_some_and(|bit| self.0 & bit != 0)
    }

    /// Both sets together.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among them.
    pub fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names, the common ones first.
    pub fn iter(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .into_iter()
            .enumerate()
            .filter(move |(index, _)| self.0 & (1 << index) != 0)
            .map(|(_, name)| name)
    }
}

/// As the value of `Allow` (RFC 9110 section 10.2.1).
impl fmt::Display for MethodSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

fn bit(method: &Method) -> Option<u64> {
    // The usual methods without comparing texts.
    let index = match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::PATCH => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        _ => position(method.as_str())?,
    };
    Some(1 << index)
}

fn position(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_own_bit() {
        let mut all = MethodSet::EMPTY;
        for name in NAMES {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            let set = MethodSet::named(name).unwrap();
            assert!(set.contains(&method) && set.iter().any(|known| known == name));
            assert_eq!(all.contains(&method), name == "HEAD", "{name}");
            all = all.union(set);
        }
        assert_eq!(all.iter().count(), NAMES.len());
        assert!(all.includes(MethodSet::EMPTY) && !MethodSet::EMPTY.includes(all));
    }

    #[test]
    fn get_brings_head_and_not_the_other_way() {
        assert_eq!(MethodSet::named("GET").unwrap().to_string(), "GET, HEAD");
        assert_eq!(MethodSet::named("HEAD").unwrap().to_string(), "HEAD");
    }

    #[test]
    fn mistyped_methods_get_a_suggestion() {
        assert_eq!(MethodSet::named("get").unwrap_err().hint.unwrap(), "did you mean \"GET\"?");
        assert_eq!(MethodSet::named("DELTE").unwrap_err().hint.unwrap(), "did you mean \"DELETE\"?");
        assert!(MethodSet::named("CONNECT").is_err() && MethodSet::named("").is_err());
        assert!(!MethodSet(u64::MAX).contains(&Method::CONNECT));
    }
}
