//! The integration tests: one binary, a file per boundary.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code; clippy knows only the functions marked so"
)]

mod plant_sim;
mod support;

mod bad_input;
mod coverage;
mod forecasts;
mod fuzz_corpus;
mod import;
mod kill;
mod lives;
mod modbus;
mod modbus_bus;
mod modbus_bus_dead;
mod modbus_lines;
mod modbus_lines_net;
mod modbus_lines_peers;
mod modbus_lines_serial;
mod models;
mod mqtt_links;
mod mqtt_load;
mod mqtt_source;
mod mqtt_sparkplug;
mod peers;
mod points;
mod recordings;
mod replay;
mod scan;
mod shutdown;
mod simulate;
mod tidy;
mod time;
mod uplink;
mod wear;
