//! Modbus lines in memory and virtual time: never a wrong value, whatever happens on the way, and
//! no time wasted. Names carry the ids of the failure catalogue.

use std::time::Duration;

use tokio::time::Instant;
use wheeltap::config::{LineOptions, Link, Parity, Serial, Table};
use wheeltap::sources::line::{Answer, Framing, Line, LineError, Timing, cost};
use wheeltap::sources::poll_plan::{self, Extent};

use crate::support::memory_line::{FarEnd, Sent, rtu_frame};
use crate::support::modbus_server::{Ask, Reply};

/// What a device gets to answer.
const PATIENCE: Duration = Duration::from_millis(500);
const BAUD: u32 = 115_200;

fn timing(framing: Framing) -> Timing {
    match framing {
        Framing::Tcp => Timing::default(),
        Framing::Rtu => Timing::serial(BAUD, 11),
    }
}

/// What register `address` of a unit holds, whenever it is read.
fn word(unit: u8, address: u16) -> u16 {
    (u16::from(unit) << 8 | 0x55).wrapping_mul(31) ^ address.wrapping_mul(0x9E37).rotate_left(5)
}

/// The true answer, the first register of which counts the requests: an answer to an earlier one
/// cannot pass for the answer to this one.
fn truth(framing: Framing, ask: &Ask) -> Vec<u8> {
    let [_, _, _, _, _, _, low, high] = ask.nth.to_be_bytes();
    let count = u16::from_be_bytes([low, high]);
    let rest = (1..ask.count).map(|place| word(ask.unit, ask.address + place));
    framed(framing, ask, &Reply::Words(std::iter::once(count).chain(rest).collect()))
}

fn framed(framing: Framing, ask: &Ask, reply: &Reply) -> Vec<u8> {
    let frame = reply.frame(ask);
    match framing {
        Framing::Tcp => frame,
        Framing::Rtu => rtu_frame(&frame),
    }
}

fn now(began: Instant) -> Duration {
    began.elapsed()
}

/// The client as the bus drives it: after a failure the line decides what becomes of the connection.
struct Client {
    line: Line,
    began: Instant,
    rng: fastrand::Rng,
}

impl Client {
    fn new(line: Line) -> Self {
        Self { line, began: Instant::now(), rng: fastrand::Rng::with_seed(7) }
    }

    async fn read(&mut self, unit: u8, address: u16, count: u16) -> Result<Answer, LineError> {
        while let Some(at) = self.line.retry_at() {
            tokio::time::sleep(at.saturating_sub(now(self.began))).await;
            if let Err(error) = self.line.connect().await {
                self.line.drop_connection(now(self.began), &mut self.rng);
                return Err(error);
            }
        }
        let answer = self.line.read(unit, Table::Holding, address, count, PATIENCE).await;
        match &answer {
            Ok(_) => self.line.answered(),
            Err(_) => self.line.drop_connection(now(self.began), &mut self.rng),
        }
        answer
    }
}

/// How a campaign went.
#[derive(Debug, Default)]
struct Tally {
    good: u32,
    failed: u32,
    wrong: u32,
}

/// Reads so many times, all in the same shape, so that on RTU any stale answer would fit.
async fn campaign(client: &mut Client, far: &FarEnd, polls: u32, count: u16) -> Tally {
    let mut tally = Tally::default();
    for poll in 0..polls {
        let unit = if poll % 3 == 2 { 2 } else { 1 };
        let address = [0, 100, 200, 300, 400, 500, 600][poll as usize % 7];
        match client.read(unit, address, count).await {
            Ok(Answer::Registers(words)) => {
                let newest = (far.asked() - 1).to_be_bytes();
                let right = words.len() == usize::from(count)
                    && words[0].to_be_bytes() == newest[6..]
                    && (1..count).all(|n| words[usize::from(n)] == word(unit, address + n));
                if right {
                    tally.good += 1;
                } else {
                    tally.wrong += 1;
                }
            }
            Ok(Answer::Bits(_) | Answer::Exception(_)) => tally.wrong += 1,
            Err(_) => tally.failed += 1,
        }
    }
    tally
}

/// 5 % late, 1 % corrupted, 1 % truncated.
fn plagued(framing: Framing) -> impl FnMut(&Ask, &mut fastrand::Rng) -> Vec<Sent> + Send {
    let drain = Timing::serial(BAUD, 11).drain;
    move |ask, rng| {
        let mut frame = truth(framing, ask);
        let soon = Duration::from_millis(2);
        match rng.u32(0..100) {
            // After the client has given up, and on RTU before it has waited for silence.
            0..5 => vec![(PATIENCE + drain.mul_f64(rng.f64() * 0.98), frame)],
            5 => {
                for _ in 0..rng.usize(1..4) {
                    let place = rng.usize(0..frame.len());
                    // On TCP a wrong value is not for Modbus to notice: TCP has checksums of its
                    // own. What can be wrong there is what a faulty gateway writes into headers.
                    let place = if framing == Framing::Tcp { place % 9 } else { place };
                    frame[place] ^= 1 << rng.u32(0..8);
                }
                vec![(soon, frame)]
            }
            6 => {
                frame.truncate(rng.usize(0..frame.len()));
                vec![(soon, frame)]
            }
            _ => vec![(soon, frame)],
        }
    }
}

async fn a_hundred_thousand_polls(framing: Framing, seed: u64) {
    println!("SEED={seed}");
    let far = FarEnd::new(framing, timing(framing), seed, plagued(framing));
    let mut client = Client::new(far.line(&LineOptions::default()));
    let tally = campaign(&mut client, &far, 100_000, 5).await;
    println!("{framing:?}: {tally:?}, {:?}", client.line.counters());
    assert_eq!(tally.wrong, 0, "wrong values");
    // Each fault costs one poll, and on TCP no more than the connection.
    assert!((6_000..8_000).contains(&tally.failed), "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn c02_a_hundred_thousand_plagued_polls_on_tcp_bring_no_wrong_value() {
    a_hundred_thousand_polls(Framing::Tcp, 0x5eed_0c02).await;
}

#[tokio::test(start_paused = true)]
async fn c03_a_hundred_thousand_plagued_polls_on_rtu_bring_no_wrong_value() {
    a_hundred_thousand_polls(Framing::Rtu, 0x5eed_0c03).await;
}

/// How long these polls take at 9,600 baud with a device that needs 10 ms.
async fn timed_with_bit_errors(chance: f64, polls: u32, seed: u64) -> (Tally, Duration) {
    let timing = Timing::serial(9_600, 11);
    let script = |ask: &Ask, _: &mut fastrand::Rng| {
        vec![(Duration::from_millis(10), truth(Framing::Rtu, ask))]
    };
    let far = FarEnd::new(Framing::Rtu, timing, seed, script).with_bit_errors(chance);
    let mut client = Client::new(far.line(&LineOptions::default()));
    let tally = campaign(&mut client, &far, polls, 20).await;
    println!("bit errors {chance:e}: {tally:?}, {:?}", client.line.counters());
    (tally, client.began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn c05_bit_noise_brings_no_wrong_value() {
    let seed = 0x5eed_0c05;
    println!("SEED={seed}");
    let (tally, _) = timed_with_bit_errors(1e-3, 100_000, seed).await;
    assert_eq!(tally.wrong, 0, "{tally:?}");
    // (1 - 1e-3)^(8 bits of 53 bytes) of the polls pass unharmed.
    assert!(tally.good > 60_000, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn c05_a_little_noise_costs_little() {
    let seed = 0x5eed_0c15;
    println!("SEED={seed}");
    let (clean, clean_took) = timed_with_bit_errors(0.0, 10_000, seed).await;
    let (noisy, noisy_took) = timed_with_bit_errors(1e-5, 10_000, seed).await;
    assert_eq!((clean.failed, noisy.wrong), (0, 0));
    let rate = |tally: &Tally, took: Duration| f64::from(tally.good) / took.as_secs_f64();
    let share = rate(&noisy, noisy_took) / rate(&clean, clean_took);
    println!("at bit errors of 1e-5: {:.1} % of the clean line's throughput", share * 100.0);
    assert!(share >= 0.9, "{share}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_on_rtu_takes_hardly_longer_than_the_line_needs() {
    let seed = 0x5eed_9600;
    println!("SEED={seed}");
    let serial = Serial {
        path: "/dev/ttyS0".into(),
        baud: 9_600,
        parity: Parity::Even,
        data_bits: 8,
        stop_bits: 1,
    };
    let (link, options) = (Link::Serial(serial), LineOptions::default());
    let timing = Timing::of(&link);
    let turnaround = Duration::from_millis(10);
    // A map as meters have it: groups of 32-bit values with holes between.
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut address = 0;
    let extents: Vec<Extent> = (0..120)
        .map(|_| {
            address += *rng.choice(&[2, 2, 2, 2, 6, 30, 80]).unwrap();
            Extent { address, count: 2 }
        })
        .collect();
    let rules = poll_plan::Rules {
        table: Table::Holding,
        longest: 125,
        fill: u16::MAX,
        alone: false,
        cost: cost(&link, &options),
    };
    let plan = poll_plan::plan(&extents, &rules, &Default::default());

    let far = FarEnd::new(Framing::Rtu, timing, seed, move |ask, _| {
        vec![(turnaround, truth(Framing::Rtu, ask))]
    });
    let mut client = Client::new(far.line(&options));
    client.read(1, 0, 1).await.unwrap();
    let began = Instant::now();
    let mut least = Duration::ZERO;
    for _ in 0..20 {
        for block in &plan {
            client.read(1, block.address, block.count).await.unwrap();
            let characters = 13 + u32::from(block.count) * 2;
            least += timing.character * characters + turnaround + timing.silence;
        }
    }
    let share = least.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{} requests a cycle; {:.1} % of the line's throughput", plan.len(), share * 100.0);
    assert!(share >= 0.95, "{share}");
}

/// A line on RTU whose far end does as told, and what was sent when.
fn scripted(
    options: &LineOptions,
    script: impl FnMut(&Ask, &mut fastrand::Rng) -> Vec<Sent> + Send + 'static,
) -> (FarEnd, Client) {
    let far = FarEnd::new(Framing::Rtu, timing(Framing::Rtu), 1, script);
    let client = Client::new(far.line(options));
    (far, client)
}

fn honest(ask: &Ask) -> Vec<Sent> {
    vec![(Duration::from_millis(5), truth(Framing::Rtu, ask))]
}

/// The first answer is this lie, the others are true. Returns the error of the first.
async fn lied_to(lie: impl Fn(&Ask) -> Vec<u8> + Send + 'static) -> LineError {
    let (_far, mut client) = scripted(&LineOptions::default(), move |ask, _| match ask.nth {
        0 => vec![(Duration::from_millis(5), lie(ask))],
        _ => honest(ask),
    });
    let error = client.read(1, 10, 2).await.expect_err("a lie is no answer");
    assert!(matches!(client.read(1, 10, 2).await, Ok(Answer::Registers(words)) if words[0] == 1));
    assert_eq!(client.line.counters().connections, 1, "the line stays open");
    error
}

#[tokio::test(start_paused = true)]
async fn c04_c07_c14_on_rtu_answers_that_do_not_fit_are_errors_and_the_line_stays_open() {
    for count in [0, 1, 3, 125] {
        let words = vec![7; count];
        let error =
            lied_to(move |ask| framed(Framing::Rtu, ask, &Reply::Words(words.clone()))).await;
        assert!(matches!(error, LineError::Length { expected: 2, got, .. } if got == count));
    }
    // Another unit's answer, as after a collision; another function's.
    let error = lied_to(|ask| truth(Framing::Rtu, &Ask { unit: 2, ..*ask })).await;
    assert!(matches!(&error, LineError::Mismatch { what, .. } if what.contains("unit 2")));
    let error = lied_to(|ask| truth(Framing::Rtu, &Ask { function: 4, ..*ask })).await;
    assert!(matches!(&error, LineError::Mismatch { what, .. } if what.contains("function 4")));
    // Two answers at a time: whose is which?
    let error = lied_to(|ask| [truth(Framing::Rtu, ask), truth(Framing::Rtu, ask)].concat()).await;
    assert!(error.chain().contains("after the answer"), "{}", error.chain());
    let error = lied_to(|ask| {
        let mut frame = truth(Framing::Rtu, ask);
        frame[4] ^= 0x10;
        frame
    })
    .await;
    assert!(error.chain().contains("checksum"), "{}", error.chain());
}

#[tokio::test(start_paused = true)]
async fn c01_on_rtu_a_silent_unit_costs_its_deadline_and_the_next_is_asked_after_silence() {
    let (far, mut client) = scripted(&LineOptions::default(), |ask, _| match ask.unit {
        1 => Vec::new(),
        _ => honest(ask),
    });
    let error = client.read(1, 0, 2).await.unwrap_err();
    assert!(matches!(error, LineError::Timeout { unit: 1, .. }), "{error}");
    let gave_up = Instant::now();
    assert!(client.read(2, 0, 2).await.is_ok());
    let asked = *far.times.lock().unwrap().back().unwrap();
    let drain = timing(Framing::Rtu).drain;
    assert!((drain..drain + Duration::from_millis(10)).contains(&(asked - gave_up)));
    assert_eq!(client.line.counters().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn c13_on_rtu_a_byte_now_and_then_does_not_stretch_the_deadline() {
    let (_far, mut client) = scripted(&LineOptions::default(), |ask, _| {
        let frame = truth(Framing::Rtu, ask);
        frame.into_iter().map(|byte| (Duration::from_millis(90), vec![byte])).collect()
    });
    assert!(client.line.connect().await.is_ok());
    // Past the silence that a fresh line gets.
    let silence = timing(Framing::Rtu).drain;
    let began = Instant::now();
    assert!(matches!(client.read(1, 0, 2).await, Err(LineError::Timeout { .. })));
    assert!(began.elapsed() < silence + PATIENCE + Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn c03_an_answer_later_than_the_drain_is_not_taken_for_another_of_its_shape() {
    let late = Duration::from_millis(1_050);
    let (far, mut client) = scripted(&LineOptions::default(), move |ask, _| match ask.nth {
        0 => vec![(late, truth(Framing::Rtu, ask))],
        _ => honest(ask),
    });
    client.read(1, 100, 3).await.unwrap_err();
    let gave_up = Instant::now();
    let answer = client.read(1, 200, 3).await.unwrap();
    let Answer::Registers(words) = answer else { panic!("{answer:?}") };
    assert_eq!(words[1], word(1, 201));
    let asked = *far.times.lock().unwrap().back().unwrap();
    assert!(asked - gave_up > late - PATIENCE, "it was waited for");
    // A request of another shape cannot be mistaken and waits for nothing but the drain.
    let (far, mut client) = scripted(&LineOptions::default(), move |ask, _| match ask.nth {
        0 => Vec::new(),
        _ => honest(ask),
    });
    client.read(1, 100, 3).await.unwrap_err();
    let gave_up = Instant::now();
    client.read(1, 200, 4).await.unwrap();
    let asked = *far.times.lock().unwrap().back().unwrap();
    assert!(asked - gave_up < Duration::from_millis(220), "{:?}", asked - gave_up);
}

/// A device that is always late: each answer comes after the next request of its kind was sent.
#[tokio::test(start_paused = true)]
async fn c03_a_device_that_is_always_late_never_answers_for_another_address() {
    let late = PATIENCE + Duration::from_millis(400);
    let (_far, mut client) =
        scripted(&LineOptions::default(), move |ask, _| vec![(late, truth(Framing::Rtu, ask))]);
    let (mut right, mut none) = (0, 0);
    for round in 0..40_u16 {
        for address in [100, 100, 200, 100, 300, 200] {
            match client.read(1, address, 3).await {
                Ok(Answer::Registers(words)) => {
                    assert_eq!(words[1], word(1, address + 1), "round {round}, {address}");
                    right += 1;
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => none += 1,
            }
        }
    }
    assert!(none > 0, "{right} right, {none} without an answer");
}

#[tokio::test(start_paused = true)]
async fn c05_a_line_that_babbles_is_an_error_within_bounds() {
    let (_far, mut client) = scripted(&LineOptions::default(), |_, _| {
        (0..100).map(|_| (Duration::from_millis(50), vec![0xFF; 64])).collect()
    });
    client.read(1, 0, 2).await.unwrap_err();
    let began = Instant::now();
    let error = client.read(1, 0, 2).await.unwrap_err();
    assert!(error.chain().contains("bytes keep coming"), "{}", error.chain());
    assert!(began.elapsed() < Duration::from_millis(2_300), "{:?}", began.elapsed());
    assert!(client.line.counters().stray_bytes > 1_000);
}

#[tokio::test(start_paused = true)]
async fn between_two_frames_lie_three_and_a_half_characters_and_the_configured_pauses() {
    let pauses = [(0, 0, 2, 2), (20, 0, 20, 20), (20, 50, 20, 50), (0, 30, 2, 30)];
    for (between, on_change, same, other) in pauses {
        let options = LineOptions {
            pause_after_connect: Duration::from_millis(300),
            pause_between_requests: Duration::from_millis(between),
            pause_on_unit_change: Duration::from_millis(on_change),
            ..LineOptions::default()
        };
        let (far, mut client) = scripted(&options, |ask, _| honest(ask));
        let began = Instant::now();
        client.read(1, 0, 2).await.unwrap();
        let first = far.times.lock().unwrap()[0] - began;
        assert!(first >= Duration::from_millis(500), "after connecting, and silence: {first:?}");
        for (unit, expected) in [(1, same), (2, other)] {
            let answered = Instant::now();
            client.read(unit, 0, 2).await.unwrap();
            let wire = timing(Framing::Rtu).character * 8;
            let asked = *far.times.lock().unwrap().back().unwrap();
            let pause = (asked - answered).saturating_sub(wire);
            let least = timing(Framing::Rtu).silence.max(Duration::from_millis(expected - 1));
            let most = Duration::from_millis(expected + 3);
            assert!((least..most).contains(&pause), "{pause:?} instead of {expected} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_echo_is_taken_off_the_line_where_it_is_announced() {
    let request = |ask: &Ask| {
        let [a, b] = ask.address.to_be_bytes();
        let [c, d] = ask.count.to_be_bytes();
        rtu_frame(&[0, 0, 0, 0, 0, 0, ask.unit, ask.function, a, b, c, d])
    };
    let announced = LineOptions { local_echo: true, ..LineOptions::default() };
    let echoing = move |ask: &Ask, _: &mut fastrand::Rng| {
        let echo = (Duration::ZERO, request(ask));
        std::iter::once(echo).chain(honest(ask)).collect()
    };
    let (_far, mut client) = scripted(&announced, echoing);
    for _ in 0..3 {
        assert!(client.read(1, 0x0203, 2).await.is_ok());
    }
    let (_far, mut client) = scripted(&announced, move |ask, rng| {
        // Echo and answer in one piece, as converters bundle them.
        let pieces = echoing(ask, rng);
        vec![(Duration::from_millis(5), pieces.into_iter().flat_map(|(_, bytes)| bytes).collect())]
    });
    assert!(client.read(1, 0x0203, 2).await.is_ok());
    // Two talk at a time: what comes back is not what was sent.
    let (_far, mut client) = scripted(&announced, |ask, _| honest(ask));
    let error = client.read(1, 0, 2).await.unwrap_err();
    assert!(error.chain().contains("echo"), "{}", error.chain());
    // An echo that nobody announced is an error that says what to do, never a value.
    let (_far, mut client) = scripted(&LineOptions::default(), echoing);
    let error = client.read(1, 0x0203, 2).await.unwrap_err();
    assert!(error.chain().contains("set local_echo"), "{}", error.chain());
}
