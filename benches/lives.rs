//! Simulated lives from new to failed: what are predictions worth?
//!
//! ```sh
//! cargo bench --bench lives                       # 200 lives of each of four faults
//! LIVES=20 SEED=3 KIND=seal LOUD=1 cargo bench --bench lives
//! ```
//!
//! Virtual time, seeded. Fails when a figure misses its floor by far.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the campaign is shared with the tests and says by panicking what is wrong"
)]

#[path = "../tests/it/lives/campaign.rs"]
mod campaign;
#[path = "../tests/it/lives/line.rs"]
mod line;

use std::process::ExitCode;

use campaign::{Kind, run};

fn main() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let kinds: Vec<Kind> = match std::env::var("KIND") {
        Ok(name) => {
            let is = |kind: &Kind| format!("{kind:?}").to_lowercase() == name;
            Kind::ALL.into_iter().filter(is).collect()
        }
        Err(_) => Kind::ALL.to_vec(),
    };
    let loud = std::env::var("LOUD").is_ok();
    let (all, _) = run(&kinds, number("LIVES", 200), number("SEED", 1), loud);
    let met = all.announced_share() >= 0.95
        && all.lead() >= 0.3
        && (0.75..=0.88).contains(&all.coverage())
        && all.wrong_rate() <= 1.0;
    println!(
        "bar: announced >= 0.95, lead >= 0.30, coverage 0.75 to 0.88, wrong <= 1 per 1,000 h ({})",
        if met { "met" } else { "MISSED" }
    );
    if all.announced_share() >= 0.8 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
