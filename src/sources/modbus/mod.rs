//! I/O: polls the Modbus sources that share a line, over one connection.
//!
//! Requests go out one at a time, the nearest deadline first. Whatever a device does (silence,
//! lies, half frames), the worst it costs its neighbours on the line is its own timeout, after
//! three failed cycles one timeout per pause of its breaker, and never more than the share of the
//! line's time that dead units may cost. Every tag of a failed request gets a reading that says so.
//! Not done here: scaling and judging values (acquisition). There are no writes: a request can only
//! be one of the four reads of [`crate::config::Table`].

mod budget;
mod cycle;
mod held;
mod meter;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::ModbusSource;
use crate::domain::ids::SourceId;
use crate::domain::tag::Plant;
use crate::port::{EngineHandle, SourceHealth};
use crate::sources::SourceError;
use crate::sources::breaker::Breaker;
use crate::sources::health::HealthCell;
use crate::sources::line::{self, Line};
use crate::sources::notes::Notes;
use crate::sources::poll_class::{ClassPoint, Memo, PollClass, ReadRules};
use crate::sources::schedule::{Next, Schedule};

use budget::DeadTime;
use cycle::Cycle;
use held::Held;
use meter::Meter;
use report::Told;

/// A poll waits this long for a connection that is about to be made again, rather than fail.
const RECONNECT_WAIT_MAX: Duration = Duration::from_millis(250);
/// How often load and lateness are published.
const LOAD_EVERY: Duration = Duration::from_secs(1);

/// What requests of this source may look like.
#[must_use]
pub fn read_rules(source: &ModbusSource) -> ReadRules {
    ReadRules::of(source, line::cost(&source.link, &source.line))
}

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
    /// It did not answer last time, or a gateway said so for it: asking costs a timeout.
    silent: bool,
    /// It answered last time.
    live: bool,
    /// What was last published of it.
    told: Option<Told>,
}

#[derive(Debug)]
struct Source {
    timeout: Duration,
    busy_retries: u32,
    busy_wait: Duration,
    max_registers: u16,
    max_coils: u16,
    /// Where it is, as people write it; a memo of another place is not recalled.
    link: String,
    health: HealthCell,
}

/// The last number of a point, for polls that a device puts off.
#[derive(Debug, Clone, Copy)]
struct Kept {
    scale: f64,
    offset: f64,
    last: Option<f64>,
}

/// All sources on one line.
#[derive(Debug)]
pub struct Bus {
    line: Line,
    /// Why there is no connection.
    line_error: Option<String>,
    sources: Vec<Source>,
    units: Vec<Unit>,
    classes: Vec<PollClass>,
    /// Per class: the poll under way.
    cycles: Vec<Option<Cycle>>,
    /// Per class: its points' last numbers.
    kept: Vec<Vec<Kept>>,
    held: Held,
    schedule: Schedule,
    budget: DeadTime,
    meter: Meter,
    next_load: Duration,
    engine: EngineHandle,
    clock: Clock,
    notes: Notes,
    rng: fastrand::Rng,
}

impl Bus {
    /// A bus for these sources, which share a line.
    ///
    /// Tags the plant does not know are left out. What `notes` know of the devices is recalled.
    ///
    /// # Panics
    /// Without a source.
    #[must_use]
    pub fn new(
        sources: &[ModbusSource],
        plant: &Plant,
        health: &BTreeMap<SourceId, Arc<watch::Sender<SourceHealth>>>,
        engine: EngineHandle,
        clock: Clock,
        notes: Notes,
        rng: fastrand::Rng,
    ) -> Self {
        // There is always one: sources are grouped by their link.
        let first = sources.first().expect("a bus has a source");
        let line = Line::new(&first.link, &first.line);
        Self::over(line, sources, plant, health, (engine, clock), notes, rng)
    }

    /// The same over a line that is there already: memory in tests and simulations.
    #[must_use]
    pub fn over(
        line: Line,
        sources: &[ModbusSource],
        plant: &Plant,
        health: &BTreeMap<SourceId, Arc<watch::Sender<SourceHealth>>>,
        (engine, clock): (EngineHandle, Clock),
        notes: Notes,
        mut rng: fastrand::Rng,
    ) -> Self {
        let now = clock.now().mono;
        let share = sources.iter().map(|source| source.polling.dead_time_share);
        let timeout = sources.iter().map(|source| source.timeout).max().unwrap_or_default();
        let mut bus = Self {
            line,
            line_error: None,
            sources: Vec::new(),
            units: Vec::new(),
            classes: Vec::new(),
            cycles: Vec::new(),
            kept: Vec::new(),
            held: Held::default(),
            schedule: Schedule::default(),
            // Sources that share a line share its time: the most careful one counts.
            budget: DeadTime::new(share.fold(1.0, f64::min), timeout, now),
            meter: Meter::new(sources.len(), now),
            next_load: now,
            engine,
            clock,
            notes,
            rng: rng.fork(),
        };
        for source in sources {
            let Some(published) = health.get(&source.name) else { continue };
            bus.add(
                source,
                plant,
                HealthCell::new(source.name.clone(), Arc::clone(published)),
                now,
            );
        }
        bus
    }

    fn add(&mut self, source: &ModbusSource, plant: &Plant, health: HealthCell, now: Duration) {
        let place = self.sources.len();
        let rules = read_rules(source);
        self.sources.push(Source {
            timeout: source.timeout,
            busy_retries: source.polling.busy_retries,
            busy_wait: source.polling.busy_retries_wait,
            max_registers: rules.max_registers,
            max_coils: rules.max_coils,
            link: source.link.address(),
            health,
        });
        let mut classes: BTreeMap<(u8, Duration), Vec<(ClassPoint, Kept)>> = BTreeMap::new();
        for tag in &source.tags {
            let Some(key) = plant.key(&tag.tag.path) else { continue };
            let point = ClassPoint { key, path: tag.tag.path.clone(), point: tag.point };
            let kept = Kept { scale: tag.tag.scale, offset: tag.tag.offset, last: None };
            classes.entry((tag.point.unit, tag.poll)).or_default().push((point, kept));
        }
        for ((id, period), points) in classes {
            let unit = self.unit(place, id, source.breaker_max);
            let (points, kept): (Vec<_>, Vec<_>) = points.into_iter().unzip();
            let mut class = PollClass::new(place, unit, points, period, rules);
            if let Some(memo) = self.recalled(place, id) {
                class.recall(&memo, now);
            }
            self.classes.push(class);
            self.kept.push(kept);
            self.cycles.push(None);
        }
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
                silent: false,
                live: false,
                told: None,
            });
            self.units.len() - 1
        })
    }

    fn note_id(&self, source: usize, unit: u8) -> String {
        format!("modbus/{}/{unit}", self.sources[source].health.name())
    }

    fn recalled(&self, source: usize, unit: u8) -> Option<Memo> {
        let note = self.notes.get(&self.note_id(source, unit))?;
        let same = note.get("link")?.as_str()? == self.sources[source].link;
        if !same {
            return None;
        }
        serde_json::from_value(note.get("memo")?.clone()).ok()
    }

    /// Polls until the engine stops. Dropping the future stops it at any await: what was read and
    /// not handed over is lost, the next poll reads it again.
    ///
    /// # Errors
    /// [`SourceError::Engine`] when the engine takes nothing any more.
    pub async fn run(mut self) -> Result<(), SourceError> {
        let start = self.clock.now().mono;
        self.schedule = Schedule::new(start, self.classes.iter().map(|class| class.period));
        for poll in 0..self.classes.len() {
            let known: Vec<usize> = self.classes[poll].refused().collect();
            for point in known {
                self.report_refusal(poll, point, true).await?;
            }
        }
        loop {
            let now = self.clock.now().mono;
            if self.next_load <= now {
                self.next_load = now + LOAD_EVERY;
                self.publish_load(now);
            }
            let retry_at = self.line.retry_at();
            if retry_at.is_some_and(|at| at <= now) && !self.classes.is_empty() {
                self.connect().await;
                continue;
            }
            match (self.schedule.next(now), retry_at) {
                (Next::Run(_), Some(at)) if at.saturating_sub(now) <= RECONNECT_WAIT_MAX => {
                    tokio::time::sleep(at.saturating_sub(now)).await;
                }
                (Next::Run(poll), _) => self.step(poll).await?,
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
                self.line_error = None;
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
                self.line_error = Some(text);
                self.line.drop_connection(self.clock.now().mono, &mut self.rng);
            }
        }
    }
}
