//! HTTPS against roots of our own, without anything of the system.

use alloc::sync::Arc;
use std::process::Command;
use std::sync::Mutex;

use rekindle_device::{Client, ClientError, ClientOptions, Clock, FetchError, Fetched, Validators};
use rekindle_state::UnixTime;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::fetch::client_with;
use crate::server::{Server, answer, connection};

struct Https {
    url: String,
    /// The PEM file of the root that signed the server's certificate.
    root: tempfile::NamedTempFile,
}

async fn https(name: &str) -> Https {
    https_with(name, "200 OK", "").await
}

/// An https server with a certificate of a fresh authority, valid from 2020 to 2060.
async fn https_with(name: &str, status: &'static str, headers: &'static str) -> Https {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), ca_certificate.pem()).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let seen = Mutex::new(Vec::new());
                    connection(stream, &seen, &|_| answer(status, headers, b"# safe")).await;
                }
            });
        }
    });
    Https {
        url: format!("https://127.0.0.1:{port}/script"),
        root,
    }
}

async fn fetch(client: &Client, url: &str) -> Result<Fetched, FetchError> {
    client.fetch_small(url, 100, &Validators::default()).await
}

fn with_root(server: &Https) -> Client {
    client_with(|options| options.roots = vec![server.root.path().to_owned()])
}

#[tokio::test]
async fn a_server_under_a_pinned_root_is_trusted() {
    let server = https("127.0.0.1").await;
    let Fetched::Body { bytes, .. } = fetch(&with_root(&server), &server.url).await.unwrap() else {
        panic!("expected a body");
    };
    assert_eq!(&bytes[..], b"# safe");
}

#[tokio::test]
async fn another_root_and_another_name_are_refused() {
    let server = https("127.0.0.1").await;
    let other = https("127.0.0.1").await;
    let error = fetch(&with_root(&other), &server.url).await.unwrap_err();
    assert!(matches!(error, FetchError::Connect(_)), "{error:?}");
    let named = https("elsewhere.example").await;
    let error = fetch(&with_root(&named), &named.url).await.unwrap_err();
    let source = core::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("not valid for name"), "{source}");
}

#[tokio::test]
async fn without_roots_https_is_refused_before_anything_is_sent() {
    let error = fetch(&client_with(|_| ()), "https://127.0.0.1:1/")
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::NoRoots), "{error:?}");
    assert_eq!(
        error.to_string(),
        "https needs `update.ca`: this device trusts no certificate authority"
    );
    let server =
        Server::start(|_| answer("302 Found", "Location: https://127.0.0.1:1/\r\n", b"")).await;
    let redirected = fetch(&client_with(|_| ()), &server.url("/"))
        .await
        .unwrap_err();
    assert!(matches!(redirected, FetchError::NoRoots), "{redirected:?}");
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_refused() {
    let plain = Server::start(|_| answer("200 OK", "", b"# not safe")).await;
    let location: &'static str = format!("Location: {}/\r\n", plain.url).leak();
    let server = https_with("127.0.0.1", "302 Found", location).await;
    let error = fetch(&with_root(&server), &server.url).await.unwrap_err();
    assert!(matches!(error, FetchError::RedirectToPlain), "{error:?}");
    assert_eq!(plain.requests().len(), 0);
}

#[tokio::test]
async fn certificates_are_checked_by_the_devices_clock() {
    let server = https("127.0.0.1").await;
    let mut options = ClientOptions::default();
    options.roots = vec![server.root.path().to_owned()];
    // 2065, after the certificate's end; the system's clock is before it.
    let clock = Clock::new(Some(UnixTime::new(3_000_000_000)));
    let client = Client::new(&options, &clock).unwrap();
    let error = fetch(&client, &server.url).await.unwrap_err();
    let source = core::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("expired"), "{source}");
}

#[test]
fn files_without_certificates_are_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for content in [
        "",
        "no pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(file.path(), content).unwrap();
        let mut options = ClientOptions::default();
        options.roots = vec![file.path().to_owned()];
        let error = Client::new(&options, &Clock::new(None)).unwrap_err();
        assert!(
            matches!(error, ClientError::BadRoots { .. }),
            "{content:?}: {error:?}"
        );
    }
    let mut options = ClientOptions::default();
    options.roots = vec!["/nonexistent/ca.pem".into()];
    let error = Client::new(&options, &Clock::new(None)).unwrap_err();
    assert!(matches!(error, ClientError::Read { .. }), "{error:?}");
}

/// reqwest #2988: its own set-up of TLS fails on a system without certificates, even for http.
/// This test runs itself in a process that finds none.
#[test]
fn a_client_needs_no_certificates_of_the_system() {
    const CHILD: &str = "tls::runs_in_a_process_without_certificates";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored"])
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "run by a_client_needs_no_certificates_of_the_system in a process of its own"]
async fn runs_in_a_process_without_certificates() {
    assert_eq!(std::env::var("SSL_CERT_FILE").unwrap(), "/nonexistent");
    let plain = Server::start(|_| answer("200 OK", "", b"# plain")).await;
    let fetched = fetch(&client_with(|_| ()), &plain.url("/")).await.unwrap();
    assert!(matches!(fetched, Fetched::Body { .. }));
    let server = https("127.0.0.1").await;
    let fetched = fetch(&with_root(&server), &server.url).await.unwrap();
    assert!(matches!(fetched, Fetched::Body { .. }));
}
