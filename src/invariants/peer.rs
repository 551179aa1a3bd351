//! Of what other machines say: PROXY headers, client certificates, the URL of a broker and names in messages.

use std::net::{IpAddr, SocketAddr};

use super::cut;
use crate::base::client_cert::ClientCert;
use crate::broker::{BrokerUrl, Headers, Name, queue_name};
use crate::ingress::proxy_header::{ProxyHeader, Status, parse};

/// The longest header there is.
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
