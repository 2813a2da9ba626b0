//! A progress bar on a terminal, nothing in a pipe.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Whether a bar may be drawn.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Takes the bar off the terminal and does the last thing that the process does. If a key was typed for that, the
/// terminal has shown it: right behind what stood there last.
pub fn leave(is_typed: bool, last: impl FnOnce()) {
    SCREEN.suspend(|| {
        if is_typed && io::stderr().is_terminal() {
            // A bar fills its line, so that the key stands in the next one, which is what was cleared.
            let is_shown = IS_SHOWN.load(Ordering::Relaxed);
            let correction = if is_shown { "\x1b[1A\x1b[2K" } else { "\n" };
            let _ = io::stderr().write_all(correction.as_bytes());
        }
        last();
    });
}

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
        IS_SHOWN.store(true, Ordering::Relaxed);
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
            IS_SHOWN.store(false, Ordering::Relaxed);
        }
    }
}

impl Bar {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
