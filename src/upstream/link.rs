//! Connections to servers in cleartext HTTP/1, for the gateway's own forwarder: made, kept while idle, used again.
//!
//! A kept connection is a socket in a list, without a task or a timer of its own. Whether its server has closed it, or
//! has sent what nobody asked for, shows in what the runtime knows of the socket: it is looked at when the connection is
//! to be used again, and once a second by one task a server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::Attempt;
use super::peer::{RECEIVE_BYTES, TCP_KEEPALIVE};
use super::server::ServerState;
use crate::base::{clock, pressure, task, threads};

/// A connection to a server, in the use of one request.
#[derive(Debug)]
pub struct Link(Socket);

/// What came last on a [`Link`] that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastAnswer {
    /// A body was read to its end.
    WithBody,
    /// No body belongs to it. A server that sends one all the same sends it behind the head, maybe a moment later.
    Bodiless,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Attempt {
    /// A connection to the server from before. With `certainly` the kernel is asked, too, whether it is still open: for
    /// requests that must not or cannot be sent twice. It is always asked behind [`LastAnswer::Bodiless`].
    pub fn kept_link(&self, certainly: bool) -> Option<Link> {
        let idle = &self.server().state().links;
        loop {
            let taken = idle.take(clock::now())?;
            // What another thread has heard of it is not known here.
            let asks = certainly || taken.is_moved || taken.last == LastAnswer::Bodiless;
            if taken.link.is_quiet() && (!asks || taken.link.is_open()) {
                let link = if taken.is_moved { taken.link.moved_here() } else { Ok(taken.link) };
                if let Ok(link) = link {
                    return Some(link);
                }
            }
        }
    }

    /// A new connection to the server.
    ///
    /// # Errors
    /// If none can be made, or not within the attempt's time.
    pub async fn new_link(&self) -> Result<Link> {
        let limit = self.timeouts().connect;
        let address = self.server().socket();
        match tokio::time::timeout(limit, connect(address)).await {
            Ok(socket) => {
                let kind = match socket.as_ref().map_err(io::Error::kind) {
                    Err(io::ErrorKind::ConnectionRefused) => ErrorType::ConnectRefused,
                    _ => ErrorType::ConnectError,
                };
                socket.map(Link).or_err_with(kind, || format!("connecting to {address}"))
            }
            Err(_) => Error::e_explain(
                ErrorType::ConnectTimedout,
                format!("timeout {limit:?} connecting to server {address}"),
            ),
        }
    }

    /// Keeps `link`, on which nothing is under way since its `last` answer, for later requests; at most `most` are kept in
    /// the whole process.
    pub fn keep_link(&self, link: Link, last: LastAnswer, most: usize) {
        if pressure::is_short_of_descriptors() {
            // Somebody needs it more than the next request.
            return;
        }
        let state = self.server().state();
        let now = clock::now();
        let Some(until) = now.checked_add(self.timeouts().idle) else { return };
        if state.links.put(link, last, until, most) {
            let state = Arc::downgrade(state);
            drop(task::keep("idle connections", move || tend(state.clone())));
        }
    }
}

/// Whether `error` came of a connection for which there was no descriptor.
pub fn lacks_descriptor(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> =
        error.cause.as_deref().map(|cause| cause as _);
    while let Some(error) = cause {
        // Pingora's own have no source.
        let inner =
            error.downcast_ref::<Error>().or_else(|| error.downcast_ref::<Box<Error>>().map(|e| &**e));
        if let Some(error) = inner {
            return lacks_descriptor(error);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return pressure::is_shortage(error);
        }
        cause = error.source();
    }
    false
}

async fn connect(address: &SocketAddr) -> io::Result<Socket> {
    match address {
        SocketAddr::Inet(address) => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // Before the window is agreed on.
            socket.set_recv_buffer_size(u32::try_from(RECEIVE_BYTES).unwrap_or(u32::MAX))?;
            let stream = socket.connect(*address).await?;
            stream.set_nodelay(true)?;
            let retries = u32::try_from(TCP_KEEPALIVE.count).unwrap_or(u32::MAX);
            let keepalive = TcpKeepalive::new()
                .with_time(TCP_KEEPALIVE.idle)
                .with_interval(TCP_KEEPALIVE.interval)
                .with_retries(retries);
            SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok(Socket::Tcp(stream))
        }
        SocketAddr::Unix(address) => match address.as_pathname() {
            Some(path) => UnixStream::connect(path).await.map(Socket::Unix),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        },
    }
}

impl Link {
    /// Its socket; `None` on a unix socket.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.0 {
            Socket::Tcp(socket) => Some(socket),
            Socket::Unix(_) => None,
        }
    }

    /// The same, looked after by the runtime of the current thread.
    fn moved_here(self) -> io::Result<Self> {
        Ok(Self(match self.0 {
            Socket::Tcp(socket) => Socket::Tcp(TcpStream::from_std(socket.into_std()?)?),
            Socket::Unix(socket) => Socket::Unix(UnixStream::from_std(socket.into_std()?)?),
        }))
    }

    /// Whether nothing has come, as far as the runtime knows: neither bytes nor the end. Asks the kernel only if it may
    /// have.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.0 {
            Socket::Tcp(socket) => socket.try_read(&mut byte),
            Socket::Unix(socket) => socket.try_read(&mut byte),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same by the kernel's word.
    fn is_open(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match &self.0 {
            Socket::Tcp(socket) => SockRef::from(socket).peek(&mut byte),
            Socket::Unix(socket) => SockRef::from(socket).peek(&mut byte),
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, data),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

/// The idle connections to one server.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By the number of the thread that used them last, whose runtime looks after them: the one used last on top.
    stacks: Vec<Vec<Idle>>,
    /// Whether [`tend`] runs for them.
    tended: bool,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    last: LastAnswer,
    until: Instant,
    _counted: Counted,
}

/// A connection that was kept.
struct Taken {
    link: Link,
    last: LastAnswer,
    /// Another thread's runtime looks after it.
    is_moved: bool,
}

impl Kept {
    fn stack(&mut self, number: usize) -> &mut Vec<Idle> {
        if self.stacks.len() <= number {
            self.stacks.resize_with(number + 1, Vec::new);
        }
        #[expect(clippy::indexing_slicing, reason = "made above")]
        &mut self.stacks[number]
    }

    /// The stack that has the most, if any has some.
    fn highest(&mut self) -> Option<&mut Vec<Idle>> {
        self.stacks.iter_mut().max_by_key(|stack| stack.len()).filter(|stack| !stack.is_empty())
    }

    /// The stack with the one that would be kept for the shortest time.
    fn oldest(&mut self) -> Option<&mut Vec<Idle>> {
        let some = self.stacks.iter_mut().filter(|stack| !stack.is_empty());
        some.min_by_key(|stack| stack.first().map(|idle| idle.until))
    }
}

impl Links {
    /// The one that this thread used last, or else one of another's, if it may still be used at `now`.
    fn take(&self, now: Instant) -> Option<Taken> {
        let number = threads::number();
        loop {
            let mut kept = self.0.lock();
            let (idle, is_moved) = match kept.stack(number).pop() {
                Some(idle) => (idle, false),
                None => (kept.highest()?.pop()?, true),
            };
            drop(kept);
            if idle.until > now {
                return Some(Taken { link: idle.link, last: idle.last, is_moved });
            }
        }
    }

    /// Keeps `link` unless that were more than `most` in all, but for an older one in its place. Whether somebody has
    /// to look after them from now on.
    fn put(&self, link: Link, last: LastAnswer, until: Instant, most: usize) -> bool {
        let number = threads::number();
        let mut kept = self.0.lock();
        let older = match Counted::within(most) {
            Some(counted) => {
                kept.stack(number).push(Idle { link, last, until, _counted: counted });
                None
            }
            None => {
                let Some(stack) = kept.oldest() else { return false };
                let Idle { link: older, _counted, .. } = stack.remove(0);
                kept.stack(number).push(Idle { link, last, until, _counted });
                Some(older)
            }
        };
        let tend = !std::mem::replace(&mut kept.tended, true);
        drop(kept);
        drop(older);
        tend
    }

    /// Lets go of those that are of no use any more at `now`. Whether none is left, and nobody looks after them.
    fn prune(&self, now: Instant) -> bool {
        let short = pressure::is_short_of_descriptors();
        let mut kept = self.0.lock();
        let is_gone = &|idle: &mut Idle| short || idle.until <= now || !idle.link.is_quiet();
        let gone: Vec<Idle> =
            kept.stacks.iter_mut().flat_map(|stack| stack.extract_if(.., is_gone)).collect();
        kept.tended = kept.highest().is_some();
        let is_over = !kept.tended;
        drop(kept);
        drop(gone);
        is_over
    }
}

/// How often idle connections are looked at: one that its server has closed is not held open longer.
const TENDED_EVERY: Duration = Duration::from_secs(1);

async fn tend(state: Weak<ServerState>) {
    loop {
        tokio::time::sleep(TENDED_EVERY).await;
        let Some(state) = state.upgrade() else { return };
        if state.links.prune(clock::now()) {
            return;
        }
    }
}

/// Idle connections to all servers of the process.
static KEPT: AtomicUsize = AtomicUsize::new(0);

/// One of [`KEPT`], until it is dropped.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn within(most: usize) -> Option<Self> {
        if KEPT.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self);
        }
        KEPT.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    fn pair() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link(Socket::Unix(ours)), theirs)
    }

    /// What the runtime learns of a socket it learns in a turn of its own.
    async fn turn(link: &Link) {
        for _ in 0..1_000 {
            if !link.is_quiet() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_last_one_is_used_first_and_none_past_its_time() {
        let (links, now) = (Links::default(), clock::now());
        let (old, mut old_server) = pair();
        let (new, _new_server) = pair();
        assert!(
            links.put(old, LastAnswer::WithBody, now + LATER, usize::MAX),
            "somebody has to look after it"
        );
        assert!(!links.put(new, LastAnswer::WithBody, now + 2 * LATER, usize::MAX));
        assert!(!links.prune(now));
        assert!(links.take(now).is_some());
        old_server.write_all(b"x").await.unwrap();
        assert!(links.take(now + LATER).is_none(), "its time is over");
        assert!(links.prune(now));
    }

    /// A runtime that ends, or is busy, keeps nobody from what it once looked after.
    #[test]
    fn each_thread_has_its_own_first_and_then_those_of_others() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (one, two) = (runtime(), runtime());
        let (links, until) = (Links::default(), clock::now() + LATER);
        let keep = |number: usize, runtime: &tokio::runtime::Runtime| {
            let _entered = runtime.enter();
            threads::set_number(number);
            let (link, server) = pair();
            links.put(link, LastAnswer::WithBody, until, usize::MAX);
            server
        };
        let (mut first, mut second) = (keep(1, &one), keep(2, &two));
        let _entered = two.enter();
        let taken = links.take(clock::now()).unwrap();
        assert!(!taken.is_moved);
        drop(taken);
        assert!(two.block_on(second.write_all(b"x")).is_err(), "its own");
        let taken = links.take(clock::now()).unwrap();
        assert!(taken.is_moved && taken.link.is_quiet() && taken.link.is_open());
        let mut moved = taken.link.moved_here().unwrap();
        one.block_on(first.write_all(b"answer")).unwrap();
        drop((first, one));
        let mut answer = String::new();
        two.block_on(tokio::io::AsyncReadExt::read_to_string(&mut moved, &mut answer)).unwrap();
        assert_eq!(answer, "answer");
        assert!(links.take(clock::now()).is_none() && links.prune(clock::now()));
        threads::set_number(0);
    }

    #[tokio::test]
    async fn what_its_server_closed_or_spoke_on_is_let_go() {
        let (closed, server) = pair();
        drop(server);
        turn(&closed).await;
        assert!(!closed.is_quiet() && !closed.is_open());
        let (noisy, mut server) = pair();
        assert!(noisy.is_quiet() && noisy.is_open());
        server.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert!(!noisy.is_open());
        turn(&noisy).await;
        assert!(!noisy.is_quiet());
        let (links, now) = (Links::default(), clock::now());
        assert!(links.put(closed, LastAnswer::WithBody, now + LATER, usize::MAX));
        assert!(links.prune(now) && links.take(now).is_none());
    }

    #[tokio::test]
    async fn no_more_are_kept_than_allowed() {
        let (links, now) = (Links::default(), clock::now());
        let (one, mut first_server) = pair();
        assert!(!links.put(one, LastAnswer::WithBody, now + LATER, 0) && links.take(now).is_none());
        assert!(first_server.write_all(b"x").await.is_err(), "closed");
        let (two, mut second_server) = pair();
        links.put(two, LastAnswer::WithBody, now + LATER, usize::MAX);
        let (three, _third_server) = pair();
        links.put(three, LastAnswer::WithBody, now + LATER, 0);
        assert!(second_server.write_all(b"x").await.is_err(), "gave its place to a newer one");
        assert!(links.take(now).is_some() && links.take(now).is_none());
    }
}
