use std::fs;
use std::path::Path;

use super::*;

fn csv(rows: usize) -> String {
    let mut random = fastrand::Rng::with_seed(3);
    let mut text = String::from("id,grade,load,state\n");
    for row in 0..rows {
        let (grade, load) = (["L", "H"][row % 2], random.f64());
        let state = if load > 0.8 { "fails, badly" } else { "holds" };
        text += &format!("{row},{grade},{load:.4},\"{state}\"\n");
    }
    text
}

fn train_on(folder: &Path, text: &str) -> Result<PathBuf, Failure> {
    let (input, output) = (folder.join("train.csv"), folder.join("m.model"));
    fs::write(&input, text).unwrap();
    train(&Train {
        input,
        label: "state".to_owned(),
        ignore: vec!["id".to_owned()],
        separator: b',',
        seed: 1,
        output: output.clone(),
    })?;
    Ok(output)
}

fn predict_with(
    folder: &Path,
    model: &Path,
    text: &str,
    threshold: f64,
) -> Result<String, Failure> {
    let (input, output) = (folder.join("ask.csv"), folder.join("said.csv"));
    fs::write(&input, text).unwrap();
    predict(&Predict {
        model: model.to_owned(),
        input,
        threshold,
        separator: b',',
        output: Some(output.clone()),
        explain: Some(folder.join("why.jsonl")),
    })?;
    Ok(fs::read_to_string(output).unwrap())
}

#[test]
fn rows_get_a_class_and_its_probability_without_label_and_ignored_columns() {
    let folder = tempfile::tempdir().unwrap();
    let model = train_on(folder.path(), &csv(400)).unwrap();
    let ask = "load,grade\n0.95,L\n0.1,never seen\n,\n";
    let said = predict_with(folder.path(), &model, ask, 0.5).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "row,label,probability");
    assert!(lines[1].starts_with("1,\"fails, badly\",0.9"), "{}", lines[1]);
    assert!(lines[2].starts_with("2,holds,0.9"), "{}", lines[2]);
    assert!(lines[3].starts_with("3,"), "{}", lines[3]);
    let why = fs::read_to_string(folder.path().join("why.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(why.lines().next().unwrap()).unwrap();
    assert!(first["contributions"]["load"].as_f64().unwrap() > 0.5, "{first}");
    let strict = predict_with(folder.path(), &model, ask, 1.0).unwrap();
    assert!(strict.lines().nth(1).unwrap().starts_with("1,holds,0.0"), "{strict}");
}

#[test]
fn figures_stand_beside_those_of_the_most_frequent_class() {
    let rows: Vec<Vec<Cell>> =
        (0..300).map(|row| vec![Cell::Number(f64::from(row % 50))]).collect();
    let labels: Vec<String> =
        (0..300).map(|row| if row % 50 > 44 { "bad" } else { "good" }.to_owned()).collect();
    let (model, figures) = classify::learn(&["x".to_owned()], &rows, &labels, 1).unwrap();
    let report = report(&model, &figures);
    assert!(report.contains("precision") && report.contains("PR-AUC"), "{report}");
    assert!(report.contains("always the most frequent class 0.9000"), "{report}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let with = |text: &str| train_on(folder.path(), text).unwrap_err().to_string();
    for (text, wanted) in [
        ("id,load,state\n", "line 2: no rows"),
        ("id,load,state\n1,2,a\n2,3\n", "line 3: 2 cells, the header has 3"),
        ("id,load,state\n1,2,a\n2,3,\n", "line 3: no label in column `state`"),
        ("id,load,state\n1,2,a\n2,3,a\n", "every row is labelled `a`"),
        ("id,load,state\n1,2,a\n2,2,b\n", "no column varies"),
        ("id,load,kind\n1,2,a\n", "no column `state`"),
        ("load,state\n1,a\n", "no column `id`"),
        ("id,state\n1,a\n", "no column is left to learn from"),
    ] {
        let error = with(text);
        assert!(error.contains(wanted), "{error}: wanted {wanted}");
    }
    let model = train_on(folder.path(), &csv(200)).unwrap();
    let error = predict_with(folder.path(), &model, "grade\nL\n", 0.5).unwrap_err();
    assert!(error.to_string().contains("no column `load`"), "{error}");
    let error = predict_with(folder.path(), &model, "load,grade\nmuch,L\n", 0.5).unwrap_err();
    assert!(error.to_string().contains("line 2: column `load`: `much` is no number"), "{error}");
    let mut bytes = fs::read(&model).unwrap();
    bytes[40] ^= 1;
    fs::write(&model, bytes).unwrap();
    let error = predict_with(folder.path(), &model, "load,grade\n1,L\n", 0.5).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}
