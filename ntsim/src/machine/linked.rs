// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device for a driver that is part of the host program: for examples and tests.

use std::collections::BTreeMap;

use super::{DriverEntry, Machine, Result};
use crate::inf::{Architecture, DriverDate, Inf, StampOptions, stamp};
use crate::store::{PackageSource, StoreError};

/// The package of a root-enumerated device, with `@` for its service.
const INX: &str = r#"
[Version]
Signature   = "$WINDOWS NT$"
Class       = Sample
ClassGuid   = {78A1C341-4539-11d3-B88D-00C04FAD5171}
Provider    = %Name%
CatalogFile = @.cat
PnpLockdown = 1

[DestinationDirs]
DefaultDestDir = 13

[SourceDisksNames]
1 = %Name%,,,""

[SourceDisksFiles]
@.sys = 1,,

[Manufacturer]
%Name% = Standard,NT$ARCH$.10.0...16299

[Standard.NT$ARCH$.10.0...16299]
%Name% = @_Device, Root\@

[@_Device.NT]
CopyFiles = @_Files

[@_Files]
@.sys

[@_Device.NT.Services]
AddService = @, 2, @_Service

[@_Service]
ServiceType   = 1
StartType     = 3
ErrorControl  = 1
ServiceBinary = %13%\@.sys

[@_Device.NT.Wdf]
KmdfService = @, @_Wdf

[@_Wdf]
KmdfLibraryVersion = $KMDFVERSION$

[Strings]
Name = "@, part of the host program"
"#;

impl Machine {
    /// Installs a package for a driver that is linked into this program, and
    /// plugs in a device for it, `Root\<service>`; gives the device's instance id.
    ///
    /// [`plug_in`](Self::plug_in) adds further devices to it.
    ///
    /// # Errors
    /// [`Error::Store`](super::Error::Store) for a service that cannot be named so.
    pub fn add_driver(&mut self, service: &str, entry: DriverEntry) -> Result<String> {
        self.link_driver(service, entry);
        self.add_image(service, Vec::new())
    }

    /// Installs a package for a driver whose image is given, without an INF of its
    /// own, and plugs in a device for it, `Root\<service>`; gives the device's
    /// instance id.
    ///
    /// # Errors
    /// As [`add_driver`](Self::add_driver). A bad image is noticed when the device starts.
    ///
    /// # Panics
    /// Never: the date is one.
    pub fn add_image(&mut self, service: &str, image: Vec<u8>) -> Result<String> {
        let date = DriverDate::new(2026, 1, 1).expect("a date of the calendar");
        let options = StampOptions::new(date, [0, 1, 0, 0]);
        let inf = stamp(&INX.replace('@', service), &options);
        let name = format!("{service}.inf");
        let package = Inf::parse(&name, inf.as_bytes())
            .and_then(|inf| inf.validate_for(Architecture::Amd64))
            .map_err(StoreError::Inf)?;
        let files = BTreeMap::from([(name, inf.into_bytes()), (format!("{service}.sys"), image)]);
        self.install_package(&package, PackageSource::Memory(&files))?;
        self.plug_in(&format!(r"Root\{service}"))
    }
}

/// Runs `body` on a fresh machine with one working device, whose driver has this
/// entry point; then removes the device, which unloads the driver and reports
/// what it left behind. For examples and small tests.
///
/// The service is named `Example`. Gives what `body` returns.
///
/// # Panics
/// If the driver fails to start, or the simulation ends in a bug check or a
/// deadlock; the report is the message.
pub fn run_driver<R>(entry: DriverEntry, body: impl FnOnce(&mut Machine, &str) -> R) -> R {
    let mut machine = Machine::default();
    let mut run = || {
        let device = machine.add_driver("Example", entry)?;
        machine.start_device(&device)?;
        Ok::<_, super::Error>(device)
    };
    let device = run().unwrap_or_else(|error| panic!("{error}"));
    let value = body(&mut machine, &device);
    machine
        .remove_device(&device)
        .unwrap_or_else(|error| panic!("{error}"));
    value
}
