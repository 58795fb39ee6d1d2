//! Pure: MQTT topic filters (MQTT 3.1.1, §4.7).

use crate::domain::ids::TagPath;

/// A topic filter, split into levels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    text: String,
}

impl Filter {
    /// Reads a filter as configured for a tag; `{asset}` and `{tag}` stand for the tag's own names.
    ///
    /// Returns `None` for one that no broker would take: empty, with a wildcard inside a level, or
    /// with `#` before the end.
    #[must_use]
    pub fn new(text: &str, path: &TagPath) -> Option<Self> {
        let text = text.replace("{asset}", path.asset.as_str()).replace("{tag}", path.tag.as_str());
        let levels: Vec<&str> = text.split('/').collect();
        let legal = |(place, level): (usize, &&str)| match *level {
            "+" => true,
            "#" => place + 1 == levels.len(),
            level => !level.contains(['+', '#', '\0']),
        };
        let right = !text.is_empty()
            && text.len() <= usize::from(u16::MAX)
            && levels.iter().enumerate().all(legal);
        right.then_some(Self { text })
    }

    /// The filter as a broker takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has no wildcard, so that it names one topic.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.text.contains(['+', '#'])
    }

    /// Whether messages on `topic` are for this filter.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        // Wildcards at the first level leave a broker's own topics alone (§4.7.2).
        if topic.starts_with('$') && self.text.starts_with(['+', '#']) {
            return false;
        }
        matches(&self.text, topic, false)
    }

    /// Whether every topic of `other` is one of this filter's.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        if other.text.starts_with('$') && self.text.starts_with(['+', '#']) {
            return false;
        }
        matches(&self.text, &other.text, true)
    }
}

fn matches(filter: &str, topic: &str, topic_is_filter: bool) -> bool {
    let mut levels = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            // It stands for the parent level too, so the rest may be empty.
            return true;
        }
        match levels.next() {
            Some("#") if topic_is_filter => return false,
            Some(_) if level == "+" => {}
            Some(name) if name == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

/// The filters to subscribe to: those that no other one covers, so that a message comes once.
#[must_use]
pub fn subscriptions(filters: &[Filter]) -> Vec<Filter> {
    let mut kept: Vec<Filter> = Vec::new();
    for filter in filters {
        if kept.iter().any(|known| known.covers(filter)) {
            continue;
        }
        kept.retain(|known| !filter.covers(known));
        kept.push(filter.clone());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{AssetId, TagId};

    fn path() -> TagPath {
        TagPath { asset: AssetId::new("P-101").unwrap(), tag: TagId::new("vib").unwrap() }
    }

    fn filter(text: &str) -> Filter {
        Filter::new(text, &path()).unwrap()
    }

    #[test]
    fn wildcards_match_as_the_standard_says() {
        for (text, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a/b", true),
            ("#", "$SYS/uptime", false),
            ("+/uptime", "$SYS/uptime", false),
            ("$SYS/#", "$SYS/uptime", true),
            ("+/+", "/x", true),
            ("a//b", "a//b", true),
        ] {
            assert_eq!(filter(text).matches(topic), expected, "{text} {topic}");
        }
    }

    #[test]
    fn placeholders_are_the_tags_own_names() {
        assert_eq!(filter("plant/{asset}/{tag}").as_str(), "plant/P-101/vib");
    }

    #[test]
    fn illegal_filters_are_refused() {
        for text in ["", "a/b#", "#/a", "a+/b", "a/\0"] {
            assert_eq!(Filter::new(text, &path()), None, "{text:?}");
        }
    }

    #[test]
    fn covered_filters_are_not_subscribed_to() {
        let filters = ["a/b", "a/+", "a/#", "b/+/c", "b/x/c", "b/#", "c"].map(filter);
        let kept: Vec<_> =
            subscriptions(&filters).iter().map(|filter| filter.text.clone()).collect();
        assert_eq!(kept, ["a/#", "b/#", "c"]);
        assert!(!filter("a/+").covers(&filter("a/#")));
        assert!(filter("#").covers(&filter("+/a")));
    }
}
