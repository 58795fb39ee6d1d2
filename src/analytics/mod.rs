//! Numbers: slices in, numbers out. Nothing here knows a tag, a stage or a clock.
//!
//! Every method names its source; units and shapes stand at each function. Inputs are finite:
//! whoever calls has sorted out what is not.

pub mod assignment;
pub mod calibrate;
pub mod classify;
pub mod degradation;
pub mod forecast;
pub mod model_file;
pub mod multivariate;
pub mod outlier;
pub mod profile;
pub mod prognosis;
pub mod sanity;
pub mod spectrum;
pub mod stats;
pub mod survival;
pub mod training;
pub mod trees;
