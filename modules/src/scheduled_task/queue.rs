// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Queue`]: first in, first out, in pool memory.

use core::mem;

use dmf::NtStatus;
use dmf::pool::Vec;

/// The contexts of the runs that were asked for, oldest first.
///
/// Contexts of no size, as those of a plain [`ScheduledTask`](super::ScheduledTask)
/// are, take no memory: the queue is then a counter.
pub(super) struct Queue<C> {
    /// What came in last, in the order in which it came.
    incoming: Vec<C>,
    /// What goes out first, in the reverse order.
    outgoing: Vec<C>,
}

impl<C> Queue<C> {
    pub(super) const fn new() -> Self {
        Self {
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// Contexts of no size cannot be told apart: they need no order.
    const IS_COUNTER: bool = size_of::<C>() == 0;

    pub(super) fn is_empty(&self) -> bool {
        self.incoming.is_empty() && (Self::IS_COUNTER || self.outgoing.is_empty())
    }

    /// Adds a context. If there is no memory for it, it comes back.
    pub(super) fn push(&mut self, context: C) -> Result<(), (NtStatus, C)> {
        self.incoming.push_or_return(context)
    }

    /// Takes the oldest.
    pub(super) fn pop(&mut self) -> Option<C> {
        if Self::IS_COUNTER {
            return self.incoming.pop();
        }
        if self.outgoing.is_empty() {
            if self.incoming.is_empty() {
                return None;
            }
            mem::swap(&mut self.incoming, &mut self.outgoing);
            self.outgoing.reverse();
        }
        self.outgoing.pop()
    }
}
