//! The composition root: the only place that knows every part. [`Daemon::start`] wires them.
//!
//! ```text
//!   sources ──▶ engine thread ──▶ ring thread        threads: engine (state.db), ring (ring.db),
//!      ▲            │  ▲  │                          jobs, signals; everything else is tasks
//!      │            │  │  └─▶ deliveries ─▶ notify   on one tokio thread.
//!   supervisor      │  └──── jobs
//!                   └─▶ announcements ─▶ uplink, http
//! ```

pub use crate::backoff;
pub use crate::clock;
pub mod engine;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod watchdog;
