//! What could not be read.

/// Something that the caller may not or cannot read, and what that costs the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// What was asked for, such as `secret default/regcred`.
    pub what: String,
    /// Why not, such as `403 Forbidden`.
    pub why: String,
    /// What the answer lacks without it.
    pub cost: String,
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} could not be read ({}): {}",
            self.what, self.why, self.cost
        )
    }
}
