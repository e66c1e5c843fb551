//! Reading hash maps by the thousand: aya 0.14 has no batched look-up.
//!
//! The kernel hands out whole buckets, each under its lock, and entries never change their bucket:
//! a walk sees every entry that is there from its begin to its end, whatever comes and goes
//! meanwhile. It ends after the last bucket, whoever fills them.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use aya::Pod;

/// Entries asked for at once; a bucket that holds more makes it grow.
const BATCH: usize = 4_096;

/// The part of `union bpf_attr` that batches use (linux/bpf.h).
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `visit` with every entry of a hash map of `K` to `V`.
///
/// # Errors
/// If the kernel does not let it be read.
pub(super) fn walk<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    let mut keys = vec![zeroed(); BATCH];
    let mut values = vec![zeroed(); BATCH];
    // The number of the next bucket, of the kernel's own making.
    let mut position: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        let (outcome, count) = look_up(map, position, &mut next, &mut keys, &mut values);
        let is_last = match outcome {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::ENOSPC) => {
                    keys.resize(keys.len() * 2, zeroed());
                    values.resize(values.len() * 2, zeroed());
                    continue;
                }
                Some(libc::EINTR | libc::EAGAIN) => continue,
                _ => return Err(error),
            },
        };
        for (key, value) in keys.iter().zip(&values).take(count) {
            visit(key, value);
        }
        if is_last {
            return Ok(());
        }
        position = Some(next);
    }
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: every bit pattern is a value of a `Pod`.
    unsafe { std::mem::zeroed() }
}

/// Reads the entries behind a position, as many as there is room for.
fn look_up<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    position: Option<u32>,
    next: &mut u32,
    keys: &mut [K],
    values: &mut [V],
) -> (io::Result<()>, usize) {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    let room = keys.len().min(values.len());
    let mut attributes = Attributes {
        in_batch: position
            .as_ref()
            .map_or(0, |position| std::ptr::from_ref(position) as u64),
        out_batch: std::ptr::from_mut(next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(room).unwrap_or(u32::MAX),
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: every address in `attributes` is that of a value borrowed above for the length of the
    // call, the slices have room for `count` entries of the map's own sizes, and entries are plain
    // bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    let outcome = if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    };
    (outcome, (attributes.count as usize).min(room))
}
