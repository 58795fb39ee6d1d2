//! Identifiers. Names that people wrote are checked once, here; ids of events are UUIDv7.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest identifier a configuration may use, in bytes.
pub const ID_LENGTH_MAX: usize = 64;

/// A name was not of the form `[A-Za-z0-9_-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not an identifier: 1 to 64 characters out of A-Z a-z 0-9 _ - are allowed")]
pub struct BadId {
    /// The text that was refused.
    pub name: String,
}

fn check(name: &str) -> Result<(), BadId> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > ID_LENGTH_MAX || !name.chars().all(legal) {
        return Err(BadId { name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Invariant: matches `[A-Za-z0-9_-]{1,64}`. Cloning is cheap (a shared string).
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`BadId`] when the name has another form than the invariant says.
            pub fn new(name: &str) -> Result<Self, BadId> {
                check(name)?;
                Ok(Self(Arc::from(name)))
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(name: String) -> Result<Self, BadId> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id!(
    /// One maintained item of equipment, such as `P-101`.
    AssetId
);
name_id!(
    /// One named signal of an asset; unique within the asset.
    TagId
);
name_id!(
    /// A person who carries out work orders.
    TechnicianId
);
name_id!(
    /// A configured connection: a Modbus bus, a broker, a recording.
    SourceId
);

/// A tag's full name, written `asset/tag`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TagPath {
    /// The asset the tag belongs to.
    pub asset: AssetId,
    /// The tag within the asset.
    pub tag: TagId,
}

impl fmt::Display for TagPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.asset, self.tag)
    }
}

/// Number of a tag in the store: given once per tag path, kept for ever, never used again.
///
/// Readings carry it instead of names, so that the hot path neither allocates nor hashes text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TagKey(pub u32);

/// Running number of a reading in order of arrival, over restarts; the first one is 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct Arrival(pub u64);

/// Identity of an event, stable for ever: a UUIDv7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// Reads an id in the usual hyphenated form.
    ///
    /// # Errors
    /// [`BadId`] when the text is no UUID.
    pub fn parse(text: &str) -> Result<Self, BadId> {
        Uuid::parse_str(text).map(Self).map_err(|_| BadId { name: text.to_owned() })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_to_their_alphabet() {
        for good in ["P-101", "a", "gw_01", &"x".repeat(ID_LENGTH_MAX)] {
            assert!(AssetId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "P 101", "a/b", "é", "a.b", &"x".repeat(ID_LENGTH_MAX + 1)] {
            assert!(AssetId::new(bad).is_err(), "{bad}");
        }
    }
}
