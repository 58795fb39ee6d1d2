//! One connection after the other: when to try again, what is under way on the present one, and
//! when the broker's silence ends it.
//!
//! rumqttc has no timeout for acknowledgements and forgets what was in flight when the broker lost
//! the session (failures §0.1, §0.5); both are owned here. Exactly one owner resends: the lanes,
//! from what they have acknowledged. Whatever was under way when a connection ends is forgotten
//! with it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How the connection is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Pace {
    /// TCP, TLS and CONNACK together must be through by then.
    pub connect_within: Duration,
    /// An acknowledgement that takes longer ends the connection.
    pub acknowledge_within: Duration,
    /// First pause before connecting again; doubles with every attempt.
    pub retry_min: Duration,
    /// Longest pause while the trouble is young, so that live data are back within 15 s of a
    /// broker's return.
    pub retry_young: Duration,
    /// Longest pause afterwards.
    pub retry_max: Duration,
    /// How long trouble counts as young.
    pub young: Duration,
    /// A connection that held this long was sound: the next pause is the first one again.
    pub stable: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(6),
            acknowledge_within: Duration::from_secs(30),
            retry_min: Duration::from_secs(1),
            retry_young: Duration::from_secs(10),
            retry_max: Duration::from_secs(60),
            young: Duration::from_secs(600),
            stable: Duration::from_secs(60),
        }
    }
}

/// Silent connections in a row after which the broker counts as stalled (failures B07).
pub const STALLS_MAX: u32 = 3;

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not connected; tried again at this moment (monotonic).
    Down {
        /// When.
        retry_at: Duration,
    },
    /// Being set up.
    Connecting {
        /// Given up at this moment.
        deadline: Duration,
    },
    /// Messages flow.
    Up {
        /// Since this moment.
        since: Duration,
    },
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// The network or the broker broke it.
    Broken(String),
    /// The broker said no (CONNACK with a code): trying again soon would not help.
    Refused(String),
    /// No acknowledgement came in time.
    Silent,
}

/// A message on its way, by what its acknowledgement means.
#[derive(Debug, Clone, PartialEq)]
pub struct Parcel<U> {
    /// What is acknowledged by it.
    pub unit: U,
    /// When it was handed to the client (monotonic).
    pub handed: Duration,
    /// Its size.
    pub bytes: usize,
}

/// The present connection with all that is under way on it. `U` says what a parcel stands for.
#[derive(Debug)]
pub struct Session<U> {
    pace: Pace,
    state: State,
    random: fastrand::Rng,
    attempt: u32,
    trouble_since: Option<Duration>,
    stalls: u32,
    /// Handed to the client, which has not told their packet ids yet; in order.
    handed: VecDeque<Parcel<U>>,
    /// By packet id.
    inflight: BTreeMap<u16, Parcel<U>>,
    round_trip: Option<Duration>,
}

impl<U> Session<U> {
    /// Not connected, to be tried at once.
    #[must_use]
    pub fn new(pace: Pace, seed: u64) -> Self {
        Self {
            pace,
            state: State::Down { retry_at: Duration::ZERO },
            random: fastrand::Rng::with_seed(seed),
            attempt: 0,
            trouble_since: None,
            stalls: 0,
            handed: VecDeque::new(),
            inflight: BTreeMap::new(),
            round_trip: None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether messages flow.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Silent connections in a row.
    #[must_use]
    pub const fn stalls(&self) -> u32 {
        self.stalls
    }

    /// Round trip of the last acknowledgement.
    #[must_use]
    pub const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// Messages under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.handed.len() + self.inflight.len()
    }

    /// Everything under way.
    pub fn parcels(&self) -> impl Iterator<Item = &Parcel<U>> {
        self.inflight.values().chain(&self.handed)
    }

    /// Begins to connect.
    pub fn connecting(&mut self, now: Duration) {
        self.state = State::Connecting { deadline: now + self.pace.connect_within };
    }

    /// CONNACK has come.
    pub fn connected(&mut self, now: Duration) {
        self.state = State::Up { since: now };
        self.forget();
    }

    /// The connection is gone, with all that was under way. The next one is tried after a pause
    /// that doubles, spread by a quarter to both sides so that a fleet does not return in step.
    pub fn lost(&mut self, now: Duration, loss: &Loss) {
        if let State::Up { since } = self.state
            && now.saturating_sub(since) >= self.pace.stable
        {
            self.attempt = 0;
            self.trouble_since = None;
        }
        let since = *self.trouble_since.get_or_insert(now);
        let young = now.saturating_sub(since) < self.pace.young;
        let doubled = self.pace.retry_min.saturating_mul(1_u32 << self.attempt.min(16));
        let cap = if young { self.pace.retry_young } else { self.pace.retry_max };
        let mut pause = doubled.min(cap).mul_f64(0.75 + 0.5 * self.random.f64());
        match loss {
            Loss::Broken(_) => {}
            // Wrong credentials do not mend by themselves (failures B14: at most 60 an hour).
            Loss::Refused(_) => pause = self.pace.retry_max.mul_f64(1.0 + 0.25 * self.random.f64()),
            Loss::Silent => self.stalls = self.stalls.saturating_add(1),
        }
        self.attempt = self.attempt.saturating_add(1);
        self.state = State::Down { retry_at: now + pause };
        self.forget();
    }

    /// Tries again at once, e.g. because the broker's address has changed.
    pub fn retry_now(&mut self, now: Duration) {
        self.attempt = 0;
        self.trouble_since = None;
        self.state = State::Down { retry_at: now };
        self.forget();
    }

    fn forget(&mut self) {
        self.handed.clear();
        self.inflight.clear();
    }

    /// A message was handed to the client.
    pub fn hand(&mut self, parcel: Parcel<U>) {
        self.handed.push_back(parcel);
    }

    /// The client has sent the oldest handed message under this packet id. Returns the parcel when
    /// it needs no acknowledgement (QoS 0, packet id 0).
    pub fn sent(&mut self, packet: u16) -> Option<Parcel<U>> {
        let parcel = self.handed.pop_front()?;
        if packet == 0 {
            return Some(parcel);
        }
        // The client never gives an id out twice before its acknowledgement; if it did, the older
        // message simply stays unacknowledged and is sent again.
        self.inflight.insert(packet, parcel);
        None
    }

    /// An acknowledgement. Unknown packet ids acknowledge nothing.
    pub fn acknowledged(&mut self, now: Duration, packet: u16) -> Option<Parcel<U>> {
        let parcel = self.inflight.remove(&packet)?;
        self.round_trip = Some(now.saturating_sub(parcel.handed));
        self.stalls = 0;
        Some(parcel)
    }

    /// When the present state runs out; `None` while nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Down { retry_at } => Some(retry_at),
            State::Connecting { deadline } => Some(deadline),
            State::Up { .. } => self
                .parcels()
                .map(|parcel| parcel.handed)
                .min()
                .map(|oldest| oldest + self.pace.acknowledge_within),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Failures B03: at most 1,600 attempts in 24 h, the first ones soon.
    #[test]
    fn f_b03_attempts_are_capped_and_spread() {
        for seed in 0..50 {
            let mut session: Session<()> = Session::new(Pace::default(), seed);
            let mut now = seconds(0);
            let mut attempts = 0;
            while now < seconds(24 * 3600) {
                session.connecting(now);
                session.lost(now, &Loss::Broken("refused".into()));
                attempts += 1;
                let State::Down { retry_at } = session.state() else { panic!("not down") };
                let pause = retry_at - now;
                assert!(pause >= Duration::from_millis(750) && pause <= seconds(75), "{pause:?}");
                if now < seconds(300) {
                    assert!(pause <= Duration::from_millis(12_500), "{pause:?} at {now:?}");
                }
                now = retry_at;
            }
            assert!(attempts <= 1600, "{attempts} attempts, seed {seed}");
        }
    }

    #[test]
    fn f_b14_a_refused_gateway_waits_at_least_a_minute() {
        let mut session: Session<()> = Session::new(Pace::default(), 1);
        for _ in 0..10 {
            session.connecting(seconds(5));
            session.lost(seconds(5), &Loss::Refused("bad user name".into()));
            let State::Down { retry_at } = session.state() else { panic!("not down") };
            assert!(retry_at - seconds(5) >= seconds(60));
        }
    }

    #[test]
    fn only_a_stable_connection_resets_the_pause() {
        let mut session: Session<()> = Session::new(Pace::default(), 1);
        let broken = Loss::Broken("reset".into());
        let mut now = seconds(0);
        for _ in 0..6 {
            session.connected(now);
            now += seconds(2);
            session.lost(now, &broken);
        }
        let State::Down { retry_at } = session.state() else { panic!("not down") };
        assert!(retry_at - now >= seconds(7));
        session.connected(now);
        now += seconds(61);
        session.lost(now, &broken);
        let State::Down { retry_at } = session.state() else { panic!("not down") };
        assert!(retry_at - now < seconds(2));
    }

    #[test]
    fn f_b09_an_unknown_packet_id_acknowledges_nothing() {
        let mut session = Session::new(Pace::default(), 1);
        session.connected(seconds(0));
        for unit in ["a", "b"] {
            session.hand(Parcel { unit, handed: seconds(0), bytes: 1 });
        }
        assert!(session.sent(7).is_none());
        assert!(session.acknowledged(seconds(1), 8).is_none());
        assert!(session.sent(8).is_none());
        assert_eq!(session.acknowledged(seconds(1), 8).unwrap().unit, "b");
        assert!(session.acknowledged(seconds(1), 8).is_none());
        assert_eq!(session.acknowledged(seconds(1), 7).unwrap().unit, "a");
    }
}
