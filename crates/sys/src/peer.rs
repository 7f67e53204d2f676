//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::AsFd;

/// The process that connected (or was connected to), as the kernel recorded
/// it at the moment of `connect` or `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id in our pid namespace. The process may be gone by now, so it
    /// serves for logs, never for decisions.
    pub pid: i32,
    /// Effective user id: what decisions rest on.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Reads `SO_PEERCRED` of a connected unix stream socket.
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<PeerCredentials> {
    let cred = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(PeerCredentials {
        pid: cred.pid.as_raw_nonzero().get(),
        uid: cred.uid.as_raw(),
        gid: cred.gid.as_raw(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_of_our_own_is_us() {
        let (a, _b) = UnixStream::pair().unwrap();
        let got = peer_credentials(&a).unwrap();
        assert_eq!(got.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(got.uid, rustix::process::geteuid().as_raw());
    }
}
