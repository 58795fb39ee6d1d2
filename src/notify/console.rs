//! The log as a channel: one line per message.

use crate::domain::event::Message;
use crate::domain::ids::EventId;

/// Writes the message to the log. Names and findings in it were typed by people or came from
/// devices, so control characters are escaped: a message cannot forge further lines or drive a
/// terminal.
pub(super) fn print(id: EventId, message: &Message) {
    tracing::info!(
        notification = %id,
        severity = message.severity.as_str(),
        template = %escaped(&message.template),
        recipients = %escaped(&message.recipients.join(", ")),
        subject = %escaped(&message.subject),
        text = %escaped(&message.text),
        "notification"
    );
}

/// The text with every control character written as an escape sequence.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Line and paragraph separators and the marks that turn text round are not control
        // characters to Unicode, but they do the same harm.
        let harmful = c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if harmful {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_letters_are_not() {
        for (text, expected) in [
            ("Lager läuft heiß, 86 °C", "Lager läuft heiß, 86 °C"),
            ("a\nERROR forged", "a\\nERROR forged"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
