//! Is a sensor still measuring? Tests on one series alone: stuck values, scatter of the
//! differences, lone spikes. Each learns what is usual for the series first.

use serde::{Deserialize, Serialize};

use super::stats::ewma_weight;

/// Chance of a false alarm by a run of equal values that is accepted per reading, when repeats come
/// independently of each other: at one reading a second, one in thirty years.
const RUN_CHANCE: f64 = 1e-9;
/// A series that repeats its value this often (a set-point, a slow quantised temperature) says
/// nothing by repeating it once more.
const REPEATS_USUAL: f64 = 0.98;
/// A run must be this many times longer than the longest one learnt: the same margin that holds a
/// maximum of a geometric distribution over a period a hundred thousand times longer (ln 1e5 n /
/// ln n for n of a few hundred is about 3).
const RUN_MARGIN: f64 = 3.0;
/// Values after which the longest run learnt means something.
const RUN_FEWEST: u32 = 20;

/// Looks for a value that no longer moves.
///
/// Source: runs of a geometric distribution, P(run ≥ k) = pᵏ with p the share of repeats.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RunLength {
    last: u64,
    run: u32,
    longest: u32,
    repeats: u32,
    count: u32,
    limit: Option<f64>,
}

impl RunLength {
    /// Takes a value while learning.
    pub fn learn(&mut self, value: f64) {
        self.count_run(value);
        self.count = self.count.saturating_add(1);
        self.longest = self.longest.max(self.run);
        self.repeats = self.repeats.saturating_add(u32::from(self.run > 1));
    }

    /// Ends learning: how long a run may be from now on. A series that usually repeats is never
    /// judged.
    pub fn arm(&mut self) {
        let share = f64::from(self.repeats) / f64::from(self.count.max(1));
        self.limit = (self.count >= RUN_FEWEST && share < REPEATS_USUAL).then(|| {
            let by_chance = if self.repeats > 0 { RUN_CHANCE.ln() / share.ln() } else { 0.0 };
            by_chance.max(RUN_MARGIN * f64::from(self.longest)).max(f64::from(RUN_FEWEST))
        });
    }

    /// Takes a value; the length of its run over the longest allowed, 0 when the series is not
    /// judged. 1 and more says stuck.
    pub fn judge(&mut self, value: f64) -> f64 {
        self.count_run(value);
        self.limit.map_or(0.0, |limit| f64::from(self.run) / limit)
    }

    /// Whether the series can be judged at all.
    #[must_use]
    pub const fn is_armed(&self) -> bool {
        self.limit.is_some()
    }

    /// Forgets the present run, not what was learnt.
    pub const fn restart(&mut self) {
        self.run = 0;
    }

    fn count_run(&mut self, value: f64) {
        // −0 is the same value as 0.
        let bits = (value + 0.0).to_bits();
        self.run = if bits == self.last && self.run > 0 { self.run.saturating_add(1) } else { 1 };
        self.last = bits;
    }
}

/// Levels a series had while it was learnt. Where none was zero or crossed it (vibration, flow,
/// current), turbulence and impacts scatter in proportion to the level: what has doubled may scatter
/// twice as much, and that is no sign against its sensor.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Levels {
    seen: Option<(f64, f64)>,
}

impl Levels {
    fn learn(&mut self, level: f64) {
        let (low, high) = self.seen.unwrap_or((level, level));
        self.seen = Some((low.min(level), high.max(level)));
    }

    /// By how much a level is larger than any that was learnt; 1 at least.
    fn growth(&self, level: f64) -> f64 {
        match self.seen {
            Some((low, high)) if low > 0.0 => (level / high).max(1.0),
            Some((low, high)) if high < 0.0 => (level / low).max(1.0),
            Some(_) | None => 1.0,
        }
    }
}

/// Looks for more scatter than usual: exponential mean of the squared second differences, which a
/// steady movement of the quantity leaves alone.
///
/// Source: successive differences, J. von Neumann, Ann. Math. Stat. 12, 1941; second differences
/// against trends: T. Gasser, L. Sroka, C. Jennen-Steinmetz, Biometrika 73, 1986.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Scatter {
    last: Option<(f64, f64)>,
    /// Exponential mean of the values, over the same span.
    level: f64,
    levels: Levels,
    mean: f64,
    total: f64,
    count: f64,
    largest: f64,
    limit: f64,
}

/// Differences after which the exponential mean has forgotten its start.
const SCATTER_SETTLED: f64 = 10.0;
/// The mean square may grow to this times the largest learnt: a standard deviation half as large
/// again as ever seen.
const SCATTER_MARGIN: f64 = 2.25;
/// And to at least this times the usual one: at 20 effective differences, χ² with 20 degrees of
/// freedom reaches 3 times its mean with probability 1e-5.
const SCATTER_LEAST: f64 = 4.0;

/// One difference counts at most this many times the limit in the mean, so that a lone spike, which
/// makes three of them, is not taken for noise (10 effective differences).
const SCATTER_CAP: f64 = 3.0;

impl Scatter {
    fn advance(&mut self, step: f64, span: f64, value: f64) -> f64 {
        if let Some((last, before)) = self.last {
            let bend = value - 2.0 * last + before;
            self.count += 1.0;
            // A plain mean at first, so that the start does not weigh on for long.
            let weight = ewma_weight(step, span).max(1.0 / self.count);
            self.level += weight * (value - self.level);
            // While it is learnt what is usual, nothing is out of proportion.
            let growth = if self.limit > 0.0 { self.levels.growth(self.level) } else { 1.0 };
            let square = bend * bend / (6.0 * growth * growth);
            let square =
                if self.limit > 0.0 { square.min(SCATTER_CAP * self.limit) } else { square };
            self.mean += weight * (square - self.mean);
            self.total += square;
        } else {
            self.level = value;
        }
        self.last = Some((value, self.last.map_or(value, |(last, _)| last)));
        self.mean
    }

    /// Takes a value, `step` after the one before, while learning; `span` is the time constant.
    pub fn learn(&mut self, step: f64, span: f64, value: f64) {
        let mean = self.advance(step, span, value);
        if self.count >= SCATTER_SETTLED {
            self.largest = self.largest.max(mean);
            self.levels.learn(self.level);
        }
    }

    /// Ends learning. `floor` is the least difference that counts (e.g. a quantisation step).
    pub fn arm(&mut self, floor: f64) {
        let usual = if self.count > 0.0 { self.total / self.count } else { 0.0 };
        self.limit = (SCATTER_MARGIN * self.largest).max(SCATTER_LEAST * usual).max(floor * floor);
    }

    /// Takes a value; mean square over the largest allowed. More than 1 says noisy.
    pub fn judge(&mut self, step: f64, span: f64, value: f64) -> f64 {
        let mean = self.advance(step, span, value);
        if self.limit > 0.0 { mean / self.limit } else { 0.0 }
    }

    /// Forgets the newest values, not what was learnt.
    pub fn restart(&mut self) {
        self.last = None;
        self.mean = if self.count > 0.0 { self.total / self.count } else { 0.0 };
    }

    /// The usual scatter in the unit of the values: their standard deviation when they are
    /// independent.
    #[must_use]
    pub fn usual(&self) -> f64 {
        if self.count > 0.0 { (self.total / self.count).sqrt() } else { 0.0 }
    }
}

/// Values before the present one whose median a spike is measured from.
const SPIKE_WINDOW: u8 = 5;
/// A spike must be this many times as far out as anything learnt …
const SPIKE_MARGIN: f64 = 2.0;
/// … and this many times the usual distance: one normal value in 500 million.
const SPIKE_LEAST: f64 = 6.0;

/// Looks for single values far out that come back with the next: a step is no spike.
///
/// Source: Hampel's identifier over a moving window, F. R. Hampel, JASA 69, 1974; R. K. Pearson,
/// IEEE Trans. Control Systems Tech. 10(1), 2002.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spikes {
    window: [f64; SPIKE_WINDOW as usize],
    filled: u8,
    next: u8,
    squares: f64,
    count: f64,
    largest: f64,
    limit: f64,
    levels: Levels,
    /// Median before a value that was far out, and how far it was; waits for the next value.
    waiting: Option<(f64, f64)>,
    stepped: bool,
}

impl Spikes {
    /// Distance of a value from the median of those before it; takes the value in.
    fn advance(&mut self, value: f64) -> Option<(f64, f64)> {
        let full = self.filled == SPIKE_WINDOW;
        let middle = full.then(|| {
            let mut sorted = self.window;
            sorted.sort_unstable_by(f64::total_cmp);
            sorted[usize::from(SPIKE_WINDOW / 2)]
        });
        self.window[usize::from(self.next)] = value;
        self.next = (self.next + 1) % SPIKE_WINDOW;
        self.filled = (self.filled + 1).min(SPIKE_WINDOW);
        middle.map(|middle| (middle, (value - middle).abs()))
    }

    /// Takes a value while learning.
    pub fn learn(&mut self, value: f64) {
        if let Some((middle, far)) = self.advance(value) {
            self.levels.learn(middle);
            self.squares += far * far;
            self.count += 1.0;
            self.largest = self.largest.max(far);
        }
    }

    /// Ends learning. `floor` is the least distance that counts.
    pub fn arm(&mut self, floor: f64) {
        let usual = if self.count > 0.0 { (self.squares / self.count).sqrt() } else { 0.0 };
        self.limit = (SPIKE_MARGIN * self.largest).max(SPIKE_LEAST * usual).max(floor);
    }

    /// Takes a value; how far the value *before* it was out over the farthest allowed, when it was
    /// a spike and has come back, and 0 otherwise.
    pub fn judge(&mut self, value: f64) -> f64 {
        self.stepped = false;
        let found = self.waiting.take().map_or(0.0, |(middle, far)| {
            // Back means: more than half the way.
            if (value - middle).abs() < 0.5 * far {
                return far / (self.limit * self.levels.growth(middle));
            }
            self.stepped = true;
            0.0
        });
        if let Some((middle, far)) = self.advance(value)
            && self.limit > 0.0
            && far > self.limit * self.levels.growth(middle)
        {
            self.waiting = Some((middle, far));
        }
        found
    }

    /// Forgets the newest values, not what was learnt.
    pub const fn restart(&mut self) {
        self.filled = 0;
        self.next = 0;
        self.waiting = None;
        self.stepped = false;
    }

    /// Whether the value before the last one judged was as far out as a spike and stayed there: an
    /// abrupt step.
    #[must_use]
    pub const fn stepped(&self) -> bool {
        self.stepped
    }
}

/// Smallest step between different values seen: the resolution of a quantised series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Resolution {
    last: Option<f64>,
    step: f64,
}

impl Resolution {
    /// Takes a value.
    pub fn push(&mut self, value: f64) {
        if let Some(last) = self.last {
            let step = (value - last).abs();
            // Below the rounding of the number itself there is no step.
            if step > 1e-9 * value.abs() && (self.step <= 0.0 || step < self.step) {
                self.step = step;
            }
        }
        self.last = Some(value);
    }

    /// The step; 0 while none was seen.
    #[must_use]
    pub const fn step(&self) -> f64 {
        self.step
    }
}

/// Share of the time between the first and the last of `times` (ascending, any unit) that lies in
/// gaps longer than `longest`.
#[must_use]
pub fn gap_share(times: &[f64], longest: f64) -> f64 {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return 0.0 };
    let missing: f64 = times
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|gap| *gap > longest)
        .map(|gap| gap - longest)
        .sum();
    if last > first { missing / (last - first) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(random: &mut fastrand::Rng) -> f64 {
        (0..12).map(|_| random.f64()).sum::<f64>() - 6.0
    }

    #[test]
    fn a_run_is_judged_by_how_often_the_series_repeats() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut coarse = RunLength::default();
        let mut fine = RunLength::default();
        let mut constant = RunLength::default();
        for _ in 0..2000 {
            coarse.learn((0.4 * normal(&mut random)).round());
            fine.learn(normal(&mut random));
            constant.learn(5.0);
        }
        for series in [&mut coarse, &mut fine, &mut constant] {
            series.arm();
        }
        assert!(!constant.is_armed(), "a set-point is never stuck");
        let until = |series: &mut RunLength| (1..).find(|_| series.judge(77.0) >= 1.0).unwrap();
        assert_eq!(until(&mut fine), 20);
        // Share of repeats about 0.65: ln 1e-9 / ln 0.65 = 48.
        let rows = until(&mut coarse);
        assert!((40..100).contains(&rows), "{rows}");
    }

    #[test]
    fn scatter_finds_noise_and_leaves_noise_alone() {
        let mut random = fastrand::Rng::with_seed(8);
        let mut scatter = Scatter::default();
        for _ in 0..400 {
            scatter.learn(1.0, 10.0, normal(&mut random));
        }
        scatter.arm(0.0);
        // 400 values overlapping in threes: a tenth is about two standard errors.
        assert!((scatter.usual() - 1.0).abs() < 0.15, "{}", scatter.usual());
        let worst =
            (0..20_000).map(|_| scatter.judge(1.0, 10.0, normal(&mut random))).fold(0.0, f64::max);
        assert!(worst < 1.0, "{worst}");
        let rows = (0..100).find(|_| scatter.judge(1.0, 10.0, 4.0 * normal(&mut random)) > 1.0);
        assert!(rows.is_some_and(|rows| rows < 30), "{rows:?}");
    }

    #[test]
    fn a_spike_comes_back_and_a_step_does_not() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut spikes = Spikes::default();
        for _ in 0..400 {
            spikes.learn(normal(&mut random));
        }
        spikes.arm(0.0);
        assert!(spikes.judge(12.0) < 1.0, "not known before the next value");
        assert!(spikes.judge(0.1) > 1.0);
        let mut steps = 0;
        for _ in 0..50 {
            assert!(spikes.judge(20.0) < 1.0, "a step is no spike");
            steps += u32::from(spikes.stepped());
        }
        assert!((1..=3).contains(&steps), "{steps}: until the median has moved");
    }

    #[test]
    fn resolution_and_gaps() {
        let mut resolution = Resolution::default();
        for value in [1.0, 1.5, 1.5, 1.25, 3.0] {
            resolution.push(value);
        }
        assert!((resolution.step() - 0.25).abs() < 1e-12);
        assert!((gap_share(&[0.0, 1.0, 2.0, 12.0], 2.0) - 8.0 / 12.0).abs() < 1e-12);
        assert!(gap_share(&[], 1.0).abs() < 1e-12);
    }
}
