//! Limit alarms of one tag: raised from the first good reading, one at a time, with the life cycle
//! of ISA-18.2. The stage owns the alarms of kind limit and their running delays.
//!
//! ```text
//!            beyond a limit for on_delay            back by the deadband for off_delay
//!   quiet ───────────────────────────────▶ alarm ───────────────────────────────▶ quiet
//!                                          │   ▲
//!                                          └───┘ another limit of the same side: updated
//! ```

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agents::{Chain, Outbox};
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState, LimitKind};
use crate::domain::asset::Asset;
use crate::domain::event::Body;
use crate::domain::ids::TagPath;
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::tag::{Limits, Tag};
use crate::domain::time::{Now, Timestamp};

/// What a running delay waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Waiting {
    /// To raise the alarm.
    On,
    /// To clear it.
    Off,
}

/// A running delay as it is written down: its end in UTC, and what was left when it was written,
/// for a gateway whose clock is not trusted after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedDelay {
    /// Whose it is.
    pub(super) tag: TagPath,
    waiting: Waiting,
    ends: Timestamp,
    left: Duration,
}

/// A delay in this run.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Delay {
    waiting: Waiting,
    /// On the monotonic clock.
    ends: Duration,
    /// Whether a reading of this run has confirmed the condition; a delay handed over by a restart
    /// does not act on what an earlier run saw.
    confirmed: bool,
    /// Whether a record says that it runs.
    written: bool,
}

/// The limits of one tag and where they stand.
#[derive(Debug)]
pub(super) struct LimitWatch {
    tag: Arc<Tag>,
    asset: Option<Arc<Asset>>,
    limits: Limits,
    alarm: Option<Alarm>,
    delay: Option<Delay>,
    shelf_ends: Option<Duration>,
    /// Last good value and its time.
    last: (f64, Timestamp),
}

impl LimitWatch {
    /// A watch over a tag; `None` when it has no limits.
    pub(super) fn new(tag: &Arc<Tag>, asset: Option<&Arc<Asset>>) -> Option<Self> {
        let limits = tag.limits;
        let any = limits.low_low.or(limits.low).or(limits.high).or(limits.high_high);
        any.map(|_| Self {
            tag: Arc::clone(tag),
            asset: asset.cloned(),
            limits,
            alarm: None,
            delay: None,
            shelf_ends: None,
            last: (f64::NAN, Timestamp::from_micros(i64::MIN)),
        })
    }

    /// Takes over what an earlier watch over this tag was about.
    pub(super) fn inherit(&mut self, old: Self) {
        self.alarm = old.alarm;
        self.delay = old.delay;
        self.shelf_ends = old.shelf_ends;
        self.last = old.last;
    }

    /// The open alarm.
    pub(super) const fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Takes up an alarm that was open when an earlier run ended.
    pub(super) fn restore_alarm(&mut self, now: Now, alarm: Alarm) {
        self.shelf_ends = alarm.shelved_until.map(|until| now.mono + until.since(now.utc));
        self.alarm = Some(alarm);
    }

    /// Takes up a delay that ran when an earlier run ended.
    pub(super) fn restore_delay(&mut self, now: Now, saved: &SavedDelay) {
        let whole = match saved.waiting {
            Waiting::On => self.limits.on_delay,
            Waiting::Off => self.limits.off_delay,
        };
        let left = if now.trusted { saved.ends.since(now.utc) } else { saved.left };
        self.delay = Some(Delay {
            waiting: saved.waiting,
            ends: now.mono + left.min(whole),
            confirmed: false,
            written: true,
        });
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let delay = self.delay.filter(|delay| delay.confirmed).map(|delay| delay.ends);
        [delay, self.shelf_ends].into_iter().flatten().min()
    }

    /// Which limit the value is beyond, keeping the present alarm's limit until the value is back
    /// by the deadband.
    fn zone(&self, value: f64) -> Option<(LimitKind, f64)> {
        let held = self.alarm.as_ref().and_then(|alarm| match alarm.cause {
            AlarmCause::Limit { which, .. } => Some(which),
            AlarmCause::Score { .. } | AlarmCause::System { .. } => None,
        });
        let band = self.limits.deadband;
        let above = |which, limit: Option<f64>| {
            let keeps = match which {
                LimitKind::HighHigh => held == Some(LimitKind::HighHigh),
                LimitKind::High | LimitKind::Low | LimitKind::LowLow => {
                    matches!(held, Some(LimitKind::High | LimitKind::HighHigh))
                }
            };
            limit.filter(|limit| value > *limit || keeps && value > limit - band)
        };
        let below = |which, limit: Option<f64>| {
            let keeps = match which {
                LimitKind::LowLow => held == Some(LimitKind::LowLow),
                LimitKind::Low | LimitKind::High | LimitKind::HighHigh => {
                    matches!(held, Some(LimitKind::Low | LimitKind::LowLow))
                }
            };
            limit.filter(|limit| value < *limit || keeps && value < limit + band)
        };
        let pair = |which, limit: Option<f64>| limit.map(|limit| (which, limit));
        pair(LimitKind::HighHigh, above(LimitKind::HighHigh, self.limits.high_high))
            .or_else(|| pair(LimitKind::LowLow, below(LimitKind::LowLow, self.limits.low_low)))
            .or_else(|| pair(LimitKind::High, above(LimitKind::High, self.limits.high)))
            .or_else(|| pair(LimitKind::Low, below(LimitKind::Low, self.limits.low)))
    }

    /// Takes one good reading. The common case (inside, no alarm, no delay) costs four
    /// comparisons.
    pub(super) fn on_value(&mut self, now: Now, value: f64, time: Timestamp, out: &mut Outbox<'_>) {
        if time < self.last.1 {
            // Late: what came after it says how things stand.
            return;
        }
        self.last = (value, time);
        let zone = self.zone(value);
        match (self.alarm.is_some(), zone) {
            (false, None) => self.stop_delay(now, out),
            (false, Some(beyond)) => self.wait(now, Waiting::On, Some(beyond), out),
            (true, None) => self.wait(now, Waiting::Off, None, out),
            (true, Some((which, limit))) => {
                self.stop_delay(now, out);
                self.stay(now, which, limit, out);
            }
        }
    }

    /// A delay or the time on the shelf may have ended.
    pub(super) fn tick(&mut self, now: Now, out: &mut Outbox<'_>) {
        if let Some(delay) = self.delay
            && delay.confirmed
            && delay.ends <= now.mono
        {
            match delay.waiting {
                Waiting::On => {
                    if let Some((which, limit)) = self.zone(self.last.0) {
                        self.raise(now, which, limit, out);
                    } else {
                        self.stop_delay(now, out);
                    }
                }
                Waiting::Off => self.clear(now, None, out),
            }
        }
        if self.shelf_ends.is_some_and(|ends| ends <= now.mono) {
            self.unshelve(now, out);
        }
    }

    /// Begins a delay, lets it go on, or acts when it is over.
    fn wait(
        &mut self,
        now: Now,
        waiting: Waiting,
        beyond: Option<(LimitKind, f64)>,
        out: &mut Outbox<'_>,
    ) {
        let span = match waiting {
            Waiting::On => self.limits.on_delay,
            Waiting::Off => self.limits.off_delay,
        };
        let over = match &mut self.delay {
            Some(delay) if delay.waiting == waiting => {
                delay.confirmed = true;
                delay.ends <= now.mono
            }
            _ => span.is_zero(),
        };
        if over {
            match beyond {
                Some((which, limit)) => self.raise(now, which, limit, out),
                None => self.clear(now, None, out),
            }
        } else if self.delay.is_none_or(|delay| delay.waiting != waiting) {
            let ends = now.mono + span;
            self.delay = Some(Delay { waiting, ends, confirmed: true, written: true });
            let saved = SavedDelay {
                tag: self.tag.path.clone(),
                waiting,
                ends: now.utc.after(span),
                left: span,
            };
            out.save(
                Record::new(RecordKind::Delay, &self.tag.path, now.utc, &saved)
                    .about(&self.tag.path.asset)
                    .in_state("running", true),
            );
        }
    }

    fn stop_delay(&mut self, now: Now, out: &mut Outbox<'_>) {
        if let Some(delay) = self.delay.take()
            && delay.written
        {
            let saved = SavedDelay {
                tag: self.tag.path.clone(),
                waiting: delay.waiting,
                ends: now.utc,
                left: Duration::ZERO,
            };
            out.save(
                Record::new(RecordKind::Delay, &self.tag.path, now.utc, &saved)
                    .about(&self.tag.path.asset)
                    .in_state("over", false),
            );
        }
    }

    fn raise(&mut self, now: Now, which: LimitKind, limit: f64, out: &mut Outbox<'_>) {
        self.stop_delay(now, out);
        let (value, time) = self.last;
        let mut raised = None;
        out.emit_with(None, |id| {
            let alarm = Alarm {
                id,
                asset: Some(self.tag.path.asset.clone()),
                tag: Some(self.tag.path.tag.clone()),
                cause: AlarmCause::Limit { which, limit },
                severity: self.severity(which),
                value: Some(value),
                message: self.sentence(which, limit, value),
                state: AlarmState::Unacknowledged,
                raised: time,
                cleared: None,
                closed_by: None,
                acknowledged_by: None,
                shelved_until: None,
                correlation: id,
            };
            raised = Some(alarm.clone());
            Body::AlarmRaised(alarm)
        });
        self.alarm = raised;
        self.write(now, out);
    }

    /// The alarm goes on; says so when it is another limit now.
    fn stay(&mut self, now: Now, which: LimitKind, limit: f64, out: &mut Outbox<'_>) {
        let cause = AlarmCause::Limit { which, limit };
        let same_side = self.alarm.as_ref().is_some_and(|alarm| {
            matches!(alarm.cause, AlarmCause::Limit { which: old, .. } if upper(old) == upper(which))
        });
        if self.alarm.as_ref().is_some_and(|alarm| alarm.cause == cause) {
            return;
        }
        if !same_side {
            // From above the one limit to below the other: one ends, another begins.
            self.clear(now, None, out);
            self.wait(now, Waiting::On, Some((which, limit)), out);
            return;
        }
        let (severity, value) = (self.severity(which), self.last.0);
        let message = self.sentence(which, limit, value);
        if let Some(alarm) = &mut self.alarm {
            let worse = severity > alarm.severity;
            alarm.cause = cause;
            alarm.severity = severity;
            alarm.value = Some(value);
            alarm.message = message;
            if worse && alarm.state == AlarmState::Acknowledged {
                // What was acknowledged was less than this (ISA-18.2, re-alarming on escalation).
                alarm.state = AlarmState::Unacknowledged;
                alarm.acknowledged_by = None;
            }
        }
        self.announce(out, Body::AlarmUpdated);
        self.write(now, out);
    }

    /// Ends the alarm; `by` says why when it was not the condition's end. Returns it as it ended.
    pub(super) fn clear(&mut self, now: Now, by: Option<&str>, out: &mut Outbox<'_>) {
        self.stop_delay(now, out);
        self.shelf_ends = None;
        let Some(mut alarm) = self.alarm.take() else { return };
        if by.is_none() && self.last.0.is_finite() {
            alarm.value = Some(self.last.0);
        }
        alarm.cleared = Some(if by.is_some() { now.utc } else { self.last.1 });
        alarm.closed_by = by.map(str::to_owned);
        alarm.shelved_until = None;
        let nobody_knew = alarm.acknowledged_by.is_none() && by.is_none();
        alarm.state =
            if nobody_knew { AlarmState::ReturnedUnacknowledged } else { AlarmState::Cleared };
        let chain = Chain { cause: alarm.id, correlation: alarm.correlation };
        out.save(record(now, &alarm));
        out.emit_from(chain, Body::AlarmCleared(alarm));
    }

    /// Notes that somebody knows.
    pub(super) fn acknowledge(&mut self, now: Now, by: &str, out: &mut Outbox<'_>) -> bool {
        let Some(alarm) = &mut self.alarm else { return false };
        if alarm.acknowledged_by.is_some() {
            return false;
        }
        alarm.acknowledged_by = Some(by.to_owned());
        if alarm.state != AlarmState::Shelved {
            alarm.state = AlarmState::Acknowledged;
        }
        self.announce(out, Body::AlarmAcknowledged);
        self.write(now, out);
        true
    }

    /// Puts the alarm aside for a while.
    pub(super) fn shelve(&mut self, now: Now, span: Duration, out: &mut Outbox<'_>) {
        if let Some(alarm) = &mut self.alarm {
            alarm.state = AlarmState::Shelved;
            alarm.shelved_until = Some(now.utc.after(span));
            self.shelf_ends = Some(now.mono.saturating_add(span));
            self.announce(out, Body::AlarmShelved);
            self.write(now, out);
        }
    }

    /// Takes it back from the shelf.
    pub(super) fn unshelve(&mut self, now: Now, out: &mut Outbox<'_>) -> bool {
        self.shelf_ends = None;
        let Some(alarm) = &mut self.alarm else { return false };
        if alarm.state != AlarmState::Shelved {
            return false;
        }
        alarm.shelved_until = None;
        alarm.state = if alarm.acknowledged_by.is_some() {
            AlarmState::Acknowledged
        } else {
            AlarmState::Unacknowledged
        };
        self.announce(out, Body::AlarmUnshelved);
        self.write(now, out);
        true
    }

    fn announce(&self, out: &mut Outbox<'_>, body: impl FnOnce(Alarm) -> Body) {
        if let Some(alarm) = &self.alarm {
            let chain = Chain { cause: alarm.id, correlation: alarm.correlation };
            out.emit_from(chain, body(alarm.clone()));
        }
    }

    fn write(&self, now: Now, out: &mut Outbox<'_>) {
        if let Some(alarm) = &self.alarm {
            out.save(record(now, alarm));
        }
    }

    /// A warning limit is worth a look within days, a failure limit within the shift; one step
    /// more where the plant depends on the asset, one less where it hardly does.
    fn severity(&self, which: LimitKind) -> Severity {
        let failure = matches!(which, LimitKind::HighHigh | LimitKind::LowLow);
        let level = self.asset.as_ref().map_or(3, |asset| asset.criticality.level());
        match (failure, level) {
            (false, 1 | 2) => Severity::Low,
            (false, 3) | (true, 1 | 2) => Severity::Medium,
            (false, _) | (true, 3) => Severity::High,
            (true, _) => Severity::Critical,
        }
    }

    fn sentence(&self, which: LimitKind, limit: f64, value: f64) -> String {
        let name = self.asset.as_ref().map_or(self.tag.path.asset.as_str(), |asset| &asset.name);
        let (tag, unit) = (&self.tag.path.tag, &self.tag.unit);
        let gap = if unit.is_empty() { "" } else { " " };
        let (side, word) = match which {
            LimitKind::HighHigh => ("above", "high-high"),
            LimitKind::High => ("above", "high"),
            LimitKind::Low => ("below", "low"),
            LimitKind::LowLow => ("below", "low-low"),
        };
        let value = short(value);
        format!(
            "{name}: {tag} is {value}{gap}{unit}, {side} its {word} limit of {limit}{gap}{unit}"
        )
    }
}

/// A value as a person reads it: at most five significant digits, no needless zeros.
pub(super) fn short(value: f64) -> String {
    if value.abs() >= 1e6 || (value.abs() < 1e-3 && value.abs() > 0.0) {
        return format!("{value:.3e}");
    }
    let digits = if value.abs() >= 1000.0 {
        1
    } else if value.abs() >= 10.0 {
        2
    } else {
        4
    };
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const fn upper(which: LimitKind) -> bool {
    matches!(which, LimitKind::High | LimitKind::HighHigh)
}

/// The row of an alarm. Open until the condition has ended.
pub(super) fn record(now: Now, alarm: &Alarm) -> Record {
    let open = alarm.cleared.is_none();
    let record = Record::new(RecordKind::Alarm, alarm.id, alarm.raised.min(now.utc), alarm)
        .in_state(alarm.state.as_str(), open);
    match &alarm.asset {
        Some(asset) => record.about(asset),
        None => record,
    }
}
