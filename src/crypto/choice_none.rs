//! No backend is here.

compile_error!("envelock needs a crypto backend: enable the feature `aws-lc-rs`, `rust-crypto`, or both");
