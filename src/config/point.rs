//! Where a Modbus tag lives: table, address, type, order of the bytes; and how each is written.

use super::Table;
use super::tree::nearest;

/// Registers that one string may take; 250 characters are longer than any name plate.
pub(crate) const STRING_REGISTERS_MAX: u16 = 125;
/// Registers that one burst may take: a quarter of a table, some 130 requests.
pub(crate) const WAVEFORM_REGISTERS_MAX: u16 = 16_384;

/// How registers make a number. Names as in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PointType {
    /// A coil, a discrete input, or a register that is zero or not.
    Bool,
    /// Upper byte of a register.
    U8h,
    /// Lower byte of a register.
    U8l,
    /// 16 bits, unsigned.
    U16,
    /// 16 bits, two's complement.
    I16,
    /// 32 bits, unsigned.
    U32,
    /// 32 bits, two's complement.
    I32,
    /// 64 bits, unsigned.
    U64,
    /// 64 bits, two's complement.
    I64,
    /// IEEE 754 half precision.
    F16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Four decimal digits.
    Bcd16,
    /// Eight decimal digits.
    Bcd32,
    /// Registers of 0 to 9999 each, most significant last; how many (2 to 4).
    Mod10k(u8),
    /// Bits `from` to `to` of a register, 0 the lowest, both included.
    Bits {
        /// Lowest bit.
        from: u8,
        /// Highest bit.
        to: u8,
    },
    /// A text.
    String {
        /// Registers it takes.
        registers: u16,
        /// How its characters lie in them.
        packing: Packing,
    },
    /// A burst of evenly spaced samples.
    Waveform {
        /// What a sample is.
        sample: Sample,
        /// How many samples.
        count: u16,
    },
}

/// How characters lie in registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Two in each.
    Both,
    /// One in the upper byte of each.
    Upper,
    /// One in the lower byte of each.
    Lower,
}

/// What a sample of a burst is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// 16 bits, two's complement.
    I16,
    /// 16 bits, unsigned.
    U16,
    /// IEEE 754 single precision.
    F32,
}

impl Sample {
    /// The type of one sample alone.
    #[must_use]
    pub const fn point_type(self) -> PointType {
        match self {
            Self::I16 => PointType::I16,
            Self::U16 => PointType::U16,
            Self::F32 => PointType::F32,
        }
    }
}

impl PointType {
    /// The types of fixed size that a block of registers may be tried as.
    pub const PLAIN: [Self; 17] = [
        Self::Bool,
        Self::U8h,
        Self::U8l,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
        Self::Bcd16,
        Self::Bcd32,
        Self::Mod10k(2),
        Self::Mod10k(3),
        Self::Mod10k(4),
    ];

    /// Registers (or coils) it takes.
    #[must_use]
    pub const fn registers(self) -> u16 {
        match self {
            Self::Bool
            | Self::U8h
            | Self::U8l
            | Self::U16
            | Self::I16
            | Self::F16
            | Self::Bcd16
            | Self::Bits { .. } => 1,
            Self::U32 | Self::I32 | Self::F32 | Self::Bcd32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
            Self::Mod10k(count) => count as u16,
            Self::String { registers, .. } => registers,
            Self::Waveform { sample, count } => count.saturating_mul(match sample {
                Sample::I16 | Sample::U16 => 1,
                Sample::F32 => 2,
            }),
        }
    }

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Bool => "bool".to_owned(),
            Self::U8h => "u8h".to_owned(),
            Self::U8l => "u8l".to_owned(),
            Self::U16 => "u16".to_owned(),
            Self::I16 => "i16".to_owned(),
            Self::U32 => "u32".to_owned(),
            Self::I32 => "i32".to_owned(),
            Self::U64 => "u64".to_owned(),
            Self::I64 => "i64".to_owned(),
            Self::F16 => "f16".to_owned(),
            Self::F32 => "f32".to_owned(),
            Self::F64 => "f64".to_owned(),
            Self::Bcd16 => "bcd16".to_owned(),
            Self::Bcd32 => "bcd32".to_owned(),
            Self::Mod10k(count) => format!("mod10k:{count}"),
            Self::Bits { from, to } => format!("bits:{from}-{to}"),
            Self::String { registers, packing } => match packing {
                Packing::Both => format!("string:{registers}"),
                Packing::Upper => format!("stringh:{registers}"),
                Packing::Lower => format!("stringl:{registers}"),
            },
            Self::Waveform { sample, count } => {
                format!("waveform:{}:{count}", sample.point_type().name())
            }
        }
    }

    /// After how many counts a counter of this type begins again at 0; `None` for what is no
    /// counter.
    #[must_use]
    pub const fn modulus(self) -> Option<u128> {
        match self {
            Self::U8h | Self::U8l => Some(1 << 8),
            Self::U16 => Some(1 << 16),
            Self::U32 => Some(1 << 32),
            Self::U64 => Some(1 << 64),
            Self::Bcd16 => Some(10_000),
            Self::Bcd32 => Some(100_000_000),
            Self::Mod10k(count) => Some(10_000_u128.pow(count as u32)),
            Self::Bool
            | Self::I16
            | Self::I32
            | Self::I64
            | Self::F16
            | Self::F32
            | Self::F64
            | Self::Bits { .. }
            | Self::String { .. }
            | Self::Waveform { .. } => None,
        }
    }

    /// The least and the largest raw value of a type of integers; `None` for the others.
    #[must_use]
    pub fn integers(self) -> Option<(i128, i128)> {
        let unsigned = |bits: u32| Some((0, (1_i128 << bits) - 1));
        let signed = |bits: u32| Some((-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1));
        match self {
            Self::Bool => unsigned(1),
            Self::U8h | Self::U8l => unsigned(8),
            Self::U16 => unsigned(16),
            Self::U32 => unsigned(32),
            Self::U64 => unsigned(64),
            Self::I16 => signed(16),
            Self::I32 => signed(32),
            Self::I64 => signed(64),
            Self::Bits { from, to } => unsigned(u32::from(to.saturating_sub(from)) + 1),
            Self::Bcd16 | Self::Bcd32 | Self::Mod10k(_) => {
                let modulus = self.modulus().unwrap_or(1);
                Some((0, i128::try_from(modulus).unwrap_or(i128::MAX) - 1))
            }
            Self::Waveform { sample, .. } => sample.point_type().integers(),
            Self::F16 | Self::F32 | Self::F64 | Self::String { .. } => None,
        }
    }
}

/// Order of the bytes as they arrive, named by the value's bytes, most significant first: `ABCD`
/// is big endian, `CDAB` swaps words, `BADC` bytes, `DCBA` both. 64-bit types extend the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Big endian.
    Abcd,
    /// Words swapped.
    Cdab,
    /// Bytes swapped within words.
    Badc,
    /// Little endian.
    Dcba,
    /// Any other permutation, of a 4-byte or an 8-byte type. `at[i]` is the place in the value, 0
    /// the most significant, of the byte that arrives as number `i`.
    Places {
        /// Bytes of the value, 4 or 8.
        count: u8,
        /// A permutation of `0..count`; the rest is not used.
        at: [u8; 8],
    },
}

impl ByteOrder {
    /// The four orders that devices use.
    pub const COMMON: [Self; 4] = [Self::Abcd, Self::Cdab, Self::Badc, Self::Dcba];

    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Abcd => "ABCD".to_owned(),
            Self::Cdab => "CDAB".to_owned(),
            Self::Badc => "BADC".to_owned(),
            Self::Dcba => "DCBA".to_owned(),
            Self::Places { count, at } => {
                at.iter().take(usize::from(count)).map(|place| char::from(b'A' + place)).collect()
            }
        }
    }

    /// Whether a value of this type can arrive in this order; if not, why.
    ///
    /// # Errors
    /// The reason, as a sentence.
    pub fn fits(self, kind: PointType) -> Result<(), String> {
        let swaps_words = matches!(self, Self::Cdab | Self::Dcba);
        let count = match self {
            Self::Places { count, .. } => Some(u16::from(count)),
            Self::Abcd | Self::Cdab | Self::Badc | Self::Dcba => None,
        };
        let whole = |bytes: u16| match count {
            Some(count) if count != bytes => {
                Err(format!("names {count} bytes, {} has {bytes}", kind.name()))
            }
            Some(_) | None => Ok(()),
        };
        match kind {
            PointType::Bool | PointType::U8h | PointType::U8l | PointType::Bits { .. } => {
                match self {
                    Self::Abcd => Ok(()),
                    Self::Badc | Self::Cdab | Self::Dcba | Self::Places { .. } => {
                        Err("this type has no other order than ABCD".to_owned())
                    }
                }
            }
            PointType::Mod10k(_) => match self {
                Self::Abcd | Self::Cdab => Ok(()),
                Self::Badc | Self::Dcba | Self::Places { .. } => {
                    Err("mod10k has two orders: ABCD (least significant register first), CDAB"
                        .to_owned())
                }
            },
            PointType::U16 | PointType::I16 | PointType::F16 | PointType::Bcd16 => {
                if swaps_words || count.is_some() {
                    return Err("one register has no words to swap: ABCD or BADC".to_owned());
                }
                Ok(())
            }
            PointType::String { .. } => {
                if swaps_words || count.is_some() {
                    return Err(
                        "a text has two orders: ABCD, and BADC (lower byte first)".to_owned()
                    );
                }
                Ok(())
            }
            PointType::U32 | PointType::I32 | PointType::F32 | PointType::Bcd32 => whole(4),
            PointType::U64 | PointType::I64 | PointType::F64 => whole(8),
            PointType::Waveform { sample, .. } => self.fits(sample.point_type()),
        }
    }
}

/// Where a Modbus tag lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Unit id.
    pub unit: u8,
    /// Table.
    pub table: Table,
    /// Zero-based address of the first register.
    pub address: u16,
    /// How registers make a number.
    pub kind: PointType,
    /// In which order they come.
    pub order: ByteOrder,
}

/// `holding:100`, `input:0x34`: a table and an address as written.
pub(super) fn point(text: &str) -> Result<(Table, u32), String> {
    let wrong = || {
        format!("`{text}` is no point: write coil:, discrete:, input: or holding: and an address")
    };
    let Some((table, address)) = text.split_once(':') else {
        return Err(classic(text).unwrap_or_else(wrong));
    };
    let table = match table {
        "coil" => Table::Coil,
        "discrete" => Table::Discrete,
        "input" => Table::Input,
        "holding" => Table::Holding,
        _ => return Err(wrong()),
    };
    let number = match address.strip_prefix("0x") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u32::from_str_radix(digits, 16)
        }
        Some(_) => return Err(wrong()),
        None if !address.is_empty() && address.bytes().all(|b| b.is_ascii_digit()) => {
            address.parse()
        }
        None => return Err(wrong()),
    };
    match number {
        Ok(number) if number <= 0x1_0000 => Ok((table, number)),
        Ok(_) | Err(_) => Err(match classic(address) {
            Some(hint) => format!("address {address} is past 65535: {hint}"),
            None => format!("address {address} is past 65535"),
        }),
    }
}

/// The notation `40101`, `400101` or `4x101`, in which the first digit is the table and the rest an
/// address counted from 1: what is to be written instead.
fn classic(text: &str) -> Option<String> {
    let (first, rest) = text.split_at_checked(1)?;
    let table = match first {
        "0" => "coil",
        "1" => "discrete",
        "3" => "input",
        "4" => "holding",
        _ => return None,
    };
    let digits = rest.strip_prefix(['x', 'X']).unwrap_or(rest);
    let noted = digits.len() != rest.len() || matches!(rest.len(), 4 | 5);
    let number: u32 = digits.parse().ok().filter(|number| (1..=0x1_0000).contains(number))?;
    noted.then(|| {
        format!(
            "`{text}` is the notation that counts from 1: write {table}:{}, or {table}:{number} \
             with `address_base = 1` on the source",
            number - 1
        )
    })
}

/// Names of the contract: `u16`, `f32`, `bits:4-7`, `mod10k:3`, `string:8`, `waveform:i16:512` …
pub(super) fn point_type(text: &str) -> Result<PointType, String> {
    if let Some(plain) = PointType::PLAIN.into_iter().find(|kind| kind.name() == text) {
        return Ok(plain);
    }
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let wrong = |form: &str| Err(format!("`{text}` is no type: {form}"));
    match name {
        "bits" => {
            let read = |part: &str| part.parse::<u8>().ok().filter(|bit| *bit <= 15);
            let ends = match rest.split_once('-') {
                Some((from, to)) => read(from).zip(read(to)),
                None => read(rest).map(|bit| (bit, bit)),
            };
            match ends {
                Some((from, to)) if from <= to => Ok(PointType::Bits { from, to }),
                Some(_) | None => wrong("bits:N-M with 0 <= N <= M <= 15"),
            }
        }
        "string" | "stringh" | "stringl" => {
            let packing = match name {
                "stringh" => Packing::Upper,
                "stringl" => Packing::Lower,
                _ => Packing::Both,
            };
            match rest.parse() {
                Ok(registers @ 1..=STRING_REGISTERS_MAX) => {
                    Ok(PointType::String { registers, packing })
                }
                Ok(_) | Err(_) => {
                    wrong(&format!("{name}:N with 1 to {STRING_REGISTERS_MAX} registers"))
                }
            }
        }
        "waveform" => {
            let form = "waveform:i16:N, waveform:u16:N or waveform:f32:N";
            let Some((sample, count)) = rest.split_once(':') else { return wrong(form) };
            let sample = match sample {
                "i16" => Sample::I16,
                "u16" => Sample::U16,
                "f32" => Sample::F32,
                _ => return wrong(form),
            };
            let Ok(count) = count.parse::<u16>() else { return wrong(form) };
            let kind = PointType::Waveform { sample, count };
            if count < 2 || kind.registers() > WAVEFORM_REGISTERS_MAX {
                return wrong(&format!(
                    "a burst has 2 samples or more, in at most {WAVEFORM_REGISTERS_MAX} registers"
                ));
            }
            Ok(kind)
        }
        _ => {
            let names: Vec<String> = PointType::PLAIN.iter().map(|kind| kind.name()).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let near = nearest(text, &names)
                .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            Err(format!("`{text}` is no type{near}"))
        }
    }
}

/// `ABCD`, `CDAB`, or any permutation of the letters of a 2-, 4- or 8-byte type.
pub(crate) fn order(text: &str) -> Result<ByteOrder, String> {
    let wrong = || {
        Err(format!(
            "`{text}` is no order: ABCD, CDAB, BADC, DCBA, or any permutation of ABCD or ABCDEFGH"
        ))
    };
    let count = text.len();
    if !matches!(count, 2 | 4 | 8) {
        return wrong();
    }
    let mut at = [0_u8; 8];
    let mut seen = [false; 8];
    for (place, letter) in at.iter_mut().zip(text.bytes()) {
        let index = letter.wrapping_sub(b'A');
        match seen.get_mut(usize::from(index)) {
            Some(seen) if usize::from(index) < count && !*seen => *seen = true,
            Some(_) | None => return wrong(),
        }
        *place = index;
    }
    Ok(match text {
        "AB" | "ABCD" | "ABCDEFGH" => ByteOrder::Abcd,
        "CDAB" | "GHEFCDAB" => ByteOrder::Cdab,
        "BA" | "BADC" | "BADCFEHG" => ByteOrder::Badc,
        "DCBA" | "HGFEDCBA" => ByteOrder::Dcba,
        _ => ByteOrder::Places { count: u8::try_from(count).unwrap_or(8), at },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row22_the_notation_that_counts_from_one_is_refused_with_what_to_write() {
        for text in ["40101", "400101", "4x101", "4x0101"] {
            let hint = point(text).unwrap_err();
            assert!(hint.contains("write holding:100, or holding:101"), "{text}: {hint}");
        }
        assert!(point("30001").unwrap_err().contains("write input:0"));
        assert!(point("holding:400101").unwrap_err().contains("past 65535: "));
        // A real address: SunSpec's map begins there.
        assert_eq!(point("holding:40000"), Ok((Table::Holding, 40_000)));
        assert_eq!(point("input:0x0034"), Ok((Table::Input, 52)));
        for text in ["holding", "holding:", "holding:-1", "reg:1", "coil:1x", "input:0x", "41"] {
            assert!(point(text).unwrap_err().contains("is no point"), "{text}");
        }
    }

    #[test]
    fn names_of_types_are_read_back() {
        let more = ["bits:4-7", "string:8", "stringh:8", "stringl:8", "waveform:i16:512"];
        let names = PointType::PLAIN.iter().map(|kind| kind.name());
        for name in names.chain(more.map(str::to_owned)) {
            assert_eq!(point_type(&name).unwrap().name(), name);
        }
        assert_eq!(point_type("bits:3"), Ok(PointType::Bits { from: 3, to: 3 }));
        assert_eq!(point_type("waveform:f32:8192").unwrap().registers(), 16_384);
        for text in [
            "float32",
            "bits:7-4",
            "bits:16",
            "string:0",
            "string:126",
            "string",
            "waveform:i16:1",
            "waveform:f64:8",
            "waveform:f32:9000",
            "mod10k:5",
            "u32 ",
        ] {
            assert!(point_type(text).unwrap_err().contains("is no type"), "{text}");
        }
    }

    #[test]
    fn row21_any_permutation_is_an_order_of_a_type_of_its_length() {
        assert_eq!(order("GHEFCDAB"), Ok(ByteOrder::Cdab));
        let odd = order("BDAC").unwrap();
        assert_eq!((odd.name().as_str(), odd.fits(PointType::F32)), ("BDAC", Ok(())));
        assert!(odd.fits(PointType::F64).unwrap_err().contains("names 4 bytes, f64 has 8"));
        assert!(order("EFGHABCD").unwrap().fits(PointType::I64).is_ok());
        for text in ["", "ABC", "AABC", "ABCE", "abcd", "ABCDEFGI", "ABCDEF"] {
            assert!(order(text).is_err(), "{text}");
        }
    }
}
