//! `wheeltap import` and `wheeltap export`: history in and readings out, as processes.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::support::daemon::Home;

const PLANT: &str = "[upstream]\nurl = \"off\"\n\
    [[asset]]\nid = \"P-1\"\nname = \"Pump\"\nclass = \"pump\"\ncriticality = 3\n\
    [[asset]]\nid = \"P-2\"\nname = \"Pump\"\nclass = \"pump\"\ncriticality = 3\n\
    [[mqtt]]\nname = \"line\"\nurl = \"mqtt://127.0.0.1:1\"\n\
    [[mqtt.tag]]\nid = \"t\"\nasset = \"P-1\"\ntopic = \"a\"\n\
    [[mqtt.tag]]\nid = \"p\"\nasset = \"P-1\"\ntopic = \"b\"\nlimits = { high = 90.0 }\n\
    [[mqtt.tag]]\nid = \"t\"\nasset = \"P-2\"\ntopic = \"c\"\nrange = [0.0, 50.0]\n";

fn home() -> Home {
    Home::new(PLANT)
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Imports a text; exit code and what was said.
fn import(home: &Home, text: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let file = home.config().with_file_name("history.csv");
    fs::write(&file, text).unwrap();
    let config = home.config();
    let fixed = ["import", "--input", file.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let output = home.run(&[&fixed[..], arguments].concat());
    (output.status.code(), said(&output))
}

fn export(home: &Home, arguments: &[&str]) -> String {
    let data = home.data().to_str().unwrap().to_owned();
    let output = home.run(&[&["export", "--data-dir", &data], arguments].concat());
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Rows as they may come out of a plant, some of them twice; the first column is the time.
fn history(random: &mut fastrand::Rng, count: usize) -> Vec<String> {
    const REASONS: [&str; 5] = ["comm", "range", "nan", "stale", "sensor-fault"];
    let mut time = 1_700_000_000_000_000_i64;
    let mut rows: Vec<String> = Vec::new();
    while rows.len() < count {
        if random.u8(0..20) == 0 && !rows.is_empty() {
            rows.push(rows[random.usize(..rows.len())].clone());
            continue;
        }
        // Mostly forward, now and then something late.
        time += if random.u8(0..10) == 0 {
            -random.i64(0..5_000_000)
        } else {
            random.i64(1..2_000_000)
        };
        let tag = ["P-1,t", "P-1,p", "P-2,t"][random.usize(0..3)];
        let value = match random.u8(0..6) {
            0 => f64::from(random.i32(-5..60)),
            1 => random.f64() * 1e-300,
            2 => -random.f64() * 1e300,
            3 => f64::from_bits(random.u64(..)),
            _ => random.f64() * 40.0,
        };
        let value = if value.is_finite() { value } else { 0.1 };
        let reason = REASONS[random.usize(0..REASONS.len())];
        let rest = match random.u8(0..8) {
            0 => format!(",bad,{reason}"),
            1 => format!("{value},bad,{reason}"),
            2 => format!("{value},uncertain,{reason}"),
            // Outside of the range of P-2/t the judgement would be another than the row's.
            _ if tag == "P-2,t" => format!("{},good,", random.f64() * 50.0),
            _ => format!("{value},good,"),
        };
        let rest = if tag == "P-2,t" && rest.contains("uncertain") {
            format!("{},uncertain,{reason}", random.f64() * 50.0)
        } else {
            rest
        };
        let moment: jiff::Timestamp = jiff::Timestamp::from_microsecond(time).unwrap();
        rows.push(format!("{moment},{tag},{rest}"));
    }
    rows
}

#[test]
fn what_is_exported_and_imported_is_what_was_there() {
    let seed = fastrand::u64(..);
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..4 {
        let rows = history(&mut random, 3000);
        let header = "time,asset,tag,value,quality,reason\n";
        let first = home();
        let (code, said) = import(&first, &format!("{header}{}\n", rows.join("\n")), &[]);
        assert_eq!(code, Some(0), "{said}");
        let out = export(&first, &[]);
        let there: Vec<&str> = out.lines().skip(1).collect();
        let expected: BTreeSet<&str> = rows.iter().map(String::as_str).collect();
        assert_eq!(there.iter().copied().collect::<BTreeSet<_>>(), expected);
        assert_eq!(there.len(), expected.len(), "each once");
        let second = home();
        assert_eq!(import(&second, &out, &[]).0, Some(0));
        assert_eq!(export(&second, &[]), out);
        let (code, said) = import(&second, &out, &[]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("0 readings imported"), "{said}");
        assert_eq!(export(&second, &[]), out, "a second import changes nothing");
    }
}

#[test]
fn bad_rows_are_named_by_line_and_lose_nothing_else() {
    let home = home();
    let text = "time,asset,tag,value,quality\n\
        2026-05-01T10:00:00Z,P-1,t,1.5,\n\
        2026-05-01T10:00:01Z,P-1,t,many,\n\
        2026-05-01T10:00:02Z,P-1,unknown,2,\n\
        yesterday,P-1,t,3,\n\
        2026-05-01T10:00:04Z,P-1,t,4\n\
        2026-05-01T10:00:05Z,P-1,t,5,fine\n\
        2026-05-01T10:00:06Z,P-1,t,,\n\
        2026-05-01T10:00:07Z,P-1,t,7,good\n";
    let (code, said) = import(&home, text, &[]);
    assert_eq!(code, Some(1));
    for (line, what) in [
        (3, "`many` is no number"),
        (4, "no source declares the tag P-1/unknown"),
        (5, "`yesterday` is no time"),
        (6, "4 cells, the header has 5"),
        (7, "`fine` is no quality"),
    ] {
        assert!(said.contains(&format!("history.csv: line {line}: {what}")), "{said}");
    }
    assert!(said.contains("2 readings imported, 0 were there already, 1 cells without"), "{said}");
    let mended = text.replace("many", "2.5").replace("yesterday", "2026-05-01T10:00:03Z");
    let (code, said) = import(&home, &mended, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("2 readings imported, 2 were there already"), "{said}");
    let values: Vec<String> =
        export(&home, &[]).lines().skip(1).map(|l| l.split(',').nth(3).unwrap().into()).collect();
    assert_eq!(values, ["1.5", "7", "2.5", "3"]);
    for (text, what) in [
        ("", "line 1: no header"),
        ("time,asset,tag\n", "no column `value`"),
        ("time,asset,tag,value\n", "line 2: no rows"),
        ("time,asset,tag,value,value\n", "`value` is there twice"),
    ] {
        let (code, said) = import(&home, text, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn a_wide_file_is_one_column_a_tag() {
    let home = home();
    let text = "stamp;t;p;shift\n2026-05-01 10:00:00;1.5;80;a\n1777629660;;81;b\n";
    let wide = ["--asset", "P-1", "--time-column", "stamp", "--separator", ";"];
    let (code, said) = import(&home, text, &wide);
    assert_eq!(code, Some(1), "`a` is no number: {said}");
    let ignoring = [&wide[..], &["--ignore", "shift"]].concat();
    let (code, said) = import(&home, text, &[&ignoring[..], &["--dry-run"]].concat());
    assert_eq!((code, said.contains("3 readings could be imported")), (Some(0), true), "{said}");
    let (code, said) = import(&home, text, &ignoring);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        export(&home, &["--tag", "P-1/p"]),
        "time,asset,tag,value,quality,reason\n\
         2026-05-01T10:00:00Z,P-1,p,80,good,\n2026-05-01T10:01:00Z,P-1,p,81,good,\n"
    );
    let json: Value = serde_json::from_str(&export(&home, &["--format", "json"])).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["time"], "2026-05-01T10:00:00Z");
    let from = ["--from", "2026-05-01T10:01:00Z", "--tag", "p"];
    assert_eq!(export(&home, &from).lines().count(), 2);
}

#[test]
fn history_beyond_a_limit_raises_nothing_and_a_running_daemon_keeps_its_directory() {
    let mut home = home();
    let row = |minute: u32, value: f64| format!("2026-05-01T10:{minute:02}:00Z,P-1,p,{value}\n");
    let rows: String = (0..60).map(|minute| row(minute, 95.0)).collect();
    let (code, said) = import(&home, &format!("time,asset,tag,value\n{rows}"), &[]);
    assert_eq!(code, Some(0), "{said}");
    let daemon = home.start();
    let asked =
        "/api/v1/readings?asset=P-1&tag=p&from=2026-05-01T10:00:00Z&to=2026-05-01T11:00:00Z";
    assert_eq!(daemon.http.list(asked).len(), 60);
    assert!(daemon.http.list("/api/v1/alarms").is_empty());
    let (code, said) = import(&home, "time,asset,tag,value\n2026-05-01T11:00:00Z,P-1,p,1\n", &[]);
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(export(&home, &[]).lines().count(), 61, "reading is possible meanwhile");
    assert_eq!(daemon.stop().0, Some(0));
    let data = home.data().to_str().unwrap().to_owned();
    assert!(home.run(&["db", "verify", "--data-dir", &data]).status.success());
}

#[test]
fn each_output_has_a_position_of_its_own() {
    let home = home();
    let row = |minute: u32| format!("2026-05-01T10:{minute:02}:00Z,P-1,t,{minute}\n");
    let put = |minutes: std::ops::Range<u32>| {
        let rows: String = minutes.map(row).collect();
        assert_eq!(import(&home, &format!("time,asset,tag,value\n{rows}"), &[]).0, Some(0));
    };
    let file = home.config().with_file_name("out.csv");
    let path = file.to_str().unwrap();
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count() - 1;
    put(0..10);
    let to_file = ["--since-last", "--output", path];
    export(&home, &to_file);
    assert_eq!(lines(&file), 10);
    put(10..15);
    export(&home, &to_file);
    assert_eq!(lines(&file), 5, "only what is new");
    export(&home, &to_file);
    assert_eq!(lines(&file), 0);
    assert_eq!(export(&home, &["--since-last"]).lines().count(), 16, "stdout had nothing yet");
    assert_eq!(export(&home, &["--since-last"]).lines().count(), 1);
    assert_eq!(export(&home, &[]).lines().count(), 16, "without the option all is written");
    // An output that cannot be written keeps its position.
    put(15..18);
    let data = home.data().to_str().unwrap().to_owned();
    let nowhere = ["export", "--data-dir", &data, "--since-last", "--output", "/nowhere/out.csv"];
    assert_eq!(home.run(&nowhere).status.code(), Some(1));
    export(&home, &to_file);
    assert_eq!(lines(&file), 3);
}
