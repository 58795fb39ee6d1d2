//! An MQTT broker inside the process, for `wheeltap demo` and for tests: rumqttd on a port of
//! 127.0.0.1, everything in memory, gone with the process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use rumqttd::protocol::v4::V4;
use rumqttd::{ConnectionSettings, LinkType, Router, RouterConfig, Server, ServerSettings};
use tokio_util::sync::CancellationToken;

/// Clients at one time; the demo has two.
const CONNECTIONS_MAX: usize = 64;
/// Largest message in bytes.
const PAYLOAD_MAX: usize = 1 << 20;
/// Messages on the way to one client.
const INFLIGHT_MAX: usize = 100;
/// Memory a topic filter may take: segments of so many bytes, so many of them.
const SEGMENT_BYTES: usize = 1 << 20;
const SEGMENTS: usize = 4;
/// The port is chosen before the broker binds it; somebody else may be quicker.
const START_ATTEMPTS: usize = 5;
/// A bound on waiting for the first connection after the thread was started.
const START_WAIT: Duration = Duration::from_secs(5);

/// A running broker; dropping it stops it.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker on a free port of 127.0.0.1 and returns once it accepts connections.
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    /// When no thread or no port can be had.
    pub fn start() -> io::Result<Self> {
        let mut last = io::Error::other("no attempt was made");
        for _ in 0..START_ATTEMPTS {
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            match Self::start_at(address) {
                Ok(broker) => return Ok(broker),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `mqtt://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    fn start_at(address: SocketAddr) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let until = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("mqtt-broker".into()).spawn(move || {
            // The router ends when the last sender to it is dropped: with this runtime.
            let router = Router::new(0, router()).spawn();
            let mut server = Server::new(settings(address), router, V4);
            runtime.block_on(async {
                tokio::select! {
                    ended = server.start(LinkType::Remote) => {
                        tracing::debug!(result = ?ended.err(), "the embedded broker ended");
                    }
                    () = until.cancelled() => {}
                }
            });
        })?;
        let broker = Self { address, stop, thread: Some(thread) };
        broker.wait_until_it_listens()?;
        Ok(broker)
    }

    /// The server binds on its own thread and tells nobody; a connection is the proof. Refused
    /// connections come back at once, so the waits between the attempts are a thread's yield.
    fn wait_until_it_listens(&self) -> io::Result<()> {
        let (_keep, never) = std::sync::mpsc::channel::<()>();
        let pause = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        loop {
            match TcpStream::connect_timeout(&self.address, START_WAIT) {
                Ok(_) => return Ok(()),
                Err(error) if waited >= START_WAIT => return Err(error),
                Err(_) if self.thread.as_ref().is_some_and(JoinHandle::is_finished) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        format!("the broker could not listen at {}", self.address),
                    ));
                }
                Err(_) => {
                    never.recv_timeout(pause).ok();
                    waited += pause;
                }
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::debug!("the embedded broker's thread panicked");
        }
    }
}

fn router() -> RouterConfig {
    RouterConfig {
        max_connections: CONNECTIONS_MAX,
        max_outgoing_packet_count: 200,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    }
}

fn settings(listen: SocketAddr) -> ServerSettings {
    ServerSettings {
        name: "embedded".into(),
        listen,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 5_000,
            max_payload_size: PAYLOAD_MAX,
            max_inflight_count: INFLIGHT_MAX,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};
    use tokio::time::timeout;

    use super::*;

    /// No test waits longer for one packet.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn client(broker: &Broker, id: &str, will: Option<LastWill>) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(id, "127.0.0.1", broker.address().port());
        options.set_keep_alive(Duration::from_secs(5));
        options.set_max_packet_size(PAYLOAD_MAX, PAYLOAD_MAX);
        if let Some(will) = will {
            options.set_last_will(will);
        }
        AsyncClient::new(options, 16)
    }

    async fn next<T>(events: &mut EventLoop, mut wanted: impl FnMut(Packet) -> Option<T>) -> T {
        timeout(PATIENCE, async {
            loop {
                if let Event::Incoming(packet) = events.poll().await.unwrap()
                    && let Some(found) = wanted(packet)
                {
                    return found;
                }
            }
        })
        .await
        .unwrap()
    }

    fn connected(packet: Packet) -> Option<()> {
        matches!(packet, Packet::ConnAck(_)).then_some(())
    }

    fn subscribed(packet: Packet) -> Option<()> {
        matches!(packet, Packet::SubAck(_)).then_some(())
    }

    fn acknowledged(packet: Packet) -> Option<u16> {
        if let Packet::PubAck(ack) = packet { Some(ack.pkid) } else { None }
    }

    fn message(packet: Packet) -> Option<(String, Vec<u8>, bool)> {
        if let Packet::Publish(publish) = packet {
            Some((publish.topic, publish.payload.to_vec(), publish.retain))
        } else {
            None
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn retained_messages_meet_a_late_subscriber_and_can_be_cleared() {
        let broker = Broker::start().unwrap();
        run(async {
            let (gateway, mut gateway_events) = client(&broker, "gateway", None);
            next(&mut gateway_events, connected).await;
            gateway.publish("w/a/g/status", QoS::AtLeastOnce, true, "online").await.unwrap();
            next(&mut gateway_events, acknowledged).await;
            gateway.publish("w/a/g/decision/1", QoS::AtLeastOnce, true, "?").await.unwrap();
            next(&mut gateway_events, acknowledged).await;
            gateway.publish("w/a/g/decision/1", QoS::AtLeastOnce, true, "").await.unwrap();
            next(&mut gateway_events, acknowledged).await;

            let (late, mut late_events) = client(&broker, "late", None);
            next(&mut late_events, connected).await;
            late.subscribe("w/#", QoS::AtLeastOnce).await.unwrap();
            next(&mut late_events, subscribed).await;
            let (topic, payload, retained) = next(&mut late_events, message).await;
            assert_eq!((topic.as_str(), payload.as_slice()), ("w/a/g/status", &b"online"[..]));
            assert!(retained);
            gateway.publish("w/a/g/alarm/P-101", QoS::AtLeastOnce, false, "!").await.unwrap();
            next(&mut gateway_events, acknowledged).await;
            let (topic, _, retained) = next(&mut late_events, message).await;
            assert_eq!((topic.as_str(), retained), ("w/a/g/alarm/P-101", false));
        });
    }

    #[test]
    fn a_client_that_vanishes_leaves_its_will() {
        let broker = Broker::start().unwrap();
        run(async {
            let (watcher, mut watching) = client(&broker, "watcher", None);
            next(&mut watching, connected).await;
            watcher.subscribe("w/+/+/status", QoS::AtLeastOnce).await.unwrap();
            next(&mut watching, subscribed).await;
            let will = LastWill::new("w/a/g/status", "offline", QoS::AtLeastOnce, true);
            let (gateway, mut events) = client(&broker, "gateway", Some(will));
            next(&mut events, connected).await;
            drop((gateway, events));
            let (topic, payload, _) = next(&mut watching, message).await;
            assert_eq!((topic.as_str(), payload.as_slice()), ("w/a/g/status", &b"offline"[..]));
        });
    }

    #[test]
    fn every_message_of_quality_one_is_acknowledged_and_arrives_once_in_order() {
        const COUNT: usize = 500;
        let broker = Broker::start().unwrap();
        run(async {
            let (watcher, mut watching) = client(&broker, "watcher", None);
            next(&mut watching, connected).await;
            watcher.subscribe("w/#", QoS::AtLeastOnce).await.unwrap();
            next(&mut watching, subscribed).await;
            let (gateway, mut events) = client(&broker, "gateway", None);
            next(&mut events, connected).await;
            let send = async {
                for number in 0..COUNT {
                    let payload = format!("{number:05}{}", "x".repeat(4_000));
                    gateway.publish("w/r", QoS::AtLeastOnce, false, payload).await.unwrap();
                }
            };
            let acks = async {
                for _ in 0..COUNT {
                    next(&mut events, acknowledged).await;
                }
            };
            let arrivals = async {
                for number in 0..COUNT {
                    let (_, payload, _) = next(&mut watching, message).await;
                    assert_eq!(payload[..5], *format!("{number:05}").as_bytes());
                }
            };
            tokio::join!(send, acks, arrivals);
        });
    }

    #[test]
    fn a_stopped_broker_gives_its_port_back() {
        let broker = Broker::start().unwrap();
        let address = broker.address();
        drop(broker);
        assert!(TcpStream::connect(address).is_err());
    }
}
