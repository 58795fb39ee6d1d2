//! Pure: MQTT 3.1.1 and 5 on the wire, as far as a subscriber needs it. What comes in is looked at
//! where it lies: a message is two slices of the receive buffer.
//!
//! A packet larger than [`Inbox::packet_max`] is not gathered: what names it is read, the rest is
//! passed over as it comes. So a message that is too large costs no memory, is acknowledged and does
//! not come again — with a library that ends the connection it would come for ever.

use bytes::{Buf as _, BytesMut};

/// Which MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V4,
    /// 5
    V5,
}

/// What a broker sent is no MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length that is none.
    #[error("a packet with a malformed length")]
    Length,
    /// A packet that ends before its fields do.
    #[error("a packet of type {kind} that ends too early")]
    Short {
        /// Its type.
        kind: u8,
    },
    /// A packet that no broker sends.
    #[error("a packet of type {kind}, which brokers do not send")]
    Kind {
        /// Its type.
        kind: u8,
    },
}

/// A message, in the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its topic; MQTT says UTF-8, but it is the broker who says so.
    pub topic: &'a [u8],
    /// What it carries; empty when it was passed over.
    pub payload: &'a [u8],
    /// Bytes of the payload on the wire.
    pub length: usize,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Kept by the broker from before we subscribed.
    pub retained: bool,
    /// Its number; 0 with QoS 0.
    pub id: u16,
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The broker takes the connection, or not.
    ConnAck {
        /// It remembers our session.
        session_present: bool,
        /// 0, or why not.
        code: u8,
        /// How often it wants to hear from us, in seconds.
        keep_alive: Option<u16>,
    },
    /// A message.
    Message(Message<'a>),
    /// What became of a subscription: a code a filter, from 0x80 on refused.
    SubAck {
        /// Number of the request.
        id: u16,
        /// The codes.
        codes: &'a [u8],
    },
    /// The sender has released a message of QoS 2.
    Release {
        /// Its number.
        id: u16,
    },
    /// The broker lives.
    Pong,
    /// The broker ends the connection (MQTT 5).
    Disconnect {
        /// Why.
        code: u8,
    },
    /// Nothing that concerns us.
    Other,
}

/// Bytes received and not yet looked at.
#[derive(Debug)]
pub struct Inbox {
    /// The bytes; whoever reads from the network appends to it.
    pub bytes: BytesMut,
    /// Longest packet that is gathered, in bytes.
    pub packet_max: usize,
    version: Version,
    /// Bytes of a large packet that are still to come.
    skip: usize,
    /// Bytes of the packet that was shown last.
    shown: usize,
}

/// The largest topic and the head of a packet.
pub const HEAD_MAX: usize = 5 + 2 + u16::MAX as usize + 2;

impl Inbox {
    /// An empty one.
    #[must_use]
    pub fn new(version: Version, packet_max: usize) -> Self {
        let bytes = BytesMut::new();
        Self { bytes, packet_max, version, skip: 0, shown: 0 }
    }

    /// The next packet; `None` when more has to come first.
    ///
    /// # Errors
    /// [`WireError`], after which nothing that follows can be understood.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, WireError> {
        self.bytes.advance(self.shown);
        self.shown = 0;
        let passed = self.skip.min(self.bytes.len());
        self.bytes.advance(passed);
        self.skip -= passed;
        let Some((head, length)) = head(&self.bytes)? else { return Ok(None) };
        let whole = head + length;
        let first = self.bytes[0];
        if whole > self.packet_max {
            return self.pass_over(first, head, length);
        }
        if self.bytes.len() < whole {
            self.bytes.reserve(whole - self.bytes.len());
            return Ok(None);
        }
        self.shown = whole;
        let body = &self.bytes[head..whole];
        packet(self.version, first, body).map(Some)
    }

    /// A packet that is too large: what names it, as soon as that is there.
    fn pass_over(
        &mut self,
        first: u8,
        head: usize,
        length: usize,
    ) -> Result<Option<Packet<'_>>, WireError> {
        let (kind, qos) = (first >> 4, (first >> 1) & 3);
        if kind != kind::PUBLISH {
            return Err(WireError::Kind { kind });
        }
        let short = WireError::Short { kind };
        let Some(topic) = self.bytes.get(head..head + 2) else { return Ok(None) };
        let topic = usize::from(u16::from_be_bytes([topic[0], topic[1]]));
        let id_at = head + 2 + topic;
        let named = id_at + if qos > 0 { 2 } else { 0 };
        if named > head + length {
            return Err(short);
        }
        if self.bytes.len() < named {
            return Ok(None);
        }
        self.shown = named;
        self.skip = head + length - named;
        let id = if qos > 0 { self.bytes[id_at..].get(..2) } else { None };
        Ok(Some(Packet::Message(Message {
            topic: &self.bytes[head + 2..id_at],
            payload: &[],
            length: self.skip,
            qos,
            retained: first & 1 != 0,
            id: id.map_or(0, |id| u16::from_be_bytes([id[0], id[1]])),
        })))
    }
}

/// Types of packets (§2.2.1).
mod kind {
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const UNSUBACK: u8 = 11;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
    pub(super) const AUTH: u8 = 15;
}

/// Length of the fixed header and of what follows it.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut rest = bytes.get(1..).unwrap_or_default();
    let before = rest.len();
    match varint(&mut rest) {
        Ok(Some(length)) => Ok(Some((1 + before - rest.len(), length))),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A length of up to four bytes (§2.2.3); `None` when more has to come.
fn varint(rest: &mut &[u8]) -> Result<Option<usize>, WireError> {
    let mut value = 0;
    for place in 0..4 {
        let Some((byte, tail)) = rest.split_first() else { return Ok(None) };
        *rest = tail;
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(WireError::Length)
}

fn packet(version: Version, first: u8, body: &[u8]) -> Result<Packet<'_>, WireError> {
    let kind = first >> 4;
    let short = WireError::Short { kind };
    let number = |at: usize| {
        let bytes = body.get(at..at + 2).ok_or(short)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let byte = |at: usize| body.get(at).copied();
    match kind {
        kind::CONNACK => {
            let flags = byte(0).ok_or(short)?;
            let keep_alive = match version {
                Version::V4 => None,
                Version::V5 => server_keep_alive(body.get(2..).unwrap_or_default()),
            };
            let code = byte(1).ok_or(short)?;
            Ok(Packet::ConnAck { session_present: flags & 1 != 0, code, keep_alive })
        }
        kind::PUBLISH => {
            let qos = (first >> 1) & 3;
            let topic_end = 2 + usize::from(number(0)?);
            let topic = body.get(2..topic_end).ok_or(short)?;
            let mut rest = &body[topic_end..];
            let mut id = 0;
            if qos > 0 {
                id = number(topic_end)?;
                rest = &rest[2..];
            }
            if version == Version::V5 {
                let length = varint(&mut rest)?.ok_or(short)?;
                rest = rest.get(length..).ok_or(short)?;
            }
            let retained = first & 1 != 0;
            Ok(Packet::Message(Message {
                topic,
                payload: rest,
                length: rest.len(),
                qos,
                retained,
                id,
            }))
        }
        kind::SUBACK => {
            let id = number(0)?;
            let mut codes = &body[2..];
            if version == Version::V5 {
                let length = varint(&mut codes)?.ok_or(short)?;
                codes = codes.get(length..).ok_or(short)?;
            }
            Ok(Packet::SubAck { id, codes })
        }
        kind::PUBREL => Ok(Packet::Release { id: number(0)? }),
        kind::PINGRESP => Ok(Packet::Pong),
        kind::DISCONNECT => Ok(Packet::Disconnect { code: byte(0).unwrap_or(0) }),
        kind::PUBACK | kind::PUBREC | kind::PUBCOMP | kind::UNSUBACK | kind::AUTH => {
            Ok(Packet::Other)
        }
        _ => Err(WireError::Kind { kind }),
    }
}

/// Property `Server Keep Alive` of a CONNACK (MQTT 5, §3.2.2.3.14).
fn server_keep_alive(mut properties: &[u8]) -> Option<u16> {
    let length = varint(&mut properties).ok()??;
    let mut rest = properties.get(..length)?;
    while let Some((id, tail)) = rest.split_first() {
        let text = || tail.get(..2).map(|n| 2 + usize::from(u16::from_be_bytes([n[0], n[1]])));
        let size = match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 => return tail.get(..2).map(|n| u16::from_be_bytes([n[0], n[1]])),
            0x21 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text()?,
            0x26 => {
                let key = text()?;
                let value = tail.get(key..key + 2)?;
                key + 2 + usize::from(u16::from_be_bytes([value[0], value[1]]))
            }
            _ => return None,
        };
        rest = tail.get(size..)?;
    }
    None
}

/// How we present ourselves.
#[derive(Debug, Clone, Copy)]
pub struct Connect<'a> {
    /// Which MQTT.
    pub version: Version,
    /// Our name.
    pub client_id: &'a str,
    /// Begin a new session.
    pub clean: bool,
    /// How long the broker keeps the session while we are away, in seconds (MQTT 5).
    pub session_expiry: u32,
    /// How many messages it may send that we have not acknowledged (MQTT 5).
    pub receive_max: u16,
    /// How often it will hear from us, in seconds.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a str>,
}

/// Appends a CONNECT.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let v5 = connect.version == Version::V5;
    let mut body = Vec::with_capacity(64);
    text(&mut body, b"MQTT");
    body.push(if v5 { 5 } else { 4 });
    let flags = u8::from(connect.clean) << 1
        | u8::from(connect.username.is_some()) << 7
        | u8::from(connect.password.is_some()) << 6;
    body.push(flags);
    body.extend(connect.keep_alive.to_be_bytes());
    if v5 {
        body.push(8);
        body.push(0x11);
        body.extend(connect.session_expiry.to_be_bytes());
        body.push(0x21);
        body.extend(connect.receive_max.to_be_bytes());
    }
    text(&mut body, connect.client_id.as_bytes());
    for field in [connect.username, connect.password].into_iter().flatten() {
        text(&mut body, field.as_bytes());
    }
    packet_out(out, 0x10, &body);
}

/// Appends a SUBSCRIBE for these filters.
pub fn subscribe<'a>(
    out: &mut Vec<u8>,
    version: Version,
    id: u16,
    filters: impl Iterator<Item = &'a str>,
    qos: u8,
) {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.push(qos);
    }
    packet_out(out, 0x82, &body);
}

/// Appends a message of QoS 0.
pub fn publish(out: &mut Vec<u8>, version: Version, topic: &str, payload: &[u8]) {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 3);
    text(&mut body, topic.as_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload);
    packet_out(out, 0x30, &body);
}

/// What is said about a message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A message of QoS 1 is safe.
    Ack,
    /// A message of QoS 2 is safe.
    Received,
    /// A message of QoS 2 is forgotten.
    Complete,
}

/// Appends an answer to the message with this number.
pub fn answer(out: &mut Vec<u8>, answer: Answer, id: u16) {
    let first = match answer {
        Answer::Ack => kind::PUBACK << 4,
        Answer::Received => kind::PUBREC << 4,
        Answer::Complete => kind::PUBCOMP << 4,
    };
    let [high, low] = id.to_be_bytes();
    out.extend([first, 2, high, low]);
}

/// Appends a PINGREQ.
pub fn ping(out: &mut Vec<u8>) {
    out.extend([0xc0, 0]);
}

/// Appends a DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend([0xe0, 0]);
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    // The configuration keeps filters and ids shorter than that.
    let text = &text[..text.len().min(usize::from(u16::MAX))];
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text);
}

fn packet_out(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
}

/// What a refused connection says, in words.
#[must_use]
pub fn refusal(version: Version, code: u8) -> &'static str {
    match (version, code) {
        (Version::V4, 1) | (Version::V5, 0x84) => "the broker does not speak this version of MQTT",
        (Version::V4, 2) | (Version::V5, 0x85) => "the client id is not accepted",
        (Version::V4, 3) | (Version::V5, 0x88) => "the broker is not available",
        (Version::V4, 4) | (Version::V5, 0x86) => "user name or password is wrong",
        (Version::V4, 5) | (Version::V5, 0x87) => "not authorised",
        (Version::V5, 0x8a) => "banned",
        (Version::V5, 0x8e) => "another client took the session over",
        (Version::V5, 0x97) => "over quota",
        (Version::V4 | Version::V5, _) => "refused",
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
