use super::*;
use crate::domain::ids::{Arrival, AssetId, TagId, TagKey};
use crate::domain::reading::{Quality, Reason};

/// How a simulated part wears.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wear {
    Linear,
    Exponential,
    Steps,
    TwoPhase,
}

const WEARS: [Wear; 4] = [Wear::Linear, Wear::Exponential, Wear::Steps, Wear::TwoPhase];

fn normal(random: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (2.0 * std::f64::consts::PI * random.f64()).cos()
}

/// One life, a reading a second: level 2, limit 7, some time of health, then wear. Returns the
/// readings up to the passage, and when wear began.
fn life(wear: Wear, random: &mut fastrand::Rng) -> (Vec<f64>, usize) {
    let (normal_level, limit) = (2.0, 7.0);
    let healthy = 150 + random.usize(..600);
    let span = 200.0 + 1500.0 * random.f64();
    let noise = 0.05 + 0.2 * random.f64();
    let phi = 0.8 * random.f64();
    let wander = 0.02 * random.f64();
    let growth = 2.0 + 3.0 * random.f64();
    let bend = 0.3 + 0.5 * random.f64();
    let bend_height = 0.15 + 0.25 * random.f64();
    let (mut rest, mut drifted, mut stepped) = (0.0, 0.0, 0.0);
    let mut values = Vec::new();
    for second in 0.. {
        rest = phi * rest + noise * (1.0 - phi * phi).sqrt() * normal(random);
        let mut damage = 0.0;
        if second > healthy {
            let life = (second - healthy) as f64 / span;
            drifted += wander * normal(random);
            damage = match wear {
                Wear::Linear => life,
                Wear::Exponential => (growth * life).exp_m1() / growth.exp_m1(),
                Wear::Steps => {
                    // About 25 blows over the life, of random size.
                    if random.f64() < 25.0 / span {
                        stepped += -(1.0 - random.f64()).ln() / 25.0;
                    }
                    stepped
                }
                Wear::TwoPhase if life < bend => life / bend * bend_height,
                Wear::TwoPhase => bend_height + (life - bend) / (1.0 - bend) * (1.0 - bend_height),
            };
        }
        let level = normal_level + damage * (limit - normal_level) + drifted;
        if level >= limit {
            return (values, healthy);
        }
        values.push(level + rest);
    }
    unreachable!("wear never ends")
}

fn points(values: &[f64]) -> Vec<(Timestamp, f64)> {
    let start = Timestamp::from_micros(1_700_000_000_000_000);
    (0..)
        .map(|second| start.after(std::time::Duration::from_secs(second)))
        .zip(values.iter().copied())
        .collect()
}

#[derive(Debug, Default)]
struct Score {
    asked: u32,
    predicted: u32,
    covered: u32,
    log_error: f64,
    late: u32,
}

fn score(wear: Wear, lives: u32, seed: u64) -> Score {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut score = Score::default();
    for _ in 0..lives {
        let (values, healthy) = life(wear, &mut random);
        // Asked between 30 and 95 % of the wear.
        let worn = values.len() - healthy;
        let at = healthy + worn * random.usize(300..950) / 1000;
        let truth = (values.len() - at) as f64;
        score.asked += 1;
        let flipped = random.bool();
        let seen: Vec<f64> =
            values[..at].iter().map(|value| if flipped { 10.0 - value } else { *value }).collect();
        let limit = if flipped { 3.0 } else { 7.0 };
        if let Outlook::Predicted(estimate) = follow(&points(&seen), limit, !flipped) {
            score.predicted += 1;
            score.covered += u32::from(estimate.p10 <= truth && truth <= estimate.p90);
            score.late += u32::from(truth < estimate.p10);
            score.log_error += (estimate.p50.max(1.0) / truth).ln().abs();
        }
    }
    score
}

#[test]
fn the_band_covers_about_as_often_as_it_says() {
    let mut sum = Score::default();
    for (wear, seed) in WEARS.into_iter().zip(101..) {
        let one = score(wear, LIVES, seed);
        let share = |part: u32| f64::from(part) / f64::from(one.predicted.max(1));
        println!(
            "{wear:?}: predicted {} of {}, covered {:.3}, below p10 {:.3}, typical factor {:.2}",
            one.predicted,
            one.asked,
            share(one.covered),
            share(one.late),
            (one.log_error / f64::from(one.predicted.max(1))).exp()
        );
        sum.asked += one.asked;
        sum.predicted += one.predicted;
        sum.covered += one.covered;
    }
    let coverage = f64::from(sum.covered) / f64::from(sum.predicted);
    println!("all: predicted {} of {}, covered {coverage:.3}", sum.predicted, sum.asked);
    assert!(sum.predicted * 2 > sum.asked, "{sum:?}");
    assert!((0.7..=0.92).contains(&coverage), "{sum:?}");
}

/// Lives per kind of wear in the calibration.
const LIVES: u32 = 60;
/// Windows of healthy noise per correlation.
const HOURS: u32 = 1000;

#[test]
fn healthy_noise_is_hardly_ever_followed() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut wrong = 0;
    for phi in [0.0, 0.5, 0.9, 0.97] {
        let mut here = 0;
        for _ in 0..HOURS / 4 {
            // An hour, a reading every five seconds, the limit six standard deviations away.
            let mut rest = normal(&mut random);
            let values: Vec<f64> = (0..720)
                .map(|_| {
                    rest = phi * rest + (1.0_f64 - phi * phi).sqrt() * normal(&mut random);
                    50.0 + rest
                })
                .collect();
            if let Outlook::Predicted(_) = follow(&points(&values), 56.0, true) {
                here += 1;
            }
        }
        println!("correlation {phi}: {here} predictions in {} h", HOURS / 4);
        wrong += here;
    }
    assert!(wrong <= 3, "{wrong} predictions in {HOURS} h of healthy noise");
}

fn job(values: &[f64], limit: f64, upward: bool) -> Outlook {
    let readings: Vec<Reading> = points(values)
        .into_iter()
        .zip(1..)
        .map(|((time, value), number)| Reading {
            tag: TagKey(1),
            arrival: Arrival(number),
            time,
            value,
            quality: if value.is_nan() { Quality::Bad(Reason::Nan) } else { Quality::Good },
        })
        .collect();
    let spec = JobSpec::Degradation {
        asset: AssetId::new("P-101").unwrap(),
        tag: TagId::new("vibration").unwrap(),
        limit,
        upward,
        from: None,
        to: readings.last().map_or_else(Timestamp::default, |reading| reading.time),
    };
    serde_json::from_value(run_job(&spec, &readings).unwrap()).unwrap()
}

fn reason(outlook: Outlook) -> String {
    match outlook {
        Outlook::Abstained { reason, .. } => reason,
        Outlook::Predicted(estimate) => panic!("{estimate:?}"),
    }
}

#[test]
fn what_cannot_be_followed_is_not() {
    let mut random = fastrand::Rng::with_seed(3);
    assert!(reason(job(&[], 7.0, true)).contains("no good reading"));
    assert!(reason(job(&[1.0; 10], 7.0, true)).contains("too few"));
    assert!(reason(job(&[1.0; 500], 7.0, true)).contains("does not move"));
    let noise: Vec<f64> = (0..500).map(|_| 2.0 + 0.1 * normal(&mut random)).collect();
    assert!(reason(job(&noise, 7.0, true)).contains("no trend"));
    let away: Vec<f64> = noise.iter().zip(0..).map(|(y, i)| y - 0.01 * f64::from(i)).collect();
    assert!(reason(job(&away, 7.0, true)).contains("not move towards"));
    let jump: Vec<f64> =
        noise.iter().zip(0..).map(|(y, i)| if i < 300 { *y } else { y + 2.0 }).collect();
    let why = reason(job(&jump, 7.0, true));
    assert!(why.contains("jumped"), "{why}");
    let stopped: Vec<f64> =
        noise.iter().zip(0..).map(|(y, i)| y + 0.02 * f64::from((i - 200).clamp(0, 150))).collect();
    reason(job(&stopped, 7.0, true));
    let spec = JobSpec::Degradation {
        asset: AssetId::new("P-101").unwrap(),
        tag: TagId::new("vibration").unwrap(),
        limit: f64::NAN,
        upward: true,
        from: None,
        to: Timestamp::default(),
    };
    assert!(run_job(&spec, &[]).is_err());
}

#[test]
fn beyond_the_limit_nothing_is_left() {
    for (values, limit, upward) in [([8.0; 30], 7.0, true), ([1.0; 30], 2.0, false)] {
        let Outlook::Predicted(estimate) = job(&values, limit, upward) else { panic!() };
        assert_eq!((estimate.p50, estimate.health), (0.0, 0.0));
    }
}

#[test]
fn a_clean_line_is_met_where_it_crosses() {
    let mut random = fastrand::Rng::with_seed(9);
    for upward in [true, false] {
        let sign = if upward { 1.0 } else { -1.0 };
        let values: Vec<f64> = (0..400)
            .map(|i| {
                let wear = sign * 0.01 * f64::from((i - 100).max(0));
                let value = 2.0 + wear + 0.05 * normal(&mut random);
                if random.f64() < 0.02 { f64::NAN } else { value }
            })
            .collect();
        // 3 of 5 are gone after 300 s; 200 s are left.
        let Outlook::Predicted(estimate) = job(&values, 2.0 + sign * 5.0, upward) else { panic!() };
        assert!((140.0..260.0).contains(&estimate.p50), "{estimate:?}");
        assert!(estimate.p10 < 200.0 && 200.0 < estimate.p90, "{estimate:?}");
        assert!((estimate.health - 0.4).abs() < 0.05, "{estimate:?}");
        assert!((estimate.normal - 2.0).abs() < 0.1, "{estimate:?}");
    }
}

#[test]
fn a_short_trend_at_the_end_of_a_long_history_is_found() {
    // Half a minute of growth after an hour of health, as in a demonstration that runs fast.
    let mut random = fastrand::Rng::with_seed(12);
    let growth = |i: i32| 5.0 * ((f64::from(i) / 40.0).exp_m1() / 3.0_f64.exp_m1());
    let values: Vec<f64> =
        (0..3650).map(|i| 2.0 + growth((i - 3600).max(0)) + 0.05 * normal(&mut random)).collect();
    let Outlook::Predicted(estimate) = job(&values, 7.0, true) else {
        panic!("{:?}", job(&values, 7.0, true))
    };
    assert!((25.0..160.0).contains(&estimate.p50), "{estimate:?}");
}
