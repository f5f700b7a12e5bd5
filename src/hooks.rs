// SPDX-License-Identifier: MIT OR Apache-2.0

//! The PnP and power callbacks, in one place: what [`Device`](crate::Device)
//! and [`Instance`](crate::module::Instance) have as trait methods, and how
//! the dispatcher calls them.

use crate::device::{FilePath, PowerState, Relation, Resources, SpecialFile, WakeReason};

/// One call of a function of the driver's or a module's author.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Open,
    Closing,
    Close,
    Register,
    Unregister,
    AssignResources(Resources),
    PrepareHardware(Resources),
    ReleaseHardware(Resources),
    D0Entry(PowerState),
    D0EntryPostInterruptsEnabled(PowerState),
    D0ExitPreInterruptsDisabled(PowerState),
    D0Exit(PowerState),
    SelfManagedIoInit,
    SelfManagedIoRestart,
    SelfManagedIoSuspend,
    SelfManagedIoFlush,
    SelfManagedIoCleanup,
    SurpriseRemoval,
    QueryRemove,
    QueryStop,
    RelationsQuery(Relation),
    UsageNotification(SpecialFile, FilePath),
    ArmWakeFromS0,
    DisarmWakeFromS0,
    WakeFromS0Triggered,
    ArmWakeFromSx(WakeReason),
    DisarmWakeFromSx,
    WakeFromSxTriggered,
}

/// What callbacks at `PASSIVE_LEVEL` are given: the proof of that, and facts.
macro_rules! contexts {
    ($(
        $(#[$meta:meta])*
        $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name<'a> {
            irql: $crate::irql::Irql<'a, $crate::irql::Passive>,
            $($field: $ty,)*
        }

        impl<'a> $name<'a> {
            /// # Safety
            /// The level is `PASSIVE_LEVEL` for `'a`.
            pub(crate) unsafe fn new($($field: $ty),*) -> Self {
                // SAFETY: the caller's promise.
                Self { irql: unsafe { $crate::irql::Irql::assume() }, $($field),* }
            }

            /// The proof that the callback runs at `PASSIVE_LEVEL`.
            pub fn irql(&mut self) -> &mut $crate::irql::Irql<'a, $crate::irql::Passive> {
                &mut self.irql
            }

            $(
                $(#[$field_meta])*
                #[must_use]
                pub const fn $field(&self) -> $ty {
                    self.$field
                }
            )*
        }
    )*};
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

        /// Called when the device has vanished without warning, or has failed. The
        /// down callbacks follow; it is the place to stop what would otherwise wait
        /// for the hardware. Not synchronized with the power callbacks: it may run
        /// beside one.
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

        /// Called after `d0_entry`, when the interrupts of the device are connected.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device does not start.
        ///
        /// C counterpart: [`EvtDeviceD0EntryPostInterruptsEnabled`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_d0_entry_post_interrupts_enabled
        fn d0_entry_post_interrupts_enabled(
            &self,
            cx: &mut $crate::device::D0EntryPostInterruptsEnabled<'_>,
        ) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called before `d0_exit`, while the interrupts of the device are still
        /// connected. Undoes `d0_entry_post_interrupts_enabled`, and is called only if
        /// that succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceD0ExitPreInterruptsDisabled`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_d0_exit_pre_interrupts_disabled
        fn d0_exit_pre_interrupts_disabled(
            &self,
            cx: &mut $crate::device::D0ExitPreInterruptsDisabled<'_>,
        ) {
            let _ = cx;
        }

        /// Called to ask whether the device may be removed. Not synchronized with
        /// the power callbacks.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: it may not. The others are not asked any more.
        ///
        /// C counterpart: [`EvtDeviceQueryRemove`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_query_remove
        fn query_remove(&self, cx: &mut $crate::device::QueryRemove<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called to ask whether the device may be stopped, to get other hardware
        /// resources. Not synchronized with the power callbacks.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: it may not. The others are not asked any more.
        ///
        /// C counterpart: [`EvtDeviceQueryStop`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_query_stop
        fn query_stop(&self, cx: &mut $crate::device::QueryStop<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called before the devices are told that have a relation to this one. Not
        /// synchronized with the other callbacks.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceRelationsQuery`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_relations_query
        fn relations_query(&self, cx: &mut $crate::device::RelationsQuery<'_>) {
            let _ = cx;
        }

        /// Called when the device becomes, or ceases to be, part of the path to a
        /// special file that it supports
        /// ([`support_special_file`](crate::Modules::support_special_file)). Not
        /// synchronized with the other callbacks.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device cannot be on such a path; those that had agreed are told
        /// that it is not. That it has left a path cannot be refused.
        ///
        /// C counterpart: [`EvtDeviceUsageNotificationEx`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_usage_notification_ex
        fn usage_notification(
            &self,
            cx: &mut $crate::device::UsageNotification<'_>,
        ) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called before the device goes to low power while the system works, to let
        /// it wake itself.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device is not armed, and stays in D0; what was armed is disarmed.
        ///
        /// C counterpart: [`EvtDeviceArmWakeFromS0`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_s0
        fn arm_wake_from_s0(&self, cx: &mut $crate::device::ArmWakeFromS0<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called when the device is back in D0. Undoes `arm_wake_from_s0`, and is
        /// called only if that succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceDisarmWakeFromS0`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_disarm_wake_from_s0
        fn disarm_wake_from_s0(&self, cx: &mut $crate::device::DisarmWakeFromS0<'_>) {
            let _ = cx;
        }

        /// Called when the device, asleep while the system works, has woken itself.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceWakeFromS0Triggered`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_wake_from_s0_triggered
        fn wake_from_s0_triggered(&self, cx: &mut $crate::device::WakeFromS0Triggered<'_>) {
            let _ = cx;
        }

        /// Called before the device goes to low power because the system goes to
        /// sleep, to let it wake the system.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// # Errors
        /// Any: the device is not armed; what was armed is disarmed.
        ///
        /// C counterpart: [`EvtDeviceArmWakeFromSxWithReason`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_arm_wake_from_sx_with_reason
        fn arm_wake_from_sx(&self, cx: &mut $crate::device::ArmWakeFromSx<'_>) -> $crate::Result {
            let _ = cx;
            Ok(())
        }

        /// Called when the device is back in D0. Undoes `arm_wake_from_sx`, and is
        /// called only if that succeeded.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceDisarmWakeFromSx`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_disarm_wake_from_sx
        fn disarm_wake_from_sx(&self, cx: &mut $crate::device::DisarmWakeFromSx<'_>) {
            let _ = cx;
        }

        /// Called when the device has woken the system.
        ///
        /// # IRQL
        /// `PASSIVE_LEVEL`
        ///
        /// C counterpart: [`EvtDeviceWakeFromSxTriggered`][ms].
        ///
        /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_wake_from_sx_triggered
        fn wake_from_sx_triggered(&self, cx: &mut $crate::device::WakeFromSxTriggered<'_>) {
            let _ = cx;
        }
    };
}

/// Calls the trait method that goes with a hook.
///
/// The arms before the table are those of the trait that `hooks!` does not have.
macro_rules! call_hook {
    ($this:expr, $hook:expr; $($own:pat => $action:expr),* $(,)?) => {{
        use $crate::device::{
            ArmWakeFromS0, ArmWakeFromSx, D0Entry, D0EntryPostInterruptsEnabled, D0Exit, D0ExitPreInterruptsDisabled, DisarmWakeFromS0, DisarmWakeFromSx, PrepareHardware, QueryRemove, QueryStop, RelationsQuery, ReleaseHardware, SelfManagedIoCleanup, SelfManagedIoFlush, SelfManagedIoInit, SelfManagedIoRestart, SelfManagedIoSuspend, SurpriseRemoval, UsageNotification, WakeFromS0Triggered, WakeFromSxTriggered,
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
            Hook::PrepareHardware(resources) => this.prepare_hardware(cx!(PrepareHardware(resources))),
            Hook::ReleaseHardware(resources) => {
                this.release_hardware(cx!(ReleaseHardware(resources)));
                Ok(())
            }
            Hook::D0Entry(previous) => this.d0_entry(cx!(D0Entry(previous))),
            Hook::D0EntryPostInterruptsEnabled(previous) => this.d0_entry_post_interrupts_enabled(cx!(D0EntryPostInterruptsEnabled(previous))),
            Hook::D0ExitPreInterruptsDisabled(target) => {
                this.d0_exit_pre_interrupts_disabled(cx!(D0ExitPreInterruptsDisabled(target)));
                Ok(())
            }
            Hook::D0Exit(target) => {
                this.d0_exit(cx!(D0Exit(target)));
                Ok(())
            }
            Hook::SelfManagedIoInit => this.self_managed_io_init(cx!(SelfManagedIoInit())),
            Hook::SelfManagedIoRestart => this.self_managed_io_restart(cx!(SelfManagedIoRestart())),
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
            Hook::QueryRemove => this.query_remove(cx!(QueryRemove())),
            Hook::QueryStop => this.query_stop(cx!(QueryStop())),
            Hook::RelationsQuery(relation) => {
                this.relations_query(cx!(RelationsQuery(relation)));
                Ok(())
            }
            Hook::UsageNotification(file, path) => this.usage_notification(cx!(UsageNotification(file, path))),
            Hook::ArmWakeFromS0 => this.arm_wake_from_s0(cx!(ArmWakeFromS0())),
            Hook::DisarmWakeFromS0 => {
                this.disarm_wake_from_s0(cx!(DisarmWakeFromS0()));
                Ok(())
            }
            Hook::WakeFromS0Triggered => {
                this.wake_from_s0_triggered(cx!(WakeFromS0Triggered()));
                Ok(())
            }
            Hook::ArmWakeFromSx(reason) => this.arm_wake_from_sx(cx!(ArmWakeFromSx(reason))),
            Hook::DisarmWakeFromSx => {
                this.disarm_wake_from_sx(cx!(DisarmWakeFromSx()));
                Ok(())
            }
            Hook::WakeFromSxTriggered => {
                this.wake_from_sx_triggered(cx!(WakeFromSxTriggered()));
                Ok(())
            }
        }
    }};
}
