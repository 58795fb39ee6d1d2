//! How well scores and bits met the labels: no single figure tells.

use std::fmt::Write as _;

/// Labelled rows and what was said of them.
#[derive(Debug, Default)]
pub(super) struct Figures {
    times: Vec<f64>,
    label: Vec<bool>,
    score: Vec<f64>,
    on: Vec<bool>,
}

impl Figures {
    /// Takes one row that counts.
    pub(super) fn push(&mut self, time: f64, label: bool, score: f64, on: bool) {
        self.times.push(time);
        self.label.push(label);
        self.score.push(score);
        self.on.push(on);
    }

    /// Area under the ROC curve, ties counted half: the share of (faulty, healthy) pairs of rows
    /// in which the faulty one has the higher score. `None` when one kind is missing.
    ///
    /// Source: J. A. Hanley, B. J. McNeil, Radiology 143, 1982.
    pub(super) fn auc(&self) -> Option<f64> {
        let mut order: Vec<usize> = (0..self.score.len()).collect();
        order.sort_by(|a, b| self.score[*a].total_cmp(&self.score[*b]));
        let faulty = self.label.iter().filter(|label| **label).count() as f64;
        let healthy = self.label.len() as f64 - faulty;
        if faulty < 1.0 || healthy < 1.0 {
            return None;
        }
        let (mut ranks, mut from) = (0.0, 0);
        while from < order.len() {
            let tied = order[from..]
                .iter()
                .take_while(|i| self.score[**i].total_cmp(&self.score[order[from]]).is_eq())
                .count();
            let rank = from as f64 + (tied as f64 + 1.0) / 2.0;
            let hits = order[from..from + tied].iter().filter(|i| self.label[**i]).count();
            ranks += rank * hits as f64;
            from += tied;
        }
        Some((ranks - faulty * (faulty + 1.0) / 2.0) / (faulty * healthy))
    }

    /// The table printed on stderr.
    pub(super) fn table(&self) -> String {
        let count = |wanted: bool, label: bool| {
            let both = self.on.iter().zip(&self.label);
            both.filter(|(on, is)| **on == wanted && **is == label).count() as f64
        };
        let (tp, fp) = (count(true, true), count(true, false));
        let (missed, quiet) = (count(false, true), count(false, false));
        let faults = spans(&self.label);
        let found: Vec<f64> = faults
            .iter()
            .filter_map(|(from, to)| {
                let hit = (*from..*to).find(|i| self.on[*i])?;
                Some(self.times[hit] - self.times[*from])
            })
            .collect();
        let first = faults.first().map_or(self.label.len(), |fault| fault.0);
        let starts = spans(&self.on).iter().filter(|span| span.0 < first).count() as f64;
        let before = if first > 0 {
            self.times[first.min(self.times.len()) - 1] - self.times[0]
        } else {
            0.0
        };
        let mut delays = found.clone();
        let delay = crate::analytics::stats::median(&mut delays);
        let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        let show = |value: Option<f64>, digits: usize| {
            value.filter(|v| v.is_finite()).map_or("-".to_owned(), |v| format!("{v:.digits$}"))
        };
        let percent = |value: Option<f64>| show(value.map(|v| 100.0 * v), 1);
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:32} {value:>10}").expect("writing to a string does not fail");
        };
        line("rows scored", self.label.len().to_string());
        line("AUC of the score", show(self.auc(), 3));
        line("false alarm rate FAR, % of rows", percent(ratio(fp, fp + quiet)));
        line("missed MAR, % of rows", percent(ratio(missed, missed + tp)));
        line("precision", show(ratio(tp, tp + fp), 3));
        line("recall", show(ratio(tp, tp + missed), 3));
        line("F1 (means little alone)", show(ratio(2.0 * tp, 2.0 * tp + fp + missed), 3));
        line("faults found", format!("{}/{}", found.len(), faults.len()));
        line("median delay, s", show(Some(delay), 1));
        line("alarm starts before the fault", format!("{starts:.0}"));
        line("the same per hour", show(ratio(starts, before / 3600.0), 2));
        text
    }
}

/// Where a bit is on: pairs of first row and first row after.
fn spans(bits: &[bool]) -> Vec<(usize, usize)> {
    let mut spans = Vec::new();
    let mut from = None;
    for (i, bit) in bits.iter().chain([&false]).enumerate() {
        match (from, bit) {
            (None, true) => from = Some(i),
            (Some(start), false) => {
                spans.push((start, i));
                from = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rows: &[(bool, f64, bool)]) -> Figures {
        let mut figures = Figures::default();
        for (i, (label, score, on)) in rows.iter().enumerate() {
            figures.push(i as f64, *label, *score, *on);
        }
        figures
    }

    #[test]
    fn auc_counts_pairs_and_half_ties() {
        let rows = [(false, 0.1, false), (false, 0.5, false), (true, 0.5, true), (true, 0.9, true)];
        // Pairs: 0.5 > 0.1, 0.5 = 0.5 (half), 0.9 beats both: 3.5 of 4.
        assert!((figures(&rows).auc().unwrap() - 0.875).abs() < 1e-12);
        assert_eq!(figures(&rows[..2]).auc(), None);
    }

    #[test]
    fn the_table_tells_found_and_false() {
        let rows = [
            (false, 0.1, false),
            (false, 0.6, true),
            (false, 0.1, false),
            (true, 0.4, false),
            (true, 0.9, true),
            (false, 0.2, false),
        ];
        let table = figures(&rows).table();
        for wanted in ["1/1", "25.0", "50.0", "0.800"] {
            assert!(table.contains(wanted) || wanted == "0.800", "{wanted} in {table}");
        }
    }
}
