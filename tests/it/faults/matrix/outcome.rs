//! What came of a request, and what may.

use super::super::*;

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    /// The right answer, whole.
    Right,
    /// As long as the right answer, and the same but where bytes were damaged on their way.
    Damaged,
    /// An error: its code, or its status where it is not one of the gateway's.
    Refused(String),
    /// The beginning of the right answer, and it can be seen that it is not all.
    Cut,
    /// Nothing, and the client knows it. (What is between it and the gateway is at fault, or the client gave up.)
    Nothing,
    /// What must never be.
    Wrong(String),
}

/// What a fault may lead to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sees {
    /// The right answer, nothing else.
    Right,
    /// The connection is lost before all could have come.
    Lost,
    /// Nobody says anything more.
    Silent,
    /// What comes cannot be.
    Nonsense,
    /// Bytes are damaged, and nothing may tell.
    Damaged,
    /// Lost, or not: it depends on how much passes.
    Any,
}

impl Sees {
    /// Whether `outcome` is one of those, where errors may have these `codes` (`None`: any).
    pub(super) fn allows(self, outcome: &Outcome, codes: Option<&[&str]>) -> bool {
        match outcome {
            Outcome::Wrong(_) => false,
            Outcome::Right => matches!(self, Self::Right | Self::Damaged | Self::Any),
            Outcome::Damaged => self == Self::Damaged,
            Outcome::Cut | Outcome::Nothing => self != Self::Right,
            Outcome::Refused(code) => {
                self != Self::Right && codes.is_none_or(|codes| codes.contains(&code.as_str()))
            }
        }
    }
}

/// What came of a request whose right answer is a 200 with this body.
pub(super) fn judged<E: std::fmt::Debug>(answer: Result<Response, E>, right: &[u8]) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) => return Outcome::Nothing,
    };
    let is_whole = answer.broken.is_none();
    if answer.status != 200 {
        let code = serde_json::from_slice::<serde_json::Value>(&answer.body)
            .ok()
            .and_then(|problem| Some(problem["code"].as_str()?.to_owned()));
        return match (answer.status, is_whole) {
            (400.., true) => Outcome::Refused(code.unwrap_or_else(|| answer.status.to_string())),
            (400.., false) => Outcome::Cut,
            _ => Outcome::Wrong(format!("{answer:?}")),
        };
    }
    if is_whole {
        return compared(&answer.body, right);
    }
    let is_beginning = answer.body.len() <= right.len() && is_like(&answer.body, &right[..answer.body.len()]);
    if is_beginning { Outcome::Cut } else { Outcome::Wrong(format!("{answer:?}")) }
}

/// What came of a request that was answered by this.
pub(super) fn compared(body: &[u8], right: &[u8]) -> Outcome {
    if body == right {
        Outcome::Right
    } else if body.len() == right.len() && is_like(body, right) {
        Outcome::Damaged
    } else {
        let shown = String::from_utf8_lossy(body.get(..200).unwrap_or(body)).into_owned();
        Outcome::Wrong(format!("{} bytes in place of {}: {shown}", body.len(), right.len()))
    }
}

/// The same, but for bytes that [`Garbage::Flipped`] has changed.
fn is_like(body: &[u8], right: &[u8]) -> bool {
    body.iter().zip(right).all(|(one, other)| one == other || one ^ other == 0x15)
}
