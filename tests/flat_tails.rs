//! Objects say whether tails lie flat in them, whoever writes them and with however many threads.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking"
)]

#[path = "common/batch.rs"]
mod batch;
#[path = "common/tensors.rs"]
mod tensors;

use std::collections::BTreeSet;

use batch::{Batch, assert_same, tree};
use serde_json::{Value, json};
use tensors::{safetensors, tuned, weights};
use zipllm::codec::{CodecId, is_flat};
use zipllm::store::Store;
use zipllm::store::object::FLAT_TAILS;

const BASE: &str = "flat/base";
const TUNE: &str = "flat/tune";
/// Bytes up to which a writer knows all chunks when it writes the head.
const WINDOW: u64 = 32 << 20;
/// Elements in the rows of the embedding, its rows, and those that the fine-tune has more.
const COLUMNS: usize = 64;
const ROWS: usize = 4000;
const MORE: usize = 600;
const PARTS: u8 = 7;

/// The base and its fine-tune: of one chunk, of several, of an embedding that grows, and much longer than a window.
fn write_models(batch: &Batch) {
    let (one, several) = (weights(1, 40_000), weights(2, 3 << 19));
    let embedding = weights(3, ROWS * COLUMNS);
    let grown = [embedding.clone(), weights(4, MORE * COLUMNS)].concat();
    let pattern = weights(5, 1 << 12);
    // Nine chunks, so long that they are read twice and encoded window by window: 5 threads know all at once, 2 do not.
    let length = 8 * ((8 << 20) + 99);
    let long = &pattern.repeat(length / pattern.len() + 1)[..length];
    let change = |bytes: &[u8], seed: Option<u64>| {
        seed.map_or_else(|| bytes.to_vec(), |seed| tuned(bytes, seed))
    };
    for (id, seed, embedding) in [(BASE, None, &embedding), (TUNE, Some(6), &grown)] {
        let (one, several) = (change(&one, seed), change(&several, seed));
        let rows = (embedding.len() / 2 / COLUMNS) as u64;
        let shape = |bytes: &[u8], size: usize| [(bytes.len() / size) as u64];
        let file = safetensors(&[
            ("one", "BF16", &shape(&one, 2), &one),
            ("several", "BF16", &[3 << 9, 1 << 10], &several),
            ("embedding", "BF16", &[rows, COLUMNS as u64], embedding),
            ("long", "F64", &shape(long, 8), long),
        ]);
        batch.file(&format!("{id}/model.safetensors"), file);
    }
    batch.bases(&json!({BASE: [TUNE]}));
}

fn stored(settings: &Value, threads: u32) -> Batch {
    let batch = Batch::in_memory(&[BASE, TUNE]);
    write_models(&batch);
    let mut all = json!({"base_ft_path": "bases.json"});
    let settings = settings.as_object().unwrap().clone();
    all.as_object_mut().unwrap().extend(settings);
    batch.configure(&all);
    batch.zipllm(&["--threads", &threads.to_string()]).expect(0);
    batch
}

/// Holds what every object says against its chunks; returns what was there: codecs with flat tails, and whether an object
/// longer than a window may have some.
fn announced(batch: &Batch) -> (BTreeSet<u8>, bool) {
    let store = Store::open(&batch.path("store")).unwrap();
    let (mut codecs, mut may) = (BTreeSet::new(), false);
    for name in store.objects().unwrap().0 {
        let file = store.object(&name).unwrap();
        let chunks = (0u64..).zip(&file.frame.chunks);
        let flat = chunks.filter(|(index, chunk)| {
            let mut payload = vec![0; file.payload_len(*index)];
            file.read_payload(*index, &mut payload).unwrap();
            is_flat(CodecId(chunk.codec), &payload)
        });
        let flat: BTreeSet<u8> = flat.map(|(_, chunk)| chunk.codec).collect();
        let says = file.frame.head.required & FLAT_TAILS != 0;
        assert!(says || flat.is_empty(), "{name} does not say it");
        let is_long = file.frame.head.raw_len > WINDOW;
        assert!(
            is_long || says != flat.is_empty(),
            "{name} says it for nothing"
        );
        may |= is_long && says;
        codecs.extend(flat);
    }
    (codecs, may)
}

#[test]
fn objects_say_that_tails_lie_flat() {
    let batch = stored(&json!({}), 2);
    let expected = (BTreeSet::from([5, PARTS]), true);
    assert_eq!(announced(&batch), expected);
    for id in [BASE, TUNE] {
        batch.assert_restores(id, &tree(&batch.path("models").join(id)));
    }
    batch.report("recode", &["--all", "--effort", "fast"]);
    assert_eq!(announced(&batch), expected, "encoded anew");
    batch.assert_clean();
    let bitx = stored(&json!({"codec": "bitx"}), 2);
    assert_eq!(announced(&bitx), (BTreeSet::new(), false), "of planes");
    bitx.report("recode", &["--all"]);
    announced(&bitx);
}

#[test]
fn heads_do_not_depend_on_threads() {
    let first = stored(&json!({}), 1).stored();
    for threads in [2, 5, 12] {
        let again = stored(&json!({}), threads).stored();
        assert_same(&first, &again, &format!("{threads} threads"));
    }
}
