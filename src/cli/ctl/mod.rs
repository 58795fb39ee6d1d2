//! `ctl`: speaks to the running daemon over its HTTP API.

mod models;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::Failure;
use super::records::{self, Format, plain};

/// Speak to the running daemon.
///
/// Looks and acts through the daemon's HTTP API: alarms, decisions, work orders, dead letters.
/// Ids are the ones that the lists print.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    wheeltap ctl alarms\n  \
    wheeltap ctl ack 0197a3c2-… --by anna\n  \
    wheeltap ctl decide 0197a3c2-… approve --reason 'spare is on site'\n  \
    wheeltap ctl complete 0197a3c2-… --outcome fixed --found 'outer race spalled'\n  \
    wheeltap ctl status --format json")]
pub(super) struct Args {
    /// Address of the daemon's HTTP API
    #[arg(long, global = true, default_value = "http://127.0.0.1:8480", env = "WHEELTAP_URL")]
    url: String,
    /// File with the bearer token (its first line that is no comment)
    #[arg(long, global = true, value_name = "FILE", env = "WHEELTAP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// How records are printed
    #[arg(long, global = true, value_enum, default_value = "table")]
    format: Format,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How the daemon, its sources and its uplink do
    Status,
    /// State, failures and last error of every stage
    Stages,
    /// Machines with health, phase and remaining life
    Assets,
    /// Open alarms (--all: cleared ones too)
    Alarms(List),
    /// Anomalies that are being watched (--all: judged and ended ones too)
    Anomalies(List),
    /// Predictions that stand (--all: earlier ones too)
    Predictions(List),
    /// Questions that wait for an answer (--all: answered ones too)
    Decisions(List),
    /// Open work orders (--all: closed ones too)
    WorkOrders(List),
    /// Events that a stage could not digest (--all: retried ones too)
    DeadLetters(List),
    /// What a tag will do next, with bands and the time to its limits
    Forecast {
        /// Machine
        asset: String,
        /// Its tag
        tag: String,
        /// How far, e.g. 90m, 24h, 7d
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        horizon: String,
        /// Also say when this value will be reached
        #[arg(long, value_name = "X", allow_hyphen_values = true)]
        limit: Option<f64>,
    },
    /// Say that somebody knows of an alarm
    Ack {
        /// Alarm
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Put an alarm aside for a while
    Shelve {
        /// Alarm
        id: String,
        /// For how long, e.g. 30m, 8h
        #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
        span: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Take an alarm back from the shelf
    Unshelve {
        /// Alarm
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Answer a question
    Decide {
        /// Question
        id: String,
        /// Answer; `modify` needs at least one of the changes below
        #[arg(value_enum)]
        choice: Choice,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// modify: by this person
        #[arg(long)]
        technician: Option<String>,
        /// modify: not before (RFC 3339)
        #[arg(long, value_name = "TIME")]
        not_before: Option<String>,
        /// modify: not after (RFC 3339)
        #[arg(long, value_name = "TIME")]
        due: Option<String>,
        /// modify: it takes this long, e.g. 90m
        #[arg(long)]
        duration: Option<String>,
        /// modify: it needs these skills
        #[arg(long, value_delimiter = ',')]
        skills: Option<Vec<String>>,
        #[command(flatten)]
        who: Who,
    },
    /// Report that a work order is done
    Complete {
        /// Work order
        id: String,
        /// How it ended
        #[arg(long, value_enum, default_value = "fixed")]
        outcome: Outcome,
        /// What was found
        #[arg(long)]
        found: Option<String>,
        /// Anything else
        #[arg(long)]
        notes: Option<String>,
        /// How long it took, e.g. 90m
        #[arg(long)]
        duration: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Models learnt from failures and findings: list, train, promote, roll back, pin, import
    Models {
        #[command(subcommand)]
        what: Option<models::What>,
    },
    /// Say whether an anomaly was real
    Feedback {
        /// Anomaly
        id: String,
        /// Whether it was real
        #[arg(value_parser = clap::value_parser!(bool), action = clap::ArgAction::Set)]
        real: bool,
        /// Anything else
        #[arg(long)]
        notes: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Try a dead letter once more
    Retry {
        /// Event that was set aside
        id: String,
    },
    /// Read the configuration file again
    Reload,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only of this asset
    #[arg(long)]
    asset: Option<String>,
    /// Closed ones too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, clap::Args)]
struct Who {
    /// Who says so
    #[arg(long, env = "USER")]
    by: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Choice {
    /// Plan the order as proposed
    Approve,
    /// Plan it with changes
    Modify,
    /// Do not plan it
    Reject,
    /// Ask again later
    Defer,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Outcome {
    /// Repaired: the machine is as new in this respect
    Fixed,
    /// Looked at; nothing was wrong
    NoFaultFound,
    /// Done in part; more is needed
    Partial,
    /// Tried, did not help
    Failed,
}

fn word(value: impl clap::ValueEnum) -> String {
    let possible = value.to_possible_value().expect("no variant is hidden");
    possible.get_name().to_owned()
}

/// How long the daemon may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Rows asked for at a time.
const PAGE_ROWS: usize = 500;
/// Most rows of a list; what is older is in the daemon's own lists.
const ROWS_MAX: usize = 10_000;

/// Why the daemon could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
enum CtlError {
    #[error("no daemon answers at {url}")]
    Unreachable { url: String, source: ureq::Error },
    #[error("the answer of {url} is not what this version expects")]
    Answer { url: String, source: ureq::Error },
    #[error("the daemon refused ({status}): {detail}")]
    Refused { status: u16, detail: String },
    #[error("the token file {} cannot be read", file.display())]
    Token { file: PathBuf, source: io::Error },
    #[error("{} cannot be read", file.display())]
    File { file: PathBuf, source: io::Error },
    #[error("the token file {} holds no token", file.display())]
    NoToken { file: PathBuf },
}

struct Daemon {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Daemon {
    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, CtlError> {
        let url = format!("{}/api/v1{path}", self.url);
        let failed = |source| CtlError::Unreachable { url: self.url.clone(), source };
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut response = match body {
            None => {
                let mut request = self.agent.get(&url);
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                request.call().map_err(failed)?
            }
            Some(body) => {
                let mut request = self.agent.post(&url).header("Content-Type", "application/json");
                if let Some(bearer) = &bearer {
                    request = request.header("Authorization", bearer);
                }
                request.send(body.to_string()).map_err(failed)?
            }
        };
        let status = response.status();
        let text = response
            .body_mut()
            .read_to_string()
            .map_err(|source| CtlError::Answer { url: url.clone(), source })?;
        let answer: Option<Value> = serde_json::from_str(&text).ok();
        if !status.is_success() {
            let member = |key: &str| answer.as_ref().and_then(|answer| answer.get(key));
            let mut detail = match member("detail").and_then(Value::as_str) {
                Some(detail) => detail.to_owned(),
                None => text.chars().take(200).collect(),
            };
            for key in ["first", "mistakes"] {
                if let Some(more) = member(key) {
                    detail.push_str(&format!("; {key}: {}", plain(more)));
                }
            }
            return Err(CtlError::Refused { status: status.as_u16(), detail });
        }
        answer.ok_or_else(|| CtlError::Answer {
            url,
            source: ureq::Error::Other("it is no JSON".into()),
        })
    }

    /// All pages of a list.
    fn list(&self, path: &str, query: &str) -> Result<Vec<Value>, CtlError> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        while rows.len() < ROWS_MAX {
            let mut page = self.ask(&format!("{path}?limit={PAGE_ROWS}{query}{cursor}"), None)?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                rows.extend(items);
            }
            match page.get("next").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={}", encoded(next)),
                None => break,
            }
        }
        Ok(rows)
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 §2.3).
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn token(file: PathBuf) -> Result<String, CtlError> {
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(source) => return Err(CtlError::Token { file, source }),
    };
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map(str::to_owned).ok_or(CtlError::NoToken { file })
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    let text = act(args).map_err(Failure::failed)?;
    io::stdout().write_all(text.as_bytes()).map_err(Failure::failed)
}

/// Carries out the command; returns what is to be printed.
fn act(args: Args) -> Result<String, CtlError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .build();
    let daemon = Daemon {
        agent: config.into(),
        url: args.url.trim_end_matches('/').to_owned(),
        token: args.token_file.map(token).transpose()?,
    };
    let format = args.format;
    let list = |path: &str, columns: &[&str], query: &str| {
        Ok(records::list(format, columns, &daemon.list(path, query)?))
    };
    let filtered = |path: &str, columns: &[&str], wanted: &List| {
        let mut query = String::new();
        if !wanted.all {
            query.push_str("&open=true");
        }
        if let Some(asset) = &wanted.asset {
            query.push_str(&format!("&asset={}", encoded(asset)));
        }
        list(path, columns, &query)
    };
    let give = |path: String, body: Value| {
        let answer = daemon.ask(&path, Some(&without_nulls(body)))?;
        Ok(records::one(format, &answer))
    };
    match args.what {
        What::Status => {
            let status = daemon.ask("/status", None)?;
            Ok(records::one(format, &status))
        }
        What::Stages => {
            let columns = ["name", "state", "handled", "failures", "last_error"];
            let stages = daemon.ask("/stages", None)?;
            let rows = stages.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            Ok(records::list(format, &columns, &rows))
        }
        What::Forecast { asset, tag, horizon, limit } => {
            let (asset, tag, horizon) = (encoded(&asset), encoded(&tag), encoded(&horizon));
            let mut path = format!("/forecast?asset={asset}&tag={tag}&horizon={horizon}");
            if let Some(limit) = limit {
                path.push_str(&format!("&limit={}", encoded(&limit.to_string())));
            }
            let found = daemon.ask(&path, None)?;
            if matches!(format, Format::Json) {
                return Ok(records::one(format, &found));
            }
            let rows =
                |key: &str| found.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
            let columns = ["step", "time", "mean", "lower_80", "upper_80", "lower_95", "upper_95"];
            let mut text = records::list(format, &columns, &rows("steps"));
            let limits = rows("limits");
            if !limits.is_empty() {
                let columns = ["name", "limit", "probability", "p10", "p50", "p90"];
                text.push('\n');
                text.push_str(&records::list(format, &columns, &limits));
            }
            Ok(text)
        }
        What::Assets => {
            let columns = [
                "id",
                "name",
                "class",
                "criticality",
                "phase",
                "health_index",
                "worst_alarm",
                "rul_p50",
            ];
            list("/assets", &columns, "")
        }
        What::Alarms(wanted) => {
            let columns =
                ["id", "asset", "tag", "severity", "state", "value", "limit", "raised", "message"];
            filtered("/alarms", &columns, &wanted)
        }
        What::Anomalies(wanted) => {
            let columns = [
                "id",
                "asset",
                "tags",
                "fault",
                "pattern",
                "score",
                "verdict",
                "confidence",
                "since",
            ];
            filtered("/anomalies", &columns, &wanted)
        }
        What::Predictions(wanted) => {
            let columns = ["asset", "tag", "failure_mode", "rul", "as_of", "confidence", "method"];
            filtered("/predictions", &columns, &wanted)
        }
        What::Decisions(wanted) => {
            let columns = ["id", "asset", "severity", "deadline", "default", "question", "answer"];
            filtered("/decisions", &columns, &wanted)
        }
        What::WorkOrders(wanted) => {
            let columns = ["id", "asset", "state", "technician", "start", "end", "late", "task"];
            filtered("/work-orders", &columns, &wanted)
        }
        What::DeadLetters(wanted) => {
            let columns = ["id", "stage", "event", "asset", "attempts", "error"];
            filtered("/dead-letters", &columns, &wanted)
        }
        What::Models { what } => models::act(format, &daemon, what),
        What::Ack { id, who } => {
            give(format!("/alarms/{}/ack", encoded(&id)), json!({ "by": who.by }))
        }
        What::Shelve { id, span, reason, who } => give(
            format!("/alarms/{}/shelve", encoded(&id)),
            json!({ "duration": span, "reason": reason, "by": who.by }),
        ),
        What::Unshelve { id, who } => {
            give(format!("/alarms/{}/unshelve", encoded(&id)), json!({ "by": who.by }))
        }
        What::Decide { id, choice, reason, technician, not_before, due, duration, skills, who } => {
            let changes = without_nulls(json!({
                "technician": technician,
                "not_before": not_before,
                "due": due,
                "duration": duration,
                "skills": skills,
            }));
            let changed = changes.as_object().is_some_and(|changes| !changes.is_empty());
            let body = json!({
                "decision": word(choice),
                "by": who.by,
                "reason": reason,
                "changes": changed.then_some(changes),
            });
            give(format!("/decisions/{}", encoded(&id)), body)
        }
        What::Complete { id, outcome, found, notes, duration, who } => give(
            format!("/work-orders/{}/complete", encoded(&id)),
            json!({
                "outcome": word(outcome),
                "found": found,
                "notes": notes,
                "duration": duration,
                "by": who.by,
            }),
        ),
        What::Feedback { id, real, notes, who } => give(
            "/feedback".to_owned(),
            json!({ "anomaly": id, "label": real, "notes": notes, "by": who.by }),
        ),
        What::Retry { id } => give(format!("/dead-letters/{}/retry", encoded(&id)), json!({})),
        What::Reload => give("/reload".to_owned(), json!({})),
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::domain::command::{Refusal, Verb};
    use crate::domain::ids::AssetId;
    use crate::domain::record::{Record, RecordKind};
    use crate::http::tests::{Daemon, daemon};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Runs one command line against a served API, as the program does.
    async fn ctl(daemon: &Daemon, line: &str) -> Result<String, CtlError> {
        let url = format!("http://{}", daemon.address);
        let words = ["ctl", "--url", &url].into_iter().chain(line.split(' '));
        let args = Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args;
        tokio::task::spawn_blocking(move || act(args)).await.unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Line::command().debug_assert();
    }

    #[tokio::test]
    async fn lists_show_what_is_open() {
        let mut daemon = daemon().await;
        assert_eq!(ctl(&daemon, "alarms").await.unwrap(), "none\n");
        let alarm = daemon.alarm();
        let record = Record::new(RecordKind::Alarm, alarm.id, alarm.raised, &alarm)
            .about(&AssetId::new("P-101").unwrap())
            .in_state("unacknowledged", true);
        daemon.save(record);
        let table = ctl(&daemon, "alarms --asset P-101").await.unwrap();
        assert!(table.contains("temp is 86.5, above 85"), "{table}");
        let csv = ctl(&daemon, "alarms --format csv").await.unwrap();
        assert!(
            csv.starts_with("id,asset,tag,severity,state,value,limit,raised,message\n"),
            "{csv}"
        );
        assert_eq!(csv.lines().count(), 2);
        let json = ctl(&daemon, "alarms --format json").await.unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["id"], alarm.id.to_string());
        assert!(ctl(&daemon, "status").await.unwrap().contains("sources.plc1.state"));
        assert!(ctl(&daemon, "stages").await.unwrap().contains("detection"));
    }

    #[tokio::test]
    async fn an_answer_to_a_question_reaches_the_engine_and_a_refusal_the_operator() {
        let mut daemon = daemon().await;
        let id = daemon.alarm().id;
        let url = format!("http://{}", daemon.address);
        let line = format!("decide {id} modify --by anna --duration 90m --reason ok");
        let words: Vec<String> =
            ["ctl", "--url", &url].into_iter().chain(line.split(' ')).map(str::to_owned).collect();
        let run = |words: Vec<String>| {
            tokio::task::spawn_blocking(move || act(Line::try_parse_from(words).unwrap().args))
        };
        let (text, (by, verb)) =
            tokio::join!(run(words.clone()), daemon.answer(Ok(json!({ "asset": "P-101" }))));
        assert_eq!(text.unwrap().unwrap(), "key    value\nasset  P-101\n");
        assert_eq!(by, "anna");
        let Verb::Decide { changes: Some(changes), .. } = verb else { panic!("{verb:?}") };
        assert_eq!(changes.duration_seconds, Some(5400.0));
        let refusal = Refusal::Conflict {
            detail: "answered before".to_owned(),
            first: json!({ "by": "berta" }),
        };
        let (text, _) = tokio::join!(run(words), daemon.answer(Err(refusal)));
        let error = text.unwrap().unwrap_err().to_string();
        assert_eq!(error, "the daemon refused (409): answered before; first: by=berta");
    }

    #[test]
    fn without_a_daemon_it_says_so() {
        let words = ["ctl", "--url", "http://127.0.0.1:1", "alarms"];
        let error = act(Line::try_parse_from(words).unwrap().args).unwrap_err();
        assert_eq!(error.to_string(), "no daemon answers at http://127.0.0.1:1");
    }
}
