// SPDX-License-Identifier: MIT OR Apache-2.0

//! A simulated machine with one device, whose driver is part of the test.

use std::collections::BTreeMap;
use std::time::Duration;

use dmf::driver::DriverEntry;
use dmf::irql::{Irql, Passive};
use ntsim::inf::{Architecture, DriverDate, Inf, StampOptions, stamp};
use ntsim::machine::Error;
use ntsim::store::PackageSource;
use ntsim::{Machine, Settings};

/// A package for one root-enumerated device.
const INX: &str = r#"
[Version]
Signature   = "$WINDOWS NT$"
Class       = Sample
ClassGuid   = {78A1C341-4539-11d3-B88D-00C04FAD5171}
Provider    = %Name%
CatalogFile = probe.cat
PnpLockdown = 1

[DestinationDirs]
DefaultDestDir = 13

[SourceDisksNames]
1 = %Name%,,,""

[SourceDisksFiles]
probe.sys = 1,,

[Manufacturer]
%Name% = Standard,NT$ARCH$.10.0...16299

[Standard.NT$ARCH$.10.0...16299]
%Name% = Probe_Device, Root\Probe

[Probe_Device.NT]
CopyFiles = Probe_Files

[Probe_Files]
probe.sys

[Probe_Device.NT.Services]
AddService = Probe, 2, Probe_Service

[Probe_Service]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %13%\probe.sys

[Probe_Device.NT.Wdf]
KmdfService = Probe, Probe_Wdf

[Probe_Wdf]
KmdfLibraryVersion = $KMDFVERSION$

[Strings]
Name = "dmf test"
"#;

/// The machine and its one device.
pub struct Probe {
    pub machine: Machine,
    pub device: String,
}

#[allow(dead_code, reason = "each test program uses some of it")]
impl Probe {
    /// The driver is installed, the device is there and not started.
    pub fn new(entry: DriverEntry, seed: u64) -> Self {
        let mut machine = Machine::new(Settings {
            seed,
            ..Settings::default()
        });
        let date = DriverDate::new(2026, 1, 1).unwrap();
        let inf = stamp(INX, &StampOptions::new(date, [0, 1, 0, 0]));
        let package = Inf::parse("probe.inf", inf.as_bytes())
            .and_then(|inf| inf.validate_for(Architecture::Amd64))
            .unwrap();
        let files = BTreeMap::from([
            ("probe.inf".to_owned(), inf.into_bytes()),
            ("probe.sys".to_owned(), Vec::new()),
        ]);
        machine
            .install_package(&package, PackageSource::Memory(&files))
            .unwrap();
        machine.link_driver("Probe", entry);
        let device = machine.plug_in(r"Root\Probe").unwrap();
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
        self.machine
            .run_thread("test", || {
                // SAFETY: system threads run at PASSIVE_LEVEL.
                body(&mut unsafe { Irql::assume() })
            })
            .unwrap_or_else(|stop| panic!("{stop}"))
    }
}
