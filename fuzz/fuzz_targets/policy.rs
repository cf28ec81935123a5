#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| envelock_fuzz::policy(data));
