//! People and their time: `[[technician]]`, `[[absence]]`, `[[window]]`, `[[notify]]`.

use crate::domain::severity::Severity;
use crate::domain::time::Timestamp;

use super::parse::Declared;
use super::tree::{NOT_AVAILABLE, Section};
use super::{Absence, Channel, NotifyChannel, Shift, Technician, Window, values};

/// Round the clock: of technicians whose shifts are not given.
const ALWAYS: Shift = Shift { days: [true; 7], from_minute: 0, to_minute: 24 * 60 };

/// `[[technician]]`
pub(super) fn technicians(root: &Section<'_>, declared: &mut Declared) -> Vec<Technician> {
    let mut technicians = Vec::new();
    for table in root.tables("technician") {
        let id = table.need("id", values::technician_id);
        if let Some(id) = &id
            && !declared.technicians.insert(id.clone())
        {
            table.wrong("id", format!("technician `{id}` is declared twice"));
        }
        let skills = words(&table, "skills");
        let shifts = shifts(&table).unwrap_or_else(|| vec![ALWAYS]);
        let email = table.read("email", |text| {
            let parts = text.split_once('@');
            match parts {
                Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(text.to_owned()),
                Some(_) | None => Err(format!("`{text}` is no mail address")),
            }
        });
        table.finish();
        if let Some(id) = id {
            technicians.push(Technician { id, skills, shifts, email });
        }
    }
    technicians
}

/// An array of words that are neither empty nor twice there.
pub(super) fn words(table: &Section<'_>, key: &'static str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in table.texts(key) {
        let text = word.value.trim();
        if text.is_empty() {
            table.wrong_at(word.at, key, "holds an empty string");
        } else if words.iter().any(|known| known == text) {
            table.wrong_at(word.at, key, format!("holds `{text}` twice"));
        } else {
            words.push(text.to_owned());
        }
    }
    words
}

/// `shifts = [{ days = "mon-fri", from = "06:00", to = "14:00" }]`; `None` when absent.
fn shifts(table: &Section<'_>) -> Option<Vec<Shift>> {
    if !table.has("shifts") {
        return None;
    }
    let tables = table.tables("shifts");
    if tables.is_empty() {
        table.wrong("shifts", "must hold at least one shift");
    }
    let mut shifts = Vec::new();
    for table in tables {
        let days = table.need("days", values::days);
        let from = table.need("from", values::minute);
        let to = table.need("to", values::minute);
        table.finish();
        let (Some(days), Some(from_minute), Some(to_minute)) = (days, from, to) else { continue };
        if from_minute == 24 * 60 {
            table.wrong("from", "a shift that begins at midnight begins at 00:00 of the next day");
        } else if from_minute == to_minute {
            table.wrong("to", "is the beginning; a whole day is 00:00 to 24:00");
        } else {
            shifts.push(Shift { days, from_minute, to_minute });
        }
    }
    Some(shifts)
}

/// `[[window]]`
pub(super) fn windows(root: &Section<'_>, declared: &Declared) -> Vec<Window> {
    let mut windows = Vec::new();
    for table in root.tables("window") {
        let asset = table.need("asset", |text| declared.asset(text));
        let shifts = shifts(&table);
        if shifts.is_none() {
            table.missing("shifts");
        }
        table.finish();
        if let (Some(asset), Some(shifts)) = (asset, shifts) {
            windows.push(Window { asset, shifts });
        }
    }
    windows
}

/// `[[absence]]`
pub(super) fn absences(root: &Section<'_>, declared: &Declared) -> Vec<Absence> {
    let mut absences = Vec::new();
    for table in root.tables("absence") {
        let technician = table.need("technician", |text| declared.technician(text));
        let from = moment(&table, "from");
        let to = moment(&table, "to");
        table.finish();
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            table.wrong("to", "must be later than `from`");
        }
        if let (Some(technician), Some(from), Some(to)) = (technician, from, to) {
            absences.push(Absence { technician, from, to });
        }
    }
    absences
}

fn moment(table: &Section<'_>, key: &'static str) -> Option<Timestamp> {
    if !table.has(key) {
        table.missing(key);
    }
    let text = table.moment(key)?;
    let moment = Timestamp::parse_rfc3339(text);
    if moment.is_none() {
        table.wrong(key, format!("`{text}` is no moment: write 2026-05-01T06:00:00+02:00"));
    }
    moment
}

/// `[[notify]]`
pub(super) fn notify(root: &Section<'_>, has_upstream: bool) -> Vec<NotifyChannel> {
    let mut channels = Vec::new();
    for table in root.tables("notify") {
        let name = table.need("channel", |text| match text {
            "console" | "webhook" | "mqtt" => Ok(text.to_owned()),
            "email" => Err(format!("channel `email` is {NOT_AVAILABLE}: console, webhook, mqtt")),
            _ => Err(format!("`{text}` is no channel: console, webhook, mqtt")),
        });
        let name = name.as_deref();
        let url = table.read("url", |text| {
            let url = values::url(text)?;
            match url.scheme.as_str() {
                "http" => Ok(text.to_owned()),
                "https" => Err(format!("https:// is {NOT_AVAILABLE}: http://")),
                _ => Err(format!("`{text}` is no address of a webhook: http://")),
            }
        });
        if name == Some("webhook") && !table.has("url") {
            table.missing("url");
        }
        if name.is_some_and(|name| name != "webhook") && table.has("url") {
            table.wrong("url", "belongs to the channel `webhook` alone");
        }
        if name == Some("mqtt") && !has_upstream {
            table.wrong("channel", "`mqtt` goes upstream, and there is no [upstream]");
        }
        let min_severity = table.read("min_severity", values::severity).unwrap_or(Severity::Low);
        table.finish();
        let channel = match (name, url) {
            (Some("console"), _) => Channel::Console,
            (Some("mqtt"), _) => Channel::Mqtt,
            (Some("webhook"), Some(url)) => Channel::Webhook { url },
            (_, _) => continue,
        };
        channels.push(NotifyChannel { channel, min_severity });
    }
    channels
}
