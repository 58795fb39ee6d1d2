//! Pure: MQTT topic filters (MQTT 3.1.1, §4.7), what they capture, and the tree that finds those a
//! topic matches.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::ids::TagPath;

/// A topic filter, split into levels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    text: String,
}

impl Filter {
    /// Reads a filter as a broker takes it.
    ///
    /// Returns `None` for one that no broker would take: empty, with a wildcard inside a level, or
    /// with `#` before the end.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let levels: Vec<&str> = text.split('/').collect();
        let legal = |(place, level): (usize, &&str)| match *level {
            "+" => true,
            "#" => place + 1 == levels.len(),
            level => !level.contains(['+', '#', '\0']),
        };
        let right = !text.is_empty()
            && text.len() <= usize::from(u16::MAX)
            && levels.iter().enumerate().all(legal);
        right.then(|| Self { text: text.to_owned() })
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

/// A filter as configured for a tag: where `{asset}` or `{tag}` is a level of its own, any name may
/// stand in the topic and says whose value it is; inside a level they are the tag's own names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// With `+` where a name is captured.
    pub filter: Filter,
    /// Level of the asset's name.
    pub asset: Option<usize>,
    /// Level of the tag's name.
    pub tag: Option<usize>,
}

impl Pattern {
    /// Reads a topic as configured; `None` where [`Filter::new`] says so.
    #[must_use]
    pub fn new(text: &str, path: &TagPath) -> Option<Self> {
        let (mut asset, mut tag) = (None, None);
        let mut level_of = |(place, level): (usize, &str)| match level {
            "{asset}" if asset.is_none() => {
                asset = Some(place);
                "+".to_owned()
            }
            "{tag}" if tag.is_none() => {
                tag = Some(place);
                "+".to_owned()
            }
            level => {
                level.replace("{asset}", path.asset.as_str()).replace("{tag}", path.tag.as_str())
            }
        };
        let levels: Vec<String> = text.split('/').enumerate().map(&mut level_of).collect();
        let filter = Filter::new(&levels.join("/"))?;
        Some(Self { filter, asset, tag })
    }
}

/// Filters by level, so that the work for a topic is that of its own levels, however many filters
/// there are.
#[derive(Debug)]
pub struct Tree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    named: BTreeMap<Box<str>, usize>,
    any: Option<usize>,
    /// Of filters that end here.
    here: Vec<T>,
    /// Of filters that end with `#` here.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), any: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl<T> Tree<T> {
    /// Adds what a filter stands for.
    pub fn add(&mut self, filter: &Filter, item: T) {
        let mut place = 0;
        for level in filter.text.split('/') {
            if level == "#" {
                self.nodes[place].below.push(item);
                return;
            }
            let fresh = self.nodes.len();
            let node = &mut self.nodes[place];
            place = if level == "+" {
                *node.any.get_or_insert(fresh)
            } else if let Some(next) = node.named.get(level) {
                *next
            } else {
                node.named.insert(level.into(), fresh);
                fresh
            };
            if place == fresh {
                self.nodes.push(Node::default());
            }
        }
        self.nodes[place].here.push(item);
    }

    /// Shows what the filters that match `topic` stand for.
    pub fn find<'a>(&'a self, topic: &str, mut found: impl FnMut(&'a T)) {
        self.walk(0, Some(topic), topic.starts_with('$'), &mut found);
    }

    /// `own` at the first level of a broker's own topics, which wildcards leave alone (§4.7.2).
    fn walk<'a>(
        &'a self,
        place: usize,
        rest: Option<&str>,
        own: bool,
        found: &mut impl FnMut(&'a T),
    ) {
        let node = &self.nodes[place];
        if !own {
            // `#` stands for the parent level too.
            node.below.iter().for_each(&mut *found);
        }
        let Some(rest) = rest else {
            node.here.iter().for_each(found);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(next) = node.named.get(level) {
            self.walk(*next, rest, false, found);
        }
        if let Some(next) = node.any.filter(|_| !own) {
            self.walk(next, rest, false, found);
        }
    }
}

/// The filters to subscribe to: those that no other one covers, so that a message comes once.
#[must_use]
pub fn subscriptions(filters: &[Filter]) -> Vec<Filter> {
    let mut kept: Vec<Filter> = Vec::new();
    for filter in filters.iter().filter(|filter| !filter.is_exact()) {
        if kept.iter().any(|known| known.covers(filter)) {
            continue;
        }
        kept.retain(|known| !filter.covers(known));
        kept.push(filter.clone());
    }
    // There may be thousands of single topics; only wildcards can cover one.
    let wild = kept.len();
    let exact: BTreeSet<&Filter> = filters.iter().filter(|filter| filter.is_exact()).collect();
    for filter in exact {
        if !kept[..wild].iter().any(|known| known.covers(filter)) {
            kept.push(filter.clone());
        }
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
        Filter::new(text).unwrap()
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
            let mut tree = Tree::default();
            tree.add(&filter(text), ());
            let mut found = 0;
            tree.find(topic, |()| found += 1);
            assert_eq!(found == 1, expected, "{text} {topic}");
        }
    }

    #[test]
    fn placeholders_capture_whole_levels_and_are_own_names_inside_one() {
        let pattern = |text| Pattern::new(text, &path()).unwrap();
        let found = pattern("plant/{asset}/{tag}/state");
        assert_eq!(
            (found.filter.as_str(), found.asset, found.tag),
            ("plant/+/+/state", Some(1), Some(2))
        );
        let found = pattern("plant/{asset}-x/{tag}/{tag}");
        assert_eq!(
            (found.filter.as_str(), found.asset, found.tag),
            ("plant/P-101-x/+/vib", None, Some(2))
        );
        assert_eq!(Pattern::new("a/#/{tag}", &path()), None);
    }

    #[test]
    fn the_tree_finds_what_the_filters_match() {
        let texts = ["a/b", "a/+", "+/b", "#", "a/#", "a/b/c", "+/+/c", "a/b/#", "$x/#", "$x/+"];
        let mut tree = Tree::default();
        for text in texts {
            tree.add(&filter(text), text);
        }
        for topic in ["a", "a/b", "a/b/c", "a/b/c/d", "b/b", "$x/y", "$x", "/", "a//c", "z"] {
            let mut found = Vec::new();
            tree.find(topic, |text| found.push(*text));
            found.sort_unstable();
            let mut expected: Vec<&str> =
                texts.into_iter().filter(|text| filter(text).matches(topic)).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{topic}");
        }
    }

    #[test]
    fn illegal_filters_are_refused() {
        for text in ["", "a/b#", "#/a", "a+/b", "a/\0"] {
            assert_eq!(Filter::new(text), None, "{text:?}");
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
