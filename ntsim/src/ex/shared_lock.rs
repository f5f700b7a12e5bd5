// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks that many may read and one may write: push locks, and spin locks of
//! the `EX_SPIN_LOCK` kind.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquirepushlockexclusiveex>,
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/reader-writer-spin-locks>
//!
//! | | IRQL | may the holder sleep |
//! |---|---|---|
//! | push lock | `<= APC_LEVEL`, in a critical region | yes |
//! | spin lock | raises to `DISPATCH_LEVEL` | no |
//!
//! A driver's lock is zero bytes until it is first taken, so there is nothing
//! to tell an initialised one by.

use std::collections::BTreeMap;

use crate::access::{peek, poke};
use crate::bugcheck::BugCheck;
use crate::ke::{guarded_region, irql, sleep};
use crate::kernel::{APC_LEVEL, ContextId, DISPATCH_LEVEL, Kernel};
use crate::trap::kernel;

/// How a lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holders {
    Exclusive(ContextId),
    Shared(Vec<ContextId>),
}

/// The locks that are held, by address.
pub(crate) type Held = BTreeMap<usize, Holders>;

/// Which way a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Exclusive,
    Shared,
}

/// Takes the lock if its holders let.
fn attempt(k: &mut Kernel, lock: usize, mode: Mode) -> bool {
    let me = k.running();
    match (k.ex.shared_locks.get_mut(&lock), mode) {
        (None, Mode::Exclusive) => {
            k.ex.shared_locks.insert(lock, Holders::Exclusive(me));
            true
        }
        (None, Mode::Shared) => {
            k.ex.shared_locks.insert(lock, Holders::Shared(vec![me]));
            true
        }
        (Some(Holders::Shared(holders)), Mode::Shared) => {
            holders.push(me);
            true
        }
        _ => false,
    }
}

/// Takes the lock, waiting for it.
fn acquire(lock: usize, mode: Mode, kind: &'static str, function: &str) {
    sleep::until(lock, |k| {
        if k.name_of(lock).is_none() {
            k.name(lock, kind);
        }
        let me = k.running();
        let mine = match k.ex.shared_locks.get(&lock) {
            Some(Holders::Exclusive(holder)) => *holder == me,
            // Taking it shared twice can deadlock too, if a writer came in between.
            Some(Holders::Shared(holders)) => holders.contains(&me),
            None => false,
        };
        if mine {
            let name = k.name_of(lock).unwrap_or("the lock").to_owned();
            k.bug_check(BugCheck::verifier(
                0x1000,
                [lock as u64, 0, 0],
                format!("{function}: the caller holds {name} already, and it is not recursive"),
            ));
        }
        attempt(k, lock, mode).then_some(())
    });
}

/// Gives the lock back.
fn release(k: &mut Kernel, lock: usize, mode: Mode, function: &str) {
    let me = k.running();
    let freed = match (k.ex.shared_locks.get_mut(&lock), mode) {
        (Some(Holders::Exclusive(holder)), Mode::Exclusive) if *holder == me => Some(true),
        (Some(Holders::Shared(holders)), Mode::Shared) => holders
            .iter()
            .position(|holder| *holder == me)
            .map(|index| {
                holders.remove(index);
                holders.is_empty()
            }),
        _ => None,
    };
    let Some(freed) = freed else {
        let name = k.name_of(lock).unwrap_or("the lock").to_owned();
        let way = if mode == Mode::Exclusive {
            "exclusively"
        } else {
            "shared"
        };
        k.bug_check(BugCheck::verifier(
            0x1007,
            [lock as u64, 0, 0],
            format!("{function} releases {name}, which the caller does not hold {way}"),
        ))
    };
    if freed {
        k.ex.shared_locks.remove(&lock);
        sleep::wake(k, lock);
    }
}

/// The locks that are held, by whom, and whether shared.
pub(crate) fn held(k: &Kernel) -> impl Iterator<Item = (usize, Vec<ContextId>, bool)> {
    k.ex.shared_locks
        .iter()
        .map(|(lock, holders)| match holders {
            Holders::Exclusive(holder) => (*lock, vec![*holder], false),
            Holders::Shared(holders) => (*lock, holders.clone(), true),
        })
}

/// The lock that `context` holds, if it holds one.
pub(crate) fn held_by(k: &Kernel, context: ContextId) -> Option<usize> {
    k.ex.shared_locks
        .iter()
        .find(|(_, holders)| match holders {
            Holders::Exclusive(holder) => *holder == context,
            Holders::Shared(holders) => holders.contains(&context),
        })
        .map(|(lock, _)| *lock)
}

/// Faults here if the memory is bad; gives the address.
fn touch<T: Copy>(lock: *mut T) -> usize {
    poke(lock, peek(lock));
    lock as usize
}

// ---- push locks ---------------------------------------------------------

/// `ExInitializePushLock`.
pub(crate) fn ex_initialize_push_lock(lock: *mut usize) {
    poke(lock, 0);
    kernel(|k| {
        k.ex.shared_locks.remove(&(lock as usize));
        k.name(lock as usize, "pushlock");
    });
}

/// `EX_PUSH_LOCK_FLAGS` that there are: `EX_DISABLE_ABANDON_DETECTION` is 1.
const PUSH_LOCK_FLAGS: u32 = 3;

fn push_lock(lock: *mut usize, flags: u32, function: &str) -> usize {
    let address = touch(lock);
    kernel(|k| {
        let irql = k.irql();
        if irql > APC_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x2_0005,
                [u64::from(irql), address as u64, 0],
                format!("{function} was called at IRQL {irql}; it needs APC_LEVEL or below"),
            ));
        }
        // A thread that is suspended with the lock would keep it for ever.
        if !guarded_region::apcs_disabled(k) {
            k.bug_check(BugCheck::verifier(
                0x37,
                [u64::from(irql), 0, address as u64],
                format!("{function} was called with normal kernel APCs enabled; it needs KeEnterCriticalRegion before it"),
            ));
        }
        if flags & !PUSH_LOCK_FLAGS != 0 {
            k.bug_check(BugCheck::verifier(
                0x1003,
                [address as u64, u64::from(flags), 0],
                format!("{function} was given flags {flags:#x}"),
            ));
        }
    });
    address
}

/// `ExAcquirePushLockExclusiveEx`.
pub(crate) fn ex_acquire_push_lock_exclusive_ex(lock: *mut usize, flags: u32) {
    let address = push_lock(lock, flags, "ExAcquirePushLockExclusiveEx");
    acquire(
        address,
        Mode::Exclusive,
        "pushlock",
        "ExAcquirePushLockExclusiveEx",
    );
}

/// `ExAcquirePushLockSharedEx`.
pub(crate) fn ex_acquire_push_lock_shared_ex(lock: *mut usize, flags: u32) {
    let address = push_lock(lock, flags, "ExAcquirePushLockSharedEx");
    acquire(
        address,
        Mode::Shared,
        "pushlock",
        "ExAcquirePushLockSharedEx",
    );
}

/// `ExReleasePushLockExclusiveEx`.
pub(crate) fn ex_release_push_lock_exclusive_ex(lock: *mut usize, flags: u32) {
    let address = push_lock(lock, flags, "ExReleasePushLockExclusiveEx");
    kernel(|k| release(k, address, Mode::Exclusive, "ExReleasePushLockExclusiveEx"));
}

/// `ExReleasePushLockSharedEx`.
pub(crate) fn ex_release_push_lock_shared_ex(lock: *mut usize, flags: u32) {
    let address = push_lock(lock, flags, "ExReleasePushLockSharedEx");
    kernel(|k| release(k, address, Mode::Shared, "ExReleasePushLockSharedEx"));
}

// ---- spin locks ---------------------------------------------------------

fn raise_and_acquire(lock: *mut i32, mode: Mode, function: &str) -> u8 {
    let address = touch(lock);
    let old = kernel(|k| {
        irql::at_most_dispatch(k, function);
        let old = k.irql();
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    acquire(address, mode, "spinlock", function);
    old
}

fn at_dispatch(lock: *mut i32, function: &str) -> usize {
    let address = touch(lock);
    kernel(|k| {
        let irql = k.irql();
        if irql < DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x40,
                [u64::from(irql), address as u64, 0],
                format!("{function} was called at IRQL {irql}, below DISPATCH_LEVEL"),
            ));
        }
    });
    address
}

fn release_and_lower(lock: *mut i32, mode: Mode, new_irql: u8, function: &str) {
    let address = at_dispatch(lock, function);
    kernel(|k| {
        release(k, address, mode, function);
        if new_irql > DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x31,
                [u64::from(k.irql()), u64::from(new_irql), 0],
                format!("{function} was given the IRQL {new_irql} to return to"),
            ));
        }
        k.set_irql(new_irql);
    });
}

/// `ExAcquireSpinLockShared`. Returns the previous IRQL.
pub(crate) fn ex_acquire_spin_lock_shared(lock: *mut i32) -> u8 {
    raise_and_acquire(lock, Mode::Shared, "ExAcquireSpinLockShared")
}

/// `ExAcquireSpinLockExclusive`. Returns the previous IRQL.
pub(crate) fn ex_acquire_spin_lock_exclusive(lock: *mut i32) -> u8 {
    raise_and_acquire(lock, Mode::Exclusive, "ExAcquireSpinLockExclusive")
}

/// `ExReleaseSpinLockShared`.
pub(crate) fn ex_release_spin_lock_shared(lock: *mut i32, old_irql: u8) {
    release_and_lower(lock, Mode::Shared, old_irql, "ExReleaseSpinLockShared");
}

/// `ExReleaseSpinLockExclusive`.
pub(crate) fn ex_release_spin_lock_exclusive(lock: *mut i32, old_irql: u8) {
    release_and_lower(
        lock,
        Mode::Exclusive,
        old_irql,
        "ExReleaseSpinLockExclusive",
    );
}

/// `ExAcquireSpinLockSharedAtDpcLevel`.
pub(crate) fn ex_acquire_spin_lock_shared_at_dpc_level(lock: *mut i32) {
    let address = at_dispatch(lock, "ExAcquireSpinLockSharedAtDpcLevel");
    acquire(
        address,
        Mode::Shared,
        "spinlock",
        "ExAcquireSpinLockSharedAtDpcLevel",
    );
}

/// `ExAcquireSpinLockExclusiveAtDpcLevel`.
pub(crate) fn ex_acquire_spin_lock_exclusive_at_dpc_level(lock: *mut i32) {
    let address = at_dispatch(lock, "ExAcquireSpinLockExclusiveAtDpcLevel");
    acquire(
        address,
        Mode::Exclusive,
        "spinlock",
        "ExAcquireSpinLockExclusiveAtDpcLevel",
    );
}

/// `ExReleaseSpinLockSharedFromDpcLevel`.
pub(crate) fn ex_release_spin_lock_shared_from_dpc_level(lock: *mut i32) {
    let address = at_dispatch(lock, "ExReleaseSpinLockSharedFromDpcLevel");
    kernel(|k| {
        release(
            k,
            address,
            Mode::Shared,
            "ExReleaseSpinLockSharedFromDpcLevel",
        );
    });
}

/// `ExReleaseSpinLockExclusiveFromDpcLevel`.
pub(crate) fn ex_release_spin_lock_exclusive_from_dpc_level(lock: *mut i32) {
    let address = at_dispatch(lock, "ExReleaseSpinLockExclusiveFromDpcLevel");
    kernel(|k| {
        release(
            k,
            address,
            Mode::Exclusive,
            "ExReleaseSpinLockExclusiveFromDpcLevel",
        );
    });
}

/// `ExTryAcquireSpinLockSharedAtDpcLevel`.
pub(crate) fn ex_try_acquire_spin_lock_shared_at_dpc_level(lock: *mut i32) -> i32 {
    let address = at_dispatch(lock, "ExTryAcquireSpinLockSharedAtDpcLevel");
    kernel(|k| i32::from(attempt(k, address, Mode::Shared)))
}

/// `ExTryAcquireSpinLockExclusiveAtDpcLevel`.
pub(crate) fn ex_try_acquire_spin_lock_exclusive_at_dpc_level(lock: *mut i32) -> i32 {
    let address = at_dispatch(lock, "ExTryAcquireSpinLockExclusiveAtDpcLevel");
    kernel(|k| i32::from(attempt(k, address, Mode::Exclusive)))
}

/// `ExTryConvertSharedSpinLockExclusive`: works for the only reader.
pub(crate) fn ex_try_convert_shared_spin_lock_exclusive(lock: *mut i32) -> i32 {
    let address = at_dispatch(lock, "ExTryConvertSharedSpinLockExclusive");
    kernel(|k| {
        let me = k.running();
        let alone = k.ex.shared_locks.get(&address) == Some(&Holders::Shared(vec![me]));
        if alone {
            k.ex.shared_locks.insert(address, Holders::Exclusive(me));
        }
        i32::from(alone)
    })
}
