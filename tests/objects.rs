// SPDX-License-Identifier: MIT OR Apache-2.0

//! The framework's objects in a driver: values in them, memory, collections,
//! timers, work items, DPCs.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering};

use dmf::prelude::*;
use dmf::registry::{Access, Key};
use dmf::unicode_string;
use dmf::wdf::{
    Cancelled, Collection, Context, DefaultQueue, DeviceInit, Dpc, DpcRun, Driver, Guid,
    KmdfObject, Lookaside, Memory, Object, Offer, Precision, QueueCallback, Queued, Request, Timer,
    TimerConfig, TimerFired, WaitLock, WdfString, WorkItem, WorkItemRun, Write,
};
use ntsim::StopKind;
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
        self.exact.start(Duration::from_millis(1)).map(drop)
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

// ---- values on any object --------------------------------------------------

/// Counts what becomes of it.
struct Tracked {
    number: u32,
    told: std::rc::Rc<std::cell::Cell<(u32, u32)>>,
}

// SAFETY: the simulation is one thread.
unsafe impl Send for Tracked {}
// SAFETY: as above.
unsafe impl Sync for Tracked {}

impl Context for Tracked {
    fn cleanup(&self) {
        let (cleaned, dropped) = self.told.get();
        assert_eq!(dropped, 0, "cleanup comes before drop");
        self.told.set((cleaned + 1, dropped));
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let (cleaned, dropped) = self.told.get();
        self.told.set((cleaned, dropped + 1));
    }
}

/// Attaches to `object`, deletes it, and looks.
fn carries<O: KmdfObject>(object: O) {
    let told = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
    assert!(object.attached::<Tracked>().is_none());
    let theirs = told.clone();
    let tracked = object
        .attach(move || {
            Ok(Tracked {
                number: 7,
                told: theirs,
            })
        })
        .unwrap();
    assert_eq!(tracked.number, 7);
    object.attach(|| Ok(Number(8))).unwrap();
    assert_eq!(object.attached::<Tracked>().unwrap().number, 7);
    assert_eq!(object.attached::<Number>().unwrap().0, 8);
    assert_eq!(
        object.attach(|| Ok(Number(9))).err(),
        Some(NtStatus::OBJECT_NAME_COLLISION)
    );
    let failed: Result<&Other> = object.attach(|| Err(NtStatus::CANCELLED));
    assert_eq!(failed.err(), Some(NtStatus::CANCELLED));
    assert!(object.attached::<Other>().is_none());
    assert_eq!(told.get(), (0, 0));
    drop(object);
    assert_eq!(told.get(), (1, 1));
}

struct Other;
impl Context for Other {}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfobject/nf-wdfobject-wdfobjectallocatecontext>
#[test]
fn any_object_carries_values_until_it_is_destroyed() {
    in_driver(|irql| {
        carries(Object::new(|| Ok(Number(1))).unwrap());
        carries(Memory::new(8).unwrap());
        carries(Lookaside::new(8).unwrap());
        carries(Collection::<Number>::new().unwrap());
        carries(WdfString::new(irql, unicode_string!("x")).unwrap());
        carries(dmf::wdf::SpinLock::new(0).unwrap());
        carries(WaitLock::new(0).unwrap());
        carries(Key::parameters(irql, Access::Read).unwrap());
    });
}

#[test]
fn a_value_on_the_driver_goes_with_the_driver() {
    let told = std::rc::Rc::new(std::cell::Cell::new((0, 0)));
    let theirs = told.clone();
    BODY.set(Some(Box::new(move |_| {
        let attach = || {
            Ok(Tracked {
                number: 1,
                told: theirs,
            })
        };
        Driver::get().attach(attach).unwrap();
        assert_eq!(Driver::get().attached::<Tracked>().unwrap().number, 1);
    })));
    let mut probe = Probe::started(Bench::DRIVER_ENTRY, 1);
    probe.remove();
    assert_eq!(told.get(), (1, 1));
}

#[test]
fn handles_go_out_and_come_back() {
    in_driver(|irql| {
        let list = Lookaside::new(16).unwrap();
        // SAFETY: just given up, of the same size.
        let list = unsafe { Lookaside::from_raw(list.into_raw(), 16) };
        assert_eq!(list.take().unwrap().len(), 16);

        let mut numbers = Collection::new().unwrap();
        numbers
            .push(Object::new(|| Ok(Number(4))).unwrap())
            .unwrap();
        // SAFETY: just given up.
        let numbers = unsafe { Collection::<Number>::from_raw(numbers.into_raw()) };
        assert_eq!(numbers.get(0).unwrap().0, 4);

        let text = WdfString::new(irql, unicode_string!("abc")).unwrap();
        // SAFETY: just given up.
        let text = unsafe { WdfString::from_raw(text.into_raw()) };
        assert_eq!(text.text(irql).units(), dmf::utf16!("abc"));

        let (raw, value) = dmf::wdf::SpinLock::new(5).unwrap().into_parts();
        // SAFETY: just taken apart.
        let lock = unsafe { dmf::wdf::SpinLock::from_parts(raw, value) };
        assert_eq!(lock.with(|value| *value), 5);
        let (raw, value) = WaitLock::new(6).unwrap().into_parts();
        // SAFETY: just taken apart.
        let lock = unsafe { WaitLock::from_parts(raw, value) };
        assert_eq!(lock.lock(irql, |value| *value), 6);

        // SAFETY: this driver's own.
        let driver = unsafe { Driver::from_raw(Driver::get().as_raw()) };
        assert!(driver.is_version_available(irql, 1, 33));
    });
}

// ---- what calls its owner ----------------------------------------------------

dmf::driver!(Caller);

struct Caller {
    timer: Timer,
    work: WorkItem,
    dpc: Dpc,
    log: SpinLock<Vec<&'static str>>,
    stop_inside: std::sync::atomic::AtomicBool,
}

thread_local! {
    static CALLER: RefCell<Option<dmf::module::Owner<Caller>>> = RefCell::default();
}

impl Device for Caller {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        CALLER.set(Some(add.owner()));
        let too_long = TimerConfig::dispatch().periodic(Duration::from_secs(u64::from(u32::MAX)));
        assert_eq!(
            Timer::with_config(
                add,
                too_long,
                |_: &Self, _: &mut TimerFired<'_, Dispatch>| {}
            )
            .err(),
            Some(NtStatus::INVALID_PARAMETER)
        );
        let timer = add.timer(Caller::fired)?;
        assert_eq!(
            timer.start(Duration::ZERO),
            Err(NtStatus::INVALID_DEVICE_STATE)
        );
        // SAFETY: just given up.
        let timer = unsafe { Timer::from_raw(timer.into_raw()) };
        let work = add.work_item(Caller::work)?;
        // SAFETY: just given up.
        let work = unsafe { WorkItem::from_raw(work.into_raw()) };
        let dpc = Dpc::new(add, Caller::deferred)?;
        // SAFETY: just given up.
        let dpc = unsafe { Dpc::from_raw(dpc.into_raw()) };
        Ok(Caller {
            timer,
            work,
            dpc,
            log: SpinLock::new(Vec::new()),
            stop_inside: false.into(),
        })
    }
}

impl Caller {
    fn note(&self, what: &'static str) {
        self.log.with(|log| log.push(what));
    }

    fn fired(&self, cx: &mut TimerFired<'_>) {
        if self.stop_inside.load(Ordering::Relaxed) {
            let _ = self.timer.stop_and_wait(cx.irql());
        }
        self.note("timer");
    }

    fn work(&self, cx: &mut WorkItemRun<'_>) {
        if self.stop_inside.load(Ordering::Relaxed) {
            let _ = self.work.flush(cx.irql());
        }
        dmf::sync::delay(cx.irql(), Duration::from_millis(50));
        self.note("work");
    }

    fn deferred(&self, _cx: &mut DpcRun<'_>) {
        self.note("dpc");
    }
}

#[test]
fn what_is_queued_runs_once_and_is_waited_for() {
    for seed in 0..32 {
        let mut probe = Probe::started(Caller::DRIVER_ENTRY, seed);
        let caller = CALLER.take().unwrap();
        probe.thread(move |irql| {
            let this = caller.enter().unwrap();
            let take = || this.log.with(std::mem::take);
            this.work.enqueue().unwrap();
            this.work.enqueue().unwrap();
            this.work.flush(irql).unwrap();
            // Twice if a worker took it up in between.
            let ran = take();
            assert!(matches!(ran[..], ["work"] | ["work", "work"]), "{ran:?}");

            let start = |time| this.timer.start(time);
            assert_eq!(start(Duration::from_millis(100)), Ok(Queued::Now));
            assert_eq!(this.timer.stop(), Ok(Cancelled::BeforeItRan));
            assert_eq!(this.timer.stop(), Ok(Cancelled::NotQueued));
            dmf::sync::delay(irql, Duration::from_millis(200));
            assert_eq!(take(), [""; 0]);
            // A second start moves the due time.
            assert_eq!(start(Duration::from_secs(10)), Ok(Queued::Now));
            assert_eq!(start(Duration::from_millis(10)), Ok(Queued::Already));
            dmf::sync::delay(irql, Duration::from_millis(200));
            let stopped = this.timer.stop_and_wait(irql);
            assert_eq!(stopped, Ok(Cancelled::NotQueued));
            assert_eq!(take(), ["timer"]);

            assert_eq!(this.dpc.cancel(), Ok(Cancelled::NotQueued));
            let queued = this.dpc.enqueue().unwrap();
            assert_eq!(queued, Queued::Now);
            let cancelled = this.dpc.cancel().unwrap();
            this.dpc.cancel_and_wait(irql).unwrap();
            let ran = take();
            match cancelled {
                Cancelled::BeforeItRan => assert_eq!(ran, [""; 0]),
                Cancelled::NotQueued => assert_eq!(ran, ["dpc"]),
            }

            // A timer carries values, too: its object cannot be kept.
            this.timer
                .with_object(|timer| {
                    timer.attach(|| Ok(Number(3))).unwrap();
                    assert_eq!(timer.attached::<Number>().unwrap().0, 3);
                })
                .unwrap();
        });
        probe.remove();
    }
}

/// What a test's driver does that the framework's verifier stops at.
fn stopped_by(misuse: impl FnOnce(&Caller) + 'static) -> StopKind {
    let mut probe = Probe::started(Caller::DRIVER_ENTRY, 1);
    let caller = CALLER.take().unwrap();
    let result = probe.machine.run_thread("test", move || {
        let this = caller.enter().unwrap();
        this.stop_inside.store(true, Ordering::Relaxed);
        misuse(&this);
        drop(this);
        std::mem::forget(caller);
    });
    match result {
        Err(stop) => stop.kind,
        Ok(()) => {
            probe
                .machine
                .run_for(Duration::from_secs(1))
                .expect_err("the callback waits for itself")
                .kind
        }
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdftimer/nf-wdftimer-wdftimerstop>
#[test]
fn a_timer_that_its_own_callback_waits_for_is_stopped_by_the_verifier() {
    let stop = stopped_by(|this| {
        let _ = this.timer.start(Duration::ZERO);
    });
    assert!(matches!(stop, StopKind::BugCheck { .. }));
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfworkitem/nf-wdfworkitem-wdfworkitemflush>
#[test]
fn a_work_item_that_its_own_callback_flushes_is_stopped_by_the_verifier() {
    let stop = stopped_by(|this| this.work.enqueue().unwrap());
    assert!(matches!(stop, StopKind::BugCheck { .. }));
}

// ---- values on requests ------------------------------------------------------

dmf::driver!(Mailroom);

struct Mailroom;

const MAILROOM: Guid = Guid::parse("3d8f2f4e-6a6c-4a55-9a52-0d3a1f1f7c11");

thread_local! {
    static MAIL: std::rc::Rc<std::cell::Cell<(u32, u32)>> = std::rc::Rc::default();
}

impl Device for Mailroom {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(MAILROOM)?;
        Ok(Mailroom)
    }

    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        let told = MAIL.with(Clone::clone);
        request.attach(|| Ok(Tracked { number: 2, told })).unwrap();
        assert_eq!(request.attached::<Tracked>().unwrap().number, 2);
        assert_eq!(MAIL.with(|told| told.get()), (0, 0));
        request.complete(Ok(1));
        Offer::Handled
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-object-context-space>
#[test]
fn a_value_on_a_request_goes_when_the_request_is_completed() {
    let mut probe = Probe::started(Mailroom::DRIVER_ENTRY, 1);
    let file = probe.machine.open(&MAILROOM.to_string()).unwrap();
    let written = probe.machine.write(file, b"x").unwrap();
    assert_eq!(written.status, 0);
    assert_eq!(MAIL.with(|told| told.get()), (1, 1));
    probe.machine.close(file).unwrap();
    probe.remove();
}
