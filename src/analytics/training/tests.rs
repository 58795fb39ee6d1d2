use super::*;
use crate::domain::model::Life;

/// Lives that wear exponentially, drawn from a seed: `wear` rises from 0 to 1 with the life, `idle`
/// says nothing.
struct Plant;

const DAY: i64 = 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

fn lives(count: i64) -> Vec<Life> {
    let asset = AssetId::new("P-101").unwrap();
    (0..count)
        .map(|n| {
            let from = at(n * 20 * DAY);
            let days = 8 + (n * 7) % 5;
            Life {
                asset: asset.clone(),
                from,
                to: from.after(Duration::from_secs((days * DAY).unsigned_abs())),
                failed: true,
                found: Some(if n % 2 == 0 { "Bearing worn" } else { "seal leak" }.to_owned()),
            }
        })
        .collect()
}

impl History for Plant {
    fn series(
        &self,
        _: &AssetId,
        tag: &TagId,
        from: Timestamp,
        to: Timestamp,
        step: Duration,
    ) -> Result<Vec<f64>, String> {
        let all = lives(40);
        let life = all.iter().rfind(|life| life.from <= from).ok_or("before all lives")?;
        let odd = all.iter().position(|it| it == life).unwrap() % 2 == 1;
        let mut noise = fastrand::Rng::with_seed(from.micros().unsigned_abs());
        let span = life.to.since(life.from).as_secs_f64();
        Ok((0..steps(from, to, step))
            .map(|row| {
                let now = from.since(life.from).as_secs_f64() + row as f64 * step.as_secs_f64();
                let worn = (now / span).powi(3);
                let noise = (noise.f64() - 0.5) * 0.02;
                match tag.as_str() {
                    "wear" => 50.0 + 40.0 * worn + 10.0 * noise,
                    "leak" if odd => 5.0 - 4.0 * worn + noise,
                    "leak" => 5.0 + noise,
                    _ => noise,
                }
            })
            .collect())
    }
}

fn training(kind: ModelKind, lives: Vec<Life>) -> Training {
    let features = ["wear", "leak", "idle"].map(|name| TagId::new(name).unwrap()).to_vec();
    let asset = AssetId::new("P-101").unwrap();
    Training { asset, kind, lives, features, active: None, why: "test".to_owned() }
}

#[test]
fn a_model_of_worn_lives_beats_the_rule_without_one() {
    let learnt = train(&training(ModelKind::Rul, lives(12)), &Plant, None).unwrap();
    let facts = &learnt.facts;
    assert!(facts.beats, "{}", facts.verdict);
    assert_eq!((facts.lives, facts.metrics["held_back_lives"].as_u64()), (12, Some(3)));
    assert_eq!(facts.sha256, fingerprint(&learnt.bytes));
    assert_eq!(model_file::check(&learnt.bytes), Ok(Kind::Prognosis));
    assert!(facts.size < 256 << 10, "{}", facts.size);
}

#[test]
fn too_few_lives_give_no_model_and_say_so() {
    for kind in ModelKind::ALL {
        let error = train(&training(kind, lives(3)), &Plant, None).unwrap_err();
        assert!(error.contains("3 lives") || error.contains("2 lives"), "{error}");
        assert!(error.contains("4 are needed"), "{error}");
    }
}

#[test]
fn a_model_is_compared_on_lives_that_neither_has_seen() {
    let first = train(&training(ModelKind::Rul, lives(4)), &Plant, None).unwrap();
    let active = Some((EventId(uuid::Uuid::from_u128(1)), Some(first.facts.to)));
    // The same lives again: there is nothing new to judge by.
    let again = Training { active, ..training(ModelKind::Rul, lives(4)) };
    let again = train(&again, &Plant, Some(&first.bytes)).unwrap();
    assert!(!again.facts.beats && again.facts.verdict.contains("no life has ended"));
    let more = Training { active, ..training(ModelKind::Rul, lives(16)) };
    let more = train(&more, &Plant, Some(&first.bytes)).unwrap();
    assert!(more.facts.metrics["active"]["error"].is_number(), "{}", more.facts.metrics);
    assert!(more.facts.beats, "{}", more.facts.verdict);
}

#[test]
fn findings_are_told_apart() {
    let learnt = train(&training(ModelKind::Classifier, lives(12)), &Plant, None).unwrap();
    assert!(learnt.facts.beats, "{}", learnt.facts.verdict);
    let classes = serde_json::to_string(&learnt.facts.metrics["classes"]).unwrap();
    assert!(classes.contains("bearing worn") && classes.contains("seal leak"), "{classes}");
}

#[test]
fn a_model_is_asked_about_the_present_life() {
    let learnt = train(&training(ModelKind::Rul, lives(12)), &Plant, None).unwrap();
    let id = EventId(uuid::Uuid::from_u128(1));
    let life = &lives(20)[15];
    let asked = life.to.before(Duration::from_secs(DAY.unsigned_abs()));
    let models = [(id, learnt.bytes), (EventId(uuid::Uuid::nil()), b"wtmodel\0".to_vec())];
    let said = consult(&life.asset, &models, life.from, asked, &Plant).unwrap();
    let rul = said[0].rul.expect("it answers");
    assert!((0.2..4.0).contains(&(rul.p50 / DAY as f64)), "{rul:?}");
    assert!(said[1].rul.is_none() && said[1].silence.is_some());
}

#[test]
fn what_is_held_back_is_the_newest() {
    let ends: Vec<Timestamp> = (0..12).map(|n| at(n * DAY)).collect();
    assert_eq!(held_back(&ends, None), (3, true));
    assert_eq!(held_back(&ends, Some(at(9 * DAY))), (2, true));
    assert_eq!(held_back(&ends, Some(at(11 * DAY))), (3, false));
    assert_eq!(held_back(&ends, Some(at(-1))), (4, true));
}
