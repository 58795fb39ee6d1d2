use super::*;
use crate::agents::approval::Approval;
use crate::agents::orchestration::Orchestration;
use crate::agents::testing::{Bench, asset, noon, plain_config, setting, tag};
use crate::agents::validation::Validation;
use crate::analytics::degradation::run_job;
use crate::domain::anomaly::{Anomaly, DetectorScore, Evidence, Fault, Pattern};
use crate::domain::command::Verb;
use crate::domain::decision::Choice;
use crate::domain::ids::Arrival;
use crate::domain::reading::{Quality, Reading};
use crate::domain::severity::Severity;

/// Seconds after noon at which the vibration begins to grow.
const ONSET: f64 = 300.0;

/// A pump whose vibration doubles its departure every 25 s; it reaches 7.1 about 140 s after the
/// onset.
fn wearing(tag: &str, seconds: f64) -> f64 {
    let noise = 0.02 * (seconds * 12.9898).sin().mul_add(43_758.545, 0.0).fract();
    let healthy = if tag == "vibration" { 2.0 } else { 50.0 };
    let grown = ((seconds - ONSET).max(0.0) / 36.0).exp_m1() * 0.1;
    healthy + noise + if tag == "vibration" { grown } else { 0.0 }
}

/// What the runtime does: two readings a second from the ring, oldest first.
fn worker(spec: &JobSpec) -> Result<serde_json::Value, String> {
    let JobSpec::Degradation { tag, from, to, .. } = spec else {
        return Err("not a way to a limit".to_owned());
    };
    let from = from.unwrap_or(noon()).max(noon());
    let mut readings = Vec::new();
    let mut time = from;
    while time <= *to {
        let value = wearing(tag.as_str(), time.since(noon()).as_secs_f64());
        let arrival = Arrival(1);
        let tag = crate::domain::ids::TagKey(1);
        readings.push(Reading { tag, arrival, time, value, quality: Quality::Good });
        time = time.after(Duration::from_millis(500));
    }
    run_job(spec, &readings)
}

fn bench() -> Bench {
    Bench::new(setting(plain_config()), |setting| vec![Box::new(Prediction::new(setting))])
        .work_with(worker)
}

fn request(bench: &mut Bench, since: Timestamp) -> EventId {
    let anomaly = anomaly(since);
    let tags = anomaly.tags.clone();
    let id = bench.emit(Body::AnomalyDetected(anomaly));
    let chain = Chain { cause: id, correlation: id };
    let asset = asset("P-101");
    bench.emit_from(chain, Body::PredictionRequested { asset, anomaly: id, tags });
    id
}

fn anomaly(since: Timestamp) -> Anomaly {
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
            value: 2.2,
            expected: 2.0,
            sigma: 10.0,
            contribution: 1.0,
        }],
        since,
    }
}

fn predicted(bench: &Bench) -> Prognosis {
    let Body::FailurePredicted(prediction) = &bench.last("failure-predicted").body else {
        panic!()
    };
    prediction.clone()
}

/// Lets `seconds` after noon come.
fn until(bench: &mut Bench, seconds: f64) {
    let at = noon().after(Duration::from_secs_f64(seconds));
    bench.pass(at.since(bench.now.utc));
}

#[test]
fn a_wearing_bearing_is_predicted_soon_and_better_and_better() {
    let mut bench = bench();
    until(&mut bench, ONSET + 30.0);
    let since = bench.now.utc.before(Duration::from_secs(5));
    let id = request(&mut bench, since);
    until(&mut bench, ONSET + 65.0);
    let first = predicted(&bench);
    assert_eq!((first.failure_mode.as_str(), &first.tag), ("bearing-wear", &tag("vibration")));
    assert_eq!((first.anomaly, first.limit), (Some(id), 7.1));
    assert!(!first.actions.is_empty() && !first.skills.is_empty());
    until(&mut bench, ONSET + 110.0);
    let later = predicted(&bench);
    let left = ONSET + 142.0 - later.as_of.since(noon()).as_secs_f64();
    assert!(later.rul.p10 <= left * 1.1 && left * 0.8 <= later.rul.p90, "{later:?}, {left} left");
    assert!(later.health < first.health);
    assert!(bench.events.iter().all(|event| event.correlation == id));
    let rows = bench.of_record(RecordKind::Prediction);
    assert_eq!(rows.iter().filter(|row| row.read::<Prognosis>().is_ok()).count(), 1);
    // Beyond the limit nothing is left, and that is said once.
    until(&mut bench, ONSET + 170.0);
    assert!(predicted(&bench).health.get() <= 0.0);
    let said = bench.count("failure-predicted");
    until(&mut bench, ONSET + 1000.0);
    assert_eq!(bench.count("failure-predicted"), said);
    assert!(bench.count("job-started") < 400, "{}", bench.count("job-started"));
}

fn repaired(bench: &mut Bench) {
    let order = bench.last("failure-predicted").id;
    let completion = serde_json::from_str(r#"{"outcome":"fixed"}"#).unwrap();
    bench.emit(Body::WorkLogged { asset: asset("P-101"), order, completion, renewed: true });
}

fn outcomes(bench: &Bench) -> Vec<String> {
    let scored = bench.of_kind("prediction-scored");
    let outcome = |event: &&Event| {
        let Body::PredictionScored { outcome, .. } = &event.body else { panic!("{event:?}") };
        outcome.clone()
    };
    scored.iter().map(outcome).collect()
}

#[test]
fn predictions_are_scored_by_what_came_and_the_next_one_says_how_they_did() {
    let mut bench = bench();
    until(&mut bench, ONSET + 30.0);
    let since = bench.now.utc.before(Duration::from_secs(5));
    request(&mut bench, since);
    until(&mut bench, ONSET + 110.0);
    let announced = bench.count("failure-predicted");
    assert!(announced > 1 && outcomes(&bench).is_empty());
    bench.restart(Duration::from_secs(1), false);
    until(&mut bench, ONSET + 142.0);
    let alarm = crate::domain::alarm::Alarm {
        id: bench.last("failure-predicted").id,
        asset: Some(asset("P-101")),
        tag: Some(tag("vibration")),
        cause: crate::domain::alarm::AlarmCause::Limit {
            which: crate::domain::alarm::LimitKind::HighHigh,
            limit: 7.1,
        },
        severity: Severity::Critical,
        value: Some(7.2),
        message: String::new(),
        state: crate::domain::alarm::AlarmState::Unacknowledged,
        raised: bench.now.utc,
        cleared: None,
        closed_by: None,
        acknowledged_by: None,
        shelved_until: None,
        correlation: bench.last("failure-predicted").id,
    };
    bench.emit(Body::AlarmUpdated(alarm));
    let found = outcomes(&bench);
    assert!(found.len() >= announced && found.iter().all(|outcome| outcome == "reached"));
    let actual = |event: &&Event| {
        let Body::PredictionScored { actual, .. } = &event.body else { panic!("{event:?}") };
        actual.unwrap()
    };
    let lead = actual(&bench.of_kind("prediction-scored")[0]);
    assert!((30.0..115.0).contains(&lead), "announced {lead} s before");

    repaired(&mut bench);
    let count = u32::try_from(found.len()).unwrap();
    let card = bench.of_record(RecordKind::Outlook);
    let card = card.iter().find(|record| record.state == "card").unwrap();
    assert!(card.body.to_string().contains(&format!("\"scored\":{count}")), "{}", card.body);
}

#[test]
fn a_prediction_that_a_repair_overtakes_is_not_judged() {
    let mut bench = bench();
    until(&mut bench, ONSET + 30.0);
    let since = bench.now.utc.before(Duration::from_secs(5));
    request(&mut bench, since);
    until(&mut bench, ONSET + 90.0);
    repaired(&mut bench);
    let found = outcomes(&bench);
    assert!(!found.is_empty() && found.iter().all(|outcome| outcome == "prevented"), "{found:?}");
}

#[test]
fn what_does_not_wear_is_abstained_from_once() {
    let mut bench = bench();
    until(&mut bench, 100.0);
    let since = bench.now.utc;
    let id = request(&mut bench, since);
    until(&mut bench, 280.0);
    assert_eq!(bench.count("failure-predicted"), 0);
    assert_eq!(bench.count("prediction-abstained"), 1);
    let Body::PredictionAbstained { anomaly, reason, .. } =
        &bench.last("prediction-abstained").body
    else {
        panic!()
    };
    assert_eq!(*anomaly, Some(id));
    assert!(reason.contains("vibration"), "{reason}");
}

#[test]
fn an_asset_without_failure_limits_is_abstained_from() {
    let mut config = plain_config();
    for one in &mut config.modbus[0].tags {
        one.tag.limits = crate::domain::tag::Limits::default();
    }
    for asset in &mut config.assets {
        asset.iso20816_group = None;
    }
    let mut bench = Bench::new(setting(config), |setting| vec![Box::new(Prediction::new(setting))]);
    request(&mut bench, noon());
    assert_eq!(bench.count("prediction-abstained"), 1);
    assert_eq!((bench.count("job-started"), bench.effects.len()), (0, 0));
}

#[test]
fn a_prediction_is_withdrawn_when_the_departure_ends() {
    let mut bench = bench();
    until(&mut bench, ONSET + 90.0);
    let since = bench.now.utc.before(Duration::from_secs(40));
    let id = request(&mut bench, since);
    until(&mut bench, ONSET + 100.0);
    let event = bench.last("failure-predicted").id;
    bench.restart(Duration::from_secs(2), true);
    bench.emit(Body::AnomalyEnded { asset: asset("P-101"), anomaly: id });
    let Body::PredictionWithdrawn { prediction, .. } = &bench.last("prediction-withdrawn").body
    else {
        panic!()
    };
    assert_eq!(*prediction, event);
    let open: Vec<&Record> = bench.records.values().filter(|record| record.open).collect();
    assert_eq!(open.len(), 1, "what is known of how predictions did stays");
    assert_eq!(open[0].state, "card");
    let jobs = bench.count("job-started");
    until(&mut bench, ONSET + 500.0);
    assert_eq!(bench.count("job-started"), jobs);
}

#[test]
fn answers_to_earlier_rounds_and_lives_are_dropped() {
    // No worker: the answers are given by hand.
    let mut bench =
        Bench::new(setting(plain_config()), |setting| vec![Box::new(Prediction::new(setting))]);
    until(&mut bench, ONSET + 90.0);
    let since = bench.now.utc.before(Duration::from_secs(40));
    request(&mut bench, since);
    let jobs: Vec<(EventId, JobSpec)> = bench
        .effects
        .drain(..)
        .map(|effect| match effect {
            Effect::Run { job, spec } => (job, spec),
            Effect::Notify { .. } => panic!("{effect:?}"),
        })
        .collect();
    assert!(jobs.len() >= 2 && jobs.len() <= TAGS_MAX);
    bench.restart(Duration::from_secs(1), true);
    let answer = |bench: &mut Bench, (job, spec): &(EventId, JobSpec)| {
        let result = worker(spec);
        bench.emit(Body::JobFinished { job: *job, spec: spec.clone(), result });
    };
    answer(&mut bench, &jobs[0]);
    assert_eq!(bench.count("failure-predicted"), 0);
    for job in &jobs[1..] {
        answer(&mut bench, job);
    }
    assert_eq!(bench.count("failure-predicted"), 1);
    // Late repeats, and answers after a repair, change nothing.
    answer(&mut bench, &jobs[0]);
    bench.emit(Body::WorkLogged {
        asset: asset("P-101"),
        order: jobs[0].0,
        completion: crate::domain::work_order::Completion {
            outcome: crate::domain::work_order::Outcome::Fixed,
            found: None,
            notes: None,
            duration: None,
            by: None,
        },
        renewed: true,
    });
    assert_eq!(bench.count("prediction-withdrawn"), 1);
    for job in &jobs {
        answer(&mut bench, job);
    }
    assert_eq!(bench.count("failure-predicted"), 1);
    // The next life begins with the repair.
    let repaired = bench.now.utc;
    bench.restart(Duration::from_secs(1), true);
    bench.pass(Duration::from_secs(20));
    let since = bench.now.utc;
    request(&mut bench, since);
    for effect in &bench.effects {
        let Effect::Run { spec: JobSpec::Degradation { from, .. }, .. } = effect else { panic!() };
        assert_eq!(*from, Some(repaired));
    }
}

#[test]
fn jobs_that_never_answer_end_in_an_abstention() {
    let mut bench =
        Bench::new(setting(plain_config()), |setting| vec![Box::new(Prediction::new(setting))]);
    request(&mut bench, noon());
    bench.pass(JOB_PATIENCE + Duration::from_secs(1));
    assert_eq!(bench.count("prediction-abstained"), 1);
    bench.pass(Duration::from_secs(3600));
    assert!(bench.count("job-started") > TAGS_MAX, "it is asked again");
}

#[test]
fn from_an_anomaly_to_an_authorised_order_in_one_chain() {
    let mut bench = Bench::new(setting(plain_config()), |setting| {
        vec![
            Box::new(Validation::new(setting)),
            Box::new(Orchestration::new(setting)),
            Box::new(Prediction::new(setting)),
            Box::new(Approval::new(setting)),
        ]
    })
    .work_with(worker);
    until(&mut bench, ONSET + 30.0);
    let since = bench.now.utc.before(Duration::from_secs(5));
    let id = bench.emit(Body::AnomalyDetected(anomaly(since)));
    let mut asked_after = None;
    for half_second in 0..120_u32 {
        bench.pass(Duration::from_millis(500));
        let seconds = bench.now.utc.since(noon()).as_secs_f64();
        bench.values(&[("P-101/vibration", wearing("vibration", seconds))]);
        if bench.count("decision-requested") > 0 && asked_after.is_none() {
            asked_after = Some(f64::from(half_second) / 2.0);
        }
    }
    let asked_after = asked_after.unwrap_or_else(|| panic!("{:?}", bench.kinds()));
    assert!(asked_after <= 40.0, "the question came after {asked_after} s");
    let Body::DecisionRequested(decision) = &bench.last("decision-requested").body else {
        panic!()
    };
    let verb = Verb::Decide {
        decision: decision.id,
        choice: Choice::Approve,
        reason: None,
        changes: None,
    };
    assert_eq!(bench.count("order-authorised"), 0);
    bench.command(verb).unwrap().unwrap();
    let Body::OrderAuthorised { order, .. } = &bench.last("order-authorised").body else {
        panic!()
    };
    assert!(order.due.is_some() && order.anomaly == Some(id));
    let alien: Vec<_> = bench.events.iter().filter(|event| event.correlation != id).collect();
    assert!(alien.is_empty(), "{alien:?}");
    assert_eq!(bench.count("decision-made"), 1);
}

#[test]
fn a_velocity_without_a_limit_is_followed_to_the_end_of_zone_c() {
    let mut config = plain_config();
    for one in &mut config.modbus[0].tags {
        one.tag.limits = crate::domain::tag::Limits::default();
    }
    let mut bench = Bench::new(setting(config), |setting| vec![Box::new(Prediction::new(setting))])
        .work_with(worker);
    until(&mut bench, ONSET + 60.0);
    let since = bench.now.utc.before(Duration::from_secs(20));
    request(&mut bench, since);
    until(&mut bench, ONSET + 90.0);
    let prediction = predicted(&bench);
    // Group 2 on a rigid support.
    assert!((prediction.limit - 4.5).abs() < 1e-9 && prediction.method.contains("ISO 20816-3"));
    assert_eq!(prediction.explanation.stage, "trend");
    let told = prediction.explanation.evidence.join(" ");
    assert!(told.contains("end of zone C") && told.contains("probability"), "{told}");
    assert!(!prediction.explanation.would_change.is_empty());
}
