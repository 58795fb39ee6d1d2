//! Roll-ups: per minute, hour and day the count, least, greatest, mean, standard deviation and
//! last of the good readings. Buckets are merged by their moments, so it does not matter in which
//! order or how divided readings come.

use crate::domain::time::Timestamp;

/// How long a bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// One minute.
    Minute,
    /// One hour.
    Hour,
    /// One day, UTC.
    Day,
}

impl Resolution {
    /// Length in microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        match self {
            Self::Minute => 60_000_000,
            Self::Hour => 3_600_000_000,
            Self::Day => 86_400_000_000,
        }
    }
}

/// One closed or growing roll-up of one tag.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollup {
    /// When its span begins.
    pub start: Timestamp,
    /// Good readings in it, at least 1.
    pub count: u64,
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Mean value.
    pub mean: f64,
    /// Standard deviation of the readings about their mean (divisor: count).
    pub std: f64,
    /// Value of the newest reading.
    pub last: f64,
}

/// A bucket as it is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bucket {
    /// Which minute of the hour, or hour of the day.
    pub(super) index: u8,
    pub(super) count: u32,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    /// Sum of squared distances from the mean.
    pub(super) m2: f64,
    pub(super) last: f64,
    /// Time of the last one, microseconds UTC.
    pub(super) last_at: i64,
}

impl Bucket {
    /// A bucket of one reading.
    pub(super) const fn new(index: u8, time: i64, value: f64) -> Self {
        Self {
            index,
            count: 1,
            min: value,
            max: value,
            mean: value,
            m2: 0.0,
            last: value,
            last_at: time,
        }
    }

    /// One reading more (B. P. Welford, Technometrics 4(3), 1962).
    pub(super) fn add(&mut self, time: i64, value: f64) {
        self.count = self.count.saturating_add(1);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        let distance = value - self.mean;
        self.mean += distance / f64::from(self.count);
        self.m2 += distance * (value - self.mean);
        if time >= self.last_at {
            (self.last, self.last_at) = (value, time);
        }
    }

    /// Another bucket's readings more (T. F. Chan, G. H. Golub, R. J. LeVeque, The American
    /// Statistician 37(3), 1983, eq. 2.1).
    pub(super) fn merge(&mut self, other: &Self) {
        let (own, theirs) = (f64::from(self.count), f64::from(other.count));
        let distance = other.mean - self.mean;
        let all = own + theirs;
        self.mean += distance * theirs / all;
        self.m2 += other.m2 + distance * distance * own * theirs / all;
        self.count = self.count.saturating_add(other.count);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
    }

    /// The same for everybody else; `start` is when its span begins.
    pub(super) fn rollup(&self, start: i64) -> Rollup {
        Rollup {
            start: Timestamp::from_micros(start),
            count: u64::from(self.count),
            min: self.min,
            max: self.max,
            mean: self.mean,
            std: (self.m2.max(0.0) / f64::from(self.count.max(1))).sqrt(),
            last: self.last,
        }
    }
}

/// The buckets of one span (minutes of an hour, hours of a day), in order, empty ones left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pack(pub(super) Vec<Bucket>);

impl Pack {
    /// One reading more in bucket `index`.
    pub(super) fn add(&mut self, index: u8, time: i64, value: f64) {
        match self.0.last_mut() {
            // Nearly always: readings come in order.
            Some(last) if last.index == index => last.add(time, value),
            Some(last) if last.index > index => {
                self.put(Bucket::new(index, time, value), |old, _| old.add(time, value));
            }
            Some(_) | None => self.0.push(Bucket::new(index, time, value)),
        }
    }

    /// Another pack's readings more.
    pub(super) fn merge(&mut self, other: &Self) {
        for bucket in &other.0 {
            self.put(*bucket, Bucket::merge);
        }
    }

    /// One bucket put in the place of what was there.
    pub(super) fn replace(&mut self, bucket: Bucket) {
        self.put(bucket, |old, new| *old = *new);
    }

    fn put(&mut self, bucket: Bucket, meet: impl FnOnce(&mut Bucket, &Bucket)) {
        match self.0.binary_search_by_key(&bucket.index, |old| old.index) {
            Ok(at) => meet(&mut self.0[at], &bucket),
            Err(at) => self.0.insert(at, bucket),
        }
    }

    /// All in one bucket, number `index` of the next larger span.
    pub(super) fn sum(&self, index: u8) -> Option<Bucket> {
        let (first, rest) = self.0.split_first()?;
        let mut sum = Bucket { index, ..*first };
        rest.iter().for_each(|bucket| sum.merge(bucket));
        Some(sum)
    }
}

/// The hour a moment lies in, counted from 1970, and its minute; `None` beyond the years that a
/// key has room for.
pub(super) fn hour_of(time: i64) -> Option<(i32, u8)> {
    let hour = i32::try_from(time.div_euclid(Resolution::Hour.micros())).ok()?;
    let minute = time.rem_euclid(Resolution::Hour.micros()) / Resolution::Minute.micros();
    Some((hour, u8::try_from(minute).ok()?))
}

/// The day an hour lies in, and which of its hours it is.
pub(super) fn day_of(hour: i32) -> (i32, u8) {
    let index = hour.rem_euclid(24);
    (hour.div_euclid(24), u8::try_from(index).expect("a remainder below 24"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Merging divided readings gives what one pass over all of them gives. Tolerance: each of
        /// up to 60 roundings of the mean moves the squares by 1e-16 of their size.
        #[test]
        fn merged_moments_are_those_of_all_readings(
            values in prop::collection::vec(-1e3..1e3_f64, 2..60), cut in any::<prop::sample::Index>()
        ) {
            let cut = cut.index(values.len() - 1) + 1;
            let bucket = |values: &[f64], from: i64| {
                let mut bucket = Bucket::new(0, from, values[0]);
                for (at, value) in values.iter().enumerate().skip(1) {
                    bucket.add(from + at as i64, *value);
                }
                bucket
            };
            let whole = bucket(&values, 0);
            let mut late = bucket(&values[cut..], cut as i64);
            late.merge(&bucket(&values[..cut], 0));
            prop_assert_eq!(late.count, whole.count);
            prop_assert_eq!(late.last.to_bits(), whole.last.to_bits());
            prop_assert_eq!((late.min, late.max), (whole.min, whole.max));
            prop_assert!((late.mean - whole.mean).abs() < 1e-9);
            prop_assert!((late.m2 - whole.m2).abs() < 1e-9 * whole.m2.max(1.0));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance =
                values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            prop_assert!((whole.rollup(0).std - variance.sqrt()).abs() < 1e-6);
        }
    }

    #[test]
    fn hours_before_1970_are_counted_downwards() {
        assert_eq!(hour_of(-1), Some((-1, 59)));
        assert_eq!(day_of(-1), (-1, 23));
        assert_eq!(hour_of(3_600_000_000 * 25 + 60_000_000), Some((25, 1)));
        assert_eq!(day_of(25), (1, 1));
        assert_eq!(hour_of(i64::MAX), None);
    }
}
