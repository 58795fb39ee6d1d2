//! CloudEvents 1.0, structured JSON mode: what a committed event looks like on the wire.
//!
//! The envelope and the topics are made here, the contents of `data` in [`super::data`]. Both are
//! separate from the domain, so that a rename inside changes no topic. The same JSON goes over MQTT
//! and over server-sent events.

use std::time::Duration;

use serde::Serialize;

use super::data;
use crate::domain::event::{Body, Class, Event};
use crate::domain::ids::EventId;
use crate::domain::time::{Now, Timestamp};
use crate::port::Committed;

/// An event that is sent later than this after it happened is marked `replayed` (contract §3).
pub const REPLAYED_AFTER: Duration = Duration::from_secs(30);

/// Who is speaking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// Site id.
    pub site: String,
    /// Gateway id.
    pub gateway: String,
}

/// What `gateway.online` says of this start of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Version of the program.
    pub version: String,
    /// When it was started.
    pub started: Timestamp,
    /// Hash of the configuration in force.
    pub config_hash: String,
    /// Identity of the present `state.db`; a new one begins sequences from 1.
    pub epoch: u64,
}

/// One MQTT message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Full topic.
    pub topic: String,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// JSON of one CloudEvent; empty to clear a retained topic.
    pub payload: Vec<u8>,
}

impl Message {
    /// The empty retained message that clears a topic.
    #[must_use]
    pub fn clearing(topic: String) -> Self {
        Self { topic, retain: true, payload: Vec::new() }
    }
}

/// One event as messages, in the order they must be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The event.
    pub event: Message,
    /// What clears the topic afterwards, when the event ends a retained story.
    pub clearing: Option<Message>,
}

impl Sender {
    /// The root of all topics.
    #[must_use]
    pub fn root(&self) -> String {
        format!("wheeltap/{}/{}", self.site, self.gateway)
    }

    /// The CloudEvents attribute `source`.
    #[must_use]
    pub fn source(&self) -> String {
        format!("/{}/{}", self.site, self.gateway)
    }

    /// A committed event as it is sent at `now`; `None` for events that stay on the gateway.
    #[must_use]
    pub fn wire(&self, committed: &Committed, now: Now) -> Option<Wire> {
        let event = &committed.event;
        let body = &event.body;
        let class = body.class()?;
        let topic = self.topic(class, event);
        let clears = ends_retained(body);
        let payload = self.json(committed, now)?;
        Some(Wire {
            event: Message { topic: topic.clone(), retain: retained(class) && !clears, payload },
            clearing: clears.then(|| Message::clearing(topic)),
        })
    }

    /// The CloudEvent alone, as JSON; `None` for events that stay on the gateway.
    #[must_use]
    pub fn json(&self, committed: &Committed, now: Now) -> Option<Vec<u8>> {
        let Committed { event, sequence, durable, .. } = committed;
        let kind = kind(&event.body)?;
        let mut data = data::of(event);
        if !durable && let Some(fields) = data.as_object_mut() {
            fields.insert("durable".to_owned(), false.into());
        }
        let envelope = Envelope {
            kind: Kind(kind),
            subject: self.subject(event),
            sequence: sequence.map(|(_, number)| number),
            correlation: Some(event.correlation),
            cause: event.cause,
            clock_trusted: event.clock_trusted,
            ..self.envelope(event.id, kind, event.time, now)
        };
        Some(envelope.json(&data))
    }

    /// An envelope with what every CloudEvent of this gateway has.
    pub(super) fn envelope(
        &self,
        id: EventId,
        kind: &'static str,
        time: Timestamp,
        now: Now,
    ) -> Envelope {
        Envelope {
            id,
            source: self.source(),
            kind: Kind(kind),
            subject: self.gateway.clone(),
            time,
            sequence: None,
            correlation: None,
            cause: None,
            replayed: now.utc.since(time) > REPLAYED_AFTER,
            clock_trusted: true,
        }
    }

    /// `gateway.online`, retained on `status`.
    #[must_use]
    pub fn online(&self, id: EventId, birth: &Birth, now: Now) -> Message {
        self.status(id, "gateway.online", data::status(birth, None), now)
    }

    /// `gateway.offline`, retained on `status`; also the will.
    #[must_use]
    pub fn offline(&self, id: EventId, birth: &Birth, reason: &str, now: Now) -> Message {
        self.status(id, "gateway.offline", data::status(birth, Some(reason)), now)
    }

    fn status(
        &self,
        id: EventId,
        kind: &'static str,
        data: serde_json::Value,
        now: Now,
    ) -> Message {
        let envelope =
            Envelope { clock_trusted: now.trusted, ..self.envelope(id, kind, now.utc, now) };
        Message {
            topic: format!("{}/status", self.root()),
            retain: true,
            payload: envelope.json(&data),
        }
    }

    /// The topic of an event. What concerns no asset, but stands in a class with one topic level
    /// per asset (alarms of the gateway itself), goes under the gateway's own id.
    fn topic(&self, class: Class, event: &Event) -> String {
        let root = self.root();
        let word = class.as_str();
        match class {
            Class::Gateway | Class::Notification | Class::DeadLetter => format!("{root}/{word}"),
            Class::Asset | Class::Anomaly | Class::Alarm | Class::Prediction | Class::Model => {
                let asset = event.body.asset().map_or(self.gateway.as_str(), |id| id.as_str());
                format!("{root}/{word}/{asset}")
            }
            Class::Decision | Class::WorkOrder => {
                format!("{root}/{word}/{}", data::own_id(event))
            }
        }
    }

    fn subject(&self, event: &Event) -> String {
        let Some(asset) = event.body.asset() else { return self.gateway.clone() };
        match data::tag(&event.body) {
            Some(tag) => format!("{asset}/{tag}"),
            None => asset.to_string(),
        }
    }
}

/// Whether the newest event of the class is kept by the broker.
pub(super) const fn retained(class: Class) -> bool {
    match class {
        Class::Asset | Class::Decision | Class::WorkOrder => true,
        Class::Gateway
        | Class::Anomaly
        | Class::Alarm
        | Class::Prediction
        | Class::Notification
        | Class::Model
        | Class::DeadLetter => false,
    }
}

/// Whether the event ends what its topic retained: the question is answered, the order closed.
fn ends_retained(body: &Body) -> bool {
    matches!(
        body,
        Body::DecisionMade(_)
            | Body::DecisionExpired(_)
            | Body::WorkOrderCancelled(_)
            | Body::WorkOrderCompleted(..)
            | Body::WorkOrderFailed(..)
    )
}

/// The CloudEvents type without its prefix; `None` for events that stay on the gateway.
///
/// The table of the contract has no `alarm.unshelved`: coming back from the shelf is an update.
#[must_use]
pub fn kind(body: &Body) -> Option<&'static str> {
    Some(match body {
        Body::AnomalyDetected(_) => "anomaly.detected",
        Body::AnomalyValidated(_) => "anomaly.validated",
        Body::AlarmRaised(_) => "alarm.raised",
        Body::AlarmUpdated(_) | Body::AlarmUnshelved(_) => "alarm.updated",
        Body::AlarmAcknowledged(_) => "alarm.acknowledged",
        Body::AlarmShelved(_) => "alarm.shelved",
        Body::AlarmCleared(_) => "alarm.cleared",
        Body::FailurePredicted(_) => "failure.predicted",
        Body::DecisionRequested(_) => "decision.requested",
        Body::DecisionMade(_) => "decision.made",
        Body::DecisionExpired(_) => "decision.expired",
        Body::WorkOrderPlanned(_) => "work-order.planned",
        Body::WorkOrderStarted(_) => "work-order.started",
        Body::WorkOrderRescheduled(_) => "work-order.rescheduled",
        Body::WorkOrderCancelled(_) => "work-order.cancelled",
        Body::WorkOrderCompleted(..) => "work-order.completed",
        Body::WorkOrderFailed(..) => "work-order.failed",
        Body::WorkOrderUnschedulable(_) => "work-order.unschedulable",
        Body::NotificationSent(_) => "notification.sent",
        Body::NotificationFailed { .. } => "notification.failed",
        Body::ModelTrained { .. } => "model.trained",
        Body::ModelPromoted { .. } => "model.promoted",
        Body::ModelRolledBack { .. } => "model.rolled-back",
        Body::DriftDetected { .. } => "drift.detected",
        Body::AssetStateChanged(_) => "asset.state",
        Body::EventSetAside { .. } => "event.set-aside",
        Body::Gap { .. } => "gateway.gap",
        Body::ClockCorrected { .. } => "gateway.clock-corrected",
        Body::AnomalyEnded { .. }
        | Body::PhaseChanged { .. }
        | Body::ActionChosen { .. }
        | Body::PredictionRequested { .. }
        | Body::PredictionAbstained { .. }
        | Body::PredictionWithdrawn { .. }
        | Body::PredictionScored { .. }
        | Body::JobStarted { .. }
        | Body::JobFinished { .. }
        | Body::ApprovalRequested { .. }
        | Body::OrderAuthorised { .. }
        | Body::NotificationQueued(_)
        | Body::WorkLogged { .. }
        | Body::BaselineReset { .. }
        | Body::ModelDamaged { .. }
        | Body::TrainingAbstained { .. }
        | Body::FeedbackGiven { .. }
        | Body::PriorMoved { .. }
        | Body::ReportMade { .. }
        | Body::CommandTaken(_)
        | Body::StageSwitched { .. }
        | Body::Condition { .. }
        | Body::ConfigurationApplied { .. } => return None,
    })
}

/// The type with its prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind(pub(super) &'static str);

/// Context attributes of one CloudEvent, extensions included.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    pub(super) id: EventId,
    pub(super) source: String,
    pub(super) kind: Kind,
    pub(super) subject: String,
    pub(super) time: Timestamp,
    pub(super) sequence: Option<u64>,
    pub(super) correlation: Option<EventId>,
    pub(super) cause: Option<EventId>,
    pub(super) replayed: bool,
    pub(super) clock_trusted: bool,
}

/// The JSON form; the order of its fields is the order on the wire.
#[derive(Serialize)]
struct Structured<'a, T> {
    specversion: &'static str,
    id: EventId,
    source: &'a str,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<EventId>,
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    clocktrusted: Option<bool>,
    data: &'a T,
}

impl Envelope {
    /// The whole event as JSON bytes.
    pub(super) fn json<T: Serialize>(&self, data: &T) -> Vec<u8> {
        let structured = Structured {
            specversion: "1.0",
            id: self.id,
            source: &self.source,
            kind: format!("wheeltap.{}", self.kind.0),
            subject: &self.subject,
            time: self.time.to_string(),
            datacontenttype: "application/json",
            sequence: self.sequence.map(|number| format!("{number:018}")),
            correlationid: self.correlation,
            causationid: self.cause,
            replayed: self.replayed,
            clocktrusted: (!self.clock_trusted).then_some(false),
            data,
        };
        serde_json::to_vec(&structured).expect("wire types are JSON")
    }
}

#[cfg(test)]
#[path = "cloudevents_tests.rs"]
mod tests;
