use super::*;

#[test]
fn durations_and_separators_are_read() {
    assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert!(duration("5").is_err() && duration("h").is_err() && duration("0s").is_err());
    assert_eq!(separator(";"), Ok(b';'));
    assert!(separator(";;").is_err());
}
