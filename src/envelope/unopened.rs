//! What a reader is told where keys were tried, and none opened the message.

use crate::error::{Error, ErrorKind};
use crate::native::slots::PASSPHRASE;
use crate::provider::{Recipient, Recipients};

/// Providers whose keys somebody else keeps, under names that may come to mean another key.
const REMOTE: [&str; 2] = ["vault", "aws-kms"];

/// The error of kind AuthenticationFailed: which slots were tried, and what may be wrong with such. Which check failed is
/// nobody's business: a slot's own, or the head's tag. Without a slot that was tried it says what may be wrong with any.
pub(crate) fn none_opened(tried: Vec<Recipient>, has_unstored_context: bool) -> Error {
    if tried.is_empty() {
        return Error::not_opened();
    }
    let has = |what: &dyn Fn(&str) -> bool| tried.iter().any(|slot| what(&slot.provider));
    let passphrase = has(&|provider| provider == PASSPHRASE);
    let remote = has(&|provider| REMOTE.contains(&provider));
    let key = has(&|provider| provider != PASSPHRASE && !REMOTE.contains(&provider));
    let mut causes = Vec::new();
    causes.extend(match (passphrase, key) {
        (true, true) => Some("the passphrase or key is not the one that it was encrypted with"),
        (true, false) => Some("the passphrase is not the one that it was encrypted with"),
        (false, true) => Some("the key is not the one that it was encrypted with"),
        (false, false) => None,
    });
    if remote {
        causes.push("this is another cluster or account than the one that has its key");
        causes.push("that key was made anew under its name");
    }
    if has_unstored_context {
        causes.push("the unstored context is another");
    }
    let again = if remote { "" } else { ": try again with the right one" };
    let advice = format!("{}, or its head was changed{again}", causes.join(", "));
    let tried = Recipients(tried);
    Error::new(
        ErrorKind::AuthenticationFailed,
        format!("none of the keys that were tried opened this message: {tried}"),
    )
    .with_advice(advice)
    .with_source(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(tried: &[(&str, &str)], has_unstored_context: bool) -> String {
        let tried = tried.iter().map(|(provider, key)| Recipient::new(*provider, *key)).collect();
        none_opened(tried, has_unstored_context).to_string()
    }

    #[test]
    fn the_keys_that_were_tried_are_named_and_the_advice_is_about_such_keys() {
        assert_eq!(
            said(&[("passphrase", "")], false),
            "none of the keys that were tried opened this message: passphrase:; the passphrase is not the one that it was \
             encrypted with, or its head was changed: try again with the right one"
        );
        let text = said(&[("vault", "transit/orders")], false);
        assert!(text.contains("message: vault:transit/orders; this is another cluster or account"), "{text}");
        assert!(text.contains("made anew under its name") && !text.contains("passphrase"), "{text}");
        assert!(!text.contains("unstored"), "{text}");
        let text = said(&[("raw", "a"), ("passphrase", ""), ("aws-kms", "arn")], true);
        assert!(
            text.contains("the passphrase or key is not the one") && text.contains("another cluster or account"),
            "{text}"
        );
        assert!(text.contains("the unstored context is another"), "{text}");
        assert!(!said(&[("raw", "a")], false).contains("passphrase"));
    }

    #[test]
    fn a_strangers_key_names_do_not_flood_it() {
        let long = "x\u{1b}".repeat(4_000);
        let tried: Vec<_> = (0..20).map(|_| ("elsewhere", long.as_str())).collect();
        let text = said(&tried, true);
        assert!(text.len() < 1_200 && text.contains("and 16 more") && !text.contains('\u{1b}'), "{text}");
    }
}
