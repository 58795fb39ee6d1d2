//! The contents of `data`, one shape per CloudEvents type. Field names are the contract with every
//! subscriber: they are added to, never renamed.

use serde_json::{Value, json};

use super::cloudevents::Birth;
use crate::domain::alarm::{Alarm, AlarmCause};
use crate::domain::anomaly::{Anomaly, Evidence, Validated};
use crate::domain::decision::{Choice, Decision};
use crate::domain::event::{AssetState, Body, Event, Message};
use crate::domain::ids::{EventId, TagId};
use crate::domain::prognosis::{Prediction, Quantiles};
use crate::domain::time::Timestamp;
use crate::domain::work_order::{Completion, WorkOrder};

/// `data` of a committed event. Events that stay on the gateway have an empty object.
pub(crate) fn of(event: &Event) -> Value {
    match &event.body {
        Body::AnomalyDetected(found) => anomaly(event.id, found),
        Body::AnomalyValidated(judged) => validated(judged),
        Body::AlarmRaised(one)
        | Body::AlarmUpdated(one)
        | Body::AlarmAcknowledged(one)
        | Body::AlarmShelved(one)
        | Body::AlarmUnshelved(one)
        | Body::AlarmCleared(one) => alarm(one),
        Body::FailurePredicted(made) => prediction(made),
        Body::DecisionRequested(one) | Body::DecisionMade(one) | Body::DecisionExpired(one) => {
            decision(one)
        }
        Body::WorkOrderPlanned(order)
        | Body::WorkOrderStarted(order)
        | Body::WorkOrderRescheduled(order)
        | Body::WorkOrderCancelled(order)
        | Body::WorkOrderUnschedulable(order) => work_order(order, None),
        Body::WorkOrderCompleted(order, completion) | Body::WorkOrderFailed(order, completion) => {
            work_order(order, Some(completion))
        }
        Body::NotificationSent(message) => notification(message, None),
        Body::NotificationFailed { message, error } => notification(message, Some(error)),
        Body::ModelTrained { asset, metrics } => json!({ "asset": asset, "metrics": metrics }),
        Body::ModelPromoted { asset, model, replaces, reason, metrics } => json!({
            "asset": asset,
            "model": model,
            "replaces": replaces,
            "reason": reason,
            "metrics": metrics,
        }),
        Body::ModelRolledBack { asset, model, restores, reason, metrics } => json!({
            "asset": asset,
            "model": model,
            "restores": restores,
            "reason": reason,
            "metrics": metrics,
        }),
        Body::DriftDetected { asset, model, metrics } => {
            json!({ "asset": asset, "model": model, "metrics": metrics })
        }
        Body::AssetStateChanged(state) => asset_state(state),
        Body::EventSetAside { stage, event, asset, error, attempts } => json!({
            "stage": stage,
            "event_id": event,
            "asset": asset,
            "error": error,
            "attempts": attempts,
        }),
        Body::ClockCorrected { boot, offset, ranges } => json!({
            "boot": boot,
            "offset": offset,
            "ranges": ranges.iter().map(clock_range).collect::<Vec<_>>(),
        }),
        Body::Gap { lane, from, to, count, reason } => json!({
            "lane": lane,
            "from": from,
            "to": to,
            "count": count,
            "reason": reason,
        }),
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
        | Body::ConfigurationApplied { .. } => json!({}),
    }
}

/// `data` of `gateway.online` and `gateway.offline`.
pub(crate) fn status(birth: &Birth, reason: Option<&str>) -> Value {
    let mut data = json!({
        "version": birth.version,
        "started": birth.started.to_string(),
        "config_hash": birth.config_hash,
        "epoch": birth.epoch,
    });
    if let Some(reason) = reason {
        data["reason"] = reason.into();
    }
    data
}

/// Id of the question or order an event is about: the last level of its topic. Other events are
/// about themselves.
pub(crate) fn own_id(event: &Event) -> EventId {
    if let Body::DecisionRequested(one) | Body::DecisionMade(one) | Body::DecisionExpired(one) =
        &event.body
    {
        return one.id;
    }
    if let Body::WorkOrderPlanned(order)
    | Body::WorkOrderStarted(order)
    | Body::WorkOrderRescheduled(order)
    | Body::WorkOrderCancelled(order)
    | Body::WorkOrderUnschedulable(order)
    | Body::WorkOrderCompleted(order, _)
    | Body::WorkOrderFailed(order, _) = &event.body
    {
        return order.id;
    }
    event.id
}

/// The one tag an event is about, for its subject; most are about a whole asset.
pub(crate) fn tag(body: &Body) -> Option<&TagId> {
    if let Body::AlarmRaised(alarm)
    | Body::AlarmUpdated(alarm)
    | Body::AlarmAcknowledged(alarm)
    | Body::AlarmShelved(alarm)
    | Body::AlarmUnshelved(alarm)
    | Body::AlarmCleared(alarm) = body
    {
        return alarm.tag.as_ref();
    }
    if let Body::AnomalyDetected(found) | Body::AnomalyValidated(Validated { anomaly: found, .. }) =
        body
    {
        return found.tags.first();
    }
    if let Body::FailurePredicted(prediction) = body { Some(&prediction.tag) } else { None }
}

fn time(moment: Option<Timestamp>) -> Option<String> {
    moment.map(|moment| moment.to_string())
}

/// An alarm as it stands. A limit alarm has `limit`, a score alarm `score`, never both.
pub(crate) fn alarm(alarm: &Alarm) -> Value {
    let mut data = json!({
        "alarm_id": alarm.id,
        "asset": alarm.asset,
        "tag": alarm.tag,
        "severity": alarm.severity,
        "value": alarm.value,
        "message": alarm.message,
        "state": alarm.state.as_str(),
        "raised": alarm.raised.to_string(),
        "cleared": time(alarm.cleared),
        "closed_by": alarm.closed_by,
        "acknowledged_by": alarm.acknowledged_by,
        "shelved_until": time(alarm.shelved_until),
    });
    // A limit alarm has a limit, a score alarm a score, never both: subscribers tell them apart so.
    match &alarm.cause {
        AlarmCause::Limit { which, limit } => {
            data["kind"] = "limit".into();
            data["limit"] = (*limit).into();
            data["limit_kind"] = which.as_str().into();
        }
        AlarmCause::Score { anomaly, score, fault, pattern } => {
            data["kind"] = "score".into();
            data["score"] = (*score).into();
            data["anomaly_id"] = json!(anomaly);
            data["fault"] = json!(fault);
            data["pattern"] = json!(pattern);
        }
        AlarmCause::System { condition } => {
            data["kind"] = "system".into();
            data["condition"] = condition.as_str().into();
        }
    }
    data
}

/// An anomaly, by the id of the event that announced it.
pub(crate) fn anomaly(id: EventId, anomaly: &Anomaly) -> Value {
    json!({
        "anomaly_id": id,
        "asset": anomaly.asset,
        "tags": anomaly.tags,
        "fault": anomaly.fault,
        "pattern": anomaly.pattern,
        "detectors": anomaly.detectors,
        "score": anomaly.score,
        "confidence": anomaly.confidence,
        "severity": anomaly.severity,
        "evidence": anomaly.evidence.iter().map(evidence).collect::<Vec<_>>(),
        "since": anomaly.since.to_string(),
    })
}

fn evidence(evidence: &Evidence) -> Value {
    json!({
        "tag": evidence.tag,
        "value": evidence.value,
        "expected": evidence.expected,
        "sigma": evidence.sigma,
        "contribution": evidence.contribution,
    })
}

/// An anomaly with the verdict on it.
pub(crate) fn validated(judged: &Validated) -> Value {
    let mut data = anomaly(judged.anomaly_id, &judged.anomaly);
    data["verdict"] = judged.verdict.as_str().into();
    data["confidence"] = judged.confidence.into();
    data["reasons"] =
        judged.adjustments.iter().map(|adjustment| adjustment.reason.as_str()).collect();
    data["adjustments"] = json!(judged.adjustments);
    data
}

fn quantiles(spans: &Quantiles) -> Value {
    json!({ "p10": spans.p10, "p50": spans.p50, "p90": spans.p90 })
}

/// A prediction; spans in seconds, failure times in UTC.
pub(crate) fn prediction(prediction: &Prediction) -> Value {
    let at = |seconds: f64| {
        let span = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        prediction.as_of.after(span).to_string()
    };
    let rul = &prediction.rul;
    let [week, month, quarter] = prediction.probability_7_30_90_d;
    json!({
        "asset": prediction.asset,
        "tag": prediction.tag,
        "failure_mode": prediction.failure_mode,
        "rul": quantiles(rul),
        "failure_time": { "p10": at(rul.p10), "p50": at(rul.p50), "p90": at(rul.p90) },
        "as_of": prediction.as_of.to_string(),
        "method": prediction.method,
        "confidence": prediction.confidence,
        "probability": { "7d": week, "30d": month, "90d": quarter },
        "limit": prediction.limit,
        "value": prediction.value,
        "health_index": prediction.health.get(),
        "recommended_actions": prediction.actions,
        "skills": prediction.skills,
        "repair_seconds": prediction.repair_seconds,
        "anomaly_id": prediction.anomaly,
        "track_record": prediction.track_record,
        "explanation": prediction.explanation,
    })
}

/// A question, with its answer once there is one.
pub(crate) fn decision(decision: &Decision) -> Value {
    let order = &decision.order;
    json!({
        "decision_id": decision.id,
        "asset": decision.asset,
        "question": decision.question,
        "options": Choice::ALL.map(Choice::as_str),
        "deadline": decision.deadline.to_string(),
        "default": decision.default.as_str(),
        "severity": decision.severity,
        "asked": decision.asked,
        "context": {
            "task": order.task,
            "skills": order.skills,
            "priority": order.priority,
            "duration_seconds": order.duration_seconds,
            "not_before": time(order.not_before),
            "due": time(order.due),
            "alarms": order.alarms,
            "anomaly_id": order.anomaly,
        },
        "answer": decision.answer.as_ref().map(|answer| json!({
            "choice": answer.choice.as_str(),
            "by": answer.by,
            "reason": answer.reason,
            "changes": answer.changes.as_ref().map(|changes| json!({
                "technician": changes.technician,
                "not_before": time(changes.not_before),
                "due": time(changes.due),
                "duration_seconds": changes.duration_seconds,
                "skills": changes.skills,
            })),
            "time": answer.time.to_string(),
        })),
    })
}

/// A work order, with what was reported at its completion.
pub(crate) fn work_order(order: &WorkOrder, completion: Option<&Completion>) -> Value {
    let booking = order.booking.as_ref();
    let request = &order.request;
    let mut data = json!({
        "work_order_id": order.id,
        "asset": request.asset,
        "task": request.task,
        "technician": booking.map(|booking| &booking.technician),
        "start": time(booking.map(|booking| booking.start)),
        "end": time(booking.map(|booking| booking.end)),
        "skills": request.skills,
        "priority": request.priority,
        "reasons": order.reasons,
        "state": order.state.as_str(),
        "due": time(request.due),
        "late": order.late,
        "duration_seconds": request.duration_seconds,
        "authorised_by": order.authorised_by,
        "alarms": request.alarms,
        "anomaly_id": request.anomaly,
    });
    if let Some(completion) = completion {
        data["completion"] = json!({
            "outcome": completion.outcome,
            "found": completion.found,
            "notes": completion.notes,
            "duration": completion.duration,
            "by": completion.by,
        });
    }
    data
}

/// A message to people, with the error that ended it.
pub(crate) fn notification(message: &Message, error: Option<&str>) -> Value {
    let mut data = json!({
        "channel": message.channel,
        "recipients": message.recipients,
        "template": message.template,
        "attempts": message.attempts,
        "severity": message.severity,
        "subject": message.subject,
        "text": message.text,
    });
    if let Some(error) = error {
        data["error"] = error.into();
    }
    data
}

/// What subscribers see of an asset.
pub(crate) fn asset_state(state: &AssetState) -> Value {
    json!({
        "asset": state.asset,
        "phase": state.phase,
        "health_index": state.health.get(),
        "worst_alarm": state.worst_alarm,
        "open_work_order": state.work_order,
        "rul_p50": state.rul_p50,
        "notes": state.notes,
    })
}

/// `from` and `to` are sequence numbers of an event class, or times of readings as they were sent.
fn clock_range(range: &crate::domain::event::ClockRange) -> Value {
    let mut fields = json!({ "class": range.class, "offset": range.offset });
    if let Some((from, to)) = range.sequences {
        fields["from"] = from.into();
        fields["to"] = to.into();
    } else if let Some((from, to)) = range.times {
        fields["from"] = from.to_string().into();
        fields["to"] = to.to_string().into();
    }
    fields
}
