//! The life of the process under load: see `load-tests/README.md` and the scripts beside it, which build and run this.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::large_futures,
    clippy::disallowed_methods,
    reason = "a test with a command line: a panic is a failed test"
)]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside this program reads it")]

mod harness;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use harness::{
    NothingDropped, ReloadCost, ReloadLeaks, nginx_drops, nothing_dropped, reload_cost, reload_leaks,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Cli {
    /// The binary under test [default: `edgeward` in the directory above this program's]
    #[arg(long, global = true)]
    edgeward: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every kind of client at once, through reloads and upgrades: nothing may be lost
    NothingDropped {
        #[arg(long, default_value_t = NothingDropped::whole().reloads)]
        reloads: u32,
        #[arg(long, default_value_t = NothingDropped::whole().upgrades)]
        upgrades: u32,
        /// Milliseconds between two of them
        #[arg(long, default_value_t = 800)]
        every: u64,
        /// Seconds before the first and after the last
        #[arg(long, default_value_t = 5)]
        around: u64,
        /// As in the tests: fewer clients, shorter uploads and grace period
        #[arg(long)]
        short: bool,
        /// The same to another program: `nginx` (reloads only)
        #[arg(long, value_parser = ["nginx"])]
        peer: Option<String>,
    },
    /// How long a reload of many routes takes, and what requests meanwhile notice
    ReloadCost {
        #[arg(long, default_value_t = 10_000)]
        routes: u32,
        #[arg(long, default_value_t = 15)]
        rounds: u32,
        /// Requests a second
        #[arg(long, default_value_t = 1000)]
        rate: u32,
    },
    /// What reloads leave behind
    ReloadLeaks {
        #[arg(long, default_value_t = 100)]
        warm_up: u32,
        #[arg(long, default_value_t = 1000)]
        reloads: u32,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let beside = || {
        let own = std::env::current_exe().expect("a path of its own");
        own.ancestors().nth(2).expect("a directory above").join("edgeward")
    };
    let binary = cli.edgeward.unwrap_or_else(beside);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let work = async {
        match cli.command {
            Command::NothingDropped { reloads, upgrades, every, around, short, peer } => {
                let plan = if short { NothingDropped::short() } else { NothingDropped::whole() };
                let (every, around) = (Duration::from_millis(every), Duration::from_secs(around));
                let plan = NothingDropped { reloads, upgrades, every, around, ..plan };
                match peer {
                    Some(nginx) => nginx_drops(std::path::Path::new(&nginx), plan).await,
                    None => nothing_dropped(&binary, plan).await,
                }
            }
            Command::ReloadCost { routes, rounds, rate } => {
                let connections = 16;
                let plan = ReloadCost {
                    routes,
                    rounds,
                    connections,
                    every: Duration::from_secs(1) * connections / rate.max(1),
                    before: Duration::from_secs(2),
                    time_max: Duration::from_secs(1),
                    ratio_max: 2.0,
                };
                reload_cost(&binary, plan).await
            }
            Command::ReloadLeaks { warm_up, reloads } => {
                reload_leaks(&binary, ReloadLeaks { warm_up, reloads, growth_percent: 5 }).await
            }
        }
    };
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).expect("signals");
        // Dropped, the work takes its processes along.
        tokio::select! {
            outcome = work => outcome,
            _ = terminate.recv() => Err("told to end".to_owned()),
            _ = tokio::signal::ctrl_c() => Err("told to end".to_owned()),
        }
    });
    let (text, status) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(text) => (text, ExitCode::FAILURE),
    };
    println!("{}", text.trim_end());
    status
}
