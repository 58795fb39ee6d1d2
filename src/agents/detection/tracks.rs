//! One departure from the first suspicion to its end: on- and off-delay, hysteresis, and what is
//! announced of it when.

use serde::{Deserialize, Serialize};

use crate::agents::Chain;
use crate::domain::anomaly::{Fault, Pattern};
use crate::domain::ids::AssetId;
use crate::domain::severity::Severity;

/// A departure must last this long before it is announced, in seconds: five readings at one a
/// second, and a second reading in a row where they are rarer.
pub(super) const ON_DELAY: f64 = 4.0;
/// It must be over for this long before it counts as ended: `detection` reference runs and
/// ISA-18.2 (table of delays for analog points) use half a minute.
pub(super) const OFF_DELAY: f64 = 30.0;
/// It is over below this share of the limit.
pub(super) const RELEASE: f64 = 0.7;
/// While it lasts it is announced again when its severity grew or its evidence doubled, but not
/// sooner than this, in seconds.
const AGAIN_AFTER: f64 = 10.0;

/// A departure that was announced; what is written down of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    /// The asset.
    pub(super) asset: AssetId,
    /// The tag, when it is a sensor's departure.
    pub(super) tag: Option<crate::domain::ids::TagId>,
    /// The event that announced it.
    pub(super) chain: Chain,
    pub(super) fault: Fault,
    pub(super) pattern: Pattern,
    pub(super) severity: Severity,
    /// Evidence over what is allowed, when it was last announced.
    pub(super) ratio: f64,
    /// When it was last announced, in seconds of the readings' time.
    pub(super) told: f64,
}

/// A departure as it stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Track {
    /// Since when the evidence is beyond the limit.
    pub(super) above: Option<f64>,
    /// Since when it is below the release level.
    pub(super) below: Option<f64>,
    pub(super) open: Option<Open>,
}

/// What a track asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Stay,
    /// Announce it.
    Rise,
    /// It is over.
    End,
}

impl Track {
    /// The clock was set back by so many seconds.
    pub(super) fn set_back(&mut self, by: f64) {
        self.above = self.above.map(|time| time - by);
        self.below = self.below.map(|time| time - by);
        if let Some(open) = &mut self.open {
            open.told -= by;
        }
    }

    /// Takes the evidence (over what is allowed) at a time in seconds.
    pub(super) fn step(&mut self, time: f64, ratio: f64, on_delay: f64) -> Step {
        if self.open.is_none() {
            if ratio <= 1.0 {
                self.above = None;
                return Step::Stay;
            }
            let since = *self.above.get_or_insert(time);
            return if time - since >= on_delay { Step::Rise } else { Step::Stay };
        }
        if ratio >= RELEASE {
            self.below = None;
            return Step::Stay;
        }
        let since = *self.below.get_or_insert(time);
        if time - since >= OFF_DELAY {
            self.below = None;
            self.above = None;
            Step::End
        } else {
            Step::Stay
        }
    }

    /// Whether an open departure has become so much worse that it is announced again.
    pub(super) fn is_worse(&self, time: f64, ratio: f64, severity: Severity) -> bool {
        self.open.as_ref().is_some_and(|open| {
            time - open.told >= AGAIN_AFTER
                && (severity > open.severity || ratio > 2.0 * open.ratio)
        })
    }
}
