//! The integration tests: one binary, a file per boundary.

mod support;

mod modbus;
mod mqtt_source;
