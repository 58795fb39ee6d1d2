//! What answers on a Modbus bus: unit ids, who they say they are, function codes, readable blocks.
//!
//! Read-only: functions 1 to 4, 17 and 43 are all that is ever sent. Throttled: a pause before each
//! request, so that whoever else polls the bus hardly notices. A unit that keeps silent at its first
//! request is left alone; one that stops answering, or whose answers do not fit, is given up after
//! [`TROUBLE_MAX`] of these in a row.

pub mod blocks;
pub mod identity;

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::time::sleep;

use self::blocks::{Block, Walk};
use self::identity::Identity;
use super::line::{Answer, Line, LineError};
use crate::clock::Clock;
use crate::config::{LineOptions, Link, Table};

/// Requests in a row that a unit may leave without a fitting answer before it is given up.
const TROUBLE_MAX: u32 = 3;
/// Refusals (other than for the address) that begin a table before it is given up: some servers
/// answer so for every unit that is not there.
const REFUSALS_MAX: u32 = 16;
/// Notes kept of a unit.
const NOTES_MAX: usize = 8;
/// How often a busy unit is asked again.
const BUSY_RETRIES: u32 = 5;
/// Pause before a busy unit is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(250);
/// Replies that one device identification may take.
const IDENTITY_REPLIES_MAX: usize = 8;
/// Most registers of a read (application protocol, 6.3), and most bits (6.1).
const REGISTERS_MAX: u16 = 125;
const BITS_MAX: u16 = 2000;

/// What silence costs on a serial line beyond the timeout.
const RTU_QUIET: Duration = Duration::from_millis(200);

/// The tables in the order they are asked: where measurements mostly are, first.
const TABLES: [(Table, u8, &str); 4] = [
    (Table::Holding, 3, "holding"),
    (Table::Input, 4, "input"),
    (Table::Coil, 1, "coil"),
    (Table::Discrete, 2, "discrete"),
];

/// What is scanned, and how.
#[derive(Debug, Clone)]
pub struct Scan {
    /// Where the bus is.
    pub link: Link,
    /// What holds for everything on it.
    pub options: LineOptions,
    /// Unit ids, from and to.
    pub units: Vec<(u8, u8)>,
    /// Addresses, in every table.
    pub registers: RangeInclusive<u16>,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Pause before each request.
    pub pause: Duration,
}

/// A readable block of one table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Readable {
    /// `holding`, `input`, `coil` or `discrete`.
    pub table: &'static str,
    /// Its addresses, zero-based.
    #[serde(flatten)]
    pub block: Block,
    /// Registers come only two at a time.
    pub pairs: bool,
}

/// A unit that answers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Found {
    /// Unit id.
    pub unit: u8,
    /// Who it says it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// Function codes it answers other than by "illegal function".
    pub functions: Vec<u8>,
    /// What can be read.
    pub blocks: Vec<Readable>,
    /// What was odd about it.
    pub notes: Vec<String>,
    /// Shortest time an answer took.
    pub round_trip_ms: f64,
    /// Requests it was sent.
    pub requests: u64,
}

/// How far a scan is, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// The unit that is asked.
    pub unit: u8,
    /// Units done.
    pub done: usize,
    /// Units to ask.
    pub of: usize,
    /// Units that answer so far.
    pub found: usize,
    /// Table and address it is at; `None` while it is asked whether it is there.
    pub at: Option<(&'static str, u16)>,
}

impl Scan {
    /// How many unit ids are asked.
    #[must_use]
    pub fn unit_count(&self) -> usize {
        self.units.iter().map(|(from, to)| usize::from(to - from) + 1).sum()
    }

    /// How long it takes when all units are silent, and at most for each one that answers.
    #[must_use]
    pub fn estimate(&self) -> (Duration, Duration) {
        // A serial line is waited for to become quiet after each silence.
        let quiet = if self.link.is_rtu() { RTU_QUIET } else { Duration::ZERO };
        let silent = self.timeout + self.pause + quiet;
        let units = u32::try_from(self.unit_count()).unwrap_or(u32::MAX);
        let addresses = u32::from(*self.registers.end()) - u32::from(*self.registers.start()) + 1;
        // Every address asked one by one in four tables, and again in pairs in two of them; an
        // answer takes a fraction of its deadline as a rule.
        let answered = self.pause + self.timeout / 10;
        (silent * units, answered * addresses.saturating_mul(6))
    }

    /// Scans. `told` hears how far it is; `found` takes each unit that answers as soon as all is
    /// known of it.
    ///
    /// # Errors
    /// When the line cannot be reached; what a unit does is no error.
    pub async fn run(
        &self,
        clock: &Clock,
        mut told: impl FnMut(Progress),
        mut found: impl FnMut(Found),
    ) -> Result<(), LineError> {
        let mut line = Line::new(&self.link, &self.options);
        let mut random = fastrand::Rng::new();
        let mut progress = Progress { unit: 0, done: 0, of: self.unit_count(), found: 0, at: None };
        for unit in self.units.iter().flat_map(|(from, to)| *from..=*to) {
            progress.unit = unit;
            progress.at = None;
            told(progress);
            let mut talk = Talk {
                scan: self,
                clock,
                line: &mut line,
                random: &mut random,
                trouble: 0,
                found: Found {
                    unit,
                    identity: Identity::default(),
                    functions: Vec::new(),
                    blocks: Vec::new(),
                    notes: Vec::new(),
                    round_trip_ms: f64::INFINITY,
                    requests: 0,
                },
            };
            let answers = talk
                .all(&mut |table, address| {
                    told(Progress { at: Some((table, address)), ..progress });
                })
                .await?;
            if answers {
                progress.found += 1;
                found(talk.found);
            }
            progress.done += 1;
        }
        Ok(())
    }
}

/// What came of a request.
enum Said {
    /// The PDU of the answer; of a read nothing but that all of it came.
    Yes(Vec<u8>),
    /// An exception with this code.
    No(u8),
    /// Nothing that fits.
    Nothing,
}

/// The talk with one unit.
struct Talk<'a> {
    scan: &'a Scan,
    clock: &'a Clock,
    line: &'a mut Line,
    random: &'a mut fastrand::Rng,
    /// Requests in a row without a fitting answer.
    trouble: u32,
    found: Found,
}

impl Talk<'_> {
    /// Finds out everything; whether the unit answers at all.
    async fn all(&mut self, at: &mut impl FnMut(&'static str, u16)) -> Result<bool, LineError> {
        let first = *self.scan.registers.start();
        // The function that most devices have; a refusal is an answer too.
        match self.once(&Ask::Read(Table::Holding, first, 1)).await? {
            Said::Nothing => {
                // Whoever sends what does not fit is there, and is told of.
                return Ok(!self.found.notes.is_empty());
            }
            // The gateway answers for a unit that does not.
            Said::No(0x0a | 0x0b) => return Ok(false),
            Said::Yes(_) | Said::No(_) => {}
        }
        self.identify().await?;
        for (table, function, name) in TABLES {
            if self.is_given_up() {
                break;
            }
            self.table(table, function, name, at).await?;
        }
        if self.is_given_up() {
            self.note("given up: it answered no longer, or not what it was asked");
        }
        self.found.functions.sort_unstable();
        Ok(true)
    }

    fn is_given_up(&self) -> bool {
        self.trouble >= TROUBLE_MAX
    }

    fn note(&mut self, what: &str) {
        let known = self.found.notes.iter().any(|note| note == what);
        if !known && self.found.notes.len() < NOTES_MAX {
            self.found.notes.push(what.to_owned());
        }
    }

    async fn identify(&mut self) -> Result<(), LineError> {
        for level in [2, 1] {
            if self.is_given_up() {
                return Ok(());
            }
            let mut next = 0;
            for _ in 0..IDENTITY_REPLIES_MAX {
                let Said::Yes(reply) =
                    self.once(&Ask::Other(&identity::request(level, next))).await?
                else {
                    break;
                };
                self.has(43);
                match identity::take(&reply, &mut self.found.identity) {
                    Ok(Some(more)) if more > next => next = more,
                    Ok(_) => break,
                    Err(wrong) => {
                        self.note(wrong);
                        break;
                    }
                }
            }
            if !self.found.identity.is_empty() {
                return Ok(());
            }
        }
        if self.is_given_up() {
            return Ok(());
        }
        if let Said::Yes(reply) = self.once(&Ask::Other(&[17])).await? {
            self.has(17);
            if let Some(name) = identity::server_id(&reply) {
                self.found.identity.name = name;
            }
        }
        Ok(())
    }

    fn has(&mut self, function: u8) {
        if !self.found.functions.contains(&function) {
            self.found.functions.push(function);
        }
    }

    async fn table(
        &mut self,
        table: Table,
        function: u8,
        name: &'static str,
        at: &mut impl FnMut(&'static str, u16),
    ) -> Result<(), LineError> {
        let bits = matches!(table, Table::Coil | Table::Discrete);
        let (first, last) = (*self.scan.registers.start(), *self.scan.registers.end());
        let most = if bits { BITS_MAX } else { REGISTERS_MAX };
        // Meters that give out their 32-bit values whole or not at all are asked for pairs.
        let widths: &[u16] = if bits { &[1] } else { &[1, 2] };
        for &width in widths {
            let mut walk = Walk::new(first, last, width, most);
            let mut refusals = 0;
            while let Some((address, count)) = walk.next() {
                at(name, address);
                let readable = match self.once(&Ask::Read(table, address, count)).await? {
                    Said::Yes(_) => {
                        self.has(function);
                        true
                    }
                    Said::No(1) => return Ok(()),
                    Said::No(2 | 3) => {
                        self.has(function);
                        false
                    }
                    Said::No(code) => {
                        self.note(&format!("exception {code} in {name}"));
                        refusals += 1;
                        if refusals >= REFUSALS_MAX && walk.blocks().is_empty() {
                            return Ok(());
                        }
                        false
                    }
                    Said::Nothing => false,
                };
                if self.is_given_up() {
                    break;
                }
                walk.told(readable);
            }
            let readable = walk.blocks().iter();
            self.found.blocks.extend(readable.map(|block| Readable {
                table: name,
                block: *block,
                pairs: width == 2,
            }));
            if !walk.blocks().is_empty() || self.is_given_up() {
                break;
            }
        }
        Ok(())
    }

    /// One question, after the pause; asked again when the unit is busy, or when it had been
    /// answering and now does not.
    async fn once(&mut self, ask: &Ask<'_>) -> Result<Said, LineError> {
        let mut busy = 0;
        loop {
            sleep(self.scan.pause).await;
            // The pause just now was the one that a broken connection deserves.
            if self.line.retry_at().is_some() {
                self.line.connect().await?;
            }
            self.found.requests += 1;
            let began = self.clock.now();
            let (unit, timeout) = (self.found.unit, self.scan.timeout);
            let answer = match ask {
                Ask::Read(table, address, count) => {
                    let read = self.line.read(unit, *table, *address, *count, timeout).await;
                    read.map(|answer| match answer {
                        Answer::Registers(_) | Answer::Bits(_) => Said::Yes(Vec::new()),
                        Answer::Exception(code) => Said::No(code),
                    })
                }
                Ask::Other(pdu) => {
                    let asked = self.line.ask(unit, pdu, timeout).await;
                    asked.map(|pdu| match pdu.as_slice() {
                        [function, code, ..] if function & 0x80 != 0 => Said::No(*code),
                        _ => Said::Yes(pdu),
                    })
                }
            };
            let took = self.clock.since(began).as_secs_f64() * 1e3;
            let error = match answer {
                Ok(said) => {
                    self.found.round_trip_ms = self.found.round_trip_ms.min(took);
                    self.line.answered();
                    if matches!(said, Said::No(5 | 6)) && busy < BUSY_RETRIES {
                        busy += 1;
                        sleep(BUSY_PAUSE).await;
                        continue;
                    }
                    self.trouble = 0;
                    return Ok(said);
                }
                Err(error) if error.before_request() => return Err(error),
                Err(error) => error,
            };
            self.line.drop_connection(self.clock.now().mono, self.random);
            self.trouble += 1;
            let lie = self.lie(&error);
            // A first request that stays without an answer means that nobody is there; a later one
            // may have been lost. What a device does not know it may also just not answer.
            let reads = matches!(ask, Ask::Read(..));
            if self.found.round_trip_ms.is_infinite() || !reads || self.is_given_up() {
                if !reads && !lie && !self.is_given_up() {
                    self.trouble = 0;
                }
                return Ok(Said::Nothing);
            }
        }
    }

    /// Notes an answer that does not fit; whether it was one.
    fn lie(&mut self, error: &LineError) -> bool {
        match error {
            LineError::Mismatch { what, .. } => {
                // The first word is which of them; numbers would make every note a new one.
                let what = what.split(' ').next().unwrap_or_default();
                self.note(&format!("answers what it was not asked: another {what}"));
                true
            }
            LineError::Length { .. } => {
                self.note("sends another number of values than it is asked for");
                true
            }
            LineError::Transport { source, .. } if source.kind() == ErrorKind::InvalidData => {
                self.note(&format!("sends what is no answer: {source}"));
                true
            }
            LineError::Transport { .. }
            | LineError::Timeout { .. }
            | LineError::Connect { .. }
            | LineError::ConnectTimeout { .. }
            | LineError::NotConnected { .. } => false,
        }
    }
}

/// One question to a unit.
enum Ask<'a> {
    /// Read so many values of a table from an address on.
    Read(Table, u16, u16),
    /// Anything else that changes nothing.
    Other(&'a [u8]),
}
