use bytes::Bytes;
use rekindle_device::{FetchError, Framing};

use crate::fetch::client;
use crate::server::{Server, answer};

const BACKUP: &[u8] = b"config change UP1 /url http://a/\r\n";

#[tokio::test]
async fn both_framings_carry_the_whole_body() {
    let server = Server::start(|_| answer("201 Created", "", b"")).await;
    for framing in [Framing::Length, Framing::Chunked] {
        let body = Bytes::from_static(BACKUP);
        let status = client()
            .put(&server.url("/backup.txt"), body, framing)
            .await
            .unwrap();
        assert_eq!(status, 201);
    }
    let requests = server.requests();
    assert_eq!(requests[0].line(), "PUT /backup.txt HTTP/1.1");
    assert_eq!(requests[0].header("content-length"), Some("34"));
    assert_eq!(requests[0].body, BACKUP);
    assert_eq!(requests[1].header("transfer-encoding"), Some("chunked"));
    assert_eq!(requests[1].header("content-length"), None);
    let chunk = [b"22\r\n", BACKUP, b"\r\n0\r\n\r\n"].concat();
    assert_eq!(requests[1].body, chunk);
}

#[tokio::test]
async fn only_redirects_that_keep_the_method_are_followed() {
    let server = Server::start(|request| match request.line() {
        "PUT /kept HTTP/1.1" => answer("307 Temporary Redirect", "Location: /new\r\n", b""),
        "PUT /lost HTTP/1.1" => answer("302 Found", "Location: /new\r\n", b""),
        _ => answer("200 OK", "", b"# saving"),
    })
    .await;
    for framing in [Framing::Length, Framing::Chunked] {
        let body = Bytes::from_static(BACKUP);
        let status = client()
            .put(&server.url("/kept"), body, framing)
            .await
            .unwrap();
        assert_eq!(status, 200);
    }
    assert_eq!(server.requests()[1].body, BACKUP);
    let lost = client()
        .put(
            &server.url("/lost"),
            Bytes::from_static(BACKUP),
            Framing::Length,
        )
        .await
        .unwrap_err();
    assert!(matches!(lost, FetchError::Status(302)), "{lost:?}");
}

#[tokio::test]
async fn a_refused_upload_says_its_status() {
    let server = Server::start(|_| answer("405 Method Not Allowed", "", b"")).await;
    let body = Bytes::from_static(BACKUP);
    let error = client()
        .put(&server.url("/x"), body, Framing::Length)
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.retryable()), (405, false));
}
