//! Only aws-lc-rs is here.

pub(super) use super::aws_lc::{
    AwsLc as ForAead, AwsLc as ForAes, AwsLc as ForHash, AwsLc as ForHmac, AwsLc as ForRsa,
};
