// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver whose device has two modules, one below the other, of any two open
//! policies; all three write down each hook that is called on them.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use dmf::device::{
    ArmWakeFromS0, ArmWakeFromSx, AssignResources, D0EntryPostInterruptsEnabled,
    D0ExitPreInterruptsDisabled, DisarmWakeFromS0, DisarmWakeFromSx, QueryRemove, QueryStop,
    RelationsQuery, SelfManagedIoCleanup, SelfManagedIoFlush, SelfManagedIoInit,
    SelfManagedIoRestart, SelfManagedIoSuspend, SpecialFile, SurpriseRemoval, UsageNotification,
    WakeFromS0Triggered, WakeFromSxTriggered,
};
use dmf::module::{
    Close, Create, Instance, Link, ModuleConfig, Open, OpenPolicy, Register, Unregister,
};
use dmf::prelude::*;
use dmf::wdf::{IdleSettings, PowerPolicy, Timer, TimerFired, WakeSettings};

dmf::driver!(Hooks);

/// All policies, in the order of the enum.
pub const POLICIES: [OpenPolicy; 7] = [
    OpenPolicy::Create,
    OpenPolicy::PrepareHardware,
    OpenPolicy::D0EntrySystemPowerUp,
    OpenPolicy::D0Entry,
    OpenPolicy::NotifyPrepareHardware,
    OpenPolicy::NotifyD0Entry,
    OpenPolicy::NotifyCreate,
];

thread_local! {
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The entry of the journal at which the one who makes it is to fail.
    static FAIL_AT: RefCell<Option<String>> = const { RefCell::new(None) };
    /// The policies of the outer and the inner module, by their place above.
    static CHOSEN: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    static IDLES: Cell<bool> = const { Cell::new(false) };
    /// How long each hook takes.
    static PACE: Cell<Option<Duration>> = const { Cell::new(None) };
    static RUNNING: Cell<u32> = const { Cell::new(0) };
    static OVERLAPS: Cell<u32> = const { Cell::new(0) };
}

/// The open policies of the modules of devices that are added from now on.
pub fn choose(outer: usize, inner: usize) {
    CHOSEN.set((outer, inner));
}

/// Devices idle, and wake themselves and the system.
pub fn let_idle() {
    IDLES.set(true);
}

/// Each hook takes a while, so that others can come in between.
pub fn slow_down(pace: Duration) {
    PACE.set(Some(pace));
}

/// How many hooks began while another one was running.
pub fn overlaps() -> u32 {
    OVERLAPS.take()
}

pub fn fail_at(entry: Option<&str>) {
    FAIL_AT.set(entry.map(str::to_owned));
}

pub fn journal() -> Vec<String> {
    JOURNAL.take()
}

fn note(who: &str, what: &str) -> Result {
    let entry = format!("{who} {what}");
    let fails = FAIL_AT.with_borrow(|at| at.as_ref() == Some(&entry));
    JOURNAL.with_borrow_mut(|journal| journal.push(entry));
    if fails {
        Err(NtStatus::DEVICE_DATA_ERROR)
    } else {
        Ok(())
    }
}

/// As above, for a hook, at whose level one may wait.
fn hook(who: &str, what: &str, irql: &mut Irql<'_, Passive>) -> Result {
    let result = note(who, what);
    if let Some(pace) = PACE.get() {
        OVERLAPS.set(OVERLAPS.get() + u32::from(RUNNING.replace(RUNNING.get() + 1) > 0));
        dmf::sync::delay(irql, pace);
        RUNNING.set(RUNNING.get() - 1);
    }
    result
}

macro_rules! hooks {
    ($who:expr) => {
        fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
            let what = format!("prepare {}", cx.assigned().len());
            hook($who(self), &what, cx.irql())
        }
        fn release_hardware(&self, cx: &mut ReleaseHardware<'_>) {
            let _ = hook($who(self), "release", cx.irql());
        }
        fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
            let what = format!("d0 entry {}", cx.previous_state());
            hook($who(self), &what, cx.irql())
        }
        fn d0_exit(&self, cx: &mut D0Exit<'_>) {
            let what = format!("d0 exit {}", cx.target_state());
            let _ = hook($who(self), &what, cx.irql());
        }
        fn d0_entry_post_interrupts_enabled(
            &self,
            cx: &mut D0EntryPostInterruptsEnabled<'_>,
        ) -> Result {
            hook($who(self), "interrupts enabled", cx.irql())
        }
        fn d0_exit_pre_interrupts_disabled(&self, cx: &mut D0ExitPreInterruptsDisabled<'_>) {
            let _ = hook($who(self), "interrupts disabled", cx.irql());
        }
        fn self_managed_io_restart(&self, cx: &mut SelfManagedIoRestart<'_>) -> Result {
            hook($who(self), "io restart", cx.irql())
        }
        fn self_managed_io_suspend(&self, cx: &mut SelfManagedIoSuspend<'_>) {
            let _ = hook($who(self), "io suspend", cx.irql());
        }
        fn self_managed_io_flush(&self, cx: &mut SelfManagedIoFlush<'_>) {
            let _ = hook($who(self), "io flush", cx.irql());
        }
        fn self_managed_io_cleanup(&self, cx: &mut SelfManagedIoCleanup<'_>) {
            let _ = hook($who(self), "io cleanup", cx.irql());
        }
        fn surprise_removal(&self, cx: &mut SurpriseRemoval<'_>) {
            let _ = hook($who(self), "surprise", cx.irql());
        }
        fn query_remove(&self, cx: &mut QueryRemove<'_>) -> Result {
            hook($who(self), "query remove", cx.irql())
        }
        fn query_stop(&self, cx: &mut QueryStop<'_>) -> Result {
            hook($who(self), "query stop", cx.irql())
        }
        fn relations_query(&self, cx: &mut RelationsQuery<'_>) {
            let what = format!("relations {:?}", cx.relation());
            let _ = hook($who(self), &what, cx.irql());
        }
        fn usage_notification(&self, cx: &mut UsageNotification<'_>) -> Result {
            let what = format!("usage {:?} {:?}", cx.file(), cx.path());
            hook($who(self), &what, cx.irql())
        }
        fn arm_wake_from_s0(&self, cx: &mut ArmWakeFromS0<'_>) -> Result {
            hook($who(self), "arm s0", cx.irql())
        }
        fn disarm_wake_from_s0(&self, cx: &mut DisarmWakeFromS0<'_>) {
            let _ = hook($who(self), "disarm s0", cx.irql());
        }
        fn wake_from_s0_triggered(&self, cx: &mut WakeFromS0Triggered<'_>) {
            let _ = hook($who(self), "woke s0", cx.irql());
        }
        fn arm_wake_from_sx(&self, cx: &mut ArmWakeFromSx<'_>) -> Result {
            let reason = cx.reason();
            let what = format!(
                "arm sx {} {}",
                reason.device_wakes(),
                reason.children_wake()
            );
            hook($who(self), &what, cx.irql())
        }
        fn disarm_wake_from_sx(&self, cx: &mut DisarmWakeFromSx<'_>) {
            let _ = hook($who(self), "disarm sx", cx.irql());
        }
        fn wake_from_sx_triggered(&self, cx: &mut WakeFromSxTriggered<'_>) {
            let _ = hook($who(self), "woke sx", cx.irql());
        }
    };
}

pub struct Hooks {
    power: PowerPolicy,
}

impl Hooks {
    #[expect(clippy::unused_self, reason = "called as a module's name is")]
    const fn name(&self) -> &'static str {
        "device"
    }
}

impl Device for Hooks {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        macro_rules! add {
            ($($outer:literal)*) => {
                match CHOSEN.get().0 {
                    $($outer => add.module(OuterConfig::<$outer>).map(drop)?,)*
                    _ => unreachable!(),
                }
            };
        }
        add.support_special_file(SpecialFile::Paging)?;
        add.support_special_file(SpecialFile::Hibernation)?;
        add!(0 1 2 3 4 5 6);
        Ok(Hooks {
            power: PowerPolicy::new(add),
        })
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        hook("device", "io init", cx.irql())?;
        if IDLES.get() {
            let idle = IdleSettings::can_wake().timeout(Duration::from_secs(1));
            self.power.assign_idle(cx.irql(), &idle)?;
            self.power.assign_wake(cx.irql(), &WakeSettings::new())?;
        }
        Ok(())
    }

    hooks!(Self::name);
}

macro_rules! module {
    ($name:literal, $module:ident, $state:ident, $config:ident, |$cx:ident| $children:expr) => {
        #[derive(Clone)]
        pub struct $module<const P: usize>(Link<$state<P>>);

        /// `P` is the place of the policy.
        pub struct $state<const P: usize> {
            is_open: AtomicBool,
            timer: Timer,
        }

        pub struct $config<const P: usize>;

        impl<const P: usize> Module for $module<P> {
            type Instance = $state<P>;
            fn over(instance: Link<$state<P>>) -> Self {
                $module(instance)
            }
        }

        impl<const P: usize, O> ModuleConfig<O> for $config<P> {
            type Module = $module<P>;
            fn create(self, $cx: &mut Create<'_, O, $state<P>>) -> Result<$state<P>> {
                $children
                Ok($state {
                    is_open: AtomicBool::new(false),
                    timer: $cx.timer($state::tick)?,
                })
            }
        }

        impl<const P: usize> $state<P> {
            fn tick(&self, _: &mut TimerFired<'_>) {}
            const fn name(&self) -> &'static str {
                $name
            }
        }

        impl<const P: usize> Drop for $state<P> {
            fn drop(&mut self) {
                assert!(!self.is_open.load(Relaxed), "dropped while open");
                let _ = note($name, "drop");
            }
        }

        impl<const P: usize> Instance for $state<P> {
            const OPEN: OpenPolicy = POLICIES[P];

            fn open(&self, _cx: &mut Open<'_>) -> Result {
                note($name, "open")?;
                self.timer.start(Duration::from_millis(1))?;
                assert!(!self.is_open.swap(true, Relaxed), "opened twice");
                Ok(())
            }
            fn close(&self, cx: &mut Close<'_>) {
                assert!(self.is_open.swap(false, Relaxed), "closed twice");
                let _ = self.timer.stop_and_wait(cx.irql());
                let _ = note($name, "close");
            }
            /// Opens at once: that may come before this function returns.
            fn register(&self, cx: &mut Register<'_>) -> Result {
                note($name, "register")?;
                let opener = cx.opener();
                opener.open(cx.irql())
            }
            fn unregister(&self, _cx: &mut Unregister<'_>) {
                let _ = note($name, "unregister");
            }
            fn assign_resources(&self, _cx: &mut AssignResources<'_>) -> Result {
                note($name, "assign")
            }
            fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
                hook($name, "io init", cx.irql())
            }

            hooks!(Self::name);
        }
    };
}

module!("inner", Inner, InnerState, InnerConfig, |cx| {});
module!("outer", Outer, OuterState, OuterConfig, |cx| {
    macro_rules! add {
        ($($inner:literal)*) => {
            match CHOSEN.get().1 {
                $($inner => cx.module(InnerConfig::<$inner>).map(drop)?,)*
                _ => unreachable!(),
            }
        };
    }
    add!(0 1 2 3 4 5 6);
});
