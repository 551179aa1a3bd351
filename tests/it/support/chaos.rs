//! A TCP proxy that misbehaves as it is told to. It stands between the gateway and a peer of any kind, and can be told
//! something else at any time: what is open heeds it from the next bytes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::gateway::Addressed;

/// What is done to connections. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// What becomes of new connections.
    pub accept: Accept,
    /// What becomes of bytes on their way to the server.
    pub up: Way,
    /// What becomes of bytes on their way back.
    pub down: Way,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Accept {
    /// It goes to the server.
    #[default]
    Through,
    /// It is reset.
    Refused,
    /// It is taken, and never answered.
    Ignored,
}

/// What becomes of bytes in one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Way {
    /// They are this late.
    pub latency: Duration,
    /// And up to this much more, each piece by chance.
    pub jitter: Duration,
    /// They come in writes of 1 to so many; 0: as they came.
    pub slices: usize,
    /// So many a second at most; 0: any number.
    pub rate: u64,
    /// What happens once so many have passed on a connection since it began, or since this was told.
    pub end: Option<(u64, End)>,
    /// What they are turned into.
    pub garbage: Option<Garbage>,
    /// The end of the connection is this late.
    pub slow_close: Duration,
}

/// How bytes in one direction come to an end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// Both sides are reset (RST).
    Reset,
    /// This direction is closed in order (FIN), the other one goes on.
    HalfClose,
    /// Nothing more passes, and nobody is told; what waits goes on once this is lifted.
    Silence,
}

/// What bytes are turned into.
#[derive(Clone, Debug, PartialEq)]
pub enum Garbage {
    /// Of every so many one is another byte.
    Flipped(u64),
    /// Each piece that comes is this instead.
    Instead(Bytes),
}

impl Faults {
    /// New connections are reset; see [`Chaos::cut`] for those that are open.
    pub fn refused() -> Self {
        Self { accept: Accept::Refused, ..Self::default() }
    }

    /// Nothing passes any more in either direction, on connections that are open and on new ones.
    pub fn silent() -> Self {
        let way = Way { end: Some((0, End::Silence)), ..Way::default() };
        Self { accept: Accept::Ignored, up: way.clone(), down: way }
    }

    /// Answers are this late.
    pub fn slow(latency: Duration) -> Self {
        Self::down(Way { latency, ..Way::default() })
    }

    /// Answers are this text.
    pub fn nonsense(text: &'static str) -> Self {
        let garbage = Some(Garbage::Instead(Bytes::from_static(text.as_bytes())));
        Self::down(Way { garbage, ..Way::default() })
    }

    /// Answers alone are treated so.
    pub fn down(way: Way) -> Self {
        Self { down: way, ..Self::default() }
    }

    /// Requests alone are treated so.
    pub fn up(way: Way) -> Self {
        Self { up: way, ..Self::default() }
    }

    /// Both directions are treated so.
    pub fn both(way: Way) -> Self {
        Self { up: way.clone(), down: way, accept: Accept::Through }
    }
}

impl Way {
    pub fn end(after: u64, end: End) -> Self {
        Self { end: Some((after, end)), ..Self::default() }
    }

    pub fn slices(slices: usize) -> Self {
        Self { slices, ..Self::default() }
    }
}

/// A proxy in front of one server. Gone, with its connections, when dropped.
pub struct Chaos {
    address: SocketAddr,
    target: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    faults: watch::Sender<Faults>,
    /// Counts the cuts.
    cut: watch::Sender<u64>,
    /// Counts how often what was open was forgotten.
    forgotten: watch::Sender<u64>,
    connections: AtomicUsize,
    open: AtomicUsize,
    up: AtomicU64,
    down: AtomicU64,
}

impl Chaos {
    /// One in front of `server` that does nothing to it yet.
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            faults: watch::Sender::new(Faults::default()),
            cut: watch::Sender::new(0),
            forgotten: watch::Sender::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let known = shared.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                known.connections.fetch_add(1, SeqCst);
                tokio::spawn(connection(client, server, known.clone()));
            }
        });
        Self { address, target: server, shared, accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with this in place of the server.
    pub fn instead(&self, url: &str) -> String {
        let target = self.target.to_string();
        assert!(url.contains(&target), "{url} is not of {target}");
        url.replace(&target, &self.address.to_string())
    }

    /// Does this from now on.
    pub fn set(&self, faults: Faults) {
        self.shared.faults.send_replace(faults);
    }

    /// Does nothing any more: what waits goes on.
    pub fn heal(&self) {
        self.set(Faults::default());
    }

    /// Resets all connections there are.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|cuts| *cuts += 1);
    }

    /// Passes nothing any more on the connections there are, for good, and tells nobody, as a router does that has lost
    /// its table. New ones are as ever.
    pub fn forget(&self) {
        self.shared.forgotten.send_modify(|times| *times += 1);
    }

    /// Does this from now on, also to clients that are connected: they have to connect anew.
    pub fn strike(&self, faults: Faults) {
        self.set(faults);
        self.cut();
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    /// How many are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// How many bytes were written to the server, and to clients.
    pub fn passed(&self) -> (u64, u64) {
        (self.shared.up.load(SeqCst), self.shared.down.load(SeqCst))
    }
}

impl Addressed for Chaos {
    fn socket_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn connection(client: TcpStream, server: SocketAddr, shared: Arc<Shared>) {
    shared.open.fetch_add(1, SeqCst);
    let _open = Open(shared.clone());
    let (mut cut, mut forgotten) = (shared.cut.subscribe(), shared.forgotten.subscribe());
    let accept = shared.faults.borrow().accept;
    match accept {
        Accept::Refused => return reset(&client),
        // Until somebody cuts it, or it goes.
        Accept::Ignored => {
            let mut gone = [0; 4096];
            let mut client = client;
            let leaving = async { while client.read(&mut gone).await.is_ok_and(|read| read > 0) {} };
            tokio::select! {
                _ = cut.changed() => {}
                () = leaving => {}
            }
            return reset(&client);
        }
        Accept::Through => {}
    }
    let Ok(server) = TcpStream::connect(server).await else { return reset(&client) };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut up = Pump::new(from_client, to_server, |faults| &faults.up, &shared);
    let mut down = Pump::new(from_server, to_client, |faults| &faults.down, &shared);
    let ended = {
        let (up, down) = (up.run(&shared.up), down.run(&shared.down));
        let both = async {
            tokio::pin!(up, down);
            tokio::select! {
                how = &mut up => if how == Ended::InOrder { down.await } else { how },
                how = &mut down => if how == Ended::InOrder { up.await } else { how },
            }
        };
        tokio::select! {
            how = both => how,
            _ = cut.changed() => Ended::Reset,
            _ = forgotten.changed() => {
                let _ = cut.changed().await;
                Ended::Reset
            }
        }
    };
    if ended == Ended::Reset {
        for half in [up.to, down.to] {
            reset(half.as_ref());
            // Or it would say goodbye first (FIN).
            half.forget();
        }
    }
}

/// Has the socket reset when it is closed.
fn reset(socket: &TcpStream) {
    let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

#[derive(PartialEq)]
enum Ended {
    InOrder,
    Reset,
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: fn(&Faults) -> &Way,
    faults: watch::Receiver<Faults>,
    /// How many have passed since the faults of now.
    passed: u64,
}

impl Pump {
    fn new(from: OwnedReadHalf, to: OwnedWriteHalf, way: fn(&Faults) -> &Way, shared: &Shared) -> Self {
        Self { from, to, way, faults: shared.faults.subscribe(), passed: 0 }
    }

    fn way(&mut self) -> Way {
        if self.faults.has_changed().unwrap_or_default() {
            self.passed = 0;
        }
        (self.way)(&self.faults.borrow_and_update()).clone()
    }

    /// Waits so long, or until something else is to be done.
    async fn wait(&mut self, late: Duration) {
        if !late.is_zero() && tokio::time::timeout(late, self.faults.changed()).await.is_ok() {
            self.passed = 0;
        }
    }

    async fn run(&mut self, count: &AtomicU64) -> Ended {
        let mut buffer = vec![0; 16_384];
        loop {
            let Ok(read) = self.from.read(&mut buffer).await else { return Ended::Reset };
            if read == 0 {
                let late = self.way().slow_close;
                self.wait(late).await;
                let _ = self.to.shutdown().await;
                return Ended::InOrder;
            }
            let way = self.way();
            self.wait(way.latency + way.jitter.mul_f64(fastrand::f64())).await;
            let mut piece = Bytes::copy_from_slice(&buffer[..read]);
            if let Some(Garbage::Instead(text)) = way.garbage {
                piece = text;
            }
            match self.pass(&piece, count).await {
                None => {}
                Some(End::Reset) => return Ended::Reset,
                // Silence is waited for in there.
                Some(End::HalfClose | End::Silence) => {
                    let _ = self.to.shutdown().await;
                    // Whoever sends must not be stopped by that.
                    while self.from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                    return Ended::InOrder;
                }
            }
        }
    }

    /// Writes `bytes`, as it is told to; `Some`: the end has come before the last one.
    async fn pass(&mut self, mut bytes: &[u8], count: &AtomicU64) -> Option<End> {
        while !bytes.is_empty() {
            let way = self.way();
            let mut most = bytes.len();
            if let Some((after, end)) = way.end {
                let left = after.saturating_sub(self.passed);
                if left == 0 && end == End::Silence {
                    // The sender is gone only with the proxy.
                    self.faults.changed().await.ok()?;
                    self.passed = 0;
                    continue;
                }
                if left == 0 {
                    return Some(end);
                }
                most = most.min(usize::try_from(left).unwrap());
            }
            if way.slices > 0 {
                most = most.min(fastrand::usize(1..=way.slices));
            }
            if way.rate > 0 {
                most = most.min(usize::try_from(way.rate / 50).unwrap().max(1));
                self.wait(Duration::from_secs_f64(most as f64 / way.rate as f64)).await;
            }
            let (now, later) = bytes.split_at(most);
            let mut now = now.to_vec();
            if let Some(Garbage::Flipped(every)) = way.garbage {
                for (byte, at) in now.iter_mut().zip(self.passed + 1..) {
                    *byte ^= if at % every == 0 { 0x15 } else { 0 };
                }
            }
            if self.to.write_all(&now).await.is_err() {
                return Some(End::Reset);
            }
            self.passed += most as u64;
            count.fetch_add(most as u64, SeqCst);
            bytes = later;
        }
        None
    }
}

mod tests {
    use std::time::Instant;

    use super::*;
    use crate::support::{Answer, Client, RawUpstream, eventually, upstream, within};

    /// A server that sends back what it gets.
    async fn echo() -> RawUpstream {
        RawUpstream::script(|mut peer| async move {
            loop {
                let got = peer.body(1).await;
                if got.is_empty() {
                    return;
                }
                peer.write(&got).await;
            }
        })
        .await
    }

    async fn before_echo(faults: Faults) -> (RawUpstream, Chaos, TcpStream) {
        let server = echo().await;
        let chaos = Chaos::before(server.address()).await;
        chaos.set(faults);
        let client = TcpStream::connect(chaos.address()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (server, chaos, client)
    }

    async fn reads(client: &mut TcpStream, count: usize) -> Vec<u8> {
        let mut read = vec![0; count];
        within("bytes to come back", client.read_exact(&mut read)).await.unwrap();
        read
    }

    /// What is left until the end: the bytes, and whether it came in order.
    async fn rest(client: &mut TcpStream) -> (Vec<u8>, bool) {
        let mut read = Vec::new();
        let ended = within("the end", client.read_to_end(&mut read)).await;
        (read, ended.is_ok())
    }

    #[tokio::test]
    async fn it_passes_and_counts() {
        let (_server, chaos, mut client) = before_echo(Faults::default()).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(reads(&mut client, 5).await, b"hello");
        assert_eq!((chaos.passed(), chaos.connections(), chaos.open_connections()), ((5, 5), 1, 1));
        drop(client);
        eventually("the connection to go", async || (chaos.open_connections() == 0).then_some(())).await;
    }

    #[tokio::test]
    async fn bytes_are_late_few_and_whole() {
        let way =
            Way { jitter: Duration::from_millis(5), latency: Duration::from_millis(60), ..Way::slices(3) };
        let (_server, _chaos, mut client) = before_echo(Faults::both(way)).await;
        let sent: Vec<u8> = (0..200).collect();
        let began = Instant::now();
        client.write_all(&sent).await.unwrap();
        assert_eq!(reads(&mut client, 200).await, sent);
        assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());

        let way = Way { rate: 10_000, ..Way::default() };
        let (_server, _chaos, mut client) = before_echo(Faults::down(way)).await;
        let began = Instant::now();
        client.write_all(&vec![1; 2000]).await.unwrap();
        assert_eq!(reads(&mut client, 2000).await.len(), 2000);
        assert!(began.elapsed() >= Duration::from_millis(195), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn it_resets_and_closes_after_so_many_bytes() {
        let (_server, _chaos, mut client) = before_echo(Faults::down(Way::end(3, End::Reset))).await;
        client.write_all(b"hello").await.unwrap();
        let (read, in_order) = rest(&mut client).await;
        // What was not read yet may go with the reset.
        assert!(b"hel".starts_with(&read) && !in_order, "{read:?}");

        let (server, _chaos, mut client) = before_echo(Faults::up(Way::end(3, End::Reset))).await;
        client.write_all(b"hello").await.unwrap();
        assert!(!rest(&mut client).await.1);
        assert!(server.received_text().len() <= 3);

        let (server, _chaos, mut client) = before_echo(Faults::down(Way::end(3, End::HalfClose))).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(rest(&mut client).await, (b"hel".to_vec(), true));
        client.write_all(b"more").await.unwrap();
        eventually("the other direction to go on", async || {
            (server.received_text() == "hellomore").then_some(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_silence_holds_what_waits_until_it_is_lifted() {
        let silence = Faults::down(Way::end(2, End::Silence));
        let (server, chaos, mut client) = before_echo(silence).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(reads(&mut client, 2).await, b"he");
        eventually("all to arrive", async || (server.received_text() == "hello").then_some(())).await;
        let more = tokio::time::timeout(Duration::from_millis(50), client.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
        chaos.heal();
        assert_eq!(reads(&mut client, 3).await, b"llo");

        chaos.set(Faults::silent());
        let mut ignored = TcpStream::connect(chaos.address()).await.unwrap();
        ignored.write_all(b"anybody?").await.unwrap();
        let more = tokio::time::timeout(Duration::from_millis(50), ignored.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
        chaos.cut();
        assert!(!rest(&mut ignored).await.1, "both are reset");
        assert!(!rest(&mut client).await.1);
    }

    /// Counts are of what passes from the word on, also where a connection is older.
    #[tokio::test]
    async fn an_end_is_counted_from_when_it_was_told() {
        let (_server, chaos, mut client) = before_echo(Faults::default()).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(reads(&mut client, 5).await, b"hello");
        chaos.set(Faults::down(Way::end(7, End::HalfClose)));
        client.write_all(b"once more").await.unwrap();
        assert_eq!(rest(&mut client).await, (b"once mo".to_vec(), true));
    }

    #[tokio::test]
    async fn what_is_forgotten_stays_silent_and_new_ones_do_not() {
        let (_server, chaos, mut client) = before_echo(Faults::default()).await;
        client.write_all(b"hello").await.unwrap();
        assert_eq!(reads(&mut client, 5).await, b"hello");
        chaos.forget();
        client.write_all(b"more").await.unwrap();
        let mut other = TcpStream::connect(chaos.address()).await.unwrap();
        other.write_all(b"me too").await.unwrap();
        assert_eq!(reads(&mut other, 6).await, b"me too");
        chaos.heal();
        let more = tokio::time::timeout(Duration::from_millis(50), client.read_u8()).await;
        assert!(more.is_err(), "{more:?}");
        chaos.cut();
        assert!(!rest(&mut client).await.1);
    }

    #[tokio::test]
    async fn bytes_are_turned_into_others() {
        let garbage = Some(Garbage::Flipped(2));
        let (_server, chaos, mut client) = before_echo(Faults::down(Way { garbage, ..Way::default() })).await;
        client.write_all(b"aaaa").await.unwrap();
        assert_eq!(reads(&mut client, 4).await, b"atat");
        chaos.set(Faults::nonsense("what?"));
        client.write_all(b"x").await.unwrap();
        assert_eq!(reads(&mut client, 5).await, b"what?");
    }

    #[tokio::test]
    async fn connections_are_refused_and_servers_missed() {
        // A reset may be there before the connection is.
        let gets_nothing = async |chaos: &Chaos| {
            if let Ok(mut client) = TcpStream::connect(chaos.address()).await {
                let _ = client.write_all(b"x").await;
                assert_eq!(rest(&mut client).await.0, b"");
            }
        };
        let server = echo().await;
        let chaos = Chaos::before(server.address()).await;
        chaos.set(Faults::refused());
        gets_nothing(&chaos).await;
        eventually("it to be taken", async || (chaos.connections() == 1).then_some(())).await;
        assert_eq!(server.connections(), 0);
        let dead = crate::support::DeadPort::new();
        let chaos = Chaos::before(dead.address()).await;
        gets_nothing(&chaos).await;
        let url = format!("redis://x:y@{}/1", dead.address());
        assert_eq!(chaos.instead(&url), format!("redis://x:y@{}/1", chaos.address()));
    }

    /// The end is late, and what came before it is not.
    #[tokio::test]
    async fn a_close_can_be_slow() {
        let server = upstream().otherwise(Answer::text("hello")).start().await;
        let chaos = Chaos::before(server.address()).await;
        let slow_close = Duration::from_millis(150);
        chaos.set(Faults::down(Way { slow_close, ..Way::default() }));
        let answer = Client::new(chaos.address()).get("/").header("connection", "close").await;
        assert_eq!(answer.text(), "hello");
        let mut client = TcpStream::connect(chaos.address()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let began = Instant::now();
        let (read, in_order) = rest(&mut client).await;
        assert!(read.ends_with(b"hello") && in_order);
        assert!(began.elapsed() >= slow_close, "{:?}", began.elapsed());
    }
}
