//! I/O: one connection to a broker over TCP or TLS, from the handshake to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::wire::{self, Connect, Inbox, Packet, Version, WireError};
use crate::config::Broker;
use crate::sources::SourceError;

/// TCP, TLS and CONNACK together; also one write.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read at once.
const READ_SIZE: usize = 64 * 1024;
/// How long a broker keeps our session while we are away, in seconds (MQTT 5; with 3.1.1 the
/// broker decides).
const SESSION_EXPIRY: u32 = 7 * 86_400;
/// Messages under way that we have not acknowledged (MQTT 5; with 3.1.1 the broker decides). The
/// ring lets 4,096 senders wait.
const RECEIVE_MAX: u16 = 1_000;

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It took too long.
    #[error("no answer within {after:?}")]
    Timeout {
        /// How long we waited.
        after: Duration,
    },
    /// The network says no.
    #[error("{doing}")]
    Network {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The name in the address cannot stand in a certificate.
    #[error("`{host}` is no name for TLS")]
    Name {
        /// The name.
        host: String,
    },
    /// The broker ended the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker does not take us.
    #[error("the broker refuses the connection: {what} (code {code})")]
    Refused {
        /// In words.
        what: &'static str,
        /// As sent.
        code: u8,
    },
    /// The broker ended the connection and said why (MQTT 5).
    #[error("the broker ends the connection: {what} (code {code})")]
    Dismissed {
        /// In words.
        what: &'static str,
        /// As sent.
        code: u8,
    },
    /// What came is no MQTT.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Something came before the handshake was done.
    #[error("the broker did not begin with CONNACK")]
    Order,
    /// The broker answers no ping.
    #[error("the broker is silent for {after:?}")]
    Silent {
        /// How long.
        after: Duration,
    },
    /// The broker does not say what became of our subscriptions.
    #[error("no answer to the subscription within {after:?}")]
    NoSubAck {
        /// How long we waited.
        after: Duration,
    },
}

impl LinkError {
    /// Whether trying again soon is pointless, until somebody changes something.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Timeout { .. }
            | Self::Network { .. }
            | Self::Name { .. }
            | Self::Closed
            | Self::Dismissed { .. }
            | Self::Wire(_)
            | Self::Order
            | Self::Silent { .. }
            | Self::NoSubAck { .. } => false,
        }
    }

    /// Whether the end came from a packet that will come again in this session.
    #[must_use]
    pub const fn is_poison(&self) -> bool {
        match self {
            Self::Wire(_) => true,
            Self::Refused { .. }
            | Self::Timeout { .. }
            | Self::Network { .. }
            | Self::Name { .. }
            | Self::Closed
            | Self::Dismissed { .. }
            | Self::Order
            | Self::Silent { .. }
            | Self::NoSubAck { .. } => false,
        }
    }

    /// The error with its causes on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Where a broker is and how we present ourselves.
#[derive(Clone)]
pub struct Address {
    broker: Broker,
    tls: Option<Arc<ClientConfig>>,
    /// How often we promise to be heard.
    keep_alive: Duration,
    /// Longest packet that is gathered, in bytes.
    packet_max: usize,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Address {
    /// The address of a broker; its keys and certificates are read now.
    ///
    /// # Errors
    /// [`SourceError::Tls`], [`SourceError::Unsupported`].
    pub fn new(
        broker: &Broker,
        keep_alive: Duration,
        packet_max: usize,
    ) -> Result<Self, SourceError> {
        let address = || format!("{}:{}", broker.host, broker.port);
        if broker.websocket {
            return Err(SourceError::Unsupported {
                broker: address(),
                what: "MQTT over websocket",
            });
        }
        let mut tls = None;
        if broker.tls {
            let config = crate::tls::client_config(broker)
                .map_err(|source| SourceError::Tls { broker: address(), source })?;
            tls = Some(config);
        }
        Ok(Self { broker: broker.clone(), tls, keep_alive, packet_max })
    }

    /// The version of MQTT spoken there.
    #[must_use]
    pub const fn version(&self) -> Version {
        if self.broker.v5 { Version::V5 } else { Version::V4 }
    }
}

/// A connection whose handshake is done.
pub struct Link {
    stream: Box<dyn Stream>,
    /// What has come.
    pub inbox: Inbox,
    /// What is to go.
    pub outbox: Vec<u8>,
    /// Whether the broker remembered our session.
    pub session_present: bool,
    /// How often it wants to hear from us.
    pub keep_alive: Duration,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

impl Link {
    /// Connects under this client id, as a whole within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open(address: &Address, client_id: &str, clean: bool) -> Result<Self, LinkError> {
        let after = CONNECT_TIMEOUT;
        let opening = Self::open_unhurried(address, client_id, clean);
        tokio::time::timeout(after, opening).await.map_err(|_| LinkError::Timeout { after })?
    }

    async fn open_unhurried(
        address: &Address,
        client_id: &str,
        clean: bool,
    ) -> Result<Self, LinkError> {
        let broker = &address.broker;
        let network = |doing| move |source| LinkError::Network { doing, source };
        let tcp = TcpStream::connect((broker.host.as_str(), broker.port))
            .await
            .map_err(network("connecting"))?;
        tcp.set_nodelay(true).map_err(network("connecting"))?;
        let stream: Box<dyn Stream> = match &address.tls {
            None => Box::new(tcp),
            Some(config) => {
                let name = ServerName::try_from(broker.host.clone())
                    .map_err(|_| LinkError::Name { host: broker.host.clone() })?;
                let connector = TlsConnector::from(Arc::clone(config));
                let secured = connector.connect(name, tcp).await;
                Box::new(secured.map_err(network("agreeing on TLS"))?)
            }
        };
        let inbox = Inbox::new(address.version(), address.packet_max);
        let keep_alive = address.keep_alive;
        let mut link =
            Self { stream, inbox, outbox: Vec::new(), session_present: false, keep_alive };
        let connect = Connect {
            version: address.version(),
            client_id,
            // A lasting session needs a name; the configuration gives one.
            clean: clean || client_id.is_empty(),
            session_expiry: if clean { 0 } else { SESSION_EXPIRY },
            receive_max: RECEIVE_MAX,
            // Whole seconds, rather more than fewer: brokers end what is late.
            keep_alive: u16::try_from(keep_alive.as_millis().div_ceil(1000)).unwrap_or(u16::MAX),
            username: broker.username.as_deref(),
            password: broker.password.as_ref().map(|password| password.expose()),
        };
        wire::connect(&mut link.outbox, &connect);
        link.flush().await?;
        loop {
            match link.inbox.next_packet()? {
                None => {}
                Some(Packet::ConnAck { code: 0, session_present, keep_alive }) => {
                    link.session_present = session_present;
                    if let Some(seconds) = keep_alive.filter(|seconds| *seconds > 0) {
                        link.keep_alive = link.keep_alive.min(Duration::from_secs(seconds.into()));
                    }
                    return Ok(link);
                }
                Some(Packet::ConnAck { code, .. }) => {
                    let what = wire::refusal(address.version(), code);
                    return Err(LinkError::Refused { what, code });
                }
                Some(_) => return Err(LinkError::Order),
            }
            link.read().await?;
        }
    }

    /// Waits until something has come. Cancel-safe: what has come stays in the inbox.
    ///
    /// # Errors
    /// [`LinkError::Closed`], [`LinkError::Network`].
    pub async fn read(&mut self) -> Result<(), LinkError> {
        self.inbox.bytes.reserve(READ_SIZE);
        match self.stream.read_buf(&mut self.inbox.bytes).await {
            Ok(0) => Err(LinkError::Closed),
            Ok(_) => Ok(()),
            Err(source) => Err(LinkError::Network { doing: "receiving", source }),
        }
    }

    /// Sends what is in the outbox. Not cancel-safe: a packet may be cut.
    ///
    /// # Errors
    /// [`LinkError::Network`], [`LinkError::Timeout`].
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let Self { stream, outbox, .. } = self;
        let writing = async {
            stream.write_all(outbox).await?;
            stream.flush().await
        };
        let written = tokio::time::timeout(CONNECT_TIMEOUT, writing).await;
        self.outbox.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(LinkError::Network { doing: "sending", source }),
            Err(_) => Err(LinkError::Timeout { after: CONNECT_TIMEOUT }),
        }
    }
}
