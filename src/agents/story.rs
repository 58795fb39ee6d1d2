//! One story told by many stages: from a departing tag to a repaired machine, under one
//! correlation, with a restart between any two chapters.

use std::time::Duration;

use super::approval::Approval;
use super::learning::Learning;
use super::logbook::Logbook;
use super::notification::Notification;
use super::orchestration::Orchestration;
use super::reporting::Reporting;
use super::scheduling::Scheduling;
use super::testing::{Bench, asset, plain_config, setting, tag};
use super::{Chain, Delivery, Effect, Stage};
use crate::config::{Channel, NotifyChannel};
use crate::domain::anomaly::{
    Anomaly, DetectorScore, Evidence, Fault, Pattern, Validated, Verdict,
};
use crate::domain::command::Verb;
use crate::domain::decision::Choice;
use crate::domain::event::Body;
use crate::domain::ids::EventId;
use crate::domain::label::Prior;
use crate::domain::prognosis::{HealthIndex, Prediction, Quantiles};
use crate::domain::record::RecordKind;
use crate::domain::severity::Severity;
use crate::domain::work_order::{Completion, LogEntry, Outcome, WorkOrder};

const SECOND: Duration = Duration::from_secs(1);

fn bench() -> Bench {
    let mut config = plain_config();
    config.notify = vec![NotifyChannel { channel: Channel::Console, min_severity: Severity::Low }];
    Bench::new(setting(config), |setting| {
        let stages: Vec<Box<dyn Stage>> = vec![
            Box::new(Orchestration::new(setting)),
            Box::new(Approval::new(setting)),
            Box::new(Scheduling::new(setting)),
            Box::new(Notification::new(setting)),
            Box::new(Logbook::new(setting)),
            Box::new(Learning::new(setting)),
            Box::new(Reporting::new(setting)),
        ];
        stages
    })
}

fn anomaly(bench: &Bench) -> Anomaly {
    Anomaly {
        asset: asset("P-101"),
        tags: vec![tag("vibration")],
        fault: Fault::Machine,
        pattern: Pattern::Drift,
        detectors: vec![DetectorScore { detector: "robust".to_owned(), score: 0.9 }],
        score: 0.9,
        confidence: 0.8,
        severity: Severity::High,
        evidence: vec![Evidence {
            tag: tag("vibration"),
            value: 3.0,
            expected: 2.0,
            sigma: 10.0,
            contribution: 1.0,
        }],
        since: bench.now.utc,
    }
}

fn prediction(bench: &Bench, anomaly: EventId) -> Prediction {
    Prediction {
        asset: asset("P-101"),
        tag: tag("vibration"),
        failure_mode: "bearing-wear".to_owned(),
        rul: Quantiles::new(2e5, 4e5, 8e5).unwrap(),
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
    }
}

/// Lets the messages be delivered that wait, each once.
fn deliver(bench: &mut Bench) {
    for effect in std::mem::take(&mut bench.effects) {
        if let Effect::Notify { id, .. } = effect {
            bench.delivered(&Delivery { id, attempts: 1, result: Ok(()) });
        }
    }
}

/// The story, with a restart after the chapter of this number, if there is one.
fn tell(restart_after: Option<usize>) {
    let mut bench = bench();
    let mut chapter = 0;
    let mut turn_page = |bench: &mut Bench| {
        bench.pass(SECOND * 2);
        if restart_after == Some(chapter) {
            bench.restart(SECOND * 30, true);
            bench.pass(SECOND * 2);
        }
        chapter += 1;
    };
    let found = anomaly(&bench);
    let story = bench.emit(Body::AnomalyDetected(found.clone()));
    let chain = Chain { cause: story, correlation: story };
    turn_page(&mut bench);
    let validated = Validated {
        anomaly_id: story,
        anomaly: found,
        verdict: Verdict::Confirmed,
        confidence: 0.9,
        adjustments: Vec::new(),
    };
    bench.emit_from(chain, Body::AnomalyValidated(validated));
    turn_page(&mut bench);
    let foretold = prediction(&bench, story);
    bench.emit_from(chain, Body::FailurePredicted(foretold));
    turn_page(&mut bench);
    // The pump matters enough that a person is asked; nothing is planned before the answer.
    let Body::DecisionRequested(question) = &bench.last("decision-requested").body else {
        panic!()
    };
    let question = question.id;
    assert_eq!(bench.count("work-order-planned"), 0);
    let (reason, changes) = (None, None);
    let choice = Choice::Approve;
    bench
        .command_by("eva", Verb::Decide { decision: question, choice, reason, changes })
        .unwrap()
        .unwrap();
    turn_page(&mut bench);
    let Body::WorkOrderPlanned(planned) = &bench.last("work-order-planned").body else { panic!() };
    let planned: WorkOrder = planned.clone();
    assert_eq!(planned.authorised_by, "eva");
    assert!(!planned.late && planned.booking.is_some());
    deliver(&mut bench);
    turn_page(&mut bench);
    let completion = Completion {
        outcome: Outcome::Fixed,
        found: Some("outer race spalled".to_owned()),
        notes: None,
        duration: Some(4000.0),
        by: None,
    };
    let order = planned.id;
    bench.command_by("tech-1", Verb::Complete { order, completion }).unwrap().unwrap();
    turn_page(&mut bench);
    deliver(&mut bench);
    bench.pass(SECOND * 2);

    // Everything that follows from the departure says so.
    for kind in [
        "alarm-raised",
        "alarm-cleared",
        "action-chosen",
        "decision-made",
        "order-authorised",
        "work-order-planned",
        "work-order-started",
        "work-order-completed",
        "work-logged",
        "baseline-reset",
        "feedback-given",
        "prior-moved",
        "notification-sent",
    ] {
        assert_eq!(bench.last(kind).correlation, story, "{kind}");
    }
    for kind in ["alarm-raised", "decision-made", "work-order-planned", "work-order-completed"] {
        assert_eq!(bench.count(kind), 1, "{kind}, restart after {restart_after:?}");
    }
    let log: LogEntry = bench.of_record(RecordKind::LogEntry)[0].read().unwrap();
    assert_eq!((log.order.id, log.renewed), (order, true));
    let prior: Prior = bench.of_record(RecordKind::Prior)[0].read().unwrap();
    assert!(prior.mean() > 0.6);
    // Each message was delivered, and nothing waits.
    let open = |kind| bench.of_record(kind).into_iter().filter(|record| record.open).count();
    for kind in [RecordKind::Alarm, RecordKind::Decision, RecordKind::WorkOrder] {
        assert_eq!(open(kind), 0, "{kind:?}");
    }
    assert_eq!(bench.count("notification-queued"), bench.count("notification-sent"));
}

#[test]
fn a_departure_ends_in_a_repair_under_one_correlation() {
    tell(None);
}

#[test]
fn a_restart_between_any_two_chapters_changes_nothing() {
    for chapter in 0..6 {
        tell(Some(chapter));
    }
}
