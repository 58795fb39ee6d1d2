//! Tags that say nothing for longer than was agreed: told as a condition, and when it ends.

use std::time::Duration;

use crate::agents::Outbox;
use crate::domain::event::Body;
use crate::domain::ids::{TagKey, TagPath};
use crate::domain::severity::Severity;
use crate::domain::tag::Plant;
use crate::domain::time::Now;

/// How often silence is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The tags whose silence is told.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    watched: Vec<Watched>,
    next: Option<Duration>,
}

#[derive(Debug, Clone)]
struct Watched {
    key: TagKey,
    path: TagPath,
    patience: Duration,
    /// When it was last heard, on the monotonic clock; none before the first look.
    heard: Option<Duration>,
    told: bool,
}

impl Gaps {
    /// The tags of a plant that have a `gap`; those of `old` go on as they were.
    pub(super) fn of(plant: &Plant, old: Option<&Self>) -> Self {
        let watched: Vec<Watched> = plant
            .tags()
            .filter_map(|tag| {
                let patience = tag.handling.gap?;
                let before =
                    old.and_then(|old| old.watched.iter().find(|before| before.path == tag.path));
                Some(Watched {
                    key: tag.key,
                    path: tag.path.clone(),
                    patience,
                    heard: before.and_then(|before| before.heard),
                    told: before.is_some_and(|before| before.told),
                })
            })
            .collect();
        let next = (!watched.is_empty()).then_some(Duration::ZERO);
        Self { watched, next }
    }

    /// Where a tag stands among the watched ones.
    pub(super) fn place(&self, key: TagKey) -> Option<usize> {
        self.watched.iter().position(|watched| watched.key == key)
    }

    /// Something came of the tag in this place.
    pub(super) fn heard(&mut self, place: usize, now: Now) {
        if let Some(watched) = self.watched.get_mut(place) {
            watched.heard = Some(now.mono);
        }
    }

    /// When [`Self::look`] wants to be called.
    pub(super) const fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Tells silences that began or ended.
    pub(super) fn look(&mut self, now: Now, out: &mut Outbox<'_>) {
        if self.watched.is_empty() {
            return;
        }
        self.next = Some(now.mono + LOOK_EVERY);
        for watched in &mut self.watched {
            // Patience begins with the first look: nothing can have been heard before.
            let heard = *watched.heard.get_or_insert(now.mono);
            let silent = now.mono.saturating_sub(heard) >= watched.patience;
            if silent == watched.told {
                continue;
            }
            watched.told = silent;
            let message = if silent {
                format!("{} has brought no value for {:?}", watched.path, watched.patience)
            } else {
                format!("{} brings values again", watched.path)
            };
            out.emit_first(Body::Condition {
                condition: "tag-silent".to_owned(),
                subject: watched.path.to_string(),
                active: silent,
                severity: Severity::Medium,
                message,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::IdSource;
    use crate::domain::ids::{AssetId, TagId};
    use crate::domain::time::Timestamp;

    #[test]
    fn silence_is_told_once_and_its_end_too() {
        let path = TagPath { asset: AssetId::new("P-1").unwrap(), tag: TagId::new("t").unwrap() };
        let watched = Watched {
            key: TagKey(1),
            path,
            patience: Duration::from_secs(10),
            heard: None,
            told: false,
        };
        let mut gaps = Gaps { watched: vec![watched], next: Some(Duration::ZERO) };
        let mut ids = IdSource::new(1);
        let mut told = Vec::new();
        for second in 0..60 {
            let now = Now {
                mono: Duration::from_secs(second),
                utc: Timestamp::from_micros(0),
                trusted: true,
            };
            if (20..30).contains(&second) {
                gaps.heard(0, now);
            }
            let mut out = Outbox::new(now, &mut ids, None);
            gaps.look(now, &mut out);
            for event in out.events {
                let Body::Condition { active, .. } = event.body else { panic!("{event}") };
                told.push((second, active));
            }
        }
        assert_eq!(told, [(10, true), (20, false), (39, true)]);
    }
}
