//! `zipllm cat CONFIG MODEL PATH`: bytes of a model to the standard output.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::cat::{self, ByteRange, Selection};
use crate::cli::Outcome;
use crate::cli::place::{PlaceArgs, Usage};
use crate::error::Error;
use crate::restore::find_manifest;
use crate::store::Store;

/// `zipllm cat CONFIG MODEL PATH`.
#[derive(Debug, Args)]
#[command(override_usage = "zipllm cat [OPTIONS] <CONFIG | --store DIR> <MODEL> <PATH>")]
pub struct CatArgs {
    /// Which store
    #[command(flatten)]
    place: PlaceArgs,
    /// The model, as org/name or org/name@VERSION, and the path of a file in it
    #[arg(value_name = "MODEL PATH")]
    words: Vec<OsString>,
    /// Only the bytes of this tensor
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// Only these bytes, of the file or the tensor: A-B (both included), A- or -N (the last N)
    #[arg(long, value_name = "A-B", value_parser = range, allow_hyphen_values = true)]
    range: Option<ByteRange>,
    /// Print what was written as JSON, on the standard error
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    bytes: u64,
    seconds: f64,
}

fn range(text: &str) -> Result<ByteRange, Error> {
    text.parse()
}

pub fn run(args: CatArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let place = args.place.find(args.words, &["MODEL", "PATH"])?;
    let model = place.model(0)?;
    let path = place.text(1)?;
    let selection = Selection {
        path: path
            .parse()
            .map_err(|error: Error| Usage(error.to_string()))?,
        tensor: args.tensor,
        range: args.range,
    };
    let store = Store::open(&place.storage_dir)?;
    let manifest = find_manifest(&store, &model)?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let bytes = match cat::run(&store, &manifest, &selection, place.threads, &mut out) {
        // That nobody reads on is no failure.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            return Ok(Outcome::Done);
        }
        other => other?,
    };
    if args.json {
        let seconds = start.elapsed().as_secs_f64();
        let report = super::json(&Report { bytes, seconds })?;
        io::stderr().write_all(report.as_bytes())?;
    }
    Ok(Outcome::Done)
}
