//! The fault script of `wheeltap simulate --faults FILE`: what goes wrong on the simulated line, for
//! whom, how often and when.
//!
//! ```toml
//! seed = 7
//! [[fault]]
//! what = "delay"              # see [`Mischief`]
//! by = "700ms"
//! units = "1-3,9"             # all when absent
//! points = "holding:100-107"  # all when absent
//! chance = 0.05               # 1 when absent
//! from = "10s"                # since the server began to listen
//! until = "2m"
//! most = 20                   # no bound when absent
//! ```

use std::path::Path;
use std::time::Duration;

use super::mistake::{ConfigErrors, Report};
use super::tree::{self, Section};
use super::{Table, values};

/// Most rules in one script.
const RULES_MAX: usize = 1000;
/// Longest answer of garbage: a Modbus TCP frame has at most 260 bytes, some receivers buffer more.
const GARBAGE_BYTES_MAX: usize = 65_536;
/// Longest delay: beyond, nobody waits any more.
const DELAY_MAX: Duration = Duration::from_secs(3600);
/// Largest script file, in bytes.
const SCRIPT_BYTES_MAX: usize = 1 << 20;

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// `delay`, `by`: the answer comes late.
    Delay(Duration),
    /// `drop`: no answer.
    Drop,
    /// `exception`, `code`: the device refuses.
    Exception(u8),
    /// `garbage`, `bytes`: so many random bytes instead of the answer.
    Garbage(usize),
    /// `partial`, `bytes`: only the first bytes of the answer; the connection stays.
    Partial(usize),
    /// `close`, `bytes`: the first bytes of the answer, then the connection is closed.
    Close(usize),
    /// `registers`, `by`: so many registers (or bytes of bits) more or fewer than asked for, in a
    /// frame that is otherwise right.
    Registers(i16),
    /// `length`, `value`: the length in the header says something else.
    Length(u16),
    /// `transaction`: the transaction id is another one.
    Transaction,
    /// `protocol`: the protocol id is not 0.
    Protocol,
    /// `unit`: another unit answers.
    Unit,
    /// `function`: the answer is to another function.
    Function,
}

/// Names of all kinds of mischief.
const KINDS: &[&str] = &[
    "delay",
    "drop",
    "exception",
    "garbage",
    "partial",
    "close",
    "registers",
    "length",
    "transaction",
    "protocol",
    "unit",
    "function",
];

/// One rule: the first that matches a request, and whose chance falls, is carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// What happens.
    pub what: Mischief,
    /// Unit ids from and to; empty means all.
    pub units: Vec<(u8, u8)>,
    /// Table, first and last address: requests that touch any of them. `None`: all requests.
    pub points: Option<(Table, u16, u16)>,
    /// Probability in (0, 1].
    pub chance: f64,
    /// When it begins, since the start of the server.
    pub from: Duration,
    /// When it ends.
    pub until: Option<Duration>,
    /// How many times it happens at most.
    pub most: Option<u64>,
}

/// A whole script.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FaultScript {
    /// Seed of the chances; the simulator's own when absent.
    pub seed: Option<u64>,
    /// The rules, in the order of the file.
    pub rules: Vec<FaultRule>,
}

impl FaultRule {
    /// Whether the rule is about a request to `unit` for `count` values of `table` from `address`
    /// on; a request that reads no table has none of the three.
    #[must_use]
    pub fn is_about(&self, unit: u8, asked: Option<(Table, u16, u16)>) -> bool {
        let unit_fits =
            self.units.is_empty() || self.units.iter().any(|(a, b)| (*a..=*b).contains(&unit));
        let points_fit = match (self.points, asked) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((table, first, last)), Some((asked, address, count))) => {
                let end = u32::from(address) + u32::from(count);
                table == asked && address <= last && end > u32::from(first)
            }
        };
        unit_fits && points_fit
    }
}

/// Reads a script; `origin` names the file in messages.
///
/// # Errors
/// All mistakes, each with line and column.
pub fn parse_faults(text: &str, origin: &Path) -> Result<FaultScript, ConfigErrors> {
    if text.len() > SCRIPT_BYTES_MAX {
        let what = format!("is larger than {SCRIPT_BYTES_MAX} bytes");
        return Err(Report::whole_file(origin, what));
    }
    let report = Report::new(origin, text);
    let document = tree::parse(text, &report);
    let root = Section::root(&document, &report);
    let seed = root.integer::<i64>("seed", 0, i64::MAX).map(i64::cast_unsigned);
    let tables = root.tables("fault");
    if tables.len() > RULES_MAX {
        root.wrong("fault", format!("there are {}, allowed are {RULES_MAX}", tables.len()));
    }
    let rules = tables.iter().filter_map(rule).collect();
    root.finish();
    if report.is_clean() { Ok(FaultScript { seed, rules }) } else { Err(report.into_errors()) }
}

/// Reads the script in a file.
///
/// # Errors
/// As [`parse_faults`], and when the file cannot be read.
pub fn load_faults(path: &Path) -> Result<FaultScript, ConfigErrors> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Report::whole_file(path, format!("cannot be read: {error}")))?;
    parse_faults(&text, path)
}

fn rule(table: &Section<'_>) -> Option<FaultRule> {
    let what = mischief(table);
    let units = table.read("units", unit_ranges).unwrap_or_default();
    let points = table.read("points", points);
    let chance = match table.number_in("chance", 0.0, 1.0) {
        Some(chance) if chance <= 0.0 => {
            table.wrong("chance", "is 0: the fault would never happen");
            1.0
        }
        Some(chance) => chance,
        None => 1.0,
    };
    let from = table.read("from", values::duration).unwrap_or_default();
    let until = table.read("until", values::duration);
    if until.is_some_and(|until| until <= from) {
        table.wrong("until", "must be later than `from`");
    }
    let most = table.integer::<i64>("most", 1, i64::MAX).map(i64::cast_unsigned);
    table.finish();
    Some(FaultRule { what: what?, units, points, chance, from, until, most })
}

fn mischief(table: &Section<'_>) -> Option<Mischief> {
    let kind = table.need("what", |text| {
        KINDS.iter().find(|kind| **kind == text).copied().ok_or_else(|| {
            let near = tree::nearest(text, KINDS);
            let near = near.map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            format!("`{text}` is no fault: {}{near}", KINDS.join(", "))
        })
    })?;
    let missing = |key: &'static str| {
        if !table.has(key) {
            table.missing(key);
        }
    };
    match kind {
        "delay" => {
            let by = table.need("by", values::duration)?;
            if by > DELAY_MAX {
                table.wrong("by", format!("is longer than {DELAY_MAX:?}"));
            }
            Some(Mischief::Delay(by))
        }
        "drop" => Some(Mischief::Drop),
        "exception" => {
            missing("code");
            table.integer::<u8>("code", 1, 255).map(Mischief::Exception)
        }
        "garbage" => {
            missing("bytes");
            table.integer("bytes", 1, GARBAGE_BYTES_MAX).map(Mischief::Garbage)
        }
        "partial" => {
            missing("bytes");
            table.integer("bytes", 1, 260).map(Mischief::Partial)
        }
        "close" => Some(Mischief::Close(table.integer("bytes", 0, 260).unwrap_or(0))),
        "registers" => {
            missing("by");
            let by = table.integer::<i16>("by", -125, 125)?;
            if by == 0 {
                table.wrong("by", "is 0: nothing would be wrong");
            }
            Some(Mischief::Registers(by))
        }
        "length" => {
            missing("value");
            table.integer::<u16>("value", 0, u16::MAX).map(Mischief::Length)
        }
        "transaction" => Some(Mischief::Transaction),
        "protocol" => Some(Mischief::Protocol),
        "unit" => Some(Mischief::Unit),
        "function" => Some(Mischief::Function),
        _ => None,
    }
}

/// `1-247`, `5`, `1-3,9`: unit ids.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn unit_ranges(text: &str) -> Result<Vec<(u8, u8)>, String> {
    let wrong = || format!("`{text}` are no unit ids: write 5, 1-247 or 1-3,9");
    text.split(',')
        .map(|part| {
            let (from, to) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let from: u8 = from.trim().parse().map_err(|_| wrong())?;
            let to: u8 = to.trim().parse().map_err(|_| wrong())?;
            if from > to {
                return Err(format!("`{part}` ends before it begins"));
            }
            Ok((from, to))
        })
        .collect()
}

/// `holding:100` or `holding:100-107`.
fn points(text: &str) -> Result<(Table, u16, u16), String> {
    let (first, last) = match text.split_once('-') {
        None => (text, None),
        Some((first, last)) => (first, Some(last)),
    };
    let (table, from) = super::point::point(first)?;
    let last = match last {
        None => from,
        Some(last) => last.parse().map_err(|_| format!("`{last}` is no address"))?,
    };
    let address = |at: u32| u16::try_from(at).map_err(|_| format!("address {at} is past 65535"));
    let (from, last) = (address(from)?, address(last)?);
    if last < from {
        Err(format!("`{text}` ends before it begins"))
    } else {
        Ok((table, from, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<FaultScript, ConfigErrors> {
        parse_faults(text, Path::new("faults.toml"))
    }

    #[test]
    fn every_kind_of_fault_can_be_written() {
        let script = parsed(
            "seed = 7\n\
             [[fault]]\nwhat = \"delay\"\nby = \"700ms\"\nunits = \"1-3,9\"\nchance = 0.5\n\
             points = \"holding:100-107\"\nfrom = \"10s\"\nuntil = \"2m\"\nmost = 20\n\
             [[fault]]\nwhat = \"drop\"\n[[fault]]\nwhat = \"exception\"\ncode = 6\n\
             [[fault]]\nwhat = \"garbage\"\nbytes = 20\n[[fault]]\nwhat = \"partial\"\nbytes = 5\n\
             [[fault]]\nwhat = \"close\"\nbytes = 8\n[[fault]]\nwhat = \"registers\"\nby = -1\n\
             [[fault]]\nwhat = \"length\"\nvalue = 65535\n[[fault]]\nwhat = \"transaction\"\n\
             [[fault]]\nwhat = \"protocol\"\n[[fault]]\nwhat = \"unit\"\n\
             [[fault]]\nwhat = \"function\"\n",
        )
        .unwrap();
        assert_eq!((script.seed, script.rules.len()), (Some(7), KINDS.len()));
        let first = &script.rules[0];
        assert_eq!(first.what, Mischief::Delay(Duration::from_millis(700)));
        assert_eq!(first.units, [(1, 3), (9, 9)]);
        assert!(first.is_about(2, Some((Table::Holding, 95, 6))), "the last register touches");
        assert!(!first.is_about(2, Some((Table::Holding, 95, 5))));
        assert!(!first.is_about(2, Some((Table::Input, 100, 1))));
        assert!(!first.is_about(4, Some((Table::Holding, 100, 1))));
        assert!(!first.is_about(1, None), "what reads no table touches no register");
        assert!(script.rules[1].is_about(200, None));
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let errors = parsed(
            "[[fault]]\nwhat = \"dely\"\n\
             [[fault]]\nwhat = \"exception\"\n\
             [[fault]]\nwhat = \"drop\"\nunits = \"9-3\"\nchance = 0\n\
             [[fault]]\nwhat = \"drop\"\nfrom = \"1m\"\nuntil = \"10s\"\nwhen = 3\n",
        )
        .unwrap_err();
        let told: Vec<String> = errors.mistakes.iter().map(ToString::to_string).collect();
        let expected = [
            "faults.toml:2:8: fault.what: `dely` is no fault",
            "faults.toml:3:1: fault.code: is missing",
            "faults.toml:7:9: fault.units: `9-3` ends before it begins",
            "faults.toml:8:10: fault.chance: is 0",
            "faults.toml:12:9: fault.until: must be later",
            "faults.toml:13:1: fault.when: unknown key",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}\n{expected}");
        }
    }

    #[test]
    fn the_example_script_is_right() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/faults.toml");
        assert!(!load_faults(&path).unwrap().rules.is_empty());
    }
}
