//! Numbers: slices in, numbers out. Nothing here knows a tag, a stage or a clock.
//!
//! Every method names its source; units and shapes stand at each function. Inputs are finite:
//! whoever calls has sorted out what is not.

pub mod calibrate;
pub mod multivariate;
pub mod outlier;
pub mod profile;
pub mod sanity;
pub mod stats;
pub mod assignment;
//! The numbers: slices in, numbers out. Every method names its source; no I/O, no clock, and
//! randomness only from seeds.

pub mod degradation;
pub mod survival;
