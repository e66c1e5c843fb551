//! The frame in the driver's memory: the only pointer arithmetic on packets.

use aya_ebpf::{
    helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use lb_common::cursor::Cursor;

use crate::maps;

/// Offsets that [`Frame::bytes`] accepts: more than any header chain the parser follows can reach,
/// and well inside the 64 KiB that the verifier allows for a variable packet offset.
const OFFSET_MASK: usize = 0x7fff;

/// Bytes that [`Frame::sum_from`] adds up at most: those of the largest answer, and some.
const SUMMED: usize = 1280;

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

    /// The frame after its end was moved; what else refers to it is void.
    #[inline(always)]
    pub fn end_at(self, context: &XdpContext, length: usize) -> Option<Self> {
        let delta = length as i32 - self.length() as i32;
        // SAFETY: the helper checks the length, and the program forgets the old pointers.
        let outcome = unsafe { bpf_xdp_adjust_tail(context.ctx, delta) };
        (outcome == 0).then(|| Self::new(context))
    }

    /// The frame with `N` bytes more in front; what else refers to it is void.
    #[inline(always)]
    pub fn extend_front<const N: usize>(self, context: &XdpContext) -> Option<Self> {
        // SAFETY: the helper checks for room, and the program forgets the old pointers.
        let outcome = unsafe { bpf_xdp_adjust_head(context.ctx, -(N as i32)) };
        (outcome == 0).then(|| Self::new(context))
    }

    /// Adds up `N` bytes as words in the order of memory, for a checksum in that order.
    #[inline(always)]
    pub fn words<const N: usize>(bytes: &[u8; N]) -> u64 {
        let mut sum = 0;
        for word in 0..N / 4 {
            // SAFETY: word number `word` of `N / 4` lies inside the array; the read is unaligned.
            let word = unsafe { bytes.as_ptr().cast::<u32>().add(word).read_unaligned() };
            sum += u64::from(word);
        }
        sum
    }

    /// Adds up everything from an offset on, at most [`SUMMED`] bytes, as words in the order of
    /// memory; `None` if there are more.
    #[inline(always)]
    pub fn sum_from(&mut self, offset: usize) -> Option<u64> {
        let (mut sum, mut at) = (0_u64, offset);
        for _chunk in 0..SUMMED / 64 {
            let Some(chunk) = self.bytes::<64>(at) else {
                break;
            };
            sum += helper_sum(chunk);
            at += 64;
        }
        // The verifier would follow what is left once for each length of what was read.
        at = maps::forget_bounds(at)?;
        for _chunk in 0..15 {
            let Some(chunk) = self.bytes::<4>(at) else {
                break;
            };
            sum += Self::words(chunk);
            at += 4;
        }
        at = maps::forget_bounds(at)?;
        if let Some(word) = self.bytes::<2>(at) {
            sum += u64::from(u16::from_ne_bytes(*word));
            at += 2;
        }
        // Not the last byte alone: the verifier takes no check of one for a proof.
        at &= OFFSET_MASK;
        let rest = self.length() as usize - at;
        if rest == 1 {
            let [_, last] = *self.bytes::<2>(at - 1)?;
            sum += u64::from(u16::from_ne_bytes([last, 0]));
        }
        (rest <= 1).then_some(sum)
    }
}

/// The same sum as [`Frame::words`], in a helper.
#[inline(always)]
fn helper_sum(chunk: &mut [u8; 64]) -> u64 {
    let bytes = core::ptr::from_mut(chunk).cast();
    // SAFETY: 64 bytes at `bytes` are readable; none are read from the null pointer.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes, 64, 0) };
    u64::from(sum as u32)
}

impl Frame {
    /// Puts `words`, which are in memory order, at `offset`; `None` if the frame ends before.
    ///
    /// For whole headers, whose bytes LLVM would lay down one at a time.
    #[inline(always)]
    pub fn put_words<const N: usize>(&mut self, offset: usize, words: [u32; N]) -> Option<()> {
        let at = self.start + (offset & OFFSET_MASK);
        if at + N * size_of::<u32>() > self.end {
            return None;
        }
        for (number, word) in words.into_iter().enumerate() {
            let place = at + number * size_of::<u32>();
            // SAFETY: all `N` words lie inside the frame as checked above; alignment is not needed.
            unsafe { (place as *mut u32).write_unaligned(word) };
        }
        Some(())
    }
}

/// A [`Cursor`] over a [`Frame`].
///
/// It carries a pointer beside the offset: the verifier follows the bounds of a pointer that was
/// compared with the end, not of one that is computed anew from the start.
#[derive(Clone)]
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
