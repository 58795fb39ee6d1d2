//! Heat in a bearing: a small ring that answers in half a minute, in a housing that takes a quarter
//! of an hour.

use super::noise::follow;

/// What the parts are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeatPath {
    /// Kelvin per watt from the ring to the housing.
    pub(crate) ring_k_per_w: f64,
    /// Time constant of the ring in seconds.
    pub(crate) ring_s: f64,
    /// Kelvin per watt from the housing to the surroundings.
    pub(crate) housing_k_per_w: f64,
    /// Time constant of the housing in seconds.
    pub(crate) housing_s: f64,
}

/// Two bodies in series. The ring's heat content is small beside the housing's, so the housing sees
/// the heat as if it passed straight through.
#[derive(Debug, Clone)]
pub(crate) struct Bearing {
    path: HeatPath,
    /// Above the surroundings, in kelvin.
    housing: f64,
    /// Above the housing, in kelvin.
    ring: f64,
}

impl Bearing {
    /// A bearing that has long been running at `watts`.
    pub(crate) fn settled(path: HeatPath, watts: f64) -> Self {
        Self { path, housing: path.housing_k_per_w * watts, ring: path.ring_k_per_w * watts }
    }

    /// Moves on by `dt` seconds under `watts` of friction.
    pub(crate) fn step(&mut self, dt: f64, watts: f64) {
        let path = &self.path;
        self.housing = follow(self.housing, path.housing_k_per_w * watts, path.housing_s, dt);
        self.ring = follow(self.ring, path.ring_k_per_w * watts, path.ring_s, dt);
    }

    /// Temperature of the ring in °C.
    pub(crate) fn celsius(&self, ambient: f64) -> f64 {
        ambient + self.housing + self.ring
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_settles_where_heat_in_equals_heat_out() {
        let path =
            HeatPath { ring_k_per_w: 0.06, ring_s: 25.0, housing_k_per_w: 0.12, housing_s: 720.0 };
        let mut bearing = Bearing::settled(path, 100.0);
        let before = bearing.celsius(20.0);
        let mut last = before;
        for _ in 0..10_000 {
            bearing.step(1.0, 200.0);
            let now = bearing.celsius(20.0);
            assert!(now >= last, "a warming bearing never cools");
            last = now;
        }
        assert!((before - 38.0).abs() < 1e-9);
        assert!((last - 56.0).abs() < 0.01, "{last}");
    }
}
