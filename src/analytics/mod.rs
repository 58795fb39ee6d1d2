//! The numbers: slices in, numbers out. No I/O, no clock, no configuration; every method is named
//! with its source.

pub mod assignment;
