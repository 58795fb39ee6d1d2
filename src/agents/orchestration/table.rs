//! The decision table: from urgency, confidence, criticality and severity to an action.

use std::time::Duration;

use crate::config::DecisionRow;
use crate::domain::event::Action;
use crate::domain::severity::{Criticality, Severity};

/// What is known when an action is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Situation {
    /// Median time to the limit in seconds; none when there is no prediction.
    pub p50: Option<f64>,
    /// Confidence of the validated anomaly.
    pub confidence: f64,
    /// Of the asset.
    pub criticality: Criticality,
    /// Of the anomaly.
    pub severity: Severity,
}

/// The action of the first row that matches, and why, in words. Orders for assets from
/// `person_from` on need a person, whatever the table says.
pub(super) fn choose(
    rows: &[DecisionRow],
    person_from: Criticality,
    situation: Situation,
) -> (Action, String) {
    let Situation { p50, confidence, criticality, severity } = situation;
    let known = p50.map_or_else(
        || "no time to the limit is known".to_owned(),
        |p50| format!("the limit is about {} away", span(p50)),
    );
    let facts = format!(
        "{known}, confidence {confidence:.2}, criticality {}, severity {severity}",
        criticality.level()
    );
    let row = rows.iter().enumerate().find(|(_, row)| {
        let urgent = match (row.within, p50) {
            (None, _) => true,
            (Some(within), Some(p50)) => p50 <= within.as_secs_f64(),
            (Some(_), None) => false,
        };
        urgent
            && confidence >= row.min_confidence
            && criticality.level() >= row.min_criticality
            && severity >= row.min_severity
    });
    match row {
        None => (Action::Watch, format!("{facts}: no row of the decision table matches")),
        Some((index, row)) => {
            let number = index + 1;
            if row.action == Action::Act && criticality >= person_from {
                let level = person_from.level();
                (
                    Action::Ask,
                    format!(
                        "{facts}: decision row {number}; from criticality {level} on a person decides"
                    ),
                )
            } else {
                (row.action, format!("{facts}: decision row {number}"))
            }
        }
    }
}

/// How urgent a median time to the limit is.
pub(super) fn urgency(p50: f64) -> Severity {
    const DAY: f64 = 86_400.0;
    if p50 <= DAY {
        Severity::Critical
    } else if p50 <= 7.0 * DAY {
        Severity::High
    } else if p50 <= 30.0 * DAY {
        Severity::Medium
    } else {
        Severity::Low
    }
}

/// A time span for a sentence.
pub(super) fn span(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO).as_secs();
    match span {
        0..120 => format!("{span} s"),
        120..7_200 => format!("{} min", span / 60),
        7_200..172_800 => format!("{} h", span / 3600),
        _ => format!("{} d", span / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(within: Option<u64>, min_confidence: f64, action: Action) -> DecisionRow {
        DecisionRow {
            within: within.map(Duration::from_secs),
            min_confidence,
            min_criticality: 2,
            min_severity: Severity::Medium,
            action,
        }
    }

    #[test]
    fn the_first_row_that_matches_counts() {
        let rows = [
            row(Some(100), 0.9, Action::Act),
            row(Some(100), 0.5, Action::Ask),
            row(None, 0.8, Action::Ask),
        ];
        let check = |p50, confidence, criticality, severity, expected| {
            let criticality = Criticality::new(criticality).unwrap();
            let situation = Situation { p50, confidence, criticality, severity };
            let (action, reason) = choose(&rows, Criticality::new(4).unwrap(), situation);
            assert_eq!(action, expected, "{reason}");
        };
        check(Some(50.0), 0.95, 3, Severity::High, Action::Act);
        check(Some(50.0), 0.95, 4, Severity::High, Action::Ask);
        check(Some(50.0), 0.6, 3, Severity::High, Action::Ask);
        check(Some(500.0), 0.6, 3, Severity::High, Action::Watch);
        check(None, 0.85, 3, Severity::High, Action::Ask);
        check(None, 0.7, 3, Severity::High, Action::Watch);
        check(Some(50.0), 0.95, 1, Severity::High, Action::Watch);
        check(Some(50.0), 0.95, 3, Severity::Low, Action::Watch);
    }
}
