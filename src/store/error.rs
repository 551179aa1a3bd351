//! What can go wrong with the store.

use std::path::Path;

/// Why the store did not do what it was asked for. The texts are for logs and operators, never for clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or not in time: later it may work.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// It answered with an error that will not go away by itself.
    #[error("the store failed: {0}")]
    Broken(String),
    /// What was to be added is there already.
    #[error("{0}")]
    Conflict(String),
}

impl StoreError {
    /// The same, of the file at `path`.
    pub(super) fn of(self, path: &Path) -> Self {
        let named = |text: String| format!("{}: {text}", path.display());
        match self {
            Self::Unavailable(text) => Self::Unavailable(named(text)),
            Self::Broken(text) => Self::Broken(named(text)),
            Self::Conflict(text) => Self::Conflict(text),
        }
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error;
        match &error {
            Error::Io(cause) => Self::Unavailable(cause.to_string()),
            Error::PoolTimedOut => Self::Unavailable("no connection to it came free in time".to_owned()),
            Error::PoolClosed | Error::WorkerCrashed => {
                Self::Unavailable("its connections are closed".to_owned())
            }
            Error::Tls(cause) => Self::Unavailable(format!("TLS failed: {cause}")),
            // Somebody else answers there, or something in between does.
            Error::Protocol(cause) => {
                Self::Unavailable(format!("what answers there is no database: {cause}"))
            }
            Error::Database(refusal) => {
                let text = refusal.message().to_owned();
                match refusal.code().as_deref() {
                    _ if refusal.is_unique_violation() => Self::Conflict(text),
                    Some(code) if is_passing(code) => Self::Unavailable(text),
                    _ => Self::Broken(text),
                }
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// Whether an error with `code` goes away by itself, or with what an operator does about the database: SQLSTATE classes
/// of PostgreSQL (connections, resources, intervention, authorization), and result codes of SQLite (busy, locked, cannot
/// open, full, I/O, damaged or no database until the file is put right), whose extended ones have the primary one in their
/// lowest byte.
fn is_passing(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "28", "3D", "53", "57", "40"].iter().any(|class| code.starts_with(class));
    }
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 8 | 10 | 11 | 13 | 14 | 26))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_are_told_from_those_that_stay() {
        // 261 is SQLITE_BUSY_RECOVERY.
        for code in ["08006", "57P03", "53300", "28P01", "3D000", "40P01", "5", "261", "14", "11", "26"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["23505", "42P01", "1", "19", "2067"] {
            assert!(!is_passing(code), "{code}");
        }
    }
}
