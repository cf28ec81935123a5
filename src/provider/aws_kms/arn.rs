//! Names of keys: ARNs, and what else a user may call a key.

use crate::error::{Error, Result};
use std::fmt;

/// The full name of a KMS key: `arn:aws:kms:eu-central-1:111122223333:key/1234abcd-…`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyArn {
    text: String,
    partition: String,
    region: String,
    account: String,
    id: String,
}

impl KeyArn {
    /// `None` for anything else, an alias's ARN included: "valid ARN: 6 parts by ':'", resource type `key`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let arn = Arn::parse(text)?;
        let id = arn.resource.strip_prefix("key/").filter(|id| is_key_id(id))?;
        Some(Self {
            text: text.to_owned(),
            partition: arn.partition.to_owned(),
            region: arn.region.to_owned(),
            account: arn.account.to_owned(),
            id: id.to_owned(),
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn partition(&self) -> &str {
        &self.partition
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Whether it is a multi-Region key, which has the same material in every Region.
    pub(super) fn is_multi_region(&self) -> bool {
        self.id.starts_with(MULTI_REGION)
    }

    /// Whether both name one multi-Region key, in whatever Regions: "both MRK and equal partition, service, account,
    /// resource type, resource, region ignored".
    pub(super) fn is_replica_of(&self, other: &Self) -> bool {
        self.is_multi_region()
            && self.id == other.id
            && self.account == other.account
            && self.partition == other.partition
    }

    /// The same multi-Region key in another Region.
    pub(super) fn in_region(&self, region: &str) -> Self {
        let Self { partition, account, id, .. } = self;
        Self {
            text: format!("arn:{partition}:kms:{region}:{account}:key/{id}"),
            region: region.to_owned(),
            ..self.clone()
        }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a user may call a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyName {
    /// By its ARN: nothing must be asked about it.
    Key(KeyArn),
    /// By an alias's ARN. What it points to is for the KMS to say.
    AliasArn { text: String, partition: String, region: String, account: String },
    /// By `alias/name` or by a key id, in a Region and an account that follow from elsewhere.
    Short(String),
}

impl KeyName {
    /// # Errors
    /// Kind InvalidInput, code ValidationException.
    pub(super) fn parse(text: &str) -> Result<Self> {
        if let Some(key) = KeyArn::parse(text) {
            return Ok(Self::Key(key));
        }
        let is_alias = |name: &str| name.strip_prefix("alias/").is_some_and(is_alias_name);
        match Arn::parse(text) {
            Some(arn) if is_alias(arn.resource) => Ok(Self::AliasArn {
                text: text.to_owned(),
                partition: arn.partition.to_owned(),
                region: arn.region.to_owned(),
                account: arn.account.to_owned(),
            }),
            None if is_alias(text) || (is_key_id(text) && text.len() >= SHORTEST_ID) => {
                Ok(Self::Short(text.to_owned()))
            }
            _ => Err(invalid(text)),
        }
    }
}

/// The parts of an ARN of AWS KMS, whatever it names.
struct Arn<'a> {
    partition: &'a str,
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.len() > ARN_MAX {
            return None;
        }
        let mut parts = text.splitn(6, ':');
        let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
        let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
        let is_valid = arn == "arn"
            && is_region(partition)
            && service == "kms"
            && is_region(region)
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit());
        is_valid.then_some(Self { partition, region, account, resource })
    }
}

/// Whether it may be part of a host's name: 1 to 32 lower-case letters, digits and hyphens, none at an end.
pub(super) fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_key_id(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_alias_name(text: &str) -> bool {
    (1..=250).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-'))
}

fn invalid(text: &str) -> Error {
    let shown: String = text.escape_debug().take(120).collect();
    Error::invalid_input(format!("\"{shown}\" names no key of AWS KMS")).with_code("ValidationException").with_advice(
        "give a key's ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), an alias's ARN, or, with a Region, alias/NAME or a key id",
    )
}

/// A key id begins so if the key is in several Regions. An alias that does is none.
const MULTI_REGION: &str = "mrk-";
const ARN_MAX: usize = 2_048;
/// A key id is a UUID, or `mrk-` and 32 digits: what is shorter is a slip, `alias/` forgotten for one.
const SHORTEST_ID: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const MRK: &str = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab";

    #[test]
    fn an_arn_of_a_key_is_taken_apart() {
        let key = KeyArn::parse(KEY).unwrap();
        assert_eq!((key.partition(), key.region(), key.account()), ("aws", "eu-central-1", "111122223333"));
        assert!(!key.is_multi_region());
        assert_eq!(key.as_str(), KEY);
    }

    #[test]
    fn what_is_no_arn_of_a_key_is_none() {
        for text in [
            "",
            "arn",
            "arn:aws:kms:eu-central-1:111122223333",
            "arn:aws:kms:eu-central-1:111122223333:alias/x",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:111122223333:key/a/b",
            "arn:aws:kms:eu-central-1:11112222333:key/x",
            "arn:aws:kms:eu-central-1:11112222333x:key/x",
            "arn:aws:kms::111122223333:key/x",
            "arn:aws:kms:evil.example/:111122223333:key/x",
            "arn:aws:kms:eu-central-1.:111122223333:key/x",
            "arn::kms:eu-central-1:111122223333:key/x",
            "arn:aws:s3:eu-central-1:111122223333:key/x",
            "ARN:aws:kms:eu-central-1:111122223333:key/x",
            "arn:aws:kms:eu-central-1:111122223333:key/x\n",
            "arn:aws:kms:eu-central-1:111122223333:key/ключ",
        ] {
            assert!(KeyArn::parse(text).is_none(), "{text}");
        }
        let long = format!("arn:aws:kms:eu-central-1:111122223333:key/{}", "a".repeat(3000));
        assert!(KeyArn::parse(&long).is_none());
    }

    #[test]
    fn a_multi_region_key_is_the_same_in_every_region_of_its_account() {
        let here = KeyArn::parse(MRK).unwrap();
        let there = here.in_region("us-east-1");
        assert_eq!(there, KeyArn::parse(&MRK.replace("eu-central-1", "us-east-1")).unwrap());
        assert!(here.is_replica_of(&there) && there.is_replica_of(&here));
        let foreign = KeyArn::parse(&MRK.replace("111122223333", "444455556666")).unwrap();
        assert!(!here.is_replica_of(&foreign));
        let china = KeyArn::parse(&MRK.replace("arn:aws:", "arn:aws-cn:")).unwrap();
        assert!(!here.is_replica_of(&china));
        let single = KeyArn::parse(KEY).unwrap();
        assert!(!single.is_replica_of(&single.in_region("us-east-1")), "no multi-Region key");
    }

    #[test]
    fn keys_have_four_kinds_of_names() {
        assert!(matches!(KeyName::parse(KEY), Ok(KeyName::Key(_))));
        let alias = KeyName::parse("arn:aws:kms:us-east-1:111122223333:alias/mrk-app").unwrap();
        assert!(matches!(alias, KeyName::AliasArn { region, .. } if region == "us-east-1"));
        assert!(matches!(KeyName::parse("alias/aws/s3"), Ok(KeyName::Short(_))));
        assert!(matches!(KeyName::parse("1234abcd-12ab-34cd-56ef-1234567890ab"), Ok(KeyName::Short(_))));
        for slip in ["", "app", "alias/", "alias/a b", "alias/a:b", "arn:aws:kms:us-east-1:1:alias/x", "key/x"] {
            let error = KeyName::parse(slip).unwrap_err();
            assert_eq!(error.code(), Some("ValidationException"), "{slip}");
        }
    }
}
