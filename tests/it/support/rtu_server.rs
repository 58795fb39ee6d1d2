//! RTU devices behind anything that carries bytes: a pseudo-terminal in the place of a serial
//! adapter, or a socket in the place of a serial server.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wheeltap::config::{Link, Parity, Serial};
use wheeltap::sources::line::Timing;
use wheeltap::sources::line::frame::crc;

use super::memory_line::rtu_frame;
use super::modbus_server::{Ask, Reply};

/// What a device does about a request.
pub(crate) type Script = Arc<Mutex<dyn FnMut(&Ask) -> Reply + Send>>;

/// Makes a script of a function.
pub(crate) fn script(answer: impl FnMut(&Ask) -> Reply + Send + 'static) -> Script {
    Arc::new(Mutex::new(answer))
}

/// Answers requests on a stream until it ends. With a timing, what the characters of both frames
/// take passes before the answer is there.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
    pace: Option<Timing>,
) {
    let mut held = Vec::new();
    let mut bytes = [0; 256];
    let mut nth = 0;
    loop {
        match stream.read(&mut bytes).await {
            // Nobody has the other side of the pseudo-terminal open.
            Err(error) if error.raw_os_error() == Some(5) => {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            }
            Ok(0) | Err(_) => return,
            Ok(length) => held.extend(&bytes[..length]),
        }
        if held.len() < 8 {
            continue;
        }
        let request: Vec<u8> = std::mem::take(&mut held);
        if request.len() != 8 || crc(&request) != 0 {
            continue;
        }
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let ask = Ask {
            nth,
            transaction: 0,
            unit: request[0],
            function: request[1],
            address: word(2),
            count: word(4),
        };
        nth += 1;
        let reply = (script.lock().unwrap())(&ask);
        if matches!(reply, Reply::Silence) {
            continue;
        }
        let frame = rtu_frame(&reply.frame(&ask));
        if let Some(timing) = pace {
            let characters = 8 + u32::try_from(frame.len()).unwrap();
            tokio::time::sleep(timing.character * characters).await;
        }
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// A serial server: RTU over TCP.
#[derive(Debug)]
pub(crate) struct RtuServer {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl RtuServer {
    #[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
    pub(crate) async fn start(answer: impl FnMut(&Ask) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = script(answer);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&script), None));
            }
        });
        Self { address, accepting }
    }
}

impl Drop for RtuServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A device that dials in: a modem with a serial line behind it.
#[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
pub(crate) fn dial_in(to: SocketAddr, script: Script) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            if let Ok(stream) = TcpStream::connect(to).await {
                serve(stream, script, None).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

/// Our side of a pseudo-terminal whose other side is a serial port for the daemon.
pub(crate) struct Master(AsyncFd<OwnedFd>);

impl Master {
    /// A new pair, and the path of the other side.
    #[expect(deprecated, reason = "sound here: an owned descriptor stays what it is")]
    pub(crate) fn open() -> (Self, PathBuf) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        (Self(AsyncFd::new(master).unwrap()), path.into())
    }
}

impl AsyncRead for Master {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let mut bytes = [0; 256];
            let room = buffer.remaining().min(bytes.len());
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut bytes[..room])?));
            if let Ok(read) = read {
                buffer.put_slice(&bytes[..read?]);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Master {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A device on a serial adapter; unplugged when dropped.
#[derive(Debug)]
pub(crate) struct Adapter {
    /// The port.
    pub(crate) path: PathBuf,
    serving: JoinHandle<()>,
}

impl Adapter {
    #[expect(clippy::disallowed_methods, reason = "the other end of the wire is not the daemon")]
    pub(crate) fn plug_in(script: Script, pace: Option<Timing>) -> Self {
        let (master, path) = Master::open();
        Self { path, serving: tokio::spawn(serve(master, script, pace)) }
    }

    /// Pulls the plug, and sees to it that it is out.
    pub(crate) async fn unplug(self) {
        self.serving.abort();
        while !self.serving.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A serial link without parity, which pseudo-terminals do not know.
pub(crate) fn serial(path: &Path, baud: u32) -> Link {
    let path = path.to_owned();
    Link::Serial(Serial { path, baud, parity: Parity::None, data_bits: 8, stop_bits: 1 })
}
