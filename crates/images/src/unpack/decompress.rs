//! Compressed bytes read as what they hold, bounded on the way.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::UnpackError;
use super::gzip::Gzip;
use crate::Ceilings;
use crate::ceilings::Limit;

/// The uncompressed bytes, bounded in number and in proportion to the compressed ones.
pub(crate) struct Decompressed<R> {
    inner: Decoder<R>,
    out: u64,
    taken: Arc<AtomicU64>,
    layer_bytes: u64,
    ratio: u64,
    ratio_floor: u64,
    window_log: u32,
}

enum Decoder<R> {
    Plain(R),
    Gzip(Box<Gzip<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

/// Reads a layer that is compressed as its first bytes say: gzip (all members), zstd (all frames), or not at all. The media type is not
/// asked; builders get it wrong, and digest and diffID decide what the bytes are.
pub(crate) fn decompress<R: BufRead>(
    mut input: R,
    taken: Arc<AtomicU64>,
    ceilings: &Ceilings,
) -> Result<Decompressed<R>, UnpackError> {
    let start = input.fill_buf().map_err(UnpackError::from_read)?;
    let inner = match start {
        [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(Gzip::new(input))),
        // A frame, or a frame to skip.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(input).map_err(UnpackError::Decompress)?;
            decoder
                .window_log_max(ceilings.zstd_window_log)
                .map_err(UnpackError::Decompress)?;
            Decoder::Zstd(Box::new(decoder))
        }
        _ => Decoder::Plain(input),
    };
    Ok(Decompressed {
        inner,
        out: 0,
        taken,
        layer_bytes: ceilings.layer_bytes,
        ratio: ceilings.ratio,
        ratio_floor: ceilings.ratio_floor,
        window_log: ceilings.zstd_window_log,
    })
}

impl<R> Decompressed<R> {
    fn check(&self) -> Result<(), UnpackError> {
        if self.out > self.layer_bytes {
            return Err(UnpackError::over(Limit::LayerBytes, self.layer_bytes));
        }
        let taken = self.taken.load(Ordering::Relaxed);
        if self.out > self.ratio_floor && self.out > taken.saturating_mul(self.ratio) {
            return Err(UnpackError::over(Limit::Ratio, self.ratio));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.inner {
            Decoder::Plain(input) => input.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => {
                let log = self.window_log;
                decoder.read(buffer).map_err(|error| window(error, log))
            }
        }?;
        self.out += read as u64;
        self.check()?;
        Ok(read)
    }
}

/// zstd's own word for a window over the ceiling, as the ceiling it is.
fn window(error: io::Error, window_log: u32) -> io::Error {
    if error
        .get_ref()
        .is_some_and(<dyn std::error::Error + Send + Sync>::is::<UnpackError>)
    {
        return error;
    }
    if error.to_string().contains("too much memory") {
        return UnpackError::over(Limit::ZstdWindow, 1 << window_log).into();
    }
    error
}
