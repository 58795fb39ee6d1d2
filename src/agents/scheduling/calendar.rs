//! From weekly hours in the gateway's time zone to spans of UTC.
//!
//! A shift is laid down day by day in civil time and each of its ends is then looked up in the time
//! zone: a shift from 22:00 to 06:00 lasts seven hours in the night the clocks go forward and nine
//! in the night they go back. An end that falls into the missing hour is moved to its end.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span as CivilSpan, ToSpan};

use crate::analytics::assignment::{Span, joined};
use crate::config::Shift;
use crate::domain::time::Timestamp;

const MINUTES_OF_A_DAY: u16 = 1440;

/// The moments of `within` that lie in one of `shifts`, joined.
pub(super) fn spans(shifts: &[Shift], zone: &TimeZone, within: Span) -> Vec<Span> {
    let date = |moment: Timestamp| zone.to_datetime(moment.calendar()).date();
    // A shift that began the day before may reach into the first day.
    let mut day = date(within.start()).saturating_sub(1.day());
    let last = date(within.end());
    let mut found = Vec::new();
    while day <= last {
        let weekday = usize::try_from(day.weekday().to_monday_zero_offset()).unwrap_or(0);
        for shift in shifts.iter().filter(|shift| shift.days[weekday]) {
            let past_midnight = shift.to_minute <= shift.from_minute;
            let start = moment(day, shift.from_minute, zone);
            let end = moment(
                if past_midnight { day.saturating_add(1.day()) } else { day },
                shift.to_minute,
                zone,
            );
            let (start, end) = (start.max(within.start()), end.min(within.end()));
            found.extend(Span::new(start, end));
        }
        let Ok(tomorrow) = day.tomorrow() else { break };
        day = tomorrow;
    }
    joined(found)
}

/// `minute` minutes after the midnight that `day` begins with, by the clock on the wall; 1440 is
/// the next midnight.
fn moment(day: Date, minute: u16, zone: &TimeZone) -> Timestamp {
    let days = CivilSpan::new().days(i64::from(minute / MINUTES_OF_A_DAY));
    let minute = minute % MINUTES_OF_A_DAY;
    let (hour, minute) = (minute / 60, minute % 60);
    let time = Time::constant(
        i8::try_from(hour).expect("hours of a day are below 24"),
        i8::try_from(minute).expect("minutes of an hour are below 60"),
        0,
        0,
    );
    let civil = day.saturating_add(days).to_datetime(time);
    let moment = zone.to_ambiguous_timestamp(civil).compatible();
    Timestamp::from_micros(moment.map_or(i64::MAX, jiff::Timestamp::as_microsecond))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse_rfc3339(text).unwrap()
    }

    fn check(shift: (&str, u16, u16), within: (&str, &str), expected: &[(&str, &str)]) {
        let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let days = names.map(|day| shift.0.contains(day));
        let shift = Shift { days, from_minute: shift.1, to_minute: shift.2 };
        let rome = TimeZone::get("Europe/Rome").unwrap();
        let within = Span::new(at(within.0), at(within.1)).unwrap();
        let expected: Vec<Span> =
            expected.iter().map(|(from, to)| Span::new(at(from), at(to)).unwrap()).collect();
        assert_eq!(spans(&[shift], &rome, within), expected);
    }

    #[test]
    fn day_shift_follows_local_time() {
        check(
            ("thu fri", 360, 840),
            ("2026-04-30T00:00:00Z", "2026-05-04T00:00:00Z"),
            &[
                ("2026-04-30T04:00:00Z", "2026-04-30T12:00:00Z"),
                ("2026-05-01T04:00:00Z", "2026-05-01T12:00:00Z"),
            ],
        );
    }

    #[test]
    fn night_shift_passes_midnight_and_was_begun_the_day_before() {
        check(
            ("fri", 22 * 60, 6 * 60),
            ("2026-05-02T00:00:00Z", "2026-05-03T00:00:00Z"),
            &[("2026-05-02T00:00:00Z", "2026-05-02T04:00:00Z")],
        );
    }

    #[test]
    fn night_of_the_clock_change_is_shorter_or_longer() {
        // Clocks in Rome go from 02:00 to 03:00 on 29 March and from 03:00 to 02:00 on 25 October.
        check(
            ("sat", 22 * 60, 6 * 60),
            ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"),
            &[("2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z")],
        );
        check(
            ("sat", 22 * 60, 6 * 60),
            ("2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
            &[("2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z")],
        );
        // A shift in the hour that does not exist is none.
        check(("sun", 2 * 60, 3 * 60), ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z"), &[]);
    }

    #[test]
    fn round_the_clock_is_one_piece() {
        check(
            ("mon tue wed thu fri sat sun", 0, 1440),
            ("2026-10-20T10:00:00Z", "2026-11-02T10:00:00Z"),
            &[("2026-10-20T10:00:00Z", "2026-11-02T10:00:00Z")],
        );
    }
}
