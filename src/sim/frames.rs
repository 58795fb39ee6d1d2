//! Modbus TCP frames as the simulated server reads and writes them, bare, so that they can be
//! wrong on purpose (Modbus application protocol 1.1b3; Messaging on TCP/IP 1.0b).
//!
//! ```text
//!  transaction (2) │ protocol (2) = 0 │ length (2) │ unit (1) │ PDU: function (1), data …
//! ```

use super::registers::{Image, Refused};
use crate::config::Table;

/// Bytes before the unit id.
pub(super) const PREFIX: usize = 6;
/// Largest PDU.
pub(super) const PDU_MAX: usize = 253;
/// Most registers in one reply (application protocol, 6.3).
const REGISTERS_MAX: u16 = 125;
/// Most bits in one reply (6.1).
const BITS_MAX: u16 = 2000;

/// Exception codes that the simulated devices give by themselves.
mod code {
    pub(super) const FUNCTION: u8 = 1;
    pub(super) const ADDRESS: u8 = 2;
    pub(super) const VALUE: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const NO_TARGET: u8 = 11;
}

/// The table, first address and count that a request reads; `None` when it reads no table.
pub(super) fn asked(pdu: &[u8]) -> Option<(Table, u16, u16)> {
    let &[function, a, b, c, d] = pdu else { return None };
    let table = match function {
        1 => Table::Coil,
        2 => Table::Discrete,
        3 => Table::Holding,
        4 => Table::Input,
        _ => return None,
    };
    Some((table, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// What identifies a simulated device: object id and text (application protocol, 6.21).
fn identity(unit: u8) -> [(u8, String); 4] {
    [
        (0, "wheeltap".to_owned()),
        (1, format!("SIM-{}", (unit - 1) % 4 + 1)),
        (2, env!("CARGO_PKG_VERSION").to_owned()),
        (4, "simulated machine".to_owned()),
    ]
}

/// The PDU that answers the request `pdu` to `unit`, out of `image`, in which the units from 1 on
/// are `copies` times those of the map.
pub(super) fn answer(image: &Image, unit: u8, copies: u8, pdu: &[u8]) -> Vec<u8> {
    let Some(&function) = pdu.first() else { return exception(0, code::FUNCTION) };
    let Some(original) = original(unit, copies) else {
        return exception(function, code::NO_TARGET);
    };
    match function {
        1..=4 => match asked(pdu) {
            None => exception(function, code::VALUE),
            Some((table, address, count)) => {
                let bits = matches!(table, Table::Coil | Table::Discrete);
                let most = if bits { BITS_MAX } else { REGISTERS_MAX };
                if count == 0 || count > most {
                    return exception(function, code::VALUE);
                }
                match image.read(original, table, address, count) {
                    Ok(words) if bits => values(function, &pack(&words)),
                    Ok(words) => {
                        let bytes: Vec<u8> =
                            words.iter().flat_map(|word| word.to_be_bytes()).collect();
                        values(function, &bytes)
                    }
                    Err(Refused::Unit) => exception(function, code::NO_TARGET),
                    Err(Refused::Address) => exception(function, code::ADDRESS),
                    Err(Refused::Device) => exception(function, code::DEVICE),
                }
            }
        },
        // Report server id: an id, "running", and a text.
        17 => {
            let mut data = vec![original, 0xff];
            data.extend(format!("wheeltap SIM-{original}").into_bytes());
            values(function, &data)
        }
        // Read device identification, basic and regular objects in one go.
        43 => match pdu {
            [_, 0x0e, 1..=3, first] => {
                let objects: Vec<(u8, String)> =
                    identity(unit).into_iter().filter(|(id, _)| id >= first).collect();
                let count = u8::try_from(objects.len()).expect("there are four objects");
                let mut reply = vec![43, 0x0e, pdu[2], 0x02, 0, 0, count];
                for (id, text) in objects {
                    reply.extend([id, u8::try_from(text.len()).expect("the texts are short")]);
                    reply.extend(text.into_bytes());
                }
                reply
            }
            _ => exception(function, code::VALUE),
        },
        _ => exception(function, code::FUNCTION),
    }
}

/// The unit of the map that stands behind a unit id: with copies, ids go on where the map ends.
fn original(unit: u8, copies: u8) -> Option<u8> {
    let units = super::units();
    let count = u8::try_from(units.len()).ok()?;
    let last = u16::from(count) * u16::from(copies);
    if unit == 0 || u16::from(unit) > last {
        return None;
    }
    units.into_iter().nth(usize::from((unit - 1) % count))
}

pub(super) fn exception(function: u8, code: u8) -> Vec<u8> {
    vec![function | 0x80, code]
}

fn values(function: u8, bytes: &[u8]) -> Vec<u8> {
    let count = u8::try_from(bytes.len()).expect("a reply was bounded to 250 bytes of values");
    [&[function, count], bytes].concat()
}

/// Bits, 0 or 1 each, eight to a byte, the first the lowest.
fn pack(bits: &[u16]) -> Vec<u8> {
    bits.chunks(8)
        .map(|eight| {
            eight.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit != 0) << at)
        })
        .collect()
}

/// A frame around a PDU.
pub(super) fn frame(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
    let [t1, t0] = transaction.to_be_bytes();
    let [l1, l0] = length.to_be_bytes();
    [&[t1, t0, 0, 0, l1, l0, unit], pdu].concat()
}
