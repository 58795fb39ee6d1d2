//! The plant behind a Modbus TCP server: one unit id a machine, reads only.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_modbus::server::Service;
use tokio_modbus::server::tcp::{Server as Frames, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_util::sync::CancellationToken;

use super::plant::{Plant, TICK};
use super::registers::{Image, Refused};
use crate::config::Table;

/// Most registers in one reply (Modbus application protocol 1.1b3, 6.3).
const REGISTERS_MAX: u16 = 125;
/// Most bits in one reply (6.1).
const BITS_MAX: u16 = 2000;
/// A pause longer than this (a suspended laptop) is not caught up with.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Largest factor by which plant time may outrun real time: some 40,000 sensor values a second.
pub const SPEED_MAX: f64 = 1000.0;

/// A plant that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    plant: Plant,
    speed: f64,
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
        Ok(Self { listener, address, plant, speed: speed.clamp(0.0, SPEED_MAX) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled; open connections are closed then.
    ///
    /// # Errors
    /// When no more connections can be accepted.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let Self { listener, mut plant, speed, .. } = self;
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
        let connect = |stream: TcpStream, peer: SocketAddr| {
            let image = image.clone();
            async move {
                // A reply is one small packet; waiting to fill it up would only cost time.
                stream.set_nodelay(true).ok();
                accept_tcp_connection(stream, peer, |_| Ok(Some(Answers { image: image.clone() })))
            }
        };
        let frames = Frames::new(listener);
        let serving = frames.serve(&connect, |error| {
            tracing::debug!(%error, "a simulated connection ended");
        });
        tokio::select! {
            () = passing => Ok(()),
            served = serving => served,
            () = stop.cancelled() => Ok(()),
        }
    }
}

/// Answers the requests of one connection from the newest image.
struct Answers {
    image: watch::Receiver<Image>,
}

impl Service for Answers {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        ready(answer(&self.image.borrow(), &request))
    }
}

fn answer(image: &Image, request: &SlaveRequest<'_>) -> Result<Response, ExceptionCode> {
    let read = |table, address, count, max| {
        if count == 0 || count > max {
            return Err(ExceptionCode::IllegalDataValue);
        }
        image.read(request.slave, table, address, count).map_err(|refused| match refused {
            Refused::Unit => ExceptionCode::GatewayTargetDevice,
            Refused::Address => ExceptionCode::IllegalDataAddress,
            Refused::Device => ExceptionCode::ServerDeviceFailure,
        })
    };
    let bits = |words: Vec<u16>| words.into_iter().map(|word| word != 0).collect();
    match request.request {
        Request::ReadCoils(address, count) => read(Table::Coil, address, count, BITS_MAX)
            .map(|words| Response::ReadCoils(bits(words))),
        Request::ReadDiscreteInputs(address, count) => {
            read(Table::Discrete, address, count, BITS_MAX)
                .map(|words| Response::ReadDiscreteInputs(bits(words)))
        }
        Request::ReadHoldingRegisters(address, count) => {
            read(Table::Holding, address, count, REGISTERS_MAX).map(Response::ReadHoldingRegisters)
        }
        Request::ReadInputRegisters(address, count) => {
            read(Table::Input, address, count, REGISTERS_MAX).map(Response::ReadInputRegisters)
        }
        Request::WriteSingleCoil(..)
        | Request::WriteMultipleCoils(..)
        | Request::WriteSingleRegister(..)
        | Request::WriteMultipleRegisters(..)
        | Request::ReportServerId
        | Request::MaskWriteRegister(..)
        | Request::ReadWriteMultipleRegisters(..)
        | Request::ReadDeviceIdentification(..)
        | Request::Custom(..) => Err(ExceptionCode::IllegalFunction),
    }
}

#[cfg(test)]
mod tests {
    use tokio_modbus::client::{Context, tcp};
    use tokio_modbus::prelude::{Reader as _, Slave, SlaveContext as _, Writer as _};

    use super::super::fault::Scenario;
    use super::super::registers::{Encoding, REGISTERS, Register};
    use super::*;
    use crate::config::ByteOrder;

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
