//! The composition root: what wires stages, store and shells together, and the few things that
//! touch the machine itself.

pub mod backoff;
pub mod clock;
