// SPDX-License-Identifier: MIT OR Apache-2.0

//! Framework objects: values, memory, collections, strings, timers, work items, DPCs.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dmf::irql::Dispatch;
use dmf::prelude::*;
use dmf::sync;
use dmf::unicode_string;
use dmf::wdf::{
    Collection, Context, Dpc, DpcRun, Driver, Lookaside, Memory, Object, Precision, Timer,
    TimerConfig, TimerFired, WdfString, WorkItem, WorkItemRun,
};

use crate::Surface;
use crate::tell::Teller;

/// A value that says when it goes.
#[derive(Debug)]
struct Spoken(u32);

impl Context for Spoken {
    fn cleanup(&self) {
        dmf::println!("object {}: cleanup", self.0);
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        dmf::println!("object {}: dropped", self.0);
    }
}

pub fn objects(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let object = Object::new(|| Ok(Spoken(1)))?;
    let again = object.clone();
    drop(object);
    tell.value("object", &again);
    let none: Result<Object<Spoken>> = Object::new(|| Err(NtStatus::CANCELLED));
    tell.value("none", none.err());
    let mut collection = Collection::new()?;
    for number in 10..13 {
        collection.push(Object::new(|| Ok(Spoken(number)))?)?;
    }
    collection.push(again)?;
    tell.value("collected", collection.len());
    tell.value("second", collection.get(1));
    tell.value("removed", collection.remove(1));
    tell.value("no such", collection.remove(9).is_none());
    drop(collection);
    let mut memory = Memory::new(24)?;
    memory[23] = 1;
    tell.value("memory", &memory[20..]);
    tell.value("no memory", Memory::new(0).err());
    let list = Lookaside::new(16)?;
    let (one, two) = (list.take()?, list.take()?);
    tell.value("taken", (one.len(), two.len()));
    drop(one);
    tell.value("taken again", list.take()?.len());
    drop(two);
    tell.value("no list", Lookaside::new(0).err());
    let text = WdfString::new(irql, unicode_string!("näme"))?;
    tell.value("string", text.text(irql));
    let version = Driver::get().version(irql)?;
    tell.value("framework", version.text(irql));
    for (major, minor) in [(1, 9), (1, 33), (2, 0)] {
        tell.value(
            "available",
            Driver::get().is_version_available(irql, major, minor),
        );
    }
    Ok(())
}

/// Timers of each kind, a DPC, a work item.
#[derive(Debug)]
pub struct Tasks {
    once: Timer,
    lazy: Timer,
    fine: Timer,
    periodic: Timer,
    dpc: Dpc,
    item: WorkItem,
    runs: AtomicU32,
    ticks: AtomicU32,
}

impl Tasks {
    pub fn new(add: &mut Modules<'_, Surface>) -> Result<Self> {
        let lazy = Precision::Tolerable(Duration::from_millis(50));
        let period = Duration::from_millis(30);
        dmf::println!(
            "timers: too long: {:?}",
            Timer::with_config(
                add,
                TimerConfig::dispatch().periodic(Duration::MAX),
                Surface::ticked
            )
            .err()
        );
        Ok(Self {
            once: add.timer(Surface::fired)?,
            lazy: Timer::with_config(add, TimerConfig::passive().precision(lazy), Surface::fired)?,
            fine: Timer::with_config(
                add,
                TimerConfig::dispatch().precision(Precision::HighResolution),
                Surface::ticked,
            )?,
            periodic: Timer::with_config(
                add,
                TimerConfig::dispatch().periodic(period),
                Surface::ticked,
            )?,
            dpc: Dpc::new(add, Surface::dpc)?,
            item: add.work_item(Surface::worked)?,
            runs: AtomicU32::new(0),
            ticks: AtomicU32::new(0),
        })
    }
}

impl Surface {
    fn fired(&self, cx: &mut TimerFired<'_>) {
        sync::delay(cx.irql(), Duration::from_millis(1));
        let runs = self.tasks.runs.fetch_add(1, Relaxed);
        dmf::println!("passive timer: {runs}, {:?}", self.tasks.item.enqueue());
    }

    fn ticked(&self, _cx: &mut TimerFired<'_, Dispatch>) {
        let ticks = self.tasks.ticks.fetch_add(1, Relaxed);
        dmf::println!("timer: {ticks}, {:?}", self.tasks.dpc.enqueue());
    }

    fn dpc(&self, _cx: &mut DpcRun<'_>) {
        dmf::println!("dpc: {:?}", self.tasks.item.enqueue());
    }

    fn worked(&self, cx: &mut WorkItemRun<'_>) {
        sync::delay(cx.irql(), Duration::from_millis(1));
        dmf::println!("work item");
    }
}

pub fn deferred(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let tasks = &me.tasks;
    tasks.once.start(Duration::from_millis(20))?;
    tasks.lazy.start(Duration::from_millis(20))?;
    tasks.fine.start(Duration::from_micros(500))?;
    tasks.periodic.start(Duration::from_millis(30))?;
    tell.value("queued", tasks.dpc.enqueue());
    tell.value("queued", tasks.item.enqueue());
    sync::delay(irql, Duration::from_millis(200));
    tell.value("stopped", tasks.periodic.stop_and_wait(irql));
    for timer in [&tasks.once, &tasks.lazy, &tasks.fine] {
        tell.value("stopped", timer.stop());
        tell.value("stopped", timer.stop_and_wait(irql));
    }
    tasks.once.start(Duration::from_secs(1))?;
    tell.value("stopped early", tasks.once.stop_and_wait(irql));
    tell.value("cancelled", tasks.dpc.cancel());
    tell.value("waited", tasks.dpc.cancel_and_wait(irql));
    tell.value("flushed", tasks.item.flush(irql));
    tell.value("runs", tasks.runs.load(Relaxed) > 1);
    tell.value("ticks", tasks.ticks.load(Relaxed) > 3);
    Ok(())
}
