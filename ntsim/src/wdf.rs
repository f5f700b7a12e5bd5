// SPDX-License-Identifier: MIT OR Apache-2.0

//! KMDF 1.33.
//!
//! Drivers reach the framework through a table of 458 function pointers. Each
//! simulated function is one row of [`wdf_functions!`] and one Rust function in
//! the file of its subject; the entries of all others stop the simulation and
//! say which function the driver called.
//!
//! # Vocabulary
//! - *object*: what a `WDFOBJECT` handle stands for ([`object`]). Handles are
//!   addresses at which nothing is mapped.
//! - *globals*: `WDF_DRIVER_GLOBALS`, the first argument of every function, by
//!   which the framework knows its caller. It is not shown in the trace.
//! - *the PnP engine*: what the machine calls to add, start, power and remove a
//!   device ([`pnp`]).
//!
//! The framework's own routines run on the context that called them, and
//! alternate traps with calls of the driver's callbacks.

pub(crate) mod bind;
pub(crate) mod control;
pub(crate) mod deferred;
pub(crate) mod device;
pub(crate) mod dpc;
pub(crate) mod driver;
pub(crate) mod file;
pub(crate) mod hardware;
pub(crate) mod interface;
pub(crate) mod interrupt;
pub(crate) mod io_target;
pub(crate) mod lock;
pub(crate) mod lookaside;
pub(crate) mod memory;
mod names;
pub(crate) mod object;
pub(crate) mod pnp;
pub(crate) mod power_policy;
mod property;
pub(crate) mod queue;
pub(crate) mod raw;
pub(crate) mod registry;
pub(crate) mod request;
mod security;
pub(crate) mod timer;
pub(crate) mod watchdog;
pub(crate) mod work_item;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::access::{Addr, UnicodeString};
use crate::bugcheck::Stop;
use crate::exports::Export;
use crate::io::DriverObject;
use crate::kernel::{ContextId, Kernel};
use crate::memory::GuardedPool;
use crate::rules::{Rule, kmdf};
use crate::trap::{Blocking, block, kernel};

use device::{DeviceInit, InitHandle};
use driver::Driver;
use object::{Handle, Object};
use raw::{
    CallbackConfig, CompletionParams, ContextTypeInfo, DeviceState, DriverConfig, FileObjectConfig,
    MemoryDescriptor, MemoryOffset, ObjectAttributes, OpenParams, PnpPowerCallbacks,
    PowerPolicyCallbacks, QueueConfig, RequestParameters, ReuseParams, SendOptions, TimerConfig,
    VersionAvailableParams,
};

pub(crate) const STATUS_SUCCESS: i32 = 0;
pub(crate) const STATUS_INFO_LENGTH_MISMATCH: i32 = status(0xC000_0004);
pub(crate) const STATUS_INVALID_PARAMETER: i32 = status(0xC000_000D);
pub(crate) const STATUS_INVALID_DEVICE_REQUEST: i32 = status(0xC000_0010);
pub(crate) const STATUS_BUFFER_TOO_SMALL: i32 = status(0xC000_0023);
pub(crate) const STATUS_OBJECT_TYPE_MISMATCH: i32 = status(0xC000_0024);
pub(crate) const STATUS_OBJECT_NAME_EXISTS: i32 = status(0x4000_0000);
pub(crate) const STATUS_DELETE_PENDING: i32 = status(0xC000_0056);
pub(crate) const STATUS_REVISION_MISMATCH: i32 = status(0xC000_0059);
pub(crate) const STATUS_INSUFFICIENT_RESOURCES: i32 = status(0xC000_009A);
pub(crate) const STATUS_NOT_SUPPORTED: i32 = status(0xC000_00BB);
pub(crate) const STATUS_DRIVER_INTERNAL_ERROR: i32 = status(0xC000_0183);
pub(crate) const STATUS_INVALID_DEVICE_STATE: i32 = status(0xC000_0184);
pub(crate) const STATUS_BUFFER_OVERFLOW: i32 = status(0x8000_0005);
pub(crate) const STATUS_IO_TIMEOUT: i32 = status(0xC000_00B5);
pub(crate) const STATUS_INTEGER_OVERFLOW: i32 = status(0xC000_0095);
pub(crate) const STATUS_REQUEST_NOT_ACCEPTED: i32 = status(0xC000_00D0);
pub(crate) const STATUS_WDF_DEVICE_REMOVED_NOT_SENT: i32 = status(0xC020_0206);
pub(crate) const STATUS_TIMEOUT: i32 = 0x102;
pub(crate) const STATUS_WDF_OBJECT_ATTRIBUTES_INVALID: i32 = status(0xC020_0209);
pub(crate) const STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL: i32 = status(0xC020_020C);
pub(crate) const STATUS_WDF_PARENT_ASSIGNMENT_NOT_ALLOWED: i32 = status(0xC020_020F);
pub(crate) const STATUS_WDF_SYNCHRONIZATION_SCOPE_INVALID: i32 = status(0xC020_0210);
pub(crate) const STATUS_WDF_EXECUTION_LEVEL_INVALID: i32 = status(0xC020_0211);
pub(crate) const STATUS_WDF_PARENT_NOT_SPECIFIED: i32 = status(0xC020_0212);

pub(crate) const STATUS_UNSUCCESSFUL: i32 = status(0xC000_0001);
pub(crate) const STATUS_NO_SUCH_DEVICE: i32 = status(0xC000_000E);
pub(crate) const STATUS_ACCESS_DENIED: i32 = status(0xC000_0022);
pub(crate) const STATUS_OBJECT_NAME_NOT_FOUND: i32 = status(0xC000_0034);
pub(crate) const STATUS_OBJECT_NAME_COLLISION: i32 = status(0xC000_0035);
pub(crate) const STATUS_OBJECT_NAME_INVALID: i32 = status(0xC000_0033);
pub(crate) const STATUS_OBJECT_PATH_NOT_FOUND: i32 = status(0xC000_003A);
pub(crate) const STATUS_OBJECT_PATH_SYNTAX_BAD: i32 = status(0xC000_003B);
pub(crate) const STATUS_INVALID_SECURITY_DESCR: i32 = status(0xC000_0079);
pub(crate) const STATUS_INVALID_PARAMETER_2: i32 = status(0xC000_00F0);
pub(crate) const STATUS_CANCELLED: i32 = status(0xC000_0120);
pub(crate) const STATUS_NOT_FOUND: i32 = status(0xC000_0225);
pub(crate) const STATUS_NO_MORE_ENTRIES: i32 = status(0x8000_001A);
pub(crate) const STATUS_WDF_PAUSED: i32 = status(0xC020_0203);
pub(crate) const STATUS_WDF_BUSY: i32 = status(0xC020_0204);
pub(crate) const STATUS_WDF_NO_CALLBACK: i32 = status(0xC020_020B);

const fn status(code: u32) -> i32 {
    code.cast_signed()
}

/// What the framework remembers.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<Handle, Object>,
    next_object: usize,
    /// The drivers that are bound; an unbound one leaves its place to the next.
    pub(crate) drivers: Vec<Option<Driver>>,
    /// The memory of contexts and of `WDFMEMORY` headers: the framework's, not the driver's.
    pub(crate) memory: GuardedPool,
    /// Which object a context belongs to, by the context's address.
    contexts: BTreeMap<usize, Handle>,
    /// What the driver is given to describe a device before it creates one.
    inits: BTreeMap<InitHandle, DeviceInit>,
    next_init: usize,
    /// Contexts that wait for something to happen to an object.
    waiters: Vec<ContextId>,
    /// The entry stub of the driver that is linked into the host program.
    host_stub: Option<bind::HostStub>,
    /// Which context holds the lock of an object whose callbacks are passive.
    object_locks: BTreeMap<Handle, ContextId>,
    pub(crate) watchdogs: watchdog::Watchdogs,
    /// A PnP request is under way, and whether another one waits for its end.
    pnp_request: (bool, bool),
    /// Deletions that were put off to a system worker thread.
    deferred_deletions: usize,
    /// The drivers below devices, by instance id in lower case.
    pub(crate) lower: BTreeMap<String, io_target::Lower>,
    /// Requests that are sent to I/O targets.
    pub(crate) flights: io_target::flight::Flights,
    /// What devices are made of, by instance id in lower case.
    pub(crate) hardware: BTreeMap<String, hardware::Hardware>,
}

/// The first argument of every function of the table.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Globals(usize);

/// Waits on the caller's context until `ready` holds. `ready` is asked again
/// whenever [`wake`] was called.
pub(crate) fn wait_until(mut ready: impl FnMut(&mut Kernel) -> bool) {
    loop {
        let done = block(
            |k| {
                if ready(k) {
                    return Blocking::Now(true);
                }
                k.tell_open_calls();
                let me = k.running();
                k.wdf.waiters.push(me);
                k.context_mut(me).state = crate::kernel::State::Waiting;
                crate::locks::waits(k);
                Blocking::Wait
            },
            |_| false,
        );
        if done {
            return;
        }
    }
}

/// Lets everybody who waits in [`wait_until`] look again.
pub(crate) fn wake(k: &mut Kernel) {
    for id in std::mem::take(&mut k.wdf.waiters) {
        if k.is_alive(id) {
            k.make_ready(id);
        }
    }
}

/// Stops the machine if a pointer that a function needs is NULL.
pub(crate) fn required<T>(pointer: *const T, function: &str, parameter: &str) {
    if pointer.is_null() {
        kernel(|k| {
            k.fatal(
                &kmdf::NULL_PARAMETER,
                &[],
                format!("{function} was given NULL for {parameter}, which it needs"),
            )
        });
    }
}

/// Ends the simulation where the framework's verifier would break into the
/// debugger.
pub(crate) fn verifier_break(k: &mut Kernel, rule: &'static Rule, message: String) -> ! {
    k.fatal(rule, &[], message)
}

/// The names of the table's functions, by index.
pub(crate) const NAMES: &[&str] = names::for_each_function!(make_names);

macro_rules! make_names {
    ($($index:literal $name:ident),* $(,)?) => { &[$(stringify!($name)),*] };
}
use make_names;

fn not_simulated(index: usize) -> ! {
    kernel(|k| {
        let stop = Stop::not_simulated(k, NAMES[index]);
        k.stop(stop)
    })
}

/// What the table holds for functions that are not simulated.
mod stub {
    pub(super) extern "C-unwind" fn host<const INDEX: usize>() {
        super::not_simulated(INDEX)
    }
    pub(super) extern "win64" fn image<const INDEX: usize>() {
        super::not_simulated(INDEX)
    }
}

macro_rules! make_stubs {
    ($($index:literal $name:ident),* $(,)?) => {
        [$(Entry { host: stub::host::<$index> as *const (), image: stub::image::<$index> as *const () }),*]
    };
}

#[derive(Clone, Copy)]
struct Entry {
    host: *const (),
    image: *const (),
}

/// The two tables, one per calling convention.
pub(crate) struct Tables {
    pub(crate) host: Vec<usize>,
    pub(crate) image: Vec<usize>,
}

/// The function tables; their addresses stay the same for the life of the process.
pub(crate) fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut entries = names::for_each_function!(make_stubs);
        for function in FUNCTIONS {
            let index = NAMES
                .iter()
                .position(|name| *name == function.name)
                .expect("rows name functions of the table");
            entries[index] = Entry {
                host: function.host,
                image: function.image,
            };
        }
        Tables {
            host: entries.iter().map(|entry| entry.host as usize).collect(),
            image: entries.iter().map(|entry| entry.image as usize).collect(),
        }
    })
}

macro_rules! wdf_functions {
    ($($name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $imp:path;)*) => {
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "the names and signatures are the framework's")]
        mod functions {
            use super::*;

            /// In the host's calling convention.
            pub(super) mod host {
                use super::*;
                $(
                    pub(in super::super) extern "C-unwind" fn $name(globals: Globals, $($arg: $ty),*) $(-> $ret)? {
                        $crate::trap::call(
                            stringify!($name),
                            $crate::rules::irql::Range::ANY,
                            &[$((stringify!($arg), &$arg as &dyn $crate::trace::Arg)),*],
                            || $imp(globals, $($arg),*),
                        )
                    }
                )*
            }

            /// In the Windows x64 calling convention.
            pub(super) mod image {
                use super::*;
                $(
                    pub(in super::super) extern "win64" fn $name(globals: Globals, $($arg: $ty),*) $(-> $ret)? {
                        let result = $crate::trap::call(
                            stringify!($name),
                            $crate::rules::irql::Range::ANY,
                            &[$((stringify!($arg), &$arg as &dyn $crate::trace::Arg)),*],
                            || $imp(globals, $($arg),*),
                        );
                        $crate::count::approach();
                        result
                    }
                )*
            }
        }

        const FUNCTIONS: &[Export] = &[$(
            Export {
                dll: "Wdf01000.sys",
                name: stringify!($name),
                host: functions::host::$name as *const (),
                image: functions::image::$name as *const (),
            },
        )*];
    };
}

type Attributes = *const ObjectAttributes;
type Text = *const UnicodeString;
/// The address of a callback.
type Evt = Addr;

wdf_functions! {
    WdfDriverCreate(DriverObject: *mut DriverObject, RegistryPath: Text, DriverAttributes: Attributes, DriverConfig: *const DriverConfig, Driver: *mut Handle) -> i32
        = driver::create;
    WdfDriverGetRegistryPath(Driver: Handle) -> *const u16 = driver::registry_path;
    WdfDriverWdmGetDriverObject(Driver: Handle) -> *mut DriverObject = driver::wdm_driver_object;
    WdfDriverOpenParametersRegistryKey(Driver: Handle, DesiredAccess: u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = driver::open_parameters_registry_key;
    WdfDriverOpenPersistentStateRegistryKey(Driver: Handle, DesiredAccess: u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = driver::open_persistent_state_registry_key;
    WdfDriverRetrieveVersionString(Driver: Handle, String: Handle) -> i32 = driver::retrieve_version_string;
    WdfDriverIsVersionAvailable(Driver: Handle, VersionAvailableParams: *const VersionAvailableParams) -> u8
        = driver::is_version_available;

    WdfDeviceInitFree(DeviceInit: InitHandle) = device::init_free;
    WdfDeviceInitSetPnpPowerEventCallbacks(DeviceInit: InitHandle, PnpPowerEventCallbacks: *const PnpPowerCallbacks)
        = device::init_set_pnp_power_event_callbacks;
    WdfDeviceInitSetPowerPolicyEventCallbacks(DeviceInit: InitHandle, PowerPolicyEventCallbacks: *const PowerPolicyCallbacks)
        = device::init_set_power_policy_event_callbacks;
    WdfDeviceInitSetPowerPolicyOwnership(DeviceInit: InitHandle, IsPowerPolicyOwner: u8) = device::init_set_power_policy_ownership;
    WdfDeviceInitSetIoType(DeviceInit: InitHandle, IoType: u32) = device::init_set_io_type;
    WdfDeviceInitSetExclusive(DeviceInit: InitHandle, IsExclusive: u8) = device::init_set_exclusive;
    WdfDeviceInitSetPowerNotPageable(DeviceInit: InitHandle) = device::init_set_power_not_pageable;
    WdfDeviceInitSetPowerPageable(DeviceInit: InitHandle) = device::init_set_power_pageable;
    WdfDeviceInitSetDeviceType(DeviceInit: InitHandle, DeviceType: u32) = device::init_set_device_type;
    WdfDeviceInitAssignName(DeviceInit: InitHandle, DeviceName: Text) -> i32 = device::init_assign_name;
    WdfDeviceInitSetCharacteristics(DeviceInit: InitHandle, DeviceCharacteristics: u32, OrInValues: u8)
        = device::init_set_characteristics;
    WdfDeviceInitSetFileObjectConfig(DeviceInit: InitHandle, FileObjectConfig: *const FileObjectConfig, FileObjectAttributes: Attributes)
        = device::init_set_file_object_config;
    WdfDeviceInitSetRequestAttributes(DeviceInit: InitHandle, RequestAttributes: Attributes) = device::init_set_request_attributes;
    WdfDeviceInitAssignSDDLString(DeviceInit: InitHandle, SDDLString: Text) -> i32 = device::init_assign_sddl_string;
    WdfDeviceInitSetDeviceClass(DeviceInit: InitHandle, DeviceClassGuid: *const interface::Guid) = device::init_set_device_class;
    WdfDeviceInitSetIoInCallerContextCallback(DeviceInit: InitHandle, EvtIoInCallerContext: Evt)
        = device::init_set_io_in_caller_context_callback;
    WdfControlDeviceInitAllocate(Driver: Handle, SDDLString: Text) -> InitHandle = control::init_allocate;
    WdfControlDeviceInitSetShutdownNotification(DeviceInit: InitHandle, Notification: Evt, Flags: u8)
        = control::init_set_shutdown_notification;
    WdfControlFinishInitializing(Device: Handle) = control::finish_initializing;
    WdfFdoInitSetFilter(DeviceInit: InitHandle) = device::fdo_init_set_filter;
    WdfFdoInitWdmGetPhysicalDevice(DeviceInit: InitHandle) -> *mut u8 = device::fdo_init_wdm_get_physical_device;
    WdfDeviceCreate(DeviceInit: *mut InitHandle, DeviceAttributes: Attributes, Device: *mut Handle) -> i32 = device::create;
    WdfDeviceRetrieveDeviceName(Device: Handle, String: Handle) -> i32 = device::retrieve_device_name;
    WdfDeviceGetDriver(Device: Handle) -> Handle = device::get_driver;
    WdfDeviceWdmGetDeviceObject(Device: Handle) -> *mut u8 = device::wdm_get_device_object;
    WdfDeviceWdmGetAttachedDevice(Device: Handle) -> *mut u8 = device::wdm_get_attached_device;
    WdfDeviceWdmGetPhysicalDevice(Device: Handle) -> *mut u8 = device::wdm_get_physical_device;
    WdfDeviceGetDeviceState(Device: Handle, DeviceState: *mut DeviceState) = device::get_device_state;
    WdfDeviceSetDeviceState(Device: Handle, DeviceState: *const DeviceState) = device::set_device_state;
    WdfDeviceGetDevicePnpState(Device: Handle) -> i32 = device::get_pnp_state;
    WdfDeviceGetDevicePowerState(Device: Handle) -> i32 = device::get_power_state;
    WdfDeviceGetSystemPowerAction(Device: Handle) -> i32 = device::get_system_power_action;
    WdfDeviceSetSpecialFileSupport(Device: Handle, FileType: i32, FileTypeIsSupported: u8) = pnp::set_special_file_support;
    WdfDeviceSetFailed(Device: Handle, FailedAction: u32) = device::set_failed;
    WdfDeviceGetCharacteristics(Device: Handle) -> u32 = device::get_characteristics;
    WdfDeviceSetCharacteristics(Device: Handle, DeviceCharacteristics: u32) = device::set_characteristics;
    WdfDeviceSetStaticStopRemove(Device: Handle, Stoppable: u8) = device::set_static_stop_remove;
    WdfDeviceGetDefaultQueue(Device: Handle) -> Handle = queue::get_default;
    WdfDeviceConfigureRequestDispatching(Device: Handle, Queue: Handle, RequestType: u32) -> i32 = queue::configure_dispatching;
    WdfDeviceEnqueueRequest(Device: Handle, Request: Handle) -> i32 = queue::enqueue_request;
    WdfDeviceCreateDeviceInterface(Device: Handle, InterfaceClassGUID: *const interface::Guid, ReferenceString: Text) -> i32 = interface::create;
    WdfDeviceSetDeviceInterfaceState(Device: Handle, InterfaceClassGUID: *const interface::Guid, ReferenceString: Text, IsInterfaceEnabled: u8)
        = interface::set_state;
    WdfDeviceSetDeviceInterfaceStateEx(Device: Handle, InterfaceClassGUID: *const interface::Guid, ReferenceString: Text, IsInterfaceEnabled: u8)
        = interface::set_state;
    WdfDeviceRetrieveDeviceInterfaceString(Device: Handle, InterfaceClassGUID: *const interface::Guid, ReferenceString: Text, String: Handle) -> i32
        = interface::retrieve_string;
    WdfDeviceCreateSymbolicLink(Device: Handle, SymbolicLinkName: Text) -> i32 = interface::create_symbolic_link;
    WdfDeviceQueryProperty(Device: Handle, DeviceProperty: u32, BufferLength: u32, PropertyBuffer: *mut u8, ResultLength: *mut u32) -> i32
        = property::query;
    WdfDeviceAllocAndQueryProperty(Device: Handle, DeviceProperty: u32, PoolType: i32, PropertyMemoryAttributes: Attributes, PropertyMemory: *mut Handle) -> i32
        = property::alloc_and_query;
    WdfFdoInitQueryProperty(DeviceInit: InitHandle, DeviceProperty: u32, BufferLength: u32, PropertyBuffer: *mut u8, ResultLength: *mut u32) -> i32
        = property::fdo_init_query;
    WdfDeviceQueryPropertyEx(Device: Handle, DeviceProperty: *const property::PropertyData, BufferLength: u32, PropertyBuffer: *mut u8, RequiredSize: *mut u32, Type: *mut u32) -> i32
        = property::query_ex;
    WdfDeviceAllocAndQueryPropertyEx(Device: Handle, DeviceProperty: *const property::PropertyData, PoolType: i32, PropertyMemoryAttributes: Attributes, PropertyMemory: *mut Handle, Type: *mut u32) -> i32
        = property::alloc_and_query_ex;
    WdfDeviceAssignProperty(Device: Handle, DeviceProperty: *const property::PropertyData, Type: u32, Size: u32, Data: *const u8) -> i32
        = property::assign;
    WdfDeviceOpenRegistryKey(Device: Handle, DeviceInstanceKeyType: u32, DesiredAccess: u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = device::open_registry_key;
    WdfFdoInitOpenRegistryKey(DeviceInit: InitHandle, DeviceInstanceKeyType: u32, DesiredAccess: u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = device::fdo_init_open_registry_key;
    WdfCmResourceListGetCount(List: Handle) -> u32 = hardware::get_count;
    WdfCmResourceListGetDescriptor(List: Handle, Index: u32) -> *const u8 = hardware::get_descriptor;

    WdfInterruptCreate(Device: Handle, Configuration: *const interrupt::Config, Attributes: Attributes, Interrupt: *mut Handle) -> i32
        = interrupt::create;
    WdfInterruptQueueDpcForIsr(Interrupt: Handle) -> u8 = interrupt::queue_dpc_for_isr;
    WdfInterruptQueueWorkItemForIsr(Interrupt: Handle) -> u8 = interrupt::queue_work_item_for_isr;
    WdfInterruptSynchronize(Interrupt: Handle, Callback: Addr, Context: Addr) -> u8 = interrupt::synchronize;
    WdfInterruptAcquireLock(Interrupt: Handle) = interrupt::acquire_lock;
    WdfInterruptTryToAcquireLock(Interrupt: Handle) -> u8 = interrupt::try_to_acquire_lock;
    WdfInterruptReleaseLock(Interrupt: Handle) = interrupt::release_lock;
    WdfInterruptEnable(Interrupt: Handle) = interrupt::enable;
    WdfInterruptDisable(Interrupt: Handle) = interrupt::disable;
    WdfInterruptGetInfo(Interrupt: Handle, Info: *mut interrupt::Info) = interrupt::get_info;
    WdfInterruptSetPolicy(Interrupt: Handle, Policy: u32, Priority: u32, TargetProcessorSet: u64) = interrupt::set_policy;
    WdfInterruptReportActive(Interrupt: Handle) = interrupt::report_active;
    WdfInterruptReportInactive(Interrupt: Handle) = interrupt::report_inactive;
    WdfInterruptGetDevice(Interrupt: Handle) -> Handle = interrupt::get_device;

    WdfDeviceAssignS0IdleSettings(Device: Handle, Settings: *const power_policy::IdleSettings) -> i32
        = power_policy::assign_s0_idle_settings;
    WdfDeviceAssignSxWakeSettings(Device: Handle, Settings: *const power_policy::WakeSettings) -> i32
        = power_policy::assign_sx_wake_settings;
    WdfDeviceStopIdleNoTrack(Device: Handle, WaitForD0: u8) -> i32 = power_policy::stop_idle_no_track;
    WdfDeviceResumeIdleNoTrack(Device: Handle) = power_policy::resume_idle_no_track;
    WdfDeviceStopIdleActual(Device: Handle, WaitForD0: u8, Tag: Addr, Line: i32, File: Addr) -> i32 = power_policy::stop_idle;
    WdfDeviceResumeIdleActual(Device: Handle, Tag: Addr, Line: i32, File: Addr) = power_policy::resume_idle;

    WdfIoQueueCreate(Device: Handle, Config: *const QueueConfig, QueueAttributes: Attributes, Queue: *mut Handle) -> i32 = queue::create;
    WdfIoQueueGetState(Queue: Handle, QueueRequests: *mut u32, DriverRequests: *mut u32) -> u32 = queue::get_state;
    WdfIoQueueGetDevice(Queue: Handle) -> Handle = queue::get_device;
    WdfIoQueueStart(Queue: Handle) = queue::start;
    WdfIoQueueStop(Queue: Handle, StopComplete: Evt, Context: Addr) = queue::stop;
    WdfIoQueueStopSynchronously(Queue: Handle) = queue::stop_synchronously;
    WdfIoQueueDrain(Queue: Handle, DrainComplete: Evt, Context: Addr) = queue::drain;
    WdfIoQueueDrainSynchronously(Queue: Handle) = queue::drain_synchronously;
    WdfIoQueuePurge(Queue: Handle, PurgeComplete: Evt, Context: Addr) = queue::purge;
    WdfIoQueuePurgeSynchronously(Queue: Handle) = queue::purge_synchronously;
    WdfIoQueueStopAndPurge(Queue: Handle, StopAndPurgeComplete: Evt, Context: Addr) = queue::stop_and_purge;
    WdfIoQueueStopAndPurgeSynchronously(Queue: Handle) = queue::stop_and_purge_synchronously;
    WdfIoQueueRetrieveNextRequest(Queue: Handle, OutRequest: *mut Handle) -> i32 = queue::retrieve_next;
    WdfIoQueueRetrieveRequestByFileObject(Queue: Handle, FileObject: Handle, OutRequest: *mut Handle) -> i32 = queue::retrieve_by_file;
    WdfIoQueueFindRequest(Queue: Handle, FoundRequest: Handle, FileObject: Handle, Parameters: *mut RequestParameters, OutRequest: *mut Handle) -> i32
        = queue::find;
    WdfIoQueueRetrieveFoundRequest(Queue: Handle, FoundRequest: Handle, OutRequest: *mut Handle) -> i32 = queue::retrieve_found;
    WdfIoQueueReadyNotify(Queue: Handle, QueueReady: Evt, Context: Addr) -> i32 = queue::ready_notify;

    WdfRequestComplete(Request: Handle, Status: i32) = request::complete;
    WdfRequestCompleteWithInformation(Request: Handle, Status: i32, Information: usize) = request::complete_with_information;
    WdfRequestCompleteWithPriorityBoost(Request: Handle, Status: i32, PriorityBoost: i8) = request::complete_with_priority_boost;
    WdfRequestGetParameters(Request: Handle, Parameters: *mut RequestParameters) = request::get_parameters;
    WdfRequestRetrieveInputBuffer(Request: Handle, MinimumRequiredLength: usize, Buffer: *mut *mut u8, Length: *mut usize) -> i32
        = request::retrieve_input_buffer;
    WdfRequestRetrieveOutputBuffer(Request: Handle, MinimumRequiredSize: usize, Buffer: *mut *mut u8, Length: *mut usize) -> i32
        = request::retrieve_output_buffer;
    WdfRequestRetrieveInputMemory(Request: Handle, Memory: *mut Handle) -> i32 = request::retrieve_input_memory;
    WdfRequestRetrieveOutputMemory(Request: Handle, Memory: *mut Handle) -> i32 = request::retrieve_output_memory;
    WdfRequestRetrieveInputWdmMdl(Request: Handle, Mdl: *mut *mut ntsim_sys::MDL) -> i32 = request::retrieve_input_mdl;
    WdfRequestRetrieveOutputWdmMdl(Request: Handle, Mdl: *mut *mut ntsim_sys::MDL) -> i32 = request::retrieve_output_mdl;
    WdfRequestSetInformation(Request: Handle, Information: usize) = request::set_information;
    WdfRequestGetInformation(Request: Handle) -> usize = request::get_information;
    WdfRequestGetStatus(Request: Handle) -> i32 = request::get_status;
    WdfRequestGetFileObject(Request: Handle) -> Handle = request::get_file_object;
    WdfRequestGetIoQueue(Request: Handle) -> Handle = request::get_io_queue;
    WdfRequestGetRequestorMode(Request: Handle) -> i8 = request::get_requestor_mode;
    WdfRequestIsFrom32BitProcess(Request: Handle) -> u8 = request::is_from_32_bit_process;
    WdfRequestIsReserved(Request: Handle) -> u8 = request::is_reserved;
    WdfRequestMarkCancelable(Request: Handle, EvtRequestCancel: Evt) = request::mark_cancelable;
    WdfRequestMarkCancelableEx(Request: Handle, EvtRequestCancel: Evt) -> i32 = request::mark_cancelable_ex;
    WdfRequestUnmarkCancelable(Request: Handle) -> i32 = request::unmark_cancelable;
    WdfRequestIsCanceled(Request: Handle) -> u8 = request::is_canceled;
    WdfRequestCreate(RequestAttributes: Attributes, IoTarget: Handle, Request: *mut Handle) -> i32 = request::create_by_driver;
    WdfRequestReuse(Request: Handle, ReuseParams: *const ReuseParams) -> i32 = request::reuse;
    WdfRequestChangeTarget(Request: Handle, IoTarget: Handle) -> i32 = request::change_target;
    WdfRequestSetCompletionRoutine(Request: Handle, CompletionRoutine: Evt, CompletionContext: Addr) = request::set_completion_routine;
    WdfRequestGetCompletionParams(Request: Handle, Params: *mut CompletionParams) = request::get_completion_params;
    WdfRequestAllocateTimer(Request: Handle) -> i32 = request::allocate_timer;
    WdfRequestFormatRequestUsingCurrentType(Request: Handle) = io_target::format::using_current_type;
    WdfRequestSend(Request: Handle, Target: Handle, Options: *const SendOptions) -> u8 = request::send;
    WdfRequestCancelSentRequest(Request: Handle) -> u8 = request::cancel_sent;
    WdfRequestForwardToIoQueue(Request: Handle, DestinationQueue: Handle) -> i32 = queue::forward;
    WdfRequestRequeue(Request: Handle) -> i32 = queue::requeue;
    WdfRequestStopAcknowledge(Request: Handle, Requeue: u8) = queue::stop_acknowledge;

    WdfDeviceGetIoTarget(Device: Handle) -> Handle = io_target::of_device;
    WdfIoTargetGetDevice(IoTarget: Handle) -> Handle = io_target::get_device;
    WdfIoTargetSendReadSynchronously(IoTarget: Handle, Request: Handle, OutputBuffer: *const MemoryDescriptor, DeviceOffset: *const i64, RequestOptions: *const SendOptions, BytesRead: *mut usize) -> i32
        = io_target::send_read;
    WdfIoTargetSendWriteSynchronously(IoTarget: Handle, Request: Handle, InputBuffer: *const MemoryDescriptor, DeviceOffset: *const i64, RequestOptions: *const SendOptions, BytesWritten: *mut usize) -> i32
        = io_target::send_write;
    WdfIoTargetSendIoctlSynchronously(IoTarget: Handle, Request: Handle, IoctlCode: u32, InputBuffer: *const MemoryDescriptor, OutputBuffer: *const MemoryDescriptor, RequestOptions: *const SendOptions, BytesReturned: *mut usize) -> i32
        = io_target::send_ioctl;
    WdfIoTargetSendInternalIoctlSynchronously(IoTarget: Handle, Request: Handle, IoctlCode: u32, InputBuffer: *const MemoryDescriptor, OutputBuffer: *const MemoryDescriptor, RequestOptions: *const SendOptions, BytesReturned: *mut usize) -> i32
        = io_target::send_internal_ioctl;
    WdfIoTargetSendInternalIoctlOthersSynchronously(IoTarget: Handle, Request: Handle, IoctlCode: u32, OtherArg1: *const MemoryDescriptor, OtherArg2: *const MemoryDescriptor, OtherArg4: *const MemoryDescriptor, RequestOptions: *const SendOptions, BytesReturned: *mut usize) -> i32
        = io_target::send_internal_ioctl_others;
    WdfIoTargetFormatRequestForRead(IoTarget: Handle, Request: Handle, OutputBuffer: Handle, OutputBufferOffset: *const MemoryOffset, DeviceOffset: *const i64) -> i32
        = io_target::format::for_read;
    WdfIoTargetFormatRequestForWrite(IoTarget: Handle, Request: Handle, InputBuffer: Handle, InputBufferOffset: *const MemoryOffset, DeviceOffset: *const i64) -> i32
        = io_target::format::for_write;
    WdfIoTargetFormatRequestForIoctl(IoTarget: Handle, Request: Handle, IoctlCode: u32, InputBuffer: Handle, InputBufferOffset: *const MemoryOffset, OutputBuffer: Handle, OutputBufferOffset: *const MemoryOffset) -> i32
        = io_target::format::for_ioctl;
    WdfIoTargetFormatRequestForInternalIoctl(IoTarget: Handle, Request: Handle, IoctlCode: u32, InputBuffer: Handle, InputBufferOffset: *const MemoryOffset, OutputBuffer: Handle, OutputBufferOffset: *const MemoryOffset) -> i32
        = io_target::format::for_internal_ioctl;
    WdfIoTargetFormatRequestForInternalIoctlOthers(IoTarget: Handle, Request: Handle, IoctlCode: u32, OtherArg1: Handle, OtherArg1Offset: *const MemoryOffset, OtherArg2: Handle, OtherArg2Offset: *const MemoryOffset, OtherArg4: Handle, OtherArg4Offset: *const MemoryOffset) -> i32
        = io_target::format::for_internal_ioctl_others;
    WdfIoTargetCreate(Device: Handle, IoTargetAttributes: Attributes, IoTarget: *mut Handle) -> i32 = io_target::create;
    WdfIoTargetOpen(IoTarget: Handle, OpenParams: *const OpenParams) -> i32 = io_target::remote::open;
    WdfIoTargetClose(IoTarget: Handle) = io_target::remote::close;
    WdfIoTargetCloseForQueryRemove(IoTarget: Handle) = io_target::remote::close_for_query_remove;
    WdfIoTargetStart(IoTarget: Handle) -> i32 = io_target::start;
    WdfIoTargetStop(IoTarget: Handle, Action: u32) = io_target::stop;
    WdfIoTargetPurge(IoTarget: Handle, Action: u32) = io_target::purge;
    WdfIoTargetGetState(IoTarget: Handle) -> u32 = io_target::get_state;

    WdfFileObjectGetDevice(FileObject: Handle) -> Handle = file::get_device;
    WdfFileObjectGetFileName(FileObject: Handle) -> *const UnicodeString = file::get_file_name;
    WdfFileObjectGetFlags(FileObject: Handle) -> u32 = file::get_flags;

    WdfObjectGetTypedContextWorker(Handle: Handle, TypeInfo: *const ContextTypeInfo) -> *mut u8 = object::get_typed_context;
    WdfObjectAllocateContext(Handle: Handle, ContextAttributes: Attributes, Context: *mut *mut u8) -> i32 = object::allocate_context;
    WdfObjectContextGetObject(ContextPointer: *mut u8) -> Handle = object::context_get_object;
    WdfObjectReferenceActual(Handle: Handle, Tag: *const u8, Line: i32, File: *const u8) = object::reference_actual;
    WdfObjectDereferenceActual(Handle: Handle, Tag: *const u8, Line: i32, File: *const u8) = object::dereference_actual;
    WdfObjectCreate(Attributes: Attributes, Object: *mut Handle) -> i32 = object::create_general;
    WdfObjectDelete(Object: Handle) = object::delete_by_driver;
    WdfObjectAcquireLock(Object: Handle) = lock::object_acquire;
    WdfObjectReleaseLock(Object: Handle) = lock::object_release;

    WdfVerifierDbgBreakPoint() = driver::verifier_dbg_break_point;
    WdfVerifierKeBugCheck(BugCheckCode: u32, BugCheckParameter1: u64, BugCheckParameter2: u64, BugCheckParameter3: u64, BugCheckParameter4: u64)
        = driver::verifier_ke_bug_check;

    WdfTimerCreate(Config: *const TimerConfig, Attributes: Attributes, Timer: *mut Handle) -> i32 = timer::create;
    WdfTimerStart(Timer: Handle, DueTime: i64) -> u8 = timer::start;
    WdfTimerStop(Timer: Handle, Wait: u8) -> u8 = timer::stop;
    WdfTimerGetParentObject(Timer: Handle) -> Handle = timer::get_parent_object;

    WdfWorkItemCreate(Config: *const CallbackConfig, Attributes: Attributes, WorkItem: *mut Handle) -> i32 = work_item::create;
    WdfWorkItemEnqueue(WorkItem: Handle) = work_item::enqueue;
    WdfWorkItemGetParentObject(WorkItem: Handle) -> Handle = work_item::get_parent_object;
    WdfWorkItemFlush(WorkItem: Handle) = work_item::flush;

    WdfDpcCreate(Config: *const CallbackConfig, Attributes: Attributes, Dpc: *mut Handle) -> i32 = dpc::create;
    WdfDpcEnqueue(Dpc: Handle) -> u8 = dpc::enqueue;
    WdfDpcCancel(Dpc: Handle, Wait: u8) -> u8 = dpc::cancel;
    WdfDpcGetParentObject(Dpc: Handle) -> Handle = dpc::get_parent_object;

    WdfSpinLockCreate(SpinLockAttributes: Attributes, SpinLock: *mut Handle) -> i32 = lock::spin_create;
    WdfSpinLockAcquire(SpinLock: Handle) = lock::spin_acquire;
    WdfSpinLockRelease(SpinLock: Handle) = lock::spin_release;
    WdfWaitLockCreate(LockAttributes: Attributes, Lock: *mut Handle) -> i32 = lock::wait_create;
    WdfWaitLockAcquire(Lock: Handle, Timeout: *const i64) -> i32 = lock::wait_acquire;
    WdfWaitLockRelease(Lock: Handle) = lock::wait_release;

    WdfRegistryOpenKey(ParentKey: Handle, KeyName: Text, DesiredAccess: u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = registry::open_key;
    WdfRegistryCreateKey(ParentKey: Handle, KeyName: Text, DesiredAccess: u32, CreateOptions: u32, CreateDisposition: *mut u32, KeyAttributes: Attributes, Key: *mut Handle) -> i32
        = registry::create_key;
    WdfRegistryClose(Key: Handle) = registry::close;
    WdfRegistryWdmGetHandle(Key: Handle) -> usize = registry::wdm_get_handle;
    WdfRegistryRemoveKey(Key: Handle) -> i32 = registry::remove_key;
    WdfRegistryRemoveValue(Key: Handle, ValueName: Text) -> i32 = registry::remove_value;
    WdfRegistryQueryValue(Key: Handle, ValueName: Text, ValueLength: u32, Value: *mut u8, ValueLengthQueried: *mut u32, ValueType: *mut u32) -> i32
        = registry::query_value;
    WdfRegistryQueryMemory(Key: Handle, ValueName: Text, PoolType: i32, MemoryAttributes: Attributes, Memory: *mut Handle, ValueType: *mut u32) -> i32
        = registry::query_memory;
    WdfRegistryQueryUnicodeString(Key: Handle, ValueName: Text, ValueByteLength: *mut u16, Value: *mut UnicodeString) -> i32
        = registry::query_unicode_string;
    WdfRegistryQueryString(Key: Handle, ValueName: Text, String: Handle) -> i32 = registry::query_string;
    WdfRegistryQueryMultiString(Key: Handle, ValueName: Text, StringsAttributes: Attributes, Collection: Handle) -> i32
        = registry::query_multi_string;
    WdfRegistryQueryULong(Key: Handle, ValueName: Text, Value: *mut u32) -> i32 = registry::query_ulong;
    WdfRegistryAssignValue(Key: Handle, ValueName: Text, ValueType: u32, ValueLength: u32, Value: *const u8) -> i32
        = registry::assign_value;
    WdfRegistryAssignMemory(Key: Handle, ValueName: Text, ValueType: u32, Memory: Handle, MemoryOffsets: *const MemoryOffset) -> i32
        = registry::assign_memory;
    WdfRegistryAssignUnicodeString(Key: Handle, ValueName: Text, Value: Text) -> i32 = registry::assign_unicode_string;
    WdfRegistryAssignString(Key: Handle, ValueName: Text, String: Handle) -> i32 = registry::assign_string;
    WdfRegistryAssignMultiString(Key: Handle, ValueName: Text, StringsCollection: Handle) -> i32 = registry::assign_multi_string;
    WdfRegistryAssignULong(Key: Handle, ValueName: Text, Value: u32) -> i32 = registry::assign_ulong;

    WdfMemoryCreate(Attributes: Attributes, PoolType: i32, PoolTag: u32, BufferSize: usize, Memory: *mut Handle, Buffer: *mut *mut u8) -> i32
        = memory::create;
    WdfMemoryCreatePreallocated(Attributes: Attributes, Buffer: *mut u8, BufferSize: usize, Memory: *mut Handle) -> i32
        = memory::create_preallocated;
    WdfMemoryGetBuffer(Memory: Handle, BufferSize: *mut usize) -> *mut u8 = memory::get_buffer;
    WdfMemoryAssignBuffer(Memory: Handle, Buffer: *mut u8, BufferSize: usize) -> i32 = memory::assign_buffer;
    WdfMemoryCopyToBuffer(SourceMemory: Handle, SourceOffset: usize, Buffer: *mut u8, NumBytesToCopyTo: usize) -> i32
        = memory::copy_to_buffer;
    WdfMemoryCopyFromBuffer(DestinationMemory: Handle, DestinationOffset: usize, Buffer: *const u8, NumBytesToCopyFrom: usize) -> i32
        = memory::copy_from_buffer;
    WdfLookasideListCreate(LookasideAttributes: Attributes, BufferSize: usize, PoolType: i32, MemoryAttributes: Attributes, PoolTag: u32, Lookaside: *mut Handle) -> i32
        = lookaside::create;
    WdfMemoryCreateFromLookaside(Lookaside: Handle, Memory: *mut Handle) -> i32 = lookaside::create_memory;
    WdfStringCreate(UnicodeString: Text, StringAttributes: Attributes, String: *mut Handle) -> i32 = memory::string_create;
    WdfStringGetUnicodeString(String: Handle, UnicodeString: *mut UnicodeString) = memory::string_get_unicode_string;
    WdfCollectionCreate(CollectionAttributes: Attributes, Collection: *mut Handle) -> i32 = memory::collection_create;
    WdfCollectionGetCount(Collection: Handle) -> u32 = memory::collection_get_count;
    WdfCollectionAdd(Collection: Handle, Object: Handle) -> i32 = memory::collection_add;
    WdfCollectionRemove(Collection: Handle, Item: Handle) = memory::collection_remove;
    WdfCollectionRemoveItem(Collection: Handle, Index: u32) = memory::collection_remove_item;
    WdfCollectionGetItem(Collection: Handle, Index: u32) -> Handle = memory::collection_get_item;
    WdfCollectionGetFirstItem(Collection: Handle) -> Handle = memory::collection_get_first_item;
    WdfCollectionGetLastItem(Collection: Handle) -> Handle = memory::collection_get_last_item;
}

/// What the framework still holds for drivers: objects that were not deleted,
/// each with its name; children of an object that is listed are left out.
/// After a driver was unloaded there should be none.
pub(crate) fn leaks(k: &Kernel) -> Vec<(String, Option<&crate::origin::Origin>)> {
    k.wdf
        .objects
        .values()
        .filter(|object| {
            object
                .parent
                .is_none_or(|parent| !k.wdf.objects.contains_key(&parent))
        })
        .map(|object| {
            let name = k.name_of(object.handle as usize).unwrap_or("an object");
            let text = if object.is_deleted() {
                format!(
                    "{name}: deleted, but {} reference(s) are left",
                    object.references
                )
            } else {
                format!("{name}: never deleted")
            };
            (text, object.origin.as_ref())
        })
        .collect()
}
