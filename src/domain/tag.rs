//! Tags: the named signals of assets, and the table of all tags of a configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::asset::Asset;
use super::ids::{AssetId, SourceId, TagId, TagKey, TagPath};

/// Alarm limits of a tag in its engineering unit. `high_high` and `low_low` are also where the
/// asset counts as failed for predictions.
///
/// Invariant (checked by the configuration): all finite, `low_low < low < high < high_high` as far
/// as given.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Failure limit from below.
    pub low_low: Option<f64>,
    /// Warning limit from below.
    pub low: Option<f64>,
    /// Warning limit from above.
    pub high: Option<f64>,
    /// Failure limit from above.
    pub high_high: Option<f64>,
    /// How far the value must come back before the alarm clears, in the tag's unit.
    pub deadband: f64,
    /// How long the value must be beyond the limit before the alarm is raised.
    pub on_delay: Duration,
    /// How long the value must be back before the alarm clears.
    pub off_delay: Duration,
}

/// One tag as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Tag {
    /// Its number in the store.
    pub key: TagKey,
    /// Its full name.
    pub path: TagPath,
    /// The connection it comes from.
    pub source: SourceId,
    /// Engineering unit after scaling, e.g. `°C`; empty when none was given.
    pub unit: String,
    /// Kind of quantity, e.g. `temperature`; empty when none was given.
    pub quantity: String,
    /// Value = raw × scale + offset.
    pub scale: f64,
    /// Value = raw × scale + offset.
    pub offset: f64,
    /// Plausible values; outside, quality is bad. Invariant: low < high, both finite.
    pub range: Option<(f64, f64)>,
    /// Raw values that mean "no value".
    pub invalid: Vec<f64>,
    /// Alarm limits.
    pub limits: Limits,
    /// How often a value is expected; `None` for tags that arrive when they like.
    pub period: Option<Duration>,
    /// Whether the tag is a state (bool, enumeration): stored, never judged by statistics.
    pub discrete: bool,
    /// How its values are treated beyond scale and range.
    pub handling: Handling,
}

/// How the values of a tag are treated beyond scale and range. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Handling {
    /// Decimals that a value is rounded to, half away from zero.
    pub decimals: Option<u8>,
    /// Names of states by raw value, e.g. 0 is `stopped`.
    pub states: Vec<(i64, String)>,
    /// What a value of the tag is.
    pub form: Form,
    /// The tag counts: after so many counts its device begins again at 0. Its readings are the
    /// total over all wraps and resets.
    pub counter: Option<u128>,
    /// What is not worth storing.
    pub deadband: Option<Deadband>,
    /// The fastest the quantity can change, in the tag's unit per second.
    pub rate_max: Option<f64>,
    /// How long a working sensor repeats itself at most.
    pub stuck: Option<Duration>,
    /// The step that the device's values come in, in the tag's unit; 0 when not known.
    pub quantum: f64,
    /// After how long without any value the tag counts as silent.
    pub gap: Option<Duration>,
}

/// Report by exception: what differs less from the last stored value is seen, not stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deadband {
    /// Smallest difference that is stored, in the tag's unit.
    pub width: f64,
    /// A value is stored at the latest after this, whatever it is.
    pub max_silence: Duration,
}

impl Handling {
    /// The name of a state by its raw value.
    #[must_use]
    pub fn state(&self, value: f64) -> Option<&str> {
        let whole = value.round();
        if (whole - value).abs() > f64::EPSILON {
            return None;
        }
        let of = |(number, _): &(i64, String)| (*number as f64).total_cmp(&whole);
        let place = self.states.binary_search_by(of).ok()?;
        Some(self.states[place].1.as_str())
    }
}

/// What a value of a tag is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Form {
    /// A number.
    #[default]
    Number,
    /// A text; stored as a number made from the text, by which the text is found again.
    Text,
    /// A burst of samples, evenly spaced.
    Waveform {
        /// Samples a second, where known.
        rate_hz: Option<f64>,
    },
}

/// All assets and tags of one configuration, the tags addressed by their key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plant {
    /// Assets by id.
    pub assets: BTreeMap<AssetId, Arc<Asset>>,
    tags: Vec<Option<Arc<Tag>>>,
    by_path: BTreeMap<TagPath, TagKey>,
}

impl Plant {
    /// Builds the table.
    ///
    /// # Panics
    /// When two tags have one key or one path; the configuration rules that out.
    #[must_use]
    pub fn new(
        assets: impl IntoIterator<Item = Asset>,
        tags: impl IntoIterator<Item = Tag>,
    ) -> Self {
        let mut plant = Self {
            assets: assets.into_iter().map(|asset| (asset.id.clone(), Arc::new(asset))).collect(),
            ..Self::default()
        };
        for tag in tags {
            let index = tag.key.0 as usize;
            if plant.tags.len() <= index {
                plant.tags.resize(index + 1, None);
            }
            assert!(plant.tags[index].is_none(), "tag key {index} is given out twice");
            assert!(
                plant.by_path.insert(tag.path.clone(), tag.key).is_none(),
                "tag {} is declared twice",
                tag.path
            );
            plant.tags[index] = Some(Arc::new(tag));
        }
        plant
    }

    /// The tag with this key, unless the configuration no longer has it.
    #[must_use]
    pub fn tag(&self, key: TagKey) -> Option<&Arc<Tag>> {
        self.tags.get(key.0 as usize)?.as_ref()
    }

    /// The key of a tag by its full name.
    #[must_use]
    pub fn key(&self, path: &TagPath) -> Option<TagKey> {
        self.by_path.get(path).copied()
    }

    /// The key of `asset`/`tag` as somebody wrote them.
    #[must_use]
    pub fn find(&self, asset: &str, tag: &str) -> Option<TagKey> {
        let path = TagPath { asset: AssetId::new(asset).ok()?, tag: TagId::new(tag).ok()? };
        self.key(&path)
    }

    /// All tags in order of their keys.
    pub fn tags(&self) -> impl Iterator<Item = &Arc<Tag>> {
        self.tags.iter().flatten()
    }

    /// All tags of one asset in order of their keys.
    pub fn tags_of<'a>(&'a self, asset: &'a AssetId) -> impl Iterator<Item = &'a Arc<Tag>> + 'a {
        self.tags().filter(move |tag| tag.path.asset == *asset)
    }

    /// One more than the largest key: the length of a table indexed by key.
    #[must_use]
    pub fn key_bound(&self) -> usize {
        self.tags.len()
    }
}
