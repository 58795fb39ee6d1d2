//! The tables of both files, as migrations keyed on `user_version`: migration `n` leads from schema
//! `n` to `n + 1`, in one transaction. A published migration is never changed; schema 1 is what
//! every later version must be able to start from.

/// One kind of database file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// File name in the data directory.
    pub(super) file: &'static str,
    /// Marks the file as ours in its header.
    pub(super) application_id: i32,
    /// Migrations in order.
    pub(super) migrations: &'static [&'static str],
}

impl Schema {
    /// The newest schema this version knows.
    pub(super) const fn version(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// `state.db`.
pub(super) const STATE: Schema =
    Schema { file: "state.db", application_id: 0x7774_5354, migrations: &[STATE_1, ERAS, MODELS] };

/// `ring.db`.
pub(super) const RING: Schema =
    Schema { file: "ring.db", application_id: 0x7774_5247, migrations: &[RING_1, RING_2, ERAS] };

/// `meta`: `schema`, `epoch`, `clean` (0 while open), `starts` (how often it was opened), `seen`.
///
/// `journal`: one row per event. `body` is the JSON of `domain::event::Body`. Rows grow and are not
/// used twice, because retention never takes the newest one.
const STATE_1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE boots (
    id INTEGER PRIMARY KEY, boot BLOB NOT NULL UNIQUE,
    utc INTEGER NOT NULL, mono INTEGER NOT NULL, trusted INTEGER NOT NULL
);
CREATE TABLE journal (
    row INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    cause BLOB,
    correlation BLOB NOT NULL,
    kind TEXT NOT NULL,
    asset TEXT,
    time INTEGER NOT NULL,
    trusted INTEGER NOT NULL,
    class TEXT,
    sequence INTEGER,
    boot INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE UNIQUE INDEX journal_id ON journal (id);
CREATE UNIQUE INDEX journal_sequence ON journal (class, sequence) WHERE class IS NOT NULL;
CREATE INDEX journal_chain ON journal (correlation, time);
CREATE INDEX journal_asset ON journal (asset, time);
CREATE TABLE sequences (
    class TEXT PRIMARY KEY, last INTEGER NOT NULL, reserved INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    asset TEXT,
    state TEXT NOT NULL,
    open INTEGER NOT NULL,
    time INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (kind, id)
);
CREATE INDEX records_open ON records (kind) WHERE open;
CREATE INDEX records_time ON records (kind, time, id);
CREATE TABLE lanes (lane TEXT PRIMARY KEY, below INTEGER NOT NULL, ahead TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshots (stage TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE tags (
    key INTEGER PRIMARY KEY AUTOINCREMENT, asset TEXT NOT NULL, tag TEXT NOT NULL,
    UNIQUE (asset, tag)
);
";

/// `tail`: one row per group commit; `shared`: what stayed in the tail too long, all tags in one
/// blob; `segment`: one tag's own. `a0`, `a1` are the first and last arrival, `t0`, `t1` the
/// earliest and latest time. `upto` is the last arrival of the commit that wrote the segment, so it
/// grows with `id`; `block` is `upto >> 20`: an index that begins with it grows at its end only,
/// so a commit that folds many tags dirties few of its pages.
///
/// `tagged`: up to which arrival a tag's readings are in own segments, the latest time of a
/// reading, the hour whose roll-ups are not written yet, and the first arrival in it. `minutes` and
/// `hours`: packs of 60 minutes and 24 hours of a tag, key `hour << 32 | tag`, `day << 32 | tag`.
/// `meta` has besides `first`: all readings from this arrival on are there.
const RING_1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE boots (
    id INTEGER PRIMARY KEY, boot BLOB NOT NULL UNIQUE,
    utc INTEGER NOT NULL, mono INTEGER NOT NULL, trusted INTEGER NOT NULL
);
CREATE TABLE names (tag INTEGER PRIMARY KEY, asset TEXT NOT NULL, name TEXT NOT NULL);
CREATE TABLE tail (
    id INTEGER PRIMARY KEY, boot INTEGER NOT NULL,
    a0 INTEGER NOT NULL, a1 INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE shared (
    id INTEGER PRIMARY KEY, boot INTEGER NOT NULL,
    a0 INTEGER NOT NULL, a1 INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE segment (
    id INTEGER PRIMARY KEY, boot INTEGER NOT NULL,
    upto INTEGER NOT NULL, block INTEGER NOT NULL, tag INTEGER NOT NULL,
    a0 INTEGER NOT NULL, a1 INTEGER NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL,
    n INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX segment_place ON segment (block, tag, t1, t0);
CREATE TABLE tagged (
    tag INTEGER PRIMARY KEY, folded INTEGER NOT NULL, newest INTEGER NOT NULL,
    hour INTEGER, since INTEGER NOT NULL
);
CREATE TABLE minutes (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE hours (key INTEGER PRIMARY KEY, data BLOB NOT NULL);
";

/// `burst`: one row per burst of samples of a tag; `arrival` is the reading that stands for it.
/// `meta` has besides `burst_bytes`: how many bytes `data` takes in all.
const RING_2: &str = "
CREATE TABLE burst (
    id INTEGER PRIMARY KEY, boot INTEGER NOT NULL,
    tag INTEGER NOT NULL, arrival INTEGER NOT NULL, time INTEGER NOT NULL,
    quality INTEGER NOT NULL, rate REAL, data BLOB NOT NULL
);
CREATE UNIQUE INDEX burst_place ON burst (tag, time);
";

/// Schema 3 of the state. `model`: the bytes of a model, under the id of its record; a row is there
/// exactly as long as that record is open.
const MODELS: &str = "
CREATE TABLE model (id TEXT PRIMARY KEY, data BLOB NOT NULL);
";

/// Schema 3 of the ring, 2 of the state: a row of `boots` is an *era*, a stretch of one boot under one clock; a boot may have
/// several. What was written during it names its `id`. `utc` and `mono` (microseconds, the latter
/// since the boot) are the same moment on both clocks. `trusted` says whether the clock was
/// believed; `dated`, that it was not, and that times written then are put right by adding `shift`
/// microseconds when they are read; `rolled`, that what follows from it is done: in the ring that their
/// roll-ups are made, in the state that subscribers were told. `first` (in the ring) is the arrival
/// number it begins with.
const ERAS: &str = "
CREATE TABLE eras (
    id INTEGER PRIMARY KEY, boot BLOB NOT NULL,
    utc INTEGER NOT NULL, mono INTEGER NOT NULL, trusted INTEGER NOT NULL,
    shift INTEGER NOT NULL DEFAULT 0, dated INTEGER NOT NULL DEFAULT 0,
    rolled INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0
);
INSERT INTO eras (id, boot, utc, mono, trusted, rolled)
    SELECT id, boot, utc, mono, trusted, 1 FROM boots;
DROP TABLE boots;
ALTER TABLE eras RENAME TO boots;
";
