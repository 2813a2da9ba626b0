//! A small family in a batch: `lab/base` and `lab/tune`, a fine-tune of it.

use crate::batch::{Batch, Tree, tree};
use crate::tensors::{safetensors, tuned, weights};

/// A base and a fine-tune of it, in `lab/`.
pub fn family() -> Batch {
    let batch = Batch::new(&["lab/base", "lab/tune"]);
    let base = weights(1, 5000);
    let tune = tuned(&base, 2);
    for (model, values) in [("base", &base), ("tune", &tune)] {
        let file = safetensors(&[("w", "BF16", &[50, 100], values)]);
        batch.file(&format!("lab/{model}/model.safetensors"), file);
        batch.file(&format!("lab/{model}/sub/card.md"), model);
    }
    batch
}

/// The files of `name` on disk.
pub fn model(batch: &Batch, name: &str) -> Tree {
    tree(&batch.path("models").join(name))
}
