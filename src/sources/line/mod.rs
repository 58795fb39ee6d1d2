//! One line to devices: connected as its link says, a deadline around every await, and nothing that
//! arrives is believed before it was checked.
//!
//! [`frame`] knows what is an answer, [`cost`] how long things take; both are pure. `wire` makes one
//! exchange over an open stream, `dial` and `serial` open streams, and [`Line`] here decides when to
//! open one again. At most half a kilobyte of what a device sends is held at any time.

mod cost;
mod dial;
mod error;
pub mod frame;
mod serial;
mod wire;

use std::io;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::backoff::Backoff;
use crate::config::{LineOptions, Link, Table};

pub use cost::{Timing, cost};
pub use error::LineError;
pub use wire::{Framing, Stream};

use dial::Dialer;
use frame::Query;
use wire::{Wire, WireError};

/// How long name resolution, connecting and greeting may take.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);
/// First pause before connecting again; half of each pause is chance.
const RECONNECT_MIN: Duration = Duration::from_millis(100);
/// Longest pause before connecting again.
const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// Longest pause before a serial port is opened again: it costs nothing, and somebody stands beside
/// the cabinet with the plug in hand.
const REOPEN_MAX: Duration = Duration::from_secs(2);
/// Pause between two looks for a device that connects to us.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// Exchanges without a single answer after which RTU over TCP is connected again: what is at the
/// other end of a dead connection never says so.
const SILENT_MAX: u32 = 3;

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

/// What has happened on a line since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests sent.
    pub exchanges: u64,
    /// From sending to the answer or the end of waiting for it, summed.
    pub busy: Duration,
    /// Requests without a whole answer in time.
    pub timeouts: u64,
    /// Answers whose checksum was wrong.
    pub checksums: u64,
    /// Answers that did not belong to the request.
    pub mismatches: u64,
    /// Bytes that came unasked and were thrown away.
    pub stray_bytes: u64,
    /// Connections made, openings of a port.
    pub connections: u64,
}

/// A connection that is made and made again as needed. Times are monotonic.
pub struct Line {
    dialer: Dialer,
    options: LineOptions,
    address: String,
    timing: Timing,
    wire: Option<Wire>,
    /// Whether the wire is of no use any more.
    broken: bool,
    /// It was closed because nothing was due; the next request opens it.
    resting: bool,
    /// A good answer came over this wire.
    proven: bool,
    /// Exchanges since the last answer.
    silent: u32,
    backoff: Backoff,
    retry_at: Duration,
    counters: Counters,
}

impl Line {
    /// A line over a link; nothing is connected yet.
    #[must_use]
    pub fn new(link: &Link, options: &LineOptions) -> Self {
        let longest = if matches!(link, Link::Serial(_)) { REOPEN_MAX } else { RECONNECT_MAX };
        Self {
            dialer: Dialer::new(link, options),
            options: options.clone(),
            address: link.address(),
            timing: Timing::of(link),
            wire: None,
            broken: false,
            resting: false,
            proven: false,
            silent: 0,
            backoff: Backoff::new(RECONNECT_MIN, longest, 0.5),
            retry_at: Duration::ZERO,
            counters: Counters::default(),
        }
    }

    /// A line over streams that `make` makes: memory instead of a wire, in tests and simulations.
    #[must_use]
    pub fn over(
        framing: Framing,
        timing: Timing,
        options: &LineOptions,
        make: impl FnMut() -> io::Result<Box<dyn Stream>> + Send + 'static,
    ) -> Self {
        let nowhere = crate::config::Host { name: "memory".to_owned(), port: 0 };
        let mut line = Self::new(&Link::Tcp(nowhere), options);
        line.dialer = Dialer::Given(framing, Box::new(make));
        line.timing = timing;
        line
    }

    /// Host and port, or the device, as people write them; the backup's while that is in use.
    #[must_use]
    pub fn address(&self) -> String {
        self.dialer.link().map_or_else(|| self.address.clone(), Link::address)
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// When to connect; `None` while connected.
    #[must_use]
    pub const fn retry_at(&self) -> Option<Duration> {
        if self.wire.is_some() || self.resting { None } else { Some(self.retry_at) }
    }

    /// Connects, within [`CONNECT_MAX`] and the configured pause after it.
    ///
    /// # Errors
    /// [`LineError::Connect`] or [`LineError::ConnectTimeout`].
    pub async fn connect(&mut self) -> Result<(), LineError> {
        self.wire = None;
        let address = self.address();
        match timeout(CONNECT_MAX, self.dialer.dial(&self.options)).await {
            Ok(Ok((stream, framing))) => {
                self.attach(stream, framing);
                sleep(self.options.pause_after_connect).await;
                Ok(())
            }
            Ok(Err(source)) => Err(LineError::Connect { address, source }),
            Err(_) => Err(LineError::ConnectTimeout { address, after: CONNECT_MAX }),
        }
    }

    fn attach(&mut self, stream: Box<dyn Stream>, framing: Framing) {
        if let Some(link) = self.dialer.link() {
            self.timing = Timing::of(link);
        }
        self.wire = Some(Wire::new(stream, framing, self.timing, &self.options));
        (self.broken, self.resting, self.proven, self.silent) = (false, false, false, 0);
        self.counters.connections += 1;
    }

    /// Draws the conclusions from a failure. A connection that is of no use any more is given up;
    /// the next one is made after a pause that doubles until [`Self::answered`]. A serial line that
    /// was merely silent, or disturbed, stays open: the next request waits until it is quiet.
    pub fn drop_connection(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        if self.wire.is_some() && !self.broken {
            return;
        }
        self.wire = None;
        if !self.proven {
            self.dialer.turn_away();
        }
        (self.proven, self.resting) = (false, false);
        let pause = match self.dialer {
            Dialer::Listen(..) => LISTEN_PAUSE,
            Dialer::Links(..) | Dialer::Given(..) => self.backoff.next(rng),
        };
        self.retry_at = now + pause;
    }

    /// A good answer came: the next pause is short again. (That a connection could be made proves
    /// nothing: some gateways accept and then keep silent.)
    pub const fn answered(&mut self) {
        self.backoff.reset();
    }

    /// Nothing is due for now: the connection is closed if that is wanted. The next request opens it
    /// again.
    pub fn rest(&mut self) {
        if self.options.close_connection_after_gather && self.wire.take().is_some() {
            self.resting = true;
        }
    }

    /// Reads `count` values from `address` on. `deadline` is for all that the device does; on a
    /// serial line the time that the characters take is added.
    ///
    /// # Errors
    /// [`LineError`]; the caller then calls [`Self::drop_connection`].
    pub async fn read(
        &mut self,
        unit: u8,
        table: Table,
        address: u16,
        count: u16,
        deadline: Duration,
    ) -> Result<Answer, LineError> {
        self.prepare().await?;
        let query = Query { unit, table, address, count };
        let Some(wire) = self.wire.as_mut() else {
            return Err(LineError::NotConnected { address: self.address() });
        };
        match wire.exchange(&query, deadline, &mut self.counters).await {
            Ok(answer) => {
                (self.proven, self.silent) = (true, 0);
                Ok(answer)
            }
            Err(error) => {
                self.silent += 1;
                self.broken = match (&error, wire.framing()) {
                    (WireError::Io(_), _) | (_, Framing::Tcp) => true,
                    (_, Framing::Rtu) => {
                        // A port of this machine tells when it is gone, a connection may not.
                        self.silent >= SILENT_MAX
                            && !matches!(self.dialer.link(), Some(Link::Serial(_)))
                    }
                };
                Err(LineError::new(error, &query, self.address()))
            }
        }
    }

    /// Asks a unit something that is no read of a table, and returns the PDU of the answer, exceptions
    /// included. Only for requests that change nothing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn ask(
        &mut self,
        unit: u8,
        pdu: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, LineError> {
        self.prepare().await?;
        let Some(wire) = self.wire.as_mut() else {
            return Err(LineError::NotConnected { address: self.address() });
        };
        match wire.exchange_other(unit, pdu, deadline, &mut self.counters).await {
            Ok(answer) => {
                (self.proven, self.silent) = (true, 0);
                Ok(answer)
            }
            Err(error) => {
                self.broken = matches!(error, WireError::Io(_)) || wire.framing() == Framing::Tcp;
                let query = Query { unit, table: Table::Holding, address: 0, count: 0 };
                Err(LineError::new(error, &query, self.address()))
            }
        }
    }

    /// Sees to it that the connection is one that can be believed in, as far as that can be seen
    /// without asking.
    async fn prepare(&mut self) -> Result<(), LineError> {
        if self.resting {
            return self.connect().await;
        }
        if let Some((stream, framing)) = self.dialer.redialled() {
            self.attach(stream, framing);
            sleep(self.options.pause_after_connect).await;
        }
        // Many devices close what was not used for a while. One that has answered over this very
        // connection deserves a new one at once; others have their pauses.
        let proven = self.proven && matches!(self.dialer, Dialer::Links(..) | Dialer::Given(..));
        if let Some(wire) = self.wire.as_mut()
            && proven
            && wire.framing() == Framing::Tcp
            && wire.is_stale()
        {
            return self.connect().await;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("address", &self.address())
            .field("connected", &self.wire.is_some())
            .finish_non_exhaustive()
    }
}
