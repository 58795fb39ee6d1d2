//! Whose trouble a departure is, what it looks like, and what speaks for it.

use super::super::announce;
use super::{
    AssetWatch, COMPANY, DRIFT_TIME, FORETOLD, OTHERS_WELL, ROBUST_LIMIT, STEP_MEMORY, score,
};
use crate::domain::anomaly::{Evidence, Fault, Pattern};

impl AssetWatch {
    /// The channel whose sensor is to blame: it has departed alone while its company is well, no
    /// person has said that a failure of the machine would show just there, and either it stepped
    /// as no machine does, or the others foretell it well and deny it. A slow departure of a tag
    /// that goes its own way is the machine's until somebody has looked.
    pub(super) fn lone(&self, time: f64, shared: Option<Pattern>) -> Option<usize> {
        if shared.is_some() || self.cloud.taking_part() < COMPANY {
            return None;
        }
        let index = self.cloud.parts().first()?.column;
        let channel = &self.channels[index];
        if channel.has_failure_limit() || self.cloud.ratio_without(index)? >= OTHERS_WELL {
            return None;
        }
        let abrupt = time - channel.stepped_at < STEP_MEMORY;
        let denied = self.cloud.foretold(index).is_some_and(|share| share > FORETOLD);
        (abrupt || denied).then_some(index)
    }

    /// What is to be said of the machine's departure.
    pub(super) fn note(
        &self,
        time: f64,
        ratio: f64,
        fault: Fault,
        shared: Option<Pattern>,
    ) -> announce::Note {
        let parts = self.cloud.parts();
        let mut evidence: Vec<Evidence> =
            parts.iter().take(3).map(|part| self.evidence(part.column, part.share)).collect();
        if let Some(pattern) = shared {
            // What the suspicious sensors say leads.
            let mut by_sensor: Vec<(usize, f64)> = self
                .suspicions
                .iter()
                .enumerate()
                .filter_map(|(i, s)| s.filter(|s| s.pattern == pattern).map(|s| (i, s.ratio)))
                .collect();
            by_sensor.sort_by(|a, b| b.1.total_cmp(&a.1));
            let total: f64 = by_sensor.iter().map(|(_, ratio)| ratio).sum();
            evidence =
                by_sensor.iter().take(3).map(|(i, r)| self.evidence(*i, r / total)).collect();
        }
        let far = parts.iter().any(|part| part.far > 3.0);
        let onset = self.onset.unwrap_or(time);
        let pattern = match shared {
            Some(pattern) => pattern,
            None if !far => Pattern::Shape,
            None if time - onset > DRIFT_TIME => Pattern::Drift,
            None if fault == Fault::Sensor => Pattern::Offset,
            None => Pattern::Level,
        };
        let mut detectors = Vec::new();
        if let Some(pattern) = shared {
            detectors.push(score(pattern.as_str(), ratio));
        }
        detectors.push(score("multivariate", self.cloud.last_ratio()));
        if let Some(single) = self.cloud.single(&self.row) {
            detectors.push(score("pca-t2", single.t2));
            detectors.push(score("pca-spe", single.spe));
        }
        let robust = evidence.iter().map(|e| e.sigma.abs()).fold(0.0, f64::max);
        detectors.push(score("robust", robust / ROBUST_LIMIT));
        let since = self.track.above.unwrap_or(time).min(onset);
        announce::Note { fault, pattern, detectors, ratio, since, time, evidence }
    }

    pub(super) fn evidence(&self, index: usize, contribution: f64) -> Evidence {
        let channel = &self.channels[index];
        let (expected, sigma) = self.cloud.expected(index).unwrap_or((channel.value, 0.0));
        Evidence {
            tag: channel.tag.path.tag.clone(),
            value: channel.value,
            expected,
            sigma,
            contribution,
        }
    }
}
