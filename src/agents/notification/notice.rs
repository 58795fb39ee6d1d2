//! Which events people are told of, and in which words.

use std::time::Duration;

use crate::config::Config;
use crate::domain::alarm::{Alarm, AlarmCause};
use crate::domain::decision::Decision;
use crate::domain::ids::{EventId, TechnicianId};
use crate::domain::prognosis::Prediction;
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;
use crate::domain::work_order::WorkOrder;

/// Recipient of everything that is nobody's own: whoever looks after the plant.
pub(super) const OPERATOR: &str = "operator";

/// A median this near is critical.
const CRITICAL_WITHIN: Duration = Duration::from_secs(86_400);
/// A median this near is high.
const HIGH_WITHIN: Duration = Duration::from_secs(7 * 86_400);
/// A median this near is medium; beyond it, low. Weeks are time enough to plan and buy parts.
const MEDIUM_WITHIN: Duration = Duration::from_secs(30 * 86_400);

/// Something people shall be told, before channels are chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notice {
    /// Which text.
    pub(super) template: &'static str,
    /// How urgent.
    pub(super) severity: Severity,
    /// For whom.
    pub(super) recipients: Vec<String>,
    /// One line.
    pub(super) subject: String,
    /// The text.
    pub(super) text: String,
    /// What it is about: the same matter is not told again within some minutes.
    pub(super) matter: String,
    /// Which instance of the matter: of two alarms of one tag each has its own.
    pub(super) instance: Option<EventId>,
}

/// Everybody from high on, the operator alone below.
fn everybody(config: &Config, severity: Severity) -> Vec<String> {
    let mut recipients = vec![OPERATOR.to_owned()];
    if severity >= Severity::High {
        recipients.extend(config.technicians.iter().map(|who| who.id.to_string()));
    }
    recipients
}

/// An alarm that is new, or worse than it was.
pub(super) fn alarm(config: &Config, alarm: &Alarm, template: &'static str) -> Notice {
    let place = match (&alarm.asset, &alarm.tag) {
        (Some(asset), Some(tag)) => format!("{asset}/{tag}"),
        (Some(asset), None) => asset.to_string(),
        (None, _) => "gateway".to_owned(),
    };
    let (detail, cause) = match &alarm.cause {
        AlarmCause::Limit { which, limit } => {
            (format!("limit {} at {limit}", which.as_str()), "limit".to_owned())
        }
        AlarmCause::Score { score, pattern, .. } => (
            format!("unusual with score {score:.2}, pattern {}", pattern.as_str()),
            "score".to_owned(),
        ),
        // Conditions of one kind can hold for several things; the sentence tells them apart.
        AlarmCause::System { condition } => {
            (format!("condition {condition}"), format!("{condition}:{}", alarm.message))
        }
    };
    let value = alarm.value.map(|value| format!("value {value}; ")).unwrap_or_default();
    Notice {
        template,
        severity: alarm.severity,
        recipients: everybody(config, alarm.severity),
        subject: format!("{} alarm, {place}: {}", alarm.severity, alarm.message),
        text: format!(
            "{}\n{value}{detail}; since {}\nacknowledge: wheeltap ctl ack {}",
            alarm.message,
            local(config, alarm.raised),
            alarm.id
        ),
        matter: format!("alarm:{place}:{cause}"),
        instance: Some(alarm.id),
    }
}

/// A question to a person.
pub(super) fn question(config: &Config, decision: &Decision) -> Notice {
    Notice {
        template: "decision-requested",
        severity: decision.severity,
        recipients: everybody(config, Severity::High.max(decision.severity)),
        subject: format!("{}: {}", decision.asset, decision.question),
        text: format!(
            "{}\nproposed: {}\nunanswered, `{}` applies at {}\nanswer: wheeltap ctl decide {} \
             approve|modify|reject|defer",
            decision.question,
            decision.order.task,
            decision.default.as_str(),
            local(config, decision.deadline),
            decision.id
        ),
        matter: format!("decision:{}:{}", decision.id, decision.asked),
        instance: Some(decision.id),
    }
}

/// A question that nobody answered in time.
pub(super) fn question_expired(config: &Config, decision: &Decision) -> Notice {
    Notice {
        template: "decision-expired",
        severity: decision.severity,
        recipients: everybody(config, decision.severity),
        subject: format!(
            "{}: nobody answered, `{}` applies",
            decision.asset,
            decision.default.as_str()
        ),
        text: format!("{}\nasked {} times", decision.question, decision.asked),
        matter: format!("decision-expired:{}:{}", decision.id, decision.asked),
        instance: Some(decision.id),
    }
}

/// A prediction that is new or much changed.
pub(super) fn prediction(config: &Config, prediction: &Prediction) -> Notice {
    let severity = urgency(prediction);
    let rul = prediction.rul;
    let within = |severity| everybody(config, severity);
    Notice {
        template: "failure-predicted",
        severity,
        recipients: within(severity),
        subject: format!(
            "{}: {} expected in {}",
            prediction.asset,
            prediction.failure_mode,
            span(rul.p50)
        ),
        text: format!(
            "{} of {} reaches {} in {} (between {} and {} in eight of ten cases); now {:.3}\nto do: {}",
            prediction.tag,
            prediction.asset,
            prediction.limit,
            span(rul.p50),
            span(rul.p10),
            span(rul.p90),
            prediction.value,
            prediction.actions.join("; ")
        ),
        matter: format!("prediction:{}:{}", prediction.asset, prediction.failure_mode),
        instance: None,
    }
}

/// How urgent a prediction is, by its median.
pub(super) fn urgency(prediction: &Prediction) -> Severity {
    let within = |span: Duration| prediction.rul.p50 <= span.as_secs_f64();
    if within(CRITICAL_WITHIN) {
        Severity::Critical
    } else if within(HIGH_WITHIN) {
        Severity::High
    } else if within(MEDIUM_WITHIN) {
        Severity::Medium
    } else {
        Severity::Low
    }
}

/// An order that was planned, moved or called off; `also`: who had it before.
pub(super) fn order(
    config: &Config,
    order: &WorkOrder,
    template: &'static str,
    also: Option<&TechnicianId>,
) -> Notice {
    let asset = &order.request.asset;
    let task = &order.request.task;
    let (who, when) = match &order.booking {
        Some(booking) => (
            Some(&booking.technician),
            format!(
                "{} from {} to {}",
                booking.technician,
                local(config, booking.start),
                local(config, booking.end)
            ),
        ),
        None => (None, "nobody, no time".to_owned()),
    };
    let alarming = order.late || order.booking.is_none();
    let severity =
        if alarming { order.request.priority.max(Severity::High) } else { order.request.priority };
    let mut recipients: Vec<String> = match who {
        Some(technician) => vec![technician.to_string()],
        None => everybody(config, severity),
    };
    if order.late {
        recipients.push(OPERATOR.to_owned());
    }
    if let Some(before) = also.map(ToString::to_string).filter(|name| !recipients.contains(name)) {
        recipients.push(before);
    }
    let word = template.trim_start_matches("work-order-");
    Notice {
        template,
        severity,
        recipients,
        subject: format!("work order {word}, {asset}: {task}"),
        text: format!(
            "{when}\nskills: {}\n{}\nwhen done: wheeltap ctl complete {}",
            order.request.skills.join(", "),
            order.reasons.join("\n"),
            order.id
        ),
        matter: format!("order:{}:{word}:{when}", order.id),
        instance: Some(order.id),
    }
}

/// An event that a stage could not digest.
pub(super) fn dead_letter(
    config: &Config,
    stage: &str,
    event: EventId,
    error: &str,
    attempts: u32,
) -> Notice {
    Notice {
        template: "dead-letter",
        severity: Severity::High,
        recipients: everybody(config, Severity::High),
        subject: format!("stage {stage} set an event aside"),
        text: format!("{error} ({attempts} attempts)\ntry again: wheeltap ctl retry {event}"),
        matter: format!("dead-letter:{stage}:{error}"),
        instance: Some(event),
    }
}

/// A moment as the people of the plant read it, to the minute.
fn local(config: &Config, moment: Timestamp) -> String {
    let zoned = moment.calendar().to_zoned(config.gateway.time_zone.clone());
    zoned.strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// A time span in the largest unit that leaves at least two of it.
fn span(seconds: f64) -> String {
    for (length, unit) in [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")] {
        if seconds >= 2.0 * length {
            return format!("{:.1} {unit}", seconds / length);
        }
    }
    format!("{seconds:.0} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_fitting_units() {
        for (seconds, expected) in [
            (0.4, "0 s"),
            (119.0, "119 s"),
            (120.0, "2.0 min"),
            (90_000.0, "25.0 h"),
            (1e6, "11.6 d"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
