//! What an expression refers to, and whether it keeps within its bounds.

use std::ops::Range;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SourceInfo, operators};
use regex::bytes::Regex;

use super::Stage;
use crate::base::names::nearest;
use crate::routing::Mistake;
use crate::routing::pattern::compile_regex;
use crate::routing::template::{CONSUMER_FIELDS, CertField, REQUEST_FIELDS, Scope};

/// Most parts: names, literals, operators, calls, what macros become included.
const PARTS_MAX: usize = 256;
/// Most parts of one that asks the same of every element of a list.
const PARTS_MAX_OF_LOOP: usize = 96;
/// What one compiled regex may take.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Named functions that may be called; operators are all known.
const FUNCTIONS: [&str; 13] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "type",
    "dyn",
];

/// Types, which stand for themselves: `type(jwt.sub) == string`.
const TYPES: [&str; 10] =
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"];

/// What is true or false, whatever it is called with.
const TRUTHS: [&str; 14] = [
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::IN,
    "contains",
    "startsWith",
    "endsWith",
    "matches",
];

/// Where values come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    Path,
    Query,
    Header,
    Cookie,
    Client,
    Request,
    Jwt,
    Consumer,
}

impl Root {
    const NAMES: [&str; 8] = ["path", "query", "header", "cookie", "client", "request", "jwt", "consumer"];
    const ALL: [Self; 8] = [
        Self::Path,
        Self::Query,
        Self::Header,
        Self::Cookie,
        Self::Client,
        Self::Request,
        Self::Jwt,
        Self::Consumer,
    ];

    fn named(name: &str) -> Option<Self> {
        let mut roots = Self::ALL.into_iter().zip(Self::NAMES);
        roots.find(|(_, known)| *known == name).map(|(root, _)| root)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.get(self as usize).copied().unwrap_or_default()
    }

    /// All its fields, where these are known.
    fn fields(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Client => Some(&["ip", "cert"]),
            Self::Request => Some(&REQUEST_FIELDS),
            Self::Consumer => Some(&CONSUMER_FIELDS),
            Self::Path | Self::Query | Self::Header | Self::Cookie | Self::Jwt => None,
        }
    }
}

/// What is needed of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) root: Root,
    /// These fields; `None` = all there are.
    pub(super) fields: Option<Vec<Box<str>>>,
    /// Of `path`: the captures that its fields are.
    pub(super) captures: Vec<usize>,
}

/// Regexes, by the functions that their `matches` have become.
pub(super) type Regexes = Box<[(Box<str>, Regex)]>;

pub(super) struct Survey<'s> {
    text: &'s str,
    info: &'s SourceInfo,
    scope: Scope<'s>,
    stage: Stage,
    /// Names that stand for elements here.
    bound: Vec<String>,
    parts: usize,
    loops: usize,
    uses: Vec<Use>,
    regexes: Vec<(Box<str>, Regex)>,
}

impl<'s> Survey<'s> {
    pub(super) fn new(text: &'s str, info: &'s SourceInfo, scope: Scope<'s>, stage: Stage) -> Self {
        let (bound, uses, regexes) = (Vec::new(), Vec::new(), Vec::new());
        Self { text, info, scope, stage, bound, parts: 0, loops: 0, uses, regexes }
    }

    /// What was found; an error if it is too much.
    pub(super) fn done(self) -> Result<(Box<[Use]>, Regexes), Mistake> {
        let most = if self.loops > 0 { PARTS_MAX_OF_LOOP } else { PARTS_MAX };
        if self.parts > most {
            let message = format!("the expression has {} parts, at most {most} are allowed", self.parts);
            let beside_a_loop = "with one of all, exists, exists_one, filter or map it has to be shorter";
            let mistake = Mistake::new(0..self.text.len(), message);
            return Err(if self.loops > 0 { mistake.hint(beside_a_loop) } else { mistake });
        }
        Ok((self.uses.into(), self.regexes.into()))
    }

    pub(super) fn visit(&mut self, node: &mut IdedExpr) -> Result<(), Mistake> {
        self.parts += 1;
        let id = node.id;
        match &mut node.expr {
            Expr::Unspecified => Err(self.mistake(id, "the expression cannot be read")),
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                match self.root(name, id)? {
                    Some(Root::Path) => {
                        let pattern = self.scope.pattern;
                        pattern.capture_names().for_each(|name| self.note(Root::Path, Some(name)));
                    }
                    Some(root) => self.note(root, None),
                    None => {}
                }
                Ok(())
            }
            Expr::Select(select) => {
                if let Some(root) = self.source(&select.operand)? {
                    return self.field(root, &select.field, id);
                }
                if let Expr::Select(inner) = &select.operand.expr
                    && inner.field == "cert"
                    && self.source(&inner.operand)? == Some(Root::Client)
                    && !CertField::NAMES.contains(&select.field.as_str())
                {
                    let message = format!("`{}` is not known of a certificate", select.field);
                    return Err(suggest(self.mistake(id, message), &select.field, &CertField::NAMES));
                }
                self.visit(&mut select.operand)
            }
            Expr::Call(call) => self.call(call, id),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, id),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.visit(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&mut entry.key)?;
                    self.visit(&mut entry.value)
                }
                EntryExpr::StructField(field) => self.visit(&mut field.value),
            }),
            Expr::Struct(made) => {
                let message = format!("`{}` is not a type that can be made here", made.type_name);
                Err(self.mistake(id, message))
            }
        }
    }

    /// Whether `node` can be a number, and one from 0 to `most` where it is written.
    pub(super) fn check_number(&self, node: &IdedExpr, most: u64) -> Result<(), Mistake> {
        let wrong = |what: &str| {
            let hint = "a number, such as request.method == \"POST\" ? 10 : 1";
            Err(self.mistake(node.id, format!("this is {what}, and no whole number")).hint(hint))
        };
        let number = match &node.expr {
            Expr::Literal(LiteralValue::Int(number)) => i128::from(*number.inner()),
            Expr::Literal(LiteralValue::UInt(number)) => i128::from(*number.inner()),
            Expr::Literal(LiteralValue::Boolean(_)) => return wrong("true or false"),
            Expr::Literal(LiteralValue::String(_)) => return wrong("a text"),
            Expr::Literal(LiteralValue::Double(_)) => return wrong("a fraction"),
            Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => return wrong("something else"),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::CONDITIONAL, [_, one, other]) => {
                    self.check_number(one, most)?;
                    return self.check_number(other, most);
                }
                (operators::NEGATE, [inner]) => match &inner.expr {
                    Expr::Literal(LiteralValue::Int(number)) => -i128::from(*number.inner()),
                    _ => return Ok(()),
                },
                (name, _) if TRUTHS.contains(&name) => return wrong("true or false"),
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        if number < 0 {
            return Err(self.mistake(node.id, format!("{number} is less than 0")));
        }
        if number > i128::from(most) {
            return Err(self.mistake(node.id, format!("{number} is more than the {most} that can ever pass")));
        }
        Ok(())
    }

    fn call(&mut self, call: &mut CallExpr, id: u64) -> Result<(), Mistake> {
        let name = call.func_name.as_str();
        match (name, call.target.is_some(), call.args.as_slice()) {
            (operators::INDEX, false, [from, key]) => {
                if let (Some(root), Some(field)) = (self.source(from)?, literal(key)) {
                    return self.field(root, &field, id);
                }
            }
            (operators::IN, false, [key, from]) => {
                if let (Some(root), Some(field)) = (self.source(from)?, literal(key)) {
                    return self.field(root, &field, id);
                }
            }
            ("matches", true, [regex]) | ("matches", false, [_, regex]) => {
                let source = literal(regex).ok_or_else(|| {
                    self.mistake(regex.id, "the regex of `matches` is not a literal text")
                        .hint("what a client sends must not be compiled: write matches(\"^a+$\")")
                })?;
                let compiled = compile_regex(&source, true, REGEX_BYTES_MAX)
                    .map_err(|wrong| Mistake { at: self.place(regex.id), ..wrong })?;
                let made: Box<str> = format!("matches{}", self.regexes.len()).into();
                call.func_name = made.to_string();
                call.args.pop();
                call.args.extend(call.target.take().map(|target| *target));
                self.regexes.push((made, compiled));
            }
            _ if name.starts_with(char::is_alphabetic) && !FUNCTIONS.contains(&name) => {
                let mistake = self.mistake(id, format!("`{name}` is not a function"));
                return Err(suggest(mistake, name, &FUNCTIONS));
            }
            _ => {}
        }
        call.target.iter_mut().try_for_each(|target| self.visit(target))?;
        call.args.iter_mut().try_for_each(|argument| self.visit(argument))
    }

    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr, id: u64) -> Result<(), Mistake> {
        self.loops += 1;
        if self.loops > 1 {
            let message = "the expression asks of every element twice";
            return Err(self
                .mistake(id, message)
                .hint("one of all, exists, exists_one, filter and map is allowed, none within another"));
        }
        self.visit(&mut comprehension.iter_range)?;
        let before = self.bound.len();
        self.bound.push(comprehension.iter_var.clone());
        self.bound.extend(comprehension.iter_var2.clone());
        self.bound.push(comprehension.accu_var.clone());
        let inner = [
            &mut comprehension.accu_init,
            &mut comprehension.loop_cond,
            &mut comprehension.loop_step,
            &mut comprehension.result,
        ];
        inner.into_iter().try_for_each(|part| self.visit(part))?;
        self.bound.truncate(before);
        Ok(())
    }

    /// The source that `node` names by itself.
    fn source(&self, node: &IdedExpr) -> Result<Option<Root>, Mistake> {
        match &node.expr {
            Expr::Ident(name) => self.root(name, node.id),
            _ => Ok(None),
        }
    }

    /// The source called `name`; `None` if it is the name of an element or a type.
    fn root(&self, name: &str, id: u64) -> Result<Option<Root>, Mistake> {
        if self.bound.iter().any(|bound| bound == name) {
            return Ok(None);
        }
        match Root::named(name) {
            Some(Root::Jwt | Root::Consumer) if !self.stage.knows_who() => {
                let (when, hint) = match self.stage {
                    Stage::Counting { .. } => (
                        "before it is known who it is",
                        "limits by `ip` alone or by `account` are: with another key, such as \"subject\", it is known",
                    ),
                    _ => (
                        "when a route is looked for",
                        "write it in `auth.when`: that is asked once it is known who it is",
                    ),
                };
                Err(self.mistake(id, format!("`{name}` is not known yet {when}")).hint(hint))
            }
            Some(Root::Path) if matches!(self.stage, Stage::Counting { .. }) => Err(self
                .mistake(id, "`path` is what the path of one route captures, and a limit is no one route's")
                .hint("write `request.path`, as in request.path.startsWith(\"/export\")")),
            Some(root) => Ok(Some(root)),
            None if TYPES.contains(&name) => Ok(None),
            None => Err(suggest(
                self.mistake(id, format!("`{name}` is not a source of values")),
                name,
                &Root::NAMES,
            )),
        }
    }

    fn field(&mut self, root: Root, field: &str, id: u64) -> Result<(), Mistake> {
        self.parts += 1;
        if root == Root::Path && self.scope.pattern.capture_index(field).is_none() {
            let names: Vec<_> = self.scope.pattern.capture_names().collect();
            let mistake =
                self.mistake(id, format!("the path \"{}\" declares no `{field}`", self.scope.pattern));
            return Err(if names.is_empty() { mistake } else { suggest(mistake, field, &names) });
        }
        if let Some(known) = root.fields().filter(|known| !known.contains(&field)) {
            let mistake = self.mistake(id, format!("`{field}` is not known of a {}", root.name()));
            return Err(suggest(mistake, field, known));
        }
        self.note(root, Some(field));
        Ok(())
    }

    fn note(&mut self, root: Root, field: Option<&str>) {
        let used = match self.uses.iter_mut().position(|used| used.root == root) {
            Some(at) => self.uses.get_mut(at),
            None => {
                self.uses.push(Use { root, fields: Some(Vec::new()), captures: Vec::new() });
                self.uses.last_mut()
            }
        };
        match (used, field) {
            (Some(Use { fields: Some(fields), captures, .. }), Some(field))
                if !fields.iter().any(|known| **known == *field) =>
            {
                fields.push(field.into());
                captures.extend(self.scope.pattern.capture_index(field).filter(|_| root == Root::Path));
            }
            (Some(used), None) => used.fields = None,
            _ => {}
        }
    }

    fn mistake(&self, id: u64, message: impl Into<String>) -> Mistake {
        Mistake::new(self.place(id), message)
    }

    /// Where the node is written, as far as that is known.
    fn place(&self, id: u64) -> Range<usize> {
        let place = self.info.offset_for(id).filter(|_| self.text.is_ascii());
        match place.map(|(start, stop)| (start as usize, stop as usize + 1)) {
            Some((start, end)) if start < end && end <= self.text.len() => start..end,
            _ => 0..self.text.len(),
        }
    }
}

fn literal(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().to_owned()),
        _ => None,
    }
}

fn suggest(mistake: Mistake, written: &str, known: &[&str]) -> Mistake {
    match nearest(written, known.iter().copied()) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint(format!("one of {}", known.join(", "))),
    }
}
