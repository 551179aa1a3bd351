//! Listening sockets on their way from one process to the next.
//!
//! The old process starts the new one with one end of a socket pair as its standard input: nobody else can reach it, and
//! there is no path to guess or to guard. Packets keep their boundaries (`SOCK_SEQPACKET`); each holds JSON, and those
//! with sockets carry them as `SCM_RIGHTS`.
//!
//! ```text
//! old ─► new   {"sockets": [{"role", "name", "address"}, …]} with as many descriptors, repeated; then {"end": PID}
//! new ─► old   {"counters": 0}, where the old one has said in the environment that it gives them
//! old ─► new   {"counters": LENGTH} with a descriptor of that many bytes in memory: those of rate limits, as they stand
//! new ─► old   {"ready": PID}  or  {"failed": "why"}; the end of the connection without either is a crash
//! ```

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// Says to a new process that its standard input is the way to the old one.
pub(super) const VARIABLE: &str = "EDGEWARD_HANDOVER";
/// What [`VARIABLE`] is then.
pub(super) const STDIN: &str = "stdin";

/// Says to a new process what it may ask for.
pub(super) const OFFERS_VARIABLE: &str = "EDGEWARD_HANDOVER_OFFERS";
/// What [`OFFERS_VARIABLE`] is then: counters of rate limits.
pub(super) const COUNTERS: &str = "counters";

/// Descriptors in one packet; the kernel takes 253.
const PACKET_SOCKETS_MAX: usize = 64;
/// Bytes of one packet: the descriptions of its sockets, whose names and paths are bounded, or a reason.
const PACKET_BYTES_MAX: usize = 128 * 1024;
/// Sockets in all: more listeners than any configuration has.
const SOCKETS_MAX: usize = 4096;
/// Longest reason sent: in JSON a byte may take six.
const REASON_BYTES_MAX: usize = 16 * 1024;
/// Time for the other side to take or send a packet, once it is there at all.
const PACKET_TIMEOUT: Duration = Duration::from_secs(10);

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    /// A `[[listeners]]`.
    Listener,
    /// `[admin]`.
    Admin,
    /// `server.control_socket`.
    Control,
}

/// A socket as one process describes it to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) role: Role,
    /// The listener's name; empty for others.
    pub(super) name: String,
    /// The address as configured: with port 0 it is still this socket that is meant.
    pub(super) address: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Packet {
    Sockets(Vec<Described>),
    End(u32),
    Counters(u64),
    Ready(u32),
    Failed(String),
}

/// A socket kept for the next process.
#[derive(Debug, Clone)]
struct Held {
    described: Described,
    socket: Arc<OwnedFd>,
    /// Its file, if it has one, is the next process's from the hand-over on.
    handed_over: Arc<AtomicBool>,
}

/// All listening sockets of this process, duplicated, so that a next process can have them.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Held>>);

impl Sockets {
    /// Keeps a duplicate of `socket`; `handed_over` is set when another process has it.
    pub(super) fn hold(
        &self,
        described: Described,
        socket: BorrowedFd<'_>,
        handed_over: Arc<AtomicBool>,
    ) -> io::Result<()> {
        let socket = Arc::new(socket.try_clone_to_owned()?);
        self.0.lock().push(Held { described, socket, handed_over });
        Ok(())
    }

    /// Closes the duplicates: from now on a closed listener is closed.
    pub(super) fn let_go(&self) {
        self.0.lock().clear();
    }

    /// Whether their files are another process's, the next one's or the one's that is replaced, or this one's.
    pub(super) fn set_handed_over(&self, handed_over: bool) {
        self.0.lock().iter().for_each(|held| held.handed_over.store(handed_over, Ordering::Relaxed));
    }

    fn send(&self, to: &OwnedFd) -> io::Result<()> {
        let held = self.0.lock().clone();
        for chunk in held.chunks(PACKET_SOCKETS_MAX) {
            let described = chunk.iter().map(|held| held.described.clone()).collect();
            let sockets: Vec<_> = chunk.iter().map(|held| held.socket.as_fd()).collect();
            send(to, &Packet::Sockets(described), &sockets)?;
        }
        send(to, &Packet::End(std::process::id()), &[])
    }
}

/// The old process's end.
#[derive(Debug)]
pub(super) struct ToSuccessor(OwnedFd);

impl ToSuccessor {
    /// A connection, and what the new process gets as standard input.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&ours, Timeout::Send, Some(PACKET_TIMEOUT))?;
        Ok((Self(ours), theirs))
    }

    /// Sends the sockets and waits at most `patience` until the new process serves; then its process id. `counters` are sent
    /// when it asks for them, which is right before it serves. Blocks.
    ///
    /// # Errors
    /// Why it does not serve; `None` if it ended without a word.
    pub(super) fn hand_over(
        &self,
        sockets: &Sockets,
        patience: Duration,
        counters: impl FnOnce() -> Vec<u8>,
    ) -> Result<u32, Option<String>> {
        let told = sockets.send(&self.0).and_then(|()| {
            set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
            match receive(&self.0)? {
                Some((Packet::Counters(_), _)) => {
                    self.give(&counters())?;
                    receive(&self.0)
                }
                other => Ok(other),
            }
        });
        match told {
            Ok(Some((Packet::Ready(pid), _))) => Ok(pid),
            Ok(Some((Packet::Failed(why), _))) => Err(Some(why)),
            Ok(Some(_)) => Err(Some("it speaks another language".to_owned())),
            Ok(None) => Err(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Some(format!("it was not ready within {} s", patience.as_secs())))
            }
            // It is gone: its exit status says more.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Err(None)
            }
            Err(error) => Err(Some(format!("it cannot be reached: {error}"))),
        }
    }
}

impl ToSuccessor {
    /// Sends counters; none, where there is no memory for them.
    fn give(&self, counters: &[u8]) -> io::Result<()> {
        let memory = rustix::fs::memfd_create("counters", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(io::Error::from)
            .and_then(|memory| {
                let mut file = File::from(memory);
                file.write_all(counters)?;
                Ok(file)
            });
        match memory {
            Ok(file) => send(&self.0, &Packet::Counters(counters.len() as u64), &[file.as_fd()]),
            Err(error) => {
                tracing::warn!(%error, "the counters of rate limits are not handed over");
                send(&self.0, &Packet::Counters(0), &[])
            }
        }
    }
}

/// The new process's end, with what it was given.
#[derive(Debug)]
pub struct Predecessor {
    connection: OwnedFd,
    pid: u32,
    sockets: Vec<(Described, OwnedFd)>,
    /// What it listens on and this process does not.
    left: Vec<Described>,
    /// Whether it gives the counters of rate limits.
    gives_counters: bool,
}

impl Predecessor {
    /// The process that this one replaces, if it was started for that. Takes the standard input, which becomes empty.
    ///
    /// # Errors
    /// It was started for that, and there is nobody there.
    pub fn from_environment() -> io::Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            Some(value) if value == STDIN => {}
            _ => return Ok(None),
        }
        let connection = rustix::stdio::stdin().try_clone_to_owned()?;
        // What reads standard input must not read the old process's words, nor keep the connection open.
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        let gives_counters = std::env::var_os(OFFERS_VARIABLE).is_some_and(|offers| offers == COUNTERS);
        Ok(Some(Self { gives_counters, ..Self::receive(connection)? }))
    }

    fn receive(connection: OwnedFd) -> io::Result<Self> {
        set_socket_timeout(&connection, Timeout::Recv, Some(PACKET_TIMEOUT))?;
        set_socket_timeout(&connection, Timeout::Send, Some(PACKET_TIMEOUT))?;
        let mut sockets = Vec::new();
        loop {
            match receive(&connection)? {
                Some((Packet::Sockets(described), received)) if described.len() == received.len() => {
                    sockets.extend(described.into_iter().zip(received));
                }
                Some((Packet::Sockets(_), _)) => {
                    return Err(io::Error::other(
                        "not all sockets arrived: the limit on open files may be too low",
                    ));
                }
                Some((Packet::End(pid), _)) => {
                    return Ok(Self { connection, pid, sockets, left: Vec::new(), gives_counters: false });
                }
                Some(_) => {
                    return Err(io::Error::other("the process to be replaced speaks another language"));
                }
                None => return Err(io::Error::other("the process to be replaced is gone")),
            }
            if sockets.len() > SOCKETS_MAX {
                return Err(io::Error::other("the process to be replaced has too many sockets"));
            }
        }
    }

    /// The socket for `address`, of that name if there is one: a listener may have been renamed.
    pub(super) fn take(&mut self, role: Role, name: &str, address: &str) -> Option<OwnedFd> {
        let fits = |described: &Described| described.role == role && described.address == address;
        let named = self.sockets.iter().position(|(described, _)| fits(described) && described.name == name);
        let position = named.or_else(|| self.sockets.iter().position(|(described, _)| fits(described)))?;
        Some(self.sockets.swap_remove(position).1)
    }

    /// Its counters of rate limits as they stand, at most `most` bytes; `None` if it gives none. Blocks, for as long as it takes
    /// to write them.
    ///
    /// # Errors
    /// They do not come, or are more than that.
    pub(super) fn counters(&self, most: usize) -> io::Result<Option<Vec<u8>>> {
        if !self.gives_counters {
            return Ok(None);
        }
        send(&self.connection, &Packet::Counters(0), &[])?;
        let (length, file) = match receive(&self.connection)? {
            Some((Packet::Counters(length), sockets)) => (length, sockets.into_iter().next()),
            Some(_) => return Err(io::Error::other("the process to be replaced speaks another language")),
            None => return Err(io::Error::other("the process to be replaced is gone")),
        };
        let Some(file) = file else { return Ok(None) };
        if length > most as u64 {
            return Err(io::Error::other(format!("{length} bytes are more than the {most} that are taken")));
        }
        let mut file = File::from(file);
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(io::Error::other(format!("only {} of {length} bytes came", bytes.len())));
        }
        Ok(Some(bytes))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Closes what was not taken: this process does not listen there.
    pub(super) fn let_go(&mut self) {
        self.left.extend(self.sockets.drain(..).map(|(described, _)| described));
    }

    /// This process serves: the old one may leave. If it is gone already, nothing is lost.
    ///
    /// # Errors
    /// It lives and has given up waiting: it goes on, so this process must not.
    pub(super) fn ready(self) -> io::Result<()> {
        if let Err(error) = send(&self.connection, &Packet::Ready(std::process::id()), &[]) {
            if Path::new("/proc").join(self.pid.to_string()).exists() {
                return Err(io::Error::other(format!("process {} did not wait to be replaced", self.pid)));
            }
            tracing::warn!(%error, "the process that was to be replaced is gone");
        }
        // Files of sockets that nobody listens on from now on.
        for path in self.left.iter().filter_map(|left| left.address.strip_prefix("unix:")) {
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
            if is_socket && let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path, %error, "cannot remove the socket");
            }
        }
        Ok(())
    }

    /// This process will not serve: the old one goes on.
    pub fn failed(self, why: &str) {
        let mut end = why.len().min(REASON_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        let why = why.get(..end).unwrap_or_default().to_owned();
        if let Err(error) = send(&self.connection, &Packet::Failed(why), &[]) {
            tracing::debug!(%error, "the process that was to be replaced is gone");
        }
    }
}

fn send(to: &OwnedFd, packet: &Packet, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(packet)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets for one packet"));
    }
    sendmsg(to, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet; `None` when the other side is gone.
fn receive(from: &OwnedFd) -> io::Result<Option<(Packet, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect(),
        _ => Vec::new(),
    });
    let sockets = sockets.collect();
    let packet = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
    Ok(Some((packet, sockets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(name: &str, address: &str) -> Described {
        Described { role: Role::Listener, name: name.to_owned(), address: address.to_owned() }
    }

    #[test]
    fn counters_come_when_they_are_asked_for() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        for (most, gives) in [(1 << 20, true), (1000, true), (1 << 20, false)] {
            let (ours, theirs) = ToSuccessor::pair().unwrap();
            let sent = bytes.clone();
            let old = std::thread::spawn(move || {
                ours.hand_over(&Sockets::default(), Duration::from_secs(10), move || sent)
            });
            let predecessor = Predecessor { gives_counters: gives, ..Predecessor::receive(theirs).unwrap() };
            match predecessor.counters(most) {
                Ok(Some(came)) => assert!(gives && came == bytes),
                Ok(None) => assert!(!gives),
                Err(error) => assert!(most == 1000 && error.to_string().contains("300000"), "{error}"),
            }
            predecessor.ready().unwrap();
            assert_eq!(old.join().unwrap(), Ok(std::process::id()));
        }
    }

    #[test]
    fn sockets_arrive_with_their_names() {
        let (ours, theirs) = ToSuccessor::pair().unwrap();
        let sockets = Sockets::default();
        let mut ports = Vec::new();
        for index in 0..PACKET_SOCKETS_MAX + 3 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let flag = Arc::new(AtomicBool::new(false));
            sockets.hold(described(&format!("l{index}"), "127.0.0.1:0"), listener.as_fd(), flag).unwrap();
        }
        let old = std::thread::spawn(move || ours.hand_over(&sockets, Duration::from_secs(10), Vec::new));
        let mut predecessor = Predecessor::receive(theirs).unwrap();
        for (index, port) in ports.iter().enumerate() {
            let socket = predecessor.take(Role::Listener, &format!("l{index}"), "127.0.0.1:0").unwrap();
            let listener = std::net::TcpListener::from(socket);
            assert_eq!(listener.local_addr().unwrap().port(), *port);
        }
        assert!(predecessor.take(Role::Listener, "l0", "127.0.0.1:0").is_none());
        predecessor.ready().unwrap();
        assert_eq!(old.join().unwrap(), Ok(std::process::id()));
    }

    /// A renamed listener keeps its socket; another role or address is another socket.
    #[test]
    fn what_fits_is_decided_by_role_and_address() {
        let (ours, theirs) = ToSuccessor::pair().unwrap();
        let sockets = Sockets::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        sockets.hold(described("a", "127.0.0.1:0"), listener.as_fd(), Arc::default()).unwrap();
        let old = std::thread::spawn(move || ours.hand_over(&sockets, Duration::from_secs(10), Vec::new));
        let mut predecessor = Predecessor::receive(theirs).unwrap();
        assert!(predecessor.take(Role::Admin, "", "127.0.0.1:0").is_none());
        assert!(predecessor.take(Role::Listener, "a", "127.0.0.1:1").is_none());
        assert!(predecessor.take(Role::Listener, "b", "127.0.0.1:0").is_some());
        predecessor.failed("no \u{1f980} here");
        assert_eq!(old.join().unwrap(), Err(Some("no \u{1f980} here".to_owned())));
    }

    #[test]
    fn a_crash_and_silence_are_told_apart() {
        let (ours, theirs) = ToSuccessor::pair().unwrap();
        let silent =
            ours.hand_over(&Sockets::default(), Duration::from_millis(50), Vec::new).unwrap_err().unwrap();
        assert!(silent.contains("not ready within"), "{silent}");
        drop(theirs);
        assert_eq!(ours.hand_over(&Sockets::default(), Duration::from_secs(10), Vec::new), Err(None));
    }
}
