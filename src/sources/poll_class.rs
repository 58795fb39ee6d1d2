//! Pure: the points of one unit that are read equally often, their requests, and what the device
//! has been found to refuse.
//!
//! What is refused is left out and tried again now and then, after a pause that doubles from
//! [`RETRY_MIN`] to [`RETRY_MAX`]. It can be written down as a [`Memo`] and handed to the same
//! class of a later run; a memo about a point that has changed since is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{ModbusSource, Optimization, Point, Table};
use crate::domain::ids::{TagKey, TagPath};
use crate::sources::poll_plan::{self, Block, Extent, LineCost, Rules};

/// How long what was refused is left out before it is tried again the first time.
pub const RETRY_MIN: Duration = Duration::from_secs(5 * 60);
/// Longest pause between two tries.
pub const RETRY_MAX: Duration = Duration::from_secs(24 * 3600);
/// Refused points tried again in one cycle.
pub const RETRIES_PER_CYCLE_MAX: usize = 4;

/// One tag and where it lives.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassPoint {
    /// Number of the tag.
    pub key: TagKey,
    /// Name of the tag.
    pub path: TagPath,
    /// Where it lives.
    pub point: Point,
}

/// One request of a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRead {
    /// Which table.
    pub table: Table,
    /// What to read; its points are positions in [`PollClass::points`].
    pub block: Block,
}

/// What requests to a device may look like, whatever the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRules {
    /// Most registers in one request.
    pub max_registers: u16,
    /// Most coils or discrete inputs in one request.
    pub max_coils: u16,
    /// Longest hole that may be read along.
    pub fill: u16,
    /// One point a request.
    pub alone: bool,
    /// Coils are read from address 0 on.
    pub coils_from_zero: bool,
    /// What a request costs on this line.
    pub cost: LineCost,
}

impl ReadRules {
    /// The rules of a source whose line costs `cost`.
    #[must_use]
    pub fn of(source: &ModbusSource, cost: LineCost) -> Self {
        let polling = &source.polling;
        Self {
            max_registers: source.max_registers.clamp(1, poll_plan::REGISTERS_MAX),
            max_coils: polling.max_coils.clamp(1, poll_plan::BITS_MAX),
            fill: match polling.optimization {
                Optimization::None => 0,
                Optimization::MaxInsert => polling.max_fill,
                Optimization::Aggressive => u16::MAX,
            },
            alone: polling.one_request_per_field,
            coils_from_zero: polling.coils_from_zero,
            cost,
        }
    }

    /// The rules of one table; `learnt` is the most the device was found to take at once.
    #[must_use]
    pub fn table(&self, table: Table, learnt: Option<u16>) -> Rules {
        let most = match table {
            Table::Coil | Table::Discrete => self.max_coils,
            Table::Holding | Table::Input => self.max_registers,
        };
        let zero = self.from_zero(table);
        Rules {
            table,
            longest: learnt.map_or(most, |learnt| learnt.min(most)).max(1),
            // Read from 0 on, holes are read in any case and a second request reads them again.
            fill: if zero { u16::MAX } else { self.fill },
            alone: self.alone,
            cost: self.cost,
        }
    }

    fn from_zero(&self, table: Table) -> bool {
        self.coils_from_zero && table == Table::Coil
    }
}

/// When something refused is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Retry {
    /// How often it was refused.
    times: u32,
    /// On the monotonic clock.
    at: Duration,
}

impl Retry {
    fn after(times: u32, now: Duration) -> Self {
        let doublings = times.saturating_sub(1).min(16);
        let pause = RETRY_MIN.saturating_mul(1 << doublings).min(RETRY_MAX);
        Self { times, at: now + pause }
    }
}

/// What was learnt of one table besides single points: what requests must not bridge, and how long
/// they may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Bounds {
    holes: BTreeSet<u16>,
    longest: Option<u16>,
    retry: Option<Retry>,
}

impl Bounds {
    fn is_nothing(&self) -> bool {
        self.holes.is_empty() && self.longest.is_none()
    }
}

/// What was learnt about a device, as it is kept over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// Refused points by `asset/tag`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub points: BTreeMap<String, MemoPoint>,
    /// Bounds of requests by table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, MemoTable>,
}

/// A refused point in a [`Memo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoPoint {
    /// Where it was, e.g. `holding:7+2`; a point that is elsewhere now is another one.
    pub at: String,
    /// How often it was refused.
    pub times: u32,
}

/// Bounds of requests to a table in a [`Memo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoTable {
    /// Addresses no request may bridge, as ranges with both ends included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<(u16, u16)>,
    /// Most registers or bits the device takes in one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest: Option<u16>,
    /// How often this was found.
    pub times: u32,
}

impl Memo {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.tables.is_empty()
    }

    /// Adds what another class of the same unit knows.
    pub fn merge(&mut self, other: Self) {
        self.points.extend(other.points);
        for (table, theirs) in other.tables {
            let Some(ours) = self.tables.get_mut(&table) else {
                self.tables.insert(table, theirs);
                continue;
            };
            let mut holes: BTreeSet<u16> = ours.holes.iter().flat_map(|&(a, b)| a..=b).collect();
            holes.extend(theirs.holes.iter().flat_map(|&(a, b)| a..=b));
            ours.holes = ranges(&holes);
            ours.longest = match (ours.longest, theirs.longest) {
                (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
                (ours, theirs) => ours.or(theirs),
            };
            ours.times = ours.times.max(theirs.times);
        }
    }
}

fn ranges(addresses: &BTreeSet<u16>) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &address in addresses {
        match ranges.last_mut() {
            Some((_, to)) if to.checked_add(1) == Some(address) => *to = address,
            _ => ranges.push((address, address)),
        }
    }
    ranges
}

/// The table's name as it is configured.
#[must_use]
pub const fn table_name(table: Table) -> &'static str {
    match table {
        Table::Coil => "coil",
        Table::Discrete => "discrete",
        Table::Holding => "holding",
        Table::Input => "input",
    }
}

fn place(point: &Point, extent: Extent) -> String {
    format!("{}:{}+{}", table_name(point.table), extent.address, extent.count)
}

/// Points of one unit that are read equally often.
#[derive(Debug, Clone)]
pub struct PollClass {
    /// Place of the source among those of the line.
    pub source: usize,
    /// Place of the unit among those of the line.
    pub unit: usize,
    /// Its points.
    pub points: Vec<ClassPoint>,
    /// How often they are read.
    pub period: Duration,
    rules: ReadRules,
    extents: Vec<Extent>,
    bounds: BTreeMap<Table, Bounds>,
    refused: BTreeMap<usize, Retry>,
    plan: Vec<PlannedRead>,
    /// What was learnt has changed since [`Self::take_changed`].
    changed: bool,
}

impl PollClass {
    /// A class of points, with its requests planned.
    #[must_use]
    pub fn new(
        source: usize,
        unit: usize,
        points: Vec<ClassPoint>,
        period: Duration,
        rules: ReadRules,
    ) -> Self {
        let extents = points
            .iter()
            .map(|point| Extent {
                address: point.point.address,
                count: point.point.kind.registers().max(1),
            })
            .collect();
        let bounds = points.iter().map(|point| (point.point.table, Bounds::default())).collect();
        let (refused, plan) = (BTreeMap::new(), Vec::new());
        let changed = false;
        let mut class =
            Self { source, unit, points, period, rules, extents, bounds, refused, plan, changed };
        class.replan();
        class
    }

    /// The requests of one cycle.
    #[must_use]
    pub fn plan(&self) -> &[PlannedRead] {
        &self.plan
    }

    /// What one of its requests costs on the line, in nanoseconds; a burst that is longer than a
    /// request is fetched in several.
    #[must_use]
    pub fn cost_ns(&self, read: &PlannedRead) -> u64 {
        let cost = self.rules.cost;
        let more = u64::from(
            read.block.count.saturating_sub(1) / self.rules.table(read.table, None).longest,
        );
        cost.read_ns(read.table, read.block.count).saturating_add(more * cost.request_ns)
    }

    /// Points the device refuses, by position.
    pub fn refused(&self) -> impl Iterator<Item = usize> {
        self.refused.keys().copied()
    }

    /// Refused points that may be tried again at `now` (monotonic), each as a request of its own.
    #[must_use]
    pub fn retries(&self, now: Duration) -> Vec<PlannedRead> {
        self.refused
            .iter()
            .filter(|(_, retry)| retry.at <= now)
            .take(RETRIES_PER_CYCLE_MAX)
            .filter_map(|(&point, _)| {
                let table = self.points[point].point.table;
                let block = Block::around(&self.extents, &[point])?;
                Some(PlannedRead { table, block: self.placed(table, block) })
            })
            .collect()
    }

    /// Both halves of a refused request; `None` when it reads a single point, which is then the
    /// guilty one.
    #[must_use]
    pub fn halves(&self, read: &PlannedRead) -> Option<(PlannedRead, PlannedRead)> {
        let (left, right) = poll_plan::halves(&self.extents, &read.block)?;
        let table = read.table;
        let (left, right) = (self.placed(table, left), self.placed(table, right));
        Some((PlannedRead { table, block: left }, PlannedRead { table, block: right }))
    }

    fn placed(&self, table: Table, block: Block) -> Block {
        if self.rules.from_zero(table) { block.from_zero() } else { block }
    }

    /// The device refuses this point: it is left out for a while, longer each time. Returns
    /// whether that is new.
    pub fn refuse(&mut self, point: usize, now: Duration) -> bool {
        let times = self.refused.get(&point).map_or(0, |retry| retry.times);
        let new = self.refused.insert(point, Retry::after(times.saturating_add(1), now)).is_none();
        self.changed = true;
        if new {
            self.replan();
        }
        new
    }

    /// The device answers for this point again.
    pub fn accept(&mut self, point: usize) {
        if self.refused.remove(&point).is_some() {
            self.changed = true;
            self.replan();
        }
    }

    /// A request was refused while all of `parts` were answered, so no point is to blame: either
    /// what lies between the parts cannot be read, or the request was too long for the device.
    pub fn learn_from_parts(&mut self, read: &PlannedRead, parts: &[PlannedRead], now: Duration) {
        let mut parts: Vec<&Block> = parts.iter().map(|part| &part.block).collect();
        parts.sort_by_key(|block| block.address);
        let mut gaps = BTreeSet::new();
        for pair in parts.windows(2) {
            let end = pair[0].address.saturating_add(pair[0].count);
            gaps.extend(end..pair[1].address.max(end));
        }
        let bounds = self.bounds.entry(read.table).or_default();
        if gaps.is_empty() {
            bounds.longest = parts.iter().map(|block| block.count).max();
        } else {
            bounds.holes.extend(gaps);
        }
        let times = bounds.retry.map_or(0, |retry| retry.times);
        // Several requests of one cycle may teach something; that is one finding.
        let again = bounds.retry.is_none_or(|retry| retry.at <= now);
        if again {
            bounds.retry = Some(Retry::after(times.saturating_add(1), now));
        }
        self.changed = true;
        self.replan();
    }

    /// Bounds of requests whose time has come are forgotten: the next cycle asks for the whole and
    /// finds out. Returns whether there were any.
    pub fn forget_bounds(&mut self, now: Duration) -> bool {
        let mut any = false;
        for bounds in self.bounds.values_mut() {
            if bounds.is_nothing() {
                // What was forgotten the last time was not found again: it has gone.
                self.changed |= bounds.retry.take().is_some_and(|retry| retry.at <= now);
            } else if bounds.retry.is_none_or(|retry| retry.at <= now) {
                bounds.holes.clear();
                bounds.longest = None;
                any = true;
            }
        }
        if any {
            self.replan();
        }
        any
    }

    /// What is known of the device, to be kept.
    #[must_use]
    pub fn memo(&self) -> Memo {
        let points = self.refused.iter().map(|(&point, retry)| {
            let one = &self.points[point];
            let at = place(&one.point, self.extents[point]);
            (one.path.to_string(), MemoPoint { at, times: retry.times })
        });
        let tables = self.bounds.iter().filter(|(_, bounds)| !bounds.is_nothing());
        let tables = tables.map(|(&table, bounds)| {
            let memo = MemoTable {
                holes: ranges(&bounds.holes),
                longest: bounds.longest,
                times: bounds.retry.map_or(1, |retry| retry.times),
            };
            (table_name(table).to_owned(), memo)
        });
        Memo { points: points.collect(), tables: tables.collect() }
    }

    /// Takes over what an earlier run knew. Whatever its pause was, the first try comes after
    /// [`RETRY_MIN`]: a restart is often the end of somebody's work on the device.
    pub fn recall(&mut self, memo: &Memo, now: Duration) {
        let retry = |times: u32| Retry { times: times.max(1), at: now + RETRY_MIN };
        for (position, point) in self.points.iter().enumerate() {
            let Some(known) = memo.points.get(&point.path.to_string()) else { continue };
            if known.at == place(&point.point, self.extents[position]) {
                self.refused.insert(position, retry(known.times));
            }
        }
        for (&table, bounds) in &mut self.bounds {
            let Some(known) = memo.tables.get(table_name(table)) else { continue };
            bounds.holes = known.holes.iter().flat_map(|&(from, to)| from..=to).collect();
            bounds.longest = known.longest;
            bounds.retry = Some(retry(known.times));
        }
        self.replan();
    }

    /// Whether what is known has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Makes the requests anew from what is known.
    fn replan(&mut self) {
        self.plan.clear();
        for (&table, bounds) in &self.bounds {
            let members: Vec<usize> = (0..self.points.len())
                .filter(|point| self.points[*point].point.table == table)
                .collect();
            let mut avoid = bounds.holes.clone();
            for point in members.iter().filter(|point| self.refused.contains_key(point)) {
                let Extent { address, count } = self.extents[*point];
                avoid.extend((0..count).filter_map(|offset| address.checked_add(offset)));
            }
            let wanted: Vec<usize> =
                members.into_iter().filter(|point| !self.refused.contains_key(point)).collect();
            let extents: Vec<Extent> = wanted.iter().map(|&point| self.extents[point]).collect();
            let rules = self.rules.table(table, bounds.longest);
            let blocks = poll_plan::plan(&extents, &rules, &avoid);
            for mut block in blocks {
                block.points = block.points.iter().map(|&point| wanted[point]).collect();
                let block = self.placed(table, block);
                self.plan.push(PlannedRead { table, block });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteOrder, PointType};
    use crate::domain::ids::{AssetId, TagId};

    const RULES: ReadRules = ReadRules {
        max_registers: 125,
        max_coils: 2000,
        fill: u16::MAX,
        alone: false,
        coils_from_zero: false,
        cost: LineCost::TCP,
    };
    const NOW: Duration = Duration::from_secs(10);

    fn class_of(addresses: &[u16], table: Table, rules: ReadRules) -> PollClass {
        let points = addresses
            .iter()
            .zip(0..)
            .map(|(&address, key)| ClassPoint {
                key: TagKey(key),
                path: TagPath {
                    asset: AssetId::new("a").unwrap(),
                    tag: TagId::new(&format!("t{key}")).unwrap(),
                },
                point: Point {
                    unit: 1,
                    table,
                    address,
                    kind: if table == Table::Coil { PointType::Bool } else { PointType::U16 },
                    order: ByteOrder::Abcd,
                },
            })
            .collect();
        PollClass::new(0, 0, points, Duration::from_secs(1), rules)
    }

    fn class(addresses: &[u16]) -> PollClass {
        class_of(addresses, Table::Holding, RULES)
    }

    fn reads(class: &PollClass) -> Vec<(u16, u16)> {
        class.plan().iter().map(|read| (read.block.address, read.block.count)).collect()
    }

    #[test]
    fn a_refused_point_is_left_out_and_tried_again_less_and_less_often() {
        let mut class = class(&[0, 1, 2]);
        assert!(class.refuse(1, NOW));
        assert_eq!(reads(&class), [(0, 1), (2, 1)], "the request must not cover it either");
        let mut now = NOW;
        let mut pause = RETRY_MIN;
        for _ in 0..12 {
            assert!(class.retries(now + pause / 2).is_empty());
            now += pause;
            let retries = class.retries(now);
            assert_eq!(retries.len(), 1);
            assert_eq!((retries[0].block.address, retries[0].block.count), (1, 1));
            assert!(!class.refuse(1, now));
            pause = (pause * 2).min(RETRY_MAX);
        }
        assert_eq!(pause, RETRY_MAX);
        class.accept(1);
        assert_eq!(reads(&class), [(0, 3)]);
    }

    #[test]
    fn a_hole_that_cannot_be_read_is_not_bridged_until_its_time_has_come() {
        let mut class = class(&[0, 5]);
        assert_eq!(reads(&class), [(0, 6)]);
        let whole = class.plan()[0].clone();
        let (left, right) = class.halves(&whole).unwrap();
        class.learn_from_parts(&whole, &[right.clone(), left.clone()], NOW);
        assert_eq!(reads(&class), [(0, 1), (5, 1)]);
        assert!(!class.forget_bounds(NOW + RETRY_MIN / 2));
        assert!(class.forget_bounds(NOW + RETRY_MIN));
        assert_eq!(reads(&class), [(0, 6)], "it is asked for once more");
        class.learn_from_parts(&whole, &[right, left], NOW + RETRY_MIN);
        assert_eq!(class.memo().tables["holding"].times, 2);
        assert!(!class.forget_bounds(NOW + RETRY_MIN * 2), "and then left alone for longer");
        assert!(class.forget_bounds(NOW + RETRY_MIN * 3));
    }

    #[test]
    fn a_device_that_takes_less_at_once_is_asked_for_less() {
        let mut class = class(&[0, 1, 2, 3]);
        let whole = class.plan()[0].clone();
        let (left, right) = class.halves(&whole).unwrap();
        class.learn_from_parts(&whole, &[left, right], NOW);
        assert_eq!(reads(&class), [(0, 2), (2, 2)]);
    }

    #[test]
    fn what_was_learnt_survives_as_text_and_ends_with_the_point() {
        let mut class = class(&[0, 1, 2, 9, 15]);
        let whole = class.plan()[0].clone();
        class.refuse(1, NOW);
        let (left, right) = (class.plan()[0].clone(), class.plan()[1].clone());
        class.learn_from_parts(&whole, &[left, right], NOW);
        assert!(class.take_changed() && !class.take_changed());
        let text = serde_json::to_string(&class.memo()).unwrap();
        let memo: Memo = serde_json::from_str(&text).unwrap();
        assert_eq!(memo, class.memo());

        let mut later = self::class(&[0, 1, 2, 9, 15]);
        later.recall(&memo, Duration::ZERO);
        assert_eq!(reads(&later), reads(&class));
        assert_eq!(later.retries(RETRY_MIN).len(), 1);
        let mut moved = self::class(&[0, 4, 2, 9, 15]);
        moved.recall(&memo, Duration::ZERO);
        assert_eq!(moved.refused().count(), 0, "its point is another one now");
    }

    #[test]
    fn classes_of_a_unit_share_a_memo() {
        let (mut one, mut other) = (class(&[0, 5]), class(&[20, 30]));
        for class in [&mut one, &mut other] {
            let whole = class.plan()[0].clone();
            let (left, right) = class.halves(&whole).unwrap();
            class.learn_from_parts(&whole, &[left, right], NOW);
        }
        let mut memo = one.memo();
        memo.merge(other.memo());
        assert_eq!(memo.tables["holding"].holes, [(1, 4), (21, 29)]);
    }

    #[test]
    fn limits_follow_the_table_and_the_device() {
        assert_eq!(RULES.table(Table::Holding, None).longest, 125);
        assert_eq!(RULES.table(Table::Input, Some(16)).longest, 16);
        assert_eq!(RULES.table(Table::Coil, None).longest, 2000);
        assert_eq!(ReadRules { max_coils: 32, ..RULES }.table(Table::Discrete, None).longest, 32);
    }

    #[test]
    fn coils_are_read_from_zero_where_a_device_wants_it_so() {
        let rules = ReadRules { coils_from_zero: true, fill: 0, ..RULES };
        assert_eq!(reads(&class_of(&[8, 100], Table::Coil, rules)), [(0, 101)]);
        assert_eq!(reads(&class_of(&[8, 100], Table::Holding, rules)), [(8, 1), (100, 1)]);
        let class = class_of(&[8, 100], Table::Coil, rules);
        let (left, right) = class.halves(&class.plan()[0]).unwrap();
        assert_eq!([left.block.count, right.block.count], [9, 101]);
        assert_eq!([left.block.address, right.block.address], [0, 0]);
    }
}
