use rekindle_flash::Geometry;

/// A kind of flash, as devices have it.
#[expect(clippy::exhaustive_structs, reason = "vendors describe their own")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Preset {
    /// How a run names it.
    pub name: &'static str,
    /// Bytes of a write unit.
    pub write_size: u32,
    /// Bytes of an erase block; 0: the medium overwrites.
    pub erase_size: u32,
    /// Bytes of a write that a power cut leaves whole or tears: the write unit, or the pages of a
    /// cache in front of the medium.
    pub word: u32,
    /// A torn word reads differently each time.
    pub unstable: bool,
}

impl Preset {
    /// Serial NOR flash in blocks of 4 KiB, written byte by byte.
    pub const NOR_BYTE: Self = Self::nor("nor-4k-1", 1, 4096);
    /// The same in words of 4 bytes, as of many microcontrollers.
    pub const NOR_WORD: Self = Self::nor("nor-4k-4", 4, 4096);
    /// The same in double words of 8 bytes.
    pub const NOR_DOUBLE: Self = Self::nor("nor-4k-8", 8, 4096);
    /// Serial NOR flash written in pages of 256 bytes.
    pub const NOR_PAGE: Self = Self::nor("nor-4k-256", 256, 4096);
    /// NOR flash in blocks of 64 KiB.
    pub const NOR_LARGE: Self = Self::nor("nor-64k-8", 8, 64 * 1024);
    /// Flash with a checksum over each word of 32 bytes: a word takes one write, and a torn one
    /// reads differently each time.
    pub const ONCE: Self = Self {
        unstable: true,
        ..Self::nor("once-4k-32", 32, 4096)
    };
    /// A disk or an eMMC: sectors of 512 bytes, no erase.
    pub const SECTORS: Self = Self {
        name: "emmc-512",
        write_size: 512,
        erase_size: 0,
        word: 512,
        unstable: false,
    };
    /// A file: any byte can be written, and what is not synced reaches the disk in pages of 4096
    /// bytes, in any order.
    pub const FILE: Self = Self {
        name: "file-4k",
        write_size: 1,
        erase_size: 0,
        word: 4096,
        unstable: false,
    };

    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NOR_BYTE,
        Self::NOR_WORD,
        Self::NOR_DOUBLE,
        Self::NOR_PAGE,
        Self::NOR_LARGE,
        Self::ONCE,
        Self::SECTORS,
        Self::FILE,
    ];

    const fn nor(name: &'static str, write_size: u32, erase_size: u32) -> Self {
        Self {
            name,
            write_size,
            erase_size,
            word: write_size,
            unstable: false,
        }
    }

    /// Returns the geometry of so many bytes of it.
    #[must_use]
    pub const fn geometry(&self, size: u64) -> Geometry {
        Geometry {
            size,
            write_size: self.write_size,
            erase_size: self.erase_size,
        }
    }
}
