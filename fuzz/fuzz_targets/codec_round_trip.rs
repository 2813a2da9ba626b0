//! Any bytes come back from whatever codec is chosen for them, and never grow.
//!
//! The input: dtype, family and effort, level of zstd, what the base is; then the bytes.
#![no_main]

#[path = "common/mod.rs"]
mod common;

use common::{Input, any_dtype};
use zipllm::codec::select::{Effort, Family};
use zipllm::codec::{ChunkView, EncodeOptions, Prepared, Workspace, encode_chunk, find};

thread_local! {
    static WORKSPACE: std::cell::RefCell<Workspace> = std::cell::RefCell::default();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let dtype = any_dtype(input.byte());
    let (choice, level, mode) = (input.byte(), input.byte(), input.byte());
    let row_len = u64::from(input.byte());
    let options = EncodeOptions {
        family: [Family::Auto, Family::BitX][usize::from(choice & 1)],
        effort: [Effort::Fast, Effort::Default, Effort::Max][usize::from(choice >> 1) % 3],
        zstd_level: i32::from(level % 13) - 5,
    };
    let raw = input.0.repeat(if mode & 4 == 0 {
        1
    } else {
        1 + usize::from(mode >> 3)
    });
    let mut base = raw.clone();
    match mode & 3 {
        0 => base
            .iter_mut()
            .step_by(5)
            .for_each(|b| *b = b.wrapping_add(1)),
        1 => base.reverse(),
        _ => {}
    }
    let view = ChunkView {
        dtype,
        row_len,
        first_element: u64::from(mode),
        base: (mode & 3 != 3).then_some(&base[..]),
    };
    WORKSPACE.with_borrow_mut(|ws| {
        let mut payload = b"kept".to_vec();
        let id = encode_chunk(&options, &view, &raw, ws, &mut payload);
        assert!(payload.starts_with(b"kept") && payload.len() <= 4 + raw.len());
        let mut out = vec![0; raw.len()];
        let codec = find(id).expect("a codec of the registry");
        assert_eq!(
            codec.decode(&Prepared::default(), &view, &payload[4..], &mut out, ws),
            Ok(())
        );
        assert!(out == raw);
    });
});
