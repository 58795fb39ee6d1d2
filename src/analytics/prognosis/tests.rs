use std::sync::LazyLock;

use super::*;

const COLUMNS: usize = 3;

fn names() -> Vec<String> {
    vec!["hot".to_owned(), "noisy".to_owned(), "constant".to_owned()]
}

/// A unit that lives `life` rows; `hot` rises over the last hundred of them.
fn unit(life: usize, seed: u64) -> Unit {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut unit = Unit::default();
    for at in 0..life {
        let left = (life - 1 - at) as f64;
        let wear = (1.0 - left / 100.0).max(0.0);
        unit.times.push(at as f64 * 2.0);
        unit.values.extend([20.0 + 10.0 * wear + random.f64(), random.f64(), 7.0]);
    }
    unit
}

fn fleet(count: u64) -> Vec<Unit> {
    let life = |seed: u64| 130 + usize::try_from(seed * 37 % 70).expect("small");
    (0..count).map(|seed| unit(life(seed), seed)).collect()
}

/// What is said after each row of a unit, with `change` applied to its values.
fn follow(model: &Model, unit: &Unit, change: impl Fn(usize, &mut [f64])) -> Vec<Said> {
    let mut follower = Follower::new(model);
    (0..unit.len())
        .map(|at| {
            let mut values = unit.row(at).to_vec();
            change(at, &mut values);
            follower.push(unit.times[at], &values);
            follower.answer()
        })
        .collect()
}

fn learnt(count: u64) -> Model {
    learn(&names(), &fleet(count), Learning { seed: 1 }).0
}

/// A model of six units, learnt once for all tests.
fn model() -> &'static Model {
    static MODEL: LazyLock<Model> = LazyLock::new(|| learnt(6));
    &MODEL
}

#[test]
fn the_end_of_a_new_unit_is_seen_coming() {
    let model = model();
    assert_eq!(model.method(), "trees");
    assert!(model.is_sound());
    let new = unit(170, 99);
    let said = follow(model, &new, |_, _| {});
    for (at, said) in said.iter().enumerate().skip(100) {
        let answer = said.as_ref().expect("it has seen such units");
        assert!(answer.p10 <= answer.p50 && answer.p50 <= answer.p90, "{answer:?}");
        let off = (answer.p50 - new.rest(at)).abs();
        assert!(off < 40.0, "row {at}: {off} of {}", new.rest(at));
    }
    let last = said.last().and_then(|said| said.as_ref().ok()).expect("an answer");
    assert!(last.p50 < 20.0, "{last:?}");
    assert!(model.importances()[0].1 > 0.2, "{:?}", model.importances());
}

#[test]
fn an_answer_knows_only_the_rows_before_it() {
    let model = model();
    let new = unit(160, 98);
    let whole = follow(model, &new, |_, _| {});
    let cut = follow(model, &new, |at, values| {
        if at > 120 {
            values[0] = 1e6;
        }
    });
    assert_eq!(whole[..=120], cut[..=120]);
}

#[test]
fn few_units_are_answered_by_likeness_or_not_at_all() {
    for count in 0..3 {
        let (model, trials) = learn(&names(), &fleet(count), Learning { seed: 1 });
        assert!(trials.is_empty());
        let why = model.silent().expect("too few");
        assert!(why.contains("at least 3 are needed"), "{why}");
        let said = follow(&model, &unit(150, 97), |_, _| {});
        assert!(said.iter().all(|said| matches!(said, Err(Silence::Model(_)))));
    }
    for count in 3..5 {
        let model = learnt(count);
        assert_eq!(model.method(), "likeness");
        assert!(model.is_sound());
        let said = follow(&model, &unit(160, 97), |_, _| {});
        let last = said.last().and_then(|said| said.as_ref().ok()).expect("an answer");
        assert!(last.p50 < 60.0 && last.p10 <= last.p50 && last.p50 <= last.p90, "{last:?}");
    }
    assert_eq!(model().method(), "trees");
}

#[test]
fn units_that_say_nothing_do_not_count() {
    let mut units = fleet(2);
    units.push(unit(1, 5));
    units.push(Unit::default());
    assert_eq!(learn(&names(), &units, Learning { seed: 1 }).0.units, 2);
}

#[test]
fn constant_columns_give_a_model_that_stays_silent() {
    let mut units = fleet(6);
    for unit in &mut units {
        unit.values.fill(4.0);
    }
    let model = learn(&names(), &units, Learning { seed: 1 }).0;
    assert_eq!(model.silent(), Some("no column varies"));
    for unit in &mut units {
        unit.values.fill(f64::NAN);
    }
    let model = learn(&names(), &units, Learning { seed: 1 }).0;
    assert_eq!(model.silent(), Some("no column varies"));
}

#[test]
fn missing_values_are_bridged_for_a_while_then_named() {
    let model = model();
    let new = unit(160, 96);
    let holes = follow(model, &new, |at, values| {
        if at % 3 == 0 {
            values.fill(f64::NAN);
        }
    });
    assert!(holes[20..].iter().all(Result::is_ok));
    let dead = follow(model, &new, |at, values| {
        if at > 50 {
            values.fill(f64::NAN);
        }
    });
    assert!(matches!(dead[80], Err(Silence::Missing { .. })), "{:?}", dead[80]);
    let never = follow(model, &new, |_, values| values.fill(f64::INFINITY));
    assert!(matches!(never[80], Err(Silence::Missing { .. })), "{:?}", never[80]);
}

#[test]
fn what_is_like_nothing_on_record_is_not_judged() {
    let model = model();
    let new = unit(160, 95);
    let foreign = follow(model, &new, |_, values| {
        values[0] *= 50.0;
    });
    assert!(matches!(foreign[60], Err(Silence::Foreign { .. })), "{:?}", foreign[60]);
    let mut slow = new.clone();
    slow.times.iter_mut().for_each(|time| *time *= 10.0);
    assert!(matches!(follow(model, &slow, |_, _| {})[60], Err(Silence::Pace { .. })));
    let mut follower = Follower::new(model);
    for at in 0..500 {
        follower.push(f64::from(at) * 2.0, &[20.5, 0.5, 7.0]);
    }
    assert_eq!(follower.answer(), Err(Silence::Old));
    let mut follower = Follower::new(model);
    follower.push(0.0, &[20.5, 0.5, 7.0]);
    assert!(matches!(follower.answer(), Err(Silence::Beginning { .. })));
}

#[test]
fn lives_that_differ_manifold_are_looked_at_as_logarithms() {
    let units: Vec<Unit> = (0..5).map(|seed| unit(60 << (seed % 3), seed)).collect();
    let model = learn(&names(), &units, Learning { seed: 1 }).0;
    assert_eq!(model.cap(), None);
    let said = follow(&model, &unit(250, 94), |_, _| {});
    for answer in said.iter().flatten() {
        assert!(0.0 < answer.p10 && answer.p10 <= answer.p50 && answer.p50 <= answer.p90);
    }
}

#[test]
fn operating_conditions_are_found_and_taken_out() {
    let load = |units: &mut [Unit]| {
        for (number, unit) in units.iter_mut().enumerate() {
            let mut random = fastrand::Rng::with_seed(number as u64);
            for row in unit.values.chunks_mut(COLUMNS) {
                let level = [0.0, 10.0, 35.0][random.usize(0..3)];
                row[0] += 4.0 * level;
                row[1] -= 2.0 * level;
                row[2] = level + 0.01 * random.f64();
            }
        }
    };
    let mut units = fleet(6);
    load(&mut units);
    let (loaded, trials) = learn(&names(), &units, Learning { seed: 1 });
    assert_eq!(loaded.conditions(), 3);
    let near = trials.iter().filter(|trial| trial.truth < 60.0);
    let (sum, count) =
        near.fold((0.0, 0.0), |(sum, count), t| (sum + (t.estimate - t.truth).abs(), count + 1.0));
    assert!(sum / count < 15.0, "wrong by {} near the end", sum / count);
    assert_eq!(model().conditions(), 0);
    // A condition that was never seen says nothing, and is not guessed at.
    let said = follow(&loaded, &units[0], |_, row| row[2] = 22.0);
    assert!(matches!(said.last(), Some(Err(Silence::Missing { .. }))), "{:?}", said.last());
}

#[test]
fn contributions_sum_to_the_estimate() {
    let model = model();
    let new = unit(150, 93);
    let mut follower = Follower::new(model);
    for at in 0..120 {
        follower.push(new.times[at], new.row(at));
    }
    let answer = follower.answer().expect("an answer");
    let (expected, columns) = follower.contributions().expect("trees");
    let sum: f64 = expected + columns.iter().map(|(_, value)| value).sum::<f64>();
    assert!((sum - answer.p50).abs() < 1e-6, "{sum} is not {}", answer.p50);
    assert_eq!(columns.last().map(|(name, _)| name.as_str()), Some("age"));
}

#[test]
fn a_model_is_the_same_after_a_file_and_from_the_same_seed() {
    let model = model();
    assert_eq!(*model, learnt(6));
    let kind = crate::analytics::model_file::Kind::Prognosis;
    let bytes = crate::analytics::model_file::seal(kind, model).expect("it can be written");
    assert!(bytes.len() < 50 * 1024, "{} bytes", bytes.len());
    let back: Model = crate::analytics::model_file::open(kind, &bytes).expect("it is whole");
    assert_eq!(back, *model);
}
