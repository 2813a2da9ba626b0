//! Ctrl-C: the bar goes from the terminal and a line says what is left, then the process dies of the signal.
//!
//! Nothing is tidied up in the store: the next run finds what a kill leaves, which it is used to.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use signal_hook::{flag, low_level};

use super::progress::leave;

/// What the kernel gives as a signal's cause where no process sent it: somebody typed Ctrl-C.
const SI_KERNEL: i32 = 0x80;

/// Waits for signals from now on, in a thread of its own; `left` says what a run leaves that is interrupted.
///
/// A process that was told to ignore them, as shells tell one in the background, goes on to.
pub fn watch(left: &'static str) {
    // Once it is set, a signal does what it does by default.
    let is_default = Arc::new(AtomicBool::new(false));
    if let Err(error) = start(Arc::clone(&is_default), left) {
        is_default.store(true, Ordering::Relaxed);
        tracing::debug!(%error, "signals are not waited for");
    }
}

fn start(is_default: Arc<AtomicBool>, left: &'static str) -> io::Result<()> {
    let ignored = ignored();
    let mut signals = vec![SIGINT, SIGTERM];
    signals.retain(|signal| ignored >> (signal - 1) & 1 == 0);
    for signal in &signals {
        flag::register_conditional_default(*signal, Arc::clone(&is_default))?;
    }
    let mut coming = SignalsInfo::<WithRawSiginfo>::new(&signals)?;
    let wait = move || {
        for signal in coming.forever() {
            // The terminal may not take what is to be told; the next signal ends that, too.
            is_default.store(true, Ordering::Relaxed);
            leave(signal.si_code == SI_KERNEL, || {
                let _ = writeln!(io::stderr(), "interrupted; {left}");
                let _ = low_level::emulate_default_handler(signal.si_signo);
            });
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(wait).map(drop)
}

/// The signals that this process ignores, signal n as bit n - 1, where the system tells (Linux).
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or_default()
}
