//! Rights given up for good: what a process keeps that makes files of bytes which somebody hostile may have written.
//!
//! One folder, and nothing outside it: the process's root is that folder, on a mount of its own where no device can be opened (the mount is
//! attached nowhere); Landlock allows files and directories to be made below it and nothing to be read or run; of the capabilities those remain
//! that owners, modes and devices need; system calls are a short list without network, processes or signals; limits bound memory, files and
//! descriptors. What a kernel or a container around us does not offer is left out and told.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use nix::libc;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::mount;
use crate::ns;
use crate::proc::{self, Fork};

/// What root's process keeps: owners, modes, what is in directories of others, capabilities of files; and devices, where they cannot be opened.
const OWNERS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);
/// What it needs to go into the folder, and then no more.
const TO_ENTER: CapabilitySet = CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_CHROOT);

/// What the process may use at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory that can be written.
    pub memory: u64,
    /// Bytes of a file.
    pub file: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// How to give rights up, prepared once for many processes that are forked from this one.
#[derive(Debug)]
pub struct Confinement {
    calls: Option<[BpfProgram; 2]>,
}

/// What was not to be had, in words; empty where everything was.
pub type Lacking = Vec<String>;

impl Confinement {
    /// Prepares. The calling process must have one thread; it keeps only what its children need.
    pub fn prepare() -> io::Result<Self> {
        if rustix::thread::capabilities(None)?
            .effective
            .contains(CapabilitySet::SYS_CHROOT)
        {
            keep(OWNERS | CapabilitySet::MKNOD | TO_ENTER)?;
        } else if possible(own_users)? {
            // An ordinary user may change its root among users of its own, of whom there is one: itself.
            own_users()?;
        }
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let calls = std::env::consts::ARCH.try_into().ok().map(filters);
        Ok(Self {
            calls: calls.transpose().map_err(io::Error::other)?,
        })
    }

    /// Goes into `folder` for good, in a process forked from the one that prepared. `owners` keeps what owners and devices need.
    /// Gives the folder as it is to be used from here on: it is `/` too.
    pub fn enter(
        &self,
        folder: OwnedFd,
        limits: Limits,
        owners: bool,
    ) -> io::Result<(OwnedFd, Lacking)> {
        let mut lacking = Lacking::new();
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        bound(limits)?;
        let mut capabilities = OWNERS | CapabilitySet::MKNOD;
        let folder = match mount::detached_without_devices(&folder) {
            Ok(detached) => detached,
            Err(error) => {
                // Whoever can make a device and open it has the whole machine.
                capabilities.remove(CapabilitySet::MKNOD);
                if owners {
                    lacking.push(format!("a mount without devices ({error})"));
                }
                folder
            }
        };
        rustix::process::fchdir(&folder)?;
        if let Err(error) = rustix::process::chroot(".") {
            lacking.push(format!("a root of its own ({error})"));
        }
        if let Some(problem) = landlock(&folder)? {
            lacking.push(problem.to_owned());
        }
        if !owners {
            capabilities = CapabilitySet::empty();
        }
        keep(capabilities)?;
        rustix::thread::set_no_new_privs(true)?;
        match &self.calls {
            Some(filters) => {
                for filter in filters {
                    if let Err(error) = seccompiler::apply_filter(filter) {
                        lacking.push(format!("a list of system calls ({error})"));
                        break;
                    }
                }
            }
            None => lacking.push("a list of system calls (not on this processor)".to_owned()),
        }
        Ok((folder, lacking))
    }
}

/// Keeps of the capabilities no others than these.
fn keep(capabilities: CapabilitySet) -> io::Result<()> {
    let had = rustix::thread::capabilities(None)?;
    let kept = had.permitted & capabilities;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            // The kernel may know fewer, or more.
            if !capabilities.contains(capability) {
                rustix::thread::remove_capability_from_bounding_set(capability).ok();
            }
        }
    }
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Whether this would work, tried in a process that then ends.
fn possible(attempt: fn() -> io::Result<()>) -> io::Result<bool> {
    match proc::fork_single_threaded()? {
        Fork::Child => proc::end_at_once(i32::from(attempt().is_err())),
        Fork::Parent(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            Ok(ended.and_then(|(_, status)| status.exit_status()) == Some(0))
        }
    }
}

/// A user namespace in which this user is the same user, with the right to change its root.
fn own_users() -> io::Result<()> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    ns::unshare(&[ns::Kind::User])?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    // Whether the kernel means it: some give the namespace and take the right.
    rustix::process::chroot("/")?;
    Ok(())
}

fn bound(limits: Limits) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Data, limits.memory),
        (Resource::Fsize, limits.file),
        (Resource::Nofile, limits.descriptors),
        (Resource::Core, 0),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        let had = rustix::process::getrlimit(resource).maximum;
        let most = Some(had.map_or(most, |had| had.min(most)));
        let limit = Rlimit {
            current: most,
            maximum: most,
        };
        rustix::process::setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Allows things to be made below the folder, and nothing else; what of that the kernel cannot do, in words.
fn landlock(folder: &OwnedFd) -> io::Result<Option<&'static str>> {
    let making = AccessFs::WriteFile
        | AccessFs::ReadDir
        | AccessFs::RemoveDir
        | AccessFs::RemoveFile
        | AccessFs::MakeChar
        | AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::MakeFifo
        | AccessFs::MakeBlock
        | AccessFs::MakeSym
        | AccessFs::Refer
        | AccessFs::Truncate;
    let restrict = |files: BitFlags<AccessFs>| {
        Ruleset::default()
            // A kernel that cannot allow hard links between directories forbids them all (before 5.19): without Landlock then.
            .set_compatibility(CompatLevel::SoftRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(files)?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .add_rule(PathBeneath::new(folder.as_fd(), making))?
            .restrict_self()
    };
    let status = restrict(AccessFs::from_all(ABI::V5)).map_err(io::Error::other)?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Some("Landlock"),
        _ => None,
    })
}

/// The system calls that making files of bytes takes, with three threads; what is not listed is refused.
const CALLS: &[libc::c_long] = &[
    // Bytes, and the socket to who started us.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_fadvise64,
    libc::SYS_close,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    // Files below the folder.
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_symlinkat,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_lsetxattr,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fchdir,
    libc::SYS_umask,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    // Memory, threads, time.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The list; and before it, since the arguments of the newer call that starts threads cannot be seen, a word that there is none such: then the
/// older one is taken.
fn filters(arch: TargetArch) -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let when = |argument, operator, value| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?])
    };
    let bits = |bits: libc::c_int| u64::from(bits.cast_unsigned());
    // Threads, no processes.
    let thread = bits(libc::CLONE_THREAD);
    rules.insert(
        libc::SYS_clone,
        when(0, SeccompCmpOp::MaskedEq(thread), thread)?,
    );
    rules.insert(libc::SYS_clone3, Vec::new());
    // A file mode mask and a working directory of a thread's own.
    rules.insert(
        libc::SYS_unshare,
        when(0, SeccompCmpOp::Eq, bits(libc::CLONE_FS))?,
    );
    // Copies of descriptors and their flags; no signals about them, which can be any signal to any process.
    let mut commands = Vec::new();
    for command in [
        libc::F_DUPFD,
        libc::F_DUPFD_CLOEXEC,
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
    ] {
        commands.extend(when(1, SeccompCmpOp::Eq, bits(command))?);
    }
    rules.insert(libc::SYS_fcntl, commands);
    // The name of a thread.
    rules.insert(
        libc::SYS_prctl,
        when(0, SeccompCmpOp::Eq, bits(libc::PR_SET_NAME))?,
    );
    let errno = |errno: libc::c_int| SeccompAction::Errno(errno.cast_unsigned());
    let list = SeccompFilter::new(rules, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    let newer = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let newer = SeccompFilter::new(newer, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    // In this order: the list does not allow another one after it.
    Ok([newer.try_into()?, list.try_into()?])
}
