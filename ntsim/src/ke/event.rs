// SPDX-License-Identifier: MIT OR Apache-2.0

//! `KEVENT`: <https://learn.microsoft.com/windows-hardware/drivers/kernel/event-objects>

use crate::access::peek;
use crate::kernel::{APC_LEVEL, DISPATCH_LEVEL, Kernel};
use crate::rules;
use crate::trap::kernel;

use super::dispatcher::{self, Header, Object, initialize};

/// `NotificationEvent`.
const NOTIFICATION: i32 = 0;

/// `KeInitializeEvent`.
pub(crate) fn ke_initialize_event(event: *mut Header, kind: i32, state: u8) {
    initialize(
        event,
        Object::Event {
            notification: kind == NOTIFICATION,
            set: state != 0,
        },
    );
}

fn event_state<'k>(k: &'k mut Kernel, event: *mut Header, function: &str) -> &'k mut bool {
    dispatcher::get(k, event as usize, function);
    if !matches!(k.ke.objects[&(event as usize)], Object::Event { .. }) {
        dispatcher::wrong_kind(k, event as usize, "event", function)
    }
    match k.ke.objects.get_mut(&(event as usize)) {
        Some(Object::Event { set, .. }) => set,
        _ => unreachable!("checked above"),
    }
}

/// `KeSetEvent`. Returns the previous state.
pub(crate) fn ke_set_event(event: *mut Header, _increment: i32, wait: u8) -> i32 {
    let _ = peek(event);
    kernel(|k| {
        let irql = k.irql();
        let limit = if wait == 0 { DISPATCH_LEVEL } else { APC_LEVEL };
        if irql > limit {
            let message = format!(
                "KeSetEvent was called at IRQL {irql}; with Wait = {} it needs {limit} or below",
                wait != 0
            );
            k.broken(&rules::irql::KE_SET_EVENT, &[0; 3], message.as_str());
            if irql > DISPATCH_LEVEL {
                k.broken(
                    &rules::wait::SET_EVENT_IRQL,
                    &[u64::from(irql), event as u64, 0],
                    message,
                );
            }
        }
        let previous = std::mem::replace(event_state(k, event, "KeSetEvent"), true);
        if !previous {
            super::wait::signaled(k, event as usize);
        }
        i32::from(previous)
    })
}

/// `KeResetEvent`. Returns the previous state.
pub(crate) fn ke_reset_event(event: *mut Header) -> i32 {
    let _ = peek(event);
    kernel(|k| {
        i32::from(std::mem::replace(
            event_state(k, event, "KeResetEvent"),
            false,
        ))
    })
}

/// `KeClearEvent`.
pub(crate) fn ke_clear_event(event: *mut Header) {
    let _ = peek(event);
    kernel(|k| {
        *event_state(k, event, "KeClearEvent") = false;
    });
}

/// `KeReadStateEvent`.
pub(crate) fn ke_read_state_event(event: *mut Header) -> i32 {
    let _ = peek(event);
    kernel(|k| i32::from(*event_state(k, event, "KeReadStateEvent")))
}
