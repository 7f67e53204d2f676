//! Who may do what: ordered rules by repository, and the users they speak of.

mod caller;
mod rules;
mod users;

pub(crate) use caller::Caller;
pub use rules::{Access, Rule, Who};
pub(crate) use rules::{Decision, fits};
pub use users::{Users, UsersError};
