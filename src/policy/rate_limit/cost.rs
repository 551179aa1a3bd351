//! What one request counts for: a number, or what an expression says of it.

use std::fmt;

use crate::base::decode::{Decoder, Kind, Node, Shape, Value, quote};
use crate::routing::Expression;
use crate::routing::config::Written;
use crate::routing::expression::Failed;

/// What one request counts for.
#[derive(Debug, Clone)]
pub enum Cost {
    /// The same for all.
    Fixed(u64),
    /// What the expression says; 0 = it does not count. Where it has no value the request counts for as much as ever
    /// passes: whoever sends what it does not expect gains nothing by it.
    Worked(Box<Expression>),
}

/// Works an expression out for the request that is counted.
#[derive(Clone, Copy)]
pub struct Work<'a>(pub &'a dyn Fn(&Expression) -> Result<u64, Failed>);

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

impl Cost {
    /// What it comes to for one request, of which `work` knows.
    ///
    /// # Errors
    /// Why it has no value; `None` where nobody can work it out.
    pub(super) fn of(&self, work: Option<Work<'_>>) -> Result<u64, Option<Failed>> {
        match (self, work) {
            (Self::Fixed(cost), _) => Ok(*cost),
            (Self::Worked(expression), Some(Work(work))) => work(expression).map_err(Some),
            (Self::Worked(_), None) => Err(None),
        }
    }
}

/// `cost`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CostRaw {
    /// A number.
    Number(u64),
    /// An expression.
    Expression(Written),
}

impl Value for CostRaw {
    fn shape() -> Shape {
        let text = Shape::Text { pattern: None, examples: &["request.path.startsWith('/export') ? 10 : 1"] };
        Shape::OneOf(vec![u64::shape(), text])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Integer(_) => u64::decode(node, cx).map(Self::Number),
            // A number that came out of a variable is one, too.
            Kind::String { text, .. } => match text.trim().parse() {
                Ok(number) => Some(Self::Number(number)),
                Err(_) => Written::decode(node, cx).map(Self::Expression),
            },
            _ => cx.expected(node, "a number, or an expression that is one"),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Expression(written) => quote(written.text()),
        }
    }
}
