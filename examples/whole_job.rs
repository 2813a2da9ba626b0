//! Measures the whole job on a family of models: storing it with `zipllm`, restoring each model, and `cp -r` and
//! `zstd -3` on the same files, in turn, several times. Prints medians as a table and writes every run as JSON.
//!
//!     cargo build --release --bins --examples
//!     ./target/release/examples/whole_job --models-dir DIR --work-dir /tmp/work --out whole_job.json
//!
//! DIR holds one directory a model, named `org_name`, `org--name` or `name`. Note that `zipllm` makes the store durable
//! (fsync) before it ends, which `cp` and `zstd` do not.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to its user"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

use support::family::{self, Model};
use support::measure::{self, Run};
use support::{programs, tree};

#[derive(Parser)]
#[command(about = "Measures storing and restoring a family of models against cp and zstd")]
struct Arguments {
    /// The directory of the models' directories.
    #[arg(long)]
    models_dir: PathBuf,
    /// Where to write; must be empty or not there, and takes about twice the family.
    #[arg(long)]
    work_dir: PathBuf,
    /// The JSON file to write.
    #[arg(long, default_value = "whole_job.json")]
    out: PathBuf,
    /// The directory of the base; else the first with "base" in its name, else the first.
    #[arg(long)]
    base: Option<String>,
    /// Threads for zipllm, restore and zstd; 0 for all the machine has.
    #[arg(long, default_value_t = 0)]
    threads: u32,
    /// The codecs that zipllm uses: auto or bitx.
    #[arg(long, default_value = "auto", value_parser = ["auto", "bitx"])]
    codec: String,
    /// How often to measure everything.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

fn main() -> ExitCode {
    match Bench::new(Arguments::parse()).and_then(Bench::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whole_job: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thing that is measured again and again.
struct Job {
    name: String,
    /// The bytes of the models that it reads or writes.
    bytes: u64,
    runs: Vec<Run>,
}

struct Bench {
    arguments: Arguments,
    /// The names of the models' directories, the base first.
    names: Vec<String>,
    config: PathBuf,
    zipllm: PathBuf,
    restore: PathBuf,
    has_zstd: bool,
    jobs: Vec<Job>,
    stored_bytes: u64,
    zstd_bytes: Option<u64>,
    /// What `zipllm --json` said in the last round.
    report: Value,
}

impl Bench {
    fn new(mut arguments: Arguments) -> Result<Self> {
        let (zipllm, restore) = (programs::find("zipllm")?, programs::find("restore")?);
        fs::create_dir_all(&arguments.work_dir)?;
        ensure!(
            fs::read_dir(&arguments.work_dir)?.next().is_none(),
            "{} is not empty",
            arguments.work_dir.display()
        );
        arguments.models_dir = arguments
            .models_dir
            .canonicalize()
            .context("cannot find --models-dir")?;
        arguments.work_dir = arguments.work_dir.canonicalize()?;
        let names = model_names(&arguments)?;
        let config = write_settings(&arguments, &names)?;
        let has_zstd = Command::new("zstd").arg("--version").output().is_ok();
        if !has_zstd {
            println!("SKIP zstd: it is not installed");
        }
        Ok(Self {
            arguments,
            names,
            config,
            zipllm,
            restore,
            has_zstd,
            jobs: Vec::new(),
            stored_bytes: 0,
            zstd_bytes: None,
            report: Value::Null,
        })
    }

    fn run(mut self) -> Result<()> {
        for round in 1..=self.arguments.repeat {
            println!("round {round} of {}", self.arguments.repeat);
            self.store_family()?;
            for name in self.names.clone() {
                self.restore_model(&name, round == 1)?;
            }
            self.clear(&["store", "zstd"])?;
        }
        fs::remove_dir_all(&self.arguments.work_dir)?;
        self.print_table();
        let out = &self.arguments.out;
        fs::write(out, format!("{:#}\n", self.json()))
            .with_context(|| format!("cannot write {}", out.display()))?;
        println!("\nevery run: {}", out.display());
        Ok(())
    }

    fn store_family(&mut self) -> Result<()> {
        let work = self.arguments.work_dir.clone();
        let names = self.names.clone();
        let mut zipllm = Command::new(&self.zipllm);
        self.measure(
            "store: zipllm",
            &names,
            zipllm.arg(&self.config).arg("--json"),
        )?;
        self.report = serde_json::from_slice(&fs::read(work.join("log"))?)
            .context("zipllm --json printed no JSON")?;
        self.stored_bytes = tree::bytes(&work.join("store"))?;
        self.copy("store: cp -r", &names)?;
        if self.has_zstd {
            let mut zstd = self.zstd(&self.arguments.models_dir, "zstd");
            self.measure("store: zstd -3", &names, zstd.arg("-3").args(&names))?;
            self.zstd_bytes = Some(tree::bytes(&work.join("zstd"))?);
        }
        Ok(())
    }

    fn restore_model(&mut self, name: &str, compare: bool) -> Result<()> {
        let names = [name.to_owned()];
        let out = self.arguments.work_dir.join("out");
        let mut restore = Command::new(&self.restore);
        restore.arg(&self.config).arg(id(name)).arg(&out);
        if self.arguments.threads > 0 {
            restore.args(["--threads", &self.arguments.threads.to_string()]);
        }
        self.measure(&format!("restore {name}: zipllm"), &names, &mut restore)?;
        if compare {
            let differences = tree::differences(&self.arguments.models_dir.join(name), &out)?;
            ensure!(
                differences.is_empty(),
                "{name} came back different: {}",
                differences.join("; ")
            );
        }
        self.clear(&["out"])?;
        self.copy(&format!("restore {name}: cp -r"), &names)?;
        if self.has_zstd {
            let mut zstd = self.zstd(&self.arguments.work_dir.join("zstd"), "out");
            self.measure(
                &format!("restore {name}: zstd -d"),
                &names,
                zstd.arg("-d").arg(name),
            )?;
        }
        self.clear(&["out"])
    }

    fn copy(&mut self, job: &str, names: &[String]) -> Result<()> {
        let target = self.arguments.work_dir.join("copy");
        fs::create_dir(&target)?;
        let mut cp = Command::new("cp");
        self.measure(
            job,
            names,
            cp.current_dir(&self.arguments.models_dir)
                .arg("-r")
                .args(names)
                .arg(target),
        )?;
        self.clear(&["copy"])
    }

    /// A `zstd` that works on whole directories below `from` and writes to `to` in the work directory.
    fn zstd(&self, from: &Path, to: &str) -> Command {
        let mut zstd = Command::new("zstd");
        zstd.current_dir(from)
            .args(["-q", "-r", &format!("-T{}", self.arguments.threads)]);
        zstd.arg("--output-dir-mirror")
            .arg(self.arguments.work_dir.join(to));
        zstd
    }

    /// Runs one job, after what earlier ones wrote has gone to disk, and keeps its figures.
    fn measure(&mut self, job: &str, names: &[String], command: &mut Command) -> Result<()> {
        Command::new("sync").status().context("cannot start sync")?;
        let run = measure::run(command, &self.arguments.work_dir.join("log"))?;
        if let Some(known) = self.jobs.iter_mut().find(|known| known.name == job) {
            known.runs.push(run);
            return Ok(());
        }
        let sizes = names
            .iter()
            .map(|name| tree::bytes(&self.arguments.models_dir.join(name)));
        let bytes = sizes.sum::<std::io::Result<u64>>()?;
        self.jobs.push(Job {
            name: job.to_owned(),
            bytes,
            runs: vec![run],
        });
        Ok(())
    }

    fn clear(&self, directories: &[&str]) -> Result<()> {
        for directory in directories
            .iter()
            .map(|name| self.arguments.work_dir.join(name))
            .filter(|path| path.exists())
        {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot delete {}", directory.display()))?;
        }
        Ok(())
    }

    fn print_table(&self) {
        println!(
            "\n{:<50} {:>8} {:>8} {:>8} {:>10} {:>9}",
            "job", "GB", "seconds", "GB/s", "GB/s core", "peak MiB"
        );
        for job in &self.jobs {
            let (wall, cpu, peak) = job.medians();
            let gb = float(job.bytes) / 1e9;
            let name = &job.name;
            println!(
                "{name:<50} {gb:>8.3} {wall:>8.2} {:>8.2} {:>10} {:>9.1}",
                gb / wall,
                rate_per_core(gb, cpu),
                peak / f64::from(1 << 20)
            );
        }
        let family = float(self.jobs.first().map_or(0, |job| job.bytes));
        println!(
            "\nzipllm stores {:.2} % of the bytes",
            100.0 * float(self.stored_bytes) / family
        );
        if let Some(bytes) = self.zstd_bytes {
            println!("zstd -3 stores {:.2} %", 100.0 * float(bytes) / family);
        }
    }

    fn json(&self) -> Value {
        let jobs: Vec<Value> = self.jobs.iter().map(Job::json).collect();
        json!({
            "models": self.names, "threads": self.arguments.threads, "codec": self.arguments.codec, "repeat": self.arguments.repeat,
            "machine_threads": std::thread::available_parallelism().map_or(1, usize::from),
            "stored_bytes": self.stored_bytes, "zstd_bytes": self.zstd_bytes, "jobs": jobs, "zipllm_report": self.report,
        })
    }
}

impl Job {
    /// The medians of wall seconds, processor seconds and peak bytes.
    fn medians(&self) -> (f64, f64, f64) {
        let of = |value: fn(&Run) -> f64| median(self.runs.iter().map(value).collect());
        (
            of(|run| run.wall_seconds),
            of(|run| run.cpu_seconds),
            of(|run| float(run.peak_bytes)),
        )
    }

    fn json(&self) -> Value {
        let (wall, cpu, peak) = self.medians();
        let runs = self.runs.iter().map(|run| {
            json!({"wall_seconds": run.wall_seconds, "cpu_seconds": run.cpu_seconds, "peak_bytes": run.peak_bytes})
        });
        json!({
            "name": self.name, "bytes": self.bytes, "median_wall_seconds": wall, "median_cpu_seconds": cpu,
            "median_peak_bytes": peak, "runs": runs.collect::<Vec<Value>>(),
        })
    }
}

/// GB a second of processor time; the clock ticks every 10 ms, so that nothing can be said of less than ten ticks.
fn rate_per_core(gb: f64, cpu_seconds: f64) -> String {
    if cpu_seconds < 0.1 {
        "-".to_owned()
    } else {
        format!("{:.3}", gb / cpu_seconds)
    }
}

/// The middle value, or the mean of the two in the middle; 0 for none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values
        .iter()
        .skip(values.len().saturating_sub(1) / 2)
        .take(2 - values.len() % 2);
    let (count, sum) = middle.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    if count > 0.0 { sum / count } else { 0.0 }
}

#[allow(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

/// The names of the models' directories, the base first.
fn model_names(arguments: &Arguments) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(&arguments.models_dir)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(
                entry
                    .file_name()
                    .into_string()
                    .map_err(|name| anyhow::anyhow!("{}: not UTF-8", name.display()))?,
            );
        }
    }
    names.sort();
    let base = match &arguments.base {
        Some(base) => names
            .iter()
            .position(|name| name == base)
            .with_context(|| format!("no model directory {base:?}"))?,
        None => names
            .iter()
            .position(|name| name.contains("base"))
            .unwrap_or(0),
    };
    ensure!(
        !names.is_empty(),
        "{} has no directories",
        arguments.models_dir.display()
    );
    let base = names.remove(base);
    names.insert(0, base);
    Ok(names)
}

/// The id of the model in a directory of this name.
fn id(name: &str) -> String {
    if name.contains("--") {
        name.replacen("--", "/", 1)
    } else {
        name.replacen('_', "/", 1)
    }
}

/// Writes the settings of a batch in the work directory that stores all models with the first as base.
fn write_settings(arguments: &Arguments, names: &[String]) -> Result<PathBuf> {
    let base = names.first().map(|name| id(name));
    let model = |name: &String| {
        let base = base.clone().filter(|base| *base != id(name));
        Model {
            id: id(name),
            directory: arguments.models_dir.join(name),
            base,
        }
    };
    let models: Vec<Model> = names.iter().map(model).collect();
    let path = family::write_batch(
        &arguments.work_dir,
        &arguments.models_dir,
        arguments.threads,
        &models,
    )?;
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    if let Some(settings) = config.as_object_mut() {
        settings.insert("codec".into(), json!(arguments.codec));
    }
    fs::write(&path, format!("{config:#}\n"))?;
    Ok(path)
}
