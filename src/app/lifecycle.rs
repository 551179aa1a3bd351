//! Signals and control commands become the same closed set of commands; this decides how the process ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::Health;
use crate::ingress::connection::Connections;

/// What an operator can ask of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Stop accepting, finish what is open within the grace period, exit (QUIT, TERM).
    Quit,
    /// Stop at once (INT).
    Stop,
    /// Reopen the log files (USR1).
    Reopen,
    /// Reload the configuration (HUP): named here so that the signal does not kill; see [`Lifecycle::run`].
    Reload,
    /// Upgrade the binary (USR2): as for [`Command::Reload`].
    Upgrade,
}

/// Commands waiting to be carried out; operators do not send more.
const COMMANDS_MAX: usize = 16;

/// The end of the process, told to everybody who has to act on it.
#[derive(Debug)]
pub struct Lifecycle {
    commands: mpsc::Receiver<Command>,
    sender: mpsc::Sender<Command>,
    stop_accepting: watch::Sender<bool>,
    draining: watch::Sender<bool>,
}

impl Lifecycle {
    /// A life that has just begun.
    pub fn new() -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        Self {
            commands,
            sender,
            stop_accepting: watch::Sender::new(false),
            draining: watch::Sender::new(false),
        }
    }

    /// Where commands are sent.
    pub fn sender(&self) -> mpsc::Sender<Command> {
        self.sender.clone()
    }

    /// Turns true when listeners are to be closed.
    pub fn stop_accepting(&self) -> watch::Receiver<bool> {
        self.stop_accepting.subscribe()
    }

    /// Turns true when connections are to be closed after what they are serving.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Obeys commands until the process is to end; returns how it went, for the log.
    pub async fn run(&mut self, drain: &Drain, mut reopen: impl FnMut()) -> Ending {
        loop {
            match self.commands.recv().await {
                Some(Command::Reopen) => reopen(),
                Some(command @ (Command::Reload | Command::Upgrade)) => {
                    tracing::warn!(?command, "not available in this version: nothing was changed");
                }
                Some(Command::Quit) => return self.quit(drain, &mut reopen).await,
                // No sender left cannot be: we hold one.
                Some(Command::Stop) | None => return Ending::Stopped,
            }
        }
    }

    async fn quit(&mut self, drain: &Drain, reopen: &mut impl FnMut()) -> Ending {
        drain.health.drain();
        tracing::info!(open = drain.connections.open(), "draining");
        let stop_accepting = self.stop_accepting.clone();
        let draining = self.draining.clone();
        let drained = async {
            tokio::time::sleep(drain.delay).await;
            stop_accepting.send_replace(true);
            draining.send_replace(true);
            match tokio::time::timeout(drain.grace_period, drain.connections.all_closed()).await {
                Ok(()) => Ending::Drained,
                Err(_) => Ending::GraceOver(drain.connections.open()),
            }
        };
        tokio::pin!(drained);
        // A second QUIT changes nothing; INT does.
        loop {
            tokio::select! {
                ending = &mut drained => return ending,
                command = self.commands.recv() => match command {
                    Some(Command::Stop) => return Ending::Stopped,
                    Some(Command::Reopen) => reopen(),
                    _ => {}
                }
            }
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

/// What draining waits for.
#[derive(Debug)]
pub struct Drain {
    /// Told first: load balancers in front look here.
    pub health: Arc<Health>,
    /// Waited for.
    pub connections: Arc<Connections>,
    /// How long connections are still accepted meanwhile.
    pub delay: Duration,
    /// How long open connections have.
    pub grace_period: Duration,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was open came to its end.
    Drained,
    /// So many connections were still open when the grace period was over.
    GraceOver(usize),
    /// At once, as asked.
    Stopped,
}

/// Installs the handlers (from now on no signal kills) and returns what turns signals into commands while polled.
pub(super) fn signals(commands: mpsc::Sender<Command>) -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            let command = tokio::select! {
                () = recv(&mut interrupt) => Command::Stop,
                () = recv(&mut terminate) => Command::Quit,
                () = recv(&mut quit) => Command::Quit,
                () = recv(&mut user1) => Command::Reopen,
                () = recv(&mut hangup) => Command::Reload,
                () = recv(&mut user2) => Command::Upgrade,
            };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    })
}

async fn recv(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}
