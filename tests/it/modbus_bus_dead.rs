//! Two hundred units on one line, forty of them dead, in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wheeltap::config::LineOptions;
use wheeltap::domain::reading::RawValue;
use wheeltap::domain::time::{Now, Timestamp};
use wheeltap::port::{EngineHandle, Input, SourceHealth};
use wheeltap::runtime::clock::Clock;
use wheeltap::sources::line::{Framing, Timing};
use wheeltap::sources::modbus::Bus;
use wheeltap::sources::notes::Notes;

use crate::support::memory_line::FarEnd;
use crate::support::modbus_server::Reply;
use crate::support::setting::{modbus, register, setting};

const UNITS: u8 = 200;
const DEAD: u8 = 40;
const PERIOD: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(500);
/// What an answer takes.
const ANSWER: Duration = Duration::from_millis(2);
/// Until the breakers of the dead units have opened.
const SETTLED: Duration = Duration::from_secs(600);
const SPAN: Duration = Duration::from_secs(900);

#[tokio::test(start_paused = true)]
async fn c20_r37_forty_dead_units_cost_the_living_next_to_nothing() {
    let began = Instant::now();
    let asked_dead = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&asked_dead);
    let far = FarEnd::new(Framing::Tcp, Timing::default(), 1, move |ask, _| {
        if ask.unit > UNITS - DEAD {
            note.lock().unwrap().push(began.elapsed());
            return Vec::new();
        }
        vec![(ANSWER, Reply::addresses(ask).frame(ask))]
    });
    let sources: Vec<_> = (1..=UNITS)
        .map(|unit| {
            let server = "127.0.0.1:1".parse().unwrap();
            let mut tag = register(unit, 7);
            tag.poll = PERIOD;
            let mut source = modbus(&format!("u{unit}"), server, vec![tag]);
            source.timeout = TIMEOUT;
            source.breaker_max = Duration::from_secs(60);
            source
        })
        .collect();
    let setting = setting(sources.clone(), vec![]);
    let (engine, mut inputs) = EngineHandle::channel();
    let clock = Clock::from_fn(move || {
        let mono = began.elapsed();
        Now { mono, utc: Timestamp::from_micros(1_800_000_000_000_000).after(mono), trusted: true }
    });
    let health: BTreeMap<_, _> = sources
        .iter()
        .map(|source| (source.name.clone(), Arc::new(watch::Sender::new(SourceHealth::default()))))
        .collect();
    let bus = Bus::over(
        far.line(&LineOptions::default()),
        &sources,
        &setting.plant,
        &health,
        (engine, clock),
        Notes::default(),
        fastrand::Rng::with_seed(1),
    );
    let mut good: BTreeMap<u32, u32> = BTreeMap::new();
    let mut silent = 0;
    let watching = async {
        while let Some(input) = inputs.recv().await {
            match input {
                Input::Readings(batch) if began.elapsed() >= SETTLED => {
                    for reading in batch.readings {
                        if matches!(reading.value, RawValue::Number(_)) {
                            *good.entry(reading.tag.0).or_default() += 1;
                        }
                    }
                }
                Input::Condition(report) if report.condition == "source-silent" => {
                    silent += u32::from(report.active);
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        ended = bus.run() => panic!("{ended:?}"),
        () = watching => panic!("the bus is gone"),
        () = tokio::time::sleep(SETTLED + SPAN) => {}
    }

    assert_eq!(silent, u32::from(DEAD), "each dead unit is announced once");
    // On time is what was answered before the next tick: late polls are left out, never made up.
    let due = u32::try_from(SPAN.as_secs()).unwrap();
    let live = u32::from(UNITS - DEAD);
    let on_time = f64::from(good.values().sum::<u32>()) / f64::from(due * live);
    let worst = good.values().min().copied().unwrap_or(0);
    let spent = asked_dead.lock().unwrap().iter().filter(|at| **at >= SETTLED).count();
    let share = spent as f64 * TIMEOUT.as_secs_f64() / SPAN.as_secs_f64();
    let lateness: Vec<_> = health
        .iter()
        .take(usize::from(UNITS - DEAD))
        .filter_map(|(_, health)| health.borrow().load.as_ref()?.lateness.quantile(0.99))
        .collect();
    println!("on time {on_time:.4}, worst unit {worst} of {due}, dead time {share:.3}");
    println!("p99 of lateness: up to {:?} s", lateness.iter().copied().fold(0.0, f64::max));
    assert_eq!(good.len(), usize::from(UNITS - DEAD));
    assert!(on_time >= 0.99, "{on_time}");
    assert!(share <= 0.1 + 0.01, "{share}");
    assert!(spent > 40, "the dead are still asked now and then: {spent}");
}
