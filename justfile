# Forwards to `check` and scripts/, which need no `just`.

# Everything that CI runs; or the steps named
check *steps:
    ./check {{ steps }}

# Formatting
fmt:
    scripts/fmt

# Clippy, over the feature sets that matter
lint:
    scripts/lint

# Smallest builds, and the refusal of none
features:
    scripts/features

# Tests: all, rust-crypto, aws-lc-rs, release, or nothing for all of them
test *set:
    scripts/test {{ set }}

# Documentation
docs:
    scripts/docs

# The oldest supported Rust
msrv:
    scripts/msrv

# Licences, bans, sources
deny:
    scripts/deny

# Known vulnerabilities
advisories:
    scripts/advisories

# Run the examples
examples:
    scripts/examples

# Run the README's first commands
readme:
    scripts/readme

# Run the commands of docs/kms-tutorial.md
tutorial:
    scripts/tutorial

# Fuzz one target for some seconds
fuzz target seconds:
    scripts/fuzz-run {{ target }} {{ seconds }}

# Full counts: 5 GiB, a thousand kills, minutes of fuzzing
long *seconds:
    scripts/long {{ seconds }}

# Formatting, lints and tests of benches/peers, whose rivals take minutes to build
peers:
    scripts/peers

# What a provider across a network adds to a build from nothing
build-times *sdk:
    scripts/build-times {{ sdk }}

# Benchmarks
bench *arguments:
    scripts/bench {{ arguments }}
