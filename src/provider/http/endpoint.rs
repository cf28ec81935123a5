//! The address of a KMS: TLS, or this very machine, or the user's word for it.

use crate::error::{Error, Result};
use http::Uri;

/// An address that requests may be sent to: scheme, host, port and perhaps a path. Without user, password, query or fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    text: String,
}

impl Endpoint {
    /// Takes `text`, which `name` says (a variable, for one), if it is `https:`, or `http:` to this machine, or if `plain` allows any `http:`.
    ///
    /// # Errors
    /// Kind InvalidInput for anything else. The text is not repeated whole where it may hold a password.
    pub(crate) fn named(name: &str, text: &str, plain: bool) -> Result<Self> {
        let bad = |why: &str| {
            Err(Error::invalid_input(format!("{name} {why}"))
                .with_advice("give it as https://HOST[:PORT], or, for this machine, as http://localhost[:PORT]"))
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
            Some("http") => {
                return bad(&format!("{} is not encrypted (http:), and the host is not this machine", shown(text)));
            }
            Some(_) => return bad(&format!("{} is neither https: nor http:", shown(text))),
            None => return bad(&format!("{} has no https:// before it", shown(text))),
        }
        Ok(Self { text: text.trim_end_matches('/').to_owned() })
    }

    /// The address, without a slash at its end: what paths are appended to, and what identities and errors show.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, without brackets, and the port, the scheme's own where none is given: what spans and metrics call the server.
    pub(crate) fn server(&self) -> (String, u16) {
        let uri = self.text.parse::<Uri>().unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        (host, port)
    }
}

/// What is refused, in brackets, unless it looks like a token of Vault's that was put in its place.
fn shown(text: &str) -> String {
    let is_token = ["s.", "b.", "r.", "hvs.", "hvb.", "hvr."].iter().any(|begin| text.starts_with(begin));
    let known: String = text.chars().take(64).collect();
    if is_token { "(not shown)".to_owned() } else { format!("({})", known.escape_debug()) }
}

/// Whether `host` is this machine, whatever its resolver says.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether `host` is reached without a proxy always: this machine, and the services on its own link that give an instance or a
/// container its credentials, in the clear (169.254.0.0/16, `fe80::/10`, AWS's `fd00:ec2::/32`). A proxy would see them, and answer
/// with credentials of its own.
pub(super) fn is_own(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let on_link = match bare.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_link_local(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_unicast_link_local() || ip.segments()[..2] == [0xFD00, 0x0EC2],
        Err(_) => false,
    };
    on_link || is_loopback(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_this_machine_and_what_the_user_allows_are_taken() {
        for good in ["https://kms.example", "HTTPS://kms.example:8200/v1", "http://127.0.0.1:1", "http://[::1]:8200"] {
            Endpoint::named("the address of the KMS", good, false).unwrap();
        }
        Endpoint::named("the address of the KMS", "http://localhost", false).unwrap();
        Endpoint::named("the address of the KMS", "http://kms.example", true).unwrap();
    }

    #[test]
    fn what_is_not_encrypted_not_an_address_or_would_show_a_secret_is_refused_and_not_repeated() {
        let bad = [
            "http://kms.example",
            "http://127.0.0.1.evil.example",
            "ftp://kms.example",
            "kms.example",
            "https://",
            "https://user:hunter2@kms.example",
            "https://kms.example/?token=hunter2",
            "https://kms.example/#hunter2",
            "",
        ];
        for bad in bad {
            let error = Endpoint::named("the address of the KMS", bad, false).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidInput, "{bad}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        // Not even where http: is allowed.
        Endpoint::named("the address of the KMS", "http://u:hunter2@kms.example", true).unwrap_err();
    }

    #[test]
    fn what_lacks_its_scheme_is_shown_with_the_name_of_who_gave_it() {
        let error = |text| Endpoint::named("VAULT_ADDR", text, false).unwrap_err().to_string();
        assert_eq!(
            error("127.0.0.1:8200"),
            "VAULT_ADDR (127.0.0.1:8200) has no https:// before it; give it as https://HOST[:PORT], or, for this machine, as \
             http://localhost[:PORT]"
        );
        assert!(error("localhost:4566").contains("VAULT_ADDR (localhost:4566) has no https://"));
        assert!(error("http://kms.example").contains("VAULT_ADDR (http://kms.example) is not encrypted"));
        assert!(error("ftp://kms.example").contains("VAULT_ADDR (ftp://kms.example) is neither"));
        for token in ["hvs.CAESIJplanted", "s.planted"] {
            assert!(!error(token).contains("planted"), "a token in the wrong variable");
        }
    }

    #[test]
    fn what_is_on_this_machine_or_its_own_link_is_known_by_its_address() {
        let own =
            ["localhost", "127.0.0.1", "[::1]", "169.254.169.254", "169.254.170.23", "[fd00:ec2::254]", "[fe80::1]"];
        assert!(own.iter().all(|host| is_own(host)));
        let others = ["kms.example", "169.254.169.254.evil.example", "10.0.0.1", "[fd00:ec3::254]", "[2001:db8::1]"];
        assert!(!others.iter().any(|host| is_own(host)));
    }

    #[test]
    fn the_server_is_a_host_and_a_port() {
        let server = |text| Endpoint::named("the address of the KMS", text, false).unwrap().server();
        assert_eq!(server("https://kms.example/v1/"), ("kms.example".into(), 443));
        assert_eq!(server("http://[::1]"), ("::1".into(), 80));
        assert_eq!(server("http://127.0.0.1:8200"), ("127.0.0.1".into(), 8200));
        assert_eq!(
            Endpoint::named("the address of the KMS", "https://kms.example/v1/", false).unwrap().as_str(),
            "https://kms.example/v1"
        );
    }
}
