//! Header values that stay the same for a whole connection, made once when it is accepted.

use std::fmt::{self, Write};
use std::net::IpAddr;

use http::HeaderValue;

/// What forwarding headers say about the connection a request came on.
#[derive(Debug, Clone)]
pub struct PeerValues {
    /// The peer's address.
    pub ip: IpAddr,
    /// The same as text; IPv6 without brackets.
    pub address: HeaderValue,
    /// The port it connected to; `None` on a unix socket.
    pub local_port: Option<HeaderValue>,
    /// Whether it came over TLS.
    pub https: bool,
}

impl PeerValues {
    /// Values for a connection from `ip` to `local_port`, 0 standing for no port.
    pub fn new(ip: IpAddr, local_port: u16, https: bool) -> Self {
        let ip = ip.to_canonical();
        let local_port = (local_port != 0).then(|| HeaderValue::from(local_port));
        Self { ip, address: address_value(ip), local_port, https }
    }
}

/// `ip` as a header value; IPv6 without brackets.
pub fn address_value(ip: IpAddr) -> HeaderValue {
    let mut text = AddressText { bytes: [0; 48], len: 0 };
    // Neither can fail: the buffer holds any address, and an address is visible ASCII.
    if write!(text, "{ip}").is_err() {
        return HeaderValue::from_static("unknown");
    }
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Room for the text of any address.
struct AddressText {
    bytes: [u8; 48],
    len: usize,
}

impl AddressText {
    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for AddressText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mapped_address_is_shown_as_ipv4() {
        let values = PeerValues::new("::ffff:192.0.2.1".parse().unwrap(), 8443, true);
        assert_eq!(values.address, "192.0.2.1");
        assert_eq!(values.local_port.unwrap(), "8443");
        assert!(PeerValues::new(values.ip, 0, false).local_port.is_none());
    }

    proptest! {
        #[test]
        fn every_address_fits(bits in any::<u128>(), v4 in any::<u32>()) {
            for ip in [IpAddr::V6(bits.into()), IpAddr::V4(v4.into())] {
                prop_assert_eq!(address_value(ip), ip.to_string());
            }
        }
    }
}
