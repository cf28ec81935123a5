# Read by every script here: where things are, which features count, how a step says that it did not run.
# shellcheck shell=bash
set -euo pipefail

# Cargo, pip and tests get an empty standard input even if the caller's is closed.
exec </dev/null

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin

# What the scripts install for themselves: virtual environments, cargo's tools.
tools=$root/target/tools

# The feature sets that matter. "All" is this on top of the default ones.
all_features="cli metrics serde test-util tokio tracing"
backends=(rust-crypto aws-lc-rs)
# What comes with a backend when it is tested alone.
alone_features="local-kms,blocking,serde,test-util,tokio"
# What may be all that a program takes beside the crate itself: a provider across a network, which brings its backend.
remotes=(aws-kms vault)

heading() { printf '\n-- %s\n' "$*"; }

# The step did not run, and should have: fails under CI=true (see `check`).
skip() {
  echo "SKIPPED: $*" >&2
  exit 75
}

# The step did not run, for one of the three reasons that CI accepts.
skip_exempt() {
  echo "SKIPPED (exempt): $*" >&2
  exit 76
}

# Something worth knowing that no step could have done here.
note() {
  echo "NOTE: $*" >&2
  exit 77
}
