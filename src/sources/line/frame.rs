//! Pure: requests as bytes, and bytes as the answer to one request or as an error.
//!
//! ```text
//! TCP  transaction:2 protocol:2=0 length:2 unit:1 │ function:1 count:1 values │
//! RTU                                      unit:1 │ function:1 count:1 values │ crc:2 (low first)
//! refusal, in the place of the PDU                │ function|0x80   code:1    │
//! ```
//!
//! The request is known, and with it the only two lengths its answer can have; nothing is believed
//! that is not exactly one of these. That is why tokio-modbus, which serves the simulated plant, is
//! not the decoder here: its client trusts the length that a device states, its RTU decoder skips
//! bytes until something looks like a frame, which in noise something does, and the number of values
//! is left to a `debug_assert`. What is left to decode after these checks is a slice of big-endian
//! words.
//!
//! Source: Modbus application protocol V1.1b3 §4, §6.1–6.4; messaging on TCP/IP V1.0b §3.1; over
//! serial line V1.02 §2.5.1, §6.2.

use crate::config::Table;

/// Bytes of the header on TCP.
const MBAP: usize = 7;
/// Longest PDU, and with it the longest length a header may state, its unit included.
const MBAP_LENGTH_MAX: u16 = 254;
/// Longest legal frame (TCP); a buffer of this size holds any answer.
pub const FRAME_MAX: usize = 260;
/// Bytes after a whole RTU frame that are taken for the noise of a driver switching off; more could
/// be another frame, and then it is not known which of them is the answer.
pub const TRAILING_MAX: usize = 3;

/// A read of one table of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Unit id.
    pub unit: u8,
    /// Which table.
    pub table: Table,
    /// First address.
    pub address: u16,
    /// How many registers or bits.
    pub count: u16,
}

impl Query {
    /// The function code.
    #[must_use]
    pub const fn function(&self) -> u8 {
        match self.table {
            Table::Coil => 1,
            Table::Discrete => 2,
            Table::Holding => 3,
            Table::Input => 4,
        }
    }

    /// Bytes of values that the answer must hold.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        match self.table {
            Table::Coil | Table::Discrete => usize::from(self.count).div_ceil(8),
            Table::Holding | Table::Input => usize::from(self.count) * 2,
        }
    }

    /// Whether an answer to the one would pass for an answer to the other on RTU, which carries no
    /// address back.
    #[must_use]
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.unit, self.table, self.value_bytes())
            == (other.unit, other.table, other.value_bytes())
    }

    fn pdu(&self) -> [u8; 5] {
        let [a, b] = self.address.to_be_bytes();
        let [c, d] = self.count.to_be_bytes();
        [self.function(), a, b, c, d]
    }

    /// The request on TCP.
    #[must_use]
    pub fn tcp_request(&self, transaction: u16) -> [u8; 12] {
        let [high, low] = transaction.to_be_bytes();
        let [f, a, b, c, d] = self.pdu();
        [high, low, 0, 0, 0, 6, self.unit, f, a, b, c, d]
    }

    /// The request on RTU.
    #[must_use]
    pub fn rtu_request(&self) -> [u8; 8] {
        let [f, a, b, c, d] = self.pdu();
        let body = [self.unit, f, a, b, c, d];
        let [low, high] = crc(&body).to_le_bytes();
        [self.unit, f, a, b, c, d, low, high]
    }
}

/// What a whole and fitting frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body<'a> {
    /// The values: exactly [`Query::value_bytes`] bytes.
    Values(&'a [u8]),
    /// The refusal's code.
    Exception(u8),
}

/// Why bytes are not the answer. More bytes cannot make them one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not Modbus.
    #[error("protocol {0} instead of 0")]
    Protocol(u16),
    /// A length that no answer can have.
    #[error("a stated length of {0}")]
    StatedLength(u16),
    /// An answer to another request.
    #[error("transaction {got} instead of {expected}")]
    Transaction {
        /// Asked.
        expected: u16,
        /// Answered.
        got: u16,
    },
    /// An answer of another unit.
    #[error("unit {got} instead of {expected}")]
    Unit {
        /// Asked.
        expected: u8,
        /// Answered.
        got: u8,
    },
    /// An answer to another kind of request.
    #[error("function {got} instead of {expected}")]
    Function {
        /// Asked.
        expected: u8,
        /// Answered.
        got: u8,
    },
    /// Another number of values.
    #[error("{got} bytes of values instead of {expected}")]
    Count {
        /// Asked.
        expected: usize,
        /// Answered.
        got: usize,
    },
    /// Damaged on the way.
    #[error("a wrong checksum")]
    Checksum,
    /// More than one answer.
    #[error("{0} bytes after the answer")]
    Trailing(usize),
}

/// The answer on TCP, as far as it has come: `None` while bytes are missing. Fails at the first byte
/// that does not fit.
///
/// # Errors
/// [`FrameError`].
pub fn tcp<'a>(
    bytes: &'a [u8],
    transaction: u16,
    query: &Query,
) -> Result<Option<Body<'a>>, FrameError> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    if let Some(got) = word(0)
        && got != transaction
    {
        return Err(FrameError::Transaction { expected: transaction, got });
    }
    if let Some(protocol) = word(2)
        && protocol != 0
    {
        return Err(FrameError::Protocol(protocol));
    }
    let Some(length) = word(4) else { return Ok(None) };
    let expected = query.value_bytes();
    // The stated length counts unit and function; an exception adds its code, values their count.
    match length {
        3 => {}
        4..=MBAP_LENGTH_MAX => {
            let got = usize::from(length) - 3;
            if got != expected {
                return Err(FrameError::Count { expected, got });
            }
        }
        _ => return Err(FrameError::StatedLength(length)),
    }
    let whole = MBAP - 1 + usize::from(length);
    unit(bytes.get(MBAP - 1), query)?;
    let pdu = bytes.get(MBAP..whole.min(bytes.len())).unwrap_or(&[]);
    let body = body(pdu, query)?;
    if length == 3 && matches!(pdu.first(), Some(&function) if function & 0x80 == 0) {
        return Err(FrameError::Count { expected, got: 0 });
    }
    if length != 3 && matches!(pdu.first(), Some(&function) if function & 0x80 != 0) {
        return Err(FrameError::StatedLength(length));
    }
    match body {
        Some(body) if bytes.len() == whole => Ok(Some(body)),
        Some(_) => Err(FrameError::Trailing(bytes.len() - whole)),
        None => Ok(None),
    }
}

/// The answer on RTU, as far as it has come: `None` while bytes are missing. Fails at the first byte
/// that does not fit, at the end when the checksum does not.
///
/// # Errors
/// [`FrameError`].
pub fn rtu<'a>(bytes: &'a [u8], query: &Query) -> Result<Option<Body<'a>>, FrameError> {
    unit(bytes.first(), query)?;
    let pdu = bytes.get(1..).unwrap_or(&[]);
    let Some(found) = body(pdu, query)? else { return Ok(None) };
    let end = 1 + match found {
        Body::Values(values) => 2 + values.len(),
        Body::Exception(_) => 2,
    };
    let (Some(&low), Some(&high)) = (bytes.get(end), bytes.get(end + 1)) else { return Ok(None) };
    if crc(&bytes[..end]) != u16::from_le_bytes([low, high]) {
        return Err(FrameError::Checksum);
    }
    let trailing = bytes.len() - end - 2;
    if trailing > TRAILING_MAX { Err(FrameError::Trailing(trailing)) } else { Ok(Some(found)) }
}

/// A request that reads no table: report server id (17), read device identification (43/14).
#[must_use]
pub fn other_request(unit: u8, pdu: &[u8], transaction: Option<u16>) -> Vec<u8> {
    match transaction {
        Some(transaction) => {
            let [high, low] = transaction.to_be_bytes();
            let [l1, l0] = u16::try_from(pdu.len() + 1).unwrap_or(MBAP_LENGTH_MAX).to_be_bytes();
            [&[high, low, 0, 0, l1, l0, unit], pdu].concat()
        }
        None => {
            let mut frame = [&[unit], pdu].concat();
            let [low, high] = crc(&frame).to_le_bytes();
            frame.extend([low, high]);
            frame
        }
    }
}

/// The PDU of the answer to such a request on TCP, exceptions included; `None` while bytes are
/// missing.
///
/// # Errors
/// [`FrameError`].
pub fn other_tcp(
    bytes: &[u8],
    transaction: u16,
    asked: u8,
    function: u8,
) -> Result<Option<&[u8]>, FrameError> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    match word(0) {
        Some(got) if got != transaction => {
            return Err(FrameError::Transaction { expected: transaction, got });
        }
        _ => {}
    }
    if let Some(protocol @ 1..) = word(2) {
        return Err(FrameError::Protocol(protocol));
    }
    let Some(length) = word(4) else { return Ok(None) };
    if !(3..=MBAP_LENGTH_MAX).contains(&length) {
        return Err(FrameError::StatedLength(length));
    }
    let whole = MBAP - 1 + usize::from(length);
    let pdu = other(bytes.get(MBAP - 1..).unwrap_or(&[]), asked, function)?;
    match pdu {
        Some(_) if bytes.len() > whole => Err(FrameError::Trailing(bytes.len() - whole)),
        Some(_) if bytes.len() == whole => Ok(bytes.get(MBAP..)),
        Some(_) | None => Ok(None),
    }
}

/// The same on RTU, which does not state how long a frame is: the answer's own counts do.
///
/// # Errors
/// [`FrameError`].
pub fn other_rtu(bytes: &[u8], asked: u8, function: u8) -> Result<Option<&[u8]>, FrameError> {
    let Some(pdu) = other(bytes, asked, function)? else { return Ok(None) };
    let Some(length) = other_length(pdu) else { return Ok(None) };
    let end = 1 + length;
    let (Some(&low), Some(&high)) = (bytes.get(end), bytes.get(end + 1)) else { return Ok(None) };
    if crc(&bytes[..end]) != u16::from_le_bytes([low, high]) {
        return Err(FrameError::Checksum);
    }
    let trailing = bytes.len() - end - 2;
    if trailing > TRAILING_MAX {
        Err(FrameError::Trailing(trailing))
    } else {
        Ok(Some(&bytes[1..end]))
    }
}

/// What begins at the function code, once unit and function are there and fit.
fn other(body: &[u8], asked: u8, function: u8) -> Result<Option<&[u8]>, FrameError> {
    let Some((&got, pdu)) = body.split_first() else { return Ok(None) };
    if got != asked {
        return Err(FrameError::Unit { expected: asked, got });
    }
    match pdu.first() {
        None => Ok(None),
        Some(&got) if got & 0x7f != function => {
            Err(FrameError::Function { expected: function, got })
        }
        Some(_) => Ok(Some(pdu)),
    }
}

/// How long a PDU of one of the other functions is; `None` while the bytes that say so are missing.
fn other_length(pdu: &[u8]) -> Option<usize> {
    match *pdu.first()? {
        function if function & 0x80 != 0 => Some(2),
        43 => {
            let mut end = 7;
            for _ in 0..*pdu.get(6)? {
                end += 2 + usize::from(*pdu.get(end + 1)?);
            }
            Some(end)
        }
        // Those that state the number of bytes that follow.
        _ => Some(2 + usize::from(*pdu.get(1)?)),
    }
}

fn unit(got: Option<&u8>, query: &Query) -> Result<(), FrameError> {
    match got {
        Some(&got) if got != query.unit => Err(FrameError::Unit { expected: query.unit, got }),
        _ => Ok(()),
    }
}

/// What begins at a function code; `None` while bytes are missing.
fn body<'a>(pdu: &'a [u8], query: &Query) -> Result<Option<Body<'a>>, FrameError> {
    let Some(&function) = pdu.first() else { return Ok(None) };
    if function == query.function() | 0x80 {
        return Ok(pdu.get(1).map(|&code| Body::Exception(code)));
    }
    if function != query.function() {
        return Err(FrameError::Function { expected: query.function(), got: function });
    }
    let Some(&count) = pdu.get(1) else { return Ok(None) };
    let (expected, got) = (query.value_bytes(), usize::from(count));
    if got != expected {
        return Err(FrameError::Count { expected, got });
    }
    Ok(pdu.get(2..2 + expected).map(Body::Values))
}

/// The checksum of RTU frames (CRC-16/MODBUS: polynomial 0xA001 reflected, start 0xFFFF), to be sent
/// low byte first.
#[must_use]
pub fn crc(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0xFFFF, |crc, &byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)])
}

const CRC_TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut index: u16 = 0;
    while index < 256 {
        let mut crc = index;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: Query = Query { unit: 0x11, table: Table::Holding, address: 0x6B, count: 3 };

    fn sealed(body: &[u8]) -> Vec<u8> {
        let [low, high] = crc(body).to_le_bytes();
        [body, &[low, high]].concat()
    }

    #[test]
    fn the_standards_examples_are_read() {
        // Modbus over serial line V1.02 names no bytes; these are of the application protocol §6.3
        // and a published CRC-16/MODBUS check value.
        assert_eq!(crc(b"123456789"), 0x4B37);
        assert_eq!(QUERY.rtu_request(), [0x11, 0x03, 0x00, 0x6B, 0x00, 0x03, 0x76, 0x87]);
        assert_eq!(QUERY.tcp_request(0x1501), [0x15, 1, 0, 0, 0, 6, 0x11, 3, 0, 0x6B, 0, 3]);
        let values = [0x02, 0x2B, 0x00, 0x00, 0x00, 0x64];
        let pdu = [&[0x03, 0x06][..], &values].concat();
        let frame = sealed(&[&[0x11][..], &pdu].concat());
        assert_eq!(rtu(&frame, &QUERY), Ok(Some(Body::Values(&values))));
        let frame = [&[0x15, 1, 0, 0, 0, 9, 0x11][..], &pdu].concat();
        assert_eq!(tcp(&frame, 0x1501, &QUERY), Ok(Some(Body::Values(&values))));
        let refusal = sealed(&[0x11, 0x83, 2]);
        assert_eq!(rtu(&refusal, &QUERY), Ok(Some(Body::Exception(2))));
        let refusal = [0x15, 1, 0, 0, 0, 3, 0x11, 0x83, 2];
        assert_eq!(tcp(&refusal, 0x1501, &QUERY), Ok(Some(Body::Exception(2))));
    }

    #[test]
    fn every_part_of_an_answer_asks_for_more_and_a_byte_too_many_is_refused() {
        let frame = sealed(&[0x11, 3, 6, 1, 2, 3, 4, 5, 6]);
        for length in 0..frame.len() {
            assert_eq!(rtu(&frame[..length], &QUERY), Ok(None), "{length}");
        }
        let noisy = [&frame[..], &[0; TRAILING_MAX]].concat();
        assert!(matches!(rtu(&noisy, &QUERY), Ok(Some(_))));
        let two = [&frame[..], &frame].concat();
        assert_eq!(rtu(&two, &QUERY), Err(FrameError::Trailing(frame.len())));
        let frame = [0, 7, 0, 0, 0, 9, 0x11, 3, 6, 1, 2, 3, 4, 5, 6];
        for length in 0..frame.len() {
            assert_eq!(tcp(&frame[..length], 7, &QUERY), Ok(None), "{length}");
        }
        let long = [&frame[..], &[0]].concat();
        assert_eq!(tcp(&long, 7, &QUERY), Err(FrameError::Trailing(1)));
    }

    #[test]
    fn c06_headers_that_lie_are_refused_at_the_header() {
        let header = |protocol: u8, length: u16| {
            let [high, low] = length.to_be_bytes();
            tcp(&[0, 7, 0, protocol, high, low], 7, &QUERY).err()
        };
        for length in [0, 1, 2, 255, 256, 65_535] {
            assert_eq!(header(0, length), Some(FrameError::StatedLength(length)));
        }
        assert_eq!(header(1, 9), Some(FrameError::Protocol(1)));
        assert_eq!(header(0, 11), Some(FrameError::Count { expected: 6, got: 8 }));
        assert_eq!(header(0, 9), None);
        // An exception of the length of values, and the reverse.
        let odd = [0, 7, 0, 0, 0, 9, 0x11, 0x83, 2, 0, 0, 0, 0, 0, 0];
        assert_eq!(tcp(&odd, 7, &QUERY), Err(FrameError::StatedLength(9)));
        let odd = [0, 7, 0, 0, 0, 3, 0x11, 3, 6];
        assert_eq!(tcp(&odd, 7, &QUERY), Err(FrameError::Count { expected: 6, got: 0 }));
    }

    #[test]
    fn c07_every_other_unit_function_and_transaction_is_refused() {
        for unit in (0..=255).filter(|unit| *unit != QUERY.unit) {
            let expected = FrameError::Unit { expected: QUERY.unit, got: unit };
            assert_eq!(rtu(&sealed(&[unit, 3, 6, 1, 2, 3, 4, 5, 6]), &QUERY), Err(expected));
            let frame = [0, 7, 0, 0, 0, 9, unit, 3, 6, 1, 2, 3, 4, 5, 6];
            assert_eq!(tcp(&frame, 7, &QUERY), Err(expected));
        }
        for function in (0..=255).filter(|function| !matches!(function, 3 | 0x83)) {
            let expected = FrameError::Function { expected: 3, got: function };
            assert_eq!(rtu(&sealed(&[0x11, function, 6, 1, 2]), &QUERY), Err(expected));
            let frame = [0, 7, 0, 0, 0, 9, 0x11, function, 6, 1, 2, 3, 4, 5, 6];
            assert_eq!(tcp(&frame, 7, &QUERY), Err(expected));
        }
        for transaction in [0, 6, 8, 0x700, 65_535] {
            let [high, low] = u16::to_be_bytes(transaction);
            let expected = FrameError::Transaction { expected: 7, got: transaction };
            assert_eq!(tcp(&[high, low], 7, &QUERY), Err(expected));
        }
    }

    #[test]
    fn c04_every_other_number_of_values_is_refused() {
        for bytes in (0..=255_u8).filter(|bytes| usize::from(*bytes) != QUERY.value_bytes()) {
            let expected = FrameError::Count { expected: 6, got: usize::from(bytes) };
            let values = vec![0; usize::from(bytes)];
            let frame = sealed(&[&[0x11, 3, bytes][..], &values].concat());
            assert_eq!(rtu(&frame, &QUERY), Err(expected));
        }
    }

    #[test]
    fn c05_every_single_flipped_bit_is_noticed_and_random_bytes_are_no_answer() {
        let frame = sealed(&[0x11, 3, 6, 1, 2, 3, 4, 5, 6]);
        for bit in 0..frame.len() * 8 {
            let mut noisy = frame.clone();
            noisy[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(rtu(&noisy, &QUERY), Ok(Some(_))), "bit {bit}");
        }
        let seed = 0x5eed_0005;
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = [0_u8; 64];
        for _ in 0..200_000 {
            rng.fill(&mut bytes);
            let bytes = &bytes[..rng.usize(0..64)];
            assert!(!matches!(rtu(bytes, &QUERY), Ok(Some(_))), "{bytes:02x?}");
            assert!(!matches!(tcp(bytes, 7, &QUERY), Ok(Some(_))), "{bytes:02x?}");
        }
    }

    #[test]
    fn bits_come_in_whole_bytes() {
        let query = Query { table: Table::Coil, count: 10, ..QUERY };
        assert_eq!(query.value_bytes(), 2);
        let frame = sealed(&[0x11, 1, 2, 0xCD, 0x6B]);
        assert_eq!(rtu(&frame, &query), Ok(Some(Body::Values(&[0xCD, 0x6B]))));
    }
}
