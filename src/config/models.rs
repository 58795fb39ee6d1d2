//! `[models]`: when models are learnt anew, when one is taken back, and who may send some.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::files::Files;
use super::tree::Section;
use super::values;

/// `[models]`
#[derive(Debug, Clone, PartialEq)]
pub struct Models {
    /// A model is learnt anew after this, when lives have ended that the active one has not seen.
    pub retrain_every: Duration,
    /// Between two trainings of an asset and kind, whatever asks for them but a person.
    pub cooldown: Duration,
    /// A model whose answers hold less often than its parent's by more than this (a share) is taken
    /// out of use.
    pub rollback_margin: f64,
    /// `[[models.issuer]]`: whose models are taken in.
    pub issuers: Vec<Issuer>,
}

/// `[[models.issuer]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name.
    pub id: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

impl Default for Models {
    fn default() -> Self {
        Self {
            retrain_every: Duration::from_secs(30 * 86_400),
            cooldown: Duration::from_secs(86_400),
            rollback_margin: 0.2,
            issuers: Vec::new(),
        }
    }
}

/// Least time between trainings.
const SPAN_MIN: Duration = Duration::from_secs(1);

pub(super) fn models(table: &Section<'_>, files: &Files) -> Models {
    let usual = Models::default();
    let read = Models {
        retrain_every: table
            .read("retrain_every", values::duration_from(SPAN_MIN))
            .unwrap_or(usual.retrain_every),
        cooldown: table.read("cooldown", values::duration_from(SPAN_MIN)).unwrap_or(usual.cooldown),
        rollback_margin: table
            .number_in("rollback_margin", 0.01, 1.0)
            .unwrap_or(usual.rollback_margin),
        issuers: issuers(table, files),
    };
    table.finish();
    read
}

fn issuers(table: &Section<'_>, files: &Files) -> Vec<Issuer> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for issuer in table.tables("issuer") {
        let id = issuer.need("id", values::name);
        let key = issuer.need("public_key_file", |name| public_key(&files.public(name)?));
        issuer.finish();
        let (Some(id), Some(public_key)) = (id, key) else { continue };
        if issuers.iter().any(|known| known.id == id) {
            issuer.wrong("id", format!("issuer `{id}` is declared twice"));
            continue;
        }
        issuers.push(Issuer { id, public_key });
    }
    issuers
}

/// What comes before the key in an Ed25519 `SubjectPublicKeyInfo` (RFC 8410 §4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 public key: PEM as `openssl pkey -pubout` writes it, or 32 bytes in base64.
fn public_key(bytes: &[u8]) -> Result<[u8; 32], String> {
    let wrong = "holds no Ed25519 public key: PEM, or 32 bytes in base64";
    let text = std::str::from_utf8(bytes).map_err(|_| wrong.to_owned())?;
    let body: String = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----") && !line.starts_with('#'))
        .collect();
    let der = STANDARD_NO_PAD.decode(body.trim_end_matches('=')).map_err(|_| wrong.to_owned())?;
    let key = der.strip_prefix(&SPKI).unwrap_or(&der);
    key.try_into().map_err(|_| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(table: &str) -> Result<Models, String> {
        let text = format!("[gateway]\nsite = \"s\"\nid = \"g\"\n{table}");
        crate::config::parse(&text, std::path::Path::new("x.toml"), &Default::default())
            .map(|config| config.models)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn every_key_is_read_and_every_mistake_named() {
        assert_eq!(read("").unwrap(), Models::default());
        let set =
            read("[models]\nretrain_every = \"7d\"\ncooldown = \"2h\"\nrollback_margin = 0.3")
                .unwrap();
        assert_eq!(set.retrain_every, Duration::from_secs(7 * 86_400));
        assert_eq!(set.cooldown, Duration::from_secs(7200));
        assert!((set.rollback_margin - 0.3).abs() < 1e-12);
        let wrong = read(
            "[models]\nretrain_every = \"soon\"\nrollback_margin = 2.0\nepochs = 3\n\
             [[models.issuer]]\nid = \"lab\"\npublic_key_file = \"no-such-file\"\n",
        )
        .unwrap_err();
        for part in ["models.retrain_every", "rollback_margin", "epochs", "public_key_file"] {
            assert!(wrong.contains(part), "{part}: {wrong}");
        }
    }

    #[test]
    fn a_public_key_is_read_from_pem_and_from_base64() {
        // RFC 8410 §10.1.
        let pem = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
                   -----END PUBLIC KEY-----\n";
        let key = public_key(pem.as_bytes()).unwrap();
        assert_eq!((key[0], key[31]), (0x19, 0xe1));
        let bare = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE\n";
        assert_eq!(public_key(bare.as_bytes()), Ok(key));
        for wrong in ["", "AAAA", "-----BEGIN PUBLIC KEY-----\n!!\n"] {
            assert!(public_key(wrong.as_bytes()).unwrap_err().contains("Ed25519"));
        }
    }
}
