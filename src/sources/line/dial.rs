//! I/O: making the stream that a link names.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::serial;
use super::wire::{Framing, Stream};
use crate::config::{Host, LineOptions, Link};
use crate::tls;

/// How long one look for a device that connects to us takes.
const ACCEPT_MAX: Duration = Duration::from_millis(500);

/// An open stream and the way frames go over it.
pub(super) type Opened = (Box<dyn Stream>, Framing);

/// What streams come from.
pub(super) enum Dialer {
    /// Links, the first that works, and the place of the one in use.
    Links(Vec<Link>, usize),
    /// Devices that connect to us.
    Listen(Host, Framing, Option<TcpListener>),
    /// Anything: memory in tests and simulations.
    Given(Framing, Box<dyn FnMut() -> io::Result<Box<dyn Stream>> + Send>),
}

impl Dialer {
    pub(super) fn new(link: &Link, options: &LineOptions) -> Self {
        match link {
            Link::Tcp(host) if options.listen => Self::Listen(host.clone(), Framing::Tcp, None),
            Link::RtuOverTcp { host, .. } if options.listen => {
                Self::Listen(host.clone(), Framing::Rtu, None)
            }
            Link::Tcp(_) | Link::Tls(_) | Link::RtuOverTcp { .. } | Link::Serial(_) => {
                let links = std::iter::once(link).chain(&options.backup);
                Self::Links(links.cloned().collect(), 0)
            }
        }
    }

    /// The link in use, if it is one.
    pub(super) fn link(&self) -> Option<&Link> {
        match self {
            Self::Links(links, place) => links.get(*place),
            Self::Listen(..) | Self::Given(..) => None,
        }
    }

    /// Goes to the next link, if there is one: this one did not serve.
    pub(super) fn turn_away(&mut self) {
        if let Self::Links(links, place) = self {
            *place = (*place + 1) % links.len().max(1);
        }
    }

    /// Makes a stream.
    pub(super) async fn dial(&mut self, options: &LineOptions) -> io::Result<Opened> {
        match self {
            Self::Links(links, place) => open(&links[*place], options).await,
            Self::Given(framing, make) => make().map(|stream| (stream, *framing)),
            Self::Listen(host, framing, listener) => {
                let listener = match listener {
                    Some(listener) => listener,
                    None => listener.insert(bind(host).await?),
                };
                match timeout(ACCEPT_MAX, listener.accept()).await {
                    Ok(accepted) => accepted.map(|(stream, from)| plain(stream, from, *framing)),
                    Err(_) => Err(io::Error::new(
                        io::ErrorKind::NotConnected,
                        "the device has not connected to us yet",
                    )),
                }
            }
        }
    }

    /// A device that connects anew while it is still thought connected has lost its connection.
    pub(super) fn redialled(&mut self) -> Option<Opened> {
        let Self::Listen(_, framing, Some(listener)) = self else { return None };
        let mut newest = None;
        while let Some(Ok((stream, from))) = listener.accept().now_or_never() {
            newest = Some(plain(stream, from, *framing));
        }
        newest
    }
}

async fn bind(host: &Host) -> io::Result<TcpListener> {
    TcpListener::bind((host.name.as_str(), host.port)).await
}

fn plain(stream: TcpStream, from: SocketAddr, framing: Framing) -> Opened {
    tracing::info!(%from, "a device has connected");
    stream.set_nodelay(true).ok();
    (Box::new(stream), framing)
}

async fn open(link: &Link, options: &LineOptions) -> io::Result<Opened> {
    match link {
        Link::Tcp(host) => Ok((Box::new(tcp(host).await?), Framing::Tcp)),
        Link::RtuOverTcp { host, .. } => Ok((Box::new(tcp(host).await?), Framing::Rtu)),
        Link::Tls(host) => {
            let stream = tcp(host).await?;
            let certificates = &options.certificates;
            let config = tls::config(certificates.ca.as_deref(), certificates.identity.as_ref())
                .map_err(io::Error::other)?;
            let name = ServerName::try_from(host.name.clone()).map_err(io::Error::other)?;
            let connector = TlsConnector::from(config);
            Ok((Box::new(connector.connect(name, stream).await?), Framing::Tcp))
        }
        Link::Serial(port) => {
            Ok((Box::new(serial::open(port, options.rs485.as_ref())?), Framing::Rtu))
        }
    }
}

async fn tcp(host: &Host) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host.name.as_str(), host.port)).await?;
    // Requests are small and each waits for its answer; should it fail they are only slower.
    stream.set_nodelay(true).ok();
    Ok(stream)
}
