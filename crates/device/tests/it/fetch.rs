use core::time::Duration;

use rekindle_device::{
    Client, ClientOptions, Clock, FetchError, Fetched, SCRIPT_LIMIT, Validators,
};

use crate::server::{Reply, Server, answer, raw};

pub(crate) fn client() -> Client {
    client_with(|_| ())
}

/// A client for servers that say nothing: it gives up soon.
pub(crate) fn impatient() -> Client {
    client_with(|options| {
        options.idle_timeout = Duration::from_millis(300);
        options.small_timeout = Duration::from_secs(1);
    })
}

pub(crate) fn client_with(change: impl FnOnce(&mut ClientOptions)) -> Client {
    let mut options = ClientOptions::default();
    change(&mut options);
    Client::new(&options, &Clock::new(None)).unwrap()
}

async fn fetch(server: &Server) -> Result<Fetched, FetchError> {
    let known = Validators::default();
    client()
        .fetch_small(&server.url("/script"), SCRIPT_LIMIT, &known)
        .await
}

async fn fetch_error(reply: impl Fn() -> Reply + Send + Sync + 'static) -> FetchError {
    let server = Server::start(move |_| reply()).await;
    fetch(&server).await.unwrap_err()
}

#[tokio::test]
async fn keeps_validators_and_asks_with_them() {
    let server = Server::start(|request| match request.header("if-none-match") {
        Some("\"v1\"") => answer("304 Not Modified", "", b""),
        _ => answer(
            "200 OK",
            "ETag: \"v1\"\r\nLast-Modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n",
            b"# a script\r\n",
        ),
    })
    .await;
    let client = client();
    let url = server.url("/script");
    let Fetched::Body { bytes, validators } = client
        .fetch_small(&url, SCRIPT_LIMIT, &Validators::default())
        .await
        .unwrap()
    else {
        panic!("expected a body");
    };
    assert_eq!(&bytes[..], b"# a script\r\n");
    assert_eq!(validators.etag.as_deref(), Some("\"v1\""));
    let again = client
        .fetch_small(&url, SCRIPT_LIMIT, &validators)
        .await
        .unwrap();
    assert_eq!(again, Fetched::NotModified);
    let requests = server.requests();
    assert_eq!(
        requests[1].header("if-modified-since"),
        Some("Sun, 01 Nov 2026 00:00:00 GMT")
    );
    assert_eq!(requests[0].header("accept-encoding"), None);
    assert_eq!(requests[0].header("if-none-match"), None);
}

#[tokio::test]
async fn no_content_is_no_error_and_an_unasked_304_is() {
    let server = Server::start(|request| match request.number {
        0 => Reply::Bytes(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()),
        _ => answer("304 Not Modified", "", b""),
    })
    .await;
    assert_eq!(fetch(&server).await.unwrap(), Fetched::NoContent);
    assert!(matches!(fetch(&server).await, Err(FetchError::Status(304))));
}

#[tokio::test]
async fn a_status_is_kept_for_the_texts_of_the_field() {
    for (line, code, retryable) in [
        ("404 Not Found", 404, false),
        ("401 Unauthorized", 401, false),
        ("500 Internal Server Error", 500, true),
        ("206 Partial Content", 206, false),
    ] {
        let error = fetch_error(move || answer(line, "", b"sorry")).await;
        assert_eq!(
            (error.code(), error.retryable()),
            (code, retryable),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_by_its_length_and_by_its_bytes() {
    let promised = fetch_error(|| Reply::Bytes(raw("200 OK", "", (1 << 20) + 1, b""))).await;
    assert!(
        matches!(
            promised,
            FetchError::TooLong {
                limit: SCRIPT_LIMIT
            }
        ),
        "{promised:?}"
    );
    let endless = fetch_error(|| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let part = [b"1000\r\n".as_slice(), &[b' '; 0x1000], b"\r\n"].concat();
        Reply::Endless(head, part)
    })
    .await;
    assert!(
        matches!(
            endless,
            FetchError::TooLong {
                limit: SCRIPT_LIMIT
            }
        ),
        "{endless:?}"
    );
    assert!(!endless.retryable());
}

#[tokio::test]
async fn a_body_shorter_than_promised_is_a_cut() {
    let error = fetch_error(|| Reply::Bytes(raw("200 OK", "", 100, b"only this"))).await;
    assert!(
        matches!(error, FetchError::Cut { received: 9, .. }),
        "{error:?}"
    );
    assert!(error.retryable());
    assert_eq!(error.code(), 502);
    let chunked = fetch_error(|| {
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmod \r\n".to_vec())
    })
    .await;
    assert!(
        matches!(chunked, FetchError::Cut { received: 4, .. }),
        "{chunked:?}"
    );
}

#[tokio::test]
async fn what_comes_behind_the_promised_length_is_no_part_of_the_body() {
    let server = Server::start(|_| Reply::Bytes(raw("200 OK", "", 4, b"# ok and more"))).await;
    let Fetched::Body { bytes, .. } = fetch(&server).await.unwrap() else {
        panic!("expected a body");
    };
    assert_eq!(&bytes[..], b"# ok");
}

#[tokio::test]
async fn silence_and_a_trickle_both_end() {
    async fn impatient_error(reply: impl Fn() -> Reply + Send + Sync + 'static) -> FetchError {
        let server = Server::start(move |_| reply()).await;
        let known = Validators::default();
        let url = server.url("/script");
        let fetched = impatient().fetch_small(&url, SCRIPT_LIMIT, &known).await;
        fetched.unwrap_err()
    }
    let silent = impatient_error(|| Reply::Hang(Vec::new())).await;
    assert!(matches!(silent, FetchError::Idle(_)), "{silent:?}");
    let stalled = impatient_error(|| Reply::Hang(raw("200 OK", "", 100, b"mod"))).await;
    assert!(matches!(stalled, FetchError::Idle(_)), "{stalled:?}");
    let drip = impatient_error(|| {
        let head = raw("200 OK", "", 100_000, b"");
        Reply::Drip(head, b"x".to_vec(), Duration::from_millis(50))
    })
    .await;
    assert!(matches!(drip, FetchError::TimedOut(_)), "{drip:?}");
    assert!(drip.retryable());
}

#[tokio::test]
async fn redirects_are_followed_with_their_query_and_a_loop_ends() {
    let server = Server::start(|request| {
        let to = match request.line() {
            "GET /script HTTP/1.1" => "/b?x=1",
            "GET /b?x=1 HTTP/1.1" => return answer("200 OK", "", b"# there"),
            _ => "/loop",
        };
        answer("302 Found", &format!("Location: {to}\r\n"), b"#")
    })
    .await;
    let Fetched::Body { bytes, .. } = fetch(&server).await.unwrap() else {
        panic!("expected a body");
    };
    assert_eq!(&bytes[..], b"# there");
    let before = server.requests().len();
    let known = Validators::default();
    let looped = client().fetch_small(&server.url("/loop"), 10, &known).await;
    assert!(
        matches!(looped, Err(FetchError::TooManyRedirects { limit: 10 })),
        "{looped:?}"
    );
    assert_eq!(server.requests().len() - before, 11);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_refused() {
    for headers in [
        "",
        "Location: ftp://a/b\r\n",
        "Location: file:///etc/passwd\r\n",
    ] {
        let error = fetch_error(move || answer("301 Moved", headers, b"")).await;
        assert!(
            matches!(error, FetchError::BadRedirect),
            "{headers:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let error = fetch_error(|| answer("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b")).await;
    assert!(matches!(error, FetchError::Encoded), "{error:?}");
}

#[tokio::test]
async fn what_is_no_http_server_has_its_own_errors() {
    let spoken = fetch_error(|| Reply::Bytes(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())).await;
    assert!(matches!(spoken, FetchError::Exchange(_)), "{spoken:?}");
    let closed = fetch_error(|| Reply::Bytes(Vec::new())).await;
    assert!(matches!(closed, FetchError::Exchange(_)), "{closed:?}");
    let known = Validators::default();
    // Port 1 of loopback: nobody listens there.
    let refused = client()
        .fetch_small("http://127.0.0.1:1/", 10, &known)
        .await
        .unwrap_err();
    assert!(matches!(refused, FetchError::Connect(_)), "{refused:?}");
    let source = core::error::Error::source(&refused).unwrap().to_string();
    assert!(
        source.contains("refused") && !source.contains("127.0.0.1"),
        "{source}"
    );
    for url in ["", "script", "ftp://a/", "http://", "http://[::1"] {
        let error = client().fetch_small(url, 10, &known).await.unwrap_err();
        assert!(matches!(error, FetchError::BadUrl), "{url:?}: {error:?}");
        assert_eq!(error.code(), 502);
    }
}
