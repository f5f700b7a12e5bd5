// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's life on a simulated machine. The same for the image and for the
//! linked driver.

use dmf::ioctl::IoctlData;
use ntsim::store::MachineDir;
use ntsim::trace::{Event, Line};
use ntsim::{Completion, File, Machine};
use surface::{CHAPTERS, interface};

#[path = "../../../support/front_end.rs"]
mod front_end;

#[allow(unused_imports, reason = "each test program uses some of it")]
pub use front_end::{FrontEnd, Package};

/// The driver package.
pub const PACKAGE: Package = Package {
    name: "surface",
    inx: include_str!("../../surface.inx"),
    service: "DmfSurface",
    entry: surface::Surface::DRIVER_ENTRY,
};

/// A machine with the device.
struct Life {
    machine: Machine,
    device: String,
    seed: u64,
}

impl Life {
    fn new(front_end: &FrontEnd, seed: u64) -> Self {
        let mut machine = Machine::boot(MachineDir::in_memory(), front_end.settings(seed));
        let device = PACKAGE
            .install(&mut machine, front_end)
            .and_then(|()| machine.plug_in(r"Root\DmfSurface"))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        Self {
            machine,
            device,
            seed,
        }
    }

    /// Whatever happens on the machine, a bug check is the test's failure.
    #[track_caller]
    fn done<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    #[track_caller]
    fn open(&mut self) -> File {
        let file = self.machine.open(&interface::SURFACE.to_string());
        self.done(file)
    }

    #[track_caller]
    fn ioctl(&mut self, file: File, code: u32, input: &[u8], output: usize) -> Completion {
        let result = self.machine.ioctl(file, code, input, output);
        self.done(result)
    }

    fn chapters(&mut self, file: File) {
        for (number, name) in (0_u32..).zip(CHAPTERS) {
            let answer = self.ioctl(file, interface::CHAPTER.value(), &number.to_ne_bytes(), 4);
            let seed = self.seed;
            assert_eq!(
                answer.status, 0,
                "seed {seed}: {name}: {:#x}",
                answer.status
            );
            let told = u32::get(&answer.data);
            assert!(told > 2, "seed {seed}: {name}: {told} results");
        }
    }
}

/// Everything that can happen to the device. The trace.
pub fn whole_life(front_end: &FrontEnd, seed: u64) -> Vec<Line> {
    let mut life = Life::new(front_end, seed);
    let device = life.device.clone();
    let started = life.machine.start_device(&device);
    life.done(started);
    let file = life.open();
    life.chapters(file);
    let closed = life.machine.close(file);
    life.done(closed);
    let removed = life.machine.remove_device(&device);
    life.done(removed);
    life.machine.trace().to_vec()
}

/// What the driver told.
#[allow(dead_code, reason = "each test program uses some of it")]
pub fn told(trace: &[Line]) -> Vec<&str> {
    trace
        .iter()
        .filter_map(|line| match &line.what {
            Event::Print(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}
