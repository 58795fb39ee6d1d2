use std::time::Duration;

use serde_json::json;

use super::scores::{FOREIGN_ROUNDS, SCORED_MIN};
use super::*;
use crate::agents::learning::Learning;
use crate::agents::testing::{Bench, asset, plain_config, setting};
use crate::domain::alarm::{Alarm, AlarmState};
use crate::domain::ids::TagId;
use crate::domain::prognosis::Quantiles;
use crate::domain::severity::Severity;
use crate::domain::work_order::{Completion, Outcome};

const DAY: Duration = Duration::from_secs(86_400);
const KIND: ModelKind = ModelKind::Rul;

/// Answers trainings as `beats` says and consultations with a band round `rul` seconds.
fn answered(beats: bool, rul: f64) -> impl Fn(&JobSpec) -> Result<Value, String> {
    move |spec| match spec {
        JobSpec::Train(training) => Ok(json!(Facts {
            features: training.features.iter().map(ToString::to_string).collect(),
            step_seconds: 600.0,
            lives: u32::try_from(training.lives.len()).unwrap(),
            from: training.lives[0].from,
            to: training.lives.last().unwrap().to,
            size: 1000,
            sha256: format!("{}", training.lives.len()),
            metrics: json!({ "candidate": { "covered": 0.8 } }),
            beats,
            verdict: "as the test says".to_owned(),
        })),
        JobSpec::Consult { models, .. } => {
            let said = |model: &EventId| Opinion {
                model: *model,
                rul: (rul > 0.0).then(|| Quantiles::new(0.9 * rul, rul, 1.1 * rul).unwrap()),
                silence: (rul <= 0.0).then(|| "unlike all".to_owned()),
                foreign: rul <= 0.0,
            };
            Ok(json!(models.iter().map(said).collect::<Vec<_>>()))
        }
        JobSpec::Degradation { .. } => Err("not asked here".to_owned()),
    }
}

fn bench_with(worker: impl Fn(&JobSpec) -> Result<Value, String> + 'static) -> Bench {
    let mut bench = idle();
    bench = bench.work_with(worker);
    bench.configure(bench.setting.clone());
    bench
}

/// Nobody answers jobs.
fn idle() -> Bench {
    let mut bench =
        Bench::new(setting(plain_config()), |setting| vec![Box::new(Learning::new(setting))]);
    bench.configure(bench.setting.clone());
    bench
}

fn fail(bench: &mut Bench) {
    let now = bench.now;
    bench.inject(None, |id| {
        Body::AlarmRaised(Alarm {
            id,
            asset: Some(asset("P-101")),
            tag: Some(TagId::new("vibration").unwrap()),
            cause: AlarmCause::Limit { which: LimitKind::HighHigh, limit: 7.1 },
            severity: Severity::High,
            value: Some(7.2),
            message: "vibration is high".to_owned(),
            state: AlarmState::Unacknowledged,
            raised: now.utc,
            cleared: None,
            closed_by: None,
            acknowledged_by: None,
            shelved_until: None,
            correlation: id,
        })
    });
}

fn repair(bench: &mut Bench, found: Option<&str>) {
    bench.inject(None, |id| Body::WorkLogged {
        asset: asset("P-101"),
        order: id,
        completion: Completion {
            outcome: Outcome::Fixed,
            found: found.map(str::to_owned),
            notes: None,
            duration: None,
            by: None,
        },
        renewed: true,
    });
}

/// Ten days to failure, a day to repair, so many times.
fn lives(bench: &mut Bench, count: u32) {
    for _ in 0..count {
        bench.pass(10 * DAY);
        fail(bench);
        bench.pass(DAY);
        repair(bench, None);
    }
}

fn models(bench: &Bench) -> Vec<Model> {
    let records = bench.of_record(RecordKind::Model);
    records.iter().filter(|it| it.open).map(|it| it.read().unwrap()).collect()
}

fn in_use(bench: &Bench) -> Option<u32> {
    let mut active = models(bench).into_iter().filter(|it| it.state == ModelState::Active);
    let found = active.next().map(|model| model.version);
    assert!(active.next().is_none(), "two models are active");
    found
}

#[test]
fn failed_lives_become_a_model_that_is_put_to_use() {
    let mut bench = bench_with(answered(true, 1e6));
    lives(&mut bench, 3);
    assert_eq!(bench.count("job-started"), 0, "three lives are too few");
    lives(&mut bench, 1);
    assert_eq!((bench.count("model-trained"), bench.count("model-promoted")), (1, 1));
    let model = models(&bench).remove(0);
    assert_eq!((model.version, model.lives, model.state), (1, 4, ModelState::Active));
    assert_eq!(model.parent, None);
    let life = bench.setting.plant.assets.contains_key(&model.asset);
    assert!(life && model.features.contains(&"vibration".to_owned()));
    lives(&mut bench, 1);
    assert_eq!(in_use(&bench), Some(2));
    assert_eq!(models(&bench)[1].parent, Some(model.id));
}

#[test]
fn what_does_not_beat_the_active_model_stays_a_candidate() {
    let mut bench = bench_with(answered(false, 1e6));
    lives(&mut bench, 4);
    assert_eq!((bench.count("model-trained"), bench.count("model-promoted")), (1, 0));
    let id = models(&bench)[0].id;
    assert_eq!(in_use(&bench), None);
    bench.command(Verb::Promote { model: id }).unwrap().unwrap();
    assert_eq!(in_use(&bench), Some(1));
    let again = bench.command(Verb::Promote { model: id }).unwrap();
    assert!(matches!(again, Err(Refusal::Conflict { .. })));
    bench.restart(DAY, true);
    bench.configure(bench.setting.clone());
    assert_eq!(in_use(&bench), Some(1));
    bench.command(Verb::Rollback { model: id }).unwrap().unwrap();
    assert_eq!((in_use(&bench), bench.count("model-rolled-back")), (None, 1));
}

#[test]
fn too_little_to_learn_from_is_said_to_whoever_asks() {
    let mut bench = bench_with(answered(true, 1e6));
    lives(&mut bench, 2);
    let asked = Verb::Train { asset: asset("P-101"), kind: None };
    let Err(Refusal::Invalid(why)) = bench.command(asked).unwrap() else { panic!() };
    assert!(why.contains("2 lives") && why.contains("4 are needed"), "{why}");
    let unknown = Verb::Train { asset: asset("X-9"), kind: None };
    assert!(matches!(bench.command(unknown).unwrap(), Err(Refusal::NotFound(_))));
}

#[test]
fn findings_ask_for_a_classifier() {
    let mut bench = bench_with(answered(true, 1e6));
    for _ in 0..4 {
        bench.pass(10 * DAY);
        repair(&mut bench, Some("outer race spalled"));
    }
    let kinds: Vec<ModelKind> = models(&bench).iter().map(|model| model.kind).collect();
    assert_eq!(kinds, [ModelKind::Classifier], "preventive repairs are no failed lives");
}

#[test]
fn a_pinned_model_is_not_replaced() {
    let mut bench = bench_with(answered(true, 1.0));
    lives(&mut bench, 5);
    let second = models(&bench)[1].clone();
    bench.command(Verb::Pin { model: second.id, pinned: true }).unwrap().unwrap();
    lives(&mut bench, 2);
    assert_eq!(in_use(&bench), Some(2));
    let newest = models(&bench).pop().unwrap();
    assert!(newest.reason.contains("pinned"), "{}", newest.reason);
    let refused = bench.command(Verb::Promote { model: newest.id }).unwrap();
    assert!(matches!(refused, Err(Refusal::Conflict { .. })));
}

/// The newest model's answers are a second long, those of the one before hit the truth: the life
/// ends ten days after it began.
fn worse(spec: &JobSpec) -> Result<Value, String> {
    let JobSpec::Consult { models, from, to, .. } = spec else {
        return answered(true, 1.0)(spec);
    };
    let rest = (10 * DAY).saturating_sub(to.since(*from)).as_secs_f64();
    let said = |(at, model): (usize, &EventId)| {
        let rul = if at == 0 && models.len() > 1 { 1.0 } else { rest };
        let rul = Quantiles::new(0.9 * rul, rul, 1.1 * rul + 60.0);
        Opinion { model: *model, rul, silence: None, foreign: false }
    };
    Ok(json!(models.iter().enumerate().map(said).collect::<Vec<_>>()))
}

#[test]
fn answers_that_do_not_hold_roll_a_model_back_to_its_parent() {
    let mut bench = bench_with(worse);
    lives(&mut bench, 5);
    assert_eq!((in_use(&bench), bench.count("model-rolled-back")), (Some(2), 0));
    let (first, second) = (models(&bench)[0].clone(), models(&bench)[1].clone());
    assert!(first.live.scored >= SCORED_MIN && first.live.coverage() == Some(1.0), "{first:?}");
    bench.pass(3 * DAY);
    let Body::ModelRolledBack { model, restores, reason, .. } =
        &bench.last("model-rolled-back").body
    else {
        panic!()
    };
    assert_eq!((*model, *restores), (second.id, Some(first.id)), "{reason}");
    assert!(reason.contains("0.00 of its answers held, 1.00"), "{reason}");
    assert_eq!((in_use(&bench), bench.count("model-rolled-back")), (Some(1), 1));
}

#[test]
fn a_pinned_model_keeps_its_place_whatever_its_answers() {
    let mut bench = bench_with(worse);
    lives(&mut bench, 5);
    let second = models(&bench)[1].id;
    bench.command(Verb::Pin { model: second, pinned: true }).unwrap().unwrap();
    bench.pass(5 * DAY);
    let live = models(&bench)[1].live.clone();
    assert!(live.scored >= SCORED_MIN && live.covered == 0, "{live:?}");
    assert_eq!((in_use(&bench), bench.count("model-rolled-back")), (Some(2), 0));
}

#[test]
fn a_machine_foreign_to_its_model_has_drifted() {
    let mut bench = bench_with(answered(true, 0.0));
    lives(&mut bench, 4);
    let trained = bench.count("model-trained");
    bench.pass(2 * DAY);
    assert_eq!(bench.count("drift-detected"), 1);
    assert!(bench.count("job-started") >= FOREIGN_ROUNDS as usize);
    assert_eq!(bench.count("model-trained"), trained + 1, "drift asks for another model");
}

#[test]
fn a_damaged_model_goes_aloud_and_its_parent_is_in_use_again() {
    let mut bench = bench_with(answered(true, 1e6));
    lives(&mut bench, 5);
    let (first, second) = (models(&bench)[0].id, models(&bench)[1].id);
    let error = "the model is damaged: checksum".to_owned();
    bench.emit(Body::ModelDamaged { asset: asset("P-101"), model: second, error });
    assert_eq!(in_use(&bench), Some(1));
    assert_eq!(models(&bench).iter().map(|model| model.id).collect::<Vec<_>>(), [first]);
    let Body::Condition { condition, active, message, .. } = &bench.last("condition").body else {
        panic!()
    };
    assert!(*active && condition == "model-damaged" && message.contains("version 1"), "{message}");
    let closed = &bench.records[&(RecordKind::Model, second.to_string())];
    assert_eq!((closed.open, closed.state.as_str()), (false, "retired"));
}

#[test]
fn a_training_that_never_answers_holds_nothing_up() {
    let mut bench = idle();
    lives(&mut bench, 4);
    assert_eq!(bench.count("job-started"), 1);
    let Some(crate::agents::Effect::Run { job, spec }) = bench.effects.pop() else { panic!() };
    let asked = Verb::Train { asset: asset("P-101"), kind: Some(KIND) };
    let busy = bench.command(asked.clone()).unwrap();
    assert!(matches!(busy, Err(Refusal::Conflict { .. })));
    // The engine gives a job up after its patience, also over a restart.
    bench.restart(DAY, true);
    bench.configure(bench.setting.clone());
    let result = Err("the job did not answer in time".to_owned());
    bench.emit(Body::JobFinished { job, spec: spec.clone(), result });
    assert_eq!((bench.count("training-abstained"), models(&bench).len()), (1, 0));
    // Its late answer is nobody's.
    let late = answered(true, 1e6)(&spec);
    bench.emit(Body::JobFinished { job, spec, result: late });
    assert_eq!(models(&bench).len(), 0);
    assert!(bench.command(asked).unwrap().is_ok());
}

#[test]
fn a_result_compared_with_another_model_is_asked_for_again() {
    let mut bench = idle();
    lives(&mut bench, 4);
    let Some(crate::agents::Effect::Run { job, spec }) = bench.effects.pop() else { panic!() };
    let imported = parcel("a");
    let id = bench.command(Verb::ImportModel(imported)).unwrap().unwrap()["id"].clone();
    let id = EventId::parse(id.as_str().unwrap()).unwrap();
    bench.command(Verb::Promote { model: id }).unwrap().unwrap();
    let result = answered(true, 1e6)(&spec);
    bench.emit(Body::JobFinished { job, spec, result });
    assert_eq!(in_use(&bench), Some(1), "what was imported stays in use");
    let Some(crate::agents::Effect::Run { spec: JobSpec::Train(again), .. }) = bench.effects.pop()
    else {
        panic!("it is learnt again")
    };
    assert_eq!(again.active, Some((id, None)));
}

fn parcel(sha256: &str) -> Parcel {
    Parcel {
        asset: asset("P-101"),
        kind: KIND,
        features: vec!["vibration".to_owned()],
        step_seconds: 60.0,
        lives: 9,
        issuer: "lab".to_owned(),
        size: 1000,
        sha256: sha256.to_owned(),
        content: Vec::new(),
    }
}

#[test]
fn an_imported_model_is_a_candidate_once_and_needs_its_tags() {
    let mut bench = idle();
    let one = parcel("a");
    let made = bench.command(Verb::ImportModel(one.clone())).unwrap().unwrap();
    assert_eq!((made["version"].as_u64(), made["state"].as_str()), (Some(1), Some("candidate")));
    assert_eq!(models(&bench)[0].origin, Origin::Imported("lab".to_owned()));
    let again = bench.command(Verb::ImportModel(one.clone())).unwrap();
    assert!(matches!(again, Err(Refusal::Conflict { .. })));
    let strange =
        Parcel { features: vec!["s_11".to_owned()], sha256: "b".to_owned(), ..one.clone() };
    let Err(Refusal::Invalid(why)) = bench.command(Verb::ImportModel(strange)).unwrap() else {
        panic!()
    };
    assert!(why.contains("s_11"), "{why}");
    let nowhere = Parcel { asset: asset("X-9"), ..one };
    assert!(matches!(
        bench.command(Verb::ImportModel(nowhere)).unwrap(),
        Err(Refusal::NotFound(_))
    ));
}

#[test]
fn the_registry_is_bounded() {
    let mut bench = idle();
    for n in 0..40 {
        let one = parcel(&n.to_string());
        let made = bench.command(Verb::ImportModel(one)).unwrap().unwrap();
        let model = EventId::parse(made["id"].as_str().unwrap()).unwrap();
        if n % 2 == 0 {
            bench.command(Verb::Promote { model }).unwrap().unwrap();
        }
    }
    let count = |state: ModelState| models(&bench).iter().filter(|it| it.state == state).count();
    assert_eq!(count(ModelState::Active), 1);
    assert_eq!(count(ModelState::Candidate), CANDIDATES_MAX);
    assert!(count(ModelState::Retired) <= RETIRED_MAX);
    // Bytes: eight of one MiB fit beside nothing else.
    for n in 100..120 {
        let one = Parcel { size: 1 << 20, ..parcel(&n.to_string()) };
        bench.command(Verb::ImportModel(one)).unwrap().unwrap();
        let bytes: u64 = models(&bench).iter().map(|model| model.size).sum();
        assert!(bytes <= BYTES_MAX, "{bytes}");
    }
    // What is pinned stays: in the end nothing more fits.
    for model in models(&bench) {
        bench.command(Verb::Pin { model: model.id, pinned: true }).unwrap().unwrap();
    }
    let refused = (200..220).find_map(|n| {
        let one = Parcel { size: 1 << 20, ..parcel(&n.to_string()) };
        let result = bench.command(Verb::ImportModel(one)).unwrap();
        for model in models(&bench) {
            bench.command(Verb::Pin { model: model.id, pinned: true }).unwrap().unwrap();
        }
        result.err()
    });
    assert!(matches!(refused, Some(Refusal::Invalid(_))), "{refused:?}");
}

#[test]
fn a_removed_asset_takes_its_models_along() {
    let mut bench = bench_with(answered(true, 1e6));
    lives(&mut bench, 4);
    let mut config = plain_config();
    config.assets.remove(0);
    config.modbus[0].tags.retain(|kept| kept.tag.path.asset != asset("P-101"));
    bench.configure(setting(config));
    assert_eq!(models(&bench), []);
}
