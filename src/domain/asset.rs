//! Assets: the items of equipment that are maintained.

use serde::{Deserialize, Serialize};

use super::ids::AssetId;
use super::severity::Criticality;

/// Kind of machine; decides which failure modes and skills are assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AssetClass {
    /// Centrifugal or positive-displacement pump.
    Pump,
    /// Electric motor.
    Motor,
    /// Fan or blower.
    Fan,
    /// Compressor.
    Compressor,
    /// Gearbox.
    Gearbox,
    /// Conveyor.
    Conveyor,
    /// Turbine.
    Turbine,
    /// Anything else.
    Other,
}

impl AssetClass {
    /// All classes, in the order the configuration reference lists them.
    pub const ALL: [Self; 8] = [
        Self::Pump,
        Self::Motor,
        Self::Fan,
        Self::Compressor,
        Self::Gearbox,
        Self::Conveyor,
        Self::Turbine,
        Self::Other,
    ];

    /// The word used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pump => "pump",
            Self::Motor => "motor",
            Self::Fan => "fan",
            Self::Compressor => "compressor",
            Self::Gearbox => "gearbox",
            Self::Conveyor => "conveyor",
            Self::Turbine => "turbine",
            Self::Other => "other",
        }
    }
}

/// Geometry of a rolling-element bearing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bearing {
    /// Number of rolling elements.
    pub rolling_elements: u32,
    /// Diameter of a rolling element in mm.
    pub element_mm: f64,
    /// Pitch diameter in mm.
    pub pitch_mm: f64,
    /// Contact angle in degrees.
    pub contact_deg: f64,
}

/// One maintained item of equipment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asset {
    /// Its id in topics and messages.
    pub id: AssetId,
    /// What people call it; the id when nothing was given.
    pub name: String,
    /// Kind of machine.
    pub class: AssetClass,
    /// What its failure would mean.
    pub criticality: Criticality,
    /// Bearing geometry, when known.
    pub bearing: Option<Bearing>,
    /// Rated speed in revolutions per minute.
    pub rated_rpm: Option<f64>,
    /// Machine group of ISO 20816-3 (1 or 2).
    pub iso20816_group: Option<u8>,
}
