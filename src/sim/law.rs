//! Laws of wear: how damage goes from nothing to its end.

/// How damage grows with the share of the wear phase that has passed.
///
/// Each is 0 at 0, about 1 at 1, and goes on beyond. Nothing that predicts knows them; they are for
/// finding out what a prediction is worth on lives that it was not made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// Evenly.
    Linear,
    /// Ever faster: damage is multiplied by e `growth` times over the phase.
    Exponential {
        /// How often.
        growth: f64,
    },
    /// By blows of random size at random moments, `blows` of them in a phase on average.
    Steps {
        /// How many.
        blows: f64,
        /// Which course of chance.
        seed: u64,
    },
    /// Slowly up to `height` at `bend`, then quickly.
    TwoPhase {
        /// Share of the phase at which the pace changes.
        bend: f64,
        /// Damage at that moment.
        height: f64,
    },
}

impl Law {
    /// Damage after this share of the phase; 0 before it has begun.
    #[must_use]
    pub fn at(self, share: f64) -> f64 {
        let share = share.max(0.0);
        match self {
            Self::Linear => share,
            Self::Exponential { growth } => (growth * share).exp_m1() / growth.exp_m1(),
            Self::Steps { blows, seed } => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut draw = || -(1.0 - random.f64()).ln() / blows;
                let (mut moment, mut damage) = (draw(), 0.0);
                while moment <= share {
                    damage += draw();
                    moment += draw();
                }
                damage
            }
            Self::TwoPhase { bend, height } if share < bend => share / bend * height,
            Self::TwoPhase { bend, height } => {
                height + (share - bend) / (1.0 - bend) * (1.0 - height)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_law_begins_with_nothing_and_never_heals() {
        let steps = Law::Steps { blows: 400.0, seed: 5 };
        let laws = [
            Law::Linear,
            Law::Exponential { growth: 3.0 },
            steps,
            Law::TwoPhase { bend: 0.6, height: 0.3 },
        ];
        for law in laws {
            assert!(law.at(-1.0).abs() < 1e-12 && law.at(0.0).abs() < 1e-12, "{law:?}");
            let course: Vec<f64> = (0..=150).map(|i| law.at(f64::from(i) / 100.0)).collect();
            assert!(course.windows(2).all(|pair| pair[1] >= pair[0]), "{law:?}");
            assert!((course[100] - 1.0).abs() < 0.2, "{law:?} {}", course[100]);
        }
    }
}
