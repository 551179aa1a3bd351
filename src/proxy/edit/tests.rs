use proptest::prelude::*;

use super::*;
use crate::policy::trusted::TrustedProxies;
use crate::proxy::received::Received;

const ID: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A request as it stands before the edits: from a client at 192.0.2.7 by TLS, or through the trusted proxy 10.0.0.1.
struct Case {
    from: Version,
    to: Version,
    ends_with_head: bool,
    upgrade: bool,
    host: Option<&'static str>,
    peer: &'static str,
    identity: Option<(HeaderName, Option<HeaderValue>)>,
    credentials: Credentials<'static>,
}

const DIRECT: Case = Case {
    from: Version::HTTP_11,
    to: Version::HTTP_11,
    ends_with_head: false,
    upgrade: false,
    host: None,
    peer: "192.0.2.7",
    identity: None,
    credentials: Credentials { authorization: false, header: None, cookie: None },
};
const PROXIED: Case = Case { peer: "10.0.0.1", ..DIRECT };

fn head(target: &str, version: Version, lines: &[(&str, &str)]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    head.set_version(version);
    for (name, value) in lines {
        head.append_header((*name).to_owned(), HeaderValue::from_bytes(value.as_bytes()).unwrap()).unwrap();
    }
    head
}

impl Case {
    /// As the hooks do it: what every server gets, then what this one gets.
    fn edit(&self, mut head: RequestHeader) -> RequestHeader {
        let peer = PeerValues::new(self.peer.parse().unwrap(), 8443, true);
        let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
        let client = Client::find(&head.headers, peer.ip, true, &trusted);
        let host = self.host.map(HeaderValue::from_static);
        let (version, upgrade) = (self.from, self.upgrade);
        let received = Received::read(&head.headers);
        let (marks, takes_trailers) = (received.marks, received.te.is_some_and(is_trailers));
        let (name, value) = self.identity.clone().unzip();
        let (names, values) = ([None, name], [None, value.flatten()]);
        let identity = Identity { names: &names, values: &values };
        let forwarding = Forwarding {
            peer: &peer,
            client: &client,
            version,
            ends_with_head: self.ends_with_head,
            request_id: ID,
            trace_valid: true,
            marks,
            identity,
            credentials: self.credentials,
            reads_answer: false,
        };
        request(&mut head, &forwarding).unwrap();
        let (host, server) = (host.as_ref(), "10.0.0.9:81");
        let way = Way { version, upgrade, host, server, takes_trailers, marks, identity };
        attempt(&mut head, &way).unwrap();
        // Panics if the map of spellings and the map of values differ.
        head.header_to_h1_wire(&mut Vec::new());
        head
    }

    fn lines(&self, lines: &[(&str, &str)]) -> RequestHeader {
        self.edit(head("/", self.to, &[&[("Host", "shop.example")], lines].concat()))
    }
}

#[track_caller]
fn assert_lines(headers: &HeaderMap, expected: &[(&str, &[&str])]) {
    for (name, values) in expected {
        let found: Vec<_> = headers.get_all(*name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(found, *values, "{name}");
    }
}

#[test]
fn what_a_server_is_told() {
    let head = DIRECT.lines(&[("X-Other", "kept")]);
    assert_lines(
        &head.headers,
        &[
            ("host", &["shop.example"]),
            ("x-forwarded-for", &["192.0.2.7"]),
            ("x-forwarded-proto", &["https"]),
            ("x-forwarded-host", &["shop.example"]),
            ("x-forwarded-port", &["8443"]),
            ("x-real-ip", &["192.0.2.7"]),
            ("x-request-id", &["0123456789abcdef0123456789abcdef"]),
            ("via", &["1.1 edgeward"]),
            ("forwarded", &[]),
            ("x-other", &["kept"]),
        ],
    );
}

#[test]
fn what_a_stranger_claims_is_removed() {
    let head = DIRECT.lines(&[
        ("X-Forwarded-For", "10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Port", "1"),
        ("X-Forwarded-Prefix", "/admin"),
        ("X-Forwarded-Client-Cert", "CN=root"),
        ("X-Real-IP", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Request-Id", "chosen"),
        ("Via", "1.1 somebody"),
        ("Traceparent", "00-a-b-01"),
    ]);
    assert_lines(
        &head.headers,
        &[
            ("x-forwarded-for", &["192.0.2.7"]),
            ("x-forwarded-proto", &["https"]),
            ("x-forwarded-host", &["shop.example"]),
            ("x-forwarded-port", &["8443"]),
            ("x-forwarded-prefix", &[]),
            ("x-forwarded-client-cert", &[]),
            ("x-real-ip", &["192.0.2.7"]),
            ("forwarded", &[]),
            ("x-request-id", &["0123456789abcdef0123456789abcdef"]),
            ("via", &["1.1 somebody", "1.1 edgeward"]),
            ("traceparent", &["00-a-b-01"]),
        ],
    );
}

#[test]
fn what_a_trusted_proxy_says_is_continued() {
    let head = PROXIED.lines(&[
        ("X-Forwarded-For", "192.0.2.66, 198.51.100.1"),
        ("X-Forwarded-For", "10.0.0.2"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "www.example:81"),
        ("X-Forwarded-Prefix", "/shop"),
    ]);
    assert_lines(
        &head.headers,
        &[
            ("x-forwarded-for", &["192.0.2.66, 198.51.100.1, 10.0.0.2, 10.0.0.1"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-host", &["www.example:81"]),
            ("x-forwarded-port", &["80"]),
            ("x-forwarded-prefix", &["/shop"]),
            ("x-real-ip", &["198.51.100.1"]),
            ("forwarded", &[]),
            ("host", &["shop.example"]),
        ],
    );
    let head = PROXIED.lines(&[("X-Forwarded-Port", "444")]);
    assert_lines(&head.headers, &[("x-forwarded-port", &["444"]), ("x-forwarded-for", &["10.0.0.1"])]);
}

/// `Forwarded` is spoken to those who speak it.
#[test]
fn forwarded_is_continued_where_a_trusted_proxy_uses_it() {
    let head = PROXIED.lines(&[("Forwarded", "for=198.51.100.1;proto=http;host=\"a:81\"")]);
    let ours = "for=10.0.0.1;proto=https;host=\"shop.example\";by=_edgeward";
    let chain = format!("for=198.51.100.1;proto=http;host=\"a:81\", {ours}");
    assert_lines(
        &head.headers,
        &[
            ("forwarded", &[chain.as_str()]),
            ("x-forwarded-for", &["10.0.0.1"]),
            ("x-real-ip", &["198.51.100.1"]),
            ("x-forwarded-proto", &["http"]),
            ("x-forwarded-host", &["a:81"]),
        ],
    );
    let peer = PeerValues::new("2001:db8::1".parse().unwrap(), 80, false);
    assert_eq!(forwarded_element(&peer, None).as_slice(), b"for=\"[2001:db8::1]\";proto=http;by=_edgeward");
}

#[test]
fn hop_by_hop_fields_end_here() {
    for (from, to) in [
        (Version::HTTP_11, Version::HTTP_11),
        (Version::HTTP_11, Version::HTTP_2),
        (Version::HTTP_2, Version::HTTP_2),
        (Version::HTTP_2, Version::HTTP_11),
    ] {
        let head = Case { from, to, ..DIRECT }.lines(&[
            ("Connection", "close, X-Secret,, x-other"),
            ("connection", "Upgrade, Content-Type"),
            ("X-Secret", "1"),
            ("Content-Type", "text/plain"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("Proxy-Authorization", "Basic x"),
            ("Proxy-Authenticate", "Basic"),
            ("Upgrade", "websocket"),
            ("HTTP2-Settings", "x"),
            ("TE", "trailers, deflate"),
        ]);
        let left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        for gone in [
            "connection",
            "x-secret",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "upgrade",
            "http2-settings",
            "te",
        ] {
            assert!(!left.contains(&gone), "{gone} from {from:?} to {to:?}");
        }
        assert_lines(&head.headers, &[("content-type", &["text/plain"])]);
    }
}

/// gRPC needs `te: trailers` all the way.
#[test]
fn trailers_are_asked_for_between_http2_only() {
    let lines = [("te", "trailers"), ("trailer", "x-sum")];
    let between = Case { from: Version::HTTP_2, to: Version::HTTP_2, ..DIRECT }.lines(&lines);
    assert_lines(
        &between.headers,
        &[("te", &["trailers"]), ("trailer", &["x-sum"]), ("via", &["2 edgeward"])],
    );
    let down = Case { from: Version::HTTP_2, ..DIRECT }.lines(&lines);
    assert_lines(&down.headers, &[("te", &[]), ("trailer", &[]), ("via", &["2 edgeward"])]);
}

#[test]
fn upgrades_pass_only_as_websocket_handshakes() {
    let lines = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket"), ("Sec-WebSocket-Key", "x")];
    let handshake = Case { upgrade: true, ..DIRECT }.lines(&lines);
    let expected: &[(&str, &[&str])] =
        &[("connection", &["Upgrade"]), ("upgrade", &["websocket"]), ("sec-websocket-key", &["x"])];
    assert_lines(&handshake.headers, expected);
    let other = DIRECT.lines(&lines);
    assert_lines(&other.headers, &[("connection", &[]), ("upgrade", &[])]);
    let mut head = head("/", Version::HTTP_11, &lines);
    ignore_upgrade(&mut head);
    assert_lines(&head.headers, &[("upgrade", &[])]);
}

/// Who a request is from is for the gateway to say: also with nothing to say, also when the client names the header in
/// `Connection`, on every way.
#[test]
fn nobody_says_himself_who_he_is() {
    let lines = [
        ("X-Auth-Subject", "root"),
        ("x-auth-subject", "admin"),
        ("X_Auth_Subject", "root"),
        ("x-auth_subject", "root"),
        ("Connection", "x-auth-subject"),
        ("X-Auth-Subjects", "kept"),
    ];
    let name = HeaderName::from_static("x-auth-subject");
    for (from, to) in [(Version::HTTP_11, Version::HTTP_11), (Version::HTTP_2, Version::HTTP_2)] {
        let head = Case { from, to, identity: Some((name.clone(), None)), ..DIRECT }.lines(&lines);
        let expected: &[(&str, &[&str])] = &[
            ("x-auth-subject", &[]),
            ("x_auth_subject", &[]),
            ("x-auth_subject", &[]),
            ("x-auth-subjects", &["kept"]),
        ];
        assert_lines(&head.headers, expected);
        let alice = HeaderValue::from_static("CN=alice");
        let head = Case { from, to, identity: Some((name.clone(), Some(alice))), ..DIRECT }.lines(&lines);
        assert_lines(&head.headers, &[("x-auth-subject", &["CN=alice"]), ("x_auth_subject", &[])]);
    }
}

#[test]
fn credentials_are_taken_off_where_they_end() {
    let lines = [
        ("Authorization", "Bearer a.b.c"),
        ("X-API-Key", "k"),
        ("X-API-Key-Id", "kept"),
        ("Cookie", "a=1; session=t; sessions=2"),
        ("Cookie", "session=u"),
    ];
    static KEY: HeaderName = HeaderName::from_static("x-api-key");
    let kept = DIRECT.lines(&lines);
    assert_lines(&kept.headers, &[("authorization", &["Bearer a.b.c"]), ("x-api-key", &["k"])]);
    assert_lines(&kept.headers, &[("cookie", &["a=1; session=t; sessions=2", "session=u"])]);
    let credentials = Credentials { authorization: true, header: Some(&KEY), cookie: Some("session") };
    let bare = Case { credentials, ..DIRECT }.lines(&lines);
    let expected: &[(&str, &[&str])] = &[
        ("authorization", &[]),
        ("x-api-key", &[]),
        ("x-api-key-id", &["kept"]),
        ("cookie", &["a=1; sessions=2"]),
    ];
    assert_lines(&bare.headers, expected);
}

#[test]
fn hsts_is_added_where_there_is_none() {
    let value = HeaderValue::from_static("max-age=60");
    let mut head = answer(200, Version::HTTP_11, &[], Version::HTTP_11);
    strict_transport(&mut head, &value).unwrap();
    assert_lines(&head.headers, &[("strict-transport-security", &["max-age=60"])]);
    let theirs = [("Strict-Transport-Security", "max-age=1; preload")];
    let mut head = answer(200, Version::HTTP_11, &theirs, Version::HTTP_11);
    strict_transport(&mut head, &value).unwrap();
    assert_lines(&head.headers, &[("strict-transport-security", &["max-age=1; preload"])]);
}

#[test]
fn own_answers_are_what_they_say() {
    let mut head = ResponseHeader::build(200, None).unwrap();
    local_response(&mut head, b"r1", true).unwrap();
    assert_lines(&head.headers, &[("x-content-type-options", &["nosniff"]), ("x-request-id", &["r1"])]);
    let mut head = ResponseHeader::build(200, None).unwrap();
    head.insert_header("X-Content-Type-Options", "none").unwrap();
    local_response(&mut head, b"r1", true).unwrap();
    assert_lines(&head.headers, &[("x-content-type-options", &["none"]), ("x-request-id", &["r1"])]);
    let mut file = ResponseHeader::build(200, None).unwrap();
    local_response(&mut file, b"r1", false).unwrap();
    assert_lines(&file.headers, &[("x-request-id", &["r1"])]);
}

#[test]
fn host_as_configured() {
    let named = Case { host: Some("backend.internal:81"), ..DIRECT }.lines(&[]);
    assert_lines(
        &named.headers,
        &[("host", &["backend.internal:81"]), ("x-forwarded-host", &["shop.example"])],
    );
    // From HTTP/2 and in an absolute target of HTTP/1.0 there may be no Host. Without any it is
    // the server's own, which HTTP/1.1 and HTTP/2 cannot do without.
    let mut h2 = head("/", Version::HTTP_2, &[]);
    h2.set_uri("https://shop.example/a".parse().unwrap());
    let h2 = Case { from: Version::HTTP_2, to: Version::HTTP_2, ..DIRECT }.edit(h2);
    assert_lines(&h2.headers, &[("host", &["shop.example"]), ("x-forwarded-host", &["shop.example"])]);
    let old = Case { from: Version::HTTP_10, ..DIRECT };
    let absolute = old.edit(head("http://shop.example/a", Version::HTTP_11, &[]));
    let expected: &[(&str, &[&str])] =
        &[("host", &["shop.example"]), ("x-forwarded-host", &["shop.example"]), ("via", &["1.0 edgeward"])];
    assert_lines(&absolute.headers, expected);
    let none = old.edit(head("/a", Version::HTTP_11, &[]));
    assert_lines(&none.headers, &[("host", &["10.0.0.9:81"]), ("x-forwarded-host", &[])]);
}

fn answer(status: u16, version: Version, lines: &[(&str, &str)], to: Version) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    head.set_version(version);
    for (name, value) in lines {
        head.append_header((*name).to_owned(), (*value).to_owned()).unwrap();
    }
    response(&mut head, to, ID).unwrap();
    head.header_to_h1_wire(&mut Vec::new());
    head
}

#[test]
fn answers() {
    let lines = [
        ("Connection", "keep-alive, X-Internal, Content-Length"),
        ("X-Internal", "1"),
        ("Content-Length", "3"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "x"),
        ("Proxy-Authenticate", "Basic"),
        ("Upgrade", "h2,h2c"),
        ("Trailer", "x-sum"),
        ("Server", "Apache"),
        ("X-Request-Id", "theirs"),
        ("Via", "1.0 cache"),
    ];
    let head = answer(200, Version::HTTP_11, &lines, Version::HTTP_11);
    assert_lines(
        &head.headers,
        &[
            ("connection", &[]),
            ("x-internal", &[]),
            ("content-length", &["3"]),
            ("keep-alive", &[]),
            ("proxy-connection", &[]),
            ("proxy-authenticate", &[]),
            ("upgrade", &[]),
            ("trailer", &[]),
            ("server", &["Apache"]),
            ("x-request-id", &["0123456789abcdef0123456789abcdef"]),
            ("via", &["1.0 cache", "1.1 edgeward"]),
        ],
    );
    let head = answer(
        200,
        Version::HTTP_2,
        &[("trailer", "x-sum"), ("transfer-encoding", "chunked")],
        Version::HTTP_2,
    );
    assert_lines(
        &head.headers,
        &[("trailer", &["x-sum"]), ("via", &["2 edgeward"]), ("transfer-encoding", &["chunked"])],
    );
}

#[test]
fn answers_to_upgrades() {
    let lines = [("Connection", "upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "x")];
    let switched = answer(101, Version::HTTP_11, &lines, Version::HTTP_11);
    let expected: &[(&str, &[&str])] =
        &[("connection", &["Upgrade"]), ("upgrade", &["websocket"]), ("sec-websocket-accept", &["x"])];
    assert_lines(&switched.headers, expected);
    let required = answer(426, Version::HTTP_11, &lines, Version::HTTP_11);
    assert_lines(&required.headers, &[("connection", &[]), ("upgrade", &["websocket"])]);
    assert_lines(&answer(426, Version::HTTP_11, &lines, Version::HTTP_2).headers, &[("upgrade", &[])]);
    let mut local = ResponseHeader::build(404, None).unwrap();
    local_response(&mut local, ID, true).unwrap();
    let expected: &[(&str, &[&str])] = &[
        ("x-content-type-options", &["nosniff"]),
        ("x-request-id", &["0123456789abcdef0123456789abcdef"]),
        ("via", &[]),
    ];
    assert_lines(&local.headers, expected);
}

proptest! {
    /// Whatever a stranger sends, the server gets exactly one value of each forwarding header, and it is ours; and no
    /// field that `Connection` named.
    #[test]
    fn a_stranger_gets_nothing_through(
        lines in prop::collection::vec((prop::sample::select(vec![
            "X-Forwarded-For", "X-FORWARDED-FOR", "x-forwarded-proto", "X-Forwarded-Ssl", "X-Real-Ip", "Forwarded", "Connection",
            "TE", "Keep-Alive", "X-A", "X-B", "Upgrade", "Cookie",
        ]), prop::sample::select(vec!["10.0.0.1", "x-a", "X-B, close", "for=10.0.0.1", "trailers", "websocket", "", ",,", "cookie"])), 0..20),
        from_h2 in any::<bool>(), to_h2 in any::<bool>(),
    ) {
        let version = |h2| if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let head = Case { from: version(from_h2), to: version(to_h2), ..DIRECT }.lines(&lines);
        assert_lines(&head.headers, &[
            ("x-forwarded-for", &["192.0.2.7"]), ("x-forwarded-proto", &["https"]), ("x-forwarded-ssl", &[]),
            ("x-real-ip", &["192.0.2.7"]), ("forwarded", &[]), ("connection", &[]), ("keep-alive", &[]), ("upgrade", &[]),
        ]);
        for name in ["x-a", "x-b"] {
            let named = lines.iter().any(|(field, value)| *field == "Connection" && value.to_lowercase().contains(name));
            prop_assert!(!named || !head.headers.contains_key(name));
        }
        prop_assert_eq!(head.headers.contains_key("cookie"), lines.iter().any(|(field, _)| *field == "Cookie"));
    }
}

/// Nobody is asked to send a body that there is not (RFC 9110 section 10.1.1), whichever way that is told.
#[test]
fn who_has_no_body_expects_nothing() {
    const EXPECT: (&str, &str) = ("Expect", "100-continue");
    let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
    for (from, ends_with_head, framing, stays) in [
        (h1, false, None, false),
        (h1, false, Some(("Content-Length", "0")), false),
        (h1, false, Some(("Content-Length", "5")), true),
        (h1, false, Some(("Transfer-Encoding", "chunked")), true),
        (h2, true, None, false),
        (h2, true, Some(("Content-Length", "0")), false),
        (h2, false, Some(("Content-Length", "0")), false),
        (h2, false, Some(("Content-Length", "5")), true),
        (h2, false, None, true),
    ] {
        let lines: Vec<_> = [Some(EXPECT), framing].into_iter().flatten().collect();
        let head = Case { from, ends_with_head, ..DIRECT }.lines(&lines);
        assert_eq!(head.headers.contains_key(header::EXPECT), stays, "{from:?} {ends_with_head} {framing:?}");
    }
}
