// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control devices and drivers without devices: how they live, who may open them,
//! and what is left when something fails on the way.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects>

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use dmf::driver::{Load, NonPnp};
use dmf::irql::Passive;
use dmf::module::{Create, Instance, Link, ModuleConfig, Owner};
use dmf::prelude::*;
use dmf::registry::{Access, Key};
use dmf::unicode_string;
use dmf::wdf::{
    Afterwards, Called, ControlConfig, ControlDevice, ControlHandle, DefaultQueue, Failure,
    FileClose, Guid, IoTarget, ManualQueue, Offer, QueueCallback, QueueConfig, Read, Request, Sddl,
    ShutdownMoment, Timer, TimerFired, Write,
};
use ntsim::Machine;
use ntsim::machine::Error;
use probe::Probe;

const ACCESS_DENIED: u32 = 0xC000_0022;
const NAME_NOT_FOUND: u32 = 0xC000_0034;
const NO_SUCH_DEVICE: u32 = 0xC000_000E;
const CANCELLED: u32 = 0xC000_0120;

thread_local! {
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What the driver of a test is to do.
    static PLAN: Cell<Plan> = const { Cell::new(Plan::Work) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Work,
    /// The driver refuses to be loaded after it added its control device.
    RefuseLoad,
    /// The control device's value cannot be made.
    RefuseMake,
    Exclusive,
    KernelOnly,
    Shutdown,
    /// Twice the same name.
    Twice,
}

fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

fn journal() -> Vec<String> {
    JOURNAL.take()
}

// ---- a driver without devices ------------------------------------------

dmf::driver!(Lab: NonPnp);

struct Lab {
    desk: ControlHandle<Desk>,
}

struct Desk {
    lab: Owner<Lab>,
    waiting: ManualQueue<Read>,
    timer: Timer,
    counter: Handle<Counter>,
}

fn config() -> ControlConfig<'static> {
    let security = match PLAN.get() {
        Plan::KernelOnly => Sddl::KERNEL_ONLY,
        _ => Sddl::SYSTEM_AND_ADMINISTRATORS,
    };
    let config = ControlConfig::new(unicode_string!(r"\Device\Lab"), security);
    match PLAN.get() {
        Plan::Exclusive => config.exclusive(),
        Plan::Shutdown => config.notify_shutdown(ShutdownMoment::Both),
        _ => config,
    }
}

impl NonPnp for Lab {
    fn load(add: &mut Load<'_, Self>) -> Result<Self> {
        let lab = add.owner();
        assert!(lab.enter().is_err(), "it is not made yet");
        if PLAN.get() == Plan::Twice {
            add.control_device(config(), Desk::make(lab.clone()))?;
        }
        let desk = add.control_device(config(), Desk::make(lab))?;
        drop(desk.enter()?);
        if PLAN.get() == Plan::RefuseLoad {
            return Err(NtStatus::NOT_SUPPORTED);
        }
        Ok(Lab { desk })
    }

    fn unload(&self, _cx: &mut Called<'_, Passive>) {
        assert!(self.desk.enter().is_ok());
        note("unload");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        note("lab dropped");
    }
}

impl Desk {
    fn make(lab: Owner<Lab>) -> impl FnOnce(&mut dmf::Modules<'_, Desk>) -> Result<Desk> {
        move |add| {
            add.symbolic_link(unicode_string!(r"\DosDevices\Lab"))?;
            add.default_queue(DefaultQueue::parallel())?;
            if PLAN.get() == Plan::RefuseMake {
                return Err(NtStatus::NOT_SUPPORTED);
            }
            Ok(Desk {
                lab,
                waiting: add.manual_queue(ManualQueue::config())?,
                timer: add.timer(Desk::fired)?,
                counter: add.module(CounterConfig)?,
            })
        }
    }

    fn fired(&self, _cx: &mut TimerFired<'_>) {
        if let Ok(Some(read)) = self.waiting.next() {
            read.complete_with_bytes(b"later");
        }
    }
}

impl ControlDevice for Desk {
    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        let _ = request.forward(&self.waiting);
        let _ = self.timer.start(Duration::from_secs(1));
        Offer::Handled
    }

    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        let known = self.lab.enter().is_ok();
        let length = self.counter.count().unwrap_or(0);
        note(format!(
            "write, lab {}",
            if known { "there" } else { "gone" }
        ));
        request.complete(Ok(length));
        Offer::Handled
    }

    fn file_close(&self, _cx: &mut FileClose<'_>) {
        note("file close");
    }

    fn shutdown(&self, _cx: &mut Called<'_, Passive>) {
        note("shutdown");
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        note("desk dropped");
    }
}

#[derive(Clone)]
struct Counter(Link<Count>);
struct Count(SpinLock<usize>);
struct CounterConfig;

impl Counter {
    fn count(&self) -> Result<usize> {
        let count = self.0.enter()?;
        Ok(count.0.with(|count| {
            *count += 1;
            *count
        }))
    }
}

impl Module for Counter {
    type Instance = Count;
    fn over(instance: Link<Count>) -> Self {
        Counter(instance)
    }
}

impl Instance for Count {}

impl<O: 'static> ModuleConfig<O> for CounterConfig {
    type Module = Counter;
    fn create(self, _cx: &mut Create<'_, O, Count>) -> Result<Count> {
        Ok(Count(SpinLock::new(0)))
    }
}

fn lab(plan: Plan) -> Machine {
    PLAN.set(plan);
    let mut machine = Machine::default();
    machine.add_service("Lab", Lab::DRIVER_ENTRY).unwrap();
    machine
}

fn started(plan: Plan) -> Machine {
    let mut machine = lab(plan);
    machine
        .start_service("Lab")
        .unwrap_or_else(|error| panic!("{error}"));
    machine
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, expected: u32) {
    match result {
        Err(Error::Driver { status, .. }) if status == expected => {}
        Err(other) => panic!("expected {expected:#x}, found {other}"),
        Ok(_) => panic!("expected {expected:#x}"),
    }
}

#[test]
fn a_control_device_has_queues_timers_and_modules_of_its_own() {
    let mut machine = started(Plan::Work);
    let file = machine.open(r"\\.\Lab").unwrap();
    assert_eq!(machine.write(file, b"x").unwrap().information, 1);
    assert_eq!(machine.write(file, b"xy").unwrap().information, 2);
    assert_eq!(machine.read(file, 8).unwrap().data, b"later");
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();
    assert_eq!(
        journal(),
        [
            "write, lab there",
            "write, lab there",
            "file close",
            "unload",
            "lab dropped",
            "desk dropped"
        ]
    );
}

#[test]
fn it_can_be_loaded_again() {
    let mut machine = started(Plan::Work);
    machine.stop_service("Lab").unwrap();
    refused(machine.open(r"\\.\Lab"), NAME_NOT_FOUND);
    machine.start_service("Lab").unwrap();
    let file = machine.open(r"\\.\Lab").unwrap();
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();
}

#[test]
fn what_fails_on_the_way_leaves_nothing_behind() {
    for (plan, status) in [
        (Plan::RefuseLoad, NtStatus::NOT_SUPPORTED),
        (Plan::RefuseMake, NtStatus::NOT_SUPPORTED),
        (Plan::Twice, NtStatus::OBJECT_NAME_COLLISION),
    ] {
        let mut machine = lab(plan);
        refused(
            machine.start_service("Lab"),
            status.to_raw().cast_unsigned(),
        );
        journal();
        PLAN.set(Plan::Work);
        machine.start_service("Lab").unwrap();
        machine.stop_service("Lab").unwrap();
        assert_eq!(journal(), ["unload", "lab dropped", "desk dropped"]);
    }
}

#[test]
fn every_shortage_while_loading_is_undone() {
    for point in 1.. {
        let mut machine = lab(Plan::Work);
        machine.fail_nth(Some(point));
        let result = machine.start_service("Lab");
        let failed = machine.fallible_calls().failed;
        machine.fail_nth(None);
        if failed.is_none() {
            result.unwrap();
            assert!(point > 8, "it allocates more than that");
            return;
        }
        assert!(result.is_err(), "point {point}: {failed:?} was not told");
        machine
            .start_service("Lab")
            .unwrap_or_else(|error| panic!("point {point}, {failed:?}: {error}"));
        machine
            .stop_service("Lab")
            .unwrap_or_else(|error| panic!("point {point}, {failed:?}: {error}"));
    }
}

#[test]
fn exclusive_and_secured_devices_keep_users_out() {
    let mut machine = started(Plan::Exclusive);
    let file = machine.open(r"\\.\Lab").unwrap();
    refused(machine.open(r"\\.\Lab"), ACCESS_DENIED);
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();

    let mut machine = started(Plan::KernelOnly);
    refused(machine.open(r"\\.\Lab"), ACCESS_DENIED);
    machine.stop_service("Lab").unwrap();
}

#[test]
fn shutdown_is_told_at_both_moments() {
    let mut machine = started(Plan::Shutdown);
    machine.reboot().unwrap();
    assert_eq!(journal(), ["shutdown", "shutdown"]);
    let mut machine = started(Plan::Work);
    machine.reboot().unwrap();
    assert!(journal().is_empty());
}

// ---- a driver for devices with a control device ------------------------

dmf::driver!(Board);

struct Board {
    _panel: ControlHandle<Panel>,
}

struct Panel {
    board: Owner<Board>,
    failure: Failure,
    target: IoTarget,
}

impl Device for Board {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let board = add.owner();
        let config = ControlConfig::new(
            unicode_string!(r"\Device\Board"),
            Sddl::SYSTEM_AND_ADMINISTRATORS,
        );
        let panel = add.control_device(config, |add| {
            add.default_queue(DefaultQueue::parallel())?;
            add.symbolic_link(unicode_string!(r"\DosDevices\Board"))?;
            // What has to do with PnP or power is an error value.
            let class = Guid::parse("7d2b19e4-8a07-4b30-9c0c-2f1f9c8e3b11");
            assert!(add.device_interface(class).is_err());
            assert!(add.symbolic_link(unicode_string!(r"\??\More")).is_err());
            assert!(
                add.queue(QueueConfig::sequential().power_managed())
                    .is_err()
            );
            assert!(add.module(Late).is_err());
            assert!(add.property(dmf::wdf::Property::CLASS).is_err());
            assert!(Key::device(add, Access::Read).is_err());
            Ok(Panel {
                board,
                failure: add.failure(),
                target: add.io_target(),
            })
        })?;
        Ok(Board { _panel: panel })
    }
}

impl ControlDevice for Panel {
    fn io_write(&self, cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        assert_eq!(
            self.target
                .read(cx.irql(), &mut [0; 4], 0, Timeout::Never)
                .err(),
            Some(NtStatus::INVALID_DEVICE_REQUEST),
            "nothing is below"
        );
        assert_eq!(
            self.failure.report(Afterwards::Stay),
            Err(NtStatus::INVALID_DEVICE_REQUEST)
        );
        let length = usize::from(self.board.enter().is_ok());
        request.complete(Ok(length));
        Offer::Handled
    }
}

impl Drop for Panel {
    fn drop(&mut self) {
        note("panel dropped");
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        note("board dropped");
    }
}

/// A module that opens with the hardware, which a control device does not have.
struct Late;
#[derive(Clone)]
struct LateModule;
struct LateInstance;

impl Module for LateModule {
    type Instance = LateInstance;
    fn over(_: Link<LateInstance>) -> Self {
        LateModule
    }
}

impl Instance for LateInstance {
    const OPEN: dmf::module::OpenPolicy = dmf::module::OpenPolicy::PrepareHardware;
}

impl<O: 'static> ModuleConfig<O> for Late {
    type Module = LateModule;
    fn create(self, _cx: &mut Create<'_, O, LateInstance>) -> Result<LateInstance> {
        Ok(LateInstance)
    }
}

#[test]
fn a_device_takes_its_control_device_along() {
    let mut probe = Probe::started(Board::DRIVER_ENTRY, 1);
    let file = probe.machine.open(r"\\.\Board").unwrap();
    assert_eq!(probe.machine.write(file, b"x").unwrap().information, 1);
    probe.machine.close(file).unwrap();
    probe.remove();
    assert_eq!(journal(), ["board dropped", "panel dropped"]);
}

#[test]
fn a_control_device_with_open_files_outlives_its_device() {
    for seed in 0..32 {
        let mut probe = Probe::started(Board::DRIVER_ENTRY, seed);
        let file = probe.machine.open(r"\\.\Board").unwrap();
        probe.remove();
        assert_eq!(journal(), ["board dropped"], "seed {seed}");
        refused(probe.machine.open(r"\\.\Board"), NO_SUCH_DEVICE);
        assert_eq!(probe.machine.write(file, b"x").unwrap().information, 0);
        probe.machine.close(file).unwrap();
        assert_eq!(journal(), ["panel dropped"], "seed {seed}");
        assert!(probe.machine.loaded_drivers().is_empty());
    }
}

#[test]
fn a_second_device_cannot_have_the_same_control_device() {
    let mut probe = Probe::started(Board::DRIVER_ENTRY, 1);
    let second = probe.machine.plug_in(r"Root\Probe").unwrap();
    refused(
        probe.machine.start_device(&second),
        NtStatus::OBJECT_NAME_COLLISION.to_raw().cast_unsigned(),
    );
    probe.remove();
    journal();
}

#[test]
fn a_request_that_waits_is_cancelled_when_its_file_is_closed() {
    let mut machine = started(Plan::Work);
    let file = machine.open(r"\\.\Lab").unwrap();
    let read = machine.begin_read(file, 4).unwrap();
    machine.close(file).unwrap();
    let ended = machine.wait(read, Duration::from_secs(5)).unwrap();
    assert_eq!(ended.map(|ended| ended.status), Some(CANCELLED));
    machine.stop_service("Lab").unwrap();
}
