use rekindle_flash::{BootControl, BootRecord};

use crate::power::{Fate, Operation, Power, PowerOff};

/// Boot control in memory, on the power supply of a simulated device.
///
/// A store that the power cut interrupts leaves the old record or the new one, by the seed.
#[derive(Debug)]
pub struct MemoryBootControl {
    name: String,
    record: BootRecord,
    power: Power,
}

impl MemoryBootControl {
    /// Returns boot control with a power supply of its own.
    #[must_use]
    pub fn new(record: BootRecord) -> Self {
        Self::with_power("boot", record, &Power::new(0))
    }

    /// Returns boot control that shares its power supply with other parts of a device. `name` is
    /// how the log calls it.
    #[must_use]
    pub fn with_power(name: &str, record: BootRecord, power: &Power) -> Self {
        Self {
            name: name.to_owned(),
            record,
            power: power.clone(),
        }
    }

    /// Returns the record, whether the power is on or not.
    #[must_use]
    pub fn record(&self) -> &BootRecord {
        &self.record
    }
}

impl BootControl for MemoryBootControl {
    type Error = PowerOff;

    fn load(&mut self) -> Result<BootRecord, Self::Error> {
        self.power.check()?;
        Ok(self.record.clone())
    }

    fn store(&mut self, record: &BootRecord) -> Result<(), Self::Error> {
        let fate = self
            .power
            .begin(&self.name, Operation::Store(record.clone()))?;
        let stored = fate == Fate::Whole || self.power.random_below(2) == 0;
        if stored {
            self.record = record.clone();
        }
        match fate {
            Fate::Whole => Ok(()),
            Fate::Torn => Err(PowerOff),
        }
    }
}
