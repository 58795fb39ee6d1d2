//! One daemon per data directory: a lock on `daemon.lock`, a file of its own because closing any
//! handle of a database file would drop SQLite's locks on it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Name of the lock file in the data directory.
pub const LOCK_FILE: &str = "daemon.lock";

/// The hold on a data directory; ends when dropped, or with the process.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

/// Why a data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon holds it (exit code 75).
    #[error("{} is held by another daemon, {by}", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// What the other one wrote: its process id.
        by: String,
    },
    /// It cannot be used (exit code 78).
    #[error("using {} as user id {uid}", path.display())]
    Unusable {
        /// The directory or the lock file.
        path: PathBuf,
        /// Who we are.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
}

impl DirLock {
    /// Makes the directory where needed (mode 0700) and takes it for this process.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it, [`LockError::Unusable`] when it cannot be
    /// made or written.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let path = dir.join(LOCK_FILE);
        let unusable = |path: &Path, source| LockError::Unusable {
            path: path.to_owned(),
            uid: user_id(),
            source,
        };
        make_private_dir(dir).map_err(|source| unusable(dir, source))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| unusable(&path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                let told = file.read_to_string(&mut by).is_ok() && !by.trim().is_empty();
                let by = if told { by.trim().to_owned() } else { "which did not say who".into() };
                return Err(LockError::Held { dir: dir.to_owned(), by });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(&path, source)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "process {}", std::process::id()));
        match written {
            // The lock holds without the text; a full disk must not keep the daemon from starting.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(unusable(&path, error)),
            Ok(()) | Err(_) => Ok(Self { file }),
        }
    }
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file ends the lock anyway; this only frees it at once for a waiting other.
        self.file.unlock().ok();
    }
}

/// The effective user id, for messages.
pub(super) fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a directory and its parents, readable by nobody else whatever the umask says.
pub(super) fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn f_a14_a_directory_has_one_holder() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("deep/data");
        let first = DirLock::take(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        match DirLock::take(&dir) {
            Err(LockError::Held { by, .. }) => {
                assert!(by.contains(&std::process::id().to_string()), "{by}");
            }
            other => panic!("{other:?}"),
        }
        drop(first);
        DirLock::take(&dir).unwrap();
    }

    #[test]
    fn f_a13_an_unusable_directory_is_named_with_the_user() {
        let base = tempfile::tempdir().unwrap();
        let in_the_way = base.path().join("file");
        std::fs::write(&in_the_way, "x").unwrap();
        let error = DirLock::take(&in_the_way).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("file") && text.contains(&user_id().to_string()), "{text}");
    }
}
