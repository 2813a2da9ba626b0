//! What a build without the feature `hub` says to those who would fetch models.

use crate::cli::Outcome;
use crate::cli::args::{self, DownloadArgs, FetchArgs};
use crate::config::Config;
use crate::ingest::{self, Job};
use crate::report::IngestReport;

pub fn run(_args: DownloadArgs) -> anyhow::Result<Outcome> {
    Err(refusal())
}

pub fn make_model_dir(_config: &Config) -> anyhow::Result<()> {
    Err(refusal())
}

pub fn fetch_and_store(
    _config: &Config,
    _args: FetchArgs,
    _jobs: &[Job],
    _options: &ingest::Options,
) -> anyhow::Result<IngestReport> {
    Err(refusal())
}

fn refusal() -> anyhow::Error {
    args::usage(
        "this build cannot fetch models: it was built without the feature `hub`, which `cargo build --release` has",
    )
}
