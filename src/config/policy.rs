//! What is done about trouble: `[[decision]]`, `[[rule]]`, `[[failure_mode]]`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::asset::AssetClass;
use crate::domain::event::Action;
use crate::domain::ids::AssetId;
use crate::domain::severity::Severity;

use super::parse::Declared;
use super::people::words;
use super::tree::Section;
use super::{Condition, DecisionRow, FailureMode, Rule, values};

const DAY: Duration = Duration::from_secs(86_400);

/// The table that holds when the file has none. The first row that matches counts; when none does,
/// the asset is watched.
///
/// | time to limit | confidence | criticality | severity | action |
/// | --- | --- | --- | --- | --- |
/// | ≤ 30 d | ≥ 0.90 | | | act |
/// | ≤ 30 d | ≥ 0.50 | | | ask |
/// | ≤ 90 d | ≥ 0.75 | | | ask |
/// | not known | ≥ 0.75 | | critical | ask |
/// | not known | ≥ 0.75 | 4 | high | ask |
/// | else | | | | watch |
///
/// Only a confident prediction of the near future acts alone; a nearer but doubtful one is shown to
/// a person, as is grave trouble of which nobody can say when it ends.
#[must_use]
pub fn default_decisions() -> Vec<DecisionRow> {
    let row = |within: Option<u32>, min_confidence, min_criticality, min_severity, action| {
        let within = within.map(|days| days * DAY);
        DecisionRow { within, min_confidence, min_criticality, min_severity, action }
    };
    vec![
        row(Some(30), 0.90, 1, Severity::Low, Action::Act),
        row(Some(30), 0.50, 1, Severity::Low, Action::Ask),
        row(Some(90), 0.75, 1, Severity::Low, Action::Ask),
        row(None, 0.75, 1, Severity::Critical, Action::Ask),
        row(None, 0.75, 4, Severity::High, Action::Ask),
        row(None, 0.0, 1, Severity::Low, Action::Watch),
    ]
}

/// `[[decision]]`
pub(super) fn decisions(root: &Section<'_>) -> Vec<DecisionRow> {
    let mut rows: Vec<DecisionRow> = Vec::new();
    for table in root.tables("decision") {
        let within = table.read("within", values::duration_from(Duration::from_secs(1)));
        let min_confidence = table.number_in("min_confidence", 0.0, 1.0).unwrap_or(0.0);
        let min_criticality = table.integer("min_criticality", 1, 5).unwrap_or(1);
        let min_severity = table.read("min_severity", values::severity).unwrap_or(Severity::Low);
        let action = table.need("action", |text| {
            [Action::Act, Action::Ask, Action::Watch]
                .into_iter()
                .find(|action| action.as_str() == text)
                .ok_or_else(|| format!("`{text}` is no action: act, ask, watch"))
        });
        table.finish();
        let Some(action) = action else { continue };
        let row = DecisionRow { within, min_confidence, min_criticality, min_severity, action };
        // Whoever writes a row expects that it can happen.
        if let Some(index) = rows.iter().position(|earlier| covers(earlier, &row)) {
            root.wrong_at(
                table.at(),
                "decision",
                format!("never counts: row {} matches all that this one does", index + 1),
            );
        }
        rows.push(row);
    }
    if rows.is_empty() { default_decisions() } else { rows }
}

/// Whether every case that matches `later` matches `earlier` too.
fn covers(earlier: &DecisionRow, later: &DecisionRow) -> bool {
    let within = match (earlier.within, later.within) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(later)) => earlier >= later,
    };
    within
        && earlier.min_confidence <= later.min_confidence
        && earlier.min_criticality <= later.min_criticality
        && earlier.min_severity <= later.min_severity
}

/// `[[rule]]`
pub(super) fn rules(root: &Section<'_>, declared: &Declared) -> Vec<Rule> {
    let mut names = BTreeSet::new();
    let mut rules = Vec::new();
    for table in root.tables("rule") {
        let name = table.need("name", values::name);
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            table.wrong("name", format!("rule `{name}` is declared twice"));
        }
        let assets = asset_list(&table, "assets", declared);
        let mut tags = Vec::new();
        for tag in table.texts("tags") {
            match values::tag_id(tag.value) {
                Ok(id) if declared.has_tag(&assets, &id) => tags.push(id.to_string()),
                Ok(id) => table.wrong_at(tag.at, "tags", format!("no asset has a tag `{id}`")),
                Err(what) => table.wrong_at(tag.at, "tags", what),
            }
        }
        let when = table.table("when").and_then(|table| condition(&table, declared));
        let adjust = table.number_in("adjust", -1.0, 1.0);
        if !table.has("adjust") {
            table.missing("adjust");
        }
        if adjust.is_some_and(|adjust| adjust.abs() < f64::MIN_POSITIVE) {
            table.wrong("adjust", "must not be zero: the rule would do nothing");
        }
        table.finish();
        if let (Some(name), Some(adjust)) = (name, adjust) {
            rules.push(Rule { name, assets, tags, when, adjust });
        }
    }
    rules
}

fn asset_list(table: &Section<'_>, key: &'static str, declared: &Declared) -> Vec<AssetId> {
    let mut assets = Vec::new();
    for asset in table.texts(key) {
        match declared.asset(asset.value) {
            Ok(asset) => assets.push(asset),
            Err(what) => table.wrong_at(asset.at, key, what),
        }
    }
    assets
}

fn condition(table: &Section<'_>, declared: &Declared) -> Option<Condition> {
    let tag = table.need("tag", |text| declared.tag(text));
    let min = table.number("min");
    let max = table.number("max");
    table.finish();
    if !table.has("min") && !table.has("max") {
        table.missing("min");
    }
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        table.wrong("max", format!("is {max}, less than `min`, which is {min}"));
    }
    Some(Condition { tag: tag?, min, max })
}

/// How long a repair takes when nobody says.
const REPAIR_DEFAULT: Duration = Duration::from_secs(4 * 3600);
/// The scheduling horizon: what takes longer can never be planned.
const REPAIR_MAX: Duration = Duration::from_secs(14 * 86_400);

/// `[[failure_mode]]`
pub(super) fn failure_modes(root: &Section<'_>, declared: &Declared) -> Vec<FailureMode> {
    let mut ids = BTreeSet::new();
    let mut modes = Vec::new();
    for table in root.tables("failure_mode") {
        let id = table.need("id", values::name);
        let class = table.read("class", |text| {
            AssetClass::ALL
                .into_iter()
                .find(|class| class.as_str() == text)
                .ok_or_else(|| format!("`{text}` is no class"))
        });
        let asset = table.read("asset", |text| declared.asset(text));
        if let (Some(class), Some(asset)) = (class, &asset)
            && declared.classes.get(asset).is_some_and(|own| *own != class)
        {
            table.wrong("class", format!("{asset} is of another class"));
        }
        if let Some(id) = &id
            && !ids.insert((id.clone(), class, asset.clone()))
        {
            table.wrong("id", format!("failure mode `{id}` is declared twice for the same assets"));
        }
        let tags = words(&table, "tags");
        if !table.has("tags") {
            table.missing("tags");
        } else if tags.is_empty() {
            table.wrong("tags", "must name a tag or a quantity");
        }
        let actions = words(&table, "actions");
        let skills = words(&table, "skills");
        let repair = table.read("repair", |text| {
            let span = values::duration_from(Duration::from_secs(1))(text)?;
            if span > REPAIR_MAX {
                return Err(format!("`{text}` is more than 14d, which nobody could plan"));
            }
            Ok(span)
        });
        table.finish();
        if let Some(id) = id {
            let repair = repair.unwrap_or(REPAIR_DEFAULT);
            modes.push(FailureMode { id, class, asset, tags, actions, skills, repair });
        }
    }
    modes
}
