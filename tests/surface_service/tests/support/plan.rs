// SPDX-License-Identifier: MIT OR Apache-2.0

//! The service's life on a simulated machine. The same for the image and for the
//! linked driver.

use std::time::Duration;

use ntsim::Machine;
use ntsim::machine::Error;
use ntsim::store::MachineDir;
use ntsim::trace::Line;
use surface_service::{ADD, NAME};

#[path = "../../../support/front_end.rs"]
mod front_end;

#[allow(unused_imports, reason = "each test program uses some of it")]
pub use front_end::{FrontEnd, Package};

/// The driver package.
pub const PACKAGE: Package = Package {
    name: "surface_service",
    inx: include_str!("../../surface_service.inx"),
    service: "DmfSurfaceService",
    entry: surface_service::Service::DRIVER_ENTRY,
};

/// Started, used, stopped and started again; then the system shuts down. The trace.
pub fn whole_life(front_end: &FrontEnd, seed: u64) -> Vec<Line> {
    live(front_end, seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn live(front_end: &FrontEnd, seed: u64) -> Result<Vec<Line>, Error> {
    let mut machine = Machine::boot(MachineDir::in_memory(), front_end.settings(seed));
    PACKAGE.install(&mut machine, front_end)?;
    for (limit, refused) in [(10_u32, 11_u32), (100, 101)] {
        machine.start_service(PACKAGE.service)?;
        let file = machine.open(NAME)?;
        let read = machine.begin_read(file, 16)?;
        for (more, status) in [(limit, 0), (refused, 0xC000_000D)] {
            let answer = machine.ioctl(file, ADD.value(), &more.to_ne_bytes(), 4)?;
            assert_eq!(answer.status, status, "seed {seed}");
        }
        let end = machine.wait(read, Duration::from_secs(1))?;
        assert_eq!(end.map(|end| end.data), Some(b"later".to_vec()));
        let read = machine.begin_read(file, 16)?;
        assert!(machine.cancel(read)?);
        let end = machine.wait(read, Duration::from_secs(1))?;
        assert_eq!(end.map(|end| end.status), Some(0xC000_0120));
        machine.close(file)?;
        machine.stop_service(PACKAGE.service)?;
        assert!(machine.open(NAME).is_err());
    }
    machine.start_service(PACKAGE.service)?;
    machine.reboot()?;
    assert!(machine.loaded_drivers().is_empty());
    Ok(machine.trace().to_vec())
}
