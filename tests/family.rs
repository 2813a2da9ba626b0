//! What other tests and the demo stand on: the generated family, the cut of the real one, and the comparison of trees.

#[path = "../examples/support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use safetensors::SafeTensors;
use support::weights::{Size, Tuning, base, fine_tune};
use support::{family, tree};
use zipllm::config::Config;
use zipllm::name::ModelId;

const SMALL: Size = Size {
    hidden: 64,
    inner: 128,
    key_value: 32,
    layers: 2,
    vocabulary: 256,
};

#[test]
fn a_generated_family_is_a_batch_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let models = family::write(&dir.path().join("models"), &SMALL).unwrap();
    let config =
        Config::load(&family::write_batch(dir.path(), Path::new("models"), 2, &models).unwrap())
            .unwrap();
    let list = config.model_list().unwrap();
    config.check_inputs(&list.models).unwrap();
    let map = config.base_map(&list.models).unwrap();
    assert_eq!((list.warnings.len(), map.warnings().len()), (0, 0));
    for (model, id) in models.iter().zip(&list.models) {
        assert_eq!(model.id, id.as_str());
        assert_eq!(model.base.as_deref(), map.base_of(id).map(ModelId::as_str));
    }
}

#[test]
fn generated_files_are_safetensors_and_the_same_each_time() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [first, second] = dirs
        .each_ref()
        .map(|dir| family::write(dir.path(), &SMALL).unwrap());
    assert_eq!(
        tree::differences(dirs[0].path(), dirs[1].path()).unwrap(),
        [""; 0]
    );
    assert_eq!(first.len(), second.len());
    let mut tensors = 0;
    for (path, _) in tree::files(dirs[0].path()).unwrap() {
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
            && path.to_str().unwrap().contains("model")
        {
            tensors += SafeTensors::deserialize(&fs::read(dirs[0].path().join(path)).unwrap())
                .unwrap()
                .len();
        }
    }
    // Seven models of twenty tensors; the one in a cache is seen as a blob and as a link to it.
    assert_eq!(tensors, 8 * 20);
}

#[test]
fn fine_tunes_change_what_they_should() {
    let base = base(&SMALL, 1);
    // A light touch is below the precision of the norms.
    for (tuning, changed, equal) in [
        (Tuning::Typical, 20, 0.15..0.40),
        (Tuning::Light, 15, 0.70..0.95),
        (Tuning::LowRank, 14, 0.30..0.80),
        (Tuning::LastLayer, 9, 0.60..0.95),
    ] {
        let tuned = fine_tune(&base, tuning, 2);
        let pairs = || base.iter().zip(&tuned);
        assert_eq!(
            pairs().filter(|(a, b)| a.values != b.values).count(),
            changed,
            "{tuning:?}"
        );
        let all = pairs().flat_map(|(a, b)| a.values.iter().zip(&b.values));
        let (same, count) = all.fold((0, 0), |(same, count), (a, b)| {
            (same + i32::from(a == b), count + 1)
        });
        let share = f64::from(same) / f64::from(count);
        assert!(
            equal.contains(&share),
            "{tuning:?}: {share} of the weights are equal"
        );
    }
}

#[test]
fn the_cut_of_the_real_family_is_whole_and_small() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/real");
    assert!(tree::bytes(&root).unwrap() <= 6 << 20);
    let config = Config::load(&root.join("config.json")).unwrap();
    let list = config.model_list().unwrap().models;
    config.check_inputs(&list).unwrap();
    let map = config.base_map(&list).unwrap();
    let mut shapes = Vec::new();
    for id in &list {
        assert_eq!(map.base_of(id), (id != &list[0]).then_some(&list[0]));
        let bytes = fs::read(
            config
                .model_dir
                .join(id.joined("_"))
                .join("model.safetensors"),
        )
        .unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, view.shape().to_vec()))
            .collect();
        tensors.sort();
        shapes.push(tensors);
    }
    assert_eq!((shapes.len(), shapes[0].len()), (6, 7));
    assert!(shapes.iter().all(|tensors| tensors == &shapes[0]));
}

#[test]
fn a_comparison_of_trees_sees_every_difference() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = dirs.each_ref().map(tempfile::TempDir::path);
    for root in [one, two] {
        fs::create_dir(root.join("sub")).unwrap();
        for name in ["same", "sub/longer", "sub/other", "script"] {
            fs::write(root.join(name), [7; 100]).unwrap();
        }
    }
    assert_eq!(tree::differences(one, two).unwrap(), [""; 0]);
    fs::write(one.join("gone"), "").unwrap();
    fs::write(two.join("sub/added"), "").unwrap();
    fs::write(two.join("sub/longer"), [7; 101]).unwrap();
    fs::write(two.join("sub/other"), [8; 100]).unwrap();
    fs::set_permissions(two.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let expected = [
        "gone: missing",
        "script: the execute bits differ",
        "sub/longer: the content differs",
        "sub/other: the content differs",
        "sub/added: not in the original",
    ];
    assert_eq!(tree::differences(one, two).unwrap(), expected);
}
