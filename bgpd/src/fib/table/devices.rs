//! Tunnel devices: what is to be done to them, and how that went.

use super::super::tunnel::{self, Failure};
use super::Table;

impl Table {
    /// All changes of devices that are wanted are about to be tried.
    pub fn begin_devices(&mut self) {
        self.refusals.begin();
    }

    /// Changes of devices that must come before those of routes.
    #[must_use]
    pub fn device_additions(&self) -> Vec<tunnel::Step> {
        tunnel::additions(&self.config, &self.world, &self.devices)
    }

    /// Changes of devices that must come after those of routes.
    #[must_use]
    pub fn device_removals(&self) -> Vec<tunnel::Step> {
        tunnel::removals(&self.config, &self.world)
    }

    /// Remembers how a change of a device went. True if the kernel refuses a setting that is needed, and that is new.
    pub fn device_result(&mut self, step: &tunnel::Step, failure: Option<Failure>) -> bool {
        if matches!((step, &failure), (tunnel::Step::DisableChecksumOffload { .. }, None)) {
            self.offloads_disabled += 1;
        }
        let Some(device) = step.device() else {
            return self.refusals.note(&self.config, &self.world, step, failure.as_ref());
        };
        match failure {
            Some(failure) => {
                self.devices.insert(device, failure);
            }
            None if matches!(step, tunnel::Step::SetUp(..)) => {
                self.devices.remove(&device);
            }
            None => {}
        }
        false
    }
}
