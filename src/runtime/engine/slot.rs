//! One stage in the engine: how it is made, guarded against its own failures, and rebuilt.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Factories;
use crate::agents::{Acquire, Mark, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::ids::Arrival;
use crate::domain::reading::{Burst, RawBatch, Reading};
use crate::domain::record::Record;
use crate::domain::time::Now;

/// A stage that sets aside this many events within [`FAILURE_WINDOW`] is switched off.
const FAILURES_MAX: usize = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(600);

#[derive(Clone, Copy)]
enum Maker {
    Acquisition(fn(&Setting) -> Box<dyn Acquire>),
    Other(fn(&Setting) -> Box<dyn Stage>),
}

enum Machine {
    Acquisition(Box<dyn Acquire>),
    Other(Box<dyn Stage>),
}

impl Maker {
    fn make(self, setting: &Setting) -> Machine {
        match self {
            Self::Acquisition(make) => Machine::Acquisition(make(setting)),
            Self::Other(make) => Machine::Other(make(setting)),
        }
    }
}

impl Machine {
    fn stage(&mut self) -> &mut dyn Stage {
        match self {
            Self::Acquisition(stage) => stage.as_mut(),
            Self::Other(stage) => stage.as_mut(),
        }
    }

    fn look(&self) -> &dyn Stage {
        match self {
            Self::Acquisition(stage) => stage.as_ref(),
            Self::Other(stage) => stage.as_ref(),
        }
    }
}

/// A stage with what the engine knows about it.
pub(super) struct Slot {
    pub(super) name: StageName,
    pub(super) setting: Setting,
    pub(super) on: bool,
    pub(super) handled: u64,
    pub(super) failures: u64,
    pub(super) last_error: Option<String>,
    /// The newest snapshot, as taken from the store or from memory.
    pub(super) saved: Option<Vec<u8>>,
    /// Last reading that the snapshot of an earlier run had seen.
    pub(super) saved_at: Arrival,
    /// No deadline is honoured before this.
    pub(super) not_before: Duration,
    maker: Maker,
    machine: Machine,
    set_aside: VecDeque<Duration>,
}

/// Makes all stages in pipeline order.
pub(super) fn make(setting: &Setting, factories: &Factories) -> Vec<Slot> {
    let first = Maker::Acquisition(factories.acquisition);
    let others = factories.others.iter().map(|make| Maker::Other(*make));
    [first]
        .into_iter()
        .chain(others)
        .map(|maker| {
            let machine = maker.make(setting);
            Slot {
                name: machine.look().name(),
                setting: setting.clone(),
                on: true,
                handled: 0,
                failures: 0,
                last_error: None,
                saved: None,
                saved_at: Arrival(0),
                not_before: Duration::ZERO,
                maker,
                machine,
                set_aside: VecDeque::new(),
            }
        })
        .collect()
}

impl Slot {
    /// Hands the stage what it had promised and learnt.
    pub(super) fn restore(&mut self, now: Now, records: &[Record]) -> Result<(), StageError> {
        let saved = Saved { records, snapshot: self.saved.as_deref() };
        let machine = &mut self.machine;
        caught(|| machine.stage().restore(now, saved))
    }

    /// Makes the stage anew from its records and newest snapshot.
    pub(super) fn rebuild(&mut self, now: Now, records: &[Record]) -> Result<(), StageError> {
        let (maker, setting) = (self.maker, &self.setting);
        let mut made = None;
        caught(|| {
            made = Some(maker.make(setting));
            Ok(())
        })?;
        self.machine = made.expect("making a stage either panics or gives one");
        self.restore(now, records)
    }

    /// Calls the stage; a panic counts as an error.
    pub(super) fn call(
        &mut self,
        out: &mut Outbox<'_>,
        call: &mut dyn FnMut(&mut dyn Stage, &mut Outbox<'_>) -> Result<(), StageError>,
    ) -> Result<(), StageError> {
        let machine = &mut self.machine;
        let result = caught(|| call(machine.stage(), out));
        match &result {
            Ok(()) => self.handled += 1,
            Err(error) => {
                self.failures += 1;
                self.last_error = Some(error.what.clone());
            }
        }
        result
    }

    /// Judges raw values; only the acquisition stage can.
    pub(super) fn judge(
        &mut self,
        now: Now,
        batch: &RawBatch,
        readings: &mut Vec<Reading>,
    ) -> Result<(), StageError> {
        let Machine::Acquisition(stage) = &mut self.machine else {
            return Err(StageError::new("only acquisition judges raw values"));
        };
        let result = caught(|| {
            stage.judge(now, batch, readings);
            Ok(())
        });
        if let Err(error) = &result {
            self.failures += 1;
            self.last_error = Some(error.what.clone());
        }
        result
    }

    /// What is to be known of the readings judged last.
    pub(super) fn marks(&self) -> &[Mark] {
        match &self.machine {
            Machine::Acquisition(stage) => stage.marks(),
            Machine::Other(_) => &[],
        }
    }

    /// The bursts of the batch judged last.
    pub(super) fn take_bursts(&mut self) -> Vec<Burst> {
        match &mut self.machine {
            Machine::Acquisition(stage) => stage.take_bursts(),
            Machine::Other(_) => Vec::new(),
        }
    }

    /// When the stage wants to be woken.
    pub(super) fn wakes(&self) -> Option<Duration> {
        self.machine.look().next_deadline().map(|at| at.max(self.not_before))
    }

    /// Takes a copy of what the stage has learnt, for the next rebuilding.
    pub(super) fn keepsake(&mut self) {
        let machine = &self.machine;
        let taken = catch_unwind(AssertUnwindSafe(|| machine.look().snapshot()));
        if let Ok(Some(bytes)) = taken {
            self.saved = Some(bytes);
        }
    }

    /// Counts an event set aside; true when the stage has now set aside too many.
    pub(super) fn count_set_aside(&mut self, now: Now) -> bool {
        self.set_aside.push_back(now.mono);
        while self.set_aside.front().is_some_and(|at| *at + FAILURE_WINDOW < now.mono) {
            self.set_aside.pop_front();
        }
        self.set_aside.len() >= FAILURES_MAX
    }

    /// Begins counting anew, after a person has switched the stage on again.
    pub(super) fn forgive(&mut self) {
        self.set_aside.clear();
        self.on = true;
    }
}

fn caught(call: impl FnOnce() -> Result<(), StageError>) -> Result<(), StageError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panicked without a message".to_owned());
        Err(StageError { what })
    })
}
