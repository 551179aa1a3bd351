//! Why a message had no answer, or was not taken.

use crate::base::reason::Reason;

/// Why a call has no answer, or a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no connection: nothing was sent.
    #[error("there is no connection to the broker")]
    Down,
    /// As many calls are under way as may be: nothing was sent.
    #[error("too many calls are under way")]
    Busy,
    /// The broker takes nothing at the moment, as it has no memory or no disk left: nothing was sent.
    #[error("the broker takes nothing at the moment")]
    Blocked,
    /// Headers, properties or the routing key are larger than a message may have.
    #[error("what the message says beside its body is too large")]
    TooLarge,
    /// The connection or the channel broke: whether the message was handled is not known.
    #[error("the connection to the broker broke")]
    Lost,
    /// No queue takes the message.
    #[error("no queue takes the message")]
    NoQueue,
    /// The exchange does not exist.
    #[error("the exchange does not exist")]
    NoExchange,
    /// The broker does not allow it.
    #[error("the broker refused the message")]
    Refused,
    /// The broker could not keep it: the queue is full, for one.
    #[error("the broker could not take the message in")]
    Rejected,
    /// No answer, or no confirmation, in time.
    #[error("there was no answer in time")]
    TimedOut,
}

impl Failure {
    /// Every one, for metrics.
    pub const ALL: &'static [Self] = &[
        Self::Down,
        Self::Busy,
        Self::Blocked,
        Self::TooLarge,
        Self::Lost,
        Self::NoQueue,
        Self::NoExchange,
        Self::Refused,
        Self::Rejected,
        Self::TimedOut,
    ];

    /// In one word, for metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Busy => "busy",
            Self::Blocked => "blocked",
            Self::TooLarge => "too_large",
            Self::Lost => "lost",
            Self::NoQueue => "no_queue",
            Self::NoExchange => "no_exchange",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::TimedOut => "timeout",
        }
    }

    /// What the client is told.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Down => Reason::BrokerDown,
            Self::Busy => Reason::BrokerFull,
            Self::Blocked | Self::Rejected => Reason::BrokerRejected,
            // The body is no part of it: it is the head that makes it so.
            Self::TooLarge => Reason::HeaderTooLarge,
            Self::Lost => Reason::BrokerLost,
            Self::NoQueue => Reason::NoQueue,
            Self::NoExchange => Reason::NoExchange,
            Self::Refused => Reason::BrokerRefused,
            Self::TimedOut => Reason::BrokerTimeout,
        }
    }
}
