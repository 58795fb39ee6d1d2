//! Pure: the points of one unit and table become the cheapest legal requests.
//!
//! A request costs its overhead (headers, silences, turnaround) and then every byte it brings,
//! wanted or not. Reading a hole along is worth it while the hole costs less than another request.
//! The optimum is found exactly: a request never costs less for being longer, so some cheapest set
//! of requests covers runs of the points in address order (of two requests, one inside the other is
//! superfluous; the rest can be put in order), and one pass of dynamic programming over the sorted
//! points suffices. Points that can only be read alone are taken out before.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Table;

/// Most registers in one read (Modbus application protocol V1.1b3, §6.3).
pub const REGISTERS_MAX: u16 = 125;
/// Most coils or discrete inputs in one read (§6.1).
pub const BITS_MAX: u16 = 2000;

/// What reading costs on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCost {
    /// One request, whatever it reads, in nanoseconds.
    pub request_ns: u64,
    /// One byte of data in its answer: half a register, eight coils.
    pub byte_ns: u64,
}

impl LineCost {
    /// Modbus TCP: a round trip through a small device's stack takes some 3 ms, which is what 75
    /// registers more in an answer take it; holes of 50 to 100 are worth filling.
    pub const TCP: Self = Self { request_ns: 3_000_000, byte_ns: 20_000 };

    /// Modbus RTU at `baud`, with characters of `bits` bits (11 as a rule) and a device that needs
    /// `turnaround` to answer.
    ///
    /// A read of n registers is 8 characters of request, 5 + 2n of answer, and two silences of 3.5
    /// characters, which above 19,200 baud are 1.75 ms (Modbus over serial line V1.02, §2.5.1.1).
    #[must_use]
    pub fn rtu(baud: u32, bits: u32, turnaround: Duration) -> Self {
        let baud = u64::from(baud.max(1));
        let byte_ns = u64::from(bits) * 1_000_000_000 / baud;
        let silence_ns = if baud > 19_200 { 1_750_000 } else { byte_ns * 7 / 2 };
        let turnaround = u64::try_from(turnaround.as_nanos()).unwrap_or(u64::MAX);
        let request_ns = (13 * byte_ns + 2 * silence_ns).saturating_add(turnaround);
        Self { request_ns, byte_ns }
    }

    /// What one read of `count` registers or bits of this table costs, in nanoseconds.
    #[must_use]
    pub const fn read_ns(self, table: Table, count: u16) -> u64 {
        let bytes = match table {
            Table::Coil | Table::Discrete => count.div_ceil(8) as u64,
            Table::Holding | Table::Input => count as u64 * 2,
        };
        self.request_ns.saturating_add(self.byte_ns.saturating_mul(bytes))
    }
}

/// What requests to one table of a device may look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Which table.
    pub table: Table,
    /// Most registers or bits in one request; a longer point gets a request of its own.
    pub longest: u16,
    /// Longest hole (addresses nobody wants) that may be read along.
    pub fill: u16,
    /// One point a request.
    pub alone: bool,
    /// What a request costs.
    pub cost: LineCost,
}

/// Where a point lies: `count` registers (or bits) from `address` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// First address.
    pub address: u16,
    /// How many, at least 1.
    pub count: u16,
}

impl Extent {
    const fn end(self) -> u32 {
        self.address as u32 + self.count as u32
    }
}

/// One request, and the points it brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// First address.
    pub address: u16,
    /// How many registers or bits.
    pub count: u16,
    /// Positions in the list that was planned, in order of address; shared, as every poll hands
    /// its requests around.
    pub points: Arc<[usize]>,
}

impl Block {
    /// A block around these points, which are positions in `extents`; `None` when there are none.
    #[must_use]
    pub fn around(extents: &[Extent], points: &[usize]) -> Option<Self> {
        let address = points.iter().map(|&point| extents[point].address).min()?;
        let end = points.iter().map(|&point| extents[point].end()).max()?;
        let count = u16::try_from(end - u32::from(address)).ok()?;
        Some(Self { address, count, points: points.into() })
    }

    /// The same points, read from address 0 on.
    #[must_use]
    pub fn from_zero(self) -> Self {
        Self { address: 0, count: self.address.saturating_add(self.count), points: self.points }
    }
}

/// The cheapest requests that read all `extents` within `rules`.
///
/// No request for several points covers an address in `refused`. Points may overlap. Time is
/// O(n · w) for n points with at most w within reach of one request.
#[must_use]
pub fn plan(extents: &[Extent], rules: &Rules, refused: &BTreeSet<u16>) -> Vec<Block> {
    let mut all: Vec<usize> = (0..extents.len()).collect();
    all.sort_by_key(|&point| (extents[point].address, extents[point].count, point));
    let refused: Vec<u32> = refused.iter().map(|&address| u32::from(address)).collect();
    // A point that no request for several can hold is no part of any run.
    let solitary = |extent: Extent| {
        let from = u32::from(extent.address);
        let below = refused.partition_point(|&refused| refused < extent.end());
        let barred = below.checked_sub(1).is_some_and(|place| refused[place] >= from);
        rules.alone || barred || extent.count > rules.longest
    };
    // Where a run may not be continued to the left: the hole before a point is too long.
    let (mut order, mut wall, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reach, mut wide) = (0, false);
    for &point in &all {
        let extent = extents[point];
        wide |= u32::from(extent.address).saturating_sub(reach) > u32::from(rules.fill);
        reach = reach.max(extent.end());
        if solitary(extent) {
            blocks.extend(Block::around(extents, &[point]));
        } else {
            order.push(point);
            wall.push(std::mem::take(&mut wide));
        }
    }

    // best[k]: cost of the first k points; start[k]: where the last request of that optimum begins.
    let mut best = vec![0_u64; order.len() + 1];
    let mut start = vec![0_usize; order.len() + 1];
    for last in 0..order.len() {
        best[last + 1] = u64::MAX;
        let mut end = 0;
        // The highest refused address below `end`; a run must begin above it.
        let mut barrier = None;
        for first in (0..=last).rev() {
            let extent = extents[order[first]];
            let (address, alone) = (u32::from(extent.address), first == last);
            if extent.end() > end {
                end = extent.end();
                let below = refused.partition_point(|&refused| refused < end);
                barrier = below.checked_sub(1).map(|place| refused[place]);
            }
            let length = end - address;
            let barred = barrier.is_some_and(|barrier| barrier >= address);
            if !alone && (wall[first + 1] || barred || length > u32::from(rules.longest)) {
                // Beginning still earlier only makes it longer.
                break;
            }
            let count = u16::try_from(length).unwrap_or(u16::MAX);
            let cost = best[first].saturating_add(rules.cost.read_ns(rules.table, count));
            if cost < best[last + 1] {
                best[last + 1] = cost;
                start[last + 1] = first;
            }
        }
    }

    let mut end = order.len();
    while end > 0 {
        let first = start[end];
        blocks.extend(Block::around(extents, &order[first..end]));
        end = first;
    }
    blocks.sort_by_key(|block| (block.address, block.count));
    blocks
}

/// Cuts a refused block in two where the answer is most likely to lie: at the widest hole, else in
/// the middle. `None` when it holds a single point.
#[must_use]
pub fn halves(extents: &[Extent], block: &Block) -> Option<(Block, Block)> {
    if block.points.len() < 2 {
        return None;
    }
    let middle = block.points.len() / 2;
    let mut cut = middle;
    let mut widest = 0;
    let mut end = 0;
    for (position, &point) in block.points.iter().enumerate() {
        let extent = extents[point];
        let hole = u32::from(extent.address).saturating_sub(end);
        let nearer = position.abs_diff(middle) < cut.abs_diff(middle);
        if position > 0 && hole > 0 && (hole > widest || (hole == widest && nearer)) {
            (widest, cut) = (hole, position);
        }
        end = end.max(extent.end());
    }
    let (left, right) = block.points.split_at(cut);
    Some((Block::around(extents, left)?, Block::around(extents, right)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDING: Rules = Rules {
        table: Table::Holding,
        longest: REGISTERS_MAX,
        fill: u16::MAX,
        alone: false,
        cost: LineCost::TCP,
    };

    fn extents(list: &[(u16, u16)]) -> Vec<Extent> {
        list.iter().map(|&(address, count)| Extent { address, count }).collect()
    }

    fn reads(list: &[(u16, u16)], rules: &Rules, refused: &[u16]) -> Vec<(u16, u16)> {
        let refused = refused.iter().copied().collect();
        let blocks = plan(&extents(list), rules, &refused);
        blocks.iter().map(|block| (block.address, block.count)).collect()
    }

    #[test]
    fn neighbours_and_small_holes_share_a_request() {
        assert_eq!(reads(&[(100, 2), (102, 2), (110, 1)], &HOLDING, &[]), [(100, 11)]);
        assert_eq!(reads(&[(0, 1), (100, 1)], &HOLDING, &[]), [(0, 1), (100, 1)]);
    }

    #[test]
    fn a_slow_line_fills_smaller_holes_than_a_fast_one() {
        let rtu =
            |baud| Rules { cost: LineCost::rtu(baud, 11, Duration::from_millis(20)), ..HOLDING };
        let widest = |rules: &Rules| {
            (1..120).rev().find(|&hole| reads(&[(0, 1), (1 + hole, 1)], rules, &[]).len() == 1)
        };
        // 22.9 ms of silences and headers and 20 ms of turnaround, at 2.29 ms a register.
        assert_eq!(widest(&rtu(9600)), Some(18));
        assert_eq!(widest(&HOLDING), Some(74));
    }

    #[test]
    fn costs_on_a_serial_line_are_those_of_its_characters() {
        // 11 bits at 9,600 baud are 1.146 ms: one register is 15 characters and two silences.
        let cost = LineCost::rtu(9600, 11, Duration::ZERO);
        let ms = |count| cost.read_ns(Table::Holding, count) as f64 / 1e6;
        assert!((ms(1) - 25.2).abs() < 0.1, "{}", ms(1));
        assert!((ms(125) - 309.4).abs() < 0.2, "{}", ms(125));
        let fast = LineCost::rtu(115_200, 11, Duration::ZERO);
        assert_eq!(fast.request_ns, 13 * 95_486 + 3_500_000);
        assert_eq!(cost.read_ns(Table::Coil, 9), cost.read_ns(Table::Holding, 1));
    }

    #[test]
    fn a_wide_register_is_never_torn() {
        // 124 single registers and a 4-register value: the cut comes before the value.
        let mut list: Vec<_> = (0..124).map(|address| (address, 1)).collect();
        list.push((124, 4));
        let blocks = reads(&list, &HOLDING, &[]);
        assert_eq!(blocks.len(), 2);
        assert!(blocks.iter().any(|&(address, count)| address <= 124 && address + count == 128));
    }

    #[test]
    fn a_refused_address_is_never_bridged() {
        assert_eq!(reads(&[(0, 1), (2, 1)], &HOLDING, &[1]), [(0, 1), (2, 1)]);
        assert_eq!(reads(&[(0, 1), (2, 1)], &HOLDING, &[3]), [(0, 3)]);
    }

    #[test]
    fn holes_longer_than_allowed_are_not_read_along() {
        let list = [(0, 1), (1, 1), (4, 1), (9, 2)];
        assert_eq!(reads(&list, &Rules { fill: 0, ..HOLDING }, &[]), [(0, 2), (4, 1), (9, 2)]);
        assert_eq!(reads(&list, &Rules { fill: 2, ..HOLDING }, &[]), [(0, 5), (9, 2)]);
        assert_eq!(reads(&list, &Rules { fill: 4, ..HOLDING }, &[]), [(0, 11)]);
    }

    #[test]
    fn one_tag_a_request_where_a_device_wants_it_so() {
        let rules = Rules { alone: true, ..HOLDING };
        assert_eq!(reads(&[(0, 2), (2, 1), (3, 1)], &rules, &[]), [(0, 2), (2, 1), (3, 1)]);
    }

    #[test]
    fn the_last_address_of_a_table_can_be_read() {
        assert_eq!(reads(&[(65_534, 1), (65_535, 1)], &HOLDING, &[]), [(65_534, 2)]);
    }

    #[test]
    fn halving_prefers_the_hole() {
        let list = extents(&[(0, 1), (1, 1), (2, 1), (9, 1)]);
        let block = Block::around(&list, &[0, 1, 2, 3]).unwrap();
        let (left, right) = halves(&list, &block).unwrap();
        assert_eq!((&left.points[..], &right.points[..]), (&[0, 1, 2][..], &[3][..]));
        let (left, right) = halves(&list, &Block::around(&list, &[0, 1]).unwrap()).unwrap();
        assert_eq!((&left.points[..], &right.points[..]), (&[0][..], &[1][..]));
        assert!(halves(&list, &Block::around(&list, &[0]).unwrap()).is_none());
    }

    fn covers(refused: &BTreeSet<u16>, block: &Block) -> bool {
        refused.iter().any(|&one| one >= block.address && one - block.address < block.count)
    }

    /// What a group costs in one request; `None` when the request is not legal. Holes are what
    /// no point of the whole map wants.
    fn judged(
        list: &[Extent],
        group: &[usize],
        rules: &Rules,
        refused: &BTreeSet<u16>,
    ) -> Option<u64> {
        let block = Block::around(list, group)?;
        let wanted: BTreeSet<u32> =
            list.iter().flat_map(|extent| u32::from(extent.address)..extent.end()).collect();
        let mut hole = 0_u32;
        let mut widest = 0;
        for address in u32::from(block.address)..u32::from(block.address) + u32::from(block.count) {
            hole = if wanted.contains(&address) { 0 } else { hole + 1 };
            widest = widest.max(hole);
        }
        let legal = block.count <= rules.longest
            && !covers(refused, &block)
            && widest <= u32::from(rules.fill)
            && !rules.alone;
        (group.len() == 1 || legal).then(|| rules.cost.read_ns(rules.table, block.count))
    }

    /// The cheapest partition of the points into legal requests, by trying all partitions.
    fn cheapest(list: &[Extent], rules: &Rules, refused: &BTreeSet<u16>) -> u64 {
        fn place(
            list: &[Extent],
            next: usize,
            groups: &mut Vec<Vec<usize>>,
            judge: &dyn Fn(&[usize]) -> Option<u64>,
            best: &mut u64,
        ) {
            if next == list.len() {
                let costs: Option<Vec<u64>> = groups.iter().map(|group| judge(group)).collect();
                *best = (*best).min(costs.map_or(u64::MAX, |costs| costs.iter().sum()));
                return;
            }
            for group in 0..groups.len() {
                groups[group].push(next);
                place(list, next + 1, groups, judge, best);
                groups[group].pop();
            }
            groups.push(vec![next]);
            place(list, next + 1, groups, judge, best);
            groups.pop();
        }
        let judge = |group: &[usize]| judged(list, group, rules, refused);
        let mut best = u64::MAX;
        place(list, 0, &mut Vec::new(), &judge, &mut best);
        if list.is_empty() { 0 } else { best }
    }

    /// The same for larger maps, by relaxing every legal run over all points until nothing gets
    /// cheaper (Bellman & Ford): another method, nothing shared with the planner but the cost.
    fn cheapest_runs(list: &[Extent], rules: &Rules, refused: &BTreeSet<u16>) -> u64 {
        let solitary = |one: &Extent| {
            let within = |r: u32| r >= u32::from(one.address) && r < one.end();
            let barred = refused.iter().any(|&r| within(u32::from(r)));
            rules.alone || barred || one.count > rules.longest
        };
        let alone = list.iter().filter(|one| solitary(one));
        let alone: u64 = alone.map(|one| rules.cost.read_ns(rules.table, one.count)).sum();
        let mut sorted: Vec<Extent> = list.iter().copied().filter(|one| !solitary(one)).collect();
        sorted.sort();
        let wanted: BTreeSet<u32> =
            list.iter().flat_map(|extent| u32::from(extent.address)..extent.end()).collect();
        let legal = |run: &[Extent]| {
            let address = run[0].address;
            let end = run.iter().map(|extent| extent.end()).max().unwrap_or(0);
            let count = u16::try_from(end - u32::from(address)).unwrap_or(u16::MAX);
            let mut hole = 0_u32;
            let holes = (u32::from(address)..end).all(|at| {
                hole = if wanted.contains(&at) { 0 } else { hole + 1 };
                hole <= u32::from(rules.fill)
            });
            let barred = refused.iter().any(|&one| one >= address && u32::from(one) < end);
            let fits = count <= rules.longest && holes && !barred && !rules.alone;
            (run.len() == 1 || fits).then(|| rules.cost.read_ns(rules.table, count))
        };
        let mut distance = vec![u64::MAX; sorted.len() + 1];
        distance[0] = 0;
        loop {
            let mut changed = false;
            for from in 0..sorted.len() {
                if distance[from] == u64::MAX {
                    continue;
                }
                for to in from + 1..=sorted.len() {
                    if to - from > 1
                        && sorted[to - 1].address - sorted[from].address > rules.longest
                    {
                        break;
                    }
                    let Some(cost) = legal(&sorted[from..to]) else { continue };
                    if distance[from] + cost < distance[to] {
                        distance[to] = distance[from] + cost;
                        changed = true;
                    }
                }
            }
            if !changed {
                return alone + distance[sorted.len()];
            }
        }
    }

    fn random_rules(rng: &mut fastrand::Rng) -> Rules {
        let table = *rng.choice(&[Table::Holding, Table::Coil]).unwrap();
        let turnaround = Duration::from_millis(rng.u64(0..50));
        Rules {
            table,
            longest: *rng.choice(&[4_u16, 16, 60, 125]).unwrap(),
            fill: *rng.choice(&[0, 7, 50, u16::MAX, u16::MAX]).unwrap(),
            alone: rng.u8(..) < 10,
            cost: *rng
                .choice(&[
                    LineCost::TCP,
                    LineCost::rtu(9600, 11, turnaround),
                    LineCost::rtu(115_200, 11, turnaround),
                ])
                .unwrap(),
        }
    }

    fn random_map(rng: &mut fastrand::Rng, points: usize, span: u16) -> Vec<Extent> {
        (0..points)
            .map(|_| Extent {
                address: rng.u16(0..span),
                count: *rng.choice(&[1, 1, 2, 2, 4, 20]).unwrap(),
            })
            .collect()
    }

    fn total(list: &[Extent], rules: &Rules, refused: &BTreeSet<u16>, map: usize) -> u64 {
        let blocks = plan(list, rules, refused);
        let mut read: Vec<usize> = blocks.iter().flat_map(|b| b.points.to_vec()).collect();
        read.sort_unstable();
        assert_eq!(read, (0..list.len()).collect::<Vec<_>>(), "map {map}: every point once");
        for block in &blocks {
            assert!(block.count <= rules.longest || block.points.len() == 1, "map {map}");
            for &point in block.points.iter() {
                let (extent, end) = (list[point], u32::from(block.address + block.count));
                assert!(extent.address >= block.address && extent.end() <= end, "map {map}");
            }
        }
        blocks.iter().map(|block| rules.cost.read_ns(rules.table, block.count)).sum()
    }

    #[test]
    fn no_partition_is_cheaper_on_200_random_maps() {
        let seed = 0x5eed_0001;
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for map in 0..200 {
            let points = rng.usize(0..=7);
            let span = *rng.choice(&[20_u16, 150, 400]).unwrap();
            let (list, rules) = (random_map(&mut rng, points, span), random_rules(&mut rng));
            let refused: BTreeSet<u16> = (0..rng.usize(0..4)).map(|_| rng.u16(0..span)).collect();
            let ours = total(&list, &rules, &refused, map);
            assert_eq!(ours, cheapest(&list, &rules, &refused), "map {map}: {list:?} {rules:?}");
        }
    }

    #[test]
    fn another_method_finds_nothing_cheaper_on_200_larger_maps() {
        let seed = 0x5eed_0002;
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for map in 0..200 {
            let points = rng.usize(8..=60);
            let span = *rng.choice(&[150_u16, 600, 3000]).unwrap();
            let (list, rules) = (random_map(&mut rng, points, span), random_rules(&mut rng));
            let refused: BTreeSet<u16> = (0..rng.usize(0..9)).map(|_| rng.u16(0..span)).collect();
            let ours = total(&list, &rules, &refused, map);
            assert_eq!(ours, cheapest_runs(&list, &rules, &refused), "map {map}: {rules:?}");
        }
    }

    /// Telegraf's `max_insert`: walks the sorted points and begins a new request where the hole is
    /// longer than the fill or the request would become too long.
    fn max_insert(list: &[Extent], fill: u16, rules: &Rules) -> u64 {
        let mut sorted: Vec<Extent> = list.to_vec();
        sorted.sort();
        let mut total = 0;
        let mut open: Option<(u32, u32)> = None;
        let close = |(from, to): (u32, u32)| {
            rules.cost.read_ns(rules.table, u16::try_from(to - from).unwrap())
        };
        for extent in sorted {
            let address = u32::from(extent.address);
            open = Some(match open {
                Some((from, to))
                    if address.saturating_sub(to) <= u32::from(fill)
                        && extent.end().max(to) - from <= u32::from(rules.longest) =>
                {
                    (from, to.max(extent.end()))
                }
                Some(run) => {
                    total += close(run);
                    (address, extent.end())
                }
                None => (address, extent.end()),
            });
        }
        total + open.map_or(0, close)
    }

    #[test]
    fn it_is_never_worse_than_max_insert_on_200_random_maps() {
        let seed = 0x5eed_0003;
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut better = 0;
        for map in 0..200 {
            let points = rng.usize(1..=100);
            let span = *rng.choice(&[150_u16, 600, 3000]).unwrap();
            let list = random_map(&mut rng, points, span);
            let rules =
                Rules { fill: u16::MAX, alone: false, longest: 125, ..random_rules(&mut rng) };
            let ours = total(&list, &rules, &BTreeSet::new(), map);
            for fill in [0, 10, 50, 125] {
                let theirs = max_insert(&list, fill, &rules);
                assert!(ours <= theirs, "map {map}, fill {fill}: {ours} > {theirs}");
                better += u32::from(ours < theirs);
            }
        }
        assert!(better > 400, "{better} of 800");
    }
}
