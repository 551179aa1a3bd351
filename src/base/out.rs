//! Printing for people. A reader that went away (`edgeward explain … | head -1`) is not an error.

use std::io::{self, ErrorKind, IsTerminal, Write};

/// Writes `text` to standard output and flushes it. A closed pipe counts as written.
pub fn print(text: &str) -> io::Result<()> {
    forgive_closed_pipe(write_all(io::stdout().lock(), text))
}

/// Writes `text` to standard error. Nothing can be done when that fails, so it says nothing about it.
pub fn complain(text: &str) {
    write_all(io::stderr().lock(), text).unwrap_or_default();
}

/// Whether standard error is a terminal whose reader may like colours.
pub fn complaints_are_read() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn write_all(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn forgive_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
