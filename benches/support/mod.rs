//! What the benches share: pairs of models, and the table of speeds.

pub mod pair;
pub mod speed;
