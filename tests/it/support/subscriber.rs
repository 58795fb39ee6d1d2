//! A subscriber with a session of its own that keeps every CloudEvent it hears.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS, RecvTimeoutError};
use serde_json::Value;

use super::wait;

/// Running until dropped.
#[derive(Debug)]
pub(crate) struct Subscriber {
    heard: Arc<Mutex<Vec<Value>>>,
    stop: Arc<AtomicBool>,
}

impl Subscriber {
    /// Subscribes, and returns once the broker has said yes.
    pub(crate) fn start(port: u16, filter: &str) -> Self {
        let mut options =
            MqttOptions::new(format!("ear-{port}-{}", fastrand::u32(..)), "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(1 << 22, 1 << 22);
        let (client, mut connection) = Client::new(options, 10);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let this = Self { heard: Arc::clone(&heard), stop: Arc::clone(&stop) };
        let (filter, listening) = (filter.to_owned(), Arc::clone(&ready));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match connection.recv_timeout(Duration::from_millis(200)) {
                    Ok(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        client.try_subscribe(&filter, QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Ok(Event::Incoming(Packet::SubAck(_)))) => {
                        listening.store(true, Ordering::Relaxed);
                    }
                    Ok(Ok(Event::Incoming(Packet::Publish(publish)))) => {
                        // An empty message only clears a retained topic.
                        if !publish.payload.is_empty() {
                            let event = serde_json::from_slice(&publish.payload);
                            heard.lock().unwrap().push(event.expect("every message is JSON"));
                        }
                    }
                    Ok(Ok(_)) | Err(RecvTimeoutError::Timeout) => {}
                    // The broker is away; the next look connects again.
                    Ok(Err(_)) => wait::pause(Duration::from_millis(50)),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        wait::until("the subscription", || ready.load(Ordering::Relaxed).then_some(()));
        this
    }

    /// What was heard so far, repeats by id dropped.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|event| seen.insert(text(event, "id"))).cloned().collect()
    }

    /// Waits for an event of this type and subject.
    pub(crate) fn wait_for(&self, kind: &str, subject: &str) -> Value {
        self.wait_with(kind, subject, |_| true)
    }

    /// Waits for an event of this type and subject that is as wanted.
    pub(crate) fn wait_with(
        &self,
        kind: &str,
        subject: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let kind = format!("wheeltap.{kind}");
        wait::until(&format!("{kind} about {subject}"), || {
            let heard = self.heard.lock().unwrap();
            let mut fit = heard.iter().filter(|event| {
                event["type"] == *kind && event["subject"] == *subject && wanted(event)
            });
            fit.next().cloned()
        })
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A text field.
pub(crate) fn text(event: &Value, key: &str) -> String {
    event[key].as_str().unwrap_or_else(|| panic!("no {key} in {event}")).to_owned()
}
