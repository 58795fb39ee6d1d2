//! What several boundaries need: servers that misbehave, a broker, and an engine's other end.

pub(crate) mod broker;
pub(crate) mod engine_end;
pub(crate) mod modbus_server;
pub(crate) mod setting;
