//! `ctl models`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

use super::{CtlError, Daemon, Who, encoded, without_nulls};
use crate::cli::records::{self, Format};

/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

#[derive(Debug, clap::Subcommand)]
pub(super) enum What {
    /// Models that are kept (--all: those that are gone too); the default
    List {
        /// Only of this asset
        #[arg(long)]
        asset: Option<String>,
        /// Only in this state: candidate, active or retired
        #[arg(long)]
        state: Option<String>,
        /// Those that are gone too
        #[arg(long)]
        all: bool,
    },
    /// One model with its figures
    Show {
        /// Model
        id: String,
    },
    /// Learn a model from the machine's own history now
    Train {
        /// Machine
        asset: String,
        /// What it shall say: rul or classifier; both when left out
        #[arg(long)]
        kind: Option<String>,
        #[command(flatten)]
        who: Who,
    },
    /// Put a model to use
    Promote {
        /// Model
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Take the model in use out of use; its parent is in use again
    Rollback {
        /// Model
        id: String,
        #[command(flatten)]
        who: Who,
    },
    /// Keep a model as it is: neither replaced nor rolled back nor dropped by itself
    Pin {
        /// Model
        id: String,
        /// Let it loose again
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        who: Who,
    },
    /// Take in a model that was learnt elsewhere, as a candidate
    Import {
        /// Machine it speaks about
        #[arg(long)]
        asset: String,
        /// The model, as `prognose train` and `classify train` write it
        #[arg(long, value_name = "M")]
        file: PathBuf,
        /// Ed25519 signature over the file: 64 bytes, or these in base64
        #[arg(long, value_name = "S")]
        signature: PathBuf,
        #[command(flatten)]
        who: Who,
    },
}

pub(super) fn act(format: Format, daemon: &Daemon, what: Option<What>) -> Result<String, CtlError> {
    let give = |path: String, body: serde_json::Value| {
        let answer = daemon.ask(&path, Some(&without_nulls(body)))?;
        Ok(records::one(format, &answer))
    };
    let what = what.unwrap_or(What::List { asset: None, state: None, all: false });
    match what {
        What::List { asset, state, all } => {
            let columns = [
                "id", "asset", "kind", "version", "state", "pinned", "lives", "size", "time",
                "reason",
            ];
            let mut query = String::new();
            if !all {
                query.push_str("&open=true");
            }
            for (key, value) in [("asset", asset), ("state", state)] {
                if let Some(value) = value {
                    query.push_str(&format!("&{key}={}", encoded(&value)));
                }
            }
            Ok(records::list(format, &columns, &daemon.list("/models", &query)?))
        }
        What::Show { id } => {
            let model = daemon.ask(&format!("/models/{}", encoded(&id)), None)?;
            Ok(records::one(format, &model))
        }
        What::Train { asset, kind, who } => give(
            format!("/assets/{}/train", encoded(&asset)),
            json!({ "kind": kind, "by": who.by }),
        ),
        What::Promote { id, who } => {
            give(format!("/models/{}/promote", encoded(&id)), json!({ "by": who.by }))
        }
        What::Rollback { id, who } => {
            give(format!("/models/{}/rollback", encoded(&id)), json!({ "by": who.by }))
        }
        What::Pin { id, off, who } => {
            give(format!("/models/{}/pin", encoded(&id)), json!({ "pinned": !off, "by": who.by }))
        }
        What::Import { asset, file, signature, who } => {
            let read = |file: PathBuf| {
                std::fs::read(&file).map_err(|source| CtlError::File { file, source })
            };
            let model = read(file)?;
            let signature = raw_signature(read(signature)?);
            give(
                "/models".to_owned(),
                json!({
                    "asset": asset,
                    "model": URL_SAFE_NO_PAD.encode(model),
                    "signature": URL_SAFE_NO_PAD.encode(signature),
                    "by": who.by,
                }),
            )
        }
    }
}

/// The 64 bytes of a signature, however they are written; what is none is left to the daemon to
/// refuse.
fn raw_signature(bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() == SIGNATURE_BYTES {
        return bytes;
    }
    let text = String::from_utf8_lossy(&bytes).split_whitespace().collect::<String>();
    let text = text.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text));
    decoded.unwrap_or(bytes)
}
