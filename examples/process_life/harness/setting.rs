//! One configuration after the other: each changes something else, and none what the clients of a run ask for.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::gateway::Reserved;
use super::origin::Origin;
use super::wire::Target;

/// Everything that configurations name.
pub struct Places {
    pub plain: Reserved,
    pub secure: Reserved,
    pub extra: Reserved,
    pub admin: Reserved,
    pub first: Origin,
    pub second: Origin,
    pub certificates: Certificates,
}

impl Places {
    pub async fn new() -> io::Result<Self> {
        Ok(Self {
            plain: Reserved::new()?,
            secure: Reserved::new()?,
            extra: Reserved::new()?,
            admin: Reserved::new()?,
            first: Origin::start().await?,
            second: Origin::start().await?,
            certificates: Certificates::new().map_err(io::Error::other)?,
        })
    }

    pub fn target(&self) -> Target {
        let roots = self.certificates.roots.clone();
        Target { plain: self.plain.address, secure: self.secure.address, roots }
    }
}

/// Two certificates for `localhost`, and who trusts them.
pub struct Certificates {
    roots: Arc<RootCertStore>,
    files: Vec<(&'static str, String)>,
}

impl Certificates {
    fn new() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let own = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(own.as_bytes())?)?;
        let mut files = Vec::new();
        for (cert_file, key_file) in [("odd.pem", "odd-key.pem"), ("even.pem", "even-key.pem")] {
            let key = KeyPair::generate()?;
            let cert = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, &issuer)?;
            files.push((cert_file, cert.pem()));
            files.push((key_file, key.serialize_pem()));
        }
        Ok(Self { roots: Arc::new(roots), files })
    }

    /// Names and contents.
    pub fn files(&self) -> Vec<(&str, &str)> {
        self.files.iter().map(|(name, text)| (*name, text.as_str())).collect()
    }
}

/// What one configuration says.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Counts configurations; `/generation` answers with it.
    pub number: u64,
    /// Whether there is a third listener: only an upgrade can change that.
    pub extra: bool,
    pub grace_period: Duration,
}

impl Setting {
    /// The configuration's text.
    pub fn text(self, places: &Places) -> String {
        let mut text = self.process(places);
        text.push_str(&self.upstreams(places.first.address, places.second.address));
        for path in ["/get/*", "/post", "/upload", "/events/*", "/socket"] {
            writeln!(text, "[[routes]]\npath = \"{path}\"\nupstream = \"main\"").unwrap();
            // Long enough for the slowest upload; short enough that a lost answer is told as one.
            if path == "/upload" {
                writeln!(text, "timeout = \"{}s\"", 60 + self.number % 3).unwrap();
            }
        }
        writeln!(
            text,
            "[[routes]]\npath = \"/generation\"\nrespond = {{ status = 200, text = \"{}\" }}",
            self.number
        )
        .unwrap();
        for index in 0..(self.number * 7) % 40 {
            let target = if index % 2 == 0 { "upstream = \"main\"" } else { "respond = { status = 404 }" };
            writeln!(text, "[[routes]]\npath = \"/extra/{index}/*\"\n{target}").unwrap();
        }
        text
    }

    fn process(self, places: &Places) -> String {
        let number = self.number;
        let grace = self.grace_period.as_millis();
        let (plain, secure, admin) = (places.plain.address, places.secure.address, places.admin.address);
        let pair = if number.is_multiple_of(2) { "even" } else { "odd" };
        let (level, output, format) = match number % 4 {
            0 => ("info", "access.log", "combined"),
            1 => ("debug", "access.log", "json"),
            2 => ("info", "off", "combined"),
            _ => ("warn", "access-2.log", "$remote_addr \\\"$request\\\" $status"),
        };
        let extra = match self.extra {
            true => format!("[[listeners]]\nname = \"extra\"\naddress = \"{}\"\n", places.extra.address),
            false => String::new(),
        };
        format!(
            "[server]\npid_file = \"edgeward.pid\"\ncontrol_socket = \"run/control.sock\"\n\
             grace_period = \"{grace}ms\"\n\
             [limits]\nbody_bytes = \"{}MiB\"\nconnections = {}\nheader_timeout = \"{}s\"\n\
             [admin]\naddress = \"{admin}\"\n\
             [log]\nlevel = \"{level}\"\n[log.access]\noutput = \"{output}\"\nformat = \"{format}\"\n\
             [[listeners]]\nname = \"plain\"\naddress = \"{plain}\"\n{extra}\
             [[listeners]]\nname = \"secure\"\naddress = \"{secure}\"\n\
             [[listeners.certificates]]\ncert = \"{pair}.pem\"\nkey = \"{pair}-key.pem\"\n",
            10 + number % 5,
            10_000 + number % 7,
            10 + number % 3,
        )
    }

    fn upstreams(self, first: SocketAddr, second: SocketAddr) -> String {
        let servers = match self.number % 5 {
            0 => format!("\"{first}\""),
            1 => format!("\"{first}\", \"{second}\""),
            2 => format!("{{ address = \"{first}\", weight = 3 }}, \"{second}\""),
            3 => format!("\"{second}\""),
            // A name, resolved in the background. Beside the server that the others name: the name's addresses may not
            // be there yet when the first request comes.
            _ => format!("\"{first}\", \"localhost:{}\"", second.port()),
        };
        let mut text = format!("[upstreams.main]\nservers = [{servers}]\n");
        if self.number % 3 == 1 {
            text.push_str("balance = \"least_connections\"\n");
        }
        if self.number % 3 == 2 {
            text.push_str("[upstreams.main.health_check]\npath = \"/get/health\"\ninterval = \"200ms\"\n");
        }
        if self.number % 4 == 3 {
            text.push_str("[upstreams.main.circuit_breaker]\nfailures = 5\n");
        }
        text
    }
}
