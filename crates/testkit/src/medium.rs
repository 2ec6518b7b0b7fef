use alloc::sync::Arc;

use rekindle_flash::{Flash as _, Geometry};

use crate::cells::Cells;
use crate::flash::SimFlash;
use crate::power::Power;
use crate::preset::Preset;

/// What one flash of a device keeps without power. A copy costs nothing until one of them changes.
#[derive(Clone, Debug)]
pub struct Medium {
    pub(crate) name: Arc<str>,
    pub(crate) geometry: Geometry,
    /// How many bytes of a write a cut leaves whole or tears.
    pub(crate) word: u32,
    pub(crate) cells: Arc<Cells>,
}

impl Medium {
    /// Returns a new medium of this kind and size; `name` is how logs call it.
    ///
    /// # Panics
    ///
    /// If the size is no multiple of the preset's units, or too large for memory.
    #[must_use]
    pub fn new(name: &str, preset: &Preset, size: u64) -> Self {
        let geometry = preset.geometry(size);
        Self {
            name: name.into(),
            geometry,
            word: preset.word,
            cells: Arc::new(Cells::new(&geometry, preset.unstable)),
        }
    }

    /// Returns a new medium of any geometry, on which a cut tears single write units.
    ///
    /// # Panics
    ///
    /// If the geometry makes no sense, or is too large for memory.
    #[must_use]
    pub fn of_geometry(name: &str, geometry: Geometry) -> Self {
        Self {
            name: name.into(),
            geometry,
            word: geometry.write_size,
            cells: Arc::new(Cells::new(&geometry, false)),
        }
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the size and the units.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Returns the bytes on it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.cells.bytes()
    }

    /// Switches it on.
    #[must_use]
    pub fn start(&self, power: &Power) -> SimFlash {
        SimFlash::from_medium(self.clone(), power)
    }

    /// Changes bytes behind everybody's back, as failing cells do.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds.
    pub fn damage(&mut self, offset: u64, bytes: &[u8]) {
        Arc::make_mut(&mut self.cells).damage(offset, bytes);
    }
}

impl From<&SimFlash> for Medium {
    /// What is there for certain: everything up to the last sync.
    fn from(flash: &SimFlash) -> Self {
        debug_assert_eq!(flash.geometry(), flash.medium().geometry);
        flash.medium().clone()
    }
}
