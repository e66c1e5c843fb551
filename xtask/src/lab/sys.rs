//! The system calls that have no safe wrapper: all `unsafe` of this crate is here.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes SIGINT and SIGTERM set a flag, so that everything is taken down in order.
pub fn note_interrupts() {
    extern "C" fn note(_signal: libc::c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Whether a signal asked us to end, since [`note_interrupts`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// In which `/proc` counts processor time.
pub fn ticks_per_second() -> f64 {
    // SAFETY: sysconf takes a number and no memory.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    ticks as f64
}

/// Has the calling thread run before all ordinary ones, for who measures; threads and programs that it
/// starts are ordinary again.
///
/// # Errors
/// When that is not allowed.
pub fn run_first() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 2 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameters, during the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    check(libc::c_long::from(result)).map(drop)
}

/// Makes the command run inside a network namespace.
pub(super) fn enter_netns(command: &mut Command, netns: OwnedFd) {
    let enter = move || check(setns(&netns)).map(drop);
    // SAFETY: the closure makes one system call and touches nothing that another thread could have locked.
    unsafe { command.pre_exec(enter) };
}

fn setns(netns: &OwnedFd) -> libc::c_long {
    // SAFETY: setns takes a descriptor, which is open as long as `netns` lives, and no memory.
    libc::c_long::from(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes the command a daemon of ours: it ends with us however we end, no terminal's Ctrl-C reaches it, and
/// it may open as many files as the machine allows.
pub(super) fn supervise(command: &mut Command) {
    command.process_group(0);
    let prepare = || {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is a live rlimit that the kernel fills.
        check(libc::c_long::from(unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit)
        }))?;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a live rlimit that the kernel reads.
        check(libc::c_long::from(unsafe {
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit)
        }))?;
        // SAFETY: this option takes a signal number and no memory.
        check(libc::c_long::from(unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)
        }))
        .map(drop)
    };
    // SAFETY: the closure makes system calls only and touches nothing that another thread could have locked.
    unsafe { command.pre_exec(prepare) };
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
}

/// The head of `union bpf_attr` for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Loads an XDP program of raw instructions.
pub(super) fn load_xdp(instructions: &[u64]) -> io::Result<OwnedFd> {
    let attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
    };
    bpf(BPF_PROG_LOAD, &attr)
}

/// Attaches an XDP program, in native mode, until the returned link is closed.
pub(super) fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &attr)
}

/// A bpf(2) command that returns a descriptor.
fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    let attr: *const T = attr;
    // SAFETY: `attr` is a live repr(C) head of `union bpf_attr`, whose size is passed; the kernel takes the
    // rest as zero. The memory it points to outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) })?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel just opened this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
