// SPDX-License-Identifier: MIT OR Apache-2.0

//! The mailbox on a simulated machine: how it gets there, and what programs do
//! with it. The same for the image and for the linked driver.

use std::time::Duration;

use dmf::ioctl::IoctlData;
use mailbox::interface::{self, Statistics};
use ntsim::store::MachineDir;
use ntsim::trace::Line;
use ntsim::{Completion, File, Machine, Pending};

#[path = "../../../../tests/support/front_end.rs"]
mod front_end;

#[allow(unused_imports, reason = "each test program uses one")]
pub use front_end::{FrontEnd, Package};

/// The driver package.
pub const PACKAGE: Package = Package {
    name: "mailbox",
    inx: include_str!("../../mailbox.inx"),
    service: "DmfMailbox",
    entry: mailbox::Mailbox::DRIVER_ENTRY,
};

/// The mailbox's hardware id.
const HARDWARE_ID: &str = r"Root\DmfMailbox";

#[allow(dead_code, reason = "each test program uses some of them")]
mod status {
    pub const SUCCESS: u32 = 0;
    pub const CANCELLED: u32 = 0xC000_0120;
    pub const BUFFER_OVERFLOW: u32 = 0x8000_0005;
    pub const BUFFER_TOO_SMALL: u32 = 0xC000_0023;
    pub const INVALID_PARAMETER: u32 = 0xC000_000D;
    pub const NOT_SUPPORTED: u32 = 0xC000_00BB;
    pub const INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;
}
#[allow(unused_imports, reason = "as above")]
pub use status::*;

/// A machine with one mailbox.
pub struct Box {
    pub machine: Machine,
    pub device: String,
    pub seed: u64,
}

#[allow(dead_code, reason = "each test program uses some of it")]
impl Box {
    /// The package is installed, and the device is plugged in and started.
    pub fn started(front_end: &FrontEnd, seed: u64) -> Self {
        let mut machine = Machine::boot(MachineDir::in_memory(), front_end.settings(seed));
        let device = PACKAGE
            .install(&mut machine, front_end)
            .and_then(|()| machine.plug_in(HARDWARE_ID))
            .and_then(|device| machine.start_device(&device).map(|()| device))
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        Self {
            machine,
            device,
            seed,
        }
    }

    /// Whatever happens on the machine, a bug check is the test's failure.
    fn done<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    pub fn open(&mut self) -> File {
        let file = self.machine.open(&interface::MAILBOX.to_string());
        self.done(file)
    }

    pub fn close(&mut self, file: File) {
        let result = self.machine.close(file);
        self.done(result);
    }

    pub fn write(&mut self, file: File, bytes: &[u8]) -> u32 {
        let result = self.machine.write(file, bytes);
        self.done(result).status
    }

    /// Reads what must be there.
    pub fn read(&mut self, file: File) -> Vec<u8> {
        let result = self.machine.read(file, interface::MESSAGE_SIZE);
        let completion = self.done(result);
        assert_eq!(completion.status, SUCCESS, "seed {}", self.seed);
        completion.data
    }

    pub fn begin_read(&mut self, file: File, length: usize) -> Pending {
        let pending = self.machine.begin_read(file, length);
        self.done(pending)
    }

    pub fn begin_flush(&mut self, file: File) -> Pending {
        let pending = self
            .machine
            .begin_ioctl(file, interface::FLUSH.value(), &[], 0);
        self.done(pending)
    }

    pub fn cancel(&mut self, pending: Pending) {
        let result = self.machine.cancel(pending);
        self.done(result);
    }

    /// How a request ended, or `None` if it has not after a second.
    pub fn ended(&mut self, pending: Pending) -> Option<Completion> {
        let result = self.machine.wait(pending, Duration::from_secs(1));
        self.done(result)
    }

    /// How a request ended that must have.
    pub fn end_of(&mut self, pending: Pending) -> Completion {
        let seed = self.seed;
        self.ended(pending)
            .unwrap_or_else(|| panic!("seed {seed}: a request is still pending"))
    }

    pub fn ioctl(&mut self, file: File, code: u32, input: &[u8], output: usize) -> Completion {
        let result = self.machine.ioctl(file, code, input, output);
        self.done(result)
    }

    pub fn statistics(&mut self, file: File) -> Statistics {
        let code = interface::GET_STATISTICS.value();
        let answer = self.ioctl(file, code, &[], Statistics::SIZE);
        assert_eq!(answer.status, SUCCESS, "seed {}", self.seed);
        Statistics::get(&answer.data)
    }

    pub fn power_cycle(&mut self) {
        let result = self
            .machine
            .power_down(&self.device)
            .and_then(|()| self.machine.power_up(&self.device));
        self.done(result);
    }

    /// Nobody asks for anything for a minute.
    pub fn be_silent(&mut self) {
        let result = self.machine.run_for(Duration::from_mins(1));
        self.done(result);
    }

    pub fn is_awake(&mut self) -> bool {
        // A request is delivered before the last steps of powering up.
        let result = self.machine.run_for(Duration::from_secs(1));
        self.done(result);
        let result = self.machine.is_in_d0(&self.device);
        self.done(result)
    }

    pub fn surprise_remove(&mut self) {
        let result = self.machine.surprise_remove(&self.device);
        self.done(result);
    }

    pub fn remove(&mut self) {
        let result = self.machine.remove_device(&self.device);
        self.done(result);
    }
}

/// A bit of everything: messages, reads that wait, a read that is cancelled,
/// IOCTLs, a power cycle, idle sleep, surprise removal with a read that waits. The trace.
#[allow(dead_code, reason = "each test program uses some of it")]
pub fn whole_life(front_end: &FrontEnd, seed: u64) -> Vec<Line> {
    let mut mailbox = Box::started(front_end, seed);
    let file = mailbox.open();
    let read = mailbox.begin_read(file, 64);
    assert_eq!(mailbox.write(file, b"hello"), SUCCESS);
    assert_eq!(mailbox.end_of(read).data, b"hello", "seed {seed}");

    let read = mailbox.begin_read(file, 64);
    mailbox.cancel(read);
    assert_eq!(mailbox.end_of(read).status, CANCELLED, "seed {seed}");

    assert_eq!(mailbox.write(file, b"kept"), SUCCESS);
    let flush = mailbox.begin_flush(file);
    mailbox.power_cycle();
    assert_eq!(mailbox.statistics(file).held, 1, "seed {seed}");
    assert_eq!(mailbox.read(file), b"kept", "seed {seed}");
    assert_eq!(mailbox.end_of(flush).status, SUCCESS, "seed {seed}");

    let read = mailbox.begin_read(file, 64);
    mailbox.be_silent();
    assert!(!mailbox.is_awake(), "seed {seed}");
    assert_eq!(mailbox.write(file, b"wake up"), SUCCESS);
    assert_eq!(mailbox.end_of(read).data, b"wake up", "seed {seed}");

    let read = mailbox.begin_read(file, 64);
    mailbox.surprise_remove();
    assert!(!mailbox.end_of(read).is_success(), "seed {seed}");
    mailbox.machine.trace().to_vec()
}
