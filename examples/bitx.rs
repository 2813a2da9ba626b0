//! `bitx`: the difference of two files of BF16 weights as two zstd streams, and the way back.
//!
//! FILE1 is the base. The streams are described in `docs/codecs/bitx-tool.md`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use memmap2::Mmap;
use zipllm::kernel::{Isa, Layout};

/// Compresses FILE2 as its difference from FILE1, and gives it back.
///
/// Both files are taken for BF16 weights, little-endian, from their first byte to their last. FILE2 is
/// combined with FILE1 by XOR; where FILE1 has ended, its bytes count as zero. The exponents (8 bits
/// of each weight) go to one zstd stream and sign and mantissa (8 bits) to the other: ceil(n / 2) and
/// floor(n / 2) bytes for a FILE2 of n bytes. The last byte of an odd n is the last of the exponent
/// stream. `zstd -d` reads both streams. No file may change while the tool runs.
///
///   bitx base.bin tuned.bin --compress --compressed-exp exp.zst --compressed-sm sm.zst
///   bitx base.bin out.bin --decompress --compressed-exp exp.zst --compressed-sm sm.zst
#[derive(Parser)]
#[command(name = "bitx", verbatim_doc_comment)]
struct Args {
    /// The base, the same for both directions
    file1: PathBuf,
    /// The file to compress, or the one to write with --decompress
    file2: PathBuf,
    /// Compress FILE2 to the two streams
    #[arg(long, conflicts_with = "decompress", required_unless_present_any = ["decompress", "xor_output"], requires_all = ["compressed_exp", "compressed_sm"])]
    compress: bool,
    /// Write FILE2 from FILE1 and the two streams
    #[arg(long, conflicts_with = "xor_output", requires_all = ["compressed_exp", "compressed_sm"])]
    decompress: bool,
    /// The zstd stream of exponents
    #[arg(long, value_name = "FILE")]
    compressed_exp: Option<PathBuf>,
    /// The zstd stream of signs and mantissas
    #[arg(long, value_name = "FILE")]
    compressed_sm: Option<PathBuf>,
    /// Write FILE1 XOR FILE2, as long as FILE2, uncompressed
    #[arg(long, value_name = "FILE")]
    xor_output: Option<PathBuf>,
    /// The zstd level
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(-7..=22), allow_negative_numbers = true)]
    level: i32,
    /// Replace outputs that exist
    #[arg(long)]
    force: bool,
}

const BF16: Layout = Layout {
    size: 2,
    rotate: true,
};
/// Weights worked on at a time.
const BLOCK: usize = 1 << 17;

fn main() -> ExitCode {
    // Usage errors end here with exit code 2.
    let args = Args::parse();
    match run(&args) {
        Ok(summary) => {
            let _ = writeln!(io::stderr(), "{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "bitx: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<String> {
    let started = Instant::now();
    let streams = args
        .compressed_exp
        .as_deref()
        .zip(args.compressed_sm.as_deref());
    let outputs = outputs(args);
    check_paths(args, &outputs)?;
    let bytes = match streams {
        Some((exp, sm)) if args.decompress => decompress(args, exp, sm)?,
        _ => compress(args, streams)?,
    };
    let seconds = started.elapsed().as_secs_f64();
    let mut summary = format!("{bytes} bytes in {seconds:.3} s");
    if let Some((exp, sm)) = streams {
        let (exp, sm) = (std::fs::metadata(exp)?.len(), std::fs::metadata(sm)?.len());
        let ratio = ratio(exp + sm, bytes);
        let parts = format!(", exponents {exp}, signs and mantissas {sm}, ratio {ratio:.4}");
        summary.push_str(&parts);
    }
    Ok(format!(
        "{summary}, {:.1} MB/s",
        ratio(bytes, 1_000_000) / seconds.max(1e-9)
    ))
}

/// The quotient, for people to read; 0 of nothing.
#[allow(clippy::cast_precision_loss)]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The files that this run writes.
fn outputs(args: &Args) -> Vec<&Path> {
    let streams = [&args.compressed_exp, &args.compressed_sm].map(|path| path.as_deref());
    if args.decompress {
        vec![&args.file2]
    } else {
        streams
            .into_iter()
            .chain([args.xor_output.as_deref()])
            .flatten()
            .collect()
    }
}

/// Refuses outputs that exist, that are inputs or that are one file.
fn check_paths(args: &Args, outputs: &[&Path]) -> Result<()> {
    let mut taken = vec![args.file1.as_path()];
    if args.decompress {
        taken.extend(args.compressed_exp.as_deref());
        taken.extend(args.compressed_sm.as_deref());
    } else {
        taken.push(&args.file2);
    }
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    for output in outputs {
        let name = output.display();
        ensure!(
            args.force || !output.exists(),
            "{name} exists; --force replaces it"
        );
        let clash = taken.iter().any(|path| resolved(path) == resolved(output));
        ensure!(!clash, "{name} is named twice");
        taken.push(output);
    }
    Ok(())
}

/// A file that gets its name only when it is whole.
struct Output {
    file: BufWriter<tempfile::NamedTempFile>,
    path: PathBuf,
    force: bool,
}

impl Output {
    fn create(path: &Path, force: bool) -> Result<Self> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".bitx-");
        // As for any new file: the umask takes away from this.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(directory);
        let file = file.with_context(|| format!("cannot write in {}", directory.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            path: path.to_path_buf(),
            force,
        })
    }

    fn finish(self) -> Result<()> {
        let name = self.path.display().to_string();
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.as_file()
            .sync_all()
            .with_context(|| format!("cannot write {name}"))?;
        let done = if self.force {
            file.persist(&self.path)
        } else {
            file.persist_noclobber(&self.path)
        };
        done.with_context(|| format!("cannot create {name}"))?;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

type Encoder = zstd::stream::write::Encoder<'static, Output>;
type Decoder = zstd::stream::read::Decoder<'static, BufReader<File>>;

fn encoder(path: &Path, args: &Args, length: usize) -> Result<Encoder> {
    let mut encoder = Encoder::new(Output::create(path, args.force)?, args.level)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(length as u64))?;
    Ok(encoder)
}

fn decoder(path: &Path) -> Result<Decoder> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Decoder::new(file)?)
}

/// Reads a whole file through a map; an empty file has none.
fn map(path: &Path) -> Result<Option<Mmap>> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(None);
        }
        // SAFETY: the tool asks in its help that nobody changes the files while it runs.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Some(map))
    };
    open().map_err(|error: io::Error| anyhow::anyhow!("cannot read {}: {error}", path.display()))
}

/// The part of `base` below `length` bytes from `at`, with zeros for what it lacks.
fn base_part<'a>(base: &'a [u8], at: usize, length: usize, padded: &'a mut Vec<u8>) -> &'a [u8] {
    let rest = base.get(at..).unwrap_or_default();
    if let Some(part) = rest.get(..length) {
        return part;
    }
    padded.clear();
    padded.extend_from_slice(rest);
    padded.resize(length, 0);
    padded
}

/// Writes the streams, if any, and the XOR, if asked for; returns the bytes of FILE2.
fn compress(args: &Args, streams: Option<(&Path, &Path)>) -> Result<u64> {
    let (base, tuned) = (map(&args.file1)?, map(&args.file2)?);
    let (base, tuned) = (
        base.as_deref().unwrap_or_default(),
        tuned.as_deref().unwrap_or_default(),
    );
    let (low, high) = (tuned.len() / 2, tuned.len().div_ceil(2));
    let mut streams = match streams {
        Some((exp, sm)) => Some((encoder(exp, args, high)?, encoder(sm, args, low)?)),
        None => None,
    };
    let mut xor = match &args.xor_output {
        Some(path) => Some(Output::create(path, args.force)?),
        None => None,
    };
    let (mut padded, mut planes) = (Vec::new(), vec![0; 2 * BLOCK]);
    for (i, block) in tuned.chunks(2 * BLOCK).enumerate() {
        let base = base_part(base, i * 2 * BLOCK, block.len(), &mut padded);
        if let Some(xor) = &mut xor {
            let bytes: Vec<u8> = block.iter().zip(base).map(|(a, b)| a ^ b).collect();
            xor.write_all(&bytes)?;
        }
        if let Some((exp, sm)) = &mut streams {
            split(base, block, &mut planes, exp, sm)?;
        }
    }
    if let Some((exp, sm)) = streams {
        let (exp, sm) = (exp.finish()?, sm.finish()?);
        exp.finish()?;
        sm.finish()?;
    }
    xor.map_or(Ok(()), Output::finish)?;
    Ok(tuned.len() as u64)
}

/// Writes the planes of one block; the odd last byte of a file goes to the exponents.
fn split(
    base: &[u8],
    block: &[u8],
    planes: &mut Vec<u8>,
    exp: &mut impl Write,
    sm: &mut impl Write,
) -> Result<()> {
    let even = block.len() & !1;
    let (weights, odd) = block.split_at(even);
    planes.resize(even, 0);
    Isa::detect().split(BF16, base.get(..even), weights, planes);
    let (low, high) = planes.split_at(even / 2);
    sm.write_all(low)?;
    exp.write_all(high)?;
    if let (Some(odd), Some(base)) = (odd.first(), base.last()) {
        exp.write_all(&[odd ^ base])?;
    }
    Ok(())
}

/// Writes FILE2 from the base and the streams and returns its length in bytes.
fn decompress(args: &Args, exp: &Path, sm: &Path) -> Result<u64> {
    let base = map(&args.file1)?;
    let base = base.as_deref().unwrap_or_default();
    let mut out = Output::create(&args.file2, args.force)?;
    let (mut exponents, mut fractions) = (decoder(exp)?, decoder(sm)?);
    let (mut padded, mut high, mut low) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        fill(&mut exponents, &mut high).with_context(|| exp.display().to_string())?;
        fill(&mut fractions, &mut low).with_context(|| sm.display().to_string())?;
        let more = high.len().checked_sub(low.len()).filter(|more| *more < 2);
        let Some(more) = more else {
            bail!("the two streams do not belong together")
        };
        let bytes = 2 * low.len();
        let base = base_part(base, at, bytes + more, &mut padded);
        let mut weights = vec![0; bytes];
        let planes = [&low[..], high.get(..low.len()).unwrap_or_default()];
        Isa::detect().merge(BF16, base.get(..bytes), &planes, &mut weights);
        if let (1, Some(odd), Some(base)) = (more, high.last(), base.last()) {
            weights.push(odd ^ base);
        }
        out.write_all(&weights)?;
        at += weights.len();
        if high.len() < BLOCK || more == 1 {
            break;
        }
    }
    // A stream that goes on here is not of this pair.
    let rest = fractions.read(&mut [0])? + exponents.read(&mut [0])?;
    ensure!(rest == 0, "the two streams do not belong together");
    out.finish()?;
    Ok(at as u64)
}

/// Reads the next block of a stream, or what is left of it.
fn fill(stream: &mut Decoder, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    stream.take(BLOCK as u64).read_to_end(block)?;
    Ok(())
}
