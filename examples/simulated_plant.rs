//! The simulated plant as a library: what it shows over three minutes of its demo, then a Modbus
//! TCP server until Ctrl-C.
//!
//! ```sh
//! cargo run --example simulated_plant             # a free port, printed below the table
//! cargo run --example simulated_plant -- --table  # the table alone
//! ```

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scenario = Scenario::named("demo").ok_or("no such scenario")?;
    let mut plant = Plant::new(scenario.clone(), 1);
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
    if std::env::args().any(|argument| argument == "--table") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::bind("127.0.0.1:0".parse()?, Plant::new(scenario, 1), 1.0).await?;
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
