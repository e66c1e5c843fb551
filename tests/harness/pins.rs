//! Pinned maps as another version of tidegate would have left them.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{MapData, MapInfo};
use lb_common::abi;

/// The maps whose values may grow from one version to the next.
const GROWING: [&str; 11] = [
    abi::SERVICES,
    abi::BACKENDS,
    abi::FLOWS,
    abi::HALF_OPEN,
    abi::REPLIES,
    abi::HALF_OPEN_REPLIES,
    abi::NAT_POOL,
    abi::LOADS,
    abi::TUNNEL_SOURCES,
    abi::RATES,
    abi::LEASES,
];

/// The other version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It has something more at the end of each value, which this one knows nothing of.
    Newer,
    /// It has not yet what this one has at the end of a value, as far as nothing of that is in use.
    Older,
}

/// Has the pins below a directory be what that version has left. No daemon may use them, and flows that
/// begin before the next one does are not in them.
///
/// # Errors
/// When there are none; when no value could be made shorter; when the kernel refuses something.
pub fn leave(pins: &Path, other: Other) -> Result<()> {
    let mut changed = 0;
    for name in GROWING {
        let path = pins.join(name);
        changed += usize::from(rewrite(&path, other).with_context(|| name.to_owned())?);
    }
    ensure!(changed > 0, "every value is in use to its end");
    let layout = Pinned::open(&pins.join("LAYOUT"))?;
    let mut value = layout.get(&[0; 4])?;
    // The digest of sizes.
    value[4] ^= 0x5a;
    update(layout.map.fd().as_fd(), &[0; 4], &value).context("LAYOUT")
}

/// Puts a map of values of another length in the place of one. Says whether that can be.
fn rewrite(path: &Path, other: Other) -> Result<bool> {
    /// What the lengths differ by, in bytes: values stay aligned as they were.
    const STEP: usize = 8;
    let old = Pinned::open(path)?;
    let mut entries = old.entries()?;
    let length = old.info.value_size() as usize;
    let length = match other {
        Other::Newer => length + STEP,
        Other::Older => {
            let unused = entries
                .iter()
                .all(|(_, value)| value[length - STEP..].iter().all(|byte| *byte == 0));
            if !unused || length == STEP {
                return Ok(false);
            }
            length - STEP
        }
    };
    let new = create(&old.info, length)?;
    for (key, value) in &mut entries {
        // What this version does not know may be anything.
        value.resize(length, 0xa5);
        update(new.as_fd(), key, value)?;
    }
    drop(old);
    fs::remove_file(path)?;
    pin(new.as_fd(), path)?;
    Ok(true)
}

/// A map, and what it is like.
struct Pinned {
    map: MapData,
    info: MapInfo,
}

impl Pinned {
    fn open(path: &Path) -> Result<Self> {
        let map = MapData::from_pin(path)?;
        let info = map.info()?;
        Ok(Self { map, info })
    }

    fn get(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; self.info.value_size() as usize];
        let (key, to) = (key.as_ptr() as u64, value.as_mut_ptr() as u64);
        call(1, &Attributes::of_map(self.map.fd().as_fd(), key, to))?;
        Ok(value)
    }

    fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        let mut key: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0; self.info.key_size() as usize];
            let from = key.as_ref().map_or(0, |key| key.as_ptr() as u64);
            let to = next.as_mut_ptr() as u64;
            match call(4, &Attributes::of_map(self.map.fd().as_fd(), from, to)) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(entries),
                Err(error) => return Err(error.into()),
            }
            entries.push((next.clone(), self.get(&next)?));
            key = Some(next);
        }
    }
}

/// As much of `union bpf_attr` (linux/bpf.h) as is used here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes([u64; 5]);

impl Attributes {
    /// For what is done to an entry.
    fn of_map(map: BorrowedFd<'_>, key: u64, value: u64) -> Self {
        Self([map.as_raw_fd() as u64, key, value, 0, 0])
    }

    /// Two numbers of 32 bits, in the order that they have in memory.
    const fn pair(first: u32, second: u32) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }
}

/// An empty map like that one, with values of another length.
fn create(like: &MapInfo, length: usize) -> Result<OwnedFd> {
    let kind = like.map_type()? as u32;
    let attributes = Attributes([
        Attributes::pair(kind, like.key_size()),
        Attributes::pair(u32::try_from(length)?, like.max_entries()),
        Attributes::pair(like.map_flags(), 0),
        0,
        0,
    ]);
    let fd = call(0, &attributes)?;
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> Result<()> {
    let (key, value) = (key.as_ptr() as u64, value.as_ptr() as u64);
    call(2, &Attributes::of_map(map, key, value))?;
    Ok(())
}

fn pin(map: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = map.as_raw_fd().cast_unsigned();
    let attributes = [path.as_ptr() as u64, Attributes::pair(fd, 0), 0, 0, 0];
    call(6, &Attributes(attributes))?;
    Ok(())
}

/// `bpf(2)`.
fn call(command: libc::c_long, attributes: &Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: each address in the attributes is that of a buffer which its caller borrows for the length
    // of the call, as long as the map's keys or values; what they do not hold counts as zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    i32::try_from(result)
        .ok()
        .filter(|result| *result >= 0)
        .ok_or_else(io::Error::last_os_error)
}
