//! What lasts as long as one connection: which messages wait to be acknowledged, and what the broker
//! owes us.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::oneshot;

use super::link::{CONNECT_TIMEOUT, Link, LinkError};
use super::wire::{self, Answer, Version};
use crate::domain::reading::Ack;
use crate::domain::time::Timestamp;
use crate::sources::topics::Filter;
use crate::sparkplug::payload::Payload;
use crate::sparkplug::topic::{Kind, NAMESPACE};

/// Filters in one SUBSCRIBE; it must fit a broker's packet limit.
const FILTERS_MAX: usize = 50;
/// Longest wait for the answer to a ping.
const PONG_MAX: Duration = Duration::from_secs(10);

/// Group of a message that waits for nothing.
const NOTHING: u64 = 0;
/// Group of a message whose readings have not been handed in yet.
const GATHERING: u64 = u64::MAX;

/// Messages that are not yet acknowledged, in the order they came. The broker's window bounds them:
/// packet ids end at 65,535.
#[derive(Debug, Default)]
pub(super) struct Acks {
    messages: VecDeque<Waiting>,
    /// Number of the oldest of them.
    first: u64,
    /// Number of the group handed in last.
    group: u64,
}

#[derive(Debug)]
struct Waiting {
    id: u16,
    qos: u8,
    /// Messages are handed in in groups; each is durable as a whole.
    group: u64,
}

/// Messages that were handed in together, and who says when they are durable.
#[derive(Debug)]
pub(super) struct Group {
    number: u64,
    durable: oneshot::Receiver<()>,
}

/// Whether the oldest group is durable; cancel-safe, as nothing is taken out.
pub(super) async fn told(group: Option<&mut Group>) -> bool {
    match group {
        Some(group) => (&mut group.durable).await.is_ok(),
        None => std::future::pending().await,
    }
}

impl Acks {
    /// One more message, which so far waits for nothing; returns its number.
    pub(super) fn expect(&mut self, id: u16, qos: u8) -> u64 {
        self.messages.push_back(Waiting { id, qos, group: NOTHING });
        self.first + self.messages.len() as u64 - 1
    }

    /// This message waits until its readings are handed in and durable.
    pub(super) fn wait(&mut self, number: u64) {
        self.set(number, GATHERING);
    }

    fn set(&mut self, number: u64, group: u64) {
        let place = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if let Some(waiting) = self.messages.get_mut(place) {
            waiting.group = group;
        }
    }

    /// These messages are handed in now; `None` when there are none.
    pub(super) fn group(
        &mut self,
        numbers: &mut Vec<u64>,
        groups: &mut VecDeque<Group>,
    ) -> Option<Ack> {
        if numbers.is_empty() {
            return None;
        }
        self.group += 1;
        let (telling, durable) = oneshot::channel();
        groups.push_back(Group { number: self.group, durable });
        let ack = Ack::of(telling, numbers.len());
        let group = self.group;
        for number in numbers.drain(..) {
            self.set(number, group);
        }
        Some(ack)
    }

    /// Acknowledges, in order, what is durable up to this group.
    fn acknowledge(&mut self, durable: u64, outbox: &mut Vec<u8>) {
        while let Some(done) = self.messages.pop_front_if(|waiting| waiting.group <= durable) {
            self.first += 1;
            let answer = if done.qos == 1 { Answer::Ack } else { Answer::Received };
            wire::answer(outbox, answer, done.id);
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    version: Version,
    pub(super) acks: Acks,
    /// Handed in and not yet durable, in order.
    pub(super) groups: VecDeque<Group>,
    /// Last group that is durable.
    durable: u64,
    /// Subscriptions without an answer, by the number of their request.
    pub(super) expected: BTreeMap<u16, Vec<Filter>>,
    pub(super) subscribing_since: Option<Duration>,
    pub(super) connected_at: Duration,
    /// When the broker was last heard.
    pub(super) heard_at: Duration,
    /// When we last said something of our own accord.
    said_at: Duration,
    /// When a ping was sent that is not yet answered.
    pub(super) pinged_at: Option<Duration>,
}

impl Session {
    pub(super) const fn new(link: Link, version: Version, now: Duration) -> Self {
        Self {
            link,
            version,
            acks: Acks { messages: VecDeque::new(), first: 0, group: NOTHING },
            groups: VecDeque::new(),
            durable: NOTHING,
            expected: BTreeMap::new(),
            subscribing_since: None,
            connected_at: now,
            heard_at: now,
            said_at: now,
            pinged_at: None,
        }
    }

    /// Asks for these filters.
    pub(super) fn subscribe(&mut self, filters: &[Filter], now: Duration) {
        self.subscribing_since = Some(now);
        for (id, filters) in (1..).zip(filters.chunks(FILTERS_MAX)) {
            let texts = filters.iter().map(Filter::as_str);
            wire::subscribe(&mut self.link.outbox, self.version, id, texts, 1);
            self.expected.insert(id, filters.to_vec());
        }
    }

    /// The oldest group is durable, and perhaps those after it. Returns whether none of them is lost.
    pub(super) fn group_done(&mut self) -> bool {
        while let Some(group) = self.groups.pop_front() {
            self.durable = group.number;
            match self.groups.front_mut().map(|next| next.durable.try_recv()) {
                Some(Ok(())) => {}
                Some(Err(oneshot::error::TryRecvError::Empty)) | None => break,
                Some(Err(oneshot::error::TryRecvError::Closed)) => return false,
            }
        }
        true
    }

    /// Puts the acknowledgements that are due into the outbox.
    pub(super) fn acknowledge(&mut self) {
        self.acks.acknowledge(self.durable, &mut self.link.outbox);
    }

    /// Asks a node for its births.
    pub(super) fn ask_rebirth(&mut self, group: &str, node: &str, at: Timestamp) {
        let topic = format!("{NAMESPACE}/{group}/{}/{node}", Kind::NodeCommand.as_str());
        let millis = u64::try_from(at.micros() / 1000).unwrap_or(0);
        let request = Payload::rebirth(millis).encode_to_vec();
        wire::publish(&mut self.link.outbox, self.version, &topic, &request);
        tracing::debug!(group, node, "asking a node for its births");
    }

    /// Sends a ping when it is time, and says so when the broker owes us something for too long.
    pub(super) fn overdue(&mut self, now: Duration) -> Option<LinkError> {
        let since = |at: Duration| now.saturating_sub(at);
        if let Some(at) = self.subscribing_since
            && since(at) >= CONNECT_TIMEOUT
        {
            return Some(LinkError::NoSubAck { after: since(at) });
        }
        let keep_alive = self.link.keep_alive;
        match self.pinged_at {
            Some(at) if since(at) >= keep_alive.min(PONG_MAX) => {
                return Some(LinkError::Silent { after: since(self.heard_at) });
            }
            Some(_) => {}
            None if since(self.heard_at) >= keep_alive || since(self.said_at) >= keep_alive => {
                wire::ping(&mut self.link.outbox);
                self.said_at = now;
                self.pinged_at = Some(now);
            }
            None => {}
        }
        None
    }
}
