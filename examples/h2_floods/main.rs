//! What floods of HTTP/2 cost a gateway, and those who ask beside them, for `load-tests/h2-floods`.
//!
//! `h2_floods EDGEWARD [PART OF A NAME]`: runs that binary before a service of its own, all floods or those. `h2_floods PEER
//! PROGRAM [PART OF A NAME]` runs another proxy in its place, of which nothing is demanded. For each flood it measures, alone:
//! how many of 2,000 writes the client made before it read the end, the gateway's processor time, and how far its memory rose;
//! then, with the flood begun again whenever it is ended, the time of an innocent client's answers. That is set beside its time
//! alone, and beside as many writes of the same to a process that only reads: what a flood's client takes of processors that it
//! shares is not the gateway's doing. It stays on the last processor, or it would take that from all; of each time it is the
//! median of rounds.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a load test ends where something is not as it must be, and prints; it is no part of the gateway"
)]
#![allow(dead_code, unreachable_pub, reason = "shared with the tests")]

mod bytes;
mod floods;
mod peers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use bytes::{
    DATA, END_STREAM, GET, GOAWAY, HEADERS, INITIAL_WINDOW, PREFACE, RST_STREAM, headers, settings,
    window_update,
};
use floods::{Flood, WRITES};

/// Processor seconds and bytes that a flood may take.
const CPU_MAX: f64 = 0.2;
const MEMORY_MAX: u64 = 8 << 20;
/// How long the innocent client asks in a round, and how many rounds there are, with a flood and without.
const ASKED: Duration = Duration::from_millis(500);
const ROUNDS: usize = 5;
/// Requests that an honest client has open at once.
const AT_ONCE: usize = 100;
/// Below this the machine's own noise is larger than what is measured.
const FLOOR: Duration = Duration::from_millis(2);
/// Bytes of the large answer: more than the floods that ask for it have room for, and no more, since the service's own effort
/// is not what is measured.
const LARGE_BYTES: usize = 256 << 10;
/// How long the end of a flood is waited for.
const LONG: Duration = Duration::from_secs(10);
/// The same where the end is not promised.
const PATIENCE: Duration = Duration::from_millis(200);

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    if arguments.next_if_eq("sink").is_some() {
        return sink();
    }
    let sink = Sink::start();
    let binary = arguments.next().expect("the binary, or the name of a peer");
    let peer = peers::NAMES.contains(&binary.as_str());
    let gateway = if peer {
        Gateway::peer(&binary, &arguments.next().expect("its program"))
    } else {
        Gateway::start(&binary)
    };
    let only = arguments.next();
    let alone = asked(gateway.address, ROUNDS);
    println!("innocent client alone: p50 {:.2} ms, p99 {:.2} ms", ms(alone.0), ms(alone.1));
    let upload = floods::harmless();
    let beside = asked_beside(&gateway, || _ = run(&gateway, &upload));
    println!("beside an upload in 2,000 pieces: p50 {:.2} ms, p99 {:.2} ms", ms(beside.0), ms(beside.1));
    let asking = asked_beside(&gateway, || ask(gateway.address));
    println!(
        "beside 2,000 requests, {AT_ONCE} at once: p50 {:.2} ms, p99 {:.2} ms",
        ms(asking.0),
        ms(asking.1)
    );
    let loading = asked_beside(&gateway, || load(gateway.address));
    println!(
        "beside {AT_ONCE} large answers at once: p50 {:.2} ms, p99 {:.2} ms\n",
        ms(loading.0),
        ms(loading.1)
    );
    println!("| flood | ended with | writes | CPU | memory | innocent p50 | p99 | p99 without us |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut failed = Vec::new();
    for flood in floods::all() {
        if only.as_ref().is_some_and(|only| !flood.name.contains(only.as_str())) {
            continue;
        }
        let cost = gateway.cost_of(&flood);
        let with = asked_beside(&gateway, || _ = run(&gateway, &flood));
        let without = asked_beside(&gateway, || sink.run(&flood, cost.writes));
        println!(
            "| {} | {} | {} | {:.3} s | {:.1} MiB | {:.2} ms | {:.2} ms | {:.2} ms |",
            flood.name,
            cost.code.map_or_else(|| "nothing".to_owned(), |code| code.to_string()),
            cost.writes,
            cost.cpu,
            cost.memory as f64 / f64::from(1 << 20),
            ms(with.0),
            ms(with.1),
            ms(without.1),
        );
        let is_ended = cost.code.is_some_and(|code| flood.ends.contains(&code));
        let is_cheap = cost.cpu <= CPU_MAX && cost.memory <= MEMORY_MAX;
        let honest = if flood.asks_much { loading.1 } else { alone.1 };
        if !is_ended || !is_cheap || with.1 > FLOOR.max(2 * honest.max(without.1)) {
            failed.push(flood.name);
        }
    }
    println!("\nout of bounds: {failed:?}");
    assert!(peer || failed.is_empty(), "some were out of bounds");
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What a flood came to.
struct Cost {
    code: Option<u32>,
    writes: u32,
    cpu: f64,
    memory: u64,
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    directory: std::path::PathBuf,
    /// Silence after which a flood was not ended.
    silence: Duration,
}

impl Gateway {
    fn start(binary: &str) -> Self {
        let service = serve();
        let directory = std::env::temp_dir().join(format!("h2-floods-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n[log.access]\noutput = \"{}\"\n\
             [upstreams.app]\nservers = [\"{service}\"]\n[[routes]]\npath = \"/*\"\nupstream = \"app\"\n",
            directory.join("access.log").display()
        );
        let file = directory.join("edgeward.toml");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new(binary)
            .args(["run", "-c"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the gateway");
        let mut told = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "the gateway did not start");
            if let Some((_, address)) = line.trim().split_once("http://") {
                break address.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        // It must not wait for somebody to read on.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let gateway = Self { process, address, directory, silence: LONG };
        gateway.wait();
        gateway
    }

    /// Another proxy in its place.
    fn peer(name: &str, program: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("h2-floods-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        let mut command = peers::command(name, program, &directory, address, serve());
        let process = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the peer");
        let gateway = Self { process, address, directory, silence: PATIENCE };
        gateway.wait();
        gateway
    }

    fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < LONG, "it does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        asked(self.address, 1);
    }

    /// Its process, and its workers.
    fn processes(&self) -> Vec<u32> {
        let id = self.process.id();
        let workers = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        std::iter::once(id).chain(workers.split_whitespace().map(|id| id.parse().unwrap())).collect()
    }

    /// Seconds of processor time that it has taken.
    fn cpu(&self) -> f64 {
        let of = |id: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            // utime and stime, in ticks of a hundredth.
            (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
        };
        self.processes().into_iter().map(of).sum()
    }

    fn memory(&self, key: &str) -> u64 {
        let of = |id: u32| {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().find_map(|word| word.parse::<u64>().ok()).unwrap() * 1024
        };
        self.processes().into_iter().map(of).sum()
    }

    fn cost_of(&self, flood: &Flood) -> Cost {
        for id in self.processes() {
            std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
        }
        let (cpu, memory) = (self.cpu(), self.memory("VmRSS:"));
        let (code, writes) = run(self, flood);
        // What it does behind the end is its cost, too.
        std::thread::sleep(Duration::from_millis(200));
        let memory = self.memory("VmHWM:").saturating_sub(memory);
        Cost { code, writes, cpu: self.cpu() - cpu, memory }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both may be gone already.
        let _killed = self.process.kill();
        let _waited = self.process.wait();
        let _removed = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where a flood ends that concerns nobody: a process of its own that reads whatever comes. What the innocent client loses to
/// the flood's client alone is seen beside it.
struct Sink {
    process: Child,
    address: SocketAddr,
}

impl Sink {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .arg("sink")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().parse().unwrap() }
    }

    /// As many writes of the flood as were made to the gateway.
    fn run(&self, flood: &Flood, writes: u32) {
        let mut socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut reading = socket.try_clone().unwrap();
        let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
        socket.write_all(&[PREFACE, &settings(&[]), &flood.before].concat()).unwrap();
        for at in 0..writes {
            socket.write_all(&(flood.write)(at)).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap().unwrap();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

/// The sink's process, which ends with ours.
fn sink() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || std::io::copy(&mut socket.unwrap(), &mut std::io::sink()));
        }
    });
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

/// Runs one flood to its end: the code of GOAWAY, and the writes that were made before it was read.
fn run(gateway: &Gateway, flood: &Flood) -> (Option<u32>, u32) {
    let mut socket = TcpStream::connect(gateway.address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_write_timeout(Some(gateway.silence)).unwrap();
    socket.set_read_timeout(Some(gateway.silence)).unwrap();
    let reading = socket.try_clone().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let reader = std::thread::spawn(move || {
        let code = goaway(BufReader::new(reading), &over);
        over.store(true, Relaxed);
        code
    });
    let mut writes = 0;
    if socket.write_all(&[PREFACE, &settings(&[]), &flood.before].concat()).is_ok() {
        while writes < WRITES && !is_over.load(Relaxed) && socket.write_all(&(flood.write)(writes)).is_ok() {
            writes += 1;
        }
    }
    let code = reader.join().unwrap();
    // It may be closed.
    let _closed = socket.shutdown(Shutdown::Both);
    (code, writes)
}

/// Reads frames up to the end of the connection; the error that GOAWAY told, if any.
fn goaway(mut reading: impl Read, over: &AtomicBool) -> Option<u32> {
    let (mut code, mut head) = (None, [0; 9]);
    while reading.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if reading.read_exact(&mut payload).is_err() {
            break;
        }
        if head[3] == GOAWAY {
            let told = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            code = code.filter(|code| *code != 0).or(Some(told));
            over.store(told != 0, Relaxed);
        }
    }
    code
}

/// As many requests as a flood has writes, from a client that waits for its answers.
fn ask(address: SocketAddr) {
    let mut client = Honest::connect(address);
    for first in (0..WRITES).step_by(AT_ONCE) {
        client.ask(first, GET);
    }
}

/// As many large answers as a client may have open, taken whole.
fn load(address: SocketAddr) {
    Honest::connect(address).ask(0, &floods::get_large());
}

/// A client that waits for its answers, and has room for them.
struct Honest {
    socket: TcpStream,
    reading: BufReader<TcpStream>,
}

impl Honest {
    fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let reading = BufReader::new(socket.try_clone().unwrap());
        let room = [settings(&[(INITIAL_WINDOW, 1 << 20)]), window_update(0, 1 << 30)].concat();
        socket.write_all(&[PREFACE, &room].concat()).unwrap();
        Self { socket, reading }
    }

    /// Asks for all of them at once, from that of this number on, and reads the answers.
    fn ask(&mut self, first: u32, head: &[u8]) {
        let asked: Vec<u8> = (first..).take(AT_ONCE).flat_map(|at| headers(2 * at + 1, head)).collect();
        self.socket.write_all(&asked).unwrap();
        let mut answered = 0;
        while answered < AT_ONCE {
            let mut head = [0; 9];
            self.reading.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            self.reading.read_exact(&mut vec![0; length as usize]).unwrap();
            assert!(!matches!(head[3], GOAWAY | RST_STREAM), "a client that waits is no flood");
            answered += usize::from(matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0);
        }
    }
}

/// The innocent client's answers while another is begun again whenever it is ended.
fn asked_beside(gateway: &Gateway, other: impl Fn() + Send + Sync) -> (Duration, Duration) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on_the_last_processor();
            while !is_over.load(Relaxed) {
                other();
                // One client at a time, not a new one at every moment.
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let times = asked(gateway.address, ROUNDS);
        is_over.store(true, Relaxed);
        times
    })
}

/// Leaves the other processors to others, from now on and for the threads that this one starts.
fn stay_on_the_last_processor() {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut processors = rustix::thread::CpuSet::new();
    processors.set(count - 1);
    rustix::thread::sched_setaffinity(None, &processors).unwrap();
}

/// Asks in so many rounds; the medians of their medians and of their p99.
fn asked(address: SocketAddr, rounds: usize) -> (Duration, Duration) {
    let (mut halves, mut nearly_all): (Vec<_>, Vec<_>) = (0..rounds).map(|_| asked_once(address)).unzip();
    halves.sort_unstable();
    nearly_all.sort_unstable();
    (halves[rounds / 2], nearly_all[rounds / 2])
}

/// Asks on one connection, every two milliseconds; the median of the answers' times and their p99.
fn asked_once(address: SocketAddr) -> (Duration, Duration) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut reading = BufReader::new(socket.try_clone().unwrap());
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < ASKED {
        let asked = Instant::now();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut line = String::new();
        reading.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        while line != "\r\n" {
            line.clear();
            reading.read_line(&mut line).unwrap();
        }
        reading.read_exact(&mut [0; 2]).unwrap();
        times.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A service that says "ok", and on the large path zeros. On one thread, as services are: with a thread for each connection
/// of the gateway's, it would be those that the innocent client waits for.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                // Its client may leave at any time.
                tokio::spawn(async { drop(answer(socket).await) });
            }
        });
    });
    address
}

async fn answer(mut socket: tokio::net::TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (reading, mut writing) = socket.split();
    let mut reading = tokio::io::BufReader::new(reading);
    loop {
        let (mut line, mut path, mut length, mut is_chunked) = (String::new(), String::new(), 0_u64, false);
        loop {
            line.clear();
            if reading.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let text = line.to_ascii_lowercase();
            if path.is_empty() {
                path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            } else if let Some(value) = text.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            } else if text.starts_with("transfer-encoding:") {
                is_chunked = true;
            } else if text == "\r\n" {
                break;
            }
        }
        tokio::io::copy(&mut (&mut reading).take(length), &mut tokio::io::sink()).await?;
        if path == floods::LARGE {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE_BYTES}\r\n\r\n");
            writing.write_all(&[head.into_bytes(), vec![0; LARGE_BYTES]].concat()).await?;
        } else {
            writing.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
        }
        // Bodies in chunks are left alone.
        if is_chunked {
            return Ok(());
        }
    }
}
