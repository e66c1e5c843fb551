//! libFuzzer on the check of this name.

#![no_main]

#[path = "../checks/parse.rs"]
mod parse;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    parse::check(input);
});
