//! Who may do what in the demo's registry, and the name server in front of the system's.

use towline_lab::dns;
use towline_registry::access::{Access, Rule, Users, UsersError, Who};

/// A name server that knows no registry, so that the demo behaves the same with and without a network.
pub async fn resolver() -> std::io::Result<dns::Server> {
    dns::Server::start(dns::Options::default()).await
}

/// Repositories under `public/` are read by anyone, all others by the one user, who also pushes.
pub fn access(username: &str, password: &str) -> Result<Access, UsersError> {
    let mut users = Users::default();
    users.insert(username, &password.to_owned().into())?;
    let rules = vec![
        Rule::new("public/*", Who::Anyone, Who::AnyUser),
        Rule::new("*", Who::AnyUser, Who::AnyUser),
    ];
    Ok(Access { rules, users })
}
