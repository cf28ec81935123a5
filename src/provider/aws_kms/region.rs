//! Where the KMS of a Region is: partitions, FIPS and dual-stack addresses, and addresses that the user gives.

use super::arn::is_region;
use super::surroundings::Environment;
use crate::error::{Error, Result};
use crate::provider::http::endpoint::Endpoint;

/// How the address of a Region's KMS is found.
#[derive(Clone, Debug, Default)]
pub(super) struct Addressing {
    /// An address for every Region.
    pub(super) given: Option<String>,
    /// The variable that gives it, if one does.
    pub(super) given_by: Option<String>,
    /// Whether the given address may be `http:` on another machine.
    pub(super) plain: bool,
    pub(super) fips: Option<bool>,
    pub(super) dual_stack: Option<bool>,
}

impl Addressing {
    /// What was not said comes from the environment: `AWS_ENDPOINT_URL_KMS`, `AWS_ENDPOINT_URL` (neither under
    /// `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`), `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT`.
    pub(super) fn filled_from(self, environment: &Environment) -> Self {
        let (given_by, given) = match self.given {
            Some(given) => (None, Some(given)),
            None => environment.endpoint_of("KMS").unzip(),
        };
        Self {
            given,
            given_by,
            plain: self.plain,
            fips: Some(self.fips.unwrap_or_else(|| environment.says("AWS_USE_FIPS_ENDPOINT"))),
            dual_stack: Some(self.dual_stack.unwrap_or_else(|| environment.says("AWS_USE_DUALSTACK_ENDPOINT"))),
        }
    }

    /// The address of the KMS of `region`, in `partition` where that is known from an ARN.
    ///
    /// # Errors
    /// Kind InvalidInput if there is none, or not of the kind that is asked for.
    pub(super) fn endpoint(&self, partition: Option<&str>, region: &str) -> Result<Endpoint> {
        let (fips, dual_stack) = (self.fips == Some(true), self.dual_stack == Some(true));
        if let Some(given) = &self.given {
            if fips {
                return Err(Error::invalid_input("a FIPS endpoint is asked for, and an address is given as well")
                    .with_advice(
                        "give the FIPS endpoint's own address, or take AWS_ENDPOINT_URL_KMS and AWS_ENDPOINT_URL away",
                    ));
            }
            let name = self.given_by.as_deref().unwrap_or("the address of the KMS");
            return Endpoint::named(name, given, self.plain);
        }
        if !is_region(region) {
            return Err(Error::invalid_input(format!("\"{}\" is no Region of AWS", region.escape_debug()))
                .with_advice("a Region has a name such as eu-central-1"));
        }
        let Some(known) = partition.map_or_else(|| Some(of_region(region)), named) else {
            let name = partition.unwrap_or_default();
            return Err(Error::invalid_input(format!("the addresses of the partition {name} are not known here"))
                .with_advice(
                    "give the address of its KMS (`endpoint`, AWS_ENDPOINT_URL_KMS), or use a newer envelock",
                ));
        };
        let suffix = match (dual_stack, known.dual_stack) {
            (false, _) => known.suffix,
            (true, Some(suffix)) => suffix,
            (true, None) => {
                let name = known.name;
                return Err(Error::invalid_input(format!("no dual-stack addresses are known of the partition {name}"))
                    .with_advice("give the address itself (`endpoint`, AWS_ENDPOINT_URL_KMS)"));
            }
        };
        let service = if fips { "kms-fips" } else { "kms" };
        Endpoint::named("the address of the KMS", &format!("https://{service}.{region}.{suffix}"), false)
    }
}

/// The Region that an address of AWS's own was made from.
pub(super) fn region_of_address(address: &str) -> Option<&str> {
    let host = address.strip_prefix("https://")?;
    let host = host.strip_prefix("kms.").or_else(|| host.strip_prefix("kms-fips."))?;
    let (region, suffix) = host.split_once('.')?;
    let is_awss = |partition: &Partition| partition.suffix == suffix || partition.dual_stack == Some(suffix);
    PARTITIONS.iter().any(is_awss).then_some(region)
}

/// A partition of AWS: Regions that share accounts and a DNS suffix.
#[derive(Debug, PartialEq, Eq)]
struct Partition {
    name: &'static str,
    /// What its Regions' names begin with.
    regions: &'static str,
    suffix: &'static str,
    dual_stack: Option<&'static str>,
}

fn named(name: &str) -> Option<&'static Partition> {
    PARTITIONS.iter().find(|partition| partition.name == name)
}

fn of_region(region: &str) -> &'static Partition {
    PARTITIONS
        .iter()
        .find(|partition| !partition.regions.is_empty() && region.starts_with(partition.regions))
        .unwrap_or(&COMMERCIAL)
}

const COMMERCIAL: Partition =
    Partition { name: "aws", regions: "", suffix: "amazonaws.com", dual_stack: Some("api.aws") };

/// After the list of partitions that AWS's SDKs are built from (`partitions.json` of botocore).
const PARTITIONS: &[Partition] = &[
    COMMERCIAL,
    Partition {
        name: "aws-cn",
        regions: "cn-",
        suffix: "amazonaws.com.cn",
        dual_stack: Some("api.amazonwebservices.com.cn"),
    },
    Partition {
        name: "aws-eusc",
        regions: "eusc-",
        suffix: "amazonaws.eu",
        dual_stack: Some("api.amazonwebservices.eu"),
    },
    Partition { name: "aws-us-gov", regions: "us-gov-", suffix: "amazonaws.com", dual_stack: Some("api.aws") },
    Partition { name: "aws-iso", regions: "us-iso-", suffix: "c2s.ic.gov", dual_stack: None },
    Partition { name: "aws-iso-b", regions: "us-isob-", suffix: "sc2s.sgov.gov", dual_stack: None },
    Partition { name: "aws-iso-e", regions: "eu-isoe-", suffix: "cloud.adc-e.uk", dual_stack: None },
    Partition { name: "aws-iso-f", regions: "us-isof-", suffix: "csp.hci.ic.gov", dual_stack: None },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addressing: &Addressing, partition: Option<&str>, region: &str) -> String {
        addressing.endpoint(partition, region).map(|it| it.as_str().to_owned()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn each_partition_has_its_suffix() {
        let plain = Addressing::default();
        for (region, host) in [
            ("eu-central-1", "https://kms.eu-central-1.amazonaws.com"),
            ("cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "https://kms.us-gov-west-1.amazonaws.com"),
            ("us-iso-east-1", "https://kms.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "https://kms.us-isob-east-1.sc2s.sgov.gov"),
            ("eu-isoe-west-1", "https://kms.eu-isoe-west-1.cloud.adc-e.uk"),
            ("us-isof-south-1", "https://kms.us-isof-south-1.csp.hci.ic.gov"),
            ("eusc-de-east-1", "https://kms.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(at(&plain, None, region), host);
        }
        assert!(at(&plain, Some("aws-moon"), "moon-1").contains("partition aws-moon"));
        assert!(at(&plain, None, "evil.example/").contains("no Region"));
    }

    #[test]
    fn fips_and_dual_stack_have_hosts_of_their_own() {
        let fips = Addressing { fips: Some(true), ..Addressing::default() };
        assert_eq!(at(&fips, Some("aws"), "us-east-1"), "https://kms-fips.us-east-1.amazonaws.com");
        let both = Addressing { dual_stack: Some(true), ..fips.clone() };
        assert_eq!(at(&both, Some("aws"), "us-east-1"), "https://kms-fips.us-east-1.api.aws");
        let dual = Addressing { dual_stack: Some(true), ..Addressing::default() };
        assert_eq!(at(&dual, None, "cn-north-1"), "https://kms.cn-north-1.api.amazonwebservices.com.cn");
        assert!(at(&dual, None, "us-iso-east-1").contains("no dual-stack"));
        let given = Addressing { given: Some("https://kms.example".into()), ..fips };
        assert!(at(&given, None, "us-east-1").contains("FIPS"));
    }

    #[test]
    fn the_environment_gives_an_address_unless_it_says_to_ignore_it() {
        let with = |vars: &[(&str, &str)]| Addressing::default().filled_from(&Environment::of(vars.iter().copied()));
        let kms = ("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:4566/");
        let all = ("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
        assert_eq!(at(&with(&[kms, all]), None, "us-east-1"), "http://127.0.0.1:4566");
        assert_eq!(at(&with(&[all]), None, "us-east-1"), "http://127.0.0.1:1");
        let ignored = with(&[kms, all, ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")]);
        assert_eq!(at(&ignored, None, "us-east-1"), "https://kms.us-east-1.amazonaws.com");
        let fips = with(&[("AWS_USE_FIPS_ENDPOINT", "True"), ("AWS_USE_DUALSTACK_ENDPOINT", "false")]);
        assert_eq!(at(&fips, None, "us-east-1"), "https://kms-fips.us-east-1.amazonaws.com");
        let off = Addressing { fips: Some(false), ..Addressing::default() };
        let off = off.filled_from(&Environment::of([("AWS_USE_FIPS_ENDPOINT", "true")]));
        assert_eq!(at(&off, None, "us-east-1"), "https://kms.us-east-1.amazonaws.com", "what was said stands");
        let remote = with(&[("AWS_ENDPOINT_URL", "http://kms.example")]);
        assert!(at(&remote, None, "us-east-1").contains("not encrypted"));
    }
}
