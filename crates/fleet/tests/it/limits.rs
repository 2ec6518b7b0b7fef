use core::time::Duration;
use std::time::Instant;

use rekindle_fleet::{BindError, Config, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Reply, Site, in_time, pattern};

fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "the limits of real sockets are in real time"
    )]
    Instant::now()
}

#[tokio::test]
async fn a_head_that_never_ends_is_ended() {
    let site =
        Site::start_with(|config| config.limits.header_time = Duration::from_millis(300)).await;
    for first in ["", "GET /scripts/a.htm HTTP/1.1\r\n"] {
        let since = now();
        let mut stream = site.connect().await;
        stream.write_all(first.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if !first.is_empty() && write.write_all(b"X: y\r\n").await.is_err() {
                    core::future::pending::<()>().await;
                }
            }
        };
        let mut rest = Vec::new();
        tokio::select! {
            _ = in_time(read.read_to_end(&mut rest)) => {}
            () = drip => {}
        }
        assert!(since.elapsed() < Duration::from_secs(5), "{first:?}");
        assert!(since.elapsed() >= Duration::from_millis(250), "{first:?}");
    }
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let site = Site::start().await;
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let mut stream = site.connect().await;
    let _ = stream.write_all(head.as_bytes()).await;
    let mut all = Vec::new();
    let _ = in_time(stream.read_to_end(&mut all)).await;
    assert!(all.is_empty() || Reply::parse(&all).status == 431);
}

#[tokio::test]
async fn an_upload_that_stalls_or_trickles_is_ended_and_leaves_nothing() {
    let site = Site::start_with(|config| {
        config.limits.idle_time = Duration::from_millis(400);
        config.limits.rate_window = Duration::from_secs(1);
        config.limits.min_rate = 1000;
    })
    .await;
    for pause in [Duration::from_secs(3600), Duration::from_millis(50)] {
        let mut stream = site.connect().await;
        let head = "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let drip = async {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(pause).await;
            }
            core::future::pending::<()>().await;
        };
        let mut all = Vec::new();
        tokio::select! {
            _ = in_time(read.read_to_end(&mut all)) => {}
            () = drip => {}
        }
        assert_eq!(Reply::parse(&all).status, 408, "{pause:?}");
        assert!(site.names("backups").is_empty());
    }
}

#[tokio::test]
async fn an_upload_that_keeps_its_pace_still_ends_with_its_time() {
    let site =
        Site::start_with(|config| config.limits.upload_time = Duration::from_millis(500)).await;
    let mut stream = site.connect().await;
    let head = "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let send = async {
        while write.write_all(&[0; 1000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        core::future::pending::<()>().await;
    };
    let mut all = Vec::new();
    tokio::select! {
        _ = in_time(read.read_to_end(&mut all)) => {}
        () = send => {}
    }
    assert_eq!(Reply::parse(&all).status, 408);
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_connection() {
    let site =
        Site::start_with(|config| config.limits.idle_time = Duration::from_millis(300)).await;
    let len = 64 << 20;
    site.write("firmware/a.bin", vec![0; len]);
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /firmware/a.bin HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut all = Vec::new();
    let _ = in_time(stream.read_to_end(&mut all)).await;
    assert!(all.len() < len, "it was cut off, {} bytes came", all.len());
}

#[tokio::test]
async fn a_slow_client_that_keeps_reading_gets_everything() {
    let site = Site::start_with(|config| {
        config.limits.idle_time = Duration::from_millis(1000);
        config.limits.rate_window = Duration::from_millis(1000);
    })
    .await;
    let content = pattern(6 << 20);
    site.write("firmware/a.bin", &content);
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /firmware/a.bin HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut all = Vec::new();
    let mut piece = vec![0; 128 * 1024];
    loop {
        let read = in_time(stream.read(&mut piece)).await.unwrap();
        if read == 0 {
            break;
        }
        all.extend_from_slice(&piece[..read]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(Reply::parse(&all).body == content);
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_its_turn() {
    let site = Site::start_with(|config| config.limits.connections = 2).await;
    site.write("scripts/a.htm", "x");
    let request = b"GET /scripts/a.htm HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (first, second) = (site.connect().await, site.connect().await);
    let mut third = site.connect().await;
    third.write_all(request).await.unwrap();
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), third.read(&mut byte)).await;
    assert!(
        early.is_err(),
        "no answer and no refusal while two others are connected"
    );
    drop(first);
    assert_eq!(Reply::read(&mut third).await.status, 200);
    drop(second);
}

#[tokio::test]
async fn a_full_server_keeps_no_connection_between_requests() {
    let site = Site::start_with(|config| config.limits.connections = 1).await;
    site.write("scripts/a.htm", "x");
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /scripts/a.htm HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let reply = Reply::read(&mut stream).await;
    assert_eq!(reply.header("connection"), Some("close"));
}

#[tokio::test]
async fn an_ordered_stop_lets_a_download_end_and_takes_no_new_client() {
    let mut site = Site::start().await;
    let content = pattern(24 << 20);
    site.write("firmware/a.bin", &content);
    let mut stream = site.connect().await;
    let mut idle = site.connect().await;
    stream
        .write_all(b"GET /firmware/a.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut all = vec![0; 1000];
    in_time(stream.read_exact(&mut all)).await.unwrap();
    site.order_stop();
    let mut nothing = Vec::new();
    let _ = in_time(idle.read_to_end(&mut nothing)).await;
    in_time(stream.read_to_end(&mut all)).await.unwrap();
    assert!(Reply::parse(&all).body == content);
    site.stopped().await;
    tokio::net::TcpStream::connect(site.address)
        .await
        .unwrap_err();
}

#[tokio::test]
async fn an_ordered_stop_does_not_wait_for_ever() {
    let mut site =
        Site::start_with(|config| config.limits.shutdown_time = Duration::from_millis(200)).await;
    site.write("firmware/a.bin", vec![0; 64 << 20]);
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /firmware/a.bin HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0];
    in_time(stream.read_exact(&mut byte)).await.unwrap();
    let since = now();
    site.order_stop();
    site.stopped().await;
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn bind_says_what_cannot_be_used() {
    let data = tempfile::tempdir().unwrap();
    let config = || {
        let mut config = Config::new(data.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config
    };
    let first = Server::bind(config()).await.unwrap();
    let mut taken = config();
    taken.listen = first.local_addr();
    assert!(matches!(
        Server::bind(taken).await,
        Err(BindError::Listen { .. })
    ));
    for name in ["", "/", "..", "../x", "/tmp", ".x", "a//../b", "a\\b"] {
        let mut bad = config();
        bad.backup_dir = name.to_owned();
        assert!(
            matches!(Server::bind(bad).await, Err(BindError::BackupDir(_))),
            "{name}"
        );
    }
    let mut none = config();
    none.limits.connections = 0;
    assert!(matches!(
        Server::bind(none).await,
        Err(BindError::NoConnections)
    ));
    std::fs::write(data.path().join("file"), "").unwrap();
    let mut file = config();
    file.data_dir = data.path().join("file");
    assert!(matches!(
        Server::bind(file).await,
        Err(BindError::Folder { .. })
    ));
    let mut linked = config();
    std::os::unix::fs::symlink(data.path(), data.path().join("data/out")).unwrap();
    linked.backup_dir = "out".to_owned();
    assert!(matches!(
        Server::bind(linked).await,
        Err(BindError::Folder { .. })
    ));
    let mut nested = config();
    nested.backup_dir = "saved/configurations".to_owned();
    Server::bind(nested).await.unwrap();
    assert!(data.path().join("data/saved/configurations").is_dir());
}
