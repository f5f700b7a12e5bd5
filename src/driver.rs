// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is between KMDF and a [`Device`]: `DriverEntry`, and the callbacks that
//! KMDF calls, which turn into steps up and down the device's tree.
//!
//! # Teardown
//!
//! KMDF disposes a device's child objects, timers and work items among them,
//! before it tells the device itself, in the order of their creation. So the
//! first child of each device is an object whose only task is to be told in
//! time: when it is cleaned up, all others are still there, and the tree is
//! closed and destroyed.

mod non_pnp;

pub use non_pnp::{Load, NonPnp, entry_non_pnp};

use core::cell::Cell;
use core::ptr::{self, NonNull};

use crate::device::{Device, FilePath, PowerState, Relation, Resources, SpecialFile, WakeReason};
use crate::module::Modules;
use crate::module::node::{self, Header, Reference};
use crate::module::order::Step;
use crate::status::{NtStatus, Result};
use crate::sys;
use crate::wdf::DeviceInit;
use crate::wdf::object::{ContextInfo, ObjectLink, attributes, no_handle};

/// The type of a driver's entry point on the host.
#[cfg(not(kernel))]
pub type DriverEntry =
    unsafe extern "C-unwind" fn(sys::PDRIVER_OBJECT, sys::PCUNICODE_STRING) -> sys::NTSTATUS;

/// The type of a driver's entry point.
#[cfg(kernel)]
pub type DriverEntry =
    unsafe extern "C" fn(sys::PDRIVER_OBJECT, sys::PCUNICODE_STRING) -> sys::NTSTATUS;

/// Makes a driver of a type that implements [`Device`].
///
/// On Windows it defines `DriverEntry` and the global allocator (which this
/// crate does not use, but a driver that links `alloc` needs), and links
/// `wdk-panic`. Everywhere it gives the type a constant `DRIVER_ENTRY`, the
/// entry point that `ntsim` loads; several drivers can be linked into one program.
///
/// ```
/// use dmf::prelude::*;
///
/// dmf::driver!(Hello);
///
/// pub struct Hello;
///
/// impl Device for Hello {
///     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
///         Ok(Hello)
///     }
/// }
///
/// let entry: dmf::driver::DriverEntry = Hello::DRIVER_ENTRY;
/// # ntsim::run_driver(entry, |_, _| {});
/// ```
///
/// A type that is not a device is refused:
///
/// ```compile_fail,E0277
/// dmf::driver!(Hello);
///
/// pub struct Hello;
/// ```
///
/// A driver without devices implements [`NonPnp`] and says so:
/// `dmf::driver!(Hello: NonPnp);`.
#[cfg(not(kernel))]
#[macro_export]
macro_rules! driver {
    (@entry $driver:ty, $entry:path) => {
        impl $driver {
            /// The driver's entry point.
            pub const DRIVER_ENTRY: $crate::driver::DriverEntry = $entry;
        }
    };
    ($device:ty) => {
        $crate::driver!(@entry $device, $crate::driver::entry::<$device>);
    };
    ($driver:ty: NonPnp) => {
        $crate::driver!(@entry $driver, $crate::driver::entry_non_pnp::<$driver>);
    };
}

/// Makes a driver of a type that implements [`Device`], or [`NonPnp`].
#[cfg(kernel)]
#[macro_export]
macro_rules! driver {
    ($device:ty) => {
        $crate::driver!(@entry $device, $crate::driver::entry::<$device>);
    };
    ($driver:ty: NonPnp) => {
        $crate::driver!(@entry $driver, $crate::driver::entry_non_pnp::<$driver>);
    };
    (@entry $driver:ty, $entry:path) => {
        impl $driver {
            /// The driver's entry point.
            pub const DRIVER_ENTRY: $crate::driver::DriverEntry = $entry;
        }

        #[global_allocator]
        static DMF_ALLOCATOR: $crate::private::WdkAllocator = $crate::private::WdkAllocator;

        // SAFETY: the name is KMDF's for this function, and an image has one.
        #[unsafe(export_name = "DriverEntry")]
        unsafe extern "system" fn dmf_driver_entry(
            driver: $crate::sys::PDRIVER_OBJECT,
            path: $crate::sys::PCUNICODE_STRING,
        ) -> $crate::sys::NTSTATUS {
            // SAFETY: KMDF's loader stub calls this once, as a driver's entry.
            unsafe { <$driver>::DRIVER_ENTRY(driver, path) }
        }
    };
}

callback! {
    /// The entry point of the driver for devices of type `D`.
    ///
    /// # Safety
    /// To be called once, by the kernel, with what it calls a driver's entry
    /// point with.
    pub unsafe fn entry<D: Device>(
        driver: sys::PDRIVER_OBJECT,
        path: sys::PCUNICODE_STRING,
    ) -> sys::NTSTATUS {
        let mut config = sys::WDF_DRIVER_CONFIG {
            Size: sys::size_field::<sys::WDF_DRIVER_CONFIG>(),
            EvtDriverDeviceAdd: Some(evt_device_add::<D>),
            ..sys::WDF_DRIVER_CONFIG::default()
        };
        // SAFETY: the arguments are the kernel's, and the structure is valid
        // for the length of the call.
        unsafe {
            sys::kmdf::WdfDriverCreate(
                driver,
                path,
                ptr::null_mut(),
                &raw mut config,
                ptr::null_mut(),
            )
        }
    }
}

/// The context of each device: the root of its tree.
#[repr(C)]
struct DeviceContext {
    /// First: a node's list is of links. Only a control device is in one.
    link: ObjectLink,
    /// Counted: a device that was deleted may still be told of an open, or that
    /// the system shuts down, which was on its way.
    root: NonNull<Header>,
}

/// The context of each device's first child.
struct TeardownContext {
    /// What to take down, once it is complete.
    root: Cell<Option<NonNull<Header>>>,
}

static DEVICE: ContextInfo = ContextInfo::new::<DeviceContext>(c"dmf::Device", &DEVICE);
static TEARDOWN: ContextInfo = ContextInfo::new::<TeardownContext>(c"dmf::Teardown", &TEARDOWN);

callback! {
    unsafe fn evt_device_add<D: Device>(
        _driver: sys::WDFDRIVER,
        init: sys::PWDFDEVICE_INIT,
    ) -> sys::NTSTATUS {
        // SAFETY: KMDF calls this at PASSIVE_LEVEL with a device init.
        NtStatus::from_result(unsafe { add_device::<D>(init) }).to_raw()
    }
}

/// # Safety
/// `init` is what KMDF gave to `EvtDriverDeviceAdd`.
unsafe fn add_device<D: Device>(init: sys::PWDFDEVICE_INIT) -> Result {
    // First what can fail without leaving anything behind.
    let root = node::allocate_device::<D>()?;
    // SAFETY: the caller's promise; device-add is at PASSIVE_LEVEL.
    let init = D::describe(unsafe { DeviceInit::from_raw(init) })?;
    root.header().io_type.set(init.chosen_io_type());
    root.header().is_filter.set(init.is_filter());
    let mut init = init.into_raw();
    let mut callbacks = pnp_power_callbacks();
    // SAFETY: both are valid for the length of the call.
    unsafe { sys::kmdf::WdfDeviceInitSetPnpPowerEventCallbacks(init, &raw mut callbacks) };
    let mut callbacks = power_policy_callbacks();
    // SAFETY: as above.
    unsafe { sys::kmdf::WdfDeviceInitSetPowerPolicyEventCallbacks(init, &raw mut callbacks) };
    // SAFETY: as above; the device's context is written below.
    unsafe { crate::wdf::file::configure(init) };
    // SAFETY: as above. KMDF takes the init if the call succeeds, and frees it
    // after this callback if not.
    let device = unsafe { create_device(&mut init, &root) }?;
    // SAFETY: the device is new and has the root in its context.
    unsafe { furnish::<D>(root, device, D::modules) }
}

/// Creates a device whose tree has this root.
///
/// # Safety
/// `init` is KMDF's and describes a device of this crate; `PASSIVE_LEVEL`. If
/// the device is not furnished, no callback uses its context.
pub(crate) unsafe fn create_device(
    init: &mut sys::PWDFDEVICE_INIT,
    root: &Reference,
) -> Result<sys::WDFDEVICE> {
    let mut device = no_handle();
    let mut attributes = attributes(&DEVICE, ptr::null_mut());
    attributes.EvtDestroyCallback = Some(evt_device_destroy);
    // SAFETY: the caller's promise.
    NtStatus::from_raw(unsafe {
        sys::kmdf::WdfDeviceCreate(&raw mut *init, &raw mut attributes, &raw mut device)
    })
    .into_result()?;
    root.header().device.set(device);
    // SAFETY: the device was created with this context.
    let context = unsafe { DEVICE.of::<DeviceContext>(device.cast()) };
    let filled = DeviceContext {
        link: ObjectLink::new(device.cast(), stop_nothing),
        root: root.clone().into_raw(),
    };
    // SAFETY: the context is ours, and the caller's promise.
    unsafe { context.write(filled) };
    Ok(device)
}

callback! {
    unsafe fn evt_device_destroy(device: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for the devices that were created with this
        // context, which was written as soon as there was one.
        let context = unsafe { DEVICE.of::<DeviceContext>(device) };
        // SAFETY: a context is freed after this.
        let root = unsafe { context.as_ref() }.root;
        // SAFETY: the context's count; nobody has the device any more.
        drop(unsafe { Reference::from_raw(root) });
    }
}

/// A control device that is deleted stops by itself.
unsafe fn stop_nothing(_device: sys::WDFOBJECT) {}

/// Lets `owner` delete the control device, together with its timers and the like.
///
/// # Safety
/// The device was made by [`create_device`], it is a control device, and no node
/// has it yet; `owner` is the header of a node that is being made.
pub(crate) unsafe fn give_to(owner: NonNull<Header>, device: sys::WDFDEVICE) {
    // SAFETY: the device was created with this context, which begins with a link.
    let link = unsafe { DEVICE.of::<ObjectLink>(device.cast()) };
    // SAFETY: the caller's promise.
    unsafe { ObjectLink::push(owner, link) };
}

/// Makes the tree of a new device, and lets it be taken down with the device.
///
/// # Safety
/// The device was made by [`create_device`] with this root, a node of this type,
/// and has no children; `PASSIVE_LEVEL`. If this fails, the device is deleted.
pub(crate) unsafe fn furnish<T: Send + Sync + 'static>(
    root: Reference,
    device: sys::WDFDEVICE,
    make: impl FnOnce(&mut Modules<'_, T>) -> Result<T>,
) -> Result {
    // SAFETY: the device is new, so this is its first child.
    let teardown = unsafe { create_teardown(device) }?;

    // SAFETY: the node is new and of this type, and this is device-add.
    match make(&mut unsafe { Modules::new(root.node(), device) }) {
        // SAFETY: the node is of this type and has no value yet.
        Ok(device) => unsafe { node::construct(root.node(), device) },
        Err(status) => {
            // SAFETY: the node has no value, and this is device-add.
            unsafe { node::abandon(root.node()) };
            return Err(status);
        }
    }
    // SAFETY: the node has a value now, and this is device-add.
    if let Err(status) = unsafe { node::dispatch(root.node(), Step::Create) } {
        // SAFETY: as above; `dispatch` has closed what it had opened.
        unsafe { node::destroy(root.node()) };
        return Err(status);
    }
    // From here on KMDF decides when it ends; the teardown object has the count.
    // SAFETY: a context is valid as long as its object.
    unsafe { teardown.as_ref() }.root.set(Some(root.into_raw()));
    Ok(())
}

/// Creates a device's first child and returns its context.
///
/// # Safety
/// The device has no children yet.
unsafe fn create_teardown(device: sys::WDFDEVICE) -> Result<NonNull<TeardownContext>> {
    let mut attributes = attributes(&TEARDOWN, device.cast());
    attributes.EvtCleanupCallback = Some(evt_teardown);
    // The modules' close functions may wait.
    attributes.ExecutionLevel = sys::_WDF_EXECUTION_LEVEL::WdfExecutionLevelPassive;
    let mut object = no_handle();
    // SAFETY: the attributes and the device are valid for the length of the call.
    NtStatus::from_raw(unsafe { sys::kmdf::WdfObjectCreate(&raw mut attributes, &raw mut object) })
        .into_result()?;
    // SAFETY: the object was created with this context.
    let context = unsafe { TEARDOWN.of::<TeardownContext>(object) };
    // SAFETY: the context is ours, and not used yet.
    unsafe {
        context.write(TeardownContext {
            root: Cell::new(None),
        });
    }
    Ok(context)
}

callback! {
    /// Called when the device is deleted, before its other children are disposed.
    unsafe fn evt_teardown(object: sys::WDFOBJECT) {
        // SAFETY: KMDF calls this for the object that was created with this context.
        let context = unsafe { TEARDOWN.of::<TeardownContext>(object) };
        // SAFETY: a context is valid as long as its object.
        let Some(root) = unsafe { context.as_ref() }.root.take() else {
            // Device-add failed, and cleaned up after itself.
            return;
        };
        // SAFETY: KMDF deletes a device when no other callback runs, and this
        // object at PASSIVE_LEVEL.
        let _ = unsafe { node::dispatch(root, Step::Close) };
        // SAFETY: as above.
        unsafe { node::destroy(root) };
        // SAFETY: device-add left its count here.
        drop(unsafe { Reference::from_raw(root) });
    }
}

/// All PnP and power callbacks of this crate.
///
/// C counterpart: `WDF_PNPPOWER_EVENT_CALLBACKS_INIT`.
fn pnp_power_callbacks() -> sys::WDF_PNPPOWER_EVENT_CALLBACKS {
    sys::WDF_PNPPOWER_EVENT_CALLBACKS {
        Size: sys::size_field::<sys::WDF_PNPPOWER_EVENT_CALLBACKS>(),
        EvtDeviceD0Entry: Some(evt_d0_entry),
        EvtDeviceD0Exit: Some(evt_d0_exit),
        EvtDevicePrepareHardware: Some(evt_prepare_hardware),
        EvtDeviceReleaseHardware: Some(evt_release_hardware),
        EvtDeviceSelfManagedIoCleanup: Some(evt_self_managed_io_cleanup),
        EvtDeviceSelfManagedIoFlush: Some(evt_self_managed_io_flush),
        EvtDeviceSelfManagedIoInit: Some(evt_self_managed_io_init),
        EvtDeviceSelfManagedIoSuspend: Some(evt_self_managed_io_suspend),
        EvtDeviceSelfManagedIoRestart: Some(evt_self_managed_io_restart),
        EvtDeviceSurpriseRemoval: Some(evt_surprise_removal),
        EvtDeviceD0EntryPostInterruptsEnabled: Some(evt_d0_entry_post_interrupts_enabled),
        EvtDeviceD0ExitPreInterruptsDisabled: Some(evt_d0_exit_pre_interrupts_disabled),
        EvtDeviceQueryRemove: Some(evt_query_remove),
        EvtDeviceQueryStop: Some(evt_query_stop),
        EvtDeviceRelationsQuery: Some(evt_relations_query),
        EvtDeviceUsageNotificationEx: Some(evt_usage_notification),
        ..sys::WDF_PNPPOWER_EVENT_CALLBACKS::default()
    }
}

/// The callbacks for waking up. KMDF calls them only for a device that owns its
/// power policy and whose driver has assigned wake settings.
///
/// C counterpart: `WDF_POWER_POLICY_EVENT_CALLBACKS_INIT`.
fn power_policy_callbacks() -> sys::WDF_POWER_POLICY_EVENT_CALLBACKS {
    sys::WDF_POWER_POLICY_EVENT_CALLBACKS {
        Size: sys::size_field::<sys::WDF_POWER_POLICY_EVENT_CALLBACKS>(),
        EvtDeviceArmWakeFromS0: Some(evt_arm_wake_from_s0),
        EvtDeviceDisarmWakeFromS0: Some(evt_disarm_wake_from_s0),
        EvtDeviceWakeFromS0Triggered: Some(evt_wake_from_s0_triggered),
        EvtDeviceArmWakeFromSxWithReason: Some(evt_arm_wake_from_sx),
        EvtDeviceDisarmWakeFromSx: Some(evt_disarm_wake_from_sx),
        EvtDeviceWakeFromSxTriggered: Some(evt_wake_from_sx_triggered),
        ..sys::WDF_POWER_POLICY_EVENT_CALLBACKS::default()
    }
}

/// The root of a device's tree.
///
/// # Safety
/// The device is one of this crate, and has its context.
pub(crate) unsafe fn root_of(device: sys::WDFDEVICE) -> NonNull<Header> {
    // SAFETY: the caller's promise.
    let context = unsafe { DEVICE.of::<DeviceContext>(device.cast()) };
    // SAFETY: device-add wrote it, and nothing changes it.
    unsafe { context.as_ref() }.root
}

/// # Safety
/// As [`node::dispatch`], for the device's tree.
unsafe fn dispatch(device: sys::WDFDEVICE, step: Step) -> NtStatus {
    // SAFETY: each device of this crate was created with this context.
    let context = unsafe { DEVICE.of::<DeviceContext>(device.cast()) };
    // SAFETY: device-add wrote it, and nothing changes it.
    let root = unsafe { context.as_ref() }.root;
    // SAFETY: PnP callbacks come only after device-add succeeded and before
    // the device is deleted, and the caller's promise.
    NtStatus::from_result(unsafe { node::dispatch(root, step) })
}

/// KMDF's callbacks, each of which is a step through the tree. Those that cannot
/// fail have the status of success.
macro_rules! pnp_callbacks {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? => $step:expr;)*) => {$(
        callback! {
            unsafe fn $name(device: sys::WDFDEVICE $(, $arg: $ty)*) $(-> $ret)? {
                // SAFETY: KMDF calls the callbacks of a device at PASSIVE_LEVEL,
                // and those one at a time whose steps have a turn of their own.
                let status = unsafe { dispatch(device, $step) };
                pnp_callbacks!(@result status $(, $ret)?)
            }
        }
    )*};
    (@result $status:ident, $ret:ty) => { $status.to_raw() };
    (@result $status:ident) => {{
        let _ = $status;
    }};
}

pnp_callbacks! {
    evt_prepare_hardware(raw: sys::WDFCMRESLIST, translated: sys::WDFCMRESLIST)
        -> sys::NTSTATUS => Step::PrepareHardware(Resources::new(raw, translated));
    evt_release_hardware(translated: sys::WDFCMRESLIST) -> sys::NTSTATUS
        => Step::ReleaseHardware(Resources::new(ptr::null_mut(), translated));
    evt_d0_entry(previous: sys::WDF_POWER_DEVICE_STATE) -> sys::NTSTATUS
        => Step::D0Entry(PowerState::from_raw(previous));
    evt_d0_entry_post_interrupts_enabled(previous: sys::WDF_POWER_DEVICE_STATE) -> sys::NTSTATUS
        => Step::D0EntryPostInterruptsEnabled(PowerState::from_raw(previous));
    evt_d0_exit_pre_interrupts_disabled(target: sys::WDF_POWER_DEVICE_STATE) -> sys::NTSTATUS
        => Step::D0ExitPreInterruptsDisabled(PowerState::from_raw(target));
    evt_d0_exit(target: sys::WDF_POWER_DEVICE_STATE) -> sys::NTSTATUS
        => Step::D0Exit(PowerState::from_raw(target));
    evt_self_managed_io_init() -> sys::NTSTATUS => Step::SelfManagedIoInit;
    evt_self_managed_io_restart() -> sys::NTSTATUS => Step::SelfManagedIoRestart;
    evt_self_managed_io_suspend() -> sys::NTSTATUS => Step::SelfManagedIoSuspend;
    evt_self_managed_io_flush() => Step::SelfManagedIoFlush;
    evt_self_managed_io_cleanup() => Step::SelfManagedIoCleanup;
    evt_surprise_removal() => Step::SurpriseRemoval;
    evt_query_remove() -> sys::NTSTATUS => Step::QueryRemove;
    evt_query_stop() -> sys::NTSTATUS => Step::QueryStop;
    evt_relations_query(relation: sys::DEVICE_RELATION_TYPE)
        => Step::RelationsQuery(Relation::from_raw(relation));
    evt_usage_notification(file: sys::WDF_SPECIAL_FILE_TYPE, in_path: sys::BOOLEAN)
        -> sys::NTSTATUS
        => Step::UsageNotification(SpecialFile::from_raw(file), FilePath::from_raw(in_path));
    evt_arm_wake_from_s0() -> sys::NTSTATUS => Step::ArmWakeFromS0;
    evt_disarm_wake_from_s0() => Step::DisarmWakeFromS0;
    evt_wake_from_s0_triggered() => Step::WakeFromS0Triggered;
    evt_arm_wake_from_sx(device_wakes: sys::BOOLEAN, children_wake: sys::BOOLEAN)
        -> sys::NTSTATUS => Step::ArmWakeFromSx(WakeReason::from_raw(device_wakes, children_wake));
    evt_disarm_wake_from_sx() => Step::DisarmWakeFromSx;
    evt_wake_from_sx_triggered() => Step::WakeFromSxTriggered;
}
