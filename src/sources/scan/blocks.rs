//! Pure: which addresses of a table can be read, with exact boundaries and few requests.
//!
//! A refused read says only that something in it cannot be read, so what cannot be read has to be
//! asked for one by one; what can be read is found in large pieces. The walk asks for as much as a
//! request may hold; when that is refused it asks for single values until one is there, grows the
//! block by doubling until a read is refused, and halves the distance between the longest good and
//! the shortest refused read until they meet: about 2·log₂(length) requests a block, one for each
//! address that is not there, and one per 125 registers where everything is.

/// Addresses from the first to the last, both readable and all between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Block {
    /// First address.
    pub first: u16,
    /// Last address.
    pub last: u16,
}

impl Block {
    /// How many addresses it has.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// As much as a request may hold.
    Whole,
    /// The smallest possible read.
    Single,
    /// A block begins at `at`; `good` values of it can be read, `bad` cannot (0: not known yet).
    Grow {
        good: u32,
        bad: u32,
    },
    Done,
}

/// The walk over one table: [`Self::next`] says what to read, [`Self::told`] takes what came of it.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Next address to look at; past `end` when all has been seen.
    at: u32,
    /// One past the last address.
    end: u32,
    /// Values of the smallest read.
    width: u32,
    /// Most values of a read, a multiple of `width`.
    most: u32,
    step: Step,
    blocks: Vec<Block>,
}

impl Walk {
    /// A walk over `first` to `last`, with reads of at least `width` and at most `most` values.
    /// A width of 2 finds registers that a device gives out only in pairs.
    #[must_use]
    pub fn new(first: u16, last: u16, width: u16, most: u16) -> Self {
        let width = u32::from(width.max(1));
        let most = (u32::from(most) / width * width).max(width);
        let mut walk = Self {
            at: first.into(),
            end: u32::from(last) + 1,
            width,
            most,
            step: Step::Whole,
            blocks: Vec::new(),
        };
        walk.settle();
        walk
    }

    /// First address and count of the next read; `None` when all is known.
    #[must_use]
    pub fn next(&self) -> Option<(u16, u16)> {
        let count = match self.step {
            Step::Whole => self.room(),
            Step::Single => self.width,
            Step::Grow { good, bad: 0 } => (2 * good).min(self.room()),
            Step::Grow { good, bad } => {
                // The middle, in whole smallest reads, and always between the two.
                let half = (bad - good) / (2 * self.width) * self.width;
                good + half.max(self.width)
            }
            Step::Done => return None,
        };
        Some((u16::try_from(self.at).ok()?, u16::try_from(count).ok()?))
    }

    /// Takes what came of the read that [`Self::next`] asked for: whether all of it was there.
    pub fn told(&mut self, readable: bool) {
        let Some((_, count)) = self.next() else { return };
        let count = u32::from(count);
        match (self.step, readable) {
            (Step::Whole, true) => {
                self.found(count);
                self.at += count;
            }
            (Step::Whole, false) if count > self.width => self.step = Step::Single,
            (Step::Whole | Step::Single, false) => {
                self.step = Step::Single;
                // A pair may begin at any address.
                self.at += 1;
            }
            (Step::Single, true) => self.step = Step::Grow { good: count, bad: 0 },
            (Step::Grow { bad, .. }, true) => self.step = Step::Grow { good: count, bad },
            (Step::Grow { good, .. }, false) => self.step = Step::Grow { good, bad: count },
            (Step::Done, _) => {}
        }
        if let Step::Grow { good, bad } = self.step {
            if bad == good + self.width {
                self.found(good);
                // What made the longer read fail is the smallest read behind the block. Of single
                // registers it is known; a refused pair may hold one of the next pair.
                self.at += good + u32::from(self.width == 1);
                self.step = Step::Single;
            } else if bad == 0 && good >= self.room() {
                self.found(good);
                self.at += good;
                self.step = Step::Whole;
            }
        }
        self.settle();
    }

    /// The blocks so far, by address.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Addresses not looked at yet.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.end.saturating_sub(self.at)
    }

    /// Values that a read from here may have.
    fn room(&self) -> u32 {
        (self.end - self.at).min(self.most) / self.width * self.width
    }

    fn settle(&mut self) {
        if self.at + self.width > self.end {
            self.step = Step::Done;
        }
    }

    fn found(&mut self, count: u32) {
        let address = |at: u32| u16::try_from(at).unwrap_or(u16::MAX);
        let (first, last) = (address(self.at), address(self.at + count - 1));
        match self.blocks.last_mut() {
            Some(before) if before.last.checked_add(1) == Some(first) => before.last = last,
            Some(_) | None => self.blocks.push(Block { first, last }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Walks over a table of which these addresses can be read; the blocks and the requests.
    fn walk(mut walk: Walk, readable: impl Fn(u16) -> bool) -> (Vec<Block>, usize) {
        let mut requests = 0;
        while let Some((address, count)) = walk.next() {
            requests += 1;
            assert!(count >= 1 && requests < 400_000);
            let end = u32::from(address) + u32::from(count);
            walk.told((u32::from(address)..end).all(|at| u16::try_from(at).is_ok_and(&readable)));
        }
        (walk.blocks().to_vec(), requests)
    }

    fn block(first: u16, last: u16) -> Block {
        Block { first, last }
    }

    #[test]
    fn boundaries_are_exact_and_requests_are_few() {
        let all = |first, last| Walk::new(first, last, 1, 125);
        assert_eq!(walk(all(0, 199), |_| true), (vec![block(0, 199)], 2));
        assert_eq!(walk(all(0, 199), |_| false), (vec![], 201));
        assert_eq!(walk(all(0, 65535), |_| true), (vec![block(0, 65535)], 525));
        let (blocks, requests) = walk(all(0, 199), |at| (20..120).contains(&at));
        assert_eq!(blocks, [block(20, 119)]);
        // 100 addresses that are not there, and some 2·log₂(100) for the block.
        assert!(requests <= 100 + 15, "{requests}");
        assert_eq!(walk(all(65535, 65535), |_| true).0, [block(65535, 65535)]);
        assert_eq!(walk(all(65530, 65535), |at| at == 65535).0, [block(65535, 65535)]);
    }

    #[test]
    fn registers_that_come_only_in_pairs_are_found_by_pairs() {
        // A meter that gives out its floats at 10, 12 … 18 whole or not at all.
        let whole = |address: u16, count: u16| {
            (10..20).contains(&address)
                && u32::from(address) + u32::from(count) <= 20
                && address.is_multiple_of(2)
                && count.is_multiple_of(2)
        };
        let found = |width| {
            let mut walk = Walk::new(0, 49, width, 125);
            while let Some((address, count)) = walk.next() {
                walk.told(whole(address, count));
            }
            walk.blocks().to_vec()
        };
        assert_eq!(found(1), []);
        assert_eq!(found(2), [block(10, 19)]);
    }

    proptest! {
        #[test]
        fn every_map_is_found_as_it_is(
            map in proptest::collection::vec(any::<bool>(), 1..300),
            runs in 1_usize..40,
            first in 0_u16..1000,
            most in 1_u16..126,
        ) {
            // Runs of equal values: maps of single bits have none of the blocks real devices have.
            let readable: Vec<bool> =
                map.iter().flat_map(|bit| std::iter::repeat_n(*bit, runs)).take(300).collect();
            let last = first + u16::try_from(readable.len()).unwrap() - 1;
            let at = |address: u16| readable[usize::from(address - first)];
            let (blocks, requests) = walk(Walk::new(first, last, 1, most), at);
            let mut found = vec![false; readable.len()];
            for block in &blocks {
                for address in block.first..=block.last {
                    found[usize::from(address - first)] = true;
                }
            }
            prop_assert_eq!(&found, &readable);
            prop_assert!(blocks.windows(2).all(|two| two[0].last + 1 < two[1].first));
            let missing = readable.iter().filter(|there| !**there).count();
            let whole = readable.len().div_ceil(usize::from(most));
            prop_assert!(requests <= missing + 3 * whole + 18 * (blocks.len() + 1));
        }
    }
}
