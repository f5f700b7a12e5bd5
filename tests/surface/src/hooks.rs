// SPDX-License-Identifier: MIT OR Apache-2.0

//! Each PnP and power callback, as methods that tell who was called.

/// The methods, for the device or a module. `$who` names it.
macro_rules! hooks {
    ($who:expr) => {
        fn release_hardware(&self, _: &mut dmf::device::ReleaseHardware<'_>) {
            dmf::println!("{}: release", $who);
        }
        fn d0_entry_post_interrupts_enabled(
            &self,
            cx: &mut dmf::device::D0EntryPostInterruptsEnabled<'_>,
        ) -> Result {
            dmf::println!("{}: interrupts on, {}", $who, cx.previous_state());
            Ok(())
        }
        fn d0_exit_pre_interrupts_disabled(
            &self,
            cx: &mut dmf::device::D0ExitPreInterruptsDisabled<'_>,
        ) {
            dmf::println!("{}: interrupts off, {}", $who, cx.target_state());
        }
        fn d0_exit(&self, cx: &mut dmf::device::D0Exit<'_>) {
            dmf::println!("{}: to {}", $who, cx.target_state());
        }
        fn self_managed_io_restart(&self, _: &mut dmf::device::SelfManagedIoRestart<'_>) -> Result {
            dmf::println!("{}: io restart", $who);
            Ok(())
        }
        fn self_managed_io_suspend(&self, _: &mut dmf::device::SelfManagedIoSuspend<'_>) {
            dmf::println!("{}: io suspend", $who);
        }
        fn self_managed_io_flush(&self, _: &mut dmf::device::SelfManagedIoFlush<'_>) {
            dmf::println!("{}: io flush", $who);
        }
        fn self_managed_io_cleanup(&self, _: &mut dmf::device::SelfManagedIoCleanup<'_>) {
            dmf::println!("{}: io cleanup", $who);
        }
        fn query_remove(&self, _: &mut dmf::device::QueryRemove<'_>) -> Result {
            dmf::println!("{}: query remove", $who);
            Ok(())
        }
        fn query_stop(&self, _: &mut dmf::device::QueryStop<'_>) -> Result {
            dmf::println!("{}: query stop", $who);
            Ok(())
        }
        fn relations_query(&self, cx: &mut dmf::device::RelationsQuery<'_>) {
            dmf::println!("{}: relations {:?}", $who, cx.relation());
        }
        fn usage_notification(&self, cx: &mut dmf::device::UsageNotification<'_>) -> Result {
            dmf::println!("{}: usage {:?} {:?}", $who, cx.file(), cx.path());
            Ok(())
        }
        fn arm_wake_from_s0(&self, _: &mut dmf::device::ArmWakeFromS0<'_>) -> Result {
            dmf::println!("{}: arm s0", $who);
            Ok(())
        }
        fn disarm_wake_from_s0(&self, _: &mut dmf::device::DisarmWakeFromS0<'_>) {
            dmf::println!("{}: disarm s0", $who);
        }
        fn wake_from_s0_triggered(&self, _: &mut dmf::device::WakeFromS0Triggered<'_>) {
            dmf::println!("{}: woke s0", $who);
        }
        fn arm_wake_from_sx(&self, cx: &mut dmf::device::ArmWakeFromSx<'_>) -> Result {
            let reason = cx.reason();
            dmf::println!("{}: arm sx {}", $who, reason.device_wakes());
            Ok(())
        }
        fn disarm_wake_from_sx(&self, _: &mut dmf::device::DisarmWakeFromSx<'_>) {
            dmf::println!("{}: disarm sx", $who);
        }
        fn wake_from_sx_triggered(&self, _: &mut dmf::device::WakeFromSxTriggered<'_>) {
            dmf::println!("{}: woke sx", $who);
        }
    };
}
pub(crate) use hooks;
