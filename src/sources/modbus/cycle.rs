//! One poll of one class, a request at a time, so that another poll can go in between.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Table;
use crate::domain::reading::{Quality, RawReading, RawValue, Reason};
use crate::domain::time::Now;
use crate::port::EngineStopped;
use crate::sources::breaker::{Permit, Then, handling};
use crate::sources::line::{Answer, LineError};
use crate::sources::poll_class::{ClassPoint, PlannedRead, PollClass, table_name};
use crate::sources::schedule::Rank;
use crate::sources::{SourceError, long_read};

use super::{Bus, Kept, RECONNECT_WAIT_MAX, Source};

/// Requests that may be spent in one cycle on finding what a device refuses.
const SPLITS_PER_CYCLE_MAX: u32 = 32;

/// What one cycle came to so far.
#[derive(Debug, Default)]
pub(super) struct Cycle {
    /// The rest of the plan; true for a refused point whose time has come.
    todo: VecDeque<(PlannedRead, bool)>,
    /// The request of the plan under way, what is left of it, and what was answered of it.
    whole: Option<(PlannedRead, bool)>,
    stack: Vec<PlannedRead>,
    parts: Vec<PlannedRead>,
    blameless: bool,
    /// One request only, as long as it is not answered.
    probe: bool,
    busy_left: u32,
    splits: u32,
    stop: bool,
    failed: Vec<RawReading>,
    /// When the last answer with values came.
    last_answer: Option<Duration>,
    pub(super) good: u32,
    /// Failures that the breaker counts.
    pub(super) faults: u32,
    pub(super) lost: bool,
    /// A gateway answered for the unit that it does not.
    pub(super) silent: bool,
    pub(super) device_says_so: bool,
    pub(super) error: Option<String>,
}

/// What one request came to.
pub(super) enum Read {
    /// Values came.
    Good(Answer, Now),
    /// The device refuses the addresses.
    Refused,
    /// No values.
    Failed { reason: Reason, then: Then, counts: bool },
    /// No answer.
    Lost,
}

/// How a cycle goes on.
enum Go {
    On,
    /// The same request again, then.
    Later(Duration),
    Done,
}

impl Bus {
    /// The next request of a poll, its beginning and its end included.
    pub(super) async fn step(&mut self, poll: usize) -> Result<(), SourceError> {
        let mut cycle = match self.cycles[poll].take() {
            Some(cycle) => cycle,
            None => match self.begin(poll).await? {
                Some(cycle) => cycle,
                None => return Ok(()),
            },
        };
        match self.advance(poll, &mut cycle).await? {
            Go::On => self.cycles[poll] = Some(cycle),
            Go::Later(at) => {
                self.schedule.park(poll, at);
                self.cycles[poll] = Some(cycle);
                self.hand_over().await?;
            }
            Go::Done => self.finish(poll, cycle).await?,
        }
        Ok(())
    }

    /// Begins a poll, unless its unit is to be left alone.
    async fn begin(&mut self, poll: usize) -> Result<Option<Cycle>, SourceError> {
        let now = self.clock.now();
        let (place, source) = (self.classes[poll].unit, self.classes[poll].source);
        let permit = self.units[place].breaker.permit(now.mono);
        let dear = self.units[place].silent && self.units.iter().any(|unit| unit.live);
        let wait = match permit {
            Permit::Pause(until) => {
                self.schedule.postpone(poll, until);
                true
            }
            // Where nobody answers there is nobody whose time would be lost.
            Permit::Poll | Permit::Probe => match self.budget.wait(now.mono).filter(|_| dear) {
                Some(until) => {
                    // Its turn stays where it is, so that of many the one goes first that has
                    // waited longest.
                    self.schedule.park(poll, until);
                    true
                }
                None => false,
            },
        };
        if wait {
            // Not asked, but not forgotten: once per pause its tags say that nothing comes.
            let says = self.units[place].device_says_so;
            let reason = if says { Reason::Device } else { Reason::Comm };
            let failed = all_failed(&self.classes[poll], now, reason);
            self.hold_failures(source, failed).await?;
            self.hand_over().await?;
            return Ok(None);
        }
        let mut cycle = Cycle {
            probe: permit == Permit::Probe,
            busy_left: self.sources[source].busy_retries,
            ..Cycle::default()
        };
        let class = &mut self.classes[poll];
        class.forget_bounds(now.mono);
        cycle.todo = class.plan().iter().map(|read| (read.clone(), false)).collect();
        // Refused points say so in every cycle; those whose time has come are tried again.
        let retries = class.retries(now.mono);
        let tried: Vec<usize> =
            retries.iter().flat_map(|read| read.block.points.iter().copied()).collect();
        let refused: Vec<usize> = class.refused().filter(|point| !tried.contains(point)).collect();
        cycle.todo.extend(retries.into_iter().map(|read| (read, true)));
        self.fail(poll, &refused, Reason::Config, &mut cycle);
        Ok(Some(cycle))
    }

    /// One request, and what follows from its answer.
    async fn advance(&mut self, poll: usize, cycle: &mut Cycle) -> Result<Go, EngineStopped> {
        let part = match cycle.stack.pop() {
            Some(part) => part,
            None => match cycle.todo.pop_front() {
                Some((read, retry)) => {
                    cycle.whole = Some((read.clone(), retry));
                    cycle.blameless = true;
                    read
                }
                None => return Ok(Go::Done),
            },
        };
        let retry = cycle.whole.as_ref().is_some_and(|(_, retry)| *retry);
        match self.request_meanwhile(poll, &part, cycle).await? {
            Read::Good(answer, arrived) => {
                cycle.good += 1;
                cycle.last_answer = Some(arrived.mono);
                self.deliver(poll, &part, &answer, arrived).await?;
                if retry {
                    for &point in part.block.points.iter() {
                        self.classes[poll].accept(point);
                        self.report_refusal(poll, point, false).await?;
                    }
                }
                cycle.parts.push(part);
            }
            Read::Refused => match self.classes[poll].halves(&part) {
                Some((left, right)) if cycle.splits < SPLITS_PER_CYCLE_MAX => {
                    cycle.splits += 1;
                    cycle.stack.extend([right, left]);
                }
                Some(_) => {
                    // The next cycle goes on from what was found in this one.
                    cycle.blameless = false;
                    self.fail(poll, &part.block.points, Reason::Config, cycle);
                }
                None => {
                    cycle.blameless = false;
                    self.refuse(poll, &part, cycle).await?;
                }
            },
            Read::Failed { then: Then::AskLater, .. } if cycle.busy_left > 0 => {
                cycle.busy_left -= 1;
                cycle.stack.push(part);
                let source = self.classes[poll].source;
                return Ok(Go::Later(self.clock.now().mono + self.sources[source].busy_wait));
            }
            Read::Failed { reason, then, counts } => {
                cycle.blameless = false;
                self.fail(poll, &part.block.points, reason, cycle);
                cycle.faults += u32::from(counts);
                cycle.device_says_so |= matches!(reason, Reason::Device | Reason::Stale);
                cycle.silent |= then == Then::LeaveUnit;
                cycle.stop |= then == Then::LeaveUnit;
            }
            Read::Lost => {
                cycle.blameless = false;
                self.fail(poll, &part.block.points, Reason::Comm, cycle);
                cycle.faults += 1;
                (cycle.lost, cycle.stop) = (true, true);
            }
        }
        if cycle.stack.is_empty() {
            let parts = std::mem::take(&mut cycle.parts);
            if let Some((whole, _)) = cycle.whole.take()
                && cycle.blameless
                && parts.len() > 1
            {
                let now = self.clock.now().mono;
                self.classes[poll].learn_from_parts(&whole, &parts, now);
            }
        }
        cycle.stop |= cycle.probe && cycle.good == 0 && cycle.faults > 0;
        if cycle.stop {
            self.give_up(poll, cycle);
        }
        Ok(if cycle.stack.is_empty() && cycle.todo.is_empty() { Go::Done } else { Go::On })
    }

    /// What is left of a cycle is not asked for.
    fn give_up(&mut self, poll: usize, cycle: &mut Cycle) {
        let told = if cycle.device_says_so { Reason::Device } else { Reason::Comm };
        for part in std::mem::take(&mut cycle.stack) {
            self.fail(poll, &part.block.points, told, cycle);
        }
        for (read, retry) in std::mem::take(&mut cycle.todo) {
            let reason = if retry { Reason::Config } else { told };
            self.fail(poll, &read.block.points, reason, cycle);
        }
    }

    async fn finish(&mut self, poll: usize, mut cycle: Cycle) -> Result<(), SourceError> {
        let source = self.classes[poll].source;
        self.hold_failures(source, std::mem::take(&mut cycle.failed)).await?;
        self.hand_over().await?;
        if let Some(answered) = cycle.last_answer {
            self.meter.late(source, answered.saturating_sub(self.schedule.due(poll)));
        }
        let missed = self.schedule.done(poll, self.clock.now().mono);
        self.sources[source].health.missed(missed);
        self.judge(poll, &cycle).await?;
        if self.classes[poll].take_changed() {
            self.remember(poll).await?;
        }
        Ok(())
    }

    /// Sends one request, once more where that is worth it.
    pub(super) async fn request(
        &mut self,
        poll: usize,
        read: &PlannedRead,
        cycle: &mut Cycle,
    ) -> Read {
        let class = &self.classes[poll];
        let (source, place) = (class.source, class.unit);
        let unit = self.units[place].id;
        let (address, count) = (read.block.address, read.block.count);
        let Source { timeout: deadline, max_registers, max_coils, .. } = self.sources[source];
        let longest = match read.table {
            Table::Coil | Table::Discrete => max_coils,
            Table::Holding | Table::Input => max_registers,
        };
        // A unit that was well deserves a second try; one that was not has had it.
        let mut spare = self.units[place].breaker.is_healthy() && cycle.faults == 0;
        loop {
            let asked = self.clock.now().mono;
            let span = (address, count);
            let answer =
                long_read::read(&mut self.line, unit, read.table, span, longest, deadline).await;
            let now = self.clock.now();
            let took = now.mono.saturating_sub(asked);
            match answer {
                Ok(Answer::Exception(code)) => {
                    self.line.answered();
                    let handling = handling(code);
                    let silent = handling.then == Then::LeaveUnit;
                    self.meter.request(source, unit, took, !silent);
                    if silent {
                        self.budget.spend(now.mono, took);
                    }
                    if handling.then == Then::AskAgain && std::mem::take(&mut spare) {
                        continue;
                    }
                    let error = exception_text(unit, read, code);
                    self.sources[source].health.failed(1, &error);
                    cycle.error = Some(error);
                    if handling.then == Then::Split {
                        return Read::Refused;
                    }
                    let (reason, then, counts) = (handling.reason, handling.then, handling.counts);
                    return Read::Failed { reason, then, counts };
                }
                Ok(answer @ (Answer::Registers(_) | Answer::Bits(_))) => {
                    self.line.answered();
                    self.meter.request(source, unit, took, true);
                    return Read::Good(answer, now);
                }
                Err(error) => {
                    let asked = !error.before_request();
                    self.units[place].line_was_down = !asked;
                    if asked {
                        self.meter.request(source, unit, took, false);
                        self.budget.spend(now.mono, took);
                    }
                    self.lose_line(source, &error, cycle);
                    if std::mem::take(&mut spare) && self.reconnect_soon().await {
                        continue;
                    }
                    return Read::Lost;
                }
            }
        }
    }

    fn lose_line(&mut self, source: usize, error: &LineError, cycle: &mut Cycle) {
        let text = match (error, &self.line_error) {
            (LineError::NotConnected { .. }, Some(cause)) => format!("{error}: {cause}"),
            _ => error.chain(),
        };
        tracing::debug!(source = %self.sources[source].health.name(), error = %text, "poll failed");
        self.sources[source].health.failed(1, &text);
        cycle.error = Some(text);
        if !error.before_request() && self.units.iter().any(|unit| unit.live) {
            // One unit's silence says nothing against the line that others answer on.
            self.line.answered();
        }
        match error {
            // There was none; the pause before the next one is running.
            LineError::NotConnected { .. } => {}
            LineError::Connect { .. }
            | LineError::ConnectTimeout { .. }
            | LineError::Timeout { .. }
            | LineError::Transport { .. }
            | LineError::Mismatch { .. }
            | LineError::Length { .. } => {
                self.line.drop_connection(self.clock.now().mono, &mut self.rng);
            }
        }
    }

    /// Connects again if the pause before that is short. Returns whether there is a connection.
    async fn reconnect_soon(&mut self) -> bool {
        let Some(at) = self.line.retry_at() else { return true };
        let pause = at.saturating_sub(self.clock.now().mono);
        if pause > RECONNECT_WAIT_MAX {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.connect().await;
        self.line.retry_at().is_none()
    }

    /// Draws the conclusions from a cycle: breaker, rank, state, conditions.
    async fn judge(&mut self, poll: usize, cycle: &Cycle) -> Result<(), SourceError> {
        let (place, source) = (self.classes[poll].unit, self.classes[poll].source);
        let now = self.clock.now().mono;
        let unit = &mut self.units[place];
        let failed = cycle.lost || (cycle.good == 0 && cycle.faults > 0);
        let mut rank = None;
        if failed {
            unit.breaker.failed(now, &mut self.rng);
            unit.device_says_so = cycle.device_says_so && !cycle.lost;
            // Without a connection nothing new was learnt about the unit.
            if !unit.line_was_down {
                unit.silent = cycle.lost || cycle.silent;
            }
            unit.live = false;
            if unit.silent {
                rank = Some(Rank::Suspect);
            }
        } else if cycle.good > 0 || cycle.error.is_some() {
            // Good values, or a refusal that is no fault: the unit lives.
            if unit.breaker.succeeded() {
                for (other, class) in self.classes.iter().enumerate() {
                    if class.unit == place && other != poll {
                        self.schedule.hasten(other, now);
                    }
                }
            }
            unit.device_says_so = false;
            (unit.silent, unit.live) = (false, true);
            rank = Some(Rank::Live);
        }
        if let Some(rank) = rank {
            for (other, class) in self.classes.iter().enumerate() {
                if class.unit == place {
                    self.schedule.rank(other, rank);
                }
            }
        }
        self.publish(source, place, cycle.error.as_deref()).await
    }

    async fn refuse(
        &mut self,
        poll: usize,
        read: &PlannedRead,
        cycle: &mut Cycle,
    ) -> Result<(), EngineStopped> {
        self.fail(poll, &read.block.points, Reason::Config, cycle);
        let now = self.clock.now().mono;
        for &point in read.block.points.iter() {
            self.classes[poll].refuse(point, now);
            self.report_refusal(poll, point, true).await?;
        }
        Ok(())
    }

    fn fail(&self, poll: usize, points: &[usize], reason: Reason, cycle: &mut Cycle) {
        let now = self.clock.now();
        let class = &self.classes[poll];
        let failed = points.iter().map(|&point| {
            let mut reading = failure(&class.points[point], now, reason);
            if reason == Reason::Stale
                && let Kept { scale, offset, last: Some(last) } = self.kept[poll][point]
            {
                // The device has asked for patience: what it said last still stands.
                let stale = Quality::Uncertain(Reason::Stale);
                reading.value = RawValue::Scaled(last * scale + offset, stale);
            }
            reading
        });
        cycle.failed.extend(failed);
    }

    /// Keeps what an answer brought for the end of the poll.
    async fn deliver(
        &mut self,
        poll: usize,
        part: &PlannedRead,
        answer: &Answer,
        arrived: Now,
    ) -> Result<(), EngineStopped> {
        let source = self.classes[poll].source;
        self.sources[source].health.good(arrived.utc);
        self.hold(source, arrived.mono).await?;
        let class = &self.classes[poll];
        let first = self.held.found.readings.len();
        self.held.found.read(class, part, answer, arrived.utc);
        // Readings come in the order of the points; texts and bursts are none of them.
        let mut places = part.block.points.iter();
        for reading in &self.held.found.readings[first..] {
            let place = places.find(|&&place| class.points[place].key == reading.tag);
            if let (Some(&place), RawValue::Number(number)) = (place, reading.value) {
                self.kept[poll][place].last = Some(number);
            }
        }
        Ok(())
    }
}

fn failure(point: &ClassPoint, now: Now, reason: Reason) -> RawReading {
    RawReading {
        tag: point.key,
        source_time: None,
        arrived: now.utc,
        value: RawValue::Failed(reason),
        retained: false,
    }
}

fn all_failed(class: &PollClass, now: Now, reason: Reason) -> Vec<RawReading> {
    class.points.iter().map(|point| failure(point, now, reason)).collect()
}

fn exception_text(unit: u8, read: &PlannedRead, code: u8) -> String {
    let (table, address) = (table_name(read.table), read.block.address);
    let count = read.block.count;
    format!("unit {unit} answered the read of {table}:{address}+{count} with exception {code}")
}
