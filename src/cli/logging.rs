//! Logs go to stderr; `RUST_LOG` says how much.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts logging; warnings by default.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
