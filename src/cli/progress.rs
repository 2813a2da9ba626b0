//! A progress bar on a terminal, nothing in a pipe.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::escape;
use crate::report::Monitor;

/// Shows one bar a model on stderr.
#[derive(Default)]
pub struct Bar(Mutex<Option<ProgressBar>>);

const TEMPLATE: &str = "{prefix} [{wide_bar}] {decimal_bytes} / {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

impl Monitor for Bar {
    fn begin(&self, what: &str, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar =
            ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(escape(what));
        *self.lock() = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(bytes);
        }
    }

    fn skip(&self, bytes: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(bytes);
            bar.reset_eta();
        }
    }

    fn end(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }
}

impl Bar {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
