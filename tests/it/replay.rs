//! `[[replay]]`: a recording as a source of the daemon.

use std::fs;

use crate::support::daemon::{Home, stderr};

fn plant(speed: &str) -> String {
    format!(
        "[upstream]\nurl = \"off\"\n[[asset]]\nid = \"P-1\"\n\
         [[replay]]\nname = \"yesterday\"\nfile = \"run.csv\"\n{speed}\n\
         [[replay.tag]]\nid = \"t\"\nasset = \"P-1\"\nscale = 0.5\nlimits = {{ high = 40.0 }}\n\
         [[replay.tag]]\nid = \"p\"\nasset = \"P-1\"\ncolumn = \"pressure\"\n"
    )
}

#[test]
fn a_recording_is_played_as_if_a_machine_stood_behind_it() {
    let mut home = Home::new(plant("speed = 20.0\nloop = true"));
    // The third row cannot be read; in the last one a limit is crossed.
    let rows = "time,pressure,t,shift\n\
        2026-05-01T10:00:00Z,4.5,20,a\n2026-05-01T10:00:02Z,,21,a\n\
        2026-05-01T10:00:03Z,broken,22,a\n2026-05-01T10:00:04Z,4.75,90,a\n";
    fs::write(home.config().with_file_name("run.csv"), rows).unwrap();
    let daemon = home.start();
    let http = &daemon.http;
    http.reading("P-1", "t", |reading| reading["value"] == 10.0);
    http.reading("P-1", "p", |reading| reading["value"] == 4.75);
    http.wait_for("/api/v1/alarms", |alarm| alarm["tag"] == "t" && alarm["value"] == 45.0);
    // It begins again, and its values are of now.
    http.wait_for("/api/v1/alarms", |alarm| !alarm["cleared"].is_null());
    let all = http.list("/api/v1/readings?asset=P-1&tag=t");
    assert!(all.iter().all(|reading| reading["quality"] == "good"), "{all:?}");
    assert!(all.iter().all(|reading| reading["value"] != 11.0), "the broken row is left out whole");
}

#[test]
fn a_recording_that_is_not_there_is_a_mistake_with_its_place() {
    let home = Home::new(plant("speed = 0"));
    let config = home.config().display().to_string();
    let output = home.run(&["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(78));
    let said = stderr(&output);
    assert!(said.contains("replay.file: file ") && said.contains("run.csv is missing"), "{said}");
    assert!(said.contains("replay.speed: must be above 0"), "{said}");
}
