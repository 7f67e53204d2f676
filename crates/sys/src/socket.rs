//! What a TCP socket still has to bring to its peer.

use std::io;
use std::os::fd::AsFd;

/// Bytes that were written to a connected TCP socket and that the peer's kernel has not confirmed yet (`SIOCOUTQ`): a reset would destroy
/// them.
pub fn unconfirmed(socket: impl AsFd) -> io::Result<usize> {
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    // SAFETY: for this operation the kernel writes one `int`, which is the output's type.
    let bytes = unsafe {
        let getter = rustix::ioctl::Getter::<SIOCOUTQ, std::ffi::c_int>::new();
        rustix::ioctl::ioctl(socket, getter)
    }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// The same number as `TIOCOUTQ` of terminals.
#[expect(clippy::cast_possible_truncation, reason = "requests have 32 bits")]
const SIOCOUTQ: rustix::ioctl::Opcode = nix::libc::TIOCOUTQ as rustix::ioctl::Opcode;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    #[test]
    fn what_nobody_takes_is_not_confirmed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (to, _) = listener.accept().unwrap();
        from.set_nonblocking(true).unwrap();
        let much = vec![0; 1 << 16];
        while from.write(&much).is_ok() {}
        assert!(unconfirmed(&from).unwrap() > 0);
        // Once it is read everything arrives.
        let mut to = io::BufReader::new(to);
        to.get_mut()
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        io::copy(&mut to, &mut io::sink()).unwrap_err();
        let start = Instant::now();
        while unconfirmed(&from).unwrap() > 0 {
            assert!(start.elapsed() < Duration::from_secs(30));
            std::thread::yield_now();
        }
    }
}
