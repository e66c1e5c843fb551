//! Reading hash maps by the thousand, and maps of values whose length is not known before: aya 0.14 has
//! neither.
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
    walk_bytes(map, size_of::<V>(), |key, value| visit(key, &fit(value)))
}

/// Calls `visit` with every entry of a hash map of `K` to values of so many bytes.
///
/// # Errors
/// If the kernel does not let it be read.
pub(super) fn walk_bytes<K: Pod>(
    map: BorrowedFd<'_>,
    value_size: usize,
    mut visit: impl FnMut(&K, &[u8]),
) -> io::Result<()> {
    let mut keys = vec![zeroed(); BATCH];
    let mut values = vec![0; BATCH * value_size];
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
                    values.resize(values.len() * 2, 0);
                    continue;
                }
                Some(libc::EINTR | libc::EAGAIN) => continue,
                _ => return Err(error),
            },
        };
        for (key, value) in keys.iter().zip(values.chunks_exact(value_size)).take(count) {
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

/// A value of these bytes: what is missing of it is zero, what is too much is left out.
pub(super) fn fit<V: Pod>(bytes: &[u8]) -> V {
    let mut value = zeroed::<V>();
    let length = bytes.len().min(size_of::<V>());
    let to = (&raw mut value).cast::<u8>();
    // SAFETY: both have so many bytes, they do not overlap, and every bit pattern is a value of a `Pod`.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, length) };
    value
}

/// Reads an entry of an array whose values are as long as `value`.
///
/// # Errors
/// If there is none, or the kernel does not let it be read.
pub(super) fn look_up_one(map: BorrowedFd<'_>, index: u32, value: &mut [u8]) -> io::Result<()> {
    /// The part of `union bpf_attr` that single look-ups use.
    #[repr(C)]
    struct Single {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
    let mut attributes = Single {
        map_fd: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: std::ptr::from_ref(&index) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key and value are borrowed for the length of the call, and the caller vouches for the
    // length of the value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw mut attributes,
            size_of::<Single>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads the entries behind a position, as many as there is room for.
fn look_up<K: Pod>(
    map: BorrowedFd<'_>,
    position: Option<u32>,
    next: &mut u32,
    keys: &mut [K],
    values: &mut [u8],
) -> (io::Result<()>, usize) {
    const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
    let room = keys.len();
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
    // call, the slices have room for `count` entries of the map's own sizes, which the callers vouch
    // for, and entries are plain bytes.
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
