//! Thresholds of a probe. Pure.

/// Counts equal answers in a row.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    successes: u32,
    failures: u32,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    /// So many successes, or failures, in a row make a result.
    pub(super) fn new(successes: u32, failures: u32) -> Self {
        Self {
            successes,
            failures,
            last: None,
            run: 0,
        }
    }

    /// Takes an answer; the result where the threshold is reached.
    pub(super) fn count(&mut self, good: bool) -> Option<bool> {
        if self.last == Some(good) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(good);
            self.run = 1;
        }
        let threshold = if good { self.successes } else { self.failures };
        (self.run >= threshold).then_some(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_needs_its_number_in_a_row() {
        let mut counter = Counter::new(2, 3);
        let answers = [true, true, false, false, true, false, false, false, false];
        let results: Vec<_> = answers
            .into_iter()
            .map(|good| counter.count(good))
            .collect();
        assert_eq!(
            results,
            [
                None,
                Some(true),
                None,
                None,
                None,
                None,
                None,
                Some(false),
                Some(false)
            ]
        );
    }
}
