//! Which of a file's variants: as it is, or compressed beforehand (RFC 9110 section 12.5.3).

use http::header::{self, HeaderMap};

use crate::base::quality::weights;

/// A content coding and the ending of files that have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coding {
    /// As `Content-Encoding` names it.
    pub(super) name: &'static str,
    /// What is appended to the name of the file.
    pub(super) ending: &'static str,
}

/// The smallest first: that is the one taken where a client likes several equally.
pub(super) const CODINGS: [Coding; 3] = [
    Coding { name: "br", ending: ".br" },
    Coding { name: "zstd", ending: ".zst" },
    Coding { name: "gzip", ending: ".gz" },
];

/// The place in `there` of the variant to send; `None` = the file as it is.
///
/// That is the one with the greatest weight above 0, unless the client likes the file as it is even better. A client that
/// does not say what it takes gets no coding; one that refuses everything gets the file as it is.
pub(super) fn choose(headers: &HeaderMap, there: &[Coding]) -> Option<usize> {
    let lines = || headers.get_all(header::ACCEPT_ENCODING).iter();
    let of = |name: &str| {
        let mut found = weights(lines()).filter(|(item, _)| item.eq_ignore_ascii_case(name));
        found.next().map(|(_, weight)| weight)
    };
    let any = of("*").unwrap_or(0);
    let weight = |coding: &Coding| {
        let alias = if coding.name == "gzip" { of("x-gzip") } else { None };
        of(coding.name).or(alias).unwrap_or(any)
    };
    let mut best: Option<(usize, u16)> = None;
    for (place, coding) in there.iter().enumerate() {
        let weight = weight(coding);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((place, weight));
        }
    }
    let (place, weight) = best?;
    (weight >= of("identity").unwrap_or(0)).then_some(place)
}
