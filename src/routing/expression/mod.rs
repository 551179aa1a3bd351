//! Expressions: `jwt.tenant == "acme" && path.id != "0"`. CEL (the Common Expression Language) over the same sources as
//! templates.
//!
//! Compiled once, with the configuration. Three bounds keep what one costs small, whatever a client sends: its own length
//! and number of parts, one comprehension at most, and how many values it may look at. A regex of `matches` is a literal
//! of the operator's. What an expression does not refer to is not made for it.
//!
//! An expression that fails has no value: whoever asks denies then.

mod facts;
mod survey;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, IdedExpr};

use self::facts::Budget;
use self::survey::{Regexes, Survey, Use};
use super::template::{Scope, Values};
use super::{Mistake, PathPattern};

/// Longest expression.
const TEXT_BYTES_MAX: usize = 2048;
/// Deepest nesting of parentheses and calls.
const DEPTH_MAX: u16 = 32;
/// Longest story about a failure: it may show values.
const STORY_BYTES_MAX: usize = 200;

/// CEL's own functions and types, without optional values.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// When an expression is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To find the route: nobody knows yet who it is.
    Routing,
    /// To judge who it is.
    Authorization,
    /// To count it under a limit, which is no one route's; `knows_who` where that is after it is known who it is.
    Counting {
        /// Whether that is known.
        knows_who: bool,
    },
}

impl Stage {
    fn knows_who(self) -> bool {
        match self {
            Self::Routing => false,
            Self::Authorization => true,
            Self::Counting { knows_who } => knows_who,
        }
    }
}

/// An expression that is true or false, or a number, compiled.
#[derive(Debug, Clone)]
pub struct Expression {
    text: Box<str>,
    tree: IdedExpr,
    /// What it refers to.
    uses: Box<[Use]>,
    /// The regexes of its `matches`, by the functions that these have become.
    regexes: Regexes,
}

/// Why an expression has no value for a request: for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(String);

impl Failed {
    pub(crate) fn new(story: impl Into<String>) -> Self {
        let mut story = story.into();
        if story.len() > STORY_BYTES_MAX {
            let end = (0..=STORY_BYTES_MAX).rev().find(|end| story.is_char_boundary(*end)).unwrap_or(0);
            story.truncate(end);
            story.push('…');
        }
        Self(story)
    }
}

impl Expression {
    /// Reads an expression; `scope` says what `path` has.
    pub fn parse(text: &str, scope: Scope<'_>, stage: Stage) -> Result<Self, Mistake> {
        Self::parse_as(text, scope, stage, None)
    }

    /// Reads an expression for a number: from 0 to `most`, as far as that can be told beforehand.
    pub fn parse_number(text: &str, stage: Stage, most: u64) -> Result<Self, Mistake> {
        let none = PathPattern::parse("/")?;
        Self::parse_as(text, Scope { pattern: &none, groups: None }, stage, Some(most))
    }

    fn parse_as(text: &str, scope: Scope<'_>, stage: Stage, most: Option<u64>) -> Result<Self, Mistake> {
        let whole = 0..text.len();
        if text.len() > TEXT_BYTES_MAX {
            let message =
                format!("the expression is {} bytes long, at most {TEXT_BYTES_MAX} are allowed", text.len());
            return Err(Mistake::new(whole, message));
        }
        if text.trim().is_empty() {
            return Err(Mistake::new(whole, "the expression is empty"));
        }
        if let Some(at) = nested_too_deeply(text) {
            return Err(too_deep(at));
        }
        let parser = ENV.parser().max_recursion_depth(DEPTH_MAX);
        let (mut tree, info) =
            parser.parse_with_source_info(text).map_err(|errors| not_cel(text, &errors))?;
        let mut survey = Survey::new(text, &info, scope, stage);
        if let Some(most) = most {
            survey.check_number(&tree, most)?;
        }
        survey.visit(&mut tree)?;
        let (uses, regexes) = survey.done()?;
        Ok(Self { text: text.into(), tree, uses, regexes })
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it holds for a request.
    ///
    /// # Errors
    /// If it has no value: something it refers to is missing, types do not fit, or there is more than it may look at.
    pub fn holds(&self, values: &Values<'_>) -> Result<bool, Failed> {
        match self.value(values)? {
            cel::Value::Bool(holds) => Ok(holds),
            other => Err(Failed::new(format!("it is neither true nor false but a {:?}", other.type_of()))),
        }
    }

    /// The number that it is for a request.
    ///
    /// # Errors
    /// If it has no value, as [`Expression::holds`], or that is no whole number from 0 on.
    pub fn number(&self, values: &Values<'_>) -> Result<u64, Failed> {
        match self.value(values)? {
            cel::Value::Int(number) => {
                u64::try_from(number).map_err(|_| Failed::new(format!("{number} is less than 0")))
            }
            cel::Value::UInt(number) => Ok(number),
            other => Err(Failed::new(format!("it is no whole number but a {:?}", other.type_of()))),
        }
    }

    fn value(&self, values: &Values<'_>) -> Result<cel::Value, Failed> {
        let mut context = Context::with_env(ENV.clone());
        let mut budget = Budget::default();
        for used in &self.uses {
            context.add_variable_from_value(used.root.name(), facts::of(used, values, &mut budget)?);
        }
        for (name, regex) in &self.regexes {
            let regex = regex.clone();
            let matches = move |text: Arc<String>| regex.is_match(text.as_bytes());
            context.add_function(name, matches).map_err(|error| Failed::new(error.to_string()))?;
        }
        cel::Value::resolve(&self.tree, &context).map_err(|error| Failed::new(error.to_string()))
    }
}

/// Where `text` opens more parentheses, lists or maps in each other than it may: the parser would refuse it, without a place.
fn nested_too_deeply(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = end_of_literal(bytes, at);
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let comment = bytes.get(at..).unwrap_or_default();
                at += memchr::memchr(b'\n', comment).unwrap_or(comment.len());
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Some(at..at + 1);
                }
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the text literal that begins at `start` is over; the end of `bytes` if it has none.
fn end_of_literal(bytes: &[u8], start: usize) -> usize {
    let quote = bytes.get(start).copied().unwrap_or_default();
    let triple = [quote; 3];
    let from = |at: usize| bytes.get(at..).unwrap_or_default();
    let end: &[u8] = if from(start).starts_with(&triple) { &triple } else { &triple[..1] };
    let prefix = bytes.get(start.saturating_sub(2)..start).unwrap_or_default();
    let is_raw = matches!(prefix, [.., b'r' | b'R'] | [b'r' | b'R', b'b' | b'B']);
    let mut at = start + end.len();
    while at < bytes.len() && !from(at).starts_with(end) {
        at += if bytes.get(at) == Some(&b'\\') && !is_raw { 2 } else { 1 };
    }
    (at + end.len()).min(bytes.len())
}

fn too_deep(at: Range<usize>) -> Mistake {
    Mistake::new(at, format!("the expression is nested more than {DEPTH_MAX} levels deep"))
        .hint("parentheses, lists, maps and the arguments of calls are levels")
}

/// The first thing that the parser says, at its place.
fn not_cel(text: &str, errors: &cel::ParseErrors) -> Mistake {
    let Some(error) = errors.errors.first() else {
        return Mistake::new(0..text.len(), "the expression cannot be read");
    };
    if errors.errors.iter().any(|error| error.msg.contains("ecursion limit")) {
        return too_deep(0..text.len());
    }
    let message = error.msg.lines().next().unwrap_or_default().trim();
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let mistake = |at| Mistake::new(at, format!("the expression cannot be read: {message}"));
    // Lines and columns from 1, columns in characters.
    let place = || {
        let line = usize::try_from(error.pos.0).ok()?.checked_sub(1)?;
        let column = usize::try_from(error.pos.1).ok()?.checked_sub(1)?;
        let start = text.split_inclusive('\n').take(line).map(str::len).sum::<usize>();
        let (offset, c) = text.get(start..)?.char_indices().nth(column)?;
        Some(start + offset..start + offset + c.len_utf8())
    };
    mistake(place().unwrap_or(0..text.len()))
}
