use core::time::Duration;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rekindle_device::{
    Health, Host, HostConfig, HostError, HostTask, ProgramConfig, ProgramHost, Restart,
};

/// The tests' programs are shell texts; the host itself never starts a shell.
fn sh(text: &str) -> Option<ProgramConfig> {
    Some(ProgramConfig {
        program: PathBuf::from("sh"),
        arguments: ["-c", text, "sh"].map(OsString::from).to_vec(),
    })
}

fn config() -> HostConfig {
    HostConfig {
        reset: None,
        reboot: None,
        idle: None,
        health: None,
        health_time: Duration::from_secs(30),
        commands: None,
        configuration: None,
        timeout: Duration::from_secs(20),
    }
}

fn host(change: impl FnOnce(&mut HostConfig)) -> ProgramHost {
    let mut config = config();
    change(&mut config);
    ProgramHost::new(config)
}

#[tokio::test]
async fn without_programs_the_device_is_idle_and_healthy_by_uptime() {
    let host = host(|_| ());
    assert!(host.is_idle().await.unwrap());
    assert_eq!(host.health().await.unwrap(), Health::ByUptime);
    let error = host.restart(Restart::Reboot).await.unwrap_err();
    assert_eq!(error.to_string(), "`host.reboot` is not configured");
    let error = host.command(b"config write").await.unwrap_err();
    assert!(
        matches!(
            error,
            HostError::NotConfigured {
                task: HostTask::Commands
            }
        ),
        "{error:?}"
    );
    let error = host.configuration().await.unwrap_err();
    assert!(
        matches!(
            error,
            HostError::NotConfigured {
                task: HostTask::Config
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_exit_status_answers_the_questions() {
    let yes = host(|config| {
        config.idle = sh("exit 0");
        config.health = sh("exit 0");
    });
    assert!(yes.is_idle().await.unwrap());
    assert_eq!(yes.health().await.unwrap(), Health::Healthy);
    let no = host(|config| {
        config.idle = sh("exit 1");
        config.health = sh("echo first >&2; echo no registrar >&2; exit 3");
    });
    assert!(!no.is_idle().await.unwrap());
    let sick = Health::Unhealthy("no registrar".to_owned());
    assert_eq!(no.health().await.unwrap(), sick);
    let killed = host(|config| config.idle = sh("kill -9 $$"));
    assert!(matches!(
        killed.is_idle().await,
        Err(HostError::Failed { .. })
    ));
}

#[tokio::test]
async fn a_script_line_is_one_argument_and_never_shell_text() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let host = host(|config| {
        config.commands = sh(&format!(
            "printf '%s' \"$1\" >> {}; test $# = 1",
            seen.display()
        ));
    });
    let line = b"vars create X $(touch /tmp/never) `id` ; \"q\" \xe4";
    host.command(line).await.unwrap();
    assert_eq!(std::fs::read(&seen).unwrap(), line);
    let zero = host.command(b"a\0b").await.unwrap_err();
    assert!(matches!(zero, HostError::ZeroByte), "{zero:?}");
}

#[tokio::test]
async fn a_failed_program_says_its_last_words() {
    let host = host(|config| config.reset = sh("echo cannot reset >&2; exit 7"));
    let error = host.restart(Restart::Reset).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "sh (`host.reset`) failed, exit status: 7: cannot reset"
    );
    let missing = self::host(|config| {
        config.reset = Some(ProgramConfig {
            program: PathBuf::from("/nonexistent/reset"),
            arguments: Vec::new(),
        });
    });
    let error = missing.restart(Restart::Reset).await.unwrap_err();
    assert!(
        matches!(
            error,
            HostError::Start {
                task: HostTask::Reset,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn at_the_time_limit_the_whole_process_group_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let host = host(|config| {
        config.timeout = Duration::from_secs(2);
        config.reset = sh(&format!("sleep 300 & echo $! > {}; wait", pid.display()));
    });
    let error = host.restart(Restart::Reset).await.unwrap_err();
    assert!(matches!(error, HostError::TimedOut { .. }), "{error:?}");
    assert_ends(&pid).await;
}

#[tokio::test]
async fn a_dropped_call_leaves_no_program_behind() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let host = host(|config| {
        config.reset = sh(&format!("sleep 300 & echo $! > {}; wait", pid.display()));
    });
    tokio::select! {
        ended = host.restart(Restart::Reset) => panic!("the program runs for long: {ended:?}"),
        () = appears(&pid) => {}
    }
    assert_ends(&pid).await;
}

async fn appears(pid_file: &Path) {
    while !std::fs::read_to_string(pid_file).is_ok_and(|text| text.ends_with('\n')) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the process whose id the file holds is gone (or a zombie that nobody has reaped yet).
async fn assert_ends(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..100 {
        match std::fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => {}
            _ => return,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("process {pid} still runs");
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "measures that the call does not wait"
)]
async fn what_a_successful_program_leaves_running_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let host = host(|config| {
        config.reset = sh(&format!(
            "(sleep 1; touch {}; sleep 8) & exit 0",
            mark.display()
        ));
    });
    let start = Instant::now();
    host.restart(Restart::Reset).await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    for _ in 0..200 {
        if mark.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the background work was killed");
}

#[tokio::test]
async fn programs_run_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    let host = host(|config| {
        let lock = lock.display();
        config.commands = sh(&format!("mkdir {lock} && sleep 0.2 && rmdir {lock}"));
    });
    let (a, b, c) = tokio::join!(host.command(b"a"), host.command(b"b"), host.command(b"c"));
    a.unwrap();
    b.unwrap();
    c.unwrap();
}

#[tokio::test]
async fn a_configuration_is_whole_or_an_error() {
    let host = host(|config| config.configuration = sh("head -c 300000 /dev/zero | tr '\\0' x"));
    assert_eq!(host.configuration().await.unwrap(), vec![b'x'; 300_000]);
    let long = self::host(|config| config.configuration = sh("head -c 5000000 /dev/zero"));
    let error = long.configuration().await.unwrap_err();
    assert!(
        matches!(error, HostError::OutputTooLong { .. }),
        "{error:?}"
    );
    let failed = self::host(|config| config.configuration = sh("echo half; exit 1"));
    assert!(matches!(
        failed.configuration().await,
        Err(HostError::Failed { .. })
    ));
}
