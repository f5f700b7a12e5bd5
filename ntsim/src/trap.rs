// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way from driver code into the simulated kernel and back.
//!
//! Driver code runs on a coroutine with a kernel-sized stack; the kernel runs
//! on the host's stack. A *trap* carries a closure across: the coroutine
//! suspends with a pointer to the closure, the scheduler runs it with
//! `&mut Kernel` and resumes the coroutine.
//!
//! # Vocabulary
//! - *trap*: one crossing. It never lets another thread run ([`kernel`]).
//! - *preemption point*: a trap at which the scheduler may choose another
//!   thread. Every call that a driver makes is one, at its entry ([`call`]).
//! - *block*: a trap after which the thread runs again only when the kernel
//!   says so ([`block`]).
//!
//! ```text
//!  driver code        trap           scheduler loop (host stack)
//!  -----------        ----           ---------------------------
//!  KeSetEvent(e) ──► suspend(Call) ─► closure(&mut Kernel)
//!                                     choose the next runnable context
//!        ◄───────── resume ◄───────── ...
//! ```
//!
//! What runs on the driver's side of this module (the bodies of simulated
//! functions outside a trap) may call driver callbacks, which is how KMDF's
//! own code calls a driver; what runs inside a trap may not.

use std::cell::Cell;

use corosensei::Yielder;

use crate::fault::{Fault, Registers};
use crate::kernel::Kernel;
use crate::trace::Arg;

/// What a coroutine asks of the scheduler when it suspends.
pub(crate) enum Request {
    /// Run the closure, then go on according to the [`Flow`] it returns.
    Call(*mut (dyn FnMut(&mut Kernel) -> Flow + 'static)),
}

/// How a context goes on after its trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Resume at once: nobody else may run in between.
    Continue,
    /// Stay runnable, but let the scheduler choose who runs next.
    Preempt,
    /// Not runnable until the kernel makes it so.
    Block,
}

/// What a coroutine hands back when it ends.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Its function returned.
    Returned,
    /// A processor exception ended it.
    Faulted(Box<Fault>),
    /// What [`crate::fault::resume`] needs in place of a value until it has the fault.
    Abandoned,
    /// A Rust panic reached its base (only drivers linked into the host unwind).
    Panicked(String),
}

impl crate::fault::Abandoned for Exit {
    fn abandoned() -> Self {
        Self::Abandoned
    }
}

pub(crate) type ContextYielder = Yielder<(), Request>;

thread_local! {
    /// The yielder of the coroutine that runs on this operating-system thread.
    static YIELDER: Cell<*const ContextYielder> = const { Cell::new(std::ptr::null()) };
}

/// Makes `yielder` the way into the kernel while a coroutine runs.
pub(crate) fn set_yielder(yielder: *const ContextYielder) {
    YIELDER.with(|cell| cell.set(yielder));
}

/// The yielder that is in place, to be saved across a switch.
pub(crate) fn yielder() -> *const ContextYielder {
    YIELDER.with(Cell::get)
}

/// Whether the caller is a simulated thread or DPC.
#[must_use]
pub fn inside_simulation() -> bool {
    !yielder().is_null()
}

fn suspend(request: Request) {
    let yielder = yielder();
    assert!(
        !yielder.is_null(),
        "a simulated kernel function was called outside of a simulated thread: \
         wrap the code in ntsim::run(|| ...) or Machine::run_thread"
    );
    // SAFETY: `YIELDER` is non-null only while the coroutine that owns the
    // yielder runs, and that coroutine is the caller: the yielder lives at the
    // base of the stack we are on.
    unsafe { &*yielder }.suspend(request);
    // The scheduler may have run other coroutines in between.
    set_yielder(yielder);
}

fn trap<R>(f: impl FnOnce(&mut Kernel) -> (R, Flow)) -> R {
    let mut f = Some(f);
    let mut out = None;
    let mut body = |k: &mut Kernel| {
        let f = f.take().expect("the scheduler runs a trap once");
        let (value, flow) = f(k);
        out = Some(value);
        flow
    };
    let body: *mut (dyn FnMut(&mut Kernel) -> Flow + '_) = &raw mut body;
    #[expect(
        clippy::transmute_ptr_to_ptr,
        reason = "a cast cannot lengthen a trait object's lifetime"
    )]
    // SAFETY: only the lifetime changes. The scheduler uses the pointer before
    // it resumes this coroutine, so while `body` is alive on this stack; a
    // coroutine that is never resumed never has its request looked at again.
    let body = unsafe {
        std::mem::transmute::<
            *mut (dyn FnMut(&mut Kernel) -> Flow + '_),
            *mut (dyn FnMut(&mut Kernel) -> Flow + 'static),
        >(body)
    };
    suspend(Request::Call(body));
    out.expect("the scheduler ran the trap before it resumed the caller")
}

/// Runs `f` in the kernel. No other thread runs before it returns.
pub(crate) fn kernel<R>(f: impl FnOnce(&mut Kernel) -> R) -> R {
    trap(|k| (f(k), Flow::Continue))
}

/// Lets the scheduler choose who runs next; the caller stays runnable.
pub(crate) fn preempt() {
    trap(|_| ((), Flow::Preempt));
}

/// What a [`block`]ing closure decided.
pub(crate) enum Blocking<R> {
    /// Nothing to wait for: go on with this value.
    Now(R),
    /// The context's state was set to waiting; [`block`] runs its `after`
    /// closure when it is woken.
    Wait,
}

/// Runs `f` in the kernel; if it says [`Blocking::Wait`], sleeps until the
/// kernel wakes the context and then runs `after` for the value.
pub(crate) fn block<R>(
    f: impl FnOnce(&mut Kernel) -> Blocking<R>,
    after: impl FnOnce(&mut Kernel) -> R,
) -> R {
    let now = trap(|k| match f(k) {
        Blocking::Now(value) => (Some(value), Flow::Continue),
        Blocking::Wait => (None, Flow::Block),
    });
    match now {
        Some(value) => value,
        None => kernel(after),
    }
}

/// The frame around every function that a driver calls: a preemption point,
/// then the body, then the trace line with arguments and result.
///
/// While a panic unwinds through the driver its destructors may call; those
/// calls run without preemption, so that unwinding cannot wander off.
pub(crate) fn call<R: Arg>(
    name: &'static str,
    args: &[(&'static str, &dyn Arg)],
    body: impl FnOnce() -> R,
) -> R {
    let unwinding = std::thread::panicking();
    let from = Registers::here();
    trap(|k| {
        k.enter_call(name, args, from);
        (
            (),
            if unwinding {
                Flow::Continue
            } else {
                Flow::Preempt
            },
        )
    });
    let result = body();
    kernel(|k| k.leave_call(&result));
    result
}
