//! Passwords: from the terminal, unseen, or from standard input. Never an argument: others could read it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

/// Most that is read: longer than any password may be.
const LINE_BYTES_MAX: u64 = 4096;
/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// The password of `name`: the first line of standard input, or what is typed twice.
pub(super) fn read(name: &str, from_stdin: bool) -> Result<String, String> {
    if from_stdin {
        return first_line(io::stdin().lock()).map_err(|error| format!("cannot read the password: {error}"));
    }
    if !io::stdin().is_terminal() {
        return Err(
            "there is no terminal to ask for the password on: give it with --password-stdin".to_owned()
        );
    }
    let cannot =
        |error| format!("cannot ask for the password: {error}\n  hint: give it with --password-stdin");
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(cannot)?;
    let typed = {
        let _unseen = Unseen::begin(&terminal).map_err(cannot)?;
        let first = ask(&terminal, &format!("Password of {name}: ")).map_err(cannot)?;
        (first, ask(&terminal, "Once more: ").map_err(cannot)?)
    };
    match typed {
        (first, second) if first == second => Ok(first),
        _ => Err("the two are not the same".to_owned()),
    }
}

/// A line without its end.
fn first_line(from: impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    BufReader::new(from.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

/// What is typed after `prompt`.
fn ask(mut terminal: &File, prompt: &str) -> io::Result<String> {
    terminal.write_all(prompt.as_bytes())?;
    let typed = first_line(terminal);
    terminal.write_all(b"\n")?;
    let typed = typed?;
    if typed.bytes().any(|byte| byte == INTERRUPT) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    Ok(typed)
}

/// A terminal that shows nothing. It is put back as it was, also after Ctrl-C: that ends the line instead of the process.
struct Unseen<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Unseen<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut unseen = before.clone();
        unseen.local_modes -= LocalModes::ECHO | LocalModes::ISIG;
        unseen.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(terminal, OptionalActions::Flush, &unseen)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Unseen<'_> {
    fn drop(&mut self) {
        // Nothing can be done when that fails.
        tcsetattr(self.terminal, OptionalActions::Flush, &self.before).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        for (given, read) in
            [("secret\n", "secret"), ("se cret\r\nmore", "se cret"), ("secret", "secret"), ("", "")]
        {
            assert_eq!(first_line(given.as_bytes()).unwrap(), read);
        }
        assert!(first_line(&b"\xff\n"[..]).is_err());
    }
}
