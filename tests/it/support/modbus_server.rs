//! A Modbus TCP server that does what a script says: answers, lies, delays, breaks off.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A read request as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// Number of the request at this server, from 0.
    pub(crate) nth: u64,
    /// Transaction id.
    pub(crate) transaction: u16,
    /// Unit id.
    pub(crate) unit: u8,
    /// Function code.
    pub(crate) function: u8,
    /// First address.
    pub(crate) address: u16,
    /// How many registers or bits.
    pub(crate) count: u16,
}

/// What to do about a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These registers, rightly framed.
    Words(Vec<u16>),
    /// These bits, rightly framed.
    Bits(Vec<bool>),
    /// An exception with this code.
    Exception(u8),
    /// These bytes as they are.
    Raw(Vec<u8>),
    /// Something, later; requests that come meanwhile wait.
    After(Duration, Box<Reply>),
    /// Something, a byte at a time with this pause before each.
    Trickle(Duration, Box<Reply>),
    /// The first bytes of something, then FIN.
    Finish(usize, Box<Reply>),
    /// The first bytes of something, then RST.
    Reset(usize, Box<Reply>),
    /// Nothing.
    Silence,
}

impl Reply {
    /// The same number in every register that was asked for.
    pub(crate) fn same(ask: &Ask, word: u16) -> Self {
        Self::Words(vec![word; usize::from(ask.count)])
    }

    /// Every register holds its own address.
    pub(crate) fn addresses(ask: &Ask) -> Self {
        Self::Words((0..ask.count).map(|offset| ask.address.wrapping_add(offset)).collect())
    }

    /// The whole frame, as far as this is one.
    pub(crate) fn frame(&self, ask: &Ask) -> Vec<u8> {
        match self {
            Self::Words(words) => {
                let mut pdu = vec![ask.function, u8::try_from(words.len() * 2).unwrap_or(u8::MAX)];
                pdu.extend(words.iter().flat_map(|word| word.to_be_bytes()));
                framed(ask.transaction, ask.unit, &pdu)
            }
            Self::Bits(bits) => {
                let mut bytes = vec![0_u8; bits.len().div_ceil(8)];
                for (place, _) in bits.iter().enumerate().filter(|(_, bit)| **bit) {
                    bytes[place / 8] |= 1 << (place % 8);
                }
                let mut pdu = vec![ask.function, u8::try_from(bytes.len()).unwrap_or(u8::MAX)];
                pdu.extend(bytes);
                framed(ask.transaction, ask.unit, &pdu)
            }
            Self::Exception(code) => {
                framed(ask.transaction, ask.unit, &[ask.function | 0x80, *code])
            }
            Self::Raw(bytes) => bytes.clone(),
            Self::After(_, reply)
            | Self::Trickle(_, reply)
            | Self::Finish(_, reply)
            | Self::Reset(_, reply) => reply.frame(ask),
            Self::Silence => Vec::new(),
        }
    }
}

/// A PDU with a right MBAP header before it.
pub(crate) fn framed(transaction: u16, unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(pdu.len() + 1).unwrap_or(u16::MAX);
    header(transaction, 0, length, unit).into_iter().chain(pdu.iter().copied()).collect()
}

/// Any MBAP header.
pub(crate) fn header(transaction: u16, protocol: u16, length: u16, unit: u8) -> Vec<u8> {
    let [t0, t1] = transaction.to_be_bytes();
    let [p0, p1] = protocol.to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    vec![t0, t1, p0, p1, l0, l1, unit]
}

type Script = Arc<Mutex<dyn FnMut(&Ask) -> Reply + Send>>;

/// A running server; it stops when dropped.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl ScriptedServer {
    /// Starts a server on a free port.
    pub(crate) async fn start(script: impl FnMut(&Ask) -> Reply + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), script).await
    }

    /// Starts a server at this address.
    #[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
    pub(crate) async fn start_at(
        address: SocketAddr,
        script: impl FnMut(&Ask) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Script = Arc::new(Mutex::new(script));
        let asked = Arc::new(Mutex::new(0));
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&script), Arc::clone(&asked)));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: TcpStream, script: Script, asked: Arc<Mutex<u64>>) {
    stream.set_nodelay(true).ok();
    let mut bytes = [0_u8; 12];
    while stream.read_exact(&mut bytes).await.is_ok() {
        let word = |place: usize| u16::from_be_bytes([bytes[place], bytes[place + 1]]);
        let nth = {
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            *asked - 1
        };
        let ask = Ask {
            nth,
            transaction: word(0),
            unit: bytes[6],
            function: bytes[7],
            address: word(8),
            count: word(10),
        };
        let reply = (script.lock().unwrap())(&ask);
        if !carry_out(&mut stream, &ask, reply).await {
            return;
        }
    }
}

/// Returns whether the connection lives on.
async fn carry_out(stream: &mut TcpStream, ask: &Ask, mut reply: Reply) -> bool {
    loop {
        let frame = reply.frame(ask);
        match reply {
            Reply::After(pause, later) => {
                tokio::time::sleep(pause).await;
                reply = *later;
            }
            Reply::Trickle(pause, _) => {
                for byte in frame {
                    tokio::time::sleep(pause).await;
                    if stream.write_all(&[byte]).await.is_err() {
                        return false;
                    }
                }
                return true;
            }
            Reply::Finish(length, _) => {
                stream.write_all(&frame[..length]).await.ok();
                return false;
            }
            Reply::Reset(length, _) => {
                stream.write_all(&frame[..length]).await.ok();
                // Closing without lingering sends RST instead of FIN.
                stream.set_zero_linger().ok();
                return false;
            }
            Reply::Silence => return true,
            Reply::Words(_) | Reply::Bits(_) | Reply::Exception(_) | Reply::Raw(_) => {
                return stream.write_all(&frame).await.is_ok();
            }
        }
    }
}
