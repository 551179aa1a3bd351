//! `edgeward quit`, `stop`, `reopen` and `status`: to a running process, over its control socket.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::args::Order;
use super::{OK, PROBLEMS, fail, print, run};
use crate::app::control;
use crate::base::out;
use crate::config::settings::ServerSettings;
use crate::config::{self, Runtime, render};

/// A signal was sent, and nobody can say what came of it.
const OUTCOME_UNKNOWN: u8 = 3;

/// Carries `order` to the process that runs with the configuration.
pub(super) fn run(config: Option<&Path>, order: Order) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    run::install_provider();
    let compiled = config::load(&path, config::surroundings()).compile(&Runtime::detached());
    let Some(snapshot) = compiled.snapshot else {
        out::complain(&render::text(&compiled.diagnostics, &compiled.sources, out::complaints_are_read()));
        return PROBLEMS;
    };
    match &snapshot.server.control_socket {
        Some(socket) => over_socket(socket, order),
        None => by_signal(&snapshot.server, order),
    }
}

fn over_socket(socket: &Path, order: Order) -> u8 {
    let word = match order {
        Order::Quit => "quit",
        Order::Stop => "stop",
        Order::Reopen => "reopen",
        Order::Status => "status",
    };
    match control::ask(socket, word) {
        Ok(reply) if reply.get("ok").and_then(serde_json::Value::as_bool) == Some(true) => {
            match reply.get("status") {
                Some(status) => print(&format!("{status:#}\n")),
                None => OK,
            }
        }
        Ok(reply) => fail(&format!("the process refuses: {reply}")),
        Err(error) => fail(&format!("nobody answers on {}: {error}", socket.display())),
    }
}

fn by_signal(server: &ServerSettings, order: Order) -> u8 {
    let signal = match order {
        Order::Quit => Signal::QUIT,
        Order::Stop => Signal::INT,
        Order::Reopen => Signal::USR1,
        Order::Status => return fail("server.control_socket is not configured: there is nobody to ask"),
    };
    let Some(file) = &server.pid_file else {
        return fail(
            "neither server.control_socket nor server.pid_file is configured: there is nobody to tell",
        );
    };
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return fail(&format!("cannot read {}: {error}", file.display())),
    };
    let Some(pid) = text.trim().parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) else {
        return fail(&format!("{} does not hold a process id", file.display()));
    };
    match kill_process(pid, signal) {
        Ok(()) => {
            out::complain(
                "edgeward: a signal was sent; outcome unknown (configure server.control_socket to be told)\n",
            );
            OUTCOME_UNKNOWN
        }
        Err(error) => fail(&format!("process {}: {error}", pid.as_raw_nonzero())),
    }
}
