//! The way upstream: events and readings as CloudEvents over MQTT.
//!
//! The rings are the queue: nothing is copied into an outbox. [`link`] decides (pure), [`mqtt`]
//! moves bytes. A row of the journal, or a page of readings, is passed only on its own PUBACK; after
//! every reconnection all that is unacknowledged goes again, with the same ids.

pub mod cloudevents;
pub(crate) mod data;
pub mod event_lane;
pub mod identity;
pub mod lane;
pub mod link;
pub mod reading_lane;
pub mod readings;
pub mod session;
