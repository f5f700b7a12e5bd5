// SPDX-License-Identifier: MIT OR Apache-2.0

//! The contexts of a [`ScheduledTask`]'s runs on demand.

#[path = "../../tests/support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::time::Duration;

use dmf::prelude::*;
use dmf_modules::ScheduledTask;
use dmf_modules::scheduled_task::{ExecuteWhen, Task, TaskResult};
use probe::Probe;

dmf::driver!(Courier);

/// A device whose task delivers parcels.
struct Courier;

/// A context that notes when it is dropped.
struct Parcel(u32);

impl Drop for Parcel {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push(self.0));
    }
}

thread_local! {
    static DELIVERED: RefCell<Vec<Option<u32>>> = const { RefCell::new(Vec::new()) };
    static DROPPED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// The context of the config.
    static STANDING: Cell<Option<u32>> = const { Cell::new(None) };
    static WHEN: Cell<ExecuteWhen> = const { Cell::new(ExecuteWhen::Other) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static TASK: RefCell<Option<ManuallyDrop<Handle<ScheduledTask<Parcel>>>>> =
        const { RefCell::new(None) };
}

impl Device for Courier {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let mut config = ScheduledTask::config(Courier::deliver).execute_when(WHEN.get());
        if let Some(parcel) = STANDING.get() {
            config = config.context(Parcel(parcel));
        }
        TASK.set(Some(ManuallyDrop::new(add.module(config)?)));
        Ok(Courier)
    }
}

impl Courier {
    #[expect(clippy::unused_self, reason = "a task of the device")]
    fn deliver(&self, task: &mut Task<'_, Parcel>) -> TaskResult {
        let seen = task.context().map(|parcel| parcel.0);
        let parcel = task.take_context();
        assert!(task.take_context().is_none(), "there is one, once");
        if let Some(parcel) = parcel {
            assert_eq!(seen, Some(parcel.0));
        }
        let after = task.context().map(|parcel| parcel.0);
        assert_eq!(after, STANDING.get(), "the config's stays");
        DELIVERED.with_borrow_mut(|delivered| delivered.push(seen));
        dmf::sync::delay(task.irql(), Duration::from_millis(1));
        TaskResult::Success
    }
}

fn module() -> Handle<ScheduledTask<Parcel>> {
    TASK.with_borrow(|task| task.as_deref().cloned().unwrap())
}

/// Plays `test` under several schedules. Afterwards the device is removed, and
/// each of the `parcels` numbered from 1 was dropped exactly once.
fn play(when: ExecuteWhen, parcels: u32, test: impl Fn(&mut Probe)) {
    for seed in 0..20 {
        WHEN.set(when);
        DELIVERED.take();
        DROPPED.take();
        let mut probe = Probe::started(Courier::DRIVER_ENTRY, seed);
        test(&mut probe);
        probe.thread(|_| drop(TASK.take().map(ManuallyDrop::into_inner)));
        probe.remove();
        let mut dropped = DROPPED.take();
        dropped.sort_unstable();
        assert_eq!(dropped, (1..=parcels).collect::<Vec<_>>(), "seed {seed}");
    }
}

fn delivered() -> Vec<Option<u32>> {
    DELIVERED.with_borrow(Vec::clone)
}

#[test]
fn each_call_gives_one_run_with_its_own_context_in_the_order_of_the_calls() {
    play(ExecuteWhen::Other, 20, |probe| {
        probe.thread(|irql| {
            for parcel in 1..=10 {
                module().execute_now_deferred_with(Parcel(parcel)).unwrap();
            }
            dmf::sync::delay(irql, Duration::from_millis(5));
            for parcel in 11..=20 {
                module().execute_now_deferred_with(Parcel(parcel)).unwrap();
            }
        });
        probe.run_for(Duration::from_secs(1));
        assert_eq!(delivered(), (1..=20).map(Some).collect::<Vec<_>>());
    });
}

#[test]
fn a_run_on_this_thread_has_its_context_too() {
    play(ExecuteWhen::Other, 1, |probe| {
        let result = probe.thread(|irql| module().execute_now_with(irql, Parcel(1)));
        assert_eq!(result, Ok(TaskResult::Success));
        assert_eq!(delivered(), [Some(1)]);
    });
}

#[test]
fn an_attempt_has_no_context() {
    play(ExecuteWhen::D0Entry, 0, |probe| {
        probe.run_for(Duration::from_secs(1));
        assert_eq!(delivered(), [None]);
    });
}

#[test]
fn cancel_drops_the_contexts_that_are_pending_and_refuses_new_ones() {
    play(ExecuteWhen::D0Entry, 4, |probe| {
        probe.run_for(Duration::from_secs(1));
        probe.power_down();
        probe.thread(|irql| {
            for parcel in 1..=3 {
                module().execute_now_deferred_with(Parcel(parcel)).unwrap();
            }
            assert!(DROPPED.with_borrow(Vec::is_empty));
            module().cancel(irql).unwrap();
            assert_eq!(DROPPED.with_borrow(Vec::len), 3);
            let refused = module().execute_now_deferred_with(Parcel(4));
            assert_eq!(refused, Err(NtStatus::CANCELLED));
            module().restart().unwrap();
        });
        probe.power_up();
        probe.run_for(Duration::from_secs(1));
        assert_eq!(delivered(), [None], "nothing comes back");
    });
}

#[test]
fn what_is_pending_at_removal_is_dropped() {
    play(ExecuteWhen::D0Entry, 3, |probe| {
        probe.run_for(Duration::from_secs(1));
        probe.power_down();
        probe.thread(|_| {
            for parcel in 1..=3 {
                module().execute_now_deferred_with(Parcel(parcel)).unwrap();
            }
        });
    });
}

#[test]
fn a_context_for_which_there_is_no_memory_is_refused_and_dropped() {
    play(ExecuteWhen::Other, 1, |probe| {
        probe.machine.fail_nth(Some(1));
        let refused = probe.thread(|_| module().execute_now_deferred_with(Parcel(1)));
        assert_eq!(
            probe.machine.fallible_calls().failed,
            Some("ExAllocatePool2")
        );
        assert_eq!(refused, Err(NtStatus::INSUFFICIENT_RESOURCES));
        probe.run_for(Duration::from_secs(1));
        assert_eq!(delivered(), []);
    });
}

#[test]
fn an_attempt_has_the_configs_context_and_a_run_that_of_its_call() {
    STANDING.set(Some(3));
    play(ExecuteWhen::D0Entry, 3, |probe| {
        probe.run_for(Duration::from_secs(1));
        probe.thread(|irql| {
            module().execute_now_deferred_with(Parcel(1)).unwrap();
            dmf::sync::delay(irql, Duration::from_secs(1));
            module().execute_now_with(irql, Parcel(2)).unwrap();
        });
        assert_eq!(delivered(), [Some(3), Some(1), Some(2)]);
    });
}
