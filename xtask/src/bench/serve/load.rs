//! Load: so many connections, each asking again as soon as it was answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::client::Client;

/// What is asked for again and again.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: &'static str,
    pub(super) path: String,
    /// Whether the `Link` to the next page is followed to the end, as one piece of work.
    pub(super) pages: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    pub(super) answers: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// Asks over so many connections for so long.
pub(super) fn run(
    address: SocketAddr,
    asked: &Asked,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Done> {
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let parts: Vec<anyhow::Result<Done>> = std::thread::scope(|scope| {
        let work = || one(address, asked, &over);
        let all: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(time);
        over.store(true, Relaxed);
        let ended = all.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|part| part.unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the load ended"))))
            .collect()
    });
    let mut done = Done::default();
    for part in parts {
        let part = part?;
        done.answers += part.answers;
        done.bytes += part.bytes;
    }
    done.seconds = began.elapsed().as_secs_f64();
    Ok(done)
}

fn one(address: SocketAddr, asked: &Asked, over: &AtomicBool) -> anyhow::Result<Done> {
    let mut client = Client::connect(address)?;
    let mut done = Done::default();
    while !over.load(Relaxed) {
        done.bytes += whole(&mut client, asked)?;
        done.answers += 1;
    }
    Ok(done)
}

/// One answer, or all pages of one; the bytes of bodies.
fn whole(client: &mut Client, asked: &Asked) -> anyhow::Result<u64> {
    let mut path = asked.path.clone();
    let mut bytes = 0;
    loop {
        let answer = client.ask(asked.method, &path, false)?;
        if answer.status != 200 {
            bail!("{} {path} is answered with {}", asked.method, answer.status);
        }
        bytes += answer.length;
        let next = answer.header("link").filter(|_| asked.pages);
        match next.and_then(|link| link.split_once('<')?.1.split_once('>')) {
            Some((next, _)) => next.clone_into(&mut path),
            None => return Ok(bytes),
        }
    }
}
