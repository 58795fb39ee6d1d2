//! The registry of models against the daemon as a process: learning from its own history, people's
//! words, models from elsewhere, and what a kill and damaged bytes do.

#![allow(clippy::disallowed_methods, reason = "a process is watched on the wall clock")]

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use wheeltap::domain::ids::AssetId;
use wheeltap::domain::record::{Record, RecordKind};
use wheeltap::domain::time::Timestamp;
use wheeltap::store::BootInfo;
use wheeltap::store::state::{Commit, StateDb};

use crate::support::daemon::{Home, Http, stderr};
use crate::support::wait;

const HOUR: i64 = 3_600_000_000;
/// Lives on record.
const LIVES: i64 = 6;

fn seed_keys() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// A gateway whose pump has failed [`LIVES`] times: `temp` rises with the cube of the life, `idle`
/// says nothing.
fn home() -> Home {
    let home = Home::new(
        "[upstream]\nurl = \"off\"\n[models]\ncooldown = \"1s\"\n\
         [[models.issuer]]\nid = \"lab\"\npublic_key_file = \"lab.pub\"\n\
         [[asset]]\nid = \"P-101\"\nclass = \"pump\"\ncriticality = 4\n\
         [[mqtt]]\nname = \"line\"\nurl = \"mqtt://127.0.0.1:1\"\n\
         [[mqtt.tag]]\nid = \"temp\"\nasset = \"P-101\"\ntopic = \"a\"\n\
         limits = { high = 80.0, high_high = 90.0 }\n\
         [[mqtt.tag]]\nid = \"idle\"\nasset = \"P-101\"\ntopic = \"b\"\n",
    );
    let key = STANDARD.encode(seed_keys().public_key().as_ref());
    fs::write(home.config().with_file_name("lab.pub"), key).unwrap();
    let end = jiff::Timestamp::now().as_microsecond() / HOUR * HOUR - HOUR;
    let (mut csv, mut lives) = ("time,asset,tag,value\n".to_owned(), Vec::new());
    let mut random = fastrand::Rng::with_seed(5);
    for life in 0..LIVES {
        let hours = 10 + (life * 3) % 5;
        let from = end - (LIVES - life) * 20 * HOUR;
        let minutes = hours * 60;
        for minute in 0..minutes {
            let worn = (minute as f64 / minutes as f64).powi(3);
            let time = Timestamp::from_micros(from + minute * HOUR / 60);
            let temp = 50.0 + 38.0 * worn + random.f64();
            writeln!(csv, "{time},P-101,temp,{temp:.3}").unwrap();
            writeln!(csv, "{time},P-101,idle,{:.3}", random.f64()).unwrap();
        }
        lives.push(json!({
            "asset": "P-101", "from": from, "to": from + hours * HOUR, "failed": true,
        }));
    }
    let file = home.config().with_file_name("history.csv");
    fs::write(&file, csv).unwrap();
    let config = home.config();
    let import =
        ["import", "--config", config.to_str().unwrap(), "--input", file.to_str().unwrap()];
    let imported = home.run(&import);
    assert!(imported.status.success(), "{}", stderr(&imported));
    // The lives, as the learning stage writes them when failures and repairs happen.
    let book = json!({
        "since": end, "failed": null, "lives": lives, "training": {}, "tried": {}, "wanted": {},
        "consulted": null, "consulting": null, "foreign": 0,
    });
    let asset = AssetId::new("P-101").unwrap();
    let record = Record::new(RecordKind::Lives, "P-101", Timestamp::from_micros(end), &book);
    write(&home, Commit { records: vec![record.about(&asset)], ..Commit::default() });
    home
}

/// Writes into the state of a daemon that does not run.
fn write(home: &Home, commit: Commit) {
    let utc = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
    let boot = BootInfo { id: uuid::Uuid::from_u128(7), utc, mono: Duration::ZERO, trusted: true };
    let (mut state, opened) = StateDb::open(home.data(), 16 << 20, &boot).unwrap();
    assert_eq!(opened.quarantined, None);
    state.commit(&commit).unwrap();
    state.mark_clean_stop().unwrap();
}

fn train(http: &Http) -> (u16, Value) {
    http.post("/api/v1/assets/P-101/train", &json!({ "kind": "rul", "by": "kim" })).unwrap()
}

fn model(http: &Http, version: u64) -> Value {
    http.wait_for("/api/v1/models", |model| model["version"] == version)
}

fn id(model: &Value) -> String {
    model["id"].as_str().unwrap().to_owned()
}

/// Says something of a model; the answer's status.
fn say(http: &Http, model: &str, verb: &str) -> u16 {
    http.post(&format!("/api/v1/models/{model}/{verb}"), &json!({ "by": "kim" })).unwrap().0
}

fn active(http: &Http) -> Vec<u64> {
    let models = http.list("/api/v1/models?state=active&asset=P-101");
    models.iter().map(|model| model["version"].as_u64().unwrap()).collect()
}

#[test]
fn a_model_is_learnt_used_taken_back_and_survives_a_kill_and_damage() {
    let mut home = home();
    let daemon = home.start();
    // Killed in the middle of learning: the job is handed out again.
    let (status, started) = train(&daemon.http);
    assert_eq!(status, 200, "{started}");
    let job = started["started"][0]["job"].as_str().unwrap().to_owned();
    daemon.kill();
    let daemon = home.start();
    let first = model(&daemon.http, 1);
    assert_eq!(first["id"], job.as_str());
    assert_eq!((&first["kind"], &first["state"]), (&json!("rul"), &json!("active")), "{first}");
    assert_eq!((&first["lives"], &first["features"]), (&json!(LIVES), &json!(["temp", "idle"])));
    let held = &first["metrics"];
    assert!(
        held["candidate"]["error"].as_f64() < held["without_model"]["error"].as_f64(),
        "{held}"
    );
    let kinds: Vec<String> = daemon
        .http
        .list("/api/v1/events?class=model")
        .iter()
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["model-promoted", "model-trained"], "each once, the newest first");
    // The same lives again: nothing to judge by, so it waits for a person.
    let (status, started) = train(&daemon.http);
    assert_eq!(status, 200, "{started}");
    let second = model(&daemon.http, 2);
    assert_eq!(second["state"], "candidate", "{second}");
    assert!(second["reason"].as_str().unwrap().contains("no life has ended"), "{second}");
    let (first, second) = (id(&first), id(&second));
    assert_eq!(say(&daemon.http, &second, "promote"), 200);
    assert_eq!(active(&daemon.http), [2]);
    assert_eq!(say(&daemon.http, &second, "promote"), 409);
    assert_eq!(say(&daemon.http, &second, "pin"), 200);
    assert_eq!(say(&daemon.http, &first, "promote"), 409, "the active one is pinned");
    assert_eq!(say(&daemon.http, "0197a3c2-0000-7000-8000-000000000000", "promote"), 404);
    assert_eq!(say(&daemon.http, "nonsense", "rollback"), 404);
    assert_eq!(say(&daemon.http, &second, "rollback"), 200, "a person may");
    assert_eq!(active(&daemon.http), [1]);
    assert_eq!(say(&daemon.http, &second, "promote"), 200);
    let table = home.run(&["ctl", "--url", daemon.http.url(), "models"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains(&first) && table.contains("active"), "{table}");
    assert_eq!(daemon.stop().0, Some(0));
    // What is kept of the active model is not what was written.
    let models = vec![(second.clone(), Some(b"wtmodel\0\x01\x01 and rubbish".to_vec()))];
    write(&home, Commit { models, ..Commit::default() });
    let daemon = home.start();
    daemon.http.wait_for("/api/v1/alarms?open=true", |alarm| {
        alarm["message"].as_str().is_some_and(|message| message.contains("is damaged"))
    });
    assert_eq!(active(&daemon.http), [1]);
    let gone = daemon.http.get(&format!("/api/v1/models/{second}")).unwrap().1;
    assert_eq!((&gone["state"], &gone["open"]), (&json!("retired"), &json!(false)), "{gone}");
    daemon.http.wait_for("/api/v1/events?class=model", |event| {
        event["kind"] == "model-rolled-back" && event["data"]["restores"] == first.as_str()
    });
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_model_from_elsewhere_is_taken_only_as_its_issuer_signed_it() {
    let mut home = home();
    let daemon = home.start();
    let beside = |name: &str| home.config().with_file_name(name).to_str().unwrap().to_owned();
    let mut csv = "unit,time,temp,idle\n".to_owned();
    for unit in 0..5 {
        for row in 0..80 + unit {
            writeln!(csv, "{unit},{},{},{}", row * 180, 50 + row * row / 200, row % 3).unwrap();
        }
    }
    fs::write(beside("lives.csv"), csv).unwrap();
    let (input, output) = (beside("lives.csv"), beside("lab.model"));
    let learnt = home.run(&[
        "prognose",
        "train",
        "--input",
        &input,
        "--unit-column",
        "unit",
        "--time-column",
        "time",
        "--output",
        &output,
    ]);
    assert!(learnt.status.success(), "{}", stderr(&learnt));
    let bytes = fs::read(beside("lab.model")).unwrap();
    let pair = seed_keys();
    let send = |bytes: &[u8], signature: &[u8]| {
        let body = json!({
            "asset": "P-101",
            "model": URL_SAFE_NO_PAD.encode(bytes),
            "signature": URL_SAFE_NO_PAD.encode(signature),
        });
        daemon.http.post("/api/v1/models", &body).unwrap()
    };
    let mut altered = bytes.clone();
    altered[30] ^= 4;
    let refused = |answer: (u16, Value), why: &str| {
        assert_eq!(answer.0, 422, "{}", answer.1);
        assert!(answer.1["detail"].as_str().unwrap().contains(why), "{}", answer.1);
    };
    refused(send(&altered, pair.sign(&bytes).as_ref()), "signature");
    refused(send(&altered, pair.sign(&altered).as_ref()), "damaged");
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    refused(send(&bytes, stranger.sign(&bytes).as_ref()), "signature");
    fs::write(beside("lab.sig"), pair.sign(&bytes).as_ref()).unwrap();
    let (file, signature) = (beside("lab.model"), beside("lab.sig"));
    let taken = home.run(&[
        "ctl",
        "--url",
        daemon.http.url(),
        "models",
        "import",
        "--asset",
        "P-101",
        "--file",
        &file,
        "--signature",
        &signature,
    ]);
    assert!(taken.status.success(), "{}", stderr(&taken));
    let made = model(&daemon.http, 1);
    assert_eq!((&made["state"], &made["lives"]), (&json!("candidate"), &json!(5)), "{made}");
    assert_eq!(send(&bytes, pair.sign(&bytes).as_ref()).0, 409, "it is there already");
    assert_eq!(say(&daemon.http, &id(&made), "promote"), 200);
    // A training is compared with it on lives it has not seen.
    assert_eq!(train(&daemon.http).0, 200);
    let own = wait::until("a model of its own", || {
        daemon.http.list("/api/v1/models").into_iter().find(|model| model["version"] == 2)
    });
    assert!(own["metrics"]["active"]["error"].is_number(), "{own}");
    assert_eq!(own["parent"], made["id"], "{own}");
    // The content is there after a kill too.
    daemon.kill();
    let daemon = home.start();
    assert_eq!(active(&daemon.http).len(), 1);
    let damaged = daemon.http.list("/api/v1/events?kind=model-damaged");
    assert_eq!(damaged, Vec::<Value>::new());
}
