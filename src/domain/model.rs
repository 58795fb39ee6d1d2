//! Models learnt on the gateway or elsewhere, as the registry keeps them, and the lives of machines
//! they are learnt from. The model's own bytes lie beside its record in the store.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ids::{AssetId, EventId, TagId};
use super::prognosis::Quantiles;
use super::time::Timestamp;

/// What a model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Remaining useful life.
    Rul,
    /// Which fault it is, or none.
    Classifier,
}

impl ModelKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Rul, Self::Classifier];

    /// The word in records and commands.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rul => "rul",
            Self::Classifier => "classifier",
        }
    }

    /// Reads the word of [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Where a model stands. Of an asset and kind at most one is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelState {
    /// Learnt, not in use.
    Candidate,
    /// In use.
    Active,
    /// Was in use, or never will be.
    Retired,
}

impl ModelState {
    /// The word people filter by.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Retired => "retired",
        }
    }
}

/// Whence a model comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Learnt here.
    Trained,
    /// Signed by this issuer of `[[models.issuer]]`.
    Imported(String),
}

/// A remaining life that a model gave, until the truth is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// When.
    pub as_of: Timestamp,
    /// Seconds.
    pub rul: Quantiles,
}

/// How a model's answers did on the running machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Answers whose truth is known.
    pub scored: u32,
    /// Of these, how many lay within p10…p90.
    pub covered: u32,
    /// Answers whose truth is awaited, oldest first.
    pub awaited: Vec<Given>,
}

impl Live {
    /// Share of the answers that held; `None` before any was scored.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.scored > 0).then(|| f64::from(self.covered) / f64::from(self.scored))
    }
}

/// A row of the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its id: that of the job that learnt it, or of its import.
    pub id: EventId,
    /// The asset it speaks about.
    pub asset: AssetId,
    /// What it says.
    pub kind: ModelKind,
    /// Counts up per asset and kind, from 1.
    pub version: u32,
    /// The model that was active when it was made.
    pub parent: Option<EventId>,
    /// Beginning of the data it was learnt from; unknown of imported ones.
    pub from: Option<Timestamp>,
    /// Their end.
    pub to: Option<Timestamp>,
    /// Tags it sees, in the order of its columns.
    pub features: Vec<String>,
    /// Seconds between its rows.
    pub step_seconds: f64,
    /// Lives it was learnt from.
    pub lives: u32,
    /// Figures on held-back data.
    pub metrics: Value,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes (hex).
    pub sha256: String,
    /// Where it stands.
    pub state: ModelState,
    /// Never replaced or rolled back by itself, never dropped.
    pub pinned: bool,
    /// When it was made.
    pub time: Timestamp,
    /// Whence it comes.
    pub origin: Origin,
    /// Why it stands where it stands, in one sentence.
    pub reason: String,
    /// How it does on the running machine.
    #[serde(default)]
    pub live: Live,
}

/// A stretch of an asset's life that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// Whose.
    pub asset: AssetId,
    /// When it began: at a repair, or when the gateway first saw the asset.
    pub from: Timestamp,
    /// When the failure limit was reached, or else when it was repaired.
    pub to: Timestamp,
    /// Whether it ended in failure.
    pub failed: bool,
    /// What the technician found.
    #[serde(default)]
    pub found: Option<String>,
}

/// What is to be learnt, and from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// For which asset.
    pub asset: AssetId,
    /// What the model shall say.
    pub kind: ModelKind,
    /// From these lives, its own and those of like assets, in the order they ended.
    pub lives: Vec<Life>,
    /// From these tags.
    pub features: Vec<TagId>,
    /// The model to beat, with the end of its data if that is known.
    pub active: Option<(EventId, Option<Timestamp>)>,
    /// Why now.
    pub why: String,
}

/// A model as it came from elsewhere; its signature was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// For which asset.
    pub asset: AssetId,
    /// What it says.
    pub kind: ModelKind,
    /// Its columns.
    pub features: Vec<String>,
    /// Seconds between its rows.
    pub step_seconds: f64,
    /// Lives or rows it was learnt from.
    pub lives: u32,
    /// Who signed it.
    pub issuer: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of its bytes (hex).
    pub sha256: String,
    /// The bytes. The registry keeps them; the journal does not.
    #[serde(skip)]
    pub content: Vec<u8>,
}
