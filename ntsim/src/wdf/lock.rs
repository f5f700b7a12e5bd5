// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFSPINLOCK`, `WDFWAITLOCK` and the lock that every object has:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-framework-locks>

use crate::access::{peek, poke};
use crate::bugcheck::Stop;
use crate::kernel::{ContextId, DISPATCH_LEVEL, Expiry, Kernel, PASSIVE_LEVEL};
use crate::locks::{self, Kind};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::object::{self, Allow, Data, EXECUTION_PASSIVE, Handle, SCOPE_NONE};
use super::raw::ObjectAttributes;
use super::{
    Globals, STATUS_SUCCESS, STATUS_TIMEOUT, STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL, required,
};

/// What the framework keeps of a spin lock.
#[derive(Default)]
pub(crate) struct SpinLock {
    /// The IRQL at which the holder took it.
    old_irql: u8,
}

/// What the framework keeps of a wait lock.
#[derive(Default)]
pub(crate) struct WaitLock {
    owner: Option<ContextId>,
}

/// With what the callbacks of a timer, work item or DPC are serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serial {
    /// With nothing.
    None,
    /// With the other callbacks of this object, at `PASSIVE_LEVEL`.
    Passive(Handle),
    /// With the other callbacks of this object, at `DISPATCH_LEVEL`.
    Dispatch(Handle),
}

/// What automatic serialization means below `parent`.
///
/// Without a synchronization scope on the device it means nothing; with one, the
/// callback's level has to fit the parent's.
///
/// # Errors
/// `STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL` if it does not.
pub(crate) fn effective(
    k: &mut Kernel,
    parent: Handle,
    automatic: bool,
    passive: bool,
) -> Result<Serial, i32> {
    if !automatic {
        return Ok(Serial::None);
    }
    let Some(device) = object::device_of(k, parent) else {
        return Ok(Serial::None);
    };
    let scoped = object::get(k, device);
    if scoped.scope == SCOPE_NONE {
        return Ok(Serial::None);
    }
    let device_is_passive = scoped.execution == EXECUTION_PASSIVE;
    match (passive, device_is_passive) {
        (true, true) => Ok(Serial::Passive(device)),
        (false, false) => Ok(Serial::Dispatch(device)),
        _ => Err(STATUS_WDF_INCOMPATIBLE_EXECUTION_LEVEL),
    }
}

/// Runs `body` under the lock.
pub(crate) fn with(serial: Serial, body: impl FnOnce()) {
    match serial {
        Serial::None => body(),
        Serial::Passive(handle) => {
            acquire_passive(handle);
            body();
            kernel(|k| release_passive(k, handle));
        }
        Serial::Dispatch(handle) => {
            let old = acquire_dispatch(handle as usize, "the framework");
            body();
            kernel(|k| release_dispatch(k, handle as usize, old, "the framework"));
        }
    }
}

/// The wait locks that are held, by whom, and whether it is an object's own lock.
/// (Spin locks are the kernel's.)
pub(crate) fn held(k: &Kernel) -> impl Iterator<Item = (usize, ContextId, bool)> {
    let wait_locks = k.wdf.objects.iter().filter_map(|(handle, object)| {
        let Data::WaitLock(lock) = &object.data else {
            return None;
        };
        lock.owner.map(|owner| (*handle as usize, owner, false))
    });
    let own = (k.wdf.object_locks.iter()).map(|(handle, owner)| (*handle as usize, *owner, true));
    wait_locks.chain(own)
}

pub(crate) fn acquire_passive(handle: Handle) {
    let (lock, kind, function) = (handle as usize, Kind::Framework, "the framework");
    let mut asked = false;
    super::wait_until(|k| {
        if !std::mem::replace(&mut asked, true) {
            locks::wants(k, lock, kind, function);
        }
        let me = k.running();
        if k.wdf.object_locks.contains_key(&handle) {
            return false;
        }
        k.wdf.object_locks.insert(handle, me);
        locks::taken(k, me, lock, kind, false, None, function);
        true
    });
}

pub(crate) fn release_passive(k: &mut Kernel, handle: Handle) {
    if let Some(holder) = k.wdf.object_locks.remove(&handle) {
        locks::given_back(k, holder, handle as usize);
    }
    super::wake(k);
}

/// Takes the spin lock of that identity. Returns the IRQL before.
fn acquire_dispatch(lock: usize, function: &'static str) -> u8 {
    let old = kernel(|k| {
        let old = k.irql();
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    crate::ke::spin_lock::acquire(lock, Kind::Framework, None, function);
    old
}

fn release_dispatch(k: &mut Kernel, lock: usize, old: u8, function: &str) {
    crate::ke::spin_lock::release(k, lock, Kind::Framework, function);
    k.set_irql(old);
}

/// Of devices and queues only there are locks.
fn lockable(k: &mut Kernel, handle: Handle, function: &'static str) {
    match object::any(k, handle, function).data {
        Data::Device(_) => {}
        Data::Queue(_) => {
            let stop = Stop::not_simulated(k, "the lock of a queue");
            k.stop(stop)
        }
        _ => {
            let name = k.name_of(handle as usize).unwrap_or("it").to_owned();
            let message = format!("{function} was called on {name}, which has no lock");
            k.fatal(&kmdf::NO_LOCK, &[handle as u64, 0], message)
        }
    }
}

/// `WdfObjectAcquireLock`, for devices: at `PASSIVE_LEVEL` if its callbacks are,
/// otherwise it raises to `DISPATCH_LEVEL`.
pub(crate) fn object_acquire(_: Globals, handle: Handle) {
    let function = "WdfObjectAcquireLock";
    let passive = kernel(|k| {
        lockable(k, handle, function);
        let passive = object::get(k, handle).execution == EXECUTION_PASSIVE;
        if passive {
            crate::ke::irql::passive(k, function);
            let me = k.running();
            if k.wdf.object_locks.get(&handle) == Some(&me) {
                let name = k
                    .name_of(handle as usize)
                    .unwrap_or("the device")
                    .to_owned();
                recursive(
                    k,
                    format!("{function} was called on {name}, whose lock the caller holds"),
                );
            }
        } else {
            crate::ke::irql::at_most_dispatch(k, function);
        }
        passive
    });
    if passive {
        acquire_passive(handle);
    } else {
        let old = acquire_dispatch(handle as usize, function);
        kernel(|k| object::device(k, handle, function).lock_irql = old);
    }
}

/// `WdfObjectReleaseLock`.
pub(crate) fn object_release(_: Globals, handle: Handle) {
    let function = "WdfObjectReleaseLock";
    kernel(|k| {
        lockable(k, handle, function);
        let old = object::device(k, handle, function).lock_irql;
        let passive = object::get(k, handle).execution == EXECUTION_PASSIVE;
        let holder = if passive {
            k.wdf.object_locks.get(&handle)
        } else {
            k.ke.spin_locks.get(&(handle as usize))
        };
        if holder != Some(&k.running()) {
            let name = k
                .name_of(handle as usize)
                .unwrap_or("the device")
                .to_owned();
            k.fatal(
                &kmdf::OBJECT_LOCK_NOT_HELD,
                &[handle as u64],
                format!("{function} was called on {name}, whose lock the caller does not hold"),
            );
        }
        if passive {
            release_passive(k, handle);
        } else {
            release_dispatch(k, handle as usize, old, function);
        }
    });
}

fn recursive(k: &mut Kernel, message: String) -> ! {
    k.fatal(&kmdf::RECURSIVE_LOCK, &[], message)
}

/// `WdfSpinLockCreate`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn spin_create(g: Globals, from: *const ObjectAttributes, out: *mut Handle) -> i32 {
    create(
        g,
        from,
        out,
        Data::SpinLock(SpinLock::default()),
        "WdfSpinLockCreate",
        "SpinLock",
    )
}

fn create(
    g: Globals,
    from: *const ObjectAttributes,
    out: *mut Handle,
    data: Data,
    function: &str,
    what: &str,
) -> i32 {
    required(out, function, what);
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            object::create(k, slot, Some(parent), &attributes, data)
        })
    });
    object::give(out, created)
}

/// `WdfSpinLockAcquire`: raises to `DISPATCH_LEVEL`.
pub(crate) fn spin_acquire(_: Globals, handle: Handle) {
    let function = "WdfSpinLockAcquire";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        object::spin_lock(k, handle, function);
        let me = k.running();
        if k.ke.spin_locks.get(&(handle as usize)) == Some(&me) {
            let name = k.name_of(handle as usize).unwrap_or("the lock").to_owned();
            recursive(
                k,
                format!("{function} was called on {name}, which the caller holds"),
            );
        }
    });
    let old = acquire_dispatch(handle as usize, function);
    kernel(|k| object::spin_lock(k, handle, function).old_irql = old);
}

/// `WdfSpinLockRelease`: goes back to the IRQL before.
pub(crate) fn spin_release(_: Globals, handle: Handle) {
    let function = "WdfSpinLockRelease";
    kernel(|k| {
        let old = object::spin_lock(k, handle, function).old_irql;
        let me = k.running();
        if k.ke.spin_locks.get(&(handle as usize)) != Some(&me) {
            let name = k.name_of(handle as usize).unwrap_or("the lock").to_owned();
            k.fatal(
                &kmdf::SPIN_LOCK_NOT_HELD,
                &[handle as u64, 1],
                format!("{function} was called on {name}, which the caller does not hold"),
            );
        }
        release_dispatch(k, handle as usize, old, function);
    });
}

/// `WdfWaitLockCreate`.
pub(crate) fn wait_create(g: Globals, from: *const ObjectAttributes, out: *mut Handle) -> i32 {
    create(
        g,
        from,
        out,
        Data::WaitLock(WaitLock::default()),
        "WdfWaitLockCreate",
        "Lock",
    )
}

/// `WdfWaitLockAcquire`. Needs `PASSIVE_LEVEL`, except with a time-out of 0.
/// Returns `STATUS_TIMEOUT` if the time-out came first.
pub(crate) fn wait_acquire(_: Globals, handle: Handle, timeout: *const i64) -> i32 {
    let function = "WdfWaitLockAcquire";
    let timeout = (!timeout.is_null()).then(|| peek(timeout));
    let deadline = kernel(|k| {
        if timeout == Some(0) {
            crate::ke::irql::at_most_dispatch(k, function);
        } else if k.irql() > PASSIVE_LEVEL {
            crate::ke::irql::passive(k, function);
        }
        let me = k.running();
        if object::wait_lock(k, handle, function).owner == Some(me) {
            let name = k.name_of(handle as usize).unwrap_or("the lock").to_owned();
            recursive(
                k,
                format!("{function} was called on {name}, which the caller holds"),
            );
        }
        if timeout.is_none() {
            locks::wants(k, handle as usize, Kind::Framework, function);
        }
        timeout.map(|timeout| k.due_time(timeout))
    });
    let mut status = STATUS_SUCCESS;
    let mut timer = None;
    super::wait_until(|k| {
        let me = k.running();
        let lock = object::wait_lock(k, handle, function);
        if lock.owner.is_none() {
            lock.owner = Some(me);
            locks::taken(
                k,
                me,
                handle as usize,
                Kind::Framework,
                false,
                None,
                function,
            );
            return true;
        }
        let Some(deadline) = deadline else {
            return false;
        };
        if timeout == Some(0) || timer.is_some_and(|_| k.now >= deadline) {
            status = STATUS_TIMEOUT;
            return true;
        }
        if timer.is_none() {
            timer = Some(k.insert_timer(deadline, Expiry::Host(Box::new(super::wake))));
        }
        false
    });
    if let Some(timer) = timer {
        kernel(|k| k.remove_timer(timer));
    }
    status
}

/// `WdfWaitLockRelease`.
pub(crate) fn wait_release(_: Globals, handle: Handle) {
    let function = "WdfWaitLockRelease";
    kernel(|k| {
        let me = k.running();
        let lock = object::wait_lock(k, handle, function);
        if lock.owner != Some(me) {
            let name = k.name_of(handle as usize).unwrap_or("the lock").to_owned();
            k.fatal(
                &kmdf::WAIT_LOCK_NOT_HELD,
                &[handle as u64],
                format!("{function} was called on {name}, which the caller does not hold"),
            );
        }
        lock.owner = None;
        locks::given_back(k, me, handle as usize);
        super::wake(k);
    });
}
