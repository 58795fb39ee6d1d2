//! Pure: who a device says it is. Read device identification (function 43, MEI type 14) and report
//! server id (function 17), Modbus application protocol 1.1b3, 6.21 and 6.13.

/// Longest text kept of one object.
const TEXT_MAX: usize = 128;

/// What a device says of itself; empty texts where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Identity {
    /// Object 0.
    pub vendor: String,
    /// Object 1: the product code.
    pub product: String,
    /// Object 2.
    pub revision: String,
    /// Object 4, or 5, or the text of function 17: a name for people.
    pub name: String,
}

impl Identity {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The request for the objects from `first` on; `level` 1 is basic, 2 regular.
#[must_use]
pub const fn request(level: u8, first: u8) -> [u8; 4] {
    [43, 14, level, first]
}

/// Takes in a reply to [`request`]: `Some(next)` when more objects follow from `next` on.
///
/// # Errors
/// When it is no such reply; what came before the fault is kept.
pub fn take(reply: &[u8], into: &mut Identity) -> Result<Option<u8>, &'static str> {
    let [43, 14, _level, _conformity, more, next, count, objects @ ..] = reply else {
        return Err("a device identification without its head");
    };
    let mut rest = objects;
    for _ in 0..*count {
        let [id, length, tail @ ..] = rest else {
            return Err("a device identification that breaks off");
        };
        let length = usize::from(*length);
        if tail.len() < length {
            return Err("a device identification that breaks off");
        }
        let (text, after) = tail.split_at(length);
        rest = after;
        let place = match id {
            0 => &mut into.vendor,
            1 => &mut into.product,
            2 => &mut into.revision,
            4 => &mut into.name,
            5 if into.name.is_empty() => &mut into.name,
            _ => continue,
        };
        *place = text_of(text);
    }
    Ok((*more == 0xff).then_some(*next))
}

/// The text in a reply to function 17: server id, run indicator and whatever a maker adds.
#[must_use]
pub fn server_id(reply: &[u8]) -> Option<String> {
    let [17, count, data @ ..] = reply else { return None };
    let data = data.get(..usize::from(*count))?;
    // How long the id is, is the maker's secret; what can be read is shown.
    let text = text_of(data);
    Some(if text.is_empty() {
        data.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    } else {
        text
    })
}

/// What of these bytes people can read, on one line.
fn text_of(bytes: &[u8]) -> String {
    let shown: String = String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER)
        .take(TEXT_MAX)
        .collect();
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(more: u8, next: u8, objects: &[(u8, &str)]) -> Vec<u8> {
        let mut bytes = vec![43, 14, 2, 0x82, more, next, u8::try_from(objects.len()).unwrap()];
        for (id, text) in objects {
            bytes.extend([*id, u8::try_from(text.len()).unwrap()]);
            bytes.extend(text.as_bytes());
        }
        bytes
    }

    #[test]
    fn objects_are_gathered_over_several_replies() {
        let mut identity = Identity::default();
        let first = reply(0xff, 2, &[(0, "ACME\0"), (1, "PM-5")]);
        assert_eq!(take(&first, &mut identity), Ok(Some(2)));
        let second = reply(0, 0, &[(2, "V1.2"), (5, "Model"), (4, "Power meter"), (9, "x")]);
        assert_eq!(take(&second, &mut identity), Ok(None));
        assert_eq!(identity.vendor, "ACME");
        assert_eq!((identity.product.as_str(), identity.revision.as_str()), ("PM-5", "V1.2"));
        assert_eq!(identity.name, "Power meter");
    }

    #[test]
    fn every_shortened_reply_is_an_error_and_none_panics() {
        let whole = reply(0, 0, &[(0, "ACME"), (1, "PM-5"), (2, "V1")]);
        for length in 0..whole.len() {
            assert!(take(&whole[..length], &mut Identity::default()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_server_id_is_shown_as_text_where_it_is_one() {
        assert_eq!(server_id(&[17, 6, 0x01, 0xff, b'P', b'U', b'M', b'P']), Some("PUMP".into()));
        assert_eq!(server_id(&[17, 2, 0x01, 0xff]), Some("01 ff".into()));
        assert_eq!(server_id(&[17, 9, 0x01]), None);
        assert_eq!(server_id(&[3, 2, 0, 0]), None);
    }
}
