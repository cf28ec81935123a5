#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| envelock_fuzz::root_text(data));
