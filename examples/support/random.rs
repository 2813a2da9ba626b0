//! A small seeded generator of numbers, so that the demo needs no crate and no file for them.

use std::f32::consts::TAU;

/// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): the same numbers for the same seed and label.
pub struct Random {
    state: u64,
    spare: Option<f32>,
}

impl Random {
    /// A generator of its own for each seed and label.
    pub fn new(seed: u64, label: &str) -> Self {
        // FNV-1a over the label.
        let hash =
            |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        let state = label
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325 ^ seed.rotate_left(32), hash);
        Self { state, spare: None }
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let bits = self.bits();
        let radius = (-2.0 * unit(bits).ln()).sqrt();
        let (sine, cosine) = (TAU * unit(bits >> 32)).sin_cos();
        self.spare = Some(radius * sine);
        radius * cosine
    }

    /// e to the power of a normal number with deviation `sigma`, with a mean square of 1.
    pub fn log_normal(&mut self, sigma: f32) -> f32 {
        if sigma == 0.0 {
            1.0
        } else {
            (sigma * self.normal() - sigma * sigma).exp()
        }
    }
}

/// The low 24 bits as a number above 0, up to 1.
#[allow(clippy::cast_precision_loss, reason = "24 bits fit an f32 exactly")]
fn unit(bits: u64) -> f32 {
    ((bits & 0xFF_FFFF) + 1) as f32 / 16_777_216.0
}
