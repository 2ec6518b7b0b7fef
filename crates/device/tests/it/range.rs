use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use rekindle_device::{FetchError, RangeReader};

use crate::fetch::{client, client_with, impatient};
use crate::server::{Reply, Request, Server, answer, raw, serve_image};

const OPENING: u64 = 32 << 10;

fn image() -> Vec<u8> {
    (0..200_000_usize)
        .map(|index| u8::try_from(index / 3 % 251).unwrap())
        .collect()
}

async fn server(handler: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Server {
    let image = image();
    Server::start(move |request| handler(request, &image)).await
}

async fn open(server: &Server) -> Result<RangeReader, FetchError> {
    RangeReader::open(&client(), &server.url("/image")).await
}

async fn read(reader: &RangeReader, range: Range<u64>) -> Result<Vec<u8>, FetchError> {
    let mut body = reader.range(range).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn part(range: Range<usize>) -> Vec<u8> {
    image()[range].to_vec()
}

/// An honest first answer with a strong tag, then `second` for every later request.
async fn then(
    second: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static,
) -> (Server, RangeReader) {
    let server = server(move |request, image| match request.number {
        0 => serve_image(request, image, "ETag: \"v1\"\r\n"),
        _ => second(request, image),
    })
    .await;
    let reader = open(&server).await.unwrap();
    (server, reader)
}

async fn second_error(
    second: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static,
) -> FetchError {
    let (_server, reader) = then(second).await;
    read(&reader, 100_000..100_100).await.unwrap_err()
}

#[tokio::test]
async fn ranges_of_one_version_are_read_with_if_range() {
    let server = server(|request, image| serve_image(request, image, "ETag: \"v1\"\r\n")).await;
    let reader = open(&server).await.unwrap();
    assert_eq!(
        (reader.image_len(), reader.etag()),
        (200_000, Some("\"v1\""))
    );
    assert!(reader.is_ranged());
    assert_eq!(read(&reader, 0..100).await.unwrap(), part(0..100));
    assert_eq!(server.requests().len(), 1, "the opening is kept");
    assert_eq!(
        read(&reader, 150_000..200_000).await.unwrap(),
        part(150_000..200_000)
    );
    assert_eq!(
        read(&reader, 30_000..40_000).await.unwrap(),
        part(30_000..40_000)
    );
    assert_eq!(read(&reader, 7..7).await.unwrap(), b"");
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].range(), Some(0..32768));
    assert_eq!(requests[0].header("if-range"), None);
    assert_eq!(requests[1].range(), Some(150_000..200_000));
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
    assert_eq!(
        requests[2].range(),
        Some(32_768..40_000),
        "only what the opening lacks"
    );
    let beyond = read(&reader, 199_999..200_001).await.unwrap_err();
    assert!(
        matches!(beyond, FetchError::BeyondEnd { len: 200_000, .. }),
        "{beyond:?}"
    );
}

#[tokio::test]
async fn a_limit_counts_what_came_and_what_was_asked_for_and_is_never_passed() {
    let server = server(|request, image| serve_image(request, image, "ETag: \"v1\"\r\n")).await;
    let url = server.url("/image");
    let client = client();
    let open = |limit| RangeReader::open_within(&client, &url, Some(limit));
    let budget = |error| match error {
        FetchError::Budget { needed, limit } => (needed, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        budget(open(OPENING - 1).await.unwrap_err()),
        (OPENING, OPENING - 1)
    );
    assert_eq!(server.requests().len(), 0, "nothing was asked for");

    let reader = open(OPENING + 10_000).await.unwrap();
    assert_eq!(reader.at_hand(), OPENING);
    assert_eq!(read(&reader, 0..100).await.unwrap(), part(0..100));
    let under_way = reader.range(50_000..56_000).await.unwrap();
    let error = reader.range(60_000..64_001).await.unwrap_err();
    assert_eq!(budget(error), (OPENING + 10_001, OPENING + 10_000));
    drop(under_way);
    assert_eq!(
        read(&reader, 60_000..70_000).await.unwrap(),
        part(60_000..70_000)
    );
    let error = reader.range(70_000..70_001).await.unwrap_err();
    assert_eq!(budget(error), (OPENING + 10_001, OPENING + 10_000));
    assert_eq!(
        server.requests().len(),
        3,
        "what is too much is not asked for"
    );
}

#[tokio::test]
async fn a_small_image_fits_into_the_opening() {
    let server = Server::start(|request| serve_image(request, b"tiny", "")).await;
    let reader = open(&server).await.unwrap();
    assert_eq!(reader.image_len(), 4);
    assert_eq!(read(&reader, 0..4).await.unwrap(), b"tiny");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_empty_image_is_told_by_either_kind_of_server() {
    let with_200 = Server::start(|_| answer("200 OK", "", b"")).await;
    let with_416 = Server::start(|_| {
        answer(
            "416 Range Not Satisfiable",
            "Content-Range: bytes */0\r\n",
            b"",
        )
    })
    .await;
    for server in [with_200, with_416] {
        let error = open(&server).await.unwrap_err();
        assert!(matches!(error, FetchError::EmptyImage), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_without_ranges_is_read_forward_in_one_go() {
    let server = server(|_, image| answer("200 OK", "ETag: \"v1\"\r\n", image)).await;
    let reader = open(&server).await.unwrap();
    assert!(!reader.is_ranged());
    assert_eq!(read(&reader, 0..1000).await.unwrap(), part(0..1000));
    assert_eq!(
        read(&reader, 1000..50_000).await.unwrap(),
        part(1000..50_000)
    );
    assert_eq!(
        read(&reader, 60_000..200_000).await.unwrap(),
        part(60_000..200_000)
    );
    assert_eq!(server.requests().len(), 1);
    let back = read(&reader, 500..600).await.unwrap_err();
    assert!(matches!(back, FetchError::RangeIgnored), "{back:?}");
    assert_eq!(
        read(&reader, 0..500).await.unwrap(),
        part(0..500),
        "from the start it begins anew"
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_200_to_a_later_range_is_no_part_of_the_image() {
    let error = second_error(|_, image| answer("200 OK", "ETag: \"v1\"\r\n", image)).await;
    assert!(matches!(error, FetchError::RangeIgnored), "{error:?}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_changed_image_is_told_by_tag_length_and_206() {
    let by_tag = second_error(|_, image| answer("200 OK", "ETag: \"v2\"\r\n", image)).await;
    let by_len = second_error(|_, image| answer("200 OK", "", &image[1..])).await;
    let partial = second_error(|r, image| serve_image(r, image, "ETag: \"v2\"\r\n")).await;
    let longer = second_error(|request, image| {
        let longer = [image, b"more"].concat();
        serve_image(request, &longer, "ETag: \"v1\"\r\n")
    })
    .await;
    let shorter = second_error(|_, _| {
        answer(
            "416 Range Not Satisfiable",
            "Content-Range: bytes */10\r\n",
            b"",
        )
    })
    .await;
    for error in [by_tag, by_len, partial, longer, shorter] {
        assert!(matches!(error, FetchError::ImageChanged), "{error:?}");
        assert!(error.retryable());
    }
}

#[tokio::test]
async fn without_a_strong_tag_if_range_is_left_out_and_a_change_is_still_seen() {
    let tags = ["W/\"v1\"", "W/\"v1\"", "W/\"v2\""];
    let server = server(move |request, image| {
        let tag = format!("ETag: {}\r\n", tags[request.number]);
        serve_image(request, image, &tag)
    })
    .await;
    let reader = open(&server).await.unwrap();
    assert_eq!(reader.etag(), None);
    assert_eq!(
        read(&reader, 90_000..90_010).await.unwrap(),
        part(90_000..90_010)
    );
    assert_eq!(server.requests()[1].header("if-range"), None);
    let error = read(&reader, 90_000..90_010).await.unwrap_err();
    assert!(matches!(error, FetchError::ImageChanged), "{error:?}");
}

#[tokio::test]
async fn without_any_tag_last_modified_shows_a_change() {
    let server = server(|request, image| {
        let headers = format!(
            "Last-Modified: Sun, 0{} Nov 2026 00:00:00 GMT\r\n",
            1 + request.number
        );
        serve_image(request, image, &headers)
    })
    .await;
    let reader = open(&server).await.unwrap();
    let error = read(&reader, 90_000..90_010).await.unwrap_err();
    assert!(matches!(error, FetchError::ImageChanged), "{error:?}");
}

#[tokio::test]
async fn a_206_must_be_of_the_asked_range() {
    for sent in [
        "bytes 0-99/200000",
        "bytes 100000-100099/*",
        "bytes 100099-100000/200000",
        "pages 1-2/3",
    ] {
        let headers = format!("ETag: \"v1\"\r\nContent-Range: {sent}\r\n");
        let error =
            second_error(move |_, image| answer("206 Partial Content", &headers, &image[..100]))
                .await;
        assert!(
            matches!(&error, FetchError::WrongRange { sent: told, .. } if told == sent),
            "{error:?}"
        );
    }
    let multipart = second_error(|_, _| {
        let headers = "Content-Type: multipart/byteranges; boundary=x\r\n";
        answer("206 Partial Content", headers, b"--x--")
    })
    .await;
    assert!(
        matches!(multipart, FetchError::WrongRange { .. }),
        "{multipart:?}"
    );
}

#[tokio::test]
async fn a_content_length_that_contradicts_the_range_is_refused() {
    for (promised, expected) in [(99, 99_u64), (101, 101)] {
        let error = second_error(move |_, image| {
            let headers = "ETag: \"v1\"\r\nContent-Range: bytes 100000-100099/200000\r\n";
            Reply::Bytes(raw("206 Partial Content", headers, promised, &image[..100]))
        })
        .await;
        assert!(
            matches!(error, FetchError::WrongLength { promised: told, expected: 100 } if told == expected),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_cut_body_goes_on_where_it_ended() {
    let requests = AtomicUsize::new(0);
    let (_server, reader) = then(move |request, image| {
        let range = request.range().unwrap();
        let headers = format!(
            "ETag: \"v1\"\r\nContent-Range: bytes {}-{}/{}\r\n",
            range.start,
            range.end - 1,
            image.len()
        );
        let body = &image[range];
        let sent = if requests.fetch_add(1, Ordering::Relaxed) == 0 {
            60
        } else {
            body.len()
        };
        Reply::Bytes(raw(
            "206 Partial Content",
            &headers,
            body.len(),
            &body[..sent],
        ))
    })
    .await;
    let mut body = reader.range(100_000..100_100).await.unwrap();
    let mut bytes = Vec::new();
    let error = loop {
        match body.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => panic!("the body was cut"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, FetchError::Cut { received: 60, .. }),
        "{error:?}"
    );
    assert!(error.retryable());
    assert_eq!(body.position(), 100_060);
    bytes.extend(read(&reader, body.position()..100_100).await.unwrap());
    assert_eq!(bytes, part(100_000..100_100));
}

#[tokio::test]
async fn a_chunked_206_that_ends_early_is_a_cut_too() {
    let error = second_error(|_, _| {
        Reply::Bytes(
            b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nETag: \"v1\"\r\n\
              Content-Range: bytes 100000-100099/200000\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
                .to_vec(),
        )
    })
    .await;
    assert!(
        matches!(error, FetchError::Cut { received: 4, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_endless_body_gives_no_more_than_was_asked() {
    let (_server, reader) = then(|_, _| {
        let head =
            b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nETag: \"v1\"\r\n\
                     Content-Range: bytes 100000-100099/200000\r\n\r\n";
        Reply::Endless(
            head.to_vec(),
            b"40\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n".to_vec(),
        )
    })
    .await;
    assert_eq!(read(&reader, 100_000..100_100).await.unwrap().len(), 100);
    let server = Server::start(|_| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        Reply::Endless(head, b"4\r\nabcd\r\n".to_vec())
    })
    .await;
    let error = open(&server).await.unwrap_err();
    assert!(matches!(error, FetchError::NoLength), "{error:?}");
}

#[tokio::test]
async fn statuses_come_through_at_both_requests() {
    let server = Server::start(|_| answer("404 Not Found", "", b"")).await;
    let first = open(&server).await.unwrap_err();
    assert!(matches!(first, FetchError::Status(404)), "{first:?}");
    let later = second_error(|_, _| answer("500 Internal Server Error", "", b"")).await;
    assert!(matches!(later, FetchError::Status(500)), "{later:?}");
    assert!(later.retryable());
}

#[tokio::test]
async fn a_stalled_body_ends_by_itself() {
    let server = server(|request, image| match request.number {
        0 => serve_image(request, image, "ETag: \"v1\"\r\n"),
        _ => {
            let headers = "ETag: \"v1\"\r\nContent-Range: bytes 100000-100099/200000\r\n";
            Reply::Hang(raw("206 Partial Content", headers, 100, &image[..10]))
        }
    })
    .await;
    let url = server.url("/image");
    let reader = RangeReader::open(&impatient(), &url).await.unwrap();
    let stalled = read(&reader, 100_000..100_100).await.unwrap_err();
    assert!(matches!(stalled, FetchError::Idle(_)), "{stalled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_trickle_below_the_minimum_rate_ends_by_itself() {
    let server = server(|request, image| match request.number {
        0 => serve_image(request, image, "ETag: \"v1\"\r\n"),
        _ => {
            let headers = "ETag: \"v1\"\r\nContent-Range: bytes 32768-199999/200000\r\n";
            let head = raw("206 Partial Content", headers, 200_000 - 32_768, b"");
            Reply::Drip(head, vec![0; 100], Duration::from_secs(1))
        }
    })
    .await;
    let client = client_with(|options| options.idle_timeout = Duration::from_secs(20));
    let reader = RangeReader::open(&client, &server.url("/image"))
        .await
        .unwrap();
    let error = read(&reader, OPENING..200_000).await.unwrap_err();
    assert!(
        matches!(error, FetchError::TooSlow { minimum: 256 }),
        "{error:?}"
    );
    assert!(error.retryable());
}
