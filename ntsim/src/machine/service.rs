// SPDX-License-Identifier: MIT OR Apache-2.0

//! Drivers that are started as services, and drivers that cannot be unloaded.
//!
//! # Vocabulary
//! - *non-PnP driver*: one without `EvtDriverDeviceAdd`. No device makes the
//!   system load it; a service control program starts and stops it.
//! - *lingering driver*: one whose last device is gone and that is still loaded,
//!   because a control device of it is.
//!
//! ```text
//!   add_service ──► stopped ── start_service: DriverEntry ──► running
//!                      ▲                                         │
//!                      └── stop_service: EvtDriverUnload ────────┘
//! ```
//!
//! See <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kernel-mode-driver-framework-with-non-pnp-drivers>.

use super::{DriverEntry, Error, Machine, Result};
use crate::bugcheck::Stop;
use crate::io::{self, DriverId};
use crate::registry::{Value, Volatility};
use crate::store::StoreError;
use crate::wdf::control;
use crate::wdf::driver;

/// Where the registry keeps services.
const SERVICES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services";

impl Machine {
    /// Adds a service for a driver that is linked into this program, as
    /// `sc create <service> type= kernel start= demand` does.
    ///
    /// # Errors
    /// [`Error::Store`] for a service that cannot be named so.
    pub fn add_service(&mut self, service: &str, entry: DriverEntry) -> Result<()> {
        let registry = &mut self.k.zw.registry;
        let mut write = || {
            let key = registry.create(format!(r"{SERVICES}\{service}"), Volatility::Persistent)?;
            for (name, number) in [("Type", 1), ("Start", 3), ("ErrorControl", 1)] {
                registry.set_value(key, name, Value::dword(number))?;
            }
            Ok(())
        };
        write().map_err(StoreError::Registry)?;
        self.link_driver(service, entry);
        Ok(())
    }

    /// Loads the driver of a service, as `sc start` does.
    ///
    /// # Errors
    /// [`Error::State`] if it is loaded, [`Error::Driver`] if its `DriverEntry`
    /// fails, [`Error::Store`] if there is no such service, [`Error::Image`],
    /// [`Error::Stop`].
    pub fn start_service(&mut self, service: &str) -> Result<()> {
        if self.k.io.loaded(service).is_some() {
            return Err(service_state(service, "running", "it is started already"));
        }
        *self.dir.registry_mut() = self.k.zw.registry.clone();
        self.load_driver(service)?;
        Ok(())
    }

    /// Unloads the driver of a service, as `sc stop` does, and reports what it
    /// left behind.
    ///
    /// # Errors
    /// [`Error::State`] if it is not loaded, has devices, has a file open, or has
    /// no `EvtDriverUnload`; [`Error::Stop`].
    pub fn stop_service(&mut self, service: &str) -> Result<()> {
        let Some(driver) = self.k.io.loaded(service) else {
            return Err(service_state(service, "stopped", "it is not started"));
        };
        if self.has_devices(driver) {
            return Err(service_state(
                service,
                "in use by devices",
                "remove its devices",
            ));
        }
        let controls = self.control_devices(driver);
        let open = controls
            .iter()
            .any(|(handle, _)| self.k.io.irps.open_files(*handle) > 0);
        if open {
            return Err(service_state(
                service,
                "open",
                "close the files of its control devices before it is stopped",
            ));
        }
        if self.unload(driver)? {
            Ok(())
        } else {
            Err(service_state(
                service,
                "running",
                "it cannot be unloaded: its driver has no EvtDriverUnload",
            ))
        }
    }

    /// The services whose drivers are loaded.
    #[must_use]
    pub fn loaded_drivers(&self) -> Vec<String> {
        let loaded = self.k.io.drivers.iter().filter(|driver| driver.loaded);
        loaded.map(|driver| driver.name.clone()).collect()
    }

    fn has_devices(&self, driver: DriverId) -> bool {
        let mut devices = self.running.values().chain(&self.ghosts);
        devices.any(|running| running.driver == driver)
    }

    fn control_devices(&self, driver: DriverId) -> Vec<(crate::wdf::object::Handle, bool)> {
        let object = self.k.io.driver(driver).object;
        driver::slot_of_object(&self.k, object)
            .map_or_else(Vec::new, |slot| control::of_driver(&self.k, slot))
    }

    /// Unloads the driver when no device of it is left, control devices included.
    pub(super) fn unload_if_unused(
        &mut self,
        driver: DriverId,
    ) -> std::result::Result<(), Box<Stop>> {
        if self.has_devices(driver) {
            return Ok(());
        }
        if self.control_devices(driver).is_empty() {
            self.lingering.retain(|other| *other != driver);
            self.unload(driver)?;
        } else if !self.lingering.contains(&driver) {
            self.lingering.push(driver);
        }
        Ok(())
    }

    /// The same, and reports a driver that forgot its control devices.
    pub(super) fn unload_after_removal(&mut self, driver: DriverId) -> Result<()> {
        self.unload_if_unused(driver)?;
        if !self.lingering.contains(&driver) {
            return Ok(());
        }
        let name = self.k.io.driver(driver).name.clone();
        let controls: Vec<_> = self
            .control_devices(driver)
            .iter()
            .filter(|(_, deleted)| !deleted)
            .map(|(handle, _)| self.k.name_of(*handle as usize).unwrap_or("it").to_owned())
            .collect();
        if controls.is_empty() {
            self.note(format!(
                "driver {name} stays loaded: files of its control device are open"
            ));
            return Ok(());
        }
        let error = Error::StaysLoaded {
            driver: name,
            controls,
        };
        self.note(error.to_string());
        Err(error)
    }

    /// Unloads the drivers that lingered and need not any more.
    pub(super) fn unload_lingering(&mut self) -> std::result::Result<(), Box<Stop>> {
        for driver in self.lingering.clone() {
            if !self.control_devices(driver).is_empty() {
                continue;
            }
            self.lingering.retain(|other| *other != driver);
            if !self.has_devices(driver) {
                self.unload(driver)?;
            }
        }
        Ok(())
    }

    /// Calls the driver's unload routine, and reports what it left behind. False
    /// if it has none.
    fn unload(&mut self, driver: DriverId) -> std::result::Result<bool, Box<Stop>> {
        let name = self.k.io.driver(driver).name.clone();
        let unloaded = self.run_thread("PnP", move || io::unload_driver(driver))?;
        if unloaded {
            self.k.guarded(|k| crate::unload::check(k, &name))?;
            self.k.io.unmap(driver);
            self.note(format!("driver {name} is unloaded; nothing is left behind"));
        }
        Ok(unloaded)
    }
}

fn service_state(service: &str, state: &'static str, problem: &'static str) -> Error {
    Error::State {
        device: service.to_owned(),
        state,
        problem,
    }
}
