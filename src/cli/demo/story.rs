//! The story of the demo, pure: CloudEvents in, one line each out, and at the end what is missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;
use serde_json::Value;

/// Event ids remembered to drop repeats; the oldest are forgotten first.
const SEEN_MAX: usize = 10_000;
/// Characters of a correlation id that are shown: its end, for the beginning is the time.
const SHOWN: usize = 6;

const WEARING: &str = "P-101";
const LEAKING: &str = "P-102";
const STUCK: &str = "F-201";
const HEALTHY: &str = "G-301";

/// A CloudEvent as far as the story needs it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Told {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(rename = "correlationid", default)]
    correlation: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Told {
    fn text(&self, key: &str) -> &str {
        self.data[key].as_str().unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.data[key].as_f64()
    }

    /// The asset as the data name it, or the subject's first part.
    fn asset(&self) -> &str {
        let named = self.text("asset");
        if !named.is_empty() {
            return named;
        }
        self.subject.as_deref().and_then(|subject| subject.split('/').next()).unwrap_or("-")
    }

    fn tags(&self) -> String {
        let tags = self.data["tags"].as_array();
        let tags = tags.into_iter().flatten().filter_map(Value::as_str);
        tags.take(3).collect::<Vec<_>>().join(", ")
    }
}

/// A step of the way from an anomaly to a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Detected,
    Confirmed,
    Predicted,
    Asked,
    Answered,
    Planned,
    Notified,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Detected,
        Self::Confirmed,
        Self::Predicted,
        Self::Asked,
        Self::Answered,
        Self::Planned,
        Self::Notified,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Detected => "anomaly.detected",
            Self::Confirmed => "anomaly.validated as confirmed",
            Self::Predicted => "failure.predicted",
            Self::Asked => "decision.requested",
            Self::Answered => "decision.made or .expired, approving",
            Self::Planned => "work-order.planned",
            Self::Notified => "notification.sent",
        }
    }
}

/// What has been told so far.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// How a question is answered: `wheeltap ctl --url …`.
    ctl: String,
    seen: BTreeSet<String>,
    order: VecDeque<String>,
    /// Steps by correlation id, of chains that began with an anomaly of the wearing pump.
    chains: BTreeMap<String, BTreeSet<Step>>,
    phases: BTreeMap<String, String>,
    sensor_fault: bool,
    leak_seen: bool,
    /// What should not have happened, one sentence each.
    wrong: BTreeSet<String>,
}

impl Story {
    /// A story not yet begun. `ctl` is the command that questions are answered with.
    pub(super) fn new(ctl: String) -> Self {
        Self { ctl, ..Self::default() }
    }

    /// Takes a message from the broker; returns the lines to print. Repeats, and what is no
    /// CloudEvent (a cleared retained message is empty), say nothing.
    pub(super) fn take(&mut self, payload: &[u8]) -> Vec<String> {
        let Ok(told) = serde_json::from_slice::<Told>(payload) else { return Vec::new() };
        if !self.seen.insert(told.id.clone()) {
            return Vec::new();
        }
        self.order.push_back(told.id.clone());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.note(&told);
        self.line(&told)
    }

    /// Whether everything was told, and nothing that should not be.
    pub(super) fn check(&self) -> Vec<(String, bool)> {
        let reached = self.chains.values().map(BTreeSet::len).max().unwrap_or(0);
        let chain = self.chains.values().find(|steps| steps.len() == reached);
        let missing: Vec<&str> = Step::ALL
            .into_iter()
            .filter(|step| !chain.is_some_and(|steps| steps.contains(step)))
            .map(Step::as_str)
            .collect();
        let mut way = format!("{WEARING}: from anomaly to planned repair under one correlation id");
        if !missing.is_empty() {
            way = format!("{way}; missing: {}", missing.join(", "));
        }
        let mut points = vec![
            (way, missing.is_empty()),
            (format!("{STUCK}: the stuck sensor is a sensor fault"), self.sensor_fault),
            (format!("{LEAKING}: the seal leak is a machine fault"), self.leak_seen),
        ];
        if self.wrong.is_empty() {
            points.push((
                format!("{HEALTHY} raised nothing; {STUCK} got no prediction and no order"),
                true,
            ));
        }
        points.extend(self.wrong.iter().map(|what| (what.clone(), false)));
        points
    }

    fn note(&mut self, told: &Told) {
        let kind = told.kind.strip_prefix("wheeltap.").unwrap_or(&told.kind);
        let asset = told.asset();
        let confirmed = told.text("verdict") == "confirmed";
        match kind {
            "anomaly.detected" | "anomaly.validated" => {
                match (asset, told.text("fault")) {
                    (STUCK, "sensor") => self.sensor_fault = true,
                    (LEAKING, "machine") => self.leak_seen = true,
                    _ => {}
                }
                if asset == HEALTHY && confirmed {
                    self.wrong
                        .insert(format!("{HEALTHY} is healthy, but an anomaly was confirmed"));
                }
            }
            "alarm.raised" if asset == HEALTHY => {
                self.wrong.insert(format!("{HEALTHY} is healthy, but an alarm was raised"));
            }
            "failure.predicted" | "work-order.planned" if asset == STUCK => {
                self.wrong
                    .insert(format!("{STUCK} has only a sensor fault, but {kind} came of it"));
            }
            _ => {}
        }
        let Some(correlation) = &told.correlation else { return };
        let approving = {
            let choice = told.data["answer"]["choice"].as_str();
            choice.unwrap_or(told.text("default")) == "approve"
        };
        let step = match kind {
            "anomaly.detected" if asset == WEARING => {
                self.chains.entry(correlation.clone()).or_default();
                Step::Detected
            }
            "anomaly.validated" if confirmed => Step::Confirmed,
            "failure.predicted" => Step::Predicted,
            "decision.requested" => Step::Asked,
            "decision.made" | "decision.expired" if approving => Step::Answered,
            "work-order.planned" => Step::Planned,
            "notification.sent" => Step::Notified,
            _ => return,
        };
        if let Some(steps) = self.chains.get_mut(correlation) {
            steps.insert(step);
        }
    }

    fn line(&mut self, told: &Told) -> Vec<String> {
        let kind = told.kind.strip_prefix("wheeltap.").unwrap_or(&told.kind);
        let asset = told.asset();
        let mut after = None;
        let (word, text) = match kind {
            "gateway.online" => ("gateway", format!("online, version {}", told.text("version"))),
            "gateway.offline" => ("gateway", format!("offline: {}", told.text("reason"))),
            "asset.state" => {
                let phase = told.text("phase").to_owned();
                if phase.is_empty() || self.phases.get(asset) == Some(&phase) {
                    return Vec::new();
                }
                let text = format!("baseline {phase}");
                self.phases.insert(asset.to_owned(), phase);
                ("asset", text)
            }
            "anomaly.detected" => ("anomaly", anomaly(told)),
            "anomaly.validated" => ("verdict", verdict(told)),
            "alarm.raised" | "alarm.updated" | "alarm.cleared" | "alarm.acknowledged"
            | "alarm.shelved" => ("alarm", alarm(told, kind)),
            "failure.predicted" => ("prediction", prediction(told)),
            "decision.requested" => {
                let id = told.text("decision_id");
                after = Some(format!("{:9}answer:  {} decide {id} approve", "", self.ctl));
                ("decision", question(told))
            }
            "decision.made" => ("decision", made(told)),
            "decision.expired" => (
                "decision",
                format!("nobody answered in time: the default, {}, applies", told.text("default")),
            ),
            _ if kind.starts_with("work-order.") => ("work order", order(told, kind)),
            "notification.sent" => {
                let to = list(&told.data["recipients"]);
                (
                    "notification",
                    format!("{} to {to}: {}", told.text("channel"), told.text("subject")),
                )
            }
            "notification.failed" => (
                "notification",
                format!("by {} failed: {}", told.text("channel"), told.text("error")),
            ),
            "model.trained" => ("model", "trained".to_owned()),
            "event.set-aside" => (
                "dead letter",
                format!("stage {} set an event aside: {}", told.text("stage"), told.text("error")),
            ),
            "gateway.gap" => ("gap", told.text("reason").to_owned()),
            _ => return Vec::new(),
        };
        let time = told.time.as_deref().and_then(|time| time.get(11..19)).unwrap_or("--:--:--");
        let chain = told.correlation.as_deref().map_or(String::new(), |id| {
            let from = id.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
            format!("  [{}]", &id[from..])
        });
        let place = if kind.starts_with("gateway.") || kind.starts_with("notification.") {
            "-"
        } else {
            asset
        };
        let mut lines = vec![format!("{time} {word:12} {place:6} {text}{chain}")];
        lines.extend(after);
        lines
    }
}

/// The evidence that speaks loudest.
fn evidence(told: &Told) -> String {
    let all = told.data["evidence"].as_array();
    let weight = |one: &Value| one["contribution"].as_f64().unwrap_or(0.0);
    all.into_iter()
        .flatten()
        .max_by(|a, b| weight(a).total_cmp(&weight(b)))
        .map(|one| {
            format!(
                "; {} {:.2} instead of {:.2} ({:+.1} σ)",
                one["tag"].as_str().unwrap_or("?"),
                one["value"].as_f64().unwrap_or(f64::NAN),
                one["expected"].as_f64().unwrap_or(f64::NAN),
                one["sigma"].as_f64().unwrap_or(f64::NAN),
            )
        })
        .unwrap_or_default()
}

fn anomaly(told: &Told) -> String {
    format!(
        "{} fault, {} in {}, score {:.3}{}",
        told.text("fault"),
        told.text("pattern"),
        told.tags(),
        told.number("score").unwrap_or(f64::NAN),
        evidence(told),
    )
}

fn verdict(told: &Told) -> String {
    let reasons = list(&told.data["reasons"]);
    let because = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
    format!(
        "{} ({} fault, confidence {:.2}){because}",
        told.text("verdict"),
        told.text("fault"),
        told.number("confidence").unwrap_or(f64::NAN),
    )
}

fn alarm(told: &Told, kind: &str) -> String {
    let what = kind.trim_start_matches("alarm.");
    let bound = match (told.number("limit"), told.number("score")) {
        (Some(limit), _) => format!(", {} {limit}", told.text("limit_kind")),
        (None, Some(score)) => format!(", score {score:.3}"),
        (None, None) => String::new(),
    };
    let value = told.number("value").map_or(String::new(), |value| format!(" = {value:.2}"));
    let tag = told.text("tag");
    format!("{what}, {}: {tag}{value}{bound}", told.text("severity"))
}

fn prediction(told: &Told) -> String {
    let rul = |quantile: &str| span(told.data["rul"][quantile].as_f64());
    format!(
        "{}: {} reaches {} in {} (80 %: {} to {}), {}",
        told.text("failure_mode"),
        told.text("tag"),
        told.number("limit").unwrap_or(f64::NAN),
        rul("p50"),
        rul("p10"),
        rul("p90"),
        told.text("method"),
    )
}

fn question(told: &Told) -> String {
    let by = told.text("deadline").get(11..19).unwrap_or("?");
    format!(
        "asked: {} ({} at {by} when nobody answers)",
        told.text("question"),
        told.text("default")
    )
}

fn made(told: &Told) -> String {
    let answer = &told.data["answer"];
    let word = |key: &str| answer[key].as_str().unwrap_or("?");
    let reason = answer["reason"].as_str().map_or(String::new(), |reason| format!(": {reason}"));
    match word("by") {
        "deadline" => format!("{} by default, nobody answered{reason}", word("choice")),
        by => format!("{} by {by}{reason}", word("choice")),
    }
}

fn order(told: &Told, kind: &str) -> String {
    let what = kind.trim_start_matches("work-order.");
    let task = told.text("task");
    let (start, end) = (told.text("start"), told.text("end"));
    let when = match (start.get(11..16), end.get(11..16)) {
        (Some(start), Some(end)) => format!(", {} from {start} to {end}", told.text("technician")),
        _ => String::new(),
    };
    let late = if told.data["late"] == true { ", later than due" } else { "" };
    let reasons = list(&told.data["reasons"]);
    let because = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
    format!("{what}: {task}{when}{late}{because}")
}

fn list(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join("; ")
}

/// A span as a person says it.
fn span(seconds: Option<f64>) -> String {
    match seconds {
        None => "?".to_owned(),
        Some(s) if s < 120.0 => format!("{s:.0} s"),
        Some(s) if s < 7_200.0 => format!("{:.1} min", s / 60.0),
        Some(s) if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        Some(s) => format!("{:.1} d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Teller {
        story: Story,
        count: u32,
    }

    impl Teller {
        fn new() -> Self {
            Self { story: Story::new("wheeltap ctl --url http://h".into()), count: 0 }
        }

        fn tell(&mut self, kind: &str, chain: &str, data: &Value) -> Vec<String> {
            self.count += 1;
            let event = json!({
                "specversion": "1.0",
                "id": format!("event-{}", self.count),
                "type": format!("wheeltap.{kind}"),
                "subject": data["asset"],
                "time": "2026-05-01T10:20:30.123Z",
                "correlationid": chain,
                "data": data,
            });
            self.story.take(event.to_string().as_bytes())
        }

        fn told(&self) -> bool {
            self.story.check().iter().all(|(_, done)| *done)
        }
    }

    fn way(teller: &mut Teller, leave_out: &str, chain_of: impl Fn(&str) -> &'static str) {
        let steps = [
            (
                "anomaly.detected",
                json!({"asset": "P-101", "fault": "machine", "tags": ["vibration"]}),
            ),
            ("anomaly.validated", json!({"asset": "P-101", "verdict": "confirmed"})),
            (
                "failure.predicted",
                json!({"asset": "P-101", "rul": {"p10": 60, "p50": 90, "p90": 150}}),
            ),
            (
                "decision.requested",
                json!({"asset": "P-101", "decision_id": "d1", "default": "approve"}),
            ),
            ("decision.expired", json!({"asset": "P-101", "default": "approve"})),
            ("work-order.planned", json!({"asset": "P-101", "technician": "tech-1"})),
            ("notification.sent", json!({"channel": "mqtt", "recipients": ["tech-1"]})),
        ];
        for (kind, data) in steps.iter().filter(|(kind, _)| *kind != leave_out) {
            teller.tell(kind, chain_of(kind), data);
        }
    }

    fn others(teller: &mut Teller) {
        teller.tell("anomaly.detected", "s", &json!({"asset": "F-201", "fault": "sensor"}));
        teller.tell("anomaly.detected", "l", &json!({"asset": "P-102", "fault": "machine"}));
    }

    #[test]
    fn the_whole_story_is_told() {
        let mut teller = Teller::new();
        assert!(!teller.told());
        way(&mut teller, "", |_| "w");
        assert!(!teller.told());
        others(&mut teller);
        assert!(teller.told(), "{:?}", teller.story.check());
    }

    #[test]
    fn every_step_of_the_way_is_needed_under_one_correlation_id() {
        for kind in [
            "anomaly.detected",
            "anomaly.validated",
            "failure.predicted",
            "decision.requested",
            "decision.expired",
            "work-order.planned",
            "notification.sent",
        ] {
            let mut teller = Teller::new();
            others(&mut teller);
            way(&mut teller, kind, |_| "w");
            assert!(!teller.told(), "without {kind}");
            let mut teller = Teller::new();
            others(&mut teller);
            way(&mut teller, "", |step| if step == kind { "x" } else { "w" });
            assert!(!teller.told(), "{kind} under another id");
        }
    }

    #[test]
    fn what_must_not_happen_spoils_the_story() {
        for (kind, data) in [
            ("alarm.raised", json!({"asset": "G-301", "tag": "vibration"})),
            ("anomaly.validated", json!({"asset": "G-301", "verdict": "confirmed"})),
            ("work-order.planned", json!({"asset": "F-201"})),
            ("failure.predicted", json!({"asset": "F-201"})),
        ] {
            let mut teller = Teller::new();
            others(&mut teller);
            way(&mut teller, "", |_| "w");
            teller.tell(kind, "z", &data);
            assert!(!teller.told(), "{kind} {data}");
        }
        let mut teller = Teller::new();
        others(&mut teller);
        way(&mut teller, "", |_| "w");
        teller.tell("anomaly.detected", "z", &json!({"asset": "G-301", "fault": "machine"}));
        teller.tell("anomaly.validated", "z", &json!({"asset": "G-301", "verdict": "dismissed"}));
        assert!(teller.told(), "a dismissed anomaly is no harm");
    }

    #[test]
    fn repeats_and_rubbish_say_nothing() {
        let mut story = Story::new(String::new());
        let event = br#"{"id":"1","type":"wheeltap.alarm.raised","data":{"asset":"P-101"}}"#;
        assert_eq!(story.take(event).len(), 1);
        assert_eq!(story.take(event).len(), 0);
        for rubbish in [&b""[..], b"{", b"null", b"[1]", b"{\"id\":1}"] {
            assert_eq!(story.take(rubbish).len(), 0);
        }
    }

    #[test]
    fn a_question_comes_with_the_command_that_answers_it() {
        let mut teller = Teller::new();
        let data = json!({
            "asset": "P-101", "decision_id": "0199-d1", "question": "Replace the bearing?",
            "default": "approve", "deadline": "2026-05-01T10:20:50.123Z",
        });
        let lines = teller.tell("decision.requested", "0199-abcdef123456", &data);
        assert!(lines[0].starts_with("10:20:30 decision     P-101  asked: Replace the bearing?"));
        assert!(lines[0].contains("approve at 10:20:50") && lines[0].ends_with("[123456]"));
        assert!(lines[1].ends_with("wheeltap ctl --url http://h decide 0199-d1 approve"));
    }
}
