//! Version 1: a line of text (section 2.1 of the specification).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyHeader, Status};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// The longest line there is, with its end.
pub(super) const LINE_BYTES_MAX: usize = 107;

/// Judges `bytes`, which begin like the signature.
pub(super) fn parse(bytes: &[u8]) -> Status {
    let window = bytes.get(..LINE_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return match window.len() < LINE_BYTES_MAX {
            true => Status::Partial,
            false => Status::Malformed("the line is too long"),
        };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let Some(line) = line.and_then(|line| line.strip_prefix(SIGNATURE)) else {
        return Status::Malformed("the line does not end in CR LF");
    };
    match read(line) {
        Ok(header) => Status::Complete { len: end + 1, header },
        Err(why) => Status::Malformed(why),
    }
}

/// The line behind the signature: protocol, addresses, ports, each one space apart.
fn read(line: &[u8]) -> Result<ProxyHeader, &'static str> {
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        // Whatever else stands there is to be ignored.
        return Ok(ProxyHeader::Unknown);
    }
    let line = std::str::from_utf8(line).map_err(|_| "the line is not ASCII")?;
    let mut words = line.split(' ');
    let mut word = || words.next().ok_or("a field is missing");
    let address: fn(&str) -> Option<IpAddr> = match word()? {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err("the protocol is none of TCP4, TCP6 and UNKNOWN"),
    };
    let mut read_address = || address(word()?).ok_or("not an address of that protocol");
    let (source, destination) = (read_address()?, read_address()?);
    let mut read_port = || port(word()?).ok_or("not a port");
    let (source_port, destination_port) = (read_port()?, read_port()?);
    if words.next().is_some() {
        return Err("more fields than there are");
    }
    Ok(ProxyHeader::Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

/// Decimal digits without a leading zero.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if digits { text.parse().ok() } else { None }
}
