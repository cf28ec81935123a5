//! The integration tests: one binary, so that the crate is linked once. They need the default
//! features but for the backends; `cli`, `test-util` and `tokio` add to them.

#[cfg(feature = "tokio")]
mod async_executors;
#[cfg(feature = "tokio")]
mod async_shells;
mod at_once;
#[cfg(feature = "tokio")]
mod backpressure;
mod big;
mod cache;
mod cases;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod cli_advice;
#[cfg(feature = "cli")]
mod cli_audit;
#[cfg(feature = "cli")]
mod cli_check;
#[cfg(feature = "cli")]
mod cli_damage;
#[cfg(feature = "cli")]
mod cli_describe;
#[cfg(feature = "cli")]
mod cli_fleet;
#[cfg(feature = "cli")]
mod cli_json;
#[cfg(feature = "cli")]
mod cli_keystore;
#[cfg(feature = "cli")]
mod cli_life;
#[cfg(feature = "cli")]
mod cli_lines;
#[cfg(feature = "cli")]
mod cli_permissions;
#[cfg(feature = "cli")]
mod cli_profiles;
#[cfg(feature = "cli")]
mod cli_range;
#[cfg(feature = "cli")]
mod cli_regions;
#[cfg(feature = "cli")]
mod cli_value;
#[cfg(feature = "test-util")]
mod conformance;
mod contexts;
mod copies;
mod damage;
mod disk;
mod examples;
mod failover;
mod fleet;
mod fork;
mod fuzz_corpora;
#[cfg(feature = "vault")]
mod fuzz_vault;
mod hostile;
mod house;
#[cfg(feature = "http")]
mod http_blocking;
mod http_ranges;
mod ivs;
mod kill;
#[cfg(all(feature = "local-kms", feature = "blocking"))]
mod kms_audit;
#[cfg(feature = "local-kms")]
mod kms_backup;
#[cfg(feature = "local-kms")]
mod kms_collection;
#[cfg(feature = "local-kms")]
mod kms_disk;
#[cfg(feature = "local-kms")]
mod kms_fork;
#[cfg(feature = "local-kms")]
mod kms_gate;
#[cfg(feature = "local-kms")]
mod kms_helper;
#[cfg(feature = "local-kms")]
mod kms_load;
#[cfg(feature = "local-kms")]
mod kms_mixed;
#[cfg(feature = "local-kms")]
mod kms_old;
#[cfg(feature = "local-kms")]
mod kms_operations;
#[cfg(feature = "local-kms")]
mod kms_permissions;
#[cfg(feature = "local-kms")]
mod kms_processes;
// What a crash leaves of SQLite's files is no matter of the crypto backend: looked at where both are there.
#[cfg(all(feature = "local-kms", feature = "rust-crypto", feature = "aws-lc-rs", target_os = "linux"))]
mod kms_record;
#[cfg(feature = "local-kms")]
mod kms_rekey;
#[cfg(feature = "local-kms")]
mod kms_replicas;
#[cfg(feature = "local-kms")]
mod kms_reports;
#[cfg(feature = "local-kms")]
mod kms_revocation;
#[cfg(feature = "local-kms")]
mod kms_slept;
#[cfg(feature = "local-kms")]
mod kms_states;
#[cfg(all(feature = "local-kms", feature = "blocking", feature = "tracing"))]
mod kms_traced;
mod layers;
mod memory;
mod one_call;
mod ordering;
mod parallel;
#[cfg(feature = "local-kms")]
mod policy;
mod providers;
mod python;
mod ranges;
mod records;
mod recover;
mod resume;
mod resume_kill;
mod resume_point;
mod rewrap;
#[cfg(feature = "serde")]
mod sealed;
mod source;
mod streams;
mod support;
#[cfg(feature = "cli")]
mod terminal;
mod unverified;
mod vectors;
