// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests, queues and files of `dmf`, as a program sees them: who is offered
//! what, the race between cancelling and completing, power, and what a request
//! that nobody completes becomes.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::time::Duration;

use dmf::ioctl::{Access, DeviceType, IoctlCode, IoctlData};
use dmf::module::{Create, Instance, Link, ModuleConfig};
use dmf::prelude::*;
use dmf::wdf::{
    Cancelable, DefaultQueue, File as WdfFile, FileAnswer, FileCleanup, FileClose, FileCreate,
    Guid, IoStop, Ioctl, Offer, QueueCallback, Read, Request, RequestId, StopReason, Taken, Write,
};
use ntsim::{Completion, File, Pending};
use probe::Probe;

const SEEDS: u64 = 64;
const SUCCESS: u32 = 0;
const CANCELLED: u32 = 0xC000_0120;
const NOT_SUPPORTED: u32 = 0xC000_00BB;

const LAB: Guid = Guid::parse("7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b11");
/// Taken by the first module.
const FIRST: IoctlCode<(), ()> = code(0x900);
/// Taken by the second module.
const SECOND: IoctlCode<(), ()> = code(0x901);
/// Taken by the device. Takes the parked write and completes it; says what was there.
const FINISH: IoctlCode<(), u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x902, Access::Any);
/// Completed with all of its output, of which the driver writes nothing.
const UNWRITTEN: IoctlCode<(), ()> = code(0x903);
/// Completed with more information than there is output.
const TOO_MUCH: IoctlCode<(), ()> = code(0x904);

const fn code(function: u16) -> IoctlCode<(), ()> {
    IoctlCode::new(DeviceType::UNKNOWN, function, Access::Any)
}

/// What [`FINISH`] answers.
const NOTHING: u32 = 0;
const TAKEN: u32 = 1;
const CANCELED: u32 = 2;

thread_local! {
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

fn journal() -> Vec<String> {
    JOURNAL.take()
}

dmf::driver!(Lab);

struct Lab {
    parked: SpinLock<Slot>,
    _first: Handle<Taker>,
    _second: Handle<Taker>,
}

enum Slot {
    Empty,
    Parked(Cancelable<Write>),
    /// Acknowledged, until power is back.
    Held(Request<Write>),
}

impl Device for Lab {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(LAB)?;
        Ok(Lab {
            parked: SpinLock::new(Slot::Empty),
            _first: add.module(TakerConfig("first", FIRST))?,
            _second: add.module(TakerConfig("second", SECOND))?,
        })
    }

    /// Reads are given up.
    fn io_read(&self, _cx: &mut QueueCallback<'_>, _request: Request<Read>) -> Offer<Read> {
        Offer::Handled
    }

    /// Writes are parked.
    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        if let Ok(parked) = request.mark_cancelable() {
            self.parked.with(|slot| *slot = Slot::Parked(parked));
        }
        Offer::Handled
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        note("device control");
        request
            .on(FINISH, |()| {
                let slot = self
                    .parked
                    .with(|slot| std::mem::replace(slot, Slot::Empty));
                Ok(match slot {
                    Slot::Empty => NOTHING,
                    Slot::Held(_) => u32::MAX,
                    Slot::Parked(parked) => match parked.take() {
                        Taken::Request(request) => {
                            let length = request.len();
                            request.complete(Ok(length));
                            TAKEN
                        }
                        Taken::Canceled => CANCELED,
                    },
                })
            })
            .on_request(UNWRITTEN, |(), request| {
                let mut request = request.into_untyped();
                let length = request.output().map(|output| output.len());
                request.complete(length);
            })
            .on_request(TOO_MUCH, |(), request| {
                let mut request = request.into_untyped();
                let _ = request.output().map(|output| output.fill(7));
                request.complete(Ok(usize::MAX));
            })
    }

    fn io_stop(&self, stop: &mut IoStop<'_>) {
        let id = stop.request();
        let slot = self.parked.with(|slot| match slot {
            Slot::Parked(parked) if parked.id() == id => std::mem::replace(slot, Slot::Empty),
            _ => Slot::Empty,
        });
        if let Slot::Parked(parked) = slot
            && let Taken::Request(request) = parked.take()
        {
            if stop.reason() == StopReason::Purge {
                note("purge");
                return; // dropped: cancelled
            }
            note("stop");
            stop.acknowledge(&request).unwrap();
            self.parked.with(|slot| *slot = Slot::Held(request));
        }
    }

    fn io_resume(&self, id: RequestId) {
        let slot = self
            .parked
            .with(|slot| std::mem::replace(slot, Slot::Empty));
        if let Slot::Held(request) = slot {
            note("resume");
            assert_eq!(request.id(), id);
            if let Ok(parked) = request.mark_cancelable() {
                self.parked.with(|slot| *slot = Slot::Parked(parked));
            }
        }
    }

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        note(format!(
            "device create, first saw it: {}",
            seen(cx.file(), "first")
        ));
        FileAnswer::Declined
    }

    fn file_cleanup(&self, _cx: &mut FileCleanup<'_>) {
        note("device cleanup");
    }

    fn file_close(&self, _cx: &mut FileClose<'_>) {
        note("device close");
    }
}

fn seen(file: WdfFile<'_>, name: &str) -> bool {
    file.context::<Seen>().is_some_and(|seen| seen.0 == name)
}

/// Notes its drop.
struct Seen(&'static str);

impl Drop for Seen {
    fn drop(&mut self) {
        note("context dropped");
    }
}

/// A module that takes one IOCTL.
#[derive(Clone)]
struct Taker(#[allow(dead_code, reason = "a module holds its link")] Link<Taking>);

struct Taking {
    name: &'static str,
    code: IoctlCode<(), ()>,
}

struct TakerConfig(&'static str, IoctlCode<(), ()>);

impl Module for Taker {
    type Instance = Taking;
    fn over(instance: Link<Taking>) -> Self {
        Taker(instance)
    }
}

impl<O: Send + Sync + 'static> ModuleConfig<O> for TakerConfig {
    type Module = Taker;
    fn create(self, _cx: &mut Create<'_, O, Taking>) -> Result<Taking> {
        Ok(Taking {
            name: self.0,
            code: self.1,
        })
    }
}

impl Instance for Taking {
    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        note(format!("{} control", self.name));
        request.on(self.code, |()| Ok(()))
    }

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        note(format!("{} create", self.name));
        if !seen(cx.file(), "first") {
            cx.attach(Seen(self.name)).unwrap();
        }
        FileAnswer::Declined
    }

    fn file_cleanup(&self, _cx: &mut FileCleanup<'_>) {
        note(format!("{} cleanup", self.name));
    }

    fn file_close(&self, _cx: &mut FileClose<'_>) {
        note(format!("{} close", self.name));
    }
}

fn opened(seed: u64) -> (Probe, File) {
    let mut probe = Probe::started(Lab::DRIVER_ENTRY, seed);
    let file = done(seed, probe.machine.open(&LAB.to_string()));
    journal();
    (probe, file)
}

fn done<T, E: std::fmt::Display>(seed: u64, result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

fn ioctl(probe: &mut Probe, file: File, code: u32, input: &[u8], output: usize) -> Completion {
    done(0, probe.machine.ioctl(file, code, input, output))
}

fn ended(probe: &mut Probe, pending: Pending) -> Option<Completion> {
    done(0, probe.machine.wait(pending, Duration::from_secs(1)))
}

fn finish(probe: &mut Probe, file: File) -> u32 {
    let answer = ioctl(probe, file, FINISH.value(), &[], 4);
    assert_eq!(answer.status, SUCCESS);
    u32::get(&answer.data)
}

#[test]
fn a_request_is_offered_to_the_modules_in_order_and_then_to_the_device() {
    let (mut probe, file) = opened(0);
    assert_eq!(
        ioctl(&mut probe, file, FIRST.value(), &[], 0).status,
        SUCCESS
    );
    assert_eq!(journal(), ["first control"]);
    assert_eq!(
        ioctl(&mut probe, file, SECOND.value(), &[], 0).status,
        SUCCESS
    );
    assert_eq!(journal(), ["first control", "second control"]);
    assert_eq!(
        ioctl(&mut probe, file, 0x0022_3FFC, &[], 0).status,
        NOT_SUPPORTED
    );
    assert_eq!(
        journal(),
        ["first control", "second control", "device control"]
    );
}

#[test]
fn a_file_is_told_to_everybody_and_its_contexts_go_last() {
    let mut probe = Probe::started(Lab::DRIVER_ENTRY, 0);
    let file = done(0, probe.machine.open(&LAB.to_string()));
    assert_eq!(
        journal(),
        [
            "first create",
            "second create",
            "device create, first saw it: true"
        ]
    );
    done(0, probe.machine.close(file));
    assert_eq!(
        journal(),
        [
            "device cleanup",
            "second cleanup",
            "first cleanup",
            "device close",
            "second close",
            "first close",
            "context dropped",
        ]
    );
    probe.remove();
}

#[test]
fn a_request_that_is_dropped_is_cancelled() {
    let (mut probe, file) = opened(0);
    assert_eq!(done(0, probe.machine.read(file, 8)).status, CANCELLED);
}

#[test]
fn output_that_the_driver_does_not_write_is_no_old_memory() {
    let (mut probe, file) = opened(0);
    let answer = ioctl(&mut probe, file, UNWRITTEN.value(), b"abc", 16);
    assert_eq!(answer.status, SUCCESS);
    assert_eq!(answer.data, b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn more_information_than_there_is_output_is_cut() {
    let (mut probe, file) = opened(0);
    let answer = ioctl(&mut probe, file, TOO_MUCH.value(), &[], 4);
    assert_eq!((answer.status, answer.information), (SUCCESS, 4));
    assert_eq!(answer.data, [7; 4]);
}

#[test]
fn a_parked_request_is_completed_by_who_takes_it() {
    let (mut probe, file) = opened(0);
    let write = done(0, probe.machine.begin_write(file, b"12345"));
    assert!(ended(&mut probe, write).is_none());
    assert_eq!(finish(&mut probe, file), TAKEN);
    let end = ended(&mut probe, write).unwrap();
    assert_eq!((end.status, end.information), (SUCCESS, 5));
    assert_eq!(finish(&mut probe, file), NOTHING);
}

#[test]
fn a_parked_request_can_be_cancelled_and_is_not_taken_then() {
    let (mut probe, file) = opened(0);
    let write = done(0, probe.machine.begin_write(file, b"12345"));
    done(0, probe.machine.cancel(write));
    assert_eq!(ended(&mut probe, write).unwrap().status, CANCELLED);
    assert_eq!(finish(&mut probe, file), CANCELED);
    done(0, probe.machine.close(file));
    probe.remove();
}

#[test]
fn taking_and_cancelling_at_once_complete_the_request_once() {
    let mut ends = [0, 0];
    for seed in 0..SEEDS {
        let (mut probe, file) = opened(seed);
        let write = done(seed, probe.machine.begin_write(file, b"12345"));
        let canceler = probe.machine.spawn_thread("canceler", move || {
            // As long as the way of the other one's request to the driver.
            let _ = file.ioctl(FIRST.value(), &[], 0);
            write.cancel()
        });
        let taker = probe.machine.spawn_thread("taker", move || {
            u32::get(&file.ioctl(FINISH.value(), &[], 4).data)
        });
        done(seed, probe.machine.join(canceler));
        let answer = done(seed, probe.machine.join(taker));
        let end = ended(&mut probe, write).unwrap_or_else(|| panic!("seed {seed}: pending"));
        let wanted = if end.status == SUCCESS {
            TAKEN
        } else {
            CANCELED
        };
        assert_eq!(answer, wanted, "seed {seed}: {:#x}", end.status);
        ends[usize::from(end.status == CANCELLED)] += 1;
        done(seed, probe.machine.close(file));
        probe.remove();
    }
    assert!(
        ends.iter().all(|count| *count > 0),
        "only one side ever won: {ends:?}"
    );
}

#[test]
fn a_stop_that_is_acknowledged_lets_power_go_and_the_request_goes_on_later() {
    for seed in 0..SEEDS {
        let (mut probe, file) = opened(seed);
        let write = done(seed, probe.machine.begin_write(file, b"12345"));
        probe.power_down();
        assert_eq!(journal(), ["stop"], "seed {seed}");
        probe.power_up();
        assert_eq!(journal(), ["resume"], "seed {seed}");
        assert_eq!(finish(&mut probe, file), TAKEN, "seed {seed}");
        assert_eq!(
            ended(&mut probe, write).unwrap().status,
            SUCCESS,
            "seed {seed}"
        );
    }
}

#[test]
fn removal_ends_a_parked_request() {
    for seed in 0..SEEDS {
        let (mut probe, file) = opened(seed);
        let write = done(seed, probe.machine.begin_write(file, b"12345"));
        done(seed, probe.machine.surprise_remove(&probe.device.clone()));
        assert_eq!(
            ended(&mut probe, write).unwrap().status,
            CANCELLED,
            "seed {seed}"
        );
        assert_eq!(journal()[0], "purge", "seed {seed}");
    }
}
