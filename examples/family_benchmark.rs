//! Measures how well bases are found on a family of models: without hints against the right map, in every order and after
//! `optimize`, and for copies of a fine-tune and of the base that are renamed, cut, resized, cast or shuffled. Writes JSON.
//!
//!     cargo build --release --bins --examples
//!     ./target/release/examples/family_benchmark --models-dir DIR --base NAME --work-dir /tmp/work --out families.json
//!
//! DIR holds one directory a model, named `org_name`, `org--name` or `name`. Model cards, which may name bases, are left out.
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a program that prints figures, and looks into JSON, where what is missing is null"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use zipllm::dtype::DType;
use zipllm::float::convert;

use support::measure::{self, Run};
use support::programs;
use support::random::Random;

/// Rows that are added to the vocabulary.
const ADDED_ROWS: usize = 7;
const EMBEDDING: &str = "model.embed_tokens.weight";

#[derive(Parser)]
#[command(about = "Measures how well bases are found on a family of models")]
struct Arguments {
    /// The directory of the models' directories.
    #[arg(long)]
    models_dir: PathBuf,
    /// The directory of the base.
    #[arg(long)]
    base: String,
    /// The directory of the fine-tune that is renamed, cut and resized; else the second by name.
    #[arg(long)]
    fine_tune: Option<String>,
    /// Where to write; must not exist.
    #[arg(long)]
    work_dir: PathBuf,
    /// The JSON file to write.
    #[arg(long, default_value = "families.json")]
    out: PathBuf,
    /// How often to measure what takes time, each way in turn.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Threads for zipllm; 0 for all the machine has.
    #[arg(long, default_value_t = 0)]
    threads: u32,
}

/// A tensor as it is written.
#[derive(Clone)]
struct Weights {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

struct Bench {
    arguments: Arguments,
    zipllm: PathBuf,
    /// The models by directory name, the base first.
    names: Vec<String>,
    fine_tune: String,
}

/// A store that was made.
struct Stored {
    directory: PathBuf,
    report: Value,
    run: Run,
}

/// What two ways took that were run in turn, so that what else the machine does hits both alike.
#[derive(Default)]
struct Paired(Vec<(Run, Run)>);

impl Paired {
    /// The median, over all turns, of what the second way takes over what the first does.
    fn ratio(&self, figure: fn(&Run) -> f64) -> f64 {
        let ratios = self.0.iter().map(|(one, two)| figure(two) / figure(one));
        median(ratios.collect())
    }

    /// All figures, and the ratios of both kinds of time.
    fn json(&self) -> Value {
        let list = |figure: &dyn Fn(&(Run, Run)) -> f64| -> Vec<f64> {
            self.0.iter().map(figure).collect()
        };
        json!({
            "cpu_seconds": [list(&|pair| pair.0.cpu_seconds), list(&|pair| pair.1.cpu_seconds)],
            "wall_seconds": [list(&|pair| pair.0.wall_seconds), list(&|pair| pair.1.wall_seconds)],
            "median_cpu_ratio": self.ratio(|run| run.cpu_seconds),
            "median_wall_ratio": self.ratio(|run| run.wall_seconds),
        })
    }
}

impl Stored {
    /// Bytes of all object files.
    fn objects(&self) -> u64 {
        self.report["store"]["object_bytes"].as_u64().unwrap_or(0)
    }

    fn of(&self, model: &str) -> &Value {
        let models = self.report["models"].as_array().into_iter().flatten();
        let mut models = models.filter(|entry| entry["model"] == model);
        models.next().unwrap_or(&Value::Null)
    }

    /// Bytes that a model added, its manifest's included.
    fn added(&self, model: &str) -> u64 {
        self.of(model)["stored_bytes"].as_u64().unwrap_or(0)
    }

    /// Bytes of payloads that a model added.
    fn objects_of(&self, model: &str) -> u64 {
        let savings = &self.of(model)["savings"];
        let kinds = ["delta", "solo", "plain"].iter();
        let coded = kinds.filter_map(|kind| savings[*kind]["stored_bytes"].as_u64());
        coded.sum()
    }
}

/// The id of a model's directory, as `zipllm` reads it.
fn id(name: &str) -> String {
    if name.contains("--") {
        name.replacen("--", "/", 1)
    } else {
        name.replacen('_', "/", 1)
    }
}

fn read(path: &Path) -> Result<Vec<Weights>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut tensors: Vec<_> = file.tensors();
    // In the order of the file, as any other copy of the model.
    tensors.sort_by_key(|(_, view)| view.data().as_ptr());
    let tensors = tensors.into_iter().map(|(name, view)| {
        ensure!(view.dtype() == Dtype::BF16, "{name} is not BF16");
        Ok(Weights {
            name,
            dtype: DType::Bf16,
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        })
    });
    tensors.collect()
}

fn write(path: &Path, tensors: &[Weights]) -> Result<()> {
    let dtype = |dtype| match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::F8E4M3 => Dtype::F8_E4M3,
        DType::F8E5M2 => Dtype::F8_E5M2,
        _ => Dtype::BF16,
    };
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(dtype(tensor.dtype), tensor.shape.clone(), &tensor.data)?;
        Ok((tensor.name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
}

impl Bench {
    fn new(mut arguments: Arguments) -> Result<Self> {
        arguments.models_dir = arguments.models_dir.canonicalize()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&arguments.models_dir)? {
            let entry = entry?;
            if entry.path().join("model.safetensors").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort_by_key(|name| (*name != arguments.base, name.clone()));
        ensure!(
            names.len() > 1 && names.first() == Some(&arguments.base),
            "no family with this base"
        );
        let second = names.get(1).cloned().unwrap_or_default();
        let fine_tune = arguments.fine_tune.clone().unwrap_or(second);
        ensure!(names.contains(&fine_tune), "{fine_tune} is not there");
        fs::create_dir(&arguments.work_dir).context("the work directory must not exist")?;
        arguments.work_dir = arguments.work_dir.canonicalize()?;
        let models = arguments.work_dir.join("models");
        for name in &names {
            copy_model(&arguments.models_dir.join(name), &models.join(name))?;
        }
        Ok(Self {
            zipllm: programs::find("zipllm")?,
            names,
            fine_tune,
            arguments,
        })
    }

    fn model(&self, name: &str) -> PathBuf {
        self.arguments.work_dir.join("models").join(name)
    }

    /// Stores models in a new store, in this order; `map` is the base map.
    fn store(&self, name: &str, models: &[&str], map: &Value) -> Result<Stored> {
        let directory = self.arguments.work_dir.join(name);
        fs::create_dir_all(&directory)?;
        let ids: Vec<_> = models.iter().map(|model| id(model)).collect();
        fs::write(directory.join("list.txt"), ids.join("\n"))?;
        fs::write(directory.join("map.json"), map.to_string())?;
        let config = json!({
            "model_dir": self.arguments.work_dir.join("models"), "storage_dir": "store",
            "models_to_process": "list.txt", "base_ft_path": "map.json", "threads": self.arguments.threads,
        });
        fs::write(directory.join("config.json"), config.to_string())?;
        let (report, run) = self.run(&directory, None)?;
        Ok(Stored {
            directory,
            report,
            run,
        })
    }

    /// Runs `zipllm` on the config in a directory.
    fn run(&self, directory: &Path, verb: Option<&str>) -> Result<(Value, Run)> {
        let log = directory.join("log");
        let mut command = Command::new(&self.zipllm);
        command.args(verb).arg(directory.join("config.json"));
        let run = measure::run(command.arg("--json"), &log)?;
        Ok((serde_json::from_slice(&fs::read(&log)?)?, run))
    }

    /// Stores, and deletes the store.
    fn try_store(&self, models: &[&str], map: &Value) -> Result<Stored> {
        let stored = self.store("try", models, map)?;
        fs::remove_dir_all(&stored.directory)?;
        Ok(stored)
    }

    fn right_map(&self) -> Value {
        let tuned: Vec<_> = self.names.iter().skip(1).map(|name| id(name)).collect();
        json!({ id(&self.arguments.base): tuned })
    }

    /// The family in every rotation, without hints, before and after `optimize`.
    fn orders(&self, mapped: u64) -> Result<Vec<Value>> {
        let mut orders = Vec::new();
        for turn in 0..self.names.len() {
            let (before, after) = self.names.split_at(turn);
            let order: Vec<_> = after.iter().chain(before).map(String::as_str).collect();
            let stored = self.store("order", &order, &json!({}))?;
            let (optimized, _) = self.run(&stored.directory, Some("optimize"))?;
            fs::remove_dir_all(&stored.directory)?;
            let after = optimized["bytes_after"].as_u64().unwrap_or(0);
            println!(
                "{:<40} {:>+8.2} % {:>+8.2} % after optimize",
                format!("{} first", order.first().unwrap_or(&"")),
                over(stored.objects(), mapped),
                over(after, mapped)
            );
            orders.push(json!({
                "first": order.first(), "object_bytes": stored.objects(), "over_map_percent": over(stored.objects(), mapped),
                "optimized_bytes": after, "optimized_over_map_percent": over(after, mapped),
                "optimize_seconds": optimized["seconds"], "changed": optimized["changed"],
            }));
        }
        Ok(orders)
    }

    /// Stores a model made of these tensors after the base; returns what it added.
    fn variant(&self, name: &str, tensors: &[Weights]) -> Result<u64> {
        let directory = self.model(name);
        fs::create_dir(&directory)?;
        write(&directory.join("model.safetensors"), tensors)?;
        let stored = self.try_store(&[&self.arguments.base, name], &json!({}))?;
        fs::remove_dir_all(&directory)?;
        Ok(stored.added(&id(name)))
    }

    /// The fine-tune renamed, cut and resized.
    fn alignment(&self) -> Result<Value> {
        let tuned = read(&self.model(&self.fine_tune).join("model.safetensors"))?;
        let plain = self.variant("variant_plain", &tuned)?;
        let mut figures = BTreeMap::new();
        let mut note = |what: &str, bytes: u64, against: u64| {
            println!("{what:<40} {bytes:>10} B {:>+8.2} %", over(bytes, against));
            let figure =
                json!({"bytes": bytes, "against": against, "over_percent": over(bytes, against)});
            figures.insert(what.to_owned(), figure);
        };
        let mut renamed = tuned.clone();
        for (at, tensor) in renamed.iter_mut().enumerate() {
            tensor.name = format!("weights.{at:04}");
        }
        note("renamed", self.variant("variant_renamed", &renamed)?, plain);
        // What the same tensors take under their own names.
        let (cut, kept) = every_second_layer(&tuned);
        let kept = self.variant("variant_kept", &kept)?;
        note(
            "every second layer",
            self.variant("variant_cut", &cut)?,
            kept,
        );
        let mut resized = tuned;
        let rows = add_rows(&mut resized).context("the fine-tune has no vocabulary")?;
        let bytes = self.variant("variant_resized", &resized)?;
        note("seven rows more", bytes, plain + rows);
        Ok(json!(figures))
    }

    /// The base in other types, each after the base.
    fn casts(&self) -> Result<Value> {
        let base = read(&self.model(&self.arguments.base).join("model.safetensors"))?;
        let mut figures = BTreeMap::new();
        for (name, dtype) in [
            ("F32", DType::F32),
            ("F16", DType::F16),
            ("F8_E4M3", DType::F8E4M3),
            ("F8_E5M2", DType::F8E5M2),
        ] {
            let cast = |tensor: &Weights| {
                let mut data = vec![0; tensor.data.len() / 2 * dtype.size()];
                convert(DType::Bf16, &tensor.data, dtype, &mut data);
                Weights {
                    dtype,
                    data,
                    ..tensor.clone()
                }
            };
            let cast: Vec<_> = base.iter().map(cast).collect();
            self.note_cast(&mut figures, name, &cast)?;
        }
        for (name, block) in [
            ("F8_E4M3, a scale a tensor", usize::MAX),
            ("F8_E4M3, a scale for 128 elements", 128),
        ] {
            let cast: Vec<_> = base.iter().map(|tensor| scaled(tensor, block)).collect();
            self.note_cast(&mut figures, name, &cast)?;
        }
        Ok(json!(figures))
    }

    /// Stores a cast after the base, and alone.
    fn note_cast(
        &self,
        figures: &mut BTreeMap<String, Value>,
        name: &str,
        cast: &[Weights],
    ) -> Result<()> {
        let raw: usize = cast.iter().map(|tensor| tensor.data.len()).sum();
        let bytes = self.variant("variant_cast", cast)?;
        let share = 100.0 * bytes as f64 / raw as f64;
        println!("{:<40} {share:>8.3} % of its bytes", format!("{name} copy"));
        let figure = json!({"raw_bytes": raw, "bytes": bytes, "percent_of_its_bytes": share});
        figures.insert(name.to_owned(), figure);
        Ok(())
    }

    /// A model of the same shapes that is not related, alone and after the base.
    fn stranger(&self) -> Result<Value> {
        let mut tensors = read(&self.model(&self.arguments.base).join("model.safetensors"))?;
        for tensor in &mut tensors {
            shuffle(tensor);
        }
        let directory = self.model("variant_stranger");
        fs::create_dir(&directory)?;
        write(&directory.join("model.safetensors"), &tensors)?;
        let model = id("variant_stranger");
        let mut times = Paired::default();
        let mut bytes = (0, 0);
        for _ in 0..self.arguments.repeat {
            let alone = self.try_store(&["variant_stranger"], &json!({}))?;
            bytes.0 = alone.objects_of(&model);
            self.store("try", &[&self.arguments.base], &json!({}))?;
            let beside = self.try_store(&["variant_stranger"], &json!({}))?;
            bytes.1 = beside.objects_of(&model);
            ensure!(
                beside.of(&model)["bases"].is_null(),
                "the stranger was paired"
            );
            times.0.push((alone.run, beside.run));
        }
        fs::remove_dir_all(&directory)?;
        println!(
            "{:<40} {:>+8.2} % bytes, {:>+8.1} % processor time",
            "unrelated, beside the base",
            over(bytes.1, bytes.0),
            100.0 * (times.ratio(|run| run.cpu_seconds) - 1.0)
        );
        Ok(json!({
            "payload_bytes_alone": bytes.0, "payload_bytes_beside_base": bytes.1,
            "alone_and_beside_base": times.json(),
        }))
    }

    /// Time for the whole family with the right map, and without hints, in turn.
    fn speed(&self) -> Result<Value> {
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        let mut times = Paired::default();
        let mut bytes = 0;
        for _ in 0..self.arguments.repeat {
            let told = self.try_store(&names, &self.right_map())?;
            let found = self.try_store(&names, &json!({}))?;
            bytes = found.report["bytes"].as_u64().unwrap_or(0);
            times.0.push((told.run, found.run));
        }
        let percent = |figure: fn(&Run) -> f64| 100.0 / times.ratio(figure);
        let (cpu, wall) = (
            percent(|run| run.cpu_seconds),
            percent(|run| run.wall_seconds),
        );
        println!(
            "{:<40} {cpu:.1} % of the speed with the map by processor time, {wall:.1} % by the clock",
            "storing without the map"
        );
        Ok(json!({"bytes": bytes, "with_map_and_without": times.json(),
            "percent_of_mapped_cpu": cpu, "percent_of_mapped_wall": wall}))
    }

    fn all(&self) -> Result<Value> {
        let names: Vec<_> = self.names.iter().map(String::as_str).collect();
        let mapped = self.try_store(&names, &self.right_map())?.objects();
        Ok(json!({
            "models": self.names, "fine_tune": self.fine_tune, "repeat": self.arguments.repeat,
            "threads": self.arguments.threads,
            "machine_threads": std::thread::available_parallelism().map_or(1, usize::from),
            "mapped_object_bytes": mapped, "orders": self.orders(mapped)?, "alignment": self.alignment()?,
            "casts_of_the_base": self.casts()?, "unrelated": self.stranger()?, "speed": self.speed()?,
        }))
    }
}

/// Copies a model without its card.
fn copy_model(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != "README.md" {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The tensors of every second layer, the layers numbered anew; and the same under their own names.
fn every_second_layer(tensors: &[Weights]) -> (Vec<Weights>, Vec<Weights>) {
    let (mut cut, mut kept) = (Vec::new(), Vec::new());
    for tensor in tensors {
        let rest = tensor.name.strip_prefix("model.layers.");
        let layer = rest.and_then(|rest| rest.split_once('.'));
        let layer = layer.and_then(|(layer, rest)| Some((layer.parse::<usize>().ok()?, rest)));
        let name = match layer {
            Some((layer, _)) if layer % 2 == 1 => continue,
            Some((layer, rest)) => format!("model.layers.{}.{rest}", layer / 2),
            None => tensor.name.clone(),
        };
        kept.push(tensor.clone());
        cut.push(Weights {
            name,
            ..tensor.clone()
        });
    }
    (cut, kept)
}

/// Adds rows to the vocabulary, each with the elements of another one in another order; returns their bytes.
fn add_rows(tensors: &mut [Weights]) -> Option<u64> {
    let tensor = tensors.iter_mut().find(|tensor| tensor.name == EMBEDDING)?;
    let row = 2 * tensor.shape.get(1)?;
    let mut rows = Weights {
        shape: vec![ADDED_ROWS, row / 2],
        data: tensor.data.get(..ADDED_ROWS * row)?.to_vec(),
        ..tensor.clone()
    };
    shuffle(&mut rows);
    tensor.data.extend(&rows.data);
    *tensor.shape.first_mut()? += ADDED_ROWS;
    Some(rows.data.len() as u64)
}

/// A tensor as FP8, divided by a scale for each `block` elements first, so that the greatest becomes 448.
fn scaled(tensor: &Weights, block: usize) -> Weights {
    let mut floats = vec![0; 2 * tensor.data.len()];
    convert(DType::Bf16, &tensor.data, DType::F32, &mut floats);
    let (words, _) = floats.as_chunks::<4>();
    let floats: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let divide = |block: &[f32]| {
        let most = block.iter().fold(0f32, |most, one| most.max(one.abs()));
        let scale = if most > 0.0 { most / 448.0 } else { 1.0 };
        block.iter().map(|one| one / scale).collect::<Vec<_>>()
    };
    let divided = floats.chunks(block).flat_map(divide);
    let divided: Vec<u8> = divided.flat_map(f32::to_le_bytes).collect();
    let mut data = vec![0; floats.len()];
    convert(DType::F32, &divided, DType::F8E4M3, &mut data);
    Weights {
        dtype: DType::F8E4M3,
        data,
        ..tensor.clone()
    }
}

/// Puts a tensor's elements in another order (Fisher and Yates).
fn shuffle(tensor: &mut Weights) {
    let mut random = Random::new(1, &tensor.name);
    let (elements, _) = tensor.data.as_chunks_mut::<2>();
    for at in (1..elements.len()).rev() {
        let other = random.bits() % (at as u64 + 1);
        elements.swap(at, usize::try_from(other).unwrap_or(at));
    }
}

/// How much more than another number one is, in percent.
fn over(bytes: u64, against: u64) -> f64 {
    100.0 * (bytes as f64 / against as f64 - 1.0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn main() -> Result<()> {
    let bench = Bench::new(Arguments::parse())?;
    let figures = bench.all()?;
    let out = &bench.arguments.out;
    fs::write(out, format!("{figures:#}\n"))
        .with_context(|| format!("cannot write {}", out.display()))?;
    println!("\n{}", out.display());
    Ok(fs::remove_dir_all(&bench.arguments.work_dir)?)
}
