//! The one place for edits of forwarded heads: hop-by-hop fields, `Host`, forwarding headers, `Via`, `X-Request-Id`.
//!
//! Pingora keeps a second map with the spelling of names, and panics when the two differ. So edits either go through its
//! methods, or take the head apart and put it together again without that map.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::authority::raw_target_authority;
use smallvec::SmallVec;

mod enveloped;
mod identity;
pub mod policies;
pub mod rules;

pub use self::enveloped::{enveloped, weaken};
use self::identity::alike;
pub use self::identity::{Credentials, Identity};
use super::client::Client;
use super::names::{
    TRACEPARENT, TRACESTATE, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO,
    X_REAL_IP, X_REQUEST_ID, is_forwarding, is_identity,
};
use super::received::Marks;
use crate::base::peer::{PeerValues, address_value};
use crate::base::wire::octets::is_token;

/// What a forwarded request tells every server about where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Forwarding<'a> {
    /// The connection it came on.
    pub peer: &'a PeerValues,
    /// Who sent it.
    pub client: &'a Client,
    /// The version the client spoke.
    pub version: Version,
    /// Whether its stream ended with the head: over HTTP/2 nothing in the head says that.
    pub ends_with_head: bool,
    /// Its identifier.
    pub request_id: &'a [u8],
    /// Whether there is a `traceparent`, and a valid one (W3C Trace Context section 3.2); otherwise it is removed.
    pub trace_valid: bool,
    /// Which kinds of fields the head has: what is not there is not looked for.
    pub marks: Marks,
    /// Who it is from.
    pub identity: Identity<'a>,
    /// What the client showed for that, and services do not get.
    pub credentials: Credentials<'a>,
    /// The answer is going to be read here: it has to come whole, and not compressed.
    pub reads_answer: bool,
}

/// Makes a client's head what every server gets: to be called once a request, when it is settled that it is forwarded,
/// or else once on each attempt's copy. What depends on the server is left to [`attempt`].
///
/// Lets go of the spelling of names, which HTTP compares without case: every copy of the head, one for each attempt,
/// costs half as much from then on.
///
/// What Pingora takes out of a copy because `Connection` names it cannot be what is added here: a `Connection` that
/// names any of that is refused before (`ingress::head`), and HTTP/2 has none. But for the identity, whose header has a
/// name of the operator's: [`attempt`] adds it again.
///
/// # Errors
/// If a value cannot stand in a header, or there are more headers than the map holds: neither can happen to a head that
/// passed the scanner.
pub fn request(head: &mut RequestHeader, forwarding: &Forwarding<'_>) -> Result<()> {
    let asked = asked_host(head);
    with_parts(head, |parts| request_fields(&mut parts.headers, asked.as_ref(), forwarding))
}

/// The same for the fields alone of a request for the host `asked`.
pub fn request_fields(headers: &mut HeaderMap, asked: Option<&HeaderValue>, forwarding: &Forwarding<'_>) {
    let Forwarding { client, marks, .. } = *forwarding;
    headers.reserve(ADDED_TO_REQUEST);
    if marks.framing {
        spell_framing(headers);
    }
    if marks.expect && is_bodiless(headers, forwarding) {
        // Who has no body must not expect to be asked for it (RFC 9110 section 10.1.1).
        headers.remove(header::EXPECT);
    }
    if marks.forwarding && !client.peer_trusted {
        remove(headers, &claims(headers));
    }
    if marks.identity {
        remove(headers, &identities(headers));
    }
    if marks.trace && !forwarding.trace_valid {
        // Whoever reads a broken one next would have to start a new trace, too.
        remove(headers, &[TRACEPARENT, TRACESTATE]);
    }
    set_forwarding(headers, forwarding, asked);
    if let Ok(id) = HeaderValue::from_bytes(forwarding.request_id) {
        set(headers, X_REQUEST_ID, id, !marks.request_id);
    }
    forwarding.credentials.remove(headers);
    remove(headers, &alike(headers, forwarding.identity.names));
    for (name, value) in forwarding.identity.told() {
        headers.append(name, value.clone());
    }
    headers.append(header::VIA, via(forwarding.version));
    if forwarding.reads_answer {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        remove(headers, &[header::RANGE, header::IF_RANGE]);
    }
}

/// Gives a length or a coding, which is right, its plainest form: not every server takes `Chunked` for `chunked`, and some
/// take 010 for eight.
fn spell_framing(headers: &mut HeaderMap) {
    if headers.get(header::TRANSFER_ENCODING).is_some_and(|coding| coding != "chunked") {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let padded = headers.get(header::CONTENT_LENGTH).filter(|length| length.as_bytes().starts_with(b"0"));
    if let Some(length) = padded.and_then(|length| length.to_str().ok()?.parse::<u64>().ok()) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Whether these fields of HTTP/1 announce no body.
fn is_bodiless(headers: &HeaderMap, forwarding: &Forwarding<'_>) -> bool {
    match headers.get(header::CONTENT_LENGTH) {
        Some(length) => length.as_bytes() == b"0",
        None if forwarding.version == Version::HTTP_2 => forwarding.ends_with_head,
        None => !headers.contains_key(header::TRANSFER_ENCODING),
    }
}

/// Fields that [`request`] adds to a common one.
const ADDED_TO_REQUEST: usize = 8;

/// How one attempt's head goes to its server.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The version the client spoke. The head to be edited has the server's.
    pub version: Version,
    /// Whether it is a valid WebSocket handshake: see [`crate::ingress::head::Head::upgrade`].
    pub upgrade: bool,
    /// The `Host` to send; `None` = the client's.
    pub host: Option<&'a HeaderValue>,
    /// The server's own address: the `Host` of a request that came without one, as HTTP/1.0 allows and no later
    /// version does.
    pub server: &'a str,
    /// Whether the client takes trailers: it said `TE: trailers`.
    pub takes_trailers: bool,
    /// Which kinds of fields the client's head had.
    pub marks: Marks,
    /// Who it is from: [`request`] has said so, and here it is said again to a head whose `Connection` named it.
    pub identity: Identity<'a>,
}

/// Makes the head of one attempt: to be called once on each copy of the client's, after Pingora's own clean-up and
/// before the target is changed, as the host may stand only there.
///
/// Pingora removes hop-by-hop fields on most ways, but not from HTTP/2 to HTTP/2, and it takes any `Upgrade: websocket`
/// for a handshake. Here all of them are looked for on every way, if the client sent any. Most requests need nothing.
///
/// # Errors
/// As [`request`].
pub fn attempt(head: &mut RequestHeader, way: &Way<'_>) -> Result<()> {
    let (from_h2, to_h2) = (way.version == Version::HTTP_2, head.version == Version::HTTP_2);
    let common = !way.marks.hop && !way.upgrade && way.marks.host && way.host.is_none();
    if common && !from_h2 && !to_h2 {
        return Ok(());
    }
    let asked = asked_host(head);
    with_parts(head, |parts| attempt_fields(&mut parts.headers, asked, to_h2, way))
}

/// The same for the fields alone of a request for the host `asked`, on its way to a server of HTTP/2 or another one.
pub fn attempt_fields(headers: &mut HeaderMap, asked: Option<HeaderValue>, to_h2: bool, way: &Way<'_>) {
    let from_h2 = way.version == Version::HTTP_2;
    remove(headers, &hop_by_hop(headers));
    remove(headers, &unwanted_in_request(headers, from_h2 && to_h2));
    if way.upgrade && !to_h2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    match (from_h2, to_h2) {
        (true, false) => join_cookies(headers),
        // gRPC servers ask for it. Pingora takes it off on some ways; trailers pass between HTTP/2 only.
        (true, true) if way.takes_trailers => {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        _ => {}
    }
    match (way.host, asked) {
        (Some(host), _) => drop(headers.insert(header::HOST, host.clone())),
        // It stands in the target only, which is going to be reduced to a path.
        (None, Some(host)) if !headers.contains_key(header::HOST) => drop(headers.insert(header::HOST, host)),
        (None, None) => {
            let server = if way.server.starts_with("unix:") { "localhost" } else { way.server };
            if let Ok(host) = HeaderValue::from_str(server) {
                headers.insert(header::HOST, host);
            }
        }
        _ => {}
    }
    for (name, value) in way.identity.told() {
        headers.insert(name, value.clone());
    }
}

/// Edits the parts of a head below Pingora's methods, which keep a second map with the spelling of each name and cost a
/// thousand instructions a field. The head comes out without that map; its target stays as it is.
fn with_parts(head: &mut RequestHeader, edit: impl FnOnce(&mut http::request::Parts)) -> Result<()> {
    let from_uri = head.uri.path_and_query().is_some_and(|path| path.as_str().as_bytes() == head.raw_path());
    let target = (!from_uri).then(|| head.raw_path().to_vec());
    let end_stream = head.send_end_stream();
    let empty = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = http::request::Parts::from(std::mem::replace(head, empty));
    edit(&mut parts);
    *head = RequestHeader::from(parts);
    if let Some(end_stream) = end_stream {
        head.set_send_end_stream(end_stream);
    }
    match target {
        Some(target) if !target.is_empty() => head.set_raw_path(&target),
        _ => Ok(()),
    }
}

/// Sets `name`, of which there is none if `absent`: then there is no need to look for it.
fn set(headers: &mut HeaderMap, name: HeaderName, value: HeaderValue, absent: bool) {
    if absent {
        headers.append(name, value);
    } else {
        headers.insert(name, value);
    }
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// Makes the head of a server's answer the client's, which speaks `version`.
///
/// `Transfer-Encoding` stays: Pingora frames the body by it. `Server` and `Date` are the server's business.
///
/// # Errors
/// As [`request`].
pub fn response(head: &mut ResponseHeader, version: Version, request_id: &[u8]) -> Result<()> {
    let upgraded = head.status == StatusCode::SWITCHING_PROTOCOLS;
    // 426 is nothing without the protocol that the server wants instead (RFC 9110 section 15.5.22).
    let offer = (head.status == StatusCode::UPGRADE_REQUIRED && version != Version::HTTP_2)
        .then(|| head.headers.get(header::UPGRADE).cloned())
        .flatten();
    let received = head.version;
    let own_phrase =
        head.get_reason_phrase().filter(|phrase| Some(*phrase) != head.status.canonical_reason());
    let own_phrase = own_phrase.map(str::to_owned);
    let empty = ResponseHeader::from(http::Response::new(()).into_parts().0);
    // As for requests: see `with_parts`.
    let mut parts = http::response::Parts::from(std::mem::replace(head, empty));
    let headers = &mut parts.headers;
    let mut unwanted = unwanted_in_response(headers, version);
    if received == Version::HTTP_2 {
        // The library takes a quote for a part of a name; HTTP/1 does not.
        unwanted.extend(headers.keys().filter(|name| !is_token(name.as_str().as_bytes())).cloned());
    }
    headers.reserve(ADDED_TO_RESPONSE);
    if !unwanted.is_empty() {
        // First what `Connection` names, while it is still there.
        remove(headers, &hop_by_hop(headers));
        remove(headers, &unwanted);
    }
    if upgraded {
        // No body follows (RFC 9110 section 8.6).
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    } else if let Some(offer) = offer {
        headers.insert(header::UPGRADE, offer);
    }
    spell_framing(headers);
    headers.append(header::VIA, via(received));
    if let Ok(id) = HeaderValue::from_bytes(request_id) {
        headers.insert(X_REQUEST_ID, id);
    }
    *head = ResponseHeader::from(parts);
    match own_phrase {
        Some(phrase) => head.set_reason_phrase(Some(&phrase)),
        None => Ok(()),
    }
}

/// Takes out of an interim answer what is for the hop it came on alone.
pub fn interim(head: &mut ResponseHeader) {
    // No trailers follow it, whatever it says.
    let unwanted = unwanted_in_response(&head.headers, Version::HTTP_11);
    if unwanted.is_empty() {
        return;
    }
    let named = hop_by_hop(&head.headers);
    for name in named.iter().chain(&unwanted) {
        head.remove_header(name);
    }
}

/// Fields that [`response`] and Pingora after it add to a common one.
const ADDED_TO_RESPONSE: usize = 4;

/// Takes `Transfer-Encoding` off an answer to a client that knows no chunks (HTTP/1.0).
pub fn unchunk(head: &mut ResponseHeader) {
    head.remove_header(&header::TRANSFER_ENCODING);
}

/// Has an answer whose end the server tells by closing its connection end by chunks, so that the client's stays open; and
/// takes off a bodiless answer what would announce a body (RFC 9110 section 8.6, RFC 9112 section 6.1).
///
/// # Errors
/// As [`request`].
pub fn frame(head: &mut ResponseHeader, framing: AnswerFraming) -> Result<()> {
    match framing {
        AnswerFraming::Chunks => {
            head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
        }
        AnswerFraming::NoContent => {
            head.remove_header(&header::TRANSFER_ENCODING);
            head.remove_header(&header::CONTENT_LENGTH);
            Ok(())
        }
        AnswerFraming::Length(length) => {
            head.remove_header(&header::TRANSFER_ENCODING);
            head.insert_header(header::CONTENT_LENGTH, length)
        }
    }
}

/// How [`frame`] is to have an answer framed.
#[derive(Debug, Clone, Copy)]
pub enum AnswerFraming {
    /// By chunks.
    Chunks,
    /// It is interim or a 204, which have no body.
    NoContent,
    /// By its length.
    Length(usize),
}

/// Completes the head of an answer that the gateway makes itself. If it `says_its_type`, no browser is to guess another; of a
/// file it is only a guess by its name.
///
/// # Errors
/// As [`request`].
pub fn local_response(head: &mut ResponseHeader, request_id: &[u8], says_its_type: bool) -> Result<()> {
    if says_its_type && !head.headers.contains_key(header::X_CONTENT_TYPE_OPTIONS) {
        head.insert_header(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))?;
    }
    head.insert_header("X-Request-Id", request_id)
}

/// Adds the listener's `Strict-Transport-Security` to any answer, unless who made it knows better (RFC 6797 section 7.1).
///
/// # Errors
/// As [`request`].
pub fn strict_transport(head: &mut ResponseHeader, value: &HeaderValue) -> Result<()> {
    if head.headers.contains_key(header::STRICT_TRANSPORT_SECURITY) {
        return Ok(());
    }
    head.insert_header(header::STRICT_TRANSPORT_SECURITY, value.clone())
}

/// Takes `Expect` out of an HTTP/1.0 request, where it must be ignored (RFC 9110 section 10.1.1).
pub fn ignore_expectation(head: &mut RequestHeader) {
    head.remove_header(&header::EXPECT);
}

/// Takes `Upgrade` out of a request that is no valid WebSocket handshake: to be called before Pingora looks at the head,
/// as it treats the body of everything with an `Upgrade` as a tunnel.
pub fn ignore_upgrade(head: &mut RequestHeader) {
    head.remove_header(&header::UPGRADE);
}

/// Has a request ask for `host`.
pub fn host(headers: &mut HeaderMap, host: &HeaderValue) {
    headers.insert(header::HOST, host.clone());
}

type Names = SmallVec<[HeaderName; 8]>;

/// What `Connection` names, to be removed before anything is inserted (RFC 9110 section 7.6.1); usually nothing.
fn hop_by_hop(headers: &HeaderMap) -> Names {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .take(CONNECTION_OPTIONS_MAX)
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        // Naming these would take away the framing, or the answer's meaning; requests that do are refused before.
        .filter(|name| !PROTECTED.contains(name) && headers.contains_key(name))
        .collect()
}

/// Options of `Connection` heeded. Requests are held to fewer by the scanner; no server sends so many.
const CONNECTION_OPTIONS_MAX: usize = 16;

const PROTECTED: &[HeaderName] = &[
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::TRANSFER_ENCODING,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::CACHE_CONTROL,
    header::VARY,
    header::LOCATION,
];

/// What a client says about where its request comes from.
fn claims(headers: &HeaderMap) -> Names {
    headers.keys().filter(|name| is_forwarding(name.as_str())).cloned().collect()
}

/// What a client says about who it is.
fn identities(headers: &HeaderMap) -> Names {
    headers.keys().filter(|name| is_identity(name.as_str())).cloned().collect()
}

/// What must not reach the server: fields for this hop alone.
fn unwanted_in_request(headers: &HeaderMap, h2_to_h2: bool) -> Names {
    let unwanted = |name: &&HeaderName| match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "upgrade"
        | "http2-settings"
        | "te" => true,
        // Pingora has taken it off where it must be made anew; between HTTP/2 it cannot be.
        "transfer-encoding" => h2_to_h2,
        // Trailers pass between HTTP/2 only.
        "trailer" => !h2_to_h2,
        _ => false,
    };
    headers.keys().filter(unwanted).cloned().collect()
}

/// Whether this `TE` says `trailers`, the only thing that may stand there in HTTP/2 (RFC 9113 section 8.2.2).
pub fn is_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"trailers")
}

/// What must not reach the client: fields for the hop between gateway and server.
fn unwanted_in_response(headers: &HeaderMap, version: Version) -> Names {
    let unwanted = |name: &&HeaderName| match name.as_str().as_bytes() {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"proxy-authenticate" | b"upgrade" | b"te" => {
            true
        }
        b"trailer" => version != Version::HTTP_2,
        _ => false,
    };
    headers.keys().filter(unwanted).cloned().collect()
}

/// Whether there is more than one `Cookie`, which [`attempt_fields`] joins for HTTP/1.
pub fn needs_joining(headers: &HeaderMap) -> bool {
    headers.get_all(header::COOKIE).iter().nth(1).is_some()
}

/// HTTP/2 may split `Cookie`; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The host the client asked for: `Host`, the authority of an HTTP/2 request, or that of an absolute HTTP/1.0 target.
fn asked_host(head: &RequestHeader) -> Option<HeaderValue> {
    if let Some(host) = head.headers.get(header::HOST) {
        return (!host.is_empty()).then(|| host.clone());
    }
    let authority = match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => raw_target_authority(head.raw_path()).authority()?,
    };
    HeaderValue::from_bytes(authority).ok()
}

/// `X-Forwarded-*`, `X-Real-IP`, and `Forwarded` if a trusted proxy uses it.
fn set_forwarding(headers: &mut HeaderMap, forwarding: &Forwarding<'_>, host: Option<&HeaderValue>) {
    let Forwarding { peer, client, .. } = *forwarding;
    // A stranger's have been removed.
    let absent = !forwarding.marks.forwarding || !client.peer_trusted;
    let real = if client.address == peer.ip { peer.address.clone() } else { address_value(client.address) };
    set(headers, X_REAL_IP, real, absent);
    set(headers, X_FORWARDED_PROTO, HeaderValue::from_static(scheme(client.https)), absent);
    if let Some(host) = client.host.as_ref().or(host) {
        set(headers, X_FORWARDED_HOST, host.clone(), absent);
    }
    match forwarded_port(forwarding) {
        Some(port) => set(headers, X_FORWARDED_PORT, port, absent),
        None => drop(headers.remove(&X_FORWARDED_PORT)),
    }
    if absent {
        headers.append(X_FORWARDED_FOR, peer.address.clone());
        return;
    }
    let chain = append_entry(headers, &X_FORWARDED_FOR, peer.address.as_bytes());
    headers.insert(X_FORWARDED_FOR, chain.unwrap_or_else(|| peer.address.clone()));
    if headers.contains_key(header::FORWARDED) {
        let element = forwarded_element(peer, host);
        if let Some(chain) = append_entry(headers, &header::FORWARDED, &element) {
            headers.insert(header::FORWARDED, chain);
        }
    }
}

/// The port the client connected to: as a trusted proxy says, else the usual one if it changed the scheme, else ours.
fn forwarded_port(forwarding: &Forwarding<'_>) -> Option<HeaderValue> {
    let Forwarding { peer, client, .. } = *forwarding;
    match client.port {
        Some(port) => Some(HeaderValue::from(port)),
        None if client.https != peer.https => {
            Some(HeaderValue::from_static(if client.https { "443" } else { "80" }))
        }
        None => peer.local_port.clone(),
    }
}

/// All lines of `name` and `entry` as one list; `None` if there are none.
fn append_entry(headers: &HeaderMap, name: &HeaderName, entry: &[u8]) -> Option<HeaderValue> {
    let mut list: SmallVec<[u8; 256]> = SmallVec::new();
    for line in headers.get_all(name) {
        if !line.is_empty() {
            list.extend_from_slice(line.as_bytes());
            list.extend_from_slice(b", ");
        }
    }
    if list.is_empty() {
        return None;
    }
    list.extend_from_slice(entry);
    HeaderValue::from_bytes(&list).ok()
}

/// What `Forwarded` says about this hop (RFC 7239 section 4): the connection it came on, not what others said before.
fn forwarded_element(peer: &PeerValues, host: Option<&HeaderValue>) -> SmallVec<[u8; 128]> {
    let mut element = SmallVec::new();
    let (open, close): (&[u8], &[u8]) = if peer.ip.is_ipv6() { (b"for=\"[", b"]\"") } else { (b"for=", b"") };
    for part in [open, peer.address.as_bytes(), close, b";proto=", scheme(peer.https).as_bytes()] {
        element.extend_from_slice(part);
    }
    if let Some(host) = host {
        // Always quoted: a port's colon is no token character. The scanner let no quote or backslash into a host.
        for part in [b";host=\"".as_slice(), host.as_bytes(), b"\""] {
            element.extend_from_slice(part);
        }
    }
    element.extend_from_slice(b";by=_edgeward");
    element
}

fn scheme(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

/// The `Via` of a message received in `version` (RFC 9110 section 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 edgeward",
        Version::HTTP_2 => "2 edgeward",
        _ => "1.1 edgeward",
    })
}

#[cfg(test)]
mod tests;
