//! Programs that are killed on the way.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// Starts a program and kills it after so many microseconds; false if it had ended by itself, which has to be well.
pub fn kill_after(command: &mut Command, micros: u64) -> bool {
    let mut child = start(command);
    std::thread::sleep(Duration::from_micros(micros));
    child.kill().unwrap();
    end(child).is_none()
}

fn start(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until something is true, or the program has ended.
fn wait(child: &mut Child, is_time: impl Fn() -> bool) {
    while !is_time() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
}

/// The exit code, which is 0, of a program that was not killed.
fn end(child: Child) -> Option<i32> {
    let output = child.wait_with_output().unwrap();
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(code.is_none_or(|code| code == 0), "{said}");
    code
}

/// The shortest time in which files are taken to be deleted, however late kills come.
const LEAST_MICROS: u64 = 500;

/// Kills of a program while it deletes files.
#[derive(Debug, Default)]
pub struct DeletionKills {
    kills: u64,
    hits: u64,
    /// From the first deletion to the last, as it is guessed.
    micros: u64,
}

impl DeletionKills {
    /// Lets the program end the first time, to know how long it deletes, and kills it from then on some time after the
    /// first of its files is gone.
    pub fn next(&mut self, command: &mut Command, first: &Path, last: &Path) {
        let mut child = start(command);
        wait(&mut child, || is_gone(first));
        if self.micros == 0 {
            let begun = Instant::now();
            wait(&mut child, || is_gone(last));
            assert_eq!(end(child), Some(0));
            self.micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
            return;
        }
        self.kills += 1;
        // Multiples of the golden ratio are spread evenly, however many there are.
        let moment = self.micros * (self.kills * 618 % 1000) / 1000;
        std::thread::sleep(Duration::from_micros(moment));
        child.kill().unwrap();
        let is_hit = end(child).is_none() && is_gone(first) && !is_gone(last);
        self.hits += u64::from(is_hit);
        // The guess is as good as the machine was quiet; a fifth of the kills come too late on purpose.
        let other = if is_hit {
            self.micros + self.micros / 32
        } else {
            self.micros - self.micros / 8
        };
        self.micros = other.max(LEAST_MICROS);
    }

    /// Tells whether more kills are due: so many, and more where the machine is so busy that few of them hit.
    pub fn are_due(&self, kills: u64) -> bool {
        self.kills < kills || self.hits * 4 < kills && self.kills < 8 * kills
    }

    pub fn assert_hits(&self, kills: u64) {
        println!("{self:?}");
        assert!(self.hits * 4 >= kills, "{self:?}");
    }
}

/// Tells whether not even a link is left.
fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err()
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
