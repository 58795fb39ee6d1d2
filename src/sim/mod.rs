//! The simulated plant: machines that wear, served over Modbus TCP.
//!
//! Two pumps (`P-101`, `P-102`), a fan (`F-201`) and a gearbox (`G-301`): pump curve against system
//! curve, losses that become heat, inertia, a day cycle in load and hall temperature, disturbances
//! with a memory, sensor noise, and registers that round. [`Scenario`] says what goes wrong,
//! [`Plant`] computes it (no clock, one seed one course), [`REGISTERS`] is the map, [`Server`]
//! answers on the bus, rightly or as a fault script says. With the feature `demo` there is also an embedded MQTT broker.

#[cfg(feature = "demo")]
pub mod broker;
mod fan;
mod fault;
mod frames;
mod gearbox;
mod law;
mod machine;
mod mischief;
mod noise;
mod plant;
mod pump;
mod registers;
mod server;
mod thermal;

pub use fault::{Away, Fault, FaultKind, Part, SCENARIOS, Scenario, Stops};
pub use law::Law;
pub use machine::Signal;
pub use plant::{Plant, Shown, TICK};
pub use registers::{Encoding, Image, REGISTERS, RESERVED, Refused, Register, units};
pub use server::{COPIES_MAX, SPEED_MAX, Server};
