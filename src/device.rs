// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Device`]: what a driver implements, and the contexts of its callbacks.
//!
//! # Vocabulary
//!
//! - *up*: the callbacks that bring a device to work: PrepareHardware, D0Entry,
//!   SelfManagedIoInit and SelfManagedIoRestart.
//! - *down*: those that undo them: SelfManagedIoSuspend, D0Exit, ReleaseHardware.
//!
//! ```text
//!   modules() ─► PrepareHardware ─► D0Entry ─► SelfManagedIoInit ─► working
//!                                      ▲         (later Restart)       │
//!                                      │                               ▼
//!                                      └──── D0Exit ◄──── SelfManagedIoSuspend
//!                                              │
//!                   ReleaseHardware ◄──────────┘  (removal, stop)
//!                          │
//!            SelfManagedIoFlush, SelfManagedIoCleanup ─► drop
//! ```
//!
//! # Order
//!
//! A device and its modules are a tree. On the way up a module's children come
//! before it and the device comes last; on the way down exactly the reverse.
//! So a device's `d0_entry` can use modules that are up already, and its
//! `d0_exit` modules that are still up. This is the table that the dispatcher
//! reads:
#![doc = include_str!("device/order.md")]
//!
//! A down callback is called exactly once for each up callback of the same kind
//! that returned `Ok`. If one fails, those that had succeeded are undone at
//! once, in reverse order, and KMDF is told the status. This differs from KMDF,
//! which calls ReleaseHardware after a PrepareHardware that failed.
//!
//! ```
//! use dmf::prelude::*;
//!
//! dmf::driver!(Lamp);
//! struct Lamp { is_lit: SpinLock<bool> }
//!
//! impl Device for Lamp {
//!     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Lamp { is_lit: SpinLock::new(false) })
//!     }
//!     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
//!         dmf::println!("from {}", cx.previous_state());
//!         self.is_lit.lock(cx.irql(), |is_lit, _| *is_lit = true);
//!         Ok(())
//!     }
//!     fn d0_exit(&self, cx: &mut D0Exit<'_>) {
//!         assert!(self.is_lit.lock(cx.irql(), |is_lit, _| core::mem::replace(is_lit, false)));
//!     }
//! }
//! # ntsim::run_driver(Lamp::DRIVER_ENTRY, |machine, device| {
//! #     machine.sleep(ntsim::machine::Sleep::S3).unwrap();
//! #     machine.wake().unwrap();
//! #     machine.stop_device(device).unwrap();
//! #     machine.restart_device(device).unwrap();
//! # });
//! ```
//!
//! See [PnP and power management callback functions][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-pnp-and-power-management-in-your-driver

use core::fmt;

use crate::module::Modules;
use crate::status::Result;
use crate::sys;

/// A device that the driver drives: its modules, its state, its callbacks.
///
/// [`modules`](Self::modules) makes it; the other functions have defaults. One
/// value exists for each device, and it is dropped when the device is removed,
/// after its modules were closed.
///
/// Register the type with [`driver!`](crate::driver!).
///
/// C counterpart: the callbacks that [`EvtDriverDeviceAdd`][ms] registers, and the
/// device's context.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nc-wdfdriver-evt_wdf_driver_device_add
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a device",
    note = "write `impl Device for {Self}` with `fn modules(add: &mut Modules<'_, Self>) -> Result<Self>`"
)]
pub trait Device: Sized + Send + Sync + 'static {
    /// Describes the device before there is one: its name, its kind of I/O, and
    /// so on. Called when PnP found the device.
    ///
    /// # Errors
    /// Any: the device is not created.
    ///
    /// C counterpart: the `WdfDeviceInit…` calls in `EvtDriverDeviceAdd`.
    fn describe(init: crate::wdf::DeviceInit<'_>) -> Result<crate::wdf::DeviceInit<'_>> {
        Ok(init)
    }

    /// Adds the device's modules and makes its state.
    ///
    /// Called when PnP found the device. When it returns, the modules whose
    /// policy is [`OpenPolicy::Create`](crate::module::OpenPolicy::Create) are opened.
    ///
    /// # Errors
    /// Any: the device is not created, and the modules that were added are
    /// destroyed in reverse order.
    ///
    /// C counterpart: `EvtDmfDeviceModulesAdd`, [`EvtDriverDeviceAdd`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nc-wdfdriver-evt_wdf_driver_device_add
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self>;

    hooks!();

    crate::wdf::dispatch::io_hooks!();
}

/// A device's power state.
///
/// C counterpart: [`WDF_POWER_DEVICE_STATE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_power_device_state
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PowerState {
    /// Unknown, or none.
    Invalid,
    /// Working.
    D0,
    /// Sleeping lightly.
    D1,
    /// Sleeping.
    D2,
    /// Off, to come back.
    D3,
    /// Off for good, or not yet ever on.
    D3Final,
    /// On, but only to write the hibernation file.
    PrepareForHibernation,
}

impl PowerState {
    /// The state with KMDF's number.
    pub(crate) fn from_raw(state: sys::WDF_POWER_DEVICE_STATE) -> Self {
        use sys::_WDF_POWER_DEVICE_STATE as Raw;
        match state {
            Raw::WdfPowerDeviceD0 => Self::D0,
            Raw::WdfPowerDeviceD1 => Self::D1,
            Raw::WdfPowerDeviceD2 => Self::D2,
            Raw::WdfPowerDeviceD3 => Self::D3,
            Raw::WdfPowerDeviceD3Final => Self::D3Final,
            Raw::WdfPowerDevicePrepareForHibernation => Self::PrepareForHibernation,
            _ => Self::Invalid,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The hardware resources of a device, as KMDF hands them to PrepareHardware.
///
/// C counterpart: the two [`WDFCMRESLIST`][ms] of `EvtDevicePrepareHardware`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/raw-and-translated-resources
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    raw: sys::WDFCMRESLIST,
    translated: sys::WDFCMRESLIST,
    /// Whose they are; null until the device's tree is told.
    device: sys::WDFDEVICE,
}

impl Resources {
    pub(crate) const fn new(raw: sys::WDFCMRESLIST, translated: sys::WDFCMRESLIST) -> Self {
        Self {
            raw,
            translated,
            device: core::ptr::null_mut(),
        }
    }

    /// The resources of this device.
    pub(crate) const fn of(mut self, device: sys::WDFDEVICE) -> Self {
        self.device = device;
        self
    }

    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self::new(core::ptr::null_mut(), core::ptr::null_mut())
    }

    /// The list as the bus sees the resources. Null where KMDF gives none. It
    /// is KMDF's, and valid during the callback.
    #[must_use]
    pub const fn raw(&self) -> sys::WDFCMRESLIST {
        self.raw
    }

    /// The list as the processor sees the resources. Null where KMDF gives
    /// none. It is KMDF's, and valid during the callback.
    #[must_use]
    pub const fn translated(&self) -> sys::WDFCMRESLIST {
        self.translated
    }
}

/// Which devices are asked for.
///
/// C counterpart: `DEVICE_RELATION_TYPE`, as [`EvtDeviceRelationsQuery`][ms] gets it.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_relations_query
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relation {
    /// The children of the device.
    Bus,
    /// Those that leave with the device when it is ejected.
    Ejection,
    /// Those that lose power with the device.
    Power,
    /// Those that are to be removed with the device.
    Removal,
    /// The device itself.
    TargetDevice,
    /// One that this crate does not know, by its number.
    Other(i32),
}

impl Relation {
    pub(crate) fn from_raw(relation: sys::DEVICE_RELATION_TYPE) -> Self {
        use sys::_DEVICE_RELATION_TYPE as Raw;
        match relation {
            Raw::BusRelations => Self::Bus,
            Raw::EjectionRelations => Self::Ejection,
            Raw::PowerRelations => Self::Power,
            Raw::RemovalRelations => Self::Removal,
            Raw::TargetDeviceRelation => Self::TargetDevice,
            other => Self::Other(other),
        }
    }
}

/// The special file that a device carries.
///
/// C counterpart: [`WDF_SPECIAL_FILE_TYPE`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_special_file_type
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpecialFile {
    /// A paging file.
    Paging,
    /// The hibernation file.
    Hibernation,
    /// The crash dump file.
    Dump,
    /// The boot files.
    Boot,
    /// One that this crate does not know, by its number.
    Other(i32),
}

impl SpecialFile {
    pub(crate) fn from_raw(file: sys::WDF_SPECIAL_FILE_TYPE) -> Self {
        use sys::_WDF_SPECIAL_FILE_TYPE as Raw;
        match file {
            Raw::WdfSpecialFilePaging => Self::Paging,
            Raw::WdfSpecialFileHibernation => Self::Hibernation,
            Raw::WdfSpecialFileDump => Self::Dump,
            Raw::WdfSpecialFileBoot => Self::Boot,
            other => Self::Other(other),
        }
    }

    /// KMDF's number, of one that this crate knows.
    pub(crate) const fn to_raw(self) -> Option<sys::WDF_SPECIAL_FILE_TYPE> {
        use sys::_WDF_SPECIAL_FILE_TYPE as Raw;
        Some(match self {
            Self::Paging => Raw::WdfSpecialFilePaging,
            Self::Hibernation => Raw::WdfSpecialFileHibernation,
            Self::Dump => Raw::WdfSpecialFileDump,
            Self::Boot => Raw::WdfSpecialFileBoot,
            Self::Other(_) => return None,
        })
    }
}

/// Whether the device is on the path to a special file from now on.
///
/// C counterpart: the `BOOLEAN` of [`EvtDeviceUsageNotificationEx`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_usage_notification_ex
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilePath {
    /// It is.
    Joined,
    /// It is not any more.
    Left,
}

impl FilePath {
    pub(crate) const fn from_raw(in_path: sys::BOOLEAN) -> Self {
        if in_path == 0 {
            Self::Left
        } else {
            Self::Joined
        }
    }

    pub(crate) const fn opposite(self) -> Self {
        match self {
            Self::Joined => Self::Left,
            Self::Left => Self::Joined,
        }
    }
}

/// Why a device is armed to wake the system.
///
/// C counterpart: the two `BOOLEAN`s of [`EvtDeviceArmWakeFromSxWithReason`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_sx_with_reason
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WakeReason {
    device: bool,
    children: bool,
}

impl WakeReason {
    /// The device itself may wake the system.
    #[cfg(test)]
    pub(crate) const DEVICE: Self = Self {
        device: true,
        children: false,
    };

    pub(crate) const fn from_raw(device: sys::BOOLEAN, children: sys::BOOLEAN) -> Self {
        Self {
            device: device != 0,
            children: children != 0,
        }
    }

    /// The device is allowed to wake the system.
    #[must_use]
    pub const fn device_wakes(&self) -> bool {
        self.device
    }

    /// At least one of the device's children is armed.
    #[must_use]
    pub const fn children_wake(&self) -> bool {
        self.children
    }
}

contexts! {
    /// What [`prepare_hardware`](Device::prepare_hardware) is given.
    PrepareHardware {
        /// The device's hardware resources.
        resources: Resources,
    }
    /// What [`release_hardware`](Device::release_hardware) is given.
    ReleaseHardware {
        /// The device's hardware resources. The raw list is null.
        resources: Resources,
    }
    /// What [`d0_entry`](Device::d0_entry) is given.
    D0Entry {
        /// The state that the device comes from.
        previous_state: PowerState,
    }
    /// What [`d0_exit`](Device::d0_exit) is given.
    D0Exit {
        /// The state that the device goes to.
        target_state: PowerState,
    }
    /// What [`self_managed_io_init`](Device::self_managed_io_init) is given.
    SelfManagedIoInit {}
    /// What [`self_managed_io_restart`](Device::self_managed_io_restart) is given.
    SelfManagedIoRestart {}
    /// What [`self_managed_io_suspend`](Device::self_managed_io_suspend) is given.
    SelfManagedIoSuspend {}
    /// What [`self_managed_io_flush`](Device::self_managed_io_flush) is given.
    SelfManagedIoFlush {}
    /// What [`self_managed_io_cleanup`](Device::self_managed_io_cleanup) is given.
    SelfManagedIoCleanup {}
    /// What [`surprise_removal`](Device::surprise_removal) is given.
    SurpriseRemoval {}
    /// What [`assign_resources`](crate::module::Instance::assign_resources) is given.
    AssignResources {
        /// The device's hardware resources.
        resources: Resources,
    }
    /// What [`d0_entry_post_interrupts_enabled`](Device::d0_entry_post_interrupts_enabled) is given.
    D0EntryPostInterruptsEnabled {
        /// The state that the device comes from.
        previous_state: PowerState,
    }
    /// What [`d0_exit_pre_interrupts_disabled`](Device::d0_exit_pre_interrupts_disabled) is given.
    D0ExitPreInterruptsDisabled {
        /// The state that the device goes to.
        target_state: PowerState,
    }
    /// What [`query_remove`](Device::query_remove) is given.
    QueryRemove {}
    /// What [`query_stop`](Device::query_stop) is given.
    QueryStop {}
    /// What [`relations_query`](Device::relations_query) is given.
    RelationsQuery {
        /// Which devices are asked for.
        relation: Relation,
    }
    /// What [`usage_notification`](Device::usage_notification) is given.
    UsageNotification {
        /// The file that it is about.
        file: SpecialFile,
        /// Whether the device is on the path to it from now on.
        path: FilePath,
    }
    /// What [`arm_wake_from_s0`](Device::arm_wake_from_s0) is given.
    ArmWakeFromS0 {}
    /// What [`disarm_wake_from_s0`](Device::disarm_wake_from_s0) is given.
    DisarmWakeFromS0 {}
    /// What [`wake_from_s0_triggered`](Device::wake_from_s0_triggered) is given.
    WakeFromS0Triggered {}
    /// What [`arm_wake_from_sx`](Device::arm_wake_from_sx) is given.
    ArmWakeFromSx {
        /// Why the device is armed.
        reason: WakeReason,
    }
    /// What [`disarm_wake_from_sx`](Device::disarm_wake_from_sx) is given.
    DisarmWakeFromSx {}
    /// What [`wake_from_sx_triggered`](Device::wake_from_sx_triggered) is given.
    WakeFromSxTriggered {}
}

impl PrepareHardware<'_> {
    /// The device that is told.
    pub(crate) const fn device(&self) -> sys::WDFDEVICE {
        self.resources.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_state_that_kmdf_may_add_is_invalid() {
        assert_eq!(PowerState::from_raw(4), PowerState::D3);
        assert_eq!(PowerState::from_raw(99), PowerState::Invalid);
    }
}
