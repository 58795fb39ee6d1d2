use super::*;
use crate::domain::reading::Reason;
use proptest::prelude::*;

fn any_quality() -> impl Strategy<Value = Quality> {
    prop_oneof![
        8 => Just(Quality::Good),
        1 => prop::sample::select(Reason::ALL.to_vec()).prop_map(Quality::Uncertain),
        1 => prop::sample::select(Reason::ALL.to_vec()).prop_map(Quality::Bad),
    ]
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-100_000..100_000_i32).prop_map(|n| f64::from(n) * 0.01),
        2 => any::<f32>().prop_map(f64::from),
        1 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => prop::sample::select(vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE]),
    ]
}

fn any_readings(tags: u32) -> impl Strategy<Value = Vec<Reading>> {
    let one = (0..tags, 1..4_u64, any::<i64>(), any::<bool>(), any_value(), any_quality());
    (1..u64::from(u32::MAX), prop::collection::vec(one, 0..600)).prop_map(|(first, rows)| {
        let mut arrival = first;
        rows.into_iter()
            .map(|(tag, step, time, wild, value, quality)| {
                arrival += if wild { step } else { 1 };
                let time = if wild { time } else { arrival.cast_signed() * 1_000_000 };
                let time = Timestamp::from_micros(time);
                Reading { tag: TagKey(tag), arrival: Arrival(arrival), time, value, quality }
            })
            .collect()
    })
}

/// Equal bit for bit; every NaN is the same "no number".
fn same(left: &[Reading], right: &[Reading]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(l, r)| {
            let value =
                (l.value.is_nan() && r.value.is_nan()) || l.value.to_bits() == r.value.to_bits();
            value && Reading { value: 0.0, ..*l } == Reading { value: 0.0, ..*r }
        })
}

fn columns(readings: &[Reading]) -> (Vec<u32>, Columns) {
    let mut columns = Columns::default();
    readings.iter().for_each(|reading| columns.push(reading));
    (readings.iter().map(|reading| reading.tag.0).collect(), columns)
}

proptest! {
    #[test]
    fn readings_survive_the_tail(readings in any_readings(50)) {
        let mut back = Vec::new();
        open_tail(&seal_tail(&readings, &[]), &mut back).unwrap();
        prop_assert!(same(&back, &readings));
    }

    #[test]
    fn readings_survive_a_segment(readings in any_readings(1)) {
        let mut back = Vec::new();
        let (_, columns) = columns(&readings);
        open_segment(&seal_segment(&columns, 0..columns.len()), TagKey(0), &mut back).unwrap();
        prop_assert!(same(&back, &readings));
    }

    #[test]
    fn readings_survive_a_shared_segment(readings in any_readings(20)) {
        let mut back = Vec::new();
        let (tags, columns) = columns(&readings);
        open_shared(&seal_shared(&tags, &columns), &mut back).unwrap();
        prop_assert!(same(&back, &readings));
    }

    #[test]
    fn buckets_survive_their_pack(
        rows in prop::collection::vec((any::<u8>(), any::<u32>(), any::<f64>(), any::<i64>()), 0..60)
    ) {
        let buckets: Vec<Bucket> = rows.into_iter().map(|(index, count, value, last_at)| {
            let value = if value.is_nan() { 0.0 } else { value };
            Bucket { index, count, min: value, max: value, mean: value, m2: value, last: value, last_at }
        }).collect();
        prop_assert_eq!(open_buckets(&seal_buckets(&buckets)).unwrap(), buckets);
    }

    #[test]
    fn f_a11_every_flipped_bit_is_noticed(
        readings in any_readings(3), bits in prop::collection::vec(any::<prop::sample::Index>(), 32)
    ) {
        let (tags, columns) = columns(&readings);
        let blobs = [
            seal_tail(&readings, &[]),
            seal_segment(&columns, 0..columns.len()),
            seal_shared(&tags, &columns),
        ];
        for blob in blobs {
            for bit in &bits {
                let bit = bit.index(blob.len() * 8);
                let mut flipped = blob.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let mut back = Vec::<Reading>::new();
                prop_assert!(open_tail(&flipped, &mut back).is_err());
                prop_assert!(open_segment(&flipped, TagKey(0), &mut back).is_err());
                prop_assert!(open_shared(&flipped, &mut back).is_err());
            }
        }
    }

    #[test]
    fn garbage_with_a_right_check_is_no_panic(
        body in prop::collection::vec(any::<u8>(), 0..300), kind in TAIL..=BUCKETS
    ) {
        let mut sealed = vec![0; HEAD];
        sealed.extend(body);
        let sealed = finish(sealed, kind);
        let mut back = Vec::<Reading>::new();
        let results = (
            open_tail(&sealed, &mut back),
            open_segment(&sealed, TagKey(1), &mut back),
            open_shared(&sealed, &mut back),
            open_buckets(&sealed),
        );
        drop(results);
    }
}

/// Blobs written by an earlier version must stay readable.
#[test]
fn golden_bytes_are_still_read() {
    let reading = |arrival: u64, value: f64, quality| Reading {
        tag: TagKey(3),
        arrival: Arrival(arrival),
        time: Timestamp::from_micros(1_777_630_830_000_000 + arrival.cast_signed() * 1_000_000),
        value,
        quality,
    };
    let readings = [
        reading(10, 21.5, Quality::Good),
        reading(11, 21.75, Quality::Good),
        reading(13, f64::NAN, Quality::Bad(Reason::Comm)),
    ];
    for (name, open) in [
        ("tail", open_tail::<Vec<Reading>> as fn(&[u8], &mut Vec<Reading>) -> Result<(), Damaged>),
        ("segment", |bytes, into| open_segment(bytes, TagKey(3), into)),
        ("shared", open_shared::<Vec<Reading>>),
    ] {
        let mut back = Vec::new();
        open(&golden(name), &mut back).unwrap();
        assert!(same(&back, &readings), "{name}: {back:?}");
    }
}

fn golden(name: &str) -> Vec<u8> {
    let hex = include_str!("../../tests/fixtures/ring_blobs.txt")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
