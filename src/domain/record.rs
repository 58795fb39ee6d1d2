//! Records: what a stage promised and must remember over a restart, one row each.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::ids::AssetId;
use super::time::Timestamp;

/// What a record is. Each kind belongs to one stage, which alone writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// [`super::alarm::Alarm`] (detection for limits, orchestration for scores and the system).
    Alarm,
    /// A running on- or off-delay of a limit (detection).
    Delay,
    /// An open or judged anomaly (validation).
    Anomaly,
    /// The newest prediction of an asset and failure mode (prediction).
    Prediction,
    /// What prediction works on: followed limits, lives of parts, how predictions did.
    Outlook,
    /// [`super::decision::Decision`] (approval).
    Decision,
    /// [`super::work_order::WorkOrder`] (scheduling).
    WorkOrder,
    /// A message under way or sent (notification).
    Notification,
    /// What was done to a machine (logbook).
    LogEntry,
    /// What a person said of an anomaly (learning).
    Label,
    /// How often a detector was right on a tag (learning).
    Prior,
    /// A summary of a day (reporting).
    Report,
    /// State of an asset as last announced (reporting).
    AssetState,
    /// What orchestration is doing about an asset (orchestration).
    CaseFile,
    /// A long computation that has not answered yet (engine).
    Job,
    /// An event that a stage could not digest (engine).
    DeadLetter,
    /// A departure from normal that was announced and is not over (detection).
    Departure,
    /// [`super::text::KnownText`], a text that a tag had (acquisition).
    Text,
    /// A counter that wrapped or was reset (acquisition).
    Counter,
    /// What a source has found out about a device (engine).
    SourceNote,
    /// [`super::model::Model`]; its bytes are kept as long as it is open (learning).
    Model,
    /// Lives of an asset, and what is being learnt from them (learning).
    Lives,
}

impl RecordKind {
    /// All kinds.
    pub const ALL: [Self; 22] = [
        Self::Alarm,
        Self::Delay,
        Self::Anomaly,
        Self::Prediction,
        Self::Outlook,
        Self::Decision,
        Self::WorkOrder,
        Self::Notification,
        Self::LogEntry,
        Self::Label,
        Self::Prior,
        Self::Report,
        Self::AssetState,
        Self::CaseFile,
        Self::Job,
        Self::DeadLetter,
        Self::Departure,
        Self::Text,
        Self::Counter,
        Self::SourceNote,
        Self::Model,
        Self::Lives,
    ];

    /// The word in the store; never changes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Delay => "delay",
            Self::Anomaly => "anomaly",
            Self::Prediction => "prediction",
            Self::Outlook => "outlook",
            Self::Decision => "decision",
            Self::WorkOrder => "work-order",
            Self::Notification => "notification",
            Self::LogEntry => "log-entry",
            Self::Label => "label",
            Self::Prior => "prior",
            Self::Report => "report",
            Self::AssetState => "asset-state",
            Self::CaseFile => "case-file",
            Self::Job => "job",
            Self::DeadLetter => "dead-letter",
            Self::Departure => "departure",
            Self::Text => "text",
            Self::Counter => "counter",
            Self::SourceNote => "source-note",
            Self::Model => "model",
            Self::Lives => "lives",
        }
    }

    /// Reads the word of [`Self::as_str`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One remembered thing. `(kind, id)` is its identity; writing it again replaces it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// Its id within the kind.
    pub id: String,
    /// The asset concerned, if one is.
    pub asset: Option<AssetId>,
    /// Where it stands, as a word people filter by.
    pub state: String,
    /// Whether the stage still needs it: open records are handed back at the next start, and
    /// never dropped by retention.
    pub open: bool,
    /// When it began.
    pub time: Timestamp,
    /// The thing itself.
    pub body: Value,
}

impl Record {
    /// A record of `thing`, open, with an empty state.
    ///
    /// # Panics
    /// When `thing` cannot be JSON, which a type of the domain always can.
    #[must_use]
    pub fn new<T: Serialize>(
        kind: RecordKind,
        id: impl ToString,
        time: Timestamp,
        thing: &T,
    ) -> Self {
        Self {
            kind,
            id: id.to_string(),
            asset: None,
            state: String::new(),
            open: true,
            time,
            body: serde_json::to_value(thing).expect("types of the domain are JSON"),
        }
    }

    /// The same record about an asset.
    #[must_use]
    pub fn about(mut self, asset: &AssetId) -> Self {
        self.asset = Some(asset.clone());
        self
    }

    /// The same record in a state; `open` says whether the stage still needs it.
    #[must_use]
    pub fn in_state(mut self, state: &str, open: bool) -> Self {
        self.state = state.to_owned();
        self.open = open;
        self
    }

    /// The thing itself.
    ///
    /// # Errors
    /// When the body is not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(self.body.clone())
    }
}
