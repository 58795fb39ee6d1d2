//! The nouns of the plant: plain data with invariants, no I/O, no clock.
//!
//! Everything here is shared vocabulary. What passes between the stages is [`event::Event`]; what a
//! stage keeps over a restart is a [`record::Record`]; what a source delivers is a
//! [`reading::RawBatch`].

pub mod alarm;
pub mod anomaly;
pub mod asset;
pub mod command;
pub mod decision;
pub mod event;
pub mod expression;
pub mod ids;
pub mod label;
pub mod model;
pub mod prognosis;
pub mod reading;
pub mod record;
pub mod severity;
pub mod tag;
pub mod text;
pub mod time;
pub mod work_order;
