//! What a verified client certificate says about its holder, as policies, headers, templates and logs show it: read once
//! a connection.

use std::fmt::Write;

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use http::HeaderValue;
use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// A verified client certificate.
#[derive(Debug, Clone)]
pub struct ClientCert {
    /// The subject's distinguished name (RFC 4514), as nginx' `$ssl_client_s_dn` writes it: most specific first, ASCII,
    /// bytes of other characters as `\C3\A4`. May be empty.
    pub subject: Box<str>,
    /// The issuer's, likewise.
    pub issuer: Box<str>,
    /// The serial number in hexadecimal, upper case, as nginx writes it.
    pub serial: Box<str>,
    /// SHA-256 of the certificate in hexadecimal, lower case.
    pub sha256: Box<str>,
    /// SHA-1 of the certificate, as nginx' `$ssl_client_fingerprint` has it. For logs: nothing is decided by it.
    pub sha1: Box<str>,
    /// The first URI among the alternative names, such as `spiffe://…`.
    pub uri: Option<Box<str>>,
    /// The first DNS name among them.
    pub dns: Option<Box<str>>,
    /// The first mail address among them.
    pub email: Option<Box<str>>,
    /// When it expires, in seconds since the Unix epoch.
    pub not_after: i64,
    principal: Option<HeaderValue>,
}

/// Longest distinguished name, and longest alternative name, that is read: it stands in headers and log lines.
const NAME_BYTES_MAX: usize = 8 * 1024;

impl ClientCert {
    /// Reads `der`. `None` if it is no certificate, or its names are longer than 8 KiB.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (mut uri, mut dns, mut email) = (None, None, None);
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|names| names.value.general_names.iter()) {
            let (place, text) = match name {
                GeneralName::URI(text) => (&mut uri, *text),
                GeneralName::DNSName(text) => (&mut dns, *text),
                GeneralName::RFC822Name(text) => (&mut email, *text),
                _ => continue,
            };
            // Visible ASCII is all that these may hold (RFC 5280 section 4.2.1.6); anything else names nobody.
            if place.is_none() && text.len() <= NAME_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic()) {
                *place = Some(Box::from(text));
            }
        }
        let subject = distinguished_name(certificate.subject())?;
        let principal = Some(&*subject).filter(|name| !name.is_empty());
        // With a `=` it could pass for another's subject.
        let named = |name: &Option<Box<str>>| name.clone().filter(|name| !name.contains('='));
        let principal = principal
            .map(Box::from)
            .or_else(|| named(&uri).or_else(|| named(&dns)).or_else(|| named(&email)));
        Some(Self {
            principal: principal.and_then(|name: Box<str>| HeaderValue::from_str(&name).ok()),
            issuer: distinguished_name(certificate.issuer())?.into(),
            serial: serial(certificate.raw_serial()).into(),
            sha256: fingerprint(&SHA256, der).into(),
            sha1: fingerprint(&SHA1_FOR_LEGACY_USE_ONLY, der).into(),
            not_after: certificate.validity().not_after.timestamp(),
            subject: subject.into(),
            uri,
            dns,
            email,
        })
    }

    /// Who this is, for services: the subject; where that is empty the first URI, DNS name or mail address, of those that
    /// hold no `=`; `None` where there is none of these either.
    pub fn principal(&self) -> Option<&HeaderValue> {
        self.principal.as_ref()
    }
}

fn fingerprint(algorithm: &'static Algorithm, der: &[u8]) -> String {
    hex(digest(algorithm, der).as_ref(), false)
}

/// As OpenSSL's `i2a_ASN1_INTEGER`: whole bytes, without the zeros in front.
fn serial(raw: &[u8]) -> String {
    let digits = raw.iter().position(|byte| *byte != 0).and_then(|start| raw.get(start..));
    digits.map_or_else(|| "00".to_owned(), |digits| hex(digits, true))
}

fn hex(bytes: &[u8], upper: bool) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") }.unwrap_or_default();
    }
    text
}

/// `name` as OpenSSL prints it with `XN_FLAG_RFC2253`. `None` if it is too long.
fn distinguished_name(name: &X509Name<'_>) -> Option<String> {
    let sets: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (index, set) in sets.iter().rev().enumerate() {
        let attributes: Vec<_> = set.iter().collect();
        for (inner, attribute) in attributes.iter().rev().enumerate() {
            if inner > 0 {
                text.push('+');
            } else if index > 0 {
                text.push(',');
            }
            push_attribute(&mut text, attribute);
            if text.len() > NAME_BYTES_MAX {
                return None;
            }
        }
    }
    Some(text)
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let value = attribute.attr_value();
    match short_name(attribute.attr_type()) {
        Some(name) => {
            text.push_str(name);
            text.push('=');
            match characters(value) {
                Some(characters) => push_escaped(text, &characters),
                None => push_der(text, value),
            }
        }
        None => {
            text.push_str(&attribute.attr_type().to_id_string());
            text.push('=');
            push_der(text, value);
        }
    }
}

/// OpenSSL's short names of what certificates name their holders by; others stand there as numbers, their values in
/// hexadecimal (RFC 4514 section 2.4).
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.17" => "postalCode",
        "2.5.4.20" => "telephoneNumber",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.45" => "x500UniqueIdentifier",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.65" => "pseudonym",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "1.2.840.113549.1.9.2" => "unstructuredName",
        "1.3.6.1.4.1.311.60.2.1.1" => "jurisdictionL",
        "1.3.6.1.4.1.311.60.2.1.2" => "jurisdictionST",
        "1.3.6.1.4.1.311.60.2.1.3" => "jurisdictionC",
        _ => return None,
    })
}

/// The text of a string type; `None` for anything else, and for what is not in the encoding it claims.
fn characters(value: &Any<'_>) -> Option<String> {
    let data = value.data;
    match value.tag() {
        Tag::Utf8String => std::str::from_utf8(data).ok().map(str::to_owned),
        // One byte a character; T.61 is taken for Latin-1, as everybody does.
        Tag::NumericString
        | Tag::PrintableString
        | Tag::T61String
        | Tag::Ia5String
        | Tag::VisibleString
        | Tag::UtcTime
        | Tag::GeneralizedTime => Some(data.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let (pairs, []) = data.as_chunks::<2>() else { return None };
            pairs.iter().map(|pair| char::from_u32(u16::from_be_bytes(*pair).into())).collect()
        }
        Tag::UniversalString => {
            let (fours, []) = data.as_chunks::<4>() else { return None };
            fours.iter().map(|four| char::from_u32(u32::from_be_bytes(*four))).collect()
        }
        _ => None,
    }
}

/// `characters` with what would read as structure behind a backslash, and everything but visible ASCII in hexadecimal.
fn push_escaped(text: &mut String, characters: &str) {
    let last = characters.len().saturating_sub(1);
    for (at, byte) in characters.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'#' if at == 0 => text.push_str("\\#"),
            b' ' if at == 0 || at == last => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                text.push_str(&hex(&[byte], true));
            }
        }
    }
}

/// The whole value in DER, after `#`.
fn push_der(text: &mut String, value: &Any<'_>) {
    use x509_parser::asn1_rs::ToDer;
    text.push('#');
    text.push_str(&hex(&value.to_der_vec().unwrap_or_default(), true));
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType, SerialNumber};

    use super::*;

    fn certificate(params: CertificateParams) -> ClientCert {
        let key = KeyPair::generate().unwrap();
        ClientCert::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    fn named(parts: &[(DnType, DnValue)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        certificate(params).subject.into()
    }

    fn text(value: &str) -> DnValue {
        DnValue::Utf8String(value.to_owned())
    }

    #[test]
    fn names_are_written_most_specific_first() {
        let name = named(&[
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, text("Acme, Inc.")),
            (DnType::OrganizationalUnitName, text("R&D")),
            (DnType::CommonName, text("Käthe")),
        ]);
        assert_eq!(name, "CN=K\\C3\\A4the,OU=R&D,O=Acme\\, Inc.,C=DE");
        assert_eq!(named(&[]), "");
    }

    /// Nothing in a value can look like the start of another attribute, or break out of a header or a log line.
    #[test]
    fn values_cannot_pretend() {
        for (value, written) in [
            ("a,CN=root", "a\\,CN=root"),
            ("a+b\"<>;\\", "a\\+b\\\"\\<\\>\\;\\\\"),
            ("#1 #", "\\#1 #"),
            (" a b ", "\\ a b\\ "),
            (" ", "\\ "),
            ("a\r\nX: y\0\u{7f}", "a\\0D\\0AX: y\\00\\7F"),
            ("", ""),
        ] {
            assert_eq!(named(&[(DnType::CommonName, text(value))]), format!("CN={written}"));
        }
        let other = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(named(&[(other, text("ab"))]), "1.2.3.4=#0C026162");
        let wide = DnValue::BmpString("ä€".try_into().unwrap());
        assert_eq!(named(&[(DnType::CommonName, wide)]), "CN=\\C3\\A4\\E2\\82\\AC");
    }

    #[test]
    fn the_rest_of_it() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
            SanType::DnsName("alice.example".try_into().unwrap()),
            SanType::URI("spiffe://example/alice".try_into().unwrap()),
            SanType::URI("spiffe://example/other".try_into().unwrap()),
            SanType::Rfc822Name("alice@example.com".try_into().unwrap()),
        ];
        params.serial_number = Some(SerialNumber::from(vec![0, 0x0a, 0xbc]));
        params.not_after = rcgen::date_time_ymd(2035, 1, 1);
        let alice = certificate(params.clone());
        assert_eq!(&*alice.serial, "0ABC");
        assert_eq!(alice.uri.as_deref(), Some("spiffe://example/alice"));
        assert_eq!(alice.dns.as_deref(), Some("alice.example"));
        assert_eq!(alice.email.as_deref(), Some("alice@example.com"));
        assert_eq!(alice.not_after, 2_051_222_400);
        assert_eq!((alice.sha256.len(), alice.sha1.len()), (64, 40));
        assert_eq!(alice.principal().unwrap(), "spiffe://example/alice", "without a subject");
        params.distinguished_name.push(DnType::CommonName, "alice");
        let alice = certificate(params);
        assert_eq!((alice.principal().unwrap().as_bytes(), &*alice.issuer), (&b"CN=alice"[..], "CN=alice"));
        let mut pretender = CertificateParams::default();
        pretender.distinguished_name = DistinguishedName::new();
        pretender.subject_alt_names = vec![
            SanType::URI("CN=root".try_into().unwrap()),
            SanType::Rfc822Name("eve@example.com".try_into().unwrap()),
        ];
        assert_eq!(certificate(pretender).principal().unwrap(), "eve@example.com");
        let mut nobody = CertificateParams::default();
        nobody.distinguished_name = DistinguishedName::new();
        assert!(certificate(nobody).principal().is_none());
        assert_eq!(serial(&[0, 0]), "00");
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        assert!(ClientCert::read(b"junk").is_none());
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "x".repeat(NAME_BYTES_MAX));
        let key = KeyPair::generate().unwrap();
        assert!(ClientCert::read(params.self_signed(&key).unwrap().der()).is_none());
    }
}
