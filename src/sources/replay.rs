//! I/O: a recording played back as a source. Its rows arrive now, at the distances at which they were
//! recorded, and are judged like anything that a device sends.
//!
//! A row that cannot be read is counted and left out; a file that cannot be read at all is a source
//! that is down, and is looked at again now and then. At the end the recording begins again, or the
//! source rests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::health::{DEGRADED, DOWN, HealthCell, UP};
use super::recording::{Columns, Row, Rows, Wanted};
use super::{Published, SourceError};
use crate::clock::Clock;
use crate::config::ReplaySource;
use crate::domain::ids::TagPath;
use crate::domain::reading::{RawBatch, RawReading};
use crate::domain::tag::Plant;
use crate::domain::time::Timestamp;
use crate::port::{EngineHandle, Input, SourceHealth};

/// Rows read from the file at a time.
const PAGE_ROWS: usize = 256;
/// Pause before a file that could not be read is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(10);
/// Pause between the last row and the first one of the next round.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// Plays one recording.
pub struct Player {
    source: ReplaySource,
    columns: Vec<(String, TagPath)>,
    plant: Arc<Plant>,
    engine: EngineHandle,
    clock: Clock,
    health: HealthCell,
}

/// The open file and what was read of it in advance.
struct Page {
    rows: Rows<BufReader<File>>,
    /// The values of each row.
    ready: Vec<Vec<RawReading>>,
    /// What was wrong with the rows that are left out.
    bad: Vec<String>,
    ended: bool,
}

impl Player {
    /// A player that has not begun.
    pub(super) fn new(
        source: &ReplaySource,
        plant: &Arc<Plant>,
        published: &Published,
        engine: EngineHandle,
        clock: Clock,
    ) -> Self {
        let cells: BTreeMap<_, Arc<watch::Sender<SourceHealth>>> = published.clone();
        let cell = cells.get(&source.name).expect("every source has a cell").clone();
        let columns =
            source.tags.iter().map(|tag| (tag.column.clone(), tag.tag.path.clone())).collect();
        Self {
            health: HealthCell::new(source.name.clone(), cell),
            source: source.clone(),
            columns,
            plant: Arc::clone(plant),
            engine,
            clock,
        }
    }

    /// Plays until nobody listens any more.
    ///
    /// # Errors
    /// When the engine takes no more readings.
    pub async fn run(self) -> Result<(), SourceError> {
        loop {
            match self.round().await? {
                Ok(()) if self.source.again => sleep(ROUND_PAUSE.div_f64(self.speed())).await,
                Ok(()) => {
                    self.health.detail("recording", Some("has ended".to_owned()));
                    std::future::pending::<()>().await;
                }
                Err(what) => {
                    self.health.state(DOWN);
                    self.health.failed(1, &what);
                    sleep(REOPEN_AFTER).await;
                }
            }
        }
    }

    fn speed(&self) -> f64 {
        self.source.speed.max(f64::MIN_POSITIVE)
    }

    /// From the first row to the last; the inner error is one of the file.
    async fn round(&self) -> Result<Result<(), String>, SourceError> {
        let mut page = match self.open() {
            Ok(page) => page,
            Err(what) => return Ok(Err(what)),
        };
        // The first row is played at once, and all others at their distance from it.
        let mut began: Option<(Instant, Timestamp)> = None;
        let mut degraded = false;
        loop {
            page = self.read(page).await;
            degraded |= !page.bad.is_empty();
            for what in page.bad.drain(..) {
                self.health.failed(1, &what);
            }
            self.health.state(if degraded { DEGRADED } else { UP });
            for mut readings in page.ready.drain(..) {
                let time = readings.first().and_then(|reading| reading.source_time);
                if let Some(time) = time {
                    let (start, first) = *began.get_or_insert_with(|| (Instant::now(), time));
                    sleep_until(start + time.since(first).div_f64(self.speed())).await;
                }
                let arrived = self.clock.now().utc;
                for reading in &mut readings {
                    (reading.source_time, reading.arrived) = (None, arrived);
                }
                let batch = RawBatch {
                    source: self.source.name.clone(),
                    readings,
                    extras: None,
                    ack: None,
                    historical: false,
                };
                self.engine.send(Input::Readings(batch)).await?;
                self.health.good(arrived);
            }
            if page.ended {
                return Ok(Ok(()));
            }
        }
    }

    fn open(&self) -> Result<Page, String> {
        let name = self.source.file.display().to_string();
        let file = File::open(&self.source.file).map_err(|error| format!("{name}: {error}"))?;
        let wanted =
            Wanted { time: &self.source.time_column, columns: Columns::Tags(&self.columns) };
        let rows = Rows::open(BufReader::new(file), &name, b',', &wanted)
            .map_err(|error| error.to_string())?;
        Ok(Page { rows, ready: Vec::new(), bad: Vec::new(), ended: false })
    }

    /// Reads the next rows, on a thread that may wait for the disk.
    async fn read(&self, mut page: Page) -> Page {
        let (plant, now) = (Arc::clone(&self.plant), self.clock.now().utc);
        let read = move || {
            while page.ready.len() + page.bad.len() < PAGE_ROWS {
                let mut readings = Vec::new();
                match page.rows.next(&plant, now, &mut readings) {
                    Row::End => {
                        page.ended = true;
                        break;
                    }
                    Row::Taken { .. } if readings.is_empty() => {}
                    Row::Taken { .. } => page.ready.push(readings),
                    Row::Bad(what) => page.bad.push(what),
                }
            }
            page
        };
        tokio::task::spawn_blocking(read).await.expect("reading rows does not panic")
    }
}
