//! What kept an answer from coming, told from the errors of `reqwest`, `hyper`, `rustls` and the operating system.

use super::transport::{TransportError, TransportFailure};
use std::error::Error as StdError;
use std::io;

/// What `error` comes from.
///
/// The text is ours alone, and the source is without the address: a query may hold something secret.
pub(super) fn classify(error: ::reqwest::Error) -> TransportError {
    let error = error.without_url();
    let (failure, message) = judge(&error);
    TransportError::new(failure, message).with_source(error)
}

fn judge(error: &::reqwest::Error) -> (TransportFailure, String) {
    let say = |failure, text: &str| (failure, text.to_owned());
    if error.is_builder() {
        return say(TransportFailure::Unusable, "the request is not valid");
    }
    if error.is_connect() {
        if error.is_dns() {
            return say(TransportFailure::Dns, "the host's name has no address");
        }
        if let Some(tls) = find::<rustls::Error>(error) {
            return (TransportFailure::Tls, format!("TLS failed: {tls}"));
        }
        if error.is_timeout() {
            return say(TransportFailure::Connect, "no connection was made within its time");
        }
        return match find::<io::Error>(error).map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => say(TransportFailure::Connect, "the connection was refused"),
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                say(TransportFailure::Connect, "the host cannot be reached from here")
            }
            Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                say(TransportFailure::Connect, "the connection was closed before it was ready")
            }
            _ => say(TransportFailure::Connect, "no connection was made"),
        };
    }
    if error.is_timeout() {
        return say(TransportFailure::Timeout, "the answer was not there in time");
    }
    // In TLS 1.3 a server says only after the handshake that it does not take the client's certificate.
    if let Some(tls @ rustls::Error::AlertReceived(_)) = find::<rustls::Error>(error) {
        return (TransportFailure::Tls, format!("TLS failed: {tls}"));
    }
    match find::<hyper::Error>(error) {
        Some(http) if http.is_parse() => say(TransportFailure::NotHttp, "the answer is not HTTP"),
        // A chunk whose length is none.
        Some(http) if find::<io::Error>(http).is_some_and(is_garbled) => {
            say(TransportFailure::NotHttp, "the answer's body is not HTTP")
        }
        _ => say(TransportFailure::Broken, "the connection broke before the whole answer was there"),
    }
}

fn is_garbled(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
}

/// The first error of type `T` among `error` and its causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error's `source` is the source of what it holds, not what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_found_inside_an_io_error_too() {
        let inner = io::Error::other(rustls::Error::DecryptError);
        let outer = io::Error::other(inner);
        assert!(matches!(find::<rustls::Error>(&outer), Some(rustls::Error::DecryptError)));
        assert!(find::<hyper::Error>(&outer).is_none());
    }
}
