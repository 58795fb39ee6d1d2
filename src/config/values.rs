//! The small languages inside strings: durations, sizes, shifts, addresses.
//! Every reader answers with the value or with what is wrong, as a sentence.

use std::time::Duration;

use crate::domain::ids::{AssetId, BadId, SourceId, TagId, TagPath, TechnicianId};
use crate::domain::severity::Severity;

/// `500ms`, `1s`, `5m`, `12h`, `7d`; longer than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write 500ms, 1s, 5m, 12h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let millis_each: u64 = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let millis = count
        .checked_mul(millis_each)
        .filter(|millis| *millis <= DURATION_MAX_MILLIS)
        .ok_or_else(|| format!("`{text}` is longer than 100 years"))?;
    Ok(Duration::from_millis(millis))
}

/// A hundred years: what is longer is a slip of the pen, and must not overflow clocks.
const DURATION_MAX_MILLIS: u64 = 36_525 * 86_400_000;

/// A duration of at least `least`.
pub(super) fn duration_from(least: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let span = duration(text)?;
        if span < least { Err(format!("`{text}` is less than {least:?}")) } else { Ok(span) }
    }
}

/// `64KiB`, `512MiB`, `1GiB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write 64KiB, 512MiB or 1GiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match &text[digits..] {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(wrong()),
    };
    // SQLite and files count in i64.
    count
        .checked_mul(1 << shift)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| format!("`{text}` is too large"))
}

pub(super) fn severity(text: &str) -> Result<Severity, String> {
    text.parse()
}

/// A plain name of the id alphabet that is no type of its own.
pub(super) fn name(text: &str) -> Result<String, String> {
    TagId::new(text).map(|id| id.as_str().to_owned()).map_err(id_error)
}

pub(super) fn asset_id(text: &str) -> Result<AssetId, String> {
    AssetId::new(text).map_err(id_error)
}

pub(super) fn tag_id(text: &str) -> Result<TagId, String> {
    TagId::new(text).map_err(id_error)
}

pub(super) fn source_id(text: &str) -> Result<SourceId, String> {
    SourceId::new(text).map_err(id_error)
}

pub(super) fn technician_id(text: &str) -> Result<TechnicianId, String> {
    TechnicianId::new(text).map_err(id_error)
}

fn id_error(error: BadId) -> String {
    error.to_string()
}

/// `asset/tag`.
pub(super) fn tag_path(text: &str) -> Result<TagPath, String> {
    let (asset, tag) =
        text.split_once('/').ok_or_else(|| format!("`{text}` is no tag: write asset/tag"))?;
    Ok(TagPath { asset: asset_id(asset)?, tag: tag_id(tag)? })
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// `mon`, `mon-fri`, `sat-mon`, or several of these with commas between them.
pub(super) fn days(text: &str) -> Result<[bool; 7], String> {
    let wrong = || format!("`{text}` is no list of days: write mon-fri, or sat,sun");
    let day = |word: &str| DAYS.iter().position(|day| *day == word.trim()).ok_or_else(wrong);
    let mut chosen = [false; 7];
    for span in text.split(',') {
        let (first, last) = match span.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(span)?, day(span)?),
        };
        let mut index = first;
        chosen[index] = true;
        while index != last {
            index = (index + 1) % 7;
            chosen[index] = true;
        }
    }
    Ok(chosen)
}

/// `00:00` to `24:00`, in minutes after midnight.
pub(super) fn minute(text: &str) -> Result<u16, String> {
    let wrong = || format!("`{text}` is no time of day: 00:00 to 24:00");
    let two = |part: &str| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<u16>().ok())
            .flatten()
    };
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let (hours, minutes) = (two(hours).ok_or_else(wrong)?, two(minutes).ok_or_else(wrong)?);
    let total = hours * 60 + minutes;
    if minutes > 59 || total > 24 * 60 { Err(wrong()) } else { Ok(total) }
}

/// The parts of an address `scheme://host[:port][/path][?query]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: String,
    /// Name or address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// From the first `/` or `?` on; empty when there is nothing.
    pub(crate) rest: String,
}

/// Splits an address. User names and passwords are refused: they would be secrets in the open.
pub(crate) fn url(text: &str) -> Result<Url, String> {
    let wrong = |what: &str| format!("`{text}` is no address: {what}");
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| wrong("it must begin with scheme://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.contains('@') {
        // The text is not repeated: it may hold a password.
        return Err("must not hold a user name or password: they have keys of their own".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or_else(|| wrong("`]` is missing"))?;
            let host: std::net::Ipv6Addr =
                host.parse().map_err(|_| wrong("there is no IPv6 address in the brackets"))?;
            let port = match after {
                "" => None,
                after => Some(after.strip_prefix(':').ok_or_else(|| wrong("no port after `]`"))?),
            };
            (host.to_string(), port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (authority.to_owned(), None),
        },
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() {
        return Err(wrong("the host is missing"));
    }
    if host.len() > 253 || !host.chars().all(legal) {
        return Err(wrong("the host has characters that no host has"));
    }
    let port = match port {
        None => None,
        Some(port) => Some(
            port.parse::<u16>()
                .ok()
                .filter(|number| *number > 0 && !port.starts_with('+'))
                .ok_or_else(|| wrong("the port must be 1 to 65535"))?,
        ),
    };
    Ok(Url { scheme: scheme.to_owned(), host, port, rest: rest.to_owned() })
}

/// An MQTT topic filter (MQTT 3.1.1 §4.7); `{asset}` and `{tag}` stand for the tag's own names.
pub(super) fn topic_filter(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("`{text}` is no topic filter: {what}"));
    if text.is_empty() || text.len() > usize::from(u16::MAX) {
        return wrong("it must have 1 to 65535 bytes");
    }
    if text.contains('\0') {
        return wrong("it holds a NUL");
    }
    if text.replace("{asset}", "").replace("{tag}", "").contains(['{', '}']) {
        return wrong("only {asset} and {tag} stand in braces");
    }
    let levels: Vec<&str> = text.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if level.contains('+') && *level != "+" {
            return wrong("`+` stands for a whole level");
        }
        if level.contains('#') && (*level != "#" || index + 1 != levels.len()) {
            return wrong("`#` stands for all last levels");
        }
    }
    Ok(text.to_owned())
}

/// A JSON pointer (RFC 6901).
pub(super) fn json_pointer(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("`{text}` is no JSON pointer: {what}"));
    if !text.is_empty() && !text.starts_with('/') {
        return wrong("it is empty or begins with `/`");
    }
    for escape in text.split('~').skip(1) {
        if !escape.starts_with(['0', '1']) {
            return wrong("`~` is written `~0`, and `/` in a name `~1`");
        }
    }
    Ok(text.to_owned())
}

/// When the system's clock is believed.
pub(super) fn clock(text: &str) -> Result<crate::domain::time::Trust, String> {
    use crate::domain::time::Trust;
    match text {
        "auto" => Ok(Trust::Auto),
        "synchronised" => Ok(Trust::Synchronised),
        "system" => Ok(Trust::System),
        path if path.starts_with('/') => Ok(Trust::File(path.into())),
        _ => Err(format!(
            "`{text}` says nothing of a clock: auto, synchronised, system, or the path of a file \
             that exists once the clock is set"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_their_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("1s", 1000),
            ("5m", 300_000),
            ("12h", 43_200_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "-1s", "1 s", "1w", "99999999999999999999d", "40000d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("512MiB"), Ok(536_870_912));
        for text in ["", "1", "1MB", "99999999TiB", "1.5GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_wrap_round_the_week() {
        assert_eq!(days("mon-fri"), Ok([true, true, true, true, true, false, false]));
        assert_eq!(days("sat-mon"), Ok([true, false, false, false, false, true, true]));
        assert_eq!(days("mon,wed"), Ok([true, false, true, false, false, false, false]));
        for text in ["", "monday", "mon-", "mon-fri-sun"] {
            assert!(days(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_of_day_end_at_midnight() {
        assert_eq!(minute("00:00"), Ok(0));
        assert_eq!(minute("24:00"), Ok(1440));
        for text in ["24:01", "6:00", "06:60", "0600", "+6:00"] {
            assert!(minute(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_split_and_never_hold_passwords() {
        let plain = url("tcp://127.0.0.1:5020").unwrap();
        assert_eq!((plain.host.as_str(), plain.port), ("127.0.0.1", Some(5020)));
        let six = url("mqtt://[::1]:1883").unwrap();
        assert_eq!((six.host.as_str(), six.port), ("::1", Some(1883)));
        let secret = url("mqtt://me:hunter2@broker").unwrap_err();
        assert!(!secret.contains("hunter2"), "{secret}");
        for text in ["broker", "tcp://", "tcp://a:0", "tcp://a:70000", "tcp://a b", "tcp://[::1"] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn topic_filters_follow_the_standard() {
        for text in ["a", "a/+/c", "#", "a/#", "/", "+", "plant/{asset}/{tag}"] {
            assert!(topic_filter(text).is_ok(), "{text}");
        }
        for text in ["", "a+/b", "a/#/b", "#a", "{unit}/x"] {
            assert!(topic_filter(text).is_err(), "{text}");
        }
    }
}
