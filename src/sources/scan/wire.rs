//! I/O: one request and its answer on a Modbus TCP connection, for questions that are no reads of a
//! table. After anything but a whole fitting answer the connection is given up: what still arrives
//! on it would be taken for the answer to the next request.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Bytes of transaction, protocol and length.
const PREFIX: usize = 6;
/// Largest PDU and the unit id before it.
const BODY_MAX: usize = 254;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Nothing can be reached.
    #[error("connecting to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The connection ended, or failed.
    #[error("the connection ended")]
    Broken(#[source] io::Error),
    /// Something came that is no answer to this request.
    #[error("an answer that does not fit: {0}")]
    Lie(&'static str),
}

impl WireError {
    /// Whether the same question may be answered another time: all but a server that cannot be
    /// reached at all.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => false,
            Self::Silent(_) | Self::Broken(_) | Self::Lie(_) => true,
        }
    }
}

/// A connection that is made when it is needed.
#[derive(Debug)]
pub(super) struct Wire {
    host: String,
    port: u16,
    stream: Option<TcpStream>,
    transaction: u16,
}

impl Wire {
    /// Nothing is connected yet.
    #[must_use]
    pub(super) fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, stream: None, transaction: 0 }
    }

    /// Sends a PDU to a unit and returns the PDU of the answer, exceptions included; within
    /// `deadline` altogether, connecting aside.
    ///
    /// # Errors
    /// [`WireError`]; the next question makes a new connection.
    pub(super) async fn ask(
        &mut self,
        unit: u8,
        pdu: &[u8],
        deadline: Duration,
    ) -> Result<Vec<u8>, WireError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        self.transaction = self.transaction.wrapping_add(1);
        let exchange = exchange(&mut stream, self.transaction, unit, pdu);
        let answer = match timeout(deadline, exchange).await {
            Ok(answer) => answer?,
            Err(_) => return Err(WireError::Silent(deadline)),
        };
        self.stream = Some(stream);
        Ok(answer)
    }

    async fn connect(&self) -> Result<TcpStream, WireError> {
        let failed =
            |source| WireError::Connect { address: format!("{}:{}", self.host, self.port), source };
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(CONNECT_MAX, connecting)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        // Requests are small and each waits for its answer; should it fail they are only slower.
        stream.set_nodelay(true).ok();
        Ok(stream)
    }
}

async fn exchange(
    stream: &mut TcpStream,
    transaction: u16,
    unit: u8,
    pdu: &[u8],
) -> Result<Vec<u8>, WireError> {
    let length = u16::try_from(pdu.len() + 1).map_err(|_| WireError::Lie("too long a request"))?;
    let [t1, t0] = transaction.to_be_bytes();
    let [l1, l0] = length.to_be_bytes();
    let frame = [&[t1, t0, 0, 0, l1, l0, unit], pdu].concat();
    stream.write_all(&frame).await.map_err(WireError::Broken)?;
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await.map_err(WireError::Broken)?;
    let length = usize::from(u16::from_be_bytes([prefix[4], prefix[5]]));
    if prefix[..2] != [t1, t0] {
        return Err(WireError::Lie("another transaction"));
    }
    if prefix[2..4] != [0, 0] {
        return Err(WireError::Lie("no Modbus protocol"));
    }
    if !(3..=BODY_MAX).contains(&length) {
        return Err(WireError::Lie("an impossible length"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(WireError::Broken)?;
    if body[0] != unit {
        return Err(WireError::Lie("another unit"));
    }
    let answer = body.split_off(1);
    if answer[0] & 0x7f != pdu[0] {
        return Err(WireError::Lie("another function"));
    }
    Ok(answer)
}
