//! The configuration: raw TOML tables walked with their positions into a [`Config`] that cannot be
//! wrong. Every mistake is collected with file, line, column and key; nothing stops at the first.

mod env;
mod fault_script;
mod files;
mod intake;
mod link;
mod links;
mod mistake;
mod models;
mod parse;
mod people;
pub(crate) mod point;
mod policy;
pub(crate) mod profiles;
mod sources;
mod tree;
mod units;
pub(crate) mod values;

#[cfg(test)]
mod points_tests;
#[cfg(test)]
mod tests;

pub use fault_script::{FaultRule, FaultScript, Mischief, load_faults, parse_faults, unit_ranges};
pub use intake::{Column, Intake, MqttSource, MqttTag, Payload, Samples};
pub use link::{Certificates, Host, LineOptions, Link, Parity, Rs485, Serial};
pub use mistake::{ConfigErrors, Mistake};
pub use models::{Issuer, Models};
pub use parse::{load, parse};
pub use point::{ByteOrder, Packing, Point, PointType, Sample};
pub use policy::default_decisions;
pub use sources::{ComputedTag, Optimization, Polling, ReplaySource, ReplayTag};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::asset::Asset;
use crate::domain::decision::Choice;
use crate::domain::event::Action;
use crate::domain::ids::{AssetId, SourceId, TagPath, TechnicianId};
use crate::domain::severity::{Criticality, Severity};
use crate::domain::tag::Limits;

/// A configuration that has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[store]`
    pub store: Store,
    /// `[detection]`
    pub detection: Detection,
    /// `[approval]`
    pub approval: Approval,
    /// `[http]`
    pub http: Http,
    /// `[upstream]`; `None` when `url = "off"` or the table is absent.
    pub upstream: Option<Upstream>,
    /// `[[asset]]`
    pub assets: Vec<Asset>,
    /// `[[technician]]`
    pub technicians: Vec<Technician>,
    /// `[[modbus]]`
    pub modbus: Vec<ModbusSource>,
    /// `[[mqtt]]`
    pub mqtt: Vec<MqttSource>,
    /// `[[computed]]`, each after those it rests on.
    pub computed: Vec<ComputedTag>,
    /// `[[replay]]`
    pub replay: Vec<ReplaySource>,
    /// `[[notify]]`
    pub notify: Vec<NotifyChannel>,
    /// `[[decision]]`, in order; the first row that matches counts. Never empty: the default table
    /// is filled in.
    pub decisions: Vec<DecisionRow>,
    /// `[[rule]]`: validation rules.
    pub rules: Vec<Rule>,
    /// `[[window]]`: when an asset may be stopped; assets without a window may be at any time.
    pub windows: Vec<Window>,
    /// `[[absence]]`: when a technician is away.
    pub absences: Vec<Absence>,
    /// `[[failure_mode]]`: what a departing tag means per class of asset; the built-in table is
    /// searched after these.
    pub failure_modes: Vec<FailureMode>,
    /// `[models]`
    pub models: Models,
    /// SHA-256 over the effective configuration (hex), announced in `gateway.online`.
    pub hash: String,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// Site id.
    pub site: String,
    /// Gateway id.
    pub id: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// For shifts and reports; records are UTC.
    pub time_zone: jiff::tz::TimeZone,
    /// When the system's clock is believed.
    pub clock: crate::domain::time::Trust,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// Bound in bytes on everything under `data_dir`.
    pub max_disk: u64,
    /// Polled readings are durable at the latest after this.
    pub commit_every: Duration,
    /// Bytes a day that may be written.
    pub write_budget: u64,
    /// How long closed chains are kept.
    pub journal_keep: Duration,
}

/// `[detection]`
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Healthy time to learn from.
    pub learn: Duration,
}

/// `[approval]`
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// Orders for assets from this criticality on need a person.
    pub min_criticality: Criticality,
    /// How long a question waits.
    pub deadline: Duration,
    /// What happens then; never `modify`.
    pub default: Choice,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Address; `None` when `listen = "off"`.
    pub listen: Option<std::net::SocketAddr>,
    /// Tokens, read from `token_file`; empty when none is set (loopback only).
    pub tokens: Vec<Token>,
    /// Whether `/metrics` is open beyond loopback.
    pub metrics_open: bool,
}

/// What a bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look.
    Read,
    /// Look, and act on alarms, decisions, orders.
    Operate,
    /// All of it.
    Admin,
}

/// One line of the token file, as a hash; the token itself is never kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// What its bearer may do.
    pub scope: Scope,
}

/// A value that never prints: password, key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself; hand it to nothing that logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where an MQTT broker is and how it is spoken to; `[upstream]` and `[[mqtt]]` share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    /// Port; 1883 or 8883 by default.
    pub port: u16,
    /// `mqtts://` or `wss://`.
    pub tls: bool,
    /// `ws://` or `wss://`.
    pub websocket: bool,
    /// MQTT 5 instead of 3.1.1.
    pub v5: bool,
    /// Client id.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// CA certificates (PEM); the system's when absent.
    pub ca: Option<Vec<u8>>,
    /// Client certificate and key (PEM).
    pub identity: Option<(Vec<u8>, Secret)>,
}

/// What is sent of the readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingsMode {
    /// Every reading.
    All,
    /// Readings that differ from the one sent before.
    Changes,
    /// Closed roll-ups.
    Rollups,
    /// Nothing.
    None,
}

/// How readings are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// Postcard on `readings/{asset}/bin`.
    Postcard,
}

/// `[upstream]`
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// The broker.
    pub broker: Broker,
    /// QoS of events and readings.
    pub qos: u8,
    /// What is sent of the readings.
    pub readings: ReadingsMode,
    /// How readings are encoded.
    pub encoding: Encoding,
}

/// `[[technician]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Technician {
    /// Its id.
    pub id: TechnicianId,
    /// What this person can do.
    pub skills: Vec<String>,
    /// When this person works.
    pub shifts: Vec<Shift>,
    /// Address for notifications.
    pub email: Option<String>,
}

/// A weekly span of hours, in the gateway's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shift {
    /// On which days it begins, Monday first.
    pub days: [bool; 7],
    /// Minutes after midnight, 0 to 1440.
    pub from_minute: u16,
    /// Minutes after midnight, 0 to 1440; not later than `from_minute` means on the next day.
    pub to_minute: u16,
}

/// Modbus tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Function code 1.
    Coil,
    /// Function code 2.
    Discrete,
    /// Function code 3.
    Holding,
    /// Function code 4.
    Input,
}

/// What all tags share, whatever they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct TagConfig {
    /// Full name.
    pub path: TagPath,
    /// Engineering unit.
    pub unit: String,
    /// Kind of quantity.
    pub quantity: String,
    /// Value = raw × scale + offset.
    pub scale: f64,
    /// Value = raw × scale + offset.
    pub offset: f64,
    /// Plausible values.
    pub range: Option<(f64, f64)>,
    /// Raw values that mean "no value".
    pub invalid: Vec<f64>,
    /// Alarm limits.
    pub limits: Limits,
    /// Whether it is a state rather than a measurement.
    pub discrete: bool,
    /// How its values are treated beyond that.
    pub handling: crate::domain::tag::Handling,
}

/// One tag of a Modbus source.
#[derive(Debug, Clone, PartialEq)]
pub struct ModbusTag {
    /// What all tags share.
    pub tag: TagConfig,
    /// Where it lives.
    pub point: Point,
    /// How often it is read; the source's own by default.
    pub poll: Duration,
}

/// `[[modbus]]`
#[derive(Debug, Clone, PartialEq)]
pub struct ModbusSource {
    /// Its name.
    pub name: SourceId,
    /// How it is reached; sources with one link share a connection.
    pub link: Link,
    /// How that connection is used; the same for all that share it.
    pub line: LineOptions,
    /// How often it is read.
    pub poll: Duration,
    /// Deadline of one request.
    pub timeout: Duration,
    /// Longest pause before a silent unit is asked again.
    pub breaker_max: Duration,
    /// Most registers in one request (125 by default).
    pub max_registers: u16,
    /// How requests are made, and what the line's time may be spent on.
    pub polling: Polling,
    /// Its tags.
    pub tags: Vec<ModbusTag>,
}

/// Where messages to people go.
#[derive(Debug, Clone, PartialEq)]
pub enum Channel {
    /// The log.
    Console,
    /// A POST with JSON.
    Webhook {
        /// Where to.
        url: String,
    },
    /// Upstream, as `notification.sent`.
    Mqtt,
}

impl Channel {
    /// The word used in configuration and messages.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::Webhook { .. } => "webhook",
            Self::Mqtt => "mqtt",
        }
    }
}

/// `[[notify]]`
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyChannel {
    /// Where to.
    pub channel: Channel,
    /// From which severity on.
    pub min_severity: Severity,
}

/// `[[decision]]`: one row of the decision table. A missing condition always holds.
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionRow {
    /// Median time to the limit at most this long; only then is there a prediction.
    pub within: Option<Duration>,
    /// Confidence of the validated anomaly at least this.
    pub min_confidence: f64,
    /// Criticality of the asset at least this.
    pub min_criticality: u8,
    /// Severity of the anomaly at least this.
    pub min_severity: Severity,
    /// What to do then.
    pub action: Action,
}

/// `[[rule]]`: moves the confidence of matching anomalies by a named amount.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, given as the reason.
    pub name: String,
    /// Only for these assets; all when empty.
    pub assets: Vec<AssetId>,
    /// Only for these tags; all when empty.
    pub tags: Vec<String>,
    /// Holds only while another tag fulfils a condition.
    pub when: Option<Condition>,
    /// By how much the confidence moves, −1 to 1.
    pub adjust: f64,
}

/// A condition on the newest good value of a tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Which tag.
    pub tag: TagPath,
    /// Value at least this.
    pub min: Option<f64>,
    /// Value at most this.
    pub max: Option<f64>,
}

/// `[[window]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Which asset.
    pub asset: AssetId,
    /// When it may be stopped.
    pub shifts: Vec<Shift>,
}

/// `[[absence]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Absence {
    /// Who.
    pub technician: TechnicianId,
    /// From.
    pub from: crate::domain::time::Timestamp,
    /// To.
    pub to: crate::domain::time::Timestamp,
}

/// `[[failure_mode]]`: what a departing tag means.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureMode {
    /// Its id, e.g. `bearing-wear`.
    pub id: String,
    /// For assets of this class; all when absent.
    pub class: Option<crate::domain::asset::AssetClass>,
    /// For this asset only.
    pub asset: Option<AssetId>,
    /// Tag ids, or quantities, whose departure points to it.
    pub tags: Vec<String>,
    /// Recommended actions in words.
    pub actions: Vec<String>,
    /// Skills that are all needed.
    pub skills: Vec<String>,
    /// How long a repair takes.
    pub repair: Duration,
}

/// The link that the address of a Modbus line names, as the `url` of `[[modbus]]`.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn modbus_link(url: &str) -> Result<Link, String> {
    sources::modbus_url(url)
}

/// The source that computed tags name.
static COMPUTED: std::sync::LazyLock<SourceId> =
    std::sync::LazyLock::new(|| SourceId::new("computed").expect("`computed` is an id"));

impl TagConfig {
    /// The tag under a number of the store's.
    #[must_use]
    pub fn numbered(
        &self,
        key: crate::domain::ids::TagKey,
        source: SourceId,
        period: Option<Duration>,
    ) -> crate::domain::tag::Tag {
        crate::domain::tag::Tag {
            key,
            path: self.path.clone(),
            source,
            unit: self.unit.clone(),
            quantity: self.quantity.clone(),
            scale: self.scale,
            offset: self.offset,
            range: self.range,
            invalid: self.invalid.clone(),
            limits: self.limits,
            period,
            discrete: self.discrete,
            handling: self.handling.clone(),
        }
    }
}

/// Every tag of the configuration with its source and, where known, how often it is expected.
impl Config {
    /// All tags in the order of the file.
    pub fn tags(&self) -> impl Iterator<Item = (&SourceId, &TagConfig, Option<Duration>)> {
        let modbus = self.modbus.iter().flat_map(|source| {
            source.tags.iter().map(move |tag| (&source.name, &tag.tag, Some(tag.poll)))
        });
        let mqtt = self.mqtt.iter().flat_map(|source| {
            source.tags.iter().map(move |tag| (&source.name, &tag.tag, tag.expect_every))
        });
        let computed = self.computed.iter().map(|tag| (&*COMPUTED, &tag.tag, tag.period));
        let replay = self
            .replay
            .iter()
            .flat_map(|source| source.tags.iter().map(move |tag| (&source.name, &tag.tag, None)));
        modbus.chain(mqtt).chain(replay).chain(computed)
    }

    /// The table of assets and tags, given the store's numbers for the tags.
    ///
    /// # Panics
    /// When `keys` lacks a tag of the configuration.
    #[must_use]
    pub fn plant(
        &self,
        keys: &BTreeMap<TagPath, crate::domain::ids::TagKey>,
    ) -> crate::domain::tag::Plant {
        let tags = self.tags().map(|(source, tag, period)| {
            let key = *keys.get(&tag.path).expect("every configured tag was given a key");
            tag.numbered(key, source.clone(), period)
        });
        crate::domain::tag::Plant::new(self.assets.iter().cloned(), tags)
    }
}
