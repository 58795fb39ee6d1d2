use std::fs;
use std::path::Path;

use super::*;

fn csv(units: usize, rows: usize) -> String {
    let mut text = String::from("unit,cycle,heat,noise\n");
    let mut random = fastrand::Rng::with_seed(3);
    for unit in 0..units {
        let life = rows + 10 * (unit % 4);
        for at in 0..life {
            let heat = at as f64 / life as f64 + 0.1 * random.f64();
            text += &format!("u{unit},{at},{heat:.4},{:.4}\n", random.f64());
        }
    }
    text
}

fn train_on(folder: &Path, text: &str) -> Result<PathBuf, Failure> {
    let (input, output) = (folder.join("train.csv"), folder.join("m.model"));
    fs::write(&input, text).unwrap();
    train(&Train {
        input,
        unit_column: "unit".to_owned(),
        time_column: "cycle".to_owned(),
        ignore: Vec::new(),
        separator: b',',
        seed: 1,
        output: output.clone(),
    })?;
    Ok(output)
}

fn predict_with(folder: &Path, model: &Path, text: &str, all: bool) -> Result<String, Failure> {
    let (input, output) = (folder.join("ask.csv"), folder.join("said.csv"));
    fs::write(&input, text).unwrap();
    predict(&Predict {
        model: model.to_owned(),
        input,
        all_rows: all,
        separator: b',',
        output: Some(output.clone()),
        explain: Some(folder.join("why.jsonl")),
    })?;
    Ok(fs::read_to_string(output).unwrap())
}

fn trained() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = train_on(folder.path(), &csv(5, 60)).unwrap();
    (folder, model)
}

#[test]
fn each_unit_gets_a_row_in_the_order_of_the_input() {
    let (folder, model) = trained();
    let mut text = String::from("noise,unit,cycle,extra,heat\n");
    for at in 0..40 {
        // Rows of two units interleaved, columns in another order, one that was not there.
        text +=
            &format!("0.5,second,{at}.50,x,{}\n0.5,\"fir,st\",{at},y,0.9\n", f64::from(at) / 60.0);
    }
    let said = predict_with(folder.path(), &model, &text, false).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "unit,time,rul_p10,rul_p50,rul_p90");
    assert!(lines[1].starts_with("second,39.50,"), "{}", lines[1]);
    assert!(lines[2].starts_with("\"fir,st\",39,"), "{}", lines[2]);
    assert_eq!(lines.len(), 3);
    let all = predict_with(folder.path(), &model, &text, true).unwrap();
    assert_eq!(all.lines().count(), 81);
    assert_eq!(all.lines().nth(79).unwrap(), lines[1]);
    assert!(all.lines().nth(1).unwrap().ends_with(",,,"), "nothing is said at the first row");
    let why = fs::read_to_string(folder.path().join("why.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(why.lines().last().unwrap()).unwrap();
    assert_eq!(last["unit"], "fir,st");
    assert!(
        last["contributions"]["heat"].is_number()
            || last["contributions"]["health line"].is_number()
    );
}

#[test]
fn too_few_units_train_and_predictions_abstain() {
    let folder = tempfile::tempdir().unwrap();
    for units in 1..3 {
        let model = train_on(folder.path(), &csv(units, 60)).unwrap();
        let said = predict_with(folder.path(), &model, &csv(1, 30), false).unwrap();
        assert_eq!(said, "unit,time,rul_p10,rul_p50,rul_p90\nu0,29,,,\n");
    }
}

#[test]
fn times_of_day_give_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let dated = |text: String| {
        let lines = text.lines().map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let Ok(minute) = cells[1].parse::<u32>() else { return line.to_owned() };
            let time = format!("2026-03-01 {:02}:{:02}:00", minute / 60, minute % 60);
            [cells[0], &time, cells[2], cells[3]].join(",")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let model = train_on(folder.path(), &dated(csv(5, 60))).unwrap();
    let asked: Vec<String> = dated(csv(1, 60)).lines().take(31).map(str::to_owned).collect();
    let said = predict_with(folder.path(), &model, &asked.join("\n"), false).unwrap();
    let line = said.lines().nth(1).unwrap();
    let cells: Vec<&str> = line.split(',').collect();
    assert_eq!(cells[1], "2026-03-01 00:29:00");
    let rul: f64 = cells[3].parse().unwrap();
    assert!((600.0..3600.0).contains(&rul), "{line}");
}

#[test]
fn bad_rows_are_named_by_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let with = |text: &str| train_on(folder.path(), text).unwrap_err().to_string();
    for (text, wanted) in [
        ("", "line 1: no rows"),
        ("unit,cycle,heat\n", "line 2: no rows"),
        ("unit,cycle,heat\na,1,2\na,2\n", "line 3: 2 cells, the header has 3"),
        ("unit,cycle,heat\na,1,warm\n", "line 2: column `heat`: `warm` is no number"),
        ("unit,cycle,heat\na,soon,2\n", "line 2: `soon` is no time"),
        (
            "unit,cycle,heat\na,1,2\nb,1,2\na,1,3\n",
            "line 4: unit `a`: time 1 does not come after 1",
        ),
        ("unit,cycle,heat\na,2,2\na,1,3\n", "line 3: unit `a`: time 1 does not come after 2"),
        ("unit,cycle,heat\n,2,2\n", "line 2: no unit is named"),
        ("engine,cycle,heat\na,2,2\n", "line 1: no column `unit`; there are: engine, cycle, heat"),
        ("unit,cycle\na,2\n", "line 1: no column is left to learn from"),
        ("unit,cycle,heat,heat\na,2,1,1\n", "line 1: two columns `heat`"),
    ] {
        let error = with(text);
        assert!(error.contains(wanted), "{error}: wanted {wanted}");
    }
}

#[test]
fn features_missing_at_prediction_are_named() {
    let (folder, model) = trained();
    let error = predict_with(folder.path(), &model, "unit,cycle,heat\na,1,2\n", false).unwrap_err();
    assert!(error.to_string().contains("no column `noise`"), "{error}");
}

#[test]
fn empty_cells_are_missing_values() {
    let (folder, model) = trained();
    let mut text = String::from("unit,cycle,heat,noise\n");
    for at in 0..40 {
        text += &if at < 20 { format!("a,{at},0.{at:02},0.5\n") } else { format!("a,{at},,NaN\n") };
    }
    let said = predict_with(folder.path(), &model, &text, true).unwrap();
    assert!(!said.lines().nth(20).unwrap().ends_with(",,,"));
    assert!(said.lines().nth(40).unwrap().ends_with(",,,"), "nothing was heard for 20 rows");
}

#[test]
fn an_altered_or_foreign_model_is_refused() {
    let (folder, model) = trained();
    let ask = |bytes: &[u8]| {
        let path = folder.path().join("other.model");
        fs::write(&path, bytes).unwrap();
        predict_with(folder.path(), &path, "unit,cycle,heat,noise\na,1,2,3\n", false)
            .unwrap_err()
            .to_string()
    };
    let bytes = fs::read(&model).unwrap();
    assert!(ask(b"").contains("not a model"));
    assert!(ask(b"unit,cycle\n1,2,3,4,5,6,7").contains("not a model"));
    let mut altered = bytes.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 4;
    assert!(ask(&altered).contains("damaged"));
    assert!(ask(&bytes[..bytes.len() - 1]).contains("damaged"));
    let other = model_file::seal(Kind::Classification, &1u8).unwrap();
    assert!(ask(&other).contains("a model of classes"));
}
