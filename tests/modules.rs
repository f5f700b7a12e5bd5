// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the docs of the module core promise, and each error that they name:
//! owners and callbacks, configs that refuse, modules that are made at run time,
//! and modules that open themselves. `lifecycle` and `pnp` have the orders.

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

use dmf::device::SpecialFile;
use dmf::module::{
    Callback, Client, Close, Create, DynamicInstance, Instance, Link, ModuleConfig,
    ModuleConfigExt, Open, OpenPolicy, Opener, Register, Signature, Unregister,
};
use dmf::prelude::*;
use dmf::wdf::{Timer, TimerFired};
use ntsim::machine::Error;
use probe::Probe;

dmf::driver!(Bench);

/// How a test wants its device to be made.
type Make = fn(&mut Modules<'_, Bench>) -> Result;

thread_local! {
    static MAKE: Cell<Make> = const { Cell::new(|_| Ok(())) };
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static KEEP: Cell<bool> = const { Cell::new(false) };
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static KEPT: RefCell<Option<ManuallyDrop<Kept>>> = const { RefCell::new(None) };
}

fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

fn journal() -> Vec<String> {
    JOURNAL.take()
}

/// What a test keeps of its device.
struct Kept {
    me: Owner<Bench>,
    ask: Callback<Ask>,
    part: Option<Handle<Part>>,
    opener: Option<Opener>,
    threads: Vec<Thread>,
}

/// Only for threads of the machine.
fn with_kept<R>(action: impl FnOnce(&mut Kept) -> R) -> R {
    KEPT.with_borrow_mut(|kept| action(kept.as_mut().unwrap()))
}

/// Only for threads of the machine.
fn drop_kept() {
    drop(KEPT.take().map(ManuallyDrop::into_inner));
}

/// The opener of the part.
fn opener() -> Opener {
    with_kept(|kept| kept.opener.clone().unwrap())
}

enum Ask {}

impl Signature for Ask {
    type Arguments<'a> = u32;
    type Output = u32;
}

struct Bench {
    me: Owner<Bench>,
    ask: Callback<Ask>,
}

impl Bench {
    #[expect(clippy::unused_self, reason = "a callback of the device")]
    fn answer(&self, question: &mut u32) -> u32 {
        *question + 1
    }
}

impl Device for Bench {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let bench = Bench {
            me: add.owner(),
            ask: add.callback::<Ask>(Bench::answer),
        };
        if KEEP.take() {
            KEPT.set(Some(ManuallyDrop::new(Kept {
                me: add.owner(),
                ask: add.callback::<Ask>(Bench::answer),
                part: None,
                opener: None,
                threads: Vec::new(),
            })));
        }
        MAKE.get()(add)?;
        Ok(bench)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let alone = self.me.enter().is_err() && self.ask.call(&mut 1).is_err();
        note(format!("bench drop, nobody reaches it: {alone}"));
    }
}

/// A module that opens itself, and that does what its config says.
#[derive(Clone)]
struct Part(Link<PartState>);

struct PartState {
    config: PartConfig,
    tick: Timer,
}

#[derive(Clone, Copy)]
struct PartConfig {
    name: &'static str,
    create: fn(&mut Modules<'_, PartState>) -> Result,
    register: fn(&PartState, &Opener, &mut Irql<'_, Passive>) -> Result,
    open: fn(&mut Irql<'_, Passive>) -> Result,
    close: fn(&mut Irql<'_, Passive>),
}

const PART: PartConfig = PartConfig {
    name: "part",
    create: |_| Ok(()),
    register: |_, _, _| Ok(()),
    open: |_| Ok(()),
    close: |_| (),
};

impl Module for Part {
    type Instance = PartState;
    fn over(instance: Link<PartState>) -> Self {
        Part(instance)
    }
}

impl Part {
    fn look(&self) -> Result {
        self.0.enter().map(drop)
    }
}

impl<O> ModuleConfig<O> for PartConfig {
    type Module = Part;
    fn create(self, cx: &mut Create<'_, O, PartState>) -> Result<PartState> {
        note(format!("{} create", self.name));
        (self.create)(cx)?;
        Ok(PartState {
            config: self,
            tick: cx.timer(PartState::ticks)?,
        })
    }
}

impl PartState {
    fn note(&self, what: &str) {
        note(format!("{} {what}", self.config.name));
    }
    fn ticks(&self, _: &mut TimerFired<'_>) {
        self.note("tick");
    }
}

impl Drop for PartState {
    fn drop(&mut self) {
        self.note("drop");
    }
}

impl Instance for PartState {
    const OPEN: OpenPolicy = OpenPolicy::NotifyD0Entry;

    fn register(&self, cx: &mut Register<'_>) -> Result {
        self.note("register");
        let opener = cx.opener();
        KEPT.with_borrow_mut(|kept| {
            if let Some(kept) = kept {
                kept.opener = Some(opener.clone());
            }
        });
        (self.config.register)(self, &opener, cx.irql())
    }
    fn unregister(&self, _cx: &mut Unregister<'_>) {
        self.note("unregister");
    }
    fn open(&self, cx: &mut Open<'_>) -> Result {
        self.note("open");
        (self.config.open)(cx.irql())
    }
    fn close(&self, cx: &mut Close<'_>) {
        self.note("close");
        (self.config.close)(cx.irql());
    }
}

/// A module that can be made at run time, with a child below that has hooks or not.
#[derive(Clone)]
struct Guest(#[expect(dead_code, reason = "it has no methods")] Link<GuestState>);
struct GuestState(Result);

#[derive(Clone, Copy)]
struct GuestConfig {
    create: fn(&mut Modules<'_, GuestState>) -> Result,
    open: Result,
}

const GUEST: GuestConfig = GuestConfig {
    create: |_| Ok(()),
    open: Ok(()),
};

impl Module for Guest {
    type Instance = GuestState;
    fn over(instance: Link<GuestState>) -> Self {
        Guest(instance)
    }
}

impl<O> ModuleConfig<O> for GuestConfig {
    type Module = Guest;
    fn create(self, cx: &mut Create<'_, O, GuestState>) -> Result<GuestState> {
        (self.create)(cx)?;
        Ok(GuestState(self.open))
    }
}

impl DynamicInstance for GuestState {
    fn open(&self, _cx: &mut Open<'_>) -> Result {
        note("guest open");
        self.0
    }
    fn close(&self, _cx: &mut Close<'_>) {
        note("guest close");
    }
}

impl Drop for GuestState {
    fn drop(&mut self) {
        note("guest drop");
    }
}

const REFUSED: NtStatus = NtStatus::INVALID_DEVICE_STATE;
const FAILED: NtStatus = NtStatus::DEVICE_DATA_ERROR;

/// A started device that is made like this, and kept. What it did so far is in the journal.
fn started(make: Make) -> Probe {
    MAKE.set(make);
    KEEP.set(true);
    Probe::started(Bench::DRIVER_ENTRY, 0)
}

/// Drops what was kept, and removes the device.
fn end(mut probe: Probe) {
    probe.thread(|_| drop_kept());
    probe.remove();
}

/// Removes the device, and then runs `body`. The driver stays for another device.
fn when_gone(mut probe: Probe, body: fn(&mut Irql<'_, Passive>)) {
    MAKE.set(|_| Ok(()));
    let second = probe.machine.plug_in(r"Root\Probe").unwrap();
    probe.machine.start_device(&second).unwrap();
    probe.machine.remove_device(&probe.device).unwrap();
    probe.thread(move |irql| {
        body(irql);
        drop_kept();
    });
    probe.machine.remove_device(&second).unwrap();
}

fn position(lines: &[String], what: &str) -> usize {
    let at = lines.iter().position(|line| line == what);
    at.unwrap_or_else(|| panic!("no `{what}` in {lines:?}"))
}

// ---- owners and callbacks ---------------------------------------------------

#[test]
fn an_owner_is_reached_from_when_it_was_made_until_it_is_dropped() {
    fn reached(irql: &Irql<'_, Passive>) -> [Result; 3] {
        with_kept(|kept| {
            [
                kept.me.enter().map(drop),
                kept.ask.call(&mut 41).map(|answer| assert_eq!(answer, 42)),
                kept.me.create(irql, GUEST).map(drop),
            ]
        })
    }
    let mut probe = started(|add| {
        assert_eq!(reached(add.irql()), [Err(REFUSED); 3]);
        Ok(())
    });
    assert_eq!(probe.thread(|irql| reached(irql)), [Ok(()); 3]);
    when_gone(probe, |irql| assert_eq!(reached(irql), [Err(REFUSED); 3]));
    assert!(journal().contains(&"bench drop, nobody reaches it: true".to_owned()));
}

#[test]
fn an_owner_is_not_dropped_while_somebody_has_access() {
    let mut probe = started(|_| Ok(()));
    probe.thread(|irql| {
        let me = with_kept(|kept| kept.me.clone());
        let thread = Thread::spawn(irql, move |irql| {
            let access = me.enter().unwrap();
            dmf::sync::delay(irql, Duration::from_millis(50));
            note("left");
            drop(access);
        });
        with_kept(|kept| kept.threads.push(thread.unwrap()));
        // It is inside now.
        dmf::sync::delay(irql, Duration::from_millis(1));
    });
    when_gone(probe, |irql| {
        for thread in with_kept(|kept| std::mem::take(&mut kept.threads)) {
            thread.join(irql);
        }
    });
    let lines = journal();
    let dropped = position(&lines, "bench drop, nobody reaches it: true");
    assert!(position(&lines, "left") < dropped, "{lines:?}");
}

#[test]
fn a_special_file_that_is_none_is_refused() {
    end(started(|add| {
        let refused = add.support_special_file(SpecialFile::Other(7));
        assert_eq!(refused, Err(NtStatus::INVALID_PARAMETER));
        add.support_special_file(SpecialFile::Dump)
    }));
}

// ---- configs ------------------------------------------------------------------

#[test]
fn a_config_that_refuses_takes_down_what_it_and_its_owner_had_added() {
    MAKE.set(|add| {
        let config = PartConfig {
            name: "first",
            create: |add| {
                let below = PartConfig {
                    name: "below first",
                    ..PART
                };
                add.module(below).map(drop)
            },
            ..PART
        };
        add.module(config)?;
        let config = PartConfig {
            name: "second",
            create: |add| {
                let below = PartConfig {
                    name: "below second",
                    ..PART
                };
                add.module(below)?;
                Err(FAILED)
            },
            ..PART
        };
        add.module(config).map(drop)
    });
    let mut probe = Probe::new(Bench::DRIVER_ENTRY, 0);
    let Err(Error::Driver { status, .. }) = probe.start() else {
        panic!("the device should not have started")
    };
    assert_eq!(status, FAILED.to_raw().cast_unsigned());
    assert_eq!(
        journal(),
        [
            "first create",
            "below first create",
            "second create",
            "below second create",
            "below second drop",
            // The value that `modules` had begun to make.
            "bench drop, nobody reaches it: true",
            "first drop",
            "below first drop",
        ]
    );
    MAKE.set(|_| Ok(()));
    probe.start().unwrap();
    end(probe);
}

#[test]
fn the_attribute_that_is_given_last_counts() {
    fn first(_: &Bench, _: &mut Client<'_, Part>) {
        note("the first function");
    }
    fn last(_: &Bench, cx: &mut Client<'_, Part>) {
        cx.module().look().unwrap();
        note("the last function");
    }
    let mut probe = started(|add| {
        let part = add.module(
            PART.named("a")
                .post_open(first)
                .pre_close(first)
                .named("b")
                .post_open(last)
                .pre_close(last),
        )?;
        assert_eq!(part.name(), "b");
        assert_eq!(format!("{part:?}"), r#"Handle("b")"#);
        // Without a name it is called as its type is.
        let other = add.module(PART)?;
        assert!(other.name().ends_with("PartState"), "{}", other.name());
        with_kept(|kept| kept.part = Some(part));
        Ok(())
    });
    probe.thread(|irql| {
        for _ in 0..2 {
            // That of the second part.
            opener().open(irql).unwrap();
            opener().close(irql).unwrap();
        }
    });
    assert!(!journal().iter().any(|line| line.contains("function")));
    end(probe);
    let mut probe = started(|add| {
        let config = PART.post_open(first).post_open(last).pre_close(last);
        add.module(config).map(drop)
    });
    journal();
    probe.thread(|irql| {
        for _ in 0..2 {
            opener().open(irql).unwrap();
            opener().close(irql).unwrap();
        }
    });
    // Each time.
    let once = [
        "part open",
        "the last function",
        "the last function",
        "part close",
    ];
    assert_eq!(journal(), [once, once].concat());
    end(probe);
}

/// DMF finds a module by its name, and takes the last one if there is none.
#[test]
fn modules_of_one_name_are_two_modules() {
    let mut probe = started(|add| {
        let kept = add.module(PART.named("pump"))?;
        // The opener that is kept is of the one that registers last.
        let other = add.module(PART.named("pump"))?;
        assert_eq!(kept.name(), other.name());
        with_kept(|at| at.part = Some(kept));
        Ok(())
    });
    probe.thread(|irql| {
        opener().open(irql).unwrap();
        let first = with_kept(|kept| kept.part.as_ref().unwrap().look());
        assert_eq!(first, Err(REFUSED), "only the other one is open");
    });
    end(probe);
}

// ---- modules that are made at run time --------------------------------------

#[test]
fn a_module_that_is_refused_at_run_time_says_why_and_leaves_nothing_behind() {
    // (the config, what is said, what happened)
    type Case = (GuestConfig, NtStatus, &'static [&'static str]);
    let cases: [Case; 4] = [
        (
            GuestConfig {
                create: |_| Err(FAILED),
                ..GUEST
            },
            FAILED,
            &[],
        ),
        (
            GuestConfig {
                open: Err(FAILED),
                ..GUEST
            },
            FAILED,
            &["guest open", "guest drop"],
        ),
        // A child with hooks, which no PnP callback would reach.
        (
            GuestConfig {
                create: |add| add.module(PART).map(drop),
                ..GUEST
            },
            NtStatus::INVALID_PARAMETER,
            &[],
        ),
        // One without, that opens and then goes with its parent.
        (
            GuestConfig {
                create: |add| add.module(GUEST).map(drop),
                open: Err(FAILED),
            },
            FAILED,
            &[
                "guest open",
                "guest open",
                "guest close",
                "guest drop",
                "guest drop",
            ],
        ),
    ];
    for (config, status, happened) in cases {
        let mut probe = started(|_| Ok(()));
        journal();
        let made = probe.thread(move |irql| {
            let me = with_kept(|kept| kept.me.clone());
            let made = me.create(irql, config).map(drop);
            me.create(irql, GUEST).map(drop).unwrap();
            made
        });
        assert_eq!(made, Err(status));
        let second = ["guest open", "guest close", "guest drop"];
        assert_eq!(journal(), [happened, &second].concat());
        end(probe);
    }
}

// ---- modules that open themselves ---------------------------------------------

#[test]
fn a_self_opening_that_fails_leaves_the_module_closed_and_may_be_tried_again() {
    thread_local!(static FAILS: Cell<bool> = const { Cell::new(true) });
    let mut probe = started(|add| {
        let part = add.module(PartConfig {
            open: |_| if FAILS.get() { Err(FAILED) } else { Ok(()) },
            ..PART
        })?;
        with_kept(|kept| kept.part = Some(part));
        Ok(())
    });
    probe.thread(|irql| {
        let look = || with_kept(|kept| kept.part.as_ref().unwrap().look());
        assert_eq!(opener().open(irql), Err(FAILED));
        assert_eq!(look(), Err(REFUSED));
        FAILS.set(false);
        opener().open(irql).unwrap();
        look().unwrap();
    });
    end(probe);
}

#[test]
fn a_module_that_registers_opens_and_then_fails_is_closed_and_not_unregistered() {
    MAKE.set(|add| {
        let config = PartConfig {
            register: |_, opener, irql| {
                opener.open(irql)?;
                Err(FAILED)
            },
            ..PART
        };
        add.module(config).map(drop)
    });
    let mut probe = Probe::new(Bench::DRIVER_ENTRY, 0);
    assert!(probe.start().is_err());
    let lines = journal();
    assert_eq!(
        lines,
        [
            "part create",
            "part register",
            "part open",
            "part close",
            "bench drop, nobody reaches it: true",
            "part drop",
        ]
    );
    MAKE.set(|_| Ok(()));
    probe.start().unwrap();
    end(probe);
}

#[test]
fn who_is_opening_or_closing_cannot_open_or_close() {
    /// From each of the four places.
    fn refused(irql: &Irql<'_, Passive>) {
        assert_eq!(opener().open(irql), Err(REFUSED));
        assert_eq!(opener().close(irql), Err(REFUSED));
        note("refused");
    }
    fn client(_: &Bench, cx: &mut Client<'_, Part>) {
        refused(cx.irql());
        // The module is open, whatever it tried.
        cx.module().look().unwrap();
    }
    let mut probe = started(|add| {
        let config = PartConfig {
            open: |irql| {
                refused(irql);
                Ok(())
            },
            close: |irql| refused(irql),
            ..PART
        };
        let config = config.post_open(client).pre_close(client);
        add.module(config).map(drop)
    });
    journal();
    probe.thread(|irql| {
        opener().open(irql).unwrap();
        opener().close(irql).unwrap();
    });
    let expected = [
        "part open",
        "refused",
        "refused",
        "refused",
        "part close",
        "refused",
    ];
    assert_eq!(journal(), expected);
    when_gone(probe, |irql| {
        assert_eq!(opener().open(irql), Err(REFUSED));
        assert_eq!(opener().close(irql), Err(REFUSED));
    });
}

/// DMF skips a close that comes while the client is told of the opening, and
/// the module stays open.
#[test]
fn a_close_that_comes_while_the_client_is_told_of_the_opening_has_its_turn_after_it() {
    fn told(_: &Bench, cx: &mut Client<'_, Part>) {
        note("post open begins");
        dmf::sync::delay(cx.irql(), Duration::from_millis(50));
        cx.module().look().unwrap();
        note("post open ends");
    }
    for seed in 0..20 {
        MAKE.set(|add| {
            let part = add.module(PART.post_open(told))?;
            with_kept(|kept| kept.part = Some(part));
            Ok(())
        });
        KEEP.set(true);
        let mut probe = Probe::started(Bench::DRIVER_ENTRY, seed);
        journal();
        probe.thread(|irql| {
            let thread = Thread::spawn(irql, |irql| opener().open(irql).unwrap()).unwrap();
            dmf::sync::delay(irql, Duration::from_millis(20));
            opener().close(irql).unwrap();
            let look = with_kept(|kept| kept.part.as_ref().unwrap().look());
            assert_eq!(look, Err(REFUSED));
            thread.join(irql);
        });
        assert_eq!(
            journal(),
            [
                "part open",
                "post open begins",
                "post open ends",
                "part close"
            ]
        );
        end(probe);
    }
}

#[test]
fn callbacks_of_an_instance_run_whether_it_is_open_or_not() {
    let mut probe = started(|add| {
        let config = PartConfig {
            register: |part, _, _| part.tick.start(Duration::from_millis(1)).map(drop),
            ..PART
        };
        add.module(config).map(drop)
    });
    probe.run_for(Duration::from_millis(100));
    assert_eq!(journal(), ["part create", "part register", "part tick"]);
    end(probe);
}
