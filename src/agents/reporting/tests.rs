use serde_json::{Value, json};

use super::*;
use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
use crate::domain::alarm::{AlarmCause, AlarmState, LimitKind};
use crate::domain::anomaly::{Anomaly, Fault, Pattern, Validated, Verdict};
use crate::domain::event::{AssetState, Message};
use crate::domain::ids::Arrival;
use crate::domain::prognosis::{HealthIndex, Prediction, Quantiles};
use crate::domain::reading::{Quality, Reason};
use crate::domain::severity::Severity;
use crate::domain::work_order::{Completion, OrderRequest, OrderState, Outcome};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn bench() -> Bench {
    Bench::new(setting(plain_config()), |setting| vec![Box::new(Reporting::new(setting))])
}

fn alarm(id: EventId, which: LimitKind, severity: Severity, raised: Timestamp) -> Alarm {
    Alarm {
        id,
        asset: Some(asset("P-101")),
        tag: Some(tag("bearing_temp")),
        cause: AlarmCause::Limit { which, limit: 85.0 },
        severity,
        value: Some(86.0),
        message: "above high".to_owned(),
        state: AlarmState::Unacknowledged,
        raised,
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: id,
    }
}

fn raise(bench: &mut Bench, which: LimitKind, severity: Severity) -> Alarm {
    let raised = bench.now.utc;
    let id = bench.inject(None, |id| Body::AlarmRaised(alarm(id, which, severity, raised)));
    alarm(id, which, severity, raised)
}

fn order(id: EventId, state: OrderState, late: bool) -> WorkOrder {
    WorkOrder {
        id,
        request: OrderRequest {
            asset: asset("P-101"),
            task: "replace the bearing".to_owned(),
            skills: Vec::new(),
            duration_seconds: 3600.0,
            priority: Severity::Medium,
            not_before: None,
            due: None,
            technician: None,
            alarms: Vec::new(),
            anomaly: None,
        },
        booking: None,
        state,
        late,
        reasons: Vec::new(),
        authorised_by: "policy".to_owned(),
        correlation: id,
    }
}

fn anomaly() -> Anomaly {
    Anomaly {
        asset: asset("P-101"),
        tags: vec![tag("vibration")],
        fault: Fault::Machine,
        pattern: Pattern::Drift,
        detectors: Vec::new(),
        score: 0.9,
        confidence: 0.8,
        severity: Severity::High,
        evidence: Vec::new(),
        since: noon(),
    }
}

fn prediction(mode: &str, hours: f64, health: f64) -> Body {
    let seconds = hours * 3600.0;
    Body::FailurePredicted(Prediction {
        asset: asset("P-101"),
        tag: tag("vibration"),
        failure_mode: mode.to_owned(),
        rul: Quantiles::new(seconds / 2.0, seconds, seconds * 2.0).unwrap(),
        as_of: noon(),
        limit: 7.1,
        value: 4.0,
        method: "test".to_owned(),
        confidence: 0.8,
        probability_7_30_90_d: [0.1, 0.5, 0.9],
        health: HealthIndex::new(health),
        actions: Vec::new(),
        skills: Vec::new(),
        repair_seconds: 3600.0,
        anomaly: None,
        track_record: crate::domain::prognosis::TrackRecord::default(),
        explanation: Default::default(),
    })
}

fn readings(bench: &mut Bench, tag: &str, qualities: &[(Quality, usize)]) {
    let (asset, tag) = tag.split_once('/').unwrap();
    let tag = bench.setting.plant.find(asset, tag).unwrap();
    let time = bench.now.utc;
    let readings: Vec<Reading> = qualities
        .iter()
        .flat_map(|(quality, count)| std::iter::repeat_n(*quality, *count))
        .map(|quality| Reading { tag, arrival: Arrival(1), time, value: 1.0, quality })
        .collect();
    bench.readings(&readings, false);
}

fn figures(bench: &Bench) -> Value {
    let Body::ReportMade { kind, figures } = &bench.last("report-made").body else { panic!() };
    assert_eq!(kind, "daily");
    figures.clone()
}

fn last_state(bench: &Bench) -> AssetState {
    let Body::AssetStateChanged(state) = &bench.last("asset-state-changed").body else { panic!() };
    state.clone()
}

#[test]
fn a_known_day_gives_its_exact_numbers_over_a_restart() {
    let mut bench = bench();
    let bad = Quality::Bad(Reason::Comm);
    let stale = Quality::Uncertain(Reason::Stale);
    for verdict in
        [Verdict::Confirmed, Verdict::Dismissed, Verdict::Dismissed, Verdict::Inconclusive]
    {
        let id = bench.emit(Body::AnomalyDetected(anomaly()));
        bench.emit(Body::AnomalyValidated(Validated {
            anomaly_id: id,
            anomaly: anomaly(),
            verdict,
            confidence: 0.5,
            adjustments: Vec::new(),
        }));
    }
    // Acknowledged after 60 s and after 240 s: 150 s in the mean.
    for (wait, severity) in [(60, Severity::High), (240, Severity::Critical)] {
        let mut alarm = raise(&mut bench, LimitKind::High, severity);
        bench.pass(SECOND * wait);
        alarm.state = AlarmState::Acknowledged;
        bench.emit(Body::AlarmAcknowledged(alarm.clone()));
        alarm.state = AlarmState::Cleared;
        bench.emit(Body::AlarmCleared(alarm));
    }
    raise(&mut bench, LimitKind::High, Severity::High);
    readings(&mut bench, "P-101/bearing_temp", &[(Quality::Good, 90), (bad, 4)]);
    readings(&mut bench, "P-101/flow", &[(Quality::Good, 3), (stale, 3)]);

    bench.restart(HOUR, true);
    readings(&mut bench, "P-101/flow", &[(bad, 20)]);
    bench.values(&[("F-1/vibration", 1.0)]);
    // One order done after three hours, one after one; one late and moved, one impossible.
    let planned: Vec<EventId> = [false, true, false]
        .into_iter()
        .map(|late| {
            bench.inject(None, |id| Body::WorkOrderPlanned(order(id, OrderState::Planned, late)))
        })
        .collect();
    bench.inject(None, |id| {
        Body::WorkOrderUnschedulable(order(id, OrderState::Unschedulable, false))
    });
    let done = |id| {
        let completion = Completion {
            outcome: Outcome::Fixed,
            found: None,
            notes: None,
            duration: None,
            by: None,
        };
        Body::WorkOrderCompleted(order(id, OrderState::Completed, false), completion)
    };
    bench.pass(HOUR);
    bench.emit(done(planned[0]));
    bench.emit(Body::WorkOrderStarted(order(planned[1], OrderState::Started, true)));
    bench.pass(HOUR * 2);
    bench.emit(done(planned[1]));
    bench.emit(Body::WorkOrderRescheduled(order(planned[2], OrderState::Planned, false)));
    bench.emit(Body::WorkOrderCancelled(order(planned[2], OrderState::Cancelled, false)));
    bench.emit(prediction("bearing-wear", 300.0, 0.8));
    let reason = "no trend".to_owned();
    bench.emit(Body::PredictionAbstained { asset: asset("P-101"), anomaly: None, reason });
    let message = Message {
        channel: "console".to_owned(),
        recipients: Vec::new(),
        template: "alarm-raised".to_owned(),
        severity: Severity::High,
        subject: String::new(),
        text: String::new(),
        attempts: 1,
    };
    bench.emit(Body::NotificationQueued(message.clone()));
    bench.emit(Body::NotificationSent(message.clone()));
    bench.emit(Body::NotificationFailed { message, error: "refused".to_owned() });
    bench.emit(Body::EventSetAside {
        stage: "prediction".to_owned(),
        event: planned[0],
        asset: None,
        error: "no".to_owned(),
        attempts: 2,
    });
    bench.emit(Body::Gap {
        lane: "readings".to_owned(),
        from: 11,
        to: 17,
        count: 7,
        reason: "ring overtook".to_owned(),
    });
    assert_eq!(bench.count("report-made"), 0);
    bench.pass(HOUR * 24);

    assert_eq!(bench.count("report-made"), 1);
    let expected = json!({
        "from": "2026-05-01T10:00:00.000Z",
        "to": "2026-05-02T06:00:00.000Z",
        "anomalies": {"detected": 4, "confirmed": 1, "dismissed": 2, "inconclusive": 1},
        "alarms": {
            "low": 0, "medium": 0, "high": 2, "critical": 1, "acknowledged": 2, "cleared": 2,
            "mean_seconds_to_acknowledge": 150.0,
        },
        "predictions": {"made": 1, "abstained": 1, "withdrawn": 0, "scored": 0, "held": 0},
        "decisions": {"requested": 0, "made": 0, "expired": 0},
        "work_orders": {
            "planned": 3, "late": 1, "unschedulable": 1, "started": 1, "rescheduled": 1,
            "cancelled": 1, "completed": 2, "failed": 0, "mean_seconds_to_repair": 7200.0,
        },
        "feedback": 0,
        "readings": {
            "F-1": {"good": 1, "uncertain": 0, "bad": 0, "good_share": 1.0, "bad_share": 0.0},
            "P-101": {"good": 93, "uncertain": 3, "bad": 24, "good_share": 0.775, "bad_share": 0.2},
        },
        "notifications": {"sent": 1, "failed": 1},
        "dead_letters": 1,
        "gaps": {"announced": 1, "missing": 7},
    });
    assert_eq!(figures(&bench), expected);
    let id = bench.last("report-made").id;
    let record = &bench.records[&(RecordKind::Report, id.to_string())];
    assert_eq!((&record.body, record.state.as_str(), record.open), (&expected, "daily", false));
}

#[test]
fn the_next_day_begins_from_nothing() {
    let mut bench = bench();
    raise(&mut bench, LimitKind::High, Severity::High);
    readings(&mut bench, "P-101/flow", &[(Quality::Good, 5)]);
    bench.pass(HOUR * 24);
    bench.restart(HOUR, true);
    bench.pass(HOUR * 24);
    assert_eq!(bench.count("report-made"), 2);
    let figures = figures(&bench);
    assert_eq!(figures["from"], "2026-05-02T06:00:00.000Z");
    assert_eq!(figures["alarms"]["high"], 0);
    assert_eq!(figures["alarms"]["mean_seconds_to_acknowledge"], Value::Null);
    assert_eq!(figures["readings"]["P-101"]["good"], 0);
    assert_eq!(figures["readings"]["P-101"]["good_share"], Value::Null);
}

#[test]
fn a_summary_missed_while_off_is_made_at_the_next_start() {
    let mut bench = bench();
    raise(&mut bench, LimitKind::High, Severity::High);
    bench.restart(HOUR * 50, true);
    bench.pass(SECOND);
    let figures = figures(&bench);
    assert_eq!(figures["from"], "2026-05-01T10:00:00.000Z");
    assert_eq!(figures["to"], "2026-05-03T12:00:00.000Z");
    assert_eq!(figures["alarms"]["high"], 1);
}

#[test]
fn summaries_keep_to_six_on_the_wall_over_a_clock_change() {
    let mut config = plain_config();
    config.gateway.time_zone = TimeZone::get("Europe/Rome").unwrap();
    let mut bench = Bench::new(setting(config), |setting| vec![Box::new(Reporting::new(setting))]);
    bench.now.utc = Timestamp::parse_rfc3339("2026-03-27T12:00:00Z").unwrap();
    bench.restart(Duration::ZERO, true);
    bench.pass(HOUR * 24 * 3);
    let made: Vec<String> =
        bench.of_kind("report-made").iter().map(|event| event.time.to_string()).collect();
    assert_eq!(
        made,
        ["2026-03-28T05:00:00.000Z", "2026-03-29T04:00:00.000Z", "2026-03-30T04:00:00.000Z"]
    );
}

#[test]
fn a_clock_that_is_set_moves_the_beginning_of_the_day() {
    let mut stage = Reporting::new(&setting(plain_config()));
    let mut ids = crate::agents::IdSource::new(1);
    let unset = Timestamp::parse_rfc3339("2001-01-01T07:00:00Z").unwrap();
    let start = Now { mono: MINUTE, utc: unset, trusted: false };
    stage.restore(start, Saved { records: &[], snapshot: None }).unwrap();
    let mut figures = Vec::new();
    for hours in 1..24 {
        let set = Now {
            mono: start.mono + HOUR * hours,
            utc: noon().after(HOUR * (hours - 1)),
            trusted: true,
        };
        let mut out = Outbox::new(set, &mut ids, None);
        stage.on_deadline(set, &mut out).unwrap();
        for event in out.events {
            if let Body::ReportMade { figures: made, .. } = event.body {
                figures.push(made);
            }
        }
    }
    let [summary] = &figures[..] else { panic!("{figures:?}") };
    assert_eq!(summary["from"], "2026-05-01T09:00:00.000Z");
}

#[test]
fn a_start_with_an_unset_clock_keeps_the_day() {
    let mut bench = bench();
    raise(&mut bench, LimitKind::High, Severity::High);
    bench.now.utc = Timestamp::parse_rfc3339("2001-01-01T07:00:00Z").unwrap();
    bench.restart(Duration::ZERO, false);
    bench.pass(HOUR * 30);
    assert_eq!(bench.count("report-made"), 0);
    (bench.now.utc, bench.now.trusted) = (noon().after(HOUR * 30), true);
    bench.pass(HOUR);
    assert_eq!(figures(&bench)["from"], "2026-05-01T10:00:00.000Z");
    assert_eq!(figures(&bench)["alarms"]["high"], 1);
}

#[test]
fn imports_are_no_part_of_the_day() {
    let mut bench = bench();
    let key = bench.setting.plant.find("P-101", "flow").unwrap();
    let time = bench.now.utc;
    let quality = Quality::Good;
    bench.readings(&[Reading { tag: key, arrival: Arrival(1), time, value: 1.0, quality }], true);
    bench.pass(HOUR * 24);
    assert_eq!(figures(&bench)["readings"]["P-101"]["good"], 0);
}

#[test]
fn every_asset_is_announced_at_the_start_and_not_again_after_a_restart() {
    let mut bench = bench();
    bench.pass(SECOND);
    assert_eq!(bench.count("asset-state-changed"), 2);
    let state = last_state(&bench);
    assert_eq!((state.phase, state.worst_alarm, state.rul_p50), (Phase::Learning, None, None));
    bench.restart(MINUTE, true);
    bench.pass(MINUTE);
    assert_eq!(bench.count("asset-state-changed"), 2);
}

#[test]
fn a_state_tells_the_worst_of_what_stands() {
    let mut bench = bench();
    bench.pass(SECOND);
    let reasons = Vec::new();
    bench.emit(Body::PhaseChanged { asset: asset("P-101"), phase: Phase::Armed, reasons });
    bench.emit(prediction("bearing-wear", 100.0, 0.6));
    let leak = bench.emit(prediction("seal-leak", 40.0, 0.7));
    let high = raise(&mut bench, LimitKind::High, Severity::High);
    let id = bench.inject(None, |id| Body::WorkOrderPlanned(order(id, OrderState::Planned, false)));
    bench.pass(SECOND);
    let state = last_state(&bench);
    assert_eq!(state.phase, Phase::Armed);
    assert_eq!((state.worst_alarm, state.work_order), (Some(Severity::High), Some(id)));
    assert_eq!(state.health, HealthIndex::new(0.6));
    let left = state.rul_p50.unwrap();
    assert!((left - (40.0 * 3600.0 - 1.0)).abs() < 1.5, "{left}");

    // Beyond the failure limit it has failed, whatever was predicted.
    raise(&mut bench, LimitKind::HighHigh, Severity::Critical);
    bench.pass(SECOND);
    assert_eq!(last_state(&bench).health, HealthIndex::new(0.0));
    assert_eq!(last_state(&bench).worst_alarm, Some(Severity::Critical));

    let reason = "renewed".to_owned();
    bench.emit(Body::PredictionWithdrawn { asset: asset("P-101"), prediction: leak, reason });
    let mut cleared = high;
    cleared.state = AlarmState::Cleared;
    cleared.cleared = Some(bench.now.utc);
    bench.emit(Body::AlarmCleared(cleared.clone()));
    // A late acknowledgement does not bring it back.
    bench.emit(Body::AlarmAcknowledged(cleared));
    bench.emit(Body::WorkOrderCancelled(order(id, OrderState::Cancelled, false)));
    bench.pass(SECOND);
    let state = last_state(&bench);
    assert_eq!(state.work_order, None);
    assert!(state.rul_p50.unwrap() > 99.0 * 3600.0);
    let record = &bench.records[&(RecordKind::AssetState, "P-101".to_owned())];
    assert_eq!(record.read::<AssetState>().unwrap(), state);
}

#[test]
fn many_changes_are_one_announcement_a_second() {
    let mut bench = bench();
    bench.pass(SECOND);
    let before = bench.count("asset-state-changed");
    for _ in 0..20 {
        raise(&mut bench, LimitKind::High, Severity::High);
        raise(&mut bench, LimitKind::High, Severity::Critical);
        bench.pass(Duration::from_millis(100));
    }
    let announced = bench.count("asset-state-changed") - before;
    assert_eq!(announced, 1, "nothing changed after the first");
    let caused = bench.last("asset-state-changed");
    assert!(caused.cause.is_some());
}

#[test]
fn predictions_and_alarms_are_known_after_a_restart() {
    let mut bench = bench();
    bench.emit(prediction("bearing-wear", 100.0, 0.6));
    let alarm = raise(&mut bench, LimitKind::High, Severity::High);
    bench.pass(SECOND);
    let record = Record::new(RecordKind::Alarm, alarm.id, noon(), &alarm);
    bench.records.insert((record.kind, record.id.clone()), record);
    bench.restart(MINUTE, true);
    bench.pass(SECOND * 2);
    let announced = bench.count("asset-state-changed");
    let reasons = vec!["refilling".to_owned()];
    bench.emit(Body::PhaseChanged { asset: asset("P-101"), phase: Phase::Provisional, reasons });
    bench.pass(SECOND * 2);
    assert_eq!(bench.count("asset-state-changed"), announced + 1);
    let state = last_state(&bench);
    assert_eq!((state.worst_alarm, state.health), (Some(Severity::High), HealthIndex::new(0.6)));
    assert_eq!(state.notes, ["refilling"]);
}

#[test]
fn a_removed_asset_closes_its_state() {
    let mut bench = bench();
    bench.pass(SECOND);
    let mut config = plain_config();
    config.assets.retain(|kept| kept.id != asset("F-1"));
    config.modbus[0].tags.retain(|kept| kept.tag.path.asset != asset("F-1"));
    bench.configure(setting(config));
    let record = &bench.records[&(RecordKind::AssetState, "F-1".to_owned())];
    assert_eq!((record.state.as_str(), record.open), ("configuration", false));
    assert!(bench.records[&(RecordKind::AssetState, "P-101".to_owned())].open);
}
