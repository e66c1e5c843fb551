//! Sums of what is retained, by which two nodes find out where they differ.
//!
//! Topics are spread over buckets by their hashes. Nodes that tell each other the sum of each bucket
//! need to tell the messages only of those that differ.

use crate::message::Message;

/// So many that one topic of a hundred thousand has some hundreds told again, and few enough to be sent
/// whenever there might be a difference.
pub(crate) const BUCKETS: usize = 256;

/// So much of a payload tells it from others of one topic, one time and one length.
const PAYLOAD: usize = 16 * 1024;

/// A sum for each bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sums(Box<[u64; BUCKETS]>);

/// Some of the buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buckets([u64; BUCKETS / 64]);

impl Default for Sums {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Sums {
    pub(crate) fn add(&mut self, topic: &str, value: u64) {
        if let Some(sum) = self.0.get_mut(bucket_of(topic)) {
            *sum = sum.wrapping_add(value);
        }
    }

    pub(crate) fn subtract(&mut self, topic: &str, value: u64) {
        self.add(topic, value.wrapping_neg());
    }

    /// The buckets whose sums are others.
    pub(crate) fn differing(&self, others: &Self) -> Buckets {
        let mut buckets = Buckets::default();
        let pairs = self.0.iter().zip(others.0.iter());
        for (bucket, _sums) in pairs
            .enumerate()
            .filter(|(_, (ours, theirs))| ours != theirs)
        {
            buckets.insert(bucket);
        }
        buckets
    }

    pub(crate) fn words(&self) -> &[u64; BUCKETS] {
        &self.0
    }

    pub(crate) fn from_words(words: [u64; BUCKETS]) -> Self {
        Self(Box::new(words))
    }
}

impl Buckets {
    pub(crate) const ALL: Self = Self([u64::MAX; BUCKETS / 64]);

    fn insert(&mut self, bucket: usize) {
        if let Some(word) = self.0.get_mut(bucket / 64) {
            *word |= 1 << (bucket % 64);
        }
    }

    /// Whether a topic is in one of them.
    pub(crate) fn have(&self, topic: &str) -> bool {
        let bucket = bucket_of(topic);
        let word = self.0.get(bucket / 64).copied().unwrap_or(0);
        word & (1 << (bucket % 64)) != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn union(self, others: Self) -> Self {
        Self(std::array::from_fn(|at| {
            let word = |buckets: &Self| buckets.0.get(at).copied().unwrap_or(0);
            word(&self) | word(&others)
        }))
    }
}

/// What a message counts for, on all nodes alike. Of one topic and one time there is one publication but
/// for a coincidence: its expiry, and the rest of a long payload, need not tell it from others.
pub(crate) fn value_of(message: &Message, at: u64) -> u64 {
    let Message {
        topic,
        payload,
        properties,
        qos,
        ..
    } = message;
    let start = payload.get(..PAYLOAD).unwrap_or(payload);
    Hash::new()
        .bytes(topic.as_bytes())
        .word(at)
        .word(payload.len() as u64)
        .bytes(start)
        .bytes(properties)
        .word(u64::from(*qos as u8))
        .finish()
}

/// What tells a publication from others, also one that deletes.
pub(crate) fn mark_of(topic: &str, at: u64) -> u64 {
    Hash::new().bytes(topic.as_bytes()).word(at).finish()
}

fn bucket_of(topic: &str) -> usize {
    let hash = Hash::new().bytes(topic.as_bytes()).finish();
    // The remainder is smaller than any usize.
    usize::try_from(hash % BUCKETS as u64).unwrap_or(0)
}

/// A hash of our own: nodes compare it, and the standard library's may be another one in each release.
/// Whoever looks for messages of the same sum cannot choose their times.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    /// Both odd, and without a pattern: the fractions of the golden ratio, and of the root of two.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    const START: u64 = 0x6a09_e667_f3bc_c909;

    const fn new() -> Self {
        Self(Self::START)
    }

    /// Adds a word: a product of 128 bits, whose halves are laid over each other.
    #[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
    const fn word(self, word: u64) -> Self {
        let product = (self.0 ^ word) as u128 * Self::FACTOR as u128;
        Self((product as u64 ^ (product >> 64) as u64).wrapping_add(Self::START))
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let hash = words
            .iter()
            .fold(self.word(bytes.len() as u64), |hash, word| {
                hash.word(u64::from_le_bytes(*word))
            });
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        hash.word(u64::from_le_bytes(last))
    }

    const fn finish(self) -> u64 {
        self.word(0).0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::message::{MessageId, Qos};

    #[test]
    fn difference_is_found_in_its_bucket_and_gone_when_it_is() {
        let (mut ours, mut theirs) = (Sums::default(), Sums::default());
        for number in 0..1000 {
            let topic = format!("t/{number}");
            ours.add(&topic, number);
            theirs.add(&topic, number);
        }
        assert!(ours.differing(&theirs).is_empty());
        ours.subtract("t/7", 7);
        ours.add("t/7", 9);
        let buckets = ours.differing(&theirs);
        assert!(buckets.have("t/7") && buckets == theirs.differing(&ours));
        let others = (0..1000).filter(|number| buckets.have(&format!("t/{number}")));
        assert!(others.count() < 50);
        theirs.subtract("t/7", 7);
        theirs.add("t/7", 9);
        assert_eq!(ours, theirs);
        assert_eq!(Sums::from_words(*ours.words()), theirs);
    }

    #[test]
    fn buckets_add_up() {
        let of = |topic: &str| {
            let mut sums = Sums::default();
            sums.add(topic, 1);
            sums.differing(&Sums::default())
        };
        let both = of("a").union(of("b"));
        assert!(both.have("a") && both.have("b") && both.union(of("a")) == both);
        assert!(both != of("a") && of("a").union(Buckets::default()) == of("a"));
    }

    /// All nodes of one protocol say the same, whatever they were built by: with other values here it has
    /// to be another protocol.
    #[test]
    fn hashes_are_those_of_every_build() {
        let message = Message {
            topic: "plant/état".into(),
            payload: b"a payload of more than a word".as_slice().into(),
            properties: b"\x01\x01".as_slice().into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            expires: None,
            id: MessageId::NONE,
        };
        assert_eq!(value_of(&message, 7), 0x3a80_6e6f_3a9c_b7c3);
        assert_eq!(mark_of("", 0), 0xad7d_c98a_ccf9_66d3);
        assert_eq!(mark_of("t", 1), 0x6802_b0a3_d8fb_db5b);
        assert_eq!(["", "a", "plant/état"].map(bucket_of), [197, 26, 24]);
    }

    #[test]
    fn values_of_messages_that_differ_differ() {
        let message = |topic: &str, payload: &str, properties: &str, qos| Message {
            topic: topic.into(),
            payload: payload.as_bytes().into(),
            properties: properties.as_bytes().into(),
            qos,
            retain: true,
            expires: None,
            id: MessageId::NONE,
        };
        let (zero, one) = (Qos::AtMostOnce, Qos::AtLeastOnce);
        let all = [
            (message("t", "x", "", zero), 1),
            (message("t", "x", "", zero), 2),
            (message("t", "x", "", one), 1),
            (message("t", "", "x", zero), 1),
            (message("t", "x\0", "", zero), 1),
            (message("t\u{1}", "x", "", zero), 1),
            (message("tx", "", "", zero), 1),
        ];
        let values: BTreeSet<_> = all
            .iter()
            .map(|(message, at)| value_of(message, *at))
            .collect();
        assert_eq!(values.len(), all.len());
    }

    #[test]
    fn topics_are_spread_over_all_buckets() {
        let mut counts = [0_u32; BUCKETS];
        for number in 0..64 * BUCKETS {
            counts[bucket_of(&format!("site/{}/device/{number}/state", number % 7))] += 1;
        }
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least > Some(&25) && most < Some(&120), "{least:?} {most:?}");
    }
}
