//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use clap_complete::Shell;

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

    /// Print the version
    #[arg(short = 'v', long = "version", action = ArgAction::SetTrue)]
    pub(super) short_version: bool,

    /// Print the version and how this binary was built
    #[arg(short = 'V', action = ArgAction::SetTrue)]
    pub(super) long_version: bool,

    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a commented configuration to start from
    ///
    /// Makes DIR/edgeward.toml, which runs as it is. An existing file is never overwritten.
    #[command(after_help = INIT_NOTES)]
    Init {
        /// Where to put it
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
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

const EXAMPLES: &str = "\
Examples:
  edgeward demo                              see it work: a gateway, four services, requests to try
  edgeward init && edgeward                  start from a commented configuration
  edgeward check -c conf/edgeward.toml       every mistake at once, with line, column and suggestion
  edgeward explain GET /api/users/7          which route that takes, and why

Signals: TERM and QUIT finish what is open and exit, INT stops at once.
Exit status: 0 done, 1 the configuration has problems, 2 wrong usage.";

const INIT_NOTES: &str = "\
Examples:
  edgeward init                              writes ./edgeward.toml
  edgeward init /etc/edgeward";

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
