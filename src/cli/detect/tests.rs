use super::*;

#[test]
fn durations_and_separators_are_read() {
    assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert!(duration("5").is_err() && duration("h").is_err() && duration("0s").is_err());
    assert_eq!(separator(";"), Ok(b';'));
    assert!(separator(";;").is_err());
}

fn rows(text: &str) -> Rows<&[u8]> {
    Rows::open(text.as_bytes(), "x.csv".to_owned(), b',').unwrap()
}

#[test]
fn a_column_that_is_there_twice_is_told_and_cannot_be_asked_for() {
    let twice = rows("t,a,a,b\n1,2,3,4\n");
    assert_eq!(twice.repeated(), ["a"]);
    assert!(rows("t,a,b\n").repeated().is_empty());
    let told = twice.layout(None, None, &["a".to_owned()]).unwrap_err().to_string();
    assert_eq!(told, "x.csv: line 1: the column `a` is there more than once");
    assert_eq!(twice.layout(Some("t"), None, &[]).unwrap().values, [1, 2, 3]);
}
