//! Where damaged files go: `corrupt/<utc>-<n>/`, database, log and index together. Nothing is
//! deleted there but what is older than the newest [`KEPT`].

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::lock::make_private_dir;
use crate::domain::time::Timestamp;

/// Directory under the data directory.
pub(super) const DIR: &str = "corrupt";
/// How many damaged files are kept to be looked at.
const KEPT: usize = 2;

/// The mark beside a file that was found damaged while in use.
pub(super) fn suspect_mark(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".suspect");
    PathBuf::from(name)
}

/// Leaves the mark, so that the next start moves the file away whatever its size.
pub(super) fn mark_suspect(file: &Path) {
    if !file.exists() {
        return;
    }
    if let Err(error) = fs::write(suspect_mark(file), "damage was met while it was in use\n") {
        tracing::warn!(file = %file.display(), %error, "damage could not be marked");
    }
}

/// Moves a database with its log and index away, and returns where it went.
///
/// # Errors
/// When the directory cannot be made or a file cannot be moved.
pub(super) fn move_away(dir: &Path, file: &str, utc: Timestamp) -> io::Result<PathBuf> {
    let base = dir.join(DIR);
    make_private_dir(&base)?;
    // The number orders them even when the clock was wrong.
    let number = numbered(&base)?.last().map_or(1, |(number, _)| number + 1);
    let stamp = utc.calendar().strftime("%Y%m%dT%H%M%SZ");
    let place = base.join(format!("{stamp}-{number}"));
    make_private_dir(&place)?;
    // Marked first and moved last, so that a move cut short is begun again and a log never meets
    // a file it does not belong to.
    mark_suspect(&dir.join(file));
    for suffix in ["-wal", "-shm", ""] {
        let name = format!("{file}{suffix}");
        match fs::rename(dir.join(&name), place.join(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    match fs::remove_file(suspect_mark(&dir.join(file))) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    for made in [&place, &base, &dir.to_owned()] {
        File::open(made)?.sync_all()?;
    }
    let all = numbered(&base)?;
    for (_, old) in all.iter().rev().skip(KEPT) {
        fs::remove_dir_all(old)?;
    }
    Ok(place)
}

/// The places under `base` in order of their numbers.
fn numbered(base: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.rsplit_once('-'))
            .and_then(|(_, number)| number.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
