// SPDX-License-Identifier: MIT OR Apache-2.0

//! `KSEMAPHORE`: <https://learn.microsoft.com/windows-hardware/drivers/kernel/semaphore-objects>

use crate::access::peek;
use crate::rules;
use crate::trap::kernel;

use super::dispatcher::{self, Header, Object, initialize};

/// `KeInitializeSemaphore`.
pub(crate) fn ke_initialize_semaphore(semaphore: *mut Header, count: i32, limit: i32) {
    initialize(semaphore, Object::Semaphore { count, limit });
}

/// `KeReleaseSemaphore`. Returns the previous count.
pub(crate) fn ke_release_semaphore(
    semaphore: *mut Header,
    _increment: i32,
    adjustment: i32,
    _wait: u8,
) -> i32 {
    let _ = peek(semaphore);
    kernel(|k| {
        let Object::Semaphore { count, limit } =
            dispatcher::get(k, semaphore as usize, "KeReleaseSemaphore")
        else {
            dispatcher::wrong_kind(k, semaphore as usize, "semaphore", "KeReleaseSemaphore")
        };
        let Some(raised) = count
            .checked_add(adjustment)
            .filter(|raised| adjustment > 0 && *raised <= limit)
        else {
            k.fatal(
                &rules::wait::SEMAPHORE_LIMIT,
                &[0; 3],
                format!("KeReleaseSemaphore raised STATUS_SEMAPHORE_LIMIT_EXCEEDED: {count} + {adjustment} is above the limit of {limit}"),
            )
        };
        k.ke.objects.insert(
            semaphore as usize,
            Object::Semaphore {
                count: raised,
                limit,
            },
        );
        super::wait::signaled(k, semaphore as usize);
        count
    })
}

/// `KeReadStateSemaphore`.
pub(crate) fn ke_read_state_semaphore(semaphore: *mut Header) -> i32 {
    let _ = peek(semaphore);
    kernel(
        |k| match dispatcher::get(k, semaphore as usize, "KeReadStateSemaphore") {
            Object::Semaphore { count, .. } => count,
            _ => dispatcher::wrong_kind(k, semaphore as usize, "semaphore", "KeReadStateSemaphore"),
        },
    )
}
