//! The register map: where each signal lives on the bus, how it is written there, and how much its
//! sensor scatters. Several byte orders and scales on purpose: real plants have them.

use std::collections::{BTreeMap, BTreeSet};

use super::fault::Away;
use super::machine::Signal;
use super::plant::{Plant, Shown};
use crate::config::{ByteOrder, Table};

/// How a value is written into registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// One coil or discrete input.
    Bit,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits, unsigned.
    U32(ByteOrder),
    /// IEEE 754 single precision.
    F32(ByteOrder),
}

impl Encoding {
    /// Registers (or coils) it takes.
    #[must_use]
    pub const fn width(self) -> u16 {
        match self {
            Self::Bit | Self::U16 | Self::I16 => 1,
            Self::U32(_) | Self::F32(_) => 2,
        }
    }

    /// The `type` of the configuration.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Bit => "bool",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32(_) => "u32",
            Self::F32(_) => "f32",
        }
    }

    /// The `order` of the configuration, where there is one.
    #[must_use]
    pub const fn order(self) -> Option<&'static str> {
        match self {
            Self::Bit | Self::U16 | Self::I16 => None,
            Self::U32(order) | Self::F32(order) => Some(match order {
                // The plant lies in the four common orders alone.
                ByteOrder::Abcd | ByteOrder::Places { .. } => "ABCD",
                ByteOrder::Cdab => "CDAB",
                ByteOrder::Badc => "BADC",
                ByteOrder::Dcba => "DCBA",
            }),
        }
    }
}

/// One row of the register map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Register {
    /// The machine.
    pub asset: &'static str,
    /// What is measured.
    pub signal: Signal,
    /// Unit id; one for each machine.
    pub unit: u8,
    /// Which table.
    pub table: Table,
    /// Zero-based address of the first register.
    pub address: u16,
    /// How the value is written.
    pub encoding: Encoding,
    /// Value = raw × scale.
    pub scale: f64,
    /// Standard deviation of the sensor's noise, in the signal's unit.
    pub noise: f64,
}

impl Register {
    /// `asset/tag`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}", self.asset, self.signal.tag())
    }

    /// The `point` of the configuration, e.g. `holding:100`.
    #[must_use]
    pub fn point(&self) -> String {
        let table = match self.table {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Holding => "holding",
            Table::Input => "input",
        };
        format!("{table}:{}", self.address)
    }

    /// Half the distance between two values that the register can tell apart, near `value`.
    #[must_use]
    pub fn rounding(&self, value: f64) -> f64 {
        match self.encoding {
            Encoding::Bit => 0.5,
            Encoding::U16 | Encoding::I16 | Encoding::U32(_) => 0.5 * self.scale,
            Encoding::F32(_) => value.abs() * f64::from(f32::EPSILON),
        }
    }

    /// The register contents that show `shown`, in the order of their addresses; `None` where reads
    /// are refused.
    #[must_use]
    pub fn encode(&self, shown: Shown) -> Option<Vec<u16>> {
        let raw = match shown {
            Shown::Value(value) => value / self.scale,
            Shown::Nothing(Away::Exception) => return None,
            Shown::Nothing(Away::Sentinel) => f64::NAN,
        };
        Some(match self.encoding {
            Encoding::Bit => vec![u16::from(raw >= 0.5)],
            Encoding::U16 => vec![to_u16(raw)],
            Encoding::I16 => vec![to_i16(raw).cast_unsigned()],
            Encoding::U32(order) => arrange(to_u32(raw).to_be_bytes(), order),
            Encoding::F32(order) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the register holds a single precision number"
                )]
                let single = raw as f32;
                arrange(single.to_be_bytes(), order)
            }
        })
    }
}

/// Rounds into the register and stops at its ends, as a transmitter does; NaN is the sentinel.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` from a float stops at the ends of the integer, which is what is wanted"
)]
fn to_u16(raw: f64) -> u16 {
    if raw.is_nan() { u16::MAX } else { raw.round() as u16 }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` from a float stops at the ends of the integer, which is what is wanted"
)]
fn to_i16(raw: f64) -> i16 {
    if raw.is_nan() { i16::MIN } else { raw.round() as i16 }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` from a float stops at the ends of the integer, which is what is wanted"
)]
fn to_u32(raw: f64) -> u32 {
    if raw.is_nan() { u32::MAX } else { raw.round() as u32 }
}

/// Two registers for four bytes, given most significant first.
fn arrange([a, b, c, d]: [u8; 4], order: ByteOrder) -> Vec<u16> {
    let wire = match order {
        ByteOrder::Abcd | ByteOrder::Places { .. } => [[a, b], [c, d]],
        ByteOrder::Cdab => [[c, d], [a, b]],
        ByteOrder::Badc => [[b, a], [d, c]],
        ByteOrder::Dcba => [[d, c], [b, a]],
    };
    wire.into_iter().map(u16::from_be_bytes).collect()
}

const fn row(
    (asset, unit): (&'static str, u8),
    signal: Signal,
    (table, address): (Table, u16),
    encoding: Encoding,
    scale: f64,
    noise: f64,
) -> Register {
    Register { asset, signal, unit, table, address, encoding, scale, noise }
}

const P101: (&str, u8) = ("P-101", 1);
const P102: (&str, u8) = ("P-102", 2);
const F201: (&str, u8) = ("F-201", 3);
const G301: (&str, u8) = ("G-301", 4);

const ABCD: Encoding = Encoding::F32(ByteOrder::Abcd);
const CDAB: Encoding = Encoding::F32(ByteOrder::Cdab);
const BADC: Encoding = Encoding::F32(ByteOrder::Badc);
const DCBA: Encoding = Encoding::F32(ByteOrder::Dcba);
const U32: Encoding = Encoding::U32(ByteOrder::Cdab);

/// Everything that can be read from the plant.
///
/// Scales are fine enough that noise moves every register: a value that stands still is a sensor
/// that is stuck.
pub const REGISTERS: &[Register] = &[
    row(P101, Signal::BearingTemp, (Table::Holding, 100), ABCD, 1.0, 0.15),
    row(P101, Signal::WindingTemp, (Table::Holding, 102), ABCD, 1.0, 0.20),
    row(P101, Signal::Vibration, (Table::Holding, 104), ABCD, 1.0, 0.012),
    row(P101, Signal::Kurtosis, (Table::Holding, 106), ABCD, 1.0, 0.05),
    row(P101, Signal::MotorCurrent, (Table::Input, 0), Encoding::U16, 0.01, 0.10),
    row(P101, Signal::Speed, (Table::Input, 1), Encoding::U16, 0.1, 0.6),
    row(P101, Signal::SuctionPressure, (Table::Input, 2), Encoding::I16, 0.001, 0.006),
    row(P101, Signal::DischargePressure, (Table::Input, 3), Encoding::U16, 0.001, 0.015),
    row(P101, Signal::Flow, (Table::Input, 4), U32, 0.001, 0.7),
    row(P101, Signal::Running, (Table::Coil, 0), Encoding::Bit, 1.0, 0.0),
    row(P102, Signal::BearingTemp, (Table::Holding, 100), CDAB, 1.0, 0.15),
    row(P102, Signal::WindingTemp, (Table::Holding, 102), CDAB, 1.0, 0.20),
    row(P102, Signal::Vibration, (Table::Holding, 104), CDAB, 1.0, 0.012),
    row(P102, Signal::Kurtosis, (Table::Holding, 106), CDAB, 1.0, 0.05),
    row(P102, Signal::MotorCurrent, (Table::Input, 0), Encoding::U16, 0.01, 0.05),
    row(P102, Signal::Speed, (Table::Input, 1), Encoding::U16, 0.1, 1.0),
    row(P102, Signal::SuctionPressure, (Table::Input, 2), Encoding::I16, 0.001, 0.006),
    row(P102, Signal::DischargePressure, (Table::Input, 3), Encoding::U16, 0.001, 0.012),
    row(P102, Signal::Flow, (Table::Input, 4), U32, 0.001, 0.35),
    row(P102, Signal::Running, (Table::Coil, 0), Encoding::Bit, 1.0, 0.0),
    row(F201, Signal::BearingTemp, (Table::Holding, 0), Encoding::I16, 0.01, 0.15),
    row(F201, Signal::Vibration, (Table::Holding, 2), DCBA, 1.0, 0.02),
    row(F201, Signal::Airflow, (Table::Holding, 4), BADC, 1.0, 0.05),
    row(F201, Signal::PressureRise, (Table::Holding, 6), Encoding::U16, 0.1, 6.0),
    row(F201, Signal::MotorCurrent, (Table::Holding, 7), Encoding::U16, 0.01, 0.12),
    row(F201, Signal::Speed, (Table::Holding, 8), Encoding::U16, 0.1, 2.5),
    row(F201, Signal::Running, (Table::Coil, 0), Encoding::Bit, 1.0, 0.0),
    row(G301, Signal::OilTemp, (Table::Input, 10), Encoding::I16, 0.01, 0.12),
    row(G301, Signal::OilPressure, (Table::Input, 11), Encoding::U16, 0.001, 0.012),
    row(G301, Signal::Vibration, (Table::Input, 12), CDAB, 1.0, 0.02),
    row(G301, Signal::Speed, (Table::Input, 14), Encoding::U16, 0.1, 0.6),
    row(G301, Signal::Torque, (Table::Input, 15), Encoding::I16, 1.0, 14.0),
    row(G301, Signal::Running, (Table::Discrete, 0), Encoding::Bit, 1.0, 0.0),
];

/// Registers between others that mean nothing and read as 0, as a manual's "reserved".
pub const RESERVED: &[(u8, Table, u16)] = &[(F201.1, Table::Holding, 1)];

/// The units that answer.
#[must_use]
pub fn units() -> BTreeSet<u8> {
    REGISTERS.iter().map(|register| register.unit).collect()
}

/// All registers at one moment, as they are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// `None`: reads that touch it are refused with exception 04.
    cells: BTreeMap<(u8, Table, u16), Option<u16>>,
}

/// Why a read is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No such unit.
    Unit,
    /// No such register.
    Address,
    /// The sensor behind it is away.
    Device,
}

impl Image {
    /// The registers as the plant shows them now.
    #[must_use]
    pub fn of(plant: &Plant) -> Self {
        let mut cells: BTreeMap<_, _> =
            RESERVED.iter().map(|reserved| (*reserved, Some(0))).collect();
        for (register, shown) in plant.shown() {
            let words = register.encode(shown);
            for offset in 0..register.encoding.width() {
                let word = words.as_ref().map(|words| words[usize::from(offset)]);
                cells.insert((register.unit, register.table, register.address + offset), word);
            }
        }
        Self { cells }
    }

    /// `count` registers (or bits, 0 or 1) from `address` on.
    ///
    /// # Errors
    /// When the unit does not answer, a register is not there, or a sensor is away.
    pub fn read(
        &self,
        unit: u8,
        table: Table,
        address: u16,
        count: u16,
    ) -> Result<Vec<u16>, Refused> {
        if !units().contains(&unit) {
            return Err(Refused::Unit);
        }
        let end = u32::from(address) + u32::from(count);
        (u32::from(address)..end)
            .map(|at| {
                let at = u16::try_from(at).map_err(|_| Refused::Address)?;
                let cell = self.cells.get(&(unit, table, at)).ok_or(Refused::Address)?;
                cell.ok_or(Refused::Device)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_register_or_a_name() {
        let mut cells = BTreeSet::new();
        let mut names = BTreeSet::new();
        for register in REGISTERS {
            assert!(names.insert(register.path()));
            for offset in 0..register.encoding.width() {
                assert!(cells.insert((register.unit, register.table, register.address + offset)));
            }
        }
    }

    #[test]
    fn no_block_of_a_unit_has_a_hole() {
        let image = Image::of(&Plant::new(crate::sim::Scenario::healthy(), 1));
        let mut blocks: BTreeMap<(u8, Table), (u16, u16)> = BTreeMap::new();
        for register in REGISTERS {
            let end = register.address + register.encoding.width();
            let block = blocks.entry((register.unit, register.table)).or_insert((u16::MAX, 0));
            *block = (block.0.min(register.address), block.1.max(end));
        }
        for ((unit, table), (from, to)) in blocks {
            assert!(image.read(unit, table, from, to - from).is_ok(), "{unit} {table:?}");
        }
    }

    #[test]
    fn byte_orders_are_those_of_the_configuration() {
        let bytes = [1, 2, 3, 4];
        assert_eq!(arrange(bytes, ByteOrder::Abcd), [0x0102, 0x0304]);
        assert_eq!(arrange(bytes, ByteOrder::Cdab), [0x0304, 0x0102]);
        assert_eq!(arrange(bytes, ByteOrder::Badc), [0x0201, 0x0403]);
        assert_eq!(arrange(bytes, ByteOrder::Dcba), [0x0403, 0x0201]);
    }

    #[test]
    fn registers_stop_at_their_ends_and_know_a_sentinel() {
        let register = |encoding| row(P101, Signal::Flow, (Table::Input, 0), encoding, 0.1, 0.0);
        let unsigned = register(Encoding::U16);
        assert_eq!(unsigned.encode(Shown::Value(-3.0)), Some(vec![0]));
        assert_eq!(unsigned.encode(Shown::Value(1e9)), Some(vec![0xffff]));
        assert_eq!(unsigned.encode(Shown::Nothing(Away::Sentinel)), Some(vec![0xffff]));
        assert_eq!(unsigned.encode(Shown::Nothing(Away::Exception)), None);
        let signed = register(Encoding::I16);
        assert_eq!(signed.encode(Shown::Value(-0.1)), Some(vec![0xffff]));
        assert_eq!(signed.encode(Shown::Nothing(Away::Sentinel)), Some(vec![0x8000]));
    }

    #[test]
    fn noise_is_wider_than_the_steps_of_its_register() {
        for register in REGISTERS {
            if register.signal.is_state() {
                continue;
            }
            let step = 2.0 * register.rounding(100.0);
            assert!(register.noise >= 4.0 * step, "{}", register.path());
        }
    }
}
