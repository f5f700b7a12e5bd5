// SPDX-License-Identifier: MIT OR Apache-2.0

//! The simulated kernel's state, and the rules by which contexts get to run.
//!
//! # Vocabulary
//! - *context*: something that executes driver code: a thread, or a DPC.
//! - *ready*: it could run now; the [`Strategy`] chooses among the ready ones.
//! - *waiting*: blocked in a wait; [`crate::ke::wait`] decides when it ends.
//! - *processor*: a context at `DISPATCH_LEVEL` or above holds one; when all
//!   are held, only their holders run. Below that level any ready context may
//!   run at any preemption point, as on a machine with processors to spare.
//!
//! ```text
//!            spawn                  chosen
//!   (new) ─────────► Ready ◄────────────────► Running
//!                      ▲    preemption point    │  │
//!                wake  │                        │  └─► Done
//!                      └────── Waiting ◄────────┘
//!                                         block
//! ```
//!
//! Time stands still while anything can run, apart from what
//! `KeStallExecutionProcessor` burns; when nothing can, it jumps to the next
//! timer.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use corosensei::Coroutine;
use corosensei::stack::{DefaultStack, Stack as _};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::bugcheck::{BugCheck, Stop};
use crate::count::Counter;
use crate::explore::Tape;
use crate::fault::{self, FaultKind, Registers, Resumed};
use crate::ke::dispatcher::{Thread, ThreadId};
use crate::memory::{GuardedPool, PoolChecks, PoolOptions};
use crate::stacks;
use crate::strategy::{Choice, Scheduler, Strategy};
use crate::trace::{Arg, Event, Line};
use crate::trap::{self, ContextYielder, Exit, Flow, Request};

/// `PASSIVE_LEVEL`.
pub(crate) const PASSIVE_LEVEL: u8 = 0;
/// `APC_LEVEL`.
pub(crate) const APC_LEVEL: u8 = 1;
/// `DISPATCH_LEVEL`.
pub(crate) const DISPATCH_LEVEL: u8 = 2;
/// `HIGH_LEVEL`.
pub(crate) const HIGH_LEVEL: u8 = 15;

/// One millisecond in the kernel's unit of 100 ns.
pub const MILLISECOND: u64 = 10_000;
/// One second in the kernel's unit of 100 ns.
pub const SECOND: u64 = 1_000 * MILLISECOND;
/// The clock's default period: timers expire on its ticks.
pub const CLOCK_TICK: u64 = 156_250;

pub(crate) type ContextCoroutine = Coroutine<(), Request, Exit, DefaultStack>;

/// Names a context for as long as the machine runs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContextId(pub(crate) u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    Waiting,
    /// Spinning on a lock that another context holds.
    Spinning(usize),
}

pub(crate) struct Context {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) irql: u8,
    /// The thread that this context is; a DPC is none.
    pub(crate) thread: Option<ThreadId>,
    /// Virtual time that it took at `DISPATCH_LEVEL` or above.
    pub(crate) stalled: u64,
    /// Nesting of calls and callbacks, for the trace.
    pub(crate) depth: usize,
    /// Calls that have been entered and not traced yet.
    calls: Vec<OpenCall>,
    /// How many of them were open when its innermost callback began.
    pub(crate) calls_outside: usize,
    /// Its stack, from the guard page to the outermost frame.
    pub(crate) stack: std::ops::Range<usize>,
    /// The locks that it holds, oldest first.
    pub(crate) held: Vec<crate::locks::Held>,
    /// The lock that it waits for, or asks for and would wait for.
    pub(crate) wants: Option<usize>,
    /// It gave itself up (`PsTerminateSystemThread`) and is to be removed.
    ended: bool,
    co: Option<ContextCoroutine>,
}

/// The contexts, in order of creation.
#[derive(Default)]
struct Contexts(Vec<(ContextId, Box<Context>)>);

impl Contexts {
    #[inline]
    fn position(&self, id: ContextId) -> Option<usize> {
        self.0.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    #[inline]
    fn get(&self, id: ContextId) -> Option<&Context> {
        self.position(id).map(|at| &*self.0[at].1)
    }

    #[inline]
    fn get_mut(&mut self, id: ContextId) -> Option<&mut Context> {
        self.position(id).map(|at| &mut *self.0[at].1)
    }

    /// Adds a context, whose id is above all others.
    fn push(&mut self, id: ContextId, context: Context) {
        self.0.push((id, Box::new(context)));
    }

    fn remove(&mut self, id: ContextId) {
        if let Some(at) = self.position(id) {
            self.0.remove(at);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (ContextId, &Context)> {
        self.0.iter().map(|(id, context)| (*id, &**context))
    }

    fn values(&self) -> impl Iterator<Item = &Context> {
        self.0.iter().map(|(_, context)| &**context)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut Context> {
        self.0.iter_mut().map(|(_, context)| &mut **context)
    }
}

struct OpenCall {
    name: &'static str,
    args: String,
    /// Whether a line tells already that the call was entered.
    told: bool,
    /// Where it was made, for backtraces.
    from: Registers,
}

/// What happens when a timer is due.
pub(crate) enum Expiry {
    /// A wait of this context times out. The number tells waits apart.
    Wait(ContextId, u64),
    /// The `KTIMER` at this address is signalled.
    Timer(usize),
    /// The simulator's own: runs on the host's stack.
    Host(Box<dyn FnOnce(&mut Kernel)>),
}

/// A timer in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerKey {
    due: u64,
    serial: u64,
}

impl TimerKey {
    /// When it is due, in interrupt time.
    pub(crate) fn due(self) -> u64 {
        self.due
    }
}

/// Code to run on a context of its own.
pub(crate) type Job = Box<dyn FnOnce()>;

/// A deferred procedure call in the queue.
pub(crate) struct Dpc {
    /// Address of the driver's `KDPC`, or another number that is its identity.
    pub(crate) key: usize,
    pub(crate) name: String,
    /// The driver's routine, as an address; 0 if it is the framework's.
    pub(crate) routine: usize,
    pub(crate) run: Job,
}

/// Settings that the machine's builder fills in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decides every choice that is made at random.
    pub seed: u64,
    /// How the scheduler chooses.
    pub strategy: Strategy,
    /// How many contexts may be at `DISPATCH_LEVEL` at once.
    pub processors: u32,
    /// Bytes of stack of a driver thread.
    pub stack_size: usize,
    /// How stray accesses to the pool are found.
    pub pool: PoolChecks,
    /// Whether trace lines are kept. Without them the machine is much faster, and
    /// reports show no arguments of calls and no last events.
    pub trace: bool,
    /// Whether a [`Stop`] has the backtraces of all threads and DPCs. They take
    /// milliseconds, which is much where thousands of schedules fail.
    pub backtraces: bool,
    /// What a report gives as the line that replays the run; nothing for the
    /// seed and the strategy.
    pub replay: Option<String>,
    /// Folders in which PDBs are looked for, besides the image's own.
    pub symbol_path: Vec<PathBuf>,
    /// Calls without virtual time passing after which the run is stopped as a livelock.
    pub livelock_limit: u64,
    /// Steps after which a thread that is waited for has to be at its end: what runs
    /// for ever in virtual time is stopped by this or by the next.
    pub step_limit: u64,
    /// The same in virtual time.
    pub time_limit: Duration,
    /// Time of the processor (not of the clock) between two calls of a driver, after
    /// which it is stopped; `None` lets it take as long as it wants. On x86-64 Linux only.
    pub processor_limit: Option<Duration>,
    /// Whether the instructions of images are [counted](crate::count), which
    /// makes them a thousand times slower. On x86-64 Linux only.
    pub count_instructions: bool,
    /// How many percent of its stack a thread or DPC may use; nothing for all. It costs
    /// the writing of the whole stack for each.
    pub stack_limit: Option<u32>,
    /// The [rules](crate::rules) that are not checked.
    pub without_rules: Vec<&'static crate::rules::Rule>,
    /// Where the choices of the scheduler are written down, if they are.
    pub tape: Option<Tape>,
}

impl Settings {
    /// For images: the stack is as large as a kernel stack on x64, 24 KiB. (The
    /// default is larger, because code built for the host without optimisation
    /// uses more than it will in the driver.)
    #[must_use]
    pub fn for_images() -> Self {
        Self {
            stack_size: 24 * 1024,
            ..Self::default()
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            strategy: Strategy::Random,
            processors: 2,
            stack_size: 256 * 1024,
            pool: PoolChecks::default(),
            trace: true,
            backtraces: true,
            replay: None,
            symbol_path: Vec::new(),
            livelock_limit: 1_000_000,
            step_limit: 2_000_000,
            // Ten years: who only sleeps takes few steps.
            time_limit: Duration::from_hours(24 * 365 * 10),
            processor_limit: Some(Duration::from_secs(10)),
            count_instructions: false,
            stack_limit: None,
            without_rules: Vec::new(),
            tape: None,
        }
    }
}

/// What names are given to addresses in the trace.
#[derive(Default)]
struct Names {
    by_address: FxHashMap<usize, Name>,
    counts: FxHashMap<&'static str, u32>,
}

/// A name, which is written out when somebody wants to read it.
enum Name {
    Numbered(&'static str, u32, OnceCell<String>),
    Given(String),
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Numbered(kind, number, text) => text.get_or_init(|| format!("{kind}#{number}")),
            Self::Given(text) => text,
        }
    }
}

/// The whole state of the simulated kernel.
pub(crate) struct Kernel {
    pub(crate) settings: Settings,
    pub(crate) scheduler: Scheduler,
    /// Interrupt time: 100 ns units since boot.
    pub(crate) now: u64,
    /// What the machine's earlier boots took, so that the trace's time is monotonic.
    pub(crate) boot_offset: u64,
    contexts: Contexts,
    next_context: u32,
    /// Who was chosen to run next when the one who ran was preempted.
    decided: Option<Choice>,
    /// Room for [`Kernel::ready`].
    ready: Vec<ContextId>,
    pub(crate) current: Option<ContextId>,
    pub(crate) threads: BTreeMap<ThreadId, Thread>,
    timers: BTreeMap<TimerKey, Expiry>,
    serial: u64,
    dpcs: VecDeque<Dpc>,
    /// The keys of those.
    queued_dpcs: FxHashSet<usize>,
    names: Names,
    pub(crate) trace: Vec<Line>,
    /// Why the simulation ended: it does not go on after that.
    stopped: Option<Box<Stop>>,
    /// Calls since time last moved.
    calls_at_this_time: u64,
    /// How often a context has been let run.
    pub(crate) steps: u64,
    /// What befalls a device, and when.
    pub(crate) ambush: crate::inject::Ambush,
    give_up: GiveUp,
    /// Counts the instructions of images, if the settings say so.
    pub(crate) counter: Option<Box<Counter>>,
    pub(crate) inject: crate::inject::State,
    pub(crate) locks: crate::locks::Order,
    pub(crate) verifier: crate::verifier::State,
    pub(crate) ke: crate::ke::State,
    pub(crate) ex: crate::ex::State,
    pub(crate) zw: crate::zw::State,
    pub(crate) io: crate::io::State,
    pub(crate) wdf: crate::wdf::State,
}

/// When the thread that is waited for is given up.
struct GiveUp {
    thread: Option<ThreadId>,
    /// The step and the time at which the wait began.
    begun: (u64, u64),
    step: u64,
    time: u64,
}

impl Default for GiveUp {
    fn default() -> Self {
        Self {
            thread: None,
            begun: (0, 0),
            step: u64::MAX,
            time: u64::MAX,
        }
    }
}

/// How [`Kernel::run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// The condition that was waited for holds.
    Until,
    /// Nothing can run and no timer is left.
    Idle,
}

/// The payload with which [`Kernel::stop`] leaves a trap.
struct Stopping(Box<Stop>);

impl Kernel {
    pub(crate) fn new(settings: Settings) -> Self {
        let scheduler = Scheduler::new(
            settings.strategy.clone(),
            settings.seed,
            settings.tape.as_ref(),
        );
        let counts = settings.count_instructions && crate::count::AVAILABLE;
        let pool = PoolOptions {
            checks: settings.pool,
            seed: settings.seed,
            ..PoolOptions::default()
        };
        let mut k = Self {
            counter: counts.then(|| Box::new(Counter::new())),
            settings,
            scheduler,
            now: 0,
            boot_offset: 0,
            contexts: Contexts::default(),
            next_context: 0,
            decided: None,
            ready: Vec::new(),
            current: None,
            threads: BTreeMap::new(),
            timers: BTreeMap::new(),
            serial: 0,
            dpcs: VecDeque::new(),
            queued_dpcs: FxHashSet::default(),
            names: Names::default(),
            trace: Vec::new(),
            stopped: None,
            calls_at_this_time: 0,
            steps: 0,
            ambush: crate::inject::Ambush::default(),
            give_up: GiveUp::default(),
            inject: crate::inject::State::default(),
            locks: crate::locks::Order::default(),
            verifier: crate::verifier::State::default(),
            ke: crate::ke::State::default(),
            ex: crate::ex::State::default(),
            zw: crate::zw::State::default(),
            io: crate::io::State::default(),
            wdf: crate::wdf::State::default(),
        };
        k.ex.pool.blocks = GuardedPool::new(pool);
        k.wdf.memory = GuardedPool::new(pool);
        k.io.system = GuardedPool::new(pool);
        k
    }

    /// Goes on where the kernel of the previous boot ended: with its trace, its
    /// random numbers, and a clock that `pause` later starts again.
    pub(crate) fn take_over(&mut self, mut previous: Self, pause: u64) {
        self.boot_offset = previous.boot_offset + previous.now + pause;
        self.trace = std::mem::take(&mut previous.trace);
        // So that no number stands for two contexts in one trace.
        self.next_context = previous.next_context;
        std::mem::swap(&mut self.scheduler, &mut previous.scheduler);
        self.inject = std::mem::take(&mut previous.inject);
    }

    /// What is counted for the sake of a limit begins anew.
    pub(crate) fn begin_schedule(&mut self) {
        self.calls_at_this_time = 0;
    }

    // ---- contexts ----------------------------------------------------

    /// Starts a context that runs `job`. A thread when `thread` is given.
    pub(crate) fn spawn(
        &mut self,
        name: String,
        irql: u8,
        thread: Option<ThreadId>,
        job: Job,
    ) -> ContextId {
        self.next_context += 1;
        let id = ContextId(self.next_context);
        let stack = stacks::take(self.settings.stack_size);
        let range = stack.limit().get()..stack.base().get();
        if self.settings.stack_limit.is_some() {
            crate::stack_use::paint(&range);
        }
        let co = Coroutine::with_stack(stack, move |yielder: &ContextYielder, ()| {
            trap::set_yielder(yielder);
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)) {
                Ok(()) => Exit::Returned,
                Err(payload) => Exit::Panicked(crate::bugcheck::panic_message(payload.as_ref())),
            }
        });
        self.contexts.push(
            id,
            Context {
                name,
                state: State::Ready,
                irql,
                thread,
                stalled: 0,
                depth: 0,
                calls: Vec::new(),
                calls_outside: 0,
                stack: range,
                held: Vec::new(),
                wants: None,
                ended: false,
                co: Some(co),
            },
        );
        id
    }

    #[inline]
    pub(crate) fn context(&self, id: ContextId) -> &Context {
        self.contexts
            .get(id)
            .expect("a context is in the table until it ends")
    }

    #[inline]
    pub(crate) fn context_mut(&mut self, id: ContextId) -> &mut Context {
        self.contexts
            .get_mut(id)
            .expect("a context is in the table until it ends")
    }

    pub(crate) fn contexts(&self) -> impl Iterator<Item = (ContextId, &Context)> {
        self.contexts.iter()
    }

    pub(crate) fn is_alive(&self, id: ContextId) -> bool {
        self.contexts.get(id).is_some()
    }

    /// The context whose trap is being served.
    #[inline]
    pub(crate) fn running(&self) -> ContextId {
        self.current.expect("a trap has a context")
    }

    #[inline]
    pub(crate) fn irql(&self) -> u8 {
        self.current
            .map_or(PASSIVE_LEVEL, |id| self.context(id).irql)
    }

    #[inline]
    pub(crate) fn set_irql(&mut self, irql: u8) {
        let id = self.running();
        self.context_mut(id).irql = irql;
    }

    /// Whether the code that runs is a loaded image's.
    pub(crate) fn calls_from_image(&self) -> bool {
        self.io.has_images()
    }

    /// The thread that runs, if it is one.
    #[inline]
    pub(crate) fn running_thread(&self) -> Option<ThreadId> {
        self.context(self.running()).thread
    }

    /// Forgets a thread that has ended and that nobody refers to.
    pub(crate) fn forget_thread(&mut self, id: ThreadId) {
        self.threads.remove(&id);
        self.unname(id.address());
    }

    /// Makes a blocked context ready again.
    pub(crate) fn make_ready(&mut self, id: ContextId) {
        self.context_mut(id).state = State::Ready;
    }

    // ---- time --------------------------------------------------------

    /// Interrupt time as the last clock tick left it, which is what timers are
    /// counted from.
    pub(crate) fn tick_time(&self) -> u64 {
        self.now - self.now % CLOCK_TICK
    }

    /// System time: 100 ns units since 1601.
    pub(crate) fn system_time(&self) -> u64 {
        crate::machine::EPOCH + self.boot_offset + self.now
    }

    /// When a kernel time-out (negative: relative, positive: absolute, in
    /// 100 ns units) is due, in interrupt time.
    pub(crate) fn due_time(&self, timeout: i64) -> u64 {
        if timeout <= 0 {
            self.tick_time().saturating_add(timeout.unsigned_abs())
        } else {
            let boot = crate::machine::EPOCH + self.boot_offset;
            timeout.unsigned_abs().saturating_sub(boot)
        }
    }

    /// Queues `expiry` for the first clock tick at or after `due`.
    pub(crate) fn insert_timer(&mut self, due: u64, expiry: Expiry) -> TimerKey {
        self.insert_timer_with_period(due, CLOCK_TICK, expiry)
    }

    /// Queues `expiry` for the first multiple of `granularity` at or after `due`.
    pub(crate) fn insert_timer_with_period(
        &mut self,
        due: u64,
        granularity: u64,
        expiry: Expiry,
    ) -> TimerKey {
        self.serial += 1;
        let due = due
            .max(self.now)
            .checked_next_multiple_of(granularity)
            .unwrap_or(u64::MAX);
        let key = TimerKey {
            due,
            serial: self.serial,
        };
        self.timers.insert(key, expiry);
        key
    }

    /// Takes a timer out of the queue; tells whether it was there.
    pub(crate) fn remove_timer(&mut self, key: TimerKey) -> bool {
        self.timers.remove(&key).is_some()
    }

    /// Moves time forward without letting anything run.
    pub(crate) fn advance(&mut self, by: u64) {
        self.now += by;
        self.ke.dispatch_time = 0;
        if by > 0 {
            self.calls_at_this_time = 0;
        }
    }

    fn expire_due_timers(&mut self) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().due > self.now {
                break;
            }
            match entry.remove() {
                Expiry::Wait(context, serial) => crate::ke::wait::time_out(self, context, serial),
                Expiry::Timer(address) => crate::ke::timer::expire(self, address),
                Expiry::Host(run) => run(self),
            }
        }
    }

    // ---- DPCs --------------------------------------------------------

    /// Queues a DPC; false if one with this key is in the queue already.
    pub(crate) fn queue_dpc(&mut self, dpc: Dpc) -> bool {
        if !self.queued_dpcs.insert(dpc.key) {
            return false;
        }
        self.dpcs.push_back(dpc);
        true
    }

    /// Takes a DPC out of the queue; tells whether it was there.
    pub(crate) fn remove_dpc(&mut self, key: usize) -> bool {
        let was_queued = self.queued_dpcs.remove(&key);
        if was_queued {
            self.dpcs.retain(|queued| queued.key != key);
        }
        was_queued
    }

    /// The names of the DPCs that have not begun, first come first.
    pub(crate) fn queued_dpcs(&self) -> impl Iterator<Item = &str> {
        self.dpcs.iter().map(|dpc| dpc.name.as_str())
    }

    /// The DPCs in the queue, first come first.
    pub(crate) fn dpc_queue(&self) -> impl Iterator<Item = &Dpc> {
        self.dpcs.iter()
    }

    /// Whether a DPC is queued or runs.
    pub(crate) fn has_dpcs(&self) -> bool {
        !self.dpcs.is_empty()
            || self
                .contexts
                .values()
                .any(|c| c.thread.is_none() && c.co.is_some())
    }

    // ---- running -----------------------------------------------------

    /// Those that can run, in order of creation, into `ready`; tells whether a DPC
    /// that is queued can start.
    fn find_ready(&self, ready: &mut Vec<ContextId>) -> bool {
        ready.clear();
        let mut holders = 0;
        for (id, context) in self.contexts.iter() {
            holders += usize::from(context.irql >= DISPATCH_LEVEL);
            if context.state == State::Ready {
                ready.push(id);
            }
        }
        let processors = self.settings.processors as usize;
        if holders < processors {
            return !self.dpcs.is_empty();
        }
        // More holders than processors: interrupts, which take the processors of
        // whoever is at the lowest levels.
        let lowest = if holders > processors {
            let mut levels: Vec<_> = self.contexts.values().map(|c| c.irql).collect();
            levels.sort_unstable_by(|a, b| b.cmp(a));
            levels[processors.max(1) - 1].max(DISPATCH_LEVEL)
        } else {
            DISPATCH_LEVEL
        };
        ready.retain(|id| self.context(*id).irql >= lowest);
        false
    }

    /// Does what is due and chooses who runs next.
    fn decide(&mut self) -> Choice {
        self.expire_due_timers();
        crate::ex::dispatch_work(self);
        let mut ready = std::mem::take(&mut self.ready);
        let dpc_can_start = self.find_ready(&mut ready);
        if let Some(ran) = self.scheduler.recorded() {
            let call = self.contexts.get(ran).and_then(|ran| ran.calls.last());
            self.scheduler.at = call.map_or(crate::strategy::EDGE, |call| call.name);
        }
        let choice = self.scheduler.choose(&ready, dpc_can_start);
        self.ready = ready;
        choice
    }

    /// A preemption point of the context that runs: somebody is chosen to go on.
    ///
    /// If it is the context itself, it need not leave its coroutine for that.
    pub(crate) fn preempt(&mut self) -> Flow {
        let me = self.running();
        fault::runs();
        if self.steps >= self.give_up.step || self.now > self.give_up.time {
            self.give_up();
        }
        // What is due happens in nobody's context.
        self.current = None;
        let choice = self.decide();
        self.current = Some(me);
        if choice == Choice::Context(me) && !self.ambush.is_armed() {
            self.steps += 1;
            return Flow::Continue;
        }
        // With nobody to run, `run` looks for itself.
        self.decided = (choice != Choice::Nothing).then_some(choice);
        Flow::Switch
    }

    /// Runs the machine until a thread has ended, for as long as the settings let it.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn run_to_end_of(&mut self, thread: ThreadId) -> Result<Ran, Box<Stop>> {
        let time = u64::try_from(self.settings.time_limit.as_nanos() / 100).unwrap_or(u64::MAX);
        self.give_up = GiveUp {
            thread: Some(thread),
            begun: (self.steps, self.now),
            step: self.steps.saturating_add(self.settings.step_limit),
            time: self.now.saturating_add(time),
        };
        let ran = self.run(&mut |k| k.threads[&thread].exited);
        self.give_up = GiveUp::default();
        ran
    }

    /// Ends the simulation if the thread that is waited for takes too long.
    #[cold]
    fn give_up(&mut self) {
        if let Some(thread) = self.give_up.thread
            && !self.threads[&thread].exited
        {
            let stop = crate::hang::gave_up(self, thread, self.give_up.begun);
            self.stop(stop);
        }
    }

    /// Runs the machine until `until` holds or nothing is left to do.
    ///
    /// `until` is asked whenever a context has blocked or ended, and before
    /// anything runs: it must not be what a context can make true and go on.
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation.
    pub(crate) fn run(&mut self, until: &mut dyn FnMut(&Kernel) -> bool) -> Result<Ran, Box<Stop>> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        fault::watch(self.settings.processor_limit);
        loop {
            let choice = match self.decided.take() {
                Some(choice) => choice,
                None if until(self) => return Ok(Ran::Until),
                None => self.guarded(Self::decide)?,
            };
            match choice {
                Choice::Context(id) => self.step(id)?,
                Choice::Dpc => {
                    let dpc = self
                        .dpcs
                        .pop_front()
                        .expect("the scheduler was told that there is one");
                    self.queued_dpcs.remove(&dpc.key);
                    let id = self.spawn(dpc.name, DISPATCH_LEVEL, None, dpc.run);
                    self.scheduler.started(id);
                    self.step(id)?;
                }
                Choice::Diverged(divergence) => self.guarded(|k| {
                    let stop = Stop::diverged(k, divergence);
                    k.stop(stop)
                })?,
                Choice::Nothing => match self.timers.first_key_value() {
                    Some((key, _)) if key.due == u64::MAX => return Ok(Ran::Idle),
                    Some((key, _)) if crate::wdf::watchdog::bites_before(self, key.due) => {
                        self.guarded(crate::wdf::watchdog::bite)?;
                    }
                    Some((key, _)) => {
                        let by = key.due.saturating_sub(self.now);
                        self.advance(by);
                        if self.now > self.give_up.time || self.steps >= self.give_up.step {
                            self.guarded(Self::give_up)?;
                        }
                    }
                    None => return Ok(Ran::Idle),
                },
            }
        }
    }

    /// When the next timer is due, in interrupt time.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        self.timers.first_key_value().map(|(key, _)| key.due)
    }

    fn can_any_run(&self) -> bool {
        let mut ready = Vec::new();
        self.find_ready(&mut ready);
        !ready.is_empty()
    }

    /// Whether anything could run without time passing.
    pub(crate) fn is_busy(&self) -> bool {
        !self.dpcs.is_empty()
            || self.can_any_run()
            || crate::ex::has_work(self)
            || self.next_timer().is_some_and(|due| due <= self.now)
    }

    /// Runs `f`, turning [`Kernel::stop`] inside it into an error.
    pub(crate) fn guarded<R>(&mut self, f: impl FnOnce(&mut Kernel) -> R) -> Result<R, Box<Stop>> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(self))) {
            Ok(value) => Ok(value),
            Err(payload) => Err(self.stopped_by(payload)),
        }
    }

    /// The stop that a panic carries; any other panic goes on.
    fn stopped_by(&mut self, payload: Box<dyn Any + Send>) -> Box<Stop> {
        match payload.downcast::<Stopping>() {
            Ok(stopping) => {
                self.stopped = Some(stopping.0.clone());
                stopping.0
            }
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Lets one context run to its next preemption point, block or end.
    fn step(&mut self, id: ContextId) -> Result<(), Box<Stop>> {
        self.steps += 1;
        if let Some(stop) = crate::inject::before_step(self) {
            self.guarded(|k| k.stop(stop))?;
        }
        let mut co = self
            .context_mut(id)
            .co
            .take()
            .expect("a ready context is not running");
        self.current = Some(id);
        crate::ex::pool::page(self);
        let counter = self.counter.as_deref().map(std::ptr::from_ref);
        let resumed = trap::serve(self, || {
            // SAFETY: the counter is in a box of its own, which lives as long as
            // the kernel; nothing but `add`, between two runs, changes it.
            let counter = counter.map(|counter| unsafe { &*counter });
            crate::count::with(counter, || fault::resume(&mut co, ()))
        });
        let exit = match resumed {
            Resumed::Yield(request) => {
                self.current = None;
                if self.context(id).ended {
                    self.contexts.remove(id);
                    // SAFETY: the driver ended its thread from within; what is
                    // on the stack is the driver's, which never runs there again.
                    unsafe { co.force_reset() };
                    stacks::give_back(self.settings.stack_size, co.into_stack());
                } else {
                    // Of one that stopped the machine it stays for the report.
                    self.context_mut(id).co = Some(co);
                }
                return match request {
                    Request::Switch => Ok(()),
                    Request::End(payload) => Err(self.stopped_by(payload)),
                };
            }
            Resumed::Return(exit) => exit,
            Resumed::Fault(fault) => Exit::Faulted(fault),
        };
        let result = self.finish(id, exit);
        stacks::give_back(self.settings.stack_size, co.into_stack());
        self.current = None;
        result
    }

    fn finish(&mut self, id: ContextId, exit: Exit) -> Result<(), Box<Stop>> {
        match exit {
            Exit::Returned => self.guarded(|k| {
                let irql = k.context(id).irql;
                crate::ke::context_ends(k, id, irql);
                k.contexts.remove(id);
            }),
            Exit::Panicked(message) => {
                self.guarded(|k| k.bug_check(BugCheck::rust_panic(&message)))
            }
            Exit::Faulted(fault)
                if fault.kind == FaultKind::Watchdog && self.irql() < DISPATCH_LEVEL =>
            {
                self.guarded(|k| {
                    let stop = Stop::watchdog(k, &fault);
                    k.stop(stop)
                })
            }
            Exit::Faulted(fault) => self.guarded(|k| {
                let stop = crate::exception::stop(k, &fault);
                k.stop(stop)
            }),
            Exit::Abandoned => unreachable!("fault::resume replaces it"),
        }
    }

    /// Ends the current context's thread at once, as `PsTerminateSystemThread`
    /// does: its stack is given up, not unwound.
    pub(crate) fn end_current(&mut self) {
        let id = self.running();
        let irql = self.context(id).irql;
        crate::ke::context_ends(self, id, irql);
        let context = self.context_mut(id);
        context.state = State::Waiting;
        context.ended = true;
    }

    /// Ends the simulation with a bug check.
    pub(crate) fn bug_check(&mut self, bug_check: BugCheck) -> ! {
        let stop = Stop::bug_check(self, bug_check);
        self.stop(stop)
    }

    /// Ends the simulation: leaves the trap that is being served, and the
    /// context that made it is never resumed.
    #[expect(
        clippy::unused_self,
        reason = "only who has the kernel, inside a trap, may end it"
    )]
    pub(crate) fn stop(&mut self, stop: Stop) -> ! {
        std::panic::resume_unwind(Box::new(Stopping(Box::new(stop))))
    }

    // ---- names and trace --------------------------------------------

    /// Names the thing at `address` for the trace, e.g. `event#3`.
    pub(crate) fn name(&mut self, address: usize, kind: &'static str) {
        let count = self.names.counts.entry(kind).or_insert(0);
        *count += 1;
        let name = Name::Numbered(kind, *count, OnceCell::new());
        self.names.by_address.insert(address, name);
    }

    /// Gives the thing at `address` this very name.
    pub(crate) fn name_as(&mut self, address: usize, name: String) {
        self.names.by_address.insert(address, Name::Given(name));
    }

    pub(crate) fn unname(&mut self, address: usize) {
        self.names.by_address.remove(&address);
    }

    pub(crate) fn name_of(&self, address: usize) -> Option<&str> {
        self.names.by_address.get(&address).map(Name::text)
    }

    pub(crate) fn show_address(&self, address: usize, out: &mut String) {
        if address == 0 {
            out.push_str("NULL");
        } else if let Some(name) = self.names.by_address.get(&address) {
            out.push_str(name.text());
        } else {
            out.push_str("ptr");
        }
    }

    fn push_line(&mut self, what: Event) {
        if !self.settings.trace {
            return;
        }
        let (id, who, irql, depth) = match self.current {
            Some(id) => {
                let context = self.context(id);
                (id.0, context.name.clone(), context.irql, context.depth)
            }
            None => (0, "machine".to_owned(), PASSIVE_LEVEL, 0),
        };
        self.trace.push(Line {
            time: self.boot_offset + self.now,
            context: id,
            who,
            irql,
            depth,
            what,
        });
    }

    /// Writes `what`, after the entries of the calls that the context is in.
    pub(crate) fn log(&mut self, what: Event) {
        self.tell_open_calls();
        self.push_line(what);
    }

    /// Writes that the context's calls were entered, where no line says so yet:
    /// something is about to happen inside them.
    pub(crate) fn tell_open_calls(&mut self) {
        let Some(id) = self.current.filter(|_| self.settings.trace) else {
            return;
        };
        let untold: Vec<_> = self
            .context_mut(id)
            .calls
            .iter_mut()
            .filter_map(|call| {
                let told = std::mem::replace(&mut call.told, true);
                (!told).then(|| (call.name, call.args.clone()))
            })
            .collect();
        for (name, args) in untold {
            self.push_line(Event::Enter { name, args });
            self.context_mut(id).depth += 1;
        }
    }

    /// Notes the call whose body is about to run. Part of [`trap::call`].
    pub(crate) fn enter_call(
        &mut self,
        name: &'static str,
        args: &[(&'static str, &dyn Arg)],
        from: Registers,
    ) {
        let id = self.running();
        let mut text = String::new();
        for (name, value) in args.iter().filter(|_| self.settings.trace) {
            let mut shown = String::new();
            value.show(self, &mut shown);
            if shown.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = write!(text, "{name}={shown}");
        }
        self.context_mut(id).calls.push(OpenCall {
            name,
            args: text,
            told: false,
            from,
        });
        self.calls_at_this_time += 1;
        if self.calls_at_this_time > self.settings.livelock_limit {
            let stop = Stop::livelock(self, name);
            self.stop(stop);
        }
    }

    /// Traces the call that returns. Part of [`trap::call`].
    pub(crate) fn leave_call(&mut self, result: &dyn Arg) {
        let id = self.running();
        let Some(call) = self.context_mut(id).calls.pop() else {
            return;
        };
        if !self.settings.trace {
            return;
        }
        let mut text = String::new();
        result.show(self, &mut text);
        if call.told {
            self.context_mut(id).depth -= 1;
            self.push_line(Event::Return {
                name: call.name,
                result: text,
            });
        } else {
            self.push_line(Event::Call {
                name: call.name,
                args: call.args,
                result: text,
            });
        }
    }

    /// How many calls the context is in.
    pub(crate) fn open_call_count(&self, id: ContextId) -> usize {
        self.context(id).calls.len()
    }

    /// The function of the kernel's or the framework's that runs, if it is not the
    /// driver's own code.
    pub(crate) fn kernel_call(&self) -> Option<&'static str> {
        let context = self.context(self.current?);
        let inside = context.calls.get(context.calls_outside..)?;
        inside.last().map(|call| call.name)
    }

    /// Where the innermost call that the context is in was made. While it is
    /// suspended, the stack above that is as it was.
    pub(crate) fn innermost_call(&self, id: ContextId) -> Option<Registers> {
        self.context(id).calls.last().map(|call| call.from)
    }

    /// The calls that the context is in, outermost first, with their arguments if
    /// the machine traces.
    pub(crate) fn open_calls(&self, id: ContextId) -> impl Iterator<Item = (&'static str, &str)> {
        self.context(id).calls.iter().map(|call| {
            let args = if self.settings.trace {
                call.args.as_str()
            } else {
                "..."
            };
            (call.name, args)
        })
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if let Some(tape) = &self.settings.tape {
            tape.add_trace(&self.trace);
        }
        for context in self.contexts.values_mut() {
            if let Some(mut co) = context.co.take() {
                // SAFETY: nothing on the abandoned stack is looked at again:
                // the kernel that could resume it is going away. What driver
                // code keeps there is leaked, as it is when a machine stops.
                unsafe { co.force_reset() };
                stacks::give_back(self.settings.stack_size, co.into_stack());
            }
        }
    }
}
