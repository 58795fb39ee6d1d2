//! How a Modbus source is reached: the [`Link`] its URL names, and the [`LineOptions`] of everything
//! that goes over it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Secret;

/// Port of Modbus TCP.
pub(super) const MODBUS_PORT: u16 = 502;
/// Port of Modbus TCP Security (MB-TCP-Security v21 §5.1).
pub(super) const MODBUS_TLS_PORT: u16 = 802;

/// What a URL names. Sources with the same link share one connection and wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// `tcp://HOST[:502]`: Modbus TCP.
    Tcp(Host),
    /// `tls://HOST[:802]`: Modbus TCP Security.
    Tls(Host),
    /// `rtu+tcp://HOST[:502][?baud=N]`: RTU frames through a serial server.
    RtuOverTcp {
        /// The serial server.
        host: Host,
        /// Bits per second of the line behind it.
        baud: u32,
    },
    /// `rtu:///dev/ttyUSB0?baud=19200&parity=even&stop=1&data=8`: a serial port of this machine.
    Serial(Serial),
}

/// Name or address, and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Name or address, without the brackets of IPv6.
    pub name: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// A serial port and how its characters look.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial {
    /// The device; `/dev/serial/by-id/…` stays the same when an adapter moves.
    pub path: PathBuf,
    /// Bits per second.
    pub baud: u32,
    /// Parity bit.
    pub parity: Parity,
    /// Data bits: 7 or 8; RTU needs 8.
    pub data_bits: u8,
    /// Stop bits: 1 or 2.
    pub stop_bits: u8,
}

impl Serial {
    /// Bits per second where nothing is said (Modbus over serial line V1.02 §3.3).
    pub const BAUD: u32 = 19_200;

    /// Bits that one character takes on the line, start and stop bits included.
    #[must_use]
    pub const fn bits_per_character(&self) -> u32 {
        let parity = match self.parity {
            Parity::None => 0,
            Parity::Even | Parity::Odd | Parity::Mark | Parity::Space => 1,
        };
        1 + self.data_bits as u32 + parity + self.stop_bits as u32
    }
}

/// What the bit after the data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parity {
    /// There is none.
    None,
    /// Makes the number of ones even.
    Even,
    /// Makes the number of ones odd.
    Odd,
    /// Always one.
    Mark,
    /// Always zero.
    Space,
}

impl Parity {
    /// The word used in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Even => "even",
            Self::Odd => "odd",
            Self::Mark => "mark",
            Self::Space => "space",
        }
    }
}

impl Link {
    /// Where it is: host and port, or the device; errors and health name it so.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(host) | Self::Tls(host) | Self::RtuOverTcp { host, .. } => host.to_string(),
            Self::Serial(port) => port.path.display().to_string(),
        }
    }

    /// Whether frames are RTU's, with a checksum and without a transaction number.
    #[must_use]
    pub const fn is_rtu(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Tls(_) => false,
            Self::RtuOverTcp { .. } | Self::Serial(_) => true,
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Tls(host) => write!(f, "tls://{host}"),
            Self::RtuOverTcp { host, baud } => write!(f, "rtu+tcp://{host}?baud={baud}"),
            Self::Serial(Serial { path, baud, parity, data_bits, stop_bits }) => write!(
                f,
                "rtu://{}?baud={baud}&parity={}&data={data_bits}&stop={stop_bits}",
                path.display(),
                parity.as_str()
            ),
        }
    }
}

/// What holds for everything that goes over one link. Names are Telegraf's where it has them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LineOptions {
    /// Wait after connecting before the first request.
    pub pause_after_connect: Duration,
    /// Wait between an answer and the next request; on RTU at least 3.5 characters in any case.
    pub pause_between_requests: Duration,
    /// Wait instead, if longer, when the next request is for another unit.
    pub pause_on_unit_change: Duration,
    /// Close the connection when nothing is due: for devices that serve a single client.
    pub close_connection_after_gather: bool,
    /// Host and port are our own: the device (a modem behind NAT) connects to us.
    pub listen: bool,
    /// Where the same units are found when the first link fails.
    pub backup: Option<Link>,
    /// The adapter hears what it sends: each request comes back before its answer.
    pub local_echo: bool,
    /// Have the kernel switch the transceiver's direction.
    pub rs485: Option<Rs485>,
    /// Certificates for `tls://`.
    pub certificates: Certificates,
}

/// Certificates of a TLS connection; the same keys as `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// CA certificates (PEM); the system's when absent.
    pub ca: Option<Vec<u8>>,
    /// Client certificate and key (PEM).
    pub identity: Option<(Vec<u8>, Secret)>,
}

/// RS-485 as the kernel does it (`TIOCSRS485`, Documentation/driver-api/serial/serial-rs485.rst).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rs485 {
    /// From raising RTS to the first character; whole milliseconds.
    pub delay_rts_before_send: Duration,
    /// From the last character to dropping RTS; whole milliseconds.
    pub delay_rts_after_send: Duration,
    /// Level of RTS while sending.
    pub rts_high_during_send: bool,
    /// Level of RTS otherwise.
    pub rts_high_after_send: bool,
    /// Whether the receiver stays on while sending.
    pub rx_during_tx: bool,
}
