//! One tag of an asset as detection sees it: its newest value, whether its sensor still measures,
//! and what a departure of it alone would mean.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::slow::{SLOW_FROM, Slow};
use super::tracks::Track;
use crate::analytics::sanity::{Resolution, RunLength, Scatter, Spikes};
use crate::domain::anomaly::Pattern;
use crate::domain::tag::Tag;

/// A tag is dead when no good value came for this many of its periods …
const DEAD_PERIODS: f64 = 10.0;
/// … and at least this long, in seconds: shorter silences are the network's.
const DEAD_LEAST: f64 = 60.0;
/// Tags that arrive when they like are dead after this many of their usual intervals.
const DEAD_INTERVALS: f64 = 50.0;
/// Neighbours further apart than this many usual intervals are no neighbours.
const GAP_INTERVALS: f64 = 5.0;
/// A spike is shown for this long, in seconds: the off-delay of all departures.
const SPIKE_SHOWN: f64 = 30.0;
/// Scatter is judged over at least this many periods.
const SCATTER_PERIODS: f64 = 5.0;
/// Scatter is judged over at least this long, in seconds; see `cloud::SMOOTH`.
const SCATTER_SPAN: f64 = 10.0;

/// What was learnt of one sensor; kept over restarts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Sanity {
    run: RunLength,
    scatter: Scatter,
    spikes: Spikes,
    resolution: Resolution,
}

/// One tag of an asset.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) tag: Arc<Tag>,
    /// Newest good value; NaN until the first.
    pub(super) value: f64,
    /// Time of the newest reading, good or not, in seconds.
    pub(super) time: f64,
    /// Time of the newest good one.
    pub(super) good_at: f64,
    /// When the newest good one came, on the monotonic clock, in seconds.
    pub(super) heard: f64,
    /// Whether the tag has delivered since the last row.
    pub(super) fresh: bool,
    /// Whether the value is new since the last row.
    pub(super) new_value: bool,
    /// Usual interval of its readings, in seconds; 0 until known.
    pub(super) interval: f64,
    pub(super) sanity: Sanity,
    /// What is learnt of a series that comes slowly.
    pub(super) slow: Option<Box<Slow>>,
    /// The departure of this sensor, as it stands.
    pub(super) track: Track,
    /// What the newest value said against the sensor.
    pub(super) suspicion: Option<Suspicion>,
    /// Set while it has departed alone: broken by its level, not by how it behaves.
    pub(super) alone: bool,
    /// Whether its silence was announced.
    pub(super) dead: bool,
    /// When it last stepped abruptly, in seconds.
    pub(super) stepped_at: f64,
    spike_until: f64,
    spike_ratio: f64,
    judged_at: f64,
}

/// What speaks against a sensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Suspicion {
    pub(super) pattern: Pattern,
    pub(super) detector: &'static str,
    /// Evidence over what is allowed.
    pub(super) ratio: f64,
}

impl Channel {
    pub(super) fn new(tag: &Arc<Tag>) -> Self {
        Self {
            tag: Arc::clone(tag),
            value: f64::NAN,
            time: f64::NEG_INFINITY,
            good_at: f64::NEG_INFINITY,
            heard: f64::NAN,
            fresh: false,
            new_value: false,
            interval: tag.period.map_or(0.0, |period| period.as_secs_f64()),
            sanity: Sanity::default(),
            slow: None,
            track: Track::default(),
            suspicion: None,
            alone: false,
            dead: false,
            stepped_at: f64::NEG_INFINITY,
            spike_until: f64::NEG_INFINITY,
            spike_ratio: 0.0,
            judged_at: f64::NAN,
        }
    }

    /// The clock was set back by so many seconds.
    pub(super) fn set_back(&mut self, by: f64) {
        let earlier = by + super::asset::EARLIER;
        for time in [
            &mut self.time,
            &mut self.good_at,
            &mut self.stepped_at,
            &mut self.spike_until,
            &mut self.judged_at,
        ] {
            *time -= earlier;
        }
        self.track.set_back(by);
        if let Some(slow) = &mut self.slow {
            slow.set_back(by);
        }
    }

    /// Notes when readings come. Returns false for one that is older than the newest.
    pub(super) fn arrive(&mut self, time: f64) -> bool {
        if time <= self.time {
            return false;
        }
        let step = time - self.time;
        if step.is_finite() && self.tag.period.is_none() {
            // Tags without a period: the usual interval, forgetting over 20 readings.
            let weight = if self.interval > 0.0 { 0.05 } else { 1.0 };
            self.interval += weight * (step - self.interval);
        }
        self.time = time;
        true
    }

    /// After how long without a good value the tag counts as dead, in seconds; `None` while it is
    /// not known how often it comes.
    pub(super) fn dead_after(&self) -> Option<f64> {
        let count = if self.tag.period.is_some() { DEAD_PERIODS } else { DEAD_INTERVALS };
        (self.interval > 0.0).then(|| (count * self.interval).max(DEAD_LEAST))
    }

    /// Whether it comes so rarely that it is judged as a slow series.
    pub(super) fn is_slow(&self) -> bool {
        self.interval >= SLOW_FROM
    }

    /// Evidence of the newest value against the time of the day, over the limit.
    pub(super) fn judge_slow(&mut self) -> f64 {
        let (time, value) = (self.good_at, self.value);
        self.slow.get_or_insert_default().push(time, value)
    }

    /// Learns from the newest value what is usual for this sensor.
    pub(super) fn learn(&mut self) {
        let step = self.step();
        let (value, sanity) = (self.value, &mut self.sanity);
        let span = SCATTER_SPAN.max(SCATTER_PERIODS * self.interval);
        sanity.run.learn(value);
        sanity.scatter.learn(step, span, value);
        sanity.spikes.learn(value);
        sanity.resolution.push(value);
    }

    /// Time since the value judged or learnt from before. After a gap what comes follows on
    /// nothing.
    fn step(&mut self) -> f64 {
        let step = self.good_at - self.judged_at;
        self.judged_at = self.good_at;
        if step.is_finite() && (self.interval <= 0.0 || step <= GAP_INTERVALS * self.interval) {
            step
        } else {
            self.restart();
            0.0
        }
    }

    /// Ends learning.
    pub(super) fn arm(&mut self) {
        // Two steps of resolution are not noise, and not a spike.
        let floor = 2.5 * self.sanity.resolution.step();
        self.sanity.run.arm();
        self.sanity.scatter.arm(floor);
        self.sanity.spikes.arm(floor);
    }

    /// What the newest value says of the sensor; the worst suspicion.
    pub(super) fn judge(&mut self) -> Option<Suspicion> {
        let value = self.value;
        let step = self.step();
        let span = SCATTER_SPAN.max(SCATTER_PERIODS * self.interval);
        let stuck = self.sanity.run.judge(value);
        let scatter = self.sanity.scatter.judge(step, span, value);
        let spike = self.sanity.spikes.judge(value);
        if spike > 1.0 {
            self.spike_until = self.good_at + SPIKE_SHOWN;
            self.spike_ratio = spike;
        }
        if self.sanity.spikes.stepped() {
            self.stepped_at = self.good_at;
        }
        let suspect = |pattern, detector, ratio| Some(Suspicion { pattern, detector, ratio });
        if stuck >= 1.0 {
            suspect(Pattern::Stuck, "stuck", stuck)
        } else if scatter > 1.0 {
            suspect(Pattern::Noise, "scatter", scatter)
        } else if self.good_at < self.spike_until {
            suspect(Pattern::Spike, "spike", self.spike_ratio)
        } else {
            None
        }
    }

    /// Forgets the newest values: what comes next follows on nothing.
    pub(super) fn restart(&mut self) {
        self.sanity.run.restart();
        self.sanity.scatter.restart();
        self.sanity.spikes.restart();
        self.suspicion = None;
        self.spike_until = f64::NEG_INFINITY;
    }

    /// Whether a person said what failure of the machine this tag would show.
    pub(super) fn has_failure_limit(&self) -> bool {
        let limits = &self.tag.limits;
        limits.high_high.or(limits.low_low).or(limits.high).or(limits.low).is_some()
    }
}
