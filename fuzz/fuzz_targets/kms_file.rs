#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| envelock_fuzz::kms_file(data));
