use super::*;
use crate::domain::ids::TagKey;
use crate::domain::reading::Quality;
use crate::domain::time::Timestamp;
use crate::store::{BootInfo, RingReader};
use std::sync::mpsc;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Longer than any test may take: only ever waited out by a failing one.
const PATIENCE: Duration = Duration::from_secs(60);

fn readings(from: u64, count: u64) -> Vec<Reading> {
    (from..from + count)
        .map(|arrival| Reading {
            tag: TagKey(1),
            arrival: Arrival(arrival),
            time: Timestamp::from_micros(arrival.cast_signed() * 1_000_000),
            value: 1.5,
            quality: Quality::Good,
        })
        .collect()
}

fn boot() -> BootInfo {
    BootInfo {
        id: Uuid::from_u128(1),
        utc: Timestamp::from_micros(0),
        mono: Duration::ZERO,
        trusted: true,
    }
}

fn acked(from: u64, count: u64) -> (RingBatch, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    (
        RingBatch {
            readings: readings(from, count),
            acks: vec![Ack(sender)],
            ..RingBatch::default()
        },
        receiver,
    )
}

#[test]
fn a_waiting_sender_is_told_long_before_the_group_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (ring, _) = RingDb::open(dir.path(), 16 << 20, &boot()).unwrap();
    let (handle, join) = RingThread::start(ring, Duration::from_secs(3600), |_| {}).unwrap();
    let (one, told) = acked(1, 5);
    handle.try_append(one).unwrap();
    told.blocking_recv().unwrap();
    let reader = RingReader::open(dir.path()).unwrap();
    assert_eq!(reader.last_arrival().unwrap(), Arrival(5));
    let many: Vec<_> = (0..ACKS_DUE as u64)
        .map(|n| {
            let (batch, told) = acked(6 + n, 1);
            handle.try_append(batch).unwrap();
            told
        })
        .collect();
    many.into_iter().for_each(|told| told.blocking_recv().unwrap());
    assert_eq!(reader.last_arrival().unwrap(), Arrival(15));
    drop(handle);
    join.join().unwrap();
}

#[test]
fn stopping_commits_what_there_is_and_marks_the_file_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (ring, _) = RingDb::open(dir.path(), 16 << 20, &boot()).unwrap();
    let (handle, join) = RingThread::start(ring, Duration::from_secs(3600), |_| {}).unwrap();
    handle
        .try_append(RingBatch {
            readings: readings(1, 1000),
            acks: Vec::new(),
            ..RingBatch::default()
        })
        .unwrap();
    let durable = handle.durable();
    handle.stop();
    join.join().unwrap();
    assert_eq!(*durable.borrow(), Arrival(1000));
    let (ring, opened) = RingDb::open(dir.path(), 16 << 20, &boot()).unwrap();
    assert!(opened.clean_stop);
    assert_eq!(ring.last_arrival(), Arrival(1000));
}

#[test]
fn a_full_queue_hands_the_batch_back() {
    let ring = RingDb::in_memory().unwrap();
    let (started, starts) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    // The first report blocks the thread: closing the database under it makes a commit fail.
    ring.break_for_test();
    let (handle, join) = RingThread::start(ring, Duration::ZERO, move |report| {
        started.send(report).unwrap();
        gate.recv_timeout(PATIENCE).ok();
    })
    .unwrap();
    handle
        .try_append(RingBatch {
            readings: readings(1, 1),
            acks: Vec::new(),
            ..RingBatch::default()
        })
        .unwrap();
    starts.recv_timeout(PATIENCE).unwrap();
    let half = QUEUE_READINGS_MAX as u64 / 2;
    handle
        .try_append(RingBatch {
            readings: readings(2, half),
            acks: Vec::new(),
            ..RingBatch::default()
        })
        .unwrap();
    handle
        .try_append(RingBatch {
            readings: readings(2 + half, half),
            acks: Vec::new(),
            ..RingBatch::default()
        })
        .unwrap();
    let back = handle.try_append(RingBatch {
        readings: readings(2 + 2 * half, 1),
        acks: Vec::new(),
        ..RingBatch::default()
    });
    assert_eq!(back.unwrap_err().readings.len(), 1);
    assert_eq!(handle.queued(), QUEUE_READINGS_MAX);
    drop(go);
    drop(handle);
    join.join().unwrap();
}

#[test]
fn while_commits_fail_the_oldest_fall_and_their_senders_stay_untold() {
    let ring = RingDb::in_memory().unwrap();
    ring.break_for_test();
    let (sender, reports) = mpsc::channel();
    let (handle, join) =
        RingThread::start(ring, Duration::ZERO, move |report| sender.send(report).unwrap())
            .unwrap();
    let (first, untold) = acked(1, 10);
    handle.try_append(first).unwrap();
    let RingReport::Failing { .. } = reports.recv_timeout(PATIENCE).unwrap() else {
        panic!("commits fail")
    };
    let mut next = 11;
    while next <= GROUP_READINGS_MAX as u64 + 1000 {
        let batch =
            RingBatch { readings: readings(next, 1000), acks: Vec::new(), ..RingBatch::default() };
        match handle.try_append(batch) {
            Ok(()) => next += 1000,
            Err(_) => std::thread::yield_now(),
        }
    }
    let RingReport::Lost(lost) = reports.recv_timeout(PATIENCE).unwrap() else {
        panic!("the oldest fall")
    };
    assert_eq!(lost.from, Arrival(1));
    assert!(untold.blocking_recv().is_err());
    drop(handle);
    join.join().unwrap();
}
