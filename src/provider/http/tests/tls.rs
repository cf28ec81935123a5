//! The transport and TLS: whom it trusts, and who it says it is.

use super::server::{Server, read_request};
use super::sockets::{limits, send};
use crate::error::ErrorKind;
use crate::provider::http::reqwest::ReqwestTransport;
use crate::provider::http::setup::ReqwestTransportBuilder;
use crate::provider::http::transport::TransportFailure;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::Write;
use std::sync::Arc;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/", $name, ".pem"))
    };
}

#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Nobody,
    ForACertificate,
}

/// A server with this certificate and key.
fn server(pem: &str, asks: Asks) -> Server {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match asks {
        Asks::Nobody => builder.with_no_client_auth(),
        Asks::ForACertificate => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(pem!("root").as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    let config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = Arc::new(config);
    Server::new(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        while read_request(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
        // What the client did wrong is told it.
        let _ = stream.flush();
    })
}

fn direct() -> ReqwestTransportBuilder {
    ReqwestTransport::builder().without_proxy()
}

#[tokio::test]
async fn a_certificate_of_a_trusted_root_for_this_host_is_taken() {
    let server = server(pem!("server"), Asks::Nobody);
    for builder in [direct().only_roots(pem!("root")), direct().add_roots([pem!("other-root"), pem!("root")].concat())]
    {
        let transport = builder.build().unwrap();
        let answer = send(&transport, &server.url("https"), &limits()).await.unwrap();
        assert_eq!(answer.body().as_ref(), b"hello");
        let by_name = format!("https://localhost:{}/", server.address.port());
        send(&transport, &by_name, &limits()).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_root_another_host_and_no_tls_at_all_are_failures_of_tls() {
    let (good, elsewhere) = (server(pem!("server"), Asks::Nobody), server(pem!("elsewhere"), Asks::Nobody));
    let (plain, _requests) = Server::answering("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
    // It answers before it has read anything that looks like a request.
    let blunt = Server::new(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
        std::thread::sleep(std::time::Duration::from_millis(500));
    });
    drop(plain);
    let cases = [
        (direct().only_roots(pem!("other-root")), good.url("https"), "UnknownIssuer"),
        (direct().only_roots(pem!("root")), elsewhere.url("https"), "not valid for name"),
        (direct().only_roots(pem!("root")), blunt.url("https"), "corrupt message"),
    ];
    for (builder, url, says) in cases {
        let error = send(&builder.build().unwrap(), &url, &limits()).await.unwrap_err();
        assert_eq!(error.failure(), TransportFailure::Tls, "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_systems_roots_are_trusted_unless_others_are_named() {
    let server = server(pem!("server"), Asks::Nobody);
    let system = direct().build().unwrap();
    let error = send(&system, &server.url("https"), &limits()).await.unwrap_err();
    assert_eq!(error.failure(), TransportFailure::Tls, "{error:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let server = server(pem!("server"), Asks::ForACertificate);
    let trusting = || direct().only_roots(pem!("root"));
    let known = trusting().identity(pem!("client")).build().unwrap();
    send(&known, &server.url("https"), &limits()).await.unwrap();
    let unknown = trusting().build().unwrap();
    let error = send(&unknown, &server.url("https"), &limits()).await.unwrap_err();
    assert_eq!(error.failure(), TransportFailure::Tls, "{error:?}");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}

#[test]
fn what_is_no_certificate_no_key_or_no_address_is_refused_and_not_repeated() {
    let key = pem!("client").split_once("-----BEGIN PRIVATE").unwrap().0;
    let bad = [
        direct().only_roots("hunter2"),
        direct().add_roots(""),
        direct().only_roots(pem!("root")).add_roots(pem!("other-root")),
        direct().identity("hunter2"),
        direct().identity(key),
        ReqwestTransport::builder().proxy("http://u:hunter2@"),
    ];
    for bad in bad {
        let error = bad.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}
