//! Ten units behind one Modbus TCP server, written with nothing but the standard library, so that
//! what is measured is not our own code on both ends.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(crate) const UNITS: usize = 10;
pub(crate) const TAGS_PER_UNIT: usize = 100;
const NORMAL: f32 = 50.0;
const HIGH: f32 = 95.0;

/// A value that went over its limit, and when a poll first saw it.
pub(crate) struct Crossing {
    pub(crate) asset: String,
    pub(crate) tag: String,
    pub(crate) answered: Instant,
}

#[derive(Clone, Copy)]
struct Cell {
    value: f32,
    /// The moment of the first answer that held the value, once it was asked for.
    answered: Option<Instant>,
}

pub(crate) struct Plant {
    port: u16,
    cells: Arc<Mutex<Vec<Cell>>>,
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

impl Plant {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it has an address").port();
        let cell = Cell { value: NORMAL, answered: None };
        let cells = Arc::new(Mutex::new(vec![cell; UNITS * TAGS_PER_UNIT]));
        let served = cells.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let cells = served.clone();
                std::thread::spawn(move || serve(stream, &cells));
            }
        });
        Self { port, cells }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn configuration(&self, broker: u16, dir: &Path) -> String {
        let data = dir.join("data");
        let mut text = format!(
            "[gateway]\nsite = \"load\"\nid = \"gw\"\ndata_dir = \"{}\"\n\
             [store]\nmax_disk = \"128MiB\"\n[http]\nlisten = \"off\"\n\
             [upstream]\nurl = \"mqtt://127.0.0.1:{broker}\"\n",
            data.display()
        );
        for unit in 1..=UNITS {
            write!(text, "[[asset]]\nid = \"U{unit}\"\n").expect("memory takes text");
        }
        for unit in 1..=UNITS {
            write!(
                text,
                "[[modbus]]\nname = \"u{unit}\"\nurl = \"tcp://127.0.0.1:{}\"\nunit = {unit}\n\
                 poll = \"1s\"\ntimeout = \"500ms\"\n",
                self.port
            )
            .expect("memory takes text");
            for tag in 0..TAGS_PER_UNIT {
                write!(
                    text,
                    "[[modbus.tag]]\nid = \"t{tag}\"\nasset = \"U{unit}\"\n\
                     point = \"holding:{}\"\ntype = \"f32\"\nrange = [-50.0, 500.0]\n\
                     limits = {{ high = 90.0 }}\n",
                    tag * 2
                )
                .expect("memory takes text");
            }
        }
        text
    }

    /// About ten times a second a tag that is well goes over its limit; it stays there.
    pub(crate) fn cross_limits(&self, after: Duration, span: Duration) -> Vec<Crossing> {
        pause(after);
        let mut random = fastrand::Rng::with_seed(11);
        let mut order: Vec<usize> = (0..UNITS * TAGS_PER_UNIT).collect();
        random.shuffle(&mut order);
        let count = usize::try_from(span.as_secs() * 10).unwrap_or(0).min(order.len());
        for cell in &order[..count] {
            pause(Duration::from_millis(random.u64(50..150)));
            self.cells.lock().expect("no thread panics")[*cell] =
                Cell { value: HIGH, answered: None };
        }
        pause(Duration::from_secs(2));
        let cells = self.cells.lock().expect("no thread panics");
        order[..count]
            .iter()
            .filter_map(|index| {
                Some(Crossing {
                    asset: format!("U{}", index / TAGS_PER_UNIT + 1),
                    tag: format!("t{}", index % TAGS_PER_UNIT),
                    answered: cells[*index].answered?,
                })
            })
            .collect()
    }
}

pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn serve(mut stream: TcpStream, cells: &Mutex<Vec<Cell>>) {
    stream.set_nodelay(true).ok();
    let mut noise = fastrand::Rng::with_seed(3);
    let mut request = [0_u8; 12];
    while stream.read_exact(&mut request).is_ok() {
        let unit = usize::from(request[6]);
        let first = usize::from(u16::from_be_bytes([request[8], request[9]]));
        let count = usize::from(u16::from_be_bytes([request[10], request[11]]));
        let mut registers = vec![0_u8; count * 2];
        {
            let mut cells = cells.lock().expect("no thread panics");
            let now = Instant::now();
            for (register, bytes) in (first..first + count).zip(registers.chunks_exact_mut(2)) {
                let Some(cell) = cells.get_mut((unit - 1) * TAGS_PER_UNIT + register / 2) else {
                    continue;
                };
                let high = cell.value > 90.0;
                let value = if high { cell.value } else { cell.value + noise.f32() };
                let raw = value.to_be_bytes();
                bytes.copy_from_slice(&raw[register % 2 * 2..register % 2 * 2 + 2]);
                if register % 2 == 1 && cell.answered.is_none() && high {
                    cell.answered = Some(now);
                }
            }
        }
        let length = u16::try_from(3 + registers.len()).expect("at most 125 registers");
        let mut answer = request[..4].to_vec();
        answer.extend(length.to_be_bytes());
        answer.extend([request[6], request[7]]);
        answer.push(u8::try_from(registers.len()).expect("at most 250 bytes"));
        answer.extend(registers);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Asks for the same registers once a second and drops the values.
pub(crate) fn poll_for_ever(address: &str) -> ! {
    use tokio_modbus::client::Reader;
    use tokio_modbus::slave::SlaveContext;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one thread");
    runtime.block_on(async {
        let address = address.parse().expect("an address");
        let mut client =
            tokio_modbus::client::tcp::connect(address).await.expect("the plant answers");
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            for unit in 1..=u8::try_from(UNITS).expect("ten units") {
                client.set_slave(tokio_modbus::Slave(unit));
                for (first, count) in [(0, 124), (124, 76)] {
                    std::hint::black_box(client.read_holding_registers(first, count).await).ok();
                }
            }
        }
    })
}
