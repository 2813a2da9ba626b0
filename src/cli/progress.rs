//! A progress bar on a terminal, nothing in a pipe.

use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::terminal::escape;
use crate::report::Monitor;

/// Shows one bar a model on stderr.
#[derive(Default)]
pub struct Bar(Mutex<Option<ProgressBar>>);

/// The terminal, as far as bars are drawn on it.
static SCREEN: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));

/// Standard error for lines of text: they stand above the bar, never in it.
pub struct AboveBar;

impl Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SCREEN.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

const TEMPLATE: &str = "{prefix} [{wide_bar}] {decimal_bytes} / {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

impl Monitor for Bar {
    fn begin(&self, what: &str, bytes: u64) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = SCREEN.add(ProgressBar::new(bytes));
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
