//! The columns: what happens to bytes, whatever they are; and nonsense that looks like a peer's own protocol.

use bytes::Bytes;

use super::super::*;
use super::outcome::Sees;

/// A fault, and what it may lead to.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) faults: Faults,
    pub(super) sees: Sees,
    /// What is open then is silent for good: see [`Chaos::forget`].
    pub(super) forgets: bool,
}

impl Fault {
    fn new(what: impl Into<String>, faults: Faults, sees: Sees) -> Self {
        Self { what: what.into(), faults, sees, forgets: false }
    }

    /// Whether it may be a time-out alone that ends it.
    pub(super) fn may_be_silent(&self) -> bool {
        !matches!(self.sees, Sees::Right | Sees::Lost)
    }

    /// Whether it is of new connections.
    pub(super) fn reaches_new_ones(&self) -> bool {
        !self.forgets
    }

    /// Whether it is of more than new connections.
    pub(super) fn reaches_open_ones(&self) -> bool {
        self.faults.accept == Accept::Through
    }
}

/// After how many bytes connections end: within what comes first (a handshake, a head), and later. What ends later may be
/// after all that there is, where `is_long` is not said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Columns {
    pub(super) head: u64,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) is_long: bool,
}

impl Columns {
    /// All that can be done to bytes without knowing what they are.
    pub(super) fn all(self) -> Vec<Fault> {
        let mut all = Self::harmless();
        all.extend(self.harmful());
        all
    }

    pub(super) fn harmless() -> Vec<Fault> {
        let millis = Duration::from_millis;
        let latency = Way { latency: millis(15), ..Way::default() };
        let jitter = Way { latency: millis(1), jitter: millis(20), ..Way::default() };
        let slow_close = Way { slow_close: millis(200), ..Way::default() };
        let narrow = Way { rate: 100_000, ..Way::default() };
        [
            ("late", latency),
            ("late by chance", jitter),
            ("in slices of 1 to 3", Way::slices(3)),
            ("narrow", narrow),
            ("closed slowly", slow_close),
        ]
        .map(|(what, way)| Fault::new(what, Faults::both(way), Sees::Right))
        .into()
    }

    pub(super) fn harmful(self) -> Vec<Fault> {
        let ignored = Faults { accept: Accept::Ignored, ..Faults::default() };
        let mut all = vec![
            Fault::new("refused", Faults::refused(), Sees::Lost),
            Fault::new("taken and left alone", ignored, Sees::Silent),
            Fault::new("reset at once", Faults::down(Way::end(0, End::Reset)), Sees::Lost),
        ];
        let later = |sees| if self.is_long { sees } else { Sees::Any };
        for (how, end, sees) in [
            ("reset", End::Reset, Sees::Lost),
            ("half closed", End::HalfClose, Sees::Lost),
            ("silent", End::Silence, Sees::Silent),
        ] {
            all.extend([
                Fault::new(format!("{how} early on the way up"), Faults::up(Way::end(self.head, end)), sees),
                Fault::new(
                    format!("{how} later on the way up"),
                    Faults::up(Way::end(self.up, end)),
                    later(sees),
                ),
                Fault::new(
                    format!("{how} early on the way down"),
                    Faults::down(Way::end(self.head, end)),
                    sees,
                ),
                Fault::new(
                    format!("{how} later on the way down"),
                    Faults::down(Way::end(self.down, end)),
                    later(sees),
                ),
            ]);
        }
        for every in [7, 701] {
            let way = Way { garbage: Some(Garbage::Flipped(every)), ..Way::default() };
            all.extend([
                Fault::new(
                    format!("one byte of {every} damaged on the way up"),
                    Faults::up(way.clone()),
                    Sees::Damaged,
                ),
                Fault::new(
                    format!("one byte of {every} damaged on the way down"),
                    Faults::down(way),
                    Sees::Damaged,
                ),
            ]);
        }
        all.push(Fault::new("another protocol", Faults::nonsense(NONSENSE), Sees::Nonsense));
        let forgotten = Fault::new("forgotten", Faults::default(), Sees::Any);
        all.push(Fault { forgets: true, ..forgotten });
        all
    }
}

/// Each piece of an answer is one of these instead.
pub(super) fn nonsense(pieces: &[(&str, &[u8], Sees)]) -> Vec<Fault> {
    let fault = |(what, bytes, sees): &(&str, &[u8], Sees)| {
        let garbage = Some(Garbage::Instead(Bytes::copy_from_slice(bytes)));
        Fault::new(*what, Faults::down(Way { garbage, ..Way::default() }), *sees)
    };
    pieces.iter().map(fault).collect()
}
