//! The wire form against bytes written out by hand from the standards, and against strangers.

#![allow(clippy::wildcard_enum_match_arm, reason = "tests tell one case from all others")]

use super::*;

fn inbox(version: Version, bytes: &[u8]) -> Inbox {
    let mut inbox = Inbox::new(version, 1024);
    inbox.bytes.extend_from_slice(bytes);
    inbox
}

fn large(topic: &str, qos: u8, id: u16, length: usize) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.resize(body.len() + length, b'x');
    let mut out = Vec::new();
    packet_out(&mut out, 0x30 | qos << 1 | 1, &body);
    out
}

#[test]
fn packets_are_read_from_any_cut() {
    let bytes = [
        &[0x20, 2, 1, 0][..],
        &[0x33, 10, 0, 3, b'a', b'/', b'b', 0, 7, b'x', b'y', b'z'],
        &[0x90, 4, 0, 1, 1, 0x80],
        &[0xd0, 0],
        &[0x62, 2, 0, 9],
    ]
    .concat();
    for cut in 1..=bytes.len() {
        let mut inbox = inbox(Version::V4, &[]);
        let mut seen = Vec::new();
        for part in bytes.chunks(cut) {
            inbox.bytes.extend_from_slice(part);
            while let Some(packet) = inbox.next_packet().unwrap() {
                seen.push(format!("{packet:?}"));
            }
        }
        assert_eq!(seen.len(), 5, "{cut}: {seen:?}");
        let message =
            Message { topic: b"a/b", payload: b"xyz", length: 3, qos: 1, retained: true, id: 7 };
        assert_eq!(seen[1], format!("{:?}", Packet::Message(message)));
        let codes = &[1, 0x80];
        assert_eq!(seen[2], format!("{:?}", Packet::SubAck { id: 1, codes }));
        assert_eq!(seen[4], format!("{:?}", Packet::Release { id: 9 }));
    }
}

#[test]
fn properties_of_version_5_are_stepped_over() {
    let message = [0x32, 12, 0, 1, b'a', 0, 9, 5, 0x02, 0, 0, 0, 60, b'v'];
    let mut inbox5 = inbox(Version::V5, &message);
    match inbox5.next_packet().unwrap().unwrap() {
        Packet::Message(message) => assert_eq!((message.payload, message.id), (&b"v"[..], 9)),
        other => panic!("{other:?}"),
    }
    let connack = [0x20, 9, 0, 0, 6, 0x24, 1, 0x13, 0, 30, 0x28];
    let mut broken = inbox(Version::V5, &connack);
    assert!(matches!(broken.next_packet(), Ok(Some(Packet::ConnAck { keep_alive: Some(30), .. }))));
    let disconnect = [0xe0, 2, 0x8e, 0];
    assert_eq!(
        inbox(Version::V5, &disconnect).next_packet(),
        Ok(Some(Packet::Disconnect { code: 0x8e }))
    );
}

#[test]
fn d02_a_large_packet_is_passed_over_without_being_gathered() {
    let size = 3 << 20;
    let bytes = [large("a/b", 1, 5, size), vec![0xd0, 0]].concat();
    for chunk in [1_000, 1_460, 65_536] {
        let mut inbox = inbox(Version::V4, &[]);
        let mut seen = Vec::new();
        let mut most = 0;
        for part in bytes.chunks(chunk) {
            inbox.bytes.extend_from_slice(part);
            most = most.max(inbox.bytes.capacity());
            while let Some(packet) = inbox.next_packet().unwrap() {
                match packet {
                    Packet::Message(message) => {
                        assert_eq!((message.topic, message.id), (&b"a/b"[..], 5));
                        assert_eq!((message.length, message.payload), (size, &b""[..]));
                        seen.push("message");
                    }
                    Packet::Pong => seen.push("pong"),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(seen, ["message", "pong"], "what follows is understood");
        assert!(most <= 4 * chunk.max(1024), "{most} bytes held for chunks of {chunk}");
    }
}

#[test]
fn d01_broken_packets_are_errors_and_no_panic() {
    for broken in [
        &[0x30, 0xff, 0xff, 0xff, 0xff, 1][..],
        &[0x30, 1, 0],
        &[0x32, 3, 0, 1, b'a'],
        &[0x30, 2, 0, 9],
        &[0x20, 1, 0],
        &[0x00, 0],
        &[0xc0, 0],
    ] {
        assert!(inbox(Version::V4, broken).next_packet().is_err(), "{broken:02x?}");
    }
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..200_000 {
        let length = rng.usize(..40);
        let bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        let version = if rng.bool() { Version::V4 } else { Version::V5 };
        let mut inbox = inbox(version, &bytes);
        inbox.packet_max = 16;
        while let Ok(Some(_)) = inbox.next_packet() {}
    }
}

#[test]
fn what_we_send_is_as_the_standard_writes_it() {
    let ask = Connect {
        version: Version::V4,
        client_id: "id",
        clean: false,
        session_expiry: 60,
        receive_max: 20,
        keep_alive: 20,
        username: Some("u"),
        password: Some("p"),
    };
    let mut out = Vec::new();
    connect(&mut out, &ask);
    let expected = b"\x10\x14\x00\x04MQTT\x04\xc0\x00\x14\x00\x02id\x00\x01u\x00\x01p";
    assert_eq!(out, expected);
    out.clear();
    connect(
        &mut out,
        &Connect { version: Version::V5, clean: true, username: None, password: None, ..ask },
    );
    let expected =
        b"\x10\x17\x00\x04MQTT\x05\x02\x00\x14\x08\x11\x00\x00\x00\x3c\x21\x00\x14\x00\x02id";
    assert_eq!(out, expected);
    out.clear();
    subscribe(&mut out, Version::V4, 1, ["a", "b/#"].into_iter(), 1);
    assert_eq!(out, b"\x82\x0c\x00\x01\x00\x01a\x01\x00\x03b/#\x01");
    out.clear();
    answer(&mut out, Answer::Ack, 258);
    assert_eq!(out, [0x40, 2, 1, 2]);
    out.clear();
    publish(&mut out, Version::V5, "t", b"x");
    assert_eq!(out, b"\x30\x05\x00\x01t\x00x");
}
