use core::time::Duration;

use rekindle_device::{LineResult, LineStatus, ServerLimits, Status, router, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

struct Page {
    address: core::net::SocketAddr,
    status: watch::Sender<Status>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn page(change: impl FnOnce(&mut ServerLimits)) -> Page {
    let mut limits = ServerLimits::default();
    change(&mut limits);
    let (status, shared) = watch::channel(Status::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve(listener, router(shared), limits, async {
        let _asked_or_dropped = stopped.await;
    }));
    Page {
        address,
        status,
        stop,
        task,
    }
}

async fn request(address: core::net::SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: core::net::SocketAddr, path: &str) -> String {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn the_json_shows_the_latest_value() {
    let page = page(|_| ()).await;
    let answer = get(page.address, "/status.json").await;
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert!(answer.contains("\"result\":\"not polled\""), "{answer}");
    page.status
        .send_modify(|status| "failed(404)".clone_into(&mut status.poll.result));
    let answer = get(page.address, "/status.json").await;
    assert!(answer.contains("\"result\":\"failed(404)\""), "{answer}");
}

#[tokio::test]
async fn the_page_escapes_what_comes_from_outside_and_loads_nothing() {
    let page = page(|_| ()).await;
    let hostile = "<script>alert('1')</script>&\"";
    page.status.send_modify(|status| {
        hostile.clone_into(&mut status.device.hardware_id);
        status
            .warnings
            .push("unsigned images are accepted".to_owned());
        status
            .lines
            .push(LineStatus::new(7, "prot", LineResult::Failed, hostile));
    });
    let answer = get(page.address, "/").await;
    assert!(
        answer.contains("content-security-policy: default-src 'none';"),
        "{answer}"
    );
    assert!(!answer.contains("<script"), "{answer}");
    assert!(answer.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"));
    assert!(answer.contains("Warning: unsigned images are accepted"));
    assert!(answer.contains("<meta http-equiv=\"refresh\" content=\"5\">"));
    for loading in ["src=", "url(", "@import", "<link"] {
        assert!(!answer.contains(loading), "{loading}");
    }
}

#[tokio::test]
async fn other_methods_and_paths_are_refused() {
    let page = page(|_| ()).await;
    assert!(
        get(page.address, "/../etc/passwd")
            .await
            .starts_with("HTTP/1.1 404")
    );
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert!(request(page.address, put).await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_half_sent_head_is_dropped_and_frees_its_place() {
    let page = page(|limits| {
        limits.connections = 1;
        limits.header_time = Duration::from_secs(1);
    })
    .await;
    let mut slow = TcpStream::connect(page.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), get(page.address, "/status.json"));
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_has_a_longest_life_and_stop_ends_the_server() {
    let page = page(|limits| limits.connection_time = Duration::from_millis(300)).await;
    let mut idle = TcpStream::connect(page.address).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await;
    assert_eq!(closed.unwrap().unwrap(), 0);
    page.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), page.task)
        .await
        .unwrap()
        .unwrap();
}
