use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::domain::event::Action;

use super::*;

const REFERENCE: &str = include_str!("../../config/wheeltap.toml");

const MINIMAL: &str = r#"
[gateway]
site = "plant-a"
id = "gw-01"

[[asset]]
id = "P-101"

[[modbus]]
name = "plc-1"
url = "tcp://127.0.0.1:5020"

  [[modbus.tag]]
  id = "temp"
  asset = "P-101"
  point = "holding:100"
  type = "f32"
"#;

fn read(text: &str) -> Result<Config, ConfigErrors> {
    parse(text, Path::new("plant.toml"), &BTreeMap::new())
}

fn read_with(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    parse(text, Path::new("plant.toml"), &env)
}

/// The minimal configuration with lines added at its end, or before its first table.
fn with(extra: &str) -> String {
    format!("{MINIMAL}{extra}\n")
}

#[track_caller]
fn expect_mistake(text: &str, key: &str, what: &str) -> Mistake {
    let errors = read(text).expect_err("the configuration has a mistake");
    let hit = errors.mistakes.iter().find(|m| m.key == key && m.what.contains(what));
    hit.unwrap_or_else(|| panic!("no mistake `{key}: …{what}…` in:\n{errors}")).clone()
}

#[test]
fn the_reference_passes_as_it_lies_there() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/wheeltap.toml");
    let config = load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.tags().count(), 4);
    assert_eq!(config.hash.len(), 64);
    // What the reference calls the default is the default.
    assert_eq!(config.decisions, default_decisions());
    let plain = read(MINIMAL).unwrap();
    assert_eq!(config.store, plain.store);
    assert_eq!(config.detection, plain.detection);
    assert_eq!(config.approval, plain.approval);
    assert_eq!(config.http, plain.http);
}

#[test]
fn the_demo_configuration_passes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.toml");
    if path.exists() {
        load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    } else {
        println!("skipped: needs config/demo.toml");
    }
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let config = read(MINIMAL).unwrap();
    assert_eq!(config.store.max_disk, 512 << 20);
    assert_eq!(config.store.commit_every, Duration::from_secs(5));
    assert_eq!(config.detection.learn, Duration::from_secs(86_400));
    assert_eq!(config.approval.min_criticality.level(), 4);
    assert_eq!(config.approval.default, Choice::Defer);
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:8480");
    assert_eq!(config.upstream, None);
    let source = &config.modbus[0];
    assert_eq!((source.poll, source.timeout), (Duration::from_secs(1), Duration::from_millis(500)));
    assert_eq!(source.tags[0].point.order, ByteOrder::Abcd);
    assert_eq!(config.decisions.last().map(|row| row.action), Some(Action::Watch));
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let text = "[gateway]\nsite = \"plant a\"\nidd = \"gw\"\n\n[store]\nmax_disk = 5\n\n\
                [[modbus]]\nname = \"plc\"\nurl = \"tcp://x:99999\"\npoll = \"50ms\"\n";
    let errors = read(text).unwrap_err();
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    let starts = [
        "plant.toml:1:1: gateway.id: is missing",
        "plant.toml:2:8: gateway.site: `plant a`",
        "plant.toml:3:1: gateway.idd: unknown key, did you mean `id`?",
        "plant.toml:6:12: store.max_disk: must be a string, is an integer",
        "plant.toml:10:7: modbus.url: `tcp://x:99999`",
        "plant.toml:11:8: modbus.poll: `50ms` is less than 100ms",
    ];
    assert_eq!(lines.len(), starts.len(), "{errors}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}\n  should begin with {start}");
    }
}

#[test]
fn columns_count_characters() {
    let mistake =
        expect_mistake(&with("  [[mqtt]]\n  name = \"é\"  "), "mqtt.name", "is not an identifier");
    assert_eq!(mistake.column, 10);
    let mistake = expect_mistake("a = \"°°\"\n[gateway] x", "", "");
    assert_eq!(mistake.line, 2);
}

#[test]
fn a_syntax_error_does_not_hide_the_mistakes_of_other_lines() {
    let text =
        format!("{MINIMAL}\n[store]\nmax_disk = \nmax_dsk = \"1GiB\"\n[[asset]]\nid = \"a b\"\n");
    let errors = read(&text).unwrap_err();
    assert!(errors.mistakes.iter().any(|m| m.key.is_empty()), "{errors}");
    assert!(errors.mistakes.iter().any(|m| m.key == "asset.id"), "{errors}");
}

#[test]
fn whatever_is_declared_twice_is_named() {
    expect_mistake(&with("[[asset]]\nid = \"P-101\""), "asset.id", "declared twice");
    let tag = "[[modbus.tag]]\nid = \"temp\"\nasset = \"P-101\"\npoint = \"coil:1\"";
    expect_mistake(&with(tag), "modbus.tag.id", "declared twice");
    let source = "[[mqtt]]\nname = \"plc-1\"\nurl = \"mqtt://a\"";
    expect_mistake(&with(source), "mqtt.name", "declared twice");
    let person = "[[technician]]\nid = \"t\"\n[[technician]]\nid = \"t\"";
    expect_mistake(&with(person), "technician.id", "declared twice");
    let other = "[[mqtt]]\nname = \"m\"\nurl = \"mqtt://a\"\n[[mqtt.tag]]\nid = \"temp\"\n\
                 asset = \"P-101\"\ntopic = \"t\"";
    expect_mistake(&with(other), "mqtt.tag.id", "first in source `plc-1`");
}

#[test]
fn overlapping_registers_are_fine() {
    let tag =
        "[[modbus.tag]]\nid = \"low\"\nasset = \"P-101\"\npoint = \"holding:100\"\ntype = \"u16\"";
    assert_eq!(read(&with(tag)).unwrap().modbus[0].tags.len(), 2);
}

#[test]
fn what_a_tag_says_must_fit_together() {
    let tag = |lines: &str| {
        with(&format!(
            "[[modbus.tag]]\nid = \"t2\"\nasset = \"P-101\"\npoint = \"holding:1\"\n{lines}"
        ))
    };
    let u16 = |lines: &str| tag(&format!("type = \"u16\"\n{lines}"));
    expect_mistake(&tag(""), "modbus.tag.type", "is missing");
    expect_mistake(&tag("type = \"float\""), "modbus.tag.type", "is no type");
    expect_mistake(&u16("order = \"CDAB\""), "modbus.tag.order", "no words to swap");
    expect_mistake(&u16("order = \"cdab\""), "modbus.tag.order", "is no order");
    expect_mistake(&u16("scale = 0"), "modbus.tag.scale", "must not be 0");
    expect_mistake(&u16("scale = nan"), "modbus.tag.scale", "finite");
    expect_mistake(&u16("offset = inf"), "modbus.tag.offset", "finite");
    expect_mistake(&u16("range = [5, 5]"), "modbus.tag.range", "is empty");
    expect_mistake(&u16("range = [5]"), "modbus.tag.range", "two numbers");
    expect_mistake(&u16("limits = { high = 2, low = 3 }"), "modbus.tag.limits.high", "not above");
    expect_mistake(
        &u16("range = [0, 5]\nlimits = { high = 9 }"),
        "modbus.tag.limits.high",
        "outside `range`",
    );
    expect_mistake(&u16("limits = { hihi = 9 }"), "modbus.tag.limits.hihi", "unknown key");
    expect_mistake(&u16("values = { x = \"off\" }"), "modbus.tag.values", "is no raw value");
    expect_mistake(
        &with("[[modbus.tag]]\nid = \"x\"\nasset = \"P-102\"\npoint = \"coil:1\""),
        "modbus.tag.asset",
        "did you mean `P-101`?",
    );
    expect_mistake(
        &with(
            "[[modbus.tag]]\nid = \"x\"\nasset = \"P-101\"\npoint = \"input:65535\"\ntype = \"f32\"",
        ),
        "modbus.tag.point",
        "past 65535",
    );
    expect_mistake(
        &with("[[modbus.tag]]\nid = \"x\"\nasset = \"P-101\"\npoint = \"coil:5\"\ntype = \"u16\""),
        "modbus.tag.type",
        "is a `bool`",
    );
}

#[test]
fn what_a_source_says_must_fit_together() {
    let source =
        |lines: &str| with(&format!("[[modbus]]\nname = \"s\"\nurl = \"tcp://10.0.0.1\"\n{lines}"));
    assert_eq!(read(&source("unit = 255")).unwrap().modbus[1].link.address(), "10.0.0.1:502");
    expect_mistake(&source("unit = 0"), "modbus.unit", "is 0");
    expect_mistake(&source("unit = 250"), "modbus.unit", "is 250");
    expect_mistake(&source("unit = 256"), "modbus.unit", "is 256");
    expect_mistake(&source("timeout = \"2s\""), "modbus.timeout", "longer than `poll`");
    assert!(read(&source("poll = \"100ms\"\ntimeout = \"100ms\"")).is_ok());
    expect_mistake(&with("[[modbus]]\nname = \"s\"\n"), "modbus.url", "is missing");
    expect_mistake(
        &source(
            "address_base = 1\n[[modbus.tag]]\nid = \"x\"\nasset = \"P-101\"\npoint = \"coil:0\"",
        ),
        "modbus.tag.point",
        "begin at 1",
    );
}

#[test]
fn one_based_addresses_are_moved() {
    let text = MINIMAL.replace("url =", "address_base = 1\nurl =");
    assert_eq!(read(&text).unwrap().modbus[0].tags[0].point.address, 99);
}

#[test]
fn later_features_are_refused_by_name() {
    for table in ["[sparkplug]", "[[part]]", "[[contact]]", "[[report]]"] {
        let key = table.trim_matches(['[', ']']);
        expect_mistake(&with(table), key, "not available in this version");
    }
    let upstream = |line: &str| with(&format!("[upstream]\nurl = \"mqtt://b\"\n{line}"));
    assert!(read(&upstream("commands = false\nformat = \"cloudevents\"\nqos = 1")).is_ok());
    for (line, key) in [
        ("commands = true", "upstream.commands"),
        ("format = \"sparkplug-b\"", "upstream.format"),
        ("version = \"5\"", "upstream.version"),
        ("readings = \"rollups\"", "upstream.readings"),
        ("qos = 0", "upstream.qos"),
        ("[[upstream.issuer]]\nid = \"ops\"", "upstream.issuer"),
    ] {
        expect_mistake(&upstream(line), key, "not available in this version");
    }
    expect_mistake(&with("[[notify]]\nchannel = \"email\""), "notify.channel", "not available");
}

#[test]
fn upstream_off_stands_alone() {
    let config = read(&with("[upstream]\nurl = \"off\"\nusername = \"x\"")).unwrap();
    assert_eq!(config.upstream, None);
}

#[test]
fn two_clients_of_one_broker_need_two_ids() {
    let text = "[upstream]\nurl = \"mqtt://b\"\nclient_id = \"x\"\n[[mqtt]]\nname = \"m\"\n\
                url = \"mqtt://b:1883\"\nclient_id = \"x\"";
    expect_mistake(&with(text), "mqtt.client_id", "[upstream] has the client id");
    let text = "[upstream]\nurl = \"mqtt://b\"\n[[mqtt]]\nname = \"m\"\nurl = \"mqtt://b\"";
    assert!(read(&with(text)).is_ok(), "the default ids differ");
}

#[test]
fn beyond_loopback_a_token_is_required() {
    expect_mistake(&with("[http]\nlisten = \"0.0.0.0:8480\""), "http.listen", "token_file");
    expect_mistake(&with("[http]\nlisten = \"0.0.0.0:8480\""), "http.listen", "insecure = true");
    assert_eq!(read(&with("[http]\nlisten = \"off\"")).unwrap().http.listen, None);
    assert!(read(&with("[http]\nlisten = \"[::1]:0\"")).is_ok());
}

#[test]
fn a_deadline_cannot_modify() {
    expect_mistake(&with("[approval]\ndefault = \"modify\""), "approval.default", "cannot modify");
}

#[test]
fn people_and_their_hours_are_checked() {
    let shift = |shift: &str| with(&format!("[[technician]]\nid = \"t\"\nshifts = [{shift}]"));
    let night = read(&shift("{ days = \"mon-sun\", from = \"22:00\", to = \"06:00\" }")).unwrap();
    assert_eq!(night.technicians[0].shifts[0].to_minute, 360);
    expect_mistake(&shift(""), "technician.shifts", "at least one");
    let key = "technician.shifts.to";
    expect_mistake(
        &shift("{ days = \"mon\", from = \"06:00\", to = \"06:00\" }"),
        key,
        "whole day",
    );
    expect_mistake(&shift("{ days = \"mon\", from = \"06:00\", to = \"25:00\" }"), key, "24:00");
    let absence = "[[absence]]\ntechnician = \"nobody\"\nfrom = 2026-01-02T00:00:00Z\n\
                   to = \"2026-01-01T00:00:00Z\"";
    expect_mistake(&with(absence), "absence.technician", "there is no technician `nobody`");
    expect_mistake(&with(absence), "absence.to", "later than `from`");
}

#[test]
fn a_decision_row_that_can_never_count_is_a_mistake() {
    let table = "[[decision]]\nmin_confidence = 0.5\naction = \"ask\"\n\
                 [[decision]]\nwithin = \"7d\"\nmin_confidence = 0.9\naction = \"act\"";
    expect_mistake(&with(table), "decision", "row 1 matches all");
    let default = default_decisions();
    for (later, row) in default.iter().enumerate() {
        for earlier in &default[..later] {
            let covered = earlier.within.is_none_or(|w| row.within.is_some_and(|x| w >= x))
                && earlier.min_confidence <= row.min_confidence
                && earlier.min_criticality <= row.min_criticality
                && earlier.min_severity <= row.min_severity;
            assert!(!covered, "{earlier:?} hides {row:?}");
        }
    }
}

#[test]
fn rules_refer_to_what_exists() {
    let rule = |lines: &str| with(&format!("[[rule]]\nname = \"r\"\n{lines}"));
    assert!(read(&rule("adjust = 0.2\nwhen = { tag = \"P-101/temp\", max = 5 }")).is_ok());
    expect_mistake(&rule("adjust = 2.0"), "rule.adjust", "-1 to 1");
    expect_mistake(&rule("adjust = 0.1\ntags = [\"tmp\"]"), "rule.tags", "no asset has a tag");
    expect_mistake(
        &rule("adjust = 0.1\nwhen = { tag = \"P-101/tmp\", max = 5 }"),
        "rule.when.tag",
        "did you mean `P-101/temp`?",
    );
}

#[test]
fn the_environment_overrides_by_name() {
    let config = read_with(
        MINIMAL,
        &[
            ("WHEELTAP__GATEWAY__ID", "7"),
            ("WHEELTAP__STORE__MAX_DISK", "1GiB"),
            ("WHEELTAP__MODBUS__PLC_1__URL", "tcp://10.0.0.7:1502"),
            ("WHEELTAP__MODBUS__PLC_1__UNIT", "9"),
            ("WHEELTAP__MODBUS__PLC_1__TAG__TEMP__LIMITS__HIGH", "80.5"),
            ("WHEELTAP__MODBUS__PLC_1__TAG__TEMP__RANGE", "[0, 100]"),
            ("WHEELTAP__ASSET__P_101__CRITICALITY", "5"),
            ("WHEELTAP", "no override"),
            ("STATE_DIRECTORY", "/var/lib/one:/var/lib/two"),
        ],
    )
    .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.gateway.id, "7");
    assert_eq!(config.gateway.data_dir, Path::new("/var/lib/one"));
    assert_eq!(config.store.max_disk, 1 << 30);
    assert_eq!(config.modbus[0].link.to_string(), "tcp://10.0.0.7:1502");
    let tag = &config.modbus[0].tags[0];
    assert_eq!(tag.point.unit, 9);
    assert_eq!((tag.tag.limits.high, tag.tag.range), (Some(80.5), Some((0.0, 100.0))));
    assert_eq!(config.assets[0].criticality.level(), 5);
}

#[test]
fn an_unknown_or_wrong_variable_is_an_error_that_names_it() {
    for (name, what) in [
        ("WHEELTAP__GATEWAY__SIET", "did you mean `site`?"),
        ("WHEELTAP__NOPE__X", "unknown key"),
        ("WHEELTAP__MODBUS__PLC2__URL", "no [[modbus]] has the name PLC2"),
        ("WHEELTAP__MODBUS__PLC_1", "names no key"),
        ("WHEELTAP__DECISION__X__ACTION", "has no name"),
        ("WHEELTAP__gateway__site", "upper case"),
        ("WHEELTAP__GATEWAY", "must be a table"),
        ("WHEELTAP__", "names no key"),
        ("WHEELTAP__STORE__COMMIT_EVERY", "is no duration"),
        ("WHEELTAP__DETECTION__LEARN__X", "is no table"),
    ] {
        let text = with("[detection]\nlearn = \"1h\"");
        let errors = read_with(&text, &[(name, "x")]).expect_err(name);
        let printed = errors.to_string();
        assert!(printed.contains(&format!("${name}:1:1: ")), "{printed}");
        assert!(printed.contains(what), "{name}: {printed}");
    }
}

#[test]
fn secrets_come_from_files_that_nobody_else_reads() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("password", "hunter2\n", 0o600);
    write("open", "hunter2\n", 0o644);
    write("token", "a-token\n", 0o600);
    let read = |extra: &str, env: &[(&str, &str)]| {
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse(&with(extra), &dir.path().join("plant.toml"), &env)
    };
    let upstream = |file: &str| {
        format!("[upstream]\nurl = \"mqtt://b\"\nusername = \"u\"\npassword_file = \"{file}\"")
    };
    let config = read(&upstream("password"), &[]).unwrap();
    let broker = config.upstream.unwrap().broker;
    assert_eq!(broker.password.as_ref().map(Secret::expose), Some("hunter2"));
    assert!(!format!("{broker:?}").contains("hunter2"));
    let error = read(&upstream("open"), &[]).unwrap_err().to_string();
    assert!(error.contains("open to others (mode 0644)"), "{error}");
    let error = read(&upstream("nowhere"), &[]).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    let http = "[http]\nlisten = \"0.0.0.0:80\"\ninsecure = true\ntoken_file = \"token\"";
    assert_eq!(read(http, &[]).unwrap().http.tokens.len(), 1);

    // systemd's directory comes first; its files show the ACL's mask as the group's bits.
    let credentials = tempfile::tempdir().unwrap();
    let path = credentials.path().join("open");
    std::fs::write(&path, "other\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
    let env = [("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())];
    let config = read(&upstream("open"), &env).unwrap();
    let broker = config.upstream.unwrap().broker;
    assert_eq!(broker.password.as_ref().map(Secret::expose), Some("other"));
}

#[test]
fn the_hash_follows_what_is_in_force_and_not_how_it_is_written() {
    let hash = |text: &str| read(text).unwrap().hash;
    assert_eq!(hash(MINIMAL), hash(&with("# a remark\n[store]\nmax_disk = \"512MiB\"")));
    assert_ne!(hash(MINIMAL), hash(&with("[store]\nmax_disk = \"511MiB\"")));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_one_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.toml");
    assert!(load(&path).unwrap_err().to_string().contains("cannot be read"));
    assert!(load(dir.path()).unwrap_err().to_string().contains("directory"));
    std::fs::write(&path, b"[gateway]\nsite = \"\xff\"\n").unwrap();
    let errors = load(&path).unwrap_err();
    assert_eq!((errors.mistakes[0].line, errors.mistakes[0].column), (2, 9));
}

/// Mutations of the reference: bytes changed, lines dropped, doubled and swapped, values replaced
/// by odd ones. Whatever comes of it, the answer is a configuration or mistakes with lines.
#[test]
fn mutated_configurations_are_refused_with_lines_and_never_panic() {
    let seed = std::env::var("WHEELTAP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("WHEELTAP_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut refused = 0;
    for round in 0..400 {
        let mut text = REFERENCE.to_owned();
        for _ in 0..random.usize(1..6) {
            text = mutate(&mut random, &text);
        }
        match read(&text) {
            Ok(config) => assert_eq!(config.hash.len(), 64),
            Err(errors) => {
                refused += 1;
                assert!(!errors.mistakes.is_empty(), "round {round}");
                let lines = text.lines().count() + 1;
                for mistake in &errors.mistakes {
                    assert!(mistake.line >= 1 && mistake.line <= lines, "round {round}: {mistake}");
                    assert!(mistake.column >= 1, "round {round}: {mistake}");
                    assert!(!mistake.what.is_empty(), "round {round}: {mistake}");
                }
            }
        }
    }
    assert!(refused >= 100, "only {refused} of 400 mutations were mistakes");
}

fn mutate(random: &mut fastrand::Rng, text: &str) -> String {
    const ODD: [&str; 14] = [
        "nan",
        "-inf",
        "0",
        "-1",
        "99999999999999999999",
        "\"\"",
        "true",
        "[]",
        "{}",
        "\"\u{0}\"",
        "1979-05-27",
        "[[1]]",
        "\"é\u{1F527}\"",
        "'''x",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    let index = random.usize(..lines.len());
    match random.u8(0..7) {
        0 => {
            lines.remove(index);
        }
        1 => lines.insert(index, lines[index].clone()),
        2 => {
            let other = random.usize(..lines.len());
            lines.swap(index, other);
        }
        3 | 4 => {
            if let Some((key, _)) = lines[index].clone().split_once('=') {
                lines[index] = format!("{key}= {}", ODD[random.usize(..ODD.len())]);
            }
        }
        5 => {
            let mut bytes = lines[index].clone().into_bytes();
            if !bytes.is_empty() {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            lines[index] = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ => lines.truncate(index.max(1)),
    }
    lines.join("\n")
}

#[test]
fn computed_tags_name_their_mistakes() {
    let with = |computed: &str| {
        let text = format!(
            "[gateway]\nsite = \"s\"\nid = \"g\"\n[[asset]]\nid = \"M-1\"\nname = \"m\"\n\
             class = \"motor\"\ncriticality = 3\n[[mqtt]]\nname = \"m\"\nurl = \"mqtt://h\"\n\
             [[mqtt.tag]]\nid = \"flow\"\nasset = \"M-1\"\ntopic = \"t\"\n{computed}"
        );
        match parse(&text, Path::new("w.toml"), &BTreeMap::new()) {
            Ok(config) => config.computed.iter().map(|tag| tag.tag.path.to_string()).collect(),
            Err(errors) => errors.to_string(),
        }
    };
    let tag = |id: &str, expression: &str| {
        format!("[[computed]]\nid = \"{id}\"\nasset = \"M-1\"\nexpression = \"{expression}\"\n")
    };
    assert_eq!(with(&(tag("b", "a * 2") + &tag("a", "flow / 2"))), "M-1/aM-1/b");
    let wrong = with(&tag("a", "flwo + 1"));
    assert!(wrong.contains("there is no tag `M-1/flwo`: did you mean `M-1/flow`?"), "{wrong}");
    let wrong = with(&tag("a", "flow +"));
    assert!(
        wrong.contains("w.toml:19:14: computed.expression: `flow +`, at character 7"),
        "{wrong}"
    );
    let wrong = with(&(tag("a", "b + flow") + &tag("b", "a")));
    assert!(wrong.contains("`M-1/a` rests on itself") && wrong.contains("`M-1/b`"), "{wrong}");
    assert!(with(&tag("a", "1 + 1")).contains("names no tag"));
    assert!(with(&(tag("a", "flow") + "scale = 2\n")).contains("write it as arithmetic"));
    assert!(with(&(tag("flow", "flow"))).contains("declared twice, first in source `m`"));
}

#[test]
fn modbus_links_are_read_or_explained() {
    let source = |url: &str, lines: &str| {
        with(&format!("[[modbus]]\nname = \"s\"\nurl = \"{url}\"\n{lines}"))
    };
    let link = |url: &str, lines: &str| {
        let text = source(url, lines);
        let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
        config.modbus[1].link.to_string()
    };
    for (url, whole) in [
        ("tcp://10.0.0.1", "tcp://10.0.0.1:502"),
        ("tls://plc.example", "tls://plc.example:802"),
        ("tls://[::1]:8802/", "tls://[::1]:8802"),
        ("rtu+tcp://10.0.0.2:4001", "rtu+tcp://10.0.0.2:4001?baud=19200"),
        ("rtu+tcp://10.0.0.2/?baud=9600", "rtu+tcp://10.0.0.2:502?baud=9600"),
        ("rtu:///dev/ttyUSB0", "rtu:///dev/ttyUSB0?baud=19200&parity=even&data=8&stop=1"),
        (
            "rtu:///dev/serial/by-id/usb-FTDI-if00?baud=9600&parity=mark&stop=2&data=8",
            "rtu:///dev/serial/by-id/usb-FTDI-if00?baud=9600&parity=mark&data=8&stop=2",
        ),
    ] {
        assert_eq!(link(url, ""), whole, "{url}");
    }
    for (url, what) in [
        ("udp://a", "is no Modbus address"),
        ("rtu://ttyUSB0", "names no device"),
        ("rtu:///dev/", "names no device"),
        ("rtu:///dev/ttyUSB0?baud=9", "baud=9 is not possible"),
        ("rtu:///dev/ttyUSB0?parity=e", "parity=e is not possible"),
        ("rtu:///dev/ttyUSB0?stop=3", "stop=3 is not possible"),
        ("rtu:///dev/ttyUSB0?data=7", "needs 8 bits"),
        ("rtu:///dev/ttyUSB0?speed=1", "`speed` is unknown"),
        ("rtu:///dev/ttyUSB0?baud=300&baud=600", "given twice"),
        ("rtu:///dev/ttyUSB0?baud", "should be KEY=VALUE"),
        ("tcp://a?baud=9600", "has a query"),
        ("rtu+tcp://a/x", "has a path"),
        ("rtu+tcp://a?parity=even", "`parity` is unknown"),
    ] {
        expect_mistake(&source(url, ""), "modbus.url", what);
    }
    expect_mistake(&source("rtu:///dev/ttyUSB0", "unit = 255"), "modbus.unit", "is 255");
}

#[test]
fn line_options_are_read_and_must_have_an_effect() {
    let source = |url: &str, lines: &str| {
        with(&format!("[[modbus]]\nname = \"s\"\nurl = \"{url}\"\n{lines}"))
    };
    let text = source(
        "rtu:///dev/ttyUSB0",
        "pause_after_connect = \"100ms\"\npause_between_requests = \"10ms\"\n\
         pause_on_unit_change = \"20ms\"\nclose_connection_after_gather = true\n\
         local_echo = true\nbackup_url = \"rtu+tcp://10.0.0.2\"\n\
         rs485 = { delay_rts_before_send = \"1ms\", delay_rts_after_send = \"2ms\", \
         rts_high_during_send = true, rts_high_after_send = false, rx_during_tx = true }",
    );
    let config = read(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let line = &config.modbus[1].line;
    assert_eq!(line.pause_after_connect, std::time::Duration::from_millis(100));
    assert_eq!(line.pause_on_unit_change, std::time::Duration::from_millis(20));
    assert!(line.close_connection_after_gather && line.local_echo && !line.listen);
    assert_eq!(line.backup.as_ref().map(super::Link::address), Some("10.0.0.2:502".to_owned()));
    let rs485 = line.rs485.unwrap();
    assert!(rs485.rts_high_during_send && rs485.rx_during_tx && !rs485.rts_high_after_send);
    for (url, lines, key, what) in [
        ("tcp://a", "rs485 = {}", "modbus.rs485", "has no effect"),
        ("tcp://a", "local_echo = true", "modbus.local_echo", "has no effect"),
        ("tcp://a", "ca_file = \"x\"", "modbus.ca_file", "has no effect"),
        ("tcp://a", "pause_after_connect = \"2m\"", "modbus.pause_after_connect", "longer than"),
        ("tcp://a", "listen = true", "modbus.listen", "needs an address of this machine"),
        ("tls://0.0.0.0", "listen = true", "modbus.listen", "tcp:// and rtu+tcp:// only"),
        ("tcp://a", "backup_url = \"tcp://a\"", "modbus.backup_url", "the same as `url`"),
        (
            "tcp://0.0.0.0:5020",
            "listen = true\nbackup_url = \"tcp://a\"",
            "modbus.backup_url",
            "has no effect with `listen`",
        ),
        (
            "rtu:///dev/ttyS1",
            "rs485 = { delay_rts_before_send = \"1s\" }",
            "modbus.rs485.delay_rts_before_send",
            "longer than the kernel's",
        ),
    ] {
        expect_mistake(&source(url, lines), key, what);
    }
}

#[test]
fn sources_with_one_url_share_the_options_of_their_line() {
    let two = |first: &str, second: &str| {
        with(&format!(
            "[[modbus]]\nname = \"a\"\nurl = \"tcp://10.0.0.1\"\n{first}\n\
             [[modbus]]\nname = \"b\"\nurl = \"tcp://10.0.0.1:502\"\n{second}"
        ))
    };
    let pause = "pause_between_requests = \"10ms\"";
    let config = read(&two(pause, "")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.modbus[1].line, config.modbus[2].line);
    assert!(read(&two(pause, pause)).is_ok());
    expect_mistake(&two("", pause), "modbus.url", "says otherwise");
}
