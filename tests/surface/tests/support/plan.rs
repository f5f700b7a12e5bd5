// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's life on a simulated machine. The same for the image and for the
//! linked driver.

use std::time::Duration;

use dmf::ioctl::IoctlData;
use ntsim::machine::{Error, Hardware, Raised, Relation, Sleep, SpecialFile};
use ntsim::store::MachineDir;
use ntsim::trace::{Event, Line};
use ntsim::{Answer, Completion, File, LowerRequest, Machine, Pending};
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

const SUCCESS: u32 = 0;
const CANCELLED: u32 = 0xC000_0120;

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
        machine.set_hardware(
            &device,
            Hardware::new()
                .memory(0xFEB0_0000, 0x1000)
                .interrupt()
                .interrupt()
                .interrupt()
                .port(0x3F8, 8),
        );
        machine.set_lower_driver(&device, lower);
        Self {
            machine,
            device,
            seed,
        }
    }

    /// Does something with the machine. A bug check is the test's failure.
    #[track_caller]
    fn does<T>(&mut self, what: impl FnOnce(&mut Machine, &str) -> Result<T, Error>) -> T {
        let result = what(&mut self.machine, &self.device);
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    #[track_caller]
    fn open(&mut self) -> File {
        self.does(|machine, _| machine.open(&interface::SURFACE.to_string()))
    }

    #[track_caller]
    fn run(&mut self, time: Duration) {
        self.does(|machine, _| Ok(machine.run_for(time)?));
    }

    /// How a request ended that must have.
    #[track_caller]
    fn end(&mut self, pending: Pending) -> Completion {
        let seed = self.seed;
        self.does(|machine, _| machine.wait(pending, Duration::from_secs(1)))
            .unwrap_or_else(|| panic!("seed {seed}: a request is pending"))
    }

    /// Goes through a chapter.
    fn chapter(&mut self, file: File, number: usize, name: &str) {
        let number = u32::try_from(number).expect("there are few");
        let code = interface::CHAPTER.value();
        let answer = self.does(|machine, _| machine.ioctl(file, code, &number.to_ne_bytes(), 4));
        let seed = self.seed;
        assert_eq!(answer.status, SUCCESS, "seed {seed}: {name}");
        assert!(u32::get(&answer.data) > 2, "seed {seed}: {name}");
    }

    fn chapters(&mut self, file: File) {
        for (number, name) in CHAPTERS.iter().enumerate() {
            self.chapter(file, number, name);
        }
    }

    fn interrupts(&mut self, file: File) {
        for line in [0, 0, 1, 2] {
            let raised = self.does(|machine, device| machine.raise_interrupt(device, line));
            assert_eq!(raised, Raised::Delivered, "line {line}");
            self.run(Duration::from_millis(10));
        }
        self.chapter(file, CHAPTERS.len(), "interrupts");
    }

    /// Reads, writes and IOCTLs of each kind.
    fn requests(&mut self, file: File) {
        // Reads wait; those that are long enough are answered.
        let short = self.does(|machine, _| machine.begin_read(file, 1));
        let long = self.does(|machine, _| machine.read(file, 16));
        assert_eq!((long.status, &long.data[..]), (SUCCESS, &b"surface"[..]));
        self.does(|machine, _| machine.cancel(short));
        assert_eq!(self.end(short).status, CANCELLED);

        for bytes in [&b"abc"[..], b"", b"passed on"] {
            let write = self.does(|machine, _| machine.write(file, bytes));
            assert_eq!((write.status, write.information), (SUCCESS, bytes.len()));
        }

        let add = interface::ADD.value();
        let both = |a: u32, b: u32| [a.to_ne_bytes(), b.to_ne_bytes()].concat();
        let answer = self.does(|machine, _| machine.ioctl(file, add, &both(40, 2), 4));
        assert_eq!((answer.status, u32::get(&answer.data)), (SUCCESS, 42));
        let overflow = self.does(|machine, _| machine.ioctl(file, add, &both(u32::MAX, 1), 4));
        assert_eq!(overflow.status, 0xC000_0095);
        let small = self.does(|machine, _| machine.ioctl(file, add, &both(1, 1), 3));
        assert_eq!(small.status, 0xC000_0023);
        let unknown = self.does(|machine, _| machine.ioctl(file, 0x0022_3FFC, &[], 4));
        assert_eq!(unknown.status, 0xC000_00BB);
        let code = interface::FILL.value();
        let filled = self.does(|machine, _| machine.ioctl(file, code, &[7], 5));
        assert_eq!((filled.status, &filled.data[..]), (SUCCESS, &[7; 5][..]));
        let sum = interface::SUM.value();
        let pending = self.does(|machine, _| machine.begin_ioctl_with(file, sum, &[], &[1, 2, 3]));
        assert_eq!(self.end(pending).status, SUCCESS);
        let double = interface::DOUBLE.value();
        let input = 21_u32.to_ne_bytes();
        let pending = self.does(|machine, _| machine.begin_internal_ioctl(file, double, &input, 4));
        assert_eq!(u32::get(&self.end(pending).data), 42);

        let keep = interface::KEEP.value();
        let kept = self.does(|machine, _| machine.begin_ioctl(file, keep, &[], 0));
        self.does(|machine, _| machine.cancel(kept));
        assert_eq!(self.end(kept).status, CANCELLED);
    }

    /// All that power does.
    fn power(&mut self, file: File) {
        // Held over a loss of power.
        let held = self.does(|machine, _| machine.begin_write(file, b"held"));
        self.does(Machine::power_down);
        self.does(Machine::power_up);
        assert_eq!(self.end(held).status, SUCCESS);
        for how in [Sleep::S1, Sleep::S3, Sleep::Hibernate] {
            self.does(|machine, _| machine.sleep(how));
            self.does(|machine, _| machine.wake());
        }
        // And with the hibernation file on the device.
        let file_of_s4 = SpecialFile::Hibernation;
        self.does(|machine, device| machine.place_special_file(device, file_of_s4));
        self.does(|machine, _| machine.sleep(Sleep::Hibernate));
        self.does(|machine, _| machine.wake());
        self.does(|machine, device| machine.remove_special_file(device, file_of_s4));
        // Idle, and woken by itself and by a request.
        self.run(Duration::from_secs(30));
        assert!(!self.does(Machine::is_in_d0), "seed {}", self.seed);
        assert!(self.does(Machine::signal_wake));
        self.run(Duration::from_secs(30));
        assert!(!self.does(Machine::is_in_d0), "seed {}", self.seed);
        let write = self.does(|machine, _| machine.write(file, b"wakes"));
        assert_eq!(write.status, SUCCESS);
        self.run(Duration::from_millis(100));
        assert!(self.does(Machine::is_in_d0), "seed {}", self.seed);
    }

    /// What PnP asks and tells.
    fn pnp(&mut self) {
        for relation in [Relation::Removal, Relation::Ejection] {
            self.does(|machine, device| machine.query_relations(device, relation));
        }
        for special in [SpecialFile::Hibernation, SpecialFile::Dump] {
            self.does(|machine, device| machine.place_special_file(device, special));
            self.does(|machine, device| machine.remove_special_file(device, special));
        }
        let refused = self
            .machine
            .place_special_file(&self.device, SpecialFile::Paging);
        assert!(refused.is_err(), "it does not support it");
        self.does(Machine::stop_device);
        self.does(Machine::restart_device);
    }
}

/// The driver below.
fn lower(asked: &LowerRequest) -> Answer {
    match asked {
        LowerRequest::Read { .. } => Answer::Now(0, b"low".to_vec()),
        LowerRequest::Write { .. } => Answer::After(Duration::from_millis(20), 0, Vec::new()),
        LowerRequest::Control { code, input, .. } if *code == interface::DOUBLE.value() => {
            let value = u32::get(input.get(..4).unwrap_or(&[0; 4]));
            Answer::Now(0, (value * 2).to_ne_bytes().to_vec())
        }
        LowerRequest::Control { code, .. } if *code == interface::ADD.value() => {
            Answer::Now(0xC000_0010, Vec::new())
        }
        _ => Answer::Never,
    }
}

/// Everything that can happen to the device: it is used, loses power, sleeps,
/// idles, is stopped, pulled out, used again after a reboot, fails. The trace.
pub fn whole_life(front_end: &FrontEnd, seed: u64) -> Vec<Line> {
    let mut life = Life::new(front_end, seed);
    life.does(Machine::start_device);
    let file = life.open();
    life.chapters(file);
    life.interrupts(file);
    life.requests(file);
    life.power(file);
    life.does(|machine, _| machine.close(file));
    life.pnp();

    // Pulled out while programs wait.
    let file = life.open();
    let read = life.does(|machine, _| machine.begin_read(file, 1));
    let keep = interface::KEEP.value();
    let kept = life.does(|machine, _| machine.begin_ioctl(file, keep, &[], 0));
    let held = life.does(|machine, _| machine.begin_write(file, b"held"));
    life.does(Machine::surprise_remove);
    for pending in [read, kept, held] {
        assert!(!life.end(pending).is_success(), "seed {seed}");
    }
    life.does(|machine, _| machine.close(file));

    // Once more after a reboot, in good order.
    life.does(|machine, _| machine.reboot());
    life.machine.set_lower_driver(&life.device, lower);
    life.does(Machine::start_device);
    let file = life.open();
    life.chapters(file);
    life.does(|machine, _| machine.close(file));
    life.does(Machine::remove_device);

    // It says that it has failed.
    life.does(Machine::start_device);
    let file = life.open();
    let fail = interface::FAIL.value();
    let failed = life.does(|machine, _| machine.ioctl(file, fail, &[], 0));
    assert_eq!(failed.status, SUCCESS);
    life.run(Duration::from_secs(1));
    life.does(|machine, _| machine.close(file));
    assert!(life.machine.started_devices().is_empty(), "seed {seed}");
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
