//! Pure: the wire form of Eclipse Sparkplug B (3.0): payloads and topics. Whoever hears edge nodes
//! and whoever is one share it.

pub mod incoming;
pub mod payload;
pub mod topic;
