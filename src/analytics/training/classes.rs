//! Faults from what technicians found: the last tenth of a life that ended with a finding looks
//! like the finding, its second quarter looks healthy.

use std::collections::BTreeMap;

use serde_json::json;

use super::lives::{step_of, too_few, unit};
use super::{Facts, History, LIVES_MIN, Learnt, Score, file, held_back, judge, metrics};
use crate::analytics::classify::{Cell, Model, learn};
use crate::analytics::model_file::{self, Kind};
use crate::domain::model::{Life, Training};

/// The class of rows before anything was wrong.
const HEALTHY: &str = "healthy";
/// Rows of each class taken from one life.
const ROWS: usize = 20;
/// Lives a finding must have ended: one to learn from, one to judge by.
const LIVES_PER_FINDING: usize = 2;
/// Everything drawn follows from it.
const SEED: u64 = 1;

struct Rows {
    cells: Vec<Vec<Cell>>,
    labels: Vec<String>,
}

pub(super) fn train(
    training: &Training,
    history: &dyn History,
    active: Option<&[u8]>,
) -> Result<Learnt, String> {
    let label = |life: &Life| life.found.as_deref().map(|found| found.trim().to_lowercase());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for found in training.lives.iter().filter_map(label) {
        *counts.entry(found).or_default() += 1;
    }
    let labelled: Vec<&Life> = training
        .lives
        .iter()
        .filter(|life| label(life).is_some_and(|found| counts[&found] >= LIVES_PER_FINDING))
        .collect();
    if labelled.len() < LIVES_MIN {
        return Err(too_few(labelled.len(), "ended with a finding that came twice"));
    }
    let step = step_of(&labelled);
    let (mut lives, mut tables) = (Vec::new(), Vec::new());
    for life in &labelled {
        let Some(unit) = unit(life, &training.features, step, history)? else { continue };
        let width = training.features.len();
        let rows: Vec<Vec<Cell>> = unit
            .values
            .chunks(width.max(1))
            .map(|row| row.iter().map(|value| Cell::Number(*value)).collect())
            .collect();
        let mut table = Rows { cells: Vec::new(), labels: Vec::new() };
        let n = rows.len();
        for (span, class) in [
            (n / 4..n / 2, HEALTHY.to_owned()),
            (n - (n / 10).max(2)..n, label(life).unwrap_or_default()),
        ] {
            let every = span.len().div_ceil(ROWS).max(1);
            for row in span.step_by(every) {
                table.cells.push(rows[row].clone());
                table.labels.push(class.clone());
            }
        }
        lives.push(*life);
        tables.push(table);
    }
    if tables.len() < LIVES_MIN {
        return Err(too_few(tables.len(), "ended with a finding and have readings"));
    }
    let columns: Vec<String> = training.features.iter().map(ToString::to_string).collect();
    let ends: Vec<_> = lives.iter().map(|life| life.to).collect();
    let (held, fair) = held_back(&ends, training.active.and_then(|(_, to)| to));
    let held = held.min(tables.len() - 1);
    let (known, unseen) = tables.split_at(tables.len() - held);
    let fit = |tables: &[Rows]| {
        let cells: Vec<Vec<Cell>> = tables.iter().flat_map(|it| it.cells.clone()).collect();
        let labels: Vec<String> = tables.iter().flat_map(|it| it.labels.clone()).collect();
        learn(&columns, &cells, &labels, SEED).map_err(|error| error.to_string())
    };
    let (twin, _) = fit(known)?;
    let own = score(Some(&twin), unseen);
    let rule = score(None, unseen);
    let opponent: Option<Model> =
        active.and_then(|bytes| model_file::open(Kind::Classification, bytes).ok());
    let opponent = opponent.map(|model| {
        let same = model.inputs.iter().map(|input| &input.name).eq(&columns);
        score(same.then_some(&model), unseen)
    });
    let (model, figures) = fit(&tables)?;
    let (beats, verdict) = judge(own, opponent, rule, fair, held);
    let (bytes, sha256) = file(Kind::Classification, &model)?;
    let more = json!({
        "classes": model.classes,
        "cross_validated_accuracy": figures.accuracy,
        "importances": model.importances(),
    });
    let facts = Facts {
        features: columns,
        step_seconds: step.as_secs_f64(),
        lives: u32::try_from(tables.len()).unwrap_or(u32::MAX),
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

/// Share of the rows whose class is not said; without a model every row is said to be healthy.
fn score(model: Option<&Model>, tables: &[Rows]) -> Score {
    let (mut rows, mut wrong) = (0_u32, 0_u32);
    for (cells, label) in tables.iter().flat_map(|it| it.cells.iter().zip(&it.labels)) {
        rows += 1;
        let said = model.map_or(HEALTHY, |model| {
            let probabilities = model.probabilities(&model.inputs_of(cells));
            &model.classes[model.decide(&probabilities, 0.5).0]
        });
        wrong += u32::from(said != label);
    }
    let error = f64::from(wrong) / f64::from(rows.max(1));
    Score { error, answered: 1.0, covered: None }
}
