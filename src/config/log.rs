//! `[log]` as written.

use std::path::PathBuf;

use crate::base::decode::{Decoder, Node, Shape, Size, Value, quote};
use crate::routing::config::Written;
use crate::{enum_value, keys};

keys! {
    /// What is logged.
    pub struct LogRaw {
        /// How much the process says about itself, on stderr.
        level: LevelRaw = LevelRaw::Info,
        /// One line a request.
        access: AccessLogRaw = AccessLogRaw::default(),
        /// Each of both also as a message; absent: no broker hears of them.
        bus: optional BusRaw,
    }
}

keys! {
    /// One line a request: also refused, malformed and abandoned ones.
    pub struct AccessLogRaw {
        /// `stdout`, `stderr`, `off`, or the path of a file (reopened on USR1).
        output: OutputRaw = OutputRaw::Stdout,
        /// `combined`, `json`, or a text with at least one `$variable` of nginx.
        format: Written = Written::plain("combined"),
        /// How values are escaped in a text format.
        escape: EscapeRaw = EscapeRaw::Default,
    }
}

keys! {
    /// Access records and lines of the process log as messages, in JSON.
    pub struct BusRaw {
        /// One of `[brokers]`.
        broker: required String,
        /// The exchange, which is not declared; "" = the default one, whose routing keys are the names of queues.
        exchange: String = "log".to_owned(),
        /// The routing key of all messages.
        routing_key: String = "gateway".to_owned(),
        /// Bytes of messages that may wait for the broker; what comes beyond is dropped and counted.
        buffer: Size = Size(32 << 20),
    }
}

enum_value! {
    /// How much is logged.
    pub enum LevelRaw {
        /// Nothing.
        Off = "off",
        /// What someone must act on.
        Error = "error",
        /// What looks wrong.
        Warn = "warn",
        /// What was asked for and happened.
        Info = "info",
        /// What helps to find out why.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}

enum_value! {
    /// How values are escaped in a text format.
    pub enum EscapeRaw {
        /// As nginx does: `\xXX` for quotes, backslashes and control characters, `-` for nothing.
        Default = "default",
        /// As in a JSON string.
        Json = "json",
        /// Not at all.
        None = "none",
    }
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputRaw {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// The end of a file.
    File(PathBuf),
}

impl Value for OutputRaw {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["stdout", "stderr", "off", "logs/access.log"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else {
            let hint = (node.as_bool() == Some(false)).then(|| "write \"off\"".to_owned());
            return cx.expected_or(node, "\"stdout\", \"stderr\", \"off\" or a path", hint);
        };
        match text {
            "stdout" => Some(Self::Stdout),
            "stderr" => Some(Self::Stderr),
            "off" => Some(Self::Off),
            "" => cx.invalid(node, "is no path"),
            path if path.contains('\0') => cx.invalid(node, "holds a NUL, which no path can"),
            path => Some(Self::File(cx.resolve(&node.origin, path))),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Stdout => quote("stdout"),
            Self::Stderr => quote("stderr"),
            Self::Off => quote("off"),
            Self::File(path) => quote(&path.to_string_lossy()),
        }
    }
}
