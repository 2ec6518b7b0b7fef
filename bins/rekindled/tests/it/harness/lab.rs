//! A server, a relay that counts, and devices that poll through it.

use super::{Device, Exchange, Fleet, Recipe, Relay, Settings, script};

/// A server, seen through a relay that counts.
pub(crate) struct Lab {
    pub(crate) fleet: Fleet,
    pub(crate) relay: Relay,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let fleet = Fleet::start();
        let relay = Relay::to(fleet.address);
        Self { fleet, relay }
    }

    pub(crate) fn device(&self, settings: &Settings) -> Device {
        Device::started(&self.relay.url("scripts/"), settings)
    }

    /// Puts an image and a script for it on the server.
    pub(crate) fn offer(&self, recipe: &Recipe, serial: &str) {
        let path = self.fleet.publish(recipe);
        let script = script(&self.relay.url(&path), serial);
        self.fleet.write_script(&script);
    }

    /// Requests for an image that go beyond its opening: header, manifest, start of the table.
    pub(crate) fn loads(&self) -> Vec<Exchange> {
        let mut exchanges = self.relay.exchanges();
        exchanges.retain(|exchange| {
            let beyond = exchange.range.as_ref().is_some_and(|range| range.start > 0);
            exchange.path.starts_with("/firmware/") && beyond
        });
        exchanges
    }
}
