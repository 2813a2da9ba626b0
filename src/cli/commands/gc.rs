//! `zipllm gc CONFIG`: deletes what no model needs.

use std::time::Duration;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::PlaceArgs;
use crate::cli::terminal::{bytes, counted};
use crate::error::Error;
use crate::gc::{self, GcReport, Options};
use crate::store::Store;
use crate::store::lock::WriteLock;

/// `zipllm gc CONFIG`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm gc [OPTIONS] <CONFIG | --store DIR>")]
pub struct GcArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Keep objects that were written less than this ago, as in 90s, 30m, 12h, 7d or 2w
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    grace: Duration,
    /// Wait while other processes use the store
    #[arg(long)]
    wait: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// Parses a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "has to be a whole number and a unit: s, m, h, d or w".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.strip_prefix(digits).ok_or_else(bad)? {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return Err(bad()),
    };
    let count: u32 = digits.parse().map_err(|_| bad())?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

pub fn run(args: GcArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(Vec::new(), &[])?;
    let options = Options {
        threads: place.threads,
        grace: args.grace,
        wait: args.wait,
    };
    let report = if args.dry_run {
        let store = Store::open(&place.storage_dir)?;
        let layout = store.layout();
        // Nothing is written, so that a store which may only be read, or is written to just now, is no obstacle.
        let lock = WriteLock::take(&layout.lock(), layout.root(), args.wait);
        if let Err(error @ Error::Locked { .. }) = &lock {
            super::tell(
                "note",
                &format!("{error}; what that has not finished counts as what no model needs"),
            );
        }
        gc::dry_run(&store, &options)?
    } else {
        gc::run(place.writer(args.wait)?, &options)?
    };
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(Outcome::Done)
}

fn describe(report: &GcReport) -> String {
    let done = if report.dry_run {
        "would delete"
    } else {
        "deleted"
    };
    let mut text = format!(
        "{done} {} of {}, {}, in {:.1} s\n",
        report.freed_objects,
        counted(report.objects, "object"),
        bytes(report.freed_bytes),
        report.seconds
    );
    if report.recent_objects > 0 {
        text += &format!(
            "kept {} of no model, for the grace period\n",
            counted(report.recent_objects, "object")
        );
    }
    if report.missing_objects > 0 {
        text += &format!(
            "note: models lack {}; `zipllm check` names what is missing\n",
            counted(report.missing_objects, "object")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("2h", 7200),
            ("1d", 86_400),
            ("2w", 1_209_600),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5h",
            "1y",
            "1 h",
            "99999999999s",
            "1mm",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
