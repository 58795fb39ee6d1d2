//! Learning models from the ended lives of machines, and asking models about the present one.
//!
//! Every life is cut into rows of one step, a column a tag, each value the mean of the readings in
//! the step. The newest lives are held back; a model that learnt from the others is compared on
//! them with the model in use and with a rule that looks at no tag at all. Lives are held back
//! whole: rows of one life are too much alike to judge each other (blocked cross-validation, Roberts
//! et al., Ecography 40, 2017). What is put to use has then learnt from all lives.

mod classes;
mod lives;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::model_file::{self, Kind};
use super::prognosis::{Follower, Silence, Stored};
use crate::domain::ids::{AssetId, EventId, TagId};
use crate::domain::model::{ModelKind, Training};
use crate::domain::prognosis::Quantiles;
use crate::domain::time::Timestamp;

pub use lives::LIVES_MIN;

/// Bytes of a model at most.
pub const MODEL_BYTES_MAX: usize = 1 << 20;
/// Rows of a present life at most; an older machine is asked about its newest ones.
const ROWS_MAX: usize = 4_000;
/// A candidate must be better by this share of the other's error.
const BETTER: f64 = 0.02;

/// Where the values of a life come from.
pub trait History {
    /// Means of a tag's good readings in steps from `from` on and before `to`, NaN where there is
    /// none; as many as [`steps`] says.
    ///
    /// # Errors
    /// When the history cannot be read.
    fn series(
        &self,
        asset: &AssetId,
        tag: &TagId,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<f64>, String>;
}

/// How many steps lie between two moments; a begun one counts.
#[must_use]
pub fn steps(from: Timestamp, to: Timestamp, step: Duration) -> usize {
    let count = to.since(from).as_micros().div_ceil(step.as_micros().max(1));
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What is to be known of a learnt model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its columns.
    pub features: Vec<String>,
    /// Seconds between rows.
    pub step_seconds: f64,
    /// Lives it was learnt from.
    pub lives: u32,
    /// Beginning of their data.
    pub from: Timestamp,
    /// End of their data.
    pub to: Timestamp,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes (hex).
    pub sha256: String,
    /// Figures on held-back lives.
    pub metrics: Value,
    /// Whether it is better than what is in use, or than no model while none is.
    pub beats: bool,
    /// Why, in one sentence.
    pub verdict: String,
}

/// A model with what is to be known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Learnt {
    /// About it.
    pub facts: Facts,
    /// The model, as a file.
    pub bytes: Vec<u8>,
}

/// How good something is on held-back lives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Score {
    /// Lower is better. Remaining life: mean error as a share of the life; classes: share of rows
    /// whose class was not said.
    error: f64,
    /// Share of the questions that were answered.
    answered: f64,
    /// Share of the answers whose band held.
    covered: Option<f64>,
}

/// Learns what `training` asks for. `active` is the file of the model to beat.
///
/// # Errors
/// Why nothing can be learnt, in one sentence.
pub fn train(
    training: &Training,
    history: &dyn History,
    active: Option<&[u8]>,
) -> Result<Learnt, String> {
    match training.kind {
        ModelKind::Rul => lives::train(training, history, active),
        ModelKind::Classifier => classes::train(training, history, active),
    }
}

/// Compares a candidate with the model in use, or with the rule that uses no model.
fn judge(
    own: Score,
    active: Option<Score>,
    rule: Score,
    fair: bool,
    held: usize,
) -> (bool, String) {
    let (name, other) = match active {
        Some(active) => ("the active model", active),
        None => ("the rule without a model", rule),
    };
    let better = own.error < other.error * (1.0 - BETTER) && own.error < rule.error;
    let figures = format!(
        "error {:.3} against {:.3} of {name} on {held} held-back lives",
        own.error, other.error
    );
    match (fair, better) {
        (false, _) => {
            (false, format!("no life has ended since the active model learnt: {figures}"))
        }
        (true, true) => (true, format!("better: {figures}")),
        (true, false) => (false, format!("not better: {figures}")),
    }
}

/// What of `lives` is held back (the newest), by their ends: those the active model has not seen,
/// or a quarter. Also says whether the active model has seen none of them.
fn held_back(ends: &[Timestamp], active_to: Option<Timestamp>) -> (usize, bool) {
    let quarter = (ends.len() / 4).max(1);
    let Some(seen) = active_to else { return (quarter, true) };
    let unseen = ends.iter().filter(|end| **end > seen).count();
    if unseen == 0 { (quarter, false) } else { (unseen.min(ends.len() / 3).max(1), true) }
}

fn file<T: Serialize>(kind: Kind, model: &T) -> Result<(Vec<u8>, String), String> {
    let bytes = model_file::seal(kind, model).map_err(|error| error.to_string())?;
    if bytes.len() > MODEL_BYTES_MAX {
        return Err(format!("the model has {} bytes, at most {MODEL_BYTES_MAX} fit", bytes.len()));
    }
    let sha256 = fingerprint(&bytes);
    Ok((bytes, sha256))
}

/// SHA-256 as hex.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one model says of the present life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// Which model.
    pub model: EventId,
    /// Remaining life in seconds, when it says something.
    pub rul: Option<Quantiles>,
    /// Why not, when it does not.
    pub silence: Option<String>,
    /// Whether it is silent because the machine is unlike all it has learnt from.
    pub foreign: bool,
}

/// Asks models of remaining life about an asset whose present life began at `from`.
///
/// # Errors
/// When the history cannot be read.
pub fn consult(
    asset: &AssetId,
    models: &[(EventId, Vec<u8>)],
    from: Timestamp,
    to: Timestamp,
    history: &dyn History,
) -> Result<Vec<Opinion>, String> {
    let mut opinions = Vec::new();
    for (id, bytes) in models {
        let silent = |why: String, foreign: bool| Opinion {
            model: *id,
            rul: None,
            silence: Some(why),
            foreign,
        };
        let model = match model_file::open::<Stored>(Kind::Prognosis, bytes) {
            Ok(stored) => stored.model,
            Err(error) => {
                opinions.push(silent(error.to_string(), false));
                continue;
            }
        };
        let step = Duration::try_from_secs_f64(model.step()).unwrap_or_default();
        if step < Duration::from_millis(1) {
            opinions.push(silent(format!("rows {} s apart make no sense", model.step()), false));
            continue;
        }
        let longest = step.saturating_mul(u32::try_from(ROWS_MAX).unwrap_or(u32::MAX));
        let begin = if to.since(from) > longest { to.before(longest) } else { from };
        let mut columns = Vec::new();
        for name in &model.columns {
            let tag = TagId::new(name).map_err(|error| error.to_string())?;
            columns.push(history.series(asset, &tag, begin, to, step)?);
        }
        let mut follower = Follower::new(&model);
        let mut row = vec![f64::NAN; columns.len()];
        for at in 0..steps(begin, to, step) {
            for (value, column) in row.iter_mut().zip(&columns) {
                *value = column.get(at).copied().unwrap_or(f64::NAN);
            }
            // The age counts from the beginning of the life, not of what is read of it.
            follower.push(begin.since(from).as_secs_f64() + at as f64 * model.step(), &row);
        }
        opinions.push(match follower.answer() {
            Ok(answer) => Opinion {
                model: *id,
                rul: Quantiles::new(answer.p10, answer.p50, answer.p90),
                silence: None,
                foreign: false,
            },
            Err(silence) => {
                let foreign = matches!(silence, Silence::Foreign { .. } | Silence::Pace { .. });
                silent(silence.to_string(), foreign)
            }
        });
    }
    Ok(opinions)
}

fn metrics(own: Score, active: Option<Score>, rule: Score, held: usize, more: Value) -> Value {
    let mut all = json!({
        "held_back_lives": held,
        "candidate": own,
        "active": active,
        "without_model": rule,
    });
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
