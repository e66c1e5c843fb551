//! What `bench pub` writes into a message so that `bench sub` can count and time it.
//!
//! ```text
//!  0      2      4          8                  16                 24
//!  | "TG" | run  | client   | sequence         | sent, Unix ns    | 'x' ...
//! ```
//! All numbers are big endian. `run` tells one publishing process from the next, whose sequence
//! numbers start again. The time is the wall clock: it also serves between hosts, as far as
//! their clocks agree.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The smallest message that carries a [`Stamp`].
pub(super) const STAMP_LEN: usize = 24;

const MAGIC: [u8; 2] = *b"TG";
const FILLER: u8 = b'x';

/// What messages consist of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// A stamp, if there is room, and filler.
    Stamped { size: usize },
    /// The same each time.
    Fixed(Arc<[u8]>),
}

impl Payload {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stamped { size } => *size,
            Self::Fixed(bytes) => bytes.len(),
        }
    }

    pub(super) fn append(&self, out: &mut Vec<u8>, stamp: &Stamp) {
        match self {
            Self::Stamped { size } => stamp.append(out, *size),
            Self::Fixed(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// Which message this is and when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) source: Source,
    pub(super) sequence: u64,
    pub(super) sent: u64,
}

/// One publishing client in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Source {
    pub(super) run: u16,
    pub(super) client: u32,
}

impl Stamp {
    /// Appends a message of `size` bytes: this stamp, when it fits, and filler.
    pub(super) fn append(&self, out: &mut Vec<u8>, size: usize) {
        let end = out.len() + size;
        if size >= STAMP_LEN {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&self.source.run.to_be_bytes());
            out.extend_from_slice(&self.source.client.to_be_bytes());
            out.extend_from_slice(&self.sequence.to_be_bytes());
            out.extend_from_slice(&self.sent.to_be_bytes());
        }
        out.resize(end, FILLER);
    }

    /// Reads the stamp at the head of a message; `None` if the message is not one of ours.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let (magic, rest) = message.split_first_chunk::<2>()?;
        let (run, rest) = rest.split_first_chunk::<2>()?;
        let (client, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let (sent, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Self {
            source: Source {
                run: u16::from_be_bytes(*run),
                client: u32::from_be_bytes(*client),
            },
            sequence: u64::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

/// The wall clock, in nanoseconds since 1970.
pub(super) fn wall_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{STAMP_LEN, Source, Stamp};

    const STAMP: Stamp = Stamp {
        source: Source {
            run: 0xbeef,
            client: 70_000,
        },
        sequence: u64::MAX - 1,
        sent: 1_700_000_000_123_456_789,
    };

    #[test]
    fn a_stamp_reads_back() {
        for size in [STAMP_LEN, 25, 256, 65_536] {
            let mut message = Vec::new();
            STAMP.append(&mut message, size);
            assert_eq!(message.len(), size);
            assert_eq!(Stamp::read(&message), Some(STAMP));
        }
    }

    #[test]
    fn a_message_too_small_for_a_stamp_is_filler() {
        for size in 0..STAMP_LEN {
            let mut message = Vec::new();
            STAMP.append(&mut message, size);
            assert_eq!(message, vec![b'x'; size]);
            assert_eq!(Stamp::read(&message), None);
        }
    }

    #[test]
    fn foreign_messages_have_no_stamp() {
        assert_eq!(Stamp::read(&[0; 64]), None);
    }
}
