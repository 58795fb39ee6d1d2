//! What is announced of a departure: the event, and the row that remembers it.

use super::Context;
use super::tracks::{Open, Track};
use crate::agents::Chain;
use crate::analytics::calibrate::bounded;
use crate::domain::anomaly::{Anomaly, DetectorScore, Evidence, Fault, Pattern};
use crate::domain::event::{Body, Phase};
use crate::domain::ids::AssetId;
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

/// Evidence this many times beyond the limit is severe: twice the distance.
const SEVERE: f64 = 4.0;
/// What is left of doubt at the limit itself. Calibrated so that a departure a quarter beyond it
/// counts as credible (0.7 and more) by itself.
const DOUBT: f64 = 0.35;

/// What is to be said of a departure.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) fault: Fault,
    pub(super) pattern: Pattern,
    pub(super) detectors: Vec<DetectorScore>,
    pub(super) ratio: f64,
    /// Time of the readings, in seconds.
    pub(super) since: f64,
    pub(super) time: f64,
    pub(super) evidence: Vec<Evidence>,
}

/// How bad a departure would be. A sensor's is worth a look when somebody is there; a machine's
/// within days, sooner when it is large or the plant depends on the machine.
pub(super) fn severity(fault: Fault, ratio: f64, criticality: u8) -> Severity {
    match fault {
        Fault::Sensor if criticality >= 4 => Severity::Medium,
        Fault::Sensor => Severity::Low,
        Fault::Machine => match (criticality, ratio >= SEVERE) {
            (5.., true) => Severity::Critical,
            (3.., true) | (4.., false) => Severity::High,
            (1 | 2, false) => Severity::Low,
            _ => Severity::Medium,
        },
    }
}

/// Seconds since 1970 as a moment.
pub(super) fn moment(seconds: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "saturates at the ends of the range")]
    Timestamp::from_micros((seconds * 1e6).round() as i64)
}

impl Context<'_, '_> {
    /// Announces a departure, or, with `chain`, says more of one that was announced. Returns what
    /// is to be remembered.
    pub(super) fn announce(
        &mut self,
        asset: &AssetId,
        criticality: u8,
        note: Note,
        chain: Option<Chain>,
    ) -> Option<Open> {
        if self.quiet {
            return None;
        }
        let severity = severity(note.fault, note.ratio, criticality);
        let tags = note.evidence.iter().map(|evidence| evidence.tag.clone()).collect::<Vec<_>>();
        let tag = (note.fault == Fault::Sensor).then(|| tags.first().cloned()).flatten();
        let anomaly = Anomaly {
            asset: asset.clone(),
            tags,
            fault: note.fault,
            pattern: note.pattern,
            detectors: note.detectors,
            score: bounded(note.ratio),
            confidence: (1.0 - DOUBT / note.ratio.max(1.0)).clamp(0.0, 1.0),
            severity,
            evidence: note.evidence,
            since: moment(note.since),
        };
        let body = Body::AnomalyDetected(anomaly);
        let chain = match chain {
            Some(chain) => {
                self.out.emit_from(chain, body);
                chain
            }
            None => {
                let id = self.out.emit_first(body);
                Chain { cause: id, correlation: id }
            }
        };
        let open = Open {
            asset: asset.clone(),
            tag,
            chain,
            fault: note.fault,
            pattern: note.pattern,
            severity,
            ratio: note.ratio,
            told: note.time,
        };
        self.out.save(record(self.now.utc, &open, true));
        Some(open)
    }

    /// Announces that a departure has ended.
    pub(super) fn end(&mut self, track: &mut Track) {
        if let Some(open) = track.open.take() {
            self.out.save(record(self.now.utc, &open, false));
            let body = Body::AnomalyEnded { asset: open.asset, anomaly: open.chain.cause };
            self.out.emit_from(open.chain, body);
        }
    }

    /// Announces how far an asset is learnt.
    pub(super) fn phase_changed(&mut self, asset: &AssetId, phase: Phase, reasons: Vec<String>) {
        self.out.emit_first(Body::PhaseChanged { asset: asset.clone(), phase, reasons });
    }
}

fn record(time: Timestamp, open: &Open, is_open: bool) -> Record {
    Record::new(RecordKind::Departure, open.chain.cause, time, open)
        .about(&open.asset)
        .in_state(if is_open { "open" } else { "over" }, is_open)
}
