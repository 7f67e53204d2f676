//! What cannot be made here, and is told by the words of other clusters.

use super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    Vec::new()
}
