//! Remaining life by likeness: where did units that failed look like this one looks now?
//!
//! Source: T. Wang, J. Yu, D. Siegel, J. Lee, "A similarity-based prognostics approach for remaining
//! useful life estimation", PHM 2008.

use serde::{Deserialize, Serialize};

/// Points of the health line that are compared, one a [`STRIDE`].
pub(super) const POINTS: usize = 20;
/// Rows between points.
pub(super) const STRIDE: usize = 3;
/// Points kept of one peer at most; longer lives are thinned.
const KEPT_MAX: usize = 2000;

/// The health line of one failed unit, one point every [`STRIDE`] rows, counted from the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Peer {
    line: Vec<f32>,
    /// Remaining life at each point, on the model's scale.
    rest: Vec<f32>,
}

/// Failed peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Similar {
    peers: Vec<Peer>,
    /// Variance of the line round its course.
    noise: f32,
}

impl Similar {
    /// Remembers units: each its line (a slow mean, one value a row) and its targets.
    #[expect(clippy::cast_possible_truncation, reason = "a line needs no more digits")]
    pub(super) fn fit<'a>(units: impl Iterator<Item = (&'a [f64], &'a [f64])>) -> Self {
        let (mut peers, mut steps) = (Vec::new(), Vec::new());
        for (line, rest) in units {
            let mut peer = Peer { line: Vec::new(), rest: Vec::new() };
            let first = (line.len() - 1) % STRIDE;
            for at in (first..line.len()).step_by(STRIDE) {
                if line[at].is_finite() {
                    peer.line.push(line[at] as f32);
                    peer.rest.push(rest[at] as f32);
                }
            }
            let from = peer.line.len().saturating_sub(KEPT_MAX);
            peer.line.drain(..from);
            peer.rest.drain(..from);
            let moved = peer.line.windows(2).map(|pair| f64::from(pair[1] - pair[0]).powi(2));
            steps.extend(moved);
            peers.push(peer);
        }
        let noise = crate::analytics::stats::median(&mut steps).max(1e-9) as f32;
        Self { peers, noise }
    }

    /// The expected remaining life, on the model's scale, of a unit whose newest points are
    /// `recent` (oldest first, [`STRIDE`] rows apart). `None` without points.
    pub(super) fn estimate(&self, recent: &[f64]) -> Option<f64> {
        if recent.is_empty() {
            return None;
        }
        let mut found = Vec::new();
        for peer in &self.peers {
            for end in recent.len().min(peer.line.len())..=peer.line.len() {
                let compared = recent.iter().rev().zip(peer.line[..end].iter().rev());
                let apart: f64 = compared.map(|(a, b)| (a - f64::from(*b)).powi(2)).sum();
                let apart = apart / recent.len().min(end).max(1) as f64;
                if end > 0 {
                    found.push((
                        apart / (2.0 * f64::from(self.noise)),
                        f64::from(peer.rest[end - 1]),
                    ));
                }
            }
        }
        // The nearest counts fully whatever its distance, so that the weights never vanish.
        let nearest = found.iter().map(|(apart, _)| *apart).fold(f64::INFINITY, f64::min);
        let (mut sum, mut weights) = (0.0, 0.0);
        for (apart, rest) in found {
            let weight = (nearest - apart).exp();
            sum += weight * rest;
            weights += weight;
        }
        (weights > 0.0).then(|| sum / weights)
    }

    pub(super) fn is_sound(&self) -> bool {
        !self.peers.is_empty() && self.peers.iter().all(|peer| peer.line.len() == peer.rest.len())
    }
}
