//! Which mutant is on; put into the copy of the crate as its module `mutant`.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex};

/// The mutant that `MUTANT` names; programs that are started inherit it.
static ON: LazyLock<u32> = LazyLock::new(|| number("MUTANT"));
/// The mutants that were reached, told to the file that `MUTANT_TRACE` names.
static SEEN: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];
static TRACE: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
    let path = std::env::var_os("MUTANT_TRACE")?;
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.ok().map(Mutex::new)
});

fn number(variable: &str) -> u32 {
    let text = std::env::var(variable).unwrap_or_default();
    text.parse().unwrap_or(u32::MAX)
}

/// Tells whether this mutant is on.
pub fn is(id: u32) -> bool {
    if let Some(file) = &*TRACE
        && !SEEN[id as usize].swap(true, Ordering::Relaxed)
        && let Ok(mut file) = file.lock()
    {
        let _ = file.write_all(format!("{id}\n").as_bytes());
    }
    *ON == id
}

/// Inverts a truth value if this mutant is on.
pub fn flip(id: u32, value: bool) -> bool {
    is(id) ^ value
}
