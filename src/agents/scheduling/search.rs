//! The search for a person and a time for one order, with reasons for whatever comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::calendar;
use crate::agents::Setting;
use crate::analytics::assignment::{Candidate, Span, choose, common, earliest, joined, without};
use crate::config::Technician;
use crate::domain::ids::{AssetId, EventId, TechnicianId};
use crate::domain::time::Timestamp;
use crate::domain::work_order::{Booking, OrderRequest, WorkOrder};

/// How far ahead a slot is looked for.
pub(super) const HORIZON: Duration = Duration::from_secs(14 * 86_400);

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Found {
    /// A slot.
    Slot {
        /// Who and when.
        booking: Booking,
        /// Whether it ends after the due time.
        late: bool,
        /// Why this one.
        reasons: Vec<String>,
    },
    /// None, and why: one sentence for every technician.
    Nothing {
        /// Why.
        reasons: Vec<String>,
    },
}

/// The plant's calendar as it stands at one moment.
pub(super) struct Calendar<'a> {
    /// The configuration in force.
    pub(super) setting: &'a Setting,
    /// All open orders; those with a booking take their person and their asset.
    pub(super) orders: &'a BTreeMap<EventId, WorkOrder>,
    /// No work begins before this moment.
    pub(super) now: Timestamp,
}

impl Calendar<'_> {
    /// Looks for the earliest slot for `request`. Bookings of the order `own` do not count.
    pub(super) fn search(&self, request: &OrderRequest, own: Option<EventId>) -> Found {
        let technicians = &self.setting.config.technicians;
        if technicians.is_empty() {
            return nothing("no technician is configured");
        }
        let Some(length) = length_of(request) else {
            return nothing(&format!("{} s is no duration for work", request.duration_seconds));
        };
        let from = whole_second(self.now.max(request.not_before.unwrap_or(self.now)));
        let Some(within) = Span::new(from, from.after(HORIZON)) else {
            return nothing("the calendar ends here");
        };
        let open = self.open_hours(&request.asset, within);
        let machine_taken = self.taken(own, |order, _| order.request.asset == request.asset);
        let mut candidates = Vec::new();
        let mut unbooked = Vec::new();
        let mut reasons = Vec::new();
        for technician in technicians {
            let id = &technician.id;
            if let Some(obstacle) = unsuitable(technician, request) {
                reasons.push(format!("{id} {obstacle}"));
                continue;
            }
            let works = self.at_work(technician, within);
            let possible = common(&works, &open);
            let own_taken = self.taken(own, |_, booking| booking.technician == *id);
            let free = without(&without(&possible, &machine_taken), &own_taken);
            if earliest(&free, from, length).is_none() {
                reasons.push(format!("{id} {}", no_room(&works, &possible, from, length)));
            }
            candidates.push(Candidate { id, free, load: self.load(id, own) });
            unbooked.push(Candidate { id, free: possible, load: Duration::ZERO });
        }
        let Some((technician, slot)) = choose(&candidates, from, length) else {
            return Found::Nothing { reasons };
        };
        let late = request.due.is_some_and(|due| slot.end() > due);
        let mut reasons = vec![format!("{technician} is the first who has all skills and room")];
        if let (Some(due), true) = (request.due, late) {
            reasons.push(format!("late: due {due}, the earliest slot ends {}", slot.end()));
            let possible = choose(&unbooked, from, length);
            if possible.is_some_and(|(_, slot)| slot.end() <= due) {
                reasons.push(
                    "earlier time is taken by orders already planned, which are not displaced"
                        .to_owned(),
                );
            } else if from.after(length) > due {
                reasons.push("begun at once it would still end after the due time".to_owned());
            }
        }
        let booking =
            Booking { technician: technician.clone(), start: slot.start(), end: slot.end() };
        Found::Slot { booking, late, reasons }
    }

    /// What stands in the way of an order that is already booked, if anything: for bookings made
    /// under an earlier configuration.
    pub(super) fn obstacle(&self, order: &WorkOrder) -> Option<String> {
        let booking = order.booking.as_ref()?;
        let id = &booking.technician;
        let technicians = &self.setting.config.technicians;
        let Some(technician) = technicians.iter().find(|technician| technician.id == *id) else {
            return Some(format!("{id} is no longer there"));
        };
        if let Some(obstacle) = unsuitable(technician, &order.request) {
            return Some(format!("{id} {obstacle}"));
        }
        let span = Span::new(booking.start, booking.end)?;
        let inside = |spans: &[Span]| spans.iter().any(|outer| outer.contains(span));
        if !inside(&self.at_work(technician, span)) {
            return Some(format!("{id} is not at work then"));
        }
        if !inside(&self.open_hours(&order.request.asset, span)) {
            return Some(format!("{} may not be stopped then", order.request.asset));
        }
        None
    }

    /// When the technician is at work: shifts without absences.
    fn at_work(&self, technician: &Technician, within: Span) -> Vec<Span> {
        let config = &self.setting.config;
        let shifts = calendar::spans(&technician.shifts, &config.gateway.time_zone, within);
        let absences = config
            .absences
            .iter()
            .filter(|absence| absence.technician == technician.id)
            .filter_map(|absence| Span::new(absence.from, absence.to));
        without(&shifts, &joined(absences.collect()))
    }

    /// When the asset may be stopped: in its windows, or at any time when it has none.
    fn open_hours(&self, asset: &AssetId, within: Span) -> Vec<Span> {
        let config = &self.setting.config;
        let mut windows = config.windows.iter().filter(|window| window.asset == *asset).peekable();
        if windows.peek().is_none() {
            return vec![within];
        }
        let shifts: Vec<_> = windows.flat_map(|window| window.shifts.iter().cloned()).collect();
        calendar::spans(&shifts, &config.gateway.time_zone, within)
    }

    fn taken(
        &self,
        own: Option<EventId>,
        concerns: impl Fn(&WorkOrder, &Booking) -> bool,
    ) -> Vec<Span> {
        let bookings = self.bookings(own).filter(|(order, booking)| concerns(order, booking));
        joined(bookings.filter_map(|(_, b)| Span::new(b.start, b.end)).collect())
    }

    fn load(&self, technician: &TechnicianId, own: Option<EventId>) -> Duration {
        self.bookings(own)
            .filter(|(_, booking)| booking.technician == *technician)
            .map(|(_, booking)| booking.end.since(booking.start))
            .sum()
    }

    fn bookings(&self, own: Option<EventId>) -> impl Iterator<Item = (&WorkOrder, &Booking)> {
        self.orders
            .values()
            .filter(move |order| Some(order.id) != own)
            .filter_map(|order| Some((order, order.booking.as_ref()?)))
    }
}

/// How long the work takes; `None` when that is no time span or no slot could ever hold it.
pub(super) fn length_of(request: &OrderRequest) -> Option<Duration> {
    let length = Duration::try_from_secs_f64(request.duration_seconds).ok()?;
    (length >= Duration::from_millis(1) && length <= HORIZON).then_some(length)
}

fn nothing(reason: &str) -> Found {
    Found::Nothing { reasons: vec![reason.to_owned()] }
}

/// Why this person cannot do it at any time.
fn unsuitable(technician: &Technician, request: &OrderRequest) -> Option<String> {
    if request.technician.as_ref().is_some_and(|wanted| *wanted != technician.id) {
        return Some("is not the person asked for".to_owned());
    }
    let missing: Vec<&str> = request
        .skills
        .iter()
        .filter(|skill| !technician.skills.contains(skill))
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| format!("lacks the skill {}", missing.join(", ")))
}

/// Why this person, though suitable, has no room within the horizon.
fn no_room(works: &[Span], possible: &[Span], from: Timestamp, length: Duration) -> String {
    let (hours, days) = (length.as_secs_f64() / 3600.0, HORIZON.as_secs() / 86_400);
    if earliest(works, from, length).is_none() {
        format!("is at work for {hours:.1} h in one piece on none of the next {days} days")
    } else if earliest(possible, from, length).is_none() {
        format!("is never at work for {hours:.1} h while the asset may be stopped")
    } else {
        format!("or the asset is booked whenever {hours:.1} h would fit")
    }
}

/// The next whole second: people are told times to the second.
fn whole_second(moment: Timestamp) -> Timestamp {
    const SECOND: i64 = 1_000_000;
    let beyond = moment.micros().rem_euclid(SECOND);
    if beyond == 0 {
        return moment;
    }
    Timestamp::from_micros(moment.micros().saturating_add(SECOND - beyond))
}
