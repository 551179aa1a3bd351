//! Where a store is: `sqlite:PATH` or `postgres://…`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

use crate::base::decode::{Decoder, Node, Shape, Value, quote};
use crate::base::secret::Secret;
use crate::routing::escape::{decode_query, query_pairs};

/// Where a store is. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file of SQLite.
    Sqlite(PathBuf),
    /// A database of PostgreSQL: the whole URL.
    Postgres(Secret),
}

impl StoreUrl {
    /// Reads `text`; a relative path is handed to `resolve`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with it.
    pub fn parse(text: &str, resolve: impl FnOnce(&str) -> PathBuf) -> Result<Self, String> {
        let scheme = text.split(':').next().unwrap_or_default();
        match scheme {
            "sqlite" => {
                let path = text.get("sqlite:".len()..).unwrap_or_default();
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() {
                    return Err("names no file".to_owned());
                }
                if path.contains(":memory:") {
                    return Err("would forget everything with the process: name a file".to_owned());
                }
                if path.contains(['?', '#', '\0']) {
                    return Err("takes no parameters: only the path of a file".to_owned());
                }
                Ok(Self::Sqlite(resolve(path)))
            }
            "postgres" | "postgresql" => {
                if has_unknown_parameter(text) {
                    // Not which: it may be the end of a password with a `?` in it.
                    return Err(
                        "has a parameter that is not known (a \"?\" of a password is written %3F)".to_owned()
                    );
                }
                // Not what the library says: it repeats what it does not understand, be it the password.
                PgConnectOptions::from_str(text).map_err(|_| "is not understood")?;
                Ok(Self::Postgres(Secret::new(text.to_owned())))
            }
            _ => Err("is neither sqlite:PATH nor postgres://USER:PASSWORD@HOST/DATABASE".to_owned()),
        }
    }
}

/// The parameters that sqlx knows. It would log others, values and all.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

fn has_unknown_parameter(url: &str) -> bool {
    let url = url.split('#').next().unwrap_or_default();
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query_pairs(query).any(|(name, _)| {
        let name = decode_query(name);
        !PARAMETERS.iter().any(|known| known.as_bytes() == &*name) && !name.starts_with(b"options[")
    })
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url.expose())),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `url` with `***` for a password, in its authority and among its parameters.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => authority.to_owned(),
    };
    let Some((path, query)) = rest.split_once('?') else { return format!("{scheme}://{authority}{rest}") };
    let is_secret = |name: &str| name.eq_ignore_ascii_case("password") || name.contains('%');
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query: Vec<_> = query.split('&').map(shown).collect();
    format!("{scheme}://{authority}{path}?{}", query.join("&"))
}

impl Value for StoreUrl {
    fn shape() -> Shape {
        Secret::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = match node.as_str() {
            // Nothing secret, and worth showing.
            Some(text) if text.starts_with("sqlite:") => Secret::new(text.to_owned()),
            _ => Secret::decode_url(node, cx)?,
        };
        match Self::parse(text.expose(), |path| cx.resolve(&node.origin, path)) {
            Ok(url) => Some(url),
            Err(why) => {
                // Not the text itself: a typing error in it must not show the password.
                cx.error("invalid-value", &node.origin, format!("this URL {why}")).hint = Some(
                    "such as \"sqlite:run/edgeward.db\" or \"postgres://user:password@host/database\""
                        .to_owned(),
                );
                None
            }
        }
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreUrl, String> {
        StoreUrl::parse(text, |path| PathBuf::from("/etc/edgeward").join(path))
    }

    #[test]
    fn files_are_relative_to_who_names_them() {
        assert_eq!(parse("sqlite:run/x.db").unwrap(), StoreUrl::Sqlite("/etc/edgeward/run/x.db".into()));
        for absolute in ["sqlite:/var/x.db", "sqlite:///var/x.db"] {
            assert_eq!(parse(absolute).unwrap().to_string(), "sqlite:/var/x.db");
        }
        for wrong in ["sqlite:", "sqlite::memory:", "sqlite:x?mode=rw", "mysql://x", "x.db", ""] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_does_not_repeat_it() {
        for url in [
            "postgres://me:s3cret@db:nonsense/edge",
            "postgres://me:s3/cret@db/edge",
            "postgres://me:x?s3cret@db/edge",
            "postgres://db/edge?sslmode=s3cret",
            "postgres://db/edge?passwd=s3cret",
            "postgres://db/edge?port=s3cret",
            "postgres://me:%ff%s3cret@db/edge",
            "mysql://me:s3cret@db",
        ] {
            let why = parse(url).expect_err(url);
            assert!(!why.contains("cret") && !why.contains("passwd"), "{url} {why}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://me:s3cret@db:5433/edge", "postgres://me:***@db:5433/edge"),
            ("postgres://me:s3%40cret@db", "postgres://me:***@db"),
            ("postgresql://me@db/edge?sslmode=require", "postgresql://me@db/edge?sslmode=require"),
            ("postgres://db/edge?user=me&password=s3cret", "postgres://db/edge?user=me&password=***"),
            ("postgres://db/edge?pass%77ord=s3cret", "postgres://db/edge?pass%77ord=***"),
            ("postgres:///edge?host=/run/pg", "postgres:///edge?host=/run/pg"),
        ] {
            let parsed = parse(url).unwrap_or_else(|why| panic!("{url} {why}"));
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
        }
    }
}
