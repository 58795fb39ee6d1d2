use super::*;
use crate::agents::approval::Approval;
use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
use crate::config::{Config, DecisionRow};
use crate::domain::alarm::{Alarm, AlarmState};
use crate::domain::anomaly::{DetectorScore, Evidence, Pattern};
use crate::domain::command::Refusal;
use crate::domain::prognosis::{HealthIndex, Quantiles};
use crate::domain::severity::Severity;
use crate::domain::work_order::{Completion, OrderState};

fn bench_with(config: Config) -> Bench {
    Bench::new(setting(config), |setting| {
        vec![Box::new(Orchestration::new(setting)), Box::new(Approval::new(setting))]
    })
}

/// The plain plant; `P-101` needs a person from criticality 4 on, or nobody does.
fn bench(with_person: bool) -> Bench {
    let mut config = plain_config();
    if !with_person {
        config.approval.min_criticality = Criticality::new(5).unwrap();
    }
    bench_with(config)
}

fn validated(fault: Fault) -> (EventId, Body) {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let anomaly_id = EventId(uuid::Uuid::from_u128(u128::from(number)));
    let anomaly = Anomaly {
        asset: asset("P-101"),
        tags: vec![tag("vibration")],
        fault,
        pattern: Pattern::Drift,
        detectors: vec![DetectorScore { detector: "robust".to_owned(), score: 0.9 }],
        score: 0.9,
        confidence: 0.8,
        severity: Severity::Medium,
        evidence: vec![Evidence {
            tag: tag("vibration"),
            value: 3.0,
            expected: 2.0,
            sigma: 10.0,
            contribution: 1.0,
        }],
        since: noon(),
    };
    let body = Body::AnomalyValidated(Validated {
        anomaly_id,
        anomaly,
        verdict: Verdict::Confirmed,
        confidence: 0.85,
        adjustments: Vec::new(),
    });
    (anomaly_id, body)
}

fn confirm(bench: &mut Bench, fault: Fault) -> EventId {
    let (id, body) = validated(fault);
    bench.emit_from(Chain { cause: id, correlation: id }, body);
    id
}

fn predict(bench: &mut Bench, anomaly: EventId, p50: f64) {
    let prediction = Prediction {
        asset: asset("P-101"),
        tag: tag("vibration"),
        failure_mode: "bearing-wear".to_owned(),
        rul: Quantiles::new(p50 / 2.0, p50, p50 * 2.0).unwrap(),
        as_of: bench.now.utc,
        limit: 7.1,
        value: 3.0,
        method: "wiener".to_owned(),
        confidence: 0.9,
        probability_7_30_90_d: [0.5, 0.9, 1.0],
        health: HealthIndex::new(0.5),
        actions: vec!["Replace the bearing".to_owned()],
        skills: vec!["mechanical".to_owned()],
        repair_seconds: 3600.0,
        anomaly: Some(anomaly),
        track_record: crate::domain::prognosis::TrackRecord::default(),
        explanation: Default::default(),
    };
    bench.emit_from(
        Chain { cause: anomaly, correlation: anomaly },
        Body::FailurePredicted(prediction),
    );
}

fn alarm(bench: &Bench, kind: &str) -> Alarm {
    let (Body::AlarmRaised(alarm)
    | Body::AlarmUpdated(alarm)
    | Body::AlarmAcknowledged(alarm)
    | Body::AlarmShelved(alarm)
    | Body::AlarmUnshelved(alarm)
    | Body::AlarmCleared(alarm)) = &bench.last(kind).body
    else {
        panic!()
    };
    alarm.clone()
}

fn action(bench: &Bench) -> Action {
    let Body::ActionChosen { action, .. } = &bench.last("action-chosen").body else { panic!() };
    *action
}

fn question(bench: &Bench) -> Decision {
    let Body::DecisionRequested(decision) = &bench.last("decision-requested").body else {
        panic!()
    };
    decision.clone()
}

fn authorised(bench: &Bench) -> OrderRequest {
    let Body::OrderAuthorised { order, .. } = &bench.last("order-authorised").body else {
        panic!()
    };
    order.clone()
}

fn work_order(request: OrderRequest, state: OrderState) -> WorkOrder {
    let id = EventId(uuid::Uuid::from_u128(1 << 80));
    WorkOrder {
        id,
        request,
        booking: None,
        state,
        late: false,
        reasons: Vec::new(),
        authorised_by: "policy".to_owned(),
        correlation: id,
    }
}

fn complete(bench: &mut Bench, request: OrderRequest, outcome: Outcome) {
    let completion = Completion { outcome, found: None, notes: None, duration: None, by: None };
    bench.emit(Body::WorkOrderCompleted(work_order(request, OrderState::Completed), completion));
}

const DAY: f64 = 86_400.0;

#[test]
fn a_confirmed_anomaly_becomes_an_alarm_a_prediction_and_an_order_in_one_chain() {
    let mut bench = bench(false);
    let id = confirm(&mut bench, Fault::Machine);
    let raised = alarm(&bench, "alarm-raised");
    assert!(matches!(raised.cause, AlarmCause::Score { anomaly, .. } if anomaly == id));
    assert_eq!((raised.severity, raised.value), (Severity::Medium, Some(3.0)));
    predict(&mut bench, id, 3.0 * DAY);
    assert_eq!(action(&bench), Action::Act);
    let order = authorised(&bench);
    assert_eq!(order.due, Some(noon().after(Duration::from_secs_f64(1.5 * DAY))));
    assert_eq!((order.priority, order.anomaly), (Severity::High, Some(id)));
    assert_eq!(order.alarms, vec![raised.id]);
    assert_eq!(alarm(&bench, "alarm-updated").severity, Severity::High);
    for event in &bench.events {
        assert_eq!(event.correlation, id, "{event}");
    }
    complete(&mut bench, order, Outcome::Fixed);
    let cleared = alarm(&bench, "alarm-cleared");
    assert_eq!((cleared.id, cleared.closed_by.as_deref()), (raised.id, Some("work-order")));
    assert!(bench.records.values().all(|record| !record.open), "{:?}", bench.records);
}

#[test]
fn where_the_plant_depends_on_it_a_person_is_asked_first() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, id, 3.0 * DAY);
    assert_eq!(action(&bench), Action::Ask);
    assert_eq!(bench.count("order-authorised"), 0);
    let decision = question(&bench);
    assert_eq!(decision.correlation, id);
    let verb = Verb::Decide {
        decision: decision.id,
        choice: Choice::Approve,
        reason: None,
        changes: None,
    };
    bench.command(verb).unwrap().unwrap();
    assert_eq!(bench.count("order-authorised"), 1);
    // The next prediction neither asks nor orders again.
    predict(&mut bench, id, 2.5 * DAY);
    assert_eq!(bench.count("decision-requested"), 1);
    assert_eq!(bench.count("order-authorised"), 1);
}

#[test]
fn a_sensor_fault_raises_an_alarm_and_nothing_else() {
    let mut bench = bench(false);
    let id = confirm(&mut bench, Fault::Sensor);
    assert!(matches!(
        alarm(&bench, "alarm-raised").cause,
        AlarmCause::Score { fault: Fault::Sensor, .. }
    ));
    predict(&mut bench, id, 100.0);
    assert_eq!(bench.count("prediction-requested"), 0);
    assert_eq!(bench.count("order-authorised") + bench.count("approval-requested"), 0);
}

#[test]
fn nothing_happens_without_a_confirmed_anomaly() {
    let mut bench = bench(false);
    predict(&mut bench, EventId(uuid::Uuid::from_u128(3)), 100.0);
    assert_eq!(bench.kinds(), ["failure-predicted"]);
}

#[test]
fn a_rejected_case_is_raised_again_only_when_much_more_urgent() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, id, 10.0 * DAY);
    let verb = Verb::Decide {
        decision: question(&bench).id,
        choice: Choice::Reject,
        reason: None,
        changes: None,
    };
    bench.command(verb).unwrap().unwrap();
    bench.restart(Duration::from_secs(60), true);
    predict(&mut bench, id, 8.0 * DAY);
    assert_eq!(bench.count("decision-requested"), 1);
    predict(&mut bench, id, 4.0 * DAY);
    assert_eq!(bench.count("decision-requested"), 2);
    assert_eq!(bench.count("order-authorised"), 0);
}

#[test]
fn a_much_more_urgent_prediction_sharpens_the_open_question() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, id, 20.0 * DAY);
    let first = question(&bench);
    predict(&mut bench, id, 15.0 * DAY);
    assert_eq!(bench.count("decision-requested"), 1);
    predict(&mut bench, id, 0.5 * DAY);
    let second = question(&bench);
    assert_eq!(second.id, first.id);
    assert!(second.order.due < first.order.due && second.severity > first.severity);
    assert_eq!(bench.of_record(RecordKind::Decision).len(), 1);
}

#[test]
fn without_a_prediction_the_table_still_decides() {
    let mut config = plain_config();
    config.decisions.insert(
        0,
        DecisionRow {
            within: None,
            min_confidence: 0.8,
            min_criticality: 4,
            min_severity: Severity::Medium,
            action: Action::Ask,
        },
    );
    let mut bench = bench_with(config);
    let id = confirm(&mut bench, Fault::Machine);
    let reason = "no trend".to_owned();
    let abstained = Body::PredictionAbstained { asset: asset("P-101"), anomaly: Some(id), reason };
    bench.emit_from(Chain { cause: id, correlation: id }, abstained.clone());
    let decision = question(&bench);
    assert!(decision.question.contains("no trend"), "{}", decision.question);
    assert_eq!(decision.order.due, None);
    assert!(!decision.order.skills.is_empty());
    bench.emit(abstained);
    assert_eq!(bench.count("decision-requested"), 1);
    // The prediction that comes later gives the question its due time.
    predict(&mut bench, id, 2.0 * DAY);
    assert_eq!(question(&bench).id, decision.id);
    assert!(question(&bench).order.due.is_some());
}

#[test]
fn the_alarm_ends_with_the_anomaly_and_an_order_stays() {
    let mut bench = bench(false);
    let id = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, id, 3.0 * DAY);
    bench.emit(Body::AnomalyEnded { asset: asset("P-101"), anomaly: id });
    let cleared = alarm(&bench, "alarm-cleared");
    assert_eq!(cleared.state, AlarmState::ReturnedUnacknowledged);
    // The like again: a new alarm, but no second order.
    let again = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, again, 2.9 * DAY);
    assert_eq!((bench.count("alarm-raised"), bench.count("order-authorised")), (2, 1));
    let order = authorised(&bench);
    let cancelled = work_order(order, OrderState::Cancelled);
    bench.emit(Body::WorkOrderCancelled(cancelled));
    predict(&mut bench, again, 2.8 * DAY);
    assert_eq!(bench.count("order-authorised"), 1);
}

#[test]
fn alarms_are_acknowledged_shelved_and_come_back_over_a_restart() {
    let mut bench = bench(false);
    confirm(&mut bench, Fault::Machine);
    let id = alarm(&bench, "alarm-raised").id;
    let shelve = Verb::Shelve { alarm: id, span: Duration::from_secs(3600), reason: None };
    bench.command(shelve).unwrap().unwrap();
    assert_eq!(alarm(&bench, "alarm-shelved").state, AlarmState::Shelved);
    bench.restart(Duration::from_secs(1800), true);
    bench.pass(Duration::from_secs(1700));
    assert_eq!(bench.count("alarm-unshelved"), 0);
    bench.pass(Duration::from_secs(200));
    assert_eq!(alarm(&bench, "alarm-unshelved").state, AlarmState::Unacknowledged);
    bench.command_by("anna", Verb::Acknowledge { alarm: id }).unwrap().unwrap();
    assert_eq!(alarm(&bench, "alarm-acknowledged").acknowledged_by.as_deref(), Some("anna"));
    let again = bench.command(Verb::Acknowledge { alarm: id }).unwrap().unwrap_err();
    assert!(matches!(again, Refusal::Conflict { .. }));
    // Alarms of other stages are not this one's.
    let foreign = EventId(uuid::Uuid::from_u128(404));
    assert_eq!(bench.command(Verb::Acknowledge { alarm: foreign }), None);
}

#[test]
fn conditions_of_the_gateway_become_alarms_and_end() {
    let mut bench = bench(false);
    let condition = |active, severity| Body::Condition {
        condition: "source-silent".to_owned(),
        subject: "plc1".to_owned(),
        active,
        severity,
        message: "plc1 does not answer".to_owned(),
    };
    bench.emit(condition(false, Severity::High));
    for _ in 0..3 {
        bench.emit(condition(true, Severity::High));
    }
    assert_eq!(bench.count("alarm-raised"), 1);
    bench.restart(Duration::from_secs(5), true);
    bench.emit(condition(true, Severity::Critical));
    assert_eq!(alarm(&bench, "alarm-updated").severity, Severity::Critical);
    bench.emit(condition(false, Severity::High));
    assert_eq!(bench.count("alarm-cleared"), 1);

    let aside = EventId(uuid::Uuid::from_u128(6));
    let set_aside = Body::EventSetAside {
        stage: "learning".to_owned(),
        event: aside,
        asset: None,
        error: "broken".to_owned(),
        attempts: 2,
    };
    bench.emit(set_aside);
    let switch = |on| Body::StageSwitched {
        stage: "learning".to_owned(),
        on,
        reason: "five in ten minutes".to_owned(),
    };
    bench.emit(switch(false));
    assert_eq!(bench.count("alarm-raised"), 3);
    bench.emit(switch(true));
    bench.emit(Body::CommandTaken(Command {
        by: "anna".to_owned(),
        verb: Verb::Retry { event: aside },
    }));
    assert_eq!(bench.count("alarm-cleared"), 3);
}

#[test]
fn an_anomaly_that_gets_worse_sharpens_its_alarm() {
    let mut bench = bench(false);
    let (id, body) = validated(Fault::Machine);
    let Body::AnomalyValidated(first) = &body else { panic!() };
    let worse = Anomaly { severity: Severity::High, ..first.anomaly.clone() };
    bench.emit_from(Chain { cause: id, correlation: id }, body);
    bench.emit_from(Chain { cause: id, correlation: id }, Body::AnomalyDetected(worse));
    assert_eq!((bench.count("alarm-raised"), bench.count("alarm-updated")), (1, 1));
    assert_eq!(alarm(&bench, "alarm-updated").severity, Severity::High);
}

#[test]
fn a_person_who_says_that_nothing_is_wrong_ends_the_alarm() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    bench.emit(Body::FeedbackGiven {
        asset: asset("P-101"),
        anomaly: id,
        real: false,
        by: "anna".to_owned(),
        notes: None,
    });
    assert_eq!(alarm(&bench, "alarm-cleared").closed_by.as_deref(), Some("feedback"));
    predict(&mut bench, id, DAY);
    assert_eq!(bench.count("decision-requested"), 0);
}

#[test]
fn half_a_story_goes_on_after_a_restart() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    bench.restart(Duration::from_secs(5), false);
    predict(&mut bench, id, 3.0 * DAY);
    bench.restart(Duration::from_secs(5), true);
    let decision = question(&bench);
    let choice = Choice::Approve;
    let verb = Verb::Decide { decision: decision.id, choice, reason: None, changes: None };
    bench.command(verb).unwrap().unwrap();
    bench.restart(Duration::from_secs(5), true);
    predict(&mut bench, id, 2.9 * DAY);
    assert_eq!(bench.count("order-authorised"), 1);
    let order = authorised(&bench);
    complete(&mut bench, order, Outcome::Fixed);
    assert_eq!(bench.count("alarm-cleared"), 1);
    assert!(bench.records.values().all(|record| !record.open));
    assert!(
        bench
            .events
            .iter()
            .all(|event| event.correlation == id || event.body.kind() == "work-order-completed")
    );
}

#[test]
fn what_belongs_to_removed_assets_is_closed() {
    let mut bench = bench(true);
    let id = confirm(&mut bench, Fault::Machine);
    predict(&mut bench, id, DAY);
    let mut config = plain_config();
    config.assets.retain(|one| one.id != asset("P-101"));
    config.modbus[0].tags.retain(|one| one.tag.path.asset != asset("P-101"));
    bench.configure(setting(config));
    assert_eq!(alarm(&bench, "alarm-cleared").closed_by.as_deref(), Some("configuration"));
    assert!(bench.records.values().all(|record| !record.open));
}
