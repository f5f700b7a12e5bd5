// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way from driver code into the simulated kernel and back.
//!
//! Driver code runs on a coroutine with a kernel-sized stack; the kernel runs
//! on the host's stack. A *trap* carries a closure across: it runs on the host's
//! stack, above what the scheduler has there, with `&mut Kernel`. The coroutine
//! suspends only if somebody else is to run.
//!
//! # Vocabulary
//! - *trap*: one crossing. It never lets another thread run ([`kernel`]).
//! - *preemption point*: a trap at which the scheduler may choose another
//!   thread. Every call that a driver makes is one, at its entry ([`call`]).
//! - *block*: a trap after which the thread runs again only when the kernel
//!   says so ([`block`]).
//!
//! ```text
//!  driver code        trap (host stack)         scheduler loop (host stack)
//!  -----------        -----------------         ---------------------------
//!  KeSetEvent(e) ──►  closure(&mut Kernel)
//!                     choose who runs next
//!        ◄─────────── the same
//!                     another ── suspend ─────► resume the other
//!        ◄───────────────────────────────────── ... resume
//! ```
//!
//! What runs on the driver's side of this module (the bodies of simulated
//! functions outside a trap) may call driver callbacks, which is how KMDF's
//! own code calls a driver; what runs inside a trap may not.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::Yielder;

use crate::fault::{Fault, Registers};
use crate::kernel::Kernel;
use crate::rules::irql::{self, Range};
use crate::trace::Arg;

/// Why a coroutine suspends.
pub(crate) enum Request {
    /// Somebody else is to run, or nobody until the kernel wakes it.
    Switch,
    /// A trap of it panicked, which ends the simulation: it is not to be resumed.
    End(Box<dyn Any + Send>),
}

/// How a context goes on after its trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// At once: nobody else may run in between.
    Continue,
    /// When the scheduler resumes it.
    Switch,
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
    /// The yielder of the coroutine that runs on this operating-system thread;
    /// null while the kernel runs.
    static YIELDER: Cell<*const ContextYielder> = const { Cell::new(std::ptr::null()) };
    /// The kernel whose coroutine runs on this operating-system thread.
    static KERNEL: Cell<*mut Kernel> = const { Cell::new(std::ptr::null_mut()) };
}

/// Runs `resume`, which lets a coroutine of `kernel` run, whose traps use the
/// kernel meanwhile.
///
/// `resume` uses neither the kernel nor anything that is borrowed from it.
pub(crate) fn serve<R>(kernel: &mut Kernel, resume: impl FnOnce() -> R) -> R {
    let before = KERNEL.replace(kernel);
    let result = resume();
    KERNEL.set(before);
    set_yielder(std::ptr::null());
    result
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

/// A closure that runs on the host's stack.
struct OnHostStack<F>(F);

// SAFETY: the stack changes, not the operating-system thread. corosensei asks for
// `Send` so that no reference to the yielder gets to the other stack, where
// suspending would be wrong; `trap` takes `YIELDER` away, which is the only way
// to one.
unsafe impl<F> Send for OnHostStack<F> {}

impl<F: FnOnce() -> R, R> OnHostStack<F> {
    fn run(self) -> R {
        (self.0)()
    }
}

fn trap<R>(f: impl FnOnce(&mut Kernel) -> (R, Flow)) -> R {
    let yielder = YIELDER.replace(std::ptr::null());
    assert!(
        !yielder.is_null(),
        "a simulated kernel function was called outside of a simulated thread: \
         wrap the code in ntsim::run(|| ...) or Machine::run_thread"
    );
    let kernel = KERNEL.get();
    let work = OnHostStack(|| {
        // A panic must not unwind the driver's frames: the scheduler gets it.
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `serve` has the kernel exclusively while it resumes the
            // coroutine that this is, and does not touch it before that comes
            // back; and no trap is inside of another, since `YIELDER` is null
            // during this one.
            let k = unsafe { &mut *kernel };
            let result = f(k);
            crate::ex::pool::page(k);
            result
        }))
    });
    // SAFETY: `YIELDER` is non-null only while the coroutine that owns the
    // yielder runs, and that coroutine is the caller: the yielder lives at the
    // base of the stack we are on.
    let way_out = unsafe { &*yielder };
    let end = match way_out.on_parent_stack(move || work.run()) {
        Ok((value, Flow::Continue)) => {
            set_yielder(yielder);
            return value;
        }
        Ok((value, Flow::Switch)) => {
            way_out.suspend(Request::Switch);
            set_yielder(yielder);
            return value;
        }
        Err(payload) => payload,
    };
    way_out.suspend(Request::End(end));
    unreachable!("a coroutine whose trap panicked is not resumed")
}

/// Runs `f` in the kernel. No other thread runs before it returns.
pub(crate) fn kernel<R>(f: impl FnOnce(&mut Kernel) -> R) -> R {
    trap(|k| (f(k), Flow::Continue))
}

/// Lets the scheduler choose who runs next; the caller stays runnable.
pub(crate) fn preempt() {
    trap(|k| ((), k.preempt()));
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
        Blocking::Wait => (None, Flow::Switch),
    });
    match now {
        Some(value) => value,
        None => kernel(after),
    }
}

/// The frame around every function that a driver calls: a preemption point,
/// then the body, then the trace line with arguments and result. `range` is where
/// the function may be called.
///
/// While a panic unwinds through the driver its destructors may call; those
/// calls run without preemption, so that unwinding cannot wander off.
pub(crate) fn call<R: Arg>(
    name: &'static str,
    range: Range,
    args: &[(&'static str, &dyn Arg)],
    body: impl FnOnce() -> R,
) -> R {
    let unwinding = std::thread::panicking();
    let from = Registers::here();
    trap(|k| {
        k.enter_call(name, args, from);
        if !range.contains(k.irql()) {
            irql::outside(k, name);
        }
        let flow = if unwinding {
            Flow::Continue
        } else {
            k.preempt()
        };
        ((), flow)
    });
    let result = body();
    kernel(|k| k.leave_call(&result));
    result
}
