//! Conditions of `if`: known when translating, or asked of each request by a route's predicates.

use super::super::parse::Directive;
use super::super::pattern::{self, Translated};
use super::super::vars::{Env, Part};
use super::Translator;
use super::route::Predicate;
use crate::import::toml;

/// When a condition holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Known already.
    Is(bool),
    /// Where one of these does.
    AnyOf(Vec<Predicate>),
    /// Where this does not.
    Not(Predicate),
    /// It cannot be said.
    Unsaid(String),
}

/// The methods that Edgeward can name, for "all but": HEAD comes with GET.
const TRUE: &str = "true";
const FALSE: &str = "false";

impl<'a> Translator<'a> {
    /// The condition of `if` with what is known of variables.
    pub(super) fn condition(&self, directive: &Directive, env: &Env) -> Condition {
        let text = directive.args.join("\u{0}");
        let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(&text);
        let words: Vec<&str> = inner.split('\u{0}').filter(|word| !word.is_empty()).collect();
        // `= ""` loses its word above.
        let empty = inner.ends_with('\u{0}');
        match words.as_slice() {
            [variable] if variable.starts_with('$') => self.is_set(variable, env),
            [variable, "="] if empty => self.compare(variable, "", env),
            [variable, "!="] if empty => negate(self.compare(variable, "", env)),
            [variable, "=", value] => self.compare(variable, value, env),
            [variable, "!=", value] => negate(self.compare(variable, value, env)),
            [variable, operator @ ("~" | "~*" | "!~" | "!~*"), regex] => {
                let found = self.find(variable, regex, operator.ends_with('*'), env);
                if operator.starts_with('!') { negate(found) } else { found }
            }
            _ => Condition::Unsaid("what it asks cannot be asked".to_owned()),
        }
    }

    fn compare(&self, variable: &str, value: &str, env: &Env) -> Condition {
        let Some(value) = env.constant(value) else {
            return Condition::Unsaid("it compares with a variable".to_owned());
        };
        match env.expand(variable).as_slice() {
            [] => Condition::Is(value.is_empty()),
            [Part::Text(text)] => Condition::Is(*text == value),
            [Part::Var(name)] => match (self.cases(name), name.as_str()) {
                (Some(cases), _) => cases.into_condition(|case| case == value, env),
                // Hosts with a case of their own are written out: what is left is none of them.
                (None, "host" | "http_host") if env.is_no_host(&value) => Condition::Is(false),
                (None, "host") => unsaid(name),
                (None, _) if value.is_empty() => match predicate(name, FALSE.to_owned()) {
                    Some(predicate) => Condition::AnyOf(vec![predicate]),
                    None => unsaid(name),
                },
                (None, "ssl_client_verify") if value == "SUCCESS" => {
                    Condition::AnyOf(vec![Predicate::Certificate])
                }
                (None, "request_method") => match crate::routing::MethodSet::named(&value) {
                    Ok(_) => Condition::AnyOf(vec![Predicate::Methods(vec![value])]),
                    Err(_) => Condition::Unsaid(format!("{value} is not a method that routes know")),
                },
                // It is the target as it was sent, with its query.
                (None, "request_uri") if value.contains(['?', '%']) || value.contains("//") => unsaid(name),
                (None, "uri" | "document_uri" | "request_uri") => Condition::AnyOf(vec![Predicate::Path(
                    format!("^{}$", pattern::escape(&pattern::encode_path(&value))),
                )]),
                (None, _) => match predicate(name, toml::text(&value)) {
                    Some(predicate) if !value.starts_with('~') => Condition::AnyOf(vec![predicate]),
                    _ => unsaid(name),
                },
            },
            _ => Condition::Unsaid("it compares several variables at once".to_owned()),
        }
    }

    fn find(&self, variable: &str, regex: &str, any_case: bool, env: &Env) -> Condition {
        let flagged = if any_case { format!("(?i){regex}") } else { regex.to_owned() };
        match env.expand(variable).as_slice() {
            [] => static_find("", &flagged),
            [Part::Text(text)] => static_find(text, &flagged),
            [Part::Var(name)] => match name.as_str() {
                "request_method" => match methods(regex) {
                    Some(methods) => Condition::AnyOf(vec![Predicate::Methods(methods)]),
                    None => Condition::Unsaid("methods are a list, not a regex".to_owned()),
                },
                // The target as it was sent, with its query, begins as its path does.
                "request_uri" if !begins_plainly(regex) => unsaid(name),
                "uri" | "document_uri" | "request_uri" => match pattern::path_regex(regex, any_case) {
                    Translated::Same(regex) if !regex.contains("\\?") => {
                        Condition::AnyOf(vec![Predicate::Path(regex)])
                    }
                    _ => Condition::Unsaid("the regex asks for more than the path".to_owned()),
                },
                name => match predicate(name, toml::text(&format!("~{flagged}"))) {
                    Some(predicate) if regex::bytes::Regex::new(&flagged).is_ok() => {
                        Condition::AnyOf(vec![predicate])
                    }
                    Some(_) => Condition::Unsaid(
                        "Edgeward's regexes know no look-around and no back references".to_owned(),
                    ),
                    None => unsaid(name),
                },
            },
            _ => Condition::Unsaid("it searches several variables at once".to_owned()),
        }
    }

    /// Neither empty nor `0`.
    fn is_set(&self, variable: &str, env: &Env) -> Condition {
        let holds = |text: &str| !text.is_empty() && text != "0";
        match env.expand(variable).as_slice() {
            [] => Condition::Is(false),
            [Part::Text(text)] => Condition::Is(holds(text)),
            [Part::Var(name)] => match (self.cases(name), predicate(name, TRUE.to_owned())) {
                (Some(cases), _) => cases.into_condition(holds, env),
                (None, Some(predicate)) => Condition::AnyOf(vec![predicate]),
                (None, None) => unsaid(name),
            },
            _ => Condition::Unsaid("it asks several variables at once".to_owned()),
        }
    }

    /// The values that a `map` gives, if they are constant.
    fn cases(&self, name: &str) -> Option<Cases<'a>> {
        let map = self.maps.get(name)?;
        let mut cases = Cases { source: map.arg(0), entries: Vec::new(), default: "" };
        for entry in map.inner() {
            match entry.name.as_str() {
                "default" => cases.default = entry.arg(0),
                "hostnames" | "volatile" | "include" => {}
                key => cases.entries.push((key, entry.arg(0))),
            }
        }
        Some(cases)
    }

    /// The value of the variable of a `map`, where it is known from what is known of its source.
    pub(super) fn mapped(&self, name: &str, env: &Env) -> Option<Vec<Part>> {
        let map = self.maps.get(name)?;
        let cases = self.cases(name)?;
        let value = match env.constant(map.arg(0)) {
            Some(source) => cases.find(&source, map.inner().iter().any(|entry| entry.name == "hostnames"))?,
            // Hosts with a case of their own are written out; what is left has none, but for patterns.
            None if matches!(map.arg(0), "$host" | "$http_host")
                && cases
                    .entries
                    .iter()
                    .all(|(key, _)| env.is_no_host(&literal_key(key).to_ascii_lowercase())) =>
            {
                cases.default
            }
            None => return None,
        };
        Some(env.expand(value))
    }
}

/// A key without the backslash that keeps it from being read as a word of `map` itself.
fn literal_key(key: &str) -> &str {
    key.strip_prefix('\\').unwrap_or(key)
}

/// A `map` that is asked for its value.
struct Cases<'a> {
    source: &'a str,
    entries: Vec<(&'a str, &'a str)>,
    default: &'a str,
}

impl Cases<'_> {
    /// The value for a source, in nginx' order: exact, the longest wildcard, the first regex. `None`: it is not known.
    fn find(&self, source: &str, hostnames: bool) -> Option<&str> {
        let is_regex = |key: &str| key.starts_with('~');
        let exact =
            |(key, _): &&(&str, &str)| !is_regex(key) && literal_key(key).eq_ignore_ascii_case(source);
        if let Some((_, value)) = self.entries.iter().find(exact) {
            return Some(value);
        }
        let source_lower = source.to_ascii_lowercase();
        let below = |key: &str| {
            let key = key.to_ascii_lowercase();
            if let Some(parent) = key.strip_prefix("*.") {
                return source_lower.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
            }
            if let Some(parent) = key.strip_prefix('.') {
                return source_lower == parent
                    || source_lower.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
            }
            key.strip_suffix(".*").is_some_and(|start| {
                source_lower.strip_prefix(start).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        if hostnames {
            let wild = |ahead: bool| {
                self.entries
                    .iter()
                    .filter(|(key, _)| !is_regex(key) && key.ends_with(".*") != ahead && below(key))
                    .max_by_key(|(key, _)| key.len())
            };
            if let Some((_, value)) = wild(true).or_else(|| wild(false)) {
                return Some(value);
            }
        }
        for (key, value) in self.entries.iter().filter(|(key, _)| is_regex(key)) {
            let regex = key.get(1..).unwrap_or_default();
            let regex =
                regex.strip_prefix('*').map_or_else(|| regex.to_owned(), |regex| format!("(?i){regex}"));
            // What another order of things would be is not known.
            if regex::Regex::new(&regex).ok()?.is_match(source) {
                return Some(value);
            }
        }
        Some(self.default)
    }

    /// Whether an entry that does not hold may go before the one at `index`, which does.
    fn is_hidden(&self, index: usize, holds: &impl Fn(&str) -> bool) -> bool {
        let Some((key, _)) = self.entries.get(index) else { return true };
        let Some(regex) = key.strip_prefix('~') else { return false };
        let regex = regex.strip_prefix('*').map_or_else(|| regex.to_owned(), |regex| format!("(?i){regex}"));
        let Ok(regex) = regex::Regex::new(&regex) else { return true };
        self.entries.iter().enumerate().filter(|(_, (_, value))| !holds(value)).any(|(at, (other, _))| {
            if other.starts_with('~') { at < index } else { regex.is_match(literal_key(other)) }
        })
    }

    fn into_condition(self, holds: impl Fn(&str) -> bool, env: &Env) -> Condition {
        let Some(source) = self.source.strip_prefix('$').filter(|name| !env.is_known(name)) else {
            return Condition::Unsaid("its map depends on several variables".to_owned());
        };
        if holds(self.default) {
            return Condition::Unsaid("its map holds by default".to_owned());
        }
        let mut any = Vec::new();
        for (index, (key, _)) in self.entries.iter().enumerate().filter(|(_, (_, value))| holds(value)) {
            if self.is_hidden(index, &holds) {
                return Condition::Unsaid(format!("its map asks for {key} of ${source} after others"));
            }
            let regex = |regex: &str, any_case: bool| {
                let regex = if any_case { format!("(?i){regex}") } else { regex.to_owned() };
                regex::bytes::Regex::new(&regex).is_ok().then(|| format!("~{regex}"))
            };
            let value = match key
                .strip_prefix("~*")
                .map(|rest| (rest, true))
                .or(key.strip_prefix('~').map(|rest| (rest, false)))
            {
                Some((rest, any_case)) => regex(rest, any_case),
                // Keys are compared without case.
                None if key.is_empty() => None,
                None => regex(&format!("^{}$", pattern::escape(key)), true),
            };
            match value.and_then(|value| predicate(source, toml::text(&value))) {
                Some(predicate) => any.push(predicate),
                None => return Condition::Unsaid(format!("its map asks for {key} of ${source}")),
            }
        }
        if any.is_empty() { Condition::Is(false) } else { Condition::AnyOf(any) }
    }
}

/// The predicate of a route about a variable; `value` is TOML.
fn predicate(name: &str, value: String) -> Option<Predicate> {
    let lower = name.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("http_") {
        let name = name.replace('_', "-");
        return http::HeaderName::from_bytes(name.as_bytes())
            .is_ok()
            .then_some(Predicate::Header(name, value));
    }
    if lower == "content_type" {
        return Some(Predicate::Header("content-type".to_owned(), value));
    }
    if name.starts_with("arg_") {
        return Some(Predicate::Query(name.get(4..)?.to_owned(), value));
    }
    name.strip_prefix("cookie_")
        .filter(|name| !name.is_empty())
        .map(|name| Predicate::Cookie(name.to_owned(), value))
}

/// Whether a regex asks for a literal start and takes anything after it.
fn begins_plainly(regex: &str) -> bool {
    let anything = ["(.*)$", "(.*)", ".*$", ".*"].iter().find_map(|end| regex.strip_suffix(end));
    let literal = anything.unwrap_or(regex).strip_prefix('^').and_then(pattern::unescaped);
    literal.is_some_and(|literal| !literal.contains(['?', '%', '#']) && !literal.contains("//"))
}

fn unsaid(name: &str) -> Condition {
    Condition::Unsaid(format!("routes cannot ask for ${name}"))
}

fn negate(condition: Condition) -> Condition {
    match condition {
        Condition::Is(holds) => Condition::Is(!holds),
        Condition::Not(predicate) => Condition::AnyOf(vec![predicate]),
        Condition::AnyOf(mut any) if any.len() == 1 => match any.pop() {
            // The absence of what must be absent.
            Some(Predicate::Header(name, value)) if value == FALSE => {
                Condition::AnyOf(vec![Predicate::Header(name, TRUE.to_owned())])
            }
            Some(Predicate::Path(_)) | None => {
                Condition::Unsaid("a path can be asked for, not excluded".to_owned())
            }
            Some(predicate) => Condition::Not(predicate),
        },
        Condition::AnyOf(_) => Condition::Unsaid("several things cannot be excluded at once".to_owned()),
        unsaid @ Condition::Unsaid(_) => unsaid,
    }
}

fn static_find(text: &str, regex: &str) -> Condition {
    match regex::Regex::new(regex) {
        Ok(regex) => Condition::Is(regex.is_match(text)),
        Err(_) => {
            Condition::Unsaid("Edgeward's regexes know no look-around and no back references".to_owned())
        }
    }
}

/// The methods of `^(GET|HEAD|POST)$`.
pub(super) fn methods(regex: &str) -> Option<Vec<String>> {
    let inner = regex.strip_prefix('^').unwrap_or(regex);
    let inner = inner.strip_suffix('$').unwrap_or(inner);
    let inner = inner.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(inner);
    let inner = inner.strip_prefix("?:").unwrap_or(inner);
    let methods: Vec<String> = inner.split('|').map(str::to_owned).collect();
    methods.iter().all(|method| crate::routing::MethodSet::named(method).is_ok()).then_some(methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read_from_the_usual_regexes() {
        assert_eq!(methods("^(GET|HEAD|POST)$").unwrap(), ["GET", "HEAD", "POST"]);
        assert_eq!(methods("POST").unwrap(), ["POST"]);
        assert_eq!(methods("^(GET|.*)$"), None);
    }

    #[test]
    fn negation_says_only_what_can_be_said() {
        let header = |value: &str| Predicate::Header("x".to_owned(), value.to_owned());
        assert_eq!(negate(Condition::AnyOf(vec![header("\"1\"")])), Condition::Not(header("\"1\"")));
        assert_eq!(negate(Condition::AnyOf(vec![header(FALSE)])), Condition::AnyOf(vec![header(TRUE)]));
        assert!(matches!(negate(Condition::AnyOf(vec![header("1"), header("2")])), Condition::Unsaid(_)));
    }
}
