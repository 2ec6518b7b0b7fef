use core::time::Duration;
use std::os::unix::fs::symlink;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Site, in_time, pattern};

#[tokio::test]
async fn serves_a_file_with_its_validators_and_type() {
    let site = Site::start().await;
    site.write("scripts/update-ip1200.htm", "mod cmd UP0 ...\r\n");
    site.write("firmware/ip1200.bin", "firmware");
    let script = site
        .get("/scripts/update-ip1200.htm?ver=7&PROT=12", &[])
        .await;
    assert_eq!((script.status, script.text()), (200, "mod cmd UP0 ...\r\n"));
    assert_eq!(script.header("content-type"), Some("text/plain"));
    assert_eq!(script.header("content-length"), Some("17"));
    assert_eq!(script.header("accept-ranges"), Some("bytes"));
    assert!(script.header("etag").unwrap().starts_with('"'));
    assert!(script.header("last-modified").unwrap().ends_with("GMT"));
    let firmware = site.get("/firmware/ip1200.bin", &[]).await;
    assert_eq!(
        firmware.header("content-type"),
        Some("application/octet-stream")
    );
    assert_ne!(firmware.header("etag"), script.header("etag"));
}

#[tokio::test]
async fn answers_head_like_get_without_a_body() {
    let site = Site::start().await;
    site.write("firmware/a.bin", pattern(1000));
    let reply = site
        .request("HEAD", "/firmware/a.bin", &["Range: bytes=0-1"], b"")
        .await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-length"), Some("1000"));
}

#[tokio::test]
async fn answers_each_range_as_rfc_9110_says() {
    let site = Site::start().await;
    let content = pattern(300_000);
    site.write("firmware/a.bin", &content);
    site.write("firmware/empty.bin", "");
    for (range, status, content_range, expected) in [
        ("bytes=0-0", 206, Some("bytes 0-0/300000"), 0..1),
        (
            "bytes=100-199999",
            206,
            Some("bytes 100-199999/300000"),
            100..200_000,
        ),
        (
            "bytes=299999-",
            206,
            Some("bytes 299999-299999/300000"),
            299_999..300_000,
        ),
        (
            "bytes=-5",
            206,
            Some("bytes 299995-299999/300000"),
            299_995..300_000,
        ),
        (
            "bytes=299000-400000",
            206,
            Some("bytes 299000-299999/300000"),
            299_000..300_000,
        ),
        ("bytes=0-1,5-6", 200, None, 0..300_000),
        ("bytes=9-1", 200, None, 0..300_000),
        ("chunks=0-1", 200, None, 0..300_000),
    ] {
        let reply = site
            .get("/firmware/a.bin", &[&format!("Range: {range}")])
            .await;
        assert_eq!(reply.status, status, "{range}");
        assert_eq!(reply.header("content-range"), content_range, "{range}");
        assert!(reply.body == content[expected], "{range}");
    }
    for (path, range, content_range) in [
        ("/firmware/a.bin", "bytes=300000-", "bytes */300000"),
        ("/firmware/a.bin", "bytes=-0", "bytes */300000"),
        ("/firmware/empty.bin", "bytes=0-", "bytes */0"),
    ] {
        let reply = site.get(path, &[&format!("Range: {range}")]).await;
        assert_eq!(
            (reply.status, reply.header("content-range")),
            (416, Some(content_range))
        );
    }
    let empty = site.get("/firmware/empty.bin", &[]).await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
}

#[tokio::test]
async fn if_range_gives_the_whole_file_once_it_changed() {
    let site = Site::start().await;
    site.write("firmware/a.bin", "old content");
    let before = site.get("/firmware/a.bin", &[]).await;
    let headers = [
        format!("If-Range: {}", before.header("etag").unwrap()),
        "Range: bytes=4-6".to_owned(),
    ];
    let headers = [headers[0].as_str(), headers[1].as_str()];
    let part = site.get("/firmware/a.bin", &headers).await;
    assert_eq!((part.status, part.text()), (206, "con"));
    site.write("firmware/new", "new content");
    std::fs::rename(site.at("firmware/new"), site.at("firmware/a.bin")).unwrap();
    let whole = site.get("/firmware/a.bin", &headers).await;
    assert_eq!((whole.status, whole.text()), (200, "new content"));
}

#[tokio::test]
async fn answers_304_while_nothing_changed() {
    let site = Site::start().await;
    site.write("scripts/a.htm", "x");
    let first = site.get("/scripts/a.htm", &[]).await;
    let tag = format!("If-None-Match: {}", first.header("etag").unwrap());
    let date = format!(
        "If-Modified-Since: {}",
        first.header("last-modified").unwrap()
    );
    for header in [&tag, &date] {
        let again = site.get("/scripts/a.htm", &[header]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{header}");
        assert_eq!(again.header("etag"), first.header("etag"));
        assert_eq!(again.header("content-length"), None);
    }
    site.write("scripts/a.htm", "xy");
    assert_eq!(site.get("/scripts/a.htm", &[&tag]).await.status, 200);
}

#[tokio::test]
async fn finds_names_without_regard_to_letter_case() {
    let site = Site::start().await;
    site.write("Firmware2/Sub/IP1200.bin", "one");
    site.write("firmware/b.BIN", "first in byte order is B.bin");
    site.write("firmware/B.bin", "B.bin");
    site.write("firmware/b.bin", "b.bin");
    site.write("MIXED", "a file, not the folder");
    site.write("mixed2/x", "x");
    std::fs::rename(site.at("mixed2"), site.at("mixed")).unwrap();
    for (path, expected) in [
        ("/firmware2/sub/ip1200.BIN", "one"),
        ("/FIRMWARE2/SUB/IP1200.BIN", "one"),
        ("/FIRMWARE/b.bin", "b.bin"),
        ("/firmware/B.BIN", "B.bin"),
        ("/Mixed/X", "x"),
        ("/Mixed", "a file, not the folder"),
    ] {
        let reply = site.get(path, &[]).await;
        assert_eq!((reply.status, reply.text()), (200, expected), "{path}");
    }
}

#[tokio::test]
async fn never_reads_outside_the_data_folder() {
    let site = Site::start().await;
    std::fs::write(site.outside("secret"), "SECRET").unwrap();
    std::fs::create_dir(site.outside("folder")).unwrap();
    std::fs::write(site.outside("folder/secret"), "SECRET").unwrap();
    site.write("firmware/inside.bin", "inside");
    site.write("scripts/.hidden", "SECRET");
    symlink("../../secret", site.at("firmware/up.bin")).unwrap();
    symlink(site.outside("secret"), site.at("firmware/absolute.bin")).unwrap();
    symlink(site.outside("folder"), site.at("linked")).unwrap();
    symlink("/proc/self/root", site.at("magic")).unwrap();
    symlink("loop", site.at("loop")).unwrap();
    symlink("inside.bin", site.at("firmware/current.bin")).unwrap();
    for path in [
        "/../secret",
        "/scripts/../../secret",
        "/%2e%2e/secret",
        "/scripts/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/%252e%252e/secret",
        "/%252e%252e%252fsecret",
        "/..%c0%afsecret",
        "/firmware/inside.bin%00.htm",
        "//../secret",
        "/./secret",
        "/firmware/up.bin",
        "/FIRMWARE/UP.BIN",
        "/firmware/absolute.bin",
        "/linked/secret",
        "/LINKED/secret",
        "/magic/etc/passwd",
        "/loop",
        "/loop/x",
        "/scripts/.hidden",
        "/scripts/%2ehidden",
        "/",
        "/scripts",
        "/scripts/",
        "/firmware/inside.bin/",
        "/firmware/inside.bin/x",
        "/nothing/at/all",
    ] {
        let reply = site.get(path, &[]).await;
        assert!(
            matches!(reply.status, 400 | 404),
            "{path}: {}",
            reply.status
        );
        assert!(!reply.text().contains("SECRET"), "{path}");
        assert!(
            reply.text().starts_with(&reply.status.to_string()),
            "{path}: {}",
            reply.text()
        );
        assert!(
            !reply.text().contains("inside.bin"),
            "{path}: nothing is listed"
        );
    }
    let absolute = format!("GET {} HTTP/1.0\r\n\r\n", site.outside("secret").display());
    assert_eq!(site.send(absolute).await.status, 404);
    // A link that stays inside is the operator's way to say which build is current.
    assert_eq!(
        site.get("/firmware/current.bin", &[]).await.text(),
        "inside"
    );
}

#[tokio::test]
async fn a_named_pipe_is_no_file_and_hangs_nothing() {
    let site = Site::start().await;
    let made = std::process::Command::new("mkfifo")
        .arg(site.at("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    assert_eq!(site.get("/pipe", &[]).await.status, 404);
}

#[tokio::test]
async fn refuses_other_methods_and_names_those_it_knows() {
    let site = Site::start().await;
    site.write("scripts/a.htm", "x");
    for method in ["POST", "DELETE", "OPTIONS", "PROPFIND"] {
        let reply = site.request(method, "/scripts/a.htm", &[], b"").await;
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some("GET, HEAD, PUT")),
            "{method}"
        );
    }
}

#[tokio::test]
async fn backups_are_given_out_only_where_the_operator_lets_them() {
    for (serve_backups, expected) in [(true, 200), (false, 403)] {
        let site = Site::start_with(|config| config.serve_backups = serve_backups).await;
        site.write("backups/a.txt", "password");
        for path in [
            "/backups/a.txt",
            "/BACKUPS/A.TXT",
            "//backups/a.txt",
            "/%62ackups/a.txt",
        ] {
            assert_eq!(site.get(path, &[]).await.status, expected, "{path}");
        }
    }
}

#[tokio::test]
async fn an_old_client_gets_an_answer_it_understands() {
    let site = Site::start().await;
    site.write("scripts/a.htm", "x");
    let reply = site.send("GET /scripts/a.htm HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        (reply.status, reply.header("content-length"), reply.text()),
        (200, Some("1"), "x")
    );
}

#[tokio::test]
async fn one_connection_serves_several_requests() {
    let site = Site::start().await;
    site.write("firmware/a.bin", pattern(100_000));
    let mut stream = site.connect().await;
    for start in [0_usize, 50_000, 99_990] {
        let request = format!(
            "GET /firmware/a.bin HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-{}\r\n\r\n",
            start + 9
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        while !all.windows(4).any(|four| four == b"\r\n\r\n")
            || all.len() < all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 14
        {
            let read = in_time(stream.read_buf(&mut all)).await.unwrap();
            assert_ne!(read, 0, "the connection stays open");
        }
        assert_eq!(all[all.len() - 10..], pattern(100_000)[start..start + 10]);
    }
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_sent_to_its_old_end() {
    let site = Site::start().await;
    let old = vec![b'o'; 32 << 20];
    site.write("firmware/a.bin", &old);
    let mut stream = site.connect().await;
    stream
        .write_all(b"GET /firmware/a.bin HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut all = vec![0; 1000];
    in_time(stream.read_exact(&mut all)).await.unwrap();
    site.write("firmware/new", vec![b'n'; 32 << 20]);
    std::fs::rename(site.at("firmware/new"), site.at("firmware/a.bin")).unwrap();
    in_time(stream.read_to_end(&mut all)).await.unwrap();
    let body = crate::harness::Reply::parse(&all).body;
    assert!(body == old);
}

#[tokio::test]
async fn a_file_that_changes_in_place_ends_the_connection_before_anything_is_mixed() {
    for change in [Change::Overwrite, Change::Truncate] {
        let site = Site::start().await;
        let len = 32 << 20;
        site.write("firmware/a.bin", vec![b'o'; len]);
        let mut stream = site.connect().await;
        stream
            .write_all(b"GET /firmware/a.bin HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut all = vec![0; 1000];
        in_time(stream.read_exact(&mut all)).await.unwrap();
        // The kernel stamps files with the time of its last tick.
        tokio::time::sleep(Duration::from_millis(20)).await;
        match change {
            Change::Overwrite => site.write("firmware/a.bin", vec![b'n'; len]),
            Change::Truncate => std::fs::File::options()
                .write(true)
                .open(site.at("firmware/a.bin"))
                .unwrap()
                .set_len(1000)
                .unwrap(),
        }
        let _ = in_time(stream.read_to_end(&mut all)).await;
        let body = crate::harness::Reply::parse(&all).body;
        assert!(
            body.len() < len,
            "{change:?}: the client sees that the body is cut off"
        );
        assert!(body.iter().all(|byte| *byte == b'o'), "{change:?}");
    }
}

#[derive(Debug)]
enum Change {
    Overwrite,
    Truncate,
}
