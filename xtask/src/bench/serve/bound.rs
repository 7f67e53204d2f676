//! What `sendfile` gives on this machine: a server that sends one file to whoever asks, and does nothing else.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

/// Send one file to whoever asks
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file
    file: PathBuf,
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
}

/// Sends the file at whatever path is asked for, until the process ends.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let path = &args.file;
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let length = file.metadata()?.len();
    let file = Arc::new(file);
    let listener = TcpListener::bind(args.listen)?;
    for stream in listener.incoming().flatten() {
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            // It ends when the client goes.
            drop(answer(&stream, &file, length));
        });
    }
    Ok(())
}

fn answer(mut stream: &TcpStream, file: &File, length: u64) -> anyhow::Result<()> {
    let mut buffer = [0; 4096];
    stream.set_nodelay(true)?;
    loop {
        // Requests are small and come one at a time.
        if stream.read(&mut buffer)? == 0 {
            return Ok(());
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut at = 0;
        while at < length {
            let left = usize::try_from(length - at)?;
            if rustix::fs::sendfile(stream, file, Some(&mut at), left)? == 0 {
                anyhow::bail!("the file ends early");
            }
        }
    }
}
