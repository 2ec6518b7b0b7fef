use core::time::Duration;
use std::path::{Path, PathBuf};

use rekindle_device::{
    BootControlConfig, Config, ConfigErrorKind, EnvironmentPlace, InPlace, ProgramConfig,
    RepairPolicy, ScrubConfig, Source, UBootConfig,
};
use rekindle_flash::{EnvironmentFlags, UBootVariables};
use rekindle_image::{SecretKey, Unsigned};

/// The file of the project's contract, as vendors copy it.
const CONTRACT: &str = include_str!("data/device.toml");

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/device.toml")).map_err(|error| error.to_string())
}

/// The message for the contract's file with one text replaced.
fn message(from: &str, to: &str) -> String {
    assert!(CONTRACT.contains(from), "{from:?}");
    parse(&CONTRACT.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn reads_the_contract() {
    let config = parse(CONTRACT).unwrap();
    assert_eq!(config.device.device_type, "IP1200");
    assert_eq!(config.device.hardware_id, "IP1200-03-0d-f0");
    assert_eq!(config.device.mac.as_deref(), Some("00-90-33-03-0d-f0"));
    assert_eq!(config.device.hardware.as_deref(), Some("102"));
    assert_eq!(config.trust.keys, [PathBuf::from("/etc/vendor.pub")]);
    assert_eq!(config.trust.threshold.get(), 1);
    assert_eq!(config.trust.unsigned, Unsigned::Refuse);
    assert_eq!(config.state_dir, Path::new("/etc/state"));
    let prot = config.component("prot").unwrap();
    assert_eq!(
        prot.slots,
        ["/etc/slot-a.img", "/etc/slot-b.img"].map(PathBuf::from)
    );
    assert_eq!(prot.size, Some(256 << 20));
    let control = BootControlConfig::File(PathBuf::from("/etc/boot.state"));
    assert_eq!(config.boot.control, control);
    assert_eq!(config.boot.running, Source::Env("REKINDLE_SLOT".to_owned()));
    assert_eq!(config.boot.attempts, 3);
    assert_eq!(
        config.update.url.as_deref(),
        Some("http://127.0.0.1:8080/scripts/")
    );
    assert_eq!(config.update.poll, Duration::from_secs(900));
    assert_eq!(config.http.listen, Some("127.0.0.1:8081".parse().unwrap()));
    let reset = ProgramConfig {
        program: PathBuf::from("/usr/local/bin/my-reset"),
        arguments: Vec::new(),
    };
    assert_eq!(config.host.reset, Some(reset));
    assert_eq!(config.host.health_time, Duration::from_secs(30));
    assert_eq!(config.host.timeout, Duration::from_secs(60));
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = parse(
        "[device]\ntype = \"T\"\nhardware-id = \"T-1\"\n[trust]\nunsigned = \"accept\"\n\
         [state]\ndir = \"/var/state\"\n[[component]]\nname = \"prot\"\nslots = [\"/dev/mtd1\"]\n\
         [boot]\ncontrol = \"file\"\npath = \"b\"\nrunning = \"file:slot\"\n\
         [host]\nreset = [\"reset\", \"-n\"]\nidle = [\"bin/idle\"]\n",
    )
    .unwrap();
    assert_eq!(config.trust.unsigned, Unsigned::Accept);
    assert_eq!(config.trust().unwrap().keys, []);
    assert_eq!(config.components[0].size, None);
    assert_eq!(
        config.boot.running,
        Source::File(PathBuf::from("/etc/slot"))
    );
    assert_eq!(config.update.url, None);
    assert_eq!(config.update.poll, Duration::from_secs(900));
    assert_eq!(config.update.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.http.listen, None);
    let host = config.host;
    assert_eq!(
        host.reset.unwrap().program,
        Path::new("reset"),
        "a bare name is found in PATH"
    );
    assert_eq!(host.idle.unwrap().program, Path::new("/etc/bin/idle"));
}

#[test]
fn slots_are_scrubbed_weekly_and_repaired_unless_told_otherwise() {
    let usual = ScrubConfig {
        every: Some(Duration::from_secs(7 * 24 * 3600)),
        pace: 4 << 20,
        repair: RepairPolicy::Auto,
    };
    assert_eq!(parse(CONTRACT).unwrap().scrub, usual);
    let with = |lines: &str| parse(&format!("{CONTRACT}\n[scrub]\n{lines}\n"));
    let other = with("every = \"1 day\"\npace = \"512 KiB\"\nrepair = \"report\"");
    let expected = ScrubConfig {
        every: Some(Duration::from_secs(24 * 3600)),
        pace: 512 << 10,
        repair: RepairPolicy::Report,
    };
    assert_eq!(other.unwrap().scrub, expected);
    assert_eq!(with("every = \"off\"").unwrap().scrub.every, None);
    for wrong in ["every = \"never\"", "pace = \"0\"", "repair = \"yes\""] {
        let error = with(wrong).unwrap_err();
        let key = wrong.split(' ').next().unwrap();
        assert!(error.contains(&format!("scrub.{key}")), "{error}");
    }
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_known_key() {
    assert_eq!(
        message("poll-minutes", "poll_minute"),
        "/etc/device.toml:22: unknown key `poll_minute` in [update]; \
         the nearest known key is `poll-minutes`"
    );
    assert_eq!(
        message("[trust]", "[thrust]"),
        "/etc/device.toml:6: unknown key `thrust`; the nearest known key is `trust`"
    );
    assert_eq!(
        message("size =", "sise ="),
        "/etc/device.toml:14: unknown key `sise` in [[component]]; the nearest known key is `size`"
    );
}

#[test]
fn every_broken_rule_has_its_line_and_its_own_words() {
    let cases = [
        (
            "\"256 MiB\"",
            "\"256 MB\"",
            "14: `component.size` must be a size such as \"256 MiB\", found \"256 MB\"",
        ),
        (
            "\"256 MiB\"",
            "\"65537\"",
            "14: `component.size` must be a multiple of 4 KiB, at least 64 KiB, found \"65537\"",
        ),
        (
            "\"256 MiB\"",
            "256",
            "14: `component.size` must be a text in quotes, found integer",
        ),
        (
            "\"prot\"",
            "\"Prot 1\"",
            "12: `component.name` must be 1 to 32 lower-case letters, digits, '-' or '_', a letter first, found \"Prot 1\"",
        ),
        (
            "slots = [\"slot-a.img\", \"slot-b.img\"]",
            "slots = []",
            "13: `component.slots` must not be empty",
        ),
        (
            "\"slot-b.img\"",
            "\"slot-a.img\"",
            "11: slot /etc/slot-a.img is configured twice",
        ),
        (
            "size = \"256 MiB\"",
            "",
            "11: component `prot` needs `size`: slot /etc/slot-a.img is no block device under /dev",
        ),
        (
            "threshold = 1",
            "threshold = 0",
            "8: `trust.threshold` must be 1 to 255, found 0",
        ),
        (
            "keys = [\"vendor.pub\"]",
            "",
            "6: `trust.keys` is empty, so no image could ever be accepted; name a key file",
        ),
        (
            "control = \"file\"",
            "control = \"grub\"",
            "16: `boot.control` must be \"file\" or \"uboot\", found \"grub\"",
        ),
        (
            "\"env:REKINDLE_SLOT\"",
            "\"REKINDLE_SLOT\"",
            "18: `boot.running` must be \"env:NAME\", \"cmdline:name\" or \"file:/path\", found \"REKINDLE_SLOT\"",
        ),
        (
            "attempts = 3",
            "attempts = -3",
            "19: `boot.attempts` must be 1 to 100, found -3",
        ),
        (
            "http://127.0.0.1:8080/scripts/",
            "ftp://a/",
            "21: `update.url` must be a URL such as \"http://192.0.2.1/scripts/\", found \"ftp://a/\"",
        ),
        (
            "127.0.0.1:8081",
            "localhost:8081",
            "24: `http.listen` must be an IP address and port such as \"127.0.0.1:8081\", found \"localhost:8081\"",
        ),
        (
            "00-90-33-03-0d-f0",
            "00-90-33-03-0d",
            "4: `device.mac` must be an Ethernet address such as \"00-90-33-03-0d-f0\", found \"00-90-33-03-0d\"",
        ),
        (
            "type = \"IP1200\"",
            "type = \"\"",
            "2: `device.type` must not be empty",
        ),
        ("type = \"IP1200\"", "", "1: `type` is missing in [device]"),
        (
            "[\"/usr/local/bin/my-reset\"]",
            "\"my-reset\"",
            "26: `host.reset` must be a list of texts in quotes, found string",
        ),
        (
            "[\"/usr/local/bin/my-reset\"]",
            "[]",
            "26: `host.reset` must not be empty",
        ),
        (
            "health-seconds = 30",
            "health-seconds = 0",
            "30: `host.health-seconds` must be 1 to 86400, found 0",
        ),
        (
            "poll-minutes = 15",
            "poll = \"0 s\"",
            "22: `update.poll` must be a time such as \"2 s\" (ms, s, min or h), found \"0 s\"",
        ),
        (
            "dir = \"state\"",
            "dir = \"a\\u0007b\"",
            "10: `state.dir` must be a text without control characters, found \"a\\u{7}b\"",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(
            message(from, to),
            format!("/etc/device.toml:{expected}"),
            "{to}"
        );
    }
}

#[test]
fn missing_parts_and_second_ones_are_told() {
    let (head, tail) = CONTRACT.split_once("[[component]]").unwrap();
    let rest = tail.split_once("[boot]").unwrap().1;
    assert_eq!(
        parse(&format!("{head}[boot]{rest}")).unwrap_err(),
        "/etc/device.toml: `[[component]]` is missing"
    );
    let twice = format!("{CONTRACT}\n[[component]]\nname = \"prot\"\nslots = [\"/dev/x\"]\n");
    assert_eq!(
        parse(&twice).unwrap_err(),
        "/etc/device.toml:32: component `prot` is configured twice"
    );
    assert!(
        parse("device = 3")
            .unwrap_err()
            .contains("`device` must be a table, found integer")
    );
    let broken = parse("[device]\ntype = ").unwrap_err();
    assert!(
        broken.starts_with("/etc/device.toml:2: not TOML: "),
        "{broken}"
    );
}

#[test]
fn a_lab_may_poll_every_second() {
    let config = parse(&CONTRACT.replace("poll-minutes = 15", "poll = \"1 s\"")).unwrap();
    assert_eq!(config.update.poll, Duration::from_secs(1));
}

#[test]
fn the_key_files_must_hold_as_many_keys_as_the_threshold_asks() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.toml");
    let key = |seed: u8| format!("{}\n", public_line(seed));
    std::fs::write(folder.path().join("vendor.pub"), key(1) + &key(2) + &key(1)).unwrap();
    std::fs::write(&file, CONTRACT.replace("threshold = 1", "threshold = 2")).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(
        config.trust().unwrap().keys.len(),
        2,
        "the same key counts once"
    );

    std::fs::write(&file, CONTRACT.replace("threshold = 1", "threshold = 3")).unwrap();
    let error = Config::load(&file).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            ConfigErrorKind::ThresholdAboveKeys {
                threshold: 3,
                keys: 2
            }
        ),
        "{error}"
    );
    std::fs::write(folder.path().join("vendor.pub"), "nonsense").unwrap();
    let error = Config::load(&file).unwrap_err();
    assert!(
        matches!(error.kind(), ConfigErrorKind::KeyFile { .. }),
        "{error}"
    );
    std::fs::remove_file(folder.path().join("vendor.pub")).unwrap();
    let error = Config::load(&file).unwrap_err();
    assert!(
        matches!(error.kind(), ConfigErrorKind::Read { .. }),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_configuration_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.toml");
    let kind = |error: rekindle_device::ConfigError| format!("{:?}", error.kind());
    assert!(kind(Config::load(&file).unwrap_err()).starts_with("Read"));
    std::fs::write(&file, b"# \xff\n").unwrap();
    assert_eq!(kind(Config::load(&file).unwrap_err()), "NotUtf8");
    std::fs::write(&file, vec![b'#'; 300_000]).unwrap();
    assert_eq!(
        kind(Config::load(&file).unwrap_err()),
        "TooLarge { limit: 262144 }"
    );
}

fn public_line(seed: u8) -> String {
    SecretKey::from_random(&[seed; 32]).public().to_string()
}

fn with_boot(boot: &str) -> Result<BootControlConfig, String> {
    let contract = CONTRACT.replace("attempts = 3\n", "");
    let start = contract.find("control = ").unwrap();
    let end = contract.find("running = ").unwrap();
    let text = format!("{}{boot}\n{}", &contract[..start], &contract[end..]);
    parse(&text).map(|config| config.boot.control)
}

#[test]
fn the_environment_of_u_boot_is_named_by_its_tools_file_or_by_its_place() {
    let uboot = |place| UBootConfig {
        place,
        flags: None,
        variables: UBootVariables::default(),
        slot_names: Vec::new(),
        in_place: InPlace::Never,
    };
    assert_eq!(
        with_boot("control = \"uboot\"\nenvironment = \"fw_env.config\""),
        Ok(BootControlConfig::UBoot(uboot(EnvironmentPlace::Named(
            PathBuf::from("/etc/fw_env.config")
        ))))
    );
    let text = "control = \"uboot\"\ndevice = \"/dev/mmcblk0\"\noffsets = [\"1 MiB\", \"0x110000\"]\n\
                size = \"16 KiB\"\nflags = \"serial\"\norder = \"ORDER\"\nleft = \"TRIES_*\"\n\
                record = \"record\"\nslot-names = [\"system0\", \"system1\"]\nin-place = \"unsafe\"";
    let variables = UBootVariables::default()
        .with_order("ORDER")
        .and_then(|all| all.with_left("TRIES_*"))
        .and_then(|all| all.with_record("record"))
        .and_then(|all| all.with_slots(&["system0", "system1"]))
        .unwrap();
    assert_eq!(
        with_boot(text),
        Ok(BootControlConfig::UBoot(UBootConfig {
            flags: Some(EnvironmentFlags::Serial),
            variables,
            slot_names: ["system0", "system1"].map(str::to_owned).to_vec(),
            in_place: InPlace::Unsafe,
            ..uboot(EnvironmentPlace::At {
                device: PathBuf::from("/dev/mmcblk0"),
                offsets: vec![1 << 20, 0x11_0000],
                size: 16 << 10,
            })
        }))
    );
}

#[test]
fn a_mistake_in_the_place_of_the_environment_is_named() {
    let at = "control = \"uboot\"\ndevice = \"d\"\noffsets = [\"0\"]\nsize = \"16 KiB\"\n";
    let cases = [
        (
            "control = \"uboot\"\npath = \"boot.state\"".to_owned(),
            "17: unknown key `path` in [boot]; the nearest known key is `size`",
        ),
        (
            "control = \"uboot\"".to_owned(),
            "15: `device` is missing in [boot]",
        ),
        (
            at.replace("\"0\"", "\"0xx\""),
            "18: `boot.offsets` must be bytes such as \"1 MiB\" or \"0x100000\", found \"0xx\"",
        ),
        (
            at.replace("\"0\"", "\"0\", \"1\", \"2\""),
            "18: `boot.offsets` holds 3 entries, the limit is 2",
        ),
        (
            format!("{at}left = \"LEFT\""),
            "20: `boot.left` must be a name of 1 to 64 printable ASCII characters without blanks \
             and '=' (for `left` with one '*'), found \"LEFT\"",
        ),
        (
            format!("{at}slot-names = [\"a\", \"a\"]"),
            "20: `boot.slot-names` must be different names of printable ASCII characters without \
             blanks and '=', found \"a a\"",
        ),
        (
            format!("{at}slot-names = [\"B\"]"),
            "15: [boot] `slot-names`: \"B\" names two slots; name every slot, each differently",
        ),
        (
            format!("{at}record = \"BOOT_ORDER\""),
            "15: [boot] `order` and `record` both name the variable BOOT_ORDER; rename one",
        ),
        (
            format!("{at}order = \"BOOT_B_LEFT\""),
            "15: [boot] `order` and `left` both name the variable BOOT_B_LEFT; rename one",
        ),
        (
            format!("{at}in-place = \"yes\""),
            "20: `boot.in-place` must be \"unsafe\", found \"yes\"",
        ),
        (
            format!("{at}attempts = 10"),
            "20: `boot.attempts` must be 1 to 9, found 10",
        ),
    ];
    for (boot, expected) in cases {
        let error = with_boot(&boot).unwrap_err();
        assert_eq!(error.split_once(".toml:").unwrap().1, expected);
    }
}
