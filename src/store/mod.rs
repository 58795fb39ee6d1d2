//! The only SQL of the project. Two files in the data directory, one writing thread each:
//!
//! * `state.db` ([`state`]): small and precious. The journal of events, what the stages promised,
//!   what they learnt, cursors. Written by the engine's thread; durable when a commit returned.
//! * `ring.db` ([`ring`]): large and expendable. Readings and roll-ups inside a fixed size, the
//!   oldest overwritten. Written by a thread of its own ([`ring_thread`]), in group commits.
//!
//! Both are SQLite in WAL mode with `synchronous=FULL`; only the writing connection of a file ever
//! checkpoints it. A file that turns out corrupt is moved to `corrupt/` and begun anew
//! ([`quarantine`]); `-wal` and `-shm` files are never deleted by us. Read-only connections
//! ([`StateReader`], [`RingReader`]) serve everybody else, in bounded pages.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use uuid::Uuid;

use crate::domain::time::Timestamp;

mod codec;
mod connection;
mod eras;
pub mod inspect;
pub mod lexicon;
pub mod lock;
mod quarantine;
pub mod ring;
mod ring_bursts;
mod ring_known;
mod ring_live;
mod ring_read;
pub mod ring_thread;
mod ring_write;
pub mod rollup;
mod salvage;
mod schema;
pub mod state;
mod state_read;

pub use eras::{DatedEra, Redated};
pub use lock::{DirLock, LockError};
pub use ring::{Lost, RingDb};
pub use ring_bursts::{PAGE_BURSTS_MAX, PAGE_SAMPLES_MAX};
pub use ring_read::RingReader;
pub use ring_thread::{RingBatch, RingHandle, RingReport, RingThread};
pub use rollup::{Resolution, Rollup};
pub use state::{Commit, Retained, StateDb};
pub use state_read::{JournalFilter, RecordFilter, StateReader};

/// Most rows one page of a reader may have, so that none takes longer than 200 ms and the log of
/// the writer can be folded back.
pub const PAGE_ROWS_MAX: usize = 10_000;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("{doing} in {}", file.display())]
    Sql {
        /// What was attempted.
        doing: &'static str,
        /// Which file.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file holds what no version of this program writes.
    #[error("{} is corrupt: {what}", file.display())]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// The file was written by a newer version; it is left as it is.
    #[error(
        "{} has schema {found}, this version knows schemas up to {known}: \
         run the newer version, or restore a backup from before the upgrade",
        file.display()
    )]
    TooNew {
        /// Which file.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema this version knows.
        known: i64,
    },
    /// The directory or a file in it cannot be used.
    #[error("using {} as user id {uid}", path.display())]
    Unusable {
        /// The directory or file.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
    /// The disk failed to make an earlier commit durable; what it holds since is unknown.
    #[error("{} is not written any more since its disk failed", file.display())]
    Distrusted {
        /// Which file.
        file: PathBuf,
    },
    /// The bundled SQLite has the bug that corrupts a database when its log is reset.
    #[error("SQLite {found} is too old, {needed} is needed")]
    OldSqlite {
        /// The version found.
        found: &'static str,
        /// The oldest that will do.
        needed: &'static str,
    },
    /// A thing that cannot be stored.
    #[error("storing {what}: {why}")]
    Unstorable {
        /// What.
        what: String,
        /// Why not.
        why: String,
    },
}

/// What a caller can do about a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The disk, or the file's share of it, is full.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The file is damaged: start again, and it is quarantined.
    Corrupt,
    /// The disk failed: end with exit code 74 and verify at the next start.
    IoFailed,
    /// Another connection holds a lock.
    Busy,
    /// Written by a newer version.
    TooNew,
    /// The directory cannot be used.
    Unusable,
    /// Anything else: a mistake of ours.
    Other,
}

impl ErrorKind {
    /// The word in messages and conditions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::ReadOnly => "read-only",
            Self::Corrupt => "corrupt",
            Self::IoFailed => "io-failed",
            Self::Busy => "busy",
            Self::TooNew => "too-new",
            Self::Unusable => "unusable",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl StoreError {
    /// What a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Sql { source, .. } => connection::kind_of(source),
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::TooNew { .. } => ErrorKind::TooNew,
            Self::Unusable { .. } => ErrorKind::Unusable,
            Self::Distrusted { .. } => ErrorKind::IoFailed,
            Self::OldSqlite { .. } | Self::Unstorable { .. } => ErrorKind::Other,
        }
    }

    /// Whether the same call may succeed later without anybody repairing the store.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.kind() {
            ErrorKind::Full | ErrorKind::ReadOnly | ErrorKind::Busy => true,
            ErrorKind::Corrupt
            | ErrorKind::IoFailed
            | ErrorKind::TooNew
            | ErrorKind::Unusable
            | ErrorKind::Other => false,
        }
    }
}

/// The boot of the machine during which a file is opened. Rows name it, so that times written
/// under a clock that was not yet set can be put right later.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BootInfo {
    /// Identity of the boot (Linux: `/proc/sys/kernel/random/boot_id`).
    pub id: Uuid,
    /// UTC now, as the gateway believes it.
    pub utc: Timestamp,
    /// Monotonic time since the boot, at the same moment.
    pub mono: Duration,
    /// Whether `utc` may be believed.
    pub trusted: bool,
}

/// What opening a file brought to light.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Opened {
    /// The file was made anew.
    pub fresh: bool,
    /// Identity of the file's numbering: a new file begins a new one.
    pub epoch: u64,
    /// Where the damaged file was moved to, if it was.
    pub quarantined: Option<PathBuf>,
    /// What of a lost or damaged file could be saved, in one sentence.
    pub salvaged: Option<String>,
    /// Whether the last stop was a clean one (true for a new file).
    pub clean_stop: bool,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; `None` when this is the last one.
    pub next: Option<String>,
}

/// SQLite's integers are signed; ours count up from 1 and never come near the end.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; what never was one of our numbers becomes 0.
pub(crate) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What a failing disk does to a file: flipped bits, a zeroed page, a lost end.
#[cfg(test)]
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) {
    if bytes.is_empty() {
        return;
    }
    match random.u8(0..4) {
        0 => {
            let page = random.usize(..bytes.len()) / 4096 * 4096;
            let end = (page + 4096).min(bytes.len());
            bytes[page..end].fill(0);
        }
        1 => bytes.truncate(random.usize(..bytes.len())),
        2 => {
            for byte in bytes.iter_mut().take(100) {
                if random.u8(0..10) == 0 {
                    *byte = random.u8(..);
                }
            }
        }
        _ => {
            for _ in 0..random.usize(1..64) {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(0..8);
            }
        }
    }
}
