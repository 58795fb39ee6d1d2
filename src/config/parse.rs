//! From text to [`Config`]: reads every table, then checks what only the whole can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::domain::asset::{Asset, AssetClass, Bearing};
use crate::domain::decision::Choice;
use crate::domain::ids::{AssetId, TagId, TagPath, TechnicianId};
use crate::domain::severity::Criticality;

use super::files::Files;
use super::mistake::{ConfigErrors, Place, Report};
use super::tree::{self, NOT_AVAILABLE, Section};
use super::{
    Approval, Config, Detection, Gateway, Http, ModbusSource, MqttSource, Store, env, links,
    models, people, policy, profiles, sources, values,
};

/// Largest configuration, in bytes; ten thousand tags take about 2 MiB.
const CONFIG_BYTES_MAX: usize = 16 << 20;

/// Tables that later versions will read.
const LATER: [&str; 5] = ["sparkplug", "part", "contact", "report", "profile"];

/// What the tables that were read declare, for those that refer to them.
#[derive(Debug, Default)]
pub(super) struct Declared {
    pub(super) assets: BTreeSet<AssetId>,
    pub(super) classes: BTreeMap<AssetId, AssetClass>,
    pub(super) technicians: BTreeSet<TechnicianId>,
    pub(super) tags: BTreeSet<TagPath>,
}

impl Declared {
    /// An asset that exists.
    pub(super) fn asset(&self, text: &str) -> Result<AssetId, String> {
        let id = values::asset_id(text)?;
        if self.assets.contains(&id) {
            return Ok(id);
        }
        let known: Vec<&str> = self.assets.iter().map(AssetId::as_str).collect();
        Err(format!("there is no asset `{text}`{}", suggestion(text, &known)))
    }

    /// A tag that exists, written `asset/tag`.
    pub(super) fn tag(&self, text: &str) -> Result<TagPath, String> {
        let path = values::tag_path(text)?;
        if self.tags.contains(&path) {
            return Ok(path);
        }
        let known: Vec<String> = self.tags.iter().map(ToString::to_string).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Err(format!("there is no tag `{text}`{}", suggestion(text, &known)))
    }

    /// Whether any of these assets (any at all when empty) has a tag of this id.
    pub(super) fn has_tag(&self, assets: &[AssetId], tag: &TagId) -> bool {
        self.tags
            .iter()
            .any(|path| path.tag == *tag && (assets.is_empty() || assets.contains(&path.asset)))
    }

    /// A technician that exists.
    pub(super) fn technician(&self, text: &str) -> Result<TechnicianId, String> {
        let id = values::technician_id(text)?;
        if self.technicians.contains(&id) {
            return Ok(id);
        }
        let known: Vec<&str> = self.technicians.iter().map(TechnicianId::as_str).collect();
        Err(format!("there is no technician `{text}`{}", suggestion(text, &known)))
    }
}

fn suggestion(word: &str, known: &[&str]) -> String {
    tree::nearest(word, known).map_or(String::new(), |near| format!(", did you mean `{near}`?"))
}

/// Reads and checks the configuration file, with the overrides of this process's environment.
///
/// # Errors
/// All mistakes, each with its place. A file that cannot be read is one mistake.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let whole = |what: String| Report::whole_file(path, what);
    let size =
        std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    if size.is_dir() {
        return Err(whole("is a directory".to_owned()));
    }
    let bytes = std::fs::read(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let begun = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            let report = Report::new(path, &begun);
            report.syntax(&Place::Byte(valid), "is not UTF-8 from here on");
            return Err(report.into_errors());
        }
    };
    let env = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        })
        .collect();
    parse(&text, path, &env)
}

/// Reads and checks a configuration given as text. `origin` is the file it comes from: mistakes
/// name it, and relative files are looked for beside it. `env` is the environment.
///
/// # Errors
/// All mistakes, each with its place.
pub fn parse(
    text: &str,
    origin: &Path,
    env: &BTreeMap<String, String>,
) -> Result<Config, ConfigErrors> {
    if text.len() > CONFIG_BYTES_MAX {
        let what = format!("is larger than {CONFIG_BYTES_MAX} bytes");
        return Err(Report::whole_file(origin, what));
    }
    let report = Report::new(origin, text);
    let mut document = tree::parse(text, &report);
    profiles::apply(&mut document, origin, &report);
    env::apply(&mut document, env, &report);
    let config = read(&Section::root(&document, &report), origin, env);
    match config {
        Some(mut config) if report.is_clean() => {
            config.hash = hash(&config);
            Ok(config)
        }
        _mistaken => Err(report.into_errors()),
    }
}

fn read(root: &Section<'_>, origin: &Path, env: &BTreeMap<String, String>) -> Option<Config> {
    let files = Files::new(origin, env);
    let gateway = gateway(root, env);
    let store = store(&root.table_or_empty("store"));
    let detection = detection(&root.table_or_empty("detection"));
    let approval = approval(&root.table_or_empty("approval"));
    let http = http(&root.table_or_empty("http"), &files);
    let names = links::Names { site: &gateway.site, gateway: &gateway.id, files: &files };
    let upstream = links::upstream(root, &names);

    let mut declared = Declared::default();
    let assets = assets(root, &mut declared);
    let technicians = people::technicians(root, &mut declared);
    let mut taken = sources::Taken::default();
    let modbus = sources::modbus(root, &mut declared, &mut taken, &names);
    let mqtt = sources::mqtt(root, &mut declared, &mut taken, &names);
    let replay = sources::replay(root, &mut declared, &mut taken, &names);
    let computed = sources::computed(root, &mut declared, &mut taken, periods(&modbus, &mqtt));
    links::check_client_ids(root, upstream.as_ref(), &mqtt);

    let config = Config {
        gateway,
        store,
        detection,
        approval,
        http,
        assets,
        technicians,
        modbus,
        notify: people::notify(root, upstream.is_some()),
        upstream,
        computed,
        replay,
        mqtt: mqtt.into_iter().map(|(source, _)| source).collect(),
        decisions: policy::decisions(root),
        rules: policy::rules(root, &declared),
        windows: people::windows(root, &declared),
        absences: people::absences(root, &declared),
        failure_modes: policy::failure_modes(root, &declared),
        models: models::models(&root.table_or_empty("models"), &files),
        hash: String::new(),
    };
    for key in LATER {
        root.later(key);
    }
    root.finish();
    Some(config)
}

/// How often each tag of a source is expected, where known.
fn periods(modbus: &[ModbusSource], mqtt: &[(MqttSource, Place)]) -> BTreeMap<TagPath, Duration> {
    let polled = modbus.iter().flat_map(|source| &source.tags);
    let told = mqtt.iter().flat_map(|(source, _)| &source.tags);
    polled
        .map(|tag| (tag.tag.path.clone(), tag.poll))
        .chain(told.filter_map(|tag| Some((tag.tag.path.clone(), tag.expect_every?))))
        .collect()
}

/// SHA-256 over what is in force. Secrets print as a fixed word; tokens are left out.
fn hash(config: &Config) -> String {
    let mut open = config.clone();
    open.http.tokens.clear();
    let digest = Sha256::digest(format!("{open:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn gateway(root: &Section<'_>, env: &BTreeMap<String, String>) -> Gateway {
    let table = root.table_or_empty("gateway");
    let state_directory = || {
        // Several directories are separated by colons (systemd.exec(5)); the first is ours.
        let first = env.get("STATE_DIRECTORY")?.split(':').next()?;
        (!first.is_empty()).then(|| PathBuf::from(first))
    };
    let data_dir = table.read("data_dir", |text| {
        if text.is_empty() { Err("names no directory".to_owned()) } else { Ok(text.into()) }
    });
    let time_zone = table.read("time_zone", |text| {
        jiff::tz::TimeZone::get(text)
            .map_err(|_| format!("`{text}` is no time zone: write one like Europe/Rome, or UTC"))
    });
    let gateway = Gateway {
        site: table.need("site", values::name).unwrap_or_default(),
        id: table.need("id", values::name).unwrap_or_default(),
        data_dir: data_dir.or_else(state_directory).unwrap_or_else(|| PathBuf::from("data")),
        time_zone: time_zone.unwrap_or(jiff::tz::TimeZone::UTC),
        clock: table.read("clock", values::clock).unwrap_or_default(),
    };
    table.finish();
    gateway
}

/// Least `max_disk`: below it a day of ten tags does not fit beside the journal.
const MAX_DISK_LEAST: u64 = 16 << 20;

fn store(table: &Section<'_>) -> Store {
    let at_least = |least: u64, named: &'static str| {
        move |text: &str| {
            let bytes = values::size(text)?;
            if bytes < least { Err(format!("`{text}` is less than {named}")) } else { Ok(bytes) }
        }
    };
    let commit_every = table.read("commit_every", |text| {
        let span = values::duration_from(Duration::from_millis(100))(text)?;
        if span > Duration::from_mins(1) {
            return Err(format!("`{text}` is more than 1m: that much could be lost"));
        }
        Ok(span)
    });
    let store = Store {
        max_disk: table.read("max_disk", at_least(MAX_DISK_LEAST, "16MiB")).unwrap_or(512 << 20),
        commit_every: commit_every.unwrap_or(Duration::from_secs(5)),
        write_budget: table.read("write_budget", at_least(1 << 20, "1MiB")).unwrap_or(1 << 30),
        journal_keep: table.read("journal_keep", values::duration_from(DAY)).unwrap_or(400 * DAY),
    };
    table.finish();
    store
}

const DAY: Duration = Duration::from_secs(86_400);

fn detection(table: &Section<'_>) -> Detection {
    let learn = table.read("learn", values::duration_from(Duration::from_secs(30)));
    table.finish();
    Detection { learn: learn.unwrap_or(DAY) }
}

fn criticality(table: &Section<'_>, key: &'static str) -> Option<Criticality> {
    table.integer(key, 1, 5).and_then(Criticality::new)
}

fn approval(table: &Section<'_>) -> Approval {
    let default = table.read("default", |text| match text {
        "approve" => Ok(Choice::Approve),
        "reject" => Ok(Choice::Reject),
        "defer" => Ok(Choice::Defer),
        "modify" => Err("a deadline cannot modify: approve, reject or defer".to_owned()),
        _ => Err(format!("`{text}` is no answer of a deadline: approve, reject or defer")),
    });
    let approval = Approval {
        min_criticality: criticality(table, "min_criticality")
            .or(Criticality::new(4))
            .unwrap_or(Criticality::DEFAULT),
        deadline: table
            .read("deadline", values::duration_from(Duration::from_secs(1)))
            .unwrap_or(4 * Duration::from_secs(3600)),
        default: default.unwrap_or(Choice::Defer),
    };
    table.finish();
    approval
}

fn http(table: &Section<'_>, files: &Files) -> Http {
    let listen = table.read("listen", |text| {
        if text == "off" {
            return Ok(None);
        }
        text.parse::<SocketAddr>().map(Some).map_err(|_| {
            format!("`{text}` is no address: write 127.0.0.1:8480, [::1]:8480, or \"off\"")
        })
    });
    let listen = listen.unwrap_or(Some(SocketAddr::from(([127, 0, 0, 1], 8480))));
    let given = table.has("token_file");
    let tokens = table
        .read("token_file", |name| super::files::tokens(&files.secret(name)?))
        .unwrap_or_default();
    let insecure = table.flag("insecure").unwrap_or(false);
    let metrics_open = table.flag("metrics_open").unwrap_or(false);
    table.later("cert_file");
    table.later("key_file");
    if let Some(address) = listen
        && !address.ip().is_loopback()
    {
        if !given {
            table.wrong("listen", format!("{address} is beyond loopback: that needs `token_file`"));
        }
        if !insecure {
            table.wrong(
                "listen",
                format!(
                    "{address} is beyond loopback: TLS is {NOT_AVAILABLE}, so that needs \
                     `insecure = true`"
                ),
            );
        }
    }
    table.finish();
    Http { listen, tokens, metrics_open }
}

fn assets(root: &Section<'_>, declared: &mut Declared) -> Vec<Asset> {
    let mut assets = Vec::new();
    for table in root.tables("asset") {
        let id = table.need("id", values::asset_id);
        let class = table.read("class", |text| {
            AssetClass::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| {
                let all: Vec<&str> = AssetClass::ALL.iter().map(|class| class.as_str()).collect();
                format!("`{text}` is no class: {}", all.join(", "))
            })
        });
        let class = class.unwrap_or(AssetClass::Other);
        if let Some(id) = &id {
            declared.classes.insert(id.clone(), class);
            if !declared.assets.insert(id.clone()) {
                table.wrong("id", format!("asset `{id}` is declared twice"));
            }
        }
        let name = table.text("name").map(|name| name.value.to_owned());
        let criticality = criticality(&table, "criticality").unwrap_or(Criticality::DEFAULT);
        let bearing = table.table("bearing").and_then(|table| bearing(&table));
        let rated_rpm = table.number_in("rated_rpm", 0.001, 1e6);
        let iso20816_group = table.integer("iso20816_group", 1, 2);
        table.finish();
        if let Some(id) = id {
            let name = name.unwrap_or_else(|| id.to_string());
            assets.push(Asset { id, name, class, criticality, bearing, rated_rpm, iso20816_group });
        }
    }
    assets
}

fn bearing(table: &Section<'_>) -> Option<Bearing> {
    for key in ["rolling_elements", "element_mm", "pitch_mm"] {
        if !table.has(key) {
            table.missing(key);
        }
    }
    let rolling_elements = table.integer("rolling_elements", 3, 1000);
    let element_mm = table.number_in("element_mm", 0.001, 1e4);
    let pitch_mm = table.number_in("pitch_mm", 0.001, 1e5);
    let contact_deg = table.number_in("contact_deg", 0.0, 89.9).unwrap_or(0.0);
    table.finish();
    let (rolling_elements, element_mm, pitch_mm) = (rolling_elements?, element_mm?, pitch_mm?);
    if element_mm >= pitch_mm {
        table.wrong("element_mm", "a rolling element is smaller than the pitch diameter");
    }
    Some(Bearing { rolling_elements, element_mm, pitch_mm, contact_deg })
}
