//! `edgeward demo`: the gateway and the sample services it fronts, in one process, with a tour.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::run::Prepared;
use super::{PROBLEMS, fail};
use crate::app::Server;
use crate::config::snapshot::{BindAddress, Snapshot};
use crate::demo::tour::{self, Places};
use crate::demo::{Kind, Sample};

/// The configuration where there is a checkout; without one the same text, written to a directory of its own.
const CONFIG: &str = "conf/demo.toml";
const CONFIG_TEXT: &str = include_str!("../../conf/demo.toml");
const CERTS: [(&str, &str); 3] = [
    ("localhost.pem", include_str!("../../certs/localhost.pem")),
    ("localhost-key.pem", include_str!("../../certs/localhost-key.pem")),
    ("ca.pem", include_str!("../../certs/ca.pem")),
];

/// Which sample answers as which server of which upstream of `conf/demo.toml`.
const SAMPLES: [(&str, usize, Kind, &str); 5] = [
    ("users", 0, Kind::Users, "users-1"),
    ("users", 1, Kind::Users, "users-2"),
    ("products", 0, Kind::Products, "products-1"),
    ("orders", 0, Kind::Orders, "orders-1"),
    ("payments", 0, Kind::Payments, "payments-1"),
];

/// Runs the demo until it is interrupted. `config` replaces the built-in configuration.
pub(super) fn run(config: Option<&Path>) -> u8 {
    let file = match config.map(Path::to_owned).map_or_else(unpack, Ok) {
        Ok(file) => file,
        Err(error) => return fail(&format!("cannot write the demo's files: {error}")),
    };
    let Some(prepared) = Prepared::load(&file) else { return PROBLEMS };
    let snapshot = prepared.snapshot.clone();
    let Some(samples) = samples(&snapshot) else {
        return fail("the demo's configuration does not have the servers that the sample services answer as");
    };
    let authority = file.parent().unwrap_or(Path::new(".")).join("../certs/ca.pem");
    let places = places(&snapshot, &samples, authority);
    let beside = |server: &mut Server| {
        for (address, kind, name) in samples {
            server.beside(name, address, Arc::new(Sample::new(kind, name)))?;
        }
        Ok(())
    };
    prepared.serve_and_say(beside, |announcement| match places {
        Some(places) => format!("{announcement}{}", tour::text(&places)),
        None => announcement.to_owned(),
    })
}

/// The configuration file: the checkout's, or a copy below the system's temporary directory.
fn unpack() -> io::Result<PathBuf> {
    if Path::new(CONFIG).exists() {
        return Ok(PathBuf::from(CONFIG));
    }
    let root = std::env::temp_dir().join(format!("edgeward-demo-{}", rustix::process::geteuid().as_raw()));
    for directory in ["conf", "certs"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join(CONFIG), CONFIG_TEXT)?;
    for (name, text) in CERTS {
        fs::write(root.join("certs").join(name), text)?;
    }
    Ok(root.join(CONFIG))
}

type Samples = Vec<(SocketAddr, Kind, &'static str)>;

/// Where each sample has to listen.
fn samples(snapshot: &Snapshot) -> Option<Samples> {
    SAMPLES
        .iter()
        .map(|(upstream, index, kind, name)| {
            let servers = snapshot.upstreams.get(*upstream)?.servers();
            let address = servers.get(*index)?.address().parse().ok()?;
            Some((address, *kind, *name))
        })
        .collect()
}

fn places(snapshot: &Snapshot, samples: &Samples, authority: PathBuf) -> Option<Places> {
    let listener = |tls: bool| {
        snapshot.listeners.iter().find_map(|listener| match listener.address {
            BindAddress::Tcp(address) if listener.tls.is_some() == tls => Some(address),
            _ => None,
        })
    };
    let sample =
        |wanted: &str| samples.iter().find(|(_, _, name)| *name == wanted).map(|(address, ..)| *address);
    Some(Places {
        gateway: listener(false)?,
        secure: listener(true)?,
        admin: snapshot.admin.as_ref()?.address,
        users: sample("users-1")?,
        orders: sample("orders-1")?,
        payments: sample("payments-1")?,
        authority: fs::canonicalize(&authority).unwrap_or(authority),
    })
}
