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
pub mod boot;
pub mod daemon;
pub mod deliveries;
pub mod engine;
pub mod engine_thread;
pub mod jobs;
pub mod offline;
mod parts;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
pub mod watchdog;

pub use daemon::{Daemon, DaemonError, DaemonOptions};

use crate::agents::{
    acquisition::Acquisition, approval::Approval, detection::Detection, learning::Learning,
    logbook::Logbook, notification::Notification, orchestration::Orchestration,
    prediction::Prediction, reporting::Reporting, scheduling::Scheduling, validation::Validation,
};

/// The eleven stages in pipeline order.
#[must_use]
pub fn stages() -> engine::Factories {
    engine::Factories {
        acquisition: |setting| Box::new(Acquisition::new(setting)),
        others: vec![
            |setting| Box::new(Detection::new(setting)),
            |setting| Box::new(Validation::new(setting)),
            |setting| Box::new(Orchestration::new(setting)),
            |setting| Box::new(Prediction::new(setting)),
            |setting| Box::new(Approval::new(setting)),
            |setting| Box::new(Scheduling::new(setting)),
            |setting| Box::new(Notification::new(setting)),
            |setting| Box::new(Logbook::new(setting)),
            |setting| Box::new(Learning::new(setting)),
            |setting| Box::new(Reporting::new(setting)),
        ],
    }
}
