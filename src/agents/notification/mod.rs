//! Notification: who is told what, once, and through which channel.
//!
//! An event worth telling becomes a notice, the notice one message for each channel that wants its
//! severity. Messages are rows until their delivery has ended; those that a restart interrupted are
//! handed out again, so a message may come twice but never not at all. The `mqtt` channel is the
//! uplink: the event `notification.sent` is the message itself and is emitted at once.
//!
//! Nothing is told twice within five minutes, and no channel gets more than [`ledger::RATE_MAX`]
//! messages an hour; critical ones pass both, except the very same alarm once more. Whatever is
//! held back is counted, and the count is told in a digest at most [`DIGEST_AFTER`] later.
//!
//! Bounds: [`PENDING_MAX`] messages under way; beyond, all but critical ones are held back.

mod ledger;
mod notice;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Chain, Delivery, Effect, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::config::Channel;
use crate::domain::alarm::{Alarm, AlarmCause, AlarmState};
use crate::domain::event::{Body, Event, Message};
use crate::domain::ids::{EventId, TechnicianId};
use crate::domain::prognosis::Prediction;
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::WorkOrder;
use ledger::{Held, Ledger, News, Rate, Recent, ToldPrediction};
use notice::Notice;

/// Messages whose delivery has not ended.
pub const PENDING_MAX: usize = 1_000;

/// What was held back is told after this.
pub const DIGEST_AFTER: Duration = Duration::from_secs(600);

/// Identity of the one record that is no message.
const LEDGER: &str = "ledger";

/// Condition of the alarm about dead letters. The dead letter itself is told, with the way to try it
/// again; the alarm, which comes with the first of each stage, would say the same once more.
const SET_ASIDE: &str = "event-set-aside";

/// A message under way, as its record keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    message: Message,
    /// Whence the message came.
    chain: Chain,
    /// When it was queued.
    since: Timestamp,
}

/// The stage.
#[derive(Debug)]
pub struct Notification {
    setting: Setting,
    pending: BTreeMap<EventId, Pending>,
    /// Messages of an earlier run are to be handed out again, at this time.
    hand_out_at: Option<Duration>,
    recent: Recent,
    rates: BTreeMap<String, Rate>,
    ledger: Ledger,
    digest_at: Option<Duration>,
    /// Severity at which each open alarm was last told.
    alarms: BTreeMap<EventId, Severity>,
    /// Who was told to do each open order.
    technicians: BTreeMap<EventId, TechnicianId>,
}

impl Notification {
    /// A stage that has told nobody anything.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self {
            setting: setting.clone(),
            pending: BTreeMap::new(),
            hand_out_at: None,
            recent: Recent::default(),
            rates: BTreeMap::new(),
            ledger: Ledger::default(),
            digest_at: None,
            alarms: BTreeMap::new(),
            technicians: BTreeMap::new(),
        }
    }

    /// The channels that want messages of this severity, each once.
    fn channels(&self, severity: Severity) -> BTreeSet<&'static str> {
        let wanting = |channel: &&crate::config::NotifyChannel| severity >= channel.min_severity;
        let channels = self.setting.config.notify.iter().filter(wanting);
        channels.map(|channel| channel.channel.as_str()).collect()
    }

    /// Tells people, unless they know.
    fn tell(&mut self, now: Now, notice: &Notice, out: &mut Outbox<'_>) {
        let channels = self.channels(notice.severity);
        let news = self.recent.judge(now.mono, notice);
        for channel in channels {
            let room = self.pending.len() < PENDING_MAX || notice.severity == Severity::Critical;
            let held = match news {
                News::Repeated => continue,
                News::Chatter => true,
                News::New => {
                    let rate = self.rates.entry(channel.to_owned()).or_default();
                    !(room && rate.admit(now.mono, notice.severity))
                }
            };
            if held {
                self.ledger.held.entry(channel.to_owned()).or_default().add(notice);
                self.digest_at.get_or_insert(now.mono.saturating_add(DIGEST_AFTER));
                self.save_ledger(now, out);
            } else {
                let chain = out.context();
                self.send(now, channel, notice, chain, out);
            }
        }
    }

    fn send(
        &mut self,
        now: Now,
        channel: &str,
        notice: &Notice,
        chain: Option<Chain>,
        out: &mut Outbox<'_>,
    ) {
        let mut message = Message {
            channel: channel.to_owned(),
            recipients: notice.recipients.clone(),
            template: notice.template.to_owned(),
            severity: notice.severity,
            subject: notice.subject.clone(),
            text: notice.text.clone(),
            attempts: 0,
        };
        if channel == Channel::Mqtt.as_str() {
            message.attempts = 1;
            let id = out.emit_with(chain, |_| Body::NotificationSent(message.clone()));
            let chain = chain.unwrap_or(Chain { cause: id, correlation: id });
            let sent = Pending { message, chain, since: now.utc };
            out.save(record(id, &sent, "sent", false));
            return;
        }
        let id = out.emit_with(chain, |_| Body::NotificationQueued(message.clone()));
        let correlation = chain.map_or(id, |chain| chain.correlation);
        let pending = Pending { message, chain: Chain { cause: id, correlation }, since: now.utc };
        out.save(record(id, &pending, "queued", true));
        out.effect(Effect::Notify { id, message: pending.message.clone() });
        self.pending.insert(id, pending);
    }

    fn save_ledger(&self, now: Now, out: &mut Outbox<'_>) {
        out.save(
            Record::new(RecordKind::Notification, LEDGER, now.utc, &self.ledger)
                .in_state(LEDGER, true),
        );
    }

    fn alarm(&mut self, now: Now, alarm: &Alarm, template: &'static str, out: &mut Outbox<'_>) {
        if matches!(&alarm.cause, AlarmCause::System { condition } if condition == SET_ASIDE) {
            return;
        }
        let told = self.alarms.get(&alarm.id).copied();
        let worse = told.is_none_or(|told| alarm.severity > told);
        // Whoever shelved it asked not to hear of it; but not that it became critical.
        let shelved = alarm.state == AlarmState::Shelved && alarm.severity < Severity::Critical;
        if worse && !shelved {
            self.alarms.insert(alarm.id, alarm.severity);
            let notice = notice::alarm(&self.setting.config, alarm, template);
            self.tell(now, &notice, out);
        }
    }

    fn prediction(
        &mut self,
        now: Now,
        event: &Event,
        prediction: &Prediction,
        out: &mut Outbox<'_>,
    ) {
        let notice = notice::prediction(&self.setting.config, prediction);
        let remaining = Duration::try_from_secs_f64(prediction.rul.p50).unwrap_or(Duration::MAX);
        let new = ToldPrediction {
            event: event.id,
            failure: prediction.as_of.after(remaining),
            severity: notice.severity,
        };
        if self.ledger.news(&notice.matter, new, prediction.as_of) {
            self.save_ledger(now, out);
            self.tell(now, &notice, out);
        }
    }

    fn order(&mut self, now: Now, order: &WorkOrder, template: &'static str, out: &mut Outbox<'_>) {
        let before = match &order.booking {
            Some(booking) if !order.state.is_final() => {
                self.technicians.insert(order.id, booking.technician.clone())
            }
            Some(_) | None => self.technicians.remove(&order.id),
        };
        let notice = notice::order(&self.setting.config, order, template, before.as_ref());
        self.tell(now, &notice, out);
    }

    /// Gives up messages whose channel is gone, and what was held back from it.
    fn drop_channels(&mut self, now: Now, out: &mut Outbox<'_>) {
        let config = self.setting.config.clone();
        let there = |channel: &str| config.notify.iter().any(|row| row.channel.as_str() == channel);
        let gone: Vec<EventId> = self
            .pending
            .iter()
            .filter(|(_, pending)| !there(&pending.message.channel))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(pending) = self.pending.remove(&id) {
                out.save(record(id, &pending, "failed", false));
                let error = "configuration".to_owned();
                let Pending { message, chain, .. } = pending;
                out.emit_from(chain, Body::NotificationFailed { message, error });
            }
        }
        let held = self.ledger.held.len();
        self.ledger.held.retain(|channel, _| there(channel));
        if self.ledger.held.len() != held {
            self.save_ledger(now, out);
        }
        self.rates.retain(|channel, _| there(channel));
    }
}

fn record(id: EventId, pending: &Pending, state: &str, open: bool) -> Record {
    Record::new(RecordKind::Notification, id, pending.since, pending).in_state(state, open)
}

impl Stage for Notification {
    fn name(&self) -> StageName {
        StageName::Notification
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        let unreadable = |record: &Record, error| {
            StageError::new(format!("notification {} cannot be read: {error}", record.id))
        };
        for record in saved.of(RecordKind::Notification) {
            if record.id == LEDGER {
                self.ledger = record.read().map_err(|error| unreadable(record, error))?;
                continue;
            }
            let pending: Pending = record.read().map_err(|error| unreadable(record, error))?;
            let id = EventId::parse(&record.id)
                .map_err(|error| StageError::new(format!("a notification's id: {error}")))?;
            self.pending.insert(id, pending);
        }
        // Whatever is open elsewhere has been told before. A record of another form only means
        // that something may be told once more.
        for alarm in saved.of(RecordKind::Alarm).filter_map(|record| record.read::<Alarm>().ok()) {
            self.alarms.insert(alarm.id, alarm.severity);
        }
        let orders = saved.of(RecordKind::WorkOrder);
        for order in orders.filter_map(|record| record.read::<WorkOrder>().ok()) {
            if let Some(booking) = order.booking {
                self.technicians.insert(order.id, booking.technician);
            }
        }
        self.hand_out_at = (!self.pending.is_empty()).then_some(now.mono);
        if !self.ledger.held.is_empty() {
            self.digest_at = Some(now.mono.saturating_add(DIGEST_AFTER));
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let config = self.setting.config.clone();
        match &event.body {
            Body::AlarmRaised(alarm) => self.alarm(now, alarm, "alarm-raised", out),
            Body::AlarmUpdated(alarm) => self.alarm(now, alarm, "alarm-updated", out),
            Body::AlarmCleared(alarm) => {
                self.alarms.remove(&alarm.id);
            }
            Body::DecisionRequested(decision) => {
                self.tell(now, &notice::question(&config, decision), out);
            }
            Body::DecisionExpired(decision) => {
                self.tell(now, &notice::question_expired(&config, decision), out);
            }
            Body::FailurePredicted(prediction) => self.prediction(now, event, prediction, out),
            Body::PredictionWithdrawn { prediction, .. } => {
                let known = self.ledger.predictions.len();
                self.ledger.predictions.retain(|_, told| told.event != *prediction);
                if self.ledger.predictions.len() != known {
                    self.save_ledger(now, out);
                }
            }
            Body::WorkOrderPlanned(order) => {
                let template = if order.late { "work-order-late" } else { "work-order-planned" };
                self.order(now, order, template, out);
            }
            Body::WorkOrderRescheduled(order) => {
                self.order(now, order, "work-order-rescheduled", out);
            }
            Body::WorkOrderCancelled(order) => self.order(now, order, "work-order-cancelled", out),
            Body::WorkOrderUnschedulable(order) => {
                self.order(now, order, "work-order-unschedulable", out);
            }
            Body::WorkOrderCompleted(order, _) | Body::WorkOrderFailed(order, _) => {
                self.technicians.remove(&order.id);
            }
            Body::EventSetAside { stage, event, error, attempts, .. } => {
                let notice = notice::dead_letter(&config, stage, *event, error, *attempts);
                self.tell(now, &notice, out);
            }
            Body::AnomalyDetected(_)
            | Body::AnomalyValidated(_)
            | Body::AnomalyEnded { .. }
            | Body::AlarmAcknowledged(_)
            | Body::AlarmShelved(_)
            | Body::AlarmUnshelved(_)
            | Body::PhaseChanged { .. }
            | Body::ActionChosen { .. }
            | Body::PredictionRequested { .. }
            | Body::PredictionAbstained { .. }
            | Body::PredictionScored { .. }
            | Body::JobStarted { .. }
            | Body::JobFinished { .. }
            | Body::ApprovalRequested { .. }
            | Body::DecisionMade(_)
            | Body::OrderAuthorised { .. }
            | Body::WorkOrderStarted(_)
            | Body::NotificationQueued(_)
            | Body::NotificationSent(_)
            | Body::NotificationFailed { .. }
            | Body::WorkLogged { .. }
            | Body::BaselineReset { .. }
            | Body::ModelTrained { .. }
            | Body::ModelPromoted { .. }
            | Body::ModelRolledBack { .. }
            | Body::ModelDamaged { .. }
            | Body::TrainingAbstained { .. }
            | Body::DriftDetected { .. }
            | Body::FeedbackGiven { .. }
            | Body::PriorMoved { .. }
            | Body::ReportMade { .. }
            | Body::AssetStateChanged(_)
            | Body::CommandTaken(_)
            | Body::StageSwitched { .. }
            | Body::Condition { .. }
            | Body::Gap { .. }
            | Body::ClockCorrected { .. }
            | Body::ConfigurationApplied { .. } => {}
        }
        Ok(())
    }

    fn on_delivery(
        &mut self,
        _now: Now,
        delivery: &Delivery,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        // One that was given up meanwhile (its channel is gone) is no longer here.
        let Some(mut pending) = self.pending.remove(&delivery.id) else { return Ok(()) };
        pending.message.attempts = delivery.attempts;
        let state = if delivery.result.is_ok() { "sent" } else { "failed" };
        out.save(record(delivery.id, &pending, state, false));
        let Pending { message, chain, .. } = pending;
        out.emit_from(
            chain,
            match &delivery.result {
                Ok(()) => Body::NotificationSent(message),
                Err(error) => Body::NotificationFailed { message, error: error.clone() },
            },
        );
        Ok(())
    }

    fn next_deadline(&self) -> Option<Duration> {
        [self.hand_out_at, self.digest_at].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        if self.hand_out_at.take().is_some() {
            for (id, pending) in &self.pending {
                out.effect(Effect::Notify { id: *id, message: pending.message.clone() });
            }
        }
        if self.digest_at.is_some_and(|at| at <= now.mono) {
            self.digest_at = None;
            let held: Vec<(String, Held)> =
                std::mem::take(&mut self.ledger.held).into_iter().collect();
            for (channel, held) in held {
                self.send(now, &channel, &held.notice(), None, out);
            }
            self.save_ledger(now, out);
        }
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.setting = setting.clone();
        self.drop_channels(now, out);
        Ok(())
    }
}
