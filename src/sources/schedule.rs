//! Pure: which poll is due next on a line.
//!
//! Of the polls that are due or under way, the one whose next turn comes first goes first (earliest
//! deadline first, Liu & Layland, J. ACM 20(1), 1973), request by request, so that a slow class
//! never holds up a fast one. Units that answer go before units that have yet to show that they do.
//! A poll that could not be made in time is left out and counted: late polls are never bunched.

use std::time::Duration;

/// Window over which first polls are spread, so that a start is no burst.
const STAGGER_MAX: Duration = Duration::from_secs(1);

/// A turn that is overdue by so many periods goes by its deadline alone: on a line that is asked for
/// more than it has, units that answer must not keep others from ever being asked.
const PATIENCE: u32 = 10;

/// Who goes first, whatever the deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Rank {
    /// The unit has answered last time.
    Live,
    /// The unit has not been asked yet.
    #[default]
    Unknown,
    /// The unit has not answered: asking costs a timeout, and others wait meanwhile.
    Suspect,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The turn that is due next, or under way.
    due: Duration,
    /// Earliest moment of its next request.
    ready: Duration,
    period: Duration,
    rank: Rank,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Make the next request of this poll now.
    Run(usize),
    /// Nothing is due before then (monotonic time).
    At(Duration),
    /// There is nothing to poll.
    Never,
}

/// The polls of one line; each has a number, its place in the list it was made from.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    entries: Vec<Entry>,
}

impl Schedule {
    /// A schedule of polls with these periods, the first ones spread after `now` (monotonic).
    #[must_use]
    pub fn new(now: Duration, periods: impl ExactSizeIterator<Item = Duration>) -> Self {
        let count = f64::from(u32::try_from(periods.len()).unwrap_or(u32::MAX)).max(1.0);
        let entries = periods
            .enumerate()
            .map(|(position, period)| {
                // A period of zero would never let anything else run.
                let period = period.max(Duration::from_millis(1));
                let share = f64::from(u32::try_from(position).unwrap_or(u32::MAX)) / count;
                let due = now + period.min(STAGGER_MAX).mul_f64(share);
                Entry { due, ready: due, period, rank: Rank::default() }
            })
            .collect();
        Self { entries }
    }

    /// What to do at `now`.
    #[must_use]
    pub fn next(&self, now: Duration) -> Next {
        let ready = self.entries.iter().enumerate().filter(|(_, entry)| entry.ready <= now);
        let order = |entry: &Entry| {
            let starved = now.saturating_sub(entry.due) >= entry.period * PATIENCE;
            (if starved { Rank::Live } else { entry.rank }, entry.due + entry.period)
        };
        if let Some((poll, _)) = ready.min_by_key(|(_, entry)| order(entry)) {
            return Next::Run(poll);
        }
        self.entries.iter().map(|entry| entry.ready).min().map_or(Next::Never, Next::At)
    }

    /// When the turn of this poll was due that is under way, or is due next.
    #[must_use]
    pub fn due(&self, poll: usize) -> Duration {
        self.entries[poll].due
    }

    /// A poll was made and it is `now`: its next turn is the first one of its grid that lies ahead.
    /// Returns how many turns were left out.
    pub fn done(&mut self, poll: usize, now: Duration) -> u64 {
        let entry = &mut self.entries[poll];
        let late = now.saturating_sub(entry.due);
        let left_out = late.as_nanos() / entry.period.as_nanos();
        let left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        entry.due += entry.period.saturating_mul(left_out.saturating_add(1));
        entry.ready = entry.due;
        u64::from(left_out)
    }

    /// A poll is not to be made before `until`.
    pub fn postpone(&mut self, poll: usize, until: Duration) {
        let entry = &mut self.entries[poll];
        (entry.due, entry.ready) = (until, until);
    }

    /// A poll is to be made at `at` if its turn would come later.
    pub fn hasten(&mut self, poll: usize, at: Duration) {
        let entry = &mut self.entries[poll];
        entry.due = entry.due.min(at);
        entry.ready = entry.ready.min(at);
    }

    /// A poll under way goes on at `until`, in the same turn.
    pub fn park(&mut self, poll: usize, until: Duration) {
        self.entries[poll].ready = until;
    }

    /// From now on this poll ranks so.
    pub fn rank(&mut self, poll: usize, rank: Rank) {
        self.entries[poll].rank = rank;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn first_polls_are_spread() {
        let schedule = Schedule::new(ms(500), [ms(1000); 4].into_iter());
        let due: Vec<_> = schedule.entries.iter().map(|entry| entry.due).collect();
        assert_eq!(due, [ms(500), ms(750), ms(1000), ms(1250)]);
    }

    #[test]
    fn the_nearest_deadline_goes_first_even_before_the_rest_of_another_poll() {
        let mut schedule = Schedule::new(ms(0), [ms(60_000), ms(100)].into_iter());
        schedule.postpone(1, ms(5));
        assert_eq!(schedule.next(ms(1)), Next::Run(0), "the slow one begins");
        assert_eq!(schedule.next(ms(10)), Next::Run(1), "and is interrupted");
        assert_eq!(schedule.done(1, ms(12)), 0);
        assert_eq!(schedule.next(ms(12)), Next::Run(0), "and goes on");
        schedule.done(0, ms(20));
        assert_eq!(schedule.next(ms(20)), Next::At(ms(105)));
    }

    #[test]
    fn units_that_answer_go_before_those_that_do_not() {
        let mut schedule = Schedule::new(ms(0), [ms(100), ms(100), ms(1000)].into_iter());
        for poll in 0..3 {
            schedule.postpone(poll, ms(0));
        }
        schedule.rank(0, Rank::Suspect);
        schedule.rank(2, Rank::Live);
        assert_eq!(schedule.next(ms(1)), Next::Run(2));
        schedule.done(2, ms(1));
        assert_eq!(schedule.next(ms(1)), Next::Run(1));
        schedule.done(1, ms(1));
        assert_eq!(schedule.next(ms(1)), Next::Run(0));
    }

    #[test]
    fn on_an_overloaded_line_nobody_is_never_asked() {
        let mut schedule = Schedule::new(ms(0), [ms(100), ms(100)].into_iter());
        schedule.postpone(1, ms(0));
        schedule.rank(0, Rank::Live);
        let mut now = ms(0);
        let mut asked = 0;
        // Each request takes longer than the period: the live one is always due.
        while schedule.next(now) == Next::Run(0) {
            now += ms(110);
            schedule.done(0, now);
            schedule.hasten(0, now);
            asked += 1;
        }
        assert_eq!(schedule.next(now), Next::Run(1));
        assert!((8..12).contains(&asked), "{asked}");
    }

    #[test]
    fn a_parked_poll_keeps_its_turn() {
        let mut schedule = Schedule::new(ms(0), [ms(100), ms(100)].into_iter());
        schedule.park(0, ms(80));
        assert_eq!(schedule.next(ms(60)), Next::Run(1));
        schedule.done(1, ms(60));
        assert_eq!(schedule.next(ms(60)), Next::At(ms(80)));
        assert_eq!((schedule.due(0), schedule.next(ms(80))), (ms(0), Next::Run(0)));
        assert_eq!(schedule.done(0, ms(85)), 0);
        assert_eq!(schedule.due(0), ms(100));
    }

    #[test]
    fn missed_turns_are_counted_and_not_made_up_for() {
        let mut schedule = Schedule::new(ms(0), [ms(100)].into_iter());
        assert_eq!(schedule.next(ms(0)), Next::Run(0));
        assert_eq!(schedule.done(0, ms(350)), 3, "100, 200 and 300 are gone");
        assert_eq!(schedule.next(ms(350)), Next::At(ms(400)));
    }

    #[test]
    fn a_schedule_without_polls_never_runs() {
        assert_eq!(Schedule::default().next(ms(0)), Next::Never);
    }
}
