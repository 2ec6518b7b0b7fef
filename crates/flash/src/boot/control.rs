use crate::BootRecord;

/// Where a device keeps its one [`BootRecord`].
///
/// # Contract
///
/// - `store` is atomic and durable: after a power cut during it, `load` returns the record before
///   or the record after, never a mixture, and once it returned `Ok` always the latter. It is the
///   only commit point of an install, so a backend that answers `Ok` early bricks devices.
/// - A record that cannot be read is an error, never a default one: a default could boot a
///   half-written slot and forgets the security floor.
/// - The boot loader writes too, when it counts an attempt. It never runs at the same time.
pub trait BootControl {
    /// What went wrong, in the backend's own words.
    type Error: core::error::Error + Send + Sync + 'static;

    /// Reads the record.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is damaged beyond what the backend's redundancy covers.
    fn load(&mut self) -> Result<BootRecord, Self::Error>;

    /// Replaces the record; durable when this returns.
    ///
    /// # Errors
    ///
    /// It could not be written; then `load` returns the old record or the new one.
    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error>;
}

impl<B: BootControl + ?Sized> BootControl for &mut B {
    type Error = B::Error;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        (**self).load()
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        (**self).store(record)
    }
}
