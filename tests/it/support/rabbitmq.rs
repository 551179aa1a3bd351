//! Debian's rabbitmq-server, on free ports, with a node, a directory and a port mapper of its own. Ends with the value
//! that holds it. [`Amqp`](super::Amqp) is how tests talk to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// Longest a broker may take to start or to stop on a busy machine: an idle one takes five seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the package has its programs. Those of /usr/sbin want to be root, and become somebody else in /var/lib.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

/// A broker, with the account `guest`, password `guest`, in its virtual host `/`.
pub struct RabbitMq {
    directory: TempDir,
    ports: Ports,
    /// `None` while it is down.
    running: Option<Running>,
}

struct Running {
    /// Erlang's port mapper, without which no node starts. It leads the process group of all others.
    mapper: Child,
    broker: Child,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    mapper: u16,
    distribution: u16,
}

impl RabbitMq {
    /// Starts an empty one; it answers when this returns.
    pub async fn start() -> Self {
        // Blocking is fine: nothing else runs in the test yet.
        Self::begin(SETTINGS, "")
    }

    /// Starts one that has `queue`, also when it starts again: a broker that is killed soon after its first start can lose
    /// what was declared and confirmed (seen with RabbitMQ 3.10), and it lets publishers in only after this.
    pub async fn start_with_queue(queue: &str) -> Self {
        let settings = format!("{SETTINGS}load_definitions = definitions.json\n");
        Self::begin(&settings, &DEFINITIONS.replace("QUEUE", queue))
    }

    fn begin(settings: &str, definitions: &str) -> Self {
        let mut left = 3;
        loop {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("rabbitmq.conf"), settings).unwrap();
            std::fs::write(directory.path().join("definitions.json"), definitions).unwrap();
            std::fs::write(directory.path().join("plugins"), "[].\n").unwrap();
            let mut broker = Self { directory, ports: Ports::free(), running: None };
            left -= 1;
            match broker.go() {
                Ok(()) => return broker,
                // Ports are free until somebody else takes them.
                Err(error) if left > 0 => eprintln!("starting RabbitMQ once more: {error}"),
                Err(error) => panic!("RabbitMQ does not start: {error}\n{}", broker.log()),
            }
        }
    }

    /// Starts it once more after [`RabbitMq::kill`] or [`RabbitMq::stop`]: the same port, and what is durable is still
    /// there.
    pub async fn again(&mut self) {
        assert!(self.running.is_none(), "RabbitMQ runs");
        if let Err(error) = self.go() {
            panic!("RabbitMQ does not start again: {error}\n{}", self.log());
        }
    }

    /// Ends it at once, with all that belongs to it: connections break without a farewell.
    pub fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let _ = rustix::process::kill_process_group(running.group(), Signal::KILL);
        let _ = running.broker.wait();
        let _ = running.mapper.wait();
        self.sweep();
    }

    /// Ends it in an orderly way: it closes its connections, and says why (320 CONNECTION_FORCED).
    pub fn stop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = rustix::process::kill_process(Pid::from_child(&running.broker), Signal::TERM);
            let until = Instant::now() + PATIENCE;
            while running.broker.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
                pause();
            }
        }
        self.kill();
    }

    /// Lets it hang: connections stay open, and nothing answers until [`RabbitMq::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // On a busy machine some of its threads run on for a moment.
        let broker = self.running.as_ref().expect("RabbitMQ runs").broker.id();
        let until = Instant::now() + PATIENCE;
        while !stands(broker) && Instant::now() < until {
            pause();
        }
    }

    /// Lets it go on after [`RabbitMq::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// What `url` of a broker says.
    pub fn url(&self) -> String {
        self.url_as("guest", "guest", "/")
    }

    /// The same for another account and virtual host.
    pub fn url_as(&self, user: &str, password: &str, virtual_host: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/{}", self.ports.amqp, virtual_host.replace('/', "%2f"))
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports.amqp))
    }

    /// Runs `rabbitmqctl` on it. Takes a second or two.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = self.program(&format!("{PROGRAMS}/rabbitmqctl"));
        let output = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Its directory, which goes with it.
    pub fn home(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        format!("{}{}", read("output"), read("log/broker.log"))
    }

    fn go(&mut self) -> Result<(), String> {
        let mapper = self
            .program("epmd")
            .args(["-port", &self.ports.mapper.to_string(), "-address", "127.0.0.1"])
            .process_group(0)
            .spawn()
            .expect("epmd is needed: ./test installs it with rabbitmq-server");
        let group = i32::try_from(mapper.id()).unwrap();
        let output = self.directory.path().join("output");
        let output = std::fs::OpenOptions::new().create(true).append(true).open(output).unwrap();
        let broker = self
            .program(&format!("{PROGRAMS}/rabbitmq-server"))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .process_group(group)
            .spawn()
            .expect("rabbitmq-server is needed: ./test installs it");
        self.running = Some(Running { mapper, broker });
        let until = Instant::now() + PATIENCE;
        while !answers(self.address()) {
            let ended = self.running.as_mut().and_then(|running| running.broker.try_wait().unwrap());
            if ended.is_some() || Instant::now() > until {
                return Err(format!("it ended: {ended:?}"));
            }
            pause();
        }
        Ok(())
    }

    /// A program of RabbitMQ's or Erlang's that knows this node and nothing of the machine's.
    fn program(&self, name: &str) -> Command {
        let here = self.directory.path();
        let mut command = Command::new(name);
        command.current_dir(here).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The home directory has the cookie by which programs of one node know each other.
        command.env("HOME", here).env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP", "/dev/null");
        command.env("ERL_EPMD_PORT", self.ports.mapper.to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODENAME", "edgeward@localhost").env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string());
        command.env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string());
        // The broker takes the place of the script that starts it, as it does for systemd: signals reach it.
        command.env("RUNNING_UNDER_SYSTEMD", "true");
        // Two schedulers, which sleep when there is nothing to do.
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +A 2 +sbwt none");
        for (variable, name) in [
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "plugins"),
            // Neither exists: what is in /etc is for the machine's own broker.
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_CONF_ENV_FILE", "environment"),
        ] {
            command.env(variable, here.join(name));
        }
        command
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("RabbitMQ runs");
        let _ = rustix::process::kill_process_group(running.group(), signal);
    }

    /// Waits until its helpers are gone, too: they have process groups of their own, and end when their pipe does.
    fn sweep(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = running_in(self.directory.path());
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for process in left {
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
            pause();
        }
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        let ran = self.running.is_some();
        self.kill();
        if ran && std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            eprintln!("--- RabbitMQ (its last lines)\n{}\n---", last.join("\n"));
        }
    }
}

impl Running {
    fn group(&self) -> Pid {
        Pid::from_child(&self.mapper)
    }
}

impl Ports {
    fn free() -> Self {
        // All at once, so that they differ; released for the broker to take.
        let [amqp, mapper, distribution] = [(); 3]
            .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
            .map(|it| it.local_addr().unwrap().port());
        Self { amqp, mapper, distribution }
    }
}

/// Not the machine's log, and no alarm over a disk or a memory that others fill: it would stop publishers.
const SETTINGS: &str = "\
loopback_users.guest = true
log.file = broker.log
log.file.level = info
log.console = false
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.9
";

/// What a broker has from its start. Whoever names anything names all: there is no account but these.
const DEFINITIONS: &str = r#"{
    "users": [{ "name": "guest", "password": "guest", "tags": "administrator" }],
    "vhosts": [{ "name": "/" }],
    "permissions": [{ "user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }],
    "queues": [{ "name": "QUEUE", "vhost": "/", "durable": true, "auto_delete": false, "arguments": {} }]
}"#;

/// Whether a broker answers the header of the protocol: a port that accepts is not enough.
fn answers(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<()> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_millis(500))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.write_all(b"AMQP\0\0\x09\x01")?;
        // A frame of kind 1: the start of the handshake.
        let mut first = [0];
        socket.read_exact(&mut first)?;
        if first == [1] { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
    };
    ask().is_ok()
}

/// Who runs in `directory` or below it.
pub(super) fn running_in(directory: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let here = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|place| place.starts_with(directory))
    };
    let pid = |process: PathBuf| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?);
    processes.map(|entry| entry.path()).filter(here).filter_map(pid).collect()
}

/// Whether all threads of a process are stopped.
fn stands(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.map(|thread| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default()).all(
        |stat| {
            // The state follows the name, which may hold anything.
            stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
        },
    )
}

/// Between two looks at a process.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}
