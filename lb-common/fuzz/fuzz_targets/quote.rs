//! libFuzzer on the check of this name.

#![no_main]

#[path = "../checks/quote.rs"]
mod quote;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    quote::check(input);
});
