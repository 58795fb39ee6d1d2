//! What the request plan is worth, and what making it costs.
//!
//! ```sh
//! cargo bench --bench plan
//! ```
//!
//! On 200 random register maps the plan is set beside Telegraf's `max_insert` (walk the sorted
//! fields, begin a new request where the hole is longer than the fill, 50 by default, or the request
//! would be too long) and beside requests for contiguous ranges only (`none`). Fails when the plan
//! is dearer than either on any map, or planning takes more than three times its target.

#![expect(clippy::disallowed_methods, reason = "wall time is what is measured here")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use wheeltap::config::Table;
use wheeltap::sources::poll_plan::{Extent, LineCost, REGISTERS_MAX, Rules, plan};

const MAPS: usize = 200;
const TAGS: usize = 10_000;
const TARGET: Duration = Duration::from_millis(50);

fn rules(cost: LineCost) -> Rules {
    Rules { table: Table::Holding, longest: REGISTERS_MAX, fill: u16::MAX, alone: false, cost }
}

fn ours(map: &[Extent], rules: &Rules) -> u64 {
    let blocks = plan(map, rules, &BTreeSet::new());
    blocks.iter().map(|block| rules.cost.read_ns(rules.table, block.count)).sum()
}

/// Telegraf's `max_insert` with this fill; with none it is `none`.
fn max_insert(map: &[Extent], fill: u32, rules: &Rules) -> u64 {
    let mut sorted = map.to_vec();
    sorted.sort();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for extent in sorted {
        let (from, to) = (u32::from(extent.address), u32::from(extent.address + extent.count));
        match runs.last_mut() {
            Some((begin, end))
                if from.saturating_sub(*end) <= fill
                    && to.max(*end) - *begin <= u32::from(rules.longest) =>
            {
                *end = to.max(*end);
            }
            _ => runs.push((from, to)),
        }
    }
    let lengths = runs.iter().map(|(from, to)| u16::try_from(to - from).unwrap_or(u16::MAX));
    lengths.map(|length| rules.cost.read_ns(rules.table, length)).sum()
}

/// Groups of values of one, two or four registers, with holes between them, as meters have it.
fn map(rng: &mut fastrand::Rng, tags: usize) -> Vec<Extent> {
    let mut address = 0_u16;
    (0..tags)
        .map(|_| {
            let hole = match rng.u8(0..10) {
                0..6 => 0,
                6..8 => rng.u16(1..10),
                8 => rng.u16(10..60),
                _ => rng.u16(60..200),
            };
            let count = [1, 2, 2, 4][rng.usize(0..4)];
            let extent = Extent { address: address + hole, count };
            address = (extent.address + count) % 60_000;
            extent
        })
        .collect()
}

fn main() -> ExitCode {
    let mut failed = false;
    let lines = [
        ("TCP", LineCost::TCP),
        ("RTU 115200", LineCost::rtu(115_200, 11, Duration::from_millis(20))),
        ("RTU 19200", LineCost::rtu(19_200, 11, Duration::from_millis(20))),
        ("RTU 9600", LineCost::rtu(9_600, 11, Duration::from_millis(20))),
    ];
    println!("{MAPS} random maps of 5 to 200 tags, milliseconds of line time in all (seed 11)");
    println!(
        "{:<12} {:>10} {:>18} {:>10} {:>14}",
        "line", "plan", "max_insert 50", "none", "dearer maps"
    );
    for (name, cost) in lines {
        let rules = rules(cost);
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut plan, mut insert, mut none, mut dearer) = (0, 0, 0, 0);
        for _ in 0..MAPS {
            let tags = rng.usize(5..200);
            let map = map(&mut rng, tags);
            let (a, b, c) =
                (ours(&map, &rules), max_insert(&map, 50, &rules), max_insert(&map, 0, &rules));
            (plan, insert, none) = (plan + a, insert + b, none + c);
            dearer += u32::from(a > b || a > c);
        }
        let ms = |ns: u64| ns as f64 / 1e6;
        println!(
            "{name:<12} {:>10.0} {:>10.0} (+{:>3.0} %) {:>10.0} {dearer:>14}",
            ms(plan),
            ms(insert),
            (ms(insert) / ms(plan) - 1.0) * 100.0,
            ms(none)
        );
        failed |= dearer > 0;
    }
    let mut rng = fastrand::Rng::with_seed(12);
    for table in [Table::Holding, Table::Coil] {
        let large: Vec<Extent> =
            (0..TAGS).map(|_| Extent { address: rng.u16(0..60_000), count: 1 }).collect();
        let longest = if table == Table::Coil { 2000 } else { REGISTERS_MAX };
        let rules = Rules { table, longest, ..rules(LineCost::TCP) };
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let began = Instant::now();
            std::hint::black_box(plan(&large, &rules, &BTreeSet::new()));
            best = best.min(began.elapsed());
        }
        let verdict = if best <= TARGET { "met" } else { "MISSED" };
        println!(
            "planning {TAGS} tags of one unit ({table:?}): {:.2} ms, target {} ms ({verdict})",
            best.as_secs_f64() * 1e3,
            TARGET.as_millis()
        );
        failed |= best > TARGET * 3;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
