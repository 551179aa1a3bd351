//! `${NAME}` and `${NAME:-default}` in string values.
//!
//! Runs on the parsed tree, so a variable can fill a value but never add a key. Empty counts as unset. `$${` is a literal
//! `${`; `$name` and a lone `$` stay as they are, for log formats.

use super::path;
use super::tree::{Kind, Node};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Origin;

/// Longest value a substitution may give, in bytes.
const SUBSTITUTED_BYTES_MAX: usize = 1 << 20;

/// Most that all substitutions of one file may give, in bytes: a small file that names a long variable often must not
/// become a large one.
const SUBSTITUTED_IN_ALL_MAX: usize = 64 << 20;

/// Replaces variables in every string under `node`; `env` looks a variable up.
///
/// A variable that is unset and has no default is an error that names the key and the variable.
pub fn substitute(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, out: &mut Diagnostics) {
    let mut visitor = Visitor { path: String::new(), left: SUBSTITUTED_IN_ALL_MAX, env, out };
    visitor.visit(node);
}

struct Visitor<'a> {
    path: String,
    /// Bytes that may still come of substitutions.
    left: usize,
    env: &'a dyn Fn(&str) -> Option<String>,
    out: &'a mut Diagnostics,
}

impl Visitor<'_> {
    fn visit(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Table(table) => {
                for (key, entry) in table {
                    let length = self.path.len();
                    path::push_key(&mut self.path, key);
                    self.visit(&mut entry.node);
                    self.path.truncate(length);
                }
            }
            Kind::Array(nodes) => {
                for (index, inner) in nodes.iter_mut().enumerate() {
                    let length = self.path.len();
                    path::push_index(&mut self.path, index);
                    self.visit(inner);
                    self.path.truncate(length);
                }
            }
            Kind::String { text, substituted } if text.contains("${") => {
                let expanded = expand(text, self.env).and_then(|(expanded, replaced)| {
                    self.left = self.left.checked_sub(expanded.len()).ok_or(Problem::TooMuch)?;
                    Ok((expanded, replaced))
                });
                match expanded {
                    Ok((expanded, replaced)) => {
                        *text = expanded;
                        *substituted = replaced;
                    }
                    Err(problem) => {
                        report(&problem, &node.origin, &self.path, self.out);
                        node.kind = Kind::Broken;
                    }
                }
            }
            _ => {}
        }
    }
}

/// Why a text cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    Unset(String),
    BadName(String),
    Unclosed,
    TooLong,
    TooMuch,
}

fn report(problem: &Problem, origin: &Origin, path: &str, out: &mut Diagnostics) {
    match problem {
        Problem::Unset(name) => out
            .error(
                "unset-variable",
                origin,
                path,
                format!("{path} needs the variable {name}, which is not set"),
            )
            .hint(format!("set {name}, or give a default: ${{{name}:-value}}")),
        Problem::BadName(name) => out
            .error("bad-substitution", origin, path, format!("\"{name}\" is no name of a variable"))
            .hint("write $${ for a literal ${"),
        Problem::Unclosed => out
            .error("bad-substitution", origin, path, "\"${\" is never closed")
            .hint("write $${ for a literal ${"),
        Problem::TooLong => out.error("bad-substitution", origin, path, "the substituted value is too long"),
        Problem::TooMuch => {
            let message = format!(
                "all substituted values of the file are longer than {} MiB",
                SUBSTITUTED_IN_ALL_MAX >> 20
            );
            out.error("bad-substitution", origin, path, message)
        }
    };
}

/// The text with its variables replaced, and whether there were any.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, bool), Problem> {
    let mut result = String::with_capacity(text.len());
    let mut replaced = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let after = from.get(2..).unwrap_or("");
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        }
        result.push_str(before);
        let (inner, behind) = after.split_once('}').ok_or(Problem::Unclosed)?;
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        if !is_name(name) {
            return Err(Problem::BadName(name.to_owned()));
        }
        match (env(name).filter(|value| !value.is_empty()), default) {
            (Some(value), _) => result.push_str(&value),
            (None, Some(default)) => result.push_str(default),
            (None, None) => return Err(Problem::Unset(name.to_owned())),
        }
        if result.len() > SUBSTITUTED_BYTES_MAX {
            return Err(Problem::TooLong);
        }
        replaced = true;
        rest = behind;
    }
    result.push_str(rest);
    Ok((result, replaced))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::decode::tree;
    use crate::base::origin::FileId;

    fn env(name: &str) -> Option<String> {
        match name {
            "PORT" => Some("8080".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICK" => Some("${PORT}\"\nx = 1".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_escapes() {
        let expand = |text| expand(text, &env);
        assert_eq!(expand("127.0.0.1:${PORT}"), Ok(("127.0.0.1:8080".to_owned(), true)));
        assert_eq!(expand("${NONE:-a}${EMPTY:-b}${NONE:-}"), Ok(("ab".to_owned(), true)));
        assert_eq!(expand("$${PORT} $remote_addr $"), Ok(("${PORT} $remote_addr $".to_owned(), false)));
        assert_eq!(expand("${TRICK}"), Ok(("${PORT}\"\nx = 1".to_owned(), true)), "read once, adds no key");
        assert_eq!(expand("${EMPTY}"), Err(Problem::Unset("EMPTY".to_owned())));
        assert_eq!(expand("${PORT"), Err(Problem::Unclosed));
        assert_eq!(expand("${a b}"), Err(Problem::BadName("a b".to_owned())));
    }

    #[test]
    fn an_unset_variable_names_key_and_variable() {
        let mut out = Diagnostics::default();
        let mut root = tree::parse(FileId(0), "[[routes]]\npath = \"/${NONE}\"\n", &mut out);
        substitute(&mut root, &env, &mut out);
        let item = out.iter().next().unwrap();
        assert_eq!(item.message, "routes[0].path needs the variable NONE, which is not set");
        assert_eq!(item.path, "routes[0].path");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_plain_text_stays(text in "[${}:a-zA-Z_0-9é-]{0,40}") {
            let result = expand(&text, &env);
            if !text.contains("${") {
                prop_assert_eq!(result, Ok((text, false)));
            }
        }
    }
}
