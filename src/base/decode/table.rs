//! Tables of declared keys: the `keys!` macro and what its output calls.

use super::Value;
use super::decoder::Decoder;
use super::shape::{Key, Presence};
use super::tree::{Kind, Node, Table};
use crate::base::origin::{At, Origin};

/// Reads the declared keys of one table. Made and used by `keys!`.
#[derive(Debug)]
pub struct TableReader<'n> {
    table: &'n Table,
    header: &'n Origin,
}

impl<'n> TableReader<'n> {
    /// The reader for `node`, with unknown keys already reported; `None`, reported, if it is not a table.
    pub fn open(node: &'n Node, keys: &'static [Key], cx: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Table(table) = &node.kind else {
            let single = matches!(&node.kind, Kind::Array(nodes) if nodes.iter().all(|node| node.as_table().is_some()));
            let hint = (single && !cx.path().is_empty()).then(|| format!("there is one: [{}]", cx.path()));
            return cx.expected_or(node, "a table", hint.or_else(|| written_out(node, keys)));
        };
        cx.check_keys(table.iter(), keys);
        Some(Self { table, header: &node.origin })
    }

    /// The value of `name`, if it stands there and can be decoded.
    pub fn optional<T: Value>(&self, name: &'static str, cx: &mut Decoder<'_>) -> Option<At<T>> {
        let entry = self.table.get(name)?;
        cx.key(name, |cx| decode_at(&entry.node, cx))
    }

    /// The value of `name`; absent is an error at the table's header.
    pub fn required<T: Value>(&self, name: &'static str, cx: &mut Decoder<'_>) -> Option<At<T>> {
        if !self.table.contains_key(name) {
            cx.error("missing-key", self.header, format!("the key \"{name}\" is missing"));
            return None;
        }
        self.optional(name, cx)
    }

    /// The value of `name`, or `default` where it is absent or broken.
    pub fn or_default<T: Value>(
        &self,
        name: &'static str,
        default: impl FnOnce() -> T,
        cx: &mut Decoder<'_>,
    ) -> At<T> {
        self.optional(name, cx).unwrap_or_else(|| At::default_value(default()))
    }
}

/// The table that a path or URL in its place was probably meant as: under the one key that is required, or `path`.
fn written_out(node: &Node, keys: &[Key]) -> Option<String> {
    let text = node.as_str().filter(|text| text.starts_with('/') || text.starts_with("http"))?;
    let required = keys.iter().find(|key| matches!(key.presence, Presence::Required));
    let key = required.or_else(|| keys.iter().find(|key| key.name == "path"))?;
    Some(format!("write {{ {} = {} }}", key.name, super::quote(text)))
}

/// Decodes `node` and keeps where it was written.
pub fn decode_at<T: Value>(node: &Node, cx: &mut Decoder<'_>) -> Option<At<T>> {
    T::decode(node, cx).map(|value| At::new(value, node.origin.clone()))
}

/// Decodes `node` as a `T` for its problems alone.
pub fn check<T: Value>(node: &Node, cx: &mut Decoder<'_>) {
    drop(T::decode(node, cx));
}

/// Reports what is wrong with a table that may hold any of `keys`, none of them required: `[defaults]`.
pub fn check_partial(node: &Node, keys: &'static [Key], cx: &mut Decoder<'_>) {
    let Kind::Table(table) = &node.kind else {
        cx.expected::<()>(node, "a table");
        return;
    };
    cx.check_keys(table.iter(), keys);
    for (name, entry) in table {
        if let Some(key) = keys.iter().find(|key| key.name == name) {
            cx.key(name, |cx| (key.check)(&entry.node, cx));
        }
    }
}

/// Joins the rendered entries of an inline table.
pub fn render_table(entries: &[(&str, Option<String>)]) -> String {
    let written: Vec<String> =
        entries.iter().filter_map(|(name, value)| Some(format!("{name} = {}", value.as_ref()?))).collect();
    if written.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", written.join(", ")) }
}

/// Declares a table of the configuration once: see the [module documentation](crate::base::decode).
#[macro_export]
macro_rules! keys {
    (
        $(#[doc = $doc:expr])*
        $vis:vis struct $name:ident { $($fields:tt)* }
    ) => {
        $crate::keys!(@next [$vis $name [$($doc)*]] [] [] $($fields)*);
    };

    // One field at a time; flags are collected until the presence is known.
    (@next $head:tt [$($done:tt)*] [$($flag:ident)*]
        $(#[doc = $doc:expr])* $field:ident : secret $($rest:tt)*) => {
        $crate::keys!(@next $head [$($done)*] [$($flag)* secret] $(#[doc = $doc])* $field : $($rest)*);
    };
    (@next $head:tt [$($done:tt)*] [$($flag:ident)*]
        $(#[doc = $doc:expr])* $field:ident : upgrade $($rest:tt)*) => {
        $crate::keys!(@next $head [$($done)*] [$($flag)* upgrade] $(#[doc = $doc])* $field : $($rest)*);
    };
    (@next $head:tt [$($done:tt)*] [$($flag:ident)*]
        $(#[doc = $doc:expr])* $field:ident : required $type:ty $(, $($rest:tt)*)?) => {
        $crate::keys!(@next $head
            [$($done)* { $field [$($doc)*] [$($flag)*] [required] [$type] }] [] $($($rest)*)?);
    };
    (@next $head:tt [$($done:tt)*] [$($flag:ident)*]
        $(#[doc = $doc:expr])* $field:ident : optional $type:ty $(, $($rest:tt)*)?) => {
        $crate::keys!(@next $head
            [$($done)* { $field [$($doc)*] [$($flag)*] [optional] [$type] }] [] $($($rest)*)?);
    };
    (@next $head:tt [$($done:tt)*] [$($flag:ident)*]
        $(#[doc = $doc:expr])* $field:ident : $type:ty = $default:expr $(, $($rest:tt)*)?) => {
        $crate::keys!(@next $head
            [$($done)* { $field [$($doc)*] [$($flag)*] [default $default] [$type] }] [] $($($rest)*)?);
    };

    (@next [$vis:vis $name:ident [$($doc:expr)*]]
        [$({ $field:ident [$($field_doc:expr)*] [$($flag:ident)*] [$($presence:tt)*] [$type:ty] })*] []) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone)]
        $vis struct $name {
            $(
                $(#[doc = $field_doc])*
                pub $field: $crate::keys!(@type [$($presence)*] $type),
            )*
        }

        impl $crate::base::decode::Keys for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];
            const KEYS: &'static [$crate::base::decode::Key] = &[$(
                $crate::base::decode::Key {
                    name: $crate::base::decode::key_name(stringify!($field)),
                    doc: &[$($field_doc),*],
                    shape: <$type as $crate::base::decode::Value>::shape,
                    check: $crate::base::decode::check::<$type>,
                    presence: $crate::keys!(@presence [$($presence)*] $type),
                    secret: $crate::keys!(@flag secret [$($flag)*]),
                    needs_upgrade: $crate::keys!(@flag upgrade [$($flag)*]),
                },
            )*];
        }

        impl $crate::base::decode::Value for $name {
            fn shape() -> $crate::base::decode::Shape {
                $crate::base::decode::Shape::Table($crate::base::decode::TableShape {
                    doc: <Self as $crate::base::decode::Keys>::DOC,
                    keys: <Self as $crate::base::decode::Keys>::KEYS,
                })
            }

            fn decode(
                node: &$crate::base::decode::Node,
                cx: &mut $crate::base::decode::Decoder<'_>,
            ) -> Option<Self> {
                let reader = $crate::base::decode::TableReader::open(
                    node,
                    <Self as $crate::base::decode::Keys>::KEYS,
                    cx,
                )?;
                $(let $field = $crate::keys!(@read [$($presence)*] $type, $field, reader, cx);)*
                Some(Self { $($field: $crate::keys!(@take [$($presence)*] $field)),* })
            }

            fn render(&self) -> String {
                $crate::base::decode::render_table(&[$((
                    $crate::base::decode::key_name(stringify!($field)),
                    $crate::keys!(@render [$($presence)*] self.$field),
                )),*])
            }

            fn settings(
                &self,
                key: &str,
                _: &$crate::base::origin::Origin,
                out: &mut Vec<$crate::base::decode::Setting>,
            ) {
                $(
                    let name = $crate::base::decode::key_name(stringify!($field));
                    let path = $crate::base::decode::join_key(key, name);
                    $crate::keys!(@settings [$($presence)*] self.$field, path, [$($flag)*], out);
                )*
            }
        }

        $crate::keys!(@defaults $name [$([$($presence)*])*] [$({ $field [$($presence)*] })*]);
    };

    (@type [required] $type:ty) => { $crate::base::origin::At<$type> };
    (@type [optional] $type:ty) => { Option<$crate::base::origin::At<$type>> };
    (@type [default $default:expr] $type:ty) => { $crate::base::origin::At<$type> };

    (@presence [required] $type:ty) => { $crate::base::decode::Presence::Required };
    (@presence [optional] $type:ty) => { $crate::base::decode::Presence::Optional };
    (@presence [default $default:expr] $type:ty) => {
        $crate::base::decode::Presence::Default(|| {
            let value: $type = $default;
            $crate::base::decode::Value::render(&value)
        })
    };

    (@read [required] $type:ty, $field:ident, $reader:ident, $cx:ident) => {
        $reader.required::<$type>($crate::base::decode::key_name(stringify!($field)), $cx)
    };
    (@read [optional] $type:ty, $field:ident, $reader:ident, $cx:ident) => {
        $reader.optional::<$type>($crate::base::decode::key_name(stringify!($field)), $cx)
    };
    (@read [default $default:expr] $type:ty, $field:ident, $reader:ident, $cx:ident) => {
        $reader.or_default::<$type>($crate::base::decode::key_name(stringify!($field)), || $default, $cx)
    };

    (@take [required] $field:ident) => { $field? };
    (@take [optional] $field:ident) => { $field };
    (@take [default $default:expr] $field:ident) => { $field };

    (@render [optional] $value:expr) => {
        $value.as_ref().map(|at| $crate::base::decode::Value::render(&at.value))
    };
    (@render [$($presence:tt)*] $value:expr) => {
        Some($crate::base::decode::Value::render(&$value.value))
    };

    (@settings [optional] $value:expr, $path:ident, $flags:tt, $out:ident) => {
        if let Some(at) = &$value {
            $crate::keys!(@setting at, $path, $flags, $out);
        }
    };
    (@settings [$($presence:tt)*] $value:expr, $path:ident, $flags:tt, $out:ident) => {
        $crate::keys!(@setting &$value, $path, $flags, $out);
    };
    (@setting $at:expr, $path:ident, $flags:tt, $out:ident) => {
        let listed = $out.len();
        if $crate::keys!(@flag secret $flags) {
            $out.push($crate::base::decode::Setting {
                key: $path,
                value: "\"***\"".to_owned(),
                origin: $at.origin.clone(),
                needs_upgrade: false,
            });
        } else {
            $crate::base::decode::Value::settings(&$at.value, &$path, &$at.origin, $out);
        }
        if $crate::keys!(@flag upgrade $flags) {
            $out.iter_mut().skip(listed).for_each(|setting| setting.needs_upgrade = true);
        }
    };

    (@flag $wanted:ident []) => { false };
    (@flag secret [secret $($rest:ident)*]) => { true };
    (@flag upgrade [upgrade $($rest:ident)*]) => { true };
    (@flag $wanted:ident [$other:ident $($rest:ident)*]) => { $crate::keys!(@flag $wanted [$($rest)*]) };

    // `Default` where no key is required.
    (@defaults $name:ident [$([optional])* [required] $($rest:tt)*] $fields:tt) => {};
    (@defaults $name:ident [$([optional])* [default $default:expr] $($rest:tt)*] $fields:tt) => {
        $crate::keys!(@defaults $name [$($rest)*] $fields);
    };
    (@defaults $name:ident [$([optional])*] [$({ $field:ident [$($presence:tt)*] })*]) => {
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::keys!(@default [$($presence)*])),* }
            }
        }
    };
    (@default [optional]) => { None };
    (@default [default $default:expr]) => { $crate::base::origin::At::default_value($default) };
}

/// An enumeration of words: `enum_value! { /// doc  pub enum Balance { /// doc  RoundRobin = "round_robin", … } }`.
///
/// Makes the enum (`Debug, Clone, Copy, PartialEq, Eq`), `as_str` and [`Value`], with "did you mean" for other words.
#[macro_export]
macro_rules! enum_value {
    (
        $(#[doc = $doc:expr])*
        $vis:vis enum $name:ident {
            $($(#[doc = $word_doc:expr])* $variant:ident = $word:literal),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $word_doc])* $variant),*
        }

        impl $name {
            /// All words, in the order declared.
            $vis const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word as written in a file.
            $vis const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The value of a word.
            $vis fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl $crate::base::decode::Value for $name {
            fn shape() -> $crate::base::decode::Shape {
                $crate::base::decode::Shape::Word(Self::WORDS)
            }

            fn decode(
                node: &$crate::base::decode::Node,
                cx: &mut $crate::base::decode::Decoder<'_>,
            ) -> Option<Self> {
                let Some(word) = node.as_str() else {
                    return cx.expected(node, &$crate::base::decode::one_of_words(Self::WORDS));
                };
                Self::from_word(word).or_else(|| cx.none_of(node, word, Self::WORDS))
            }

            fn render(&self) -> String {
                $crate::base::decode::quote(self.as_str())
            }
        }
    };
}
