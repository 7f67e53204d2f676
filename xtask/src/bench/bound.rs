//! The bound of this machine: what cannot be left out of a pull, and nothing else. Layers are read, hashed, decompressed, hashed again and
//! written as files with one write each, without a registry, checks, owners, times or anything that a second attempt would need; then one sync.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};

use anyhow::{Context as _, bail};
use aws_lc_rs::digest::{Context, SHA256};

/// The same bytes, and nothing but the work that they need
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An OCI layout of one image
    layout: PathBuf,
    /// Where its files go
    into: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("what is not optimised bounds nothing: cargo run --release -p xtask -- bench pull");
    }
    let mut layers = layers(&args.layout)?;
    layers.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let waiting = Mutex::new(VecDeque::from(layers).into_iter().enumerate());
    let threads = std::thread::available_parallelism()?.get();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let work = || -> anyhow::Result<()> {
            loop {
                let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                let Some((number, (blob, _))) = next else {
                    return Ok(());
                };
                layer(&blob, &args.into.join(number.to_string()))?;
            }
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    rustix::fs::syncfs(File::open(&args.into)?).context("sync")
}

/// The blobs of the layers, with their sizes.
pub(crate) fn layers(layout: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let read = |path: &Path| -> anyhow::Result<serde_json::Value> {
        let bytes = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    let blob = |digest: &serde_json::Value| {
        let digest = digest.as_str().unwrap_or_default().replace(':', "/");
        layout.join("blobs").join(digest)
    };
    let index = read(&layout.join("index.json"))?;
    let manifest = read(&blob(&index["manifests"][0]["digest"]))?;
    let layers = manifest["layers"]
        .as_array()
        .context("one manifest is needed")?;
    Ok(layers
        .iter()
        .map(|layer| {
            (
                blob(&layer["digest"]),
                layer["size"].as_u64().unwrap_or_default(),
            )
        })
        .collect())
}

/// Reads and hashes what passes.
struct Hashed<R>(R, Context);

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.update(&buffer[..read]);
        Ok(read)
    }
}

/// One thread decompresses, the other writes.
fn layer(blob: &Path, into: &Path) -> anyhow::Result<()> {
    let (sender, blocks) = sync_channel::<Vec<u8>>(4);
    std::thread::scope(|scope| {
        let decompress = scope.spawn(move || -> anyhow::Result<()> {
            let packed = Hashed(File::open(blob)?, Context::new(&SHA256));
            let mut packed = BufReader::with_capacity(1 << 17, packed);
            let start: &[u8] = io::BufRead::fill_buf(&mut packed)?;
            let unpacked: Box<dyn Read> = if start.starts_with(&[0x28, 0xb5]) {
                Box::new(zstd::stream::read::Decoder::with_buffer(packed)?)
            } else {
                Box::new(flate2::bufread::MultiGzDecoder::new(packed))
            };
            let mut unpacked = Hashed(unpacked, Context::new(&SHA256));
            loop {
                let mut block = Vec::with_capacity(1 << 18);
                (&mut unpacked).take(1 << 18).read_to_end(&mut block)?;
                if block.is_empty() || sender.send(block).is_err() {
                    return Ok(());
                }
            }
        });
        write(Blocks(blocks, io::Cursor::default()), into)?;
        decompress
            .join()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    })
}

/// Blocks as a reader.
struct Blocks(Receiver<Vec<u8>>, io::Cursor<Vec<u8>>);

impl Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.1.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.0.recv() {
                Ok(block) => self.1 = io::Cursor::new(block),
                Err(_) => return Ok(0),
            }
        }
    }
}

fn write(blocks: Blocks, into: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(into)?;
    let mut archive = tar::Archive::new(blocks);
    let mut content = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = into.join(entry.path()?);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            std::fs::create_dir_all(path)?;
        } else if kind.is_file() {
            content.clear();
            entry.read_to_end(&mut content)?;
            std::fs::write(path, &content)?;
        } else if let Some(target) = entry.link_name()? {
            if kind.is_hard_link() {
                std::fs::hard_link(into.join(target), path)?;
            } else {
                std::os::unix::fs::symlink(target, path)?;
            }
        }
    }
    // What follows the archive is hashed too.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}
