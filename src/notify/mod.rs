//! Messages to people leave the gateway here: one function, one file a channel.
//!
//! The notification stage decides what is told to whom; the runtime calls [`deliver`], and calls it
//! again with its own pauses when an error [is transient](NotifyError::is_transient). A message
//! may therefore arrive twice; every channel passes on the message's id, by which a receiver can
//! tell.

mod console;
mod webhook;

use crate::config::{Channel, NotifyChannel};
use crate::domain::event::Message;
use crate::domain::ids::EventId;

/// A message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The configuration has no such channel (any more).
    #[error("no channel `{channel}` is configured for severity {severity}")]
    NoChannel {
        /// The channel's word.
        channel: String,
        /// The message's severity.
        severity: crate::domain::severity::Severity,
    },
    /// The address is none that can be posted to.
    #[error("the address of {host} does not begin with http://")]
    Scheme {
        /// The host, as far as one is named.
        host: String,
    },
    /// The receiver refused the message.
    #[error("{host} answered {status}")]
    Refused {
        /// Where it was sent to.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// The receiver was not reached, or did not answer in time.
    #[error("posting to {host}")]
    Unreached {
        /// Where it was sent to.
        host: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// The thread that posted it ended without an answer.
    #[error("the delivery to {host} was broken off")]
    BrokenOff {
        /// Where it was sent to.
        host: String,
    },
}

impl NotifyError {
    /// Whether trying again later can help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::NoChannel { .. } | Self::Scheme { .. } => false,
            // Request timeout, too early, too many requests, and the receiver's own trouble.
            Self::Refused { status, .. } => matches!(*status, 408 | 425 | 429 | 500..=599),
            Self::Unreached { .. } | Self::BrokenOff { .. } => true,
        }
    }
}

/// Delivers a message once through every configured channel of its kind that wants its severity.
///
/// `id` is that of the notification; receivers drop what they have seen by it.
///
/// # Errors
/// The first failure. With several webhooks, those before it have the message already.
pub async fn deliver(
    id: EventId,
    message: &Message,
    channels: &[NotifyChannel],
) -> Result<(), NotifyError> {
    let wanting = channels.iter().filter(|row| {
        row.channel.as_str() == message.channel && message.severity >= row.min_severity
    });
    let mut reached = false;
    for row in wanting {
        match &row.channel {
            Channel::Console => console::print(id, message),
            Channel::Webhook { url } => webhook::post(id, message, url).await?,
            // The event `notification.sent` is the message; the uplink sends it.
            Channel::Mqtt => {}
        }
        reached = true;
    }
    if reached {
        Ok(())
    } else {
        let (channel, severity) = (message.channel.clone(), message.severity);
        Err(NotifyError::NoChannel { channel, severity })
    }
}
