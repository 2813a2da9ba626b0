//! Logs go to stderr; `RUST_LOG` says how much.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{Directive, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::progress::AboveBar;
use crate::error::NOTICE;

/// Starts logging; nothing but notices by default, for what else concerns a person is printed anyway.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    let no_notices = format!("{NOTICE}=off").parse::<Directive>().into_iter();
    let filter = no_notices.fold(filter, EnvFilter::add_directive);
    let logs = fmt::layer()
        .with_writer(|| AboveBar)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let notices = fmt::layer()
        .with_writer(|| AboveBar)
        .with_ansi(false)
        .with_target(false)
        .with_level(false)
        .without_time();
    let is_notice = filter_fn(|metadata| metadata.target() == NOTICE);
    let _ = tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(notices.with_filter(is_notice))
        .try_init();
}
