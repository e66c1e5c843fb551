//! System calls that no library has: the test run with live frames, and where this thread runs.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use anyhow::Context as _;

/// Moves this thread, and the processes it starts, to a network namespace of its own.
pub(crate) fn enter_new_network_namespace() -> std::io::Result<()> {
    // SAFETY: takes an integer; no other thread exists yet whose view could differ.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps this thread on the CPU it is on, so that generator, program and sink share one.
pub(crate) fn stay_on_one_cpu() -> anyhow::Result<()> {
    let cpu = rustix::thread::sched_getcpu();
    let mut cpus = rustix::thread::CpuSet::new();
    cpus.set(cpu);
    rustix::thread::sched_setaffinity(None, &cpus).context("staying on one CPU")
}

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN reads.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    queue: u32,
    egress_interface: u32,
}

/// Runs a program on `repeat` frames that are then really sent.
pub(crate) fn run_live(
    program: BorrowedFd<'_>,
    interface: u32,
    length: usize,
    repeat: u32,
) -> anyhow::Result<()> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    const LIVE_FRAMES: u32 = 1 << 1;
    let frame = vec![0_u8; length];
    let context = Context {
        data_end: u32::try_from(length)?,
        ingress_interface: interface,
        ..Context::default()
    };
    let run = TestRun {
        program: u32::try_from(program.as_raw_fd())?,
        data_size_in: u32::try_from(length)?,
        data_in: frame.as_ptr() as u64,
        repeat,
        context_size_in: u32::try_from(size_of::<Context>())?,
        context_in: (&raw const context) as u64,
        flags: LIVE_FRAMES,
        batch_size: 64,
        ..TestRun::default()
    };
    // SAFETY: `run` is as large as said, and the memory it points to lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw const run,
            size_of::<TestRun>(),
        )
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("running the generator");
    }
    Ok(())
}
