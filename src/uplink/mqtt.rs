//! One MQTT connection: rumqttc's event loop, used once and thrown away.
//!
//! rumqttc keeps unacknowledged publishes of its own for a session the broker still has, and
//! forgets them otherwise. We want exactly one owner of resending, the [`super::link`]; so every
//! connection has a fresh event loop, and what an old one held dies with it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, LastWill,
    MqttOptions, NetworkOptions, Outgoing, QoS, TlsConfiguration, Transport,
};
use tokio::sync::mpsc;

use super::cloudevents::Message;
use super::link::WINDOW;
use super::session::Loss;
use crate::config::{Broker, Upstream};
use crate::tls;

/// A dead peer is noticed after two of these at most (failures B04: 45 s).
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// TCP, TLS and CONNACK together (failures B05); also the longest one write may block.
const NETWORK_SECONDS: u64 = 5;
/// Largest packet either way. The library's own 10 KiB would break the connection over an event.
const PACKET_BYTES_MAX: usize = 512 * 1024;
/// Packet ids in use at most. More than the window, so that one message that is acknowledged late
/// does not hold up the next ones by its id.
const PACKET_IDS: u16 = 400;
/// What the connection may tell before it is heard.
const HAPPENED_MAX: usize = 256;
/// What a polite end may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// What happened on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happened {
    /// CONNACK.
    Connected,
    /// The next publish went out under this packet id (0 with QoS 0).
    Sent(u16),
    /// PUBACK or PUBCOMP.
    Acknowledged(u16),
}

/// An open or opening connection.
pub(super) struct Connection {
    client: AsyncClient,
    qos: QoS,
    happened: mpsc::Receiver<Happened>,
    /// Ends when the connection does. Only ever polled or dropped, never cancelled half-way and
    /// polled anew: a write that is cut short would lose its message.
    running: Pin<Box<dyn Future<Output = Loss> + Send>>,
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// In words, when the broker's settings cannot be used.
    pub(super) fn open(upstream: &Upstream, will: Message) -> Result<Self, String> {
        let broker = &upstream.broker;
        let qos = match upstream.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        };
        let mut options = MqttOptions::new(&broker.client_id, &broker.host, broker.port);
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_inflight(PACKET_IDS)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX)
            .set_last_will(LastWill::new(will.topic, will.payload, qos, will.retain))
            .set_transport(transport(broker)?);
        if let Some(username) = &broker.username {
            let password = broker.password.as_ref().map_or("", |secret| secret.expose());
            options.set_credentials(username, password);
        }
        // Status and health messages come on top of the window for a moment.
        let (client, mut eventloop) = AsyncClient::new(options, 2 * WINDOW);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(NETWORK_SECONDS);
        eventloop.set_network_options(network);
        let (tell, happened) = mpsc::channel(HAPPENED_MAX);
        Ok(Self { client, qos, happened, running: Box::pin(drive(eventloop, tell)) })
    }

    /// Hands a message to the client.
    ///
    /// # Errors
    /// In words, when the client takes none: the connection is then of no use.
    pub(super) fn publish(&self, message: Message) -> Result<(), String> {
        let Message { topic, retain, payload } = message;
        self.client
            .try_publish(topic, self.qos, retain, payload)
            .map_err(|error| format!("handing a message to the client: {error}"))
    }

    /// What happens next, or why the connection ended. Cancel-safe: both halves keep their place.
    pub(super) async fn next(&mut self) -> Result<Happened, Loss> {
        tokio::select! {
            // What was told before the end is heard before the end.
            biased;
            Some(happened) = self.happened.recv() => Ok(happened),
            loss = &mut self.running => Err(loss),
        }
    }

    /// What has already happened besides.
    pub(super) fn try_next(&mut self) -> Option<Happened> {
        self.happened.try_recv().ok()
    }

    /// Sends DISCONNECT, so that the broker keeps the will to itself, and waits for it to be
    /// written.
    pub(super) async fn farewell(mut self) {
        self.happened.close();
        if self.client.try_disconnect().is_ok()
            && tokio::time::timeout(FAREWELL, self.running).await.is_err()
        {
            tracing::debug!("the farewell to the broker was not written in time");
        }
    }
}

async fn drive(mut eventloop: EventLoop, tell: mpsc::Sender<Happened>) -> Loss {
    loop {
        let happened = match eventloop.poll().await {
            Ok(Event::Incoming(Incoming::ConnAck(_))) => Happened::Connected,
            Ok(Event::Incoming(Incoming::PubAck(ack))) => Happened::Acknowledged(ack.pkid),
            Ok(Event::Incoming(Incoming::PubComp(ack))) => Happened::Acknowledged(ack.pkid),
            Ok(Event::Outgoing(Outgoing::Publish(packet))) => Happened::Sent(packet),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                return Loss::Broken("closed by the gateway".to_owned());
            }
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => continue,
            Err(error) => return loss(&error),
        };
        // Nobody listens while a farewell is under way.
        tell.send(happened).await.ok();
    }
}

fn loss(error: &ConnectionError) -> Loss {
    if let ConnectionError::ConnectionRefused(code) = error {
        Loss::Refused(refusal(*code).to_owned())
    } else {
        Loss::Broken(chain(error))
    }
}

/// An error with its causes; those that the library has already put into the text are left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

const fn refusal(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::Success => "accepted",
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "it does not take the client id",
        ConnectReturnCode::ServiceUnavailable => "it is out of service",
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password",
        ConnectReturnCode::NotAuthorized => "not authorised",
    }
}

fn transport(broker: &Broker) -> Result<Transport, String> {
    if broker.v5 {
        return Err("MQTT 5 is not in this version: use 3.1.1".to_owned());
    }
    if broker.websocket {
        return Err(
            "MQTT over WebSocket is not in this version: use mqtt:// or mqtts://".to_owned()
        );
    }
    if !broker.tls {
        return Ok(Transport::tcp());
    }
    match tls::client_config(broker) {
        Ok(config) => Ok(Transport::tls_with_config(TlsConfiguration::Rustls(config))),
        Err(error) => Err(chain(&error)),
    }
}
