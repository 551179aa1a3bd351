//! Version 2: binary (section 2.2 of the specification).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyHeader, Status};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
pub(super) const FIXED_BYTES: usize = 16;
/// Most bytes behind the fixed ones. Addresses take at most 216; extensions of those who send any a few hundred.
pub(super) const REST_BYTES_MAX: usize = 4096;

/// The extension that holds a CRC-32C of the whole header (section 2.2.3).
const TLV_CRC32C: u8 = 0x03;

/// Judges `bytes`, which begin like the signature.
pub(super) fn parse(bytes: &[u8]) -> Status {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Status::Partial };
    let [.., version_command, family, length_high, length_low] = *fixed;
    if version_command >> 4 != 2 {
        return Status::Malformed("the version is not 2");
    }
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    if length > REST_BYTES_MAX {
        return Status::Malformed("the header is too long");
    }
    let len = FIXED_BYTES + length;
    let Some(whole) = bytes.get(..len) else { return Status::Partial };
    let rest = whole.get(FIXED_BYTES..).unwrap_or_default();
    let header = match version_command & 0x0f {
        // What family and addresses say then is to be ignored.
        0 => Ok(ProxyHeader::Local),
        1 => read(family, rest, whole),
        _ => Err("the command is neither LOCAL nor PROXY"),
    };
    match header {
        Ok(header) => Status::Complete { len, header },
        Err(why) => Status::Malformed(why),
    }
}

/// Addresses and extensions of a connection that is passed on.
fn read(family: u8, rest: &[u8], whole: &[u8]) -> Result<ProxyHeader, &'static str> {
    const SHORT: &str = "the addresses are cut short";
    let (header, extensions) = match family {
        // Unspecified: there are no addresses, or none that could be understood.
        0x00 => return Ok(ProxyHeader::Unknown),
        // TCP over IPv4.
        0x11 => {
            let (block, extensions) = rest.split_first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *block;
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            (addresses(source, destination, ports), extensions)
        }
        // TCP over IPv6.
        0x21 => {
            let (source, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let (ports, extensions) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            (addresses(Ipv6Addr::from(*source), Ipv6Addr::from(*destination), *ports), extensions)
        }
        // A unix stream: two paths of 108 bytes. Its client has no address that anything here goes by.
        0x31 => (ProxyHeader::Unknown, rest.get(216..).ok_or(SHORT)?),
        0x12 | 0x22 | 0x32 => return Err("datagrams in a stream"),
        _ => return Err("the family is unknown"),
    };
    check_extensions(extensions, whole)?;
    Ok(header)
}

fn addresses<A: Into<std::net::IpAddr>>(source: A, destination: A, ports: [u8; 4]) -> ProxyHeader {
    let [a, b, c, d] = ports;
    ProxyHeader::Addresses {
        source: SocketAddr::new(source.into(), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination.into(), u16::from_be_bytes([c, d])),
    }
}

/// Extensions are skipped, but must be well-formed; a checksum among them must be right.
fn check_extensions(mut rest: &[u8], whole: &[u8]) -> Result<(), &'static str> {
    let mut checked = false;
    while let Some(([kind, high, low], after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, next) = after.split_at_checked(length).ok_or("an extension is cut short")?;
        if *kind == TLV_CRC32C {
            let sum = value.first_chunk::<4>().filter(|_| length == 4 && !checked);
            let sum = sum.ok_or("the checksum is malformed")?;
            // It was made with zeros in its own place.
            let before = whole.len() - after.len();
            let crc = [whole.get(..before).unwrap_or_default(), &[0; 4], next].into_iter().fold(!0, crc32c);
            if !crc != u32::from_be_bytes(*sum) {
                return Err("the checksum is wrong");
            }
            checked = true;
        }
        rest = next;
    }
    if rest.is_empty() { Ok(()) } else { Err("an extension is cut short") }
}

/// Goes on with a CRC-32C (RFC 4960 appendix B), bit by bit: a header is short, and there is one a connection.
pub(super) fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg()))
    })
}
