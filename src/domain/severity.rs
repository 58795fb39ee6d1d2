//! How bad something is, and how much an asset matters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How urgently a person is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a look when somebody is there anyway.
    Low,
    /// Within days.
    Medium,
    /// Within the shift.
    High,
    /// Now.
    Critical,
}

impl Severity {
    /// The word used in configuration, messages and topics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "critical" => Ok(Self::Critical),
            other => Err(format!("`{other}` is no severity: low, medium, high or critical")),
        }
    }
}

/// What an asset's failure would mean, from 1 (nobody notices) to 5 (the plant stops).
///
/// Invariant: 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Criticality(u8);

impl Criticality {
    /// The middle, for assets that do not say.
    pub const DEFAULT: Self = Self(3);

    /// Takes a level from 1 to 5; anything else is refused.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level >= 1 && level <= 5 { Some(Self(level)) } else { None }
    }

    /// The level, 1 to 5.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Criticality {
    type Error = String;
    fn try_from(level: u8) -> Result<Self, String> {
        Self::new(level).ok_or_else(|| format!("criticality is {level}, allowed are 1 to 5"))
    }
}

impl From<Criticality> for u8 {
    fn from(criticality: Criticality) -> Self {
        criticality.0
    }
}
