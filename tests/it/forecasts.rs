//! `wheeltap forecast` as a process: the form of its tables, and what bad recordings get.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::daemon::WHEELTAP;

fn forecast(text: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(WHEELTAP)
        .args(["forecast", "--input", "-", "--column", "value"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have refused its arguments without reading.
    child.stdin.take().unwrap().write_all(text.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A day's wave in ten-minute values, `write(index)` as the time.
fn wave(rows: u32, write: impl Fn(u32) -> String) -> String {
    let mut csv = String::from("time,value\n");
    for row in 0..rows {
        let value = (f64::from(row) * std::f64::consts::TAU / 144.0).sin() * 10.0;
        let noise = f64::from(row * 7919 % 13) / 13.0;
        writeln!(csv, "{},{}", write(row), 50.0 + value + noise).unwrap();
    }
    csv
}

fn numbers(line: &str) -> Vec<f64> {
    line.split(',').map(|cell| cell.parse().unwrap_or(f64::NAN)).collect()
}

#[test]
fn a_forecast_has_the_form_of_the_contract() {
    let csv = wave(600, |row| {
        format!("2026-05-0{} {:02}:{:02}:00", 1 + row / 144, row / 6 % 24, row % 6 * 10)
    });
    let output = forecast(&csv, &["--horizon", "12", "--limit", "1000"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("season of 144 points"), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let (table, quantiles) = out.split_once("\n\n").unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "step,time,mean,lower_80,upper_80,lower_95,upper_95");
    assert_eq!(lines.len(), 13);
    assert!(lines[1].starts_with("1,2026-05-05 04:00:00,"), "{}", lines[1]);
    assert!(lines[12].starts_with("12,2026-05-05 05:50:00,"), "{}", lines[12]);
    for line in &lines[1..] {
        let row = numbers(line);
        assert!(row[5] <= row[3] && row[3] <= row[2] && row[2] <= row[4] && row[4] <= row[6]);
    }
    // Out of reach: empty, and still a row each.
    assert_eq!(quantiles, "quantile,step,time\np10,,\np50,,\np90,,\n");
    // Two thirds down the slope: reached within the three hours after the recording's end.
    let crest = forecast(&csv, &["--horizon", "72", "--limit", "56"]);
    let p50 = text(&crest.stdout).lines().find(|line| line.starts_with("p50,")).unwrap().to_owned();
    assert!(p50.starts_with("p50,") && !p50.ends_with(','), "{p50}");
}

#[test]
fn other_levels_and_numbers_as_times() {
    let csv = wave(600, |row| (1_700_000_000 + 600 * row).to_string());
    let output = forecast(&csv, &["--horizon", "2", "--level", "50,99.5"]);
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(lines[0], "step,time,mean,lower_50,upper_50,lower_99.5,upper_99.5");
    assert!(lines[1].starts_with("1,1700360000,"), "{}", lines[1]);
    for (arguments, code) in [
        (["--horizon", "0", "--level", "80"], 64),
        (["--horizon", "5000", "--level", "80"], 64),
        (["--horizon", "5", "--level", "100"], 64),
        (["--horizon", "5", "--level", "80,80"], 64),
        (["--horizon", "300", "--level", "80"], 1),
    ] {
        let output = forecast(&csv, &arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn bad_recordings_are_refused_and_odd_ones_told() {
    let refused = [
        ("time,value\n", "line 2: no rows"),
        ("", "line 1"),
        ("time,other\n1,2\n", "no column `value`"),
        ("time,value\n1,2\n2\n", "line 3"),
        ("time,value\n1,2\n2,two\n", "line 3: column `value`: `two`"),
        ("time,value\n1,2\nlater,2\n", "line 3: `later` is no time"),
        ("time,value\n1,NaN\n2,\n3,null\n", "0 usable values"),
        ("time,value\n1,5\n2,6\n3,7\n", "3 points of history are too few"),
    ];
    for (csv, why) in refused {
        let output = forecast(csv, &["--horizon", "3"]);
        assert_eq!(output.status.code(), Some(1), "{csv:?}");
        assert!(text(&output.stderr).contains(why), "{csv:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{csv:?}");
    }
    let constant: String =
        (0..100).fold("time,value\n".to_owned(), |csv, row| csv + &format!("{row},7.5\n"));
    let output = forecast(&constant, &["--horizon", "3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("constant at 7.5"), "{}", text(&output.stderr));

    // Twice the same rows, the newest first, one in five without a value.
    let csv = wave(400, |row| (1_700_000_000 + 600 * row).to_string());
    let mut rows: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
    for row in rows.iter_mut().step_by(5) {
        let (time, _) = row.split_once(',').unwrap();
        *row = format!("{time},");
    }
    rows.reverse();
    let odd = format!("time,value\n{}\n{}\n", rows.join("\n"), rows.join("\n"));
    let output = forecast(&odd, &["--horizon", "6"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for said in ["not in order of time", "repeat a time", "have no value", "were filled"] {
        assert!(text(&output.stderr).contains(said), "{said}: {}", text(&output.stderr));
    }
    assert!(text(&output.stdout).lines().nth(1).unwrap().starts_with("1,1700240000,"));
}

#[test]
fn a_forecast_goes_into_a_file_and_a_missing_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("next.csv");
    let csv = wave(300, |row| (600 * row).to_string());
    let output = forecast(&csv, &["--horizon", "4", "--output", file.to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 5);
    let output = Command::new(WHEELTAP)
        .args(["forecast", "--input", "/nowhere.csv", "--column", "v", "--horizon", "3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/nowhere.csv"));
}
