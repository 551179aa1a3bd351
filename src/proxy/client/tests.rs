use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

/// The client of a request from `peer` (cleartext) with these headers, when 10.0.0.0/8 and ::1 are trusted.
fn identify(peer: &str, lines: &[(&str, &str)]) -> Client {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    Client::find(&headers, peer.parse().unwrap(), false, &TrustedProxies::new(trusted))
}

#[track_caller]
fn assert_address(lines: &[(&str, &str)], expected: &str) {
    assert_eq!(identify("10.0.0.1", lines).address.to_string(), expected, "{lines:?}");
}

const XFF: &str = "X-Forwarded-For";

#[test]
fn strangers_are_not_believed() {
    let lines = [
        (XFF, "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("X-Forwarded-Port", "1"),
        ("Forwarded", "for=192.0.2.1;proto=https;host=evil"),
    ];
    let client = identify("198.51.100.1", &lines);
    let expected = Client {
        address: "198.51.100.1".parse().unwrap(),
        https: false,
        host: None,
        port: None,
        peer_trusted: false,
    };
    assert_eq!(client, expected);
}

#[test]
fn the_first_from_the_right_that_is_not_trusted() {
    assert_address(&[], "10.0.0.1");
    assert_address(&[(XFF, "192.0.2.1")], "192.0.2.1");
    assert_address(&[(XFF, "192.0.2.66, 192.0.2.1")], "192.0.2.1");
    assert_address(&[(XFF, "192.0.2.66, 192.0.2.1,10.0.0.2 ,\t10.0.0.3")], "192.0.2.1");
    assert_address(&[(XFF, "10.0.0.9, 10.0.0.2")], "10.0.0.9");
    assert_address(&[(XFF, "192.0.2.1"), (XFF, "10.0.0.2"), (XFF, "10.0.0.3")], "192.0.2.1");
    assert_address(&[(XFF, "192.0.2.1:443")], "192.0.2.1");
    assert_address(&[(XFF, "[2001:db8::1]:443, [::1]")], "2001:db8::1");
    assert_address(&[(XFF, "2001:db8::1, ::1")], "2001:db8::1");
    assert_address(&[(XFF, "::ffff:192.0.2.1, ::ffff:10.0.0.2")], "192.0.2.1");
}

/// Left of something that is no address nothing was written by anyone trusted.
#[test]
fn an_invalid_entry_ends_the_walk() {
    for bad in [
        "unknown",
        "",
        "192.0.2",
        "192.0.2.1:0",
        "192.0.2.1:x",
        "[::1",
        "[::1]x",
        "a.example",
        "192.0.2.1 x",
        "\"192.0.2.1\"",
    ] {
        assert_address(&[(XFF, &format!("192.0.2.66, {bad}, 10.0.0.2"))], "10.0.0.2");
        assert_address(&[(XFF, &format!("192.0.2.66, {bad}"))], "10.0.0.1");
    }
}

#[test]
fn the_walk_is_bounded() {
    let proxies = ", 10.0.0.2".repeat(FORWARDED_ENTRIES_MAX);
    assert_address(&[(XFF, &format!("192.0.2.1{proxies}"))], "10.0.0.2");
    assert_address(&[(XFF, &format!("192.0.2.1{}", &proxies[10..]))], "192.0.2.1");
    let proxies = ",for=10.0.0.2".repeat(FORWARDED_ENTRIES_MAX);
    assert_address(&[("Forwarded", &format!("for=192.0.2.1{proxies}"))], "10.0.0.2");
    assert_address(&[("Forwarded", &format!("for=192.0.2.1{}", &proxies[13..]))], "192.0.2.1");
    let many = vec![("Forwarded", "for=10.0.0.2"); FORWARDED_ENTRIES_MAX];
    assert_address(&[vec![("Forwarded", "for=192.0.2.1")], many].concat(), "10.0.0.2");
}

#[test]
fn what_trusted_proxies_say_of_scheme_host_and_port() {
    let lines = [
        (XFF, "192.0.2.1"),
        ("X-Forwarded-Proto", "http, HTTPS"),
        ("X-Forwarded-Host", "spoofed.example"),
        ("X-Forwarded-Host", "x, shop.example:8443"),
        ("X-Forwarded-Port", "8443"),
    ];
    let client = identify("10.0.0.1", &lines);
    assert!(client.https && client.peer_trusted);
    assert_eq!(client.host.unwrap(), "shop.example:8443");
    assert_eq!(client.port, Some(8443));
    let client = identify(
        "10.0.0.1",
        &[("X-Forwarded-Proto", "ftp"), ("X-Forwarded-Host", "a b"), ("X-Forwarded-Port", "0")],
    );
    assert_eq!((client.https, client.host, client.port), (false, None, None));
}

#[test]
fn forwarded() {
    let f = "Forwarded";
    assert_address(&[(f, "for=192.0.2.1")], "192.0.2.1");
    assert_address(&[(f, "For=\"[2001:db8:cafe::17]:4711\"")], "2001:db8:cafe::17");
    assert_address(&[(f, "for=192.0.2.66, for=192.0.2.1;by=10.0.0.9, for = 10.0.0.2")], "192.0.2.1");
    assert_address(&[(f, "for=192.0.2.66, for=_hidden, for=10.0.0.2")], "10.0.0.2");
    assert_address(&[(f, "for=192.0.2.66, proto=https")], "10.0.0.1");
    assert_address(&[(f, "for=192.0.2.66;for=192.0.2.67")], "10.0.0.1");
    assert_address(&[(f, "for=192.0.2.66, for=\"10.0.0.2")], "10.0.0.1");
    assert_address(&[(f, r#"for=192.0.2.66, for="192.0.2.\1""#)], "192.0.2.1");
    assert_address(&[(f, r#"for=192.0.2.1;x=",for=192.0.2.66;\",", for=10.0.0.3"#)], "192.0.2.1");
    assert_address(&[(f, "for=192.0.2.1"), (f, "for=10.0.0.2")], "192.0.2.1");
    // A proxy that writes only the older header passes on whatever the client claims in the newer one.
    assert_address(&[(f, "for=192.0.2.66"), (XFF, "192.0.2.1")], "192.0.2.1");
    let client =
        identify("10.0.0.1", &[(f, "for=x;proto=http, for=unknown;proto=https;host=\"shop.example:81\"")]);
    assert!(client.https);
    assert_eq!(client.host.unwrap(), "shop.example:81");
    assert_eq!(client.address.to_string(), "10.0.0.1");
}

/// A line that looks like what proxies send, or nearly.
fn line() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "10.0.0.2",
        "192.0.2.1",
        "::1",
        "[::1]:80",
        ",",
        ", ",
        ";",
        "for=",
        "proto=https",
        "\"",
        "\\",
        "unknown",
        " ",
        "host=a",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever stands left of the client's own entry makes no difference: a client cannot choose its address.
    #[test]
    fn what_a_client_claims_changes_nothing(claim in line(), hops in 0_usize..4) {
        let proxies = ", 10.0.0.2".repeat(hops);
        assert_address(&[(XFF, &format!("{claim}, 192.0.2.1{proxies}"))], "192.0.2.1");
        assert_address(&[(XFF, &claim), (XFF, &format!("192.0.2.1{proxies}"))], "192.0.2.1");
        let proxies = ",for=10.0.0.2".repeat(hops);
        assert_address(&[("Forwarded", &claim), ("Forwarded", &format!("for=192.0.2.1{proxies}"))], "192.0.2.1");
    }

    #[test]
    fn nothing_panics(lines in prop::collection::vec((prop::sample::select(vec![XFF, "Forwarded", "X-Forwarded-Host"]), line()), 0..5)) {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, line)| (*name, line.as_str())).collect();
        let _client = identify("10.0.0.1", &lines);
    }
}
