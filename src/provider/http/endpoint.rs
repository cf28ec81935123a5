//! The address of a KMS: TLS, or this very machine, or the user's word for it.

use crate::error::{Error, Result};
use http::Uri;

/// An address that requests may be sent to: scheme, host, port and perhaps a path. Without user, password, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    text: String,
}

impl Endpoint {
    /// Takes `text` if it is `https:`, or `http:` to this machine, or if `plain` allows any `http:`.
    ///
    /// # Errors
    /// Kind InvalidInput for anything else. The text is not repeated whole where it may hold a password.
    pub(crate) fn parse(text: &str, plain: bool) -> Result<Self> {
        let bad = |why: &str| {
            Err(Error::invalid_input(format!("the address of the KMS {why}"))
                .with_advice("give it as https://HOST[:PORT]"))
        };
        if text.contains('@') {
            return bad("holds a user or password, which would end up in logs");
        }
        if text.contains(['?', '#']) {
            return bad("has a query or a fragment");
        }
        let Ok(uri) = text.parse::<Uri>() else { return bad("is not an address") };
        let Some(host) = uri.host() else { return bad("names no host") };
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if plain || is_loopback(host) => {}
            Some("http") => return bad("is not encrypted (http:), and the host is not this machine"),
            _ => return bad("is neither https: nor http:"),
        }
        Ok(Self { text: text.trim_end_matches('/').to_owned() })
    }

    /// The address, without a slash at its end: what paths are appended to, and what identities and errors show.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
