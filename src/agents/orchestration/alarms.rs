//! The alarms orchestration owns: of confirmed anomalies and of the gateway itself, with the life
//! cycle of ISA-18.2.
//!
//! At most [`OPEN_MAX`] are open; when one more comes, the oldest acknowledged one (else the
//! oldest) is closed with the reason `overflow`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::agents::promise::Promise;
use crate::agents::{Chain, Outbox, Saved, StageError};
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState};
use crate::domain::command::{CommandResult, Refusal};
use crate::domain::event::Body;
use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::Now;

/// Alarms open at once.
pub(super) const OPEN_MAX: usize = 1024;
/// Dead letters that one alarm lists.
pub(super) const EVENTS_MAX: usize = 64;
/// The longest an alarm can be put aside: a shift plan's fortnight. Longer is a removal in
/// disguise.
const SHELF_MAX: Duration = Duration::from_secs(14 * 86_400);

/// An alarm that shall be raised.
#[derive(Debug)]
pub(super) struct New {
    pub asset: Option<AssetId>,
    pub tag: Option<TagId>,
    pub cause: AlarmCause,
    pub severity: Severity,
    pub value: Option<f64>,
    pub message: String,
    /// What a system alarm is about; empty for others.
    pub subject: String,
}

/// An alarm as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(flatten)]
    pub alarm: Alarm,
    /// What a system alarm is about, e.g. the source's name.
    #[serde(default)]
    pub subject: String,
    /// Dead letters behind it.
    #[serde(default)]
    pub events: Vec<EventId>,
    shelf: Option<Promise>,
    #[serde(skip)]
    shelf_due: Option<Duration>,
}

/// The open alarms.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    open: BTreeMap<EventId, Kept>,
}

impl Alarms {
    pub(super) fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        for row in saved.of(RecordKind::Alarm) {
            let unreadable =
                |error| StageError::new(format!("alarm {} cannot be read: {error}", row.id));
            let alarm: Alarm = row.read().map_err(unreadable)?;
            match alarm.cause {
                // Detection's own.
                AlarmCause::Limit { .. } => continue,
                AlarmCause::Score { .. } | AlarmCause::System { .. } => {}
            }
            let mut kept: Kept = row.read().map_err(unreadable)?;
            kept.shelf_due = kept.shelf.map(|shelf| shelf.mono(now));
            self.open.insert(kept.alarm.id, kept);
        }
        Ok(())
    }

    pub(super) fn raise(
        &mut self,
        now: Now,
        chain: Option<Chain>,
        new: New,
        out: &mut Outbox<'_>,
    ) -> EventId {
        if self.open.len() >= OPEN_MAX {
            let known = |kept: &&Kept| kept.alarm.state == AlarmState::Acknowledged;
            let victim = self.open.values().find(known).or_else(|| self.open.values().next());
            if let Some(id) = victim.map(|kept| kept.alarm.id) {
                self.clear(now, id, Some("overflow"), out);
            }
        }
        let New { asset, tag, cause, severity, value, message, subject } = new;
        let mut raised = None;
        let id = out.emit_with(chain, |id| {
            let alarm = Alarm {
                id,
                asset,
                tag,
                cause,
                severity,
                value,
                message,
                state: AlarmState::Unacknowledged,
                raised: now.utc,
                cleared: None,
                closed_by: None,
                acknowledged_by: None,
                shelved_until: None,
                correlation: chain.map_or(id, |chain| chain.correlation),
            };
            raised = Some(alarm.clone());
            Body::AlarmRaised(alarm)
        });
        let alarm = raised.expect("the body was made by the call above");
        let kept = Kept { alarm, subject, events: Vec::new(), shelf: None, shelf_due: None };
        out.save(record(&kept, true));
        self.open.insert(id, kept);
        id
    }

    /// Changes severity and message; says so when the severity rises or falls.
    pub(super) fn update(
        &mut self,
        id: EventId,
        severity: Severity,
        message: String,
        out: &mut Outbox<'_>,
    ) {
        let Some(kept) = self.open.get_mut(&id) else { return };
        if kept.alarm.severity == severity {
            return;
        }
        if severity > kept.alarm.severity && kept.alarm.state == AlarmState::Acknowledged {
            // What was acknowledged was less than this.
            kept.alarm.state = AlarmState::Unacknowledged;
            kept.alarm.acknowledged_by = None;
        }
        kept.alarm.severity = severity;
        kept.alarm.message = message;
        out.save(record(kept, true));
        out.emit_from(onward(out, &kept.alarm), Body::AlarmUpdated(kept.alarm.clone()));
    }

    /// The condition has ended, or `by` says why else the alarm is closed.
    pub(super) fn clear(&mut self, now: Now, id: EventId, by: Option<&str>, out: &mut Outbox<'_>) {
        let Some(mut kept) = self.open.remove(&id) else { return };
        kept.shelf = None;
        let alarm = &mut kept.alarm;
        alarm.state = if by.is_none() && alarm.acknowledged_by.is_none() {
            AlarmState::ReturnedUnacknowledged
        } else {
            AlarmState::Cleared
        };
        alarm.cleared = Some(now.utc);
        alarm.closed_by = by.map(str::to_owned);
        alarm.shelved_until = None;
        out.emit_from(onward(out, alarm), Body::AlarmCleared(alarm.clone()));
        out.save(record(&kept, false));
    }

    pub(super) fn get(&self, id: EventId) -> Option<&Alarm> {
        self.open.get(&id).map(|kept| &kept.alarm)
    }

    /// The open alarm about `condition` of `subject`.
    pub(super) fn system(&self, condition: &str, subject: &str) -> Option<EventId> {
        self.open.values().find_map(|kept| match &kept.alarm.cause {
            AlarmCause::System { condition: one } => {
                (one == condition && kept.subject == subject).then_some(kept.alarm.id)
            }
            AlarmCause::Score { .. } | AlarmCause::Limit { .. } => None,
        })
    }

    /// Lists a dead letter with its alarm.
    pub(super) fn add_event(&mut self, id: EventId, event: EventId, out: &mut Outbox<'_>) {
        if let Some(kept) = self.open.get_mut(&id)
            && kept.events.len() < EVENTS_MAX
            && !kept.events.contains(&event)
        {
            kept.events.push(event);
            out.save(record(kept, true));
        }
    }

    /// Takes a dead letter off; its alarm ends with the last one.
    pub(super) fn remove_event(&mut self, now: Now, event: EventId, out: &mut Outbox<'_>) {
        let found = self.open.values_mut().find(|kept| kept.events.contains(&event));
        let Some(kept) = found else { return };
        kept.events.retain(|one| *one != event);
        let id = kept.alarm.id;
        if kept.events.is_empty() {
            self.clear(now, id, None, out);
        } else {
            out.save(record(kept, true));
        }
    }

    /// Closes what belongs to assets that are gone.
    pub(super) fn close_removed(
        &mut self,
        now: Now,
        kept: impl Fn(&AssetId) -> bool,
        out: &mut Outbox<'_>,
    ) {
        let gone: Vec<EventId> = self
            .open
            .values()
            .filter(|open| open.alarm.asset.as_ref().is_some_and(|asset| !kept(asset)))
            .map(|open| open.alarm.id)
            .collect();
        for id in gone {
            self.clear(now, id, Some("configuration"), out);
        }
    }

    /// `None` when the alarm is not one of these.
    pub(super) fn acknowledge(
        &mut self,
        id: EventId,
        by: &str,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        let kept = self.open.get_mut(&id)?;
        if kept.alarm.acknowledged_by.is_some() {
            return Some(Err(Refusal::Conflict {
                detail: format!("alarm {id} is acknowledged already"),
                first: json!({ "alarm": kept.alarm }),
            }));
        }
        kept.alarm.acknowledged_by = Some(by.to_owned());
        if kept.alarm.state != AlarmState::Shelved {
            kept.alarm.state = AlarmState::Acknowledged;
        }
        out.emit_from(onward(out, &kept.alarm), Body::AlarmAcknowledged(kept.alarm.clone()));
        out.save(record(kept, true));
        Some(Ok(json!({ "alarm": kept.alarm })))
    }

    /// `None` when the alarm is not one of these.
    pub(super) fn shelve(
        &mut self,
        now: Now,
        id: EventId,
        span: Duration,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        let kept = self.open.get_mut(&id)?;
        if span.is_zero() || span > SHELF_MAX {
            return Some(Err(Refusal::Invalid(format!(
                "an alarm is put aside for at most 14 days, not for {} s",
                span.as_secs()
            ))));
        }
        let promise = Promise::new(now, span);
        kept.shelf = Some(promise);
        kept.shelf_due = Some(promise.mono(now));
        kept.alarm.state = AlarmState::Shelved;
        kept.alarm.shelved_until = Some(promise.utc);
        out.emit_from(onward(out, &kept.alarm), Body::AlarmShelved(kept.alarm.clone()));
        out.save(record(kept, true));
        Some(Ok(json!({ "alarm": kept.alarm })))
    }

    /// `None` when the alarm is not one of these.
    pub(super) fn unshelve(&mut self, id: EventId, out: &mut Outbox<'_>) -> Option<CommandResult> {
        let kept = self.open.get_mut(&id)?;
        if kept.alarm.state != AlarmState::Shelved {
            return Some(Err(Refusal::Conflict {
                detail: format!("alarm {id} is not put aside"),
                first: json!({ "alarm": kept.alarm }),
            }));
        }
        kept.shelf = None;
        kept.shelf_due = None;
        kept.alarm.shelved_until = None;
        kept.alarm.state = if kept.alarm.acknowledged_by.is_some() {
            AlarmState::Acknowledged
        } else {
            AlarmState::Unacknowledged
        };
        out.emit_from(onward(out, &kept.alarm), Body::AlarmUnshelved(kept.alarm.clone()));
        out.save(record(kept, true));
        Some(Ok(json!({ "alarm": kept.alarm })))
    }

    pub(super) fn next_deadline(&self) -> Option<Duration> {
        self.open.values().filter_map(|kept| kept.shelf_due).min()
    }

    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) {
        let due: Vec<EventId> = self
            .open
            .values()
            .filter(|kept| kept.shelf_due.is_some_and(|due| due <= now.mono))
            .map(|kept| kept.alarm.id)
            .collect();
        for id in due {
            // Whether it was on the shelf is known here, so the answer says nothing new.
            self.unshelve(id, out);
        }
    }
}

fn record(kept: &Kept, open: bool) -> Record {
    let alarm = &kept.alarm;
    let record = Record::new(RecordKind::Alarm, alarm.id, alarm.raised, kept)
        .in_state(alarm.state.as_str(), open);
    match &alarm.asset {
        Some(asset) => record.about(asset),
        None => record,
    }
}

/// What happens to an alarm belongs to its chain, whatever brought it about.
fn onward(out: &Outbox<'_>, alarm: &Alarm) -> Chain {
    let cause = out.context().map_or(alarm.id, |chain| chain.cause);
    Chain { cause, correlation: alarm.correlation }
}
