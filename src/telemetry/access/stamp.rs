//! Wall-clock times as text, worked out once a second.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Times as text. One per writer: remembers the second it last wrote.
#[derive(Debug)]
pub struct Stamps {
    zone: TimeZone,
    second: Option<i64>,
    local: String,
    iso8601: String,
    utc: String,
}

impl Stamps {
    /// Local times in `zone`.
    pub fn new(zone: TimeZone) -> Self {
        Self { zone, second: None, local: String::new(), iso8601: String::new(), utc: String::new() }
    }

    /// `22/Aug/2026:01:01:08 +0000`.
    pub(super) fn local(&mut self, at: SystemTime) -> &str {
        self.look(at);
        &self.local
    }

    /// `2026-08-22T01:01:08+00:00`.
    pub(super) fn iso8601(&mut self, at: SystemTime) -> &str {
        self.look(at);
        &self.iso8601
    }

    /// `2026-08-22T01:01:08` in UTC, to be followed by a fraction and `Z`.
    pub(super) fn utc(&mut self, at: SystemTime) -> &str {
        self.look(at);
        &self.utc
    }

    /// `2026-08-22T01:01:08.007Z`.
    pub(in crate::telemetry) fn utc_millis(&mut self, at: SystemTime) -> String {
        let (_, millis) = split(at);
        format!("{}.{millis:03}Z", self.utc(at))
    }

    fn look(&mut self, at: SystemTime) {
        let (second, _) = split(at);
        if self.second == Some(second) {
            return;
        }
        let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let zoned = time.to_zoned(self.zone.clone());
        self.local = zoned.strftime("%d/%b/%Y:%H:%M:%S %z").to_string();
        self.iso8601 = zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        self.utc = time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        self.second = Some(second);
    }
}

/// Whole seconds since the Unix epoch, and milliseconds of the second. A clock set before the epoch counts as it.
pub(super) fn split(at: SystemTime) -> (i64, u32) {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jiff::tz::Offset;

    use super::*;

    #[test]
    fn as_nginx_writes_them() {
        let at = UNIX_EPOCH + Duration::from_millis(1_787_360_468_007);
        let mut utc = Stamps::new(TimeZone::UTC);
        assert_eq!(utc.local(at), "22/Aug/2026:01:01:08 +0000");
        assert_eq!(utc.iso8601(at), "2026-08-22T01:01:08+00:00");
        let mut west = Stamps::new(TimeZone::fixed(Offset::from_seconds(-12_600).unwrap()));
        assert_eq!(west.local(at), "21/Aug/2026:21:31:08 -0330");
        assert_eq!(west.iso8601(at), "2026-08-21T21:31:08-03:30");
        assert_eq!(west.utc(at), "2026-08-22T01:01:08");
        assert_eq!(split(at), (1_787_360_468, 7));
    }

    #[test]
    fn the_next_second_is_worked_out_anew() {
        let mut stamps = Stamps::new(TimeZone::UTC);
        assert_eq!(stamps.local(UNIX_EPOCH), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(stamps.local(UNIX_EPOCH + Duration::from_millis(999)), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(stamps.local(UNIX_EPOCH + Duration::from_secs(1)), "01/Jan/1970:00:00:01 +0000");
        assert_eq!(stamps.local(UNIX_EPOCH - Duration::from_secs(5)), "01/Jan/1970:00:00:00 +0000");
    }
}
