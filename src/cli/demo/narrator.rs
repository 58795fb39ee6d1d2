//! The narrator's ear: a subscriber on the embedded broker, like any other.

use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

/// Topic classes under the root that belong to the story; readings and health do not.
const CLASSES: [&str; 10] = [
    "status",
    "gateway",
    "asset/+",
    "anomaly/+",
    "alarm/+",
    "prediction/+",
    "decision/+",
    "work-order/+",
    "notification",
    "dead-letter",
];
/// Largest message in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Requests that may wait for the event loop: all subscriptions at once.
const REQUESTS_MAX: usize = 16;
/// The broker lives in this process; it is asked again at an even pace.
const RECONNECT: Duration = Duration::from_millis(200);

/// A subscriber.
pub(super) struct Ear {
    client: AsyncClient,
    events: EventLoop,
}

impl Ear {
    /// A subscriber that connects with the first [`Self::next`].
    pub(super) fn new(broker: SocketAddr) -> Self {
        let mut options =
            MqttOptions::new("wheeltap-demo-narrator", broker.ip().to_string(), broker.port());
        options.set_keep_alive(Duration::from_secs(10));
        options.set_max_packet_size(MESSAGE_MAX, MESSAGE_MAX);
        let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
        Self { client, events }
    }

    /// The payload of the next message. Cancel-safe: the event loop keeps its place.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Packet::Publish(publish))) => return publish.payload.to_vec(),
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    for class in CLASSES {
                        let filter = format!("wheeltap/+/+/{class}");
                        // The queue has room for all of them, and a failure ends the connection.
                        self.client.try_subscribe(filter, QoS::AtLeastOnce).ok();
                    }
                }
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "the narrator lost the broker");
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }
}
