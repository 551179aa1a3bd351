//! Bytes that go from one socket to another without passing through our memory: splice(2), by way of a pipe.
//!
//! A long body then costs the kernel's share alone, and what waits for its client waits in the kernel.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use rustix::io::{Errno, retry_on_intr};
use rustix::param::page_size;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::pressure;

/// Bytes put into a pipe at once, at most.
const BYTES: usize = 128 * 1024;
/// Pages that a pipe is made to have room for, where the kernel gives 16: one holds no more than one packet of the network.
const PAGES: usize = 64;
/// Pipes in use by one process. Their pages are the kernel's memory; whoever comes later copies.
const PIPES_MAX: usize = 128;

/// Pipes in use.
static PIPES: AtomicUsize = AtomicUsize::new(0);
/// Set where the system does not do this: a sandbox, say; and where it has done it.
static UNSUPPORTED: AtomicBool = AtomicBool::new(false);
static SUPPORTED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The ends of an empty one: who takes what it is given at once needs no other.
    static KEPT: Cell<Option<Ends>> = const { Cell::new(None) };
}

/// Where bytes come out, and where they go in.
type Ends = (OwnedFd, OwnedFd);

/// A pipe in the use of one exchange.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    held: usize,
    _counted: Counted,
}

/// Whether most of the pipes that may be are in use: who is slow should do without.
pub fn are_scarce() -> bool {
    PIPES.load(Ordering::Relaxed) > PIPES_MAX / 2
}

/// Whether an error of [`Pipe::poll_fill`] says that the system cannot do it at all. Nothing was taken off the socket, and
/// there are no pipes from then on.
pub fn is_unsupported(error: &io::Error) -> bool {
    let says_so = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    [Errno::NOSYS, Errno::PERM, Errno::INVAL].into_iter().any(says_so) && !SUPPORTED.load(Ordering::Relaxed)
}

/// Whether this is a kernel on which a socket that takes nothing would hold the thread: Linux 6.5 came with such a splice.
fn may_block() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        release.is_ok_and(|release| release.starts_with("6.5."))
    })
}

impl Pipe {
    /// An empty one; `None` if many are in use already, or descriptors are short.
    pub fn take() -> Option<Self> {
        if UNSUPPORTED.load(Ordering::Relaxed) {
            return None;
        }
        let counted = Counted::one()?;
        let (output, input) = KEPT.take().or_else(made)?;
        Some(Self { output, input, held: 0, _counted: counted })
    }

    /// The same for whom it is `worth` it.
    pub fn take_if(worth: bool) -> Option<Self> {
        if worth { Self::take() } else { None }
    }

    /// Lets go of it. It is used again if nothing is left in it.
    pub fn give_back(self) {
        if self.held == 0 && !pressure::is_short_of_descriptors() {
            KEPT.set(Some((self.output, self.input)));
        }
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts at most `most` bytes of what comes on `socket` into it, which is empty. How many those were; none at the end of
    /// what comes.
    pub fn poll_fill(
        &mut self,
        socket: &TcpStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let filled = loop {
            ready!(socket.poll_read_ready(cx))?;
            let fill = || splice(socket, None, &self.input, None, most.min(BYTES), FLAGS);
            match socket.try_io(Interest::READABLE, || Ok(retry_on_intr(fill)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                filled => break filled,
            }
        };
        match &filled {
            Ok(count) => {
                self.held += count;
                if !SUPPORTED.load(Ordering::Relaxed) {
                    SUPPORTED.store(true, Ordering::Relaxed);
                }
            }
            Err(error) if is_unsupported(error) => UNSUPPORTED.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        Poll::Ready(filled)
    }

    /// Sends what it holds to `socket`. How many bytes that took.
    pub fn poll_drain(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_write_ready(cx))?;
            // That a socket is closed is an error here, as Rust's programs ignore SIGPIPE.
            let drain = || splice(&self.output, None, socket, None, self.held, FLAGS);
            match socket.try_io(Interest::WRITABLE, || Ok(retry_on_intr(drain)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held = self.held.saturating_sub(count);
                    return Poll::Ready(Ok(count));
                }
                failed => return Poll::Ready(failed),
            }
        }
    }
}

/// The ends of a new one.
fn made() -> Option<Ends> {
    if pressure::is_short_of_descriptors() || may_block() {
        return None;
    }
    let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    if pressure::is_high(output.as_raw_fd()) || pressure::is_high(input.as_raw_fd()) {
        // Connections need them more.
        return None;
    }
    // With less room it does the same in smaller pieces.
    let _room = fcntl_setpipe_size(&input, PAGES * page_size());
    Some((output, input))
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// One of [`PIPES`], until it is dropped.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn one() -> Option<Self> {
        if PIPES.fetch_add(1, Ordering::Relaxed) < PIPES_MAX {
            return Some(Self);
        }
        PIPES.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        PIPES.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (one, listener.accept().await.unwrap().0)
    }

    /// One test: their number is the process's.
    #[tokio::test]
    async fn bytes_pass_in_order_and_pipes_come_to_an_end() {
        let (mut server, mut from) = pair().await;
        let (mut client, to) = pair().await;
        let mut pipe = Pipe::take().unwrap();
        let nothing = poll_fn(|cx| Poll::Ready(pipe.poll_fill(&from, 100, cx).is_pending())).await;
        assert!(nothing && pipe.held() == 0);
        server.write_all(b"the body and the next answer").await.unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 8, cx)).await.unwrap(), 8);
        assert_eq!(pipe.held(), 8);
        assert_eq!(poll_fn(|cx| pipe.poll_drain(&to, cx)).await.unwrap(), 8);
        let mut body = [0; 8];
        client.read_exact(&mut body).await.unwrap();
        assert_eq!((&body, pipe.held()), (b"the body", 0));
        pipe.give_back();
        let mut pipe = Pipe::take().unwrap();
        assert!(KEPT.take().is_none(), "the same one");
        let mut rest = [0; 10];
        from.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b" and the n", "what was not asked for is still there");
        // One with bytes left serves nobody else.
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.unwrap(), 10);
        pipe.give_back();
        assert!(KEPT.take().is_none());
        drop(server);
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 8, cx)).await.unwrap(), 0);
        let pipes: Vec<_> = std::iter::from_fn(Pipe::take).take(PIPES_MAX + 1).collect();
        assert!(pipes.len() < PIPES_MAX && Pipe::take().is_none() && are_scarce());
        drop(pipes);
        assert!(Pipe::take().is_some() && !are_scarce());
        // Only where it has never been done an error says that it cannot be.
        assert!(!is_unsupported(&Errno::INVAL.into()));
        SUPPORTED.store(false, Ordering::Relaxed);
        assert!(
            [Errno::NOSYS, Errno::PERM, Errno::INVAL].into_iter().all(|errno| is_unsupported(&errno.into()))
        );
        assert!(!is_unsupported(&Errno::CONNRESET.into()) && !is_unsupported(&Errno::ACCESS.into()));
    }
}
