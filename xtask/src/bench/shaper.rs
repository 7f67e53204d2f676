//! What makes a link: two TUN devices, one of them in a network namespace, and between them packets that leave after their time at the link's
//! rate and half its round trip. A queue of one bandwidth-delay product, at least 512 KiB, bounds what waits; what is beyond is dropped.
//!
//! Segmentation stays the kernels': few large packets cross, and TCP itself is not touched.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::scratch;

/// A link of this rate and delay, until it is ended
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    rtt_ms: f64,
    #[arg(long)]
    mbit: f64,
    /// The network namespace at the far end
    #[arg(long)]
    netns: String,
    /// The address at the near end
    #[arg(long, default_value = "10.77.0.1")]
    near: Ipv4Addr,
    /// The address at the far end
    #[arg(long)]
    far: Ipv4Addr,
}

/// The least that may wait for the link.
const LEAST_QUEUE: f64 = 524_288.0;
/// Packets of one end before the other one has its turn.
const TURN: usize = 32;
/// A packet that is not segmented yet, with its header.
const LARGEST: usize = 70_000;

/// Packets in one direction.
struct Direction {
    from: File,
    to: File,
    /// When each packet has arrived.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// When the link has sent what it was given.
    free: Instant,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Named by the process, so that two do not meet.
    let names = ["n", "f"].map(|end| format!("twl{end}{}", std::process::id()));
    let (near, far) = (device(&names[0])?, device(&names[1])?);
    let ip = |words: &str| scratch::run(Command::new("ip").args(words.split(' ')));
    let up = |name: &str, address: Ipv4Addr, inside: &str| -> anyhow::Result<()> {
        ip(&format!("{inside}addr add {address}/24 dev {name}"))?;
        ip(&format!(
            "{inside}link set {name} up mtu 1500 txqueuelen 2000"
        ))
    };
    ip(&format!("link set {} netns {}", names[1], args.netns))?;
    let inside = format!("-n {} ", args.netns);
    ip(&format!("{inside}link set lo up"))?;
    up(&names[0], args.near, "")?;
    up(&names[1], args.far, &inside)?;
    let now = Instant::now();
    let direction = |from: &File, to: &File| -> anyhow::Result<Direction> {
        Ok(Direction {
            from: from.try_clone()?,
            to: to.try_clone()?,
            waiting: VecDeque::new(),
            free: now,
        })
    };
    let both = [direction(&near, &far)?, direction(&far, &near)?];
    super::result("ready");
    relay(args, both)
}

fn relay(args: &Args, mut both: [Direction; 2]) -> anyhow::Result<()> {
    // Bytes a second.
    let rate = args.mbit * 1e6 / 8.0;
    let delay = Duration::from_secs_f64(args.rtt_ms / 2000.0);
    let queue = (rate * args.rtt_ms / 1000.0).max(LEAST_QUEUE);
    let longest = Duration::from_secs_f64(queue / rate);
    loop {
        let now = Instant::now();
        let mut next = Duration::from_millis(500);
        for direction in &mut both {
            if let Some(due) = direction.deliver(now) {
                next = next.min(due.saturating_duration_since(now));
            }
        }
        let mut ends = both
            .each_ref()
            .map(|direction| PollFd::new(&direction.from, PollFlags::IN));
        let timeout = Timespec::try_from(next).ok();
        match poll(&mut ends, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for packets"),
        }
        let ready = ends.map(|end| !end.revents().is_empty());
        for (direction, ready) in both.iter_mut().zip(ready) {
            if ready {
                direction.take(rate, delay, longest);
            }
        }
    }
}

impl Direction {
    /// Hands over what has arrived by now; when the next packet does.
    fn deliver(&mut self, now: Instant) -> Option<Instant> {
        while let Some((due, packet)) = self.waiting.front() {
            if *due > now {
                return Some(*due);
            }
            // A device whose queue is full drops it, as a device does.
            self.to.write_all(packet).ok();
            self.waiting.pop_front();
        }
        None
    }

    /// Takes in what was sent.
    fn take(&mut self, rate: f64, delay: Duration, longest: Duration) {
        let now = Instant::now();
        let mut packet = vec![0; LARGEST];
        for _ in 0..TURN {
            let Ok(length) = self.from.read(&mut packet) else {
                return;
            };
            let begins = self.free.max(now);
            if begins - now > longest {
                continue;
            }
            #[expect(clippy::cast_precision_loss, reason = "at most a packet's length")]
            let takes = Duration::from_secs_f64(length as f64 / rate);
            self.free = begins + takes;
            self.waiting
                .push_back((self.free + delay, packet[..length].to_vec()));
        }
    }
}

/// `struct ifreq` as TUNSETIFF takes it: a name, flags, and room for the rest of the union.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const TUNSETOFFLOAD: rustix::ioctl::Opcode = 0x4004_54d0;
/// `IFF_TUN`, `IFF_NO_PI`, `IFF_VNET_HDR`.
const FLAGS: u16 = 0x0001 | 0x1000 | 0x4000;
/// `TUN_F_CSUM`, `TUN_F_TSO4`.
const OFFLOAD: usize = 1 | 2;

/// A TUN device with this name; it goes when the last descriptor is closed.
#[expect(unsafe_code, reason = "no crate in use makes TUN devices")]
fn device(name: &str) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/net/tun")
        .context("open /dev/net/tun")?;
    let mut request = Request {
        name: [0; 16],
        flags: FLAGS,
        rest: [0; 22],
    };
    let length = name.len().min(15);
    request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the kernel reads and writes one `struct ifreq`, which `Request` is, 40 bytes; TUNSETOFFLOAD takes a number and no pointer.
    unsafe {
        let make = rustix::ioctl::Updater::<TUNSETIFF, Request>::new(&mut request);
        rustix::ioctl::ioctl(&file, make).with_context(|| format!("make the device {name}"))?;
        let offload = rustix::ioctl::IntegerSetter::<TUNSETOFFLOAD>::new_usize(OFFLOAD);
        rustix::ioctl::ioctl(&file, offload).context("leave segmentation to the device")?;
    }
    Ok(file)
}
