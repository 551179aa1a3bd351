//! `edgeward init`: a commented configuration to start from.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{PROBLEMS, fail, print};
use crate::base::out;

/// What `init` writes; a test starts it as it is.
const TEMPLATE: &str = include_str!("init.toml");

/// Writes the starting configuration into `directory`, which is made when absent.
pub(super) fn run(directory: &Path) -> u8 {
    let file = directory.join("edgeward.toml");
    match write_new(directory, &file) {
        Ok(()) => {
            let named = if directory == Path::new(".") {
                String::new()
            } else {
                format!(" -c {}", shell_quoted(&file))
            };
            print(&format!(
                "wrote {}\n\n\
                 start it:            edgeward{named}\n\
                 try it:              curl -i http://127.0.0.1:8080/hello\n\
                 after an edit:       edgeward check{named}\n",
                file.display()
            ))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            out::complain(&format!("edgeward: {} exists already; it was left as it is\n", file.display()));
            PROBLEMS
        }
        Err(error) => fail(&format!("cannot write {}: {error}", file.display())),
    }
}

/// Fails rather than overwrite, also when two do this at once.
fn write_new(directory: &Path, file: &PathBuf) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    OpenOptions::new().write(true).create_new(true).open(file)?.write_all(TEMPLATE.as_bytes())
}

/// The path as it can be pasted into a shell.
fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+,:@".contains(&byte)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted() {
        assert_eq!(shell_quoted(Path::new("/etc/edgeward/edgeward.toml")), "/etc/edgeward/edgeward.toml");
        assert_eq!(shell_quoted(Path::new("my conf/o'x.toml")), r"'my conf/o'\''x.toml'");
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(run(&directory.path().join("new/place")), 0);
        let file = directory.path().join("edgeward.toml");
        fs::write(&file, "mine").unwrap();
        assert_eq!(run(directory.path()), PROBLEMS);
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }
}
