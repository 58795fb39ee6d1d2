//! Files that a configuration names: tokens, passwords, certificates. A relative name is looked for
//! under `$CREDENTIALS_DIRECTORY`, then beside the configuration file; what is secret must not be
//! readable by others.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Scope, Token};

/// Largest file that a configuration may name, in bytes; bundles of certificates are the largest.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where named files are looked for.
#[derive(Debug, Clone)]
pub(super) struct Files {
    credentials: Option<PathBuf>,
    beside: PathBuf,
}

impl Files {
    pub(super) fn new(origin: &Path, env: &BTreeMap<String, String>) -> Self {
        let credentials = env.get("CREDENTIALS_DIRECTORY").filter(|dir| !dir.is_empty());
        let beside = origin.parent().unwrap_or(Path::new("")).to_owned();
        Self { credentials: credentials.map(PathBuf::from), beside }
    }

    /// The bytes of a file that everybody may read.
    pub(super) fn public(&self, name: &str) -> Result<Vec<u8>, String> {
        let (path, _) = self.find(name)?;
        read(&path)
    }

    /// Where a file is that is read later, a piece at a time.
    pub(super) fn place(&self, name: &str) -> Result<PathBuf, String> {
        let (path, _) = self.find(name)?;
        let file = std::fs::File::open(&path).and_then(|file| file.metadata());
        match file {
            Ok(facts) if facts.is_file() => Ok(path),
            Ok(_) => Err(format!("{} is no file", path.display())),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }

    /// The text of a file that nobody else may read.
    pub(super) fn secret(&self, name: &str) -> Result<String, String> {
        let (path, credential) = self.find(name)?;
        let mode =
            std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.permissions();
        // systemd lends credentials to the service's user through an ACL, whose mask shows up as
        // the group's bits: there only the others count.
        let forbidden = if credential { 0o007 } else { 0o077 };
        if mode.mode() & forbidden != 0 {
            return Err(format!(
                "{} is open to others (mode {:04o}): chmod 600",
                path.display(),
                mode.mode() & 0o7777
            ));
        }
        let bytes = read(&path)?;
        String::from_utf8(bytes).map_err(|_| format!("{} is not text", path.display()))
    }

    /// Where the file is, and whether it is a credential of systemd's.
    fn find(&self, name: &str) -> Result<(PathBuf, bool), String> {
        if name.is_empty() {
            return Err("names no file".to_owned());
        }
        let given = Path::new(name);
        let under = |dir: &Path| Some(dir.join(given)).filter(|path| path.exists());
        if let Some(dir) = &self.credentials
            && let Some(path) = under(dir)
        {
            return Ok((path.clone(), path.starts_with(dir)));
        }
        under(&self.beside)
            .map(|path| (path, false))
            .ok_or_else(|| format!("file {} is missing", self.beside.join(given).display()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: io::Error| unreadable(path, &error);
    // A pipe or a device could keep the reader waiting for ever.
    if !std::fs::metadata(path).map_err(wrong)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let file = std::fs::File::open(path).map_err(wrong)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// Reads a token file: a line is a bare token (all scopes) or `scope sha256:HEX`; empty lines and
/// lines beginning with `#` are skipped.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // The line is never repeated: it may be the token.
        let wrong =
            || format!("line {} of the file is neither a token nor `scope sha256:HEX`", index + 1);
        let token = match line.split_once(char::is_whitespace) {
            None if line.starts_with("sha256:") => return Err(wrong()),
            None => Token { sha256: Sha256::digest(line).into(), scope: Scope::Admin },
            Some((scope, hash)) => {
                let hash = hash.trim().strip_prefix("sha256:").ok_or_else(wrong)?;
                let scope = match scope {
                    "read" => Scope::Read,
                    "operate" => Scope::Operate,
                    "admin" => Scope::Admin,
                    _ => return Err(wrong()),
                };
                Token { sha256: hex32(hash).ok_or_else(wrong)?, scope }
            }
        };
        tokens.push(token);
    }
    if tokens.is_empty() { Err("the file holds no token".to_owned()) } else { Ok(tokens) }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A short hash of this machine's id, so that two gateways with one configuration differ; empty
/// when the machine has none. The id itself is confidential (machine-id(5)).
pub(super) fn machine_hash() -> String {
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() {
        return String::new();
    }
    let digest = Sha256::digest(format!("wheeltap client id {id}"));
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_lines_are_hashed_or_hashes() {
        let hash = "ab".repeat(32);
        let tokens = tokens(&format!("# both forms\nopen-sesame\nread sha256:{hash}\n")).unwrap();
        assert_eq!(tokens.len(), 2);
        assert_eq!(tokens[0].scope, Scope::Admin);
        assert_eq!(tokens[1], Token { sha256: [0xab; 32], scope: Scope::Read });
    }

    #[test]
    fn a_wrong_token_line_is_named_but_not_shown() {
        let hash = "ab".repeat(32);
        for text in ["", "# none\n", "god sha256:00", "read hunter2", "hunter2 hunter2"] {
            let error = tokens(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(tokens(&format!("everything sha256:{hash}")).is_err());
    }
}
