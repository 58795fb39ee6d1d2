use super::series::{TimeForm, read};

fn column(text: &str) -> Result<super::Column, String> {
    read(text.as_bytes(), "run.csv", b',', "value", None).map_err(|e| e.to_string())
}

#[test]
fn times_go_on_in_the_form_they_came_in() {
    let cases = [
        ("1400000000", 1.4e9, 60.0, "1400000060"),
        ("12.50", 12.5, 0.25, "12.75"),
        ("7", 7.0, 0.1, "7.1"),
        ("2026-05-01T10:20:00Z", 1_777_630_800.0, 900.0, "2026-05-01T10:35:00Z"),
        ("2026-05-01 10:20:00", 1_777_630_800.0, 900.0, "2026-05-01 10:35:00"),
        ("2026-05-01T12:20:00.500+02:00", 1_777_630_800.5, 60.0, "2026-05-01T12:21:00.500+02:00"),
        ("2026-05-01T07:50:00-02:30", 1_777_630_800.0, 60.0, "2026-05-01T07:51:00-02:30"),
        ("2026-05-01", 1_777_593_600.0, 86_400.0, "2026-05-02"),
        ("2026-05-01", 1_777_593_600.0, 3600.0, "2026-05-01 01:00:00"),
    ];
    for (text, seconds, step, next) in cases {
        assert_eq!(crate::cli::detect::table::seconds(text), Some(seconds), "{text}");
        assert_eq!(TimeForm::of(text, step).write(seconds + step), next, "{text}");
    }
}

#[test]
fn the_time_is_the_column_of_that_name_or_else_the_first() {
    assert_eq!(column("value,time\n1,10\n2,20\n").unwrap().times, [10.0, 20.0]);
    assert_eq!(column("when,x,value\n10,a,1\n20,b,2\n").unwrap().times, [10.0, 20.0]);
    assert_eq!(column("value\n5\n6\n").unwrap().times, [0.0, 1.0]);
    assert!(column("value,other\n1,10\n").unwrap_err().contains("--time-column"));
}

#[test]
fn missing_cells_are_not_numbers_and_the_newest_time_is_kept_as_written() {
    let found = column("time,value\n30,3\n10,\n20,NaN\n25,null\n").unwrap();
    assert!(found.values[1..].iter().all(|value| value.is_nan()));
    assert_eq!(found.newest, "30");
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let wrong = |text: &str| column(text).unwrap_err();
    assert_eq!(wrong("time,value\n1,2\n3\n"), "run.csv: line 3: 1 cells, the header has 2");
    assert_eq!(wrong("time,value\n1,2\nx,2\n"), "run.csv: line 3: `x` is no time");
    assert!(wrong("time,value\n1,2\n2,abc\n").contains("line 3: column `value`: `abc`"));
    assert!(
        wrong("time,other\n1,2\n").contains("line 1: no column `value`; there are: time, other")
    );
    assert!(wrong("time,value\n").contains("line 2: no rows"));
    assert!(wrong("").contains("line 1: no rows"));
    assert!(wrong("time,value,value\n1,2,3\n").contains("is there twice"));
}
