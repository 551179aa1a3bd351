//! nginx's strings with variables, and what the variables are called here.

use std::collections::BTreeMap;

/// A piece of a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    /// A variable, without `$`; a digit is a capture.
    Var(String),
}

/// Splits a string at its variables: `$name`, `${name}`, `$1`.
pub(super) fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, ""));
        push_text(&mut parts, before);
        let after = after.get(1..).unwrap_or_default();
        let (name, left) =
            if let Some((name, left)) = after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                (name, left)
            } else {
                // A capture is one digit, whatever follows.
                let capture = after.starts_with(|c: char| c.is_ascii_digit());
                let length = if capture {
                    1
                } else {
                    after.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
                };
                after.split_at_checked(length).unwrap_or(("", after))
            };
        if name.is_empty() {
            push_text(&mut parts, "$");
        } else {
            parts.push(Part::Var(name.to_owned()));
        }
        rest = left;
    }
    push_text(&mut parts, rest);
    parts
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Text(last)) => last.push_str(text),
        _ => parts.push(Part::Text(text.to_owned())),
    }
}

/// What variables are known to hold: by `set`, by the host and scheme at hand, by the regex around.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    known: BTreeMap<String, Vec<Part>>,
    /// Names of groups of the regex that the path was matched by.
    groups: Vec<String>,
    /// How many groups it has: `$1` and so on.
    captures: usize,
    /// Hosts that the request has not got.
    no_hosts: Vec<String>,
}

/// Most that is looked at for a value: `set` can double it line by line.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Deepest that variables refer to variables.
const DEPTH_MAX: usize = 8;

impl Env {
    pub(super) fn set(&mut self, name: &str, value: Vec<Part>) {
        self.known.insert(name.to_owned(), value);
    }

    pub(super) fn set_text(&mut self, name: &str, value: &str) {
        self.set(name, vec![Part::Text(value.to_owned())]);
    }

    /// The same for a path that `regex` matched; `None`: no regex did.
    pub(super) fn matched_by(&self, regex: Option<&str>) -> Self {
        let compiled = regex.and_then(|regex| regex::bytes::Regex::new(regex).ok());
        let groups =
            |regex: &regex::bytes::Regex| regex.capture_names().flatten().map(str::to_owned).collect();
        Self {
            known: self.known.clone(),
            groups: compiled.as_ref().map(groups).unwrap_or_default(),
            captures: compiled.as_ref().map_or(0, |regex| regex.captures_len() - 1),
            no_hosts: self.no_hosts.clone(),
        }
    }

    /// Notes that the request has none of these hosts.
    pub(super) fn exclude_hosts(&mut self, hosts: Vec<String>) {
        self.no_hosts = hosts;
    }

    /// Whether the request has surely not got this host.
    pub(super) fn is_no_host(&self, host: &str) -> bool {
        self.no_hosts.iter().any(|known| known == host)
    }

    /// The capture that a variable names: a number or a name of a group.
    pub(super) fn capture<'n>(&self, name: &'n str) -> Option<&'n str> {
        let number = name.parse::<usize>().ok().filter(|_| name.len() == 1);
        match number {
            Some(number) => (1..=self.captures).contains(&number).then_some(name),
            None => self.groups.iter().any(|group| group == name).then_some(name),
        }
    }

    /// Makes `name` unknown.
    pub(super) fn forget(&mut self, name: &str) {
        self.known.insert(name.to_owned(), vec![Part::Var(format!("{name} (set under a condition)"))]);
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.known.contains_key(name)
    }

    /// The pieces of `text` with every known variable replaced.
    pub(super) fn expand(&self, text: &str) -> Vec<Part> {
        let mut left = VALUE_BYTES_MAX;
        self.resolve(parts(text), 0, &mut left)
            .unwrap_or_else(|| vec![Part::Var("a value longer than 64 KiB".to_owned())])
    }

    /// `left`: how much may be looked at, on all levels together; `None` if there is more.
    fn resolve(&self, parts: Vec<Part>, depth: usize, left: &mut usize) -> Option<Vec<Part>> {
        let mut out = Vec::new();
        for part in parts {
            let (Part::Text(text) | Part::Var(text)) = &part;
            *left = left.checked_sub(text.len() + 1)?;
            match part {
                Part::Text(text) => push_text(&mut out, &text),
                Part::Var(name) => match self.known.get(&name) {
                    Some(value) if depth < DEPTH_MAX => {
                        for part in self.resolve(value.clone(), depth + 1, left)? {
                            match part {
                                Part::Text(text) => push_text(&mut out, &text),
                                var @ Part::Var(_) => out.push(var),
                            }
                        }
                    }
                    _ => out.push(Part::Var(name)),
                },
            }
        }
        Some(out)
    }

    /// The text, if nothing in it depends on the request.
    pub(super) fn constant(&self, text: &str) -> Option<String> {
        match self.expand(text).as_slice() {
            [] => Some(String::new()),
            [Part::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    /// A template for a header's value; the variable that has no equivalent otherwise.
    pub(super) fn template(&self, parts: &[Part]) -> Result<String, String> {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text(text) => out.push_str(&escape(text)),
                Part::Var(name) => match self.reference(name) {
                    Some(reference) => out.push_str(&format!("{{{reference}}}")),
                    None => return Err(name.clone()),
                },
            }
        }
        Ok(out)
    }

    /// What a variable is called in templates.
    pub(super) fn reference(&self, name: &str) -> Option<String> {
        if let Some(capture) = self.capture(name) {
            return Some(format!("path.{capture}"));
        }
        let lower = name.to_ascii_lowercase();
        Some(match lower.as_str() {
            "host" | "http_host" => "request.host".to_owned(),
            "remote_addr" | "realip_remote_addr" | "proxy_protocol_addr" => "client.ip".to_owned(),
            "request_id" => "request.id".to_owned(),
            "request_method" => "request.method".to_owned(),
            "scheme" => "request.scheme".to_owned(),
            "uri" | "document_uri" => "request.path".to_owned(),
            "ssl_client_s_dn" => "client.cert.subject".to_owned(),
            "ssl_client_i_dn" => "client.cert.issuer".to_owned(),
            "ssl_client_serial" => "client.cert.serial".to_owned(),
            other => {
                if let Some(name) = other.strip_prefix("arg_") {
                    format!("query.{name}")
                } else if let Some(name) = other.strip_prefix("cookie_") {
                    format!("cookie.{name}")
                } else if let Some(name) = other.strip_prefix("http_") {
                    format!("header.{}", name.replace('_', "-"))
                } else {
                    return None;
                }
            }
        })
    }
}

/// Literal text of a template.
pub(super) fn escape(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn var(name: &str) -> Part {
        Part::Var(name.to_owned())
    }
    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    #[test]
    fn strings_are_split_at_variables() {
        assert_eq!(
            parts("a$b-${c}d$12$"),
            [text("a"), var("b"), text("-"), var("c"), text("d"), var("1"), text("2$")]
        );
        assert_eq!(parts(""), []);
        assert_eq!(parts("$$x"), [text("$"), var("x")]);
    }

    #[test]
    fn known_variables_are_replaced_all_the_way() {
        let mut env = Env::default();
        env.set_text("port", "80");
        env.set("backend", parts("app:$port"));
        assert_eq!(env.constant("http://$backend/"), Some("http://app:80/".to_owned()));
        assert_eq!(env.constant("$host"), None);
        for _ in 0..60 {
            env.set("twice", env.expand("$twice$twice"));
        }
        env.set_text("twice", "xx");
        for _ in 0..60 {
            env.set("twice", env.expand("$twice$twice"));
        }
        assert_eq!(env.constant("$twice"), None, "bounded");
        env.set("loop", parts("$loop"));
        assert_eq!(env.constant("$loop"), None);
        assert_eq!(
            env.template(&env.expand("{$host} $http_x_a $port")),
            Ok("{{{request.host}}} {header.x-a} 80".to_owned())
        );
        assert_eq!(env.template(&env.expand("$1")), Err("1".to_owned()));
        let env = env.matched_by(Some("^/(.*)$"));
        assert_eq!(env.template(&env.expand("$2")), Err("2".to_owned()));
        assert_eq!(env.template(&env.expand("$1")), Ok("{path.1}".to_owned()));
    }
}
