//! wheeltap: a maintenance engineer on an industrial gateway.
//!
//! Reading order: [`domain`] (the nouns), [`agents`] (the eleven stages, pure), `analytics` (the
//! numbers), then the shells that move bytes (`sources`, `store`, `uplink`, `notify`, `http`), and
//! `runtime`, which alone wires them together. ARCHITECTURE.md has the map.

#[cfg(not(panic = "unwind"))]
compile_error!("the supervisor and the engine catch panics: build with panic = \"unwind\"");

pub mod agents;
pub mod analytics;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod notify;
pub mod port;
pub mod runtime;
pub mod sim;
pub mod sources;
pub mod sparkplug;
pub mod store;
pub mod tls;
pub mod uplink;
