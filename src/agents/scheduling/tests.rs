use jiff::tz::TimeZone;

use super::*;
use crate::agents::testing::{Bench, always, asset, noon, plain_config, setting};
use crate::analytics::assignment::Span;
use crate::config::{Absence, Config, Shift, Technician, Window};
use crate::domain::severity::Severity;
use crate::domain::work_order::Booking;

const HOUR: f64 = 3600.0;

fn bench(config: Config) -> Bench {
    Bench::new(setting(config), |setting| vec![Box::new(Scheduling::new(setting))])
}

fn request(asset_id: &str, skills: &[&str], hours: f64) -> OrderRequest {
    OrderRequest {
        asset: asset(asset_id),
        task: "replace the bearing".to_owned(),
        skills: skills.iter().map(|skill| (*skill).to_owned()).collect(),
        duration_seconds: hours * HOUR,
        priority: Severity::High,
        not_before: None,
        due: None,
        technician: None,
        alarms: Vec::new(),
        anomaly: None,
    }
}

fn authorise(bench: &mut Bench, request: OrderRequest) -> WorkOrder {
    let before = bench.events.len();
    bench.emit(Body::OrderAuthorised { order: request, by: "policy".to_owned() });
    assert_eq!(bench.events.len(), before + 2);
    order_of(bench.events.last().unwrap())
}

fn order_of(event: &Event) -> WorkOrder {
    let (Body::WorkOrderPlanned(order)
    | Body::WorkOrderStarted(order)
    | Body::WorkOrderRescheduled(order)
    | Body::WorkOrderCancelled(order)
    | Body::WorkOrderUnschedulable(order)
    | Body::WorkOrderCompleted(order, _)
    | Body::WorkOrderFailed(order, _)) = &event.body
    else {
        panic!("no order: {event}")
    };
    order.clone()
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

fn person(id: &str) -> TechnicianId {
    TechnicianId::new(id).unwrap()
}

fn done(outcome: Outcome) -> Completion {
    Completion { outcome, found: None, notes: None, duration: None, by: None }
}

/// Weekdays 06:00 to 14:00.
fn early_shift() -> Shift {
    Shift {
        days: [true, true, true, true, true, false, false],
        from_minute: 6 * 60,
        to_minute: 14 * 60,
    }
}

#[test]
fn an_order_goes_to_one_person_with_all_skills() {
    let mut bench = bench(plain_config());
    let order = authorise(&mut bench, request("P-101", &["mechanical", "electrical"], 2.0));
    let booking = order.booking.clone().unwrap();
    assert_eq!(booking.technician, person("tech-3"));
    assert_eq!((booking.start, booking.end), (noon(), noon().after(hours(2))));
    assert_eq!((order.state, order.late), (OrderState::Planned, false));
    // It is named after the event that announces it, in the chain of the authorisation.
    let planned = bench.last("work-order-planned");
    assert_eq!(planned.id, order.id);
    assert_eq!(planned.correlation, bench.events[0].id);
    assert_eq!(order.correlation, planned.correlation);
    let record = &bench.records[&(RecordKind::WorkOrder, order.id.to_string())];
    assert_eq!((record.state.as_str(), record.open), ("planned", true));
}

#[test]
fn two_orders_never_share_a_person_or_an_asset() {
    let mut bench = bench(plain_config());
    let both = ["mechanical", "electrical"];
    let first = authorise(&mut bench, request("P-101", &both, 2.0)).booking.unwrap();
    let person_taken = authorise(&mut bench, request("F-1", &both, 2.0)).booking.unwrap();
    assert_eq!(person_taken.start, first.end);
    let asset_taken = authorise(&mut bench, request("P-101", &["lubrication"], 1.0));
    assert_eq!(asset_taken.booking.unwrap().start, first.end);
}

#[test]
fn the_later_order_is_late_and_says_that_nobody_is_displaced() {
    let mut bench = bench(plain_config());
    authorise(&mut bench, request("P-101", &["lubrication"], 3.0));
    let mut urgent = request("P-101", &["lubrication"], 3.0);
    urgent.priority = Severity::Critical;
    urgent.due = Some(noon().after(hours(4)));
    let order = authorise(&mut bench, urgent);
    assert!(order.late);
    assert_eq!(order.booking.unwrap().start, noon().after(hours(3)));
    assert!(order.reasons.iter().any(|r| r.contains("not displaced")), "{:?}", order.reasons);
}

#[test]
fn what_no_slot_can_hold_says_why_for_every_technician_and_is_planned_when_it_can() {
    let mut config = plain_config();
    config.technicians[0].shifts = vec![early_shift()];
    config.technicians[2].shifts = vec![early_shift()];
    config.windows = vec![Window {
        asset: asset("F-1"),
        shifts: vec![Shift { from_minute: 13 * 60, ..early_shift() }],
    }];
    let mut bench = bench(config.clone());
    let order = authorise(&mut bench, request("F-1", &["mechanical"], 2.0));
    assert_eq!(order.state, OrderState::Unschedulable);
    let [one, two, three] = &order.reasons[..] else { panic!("{:?}", order.reasons) };
    assert!(one.starts_with("tech-1 is never at work for 2.0 h while the asset"), "{one}");
    assert_eq!(two, "tech-2 lacks the skill mechanical");
    assert!(three.starts_with("tech-3 is never at work"), "{three}");
    let long = authorise(&mut bench, request("P-101", &["mechanical"], 9.0));
    assert!(long.reasons[0].contains("9.0 h in one piece"), "{:?}", long.reasons);

    // Looked at again without a new announcement as long as nothing comes of it.
    bench.pass(hours(30));
    assert_eq!(bench.count("work-order-unschedulable"), 2);
    config.windows.clear();
    bench.configure(setting(config));
    let planned = order_of(bench.last("work-order-planned"));
    assert_eq!((planned.id, planned.state), (order.id, OrderState::Planned));
    assert_eq!(bench.last("work-order-planned").correlation, order.correlation);
}

#[test]
fn the_horizon_moves_on_and_an_absence_ends() {
    let mut config = plain_config();
    config.absences = vec![Absence {
        technician: person("tech-1"),
        from: noon().before(hours(1)),
        to: noon().after(hours(24 * 15)),
    }];
    let mut bench = bench(config);
    let order = authorise(&mut bench, request("P-101", &["lubrication"], 2.0));
    assert_eq!(order.state, OrderState::Unschedulable);
    bench.pass(hours(24 * 2));
    let planned = order_of(bench.last("work-order-planned"));
    assert_eq!(planned.booking.unwrap().start, noon().after(hours(24 * 15)));
}

#[test]
fn an_order_starts_when_its_time_has_come_also_after_a_restart() {
    let mut bench = bench(plain_config());
    let mut later = request("P-101", &["lubrication"], 1.0);
    later.not_before = Some(noon().after(hours(5)));
    let order = authorise(&mut bench, later.clone());
    bench.pass(hours(5) - Duration::from_secs(1));
    assert_eq!(bench.count("work-order-started"), 0);
    bench.pass(Duration::from_secs(1));
    assert_eq!(order_of(bench.last("work-order-started")).id, order.id);

    later.not_before = Some(noon().after(hours(20)));
    authorise(&mut bench, later);
    bench.restart(hours(18), true);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.count("work-order-started"), 2);
    bench.pass(hours(1));
    assert_eq!(bench.count("work-order-started"), 2);
}

#[test]
fn completing_closes_once_and_frees_the_slot() {
    let mut bench = bench(plain_config());
    let order = authorise(&mut bench, request("P-101", &["lubrication"], 300.0));
    let waiting = authorise(&mut bench, request("P-101", &["lubrication"], 100.0));
    assert_eq!(waiting.state, OrderState::Unschedulable);

    let complete = |outcome| Verb::Complete { order: order.id, completion: done(outcome) };
    let answer = bench.command_by("eva", complete(Outcome::Fixed)).unwrap().unwrap();
    assert_eq!(answer["state"], "completed");
    assert_eq!(answer["completion"]["by"], "eva");
    assert_eq!(bench.last("work-order-completed").correlation, order.correlation);
    assert_eq!(order_of(bench.last("work-order-planned")).id, waiting.id);
    let record = &bench.records[&(RecordKind::WorkOrder, order.id.to_string())];
    assert_eq!((record.state.as_str(), record.open), ("completed", false));

    let Some(Err(Refusal::Conflict { first, .. })) = bench.command(complete(Outcome::Failed))
    else {
        panic!()
    };
    assert_eq!(first, answer);
    let unknown = Verb::Cancel { order: EventId(uuid::Uuid::nil()), reason: None };
    assert!(matches!(bench.command(unknown), Some(Err(Refusal::NotFound(_)))));
}

#[test]
fn failed_work_fails_the_order() {
    let mut bench = bench(plain_config());
    let order = authorise(&mut bench, request("P-101", &["lubrication"], 1.0));
    let completion = done(Outcome::Failed);
    bench.command(Verb::Complete { order: order.id, completion }).unwrap().unwrap();
    assert_eq!(order_of(bench.last("work-order-failed")).state, OrderState::Failed);
}

#[test]
fn a_person_creates_moves_and_cancels_an_order() {
    let mut bench = bench(plain_config());
    let create = Verb::CreateOrder { request: request("P-101", &["mechanical"], 1.0) };
    let made = bench.command_by("eva", create).unwrap().unwrap();
    assert_eq!(made["authorised_by"], "eva");
    let id = order_of(bench.last("work-order-planned")).id;

    let not_before = Some(noon().after(hours(7)));
    let technician = Some(person("tech-3"));
    let moved = bench.command(Verb::Reschedule { order: id, not_before, technician });
    let order = order_of(bench.last("work-order-rescheduled"));
    assert_eq!(moved.unwrap().unwrap(), json_of(&order));
    let booking = order.booking.unwrap();
    assert_eq!((booking.technician, booking.start), (person("tech-3"), noon().after(hours(7))));

    // A wish that cannot be granted leaves the order where it is.
    let technician = Some(person("tech-2"));
    let wish = Verb::Reschedule { order: id, not_before: None, technician };
    assert!(matches!(bench.command(wish), Some(Err(Refusal::Invalid(_)))));
    assert_eq!(bench.count("work-order-rescheduled"), 1);

    let cancel = Verb::Cancel { order: id, reason: Some("not needed".to_owned()) };
    assert_eq!(bench.command(cancel.clone()).unwrap().unwrap()["state"], "cancelled");
    assert!(matches!(bench.command(cancel), Some(Err(Refusal::Conflict { .. }))));
}

#[test]
fn senseless_orders_are_refused() {
    let mut bench = bench(plain_config());
    let mut refused = |change: &dyn Fn(&mut OrderRequest)| {
        let mut request = request("P-101", &["mechanical"], 1.0);
        change(&mut request);
        assert!(bench.command(Verb::CreateOrder { request }).unwrap().is_err());
        assert!(bench.events.is_empty());
    };
    refused(&|r| r.asset = asset("P-999"));
    refused(&|r| r.technician = Some(person("nobody")));
    for duration in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e30] {
        refused(&|r| r.duration_seconds = duration);
    }
}

#[test]
fn a_new_configuration_moves_what_no_longer_fits_and_cancels_what_is_gone() {
    let mut config = plain_config();
    let mut bench = bench(config.clone());
    let mut pump = request("P-101", &["mechanical", "electrical"], 1.0);
    pump.not_before = Some(noon().after(hours(48)));
    let pump = authorise(&mut bench, pump);
    let fan = authorise(&mut bench, request("F-1", &["electrical"], 1.0));
    config.technicians[2].shifts = vec![early_shift()];
    config.assets.retain(|kept| kept.id != asset("F-1"));
    config.modbus[0].tags.retain(|kept| kept.tag.path.asset != asset("F-1"));
    bench.configure(setting(config));
    // Noon on a Sunday is no shift any more.
    let moved = order_of(bench.last("work-order-rescheduled"));
    assert_eq!(moved.id, pump.id);
    let monday = Timestamp::parse_rfc3339("2026-05-04T06:00:00Z").unwrap();
    assert_eq!(moved.booking.unwrap().start, monday);
    let cancelled = order_of(bench.last("work-order-cancelled"));
    assert_eq!(cancelled.id, fan.id);
    assert_eq!(cancelled.reasons.last().unwrap(), "configuration");
}

#[test]
fn what_an_unset_clock_planned_is_planned_anew() {
    let mut bench = bench(plain_config());
    bench.now.trusted = false;
    bench.now.utc = Timestamp::parse_rfc3339("2001-01-01T00:00:00Z").unwrap();
    let mut later = request("P-101", &["lubrication"], 1.0);
    later.due = Some(noon().after(hours(9)));
    later.not_before = Some(bench.now.utc.after(hours(1)));
    let order = authorise(&mut bench, later);
    assert!(order.reasons.iter().any(|reason| reason == CLOCK_REASON));
    bench.now.trusted = true;
    bench.now.utc = noon();
    bench.pass(Duration::from_secs(120));
    let moved = order_of(bench.last("work-order-rescheduled"));
    assert!(moved.booking.unwrap().start >= noon());
    assert!(!moved.late);
}

/// Whether a shift covers the half hour from `moment`, found by asking the wall clock at that
/// moment: independent of how [`calendar`] lays shifts down.
fn covers(shifts: &[Shift], zone: &TimeZone, moment: Timestamp) -> bool {
    let civil = zone.to_datetime(moment.calendar());
    let minute = u16::try_from(i32::from(civil.hour()) * 60 + i32::from(civil.minute())).unwrap();
    let today = usize::try_from(civil.date().weekday().to_monday_zero_offset()).unwrap();
    let yesterday = (today + 6) % 7;
    shifts.iter().any(|shift| {
        let past_midnight = shift.to_minute <= shift.from_minute;
        let begun_today = shift.days[today]
            && minute >= shift.from_minute
            && (past_midnight || minute < shift.to_minute);
        let begun_yesterday = past_midnight && shift.days[yesterday] && minute < shift.to_minute;
        begun_today || begun_yesterday
    })
}

const HALF: Duration = Duration::from_secs(1800);

/// What may stand at a half hour, by brute force.
struct Oracle<'a> {
    config: &'a Config,
    bookings: Vec<(crate::domain::ids::AssetId, Booking)>,
}

impl Oracle<'_> {
    fn allowed(&self, request: &OrderRequest, technician: &Technician, half: Timestamp) -> bool {
        let zone = &self.config.gateway.time_zone;
        let span = Span::new(half, half.after(HALF)).unwrap();
        let clashes = |from, to| Span::new(from, to).is_some_and(|taken| taken.overlaps(span));
        let mut windows =
            self.config.windows.iter().filter(|w| w.asset == request.asset).peekable();
        covers(&technician.shifts, zone, half)
            && (windows.peek().is_none() || windows.any(|w| covers(&w.shifts, zone, half)))
            && !self
                .config
                .absences
                .iter()
                .any(|away| away.technician == technician.id && clashes(away.from, away.to))
            && !self.bookings.iter().any(|(asset, booking)| {
                (*asset == request.asset || booking.technician == technician.id)
                    && clashes(booking.start, booking.end)
            })
    }

    /// The earliest possible end.
    fn earliest_end(&self, request: &OrderRequest, now: Timestamp) -> Option<Timestamp> {
        let length = Duration::from_secs_f64(request.duration_seconds);
        let halves = u32::try_from(length.as_secs() / HALF.as_secs()).unwrap();
        let last = search::HORIZON.as_secs() / HALF.as_secs();
        let able = self.config.technicians.iter().filter(|technician| {
            request.technician.as_ref().is_none_or(|wanted| *wanted == technician.id)
                && request.skills.iter().all(|skill| technician.skills.contains(skill))
        });
        able.filter_map(|technician| {
            let mut run = 0;
            (0..u32::try_from(last).unwrap()).find_map(|half| {
                let from = now.after(HALF * half);
                run = if self.allowed(request, technician, from) { run + 1 } else { 0 };
                (run >= halves).then(|| from.after(HALF))
            })
        })
        .min()
    }
}

fn random_config(random: &mut fastrand::Rng) -> Config {
    let mut config = plain_config();
    config.gateway.time_zone = TimeZone::get("Europe/Rome").unwrap();
    // No edge in the hour that comes twice in October: the wall clock alone cannot place it.
    let edges = [0, 4 * 60, 6 * 60, 8 * 60 + 30, 12 * 60, 14 * 60, 18 * 60, 22 * 60, 1440];
    let shift = |random: &mut fastrand::Rng| Shift {
        days: std::array::from_fn(|_| random.u8(0..3) > 0),
        from_minute: edges[random.usize(..edges.len() - 1)],
        to_minute: edges[random.usize(1..edges.len())],
    };
    for technician in &mut config.technicians {
        technician.shifts = (0..random.usize(0..3)).map(|_| shift(random)).collect();
    }
    if random.bool() {
        config.technicians[0].shifts = vec![always()];
    }
    if random.bool() {
        let shifts = vec![shift(random), shift(random)];
        config.windows = vec![Window { asset: asset("P-101"), shifts }];
    }
    for _ in 0..random.usize(0..3) {
        let from = start_of(random).after(HALF * random.u32(0..300));
        config.absences.push(Absence {
            technician: config.technicians[random.usize(0..3)].id.clone(),
            from,
            to: from.after(HALF * random.u32(1..200)),
        });
    }
    config
}

/// In half of the instances a clock change lies ahead.
fn start_of(random: &mut fastrand::Rng) -> Timestamp {
    let days = ["2026-03-25T09:00:00Z", "2026-10-21T09:00:00Z", "2026-05-01T10:00:00Z"];
    Timestamp::parse_rfc3339(days[random.usize(0..3)]).unwrap()
}

#[test]
fn random_plants_are_planned_as_well_as_brute_force_can() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut planned, mut late, mut impossible) = (0, 0, 0);
    for instance in 0..60 {
        let config = random_config(&mut random);
        let mut bench = bench(config.clone());
        bench.now.utc = start_of(&mut random);
        let mut open: BTreeMap<EventId, WorkOrder> = BTreeMap::new();
        for step in 0..12 {
            let skills = ["mechanical", "electrical", "hydraulics", "lubrication"];
            let mut wanted: Vec<&str> =
                skills.into_iter().filter(|_| random.u8(0..3) == 0).collect();
            random.shuffle(&mut wanted);
            let id = if random.bool() { "P-101" } else { "F-1" };
            let mut request = request(id, &wanted, f64::from(random.u8(1..14)) / 2.0);
            request.due = random.bool().then(|| bench.now.utc.after(HALF * random.u32(1..200)));
            let bookings = open
                .values()
                .filter_map(|order| Some((order.request.asset.clone(), order.booking.clone()?)));
            let oracle = Oracle { config: &config, bookings: bookings.collect() };
            let best = oracle.earliest_end(&request, bench.now.utc);

            let order = authorise(&mut bench, request.clone());
            let case = format!("instance {instance}, step {step}: {order:?}");
            let booking = order.booking.clone();
            assert_eq!(booking.as_ref().map(|booking| booking.end), best, "{case}");
            match &booking {
                Some(booking) => {
                    let config = &oracle.config.technicians;
                    let who = config.iter().find(|who| who.id == booking.technician).unwrap();
                    assert!(
                        request.skills.iter().all(|skill| who.skills.contains(skill)),
                        "{case}"
                    );
                    let mut half = booking.start;
                    while half < booking.end {
                        assert!(oracle.allowed(&request, who, half), "{case}");
                        half = half.after(HALF);
                    }
                    assert_eq!(order.late, request.due.is_some_and(|due| booking.end > due));
                    planned += 1;
                    late += u32::from(order.late);
                }
                None => {
                    assert_eq!(order.reasons.len(), 3, "{case}");
                    impossible += 1;
                }
            }
            if random.u8(0..3) == 0 {
                bench.pass(HALF * random.u32(0..40));
            }
            let open_ids: Vec<EventId> = open.keys().copied().collect();
            if let Some(id) = random.choice(open_ids) {
                let verb = match random.u8(0..3) {
                    0 => Verb::Complete { order: id, completion: done(Outcome::Fixed) },
                    1 => Verb::Cancel { order: id, reason: None },
                    _ => Verb::Reschedule { order: id, not_before: None, technician: None },
                };
                bench.command(verb);
            }
            if random.u8(0..6) == 0 {
                bench.restart(HALF * random.u32(0..4), true);
                bench.pass(Duration::ZERO);
            }
            open = bench
                .of_record(RecordKind::WorkOrder)
                .into_iter()
                .filter(|record| record.open)
                .map(|record| record.read::<WorkOrder>().unwrap())
                .map(|order| (order.id, order))
                .collect();
            no_double_booking(&open, &case);
        }
    }
    println!("{planned} planned, {late} of them late, {impossible} impossible");
    assert!(planned > 100 && late > 10 && impossible > 10);
}

fn no_double_booking(open: &BTreeMap<EventId, WorkOrder>, case: &str) {
    let booked: Vec<_> = open.values().filter_map(|o| Some((o, o.booking.as_ref()?))).collect();
    for (i, (a, x)) in booked.iter().enumerate() {
        for (b, y) in &booked[i + 1..] {
            let clash = x.start < y.end && y.start < x.end;
            let shared = x.technician == y.technician || a.request.asset == b.request.asset;
            assert!(!(clash && shared), "{case}: {a:?} and {b:?}");
        }
    }
}
