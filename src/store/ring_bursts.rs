//! Bursts in the ring: a class of its own with a share of the file, the oldest overwritten. A row
//! is one burst, sealed by [`codec::seal_samples`]; it is written by the commit that makes its
//! reading durable, or an earlier one.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Page, codec, connection, int, uint};
use crate::domain::ids::{Arrival, TagKey};
use crate::domain::reading::{Burst, Quality};
use crate::domain::time::Timestamp;

/// Bursts may take one part in so many of the file.
pub(super) const BURSTS_SHARE: u64 = 4;
/// Samples that may wait for a commit; then the oldest bursts fall, their readings stay.
pub(super) const PENDING_SAMPLES_MAX: usize = 8 << 20;
/// Bursts in one page, and samples besides: a page is answered within 200 ms.
pub const PAGE_BURSTS_MAX: usize = 1000;
/// See [`PAGE_BURSTS_MAX`]. A page has one burst at least.
pub const PAGE_SAMPLES_MAX: usize = 1 << 20;

/// Bytes of all bursts, in `meta`: counting would read the whole table.
const BYTES: &str = "burst_bytes";

/// Bursts that wait for a commit, oldest first.
#[derive(Debug, Default)]
pub(super) struct PendingBursts {
    bursts: Vec<Burst>,
    samples: usize,
    /// Fallen since the start.
    pub(super) fallen: u64,
}

impl PendingBursts {
    pub(super) fn append(&mut self, bursts: Vec<Burst>) {
        self.samples += bursts.iter().map(|burst| burst.samples.len()).sum::<usize>();
        self.bursts.extend(bursts);
        while self.samples > PENDING_SAMPLES_MAX && !self.bursts.is_empty() {
            self.samples -= self.bursts.remove(0).samples.len();
            self.fallen += 1;
            if self.fallen.is_power_of_two() {
                tracing::warn!(fallen = self.fallen, "bursts are lost: the ring does not commit");
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bursts.is_empty()
    }

    pub(super) fn all(&self) -> &[Burst] {
        &self.bursts
    }

    /// All of them are durable.
    pub(super) fn written(&mut self) {
        self.bursts.clear();
        self.samples = 0;
    }
}

/// Writes bursts, then deletes the oldest while all together take more than `most` bytes. One of a
/// tag and time that is there already is left out.
pub(super) fn write(
    step: &Transaction<'_>,
    boot: i64,
    bursts: &[Burst],
    most: u64,
) -> rusqlite::Result<()> {
    if bursts.is_empty() {
        return Ok(());
    }
    let mut bytes = connection::meta(step, BYTES)?.unwrap_or(0);
    for burst in bursts {
        let data = codec::seal_samples(&burst.samples);
        let length = int(data.len() as u64);
        let written = step
            .prepare_cached(
                "INSERT OR IGNORE INTO burst (boot, tag, arrival, time, quality, rate, data)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                boot,
                burst.tag.0,
                int(burst.arrival.0),
                burst.time.micros(),
                burst.quality.to_byte(),
                burst.rate_hz,
                data,
            ])?;
        if written > 0 {
            bytes += length;
        }
    }
    while bytes > int(most) {
        let oldest: Option<(i64, i64)> = step
            .prepare_cached("SELECT id, length(data) FROM burst ORDER BY id LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((id, length)) = oldest else { break };
        step.prepare_cached("DELETE FROM burst WHERE id = ?1")?.execute([id])?;
        bytes -= length;
    }
    connection::set_meta(step, BYTES, bytes)
}

/// One tag's bursts in order of time, from `from` on and before `to`. `cursor` is [`Page::next`] of
/// the page before.
pub(super) fn range(
    conn: &Connection,
    tag: TagKey,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
    cursor: Option<&str>,
) -> rusqlite::Result<Page<Burst>> {
    let limit = limit.clamp(1, PAGE_BURSTS_MAX);
    // A tag has one burst of a time: the time of the last one is the place. A cursor that is none
    // of ours begins at the first page.
    let behind = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(i64::MIN);
    let from = from.micros().max(behind.saturating_add(1));
    let mut select = conn.prepare_cached(
        "SELECT arrival, time, quality, rate, data, id FROM burst
         WHERE tag = ?1 AND time >= ?2 AND time < ?3 ORDER BY time LIMIT ?4",
    )?;
    let mut rows = select.query(params![tag.0, from, to.micros(), int(limit as u64 + 1)])?;
    let (mut items, mut samples, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if items.len() >= limit || samples >= PAGE_SAMPLES_MAX {
            return Ok(Page { items, next: last.map(|time: i64| time.to_string()) });
        }
        let time: i64 = row.get(1)?;
        last = Some(time);
        let data = row.get_ref(4)?.as_blob().map_err(|_| connection::bad_value("a blob"))?;
        let opened = codec::open_samples(data);
        let quality = Quality::from_byte(row.get(2)?);
        let (Ok(found), Some(quality)) = (opened, quality) else {
            let row: i64 = row.get(5)?;
            tracing::error!(row, "a damaged burst is left out");
            continue;
        };
        samples += found.len();
        items.push(Burst {
            tag,
            arrival: Arrival(uint(row.get(0)?)),
            time: Timestamp::from_micros(time),
            rate_hz: row.get(3)?,
            quality,
            samples: found.into(),
        });
    }
    Ok(Page { items, next: None })
}
