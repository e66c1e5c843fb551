//! The link that holds the program on its interface: pinned, found again, and given another program.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpLinkId},
};

use super::{LINK, PinError, Pins, files};

/// The link's own end here. The pin holds the program, whatever becomes of this.
#[derive(Debug)]
pub(in crate::io::datapath) struct Link(#[expect(dead_code, reason = "held, not used")] FdLink);

/// A link whose interface is there.
pub(super) struct Living {
    interface: u32,
    program: u32,
}

impl Living {
    /// The interface's index.
    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    /// The program's id.
    pub(super) const fn program(&self) -> u32 {
        self.program
    }
}

impl Pins {
    /// What the pinned link holds its program on; `None` if there is no link, or nothing that a packet
    /// could come by.
    pub(super) fn living_link(&self) -> Result<Option<Living>, PinError> {
        match look_at(&self.path(LINK)) {
            Ok(Living { interface: 0, .. }) => Ok(None),
            Ok(living) => Ok(Some(living)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot(LINK, "opened")(error)),
        }
    }

    pub(super) fn remove_link(&self) -> Result<(), PinError> {
        files::remove(&self.path(LINK)).map_err(self.cannot(LINK, "removed"))
    }

    /// Has the program stay where it was attached.
    pub(in crate::io::datapath) fn keep(
        &self,
        program: &mut Xdp,
        link: XdpLinkId,
    ) -> Result<Link, PinError> {
        let link = take(program, link).map_err(self.cannot(LINK, "taken"))?;
        let pinned = link.pin(self.path(LINK));
        Ok(Link(pinned.map_err(self.cannot(LINK, "pinned"))?.into()))
    }

    /// Puts the program in the place of the one that is in force, between two packets.
    pub(in crate::io::datapath) fn replace(&self, program: &mut Xdp) -> Result<Link, PinError> {
        let link = PinnedLink::from_pin(self.path(LINK)).map_err(self.cannot(LINK, "opened"))?;
        let link = XdpLink::try_from(FdLink::from(link)).map_err(self.cannot(LINK, "opened"))?;
        let updated = program.attach_to_link(link);
        let id = updated.map_err(self.cannot(LINK, "updated"))?;
        Ok(Link(take(program, id).map_err(self.cannot(LINK, "taken"))?))
    }
}

fn take(
    program: &mut Xdp,
    link: XdpLinkId,
) -> Result<FdLink, Box<dyn std::error::Error + Send + Sync>> {
    let link = program
        .take_link(link)
        .map_err(|error: ProgramError| Box::new(error))?;
    Ok(FdLink::try_from(link)?)
}

/// What a pinned XDP link is on; the interface is 0 if it is gone.
fn look_at(path: &Path) -> io::Result<Living> {
    const BPF_OBJ_GET: libc::c_long = 7;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    const BPF_LINK_TYPE_XDP: u32 = 6;

    /// The part of `union bpf_attr` that opening a pin uses (linux/bpf.h).
    #[repr(C)]
    struct Open {
        path: u64,
        fd: u32,
        flags: u32,
    }
    /// The part that asking for information uses.
    #[repr(C)]
    struct Ask {
        fd: u32,
        length: u32,
        info: u64,
    }
    /// The head of `struct bpf_link_info`, of an XDP link.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        interface: u32,
        rest: u32,
    }

    let path = CString::new(path.as_os_str().as_bytes())?;
    let open = Open {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `open` and the path behind it, both of which outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET,
            &raw const open,
            size_of::<Open>(),
        )
    };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = Info::default();
    let mut ask = Ask {
        fd: fd.as_raw_fd().cast_unsigned(),
        length: size_of::<Info>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel writes to `info` at most as many bytes as it is told that there are, and to
    // `ask`; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut ask,
            size_of::<Ask>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if info.kind != BPF_LINK_TYPE_XDP {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Info {
        interface, program, ..
    } = info;
    Ok(Living { interface, program })
}
