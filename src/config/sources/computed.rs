//! `[[computed]]`: tags that are worked out from other tags.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Taken, shared_of};
use crate::config::TagConfig;
use crate::config::mistake::Place;
use crate::config::parse::Declared;
use crate::config::tree::{Section, nearest};
use crate::domain::expression::{self, Expression};
use crate::domain::ids::TagPath;

/// One tag that is worked out from others.
#[derive(Debug, Clone, PartialEq)]
pub struct ComputedTag {
    /// What all tags share; scale and offset change nothing.
    pub tag: TagConfig,
    /// How.
    pub expression: Expression,
    /// How often a value is expected: as often as the quickest tag it rests on, where known.
    pub period: Option<Duration>,
}

impl ComputedTag {
    /// The full names of the tags it rests on, in the order of [`Expression::inputs`].
    pub fn inputs(&self) -> impl Iterator<Item = TagPath> + '_ {
        self.expression.inputs().iter().map(|name| name.path(&self.tag.path.asset))
    }
}

/// `[[computed]]`, so ordered that a tag comes after those it rests on. `periods`: of the tags of
/// all sources, where known.
pub(in crate::config) fn computed(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
    mut periods: BTreeMap<TagPath, Duration>,
) -> Vec<ComputedTag> {
    let tables = root.tables("computed");
    let mut waiting: Vec<(ComputedTag, &Section<'_>)> = Vec::new();
    for table in &tables {
        for key in ["scale", "offset", "invalid"] {
            if table.has(key) {
                table
                    .wrong(key, "belongs to values as a device sends them; write it as arithmetic");
            }
        }
        let tag = shared_of(table, "[[computed]]", false, declared, taken);
        let expression = table.need("expression", |text| {
            expression::parse(text).map_err(|error| format!("`{text}`, {error}"))
        });
        table.finish();
        if let (Some(tag), Some(expression)) = (tag, expression) {
            if expression.inputs().is_empty() {
                table.wrong("expression", "names no tag: it would never get a value");
            }
            waiting.push((ComputedTag { tag, expression, period: None }, table));
        }
    }
    let known: Vec<String> = declared.tags.iter().map(ToString::to_string).collect();
    for (tag, table) in &waiting {
        for path in tag.inputs().filter(|path| !declared.tags.contains(path)) {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = nearest(&path.to_string(), &names)
                .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
            table.wrong("expression", format!("there is no tag `{path}`{near}"));
        }
    }
    let mut ordered: Vec<ComputedTag> = Vec::new();
    loop {
        let open: BTreeSet<TagPath> = waiting.iter().map(|(tag, _)| tag.tag.path.clone()).collect();
        let before = waiting.len();
        waiting.retain(|(tag, _)| {
            if tag.inputs().any(|path| open.contains(&path)) {
                return true;
            }
            let period = tag.inputs().filter_map(|path| periods.get(&path).copied()).min();
            if let Some(period) = period {
                periods.insert(tag.tag.path.clone(), period);
            }
            ordered.push(ComputedTag { period, ..tag.clone() });
            false
        });
        if waiting.len() == before {
            break;
        }
    }
    for (tag, table) in &waiting {
        let at: &Place = table.place("expression");
        let what = format!("`{}` rests on itself, directly or by way of others", tag.tag.path);
        table.wrong_at(at, "expression", what);
    }
    ordered
}
