//! Writing TOML as people would.

use crate::base::decode;

/// A string. What Edgeward would take for a variable of the environment is kept from it.
pub(super) fn text(value: &str) -> String {
    let value = value.replace("${", "$${");
    // Regexes read better without doubled backslashes.
    let literal_fits =
        value.contains(['\\', '"']) && !value.contains('\'') && !value.chars().any(char::is_control);
    if literal_fits { format!("'{value}'") } else { decode::quote(&value) }
}

/// A list of strings.
pub(super) fn list<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| text(value.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

/// A key, quoted where it has to be.
pub(super) fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if bare { name.to_owned() } else { decode::quote(name) }
}

/// An inline table; values are TOML already.
pub(super) fn inline<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let entries: Vec<_> =
        entries.into_iter().map(|(name, value)| format!("{} = {value}", key(name))).collect();
    if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
}

/// A comment; line breaks and control characters become spaces.
pub(super) fn comment(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("# {line}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn strings_are_written_in_the_form_that_reads_best() {
        assert_eq!(text("a b"), "\"a b\"");
        assert_eq!(text(r"~^/a\.b$"), r"'~^/a\.b$'");
        assert_eq!(text(r"it's \d"), r#""it's \\d""#);
        assert_eq!(text("${HOME}"), "\"$${HOME}\"");
        assert_eq!(inline([("a", "1".to_owned()), ("X-B c", text("d"))]), "{ a = 1, \"X-B c\" = \"d\" }");
        assert_eq!(comment("a\nb"), "# a b\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any::<String>()) {
            let document = format!("{} = {}\n", key(&value), text(&value));
            let read: toml::Table = document.parse().unwrap();
            let kept = value.replace("${", "$${");
            prop_assert_eq!(read.get(&value).and_then(|read| read.as_str()), Some(kept.as_str()));
        }
    }
}
