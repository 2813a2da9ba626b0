//! Files that strangers made: whatever the bytes, the spans tile the file and nothing panics.

// Test code: a panic is a failed test, and the sizes fit anywhere.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use zipllm::checkpoint::{Layout, MAX_HEADER_BYTES, ReadAt, Span, segment};
use zipllm::dtype::DType;

/// Builds a file of a header and `data` bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    file_with_length(header.len() as u64, header.as_bytes(), data)
}

fn file_with_length(length: u64, header: &[u8], data: usize) -> Vec<u8> {
    let data = (0..data).map(|i| (i * 7 % 251) as u8);
    length
        .to_le_bytes()
        .into_iter()
        .chain(header.iter().copied())
        .chain(data)
        .collect()
}

/// Builds the value of one tensor in a header.
fn tensor(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// Splits a file, asserts what holds for every file, and describes its spans in short.
///
/// `whole`: one plain span; `head`: the first of several; `-3`: three plain bytes;
/// `a=F32*8/2`: a tensor named a, coded as F32, of 8 bytes, in rows of 2.
fn describe(name: &str, bytes: &[u8]) -> (String, Option<String>) {
    let layout = segment(name, &bytes).unwrap();
    assert_tiles(&layout, bytes.len() as u64);
    let spans: Vec<String> = layout
        .spans
        .iter()
        .map(|span| describe_span(span, bytes))
        .collect();
    (spans.join(" "), layout.warning)
}

fn describe_span(span: &Span, bytes: &[u8]) -> String {
    match &span.tensor {
        None if span.length == bytes.len() as u64 => "whole".to_owned(),
        None if span.start == 0 => "head".to_owned(),
        None => format!("-{}", span.length),
        Some(tensor) => format!(
            "{}={}*{}/{}",
            tensor.name, span.dtype, span.length, span.row_len
        ),
    }
}

fn assert_tiles(layout: &Layout, length: u64) {
    let mut place = 0;
    for span in &layout.spans {
        assert_eq!(span.start, place, "{layout:?}");
        assert!(span.length > 0, "{layout:?}");
        let size = span.dtype.size() as u64;
        assert_eq!(span.length % size, 0, "{layout:?}");
        assert!(span.row_len <= span.length / size, "{layout:?}");
        assert!(
            span.tensor.is_some() || span.dtype == DType::Opaque,
            "{layout:?}"
        );
        place += span.length;
    }
    assert_eq!(place, length, "{layout:?}");
    assert!(
        layout
            .warning
            .as_ref()
            .is_none_or(|warning| warning.len() < 320)
    );
}

fn assert_described(attack: &str, bytes: &[u8], spans: &str, warning: &str) {
    let (found, said) = describe("m.safetensors", bytes);
    assert_eq!(found, spans, "{attack}: {said:?}");
    match said {
        None => assert_eq!(warning, "", "{attack}: no warning"),
        Some(said) => assert!(
            !warning.is_empty() && said.contains(warning),
            "{attack}: {said}"
        ),
    }
}

#[test]
fn bad_header_lengths_make_the_file_plain() {
    let header = format!(r#"{{"a":{}}}"#, tensor("U8", "[1]", 0, 1));
    let with = |length: u64| file_with_length(length, header.as_bytes(), 1);
    let fits = header.len() as u64;
    #[rustfmt::skip]
    let attacks: [(&str, Vec<u8>, &str); 12] = [
        ("no byte at all", Vec::new(), "too short"),
        ("one byte", vec![0], "too short"),
        ("seven bytes", vec![0; 7], "too short"),
        ("length of nothing", vec![0; 8], "malformed"),
        ("length of nothing, with a tail", vec![0; 64], "malformed"),
        ("u64::MAX", with(u64::MAX), "18446744073709551615 bytes, but only"),
        ("u64::MAX - 7", with(u64::MAX - 7), "bytes, but only"),
        ("2^63", with(1 << 63), "bytes, but only"),
        ("100 MB and one", with(100_000_001), "100000001 bytes, but only"),
        ("one more than follow", with(fits + 2), "bytes, but only"),
        ("one too long", with(fits + 1), "malformed"),
        ("one too short", with(fits - 1), "malformed"),
    ];
    for (attack, bytes, warning) in attacks {
        let spans = if bytes.is_empty() { "" } else { "whole" };
        assert_described(attack, &bytes, spans, warning);
    }
}

#[test]
fn malformed_headers_make_the_file_plain() {
    let one = tensor("F32", "[2]", 0, 8);
    let deep = "[".repeat(100_000);
    #[rustfmt::skip]
    let attacks: [(&str, String, &str); 38] = [
        ("not JSON", "not json".into(), "malformed"),
        ("a string", r#""a""#.into(), "an object of tensors"),
        ("an array", "[]".into(), "an object of tensors"),
        ("null", "null".into(), "an object of tensors"),
        ("a byte order mark", format!("\u{feff}{{\"a\":{one}}}"), "malformed"),
        ("text after the object", format!("{{\"a\":{one}}}x"), "trailing characters"),
        ("a NUL after the object", format!("{{\"a\":{one}}}\0"), "trailing characters"),
        ("a second object", format!("{{\"a\":{one}}}{{}}"), "trailing characters"),
        ("a trailing comma", format!("{{\"a\":{one},}}"), "malformed"),
        ("cut off", format!("{{\"a\":{one}"), "malformed"),
        ("single quotes", "{'a':1}".into(), "malformed"),
        ("a lone surrogate", format!(r#"{{"\ud800":{one}}}"#), "malformed"),
        ("a tensor that is null", r#"{"a":null}"#.into(), "malformed"),
        ("a tensor that is a number", r#"{"a":1}"#.into(), "malformed"),
        ("no dtype", r#"{"a":{"shape":[2],"data_offsets":[0,8]}}"#.into(), "missing field `dtype`"),
        ("no shape", r#"{"a":{"dtype":"F32","data_offsets":[0,8]}}"#.into(), "missing field `shape`"),
        ("no offsets", r#"{"a":{"dtype":"F32","shape":[2]}}"#.into(), "missing field `data_offsets`"),
        ("a dtype that is a number", r#"{"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}}"#.into(), "malformed"),
        ("a dtype twice", r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#.into(), "duplicate field"),
        ("a shape twice", r#"{"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}}"#.into(), "duplicate field"),
        ("offsets twice", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}}"#.into(), "duplicate field"),
        ("one offset", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}"#.into(), "malformed"),
        ("three offsets", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}"#.into(), "malformed"),
        ("a negative offset", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}"#.into(), "malformed"),
        ("an offset of minus nothing", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}"#.into(), "malformed"),
        ("an offset with a point", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}}"#.into(), "malformed"),
        ("an offset with an exponent", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1e3]}}"#.into(), "malformed"),
        ("an offset of 2^64", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551616]}}"#.into(), "malformed"),
        ("an offset as text", r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":["0","8"]}}"#.into(), "malformed"),
        ("an offset of 400 digits", format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":[0,{}]}}}}"#, "9".repeat(400)), "malformed"),
        ("a negative dimension", format!(r#"{{"a":{}}}"#, tensor("F32", "[-2]", 0, 8)), "malformed"),
        ("a dimension that is null", format!(r#"{{"a":{}}}"#, tensor("F32", "[null]", 0, 8)), "malformed"),
        ("a shape of shapes", format!(r#"{{"a":{}}}"#, tensor("F32", "[[2]]", 0, 8)), "malformed"),
        ("a name twice", format!(r#"{{"a":{one},"b":{},"a":{one}}}"#, tensor("U8", "[0]", 8, 8)), r#"two tensors named "a""#),
        ("a name twice, once escaped", format!(r#"{{"a":{one},"\u0061":{one}}}"#), r#"two tensors named "a""#),
        ("metadata twice", format!(r#"{{"__metadata__":{{}},"a":{one},"__metadata__":{{}}}}"#), "duplicate field"),
        ("100,000 arrays deep", deep.clone(), "an object of tensors"),
        ("100,000 arrays deep in a tensor", format!(r#"{{"a":{deep}"#), "malformed"),
    ];
    for (attack, header, warning) in attacks {
        assert_described(attack, &file(&header, 8), "whole", warning);
    }
    let mut latin = file(&format!("{{\"a\":{one}}}"), 8);
    latin[10] = 0xe9;
    assert_described("a name in Latin-1", &latin, "whole", "not UTF-8");
}

#[test]
fn impossible_offsets_make_the_file_plain() {
    let max = u64::MAX;
    #[rustfmt::skip]
    let attacks: [(&str, String, &str); 11] = [
        ("begin after end", format!(r#"{{"a":{}}}"#, tensor("U8", "[4]", 8, 4)), "offsets 8 to 4"),
        ("one past the end", format!(r#"{{"a":{}}}"#, tensor("U8", "[17]", 0, 17)), "offsets 0 to 17, but there are 16"),
        ("far past the end", format!(r#"{{"a":{}}}"#, tensor("U8", "[1]", max - 1, max)), "there are 16"),
        ("an empty tensor past the end", format!(r#"{{"a":{}}}"#, tensor("U8", "[0]", 17, 17)), "there are 16"),
        ("a sum that overflows", format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[1]", 0, max), tensor("U8", "[1]", 0, max)), "there are 16"),
        ("eight of 2^61 - 1 bytes", eight_huge(), "there are 16"),
        ("overlap by one", format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[4]", 0, 4), tensor("U8", "[4]", 3, 7)), r#"tensor "b" overlaps tensor "a""#),
        ("the same place twice", format!(r#"{{"a":{0},"b":{0}}}"#, tensor("U8", "[4]", 0, 4)), "overlaps"),
        ("one within another", format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[16]", 0, 16), tensor("U8", "[1]", 5, 6)), "overlaps"),
        ("many at the start", format!(r#"{{"a":{0},"b":{0},"c":{0}}}"#, tensor("U8", "[1]", 0, 1)), "overlaps"),
        ("a long name", format!(r#"{{"{}":{}}}"#, r"\u0001é".repeat(1 << 16), tensor("U8", "[1]", 9, 1)), "offsets 9 to 1"),
    ];
    for (attack, header, warning) in attacks {
        assert_described(attack, &file(&header, 16), "whole", warning);
    }
}

/// The sum of these offsets overflows in parsers that add before they compare.
fn eight_huge() -> String {
    let step = (1u64 << 61) - 1;
    let tensors: Vec<String> = (0..8u64)
        .map(|i| {
            format!(
                r#""t{i}":{}"#,
                tensor("U8", &format!("[{step}]"), i * step, (i + 1) * step)
            )
        })
        .collect();
    format!("{{{}}}", tensors.join(","))
}

#[test]
fn odd_files_are_still_split() {
    let pair = |first: &str, second: &str| format!(r#"{{"a":{first},"b":{second}}}"#);
    let (low, high) = (tensor("F32", "[2,1]", 0, 8), tensor("BF16", "[2,2]", 8, 16));
    let later = tensor("BF16", "[2,2]", 11, 19);
    let one =
        |dtype: &str, shape: &str, end: u64| format!(r#"{{"a":{}}}"#, tensor(dtype, shape, 0, end));
    let named = |name: &str| format!(r#"{{"{name}":{}}}"#, tensor("U8", "[2]", 0, 2));
    let not_said = "not what its dtype and shape say";
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    #[rustfmt::skip]
    let cases: Vec<(&str, String, usize, &str, &str)> = vec![
        ("in order", pair(&low, &high), 16, "head a=F32*8/1 b=BF16*8/2", ""),
        ("in reverse", pair(&high, &low), 16, "head b=F32*8/1 a=BF16*8/2", ""),
        ("a hole", pair(&low, &later), 19, "head a=F32*8/1 -3 b=BF16*8/2", ""),
        ("a hole at the start", format!(r#"{{"a":{later}}}"#), 19, "head -11 a=BF16*8/2", ""),
        ("a tail", pair(&low, &high), 21, "head a=F32*8/1 b=BF16*8/2 -5", ""),
        ("no tensor", "{}".into(), 0, "whole", ""),
        ("no tensor but bytes", "{}".into(), 5, "head -5", ""),
        ("only metadata", r#"{"__metadata__":{"format":"pt"}}"#.into(), 0, "whole", ""),
        ("metadata of numbers", format!(r#"{{"__metadata__":[1,null,{{"x":1e999}}],"a":{low}}}"#), 8, "head a=F32*8/1", ""),
        ("metadata that is null", format!(r#"{{"__metadata__":null,"a":{low}}}"#), 8, "head a=F32*8/1", ""),
        ("metadata 100,000 deep", format!(r#"{{"__metadata__":{deep},"a":{low}}}"#), 8, "head a=F32*8/1", ""),
        ("a key more", r#"{"a":{"x":{"y":[1]},"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#.into(), 2, "head a=U8*2/0", ""),
        ("a space before", format!(" \n{}", named("a")), 2, "head a=U8*2/0", ""),
        ("spaces after", format!("{}   \n\t ", named("a")), 2, "head a=U8*2/0", ""),
        ("an unknown dtype", one("I4", "[4]", 2), 2, "head a=opaque*2/0", ""),
        ("a dtype of no letters", one("", "[2]", 2), 2, "head a=opaque*2/0", ""),
        ("a dtype in lower case", one("bf16", "[1,1]", 2), 2, "head a=opaque*2/0", ""),
        ("a scalar", one("F32", "[]", 4), 4, "head a=F32*4/0", ""),
        ("one byte", one("U8", "[1]", 1), 1, "head a=U8*1/0", ""),
        ("one byte of two", one("BF16", "[1]", 1), 1, "head a=opaque*1/0", not_said),
        ("odd bytes", one("BF16", "[2]", 3), 3, "head a=opaque*3/0", not_said),
        ("too few for the shape", one("F32", "[3]", 8), 8, "head a=opaque*8/0", "tensor \"a\" has 8 bytes"),
        ("too many for the shape", one("F32", "[1]", 8), 8, "head a=opaque*8/0", not_said),
        ("bytes for no element", one("F32", "[0]", 8), 8, "head a=opaque*8/0", not_said),
        ("a shape that overflows", one("U8", "[4294967296,4294967296]", 8), 8, "head a=opaque*8/0", not_said),
        ("a size that overflows", one("F64", "[2305843009213693952]", 8), 8, "head a=opaque*8/0", not_said),
        ("dimensions of 2^64 - 1", one("U8", "[18446744073709551615,2]", 8), 8, "head a=opaque*8/0", not_said),
        ("two of a wrong size", pair(&tensor("F32", "[1]", 0, 8), &tensor("F32", "[1]", 8, 16)), 16, "head a=opaque*8/0 b=opaque*8/0", "(and 1 more of the kind)"),
        ("no byte in a tensor", pair(&tensor("F32", "[0,4]", 8, 8), &low), 8, "head b=F32*8/1", ""),
        ("no byte, within another", pair(&tensor("F32", "[0]", 3, 3), &low), 8, "head b=F32*8/1", ""),
        ("no byte, but a shape", pair(&tensor("F32", "[9]", 0, 0), &low), 8, "head b=F32*8/1", ""),
        ("only a tensor without bytes", one("F32", "[0]", 0), 0, "whole", ""),
        ("a scalar in rows", one("F32", "[1,1,1]", 4), 4, "head a=F32*4/1", ""),
        ("a path as a name", named("../../etc/passwd"), 2, "head ../../etc/passwd=U8*2/0", ""),
        ("a NUL in a name", named(r"a\u0000b"), 2, "head a\0b=U8*2/0", ""),
        ("a name of nothing", named(""), 2, "head =U8*2/0", ""),
        ("a name like the metadata's", named("__metadata__x"), 2, "head __metadata__x=U8*2/0", ""),
        ("a zip file behind", named("a"), 66_000, "head a=U8*2/0 -65998", ""),
    ];
    for (case, header, data, spans, warning) in cases {
        assert_described(case, &file(&header, data), spans, warning);
    }
}

#[test]
fn a_file_cut_anywhere_is_plain() {
    let header = format!(
        r#"{{"a":{},"b":{}}}"#,
        tensor("F32", "[2]", 0, 8),
        tensor("U8", "[3]", 8, 11)
    );
    let bytes = file(&header, 11);
    assert_described("whole", &bytes, "head a=F32*8/0 b=U8*3/0", "");
    for length in 1..bytes.len() {
        let (spans, warning) = describe("m.safetensors", &bytes[..length]);
        assert_eq!(spans, "whole", "{length} bytes");
        assert!(
            warning
                .unwrap()
                .starts_with("stored as plain bytes, not as safetensors: ")
        );
    }
}

/// A file of so many tensors of so many bytes.
fn many(tensors: usize, bytes: u64) -> Vec<u8> {
    let entry = |at: usize| {
        let start = at as u64 * bytes;
        let shape = format!("[{bytes}]");
        format!(r#""t{at}":{}"#, tensor("U8", &shape, start, start + bytes))
    };
    let entries: Vec<_> = (0..tensors).map(entry).collect();
    let data = tensors * bytes as usize;
    file(&format!("{{{}}}", entries.join(",")), data)
}

#[test]
fn crumbs_are_not_split() {
    for (tensors, bytes, is_split) in [
        (4096, 1, true),
        (4097, 1, false),
        (4097, 4000, false),
        (4097, 4096, true),
        (100_000, 8, false),
    ] {
        let bytes = many(tensors, bytes);
        let layout = segment("m.safetensors", &bytes.as_slice()).unwrap();
        assert_tiles(&layout, bytes.len() as u64);
        let spans = if is_split { tensors + 1 } else { 1 };
        assert_eq!(layout.spans.len(), spans, "{tensors}");
        let warned = layout
            .warning
            .is_some_and(|text| text.contains("tensors in"));
        assert_eq!(warned, !is_split, "{tensors}");
    }
}

/// A file of many bytes, most of them zero.
struct Sparse {
    length: u64,
    start: Vec<u8>,
    longest_read: std::cell::Cell<usize>,
}

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> zipllm::Result<()> {
        self.longest_read
            .set(self.longest_read.get().max(buffer.len()));
        for (place, byte) in (offset..).zip(buffer) {
            *byte = self.start.get(place as usize).copied().unwrap_or(b' ');
        }
        Ok(())
    }
}

#[test]
fn headers_are_read_up_to_the_cap() {
    for (length, is_read) in [
        (MAX_HEADER_BYTES, true),
        (MAX_HEADER_BYTES + 1, false),
        (100_000_001, false),
        (u64::MAX - 8, false),
    ] {
        let input = Sparse {
            length: u64::MAX,
            start: file(r#"{"__metadata__":{}}"#, 0)
                .into_iter()
                .enumerate()
                .map(|(i, byte)| length.to_le_bytes().get(i).copied().unwrap_or(byte))
                .collect(),
            longest_read: std::cell::Cell::new(0),
        };
        let layout = segment("M.SafeTensors", &input).unwrap();
        assert_tiles(&layout, u64::MAX);
        assert_eq!(layout.spans.len(), if is_read { 2 } else { 1 }, "{length}");
        assert_eq!(layout.warning.is_none(), is_read, "{length}");
        assert_eq!(
            input.longest_read.get() as u64,
            if is_read { length } else { 16 }
        );
    }
}

#[test]
fn formats_are_told_by_name_and_by_content() {
    let good = file(&format!(r#"{{"a":{}}}"#, tensor("U8", "[2]", 0, 2)), 2);
    for name in [
        "m.safetensors",
        "m.SAFETENSORS",
        "x/y.SafeTensors",
        "m.bin",
        "m",
        "",
    ] {
        assert_eq!(
            describe(name, &good),
            ("head a=U8*2/0".to_owned(), None),
            "{name}"
        );
    }
    for (name, bytes) in [
        ("config.json", b"{\"a\":1}   ".as_slice()),
        ("m.bin", &[7; 99]),
        ("m.safetensors.txt", b"x"),
        ("safetensors", b"x"),
    ] {
        assert_eq!(describe(name, bytes), ("whole".to_owned(), None), "{name}");
    }
    assert_eq!(describe("empty.txt", b""), (String::new(), None));
}

#[test]
fn reads_past_the_end_are_errors() {
    let bytes: &[u8] = b"abc";
    for (offset, length) in [(0, 4), (3, 1), (4, 0), (u64::MAX, 1), (u64::MAX, 0)] {
        assert!(
            bytes.read_at(offset, &mut vec![0; length]).is_err(),
            "{offset} {length}"
        );
    }
    let mut two = [0; 2];
    bytes.read_at(1, &mut two).unwrap();
    assert_eq!(&two, b"bc");
}

/// Files as the safetensors crate writes them: tensors of any dtype and shape, some without bytes.
fn valid_file() -> impl Strategy<Value = Vec<u8>> {
    use safetensors::Dtype::{
        BF16, BOOL, F8_E4M3, F8_E5M2, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
    };
    let dtype = prop::sample::select(vec![
        BF16, BOOL, F8_E4M3, F8_E5M2, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64,
    ]);
    let shape = prop::collection::vec(0usize..5, 0..4);
    let tensors = prop::collection::btree_map("[a-z.\"\\\\\u{e9}\u{1}]{1,8}", (dtype, shape), 0..6);
    tensors.prop_map(|tensors| {
        let data: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let views = tensors.iter().map(|(name, (dtype, shape))| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (
                name,
                TensorView::new(*dtype, shape.clone(), &data[..bytes]).unwrap(),
            )
        });
        safetensors::serialize(views, None).unwrap()
    })
}

proptest! {
    #[test]
    fn valid_files_are_split_as_the_crate_splits_them(bytes in valid_file()) {
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let layout = segment("m.safetensors", &bytes.as_slice()).unwrap();
        assert_tiles(&layout, bytes.len() as u64);
        prop_assert_eq!(&layout.warning, &None);
        let mut expected: Vec<_> = metadata.tensors().into_iter().filter(|(_, info)| info.data_offsets.0 < info.data_offsets.1).collect();
        expected.sort_by_key(|(_, info)| info.data_offsets.0);
        let found: Vec<_> = layout.spans.iter().filter_map(|span| Some((span, span.tensor.as_ref()?))).collect();
        prop_assert_eq!(found.len(), expected.len());
        for ((span, tensor), (name, info)) in found.into_iter().zip(expected) {
            let shape: Vec<usize> = tensor.shape.iter().map(|dim| *dim as usize).collect();
            prop_assert_eq!(&tensor.name, &name);
            prop_assert_eq!(&shape, &info.shape);
            prop_assert_eq!(&tensor.dtype, &info.dtype.to_string());
            prop_assert_eq!(span.dtype.name(), &tensor.dtype);
            prop_assert_eq!(span.start as usize, 8 + header + info.data_offsets.0);
            prop_assert_eq!(span.length as usize, info.data_offsets.1 - info.data_offsets.0);
            let row = if shape.len() < 2 { 0 } else { shape[shape.len() - 1] };
            prop_assert_eq!(span.row_len as usize, row);
        }
    }

    #[test]
    fn random_bytes_are_tiled(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0u64..300) {
        describe("m.safetensors", &bytes);
        describe("m.bin", &bytes);
        describe("m.safetensors", &file_with_length(length, &bytes, 0));
    }

    #[test]
    fn damaged_files_are_tiled(
        mut bytes in valid_file(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(b"0123456789[]{}\",:-.e \\au".to_vec())]), 1..4),
        cut in any::<prop::sample::Index>(),
        keep in any::<bool>(),
    ) {
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let cut = if keep { bytes.len() } else { cut.index(bytes.len()) };
        describe("m.safetensors", &bytes[..cut]);
    }

    #[test]
    fn any_offsets_are_tiled(
        offsets in prop::collection::vec((0u64..40, 0u64..40, 0u64..12), 0..5),
        data in 0usize..50,
    ) {
        let tensors: Vec<String> = offsets.iter().enumerate().map(|(i, (begin, end, dim))| {
            format!(r#""t{i}":{}"#, tensor("BF16", &format!("[{dim},2]"), *begin, *end))
        }).collect();
        describe("m.safetensors", &file(&format!("{{{}}}", tensors.join(",")), data));
    }
}
