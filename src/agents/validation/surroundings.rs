//! What is known around a case: rules that hold, other cases, alarms, earlier judgements.

use super::Validation;
use super::case::Case;
use super::judge::{Circumstances, Prior};
use super::memory::Memory;
use crate::domain::anomaly::{Anomaly, Fault};
use crate::domain::ids::TagId;
use crate::domain::time::Now;

impl Validation {
    pub(super) fn around(&self, now: Now, case: &Case) -> Circumstances<'_> {
        let anomaly = &case.validated.anomaly;
        let asset = &anomaly.asset;
        let of_asset = self.cases.get(asset);
        let others = of_asset.into_iter().flatten().filter(|(id, other)| {
            let other = &other.validated.anomaly;
            **id != case.id
                && other.fault == Fault::Machine
                && other.tags.first() != anomaly.tags.first()
        });
        let limits: Vec<Option<&TagId>> = self
            .limits
            .get(asset)
            .into_iter()
            .flat_map(|alarms| alarms.values().map(Option::as_ref))
            .collect();
        let first = anomaly.tags.first();
        let first_memory = first
            .and_then(|tag| self.key(asset, tag))
            .and_then(|key| self.memory.get(key.0 as usize));
        Circumstances {
            rules: self.rules.iter().filter(|rule| self.holds(rule, anomaly)).collect(),
            other_cases: others.count(),
            limit_same_tag: limits.iter().any(|tag| tag.is_some() && *tag == first),
            limit_other_tag: limits.iter().any(|tag| *tag != first),
            in_work: self.is_in_work(now, asset),
            scatter_before: first_memory.and_then(Memory::scatter),
            deviation: case.watched.first().map_or(0.0, |watched| watched.deviation),
            tags_of_asset: self.plant.tags_of(asset).filter(|tag| !tag.discrete).count(),
            prior: self.prior(anomaly),
            patience: case.patience(),
        }
    }

    pub(super) fn holds(&self, rule: &crate::config::Rule, anomaly: &Anomaly) -> bool {
        let asset = rule.assets.is_empty() || rule.assets.contains(&anomaly.asset);
        let tag = rule.tags.is_empty()
            || anomaly
                .tags
                .first()
                .is_some_and(|tag| rule.tags.iter().any(|one| one == tag.as_str()));
        let when = rule.when.as_ref().is_none_or(|condition| {
            let value = self
                .plant
                .key(&condition.tag)
                .and_then(|key| self.memory.get(key.0 as usize)?.value());
            // A condition on a tag that has no value cannot be said to hold.
            value.is_some_and(|value| {
                condition.min.is_none_or(|min| value >= min)
                    && condition.max.is_none_or(|max| value <= max)
            })
        });
        asset && tag && when
    }

    /// How far the detectors were right on the anomaly's first tag, weighed by their scores.
    pub(super) fn prior(&self, anomaly: &Anomaly) -> Prior {
        let Some(tag) = anomaly.tags.first() else { return Prior::NONE };
        let mut sum = Prior { right: 0.0, wrong: 0.0 };
        let mut weights = 0.0;
        for detector in &anomaly.detectors {
            let key = (anomaly.asset.clone(), tag.clone(), detector.detector.clone());
            let weight = detector.score.max(0.0);
            let prior = self.priors.get(&key).copied().unwrap_or(Prior::NONE);
            sum.right += weight * prior.right;
            sum.wrong += weight * prior.wrong;
            weights += weight;
        }
        if weights > 0.0 {
            Prior { right: sum.right / weights, wrong: sum.wrong / weights }
        } else {
            Prior::NONE
        }
    }
}
