//! One Modbus TCP connection: a deadline around every await, and nothing that arrives is believed
//! before it was checked.
//!
//! tokio-modbus has no timeouts and checks the length of an answer only by `debug_assert`; so
//! requests go through `call`, which asserts nothing, and the answer is checked here. After a
//! timeout or an answer that does not fit, the connection is dropped: what still arrives on it
//! would be taken for the answer to the next request.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_modbus::client::{Client, Context, tcp};
use tokio_modbus::prelude::{Request, Response, Slave, SlaveContext};

use crate::backoff::Backoff;
use crate::config::{LineOptions, Link, Table};

/// How long name resolution and connecting may take.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);
/// First pause before connecting again; half of each pause is chance.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Longest pause before connecting again.
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As many registers as were asked for.
    Registers(Vec<u16>),
    /// As many bits as were asked for.
    Bits(Vec<bool>),
    /// The device refused, with this exception code.
    Exception(u8),
}

/// Why there is no answer. After any of these there is no connection either.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Connecting failed.
    #[error("connecting to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Connecting took too long.
    #[error("{address} could not be connected to within {after:?}")]
    ConnectTimeout {
        /// Host and port.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// There is no connection, and it is too early to try again.
    #[error("{address} is not connected")]
    NotConnected {
        /// Host and port.
        address: String,
    },
    /// No whole answer within the deadline.
    #[error("unit {unit} at {address} did not answer within {after:?}")]
    Timeout {
        /// Unit id.
        unit: u8,
        /// Host and port.
        address: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke, or what came is no Modbus.
    #[error("reading unit {unit} at {address}")]
    Transport {
        /// Unit id.
        unit: u8,
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// An answer to another request, or from another unit.
    #[error("unit {unit} at {address} gave an answer that does not belong to the request: {what}")]
    Mismatch {
        /// Unit id.
        unit: u8,
        /// Host and port.
        address: String,
        /// What is wrong with it.
        what: String,
    },
    /// An answer with another number of values than was asked for.
    #[error("unit {unit} at {address} was asked for {expected} values and sent {got}")]
    Length {
        /// Unit id.
        unit: u8,
        /// Host and port.
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

/// A connection that is made and made again as needed. Times are monotonic.
pub struct Line {
    link: Link,
    connection: Option<Context>,
    backoff: Backoff,
    retry_at: Duration,
}

impl Line {
    /// A line to a server; nothing is connected yet.
    #[must_use]
    pub fn new(link: &Link, _options: &LineOptions) -> Self {
        Self {
            link: link.clone(),
            connection: None,
            backoff: Backoff::new(RECONNECT_MIN, RECONNECT_MAX, 0.5),
            retry_at: Duration::ZERO,
        }
    }

    /// Host and port, or the device, as people write them.
    #[must_use]
    pub fn address(&self) -> String {
        self.link.address()
    }

    /// When to connect; `None` while connected.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Duration> {
        match self.connection {
            Some(_) => None,
            None => Some(self.retry_at),
        }
    }

    /// Connects, within [`CONNECT_MAX`].
    ///
    /// # Errors
    /// [`LineError::Connect`] or [`LineError::ConnectTimeout`].
    pub async fn connect(&mut self) -> Result<(), LineError> {
        let Link::Tcp(host) = &self.link else {
            let source = io::Error::from(io::ErrorKind::Unsupported);
            return Err(LineError::Connect { address: self.address(), source });
        };
        let connecting = TcpStream::connect((host.name.as_str(), host.port));
        let stream = match timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => {
                return Err(LineError::Connect { address: self.address(), source });
            }
            Err(_) => {
                let address = self.address();
                return Err(LineError::ConnectTimeout { address, after: CONNECT_MAX });
            }
        };
        // Requests are small and each waits for its answer; should it fail they are only slower.
        stream.set_nodelay(true).ok();
        self.connection = Some(tcp::attach(stream));
        Ok(())
    }

    /// Gives the connection up; the next one is made after a pause that doubles until
    /// [`Self::answered`].
    pub fn drop_connection(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        self.connection = None;
        self.retry_at = now + self.backoff.next(rng);
    }

    /// A good answer came: the next pause is short again. (That a connection could be made proves
    /// nothing: some gateways accept and then keep silent.)
    pub const fn answered(&mut self) {
        self.backoff.reset();
    }

    /// Reads `count` values from `address` on, within `deadline` altogether.
    ///
    /// # Errors
    /// [`LineError`]; the caller then drops the connection ([`Self::drop_connection`]).
    pub async fn read(
        &mut self,
        unit: u8,
        table: Table,
        address: u16,
        count: u16,
        deadline: Duration,
    ) -> Result<Answer, LineError> {
        let server = self.address();
        let Some(connection) = self.connection.as_mut() else {
            return Err(LineError::NotConnected { address: server });
        };
        connection.set_slave(Slave(unit));
        let request = match table {
            Table::Coil => Request::ReadCoils(address, count),
            Table::Discrete => Request::ReadDiscreteInputs(address, count),
            Table::Holding => Request::ReadHoldingRegisters(address, count),
            Table::Input => Request::ReadInputRegisters(address, count),
        };
        // One deadline for the whole exchange: a device that sends a byte now and then gains
        // nothing by it.
        match timeout(deadline, connection.call(request)).await {
            Err(_) => Err(LineError::Timeout { unit, address: server, after: deadline }),
            Ok(Err(tokio_modbus::Error::Transport(source))) => {
                Err(LineError::Transport { unit, address: server, source: eof_named(source) })
            }
            Ok(Err(tokio_modbus::Error::Protocol(mismatch))) => {
                let what = mismatch_kind(&mismatch).to_owned();
                Err(LineError::Mismatch { unit, address: server, what })
            }
            Ok(Ok(Err(exception))) => Ok(Answer::Exception(exception.into())),
            Ok(Ok(Ok(response))) => checked(table, count, response).map_err(|wrong| match wrong {
                Wrong::Length(got) => {
                    LineError::Length { unit, address: server, expected: usize::from(count), got }
                }
                Wrong::Function => LineError::Mismatch {
                    unit,
                    address: server,
                    what: "another function".to_owned(),
                },
            }),
        }
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("address", &self.address())
            .field("connected", &self.connection.is_some())
            .finish_non_exhaustive()
    }
}

/// tokio-modbus reports a closed connection as whatever error the thread saw last.
fn eof_named(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(0) {
        io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")
    } else {
        error
    }
}

const fn mismatch_kind(mismatch: &tokio_modbus::ProtocolError) -> &'static str {
    match mismatch {
        tokio_modbus::ProtocolError::HeaderMismatch { .. } => "another transaction or unit",
        tokio_modbus::ProtocolError::FunctionCodeMismatch { .. } => "another function",
    }
}

enum Wrong {
    Length(usize),
    Function,
}

fn checked(table: Table, count: u16, response: Response) -> Result<Answer, Wrong> {
    let expected = usize::from(count);
    match (table, response) {
        (Table::Holding, Response::ReadHoldingRegisters(words))
        | (Table::Input, Response::ReadInputRegisters(words)) => {
            if words.len() == expected {
                Ok(Answer::Registers(words))
            } else {
                Err(Wrong::Length(words.len()))
            }
        }
        (Table::Coil, Response::ReadCoils(mut bits))
        | (Table::Discrete, Response::ReadDiscreteInputs(mut bits)) => {
            // Bits come in whole bytes.
            if bits.len() == expected.next_multiple_of(8) {
                bits.truncate(expected);
                Ok(Answer::Bits(bits))
            } else {
                Err(Wrong::Length(bits.len()))
            }
        }
        _ => Err(Wrong::Function),
    }
}
