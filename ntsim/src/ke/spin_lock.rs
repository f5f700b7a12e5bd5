// SPDX-License-Identifier: MIT OR Apache-2.0

//! Spin locks: <https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-spin-locks>
//!
//! A context that spins occupies its processor; the scheduler does not choose
//! it until the lock is free.

use crate::bugcheck::BugCheck;
use crate::kernel::{DISPATCH_LEVEL, Kernel, State};
use crate::access::{peek, poke};
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
                format!("KeAcquireSpinLockAtDpcLevel was called at IRQL {irql}, below DISPATCH_LEVEL"),
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
        k.bug_check(BugCheck::verifier(0x1007, [lock as u64, 0, 0], format!("{function} releases {name}, which the caller does not hold")));
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
