//! How readings and roll-ups become bytes. Every blob begins with a byte that says what it is and
//! in which version, and the CRC-32 of that byte and all that follows:
//!
//! ```text
//! kind u8 | crc32 u32 le | n varint | columns
//!
//! tail     0x11: arrivals as runs | tags, times as varint deltas | quality as runs | values f64 le
//! segment  0x12: quality as runs | no-number runs | arrivals, times, values by pco
//! shared   0x13: as a segment, with the tags by pco before the arrivals
//! buckets  0x14: index, count, min, max, mean, m2, last, time of the last by pco
//! samples  0x15: single-precision samples of a burst by pco
//! ```
//!
//! The tail is written at every group commit and read back once, so it is plain and fast; segments
//! stay for months, so they are small. pco finds decimals and single-precision values by itself
//! and is lossless (arXiv 2502.06112). Values that are no number are filled with the one before, so
//! that they do not spoil the compression, and kept as runs.

use pco::data_types::Number;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::rollup::Bucket;
use crate::domain::ids::{Arrival, TagKey};
use crate::domain::reading::{Quality, Reading};
use crate::domain::time::Timestamp;

const TAIL: u8 = 0x11;
const SEGMENT: u8 = 0x12;
const SHARED: u8 = 0x13;
const BUCKETS: u8 = 0x14;
const SAMPLES: u8 = 0x15;
/// Bytes before the columns.
const HEAD: usize = 5;
/// More readings than one blob ever holds; a larger number is damage, not an allocation.
const READINGS_MAX: usize = 1 << 24;
/// pco's effort. Beyond 2 it takes twice the time and saves nothing on 256 values (measured: 2.8
/// bytes a reading at 17 µs a segment; at level 8, 2.8 bytes at 33 µs).
const EFFORT: usize = 2;

/// Set in the byte of a quality on disk when the reading's time is the device's own: it is not moved
/// when the gateway's clock is put right. Reasons take the five bits below.
const OWN_TIME: u8 = 0x20;
/// Columns shorter than this grow by [`GROWTH`], longer ones double.
const SLOW_GROWTH_BELOW: usize = 256;
/// See [`SLOW_GROWTH_BELOW`].
const GROWTH: usize = 32;

/// Where opened readings go.
pub(super) trait Take {
    /// Room for so many more.
    fn room(&mut self, count: usize);
    /// One reading; `own` says that its time is the device's own.
    fn take(&mut self, reading: Reading, own: bool);
}

impl Take for Vec<Reading> {
    fn room(&mut self, count: usize) {
        self.reserve(count);
    }

    fn take(&mut self, reading: Reading, _own: bool) {
        self.push(reading);
    }
}

/// Readings whose times the gateway gave are moved by so many microseconds.
pub(super) struct Dated<'a>(pub(super) &'a mut Vec<Reading>, pub(super) i64);

impl Take for Dated<'_> {
    fn room(&mut self, count: usize) {
        self.0.reserve(count);
    }

    fn take(&mut self, mut reading: Reading, own: bool) {
        if !own {
            reading.time = Timestamp::from_micros(reading.time.micros().saturating_add(self.1));
        }
        self.0.push(reading);
    }
}

/// Readings as they were written, each with whether its time is the device's own.
impl Take for Vec<(Reading, bool)> {
    fn room(&mut self, count: usize) {
        self.reserve(count);
    }

    fn take(&mut self, reading: Reading, own: bool) {
        self.push((reading, own));
    }
}

/// A blob that was not written by [`seal_tail`] and its like, or was damaged since.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged blob: {0}")]
pub(super) struct Damaged(pub(super) &'static str);

/// Readings of one tag, column by column, in order of arrival.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    pub(super) arrivals: Vec<u64>,
    pub(super) times: Vec<i64>,
    pub(super) values: Vec<f64>,
    pub(super) quality: Vec<u8>,
}

impl Columns {
    pub(super) fn len(&self) -> usize {
        self.arrivals.len()
    }

    pub(super) fn push(&mut self, reading: &Reading) {
        let held = self.arrivals.len();
        if held == self.arrivals.capacity() && held < SLOW_GROWTH_BELOW {
            // Ten thousand tags that all hold twice what they need would be half of our memory.
            self.arrivals.reserve_exact(GROWTH);
            self.times.reserve_exact(GROWTH);
            self.values.reserve_exact(GROWTH);
            self.quality.reserve_exact(GROWTH);
        }
        self.arrivals.push(reading.arrival.0);
        self.times.push(reading.time.micros());
        self.values.push(reading.value);
        self.quality.push(reading.quality.to_byte());
    }

    /// The reading at `index`, of `tag`.
    pub(super) fn get(&self, tag: TagKey, index: usize) -> Reading {
        Reading {
            tag,
            arrival: Arrival(self.arrivals[index]),
            time: Timestamp::from_micros(self.times[index]),
            value: self.values[index],
            quality: Quality::from_byte(self.quality[index] & !OWN_TIME)
                .expect("columns are filled from readings"),
        }
    }

    /// Says of the reading with this arrival number that its time is the device's own.
    pub(super) fn mark_own(&mut self, arrival: u64) {
        if let Ok(at) = self.arrivals.binary_search(&arrival) {
            self.quality[at] |= OWN_TIME;
        }
    }

    /// Forgets the first `count`.
    pub(super) fn drop_front(&mut self, count: usize) {
        if count == self.len() {
            *self = Self::default();
            return;
        }
        self.arrivals.drain(..count);
        self.times.drain(..count);
        self.values.drain(..count);
        self.quality.drain(..count);
    }

    /// Forgets those whose arrival lies in `from..=to`; they stand together.
    pub(super) fn drop_arrivals(&mut self, from: u64, to: u64) {
        let start = self.arrivals.partition_point(|arrival| *arrival < from);
        let end = self.arrivals.partition_point(|arrival| *arrival <= to);
        self.arrivals.drain(start..end);
        self.times.drain(start..end);
        self.values.drain(start..end);
        self.quality.drain(start..end);
    }
}

/// One group commit's readings, in order of arrival; `own` are the arrival numbers, sorted, of
/// those whose times are the device's own.
pub(super) fn seal_tail(readings: &[Reading], own: &[u64]) -> Vec<u8> {
    let mut out = begin(readings.len(), readings.len() * 14 + 32);
    let mut rest = readings;
    let mut expected = 0;
    while let Some(first) = rest.first() {
        let run = rest
            .iter()
            .zip(first.arrival.0..)
            .take_while(|(reading, number)| reading.arrival.0 == *number)
            .count();
        put(&mut out, first.arrival.0.wrapping_sub(expected));
        put(&mut out, run as u64);
        expected = first.arrival.0 + run as u64;
        rest = &rest[run..];
    }
    let mut before = 0;
    for reading in readings {
        put_signed(&mut out, i64::from(reading.tag.0).wrapping_sub(before));
        before = i64::from(reading.tag.0);
    }
    before = 0;
    for reading in readings {
        put_signed(&mut out, reading.time.micros().wrapping_sub(before));
        before = reading.time.micros();
    }
    put_runs(
        &mut out,
        readings.iter().map(|reading| {
            let own = !own.is_empty() && own.binary_search(&reading.arrival.0).is_ok();
            reading.quality.to_byte() | if own { OWN_TIME } else { 0 }
        }),
    );
    for reading in readings {
        out.extend_from_slice(&reading.value.to_le_bytes());
    }
    finish(out, TAIL)
}

/// Reads what [`seal_tail`] wrote, appending to `into`.
pub(super) fn open_tail<T: Take>(sealed: &[u8], into: &mut T) -> Result<(), Damaged> {
    let (mut rest, count) = open(sealed, TAIL)?;
    let mut columns = Columns::default();
    let mut next = 0_u64;
    while columns.arrivals.len() < count {
        next = next.wrapping_add(take(&mut rest)?);
        let run = take_size(&mut rest, count - columns.arrivals.len())?;
        if run == 0 {
            return Err(Damaged("an empty run"));
        }
        for _ in 0..run {
            columns.arrivals.push(next);
            next = next.wrapping_add(1);
        }
    }
    let mut tags = Vec::with_capacity(count);
    let mut before = 0_i64;
    for _ in 0..count {
        before = before.wrapping_add(take_signed(&mut rest)?);
        tags.push(u32::try_from(before).map_err(|_| Damaged("a tag number"))?);
    }
    before = 0;
    for _ in 0..count {
        before = before.wrapping_add(take_signed(&mut rest)?);
        columns.times.push(before);
    }
    columns.quality = take_runs(&mut rest, count)?;
    for _ in 0..count {
        let (bytes, behind) = rest.split_first_chunk().ok_or(Damaged("cut off"))?;
        columns.values.push(f64::from_le_bytes(*bytes));
        rest = behind;
    }
    readings(&tags, &columns, into)
}

/// One tag's readings in order of arrival; `range` of `columns`.
pub(super) fn seal_segment(columns: &Columns, range: std::ops::Range<usize>) -> Vec<u8> {
    let mut out = begin(range.len(), 1024);
    put_columns(
        &mut out,
        None,
        &columns.arrivals[range.clone()],
        &columns.times[range.clone()],
        &columns.values[range.clone()],
        &columns.quality[range],
    );
    finish(out, SEGMENT)
}

/// Reads what [`seal_segment`] wrote, appending to `into`.
pub(super) fn open_segment<T: Take>(
    sealed: &[u8],
    tag: TagKey,
    into: &mut T,
) -> Result<(), Damaged> {
    let (mut rest, count) = open(sealed, SEGMENT)?;
    let (_, columns) = take_columns(&mut rest, count, false)?;
    readings(&vec![tag.0; count], &columns, into)
}

/// Readings of many tags, sorted by tag, then arrival.
pub(super) fn seal_shared(tags: &[u32], columns: &Columns) -> Vec<u8> {
    let mut out = begin(tags.len(), tags.len() * 4 + 256);
    put_columns(
        &mut out,
        Some(tags),
        &columns.arrivals,
        &columns.times,
        &columns.values,
        &columns.quality,
    );
    finish(out, SHARED)
}

/// Reads what [`seal_shared`] wrote, appending to `into`.
pub(super) fn open_shared<T: Take>(sealed: &[u8], into: &mut T) -> Result<(), Damaged> {
    let (mut rest, count) = open(sealed, SHARED)?;
    let (tags, columns) = take_columns(&mut rest, count, true)?;
    readings(&tags, &columns, into)
}

/// A pack of roll-ups.
pub(super) fn seal_buckets(buckets: &[Bucket]) -> Vec<u8> {
    let mut out = begin(buckets.len(), 1536);
    if !buckets.is_empty() {
        let whole = |pick: fn(&Bucket) -> u32| buckets.iter().map(pick).collect::<Vec<u32>>();
        let real = |pick: fn(&Bucket) -> f64| buckets.iter().map(pick).collect::<Vec<f64>>();
        put_pco(&mut out, &whole(|bucket| u32::from(bucket.index)), &exact());
        put_pco(&mut out, &whole(|bucket| bucket.count), &exact());
        for pick in [
            (|bucket| bucket.min) as fn(&Bucket) -> f64,
            |bucket| bucket.max,
            |bucket| bucket.mean,
            |bucket| bucket.m2,
            |bucket| bucket.last,
        ] {
            put_pco(&mut out, &real(pick), &guessed());
        }
        let times: Vec<i64> = buckets.iter().map(|bucket| bucket.last_at).collect();
        put_pco(&mut out, &times, &exact());
    }
    finish(out, BUCKETS)
}

/// Reads what [`seal_buckets`] wrote.
pub(super) fn open_buckets(sealed: &[u8]) -> Result<Vec<Bucket>, Damaged> {
    let (mut rest, count) = open(sealed, BUCKETS)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let index: Vec<u32> = take_pco(&mut rest, count)?;
    let counts: Vec<u32> = take_pco(&mut rest, count)?;
    let mut real = || take_pco::<f64>(&mut rest, count);
    let (min, max, mean, m2, last) = (real()?, real()?, real()?, real()?, real()?);
    let last_at: Vec<i64> = take_pco(&mut rest, count)?;
    (0..count)
        .map(|at| {
            Ok(Bucket {
                index: u8::try_from(index[at]).map_err(|_| Damaged("an index"))?,
                count: counts[at],
                min: min[at],
                max: max[at],
                mean: mean[at],
                m2: m2[at],
                last: last[at],
                last_at: last_at[at],
            })
        })
        .collect()
}

/// The samples of one burst. Bits of samples that are no number are kept.
pub(super) fn seal_samples(samples: &[f32]) -> Vec<u8> {
    let mut out = begin(samples.len(), samples.len() * 2 + 32);
    if !samples.is_empty() {
        put_pco(&mut out, samples, &guessed());
    }
    finish(out, SAMPLES)
}

/// Reads what [`seal_samples`] wrote.
pub(super) fn open_samples(sealed: &[u8]) -> Result<Vec<f32>, Damaged> {
    let (mut rest, count) = open(sealed, SAMPLES)?;
    if count == 0 { Ok(Vec::new()) } else { take_pco(&mut rest, count) }
}

/// Whether a blob is whole, whatever its kind.
pub(super) fn check(sealed: &[u8]) -> Result<(), Damaged> {
    let kind = *sealed.first().ok_or(Damaged("empty"))?;
    open(sealed, kind).map(|_| ())
}

fn readings<T: Take>(tags: &[u32], columns: &Columns, into: &mut T) -> Result<(), Damaged> {
    into.room(tags.len());
    for (at, tag) in tags.iter().enumerate() {
        let byte = columns.quality[at];
        let reading = Reading {
            tag: TagKey(*tag),
            arrival: Arrival(columns.arrivals[at]),
            time: Timestamp::from_micros(columns.times[at]),
            value: columns.values[at],
            quality: Quality::from_byte(byte & !OWN_TIME).ok_or(Damaged("a quality"))?,
        };
        into.take(reading, byte & OWN_TIME != 0);
    }
    Ok(())
}

fn put_columns(
    out: &mut Vec<u8>,
    tags: Option<&[u32]>,
    arrivals: &[u64],
    times: &[i64],
    values: &[f64],
    quality: &[u8],
) {
    put_runs(out, quality.iter().copied());
    put_runs(out, values.iter().map(|value| u8::from(value.is_nan())));
    if arrivals.is_empty() {
        return;
    }
    if let Some(tags) = tags {
        put_pco(out, tags, &exact());
    }
    put_pco(out, arrivals, &exact());
    put_pco(out, times, &exact());
    if values.iter().any(|value| value.is_nan()) {
        let mut before = values.iter().copied().find(|value| !value.is_nan()).unwrap_or(0.0);
        let filled: Vec<f64> = values
            .iter()
            .map(|value| {
                before = if value.is_nan() { before } else { *value };
                before
            })
            .collect();
        put_pco(out, &filled, &guessed());
    } else {
        put_pco(out, values, &guessed());
    }
}

fn take_columns(
    rest: &mut &[u8],
    count: usize,
    tagged: bool,
) -> Result<(Vec<u32>, Columns), Damaged> {
    let quality = take_runs(rest, count)?;
    let missing = take_runs(rest, count)?;
    if count == 0 {
        return Ok(Default::default());
    }
    let tags = if tagged { take_pco(rest, count)? } else { Vec::new() };
    let arrivals = take_pco(rest, count)?;
    let times = take_pco(rest, count)?;
    let mut values: Vec<f64> = take_pco(rest, count)?;
    for (value, _) in values.iter_mut().zip(&missing).filter(|(_, missing)| **missing != 0) {
        *value = f64::NAN;
    }
    Ok((tags, Columns { arrivals, times, values, quality }))
}

/// For numbers whose differences are small: no search for a mode.
fn exact() -> ChunkConfig {
    guessed().with_mode_spec(ModeSpec::Classic)
}

/// For values: decimals and single precision are looked for.
fn guessed() -> ChunkConfig {
    ChunkConfig::default()
        .with_compression_level(EFFORT)
        .with_delta_spec(DeltaSpec::TryConsecutive(1))
}

fn put_pco<T: Number>(out: &mut Vec<u8>, numbers: &[T], config: &ChunkConfig) {
    // One page, however many numbers there are: the reader asks for all of them at once.
    let config =
        config.clone().with_paging_spec(pco::PagingSpec::EqualPagesUpTo(numbers.len().max(1)));
    let mut chunk = FileCompressor::default()
        .chunk_compressor(numbers, &config)
        .expect("the numbers are not empty and the configuration is valid");
    let mut body = Vec::with_capacity(chunk.meta_size_hint() + chunk.page_size_hint(0));
    chunk.write_meta(&mut body).expect("memory takes all bytes");
    chunk.write_page(0, &mut body).expect("memory takes all bytes");
    put(out, body.len() as u64);
    out.extend_from_slice(&body);
}

/// What [`FileCompressor::write_header`] writes: the version of pco's format, which our own kind
/// byte stands for.
const PCO_HEADER: [u8; 2] = [4, 1];

fn take_pco<T: Number + Default>(rest: &mut &[u8], count: usize) -> Result<Vec<T>, Damaged> {
    let size = take_size(rest, rest.len())?;
    let (body, behind) = rest.split_at_checked(size).ok_or(Damaged("cut off"))?;
    *rest = behind;
    let read = || {
        let (file, _) = FileDecompressor::new(&PCO_HEADER[..])?;
        let (mut chunk, body) = file.chunk_decompressor::<T, _>(body)?;
        let mut numbers = vec![T::default(); count];
        chunk.page_decompressor(body, count)?.read(&mut numbers)?;
        Ok::<_, pco::errors::PcoError>(numbers)
    };
    read().map_err(|_| Damaged("a column"))
}

fn begin(count: usize, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend_from_slice(&[0; HEAD]);
    put(&mut out, count as u64);
    out
}

fn finish(mut out: Vec<u8>, kind: u8) -> Vec<u8> {
    let crc = checksum(kind, &out[HEAD..]);
    out[0] = kind;
    out[1..HEAD].copy_from_slice(&crc);
    out
}

/// The kind belongs to what is checked: a flipped bit must not make a tail of a segment.
fn checksum(kind: u8, rest: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&[kind]);
    crc.update(rest);
    crc.finalize().to_le_bytes()
}

/// Checks the head; returns the columns and how many readings there are.
fn open(sealed: &[u8], kind: u8) -> Result<(&[u8], usize), Damaged> {
    let (head, mut rest) = sealed.split_at_checked(HEAD).ok_or(Damaged("cut off"))?;
    if head[0] != kind || !(TAIL..=SAMPLES).contains(&kind) {
        return Err(Damaged("another kind or version"));
    }
    if head[1..] != checksum(kind, rest) {
        return Err(Damaged("its check does not fit"));
    }
    let count = take_size(&mut rest, READINGS_MAX)?;
    Ok((rest, count))
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn take(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(Damaged("cut off"))?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Damaged("a number without end"))
}

fn take_size(rest: &mut &[u8], most: usize) -> Result<usize, Damaged> {
    usize::try_from(take(rest)?)
        .ok()
        .filter(|size| *size <= most)
        .ok_or(Damaged("a length out of bounds"))
}

#[expect(clippy::cast_sign_loss, reason = "zigzag: the sign becomes the lowest bit")]
fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

#[expect(clippy::cast_possible_wrap, reason = "zigzag: the lowest bit becomes the sign")]
fn take_signed(rest: &mut &[u8]) -> Result<i64, Damaged> {
    let number = take(rest)?;
    Ok((number >> 1) as i64 ^ -((number & 1) as i64))
}

fn put_runs(out: &mut Vec<u8>, mut bytes: impl Iterator<Item = u8>) {
    let Some(mut current) = bytes.next() else { return };
    let mut length = 1_u64;
    for byte in bytes {
        if byte == current {
            length += 1;
            continue;
        }
        out.push(current);
        put(out, length);
        (current, length) = (byte, 1);
    }
    out.push(current);
    put(out, length);
}

fn take_runs(rest: &mut &[u8], count: usize) -> Result<Vec<u8>, Damaged> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let (byte, behind) = rest.split_first().ok_or(Damaged("cut off"))?;
        *rest = behind;
        let length = take_size(rest, count - bytes.len())?;
        if length == 0 {
            return Err(Damaged("an empty run"));
        }
        bytes.resize(bytes.len() + length, *byte);
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
