//! A generated family of models on disk, in the layouts that people have.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::random::Random;
use super::safetensors_file::{self, Coding};
use super::weights::{self, Size, Tensor, Tuning};

/// The base's id.
pub const BASE: &str = "llama-lab/tiny";
/// The revision of the model that lies in a Hugging Face cache.
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// A model and the directory with its files.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its id, `org/name`.
    pub id: String,
    /// Where its files are.
    pub directory: PathBuf,
    /// Its base, by the base map.
    pub base: Option<String>,
}

/// What a model of the family is.
#[derive(Clone, Copy)]
enum Recipe {
    Base,
    Tuned(Tuning),
    /// A fine-tune in two files.
    Sharded(Tuning),
    /// The base under another name.
    Copy,
    /// The base in F32.
    Wide,
}

/// The models, how their directories are named, and what they are.
const RECIPES: [(&str, Layout, Recipe); 7] = [
    (BASE, Layout::Joined("/"), Recipe::Base),
    (
        "chat-crew/tiny-chat",
        Layout::Joined("--"),
        Recipe::Sharded(Tuning::Typical),
    ),
    (
        "docs_team/tiny_docs",
        Layout::Joined("_"),
        Recipe::Tuned(Tuning::Light),
    ),
    (
        "peft-people/tiny-lora",
        Layout::Joined("/"),
        Recipe::Tuned(Tuning::LowRank),
    ),
    (
        "night-owls/tiny-head",
        Layout::Cache,
        Recipe::Tuned(Tuning::LastLayer),
    ),
    ("mirror/tiny", Layout::Joined("_"), Recipe::Copy),
    ("exact/tiny-f32", Layout::Joined("/"), Recipe::Wide),
];

/// How a model's directory lies among the others.
#[derive(Clone, Copy)]
enum Layout {
    /// Organisation and name with this between them.
    Joined(&'static str),
    /// The Hugging Face cache: links to content-addressed blobs.
    Cache,
}

/// Writes the family below `models`, which need not exist, the base first; the same bytes for the same size.
pub fn write(models: &Path, size: &Size) -> io::Result<Vec<Model>> {
    let base = weights::base(size, 1);
    let mut written = Vec::new();
    for (seed, (id, layout, recipe)) in (2..).zip(RECIPES) {
        let directory = match layout {
            Layout::Joined(separator) => models.join(id.replacen('/', separator, 1)),
            Layout::Cache => models.join(format!(
                "models--{}/snapshots/{REVISION}",
                id.replacen('/', "--", 1)
            )),
        };
        fs::create_dir_all(&directory)?;
        write_weights(&directory, &base, recipe, seed)?;
        write_side_files(&directory, id, recipe, size)?;
        if matches!(layout, Layout::Cache) {
            turn_to_cache(&directory)?;
        }
        let tuned = !matches!(recipe, Recipe::Base | Recipe::Copy);
        written.push(Model {
            id: id.to_owned(),
            directory,
            base: tuned.then(|| BASE.to_owned()),
        });
    }
    Ok(written)
}

fn write_weights(directory: &Path, base: &[Tensor], recipe: Recipe, seed: u64) -> io::Result<()> {
    let file = directory.join("model.safetensors");
    match recipe {
        Recipe::Base | Recipe::Copy => safetensors_file::write(&file, base, Coding::Bf16),
        Recipe::Wide => safetensors_file::write(&file, base, Coding::F32),
        Recipe::Tuned(tuning) => {
            safetensors_file::write(&file, &weights::fine_tune(base, tuning, seed), Coding::Bf16)
        }
        Recipe::Sharded(tuning) => {
            safetensors_file::write_sharded(directory, &weights::fine_tune(base, tuning, seed))
        }
    }
}

/// Writes what lies beside the weights: settings, model card, tokenizer, a nested folder, an empty file, a script.
fn write_side_files(directory: &Path, id: &str, recipe: Recipe, size: &Size) -> io::Result<()> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": size.hidden,
        "intermediate_size": size.inner, "num_hidden_layers": size.layers, "vocab_size": size.vocabulary,
    });
    fs::write(directory.join("config.json"), format!("{config:#}\n"))?;
    // The copy has all the files of the base, its card too.
    let card = if matches!(recipe, Recipe::Base | Recipe::Copy) {
        format!("# {BASE}\n")
    } else {
        tuned_card(id)
    };
    fs::write(directory.join("README.md"), card)?;
    fs::write(directory.join("tokenizer.json"), tokenizer(size.vocabulary))?;
    fs::create_dir_all(directory.join("original/logs"))?;
    fs::write(
        directory.join("original/params.json"),
        format!("{{\"dim\": {}}}", size.hidden),
    )?;
    fs::write(directory.join("original/logs/.keep"), "")?;
    let script = directory.join("convert.sh");
    fs::write(&script, "#!/bin/sh\necho 'nothing to convert'\n")?;
    fs::set_permissions(&script, Permissions::from_mode(0o755))
}

fn tuned_card(id: &str) -> String {
    format!("---\nlicense: cc0-1.0\nbase_model: {BASE}\n---\n# {id}\n\nGenerated, not trained.\n")
}

/// Text that looks like a tokenizer: a word for each token.
fn tokenizer(tokens: usize) -> String {
    let mut random = Random::new(7, "tokenizer");
    let mut text = String::from("{\n  \"version\": \"1.0\",\n  \"model\": {\n    \"vocab\": {\n");
    for token in 0..tokens {
        let word = word(&mut random);
        let comma = if token + 1 < tokens { "," } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "      \"{word}{token:x}\": {token}{comma}");
    }
    text + "    }\n  }\n}\n"
}

fn word(random: &mut Random) -> String {
    const LETTERS: [char; 16] = [
        'e', 't', 'a', 'o', 'i', 'n', 's', 'r', 'h', 'l', 'd', 'c', 'u', 'm', 'p', 'g',
    ];
    let mut bits = random.bits();
    let length = 2 + bits % 7;
    (0..length)
        .filter_map(|_| {
            bits >>= 4;
            LETTERS.get(usize::from(bits.to_le_bytes()[1] & 15))
        })
        .collect()
}

/// Turns a snapshot directory with plain files into one of links, as in a Hugging Face cache.
fn turn_to_cache(snapshot: &Path) -> io::Result<()> {
    let root = snapshot.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(root.join("blobs"))?;
    fs::create_dir_all(root.join("refs"))?;
    fs::write(root.join("refs/main"), REVISION)?;
    for entry in fs::read_dir(snapshot)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let blob = format!("blob-{}", entry.file_name().display());
            fs::rename(entry.path(), root.join("blobs").join(&blob))?;
            symlink(Path::new("../../blobs").join(&blob), entry.path())?;
        }
    }
    Ok(())
}

/// Writes `config.json`, `models.txt` and `base_ft.json` to `directory` for models below `model_dir` and a store in
/// `directory/store`; returns the config's path. 0 threads stand for all of the machine's.
pub fn write_batch(
    directory: &Path,
    model_dir: &Path,
    threads: u32,
    models: &[Model],
) -> io::Result<PathBuf> {
    let mut list = String::from("# base models first, then fine-tunes\n");
    for model in models {
        list += &model.id;
        list.push('\n');
    }
    fs::write(directory.join("models.txt"), list)?;
    let mut map = serde_json::Map::new();
    for model in models {
        if let Some(list) = model
            .base
            .as_ref()
            .map(|base| map.entry(base).or_insert_with(|| json!([])))
        {
            list.as_array_mut()
                .into_iter()
                .for_each(|list| list.push(json!(model.id)));
        }
    }
    fs::write(
        directory.join("base_ft.json"),
        format!("{:#}\n", serde_json::Value::Object(map)),
    )?;
    let config = json!({
        "model_dir": model_dir, "storage_dir": "./store", "threads": threads,
        "models_to_process": "./models.txt", "base_ft_path": "./base_ft.json",
    });
    let path = directory.join("config.json");
    fs::write(&path, format!("{config:#}\n"))?;
    Ok(path)
}
