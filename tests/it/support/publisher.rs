//! A client that publishes many messages over one connection.

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS};

/// A connected publisher.
pub(crate) struct Publisher {
    client: AsyncClient,
    connection: EventLoop,
    /// Messages whose sending or acknowledgement is still to come.
    open: usize,
}

/// Messages handed in before the network is looked after.
const AHEAD: usize = 100;

impl Publisher {
    /// Connects to a broker on this machine.
    pub(crate) async fn connect(port: u16) -> Self {
        let id = format!("pub-{}", fastrand::u64(..));
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_max_packet_size(1 << 22, 1 << 22).set_inflight(u16::try_from(AHEAD).unwrap());
        let (client, mut connection) = AsyncClient::new(options, 2 * AHEAD);
        while !matches!(connection.poll().await.unwrap(), Event::Incoming(Packet::ConnAck(_))) {}
        Self { client, connection, open: 0 }
    }

    /// Publishes with QoS 0 or 1.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>, qos: u8) {
        self.send(topic, payload.into(), qos, false).await;
    }

    /// Publishes a retained message with QoS 1.
    pub(crate) async fn retain(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.send(topic, payload.into(), 1, true).await;
    }

    async fn send(&mut self, topic: &str, payload: Vec<u8>, qos: u8, retain: bool) {
        while self.open >= AHEAD {
            self.step().await;
        }
        let qos = if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        self.client.try_publish(topic, qos, retain, payload).unwrap();
        self.open += 1;
    }

    /// Waits until all is sent, and acknowledged where the broker does.
    pub(crate) async fn drain(&mut self) {
        while self.open > 0 {
            self.step().await;
        }
    }

    /// Looks after the network for one event.
    pub(crate) async fn step(&mut self) {
        match self.connection.poll().await.unwrap() {
            Event::Incoming(Packet::PubAck(_)) => self.open -= 1,
            // QoS 0 has no number.
            Event::Outgoing(Outgoing::Publish(0)) => self.open -= 1,
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
    }

    /// Subscribes with QoS 0 and waits for the broker's yes.
    pub(crate) async fn subscribe(&mut self, filter: &str) {
        self.client.try_subscribe(filter, QoS::AtMostOnce).unwrap();
        loop {
            if let Event::Incoming(Packet::SubAck(_)) = self.connection.poll().await.unwrap() {
                return;
            }
        }
    }

    /// The next message that is heard.
    pub(crate) async fn heard(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Event::Incoming(Packet::Publish(said)) = self.connection.poll().await.unwrap() {
                return (said.topic, said.payload.to_vec());
            }
        }
    }
}
