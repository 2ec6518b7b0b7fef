use rekindle_flash::{
    BootControl, BootCopy, BootCopyError, BootRecord, Flash, FlashBootControl,
    FlashBootControlError, Geometry, Partition, SlotId,
};
use rekindle_testkit::{Fault, SimFlash, SimFlashError};

const COMPONENTS: &[(&str, u8)] = &[("prot", 2), ("boot", 3), ("bmc", 1)];
const NOR: Geometry = Geometry {
    size: 8192,
    write_size: 4,
    erase_size: 4096,
};
const GEOMETRIES: [Geometry; 6] = [
    NOR,
    Geometry {
        size: 131_072,
        write_size: 1,
        erase_size: 65536,
    },
    Geometry {
        size: 16384,
        write_size: 256,
        erase_size: 256,
    },
    Geometry {
        size: 8192,
        write_size: 512,
        erase_size: 0,
    },
    Geometry {
        size: 32768,
        write_size: 8192,
        erase_size: 0,
    },
    Geometry {
        size: 8400,
        write_size: 24,
        erase_size: 0,
    },
];

type Control = FlashBootControl<SimFlash>;
type ControlError = FlashBootControlError<SimFlashError>;

fn fresh() -> BootRecord {
    BootRecord::new(COMPONENTS).unwrap()
}

fn created(geometry: Geometry, seed: u64) -> Control {
    FlashBootControl::create(SimFlash::new(geometry, seed), &fresh()).unwrap()
}

fn with_floor(floor: u64) -> BootRecord {
    let mut record = fresh();
    record.raise_floor("prot", floor).unwrap();
    record
}

fn restarted(control: Control) -> SimFlash {
    let mut flash = control.into_inner();
    flash.restart();
    flash
}

fn area(geometry: Geometry) -> u64 {
    4096_u64.next_multiple_of(geometry.erase_size.max(geometry.write_size).into())
}

#[test]
fn copies_take_turns_and_lie_in_erase_blocks_of_their_own() {
    for geometry in GEOMETRIES {
        let mut control = created(geometry, 1);
        assert_eq!(control.load(), Ok(fresh()));
        for floor in 2..=5 {
            control.store(&with_floor(floor)).unwrap();
            assert_eq!(control.load(), Ok(with_floor(floor)));
        }
        let flash = restarted(control);
        let second = usize::try_from(area(geometry)).unwrap();
        for (start, sequence) in [(0, 5), (second, 4)] {
            let copy = BootCopy {
                sequence,
                record: with_floor(sequence),
            };
            assert_eq!(
                flash.stored()[start..start + 4096],
                copy.encode(),
                "{geometry:?}"
            );
        }
        let mut control = FlashBootControl::open(flash, COMPONENTS).unwrap();
        assert_eq!(control.load(), Ok(with_floor(5)));
    }
}

#[test]
fn without_erase_blocks_it_is_the_file_of_the_format() {
    let flash = restarted(created(GEOMETRIES[3], 1));
    let copy = BootCopy {
        sequence: 1,
        record: fresh(),
    };
    assert_eq!(flash.stored()[..4096], copy.encode());
    assert_eq!(flash.stored()[4096..], [0; 4096]);
}

#[test]
fn a_cut_at_any_operation_of_a_store_leaves_the_record_before_or_after() {
    for geometry in GEOMETRIES {
        let mut control = created(geometry, 0);
        let flash = restarted(control);
        let before = flash.power().operations();
        control = FlashBootControl::open(flash, COMPONENTS).unwrap();
        control.store(&with_floor(2)).unwrap();
        control.store(&with_floor(3)).unwrap();
        let operations = control.into_inner().power().operations() - before;
        let mut kept = [0; 4];
        for cut in 1..=operations + 1 {
            for seed in 0..8 {
                let (found, asked) = cut_while_storing(geometry, seed, cut);
                assert!(
                    found == asked || found + 1 == asked,
                    "{geometry:?}, cut {cut}, seed {seed}: {found} after {asked} was stored"
                );
                kept[usize::try_from(found).unwrap()] += 1;
            }
        }
        assert!(kept[1..].iter().all(|count| *count > 0), "{kept:?}");
    }
}

/// Returns the floor that is found after the restart, and that of the store that was cut.
fn cut_while_storing(geometry: Geometry, seed: u64, cut: u64) -> (u64, u64) {
    let mut flash = restarted({
        let mut control = created(geometry, seed);
        control.store(&with_floor(1)).unwrap();
        control
    });
    flash.cut_after(cut);
    let mut asked = 1;
    let flash = match FlashBootControl::open(&mut flash, COMPONENTS) {
        Err(_) => flash,
        Ok(mut control) => {
            for floor in 2..=3 {
                asked = floor;
                if control.store(&with_floor(floor)).is_err() {
                    assert_eq!(control.load(), Err(FlashBootControlError::Failed));
                    break;
                }
            }
            flash
        }
    };
    let mut flash = flash;
    flash.restart();
    let mut control = FlashBootControl::open(flash, COMPONENTS).unwrap();
    let found = control.load().unwrap();
    // What follows works, whatever the cut left of the blocks.
    for floor in 10..=12 {
        control.store(&with_floor(floor)).unwrap();
    }
    let mut control = FlashBootControl::open(restarted(control), COMPONENTS).unwrap();
    assert_eq!(control.load(), Ok(with_floor(12)));
    let floor = found.component("prot").unwrap().security_floor;
    assert_eq!(found, with_floor(floor));
    (floor, asked)
}

#[test]
fn a_cut_while_the_first_record_is_made_leaves_none_and_the_next_try_makes_it() {
    for cut in 1..=5 {
        for seed in 0..16 {
            let mut flash = SimFlash::new(NOR, seed);
            flash.cut_after(cut);
            FlashBootControl::create(&mut flash, &fresh()).unwrap_err();
            flash.restart();
            let control = match FlashBootControl::open(&mut flash, COMPONENTS) {
                Ok(control) => control,
                Err(FlashBootControlError::Empty | FlashBootControlError::Damaged { .. }) => {
                    FlashBootControl::create(&mut flash, &fresh()).unwrap()
                }
                Err(error) => panic!("{error}"),
            };
            drop(control);
            flash.restart();
            assert_eq!(
                FlashBootControl::open(flash, COMPONENTS).unwrap().load(),
                Ok(fresh())
            );
        }
    }
}

#[test]
fn a_flash_that_was_never_written_is_told_from_a_damaged_one() {
    for geometry in GEOMETRIES {
        let error = FlashBootControl::open(SimFlash::new(geometry, 1), COMPONENTS).unwrap_err();
        assert_eq!(error, FlashBootControlError::Empty);
    }
    let mut flash = created(NOR, 1).into_inner();
    flash.damage(40, b"\xee");
    let error: ControlError = FlashBootControl::open(flash, COMPONENTS).unwrap_err();
    assert_eq!(
        error,
        FlashBootControlError::Damaged {
            first: BootCopyError::Checksum,
            second: BootCopyError::Empty
        }
    );
}

#[test]
fn what_holds_a_record_is_not_created_again() {
    let mut control = created(NOR, 1);
    control.store(&with_floor(7)).unwrap();
    let mut flash = control.into_inner();
    flash.damage(0, b"xxxx");
    let error = FlashBootControl::create(&mut flash, &fresh()).unwrap_err();
    assert_eq!(error, FlashBootControlError::Exists);
    let mut control = FlashBootControl::open(flash, COMPONENTS).unwrap();
    assert_eq!(control.load(), Ok(with_floor(7)), "with its floor");
}

#[test]
fn a_damaged_copy_gives_way_to_the_other_and_is_written_next() {
    let mut control = created(NOR, 1);
    control.store(&with_floor(2)).unwrap();
    let mut flash = control.into_inner();
    flash.damage(4096 + 40, b"\xee");
    let mut control = FlashBootControl::open(flash, COMPONENTS).unwrap();
    assert_eq!(control.load(), Ok(fresh()));
    control.store(&with_floor(3)).unwrap();
    let flash = restarted(control);
    assert_eq!(
        flash.stored()[4096..],
        BootCopy {
            sequence: 2,
            record: with_floor(3)
        }
        .encode()
    );
}

#[test]
fn a_record_that_a_start_has_found_outlives_its_copy_once_it_is_stored_again() {
    for geometry in GEOMETRIES {
        let mut control = created(geometry, 1);
        control.store(&with_floor(2)).unwrap();
        let mut control = FlashBootControl::open(restarted(control), COMPONENTS).unwrap();
        control.store(&with_floor(2)).unwrap();
        // The store before the start was cut off at its very end, and its cells fade.
        let mut flash = control.into_inner();
        flash.damage(area(geometry) + 40, b"\xee");
        let mut control = FlashBootControl::open(flash, COMPONENTS).unwrap();
        assert_eq!(control.load(), Ok(with_floor(2)), "{geometry:?}");
    }
}

#[test]
fn a_flash_without_room_for_two_copies_is_refused() {
    for (geometry, needed) in [
        (Geometry { size: 4096, ..NOR }, 8192),
        (
            Geometry {
                size: 65536,
                erase_size: 65536,
                ..NOR
            },
            131_072,
        ),
    ] {
        let error = FlashBootControl::create(SimFlash::new(geometry, 1), &fresh()).unwrap_err();
        assert_eq!(
            error,
            FlashBootControlError::TooSmall {
                size: geometry.size,
                needed
            }
        );
    }
}

#[test]
fn the_record_is_fitted_to_the_components_that_are_configured() {
    let mut control = created(NOR, 1);
    let mut record = fresh();
    record.choose("boot", SlotId::new(2).unwrap(), 3).unwrap();
    control.store(&record).unwrap();
    let mut flash = control.into_inner();
    let more = [("prot", 3), ("boot", 3), ("radio", 2)];
    let mut control = FlashBootControl::open(&mut flash, &more).unwrap();
    let fitted = control.load().unwrap();
    assert_eq!(fitted.component("prot").unwrap().slots, 3);
    assert!(fitted.component("radio").is_some());
    assert!(fitted.component("bmc").is_some(), "kept, with its floor");
    let error = FlashBootControl::open(&mut flash, &[("boot", 2)]).unwrap_err();
    assert!(
        matches!(error, FlashBootControlError::Configuration(_)),
        "the chosen slot must not be lost: {error}"
    );
}

/// Flash whose cells in one place were left between two values.
struct Wavering {
    inner: SimFlash,
    at: u64,
    reads: u8,
}

impl Flash for Wavering {
    type Error = SimFlashError;

    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        self.inner.read(offset, buf)
    }

    /// Every second reading of the place is wrong.
    fn read_stored(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), SimFlashError> {
        self.inner.read_stored(offset, buf)?;
        let index = self.at.checked_sub(offset).map(usize::try_from);
        if let Some(byte) = index.and_then(|index| buf.get_mut(index.unwrap())) {
            self.reads += 1;
            *byte ^= self.reads % 2;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), SimFlashError> {
        self.inner.write(offset, data)
    }

    fn erase(&mut self, range: core::ops::Range<u64>) -> Result<(), SimFlashError> {
        self.inner.erase(range)
    }

    fn sync(&mut self) -> Result<(), SimFlashError> {
        self.inner.sync()
    }
}

#[test]
fn a_copy_that_reads_differently_from_one_time_to_the_next_does_not_count() {
    for reads in [0, 1] {
        let mut control = created(NOR, 1);
        control.store(&with_floor(2)).unwrap();
        let wavering = Wavering {
            inner: control.into_inner(),
            at: 4096 + 50,
            reads,
        };
        let mut control = FlashBootControl::open(wavering, COMPONENTS).unwrap();
        for _ in 0..4 {
            assert_eq!(control.load(), Ok(fresh()));
        }
        // Worn out, it cannot be the place of a record either, and that is noticed.
        assert_eq!(
            control.store(&with_floor(3)),
            Err(FlashBootControlError::ReadBack { offset: 4096 })
        );
    }
}

#[test]
fn boot_control_takes_a_part_of_a_chip() {
    let chip = SimFlash::new(Geometry { size: 65536, ..NOR }, 1);
    let part = Partition::new(chip, 16384..24576).unwrap();
    let mut control = FlashBootControl::create(part, &fresh()).unwrap();
    control.store(&with_floor(2)).unwrap();
    let chip = control.into_inner().into_inner();
    let untouched = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0xff);
    assert!(untouched(&chip.stored()[..16384]) && untouched(&chip.stored()[24576..]));
}

#[test]
fn a_copy_that_cannot_be_read_gives_way_and_only_both_together_are_an_error_of_the_flash() {
    let mut control = created(NOR, 1);
    control.store(&with_floor(2)).unwrap();
    let mut flash = control.into_inner();
    flash.inject(Fault::Read(4096 + 100..4096 + 101));
    let mut control = FlashBootControl::open(&mut flash, COMPONENTS).unwrap();
    assert_eq!(control.load(), Ok(fresh()), "the older one");
    flash.damage(40, b"\xee");
    let error: ControlError = FlashBootControl::open(&mut flash, COMPONENTS)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error,
        FlashBootControlError::Damaged {
            first: BootCopyError::Checksum,
            second: BootCopyError::Unreadable
        }
    );
    flash.inject(Fault::Read(0..1));
    let error = FlashBootControl::open(&mut flash, COMPONENTS).unwrap_err();
    assert!(matches!(error, FlashBootControlError::Flash(_)), "{error}");
}

#[test]
fn a_store_that_failed_is_tried_again_after_it_was_opened_anew() {
    let mut control = created(NOR, 1);
    control.store(&with_floor(2)).unwrap();
    for fault in [Fault::Erase(0..4096), Fault::Write(0..1), Fault::Sync(0)] {
        let mut flash = restarted(control);
        flash.inject(fault);
        let mut failing = FlashBootControl::open(&mut flash, COMPONENTS);
        if let Ok(failing) = &mut failing {
            let error = failing.store(&with_floor(3)).unwrap_err();
            assert!(matches!(error, FlashBootControlError::Flash(_)), "{error}");
            assert_eq!(failing.load(), Err(FlashBootControlError::Failed));
        }
        drop(failing);
        flash.heal();
        flash.restart();
        control = FlashBootControl::open(flash, COMPONENTS).unwrap();
        assert_eq!(control.load(), Ok(with_floor(2)));
    }
    control.store(&with_floor(3)).unwrap();
    assert_eq!(control.load(), Ok(with_floor(3)));
}
