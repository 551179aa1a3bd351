//! Periods of quotas, in UTC: a day, a week, a month, each beginning with the calendar's or on an anniversary.
//!
//! Pure, and total: there is a period around every moment, and no moment lies in two.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How long a period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Every {
    /// 24 hours.
    Day,
    /// Seven days.
    Week,
    /// As long as the month is.
    Month,
}

/// A period: from its first second to the first after it, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    /// When it begins.
    pub begins: i64,
    /// When the next begins.
    pub ends: i64,
}

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// The first Monday there was: ISO weeks begin on Mondays.
const MONDAY: i64 = 4 * DAY;
/// Moments further from 1970 than this, about 7,900 years, count as this one: months are reckoned with dates.
const FARTHEST: i64 = 250_000_000_000;

impl Every {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The period around `now`. Without `since` that of the calendar: the day, the ISO week, the month. With it periods
    /// begin at that moment, and each time as much later; a month from the 31st ends on the last day of a shorter one.
    pub fn around(self, now: i64, since: Option<i64>) -> Span {
        let since = since.map(|since| since.clamp(-FARTHEST, FARTHEST));
        let now = now.clamp(-FARTHEST, FARTHEST);
        match self {
            Self::Day => even(DAY, since.unwrap_or(0), now),
            Self::Week => even(WEEK, since.unwrap_or(MONDAY), now),
            // The calendar's are counted from the first of January 1970.
            Self::Month => month(since.unwrap_or(0), now),
        }
    }
}

impl Span {
    /// Whether `at` lies in it.
    pub fn contains(&self, at: i64) -> bool {
        (self.begins..self.ends).contains(&at)
    }

    /// Its length in seconds.
    pub fn seconds(&self) -> u64 {
        self.ends.saturating_sub(self.begins).unsigned_abs()
    }

    /// Seconds from `now` to its end, at least 1.
    pub fn left(&self, now: i64) -> u64 {
        self.ends.saturating_sub(now).max(1).unsigned_abs()
    }
}

fn even(length: i64, since: i64, now: i64) -> Span {
    let begins = now - (now - since).rem_euclid(length);
    Span { begins, ends: begins + length }
}

fn month(since: i64, now: i64) -> Span {
    let (from, at) = (date_time(since), date_time(now));
    let months = |at: DateTime| i64::from(at.year()) * 12 + i64::from(at.month());
    // Always from the first: what a short month cuts off does not stay cut off.
    let number = months(at) - months(from);
    let begins = after_months(from, number);
    if begins <= now {
        Span { begins, ends: after_months(from, number + 1) }
    } else {
        Span { begins: after_months(from, number - 1), ends: begins }
    }
}

fn date_time(unix: i64) -> DateTime {
    // Within the bounds above there is one.
    Timestamp::from_second(unix).unwrap_or_default().to_zoned(TimeZone::UTC).datetime()
}

/// The same day and time `number` months later, or the last day of that month, in Unix seconds.
fn after_months(from: DateTime, number: i64) -> i64 {
    let months = jiff::Span::new().try_months(number).unwrap_or_else(|_| 0.months());
    let later = from.checked_add(months).unwrap_or(from);
    TimeZone::UTC.to_timestamp(later).unwrap_or_default().as_second()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn told(span: Span) -> [String; 2] {
        [span.begins, span.ends].map(|at| Timestamp::from_second(at).unwrap().to_string())
    }

    fn around(every: Every, now: &str, since: Option<&str>) -> [String; 2] {
        told(every.around(at(now), since.map(at)))
    }

    #[test]
    fn days_weeks_and_months_of_the_calendar() {
        let day = around(Every::Day, "2026-02-28T23:59:59Z", None);
        assert_eq!(day, ["2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"]);
        // 2024 was a leap year, 1900 and 2100 are none, 2000 was.
        for (month, end) in [
            ("2024-02", "2024-03-01"),
            ("2026-02", "2026-03-01"),
            ("2000-02", "2000-03-01"),
            ("1900-02", "1900-03-01"),
            ("2100-02", "2100-03-01"),
            ("2026-12", "2027-01-01"),
        ] {
            let span = around(Every::Month, &format!("{month}-28T12:00:00Z"), None);
            assert_eq!(span, [format!("{month}-01T00:00:00Z"), format!("{end}T00:00:00Z")]);
        }
        assert_eq!(Every::Month.around(at("2024-02-29T23:59:59Z"), None).seconds(), 29 * 86_400);
        // A week begins on Monday, also over the turn of a year: 2026-12-31 is a Thursday of week 53.
        let week = around(Every::Week, "2027-01-03T23:59:59Z", None);
        assert_eq!(week, ["2026-12-28T00:00:00Z", "2027-01-04T00:00:00Z"]);
        assert_eq!(around(Every::Week, "2026-12-28T00:00:00Z", None), week);
        assert_eq!(around(Every::Week, "1969-12-31T00:00:00Z", None)[0], "1969-12-29T00:00:00Z");
    }

    #[test]
    fn anniversaries_of_days_that_not_every_month_has() {
        let since = Some("2024-01-31T10:30:00Z");
        let of = |now: &str| around(Every::Month, now, since);
        assert_eq!(of("2024-01-31T10:30:00Z"), ["2024-01-31T10:30:00Z", "2024-02-29T10:30:00Z"]);
        assert_eq!(of("2024-02-29T10:29:59Z"), ["2024-01-31T10:30:00Z", "2024-02-29T10:30:00Z"]);
        assert_eq!(of("2024-02-29T10:30:00Z"), ["2024-02-29T10:30:00Z", "2024-03-31T10:30:00Z"]);
        assert_eq!(of("2025-02-28T10:30:00Z"), ["2025-02-28T10:30:00Z", "2025-03-31T10:30:00Z"]);
        assert_eq!(of("2025-04-30T10:30:00Z"), ["2025-04-30T10:30:00Z", "2025-05-31T10:30:00Z"]);
        let leap = Some("2024-02-29T00:00:00Z");
        let span = around(Every::Month, "2025-02-28T00:00:00Z", leap);
        assert_eq!(span, ["2025-02-28T00:00:00Z", "2025-03-29T00:00:00Z"]);
        assert_eq!(
            around(Every::Day, "2026-05-02T09:00:00Z", since),
            ["2026-05-01T10:30:00Z", "2026-05-02T10:30:00Z"]
        );
        assert_eq!(
            around(Every::Week, "2024-02-08T00:00:00Z", since),
            ["2024-02-07T10:30:00Z", "2024-02-14T10:30:00Z"]
        );
        // A clock that is behind: before the key was made.
        assert_eq!(of("2023-12-30T00:00:00Z"), ["2023-11-30T10:30:00Z", "2023-12-31T10:30:00Z"]);
    }

    fn every() -> impl Strategy<Value = Every> {
        prop_oneof![Just(Every::Day), Just(Every::Week), Just(Every::Month)]
    }

    proptest! {
        /// Periods lie side by side: one around every moment, the next begins where it ends, and none is empty or longer
        /// than it can be.
        #[test]
        fn periods_cover_all_time_once(
            every in every(),
            now in -60_000_000_000_i64..240_000_000_000,
            since in proptest::option::of(-60_000_000_000_i64..240_000_000_000),
        ) {
            let span = every.around(now, since);
            prop_assert!(span.contains(now), "{span:?} {now}");
            prop_assert_eq!(every.around(span.begins, since), span);
            prop_assert_eq!(every.around(span.ends - 1, since), span);
            prop_assert_eq!(every.around(span.ends, since).begins, span.ends);
            let days = span.seconds() / 86_400;
            let possible = match every { Every::Day => 1..=1, Every::Week => 7..=7, Every::Month => 28..=31 };
            prop_assert!(possible.contains(&days), "{days}");
        }

        /// Whatever somebody writes into a row, or a clock says.
        #[test]
        fn no_moment_is_too_far(every in every(), now: i64, since: Option<i64>) {
            let span = every.around(now, since);
            prop_assert!(span.begins < span.ends);
        }
    }
}
