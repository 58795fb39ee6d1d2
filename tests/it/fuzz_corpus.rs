//! The decoders that `fuzz/` feeds, over the same corpus and a million inputs made from it: no
//! panic, whatever comes. On a stable compiler, in bounded time, from a printed seed.
//!
//! `WHEELTAP_FUZZ_INPUTS` changes how many inputs each of the cheapest decoders gets, and
//! `WHEELTAP_FUZZ_SEED` the seed.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../../fuzz/harness.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzz targets, a crate of their own")]
mod harness;

use harness::{DECODERS, Decoder};

/// Inputs of each decoder of cost 1, so that all together get more than a million; the others get
/// as many fewer as they are dearer.
const INPUTS: u64 = 330_000;
/// Longest input that is made.
const BYTES_MAX: usize = 4096;

fn corpus(decoder: &Decoder) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(decoder.name);
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Runs one input; what it was when it panics.
fn run(decoder: &Decoder, input: &[u8], whence: &str) {
    if catch_unwind(AssertUnwindSafe(|| (decoder.run)(input))).is_err() {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("{} panics on {whence}:\n{hex}\n{}", decoder.name, String::from_utf8_lossy(input));
    }
}

/// A number that is at the edge of something, as text.
const EDGES: &[&[u8]] = &[
    b"0",
    b"-1",
    b"255",
    b"256",
    b"65535",
    b"65536",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551616",
    b"1e308",
    b"1e309",
    b"-0.0",
    b"4e-324",
];

/// Changes an input in one way that inputs go wrong in the field, or that gets past first checks.
fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    let span = |random: &mut fastrand::Rng, bytes: &[u8]| {
        let from = random.usize(..=bytes.len());
        from..bytes.len().min(from + random.usize(..=16))
    };
    match random.u8(..10) {
        // A flipped bit.
        0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
        // Any byte, or one at the edge of something.
        1 if at < input.len() => {
            let edges = [0, 1, 0x7f, 0x80, 0xff];
            input[at] =
                if random.bool() { random.u8(..) } else { edges[random.usize(..edges.len())] };
        }
        // A cut.
        2 => input.truncate(at),
        // A piece missing.
        3 => {
            let gone = span(random, input);
            input.drain(gone);
        }
        // A piece twice.
        4 => {
            let twice = input[span(random, input)].to_vec();
            input.splice(at..at, twice);
        }
        // A word of the language.
        5 | 6 if !words.is_empty() => {
            let word = words[random.usize(..words.len())];
            input.splice(at..at, word.iter().copied());
        }
        // A number becomes another one.
        7 => {
            let is_part = |byte: &u8| byte.is_ascii_digit();
            if let Some(from) = input[at..].iter().position(is_part).map(|offset| at + offset) {
                let length = input[from..].iter().take_while(|byte| is_part(byte)).count();
                let edge = EDGES[random.usize(..EDGES.len())];
                input.splice(from..from + length, edge.iter().copied());
            }
        }
        // The begin of one input, the end of another.
        8 => {
            input.truncate(at);
            input.extend(&other[random.usize(..=other.len())..]);
        }
        // Bytes of no language.
        _ => {
            let noise: Vec<u8> = (0..random.usize(..8)).map(|_| random.u8(..)).collect();
            input.splice(at..at, noise);
        }
    }
    input.truncate(BYTES_MAX);
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

#[test]
fn every_file_of_the_corpus_is_decoded_or_refused() {
    for decoder in DECODERS {
        let files = corpus(decoder);
        assert!(files.len() >= 10, "{} has a corpus of {}", decoder.name, files.len());
        for (name, bytes) in files {
            run(decoder, &bytes, &name);
        }
    }
}

#[test]
fn f_d01_a_million_generated_inputs_find_no_panic() {
    let seed = setting("WHEELTAP_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let each = setting("WHEELTAP_FUZZ_INPUTS").unwrap_or(INPUTS);
    println!("SEED={seed}");
    let all: u64 = std::thread::scope(|scope| {
        let runs: Vec<_> = DECODERS
            .iter()
            .map(|decoder| {
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let files = corpus(decoder);
                    let inputs = each / u64::from(decoder.cost);
                    let pick = |random: &mut fastrand::Rng| random.usize(..files.len());
                    for number in 0..inputs {
                        let mut input = files[pick(&mut random)].1.clone();
                        let other = &files[pick(&mut random)].1;
                        for _ in 0..random.u32(1..5) {
                            mutate(&mut input, other, decoder.words, &mut random);
                        }
                        run(decoder, &input, &format!("input {number} of seed {seed}"));
                    }
                    inputs
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    println!("{all} inputs, {} decoders, 0 panics", DECODERS.len());
    assert!(each != INPUTS || all >= 1_000_000, "{all} are less than a million");
}
