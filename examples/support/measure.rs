//! Running a program and measuring it: wall time, processor time, peak memory. Linux only: the kernel's figures are
//! read from `/proc`.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(2);
/// Ticks a second in `/proc/PID/stat`; 100 on every architecture of Linux.
const TICKS: f64 = 100.0;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Seconds of processor time, of all threads and child processes.
    pub cpu_seconds: f64,
    /// The most memory it had resident, in bytes, as seen up to 2 ms before its end.
    pub peak_bytes: u64,
}

/// Runs `command`, its output going to the file `log` and its errors to the same with the extension `err`; a failure is
/// an error that shows the latter.
pub fn run(command: &mut Command, log: &Path) -> Result<Run> {
    let output = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = log.with_extension("err");
    command.stdout(output).stderr(
        File::create(&errors).with_context(|| format!("cannot create {}", errors.display()))?,
    );
    let cpu_before = children_cpu_seconds()?;
    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let mut peak_bytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The mark only rises; in the moment before the program proper is loaded it is this program's own.
        peak_bytes = peak(child.id()).unwrap_or(peak_bytes);
        sleep(POLL);
    };
    let wall_seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        bail!(
            "{command:?}: {status}\n{}",
            fs::read_to_string(&errors).unwrap_or_default()
        );
    }
    Ok(Run {
        wall_seconds,
        cpu_seconds: children_cpu_seconds()? - cpu_before,
        peak_bytes,
    })
}

/// The high-water mark of a process's resident memory, in bytes; none once it has ended.
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

/// The processor time of all ended child processes so far (fields 16 and 17 of proc(5) stat).
fn children_cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> = after_name
        .split_whitespace()
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    match ticks.as_slice() {
        [user, system] => Ok((user + system) / TICKS),
        _ => bail!("/proc/self/stat is not as proc(5) says"),
    }
}
