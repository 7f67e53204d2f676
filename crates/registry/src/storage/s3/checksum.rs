//! The checksum with which the storage compares what comes: `Content-MD5`, which every such service knows. It says whether bytes changed on
//! their way, and nothing of who sent them; content is trusted by its own digest alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use md5::{Digest as _, Md5};

/// A checksum in the making.
#[derive(Debug, Default)]
pub(super) struct Checksum(Md5);

impl Checksum {
    /// Of these bytes alone.
    pub(super) fn of(bytes: &[u8]) -> String {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum.finish()
    }

    /// More bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// As the header has it.
    pub(super) fn finish(self) -> String {
        STANDARD.encode(self.0.finalize())
    }
}

/// Sends it along.
pub(super) fn checksummed<B>(request: &mut Request<B>, checksum: &str) {
    // Base64 is always a header's value.
    if let Ok(value) = checksum.parse() {
        request.headers_mut().insert("content-md5", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_of_the_specification() {
        // RFC 1321, appendix A.5: d41d8cd98f00b204e9800998ecf8427e and f96b697d7cb7938d525a2f31aaf161d0.
        assert_eq!(Checksum::of(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
        assert_eq!(Checksum::of(b"message digest"), "+WtpfXy3k41SWi8xqvFh0A==");
    }
}
