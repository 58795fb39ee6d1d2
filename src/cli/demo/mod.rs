//! `wheeltap demo`: everything in one process. A simulated plant behind a real Modbus TCP server, an
//! MQTT broker, and the daemon between them; the story is told by a subscriber on the broker, who
//! sees nothing that another subscriber would not see.

#[cfg(feature = "demo")]
mod daemon;
#[cfg(feature = "demo")]
mod narrator;
#[cfg(feature = "demo")]
mod stage;
#[cfg(feature = "demo")]
mod story;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::Failure;

/// Show it all in one process, with nothing to install.
///
/// A simulated plant behind a Modbus TCP server, an MQTT broker and the daemon. Half a minute is
/// learnt; then a bearing of P-101 wears, a sensor of F-201 sticks and a seal of P-102 leaks, while
/// G-301 stays healthy. Each step is one line: time, kind, asset, figures, and the end of its
/// correlation id. A question to a person is printed with the command that answers it; unanswered,
/// its default applies after twenty seconds. Exit code 0 when the story was told, 1 when not.
///
/// Data lie in a temporary directory that is removed at the end.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// End after this time; without it, on Ctrl-C.
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    length: Option<Duration>,
    /// How many times faster the plant wears. The daemon's own times stay real.
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = super::simulate::speed)]
    speed: f64,
    /// Address of the dashboard; any free port of 127.0.0.1 when not given.
    #[arg(long, value_name = "ADDR")]
    http: Option<SocketAddr>,
}

/// `500ms 1s 5m 12h 7d`, as in the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: 500ms, 1s, 5m, 12h, 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (count, unit) = text.split_at(digits);
    let count: u32 = count.parse().map_err(|_| wrong())?;
    let each = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        _ => return Err(wrong()),
    };
    Ok(each * count)
}

/// Runs the command.
#[cfg(feature = "demo")]
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    stage::run(arguments)
}

/// Says that this build has no demo.
#[cfg(not(feature = "demo"))]
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { length: _, speed: _, http: _ } = arguments;
    Err(Failure::failed(
        "this build has no demo: it was made without the feature `demo`, as builds for gateways are",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_the_configuration() {
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "3", "m", "-3m", "3 m", "3w", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
