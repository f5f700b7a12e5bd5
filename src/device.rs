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
//! `d0_exit` modules that are still up.
//!
//! A down callback is called exactly once for each up callback of the same kind
//! that returned `Ok`. If one fails, those that had succeeded are undone at
//! once, in reverse order, and KMDF is told the status. This differs from KMDF,
//! which calls ReleaseHardware after a PrepareHardware that failed.
//!
//! See [PnP and power management callback functions][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-pnp-and-power-management-in-your-driver

use core::fmt;

use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::status::Result;

/// A device that the driver drives: its modules, its state, its callbacks.
///
/// [`modules`](Self::modules) makes it; the other functions have defaults. One
/// value exists for each device, and it is dropped when the device is removed,
/// after its modules were closed.
///
/// Register the type with [`driver!`](crate::driver!).
pub trait Device: Sized + Send + Sync + 'static {
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
    pub(crate) fn from_raw(state: crate::sys::WDF_POWER_DEVICE_STATE) -> Self {
        use crate::sys::_WDF_POWER_DEVICE_STATE as Raw;
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

macro_rules! contexts {
    ($(
        $(#[$meta:meta])*
        $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name<'a> {
            irql: Irql<'a, Passive>,
            $($field: $ty,)*
        }

        impl<'a> $name<'a> {
            /// # Safety
            /// The level is `PASSIVE_LEVEL`.
            pub(crate) unsafe fn new($($field: $ty),*) -> Self {
                // SAFETY: the caller's promise.
                Self { irql: unsafe { Irql::assume() }, $($field),* }
            }

            /// The proof that the callback runs at `PASSIVE_LEVEL`.
            pub fn irql(&mut self) -> &mut Irql<'a, Passive> {
                &mut self.irql
            }

            $(
                $(#[$field_meta])*
                #[must_use]
                pub fn $field(&self) -> $ty {
                    self.$field
                }
            )*
        }
    )*};
}

contexts! {
    /// What [`prepare_hardware`](Device::prepare_hardware) is given.
    PrepareHardware {}
    /// What [`release_hardware`](Device::release_hardware) is given.
    ReleaseHardware {}
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
