//! The plant simulation: the real engine, stages and stores under a virtual clock from a printed
//! seed, while devices, clocks, the broker, the disk and the power supply fail. Invariants are
//! checked at every step; after the faults stop, everything must come to rest.

mod machine;
mod subscriber;
mod world;

use world::{Odds, World};

/// Virtual hours under faults.
const HOURS: u32 = 6;
const STEPS_PER_HOUR: u32 = 360;

/// Seeds in an ordinary run; `WHEELTAP_SIM_SEEDS` asks for another number, `WHEELTAP_SIM_SEED` for
/// one seed alone.
const SEEDS: u64 = 200;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[derive(Default)]
struct Tally {
    crashes: u32,
    orders: u32,
    events: usize,
    confirmed: u32,
}

fn live(seed: u64) -> Tally {
    let mut world = World::new(seed, Odds::ROUGH);
    for _ in 0..HOURS * STEPS_PER_HOUR {
        world.step();
    }
    world.converge();
    Tally {
        crashes: world.crashes,
        orders: world.orders,
        events: world.committed.len(),
        confirmed: world.counts.get("anomaly-validated").copied().unwrap_or(0),
    }
}

/// A panic that names the seed by which it can be seen again.
fn live_named(seed: u64) -> Tally {
    std::panic::catch_unwind(|| live(seed)).unwrap_or_else(|panic| {
        eprintln!("SEED={seed} failed; run it alone with WHEELTAP_SIM_SEED={seed}");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn nothing_is_lost_doubled_or_invented_under_faults() {
    let seeds: Vec<u64> = match from_environment("WHEELTAP_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..from_environment("WHEELTAP_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    println!("seeds {:?} to {:?}", seeds.first(), seeds.last());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let mine: Vec<u64> = seeds.iter().copied().skip(worker).step_by(threads).collect();
                scope.spawn(move || mine.into_iter().map(live_named).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed failed")).collect()
    });
    let crashes: u32 = tallies.iter().map(|tally| tally.crashes).sum();
    let orders: u32 = tallies.iter().map(|tally| tally.orders).sum();
    let confirmed: u32 = tallies.iter().map(|tally| tally.confirmed).sum();
    let events: usize = tallies.iter().map(|tally| tally.events).sum();
    println!("{crashes} crashes, {events} events, {confirmed} verdicts, {orders} orders planned");
    if seeds.len() >= 50 {
        // A simulation in which nothing happens proves nothing.
        assert!(crashes > 0 && orders > 0 && confirmed > 0, "the simulation is too quiet");
    }
}

#[test]
fn one_seed_gives_one_history() {
    let history = |seed| {
        let mut world = World::new(seed, Odds::ROUGH);
        for _ in 0..STEPS_PER_HOUR {
            world.step();
        }
        world.committed
    };
    assert_eq!(history(7), history(7));
}
