//! Certificates of clients, and the sessions that stand for them.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer};
use rustls::SupportedProtocolVersion;

use super::*;
use crate::config::process::ClientAuthSettings;

/// An authority for clients.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Puts `{name}.pem`.
    fn new(files: &Files, name: &str) -> Self {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        files.put(&format!("{name}.pem"), params.self_signed(&key).unwrap().pem());
        Self(Issuer::new(params, key))
    }

    /// A certificate for the client `name`, valid from 2025 to the end of that year.
    fn client(&self, name: &str, until: i32) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = date_time_ymd(until, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

/// A listener with the certificate `a`, which asks clients for certificates of `ca`.
fn asking(files: &Files, ca: &str, required: bool) -> ListenerSettings {
    let mut listener = listener([(files.path("a.pem"), files.path("a-key.pem"))], true);
    let ca = At::new(files.path(ca), Origin::CommandLine("ca"));
    listener.client_auth = Some(ClientAuthSettings { ca, required });
    listener
}

/// A client that trusts `root`, speaks `version` alone and shows `identity`.
fn visitor(
    root: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    store.add(root.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(store);
    let mut config = match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[test]
fn who_shows_a_certificate_is_known() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    let (ours, strangers) = (Authority::new(&files, "ours"), Authority::new(&files, "strangers"));
    for version in VERSIONS {
        for required in [false, true] {
            let (tls, out) = serve(&asking(&files, "ours.pem", required), &Sessions::default());
            assert!(out.is_empty(), "{out:?}");
            let tls = tls.unwrap();
            let arrives = |identity| {
                let (_, server) = meet(&tls, &visitor(&root, version, identity), "a.example")?;
                let cert = tls.client_cert(&server)?;
                Ok::<_, rustls::Error>(cert.map(|cert| cert.subject.to_string()))
            };
            assert_eq!(arrives(Some(ours.client("alice", 2050))).unwrap().as_deref(), Some("CN=alice"));
            assert!(arrives(Some(strangers.client("alice", 2050))).is_err(), "of a stranger's authority");
            assert!(arrives(Some(ours.client("alice", 2025))).is_err(), "expired");
            match arrives(None) {
                Ok(cert) => assert!(!required && cert.is_none()),
                Err(error) => assert!(required, "{error}"),
            }
        }
    }
}

/// Sessions outlive a configuration, at the listener and with the certificates they were made at.
#[test]
fn sessions_resume_where_they_were_made_and_nowhere_else() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    for version in VERSIONS {
        let sessions = Sessions::default();
        let first = listener([(files.path("a.pem"), files.path("a-key.pem"))], true);
        let before = serve(&first, &sessions).0.unwrap();
        let client = visitor(&root, version, None);
        let kind = |tls: &Served| meet(tls, &client, "a.example").unwrap().1.handshake_kind().unwrap();
        assert_eq!(kind(&before), HandshakeKind::Full);
        assert_eq!(kind(&before), HandshakeKind::Resumed);
        // A reload: compiled anew, and then the first is let go.
        let after = serve(&first, &sessions).0.unwrap();
        drop(before);
        assert_eq!(kind(&after), HandshakeKind::Resumed, "through a reload");
        let mut other = first.clone();
        other.name = "other".to_owned();
        let other = serve(&other, &sessions).0.unwrap();
        assert_eq!(kind(&other), HandshakeKind::Full);
        assert_eq!(kind(&other), HandshakeKind::Resumed, "its own");
    }
}

/// A session would be taken back whatever became of the certificate meanwhile, and with none, for one without.
#[test]
fn nothing_resumes_where_certificates_are_asked_for() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    let ours = Authority::new(&files, "ours");
    for version in VERSIONS {
        for identity in [None, Some(ours.client("alice", 2050))] {
            let tls = serve(&asking(&files, "ours.pem", false), &Sessions::default()).0.unwrap();
            let client = visitor(&root, version, identity);
            for _ in 0..3 {
                let (_, server) = meet(&tls, &client, "a.example").unwrap();
                assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
            }
        }
    }
}

#[test]
fn a_renewed_certificate_ends_old_sessions() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    let (listener, sessions) =
        (listener([(files.path("a.pem"), files.path("a-key.pem"))], true), Sessions::default());
    let before = serve(&listener, &sessions).0.unwrap();
    let renewed = files.pair("a", &["a.example"]);
    let after = serve(&listener, &sessions).0.unwrap();
    let client = Arc::new(client(&[root, renewed]));
    assert_eq!(handshake(&before, &client, "a.example").unwrap().handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(handshake(&after, &client, "a.example").unwrap().handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(
        handshake(&after, &client, "a.example").unwrap().handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
}

#[test]
fn authorities_that_cannot_be_used_are_named() {
    let files = Files::new();
    files.pair("a", &["a.example"]);
    files.put("empty.pem", "");
    files.put("junk.pem", pem("CERTIFICATE", b"junk"));
    files.put("cut.pem", &fs::read(files.path("a.pem")).unwrap()[..200]);
    files.put("a.der", CertificateDer::from_pem_file(files.path("a.pem")).unwrap());
    files.put("many.pem", fs::read_to_string(files.path("a.pem")).unwrap().repeat(1025));
    for (ca, code, message, hint) in [
        ("none.pem", "tls-unreadable", "none.pem cannot be read: it does not exist", "relative"),
        ("empty.pem", "tls-no-certificate", "empty.pem has no certificate in it", "PEM file"),
        ("a-key.pem", "tls-no-certificate", "a-key.pem has no certificate in it", "private key"),
        ("a.der", "tls-no-certificate", "a.der has no certificate in it", "x509 -inform der"),
        ("cut.pem", "tls-no-certificate", "cut.pem has a certificate that is cut off or damaged", ""),
        (
            "junk.pem",
            "tls-unusable-certificate",
            "junk.pem has a certificate that cannot be used",
            "version 3",
        ),
        ("many.pem", "tls-no-certificate", "many.pem has more than 1024 certificates", ""),
    ] {
        let (tls, out) = serve(&asking(&files, ca, false), &Sessions::default());
        assert!(tls.is_none(), "{ca}");
        let told: Vec<_> = out.iter().collect();
        assert_eq!(told.len(), 1, "{told:?}");
        let dir = format!("{}/", files.dir.path().display());
        assert_eq!((told[0].code, told[0].message.replace(&dir, "").as_str()), (code, message));
        assert_eq!(told[0].origin, Origin::CommandLine("ca"));
        assert!(told[0].hint.as_deref().unwrap_or_default().contains(hint), "{told:?}");
    }
}

/// The names of many authorities do not fit into what asks for a certificate; then any is asked for.
#[test]
fn many_authorities_are_no_trouble() {
    let files = Files::new();
    let root = files.pair("a", &["a.example"]);
    let all: Vec<_> =
        (0..300).map(|number| Authority::new(&files, &format!("authority-{number:0>100}"))).collect();
    let text: String = (0..300)
        .map(|number| fs::read_to_string(files.path(&format!("authority-{number:0>100}.pem"))).unwrap())
        .collect();
    files.put("all.pem", text);
    let tls = serve(&asking(&files, "all.pem", true), &Sessions::default()).0.unwrap();
    for version in VERSIONS {
        let client = visitor(&root, version, Some(all[299].client("alice", 2050)));
        let (_, server) = meet(&tls, &client, "a.example").unwrap();
        assert!(tls.client_cert(&server).unwrap().is_some());
    }
}
