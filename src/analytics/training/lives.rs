//! Remaining life from lives that ended in failure.

use std::time::Duration;

use serde_json::json;

use super::{Facts, History, Learnt, Score, file, held_back, judge, metrics, steps};
use crate::analytics::model_file::{self, Kind};
use crate::analytics::prognosis::{
    Follower, Learning, Model, Stored, UNITS_FOR_LIKENESS, Unit, learn,
};
use crate::analytics::stats;
use crate::domain::ids::TagId;
use crate::domain::model::{Life, Training};

/// Failed lives that must be on record: what likeness needs, and one to judge by.
pub const LIVES_MIN: usize = UNITS_FOR_LIKENESS + 1;
/// Rows a typical life is cut into.
const ROWS_TYPICAL: u32 = 200;
/// Rows of one life at most; longer lives are cut off at their beginning.
const ROWS_MAX: usize = 2_000;
/// Rows a life must have.
const ROWS_MIN: usize = 20;
/// Share of a life's rows that must have a value.
const KNOWN_MIN: f64 = 0.5;
/// Questions asked of each held-back life, evenly over it.
const QUESTIONS: usize = 20;
/// Everything drawn follows from it.
const SEED: u64 = 1;

/// The step that cuts a typical one of these lives into [`ROWS_TYPICAL`] rows.
pub(super) fn step_of(lives: &[&Life]) -> Duration {
    let mut spans: Vec<f64> =
        lives.iter().map(|life| life.to.since(life.from).as_secs_f64()).collect();
    let typical = if spans.is_empty() { 0.0 } else { stats::median(&mut spans) };
    let step = Duration::from_secs_f64(typical / f64::from(ROWS_TYPICAL));
    // Whole seconds keep steps and roll-ups in line; short lives (in a simulation) need finer ones.
    if step > Duration::from_secs(10) {
        Duration::from_secs(step.as_secs())
    } else {
        step.max(Duration::from_millis(10))
    }
}

/// The rows of a life; `None` when the history has too little of it.
pub(super) fn unit(
    life: &Life,
    features: &[TagId],
    step: Duration,
    history: &dyn History,
) -> Result<Option<Unit>, String> {
    let all = steps(life.from, life.to, step);
    let rows = all.min(ROWS_MAX);
    let skipped = step.saturating_mul(u32::try_from(all - rows).unwrap_or(u32::MAX));
    let from = life.from.after(skipped);
    let mut columns = Vec::new();
    for tag in features {
        columns.push(history.series(&life.asset, tag, from, life.to, step)?);
    }
    let mut unit = Unit::default();
    let mut known = 0;
    for at in 0..rows {
        unit.times.push(
            (skipped + step.saturating_mul(u32::try_from(at).unwrap_or(u32::MAX))).as_secs_f64(),
        );
        let value = |column: &Vec<f64>| column.get(at).copied().unwrap_or(f64::NAN);
        known += usize::from(columns.iter().any(|column| value(column).is_finite()));
        unit.values.extend(columns.iter().map(value));
    }
    let enough = rows >= ROWS_MIN && known as f64 >= KNOWN_MIN * rows as f64;
    Ok(enough.then_some(unit))
}

pub(super) fn train(
    training: &Training,
    history: &dyn History,
    active: Option<&[u8]>,
) -> Result<Learnt, String> {
    let failed: Vec<&Life> = training.lives.iter().filter(|life| life.failed).collect();
    if failed.len() < LIVES_MIN {
        return Err(too_few(failed.len(), "ended in failure"));
    }
    let step = step_of(&failed);
    let (mut lives, mut units) = (Vec::new(), Vec::new());
    for life in &failed {
        if let Some(unit) = unit(life, &training.features, step, history)? {
            lives.push(*life);
            units.push(unit);
        }
    }
    if units.len() < LIVES_MIN {
        return Err(too_few(units.len(), "ended in failure and have readings"));
    }
    let columns: Vec<String> = training.features.iter().map(ToString::to_string).collect();
    let ends: Vec<_> = lives.iter().map(|life| life.to).collect();
    let active_to = training.active.and_then(|(_, to)| to);
    let (held, fair) = held_back(&ends, active_to);
    let held = held.min(units.len() - UNITS_FOR_LIKENESS);
    let (known, unseen) = units.split_at(units.len() - held);
    let (twin, _) = learn(&columns, known, Learning { seed: SEED });
    if let Some(why) = twin.silent() {
        return Err(why.to_owned());
    }
    let mut spans: Vec<f64> = known.iter().map(span).collect();
    let typical = stats::median(&mut spans);
    let own = score(Some(&twin), unseen, typical);
    let rule = score(None, unseen, typical);
    let opponent = active
        .and_then(|bytes| model_file::open::<Stored>(Kind::Prognosis, bytes).ok())
        .map(|stored| stored.model);
    // One whose columns are others cannot be asked about these rows: it answers nothing.
    let opponent = opponent.map(|model| {
        let same = model.columns == columns;
        score(same.then_some(&model), unseen, typical)
    });
    let (model, _) = learn(&columns, &units, Learning { seed: SEED });
    if let Some(why) = model.silent() {
        return Err(why.to_owned());
    }
    let (beats, verdict) = judge(own, opponent, rule, fair, held);
    let (unit_column, time_column) = ("unit".to_owned(), "time".to_owned());
    let stored = Stored { unit_column, time_column, model };
    let (bytes, sha256) = file(Kind::Prognosis, &stored)?;
    let model = stored.model;
    let more = json!({ "method": model.method(), "importances": model.importances() });
    let facts = Facts {
        features: columns,
        step_seconds: model.step(),
        lives: model.units,
        from: lives.iter().map(|life| life.from).min().unwrap_or_default(),
        to: ends.iter().copied().max().unwrap_or_default(),
        size: bytes.len() as u64,
        sha256,
        metrics: metrics(own, opponent, rule, held, more),
        beats,
        verdict,
    };
    Ok(Learnt { facts, bytes })
}

pub(super) fn too_few(lives: usize, what: &str) -> String {
    format!("too little to learn from: {lives} lives {what}, {LIVES_MIN} are needed")
}

fn span(unit: &Unit) -> f64 {
    unit.times.last().zip(unit.times.first()).map_or(0.0, |(last, first)| last - first)
}

/// Asks a model about whole lives. Where it is silent, what a typical life says counts instead: an
/// abstention is neither free nor a disaster. Without a model that rule is all there is.
fn score(model: Option<&Model>, units: &[Unit], typical: f64) -> Score {
    let (mut error, mut asked, mut answered, mut covered) = (0.0, 0_u32, 0_u32, 0_u32);
    for unit in units {
        let width = unit.values.len() / unit.len().max(1);
        let (begin, life) = (unit.times[0], span(unit).max(f64::MIN_POSITIVE));
        let every = (unit.len() / QUESTIONS).max(1);
        let mut follower = model.map(Follower::new);
        for (at, row) in unit.values.chunks(width.max(1)).enumerate() {
            let time = unit.times[at];
            if let Some(follower) = &mut follower {
                follower.push(time, row);
            }
            if at % every != 0 {
                continue;
            }
            asked += 1;
            let truth = life - (time - begin);
            let answer = follower.as_mut().and_then(|follower| follower.answer().ok());
            let said = match answer {
                Some(answer) => {
                    answered += 1;
                    covered += u32::from((answer.p10..=answer.p90).contains(&truth));
                    answer.p50
                }
                None => (typical - (time - begin)).max(0.0),
            };
            error += (said - truth).abs() / life;
        }
    }
    let share = |part: u32, of: u32| f64::from(part) / f64::from(of.max(1));
    Score {
        error: error / f64::from(asked.max(1)),
        answered: share(answered, asked),
        covered: (answered > 0).then(|| share(covered, answered)),
    }
}
