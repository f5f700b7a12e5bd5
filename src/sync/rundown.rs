// SPDX-License-Identifier: MIT OR Apache-2.0

//! Rundown: letting calls in until the door is shut, and waiting for those inside.
//!
//! ```text
//!            open                 shut                  last one leaves
//!   shut ───────────► open(n) ───────────► shutting(n) ───────────────► shut
//!                     enter: n + 1         enter: refused
//!                     leave: n - 1         leave: n - 1
//! ```
//!
//! The race that matters is between the last one to leave and the one that shuts:
//!
//! ```text
//!   shut()                                leave()
//!   fetch_or(SHUT) → 1 inside
//!                                         fetch_sub(ENTRY) → was SHUT | 1 inside
//!   wait(event)                           set(event)          wait ends
//! ```
//!
//! If `leave` comes first, `shut` sees nobody inside and does not wait, and
//! `leave`, which saw no `SHUT`, does not touch the event: after `shut`
//! returned nobody uses the rundown's memory.

use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::event::{EventKind, RawEvent};
use super::wait::Wait;
use crate::status::{NtStatus, Result};
use crate::time::Timeout;

/// Set while nobody may enter.
const SHUT: usize = 1;
/// What one entry adds.
const ENTRY: usize = 2;

/// Whether calls were inside when the rundown was shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Inside {
    /// Nobody: there is nothing to wait for.
    Nobody,
    /// Somebody, who will set the event.
    Somebody,
}

pub(crate) struct Rundown {
    /// `SHUT`, and `ENTRY` times the number of calls inside.
    state: AtomicUsize,
    /// Signaled by the last one to leave a rundown that is being shut.
    empty: RawEvent,
}

impl Rundown {
    /// Memory for a rundown that is shut.
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicUsize::new(SHUT),
            empty: RawEvent::new(),
        }
    }

    fn empty(self: Pin<&Self>) -> Pin<&RawEvent> {
        // SAFETY: a field of something pinned, which is never moved out.
        unsafe { self.map_unchecked(|this| &this.empty) }
    }

    /// Lets callers in.
    ///
    /// # Safety
    /// The rundown is shut and nobody is inside.
    pub(crate) unsafe fn open(self: Pin<&Self>) {
        // SAFETY: nobody is inside, so nobody waits.
        unsafe { self.empty().initialize(EventKind::Notification) };
        self.state.store(0, Ordering::Release);
    }

    /// Whether callers are let in now.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // Acquire: what was done before `open` is seen.
        self.state.load(Ordering::Acquire) & SHUT == 0
    }

    /// Enters.
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the rundown is shut.
    pub(crate) fn enter(&self) -> Result {
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |state| {
                (state & SHUT == 0).then_some(state + ENTRY)
            })
            .map(drop)
            .map_err(|_| NtStatus::INVALID_DEVICE_STATE)
    }

    /// Leaves.
    ///
    /// # Safety
    /// The caller entered, and leaves once.
    pub(crate) unsafe fn leave(&self) {
        // Release: what was done inside happens before `shut` returns.
        if self.state.fetch_sub(ENTRY, Ordering::Release) == SHUT | ENTRY {
            self.empty.signal();
        }
    }

    /// Refuses new callers from now on, and tells whether some are inside.
    pub(crate) fn shut(&self) -> Inside {
        match self.state.fetch_or(SHUT, Ordering::Acquire) & !SHUT {
            0 => Inside::Nobody,
            _ => Inside::Somebody,
        }
    }

    /// Waits until those who were inside have left.
    ///
    /// The decision rests on what `shut` saw, not on the state now: the last
    /// one to leave may have counted itself out and not yet set the event.
    ///
    /// # Safety
    /// The level is `PASSIVE_LEVEL`, the caller is not inside, and `inside` is
    /// what the one call of `shut` since `open` returned.
    pub(crate) unsafe fn wait(&self, inside: Inside) {
        match inside {
            Inside::Nobody => {}
            Inside::Somebody => {
                // SAFETY: the caller's promise.
                let _ = unsafe { Wait::ADVISED.single(&self.empty, Timeout::Never) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_rundown_lets_nobody_in() {
        assert_eq!(Rundown::new().enter(), Err(NtStatus::INVALID_DEVICE_STATE));
    }
}
