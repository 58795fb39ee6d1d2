//! What several boundaries need: servers that misbehave, a broker, an engine's other end, and the
//! daemon as a process.

pub(crate) mod broker;
pub(crate) mod certificates;
pub(crate) mod chaos;
pub(crate) mod daemon;
pub(crate) mod engine_end;
pub(crate) mod memory_line;
pub(crate) mod modbus_server;
pub(crate) mod registers;
pub(crate) mod rtu_server;
pub(crate) mod setting;
pub(crate) mod subscriber;
pub(crate) mod wait;
