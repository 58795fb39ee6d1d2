//! What a person (or a program acting for one) can tell the daemon to do.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decision::{Changes, Choice};
use super::ids::{AssetId, EventId, TechnicianId};
use super::model::{ModelKind, Parcel};
use super::time::Timestamp;
use super::work_order::{Completion, OrderRequest};

/// A command with the one who gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Who, as far as known; `operator` when nothing was said.
    pub by: String,
    /// What.
    pub verb: Verb,
}

/// The closed set of things a person can tell the daemon to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verb {
    /// Says that somebody knows of an alarm.
    Acknowledge {
        /// Which alarm.
        alarm: EventId,
    },
    /// Puts an alarm aside.
    Shelve {
        /// Which alarm.
        alarm: EventId,
        /// For how long.
        span: Duration,
        /// Why.
        reason: Option<String>,
    },
    /// Takes an alarm back from the shelf.
    Unshelve {
        /// Which alarm.
        alarm: EventId,
    },
    /// Answers a question.
    Decide {
        /// Which question.
        decision: EventId,
        /// What.
        choice: Choice,
        /// Why.
        reason: Option<String>,
        /// What a `modify` changes.
        changes: Option<Changes>,
    },
    /// Asks for a work order by hand; a person is its authority.
    CreateOrder {
        /// What shall be done.
        request: OrderRequest,
    },
    /// Reports that an order is done.
    Complete {
        /// Which order.
        order: EventId,
        /// How it went.
        completion: Completion,
    },
    /// Plans an order anew.
    Reschedule {
        /// Which order.
        order: EventId,
        /// Not before.
        not_before: Option<Timestamp>,
        /// By this person.
        technician: Option<TechnicianId>,
    },
    /// Calls an order off.
    Cancel {
        /// Which order.
        order: EventId,
        /// Why.
        reason: Option<String>,
    },
    /// Says whether an anomaly was real.
    Feedback {
        /// The event that announced it.
        anomaly: EventId,
        /// Whether it was real.
        real: bool,
        /// Anything else.
        notes: Option<String>,
    },
    /// Learns an asset's normal behaviour anew.
    Relearn {
        /// Which asset.
        asset: AssetId,
    },
    /// Learns a model for an asset now, whatever the schedule says.
    Train {
        /// Which asset.
        asset: AssetId,
        /// What the model shall say; both when left out.
        kind: Option<ModelKind>,
    },
    /// Puts a model to use.
    Promote {
        /// Which model.
        model: EventId,
    },
    /// Takes a model out of use; its parent is in use again.
    Rollback {
        /// Which model.
        model: EventId,
    },
    /// Pins a model, or lets it loose.
    Pin {
        /// Which model.
        model: EventId,
        /// Whether it is pinned.
        pinned: bool,
    },
    /// Takes in a model that was learnt elsewhere, as a candidate.
    ImportModel(Parcel),
    /// Tries a dead letter once more.
    Retry {
        /// The event that was set aside.
        event: EventId,
    },
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// There is no such thing.
    NotFound(String),
    /// It was answered or closed before; `first` is what counts.
    Conflict {
        /// What is in the way, in words.
        detail: String,
        /// The state that counts.
        first: Value,
    },
    /// The command makes no sense as given.
    Invalid(String),
    /// The daemon cannot take commands now (the store does not commit).
    Unavailable(String),
}

/// What a command brought about, as JSON for whoever asked.
pub type CommandResult = Result<Value, Refusal>;
