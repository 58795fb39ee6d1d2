//! The decoders that read what strangers send, each as a function of bytes. Fuzz targets and
//! `tests/it/fuzz_corpus.rs` share this file; neither may find an input that panics.

use std::collections::BTreeMap;
use std::path::Path;

use wheeltap::config::{self, Column, Samples, Table};
use wheeltap::sources::line::frame::{self, Body, Query};
use wheeltap::sources::mqtt::wire;
use wheeltap::sources::payload::{self, Format};
use wheeltap::sources::scan::identity;
use wheeltap::sparkplug;

/// One decoder.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// Name, that of its fuzz target and of its folder in the corpus.
    pub name: &'static str,
    /// What it is given is decoded; an error is fine, a panic is not.
    pub run: fn(&[u8]),
    /// Words of its language, for mutations that get past the first check.
    pub words: &'static [&'static [u8]],
    /// How many inputs one of the cheapest is worth.
    pub cost: u32,
}

/// All decoders.
pub const DECODERS: &[Decoder] = &[
    Decoder { name: "json_payload", run: json_payload, words: JSON, cost: 1 },
    Decoder { name: "text_payload", run: text_payload, words: NUMBERS, cost: 1 },
    Decoder { name: "sparkplug_payload", run: sparkplug_payload, words: PROTOBUF, cost: 1 },
    Decoder { name: "mqtt_packets", run: mqtt_packets, words: MQTT, cost: 1 },
    Decoder { name: "modbus_tcp", run: modbus_tcp, words: MODBUS, cost: 1 },
    Decoder { name: "modbus_rtu", run: modbus_rtu, words: MODBUS, cost: 1 },
    Decoder { name: "configuration", run: configuration, words: TOML, cost: 20 },
    Decoder { name: "fault_script", run: fault_script, words: FAULTS, cost: 10 },
    Decoder { name: "device_identification", run: device_identification, words: MODBUS, cost: 1 },
];

const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"18446744073709551616",
    b"\"NaN\"",
    b"\"\\ud800\"",
    b"\"\\u0000\"",
    b"/rms",
    b"/",
    b"\n",
    b"~1",
    b"~0",
    b"/0",
];
const NUMBERS: &[&[u8]] = &[
    b"NaN",
    b"inf",
    b"1e999",
    b"-0",
    b".",
    b"e",
    b"true",
    b"0x10",
    b"\xc2\xa0",
    b"18446744073709551616",
];
const PROTOBUF: &[&[u8]] = &[
    b"\x08\x01",
    b"\x12\x00",
    b"\x12\x02\x10\x01",
    b"\x0a\x01a",
    b"\x18\xff\x01",
    b"\x20\x0a",
    b"\x69\x00\x00\x00\x00\x00\x00\xf0\x7f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x4a\x0b\x0a\x07Quality",
];
const MQTT: &[&[u8]] = &[
    b"\x20\x02\x00\x00",
    b"\x30\x04\x00\x01a1",
    b"\x32\x06\x00\x01a\x00\x011",
    b"\x32\xff\xff\x7f",
    b"\x90\x03\x00\x01\x80",
    b"\xd0\x00",
    b"\x62\x02\x00\x01",
    b"\xe0\x01\x8e",
    b"\x13\x00\x1e",
];
const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"]]",
    b"=",
    b"\"",
    b"'''",
    b"\n",
    b"#",
    b"{",
    b"}",
    b"1979-05-27",
    b"[[modbus]]\n",
    b"[[modbus.tag]]\n",
    b"[[mqtt]]\n",
    b"[[asset]]\n",
    b"[store]\n",
    b"point = ",
    b"\"holding:65535\"",
    b"\"bits:3-6\"",
    b"\"mod10k:4\"",
    b"range = [0, 1]\n",
    b"9223372036854775808",
    b"\"999999999999d\"",
    b"\"8EiB\"",
    b"inf",
    b"nan",
    b"0xffff",
    b"limits = {",
    b"poll = \"1ms\"\n",
];
const FAULTS: &[&[u8]] = &[
    b"[[fault]]\n",
    b"what = ",
    b"\"delay\"\n",
    b"\"drop\"\n",
    b"\"garbage\"\n",
    b"\"registers\"\n",
    b"units = \"1-247\"\n",
    b"units = \"9-3,\"\n",
    b"points = \"holding:0-65535\"\n",
    b"chance = 2\n",
    b"by = -1\n",
    b"from = \"100000d\"\n",
    b"most = 0\n",
    b"seed = -1\n",
];
const MODBUS: &[&[u8]] = &[
    b"\x00",
    b"\xff",
    b"\x2b\x0e",
    b"\x11",
    b"\x83\x02",
    b"\x00\x00",
    b"\xff\xff",
    b"\x7f",
    b"\x80",
    b"\xfd",
];

/// A JSON payload; the first line is the pointer to the value, and to its time.
pub fn json_payload(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (pointer, message) = data.split_at(at);
    let Ok(text) = std::str::from_utf8(pointer) else { return };
    let Some(pointer) = payload::Pointer::parse(text) else { return };
    let mut plan = payload::JsonPlan::default();
    plan.add(&pointer, Some(&pointer));
    let mut found = payload::Found::default();
    if payload::decode(&Format::Json(plan), message, payload::BYTES_MAX, &mut found).is_err() {
        return;
    }
    for item in found.items() {
        if let payload::Value::Number(number) = item.value {
            // What is out of the range of a float must be told from a number that is none.
            assert!(!number.is_nan() || contains(message, b"nan"), "a NaN out of {message:?}");
        }
        if let Some(time) = item.time {
            assert_eq!(time.calendar().as_microsecond(), time.micros());
        }
    }
}

fn contains(message: &[u8], word: &[u8]) -> bool {
    // Escapes may spell it too.
    message.contains(&b'\\')
        || message.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// A payload that is a number as text; the same bytes as CSV and as samples.
pub fn text_payload(data: &[u8]) {
    let mut found = payload::Found::default();
    let mut cells = payload::CsvPlan::new(b',');
    let time = Some(Column::Name("t".to_owned()));
    cells.add(payload::CsvSlot { value: Column::Index(1), time });
    let forms = [
        Format::Text,
        Format::Csv(cells),
        Format::Binary(Samples::F32Le),
        Format::Binary(Samples::I16Le),
    ];
    for form in forms {
        payload::decode(&form, data, payload::BYTES_MAX, &mut found).ok();
    }
}

/// A Sparkplug B payload.
pub fn sparkplug_payload(data: &[u8]) {
    if let Ok(message) = sparkplug::incoming::decode(data) {
        assert!(message.metrics.len() <= sparkplug::incoming::METRICS_MAX);
    }
}

/// What a broker sends: packets of MQTT 3.1.1 or, after an odd first byte, of 5.
pub fn mqtt_packets(data: &[u8]) {
    let Some((first, packets)) = data.split_first() else { return };
    let version = if first & 1 == 0 { wire::Version::V4 } else { wire::Version::V5 };
    let mut inbox = wire::Inbox::new(version, 64);
    for part in packets.chunks(1 + usize::from(first >> 1)) {
        inbox.bytes.extend_from_slice(part);
        while let Ok(Some(_)) = inbox.next_packet() {}
    }
}

/// What a frame is the answer to: the first six bytes of the input.
fn asked(data: &[u8]) -> Option<(u16, Query, u8, &[u8])> {
    let (head, frame) = data.split_at_checked(6)?;
    let table =
        [Table::Coil, Table::Discrete, Table::Holding, Table::Input][usize::from(head[2]) % 4];
    let bits = matches!(table, Table::Coil | Table::Discrete);
    let count = u16::from_be_bytes([head[4], head[5]]) % if bits { 2000 } else { 125 } + 1;
    let query = Query { unit: head[3], table, address: 0, count };
    let other = if head[2] & 0x80 == 0 { 17 } else { 43 };
    Some((u16::from_be_bytes([head[0], head[1]]), query, other, frame))
}

/// A prefix of an answer is never an error by itself, and values are as many as were asked for.
fn sound(whole: &Result<Option<Body<'_>>, frame::FrameError>, query: &Query) {
    if let Ok(Some(Body::Values(values))) = whole {
        assert_eq!(values.len(), query.value_bytes(), "another number of values");
    }
}

/// Answers on Modbus TCP, to reads and to questions who is there.
pub fn modbus_tcp(data: &[u8]) {
    let Some((transaction, query, other, bytes)) = asked(data) else { return };
    let whole = frame::tcp(bytes, transaction, &query);
    sound(&whole, &query);
    if matches!(whole, Ok(Some(_))) {
        for end in 0..bytes.len() {
            let part = frame::tcp(&bytes[..end], transaction, &query);
            assert!(matches!(part, Ok(None)), "{end} of {} bytes: {part:?}", bytes.len());
        }
    }
    if let Ok(Some(pdu)) = frame::other_tcp(bytes, transaction, query.unit, other) {
        drop(identity::server_id(pdu));
        identity::take(pdu, &mut identity::Identity::default()).ok();
    }
}

/// The same on RTU; the checksum is put right, or hardly anything would get past it.
pub fn modbus_rtu(data: &[u8]) {
    let Some((_, query, other, bytes)) = asked(data) else { return };
    let summed = |end: usize| {
        let mut frame = bytes[..end].to_vec();
        frame.extend(frame::crc(&frame).to_le_bytes());
        frame
    };
    // As it came, with a checksum behind all of it, and where a read's answer would end.
    let mut ends = vec![bytes.len()];
    ends.extend(Some(3 + query.value_bytes()).filter(|end| *end <= bytes.len()));
    ends.extend(Some(3).filter(|end| *end <= bytes.len()));
    for frame in ends.into_iter().map(summed).chain([bytes.to_vec()]) {
        let whole = frame::rtu(&frame, &query);
        sound(&whole, &query);
        if let Ok(Some(pdu)) = frame::other_rtu(&frame, query.unit, other) {
            assert!(pdu.len() + 3 <= frame.len(), "a PDU beyond its frame");
            identity::take(pdu, &mut identity::Identity::default()).ok();
        }
    }
}

/// A configuration file.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = config::parse(text, Path::new("fuzz.toml"), &BTreeMap::new()) {
        assert!(!errors.mistakes.is_empty(), "refused without a reason");
        let lines = text.lines().count() + 1;
        for mistake in &errors.mistakes {
            assert!((1..=lines).contains(&mistake.line) && mistake.column >= 1, "{mistake}");
        }
    }
}

/// A fault script of the simulator.
pub fn fault_script(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(errors) = config::parse_faults(text, Path::new("fuzz.toml")) {
        assert!(!errors.mistakes.is_empty(), "refused without a reason");
    }
}

/// What a device says of itself when it is scanned.
pub fn device_identification(data: &[u8]) {
    let mut who = identity::Identity::default();
    identity::take(data, &mut who).ok();
    let id = identity::server_id(data).unwrap_or_default();
    assert!(!id.chars().any(char::is_control), "{id:?}");
    for text in [&who.vendor, &who.product, &who.revision, &who.name] {
        assert!(!text.chars().any(char::is_control), "{text:?} would move a terminal's cursor");
    }
}
