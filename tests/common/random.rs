//! A small generator of numbers that are the same in every run.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::indexing_slicing,
    reason = "helpers of tests may fail the test"
)]

/// Xorshift64* (Vigna 2016); good enough to choose test cases.
pub struct Random {
    state: u64,
    /// Numbers to give before any others: what a fuzzer chose.
    script: std::vec::IntoIter<u16>,
}

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            script: Vec::new().into_iter(),
        }
    }

    /// A generator that first gives what is in `script`, two bytes a number.
    pub fn scripted(script: &[u8]) -> Self {
        let numbers = script
            .chunks_exact(2)
            .map(|two| u16::from_le_bytes([two[0], two[1]]));
        Self {
            script: numbers.collect::<Vec<_>>().into_iter(),
            ..Self::new(1)
        }
    }

    /// Tells whether there is still something of the script.
    pub fn is_scripted(&self) -> bool {
        self.script.len() > 0
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        if let Some(number) = self.script.next() {
            // Where `below` and `bytes` look.
            return u64::from(number) << 33 | u64::from(number) << 56;
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 33) % end as u64).unwrap_or(0)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}
