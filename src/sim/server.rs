//! The plant behind a Modbus TCP server: one unit id a machine, reads only, and whatever a fault
//! script does to its answers.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::frames;
use super::mischief::Mischiefs;
use super::plant::{Plant, TICK};
use super::registers::Image;
use crate::config::FaultScript;

/// A pause longer than this (a suspended laptop) is not caught up with.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);
/// Connections served at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest factor by which plant time may outrun real time: some 40,000 sensor values a second.
pub const SPEED_MAX: f64 = 1000.0;
/// Most copies of the plant: unit ids end at 247.
pub const COPIES_MAX: u8 = 61;

/// A plant that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    plant: Plant,
    speed: f64,
    copies: u8,
    faults: FaultScript,
    seed: u64,
}

impl Server {
    /// Listens at `address` (port 0: any free one). Nothing is answered before [`Self::run`].
    /// Plant time passes `speed` times faster than real time, at most [`SPEED_MAX`].
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr, plant: Plant, speed: f64) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let speed = speed.clamp(0.0, SPEED_MAX);
        let faults = FaultScript::default();
        Ok(Self { listener, address, plant, speed, copies: 1, faults, seed: 0 })
    }

    /// The same with this done to its answers; `seed` counts when the script has none.
    #[must_use]
    pub fn with_faults(self, faults: FaultScript, seed: u64) -> Self {
        Self { faults, seed, ..self }
    }

    /// The same with the machines `copies` times (at most [`COPIES_MAX`]) under further unit ids:
    /// unit 5 shows what unit 1 does, and so on.
    #[must_use]
    pub fn with_copies(self, copies: u8) -> Self {
        Self { copies: copies.clamp(1, COPIES_MAX), ..self }
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled; open connections are closed then.
    ///
    /// # Errors
    /// Never for now: what fails of one connection ends only that one.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let Self { listener, mut plant, speed, copies, faults, seed, .. } = self;
        let (publish, image) = watch::channel(Image::of(&plant));
        let passing = async {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut last = ticks.tick().await;
            loop {
                let now = ticks.tick().await;
                let passed = now.duration_since(last).min(CATCH_UP_MAX);
                last = now;
                plant.step(passed.mul_f64(speed));
                publish.send_replace(Image::of(&plant));
            }
        };
        let bus = Bus {
            image,
            copies,
            began: began(),
            mischiefs: Arc::new(Mutex::new(Mischiefs::new(faults, seed))),
        };
        tokio::select! {
            () = passing => Ok(()),
            () = accept(&listener, &bus) => Ok(()),
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// Fault scripts count from here. The simulated plant is no part of the daemon: nothing it is
/// timed by is recorded.
fn began() -> Instant {
    Instant::now()
}

/// Accepts connections and serves them; those open are dropped with it.
async fn accept(listener: &TcpListener, bus: &Bus) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let bus = bus.clone();
                connections.spawn(async move {
                    if let Err(error) = bus.serve(stream).await {
                        tracing::debug!(%peer, %error, "a simulated connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "accepting a simulated connection failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// What all connections answer from.
#[derive(Debug, Clone)]
struct Bus {
    image: watch::Receiver<Image>,
    copies: u8,
    began: Instant,
    mischiefs: Arc<Mutex<Mischiefs>>,
}

impl Bus {
    /// Answers one connection until the other end closes it or a fault does.
    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        // A reply is one small packet; waiting to fill it up would only cost time.
        stream.set_nodelay(true).ok();
        let mut prefix = [0; frames::PREFIX];
        let mut body = vec![0; frames::PDU_MAX + 1];
        loop {
            if let Err(error) = stream.read_exact(&mut prefix).await {
                // The end between two requests is how connections end.
                let hung_up = error.kind() == io::ErrorKind::UnexpectedEof;
                return if hung_up { Ok(()) } else { Err(error) };
            }
            let [t1, t0, p1, p0, l1, l0] = prefix;
            let length = usize::from(u16::from_be_bytes([l1, l0]));
            if (p1, p0) != (0, 0) || length < 2 || length > body.len() {
                // No Modbus: where the next frame begins cannot be told.
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no Modbus TCP frame"));
            }
            stream.read_exact(&mut body[..length]).await?;
            let (unit, request) = (body[0], &body[1..length]);
            let right = frames::answer(&self.image.borrow(), unit, self.copies, request);
            let reply = {
                let mut mischiefs = self.mischiefs.lock().unwrap_or_else(PoisonError::into_inner);
                let transaction = u16::from_be_bytes([t1, t0]);
                mischiefs.reply(self.began.elapsed(), transaction, unit, request, right)
            };
            if !reply.delay.is_zero() {
                sleep(reply.delay).await;
            }
            stream.write_all(&reply.bytes).await?;
            if reply.close {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_modbus::ExceptionCode;
    use tokio_modbus::client::{Context, tcp};
    use tokio_modbus::prelude::{Reader as _, Slave, SlaveContext as _, Writer as _};

    use super::super::fault::Scenario;
    use super::super::registers::{Encoding, REGISTERS, Register};
    use super::*;
    use crate::config::{ByteOrder, Table};

    /// Runs `client` against a plant that stands still, so that what is read can be compared.
    fn against<F: Future<Output = ()>>(plant: Plant, client: impl FnOnce(Context) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let any = "127.0.0.1:0".parse().unwrap();
            let server = Server::bind(any, plant, 0.0).await.unwrap();
            let address = server.local_addr();
            let stop = CancellationToken::new();
            let talk = async {
                client(tcp::connect(address).await.unwrap()).await;
                stop.cancel();
            };
            let (served, ()) = tokio::join!(server.run(stop.clone()), talk);
            served.unwrap();
        });
    }

    async fn read(client: &mut Context, register: &Register) -> Vec<u16> {
        client.set_slave(Slave(register.unit));
        let (at, count) = (register.address, register.encoding.width());
        let bits = |bits: Vec<bool>| bits.into_iter().map(u16::from).collect();
        match register.table {
            Table::Coil => bits(client.read_coils(at, count).await.unwrap().unwrap()),
            Table::Discrete => bits(client.read_discrete_inputs(at, count).await.unwrap().unwrap()),
            Table::Holding => client.read_holding_registers(at, count).await.unwrap().unwrap(),
            Table::Input => client.read_input_registers(at, count).await.unwrap().unwrap(),
        }
    }

    /// Written apart from the encoder: bytes into their places, then into a number.
    fn decode(words: &[u16], register: &Register) -> f64 {
        let four = |order| {
            let w: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            match order {
                ByteOrder::Abcd | ByteOrder::Places { .. } => [w[0], w[1], w[2], w[3]],
                ByteOrder::Cdab => [w[2], w[3], w[0], w[1]],
                ByteOrder::Badc => [w[1], w[0], w[3], w[2]],
                ByteOrder::Dcba => [w[3], w[2], w[1], w[0]],
            }
        };
        let raw = match register.encoding {
            Encoding::Bit | Encoding::U16 => f64::from(words[0]),
            Encoding::I16 => f64::from(words[0].cast_signed()),
            Encoding::U32(order) => f64::from(u32::from_be_bytes(four(order))),
            Encoding::F32(order) => f64::from(f32::from_be_bytes(four(order))),
        };
        raw * register.scale
    }

    #[test]
    fn every_register_reads_back_as_what_its_sensor_shows() {
        let mut plant = Plant::new(Scenario::named("demo").unwrap(), 5);
        plant.step(Duration::from_secs(100));
        let expected = plant.clone();
        against(plant, async |mut client| {
            for register in REGISTERS {
                let words = read(&mut client, register).await;
                let value = decode(&words, register);
                let shown = expected.value(&register.path()).unwrap();
                let slack = register.rounding(shown) * 1.001;
                assert!((value - shown).abs() <= slack, "{}: {value} {shown}", register.path());
            }
        });
    }

    #[test]
    fn a_whole_block_is_read_at_once() {
        let plant = Plant::new(Scenario::healthy(), 5);
        against(plant, async |mut client| {
            client.set_slave(Slave(1));
            assert_eq!(client.read_holding_registers(100, 8).await.unwrap().unwrap().len(), 8);
            let refused = client.read_holding_registers(100, 9).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::IllegalDataAddress));
        });
    }

    #[test]
    fn what_is_not_there_is_refused_by_its_code() {
        let plant = Plant::new(Scenario::healthy(), 5);
        against(plant, async |mut client| {
            client.set_slave(Slave(1));
            let refused = client.read_holding_registers(5000, 1).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::IllegalDataAddress));
            let refused = client.read_input_registers(u16::MAX, 2).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::IllegalDataAddress));
            let refused = client.read_coils(0, 2001).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::IllegalDataValue));
            let refused = client.write_single_register(100, 1).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::IllegalFunction));
            client.set_slave(Slave(99));
            let refused = client.read_holding_registers(100, 1).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::GatewayTargetDevice));
        });
    }

    #[test]
    fn a_sensor_that_is_away_answers_exception_4_or_its_sentinel() {
        let mut plant = Plant::new(Scenario::named("dropout").unwrap(), 5);
        plant.step(Duration::from_secs(65));
        against(plant, async |mut client| {
            client.set_slave(Slave(3));
            let refused = client.read_holding_registers(0, 1).await.unwrap();
            assert_eq!(refused, Err(ExceptionCode::ServerDeviceFailure));
            assert!(client.read_holding_registers(2, 7).await.unwrap().is_ok());
            client.set_slave(Slave(4));
            assert_eq!(client.read_input_registers(10, 1).await.unwrap(), Ok(vec![0x8000]));
        });
    }
}
