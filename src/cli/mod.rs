//! The command line: what the user typed, and what is printed back.
//!
//! `args` says what can be typed; each command that prints is a file of its own. Exit statuses: 0 done, 1 the
//! configuration (or the work) has problems, 2 the command line itself makes no sense, 3 a process was told, and what came
//! of it is not known.

mod args;
mod check;
mod demo;
mod documents;
mod explain;
mod habits;
mod import;
mod init;
mod machine;
mod process;
mod run;
mod store;
mod version;

use std::process::ExitCode;

use clap::Parser;

use crate::base::out;
use args::{Cli, Command, ImportFrom, Order};

/// Done.
const OK: u8 = 0;
/// There are problems; they were printed.
const PROBLEMS: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 2;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help is an "error" to clap, but goes to standard output with status 0.
        Err(error) => {
            let printed = error.print();
            let status = if error.use_stderr() || printed.is_err() { USAGE } else { OK };
            return ExitCode::from(status);
        }
    };
    ExitCode::from(dispatch(cli))
}

fn dispatch(mut cli: Cli) -> u8 {
    if cli.version {
        return print(&version::text(false));
    }
    if cli.short_version || cli.long_version {
        return habits::version(cli.long_version);
    }
    if let Some(directives) = &cli.directives {
        return habits::directives(directives);
    }
    if let Some(Command::Init { directory }) = &cli.command
        && let Some(refusal) = habits::init(directory, cli.config.as_deref(), cli.prefix.as_deref())
    {
        return refusal;
    }
    if let Some(prefix) = cli.prefix.take() {
        cli.config = Some(habits::within(&prefix, cli.config.as_deref()));
    }
    if cli.test || cli.dump {
        return habits::test(cli.config.as_deref(), cli.dump, cli.quiet);
    }
    if let Some(signal) = cli.signal {
        return process::run(cli.config.as_deref(), signal.into());
    }
    match cli.command {
        Some(Command::Init { directory }) => init::run(&directory),
        Some(Command::Import { from: ImportFrom::Nginx { file, output, prefix, strict } }) => {
            import::nginx(&file, output.as_deref(), prefix.as_deref(), strict)
        }
        Some(Command::Completions { shell }) => print(&documents::completions(shell)),
        Some(Command::Man) => match documents::man() {
            Ok(page) => print(&page),
            Err(error) => fail(&format!("the manual page cannot be written: {error}")),
        },
        Some(Command::Demo { free_ports }) => demo::run(cli.config.as_deref(), free_ports),
        Some(Command::Check { file: Some(_), .. }) if cli.config.is_some() => {
            out::complain("edgeward: check takes one file: with -c or without, not both\n");
            USAGE
        }
        Some(Command::Check { file, format }) => check::run(file.or(cli.config).as_deref(), format),
        Some(Command::Schema) => check::schema(),
        Some(Command::Explain { headers, client, method, url }) => {
            explain::run(cli.config.as_deref(), &headers, client, &method, &url)
        }
        Some(Command::User { command, output }) => store::user(cli.config.as_deref(), command, output.json),
        Some(Command::Consumer { command, output }) => {
            store::consumer(cli.config.as_deref(), command, output.json)
        }
        Some(Command::Key { command, output }) => store::key(cli.config.as_deref(), command, output.json),
        Some(Command::Token { command, output }) => store::token(cli.config.as_deref(), command, output.json),
        Some(Command::Service { command, output }) => {
            store::service(cli.config.as_deref(), command, output.json)
        }
        Some(Command::Quit) => process::run(cli.config.as_deref(), Order::Quit),
        Some(Command::Stop) => process::run(cli.config.as_deref(), Order::Stop),
        Some(Command::Reload) => process::run(cli.config.as_deref(), Order::Reload),
        Some(Command::Upgrade) => process::run(cli.config.as_deref(), Order::Upgrade),
        Some(Command::Reopen) => process::run(cli.config.as_deref(), Order::Reopen),
        Some(Command::Status) => process::run(cli.config.as_deref(), Order::Status),
        Some(Command::Run) | None => run::run(cli.config.as_deref()),
    }
}

/// Prints to standard output; the status says whether that worked.
fn print(text: &str) -> u8 {
    match out::print(text) {
        Ok(()) => OK,
        Err(error) => fail(&format!("cannot write to standard output: {error}")),
    }
}

/// Says what went wrong.
fn fail(message: &str) -> u8 {
    out::complain(&format!("edgeward: {message}\n"));
    PROBLEMS
}

/// Where the configuration is looked for when none is named, in this order.
const DEFAULT_CONFIGS: [&str; 2] = ["edgeward.toml", "conf/edgeward.toml"];
