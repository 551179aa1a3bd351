//! How an access record becomes a line: `combined`, `json`, or a text with nginx' variables, compiled once.

use std::ops::Range;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, REFERER, USER_AGENT};

use super::escape::Escape;
use super::json;
use super::mask::Mask;
use super::record::{AccessRecord, Field, FieldSet};
use super::stamp::Stamps;
use super::variable::{Line, VARIABLES, Variable, basic_user};
use crate::base::names;

/// nginx' predefined format, exactly.
pub const COMBINED: &str = concat!(
    r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "#,
    r#""$http_referer" "$http_user_agent""#
);

/// Longest text of a format: a line of fifty variables with their labels takes 2 KiB.
const FORMAT_BYTES_MAX: usize = 16 * 1024;

/// A compiled format.
///
/// Knows which headers and cookies its lines show. [`Format::collect_request`] and [`Format::collect_response`] take
/// just those into the record, at the moment when they are as the client sent or receives them.
#[derive(Debug)]
pub struct Format {
    layout: Layout,
    /// Where the document finds its headers, if there is to be one beside the line.
    document: Option<json::Slots>,
    /// Where each slot of the record comes from.
    needs: Vec<Need>,
    /// The texts of the record that lines show.
    fields: FieldSet,
    /// What they never show.
    mask: Mask,
}

#[derive(Debug)]
enum Layout {
    Json(json::Slots),
    Text { escape: Escape, pieces: Vec<Piece> },
}

#[derive(Debug)]
enum Piece {
    Literal(Box<[u8]>),
    Variable(Variable),
    /// A header or a cookie.
    Slot(usize),
    /// A header whose value is a URL.
    UrlSlot(usize),
    /// The authenticated user, or else what [`Need::User`] put there.
    User(usize),
    /// A parameter of the query; the record has the query already.
    Argument(Box<[u8]>),
    ForwardedFor(usize),
}

#[derive(Debug, PartialEq, Eq)]
enum Need {
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    Cookie(Box<[u8]>),
    /// The user name of basic authentication.
    User,
}

/// What is wrong with the text of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatError {
    /// The bytes of the text that it is about.
    pub at: Range<usize>,
    /// What is wrong, as a fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Format {
    /// Compiles `combined`, `json`, or a text with at least one `$variable` (or `${variable}`). `escape` concerns texts
    /// of variables only. All that is wrong is reported, not only the first.
    pub fn compile(text: &str, escape: Escape) -> Result<Self, Vec<FormatError>> {
        match text {
            "combined" => Compiler::compile(COMBINED, Escape::Default),
            "json" => {
                let mut needs = Needs::default();
                Ok(Self {
                    layout: Layout::Json(needs.document()),
                    document: None,
                    needs: needs.0,
                    fields: FieldSet::ALL,
                    mask: Mask::default(),
                })
            }
            _ => Compiler::compile(text, escape),
        }
    }

    /// Never shows the value of this parameter of a query, beside those that are always secrets.
    pub fn hiding(mut self, parameter: Option<&str>) -> Self {
        self.mask = Mask(parameter.map(Box::from));
        self
    }

    /// Has records keep what [`Format::write_document`] shows, whatever the line shows.
    pub fn with_document(mut self) -> Self {
        let mut needs = Needs(self.needs);
        self.document = Some(needs.document());
        self.needs = needs.0;
        self.fields = FieldSet::ALL;
        self
    }

    /// An empty record that keeps those texts alone that the format shows.
    pub fn record(&self) -> Box<AccessRecord> {
        AccessRecord::showing(self.fields)
    }

    /// Takes into `record` what the format shows of a request: its headers as received, before any are changed.
    pub fn collect_request(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        // By what is there: to look up what is not costs more than to compare all names.
        for name in headers.keys() {
            for (slot, need) in self.needs.iter().enumerate() {
                match need {
                    Need::RequestHeader(needed) if needed == name => collect(record, slot, headers, name),
                    Need::Cookie(cookie_name) if *name == COOKIE => {
                        let lines = headers.get_all(COOKIE);
                        let value = lines.iter().find_map(|line| cookie(line.as_bytes(), cookie_name));
                        record.set_slot(slot, value, b"");
                    }
                    Need::User if *name == AUTHORIZATION => {
                        let user = headers.get(AUTHORIZATION).and_then(|value| basic_user(value.as_bytes()));
                        record.set_slot(slot, user.as_deref(), b"");
                    }
                    _ => {}
                }
            }
        }
    }

    /// Takes into `record` what the format shows of an answer: its headers as sent.
    pub fn collect_response(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        for (slot, need) in self.needs.iter().enumerate() {
            if let Need::ResponseHeader(name) = need {
                collect(record, slot, headers, name);
            }
        }
    }

    /// Appends the line of `record`, with its line end.
    pub fn write(&self, record: &AccessRecord, stamps: &mut Stamps, out: &mut Vec<u8>) {
        match &self.layout {
            Layout::Json(slots) => json::write(record, slots, &self.mask, stamps, out),
            Layout::Text { escape, pieces } => {
                let mut line = Line { record, escape: *escape, mask: &self.mask, stamps, out };
                for piece in pieces {
                    piece.write(&mut line);
                }
            }
        }
        out.push(b'\n');
    }

    /// Appends the document of `record`: the object of the format `json`, without a line end. Nothing unless the format
    /// was made [`Format::with_document`].
    pub fn write_document(&self, record: &AccessRecord, stamps: &mut Stamps, out: &mut Vec<u8>) {
        if let Some(slots) = &self.document {
            json::write(record, slots, &self.mask, stamps, out);
        }
    }
}

impl Piece {
    /// The texts of the record that it shows.
    fn fields(&self) -> &'static [Field] {
        match self {
            Self::Literal(_) | Self::Slot(_) | Self::UrlSlot(_) | Self::ForwardedFor(_) => &[],
            Self::Variable(variable) => variable.fields(),
            Self::User(_) => &[Field::User],
            Self::Argument(_) => &[Field::Target],
        }
    }

    fn write(&self, line: &mut Line<'_>) {
        match self {
            Self::Literal(text) => line.out.extend_from_slice(text),
            Self::Variable(variable) => line.variable(*variable),
            Self::Slot(slot) => line.maybe(line.record.slot(*slot)),
            Self::UrlSlot(slot) => line.url(line.record.slot(*slot)),
            Self::User(slot) => line.maybe(line.record.get(Field::User).or(line.record.slot(*slot))),
            Self::Argument(name) => line.argument(name),
            Self::ForwardedFor(slot) => line.forwarded_for(line.record.slot(*slot)),
        }
    }
}

/// All values of a header, joined as nginx joins them.
fn collect(record: &mut AccessRecord, slot: usize, headers: &HeaderMap, name: &HeaderName) {
    let separator: &[u8] = if *name == COOKIE { b"; " } else { b", " };
    record.set_slot(slot, headers.get_all(name).iter().map(http::HeaderValue::as_bytes), separator);
}

/// The value of the cookie `name` in one `Cookie` line, case of the name ignored, as nginx looks it up.
fn cookie<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|byte| *byte == b';').find_map(|pair| {
        let (written, value) = pair.trim_ascii_start().split_at_checked(name.len())?;
        let value = value.trim_ascii_start().strip_prefix(b"=")?;
        written.eq_ignore_ascii_case(name).then(|| value.trim_ascii_start())
    })
}

#[derive(Debug, Default)]
struct Needs(Vec<Need>);

impl Needs {
    /// The slot of `need`; the same one if it is needed twice.
    fn slot(&mut self, need: Need) -> usize {
        self.0.iter().position(|known| *known == need).unwrap_or_else(|| {
            self.0.push(need);
            self.0.len() - 1
        })
    }

    /// The slots of a document.
    fn document(&mut self) -> json::Slots {
        json::Slots {
            user: self.slot(Need::User),
            referer: self.slot(Need::RequestHeader(REFERER)),
            user_agent: self.slot(Need::RequestHeader(USER_AGENT)),
        }
    }
}

struct Compiler {
    pieces: Vec<Piece>,
    needs: Needs,
    errors: Vec<FormatError>,
}

impl Compiler {
    fn compile(text: &str, escape: Escape) -> Result<Format, Vec<FormatError>> {
        let mut this = Self { pieces: Vec::new(), needs: Needs::default(), errors: Vec::new() };
        if text.len() > FORMAT_BYTES_MAX {
            this.error(0..text.len(), format!("is longer than {FORMAT_BYTES_MAX} bytes"), None);
        } else {
            this.text(text);
        }
        if this.errors.is_empty() {
            let mut fields = FieldSet::default();
            this.pieces.iter().flat_map(Piece::fields).for_each(|field| fields.insert(*field));
            let layout = Layout::Text { escape, pieces: this.pieces };
            Ok(Format { layout, document: None, needs: this.needs.0, fields, mask: Mask::default() })
        } else {
            Err(this.errors)
        }
    }

    fn text(&mut self, text: &str) {
        let mut has_variable = false;
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let literal = rest.find('$').unwrap_or(rest.len());
            if literal > 0 {
                self.pieces.push(Piece::Literal(rest.as_bytes().iter().take(literal).copied().collect()));
                at += literal;
                continue;
            }
            has_variable = true;
            let after = rest.get(1..).unwrap_or_default();
            let (name, length) = match after.strip_prefix('{') {
                Some(inside) => match inside.find('}') {
                    Some(end) => (inside.get(..end).unwrap_or_default(), end + 3),
                    None => {
                        let hint = Some("close it with `}`".to_owned());
                        return self.error(at..text.len(), "has a `${` without its end".to_owned(), hint);
                    }
                },
                None => {
                    let end = after.find(|c: char| !is_name(c)).unwrap_or(after.len());
                    (after.get(..end).unwrap_or_default(), end + 1)
                }
            };
            let place = at..at + length;
            if name.is_empty() || !name.chars().all(is_name) {
                self.error(place, "has a `$` that begins no variable".to_owned(), None);
            } else {
                self.variable(&name.to_ascii_lowercase(), place);
            }
            at += length;
        }
        if !has_variable {
            let hint = names::nearest(text, ["combined", "json"]).map_or_else(
                || "it is `combined`, `json`, or a text such as \"$remote_addr $request_time\"".to_owned(),
                |name| format!("did you mean \"{name}\"?"),
            );
            self.error(
                0..text.len(),
                "is neither `combined` nor `json` and has no variable".to_owned(),
                Some(hint),
            );
        }
    }

    fn variable(&mut self, name: &str, place: Range<usize>) {
        let piece = if let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) {
            Some(Piece::Variable(*variable))
        } else {
            self.prefixed(name)
        };
        match piece {
            Some(piece) => self.pieces.push(piece),
            None => {
                let known = VARIABLES.iter().map(|(known, _)| *known).chain(OTHER_NAMES.iter().copied());
                let hint = names::nearest(name, known).map(|name| format!("did you mean \"${name}\"?"));
                self.error(place, format!("has the unknown variable `${name}`"), hint);
            }
        }
    }

    /// Variables that the record does not answer by itself.
    fn prefixed(&mut self, name: &str) -> Option<Piece> {
        let need = match name {
            "remote_user" => return Some(Piece::User(self.needs.slot(Need::User))),
            "content_length" | "content_type" => Need::RequestHeader(header(name)?),
            "proxy_add_x_forwarded_for" => {
                let slot = self.needs.slot(Need::RequestHeader(HeaderName::from_static("x-forwarded-for")));
                return Some(Piece::ForwardedFor(slot));
            }
            "http_referer" => return Some(Piece::UrlSlot(self.needs.slot(Need::RequestHeader(REFERER)))),
            _ => {
                let (prefix, rest) =
                    ["sent_http_", "http_", "cookie_", "arg_"].into_iter().find_map(|prefix| {
                        Some((prefix, name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?))
                    })?;
                match prefix {
                    "http_" => Need::RequestHeader(header(rest)?),
                    "sent_http_" => Need::ResponseHeader(header(rest)?),
                    "cookie_" => Need::Cookie(rest.as_bytes().into()),
                    _ => return Some(Piece::Argument(rest.as_bytes().into())),
                }
            }
        };
        Some(Piece::Slot(self.needs.slot(need)))
    }

    fn error(&mut self, at: Range<usize>, message: String, hint: Option<String>) {
        self.errors.push(FormatError { at, message, hint });
    }
}

/// Names that [`Compiler::prefixed`] knows, for suggestions.
const OTHER_NAMES: &[&str] = &[
    "remote_user",
    "content_length",
    "content_type",
    "proxy_add_x_forwarded_for",
    "http_referer",
    "http_user_agent",
    "http_host",
    "http_x_forwarded_for",
    "sent_http_content_type",
];

/// Underscores of a variable stand for the dashes of a header.
fn header(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.replace('_', "-").as_bytes()).ok()
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
