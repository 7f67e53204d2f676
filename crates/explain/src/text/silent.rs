//! What is said of a text that speaks of no pull.

use towline_cause::Cause;

use crate::{Diagnosis, Target};

/// What is said of an object whose values are nobody's business.
pub(super) const A_SECRET: &str =
    "a Secret: nothing of it is read, and it is better not pasted anywhere";

/// A text that speaks of no pull.
pub(super) fn silent(secret: bool) -> Diagnosis {
    Diagnosis {
        cause: Some(Cause::Unknown),
        summary: if secret {
            format!("this is {A_SECRET}")
        } else {
            "the text says nothing of an image pull".to_owned()
        },
        ..Diagnosis::about(Target::image("-"))
    }
}
