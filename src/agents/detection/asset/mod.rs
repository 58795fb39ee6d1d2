//! One asset under watch: how its tags make rows, what is learnt when, and what is announced.
//!
//! **Rows.** Tags arrive in different polls and at different rates. A row is closed when every tag
//! that comes at the fastest rate has delivered (good or not), or when one of them delivers a
//! second time; slower tags take part with their newest value. A row's time is that of its newest
//! reading, so nothing here depends on when the gateway got round to it.
//!
//! **Phases.** *Learning* until `[detection] learn` of running time is seen; *provisional* while
//! what was learnt is little (limits are wider then) or still moved; *armed* otherwise.

mod explain;
mod learning;

use std::sync::Arc;

use super::channel::{Channel, Suspicion};
use super::cloud::Cloud;
use super::slow::REST;
use super::state::Running;
use super::tracks::{ON_DELAY, Open, RELEASE, Step, Track};
use super::{Context, announce};
use crate::domain::anomaly::{DetectorScore, Evidence, Fault, Pattern};
use crate::domain::event::Phase;
use crate::domain::ids::AssetId;
use crate::domain::tag::Tag;

/// A gap of more than this many usual steps does not count as time learnt from.
const GAP_STEPS: f64 = 10.0;
/// What is learnt is renewed each time there are this many times more rows …
const RENEW_GROWTH: f64 = 1.5;
/// … until this much was learnt, in seconds: a day, through which surroundings and load go round.
const YOUNG: f64 = 86_400.0;
/// New rows are learnt from only when nothing suspicious has followed them for as long as the model
/// was learnt from, which is as far as it can see; and no longer than this, in seconds: what creeps
/// more slowly is ageing, and the centre's cap is there for it.
const PROBATION_MAX: f64 = 3600.0;
/// A period that still trends is prolonged to this many times its length at most.
const PROLONG: f64 = 2.0;
/// Tags that take part at least, for one that departs alone to be blamed on its sensor: with fewer
/// there is no majority that says the machine is well.
const COMPANY: usize = 4;
/// The others are well below this share of the limit.
const OTHERS_WELL: f64 = 0.5;
/// An abrupt step explains a departure for this long, in seconds: what the smoothing takes to show
/// all of it.
const STEP_MEMORY: f64 = 30.0;
/// The others foretell a tag well when they explain this share of its variance.
const FORETOLD: f64 = 0.8;
/// A departure that took longer than this from its first sign to the alarm, in seconds, is a
/// drift: after three smoothing constants a step has shown 95 % of itself.
const DRIFT_TIME: f64 = 30.0;
/// The first sign: this share of the limit.
const FIRST_SIGN: f64 = 0.1;
/// Largest share of the learning time that may be gaps before it is said.
const GAPS_MAX: f64 = 0.3;

/// How long an asset learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Learn {
    /// This much running time, in seconds.
    Seconds(f64),
    /// This many rows (recordings).
    Rows(u32),
}

/// A good live value that lies this far before the last one, in seconds, comes from a clock that was
/// set back: later than this, values are stale and not good.
const SET_BACK: f64 = 3600.0;
/// A clock that was set back leaves the newest value this long ago, in seconds, so that the next one
/// is newer.
pub(super) const EARLIER: f64 = 0.001;

/// How an asset looks after its newest row.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Assessment {
    /// Time of the row, in seconds since 1970.
    pub time: f64,
    /// Rows assessed so far.
    pub rows: u64,
    /// Evidence over what is allowed: 1 at the limit, grows for ever; 0 while learning.
    pub ratio: f64,
    /// Whether an anomaly is announced and not over.
    pub anomalous: bool,
}

/// One asset under watch.
#[derive(Debug)]
pub(super) struct AssetWatch {
    pub(super) id: AssetId,
    pub(super) criticality: u8,
    pub(super) channels: Vec<Channel>,
    pub(super) cloud: Cloud,
    pub(super) phase: Phase,
    pub(super) learnt: f64,
    pub(super) running: Running,
    /// The machine's departure, as it stands.
    pub(super) track: Track,
    pub(super) latest: Assessment,
    learn: Learn,
    fresh: usize,
    expected: usize,
    row_time: f64,
    last_row: f64,
    /// Scratch of `usual_interval`.
    intervals: Vec<f64>,
    began: f64,
    fastest: f64,
    fitted_rows: f64,
    onset: Option<f64>,
    said_gaps: bool,
    row: Vec<f64>,
    active: Vec<bool>,
    trusted: Vec<bool>,
    suspicions: Vec<Option<Suspicion>>,
    /// Evidence of the only channel as a slow series, when it is one.
    slow: Option<f64>,
    /// A slow series is not announced again before this time, in seconds.
    rest_until: f64,
}

impl AssetWatch {
    pub(super) fn new(id: AssetId, criticality: u8, tags: &[Arc<Tag>], learn: Learn) -> Self {
        let channels: Vec<Channel> = tags.iter().map(Channel::new).collect();
        let count = channels.len();
        let speed = channels.iter().position(|channel| super::state::is_speed(&channel.tag));
        Self {
            id,
            criticality,
            channels,
            cloud: Cloud::new(count),
            phase: Phase::Learning,
            learnt: 0.0,
            running: Running::new(speed),
            track: Track::default(),
            latest: Assessment::default(),
            learn,
            fresh: 0,
            expected: count,
            row_time: f64::NEG_INFINITY,
            last_row: f64::NEG_INFINITY,
            intervals: Vec::new(),
            began: f64::NAN,
            fastest: 0.0,
            fitted_rows: 0.0,
            onset: None,
            said_gaps: false,
            row: Vec::with_capacity(count),
            active: Vec::with_capacity(count),
            trusted: Vec::with_capacity(count),
            suspicions: Vec::with_capacity(count),
            slow: None,
            rest_until: f64::NEG_INFINITY,
        }
    }

    /// How long it learns from now on.
    pub(super) const fn set_learn(&mut self, learn: Learn) {
        self.learn = learn;
    }

    /// Begins to learn anew.
    pub(super) fn relearn(&mut self) {
        self.cloud = Cloud::new(self.channels.len());
        for channel in &mut self.channels {
            channel.sanity = super::channel::Sanity::default();
        }
        self.phase = Phase::Learning;
        self.learnt = 0.0;
        self.fitted_rows = 0.0;
        self.began = f64::NAN;
        self.said_gaps = false;
        self.latest.ratio = 0.0;
        self.onset = None;
    }

    /// Takes one reading of a channel; `value` is `None` when it is not good.
    pub(super) fn on_reading(
        &mut self,
        index: usize,
        value: Option<f64>,
        time: f64,
        ctx: &mut Context<'_, '_>,
    ) {
        let behind = self.channels[index].time - time;
        if behind >= SET_BACK && value.is_some() && !ctx.quiet {
            self.set_back(behind);
        }
        if time <= self.channels[index].time {
            return;
        }
        if self.channels[index].fresh {
            self.close_row(ctx);
        }
        let channel = &mut self.channels[index];
        channel.arrive(time);
        channel.fresh = true;
        self.fresh += 1;
        if let Some(value) = value {
            channel.value = value;
            channel.good_at = time;
            channel.heard = ctx.now.mono.as_secs_f64();
            channel.new_value = true;
        }
        self.row_time = self.row_time.max(time);
        if self.fresh >= self.expected {
            self.close_row(ctx);
        }
    }

    /// The gateway's clock was set back: what was noted of the asset's times moves with it, or
    /// nothing would be newer until the clock came round again.
    fn set_back(&mut self, by: f64) {
        for channel in &mut self.channels {
            channel.set_back(by);
        }
        self.cloud.set_back(by);
        self.track.set_back(by);
        let earlier = by + EARLIER;
        for time in [&mut self.row_time, &mut self.last_row, &mut self.began, &mut self.rest_until]
        {
            *time -= earlier;
        }
        self.latest.time -= earlier;
        self.onset = self.onset.map(|onset| onset - earlier);
    }

    /// Closes the present row, if there is one, and judges or learns from it.
    pub(super) fn close_row(&mut self, ctx: &mut Context<'_, '_>) {
        if self.fresh == 0 {
            return;
        }
        let time = self.row_time;
        let step = time - self.last_row;
        if self.last_row.is_finite() && step > 0.0 {
            self.fastest = if self.fastest > 0.0 { self.fastest.min(step) } else { step };
        }
        self.last_row = time;
        if self.began.is_nan() {
            self.began = time;
        }
        self.latest.time = time;
        self.latest.rows += 1;
        let speed = self.running.speed_channel().map(|index| {
            (self.channels[index].value, self.cloud.usual(index).map(|(middle, _)| middle))
        });
        let was_off = !self.running.is_on();
        self.running.update(time, speed);
        if self.running.is_on() {
            if was_off {
                self.cloud.restart();
                self.channels.iter_mut().for_each(Channel::restart);
            }
            self.judge_row(time, ctx);
        }
        self.begin_row();
    }

    /// How often most of the tags come, in seconds: the lower median of their intervals. One tag
    /// whose messages came in a burst says nothing about the others.
    fn usual_interval(&mut self) -> f64 {
        let known = self.channels.iter().map(|channel| channel.interval);
        self.intervals.clear();
        self.intervals.extend(known.filter(|interval| *interval > 0.0));
        let Some(last) = self.intervals.len().checked_sub(1) else { return f64::INFINITY };
        *self.intervals.select_nth_unstable_by(last / 2, f64::total_cmp).1
    }

    fn begin_row(&mut self) {
        // Polled tags set the pace where there are any: what arrives when it likes may burst.
        let polled = self.channels.iter().any(|channel| channel.tag.period.is_some());
        let quickest = self
            .channels
            .iter()
            .filter(|channel| channel.tag.period.is_some() || !polled)
            .map(|channel| channel.interval)
            .filter(|interval| *interval > 0.0)
            .fold(f64::INFINITY, f64::min);
        let (time, fastest) = (self.row_time, self.fastest);
        self.fresh = 0;
        self.expected = 0;
        for channel in &mut self.channels {
            channel.fresh = false;
            channel.new_value = false;
            let quick = channel.interval <= 1.5 * quickest.max(fastest) || quickest.is_infinite();
            let silent = channel.dead_after().is_some_and(|after| time - channel.time > after);
            self.expected += usize::from(quick && !silent);
        }
        self.expected = self.expected.max(1);
    }

    fn judge_row(&mut self, time: f64, ctx: &mut Context<'_, '_>) {
        let judged = self.phase != Phase::Learning;
        self.row.clear();
        self.active.clear();
        self.trusted.clear();
        self.suspicions.clear();
        let holding = self.running.is_holding();
        let mut any_new = false;
        self.slow = None;
        if let [only] = self.channels.as_mut_slice()
            && only.new_value
            && only.is_slow()
        {
            self.slow = Some(only.judge_slow());
        }
        for channel in &mut self.channels {
            let dead = channel.dead_after().is_some_and(|after| time - channel.good_at > after);
            let mut suspicion = None;
            if channel.new_value {
                if !judged {
                    channel.learn();
                } else {
                    suspicion = channel.judge().filter(|_| !holding);
                }
            } else if judged && channel.track.open.is_some() {
                // Without a new value an announced suspicion stands; none begins.
                suspicion = channel.suspicion;
            }
            channel.suspicion = suspicion;
            let broken = channel.track.open.as_ref().is_some_and(|open| is_broken(open.pattern));
            let usable = !dead && !broken && !channel.value.is_nan();
            // A failed poll says nothing: the value before it must not weigh once more.
            let answered = channel.good_at >= channel.time;
            self.row.push(if usable && answered { channel.value } else { f64::NAN });
            any_new |= channel.new_value;
            // What a suspected sensor says stays evidence, though not the machine's.
            self.active.push(usable);
            self.trusted.push(usable && channel.track.open.is_none());
            self.suspicions.push(suspicion);
        }
        if !any_new {
            return;
        }
        let step = self.cloud.advance(time, &self.row);
        if self.phase != Phase::Armed || self.is_young() {
            self.learn_row(time, step, ctx);
            if !judged {
                return;
            }
        }
        if ctx.quiet {
            return;
        }
        match self.slow {
            Some(ratio) => self.decide_slow(time, ratio, ctx),
            None => self.decide(time, step, ctx),
        }
    }

    /// Weighs the row's evidence and moves the departures on.
    fn decide(&mut self, time: f64, step: f64, ctx: &mut Context<'_, '_>) {
        let ratio = self.cloud.ratio(&self.active, 0);
        if self.running.hold(time, ratio < RELEASE) {
            self.latest.ratio = 0.0;
            return;
        }
        let shared = self.shared();
        let quiet = self.track.open.is_none() && self.suspicions.iter().all(Option::is_none);
        if quiet && ratio < 1.0 {
            self.cloud.follow(step, ratio, self.is_young());
        }
        let company =
            if self.active == self.trusted { ratio } else { self.cloud.ratio(&self.trusted, 1) };
        let machine = company.max(shared.map_or(0.0, |(_, ratio)| ratio));
        if ratio > FIRST_SIGN {
            self.onset.get_or_insert(time);
        } else if self.track.open.is_none() {
            self.onset = None;
        }
        let mut worst = machine.max(ratio);
        for index in 0..self.channels.len() {
            let sensor = self.step_sensor(index, time, ratio, shared.map(|(p, _)| p), ctx);
            if sensor > 1.0 {
                // Ratios of other tests grow faster than those of distances; only their order
                // counts here.
                worst = worst.max(1.0 + sensor.ln());
            }
        }
        match self.track.step(time, machine, ON_DELAY) {
            Step::Stay => self.tell_again(time, machine, shared.map(|(p, _)| p), ctx),
            Step::Rise => self.rise(time, machine, shared.map(|(p, _)| p), ctx),
            Step::End => ctx.end(&mut self.track),
        }
        self.latest.ratio = worst;
        self.latest.anomalous = self.track.open.is_some()
            || self.channels.iter().any(|channel| channel.track.open.is_some());
    }

    /// The same for a single slow series: no delay, since the next value may be an hour away, and a
    /// rest afterwards.
    fn decide_slow(&mut self, time: f64, ratio: f64, ctx: &mut Context<'_, '_>) {
        self.latest.ratio = ratio;
        let weighed = if time < self.rest_until && self.track.open.is_none() { 0.0 } else { ratio };
        match self.track.step(time, weighed, 0.0) {
            Step::Stay => {}
            Step::Rise => {
                self.rest_until = time + REST;
                let channel = &self.channels[0];
                let Some(slow) = &channel.slow else { return };
                let usual = slow.usual().max(f64::MIN_POSITIVE);
                let sigma = (channel.value - slow.expected()) / usual;
                let note = announce::Note {
                    fault: Fault::Machine,
                    pattern: if sigma.abs() > 3.0 { Pattern::Level } else { Pattern::Shape },
                    detectors: vec![score("time-of-day", ratio)],
                    ratio,
                    since: time,
                    time,
                    evidence: vec![Evidence {
                        tag: channel.tag.path.tag.clone(),
                        value: channel.value,
                        expected: slow.expected(),
                        sigma,
                        contribution: 1.0,
                    }],
                };
                self.track.open = ctx.announce(&self.id, self.criticality, note, None);
            }
            Step::End => ctx.end(&mut self.track),
        }
        self.latest.anomalous = self.track.open.is_some();
    }

    /// The same suspicion against several sensors at once is the machine's doing.
    fn shared(&self) -> Option<(Pattern, f64)> {
        for pattern in [Pattern::Noise, Pattern::Spike] {
            let mut largest = 0.0;
            let mut second = 0.0;
            for suspicion in self.suspicions.iter().flatten().filter(|s| s.pattern == pattern) {
                if suspicion.ratio > largest {
                    second = largest;
                    largest = suspicion.ratio;
                } else if suspicion.ratio > second {
                    second = suspicion.ratio;
                }
            }
            if second > 0.0 {
                return Some((pattern, second));
            }
        }
        None
    }

    /// Moves one sensor's departure on; returns its evidence.
    fn step_sensor(
        &mut self,
        index: usize,
        time: f64,
        whole: f64,
        shared: Option<Pattern>,
        ctx: &mut Context<'_, '_>,
    ) -> f64 {
        let suspicion = self.suspicions[index].filter(|s| Some(s.pattern) != shared);
        let channel = &mut self.channels[index];
        if channel.dead {
            return 0.0;
        }
        if channel.track.open.is_none() && channel.track.above.is_none() && suspicion.is_none() {
            return 0.0;
        }
        let mut ratio = suspicion.map_or(0.0, |s| s.ratio);
        let alone = channel.alone;
        if alone {
            ratio = ratio.max(whole);
        }
        let patient = suspicion.is_some_and(|s| s.pattern == Pattern::Noise);
        // Two spikes in a row may turn out to be noise; it is told once more then.
        let other = suspicion.is_some_and(|suspicion| {
            suspicion.pattern == Pattern::Noise
                && channel.track.open.as_ref().is_some_and(|open| open.pattern == Pattern::Spike)
        });
        let chain = channel.track.open.as_ref().map(|open| open.chain);
        match channel.track.step(time, ratio, if patient { ON_DELAY } else { 0.0 }) {
            Step::Stay if !other => {}
            Step::Stay | Step::Rise => {
                if let Some(suspicion) = suspicion {
                    let note = announce::Note {
                        fault: Fault::Sensor,
                        pattern: suspicion.pattern,
                        detectors: vec![score(suspicion.detector, suspicion.ratio)],
                        ratio,
                        since: channel.track.above.unwrap_or(time),
                        time,
                        evidence: vec![self.evidence(index, 1.0)],
                    };
                    let open = ctx.announce(&self.id, self.criticality, note, chain);
                    self.channels[index].track.open = open;
                }
            }
            Step::End => {
                ctx.end(&mut channel.track);
                channel.alone = false;
            }
        }
        // What departed alone is in the asset's own evidence already.
        if alone { suspicion.map_or(0.0, |s| s.ratio) } else { ratio }
    }

    fn rise(&mut self, time: f64, ratio: f64, shared: Option<Pattern>, ctx: &mut Context<'_, '_>) {
        if let Some(index) = self.lone(time, shared) {
            let note = self.note(time, ratio, Fault::Sensor, shared);
            let open = ctx.announce(&self.id, self.criticality, note, None);
            let channel = &mut self.channels[index];
            channel.track.open = open;
            channel.alone = true;
            self.track.above = None;
            return;
        }
        // Others have joined a tag that had departed alone: it was the machine after all.
        for channel in &mut self.channels {
            if std::mem::take(&mut channel.alone) {
                ctx.end(&mut channel.track);
                channel.track = Track::default();
            }
        }
        let note = self.note(time, ratio, Fault::Machine, shared);
        self.track.open = ctx.announce(&self.id, self.criticality, note, None);
    }

    fn tell_again(
        &mut self,
        time: f64,
        ratio: f64,
        shared: Option<Pattern>,
        ctx: &mut Context<'_, '_>,
    ) {
        let severity = announce::severity(Fault::Machine, ratio, self.criticality);
        if !self.track.is_worse(time, ratio, severity) {
            return;
        }
        let note = self.note(time, ratio, Fault::Machine, shared);
        let chain = self.track.open.as_ref().map(|open| open.chain);
        self.track.open = ctx.announce(&self.id, self.criticality, note, chain);
    }

    /// Looks for tags that went silent while their source still speaks. `alive` says whether the
    /// source of a tag was heard lately.
    pub(super) fn check_silence(
        &mut self,
        mono: f64,
        time: f64,
        alive: impl Fn(&Tag) -> bool,
        ctx: &mut Context<'_, '_>,
    ) {
        for index in 0..self.channels.len() {
            let channel = &self.channels[index];
            let Some(after) = channel.dead_after() else { continue };
            let silent = mono - channel.heard;
            let heard_once = channel.heard.is_finite();
            if !heard_once || silent < after {
                if self.channels[index].dead {
                    self.channels[index].dead = false;
                    let channel = &mut self.channels[index];
                    ctx.end(&mut channel.track);
                    channel.track = Track::default();
                }
                continue;
            }
            if channel.dead || channel.track.open.is_some() || !alive(&channel.tag) {
                continue;
            }
            let ratio = silent / after;
            let note = announce::Note {
                fault: Fault::Sensor,
                pattern: Pattern::Stuck,
                detectors: vec![score("dead", ratio)],
                ratio,
                since: channel.good_at,
                time,
                evidence: vec![self.evidence(index, 1.0)],
            };
            let open = ctx.announce(&self.id, self.criticality, note, None);
            self.channels[index].dead = true;
            self.channels[index].track.open = open;
            self.latest.anomalous = true;
        }
    }

    /// Takes up a departure that was open when an earlier run ended.
    pub(super) fn adopt(&mut self, open: Open) {
        match &open.tag {
            None => self.track.open = Some(open),
            Some(tag) => {
                if let Some(channel) = self.channels.iter_mut().find(|c| c.tag.path.tag == *tag) {
                    channel.track.open = Some(open);
                }
            }
        }
        self.latest.anomalous = true;
    }
}

/// A deviation of this many robust sigmas of a single tag counts as its limit; the classical
/// control limit (Shewhart, 1931) lies at 3 for one tag looked at once.
const ROBUST_LIMIT: f64 = 5.0;

fn score(detector: &str, ratio: f64) -> DetectorScore {
    DetectorScore {
        detector: detector.to_owned(),
        score: crate::analytics::calibrate::bounded(ratio),
    }
}

/// Whether a sensor with this pattern says nothing at all any more; what it says else is noisy or
/// shifted, and still moves with the machine.
const fn is_broken(pattern: Pattern) -> bool {
    match pattern {
        Pattern::Stuck => true,
        Pattern::Noise
        | Pattern::Spike
        | Pattern::Drift
        | Pattern::Offset
        | Pattern::Level
        | Pattern::Shape => false,
    }
}
