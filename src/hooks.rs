// SPDX-License-Identifier: MIT OR Apache-2.0

//! The PnP and power callbacks, in one place: what [`Device`](crate::Device)
//! and [`Instance`](crate::module::Instance) have as trait methods, and how
//! the dispatcher calls them.

use crate::device::PowerState;

/// One call of a function of the driver's or a module's author.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Open,
    Closing,
    Close,
    PrepareHardware,
    ReleaseHardware,
    D0Entry(PowerState),
    D0Exit(PowerState),
    SelfManagedIoInit,
    SelfManagedIoRestart,
    SelfManagedIoSuspend,
    SelfManagedIoFlush,
    SelfManagedIoCleanup,
    SurpriseRemoval,
}

/// The trait methods.
macro_rules! hooks {
    () => {
        /// Called when the device has its hardware resources, before it has power.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device does not start.
        ///
        /// C counterpart: [`EvtDevicePrepareHardware`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_prepare_hardware
        fn prepare_hardware(&self, cx: &mut $crate::device::PrepareHardware<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called when the hardware resources are about to be taken away. Undoes
        /// `prepare_hardware`, and is called only if that succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceReleaseHardware`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_release_hardware
        fn release_hardware(&self, cx: &mut $crate::device::ReleaseHardware<'_>) {
            let _ = cx;
        }

        /// Called each time the device has come to full power.
        ///
        /// Not pageable: the paging device may still be off.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device does not start.
        ///
        /// C counterpart: [`EvtDeviceD0Entry`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_d0_entry
        fn d0_entry(&self, cx: &mut $crate::device::D0Entry<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called each time the device is about to lose power. Undoes
        /// `d0_entry`, and is called only if that succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceD0Exit`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_d0_exit
        fn d0_exit(&self, cx: &mut $crate::device::D0Exit<'_>) {
            let _ = cx;
        }

        /// Called once, after the device has come to full power for the first time.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device does not start.
        ///
        /// C counterpart: [`EvtDeviceSelfManagedIoInit`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_self_managed_io_init
        fn self_managed_io_init(
            &self,
            cx: &mut $crate::device::SelfManagedIoInit<'_>,
        ) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called each further time the device has come to full power.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device does not restart.
        ///
        /// C counterpart: [`EvtDeviceSelfManagedIoRestart`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_self_managed_io_restart
        fn self_managed_io_restart(
            &self,
            cx: &mut $crate::device::SelfManagedIoRestart<'_>,
        ) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called before `d0_exit`, if `self_managed_io_init` or
        /// `self_managed_io_restart` succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceSelfManagedIoSuspend`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_self_managed_io_suspend
        fn self_managed_io_suspend(&self, cx: &mut $crate::device::SelfManagedIoSuspend<'_>) {
            let _ = cx;
        }

        /// Called when the device was removed, if `self_managed_io_init` succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceSelfManagedIoFlush`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_self_managed_io_flush
        fn self_managed_io_flush(&self, cx: &mut $crate::device::SelfManagedIoFlush<'_>) {
            let _ = cx;
        }

        /// Called once, after `self_managed_io_flush`.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceSelfManagedIoCleanup`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_self_managed_io_cleanup
        fn self_managed_io_cleanup(&self, cx: &mut $crate::device::SelfManagedIoCleanup<'_>) {
            let _ = cx;
        }

        /// Called when the device has vanished without warning. The down
        /// callbacks follow; it is the place to stop what would otherwise wait
        /// for the hardware.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceSurpriseRemoval`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_surprise_removal
        fn surprise_removal(&self, cx: &mut $crate::device::SurpriseRemoval<'_>) {
            let _ = cx;
        }
    };
}

/// Calls the trait method that goes with a hook.
///
/// The arms before `;` are those of the trait that `hooks!` does not have.
macro_rules! call_hook {
    ($this:expr, $hook:expr; $($own:pat => $action:expr),* $(,)?) => {{
        use $crate::device::{
            D0Entry, D0Exit, PrepareHardware, ReleaseHardware, SelfManagedIoCleanup,
            SelfManagedIoFlush, SelfManagedIoInit, SelfManagedIoRestart, SelfManagedIoSuspend,
            SurpriseRemoval,
        };
        use $crate::hooks::Hook;

        /// The context is made at the level that the dispatcher was called at.
        macro_rules! cx {
            ($context:ident $args:tt) => {
                // SAFETY: the dispatcher's callers are at PASSIVE_LEVEL.
                &mut unsafe { $context::new $args }
            };
        }

        let this = $this;
        match $hook {
            $($own => $action,)*
            Hook::PrepareHardware => this.prepare_hardware(cx!(PrepareHardware())),
            Hook::ReleaseHardware => {
                this.release_hardware(cx!(ReleaseHardware()));
                Ok(())
            }
            Hook::D0Entry(previous) => this.d0_entry(cx!(D0Entry(previous))),
            Hook::D0Exit(target) => {
                this.d0_exit(cx!(D0Exit(target)));
                Ok(())
            }
            Hook::SelfManagedIoInit => this.self_managed_io_init(cx!(SelfManagedIoInit())),
            Hook::SelfManagedIoRestart => {
                this.self_managed_io_restart(cx!(SelfManagedIoRestart()))
            }
            Hook::SelfManagedIoSuspend => {
                this.self_managed_io_suspend(cx!(SelfManagedIoSuspend()));
                Ok(())
            }
            Hook::SelfManagedIoFlush => {
                this.self_managed_io_flush(cx!(SelfManagedIoFlush()));
                Ok(())
            }
            Hook::SelfManagedIoCleanup => {
                this.self_managed_io_cleanup(cx!(SelfManagedIoCleanup()));
                Ok(())
            }
            Hook::SurpriseRemoval => {
                this.surprise_removal(cx!(SurpriseRemoval()));
                Ok(())
            }
        }
    }};
}
