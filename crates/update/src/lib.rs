//! The two engines of an update, without I/O: the maintenance run, which works through a script,
//! and converge, which makes a slot match an image.
//!
//! Around them: an install, from the first byte of an image to the choice of its slot, and the
//! start of an agent, which confirms a trial or notices a fallback. It is no agent: sockets, files,
//! clocks and threads are the caller's, and so is the update lock.
//!
//! # Model
//!
//! A caller has the [`Flash`] of a slot, the device's [`BootControl`] and state [`Store`], and a
//! [`Source`] that delivers ranges of an image file. [`install`] verifies the manifest, withdraws
//! the slot in boot control, has [`Converge`] fetch what the slot lacks, records what it holds, and
//! chooses it. After the restart [`standing`] says whether the trial runs, [`confirm`] makes it
//! the new normal, [`give_up`] records why not. What is to be installed at all, a [`run`] finds
//! out from a maintenance script.
//!
//! [`Flash`]: rekindle_flash::Flash
//! [`BootControl`]: rekindle_flash::BootControl
//! [`Store`]: rekindle_state::Store
//!
//! # An update and its trial
//!
//! ```
//! use core::convert::Infallible;
//! use core::ops::Range;
//!
//! use rekindle_flash::{BootControl, BootRecord, Geometry, SlotId};
//! use rekindle_image::{Downgrade, PackOptions, SecretKey, Trust, Unsigned, pack};
//! use rekindle_state::{Door, MemoryStore};
//! use rekindle_testkit::{MemoryBootControl, SimFlash};
//! use rekindle_update::{
//!     Installed, Parts, Request, SlotFacts, Source, Standing, Transfer, confirm, install, standing,
//! };
//!
//! /// An image in memory; on a device a web server, asked for ranges.
//! struct Image(Vec<u8>, Range<usize>);
//!
//! impl Source for Image {
//!     type Error = Infallible;
//!
//!     fn open(&mut self, range: Range<u64>) -> Result<(), Infallible> {
//!         let end = self.0.len();
//!         let within = |at: u64| usize::try_from(at).map_or(end, |at| at.min(end));
//!         self.1 = within(range.start)..within(range.end);
//!         Ok(())
//!     }
//!
//!     fn read(&mut self, buf: &mut [u8]) -> Result<usize, Infallible> {
//!         let n = buf.len().min(self.1.len());
//!         buf[..n].copy_from_slice(&self.0[self.1.start..self.1.start + n]);
//!         self.1.start += n;
//!         Ok(n)
//!     }
//! }
//!
//! // At the vendor's.
//! let key = SecretKey::from_random(&[7; 32]);
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("ip1200.bin");
//! let options = PackOptions::new("IP1200", "prot", "14r1");
//! pack(&b"new firmware"[..], &path, &options, &[key.clone()])?;
//!
//! // On the device, which runs slot A.
//! let geometry = Geometry { size: 1 << 20, write_size: 256, erase_size: 4096 };
//! let mut flash = SimFlash::new(geometry, 1);
//! let mut boot = MemoryBootControl::new(BootRecord::new(&[("prot", 2)])?);
//! let mut store = MemoryStore::default();
//! let trust = Trust {
//!     keys: vec![key.public()],
//!     threshold: core::num::NonZeroU8::MIN,
//!     unsigned: Unsigned::Refuse,
//! };
//! let request = Request {
//!     component: "prot",
//!     target: SlotId::B,
//!     in_place: false,
//!     running: &[("prot", SlotId::A)],
//!     running_manifest: None,
//!     device_type: "IP1200",
//!     hardware: None,
//!     installed: &[],
//!     trust: &trust,
//!     downgrade: Downgrade::Refuse,
//!     attempts: 3,
//!     serial: Some(b"04-5656"),
//!     door: Door::Script,
//!     now: None,
//!     file_len: None,
//!     transfer: Transfer::default(),
//! };
//! let mut source = Image(std::fs::read(&path)?, 0..0);
//! // Chunks are copied from the other slots of the device; this one has none to copy from.
//! let mut parts =
//!     Parts { flash: &mut flash, donors: &mut [], boot: &mut boot, store: &mut store };
//! let installed = install(&request, &mut parts, &mut source, &mut |_progress| {})?;
//! assert!(matches!(installed, Installed::Chosen(_)));
//!
//! // The boot loader, then the agent in the new slot, once it is healthy.
//! let mut record = boot.load()?;
//! record.start();
//! boot.store(&record)?;
//! assert_eq!(standing(&record, &[("prot", SlotId::B)]), Standing::OnTrial);
//! let running = SlotFacts {
//!     component: "prot",
//!     slot: SlotId::B,
//!     manifest: None,
//!     build: "14r1",
//!     security_version: 0,
//! };
//! confirm(&mut boot, &mut store, &[running])?;
//! assert_eq!(standing(&boot.load()?, &[("prot", SlotId::B)]), Standing::Settled);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - Power cuts: the only commit point of an install is the last write to boot control. A cut
//!   before it boots what booted before, a cut after it starts the trial, and in both cases the same
//!   call continues. `docs/architecture.md` has the order; the tests cut at every operation.
//! - Hostile input: a source is trusted with nothing. Manifest, table and every chunk are checked
//!   before they are used; what is refused for what it is, is refused before anything is written.
//! - Memory: [`Converge`] holds two paths of chunk tables, two chunks, one erase block (256 KiB
//!   on flash without), 512 KiB to read and 256 KiB to copy, the lists of two windows of 16 MiB, a plan of
//!   at most 32768 chunks (512 KiB, and as much again where each is a request of its own), and two bits a
//!   chunk. Nothing else grows with the image, and nothing with the donors.
//! - What is fetched: no chunk that the slot holds in place or that an undamaged donor holds, and a
//!   repeated one once. [`Transfer::max_download`] is never passed.
//! - Cancelling: drop a machine at any moment, the flash says where to continue.
//! - Nothing panics on what comes from a source or a medium.
//!
//! # Features
//!
//! None by default: `no_std` with an allocator. Compressed chunks need `zstd` (the C library) or
//! `ruzstd` (pure Rust, `no_std`).

#![no_std]

extern crate alloc;

mod around;
mod converge;
mod install;
mod keys;
mod pump;
mod repair;
pub mod run;
mod scrub;
mod trial;
pub mod url;

pub use converge::{
    Converge, ConvergeError, Donor, Input, Output, Phase, Progress, Region, Report, Transfer,
};
pub use install::{
    Held, InstallError, InstallErrorOf, Installed, Outcome, Parts, Request, held_manifest, install,
    stage, staged_manifest,
};
pub use keys::{Adoption, RunningManifest, adopt_keys, adopted_keys, recorded_key_set};
pub use pump::{PumpError, Source, pump};
pub use repair::{
    OriginError, RecoverRequest, Recovered, RepairError, RepairErrorOf, RepairRefused,
    RepairRequest, RepairWay, Repaired, SameImageError, recover, repair, repair_elsewhere,
    repair_way,
};
pub use scrub::{
    DamagedRange, Findings, HeldImage, Scrub, ScrubError, ScrubReport, ScrubStep, Tail, TailError,
    inspect, scrub,
};
pub use trial::{SlotFacts, Standing, TrialError, confirm, give_up, standing};
