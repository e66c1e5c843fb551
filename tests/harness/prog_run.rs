//! Frames through a loaded XDP program: `BPF_PROG_TEST_RUN`.
//!
//! For [`run`] the kernel copies the frame into a page of its own, runs the program once, and gives the page's
//! content and the program's answer back. Nothing is sent: a redirect only says so. With [`run_live`]
//! what the program redirects is really sent.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use anyhow::{Context, Result, bail};
use lb_common::verdict::Action;

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// The shortest frame that the kernel takes: an Ethernet header.
pub const SHORTEST: usize = 14;

/// Loopback, which frames come in by unless told otherwise: number 1 in every namespace.
pub const LOOPBACK: u32 = 1;

/// Room for what the program leaves: more than the page that the kernel lays the frame in.
const ROOM: usize = 4096;

/// `bpf_attr.test` (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    answer: u32,
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

/// `struct xdp_md` (linux/bpf.h): offsets from the start of the frame's headroom in use.
#[repr(C)]
struct XdpContext {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_interface: u32,
    rx_queue: u32,
    egress_interface: u32,
}

/// What the program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub action: Action,
    pub frame: Vec<u8>,
}

/// Runs a program on a frame that comes in by an interface of this thread's network namespace.
///
/// # Errors
/// When the kernel refuses, or the program answers something that is no action of ours.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], interface: u32) -> Result<Answer> {
    let context = XdpContext::new(u32::try_from(frame.len())?, interface);
    let mut out = vec![0; ROOM];
    let mut attr = TestRun {
        data_size_out: u32::try_from(out.len())?,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        ..TestRun::new(program, frame, &context)?
    };
    attr.call()?;
    out.truncate(attr.data_size_out as usize);
    let action = action(attr.answer)?;
    Ok(Answer { action, frame: out })
}

/// Runs a program `repeat` times on recycled pages, in this call's time on this CPU; what it
/// redirects is sent. The pages are zero at first and are not restored between runs.
///
/// # Errors
/// When the kernel refuses.
pub fn run_live(program: BorrowedFd<'_>, interface: u32, length: usize, repeat: u32) -> Result<()> {
    const LIVE_FRAMES: u32 = 1 << 1;
    let frame = vec![0; length];
    let context = XdpContext::new(u32::try_from(length)?, interface);
    TestRun {
        repeat,
        flags: LIVE_FRAMES,
        batch_size: 64,
        ..TestRun::new(program, &frame, &context)?
    }
    .call()
}

impl TestRun {
    fn new(program: BorrowedFd<'_>, frame: &[u8], context: &XdpContext) -> Result<Self> {
        Ok(Self {
            program: u32::try_from(program.as_raw_fd())?,
            data_size_in: u32::try_from(frame.len())?,
            data_in: frame.as_ptr() as u64,
            context_size_in: u32::try_from(size_of::<XdpContext>())?,
            context_in: std::ptr::from_ref(context) as u64,
            ..Self::default()
        })
    }

    fn call(&mut self) -> Result<()> {
        let attr = &raw mut *self;
        // SAFETY: `attr` is a live head of `union bpf_attr`, whose size is passed. What it points
        // to, frame, context and output, outlives the call in both callers, and the lengths are
        // those given.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attr, size_of::<Self>()) };
        if result != 0 {
            let error = io::Error::last_os_error();
            return Err(error).with_context(|| {
                format!(
                    "the kernel did not run a frame of {} bytes",
                    self.data_size_in
                )
            });
        }
        Ok(())
    }
}

impl XdpContext {
    fn new(length: u32, ingress_interface: u32) -> Self {
        Self {
            data: 0,
            data_end: length,
            data_meta: 0,
            ingress_interface,
            rx_queue: 0,
            egress_interface: 0,
        }
    }
}

/// `enum xdp_action` (linux/bpf.h).
fn action(answer: u32) -> Result<Action> {
    Ok(match answer {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Transmit,
        4 => Action::Redirect,
        other => bail!("the program answered {other}"),
    })
}
