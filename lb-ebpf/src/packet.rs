//! The frame in the driver's memory: the only pointer arithmetic on packets.

use aya_ebpf::programs::XdpContext;
use lb_common::cursor::Cursor;

use crate::maps;

/// Offsets that [`Frame::bytes`] accepts: more than any header chain the parser follows can reach,
/// and well inside the 64 KiB that the verifier allows for a variable packet offset.
const OFFSET_MASK: usize = 0x7fff;

/// A frame, from its Ethernet header to its end.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// Length in bytes.
    #[inline(always)]
    pub fn length(&self) -> u64 {
        (self.end - self.start) as u64
    }

    /// A reader at the first byte.
    #[inline(always)]
    pub fn cursor(&self) -> FrameCursor {
        FrameCursor {
            start: self.start,
            position: self.start,
            end: self.end,
            offset: 0,
        }
    }

    /// `N` bytes at `offset`, or `None` if the frame ends before them.
    #[inline(always)]
    pub fn bytes<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let at = self.start + (offset & OFFSET_MASK);
        if at + N > self.end {
            return None;
        }
        // SAFETY: `at + N` lies inside the frame as checked above, the memory is the program's until
        // it returns, and the exclusive borrow of `self` keeps other references away.
        Some(unsafe { &mut *(at as *mut [u8; N]) })
    }
}

/// A [`Cursor`] over a [`Frame`].
///
/// It carries a pointer beside the offset: the verifier follows the bounds of a pointer that was
/// compared with the end, not of one that is computed anew from the start.
pub struct FrameCursor {
    start: usize,
    position: usize,
    end: usize,
    offset: usize,
}

impl Cursor for FrameCursor {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.position + N > self.end {
            return None;
        }
        // SAFETY: the `N` bytes lie inside the frame as checked above; the copy is bytewise.
        let bytes = unsafe { *(self.position as *const [u8; N]) };
        self.position += N;
        self.offset += N;
        Some(bytes)
    }

    /// Skips a length that was read from the packet.
    ///
    /// The verifier would follow every possible offset through the rest of the program, once for
    /// each way along the extension headers, and give up after a million instructions. An offset
    /// that comes out of a map is any number to it, so all ways become one.
    #[inline(always)]
    fn skip(&mut self, length: usize) -> Option<()> {
        self.offset = maps::forget_bounds(self.offset + length)? & OFFSET_MASK;
        self.position = self.start + self.offset;
        (self.position <= self.end).then_some(())
    }

    #[inline(always)]
    fn offset(&self) -> usize {
        self.offset
    }

    #[inline(always)]
    fn remaining(&self) -> usize {
        self.end - self.position
    }
}
