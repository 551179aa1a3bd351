//! What is generated from the command line's own description, and can therefore not drift from it.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;

/// The completion script for `shell`.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "edgeward", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One manual page: the command, then each of its subcommands.
pub(super) fn man() -> io::Result<String> {
    let mut page = Vec::new();
    let mut root = Cli::command();
    root.build();
    let manual = clap_mangen::Man::new(root.clone());
    manual.render_title(&mut page)?;
    manual.render_name_section(&mut page)?;
    manual.render_synopsis_section(&mut page)?;
    manual.render_description_section(&mut page)?;
    manual.render_options_section(&mut page)?;
    for command in root.get_subcommands() {
        let section = clap_mangen::Man::new(command.clone());
        page.extend_from_slice(format!(".SH \"edgeward {}\"\n", roff(command.get_name())).as_bytes());
        let mut text = Vec::new();
        section.render_description_section(&mut text)?;
        section.render_options_section(&mut text)?;
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let name = format!("edgeward {} {}", command.get_name(), inner.get_name());
            text.extend_from_slice(format!(".SH \"{}\"\n", roff(&name)).as_bytes());
            let inner = clap_mangen::Man::new(inner.clone());
            let mut described = Vec::new();
            inner.render_description_section(&mut described)?;
            inner.render_options_section(&mut described)?;
            // Its name is the headline of both.
            let described = String::from_utf8_lossy(&described).into_owned();
            let lines = described.lines().filter(|line| !line.starts_with(".SH "));
            lines.for_each(|line| text.extend_from_slice(format!("{line}\n").as_bytes()));
        }
        section.render_extra_section(&mut text)?;
        // Sections of a command become paragraphs of its own section.
        page.extend_from_slice(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes());
    }
    manual.render_extra_section(&mut page)?;
    // What follows the options in `--help` are examples, signals and exit statuses.
    Ok(String::from_utf8_lossy(&page).replace(" EXTRA\n", " NOTES\n"))
}

/// Names in roff: a bare `-` would become a typographic hyphen.
fn roff(name: &str) -> String {
    name.replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = completions(*shell);
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {} is missing", command.get_name());
            }
        }
    }

    #[test]
    fn the_manual_describes_every_command() {
        let page = man().unwrap();
        assert!(page.contains(".TH edgeward 1"));
        for command in Cli::command().get_subcommands() {
            assert!(page.contains(&format!(".SH \"edgeward {}\"", command.get_name())));
            for inner in command.get_subcommands() {
                let name = format!(".SS \"edgeward {} {}\"", command.get_name(), inner.get_name());
                assert!(page.contains(&name), "{name}");
            }
        }
    }
}
