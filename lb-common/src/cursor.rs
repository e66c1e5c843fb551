//! A forward reader over a frame.
//!
//! The parser is generic over [`Cursor`]: in the kernel it reads between `data` and `data_end`, on a
//! host it reads a slice. Every read checks its bounds; nothing can be read twice or backwards.

/// A bounds-checked forward reader.
pub trait Cursor {
    /// Reads `N` bytes and moves past them; `None` when the frame ends earlier.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]>;

    /// Moves `length` bytes forward; `None` when the frame ends earlier.
    fn skip(&mut self, length: usize) -> Option<()>;

    /// Bytes between the start of the frame and the next read.
    fn offset(&self) -> usize;

    /// Bytes between the next read and the end of the frame.
    fn remaining(&self) -> usize;
}

/// A [`Cursor`] over a slice, for hosts.
#[derive(Clone, Debug)]
pub struct SliceCursor<'a> {
    frame: &'a [u8],
    offset: usize,
}

impl<'a> SliceCursor<'a> {
    /// Starts at the first byte of `frame`.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        Self { frame, offset: 0 }
    }
}

impl Cursor for SliceCursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.frame.get(self.offset..)?.first_chunk::<N>()?;
        self.offset += N;
        Some(*bytes)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        if length > self.remaining() {
            return None;
        }
        self.offset += length;
        Some(())
    }

    fn offset(&self) -> usize {
        self.offset
    }

    fn remaining(&self) -> usize {
        self.frame.len() - self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, SliceCursor};

    #[test]
    fn reads_forward_until_the_frame_ends() {
        let mut cursor = SliceCursor::new(&[1, 2, 3, 4]);
        assert_eq!(cursor.take::<2>(), Some([1, 2]));
        assert_eq!(cursor.skip(1), Some(()));
        assert_eq!((cursor.offset(), cursor.remaining()), (3, 1));
        assert_eq!(cursor.take::<2>(), None);
        assert_eq!(cursor.skip(2), None);
        assert_eq!(cursor.take::<1>(), Some([4]));
        assert_eq!(cursor.skip(usize::MAX), None);
    }
}
