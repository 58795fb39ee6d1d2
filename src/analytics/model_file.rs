//! The form of a model on disk: what it is, which version of it, a checksum, then postcard.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0–7 | `wtmodel` and a zero |
//! | 8 | kind: 1 remaining life, 2 classes |
//! | 9 | version of that kind |
//! | 10–13 | CRC-32 of kind, version and the rest, little-endian |
//! | 14– | postcard |

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What every model begins with.
const MAGIC: &[u8; 8] = b"wtmodel\0";
const HEADER: usize = 14;
/// A model is never larger; more is not read.
pub const SIZE_MAX: usize = 64 << 20;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Remaining life: [`crate::analytics::prognosis`].
    Prognosis = 1,
    /// Classes: [`crate::analytics::classify`].
    Classification = 2,
}

impl Kind {
    /// The version this program writes and reads.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Prognosis | Self::Classification => 1,
        }
    }

    fn name(number: u8) -> &'static str {
        match number {
            1 => "remaining life",
            2 => "classes",
            _ => "an unknown kind",
        }
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelFileError {
    /// It is something else.
    #[error("not a model: it does not begin as one")]
    Foreign,
    /// A model of the other kind.
    #[error("a model of {found}, wanted one of {wanted}")]
    Kind {
        /// What it is for.
        found: &'static str,
        /// What was asked for.
        wanted: &'static str,
    },
    /// From another version of this program.
    #[error("a model of version {found}, this program reads version {wanted}: train it again")]
    Version {
        /// What the file says.
        found: u8,
        /// What is read.
        wanted: u8,
    },
    /// It is not as it was written.
    #[error("the model is damaged: checksum {found:08x}, its content has {wanted:08x}")]
    Checksum {
        /// What the file says.
        found: u32,
        /// What its content has.
        wanted: u32,
    },
    /// The checksum holds, the content does not.
    #[error("the model cannot be read: {0}")]
    Content(String),
}

/// The bytes of a model.
///
/// # Errors
/// When the model cannot be written in this form.
pub fn seal<T: Serialize>(kind: Kind, model: &T) -> Result<Vec<u8>, ModelFileError> {
    let content =
        postcard::to_allocvec(model).map_err(|e| ModelFileError::Content(e.to_string()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([kind as u8, kind.version()]);
    bytes.extend(checksum(kind as u8, kind.version(), &content).to_le_bytes());
    bytes.extend(content);
    Ok(bytes)
}

/// The model in these bytes.
///
/// # Errors
/// When they are no model, one of another kind or version, or damaged.
pub fn open<T: DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, ModelFileError> {
    if bytes.len() < HEADER || &bytes[..MAGIC.len()] != MAGIC {
        return Err(ModelFileError::Foreign);
    }
    let (found, version) = (bytes[8], bytes[9]);
    let stored = u32::from_le_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]);
    let wanted = checksum(found, version, &bytes[HEADER..]);
    if stored != wanted {
        return Err(ModelFileError::Checksum { found: stored, wanted });
    }
    if found != kind as u8 {
        return Err(ModelFileError::Kind {
            found: Kind::name(found),
            wanted: Kind::name(kind as u8),
        });
    }
    if version != kind.version() {
        return Err(ModelFileError::Version { found: version, wanted: kind.version() });
    }
    let (model, rest) = postcard::take_from_bytes(&bytes[HEADER..])
        .map_err(|e| ModelFileError::Content(e.to_string()))?;
    if rest.is_empty() {
        Ok(model)
    } else {
        Err(ModelFileError::Content(format!("{} bytes too many", rest.len())))
    }
}

/// What a file says it is, when it is one of this version and as it was written.
///
/// # Errors
/// As [`open`].
pub fn check(bytes: &[u8]) -> Result<Kind, ModelFileError> {
    if bytes.len() < HEADER || &bytes[..MAGIC.len()] != MAGIC {
        return Err(ModelFileError::Foreign);
    }
    let (number, version) = (bytes[8], bytes[9]);
    let found = u32::from_le_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]);
    let wanted = checksum(number, version, &bytes[HEADER..]);
    if found != wanted {
        return Err(ModelFileError::Checksum { found, wanted });
    }
    let kind = match number {
        1 => Kind::Prognosis,
        2 => Kind::Classification,
        _ => {
            return Err(ModelFileError::Kind { found: Kind::name(number), wanted: "a known kind" });
        }
    };
    if version != kind.version() {
        return Err(ModelFileError::Version { found: version, wanted: kind.version() });
    }
    Ok(kind)
}

fn checksum(kind: u8, version: u8, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind, version]);
    hasher.update(content);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed() -> Vec<u8> {
        seal(Kind::Prognosis, &vec![1.5, 2.5]).expect("numbers can be written")
    }

    #[test]
    fn a_model_comes_back_as_it_was() {
        assert_eq!(open::<Vec<f64>>(Kind::Prognosis, &sealed()), Ok(vec![1.5, 2.5]));
    }

    #[test]
    fn every_altered_bit_is_noticed() {
        let bytes = sealed();
        for at in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[at / 8] ^= 1 << (at % 8);
            open::<Vec<f64>>(Kind::Prognosis, &altered).expect_err("it is not what was written");
        }
        for length in 0..bytes.len() {
            open::<Vec<f64>>(Kind::Prognosis, &bytes[..length]).expect_err("its end is missing");
        }
    }

    #[test]
    fn another_kind_or_version_is_named() {
        let error = open::<Vec<f64>>(Kind::Classification, &sealed()).expect_err("another kind");
        assert_eq!(error.to_string(), "a model of remaining life, wanted one of classes");
        let mut newer = sealed();
        newer[9] = 9;
        let sum = checksum(1, 9, &newer[HEADER..]);
        newer[10..14].copy_from_slice(&sum.to_le_bytes());
        let error = open::<Vec<f64>>(Kind::Prognosis, &newer).expect_err("another version");
        assert!(error.to_string().contains("version 9"), "{error}");
    }
}
