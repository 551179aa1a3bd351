mod clients;

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection,
};
use tempfile::TempDir;

use super::*;
use crate::base::diagnostic::Severity;
use crate::base::origin::{At, Origin};
use crate::config::settings::BindAddress;

/// A directory of certificates, and the moment at which they are looked at: 2026-01-01.
struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn put(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// Puts `{name}.pem` with a self-signed certificate for `hosts` and `{name}-key.pem`; gives the certificate.
    fn pair(&self, name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        self.pair_of(name, &KeyPair::generate().unwrap(), params(hosts))
    }

    fn pair_of(&self, name: &str, key: &KeyPair, params: CertificateParams) -> CertificateDer<'static> {
        let certificate = params.self_signed(key).unwrap();
        self.put(&format!("{name}.pem"), certificate.pem());
        self.put(&format!("{name}-key.pem"), key.serialize_pem());
        certificate.der().clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn compile(&self, pairs: &[(&str, &str)]) -> (Option<Served>, Diagnostics) {
        let pairs = pairs.iter().map(|(cert, key)| (self.path(cert), self.path(key)));
        serve(&listener(pairs, true), &Sessions::default())
    }

    /// The one problem of these pairs, the directory taken out of its texts.
    #[track_caller]
    fn problem(&self, pairs: &[(&str, &str)]) -> Told {
        let (tls, out) = self.compile(pairs);
        let all: Vec<_> = out.iter().collect();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(tls.is_none(), all[0].severity == Severity::Error);
        let dir = format!("{}/", self.dir.path().display());
        Told {
            code: all[0].code,
            origin: all[0].origin.clone(),
            message: all[0].message.replace(&dir, ""),
            hint: all[0].hint.clone().unwrap_or_default(),
        }
    }
}

/// What a listener is served with.
#[derive(Debug)]
struct Served {
    tls: ListenerTls,
    certificates: Vec<CertificateFacts>,
}

impl Deref for Served {
    type Target = ListenerTls;

    fn deref(&self) -> &ListenerTls {
        &self.tls
    }
}

fn serve(listener: &ListenerSettings, sessions: &Sessions) -> (Option<Served>, Diagnostics) {
    let mut out = Diagnostics::default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let compiled = compile(listener, "listeners[0]", sessions, now, &mut out);
    (compiled.map(|(tls, certificates)| Served { tls, certificates }), out)
}

/// A listener with these certificate and key files. Origins tell the two apart.
fn listener(pairs: impl IntoIterator<Item = (PathBuf, PathBuf)>, http2: bool) -> ListenerSettings {
    let certificates = pairs
        .into_iter()
        .map(|(cert, key)| CertificateFiles {
            cert: At::new(cert, Origin::CommandLine("cert")),
            key: At::new(key, Origin::CommandLine("key")),
        })
        .collect();
    ListenerSettings {
        name: "public".to_owned(),
        address: BindAddress::Tcp("127.0.0.1:0".parse().unwrap()),
        http2,
        proxy_protocol: false,
        certificates,
        client_auth: None,
        hsts: None,
        redirect_https: None,
        origin: Origin::Default,
    }
}

struct Told {
    code: &'static str,
    origin: Origin,
    message: String,
    hint: String,
}

impl Told {
    #[track_caller]
    fn says(&self, code: &str, side: &'static str, message: &str, hint: &str) {
        assert_eq!((self.code, self.message.as_str()), (code, message));
        assert_eq!(self.origin, Origin::CommandLine(side));
        assert!(self.hint.contains(hint) && self.hint.is_empty() == hint.is_empty(), "{}", self.hint);
    }
}

fn params(hosts: &[&str]) -> CertificateParams {
    let mut params =
        CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2035, 1, 1);
    params
}

/// A client that trusts `roots`.
fn client(roots: &[CertificateDer<'static>]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

fn handshake(
    server: &ListenerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<ClientConnection, rustls::Error> {
    meet(server, client, name).map(|(client, _)| client)
}

/// A finished handshake for `name`, and an exchange of bytes after it, as tickets come with those.
fn meet(
    server: &ListenerTls,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name)?;
    let mut server = ServerConnection::new(server.config.clone())?;
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok((client, server))
}

/// Exact names win, then wildcards for one label, then the first certificate.
#[test]
fn the_name_decides() {
    let files = Files::new();
    let first = files.pair("first", &["fallback.example"]);
    let exact = files.pair("exact", &["Shop.Example", "api.shop.example"]);
    let wild = files.pair("wild", &["*.shop.example"]);
    let (tls, out) = files.compile(&[
        ("first.pem", "first-key.pem"),
        ("exact.pem", "exact-key.pem"),
        ("wild.pem", "wild-key.pem"),
    ]);
    let tls = tls.unwrap();
    assert!(out.is_empty(), "{out:?}");
    assert_eq!(tls.certificates[1].names, ["api.shop.example", "shop.example"]);
    assert_eq!(tls.certificates[0].not_after, 2_051_222_400);
    let client = Arc::new(client(&[first.clone(), exact.clone(), wild.clone()]));
    for (name, expected) in [
        ("shop.example", &exact),
        ("SHOP.example", &exact),
        ("api.shop.example", &exact),
        ("www.shop.example", &wild),
        ("fallback.example", &first),
    ] {
        let connection = handshake(&tls, &client, name).unwrap();
        assert_eq!(&connection.peer_certificates().unwrap()[0], expected, "{name}");
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    // The default is served, and the client finds that it is for another name.
    for name in ["a.b.shop.example", "other.example", "192.0.2.1"] {
        assert!(
            matches!(handshake(&tls, &client, name), Err(rustls::Error::InvalidCertificate(_))),
            "{name}"
        );
    }
}

#[test]
fn a_second_visit_resumes() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    let tls = files.compile(&[("a.pem", "a-key.pem")]).0.unwrap();
    let client = Arc::new(client(&[root]));
    assert_eq!(handshake(&tls, &client, "a.example").unwrap().handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(handshake(&tls, &client, "a.example").unwrap().handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn http2_is_offered_only_if_wanted() {
    let files = Files::new();
    files.pair("a", &["a.example"]);
    let listener = listener([(files.path("a.pem"), files.path("a-key.pem"))], false);
    let tls = serve(&listener, &Sessions::default()).0.unwrap();
    assert_eq!(tls.config.alpn_protocols, [b"http/1.1".to_vec()]);
}

#[test]
fn the_development_certificates_are_fine() {
    let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("certs").join(name);
    let listener = listener([(file("localhost.pem"), file("localhost-key.pem"))], true);
    let (tls, out) = serve(&listener, &Sessions::default());
    let tls = tls.unwrap();
    assert!(out.is_empty(), "{out:?}");
    assert_eq!(tls.certificates[0].names, ["*.localhost", "localhost"]);
}

/// All three ways to write a private key in PEM, and the kinds of keys in use.
#[test]
fn keys_of_all_kinds() {
    let files = Files::new();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        files.pair_of("a", &key, params(&["a.example"]));
        let (tls, out) = files.compile(&[("a.pem", "a-key.pem")]);
        assert!(tls.is_some() && out.is_empty(), "{out:?}");
        // The older forms are what stands inside of PKCS#8.
        let der = key.serialize_der();
        let (label, inner) = if algorithm == &rcgen::PKCS_RSA_SHA256 {
            (
                "RSA PRIVATE KEY",
                der.windows(6).position(|at| at[..2] == [4, 0x82] && at[4..] == [0x30, 0x82]).unwrap() + 4,
            )
        } else if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
            (
                "EC PRIVATE KEY",
                der.windows(4).position(|at| at[0] == 4 && at[2] == 0x30 && at[1] == at[3] + 2).unwrap() + 2,
            )
        } else {
            continue;
        };
        files.put("a-key.pem", pem(label, &der[inner..]));
        let (tls, out) = files.compile(&[("a.pem", "a-key.pem")]);
        assert!(tls.is_some() && out.is_empty(), "{label} {out:?}");
    }
}

/// `der` in PEM.
fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, three) in der.chunks(3).enumerate() {
        let bits = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = char::from(DIGITS[bits >> (18 - 6 * place) & 63]);
            text.push(if place > three.len() { '=' } else { digit });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn every_mistake_is_named() {
    let files = Files::new();
    files.pair("a", &["a.example"]);
    files.pair("b", &["b.example"]);
    files.put("empty.pem", "");
    files.put("text.pem", "hello");
    files.put("big.pem", vec![b'x'; 1 << 20 | 1]);
    files.put("cut.pem", &fs::read(files.path("a.pem")).unwrap()[..200]);
    files.put("cut-key.pem", &fs::read(files.path("a-key.pem")).unwrap()[..100]);
    files.put("junk.pem", pem("CERTIFICATE", b"junk"));
    files.put("junk-key.pem", pem("PRIVATE KEY", b"junk"));
    files.put("locked-key.pem", pem("ENCRYPTED PRIVATE KEY", b"junk"));
    files.put("public.pem", KeyPair::generate().unwrap().public_key_pem());
    files.put("a.der", CertificateDer::from_pem_file(files.path("a.pem")).unwrap());
    let (a, b) = (fs::read(files.path("a.pem")).unwrap(), fs::read(files.path("b.pem")).unwrap());
    files.put("turned.pem", [a, b].concat());

    let told = |cert, key| files.problem(&[(cert, key)]);
    told("none.pem", "a-key.pem").says(
        "tls-unreadable",
        "cert",
        "none.pem cannot be read: it does not exist",
        "relative",
    );
    told("a.pem", "none.pem").says(
        "tls-unreadable",
        "key",
        "none.pem cannot be read: it does not exist",
        "relative",
    );
    told(".", "a-key.pem").says("tls-unreadable", "cert", ". cannot be read: it is a directory", "");
    told("big.pem", "a-key.pem").says("tls-unreadable", "cert", "big.pem is larger than 1 MiB", "");
    told("empty.pem", "a-key.pem").says(
        "tls-no-certificate",
        "cert",
        "empty.pem has no certificate in it",
        "PEM file",
    );
    told("a-key.pem", "a-key.pem").says(
        "tls-no-certificate",
        "cert",
        "a-key.pem has no certificate in it",
        "swapped",
    );
    told("a.der", "a-key.pem").says(
        "tls-no-certificate",
        "cert",
        "a.der has no certificate in it",
        "x509 -inform der",
    );
    told("cut.pem", "a-key.pem").says(
        "tls-no-certificate",
        "cert",
        "cut.pem has a certificate that is cut off or damaged",
        "",
    );
    told("junk.pem", "a-key.pem").says(
        "tls-unusable-certificate",
        "cert",
        "junk.pem has a certificate that cannot be used",
        "version 3",
    );
    told("a.pem", "text.pem").says("tls-no-key", "key", "text.pem has no private key in it", "PEM file");
    told("a.pem", "a.pem").says("tls-no-key", "key", "a.pem has no private key in it", "swapped");
    told("a.pem", "public.pem").says(
        "tls-no-key",
        "key",
        "public.pem has no private key in it",
        "public key",
    );
    told("a.pem", "locked-key.pem").says(
        "tls-no-key",
        "key",
        "locked-key.pem has no private key in it",
        "passphrase",
    );
    told("a.pem", "cut-key.pem").says(
        "tls-no-key",
        "key",
        "cut-key.pem has a private key that is cut off or damaged",
        "",
    );
    told("a.pem", "junk-key.pem").says(
        "tls-unusable-key",
        "key",
        "junk-key.pem has a key that cannot be used",
        "2048",
    );
    told("a.pem", "b-key.pem").says(
        "tls-key-mismatch",
        "key",
        "the key in b-key.pem is not the key of the certificate in a.pem",
        "same request",
    );
    told("turned.pem", "b-key.pem").says(
        "tls-key-mismatch",
        "key",
        "the key in b-key.pem is not the key of the certificate in turned.pem",
        "must come first",
    );
}

/// Both files are looked at, so that two mistakes take one run to find.
#[test]
fn both_files_are_judged_at_once() {
    let files = Files::new();
    files.put("empty.pem", "");
    let (tls, out) = files.compile(&[("empty.pem", "empty.pem"), ("none.pem", "none.pem")]);
    assert!(tls.is_none());
    let codes: Vec<_> = out.iter().map(|problem| problem.code).collect();
    assert_eq!(codes, ["tls-no-certificate", "tls-no-key", "tls-unreadable", "tls-unreadable"]);
    assert!(files.compile(&[]).0.is_none());
}

#[test]
fn what_clients_will_not_like_is_warned_of() {
    let files = Files::new();
    let made = |change: fn(&mut CertificateParams)| {
        let mut params = params(&["a.example"]);
        change(&mut params);
        files.pair_of("a", &KeyPair::generate().unwrap(), params);
        files.problem(&[("a.pem", "a-key.pem")])
    };
    made(|params| params.not_after = date_time_ymd(2025, 7, 1)).says(
        "tls-expired",
        "cert",
        "the certificate in a.pem expired on 2025-07-01",
        "renewed",
    );
    made(|params| params.not_before = date_time_ymd(2026, 7, 1)).says(
        "tls-not-yet-valid",
        "cert",
        "the certificate in a.pem is not valid before 2026-07-01",
        "clock",
    );
    made(|params| params.subject_alt_names.clear()).says(
        "tls-no-names",
        "cert",
        "the certificate in a.pem names no host",
        "alternative name",
    );
}

#[test]
fn names_from_everywhere() {
    let files = Files::new();
    // Only addresses: right as the default.
    files.pair("ip", &["192.0.2.1"]);
    assert!(files.compile(&[("ip.pem", "ip-key.pem")]).1.is_empty());
    // Only a common name, as in certificates that machines give each other.
    let mut old = params(&[]);
    old.distinguished_name.push(DnType::CommonName, "Old.Example");
    files.pair_of("old", &KeyPair::generate().unwrap(), old);
    let (tls, out) = files.compile(&[("old.pem", "old-key.pem")]);
    assert!(out.is_empty());
    assert_eq!(tls.unwrap().certificates[0].names, ["old.example"]);
    // The common name is nothing beside a proper name.
    let mut new = params(&["new.example"]);
    new.distinguished_name.push(DnType::CommonName, "old.example");
    files.pair_of("new", &KeyPair::generate().unwrap(), new);
    assert_eq!(
        files.compile(&[("new.pem", "new-key.pem")]).0.unwrap().certificates[0].names,
        ["new.example"]
    );
}

/// RSA for old clients beside ECDSA for the others is no mistake; two of one kind are.
#[test]
fn the_same_name_twice() {
    let files = Files::new();
    files.pair("a", &["a.example", "b.example"]);
    files.pair_of("rsa", &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(), params(&["a.example"]));
    let (tls, out) = files.compile(&[("a.pem", "a-key.pem"), ("rsa.pem", "rsa-key.pem")]);
    assert!(tls.is_some() && out.is_empty(), "{out:?}");
    files.pair("again", &["b.example"]);
    let (tls, out) = files.compile(&[("a.pem", "a-key.pem"), ("again.pem", "again-key.pem")]);
    assert_eq!(tls.unwrap().certificates.len(), 2);
    let all: Vec<_> = out.iter().collect();
    assert_eq!((all.len(), all[0].code), (1, "tls-duplicate-name"));
    assert!(all[0].message.starts_with("\"b.example\" of ") && all[0].message.contains("again.pem"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However a file is damaged, in its text or in what the text stands for, it is refused or works: nothing panics.
    #[test]
    fn damaged_files_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(), in_der in any::<bool>(), in_key in any::<bool>(),
    ) {
        use std::sync::LazyLock;
        static PAIR: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
            let key = KeyPair::generate().unwrap();
            let certificate = params(&["a.example", "*.b.example", "192.0.2.1"]).self_signed(&key).unwrap();
            (certificate.der().to_vec(), key.serialize_der())
        });
        let mut parts = [PAIR.0.clone(), PAIR.1.clone()];
        let hurt = |bytes: &mut Vec<u8>| {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        };
        let which = usize::from(in_key);
        if in_der {
            hurt(&mut parts[which]);
        }
        let mut texts = [pem("CERTIFICATE", &parts[0]).into_bytes(), pem("PRIVATE KEY", &parts[1]).into_bytes()];
        if !in_der {
            hurt(&mut texts[which]);
        }
        let file = Path::new("x.pem");
        if let (Ok(chain), Ok(key)) = (pair::parse_chain(file, &texts[0]), pair::parse_key(file, &texts[1])) {
            let _outcome = pair::join(file, chain, file, key, &aws_lc_rs::default_provider());
        }
    }
}

/// Keys are compared with the certificate's, so this must hold for any key the provider loads.
#[test]
fn a_loaded_key_knows_its_public_half() {
    let key = KeyPair::generate().unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let loaded = aws_lc_rs::default_provider().key_provider.load_private_key(der).unwrap();
    assert!(loaded.public_key().is_some());
}
