//! Which origins may read answers (RFC 6454 section 7, Fetch standard).

/// The origin of a page as browsers write it: `https://app.example.com`, with a port unless it is the scheme's own. Or all
/// below a domain: `https://*.example.com`, one label or more, not the domain itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OriginPattern {
    /// This one.
    Exact(Box<str>),
    /// What begins and ends so, with one label or more in between.
    Below {
        /// `https://`.
        scheme: Box<str>,
        /// `.example.com`, with its port.
        suffix: Box<str>,
    },
    /// Any.
    Any,
}

/// Longest origin: a scheme, a name of 253 bytes, a port.
const ORIGIN_BYTES_MAX: usize = 300;

impl OriginPattern {
    /// Reads it as an operator writes it; the error completes "`text` …".
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err("is what every sandboxed page and local file says: it tells nobody apart");
        }
        let Some((scheme, host)) = text.split_once("://") else {
            return Err("is not an origin such as \"https://app.example.com\"");
        };
        if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
            return Err("is not an origin such as \"https://app.example.com\"");
        }
        if host.is_empty() || text.len() > ORIGIN_BYTES_MAX || !text.is_ascii() {
            return Err("is not an origin such as \"https://app.example.com\"");
        }
        if host.contains(['/', '?', '#', '@']) {
            return Err(
                "is more than an origin: scheme, host and port, without a path or a slash at the end",
            );
        }
        let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
        let default_port = match scheme.as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        if !default_port.is_empty() && host.ends_with(default_port) {
            return Err("names the usual port, which browsers leave out");
        }
        let Some(suffix) = host.strip_prefix('*') else {
            if host.contains('*') {
                return Err("has a \"*\" that is not its first label, as in \"https://*.example.com\"");
            }
            return Ok(Self::Exact(format!("{scheme}://{host}").into()));
        };
        let is_domain =
            suffix.strip_prefix('.').is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.'));
        if !is_domain || suffix.contains('*') {
            return Err("has a \"*\" that is not its first label, as in \"https://*.example.com\"");
        }
        Ok(Self::Below { scheme: format!("{scheme}://").into(), suffix: suffix.into() })
    }

    /// Whether `origin`, as a browser sent it, is one of these.
    pub fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact.as_bytes() == origin,
            Self::Below { scheme, suffix } => {
                let labels = origin.strip_prefix(scheme.as_bytes());
                let labels = labels.and_then(|rest| rest.strip_suffix(suffix.as_bytes()));
                // Only what stands in names of hosts: no port, no user, no path.
                labels.is_some_and(|labels| {
                    !labels.is_empty()
                        && !labels.starts_with(b".")
                        && labels.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
                })
            }
        }
    }

    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(exact) => exact.to_string(),
            Self::Below { scheme, suffix } => format!("{scheme}*{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        OriginPattern::parse(pattern).unwrap().matches(origin.as_bytes())
    }

    #[test]
    fn origins_are_compared_whole() {
        assert!(matches("https://app.example.com", "https://app.example.com"));
        assert!(matches("HTTPS://App.Example.com", "https://app.example.com"));
        for other in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "https://app.example.co",
            "null",
            "",
        ] {
            assert!(!matches("https://app.example.com", other), "{other}");
            assert!(matches("*", other));
        }
    }

    #[test]
    fn below_a_domain_is_one_label_or_more() {
        let pattern = "https://*.example.com";
        assert!(matches(pattern, "https://a.example.com") && matches(pattern, "https://a.b-c.example.com"));
        for other in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.test/.example.com",
            "https://evil.test:80.example.com",
            "https://evil.test#.example.com",
            "https://user@a.example.com",
        ] {
            assert!(!matches(pattern, other), "{other}");
        }
        assert!(matches("https://*.example.com:8443", "https://a.example.com:8443"));
    }

    #[test]
    fn what_no_browser_sends_is_no_origin() {
        for wrong in [
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/app",
            "https://example.com:443",
            "http://example.com:80",
            "https://*",
            "https://*example.com",
            "https://a.*.example.com",
            "https://*.*.com",
            "null",
            "",
            "https://ex\u{e4}mple.com",
        ] {
            assert!(OriginPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
