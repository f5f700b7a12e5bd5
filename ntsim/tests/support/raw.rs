// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tests of KMDF that are written as a driver in C would be have in
//! common: calls through the framework's table, and a driver whose parts each
//! test chooses.

#![allow(dead_code, reason = "each test program uses its part")]

use std::cell::RefCell;
use std::collections::HashMap;

use ntsim::machine::{DriverEntry, Error};
use ntsim::trace::Event;
use ntsim::{Machine, Settings};
use ntsim_sys::{
    DRIVER_OBJECT, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, WDF_DRIVER_CONFIG,
    WDF_OBJECT_ATTRIBUTES, WDF_PNPPOWER_EVENT_CALLBACKS, WDFDEVICE, WDFDRIVER, WDFOBJECT,
};

/// Calls a function of the framework through its table, as the WDF headers do.
macro_rules! wdf {
    ($name:ident: $index:ident as $pointer:ident ($($arg:expr),* $(,)?)) => {
        unsafe {
            let entry = ntsim_sys::WdfFunctions.add(ntsim_sys::_WDFFUNCENUM::$index as usize).read();
            let function: ntsim_sys::$pointer = std::mem::transmute(entry);
            function.expect(stringify!($name))(ntsim_sys::WdfDriverGlobals, $($arg),*)
        }
    };
}

/// A structure of the framework: zeroed, and its size in its first field.
pub fn sized<T: Copy>() -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    unsafe {
        value
            .as_mut_ptr()
            .cast::<u32>()
            .write(u32::try_from(size_of::<T>()).unwrap());
        value.assume_init()
    }
}

/// `WDF_OBJECT_ATTRIBUTES_INIT`.
pub fn attributes() -> WDF_OBJECT_ATTRIBUTES {
    WDF_OBJECT_ATTRIBUTES {
        ExecutionLevel: 1,
        SynchronizationScope: 1,
        ..sized()
    }
}

/// The same, below a parent.
pub fn below(parent: WDFOBJECT) -> WDF_OBJECT_ATTRIBUTES {
    WDF_OBJECT_ATTRIBUTES {
        ParentObject: parent,
        ..attributes()
    }
}

pub fn delay(milliseconds: i64) {
    let mut interval = ntsim_sys::LARGE_INTEGER {
        QuadPart: -milliseconds * 10_000,
    };
    let status = unsafe { ntsim_sys::ntddk::KeDelayExecutionThread(0, 0, &raw mut interval) };
    assert_eq!(status, 0);
}

pub fn irql() -> u8 {
    unsafe { ntsim_sys::ntddk::KeGetCurrentIrql() }
}

// ---- a driver with a script --------------------------------------------------

/// What a callback of the test's does, and answers.
type Action = Box<dyn FnMut(WDFOBJECT) -> NTSTATUS>;

thread_local! {
    /// By the callback's name; each test runs on a thread of its own.
    static ACTIONS: RefCell<HashMap<&'static str, Action>> = RefCell::default();
}

/// Forgets what callbacks do.
pub fn clear() {
    ACTIONS.take();
}

/// What a callback of the driver does from now on.
pub fn on(name: &'static str, body: impl FnMut(WDFOBJECT) -> NTSTATUS + 'static) {
    let action: Action = Box::new(body);
    ACTIONS.with_borrow_mut(|actions| actions.insert(name, action));
}

/// Does what the test wants of the callback `name`; without that it succeeds.
pub fn act(name: &'static str, object: WDFOBJECT) -> NTSTATUS {
    // Taken out meanwhile: the action may call the kernel, which may run others.
    let Some(mut action) = ACTIONS.with_borrow_mut(|actions| actions.remove(name)) else {
        return 0;
    };
    let status = action(object);
    ACTIONS.with_borrow_mut(|actions| drop(actions.insert(name, action)));
    status
}

macro_rules! device_callbacks {
    ($($name:ident($($arg:ident: $ty:ty),*) = $label:literal;)*) => {$(
        unsafe extern "C-unwind" fn $name(device: WDFDEVICE, $($arg: $ty),*) -> NTSTATUS {
            act($label, device.cast())
        }
    )*};
}

device_callbacks! {
    prepare_hardware(_raw: ntsim_sys::WDFCMRESLIST, _translated: ntsim_sys::WDFCMRESLIST) = "PrepareHardware";
    d0_entry(_previous: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0Entry";
    d0_exit(_target: ntsim_sys::WDF_POWER_DEVICE_STATE) = "D0Exit";
    self_managed_io_init() = "SelfManagedIoInit";
    self_managed_io_suspend() = "SelfManagedIoSuspend";
    self_managed_io_restart() = "SelfManagedIoRestart";
    arm_wake_from_s0() = "ArmWakeFromS0";
    arm_wake_from_sx() = "ArmWakeFromSx";
}

unsafe extern "C-unwind" fn disarm_wake_from_s0(device: WDFDEVICE) {
    act("DisarmWakeFromS0", device.cast());
}

unsafe extern "C-unwind" fn wake_from_s0_triggered(device: WDFDEVICE) {
    act("WakeFromS0Triggered", device.cast());
}

unsafe extern "C-unwind" fn driver_entry(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    let mut config = WDF_DRIVER_CONFIG {
        EvtDriverDeviceAdd: Some(device_add),
        ..sized()
    };
    wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        object, path, std::ptr::null_mut(), &raw mut config, std::ptr::null_mut()))
}

unsafe extern "C-unwind" fn device_add(_: WDFDRIVER, mut init: PWDFDEVICE_INIT) -> NTSTATUS {
    let mut callbacks = WDF_PNPPOWER_EVENT_CALLBACKS {
        EvtDevicePrepareHardware: Some(prepare_hardware),
        EvtDeviceD0Entry: Some(d0_entry),
        EvtDeviceD0Exit: Some(d0_exit),
        EvtDeviceSelfManagedIoInit: Some(self_managed_io_init),
        EvtDeviceSelfManagedIoSuspend: Some(self_managed_io_suspend),
        EvtDeviceSelfManagedIoRestart: Some(self_managed_io_restart),
        ..sized()
    };
    wdf!(WdfDeviceInitSetPnpPowerEventCallbacks: WdfDeviceInitSetPnpPowerEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPNPPOWEREVENTCALLBACKS(init, &raw mut callbacks));
    let mut policy = ntsim_sys::WDF_POWER_POLICY_EVENT_CALLBACKS {
        EvtDeviceArmWakeFromS0: Some(arm_wake_from_s0),
        EvtDeviceDisarmWakeFromS0: Some(disarm_wake_from_s0),
        EvtDeviceWakeFromS0Triggered: Some(wake_from_s0_triggered),
        EvtDeviceArmWakeFromSx: Some(arm_wake_from_sx),
        ..sized()
    };
    wdf!(WdfDeviceInitSetPowerPolicyEventCallbacks: WdfDeviceInitSetPowerPolicyEventCallbacksTableIndex
        as PFN_WDFDEVICEINITSETPOWERPOLICYEVENTCALLBACKS(init, &raw mut policy));
    let mut attributes = attributes();
    let mut device = std::ptr::null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(&raw mut init, &raw mut attributes, &raw mut device));
    if status < 0 {
        return status;
    }
    act("DeviceAdd", device.cast())
}

/// A machine with the driver installed and its device plugged in.
pub struct Bench {
    pub machine: Machine,
    pub device: String,
}

impl Bench {
    /// With the scripted driver of this file.
    pub fn new(seed: u64) -> Self {
        ACTIONS.take();
        Self::with_driver(seed, driver_entry)
    }

    /// The same with all settings.
    pub fn scripted(settings: Settings) -> Self {
        ACTIONS.take();
        Self::with_settings(settings, driver_entry)
    }

    /// With a driver of the test's own.
    pub fn with_driver(seed: u64, entry: DriverEntry) -> Self {
        let settings = Settings {
            seed,
            ..Settings::default()
        };
        Self::with_settings(settings, entry)
    }

    /// The same with all settings.
    pub fn with_settings(settings: Settings, entry: DriverEntry) -> Self {
        let mut machine = Machine::new(settings);
        let device = machine.add_driver("Probe", entry).unwrap();
        Self { machine, device }
    }

    /// What a callback of the driver does. `DeviceAdd` is after `WdfDeviceCreate`.
    pub fn on(self, name: &'static str, body: impl FnMut(WDFOBJECT) -> NTSTATUS + 'static) -> Self {
        on(name, body);
        self
    }

    pub fn start(&mut self) {
        self.try_start().unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn try_start(&mut self) -> Result<(), Error> {
        self.machine.start_device(&self.device)
    }

    pub fn remove(&mut self) {
        self.machine
            .remove_device(&self.device)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn run_for(&mut self, milliseconds: u64) {
        self.machine
            .run_for(std::time::Duration::from_millis(milliseconds))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Runs a piece of driver on a thread of its own.
    pub fn run<R: 'static>(&mut self, body: impl FnOnce() -> R + 'static) -> R {
        self.machine
            .run_thread("test", body)
            .unwrap_or_else(|stop| panic!("{stop}"))
    }

    /// The callbacks that were called, in order: the name without the
    /// framework's prefix, and the arguments.
    pub fn callbacks(&self) -> Vec<String> {
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

    /// The names of the callbacks that were called after the device was made.
    pub fn device_callbacks(&self) -> Vec<String> {
        self.callbacks()
            .iter()
            .skip_while(|text| !text.starts_with("EvtDriverDeviceAdd"))
            .skip(1)
            .map(|text| text.split('(').next().unwrap_or_default().to_owned())
            .collect()
    }
}
