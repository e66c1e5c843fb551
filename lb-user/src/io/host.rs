//! What the daemon asks of the host itself: limits, ports, groups.

use std::{io, ops::RangeInclusive};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The kernel's ports for outgoing connections, of this network namespace, IPv6 included.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// NAT and the host's own connections could use the same port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "nat.ports: {}-{} overlaps the ports that the host itself connects from, {}-{}: set nat.ports outside of \
     them, or move net.ipv4.ip_local_port_range",
    .wanted.start(), .wanted.end(), .local.start(), .local.end()
)]
pub struct PortsOverlap {
    wanted: RangeInclusive<u16>,
    local: RangeInclusive<u16>,
}

/// Raises the limits that the daemon may run into, as far as it may.
///
/// Open files: a probe each. Locked memory: kernels before 5.11 charge BPF maps to it.
pub fn raise_limits() {
    for resource in [Resource::Memlock, Resource::Nofile] {
        let unlimited = Rlimit {
            current: None,
            maximum: None,
        };
        let hard = getrlimit(resource).maximum;
        let raised = Rlimit {
            current: hard,
            maximum: hard,
        };
        let most = if resource == Resource::Memlock {
            unlimited
        } else {
            raised
        };
        // What then fails because a limit is too low says so itself.
        if setrlimit(resource, most).is_err() {
            let _ = setrlimit(resource, raised);
        }
    }
}

/// Has the calling thread run before all ordinary ones, by the lowest of the real-time priorities.
/// Threads and processes that it starts are ordinary again.
///
/// # Errors
///
/// If it may not: it takes CAP_SYS_NICE or RLIMIT_RTPRIO, and in a control group of its own a share of real time.
pub fn run_first() -> io::Result<()> {
    // SAFETY: it is all integers, for which zero is a value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameters, during the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether something keeps the clock right: the kernel is told so by whoever does (NTP, PTP).
///
/// # Errors
///
/// If the kernel does not say.
pub fn is_clock_kept() -> io::Result<bool> {
    // SAFETY: it is all integers, for which zero is a value.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: without a mode nothing is changed, and what is there is written to the place given.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    if state < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0)
}

/// Checks that NAT would not use ports that the host itself connects from.
///
/// # Errors
///
/// If it would.
pub fn check_ports(wanted: RangeInclusive<u16>) -> Result<(), PortsOverlap> {
    // A host that does not tell its range is not one that this could be checked on.
    let local = std::fs::read_to_string(LOCAL_PORTS).ok();
    match local.as_deref().and_then(parse_range) {
        Some(local) if wanted.start() <= local.end() && local.start() <= wanted.end() => {
            Err(PortsOverlap { wanted, local })
        }
        Some(_) | None => Ok(()),
    }
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut words = text.split_whitespace();
    let first = words.next()?.parse().ok()?;
    let last = words.next()?.parse().ok()?;
    Some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::{PortsOverlap, parse_range};

    #[test]
    fn port_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_range("many"), None);
    }

    #[test]
    fn overlap_tells_both_ranges_and_the_way_out() {
        let overlap = PortsOverlap {
            wanted: 1024..=40_000,
            local: 32_768..=60_999,
        };
        let text = overlap.to_string();
        assert!(
            text.contains("1024-40000") && text.contains("32768-60999"),
            "{text}"
        );
        assert!(text.contains("ip_local_port_range"), "{text}");
    }
}
