// SPDX-License-Identifier: MIT OR Apache-2.0

//! A simulated machine with one device, whose driver is part of the test.

use std::time::Duration;

use dmf::driver::DriverEntry;
use dmf::irql::{Irql, Passive};
use ntsim::machine::Error;
use ntsim::{Machine, Settings};

/// The machine and its one device.
pub struct Probe {
    pub machine: Machine,
    pub device: String,
}

#[allow(dead_code, reason = "each test program uses some of it")]
impl Probe {
    /// The driver is installed, the device is there and not started.
    pub fn new(entry: DriverEntry, seed: u64) -> Self {
        Self::with_settings(
            entry,
            Settings {
                seed,
                ..Settings::default()
            },
        )
    }

    /// As [`new`](Self::new), for a test that keeps the driver's own threads, to look
    /// at them when it is unloaded: to the machine it is the driver that does.
    pub fn keeping_threads(entry: DriverEntry, seed: u64) -> Self {
        Self::with_settings(
            entry,
            Settings {
                seed,
                without_rules: vec![&ntsim::rules::unload::REFERENCE],
                ..Settings::default()
            },
        )
    }

    fn with_settings(entry: DriverEntry, settings: Settings) -> Self {
        let mut machine = Machine::new(settings);
        let device = machine
            .add_driver("Probe", entry)
            .unwrap_or_else(|error| panic!("{error}"));
        Self { machine, device }
    }

    /// The same, started.
    pub fn started(entry: DriverEntry, seed: u64) -> Self {
        let mut probe = Self::new(entry, seed);
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        probe
    }

    pub fn start(&mut self) -> Result<(), Error> {
        self.machine.start_device(&self.device)
    }

    pub fn power_down(&mut self) {
        self.machine
            .power_down(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn power_up(&mut self) {
        self.machine
            .power_up(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Removes the device. The driver is unloaded, and the simulator reports
    /// what it left behind.
    pub fn remove(&mut self) {
        self.machine
            .remove_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn run_for(&mut self, time: Duration) {
        self.machine
            .run_for(time)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs `body` on a system thread of the machine.
    pub fn thread<R: 'static>(
        &mut self,
        body: impl FnOnce(&mut Irql<'_, Passive>) -> R + 'static,
    ) -> R {
        self.try_thread(body)
            .unwrap_or_else(|stop| panic!("{stop}"))
    }

    /// The same, for a test that looks at the stop itself.
    pub fn try_thread<R: 'static>(
        &mut self,
        body: impl FnOnce(&mut Irql<'_, Passive>) -> R + 'static,
    ) -> Result<R, Box<ntsim::Stop>> {
        self.machine.run_thread("test", || {
            // SAFETY: system threads run at PASSIVE_LEVEL.
            body(&mut unsafe { Irql::assume() })
        })
    }

    /// The framework's callbacks in the order of their calls.
    pub fn callbacks(&self) -> Vec<&'static str> {
        let of_interest = |name: &&'static str| {
            ["Interrupt", "D0", "Wake", "SelfManagedIo"]
                .iter()
                .any(|part| name.contains(part))
        };
        let names = self
            .machine
            .trace()
            .iter()
            .filter_map(|line| match line.what {
                ntsim::trace::Event::Callback { name, .. } => Some(name),
                _ => None,
            });
        names.filter(of_interest).collect()
    }
}

/// A token for code that the framework calls at `PASSIVE_LEVEL` without one.
#[allow(dead_code, reason = "each test program uses some of it")]
pub fn passive() -> Irql<'static, Passive> {
    // SAFETY: the callers are device-add callbacks.
    unsafe { Irql::assume() }
}
