// SPDX-License-Identifier: MIT OR Apache-2.0

//! What still runs when a device goes: a module's timer and work item, whose
//! callbacks call the module's owner. Neither the module nor the owner may be
//! dropped under them, whatever the schedule.

#[path = "support/probe.rs"]
mod probe;

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use dmf::module::{
    Callback, Create, Function, Instance, Link, Module, ModuleConfig, Running, Signature,
};
use dmf::prelude::*;
use dmf::wdf::{Timer, TimerFired, WorkItem, WorkItemRun};
use ntsim::trace::Event;
use probe::Probe;

thread_local! {
    static OWNERS: Cell<u32> = const { Cell::new(0) };
    static MODULES: Cell<u32> = const { Cell::new(0) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
    static CALLS_WHILE_GOING: Cell<u32> = const { Cell::new(0) };
    static GOING: Cell<bool> = const { Cell::new(false) };
}

/// A value that counts those that are there.
struct There(&'static std::thread::LocalKey<Cell<u32>>);

impl There {
    fn new(count: &'static std::thread::LocalKey<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Tick<'a>(&'a Irql<'a, Passive>);
enum OnTick {}
impl Signature for OnTick {
    type Arguments<'a> = Tick<'a>;
    type Output = ();
}

/// A module that does not stop what it has started.
#[derive(Clone)]
struct Ticker(#[allow(dead_code, reason = "keeps the instance")] Link<Ticking>);
struct Config(Function<Owning, OnTick>);
struct Ticking {
    timer: Timer,
    work_item: WorkItem,
    tick: Callback<OnTick>,
    _there: There,
}

impl Module for Ticker {
    type Instance = Ticking;
    fn over(instance: Link<Ticking>) -> Self {
        Self(instance)
    }
}

impl ModuleConfig<Owning> for Config {
    type Module = Ticker;
    fn create(self, cx: &mut Create<'_, Owning, Ticking>) -> Result<Ticking> {
        Ok(Ticking {
            timer: cx.timer(Ticking::on_timer)?,
            work_item: cx.work_item(Ticking::on_work)?,
            tick: cx.bind::<OnTick>(self.0),
            _there: There::new(&MODULES),
        })
    }
}

impl Instance for Ticking {
    fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
        self.timer.start(Duration::from_millis(1))?;
        self.work_item.enqueue()
    }
}

impl Ticking {
    fn on_timer(&self, cx: &mut TimerFired<'_>) {
        let running = cx.running();
        self.tick(cx.irql(), running);
        // What is stopped already it starts again.
        let _ = self.timer.start_within(running, Duration::from_millis(1));
        let _ = self.work_item.enqueue_within(running);
    }

    fn on_work(&self, cx: &mut WorkItemRun<'_>) {
        let running = cx.running();
        self.tick(cx.irql(), running);
        let _ = self.work_item.enqueue_within(running);
        let _ = self.timer.start_within(running, Duration::from_millis(1));
    }

    fn tick(&self, irql: &Irql<'_, Passive>, running: Running<'_>) {
        assert_eq!(MODULES.get(), 1);
        let _ = self.tick.call_within(running, &mut Tick(irql));
        assert_eq!(
            MODULES.get(),
            1,
            "the module was dropped under its callback"
        );
    }
}

struct Owning {
    timer: Timer,
    work_item: WorkItem,
    _ticker: Handle<Ticker>,
    _there: There,
}

impl Device for Owning {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Owning {
            timer: add.timer(Owning::on_timer)?,
            work_item: add.work_item(|_, _| ())?,
            _ticker: add.module(Config(Owning::ticked))?,
            _there: There::new(&OWNERS),
        })
    }

    fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
        self.timer.start(Duration::from_millis(1)).map(drop)
    }
}

impl Owning {
    fn on_timer(&self, cx: &mut TimerFired<'_>) {
        let running = cx.running();
        dmf::sync::delay(cx.irql(), Duration::from_micros(200));
        let _ = self.work_item.enqueue_within(running);
        let _ = self.timer.start_within(running, Duration::from_millis(1));
    }

    #[allow(
        clippy::unused_self,
        reason = "the module calls a function of its owner"
    )]
    fn ticked(&self, tick: &mut Tick<'_>) {
        CALLS.set(CALLS.get() + 1);
        assert_eq!(OWNERS.get(), 1, "an owner that is gone was called");
        dmf::sync::delay(tick.0, Duration::from_micros(200));
        assert_eq!(OWNERS.get(), 1, "the owner was dropped under its function");
        if GOING.get() {
            CALLS_WHILE_GOING.set(CALLS_WHILE_GOING.get() + 1);
        }
    }
}

dmf::driver!(Owning);

/// What a callback starts while it is waited for is stopped as well.
fn what_is_deleted_has_been_stopped(probe: &Probe) {
    let mut started = HashSet::new();
    for line in probe.machine.trace() {
        let (Event::Call { name, args, .. } | Event::Enter { name, args }) = &line.what else {
            continue;
        };
        let object = args.split([',', '=']).nth(1).unwrap_or_default();
        match *name {
            "WdfTimerStart" | "WdfWorkItemEnqueue" => _ = started.insert(object),
            "WdfTimerStop" | "WdfWorkItemFlush" => _ = started.remove(object),
            "WdfObjectDelete" => assert!(!started.contains(object), "{line}"),
            _ => {}
        }
    }
}

#[test]
fn nothing_is_dropped_under_a_callback_that_runs_when_the_device_goes() {
    for seed in 0..300 {
        GOING.set(false);
        let mut probe = Probe::started(Owning::DRIVER_ENTRY, seed);
        probe.run_for(Duration::from_millis(20 + seed % 7));
        GOING.set(true);
        probe.remove();
        assert_eq!((OWNERS.get(), MODULES.get()), (0, 0));
        what_is_deleted_has_been_stopped(&probe);
    }
    assert!(CALLS.get() > 0);
    // Callbacks that had begun were waited for.
    assert!(CALLS_WHILE_GOING.get() > 0);
}
