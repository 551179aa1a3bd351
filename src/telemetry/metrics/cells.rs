//! The counting cells under every handle: plain relaxed atomics.
//!
//! `prometheus-client` writes the exposition, but its histogram takes a mutex for each observation and its families a
//! lock and a hash for each lookup; a request makes four observations, so these cells are our own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn inc(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicI64);

impl Gauge {
    pub(super) fn add(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    pub(super) fn set(&self, to: i64) {
        self.0.store(to, Relaxed);
    }

    pub(super) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Bucket bounds of all duration histograms, in [`TICKS_PER_SECOND`]: 5 ms to 10 s, as OpenTelemetry advises for
/// `http.server.request.duration`.
pub(super) static SECONDS: Scale = Scale {
    bounds: &[
        50_000,
        100_000,
        250_000,
        500_000,
        750_000,
        1_000_000,
        2_500_000,
        5_000_000,
        7_500_000,
        10_000_000,
        25_000_000,
        50_000_000,
        75_000_000,
        100_000_000,
    ],
    per_unit: TICKS_PER_SECOND,
};

/// Bucket bounds of all size histograms: 256 B to 64 MiB by fours. An empty body falls into the first.
pub(super) static BYTES: Scale = Scale {
    bounds: &[1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26],
    per_unit: 1.0,
};

/// Bucket bounds of calls to what stands beside the gateway: 0.1 ms to 1 s.
pub(super) static CALLS: Scale = Scale {
    bounds: &[1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 10_000_000],
    per_unit: TICKS_PER_SECOND,
};

/// Resolution of duration sums. In nanoseconds a sum would wrap within weeks under ten thousand long-lived streams;
/// in tenths of microseconds it takes years, and a loopback connect is still measured to the percent.
const TICKS_PER_SECOND: f64 = 1e7;

/// The unit and the bucket bounds of a histogram.
#[derive(Debug)]
pub(super) struct Scale {
    bounds: &'static [u64],
    per_unit: f64,
}

const BUCKETS_MAX: usize = 15;

/// Observations counted in buckets. A scrape during an update may see a count without its sum, never less than before.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: &'static Scale,
    /// One for each bound and one for what is above all of them; unused ones at the end stay 0.
    counts: [AtomicU64; BUCKETS_MAX],
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(scale: &'static Scale) -> Self {
        debug_assert!(scale.bounds.len() < BUCKETS_MAX);
        Self { scale, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    /// Counts `value`, in the unit of the scale; negative and not-a-number count as 0.
    pub(super) fn observe(&self, value: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float cast saturates"
        )]
        self.observe_ticks((value * self.scale.per_unit).round() as u64);
    }

    /// Counts `ticks`, in the resolution of the scale.
    pub(super) fn observe_ticks(&self, ticks: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < ticks);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        if ticks > 0 {
            self.sum.fetch_add(ticks, Relaxed);
        }
    }

    pub(super) fn read(&self) -> Reading {
        let bounds = self.scale.bounds.iter().map(|bound| as_f64(*bound) / self.scale.per_unit);
        let buckets: Vec<(f64, u64)> = bounds
            .chain(std::iter::once(f64::INFINITY))
            .zip(self.counts.iter().map(|count| count.load(Relaxed)))
            .collect();
        Reading {
            sum: as_f64(self.sum.load(Relaxed)) / self.scale.per_unit,
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}

/// What a histogram held at one moment; counts per bucket, not cumulative.
pub(super) struct Reading {
    pub(super) sum: f64,
    pub(super) count: u64,
    pub(super) buckets: Vec<(f64, u64)>,
}

#[expect(clippy::cast_precision_loss, reason = "metrics are read as floats anyway")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

/// Status codes by class. A code not registered with IANA (499 aside, which proxies log for a client that left) is
/// counted under its class: what an upstream invents must not become a series.
const CODES: [&[u16]; 5] = [
    &[100, 101, 102, 103],
    &[200, 201, 202, 203, 204, 205, 206, 207, 208, 226],
    &[300, 301, 302, 303, 304, 305, 307, 308],
    &[
        400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
        423, 424, 425, 426, 428, 429, 431, 451, 499,
    ],
    &[500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511],
];

const CLASS_WORDS: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Counters by status code. A class takes memory only once one of its codes was seen.
#[derive(Debug, Default)]
pub(super) struct Codes {
    /// Registered codes in order, then the one for the rest of the class.
    classes: [OnceLock<Box<[Counter]>>; 6],
}

impl Codes {
    pub(super) fn inc(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1).min(5);
        let codes = CODES.get(class).copied().unwrap_or_default();
        let slot = codes.binary_search(&status).unwrap_or(codes.len());
        if let Some(cell) = self.classes.get(class) {
            let counters = cell.get_or_init(|| {
                codes.iter().map(|_| Counter::default()).chain([Counter::default()]).collect()
            });
            if let Some(counter) = counters.get(slot) {
                counter.inc();
            }
        }
    }

    /// Calls `see` with the label and count of every code that was seen.
    pub(super) fn each<E>(&self, mut see: impl FnMut(&str, u64) -> Result<(), E>) -> Result<(), E> {
        for (class, (cell, word)) in self.classes.iter().zip(CLASS_WORDS).enumerate() {
            let codes = CODES.get(class).copied().unwrap_or_default();
            for (slot, counter) in cell.get().into_iter().flatten().enumerate() {
                let count = counter.get();
                match codes.get(slot) {
                    _ if count == 0 => {}
                    Some(code) => see(itoa::Buffer::new().format(*code), count)?,
                    None => see(word, count)?,
                }
            }
        }
        Ok(())
    }
}

/// Counters by a word from the source code. Holds [`WORDS_MAX`]; a word past that counts as `other`, so that even a
/// careless caller cannot grow it.
#[derive(Debug, Default)]
pub(super) struct Words {
    slots: [OnceLock<(&'static str, Counter)>; WORDS_MAX],
    other: Counter,
}

const WORDS_MAX: usize = 12;

impl Words {
    /// With `words` known from the start, at 0.
    pub(super) fn known(words: &[&'static str]) -> Self {
        let this = Self::default();
        for word in words {
            this.add(word, 0);
        }
        this
    }

    pub(super) fn inc(&self, word: &'static str) {
        self.add(word, 1);
    }

    pub(super) fn add(&self, word: &'static str, by: u64) {
        for slot in &self.slots {
            // Losing the race for an empty slot to another word only means looking on.
            let (taken, counter) = slot.get_or_init(|| (word, Counter::default()));
            if *taken == word {
                return counter.add(by);
            }
        }
        self.other.add(by);
    }

    /// Calls `see` with every known word and its count.
    pub(super) fn each<E>(&self, mut see: impl FnMut(&str, u64) -> Result<(), E>) -> Result<(), E> {
        for (word, counter) in self.slots.iter().filter_map(OnceLock::get) {
            see(word, counter.get())?;
        }
        let other = self.other.get();
        if other > 0 { see("other", other) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn codes(codes: &Codes) -> Vec<(String, u64)> {
        let mut seen = Vec::new();
        let Ok(()) = codes.each(|code, count| {
            seen.push((code.to_owned(), count));
            Ok::<_, Infallible>(())
        });
        seen
    }

    /// An upstream that answers with codes of its own making cannot make series.
    #[test]
    fn unregistered_codes_count_under_their_class() {
        let counters = Codes::default();
        for status in [200, 200, 499, 299, 298, 0, 99, 600, 999, u16::MAX] {
            counters.inc(status);
        }
        let expected = [("200", 2), ("2xx", 2), ("499", 1), ("other", 5)];
        assert_eq!(codes(&counters), expected.map(|(code, count)| (code.to_owned(), count)));
    }

    #[test]
    fn words_beyond_the_bound_count_as_other() {
        let words = Words::known(&["a"]);
        for word in ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "m", "b"] {
            words.inc(word);
        }
        let mut seen = Vec::new();
        let Ok(()) = words.each(|word, count| {
            seen.push((word.to_owned(), count));
            Ok::<_, Infallible>(())
        });
        assert_eq!(seen.len(), WORDS_MAX + 1);
        assert_eq!(seen.first(), Some(&("a".to_owned(), 0)));
        assert_eq!(seen.get(1), Some(&("b".to_owned(), 2)));
        assert_eq!(seen.last(), Some(&("other".to_owned(), 3)));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&SECONDS);
        histogram.observe(0.005);
        histogram.observe(0.0051);
        histogram.observe(11.0);
        let reading = histogram.read();
        assert_eq!(reading.buckets.first(), Some(&(0.005, 1)));
        assert_eq!(reading.buckets.get(1), Some(&(0.01, 1)));
        assert_eq!(reading.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!((reading.sum - 11.0101).abs() < 1e-9);
    }

    proptest! {
        /// Each observation is in exactly one bucket, whatever it is.
        #[test]
        fn every_observation_is_counted_once(values in prop::collection::vec(any::<f64>(), 0..50)) {
            let histogram = Histogram::new(&SECONDS);
            for value in &values {
                histogram.observe(*value);
            }
            let reading = histogram.read();
            prop_assert_eq!(reading.count, values.len() as u64);
            prop_assert_eq!(reading.buckets.len(), SECONDS.bounds.len() + 1);
        }

        #[test]
        fn every_status_is_counted_once(statuses in prop::collection::vec(any::<u16>(), 0..200)) {
            let counters = Codes::default();
            for status in &statuses {
                counters.inc(*status);
            }
            prop_assert_eq!(codes(&counters).iter().map(|(_, count)| count).sum::<u64>(), statuses.len() as u64);
        }
    }
}
