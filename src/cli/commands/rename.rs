//! `zipllm rename CONFIG OLD NEW`: gives a model another id.

use std::ffi::OsString;

use clap::Args;

use crate::cli::Outcome;
use crate::cli::place::{PlaceArgs, Usage};
use crate::cli::terminal::counted;
use crate::error::Error;
use crate::name::ModelId;
use crate::rename::{self, RenameReport};

/// `zipllm rename CONFIG OLD NEW`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm rename [OPTIONS] <CONFIG | --store DIR> <OLD> <NEW>")]
pub struct RenameArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// The model's id and its new one, as org/name; all its versions are renamed
    #[arg(value_name = "OLD NEW")]
    words: Vec<OsString>,
    /// Wait while another process writes to the store
    #[arg(long)]
    wait: bool,
    /// Print what was renamed as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: RenameArgs) -> anyhow::Result<Outcome> {
    let place = args.place.find(args.words, &["OLD", "NEW"])?;
    let id = |at| -> anyhow::Result<ModelId> {
        let id = place.text(at)?.parse();
        Ok(id.map_err(|error: Error| Usage(error.to_string()))?)
    };
    let (from, to) = (id(0)?, id(1)?);
    if from == to {
        return Err(Usage("OLD and NEW are the same".into()).into());
    }
    let report = rename::run(place.writer(args.wait)?, &from, &to, place.threads)?;
    super::print(&super::render(&report, args.json, describe)?)?;
    Ok(Outcome::Done)
}

fn describe(report: &RenameReport) -> String {
    let users = match report.users.len() {
        0 => String::new(),
        count => format!(
            "; in {} of other models it was the base's name",
            counted(count, "version")
        ),
    };
    format!(
        "renamed {} to {}, {}{users}\n",
        report.from,
        report.to,
        counted(report.versions.len(), "version")
    )
}
