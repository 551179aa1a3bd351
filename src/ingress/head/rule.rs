//! The rules a head can break: what the log says of a refused one, and the reason the client is told.

use crate::base::reason::Reason;

/// A rule that a head broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A line that LF alone ends.
    BareLf,
    /// CR without LF behind it.
    BareCr,
    /// NUL.
    Nul,
    /// Another control byte.
    ControlByte,
    /// The request line does not end in a version that is served.
    Version,
    /// The request line has fewer than three words.
    RequestLineWords,
    /// The method is not a token.
    MethodToken,
    /// CONNECT.
    Connect,
    /// The method is longer than any in use.
    MethodLength,
    /// The target is empty, or not visible ASCII.
    TargetBytes,
    /// The target is longer than anything behind can take.
    TargetLength,
    /// The target has none of the forms of RFC 9112 section 3.2.
    TargetForm,
    /// The authority of an absolute target.
    TargetAuthority,
    /// The path.
    PathByte,
    /// The query, or a fragment.
    QueryByte,
    /// The request line is longer than the whole head may be.
    LineLength,
    /// The head is longer than it may be.
    HeadLength,
    /// Too many field lines.
    FieldLines,
    /// A folded line.
    Folded,
    /// A line without a colon.
    NoColon,
    /// A field name that is not a token.
    FieldName,
    /// `Host` is missing.
    HostMissing,
    /// `Host` is repeated.
    HostRepeated,
    /// `Host` is no authority.
    HostInvalid,
    /// `Host` and an absolute target disagree.
    HostDiffers,
    /// An expectation other than `100-continue`.
    Expectation,
    /// `Content-Length` is repeated.
    LengthRepeated,
    /// `Content-Length` is no length.
    LengthInvalid,
    /// `Content-Length` and `Transfer-Encoding`.
    LengthAndChunked,
    /// `Transfer-Encoding` is repeated.
    CodingRepeated,
    /// `Transfer-Encoding` other than `chunked`.
    Coding,
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingIn10,
    /// TRACE with a body.
    TraceBody,
    /// A field of HTTP/2 with a space at an end of its value.
    FieldSpace,
    /// Too many options in `Connection`.
    ConnectionOptions,
    /// An option of `Connection` that is not a token.
    ConnectionToken,
    /// An option of `Connection` that would have the next hop drop a field that matters.
    ConnectionProtected,
}

impl Rule {
    /// Every rule, for tests.
    pub const ALL: &'static [Self] = &[
        Self::BareLf,
        Self::BareCr,
        Self::Nul,
        Self::ControlByte,
        Self::Version,
        Self::RequestLineWords,
        Self::MethodToken,
        Self::Connect,
        Self::MethodLength,
        Self::TargetBytes,
        Self::TargetLength,
        Self::TargetForm,
        Self::TargetAuthority,
        Self::PathByte,
        Self::QueryByte,
        Self::LineLength,
        Self::HeadLength,
        Self::FieldLines,
        Self::Folded,
        Self::NoColon,
        Self::FieldName,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostInvalid,
        Self::HostDiffers,
        Self::Expectation,
        Self::LengthRepeated,
        Self::LengthInvalid,
        Self::LengthAndChunked,
        Self::CodingRepeated,
        Self::Coding,
        Self::CodingIn10,
        Self::TraceBody,
        Self::FieldSpace,
        Self::ConnectionOptions,
        Self::ConnectionToken,
        Self::ConnectionProtected,
    ];

    /// What the client is told, and the metrics count.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Connect | Self::MethodLength => Reason::MethodUnsupported,
            Self::TargetLength | Self::LineLength => Reason::UriTooLong,
            Self::TargetAuthority
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::HostDiffers => Reason::BadHost,
            Self::PathByte => Reason::BadPath,
            Self::HeadLength | Self::FieldLines => Reason::HeaderTooLarge,
            Self::Expectation => Reason::ExpectationFailed,
            _ => Reason::RequestMalformed,
        }
    }

    /// What the log says. Never sent to clients.
    pub const fn text(self) -> &'static str {
        match self {
            Self::BareLf => "a line ends in LF without CR",
            Self::BareCr => "CR without LF behind it",
            Self::Nul => "NUL in the head",
            Self::ControlByte => "a control byte in the head",
            Self::Version => "the request line does not end in HTTP/1.0, HTTP/1.1 or a later 1.x",
            Self::RequestLineWords => "the request line is not method, target and version",
            Self::MethodToken => "the method is not a token",
            Self::Connect => "CONNECT",
            Self::MethodLength => "the method is longer than 32 bytes",
            Self::TargetBytes => "the target is empty or not visible ASCII",
            Self::TargetLength => "the target is longer than 65534 bytes",
            Self::TargetForm => "the target is no path and no http URL",
            Self::TargetAuthority => "the host in the target is not valid",
            Self::PathByte => "a byte that no path may hold",
            Self::QueryByte => "a fragment, or a byte that no query may hold",
            Self::LineLength => "the request line is longer than limits.header_bytes",
            Self::HeadLength => "the head is longer than limits.header_bytes",
            Self::FieldLines => "more than 100 header lines",
            Self::Folded => "a folded header line",
            Self::NoColon => "a header line without a colon",
            Self::FieldName => "a header name that is not a token",
            Self::HostMissing => "no Host",
            Self::HostRepeated => "Host is repeated",
            Self::HostInvalid => "Host is not a host",
            Self::HostDiffers => "Host is not the host of the target",
            Self::Expectation => "an expectation other than 100-continue",
            Self::LengthRepeated => "Content-Length is repeated",
            Self::LengthInvalid => "Content-Length is not a number",
            Self::LengthAndChunked => "both Content-Length and Transfer-Encoding",
            Self::CodingRepeated => "Transfer-Encoding is repeated",
            Self::Coding => "a transfer coding other than chunked",
            Self::CodingIn10 => "Transfer-Encoding in HTTP/1.0",
            Self::TraceBody => "TRACE with a body",
            Self::FieldSpace => "a header value that begins or ends with a space",
            Self::ConnectionOptions => "more than 9 options in Connection",
            Self::ConnectionToken => "an option of Connection that is not a token",
            Self::ConnectionProtected => "Connection names a header that must stay",
        }
    }
}
