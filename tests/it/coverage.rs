//! docs/acquisition.md says which test covers what: it may name only tests that exist, and leave out
//! no row.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn collect(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Names of all functions in the sources, tests and benches.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for folder in ["src", "tests", "benches"] {
        collect(&root.join(folder), &mut text);
    }
    let name = |rest: &str| -> String {
        rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    text.split("fn ").skip(1).map(name).collect()
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/acquisition.md");
    fs::read_to_string(path).unwrap()
}

/// The rows of the tables: first cell and last cell.
fn rows(document: &str) -> Vec<(String, String)> {
    let lines = document.lines().filter(|line| line.starts_with("| "));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            (cells[0].to_owned(), cells[cells.len() - 1].to_owned())
        })
        .filter(|(first, _)| !["#", "id", "---"].contains(&first.as_str()))
        .collect()
}

#[test]
fn every_test_that_is_cited_exists() {
    let known = functions();
    let document = document();
    // What is in quotes and has three words or more is the name of a test.
    let quoted: Vec<&str> = document.split('`').skip(1).step_by(2).collect();
    let cited: Vec<&str> = quoted
        .into_iter()
        .filter(|text| text.split('_').count() > 2 && !text.contains('/'))
        .collect();
    assert!(cited.len() > 50, "only {} are cited", cited.len());
    let missing: Vec<&str> = cited.into_iter().filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/acquisition.md cites what is not there: {missing:#?}");
}

#[test]
fn every_row_is_there_once_and_says_something() {
    let document = document();
    let rows = rows(&document);
    let count = |id: &str| rows.iter().filter(|(first, _)| first == id).count();
    let numbered = (1..=60).map(|number: u32| number.to_string());
    let failures = [("C", 21), ("D", 11), ("E", 5)].into_iter().flat_map(|(letter, last)| {
        (1..=last).map(move |number: u32| format!("{letter}{number:02}"))
    });
    for id in numbered.chain(failures) {
        assert_eq!(count(&id), 1, "row {id}");
    }
    for (id, covered) in &rows {
        assert!(!covered.is_empty(), "row {id} is empty");
    }
}
