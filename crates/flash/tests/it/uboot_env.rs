//! Boot control in a U-Boot environment, on raw flash and on overwriting media, with power cuts and
//! with a boot loader that the test plays.

use core::cell::RefCell;

use rekindle_flash::{
    BootControl, BootRecord, EnvironmentDamage, Flash as _, Geometry, Partition, SlotId, UBootEnv,
    UBootEnvError, UBootVariables, VariableNameError,
};
use rekindle_testkit::{Power, SimFlash, conformance};

const SIZE: usize = 0x800;
const COMPONENTS: &[(&str, u8)] = &[("prot", 2), ("bmc", 1)];

/// NOR flash with single bytes and with words, and a medium that overwrites its sectors.
const MEDIA: [Geometry; 3] = [
    medium(0x4000, 1, 0x1000),
    medium(0x4000, 256, 0x1000),
    medium(0x4000, 512, 0),
];

const fn medium(size: u64, write_size: u32, erase_size: u32) -> Geometry {
    Geometry {
        size,
        write_size,
        erase_size,
    }
}

type Chip = RefCell<SimFlash>;

/// A board with U-Boot's own variables in both copies.
fn board(geometry: Geometry, variables: &[&str]) -> Chip {
    let mut flash = SimFlash::new(geometry, 7);
    for (offset, flag) in [(0, 1), (0x2000, 0)] {
        write_raw(&mut flash, offset, Some(flag), variables);
    }
    RefCell::new(flash)
}

fn write_raw(flash: &mut SimFlash, offset: u64, flag: Option<u8>, variables: &[&str]) {
    let mut data = Vec::new();
    for variable in variables {
        data.extend(variable.bytes());
        data.push(0);
    }
    data.resize(SIZE - 4 - usize::from(flag.is_some()), 0);
    let mut bytes = crc32fast::hash(&data).to_ne_bytes().to_vec();
    bytes.extend(flag);
    bytes.append(&mut data);
    flash.erase(offset..offset + 0x1000).unwrap();
    flash.write(offset, &bytes).unwrap();
    flash.sync().unwrap();
}

/// What U-Boot finds: the variables of the copy that it takes.
fn loader_sees(chip: &Chip) -> Vec<String> {
    let Some((_, data)) = loader_takes(chip) else {
        return Vec::new();
    };
    data.split(|byte| *byte == 0)
        .take_while(|entry| !entry.is_empty())
        .map(|entry| String::from_utf8(entry.to_vec()).unwrap())
        .collect()
}

/// Where the copy begins that U-Boot takes, and its data.
fn loader_takes(chip: &Chip) -> Option<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    for offset in [0, 0x2000] {
        let mut bytes = vec![0; SIZE];
        chip.borrow_mut().read_stored(offset, &mut bytes).unwrap();
        let (header, data) = bytes.split_at(5);
        if header[..4] == crc32fast::hash(data).to_ne_bytes() {
            found.push((header[4], offset, data.to_vec()));
        }
    }
    let (_, offset, data) = match &found[..] {
        [] => return None,
        [one] => one,
        [(255, ..), second @ (0, ..)] => second,
        [first @ (0, ..), (255, ..)] => first,
        [first, second] => {
            if second.0 > first.0 {
                second
            } else {
                first
            }
        }
        _ => unreachable!("there are two copies"),
    };
    Some((*offset, data.clone()))
}

fn loader_value(chip: &Chip, name: &str) -> String {
    let variables = loader_sees(chip);
    let mut values = variables.iter().filter_map(|entry| {
        let (known, value) = entry.split_once('=')?;
        (known == name).then(|| value.to_owned())
    });
    values.next().unwrap_or_default()
}

/// What a script of the boot loader does: changes variables and saves.
fn loader_sets(chip: &Chip, changes: &[(&str, &str)]) {
    let mut variables = loader_sees(chip);
    for (name, value) in changes {
        variables.retain(|entry| !entry.starts_with(&format!("{name}=")));
        if !value.is_empty() {
            variables.push(format!("{name}={value}"));
        }
    }
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    write_raw(&mut chip.borrow_mut(), 0, Some(1), &variables);
    write_raw(&mut chip.borrow_mut(), 0x2000, Some(0), &variables);
}

fn open(chip: &Chip) -> UBootEnv<Partition<&Chip>> {
    let part = |offset| Partition::new(chip, offset..offset + 0x1000).unwrap();
    UBootEnv::redundant(
        [part(0), part(0x2000)],
        SIZE,
        UBootVariables::default(),
        COMPONENTS,
    )
    .unwrap()
}

fn settled() -> BootRecord {
    let mut record = BootRecord::new(COMPONENTS).unwrap();
    record.withdraw("prot", SlotId::B).unwrap();
    record
}

fn pending() -> BootRecord {
    let mut record = settled();
    record.choose("prot", SlotId::B, 3).unwrap();
    record
}

#[test]
fn it_keeps_the_contract_of_boot_control() {
    for geometry in MEDIA {
        let chip = board(geometry, &["bootcmd=run boot"]);
        open(&chip).store(&settled()).unwrap();
        conformance::boot_control(|_| open(&chip)).assert();
        assert_eq!(loader_value(&chip, "bootcmd"), "run boot");
    }
}

#[test]
fn a_cut_at_every_operation_leaves_the_old_record_or_the_new_one_and_all_other_variables() {
    for geometry in MEDIA {
        let count = {
            let chip = board(geometry, &["bootcmd=run boot", "serial#=7"]);
            open(&chip).store(&settled()).unwrap();
            let before = chip.borrow().power().operations();
            open(&chip).store(&pending()).unwrap();
            chip.borrow().power().operations() - before
        };
        for first in 1..=count {
            for second in 0..=count {
                let chip = board(geometry, &["bootcmd=run boot", "serial#=7"]);
                open(&chip).store(&settled()).unwrap();
                chip.borrow_mut().cut_after(first);
                open(&chip).store(&pending()).unwrap_err();
                chip.borrow_mut().restart();
                check(&chip, &[settled(), pending()]);

                let mut confirmed = pending();
                let _: Vec<_> = confirmed.start();
                confirmed.confirm().unwrap();
                if second > 0 {
                    chip.borrow_mut().cut_after(second);
                    // Some stores have fewer operations.
                    let stored = open(&chip).store(&confirmed);
                    chip.borrow_mut().restart();
                    let mut possible = vec![confirmed.clone()];
                    if stored.is_err() {
                        possible.extend([settled(), pending()]);
                    }
                    check(&chip, &possible);
                }
                open(&chip).store(&confirmed).unwrap();
                check(&chip, &[confirmed]);
            }
        }
    }
}

#[test]
fn a_withdrawal_that_was_cut_off_at_its_end_is_written_anew_and_outlives_the_copy_that_fades() {
    for geometry in MEDIA {
        let mut read_right = 0;
        for cut in 1..=8 {
            let chip = board(geometry, &["bootcmd=run boot", "serial#=7"]);
            open(&chip).store(&pending()).unwrap();
            chip.borrow_mut().cut_after(cut);
            let _cut: Result<(), _> = open(&chip).store(&settled());
            chip.borrow_mut().restart();
            let (marginal, _) = loader_takes(&chip).unwrap();
            if open(&chip).load().unwrap() == settled() {
                read_right += 1;
            }
            open(&chip).store(&settled()).unwrap();
            chip.borrow_mut().damage(marginal + 77, &[0x55]);
            check(&chip, &[settled()]);
        }
        assert!(read_right > 0, "{geometry:?}");
    }
}

/// The agent and the boot loader see the same, and it is one of these.
#[track_caller]
fn check(chip: &Chip, possible: &[BootRecord]) {
    let record = open(chip).load().unwrap();
    assert!(possible.contains(&record), "{record:?}");
    let expected = match record.component("prot").unwrap() {
        prot if prot.chosen.is_some() => "B A",
        prot if prot.confirmed == SlotId::B => "B",
        _ => "A",
    };
    assert_eq!(loader_value(chip, "BOOT_ORDER"), expected);
    assert_eq!(loader_value(chip, "bootcmd"), "run boot");
    assert_eq!(loader_value(chip, "serial#"), "7");
}

#[test]
fn what_the_boot_loader_changed_is_read_to_the_safe_side() {
    let with_left = |left: u8| {
        let mut record = pending();
        while record.attempts_left() > left {
            let _: Vec<_> = record.start();
        }
        record
    };
    let cases = [
        ("nothing", &[][..], pending()),
        ("it counted", &[("BOOT_B_LEFT", "2")][..], with_left(2)),
        (
            "it counted to the end",
            &[("BOOT_B_LEFT", "0")][..],
            with_left(0),
        ),
        (
            "it counted both",
            &[("BOOT_B_LEFT", "1"), ("BOOT_A_LEFT", "7")][..],
            with_left(1),
        ),
        (
            "more than there were",
            &[("BOOT_B_LEFT", "9"), ("BOOT_A_LEFT", "3")][..],
            pending(),
        ),
        ("no count", &[("BOOT_B_LEFT", "")][..], with_left(0)),
        ("no number", &[("BOOT_B_LEFT", "many")][..], with_left(0)),
        ("another order", &[("BOOT_ORDER", "A B")][..], with_left(0)),
        ("no order", &[("BOOT_ORDER", "")][..], with_left(0)),
    ];
    for (what, changes, expected) in cases {
        let chip = board(MEDIA[0], &["bootcmd=run boot"]);
        open(&chip).store(&pending()).unwrap();
        loader_sets(&chip, changes);
        assert_eq!(open(&chip).load().unwrap(), expected, "{what}");
    }
}

#[test]
fn nobody_makes_a_slot_bootable_or_confirmed_by_changing_the_loaders_variables() {
    let chip = board(MEDIA[2], &["bootcmd=run boot"]);
    open(&chip).store(&settled()).unwrap();
    loader_sets(&chip, &[("BOOT_ORDER", "B A"), ("BOOT_B_LEFT", "3")]);
    assert_eq!(open(&chip).load().unwrap(), settled());
    assert!(open(&chip).give_back().unwrap());
    assert_eq!(loader_value(&chip, "BOOT_ORDER"), "A");
    assert_eq!(loader_value(&chip, "BOOT_B_LEFT"), "0");
}

#[test]
fn attempts_of_the_confirmed_slot_are_given_back_and_those_of_a_trial_are_not() {
    let chip = board(MEDIA[0], &["bootcmd=run boot"]);
    open(&chip).store(&settled()).unwrap();
    assert!(!open(&chip).give_back().unwrap());
    loader_sets(&chip, &[("BOOT_A_LEFT", "1")]);
    assert!(open(&chip).give_back().unwrap());
    assert_eq!(loader_value(&chip, "BOOT_A_LEFT"), "9");

    open(&chip).store(&pending()).unwrap();
    loader_sets(&chip, &[("BOOT_B_LEFT", "2")]);
    assert!(!open(&chip).give_back().unwrap());
    loader_sets(&chip, &[("BOOT_B_LEFT", "0"), ("BOOT_A_LEFT", "8")]);
    assert!(open(&chip).give_back().unwrap());
    assert_eq!(loader_value(&chip, "BOOT_A_LEFT"), "9");
    let record = open(&chip).load().unwrap();
    assert_eq!((record.attempts(), record.attempts_left()), (3, 0));
}

#[test]
fn a_board_that_another_updater_looked_after_has_no_record_until_one_is_stored() {
    let chip = board(
        MEDIA[1],
        &[
            "BOOT_A_LEFT=3",
            "BOOT_B_LEFT=3",
            "BOOT_ORDER=B A",
            "bootcmd=x",
        ],
    );
    let mut env = open(&chip);
    assert!(!env.has_record().unwrap());
    assert_eq!(
        env.load().unwrap_err().to_string(),
        "the U-Boot environment holds no variable rekindle_record"
    );
    env.store(&settled()).unwrap();
    assert!(env.has_record().unwrap());
    assert_eq!(env.load().unwrap(), settled());
    let variables = loader_sees(&chip);
    assert_eq!(
        variables[..4],
        [
            "BOOT_A_LEFT=9",
            "BOOT_B_LEFT=0",
            "BOOT_ORDER=A",
            "bootcmd=x"
        ]
    );
}

#[test]
fn an_environment_that_was_never_written_is_not_made_up() {
    let chip = RefCell::new(SimFlash::new(MEDIA[0], 1));
    let text = "there is no U-Boot environment (first copy: erased; second copy: erased); \
                check its place and size, or let U-Boot write its own with saveenv";
    assert_eq!(open(&chip).store(&settled()).unwrap_err().to_string(), text);
    assert_eq!(open(&chip).load().unwrap_err().to_string(), text);
    assert_eq!(open(&chip).has_record().unwrap_err().to_string(), text);
}

#[test]
fn one_damaged_copy_is_healed_by_the_next_store_and_two_are_an_error() {
    for geometry in MEDIA {
        for (damaged, other) in [(0, 0x2000), (0x2000, 0)] {
            let chip = board(geometry, &["bootcmd=run boot"]);
            open(&chip).store(&pending()).unwrap();
            open(&chip).store(&settled()).unwrap();
            chip.borrow_mut().damage(damaged + 77, &[0x55]);
            // Where the flags are serial numbers, the other copy may be the one before.
            let found = open(&chip).load().unwrap();
            assert!([settled(), pending()].contains(&found), "{found:?}");
            open(&chip).store(&settled()).unwrap();
            assert_eq!(open(&chip).load().unwrap(), settled());
            open(&chip).store(&pending()).unwrap();
            open(&chip).store(&settled()).unwrap();
            chip.borrow_mut().damage(other + 77, &[0x55]);
            let found = open(&chip).load().unwrap();
            assert!([settled(), pending()].contains(&found), "{found:?}");
            chip.borrow_mut().damage(damaged + 77, &[0x66]);
            let error = open(&chip).load().unwrap_err();
            assert!(
                matches!(
                    error,
                    UBootEnvError::NoEnvironment {
                        first: EnvironmentDamage::Checksum,
                        second: Some(EnvironmentDamage::Checksum),
                    }
                ),
                "{error}"
            );
        }
    }
}

#[test]
fn a_single_copy_is_written_in_place() {
    for geometry in MEDIA {
        let mut flash = SimFlash::with_power("env", geometry, &Power::new(3));
        write_raw(&mut flash, 0, None, &["bootcmd=run boot"]);
        let part = Partition::new(flash, 0..0x1000).unwrap();
        let mut env = UBootEnv::single(part, SIZE, UBootVariables::default(), COMPONENTS).unwrap();
        env.store(&pending()).unwrap();
        assert_eq!(env.load().unwrap(), pending());
    }
}

#[test]
fn what_the_variables_cannot_say_is_refused() {
    let chip = board(MEDIA[0], &["bootcmd=run boot"]);
    let mut record = settled();
    record.choose("prot", SlotId::B, 10).unwrap();
    assert_eq!(
        open(&chip).store(&record).unwrap_err().to_string(),
        "10 attempts: scripts of U-Boot count to 9"
    );
    let two = [("prot", 2), ("boot", 2)];
    let part = Partition::new(&chip, 0..0x1000).unwrap();
    let error = UBootEnv::single(part, SIZE, UBootVariables::default(), &two).unwrap_err();
    assert_eq!(
        error.to_string(),
        "components prot and boot both have several slots; U-Boot's variables choose one"
    );
    let shared = UBootVariables::default().with_slots(&["B"]).unwrap();
    let part = Partition::new(&chip, 0..0x1000).unwrap();
    let error = UBootEnv::single(part, SIZE, shared, COMPONENTS).unwrap_err();
    assert!(
        matches!(error, UBootEnvError::Variables(VariableNameError::Twice(_))),
        "{error}"
    );
    for (size, text) in [
        (64, "a U-Boot environment of 64 bytes, where 4096 bytes are"),
        (
            0x2000,
            "a U-Boot environment of 8192 bytes, where 4096 bytes are",
        ),
    ] {
        let part = Partition::new(&chip, 0..0x1000).unwrap();
        let error = UBootEnv::single(part, size, UBootVariables::default(), COMPONENTS);
        assert_eq!(error.unwrap_err().to_string(), text);
    }
}

#[test]
fn variables_that_do_not_fit_leave_the_environment_as_it_was() {
    let long = format!("bootcmd={}", "x".repeat(SIZE - 100));
    let chip = board(MEDIA[0], &[&long]);
    let before = loader_sees(&chip);
    let error = open(&chip).store(&settled()).unwrap_err();
    assert!(matches!(error, UBootEnvError::Full { .. }), "{error}");
    assert_eq!(loader_sees(&chip), before);
}

#[test]
fn what_stands_behind_the_copy_in_its_erase_block_is_kept() {
    let chip = board(MEDIA[0], &["bootcmd=run boot"]);
    chip.borrow_mut().damage(0x2ffe, &[0]);
    open(&chip).store(&settled()).unwrap();
    open(&chip).store(&pending()).unwrap();
    let mut found = [0; 3];
    chip.borrow_mut().read_stored(0x2ffd, &mut found).unwrap();
    assert_eq!(found, [0xff, 0, 0xff]);
}

#[test]
fn the_variables_of_version_1_stay_as_they_are() {
    let chip = board(MEDIA[2], &["bootcmd=run boot"]);
    open(&chip).store(&pending()).unwrap();
    assert_eq!(
        loader_sees(&chip),
        [
            "bootcmd=run boot",
            "BOOT_ORDER=B A",
            "BOOT_A_LEFT=9",
            "BOOT_B_LEFT=3",
            "rekindle_record=1:a3000301030282a6006470726f7401020200030104000500a50063626d630101020004000500",
        ]
    );
}
