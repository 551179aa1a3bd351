//! Of what other machines say: forwarding and PROXY headers, client certificates, the URL of a broker and names in messages.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::{cut, lines};
use crate::base::client_cert::ClientCert;
use crate::broker::{BrokerUrl, Headers, Name, queue_name};
use crate::ingress::proxy_header::{ProxyHeader, Status, parse};
use crate::policy::trusted::TrustedProxies;
use crate::proxy::client::Client;

/// Who a client is: only what trusted proxies wrote counts, and the walk ends where they do.
pub fn forwarded(bytes: &[u8]) {
    let Some(headers) = lines(&HeaderName::from_static("x-forwarded-for"), bytes) else { return };
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
    let client = Client::find(&headers, stranger, false, &trusted);
    assert_eq!((client.address, client.peer_trusted), (stranger, false), "a stranger is who he is");
    let client = Client::find(&headers, proxy, false, &trusted);
    // As simply as it can be said: all entries in one list, from its end.
    let list: Vec<u8> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b","[..]);
    let mut expected = proxy;
    for entry in list.split(|byte| *byte == b',').rev().take(crate::proxy::client::FORWARDED_ENTRIES_MAX) {
        let Some(address) = plain_address(entry.trim_ascii()) else { break };
        expected = address;
        if !trusted.contains(address) {
            break;
        }
    }
    assert_eq!(client.address, expected);
    // The same bytes as `Forwarded`: no reference, but the address is one that stands there, or the peer's.
    let mut other = HeaderMap::new();
    for value in headers.get_all("x-forwarded-for") {
        other.append(FORWARDED, value.clone());
    }
    assert_eq!(Client::find(&other, stranger, false, &trusted).address, stranger);
    let client = Client::find(&other, proxy, false, &trusted);
    assert!(client.address == proxy || list.iter().any(u8::is_ascii_hexdigit));
}

/// An address, with or without a port.
fn plain_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), after.strip_prefix(':').or(after.is_empty().then_some("1"))?)
        }
        None => {
            let (address, port) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_port && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| address.to_canonical())
}

/// The longest PROXY header there is.
const PROXY_HEADER_BYTES_MAX: usize = 4112;

/// A PROXY header gets one verdict, whatever follows, and none before it can be given; a line says what a simple reader
/// reads in it.
pub fn proxy_header(bytes: &[u8]) {
    let whole = parse(bytes);
    // Not every prefix: they are long, and the answer of one is that of all before it.
    let step = (bytes.len() / 64).max(1);
    for end in (0..bytes.len()).step_by(step) {
        match parse(&bytes[..end]) {
            Status::Partial => assert!(end < PROXY_HEADER_BYTES_MAX, "a header ends somewhere"),
            verdict => assert_eq!(verdict, whole, "a verdict is the last"),
        }
    }
    let Status::Complete { len, header } = whole else { return };
    assert!(len <= bytes.len() && len <= PROXY_HEADER_BYTES_MAX);
    assert_eq!(parse(&bytes[..len]), whole, "what follows does not matter");
    assert_eq!(parse(&bytes[..len - 1]), Status::Partial);
    if !bytes.starts_with(b"PROXY ") {
        return;
    }
    // Behind UNKNOWN stands anything.
    let line = String::from_utf8_lossy(&bytes[..len]);
    let line = line.strip_suffix("\r\n").unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    match header {
        ProxyHeader::Addresses { source, destination } => {
            let [_, family, from, to, from_port, to_port] = words[..] else { panic!("{line}") };
            let address = |ip: &str, port: &str| {
                SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port.parse::<u16>().unwrap())
            };
            assert_eq!((source, destination), (address(from, from_port), address(to, to_port)));
            assert_eq!(family, if source.is_ipv4() { "TCP4" } else { "TCP6" });
        }
        ProxyHeader::Unknown => assert_eq!(words[1], "UNKNOWN"),
        ProxyHeader::Local => panic!("no line says that"),
    }
}

/// A certificate is read or not; what is said of it can stand in a header and in one line of a log.
pub fn client_certificate(bytes: &[u8]) {
    let Some(certificate) = ClientCert::read(bytes) else { return };
    let is_visible = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    for text in [&certificate.subject, &certificate.issuer, &certificate.serial, &certificate.sha256] {
        assert!(is_visible(text), "{text:?}");
    }
    for name in [&certificate.uri, &certificate.dns, &certificate.email].into_iter().flatten() {
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
    }
    if let Some(principal) = certificate.principal() {
        assert!(!principal.is_empty());
        let by_name = certificate.subject.is_empty();
        assert!(!by_name || !principal.as_bytes().contains(&b'='), "nobody passes for another's subject");
    }
}

/// A secret that nothing says again.
const SECRET: &str = "x7391-SeCrEt";

/// Where a broker is: neither what is taken nor what is refused shows the password. Names and headers fit AMQP.
pub fn broker(bytes: &[u8]) {
    let [before, after] = cut(bytes);
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    // Somebody who writes it in other places, too, has it shown there.
    if before.contains(SECRET) || after.contains(SECRET) {
        return;
    }
    for text in
        [format!("{before}:{SECRET}{after}"), format!("amqp://u:{SECRET}@{after}"), before.to_string()]
    {
        // What stands behind the authority is no password.
        let authority = text.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next());
        if authority.is_some_and(|authority| !authority.unwrap_or_default().contains(SECRET)) {
            continue;
        }
        match BrokerUrl::parse(&text) {
            Ok(url) => assert!(!format!("{url:?}").contains(SECRET), "{text}"),
            Err(why) => assert!(!why.contains(SECRET) && !why.contains('\n'), "{text}: {why}"),
        }
    }
    let name = Name::new(&*before);
    assert_eq!(name.is_some(), before.len() <= 255 && !before.chars().any(char::is_control));
    if let Ok(queue) = queue_name(&before) {
        assert!(!before.is_empty() && queue.as_str() == before && !before.contains(['{', '}']));
    }
    let mut headers = Headers::default();
    let set = headers.set(&before, after.as_bytes());
    assert_eq!(set.is_ok(), before.len() <= 255 && before.len() + after.len() + 6 <= 64 * 1024);
}
