// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waits: `KeWaitForSingleObject`, `KeWaitForMultipleObjects`,
//! `KeDelayExecutionThread`.
//!
//! ```text
//!              objects ready, or time-out of 0
//!   call ──────────────────────────────────────────► status
//!     │ otherwise
//!     ▼
//!   Waiting ──► an object is signalled (first come, first served)
//!           ──► the time-out's clock tick
//!           ──► an alert or user APC, if the wait lets it
//! ```
//!
//! Semantics: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kewaitforsingleobject>

use crate::access::peek;
use crate::kernel::{ContextId, DISPATCH_LEVEL, Expiry, Kernel, State, TimerKey};
use crate::locks::{self, Kind};
use crate::rules;
use crate::trap::{Blocking, block, kernel};

use super::dispatcher::{self, Header, ThreadId};

pub(crate) const STATUS_SUCCESS: i32 = 0;
pub(crate) const STATUS_ABANDONED_WAIT_0: i32 = 0x80;
pub(crate) const STATUS_USER_APC: i32 = 0xC0;
pub(crate) const STATUS_ALERTED: i32 = 0x101;
pub(crate) const STATUS_TIMEOUT: i32 = 0x102;

/// `UserMode`.
const USER_MODE: i8 = 1;
/// `MAXIMUM_WAIT_OBJECTS`.
const MAXIMUM_WAIT_OBJECTS: u32 = 64;
/// `THREAD_WAIT_OBJECTS`: wait blocks that a thread brings along.
const THREAD_WAIT_OBJECTS: u32 = 3;

/// A wait in progress.
pub(crate) struct Wait {
    serial: u64,
    pub(crate) objects: Vec<usize>,
    pub(crate) all: bool,
    pub(crate) alertable: bool,
    user_mode: bool,
    timer: Option<TimerKey>,
}

impl Wait {
    /// When it times out, in interrupt time.
    pub(crate) fn due(&self) -> Option<u64> {
        self.timer.map(TimerKey::due)
    }

    /// Whether it lasts until each of its objects is signalled, and nothing else ends it.
    pub(crate) fn needs_all(&self) -> bool {
        self.timer.is_none() && !self.alertable && (self.all || self.objects.len() == 1)
    }
}

/// How the caller wants to wait.
#[derive(Clone, Copy)]
struct How {
    function: &'static str,
    all: bool,
    alertable: bool,
    user_mode: bool,
    /// Kernel time-out; `None` waits for ever.
    timeout: Option<i64>,
}

/// `KeWaitForSingleObject`.
pub(crate) fn ke_wait_for_single_object(
    object: *mut Header,
    _reason: i32,
    mode: i8,
    alertable: u8,
    timeout: *const i64,
) -> i32 {
    let how = How {
        function: "KeWaitForSingleObject",
        all: false,
        alertable: alertable != 0,
        user_mode: mode == USER_MODE,
        timeout: read_timeout(timeout),
    };
    touch(object);
    wait(how, vec![object as usize])
}

/// `KeWaitForMultipleObjects`.
#[expect(clippy::too_many_arguments, reason = "the kernel's own signature")]
pub(crate) fn ke_wait_for_multiple_objects(
    count: u32,
    objects: *const *mut Header,
    wait_type: i32,
    _reason: i32,
    mode: i8,
    alertable: u8,
    timeout: *const i64,
    wait_blocks: *mut u8,
) -> i32 {
    let limit = if wait_blocks.is_null() {
        THREAD_WAIT_OBJECTS
    } else {
        MAXIMUM_WAIT_OBJECTS
    };
    if count == 0 || count > limit {
        let rule = if (1..=MAXIMUM_WAIT_OBJECTS).contains(&count) {
            &rules::wait::NO_WAIT_BLOCKS
        } else {
            &rules::wait::TOO_MANY_OBJECTS
        };
        kernel(|k| {
            k.broken(
                rule,
                &[],
                format!("KeWaitForMultipleObjects was given {count} objects; without wait blocks 3 are allowed, with them 64"),
            );
        });
    }
    let how = How {
        function: "KeWaitForMultipleObjects",
        all: wait_type == 0,
        alertable: alertable != 0,
        user_mode: mode == USER_MODE,
        timeout: read_timeout(timeout),
    };
    let mut addresses = Vec::with_capacity(count as usize);
    for index in 0..count as usize {
        let object = peek(objects.wrapping_add(index));
        touch(object);
        addresses.push(object as usize);
    }
    wait(how, addresses)
}

/// `KeDelayExecutionThread`.
pub(crate) fn ke_delay_execution_thread(mode: i8, alertable: u8, interval: *const i64) -> i32 {
    let interval = peek(interval);
    let how = How {
        function: "KeDelayExecutionThread",
        all: false,
        alertable: alertable != 0,
        user_mode: mode == USER_MODE,
        timeout: Some(interval),
    };
    match wait(how, Vec::new()) {
        // A delay that has run its time is a success, unlike a wait's.
        STATUS_TIMEOUT => STATUS_SUCCESS,
        status => status,
    }
}

fn read_timeout(timeout: *const i64) -> Option<i64> {
    (!timeout.is_null()).then(|| peek(timeout))
}

/// Faults here, in the driver's context, if the object's memory is bad.
fn touch(object: *mut Header) {
    if ThreadId::from_address(object as usize).is_none() {
        let _ = peek(object);
    }
}

fn wait(how: How, objects: Vec<usize>) -> i32 {
    block(
        move |k| begin(k, how, objects),
        |k| {
            let thread = k.running_thread().expect("only threads wait");
            k.threads[&thread].wait_status
        },
    )
}

/// The level at which a thread waits, or only looks.
fn check_level(k: &mut Kernel, how: &How, objects: &[usize]) {
    let irql = k.irql();
    let function = how.function;
    if irql >= DISPATCH_LEVEL {
        let waited = objects.first().map_or(0, |object| *object as u64);
        let (rule, why) = match how.timeout {
            _ if irql > DISPATCH_LEVEL => (
                &rules::wait::ABOVE_DISPATCH,
                format!("IRQL {irql}, above DISPATCH_LEVEL"),
            ),
            None => (
                &rules::wait::AT_DISPATCH_FOR_EVER,
                "DISPATCH_LEVEL without a time-out: it could block".to_owned(),
            ),
            // A look at the state, which does not block.
            Some(0) => (&rules::wait::AT_DISPATCH, String::new()),
            Some(_) => (
                &rules::wait::AT_DISPATCH,
                "DISPATCH_LEVEL with a time-out other than 0: it could block".to_owned(),
            ),
        };
        if !why.is_empty() {
            k.broken(
                rule,
                &[0, waited, 0],
                format!("{function} was called at {why}"),
            );
        }
    }
}

fn begin(k: &mut Kernel, how: How, objects: Vec<usize>) -> Blocking<i32> {
    let function = how.function;
    check_level(k, &how, &objects);
    if how.user_mode {
        let stack = k.context(k.running()).stack.clone();
        if let Some(object) = objects.iter().find(|object| stack.contains(object)) {
            let name = k.name_of(*object).unwrap_or("an object").to_owned();
            k.broken(
                &rules::wait::USER_MODE_ON_STACK,
                &[*object as u64],
                format!("{function} waits in UserMode for {name}, which is on the stack"),
            );
        }
    }
    for object in &objects {
        if ThreadId::from_address(*object).is_none_or(|id| !k.threads.contains_key(&id)) {
            dispatcher::get(k, *object, function);
        }
    }
    // A DPC may poll; it does so for the thread that it interrupted.
    let Some(thread) = k.running_thread() else {
        let ready = objects
            .iter()
            .position(|object| dispatcher::is_signaled(k, *object, ThreadId(0)));
        return Blocking::Now(match ready {
            Some(index) => {
                dispatcher::acquire(k, objects[index], ThreadId(0));
                i32::try_from(index).expect("at most 64 objects")
            }
            None if how.timeout == Some(0) => STATUS_TIMEOUT,
            None => {
                let stack = k.innermost_call(k.running()).map_or(0, |call| call.rsp);
                k.fatal(
                    &rules::wait::SWITCH_FROM_DPC,
                    &[0, 0, stack, 0],
                    format!("{function} was called in a DPC and would block"),
                )
            }
        });
    };
    if how.timeout.is_none() && (how.all || objects.len() == 1) {
        for object in &objects {
            if let Some(dispatcher::Object::Mutex { owner, .. }) = k.ke.objects.get(object)
                && *owner != Some(thread)
            {
                locks::order(k, *object, Kind::Mutex, function);
            }
        }
    }
    if let Some(status) = try_satisfy(k, thread, &objects, how.all) {
        return Blocking::Now(status);
    }
    if how.alertable && std::mem::take(&mut thread_mut(k, thread).alerted) {
        return Blocking::Now(STATUS_ALERTED);
    }
    if how.alertable && how.user_mode && std::mem::take(&mut thread_mut(k, thread).user_apc) {
        return Blocking::Now(STATUS_USER_APC);
    }
    if how.timeout == Some(0) {
        return Blocking::Now(STATUS_TIMEOUT);
    }
    k.ke.wait_serial += 1;
    let serial = k.ke.wait_serial;
    let context = k.running();
    let timer = how.timeout.map(|timeout| {
        let due = k.due_time(timeout);
        k.insert_timer(due, Expiry::Wait(context, serial))
    });
    k.tell_open_calls();
    thread_mut(k, thread).wait = Some(Wait {
        serial,
        objects,
        all: how.all,
        alertable: how.alertable,
        user_mode: how.user_mode,
        timer,
    });
    k.ke.waiters.push(thread);
    k.context_mut(context).state = State::Waiting;
    locks::waits(k);
    Blocking::Wait
}

fn thread_mut(k: &mut Kernel, id: ThreadId) -> &mut dispatcher::Thread {
    k.threads.get_mut(&id).expect("a thread stays in the table")
}

/// Acquires what the wait is for, if it is to be had, and gives its status.
fn try_satisfy(k: &mut Kernel, thread: ThreadId, objects: &[usize], all: bool) -> Option<i32> {
    let (first, taken) = if all && !objects.is_empty() {
        if !objects
            .iter()
            .all(|object| dispatcher::is_signaled(k, *object, thread))
        {
            return None;
        }
        (0, 0..objects.len())
    } else {
        let index = objects
            .iter()
            .position(|object| dispatcher::is_signaled(k, *object, thread))?;
        (index, index..index + 1)
    };
    let mut abandoned = false;
    for object in &objects[taken] {
        abandoned |= dispatcher::acquire(k, *object, thread);
    }
    let base = if abandoned {
        STATUS_ABANDONED_WAIT_0
    } else {
        STATUS_SUCCESS
    };
    Some(base + i32::try_from(first).expect("at most 64 objects"))
}

/// Ends `thread`'s wait with `status`.
fn end(k: &mut Kernel, thread: ThreadId, status: i32) {
    let wait = thread_mut(k, thread).wait.take();
    finish(k, thread, &wait.expect("the thread waits"), status);
}

/// Ends the wait of `thread` that was taken from it.
fn finish(k: &mut Kernel, thread: ThreadId, wait: &Wait, status: i32) {
    k.ke.waiters.retain(|waiter| *waiter != thread);
    let state = thread_mut(k, thread);
    state.wait_status = status;
    let context = state.context.expect("a thread that waits has a context");
    if let Some(timer) = wait.timer {
        k.remove_timer(timer);
    }
    k.make_ready(context);
}

/// The object at `address` became signalled: satisfies whom it can, first
/// come first served. Tells how many threads were woken.
pub(crate) fn signaled(k: &mut Kernel, address: usize) -> usize {
    let mut woken = 0;
    let mut next = 0;
    while let Some(thread) = k.ke.waiters.get(next).copied() {
        next += 1;
        let slot = &mut thread_mut(k, thread).wait;
        let Some(wait) = slot.take_if(|wait| wait.objects.contains(&address)) else {
            continue;
        };
        if let Some(status) = try_satisfy(k, thread, &wait.objects, wait.all) {
            finish(k, thread, &wait, status);
            woken += 1;
            // It is not in the list any more.
            next -= 1;
        } else {
            thread_mut(k, thread).wait = Some(wait);
        }
    }
    woken
}

/// The time-out of a wait is due.
pub(crate) fn time_out(k: &mut Kernel, context: ContextId, serial: u64) {
    let thread = k.is_alive(context).then(|| k.context(context).thread);
    if let Some(Some(thread)) = thread
        && k.threads[&thread]
            .wait
            .as_ref()
            .is_some_and(|wait| wait.serial == serial)
    {
        end(k, thread, STATUS_TIMEOUT);
    }
}

/// Alerts a thread: an alertable wait ends with `STATUS_ALERTED`, at once or
/// when it begins. Tells whether the thread was waiting for it.
pub(crate) fn alert(k: &mut Kernel, thread: ThreadId) -> bool {
    if k.threads[&thread]
        .wait
        .as_ref()
        .is_some_and(|wait| wait.alertable)
    {
        end(k, thread, STATUS_ALERTED);
        true
    } else {
        thread_mut(k, thread).alerted = true;
        false
    }
}

/// Queues a user APC to a thread: an alertable wait in user mode ends with
/// `STATUS_USER_APC`. Tells whether the thread was waiting for it.
pub(crate) fn user_apc(k: &mut Kernel, thread: ThreadId) -> bool {
    if k.threads[&thread]
        .wait
        .as_ref()
        .is_some_and(|wait| wait.alertable && wait.user_mode)
    {
        end(k, thread, STATUS_USER_APC);
        true
    } else {
        thread_mut(k, thread).user_apc = true;
        false
    }
}
