// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver with a tree of modules, three levels deep, that writes down what is
//! called on it.

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};

use dmf::device::{AssignResources, QueryRemove};
use dmf::module::{
    Client, Close, Create, DynamicInstance, Instance, Link, ModuleConfig, ModuleConfigExt, Open,
    OpenPolicy, Opener, Register, Unregister,
};
use dmf::prelude::*;
use dmf::wdf::{Timer, TimerFired, WorkItem, WorkItemRun};

dmf::driver!(Tree);

thread_local! {
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The entry of the journal at which the one who makes it is to fail.
    static FAIL_AT: RefCell<Option<&'static str>> = const { RefCell::new(None) };
    static KEEP: Cell<bool> = const { Cell::new(false) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static KEPT: RefCell<Option<ManuallyDrop<Kept>>> = const { RefCell::new(None) };
}

/// What a test gets hold of.
#[derive(Clone)]
pub struct Kept {
    pub top: Handle<Top>,
    pub watcher: Handle<Watcher>,
    pub device: Owner<Tree>,
    pub opener: Option<Opener>,
}

pub fn keep() {
    KEEP.set(true);
}

/// Devices that start from now on are not kept.
pub fn keep_no_more() {
    KEEP.set(false);
}

/// Only for threads of the machine.
pub fn kept() -> Kept {
    KEPT.with_borrow(|kept| (**kept.as_ref().unwrap()).clone())
}

/// Only for threads of the machine.
pub fn drop_kept() {
    drop(KEPT.take().map(ManuallyDrop::into_inner));
}

pub fn fail_at(entry: Option<&'static str>) {
    FAIL_AT.set(entry);
}

pub fn journal() -> Vec<String> {
    JOURNAL.take()
}

fn note(what: &str) -> Result {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.to_owned()));
    if FAIL_AT.with_borrow(|at| *at == Some(what)) {
        Err(NtStatus::DEVICE_DATA_ERROR)
    } else {
        Ok(())
    }
}

pub struct Tree {
    _top: Handle<Top>,
    _watcher: Handle<Watcher>,
}

impl Device for Tree {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let top = add.module(
            TopConfig
                .named("the top")
                .post_open(Tree::top_opened)
                .pre_close(Tree::top_closes),
        )?;
        let watcher = add.module(WatcherConfig)?;
        if KEEP.get() {
            KEPT.set(Some(ManuallyDrop::new(Kept {
                top: top.clone(),
                watcher: watcher.clone(),
                device: add.owner(),
                opener: None,
            })));
        }
        Ok(Tree {
            _top: top,
            _watcher: watcher,
        })
    }

    fn prepare_hardware(&self, _cx: &mut PrepareHardware<'_>) -> Result {
        note("device prepare")
    }
    fn release_hardware(&self, _cx: &mut ReleaseHardware<'_>) {
        let _ = note("device release");
    }
    fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
        note("device d0 entry")
    }
    fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
        let _ = note("device d0 exit");
    }
    fn query_remove(&self, _cx: &mut QueryRemove<'_>) -> Result {
        note("device query remove")
    }
}

#[expect(clippy::unused_self, reason = "callbacks of the device")]
impl Tree {
    fn top_opened(&self, cx: &mut Client<'_, Top>) {
        let worked = cx.module().work(3).is_ok();
        let _ = note(&format!("post open: methods work: {worked}"));
    }
    fn top_closes(&self, cx: &mut Client<'_, Top>) {
        let worked = cx.module().work(3).is_ok();
        let _ = note(&format!("pre close: methods work: {worked}"));
    }
}

/// Whether methods may be inside, from the instance's own point of view.
struct Door(AtomicBool, SpinLock<u32>);

impl Door {
    fn new() -> Self {
        Self(AtomicBool::new(false), SpinLock::new(0))
    }
    /// What each method does: the instance must be open from first to last.
    fn inside(&self, below: impl FnOnce() -> Result) -> Result {
        assert!(self.0.load(Ordering::Relaxed), "a method runs while closed");
        self.1.with(|count| *count += 1);
        let result = below();
        self.1.with(|count| *count -= 1);
        assert!(self.0.load(Ordering::Relaxed), "Close did not wait");
        result
    }
    fn open(&self) {
        assert!(!self.0.swap(true, Ordering::Relaxed), "opened twice");
    }
    fn close(&self) {
        assert!(self.0.swap(false, Ordering::Relaxed), "closed twice");
        self.1
            .with(|inside| assert_eq!(*inside, 0, "closed with methods inside"));
    }
}

macro_rules! level {
    ($name:literal, $module:ident, $instance:ident, $config:ident, $policy:ident $(, $child:ident, $child_config:ident)?) => {
        #[derive(Clone)]
        pub struct $module(Link<$instance>);

        pub struct $instance {
            door: Door,
            timer: Timer,
            work_item: WorkItem,
            $(child: Handle<$child>,)?
        }

        pub struct $config;

        impl Module for $module {
            type Instance = $instance;
            fn over(instance: Link<$instance>) -> Self {
                $module(instance)
            }
        }

        impl $module {
            /// Works through the levels below.
            pub fn work(&self, depth: u32) -> Result {
                let this = self.0.enter()?;
                this.door.inside(|| {
                    let _ = depth;
                    $(if depth > 1 {
                        let _: &Handle<$child> = &this.child;
                        // Children are open for as long as their parent is.
                        this.child.work(depth - 1).expect("a child closes after its parent");
                    })?
                    Ok(())
                })
            }
        }

        impl<O> ModuleConfig<O> for $config {
            type Module = $module;
            fn create(self, cx: &mut Create<'_, O, $instance>) -> Result<$instance> {
                note(concat!($name, " create"))?;
                Ok($instance {
                    $(child: cx.module($child_config)?,)?
                    door: Door::new(),
                    timer: cx.timer($instance::tick)?,
                    work_item: cx.work_item($instance::run)?,
                })
            }
        }

        impl $instance {
            fn tick(&self, _: &mut TimerFired<'_>) {}
            fn run(&self, _: &mut WorkItemRun<'_>) {}
        }

        impl Drop for $instance {
            fn drop(&mut self) {
                let _ = note(concat!($name, " drop"));
            }
        }

        impl Instance for $instance {
            const OPEN: OpenPolicy = OpenPolicy::$policy;
            fn open(&self, _cx: &mut Open<'_>) -> Result {
                note(concat!($name, " open"))?;
                self.timer.start(Duration::from_millis(1))?;
                self.work_item.enqueue()?;
                self.door.open();
                Ok(())
            }
            fn close(&self, cx: &mut Close<'_>) {
                self.door.close();
                let _ = self.timer.stop_and_wait(cx.irql());
                let _ = note(concat!($name, " close"));
            }
            fn assign_resources(&self, _cx: &mut AssignResources<'_>) -> Result {
                note(concat!($name, " assign"))
            }
            fn prepare_hardware(&self, _cx: &mut PrepareHardware<'_>) -> Result {
                note(concat!($name, " prepare"))
            }
            fn release_hardware(&self, _cx: &mut ReleaseHardware<'_>) {
                let _ = note(concat!($name, " release"));
            }
            fn d0_entry(&self, _cx: &mut D0Entry<'_>) -> Result {
                note(concat!($name, " d0 entry"))
            }
            fn d0_exit(&self, _cx: &mut D0Exit<'_>) {
                let _ = note(concat!($name, " d0 exit"));
            }
        }
    };
}

level!("leaf", Leaf, LeafState, LeafConfig, PrepareHardware);
level!(
    "middle",
    Middle,
    MiddleState,
    MiddleConfig,
    D0EntrySystemPowerUp,
    Leaf,
    LeafConfig
);
level!(
    "top",
    Top,
    TopState,
    TopConfig,
    D0Entry,
    Middle,
    MiddleConfig
);

/// Opens and closes itself.
#[derive(Clone)]
pub struct Watcher(Link<Watching>);
pub struct Watching(Door);
pub struct WatcherConfig;

impl Module for Watcher {
    type Instance = Watching;
    fn over(instance: Link<Watching>) -> Self {
        Watcher(instance)
    }
}

impl Watcher {
    pub fn look(&self) -> Result {
        self.0.enter()?.0.inside(|| Ok(()))
    }
}

impl<O> ModuleConfig<O> for WatcherConfig {
    type Module = Watcher;
    fn create(self, _cx: &mut Create<'_, O, Watching>) -> Result<Watching> {
        Ok(Watching(Door::new()))
    }
}

impl Instance for Watching {
    const OPEN: OpenPolicy = OpenPolicy::NotifyD0Entry;
    fn register(&self, cx: &mut Register<'_>) -> Result {
        note("watcher register")?;
        let opener = cx.opener();
        KEPT.with_borrow_mut(|kept| {
            if let Some(kept) = kept {
                kept.opener = Some(opener);
            }
        });
        Ok(())
    }
    fn unregister(&self, _cx: &mut Unregister<'_>) {
        let _ = note("watcher unregister");
    }
    fn open(&self, _cx: &mut Open<'_>) -> Result {
        note("watcher open")?;
        self.0.open();
        Ok(())
    }
    fn close(&self, _cx: &mut Close<'_>) {
        self.0.close();
        let _ = note("watcher close");
    }
}

/// Made at run time.
#[derive(Clone)]
pub struct Guest(Link<Visit>);
pub struct Visit(Door, Timer);
pub struct GuestConfig;

impl Module for Guest {
    type Instance = Visit;
    fn over(instance: Link<Visit>) -> Self {
        Guest(instance)
    }
}

impl Guest {
    pub fn look(&self) -> Result {
        self.0.enter()?.0.inside(|| Ok(()))
    }
}

impl<O> ModuleConfig<O> for GuestConfig {
    type Module = Guest;
    fn create(self, cx: &mut Create<'_, O, Visit>) -> Result<Visit> {
        note("guest create")?;
        Ok(Visit(Door::new(), cx.timer(Visit::tick)?))
    }
}

#[expect(clippy::unused_self, reason = "a callback of the instance")]
impl Visit {
    fn tick(&self, _: &mut TimerFired<'_>) {}
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = note("guest drop");
    }
}

impl DynamicInstance for Visit {
    fn open(&self, _cx: &mut Open<'_>) -> Result {
        note("guest open")?;
        self.1.start(Duration::from_millis(1))?;
        self.0.open();
        Ok(())
    }
    fn close(&self, _cx: &mut Close<'_>) {
        self.0.close();
        let _ = note("guest close");
    }
}
