//! Why a prediction says what it says, in sentences.

use super::watch::Target;
use crate::analytics::degradation::Estimate;
use crate::domain::prognosis::Explanation;
use crate::domain::tag::Tag;

/// A trend that was followed to its limit.
pub(super) fn trend(tag: &Tag, target: &Target, estimate: &Estimate) -> Explanation {
    let unit = if tag.unit.is_empty() { String::new() } else { format!(" {}", tag.unit) };
    let name = &target.tag;
    let limit = match target.iso_group {
        None => format!("the failure limit of {name} is {:.4}{unit}", target.limit),
        Some(group) => format!(
            "{name} has no failure limit of its own; {:.4}{unit} is the end of zone C of ISO 20816-3, group {group}, rigid support",
            target.limit
        ),
    };
    if estimate.health <= 0.0 {
        return Explanation {
            stage: "limit".to_owned(),
            evidence: vec![
                format!("{name} is {:.4}{unit}, beyond its limit", estimate.value),
                limit,
            ],
            peers: Vec::new(),
            would_change: vec![format!("{name} comes back, or the machine is repaired")],
        };
    }
    let seconds = estimate.as_of.since(estimate.onset).as_secs_f64().max(1.0);
    let per_hour = (estimate.value - estimate.normal) / seconds * 3600.0;
    let way = 100.0 * (1.0 - estimate.health);
    let direction = if target.upward { "rises" } else { "falls" };
    let back = if target.upward { "below" } else { "above" };
    let middle = f64::midpoint(estimate.normal, estimate.value);
    Explanation {
        stage: "trend".to_owned(),
        evidence: vec![
            format!(
                "{name} {direction} by {:.3}{unit} an hour since {} ({}), from {:.4} to {:.4}{unit}: {way:.0} % of the way to the limit",
                per_hour.abs(),
                estimate.onset,
                span(seconds),
                estimate.normal,
                estimate.value,
            ),
            format!(
                "the drift goes towards the limit with probability {:.3}; growth gets faster with probability {:.2}",
                estimate.drift_probability, estimate.accelerating
            ),
            limit,
        ],
        peers: Vec::new(),
        would_change: vec![
            format!(
                "the trend stops, or {name} comes back {back} {middle:.4}{unit}: the prediction is withdrawn"
            ),
            "the pace of wear changes: the date moves".to_owned(),
            "the machine is repaired: its next life begins".to_owned(),
        ],
    }
}

/// A time span for a sentence.
fn span(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7_200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.1} h", seconds / 3600.0)
    } else {
        format!("{:.1} d", seconds / 86_400.0)
    }
}
