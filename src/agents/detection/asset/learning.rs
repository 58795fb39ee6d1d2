//! What an asset learns from its rows, and where that leads.

use super::super::Context;
use super::super::cloud::{ROWS_LEAST, Weakness};
use super::{
    AssetWatch, GAP_STEPS, GAPS_MAX, Learn, OTHERS_WELL, PROBATION_MAX, PROLONG, RENEW_GROWTH,
    YOUNG,
};
use crate::domain::event::Phase;

impl AssetWatch {
    pub(super) fn learn_row(&mut self, time: f64, step: f64, ctx: &mut Context<'_, '_>) {
        if self.running.is_holding() {
            return;
        }
        let trusted = time - self.cloud.span().min(PROBATION_MAX);
        if self.phase != Phase::Learning && self.latest.ratio > OTHERS_WELL {
            // What came shortly before may have been the beginning of it.
            self.cloud.forget_since(trusted);
            return;
        }
        self.cloud.keep(time, &self.row);
        let interval = self.usual_interval();
        self.learnt += step.min(GAP_STEPS * interval);
        let complete = match self.learn {
            Learn::Seconds(seconds) => self.learnt >= seconds,
            Learn::Rows(rows) => self.cloud.rows() >= f64::from(rows),
        };
        if self.phase == Phase::Learning {
            if complete && self.cloud.rows() >= ROWS_LEAST as f64 {
                self.fit(time, ctx);
            } else {
                self.say_gaps(time, ctx);
            }
        } else {
            let enough = RENEW_GROWTH * self.fitted_rows;
            if self.cloud.rows() >= enough && self.cloud.rows_until(trusted) >= enough {
                self.fit(trusted, ctx);
            }
            if self.phase == Phase::Armed && !self.is_young() {
                self.cloud.settle();
            }
        }
    }

    /// Goes on from what an earlier run had learnt: the next renewal waits for more rows than that.
    pub(in super::super) fn take_up(&mut self) {
        self.fitted_rows = if self.cloud.is_fitted() { self.cloud.rows() } else { 0.0 };
    }

    /// Whether too little was learnt to know how the asset goes through a day: it goes on learning,
    /// armed or not. A recording is judged by the rows that were said to be healthy.
    pub(super) fn is_young(&self) -> bool {
        matches!(self.learn, Learn::Seconds(_)) && self.learnt < YOUNG
    }

    /// Learns from what was kept, and says where that leads.
    fn fit(&mut self, until: f64, ctx: &mut Context<'_, '_>) {
        let weaknesses = self.cloud.fit(until, self.is_young());
        self.fitted_rows = self.cloud.rows_until(until);
        let prolonged = match self.learn {
            Learn::Seconds(seconds) => self.learnt >= PROLONG * seconds,
            Learn::Rows(_) => true,
        };
        let mut reasons = Vec::new();
        let mut short = false;
        for weakness in &weaknesses {
            match weakness {
                Weakness::Constant => reasons.push("no tag has moved so far".to_owned()),
                Weakness::Short => {
                    short = true;
                    reasons.push("little was learnt so far, limits are wider".to_owned());
                }
                Weakness::Trending(columns) if !prolonged => {
                    let names: Vec<&str> =
                        columns.iter().map(|i| self.channels[*i].tag.path.tag.as_str()).collect();
                    reasons.push(format!("still moving in one direction: {}", names.join(", ")));
                }
                Weakness::Trending(_) => {}
            }
        }
        if self.phase == Phase::Learning {
            for channel in &mut self.channels {
                channel.arm();
            }
        }
        let recording = matches!(self.learn, Learn::Rows(_));
        let phase = if !self.cloud.is_fitted() {
            Phase::Learning
        } else if self.phase == Phase::Armed {
            // What goes on moving is learnt like the rest; it disarms nothing.
            Phase::Armed
        } else if reasons.is_empty() || recording && !short {
            Phase::Armed
        } else {
            Phase::Provisional
        };
        if phase == Phase::Learning {
            // Nothing moved: the same time again, with what is there.
            self.learnt = 0.0;
        }
        if phase == Phase::Armed && !self.is_young() {
            self.cloud.settle();
        }
        if phase != self.phase || phase == Phase::Learning {
            self.phase = phase;
            ctx.phase_changed(&self.id, phase, reasons);
        }
    }

    fn say_gaps(&mut self, time: f64, ctx: &mut Context<'_, '_>) {
        let Learn::Seconds(seconds) = self.learn else { return };
        let passed = time - self.began;
        if !self.said_gaps && passed > seconds && self.learnt < (1.0 - GAPS_MAX) * passed {
            self.said_gaps = true;
            let share = 100.0 * (1.0 - self.learnt / passed);
            let reason = format!("{share:.0} % of the learning time has no good values or no run");
            ctx.phase_changed(&self.id, Phase::Learning, vec![reason]);
        }
    }
}
