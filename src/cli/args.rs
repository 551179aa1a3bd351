//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::store::args as store;

/// API gateway and edge proxy in one binary, configured by one TOML file.
#[derive(Debug, Parser)]
#[command(
    name = "edgeward",
    disable_version_flag = true,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100,
    after_help = EXAMPLES
)]
pub(super) struct Cli {
    /// Configuration file [default: edgeward.toml, then conf/edgeward.toml]
    #[arg(short = 'c', long = "config", value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,

    /// Directory that the configuration is looked for in, and relative to
    #[arg(short = 'p', value_name = "PREFIX", global = true)]
    pub(super) prefix: Option<PathBuf>,

    /// Test the configuration and exit, in nginx's words
    #[arg(short = 't', action = ArgAction::SetTrue, conflicts_with_all = ["dump", "signal"])]
    pub(super) test: bool,

    /// Test the configuration, print all of its files and exit
    #[arg(short = 'T', action = ArgAction::SetTrue, conflicts_with = "signal")]
    pub(super) dump: bool,

    /// With -t and -T: say nothing when all is well
    #[arg(short = 'q', action = ArgAction::SetTrue)]
    pub(super) quiet: bool,

    /// Tell the running process: the commands of these names
    #[arg(short = 's', value_name = "SIGNAL", value_enum)]
    pub(super) signal: Option<SignalName>,

    /// Not offered: settings stand in the configuration file
    #[arg(short = 'g', value_name = "DIRECTIVES", hide = true, allow_hyphen_values = true)]
    pub(super) directives: Option<String>,

    /// Print the version
    #[arg(short = 'v', action = ArgAction::SetTrue)]
    pub(super) short_version: bool,

    /// Print the version and how this binary was built
    #[arg(short = 'V', action = ArgAction::SetTrue)]
    pub(super) long_version: bool,

    /// Print the version to standard output
    #[arg(long = "version", action = ArgAction::SetTrue)]
    pub(super) version: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// What a running process can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Quit,
    Stop,
    Reopen,
    Reload,
    Upgrade,
    Status,
}

/// What `-s` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SignalName {
    Stop,
    Quit,
    Reload,
    Reopen,
}

impl From<SignalName> for Order {
    fn from(name: SignalName) -> Self {
        match name {
            SignalName::Stop => Self::Stop,
            SignalName::Quit => Self::Quit,
            SignalName::Reload => Self::Reload,
            SignalName::Reopen => Self::Reopen,
        }
    }
}

/// How problems are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReportFormat {
    /// For people: excerpt, caret and hint.
    Text,
    /// For machines: an array of objects.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Start the gateway (the default command)
    ///
    /// Runs in the foreground: prints what listens where, then `ready`. The process log goes to standard error, the
    /// access log where the configuration says.
    #[command(after_help = RUN_NOTES)]
    Run,

    /// Start a gateway with the sample services it fronts, and print a tour of requests to try
    ///
    /// Everything runs in this one process on 127.0.0.1: the gateway on 8080 and 8443, the admin listener on 9901, the
    /// services on 7001 to 7005.
    #[command(after_help = DEMO_NOTES)]
    Demo {
        /// Let the system choose the ports
        #[arg(long)]
        free_ports: bool,
    },

    /// Check the configuration and print every problem in it
    ///
    /// Compiles like a start would, but binds, starts and looks up nothing. Exit status 1 if there is an error.
    #[command(after_help = CHECK_NOTES)]
    Check {
        /// The configuration file, as with -c
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// How problems are printed
        #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
        format: ReportFormat,
    },

    /// Say which route takes a request, why the others do not, and what becomes of it
    ///
    /// Answers from the table that requests are routed by. Nothing is sent, and nothing counted: what is left of rate limits
    /// the running process is asked over its control socket.
    #[command(after_help = EXPLAIN_NOTES)]
    Explain {
        /// A header of the request, `Name: value`; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
        headers: Vec<String>,
        /// The address that it comes from, after trusted proxies
        #[arg(long, value_name = "ADDRESS")]
        client: Option<std::net::IpAddr>,
        /// The method
        method: String,
        /// The URL, or just a path
        url: String,
    },

    /// Print a JSON Schema of the configuration, for editors
    #[command(after_help = SCHEMA_NOTES)]
    Schema,

    /// Have the running process finish what is open and exit
    ///
    /// Returns when the process has ended: at most `server.drain_delay` and `server.grace_period` later, with exit status 3
    /// if it is still there then. Over the control socket of the configuration; without one by the signal QUIT and the pid
    /// file, with exit status 3 at once.
    #[command(after_help = ORDER_NOTES)]
    Quit,

    /// Have the running process exit at once
    #[command(after_help = ORDER_NOTES)]
    Stop,

    /// Have the running process take its configuration anew
    ///
    /// Prints what changed, or every problem: then nothing has changed. Requests under way end on the configuration they
    /// began with. Listeners, threads and the like cannot change in a running process: see `upgrade`.
    #[command(after_help = RELOAD_NOTES)]
    Reload,

    /// Replace the running process by a new one, with the binary and the configuration of now
    ///
    /// The new process takes over the listening sockets; only when it serves does the old one stop accepting, finish
    /// what is open within `server.grace_period`, and exit. If the new one cannot start, the old one goes on.
    #[command(after_help = UPGRADE_NOTES)]
    Upgrade,

    /// Have the running process reopen its log files
    #[command(after_help = ORDER_NOTES)]
    Reopen,

    /// Ask the running process how it is
    #[command(after_help = ORDER_NOTES)]
    Status,

    /// Users of the store: who may log in
    #[command(after_help = store::USER_NOTES)]
    User {
        #[command(subcommand)]
        command: store::User,
        #[command(flatten)]
        output: store::Output,
    },

    /// Consumers of the store: parties that use services
    #[command(after_help = store::CONSUMER_NOTES)]
    Consumer {
        #[command(subcommand)]
        command: store::Consumer,
        #[command(flatten)]
        output: store::Output,
    },

    /// Services of the store: routes that are added and taken away while it runs
    #[command(after_help = store::SERVICE_NOTES)]
    Service {
        #[command(subcommand)]
        command: store::Service,
        #[command(flatten)]
        output: store::Output,
    },

    /// API keys of consumers
    #[command(after_help = store::KEY_NOTES)]
    Key {
        #[command(subcommand)]
        command: store::Key,
        #[command(flatten)]
        output: store::Output,
    },

    /// Tokens: revoke, verify, issue
    #[command(after_help = store::TOKEN_NOTES)]
    Token {
        #[command(subcommand)]
        command: store::Token,
        #[command(flatten)]
        output: store::Output,
    },

    /// Write a commented configuration to start from
    ///
    /// Makes DIR/edgeward.toml, which runs as it is. An existing file is never overwritten.
    #[command(after_help = INIT_NOTES)]
    Init {
        /// Where to put it
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },

    /// Translate the configuration of another gateway
    #[command(after_help = IMPORT_NOTES)]
    Import {
        #[command(subcommand)]
        from: ImportFrom,
    },

    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_NOTES)]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Print the manual page
    #[command(after_help = MAN_NOTES)]
    Man,
}

/// Whose configuration is translated.
#[derive(Debug, Subcommand)]
pub(super) enum ImportFrom {
    /// Translate nginx' configuration
    ///
    /// Prints the TOML, and on standard error a table: what was translated, approximated (how) and dropped (why), each
    /// with file and line. Includes are read. What is printed passes `edgeward check`; routes whose protection cannot
    /// be said answer 403.
    #[command(after_help = IMPORT_NGINX_NOTES)]
    Nginx {
        /// The main file, or what `nginx -T` prints; `-` for standard input
        file: PathBuf,
        /// Where the TOML is written; a file that is there is left alone
        #[arg(short = 'o', long = "output", value_name = "FILE")]
        output: Option<PathBuf>,
        /// What relative paths other than includes and certificates start at [default: the directory of FILE]
        #[arg(long, value_name = "DIR")]
        prefix: Option<PathBuf>,
        /// Exit with 1 if anything was dropped
        #[arg(long)]
        strict: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  edgeward demo                              see it work: a gateway, four services, requests to try
  edgeward init && edgeward                  start from a commented configuration
  edgeward check -c conf/edgeward.toml       every mistake at once, with line, column and suggestion
  edgeward explain GET /api/users/7          which route that takes, and why

Signals: HUP reloads, USR2 upgrades, USR1 reopens logs, TERM and QUIT finish what is open and exit, INT stops at once.
Exit status: 0 done, 1 it failed or the configuration has problems, 2 wrong usage, 3 the process was told, and what came
of it is not known (no control socket, or it has not ended yet).";

const RUN_NOTES: &str = "\
Examples:
  edgeward run -c /etc/edgeward/edgeward.toml
  edgeward                                   the same with ./edgeward.toml or ./conf/edgeward.toml";

const DEMO_NOTES: &str = "\
Examples:
  edgeward demo                              then try the lines it prints in another terminal
  edgeward demo --free-ports                 when 8080 is taken";

const CHECK_NOTES: &str = "\
Examples:
  edgeward check edgeward.toml
  edgeward check -c /etc/edgeward/edgeward.toml
  edgeward check --format json | jq '.[].message'";

const EXPLAIN_NOTES: &str = "\
Examples:
  edgeward explain GET /api/users/7
  edgeward explain -H 'X-Api-Version: 2' GET https://api.example.com/api/products
  edgeward explain --client 192.0.2.7 GET /api/users/7      what is left of the limits of that client";

const SCHEMA_NOTES: &str = "\
Examples:
  edgeward schema > edgeward.schema.json     then name it at the top of a file: #:schema ./edgeward.schema.json";

const ORDER_NOTES: &str = "\
Examples:
  edgeward status -c /etc/edgeward/edgeward.toml
  edgeward quit -c /etc/edgeward/edgeward.toml";

const RELOAD_NOTES: &str = "\
Examples:
  edgeward reload -c /etc/edgeward/edgeward.toml
  edgeward -s reload                         the same with ./edgeward.toml or ./conf/edgeward.toml

Exit status: 0 reloaded, 1 not reloaded, 3 a signal was sent and the outcome is unknown (no control socket).";

const UPGRADE_NOTES: &str = "\
Examples:
  install -m 755 edgeward-next /usr/local/bin/edgeward && edgeward upgrade -c /etc/edgeward/edgeward.toml

Exit status: 0 the new process serves, 1 the old one goes on, 3 a signal was sent and the outcome is unknown.";

const INIT_NOTES: &str = "\
Examples:
  edgeward init                              writes ./edgeward.toml
  edgeward init /etc/edgeward";

const IMPORT_NOTES: &str = "\
Examples:
  edgeward import nginx /etc/nginx/nginx.conf > edgeward.toml";

const IMPORT_NGINX_NOTES: &str = "\
Examples:
  edgeward import nginx /etc/nginx/nginx.conf > edgeward.toml
  nginx -T | edgeward import nginx - -o edgeward.toml
  edgeward check -c edgeward.toml

Exit status: 0 it was written, also if something was dropped; 1 the configuration cannot be read, or with --strict
something was dropped; 2 wrong usage.";

const COMPLETIONS_NOTES: &str = "\
Examples:
  edgeward completions bash > /etc/bash_completion.d/edgeward
  edgeward completions zsh > ~/.zfunc/_edgeward
  edgeward completions fish > ~/.config/fish/completions/edgeward.fish";

const MAN_NOTES: &str = "\
Examples:
  edgeward man > /usr/local/share/man/man1/edgeward.1
  edgeward man | man -l -";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The default command takes `-c` without being named, as a service manager's unit file would write it.
    #[test]
    fn run_is_the_default() {
        let cli = Cli::try_parse_from(["edgeward", "-c", "x.toml"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.config, Some(PathBuf::from("x.toml")));
    }

    #[test]
    fn every_command_says_what_it_is_for_and_shows_an_example() {
        let mut root = Cli::command();
        for command in root.get_subcommands_mut() {
            let name = command.get_name().to_owned();
            assert!(command.get_about().is_some(), "{name} has no description");
            assert!(
                command.render_long_help().to_string().contains(&format!("edgeward {name}"))
                    || command.render_long_help().to_string().contains("Examples:"),
                "{name} has no example"
            );
        }
    }
}
