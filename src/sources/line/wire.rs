//! I/O: one exchange at a time over one open stream, whatever it is made of.
//!
//! Every exchange has one deadline for all of it: a device that sends a byte now and then gains
//! nothing. What to do after a failure depends on the framing:
//!
//! - On TCP the connection is given up: an answer still under way would come on it.
//! - On RTU there is nothing to give up. The line is *drained*: read and thrown away until it has
//!   been silent for 200 ms. An answer that is later than that and belongs to another request of
//!   the same shape could still be mistaken, as RTU carries no address back; therefore such a
//!   request, and only such a one, waits out a longer silence ([`Debt`]). The same request again
//!   needs no such wait: a late answer to it is an answer to it.
//!
//! Before every RTU request what came unasked is thrown away in the same manner.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::cost::Timing;
use super::frame::{self, Body, FRAME_MAX, FrameError, Query};
use super::{Answer, Counters};
use crate::config::{LineOptions, Table};

/// Bytes that are held of what a device sends; an echo and an answer fit.
const BUFFER: usize = 2 * FRAME_MAX;
/// Longest time that a line is waited for to become silent; one that babbles is faulty.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// How long an answer that did not come is reckoned with, beyond the time it was given.
const DEBT_MIN: Duration = Duration::from_secs(1);
/// Answers that are reckoned with at a time; the one due first makes room.
const DEBTS_MAX: usize = 8;

/// What bytes go through: a socket, TLS over one, a serial port, or memory.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How frames look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// With a header.
    Tcp,
    /// With a checksum.
    Rtu,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// Not a whole answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The stream broke.
    #[error(transparent)]
    Io(io::Error),
    /// What came is not the answer.
    #[error(transparent)]
    Frame(FrameError),
    /// The request came back and nobody said that it would.
    #[error("the request itself came back: does the adapter echo? then set local_echo")]
    Echoed,
    /// Something else came back: two talked at a time, or there is no echo.
    #[error("the echo is not what was sent")]
    Echo,
    /// The line does not become silent.
    #[error("bytes keep coming that nobody asked for")]
    Babble,
}

/// An answer that may still come.
#[derive(Debug, Clone, Copy)]
struct Debt {
    query: Query,
    until: Instant,
}

/// An open stream and what must be observed on it.
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    framing: Framing,
    timing: Timing,
    pause: Duration,
    pause_on_unit_change: Duration,
    echo: bool,
    transaction: u16,
    /// When the last exchange ended.
    idle_since: Instant,
    last_unit: Option<u8>,
    /// There may be bytes of the last exchange on the line.
    dirty: bool,
    debts: Vec<Debt>,
    buffer: [u8; BUFFER],
}

impl Wire {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        framing: Framing,
        timing: Timing,
        options: &LineOptions,
    ) -> Self {
        Self {
            stream,
            framing,
            timing,
            pause: options.pause_between_requests,
            pause_on_unit_change: options.pause_on_unit_change,
            echo: options.local_echo && framing == Framing::Rtu,
            transaction: 0,
            idle_since: Instant::now(),
            last_unit: None,
            // What waits in a port that was just opened is nobody's answer.
            dirty: framing == Framing::Rtu,
            debts: Vec::new(),
            buffer: [0; BUFFER],
        }
    }

    pub(super) const fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the other end has gone, or has sent what nobody asked for, since the last exchange.
    pub(super) fn is_stale(&mut self) -> bool {
        self.stream.read(&mut [0]).now_or_never().is_some()
    }

    /// Asks and waits for the answer: `patience` for the device, and on a serial line the time that
    /// the characters take.
    pub(super) async fn exchange(
        &mut self,
        query: &Query,
        patience: Duration,
        counters: &mut Counters,
    ) -> Result<Answer, WireError> {
        match self.framing {
            Framing::Tcp => {
                if !self.pause.max(self.pause_on_unit_change).is_zero() {
                    sleep_until(self.ready_at(query)).await;
                }
            }
            Framing::Rtu => self.settle(query, counters).await?,
        }
        let characters = self.timing.wire(query);
        let echo = if self.echo { self.timing.character * 8 } else { Duration::ZERO };
        let given = patience + characters + echo;
        let began = Instant::now();
        let done = timeout_at(began + given, self.ask(query)).await;
        self.idle_since = Instant::now();
        counters.exchanges += 1;
        counters.busy += self.idle_since - began;
        self.last_unit = Some(query.unit);
        let done = done.unwrap_or(Err(WireError::Timeout(given)));
        match &done {
            // It may have been the answer to the try before; then this one's is still to come.
            Ok(_) if self.owes(query) => self.owe(query, given),
            Ok(_) => {}
            Err(error) => {
                self.dirty = true;
                // What came instead may have been an older answer; then this one's is under way.
                let late = matches!(error, WireError::Timeout(_));
                if late || self.debts.iter().any(|debt| debt.query.looks_like(query)) {
                    self.owe(query, given);
                }
                match error {
                    WireError::Timeout(_) => counters.timeouts += 1,
                    WireError::Frame(FrameError::Checksum) => counters.checksums += 1,
                    WireError::Frame(_) | WireError::Echoed | WireError::Echo => {
                        counters.mismatches += 1;
                    }
                    WireError::Io(_) | WireError::Babble => {}
                }
            }
        }
        done
    }

    /// Asks something that is no read of a table, and waits for the PDU of the answer. An answer that
    /// comes too late is of another function than any read, and so is never mistaken for one.
    pub(super) async fn exchange_other(
        &mut self,
        unit: u8,
        pdu: &[u8],
        patience: Duration,
        counters: &mut Counters,
    ) -> Result<Vec<u8>, WireError> {
        // Pauses and draining are those of the longest read.
        let like = Query { unit, table: Table::Holding, address: 0, count: 125 };
        match self.framing {
            Framing::Tcp => sleep_until(self.ready_at(&like)).await,
            Framing::Rtu => self.settle(&like, counters).await?,
        }
        let given = patience + self.timing.wire(&like);
        let began = Instant::now();
        let done = timeout_at(began + given, self.ask_other(unit, pdu)).await;
        self.idle_since = Instant::now();
        counters.exchanges += 1;
        counters.busy += self.idle_since - began;
        self.last_unit = Some(unit);
        let done = done.unwrap_or(Err(WireError::Timeout(given)));
        match &done {
            Ok(_) => {}
            Err(error) => {
                self.dirty = true;
                counters.timeouts += u64::from(matches!(error, WireError::Timeout(_)));
            }
        }
        done
    }

    async fn ask_other(&mut self, unit: u8, pdu: &[u8]) -> Result<Vec<u8>, WireError> {
        self.transaction = self.transaction.wrapping_add(1);
        let (transaction, function) = (self.transaction, pdu[0]);
        let tcp = self.framing == Framing::Tcp;
        let request = frame::other_request(unit, pdu, tcp.then_some(transaction));
        self.send(&request).await?;
        let mut held = if self.echo { self.hear(&request).await? } else { 0 };
        loop {
            let bytes = &self.buffer[..held];
            let answer = match self.framing {
                Framing::Tcp => frame::other_tcp(bytes, transaction, unit, function),
                Framing::Rtu => frame::other_rtu(bytes, unit, function),
            };
            if let Some(answer) = answer.map_err(WireError::Frame)? {
                return Ok(answer.to_vec());
            }
            if held == self.buffer.len() {
                return Err(WireError::Babble);
            }
            held += length(self.stream.read(&mut self.buffer[held..]).await)?;
        }
    }

    /// When the next request may be sent.
    fn ready_at(&self, query: &Query) -> Instant {
        let changed = self.last_unit.is_some_and(|unit| unit != query.unit);
        let change = if changed { self.pause_on_unit_change } else { Duration::ZERO };
        // Before the first request `pause_after_connect` was waited for.
        let pause = if self.last_unit.is_some() { self.pause.max(change) } else { Duration::ZERO };
        self.idle_since + self.timing.silence.max(pause)
    }

    /// Waits until an RTU line is ours: silent, and owing no answer that would be mistaken.
    async fn settle(&mut self, query: &Query, counters: &mut Counters) -> Result<(), WireError> {
        if self.dirty {
            self.drain(counters).await?;
            self.dirty = false;
        }
        let taken = |debt: &Debt| debt.query.looks_like(query) && debt.query != *query;
        let owed = self.debts.iter().filter(|debt| taken(debt)).map(|debt| debt.until).max();
        if let Some(until) = owed {
            self.listen_until(until, counters).await?;
            self.debts.retain(|debt| !taken(debt));
        }
        self.listen_until(self.ready_at(query), counters).await
    }

    /// Whether a late answer to this request is reckoned with.
    fn owes(&self, query: &Query) -> bool {
        self.debts.iter().any(|debt| debt.query == *query && debt.until > self.idle_since)
    }

    /// Reckons with an answer to this request that has yet to come.
    fn owe(&mut self, query: &Query, given: Duration) {
        if self.framing == Framing::Tcp {
            return;
        }
        let now = self.idle_since;
        self.debts.retain(|debt| debt.query != *query && debt.until > now);
        if self.debts.len() == DEBTS_MAX {
            let first = (0..DEBTS_MAX).min_by_key(|place| self.debts[*place].until);
            self.debts.swap_remove(first.unwrap_or(0));
        }
        self.debts.push(Debt { query: *query, until: now + given.max(DEBT_MIN) });
    }

    /// Waits, and drains the line if something comes meanwhile.
    async fn listen_until(
        &mut self,
        until: Instant,
        counters: &mut Counters,
    ) -> Result<(), WireError> {
        while let Ok(read) = timeout_at(until, self.stream.read(&mut self.buffer)).await {
            counters.stray_bytes += count(read)?;
            self.dirty = true;
            self.drain(counters).await?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Throws away what comes until nothing has come for a while.
    async fn drain(&mut self, counters: &mut Counters) -> Result<(), WireError> {
        let give_up = Instant::now() + DRAIN_MAX;
        loop {
            let silent = Instant::now() + self.timing.drain;
            match timeout_at(silent, self.stream.read(&mut self.buffer)).await {
                Err(_) => return Ok(()),
                Ok(read) => counters.stray_bytes += count(read)?,
            }
            self.idle_since = Instant::now();
            if self.idle_since > give_up {
                return Err(WireError::Babble);
            }
        }
    }

    async fn ask(&mut self, query: &Query) -> Result<Answer, WireError> {
        match self.framing {
            Framing::Tcp => {
                self.transaction = self.transaction.wrapping_add(1);
                let transaction = self.transaction;
                self.send(&query.tcp_request(transaction)).await?;
                self.receive(query, 0, |bytes| frame::tcp(bytes, transaction, query)).await
            }
            Framing::Rtu => {
                let request = query.rtu_request();
                self.send(&request).await?;
                let echoed = if self.echo { self.hear(&request).await? } else { 0 };
                let answer = self.receive(query, echoed, |bytes| frame::rtu(bytes, query)).await;
                // What is read as the count is, in an echo, the first half of the address.
                match answer {
                    Err(WireError::Frame(_)) if self.buffer[..8] == request => {
                        Err(WireError::Echoed)
                    }
                    answer => answer,
                }
            }
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), WireError> {
        self.buffer[..8].fill(0);
        self.stream.write_all(request).await.map_err(WireError::Io)?;
        self.stream.flush().await.map_err(WireError::Io)
    }

    /// Takes the echo of a request off the line. Returns how many bytes beyond it came along; they
    /// are at the start of the buffer.
    async fn hear(&mut self, request: &[u8]) -> Result<usize, WireError> {
        let mut held = 0;
        while held < request.len() {
            held += length(self.stream.read(&mut self.buffer[held..]).await)?;
            let common = held.min(request.len());
            if self.buffer[..common] != request[..common] {
                return Err(WireError::Echo);
            }
        }
        self.buffer.copy_within(request.len()..held, 0);
        Ok(held - request.len())
    }

    /// Reads until there is a whole answer or an error; `held` bytes are there already.
    async fn receive(
        &mut self,
        query: &Query,
        mut held: usize,
        parse: impl for<'b> Fn(&'b [u8]) -> Result<Option<Body<'b>>, FrameError>,
    ) -> Result<Answer, WireError> {
        loop {
            match parse(&self.buffer[..held]) {
                Ok(Some(body)) => return Ok(answer(query, body)),
                Ok(None) => {}
                Err(error) => return Err(WireError::Frame(error)),
            }
            // The buffer is longer than any answer: it cannot be full of a part of one.
            held += length(self.stream.read(&mut self.buffer[held..]).await)?;
        }
    }
}

/// The number of bytes read; none at all is the end.
fn length(read: io::Result<usize>) -> Result<usize, WireError> {
    match read {
        Ok(0) => Err(WireError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed",
        ))),
        Ok(length) => Ok(length),
        Err(error) => Err(WireError::Io(error)),
    }
}

fn count(read: io::Result<usize>) -> Result<u64, WireError> {
    length(read).map(|length| length as u64)
}

fn answer(query: &Query, body: Body<'_>) -> Answer {
    match (query.table, body) {
        (_, Body::Exception(code)) => Answer::Exception(code),
        (Table::Holding | Table::Input, Body::Values(bytes)) => {
            let words = bytes.as_chunks::<2>().0.iter();
            Answer::Registers(words.map(|pair| u16::from_be_bytes(*pair)).collect())
        }
        (Table::Coil | Table::Discrete, Body::Values(bytes)) => {
            let bit = |place: usize| bytes[place / 8] >> (place % 8) & 1 == 1;
            Answer::Bits((0..usize::from(query.count)).map(bit).collect())
        }
    }
}
