// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a thing comes from: the driver's calls that took a lock, allocated a
//! block or set a timer, kept until a report asks.
//!
//! Unwinding a stack takes microseconds and naming its frames milliseconds, so
//! neither happens when the thing is made: the registers and the innermost part of
//! the stack are copied, and unwound from the copy if it comes to a report.

use crate::fault::Registers;
use crate::image::unwind::Unwinder;
use crate::kernel::{ContextId, Kernel};
use crate::report::{self, Frame};

/// How much of the stack is kept: a few frames of a driver, and of ntsim's own
/// below them, which are large without optimisation.
const KEPT: usize = if cfg!(debug_assertions) { 3072 } else { 1024 };

/// Where a call into the kernel was made.
#[derive(Clone, Debug)]
pub(crate) struct Origin(Box<Place>);

#[derive(Clone, Debug)]
struct Place {
    registers: Registers,
    /// The stack from `registers.rsp` on.
    stack: Box<[u8]>,
}

/// Of so many things of a kind at a time their origins are kept, so that a million
/// timers do not take a gigabyte.
const MOST: usize = 1024;

impl Origin {
    /// Of the call that the running context is in; `None` if it is in none.
    pub(crate) fn here(k: &Kernel) -> Option<Self> {
        Self::of(k, k.current?)
    }

    /// Of the call that a context is in; `None` without [backtraces].
    ///
    /// [backtraces]: crate::Settings::backtraces
    pub(crate) fn of(k: &Kernel, id: ContextId) -> Option<Self> {
        if !k.settings.backtraces {
            return None;
        }
        let registers = k.innermost_call(id)?;
        let stack = k.context(id).stack.clone();
        let start = usize::try_from(registers.rsp).ok()?;
        if !stack.contains(&start) {
            return None;
        }
        let length = KEPT.min(stack.end - start);
        // SAFETY: these bytes lie on the context's stack, which is mapped as long as
        // the context is, above the stack pointer of a frame that is still there; the
        // context is suspended, so nobody writes to them meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, length) };
        Some(Self(Box::new(Place {
            registers,
            stack: bytes.into(),
        })))
    }

    /// As [`here`](Self::here), for one of `others` things of its kind.
    pub(crate) fn of_one_of(k: &Kernel, others: usize) -> Option<Self> {
        if others < MOST { Self::here(k) } else { None }
    }

    /// The code addresses, innermost first.
    fn addresses(&self, k: &Kernel) -> Vec<u64> {
        let Place { registers, stack } = &*self.0;
        Unwinder::new(&k.io.loaded_images()).walk(registers, |address| {
            let offset = address.checked_sub(registers.rsp)?;
            let offset = usize::try_from(offset).ok()?;
            let bytes = stack.get(offset..offset.checked_add(8)?)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        })
    }

    /// The frames, innermost first.
    pub(crate) fn frames(&self, k: &Kernel) -> Vec<Frame> {
        report::locate(k, &[self.addresses(k)]).remove(0)
    }
}

/// Something that explains a stop and happened before it, with its backtrace.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Related {
    /// What happened there, e.g. `thread#1 took spinlock#2 (KeAcquireSpinLockRaiseToDpc)`.
    pub what: String,
    /// Frames, innermost first.
    pub backtrace: Vec<Frame>,
}

impl Related {
    pub(crate) fn new(k: &Kernel, what: String, origin: Option<&Origin>) -> Self {
        Self {
            what,
            backtrace: origin.map(|origin| origin.frames(k)).unwrap_or_default(),
        }
    }
}
