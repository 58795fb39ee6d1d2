//! Seeded lives from new to failed, and what the predictions about them were worth.

#![allow(unreachable_pub, reason = "a benchmark and the tests share this file")]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use wheeltap::domain::alarm::{AlarmCause, LimitKind};
use wheeltap::domain::event::{Body, Event};
use wheeltap::sim::{Fault, FaultKind, Law, Part, Scenario};

use super::line::{LEARN, Line};

/// What is let wear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The bearing of a pump: vibration, kurtosis and bearing temperature.
    Bearing,
    /// The seal of a pump: flow and pressure fall.
    Seal,
    /// The cooling of a motor: its windings warm.
    Winding,
    /// The teeth of a gearbox: vibration, oil temperature.
    Gear,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bearing, Self::Seal, Self::Winding, Self::Gear];

    fn asset(self) -> &'static str {
        match self {
            Self::Bearing | Self::Winding => "P-101",
            Self::Seal => "P-102",
            Self::Gear => "G-301",
        }
    }

    /// Damage at the nominal end of the wear phase, set so that a limit is crossed about there.
    fn reach(self) -> f64 {
        match self {
            Self::Bearing => 1.3,
            Self::Seal => 0.6,
            Self::Winding => 2.2,
            Self::Gear => 2.6,
        }
    }

    fn part(self) -> Part {
        match self {
            Self::Bearing | Self::Gear => Part::Bearing,
            Self::Seal => Part::Seal,
            Self::Winding => Part::Cooling,
        }
    }
}

/// One life as drawn.
#[derive(Debug, Clone)]
pub struct Life {
    kind: Kind,
    law: Law,
    onset: Duration,
    span: Duration,
    start_of_day: Duration,
    seed: u64,
}

impl Life {
    /// Draws a life: half an hour to an hour and a half of health, a wear phase of half an hour to
    /// four hours, one of four laws, begun at any time of day.
    pub fn draw(kind: Kind, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ ((kind as u64) << 40));
        let onset = Duration::from_secs(random.u64(1_800..5_400));
        let span = Duration::from_secs_f64(1_800.0 * 8.0_f64.powf(random.f64()));
        let law = match random.u8(..4) {
            0 => Law::Linear,
            1 => Law::Exponential { growth: 2.0 + 3.0 * random.f64() },
            2 => Law::Steps { blows: 12.0 + 28.0 * random.f64(), seed: random.u64(..) },
            _ => {
                let (bend, height) = (0.3 + 0.5 * random.f64(), 0.15 + 0.25 * random.f64());
                Law::TwoPhase { bend, height }
            }
        };
        let start_of_day = Duration::from_secs(random.u64(..86_400));
        Self { kind, law, onset, span, start_of_day, seed: random.u64(..) }
    }

    /// Lives it through.
    pub fn live(&self, loud: bool) -> Tally {
        let asset = self.kind.asset();
        let kind = FaultKind::Worn {
            part: self.kind.part(),
            law: self.law,
            span: self.span,
            reach: self.kind.reach(),
        };
        let fault = Fault { asset, kind, onset: self.onset };
        let scenario = Scenario {
            faults: vec![fault],
            start_of_day: self.start_of_day,
            ..Scenario::healthy()
        };
        let mut line = Line::new(scenario, self.seed);
        line.loud = loud;
        let (onset, span) = (self.onset.as_secs_f64(), self.span.as_secs_f64());
        let mut tally = Tally { lives: 1, ..Tally::default() };
        let mut standing = Stand::default();
        let mut failed = None;
        let mut end = onset + 2.0 * span;
        while line.seconds() < end {
            line.step();
            let at = line.seconds();
            for event in &line.told {
                let ours = event.body.asset().is_some_and(|one| one.as_str() == asset);
                if !ours || at < onset {
                    // A repeat of what was said wrongly is not said wrongly again.
                    if matches!(event.body, Body::FailurePredicted(_)) {
                        let said = tally.wrong_of.entry(who(event)).or_default();
                        *said += 1;
                    }
                    continue;
                }
                if failed.is_none() {
                    standing.hear(event, at);
                }
                tally.scored(event);
                if failed.is_none() && crosses(event) {
                    failed = Some(at);
                    tally.failed += 1;
                    tally.law = self.law_name();
                    if let Some(since) = standing.since {
                        tally.announced += 1;
                        tally.leads.push((at - since) / (at - onset));
                    } else {
                        tally.leads.push(0.0);
                    }
                    // The machine runs on for a while, so that the limits of its other tags, too,
                    // tell the truth about what was said of them.
                    end = at + (at - onset);
                }
            }
        }
        let learnt = LEARN.as_secs_f64();
        tally.healthy_hours = (3.0 * (line.seconds() - learnt) + onset - learnt) / 3600.0;
        tally.wrong = u32::try_from(tally.wrong_of.len()).unwrap();
        if loud {
            println!("{self:?}\n  failed {failed:?}, {:?}", tally.leads);
        }
        tally
    }

    fn law_name(&self) -> &'static str {
        match self.law {
            Law::Linear => "linear",
            Law::Exponential { .. } => "exponential",
            Law::Steps { .. } => "steps",
            Law::TwoPhase { .. } => "two-phase",
        }
    }
}

fn who(event: &Event) -> String {
    event.body.asset().map_or_else(String::new, ToString::to_string)
}

/// Whether a failure limit is crossed by this event.
fn crosses(event: &Event) -> bool {
    let (Body::AlarmRaised(alarm) | Body::AlarmUpdated(alarm)) = &event.body else { return false };
    matches!(alarm.cause, AlarmCause::Limit { which: LimitKind::HighHigh | LimitKind::LowLow, .. })
}

/// Whether and since when a prediction has stood without a break.
#[derive(Debug, Default)]
struct Stand {
    since: Option<f64>,
    lost: Option<(f64, f64)>,
}

impl Stand {
    fn hear(&mut self, event: &Event, at: f64) {
        match &event.body {
            Body::FailurePredicted(_) if self.since.is_none() => {
                // Another tag or failure mode taking over at the same moment is no break.
                let same = self.lost.filter(|(lost_at, _)| at - lost_at < 0.5);
                self.since = Some(same.map_or(at, |(_, since)| since));
            }
            Body::PredictionWithdrawn { .. } => {
                self.lost = self.since.take().map(|since| (at, since));
            }
            _ => {}
        }
    }
}

/// Figures of lives.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub lives: u32,
    /// Lives that came to a failure limit.
    pub failed: u32,
    /// Of these, with a prediction that stood when the limit was reached.
    pub announced: u32,
    /// How early, as shares of the wear phase; 0 for those not announced.
    pub leads: Vec<f64>,
    pub reached: u32,
    pub covered: u32,
    /// Truths before p10 and after p90 (outlived ones among the latter).
    pub sooner: u32,
    pub later: u32,
    pub withdrawn: u32,
    pub healthy_hours: f64,
    /// Assets that were well, and of which a failure was predicted.
    pub wrong: u32,
    wrong_of: BTreeMap<String, u32>,
    law: &'static str,
}

impl Tally {
    fn scored(&mut self, event: &Event) {
        let Body::PredictionScored { outcome, actual, promised, .. } = &event.body else { return };
        match (outcome.as_str(), actual) {
            ("reached", Some(actual)) => {
                // Beyond the limit nothing is predicted any more.
                if promised.p90 <= 0.0 {
                    return;
                }
                self.reached += 1;
                if *actual < promised.p10 {
                    self.sooner += 1;
                } else if *actual > promised.p90 {
                    self.later += 1;
                } else {
                    self.covered += 1;
                }
            }
            ("outlived", _) if promised.p90 > 0.0 => {
                self.reached += 1;
                self.later += 1;
            }
            ("withdrawn", _) => self.withdrawn += 1,
            _ => {}
        }
    }

    /// Adds another one's figures.
    pub fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.failed += other.failed;
        self.announced += other.announced;
        self.leads.extend(&other.leads);
        self.reached += other.reached;
        self.covered += other.covered;
        self.sooner += other.sooner;
        self.later += other.later;
        self.withdrawn += other.withdrawn;
        self.healthy_hours += other.healthy_hours;
        self.wrong += other.wrong;
    }

    /// Share of failures that were announced.
    pub fn announced_share(&self) -> f64 {
        f64::from(self.announced) / f64::from(self.failed.max(1))
    }

    /// Median lead time as a share of the wear phase.
    pub fn lead(&self) -> f64 {
        let mut leads = self.leads.clone();
        leads.sort_by(f64::total_cmp);
        leads.get(leads.len() / 2).copied().unwrap_or(0.0)
    }

    /// Share of scored predictions whose interval held the truth.
    pub fn coverage(&self) -> f64 {
        f64::from(self.covered) / f64::from(self.reached.max(1))
    }

    /// Wrong predictions per 1,000 hours of healthy running.
    pub fn wrong_rate(&self) -> f64 {
        f64::from(self.wrong) * 1000.0 / self.healthy_hours.max(1e-9)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5} {:>6} {:>9.3} {:>6.2} {:>6} {:>8.3} {:>6.3} {:>6.3} {:>9} {:>7.0} {:>5} {:>7.2}",
            self.lives,
            self.failed,
            self.announced_share(),
            self.lead(),
            self.reached,
            self.coverage(),
            f64::from(self.sooner) / f64::from(self.reached.max(1)),
            f64::from(self.later) / f64::from(self.reached.max(1)),
            self.withdrawn,
            self.healthy_hours,
            self.wrong,
            self.wrong_rate(),
        )
    }
}

/// The head of a table of tallies.
pub const HEAD: &str = "                   lives failed announced   lead scored coverage sooner  \
                        later withdrawn healthy wrong /1000 h";

/// Lives `count` lives of each kind and prints the scorecard.
pub fn run(kinds: &[Kind], count: u64, seed: u64, loud: bool) -> (Tally, BTreeMap<Kind, Tally>) {
    println!("seed {seed}\n{HEAD}");
    let mut of_kind = BTreeMap::new();
    let mut of_law: BTreeMap<&str, Tally> = BTreeMap::new();
    let mut all = Tally::default();
    for kind in kinds {
        let mut sum = Tally::default();
        for number in 0..count {
            let life = Life::draw(*kind, seed.wrapping_mul(1_000_003) + number);
            let tally = life.live(loud);
            if tally.wrong > 0 {
                println!("  wrong: {:?} {:?}", tally.wrong_of, life);
            }
            if tally.failed > 0 && tally.announced == 0 {
                println!("  not announced: {life:?}");
            }
            sum.add(&tally);
            of_law.entry(life.law_name()).or_default().add(&tally);
        }
        println!("{:<18} {sum}", format!("{kind:?}").to_lowercase());
        all.add(&sum);
        of_kind.insert(*kind, sum);
    }
    for (law, tally) in &of_law {
        println!("{law:<18} {tally}");
    }
    println!("{:<18} {all}", "all");
    (all, of_kind)
}
