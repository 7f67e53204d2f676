//! A whole layer on three threads: decompressed, hashed, made into files.

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use towline_oci::{Digest, Verifier};

use super::decompress::decompress;
use super::error::{During as _, UnpackError};
use super::extract::{Extracted, Target, extract};
use super::pipe::pipe;
use crate::Ceilings;

/// What became of a layer: its files, and the digest of the bytes that they were made of.
pub(crate) type Unpacked = (Extracted, Digest);

/// Unpacks what `input` brings; the calling thread decompresses. `taken` counts the compressed bytes, `verifier` is for the diffID, `alive` is
/// told after each block.
pub(crate) fn unpack<R: BufRead>(
    input: R,
    taken: Arc<AtomicU64>,
    target: Target<'_>,
    verifier: Verifier,
    ceilings: &Ceilings,
    alive: &dyn Fn(),
) -> Result<Unpacked, UnpackError> {
    let (source, mut blocks, copies) = pipe();
    std::thread::scope(|scope| {
        let digest = start(scope, "digest", move || copies.digest(verifier))?;
        let extract = start(scope, "unpack", move || {
            extract(&mut blocks, target, ceilings)
        })?;
        let decompressed = match decompress(input, taken, ceilings) {
            Ok(bytes) => source.run(bytes, alive),
            Err(error) => Err(source.fail(error)),
        };
        let extracted = joined(extract);
        let digest = joined(digest);
        // What stopped the decompressor is told by the other, who was given it or caused it.
        let extracted = extracted?;
        decompressed?;
        Ok((extracted, digest))
    })
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, UnpackError> {
    let started = Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work);
    started.during("start a thread", b"")
}

/// What a thread came to; its panic goes on here.
pub(crate) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
