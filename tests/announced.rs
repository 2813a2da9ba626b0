//! Objects say whether tails lie flat and runs are skipped in them, whoever writes them and with however many threads.
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
use zipllm::codec::{CodecId, has_skips, is_flat};
use zipllm::store::Store;
use zipllm::store::object::{FLAT_TAILS, SKIPS};

const BASE: &str = "said/base";
const TUNE: &str = "said/tune";
/// Bytes up to which a writer knows all chunks when it writes the head.
const WINDOW: u64 = 32 << 20;
/// Elements in the rows of the embedding, its rows, and those that the fine-tune has more.
const COLUMNS: usize = 64;
const ROWS: usize = 4000;
const MORE: usize = 600;
const PARTS: u8 = 7;

/// The base and its fine-tune: of one chunk, of several, of an embedding that grows and is nearly equal else, and much longer than a
/// window.
fn write_models(batch: &Batch) {
    let (one, several) = (weights(1, 40_000), weights(2, 3 << 19));
    // As long as one chunk and a half, of which nearly nothing changes.
    let still = weights(7, 3 << 19);
    let embedding = weights(3, ROWS * COLUMNS);
    let grown = [nudged(&embedding, 2), weights(4, MORE * COLUMNS)].concat();
    let pattern = weights(5, 1 << 12);
    // Nine chunks, so long that they are read twice and encoded window by window: 5 threads know all at once, 2 do not.
    let length = 8 * ((8 << 20) + 99);
    let long = &pattern.repeat(length / pattern.len() + 1)[..length];
    let change = |bytes: &[u8], seed: Option<u64>| {
        seed.map_or_else(|| bytes.to_vec(), |seed| tuned(bytes, seed))
    };
    for (id, seed, embedding) in [(BASE, None, &embedding), (TUNE, Some(6), &grown)] {
        let (one, several) = (change(&one, seed), change(&several, seed));
        let still = seed.map_or_else(|| still.clone(), |_| nudged(&still, 2));
        let long = seed.map_or_else(|| long.to_vec(), |_| nudged(long, 8));
        let rows = (embedding.len() / 2 / COLUMNS) as u64;
        let shape = |bytes: &[u8], size: usize| [(bytes.len() / size) as u64];
        let file = safetensors(&[
            ("one", "BF16", &shape(&one, 2), &one),
            ("several", "BF16", &[3 << 9, 1 << 10], &several),
            ("embedding", "BF16", &[rows, COLUMNS as u64], embedding),
            ("long", "F64", &shape(&long, 8), &long),
            ("still", "BF16", &shape(&still, 2), &still),
        ]);
        batch.file(&format!("{id}/model.safetensors"), file);
    }
    batch.bases(&json!({BASE: [TUNE]}));
}

/// One element in 200, of so many bytes, changed by a little.
fn nudged(words: &[u8], size: usize) -> Vec<u8> {
    let mut words = words.to_vec();
    let lowest = words.iter_mut().step_by(200 * size);
    lowest.for_each(|byte| *byte ^= 1);
    words
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

/// A feature of some chunks.
struct Feature {
    bit: u16,
    is_there: fn(CodecId, &[u8]) -> bool,
}

const FLAT: Feature = Feature {
    bit: FLAT_TAILS,
    is_there: is_flat,
};
const SKIPPING: Feature = Feature {
    bit: SKIPS,
    is_there: has_skips,
};

/// Holds what every object says against its chunks; returns what was there: codecs of chunks with the feature, and whether an
/// object longer than a window may have some.
fn announced(batch: &Batch, feature: &Feature) -> (BTreeSet<u8>, bool) {
    let store = Store::open(&batch.path("store")).unwrap();
    let (mut codecs, mut may) = (BTreeSet::new(), false);
    for name in store.objects().unwrap().0 {
        let file = store.object(&name).unwrap();
        let chunks = (0u64..).zip(&file.frame.chunks);
        let with = chunks.filter(|(index, chunk)| {
            let mut payload = vec![0; file.payload_len(*index)];
            file.read_payload(*index, &mut payload).unwrap();
            (feature.is_there)(CodecId(chunk.codec), &payload)
        });
        let with: BTreeSet<u8> = with.map(|(_, chunk)| chunk.codec).collect();
        let says = file.frame.head.required & feature.bit != 0;
        assert!(says || with.is_empty(), "{name} does not say it");
        let is_long = file.frame.head.raw_len > WINDOW;
        assert!(
            is_long || says != with.is_empty(),
            "{name} says it for nothing"
        );
        may |= is_long && says;
        codecs.extend(with);
    }
    (codecs, may)
}

#[test]
fn objects_say_what_is_in_their_chunks() {
    let batch = stored(&json!({}), 2);
    let expected = |codec| (BTreeSet::from([codec, PARTS]), true);
    assert_eq!(announced(&batch, &FLAT), expected(5));
    assert_eq!(announced(&batch, &SKIPPING), expected(4));
    for id in [BASE, TUNE] {
        batch.assert_restores(id, &tree(&batch.path("models").join(id)));
    }
    batch.report("recode", &["--all", "--effort", "fast"]);
    assert_eq!(announced(&batch, &FLAT), expected(5), "encoded anew");
    assert_eq!(announced(&batch, &SKIPPING), expected(4), "encoded anew");
    for id in [BASE, TUNE] {
        batch.assert_restores(id, &tree(&batch.path("models").join(id)));
    }
    batch.assert_clean();
    let bitx = stored(&json!({"codec": "bitx"}), 2);
    for feature in [&FLAT, &SKIPPING] {
        assert_eq!(
            announced(&bitx, feature),
            (BTreeSet::new(), false),
            "of planes"
        );
    }
    bitx.report("recode", &["--all"]);
    announced(&bitx, &FLAT);
    announced(&bitx, &SKIPPING);
    let max = stored(&json!({"effort": "max"}), 2);
    assert_eq!(announced(&max, &SKIPPING), (BTreeSet::new(), false), "max");
}

#[test]
fn heads_do_not_depend_on_threads() {
    let first = stored(&json!({}), 1).stored();
    for threads in [2, 5, 12] {
        let again = stored(&json!({}), threads).stored();
        assert_same(&first, &again, &format!("{threads} threads"));
    }
}
