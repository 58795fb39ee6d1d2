//! Models: the list, and what a person does with one.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::analytics::classify::Model as Classes;
use crate::analytics::model_file::{self, Kind};
use crate::analytics::prognosis::Stored;
use crate::analytics::training::{MODEL_BYTES_MAX, fingerprint};
use crate::config::Issuer;
use crate::domain::command::Verb;
use crate::domain::ids::AssetId;
use crate::domain::model::{ModelKind, Parcel};

use super::Api;
use super::actions::{By, give, id};
use super::json::Sent;
use super::problem::Problem;

type Answer = Result<Json<Value>, Problem>;

/// Largest body that brings a model: its bytes in base64, and what is said of it.
pub(super) const BODY_BYTES_MAX: usize = MODEL_BYTES_MAX / 3 * 4 + (16 << 10);
/// Columns of a model at most.
const COLUMNS_MAX: usize = 256;

pub(super) async fn promote(
    State(api): State<Api>,
    Path(model): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let model = id(&model)?;
    Ok(Json(give(&api, body.by, Verb::Promote { model }).await?))
}

pub(super) async fn rollback(
    State(api): State<Api>,
    Path(model): Path<String>,
    Sent(body): Sent<By>,
) -> Answer {
    let model = id(&model)?;
    Ok(Json(give(&api, body.by, Verb::Rollback { model }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinned {
    pinned: Option<bool>,
    by: Option<String>,
}

pub(super) async fn pin(
    State(api): State<Api>,
    Path(model): Path<String>,
    Sent(body): Sent<Pinned>,
) -> Answer {
    let verb = Verb::Pin { model: id(&model)?, pinned: body.pinned.unwrap_or(true) };
    Ok(Json(give(&api, body.by, verb).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    kind: Option<ModelKind>,
    by: Option<String>,
}

pub(super) async fn train(
    State(api): State<Api>,
    Path(asset): Path<String>,
    Sent(body): Sent<Wanted>,
) -> Answer {
    let asset = AssetId::new(&asset).map_err(|error| Problem::not_found(error.to_string()))?;
    Ok(Json(give(&api, body.by, Verb::Train { asset, kind: body.kind }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sending {
    asset: AssetId,
    /// The file, base64url without padding.
    model: String,
    /// Ed25519 over the file's bytes, likewise.
    signature: String,
    by: Option<String>,
}

pub(super) async fn import(
    State(api): State<Api>,
    Sent(body): Sent<Sending>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let decoded = |key: &str, text: &str| {
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| Problem::invalid(format!("`{key}` is no base64url: {error}")))
    };
    let (content, signature) =
        (decoded("model", &body.model)?, decoded("signature", &body.signature)?);
    let setting = api.setting();
    let parcel = open(body.asset, content, &signature, &setting.config.models.issuers)
        .map_err(Problem::invalid)?;
    let made = give(&api, body.by, Verb::ImportModel(parcel)).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// Checks a model from elsewhere: first who signed it, then what it is.
fn open(
    asset: AssetId,
    content: Vec<u8>,
    signature: &[u8],
    issuers: &[Issuer],
) -> Result<Parcel, String> {
    if content.len() > MODEL_BYTES_MAX {
        let size = content.len();
        return Err(format!("the model has {size} bytes, at most {MODEL_BYTES_MAX} are taken"));
    }
    if issuers.is_empty() {
        return Err("no [[models.issuer]] is configured: no model is taken in".to_owned());
    }
    let signed = |issuer: &&Issuer| {
        UnparsedPublicKey::new(&ED25519, issuer.public_key).verify(&content, signature).is_ok()
    };
    let Some(issuer) = issuers.iter().find(signed) else {
        return Err("the signature is that of no configured issuer over these bytes".to_owned());
    };
    let told = |error: model_file::ModelFileError| error.to_string();
    let (kind, features, step_seconds, lives) = match model_file::check(&content).map_err(told)? {
        Kind::Prognosis => {
            let stored: Stored = model_file::open(Kind::Prognosis, &content).map_err(told)?;
            let model = stored.model;
            if !model.is_sound() {
                return Err("the model's parts do not fit each other".to_owned());
            }
            if let Some(why) = model.silent() {
                return Err(format!("the model never answers: {why}"));
            }
            let (step, units) = (model.step(), model.units);
            (ModelKind::Rul, model.columns, step, units)
        }
        Kind::Classification => {
            let model: Classes = model_file::open(Kind::Classification, &content).map_err(told)?;
            if !model.is_sound() {
                return Err("the model's parts do not fit each other".to_owned());
            }
            let names = model.inputs.into_iter().map(|input| input.name).collect();
            (ModelKind::Classifier, names, 0.0, model.rows)
        }
    };
    if features.len() > COLUMNS_MAX {
        return Err(format!("{} columns, at most {COLUMNS_MAX}", features.len()));
    }
    Ok(Parcel {
        asset,
        kind,
        features,
        step_seconds,
        lives,
        issuer: issuer.id.clone(),
        size: content.len() as u64,
        sha256: fingerprint(&content),
        content,
    })
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::analytics::prognosis::{Learning, Unit, learn};

    fn keys(seed: u8) -> (Ed25519KeyPair, Issuer) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public_key = pair.public_key().as_ref().try_into().unwrap();
        (pair, Issuer { id: format!("lab-{seed}"), public_key })
    }

    fn model() -> Vec<u8> {
        let unit = |n: u32| Unit {
            times: (0..60 + n).map(f64::from).collect(),
            values: (0..60 + n).map(|row| f64::from(row * row)).collect(),
        };
        let units: Vec<Unit> = (0..6).map(unit).collect();
        let (model, _) = learn(&["temp".to_owned()], &units, Learning { seed: 1 });
        let (unit_column, time_column) = ("unit".to_owned(), "time".to_owned());
        model_file::seal(Kind::Prognosis, &Stored { unit_column, time_column, model }).unwrap()
    }

    #[test]
    fn a_signed_model_is_taken_and_every_other_refused_with_its_reason() {
        let asset = || AssetId::new("P-101").unwrap();
        let ((pair, issuer), (other, _)) = (keys(1), keys(2));
        let issuers = [issuer];
        let bytes = model();
        let sign = |pair: &Ed25519KeyPair, bytes: &[u8]| pair.sign(bytes).as_ref().to_vec();
        let parcel = open(asset(), bytes.clone(), &sign(&pair, &bytes), &issuers).unwrap();
        assert_eq!((parcel.kind, parcel.issuer.as_str()), (ModelKind::Rul, "lab-1"));
        assert_eq!((parcel.features, parcel.lives), (vec!["temp".to_owned()], 6));
        let refused = |bytes: Vec<u8>, signature: &[u8], issuers: &[Issuer]| {
            open(asset(), bytes, signature, issuers).unwrap_err()
        };
        let good = sign(&pair, &bytes);
        assert!(refused(bytes.clone(), &sign(&other, &bytes), &issuers).contains("signature"));
        assert!(refused(bytes.clone(), &good, &[]).contains("models.issuer"));
        assert!(refused(bytes.clone(), &good[..63], &issuers).contains("signature"));
        let mut altered = bytes.clone();
        altered[40] ^= 1;
        assert!(refused(altered.clone(), &good, &issuers).contains("signature"));
        // Signed as it is: what is wrong with the file itself is told.
        let signature = sign(&pair, &altered);
        assert!(refused(altered, &signature, &issuers).contains("damaged"));
        let mut newer = bytes.clone();
        newer[9] = 9;
        let sum = {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&newer[8..10]);
            hasher.update(&newer[14..]);
            hasher.finalize()
        };
        newer[10..14].copy_from_slice(&sum.to_le_bytes());
        let signature = sign(&pair, &newer);
        assert!(refused(newer, &signature, &issuers).contains("version 9"));
        let text = b"hello".to_vec();
        let signature = sign(&pair, &text);
        assert!(refused(text, &signature, &issuers).contains("not a model"));
        let large = vec![0; MODEL_BYTES_MAX + 1];
        assert!(refused(large, &good, &issuers).contains("bytes"));
    }
}
