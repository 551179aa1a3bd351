//! How an answer is read: `target`, then `allow` or `deny`, then `rename`. Pure.

use super::json::{Json, Object};

/// A dotted path: `address.zip`, `items.0.id`, and in filters `items.*.id`.
pub type Path = Box<[Box<str>]>;

/// What of an answer is read, and under which names.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Where to begin.
    pub target: Path,
    /// What is kept of that, or left out.
    pub filter: Option<Filter>,
    /// Members that get another name.
    pub rename: Box<[(Path, Box<str>)]>,
}

/// What is kept, or left out.
#[derive(Debug, Clone)]
pub enum Filter {
    /// Only what these paths lead to.
    Allow(Box<[Path]>),
    /// All but that.
    Deny(Box<[Path]>),
}

/// Reads a dotted path; `None` if a part of it is empty.
pub fn path(text: &str) -> Option<Path> {
    let parts: Path = text.split('.').map(Into::into).collect();
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

impl Reading {
    /// The part of `answer` that counts; `None` if it has no `target`.
    pub fn apply(&self, answer: Json) -> Option<Json> {
        let mut value = self.target.iter().try_fold(answer, |value, key| take(value, key))?;
        match &self.filter {
            None => {}
            Some(Filter::Allow(paths)) => {
                let paths: Vec<&[Box<str>]> = paths.iter().map(|path| &**path).collect();
                value = allowed(value, &paths).unwrap_or(Json::Null);
            }
            Some(Filter::Deny(paths)) => {
                let paths: Vec<&[Box<str>]> = paths.iter().map(|path| &**path).collect();
                value = not_denied(value, &paths).unwrap_or(Json::Null);
            }
        }
        for (path, name) in &self.rename {
            rename(&mut value, path, name);
        }
        Some(value)
    }
}

fn take(value: Json, key: &str) -> Option<Json> {
    match value {
        Json::Object(mut members) => members.swap_remove(key),
        Json::Array(mut elements) => {
            let index = key.parse::<usize>().ok().filter(|index| *index < elements.len())?;
            Some(elements.swap_remove(index))
        }
        _ => None,
    }
}

/// The paths that go on below `key`, each without its first part.
fn below<'p>(paths: &[&'p [Box<str>]], key: &str) -> Vec<&'p [Box<str>]> {
    let goes_on = |path: &&'p [Box<str>]| {
        let (first, rest) = path.split_first()?;
        (&**first == key || &**first == "*").then_some(rest)
    };
    paths.iter().filter_map(goes_on).collect()
}

/// What `paths` lead to; `None` where none of them leads anywhere.
fn allowed(value: Json, paths: &[&[Box<str>]]) -> Option<Json> {
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value);
    }
    if paths.is_empty() {
        return None;
    }
    each_part(value, |key, part| allowed(part, &below(paths, key))).ok()
}

/// All but what `paths` lead to; `None` where one of them ends.
fn not_denied(value: Json, paths: &[&[Box<str>]]) -> Option<Json> {
    if paths.iter().any(|path| path.is_empty()) {
        return None;
    }
    if paths.is_empty() {
        return Some(value);
    }
    let kept = each_part(value, |key, part| not_denied(part, &below(paths, key)));
    Some(kept.unwrap_or_else(|scalar| scalar))
}

/// The value with those of its members or elements that `keep` gives back; itself if it has none.
fn each_part(value: Json, keep: impl Fn(&str, Json) -> Option<Json>) -> Result<Json, Json> {
    match value {
        Json::Object(members) => {
            let kept = members.into_iter().filter_map(|(key, part)| {
                let part = keep(&key, part)?;
                Some((key, part))
            });
            Ok(Json::Object(kept.collect()))
        }
        Json::Array(elements) => {
            let kept = elements
                .into_iter()
                .enumerate()
                .filter_map(|(index, part)| keep(itoa::Buffer::new().format(index), part));
            Ok(Json::Array(kept.collect()))
        }
        scalar => Err(scalar),
    }
}

/// Gives the members at the end of `path` another name, in their place; what had that name is gone.
fn rename(value: &mut Json, path: &[Box<str>], name: &str) {
    let [key, rest @ ..] = path else { return };
    match (value, rest.is_empty()) {
        (Json::Object(members), true) => rename_member(members, key, name),
        (Json::Object(members), false) if **key == *"*" => {
            members.values_mut().for_each(|part| rename(part, rest, name));
        }
        (Json::Array(elements), false) if **key == *"*" => {
            elements.iter_mut().for_each(|part| rename(part, rest, name));
        }
        (Json::Object(members), false) => {
            members.get_mut(&**key).into_iter().for_each(|part| rename(part, rest, name));
        }
        (Json::Array(elements), false) => {
            let index = key.parse::<usize>().ok();
            index
                .and_then(|index| elements.get_mut(index))
                .into_iter()
                .for_each(|part| rename(part, rest, name));
        }
        _ => {}
    }
}

fn rename_member(members: &mut Object, key: &str, name: &str) {
    if key == name || !members.contains_key(key) {
        return;
    }
    members.shift_remove(name);
    if let Some(index) = members.get_index_of(key) {
        // Nothing has the name any more.
        drop(members.replace_index(index, name.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::parse;
    use super::*;

    fn paths(texts: &[&str]) -> Box<[Path]> {
        texts.iter().map(|text| path(text).unwrap()).collect()
    }

    fn read(reading: &Reading, text: &str) -> Option<String> {
        let value = reading.apply(parse(text.as_bytes(), 16).unwrap())?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    const USER: &str = r#"{"data":{"id":7,"email":"a@x","address":{"zip":"1","city":"c"},"tags":[{"n":1,"s":2},{"n":3}]},"ok":true}"#;

    #[test]
    fn a_target_is_a_part() {
        let target = |text: &str| Reading { target: path(text).unwrap(), ..Reading::default() };
        assert_eq!(read(&target("data.address.zip"), USER).as_deref(), Some("\"1\""));
        assert_eq!(read(&target("data.tags.1"), USER).as_deref(), Some(r#"{"n":3}"#));
        assert_eq!(read(&target("data.tags.2"), USER), None);
        assert_eq!(read(&target("date"), USER), None);
    }

    #[test]
    fn only_what_is_allowed_stays() {
        let allow = |texts: &[&str]| Reading {
            target: path("data").unwrap(),
            filter: Some(Filter::Allow(paths(texts))),
            ..Reading::default()
        };
        assert_eq!(
            read(&allow(&["address.zip", "id", "tags.*.n"]), USER).as_deref(),
            Some(r#"{"id":7,"address":{"zip":"1"},"tags":[{"n":1},{"n":3}]}"#)
        );
        assert_eq!(read(&allow(&["tags.0.s"]), USER).as_deref(), Some(r#"{"tags":[{"s":2}]}"#));
        assert_eq!(read(&allow(&["id.x", "nothing"]), USER).as_deref(), Some("{}"));
    }

    #[test]
    fn what_is_denied_goes() {
        let deny = |texts: &[&str]| Reading {
            target: path("data").unwrap(),
            filter: Some(Filter::Deny(paths(texts))),
            ..Reading::default()
        };
        assert_eq!(
            read(&deny(&["email", "address.city", "tags.*.s", "id.x"]), USER).as_deref(),
            Some(r#"{"id":7,"address":{"zip":"1"},"tags":[{"n":1},{"n":3}]}"#)
        );
        assert_eq!(read(&deny(&["*"]), USER).as_deref(), Some("{}"));
    }

    #[test]
    fn renamed_members_stay_where_they_are() {
        let renamed = |texts: &[(&str, &str)]| Reading {
            target: path("data").unwrap(),
            filter: Some(Filter::Allow(paths(&["id", "email", "tags"]))),
            rename: texts.iter().map(|(from, to)| (path(from).unwrap(), (*to).into())).collect(),
        };
        assert_eq!(
            read(&renamed(&[("id", "key"), ("tags.*.n", "number"), ("no", "id")]), USER).as_deref(),
            Some(r#"{"key":7,"email":"a@x","tags":[{"number":1,"s":2},{"number":3}]}"#)
        );
        assert_eq!(
            read(&renamed(&[("id", "email"), ("tags.1.n", "n")]), USER).as_deref(),
            Some(r#"{"email":7,"tags":[{"n":1,"s":2},{"n":3}]}"#)
        );
    }
}
