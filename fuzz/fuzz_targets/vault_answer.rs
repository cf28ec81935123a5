#![no_main]

#[path = "../src/vault.rs"]
mod vault;

libfuzzer_sys::fuzz_target!(|data: &[u8]| vault::vault_answer(data));
