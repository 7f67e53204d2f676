//! Processes and what they cost, from `/proc`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Clock ticks a second in `/proc`; fixed for user space on every Linux architecture we run on.
const TICKS: f64 = 100.0;
/// How often it is looked whether a command has ended, and what memory it and those who work for it have then.
const LOOK: Duration = Duration::from_millis(10);

/// What a command cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    /// Of the command alone, with those it waited for.
    pub(crate) cpu: f64,
    /// Most memory, in bytes, that the command, the processes that it started and the daemon that works for it had at one moment.
    pub(crate) peak: u64,
}

/// Runs a command to its end, its output into `log`.
pub(crate) fn measured(command: &mut Command, log: &Path) -> anyhow::Result<Cost> {
    measured_with(command, log, None, 0)
}

/// The same for a command whose right answer is this exit code.
pub(crate) fn measured_until(command: &mut Command, log: &Path, code: i32) -> anyhow::Result<Cost> {
    measured_with(command, log, None, code)
}

/// The same for a command that has a daemon do the work: its time and its memory, that it had before too, count.
pub(crate) fn measured_beside(
    command: &mut Command,
    log: &Path,
    daemon: &Daemon,
) -> anyhow::Result<Cost> {
    let before = cpu(daemon.id())?;
    let mut cost = measured_with(command, log, Some(daemon.id()), 0)?;
    cost.cpu += cpu(daemon.id())? - before;
    Ok(cost)
}

fn measured_with(
    command: &mut Command,
    log: &Path,
    daemon: Option<u32>,
    code: i32,
) -> anyhow::Result<Cost> {
    let out = std::fs::File::create(log).with_context(|| format!("make {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out);
    let name = command.get_program().display().to_string();
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let pid = pid_of(&child)?;
    let mut peak = 0;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while rustix::process::waitid(WaitId::Pid(pid), options)?.is_none() {
        let all = daemon.into_iter().chain([child.id()]);
        peak = peak.max(all.map(family_memory).sum());
        std::thread::sleep(LOOK);
    }
    let wall = started.elapsed().as_secs_f64();
    // It has ended and was not waited for yet: its times stand still.
    let cpu = cpu(child.id())?;
    let status = child.wait()?;
    if status.code() != Some(code) {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("{name} ends with {status}: {}", said.trim());
    }
    Ok(Cost { wall, cpu, peak })
}

/// Seconds of CPU of a process and of the children that it waited for.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name in parentheses may hold anything.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    let times = fields.get(11..15).context("a stat line is too short")?;
    let ticks: f64 = times
        .iter()
        .filter_map(|time| time.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}

/// The largest resident set that a process has had.
pub(crate) fn high_water(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kibibytes(&text, "VmHWM:")
}

/// Memory of a process and all that it started and that run, together, now. A page that several of them share counts once, however it came to
/// be shared: a fork's, a mapped file's, shared memory's. What they share with others counts by the part.
fn family_memory(pid: u32) -> u64 {
    let mut sum = 0;
    let mut family = vec![pid];
    while let Some(pid) = family.pop() {
        sum += proportional(pid).unwrap_or_default();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            family.extend(children.split_whitespace().flat_map(str::parse::<u32>));
        }
    }
    sum
}

/// A process's share of the pages that it has, in bytes: of one that so many processes have, that part.
fn proportional(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kibibytes(&text, "Pss:")
}

/// The value of a line like `Name:   12 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// Lets the high-water mark begin at what is resident now.
pub(crate) fn reset_high_water(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("write {path}"))
}

/// Seconds in which the machine's processors were busy or taken away, since its start.
pub(crate) fn busy() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks = line.split_ascii_whitespace().skip(1).take(8).enumerate();
    // user nice system idle iowait irq softirq steal
    let busy: f64 = ticks
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .filter_map(|(_, field)| field.parse::<f64>().ok())
        .sum();
    Ok(busy / TICKS)
}

/// A program that runs beside; ended when dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out = std::fs::File::create(log).with_context(|| format!("make {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out);
        let name = command.get_program().display().to_string();
        Ok(Self(
            command.spawn().with_context(|| format!("run {name}"))?,
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until `ready` says so.
    pub(crate) fn until(&mut self, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                bail!("it ended with {status}");
            }
            if Instant::now() > end {
                bail!("it is not ready after a minute");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pid) = pid_of(&self.0) {
            // It may have ended by itself, which is as good.
            rustix::process::kill_process(pid, Signal::TERM).ok();
        }
        self.0.wait().ok();
    }
}

fn pid_of(child: &Child) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(child.id())?).context("a process id is not 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that a test has in memory: far more than a test's program itself.
    const MUCH: usize = 64 << 20;

    #[test]
    fn what_forked_processes_share_counts_once_and_what_each_has_counts() {
        let log = std::env::temp_dir().join(format!("towline-memory-{}", std::process::id()));
        // A process that has much, a child of it that shares that, and one that has as much of its own.
        let script = format!(
            "import os, time\n\
             b = bytearray(b'x') * {MUCH}\n\
             for own in (False, True):\n\
             \x20 if os.fork() == 0:\n\
             \x20   c = bytearray(b'y') * {MUCH} if own else None\n\
             \x20   time.sleep(1.5)\n\
             \x20   os._exit(0)\n\
             os.wait(); os.wait()\n"
        );
        let mut command = Command::new("python3");
        if Command::new("python3").arg("-V").output().is_err() {
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!must, "needs python3");
            return eprintln!("skipped: needs python3");
        }
        let cost = measured(command.args(["-c", &script]), &log);
        std::fs::remove_file(&log).unwrap();
        let cost = cost.unwrap();
        // In tenths.
        let times = cost.peak * 10 / MUCH as u64;
        assert!((20..26).contains(&times), "{times}");
    }
}
