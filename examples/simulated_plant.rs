//! The simulated plant as a library: what it shows over three minutes of its demo, a recording of
//! one machine, or a Modbus TCP server until Ctrl-C.
//!
//! ```sh
//! cargo run --example simulated_plant                       # a table, then a server on a free port
//! cargo run --example simulated_plant -- demo 1 P-101 180   # scenario, seed, asset, seconds: CSV
//! ```
//!
//! The recording has four rows a second and is what `wheeltap detect --input - --time-column time`
//! reads.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use wheeltap::sim::{Plant, REGISTERS, Scenario, Server};

/// What the story is told by.
const TAGS: [&str; 8] = [
    "P-101/vibration",
    "P-101/kurtosis",
    "P-101/bearing_temp",
    "P-102/flow",
    "P-102/discharge_pressure",
    "F-201/vibration",
    "F-201/bearing_temp",
    "G-301/vibration",
];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            table(Plant::new(scenario("demo")?, 1))?;
            serve(Plant::new(scenario("demo")?, 1))
        }
        [name, seed, asset, seconds] => {
            record(Plant::new(scenario(name)?, seed.parse()?), asset, seconds.parse()?)
        }
        _ => Err("either nothing, or SCENARIO SEED ASSET SECONDS".into()),
    }
}

fn scenario(name: &str) -> Result<Scenario, Failure> {
    Scenario::named(name).ok_or_else(|| format!("there is no scenario {name}").into())
}

fn table(mut plant: Plant) -> Result<(), Failure> {
    print!("{:>8}", "seconds");
    TAGS.iter().for_each(|tag| print!("{tag:>26}"));
    println!();
    for _ in 0..=18 {
        print!("{:>8}", plant.elapsed().as_secs());
        for tag in TAGS {
            print!("{:>26.3}", plant.value(tag).ok_or("no such tag")?);
        }
        println!();
        plant.step(Duration::from_secs(10));
    }
    Ok(())
}

fn record(mut plant: Plant, asset: &str, seconds: u64) -> Result<(), Failure> {
    let tags: Vec<_> = REGISTERS
        .iter()
        .filter(|register| register.asset == asset && !register.signal.is_state())
        .collect();
    if tags.is_empty() {
        return Err(format!("there is no machine {asset}").into());
    }
    let names: Vec<_> = tags.iter().map(|register| register.signal.tag()).collect();
    println!("time,{}", names.join(","));
    for row in 0..seconds * 4 {
        let cell = |path: String| plant.value(&path).map_or(String::new(), |v| format!("{v:.4}"));
        let cells: Vec<_> = tags.iter().map(|register| cell(register.path())).collect();
        println!("{},{}", row as f64 / 4.0, cells.join(","));
        plant.step(Duration::from_millis(250));
    }
    Ok(())
}

fn serve(plant: Plant) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse()?, plant, 1.0).await?;
        println!("\n{} registers at tcp://{}", REGISTERS.len(), server.local_addr());
        for register in REGISTERS {
            println!(
                "{:28} unit {} {:12} {} {}",
                register.path(),
                register.unit,
                register.point(),
                register.encoding.kind(),
                register.encoding.order().unwrap_or_default(),
            );
        }
        server.run(CancellationToken::new()).await?;
        Ok(())
    })
}
