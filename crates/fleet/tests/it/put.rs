use core::time::Duration;
use std::os::unix::fs::symlink;

use tokio::io::AsyncWriteExt as _;

use crate::harness::{Reply, Site, in_time, pattern};

#[tokio::test]
async fn stores_a_backup_sent_with_a_length_or_in_chunks() {
    let site = Site::start().await;
    assert_eq!(site.put("/backups/a.txt", b"first").await.status, 201);
    assert_eq!(site.read("backups/a.txt"), "first");
    let chunked = "PUT /backups/b.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(site.send(chunked).await.status, 201);
    assert_eq!(site.read("backups/b.txt"), "hello world");
    assert_eq!(site.send(chunked).await.status, 204);
    assert_eq!(site.names("backups"), ["a.txt", "b.txt"]);
}

#[tokio::test]
async fn keeps_the_old_versions_up_to_the_limit() {
    let site = Site::start_with(|config| config.backup_versions = 3).await;
    for number in 1..=6 {
        let status = site
            .put("/backups/a.txt", format!("{number}").as_bytes())
            .await
            .status;
        assert_eq!(status, if number == 1 { 201 } else { 204 });
    }
    assert_eq!(
        site.names("backups"),
        ["a.txt", "a.txt.1", "a.txt.2", "a.txt.3"]
    );
    let versions =
        ["", ".1", ".2", ".3"].map(|version| site.read(&format!("backups/a.txt{version}")));
    assert_eq!(versions, ["6", "5", "4", "3"]);
}

#[tokio::test]
async fn the_same_content_again_pushes_no_old_version_out() {
    let site = Site::start().await;
    for content in ["one", "two", "two", "two"] {
        site.put("/backups/a.txt", content.as_bytes()).await;
    }
    assert_eq!(site.names("backups"), ["a.txt", "a.txt.1"]);
    assert_eq!(site.read("backups/a.txt.1"), "one");
}

#[tokio::test]
async fn keeps_no_version_where_none_is_wanted() {
    let site = Site::start_with(|config| config.backup_versions = 0).await;
    for content in ["one", "two"] {
        site.put("/backups/a.txt", content.as_bytes()).await;
    }
    assert_eq!(site.names("backups"), ["a.txt"]);
}

#[tokio::test]
async fn continues_a_rotation_that_a_power_cut_interrupted() {
    let site = Site::start().await;
    site.write("backups/a.txt", "two");
    // The cut came after the old content got its second name and before the new one took its place.
    std::fs::hard_link(site.at("backups/a.txt"), site.at("backups/a.txt.1")).unwrap();
    site.write("backups/a.txt.2", "one");
    assert_eq!(site.put("/backups/a.txt", b"three").await.status, 204);
    let versions = ["", ".1", ".2"].map(|version| site.read(&format!("backups/a.txt{version}")));
    assert_eq!(versions, ["three", "two", "one"]);
    assert_eq!(site.names("backups").len(), 3);
}

#[tokio::test]
async fn a_name_in_another_letter_case_is_the_same_backup() {
    let site = Site::start().await;
    site.put("/backups/IP1200.txt", b"one").await;
    assert_eq!(site.put("/BACKUPS/ip1200.TXT", b"two").await.status, 204);
    assert_eq!(site.names("backups"), ["IP1200.txt", "IP1200.txt.1"]);
}

#[tokio::test]
async fn an_upload_cannot_pose_as_an_old_version_but_rolling_names_work() {
    let site = Site::start().await;
    site.put("/backups/a", b"one").await;
    assert_eq!(site.put("/backups/a.1", b"forged").await.status, 409);
    assert_eq!(site.put("/backups/A.10", b"forged").await.status, 409);
    assert_eq!(site.names("backups"), ["a"]);
    // `#b5` in a script makes names like these, without a plain `cfg` beside them.
    for number in 0..5 {
        assert_eq!(
            site.put(&format!("/backups/cfg.{number}"), b"x")
                .await
                .status,
            201
        );
    }
    assert_eq!(
        site.put("/backups/a.11", b"beyond the versions")
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn hostile_uploads_change_nothing_anywhere() {
    let site = Site::start().await;
    std::fs::write(site.outside("victim"), "victim").unwrap();
    std::fs::create_dir(site.outside("folder")).unwrap();
    site.write("scripts/a.htm", "script");
    symlink("../../victim", site.at("backups/link.txt")).unwrap();
    symlink("../scripts/a.htm", site.at("backups/script.txt")).unwrap();
    symlink(site.outside("folder"), site.at("backups/out")).unwrap();
    symlink("../scripts", site.at("backups/scripts")).unwrap();
    std::fs::create_dir(site.at("backups/sub")).unwrap();
    let before = (
        site.names("."),
        site.names("scripts"),
        site.names("backups"),
    );
    for (path, status) in [
        ("/../victim", 400),
        ("/backups/../../victim", 400),
        ("/backups/../scripts/a.htm", 400),
        ("/backups/%2e%2e/scripts/a.htm", 400),
        ("/backups/%2E%2E%2Fscripts%2Fa.htm", 400),
        ("/backups/..%2f..%2fvictim", 400),
        ("/backups/..%5c..%5cvictim", 400),
        ("/backups/%252e%252e/victim", 400),
        ("/backups/%252e%252e%252fvictim", 400),
        ("/backups/a%00.txt", 400),
        ("/backups/a%0a.txt", 400),
        ("/backups/.", 400),
        ("/backups/..", 400),
        ("/backups/%zz", 400),
        ("/backups/.htaccess", 403),
        ("/backups/.rekindle-upload-1-1", 403),
        ("/backups", 403),
        ("/backups/", 403),
        ("/", 403),
        ("/a.txt", 403),
        ("/scripts/a.htm", 403),
        ("/SCRIPTS/A.HTM", 403),
        ("/scripts/new.htm", 403),
        ("/firmware/ip1200.bin", 403),
        ("/backups2/a.txt", 403),
        ("/etc/passwd", 403),
        ("//etc/passwd", 403),
        ("/backups/link.txt", 409),
        ("/BACKUPS/LINK.TXT", 409),
        ("/backups/script.txt", 409),
        ("/backups/out/a.txt", 409),
        ("/backups/OUT/a.txt", 409),
        ("/backups/scripts/a.htm", 409),
        ("/backups/sub", 409),
        ("/backups/missing/a.txt", 409),
    ] {
        let reply = site.put(path, b"hostile").await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    let long = site
        .put(&format!("/backups/{}", "a".repeat(300)), b"x")
        .await;
    assert_eq!(long.status, 414);
    let absolute = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
        site.outside("victim").display()
    );
    assert_eq!(site.send(absolute).await.status, 403);
    let with_host = "PUT http://x/backups/../../victim HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(site.send(with_host).await.status, 400);
    assert_eq!(
        (
            site.names("."),
            site.names("scripts"),
            site.names("backups")
        ),
        before
    );
    assert_eq!(site.read("scripts/a.htm"), "script");
    assert_eq!(
        std::fs::read_to_string(site.outside("victim")).unwrap(),
        "victim"
    );
    assert_eq!(
        std::fs::read_dir(site.outside("folder")).unwrap().count(),
        0
    );
    assert_eq!(std::fs::read_dir(site.outside(".")).unwrap().count(), 3);
}

#[tokio::test]
async fn a_link_that_takes_the_place_of_a_folder_leads_nowhere() {
    let site = Site::start().await;
    std::fs::create_dir(site.outside("folder")).unwrap();
    std::fs::remove_dir(site.at("backups")).unwrap();
    symlink(site.outside("folder"), site.at("backups")).unwrap();
    assert_eq!(site.put("/backups/a.txt", b"x").await.status, 409);
    assert_eq!(
        std::fs::read_dir(site.outside("folder")).unwrap().count(),
        0
    );
}

#[tokio::test]
async fn refuses_what_is_too_large_whether_it_says_so_or_not() {
    let site = Site::start_with(|config| config.limits.backup_bytes = 100_000).await;
    site.put("/backups/a.txt", b"old").await;
    assert_eq!(
        site.put("/backups/a.txt", &pattern(100_001)).await.status,
        413
    );
    let mut chunked = b"PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20 {
        chunked.extend_from_slice(b"4000\r\n");
        chunked.extend_from_slice(&pattern(0x4000));
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(site.send(chunked).await.status, 413);
    let claims = "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1152921504606846976\r\n\r\n";
    let reply = site.send(claims).await;
    assert_eq!(reply.status, 413, "no 100, and no waiting for the body");
    assert_eq!(
        (site.names("backups"), site.read("backups/a.txt")),
        (vec!["a.txt".to_owned()], "old".to_owned())
    );
    assert_eq!(
        site.put("/backups/a.txt", &pattern(100_000)).await.status,
        204,
        "exactly the limit"
    );
}

#[tokio::test]
async fn refuses_bodies_without_a_length_and_parts_of_files() {
    let site = Site::start().await;
    let no_length = site.request("PUT", "/backups/a.txt", &[], b"").await;
    assert_eq!(no_length.status, 411);
    let part = site
        .request(
            "PUT",
            "/backups/a.txt",
            &["Content-Range: bytes 0-1/5", "Content-Length: 2"],
            b"ab",
        )
        .await;
    assert_eq!(part.status, 400);
    assert!(site.names("backups").is_empty());
}

#[tokio::test]
async fn refuses_uploads_when_the_disk_is_nearly_full() {
    let site = Site::start_with(|config| config.limits.keep_free_bytes = u64::MAX / 2).await;
    assert_eq!(site.put("/backups/a.txt", b"x").await.status, 507);
    assert!(site.names("backups").is_empty());
}

#[tokio::test]
async fn a_disconnect_in_mid_upload_leaves_the_old_backup_whole() {
    let site = Site::start_with(|config| config.serve_backups = true).await;
    site.put("/backups/a.txt", b"old").await;
    for head in [
        "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n",
        "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nf4240\r\n",
    ] {
        let mut stream = site.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&pattern(500_000)).await.unwrap();
        in_time(async {
            while site.names("backups").len() == 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let meanwhile = site.get("/backups/a.txt", &[]).await;
        assert_eq!(meanwhile.text(), "old", "nobody sees half an upload");
        drop(stream);
        in_time(async {
            while site.names("backups").len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(site.read("backups/a.txt"), "old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_one_name_at_once_leave_whole_files_only() {
    let site = Site::start_with(|config| config.backup_versions = 20).await;
    let contents: Vec<Vec<u8>> = (0..12_u8)
        .map(|number| vec![b'a' + number; 200_000])
        .collect();
    let uploads = contents.iter().map(|content| {
        let mut request = format!(
            "PUT /backups/a.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            content.len()
        )
        .into_bytes();
        request.extend_from_slice(content);
        let address = site.address;
        tokio::spawn(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(&request).await.unwrap();
            Reply::read(&mut stream).await.status
        })
    });
    let uploads: Vec<_> = uploads.collect();
    for upload in uploads {
        assert!(matches!(upload.await.unwrap(), 201 | 204));
    }
    let mut stored: Vec<Vec<u8>> = site
        .names("backups")
        .iter()
        .map(|name| std::fs::read(site.at("backups").join(name)).unwrap())
        .collect();
    stored.sort();
    assert!(
        stored == contents,
        "the last one and eleven versions, none lost or mixed"
    );
}

#[tokio::test]
async fn what_a_crash_left_behind_is_removed_at_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let below = data.path().join("backups/sub");
    std::fs::create_dir_all(&below).unwrap();
    std::fs::write(below.join(".rekindle-upload-1-1"), "half").unwrap();
    std::fs::write(below.join(".mine"), "mine").unwrap();
    let mut config = rekindle_fleet::Config::new(data.path());
    config.listen = "127.0.0.1:0".parse().unwrap();
    let _server = rekindle_fleet::Server::bind(config).await.unwrap();
    assert!(!below.join(".rekindle-upload-1-1").exists());
    assert!(below.join(".mine").exists());
}
