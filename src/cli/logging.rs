//! Logs go to stderr; `RUST_LOG` says how much.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::progress::AboveBar;

/// Starts logging; nothing by default, for what concerns a person is printed anyway.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| AboveBar)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
