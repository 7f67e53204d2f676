//! gzip, all members. The checksum is computed here, by the processor's own instructions: the decompressor's takes several times as long.

use std::io::{self, BufRead, Read};

use flate2::{Decompress, FlushDecompress, Status};

/// Bytes of a header's optional fields, at most; a name or a comment is not longer.
const MOST_OF_HEADER: usize = 1 << 16;

/// Reads what gzip members hold, one after the other.
pub(crate) struct Gzip<R> {
    input: R,
    at: At,
    inflate: Decompress,
    checksum: crc32fast::Hasher,
    length: u32,
}

enum At {
    /// A member may begin; at the first one must.
    Header {
        first: bool,
    },
    Body,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the gzip stream {what}"),
    )
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            at: At::Header { first: true },
            inflate: Decompress::new(false),
            checksum: crc32fast::Hasher::new(),
            length: 0,
        }
    }

    fn exactly<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a member's header.
    fn header(&mut self) -> io::Result<()> {
        let fixed: [u8; 10] = self.exactly()?;
        let [0x1f, 0x8b, method, flags, ..] = fixed else {
            return Err(wrong("goes on with something else"));
        };
        if method != 8 || flags & 0xe0 != 0 {
            return Err(wrong("is of an unknown kind"));
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&fixed);
        if flags & 4 != 0 {
            let length: [u8; 2] = self.exactly()?;
            let mut extra = vec![0; usize::from(u16::from_le_bytes(length))];
            self.input.read_exact(&mut extra)?;
            sum.update(&length);
            sum.update(&extra);
        }
        // A name, and a comment.
        for flag in [8, 16] {
            if flags & flag != 0 {
                self.text(&mut sum)?;
            }
        }
        if flags & 2 != 0 {
            let stated: [u8; 2] = self.exactly()?;
            let [low, high, ..] = sum.finalize().to_le_bytes();
            if stated != [low, high] {
                return Err(wrong("has a header whose checksum is wrong"));
            }
        }
        Ok(())
    }

    /// Passes over a text that ends in NUL.
    fn text(&mut self, sum: &mut crc32fast::Hasher) -> io::Result<()> {
        for _ in 0..MOST_OF_HEADER {
            let byte: [u8; 1] = self.exactly()?;
            sum.update(&byte);
            if byte == [0] {
                return Ok(());
            }
        }
        Err(wrong("has a name that does not end"))
    }

    /// Compares what a member says of its content with what came.
    fn trailer(&mut self) -> io::Result<()> {
        let checksum = u32::from_le_bytes(self.exactly()?);
        let length = u32::from_le_bytes(self.exactly()?);
        let actual = std::mem::take(&mut self.checksum).finalize();
        if (checksum, length) != (actual, self.length) {
            return Err(wrong("has a checksum or length that is not its content's"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let At::Header { first } = self.at {
                if !first && self.input.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.header()?;
                self.inflate.reset(false);
                self.length = 0;
                self.at = At::Body;
            }
            let input = self.input.fill_buf()?;
            let ended = input.is_empty();
            let (took, gave) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, buffer, FlushDecompress::None)?;
            // Both are at most the lengths of what was given.
            let took = usize::try_from(self.inflate.total_in() - took).unwrap_or_default();
            let gave = usize::try_from(self.inflate.total_out() - gave).unwrap_or_default();
            self.input.consume(took);
            self.checksum.update(&buffer[..gave]);
            // Counted modulo 2^32, as gzip does.
            self.length = self
                .length
                .wrapping_add(u32::try_from(gave).unwrap_or_default());
            if status == Status::StreamEnd {
                self.trailer()?;
                self.at = At::Header { first: false };
            } else if gave == 0 && took == 0 && ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if gave > 0 {
                return Ok(gave);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(bytes: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::GzBuilder::new()
            .filename("name")
            .comment("words")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(bytes: &[u8], at_a_time: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let input = io::BufReader::with_capacity(at_a_time, bytes);
        Gzip::new(input).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn members_of_every_kind_are_read_to_the_end() {
        let content: Vec<u8> = (0..200_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let all = [packed(&content, 6), packed(b"", 6), packed(b"abc", 0)].concat();
        let want = [&content[..], b"abc"].concat();
        for at_a_time in [1, 7, 4096, 1 << 20] {
            assert!(unpacked(&all, at_a_time).unwrap() == want, "{at_a_time}");
        }
    }

    #[test]
    fn what_is_broken_is_refused() {
        let good = packed(b"some words that repeat words that repeat", 6);
        let end = good.len();
        for (what, at, end) in [
            ("the method", Some(2), end),
            ("reserved flags", Some(3), end),
            ("the checksum", Some(end - 8), end),
            ("the length", Some(end - 1), end),
            ("cut in the header", None, 5),
            ("cut in the body", None, end - 12),
            ("cut in the trailer", None, end - 3),
        ] {
            let mut bytes = good[..end].to_vec();
            if let Some(at) = at {
                bytes[at] ^= 0xf0;
            }
            unpacked(&bytes, 64).expect_err(what);
        }
        let followed = [&good[..], b"more"].concat();
        unpacked(&followed, 64).expect_err("something else follows");
        assert!(unpacked(&good, 64).is_ok());
    }
}
