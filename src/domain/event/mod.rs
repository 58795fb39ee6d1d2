//! Events: all that passes between the stages. Few, and each precious: every one is a row of the
//! journal, typed, with the id of its cause.
//!
//! The serde form of [`Body`] is the journal's form on disk: variants and fields may be added (with
//! `#[serde(default)]`), never renamed. The wire form upstream is made in `uplink::cloudevents`.

mod matter;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::alarm::Alarm;
use crate::domain::anomaly::{Anomaly, Validated};
use crate::domain::command::Command;
use crate::domain::decision::Decision;
use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::prognosis::Prediction;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;
use crate::domain::work_order::{Completion, OrderRequest, WorkOrder};

pub use matter::{Action, AssetState, ClockRange, JobSpec, Message, Phase};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its identity, for ever.
    pub id: EventId,
    /// The event that brought it about.
    pub cause: Option<EventId>,
    /// First event of its chain; its own id when it is the first.
    pub correlation: EventId,
    /// When it happened, as the gateway's clock then said.
    pub time: Timestamp,
    /// Whether that clock was trusted.
    pub clock_trusted: bool,
    /// What happened.
    pub body: Body,
}

/// Topic class of an event: the first level under the root, within which sequences have no gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// `gateway`
    Gateway,
    /// `asset`
    Asset,
    /// `anomaly`
    Anomaly,
    /// `alarm`
    Alarm,
    /// `prediction`
    Prediction,
    /// `decision`
    Decision,
    /// `work-order`
    WorkOrder,
    /// `notification`
    Notification,
    /// `model`
    Model,
    /// `dead-letter`
    DeadLetter,
}

impl Class {
    /// All classes of the journal.
    pub const ALL: [Self; 10] = [
        Self::Gateway,
        Self::Asset,
        Self::Anomaly,
        Self::Alarm,
        Self::Prediction,
        Self::Decision,
        Self::WorkOrder,
        Self::Notification,
        Self::Model,
        Self::DeadLetter,
    ];

    /// The topic level; also the word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Asset => "asset",
            Self::Anomaly => "anomaly",
            Self::Alarm => "alarm",
            Self::Prediction => "prediction",
            Self::Decision => "decision",
            Self::WorkOrder => "work-order",
            Self::Notification => "notification",
            Self::Model => "model",
            Self::DeadLetter => "dead-letter",
        }
    }

    /// Reads the word of [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type", content = "data")]
#[non_exhaustive]
pub enum Body {
    /// Something unusual was seen.
    AnomalyDetected(Anomaly),
    /// Validation has judged it.
    AnomalyValidated(Validated),
    /// The departure ended by itself.
    AnomalyEnded {
        /// The asset.
        asset: AssetId,
        /// The event that announced the anomaly.
        anomaly: EventId,
    },
    /// An alarm was raised.
    AlarmRaised(Alarm),
    /// It changed: severity, limit, value.
    AlarmUpdated(Alarm),
    /// Somebody knows.
    AlarmAcknowledged(Alarm),
    /// It was put aside.
    AlarmShelved(Alarm),
    /// It came back from the shelf.
    AlarmUnshelved(Alarm),
    /// Its condition has ended.
    AlarmCleared(Alarm),
    /// An asset's baseline made progress, or was lost.
    PhaseChanged {
        /// The asset.
        asset: AssetId,
        /// Where it is now.
        phase: Phase,
        /// Why it is not armed, if it is not.
        reasons: Vec<String>,
    },
    /// Orchestration has chosen what to do about an asset's trouble.
    ActionChosen {
        /// The asset.
        asset: AssetId,
        /// The anomaly behind it.
        anomaly: EventId,
        /// What.
        action: Action,
        /// Why, in words.
        reason: String,
    },
    /// A prediction is wanted.
    PredictionRequested {
        /// The asset.
        asset: AssetId,
        /// The anomaly behind it.
        anomaly: EventId,
        /// Tags involved, the most answerable first.
        tags: Vec<TagId>,
    },
    /// A prediction was made.
    FailurePredicted(Prediction),
    /// None can be made, and why.
    PredictionAbstained {
        /// The asset.
        asset: AssetId,
        /// The anomaly behind it.
        anomaly: Option<EventId>,
        /// Why.
        reason: String,
    },
    /// An earlier prediction no longer holds.
    PredictionWithdrawn {
        /// The asset.
        asset: AssetId,
        /// The event that made it.
        prediction: EventId,
        /// Why.
        reason: String,
    },
    /// The truth about an earlier prediction is known, or will never be.
    PredictionScored {
        /// The asset.
        asset: AssetId,
        /// The event that made it.
        prediction: EventId,
        /// The failure mode.
        failure_mode: String,
        /// `reached`, `outlived`, `prevented` or `withdrawn`.
        outcome: String,
        /// Seconds from the prediction's as-of time until the limit was reached, if it was.
        actual: Option<f64>,
        /// What was promised, in the same seconds.
        promised: crate::domain::prognosis::Quantiles,
    },
    /// A long computation was begun.
    JobStarted {
        /// What it computes; the job's id is the event's.
        spec: JobSpec,
    },
    /// It has answered.
    JobFinished {
        /// Which job.
        job: EventId,
        /// What it was asked.
        spec: JobSpec,
        /// What it found, or why it failed.
        result: Result<Value, String>,
    },
    /// A person's approval is wanted before an order is planned.
    ApprovalRequested {
        /// What would be planned.
        order: OrderRequest,
        /// Why, in one sentence for a person.
        question: String,
    },
    /// The question was put.
    DecisionRequested(Decision),
    /// It was answered, by a person or by its default.
    DecisionMade(Decision),
    /// Its deadline has passed unanswered; the default applies.
    DecisionExpired(Decision),
    /// An order shall be planned; whoever was to be asked has agreed.
    OrderAuthorised {
        /// What shall be done.
        order: OrderRequest,
        /// Who authorised it: a name, `policy` or `deadline`.
        by: String,
    },
    /// An order has a person and a time.
    WorkOrderPlanned(WorkOrder),
    /// Its time has come.
    WorkOrderStarted(WorkOrder),
    /// It was moved.
    WorkOrderRescheduled(WorkOrder),
    /// It was called off.
    WorkOrderCancelled(WorkOrder),
    /// It is done.
    WorkOrderCompleted(WorkOrder, Completion),
    /// It was tried and did not help.
    WorkOrderFailed(WorkOrder, Completion),
    /// No slot was found.
    WorkOrderUnschedulable(WorkOrder),
    /// A message was handed to its channel (effect under way).
    NotificationQueued(Message),
    /// It was delivered.
    NotificationSent(Message),
    /// It was given up.
    NotificationFailed {
        /// The message.
        message: Message,
        /// Why.
        error: String,
    },
    /// What was done to a machine was written down.
    WorkLogged {
        /// The asset.
        asset: AssetId,
        /// The order.
        order: EventId,
        /// What was reported.
        completion: Completion,
        /// Whether the machine counts as new in the respects the order was about.
        renewed: bool,
    },
    /// An asset's normal behaviour is to be learnt anew.
    BaselineReset {
        /// The asset.
        asset: AssetId,
        /// Only these tags; all when empty.
        tags: Vec<TagId>,
        /// Why.
        reason: String,
    },
    /// A baseline or model was learnt.
    ModelTrained {
        /// The asset.
        asset: AssetId,
        /// Metrics before and after.
        metrics: Value,
    },
    /// A model is in use from now on.
    ModelPromoted {
        /// The asset.
        asset: AssetId,
        /// The model.
        model: EventId,
        /// The one it replaces.
        replaces: Option<EventId>,
        /// Why.
        reason: String,
        /// Metrics before and after.
        metrics: Value,
    },
    /// A model was taken out of use.
    ModelRolledBack {
        /// The asset.
        asset: AssetId,
        /// The model.
        model: EventId,
        /// The one that is in use again, if one is.
        restores: Option<EventId>,
        /// Why.
        reason: String,
        /// Metrics before and after.
        metrics: Value,
    },
    /// What is kept of a model is not what was written.
    ModelDamaged {
        /// The asset.
        asset: AssetId,
        /// The model.
        model: EventId,
        /// What is wrong.
        error: String,
    },
    /// Nothing could be learnt, and why.
    TrainingAbstained {
        /// The asset.
        asset: AssetId,
        /// `rul` or `classifier`.
        kind: String,
        /// Why.
        reason: String,
    },
    /// The machine has moved away from what a model was learnt from.
    DriftDetected {
        /// The asset.
        asset: AssetId,
        /// The model.
        model: EventId,
        /// What shows it.
        metrics: Value,
    },
    /// A person said whether an anomaly was real.
    FeedbackGiven {
        /// The asset.
        asset: AssetId,
        /// The event that announced the anomaly.
        anomaly: EventId,
        /// Whether it was real.
        real: bool,
        /// By whom.
        by: String,
        /// Anything else.
        notes: Option<String>,
    },
    /// How far a detector is believed on a tag has changed.
    PriorMoved {
        /// The asset.
        asset: AssetId,
        /// The tag.
        tag: TagId,
        /// The detector.
        detector: String,
        /// How often it was right, plus one.
        right: f64,
        /// How often it was wrong, plus one.
        wrong: f64,
    },
    /// A periodic summary was computed.
    ReportMade {
        /// Which kind, e.g. `daily`.
        kind: String,
        /// Figures, all counted from the store.
        figures: Value,
    },
    /// What subscribers see of an asset has changed.
    AssetStateChanged(AssetState),
    /// A person's command was taken.
    CommandTaken(Command),
    /// A stage could not digest an event.
    EventSetAside {
        /// Which stage.
        stage: String,
        /// The event.
        event: EventId,
        /// The asset concerned, if one is.
        asset: Option<AssetId>,
        /// Why.
        error: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A stage was switched off, or on again.
    StageSwitched {
        /// Which stage.
        stage: String,
        /// Whether it works.
        on: bool,
        /// Why.
        reason: String,
    },
    /// Something of ours changed that an operator must know: a silent source, a full disk, a
    /// corrupt file.
    Condition {
        /// Short stable word, e.g. `source-silent`.
        condition: String,
        /// What it is about, e.g. the source's name.
        subject: String,
        /// Whether it holds now.
        active: bool,
        /// How bad.
        severity: Severity,
        /// One sentence for a person.
        message: String,
    },
    /// Readings or events are missing, and which.
    Gap {
        /// `readings`, or the class of the events.
        lane: String,
        /// First number missing.
        from: u64,
        /// Last number missing.
        to: u64,
        /// How many.
        count: u64,
        /// Why.
        reason: String,
    },
    /// The clock was set: what was said before under a clock that was not believed is put right.
    ClockCorrected {
        /// Identity of the boot.
        boot: String,
        /// What is to be added to times of this boot that were marked as not to be believed, in
        /// seconds.
        offset: f64,
        /// What was said under that clock.
        ranges: Vec<ClockRange>,
    },
    /// A new configuration is in force.
    ConfigurationApplied {
        /// Hash of it.
        hash: String,
        /// Assets that are gone.
        removed: Vec<AssetId>,
    },
}

impl Body {
    /// The topic class under which the event goes upstream; `None` keeps it on the gateway.
    #[must_use]
    pub const fn class(&self) -> Option<Class> {
        match self {
            Self::AnomalyDetected(_) | Self::AnomalyValidated(_) => Some(Class::Anomaly),
            Self::AlarmRaised(_)
            | Self::AlarmUpdated(_)
            | Self::AlarmAcknowledged(_)
            | Self::AlarmShelved(_)
            | Self::AlarmUnshelved(_)
            | Self::AlarmCleared(_) => Some(Class::Alarm),
            Self::FailurePredicted(_) => Some(Class::Prediction),
            Self::DecisionRequested(_) | Self::DecisionMade(_) | Self::DecisionExpired(_) => {
                Some(Class::Decision)
            }
            Self::WorkOrderPlanned(_)
            | Self::WorkOrderStarted(_)
            | Self::WorkOrderRescheduled(_)
            | Self::WorkOrderCancelled(_)
            | Self::WorkOrderCompleted(..)
            | Self::WorkOrderFailed(..)
            | Self::WorkOrderUnschedulable(_) => Some(Class::WorkOrder),
            Self::NotificationSent(_) | Self::NotificationFailed { .. } => {
                Some(Class::Notification)
            }
            Self::ModelTrained { .. }
            | Self::ModelPromoted { .. }
            | Self::ModelRolledBack { .. }
            | Self::DriftDetected { .. } => Some(Class::Model),
            Self::EventSetAside { .. } => Some(Class::DeadLetter),
            Self::AssetStateChanged(_) => Some(Class::Asset),
            Self::Gap { .. } | Self::ClockCorrected { .. } => Some(Class::Gateway),
            Self::AnomalyEnded { .. }
            | Self::PhaseChanged { .. }
            | Self::ActionChosen { .. }
            | Self::PredictionRequested { .. }
            | Self::PredictionAbstained { .. }
            | Self::PredictionWithdrawn { .. }
            | Self::PredictionScored { .. }
            | Self::JobStarted { .. }
            | Self::JobFinished { .. }
            | Self::ApprovalRequested { .. }
            | Self::OrderAuthorised { .. }
            | Self::NotificationQueued(_)
            | Self::WorkLogged { .. }
            | Self::BaselineReset { .. }
            | Self::ModelDamaged { .. }
            | Self::TrainingAbstained { .. }
            | Self::FeedbackGiven { .. }
            | Self::PriorMoved { .. }
            | Self::ReportMade { .. }
            | Self::CommandTaken(_)
            | Self::StageSwitched { .. }
            | Self::Condition { .. }
            | Self::ConfigurationApplied { .. } => None,
        }
    }

    /// The asset concerned, if one is.
    #[must_use]
    pub fn asset(&self) -> Option<&AssetId> {
        match self {
            Self::AnomalyDetected(anomaly) => Some(&anomaly.asset),
            Self::AnomalyValidated(validated) => Some(&validated.anomaly.asset),
            Self::AlarmRaised(alarm)
            | Self::AlarmUpdated(alarm)
            | Self::AlarmAcknowledged(alarm)
            | Self::AlarmShelved(alarm)
            | Self::AlarmUnshelved(alarm)
            | Self::AlarmCleared(alarm) => alarm.asset.as_ref(),
            Self::FailurePredicted(prediction) => Some(&prediction.asset),
            Self::DecisionRequested(decision)
            | Self::DecisionMade(decision)
            | Self::DecisionExpired(decision) => Some(&decision.asset),
            Self::ApprovalRequested { order, .. } | Self::OrderAuthorised { order, .. } => {
                Some(&order.asset)
            }
            Self::WorkOrderPlanned(order)
            | Self::WorkOrderStarted(order)
            | Self::WorkOrderRescheduled(order)
            | Self::WorkOrderCancelled(order)
            | Self::WorkOrderCompleted(order, _)
            | Self::WorkOrderFailed(order, _)
            | Self::WorkOrderUnschedulable(order) => Some(&order.request.asset),
            Self::AssetStateChanged(state) => Some(&state.asset),
            Self::JobStarted { spec } | Self::JobFinished { spec, .. } => Some(spec.asset()),
            Self::EventSetAside { asset, .. } => asset.as_ref(),
            Self::AnomalyEnded { asset, .. }
            | Self::PhaseChanged { asset, .. }
            | Self::ActionChosen { asset, .. }
            | Self::PredictionRequested { asset, .. }
            | Self::PredictionAbstained { asset, .. }
            | Self::PredictionWithdrawn { asset, .. }
            | Self::PredictionScored { asset, .. }
            | Self::WorkLogged { asset, .. }
            | Self::BaselineReset { asset, .. }
            | Self::ModelTrained { asset, .. }
            | Self::ModelPromoted { asset, .. }
            | Self::ModelRolledBack { asset, .. }
            | Self::ModelDamaged { asset, .. }
            | Self::TrainingAbstained { asset, .. }
            | Self::DriftDetected { asset, .. }
            | Self::FeedbackGiven { asset, .. }
            | Self::PriorMoved { asset, .. } => Some(asset),
            Self::NotificationQueued(_)
            | Self::NotificationSent(_)
            | Self::NotificationFailed { .. }
            | Self::ReportMade { .. }
            | Self::CommandTaken(_)
            | Self::StageSwitched { .. }
            | Self::Condition { .. }
            | Self::Gap { .. }
            | Self::ClockCorrected { .. }
            | Self::ConfigurationApplied { .. } => None,
        }
    }

    /// The kind as the journal spells it, e.g. `alarm-raised`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AnomalyDetected(_) => "anomaly-detected",
            Self::AnomalyValidated(_) => "anomaly-validated",
            Self::AnomalyEnded { .. } => "anomaly-ended",
            Self::AlarmRaised(_) => "alarm-raised",
            Self::AlarmUpdated(_) => "alarm-updated",
            Self::AlarmAcknowledged(_) => "alarm-acknowledged",
            Self::AlarmShelved(_) => "alarm-shelved",
            Self::AlarmUnshelved(_) => "alarm-unshelved",
            Self::AlarmCleared(_) => "alarm-cleared",
            Self::PhaseChanged { .. } => "phase-changed",
            Self::ActionChosen { .. } => "action-chosen",
            Self::PredictionRequested { .. } => "prediction-requested",
            Self::FailurePredicted(_) => "failure-predicted",
            Self::PredictionAbstained { .. } => "prediction-abstained",
            Self::PredictionWithdrawn { .. } => "prediction-withdrawn",
            Self::PredictionScored { .. } => "prediction-scored",
            Self::JobStarted { .. } => "job-started",
            Self::JobFinished { .. } => "job-finished",
            Self::ApprovalRequested { .. } => "approval-requested",
            Self::DecisionRequested(_) => "decision-requested",
            Self::DecisionMade(_) => "decision-made",
            Self::DecisionExpired(_) => "decision-expired",
            Self::OrderAuthorised { .. } => "order-authorised",
            Self::WorkOrderPlanned(_) => "work-order-planned",
            Self::WorkOrderStarted(_) => "work-order-started",
            Self::WorkOrderRescheduled(_) => "work-order-rescheduled",
            Self::WorkOrderCancelled(_) => "work-order-cancelled",
            Self::WorkOrderCompleted(..) => "work-order-completed",
            Self::WorkOrderFailed(..) => "work-order-failed",
            Self::WorkOrderUnschedulable(_) => "work-order-unschedulable",
            Self::NotificationQueued(_) => "notification-queued",
            Self::NotificationSent(_) => "notification-sent",
            Self::NotificationFailed { .. } => "notification-failed",
            Self::WorkLogged { .. } => "work-logged",
            Self::BaselineReset { .. } => "baseline-reset",
            Self::ModelTrained { .. } => "model-trained",
            Self::ModelPromoted { .. } => "model-promoted",
            Self::ModelRolledBack { .. } => "model-rolled-back",
            Self::ModelDamaged { .. } => "model-damaged",
            Self::TrainingAbstained { .. } => "training-abstained",
            Self::DriftDetected { .. } => "drift-detected",
            Self::FeedbackGiven { .. } => "feedback-given",
            Self::PriorMoved { .. } => "prior-moved",
            Self::ReportMade { .. } => "report-made",
            Self::AssetStateChanged(_) => "asset-state-changed",
            Self::CommandTaken(_) => "command-taken",
            Self::EventSetAside { .. } => "event-set-aside",
            Self::StageSwitched { .. } => "stage-switched",
            Self::Condition { .. } => "condition",
            Self::Gap { .. } => "gap",
            Self::ClockCorrected { .. } => "clock-corrected",
            Self::ConfigurationApplied { .. } => "configuration-applied",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.body.kind(), self.id)
    }
}
