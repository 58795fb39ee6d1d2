//! Pure: the points of one unit and table become the cheapest legal requests.
//!
//! A request costs its overhead (turnaround, headers) and then every register it reads, wanted or
//! not. Reading a hole along is worth it while the hole costs less than another request. The
//! optimum is found exactly: some cheapest set of requests covers runs of the points in address
//! order (of two requests, one inside the other is superfluous; the rest can be put in order), so
//! one pass of dynamic programming over the sorted points suffices.

use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// One register in it.
    pub register_ns: u64,
    /// One coil or discrete input in it.
    pub bit_ns: u64,
}

impl LineCost {
    /// Modbus TCP: a round trip through a small device's stack takes some 3 ms, which is what 75
    /// registers more in an answer take it; holes of 50 to 100 are worth filling.
    pub const TCP: Self = Self { request_ns: 3_000_000, register_ns: 40_000, bit_ns: 2_500 };

    /// What one register or bit of this table costs.
    #[must_use]
    pub const fn unit_ns(self, table: Table) -> u64 {
        match table {
            Table::Coil | Table::Discrete => self.bit_ns,
            Table::Holding | Table::Input => self.register_ns,
        }
    }
}

/// The longest legal read of a table on a device that takes `max_registers` at once.
#[must_use]
pub const fn longest(table: Table, max_registers: u16) -> u16 {
    let registers = match max_registers {
        0 => 1,
        1..REGISTERS_MAX => max_registers,
        REGISTERS_MAX.. => REGISTERS_MAX,
    };
    match table {
        Table::Holding | Table::Input => registers,
        Table::Coil | Table::Discrete => {
            let bits = registers * 16;
            if bits < BITS_MAX { bits } else { BITS_MAX }
        }
    }
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
}

/// The cheapest requests that read all `extents`.
///
/// `longest` is the most one request may read; a longer point gets a request of its own. No request
/// for several points covers an address in `refused`. `unit_ns` as from [`LineCost::unit_ns`].
/// Points may overlap. Time is O(n · w) for n points with at most w within reach of one request.
#[must_use]
pub fn plan(
    extents: &[Extent],
    longest: u16,
    request_ns: u64,
    unit_ns: u64,
    refused: &BTreeSet<u16>,
) -> Vec<Block> {
    let mut order: Vec<usize> = (0..extents.len()).collect();
    order.sort_by_key(|&point| (extents[point].address, extents[point].count, point));

    // best[k]: cost of the first k points; start[k]: where the last request of that optimum begins.
    let mut best = vec![0_u64; order.len() + 1];
    let mut start = vec![0_usize; order.len() + 1];
    for last in 0..order.len() {
        best[last + 1] = u64::MAX;
        let mut end = 0;
        for first in (0..=last).rev() {
            let extent = extents[order[first]];
            end = end.max(extent.end());
            let length = end - u32::from(extent.address);
            let alone = first == last;
            if !alone && (length > u32::from(longest) || covers(refused, extent.address, end)) {
                // Beginning still earlier only makes it longer.
                break;
            }
            let cost = best[first]
                .saturating_add(request_ns)
                .saturating_add(unit_ns.saturating_mul(u64::from(length)));
            if cost < best[last + 1] {
                best[last + 1] = cost;
                start[last + 1] = first;
            }
        }
    }

    let mut blocks = Vec::new();
    let mut end = order.len();
    while end > 0 {
        let first = start[end];
        blocks.extend(Block::around(extents, &order[first..end]));
        end = first;
    }
    blocks.reverse();
    blocks
}

fn covers(refused: &BTreeSet<u16>, address: u16, end: u32) -> bool {
    let last = u16::try_from(end - 1).unwrap_or(u16::MAX);
    refused.range(address..=last).next().is_some()
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

    const HOLDING_NS: u64 = LineCost::TCP.register_ns;
    const REQUEST_NS: u64 = LineCost::TCP.request_ns;

    fn extents(list: &[(u16, u16)]) -> Vec<Extent> {
        list.iter().map(|&(address, count)| Extent { address, count }).collect()
    }

    fn tcp(list: &[(u16, u16)], refused: &[u16]) -> Vec<(u16, u16)> {
        let refused = refused.iter().copied().collect();
        plan(&extents(list), REGISTERS_MAX, REQUEST_NS, HOLDING_NS, &refused)
            .iter()
            .map(|block| (block.address, block.count))
            .collect()
    }

    #[test]
    fn neighbours_and_small_holes_share_a_request() {
        assert_eq!(tcp(&[(100, 2), (102, 2), (110, 1)], &[]), [(100, 11)]);
        assert_eq!(tcp(&[(0, 1), (100, 1)], &[]), [(0, 1), (100, 1)]);
    }

    #[test]
    fn a_wide_register_is_never_torn() {
        // 124 single registers and a 4-register value: the cut comes before the value.
        let mut list: Vec<_> = (0..124).map(|address| (address, 1)).collect();
        list.push((124, 4));
        let blocks = tcp(&list, &[]);
        assert_eq!(blocks.len(), 2);
        assert!(blocks.iter().any(|&(address, count)| address <= 124 && address + count == 128));
    }

    #[test]
    fn a_refused_address_is_never_bridged() {
        assert_eq!(tcp(&[(0, 1), (2, 1)], &[1]), [(0, 1), (2, 1)]);
        assert_eq!(tcp(&[(0, 1), (2, 1)], &[3]), [(0, 3)]);
    }

    #[test]
    fn the_last_address_of_a_table_can_be_read() {
        assert_eq!(tcp(&[(65_534, 1), (65_535, 1)], &[]), [(65_534, 2)]);
    }

    #[test]
    fn limits_follow_the_table_and_the_device() {
        assert_eq!(longest(Table::Holding, 125), 125);
        assert_eq!(longest(Table::Input, 9999), 125);
        assert_eq!(longest(Table::Holding, 16), 16);
        assert_eq!(longest(Table::Holding, 0), 1);
        assert_eq!(longest(Table::Coil, 125), 2000);
        assert_eq!(longest(Table::Discrete, 2), 32);
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

    /// The cheapest partition of the points into legal requests, by trying all partitions.
    fn cheapest(list: &[Extent], longest: u16, refused: &BTreeSet<u16>) -> u64 {
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
        let judge = |group: &[usize]| {
            let block = Block::around(list, group)?;
            let end = u32::from(block.address) + u32::from(block.count);
            let legal = block.count <= longest && !covers(refused, block.address, end);
            (group.len() == 1 || legal).then(|| cost(&block))
        };
        let mut best = u64::MAX;
        place(list, 0, &mut Vec::new(), &judge, &mut best);
        best
    }

    fn cost(block: &Block) -> u64 {
        REQUEST_NS + HOLDING_NS * u64::from(block.count)
    }

    #[test]
    fn no_partition_is_cheaper_on_200_random_maps() {
        let seed = 0x5eed_0001;
        println!("SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        for map in 0..200 {
            let points = rng.usize(0..=7);
            let span = *rng.choice(&[20_u16, 150, 400]).unwrap();
            let longest = *rng.choice(&[4_u16, 16, 60, 125]).unwrap();
            let list: Vec<Extent> = (0..points)
                .map(|_| Extent {
                    address: rng.u16(0..span),
                    count: *rng.choice(&[1, 2, 4]).unwrap(),
                })
                .collect();
            let refused: BTreeSet<u16> = (0..rng.usize(0..4)).map(|_| rng.u16(0..span)).collect();
            let blocks = plan(&list, longest, REQUEST_NS, HOLDING_NS, &refused);

            let mut read: Vec<usize> = blocks.iter().flat_map(|b| b.points.to_vec()).collect();
            read.sort_unstable();
            assert_eq!(read, (0..points).collect::<Vec<_>>(), "map {map}: every point once");
            for block in &blocks {
                for &point in block.points.iter() {
                    let (extent, end) = (list[point], u32::from(block.address + block.count));
                    assert!(extent.address >= block.address && extent.end() <= end, "map {map}");
                }
            }
            let ours: u64 = blocks.iter().map(cost).sum();
            let theirs = cheapest(&list, longest, &refused);
            assert_eq!(ours, if points == 0 { 0 } else { theirs }, "map {map}: {list:?}");
        }
    }
}
