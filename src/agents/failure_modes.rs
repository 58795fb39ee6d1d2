//! Failure modes: what a departing tag points to, and what a repair then takes.
//!
//! The configuration's `[[failure_mode]]` tables are searched first, then the built-in table: the
//! common ones per class of machine, as reliability handbooks list them (ISO 14224:2016, annex B,
//! names equipment classes and failure mechanisms in this way). The built-in table is a first
//! guess, meant to be overridden.

use std::time::Duration;

use crate::config::Config;
use crate::domain::asset::{Asset, AssetClass};
use crate::domain::tag::Tag;

/// A failure mode with what a repair takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Mode {
    /// Its id, e.g. `bearing-wear`.
    pub id: String,
    /// Recommended actions in words, the first one first.
    pub actions: Vec<String>,
    /// Skills that are all needed.
    pub skills: Vec<String>,
    /// How long a repair takes.
    pub repair: Duration,
}

/// What the failure mode is when nothing tells.
pub const UNKNOWN: &str = "unknown";

/// Which way a tag departs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
    Any,
}

struct Row {
    classes: &'static [AssetClass],
    /// Parts of words looked for in the quantity and in the tag's id.
    words: &'static [&'static str],
    way: Way,
    id: &'static str,
    actions: &'static [&'static str],
    skill: &'static str,
    hours: f64,
}

/// All classes.
const ANY: &[AssetClass] = &AssetClass::ALL;
const PUMPS: &[AssetClass] = &[AssetClass::Pump];
const ELECTRIC: &[AssetClass] = &[AssetClass::Motor];
const AIR: &[AssetClass] = &[AssetClass::Fan, AssetClass::Turbine];
const GEARS: &[AssetClass] = &[AssetClass::Gearbox];
const COMPRESSORS: &[AssetClass] = &[AssetClass::Compressor];
const BELTS: &[AssetClass] = &[AssetClass::Conveyor];

const VIBRATION: &[&str] = &["vib", "velocity", "accel", "kurt", "envelope", "rms"];

/// The first row that fits counts, so the particular stands before the general.
const BUILT_IN: &[Row] = &[
    Row {
        classes: ANY,
        words: &["bearing", "kurt", "envelope"],
        way: Way::Up,
        id: "bearing-wear",
        actions: &["Replace the bearing", "Check lubrication and alignment"],
        skill: "mechanical",
        hours: 4.0,
    },
    Row {
        classes: GEARS,
        words: &["oil", "debris", "particle"],
        way: Way::Any,
        id: "lubrication-loss",
        actions: &["Change the oil and look for leaks", "Inspect the teeth for wear"],
        skill: "mechanical",
        hours: 2.0,
    },
    Row {
        classes: GEARS,
        words: VIBRATION,
        way: Way::Up,
        id: "gear-wear",
        actions: &["Inspect the gears for pitting", "Check oil level and alignment"],
        skill: "mechanical",
        hours: 6.0,
    },
    Row {
        classes: AIR,
        words: VIBRATION,
        way: Way::Up,
        id: "imbalance",
        actions: &["Clean and balance the rotor", "Check bearings and mountings"],
        skill: "mechanical",
        hours: 3.0,
    },
    Row {
        classes: ANY,
        words: VIBRATION,
        way: Way::Up,
        id: "bearing-wear",
        actions: &["Replace the bearing", "Check lubrication and alignment"],
        skill: "mechanical",
        hours: 4.0,
    },
    Row {
        classes: PUMPS,
        words: &["seal", "leak", "pressure", "flow", "head"],
        way: Way::Down,
        id: "seal-leak",
        actions: &["Replace the shaft seal", "Check the flanges for leaks"],
        skill: "mechanical",
        hours: 3.0,
    },
    Row {
        classes: PUMPS,
        words: &["pressure", "head"],
        way: Way::Up,
        id: "blockage",
        actions: &["Clean the strainer and check the valves"],
        skill: "mechanical",
        hours: 1.5,
    },
    Row {
        classes: COMPRESSORS,
        words: &["pressure", "flow"],
        way: Way::Down,
        id: "valve-leak",
        actions: &["Inspect valves and piston rings", "Look for leaks in the line"],
        skill: "mechanical",
        hours: 4.0,
    },
    Row {
        classes: ANY,
        words: &["pressure"],
        way: Way::Up,
        id: "filter-clogging",
        actions: &["Replace the filter", "Check the valves"],
        skill: "mechanical",
        hours: 1.0,
    },
    Row {
        classes: ANY,
        words: &["pressure", "flow", "level"],
        way: Way::Down,
        id: "leak",
        actions: &["Look for the leak and close it"],
        skill: "mechanical",
        hours: 2.0,
    },
    Row {
        classes: BELTS,
        words: &["speed", "slip", "tension"],
        way: Way::Any,
        id: "belt-slip",
        actions: &["Tighten or replace the belt"],
        skill: "mechanical",
        hours: 2.0,
    },
    Row {
        classes: ELECTRIC,
        words: &["temp"],
        way: Way::Up,
        id: "winding-overheating",
        actions: &["Clean the cooling ways", "Measure insulation and phase currents"],
        skill: "electrical",
        hours: 2.0,
    },
    Row {
        classes: ANY,
        words: &["current", "power", "torque"],
        way: Way::Up,
        id: "overload",
        actions: &["Find what brakes the drive", "Measure the phase currents"],
        skill: "electrical",
        hours: 2.0,
    },
    Row {
        classes: ANY,
        words: &["current", "power", "voltage"],
        way: Way::Down,
        id: "electrical-fault",
        actions: &["Check supply, fuses and connections"],
        skill: "electrical",
        hours: 2.0,
    },
    Row {
        classes: ANY,
        words: &["temp"],
        way: Way::Up,
        id: "overheating",
        actions: &["Check cooling and lubrication"],
        skill: "mechanical",
        hours: 2.0,
    },
];

/// Which failure mode `tag`'s departure points to on `asset`; `upward` says which way it departs,
/// when that is known.
#[must_use]
pub fn infer(config: &Config, asset: &Asset, tag: &Tag, upward: Option<bool>) -> Mode {
    let configured = config.failure_modes.iter().find(|mode| {
        mode.class.is_none_or(|class| class == asset.class)
            && mode.asset.as_ref().is_none_or(|id| *id == asset.id)
            && mode.tags.iter().any(|one| {
                one == tag.path.tag.as_str() || (!tag.quantity.is_empty() && *one == tag.quantity)
            })
    });
    if let Some(mode) = configured {
        return Mode {
            id: mode.id.clone(),
            actions: mode.actions.clone(),
            skills: mode.skills.clone(),
            repair: mode.repair,
        };
    }
    let quantity = tag.quantity.to_ascii_lowercase();
    let name = tag.path.tag.as_str().to_ascii_lowercase();
    let row = BUILT_IN.iter().find(|row| {
        let way = match row.way {
            Way::Any => true,
            Way::Up => upward != Some(false),
            Way::Down => upward != Some(true),
        };
        way && row.classes.contains(&asset.class)
            && row.words.iter().any(|word| quantity.contains(word) || name.contains(word))
    });
    row.map_or_else(
        || unknown(asset.class),
        |row| Mode {
            id: row.id.to_owned(),
            actions: row.actions.iter().map(|action| (*action).to_owned()).collect(),
            skills: vec![row.skill.to_owned()],
            repair: Duration::from_secs_f64(row.hours * 3600.0),
        },
    )
}

/// What to do when no table knows.
#[must_use]
pub fn unknown(class: AssetClass) -> Mode {
    let skill = match class {
        AssetClass::Motor => "electrical",
        AssetClass::Pump
        | AssetClass::Fan
        | AssetClass::Compressor
        | AssetClass::Gearbox
        | AssetClass::Conveyor
        | AssetClass::Turbine
        | AssetClass::Other => "mechanical",
    };
    Mode {
        id: UNKNOWN.to_owned(),
        actions: vec!["Inspect the machine".to_owned()],
        skills: vec![skill.to_owned()],
        repair: Duration::from_secs(2 * 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::testing::{asset, plain_config, setting, tag};
    use crate::config::FailureMode;

    fn mode(asset_id: &str, tag_id: &str, upward: Option<bool>) -> Mode {
        let setting = setting(plain_config());
        let key = setting.plant.find(asset_id, tag_id).unwrap();
        let tag = setting.plant.tag(key).unwrap();
        infer(&setting.config, &setting.plant.assets[&asset(asset_id)], tag, upward)
    }

    #[test]
    fn a_tag_and_its_direction_point_to_a_mode() {
        assert_eq!(mode("P-101", "bearing_temp", Some(true)).id, "bearing-wear");
        assert_eq!(mode("P-101", "vibration", Some(true)).id, "bearing-wear");
        assert_eq!(mode("P-101", "flow", Some(false)).id, "seal-leak");
        assert_eq!(mode("F-1", "vibration", Some(true)).id, "imbalance");
        assert_eq!(mode("P-101", "speed", None).id, UNKNOWN);
        assert!(!mode("P-101", "speed", None).actions.is_empty());
    }

    #[test]
    fn the_configuration_comes_first() {
        let mut config = plain_config();
        config.failure_modes.push(FailureMode {
            id: "cavitation".to_owned(),
            class: Some(AssetClass::Pump),
            asset: None,
            tags: vec!["vibration".to_owned()],
            actions: vec!["Raise the inlet pressure".to_owned()],
            skills: vec!["hydraulics".to_owned()],
            repair: Duration::from_secs(600),
        });
        let setting = setting(config);
        let key = setting.plant.find("P-101", tag("vibration").as_str()).unwrap();
        let pump = &setting.plant.assets[&asset("P-101")];
        let mode = infer(&setting.config, pump, setting.plant.tag(key).unwrap(), Some(true));
        assert_eq!((mode.id.as_str(), mode.repair.as_secs()), ("cavitation", 600));
    }
}
