//! `GET /api/v1/forecast`: what a tag will do next, from the ring's history.
//!
//! The step follows from the horizon, so that an answer has at most [`STEPS_MAX`] of them; history
//! comes raw for minutes, from roll-ups for more. Computed on a thread of its own, one at a time:
//! the engine never waits for it.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::analytics::forecast::{self, Forecast, POINTS_MAX, Passage, Regular};
use crate::domain::ids::TagKey;
use crate::domain::tag::Tag;
use crate::domain::time::Timestamp;
use crate::store::{Resolution, RingReader, StoreError};

use super::Api;
use super::problem::Problem;
use super::query::Params;

/// Forecasts at a time; more wait.
pub(super) const FORECASTS_MAX: usize = 1;
/// Steps of an answer.
const STEPS_MAX: i64 = 200;
/// Bands of an answer, in percent.
const LEVELS: [f64; 2] = [80.0, 95.0];
/// Horizons from which on roll-ups are used: a dozen minutes.
const ROLLED_FROM: Duration = Duration::from_secs(12 * 60);
/// Longest horizon.
const HORIZON_LONGEST: Duration = Duration::from_secs(180 * 86_400);
/// Raw readings that are looked at: pages of the store's own bound.
const RAW_PAGES_MAX: usize = 4;
/// History of raw readings, in horizons.
const RAW_HORIZONS: u32 = 12;
/// Buckets of roll-ups that are looked at: what the store gives in one page.
const BUCKETS_MAX: i64 = 10_000;
const MINUTE: i64 = 60_000_000;
/// Steps to choose from, in minutes; all divide the day.
const STEPS_MINUTES: [i64; 13] = [1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 240, 480, 1440];

pub(super) async fn one(State(api): State<Api>, params: Params) -> Result<Json<Value>, Problem> {
    params.only(&["asset", "tag", "horizon", "limit"])?;
    let (Some(asset), Some(name)) = (params.get("asset"), params.get("tag")) else {
        return Err(Problem::bad_request("`asset` and `tag` are needed"));
    };
    let plant = api.setting().plant;
    let Some(tag) = plant.find(asset, name).and_then(|key| plant.tag(key).cloned()) else {
        return Err(Problem::not_found(format!("no source declares the tag {asset}/{name}")));
    };
    let horizon = horizon(&params)?;
    let limit = match params.get("limit") {
        None => None,
        Some(text) => match text.parse::<f64>() {
            Ok(limit) if limit.is_finite() => Some(limit),
            Ok(_) | Err(_) => return Err(Problem::bad_request("`limit` must be a number")),
        },
    };
    let now = api.now().utc;
    let key = tag.key;
    let history = api.readers.ring(move |reader| History::read(reader, key, now, horizon)).await?;
    let turn = api.forecasts.clone().acquire_owned().await.expect("never closed");
    let compute = move || {
        let _turn = turn;
        let found = history.forecast(horizon)?;
        Ok(answer(&tag, &history, &found, limit))
    };
    match tokio::task::spawn_blocking(compute).await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(why)) => {
            let why: String = why;
            Err(Problem::invalid(format!("{asset}/{name} cannot be forecast: {why}")))
        }
        Err(_) => Err(Problem::unavailable("the forecast was cut off")),
    }
}

fn horizon(params: &Params) -> Result<Duration, Problem> {
    let text = params.get("horizon").ok_or_else(|| {
        Problem::bad_request("`horizon` is needed: a duration like 90m, 24h or 7d")
    })?;
    let span = crate::config::values::duration(text)
        .map_err(|error| Problem::bad_request(format!("`horizon`: {error}")))?;
    if span.is_zero() || span > HORIZON_LONGEST {
        return Err(Problem::bad_request("`horizon` must be more than nothing, at most 180d"));
    }
    Ok(span)
}

/// What is known of a tag, at the step that fits the horizon.
struct History {
    /// Microseconds; `None`: raw readings, at their own step.
    step: Option<i64>,
    /// Seconds.
    times: Vec<f64>,
    values: Vec<f64>,
    now: Timestamp,
}

impl History {
    fn read(
        reader: &RingReader,
        key: TagKey,
        now: Timestamp,
        horizon: Duration,
    ) -> Result<Self, StoreError> {
        if horizon < ROLLED_FROM {
            return Self::raw(reader, key, now, horizon);
        }
        let step = step(horizon);
        let resolution = match step {
            step if step >= Resolution::Day.micros() => Resolution::Day,
            step if step >= Resolution::Hour.micros() => Resolution::Hour,
            _ => Resolution::Minute,
        };
        let each = resolution.micros();
        let points = i64::try_from(POINTS_MAX).unwrap_or(i64::MAX);
        let buckets = BUCKETS_MAX.min(points.saturating_mul(step / each));
        // The step that is still growing would be the mean of its beginning.
        let end = now.micros().div_euclid(step) * step;
        let from = Timestamp::from_micros(end.saturating_sub(buckets.saturating_mul(each)));
        let rollups = reader.rollups(key, from, Timestamp::from_micros(end), resolution)?;
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut open: Option<(i64, f64, f64)> = None;
        let mut close = |(at, sum, count): (i64, f64, f64)| {
            times.push(at as f64 * step as f64 / 1e6);
            values.push(sum / count);
        };
        for rollup in &rollups {
            let at = rollup.start.micros().div_euclid(step);
            let weight = rollup.count as f64;
            match &mut open {
                Some((same, sum, count)) if *same == at => {
                    *sum += weight * rollup.mean;
                    *count += weight;
                }
                Some(_) | None => {
                    if let Some(done) = open.replace((at, weight * rollup.mean, weight)) {
                        close(done);
                    }
                }
            }
        }
        if let Some(done) = open {
            close(done);
        }
        // A time names the beginning of its step, as that of a roll-up does.
        Ok(Self { step: Some(step), times, values, now })
    }

    fn raw(
        reader: &RingReader,
        key: TagKey,
        now: Timestamp,
        horizon: Duration,
    ) -> Result<Self, StoreError> {
        let from = now.before(horizon.saturating_mul(RAW_HORIZONS));
        let to = now.after(Duration::from_secs(1));
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let mut cursor: Option<String> = None;
        for _ in 0..RAW_PAGES_MAX {
            let page =
                reader.range(key, from, to, crate::store::PAGE_ROWS_MAX, cursor.as_deref())?;
            for reading in page.items.iter().filter(|reading| reading.quality.is_good()) {
                times.push(reading.time.seconds());
                values.push(reading.value);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(Self { step: None, times, values, now })
    }

    /// The forecast, or why there is none.
    fn forecast(&self, horizon: Duration) -> Result<(Regular, Forecast), String> {
        let series = Regular::from_readings(&self.times, &self.values)
            .map_err(|error| format!("too little history: {error}"))?;
        let span = horizon.as_secs_f64();
        // Steps count from the newest value: when it is older than the horizon, all of them would
        // lie in the past.
        let late = (self.now.seconds() - series.end()).max(0.0);
        if late > span {
            let newest = at(series.end());
            return Err(format!("its newest value is of {newest}, longer ago than the horizon"));
        }
        let steps = (span / series.step()).ceil().max(1.0);
        if steps > forecast::HORIZON_MAX as f64 {
            return Err(format!(
                "readings are {} s apart: ask for less than 12m, or more",
                series.step()
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above"
        )]
        let found = forecast::forecast(&series, steps as usize, &LEVELS)
            .map_err(|error| format!("too little history: {error}"))?;
        Ok((series, found))
    }
}

/// The finest step, in microseconds, with which the horizon has at most [`STEPS_MAX`] steps.
fn step(horizon: Duration) -> i64 {
    let micros = i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX);
    STEPS_MINUTES
        .iter()
        .map(|minutes| minutes * MINUTE)
        .find(|step| micros / step <= STEPS_MAX)
        .unwrap_or(Resolution::Day.micros())
}

/// A moment given in seconds, as it is written everywhere.
fn at(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    Timestamp::from_micros((seconds * 1e6).round() as i64)
}

fn answer(
    tag: &Tag,
    history: &History,
    (series, found): &(Regular, Forecast),
    asked: Option<f64>,
) -> Value {
    let time = |step: usize| at(series.end() + step as f64 * series.step()).to_string();
    let steps: Vec<Value> = (0..found.mean.len())
        .map(|place| {
            let mut row = json!({
                "step": place + 1, "time": time(place + 1), "mean": found.mean[place],
            });
            for band in &found.bands {
                row[format!("lower_{}", band.level)] = band.lower[place].into();
                row[format!("upper_{}", band.level)] = band.upper[place].into();
            }
            row
        })
        .collect();
    let limits: Vec<Value> = [
        ("low_low", tag.limits.low_low),
        ("low", tag.limits.low),
        ("high", tag.limits.high),
        ("high_high", tag.limits.high_high),
        ("asked", asked),
    ]
    .into_iter()
    .filter_map(|(name, limit)| limit.map(|limit| (name, limit)))
    .map(|(name, limit)| {
        let Passage { p10, p50, p90, share } = found.time_to(limit);
        json!({
            "limit": limit, "name": name, "probability": share,
            "p10": p10.map(time), "p50": p50.map(time), "p90": p90.map(time),
        })
    })
    .collect();
    let step = series.step();
    json!({
        "asset": tag.path.asset, "tag": tag.path.tag, "unit": tag.unit,
        "as_of": at(series.end()).to_string(),
        "history": if history.step.is_some() { "rollups" } else { "raw" },
        "points": series.values().len(), "filled": series.notes().filled,
        "step_seconds": step,
        "season_seconds": found.season.period.filter(|_| found.season.found)
            .map(|period| period as f64 * step),
        "level_shift": found.shift.map(|shift| shift.by),
        "tested_origins": found.origins, "tested_error": found.error,
        "members": found.weights.iter()
            .map(|(member, weight)| json!({"name": member.name(), "weight": weight}))
            .collect::<Vec<_>>(),
        "limits": limits,
        "steps": steps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_at_most_two_hundred_and_never_finer_than_roll_ups() {
        for (horizon, minutes) in
            [("12m", 1), ("3h", 1), ("4h", 2), ("24h", 10), ("2d", 15), ("7d", 60), ("180d", 1440)]
        {
            let span = crate::config::values::duration(horizon).unwrap();
            assert_eq!(step(span), minutes * MINUTE, "{horizon}");
        }
    }
}
