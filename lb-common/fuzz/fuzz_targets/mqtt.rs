//! libFuzzer on the check of this name.

#![no_main]

#[path = "../checks/mqtt.rs"]
mod mqtt;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    mqtt::check(input);
});
