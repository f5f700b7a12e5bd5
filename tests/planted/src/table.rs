// SPDX-License-Identifier: MIT OR Apache-2.0

//! The bugs.

use std::time::Duration;

use ntsim::machine::{DriverEntry, Error, Written};
use ntsim::{Answer, File, LowerRequest, Machine, Stop, StopKind};

use crate::drivers;
use crate::play::{Bench, Program};

/// What a driver is written in.
#[derive(Clone, Copy)]
pub enum Driver {
    /// C: an image, built by `cargo xtask planted`.
    C,
    /// Rust on the raw interface: the faulty driver and its twin.
    Raw(DriverEntry, DriverEntry),
    /// Safe Rust on `dmf`.
    Dmf(DriverEntry, DriverEntry),
}

impl Driver {
    /// For the page.
    #[must_use]
    pub const fn language(&self) -> &'static str {
        match self {
            Self::C => "C",
            Self::Raw(..) => "Rust, raw",
            Self::Dmf(..) => "Rust, dmf",
        }
    }
}

/// What sort of end ntsim must put to the faulty driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// A bug check with one of these codes.
    BugCheck(&'static [u32]),
    /// Nothing can run any more: a deadlock, or a lost wake-up.
    Deadlock,
    /// Everything runs and nothing comes of it.
    Livelock,
    /// Something is left for which Windows has no bug check.
    Leak,
}

/// A faulty driver.
pub struct Bug {
    /// Its number and name, which is its file's too.
    pub name: &'static str,
    /// In what it is written.
    pub driver: Driver,
    /// What is wrong, in a few words.
    pub wrong: &'static str,
    /// How ntsim ends it.
    pub expect: Expect,
    /// What the report must say outside of the trace; one of several if there are `|` in it.
    pub says: &'static [&'static str],
    /// What drives it.
    pub scenario: fn(&mut Bench) -> Result<(), Error>,
}

impl Bug {
    const fn c(name: &'static str, wrong: &'static str, expect: Expect) -> Self {
        Self {
            name,
            driver: Driver::C,
            wrong,
            expect,
            says: &[],
            scenario: |_| Ok(()),
        }
    }

    const fn raw(
        name: &'static str,
        wrong: &'static str,
        entries: [DriverEntry; 2],
        expect: Expect,
    ) -> Self {
        Self {
            driver: Driver::Raw(entries[0], entries[1]),
            ..Self::c(name, wrong, expect)
        }
    }

    const fn dmf(
        name: &'static str,
        wrong: &'static str,
        entries: [DriverEntry; 2],
        expect: Expect,
    ) -> Self {
        Self {
            driver: Driver::Dmf(entries[0], entries[1]),
            ..Self::c(name, wrong, expect)
        }
    }

    const fn says(mut self, says: &'static [&'static str]) -> Self {
        self.says = says;
        self
    }

    const fn play(mut self, scenario: fn(&mut Bench) -> Result<(), Error>) -> Self {
        self.scenario = scenario;
        self
    }

    /// What is wrong with a report on the faulty driver, if anything.
    ///
    /// # Errors
    /// One sentence.
    pub fn judge(&self, stop: &Stop) -> Result<(), String> {
        let fits = match (self.expect, stop.kind) {
            (Expect::BugCheck(codes), StopKind::BugCheck { code, .. }) => codes.contains(&code),
            (Expect::Deadlock, StopKind::Deadlock | StopKind::LostWakeUp)
            | (Expect::Livelock, StopKind::Livelock)
            | (Expect::Leak, StopKind::Leak) => true,
            _ => false,
        };
        if !fits {
            return Err(format!("{}: expected {:?}", self.name, self.expect));
        }
        let text = said(stop);
        let says = |one: &str| one.split('|').any(|way| text.contains(way));
        match self.says.iter().find(|one| !says(one)) {
            Some(missing) => Err(format!("{}: it does not say \"{missing}\"", self.name)),
            None => Ok(()),
        }
    }
}

/// What a report says, without the last events: those are of everything.
fn said(stop: &Stop) -> String {
    let mut lines = vec![stop.message.clone(), stop.context.clone()];
    lines.extend(stop.calls.iter().cloned());
    lines.extend(stop.backtrace.iter().map(ToString::to_string));
    for context in &stop.contexts {
        lines.extend(context.backtrace.iter().map(ToString::to_string));
    }
    lines.extend(stop.waiting());
    lines.join("\n")
}

/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800 + n, METHOD_BUFFERED, FILE_ANY_ACCESS)`.
const fn control(n: u32) -> u32 {
    0x22 << 16 | (0x800 + n) << 2
}

/// A program that sends a control code a few times.
fn sends(name: &'static str, file: File, n: u32, times: u32) -> (&'static str, Program) {
    let program = move || {
        for _ in 0..times {
            // The driver may refuse it.
            let _ = file.ioctl(control(n), &[1, 0, 0, 0], 4);
        }
    };
    (name, Box::new(program))
}

/// A stray access in pool, by where and at which IRQL: as Windows has it, with or
/// without special pool.
const STRAY: Expect = Expect::BugCheck(&[0x50, 0xC1, 0xCC, 0xCD, 0xD1, 0xD5, 0xD6]);
/// `RPNC`: the driver panicked.
const PANIC: Expect = Expect::BugCheck(&[ntsim::bugcheck::RUST_PANIC]);

/// Both drivers of a module in Rust.
macro_rules! raw {
    ($module:ident) => {
        [
            drivers::$module::entry::<false>,
            drivers::$module::entry::<true>,
        ]
    };
}

macro_rules! dmf {
    ($module:ident::$device:ident) => {
        [
            drivers::$module::$device::<false>::DRIVER_ENTRY,
            drivers::$module::$device::<true>::DRIVER_ENTRY,
        ]
    };
}

/// Two programs send codes 0 and 1 at once.
fn two_codes(bench: &mut Bench) -> Result<(), Error> {
    let file = bench.start_and_open()?;
    bench.at_once([sends("one", file, 0, 2), sends("other", file, 1, 2)])?;
    bench.end(file)
}

/// One program sends code 0, and time passes.
fn one_code(bench: &mut Bench) -> Result<(), Error> {
    let file = bench.start_and_open()?;
    bench.at_once([sends("program", file, 0, 1)])?;
    bench.run_for(50)?;
    bench.end(file)
}

/// A program's request waits; it is cancelled while another program answers it.
fn cancelled(bench: &mut Bench) -> Result<(), Error> {
    let file = bench.start_and_open()?;
    let pending = bench.machine.begin_ioctl(file, control(0), &[], 0)?;
    bench.at_once([
        (
            "canceller",
            Box::new(move || {
                pending.cancel();
                let _ = pending.wait(Duration::MAX);
            }),
        ),
        sends("answerer", file, 1, 1),
    ])?;
    bench.end(file)
}

/// The device goes to D3 and back twice while timers come due.
fn power_and_time(bench: &mut Bench) -> Result<(), Error> {
    bench.start()?;
    for _ in 0..2 {
        bench.run_for(20)?;
        // In the tick in which the timer comes due, not after it.
        let sleeper = bench.machine.spawn_thread("clock", || delay(10));
        bench.machine.join(sleeper)?;
        bench.power_cycle()?;
    }
    bench.remove()
}

/// Makes the machine one on which the driver was never started.
fn forget(machine: &mut Machine) {
    const PARAMETERS: &str =
        r"\Registry\Machine\System\CurrentControlSet\Services\Planted\Parameters";
    let registry = machine.registry_mut();
    if let Ok(key) = registry.open(PARAMETERS) {
        for name in ["Calibrated", "Offset"] {
            let _ = registry.delete_value(key, name);
        }
    }
}

fn delay(milliseconds: i64) {
    let mut interval = ntsim_sys::LARGE_INTEGER {
        QuadPart: -milliseconds * 10_000,
    };
    #[allow(clippy::undocumented_unsafe_blocks, reason = "see drivers")]
    let _ = unsafe { ntsim_sys::ntddk::KeDelayExecutionThread(0, 0, &raw mut interval) };
}

/// All of them, in order.
pub const BUGS: &[Bug] = &[
    Bug::c(
        "01-use-after-free",
        "a reader uses the old configuration after the writer freed it",
        STRAY,
    )
    .says(&["reads", "freed", "ReadGain"])
    .play(two_codes),
    Bug::c(
        "02-use-after-d0exit",
        "a queue that is not power-managed delivers a request in D3",
        STRAY,
    )
    .says(&["reads", "freed", "OnControl"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let (name, program) = sends("reader", file, 0, 3);
        let reader = bench.machine.spawn_thread(name, program);
        bench.power_cycle()?;
        bench.machine.join(reader)?;
        bench.end(file)
    }),
    Bug::raw(
        "03-lost-wakeup",
        "the event is cleared after the look for work, with what was set in between",
        raw!(lost_wakeup),
        Expect::Deadlock,
    )
    .says(&[
        "thread#1 waits for event#1 without a time-out",
        "is in WDFQUEUE#1",
    ])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("program", file, 0, 3)])?;
        bench.end(file)
    }),
    Bug::c(
        "04-missed-wakeup",
        "an auto-reset event is set twice before one of two waiters wakes",
        Expect::Deadlock,
    )
    .says(&[
        "thread#1 waits for event#1 or event#2",
        "thread#2 waits for event#1 or event#2",
    ])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 2), sends("other", file, 0, 2)])?;
        bench.end(file)
    }),
    Bug::c(
        "05-double-completion",
        "a timer and a control code complete the same request",
        Expect::BugCheck(&[0x10D]),
    )
    .says(&["WdfRequestComplete", "Finish"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let pending = bench.machine.begin_ioctl(file, control(0), &[], 0)?;
        let program = move || {
            delay(20);
            let _ = file.ioctl(control(1), &[], 0);
        };
        bench.at_once([("program", Box::new(program))])?;
        bench.machine.wait(pending, Duration::from_secs(1))?;
        bench.end(file)
    }),
    Bug::raw(
        "06-cancel-both-complete",
        "who answers a request does not look whether its cancellation has begun",
        raw!(cancel_both_complete),
        Expect::BugCheck(&[0x10D]),
    )
    .says(&["WdfRequestComplete"])
    .play(cancelled),
    Bug::raw(
        "07-cancel-none-completes",
        "answer and cancel routine each leave the request to the other",
        raw!(cancel_none_completes),
        Expect::Deadlock,
    )
    .says(&["canceller", "the driver has WDFREQUEST#1"])
    .play(cancelled),
    Bug::c(
        "08-missed-cancellation",
        "a request is kept without a cancel routine, and the removal waits for it",
        Expect::Deadlock,
    )
    .says(&["PnP", "the driver has WDFREQUEST#1"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let pending = bench.machine.begin_ioctl(file, control(0), &[], 0)?;
        bench.machine.cancel(pending)?;
        bench.machine.surprise_remove(&bench.device)?;
        bench.machine.wait(pending, Duration::from_secs(1))?;
        bench.machine.close(file)
    }),
    Bug::c(
        "09-timer-at-unload",
        "unloading does not cancel a timer that a control code has set",
        Expect::BugCheck(&[0xC7]),
    )
    .says(&["timer#1", "unloaded"])
    .play(one_code),
    Bug::raw(
        "10-timer-restarts-itself",
        "the timer's DPC sets it again after it was cancelled",
        raw!(timer_restarts_itself),
        Expect::BugCheck(&[0xC7, 0xC4]),
    )
    .says(&["timer#1", "set"])
    .play(|bench| {
        bench.start()?;
        let sleeper = bench.machine.spawn_thread("clock", || delay(10));
        bench.machine.join(sleeper)?;
        bench.remove()
    }),
    Bug::c(
        "11-work-item-at-unload",
        "nothing waits for a queued work item when the device goes",
        Expect::BugCheck(&[0xE4, 0xC4, 0x50, 0xCC, 0xD5]),
    )
    .says(&["which is queued|OnWork"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("program", file, 0, 1)])?;
        bench.end(file)
    }),
    Bug::raw(
        "12-dpc-uses-freed-session",
        "a session is freed while a DPC works on it",
        raw!(dpc_uses_freed_session),
        STRAY,
    )
    .says(&["freed", "on_dpc"])
    .play(two_codes),
    Bug::c(
        "13-lock-order",
        "two spin locks are taken in both orders",
        Expect::BugCheck(&[0xC4]),
    )
    .says(&["each waits for what the other holds"])
    .play(two_codes),
    Bug::raw(
        "14-spin-lock-across-wait",
        "a writer waits for room with the spin lock held",
        raw!(spin_lock_across_wait),
        Expect::BugCheck(&[0xC4, 0xB8]),
    )
    .says(&["KeWaitForSingleObject", "put"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let reader = move || {
            let mut left = 4;
            while left > 0 {
                if file.ioctl(control(1), &[], 0).is_success() {
                    left -= 1;
                } else {
                    delay(1);
                }
            }
        };
        bench.at_once([sends("writer", file, 0, 4), ("reader", Box::new(reader))])?;
        bench.end(file)
    }),
    Bug::c(
        "15-paged-at-dispatch",
        "a timer callback writes paged pool",
        STRAY,
    )
    .says(&["writes", "paged", "OnTimer"])
    .play(one_code),
    Bug::c(
        "16-wait-at-dispatch",
        "a timer callback at DISPATCH_LEVEL takes a wait lock",
        Expect::BugCheck(&[0xC4, 0x1E]),
    )
    .says(&["WdfWaitLockAcquire", "OnTimer"])
    .play(one_code),
    Bug::raw(
        "17-d0exit-race",
        "D0Exit does not wait for the timer's callback, which reads registers",
        raw!(d0exit_race),
        STRAY,
    )
    .says(&["reads", "freed", "on_timer"])
    .play(power_and_time),
    Bug::c(
        "18-registry-handle-leak",
        "a key stays open if its value is missing",
        Expect::Leak,
    )
    .says(&["leaves open handle#1"])
    .play(one_code),
    Bug::c(
        "19-pool-leak",
        "input that is refused is not freed",
        Expect::BugCheck(&[0xC4]),
    )
    .says(&["leaves pool", "'Plnt'"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        for input in [1, 99] {
            bench
                .machine
                .ioctl(file, control(0), &[input, 0, 0, 0], 0)?;
        }
        bench.end(file)
    }),
    Bug::raw(
        "20-object-reference-leak",
        "a file object stays referenced if its work is refused",
        raw!(object_reference_leak),
        Expect::Leak,
    )
    .says(&["WDFFILEOBJECT#1"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 1), sends("other", file, 0, 1)])?;
        bench.end(file)
    }),
    Bug::c(
        "21-thread-not-joined",
        "unloading does not wait for the end of a thread",
        Expect::BugCheck(&[0xCE]),
    )
    .says(&["unloaded", "thread#1"])
    .play(|bench| {
        bench.start()?;
        bench.run_for(250)?;
        bench.remove()
    }),
    Bug::c(
        "22-stack-overflow",
        "nested input is parsed by recursion of any depth",
        Expect::BugCheck(&[0x7F]),
    )
    .says(&["stack", "ParseBox"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        for depth in [2, 1_000] {
            let input = [vec![b'['; depth], vec![b']'; depth + 1]].concat();
            bench.machine.ioctl(file, control(0), &input, 0)?;
        }
        bench.end(file)
    }),
    Bug::c(
        "23-overrun-by-one",
        "a terminator is written behind a buffer",
        STRAY,
    )
    .says(&["'Plnt'", "SetName"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.machine.ioctl(file, control(0), b"a name", 0)?;
        bench.end(file)
    }),
    Bug::c(
        "24-uninitialised-list-entry",
        "an entry that was never linked is removed from its list",
        Expect::BugCheck(&[0x7E, 0xD1]),
    )
    .says(&["RemoveEntryList", "Leave"])
    .play(|bench| {
        bench.start()?;
        let (subscriber, other) = (bench.open()?, bench.open()?);
        bench.machine.ioctl(subscriber, control(0), &[], 0)?;
        bench.machine.close(subscriber)?;
        bench.end(other)
    }),
    Bug::dmf(
        "25-check-then-act",
        "two opens at once are both the first",
        dmf!(check_then_act::Shared),
        PANIC,
    )
    .says(&["there is a session already"])
    .play(|bench| {
        bench.start()?;
        let name = bench.device.clone();
        let opens = |name: String| -> Program {
            Box::new(move || File::open(&name).expect("it can be opened").close())
        };
        bench.at_once([("one", opens(name.clone())), ("other", opens(name))])?;
        bench.remove()
    }),
    Bug::raw(
        "26-aba-free-list",
        "a compare-and-exchange of the list's head succeeds though the rest changed",
        raw!(aba_free_list),
        Expect::BugCheck(&[0xC2, 0x50, 0xCC, 0xD5]),
    )
    .says(&["freed"])
    .play(two_codes),
    Bug::c(
        "27-torn-count",
        "a count is read, and written after a kernel call",
        Expect::Deadlock,
    )
    .says(&["PnP waits for event#1 without a time-out"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 1), sends("other", file, 0, 1)])?;
        bench.end(file)
    }),
    Bug::c(
        "28-remove-lock-ignored",
        "a request goes on without the remove lock that it did not get",
        Expect::BugCheck(&[0x50, 0xC4, 0xCC, 0xD5]),
    )
    .says(&["OnControl"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let (name, program) = sends("program", file, 0, 3);
        let program = bench.machine.spawn_thread(name, program);
        bench.machine.surprise_remove(&bench.device)?;
        bench.machine.join(program)?;
        bench.machine.close(file)
    }),
    Bug::c(
        "29-surprise-removal",
        "the removal waits for answers that will not come any more",
        Expect::Deadlock,
    )
    .says(&["PnP waits for event#1 without a time-out"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let pending = bench.machine.begin_ioctl(file, control(0), &[], 0)?;
        bench.machine.surprise_remove(&bench.device)?;
        bench.machine.wait(pending, Duration::from_secs(1))?;
        bench.machine.close(file)
    }),
    Bug::raw(
        "30-reference-dropped-early",
        "the completion routine deletes a request whose sender still asks for its status",
        raw!(reference_dropped_early),
        Expect::BugCheck(&[0x10D]),
    )
    .says(&["WdfRequestGetStatus", "ask"])
    .play(|bench| {
        let answer = |_: &LowerRequest| Answer::After(Duration::ZERO, 0, Vec::new());
        bench.machine.set_lower_driver(&bench.device, answer);
        let file = bench.start_and_open()?;
        bench.at_once([sends("program", file, 0, 2)])?;
        bench.end(file)
    }),
    Bug::c(
        "31-prepare-hardware",
        "PrepareHardware fails half-way, and its first half is not undone",
        Expect::BugCheck(&[0xC4]),
    )
    .says(&["leaves pool", "'Plnt'"])
    .play(|bench| match bench.start() {
        // It has no resources, and says so.
        Err(Error::Driver { .. }) => Ok(()),
        other => other,
    }),
    Bug::c(
        "32-polling-callback",
        "a handler polls for something that cannot happen while it runs",
        Expect::Livelock,
    )
    .says(&["WdfIoQueueGetState"])
    .play(one_code),
    Bug::c(
        "33-double-insert",
        "an entry is linked into a list twice",
        Expect::BugCheck(&[0x139]),
    )
    .says(&["RemoveHeadList", "Flush"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 1), sends("other", file, 0, 1)])?;
        bench.at_once([sends("flusher", file, 1, 1)])?;
        bench.end(file)
    }),
    Bug::c(
        "34-forwarded-to-itself",
        "a request is forwarded to its own queue, and nobody looks at the status",
        Expect::Deadlock,
    )
    .says(&["other", "the driver has WDFREQUEST#"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 1), sends("other", file, 1, 1)])?;
        bench.end(file)
    }),
    Bug::dmf(
        "35-recursive-wait-lock",
        "a function with the wait lock calls one that takes it",
        dmf!(recursive_wait_lock::Table),
        Expect::BugCheck(&[0x10D]),
    )
    .says(&["WdfWaitLockAcquire", "which the caller holds", "clear"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        bench.at_once([sends("one", file, 0, 2), sends("other", file, 0, 2)])?;
        bench.end(file)
    }),
    Bug::dmf(
        "36-half-written-settings",
        "the power goes between two values that belong together",
        dmf!(half_written_settings::Calibrated),
        PANIC,
    )
    .says(&["a calibrated device has an offset"])
    .play(|bench| {
        // Before each step of the first start, one after the other.
        for step in 1.. {
            bench.machine.cut_power_at(Some(step));
            let started = bench.start();
            bench.machine.cut_power_at(None);
            match started {
                Err(Error::Stop(stop)) if stop.kind == StopKind::PowerCut => {}
                other => {
                    other?;
                    break;
                }
            }
            bench.machine.boot_after_power_cut(Written::Everything)?;
            bench.start()?;
            bench.remove()?;
            forget(&mut bench.machine);
        }
        bench.remove()
    }),
    Bug::dmf(
        "37-timer-after-d0exit",
        "D0Exit does not wait for the timer's callback, which uses the hardware",
        dmf!(timer_after_d0exit::Pad),
        PANIC,
    )
    .says(&["the motors are there in D0"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        // The timer is due on the clock's next tick.
        let program = move || {
            let _ = file.ioctl(control(0), &[1, 0, 0, 0], 0);
            delay(1);
        };
        bench.at_once([("program", Box::new(program))])?;
        bench.power_cycle()?;
        bench.end(file)
    }),
    Bug::c(
        "38-no-stop-callback",
        "a power-managed queue without EvtIoStop, whose request the driver keeps",
        Expect::Deadlock,
    )
    .says(&["PnP", "the driver has WDFREQUEST#1"])
    .play(|bench| {
        let file = bench.start_and_open()?;
        let pending = bench.machine.begin_ioctl(file, control(0), &[], 0)?;
        bench.power_cycle()?;
        bench.at_once([sends("answerer", file, 1, 1)])?;
        bench.machine.wait(pending, Duration::from_secs(1))?;
        bench.end(file)
    }),
    Bug::dmf(
        "39-wait-lock-order",
        "two wait locks are taken in both orders",
        dmf!(wait_lock_order::Bank),
        Expect::BugCheck(&[0xC4]),
    )
    .says(&["each waits for what the other holds"])
    .play(two_codes),
];
