//! Lives from new to failed through detection, validation, orchestration and prediction, with wear
//! laws that nothing of these knows. The long form is `cargo bench --bench lives`.

#[allow(dead_code, reason = "the bench runs all kinds, the test a draw")]
pub(crate) mod campaign;
#[allow(dead_code, reason = "the bench prints more of a life")]
pub(crate) mod line;

use campaign::{Kind, run};

#[test]
fn failures_are_announced_early_and_the_bands_hold() {
    let (all, _) = run(&[Kind::Bearing, Kind::Winding, Kind::Gear], 2, 5, false);
    assert!(all.failed >= 5, "{all:?}");
    assert!(all.announced_share() >= 0.85, "{all:?}");
    assert!(all.lead() >= 0.3, "{all:?}");
    assert!(all.coverage() >= 0.6, "{all:?}");
    assert!(all.wrong <= 1, "{all:?}");
}
