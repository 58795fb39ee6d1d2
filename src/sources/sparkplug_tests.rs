//! A host's reading of births, data and deaths, and of what they should not be.

use prost::Message as _;

use super::*;
use crate::sparkplug::payload::{Metric as Sent, Payload, datatype, metric::Value as SentValue};

fn host(names: &[&str]) -> Host {
    let mut host = Host::default();
    for (tag, name) in names.iter().enumerate() {
        let (device, metric) = match name.split_once(':') {
            Some((device, metric)) => (Some(Level::Named(device.to_owned())), metric),
            None => (None, *name),
        };
        host.listen(Listener {
            tag,
            group: Level::Named("g".to_owned()),
            node: Level::Any,
            device,
            metric: metric.to_owned(),
        });
    }
    host
}

fn metric(name: Option<&str>, alias: Option<u64>, value: f64) -> Sent {
    Sent {
        name: name.map(str::to_owned),
        alias,
        timestamp: Some(1_790_000_000_000),
        datatype: name.map(|_| datatype::DOUBLE),
        value: Some(SentValue::Double(value)),
        ..Sent::default()
    }
}

fn bd_seq_metric(number: u64) -> Sent {
    Sent {
        name: Some("bdSeq".to_owned()),
        datatype: Some(datatype::INT64),
        value: Some(SentValue::Long(number)),
        ..Sent::default()
    }
}

fn payload(seq: Option<u64>, metrics: Vec<Sent>) -> Vec<u8> {
    Payload { timestamp: Some(1_790_000_000_500), seq, metrics, ..Payload::default() }
        .encode_to_vec()
}

fn hear(host: &mut Host, topic: &str, payload: &[u8], second: u64) -> Heard {
    let topic = Topic::parse(topic).unwrap();
    host.hear(&topic, payload, Duration::from_secs(second)).unwrap()
}

fn numbers(heard: &Heard) -> Vec<(usize, f64)> {
    let number = |said: &Said| match said.value {
        Some(SaidValue::Number(number)) => (said.tag, number),
        ref other => panic!("{other:?}"),
    };
    heard.said.iter().map(number).collect()
}

/// A node with metric `a` (alias 1), and its device `d` with metric `b` (alias 2).
fn born() -> Host {
    let mut host = host(&["a", "d:b"]);
    let birth = payload(Some(0), vec![bd_seq_metric(4), metric(Some("a"), Some(1), 1.0)]);
    assert_eq!(numbers(&hear(&mut host, "spBv1.0/g/NBIRTH/n", &birth, 0)), [(0, 1.0)]);
    let birth = payload(Some(1), vec![metric(Some("b"), Some(2), 2.0)]);
    assert_eq!(numbers(&hear(&mut host, "spBv1.0/g/DBIRTH/n/d", &birth, 0)), [(1, 2.0)]);
    host
}

#[test]
fn aliases_are_the_names_of_the_birth() {
    let mut host = born();
    let data = payload(Some(2), vec![metric(None, Some(1), 5.0)]);
    let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &data, 1);
    assert_eq!(numbers(&heard), [(0, 5.0)]);
    assert_eq!(heard.said[0].time, Some(Timestamp::from_micros(1_790_000_000_000_000)));
    let data = payload(Some(3), vec![metric(None, Some(2), 6.0)]);
    assert_eq!(numbers(&hear(&mut host, "spBv1.0/g/DDATA/n/d", &data, 1)), [(1, 6.0)]);
    // A node elsewhere is none of ours, a metric that no tag wants is told.
    let birth = payload(Some(0), vec![metric(Some("z"), Some(1), 1.0)]);
    let heard = hear(&mut host, "spBv1.0/g/NBIRTH/other", &birth, 1);
    assert_eq!((heard.said.len(), heard.unknown), (0, vec!["g/other:z".to_owned()]));
}

#[test]
fn numbers_wrap_and_deaths_make_values_stale() {
    let mut host = born();
    for seq in (2..=255).chain(0..3) {
        let data = payload(Some(seq), vec![metric(None, Some(1), 1.0)]);
        let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &data, 1);
        assert!(!heard.rebirth && heard.said.len() == 1, "{seq}");
    }
    let death = payload(Some(3), vec![]);
    let heard = hear(&mut host, "spBv1.0/g/DDEATH/n/d", &death, 2);
    assert_eq!((heard.stale, heard.rebirth), (vec![1], false));
    let late = payload(None, vec![bd_seq_metric(3)]);
    assert_eq!(hear(&mut host, "spBv1.0/g/NDEATH/n", &late, 2), Heard::default());
    let death = payload(None, vec![bd_seq_metric(4)]);
    // The device was dead before.
    assert_eq!(hear(&mut host, "spBv1.0/g/NDEATH/n", &death, 2).stale, [0]);
}

#[test]
fn d06_a_gap_makes_aliases_void_and_asks_once_in_thirty_seconds() {
    let mut host = born();
    let gap = payload(Some(9), vec![metric(None, Some(1), 5.0), metric(Some("a"), None, 7.0)]);
    let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &gap, 10);
    assert!(heard.rebirth);
    assert_eq!(numbers(&heard), [(0, 7.0)], "the name is certain, the alias is not");
    for second in 11..40 {
        let more = payload(Some(10), vec![metric(None, Some(1), 5.0)]);
        let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &more, second);
        assert_eq!((heard.rebirth, heard.said.len()), (false, 0), "{second}");
    }
    let more = payload(Some(10), vec![metric(None, Some(1), 5.0)]);
    assert!(hear(&mut host, "spBv1.0/g/NDATA/n", &more, 40).rebirth);
    // The birth gives the alias another meaning.
    let birth = payload(Some(0), vec![bd_seq_metric(4), metric(Some("c"), Some(1), 0.0)]);
    assert_eq!(hear(&mut host, "spBv1.0/g/NBIRTH/n", &birth, 41).said.len(), 0);
    let data = payload(Some(1), vec![metric(None, Some(1), 5.0)]);
    assert_eq!(hear(&mut host, "spBv1.0/g/NDATA/n", &data, 42).said.len(), 0);
}

#[test]
fn d06_data_before_births_and_unknown_aliases_ask_for_a_birth() {
    let mut host = born();
    let early = payload(Some(2), vec![metric(None, Some(7), 1.0)]);
    let heard = hear(&mut host, "spBv1.0/g/DDATA/n/other", &early, 1);
    assert!(heard.rebirth && heard.said.is_empty());
    let mut host = born();
    let unknown = payload(Some(2), vec![metric(None, Some(99), 1.0), metric(None, Some(1), 3.0)]);
    let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &unknown, 1);
    assert!(heard.rebirth);
    assert_eq!(numbers(&heard), [(0, 3.0)]);
    let mut host = self::host(&["a"]);
    let data = payload(Some(2), vec![metric(Some("a"), None, 1.0)]);
    let heard = hear(&mut host, "spBv1.0/g/NDATA/never-born", &data, 1);
    assert!(heard.rebirth && heard.said.is_empty());
}

#[test]
fn d06_a_huge_birth_is_cut_at_the_cap_and_a_hall_of_nodes_too() {
    let mut host = host(&["m1"]);
    let metrics = |count: usize| -> Vec<Sent> {
        (0..count).map(|n| metric(Some(&format!("m{n}")), Some(n as u64), 1.0)).collect()
    };
    let huge = payload(Some(0), metrics(METRICS_MAX));
    assert_eq!(numbers(&hear(&mut host, "spBv1.0/g/NBIRTH/n", &huge, 0)), [(0, 1.0)]);
    let heard = hear(&mut host, "spBv1.0/g/DBIRTH/n/d", &payload(Some(1), metrics(5)), 0);
    assert_eq!(heard.refused, 5);
    for node in 0..20 {
        hear(&mut host, &format!("spBv1.0/g/NBIRTH/n{node}"), &huge, 0);
    }
    assert_eq!(host.metrics, METRICS_TOTAL_MAX);
    for node in 0..2 * NODES_MAX {
        hear(&mut host, &format!("spBv1.0/g/NBIRTH/x{node}"), &payload(Some(0), vec![]), 0);
    }
    assert_eq!(host.nodes.len(), NODES_MAX);
    // A birth anew frees what the old one took.
    hear(&mut host, "spBv1.0/g/NBIRTH/n", &payload(Some(0), metrics(1)), 0);
    assert_eq!(host.metrics, METRICS_TOTAL_MAX - METRICS_MAX + 1);
}

#[test]
fn d06_random_messages_never_panic_nor_bring_a_value_out_of_step() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut host = born();
    let whole = payload(Some(2), vec![metric(Some("a"), Some(1), 1.0), metric(None, Some(2), 2.0)]);
    for round in 0..50_000 {
        let mut bytes = whole.clone();
        bytes.truncate(rng.usize(..=whole.len()));
        for _ in 0..rng.usize(..4) {
            if let Some(byte) = rng.choice(bytes.iter_mut()) {
                *byte = rng.u8(..);
            }
        }
        let kind = rng.choice(Kind::ALL).unwrap();
        let device = kind.of_device().then_some("d");
        let topic = Topic { group: "g", kind, node: "n", device };
        host.hear(&topic, &bytes, Duration::from_millis(round)).ok();
        assert!(host.metrics <= METRICS_TOTAL_MAX, "seed {seed}");
        let counted: usize = host.nodes.values().map(Node::metrics).sum();
        assert_eq!(host.metrics, counted, "seed {seed} round {round}");
    }
}

#[test]
fn null_quality_history_and_texts_come_through() {
    let mut host = host(&["a"]);
    let null = Sent { is_null: Some(true), value: None, ..metric(Some("a"), Some(1), 0.0) };
    let birth = payload(Some(0), vec![null]);
    assert_eq!(hear(&mut host, "spBv1.0/g/NBIRTH/n", &birth, 0).said[0].value, None);
    let late = Sent { is_historical: Some(true), ..metric(None, Some(1), 3.0) };
    let text =
        Sent { value: Some(SentValue::String("on".to_owned())), ..metric(None, Some(1), 0.0) };
    let data = payload(Some(1), vec![late, text]);
    let heard = hear(&mut host, "spBv1.0/g/NDATA/n", &data, 0);
    assert!(heard.said[0].historical);
    assert_eq!(heard.said[1].value, Some(SaidValue::Text("on".into())));
}

#[test]
fn nodes_named_in_the_configuration_are_asked_first() {
    let mut host = Host::default();
    host.listen(Listener {
        tag: 0,
        group: Level::Named("g".to_owned()),
        node: Level::Named("n".to_owned()),
        device: None,
        metric: "a".to_owned(),
    });
    let asked = host.unborn(Duration::from_secs(1));
    assert_eq!(asked, [("g".to_owned(), "n".to_owned())]);
    assert!(host.unborn(Duration::from_secs(2)).is_empty(), "it has been asked");
    let birth = payload(Some(0), vec![metric(Some("a"), None, 1.0)]);
    hear(&mut host, "spBv1.0/g/NBIRTH/n", &birth, 3);
    assert!(host.unborn(Duration::from_secs(100)).is_empty(), "it was born");
    host.disconnected();
    assert_eq!(host.unborn(Duration::from_secs(200)).len(), 1, "what came meanwhile was missed");
}
