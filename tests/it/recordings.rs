//! `wheeltap detect` on recordings that are odd: what the result does not show is said on stderr.

use std::fs;
use std::process::Command;

use crate::support::daemon::WHEELTAP;

/// Rows of the result, and what was said.
fn detect(text: &str, arguments: &[&str]) -> (usize, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.csv");
    fs::write(&file, text).unwrap();
    let output = Command::new(WHEELTAP)
        .args(["detect", "--input", file.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows = String::from_utf8(output.stdout).unwrap().lines().count() - 1;
    (rows, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn odd_recordings_are_judged_with_a_warning() {
    let (rows, said) = detect("time,a\n1,1\n2,1\n3,1\n", &["--train-rows", "5"]);
    assert_eq!(rows, 3);
    assert!(said.contains("all 3 rows were learnt from (--train-rows 5)"), "{said}");
    let backwards = "time,a\n5,1\n6,1\n4,1\n7,1\n3,1\n";
    let (rows, said) = detect(backwards, &["--time-column", "time"]);
    assert_eq!(rows, 5);
    assert!(said.contains("backwards in 2 rows, first at line 4"), "{said}");
    let (_, said) = detect("a,a\n1,2\n", &[]);
    assert!(said.contains("line 1: the column `a` is there more than once"), "{said}");
    let (_, said) = detect("time,a\n1,1\n2,1\n", &["--time-column", "time"]);
    assert!(said.is_empty(), "{said}");
}
