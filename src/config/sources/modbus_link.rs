//! The keys of `[[modbus]]` that say how the device is reached.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::link::{MODBUS_PORT, MODBUS_TLS_PORT};
use crate::config::links::{Names, certificates};
use crate::config::tree::Section;
use crate::config::{Host, LineOptions, Link, ModbusSource, Parity, Rs485, Serial, values};

/// Bits per second that are believed.
const BAUD: std::ops::RangeInclusive<u32> = 50..=4_000_000;
/// Longest pause: what is longer is a slip of the pen.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Longest delay of RTS: the kernel cuts it there (`SER_RS485_DELAY_MAX`).
const RTS_DELAY_MAX: Duration = Duration::from_millis(100);

/// `url`
pub(in crate::config) fn url(text: &str) -> Result<Link, String> {
    if let Some(rest) = text.strip_prefix("rtu://") {
        return serial(text, rest).map(Link::Serial);
    }
    let url = values::url(text)?;
    let host = |port| Host { name: url.host.clone(), port: url.port.unwrap_or(port) };
    let (link, baud) = match url.scheme.as_str() {
        "tcp" => (Link::Tcp(host(MODBUS_PORT)), false),
        "tls" => (Link::Tls(host(MODBUS_TLS_PORT)), false),
        "rtu+tcp" => (Link::RtuOverTcp { host: host(MODBUS_PORT), baud: Serial::BAUD }, true),
        _ => {
            return Err(format!(
                "`{text}` is no Modbus address: tcp://, tls:// or rtu+tcp://HOST:PORT, or \
                 rtu:///dev/DEVICE"
            ));
        }
    };
    let rest = url.rest.strip_prefix('/').unwrap_or(&url.rest);
    let scheme = &url.scheme;
    match (rest.strip_prefix('?'), link) {
        (None, link) if rest.is_empty() => Ok(link),
        (Some(query), Link::RtuOverTcp { host, baud: mut rate }) if baud => {
            for (key, value) in pairs(query)? {
                match key {
                    "baud" => rate = self::baud(value)?,
                    _ => return Err(format!("`{key}` is unknown after {scheme}://: baud")),
                }
            }
            Ok(Link::RtuOverTcp { host, baud: rate })
        }
        (Some(_), _) => Err(format!("`{text}` has a query, which {scheme}:// does not have")),
        (None, _) => Err(format!("`{text}` has a path, which {scheme}:// does not have")),
    }
}

fn serial(text: &str, rest: &str) -> Result<Serial, String> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!("`{text}` names no device: rtu:///dev/ttyUSB0?baud=19200&parity=even"));
    }
    let mut port = Serial {
        path: PathBuf::from(path),
        baud: Serial::BAUD,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
    };
    for (key, value) in pairs(query)? {
        match key {
            "baud" => port.baud = baud(value)?,
            "parity" => port.parity = parity(value)?,
            "stop" => {
                port.stop_bits = match value {
                    "1" => 1,
                    "2" => 2,
                    _ => return Err(format!("stop={value} is not possible: 1 or 2")),
                }
            }
            "data" => match value {
                "8" => {}
                "7" => return Err("data=7 cannot carry RTU, which needs 8 bits".to_owned()),
                _ => return Err(format!("data={value} is not possible: 8")),
            },
            _ => return Err(format!("`{key}` is unknown: baud, parity, stop, data")),
        }
    }
    Ok(port)
}

fn pairs(query: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for part in parts {
        let (key, value) =
            part.split_once('=').ok_or_else(|| format!("`{part}` should be KEY=VALUE"))?;
        if pairs.iter().any(|(other, _)| *other == key) {
            return Err(format!("`{key}` is given twice"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn baud(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|baud| BAUD.contains(baud))
        .ok_or_else(|| format!("baud={text} is not possible: {} to {}", BAUD.start(), BAUD.end()))
}

fn parity(text: &str) -> Result<Parity, String> {
    let known = [Parity::None, Parity::Even, Parity::Odd, Parity::Mark, Parity::Space];
    known
        .into_iter()
        .find(|parity| parity.as_str() == text)
        .ok_or_else(|| format!("parity={text} is not possible: none, even, odd, mark or space"))
}

/// Everything beside the URL.
pub(super) fn options(table: &Section<'_>, link: Option<&Link>, names: &Names<'_>) -> LineOptions {
    let pause = |key| {
        let span = table.read(key, values::duration).unwrap_or(Duration::ZERO);
        if span > PAUSE_MAX {
            table.wrong(key, format!("{span:?} is longer than {PAUSE_MAX:?}"));
        }
        span
    };
    let pause_after_connect = pause("pause_after_connect");
    let pause_between_requests = pause("pause_between_requests");
    let pause_on_unit_change = pause("pause_on_unit_change");
    let close = table.flag("close_connection_after_gather").unwrap_or(false);
    let listen = table.flag("listen").unwrap_or(false);
    let local_echo = table.flag("local_echo").unwrap_or(false);
    let backup = table.read("backup_url", url);
    let rs485 = table.table("rs485").map(|table| rs485(&table));
    let certificates = certificates(table, names);
    let options = LineOptions {
        pause_after_connect,
        pause_between_requests,
        pause_on_unit_change,
        close_connection_after_gather: close,
        listen,
        backup,
        local_echo,
        rs485,
        certificates,
    };
    if let Some(link) = link {
        check(table, link, &options);
    }
    options
}

/// What has no effect is a misunderstanding.
fn check(table: &Section<'_>, link: &Link, options: &LineOptions) {
    let backup = options.backup.as_ref();
    let links = || std::iter::once(link).chain(backup);
    let tls = links().any(|link| matches!(link, Link::Tls(_)));
    for key in ["ca_file", "cert_file", "key_file"] {
        if !tls && table.has(key) {
            table.wrong(key, "has no effect without tls://");
        }
    }
    let serial = links().any(|link| matches!(link, Link::Serial(_)));
    if !serial && table.has("rs485") {
        table.wrong("rs485", "has no effect without rtu://");
    }
    if !links().any(Link::is_rtu) && options.local_echo {
        table.wrong("local_echo", "has no effect without rtu:// or rtu+tcp://");
    }
    if options.listen {
        match link {
            Link::Tcp(host) | Link::RtuOverTcp { host, .. } => {
                if host.name.parse::<std::net::IpAddr>().is_err() {
                    let what = "needs an address of this machine in `url`, such as 0.0.0.0:5020";
                    table.wrong("listen", what);
                }
            }
            Link::Tls(_) | Link::Serial(_) => {
                table.wrong("listen", "is possible with tcp:// and rtu+tcp:// only");
            }
        }
        if backup.is_some() {
            table.wrong("backup_url", "has no effect with `listen`: the device connects to us");
        }
        if options.close_connection_after_gather {
            let what = "has no effect with `listen`: only the device can connect again";
            table.wrong("close_connection_after_gather", what);
        }
    }
    if backup == Some(link) {
        table.wrong("backup_url", "is the same as `url`");
    }
}

fn rs485(table: &Section<'_>) -> Rs485 {
    let delay = |key| {
        let span = table.read(key, values::duration).unwrap_or(Duration::ZERO);
        if span > RTS_DELAY_MAX {
            table.wrong(key, format!("{span:?} is longer than the kernel's {RTS_DELAY_MAX:?}"));
        }
        span
    };
    let flag = |key| table.flag(key).unwrap_or(false);
    let read = Rs485 {
        delay_rts_before_send: delay("delay_rts_before_send"),
        delay_rts_after_send: delay("delay_rts_after_send"),
        rts_high_during_send: flag("rts_high_during_send"),
        rts_high_after_send: flag("rts_high_after_send"),
        rx_during_tx: flag("rx_during_tx"),
    };
    table.finish();
    read
}

/// Sources with one URL share the connection, and so its options: what the first says holds for
/// all, and another one may only say the same.
pub(super) fn share(
    table: &Section<'_>,
    earlier: &[ModbusSource],
    link: &Link,
    options: &mut LineOptions,
) {
    let Some(first) = earlier.iter().find(|source| source.link == *link) else { return };
    if *options == first.line || *options == LineOptions::default() {
        options.clone_from(&first.line);
    } else {
        let name = &first.name;
        table.wrong(
            "url",
            format!("source `{name}` has the same `url` and says otherwise how to use it"),
        );
    }
}
