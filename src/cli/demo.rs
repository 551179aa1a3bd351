//! `edgeward demo`: the gateway and the sample services it fronts, in one process, with a tour.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::run::Prepared;
use super::{OK, PROBLEMS, fail};
use crate::app::Server;
use crate::base::out;
use crate::config;
use crate::config::snapshot::{BindAddress, Snapshot};
use crate::demo::tour::{self, Places};
use crate::demo::{Kind, Sample};

/// The configuration where there is a checkout, to be edited and tried; elsewhere the same text.
const CONFIG: &str = "conf/demo.toml";
const CONFIG_TEXT: &str = include_str!("../../conf/demo.toml");
const CERTS: [(&str, &str); 3] = [
    ("localhost.pem", include_str!("../../certs/localhost.pem")),
    ("localhost-key.pem", include_str!("../../certs/localhost-key.pem")),
    ("ca.pem", include_str!("../../certs/ca.pem")),
];

/// All ports of the configuration, which `--free-ports` exchanges.
const PORTS: [u16; 8] = [8080, 8443, 9901, 7001, 7002, 7003, 7004, 7005];

/// Which sample answers as which server of which upstream of `conf/demo.toml`.
const SAMPLES: [(&str, usize, Kind, &str); 5] = [
    ("users", 0, Kind::Users, "users-1"),
    ("users", 1, Kind::Users, "users-2"),
    ("products", 0, Kind::Products, "products-1"),
    ("orders", 0, Kind::Orders, "orders-1"),
    ("payments", 0, Kind::Payments, "payments-1"),
];

/// Runs the demo until it is interrupted. `config` replaces the built-in configuration; with `free_ports` the system
/// chooses the ports.
pub(super) fn run(config: Option<&Path>, free_ports: bool) -> u8 {
    let home = match Home::find(config) {
        Ok(home) => home,
        Err(error) => return fail(&format!("cannot use the demo's files: {error}")),
    };
    let ports = match if free_ports { Ports::free() } else { Ok(Ports::default()) } {
        Ok(ports) => ports,
        Err(error) => return fail(&format!("there are no free ports: {error}")),
    };
    let (config, built_in) = (home.config.clone(), home.text.clone());
    let exchange = ports.exchanged;
    // Edited where there is a checkout, so that a reload has something to do.
    let read = move || {
        let text = fs::read_to_string(&config).unwrap_or_else(|_| built_in.clone());
        config::load_text(&config, &exchange_ports(&text, exchange), config::surroundings())
    };
    let prepared = match Prepared::load(Arc::new(read), out::complaints_are_read()) {
        Ok(prepared) => prepared,
        Err(why) => {
            out::complain(&why);
            return PROBLEMS;
        }
    };
    let snapshot = prepared.snapshot.clone();
    let Some(samples) = samples(&snapshot) else {
        return fail("the demo's configuration does not have the servers that the sample services answer as");
    };
    let places = places(&snapshot, &samples, home.authority());
    let beside = |server: &mut Server| {
        for (address, kind, name) in samples {
            server.beside(name, address, Arc::new(Sample::new(kind, name)))?;
        }
        Ok(())
    };
    let alone = Err("the demo's sample services live in this process: stop it and start it again");
    let status = prepared.serve(alone, None, beside, |announcement| match places {
        Some(places) => format!("{announcement}{}", tour::text(&places)),
        None => announcement.to_owned(),
    });
    if status != OK && !free_ports {
        out::complain("  hint: `edgeward demo --free-ports` lets the system choose the ports\n");
    }
    status
}

/// The demo's configuration, and where its certificates are.
struct Home {
    config: PathBuf,
    text: String,
    /// Where there is no checkout: a directory of our own, which goes with us.
    temporary: Option<PathBuf>,
}

impl Home {
    fn find(given: Option<&Path>) -> io::Result<Self> {
        let config = given.unwrap_or(Path::new(CONFIG));
        if given.is_some() || config.exists() {
            return Ok(Self {
                text: fs::read_to_string(config)?,
                config: config.to_owned(),
                temporary: None,
            });
        }
        let root = std::env::temp_dir().join(format!("edgeward-demo-{}", std::process::id()));
        // Not `create_dir_all`: what is there already may be another's.
        fs::create_dir(&root)?;
        let home =
            Self { config: root.join(CONFIG), text: CONFIG_TEXT.to_owned(), temporary: Some(root.clone()) };
        fs::create_dir(root.join("conf"))?;
        fs::create_dir(root.join("certs"))?;
        for (name, text) in CERTS {
            fs::write(root.join("certs").join(name), text)?;
        }
        Ok(home)
    }

    /// The authority of the development certificate, for curl.
    fn authority(&self) -> PathBuf {
        let authority = self.config.parent().unwrap_or(Path::new(".")).join("../certs/ca.pem");
        fs::canonicalize(&authority).unwrap_or(authority)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(root) = &self.temporary
            && let Err(error) = fs::remove_dir_all(root)
        {
            out::complain(&format!("edgeward: cannot remove {}: {error}\n", root.display()));
        }
    }
}

/// What stands in place of [`PORTS`].
struct Ports {
    exchanged: [u16; 8],
    /// Keep free ports ours until we listen there: bound, not listening, their addresses shared.
    _held: Vec<Socket>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { exchanged: PORTS, _held: Vec::new() }
    }
}

impl Ports {
    fn free() -> io::Result<Self> {
        let (mut exchanged, mut held) = (PORTS, Vec::new());
        for port in &mut exchanged {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            *port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
            held.push(socket);
        }
        Ok(Self { exchanged, _held: held })
    }
}

fn exchange_ports(config: &str, exchanged: [u16; 8]) -> String {
    PORTS.into_iter().zip(exchanged).fold(config.to_owned(), |text, (old, new)| {
        text.replace(&format!("\"127.0.0.1:{old}\""), &format!("\"127.0.0.1:{new}\""))
    })
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
        authority,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_the_configuration_can_be_exchanged() {
        let text = exchange_ports(CONFIG_TEXT, [11, 12, 13, 14, 15, 16, 17, 18]);
        for port in 11..=18 {
            assert_eq!(text.matches(&format!("\"127.0.0.1:{port}\"")).count(), 1, "{port}");
        }
        for port in PORTS {
            assert!(!text.contains(&format!("\"127.0.0.1:{port}\"")), "{port}");
        }
    }

    /// Without a checkout the demo runs as well, and leaves nothing behind.
    #[test]
    fn its_files_go_with_it() {
        let home = Home::find(None).unwrap();
        // The tests themselves run in a checkout.
        assert!(home.temporary.is_none() && home.config.exists() && home.authority().exists());
        let root = tempfile::tempdir().unwrap().keep();
        let config = root.join("demo.toml");
        drop(Home { config, text: String::new(), temporary: Some(root.clone()) });
        assert!(!root.exists());
    }
}
