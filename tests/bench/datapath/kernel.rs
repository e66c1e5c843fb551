//! Where this thread runs: its network namespace and its CPU.

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
