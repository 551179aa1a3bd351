//! Bytes that go from one socket to another without passing through our memory: splice(2), by way of a pipe.
//!
//! A long body then costs the kernel's share alone, and what waits for its client waits in the kernel. Worth it only for
//! pieces of some size: two calls more than a read and a write take.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::pressure;

/// Bytes put into a pipe at once, at most.
pub const BYTES: usize = 128 * 1024;
/// What a pipe is made to have room for. It counts by pages, and one of them holds no more than one packet of the network.
const ROOM: usize = 256 * 1024;
/// Pipes in use by one process. Their pages are the kernel's memory; whoever comes later copies.
const PIPES_MAX: usize = 128;
/// Empty ones kept by each thread.
const KEPT_MAX: usize = 4;

/// Set where the system does not do this: a sandbox, say.
static UNSUPPORTED: AtomicBool = AtomicBool::new(false);

/// Whether an error of [`Pipe::fill`] says that the system cannot do it at all. Nothing was taken off the socket.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

static PIPES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static KEPT: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe in the use of one exchange.
#[derive(Debug)]
pub struct Pipe {
    output: OwnedFd,
    input: OwnedFd,
    held: usize,
    _counted: Counted,
}

impl Pipe {
    /// An empty one; `None` if there are many already, or descriptors are short.
    pub fn take() -> Option<Self> {
        KEPT.with_borrow_mut(Vec::pop).or_else(Self::new)
    }

    fn new() -> Option<Self> {
        if pressure::is_short_of_descriptors() || UNSUPPORTED.load(Ordering::Relaxed) {
            return None;
        }
        let counted = Counted::one()?;
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        if [&output, &input].iter().any(|end| pressure::is_of_reserve(end.as_raw_fd())) {
            return None;
        }
        // With less room it does the same in smaller pieces.
        let _room = fcntl_setpipe_size(&input, ROOM);
        Some(Self { output, input, held: 0, _counted: counted })
    }

    /// Lets go of it. It is used again if nothing is left in it.
    pub fn give_back(self) {
        if self.held > 0 || pressure::is_short_of_descriptors() {
            return;
        }
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(self);
            }
        });
    }

    /// Bytes in it.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Puts at most `most` bytes, and no more than [`BYTES`], of what has come on `socket` into it, which is empty. How
    /// many those were; none at the end of what comes.
    ///
    /// # Errors
    /// Those of the socket: [`io::ErrorKind::WouldBlock`] if nothing has come. One that [`is_unsupported`] is the last of
    /// its kind: there are no pipes from then on.
    pub fn fill(&mut self, socket: impl AsFd, most: usize) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(socket, None, &self.input, None, most.min(BYTES), flags).map_err(io::Error::from);
        if count.as_ref().is_err_and(is_unsupported) {
            UNSUPPORTED.store(true, Ordering::Relaxed);
        }
        let count = count?;
        self.held += count;
        Ok(count)
    }

    /// Sends what it holds to `socket`. How many bytes that took.
    ///
    /// # Errors
    /// Those of the socket: [`io::ErrorKind::WouldBlock`] if it takes nothing now.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let count = splice(&self.output, None, socket, None, self.held, flags)?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

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
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        (one, other)
    }

    fn until_ready(mut act: impl FnMut() -> io::Result<usize>) -> usize {
        loop {
            match act() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                done => return done.unwrap(),
            }
        }
    }

    #[test]
    fn bytes_pass_in_order_and_no_more_than_asked_for() {
        let (mut server, from) = pair();
        let (mut client, to) = pair();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&from, 100).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        server.write_all(b"the body and the next answer").unwrap();
        assert_eq!(until_ready(|| pipe.fill(&from, 8)), 8);
        assert_eq!((pipe.held(), until_ready(|| pipe.drain(&to)), pipe.held()), (8, 8, 0));
        let mut body = [0; 8];
        client.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"the body");
        let mut rest = [0; 64];
        assert_eq!((&from).read(&mut rest).unwrap(), 20, "it is still there");
        drop(server);
        assert_eq!(until_ready(|| pipe.fill(&from, 8)), 0);
        pipe.give_back();
    }

    #[test]
    fn one_with_bytes_left_serves_nobody_else() {
        let (mut server, from) = pair();
        server.write_all(b"of one client").unwrap();
        let mut pipe = Pipe::take().unwrap();
        until_ready(|| pipe.fill(&from, 100));
        pipe.give_back();
        assert!(KEPT.with_borrow(Vec::is_empty));
        Pipe::take().unwrap().give_back();
        assert!(KEPT.with_borrow(|kept| kept.len() == 1 && kept.iter().all(|pipe| pipe.held() == 0)));
    }

    #[test]
    fn there_is_an_end_to_them() {
        let pipes: Vec<_> = std::iter::from_fn(Pipe::take).take(PIPES_MAX + 1).collect();
        assert!(pipes.len() <= PIPES_MAX && Pipe::take().is_none());
        drop(pipes);
        assert!(Pipe::take().is_some());
    }
}
