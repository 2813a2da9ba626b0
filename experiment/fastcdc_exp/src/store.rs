//! A deduplicating store: one pack of unique chunks, and a recipe for each file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chunks;

const PACK: &str = "chunks.bin";
const RECIPES: &str = "recipes.json";

/// A chunk's place in the pack: offset and length, in bytes.
type Place = (u64, u32);

/// A file: where its chunks are, in order.
#[derive(Serialize, Deserialize)]
struct Recipe {
    path: PathBuf,
    chunks: Vec<Place>,
}

struct Pack {
    output: BufWriter<File>,
    places: HashMap<blake3::Hash, Place>,
    end: u64,
}

impl Pack {
    fn put(&mut self, data: &[u8], hash: blake3::Hash) -> Result<Place> {
        if let Some(place) = self.places.get(&hash) {
            return Ok(*place);
        }
        let place = (self.end, u32::try_from(data.len())?);
        self.output
            .write_all(data)
            .context("cannot write the pack")?;
        self.end += u64::from(place.1);
        self.places.insert(hash, place);
        Ok(place)
    }
}

/// Stores every file below `root`.
pub fn ingest(store: &Path, root: &Path, avg_size: u32, threads: usize) -> Result<Value> {
    let start = Instant::now();
    fs::create_dir(store).with_context(|| format!("cannot create {}", store.display()))?;
    let file = File::create_new(store.join(PACK)).context("cannot create the pack")?;
    let pack = Mutex::new(Pack {
        output: BufWriter::new(file),
        places: HashMap::new(),
        end: 0,
    });
    let mut files = Vec::new();
    list_files(root, &mut files)?;
    let recipes = in_parallel(&files, threads, |path| {
        let mut places = Vec::new();
        chunks::for_each(path, avg_size, |data, hash| {
            places.push(
                pack.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .put(data, hash)?,
            );
            Ok(())
        })?;
        Ok(Recipe {
            path: path.strip_prefix(root)?.to_path_buf(),
            chunks: places,
        })
    })?;
    let mut pack = pack.into_inner().unwrap_or_else(PoisonError::into_inner);
    pack.output.flush().context("cannot write the pack")?;
    pack.output
        .get_ref()
        .sync_all()
        .context("cannot write the pack")?;
    let recipe_file = File::create_new(store.join(RECIPES)).context("cannot create the recipes")?;
    serde_json::to_writer(&recipe_file, &recipes).context("cannot write the recipes")?;
    recipe_file.sync_all().context("cannot write the recipes")?;
    Ok(
        json!({ "seconds": start.elapsed().as_secs_f64(), "files": files.len(), "chunks": pack.places.len() }),
    )
}

/// Writes every stored file below `output`.
pub fn restore(store: &Path, output: &Path, threads: usize) -> Result<Value> {
    let start = Instant::now();
    let text = fs::read(store.join(RECIPES))
        .with_context(|| format!("cannot read {}", store.display()))?;
    let recipes: Vec<Recipe> =
        serde_json::from_slice(&text).context("the recipes are malformed")?;
    let pack = File::open(store.join(PACK)).context("cannot open the pack")?;
    in_parallel(&recipes, threads, |recipe| {
        restore_file(&pack, recipe, output)
    })?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "files": recipes.len() }))
}

fn restore_file(pack: &File, recipe: &Recipe, output: &Path) -> Result<()> {
    if !recipe
        .path
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!("{}: not a path below the output", recipe.path.display());
    }
    let path = output.join(&recipe.path);
    let context = || format!("cannot write {}", path.display());
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .with_context(context)?;
    let mut file = BufWriter::new(File::create_new(&path).with_context(context)?);
    let mut buffer = Vec::new();
    for &(offset, length) in &recipe.chunks {
        buffer.resize(length as usize, 0);
        pack.read_exact_at(&mut buffer, offset)
            .context("cannot read the pack")?;
        file.write_all(&buffer).with_context(context)?;
    }
    file.flush().with_context(context)
}

fn list_files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot list {}", directory.display());
    let mut entries = fs::read_dir(directory)
        .with_context(context)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            list_files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Calls `work` with each item, on several threads; the results keep the items' order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let result = work(item);
                    results
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
