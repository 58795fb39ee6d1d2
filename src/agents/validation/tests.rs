use super::*;
use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
use crate::config::{Condition, Rule};
use crate::domain::alarm::{AlarmState, LimitKind};
use crate::domain::anomaly::{DetectorScore, Evidence, Fault, Pattern};
use crate::domain::ids::TagPath;
use crate::domain::severity::Severity;
use crate::domain::work_order::{Booking, OrderRequest};

fn bench() -> Bench {
    Bench::new(setting(plain_config()), |setting| vec![Box::new(Validation::new(setting))])
}

/// Vibration of the pump at 3 instead of 2 mm/s, which is ten deviations.
fn anomaly(now: Now, pattern: Pattern, confidence: f64) -> Anomaly {
    Anomaly {
        asset: asset("P-101"),
        tags: vec![tag("vibration")],
        fault: if pattern == Pattern::Stuck { Fault::Sensor } else { Fault::Machine },
        pattern,
        detectors: vec![DetectorScore { detector: "robust".to_owned(), score: 0.9 }],
        score: 0.9,
        confidence,
        severity: Severity::Medium,
        evidence: vec![Evidence {
            tag: tag("vibration"),
            value: 3.0,
            expected: 2.0,
            sigma: 10.0,
            contribution: 1.0,
        }],
        since: now.utc,
    }
}

fn detect(bench: &mut Bench, pattern: Pattern, confidence: f64) -> EventId {
    let anomaly = anomaly(bench.now, pattern, confidence);
    bench.emit(Body::AnomalyDetected(anomaly))
}

/// Vibration readings, one a second.
fn vibrate(bench: &mut Bench, values: impl IntoIterator<Item = f64>) {
    for value in values {
        bench.pass(Duration::from_secs(1));
        bench.values(&[("P-101/vibration", value)]);
    }
}

fn verdict(bench: &Bench) -> Validated {
    let Body::AnomalyValidated(validated) = &bench.last("anomaly-validated").body else { panic!() };
    validated.clone()
}

fn end(bench: &mut Bench, id: EventId) {
    bench.emit(Body::AnomalyEnded { asset: asset("P-101"), anomaly: id });
}

#[test]
fn a_lasting_departure_is_confirmed_before_patience_runs_out() {
    let mut bench = bench();
    let id = detect(&mut bench, Pattern::Level, 0.6);
    vibrate(&mut bench, [3.0; 5]);
    let validated = verdict(&bench);
    assert_eq!((validated.verdict, validated.anomaly_id), (Verdict::Confirmed, id));
    assert!(validated.confidence > 0.6 && !validated.adjustments.is_empty());
    let event = bench.last("anomaly-validated");
    assert_eq!((event.cause, event.correlation), (Some(id), id));
    end(&mut bench, id);
    assert_eq!(bench.count("anomaly-validated"), 1);
    let record = bench.of_record(RecordKind::Anomaly)[0];
    assert_eq!((record.state.as_str(), record.open), ("confirmed", false));
}

#[test]
fn a_lone_spike_is_never_confirmed() {
    for confidence in [0.3, 0.55, 0.8, 1.0] {
        let mut bench = bench();
        let id = detect(&mut bench, Pattern::Spike, confidence);
        vibrate(&mut bench, [2.0; 15]);
        end(&mut bench, id);
        assert_eq!(bench.count("anomaly-validated"), 1);
        assert_ne!(verdict(&bench).verdict, Verdict::Confirmed, "{confidence}");
        assert!(bench.of_record(RecordKind::Anomaly).iter().all(|record| !record.open));
    }
}

#[test]
fn a_departure_that_ends_at_once_gets_its_verdict_then() {
    let mut bench = bench();
    let id = detect(&mut bench, Pattern::Spike, 0.7);
    vibrate(&mut bench, [2.0]);
    end(&mut bench, id);
    assert_ne!(verdict(&bench).verdict, Verdict::Confirmed);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.count("anomaly-validated"), 1);
}

#[test]
fn a_stuck_sensor_is_confirmed_as_a_sensor_fault() {
    let mut bench = bench();
    detect(&mut bench, Pattern::Stuck, 0.7);
    vibrate(&mut bench, [2.125; 12]);
    let validated = verdict(&bench);
    assert_eq!(validated.verdict, Verdict::Confirmed);
    assert_eq!(validated.anomaly.fault, Fault::Sensor);
}

#[test]
fn maintenance_in_progress_dismisses_and_ends() {
    let mut bench = bench();
    let mut order = WorkOrder {
        id: EventId(uuid::Uuid::from_u128(5)),
        request: OrderRequest {
            asset: asset("P-101"),
            task: "replace the bearing".to_owned(),
            skills: Vec::new(),
            duration_seconds: 600.0,
            priority: Severity::High,
            not_before: None,
            due: None,
            technician: None,
            alarms: Vec::new(),
            anomaly: None,
        },
        booking: Some(Booking {
            technician: crate::domain::ids::TechnicianId::new("tech-1").unwrap(),
            start: noon(),
            end: noon().after(Duration::from_secs(600)),
        }),
        state: OrderState::Started,
        late: false,
        reasons: Vec::new(),
        authorised_by: "policy".to_owned(),
        correlation: EventId(uuid::Uuid::from_u128(5)),
    };
    bench.emit(Body::WorkOrderStarted(order.clone()));
    let id = detect(&mut bench, Pattern::Level, 0.9);
    let again = |bench: &mut Bench| {
        let worse = anomaly(bench.now, Pattern::Level, 0.95);
        let chain = Chain { cause: id, correlation: id };
        bench.inject(Some(chain), |_| Body::AnomalyDetected(worse));
    };
    for _ in 0..3 {
        vibrate(&mut bench, [3.0; 12]);
        again(&mut bench);
    }
    assert_eq!(bench.count("anomaly-validated"), 1, "it is said once");
    let validated = verdict(&bench);
    assert_eq!(validated.verdict, Verdict::Dismissed);
    assert!(validated.adjustments[0].reason.contains("at work"), "{validated:?}");

    order.state = OrderState::Cancelled;
    bench.emit(Body::WorkOrderCancelled(order));
    again(&mut bench);
    vibrate(&mut bench, [3.0; 12]);
    assert_eq!(verdict(&bench).verdict, Verdict::Confirmed);
}

#[test]
fn a_limit_alarm_of_the_asset_is_evidence() {
    let confirmed = |with_alarm: bool| {
        let mut bench = bench();
        detect(&mut bench, Pattern::Level, 0.3);
        if with_alarm {
            bench.inject(None, |id| {
                Body::AlarmRaised(Alarm {
                    id,
                    asset: Some(asset("P-101")),
                    tag: Some(tag("vibration")),
                    cause: AlarmCause::Limit { which: LimitKind::High, limit: 4.5 },
                    severity: Severity::High,
                    value: Some(4.6),
                    message: String::new(),
                    state: AlarmState::Unacknowledged,
                    raised: noon(),
                    cleared: None,
                    closed_by: None,
                    acknowledged_by: None,
                    shelved_until: None,
                    correlation: id,
                })
            });
        }
        vibrate(&mut bench, [3.0; 11]);
        verdict(&bench).verdict == Verdict::Confirmed
    };
    assert!(!confirmed(false));
    assert!(confirmed(true));
}

#[test]
fn earlier_false_alarms_make_it_harder() {
    let mut bench = bench();
    bench.emit(Body::PriorMoved {
        asset: asset("P-101"),
        tag: tag("vibration"),
        detector: "robust".to_owned(),
        right: 1.0,
        wrong: 6.0,
    });
    bench.restart(Duration::from_secs(5), true);
    detect(&mut bench, Pattern::Level, 0.6);
    vibrate(&mut bench, [3.0; 11]);
    let validated = verdict(&bench);
    assert_eq!(validated.verdict, Verdict::Inconclusive);
    assert!(validated.adjustments.iter().any(|one| one.reason.contains("0 of 5")));
}

#[test]
fn rules_hold_only_under_their_condition() {
    let at_speed = |speed: f64| {
        let mut config = plain_config();
        config.rules.push(Rule {
            name: "stopped".to_owned(),
            assets: vec![asset("P-101")],
            tags: vec!["vibration".to_owned()],
            when: Some(Condition {
                tag: TagPath { asset: asset("P-101"), tag: tag("speed") },
                min: None,
                max: Some(100.0),
            }),
            adjust: -1.0,
        });
        let mut bench =
            Bench::new(setting(config), |setting| vec![Box::new(Validation::new(setting))]);
        bench.values(&[("P-101/speed", speed)]);
        detect(&mut bench, Pattern::Level, 0.9);
        vibrate(&mut bench, [3.0; 11]);
        verdict(&bench).verdict
    };
    assert_eq!(at_speed(0.0), Verdict::Dismissed);
    assert_eq!(at_speed(1480.0), Verdict::Confirmed);
}

#[test]
fn what_stays_inconclusive_and_lasts_is_confirmed_later() {
    let mut bench = bench();
    detect(&mut bench, Pattern::Drift, 0.32);
    vibrate(&mut bench, [3.0; 11]);
    assert_eq!(verdict(&bench).verdict, Verdict::Inconclusive);
    vibrate(&mut bench, [3.0; 300]);
    assert_eq!(verdict(&bench).verdict, Verdict::Confirmed);
    assert_eq!(bench.count("anomaly-validated"), 2);
}

#[test]
fn a_case_goes_on_after_a_restart() {
    for trusted in [true, false] {
        let mut bench = bench();
        let id = detect(&mut bench, Pattern::Level, 0.5);
        bench.pass(Duration::from_secs(2));
        bench.restart(Duration::from_secs(3), trusted);
        bench.pass(Duration::from_secs(4));
        assert_eq!(bench.count("anomaly-validated"), 0);
        vibrate(&mut bench, [3.0; 10]);
        let validated = verdict(&bench);
        assert_eq!((validated.anomaly_id, validated.verdict), (id, Verdict::Confirmed));
        bench.restart(Duration::from_secs(3), trusted);
        end(&mut bench, id);
        assert!(bench.of_record(RecordKind::Anomaly).iter().all(|record| !record.open));
    }
}

#[test]
fn more_of_the_same_departure_is_no_second_case() {
    let mut bench = bench();
    let id = detect(&mut bench, Pattern::Drift, 0.3);
    vibrate(&mut bench, [3.0; 2]);
    let mut worse = anomaly(bench.now, Pattern::Drift, 0.8);
    worse.since = noon();
    bench.emit_from(Chain { cause: id, correlation: id }, Body::AnomalyDetected(worse));
    vibrate(&mut bench, [3.0; 12]);
    let validated = verdict(&bench);
    assert_eq!((validated.anomaly_id, validated.verdict), (id, Verdict::Confirmed));
    assert_eq!(bench.of_record(RecordKind::Anomaly).len(), 1);
    end(&mut bench, id);
    // What was dismissed and then gets worse is looked at again, under its first name.
    let id = detect(&mut bench, Pattern::Drift, 0.05);
    vibrate(&mut bench, [2.0; 12]);
    assert_eq!(verdict(&bench).verdict, Verdict::Dismissed);
    let worse = anomaly(bench.now, Pattern::Drift, 0.8);
    bench.emit_from(Chain { cause: id, correlation: id }, Body::AnomalyDetected(worse));
    vibrate(&mut bench, [3.0; 12]);
    assert_eq!((verdict(&bench).anomaly_id, verdict(&bench).verdict), (id, Verdict::Confirmed));
}

#[test]
fn a_person_overrules() {
    for (real, expected) in [(true, Verdict::Confirmed), (false, Verdict::Dismissed)] {
        let mut bench = bench();
        let id = detect(&mut bench, Pattern::Level, 0.5);
        bench.emit(Body::FeedbackGiven {
            asset: asset("P-101"),
            anomaly: id,
            real,
            by: "anna".to_owned(),
            notes: None,
        });
        assert_eq!(verdict(&bench).verdict, expected);
        bench.pass(Duration::from_secs(60));
        assert_eq!(bench.count("anomaly-validated"), 1);
    }
}

#[test]
fn a_flood_of_anomalies_keeps_a_bounded_number_of_cases() {
    let mut bench = bench();
    for _ in 0..100 {
        detect(&mut bench, Pattern::Spike, 0.5);
    }
    let open = bench.of_record(RecordKind::Anomaly).iter().filter(|record| record.open).count();
    assert!(open <= CASES_MAX, "{open}");
    assert_eq!(bench.count("anomaly-validated"), 100 - CASES_MAX);
}

#[test]
fn cases_of_removed_assets_are_closed() {
    let mut bench = bench();
    detect(&mut bench, Pattern::Level, 0.9);
    let mut config = plain_config();
    config.assets.retain(|one| one.id != asset("P-101"));
    config.modbus[0].tags.retain(|one| one.tag.path.asset != asset("P-101"));
    bench.configure(setting(config));
    let validated = verdict(&bench);
    assert_eq!(validated.verdict, Verdict::Dismissed);
    assert_eq!(validated.adjustments[0].reason, "configuration");
}
