// SPDX-License-Identifier: MIT OR Apache-2.0

//! `KMUTEX`: <https://learn.microsoft.com/windows-hardware/drivers/kernel/mutex-objects>
//!
//! Owning a mutex keeps normal kernel APCs away; ntsim delivers none, so that
//! has no effect to see.

use crate::access::peek;
use crate::trap::kernel;
use crate::{locks, rules};

use super::dispatcher::{self, Header, Object, initialize};

/// `KeInitializeMutex`.
pub(crate) fn ke_initialize_mutex(mutex: *mut Header, _level: u32) {
    initialize(
        mutex,
        Object::Mutex {
            owner: None,
            depth: 0,
            abandoned: false,
        },
    );
}

/// `KeReleaseMutex`. Returns 0 when the mutex became free.
pub(crate) fn ke_release_mutex(mutex: *mut Header, _wait: u8) -> i32 {
    let _ = peek(mutex);
    kernel(|k| {
        let Object::Mutex {
            owner,
            depth,
            abandoned,
        } = dispatcher::get(k, mutex as usize, "KeReleaseMutex")
        else {
            dispatcher::wrong_kind(k, mutex as usize, "mutex", "KeReleaseMutex")
        };
        let thread = k.running_thread();
        if owner.is_none() || owner != thread {
            let name = k.name_of(mutex as usize).unwrap_or("the mutex").to_owned();
            k.fatal(
                &rules::lock::MUTEX_NOT_OWNED,
                &[],
                format!(
                    "KeReleaseMutex raised STATUS_MUTANT_NOT_OWNED: the caller does not own {name}"
                ),
            );
        }
        let me = k.running();
        locks::given_back(k, me, mutex as usize);
        let freed = depth == 1;
        let owner = if freed { None } else { owner };
        k.ke.objects.insert(
            mutex as usize,
            Object::Mutex {
                owner,
                depth: depth - 1,
                abandoned,
            },
        );
        if freed {
            super::wait::signaled(k, mutex as usize);
        }
        // The signal state before the call: 1 is free, 0 owned once, -n deeper.
        1 - depth
    })
}

/// `KeReadStateMutex`.
pub(crate) fn ke_read_state_mutex(mutex: *mut Header) -> i32 {
    let _ = peek(mutex);
    kernel(
        |k| match dispatcher::get(k, mutex as usize, "KeReadStateMutex") {
            Object::Mutex { depth, .. } => 1 - depth,
            _ => dispatcher::wrong_kind(k, mutex as usize, "mutex", "KeReadStateMutex"),
        },
    )
}
