// SPDX-License-Identifier: MIT OR Apache-2.0

//! The framework's objects in a driver: locks, memory, collections, timers, DPCs, interrupts, power policy.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use dmf::prelude::*;
use dmf::unicode_string;
use dmf::wdf::{
    Claim, Collection, Context, DeviceInit, Dpc, DpcRun, Driver, IdleSettings, InD0, Interrupt,
    InterruptConfig, InterruptDpc, Isr, Lookaside, Memory, Object, PowerPolicy, Precision, Queued,
    Resource, Timer, TimerConfig, TimerFired, WaitForD0, WaitLock,
};
use ntsim::machine::{Hardware, Raised};
use ntsim::trace::Event as Traced;
use probe::Probe;

type Body = Box<dyn FnOnce(&mut Irql<'_, Passive>)>;

thread_local! {
    /// What the driver of a test does in its first D0; each test has a thread of its own.
    static BODY: RefCell<Option<Body>> = RefCell::default();
}

dmf::driver!(Bench);

/// A driver that runs the test's code once it is started.
struct Bench;

impl Device for Bench {
    fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Bench)
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        if let Some(body) = BODY.take() {
            body(cx.irql());
        }
        Ok(())
    }
}

/// Runs `body` in a driver, and removes it: whatever is left behind is found.
fn in_driver(body: impl Fn(&mut Irql<'_, Passive>) + Clone + 'static) {
    for seed in 0..4 {
        BODY.set(Some(Box::new(body.clone())));
        let mut probe = Probe::started(Bench::DRIVER_ENTRY, seed);
        assert!(BODY.take().is_none(), "the body did not run");
        probe.remove();
    }
}

// ---- objects and their contexts ------------------------------------------

static CLEANED: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU32 = AtomicU32::new(0);

struct Counted(u32);

impl Context for Counted {
    fn cleanup(&self) {
        CLEANED.fetch_add(self.0, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.fetch_add(self.0, Ordering::Relaxed);
    }
}

#[test]
fn an_objects_value_is_cleaned_up_and_dropped_once_with_the_last_owner() {
    in_driver(|_| {
        CLEANED.store(0, Ordering::Relaxed);
        DROPPED.store(0, Ordering::Relaxed);
        let object = Object::new(|| Ok(Counted(1))).unwrap();
        let again = object.clone();
        assert_eq!(object.as_raw(), again.as_raw());
        drop(object);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
        // SAFETY: just given up.
        let again = unsafe { Object::<Counted>::from_raw(again.into_raw()) };
        assert_eq!(again.0, 1);
        drop(again);
        assert_eq!(CLEANED.load(Ordering::Relaxed), 1);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 1);
    });
}

struct Number(u32);
impl Context for Number {}

#[test]
fn a_value_that_cannot_be_made_leaves_no_object() {
    in_driver(|_| {
        let made: Result<Object<Number>> = Object::new(|| Err(NtStatus::CANCELLED));
        assert_eq!(made.err(), Some(NtStatus::CANCELLED));
    });
}

#[test]
fn a_collection_owns_its_objects_with_others() {
    in_driver(|_| {
        let mut collection = Collection::new().unwrap();
        assert!(collection.is_empty());
        for number in 0..3 {
            collection
                .push(Object::new(|| Ok(Number(number))).unwrap())
                .unwrap();
        }
        assert_eq!(collection.len(), 3);
        let second = collection.get(1).unwrap();
        assert!(collection.get(3).is_none());
        assert_eq!(collection.remove(1).map(|object| object.0), Some(1));
        assert!(collection.remove(2).is_none());
        drop(collection);
        assert_eq!(second.0, 1);
    });
}

// ---- memory --------------------------------------------------------------

#[test]
fn memory_is_zeroed_and_as_long_as_asked_for() {
    in_driver(|_| {
        let mut memory = Memory::new(24).unwrap();
        assert_eq!(*memory, [0; 24]);
        memory[23] = 1;
        // SAFETY: just given up.
        let memory = unsafe { Memory::from_raw(memory.into_raw()) };
        assert_eq!(memory.len(), 24);
        assert_eq!(memory.iter().sum::<u8>(), 1);
        assert_eq!(Memory::new(0).err(), Some(NtStatus::INVALID_PARAMETER));
    });
}

#[test]
fn a_buffer_outlives_its_lookaside_list() {
    in_driver(|_| {
        let list = Lookaside::new(64).unwrap();
        let mut first = list.take().unwrap();
        let second = list.take().unwrap();
        drop(list);
        first.fill(7);
        assert_eq!(*second, [0; 64]);
        assert_eq!(Lookaside::new(0).err(), Some(NtStatus::INVALID_PARAMETER));
    });
}

// ---- locks ---------------------------------------------------------------

#[test]
fn a_spin_lock_gives_its_value_to_one_at_a_time() {
    in_driver(|irql| {
        let mut lock = dmf::wdf::SpinLock::new(1).unwrap();
        lock.lock(irql, |value, _| *value += 1);
        lock.with(|value| *value += 1);
        assert_eq!(*lock.get_mut(), 3);
    });
}

#[test]
fn a_wait_lock_that_is_held_times_out() {
    in_driver(|irql| {
        let lock = dmf::pool::Arc::new(WaitLock::new(0).unwrap()).unwrap();
        let held =
            dmf::pool::Arc::new(dmf::sync::Event::new(dmf::sync::EventKind::Notification).unwrap())
                .unwrap();
        let (theirs, told) = (lock.clone(), held.clone());
        let thread = Thread::spawn(irql, move |cx| {
            theirs.lock(cx, |_| {
                let _ = told.set();
                dmf::sync::delay(cx, Duration::from_secs(1));
            });
        })
        .unwrap();
        let _ = held.wait(irql, Timeout::Never);
        assert!(
            lock.lock_for(irql, Duration::from_millis(100), |_| ())
                .is_none()
        );
        assert!(lock.lock_for(irql, Timeout::Poll, |_| ()).is_none());
        lock.lock(irql, |value| *value += 1);
        thread.join(irql);
        assert_eq!(lock.lock_for(irql, Timeout::Poll, |value| *value), Some(1));
    });
}

// ---- the driver ----------------------------------------------------------

#[test]
fn the_framework_tells_its_version() {
    in_driver(|irql| {
        let version = Driver::get().version(irql).unwrap();
        let text = format!("{}", version.text(irql));
        assert!(text.contains("1.33"), "{text}");
        assert!(Driver::get().is_version_available(irql, 1, 33));
        assert!(!Driver::get().is_version_available(irql, 9, 0));
    });
}

// ---- timers and DPCs -----------------------------------------------------

dmf::driver!(Ticker);

struct Ticker {
    tick: Timer,
    exact: Timer,
    later: Dpc,
}

static TICKS: AtomicU32 = AtomicU32::new(0);
static EXACT: AtomicU32 = AtomicU32::new(0);
static DPCS: AtomicU32 = AtomicU32::new(0);

impl Device for Ticker {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let periodic = TimerConfig::dispatch()
            .periodic(Duration::from_millis(100))
            .precision(Precision::Tolerable(Duration::from_millis(5)));
        let exact = TimerConfig::passive().precision(Precision::HighResolution);
        Ok(Ticker {
            tick: Timer::with_config(
                add,
                periodic,
                |this: &Self, _: &mut TimerFired<'_, Dispatch>| {
                    TICKS.fetch_add(1, Ordering::Relaxed);
                    let _ = this.later.enqueue();
                },
            )?,
            exact: Timer::with_config(add, exact, |_: &Self, _: &mut TimerFired<'_>| {
                EXACT.fetch_add(1, Ordering::Relaxed);
            })?,
            later: Dpc::new(add, |_: &Self, _: &mut DpcRun<'_>| {
                DPCS.fetch_add(1, Ordering::Relaxed);
            })?,
        })
    }

    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        init.exclusive().name(unicode_string!(r"\Device\Ticker"))
    }

    fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
        self.tick.start(Duration::from_millis(100))?;
        self.exact.start(Duration::from_millis(1))
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        let _ = self.tick.stop_and_wait(cx.irql());
        let _ = self.later.cancel_and_wait(cx.irql());
    }
}

#[test]
fn a_periodic_timer_fires_until_it_is_stopped() {
    let mut probe = Probe::started(Ticker::DRIVER_ENTRY, 1);
    probe.run_for(Duration::from_millis(1_050));
    let ticks = TICKS.load(Ordering::Relaxed);
    assert!((8..=10).contains(&ticks), "{ticks}");
    assert_eq!(EXACT.load(Ordering::Relaxed), 1);
    assert_eq!(DPCS.load(Ordering::Relaxed), ticks);
    probe.power_down();
    probe.run_for(Duration::from_secs(1));
    assert_eq!(TICKS.load(Ordering::Relaxed), ticks);
    probe.remove();
}
