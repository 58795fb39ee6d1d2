//! The integration tests: one binary, a file per boundary.

mod support;

mod modbus;
mod simulate;
mod mqtt_source;
mod tidy;
