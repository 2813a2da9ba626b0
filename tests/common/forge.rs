//! Object files and manifests that a stranger made: hostile, and sealed as they should be.
#![allow(dead_code, reason = "no test uses all of it")]

use zipllm::hash::Hash;

/// The parts of an object file of one chunk; the checksums are made when it is put together.
#[derive(Clone)]
pub struct Forged {
    /// Fixed head and bases.
    pub head: Vec<u8>,
    /// The shared section.
    pub shared: Vec<u8>,
    /// The chunk's payload.
    pub payload: Vec<u8>,
    /// The codec in the chunk table.
    pub codec: u8,
    /// The length in the chunk table.
    pub encoded_len: u32,
}

fn first8(bytes: &[u8]) -> [u8; 8] {
    let hash = Hash::of(bytes);
    std::array::from_fn(|at| hash.as_bytes()[at])
}

impl Forged {
    /// An honest object of opaque bytes: `payload` as `codec` wrote it.
    pub fn new(raw_len: usize, codec: u8, payload: &[u8]) -> Self {
        let mut head = b"ZLOB".to_vec();
        head.extend([1, codec, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        head.extend((raw_len as u64).to_le_bytes());
        head.extend([0; 12]);
        Self {
            head,
            shared: Vec::new(),
            payload: payload.to_vec(),
            codec,
            encoded_len: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        }
    }

    /// Overwrites bytes of the head.
    pub fn set(mut self, at: usize, bytes: &[u8]) -> Self {
        self.head[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Adds a base of `count` opaque elements, for BitX, and sets the depth.
    pub fn with_base(mut self, depth: u8, base: &Hash, count: usize) -> Self {
        self.head.extend(base.as_bytes());
        self.head.extend([0; 8]);
        self.head.extend((count as u64).to_le_bytes());
        self.head.extend([0; 12]);
        let bases = self.head[9] + 1;
        self.codec = 3;
        self.set(8, &[depth, bases])
    }

    /// Gives the object a shared section.
    pub fn with_shared(mut self, shared: &[u8]) -> Self {
        self.shared = shared.to_vec();
        let length = u32::try_from(shared.len()).unwrap_or(u32::MAX);
        self.set(32, &length.to_le_bytes())
    }

    /// The file, sealed for `name`.
    pub fn bytes(&self, name: &Hash) -> Vec<u8> {
        let mut table = Vec::new();
        if !self.shared.is_empty() {
            table.extend(first8(&self.shared));
        }
        table.extend((self.encoded_len & 0xFF_FFFF | u32::from(self.codec) << 24).to_le_bytes());
        table.extend(first8(&self.payload));
        let seal = first8(&[&name.as_bytes()[..], &self.head, &table].concat());
        [&self.head[..], &self.shared, &self.payload, &table, &seal].concat()
    }
}

/// A JSON object, as text, with the checksum that makes it a document of a store.
pub fn seal(json: &[u8]) -> Vec<u8> {
    let body = json.strip_suffix(b"}").unwrap_or(json);
    let checksum = format!(",\"checksum\":\"{}\"}}\n", Hash::of(body));
    [body, checksum.as_bytes()].concat()
}
