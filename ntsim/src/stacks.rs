// SPDX-License-Identifier: MIT OR Apache-2.0

//! Stacks for coroutines, used again and again.
//!
//! Mapping a stack costs more than all that a short test does on it. Those that
//! are not in use wait here for the next context or the next machine of the same
//! operating-system thread, which finds on them what the last one left, as a driver
//! does on Windows.

use std::cell::RefCell;

use corosensei::stack::DefaultStack;

/// How many stacks wait at most.
const KEPT: usize = 64;

thread_local! {
    /// By the size that was asked for.
    static IDLE: RefCell<Vec<(usize, DefaultStack)>> = const { RefCell::new(Vec::new()) };
}

/// A stack of at least `size` bytes.
///
/// # Panics
/// If the host has no memory for one more.
pub(crate) fn take(size: usize) -> DefaultStack {
    let idle = IDLE.with_borrow_mut(|idle| {
        let at = idle.iter().rposition(|(other, _)| *other == size)?;
        Some(idle.swap_remove(at).1)
    });
    idle.unwrap_or_else(|| DefaultStack::new(size).expect("the host has memory for one more stack"))
}

/// Takes a stack of `size` bytes back that nobody uses any more.
pub(crate) fn give_back(size: usize, stack: DefaultStack) {
    // Without effect while the operating-system thread ends.
    let _ = IDLE.try_with(|idle| {
        let mut idle = idle.borrow_mut();
        if idle.len() < KEPT {
            idle.push((size, stack));
        }
    });
}
