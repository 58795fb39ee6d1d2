//! Pure: how long characters, silences and requests take on a link.

use std::time::Duration;

use super::frame::Query;
use crate::config::{LineOptions, Link};
use crate::sources::poll_plan::LineCost;

/// Bits of a character with parity or a second stop bit (Modbus over serial line V1.02 §2.5.1).
const CHARACTER_BITS: u32 = 11;
/// From here on the silence between frames is fixed (§2.5.1.1).
const FIXED_SILENCE_ABOVE: u32 = 19_200;
/// That fixed silence. The 0.75 ms within a frame are not enforced: USB adapters hand bytes over in
/// bundles, and frames are told by length and checksum.
const FIXED_SILENCE: Duration = Duration::from_micros(1_750);
/// How long a line must be silent after a failure before it is used again: a late answer shall not
/// be taken for the next one.
const DRAIN: Duration = Duration::from_millis(200);
/// From the end of a request to the begin of its answer in a device that is neither fast nor slow;
/// manuals say 5 to 50 ms.
const TURNAROUND: Duration = Duration::from_millis(20);

/// The times of one line. All are zero on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// One character.
    pub character: Duration,
    /// Between two frames: 3.5 characters.
    pub silence: Duration,
    /// After a failure.
    pub drain: Duration,
}

impl Timing {
    /// The times of a link.
    #[must_use]
    pub fn of(link: &Link) -> Self {
        match link {
            Link::Tcp(_) | Link::Tls(_) => Self::default(),
            Link::RtuOverTcp { baud, .. } => Self::serial(*baud, CHARACTER_BITS),
            Link::Serial(port) => Self::serial(port.baud, port.bits_per_character()),
        }
    }

    /// The times at a speed, with characters of so many bits.
    #[must_use]
    pub fn serial(baud: u32, bits: u32) -> Self {
        let bit = Duration::from_secs(1) / baud.max(1);
        let silence = if baud > FIXED_SILENCE_ABOVE {
            FIXED_SILENCE
        } else {
            // Always of 11 bits: the silence is a standard's, whatever this line's characters are.
            bit * CHARACTER_BITS * 7 / 2
        };
        Self { character: bit * bits, silence, drain: DRAIN.max(silence) }
    }

    /// What a request and its answer take on the wire, the device's own time aside.
    #[must_use]
    pub fn wire(&self, query: &Query) -> Duration {
        let characters = 8 + 5 + u32::try_from(query.value_bytes()).unwrap_or(u32::MAX);
        self.character.saturating_mul(characters)
    }
}

/// What reading costs on a link.
#[must_use]
pub fn cost(link: &Link, options: &LineOptions) -> LineCost {
    let timing = Timing::of(link);
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let pause = options.pause_between_requests;
    let serial = LineCost {
        request_ns: nanos(timing.character * 13)
            + nanos(timing.silence)
            + nanos(timing.silence.max(pause))
            + nanos(TURNAROUND),
        byte_ns: nanos(timing.character),
    };
    match link {
        Link::Tcp(_) | Link::Tls(_) => {
            LineCost { request_ns: LineCost::TCP.request_ns + nanos(pause), ..LineCost::TCP }
        }
        Link::RtuOverTcp { .. } => {
            LineCost { request_ns: serial.request_ns + LineCost::TCP.request_ns, ..serial }
        }
        Link::Serial(_) => serial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Host, Parity, Serial, Table};

    fn port(baud: u32) -> Link {
        let path = "/dev/ttyS0".into();
        Link::Serial(Serial { path, baud, parity: Parity::Even, data_bits: 8, stop_bits: 1 })
    }

    #[test]
    fn silences_are_the_standards() {
        for (baud, micros) in [(9_600, 4_010), (19_200, 2_005), (38_400, 1_750), (115_200, 1_750)] {
            let silence = Timing::of(&port(baud)).silence.as_micros();
            assert!(silence.abs_diff(micros) <= 1, "{baud}: {silence} µs");
        }
    }

    #[test]
    fn wire_times_are_those_of_the_cost_model() {
        let timing = Timing::of(&port(9_600));
        let query = |count| Query { unit: 1, table: Table::Holding, address: 0, count };
        // Request, answer and two silences at 9,600 baud: 25 ms for one register, 309 ms for 125.
        let millis = |count| (timing.wire(&query(count)) + timing.silence * 2).as_secs_f64() * 1e3;
        assert!((millis(1) - 25.2).abs() < 0.2, "{}", millis(1));
        assert!((millis(125) - 309.4).abs() < 0.5, "{}", millis(125));
    }

    #[test]
    fn holes_are_worth_filling_up_to_what_a_request_costs() {
        let options = LineOptions::default();
        let worth = |link: &Link| {
            let cost = cost(link, &options);
            cost.request_ns / (2 * cost.byte_ns)
        };
        let host = Host { name: "a".to_owned(), port: 502 };
        assert!((15..=30).contains(&worth(&port(9_600))), "{}", worth(&port(9_600)));
        assert!((50..=100).contains(&worth(&Link::Tcp(host.clone()))));
        let over_tcp = Link::RtuOverTcp { host, baud: 9_600 };
        assert!(cost(&over_tcp, &options).request_ns > cost(&port(9_600), &options).request_ns);
    }
}
