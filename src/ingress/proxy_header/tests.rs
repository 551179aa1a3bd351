use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The longest header there is.
const HEADER_BYTES_MAX: usize = super::v2::FIXED_BYTES + super::v2::REST_BYTES_MAX;

fn addresses(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn whole(bytes: &[u8]) -> ProxyHeader {
    match parse(bytes) {
        Status::Complete { len, header } if len == bytes.len() => header,
        other => panic!("{other:?}"),
    }
}

fn why(bytes: &[u8]) -> &'static str {
    match parse(bytes) {
        Status::Malformed(why) => why,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// Version 2 with this command, family and what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [super::v2::SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 7, 0x30, 0x39, 0x01, 0xbb];

#[test]
fn lines_are_read_as_the_specification_shows_them() {
    assert_eq!(
        whole(b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"),
        addresses("192.168.0.1:56324", "192.168.0.11:443")
    );
    assert_eq!(
        whole(b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 0 65535\r\n"),
        addresses("[2001:db8::1]:0", "[::ffff:192.0.2.1]:65535")
    );
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), ProxyHeader::Unknown);
    let longest = "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535";
    let padded = format!("{longest}{}\r\n", " ".repeat(105 - longest.len()));
    assert_eq!((padded.len(), whole(padded.as_bytes())), (107, ProxyHeader::Unknown));
    assert_eq!(
        parse(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"),
        Status::Complete { len: 15, header: ProxyHeader::Unknown }
    );
}

#[test]
fn lines_that_could_be_read_in_two_ways_are_refused() {
    for line in [
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        "PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 1\r\n",
        "PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        "PROXY TCP4 ::1 ::2 56324 443\r\n",
        "PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY TCP6 fe80::1%eth0 ::2 56324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 056324 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 65536 443\r\n",
        "PROXY tcp4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4 \u{e9} 192.168.0.11 56324 443\r\n",
    ] {
        why(line.as_bytes());
    }
    assert_eq!(why(&[b"PROXY UNKNOWN ".as_slice(), &[b'x'; 92], b"\r\n"].concat()), "the line is too long");
}

#[test]
fn binary_headers_are_read_as_the_specification_shows_them() {
    assert_eq!(whole(&v2(1, 0x11, V4)), addresses("192.0.2.1:12345", "198.51.100.7:443"));
    let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &Ipv6Addr::UNSPECIFIED.octets(), &[0, 1, 0, 2]].concat();
    assert_eq!(whole(&v2(1, 0x21, &v6)), addresses("[::1]:1", "[::]:2"));
    assert_eq!(whole(&v2(1, 0x31, &[b'/'; 216])), ProxyHeader::Unknown);
    assert_eq!(whole(&v2(1, 0x00, b"")), ProxyHeader::Unknown);
    assert_eq!(whole(&v2(1, 0x00, b"anything")), ProxyHeader::Unknown);
    assert_eq!(whole(&v2(0, 0x00, b"")), ProxyHeader::Local);
    assert_eq!(whole(&v2(0, 0x77, b"anything")), ProxyHeader::Local);
    // An authority, and padding.
    let extended = [V4, &[2, 0, 3], b"a.b", &[4, 0, 0]].concat();
    assert_eq!(whole(&v2(1, 0x11, &extended)), addresses("192.0.2.1:12345", "198.51.100.7:443"));
}

#[test]
fn binary_headers_that_are_wrong_are_refused() {
    let mut version = v2(1, 0x11, V4);
    version[12] = 0x31;
    assert_eq!(why(&version), "the version is not 2");
    assert_eq!(why(&v2(2, 0x11, V4)), "the command is neither LOCAL nor PROXY");
    for family in [0x11, 0x21, 0x31] {
        assert_eq!(why(&v2(1, family, &V4[..11])), "the addresses are cut short");
    }
    for family in [0x12, 0x22, 0x32] {
        assert_eq!(why(&v2(1, family, &[0; 216])), "datagrams in a stream");
    }
    for family in [0x01, 0x10, 0x13, 0x41, 0xff] {
        assert_eq!(why(&v2(1, family, &[0; 216])), "the family is unknown");
    }
    for cut in [&[4][..], &[4, 0], &[4, 0, 1], &[4, 0xff, 0xff, 0]] {
        assert_eq!(why(&v2(1, 0x11, &[V4, cut].concat())), "an extension is cut short");
    }
    // Known from its fixed bytes alone, before any of the rest is waited for.
    let long = [super::v2::SIGNATURE, &[0x21, 0x11, 0x10, 0x01]].concat();
    assert_eq!(why(&long), "the header is too long");
}

#[test]
fn a_checksum_is_held_to() {
    // RFC 3720 appendix B.4.
    assert_eq!(!super::v2::crc32c(!0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(!super::v2::crc32c(!0, b"123456789"), 0xe306_9283);
    let mut header = v2(1, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0, 4, 0, 1, 9]].concat());
    let sum = !super::v2::crc32c(!0, &header);
    header[31..35].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(whole(&header), addresses("192.0.2.1:12345", "198.51.100.7:443"));
    // All but the kind of the extension, without which there is no checksum.
    for at in (16..header.len()).filter(|at| *at != 28) {
        let mut damaged = header.clone();
        damaged[at] ^= 1;
        assert!(!matches!(parse(&damaged), Status::Complete { .. }), "byte {at}");
    }
    assert_eq!(why(&v2(1, 0x11, &[V4, &[3, 0, 3, 0, 0, 0]].concat())), "the checksum is malformed");
}

#[test]
fn anything_else_is_told_at_its_first_byte_that_differs() {
    for (bytes, status) in [
        (&b""[..], Status::Partial),
        (b"P", Status::Partial),
        (b"PROXY", Status::Partial),
        (b"PROXX", Status::Missing),
        (b"PRI * HTTP/2.0", Status::Missing),
        (b"GET / HTTP/1.1", Status::Missing),
        (b"\x16\x03\x01", Status::Missing),
        (b"\r\n\r\n", Status::Partial),
        (b"\r\n\r\n\0\r\nQUIT\n", Status::Partial),
        (b"\r\nGET", Status::Missing),
    ] {
        assert_eq!(parse(bytes), status, "{bytes:?}");
    }
}

fn of_one_family() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    prop_oneof![
        any::<(u32, u32)>().prop_map(|(a, b)| (Ipv4Addr::from(a).into(), Ipv4Addr::from(b).into())),
        any::<(u128, u128)>().prop_map(|(a, b)| (Ipv6Addr::from(a).into(), Ipv6Addr::from(b).into())),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

proptest! {
    /// Whatever is written is read again, however much of it has come, and whatever follows.
    #[test]
    fn headers_survive(
        (source, destination) in of_one_family(),
        ports in any::<(u16, u16)>(),
        extensions in prop::collection::vec((4_u8..=255, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
        after in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {source} {destination} {} {}\r\n", ports.0, ports.1);
        let mut rest = [octets(source), octets(destination)].concat();
        rest.extend(ports.0.to_be_bytes());
        rest.extend(ports.1.to_be_bytes());
        for (kind, value) in &extensions {
            rest.push(*kind);
            rest.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            rest.extend(value);
        }
        let binary = v2(1, if source.is_ipv4() { 0x11 } else { 0x21 }, &rest);
        let header = ProxyHeader::Addresses {
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
        };
        for written in [line.into_bytes(), binary] {
            for cut in 0..written.len() {
                prop_assert_eq!(parse(&written[..cut]), Status::Partial);
            }
            let more = [written.as_slice(), &after].concat();
            prop_assert_eq!(parse(&more), Status::Complete { len: written.len(), header });
        }
    }

    /// Once there is a verdict more bytes do not change it; before, everything belongs to the header and is bounded.
    #[test]
    fn no_bytes_panic(
        signature in 0_usize..3,
        garbage in prop::collection::vec(any::<u8>(), 0..HEADER_BYTES_MAX + 50),
    ) {
        let bytes = [[&b""[..], super::v1::SIGNATURE, super::v2::SIGNATURE][signature], &garbage].concat();
        let verdict = parse(&bytes);
        prop_assert!(verdict != Status::Partial || bytes.len() < HEADER_BYTES_MAX);
        let mut settled: Option<Status> = None;
        for cut in (0..bytes.len().min(300)).chain([bytes.len()]) {
            let status = parse(&bytes[..cut]);
            if let Some(settled) = settled {
                prop_assert_eq!(status, settled);
            } else if status != Status::Partial {
                settled = Some(status);
            }
        }
    }
}
