//! Ranges, conditions, variants and names as tables and properties; opening with real directories and links.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::header::HeaderValue;
use proptest::prelude::*;

use super::coding::{CODINGS, Coding, choose};
use super::condition::{Validators, Verdict};
use super::open::Facts;
use super::range::Part;
use super::*;
use crate::routing::path::normalise;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn ranges_are_read_as_the_standard_says() {
    let one = |range| Part::Ranges(vec![range]);
    for (asked, size, expected) in [
        ("bytes=0-0", 10, one(0..1)),
        ("bytes=0-", 10, one(0..10)),
        ("bytes=3-5", 10, one(3..6)),
        ("bytes=3-99", 10, one(3..10)),
        ("bytes=-3", 10, one(7..10)),
        ("bytes=-99", 10, one(0..10)),
        ("BYTES = 9- ", 10, one(9..10)),
        ("bytes=0-99999999999999999999999999", 10, one(0..10)),
        ("bytes= ,3-5,, ", 10, one(3..6)),
        ("bytes=3-5,99-", 10, one(3..6)),
        ("bytes=5-6,0-1", 10, Part::Ranges(vec![5..7, 0..2])),
        // Nothing of it is there.
        ("bytes=10-", 10, Part::Nothing),
        ("bytes=-0", 10, Part::Nothing),
        ("bytes=99999999999999999999999999-", 10, Part::Nothing),
        ("bytes=10-11,20-", 10, Part::Nothing),
        // Not worth it.
        ("bytes=0-9,0-9", 10, Part::Whole),
        ("bytes=0-,-1", 10, Part::Whole),
        (
            "bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,10-10,11-11,12-12,13-13,14-14,15-15,16-16",
            99,
            Part::Whole,
        ),
        // Of an empty file.
        ("bytes=0-", 0, Part::Whole),
        ("bytes=-1", 0, Part::Whole),
        // No range at all.
        ("bytes=", 10, Part::Whole),
        ("bytes=,", 10, Part::Whole),
        ("bytes", 10, Part::Whole),
        ("bytes=5-3", 10, Part::Whole),
        ("bytes=a-3", 10, Part::Whole),
        ("bytes=+1-3", 10, Part::Whole),
        ("bytes=1 -3", 10, Part::Whole),
        ("bytes=--3", 10, Part::Whole),
        ("bytes=-", 10, Part::Whole),
        ("bytes=1-2;x", 10, Part::Whole),
        ("lines=0-1", 10, Part::Whole),
        ("", 10, Part::Whole),
    ] {
        assert_eq!(range::read(asked.as_bytes(), size), expected, "{asked} of {size}");
    }
}

const NOW: Duration = Duration::from_secs(1_700_000_000);
const AT: &str = "Tue, 14 Nov 2023 22:13:10 GMT";
const BEFORE: &str = "Tue, 14 Nov 2023 22:13:09 GMT";
const AFTER: &str = "Tue, 14 Nov 2023 22:13:11 GMT";

/// Modified ten seconds ago, at [`AT`].
fn validators() -> Validators {
    Validators::new(&Facts { size: 10, seconds: 1_699_999_990, nanoseconds: 5, inode: 7 }, "")
}

#[test]
fn conditions_are_heeded_in_the_order_of_the_standard() {
    let tag = validators().etag.to_str().unwrap().to_owned();
    let weak = format!("W/{tag}");
    let list = format!("\"a,b\" , W/\"x\",{tag}");
    let (send, had, failed) = (Verdict::Send, Verdict::NotModified, Verdict::Failed);
    for (lines, expected) in [
        (vec![], send),
        (vec![("if-none-match", tag.as_str())], had),
        (vec![("if-none-match", &weak)], had),
        (vec![("if-none-match", &list)], had),
        (vec![("if-none-match", "*")], had),
        (vec![("if-none-match", "\"other\"")], send),
        (vec![("if-none-match", "\"other\""), ("if-none-match", &tag)], had),
        (vec![("if-none-match", tag.trim_matches('"'))], send),
        (vec![("if-none-match", "")], send),
        (vec![("if-modified-since", AT)], had),
        (vec![("if-modified-since", AFTER)], had),
        (vec![("if-modified-since", BEFORE)], send),
        (vec![("if-modified-since", "yesterday")], send),
        (vec![("if-modified-since", AT), ("if-modified-since", AT)], send),
        // A tag that does not match outweighs a date that does.
        (vec![("if-none-match", "\"other\""), ("if-modified-since", AT)], send),
        (vec![("if-match", &tag)], send),
        (vec![("if-match", "*")], send),
        (vec![("if-match", &list)], send),
        // Weak tags never match strongly.
        (vec![("if-match", &weak)], failed),
        (vec![("if-match", "\"other\"")], failed),
        (vec![("if-match", "")], failed),
        (vec![("if-unmodified-since", AT)], send),
        (vec![("if-unmodified-since", BEFORE)], failed),
        (vec![("if-unmodified-since", "never")], send),
        (vec![("if-match", &tag), ("if-unmodified-since", BEFORE)], send),
        // The first two are judged before the others.
        (vec![("if-match", "\"other\""), ("if-none-match", &tag)], failed),
        (vec![("if-unmodified-since", BEFORE), ("if-none-match", &tag)], failed),
        (vec![("if-match", &tag), ("if-none-match", &tag)], had),
    ] {
        assert_eq!(validators().check(&headers(&lines), UNIX_EPOCH + NOW), expected, "{lines:?}");
    }
    // One that says to be from the future is told as of now, and compared as it is told.
    let future = Validators::new(&Facts { size: 10, seconds: 1_800_000_000, nanoseconds: 5, inode: 7 }, "");
    let now = UNIX_EPOCH + NOW + Duration::from_millis(900);
    let told = future.last_modified(now).unwrap();
    for (name, expected) in [("if-unmodified-since", send), ("if-modified-since", had)] {
        assert_eq!(future.check(&headers(&[(name, told.to_str().unwrap())]), now), expected, "{name}");
    }
}

#[test]
fn a_range_is_due_only_for_this_very_state() {
    let now = UNIX_EPOCH + NOW;
    let tag = validators().etag.to_str().unwrap().to_owned();
    for (lines, due) in [
        (vec![], true),
        (vec![("if-range", tag.as_str())], true),
        (vec![("if-range", AT)], true),
        (vec![("if-range", AFTER)], false),
        (vec![("if-range", BEFORE)], false),
        (vec![("if-range", "\"other\"")], false),
        (vec![("if-range", &format!("W/{tag}"))], false),
        (vec![("if-range", "rubbish")], false),
        (vec![("if-range", &tag), ("if-range", &tag)], false),
    ] {
        assert_eq!(validators().is_range_due(&headers(&lines), now), due, "{lines:?}");
    }
    // Within the second of its change a date proves nothing.
    let changed = UNIX_EPOCH + NOW - Duration::from_secs(10);
    assert!(!validators().is_range_due(&headers(&[("if-range", AT)]), changed));
}

#[test]
fn validators_know_every_change_and_survive_odd_clocks() {
    let facts = Facts { size: 10, seconds: 5, nanoseconds: 5, inode: 7 };
    let tag = |facts: Facts, coding: &str| Validators::new(&facts, coding).etag;
    let all = [
        tag(facts, ""),
        tag(facts, "br"),
        tag(Facts { size: 11, ..facts }, ""),
        tag(Facts { nanoseconds: 6, ..facts }, ""),
        tag(Facts { seconds: 6, ..facts }, ""),
        tag(Facts { inode: 8, ..facts }, ""),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(all.iter().skip(index + 1).all(|other| other != one), "{one:?}");
    }
    let now = UNIX_EPOCH + NOW;
    for (seconds, expected) in [
        (-1, None),
        (i64::MAX, None),
        (i64::MIN, None),
        (0, Some("Thu, 01 Jan 1970 00:00:00 GMT")),
        // Never later than now.
        (253_402_300_799, Some("Tue, 14 Nov 2023 22:13:20 GMT")),
    ] {
        let validators = Validators::new(&Facts { seconds, ..facts }, "");
        let shown = validators.last_modified(now);
        assert_eq!(shown.as_ref().map(|shown| shown.to_str().unwrap()), expected, "{seconds}");
    }
}

#[test]
fn the_best_variant_that_a_client_takes_is_chosen() {
    let all = CODINGS;
    let gzip: Vec<Coding> = CODINGS.into_iter().filter(|coding| coding.name == "gzip").collect();
    let chosen = |accept: &[&str], there: &[Coding]| {
        let lines: Vec<_> = accept.iter().map(|accept| ("accept-encoding", *accept)).collect();
        choose(&headers(&lines), there).map(|place| there[place].name)
    };
    for (accept, expected) in [
        (vec![], None),
        (vec![""], None),
        (vec!["gzip, deflate, br, zstd"], Some("br")),
        (vec!["gzip, deflate", "zstd"], Some("zstd")),
        (vec!["gzip;q=1.0, br;q=0.5"], Some("gzip")),
        (vec!["GZIP"], Some("gzip")),
        (vec!["x-gzip"], Some("gzip")),
        (vec!["*"], Some("br")),
        (vec!["*;q=0.5, br;q=0"], Some("zstd")),
        (vec!["br;q=0, gzip;q=0, zstd;q=0"], None),
        (vec!["identity, gzip;q=0.5"], None),
        (vec!["identity;q=0.5, gzip"], Some("gzip")),
        (vec!["identity;q=0"], None),
        (vec!["gzip;q=nonsense"], None),
        (vec!["gzip;q=0.001"], Some("gzip")),
        (vec!["gzip;q=0.0001"], None),
        (vec!["gzip;q=2"], None),
        (vec!["gzipped, brotli"], None),
    ] {
        assert_eq!(chosen(&accept, &all), expected, "{accept:?}");
    }
    assert_eq!(chosen(&["br, gzip;q=0.1"], &gzip), Some("gzip"));
    assert_eq!(chosen(&["br"], &gzip), None);
}

#[test]
fn paths_name_files_below_the_root_or_nothing() {
    let named = |path: &str| {
        FilePath::below_root(path).map(|path| (String::from_utf8(path.relative).unwrap(), path.directory))
    };
    let file = |relative: &str, directory| Some((relative.to_owned(), directory));
    assert_eq!(named("/"), file("", true));
    assert_eq!(named("/a"), file("a", false));
    assert_eq!(named("/a/b/"), file("a/b", true));
    assert_eq!(named("/a%20b/%C3%A4"), file("a b/ä", false));
    assert_eq!(named("/a:b/c%25d"), file("a:b/c%d", false));
    assert_eq!(named("/.well-known/x"), file(".well-known/x", false));
    for none in [
        "",
        "a",
        "*",
        "/a%2Fb",
        "/%2Fetc/passwd",
        "/..%2F..",
        "/a%5Cb",
        "/%5C..%5C",
        "/a%00",
        "/a%0A",
        "/%7F",
        "/.git/config",
        "/a/.env",
        "/.well-knownx",
        "/.well-known/.x",
        "/..",
        "/.",
        "/a//b",
    ] {
        assert_eq!(named(none), None, "{none}");
    }
    assert!(["a", "a/b", ".hidden", "a b"].into_iter().all(path::is_below));
    assert!(!["", "/a", "a/", "..", "a/../b", "./a", "a\0", "a\\b"].into_iter().any(path::is_below));
}

proptest! {
    /// Whatever a client sends and however often it is encoded: no name with a slash, no dots, nothing hidden.
    #[test]
    fn no_path_leaves_the_root(raw in "(/|\\.|%2e|%2E|%2f|%5c|%00|%252e|[a-b]|\\\\|ä|%FF|\\.well-known){0,24}") {
        let raw = format!("/{raw}");
        let Ok(path) = normalise(raw.as_bytes()) else { return Ok(()) };
        if let Some(found) = FilePath::below_root(&path) {
            prop_assert!(!found.relative.starts_with(b"/") && !found.relative.contains(&0) && !found.relative.contains(&b'\\'));
            for name in found.relative.split(|byte| *byte == b'/').filter(|_| !found.relative.is_empty()) {
                prop_assert!(!name.is_empty());
                prop_assert!(!name.starts_with(b".") || name == b".well-known");
            }
            prop_assert_eq!(found.relative.split(|byte| *byte == b'/').count(), path.trim_matches('/').split('/').count());
        }
    }

    #[test]
    fn ranges_stay_within_the_file(asked in "(bytes=)?([0-9]{0,3}-?[0-9]{0,3},? ?){0,6}", size in 0_u64..300) {
        if let Part::Ranges(ranges) = range::read(asked.as_bytes(), size) {
            prop_assert!(!ranges.is_empty());
            let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
            prop_assert!(total <= size);
            for range in ranges {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }

    #[test]
    fn no_header_panics(value in proptest::collection::vec(32_u8..127, 0..60)) {
        let value = String::from_utf8(value).unwrap();
        let sent = headers(&[
            ("if-match", &value), ("if-none-match", &value), ("if-range", &value), ("if-modified-since", &value),
            ("accept-encoding", &value), ("accept", &value),
        ]);
        let _: Verdict = validators().check(&sent, UNIX_EPOCH + NOW);
        validators().is_range_due(&sent, UNIX_EPOCH + NOW);
        choose(&sent, &CODINGS);
        listing::prefers_json(&sent);
        range::read(value.as_bytes(), 10);
    }
}

/// A root with a secret beside it, and links of all kinds.
fn root() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("root/sub")).unwrap();
    std::fs::write(at("root/a.txt"), "inside").unwrap();
    std::fs::write(at("secret"), "secret").unwrap();
    std::fs::create_dir(at("root-beside")).unwrap();
    std::fs::write(at("root-beside/secret"), "secret").unwrap();
    for (link, target) in [
        ("relative", Path::new("a.txt")),
        ("sub/up", Path::new("../a.txt")),
        ("absolute", &at("root/a.txt")),
        ("absolute-directory", &at("root/sub")),
        ("out", Path::new("../secret")),
        ("out-absolute", &at("secret")),
        ("out-directory", directory.path()),
        ("out-beside", &at("root-beside")),
        ("out-proc", Path::new("/proc/self/environ")),
        ("loop", Path::new("loop")),
        ("nowhere", Path::new("gone")),
    ] {
        symlink(target, at("root").join(link)).unwrap();
    }
    directory
}

/// Both ways of opening, by the kernel and by asking where it led, see the same.
#[test]
fn links_may_lead_to_places_below_the_root_only() {
    let directory = root();
    let root = Root::open(&directory.path().join("root")).unwrap();
    let kind = |opened: Result<Found, Refused>| match opened {
        Ok(Found::File(file)) => format!("file {}", file.facts.size),
        Ok(Found::Directory(_)) => "directory".to_owned(),
        Err(Refused::Missing) => "missing".to_owned(),
        Err(Refused::Forbidden(_)) => "forbidden".to_owned(),
        Err(other) => format!("{other:?}"),
    };
    for (name, expected) in [
        ("a.txt", "file 6"),
        ("sub", "directory"),
        ("relative", "file 6"),
        ("sub/up", "file 6"),
        ("absolute", "file 6"),
        ("absolute-directory", "directory"),
        ("absolute-directory/up", "file 6"),
        ("out", "forbidden"),
        ("out-absolute", "forbidden"),
        ("out-directory", "forbidden"),
        ("out-directory/secret", "forbidden"),
        ("out-directory/root/a.txt", "file 6"),
        ("out-beside/secret", "forbidden"),
        ("loop", "missing"),
        ("nowhere", "missing"),
        ("gone", "missing"),
        ("a.txt/b", "missing"),
    ] {
        assert_eq!(kind(root.open_below(name.as_bytes())), expected, "{name}");
        assert_eq!(kind(root.open_checked(name.as_bytes())), expected, "{name}, checked");
    }
    // What a path that passed the names' check can never be.
    for name in ["../secret", "sub/../../secret", "/etc/passwd", "out-proc"] {
        for opened in [root.open_below(name.as_bytes()), root.open_checked(name.as_bytes())] {
            assert!(matches!(opened, Err(Refused::Forbidden(_) | Refused::Missing)), "{name}: {opened:?}");
        }
    }
    assert_eq!(kind(root.open_below(b"")), "directory");
    assert_eq!(kind(root.open_below(&[b'a'; 300])), "missing");
}

#[test]
fn listings_can_be_neither_tags_nor_scripts() {
    let directory = tempfile::tempdir().unwrap();
    let names =
        ["<img src=x onerror=1>", "a&b\"c'd", "javascript:alert(1)", "ä ö", ".hidden", "z\\y", "100%"];
    for name in names {
        std::fs::write(directory.path().join(name), "12345").unwrap();
    }
    std::fs::create_dir(directory.path().join("zdir")).unwrap();
    symlink("/etc", directory.path().join("out")).unwrap();
    symlink("zdir", directory.path().join("in")).unwrap();
    let root = Root::open(directory.path()).unwrap();
    let Ok(Found::Directory(fd)) = root.open_below(b"") else { panic!("no directory") };
    let path = FilePath::below_root("/").unwrap();
    let listing = listing::read(&root, &path, &fd).unwrap();
    let page = listing.html("/a%22/<x>/");
    assert!(!page.contains("<img") && !page.contains("<x>") && !page.contains("href=\"javascript"), "{page}");
    assert!(
        !page.contains("hidden")
            && !page.contains("z\\y")
            && !page.contains(">out/<")
            && !page.contains("../"),
        "{page}"
    );
    for part in [
        "href=\"./%3Cimg%20src=x%20onerror=1%3E\"",
        "&lt;img src=x onerror=1&gt;",
        "href=\"./javascript:alert(1)\"",
        "href=\"./100%25\"",
        "href=\"./zdir/\">zdir/</a>",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let json: serde_json::Value = serde_json::from_str(&listing.json()).unwrap();
    let listed: Vec<_> =
        json.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(
        listed,
        ["in", "zdir", "100%", "<img src=x onerror=1>", "a&b\"c'd", "javascript:alert(1)", "ä ö"]
    );
    assert_eq!(
        (&json[0]["type"], &json[2]["type"], &json[2]["size"]),
        (&"directory".into(), &"file".into(), &5.into())
    );
    assert!(json[2]["mtime"].as_str().unwrap().ends_with(" GMT"));
}
