//! How much memory this process has.

/// What millions of inputs may add, in KiB: what a run leaves to the next, not a byte for each input.
pub(crate) const FLAT: u64 = 4_096;

/// What this process has touched and not given back, in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|it| it.parse().ok())
        .expect("a number of KiB")
}
