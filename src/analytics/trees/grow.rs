//! One tree, the leaf that gains most first.

use super::{Binned, Node, Tree};

/// How large a tree may grow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Leaves at most.
    pub leaves: usize,
    /// Questions on the way to a leaf at most.
    pub depth: usize,
    /// Rows in a leaf at least.
    pub rows_min: usize,
    /// Sum of curvatures in a leaf at least.
    pub curvature_min: f64,
    /// Ridge on the values of leaves, in units of curvature.
    pub ridge: f64,
    /// What a split must gain at least.
    pub gain_min: f64,
    /// Share of the columns offered to each split (forests); 1 offers all.
    pub split_columns: f64,
}

/// One bin of a histogram.
#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    slope: f64,
    curvature: f64,
    rows: u32,
}

impl Cell {
    fn add(&mut self, other: Self) {
        self.slope += other.slope;
        self.curvature += other.curvature;
        self.rows += other.rows;
    }

    fn less(self, other: Self) -> Self {
        Self {
            slope: self.slope - other.slope,
            curvature: self.curvature - other.curvature,
            rows: self.rows - other.rows,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Choice {
    gain: f64,
    column: usize,
    /// Bins up to this one go left.
    bin: u16,
    missing_left: bool,
}

/// A leaf that may still be split.
struct Open {
    node: usize,
    from: usize,
    to: usize,
    depth: usize,
    all: Cell,
    cells: Vec<Cell>,
    choice: Option<Choice>,
}

/// A node while it grows.
#[derive(Debug, Clone, Copy)]
struct Raw {
    value: f64,
    weight: f64,
    split: Option<(Choice, usize, usize)>,
}

/// What a tree is grown from.
pub(super) struct Soil<'a> {
    pub(super) table: &'a Binned,
    /// First and second derivative of the loss at each row.
    pub(super) slopes: &'a [f64],
    pub(super) curvatures: &'a [f64],
    /// The columns this tree may ask.
    pub(super) columns: &'a [usize],
    pub(super) shape: Shape,
}

/// A leaf of a grown tree and the rows in it, as a range of the order of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filled {
    node: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// A grown tree.
pub(super) struct Grown {
    raw: Vec<Raw>,
    pub(super) leaves: Vec<Filled>,
}

impl Soil<'_> {
    /// Grows a tree on the rows in `order`, which is left sorted by leaf.
    pub(super) fn grow(&self, order: &mut [u32], random: &mut fastrand::Rng) -> Grown {
        let mut scratch = Vec::new();
        let cells = self.histogram(order);
        let mut all = Cell::default();
        for row in order.iter() {
            all.add(self.cell(*row));
        }
        let mut raw = vec![self.leaf(all)];
        let mut root =
            Open { node: 0, from: 0, to: order.len(), depth: 0, all, cells, choice: None };
        root.choice = self.best(&root, random);
        let (mut open, mut leaves) = (vec![root], 1);
        while leaves < self.shape.leaves {
            let candidates =
                open.iter().enumerate().filter_map(|(at, leaf)| Some((at, leaf.choice?)));
            // The first one on equal gains.
            let next =
                candidates.reduce(|best, it| if it.1.gain > best.1.gain { it } else { best });
            let Some((at, choice)) = next else { break };
            let leaf = open.swap_remove(at);
            let parent = leaf.node;
            let middle =
                leaf.from + self.part(&mut order[leaf.from..leaf.to], choice, &mut scratch);
            let (mut left, mut right) = self.children(order, leaf, middle);
            for child in [&mut left, &mut right] {
                child.node = raw.len();
                raw.push(self.leaf(child.all));
                child.choice = self.best(child, random);
            }
            raw[parent].split = Some((choice, left.node, right.node));
            open.extend([left, right]);
            leaves += 1;
        }
        open.sort_unstable_by_key(|leaf| leaf.from);
        let leaves =
            open.iter().map(|leaf| Filled { node: leaf.node, from: leaf.from, to: leaf.to });
        Grown { leaves: leaves.collect(), raw }
    }

    fn cell(&self, row: u32) -> Cell {
        let row = row as usize;
        Cell { slope: self.slopes[row], curvature: self.curvatures[row], rows: 1 }
    }

    fn leaf(&self, all: Cell) -> Raw {
        let value = -all.slope / (all.curvature + self.shape.ridge).max(f64::MIN_POSITIVE);
        Raw { value, weight: all.curvature, split: None }
    }

    fn histogram(&self, rows: &[u32]) -> Vec<Cell> {
        let width: usize = self.columns.iter().map(|column| self.table.width(*column)).sum();
        let mut cells = vec![Cell::default(); width];
        let mut start = 0;
        for column in self.columns {
            let end = start + self.table.width(*column);
            let (bins, cells) = (&self.table.bins[*column], &mut cells[start..end]);
            for row in rows {
                cells[usize::from(bins[*row as usize])].add(self.cell(*row));
            }
            start = end;
        }
        cells
    }

    /// Sorts the rows of a leaf by the side they go to, keeping their order; how many go left.
    fn part(&self, rows: &mut [u32], choice: Choice, scratch: &mut Vec<u32>) -> usize {
        let bins = &self.table.bins[choice.column];
        scratch.clear();
        let mut left = 0;
        for at in 0..rows.len() {
            let row = rows[at];
            let bin = bins[row as usize];
            let goes_left = if bin == 0 { choice.missing_left } else { bin <= choice.bin };
            if goes_left {
                rows[left] = row;
                left += 1;
            } else {
                scratch.push(row);
            }
        }
        rows[left..].copy_from_slice(scratch);
        left
    }

    fn children(&self, order: &[u32], leaf: Open, middle: usize) -> (Open, Open) {
        let left_is_small = middle - leaf.from <= leaf.to - middle;
        let small = if left_is_small { leaf.from..middle } else { middle..leaf.to };
        let small_cells = self.histogram(&order[small.clone()]);
        let mut small_all = Cell::default();
        for row in &order[small] {
            small_all.add(self.cell(*row));
        }
        let mut large_cells = leaf.cells;
        for (large, small) in large_cells.iter_mut().zip(&small_cells) {
            *large = large.less(*small);
        }
        let child = |from, to, all, cells| Open {
            node: 0,
            from,
            to,
            depth: leaf.depth + 1,
            all,
            cells,
            choice: None,
        };
        let large_all = leaf.all.less(small_all);
        if left_is_small {
            let left = child(leaf.from, middle, small_all, small_cells);
            (left, child(middle, leaf.to, large_all, large_cells))
        } else {
            let left = child(leaf.from, middle, large_all, large_cells);
            (left, child(middle, leaf.to, small_all, small_cells))
        }
    }

    fn score(&self, cell: Cell) -> f64 {
        cell.slope * cell.slope / (cell.curvature + self.shape.ridge).max(f64::MIN_POSITIVE)
    }

    fn large_enough(&self, cell: Cell) -> bool {
        cell.rows as usize >= self.shape.rows_min.max(1)
            && cell.curvature >= self.shape.curvature_min
    }

    /// The split that gains most; `None` when none gains enough.
    fn best(&self, leaf: &Open, random: &mut fastrand::Rng) -> Option<Choice> {
        if leaf.depth >= self.shape.depth || leaf.to - leaf.from < 2 * self.shape.rows_min.max(1) {
            return None;
        }
        let before = self.score(leaf.all);
        let mut best: Option<Choice> = None;
        let mut start = 0;
        let offered = Offered::draw(self.columns.len(), self.shape.split_columns, random);
        for (at, column) in self.columns.iter().enumerate() {
            let cells = &leaf.cells[start..start + self.table.width(*column)];
            start += cells.len();
            if !offered.has(at) {
                continue;
            }
            let missing = cells[0];
            let mut below = Cell::default();
            for (bin, cell) in cells.iter().enumerate().skip(1).take(cells.len() - 2) {
                below.add(*cell);
                if cell.rows == 0 {
                    continue;
                }
                for missing_left in [false, true] {
                    if missing_left && missing.rows == 0 {
                        continue;
                    }
                    let mut left = below;
                    if missing_left {
                        left.add(missing);
                    }
                    let right = leaf.all.less(left);
                    if !self.large_enough(left) || !self.large_enough(right) {
                        continue;
                    }
                    let gain = self.score(left) + self.score(right) - before;
                    if gain > best.map_or(self.shape.gain_min, |best| best.gain) {
                        let bin = u16::try_from(bin).expect("bins are few");
                        best = Some(Choice { gain, column: *column, bin, missing_left });
                    }
                }
            }
        }
        best
    }
}

/// Which of a tree's columns one split may ask.
enum Offered {
    All,
    Some(Vec<bool>),
}

impl Offered {
    fn draw(columns: usize, share: f64, random: &mut fastrand::Rng) -> Self {
        if share >= 1.0 {
            return Self::All;
        }
        let wanted = part_of(columns, share);
        let mut offered = vec![false; columns];
        for column in random.choose_multiple(0..columns, wanted) {
            offered[column] = true;
        }
        Self::Some(offered)
    }

    fn has(&self, at: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(offered) => offered[at],
        }
    }
}

/// This share of `count`, rounded, at least one.
pub(super) fn part_of(count: usize, share: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count is a count"
    )]
    let part = (count as f64 * share.clamp(0.0, 1.0)).round() as usize;
    part.clamp(1, count.max(1))
}

impl Grown {
    /// Sets the value of the `index`-th leaf.
    pub(super) fn set(&mut self, index: usize, value: f64) {
        let node = self.leaves[index].node;
        self.raw[node].value = value;
    }

    /// The tree with its leaves times `rate`, in pre-order.
    pub(super) fn finish(&self, rate: f64) -> Tree {
        let leaves = self.raw.iter().filter(|node| node.split.is_none());
        let most = leaves.map(|leaf| (leaf.value * rate).abs()).fold(0.0, f64::max);
        #[expect(clippy::cast_possible_truncation, reason = "a leaf's step needs no more digits")]
        let scale = (most / f64::from(i16::MAX)).max(f64::from(f32::MIN_POSITIVE)) as f32;
        let mut nodes = Vec::with_capacity(self.raw.len());
        self.write(0, rate / f64::from(scale), &mut nodes);
        Tree { scale, nodes }
    }

    fn write(&self, at: usize, per_step: f64, nodes: &mut Vec<Node>) {
        let Raw { value, weight, split } = self.raw[at];
        let Some((choice, left, right)) = split else {
            let most = f64::from(i16::MAX);
            #[expect(clippy::cast_possible_truncation, reason = "kept within the range")]
            nodes.push(Node::Leaf((value * per_step).round().clamp(-most, most) as i16));
            return;
        };
        let here = nodes.len();
        nodes.push(Node::Leaf(0));
        self.write(left, per_step, nodes);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "kept within the range"
        )]
        let share = (self.raw[left].weight / weight * 255.0).round().clamp(1.0, 254.0) as u8;
        nodes[here] = Node::Split {
            feature: u16::try_from(choice.column).expect("columns are few"),
            // Bin b holds what lies at or below edge b - 1.
            cut: (choice.bin - 1) * 2 + u16::from(choice.missing_left),
            right: u16::try_from(nodes.len()).expect("leaves are few"),
            share,
        };
        self.write(right, per_step, nodes);
    }
}
