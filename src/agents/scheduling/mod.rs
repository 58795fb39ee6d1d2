//! Scheduling: who repairs it, and when.
//!
//! Every authorised order (by policy, by a deadline's default or by a person) gets a technician who
//! has all its skills and the earliest time in which that technician is at work and free, the
//! asset may be stopped, and nobody else works on it. It is late, and says so, when no such time
//! ends before the due time; it is unschedulable when there is none within 14 days, and is
//! looked at again when an order is closed, the configuration changes, and every hour, because
//! the horizon moves on. Planned orders are never displaced by later ones.
//!
//! This stage alone writes work orders, also when they are completed; the logbook keeps what was
//! done. Bounds: [`OPEN_ORDERS_MAX`] open orders, beyond which new ones are refused;
//! [`CLOSED_REMEMBERED_MAX`] closed ones, kept to answer who comes second, the oldest forgotten.

mod calendar;
mod search;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Chain, Outbox, Saved, Setting, Stage, StageError, StageName};
use crate::domain::command::{Command, CommandResult, Refusal, Verb};
use crate::domain::event::{Body, Event};
use crate::domain::ids::{EventId, TechnicianId};
use crate::domain::record::{Record, RecordKind};
use crate::domain::time::{Now, Timestamp};
use crate::domain::work_order::{
    Completion, LogEntry, OrderRequest, OrderState, Outcome, WorkOrder,
};
use search::{Calendar, Found};

/// Orders that may be open at once.
pub const OPEN_ORDERS_MAX: usize = 2_000;

/// Closed orders that are remembered to answer whoever comes second.
pub const CLOSED_REMEMBERED_MAX: usize = 1_000;

/// How often unschedulable orders are looked at again when nothing else changes.
const RETRY_EVERY: Duration = Duration::from_secs(3600);

/// A start that lies ahead is counted off in pieces of at most this length, so that a clock that is
/// set meanwhile is noticed.
const CLOCK_CHECK_EVERY: Duration = Duration::from_secs(60);

/// Stands among the reasons of an order planned by a clock that was not to be believed; it is
/// planned anew when the clock has been set.
const CLOCK_REASON: &str = "planned before the gateway's clock was set";

/// The stage.
#[derive(Debug)]
pub struct Scheduling {
    setting: Setting,
    open: BTreeMap<EventId, WorkOrder>,
    /// When each open order was first announced.
    begun: BTreeMap<EventId, Timestamp>,
    /// Closed orders as they were answered, the newest [`CLOSED_REMEMBERED_MAX`].
    closed: BTreeMap<EventId, Value>,
    retry_at: Option<Duration>,
    wake: Option<Duration>,
}

impl Scheduling {
    /// A stage without orders.
    #[must_use]
    pub fn new(setting: &Setting) -> Self {
        Self {
            setting: setting.clone(),
            open: BTreeMap::new(),
            begun: BTreeMap::new(),
            closed: BTreeMap::new(),
            retry_at: None,
            wake: None,
        }
    }

    fn search(&self, now: Now, request: &OrderRequest, own: Option<EventId>) -> Found {
        Calendar { setting: &self.setting, orders: &self.open, now: now.utc }.search(request, own)
    }

    /// Announces a new order, planned or not.
    fn create(
        &mut self,
        now: Now,
        request: OrderRequest,
        by: &str,
        chain: Option<Chain>,
        out: &mut Outbox<'_>,
    ) -> WorkOrder {
        let (booking, state, late, reasons) = match self.search(now, &request, None) {
            Found::Slot { booking, late, reasons } => {
                (Some(booking), OrderState::Planned, late, reasons)
            }
            Found::Nothing { reasons } => (None, OrderState::Unschedulable, false, reasons),
        };
        let mut order = None;
        out.emit_with(chain, |id| {
            let correlation = chain.map_or(id, |chain| chain.correlation);
            let authorised_by = by.to_owned();
            let new = order.insert(WorkOrder {
                id,
                request,
                booking,
                state,
                late,
                reasons: with_clock(reasons, now, state),
                authorised_by,
                correlation,
            });
            announcement(new, false)
        });
        let order = order.expect("emit_with has made the body");
        self.begun.insert(order.id, now.utc);
        self.keep(order.clone(), out);
        order
    }

    /// Puts an open order into a slot, or says that there is none. `why` is put before the reasons.
    fn replan(
        &mut self,
        now: Now,
        mut order: WorkOrder,
        found: Found,
        why: Option<&str>,
        chain: Chain,
        out: &mut Outbox<'_>,
    ) -> WorkOrder {
        let moved = order.booking.is_some();
        let (booking, state, late, reasons) = match found {
            Found::Slot { booking, late, reasons } => {
                (Some(booking), OrderState::Planned, late, reasons)
            }
            Found::Nothing { reasons } => (None, OrderState::Unschedulable, false, reasons),
        };
        let reasons = why.map(str::to_owned).into_iter().chain(reasons).collect();
        order.reasons = with_clock(reasons, now, state);
        (order.booking, order.state, order.late) = (booking, state, late);
        out.emit_from(chain, announcement(&order, moved));
        self.keep(order.clone(), out);
        order
    }

    /// Looks for slots for the orders that have none, the most urgent first. An order that still
    /// has none is not announced again.
    fn retry(&mut self, now: Now, out: &mut Outbox<'_>) {
        let waiting = |order: &&WorkOrder| order.state == OrderState::Unschedulable;
        let mut waiting: Vec<WorkOrder> = self.open.values().filter(waiting).cloned().collect();
        waiting.sort_by_key(|order| {
            let due = order.request.due;
            (Reverse(order.request.priority), due.is_none(), due, order.id)
        });
        for mut order in waiting {
            match self.search(now, &order.request, None) {
                found @ Found::Slot { .. } => {
                    let chain = own_chain(&order);
                    self.replan(now, order, found, None, chain, out);
                }
                Found::Nothing { reasons } if reasons != order.reasons => {
                    order.reasons = reasons;
                    self.keep(order, out);
                }
                Found::Nothing { .. } => {}
            }
        }
        self.retry_at = None;
    }

    /// Moves what was planned by a clock that has been set since.
    fn replan_after_clock(&mut self, now: Now, out: &mut Outbox<'_>) {
        if !now.trusted {
            return;
        }
        let guessed = |order: &&WorkOrder| {
            order.state == OrderState::Planned && order.reasons.iter().any(|r| r == CLOCK_REASON)
        };
        let guessed: Vec<WorkOrder> = self.open.values().filter(guessed).cloned().collect();
        for order in guessed {
            let found = self.search(now, &order.request, Some(order.id));
            let chain = own_chain(&order);
            self.replan(now, order, found, Some("the gateway's clock was set"), chain, out);
        }
    }

    /// Begins what has come due.
    fn start_due(&mut self, now: Now, out: &mut Outbox<'_>) {
        let due = |order: &&WorkOrder| {
            order.state == OrderState::Planned
                && order.booking.as_ref().is_some_and(|booking| booking.start <= now.utc)
        };
        let due: Vec<WorkOrder> = self.open.values().filter(due).cloned().collect();
        for mut order in due {
            order.state = OrderState::Started;
            out.emit_from(own_chain(&order), Body::WorkOrderStarted(order.clone()));
            self.keep(order, out);
        }
    }

    fn keep(&mut self, order: WorkOrder, out: &mut Outbox<'_>) {
        let begun = self.begun.get(&order.id).copied().unwrap_or_default();
        out.save(
            Record::new(RecordKind::WorkOrder, order.id, begun, &order)
                .about(&order.request.asset)
                .in_state(order.state.as_str(), !order.state.is_final()),
        );
        self.open.insert(order.id, order);
    }

    fn close(&mut self, order: WorkOrder, answer: Value, out: &mut Outbox<'_>) {
        let id = order.id;
        self.keep(order, out);
        self.open.remove(&id);
        self.begun.remove(&id);
        self.remember(id, answer);
    }

    fn remember(&mut self, id: EventId, answer: Value) {
        self.closed.insert(id, answer);
        while self.closed.len() > CLOSED_REMEMBERED_MAX {
            self.closed.pop_first();
        }
    }

    fn cancel(&mut self, mut order: WorkOrder, reason: String, chain: Chain, out: &mut Outbox<'_>) {
        order.state = OrderState::Cancelled;
        order.reasons.push(reason);
        out.emit_from(chain, Body::WorkOrderCancelled(order.clone()));
        let answer = closed_answer(&order, None);
        self.close(order, answer, out);
    }

    fn find(&self, id: EventId) -> Result<WorkOrder, Refusal> {
        if let Some(order) = self.open.get(&id) {
            return Ok(order.clone());
        }
        match self.closed.get(&id) {
            Some(first) => Err(Refusal::Conflict {
                detail: format!("work order {id} is closed"),
                first: first.clone(),
            }),
            None => Err(Refusal::NotFound(format!("there is no open work order {id}"))),
        }
    }

    fn check(&self, request: &OrderRequest) -> Result<(), Refusal> {
        if !self.setting.plant.assets.contains_key(&request.asset) {
            return Err(Refusal::NotFound(format!("there is no asset {}", request.asset)));
        }
        if search::length_of(request).is_none() {
            return Err(Refusal::Invalid(format!(
                "duration_seconds is {}: it must be above 0 and at most 14 days",
                request.duration_seconds
            )));
        }
        self.check_technician(request.technician.as_ref())?;
        if self.open.len() >= OPEN_ORDERS_MAX {
            return Err(Refusal::Invalid(format!("{OPEN_ORDERS_MAX} orders are already open")));
        }
        Ok(())
    }

    fn check_technician(&self, technician: Option<&TechnicianId>) -> Result<(), Refusal> {
        let known =
            |id: &TechnicianId| self.setting.config.technicians.iter().any(|known| known.id == *id);
        match technician {
            Some(id) if !known(id) => {
                Err(Refusal::NotFound(format!("there is no technician {id}")))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn reschedule(
        &mut self,
        now: Now,
        id: EventId,
        not_before: Option<Timestamp>,
        technician: Option<TechnicianId>,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let mut order = self.find(id)?;
        self.check_technician(technician.as_ref())?;
        order.request.not_before = not_before.or(order.request.not_before);
        order.request.technician = technician.or(order.request.technician);
        let found = self.search(now, &order.request, Some(id));
        if let (Found::Nothing { reasons }, Some(_)) = (&found, &order.booking) {
            // The slot it has is worth more than the wish for one that does not exist.
            return Err(Refusal::Invalid(format!(
                "no such slot, the order stays as planned: {}",
                reasons.join("; ")
            )));
        }
        let chain = own_chain(&order);
        let order = self.replan(now, order, found, Some("rescheduled by hand"), chain, out);
        Ok(json_of(&order))
    }

    fn complete(
        &mut self,
        now: Now,
        id: EventId,
        completion: &Completion,
        out: &mut Outbox<'_>,
    ) -> CommandResult {
        let mut order = self.find(id)?;
        if completion.duration.is_some_and(|seconds| !(seconds.is_finite() && seconds >= 0.0)) {
            return Err(Refusal::Invalid("the duration is no number of seconds".to_owned()));
        }
        let chain = own_chain(&order);
        let body = match completion.outcome {
            Outcome::Fixed | Outcome::NoFaultFound | Outcome::Partial => {
                order.state = OrderState::Completed;
                Body::WorkOrderCompleted(order.clone(), completion.clone())
            }
            Outcome::Failed => {
                order.state = OrderState::Failed;
                Body::WorkOrderFailed(order.clone(), completion.clone())
            }
        };
        out.emit_from(chain, body);
        let answer = closed_answer(&order, Some(completion));
        self.close(order, answer.clone(), out);
        self.retry(now, out);
        Ok(answer)
    }

    fn set_wake(&mut self, now: Now) {
        let waiting = self.open.values().any(|order| order.state == OrderState::Unschedulable);
        self.retry_at = if waiting {
            Some(self.retry_at.unwrap_or(now.mono.saturating_add(RETRY_EVERY)))
        } else {
            None
        };
        let start = self
            .open
            .values()
            .filter(|order| order.state == OrderState::Planned)
            .filter_map(|order| order.booking.as_ref())
            .map(|booking| booking.start)
            .min()
            .map(|start| now.mono.saturating_add(start.since(now.utc).min(CLOCK_CHECK_EVERY)));
        self.wake = [self.retry_at, start].into_iter().flatten().min();
    }
}

impl Stage for Scheduling {
    fn name(&self) -> StageName {
        StageName::Scheduling
    }

    fn restore(&mut self, now: Now, saved: Saved<'_>) -> Result<(), StageError> {
        for record in saved.of(RecordKind::WorkOrder) {
            let order: WorkOrder = record.read().map_err(|error| {
                StageError::new(format!("work order {} cannot be read: {error}", record.id))
            })?;
            self.begun.insert(order.id, record.time);
            self.open.insert(order.id, order);
        }
        // The logbook's entries say which orders are closed, and how.
        for record in saved.of(RecordKind::LogEntry) {
            if let Ok(entry) = record.read::<LogEntry>() {
                let answer = closed_answer(&entry.order, Some(&entry.completion));
                self.remember(entry.order.id, answer);
            }
        }
        self.set_wake(now);
        Ok(())
    }

    fn on_event(
        &mut self,
        now: Now,
        event: &Event,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        if let Body::OrderAuthorised { order, by } = &event.body {
            if self.open.len() >= OPEN_ORDERS_MAX {
                return Err(StageError::new(format!("{OPEN_ORDERS_MAX} orders are already open")));
            }
            self.create(now, order.clone(), by, Some(Chain::of(event)), out);
            self.set_wake(now);
        }
        Ok(())
    }

    fn on_command(
        &mut self,
        now: Now,
        command: &Command,
        out: &mut Outbox<'_>,
    ) -> Option<CommandResult> {
        let result = match &command.verb {
            Verb::CreateOrder { request } => self.check(request).map(|()| {
                let chain = out.context();
                json_of(&self.create(now, request.clone(), &command.by, chain, out))
            }),
            Verb::Complete { order, completion } => {
                let mut completion = completion.clone();
                completion.by.get_or_insert_with(|| command.by.clone());
                self.complete(now, *order, &completion, out)
            }
            Verb::Reschedule { order, not_before, technician } => {
                self.reschedule(now, *order, *not_before, technician.clone(), out)
            }
            Verb::Cancel { order, reason } => self.find(*order).map(|order| {
                let why = reason.as_deref().unwrap_or("no reason given");
                let (id, chain) = (order.id, own_chain(&order));
                self.cancel(order, format!("cancelled by {}: {why}", command.by), chain, out);
                self.retry(now, out);
                self.closed.get(&id).cloned().unwrap_or_default()
            }),
            Verb::Acknowledge { .. }
            | Verb::Shelve { .. }
            | Verb::Unshelve { .. }
            | Verb::Decide { .. }
            | Verb::Feedback { .. }
            | Verb::Relearn { .. }
            | Verb::Train { .. }
            | Verb::Promote { .. }
            | Verb::Rollback { .. }
            | Verb::Pin { .. }
            | Verb::ImportModel(_)
            | Verb::Retry { .. } => return None,
        };
        self.set_wake(now);
        Some(result)
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.wake
    }

    fn on_deadline(&mut self, now: Now, out: &mut Outbox<'_>) -> Result<(), StageError> {
        self.replan_after_clock(now, out);
        self.start_due(now, out);
        if self.retry_at.is_some_and(|at| at <= now.mono) {
            self.retry(now, out);
        }
        self.set_wake(now);
        Ok(())
    }

    fn configure(
        &mut self,
        now: Now,
        setting: &Setting,
        out: &mut Outbox<'_>,
    ) -> Result<(), StageError> {
        self.setting = setting.clone();
        let orders: Vec<WorkOrder> = self.open.values().cloned().collect();
        for order in orders {
            let chain = own_chain(&order);
            if !setting.plant.assets.contains_key(&order.request.asset) {
                self.cancel(order, "configuration".to_owned(), chain, out);
                continue;
            }
            // Whoever has begun goes on; only plans are revised.
            if order.state != OrderState::Planned {
                continue;
            }
            let calendar = Calendar { setting: &self.setting, orders: &self.open, now: now.utc };
            if let Some(obstacle) = calendar.obstacle(&order) {
                let found = self.search(now, &order.request, Some(order.id));
                let why = format!("the configuration changed: {obstacle}");
                self.replan(now, order, found, Some(&why), chain, out);
            }
        }
        self.retry(now, out);
        self.set_wake(now);
        Ok(())
    }
}

/// What is announced of an order that was just planned; `moved` when it had a slot before.
fn announcement(order: &WorkOrder, moved: bool) -> Body {
    if order.booking.is_none() {
        Body::WorkOrderUnschedulable(order.clone())
    } else if moved {
        Body::WorkOrderRescheduled(order.clone())
    } else {
        Body::WorkOrderPlanned(order.clone())
    }
}

fn with_clock(mut reasons: Vec<String>, now: Now, state: OrderState) -> Vec<String> {
    if !now.trusted && state == OrderState::Planned {
        reasons.push(CLOCK_REASON.to_owned());
    }
    reasons
}

/// The chain of an order, for what happens to it later.
const fn own_chain(order: &WorkOrder) -> Chain {
    Chain { cause: order.id, correlation: order.correlation }
}

fn json_of(order: &WorkOrder) -> Value {
    serde_json::to_value(order).expect("work orders are JSON")
}

fn closed_answer(order: &WorkOrder, completion: Option<&Completion>) -> Value {
    let mut answer = json_of(order);
    answer["completion"] = json!(completion);
    answer
}
