//! `-v` and `-V`.

use super::DEFAULT_CONFIGS;

/// One line, or with `long` also what a bug report needs.
pub(super) fn text(long: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if !long {
        return format!("edgeward {version}\n");
    }
    format!(
        "edgeward {version}\n\
         target: {}-{}\n\
         build: {}\n\
         tls: rustls with aws-lc-rs\n\
         configuration: {}\n",
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(debug_assertions) { "debug" } else { "release" },
        DEFAULT_CONFIGS.join(", then "),
    )
}
