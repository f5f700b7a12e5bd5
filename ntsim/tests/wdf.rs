// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF as a driver sees it: a driver linked into this program, written against
//! the raw interface as a C driver would be, whose parts each test chooses.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of structures and of short strings"
)]

#[macro_use]
#[path = "support/raw.rs"]
mod raw;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use ntsim::machine::Error;
use ntsim::trace::Event;
use ntsim::{Machine, StopKind};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, UNICODE_STRING, WDF_DRIVER_CONFIG,
    WDF_OBJECT_ATTRIBUTES, WDF_OBJECT_CONTEXT_TYPE_INFO, WDF_PNPPOWER_EVENT_CALLBACKS,
    WDF_TIMER_CONFIG, WDF_WORKITEM_CONFIG, WDFDEVICE, WDFDRIVER, WDFKEY, WDFOBJECT, WDFTIMER,
    WDFWORKITEM,
};
use raw::{attributes, below, delay};

type DeviceAdd = Box<dyn FnMut(WDFDEVICE) -> NTSTATUS>;

/// What the driver of this test does; each test runs on a thread of its own.
#[derive(Default)]
struct Script {
    attributes: Option<WDF_OBJECT_ATTRIBUTES>,
    after_create: Option<DeviceAdd>,
    /// What PnP callbacks answer, by name.
    answers: HashMap<&'static str, NTSTATUS>,
    /// What timers, work items and PnP callbacks do, by name.
    actions: HashMap<&'static str, Box<dyn FnMut(WDFOBJECT)>>,
    entry_status: NTSTATUS,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

fn act(name: &'static str, object: WDFOBJECT) {
    // Taken out meanwhile: the action may call the kernel, which may run others.
    let action = SCRIPT.with_borrow_mut(|script| script.actions.remove(name));
    if let Some(mut action) = action {
        action(object);
        SCRIPT.with_borrow_mut(|script| drop(script.actions.insert(name, action)));
    }
}

fn answer(name: &'static str, device: WDFDEVICE) -> NTSTATUS {
    act(name, device.cast());
    SCRIPT.with_borrow(|script| script.answers.get(name).copied().unwrap_or(0))
}

unsafe extern "C-unwind" fn driver_entry(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    let mut config: WDF_DRIVER_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_DRIVER_CONFIG>() as u32;
    config.EvtDriverDeviceAdd = Some(device_add);
    config.EvtDriverUnload = Some(unload);
    let status = wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        object, path, std::ptr::null_mut(), &raw mut config, std::ptr::null_mut()));
    if status < 0 {
        status
    } else {
        SCRIPT.with_borrow(|script| script.entry_status)
    }
}

unsafe extern "C-unwind" fn unload(_: WDFDRIVER) {}

macro_rules! device_callbacks {
    ($($name:ident($($arg:ident: $ty:ty),*) = $label:literal;)*) => {$(
        unsafe extern "C-unwind" fn $name(device: WDFDEVICE, $($arg: $ty),*) -> NTSTATUS {
            answer($label, device)
        }
    )*};
}

device_callbacks! {
    prepare_hardware(_raw: ntsim_sys::WDFCMRESLIST, _translated: ntsim_sys::WDFCMRESLIST) = "PrepareHardware";
    release_hardware(_translated: ntsim_sys::WDFCMRESLIST) = "ReleaseHardware";
    d0_entry(_previous: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0Entry";
    d0_entry_post(_previous: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0EntryPostInterruptsEnabled";
    d0_exit(_target: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0Exit";
    d0_exit_pre(_target: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0ExitPreInterruptsDisabled";
    self_managed_io_init() = "SelfManagedIoInit";
    self_managed_io_suspend() = "SelfManagedIoSuspend";
    self_managed_io_restart() = "SelfManagedIoRestart";
    query_remove() = "QueryRemove";
    query_stop() = "QueryStop";
    usage_notification(_file: ntsim_sys::WDF_SPECIAL_FILE_TYPE, _in_path: u8) = "UsageNotification";
    arm_wake_from_sx(_device_wakes: u8, _children_wake: u8) = "ArmWakeFromSx";
}

unsafe extern "C-unwind" fn relations_query(
    device: WDFDEVICE,
    _relation: ntsim_sys::DEVICE_RELATION_TYPE,
) {
    act("RelationsQuery", device.cast());
}
unsafe extern "C-unwind" fn disarm_wake_from_sx(device: WDFDEVICE) {
    act("DisarmWakeFromSx", device.cast());
}
unsafe extern "C-unwind" fn wake_from_sx_triggered(device: WDFDEVICE) {
    act("WakeFromSxTriggered", device.cast());
}

unsafe extern "C-unwind" fn self_managed_io_flush(device: WDFDEVICE) {
    act("SelfManagedIoFlush", device.cast());
}
unsafe extern "C-unwind" fn self_managed_io_cleanup(device: WDFDEVICE) {
    act("SelfManagedIoCleanup", device.cast());
}
unsafe extern "C-unwind" fn surprise_removal(device: WDFDEVICE) {
    act("SurpriseRemoval", device.cast());
}
unsafe extern "C-unwind" fn timer_func(timer: WDFTIMER) {
    act("Timer", timer.cast());
}
unsafe extern "C-unwind" fn work_item_func(item: WDFWORKITEM) {
    act("WorkItem", item.cast());
}
unsafe extern "C-unwind" fn cleanup(object: WDFOBJECT) {
    act("Cleanup", object);
}
unsafe extern "C-unwind" fn destroy(object: WDFOBJECT) {
    act("Destroy", object);
}

unsafe extern "C-unwind" fn device_add(_: WDFDRIVER, mut init: PWDFDEVICE_INIT) -> NTSTATUS {
    let mut callbacks: WDF_PNPPOWER_EVENT_CALLBACKS = unsafe { std::mem::zeroed() };
    callbacks.Size = size_of::<WDF_PNPPOWER_EVENT_CALLBACKS>() as u32;
    callbacks.EvtDevicePrepareHardware = Some(prepare_hardware);
    callbacks.EvtDeviceReleaseHardware = Some(release_hardware);
    callbacks.EvtDeviceD0Entry = Some(d0_entry);
    callbacks.EvtDeviceD0EntryPostInterruptsEnabled = Some(d0_entry_post);
    callbacks.EvtDeviceD0Exit = Some(d0_exit);
    callbacks.EvtDeviceD0ExitPreInterruptsDisabled = Some(d0_exit_pre);
    callbacks.EvtDeviceSelfManagedIoInit = Some(self_managed_io_init);
    callbacks.EvtDeviceSelfManagedIoSuspend = Some(self_managed_io_suspend);
    callbacks.EvtDeviceSelfManagedIoRestart = Some(self_managed_io_restart);
    callbacks.EvtDeviceSelfManagedIoFlush = Some(self_managed_io_flush);
    callbacks.EvtDeviceSelfManagedIoCleanup = Some(self_managed_io_cleanup);
    callbacks.EvtDeviceSurpriseRemoval = Some(surprise_removal);
    callbacks.EvtDeviceQueryRemove = Some(query_remove);
    callbacks.EvtDeviceQueryStop = Some(query_stop);
    callbacks.EvtDeviceRelationsQuery = Some(relations_query);
    callbacks.EvtDeviceUsageNotificationEx = Some(usage_notification);
    wdf!(WdfDeviceInitSetPnpPowerEventCallbacks: WdfDeviceInitSetPnpPowerEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS(init, &raw mut callbacks));
    let mut policy: ntsim_sys::WDF_POWER_POLICY_EVENT_CALLBACKS = unsafe { std::mem::zeroed() };
    policy.Size = size_of::<ntsim_sys::WDF_POWER_POLICY_EVENT_CALLBACKS>() as u32;
    policy.EvtDeviceArmWakeFromSxWithReason = Some(arm_wake_from_sx);
    policy.EvtDeviceDisarmWakeFromSx = Some(disarm_wake_from_sx);
    policy.EvtDeviceWakeFromSxTriggered = Some(wake_from_sx_triggered);
    wdf!(WdfDeviceInitSetPowerPolicyEventCallbacks: WdfDeviceInitSetPowerPolicyEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPOWERPOLICYEVENTCALLBACKS(init, &raw mut policy));
    let mut attributes = SCRIPT
        .with_borrow(|script| script.attributes)
        .unwrap_or_else(attributes);
    let mut device = std::ptr::null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
    if status < 0 {
        return status;
    }
    assert!(init.is_null(), "WdfDeviceCreate takes the init record away");
    match SCRIPT.with_borrow_mut(|script| script.after_create.take()) {
        Some(mut after) => after(device),
        None => 0,
    }
}

fn timer_config(period: u32) -> WDF_TIMER_CONFIG {
    let mut config: WDF_TIMER_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_TIMER_CONFIG>() as u32;
    config.EvtTimerFunc = Some(timer_func);
    config.Period = period;
    config
}

fn create_timer(
    mut config: WDF_TIMER_CONFIG,
    mut attributes: WDF_OBJECT_ATTRIBUTES,
) -> Result<WDFTIMER, NTSTATUS> {
    let mut timer = std::ptr::null_mut();
    let status = wdf!(WdfTimerCreate: WdfTimerCreateTableIndex
        as PFN_WDFTIMERCREATE(&raw mut config, &raw mut attributes, &raw mut timer));
    if status < 0 { Err(status) } else { Ok(timer) }
}

fn start_timer(timer: WDFTIMER, milliseconds: i64) -> bool {
    wdf!(WdfTimerStart: WdfTimerStartTableIndex as PFN_WDFTIMERSTART(timer, -milliseconds * 10_000))
        != 0
}

fn stop_timer(timer: WDFTIMER, wait: bool) -> bool {
    wdf!(WdfTimerStop: WdfTimerStopTableIndex as PFN_WDFTIMERSTOP(timer, u8::from(wait))) != 0
}

fn create_work_item(device: WDFDEVICE) -> WDFWORKITEM {
    let mut config: WDF_WORKITEM_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_WORKITEM_CONFIG>() as u32;
    config.EvtWorkItemFunc = Some(work_item_func);
    let mut attributes = below(device.cast());
    let mut item = std::ptr::null_mut();
    let status = wdf!(WdfWorkItemCreate: WdfWorkItemCreateTableIndex
        as PFN_WDFWORKITEMCREATE(&raw mut config, &raw mut attributes, &raw mut item));
    assert_eq!(status, 0);
    item
}

fn enqueue(item: WDFWORKITEM) {
    wdf!(WdfWorkItemEnqueue: WdfWorkItemEnqueueTableIndex as PFN_WDFWORKITEMENQUEUE(item));
}

fn flush(item: WDFWORKITEM) {
    wdf!(WdfWorkItemFlush: WdfWorkItemFlushTableIndex as PFN_WDFWORKITEMFLUSH(item));
}

fn delete(object: WDFOBJECT) {
    wdf!(WdfObjectDelete: WdfObjectDeleteTableIndex as PFN_WDFOBJECTDELETE(object));
}

fn create_object(mut attributes: WDF_OBJECT_ATTRIBUTES) -> Result<WDFOBJECT, NTSTATUS> {
    let mut object = std::ptr::null_mut();
    let status = wdf!(WdfObjectCreate: WdfObjectCreateTableIndex
        as PFN_WDFOBJECTCREATE(&raw mut attributes, &raw mut object));
    if status < 0 { Err(status) } else { Ok(object) }
}

/// A machine with the driver installed and its device plugged in.
struct Bench {
    machine: Machine,
    device: String,
}

impl Bench {
    fn new() -> Self {
        Self::with_seed(1)
    }

    fn with_seed(seed: u64) -> Self {
        SCRIPT.set(Script::default());
        let raw::Bench { machine, device } = raw::Bench::with_driver(seed, driver_entry);
        Self { machine, device }
    }

    /// What the driver does after it made its device.
    fn after_create(self, body: impl FnMut(WDFDEVICE) -> NTSTATUS + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.after_create = Some(Box::new(body)));
        self
    }

    fn on(self, name: &'static str, body: impl FnMut(WDFOBJECT) + 'static) -> Self {
        SCRIPT.with_borrow_mut(|script| script.actions.insert(name, Box::new(body)));
        self
    }

    fn answer(self, name: &'static str, status: NTSTATUS) -> Self {
        SCRIPT.with_borrow_mut(|script| script.answers.insert(name, status));
        self
    }

    fn start(&mut self) {
        self.try_start().unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_start(&mut self) -> Result<(), Error> {
        self.machine.start_device(&self.device)
    }

    fn remove(&mut self) {
        self.machine
            .remove_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// The callbacks that were called, in order, without the framework's prefix.
    fn callbacks(&self) -> Vec<String> {
        self.machine
            .trace()
            .iter()
            .filter_map(|line| match &line.what {
                Event::Callback { name, args } => {
                    Some(format!("{}({args})", name.trim_start_matches("EvtDevice")))
                }
                _ => None,
            })
            .collect()
    }

    /// The names of the device's callbacks that were called after it was made.
    fn device_callbacks(&self) -> Vec<String> {
        self.callbacks()
            .iter()
            .skip_while(|text| !text.starts_with("EvtDriverDeviceAdd"))
            .skip(1)
            .map(|text| text.split('(').next().unwrap_or_default().to_owned())
            .collect()
    }
}

/// The stop of a bug check, with its code and first parameter.
fn bug_check<T>(result: Result<T, Error>) -> (u32, u64, String) {
    match result {
        Err(Error::Stop(stop)) => match stop.kind {
            StopKind::BugCheck { code, parameters } => (code, parameters[0], stop.message.clone()),
            _ => panic!("not a bug check: {stop}"),
        },
        Err(error) => panic!("not a stop: {error}"),
        Ok(_) => panic!("no bug check happened"),
    }
}

const FAILED: NTSTATUS = 0xC000_0001_u32.cast_signed();

// ---- PnP and power ------------------------------------------------------

#[test]
fn a_device_goes_up_and_down_in_the_documented_order() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.power_down(&bench.device).unwrap();
    bench.machine.power_up(&bench.device).unwrap();
    bench.remove();
    assert_eq!(
        bench.device_callbacks(),
        [
            "PrepareHardware",
            "D0Entry",
            "D0EntryPostInterruptsEnabled",
            "SelfManagedIoInit",
            "SelfManagedIoSuspend",
            "D0ExitPreInterruptsDisabled",
            "D0Exit",
            "D0Entry",
            "D0EntryPostInterruptsEnabled",
            "SelfManagedIoRestart",
            "QueryRemove",
            "SelfManagedIoSuspend",
            "D0ExitPreInterruptsDisabled",
            "D0Exit",
            "ReleaseHardware",
            "SelfManagedIoFlush",
            "SelfManagedIoCleanup",
            "DriverUnload",
            "EvtDriverUnload",
        ]
    );
}

#[test]
fn power_states_are_what_the_device_comes_from_and_goes_to() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.power_down(&bench.device).unwrap();
    bench.machine.power_up(&bench.device).unwrap();
    bench.remove();
    let states: Vec<_> = bench
        .callbacks()
        .into_iter()
        .filter(|text| text.starts_with("D0Entry(") || text.starts_with("D0Exit("))
        .collect();
    assert_eq!(
        states,
        [
            "D0Entry(Device=WDFDEVICE#1, PreviousState=5)",
            "D0Exit(Device=WDFDEVICE#1, TargetState=4)",
            "D0Entry(Device=WDFDEVICE#1, PreviousState=4)",
            "D0Exit(Device=WDFDEVICE#1, TargetState=5)",
        ]
    );
}

#[test]
fn surprise_removal_is_told_before_the_way_down() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.surprise_remove(&bench.device).unwrap();
    let after_start = bench.device_callbacks().split_off(4);
    assert_eq!(
        after_start,
        [
            "SurpriseRemoval",
            "SelfManagedIoSuspend",
            "D0ExitPreInterruptsDisabled",
            "D0Exit",
            "ReleaseHardware",
            "SelfManagedIoFlush",
            "SelfManagedIoCleanup",
            "DriverUnload",
            "EvtDriverUnload",
        ]
    );
}

#[test]
fn a_sleeping_device_that_is_gone_does_not_leave_d0_twice() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.power_down(&bench.device).unwrap();
    bench.machine.surprise_remove(&bench.device).unwrap();
    let after_sleep = bench.device_callbacks().split_off(7);
    assert_eq!(
        after_sleep,
        [
            "SurpriseRemoval",
            "ReleaseHardware",
            "SelfManagedIoFlush",
            "SelfManagedIoCleanup",
            "DriverUnload",
            "EvtDriverUnload"
        ]
    );
}

#[test]
fn hardware_is_released_after_prepare_hardware_failed() {
    let mut bench = Bench::new().answer("PrepareHardware", FAILED);
    assert!(matches!(
        bench.try_start(),
        Err(Error::Driver {
            status: 0xC000_0001,
            ..
        })
    ));
    assert_eq!(
        bench.device_callbacks(),
        [
            "PrepareHardware",
            "ReleaseHardware",
            "DriverUnload",
            "EvtDriverUnload"
        ]
    );
}

#[test]
fn d0_exit_is_not_called_after_d0_entry_failed() {
    let mut bench = Bench::new().answer("D0Entry", FAILED);
    assert!(bench.try_start().is_err());
    assert_eq!(
        bench.device_callbacks(),
        [
            "PrepareHardware",
            "D0Entry",
            "ReleaseHardware",
            "DriverUnload",
            "EvtDriverUnload"
        ]
    );
}

#[test]
fn d0_exit_flush_and_cleanup_are_called_after_self_managed_io_init_failed() {
    let mut bench = Bench::new().answer("SelfManagedIoInit", FAILED);
    assert!(bench.try_start().is_err());
    assert_eq!(
        bench.device_callbacks().split_off(3),
        [
            "SelfManagedIoInit",
            "D0ExitPreInterruptsDisabled",
            "D0Exit",
            "ReleaseHardware",
            "SelfManagedIoFlush",
            "SelfManagedIoCleanup",
            "DriverUnload",
            "EvtDriverUnload"
        ]
    );
}

#[test]
fn a_driver_can_refuse_to_have_its_device_removed() {
    let mut bench = Bench::new().answer("QueryRemove", FAILED);
    bench.start();
    assert!(matches!(
        bench.machine.remove_device(&bench.device),
        Err(Error::Driver {
            status: 0xC000_0001,
            ..
        })
    ));
    assert_eq!(
        bench.device_callbacks().last().map(String::as_str),
        Some("QueryRemove")
    );
}

/// The status with which the machine says that a driver refused.
fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> u32 {
    match result {
        Err(Error::Driver { status, .. }) => status,
        other => panic!("no refusal: {other:?}"),
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/the-pnp-manager-redistributes-system-resources>
#[test]
fn a_device_that_is_stopped_gets_other_resources_and_goes_up_again() {
    let mut bench = Bench::new();
    let hardware = ntsim::machine::Hardware::new().memory(0x1000, 0x10);
    bench.machine.set_hardware(&bench.device, hardware);
    bench.start();
    let before = bench.device_callbacks().len();
    bench.machine.stop_device(&bench.device).unwrap();
    let hardware = ntsim::machine::Hardware::new().memory(0x2000, 0x10);
    bench.machine.set_hardware(&bench.device, hardware);
    bench.machine.restart_device(&bench.device).unwrap();
    assert_eq!(
        bench.device_callbacks()[before..],
        [
            "QueryStop",
            "SelfManagedIoSuspend",
            "D0ExitPreInterruptsDisabled",
            "D0Exit",
            "ReleaseHardware",
            "PrepareHardware",
            "D0Entry",
            "D0EntryPostInterruptsEnabled",
            "SelfManagedIoRestart",
        ]
    );
    bench.remove();
}

/// "If the driver determines that stopping is not safe, the callback must return
/// a failure":
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_query_stop>
#[test]
fn a_driver_can_refuse_to_have_its_device_stopped() {
    let mut bench = Bench::new().answer("QueryStop", FAILED);
    bench.start();
    let refused = bench.machine.stop_device(&bench.device);
    assert_eq!(refusal(refused), FAILED.cast_unsigned());
    assert!(bench.machine.is_in_d0(&bench.device).unwrap());
    let Err(Error::State { state, .. }) = bench.machine.restart_device(&bench.device) else {
        panic!("it was not stopped")
    };
    assert_eq!(state, "working");
    bench.remove();
}

#[test]
fn a_device_that_fails_on_its_restart_is_removed() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.stop_device(&bench.device).unwrap();
    let mut bench = bench.answer("PrepareHardware", FAILED);
    let failed = bench.machine.restart_device(&bench.device);
    assert_eq!(refusal(failed), FAILED.cast_unsigned());
    assert!(bench.machine.started_devices().is_empty());
    bench = bench.answer("PrepareHardware", 0);
    bench.start();
    bench.remove();
}

#[test]
fn a_stopped_device_can_be_removed_and_be_gone() {
    for surprise in [false, true] {
        let mut bench = Bench::new();
        bench.start();
        bench.machine.stop_device(&bench.device).unwrap();
        let before = bench.device_callbacks().len();
        if surprise {
            bench.machine.surprise_remove(&bench.device).unwrap();
        } else {
            bench.remove();
        }
        assert!(
            !bench.device_callbacks()[before..]
                .iter()
                .any(|name| name == "D0Exit" || name == "ReleaseHardware")
        );
    }
}

/// Support is off by default, and a device with a special file on it is neither
/// stopped nor removed:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-special-files>
#[test]
fn a_device_carries_only_the_special_files_that_its_driver_supports() {
    const NOT_IMPLEMENTED: u32 = 0xC000_0002;
    const NOT_READY: u32 = 0xC000_00A3;
    use ntsim::machine::SpecialFile;
    let mut bench = Bench::new().after_create(|device| {
        wdf!(WdfDeviceSetSpecialFileSupport: WdfDeviceSetSpecialFileSupportTableIndex
            as PFN_WDFDEVICESETSPECIALFILESUPPORT(device, 1, 1));
        0
    });
    bench.start();
    let device = bench.device.clone();
    let refused = bench.machine.place_special_file(&device, SpecialFile::Dump);
    assert_eq!(refusal(refused), NOT_IMPLEMENTED);
    bench
        .machine
        .place_special_file(&device, SpecialFile::Paging)
        .unwrap();
    assert_eq!(refusal(bench.machine.stop_device(&device)), NOT_READY);
    assert_eq!(refusal(bench.machine.remove_device(&device)), NOT_READY);
    bench
        .machine
        .remove_special_file(&device, SpecialFile::Paging)
        .unwrap();
    let bench = bench.answer("UsageNotification", FAILED);
    let mut bench = bench;
    let refused = bench
        .machine
        .place_special_file(&device, SpecialFile::Paging);
    assert_eq!(refusal(refused), FAILED.cast_unsigned());
    bench.remove();
}

#[test]
fn a_special_file_that_there_is_not_is_a_bug_check() {
    let mut bench = Bench::new().after_create(|device| {
        wdf!(WdfDeviceSetSpecialFileSupport: WdfDeviceSetSpecialFileSupportTableIndex
            as PFN_WDFDEVICESETSPECIALFILESUPPORT(device, 9, 1));
        0
    });
    let (_, _, message) = bug_check(bench.try_start());
    assert!(message.contains("FileType 9"), "{message}");
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_relations_query>
#[test]
fn a_driver_hears_of_the_relations_that_are_asked_for() {
    let mut bench = Bench::new();
    bench.start();
    bench
        .machine
        .query_relations(&bench.device, ntsim::machine::Relation::Removal)
        .unwrap();
    let last = bench.callbacks().pop().unwrap();
    assert!(last.starts_with("RelationsQuery("), "{last}");
    assert!(last.ends_with("RelationType=3)"), "{last}");
    bench.remove();
}

fn power_action(device: WDFOBJECT) -> i32 {
    wdf!(WdfDeviceGetSystemPowerAction: WdfDeviceGetSystemPowerActionTableIndex
        as PFN_WDFDEVICEGETSYSTEMPOWERACTION(device.cast())) as i32
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicegetsystempoweraction>,
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_power_device_state>
#[test]
fn a_driver_learns_why_its_device_leaves_d0() {
    use ntsim::machine::{Sleep, SpecialFile};
    thread_local! {
        static ACTIONS: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
    }
    let mut bench = Bench::new()
        .after_create(|device| {
            wdf!(WdfDeviceSetSpecialFileSupport: WdfDeviceSetSpecialFileSupportTableIndex
                as PFN_WDFDEVICESETSPECIALFILESUPPORT(device, 2, 1));
            0
        })
        .on("D0Exit", |device| {
            ACTIONS.with_borrow_mut(|actions| actions.push(power_action(device)));
        });
    bench.start();
    for how in [Sleep::S1, Sleep::S3, Sleep::Hibernate] {
        bench.machine.sleep(how).unwrap();
        bench.machine.wake().unwrap();
    }
    // One that carries the hibernation file has power until that is written.
    let device = bench.device.clone();
    bench
        .machine
        .place_special_file(&device, SpecialFile::Hibernation)
        .unwrap();
    bench.machine.sleep(Sleep::Hibernate).unwrap();
    bench.machine.wake().unwrap();
    bench
        .machine
        .remove_special_file(&device, SpecialFile::Hibernation)
        .unwrap();
    bench.remove();
    // Sleep, sleep, hibernate, hibernate, none.
    assert_eq!(ACTIONS.take(), [2, 2, 3, 3, 0]);
    let states: Vec<_> = bench
        .callbacks()
        .into_iter()
        .filter(|text| text.starts_with("D0Exit(") || text.starts_with("D0Entry("))
        .map(|text| {
            text.trim_end_matches(')')
                .rsplit('=')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(states, ["5", "4", "4", "4", "4", "4", "4", "6", "6", "5"]);
}

fn assign_wake_settings(device: WDFOBJECT) {
    let mut settings: ntsim_sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS =
        unsafe { std::mem::zeroed() };
    settings.Size = size_of::<ntsim_sys::WDF_DEVICE_POWER_POLICY_WAKE_SETTINGS>() as u32;
    settings.DxState = 5;
    settings.Enabled = 1;
    let status = wdf!(WdfDeviceAssignSxWakeSettings: WdfDeviceAssignSxWakeSettingsTableIndex
        as PFN_WDFDEVICEASSIGNSXWAKESETTINGS(device.cast(), &raw mut settings));
    assert_eq!(status, 0);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_sx_with_reason>:
/// after a failure the framework calls `EvtDeviceDisarmWakeFromSx`, and reports nothing.
#[test]
fn a_device_is_armed_before_the_system_sleeps_and_disarmed_after() {
    use ntsim::machine::Sleep;
    for (answer, armed) in [(0, true), (FAILED, false)] {
        let mut bench = Bench::new()
            .on("SelfManagedIoInit", assign_wake_settings)
            .answer("ArmWakeFromSx", answer);
        bench.start();
        bench.machine.sleep(Sleep::S3).unwrap();
        assert_eq!(bench.machine.signal_wake(&bench.device).unwrap(), armed);
        bench.machine.wake().unwrap();
        bench.remove();
        let woken: Vec<_> = bench
            .device_callbacks()
            .into_iter()
            .filter(|name| name.contains("Sx") || name.contains("D0E"))
            .collect();
        let expected: &[&str] = if armed {
            &[
                "D0Entry",
                "D0EntryPostInterruptsEnabled",
                "ArmWakeFromSxWithReason",
                "D0ExitPreInterruptsDisabled",
                "D0Exit",
                "D0Entry",
                "D0EntryPostInterruptsEnabled",
                "WakeFromSxTriggered",
                "DisarmWakeFromSx",
                "D0ExitPreInterruptsDisabled",
                "D0Exit",
            ]
        } else {
            &[
                "D0Entry",
                "D0EntryPostInterruptsEnabled",
                "ArmWakeFromSxWithReason",
                "DisarmWakeFromSx",
                "D0ExitPreInterruptsDisabled",
                "D0Exit",
                "D0Entry",
                "D0EntryPostInterruptsEnabled",
                "D0ExitPreInterruptsDisabled",
                "D0Exit",
            ]
        };
        assert_eq!(woken, expected);
    }
}

fn set_failed(device: WDFOBJECT, action: i32) {
    wdf!(WdfDeviceSetFailed: WdfDeviceSetFailedTableIndex
        as PFN_WDFDEVICESETFAILED(device.cast(), action));
}

/// The device is removed, and started again unless the driver forbids it; "if
/// several consecutive restart attempts fail, the framework stops trying":
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_device_failed_action>
#[test]
fn a_device_whose_driver_gives_it_up_is_removed_and_tried_again() {
    // (action, starts in all)
    for (action, starts) in [(1, 6), (2, 1)] {
        let mut bench = Bench::new().on("SelfManagedIoInit", move |device| {
            set_failed(device, action);
        });
        bench.start();
        bench.machine.run_for(Duration::from_secs(1)).unwrap();
        assert!(bench.machine.started_devices().is_empty());
        let callbacks = bench.device_callbacks();
        let count = |wanted: &str| callbacks.iter().filter(|name| *name == wanted).count();
        assert_eq!(count("D0Entry"), starts);
        assert_eq!(count("SurpriseRemoval"), starts);
    }
}

#[test]
fn a_device_whose_callback_fails_is_tried_again() {
    let mut bench = Bench::new();
    bench.start();
    bench.machine.power_down(&bench.device).unwrap();
    let mut bench = bench.answer("D0Entry", FAILED);
    assert!(bench.machine.power_up(&bench.device).is_err());
    bench = bench.answer("D0Entry", 0);
    bench.machine.run_for(Duration::from_secs(1)).unwrap();
    assert!(bench.machine.is_in_d0(&bench.device).unwrap());
    bench.remove();
}

/// "The framework does not synchronize the `EvtDeviceSurpriseRemoval` callback
/// function with other PnP and power management callback functions":
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_surprise_removal>
#[test]
fn surprise_removal_overlaps_power_callbacks_under_some_schedules() {
    use ntsim::machine::PowerChange;
    thread_local! {
        static IN_POWER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
        static OVERLAPS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }
    let slow = |_| {
        IN_POWER.set(true);
        delay(1);
        IN_POWER.set(false);
    };
    for seed in 0..100 {
        let mut bench = Bench::with_seed(seed)
            .on("D0Exit", slow)
            .on("SelfManagedIoSuspend", slow)
            .on("SelfManagedIoRestart", slow)
            .on("D0EntryPostInterruptsEnabled", slow)
            .on("SurpriseRemoval", |_| {
                OVERLAPS.set(OVERLAPS.get() + u32::from(IN_POWER.get()));
                delay(1);
            });
        bench.start();
        let change = if seed % 2 == 0 {
            PowerChange::Down
        } else {
            bench.machine.power_down(&bench.device).unwrap();
            PowerChange::Up
        };
        bench
            .machine
            .surprise_remove_during(&bench.device, change)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(bench.machine.started_devices().is_empty());
        let callbacks = bench.device_callbacks();
        let count = |wanted: &str| callbacks.iter().filter(|name| *name == wanted).count();
        assert_eq!(count("SurpriseRemoval"), 1);
        assert_eq!(count("D0Exit"), count("D0Entry"), "seed {seed}");
        assert_eq!(count("ReleaseHardware"), 1);
    }
    let overlaps = OVERLAPS.get();
    assert!((10..=100).contains(&overlaps), "{overlaps} of 100 overlap");
}

#[test]
fn a_device_is_deleted_when_device_add_fails_after_making_it() {
    let mut bench = Bench::new().after_create(|device| {
        let mut object = below(device.cast());
        object.EvtCleanupCallback = Some(cleanup);
        create_object(object).expect("there is memory");
        FAILED
    });
    assert!(bench.try_start().is_err());
    assert_eq!(
        bench.device_callbacks(),
        ["EvtCleanupCallback", "DriverUnload", "EvtDriverUnload"]
    );
}

#[test]
fn a_driver_entry_that_fails_is_unbound() {
    let mut bench = Bench::new();
    SCRIPT.with_borrow_mut(|script| script.entry_status = FAILED);
    assert!(bench.try_start().is_err());
    let unbound = bench
        .machine
        .trace()
        .iter()
        .any(|line| line.to_string().contains("WdfVersionUnbind"));
    assert!(
        unbound,
        "the entry stub unbinds a driver whose DriverEntry fails"
    );
}

/// Such a driver is gone without its unload routine: what it left, it left for good.
#[test]
fn a_driver_entry_that_fails_and_leaves_something_behind_stops_the_machine() {
    unsafe extern "C-unwind" {
        safe fn ExAllocatePool2(flags: u64, size: usize, tag: u32) -> *mut std::ffi::c_void;
    }
    unsafe extern "C-unwind" fn leaks(_: *mut DRIVER_OBJECT, _: PCUNICODE_STRING) -> NTSTATUS {
        // POOL_FLAG_NON_PAGED
        assert!(!ExAllocatePool2(0x40, 16, u32::from_le_bytes(*b"Leak")).is_null());
        FAILED
    }
    let mut machine = ntsim::Machine::default();
    let device = machine.add_driver("Leaks", leaks).unwrap();
    let error = machine.start_device(&device).unwrap_err().to_string();
    assert!(error.contains("tag 'Leak'"), "{error}");
}

// ---- objects ------------------------------------------------------------

#[test]
fn children_are_disposed_before_their_parent_in_the_order_of_their_creation() {
    let mut device_attributes = attributes();
    device_attributes.EvtCleanupCallback = Some(cleanup);
    device_attributes.EvtDestroyCallback = Some(destroy);
    let mut bench = Bench::new().after_create(|device| {
        let watched = |parent: WDFOBJECT| WDF_OBJECT_ATTRIBUTES {
            EvtCleanupCallback: Some(cleanup),
            EvtDestroyCallback: Some(destroy),
            ..below(parent)
        };
        let first = create_object(watched(device.cast())).expect("there is memory");
        create_object(watched(device.cast())).expect("there is memory");
        create_object(watched(first)).expect("there is memory");
        0
    });
    SCRIPT.with_borrow_mut(|script| script.attributes = Some(device_attributes));
    bench.start();
    bench.remove();
    let order: Vec<_> = bench
        .callbacks()
        .into_iter()
        .filter(|text| text.starts_with("EvtCleanup") || text.starts_with("EvtDestroy"))
        .collect();
    assert_eq!(
        order,
        [
            "EvtCleanupCallback(Object=WDFOBJECT#3)",
            "EvtCleanupCallback(Object=WDFOBJECT#1)",
            "EvtCleanupCallback(Object=WDFOBJECT#2)",
            "EvtCleanupCallback(Object=WDFDEVICE#1)",
            "EvtDestroyCallback(Object=WDFOBJECT#3)",
            "EvtDestroyCallback(Object=WDFOBJECT#1)",
            "EvtDestroyCallback(Object=WDFOBJECT#2)",
            "EvtDestroyCallback(Object=WDFDEVICE#1)",
        ]
    );
}

#[test]
fn a_reference_puts_off_destruction_but_not_cleanup() {
    let mut bench = Bench::new()
        .after_create(|device| {
            let object = create_object(WDF_OBJECT_ATTRIBUTES {
                EvtCleanupCallback: Some(cleanup),
                EvtDestroyCallback: Some(destroy),
                ..below(device.cast())
            })
            .expect("there is memory");
            wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex as PFN_WDFOBJECTREFERENCEACTUAL(
                object, std::ptr::null_mut(), 1, c"wdf.rs".as_ptr()));
            delete(object);
            wdf!(WdfObjectDereferenceActual: WdfObjectDereferenceActualTableIndex as PFN_WDFOBJECTDEREFERENCEACTUAL(
                object, std::ptr::null_mut(), 1, c"wdf.rs".as_ptr()));
            0
        });
    bench.start();
    let lines: Vec<_> = bench
        .machine
        .trace()
        .iter()
        .map(|line| line.what.to_string())
        .collect();
    let at = |what: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap_or_else(|| panic!("no {what}"))
    };
    assert!(at("-> EvtCleanupCallback") < at("WdfObjectDereferenceActual"));
    assert!(at("WdfObjectDereferenceActual") < at("-> EvtDestroyCallback"));
    bench.remove();
}

#[test]
fn an_object_with_a_reference_too_many_is_reported_at_unload() {
    let mut bench = Bench::new().after_create(|device| {
        let object = create_object(below(device.cast())).expect("there is memory");
        wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex as PFN_WDFOBJECTREFERENCEACTUAL(
            object, std::ptr::null_mut(), 1, c"wdf.rs".as_ptr()));
        0
    });
    bench.start();
    let Err(Error::Stop(stop)) = bench.machine.remove_device(&bench.device) else {
        panic!("the leak was not noticed")
    };
    assert!(
        stop.message
            .contains("WDFOBJECT#1: deleted, but 1 reference(s) are left"),
        "{stop}"
    );
}

#[test]
fn a_handle_that_was_deleted_is_named_in_the_bug_check() {
    let mut bench = Bench::new().after_create(|device| {
        let object = create_object(below(device.cast())).expect("there is memory");
        delete(object);
        delete(object);
        0
    });
    let (code, rule, message) = bug_check(bench.try_start());
    assert_eq!((code, rule), (0x10D, 5));
    assert_eq!(
        message,
        "WdfObjectDelete was given WDFOBJECT#1, which was deleted"
    );
}

#[test]
fn a_handle_of_another_type_is_refused() {
    let mut bench = Bench::new().after_create(|device| {
        start_timer(device.cast(), 1);
        0
    });
    let (code, rule, message) = bug_check(bench.try_start());
    assert_eq!((code, rule), (0x10D, 5));
    assert_eq!(
        message,
        "WdfTimerStart was given WDFDEVICE#1, which is no WDFTIMER"
    );
}

#[test]
fn a_driver_may_not_delete_its_pnp_device() {
    let mut bench = Bench::new().after_create(|device| {
        delete(device.cast());
        0
    });
    let (code, rule, _) = bug_check(bench.try_start());
    assert_eq!((code, rule), (0x10D, 7));
}

struct SyncTypeInfo(WDF_OBJECT_CONTEXT_TYPE_INFO);
unsafe impl Sync for SyncTypeInfo {}

static COUNTER: SyncTypeInfo = SyncTypeInfo(WDF_OBJECT_CONTEXT_TYPE_INFO {
    Size: size_of::<WDF_OBJECT_CONTEXT_TYPE_INFO>() as u32,
    ContextName: c"Counter".as_ptr(),
    ContextSize: 24,
    UniqueType: &raw const COUNTER.0,
    EvtDriverGetUniqueContextType: None,
});

fn context(object: WDFOBJECT) -> *mut u64 {
    wdf!(WdfObjectGetTypedContextWorker: WdfObjectGetTypedContextWorkerTableIndex
        as PFN_WDFOBJECTGETTYPEDCONTEXTWORKER(object, &raw const COUNTER.0))
    .cast()
}

#[test]
fn a_context_is_zeroed_and_found_by_its_type() {
    let mut bench = Bench::new().after_create(|device| {
        assert!(
            context(device.cast()).is_null(),
            "the device was given no context"
        );
        let object = create_object(WDF_OBJECT_ATTRIBUTES {
            ContextTypeInfo: &raw const COUNTER.0,
            ..below(device.cast())
        })
        .expect("there is memory");
        let counter = context(object);
        assert_eq!(
            unsafe { [counter.read(), counter.add(1).read(), counter.add(2).read()] },
            [0; 3]
        );
        unsafe { counter.write(7) };
        assert_eq!(unsafe { context(object).read() }, 7);
        0
    });
    bench.start();
    bench.remove();
}

#[test]
fn writing_past_a_context_ends_the_simulation_not_the_process() {
    let mut bench = Bench::new().after_create(|device| {
        let object = create_object(WDF_OBJECT_ATTRIBUTES {
            ContextTypeInfo: &raw const COUNTER.0,
            ..below(device.cast())
        })
        .expect("there is memory");
        unsafe { context(object).add(4).write(1) };
        0
    });
    assert!(matches!(bench.try_start(), Err(Error::Stop(_))));
}

#[test]
fn attributes_are_checked() {
    let mut bench = Bench::new().after_create(|device| {
        let good = below(device.cast());
        let wrong = [
            (WDF_OBJECT_ATTRIBUTES { Size: 48, ..good }, 0xC000_0004_u32),
            (
                WDF_OBJECT_ATTRIBUTES {
                    ContextSizeOverride: 8,
                    ..good
                },
                0xC020_0209,
            ),
            (
                WDF_OBJECT_ATTRIBUTES {
                    ContextTypeInfo: &raw const COUNTER.0,
                    ContextSizeOverride: 8,
                    ..good
                },
                0xC020_0209,
            ),
            (
                WDF_OBJECT_ATTRIBUTES {
                    ExecutionLevel: 0,
                    ..good
                },
                0xC020_0211,
            ),
            (
                WDF_OBJECT_ATTRIBUTES {
                    SynchronizationScope: 0,
                    ..good
                },
                0xC020_0210,
            ),
        ];
        for (attributes, status) in wrong {
            assert_eq!(
                create_object(attributes),
                Err(status.cast_signed()),
                "{status:#x}"
            );
        }
        0
    });
    bench.start();
    bench.remove();
}

// ---- timers -------------------------------------------------------------

#[test]
fn timer_configurations_are_checked() {
    let mut bench = Bench::new().after_create(|device| {
        let good = below(device.cast());
        let passive = WDF_OBJECT_ATTRIBUTES {
            ExecutionLevel: 2,
            ..good
        };
        let config = timer_config(0);
        let wrong = [
            (config, attributes(), 0xC020_0212_u32),
            (WDF_TIMER_CONFIG { Size: 8, ..config }, good, 0xC000_0004),
            (
                WDF_TIMER_CONFIG {
                    Period: 0x8000_0000,
                    ..config
                },
                good,
                0xC000_000D,
            ),
            (
                WDF_TIMER_CONFIG {
                    UseHighResolutionTimer: 1,
                    TolerableDelay: 5,
                    ..config
                },
                good,
                0xC000_000D,
            ),
            (
                WDF_TIMER_CONFIG {
                    EvtTimerFunc: None,
                    ..config
                },
                good,
                0xC000_000D,
            ),
            (
                WDF_TIMER_CONFIG {
                    Period: 100,
                    ..config
                },
                passive,
                0xC000_00BB,
            ),
        ];
        for (config, attributes, status) in wrong {
            assert_eq!(
                create_timer(config, attributes).err(),
                Some(status.cast_signed()),
                "{status:#x}"
            );
        }
        let driver = unsafe { (*ntsim_sys::WdfDriverGlobals).Driver };
        assert_eq!(
            create_timer(config, below(driver.cast())).err(),
            Some(0xC000_0010_u32.cast_signed())
        );
        0
    });
    bench.start();
    bench.remove();
}

/// A device with a timer that is started for 10 ms at D0Entry; gives the time
/// and IRQL of each callback.
fn expiries(
    attributes: impl Fn(WDFDEVICE) -> WDF_OBJECT_ATTRIBUTES + 'static,
    config: WDF_TIMER_CONFIG,
) -> Vec<(u64, u8)> {
    let mut bench = Bench::new().after_create(move |device| {
        let timer = create_timer(config, attributes(device)).expect("the configuration is right");
        assert!(!start_timer(timer, 10), "it was not started before");
        0
    });
    bench.start();
    bench.machine.run_for(Duration::from_millis(100)).unwrap();
    let found = bench
        .machine
        .trace()
        .iter()
        .filter(|line| {
            matches!(
                line.what,
                Event::Callback {
                    name: "EvtTimerFunc",
                    ..
                }
            )
        })
        .map(|line| (line.time, line.irql))
        .collect();
    bench.remove();
    found
}

#[test]
fn a_timer_expires_on_a_clock_tick_at_dispatch_level() {
    assert_eq!(
        expiries(|device| below(device.cast()), timer_config(0)),
        [(156_250, 2)]
    );
}

#[test]
fn a_high_resolution_timer_expires_on_the_millisecond() {
    let config = WDF_TIMER_CONFIG {
        UseHighResolutionTimer: 1,
        ..timer_config(0)
    };
    assert_eq!(
        expiries(|device| below(device.cast()), config),
        [(100_000, 2)]
    );
}

#[test]
fn a_passive_timer_runs_at_passive_level() {
    let attributes = |device: WDFDEVICE| WDF_OBJECT_ATTRIBUTES {
        ExecutionLevel: 2,
        ..below(device.cast())
    };
    assert_eq!(expiries(attributes, timer_config(0)), [(156_250, 0)]);
}

#[test]
fn a_periodic_timer_goes_on_until_its_device_is_gone() {
    let times = expiries(|device| below(device.cast()), timer_config(20));
    assert_eq!(times, [(156_250, 2), (468_750, 2), (781_250, 2)]);
}

#[test]
fn stopping_an_armed_timer_says_so_and_no_callback_comes() {
    let mut bench = Bench::new().after_create(|device| {
        let timer = create_timer(timer_config(0), below(device.cast()))
            .expect("the configuration is right");
        start_timer(timer, 10);
        assert!(start_timer(timer, 10), "it was armed already");
        assert!(stop_timer(timer, true), "it was armed");
        assert!(!stop_timer(timer, true), "it was not");
        0
    });
    bench.start();
    bench.machine.run_for(Duration::from_millis(50)).unwrap();
    assert!(
        !bench
            .device_callbacks()
            .iter()
            .any(|name| name == "EvtTimerFunc")
    );
    bench.remove();
}

fn passive_timer(device: WDFOBJECT) -> WDFTIMER {
    create_timer(
        timer_config(0),
        WDF_OBJECT_ATTRIBUTES {
            ExecutionLevel: 2,
            ..below(device)
        },
    )
    .expect("the configuration is right")
}

#[test]
fn stop_with_wait_waits_for_the_callback_that_runs() {
    let timer = std::rc::Rc::new(RefCell::new(std::ptr::null_mut()));
    let (made, stopped) = (timer.clone(), timer);
    let mut bench = Bench::new()
        .after_create(move |device| {
            *made.borrow_mut() = passive_timer(device.cast());
            start_timer(*made.borrow(), 10);
            0
        })
        .on("Timer", |timer| {
            delay(500);
            // Somebody waits in WdfTimerStop: this is ignored, and told to them.
            assert!(!start_timer(timer.cast(), 10));
        })
        .on("D0Exit", move |_| {
            assert!(
                stop_timer(*stopped.borrow(), true),
                "the start that was ignored counts as armed"
            );
        });
    bench.start();
    bench.machine.run_for(Duration::from_millis(100)).unwrap();
    bench.machine.power_down(&bench.device).unwrap();
    let lines: Vec<_> = bench
        .machine
        .trace()
        .iter()
        .map(|line| line.what.to_string())
        .collect();
    let at = |what: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap_or_else(|| panic!("no {what}"))
    };
    assert!(at("<- EvtTimerFunc") < at("<- EvtDeviceD0Exit ="));
    assert!(at("-> EvtDeviceD0Exit(") < at("<- EvtTimerFunc"));
    bench.machine.run_for(Duration::from_secs(1)).unwrap();
    let runs = bench
        .device_callbacks()
        .iter()
        .filter(|name| *name == "EvtTimerFunc")
        .count();
    assert_eq!(runs, 1);
}

#[test]
fn stop_with_wait_in_the_timers_own_callback_is_reported() {
    let mut bench = Bench::new()
        .after_create(|device| {
            start_timer(passive_timer(device.cast()), 10);
            0
        })
        .on("Timer", |timer| {
            stop_timer(timer.cast(), true);
        });
    bench.start();
    let stop = bench
        .machine
        .run_for(Duration::from_millis(100))
        .expect_err("it would wait for itself");
    assert!(stop.message.contains("by its own callback"), "{stop}");
}

#[test]
fn removing_a_device_waits_for_its_timers_callback() {
    let mut bench = Bench::new()
        .after_create(|device| {
            start_timer(passive_timer(device.cast()), 10);
            0
        })
        .on("Timer", |_| delay(500));
    bench.start();
    bench.machine.run_for(Duration::from_millis(100)).unwrap();
    bench.remove();
    assert!(bench.machine.now() >= Duration::from_millis(510));
}

// ---- work items ---------------------------------------------------------

#[test]
fn a_work_item_that_is_queued_is_not_queued_twice() {
    let mut bench = Bench::new().after_create(|device| {
        let item = create_work_item(device);
        enqueue(item);
        enqueue(item);
        enqueue(item);
        flush(item);
        0
    });
    bench.start();
    // A worker may take it up between two of the calls; as many runs begin as
    // there are calls that found it not queued.
    let mut queued = false;
    let mut expected = 0;
    for line in bench.machine.trace() {
        match &line.what {
            Event::Call {
                name: "WdfWorkItemEnqueue",
                ..
            } if !queued => {
                queued = true;
                expected += 1;
            }
            Event::Callback {
                name: "EvtWorkItem",
                ..
            } => queued = false,
            _ => {}
        }
    }
    let runs = bench
        .device_callbacks()
        .iter()
        .filter(|name| *name == "EvtWorkItem")
        .count();
    assert_eq!(runs, expected);
    bench.remove();
}

#[test]
fn flush_waits_for_a_work_item_that_queues_itself_again() {
    let mut left = 3;
    let mut bench = Bench::new()
        .after_create(|device| {
            let item = create_work_item(device);
            enqueue(item);
            flush(item);
            0
        })
        .on("WorkItem", move |item| {
            left -= 1;
            if left > 0 {
                delay(20);
                enqueue(item.cast());
                // It runs again while this callback is still here.
                delay(1);
            }
        });
    bench.start();
    let names = bench.device_callbacks();
    let prepare = names
        .iter()
        .position(|name| name == "PrepareHardware")
        .expect("it started");
    assert!(
        names[..prepare]
            .iter()
            .filter(|name| *name == "EvtWorkItem")
            .count()
            >= 1
    );
    assert!(!names[prepare..].iter().any(|name| name == "EvtWorkItem"));
    bench.remove();
}

#[test]
fn removing_a_device_waits_for_its_work_item() {
    let mut bench = Bench::new()
        .after_create(|device| {
            enqueue(create_work_item(device));
            0
        })
        .on("WorkItem", |_| delay(500));
    bench.start();
    bench.remove();
    assert!(bench.machine.now() >= Duration::from_millis(500));
}

// ---- locks and serialisation ----------------------------------------------

fn create_spin_lock(device: WDFDEVICE) -> ntsim_sys::WDFSPINLOCK {
    let mut attributes = below(device.cast());
    let mut lock = std::ptr::null_mut();
    let status = wdf!(WdfSpinLockCreate: WdfSpinLockCreateTableIndex
        as PFN_WDFSPINLOCKCREATE(&raw mut attributes, &raw mut lock));
    assert_eq!(status, 0);
    lock
}

fn acquire_spin_lock(lock: ntsim_sys::WDFSPINLOCK) {
    wdf!(WdfSpinLockAcquire: WdfSpinLockAcquireTableIndex as PFN_WDFSPINLOCKACQUIRE(lock));
}

fn release_spin_lock(lock: ntsim_sys::WDFSPINLOCK) {
    wdf!(WdfSpinLockRelease: WdfSpinLockReleaseTableIndex as PFN_WDFSPINLOCKRELEASE(lock));
}

#[test]
fn a_spin_lock_raises_to_dispatch_level_and_back() {
    let mut bench = Bench::new().after_create(|device| {
        let lock = create_spin_lock(device);
        acquire_spin_lock(lock);
        assert_eq!(unsafe { ntsim_sys::ntddk::KeGetCurrentIrql() }, 2);
        release_spin_lock(lock);
        assert_eq!(unsafe { ntsim_sys::ntddk::KeGetCurrentIrql() }, 0);
        0
    });
    bench.start();
    bench.remove();
}

#[test]
fn taking_a_spin_lock_twice_is_a_recursive_lock() {
    let mut bench = Bench::new().after_create(|device| {
        let lock = create_spin_lock(device);
        acquire_spin_lock(lock);
        acquire_spin_lock(lock);
        0
    });
    let (code, rule, _) = bug_check(bench.try_start());
    assert_eq!((code, rule), (0x10D, 2));
}

#[test]
fn a_passive_function_under_a_spin_lock_is_a_bug_check() {
    let mut bench = Bench::new().after_create(|device| {
        acquire_spin_lock(create_spin_lock(device));
        let _ = parameters_key(KEY_READ);
        0
    });
    let (code, _, message) = bug_check(bench.try_start());
    // The framework's verifier breaks into a debugger that is not there.
    assert_eq!(code, 0x1E);
    assert!(
        message.contains("WdfDriverOpenParametersRegistryKey was called at IRQL 2"),
        "{message}"
    );
}

#[test]
fn a_timer_deleted_at_dispatch_level_is_disposed_at_passive_level() {
    let mut bench = Bench::new().after_create(|device| {
        let lock = create_spin_lock(device);
        let watched = WDF_OBJECT_ATTRIBUTES {
            EvtCleanupCallback: Some(cleanup),
            ..below(device.cast())
        };
        let timer = create_timer(timer_config(0), watched).expect("the configuration is right");
        acquire_spin_lock(lock);
        delete(timer.cast());
        release_spin_lock(lock);
        0
    });
    bench.start();
    bench.remove();
    let cleanups: Vec<_> = bench
        .machine
        .trace()
        .iter()
        .filter(|line| {
            matches!(
                line.what,
                Event::Callback {
                    name: "EvtCleanupCallback",
                    ..
                }
            )
        })
        .map(|line| (line.who.clone(), line.irql))
        .collect();
    assert_eq!(cleanups, [("worker#1".to_owned(), 0)]);
}

#[test]
fn a_wait_lock_that_another_thread_holds_times_out() {
    let lock = std::rc::Rc::new(RefCell::new(std::ptr::null_mut()));
    let (made, tried) = (lock.clone(), lock);
    let acquire = |lock: ntsim_sys::WDFWAITLOCK, milliseconds: i64| {
        let mut timeout = -milliseconds * 10_000;
        wdf!(WdfWaitLockAcquire: WdfWaitLockAcquireTableIndex as PFN_WDFWAITLOCKACQUIRE(lock, &raw mut timeout))
    };
    let release = |lock: ntsim_sys::WDFWAITLOCK| {
        wdf!(WdfWaitLockRelease: WdfWaitLockReleaseTableIndex as PFN_WDFWAITLOCKRELEASE(lock));
    };
    let mut bench = Bench::new()
        .after_create(move |device| {
            let mut attributes = below(device.cast());
            let mut lock = std::ptr::null_mut();
            let status = wdf!(WdfWaitLockCreate: WdfWaitLockCreateTableIndex
                as PFN_WDFWAITLOCKCREATE(&raw mut attributes, &raw mut lock));
            assert_eq!(status, 0);
            *made.borrow_mut() = lock;
            assert_eq!(acquire(lock, 0), 0);
            let item = create_work_item(device);
            enqueue(item);
            flush(item);
            release(lock);
            enqueue(item);
            flush(item);
            0
        })
        .on("WorkItem", {
            let mut expected = vec![0, 0x102];
            move |_| {
                let status = acquire(*tried.borrow(), 100);
                assert_eq!(Some(status), expected.pop());
                if status == 0 {
                    release(*tried.borrow());
                }
            }
        });
    bench.start();
    bench.remove();
    assert!(bench.machine.now() >= Duration::from_millis(100));
}

/// How many callbacks of two serialised passive timers ran at once.
fn overlap(automatic_serialization: u8) -> usize {
    let attributes = WDF_OBJECT_ATTRIBUTES {
        ExecutionLevel: 2,
        SynchronizationScope: 2,
        ..attributes()
    };
    let mut bench = Bench::new().after_create(move |device| {
        let passive = WDF_OBJECT_ATTRIBUTES {
            ExecutionLevel: 2,
            ..below(device.cast())
        };
        let config = WDF_TIMER_CONFIG {
            AutomaticSerialization: automatic_serialization,
            ..timer_config(0)
        };
        for _ in 0..2 {
            start_timer(create_timer(config, passive).expect("the levels fit"), 10);
        }
        0
    });
    SCRIPT.with_borrow_mut(|script| script.attributes = Some(attributes));
    // The action is away while it runs, so it delays the first callback only.
    bench = bench.on("Timer", |_| delay(300));
    bench.start();
    bench.machine.run_for(Duration::from_secs(1)).unwrap();
    let (mut running, mut most) = (0_usize, 0);
    for line in bench.machine.trace() {
        match line.what {
            Event::Callback {
                name: "EvtTimerFunc",
                ..
            } => running += 1,
            Event::Return {
                name: "EvtTimerFunc",
                ..
            } => running -= 1,
            _ => {}
        }
        most = most.max(running);
    }
    bench.remove();
    most
}

#[test]
fn callbacks_of_one_device_are_serialised_when_the_driver_asks_for_it() {
    assert_eq!(overlap(1), 1);
    assert_eq!(overlap(0), 2);
}

#[test]
fn serialisation_across_levels_is_refused() {
    let attributes = WDF_OBJECT_ATTRIBUTES {
        ExecutionLevel: 3,
        SynchronizationScope: 2,
        ..attributes()
    };
    let mut bench = Bench::new().after_create(|device| {
        let passive = WDF_OBJECT_ATTRIBUTES {
            ExecutionLevel: 2,
            ..below(device.cast())
        };
        let config = WDF_TIMER_CONFIG {
            AutomaticSerialization: 1,
            ..timer_config(0)
        };
        assert_eq!(
            create_timer(config, passive).err(),
            Some(0xC020_020C_u32.cast_signed())
        );
        0
    });
    SCRIPT.with_borrow_mut(|script| script.attributes = Some(attributes));
    bench.start();
    bench.remove();
}

// ---- the registry --------------------------------------------------------

fn parameters_key(access: u32) -> Result<WDFKEY, NTSTATUS> {
    let mut key = std::ptr::null_mut();
    let driver = unsafe { (*ntsim_sys::WdfDriverGlobals).Driver };
    let status = wdf!(WdfDriverOpenParametersRegistryKey: WdfDriverOpenParametersRegistryKeyTableIndex
        as PFN_WDFDRIVEROPENPARAMETERSREGISTRYKEY(driver, access, std::ptr::null_mut(), &raw mut key));
    if status < 0 { Err(status) } else { Ok(key) }
}

fn with_name<R>(name: &str, body: impl FnOnce(PCUNICODE_STRING) -> R) -> R {
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let length = (units.len() * 2) as u16;
    let string = UNICODE_STRING {
        Length: length,
        MaximumLength: length,
        Buffer: units.as_mut_ptr(),
    };
    body(&raw const string)
}

fn assign_ulong(key: WDFKEY, name: &str, value: u32) -> NTSTATUS {
    with_name(
        name,
        |name| wdf!(WdfRegistryAssignULong: WdfRegistryAssignULongTableIndex as PFN_WDFREGISTRYASSIGNULONG(key, name, value)),
    )
}

fn query_ulong(key: WDFKEY, name: &str) -> Result<u32, NTSTATUS> {
    let mut value = 0;
    let status = with_name(
        name,
        |name| wdf!(WdfRegistryQueryULong: WdfRegistryQueryULongTableIndex as PFN_WDFREGISTRYQUERYULONG(key, name, &raw mut value)),
    );
    if status < 0 { Err(status) } else { Ok(value) }
}

fn close(key: WDFKEY) {
    wdf!(WdfRegistryClose: WdfRegistryCloseTableIndex as PFN_WDFREGISTRYCLOSE(key));
}

const KEY_READ: u32 = 0x2_0019;
const KEY_WRITE: u32 = 0x2_0006;

#[test]
fn values_are_written_and_read_under_the_parameters_key() {
    let mut bench = Bench::new().after_create(|_| {
        let key = parameters_key(KEY_READ | KEY_WRITE).expect("opening for writing makes it");
        assert_eq!(
            query_ulong(key, "TimesRun"),
            Err(0xC000_0034_u32.cast_signed())
        );
        assert_eq!(assign_ulong(key, "TimesRun", 41), 0);
        assert_eq!(query_ulong(key, "timesrun"), Ok(41));
        let text: Vec<u16> = "x\0".encode_utf16().collect();
        let status = with_name("Text", |name| {
            wdf!(WdfRegistryAssignValue: WdfRegistryAssignValueTableIndex
                as PFN_WDFREGISTRYASSIGNVALUE(key, name, 1, 4, text.as_ptr().cast_mut().cast()))
        });
        assert_eq!(status, 0);
        assert_eq!(query_ulong(key, "Text"), Err(0xC000_0024_u32.cast_signed()));
        // The type is looked at before the length, and a number that is too short
        // is filled up with what is on KMDF's stack: FxRegKey::_QueryULong in
        // https://github.com/microsoft/Windows-Driver-Frameworks.
        for (kind, length, expected) in [
            (1, 8, Err(0xC000_0024_u32.cast_signed())),
            (4, 8, Err(0x8000_0005_u32.cast_signed())),
            (4, 2, Ok(0xCCCC_0101)),
        ] {
            let bytes = [1_u8; 8];
            let status = with_name("Odd", |name| {
                wdf!(WdfRegistryAssignValue: WdfRegistryAssignValueTableIndex
                    as PFN_WDFREGISTRYASSIGNVALUE(key, name, kind, length, bytes.as_ptr().cast_mut().cast()))
            });
            assert_eq!(status, 0);
            assert_eq!(query_ulong(key, "Odd"), expected);
        }
        close(key);
        0
    });
    bench.start();
    let path = r"HKLM\SYSTEM\CurrentControlSet\Services\Probe\Parameters";
    let key = bench
        .machine
        .registry()
        .open(path)
        .expect("the driver made it");
    assert_eq!(
        bench
            .machine
            .registry()
            .value(key, "TimesRun")
            .expect("it was written")
            .as_dword(),
        Some(41)
    );
    bench.remove();
}

#[test]
fn a_key_that_was_opened_for_reading_cannot_be_written() {
    let mut bench = Bench::new().after_create(|_| {
        close(parameters_key(KEY_WRITE).expect("opening for writing makes it"));
        let key = parameters_key(KEY_READ).expect("it is there");
        assert_eq!(
            assign_ulong(key, "TimesRun", 1),
            0xC000_0022_u32.cast_signed()
        );
        close(key);
        0
    });
    bench.start();
    bench.remove();
}

// ---- what is not there ---------------------------------------------------

#[test]
fn a_function_that_is_not_simulated_is_named() {
    let mut bench = Bench::new().after_create(|device| {
        wdf!(WdfDeviceSetBusInformationForChildren: WdfDeviceSetBusInformationForChildrenTableIndex
            as PFN_WDFDEVICESETBUSINFORMATIONFORCHILDREN(device, std::ptr::null_mut()));
        0
    });
    let Err(Error::Stop(stop)) = bench.try_start() else {
        panic!("it went on")
    };
    assert_eq!(stop.kind, StopKind::NotSimulated);
    assert!(
        stop.message
            .contains("WdfDeviceSetBusInformationForChildren"),
        "{stop}"
    );
}

#[test]
fn one_seed_gives_one_trace() {
    let run = |seed| {
        let mut bench = Bench::with_seed(seed)
            .after_create(|device| {
                start_timer(passive_timer(device.cast()), 10);
                enqueue(create_work_item(device));
                0
            })
            .on("WorkItem", |_| delay(15))
            .on("Timer", |_| delay(15));
        bench.start();
        bench.machine.run_for(Duration::from_millis(200)).unwrap();
        bench.remove();
        bench
            .machine
            .trace()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(run(3), run(3));
}

#[test]
fn removal_amid_timers_and_work_items_ends_well_under_every_schedule() {
    for seed in 0..64 {
        let mut bench = Bench::with_seed(seed)
            .after_create(|device| {
                start_timer(passive_timer(device.cast()), 10);
                let at_dispatch = create_timer(timer_config(20), below(device.cast()));
                start_timer(at_dispatch.expect("the configuration is right"), 10);
                enqueue(create_work_item(device));
                0
            })
            .on("WorkItem", |_| delay(15))
            .on("Timer", |_| {});
        bench.start();
        bench
            .machine
            .run_for(Duration::from_millis(seed))
            .unwrap_or_else(|stop| panic!("seed {seed}: {stop}"));
        bench
            .machine
            .surprise_remove(&bench.device)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}
