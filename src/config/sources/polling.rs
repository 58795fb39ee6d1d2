//! `[[modbus]]`: how requests are made and what the line's time may be spent on. Where Telegraf's
//! Modbus input has an option for it, its name is used, so that what people have can be pasted.

use std::time::Duration;

use crate::config::tree::Section;
use crate::config::values;

/// Most registers that one request may ask for (Modbus application protocol 1.1b3 §6.3).
const REGISTERS_MAX: u16 = 125;
/// Most coils or discrete inputs that one request may ask for (§6.1).
const COILS_MAX: u16 = 2000;
/// Telegraf's own default of `optimization_max_register_fill`.
const FILL_DEFAULT: u16 = 50;

/// How the tags of a source are gathered into requests. All but [`Self::None`] find the cheapest
/// requests exactly; they differ in the holes that may be read along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// Only what lies side by side shares a request (Telegraf: `none`, `shrink`, `rearrange`).
    None,
    /// Holes up to `optimization_max_register_fill` registers may be read along.
    MaxInsert,
    /// Any hole may be read along that costs less than another request.
    #[default]
    Aggressive,
}

/// How a source is polled, besides how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Polling {
    /// Most coils or discrete inputs in one request.
    pub max_coils: u16,
    /// Which holes may be read along.
    pub optimization: Optimization,
    /// Longest hole read along with [`Optimization::MaxInsert`], in registers (or bits).
    pub max_fill: u16,
    /// One tag a request: for devices that answer only for what their manual lists.
    pub one_request_per_field: bool,
    /// Coils are always read from address 0 on.
    pub coils_from_zero: bool,
    /// How often a device that is busy (exception 05 or 06) is asked again within one poll.
    pub busy_retries: u32,
    /// Pause before each of them; the line serves other units meanwhile.
    pub busy_retries_wait: Duration,
    /// Share of the line's time, 0 to 1, that units without an answer may cost.
    pub dead_time_share: f64,
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            max_coils: COILS_MAX,
            optimization: Optimization::default(),
            max_fill: FILL_DEFAULT,
            one_request_per_field: false,
            coils_from_zero: false,
            busy_retries: 3,
            busy_retries_wait: Duration::from_millis(500),
            dead_time_share: 0.1,
        }
    }
}

/// The keys of [`Polling`], and the most registers in one request.
pub(super) fn polling(table: &Section<'_>) -> (Polling, u16) {
    let usual = Polling::default();
    let own = table.integer("max_registers", 1, REGISTERS_MAX);
    let theirs = table.integer("max_word_registers_per_request", 1, REGISTERS_MAX);
    if own.is_some() && theirs.is_some() {
        table.wrong(
            "max_registers",
            "is another name of `max_word_registers_per_request`, which is given too",
        );
    }
    let max_registers = own.or(theirs).unwrap_or(REGISTERS_MAX);
    // A device that takes few registers is assumed to have a buffer for as many bits.
    let coils_usual = (max_registers.saturating_mul(16)).min(COILS_MAX);
    let optimization = table.read("optimization", |text| match text {
        "none" | "shrink" | "rearrange" => Ok(Optimization::None),
        "max_insert" => Ok(Optimization::MaxInsert),
        "aggressive" => Ok(Optimization::Aggressive),
        _ => Err(format!("`{text}` is no choice: none, shrink, rearrange, max_insert, aggressive")),
    });
    let fill = table.integer("optimization_max_register_fill", 0, COILS_MAX);
    let optimization = match (optimization, fill) {
        (Some(Optimization::None | Optimization::Aggressive), Some(_)) => {
            table.wrong(
                "optimization_max_register_fill",
                "counts only with `optimization = \"max_insert\"`",
            );
            Optimization::MaxInsert
        }
        (Some(chosen), _) => chosen,
        (None, Some(_)) => Optimization::MaxInsert,
        (None, None) => usual.optimization,
    };
    let polling = Polling {
        max_coils: table
            .integer("max_bit_registers_per_request", 1, COILS_MAX)
            .unwrap_or(coils_usual),
        optimization,
        max_fill: fill.unwrap_or(usual.max_fill),
        one_request_per_field: table.flag("one_request_per_field").unwrap_or(false),
        coils_from_zero: table.flag("read_coils_starting_at_zero").unwrap_or(false),
        busy_retries: table.integer("busy_retries", 0, 100).unwrap_or(usual.busy_retries),
        busy_retries_wait: table
            .read("busy_retries_wait", values::duration_from(Duration::from_millis(1)))
            .unwrap_or(usual.busy_retries_wait),
        dead_time_share: table
            .number_in("dead_time_share", 0.001, 1.0)
            .unwrap_or(usual.dead_time_share),
    };
    (polling, max_registers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModbusSource;

    const HEAD: &str = "[gateway]\nsite = \"s\"\nid = \"g\"\ndata_dir = \"d\"\n[[asset]]\nid = \"A\"\n\
                        [[modbus]]\nname = \"plc\"\nurl = \"tcp://h\"\n";
    const TAG: &str = "[[modbus.tag]]\nid = \"t\"\nasset = \"A\"\npoint = \"coil:1999\"\n";

    fn source(keys: &str) -> Result<ModbusSource, String> {
        let text = format!("{HEAD}{keys}\n{TAG}");
        let path = std::path::Path::new("test.toml");
        let config = crate::config::parse(&text, path, &std::collections::BTreeMap::new())
            .map_err(|errors| errors.to_string())?;
        Ok(config.modbus[0].clone())
    }

    #[test]
    fn what_is_not_said_is_usual() {
        let source = source("").unwrap();
        assert_eq!(source.polling, Polling::default());
        assert_eq!(source.max_registers, 125);
    }

    #[test]
    fn telegraf_names_are_understood() {
        let source = source(
            "max_word_registers_per_request = 60\nmax_bit_registers_per_request = 2000\n\
             optimization = \"max_insert\"\noptimization_max_register_fill = 7\n\
             one_request_per_field = true\nread_coils_starting_at_zero = true\n\
             busy_retries = 5\nbusy_retries_wait = \"2s\"\ndead_time_share = 0.25",
        )
        .unwrap();
        assert_eq!(source.max_registers, 60);
        assert_eq!(
            source.polling,
            Polling {
                max_coils: 2000,
                optimization: Optimization::MaxInsert,
                max_fill: 7,
                one_request_per_field: true,
                coils_from_zero: true,
                busy_retries: 5,
                busy_retries_wait: Duration::from_secs(2),
                dead_time_share: 0.25,
            }
        );
        for word in ["none", "shrink", "rearrange"] {
            let source = self::source(&format!("optimization = \"{word}\"")).unwrap();
            assert_eq!(source.polling.optimization, Optimization::None);
        }
    }

    #[test]
    fn few_registers_mean_few_coils() {
        assert_eq!(source("max_registers = 10").unwrap().polling.max_coils, 160);
    }

    #[test]
    fn mistakes_are_collected() {
        let errors = source(
            "max_registers = 10\nmax_word_registers_per_request = 200\noptimization = \"best\"\n\
             busy_retries = 1000\nbusy_retries_wait = \"0s\"\ndead_time_share = 0.0",
        )
        .unwrap_err();
        for key in [
            "max_word_registers_per_request",
            "optimization",
            "busy_retries",
            "busy_retries_wait",
            "dead_time_share",
        ] {
            assert!(errors.contains(&format!("modbus.{key}")) || errors.contains(key), "{errors}");
        }
        let errors =
            source("optimization = \"none\"\noptimization_max_register_fill = 5").unwrap_err();
        assert!(errors.contains("optimization_max_register_fill"), "{errors}");
    }

    #[test]
    fn a_coil_that_a_read_from_zero_cannot_reach_is_a_mistake() {
        let keys = "read_coils_starting_at_zero = true\nmax_bit_registers_per_request = 100";
        let errors = source(keys).unwrap_err();
        assert!(errors.contains("read_coils_starting_at_zero"), "{errors}");
    }
}
