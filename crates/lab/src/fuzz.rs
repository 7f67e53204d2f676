//! Fuzzing on the stable toolchain: a corpus, changed at random but the same way for the same seed.
//!
//! Without anything in the environment a target runs a fixed number of rounds from a fixed seed: a smoke test that says the same each time.
//! `TOWLINE_FUZZ_SECONDS` lets each target run that long from a seed of its own. What fails prints seed and round;
//! `TOWLINE_FUZZ_SEED` and `TOWLINE_FUZZ_ROUND` run that one input again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest input, in bytes.
const MOST: usize = 256 << 10;

/// Numbers at random, the same for the same seed (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % end).unwrap_or_default()
    }
}

/// A target: what it is called, and the inputs that it starts from.
#[derive(Clone, Debug)]
pub struct Target {
    name: &'static str,
    corpus: Vec<Vec<u8>>,
    /// Pieces that mean something to the reader.
    pieces: &'static [&'static [u8]],
}

impl Target {
    /// A target with every file of a folder as its corpus, in the order of their names.
    ///
    /// # Panics
    /// When the folder cannot be read or is empty: a target without a corpus tests nothing.
    pub fn new(name: &'static str, folder: &Path, pieces: &'static [&'static [u8]]) -> Self {
        let entries = std::fs::read_dir(folder);
        let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let corpus: Vec<_> = files
            .iter()
            .filter_map(|file| std::fs::read(file).ok())
            .collect();
        assert!(!corpus.is_empty(), "{} holds no corpus", folder.display());
        Self {
            name,
            corpus,
            pieces,
        }
    }

    /// Gives `reader` each file of the corpus as it is, and then changed ones: `smoke` of them, or as many as there is time for.
    /// The reader says whether it accepted the input; how many were is returned.
    pub fn run(&self, smoke: u64, mut reader: impl FnMut(&[u8]) -> bool) -> u64 {
        let number = |name: &str| std::env::var(name).ok()?.trim().parse::<u64>().ok();
        let mut accepted = 0;
        if let Some(round) = number("TOWLINE_FUZZ_ROUND") {
            let seed = number("TOWLINE_FUZZ_SEED").unwrap_or_default();
            return u64::from(reader(&self.input(seed, round)));
        }
        for input in &self.corpus {
            accepted += u64::from(reader(input));
        }
        let time = number("TOWLINE_FUZZ_SECONDS").map(Duration::from_secs);
        let clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
        };
        let seed = number("TOWLINE_FUZZ_SEED").unwrap_or_else(|| time.map_or(7, |_| clock()));
        let start = Instant::now();
        let mut round = 0;
        while time.map_or(round < smoke, |time| start.elapsed() < time) {
            let input = self.input(seed, round);
            match catch_unwind(AssertUnwindSafe(|| reader(&input))) {
                Ok(read) => accepted += u64::from(read),
                Err(panic) => {
                    let again = format!("TOWLINE_FUZZ_SEED={seed} TOWLINE_FUZZ_ROUND={round}");
                    let shown = input.escape_ascii().to_string();
                    let shown: String = shown.chars().take(2000).collect();
                    report(&format!(
                        "fuzz target {}: {again} runs it again; input of {} bytes: {shown}",
                        self.name,
                        input.len()
                    ));
                    resume_unwind(panic);
                }
            }
            round += 1;
        }
        report(&format!(
            "fuzz target {}: seed {seed}, {round} rounds, {accepted} inputs accepted, {} ms",
            self.name,
            start.elapsed().as_millis()
        ));
        accepted
    }

    /// The input of a round.
    fn input(&self, seed: u64, round: u64) -> Vec<u8> {
        let mut random = Random::new(seed ^ round.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let mut bytes = self.corpus[random.below(self.corpus.len())].clone();
        for _ in 0..=random.below(5) {
            self.change(&mut bytes, &mut random);
        }
        bytes.truncate(MOST);
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 => drop(bytes.drain(at..end)),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            2 if at < bytes.len() => bytes[at] = u8::try_from(random.below(256)).unwrap_or(0),
            3 if !self.pieces.is_empty() => {
                let piece = self.pieces[random.below(self.pieces.len())];
                drop(bytes.splice(at..end, piece.iter().copied()));
            }
            4 => {
                let other = &self.corpus[random.below(self.corpus.len())];
                let from = random.below(other.len());
                let to = (from + random.below(600)).min(other.len());
                drop(bytes.splice(at..end, other[from..to].iter().copied()));
            }
            // Whole blocks: archives and lists are made of them.
            5 => {
                let block = at / 512 * 512;
                let to = (block + 512).min(bytes.len());
                let copy = bytes[block..to].to_vec();
                let place = random.below(bytes.len() / 512 + 1) * 512;
                let place = place.min(bytes.len());
                drop(bytes.splice(place..place, copy));
            }
            _ => bytes.truncate(at),
        }
    }
}

/// A line for whoever reads the test's output.
fn report(line: &str) {
    use std::io::Write as _;
    // Nobody reads it where this fails.
    drop(writeln!(std::io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_the_same_each_time_and_another_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [b'a'; 2000]).unwrap();
        std::fs::write(folder.path().join("b"), b"short").unwrap();
        let target = Target::new("test", folder.path(), &[b"piece"]);
        assert_eq!(target.input(3, 4), target.input(3, 4));
        let different: std::collections::BTreeSet<_> =
            (0..50).map(|round| target.input(3, round)).collect();
        assert!(different.len() > 40, "{}", different.len());
    }
}
