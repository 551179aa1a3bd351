//! What looks like a secret in a file that may not be understood: a misspelt key, or a line that is no TOML, is shown with
//! its line, and what stands there must not be.
//!
//! This errs on the side of hiding. What is understood to be a secret is hidden besides, whatever it is called
//! ([`super::origin::Sources::hide`]).

use std::ops::Range;

/// Parts of names whose values are secrets; compared in lower case and without `_` and `-`.
const PARTS: &[&str] = &["secret", "passw", "passphrase", "pwd", "credential", "apikey", "privatekey"];
/// Names that may be misspelt. In order of nothing.
const NAMES: &[&str] = &["secret", "password", "token", "apikeys"];

/// The places in `text` that look like secrets: values under names such as `password`, and passwords in URLs. In no order;
/// they may overlap.
pub fn secrets(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut covered = 0;
    for at in memchr::memchr2_iter(b'=', b':', text.as_bytes()) {
        if at < covered {
            continue;
        }
        let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default());
        if after.starts_with("//") && text.as_bytes().get(at) == Some(&b':') {
            found.extend(password_of_url(text, at + "://".len()));
        } else if is_secret(name_before(before)) {
            covered = hide_value(text, at + 1, &mut found).max(at + 1);
        }
    }
    found
}

/// `scheme://user:password@host/rest` without the password. A lone word before the `@` is hidden as well: some take it for the
/// user, some for the password. What has no scheme is hidden whole.
pub fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return "***".to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((who, host)) = authority.rsplit_once('@') else { return text.to_owned() };
    match who.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
        None => format!("{scheme}://***@{host}{path}"),
    }
}

/// The name that ends where `before` does: bare or in quotes, the last of a path with dots.
fn name_before(before: &str) -> &str {
    let name = before.trim_end_matches([' ', '\t']).trim_end_matches(['"', '\'']);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let start = name.rfind(|c| !is_part(c)).map_or(0, |at| at + name.get(at..).map_or(1, first_len));
    name.get(start..).unwrap_or_default()
}

fn first_len(text: &str) -> usize {
    text.chars().next().map_or(1, char::len_utf8)
}

fn is_secret(name: &str) -> bool {
    /// Longest name that is compared.
    const NAME_BYTES_MAX: usize = 64;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return false;
    }
    let name: String = name.chars().filter(|c| !matches!(c, '_' | '-')).collect::<String>().to_lowercase();
    let is_near = |known: &&str| {
        strsim::damerau_levenshtein(&name, known) <= (known.len() / 4).max(1) && name.len() > 3
    };
    PARTS.iter().any(|part| name.contains(part)) || name.ends_with("token") || NAMES.iter().any(is_near)
}

/// Hides the value that begins at `from`, quotes included, and says where it ends. A table is none: what is secret in it has
/// a name of its own.
fn hide_value(text: &str, from: usize, found: &mut Vec<Range<usize>>) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let from = from + rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let rest = text.get(from..).unwrap_or_default();
    match rest.bytes().next() {
        Some(b'{') => from,
        Some(b'[') => hide_list(text, from + 1, found),
        Some(b'"' | b'\'') => {
            let end = from + string_len(rest);
            found.push(from..end);
            end
        }
        _ => {
            let line = rest.lines().next().unwrap_or_default();
            let bare = line.find([',', '}', '#']).and_then(|end| line.get(..end)).unwrap_or(line).trim_end();
            if !matches!(bare, "" | "true" | "false") {
                found.push(from..from + bare.len());
            }
            from + bare.len()
        }
    }
}

/// Hides the strings of a list up to its end, those in tables excepted.
fn hide_list(text: &str, from: usize, found: &mut Vec<Range<usize>>) -> usize {
    let (mut at, mut tables) = (from, 0_usize);
    while let Some(rest) = text.get(at..)
        && let Some(next) = rest.find(['"', '\'', '{', '}', ']'])
    {
        at += next;
        match text.as_bytes().get(at) {
            Some(b'{') => tables += 1,
            Some(b'}') => tables = tables.saturating_sub(1),
            Some(b']') => return at,
            _ => {
                let end = at + string_len(text.get(at..).unwrap_or_default());
                if tables == 0 {
                    found.push(at..end);
                }
                at = end;
                continue;
            }
        }
        at += 1;
    }
    text.len()
}

/// The length of the string that `text` begins with, quotes included. One that is not closed ends with its line, one of
/// several lines with the text.
fn string_len(text: &str) -> usize {
    for triple in ["\"\"\"", "'''"] {
        if let Some(inside) = text.strip_prefix(triple) {
            return inside.find(triple).map_or(text.len(), |end| end + 2 * triple.len());
        }
    }
    let line = text.lines().next().unwrap_or_default();
    let quote = line.bytes().next();
    let mut is_escaped = false;
    for (at, byte) in line.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if quote == Some(b'"') => is_escaped = true,
            byte if Some(byte) == quote => return at + 1,
            _ => {}
        }
    }
    line.len()
}

/// The password of the URL whose authority begins at `from`.
fn password_of_url(text: &str, from: usize) -> Option<Range<usize>> {
    let rest = text.get(from..)?;
    let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
    let user = rest.get(..end)?.rfind('@').and_then(|at| rest.get(..at))?;
    let colon = user.find(':')?;
    (colon + 1 < user.len()).then_some(from + colon + 1..from + user.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn veiled(text: &str) -> String {
        let mut shown: Vec<u8> = text.bytes().collect();
        for range in secrets(text) {
            shown[range].fill(b'*');
        }
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn values_under_names_of_secrets_are_hidden() {
        for (written, shown) in [
            ("secret = \"abc\" # why", "secret = ***** # why"),
            ("secrt = \"abc\"", "secrt = *****"),
            ("pasword = 'abc'", "pasword = *****"),
            ("a = { client-secret = \"a\\\"b\", b = 1 }", "a = { client-secret = ******, b = 1 }"),
            ("tokn=\"abc\"", "tokn=*****"),
            ("x.password = hunter2, y = 1", "x.password = *******, y = 1"),
            ("secret: \"abc\"", "secret: *****"),
            ("\"secret\" = \"abc", "\"secret\" = ****"),
            ("secret = \"\"\"a\nb\"\"\"\nc = 1", "secret = *********\nc = 1"),
            (
                "api_keys = [\"abc\", { env = \"X\" }, \"d\"]\nb = \"c\"",
                "api_keys = [*****, { env = \"X\" }, ***]\nb = \"c\"",
            ),
            ("url = \"postgres://me:s3c:et@db:54x32/edge\"", "url = \"postgres://me:******@db:54x32/edge\""),
        ] {
            assert_eq!(veiled(written), shown);
        }
        for plain in [
            "key = \"ip\"",
            "signing_key = \"keys/a.pem\"",
            "token_cookie = \"session\"",
            "secret = { env = \"SECRET\" }",
            "server = \"a\"",
            "select = \"a\"",
            "servers = [\"http://127.0.0.1:80\"]",
            "redis = \"redis://127.0.0.1:6379/0\"",
            "to = \"x\"",
            "open = 1",
            "credentials = true",
        ] {
            assert_eq!(veiled(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(secret|token|[a-z\"'é=:/@{}\\[\\], \n\\\\]){0,60}") {
            for range in secrets(&text) {
                prop_assert!(text.get(range).is_some());
            }
        }
    }
}
