//! Equal inputs and settings give equal bytes in the store, whatever the number of threads, the run, and the order in
//! which the files came to be (T17).

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::fs;

use batch::{Batch, Entry, Tree, assert_same, ids, testdata, tree};
use serde_json::json;
use tensors::{noise, safetensors, tuned, weights};

/// Everything that makes a batch: models of many chunks, of many small tensors, and the cut of the real family.
struct Inputs {
    files: Vec<(String, Vec<u8>)>,
    ids: Vec<String>,
    bases: serde_json::Value,
}

impl Inputs {
    fn new() -> Self {
        let list = fs::read_to_string(testdata("real/models.txt")).unwrap();
        let mut inputs = Self {
            files: Vec::new(),
            ids: ids(&list).into_iter().map(str::to_owned).collect(),
            bases: serde_json::from_slice(&fs::read(testdata("real/base_ft.json")).unwrap())
                .unwrap(),
        };
        let real = testdata("real/models");
        for (path, entry) in tree(&real) {
            if entry != Entry::Directory {
                let bytes = fs::read(real.join(&path)).unwrap();
                inputs
                    .files
                    .push((path.to_str().unwrap().to_owned(), bytes));
            }
        }
        inputs.add_made_up();
        inputs
    }

    fn add_made_up(&mut self) {
        const LONG: usize = (2 << 20) + 501;
        let base: Vec<_> = (0..40).map(|seed| weights(seed, 3000)).collect();
        let long = weights(99, 1 << 16).repeat(LONG / (1 << 16) + 1)[..2 * LONG].to_vec();
        for (model, seed) in [("base", None), ("one", Some(1)), ("two", Some(2))] {
            let change =
                |values: &Vec<u8>| seed.map_or_else(|| values.clone(), |seed| tuned(values, seed));
            let small: Vec<_> = base.iter().map(change).collect();
            let names: Vec<_> = (0..small.len())
                .map(|number| format!("t{number}"))
                .collect();
            let mut tensors: Vec<tensors::Tensor<'_>> = names
                .iter()
                .zip(&small)
                .map(|(name, values)| (name.as_str(), "BF16", &[3000][..], values.as_slice()))
                .collect();
            let long = change(&long);
            let shape = [LONG as u64];
            tensors.push(("long", "BF16", &shape, &long));
            let place = |name: &str| format!("made/{model}/{name}");
            self.files
                .push((place("model.safetensors"), safetensors(&tensors)));
            self.files.push((place("vocab.txt"), noise(5, 200_000)));
            self.files
                .push((place(&format!("{model}.bin")), noise(6, 100_000)));
            self.ids.push(format!("made/{model}"));
        }
        self.bases["made/base"] = json!(["made/one", "made/two"]);
    }

    /// Writes the files in an order of its own, stores them, and returns `objects/` and `models/`.
    fn store(&self, threads: u32, order: u64) -> Tree {
        let ids: Vec<_> = self.ids.iter().map(String::as_str).collect();
        let batch = Batch::in_memory(&ids);
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by_cached_key(|(place, _)| {
            blake3::hash(format!("{order} {place}").as_bytes()).to_hex()
        });
        for (place, bytes) in files {
            batch.file(place, bytes);
        }
        batch.bases(&self.bases);
        batch.zipllm(&["--threads", &threads.to_string()]).expect(0);
        batch.stored()
    }
}

#[test]
fn the_store_is_a_function_of_its_inputs() {
    let inputs = Inputs::new();
    let first = inputs.store(1, 0);
    assert!(first.len() > 150, "{} entries", first.len());
    for (threads, order) in [(1, 0), (2, 0), (2, 1), (8, 0), (8, 2), (3, 3)] {
        let again = inputs.store(threads, order);
        assert_same(&first, &again, &format!("{threads} threads, order {order}"));
    }
}
