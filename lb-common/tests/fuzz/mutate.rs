//! Damage to inputs.

/// Bytes at the edges of what parsers compare with.
const EDGES: [u8; 12] = [0, 1, 4, 5, 6, 0x0f, 0x10, 0x45, 0x60, 0x7f, 0x80, 0xff];

/// The longest input.
const MOST: usize = 256;

/// Makes inputs from those of a corpus.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.random() >> 32) as usize % limit
    }

    /// One input of the corpus, damaged in one to four places.
    pub(crate) fn next(&mut self, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
        input.clear();
        let chosen = self.below(corpus.len());
        input.extend_from_slice(&corpus[chosen]);
        for _ in 0..=self.below(4) {
            if input.is_empty() {
                return;
            }
            self.damage(corpus, input);
        }
    }

    fn damage(&mut self, corpus: &[Vec<u8>], input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(16) {
            0..=4 => input[at] ^= 1 << self.below(8),
            5..=8 => input[at] = EDGES[self.below(EDGES.len())],
            9..=10 => input[at] = self.random() as u8,
            11 => input.truncate(at),
            12 => {
                let copied = &corpus[self.below(corpus.len())];
                let from = self.below(copied.len());
                input.truncate(at);
                input.extend_from_slice(&copied[from..]);
            }
            13 => {
                let length = self.below(16).min(input.len() - at);
                input.drain(at..at + length);
            }
            14 => {
                let end = (at + 8).min(input.len());
                let again: Vec<u8> = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => input.extend([0; 16]),
        }
        input.truncate(MOST);
    }
}
