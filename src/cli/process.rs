//! `edgeward reload`, `upgrade`, `quit`, `stop`, `reopen` and `status`: to a running process, over its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::args::Order;
use super::{OK, PROBLEMS, fail, print, run};
use crate::app::control;
use crate::base::clock;
use crate::base::decode::ConfigPath;
use crate::base::origin::At;
use crate::base::out;
use crate::config::{self, render};

/// It was told, and nobody can say yet what came of it.
const OUTCOME_UNKNOWN: u8 = 3;

impl Order {
    fn word(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Stop => "stop",
            Self::Reopen => "reopen",
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Status => "status",
        }
    }

    fn signal(self) -> Option<Signal> {
        match self {
            Self::Quit => Some(Signal::QUIT),
            Self::Stop => Some(Signal::INT),
            Self::Reopen => Some(Signal::USR1),
            Self::Reload => Some(Signal::HUP),
            Self::Upgrade => Some(Signal::USR2),
            Self::Status => None,
        }
    }

    fn signal_name(self) -> &'static str {
        match self {
            Self::Quit => "QUIT",
            Self::Stop => "INT",
            Self::Reopen => "USR1",
            Self::Reload => "HUP",
            Self::Upgrade => "USR2",
            Self::Status => "no signal",
        }
    }
}

/// Carries `order` to the process that runs with the configuration.
pub(super) fn run(config: Option<&Path>, order: Order) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    // Only where the process is reached matters here: what is wrong with the rest, the process itself has to say.
    let (server, sources, diagnostics) = config::load_server(&path, config::surroundings());
    let server = server.unwrap_or_default();
    let file = |file: Option<At<ConfigPath>>| -> Option<PathBuf> { file.map(|at| absolute(&at.value.0)) };
    match (file(server.control_socket), file(server.pid_file)) {
        (Some(socket), pid_file) => over_socket(&absolute(&path), &socket, pid_file.as_deref(), order),
        (None, Some(pid_file)) => by_signal(&pid_file, order, "no server.control_socket is configured"),
        (None, None) => {
            if diagnostics.has_errors() {
                // One of them may be what keeps the two from being seen.
                out::complain(&render::text(&diagnostics, &sources, out::complaints_are_read()));
            }
            fail(
                "neither server.control_socket nor server.pid_file is configured: there is nobody to tell\n  \
                 hint: set server.control_socket, and start it anew",
            )
        }
    }
}

/// As it is called from everywhere.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn over_socket(config: &Path, socket: &Path, pid_file: Option<&Path>, order: Order) -> u8 {
    let reply = match control::ask(socket, order.word()) {
        Ok(reply) => reply,
        // The process may still have the socket of the configuration it started with.
        Err(error) if is_nobody(&error) && pid_file.is_some_and(is_running) && order.signal().is_some() => {
            let why = format!("the running process has another control socket than {}", socket.display());
            return pid_file.map_or(PROBLEMS, |file| by_signal(file, order, &why));
        }
        Err(error) => return fail(&unanswered(config, socket, &error)),
    };
    let text = |key: &str| reply.get(key).and_then(Value::as_str).unwrap_or_default();
    if reply.get("ok").and_then(Value::as_bool) != Some(true) {
        if reply.get("pending").and_then(Value::as_bool) == Some(true) {
            out::complain(
                "edgeward: it is still under way; the log of the process will say what came of it\n",
            );
            return OUTCOME_UNKNOWN;
        }
        out::complain(text("problems"));
        return match order {
            Order::Reload => fail(&format!("not reloaded, nothing has changed: {}", text("error"))),
            Order::Upgrade => fail(&format!("not upgraded, the process goes on: {}", text("error"))),
            _ => fail(&format!("the process refuses: {}", text("error"))),
        };
    }
    match order {
        Order::Status => print(&format!("{:#}\n", reply.get("status").unwrap_or(&Value::Null))),
        Order::Reload => {
            out::complain(text("warnings"));
            let changes = text("changes");
            let number = |key: &str| reply.get(key).and_then(Value::as_u64).unwrap_or_default();
            print(&format!(
                "{}reloaded: generation {}, in {} ms\n",
                if changes.is_empty() { "nothing changed\n" } else { changes },
                number("generation"),
                number("milliseconds"),
            ))
        }
        Order::Upgrade => {
            let pid = reply.get("pid").and_then(Value::as_u64).unwrap_or_default();
            print(&format!("upgraded: process {pid} serves\n"))
        }
        Order::Quit | Order::Stop => see_it_end(socket, &reply),
        Order::Reopen => OK,
    }
}

/// Why nobody answers on `socket`, and what to do.
fn unanswered(config: &Path, socket: &Path, error: &io::Error) -> String {
    let (config, socket) = (config.display(), socket.display());
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "edgeward does not run with {config} (there is no {socket})\n  \
             hint: if it was started with another control_socket, send it HUP (reload) or USR2 (upgrade)"
        ),
        io::ErrorKind::ConnectionRefused => format!(
            "edgeward does not run with {config} ({socket} was left behind by a process that is gone)"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("nobody may use {socket} but the user of the process and root: {error}")
        }
        _ => format!("nobody answers on {socket}: {error}"),
    }
}

/// How often it is looked whether a process is still there.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for the end of the process that gave `reply`; what comes next may need its addresses.
fn see_it_end(socket: &Path, reply: &Value) -> u8 {
    let number = |key: &str| reply.get(key).and_then(Value::as_u64).unwrap_or_default();
    let pid = number("pid");
    let Some(began) = beginning(pid) else { return OK };
    let until = clock::now() + Duration::from_millis(number("milliseconds")).min(WAIT_MAX);
    while beginning(pid) == Some(began) {
        if clock::now() >= until {
            let status = control::ask(socket, Order::Status.word()).unwrap_or_default();
            let open = status.pointer("/status/connections").and_then(Value::as_u64).unwrap_or_default();
            out::complain(&format!("edgeward: process {pid} is still finishing: {open} connections\n"));
            return OUTCOME_UNKNOWN;
        }
        #[expect(clippy::disallowed_methods, reason = "a command waits here, and serves nobody")]
        std::thread::sleep(LOOK_EVERY);
    }
    OK
}

/// No grace period is longer: the addition must not overflow.
const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// When process `pid` began, in the kernel's ticks: tells it from a later one of the same id. `None` if it is not there,
/// or has ended and only its parent has not noticed.
fn beginning(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before stands in parentheses, and may hold any.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let began = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(began)
}

/// Sends a signal for `order`; `why` not more can be done.
fn by_signal(pid_file: &Path, order: Order, why: &str) -> u8 {
    let Some(signal) = order.signal() else {
        return fail("server.control_socket is not configured: there is nobody to ask");
    };
    let text = match std::fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) => return fail(&format!("cannot read {}: {error}", pid_file.display())),
    };
    let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else {
        return fail(&format!("{} does not hold a process id", pid_file.display()));
    };
    if !is_running(pid_file) {
        let pid = pid.as_raw_nonzero();
        return fail(&format!("process {pid} of {} is not edgeward, or not there", pid_file.display()));
    }
    match kill_process(pid, signal) {
        Ok(()) => {
            let (name, pid) = (order.signal_name(), pid.as_raw_nonzero());
            out::complain(&format!(
                "edgeward: {name} was sent to process {pid}; what came of it stands in its log\n  note: {why}\n"
            ));
            OUTCOME_UNKNOWN
        }
        Err(error) => fail(&format!("process {}: {error}", pid.as_raw_nonzero())),
    }
}

/// Whether nobody listens there.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whether the process that the file names runs what this process runs: ids are used again.
fn is_running(pid_file: &Path) -> bool {
    let name = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let pid = std::fs::read_to_string(pid_file).unwrap_or_default();
    name(pid.trim()).is_some_and(|other| Some(other) == name("self"))
}
