#![allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic, clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, clippy::expect_used)]
use zipllm::dtype::DType;
use zipllm::rans::{Chunk, Effort, Isa, Scratch, decode, encode};
fn tensors(p: &str) -> Vec<(String, DType, u64, Vec<u8>)> {
    let b = std::fs::read(p).unwrap();
    let st = safetensors::SafeTensors::deserialize(&b).unwrap();
    let mut v: Vec<_> = st.tensors().into_iter().map(|(n, t)| {
        let row = if t.shape().len() < 2 { 0 } else { *t.shape().last().unwrap() as u64 };
        (n, DType::Bf16, row, t.data().to_vec())
    }).collect();
    v.sort_by(|a, b| a.0.cmp(&b.0));
    v
}
#[repr(C)]
struct Ts { s: i64, n: i64 }
unsafe extern "C" { fn clock_gettime(c: i32, t: *mut Ts) -> i32; }
#[allow(unsafe_code)]
fn cpu() -> f64 {
    let mut t = Ts { s: 0, n: 0 };
    unsafe { clock_gettime(3, &mut t) };
    t.s as f64 + t.n as f64 / 1e9
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let effort = match a.get(1).map(|s| s.as_str()) { Some("fast") => Effort::Fast, Some("max") => Effort::Max, _ => Effort::Default };
    let isa = match std::env::var("ISA").as_deref() { Ok(n) => *Isa::all().iter().find(|i| format!("{i:?}").to_lowercase() == n).unwrap(), _ => Isa::detect() };
    let root = std::env::var("ROOT").unwrap_or("/tmp/models/real".into());
    let fam = std::env::var("BASE").unwrap_or("acme_smol-15m".into());
    let only = a.get(2).cloned();
    let base = tensors(&format!("{root}/{fam}/model.safetensors"));
    let mut names: Vec<String> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut scratch = Scratch::default();
    for n in names {
        if let Some(o) = &only { if !n.contains(o.as_str()) { continue } }
        let solo = n == fam;
        let t = if solo { base.clone() } else { tensors(&format!("{root}/{n}/model.safetensors")) };
        let (mut orig, mut stored, mut te, mut td, mut eqb) = (0usize, 0usize, 0.0f64, 0.0f64, 0usize);
        for (name, dt, row, raw) in &t {
            let b = base.iter().find(|b| &b.0 == name && b.3.len() == raw.len());
            orig += raw.len();
            if !solo && b.is_some_and(|b| &b.3 == raw) { eqb += raw.len(); continue }
            let mut first = 0u64;
            for (i, c) in raw.chunks(2 << 20).enumerate() {
                let bb = if solo { None } else { b.map(|b| &b.3[i * (2 << 20)..i * (2 << 20) + c.len()]) };
                let chunk = Chunk { dtype: *dt, row_len: *row, first_element: first, base: bb };
                first += c.len() as u64 / 2;
                let mut out = Vec::new();
                let reps = if std::env::var("REPS").is_ok() { 5 } else { 1 };
                let mut best = f64::MAX;
                for _ in 0..reps { out.clear(); let s = cpu(); encode(isa, effort, &chunk, c, &mut scratch, &mut out); best = best.min(cpu() - s); }
                te += best;
                if out.len() > c.len() { println!("{name} {} > {}", out.len(), c.len()); }
                stored += out.len().min(c.len());
                let mut back = vec![0; c.len()];
                let mut best = f64::MAX;
                for _ in 0..reps { let s = cpu(); decode(isa, &chunk, &out, &mut back, &mut scratch).unwrap(); best = best.min(cpu() - s); }
                td += best;
                assert!(back == c, "{name}");
            }
        }
        let coded = (orig - eqb) as f64 / 1e9;
        println!("{n:45} ratio {:.4}  enc {:.3} GB/s dec {:.3} GB/s", stored as f64 / orig as f64, coded / te, coded / td);
    }
}
