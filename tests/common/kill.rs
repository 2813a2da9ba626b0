//! Programs that are killed on the way.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Starts a program and kills it after so many microseconds; false if it had ended by itself, which has to be well.
pub fn kill_after(command: &mut Command, micros: u64) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    if let Some(code) = output.status.code() {
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.code().is_none()
}

/// Lets a program end, well, and returns the microseconds that it took.
pub fn time(command: &mut Command) -> u64 {
    let begun = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    u64::try_from(begun.elapsed().as_micros()).unwrap()
}
