//! Why a leg failed, in one word each, and what that makes of the whole answer.

use std::sync::Arc;
use std::time::Duration;

use super::json;
use crate::base::reason::Reason;

/// Why a leg failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer came, or no whole one. `retry_after` is known where no server could be asked.
    Upstream {
        /// Why.
        reason: Reason,
        /// When it may be otherwise.
        retry_after: Option<Duration>,
    },
    /// It answered, with a status other than 2xx.
    Status(u16),
    /// The answer cannot be read.
    Unreadable(json::Fault),
    /// The answer is compressed although that was not asked for.
    Encoded,
    /// The answer, or all of them together, is larger than allowed.
    TooLarge,
    /// The answer has no `target`.
    NoTarget,
    /// It is no object, and the leg has neither `group` nor is there a `shape`.
    NeedsGroup,
    /// What `for_each` names is no array.
    NotList,
    /// There would be more calls than allowed.
    TooManyCalls,
    /// It took longer than it may, or all together did.
    Timeout,
    /// Something that its path or body needs is missing or makes none.
    InputMissing {
        /// Whether the client should have sent it.
        of_client: bool,
    },
    /// Its request would be larger than allowed.
    RequestTooLarge,
    /// The request was over before it was.
    Cancelled,
    /// The gateway panicked in it: a defect.
    Panicked,
}

impl Failure {
    /// The stable word for it, in reports, metrics and logs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Upstream { reason, .. } => reason.code(),
            Self::Status(_) => "leg.status",
            Self::Unreadable(json::Fault::NotUtf8 | json::Fault::Syntax) => "leg.not_json",
            Self::Unreadable(json::Fault::TooDeep) => "leg.too_deep",
            Self::Unreadable(json::Fault::DuplicateKey) => "leg.duplicate_key",
            Self::Encoded => "leg.encoded",
            Self::TooLarge => "leg.too_large",
            Self::NoTarget => "leg.no_target",
            Self::NeedsGroup => "leg.needs_group",
            Self::NotList => "leg.not_a_list",
            Self::TooManyCalls => "leg.too_many_calls",
            Self::Timeout => "leg.timeout",
            Self::InputMissing { .. } => "leg.input_missing",
            Self::RequestTooLarge => "leg.request_too_large",
            Self::Cancelled => "leg.cancelled",
            Self::Panicked => "leg.panicked",
        }
    }

    /// Whether it took too long.
    pub const fn is_timeout(self) -> bool {
        match self {
            Self::Timeout => true,
            Self::Upstream { reason, .. } => reason.status() == 504,
            _ => false,
        }
    }

    /// Why the whole request ends when this leg is needed, and with which status if that is the leg's own.
    pub const fn refusal(self) -> (Reason, Option<u16>) {
        match self {
            // What the client asked for, as the service sees it. 401 and 403 are between it and the gateway.
            Self::Status(status @ (400 | 402 | 404..=499)) => (Reason::LegRefused, Some(status)),
            Self::InputMissing { of_client: true } => (Reason::InputMissing, None),
            _ if self.is_timeout() => (Reason::LegTimeout, None),
            Self::Upstream { reason, .. } if reason.status() == 503 => (Reason::LegUnavailable, None),
            _ => (Reason::LegFailed, None),
        }
    }
}

/// Why there is no answer at all.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The status, where it is not the reason's.
    pub status: Option<u16>,
    /// The leg that is to blame, and its word for it.
    pub leg: Option<(Arc<str>, &'static str)>,
    /// When it may be otherwise.
    pub retry_after: Option<Duration>,
}
