//! How a database file is opened, set up, checked and kept tidy. The only place that opens one.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustix::fs::{Access, access};

use super::schema::Schema;
use super::{BootInfo, ErrorKind, Opened, StoreError, eras, lock, quarantine};

/// Oldest SQLite without the bug in resetting the log (sqlite.org/wal.html, "WAL-reset bug").
const SQLITE_NEEDED: i32 = 3_051_003;
/// The same for people.
const SQLITE_NEEDED_TEXT: &str = "3.51.3";
/// Page size in bytes; that of ext4 and of flash pages.
pub(super) const PAGE_BYTES: u64 = 4096;
/// How long a connection waits for another one's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pages in the log from which on the writer folds them back.
const CHECKPOINT_PAGES: i64 = 1000;
/// Size of the log in bytes from which on the writer cuts it off.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files up to this size in bytes are checked at every start that follows an unclean end.
const CHECK_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Fewest pages a file is allowed, whatever the configuration says: empty tables take some.
const PAGES_MIN: u64 = 64;

/// How one file is to be opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan<'a> {
    /// Its tables.
    pub(super) schema: &'a Schema,
    /// The data directory.
    pub(super) dir: &'a Path,
    /// Bound on the file and its log, in bytes.
    pub(super) max_bytes: u64,
    /// Check it at every start, whatever its size and however it was left.
    pub(super) always_check: bool,
    /// Page cache in KiB.
    pub(super) cache_kib: u32,
}

/// A writing connection with what belongs to it.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) file: PathBuf,
    /// Row of this boot in `boots`.
    pub(super) boot: i64,
    /// Bound on the file in pages.
    pub(super) pages_max: u64,
    log_bytes_max: u64,
    checkpoint_pages: i64,
    /// Set when the disk failed: nothing is written any more (failures A06).
    distrusted: bool,
}

impl Plan<'_> {
    fn path(&self) -> PathBuf {
        self.dir.join(self.schema.file)
    }

    /// Opens the file for writing. A corrupt one is moved away and begun anew.
    pub(super) fn open(&self, boot: &BootInfo) -> Result<(Writer, Opened), StoreError> {
        check_version()?;
        let path = self.path();
        lock::make_private_dir(self.dir).map_err(|source| unusable(self.dir, source))?;
        let suspect = quarantine::suspect_mark(&path).exists();
        let attempt = if suspect {
            Err(corrupt(&path, "damage was met while it was in use"))
        } else {
            self.try_open(boot)
        };
        match attempt {
            Ok(opened) => Ok(opened),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let place = quarantine::move_away(self.dir, self.schema.file, boot.utc)
                    .map_err(|source| unusable(self.dir, source))?;
                tracing::error!(
                    file = %path.display(),
                    place = %place.display(),
                    error = &error as &dyn std::error::Error,
                    "a corrupt database was moved aside"
                );
                let (writer, mut opened) = self.try_open(boot)?;
                opened.quarantined = Some(place);
                opened.clean_stop = false;
                Ok((writer, opened))
            }
            Err(error) => Err(error),
        }
    }

    fn try_open(&self, boot: &BootInfo) -> Result<(Writer, Opened), StoreError> {
        let path = self.path();
        // The log and its index inherit the mode of the database file.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unusable(&path, error)),
        }
        let conn = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .map_err(|source| sql("opening", &path, source))?;
        let broken = |doing: &'static str| {
            let path = path.clone();
            // What SQLite calls an error in our own statements is damage to the tables here.
            move |source: rusqlite::Error| match kind_of(&source) {
                ErrorKind::Other => corrupt(&path, format!("{doing}: {source}")),
                // A header with an impossible format version also makes a file read-only.
                ErrorKind::ReadOnly if access(&path, Access::WRITE_OK).is_ok() => {
                    corrupt(&path, format!("{doing}: {source}"))
                }
                ErrorKind::Full
                | ErrorKind::ReadOnly
                | ErrorKind::Corrupt
                | ErrorKind::IoFailed
                | ErrorKind::Busy
                | ErrorKind::TooNew
                | ErrorKind::Unusable => sql(doing, &path, source),
            }
        };
        let fresh = self.check_schema(&conn, &path)?;
        self.set_up(&conn, fresh).map_err(broken("setting up"))?;
        migrate(&conn, self.schema).map_err(broken("migrating"))?;
        let clean = meta(&conn, "clean").map_err(broken("reading the last stop"))?;
        let clean_stop = fresh || clean == Some(1);
        let size = fs::metadata(&path).map_or(0, |found| found.len());
        if !fresh && (self.always_check || (!clean_stop && size <= CHECK_BYTES_MAX)) {
            quick_check(&conn, &path)?;
        }
        let boot_row = begin(&conn, boot).map_err(broken("beginning"))?;
        let epoch = meta(&conn, "epoch")
            .map_err(broken("reading the epoch"))?
            .ok_or_else(|| corrupt(&path, "it has no epoch"))?;
        let opened = Opened {
            fresh,
            epoch: super::uint(epoch),
            quarantined: None,
            salvaged: None,
            clean_stop,
        };
        let log_share = (self.max_bytes / 8).min(LOG_BYTES_MAX);
        let writer = Writer {
            conn,
            file: path,
            boot: boot_row,
            pages_max: self.pages_max(),
            log_bytes_max: log_share.max(64 * PAGE_BYTES),
            checkpoint_pages: CHECKPOINT_PAGES.min(super::int(log_share / PAGE_BYTES / 2)).max(16),
            distrusted: false,
        };
        Ok((writer, opened))
    }

    /// Pages the file may have: its share less the log's.
    fn pages_max(&self) -> u64 {
        let log_share = (self.max_bytes / 8).min(LOG_BYTES_MAX);
        (self.max_bytes.saturating_sub(log_share) / PAGE_BYTES).max(PAGES_MIN)
    }

    /// Refuses a newer file before anything of it is touched. Returns whether the file is empty.
    fn check_schema(&self, conn: &Connection, path: &Path) -> Result<bool, StoreError> {
        let read = |doing, source: rusqlite::Error| match kind_of(&source) {
            ErrorKind::Other => corrupt(path, format!("{doing}: {source}")),
            ErrorKind::Full
            | ErrorKind::ReadOnly
            | ErrorKind::Corrupt
            | ErrorKind::IoFailed
            | ErrorKind::Busy
            | ErrorKind::TooNew
            | ErrorKind::Unusable => sql(doing, path, source),
        };
        let found: i64 = conn
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|source| read("reading the schema version", source))?;
        let tables: i64 = conn
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|source| read("reading the schema", source))?;
        if found == 0 && tables == 0 {
            return Ok(true);
        }
        let known = self.schema.version();
        if (1..=known).contains(&found) {
            return Ok(false);
        }
        // The version stands twice, so that one flipped bit does not look like an upgrade.
        let told = meta(conn, "schema").ok().flatten();
        if found > known && told == Some(found) {
            return Err(StoreError::TooNew { file: path.to_owned(), found, known });
        }
        Err(corrupt(path, format!("schema version {found} in its header, {told:?} in its table")))
    }

    fn set_up(&self, conn: &Connection, fresh: bool) -> rusqlite::Result<()> {
        if fresh {
            // Both must come before the first table.
            conn.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
            conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" && mode != "memory" {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY),
                Some(format!("journal mode stays {mode}")),
            ));
        }
        write_pragmas(conn, self.cache_kib)?;
        conn.query_row(&format!("PRAGMA max_page_count = {}", self.pages_max()), [], |_| Ok(()))
    }
}

fn write_pragmas(conn: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{cache_kib};
         PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
    ))?;
    // These two answer with a row, which `execute_batch` would take for a mistake.
    conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    conn.query_row("PRAGMA journal_size_limit = 4194304", [], |_| Ok(()))?;
    conn.query_row("PRAGMA mmap_size = 0", [], |_| Ok(())).optional()?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the one place that opens databases")]
fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // A connection that only looked (or met a newer file) must leave the file as it is.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.set_prepared_statement_cache_capacity(48);
    Ok(conn)
}

/// A connection that cannot write, for readers.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let open = || {
        let conn = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.execute_batch(
            "PRAGMA query_only = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;
             PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1000;",
        )?;
        conn.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        conn.query_row("PRAGMA mmap_size = 0", [], |_| Ok(())).optional()?;
        Ok(conn)
    };
    open().map_err(|source| sql("opening for reading", path, source))
}

/// A database in memory with all tables, for tests and the simulation.
pub(super) fn in_memory(schema: &Schema) -> Result<Writer, StoreError> {
    check_version()?;
    let file = PathBuf::from(format!(":memory: {}", schema.file));
    let boot = BootInfo {
        id: uuid::Uuid::from_u128(1),
        utc: crate::domain::time::Timestamp::default(),
        mono: Duration::ZERO,
        trusted: true,
    };
    let open = || {
        let conn = Connection::open_in_memory()?;
        conn.set_prepared_statement_cache_capacity(48);
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        write_pragmas(&conn, 2000)?;
        migrate(&conn, schema)?;
        let boot = begin(&conn, &boot)?;
        Ok((conn, boot))
    };
    let (conn, boot) = open().map_err(|source| sql("opening", &file, source))?;
    Ok(Writer {
        conn,
        file,
        boot,
        pages_max: u64::from(u32::MAX),
        log_bytes_max: LOG_BYTES_MAX,
        checkpoint_pages: CHECKPOINT_PAGES,
        distrusted: false,
    })
}

impl Writer {
    /// Bounds the file from now on; SQLite never bounds it below what it holds.
    pub(super) fn set_max_bytes(&mut self, max_bytes: u64) -> Result<(), StoreError> {
        let pages = (max_bytes / PAGE_BYTES).max(1);
        self.pages_max = pages;
        self.conn
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .map_err(|source| sql("bounding", &self.file, source))
    }

    /// Refuses to go on with a file whose disk has failed.
    pub(super) fn trusted(&self) -> Result<(), StoreError> {
        if self.distrusted {
            return Err(StoreError::Distrusted { file: self.file.clone() });
        }
        Ok(())
    }

    /// Wraps what SQLite said, and remembers when it said that the disk failed: the kernel may
    /// have dropped the dirty pages, so a later success would prove nothing.
    pub(super) fn fault(&mut self, doing: &'static str, source: rusqlite::Error) -> StoreError {
        let error = sql(doing, &self.file, source);
        self.note(&error);
        error
    }

    fn note(&mut self, error: &StoreError) {
        match error.kind() {
            ErrorKind::IoFailed => self.distrusted = true,
            // The next start must not take the file as it is, however large it is.
            ErrorKind::Corrupt => quarantine::mark_suspect(&self.file),
            ErrorKind::Full
            | ErrorKind::ReadOnly
            | ErrorKind::Busy
            | ErrorKind::TooNew
            | ErrorKind::Unusable
            | ErrorKind::Other => {}
        }
    }

    /// Folds the log back into the file when it has grown. A commit that came before is durable
    /// whatever happens here.
    pub(super) fn tidy(&mut self) {
        if let Err(source) = self.try_tidy() {
            let error = sql("folding back the log", &self.file, source);
            if error.kind() != ErrorKind::Busy {
                tracing::warn!(file = %self.file.display(), %error, "log not folded back");
            }
            self.note(&error);
        }
    }

    fn try_tidy(&self) -> rusqlite::Result<()> {
        let (mut log, mut done) = (0_i64, 0_i64);
        self.conn.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| {
            (log, done) = (row.get(1)?, row.get(2)?);
            Ok(())
        })?;
        if log - done < self.checkpoint_pages {
            return Ok(());
        }
        let long = super::uint(log) * PAGE_BYTES > self.log_bytes_max;
        let how = if long { "TRUNCATE" } else { "PASSIVE" };
        self.conn.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))?;
        let (pages, _) = self.pages()?;
        if pages > self.pages_max {
            // The share was lowered: give pages back in slices, each well under 50 ms.
            let mut slice = self.conn.prepare("PRAGMA incremental_vacuum(512)")?;
            let mut rows = slice.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// Pages of the file, and how many of them are in use.
    pub(super) fn pages(&self) -> rusqlite::Result<(u64, u64)> {
        let get = |pragma| self.conn.prepare_cached(pragma)?.query_row([], |row| row.get(0));
        let (all, free): (i64, i64) = (get("PRAGMA page_count")?, get("PRAGMA freelist_count")?);
        Ok((super::uint(all), super::uint(all - free)))
    }

    /// Writes down that all is in order, and folds the log back whole.
    pub(super) fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.trusted()?;
        set_meta(&self.conn, "clean", 1)
            .and_then(|()| self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
            .map_err(|source| self.fault("writing down a clean stop", source))
    }
}

/// Reads one number of `meta`.
pub(super) fn meta(conn: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Writes one number of `meta`.
pub(super) fn set_meta(conn: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![key, value])?;
    Ok(())
}

/// Brings the tables to the newest schema in one transaction.
fn migrate(conn: &Connection, schema: &Schema) -> rusqlite::Result<()> {
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found == schema.version() {
        return Ok(());
    }
    let step = conn.unchecked_transaction()?;
    for migration in schema.migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
        step.execute_batch(migration)?;
    }
    if found == 0 {
        set_meta(&step, "epoch", super::int(fastrand::u64(1..1 << 63)))?;
        set_meta(&step, "clean", 1)?;
    }
    set_meta(&step, "schema", schema.version())?;
    step.pragma_update(None, "application_id", schema.application_id)?;
    step.pragma_update(None, "user_version", schema.version())?;
    step.commit()
}

/// Marks the file as in use and writes down the boot. Returns the boot's row.
fn begin(conn: &Connection, boot: &BootInfo) -> rusqlite::Result<i64> {
    let step = conn.unchecked_transaction()?;
    set_meta(&step, "clean", 0)?;
    let starts = meta(&step, "starts")?.unwrap_or(0);
    set_meta(&step, "starts", starts + 1)?;
    let row = eras::enter(&step, boot)?;
    step.commit()?;
    Ok(row)
}

fn quick_check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    match conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0)) {
        Ok(answer) if answer == "ok" => Ok(()),
        Ok(answer) => Err(corrupt(path, answer)),
        Err(source) if kind_of(&source) == ErrorKind::Other => {
            Err(corrupt(path, source.to_string()))
        }
        Err(source) => Err(sql("checking", path, source)),
    }
}

fn check_version() -> Result<(), StoreError> {
    if rusqlite::version_number() < SQLITE_NEEDED {
        return Err(StoreError::OldSqlite {
            found: rusqlite::version(),
            needed: SQLITE_NEEDED_TEXT,
        });
    }
    Ok(())
}

/// Wraps what SQLite said.
pub(super) fn sql(doing: &'static str, file: &Path, source: rusqlite::Error) -> StoreError {
    StoreError::Sql { doing, file: file.to_owned(), source }
}

/// The file is damaged.
pub(super) fn corrupt(file: &Path, what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { file: file.to_owned(), what: what.into() }
}

fn unusable(path: &Path, source: io::Error) -> StoreError {
    let code = if source.kind() == io::ErrorKind::StorageFull {
        rusqlite::ffi::SQLITE_FULL
    } else if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
        rusqlite::ffi::SQLITE_READONLY
    } else {
        return StoreError::Unusable { path: path.to_owned(), uid: lock::user_id(), source };
    };
    sql("making", path, ffi_error(code, &source))
}

fn ffi_error(code: i32, source: &io::Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(source.to_string()))
}

/// A value read from the file that we never wrote.
pub(super) fn bad_value(what: impl Into<String>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Blob,
        Box::<dyn std::error::Error + Send + Sync>::from(what.into()),
    )
}

/// What a caller can do about what SQLite said.
#[expect(clippy::wildcard_enum_match_arm, reason = "SQLite's codes are an open set")]
pub(super) fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode;
    match error {
        rusqlite::Error::SqliteFailure(code, _) => match code.code {
            ErrorCode::DiskFull => ErrorKind::Full,
            ErrorCode::ReadOnly => ErrorKind::ReadOnly,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => ErrorKind::Corrupt,
            // Reading past the end of a file that was cut off is damage, not a failing disk.
            ErrorCode::SystemIoFailure
                if code.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ =>
            {
                ErrorKind::Corrupt
            }
            ErrorCode::SystemIoFailure => ErrorKind::IoFailed,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => ErrorKind::Busy,
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied => ErrorKind::Unusable,
            _ => ErrorKind::Other,
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}
