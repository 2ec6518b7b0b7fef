//! Images that are really packed, a source in memory, and a simulated device on one power supply.

use core::num::NonZeroU8;
use core::ops::Range;
use std::io::Cursor as IoCursor;

use rekindle_flash::{BootRecord, Flash, Geometry, SlotId, SlotLayout, read_slot};
use rekindle_image::{
    Chunk, Compression, Downgrade, FileHeader, ImageFile, Layout, Manifest, PackOptions, SecretKey,
    SignedManifest, Trust, Unsigned, WalkError, pack,
};
use rekindle_state::{Door, Loaded, SlotRecord, State, Store, UnixTime};
use rekindle_testkit::{Fate, MemoryBootControl, Operation, Power, PowerOff, SimFlash};
use rekindle_update::{
    Converge, Donor, Input, InstallErrorOf, Installed, Output, Parts, PumpError, Region, Report,
    Request, Source, Transfer, install, pump,
};

/// An image file and what it was made of.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) signed: SignedManifest,
    pub(crate) layout: Layout,
}

impl Image {
    /// A raw image of small chunks, signed by the vendor.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self::packed(content, &options(), &[vendor()])
    }

    pub(crate) fn packed(content: &[u8], options: &PackOptions, keys: &[SecretKey]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("image");
        pack(content, &path, options, keys).expect("the image is packed");
        Self::parse(std::fs::read(&path).expect("the image is there"), content)
    }

    fn parse(bytes: Vec<u8>, content: &[u8]) -> Self {
        let header = bytes.first_chunk().expect("a header");
        let len = FileHeader::decode(header)
            .expect("a good header")
            .manifest_len;
        let end = FileHeader::LEN + usize::try_from(len).expect("a short manifest");
        let signed = SignedManifest::parse(&bytes[FileHeader::LEN..end]).expect("a good manifest");
        Self {
            layout: Layout::of(len, signed.unverified()).expect("a possible layout"),
            content: content.to_vec(),
            signed,
            bytes,
        }
    }

    /// The same table and chunks under another manifest, which the vendor signed all the same.
    pub(crate) fn with_manifest(&self, change: impl FnOnce(&mut Manifest)) -> Self {
        let mut manifest = self.manifest().clone();
        change(&mut manifest);
        let signed = SignedManifest::sign(&manifest, &[vendor()]).expect("a possible manifest");
        let manifest_len = u32::try_from(signed.bytes().len()).expect("a short manifest");
        let mut bytes = FileHeader { manifest_len }.encode().to_vec();
        bytes.extend_from_slice(signed.bytes());
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes.extend_from_slice(&self.bytes[index(self.layout.table.start)..]);
        Self {
            layout: Layout::of(manifest_len, &manifest).expect("a possible layout"),
            content: self.content.clone(),
            signed,
            bytes,
        }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.signed.unverified()
    }

    pub(crate) fn id(&self) -> [u8; 32] {
        *self.signed.id().as_bytes()
    }

    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        let mut file = ImageFile::open(IoCursor::new(&self.bytes)).expect("a good image");
        let mut chunks = Vec::new();
        file.for_each_chunk(|_, chunk| {
            chunks.push(*chunk);
            Ok::<(), WalkError>(())
        })
        .expect("a good table");
        chunks
    }

    pub(crate) fn table_len(&self) -> u64 {
        self.layout.table.end - self.layout.table.start
    }

    /// Stored bytes of the chunks that the slot does not hold: what a converge may fetch.
    pub(crate) fn missing(&self, flash: &SimFlash) -> u64 {
        self.chunks()
            .iter()
            .filter(|chunk| {
                let start = index(chunk.raw_offset);
                let range = start..start + usize::try_from(chunk.raw_len).expect("it is short");
                flash.stored()[range.clone()] != self.content[range]
            })
            .map(|chunk| u64::from(chunk.stored_len))
            .sum()
    }

    /// Whether the slot's tail says that it holds this image, complete, and it does.
    pub(crate) fn is_in(&self, flash: &mut SimFlash) -> bool {
        let layout = SlotLayout::new(&flash.geometry()).expect("a slot");
        let content = read_slot(flash, &layout).expect("the slot is read");
        let claims = content
            .whole()
            .is_some_and(|(_, held)| held.header.id == self.id());
        claims && flash.stored()[..self.content.len()] == self.content
    }
}

/// Small raw chunks for the test device.
pub(crate) fn options() -> PackOptions {
    let mut options = PackOptions::new(DEVICE_TYPE, "prot", "14r1");
    options.chunk_size = 4096;
    options.compression = Compression::None;
    options.security_version = 2;
    options
}

pub(crate) fn vendor() -> SecretKey {
    SecretKey::from_random(&[7; 32])
}

pub(crate) fn stranger() -> SecretKey {
    SecretKey::from_random(&[9; 32])
}

pub(crate) fn trust() -> Trust {
    Trust {
        keys: vec![vendor().public()],
        threshold: NonZeroU8::MIN,
        unsigned: Unsigned::Refuse,
    }
}

/// Bytes without a pattern.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let random = Power::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.random_below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Bytes that compress well.
pub(crate) fn prose(len: usize) -> Vec<u8> {
    (0_u32..)
        .flat_map(|line| format!("line {line} of a text that says little\n").into_bytes())
        .take(len)
        .collect()
}

/// `old` with a stretch of its bytes replaced.
pub(crate) fn changed(old: &[u8], range: Range<usize>) -> Vec<u8> {
    let mut new = old.to_vec();
    let fresh = noise(0xc0ffee, range.len());
    new[range].copy_from_slice(&fresh);
    new
}

/// An image file in memory.
#[derive(Clone, Debug)]
pub(crate) struct MemorySource {
    bytes: Vec<u8>,
    open: Range<usize>,
    /// Most bytes that one read delivers, in turn.
    pieces: Vec<usize>,
    turn: usize,
    /// Every range asked for.
    pub(crate) opened: Vec<Range<u64>>,
    /// What was announced last.
    pub(crate) announced: Vec<Range<u64>>,
    pub(crate) delivered: u64,
    /// Fails once so many bytes are delivered.
    pub(crate) fails_after: Option<u64>,
}

impl MemorySource {
    pub(crate) fn of(image: &Image) -> Self {
        Self::serving(image.bytes.clone())
    }

    pub(crate) fn serving(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            open: 0..0,
            pieces: vec![usize::MAX],
            turn: 0,
            opened: Vec::new(),
            announced: Vec::new(),
            delivered: 0,
            fails_after: None,
        }
    }

    pub(crate) fn in_pieces(mut self, pieces: &[usize]) -> Self {
        self.pieces = pieces.to_vec();
        self
    }

    pub(crate) fn failing_after(mut self, bytes: u64) -> Self {
        self.fails_after = Some(bytes);
        self
    }
}

impl Source for MemorySource {
    type Error = CutOff;

    fn announce(&mut self, ranges: &[Range<u64>]) {
        self.announced = ranges.to_vec();
    }

    fn open(&mut self, range: Range<u64>) -> Result<(), CutOff> {
        if self.announced.first() == Some(&range) {
            self.announced.remove(0);
        }
        let end = self.bytes.len();
        self.open = index(range.start).min(end)..index(range.end).min(end);
        self.opened.push(range);
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, CutOff> {
        let mut n = buf
            .len()
            .min(self.open.len())
            .min(self.pieces[self.turn % self.pieces.len()]);
        self.turn += 1;
        if let Some(limit) = self.fails_after {
            let left = usize::try_from(limit - self.delivered).expect("it fits into memory");
            if left == 0 {
                return Err(CutOff);
            }
            n = n.min(left);
        }
        buf[..n].copy_from_slice(&self.bytes[self.open.start..self.open.start + n]);
        self.open.start += n;
        self.delivered += u64::try_from(n).expect("it fits into memory");
        Ok(n)
    }
}

/// The connection broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the connection broke")]
pub(crate) struct CutOff;

/// State in memory on the device's power supply; a torn commit leaves the old state or the new one.
#[derive(Debug)]
pub(crate) struct PoweredStore {
    pub(crate) state: State,
    power: Power,
}

impl PoweredStore {
    pub(crate) fn new(power: &Power) -> Self {
        Self {
            state: State::default(),
            power: power.clone(),
        }
    }
}

impl Store for PoweredStore {
    type Error = PowerOff;

    fn load(&mut self) -> Result<Loaded, PowerOff> {
        self.power.check()?;
        Ok(Loaded::new(self.state.clone(), None))
    }

    fn commit(&mut self, state: &State) -> Result<(), PowerOff> {
        let operation = Operation::Other("commit".to_owned());
        let fate = self.power.begin("state", operation)?;
        if fate == Fate::Whole || self.power.random_below(2) == 0 {
            self.state = state.clone();
        }
        match fate {
            Fate::Whole => Ok(()),
            Fate::Torn => Err(PowerOff),
        }
    }
}

/// A device that runs `prot` from slot A. Images go to slot B.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) power: Power,
    pub(crate) a: SimFlash,
    pub(crate) b: SimFlash,
    pub(crate) boot: MemoryBootControl,
    pub(crate) store: PoweredStore,
}

pub(crate) type Error<F = SimFlash> =
    InstallErrorOf<F, MemoryBootControl, PoweredStore, MemorySource>;

impl Device {
    /// Slot A holds `running`, installed by a script; slot B is as it left the factory.
    pub(crate) fn new(geometry: Geometry, seed: u64, running: &Image) -> Self {
        let power = Power::new(seed);
        let record = BootRecord::new(&[("prot", 2), ("bmc", 1)]).expect("two components");
        let mut device = Self {
            a: SimFlash::with_power("A", geometry, &power),
            b: SimFlash::with_power("B", geometry, &power),
            boot: MemoryBootControl::with_power("boot", record, &power),
            store: PoweredStore::new(&power),
            power,
        };
        fill(&mut device.a, running);
        device.store.state.record_slot(SlotRecord {
            component: "prot".to_owned(),
            slot: SlotId::A,
            manifest: running.id(),
            serial: Some(OLD_SERIAL.to_vec()),
            build: running.manifest().build.clone(),
            date: None,
            door: Door::Script,
        });
        device.power.clear_log();
        device
    }

    pub(crate) fn install(&mut self, image: &Image) -> Result<Installed, Error> {
        self.install_from(&mut MemorySource::of(image))
    }

    pub(crate) fn install_from(&mut self, source: &mut MemorySource) -> Result<Installed, Error> {
        self.install_as(source, &trust(), |_| {})
    }

    /// Installs with a request that differs from the usual one.
    pub(crate) fn install_as<'a>(
        &mut self,
        source: &mut MemorySource,
        trust: &'a Trust,
        change: impl FnOnce(&mut Request<'a>),
    ) -> Result<Installed, Error> {
        let mut request = request(trust);
        change(&mut request);
        let mut parts = Parts {
            flash: &mut self.b,
            donors: &mut [],
            boot: &mut self.boot,
            store: &mut self.store,
        };
        install(&request, &mut parts, source, &mut |_| {})
    }

    /// The same over flash that misbehaves.
    pub(crate) fn install_over<F: Flash>(
        &mut self,
        wrap: impl FnOnce(SimFlash) -> F,
        unwrap: impl FnOnce(F) -> SimFlash,
        image: &Image,
    ) -> Result<Installed, Error<F>> {
        let spare = SimFlash::new(self.b.geometry(), 0);
        let mut flash = wrap(core::mem::replace(&mut self.b, spare));
        let trust = trust();
        let mut parts = Parts {
            flash: &mut flash,
            donors: &mut [],
            boot: &mut self.boot,
            store: &mut self.store,
        };
        let mut source = MemorySource::of(image);
        let result = install(&request(&trust), &mut parts, &mut source, &mut |_| {});
        self.b = unwrap(flash);
        result
    }

    pub(crate) fn restart(&mut self) {
        self.a.restart();
        self.b.restart();
    }

    /// The slot of `prot` that boots next.
    pub(crate) fn next(&self) -> Option<SlotId> {
        self.boot.record().next("prot")
    }

    /// UPDATE/PROT: the view of the slot that boots next, given the image found in it.
    pub(crate) fn serial(&self, slot: SlotId, image: &Image) -> Option<&[u8]> {
        self.store.state.slot_serial("prot", slot, &image.id())
    }

    /// Everything that an install may change, to be compared.
    pub(crate) fn snapshot(&self) -> (BootRecord, State, Vec<u8>, Vec<u8>) {
        (
            self.boot.record().clone(),
            self.store.state.clone(),
            self.a.stored().to_vec(),
            self.b.stored().to_vec(),
        )
    }
}

/// The request that every install begins with.
pub(crate) fn request(trust: &Trust) -> Request<'_> {
    Request {
        component: "prot",
        target: SlotId::B,
        in_place: false,
        running: &[("prot", SlotId::A)],
        running_manifest: None,
        device_type: DEVICE_TYPE,
        hardware: Some("102"),
        installed: &[("prot", 0)],
        trust,
        downgrade: Downgrade::Refuse,
        attempts: 3,
        serial: Some(NEW_SERIAL),
        door: Door::Script,
        now: Some(NOW),
        file_len: None,
        transfer: Transfer::default(),
    }
}

/// Converges a slot alone.
pub(crate) fn converge(
    flash: &mut SimFlash,
    image: &Image,
    source: &mut MemorySource,
) -> Result<Report, PumpError<rekindle_testkit::SimFlashError, CutOff>> {
    let mut machine = machine(flash, image);
    pump(&mut machine, flash, &mut [], source, &mut |_| {})
}

/// Converges a slot with others to copy from.
pub(crate) fn converge_from(
    flash: &mut SimFlash,
    donors: &mut [SimFlash],
    image: &Image,
    source: &mut MemorySource,
    transfer: Transfer,
) -> Result<Report, PumpError<rekindle_testkit::SimFlashError, CutOff>> {
    let geometry = flash.geometry();
    let layout = SlotLayout::new(&geometry).expect("a slot");
    let content = read_slot(flash, &layout).expect("the slot is read");
    let known: Vec<_> = donors.iter_mut().map(Donor::read).collect();
    let mut machine = Converge::new(&image.signed, geometry, layout, &content, &known, transfer)?;
    pump(&mut machine, flash, donors, source, &mut |_| {})
}

/// Runs a machine to its end with donors that answer as they are told to.
pub(crate) fn drive(
    machine: &mut Converge,
    flash: &mut SimFlash,
    source: &mut MemorySource,
    mut donors: impl FnMut(u8, u64, &mut [u8]) -> bool,
) -> Report {
    loop {
        let input = match machine.poll_output().expect("it is good") {
            Output::Read {
                from: Region::Donor(number),
                offset,
                buf,
                ..
            } => {
                if donors(number, offset, buf) {
                    Input::Done
                } else {
                    Input::Unreadable
                }
            }
            Output::Read { offset, buf, .. } => {
                flash.read_stored(offset, buf).expect("it is good");
                Input::Done
            }
            Output::Write { offset, data } => {
                flash.write(offset, data).expect("it is good");
                Input::Done
            }
            Output::Erase(range) => {
                flash.erase(range).expect("it is good");
                Input::Done
            }
            Output::Sync => {
                flash.sync().expect("it is good");
                Input::Done
            }
            Output::Fetch(range) => {
                source.open(range).expect("it is good");
                Input::Done
            }
            Output::Receive(buf) => Input::Received(source.read(buf).expect("it is good")),
            Output::Finished(report) => return report,
            _ => Input::Done,
        };
        machine.handle_input(input).expect("it is good");
    }
}

/// A converge of this slot that has done nothing yet.
pub(crate) fn machine(flash: &mut SimFlash, image: &Image) -> Converge {
    let geometry = flash.geometry();
    let layout = SlotLayout::new(&geometry).expect("a slot");
    let content = read_slot(flash, &layout).expect("the slot is read");
    let transfer = Transfer::default();
    Converge::new(&image.signed, geometry, layout, &content, &[], transfer).expect("the image fits")
}

/// Brings the image into the slot.
pub(crate) fn fill(flash: &mut SimFlash, image: &Image) {
    converge(flash, image, &mut MemorySource::of(image)).expect("nothing is in the way");
    assert!(image.is_in(flash));
}

pub(crate) fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("images here fit into memory")
}

pub(crate) const fn geometry(size: u64, write_size: u32, erase_size: u32) -> Geometry {
    Geometry {
        size,
        write_size,
        erase_size,
    }
}

/// A file or a disk, a disk of sectors, NOR of several makes, NAND.
pub(crate) const GEOMETRIES: [Geometry; 6] = [
    geometry(1 << 20, 1, 0),
    geometry(1 << 20, 512, 0),
    geometry(1 << 20, 1, 4096),
    geometry(1 << 20, 4, 4096),
    geometry(1 << 20, 256, 4096),
    geometry(1 << 20, 16, 64 * 1024),
];

pub(crate) const DEVICE_TYPE: &str = "IP1200";
pub(crate) const OLD_SERIAL: &[u8] = b"04-0001";
pub(crate) const NEW_SERIAL: &[u8] = b"04-0002";
pub(crate) const NOW: UnixTime = UnixTime::new(1_800_000_000);
