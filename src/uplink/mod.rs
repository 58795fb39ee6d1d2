//! The way upstream: events and readings as CloudEvents over MQTT.
//!
//! The rings are the queue: nothing is copied into an outbox. [`link`] decides (pure), `mqtt` and
//! `service` move bytes. A row of the journal, or a page of readings, is passed only on its own PUBACK; after
//! every reconnection all that is unacknowledged goes again, with the same ids.

pub mod cloudevents;
pub(crate) mod data;
pub mod event_lane;
pub mod health;
pub mod lane;
pub mod link;
mod mqtt;
pub mod reading_lane;
pub mod readings;
mod service;
pub mod session;
mod shelf;

pub use service::{Parts, Uplink, UplinkError};
