//! The fault script at work: pure, told the time, one seed one course for one order of requests.

use std::time::Duration;

use super::frames;
use crate::config::{FaultScript, Mischief};

/// What goes back for a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Reply {
    /// Pause before it.
    pub(super) delay: Duration,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// Whether the connection is closed then.
    pub(super) close: bool,
}

/// A script and how often each of its rules has been carried out.
#[derive(Debug)]
pub(super) struct Mischiefs {
    script: FaultScript,
    done: Vec<u64>,
    random: fastrand::Rng,
}

impl Mischiefs {
    /// `seed` counts when the script has none.
    pub(super) fn new(script: FaultScript, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(script.seed.unwrap_or(seed));
        Self { done: vec![0; script.rules.len()], script, random }
    }

    /// What goes back instead of the right answer `pdu` to the request `request`.
    pub(super) fn reply(
        &mut self,
        elapsed: Duration,
        transaction: u16,
        unit: u8,
        request: &[u8],
        pdu: Vec<u8>,
    ) -> Reply {
        let what = self.choose(elapsed, unit, request);
        let right = |pdu: &[u8]| frames::frame(transaction, unit, pdu);
        let mut reply = Reply { bytes: right(&pdu), ..Reply::default() };
        let Some(what) = what else { return reply };
        let function = request.first().copied().unwrap_or(0);
        match what {
            Mischief::Delay(by) => reply.delay = by,
            Mischief::Drop => reply.bytes.clear(),
            Mischief::Exception(code) => {
                reply.bytes = right(&frames::exception(function, code));
            }
            Mischief::Garbage(count) => {
                reply.bytes = (0..count).map(|_| self.random.u8(..)).collect();
            }
            Mischief::Partial(count) => reply.bytes.truncate(count),
            Mischief::Close(count) => {
                reply.bytes.truncate(count);
                reply.close = true;
            }
            Mischief::Registers(by) => reply.bytes = right(&resized(pdu, by)),
            Mischief::Length(value) => reply.bytes[4..6].copy_from_slice(&value.to_be_bytes()),
            Mischief::Transaction => reply.bytes[1] = reply.bytes[1].wrapping_add(1),
            Mischief::Protocol => reply.bytes[3] = 1,
            Mischief::Unit => reply.bytes[6] = reply.bytes[6].wrapping_add(1),
            Mischief::Function => reply.bytes[7] ^= 0x01,
        }
        reply
    }

    fn choose(&mut self, elapsed: Duration, unit: u8, request: &[u8]) -> Option<Mischief> {
        let asked = frames::asked(request);
        for (rule, done) in self.script.rules.iter().zip(&mut self.done) {
            let now = elapsed >= rule.from && rule.until.is_none_or(|until| elapsed < until);
            let left = rule.most.is_none_or(|most| *done < most);
            if now && left && rule.is_about(unit, asked) && self.random.f64() < rule.chance {
                *done += 1;
                return Some(rule.what);
            }
        }
        None
    }
}

/// An answer with `by` registers (for bits: bytes) more or fewer, its byte count right for itself.
fn resized(mut pdu: Vec<u8>, by: i16) -> Vec<u8> {
    // An exception has no values whose number could be wrong.
    let (Some(&function), true) = (pdu.first(), pdu.len() >= 2) else { return pdu };
    let width = match function {
        1 | 2 => 1,
        3 | 4 => 2,
        _ => return pdu,
    };
    let now = i32::try_from(pdu.len() - 2).unwrap_or(i32::MAX);
    let most = i32::try_from(frames::PDU_MAX - 2).unwrap_or(i32::MAX) / width * width;
    let wanted = (now + i32::from(by) * width).clamp(0, most);
    pdu.resize(2 + usize::try_from(wanted).unwrap_or(0), 0);
    pdu[1] = u8::try_from(wanted).unwrap_or(u8::MAX);
    pdu
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const REQUEST: [u8; 5] = [3, 0, 100, 0, 2];

    fn reply(script: &str, elapsed: u64) -> Reply {
        let script = crate::config::parse_faults(script, Path::new("test")).unwrap();
        let right = vec![3, 4, 1, 2, 3, 4];
        Mischiefs::new(script, 1).reply(Duration::from_secs(elapsed), 7, 9, &REQUEST, right)
    }

    const RIGHT: [u8; 13] = [0, 7, 0, 0, 0, 7, 9, 3, 4, 1, 2, 3, 4];

    #[test]
    fn each_kind_of_mischief_does_what_its_name_says() {
        let one = |what: &str| reply(&format!("[[fault]]\nwhat = {what}\n"), 0);
        assert_eq!(reply("", 0).bytes, RIGHT);
        assert_eq!(one("\"delay\"\nby = \"2s\"").delay, Duration::from_secs(2));
        assert_eq!(one("\"delay\"\nby = \"2s\"").bytes, RIGHT);
        assert!(one("\"drop\"").bytes.is_empty());
        assert_eq!(one("\"exception\"\ncode = 6").bytes, [0, 7, 0, 0, 0, 3, 9, 0x83, 6]);
        assert_eq!(one("\"garbage\"\nbytes = 20").bytes.len(), 20);
        assert_eq!(one("\"partial\"\nbytes = 5").bytes, RIGHT[..5]);
        assert!(one("\"close\"\nbytes = 5").close);
        assert_eq!(
            one("\"registers\"\nby = -1").bytes,
            [0, 7, 0, 0, 0, 5, 9, 3, 2, 1, 2],
            "a frame that is right but for its count"
        );
        assert_eq!(one("\"registers\"\nby = 125").bytes[8], 250, "as long as a frame may be");
        assert_eq!(one("\"length\"\nvalue = 65535").bytes[4..6], [0xff, 0xff]);
        assert_eq!(one("\"transaction\"").bytes[..2], [0, 8]);
        assert_eq!(one("\"protocol\"").bytes[2..4], [0, 1]);
        assert_eq!(one("\"unit\"").bytes[6], 10);
        assert_eq!(one("\"function\"").bytes[7], 2);
    }

    #[test]
    fn rules_hold_in_their_time_and_so_often_as_they_say() {
        let script = "[[fault]]\nwhat = \"drop\"\nfrom = \"10s\"\nuntil = \"20s\"\n";
        for (second, dropped) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(reply(script, second).bytes.is_empty(), dropped, "second {second}");
        }
        let script = "[[fault]]\nwhat = \"drop\"\nmost = 2\n[[fault]]\nwhat = \"unit\"\n";
        let script = crate::config::parse_faults(script, Path::new("test")).unwrap();
        let mut all = Mischiefs::new(script, 1);
        let dropped = (0..5)
            .filter(|_| {
                all.reply(Duration::ZERO, 1, 1, &REQUEST, vec![3, 2, 0, 0]).bytes.is_empty()
            })
            .count();
        assert_eq!(dropped, 2);
    }

    #[test]
    fn chances_are_kept_and_one_seed_gives_one_course() {
        let script = "seed = 3\n[[fault]]\nwhat = \"drop\"\nchance = 0.25\n";
        let script = crate::config::parse_faults(script, Path::new("test")).unwrap();
        let course = |seed| -> Vec<bool> {
            let mut all = Mischiefs::new(script.clone(), seed);
            let right = || vec![3, 2, 0, 0];
            (0..4000)
                .map(|_| all.reply(Duration::ZERO, 1, 1, &REQUEST, right()).bytes.is_empty())
                .collect()
        };
        assert_eq!(course(1), course(2), "the script's own seed counts");
        let dropped = course(1).into_iter().filter(|dropped| *dropped).count();
        // Six standard deviations around 1000: √(4000 · 0.25 · 0.75) is 27.4.
        assert!((836..=1164).contains(&dropped), "{dropped}");
    }
}
