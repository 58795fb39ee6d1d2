//! Where readings come from: `[[modbus]]`, `[[mqtt]]`, and what their tags share.

mod computed;
mod modbus;
mod modbus_link;
mod mqtt;
mod point;
mod polling;
mod quality;
mod replay;

pub use computed::ComputedTag;
pub(super) use computed::computed;
pub(super) use modbus::modbus;
pub(super) use modbus_link::url as modbus_url;
pub(super) use mqtt::mqtt;
pub use polling::{Optimization, Polling};
pub(super) use replay::replay;
pub use replay::{ReplaySource, ReplayTag};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::domain::ids::{SourceId, TagPath};
use crate::domain::tag::Limits;

use super::parse::Declared;
use super::tree::Section;
use super::{TagConfig, values};

/// Fastest poll.
const POLL_LEAST: Duration = Duration::from_millis(100);

/// Names that are given away already.
#[derive(Debug, Default)]
pub(in crate::config) struct Taken {
    sources: BTreeSet<SourceId>,
    /// Which source declared a tag.
    tags: BTreeMap<TagPath, String>,
}

impl Taken {
    fn source(&mut self, table: &Section<'_>) -> Option<SourceId> {
        let name = table.need("name", values::source_id)?;
        if !self.sources.insert(name.clone()) {
            table.wrong("name", format!("source `{name}` is declared twice"));
        }
        Some(name)
    }
}

/// What all tags share. `discrete` is what the type says when the tag does not.
fn shared(
    tag: &Section<'_>,
    source: &Section<'_>,
    discrete: bool,
    declared: &mut Declared,
    taken: &mut Taken,
) -> Option<TagConfig> {
    let origin = source.text("name").map_or("?", |name| name.value);
    shared_of(tag, &format!("source `{origin}`"), discrete, declared, taken)
}

/// The same; `origin` names where the tag is declared.
fn shared_of(
    tag: &Section<'_>,
    origin: &str,
    discrete: bool,
    declared: &mut Declared,
    taken: &mut Taken,
) -> Option<TagConfig> {
    let discrete = discrete || tag.has("values");
    shared_with(tag, origin, discrete, tag.numbers("invalid"), declared, taken)
}

/// The same of a tag whose `invalid` is read by its type.
fn shared_with(
    tag: &Section<'_>,
    origin: &str,
    discrete: bool,
    invalid: Vec<f64>,
    declared: &mut Declared,
    taken: &mut Taken,
) -> Option<TagConfig> {
    let id = tag.need("id", values::tag_id);
    let asset = tag.need("asset", |text| declared.asset(text));
    let path = asset.zip(id).map(|(asset, tag)| TagPath { asset, tag });
    if let Some(path) = &path {
        if let Some(other) = taken.tags.insert(path.clone(), origin.to_owned()) {
            tag.wrong("id", format!("tag `{path}` is declared twice, first in {other}"));
        }
        declared.tags.insert(path.clone());
    }
    let text = |key| tag.text(key).map_or(String::new(), |text| text.value.trim().to_owned());
    let unit = text("unit");
    let quantity = text("quantity");
    let scale = tag.number("scale").unwrap_or(1.0);
    if !scale.is_normal() {
        tag.wrong("scale", format!("must not be {scale}: every value would be the same"));
    }
    let offset = tag.number("offset").unwrap_or(0.0);
    let range = range(tag);
    let limits = tag.table("limits").map_or_else(Limits::default, |table| limits(&table, range));
    let discrete = tag.flag("discrete").unwrap_or(discrete);
    let mut handling = point::handling(tag);
    let given = [limits.low_low, limits.low, limits.high, limits.high_high];
    let given: Vec<f64> = given.into_iter().flatten().collect();
    let said = quality::Said { quantity, scale, offset, range };
    let quality::Said { quantity, scale, offset, range } =
        quality::read(tag, &unit, said, discrete, &given, &mut handling);
    let path = path?;
    Some(TagConfig {
        path,
        unit,
        quantity,
        scale,
        offset,
        range,
        invalid,
        limits,
        discrete,
        handling,
    })
}

fn range(tag: &Section<'_>) -> Option<(f64, f64)> {
    if !tag.has("range") {
        return None;
    }
    match tag.numbers("range").as_slice() {
        [low, high] if low < high => Some((*low, *high)),
        [low, high] => {
            tag.wrong("range", format!("is empty: {low} is not less than {high}"));
            None
        }
        _ => {
            tag.wrong("range", "must hold two numbers, the lower one first");
            None
        }
    }
}

fn limits(table: &Section<'_>, range: Option<(f64, f64)>) -> Limits {
    const KEYS: [&str; 4] = ["low_low", "low", "high", "high_high"];
    let given = KEYS.map(|key| table.number(key));
    let mut last: Option<(&str, f64)> = None;
    for (key, value) in KEYS.into_iter().zip(given) {
        let Some(value) = value else { continue };
        if let Some((lower, bound)) = last
            && value <= bound
        {
            table.wrong(key, format!("is {value}, not above `{lower}`, which is {bound}"));
        }
        if range.is_some_and(|(low, high)| value < low || value > high) {
            table.wrong(key, format!("{value} lies outside `range`: no good value reaches it"));
        }
        last = Some((key, value));
    }
    let [low_low, low, high, high_high] = given;
    let deadband = table.number_in("deadband", 0.0, f64::MAX).unwrap_or(0.0);
    let gap = low.or(low_low).zip(high.or(high_high)).map(|(low, high)| high - low);
    if gap.is_some_and(|gap| gap > 0.0 && deadband >= gap) {
        table.wrong("deadband", "is as wide as normal operation: the alarm would never clear");
    }
    let delay = |key| table.read(key, values::duration).unwrap_or(Duration::ZERO);
    let (on_delay, off_delay) = (delay("on_delay"), delay("off_delay"));
    table.finish();
    Limits { low_low, low, high, high_high, deadband, on_delay, off_delay }
}
