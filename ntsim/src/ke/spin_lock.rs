// SPDX-License-Identifier: MIT OR Apache-2.0

//! Spin locks: <https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-spin-locks>
//!
//! A context that spins occupies its processor; the scheduler does not choose
//! it until the lock is free.

use crate::access::{peek, poke};
use crate::bugcheck::BugCheck;
use crate::kernel::{DISPATCH_LEVEL, Kernel, State};
use crate::trap::{Blocking, block, kernel};

/// `KeInitializeSpinLock`.
pub(crate) fn ke_initialize_spin_lock(lock: *mut usize) {
    poke(lock, 0);
    kernel(|k| k.name(lock as usize, "spinlock"));
}

/// `KeAcquireSpinLockRaiseToDpc`. Returns the previous IRQL.
pub(crate) fn ke_acquire_spin_lock_raise_to_dpc(lock: *mut usize) -> u8 {
    let _ = peek(lock);
    let old = kernel(|k| {
        super::irql::at_most_dispatch(k, "KeAcquireSpinLock");
        let old = k.irql();
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    acquire(lock as usize);
    old
}

/// `KeAcquireSpinLockAtDpcLevel`.
pub(crate) fn ke_acquire_spin_lock_at_dpc_level(lock: *mut usize) {
    let _ = peek(lock);
    kernel(|k| {
        let irql = k.irql();
        if irql < DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x40,
                [u64::from(irql), lock as u64, 0],
                format!(
                    "KeAcquireSpinLockAtDpcLevel was called at IRQL {irql}, below DISPATCH_LEVEL"
                ),
            ));
        }
    });
    acquire(lock as usize);
}

/// Takes the lock at `lock`, spinning while another context has it.
pub(crate) fn acquire(lock: usize) {
    loop {
        let taken = block(
            |k| {
                let me = k.running();
                match k.ke.spin_locks.get(&lock) {
                    None => {
                        k.ke.spin_locks.insert(lock, me);
                        Blocking::Now(true)
                    }
                    Some(holder) if *holder == me => {
                        let name = k.name_of(lock).unwrap_or("the spin lock").to_owned();
                        k.bug_check(BugCheck::verifier(
                            0x1000,
                            [lock as u64, 0, 0],
                            format!("the caller acquires {name}, which it holds already: it would spin for ever"),
                        ))
                    }
                    Some(_) => {
                        k.context_mut(me).state = State::Spinning(lock);
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
pub(crate) fn release(k: &mut Kernel, lock: usize, function: &str) {
    let me = k.running();
    if k.ke.spin_locks.get(&lock) != Some(&me) {
        let name = k.name_of(lock).unwrap_or("the spin lock").to_owned();
        k.bug_check(BugCheck::verifier(
            0x1007,
            [lock as u64, 0, 0],
            format!("{function} releases {name}, which the caller does not hold"),
        ));
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
}

/// `KeReleaseSpinLock`.
pub(crate) fn ke_release_spin_lock(lock: *mut usize, new_irql: u8) {
    kernel(|k| {
        let irql = k.irql();
        if irql != DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x32,
                [u64::from(irql), lock as u64, 0],
                format!("KeReleaseSpinLock was called at IRQL {irql} instead of DISPATCH_LEVEL"),
            ));
        }
        release(k, lock as usize, "KeReleaseSpinLock");
        if new_irql > DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x31,
                [u64::from(irql), u64::from(new_irql), 0],
                format!("KeReleaseSpinLock was given the IRQL {new_irql} to return to"),
            ));
        }
        k.set_irql(new_irql);
    });
}

/// `KeReleaseSpinLockFromDpcLevel`.
pub(crate) fn ke_release_spin_lock_from_dpc_level(lock: *mut usize) {
    kernel(|k| release(k, lock as usize, "KeReleaseSpinLockFromDpcLevel"));
}

/// `KeTryToAcquireSpinLockAtDpcLevel`.
pub(crate) fn ke_try_to_acquire_spin_lock_at_dpc_level(lock: *mut usize) -> u8 {
    let _ = peek(lock);
    kernel(|k| {
        at_dispatch(k, lock, "KeTryToAcquireSpinLockAtDpcLevel");
        let me = k.running();
        let free = !k.ke.spin_locks.contains_key(&(lock as usize));
        if free {
            k.ke.spin_locks.insert(lock as usize, me);
        }
        u8::from(free)
    })
}

/// `KeTestSpinLock`: whether the lock is free just now.
pub(crate) fn ke_test_spin_lock(lock: *mut usize) -> u8 {
    let _ = peek(lock);
    kernel(|k| u8::from(!k.ke.spin_locks.contains_key(&(lock as usize))))
}

fn at_dispatch(k: &mut Kernel, lock: *mut usize, function: &str) {
    let irql = k.irql();
    if irql < DISPATCH_LEVEL {
        k.bug_check(BugCheck::verifier(
            0x40,
            [u64::from(irql), lock as u64, 0],
            format!("{function} was called at IRQL {irql}, below DISPATCH_LEVEL"),
        ));
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
fn acquire_queued(lock: *mut usize, handle: *mut LockQueueHandle, old_irql: u8) {
    let address = lock as usize;
    kernel(|k| {
        let me = k.running();
        if k.ke.spin_locks.get(&address) != Some(&me) {
            k.ke.spin_queues.entry(address).or_default().push_back(me);
        }
    });
    // Those before it in the queue take the lock before it; of itself it tells `acquire`.
    super::sleep::until(address, |k| {
        let me = k.running();
        let turn =
            k.ke.spin_queues
                .get(&address)
                .and_then(|queue| queue.front())
                .is_none_or(|front| *front == me);
        let free =
            k.ke.spin_locks
                .get(&address)
                .is_none_or(|holder| *holder == me);
        (turn && free).then_some(())
    });
    acquire(address);
    kernel(|k| {
        if let Some(queue) = k.ke.spin_queues.get_mut(&address) {
            queue.pop_front();
        }
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
    let _ = (peek(lock), peek(handle));
    let old = kernel(|k| {
        super::irql::at_most_dispatch(k, "KeAcquireInStackQueuedSpinLock");
        let old = k.irql();
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    acquire_queued(lock, handle, old);
}

/// `KeAcquireInStackQueuedSpinLockAtDpcLevel`.
pub(crate) fn ke_acquire_in_stack_queued_spin_lock_at_dpc_level(
    lock: *mut usize,
    handle: *mut LockQueueHandle,
) {
    let _ = (peek(lock), peek(handle));
    kernel(|k| at_dispatch(k, lock, "KeAcquireInStackQueuedSpinLockAtDpcLevel"));
    acquire_queued(lock, handle, DISPATCH_LEVEL);
}

/// Gives back the lock of `handle`; the IRQL to return to.
fn release_queued(handle: *mut LockQueueHandle, function: &str) -> u8 {
    let held = peek(handle);
    kernel(|k| {
        at_dispatch(k, held.lock, function);
        release(k, held.lock as usize, function);
    });
    poke(
        handle,
        LockQueueHandle {
            lock: std::ptr::null_mut(),
            ..held
        },
    );
    held.old_irql
}

/// `KeReleaseInStackQueuedSpinLock`.
pub(crate) fn ke_release_in_stack_queued_spin_lock(handle: *mut LockQueueHandle) {
    let old = release_queued(handle, "KeReleaseInStackQueuedSpinLock");
    kernel(|k| k.set_irql(old.min(DISPATCH_LEVEL)));
}

/// `KeReleaseInStackQueuedSpinLockFromDpcLevel`.
pub(crate) fn ke_release_in_stack_queued_spin_lock_from_dpc_level(handle: *mut LockQueueHandle) {
    release_queued(handle, "KeReleaseInStackQueuedSpinLockFromDpcLevel");
}
