//! The answer as the configuration draws it: JMESPath over the legs by name. Pure.
//!
//! The library computes with 64-bit numbers. A number whose value they cannot hold passes through it untouched: as a
//! text that nobody can have sent, which becomes the number again. (To an expression it is a string, so sums and
//! comparisons with it fail or are false, and are never rounded.)

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jmespath::ast::Ast;
use jmespath::{Expression, Rcvar, Variable};

use super::json::{Json, Object};
use crate::routing::Mistake;

/// Longest expression.
const EXPRESSION_BYTES_MAX: usize = 1024;
/// Deepest nesting of brackets and negations in one: reading them takes a frame of the stack each.
const NESTING_MAX: usize = 32;
/// Values in the result of one expression, so that one that repeats its input cannot grow without bound.
const VALUES_MAX: usize = 1 << 20;

/// `shape` of a route: the members of its answer, in the order written.
#[derive(Debug, Default)]
pub struct Shape(pub Vec<(Box<str>, Formula)>);

/// One expression, compiled.
#[derive(Debug)]
pub struct Formula {
    expression: Expression<'static>,
}

impl Formula {
    /// Compiles `text`, whose names at the root have to be among `legs`.
    pub fn compile(text: &str, legs: &[&str]) -> Result<Self, Mistake> {
        let whole = 0..text.len();
        if text.len() > EXPRESSION_BYTES_MAX {
            let message = format!(
                "the expression is {} bytes long, at most {EXPRESSION_BYTES_MAX} are allowed",
                text.len()
            );
            return Err(Mistake::new(whole, message));
        }
        if nesting(text) > NESTING_MAX {
            return Err(Mistake::new(whole, format!("brackets are nested more than {NESTING_MAX} deep")));
        }
        let expression = catch_unwind(|| jmespath::compile(text))
            .map_err(|_| Mistake::new(whole.clone(), "the expression is not JMESPath"))?
            .map_err(|error| {
                let at = text.floor_char_boundary(error.offset);
                let end =
                    text.get(at..).and_then(|rest| rest.chars().next()).map_or(at, |c| at + c.len_utf8());
                let why = error.reason.to_string();
                let why = why.strip_prefix("Parse error: ").unwrap_or(&why).trim_end().to_owned();
                Mistake::new(at..end, format!("the expression is not JMESPath: {}", lower_first(&why)))
            })?;
        let mut unknown = None;
        names_at_root(expression.as_ast(), &mut |name, offset| {
            if !legs.contains(&name) && unknown.is_none() {
                unknown = Some((name.to_owned(), offset));
            }
        });
        if let Some((name, offset)) = unknown {
            let at = place_of(text, &name, offset);
            let mistake = Mistake::new(at, format!("no leg is called `{name}`"));
            return Err(match crate::base::names::nearest(&name, legs.iter().copied()) {
                Some(near) => mistake.hint(format!("did you mean `{near}`?")),
                None => mistake.hint(format!("legs: {}", legs.join(", "))),
            });
        }
        if let Some(function) = unknown_function(expression.as_ast()) {
            return Err(Mistake::new(whole, format!("there is no function `{function}`")));
        }
        Ok(Self { expression })
    }

    fn evaluate(&self, legs: &Rcvar, foreign: &Foreign) -> Option<Json> {
        // The library does no more than it says, but a panic in it must cost one member, not the request.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let mut context = jmespath::Context::new(self.expression.as_str(), &jmespath::DEFAULT_RUNTIME);
            jmespath::interpret(legs, self.expression.as_ast(), &mut context)
        }));
        let found: Rcvar = found.ok()?.ok()?;
        let mut left = VALUES_MAX;
        foreign.back(&found, &mut left)
    }
}

/// A shaped answer.
#[derive(Debug)]
pub struct Shaped {
    /// The members.
    pub members: Object,
    /// Those whose expression failed: they are `null`.
    pub failed: Vec<Box<str>>,
}

impl Shape {
    /// Draws the answer from the legs' values.
    pub fn draw(&self, legs: &Json) -> Shaped {
        let foreign = Foreign::new();
        let legs = foreign.there(legs);
        let mut shaped = Shaped { members: Object::default(), failed: Vec::new() };
        for (name, formula) in &self.0 {
            let value = formula.evaluate(&legs, &foreign).unwrap_or_else(|| {
                shaped.failed.push(name.clone());
                Json::Null
            });
            shaped.members.insert(name.clone(), value);
        }
        shaped
    }
}

/// To the library and back.
struct Foreign {
    /// What the texts of numbers begin with that the library cannot hold: made anew for each answer.
    mark: String,
}

impl Foreign {
    fn new() -> Self {
        Self { mark: format!("\u{f8ff}{:016x}{:016x}\u{f8ff}", fastrand::u64(..), fastrand::u64(..)) }
    }

    fn there(&self, value: &Json) -> Rcvar {
        Rcvar::new(match value {
            Json::Null => Variable::Null,
            Json::Bool(value) => Variable::Bool(*value),
            Json::Number(text) => match number(text) {
                Some(number) => Variable::Number(number),
                None => Variable::String(format!("{}{text}", self.mark)),
            },
            Json::String(text) => Variable::String(text.to_string()),
            Json::Array(elements) => {
                Variable::Array(elements.iter().map(|element| self.there(element)).collect())
            }
            Json::Object(members) => Variable::Object(
                members.iter().map(|(key, value)| (key.to_string(), self.there(value))).collect(),
            ),
        })
    }

    /// `None` for what is no JSON, and where more than `left` values would come of it.
    fn back(&self, value: &Variable, left: &mut usize) -> Option<Json> {
        *left = left.checked_sub(1)?;
        Some(match value {
            Variable::Null => Json::Null,
            Variable::Bool(value) => Json::Bool(*value),
            Variable::Number(number) => Json::Number(number.to_string().into()),
            Variable::String(text) => match text.strip_prefix(&self.mark) {
                Some(digits) if is_number(digits) => Json::Number(digits.into()),
                // A part of a longer text by now.
                _ => Json::String(text.replace(&self.mark, "").into()),
            },
            Variable::Array(elements) => {
                Json::Array(elements.iter().map(|element| self.back(element, left)).collect::<Option<_>>()?)
            }
            Variable::Object(members) => {
                let mut object = Object::default();
                for (key, value) in members {
                    object.insert(key.replace(&self.mark, "").into(), self.back(value, left)?);
                }
                Json::Object(object)
            }
            Variable::Expref(_) => return None,
        })
    }
}

fn is_number(text: &str) -> bool {
    matches!(super::json::parse(text.as_bytes(), 0), Ok(Json::Number(_)))
}

/// The number as the library holds it; `None` if that would be another.
fn number(text: &str) -> Option<serde_json::Number> {
    let is_whole = !text.contains(['.', 'e', 'E']);
    if is_whole && text != "-0" {
        let small = text.parse::<i64>().map(Into::into).or_else(|_| text.parse::<u64>().map(Into::into));
        return small.ok();
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
    // The shortest text of a float stands for exactly one; if that is the same decimal, nothing is lost.
    (decimal(text)? == decimal(&float.to_string())?).then(|| serde_json::Number::from_f64(float))?
}

/// Sign, digits without zeros at their ends, and the power of ten of the last: the same for the same value.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((negative, String::new(), 0));
    }
    let exponent = exponent.parse::<i64>().ok()?;
    let fraction = i64::try_from(fraction.len()).ok()?;
    let zeros = i64::try_from(digits.len() - trimmed.len()).ok()?;
    Some((negative, trimmed.to_owned(), exponent.checked_sub(fraction)?.checked_add(zeros)?))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// How deep brackets lie in each other, negations counted with them. Texts in quotes are not looked at.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut negations) = (0_usize, 0_usize, 0_usize);
    let mut quote = None;
    let mut escaped = false;
    for c in text.chars() {
        if let Some(end) = quote {
            if !escaped && c == end {
                quote = None;
            }
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '\'' | '"' | '`' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '!' | '&' => negations += 1,
            _ => {}
        }
        deepest = deepest.max(depth + negations);
    }
    deepest
}

/// Calls `see` with every field that is looked up in the root, and where it stands.
fn names_at_root(ast: &Ast, see: &mut impl FnMut(&str, usize)) {
    match ast {
        Ast::Field { name, offset } => see(name, *offset),
        Ast::Comparison { lhs, rhs, .. } | Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } => {
            names_at_root(lhs, see);
            names_at_root(rhs, see);
        }
        Ast::Condition { predicate, then, .. } => {
            names_at_root(predicate, see);
            names_at_root(then, see);
        }
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => {
            names_at_root(node, see)
        }
        Ast::Function { args, .. } => args.iter().for_each(|arg| names_at_root(arg, see)),
        Ast::MultiList { elements, .. } => elements.iter().for_each(|element| names_at_root(element, see)),
        Ast::MultiHash { elements, .. } => {
            elements.iter().for_each(|element| names_at_root(&element.value, see));
        }
        // What follows is looked up in what the left side gives.
        Ast::Projection { lhs, .. } => names_at_root(lhs, see),
        Ast::Subexpr { lhs, rhs, .. } => match **lhs {
            Ast::Identity { .. } => names_at_root(rhs, see),
            _ => names_at_root(lhs, see),
        },
        Ast::Identity { .. }
        | Ast::Expref { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => {}
    }
}

/// Where `name` stands, which the library says to be at `offset` or before it; with its quotes, if it has some.
fn place_of(text: &str, name: &str, offset: usize) -> Range<usize> {
    let rest = text.get(offset..).unwrap_or_default();
    if rest.starts_with(name) {
        return offset..offset + name.len();
    }
    if let Some(quoted) = rest.strip_prefix('"') {
        let mut is_escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        });
        return offset..end.map_or(text.len(), |end| offset + end + 2);
    }
    match text.get(..offset).and_then(|before| before.rfind(name)) {
        Some(start) => start..start + name.len(),
        None => 0..text.len(),
    }
}

/// A function that is called and does not exist.
fn unknown_function(ast: &Ast) -> Option<&str> {
    match ast {
        Ast::Function { name, args, .. } => {
            if jmespath::DEFAULT_RUNTIME.get_function(name).is_none() {
                return Some(name);
            }
            args.iter().find_map(unknown_function)
        }
        Ast::Comparison { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => unknown_function(lhs).or_else(|| unknown_function(rhs)),
        Ast::Condition { predicate, then, .. } => {
            unknown_function(predicate).or_else(|| unknown_function(then))
        }
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => {
            unknown_function(node)
        }
        Ast::Expref { ast, .. } => unknown_function(ast),
        Ast::MultiList { elements, .. } => elements.iter().find_map(unknown_function),
        Ast::MultiHash { elements, .. } => {
            elements.iter().find_map(|element| unknown_function(&element.value))
        }
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::parse;
    use super::*;

    fn draw(shape: &[(&str, &str)], legs: &str) -> (String, Vec<Box<str>>) {
        let legs = parse(legs.as_bytes(), 32).unwrap();
        let Json::Object(members) = &legs else { panic!("legs are an object") };
        let names: Vec<&str> = members.keys().map(|name| &**name).collect();
        let shape =
            shape.iter().map(|(name, text)| ((*name).into(), Formula::compile(text, &names).unwrap()));
        let shaped = Shape(shape.collect()).draw(&legs);
        (String::from_utf8(Json::Object(shaped.members).to_vec()).unwrap(), shaped.failed)
    }

    #[test]
    fn the_example_of_the_documentation() {
        let (shown, failed) = draw(
            &[
                ("orderId", "order.id"),
                (
                    "customer",
                    "customer.{id: id, name: join(' ', [firstName || '', lastName || '']), email: mail}",
                ),
                (
                    "items",
                    "order.items[].{productId: productId, quantity: quantity, product: product.{id: id, name: name}}",
                ),
            ],
            r#"{"order":{"id":9,"items":[{"productId":1,"quantity":2,"product":{"id":1,"name":"Cup","x":0}},
                {"productId":2,"quantity":1,"product":null}]},"customer":{"id":"u","firstName":"Ada","mail":"a@x"}}"#,
        );
        assert_eq!(
            shown,
            r#"{"orderId":9,"customer":{"email":"a@x","id":"u","name":"Ada "},"items":[{"product":{"id":1,"name":"Cup"},"productId":1,"quantity":2},{"product":null,"productId":2,"quantity":1}]}"#
        );
        assert!(failed.is_empty());
    }

    #[test]
    fn numbers_that_no_float_holds_pass_through() {
        let numbers = r#"[12345678901234567890123,0.1000000000000000055511151231257827,1.10,9007199254740993,1e400,-0.0,0.1]"#;
        let (shown, _) =
            draw(&[("n", "a.n"), ("first", "a.n[0]")], &format!("{{\"a\":{{\"n\":{numbers}}}}}"));
        assert_eq!(
            shown,
            r#"{"n":[12345678901234567890123,0.1000000000000000055511151231257827,1.1,9007199254740993,1e400,-0.0,0.1],"first":12345678901234567890123}"#
        );
    }

    /// What a service sends cannot turn into a number, and a number in a text leaves no trace.
    #[test]
    fn nobody_else_can_write_the_mark() {
        let (shown, _) = draw(
            &[("a", "a"), ("t", "join(',', [b, 'x'])")],
            "{\"a\":\"\u{f8ff}00000000000000000000000000000000\u{f8ff}12\",\"b\":1e999}",
        );
        assert_eq!(shown, "{\"a\":\"\u{f8ff}00000000000000000000000000000000\u{f8ff}12\",\"t\":\"1e999,x\"}");
    }

    #[test]
    fn an_expression_that_fails_gives_null() {
        let (shown, failed) = draw(&[("a", "sum(x)"), ("b", "x.y"), ("c", "x")], r#"{"x":"text"}"#);
        assert_eq!(shown, r#"{"a":null,"b":null,"c":"text"}"#);
        assert_eq!(failed, [Box::<str>::from("a")]);
    }

    #[test]
    fn mistakes_are_found_when_compiled() {
        let compile = |text: &str| Formula::compile(text, &["order", "customer"]).unwrap_err();
        let unknown = compile("join(' ', [ordr.id, customer.x])");
        assert_eq!((unknown.message.as_str(), unknown.at), ("no leg is called `ordr`", 11..15));
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `order`?"));
        for (text, at) in
            [("\"\u{e9}\"", 0..4), ("[customer, \"a\\\"b\".x]", 11..17), ("order || \"ordr\"", 9..15)]
        {
            assert_eq!(compile(text).at, at, "{text}");
        }
        assert!(compile("order.{").message.starts_with("the expression is not JMESPath: "));
        assert_eq!(compile("nope(order)").message, "there is no function `nope`");
        assert!(compile(&"(".repeat(100)).message.contains("nested"));
        assert!(compile(&"!".repeat(100)).message.contains("nested"));
        assert!(compile(&format!("order{}", ".a".repeat(600))).message.contains("bytes long"));
        let chain = Formula::compile(&format!("order{}", ".a".repeat(500)), &["order"]).unwrap();
        let legs = parse(br#"{"order":{}}"#, 4).unwrap();
        assert!(Shape(vec![("x".into(), chain)]).draw(&legs).failed.is_empty());
    }

    proptest! {
        /// Any number passes through with its value, any text unchanged.
        #[test]
        fn values_pass_through(
            digits in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
            text in any::<String>(),
        ) {
            let value = Json::Array(vec![Json::Number(digits.as_str().into()), Json::string(&text)]);
            let legs = Json::Object([("a".into(), value)].into_iter().collect());
            let shape = Shape(vec![("a".into(), Formula::compile("a", &["a"]).unwrap())]);
            let shaped = shape.draw(&legs);
            let Some(Json::Array(back)) = shaped.members.get("a") else { panic!("an array") };
            let Json::Number(back_digits) = &back[0] else { panic!("a number: {:?}", back[0]) };
            prop_assert_eq!(decimal(back_digits), decimal(&digits), "{}", back_digits);
            prop_assert_eq!(&back[1], &Json::string(&text));
        }

        #[test]
        fn no_expression_panics(text in "[a-c.*\\[\\](){}|&!?'\"`:,<=0-9@ -]{0,30}") {
            if let Ok(formula) = Formula::compile(&text, &["a", "b", "c"]) {
                let legs = parse(br#"{"a":[{"b":1},{"b":2}],"b":{"c":"x"},"c":null}"#, 8).unwrap();
                drop(Shape(vec![("x".into(), formula)]).draw(&legs));
            }
        }
    }
}
