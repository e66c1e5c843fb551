//! Ten million inputs for each parser in a few seconds, the same in every run.
//!
//! The checks are those of libFuzzer's targets, which find more in hours. Here inputs are frames as
//! they are sent, with some damage: most of them get past the first header.

#[path = "../fuzz/checks/mqtt.rs"]
mod mqtt;
#[path = "../fuzz/checks/parse.rs"]
mod parse;
#[path = "../fuzz/checks/quote.rs"]
mod quote;

mod fuzz {
    pub(crate) mod corpus;
    pub(crate) mod mutate;
}

use fuzz::{corpus, mutate::Mutator};

const INPUTS: u32 = 10_000_000;

/// Damaged inputs without end go through a check; of all, at least one in `one_in` must be
/// understood, or the damage is such that only first headers are tested.
fn run(seed: u64, corpus: &[Vec<u8>], one_in: u32, check: impl Fn(&[u8]) -> bool) {
    for input in corpus {
        assert!(check(input), "not understood: {input:02x?}");
    }
    let mut mutator = Mutator::new(seed);
    let mut input = Vec::new();
    let mut understood = 0;
    for _ in 0..INPUTS {
        mutator.next(corpus, &mut input);
        understood += u32::from(check(&input));
    }
    println!("{understood} of {INPUTS} inputs were understood");
    assert!(understood > INPUTS / one_in, "{understood} understood");
}

#[test]
fn frames() {
    run(1, &corpus::frames(), 10, parse::check);
}

#[test]
fn segments_of_mqtt() {
    run(2, &corpus::segments(), 20, mqtt::check);
}

#[test]
fn packets_that_icmp_quotes() {
    run(3, &corpus::quotes(), 20, quote::check);
}
