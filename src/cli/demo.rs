//! `edgeward demo`: the gateway and the sample services it fronts, in one process, with a tour.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};

use super::run::Prepared;
use super::{OK, PROBLEMS, fail};
use crate::app::Server;
use crate::base::decode::Surroundings;
use crate::base::service::Switch;
use crate::base::{clock, out};
use crate::config;
use crate::config::snapshot::{BindAddress, Snapshot};
use crate::demo::tour::{self, Places};
use crate::demo::{Kind, Sample, Switches};
use crate::identity::password::{Cost, hash};
use crate::store::{Store, StoreUrl, User};

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
    if let Err(error) = add_users(&home.private) {
        return fail(&format!("cannot make the demo's users: {error}"));
    }
    let (config, built_in) = (home.config.clone(), home.text.clone());
    let private = home.private.display().to_string();
    let exchange = ports.exchanged;
    // Edited where there is a checkout, so that a reload has something to do.
    let read = move || {
        let text = fs::read_to_string(&config).unwrap_or_else(|_| built_in.clone());
        let env = |name: &str| match name {
            PRIVATE => Some(private.clone()),
            _ => std::env::var(name).ok(),
        };
        let surroundings = Surroundings { env: &env, ..config::surroundings() };
        config::load_text(&config, &exchange_ports(&text, exchange), surroundings)
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
        let (switches, turns): (Vec<_>, Vec<_>) = samples.iter().map(|_| Switch::new()).unzip();
        let names = samples.iter().map(|(.., name)| *name);
        let switches = Switches::new(names.zip(switches));
        for ((address, kind, name), turns) in samples.into_iter().zip(turns) {
            let sample = Sample::new(kind, name).among(switches.clone());
            server.beside(name, address, Arc::new(sample), turns)?;
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
    /// Where the store and the signing key are: a directory of our own, which goes with us.
    private: PathBuf,
}

impl Home {
    fn find(given: Option<&Path>) -> io::Result<Self> {
        let config = given.unwrap_or(Path::new(CONFIG));
        let root = std::env::temp_dir().join(format!("edgeward-demo-{}", std::process::id()));
        // Not `create_dir_all`: what is there already may be another's.
        fs::DirBuilder::new().mode(0o700).create(&root)?;
        let mut home = Self { config: config.to_owned(), text: String::new(), private: root.clone() };
        if given.is_some() || config.exists() {
            home.text = fs::read_to_string(config)?;
            return Ok(home);
        }
        (home.config, home.text) = (root.join(CONFIG), CONFIG_TEXT.to_owned());
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
        if let Err(error) = fs::remove_dir_all(&self.private) {
            out::complain(&format!("edgeward: cannot remove {}: {error}\n", self.private.display()));
        }
    }
}

/// The variable of the configuration that names [`Home::private`].
const PRIVATE: &str = "EDGEWARD_DEMO";

/// Who can log in, and as what.
const USERS: [(&str, &str); 2] = [("ada", "analyst"), ("jonas", "customer")];

/// Makes the store with its users.
fn add_users(private: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let store = Store::new(StoreUrl::Sqlite(private.join("demo.db")));
        for (name, role) in USERS {
            let password = hash(&tour::password_of(name), Cost::default());
            let user = User {
                name: name.to_owned(),
                password: password.map_err(|error| error.to_string())?,
                roles: vec![role.to_owned()],
                disabled: false,
            };
            store.add_user(&user, clock::unix_now()).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    })
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
        assert!(home.config.exists() && home.authority().exists());
        let private = home.private.clone();
        add_users(&private).unwrap();
        assert!(private.join("demo.db").exists());
        drop(home);
        assert!(!private.exists());
    }
}
