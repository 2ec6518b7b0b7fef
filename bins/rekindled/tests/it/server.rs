//! Servers that misbehave: each leaves a clear status and the running slot as it was, and the agent
//! installs once the server is in order again.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};

use rekindle_image::Hash;

use crate::harness::{
    Device, Origin, Recipe, Reply, Request, Settings, answer, answer_with_length, script,
    serve_file,
};

/// A device, a server that can be told to misbehave, and the image that it should serve.
struct Case {
    origin: Origin,
    device: Device,
    old: Hash,
    image: Arc<Vec<u8>>,
}

impl Case {
    /// The server misbehaves with the image: `trick` answers all requests for it.
    fn of_image(trick: impl Fn(&Request, &[u8]) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |request, image, script| {
            if request.path == IMAGE {
                trick(request, image)
            } else {
                Reply::Bytes(serve_file(request, script, ""))
            }
        })
    }

    /// The server misbehaves with the script.
    fn of_script(trick: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        Self::start(move |_, _, _| trick())
    }

    fn start(trick: impl Fn(&Request, &[u8], &[u8]) -> Reply + Send + Sync + 'static) -> Self {
        let image = Arc::new(Recipe::new("1.0").bytes());
        let origin = Origin::start(|_| Reply::Bytes(Vec::new()));
        let text = script(&origin.url(IMAGE), "10");
        let served = Arc::clone(&image);
        origin.change(move |request| trick(request, &served, text.as_bytes()));
        let device = Device::started(&origin.url("/"), &Settings::default());
        Self {
            old: device.slot_hash('a'),
            origin,
            device,
            image,
        }
    }

    /// The line of the image says so.
    fn refused(self, text: &str) -> Self {
        self.device.wait_for_line(text);
        let notice = self.device.status()["last_error"]["text"].to_string();
        assert!(notice.contains("line 1, prot: "), "{notice}");
        self
    }

    /// The poll of the script says so.
    fn poll_failed(self, result: &str, text: &str) -> Self {
        self.device.wait_for(text, |status| {
            let detail = status["poll"]["detail"].as_str()?;
            (status["poll"]["result"] == result && detail.contains(text)).then_some(())
        });
        self
    }

    /// Nothing of the device has changed, and it works with a server in order.
    fn and_recovers(self) {
        assert_eq!(self.device.slot_hash('a'), self.old);
        assert!(!self.device.boot_record().is_trial());
        assert_eq!(self.device.resets(), 0);
        let text = script(&self.origin.url(IMAGE), "10");
        let image = Arc::clone(&self.image);
        self.origin.change(move |request| {
            Reply::Bytes(if request.path == IMAGE {
                serve_file(request, &image, "\"good\"")
            } else {
                serve_file(request, text.as_bytes(), "")
            })
        });
        self.installs();
    }

    fn installs(mut self) {
        self.device.wait_for_reset(1);
        assert_eq!(self.device.slot_hash('a'), self.old);
        assert_eq!(self.device.boot().to_string(), "B");
        self.device.wait_for("the confirm", |status| {
            (status["components"][0]["confirmed"] == "B").then_some(())
        });
    }
}

const IMAGE: &str = "/firmware/image.bin";

fn honest(request: &Request, image: &[u8]) -> Reply {
    Reply::Bytes(serve_file(request, image, "\"1\""))
}

/// Whether this is the request for what follows the opening.
fn is_load(request: &Request) -> bool {
    request.range.as_ref().is_some_and(|range| range.start > 0)
}

#[test]
fn a_body_cut_off_is_asked_for_again_from_where_it_ended() {
    let cuts = AtomicUsize::new(0);
    let case = Case::of_image(move |request, image| {
        let mut bytes = serve_file(request, image, "\"1\"");
        if is_load(request) && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
            bytes.truncate(200_000);
        }
        Reply::Bytes(bytes)
    });
    case.device.wait_for_reset(1);
    let requests = case.origin.requests();
    let starts: Vec<usize> = requests
        .iter()
        .filter(|request| request.path == IMAGE && is_load(request))
        .filter_map(|request| request.range.as_ref())
        .map(|range| range.start)
        .collect();
    assert_eq!(starts.len(), 3, "{starts:?}");
    for pair in starts.windows(2) {
        // Less than the 200000 by the head of the answer.
        let step = pair[1] - pair[0];
        assert!((199_000..200_000).contains(&step), "{starts:?}");
    }
    case.installs();
}

#[test]
fn a_server_that_always_cuts_before_the_first_byte_is_given_up() {
    Case::of_image(|request, image| {
        let mut bytes = serve_file(request, image, "\"1\"");
        if is_load(request) {
            let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
            bytes.truncate(head + 4);
        }
        Reply::Bytes(bytes)
    })
    .refused("failed(502): the image could not be fetched: the connection ended after 0 bytes of the body")
    .and_recovers();
}

#[test]
fn an_answer_that_promises_too_little_is_refused() {
    Case::of_image(|request, image| {
        if !is_load(request) {
            return honest(request, image);
        }
        let range = request.range.clone().unwrap();
        let (first, last, len) = (range.start, range.end - 1, image.len());
        let headers = format!("Content-Range: bytes {first}-{last}/{len}\r\nETag: \"1\"\r\n");
        let body = &image[range];
        Reply::Bytes(answer_with_length(
            "206 Partial Content",
            &headers,
            body.len() - 1000,
            body,
        ))
    })
    .refused("the server promises a body of")
    .and_recovers();
}

#[test]
fn an_answer_that_promises_too_much_is_refused() {
    Case::of_image(|request, image| {
        if !is_load(request) {
            return honest(request, image);
        }
        let range = request.range.clone().unwrap();
        let (first, last, len) = (range.start, range.end - 1, image.len());
        let headers = format!("Content-Range: bytes {first}-{last}/{len}\r\nETag: \"1\"\r\n");
        let body = &image[range];
        Reply::Hang(answer_with_length(
            "206 Partial Content",
            &headers,
            body.len() + 1000,
            body,
        ))
    })
    .refused("the server promises a body of")
    .and_recovers();
}

#[test]
fn a_whole_file_that_is_longer_than_its_image_is_refused() {
    Case::of_image(|_, image| {
        Reply::Hang(answer_with_length("200 OK", "", image.len() + 5000, image))
    })
    .refused("something was added at its end")
    .and_recovers();
}

#[test]
fn a_whole_file_that_is_shorter_than_its_image_is_refused() {
    Case::of_image(|_, image| Reply::Bytes(answer("200 OK", "", &image[..image.len() - 5000])))
        .refused("it is truncated")
        .and_recovers();
}

#[test]
fn a_server_without_ranges_is_read_from_start_to_end() {
    Case::of_image(|_, image| Reply::Bytes(answer("200 OK", "", image))).installs();
}

#[test]
fn a_server_that_stops_to_answer_ranges_is_refused() {
    Case::of_image(|request, image| {
        if is_load(request) {
            Reply::Bytes(answer("200 OK", "ETag: \"1\"\r\n", image))
        } else {
            honest(request, image)
        }
    })
    .refused("the server answered 200 to a range request")
    .and_recovers();
}

#[test]
fn an_answer_with_another_range_is_refused() {
    Case::of_image(|request, image| {
        let mut request = request.clone();
        if is_load(&request)
            && let Some(range) = &mut request.range
        {
            range.start += 4096;
        }
        honest(&request, image)
    })
    .refused("the server sent bytes")
    .and_recovers();
}

#[test]
fn an_image_that_changes_between_two_requests_is_not_mixed() {
    let other = Recipe::new("other").bytes();
    let case = Case::of_image(move |request, image| {
        if is_load(request) {
            Reply::Bytes(serve_file(request, &other, "\"2\""))
        } else {
            honest(request, image)
        }
    })
    .refused("the image on the server changed during the transfer");
    let insisted = case.origin.requests().into_iter().filter(is_load);
    for request in insisted {
        assert_eq!(request.if_range.as_deref(), Some("\"1\""));
    }
    case.and_recovers();
}

#[test]
fn an_image_of_no_bytes_is_refused() {
    Case::of_image(|_, _| Reply::Bytes(answer("200 OK", "", b"")))
        .refused("the image on the server is empty (0 bytes)")
        .and_recovers();
}

#[test]
fn an_image_of_no_bytes_on_a_server_with_ranges_is_refused() {
    Case::of_image(|_, _| {
        let headers = "Content-Range: bytes */0\r\n";
        Reply::Bytes(answer("416 Range Not Satisfiable", headers, b""))
    })
    .refused("the image on the server is empty (0 bytes)")
    .and_recovers();
}

#[test]
fn an_image_that_is_not_there_is_a_404() {
    Case::of_image(|_, _| Reply::Bytes(answer("404 Not Found", "", b"gone")))
        .refused("failed(404): the server answered with status 404")
        .and_recovers();
}

#[test]
fn a_server_error_is_a_500() {
    Case::of_image(|_, _| Reply::Bytes(answer("500 Internal Server Error", "", b"oops")))
        .refused("failed(500): the server answered with status 500")
        .and_recovers();
}

#[test]
fn a_loop_of_redirects_is_left() {
    Case::of_image(|_, _| {
        let headers = format!("Location: {IMAGE}\r\n");
        Reply::Bytes(answer("302 Found", &headers, b""))
    })
    .refused("more than 10 redirects in a row")
    .and_recovers();
}

#[test]
fn an_image_whose_body_never_ends_is_read_no_further_than_it_is_long() {
    Case::of_image(|request, image| {
        let Some(range) = request.range.clone() else {
            return honest(request, image);
        };
        let range = range.start..range.end.min(image.len());
        let (first, last, len) = (range.start, range.end - 1, image.len());
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{len}\r\n\
             ETag: \"1\"\r\nConnection: close\r\n\r\n"
        );
        let bytes = [head.as_bytes(), &image[range]].concat();
        Reply::Endless(bytes, vec![b'x'; 4096])
    })
    .installs();
}

#[test]
fn an_image_without_a_length_that_never_ends_is_refused() {
    Case::of_image(|_, _| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        Reply::Endless(head, vec![b'x'; 4096])
    })
    .refused("the server does not say how long the image is")
    .and_recovers();
}

#[test]
fn an_image_that_claims_an_endless_length_is_refused() {
    Case::of_image(|_, image| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 60);
        Reply::Endless([head.as_bytes(), image].concat(), vec![b'x'; 4096])
    })
    .refused("something was added at its end")
    .and_recovers();
}

#[test]
fn an_image_that_comes_to_a_standstill_is_given_up() {
    Case::of_image(|request, image| {
        let mut bytes = serve_file(request, image, "\"1\"");
        bytes.truncate(10_000);
        Reply::Hang(bytes)
    })
    .refused("the server sent nothing for 2 s")
    .and_recovers();
}

#[test]
fn a_script_that_is_not_there_is_a_404() {
    Case::of_script(|| Reply::Bytes(answer("404 Not Found", "", b"")))
        .poll_failed("failed(404)", "the server answered with status 404")
        .and_recovers();
}

#[test]
fn a_script_whose_body_is_cut_off_is_not_run() {
    Case::of_script(|| {
        // Cut after a whole line, which alone would be a script.
        Reply::Bytes(answer_with_length("200 OK", "", 5000, b"ireset\r\n"))
    })
    .poll_failed(
        "failed(502)",
        "the connection ended after 8 bytes of the body",
    )
    .and_recovers();
}

#[test]
fn a_script_that_never_ends_is_cut_at_its_limit() {
    Case::of_script(|| {
        let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        Reply::Endless(head, b"# more\n".repeat(1000))
    })
    .poll_failed("failed(502)", "the body is longer than 1048576 bytes")
    .and_recovers();
}

#[test]
fn a_script_that_comes_to_a_standstill_is_given_up() {
    Case::of_script(|| Reply::Hang(answer_with_length("200 OK", "", 5000, b"ireset\r\n")))
        .poll_failed("failed(502)", "the server sent nothing for 2 s")
        .and_recovers();
}

#[test]
fn a_script_behind_a_loop_of_redirects_is_not_run() {
    Case::of_script(|| Reply::Bytes(answer("302 Found", "Location: /again\r\n", b"ireset\r\n")))
        .poll_failed("failed(502)", "more than 10 redirects in a row")
        .and_recovers();
}

#[test]
fn a_server_that_speaks_no_http_is_not_understood() {
    Case::of_script(|| Reply::Bytes(b"220 smtp.example.org ESMTP\r\n".to_vec()))
        .poll_failed(
            "failed(502)",
            "the connection failed before the server answered",
        )
        .and_recovers();
}
