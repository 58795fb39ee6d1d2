//! The numbers: slices in, numbers out. Every method names its source; no I/O, no clock, and
//! randomness only from seeds.

pub mod degradation;
pub mod survival;
