//! Over how many connections a layer comes, and in which parts: decided as it goes, by what further connections bring.
//!
//! One connection is enough where the network or the unpacker is what bounds the rate. Another is opened where the rest takes a while and
//! the time goes into waiting for the network, and more only as long as each step brings more bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

/// A layer of which so many bytes are missing is asked for in parts.
const MANY: u64 = 32 << 20;
/// The least bytes of a part.
const PART: u64 = 8 << 20;
/// The most while several connections bring parts: what comes before its turn waits to be unpacked.
const PART_OF_SEVERAL: u64 = 16 << 20;
/// The most while one does.
const PART_OF_ONE: u64 = 64 << 20;
/// How long the rate is measured before the next decision.
const LOOK: Duration = Duration::from_millis(500);
/// Time that is left from which another connection may be worth it, in seconds.
const LEFT: f64 = 1.0;
/// How much faster it has to be with more connections.
const GAIN: f64 = 1.25;

/// What is missing, cut into parts in order.
#[derive(Debug)]
pub(crate) struct Cutter {
    missing: VecDeque<Range<u64>>,
    in_parts: bool,
}

impl Cutter {
    pub(crate) fn new(missing: Vec<Range<u64>>) -> Self {
        let missing = VecDeque::from(missing);
        let bytes: u64 = missing.iter().map(|gap| gap.end - gap.start).sum();
        Self {
            in_parts: bytes >= MANY,
            missing,
        }
    }

    /// Bytes of which nobody was asked for.
    pub(crate) fn left(&self) -> u64 {
        self.missing.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Nothing is cut any more: the server does not take part.
    pub(crate) fn in_one_piece(&mut self) {
        self.in_parts = false;
    }

    /// Whether it is cut into parts.
    pub(crate) fn in_parts(&self) -> bool {
        self.in_parts
    }

    /// The next part, of about so many bytes.
    pub(crate) fn next(&mut self, bytes: u64) -> Option<Range<u64>> {
        let gap = self.missing.front_mut()?;
        // A rest that is small goes along.
        if !self.in_parts || gap.end - gap.start < bytes + PART {
            return self.missing.pop_front();
        }
        let part = gap.start..gap.start + bytes;
        gap.start = part.end;
        Some(part)
    }

    /// Gives a part back of which nothing came.
    pub(crate) fn give_back(&mut self, part: Range<u64>) {
        match self.missing.front_mut() {
            Some(gap) if gap.start == part.end => gap.start = part.start,
            _ => self.missing.push_front(part),
        }
    }

    /// Takes in what follows `part` without a gap; where that ends.
    pub(crate) fn extend(&mut self, part: &Range<u64>) -> u64 {
        match self.missing.front() {
            Some(gap) if gap.start == part.end => {
                let end = gap.end;
                self.missing.pop_front();
                end
            }
            _ => part.end,
        }
    }
}

/// How many connections there are.
#[derive(Debug)]
pub(crate) struct Lanes {
    most: usize,
    open: usize,
    begun: Instant,
    /// Bytes and blocked time at `begun`.
    bytes: u64,
    blocked: Duration,
    /// Bytes a second before the last connections were added.
    before: Option<f64>,
    /// Bytes a second, last.
    rate: f64,
    settled: bool,
}

impl Lanes {
    pub(crate) fn new(most: usize, now: Instant) -> Self {
        Self {
            most,
            open: 1,
            begun: now,
            bytes: 0,
            blocked: Duration::ZERO,
            before: None,
            rate: 0.0,
            settled: most < 2,
        }
    }

    /// How many connections there may be.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// One that was allowed is not to be had.
    pub(crate) fn refused(&mut self) {
        self.open = self.open.saturating_sub(1).max(1);
        self.settled = true;
    }

    /// Goes back to one connection for good.
    pub(crate) fn single(&mut self) {
        self.open = 1;
        self.settled = true;
    }

    /// Bytes of the next part.
    pub(crate) fn part(&self) -> u64 {
        let most = if self.open == 1 {
            PART_OF_ONE
        } else {
            PART_OF_SEVERAL
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rate in bytes is no more exact than this"
        )]
        let two_seconds = (self.rate * 2.0 / self.open as f64) as u64;
        // Whole mebibytes are easier to read in a log.
        (two_seconds >> 20 << 20).clamp(PART, most)
    }

    /// Decides anew: `bytes` have come so far, `left` have not; `blocked` is the time so far in which what had come was not taken.
    pub(crate) fn look(&mut self, now: Instant, bytes: u64, left: u64, blocked: Duration) {
        let took = now.saturating_duration_since(self.begun);
        if took < LOOK {
            return;
        }
        let come = bytes.saturating_sub(self.bytes);
        let idle = blocked.saturating_sub(self.blocked);
        (self.begun, self.bytes, self.blocked) = (now, bytes, blocked);
        #[expect(clippy::cast_precision_loss, reason = "a rate is never that exact")]
        let (come, left) = (come as f64, left as f64);
        self.rate = come / took.as_secs_f64();
        let network_bound = idle < took / 4;
        if self.settled || !network_bound || left < self.rate * LEFT {
            return;
        }
        let gained = self.before.is_none_or(|before| self.rate > before * GAIN);
        if !gained || self.open >= self.most {
            self.settled = true;
            return;
        }
        self.before = Some(self.rate);
        self.open = (self.open * 2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_missing_is_cut_in_order() {
        let mut small = Cutter::new(vec![0..MIB, 2 * MIB..20 * MIB]);
        assert_eq!(small.next(PART), Some(0..MIB));
        assert_eq!(small.next(PART), Some(2 * MIB..20 * MIB));
        assert_eq!(small.next(PART), None);
        let mut large = Cutter::new(vec![MIB..40 * MIB, 50 * MIB..55 * MIB]);
        assert_eq!(large.next(PART), Some(MIB..9 * MIB));
        assert_eq!(large.next(16 * MIB), Some(9 * MIB..25 * MIB));
        assert_eq!(large.left(), 20 * MIB);
        large.give_back(9 * MIB..25 * MIB);
        assert_eq!(
            large.next(24 * MIB),
            Some(9 * MIB..40 * MIB),
            "no small rest"
        );
        large.give_back(30 * MIB..40 * MIB);
        large.in_one_piece();
        assert_eq!(large.next(PART), Some(30 * MIB..40 * MIB));
        assert_eq!(large.next(PART), Some(50 * MIB..55 * MIB));
        let mut whole = Cutter::new(vec![0..100 * MIB, 150 * MIB..200 * MIB]);
        let part = whole.next(PART).unwrap();
        assert_eq!(whole.extend(&part), 100 * MIB);
        assert_eq!(whole.left(), 50 * MIB);
    }

    /// Looks once a second; each time so many bytes come, of `total`. The connections after each look.
    fn run(rates: &[u64], total: u64, blocked: Duration) -> Vec<usize> {
        let start = Instant::now();
        let mut lanes = Lanes::new(4, start);
        let mut bytes = 0;
        let mut open = Vec::new();
        for (second, rate) in (1..).zip(rates) {
            bytes += rate;
            let now = start + Duration::from_secs(second);
            let blocked = blocked * u32::try_from(second).unwrap();
            lanes.look(now, bytes, total - bytes, blocked);
            open.push(lanes.open());
        }
        open
    }

    #[test]
    fn connections_are_added_as_long_as_they_bring_more() {
        let free = Duration::ZERO;
        let total = 1000 * MIB;
        let limited_each = [5 * MIB, 10 * MIB, 20 * MIB, 20 * MIB];
        assert_eq!(run(&limited_each, total, free), [2, 4, 4, 4]);
        let limited_together = [20 * MIB, 20 * MIB, 21 * MIB, 40 * MIB];
        assert_eq!(run(&limited_together, total, free), [2, 2, 2, 2]);
        assert_eq!(
            run(&[50 * MIB, 49 * MIB], 99 * MIB, free),
            [1, 1],
            "nearly done"
        );
        let busy = Duration::from_millis(600);
        assert_eq!(
            run(&limited_each, total, busy),
            [1, 1, 1, 1],
            "unpacking is slower"
        );
        let mut one = Lanes::new(1, Instant::now());
        one.look(Instant::now() + LOOK, MIB, total, free);
        assert_eq!(one.open(), 1);
    }

    #[test]
    fn parts_follow_the_rate() {
        let start = Instant::now();
        let mut lanes = Lanes::new(4, start);
        assert_eq!(lanes.part(), PART);
        let look = |lanes: &mut Lanes, seconds, bytes, blocked| {
            let now = start + Duration::from_secs(seconds);
            lanes.look(now, bytes, 1 << 40, Duration::from_secs(blocked));
        };
        look(&mut lanes, 1, 20 * MIB, 1);
        assert_eq!((lanes.open(), lanes.part()), (1, 40 * MIB));
        look(&mut lanes, 2, 500 * MIB, 2);
        assert_eq!((lanes.open(), lanes.part()), (1, PART_OF_ONE));
        look(&mut lanes, 3, 524 * MIB, 2);
        assert_eq!((lanes.open(), lanes.part()), (2, PART_OF_SEVERAL));
        lanes.refused();
        assert_eq!(lanes.open(), 1);
    }
}
