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

// ---- interrupts and resources --------------------------------------------

dmf::driver!(Card);

/// What the ISR counts, and what it was told.
#[derive(Default)]
struct CardState {
    raised: u32,
    enabled: bool,
}

struct Card {
    line: Interrupt<CardState>,
    served: SpinLock<u32>,
}

thread_local! {
    static CARD: RefCell<(Vec<Resource>, u32)> = RefCell::default();
}

impl Device for Card {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let config = InterruptConfig::new(Card::isr)
            .dpc(Card::dpc)
            .enable(|cx| {
                cx.state().enabled = true;
                Ok(())
            })
            .disable(|cx| {
                cx.state().enabled = false;
                Ok(())
            });
        Ok(Card {
            line: Interrupt::new(add, config, CardState::default())?,
            served: SpinLock::new(0),
        })
    }

    fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
        let found = cx
            .assigned()
            .iter()
            .map(|assigned| assigned.translated)
            .collect();
        CARD.with_borrow_mut(|card| card.0 = found);
        // The state is there before the interrupt is connected, too.
        assert!(!self.line.with(|state| state.enabled));
        Ok(())
    }

    fn self_managed_io_init(&self, _cx: &mut SelfManagedIoInit<'_>) -> Result {
        assert!(self.line.with(|state| state.enabled));
        Ok(())
    }

    fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
        assert!(!self.line.with(|state| state.enabled));
        let served = self.served.with(|served| *served);
        CARD.with_borrow_mut(|card| card.1 = served);
    }
}

impl Card {
    fn isr(cx: &mut Isr<'_, CardState>) -> Claim {
        assert!(cx.state().enabled);
        cx.state().raised += 1;
        let _: Queued = cx.queue_dpc();
        Claim::Mine
    }

    fn dpc(&self, cx: &mut InterruptDpc<'_>) {
        let raised = self.line.with(|state| std::mem::take(&mut state.raised));
        self.served.lock(cx.irql(), |served, _| *served += raised);
    }
}

#[test]
fn every_interrupt_is_served_under_any_schedule() {
    for seed in 0..64 {
        let mut probe = Probe::new(Card::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        probe.machine.set_hardware(
            &device,
            Hardware::new()
                .memory(0xFEB0_0000, 0x1000)
                .port(0x3F8, 8)
                .interrupt(),
        );
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        CARD.with_borrow(|card| {
            assert!(matches!(
                card.0[..],
                [
                    Resource::Memory {
                        start: 0xFEB0_0000,
                        length: 0x1000,
                        ..
                    },
                    Resource::Port {
                        start: 0x3F8,
                        length: 8,
                        ..
                    },
                    Resource::Interrupt { .. }
                ]
            ));
        });
        for _ in 0..10 {
            assert_eq!(
                probe.machine.raise_interrupt(&device, 0).unwrap(),
                Raised::Delivered
            );
        }
        assert_eq!(
            probe.machine.raise_interrupt(&device, 1).unwrap(),
            Raised::Unconnected
        );
        probe.run_for(Duration::from_millis(1));
        probe.remove();
        CARD.with_borrow(|card| assert_eq!(card.1, 10, "seed {seed}"));
    }
}

/// The framework's callbacks in the order of their calls.
fn callbacks(probe: &Probe) -> Vec<&'static str> {
    let of_interest = |name: &&'static str| {
        ["Interrupt", "D0", "Wake", "SelfManagedIo"]
            .iter()
            .any(|part| name.contains(part))
    };
    let names = probe
        .machine
        .trace()
        .iter()
        .filter_map(|line| match line.what {
            Traced::Callback { name, .. } => Some(name),
            _ => None,
        });
    names.filter(of_interest).collect()
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/enabling-and-disabling-interrupts>
#[test]
fn interrupts_are_on_from_after_d0_entry_until_before_d0_exit() {
    let mut probe = Probe::new(Card::DRIVER_ENTRY, 5);
    let device = probe.device.clone();
    probe
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    probe.start().unwrap();
    probe.power_down();
    assert_eq!(
        callbacks(&probe),
        [
            "EvtDeviceD0Entry",
            "EvtInterruptEnable",
            "EvtDeviceD0EntryPostInterruptsEnabled",
            "EvtDeviceSelfManagedIoInit",
            "EvtDeviceSelfManagedIoSuspend",
            "EvtDeviceD0ExitPreInterruptsDisabled",
            "EvtInterruptDisable",
            "EvtDeviceD0Exit",
        ]
    );
    probe.remove();
}

/// ISRs run at the line's IRQL, which the trace shows.
#[test]
fn an_isr_runs_above_dispatch_level_and_its_dpc_at_it() {
    let mut probe = Probe::new(Card::DRIVER_ENTRY, 5);
    let device = probe.device.clone();
    probe
        .machine
        .set_hardware(&device, Hardware::new().interrupt());
    probe.start().unwrap();
    let _ = probe.machine.raise_interrupt(&device, 0).unwrap();
    probe.run_for(Duration::from_millis(1));
    let irql = |wanted| {
        let mut lines = probe.machine.trace().iter();
        lines.find_map(|line| match line.what {
            Traced::Callback { name, .. } if name == wanted => Some(line.irql),
            _ => None,
        })
    };
    assert_eq!(irql("EvtInterruptIsr"), Some(5));
    assert_eq!(irql("EvtInterruptDpc"), Some(2));
    assert_eq!(irql("EvtInterruptEnable"), Some(5));
    probe.remove();
}

#[test]
fn power_goes_down_amid_interrupts() {
    for seed in 0..64 {
        let mut probe = Probe::new(Card::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        probe
            .machine
            .set_hardware(&device, Hardware::new().interrupt());
        probe
            .start()
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for _ in 0..3 {
            let _ = probe.machine.raise_interrupt(&device, 0).unwrap();
        }
        probe.power_down();
        assert_eq!(
            probe.machine.raise_interrupt(&device, 0).unwrap(),
            Raised::Pending
        );
        probe.power_up();
        probe.run_for(Duration::from_millis(1));
        probe.remove();
        // At least the one that was pending; what came during the way down may have been.
        CARD.with_borrow(|card| assert!(card.1 >= 2, "seed {seed}: {}", card.1));
    }
}

// ---- power policy --------------------------------------------------------

dmf::driver!(Meter);

struct Meter {
    power: PowerPolicy,
    held: SpinLock<Option<InD0>>,
}

thread_local! {
    static METER: RefCell<Option<dmf::module::Owner<Meter>>> = RefCell::default();
}

impl Device for Meter {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        METER.set(Some(add.owner()));
        Ok(Meter {
            power: PowerPolicy::new(add),
            held: SpinLock::new(None),
        })
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        let idle = IdleSettings::can_wake().timeout(Duration::from_secs(10));
        self.power.assign_idle(cx.irql(), &idle)
    }
}

#[test]
fn an_idle_device_sleeps_and_wakes() {
    for seed in 0..16 {
        let mut probe = Probe::started(Meter::DRIVER_ENTRY, seed);
        let device = probe.device.clone();
        let meter = METER.take().unwrap();
        probe.run_for(Duration::from_secs(9));
        assert!(probe.machine.is_in_d0(&device).unwrap());
        probe.run_for(Duration::from_secs(2));
        assert!(!probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");

        // Somebody needs it, for a minute.
        let user = meter.clone();
        probe.thread(move |irql| {
            let meter = user.enter().unwrap();
            let in_d0 = meter.power.stop_idle(WaitForD0::Yes(irql)).unwrap();
            meter.held.with(|held| *held = Some(in_d0));
        });
        assert!(probe.machine.is_in_d0(&device).unwrap());
        probe.run_for(Duration::from_mins(1));
        assert!(probe.machine.is_in_d0(&device).unwrap());
        let user = meter.clone();
        probe.thread(move |_| {
            let held = user.enter().unwrap().held.with(Option::take);
            drop(held);
        });
        probe.run_for(Duration::from_secs(11));
        assert!(!probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");

        assert!(probe.machine.signal_wake(&device).unwrap());
        probe.run_for(Duration::from_secs(1));
        assert!(probe.machine.is_in_d0(&device).unwrap(), "seed {seed}");
        probe.thread(move |_| drop(meter));
        probe.remove();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_disarm_wake_from_s0>
#[test]
fn an_idle_device_is_armed_before_d0_exit_and_disarmed_after_d0_entry() {
    let mut probe = Probe::started(Meter::DRIVER_ENTRY, 9);
    let device = probe.device.clone();
    probe.run_for(Duration::from_secs(11));
    assert!(probe.machine.signal_wake(&device).unwrap());
    probe.run_for(Duration::from_secs(1));
    assert_eq!(
        callbacks(&probe)[3..],
        [
            "EvtDeviceSelfManagedIoSuspend",
            "EvtDeviceArmWakeFromS0",
            "EvtDeviceD0ExitPreInterruptsDisabled",
            "EvtDeviceD0Exit",
            "EvtDeviceD0Entry",
            "EvtDeviceD0EntryPostInterruptsEnabled",
            "EvtDeviceWakeFromS0Triggered",
            "EvtDeviceDisarmWakeFromS0",
            "EvtDeviceSelfManagedIoRestart",
        ]
    );
    drop(METER.take());
    probe.remove();
}

#[test]
fn a_reference_that_the_device_holds_goes_with_it() {
    let mut probe = Probe::started(Meter::DRIVER_ENTRY, 3);
    let meter = METER.take().unwrap();
    probe.thread(move |_| {
        let meter = meter.enter().unwrap();
        let in_d0 = meter.power.stop_idle(WaitForD0::No).unwrap();
        meter.held.with(|held| *held = Some(in_d0));
    });
    probe.remove();
}
