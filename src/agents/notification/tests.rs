use super::*;
use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
use crate::config::{Config, NotifyChannel};
use crate::domain::alarm::{AlarmCause, LimitKind};
use crate::domain::decision::{Choice, Decision};
use crate::domain::prognosis::{HealthIndex, Quantiles};
use crate::domain::work_order::{Booking, OrderRequest, OrderState};

const MINUTE: Duration = Duration::from_secs(60);

fn config(channels: &[(Channel, Severity)]) -> Config {
    let mut config = plain_config();
    config.notify = channels
        .iter()
        .map(|(channel, min_severity)| NotifyChannel {
            channel: channel.clone(),
            min_severity: *min_severity,
        })
        .collect();
    config
}

fn bench(channels: &[(Channel, Severity)]) -> Bench {
    Bench::new(setting(config(channels)), |setting| vec![Box::new(Notification::new(setting))])
}

fn webhook() -> Channel {
    Channel::Webhook { url: "http://127.0.0.1:9/hook".to_owned() }
}

fn limit_alarm(id: EventId, tag_id: &str, severity: Severity) -> Alarm {
    Alarm {
        id,
        asset: Some(asset("P-101")),
        tag: Some(tag(tag_id)),
        cause: AlarmCause::Limit { which: LimitKind::High, limit: 85.0 },
        severity,
        value: Some(86.5),
        message: "bearing_temp is above high".to_owned(),
        state: AlarmState::Unacknowledged,
        raised: noon(),
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: id,
    }
}

fn raise(bench: &mut Bench, tag: &str, severity: Severity) -> EventId {
    bench.inject(None, |id| Body::AlarmRaised(limit_alarm(id, tag, severity)))
}

/// Channel, template and severity of every message, when it was first heard of.
fn queued(bench: &Bench) -> Vec<(String, String, Severity)> {
    let queued = |id| bench.of_kind("notification-queued").iter().any(|event| event.id == id);
    let first = |event: &&Event| !event.cause.is_some_and(queued);
    let messages = bench.events.iter().filter(first).filter_map(|event| {
        if let Body::NotificationQueued(message) | Body::NotificationSent(message) = &event.body {
            Some((message.channel.clone(), message.template.clone(), message.severity))
        } else {
            None
        }
    });
    messages.collect()
}

fn order(id: EventId, technician: &str, late: bool) -> WorkOrder {
    WorkOrder {
        id,
        request: OrderRequest {
            asset: asset("P-101"),
            task: "replace the bearing".to_owned(),
            skills: vec!["mechanical".to_owned()],
            duration_seconds: 3600.0,
            priority: Severity::Medium,
            not_before: None,
            due: None,
            technician: None,
            alarms: Vec::new(),
            anomaly: None,
        },
        booking: Some(Booking {
            technician: TechnicianId::new(technician).unwrap(),
            start: noon(),
            end: noon().after(60 * MINUTE),
        }),
        state: OrderState::Planned,
        late,
        reasons: Vec::new(),
        authorised_by: "policy".to_owned(),
        correlation: id,
    }
}

fn prediction(days: f64, as_of: Timestamp) -> Body {
    let seconds = days * 86_400.0;
    Body::FailurePredicted(Prediction {
        asset: asset("P-101"),
        tag: tag("vibration"),
        failure_mode: "bearing-wear".to_owned(),
        rul: Quantiles::new(seconds / 2.0, seconds, seconds * 2.0).unwrap(),
        as_of,
        limit: 7.1,
        value: 4.0,
        method: "test".to_owned(),
        confidence: 0.8,
        probability_7_30_90_d: [0.1, 0.5, 0.9],
        health: HealthIndex::new(0.5),
        actions: vec!["replace the bearing".to_owned()],
        skills: Vec::new(),
        repair_seconds: 3600.0,
        anomaly: None,
        track_record: crate::domain::prognosis::TrackRecord::default(),
        explanation: Default::default(),
    })
}

fn deliver(bench: &mut Bench, result: Result<(), &str>) {
    for effect in std::mem::take(&mut bench.effects) {
        let Effect::Notify { id, .. } = effect else { panic!() };
        let result = result.map_err(str::to_owned);
        bench.delivered(&Delivery { id, attempts: 2, result });
    }
}

#[test]
fn each_channel_is_told_from_its_severity_on() {
    let mut bench = bench(&[(Channel::Console, Severity::Low), (webhook(), Severity::High)]);
    raise(&mut bench, "bearing_temp", Severity::Medium);
    let cause = raise(&mut bench, "vibration", Severity::High);
    let told: Vec<_> = queued(&bench).into_iter().map(|(channel, ..)| channel).collect();
    assert_eq!(told, ["console", "console", "webhook"]);
    assert_eq!(bench.last("notification-queued").correlation, cause);
    assert_eq!(bench.effects.len(), 3);
}

#[test]
fn a_message_is_open_until_its_delivery_ends() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let cause = raise(&mut bench, "bearing_temp", Severity::High);
    let id = bench.last("notification-queued").id;
    let state = |bench: &Bench| {
        let record = &bench.records[&(RecordKind::Notification, id.to_string())];
        (record.state.clone(), record.open)
    };
    assert_eq!(state(&bench), ("queued".to_owned(), true));
    deliver(&mut bench, Ok(()));
    assert_eq!(state(&bench), ("sent".to_owned(), false));
    let sent = bench.last("notification-sent");
    assert_eq!((sent.correlation, sent.cause), (cause, Some(id)));
    let Body::NotificationSent(message) = &sent.body else { panic!() };
    assert_eq!(message.attempts, 2);
    assert!(message.recipients.contains(&"tech-1".to_owned()));

    raise(&mut bench, "vibration", Severity::High);
    deliver(&mut bench, Err("refused"));
    let Body::NotificationFailed { error, .. } = &bench.last("notification-failed").body else {
        panic!()
    };
    assert_eq!(error, "refused");
    // An answer for something long closed changes nothing.
    bench.delivered(&Delivery { id, attempts: 1, result: Ok(()) });
    assert_eq!(bench.count("notification-sent"), 1);
}

#[test]
fn what_a_restart_interrupted_is_handed_out_again() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let cause = raise(&mut bench, "bearing_temp", Severity::High);
    let handed = std::mem::take(&mut bench.effects);
    bench.restart(MINUTE, true);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.effects, handed);
    deliver(&mut bench, Ok(()));
    assert_eq!(bench.last("notification-sent").correlation, cause);
    bench.restart(MINUTE, true);
    bench.pass(Duration::from_secs(1));
    assert!(bench.effects.is_empty());
}

#[test]
fn upstream_is_told_by_the_event_itself() {
    let mut bench = bench(&[(Channel::Mqtt, Severity::Low)]);
    raise(&mut bench, "bearing_temp", Severity::High);
    assert_eq!((bench.count("notification-sent"), bench.effects.len()), (1, 0));
    assert!(bench.of_record(RecordKind::Notification).iter().all(|record| !record.open));
}

#[test]
fn an_alarm_is_told_again_only_when_it_gets_worse() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let id = raise(&mut bench, "bearing_temp", Severity::Medium);
    let update = |severity| Body::AlarmUpdated(limit_alarm(id, "bearing_temp", severity));
    bench.emit(update(Severity::Medium));
    bench.emit(update(Severity::Critical));
    let record = limit_alarm(id, "bearing_temp", Severity::Critical);
    let record = Record::new(RecordKind::Alarm, id, noon(), &record);
    bench.records.insert((record.kind, record.id.clone()), record);
    bench.restart(MINUTE, true);
    bench.emit(update(Severity::High));
    bench.emit(update(Severity::Critical));
    let told: Vec<_> = queued(&bench).into_iter().map(|(_, t, s)| (t, s)).collect();
    let expected = [("alarm-raised", Severity::Medium), ("alarm-updated", Severity::Critical)];
    assert_eq!(told, expected.map(|(template, severity)| (template.to_owned(), severity)));
}

#[test]
fn a_chattering_alarm_is_told_once_and_counted() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    for _ in 0..4 {
        let id = raise(&mut bench, "bearing_temp", Severity::High);
        bench.emit(Body::AlarmCleared(limit_alarm(id, "bearing_temp", Severity::High)));
        bench.pass(Duration::from_secs(10));
    }
    assert_eq!(queued(&bench).len(), 1);
    bench.pass(DIGEST_AFTER);
    let Body::NotificationQueued(digest) = &bench.last("notification-queued").body else {
        panic!()
    };
    assert_eq!(digest.template, "digest");
    assert_eq!(digest.subject, "3 messages were held back");
    // After a while it is news again.
    raise(&mut bench, "bearing_temp", Severity::High);
    assert_eq!(queued(&bench).len(), 3);
}

#[test]
fn critical_ones_are_never_held_back() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    for _ in 0..200 {
        let id = raise(&mut bench, "bearing_temp", Severity::Critical);
        bench.emit(Body::AlarmCleared(limit_alarm(id, "bearing_temp", Severity::Critical)));
    }
    assert_eq!(queued(&bench).len(), 200);
}

#[test]
fn what_is_too_much_is_counted_and_told_also_after_a_restart() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let many = |bench: &mut Bench, count: usize| {
        for number in 0..count {
            let technician = "tech-1";
            let planned = bench.events.len() + number;
            let id = EventId(uuid::Uuid::from_u128(planned as u128));
            bench.emit(Body::WorkOrderPlanned(order(id, technician, false)));
        }
    };
    many(&mut bench, ledger::RATE_MAX + 14);
    assert_eq!(queued(&bench).len(), ledger::RATE_MAX);
    raise(&mut bench, "vibration", Severity::Critical);
    assert_eq!(queued(&bench).len(), ledger::RATE_MAX + 1);
    deliver(&mut bench, Ok(()));

    bench.restart(MINUTE, true);
    bench.pass(DIGEST_AFTER);
    let Body::NotificationQueued(digest) = &bench.last("notification-queued").body else {
        panic!()
    };
    assert_eq!(digest.subject, "14 messages were held back");
    assert!(digest.text.starts_with("14 × work-order-planned\n"), "{}", digest.text);
    assert!(digest.text.ends_with("and 4 more"), "{}", digest.text);
    let told = queued(&bench).len();
    bench.pass(DIGEST_AFTER * 2);
    assert_eq!(queued(&bench).len(), told);
}

#[test]
fn orders_are_told_to_those_who_do_them() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let id = EventId(uuid::Uuid::from_u128(77));
    let recipients = |bench: &Bench| {
        let Body::NotificationQueued(message) = &bench.last("notification-queued").body else {
            panic!()
        };
        (message.template.clone(), message.severity, message.recipients.clone())
    };
    bench.emit(Body::WorkOrderPlanned(order(id, "tech-1", false)));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        recipients(&bench),
        ("work-order-planned".to_owned(), Severity::Medium, names(&["tech-1"]))
    );
    // Who had it before is known from scheduling's record.
    let kept = Record::new(RecordKind::WorkOrder, id, noon(), &order(id, "tech-1", false));
    bench.records.insert((kept.kind, kept.id.clone()), kept);
    bench.restart(MINUTE, true);
    bench.emit(Body::WorkOrderRescheduled(order(id, "tech-3", true)));
    assert_eq!(
        recipients(&bench),
        (
            "work-order-rescheduled".to_owned(),
            Severity::High,
            names(&["tech-3", "operator", "tech-1"])
        )
    );
    let mut impossible = order(id, "tech-3", false);
    (impossible.booking, impossible.state) = (None, OrderState::Unschedulable);
    bench.emit(Body::WorkOrderUnschedulable(impossible));
    assert_eq!(
        recipients(&bench),
        (
            "work-order-unschedulable".to_owned(),
            Severity::High,
            names(&["operator", "tech-1", "tech-2", "tech-3"])
        )
    );
}

#[test]
fn a_question_is_put_with_its_answer_line_and_each_time_it_is_asked() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    let mut decision = Decision {
        id: EventId(uuid::Uuid::from_u128(5)),
        asset: asset("P-101"),
        order: order(EventId(uuid::Uuid::nil()), "tech-1", false).request,
        question: "plan the repair?".to_owned(),
        severity: Severity::High,
        deadline: noon().after(20 * MINUTE),
        default: Choice::Defer,
        asked: 1,
        answer: None,
        correlation: EventId(uuid::Uuid::nil()),
    };
    bench.emit(Body::DecisionRequested(decision.clone()));
    bench.emit(Body::DecisionExpired(decision.clone()));
    decision.asked = 2;
    bench.emit(Body::DecisionRequested(decision.clone()));
    bench.emit(Body::DecisionRequested(decision.clone()));
    assert_eq!(queued(&bench).len(), 3);
    let Body::NotificationQueued(message) = &bench.last("notification-queued").body else {
        panic!()
    };
    assert!(message.text.contains(&format!("wheeltap ctl decide {} approve", decision.id)));
    assert!(message.text.contains("2026-05-01 10:20 UTC"), "{}", message.text);
}

#[test]
fn a_prediction_is_told_first_and_when_much_changed() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    bench.emit(prediction(60.0, noon()));
    assert_eq!(queued(&bench).len(), 1);
    bench.pass(10 * MINUTE);
    bench.emit(prediction(50.0, noon()));
    assert_eq!(queued(&bench).len(), 1, "much the same");
    bench.restart(MINUTE, true);
    bench.emit(prediction(55.0, noon()));
    assert_eq!(queued(&bench).len(), 1, "still known after a restart");
    bench.emit(prediction(20.0, noon()));
    assert_eq!(queued(&bench).last().unwrap().2, Severity::Medium);
    bench.pass(10 * MINUTE);
    bench.emit(prediction(5.0, noon()));
    bench.emit(prediction(0.5, noon()));
    assert_eq!(queued(&bench).len(), 4);
    assert_eq!(queued(&bench).last().unwrap().2, Severity::Critical);
    bench.pass(10 * MINUTE);
    let event = bench.last("failure-predicted").id;
    let reason = "trend gone".to_owned();
    bench.emit(Body::PredictionWithdrawn { asset: asset("P-101"), prediction: event, reason });
    bench.emit(prediction(0.5, noon()));
    assert_eq!(queued(&bench).len(), 5);
}

#[test]
fn dead_letters_are_told_once_per_error() {
    let mut bench = bench(&[(Channel::Console, Severity::Low)]);
    for number in 0..3 {
        bench.emit(Body::EventSetAside {
            stage: "prediction".to_owned(),
            event: EventId(uuid::Uuid::from_u128(number)),
            asset: None,
            error: "the trend cannot be read".to_owned(),
            attempts: 2,
        });
    }
    // The alarm about it comes besides, and says less.
    bench.inject(None, |id| {
        let cause = AlarmCause::System { condition: "event-set-aside".to_owned() };
        let (asset, tag) = (None, None);
        Body::AlarmRaised(Alarm { asset, tag, cause, ..limit_alarm(id, "flow", Severity::High) })
    });
    assert_eq!(queued(&bench).len(), 1);
}

#[test]
fn a_channel_that_is_gone_gives_its_messages_up() {
    let mut bench = bench(&[(webhook(), Severity::Low)]);
    raise(&mut bench, "bearing_temp", Severity::High);
    bench.configure(setting(config(&[(Channel::Console, Severity::Low)])));
    let Body::NotificationFailed { error, .. } = &bench.last("notification-failed").body else {
        panic!()
    };
    assert_eq!(error, "configuration");
    deliver(&mut bench, Ok(()));
    assert_eq!(bench.count("notification-sent"), 0);
}
