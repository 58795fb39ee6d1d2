//! Approval: questions to a person, their answers and their deadlines.
//!
//! An order that needs a person does not exist before the answer: this stage alone turns an
//! `ApprovalRequested` into an `OrderAuthorised`. A question is announced, waits for its deadline
//! and then takes its default; `defer` asks it again, and questions that are put off too often are
//! asked more urgently, then given up.
//!
//! ```text
//! requested ─▶ asked ──approve/modify──▶ authorised
//!                │ ├──────reject───────▶ closed
//!                │ └──defer──▶ resting ──(the deadline's length)──▶ asked again
//!                └──deadline──▶ expired, default applied (defer: asked again at once)
//! ```
//!
//! Open questions are bounded by [`OPEN_MAX`]: one more is refused and becomes a dead letter, which
//! a person sees and can retry. Answers are remembered for [`ANSWERED_MAX`] questions, so that a
//! second answer is told the first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::promise::Promise;
use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::config::Config;
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::decision::{Answer, Changes, Choice, Decision};
use crate::domain::event::{Body, Event};
use crate::domain::ids::EventId;
use crate::domain::record::{Record, RecordKind};
use crate::domain::severity::Severity;
use crate::domain::time::Now;
use crate::domain::work_order::OrderRequest;

/// Questions that may be open at once.
pub const OPEN_MAX: usize = 256;
/// Answered questions whose answer is still known.
pub const ANSWERED_MAX: usize = 256;
/// How often a question is put off before it is asked more urgently (contract §4).
const DEFERRALS_MAX: u32 = 3;
/// How often a question is asked at all; then it counts as rejected.
const ASKED_MAX: u32 = 2 * (DEFERRALS_MAX + 1);
/// The time left is saved this many times over a deadline's length, for gateways without a clock.
const SAVES_PER_DEADLINE: u32 = 20;
/// Saving the time left more often than this would only wear the flash.
const SAVE_EVERY_MIN: Duration = Duration::from_secs(10);
/// Saving it more seldom than this would forget too much.
const SAVE_EVERY_MAX: Duration = Duration::from_secs(600);
/// Version of the snapshot's layout.
const SNAPSHOT_VERSION: u8 = 1;

/// By whom, when the deadline decides.
const BY_DEADLINE: &str = "deadline";

/// A question as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    #[serde(flatten)]
    decision: Decision,
    /// When it expires, or, while resting, when it is asked again.
    promise: Promise,
    /// Put off: it is asked again at the promised time, and takes no answer before.
    resting: bool,
    /// Whence it came.
    chain: Chain,
    /// Where the promise stands on this run's monotonic clock.
    #[serde(skip)]
    due: Duration,
}

/// The approval stage.
#[derive(Debug)]
pub struct Approval {
    config: std::sync::Arc<Config>,
    open: BTreeMap<EventId, Question>,
    /// Answered questions, by id (which grows with time: the first is the oldest).
    answered: BTreeMap<EventId, Decision>,
    /// When the times left are saved next.
    save_due: Option<Duration>,
}

impl Approval {
    /// The stage, with no question open.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self {
            config: setting.config.clone(),
            open: BTreeMap::new(),
            answered: BTreeMap::new(),
            save_due: None,
        }
    }

    fn request(
        &mut self,
        now: Now,
        chain: Chain,
        order: &OrderRequest,
        question: &str,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        let same = self.open.values_mut().find(|open| same_matter(&open.decision.order, order));
        if let Some(open) = same {
            // Asked already: the same question becomes more (or less) urgent, no second one.
            open.decision.order = order.clone();
            open.decision.question = question.to_owned();
            open.decision.severity = open.decision.severity.max(order.priority);
            out.save(record(open, now));
            if !open.resting {
                let chain = Chain { cause: chain.cause, ..open.chain };
                out.emit_from(chain, Body::DecisionRequested(open.decision.clone()));
            }
            return Ok(());
        }
        if self.open.len() >= OPEN_MAX {
            return Err(StageError::new(format!(
                "{OPEN_MAX} questions are open, one about {} was not put",
                order.asset
            )));
        }
        let span = self.config.approval.deadline;
        let promise = Promise::new(now, span);
        let mut asked = None;
        out.emit_with(Some(chain), |id| {
            let decision = Decision {
                id,
                asset: order.asset.clone(),
                order: order.clone(),
                question: question.to_owned(),
                severity: order.priority,
                deadline: promise.utc,
                default: self.config.approval.default,
                asked: 1,
                answer: None,
                correlation: chain.correlation,
            };
            asked = Some(decision.clone());
            Body::DecisionRequested(decision)
        });
        let decision = asked.expect("the body was made by the call above");
        let due = promise.mono(now);
        let question = Question { decision, promise, resting: false, chain, due };
        out.save(record(&question, now));
        self.open.insert(question.decision.id, question);
        self.plan_save(now);
        Ok(())
    }

    /// Applies an answer to an open question and takes it off the list, unless it is put off.
    fn settle(&mut self, now: Now, id: EventId, answer: Answer, out: &mut Outbox<'_>) {
        let Some(mut question) = self.open.remove(&id) else { return };
        let choice = answer.choice;
        let by = answer.by.clone();
        let mut order = question.decision.order.clone();
        if let Some(changes) = answer.changes.as_ref().filter(|_| choice == Choice::Modify) {
            apply(&mut order, changes);
        }
        question.decision.answer = Some(answer);
        let made = out.emit_from(question.chain, Body::DecisionMade(question.decision.clone()));
        let onward = Chain { cause: made, correlation: question.chain.correlation };
        match choice {
            Choice::Approve | Choice::Modify => {
                out.emit_from(onward, Body::OrderAuthorised { order, by });
            }
            Choice::Reject => {}
            Choice::Defer => {
                question.chain = onward;
                question.resting = true;
                question.promise = Promise::new(now, self.config.approval.deadline);
                question.due = question.promise.mono(now);
                if by == BY_DEADLINE {
                    // Nobody answered for a whole deadline: waiting another one silently would only
                    // lose time.
                    self.ask_again(now, question, out);
                } else {
                    out.save(record(&question, now));
                    self.open.insert(id, question);
                }
                return;
            }
        }
        out.save(record(&question, now));
        self.remember(question.decision);
    }

    fn ask_again(&mut self, now: Now, mut question: Question, out: &mut Outbox<'_>) {
        let id = question.decision.id;
        if question.decision.asked >= ASKED_MAX {
            let asked = question.decision.asked;
            question.resting = false;
            self.open.insert(id, question);
            let answer = Answer {
                choice: Choice::Reject,
                by: BY_DEADLINE.to_owned(),
                reason: Some(format!("asked {asked} times without a decision")),
                changes: None,
                time: now.utc,
            };
            self.settle(now, id, answer, out);
            return;
        }
        let decision = &mut question.decision;
        decision.asked += 1;
        decision.answer = None;
        if decision.asked > DEFERRALS_MAX + 1 {
            decision.severity = raised(decision.severity);
        }
        question.promise = Promise::new(now, self.config.approval.deadline);
        question.due = question.promise.mono(now);
        question.resting = false;
        question.decision.deadline = question.promise.utc;
        let asked =
            out.emit_from(question.chain, Body::DecisionRequested(question.decision.clone()));
        question.chain.cause = asked;
        out.save(record(&question, now));
        self.open.insert(id, question);
    }

    fn expire(&mut self, now: Now, id: EventId, out: &mut Outbox<'_>) {
        let Some(question) = self.open.get_mut(&id) else { return };
        let expired =
            out.emit_from(question.chain, Body::DecisionExpired(question.decision.clone()));
        question.chain.cause = expired;
        // A question whose default cannot be carried out is put off rather than guessed at.
        let choice = match question.decision.default {
            Choice::Modify => Choice::Defer,
            choice @ (Choice::Approve | Choice::Reject | Choice::Defer) => choice,
        };
        let answer = Answer {
            choice,
            by: BY_DEADLINE.to_owned(),
            reason: None,
            changes: None,
            time: now.utc,
        };
        self.settle(now, id, answer, out);
    }

    /// Closes the questions for which `why` gives a reason, as rejected.
    fn close(
        &mut self,
        now: Now,
        by: &str,
        mut why: impl FnMut(&Decision) -> Option<String>,
        out: &mut Outbox<'_>,
    ) {
        let closing: Vec<(EventId, String)> =
            self.open.iter().filter_map(|(id, open)| Some((*id, why(&open.decision)?))).collect();
        for (id, reason) in closing {
            let answer = Answer {
                choice: Choice::Reject,
                by: by.to_owned(),
                reason: Some(reason),
                changes: None,
                time: now.utc,
            };
            self.settle(now, id, answer, out);
        }
    }

    fn remember(&mut self, decision: Decision) {
        self.answered.insert(decision.id, decision);
        while self.answered.len() > ANSWERED_MAX {
            self.answered.pop_first();
        }
    }

    fn plan_save(&mut self, now: Now) {
        let every = (self.config.approval.deadline / SAVES_PER_DEADLINE)
            .clamp(SAVE_EVERY_MIN, SAVE_EVERY_MAX);
        self.save_due = (!self.open.is_empty()).then(|| now.mono + every);
    }

    fn decide(
        &mut self,
        now: Now,
        id: EventId,
        answer: Answer,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        if let Some(decision) = self.answered.get(&id) {
            return Err(conflict(decision));
        }
        let Some(question) = self.open.get(&id) else {
            return Err(Refusal::NotFound(format!("there is no question {id}")));
        };
        if question.resting {
            return Err(conflict(&question.decision));
        }
        if answer.choice == Choice::Modify {
            let changes = answer.changes.as_ref().filter(|changes| **changes != Changes::default());
            let changes = changes.ok_or_else(|| {
                Refusal::Invalid("modify needs changes, e.g. a technician or a time".to_owned())
            })?;
            check(&self.config, changes).map_err(Refusal::Invalid)?;
        } else if answer.changes.is_some() {
            return Err(Refusal::Invalid(format!(
                "changes belong to modify, not to {}",
                answer.choice.as_str()
            )));
        }
        let mut told = question.decision.clone();
        told.answer = Some(answer.clone());
        self.settle(now, id, answer, out);
        Ok(json!({ "decision": told }))
    }
}

impl Stage for Approval {
    fn name(&self) -> StageName {
        StageName::Approval
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        for row in saved.of(RecordKind::Decision) {
            let mut question: Question = row
                .read()
                .map_err(|error| StageError::new(format!("question {}: {error}", row.id)))?;
            question.due = question.promise.mono(now);
            self.open.insert(question.decision.id, question);
        }
        if let Some([SNAPSHOT_VERSION, body @ ..]) = saved.snapshot {
            let answered: Option<Vec<Decision>> = serde_json::from_slice(body).ok();
            for decision in answered.into_iter().flatten() {
                if !self.open.contains_key(&decision.id) {
                    self.remember(decision);
                }
            }
        }
        self.plan_save(now);
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "a question depends on few of the many events; the others concern other stages"
        )]
        match &event.body {
            Body::ApprovalRequested { order, question } => {
                self.request(now, Chain::of(event), order, question, out)?;
            }
            // Whatever the question was about has been done otherwise.
            Body::WorkOrderCompleted(order, _) => {
                let done = order.request.anomaly;
                self.close(
                    now,
                    "work-order",
                    |decision| {
                        let same = done.is_some()
                            && decision.order.anomaly == done
                            && decision.asset == order.request.asset;
                        same.then(|| format!("work order {} was completed", order.id))
                    },
                    out,
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        let Verb::Decide { decision, choice, reason, changes } = &command.verb else {
            return None;
        };
        let answer = Answer {
            choice: *choice,
            by: command.by.clone(),
            reason: reason.clone(),
            changes: changes.clone(),
            time: now.utc,
        };
        Some(self.decide(now, *decision, answer, out))
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.open.values().map(|open| open.due).chain(self.save_due).min()
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        let due: Vec<EventId> =
            self.open.iter().filter(|(_, open)| open.due <= now.mono).map(|(id, _)| *id).collect();
        for id in due {
            if self.open.get(&id).is_some_and(|open| open.resting) {
                if let Some(question) = self.open.remove(&id) {
                    self.ask_again(now, question, out);
                }
            } else {
                self.expire(now, id, out);
            }
        }
        if self.save_due.is_some_and(|due| due <= now.mono) {
            for open in self.open.values_mut() {
                open.promise = open.promise.resaved(now, open.due);
                out.save(record(open, now));
            }
        }
        if self.save_due.is_none_or(|due| due <= now.mono) {
            self.plan_save(now);
        }
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.config = setting.config.clone();
        let assets = &setting.plant.assets;
        self.close(
            now,
            "configuration",
            |decision| (!assets.contains_key(&decision.asset)).then(|| "configuration".to_owned()),
            out,
        );
        self.plan_save(now);
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        let answered: Vec<&Decision> = self.answered.values().collect();
        let mut bytes = vec![SNAPSHOT_VERSION];
        bytes.extend(serde_json::to_vec(&answered).expect("decisions are JSON"));
        Some(bytes)
    }
}

/// Whether two orders would be about the same work.
fn same_matter(one: &OrderRequest, other: &OrderRequest) -> bool {
    one.asset == other.asset && one.task == other.task
}

fn record(question: &Question, now: Now) -> Record {
    let decision = &question.decision;
    let (state, open) = match (&decision.answer, question.resting) {
        (None, _) => ("requested", true),
        (Some(_), true) => ("deferred", true),
        (Some(answer), false) => match answer.choice {
            Choice::Approve => ("approved", false),
            Choice::Modify => ("modified", false),
            Choice::Reject => ("rejected", false),
            Choice::Defer => ("deferred", false),
        },
    };
    Record::new(RecordKind::Decision, decision.id, now.utc, question)
        .about(&decision.asset)
        .in_state(state, open)
}

fn conflict(decision: &Decision) -> Refusal {
    let (choice, by) = decision
        .answer
        .as_ref()
        .map_or(("defer", "nobody"), |answer| (answer.choice.as_str(), answer.by.as_str()));
    Refusal::Conflict {
        detail: format!("question {} was answered before: {choice} by {by}", decision.id),
        first: json!({ "decision": decision }),
    }
}

fn raised(severity: Severity) -> Severity {
    match severity {
        Severity::Low => Severity::Medium,
        Severity::Medium => Severity::High,
        Severity::High | Severity::Critical => Severity::Critical,
    }
}

fn check(config: &Config, changes: &Changes) -> Result<(), String> {
    if let Some(wanted) = &changes.technician
        && !config.technicians.iter().any(|technician| technician.id == *wanted)
    {
        return Err(format!("there is no technician {wanted}"));
    }
    if let Some(seconds) = changes.duration_seconds
        && !(seconds.is_finite() && seconds > 0.0)
    {
        return Err(format!("a duration of {seconds} s makes no sense"));
    }
    if let (Some(not_before), Some(due)) = (changes.not_before, changes.due)
        && due <= not_before
    {
        return Err(format!("due {due} is not after not_before {not_before}"));
    }
    if changes.skills.as_ref().is_some_and(|skills| skills.iter().any(String::is_empty)) {
        return Err("a skill is empty".to_owned());
    }
    Ok(())
}

fn apply(order: &mut OrderRequest, changes: &Changes) {
    let Changes { technician, not_before, due, duration_seconds, skills } = changes.clone();
    order.technician = technician.or_else(|| order.technician.clone());
    order.not_before = not_before.or(order.not_before);
    order.due = due.or(order.due);
    order.duration_seconds = duration_seconds.unwrap_or(order.duration_seconds);
    if let Some(skills) = skills {
        order.skills = skills;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::testing::{Bench, asset, noon, plain_config, setting};
    use crate::domain::ids::TechnicianId;

    const DEADLINE: Duration = Duration::from_secs(4 * 3600);

    fn bench(default: Choice) -> Bench {
        let mut config = plain_config();
        config.approval.default = default;
        Bench::new(setting(config), |setting| vec![Box::new(Approval::new(setting))])
    }

    fn order(task: &str) -> OrderRequest {
        OrderRequest {
            asset: asset("P-101"),
            task: task.to_owned(),
            skills: vec!["mechanical".to_owned()],
            duration_seconds: 7200.0,
            priority: Severity::Medium,
            not_before: None,
            due: Some(noon().after(Duration::from_secs(86_400))),
            technician: None,
            alarms: Vec::new(),
            anomaly: Some(EventId(uuid::Uuid::from_u128(9))),
        }
    }

    fn ask(bench: &mut Bench) -> EventId {
        bench.emit(Body::ApprovalRequested {
            order: order("replace the bearing"),
            question: "Replace the bearing of P-101?".to_owned(),
        });
        newest(bench).id
    }

    fn newest(bench: &Bench) -> Decision {
        let Body::DecisionRequested(decision) = &bench.last("decision-requested").body else {
            panic!()
        };
        decision.clone()
    }

    fn decide(bench: &mut Bench, decision: EventId, choice: Choice) -> CommandResult {
        let verb = Verb::Decide { decision, choice, reason: None, changes: None };
        bench.command_by("anna", verb).unwrap()
    }

    fn authorised(bench: &Bench) -> (OrderRequest, String) {
        let Body::OrderAuthorised { order, by } = &bench.last("order-authorised").body else {
            panic!()
        };
        (order.clone(), by.clone())
    }

    #[test]
    fn nothing_is_authorised_before_the_answer() {
        let mut bench = bench(Choice::Defer);
        let id = ask(&mut bench);
        bench.pass(Duration::from_secs(3600));
        assert_eq!(bench.count("order-authorised"), 0);
        decide(&mut bench, id, Choice::Approve).unwrap();
        assert_eq!(authorised(&bench).1, "anna");
        let made = bench.last("decision-made");
        let asked = bench.last("approval-requested");
        assert_eq!(made.correlation, asked.correlation);
        assert_eq!(bench.last("order-authorised").correlation, asked.correlation);
    }

    #[test]
    fn the_first_answer_counts_also_after_a_restart() {
        let mut bench = bench(Choice::Defer);
        let id = ask(&mut bench);
        decide(&mut bench, id, Choice::Reject).unwrap();
        for _ in 0..2 {
            let late = decide(&mut bench, id, Choice::Approve).unwrap_err();
            let Refusal::Conflict { first, .. } = late else { panic!("{late:?}") };
            assert_eq!(first["decision"]["answer"]["choice"], "reject");
            bench.restart(Duration::from_secs(5), true);
        }
        assert_eq!(bench.count("order-authorised"), 0);
        let unknown = EventId(uuid::Uuid::from_u128(77));
        let refusal = decide(&mut bench, unknown, Choice::Approve).unwrap_err();
        assert!(matches!(refusal, Refusal::NotFound(_)), "{refusal:?}");
    }

    #[test]
    fn modify_changes_the_order_and_checks_what_it_is_told() {
        let mut bench = bench(Choice::Defer);
        let id = ask(&mut bench);
        let modify = |changes| Verb::Decide {
            decision: id,
            choice: Choice::Modify,
            reason: None,
            changes: Some(changes),
        };
        let unknown = TechnicianId::new("nobody").unwrap();
        for bad in [
            Changes::default(),
            Changes { technician: Some(unknown), ..Changes::default() },
            Changes { duration_seconds: Some(f64::NAN), ..Changes::default() },
            Changes { due: Some(noon()), not_before: Some(noon()), ..Changes::default() },
        ] {
            let refusal = bench.command(modify(bad)).unwrap().unwrap_err();
            assert!(matches!(refusal, Refusal::Invalid(_)), "{refusal:?}");
        }
        let changes = Changes { duration_seconds: Some(600.0), ..Changes::default() };
        bench.command(modify(changes)).unwrap().unwrap();
        let (planned, by) = authorised(&bench);
        assert_eq!((planned.duration_seconds, by.as_str()), (600.0, "operator"));
        assert_eq!(planned.skills, order("").skills);
    }

    #[test]
    fn the_deadline_applies_its_default() {
        for (default, orders) in [(Choice::Approve, 1), (Choice::Reject, 0), (Choice::Defer, 0)] {
            let mut bench = bench(default);
            ask(&mut bench);
            bench.pass(DEADLINE - Duration::from_secs(1));
            assert_eq!(bench.count("decision-expired"), 0);
            bench.pass(Duration::from_secs(2));
            assert_eq!(bench.count("decision-expired"), 1, "{default:?}");
            assert_eq!(bench.count("order-authorised"), orders, "{default:?}");
            let Body::DecisionMade(made) = &bench.last("decision-made").body else { panic!() };
            let answer = made.answer.as_ref().unwrap();
            assert_eq!((answer.choice, answer.by.as_str()), (default, "deadline"));
        }
    }

    #[test]
    fn a_deferred_question_comes_back_then_more_urgently_then_is_given_up() {
        let mut bench = bench(Choice::Defer);
        let id = ask(&mut bench);
        decide(&mut bench, id, Choice::Defer).unwrap();
        let refusal = decide(&mut bench, id, Choice::Approve).unwrap_err();
        assert!(matches!(refusal, Refusal::Conflict { .. }), "{refusal:?}");
        bench.pass(DEADLINE + Duration::from_secs(1));
        let again = newest(&bench);
        assert_eq!((again.id, again.asked, again.severity), (id, 2, Severity::Medium));
        assert!(again.answer.is_none());
        bench.pass(DEADLINE * 3);
        let escalated = newest(&bench);
        assert_eq!((escalated.asked, escalated.severity), (5, Severity::High));
        bench.pass(DEADLINE * 10);
        assert_eq!(newest(&bench).asked, ASKED_MAX);
        assert_eq!(bench.count("order-authorised"), 0);
        assert!(bench.of_record(RecordKind::Decision).iter().all(|record| !record.open));
        let refusal = decide(&mut bench, id, Choice::Approve).unwrap_err();
        assert!(matches!(refusal, Refusal::Conflict { .. }), "{refusal:?}");
    }

    #[test]
    fn a_question_waits_on_over_restarts() {
        // Half the deadline, a restart that takes an hour, and the rest of it.
        for trusted in [true, false] {
            let mut bench = bench(Choice::Approve);
            let id = ask(&mut bench);
            bench.pass(DEADLINE / 2 + Duration::from_secs(1));
            bench.restart(Duration::from_secs(3600), trusted);
            let left =
                if trusted { DEADLINE / 2 - Duration::from_secs(3600) } else { DEADLINE / 2 };
            let slack = SAVE_EVERY_MAX + Duration::from_secs(5);
            bench.pass(left.saturating_sub(slack));
            assert_eq!(bench.count("decision-expired"), 0, "trusted {trusted}");
            bench.pass(slack * 2);
            assert_eq!(bench.count("order-authorised"), 1, "trusted {trusted}");
            assert_eq!(newest(&bench).id, id);
        }
    }

    #[test]
    fn the_same_matter_is_not_asked_twice() {
        let mut bench = bench(Choice::Defer);
        let id = ask(&mut bench);
        let mut urgent = order("replace the bearing");
        urgent.priority = Severity::Critical;
        bench.emit(Body::ApprovalRequested { order: urgent, question: "Now?".to_owned() });
        let updated = newest(&bench);
        assert_eq!((updated.id, updated.severity, updated.asked), (id, Severity::Critical, 1));
        assert_eq!(bench.of_record(RecordKind::Decision).len(), 1);
    }

    #[test]
    fn questions_about_removed_assets_are_closed() {
        let mut bench = bench(Choice::Approve);
        ask(&mut bench);
        let mut config = plain_config();
        config.assets.retain(|one| one.id != asset("P-101"));
        config.modbus[0].tags.retain(|one| one.tag.path.asset != asset("P-101"));
        bench.configure(setting(config));
        let Body::DecisionMade(made) = &bench.last("decision-made").body else { panic!() };
        let answer = made.answer.as_ref().unwrap();
        assert_eq!((answer.choice, answer.by.as_str()), (Choice::Reject, "configuration"));
        bench.pass(DEADLINE * 2);
        assert_eq!(bench.count("order-authorised"), 0);
    }
}
