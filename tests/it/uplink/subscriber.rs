//! A subscriber that drops repeats by id, as the contract asks of subscribers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::gateway::PATIENCE;

/// One message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) retained: bool,
    /// Null for an empty message.
    pub(crate) event: Value,
}

/// A subscriber on everything of the gateway.
pub(crate) struct Subscriber {
    messages: mpsc::Receiver<Option<Received>>,
    task: JoinHandle<()>,
    ids: BTreeSet<String>,
    /// Sequence numbers by class, each event once, in order of arrival.
    pub(crate) sequences: BTreeMap<String, Vec<u64>>,
    /// Messages that came again.
    pub(crate) repeats: u64,
    /// Identity of every reading.
    pub(crate) readings: BTreeSet<(String, String)>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscriber {
    /// Subscribes at the broker on `port`, and again whenever the broker comes back.
    #[expect(clippy::disallowed_methods, reason = "the test stands in for the supervisor")]
    pub(crate) async fn start(port: u16) -> Self {
        let (tell, messages) = mpsc::channel(100_000);
        let task = tokio::spawn(async move {
            let mut options = MqttOptions::new("subscriber", "127.0.0.1", port);
            options.set_max_packet_size(1 << 20, 1 << 20);
            let (client, mut eventloop) = AsyncClient::new(options, 10);
            loop {
                match eventloop.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.subscribe("wheeltap/#", QoS::AtLeastOnce).await.unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => tell.send(None).await.unwrap(),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let received = Received {
                            topic: publish.topic,
                            retained: publish.retain,
                            event: serde_json::from_slice(&publish.payload).unwrap_or(Value::Null),
                        };
                        tell.send(Some(received)).await.unwrap();
                    }
                    Ok(_) => {}
                    // The broker is away; a pause, so that it is not asked in a circle.
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let mut subscriber = Self {
            messages,
            task,
            ids: BTreeSet::new(),
            sequences: BTreeMap::new(),
            repeats: 0,
            readings: BTreeSet::new(),
        };
        subscriber.subscribed().await;
        subscriber
    }

    async fn message(&mut self) -> Option<Received> {
        let message = tokio::time::timeout(PATIENCE, self.messages.recv()).await;
        message.expect("a message comes").expect("the subscriber lives")
    }

    /// Waits until the broker has (again) taken the subscription.
    pub(crate) async fn subscribed(&mut self) {
        while let Some(received) = self.message().await {
            self.note(&received);
        }
    }

    /// The next message; repeats come too.
    pub(crate) async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.message().await {
                self.note(&received);
                return received;
            }
        }
    }

    /// The next message that is as asked.
    pub(crate) async fn wait(&mut self, wanted: impl Fn(&Received) -> bool) -> Received {
        loop {
            let received = self.next().await;
            if wanted(&received) {
                return received;
            }
        }
    }

    /// The next event of a type.
    pub(crate) async fn event(&mut self, kind: &str) -> Received {
        self.wait(|received| received.event["type"] == format!("wheeltap.{kind}")).await
    }

    fn note(&mut self, received: &Received) {
        let event = &received.event;
        let Some(id) = event["id"].as_str() else { return };
        if !self.ids.insert(id.to_owned()) {
            self.repeats += 1;
            return;
        }
        let class = received.topic.split('/').nth(3).unwrap().to_owned();
        if let Some(number) = event["sequence"].as_str() {
            self.sequences.entry(class).or_default().push(number.parse().unwrap());
        }
        if event["type"] == "wheeltap.readings.batch" {
            for reading in event["data"].as_array().unwrap() {
                let identity = |key: &str| reading[key].as_str().unwrap().to_owned();
                self.readings.insert((identity("tag"), identity("time")));
            }
        }
    }
}
