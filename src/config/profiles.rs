//! Profiles: register maps of devices, included by name. A profile is looked for in `assets/`
//! beside the configuration file, then among those that come with the program.
//!
//! Its tags become tags of the source before anything is read, each with the place in the profile
//! where it was written: mistakes are reported there, and overrides of the environment reach them.
//! A tag of the source with the same `id` overrides single keys; `without` leaves tags out. Keys
//! beside the tags (`max_registers`, `poll` …) are the source's, where it does not say otherwise.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mistake::{Origin, Place, Report};
use super::tree::{self, Branch, Entry, Node, Section, Value};
use super::values;

/// Profiles that come with the program, by name.
pub(crate) const EMBEDDED: [(&str, &str); 4] = [
    ("abb-acs550", include_str!("../../config/assets/abb-acs550.toml")),
    ("eastron-sdm630", include_str!("../../config/assets/eastron-sdm630.toml")),
    ("grundfos-cim200", include_str!("../../config/assets/grundfos-cim200.toml")),
    ("machinesaver-trivibe", include_str!("../../config/assets/machinesaver-trivibe.toml")),
];

/// Where profiles are looked for, beside the configuration file.
const FOLDER: &str = "assets";
/// Largest profile, in bytes.
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// Keys of a profile that say what it is.
const ABOUT: [&str; 2] = ["title", "manual"];
/// Keys that only a source itself has.
const OWN: [&str; 5] = ["name", "url", "unit", "profile", "asset"];

/// Marks the keys that were dealt with when profiles were put in.
pub(super) fn taken(table: &Section<'_>) {
    for key in ["profile", "asset", "without"] {
        if table.has(key) && key != "profile" && !table.has("profile") {
            table.wrong(key, "belongs to a source with a `profile`");
        }
    }
}

/// Puts the tags of all profiles into the sources that name them. Profiles lie beside `origin`.
pub(super) fn apply(document: &mut Node, origin: &Path, report: &Report) {
    let Value::Table(root) = &mut document.value else { return };
    let Some(Value::Array(sources)) = root.get_mut("modbus").map(|entry| &mut entry.node.value)
    else {
        return;
    };
    for source in sources {
        let at = source.at.clone();
        let Value::Table(source) = &mut source.value else { continue };
        let Some(entry) = source.get("profile") else { continue };
        let profile_at = entry.node.at.clone();
        let wrong = |what: String| report.wrong(&profile_at, "modbus.profile", what);
        let Value::String(name) = &entry.node.value else {
            wrong("must be a string".to_owned());
            continue;
        };
        match find(name, origin) {
            Ok((file, text)) => {
                let profile = read(&file, &text, report);
                include(source, &at, profile, report);
            }
            Err(what) => wrong(what),
        }
    }
}

/// The file of a profile and its text.
fn find(name: &str, origin: &Path) -> Result<(PathBuf, String), String> {
    let name = values::name(name)?;
    let folder = origin.parent().unwrap_or(Path::new("")).join(FOLDER);
    let file = folder.join(format!("{name}.toml"));
    if file.exists() {
        let wrong = |error: std::io::Error| format!("{} cannot be read: {error}", file.display());
        let about = std::fs::metadata(&file).map_err(wrong)?;
        if !about.is_file() || about.len() > PROFILE_BYTES_MAX {
            return Err(format!("{} is no file of at most 1 MiB", file.display()));
        }
        let text = std::fs::read_to_string(&file).map_err(wrong)?;
        return Ok((file, text));
    }
    if let Some((_, text)) = EMBEDDED.iter().find(|(known, _)| *known == name) {
        let file = Path::new("(built in)").join(FOLDER).join(format!("{name}.toml"));
        return Ok((file, (*text).to_owned()));
    }
    let names = EMBEDDED.map(|(name, _)| name);
    let near = tree::nearest(&name, &names)
        .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
    let (folder, names) = (folder.display(), names.join(", "));
    Err(format!("there is no profile `{name}` in {folder}, nor built in ({names}){near}"))
}

/// The tree of a profile, every place in it pointing at its file.
fn read(file: &Path, text: &str, report: &Report) -> Branch {
    let origin = Arc::new(Origin::new(file, text));
    let place = move |byte| Place::In(Arc::clone(&origin), byte);
    let document = tree::parse_at(text, report, &place);
    match document.value {
        Value::Table(branch) => branch,
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Datetime(_)
        | Value::Array(_)
        | Value::Override(..) => Branch::default(),
    }
}

fn include(source: &mut Branch, source_at: &Place, profile: Branch, report: &Report) {
    let mut base = None;
    let mut order = None;
    let mut tags = Vec::new();
    for entry in profile.entries {
        let key = entry.key.as_str();
        match key {
            "address_base" => base = Some(entry),
            "order" => order = Some(entry),
            "tag" => match entry.node.value {
                Value::Array(items) => tags = items,
                Value::String(_)
                | Value::Integer(_)
                | Value::Float(_)
                | Value::Bool(_)
                | Value::Datetime(_)
                | Value::Table(_)
                | Value::Override(..) => {
                    report.wrong(&entry.key_at, "profile.tag", "there are many: write [[tag]]");
                }
            },
            _ if ABOUT.contains(&key) => {}
            _ if OWN.contains(&key) => {
                report.wrong(&entry.key_at, key, "belongs to the source, not to its profile");
            }
            _ if source.get(key).is_none() => source.entries.push(entry),
            _ => {}
        }
    }
    let left_out = left_out(source, &tags, report);
    let asset = source.get("asset").cloned();
    let own = match source.get_mut("tag").map(|entry| &mut entry.node.value) {
        Some(Value::Array(own)) => std::mem::take(own),
        // What is no array is reported when it is read.
        Some(_) => return,
        None => Vec::new(),
    };
    let mut merged: Vec<Node> = Vec::new();
    for mut tag in tags {
        let Value::Table(branch) = &mut tag.value else {
            merged.push(tag);
            continue;
        };
        if id(branch).is_some_and(|id| left_out.contains(id)) {
            continue;
        }
        let address_base = base.clone().unwrap_or_else(|| {
            let node = Node { at: tag.at.clone(), value: Value::Integer(0) };
            Entry { key: "address_base".to_owned(), key_at: tag.at.clone(), node }
        });
        // Without an order of its own the profile's tags are what its manual says, not what the
        // source's other tags are.
        let order = order.clone().or_else(|| {
            source.get("order")?;
            let node = Node { at: tag.at.clone(), value: Value::String("ABCD".to_owned()) };
            let (key, key_at) = ("order".to_owned(), tag.at.clone());
            multiple(branch).then_some(Entry { key, key_at, node })
        });
        for entry in [Some(address_base), order, asset.clone()].into_iter().flatten() {
            if branch.get(&entry.key).is_none() && (entry.key != "order" || multiple(branch)) {
                branch.entries.push(entry);
            }
        }
        merged.push(tag);
    }
    for mut tag in own {
        let Value::Table(over) = &mut tag.value else {
            merged.push(tag);
            continue;
        };
        let same = |branch: &Branch| id(over).is_some() && id(branch) == id(over);
        let place = merged.iter().position(|node| node.value.as_table().is_some_and(same));
        let known = place.and_then(|place| merged.get_mut(place)).map(|node| &mut node.value);
        let Some(Value::Table(known)) = known else {
            // A tag of the source's own may leave out the asset as the profile's do.
            if over.get("asset").is_none() {
                over.entries.extend(asset.clone());
            }
            merged.push(tag);
            continue;
        };
        // An address written in the source is counted as the source's are.
        if over.get("point").is_some() {
            known.entries.retain(|entry| entry.key != "address_base");
        }
        for entry in over.entries.drain(..) {
            match known.get_mut(&entry.key) {
                Some(old) => *old = entry,
                None => known.entries.push(entry),
            }
        }
    }
    let node = Node { at: source_at.clone(), value: Value::Array(merged) };
    match source.get_mut("tag") {
        Some(entry) => entry.node = node,
        None => {
            source.entries.push(Entry { key: "tag".to_owned(), key_at: source_at.clone(), node })
        }
    }
}

/// Tags of the profile that the source does without.
fn left_out(source: &Branch, tags: &[Node], report: &Report) -> BTreeSet<String> {
    let Some(entry) = source.get("without") else { return BTreeSet::new() };
    let wrong = |at: &Place, what: String| report.wrong(at, "modbus.without", what);
    let Value::Array(items) = &entry.node.value else {
        wrong(&entry.node.at, "must be an array of ids of the profile's tags".to_owned());
        return BTreeSet::new();
    };
    let known: Vec<&str> =
        tags.iter().filter_map(|tag| tag.value.as_table().and_then(id)).collect();
    let mut left_out = BTreeSet::new();
    for item in items {
        match item.value.as_text() {
            Some(id) if known.contains(&id) => {
                left_out.insert(id.to_owned());
            }
            Some(id) => {
                let near = tree::nearest(id, &known)
                    .map_or(String::new(), |near| format!(", did you mean `{near}`?"));
                wrong(&item.at, format!("the profile has no tag `{id}`{near}"));
            }
            None => wrong(&item.at, "holds something else than ids".to_owned()),
        }
    }
    left_out
}

fn id(branch: &Branch) -> Option<&str> {
    branch.get("id")?.node.value.as_text()
}

/// Whether a tag has a type of two registers or more, to which an order of words matters.
fn multiple(branch: &Branch) -> bool {
    match branch.get("type").map(|entry| &entry.node.value) {
        Some(Value::String(kind)) => super::point::point_type(kind).is_ok_and(|kind| {
            super::ByteOrder::Cdab.fits(kind).is_ok() && super::ByteOrder::Badc.fits(kind).is_ok()
        }),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Config, ConfigErrors, PointType, Table, parse};

    const SOURCE: &str = "[gateway]\nsite = \"s\"\nid = \"g\"\n\n[[asset]]\nid = \"M-1\"\n\n\
        [[modbus]]\nname = \"meter\"\nurl = \"tcp://127.0.0.1:5020\"\nasset = \"M-1\"\n";

    fn read(text: &str, origin: &Path) -> Result<Config, ConfigErrors> {
        parse(text, origin, &BTreeMap::new())
    }

    fn with(lines: &str) -> String {
        format!("{SOURCE}{lines}\n")
    }

    #[track_caller]
    fn mistake(lines: &str, what: &str) {
        let errors = read(&with(lines), Path::new("plant.toml")).unwrap_err().to_string();
        assert!(errors.contains(what), "{errors}");
    }

    #[test]
    fn row57_every_profile_that_comes_along_is_without_mistakes() {
        for (name, text) in EMBEDDED {
            let config = read(&with(&format!("profile = \"{name}\"")), Path::new("plant.toml"));
            let config = config.unwrap_or_else(|errors| panic!("{errors}"));
            let source = &config.modbus[0];
            assert_eq!(source.tags.len(), text.matches("[[tag]]").count(), "{name}");
            assert!(source.tags.iter().all(|tag| tag.tag.path.asset.as_str() == "M-1"));
            // A person must be able to look every register up.
            for word in ["title = ", "manual = ", "# Register numbers: "] {
                assert!(text.contains(word), "{name} lacks {word}");
            }
        }
    }

    #[test]
    fn row57_a_profile_brings_tags_and_what_its_device_asks_for() {
        let source = read(&with("profile = \"eastron-sdm630\""), Path::new("x.toml")).unwrap();
        let source = &source.modbus[0];
        assert_eq!(source.max_registers, 60);
        let power = source.tags.iter().find(|tag| tag.tag.path.tag.as_str() == "power").unwrap();
        assert_eq!((power.point.table, power.point.address), (Table::Input, 52));
        assert_eq!((power.point.kind, power.tag.unit.as_str()), (PointType::F32, "W"));
        let own = with("profile = \"eastron-sdm630\"\nmax_registers = 20");
        assert_eq!(read(&own, Path::new("x.toml")).unwrap().modbus[0].max_registers, 20);
    }

    #[test]
    fn row57_tags_are_overridden_left_out_and_added() {
        let config = read(
            &with(
                "profile = \"grundfos-cim200\"\nwithout = [\"flow\", \"head\"]\norder = \"CDAB\"\n\
                 [[modbus.tag]]\nid = \"pump1_speed\"\npoll = \"5s\"\nlimits = { high = 99 }\n\
                 [[modbus.tag]]\nid = \"pump1_hours\"\npoint = \"holding:7\"\n\
                 [[modbus.tag]]\nid = \"mine\"\npoint = \"holding:9\"\ntype = \"u32\"",
            ),
            Path::new("x.toml"),
        );
        let config = config.unwrap_or_else(|errors| panic!("{errors}"));
        let tags = &config.modbus[0].tags;
        let tag = |id: &str| tags.iter().find(|tag| tag.tag.path.tag.as_str() == id);
        assert!(tag("flow").is_none() && tag("head").is_none());
        let speed = tag("pump1_speed").unwrap();
        // The profile counts from 1, the source from 0.
        assert_eq!((speed.point.address, speed.poll.as_secs()), (404, 5));
        assert_eq!((speed.tag.limits.high, speed.tag.unit.as_str()), (Some(99.0), "%"));
        assert_eq!(tag("pump1_hours").unwrap().point.address, 7);
        // The order of the source is that of its own tags, not of the profile's.
        assert_eq!(tag("pump1_hours").unwrap().point.order, crate::config::ByteOrder::Abcd);
        assert_eq!(tag("mine").unwrap().point.order, crate::config::ByteOrder::Cdab);
    }

    #[test]
    fn row57_mistakes_inside_a_profile_name_its_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(FOLDER)).unwrap();
        let file = dir.path().join(FOLDER).join("mine.toml");
        let origin = dir.path().join("plant.toml");
        let errors = |profile: &str| {
            std::fs::write(&file, profile).unwrap();
            let text = with("profile = \"mine\"");
            read(&text, &origin).map_or_else(|errors| errors.to_string(), |_| String::new())
        };
        let tag = "[[tag]]\nid = \"a\"\npoint = \"input:1\"\n";
        assert_eq!(errors(&format!("{tag}type = \"u16\"\n")), "");
        let place = |line: usize, column: usize| format!("{}:{line}:{column}: ", file.display());
        let found = errors(&format!("# π\n{tag}type = \"u17\"\nscael = 2\nurl = \"x\"\n"));
        let lines: Vec<&str> = found.lines().collect();
        assert!(lines[0].starts_with(&format!("{}modbus.tag.type: `u17`", place(5, 8))), "{found}");
        assert!(lines[1].starts_with(&format!("{}modbus.tag.scael: unknown", place(6, 1))));
        let found = errors("[[tag]\nid = 3\n");
        assert!(found.starts_with(&place(1, 7)), "{found}");
        let found = errors(&format!("url = \"tcp://x\"\n{tag}type = \"u16\""));
        assert!(found.contains("belongs to the source"), "{found}");
        // A profile of one's own hides the one that comes along.
        let other = dir.path().join(FOLDER).join("eastron-sdm630.toml");
        std::fs::write(other, format!("{tag}type = \"u16\"")).unwrap();
        let config = read(&with("profile = \"eastron-sdm630\""), &origin).unwrap();
        assert_eq!(config.modbus[0].tags.len(), 1);
    }

    #[test]
    fn row57_what_is_not_there_is_told_with_what_is() {
        mistake("profile = \"eastron-sdm360\"", "did you mean `eastron-sdm630`?");
        mistake("profile = \"../../etc/passwd\"", "is not an identifier");
        mistake("profile = 7", "must be a string");
        mistake("profile = \"eastron-sdm630\"\nwithout = [\"volt\"]", "has no tag `volt`");
        mistake("without = [\"volt\"]", "belongs to a source with a `profile`");
        let text = with("profile = \"eastron-sdm630\"").replace("asset = \"M-1\"\n", "");
        let errors = read(&text, Path::new("plant.toml")).unwrap_err().to_string();
        assert!(
            errors.contains("eastron-sdm630.toml:13:1: modbus.tag.asset: is missing"),
            "{errors}"
        );
    }
}
