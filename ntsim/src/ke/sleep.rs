// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sleeping on an address: how the locks that are no dispatcher objects wait.
//!
//! ```text
//!   loop {                        // in the caller's context
//!       if it can be had { take it; return }
//!       sleep(key)                // until somebody wakes the key
//!   }
//! ```
//!
//! Nobody runs between the look and the sleep, so a wake is never missed. Who
//! of the woken comes first is the scheduler's choice, as it is nobody's
//! promise on Windows either.

use crate::kernel::{Kernel, State};
use crate::trap::{Blocking, block};

/// Takes what `attempt` takes, asleep between attempts until `key` is woken.
pub(crate) fn until<R>(key: usize, mut attempt: impl FnMut(&mut Kernel) -> Option<R>) -> R {
    loop {
        let taken = block(
            |k| {
                if let Some(taken) = attempt(k) {
                    Blocking::Now(Some(taken))
                } else {
                    fall_asleep(k, key);
                    Blocking::Wait
                }
            },
            |_| None,
        );
        if let Some(taken) = taken {
            return taken;
        }
    }
}

/// Sleeps until `key` is woken, perhaps for somebody else's sake.
pub(crate) fn sleep(key: usize) {
    block(
        |k| {
            fall_asleep(k, key);
            Blocking::Wait
        },
        |_| (),
    );
}

fn fall_asleep(k: &mut Kernel, key: usize) {
    k.tell_open_calls();
    let me = k.running();
    k.context_mut(me).state = State::Spinning(key);
    crate::locks::waits(k);
}

/// Lets everybody who sleeps on `key` look again.
pub(crate) fn wake(k: &mut Kernel, key: usize) {
    let asleep: Vec<_> = k
        .contexts()
        .filter(|(_, context)| context.state == State::Spinning(key))
        .map(|(id, _)| id)
        .collect();
    for id in asleep {
        k.make_ready(id);
    }
}
