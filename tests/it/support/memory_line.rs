//! A Modbus line in memory, in virtual time: what a request and its answer take on the wire passes
//! by itself, bits flip, answers are late, torn or garbled, as a seed says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use wheeltap::config::LineOptions;
use wheeltap::sources::line::frame::crc;
use wheeltap::sources::line::{Framing, Line, Stream, Timing};

use super::modbus_server::Ask;

/// Bytes that go out some time after the request has wholly arrived.
pub(crate) type Sent = (Duration, Vec<u8>);

/// What the far end does about a request: in order, what it sends and after which pause each.
pub(crate) type Script = Box<dyn FnMut(&Ask, &mut fastrand::Rng) -> Vec<Sent> + Send>;

/// The far end of a line.
#[derive(Clone)]
pub(crate) struct FarEnd {
    framing: Framing,
    timing: Timing,
    /// Chance of each bit to be flipped on the way, either way.
    bit_errors: f64,
    script: Arc<Mutex<Script>>,
    rng: Arc<Mutex<fastrand::Rng>>,
    asked: Arc<AtomicU64>,
    /// When each request arrived, counted from the start; the newest few.
    pub(crate) times: Arc<Mutex<VecDeque<Instant>>>,
}

/// Requests whose arrival is remembered.
const TIMES_MAX: usize = 64;

impl FarEnd {
    pub(crate) fn new(
        framing: Framing,
        timing: Timing,
        seed: u64,
        script: impl FnMut(&Ask, &mut fastrand::Rng) -> Vec<Sent> + Send + 'static,
    ) -> Self {
        Self {
            framing,
            timing,
            bit_errors: 0.0,
            script: Arc::new(Mutex::new(Box::new(script))),
            rng: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
            asked: Arc::default(),
            times: Arc::default(),
        }
    }

    pub(crate) fn with_bit_errors(mut self, chance: f64) -> Self {
        self.bit_errors = chance;
        self
    }

    /// Requests that arrived unharmed.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Our end.
    pub(crate) fn line(&self, options: &LineOptions) -> Line {
        let far = self.clone();
        Line::over(self.framing, self.timing, options, move || Ok(far.connect()))
    }

    #[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
    fn connect(&self) -> Box<dyn Stream> {
        let (near, far) = tokio::io::duplex(4096);
        tokio::spawn(self.clone().serve(far));
        Box::new(near)
    }

    async fn serve(self, mut stream: DuplexStream) {
        let mut bytes = [0; 512];
        while let Ok(length) = stream.read(&mut bytes).await {
            if length == 0 {
                return;
            }
            let mut frame = bytes[..length].to_vec();
            self.disturb(&mut frame);
            // What was written at once arrives when its last character does.
            let mut at = Instant::now() + self.on_the_wire(length);
            tokio::time::sleep_until(at).await;
            let Some(ask) = self.ask(&frame) else { continue };
            {
                let mut times = self.times.lock().unwrap();
                times.push_back(Instant::now());
                if times.len() > TIMES_MAX {
                    times.pop_front();
                }
            }
            let sent = (self.script.lock().unwrap())(&ask, &mut self.rng.lock().unwrap());
            for (pause, mut answer) in sent {
                at += pause + self.on_the_wire(answer.len());
                tokio::time::sleep_until(at).await;
                self.disturb(&mut answer);
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }

    fn on_the_wire(&self, bytes: usize) -> Duration {
        self.timing.character * u32::try_from(bytes).unwrap()
    }

    fn disturb(&self, bytes: &mut [u8]) {
        if self.bit_errors > 0.0 {
            let mut rng = self.rng.lock().unwrap();
            for byte in bytes {
                for bit in 0..8 {
                    *byte ^= u8::from(rng.f64() < self.bit_errors) << bit;
                }
            }
        }
    }

    /// A request, if these bytes are one.
    fn ask(&self, bytes: &[u8]) -> Option<Ask> {
        let (transaction, body) = match (self.framing, bytes.len()) {
            (Framing::Tcp, 12) => (u16::from_be_bytes([bytes[0], bytes[1]]), &bytes[6..]),
            (Framing::Rtu, 8) if crc(bytes) == 0 => (0, bytes),
            _ => return None,
        };
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        Some(Ask {
            nth,
            transaction,
            unit: body[0],
            function: body[1],
            address: u16::from_be_bytes([body[2], body[3]]),
            count: u16::from_be_bytes([body[4], body[5]]),
        })
    }
}

/// The same answer on RTU that this frame is on TCP.
pub(crate) fn rtu_frame(tcp: &[u8]) -> Vec<u8> {
    let mut frame = tcp[6..].to_vec();
    let sum = crc(&frame);
    frame.extend(sum.to_le_bytes());
    frame
}
