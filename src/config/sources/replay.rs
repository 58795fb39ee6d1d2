//! `[[replay]]`: recordings that are played back as if machines stood behind them.

use std::path::PathBuf;

use super::{Taken, shared};
use crate::config::TagConfig;
use crate::config::links::Names;
use crate::config::parse::Declared;
use crate::config::tree::Section;
use crate::domain::ids::SourceId;

/// Fastest playing.
const SPEED_MAX: f64 = 10_000.0;

/// `[[replay]]`
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySource {
    /// Its name.
    pub name: SourceId,
    /// The recording, CSV with a header line.
    pub file: PathBuf,
    /// How many times faster than it was recorded.
    pub speed: f64,
    /// Whether it begins again at its end.
    pub again: bool,
    /// Name of the time column.
    pub time_column: String,
    /// Its tags.
    pub tags: Vec<ReplayTag>,
}

/// One tag of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayTag {
    /// What all tags share.
    pub tag: TagConfig,
    /// Its column; its id when the file does not say.
    pub column: String,
}

/// `[[replay]]` and its tags.
pub(in crate::config) fn replay(
    root: &Section<'_>,
    declared: &mut Declared,
    taken: &mut Taken,
    names: &Names<'_>,
) -> Vec<ReplaySource> {
    let mut sources = Vec::new();
    for table in root.tables("replay") {
        let name = taken.source(&table);
        let file = table.need("file", |text| names.files.place(text));
        let speed = table.number_in("speed", 0.0, SPEED_MAX).unwrap_or(1.0);
        if speed <= 0.0 {
            table.wrong("speed", "must be above 0");
        }
        let again = table.flag("loop").unwrap_or(false);
        let time_column = table.text("time_column").map_or("time", |text| text.value).to_owned();
        let tags = table.tables("tag");
        if tags.is_empty() {
            table.missing("tag");
        }
        let tags = tags
            .iter()
            .filter_map(|tag| {
                let shared = shared(tag, &table, false, declared, taken);
                let column = tag.text("column").map(|text| text.value.to_owned());
                tag.finish();
                let tag = shared?;
                let column = column.unwrap_or_else(|| tag.path.tag.to_string());
                Some(ReplayTag { tag, column })
            })
            .collect();
        table.finish();
        if let (Some(name), Some(file)) = (name, file) {
            sources.push(ReplaySource { name, file, speed, again, time_column, tags });
        }
    }
    sources
}
