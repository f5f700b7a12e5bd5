// SPDX-License-Identifier: MIT OR Apache-2.0

//! Spin locks: <https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-spin-locks>
//!
//! A context that spins occupies its processor; the scheduler does not choose
//! it until the lock is free.

use crate::access::{peek, poke};
use crate::kernel::{DISPATCH_LEVEL, Kernel, State};
use crate::locks::{self, Held, Kind};
use crate::rules::irql::{ACQUIRE_AT_DPC_LEVEL as ACQUIRE, RELEASE_FROM_DPC_LEVEL as RELEASE};
use crate::rules::{self, Rule};
use crate::trap::{Blocking, block, kernel};

/// `KeInitializeSpinLock`.
pub(crate) fn ke_initialize_spin_lock(lock: *mut usize) {
    poke(lock, 0);
    kernel(|k| {
        locks::initialized(k, lock as usize, Kind::Spin, "KeInitializeSpinLock");
        k.ke.queued_spin_locks.remove(&(lock as usize));
        k.name(lock as usize, "spinlock");
    });
}

/// `KeAcquireSpinLockRaiseToDpc`. Returns the previous IRQL.
pub(crate) fn ke_acquire_spin_lock_raise_to_dpc(lock: *mut usize) -> u8 {
    let value = peek(lock);
    let old = kernel(|k| {
        let old = k.irql();
        if old > DISPATCH_LEVEL {
            k.broken(
                &rules::irql::ACQUIRE_SPIN_LOCK,
                &[u64::from(old), lock as u64, 0],
                format!("KeAcquireSpinLock was called at IRQL {old}, above DISPATCH_LEVEL"),
            );
        }
        check(k, lock, value, Kind::Spin, "KeAcquireSpinLock");
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    acquire(lock as usize, Kind::Spin, Some(old), "KeAcquireSpinLock");
    old
}

/// `KeAcquireSpinLockAtDpcLevel`.
pub(crate) fn ke_acquire_spin_lock_at_dpc_level(lock: *mut usize) {
    let value = peek(lock);
    kernel(|k| {
        at_dispatch(k, &ACQUIRE, lock, "KeAcquireSpinLockAtDpcLevel");
        check(k, lock, value, Kind::Spin, "KeAcquireSpinLockAtDpcLevel");
    });
    acquire(
        lock as usize,
        Kind::Spin,
        None,
        "KeAcquireSpinLockAtDpcLevel",
    );
}

/// A lock that was initialised is 0, which the simulator leaves it; and a lock is
/// either always queued for or never.
fn check(k: &mut Kernel, lock: *mut usize, value: usize, kind: Kind, function: &str) {
    let address = lock as usize;
    if value != 0 {
        locks::uninitialized(k, address, kind, function);
    }
    let queued = kind == Kind::QueuedSpin;
    let mismatch = if queued {
        k.ke.queued_spin_locks.insert(address);
        k.ke.spin_locks.contains_key(&address)
            && locks::holders(k, address).iter().any(|id| {
                k.context(*id)
                    .held
                    .iter()
                    .any(|held| held.lock == address && held.kind == Kind::Spin)
            })
    } else {
        !k.ke.queued_spin_locks.is_empty() && k.ke.queued_spin_locks.contains(&address)
    };
    if mismatch {
        let name = locks::show(k, address, kind);
        let (so, not_so) = if queued {
            ("queues", "without")
        } else {
            ("does not queue", "with")
        };
        k.broken(
            &rules::deadlock::ACQUIRE_MISMATCH,
            &[address as u64],
            format!("{function} {so} for {name}, which is used {not_so} a queue elsewhere"),
        );
    }
}

/// Takes the lock at `lock`, spinning while another context has it. `old_irql` is
/// where its release is to go back to, if that is known.
pub(crate) fn acquire(lock: usize, kind: Kind, old_irql: Option<u8>, function: &'static str) {
    let mut asked = false;
    loop {
        let taken = block(
            |k| {
                let me = k.running();
                if !std::mem::replace(&mut asked, true) {
                    locks::wants(k, lock, kind, function);
                }
                match k.ke.spin_locks.get(&lock) {
                    None => {
                        k.ke.spin_locks.insert(lock, me);
                        locks::taken(k, me, lock, kind, false, old_irql, function);
                        Blocking::Now(true)
                    }
                    Some(holder) if *holder == me => locks::self_deadlock(k, lock, kind, function),
                    Some(_) => {
                        k.context_mut(me).state = State::Spinning(lock);
                        locks::waits(k);
                        Blocking::Wait
                    }
                }
            },
            |_| false,
        );
        if taken {
            return;
        }
    }
}

/// Gives the lock at `lock` back.
pub(crate) fn release(k: &mut Kernel, lock: usize, kind: Kind, function: &str) -> Held {
    let me = k.running();
    let held = match k.ke.spin_locks.get(&lock) {
        Some(holder) if *holder == me => locks::given_back(k, me, lock),
        _ => None,
    };
    let Some(held) = held else {
        locks::not_held(k, lock, kind, function)
    };
    if held.kind != kind {
        locks::release_mismatch(k, &held, function);
    }
    k.ke.spin_locks.remove(&lock);
    let spinning: Vec<_> = k
        .contexts()
        .filter(|(_, context)| context.state == State::Spinning(lock))
        .map(|(id, _)| id)
        .collect();
    for id in spinning {
        k.make_ready(id);
    }
    held
}

/// `KeReleaseSpinLock`.
pub(crate) fn ke_release_spin_lock(lock: *mut usize, new_irql: u8) {
    kernel(|k| {
        let irql = k.irql();
        if irql != DISPATCH_LEVEL {
            k.broken(
                &rules::irql::RELEASE_SPIN_LOCK,
                &[u64::from(irql), lock as u64, 0],
                format!("KeReleaseSpinLock was called at IRQL {irql} instead of DISPATCH_LEVEL"),
            );
        }
        let held = release(k, lock as usize, Kind::Spin, "KeReleaseSpinLock");
        if new_irql > DISPATCH_LEVEL {
            k.broken(
                &rules::irql::LOWER,
                &[u64::from(irql), u64::from(new_irql), 0],
                format!("KeReleaseSpinLock was given the IRQL {new_irql} to return to"),
            );
        }
        locks::lowers(k, &held, new_irql, "KeReleaseSpinLock");
        k.set_irql(new_irql);
    });
}

/// `KeReleaseSpinLockFromDpcLevel`.
pub(crate) fn ke_release_spin_lock_from_dpc_level(lock: *mut usize) {
    kernel(|k| {
        at_dispatch(k, &RELEASE, lock, "KeReleaseSpinLockFromDpcLevel");
        release(
            k,
            lock as usize,
            Kind::Spin,
            "KeReleaseSpinLockFromDpcLevel",
        );
    });
}

/// `KeTryToAcquireSpinLockAtDpcLevel`.
pub(crate) fn ke_try_to_acquire_spin_lock_at_dpc_level(lock: *mut usize) -> u8 {
    let value = peek(lock);
    kernel(|k| {
        let function = "KeTryToAcquireSpinLockAtDpcLevel";
        at_dispatch(k, &ACQUIRE, lock, function);
        check(k, lock, value, Kind::Spin, function);
        let me = k.running();
        let free = !k.ke.spin_locks.contains_key(&(lock as usize));
        if free {
            k.ke.spin_locks.insert(lock as usize, me);
            locks::taken(k, me, lock as usize, Kind::Spin, false, None, function);
        }
        u8::from(free)
    })
}

/// `KeTestSpinLock`: whether the lock is free just now.
pub(crate) fn ke_test_spin_lock(lock: *mut usize) -> u8 {
    let _ = peek(lock);
    kernel(|k| u8::from(!k.ke.spin_locks.contains_key(&(lock as usize))))
}

/// Holds the caller to `DISPATCH_LEVEL` or above.
fn at_dispatch(k: &mut Kernel, rule: &'static Rule, lock: *mut usize, function: &str) {
    let irql = k.irql();
    if irql < DISPATCH_LEVEL {
        k.broken(
            rule,
            &[u64::from(irql), lock as u64, 0],
            format!("{function} was called at IRQL {irql}, below DISPATCH_LEVEL"),
        );
    }
}

/// `KLOCK_QUEUE_HANDLE`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct LockQueueHandle {
    next: usize,
    lock: *mut usize,
    old_irql: u8,
}

/// Takes the lock, first come first served.
fn acquire_queued(
    lock: *mut usize,
    handle: *mut LockQueueHandle,
    old_irql: u8,
    function: &'static str,
) {
    let address = lock as usize;
    let kind = Kind::QueuedSpin;
    kernel(|k| {
        let me = k.running();
        if k.ke.spin_locks.get(&address) == Some(&me) {
            locks::self_deadlock(k, address, kind, function);
        }
        locks::wants(k, address, kind, function);
        k.ke.spin_queues.entry(address).or_default().push_back(me);
    });
    // Those before it in the queue take the lock before it.
    super::sleep::until(address, |k| {
        let me = k.running();
        let turn =
            k.ke.spin_queues
                .get(&address)
                .and_then(|queue| queue.front())
                .is_none_or(|front| *front == me);
        let free = !k.ke.spin_locks.contains_key(&address);
        (turn && free).then(|| {
            k.ke.spin_locks.insert(address, me);
            locks::taken(k, me, address, kind, false, Some(old_irql), function);
            if let Some(queue) = k.ke.spin_queues.get_mut(&address) {
                queue.pop_front();
            }
        })
    });
    poke(
        handle,
        LockQueueHandle {
            next: 0,
            lock,
            old_irql,
        },
    );
}

/// `KeAcquireInStackQueuedSpinLock`.
pub(crate) fn ke_acquire_in_stack_queued_spin_lock(lock: *mut usize, handle: *mut LockQueueHandle) {
    let (value, _) = (peek(lock), peek(handle));
    let function = "KeAcquireInStackQueuedSpinLock";
    let old = kernel(|k| {
        let old = k.irql();
        check(k, lock, value, Kind::QueuedSpin, function);
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    acquire_queued(lock, handle, old, function);
}

/// `KeAcquireInStackQueuedSpinLockAtDpcLevel`.
pub(crate) fn ke_acquire_in_stack_queued_spin_lock_at_dpc_level(
    lock: *mut usize,
    handle: *mut LockQueueHandle,
) {
    let (value, _) = (peek(lock), peek(handle));
    let function = "KeAcquireInStackQueuedSpinLockAtDpcLevel";
    kernel(|k| {
        at_dispatch(k, &ACQUIRE, lock, function);
        check(k, lock, value, Kind::QueuedSpin, function);
    });
    acquire_queued(lock, handle, DISPATCH_LEVEL, function);
}

/// Gives back the lock of `handle` and goes back to the IRQL before, if it raised it.
fn release_queued(handle: *mut LockQueueHandle, lower: bool, function: &str) {
    let held = peek(handle);
    kernel(|k| {
        at_dispatch(k, &RELEASE, held.lock, function);
        let released = release(k, held.lock as usize, Kind::QueuedSpin, function);
        if lower {
            let old = held.old_irql.min(DISPATCH_LEVEL);
            locks::lowers(k, &released, old, function);
            k.set_irql(old);
        }
    });
    poke(
        handle,
        LockQueueHandle {
            lock: std::ptr::null_mut(),
            ..held
        },
    );
}

/// `KeReleaseInStackQueuedSpinLock`.
pub(crate) fn ke_release_in_stack_queued_spin_lock(handle: *mut LockQueueHandle) {
    release_queued(handle, true, "KeReleaseInStackQueuedSpinLock");
}

/// `KeReleaseInStackQueuedSpinLockFromDpcLevel`.
pub(crate) fn ke_release_in_stack_queued_spin_lock_from_dpc_level(handle: *mut LockQueueHandle) {
    release_queued(handle, false, "KeReleaseInStackQueuedSpinLockFromDpcLevel");
}
