//! Claims by the name that an operator writes for them.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The claim called `name`: literally so (`https://example.com/roles`), else along its dots (`realm_access.roles`).
pub fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(claim) = claims.get(name) {
        return Some(claim);
    }
    let mut parts = name.split('.');
    let first = claims.get(parts.next()?)?;
    parts.try_fold(first, |inner, part| inner.as_object()?.get(part))
}

/// A text, number or truth as text; `None` for what has no one text: lists, objects, null.
pub fn text(claim: &Value) -> Option<Cow<'_, str>> {
    match claim {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(if *truth { "true" } else { "false" }.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_name_goes_before_a_path() {
        let claims = serde_json::json!({
            "a.b": "literal", "a": { "b": "path", "c": { "d": 7 } }, "https://example.com/roles": true, "n": null,
        });
        let claims = claims.as_object().unwrap();
        let shown = |name: &str| find(claims, name).and_then(text).map(Cow::into_owned);
        assert_eq!(shown("a.b").as_deref(), Some("literal"));
        assert_eq!(shown("a.c.d").as_deref(), Some("7"));
        assert_eq!(shown("https://example.com/roles").as_deref(), Some("true"));
        for missing in ["a", "a.c", "a.x", "n", "", ".", "a.b.c", "x.y"] {
            assert_eq!(shown(missing), None, "{missing}");
        }
    }
}
