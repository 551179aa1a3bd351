//! The next process: started beside this one, given the listening sockets, and waited for until it serves.
//!
//! Until it says so nothing has changed here; whatever goes wrong before is told, and this process goes on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::handover::{COUNTERS, OFFERS_VARIABLE, STDIN, Sockets, ToSuccessor, VARIABLE};
use super::service_manager;
use crate::base::{clock, task};
use crate::policy::rate_limit;

/// Time the new process has until it serves: to read its configuration, find servers, start threads.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How this process was started, and so how the next one is.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Invocation {
    /// The command line of this process. The program is remembered by the name it was started under, not by the file
    /// that was behind it then: whoever upgrades puts another file, or another link, in its place.
    pub fn of_this_process() -> Self {
        let mut arguments = std::env::args_os();
        let name = arguments.next().map(PathBuf::from);
        let program = name.as_deref().and_then(find).or_else(|| std::env::current_exe().ok());
        Self {
            program: program.or(name).unwrap_or_else(|| "edgeward".into()),
            arguments: arguments.collect(),
        }
    }
}

/// The file that the shell found under `name`, links not followed.
fn find(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// Starts the next process.
#[derive(Debug)]
pub struct Upgrader {
    /// `None` where this process cannot be replaced: the reason.
    invocation: Result<Invocation, &'static str>,
    sockets: Arc<Sockets>,
    /// The counters that it goes on with.
    limits: Arc<rate_limit::Live>,
}

impl Upgrader {
    /// Starts what `invocation` says and gives it `sockets` and the counters of `limits`; an `Err` says why this process
    /// cannot be replaced.
    pub(super) fn new(
        invocation: Result<Invocation, &'static str>,
        sockets: Arc<Sockets>,
        limits: Arc<rate_limit::Live>,
    ) -> Self {
        Self { invocation, sockets, limits }
    }

    /// Starts a new process and waits until it serves. Dropped before, or failed, it leaves none behind.
    ///
    /// # Errors
    /// Why this process goes on.
    pub async fn upgrade(&self) -> Result<Successor, String> {
        let invocation = self.invocation.as_ref().map_err(|why| (*why).to_owned())?;
        if std::process::id() == 1 {
            return Err("this is process 1, and its end is the end of the container: \
                        reload for another configuration, start a new container for another binary"
                .to_owned());
        }
        tracing::info!(program = %invocation.program.display(), "upgrading");
        let (connection, theirs) = ToSuccessor::pair().map_err(|error| format!("no socket: {error}"))?;
        let child = Command::new(&invocation.program)
            .args(&invocation.arguments)
            .env(VARIABLE, STDIN)
            .env(OFFERS_VARIABLE, COUNTERS)
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", invocation.program.display()))?;
        let mut successor = Successor { pid: child.id(), child: Some(child) };
        let (sockets, limits) = (self.sockets.clone(), self.limits.clone());
        let counters = move || {
            let (counters, is_cut) = limits.export(clock::now());
            if is_cut {
                tracing::warn!("more counters of rate limits than can be handed over: the others begin anew");
            }
            counters
        };
        let handed = task::blocking(move || connection.hand_over(&sockets, READY_TIMEOUT, counters)).await;
        match handed {
            Ok(Ok(pid)) => {
                self.sockets.set_handed_over(true);
                // systemd takes this from its main process, which the new one is only from here on.
                service_manager::main_pid(pid);
                // Not always the child's: a script may stand between, and only who has the socket can have said so.
                successor.pid = pid;
                Ok(successor)
            }
            Ok(Err(Some(why))) => {
                let pid = successor.pid;
                drop(task::blocking(move || successor.end()));
                Err(format!("the new process {pid}: {}", why.trim_end()))
            }
            Ok(Err(None)) => {
                let pid = successor.pid;
                let ended = task::blocking(move || successor.end()).await;
                let how = ended
                    .ok()
                    .flatten()
                    .map_or_else(|| "without a word".to_owned(), |status| status.to_string());
                Err(format!("the new process {pid} ended before it was ready: {how}"))
            }
            Err(error) => Err(format!("the hand-over broke off: {error}")),
        }
    }

    /// The files of all sockets are this process's: the one before has left them to it.
    pub(super) fn keep_files(&self) {
        self.sockets.set_handed_over(false);
    }

    /// Closes the sockets kept for a next process: there will be none.
    pub(super) fn let_go(&self) {
        self.sockets.let_go();
    }
}

/// The process that replaces this one. Killed when dropped: a process that is not waited for must not serve.
#[derive(Debug)]
pub struct Successor {
    pid: u32,
    child: Option<Child>,
}

impl Successor {
    /// Lets it live, and returns its id.
    pub(super) fn release(mut self) -> u32 {
        self.child = None;
        self.pid
    }

    /// Tells it to reload, which it can: it serves.
    pub(super) fn reload(&self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let told = pid.map_or(Ok(()), |pid| kill_process(pid, Signal::HUP));
        if let Err(error) = told {
            tracing::warn!(pid = self.pid, %error, "the new process cannot be told to reload");
        }
    }

    /// Its end, which has begun: killing it again changes nothing, and if it only closed its side it goes now.
    fn end(mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        child.kill().and_then(|()| child.wait()).ok()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Err(error) = child.kill() {
            tracing::warn!(pid = child.id(), %error, "the new process could not be ended");
        }
        // It may take its time to go, which must not hold up signals. At the end of this process somebody else waits for it.
        if tokio::runtime::Handle::try_current().is_ok() {
            drop(task::blocking(move || child.wait()));
        }
    }
}
