//! I/O: polls the Modbus TCP sources that share a server, over one connection.
//!
//! Polls go out one at a time, the nearest deadline first. Whatever a device does (silence, lies,
//! half frames), the worst it costs its neighbours on the connection is its own timeout, and after
//! three failed cycles one timeout per pause of its breaker. Every tag of a failed request gets a
//! reading that says so. Not done here: scaling and judging values (acquisition).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{ModbusSource, Table};
use crate::domain::ids::SourceId;
use crate::domain::reading::{RawBatch, RawReading, RawValue, Reason};
use crate::domain::severity::Severity;
use crate::domain::tag::Plant;
use crate::domain::time::Now;
use crate::port::{EngineHandle, EngineStopped, Input, SourceHealth};
use crate::sources::breaker::{Breaker, Permit, Then, handling};
use crate::sources::gather::{Gathered, gather};
use crate::sources::health::{DEGRADED, DOWN, HealthCell, UP};
use crate::sources::line::{Answer, Line, LineError};
use crate::sources::poll_class::{ClassPoint, PlannedRead, PollClass};
use crate::sources::schedule::{Next, Schedule};
use crate::sources::{SourceError, long_read, poll_plan};

/// A poll waits this long for a connection that is about to be made again, rather than fail.
const RECONNECT_WAIT_MAX: Duration = Duration::from_millis(250);
/// Pause before a busy device is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Requests that may be spent in one cycle on finding what a device refuses.
const SPLITS_PER_CYCLE_MAX: u32 = 32;

/// One unit of one source.
#[derive(Debug)]
struct Unit {
    source: usize,
    id: u8,
    breaker: Breaker,
    /// It failed because there was no connection; when there is one it is asked at once.
    line_was_down: bool,
    /// Its last failure was the device's own word.
    device_says_so: bool,
}

#[derive(Debug)]
struct Source {
    timeout: Duration,
    max_registers: u16,
    health: HealthCell,
}

/// All sources on one server.
#[derive(Debug)]
pub struct Bus {
    line: Line,
    sources: Vec<Source>,
    units: Vec<Unit>,
    classes: Vec<PollClass>,
    schedule: Schedule,
    engine: EngineHandle,
    clock: Clock,
    rng: fastrand::Rng,
}

/// What one request came to.
enum Read {
    /// Values came.
    Good(Answer, Now),
    /// The device refuses the addresses.
    Refused,
    /// No values.
    Failed { reason: Reason, then: Then, counts: bool },
    /// No answer, and no connection any more.
    Lost,
}

/// What one cycle came to.
#[derive(Debug, Default)]
struct Cycle {
    good: u32,
    /// Failures that the breaker counts.
    faults: u32,
    lost: bool,
    busy: bool,
    stop: bool,
    device_says_so: bool,
    splits: u32,
    error: Option<String>,
    failed: Vec<RawReading>,
}

impl Bus {
    /// A bus for these sources, which share a link.
    ///
    /// Tags the plant does not know are left out.
    #[must_use]
    pub fn new(
        sources: &[ModbusSource],
        plant: &Plant,
        health: &BTreeMap<SourceId, Arc<watch::Sender<SourceHealth>>>,
        engine: EngineHandle,
        clock: Clock,
        mut rng: fastrand::Rng,
    ) -> Self {
        // There is always one: sources are grouped by their link.
        let first = sources.first().expect("a bus has a source");
        let mut bus = Self {
            line: Line::new(&first.link, &first.line),
            sources: Vec::new(),
            units: Vec::new(),
            classes: Vec::new(),
            schedule: Schedule::default(),
            engine,
            clock,
            rng: rng.fork(),
        };
        for source in sources {
            let Some(published) = health.get(&source.name) else { continue };
            let place = bus.sources.len();
            bus.sources.push(Source {
                timeout: source.timeout,
                max_registers: source.max_registers,
                health: HealthCell::new(source.name.clone(), Arc::clone(published)),
            });
            let mut classes: BTreeMap<(u8, Duration), Vec<ClassPoint>> = BTreeMap::new();
            for tag in &source.tags {
                let Some(key) = plant.key(&tag.tag.path) else { continue };
                let point = ClassPoint { key, path: tag.tag.path.clone(), point: tag.point };
                classes.entry((tag.point.unit, tag.poll)).or_default().push(point);
            }
            for ((id, period), points) in classes {
                let unit = bus.unit(place, id, source.breaker_max);
                let class = PollClass::new(place, unit, points, period, source.max_registers);
                bus.classes.push(class);
            }
        }
        bus
    }

    fn unit(&mut self, source: usize, id: u8, breaker_max: Duration) -> usize {
        let known = self.units.iter().position(|unit| unit.source == source && unit.id == id);
        known.unwrap_or_else(|| {
            self.units.push(Unit {
                source,
                id,
                breaker: Breaker::new(breaker_max),
                line_was_down: false,
                device_says_so: false,
            });
            self.units.len() - 1
        })
    }

    /// Polls until the engine stops. Dropping the future stops it at any await: what was read and
    /// not handed over is lost, the next poll reads it again.
    ///
    /// # Errors
    /// [`SourceError::Engine`] when the engine takes nothing any more.
    pub async fn run(mut self) -> Result<(), SourceError> {
        let start = self.clock.now().mono;
        self.schedule = Schedule::new(start, self.classes.iter().map(|class| class.period));
        loop {
            let now = self.clock.now().mono;
            let retry_at = self.line.retry_at();
            if retry_at.is_some_and(|at| at <= now) && !self.classes.is_empty() {
                self.connect().await;
                continue;
            }
            match (self.schedule.next(now), retry_at) {
                (Next::Run(_), Some(at)) if at.saturating_sub(now) <= RECONNECT_WAIT_MAX => {
                    tokio::time::sleep(at.saturating_sub(now)).await;
                }
                (Next::Run(poll), _) => self.turn(poll).await?,
                (Next::At(due), retry_at) => {
                    self.line.rest();
                    let wake = retry_at.map_or(due, |at| at.min(due));
                    tokio::time::sleep(wake.saturating_sub(now)).await;
                }
                (Next::Never, _) => std::future::pending().await,
            }
        }
    }

    async fn connect(&mut self) {
        match self.line.connect().await {
            Ok(()) => {
                let now = self.clock.now().mono;
                for (place, unit) in self.units.iter_mut().enumerate() {
                    if !std::mem::take(&mut unit.line_was_down) {
                        continue;
                    }
                    unit.breaker.probe_now(now);
                    for (poll, class) in self.classes.iter().enumerate() {
                        if class.unit == place {
                            self.schedule.hasten(poll, now);
                        }
                    }
                }
            }
            Err(error) => {
                let text = error.chain();
                for source in &self.sources {
                    source.health.error(&text);
                }
                self.line.drop_connection(self.clock.now().mono, &mut self.rng);
            }
        }
    }

    /// One turn of one class, its place in the schedule included.
    async fn turn(&mut self, poll: usize) -> Result<(), SourceError> {
        let now = self.clock.now();
        let (place, source) = (self.classes[poll].unit, self.classes[poll].source);
        let permit = self.units[place].breaker.permit(now.mono);
        if let Permit::Pause(until) = permit {
            // Not asked, but not forgotten: once per pause its tags say that nothing comes.
            let reason =
                if self.units[place].device_says_so { Reason::Device } else { Reason::Comm };
            let failed = all_failed(&self.classes[poll], now, reason);
            self.hand_over(source, failed).await?;
            self.schedule.postpone(poll, until);
            return Ok(());
        }

        let mut cycle = Cycle::default();
        self.read_all(poll, &mut cycle, permit == Permit::Probe).await?;
        self.hand_over(source, std::mem::take(&mut cycle.failed)).await?;

        let done = self.clock.now().mono;
        let missed = self.schedule.done(poll, done);
        self.sources[source].health.missed(missed);
        if cycle.busy {
            self.schedule.hasten(poll, done + BUSY_PAUSE);
        }
        self.judge(poll, &cycle).await
    }

    /// All requests of a class.
    async fn read_all(
        &mut self,
        poll: usize,
        cycle: &mut Cycle,
        probe: bool,
    ) -> Result<(), EngineStopped> {
        let now = self.clock.now();
        // Refused points say so in every cycle; those whose time has come are tried again below.
        let retries = self.classes[poll].retries(now.mono);
        let tried: Vec<usize> =
            retries.iter().flat_map(|read| read.block.points.iter().copied()).collect();
        let refused: Vec<usize> =
            self.classes[poll].refused().filter(|point| !tried.contains(point)).collect();
        self.fail(poll, &refused, Reason::Config, cycle);

        let plan = self.classes[poll].plan().to_vec();
        for read in &plan {
            if cycle.stop {
                let reason = if cycle.device_says_so { Reason::Device } else { Reason::Comm };
                self.fail(poll, &read.block.points, reason, cycle);
                continue;
            }
            self.read_block(poll, read, cycle).await?;
            if probe && cycle.good == 0 && cycle.faults > 0 {
                cycle.stop = true;
            }
        }
        for read in retries {
            if cycle.stop {
                self.fail(poll, &read.block.points, Reason::Config, cycle);
                continue;
            }
            self.retry_refused(poll, &read, cycle).await?;
        }
        Ok(())
    }

    /// One request, split where the device refuses it.
    async fn read_block(
        &mut self,
        poll: usize,
        read: &PlannedRead,
        cycle: &mut Cycle,
    ) -> Result<(), EngineStopped> {
        let mut stack = vec![read.clone()];
        let mut parts = Vec::new();
        let mut blameless = true;
        while let Some(part) = stack.pop() {
            if cycle.stop {
                blameless = false;
                self.fail(poll, &part.block.points, Reason::Comm, cycle);
                continue;
            }
            match self.request(poll, &part, cycle).await {
                Read::Good(answer, arrived) => {
                    let found = gather(&self.classes[poll], &part, &answer, arrived.utc);
                    self.deliver(poll, found, arrived).await?;
                    cycle.good += 1;
                    parts.push(part);
                }
                Read::Refused => match self.classes[poll].halves(&part) {
                    Some((left, right)) if cycle.splits < SPLITS_PER_CYCLE_MAX => {
                        cycle.splits += 1;
                        stack.push(right);
                        stack.push(left);
                    }
                    Some(_) => {
                        // The next cycle goes on from what was found in this one.
                        blameless = false;
                        self.fail(poll, &part.block.points, Reason::Config, cycle);
                    }
                    None => {
                        blameless = false;
                        self.refuse(poll, &part, cycle).await?;
                    }
                },
                Read::Failed { reason, then, counts } => {
                    blameless = false;
                    self.fail(poll, &part.block.points, reason, cycle);
                    cycle.faults += u32::from(counts);
                    cycle.device_says_so |= reason == Reason::Device;
                    cycle.busy |= then == Then::AskLater;
                    cycle.stop |= then == Then::LeaveUnit;
                }
                Read::Lost => {
                    blameless = false;
                    self.fail(poll, &part.block.points, Reason::Comm, cycle);
                    cycle.faults += 1;
                    cycle.lost = true;
                    cycle.stop = true;
                }
            }
        }
        if blameless && parts.len() > 1 {
            self.classes[poll].learn_from_parts(read, &parts);
        }
        Ok(())
    }

    /// A refused point whose time has come.
    async fn retry_refused(
        &mut self,
        poll: usize,
        read: &PlannedRead,
        cycle: &mut Cycle,
    ) -> Result<(), EngineStopped> {
        match self.request(poll, read, cycle).await {
            Read::Good(answer, arrived) => {
                cycle.good += 1;
                let found = gather(&self.classes[poll], read, &answer, arrived.utc);
                self.deliver(poll, found, arrived).await?;
                for &point in read.block.points.iter() {
                    self.classes[poll].accept(point);
                    self.report_refusal(poll, point, false).await?;
                }
                Ok(())
            }
            Read::Refused => self.refuse(poll, read, cycle).await,
            Read::Failed { reason, then, counts } => {
                self.fail(poll, &read.block.points, reason, cycle);
                cycle.faults += u32::from(counts);
                cycle.stop |= then == Then::LeaveUnit;
                Ok(())
            }
            Read::Lost => {
                self.fail(poll, &read.block.points, Reason::Comm, cycle);
                cycle.faults += 1;
                (cycle.lost, cycle.stop) = (true, true);
                Ok(())
            }
        }
    }

    /// Sends one request, once more where that is worth it.
    async fn request(&mut self, poll: usize, read: &PlannedRead, cycle: &mut Cycle) -> Read {
        let class = &self.classes[poll];
        let (source, place) = (class.source, class.unit);
        let unit = self.units[place].id;
        let (address, count) = (read.block.address, read.block.count);
        let deadline = self.sources[source].timeout;
        let longest = poll_plan::longest(read.table, self.sources[source].max_registers);
        // A unit that was well deserves a second try; one that was not has had it.
        let mut spare = self.units[place].breaker.is_healthy() && cycle.faults == 0;
        loop {
            let span = (address, count);
            match long_read::read(&mut self.line, unit, read.table, span, longest, deadline).await {
                Ok(Answer::Exception(code)) => {
                    self.line.answered();
                    let handling = handling(code);
                    let error = exception_text(unit, read, code);
                    if handling.then == Then::AskAgain && std::mem::take(&mut spare) {
                        continue;
                    }
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
                    return Read::Good(answer, self.clock.now());
                }
                Err(error) => {
                    self.units[place].line_was_down = error.before_request();
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
        let text = error.chain();
        tracing::debug!(source = %self.sources[source].health.name(), error = %text, "poll failed");
        self.sources[source].health.failed(1, &text);
        cycle.error = Some(text);
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

    /// Draws the conclusions from a cycle: breaker, state, conditions.
    async fn judge(&mut self, poll: usize, cycle: &Cycle) -> Result<(), SourceError> {
        let (place, source) = (self.classes[poll].unit, self.classes[poll].source);
        let now = self.clock.now().mono;
        let unit = &mut self.units[place];
        let failed = cycle.lost || (cycle.good == 0 && cycle.faults > 0);
        if failed {
            unit.breaker.failed(now, &mut self.rng);
            unit.device_says_so = cycle.device_says_so && !cycle.lost;
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
        }
        self.publish(source, place, cycle.error.as_deref()).await
    }

    async fn publish(
        &mut self,
        source: usize,
        place: usize,
        error: Option<&str>,
    ) -> Result<(), SourceError> {
        let units: Vec<&Unit> = self.units.iter().filter(|unit| unit.source == source).collect();
        let all = units.len();
        let open = units.iter().filter(|unit| unit.breaker.is_open()).count();
        let faulty = units.iter().filter(|unit| unit.breaker.is_open() && unit.device_says_so);
        let silent = open == all && faulty.count() == 0;
        let refused = self.classes.iter().filter(|class| class.source == source);
        let refused: usize = refused.map(|class| class.refused().count()).sum();
        let unit = &self.units[place];
        let (id, is_open, device) = (unit.id, unit.breaker.is_open(), unit.device_says_so);
        let healthy = unit.breaker.is_healthy();

        let health = &mut self.sources[source].health;
        let state = match () {
            () if open == all => Some(DOWN),
            () if open > 0 || refused > 0 => Some(DEGRADED),
            () if healthy => Some(UP),
            () => None,
        };
        if let Some(state) = state {
            health.state(state);
        }
        let word = match (is_open, device) {
            (true, true) => "fault",
            (true, false) => "silent",
            (false, _) => "answers",
        };
        health.detail(&format!("unit {id}"), Some(word.to_owned()));
        let refused = (refused > 0).then(|| format!("{refused} refused"));
        health.detail("points", refused);

        let name = health.name().to_string();
        let why = error.unwrap_or("no answer").to_owned();
        let subject = format!("{name} unit {id}");
        health
            .condition(&self.engine, "source-silent", &name, silent, Severity::High, || {
                if silent {
                    format!("source {name} does not answer: {why}")
                } else {
                    format!("source {name} answers")
                }
            })
            .await?;
        let fault = is_open && device;
        health
            .condition(&self.engine, "device-fault", &subject, fault, Severity::High, || {
                if fault {
                    format!("{subject} reports a fault of its own: {why}")
                } else {
                    format!("{subject} reports no fault")
                }
            })
            .await?;
        // With a single unit the source's own condition says it all.
        let unit_silent = is_open && !device && all > 1 && !silent;
        health
            .condition(&self.engine, "unit-silent", &subject, unit_silent, Severity::Medium, || {
                if unit_silent {
                    format!("{subject} does not answer: {why}")
                } else {
                    format!("{subject} answers")
                }
            })
            .await?;
        Ok(())
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

    async fn report_refusal(
        &mut self,
        poll: usize,
        point: usize,
        refused: bool,
    ) -> Result<(), EngineStopped> {
        let class = &self.classes[poll];
        let ClassPoint { path, point, .. } = &class.points[point];
        let subject = path.to_string();
        let (table, address) = (table_name(point.table), point.address);
        let health = &mut self.sources[class.source].health;
        health
            .condition(&self.engine, "point-refused", &subject, refused, Severity::Low, || {
                let unit = point.unit;
                if refused {
                    format!("unit {unit} refuses {table}:{address}, the point of {subject}")
                } else {
                    format!("unit {unit} answers for {table}:{address}, the point of {subject}")
                }
            })
            .await
    }

    fn fail(&self, poll: usize, points: &[usize], reason: Reason, cycle: &mut Cycle) {
        let now = self.clock.now();
        let class = &self.classes[poll];
        let failed = points.iter().map(|&point| failure(&class.points[point], now, reason));
        cycle.failed.extend(failed);
    }

    async fn deliver(
        &mut self,
        poll: usize,
        found: Gathered,
        arrived: Now,
    ) -> Result<(), EngineStopped> {
        let source = self.classes[poll].source;
        self.sources[source].health.good(arrived.utc);
        if found.is_empty() {
            return Ok(());
        }
        let Gathered { readings, extras } = found;
        let source = self.sources[source].health.name().clone();
        let batch = RawBatch { source, readings, extras, ack: None, historical: false };
        self.engine.send(Input::Readings(batch)).await
    }

    async fn hand_over(
        &mut self,
        source: usize,
        readings: Vec<RawReading>,
    ) -> Result<(), EngineStopped> {
        if readings.is_empty() {
            return Ok(());
        }
        let source = self.sources[source].health.name().clone();
        let batch = RawBatch { source, readings, extras: None, ack: None, historical: false };
        self.engine.send(Input::Readings(batch)).await
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

/// The table's name as it is configured.
#[must_use]
pub const fn table_name(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::Discrete => "discrete",
        Table::Holding => "holding",
        Table::Input => "input",
    }
}

fn exception_text(unit: u8, read: &PlannedRead, code: u8) -> String {
    let (table, address) = (table_name(read.table), read.block.address);
    let count = read.block.count;
    format!("unit {unit} answered the read of {table}:{address}+{count} with exception {code}")
}
