//! Why there is no answer.

use std::io;
use std::time::Duration;

use super::frame::{FrameError, Query};
use super::wire::WireError;
use crate::config::Table;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Connecting failed.
    #[error("connecting to {address}")]
    Connect {
        /// Host and port, or the device.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Connecting took too long.
    #[error("{address} could not be connected to within {after:?}")]
    ConnectTimeout {
        /// Host and port, or the device.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// There is no connection, and it is too early to try again.
    #[error("{address} is not connected")]
    NotConnected {
        /// Host and port, or the device.
        address: String,
    },
    /// No whole answer within the deadline.
    #[error("unit {unit} at {address} did not answer within {after:?}")]
    Timeout {
        /// Unit id.
        unit: u8,
        /// Host and port, or the device.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke, or what came is no Modbus.
    #[error("reading unit {unit} at {address}")]
    Transport {
        /// Unit id.
        unit: u8,
        /// Host and port, or the device.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// An answer to another request, or from another unit.
    #[error("unit {unit} at {address} gave an answer that does not belong to the request: {what}")]
    Mismatch {
        /// Unit id.
        unit: u8,
        /// Host and port, or the device.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// An answer with another number of values than was asked for.
    #[error("unit {unit} at {address} was asked for {expected} values and sent {got}")]
    Length {
        /// Unit id.
        unit: u8,
        /// Host and port, or the device.
        address: String,
        /// Values asked for.
        expected: usize,
        /// Values in the answer.
        got: usize,
    },
}

impl LineError {
    /// Whether the unit is not to blame: it was never asked.
    #[must_use]
    pub const fn before_request(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::NotConnected { .. } => true,
            Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Mismatch { .. }
            | Self::Length { .. } => false,
        }
    }

    /// Whether trying again may help: always, plants come and go.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        true
    }

    /// The error with all its causes on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match self {
            Self::Connect { source, .. } | Self::Transport { source, .. } => {
                format!("{self}: {source}")
            }
            Self::ConnectTimeout { .. }
            | Self::NotConnected { .. }
            | Self::Timeout { .. }
            | Self::Mismatch { .. }
            | Self::Length { .. } => self.to_string(),
        }
    }
}

impl LineError {
    /// The same failure with its circumstances.
    pub(super) fn new(error: WireError, query: &Query, address: String) -> Self {
        let unit = query.unit;
        let values = |bytes: usize| match query.table {
            Table::Coil | Table::Discrete => bytes * 8,
            Table::Holding | Table::Input => bytes / 2,
        };
        let garbled = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        match error {
            WireError::Timeout(after) => Self::Timeout { unit, address, after },
            WireError::Io(source) => Self::Transport { unit, address, source },
            WireError::Frame(FrameError::Count { got, .. }) => {
                Self::Length { unit, address, expected: usize::from(query.count), got: values(got) }
            }
            WireError::Frame(
                error @ (FrameError::Transaction { .. }
                | FrameError::Unit { .. }
                | FrameError::Function { .. }),
            ) => Self::Mismatch { unit, address, what: error.to_string() },
            WireError::Frame(
                error @ (FrameError::Protocol(_)
                | FrameError::StatedLength(_)
                | FrameError::Checksum
                | FrameError::Trailing(_)),
            ) => Self::Transport { unit, address, source: garbled(&error.to_string()) },
            error @ (WireError::Echoed | WireError::Echo | WireError::Babble) => {
                Self::Transport { unit, address, source: garbled(&error.to_string()) }
            }
        }
    }
}
