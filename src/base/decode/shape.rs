//! What a value looks like: enough to print a JSON Schema and to say where a key belongs.

use super::decoder::Decoder;
use super::tree::Node;

/// The form of a value in a file.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Any string, or one of a certain form.
    Text {
        /// A regular expression the whole text matches, in the dialect of JSON Schema.
        pattern: Option<&'static str>,
        /// What it may look like.
        examples: &'static [&'static str],
    },
    /// One of these words.
    Word(&'static [&'static str]),
    /// An integer within these bounds, both included.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// This boolean and not the other.
    Only(bool),
    /// A list of these.
    List(Box<Shape>),
    /// A table whose keys are names.
    Map {
        /// The shape of each value.
        of: Box<Shape>,
        /// Names that differ only in case are one, as those of headers.
        any_case: bool,
    },
    /// A table of declared keys.
    Table(TableShape),
    /// Any of these.
    OneOf(Vec<Shape>),
    /// Whatever TOML can hold.
    Any,
}

/// A table of declared keys.
#[derive(Debug, Clone, Copy)]
pub struct TableShape {
    /// What it is for, line by line.
    pub doc: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

/// One declared key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As written in a file.
    pub name: &'static str,
    /// What it is for, line by line.
    pub doc: &'static [&'static str],
    /// What its value looks like.
    pub shape: fn() -> Shape,
    /// Decodes a value for its problems alone.
    pub check: fn(&Node, &mut Decoder<'_>),
    /// Whether it must stand there.
    pub presence: Presence,
    /// Its value is never shown.
    pub secret: bool,
    /// A change needs an upgrade: a reload refuses it.
    pub needs_upgrade: bool,
}

/// Whether a key must be written.
#[derive(Debug, Clone, Copy)]
pub enum Presence {
    /// Absent is an error.
    Required,
    /// Absent means none.
    Optional,
    /// Absent means this, as TOML text.
    Default(fn() -> String),
}

/// A table declared with `keys!`.
pub trait Keys {
    /// What the table is for, line by line.
    const DOC: &'static [&'static str];
    /// Its keys in the order declared.
    const KEYS: &'static [Key];
}

/// A table of the configuration with its path: `routes`, `upstreams.*.health_check`, empty for the whole.
#[derive(Debug, Clone)]
pub struct TablePlace {
    /// Names joined by dots; `*` stands for the name of a map's entry.
    pub path: String,
    /// Whether it is one of a list of tables, written `[[path]]`.
    pub listed: bool,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Shape {
    /// Whether tables merge key by key here: those of one form do, a table of several forms is replaced as a whole.
    pub fn merges(&self) -> bool {
        self.forms() == 1
    }

    /// Whether a table stands here and nothing else, booleans aside.
    pub fn is_table(&self) -> bool {
        match self {
            Self::Table(_) | Self::Map { .. } => true,
            Self::OneOf(shapes) => {
                let boolean = |shape: &Self| matches!(shape, Self::Boolean | Self::Only(_));
                self.forms() > 0 && shapes.iter().all(|shape| shape.is_table() || boolean(shape))
            }
            _ => false,
        }
    }

    /// How many forms of tables can stand here.
    fn forms(&self) -> usize {
        match self {
            Self::Table(_) | Self::Map { .. } => 1,
            Self::OneOf(shapes) => shapes.iter().map(Self::forms).sum(),
            _ => 0,
        }
    }

    /// Whether `false` is a value here.
    pub fn takes_false(&self) -> bool {
        match self {
            Self::Boolean | Self::Only(false) | Self::Any => true,
            Self::OneOf(shapes) => shapes.iter().any(Self::takes_false),
            _ => false,
        }
    }

    /// The shape of the value under `key`, if this is a table that has it.
    pub fn under(&self, key: &str) -> Option<Shape> {
        match self {
            Self::Table(table) => {
                table.keys.iter().find(|declared| declared.name == key).map(|declared| (declared.shape)())
            }
            Self::Map { of, .. } => Some((**of).clone()),
            Self::OneOf(shapes) => shapes.iter().find_map(|shape| shape.under(key)),
            _ => None,
        }
    }
}

/// Tables nested deeper than this are not walked: no declared table is.
const WALK_DEPTH_MAX: usize = 16;

/// Every table reachable from `shape`, outermost first.
pub fn tables(shape: &Shape) -> Vec<TablePlace> {
    let mut found = Vec::new();
    walk(shape, "", false, 0, &mut found);
    found
}

fn walk(shape: &Shape, path: &str, listed: bool, depth: usize, found: &mut Vec<TablePlace>) {
    if depth > WALK_DEPTH_MAX {
        return;
    }
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match shape {
        Shape::Table(table) => {
            found.push(TablePlace { path: path.to_owned(), listed, keys: table.keys });
            for key in table.keys {
                walk(&(key.shape)(), &join(key.name), false, depth + 1, found);
            }
        }
        Shape::Map { of, .. } => walk(of, &join("*"), false, depth + 1, found),
        Shape::List(inner) => walk(inner, path, true, depth + 1, found),
        Shape::OneOf(shapes) => shapes.iter().for_each(|inner| walk(inner, path, listed, depth + 1, found)),
        _ => {}
    }
}

/// A doc comment as one text: lines joined, paragraphs kept.
pub fn doc_text(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let line = line.trim();
        if line.is_empty() {
            text.push_str("\n\n");
        } else {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push(' ');
            }
            text.push_str(line);
        }
    }
    text.trim().to_owned()
}
