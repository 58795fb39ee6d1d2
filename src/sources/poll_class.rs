//! Pure: the points of one unit that are read equally often, their requests, and what the device
//! has been found to refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::{Point, Table};
use crate::domain::ids::{TagKey, TagPath};
use crate::sources::poll_plan::{self, Block, Extent, LineCost};

/// How long a refused point is left out before it is tried again.
pub const REFUSED_RETRY: Duration = Duration::from_secs(300);
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
    extents: Vec<Extent>,
    longest: BTreeMap<Table, u16>,
    holes: BTreeMap<Table, BTreeSet<u16>>,
    refused: BTreeMap<usize, Duration>,
    plan: Vec<PlannedRead>,
}

impl PollClass {
    /// A class of points, with its requests planned.
    #[must_use]
    pub fn new(
        source: usize,
        unit: usize,
        points: Vec<ClassPoint>,
        period: Duration,
        max_registers: u16,
    ) -> Self {
        let extents = points
            .iter()
            .map(|point| Extent {
                address: point.point.address,
                count: point.point.kind.registers().max(1),
            })
            .collect();
        let longest = points
            .iter()
            .map(|point| point.point.table)
            .map(|table| (table, poll_plan::longest(table, max_registers)))
            .collect();
        let (holes, refused) = (BTreeMap::new(), BTreeMap::new());
        let plan = Vec::new();
        let mut class =
            Self { source, unit, points, period, extents, longest, holes, refused, plan };
        class.replan();
        class
    }

    /// The requests of one cycle.
    #[must_use]
    pub fn plan(&self) -> &[PlannedRead] {
        &self.plan
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
            .filter(|(_, retry_at)| **retry_at <= now)
            .take(RETRIES_PER_CYCLE_MAX)
            .filter_map(|(&point, _)| {
                let table = self.points[point].point.table;
                Some(PlannedRead { table, block: Block::around(&self.extents, &[point])? })
            })
            .collect()
    }

    /// Both halves of a refused request; `None` when it reads a single point, which is then the
    /// guilty one.
    #[must_use]
    pub fn halves(&self, read: &PlannedRead) -> Option<(PlannedRead, PlannedRead)> {
        let (left, right) = poll_plan::halves(&self.extents, &read.block)?;
        let table = read.table;
        Some((PlannedRead { table, block: left }, PlannedRead { table, block: right }))
    }

    /// The device refuses this point: it is left out until [`REFUSED_RETRY`] has passed. Returns
    /// whether that is new.
    pub fn refuse(&mut self, point: usize, now: Duration) -> bool {
        let new = self.refused.insert(point, now + REFUSED_RETRY).is_none();
        if new {
            self.replan();
        }
        new
    }

    /// The device answers for this point again.
    pub fn accept(&mut self, point: usize) {
        if self.refused.remove(&point).is_some() {
            self.replan();
        }
    }

    /// A request was refused while all of `parts` were answered, so no point is to blame: either
    /// what lies between the parts cannot be read, or the request was too long for the device.
    pub fn learn_from_parts(&mut self, read: &PlannedRead, parts: &[PlannedRead]) {
        let mut parts: Vec<&Block> = parts.iter().map(|part| &part.block).collect();
        parts.sort_by_key(|block| block.address);
        let mut gaps = BTreeSet::new();
        for pair in parts.windows(2) {
            let end = pair[0].address.saturating_add(pair[0].count);
            gaps.extend(end..pair[1].address.max(end));
        }
        if gaps.is_empty() {
            if let Some(longest) = parts.iter().map(|block| block.count).max() {
                self.longest.insert(read.table, longest);
            }
        } else {
            self.holes.entry(read.table).or_default().extend(gaps);
        }
        self.replan();
    }

    /// Makes the requests anew from what is known.
    fn replan(&mut self) {
        let none = BTreeSet::new();
        self.plan.clear();
        for (&table, &longest) in &self.longest {
            let members: Vec<usize> = (0..self.points.len())
                .filter(|point| self.points[*point].point.table == table)
                .collect();
            let mut avoid = self.holes.get(&table).unwrap_or(&none).clone();
            for point in members.iter().filter(|point| self.refused.contains_key(point)) {
                let Extent { address, count } = self.extents[*point];
                avoid.extend((0..count).filter_map(|offset| address.checked_add(offset)));
            }
            let wanted: Vec<usize> =
                members.into_iter().filter(|point| !self.refused.contains_key(point)).collect();
            let extents: Vec<Extent> = wanted.iter().map(|&point| self.extents[point]).collect();
            let cost = LineCost::TCP;
            let blocks =
                poll_plan::plan(&extents, longest, cost.request_ns, cost.unit_ns(table), &avoid);
            self.plan.extend(blocks.into_iter().map(|mut block| {
                block.points = block.points.iter().map(|&point| wanted[point]).collect();
                PlannedRead { table, block }
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteOrder, PointType};
    use crate::domain::ids::{AssetId, TagId};

    fn class(addresses: &[u16]) -> PollClass {
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
                    table: Table::Holding,
                    address,
                    kind: PointType::U16,
                    order: ByteOrder::Abcd,
                },
            })
            .collect();
        PollClass::new(0, 0, points, Duration::from_secs(1), 125)
    }

    fn reads(class: &PollClass) -> Vec<(u16, u16)> {
        class.plan().iter().map(|read| (read.block.address, read.block.count)).collect()
    }

    #[test]
    fn a_refused_point_is_left_out_and_tried_again_after_five_minutes() {
        let mut class = class(&[0, 1, 2]);
        let now = Duration::from_secs(10);
        assert!(class.refuse(1, now));
        assert!(!class.refuse(1, now));
        assert_eq!(reads(&class), [(0, 1), (2, 1)], "the request must not cover it either");
        assert!(class.retries(now + REFUSED_RETRY / 2).is_empty());
        let retries = class.retries(now + REFUSED_RETRY);
        assert_eq!(retries.len(), 1);
        assert_eq!((retries[0].block.address, retries[0].block.count), (1, 1));
        class.accept(1);
        assert_eq!(reads(&class), [(0, 3)]);
    }

    #[test]
    fn a_hole_that_cannot_be_read_is_not_bridged_again() {
        let mut class = class(&[0, 5]);
        assert_eq!(reads(&class), [(0, 6)]);
        let whole = class.plan()[0].clone();
        let (left, right) = class.halves(&whole).unwrap();
        class.learn_from_parts(&whole, &[right, left]);
        assert_eq!(reads(&class), [(0, 1), (5, 1)]);
    }

    #[test]
    fn a_device_that_takes_less_at_once_is_asked_for_less() {
        let mut class = class(&[0, 1, 2, 3]);
        let whole = class.plan()[0].clone();
        let (left, right) = class.halves(&whole).unwrap();
        class.learn_from_parts(&whole, &[left, right]);
        assert_eq!(reads(&class), [(0, 2), (2, 2)]);
    }
}
