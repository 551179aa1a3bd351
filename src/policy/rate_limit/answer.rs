//! What clients are told: the fields of an answer in each of the forms that are in use.
//!
//! | mode | fields |
//! | --- | --- |
//! | `draft` | `RateLimit-Policy: "name";q=100;w=60`, `RateLimit: "name";r=50;t=30` (draft-ietf-httpapi-ratelimit-headers-10) |
//! | `draft-7` | `RateLimit-Policy: 100;w=60`, `RateLimit: limit=100, remaining=50, reset=30` |
//! | `draft-6` | `RateLimit-Policy: 100;w=60`, `RateLimit-Limit`, `-Remaining`, `-Reset` (seconds from now) |
//! | `legacy` | `X-RateLimit-Limit`, `-Remaining`, `-Reset` (seconds since 1970) |
//! | `kong` | `RateLimit-Limit`, `-Remaining`, `-Reset`, and for each window `X-RateLimit-Limit-Minute` and the like |
//!
//! A reset is the time after which nothing counts any more if nobody asks again; of the window that refuses it is the time
//! after which it would not. What has one number only tells that of the tightest window.

use std::borrow::Cow;
use std::fmt::{self, Write};

use http::HeaderValue;
use smallvec::SmallVec;

use super::rules::Rules;
use super::table::Standing;

/// In which forms answers tell of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set")]
pub struct Modes {
    /// `draft`.
    pub draft: bool,
    /// `draft-7`.
    pub draft_7: bool,
    /// `draft-6`.
    pub draft_6: bool,
    /// `legacy`.
    pub legacy: bool,
    /// `kong`.
    pub kong: bool,
}

impl Modes {
    /// Whether both write the same field in two ways.
    pub fn contradicts(self, other: Self) -> bool {
        let old = |modes: Self| modes.draft_7 || modes.draft_6;
        self.draft && old(other) || other.draft && old(self)
    }

    /// All of both.
    pub fn union(self, other: Self) -> Self {
        Self {
            draft: self.draft || other.draft,
            draft_7: self.draft_7 || other.draft_7,
            draft_6: self.draft_6 || other.draft_6,
            legacy: self.legacy || other.legacy,
            kong: self.kong || other.kong,
        }
    }
}

/// What never changes about what is told of one limit.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) modes: Modes,
    /// The shortest window, then the others.
    pub(super) windows: SmallVec<[Window; 2]>,
    /// The number of requests under way, and what it is called.
    concurrent: Option<Named>,
    /// `RateLimit-Policy` as the draft has it, and as it was before.
    policy: HeaderValue,
    old_policy: HeaderValue,
}

#[derive(Debug)]
pub(super) struct Window {
    name: Named,
    seconds: u64,
    kong: Option<(&'static str, &'static str)>,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    quota: u64,
}

/// A limit's standing for one request, to be told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand<'a> {
    pub(super) told: &'a Told,
    pub(super) standing: &'a Standing,
    pub(super) cost: u64,
}

/// A field and its value.
type Field = (&'static str, HeaderValue);

const KONG: [(u64, &str, &str); 9] = [
    (1, "X-RateLimit-Limit-Second", "X-RateLimit-Remaining-Second"),
    (60, "X-RateLimit-Limit-Minute", "X-RateLimit-Remaining-Minute"),
    (3600, "X-RateLimit-Limit-Hour", "X-RateLimit-Remaining-Hour"),
    (86_400, "X-RateLimit-Limit-Day", "X-RateLimit-Remaining-Day"),
    (2_592_000, "X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
    // Quotas have months of the calendar.
    (2_419_200, "X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
    (2_505_600, "X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
    (2_678_400, "X-RateLimit-Limit-Month", "X-RateLimit-Remaining-Month"),
    (31_536_000, "X-RateLimit-Limit-Year", "X-RateLimit-Remaining-Year"),
];

const NANOS: u64 = 1_000_000_000;

impl Told {
    /// Of the limit called `name`, whose windows are called the same; the longer ones, and the number of requests under way
    /// beside a window, by that and what they are, as in `name/h`.
    pub(super) fn new(name: &str, rules: &Rules, modes: Modes) -> Self {
        let bucket = rules.bucket.iter().map(|rule| (rule.count, rule.per));
        let longer = rules.windows.iter().map(|rule| (rule.count, rule.per));
        let windows: SmallVec<[Window; 2]> = bucket
            .chain(longer)
            .enumerate()
            .map(|(at, (quota, per))| {
                let seconds = per / NANOS;
                let name = if at == 0 { name.into() } else { format!("{name}/{}", period(seconds)).into() };
                let kong = KONG.iter().find(|(length, ..)| *length == seconds);
                Window {
                    name: Named { name, quota },
                    seconds,
                    kong: kong.map(|(_, limit, left)| (*limit, *left)),
                }
            })
            .collect();
        let concurrent = rules.concurrent.map(|most| Named {
            name: if windows.is_empty() { name.into() } else { format!("{name}/concurrent").into() },
            quota: most.into(),
        });
        let mut policy = Text::new();
        let mut old_policy = Text::new();
        for Window { name, seconds, .. } in &windows {
            policy.item(format_args!("\"{}\";q={};w={seconds}", name.name, name.quota));
            old_policy.item(format_args!("{};w={seconds}", name.quota));
        }
        if let Some(named) = &concurrent {
            policy.item(format_args!("\"{}\";q={};qu=\"concurrent-requests\"", named.name, named.quota));
        }
        Self { modes, windows, concurrent, policy: policy.value(), old_policy: old_policy.value() }
    }

    /// What refuses by `standing`: the names of policies.
    pub(super) fn violated<'a>(&'a self, standing: &'a Standing) -> impl Iterator<Item = &'a str> {
        let windows = self.windows.iter().zip(&standing.rooms).filter(|(_, room)| room.wait > 0);
        let windows = windows.map(|(window, _)| &*window.name.name);
        windows.chain(self.full(standing).map(|named| &*named.name))
    }

    fn full(&self, standing: &Standing) -> Option<&Named> {
        self.concurrent.as_ref().filter(|_| standing.slots_left == Some(0))
    }
}

impl Stand<'_> {
    /// Each window: what is left and the seconds to its reset. Of a refusal only what refuses, if `all` is not wanted.
    fn windows(&self, all: bool) -> impl Iterator<Item = (&Window, u64, u64)> {
        let Standing { rooms, admitted, .. } = self.standing;
        self.told.windows.iter().zip(rooms).filter_map(move |(window, room)| {
            let refuses = !admitted && room.wait > 0;
            if !admitted && !refuses && !all {
                return None;
            }
            // What one window admits is not counted when another refuses.
            let left = if *admitted || refuses { room.left } else { room.left.saturating_add(self.cost) };
            let reset = if refuses { room.wait } else { room.empty_in };
            Some((window, left.min(window.name.quota), reset.div_ceil(NANOS)))
        })
    }

    fn draft(&self, list: &mut Text) {
        for (window, left, reset) in self.windows(false) {
            list.item(format_args!("\"{}\";r={left};t={reset}", window.name.name));
        }
        let Standing { admitted, slots_left, .. } = self.standing;
        if let (Some(named), Some(left)) = (&self.told.concurrent, slots_left)
            && (*admitted || *left == 0)
        {
            list.item(format_args!("\"{}\";r={}", named.name, left.saturating_sub(1)));
        }
    }
}

/// The fields that tell of `stands`, the limits that a request met, at `unix` seconds.
pub(super) fn fields(stands: &[Stand<'_>], unix: u64, mut add: impl FnMut(Field)) {
    let modes = stands.iter().fold(Modes::default(), |modes, stand| modes.union(stand.told.modes));
    let refusing = |stand: &&Stand<'_>| !stand.standing.admitted;
    if modes.draft {
        let told = || stands.iter().filter(|stand| stand.told.modes.draft);
        add(("RateLimit-Policy", joined(told().map(|stand| &stand.told.policy))));
        let mut list = Text::new();
        match told().find(refusing) {
            Some(stand) => stand.draft(&mut list),
            None => told().for_each(|stand| stand.draft(&mut list)),
        }
        if !list.0.is_empty() {
            add(("RateLimit", list.value()));
        }
    }
    if modes.draft_7 || modes.draft_6 {
        let told = stands.iter().filter(|stand| stand.told.modes.draft_7 || stand.told.modes.draft_6);
        let policies = joined(told.map(|stand| &stand.told.old_policy).filter(|policy| !policy.is_empty()));
        if !policies.is_empty() {
            add(("RateLimit-Policy", policies));
        }
    }
    if let (true, Some((limit, left, reset))) = (modes.draft_7, tightest(stands, |modes| modes.draft_7)) {
        let mut text = Text::new();
        text.item(format_args!("limit={limit}, remaining={left}, reset={reset}"));
        add(("RateLimit", text.value()));
    }
    let single = |modes: Modes| modes.draft_6 || modes.kong;
    if let (true, Some((limit, left, reset))) = (single(modes), tightest(stands, single)) {
        add(("RateLimit-Limit", limit.into()));
        add(("RateLimit-Remaining", left.into()));
        add(("RateLimit-Reset", reset.into()));
    }
    if let (true, Some((limit, left, reset))) = (modes.legacy, tightest(stands, |modes| modes.legacy)) {
        add(("X-RateLimit-Limit", limit.into()));
        add(("X-RateLimit-Remaining", left.into()));
        add(("X-RateLimit-Reset", unix.saturating_add(reset).into()));
    }
    if modes.kong {
        let told = stands.iter().filter(|stand| stand.told.modes.kong);
        // Of two limits with the same window the tighter one, which comes last.
        let mut windows: SmallVec<[_; 4]> = told.flat_map(|stand| stand.windows(true)).collect();
        windows.sort_by_key(|(_, left, _)| std::cmp::Reverse(*left));
        for (window, left, _) in windows {
            if let Some((limit_name, left_name)) = window.kong {
                add((limit_name, window.name.quota.into()));
                add((left_name, left.into()));
            }
        }
    }
}

/// Quota, what is left, and reset of the tightest window told in one of these modes: one that refuses, else that of which
/// least is left.
fn tightest(stands: &[Stand<'_>], told: impl Fn(Modes) -> bool) -> Option<(u64, u64, u64)> {
    let told = || stands.iter().filter(|stand| told(stand.told.modes));
    let of = |stand: &Stand<'_>| {
        let tightest = stand.windows(false).min_by_key(|(_, left, reset)| (*left, std::cmp::Reverse(*reset)));
        tightest.map(|(window, left, reset)| (window.name.quota, left, reset))
    };
    match told().find(|stand| !stand.standing.admitted) {
        Some(stand) => of(stand),
        None => told().filter_map(of).min_by_key(|(_, left, reset)| (*left, std::cmp::Reverse(*reset))),
    }
}

/// The values as one list; without a copy where there is one only.
fn joined<'a>(mut values: impl Iterator<Item = &'a HeaderValue>) -> HeaderValue {
    let Some(first) = values.next() else { return HeaderValue::from_static("") };
    let Some(second) = values.next() else { return first.clone() };
    let mut text = Text::new();
    for value in [first, second].into_iter().chain(values) {
        text.item(format_args!("{}", String::from_utf8_lossy(value.as_bytes())));
    }
    text.value()
}

/// `10/15min`: so many in `per` nanoseconds, as rates are written.
pub(super) fn rate(count: u64, per: u64) -> String {
    format!("{count}/{}", period(per / NANOS))
}

/// `s`, `15min`: a period as rates are written.
fn period(seconds: u64) -> Cow<'static, str> {
    const UNITS: [(&str, u64); 6] =
        [("month", 2_592_000), ("week", 604_800), ("day", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let unit = UNITS.iter().find(|(_, scale)| seconds.is_multiple_of(*scale));
    match unit.map(|(unit, scale)| (unit, seconds / scale)) {
        Some((unit, 1)) => Cow::Borrowed(unit),
        Some((unit, number)) => Cow::Owned(format!("{number}{unit}")),
        None => Cow::Borrowed(""),
    }
}

/// A list in the making.
struct Text(SmallVec<[u8; 256]>);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Text {
    fn new() -> Self {
        Self(SmallVec::new())
    }

    fn item(&mut self, item: fmt::Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.extend_from_slice(b", ");
        }
        // Writing to memory cannot fail.
        self.write_fmt(item).unwrap_or_default();
    }

    fn value(&self) -> HeaderValue {
        // Names of limits are visible ASCII, the rest is ours.
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}
