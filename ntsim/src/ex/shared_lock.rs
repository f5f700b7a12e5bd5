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
use crate::ke::{guarded_region, sleep};
use crate::kernel::{APC_LEVEL, ContextId, DISPATCH_LEVEL, Kernel};
use crate::locks::{self, Held as Lock, Kind};
use crate::rules::{self, Rule};
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
fn attempt(k: &mut Kernel, lock: usize, mode: Mode, how: How) -> bool {
    let me = k.running();
    let taken = match (k.ex.shared_locks.get_mut(&lock), mode) {
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
    };
    if taken {
        let shared = mode == Mode::Shared;
        locks::taken(k, me, lock, how.kind, shared, how.old_irql, how.function);
    }
    taken
}

/// Which lock is taken, by whom.
#[derive(Clone, Copy)]
struct How {
    kind: Kind,
    /// Where its release is to go back to.
    old_irql: Option<u8>,
    function: &'static str,
}

/// Takes the lock, waiting for it.
fn acquire(lock: usize, mode: Mode, how: How) {
    let mut asked = false;
    sleep::until(lock, |k| {
        if !std::mem::replace(&mut asked, true) {
            locks::wants(k, lock, how.kind, how.function);
        }
        if k.name_of(lock).is_none() {
            let kind = if how.kind == Kind::Push {
                "pushlock"
            } else {
                "spinlock"
            };
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
            locks::self_deadlock(k, lock, how.kind, how.function);
        }
        attempt(k, lock, mode, how).then_some(())
    });
}

/// Gives the lock back.
fn release(k: &mut Kernel, lock: usize, mode: Mode, kind: Kind, function: &str) -> Lock {
    let me = k.running();
    let Some(held) = locks::given_back(k, me, lock) else {
        locks::not_held(k, lock, kind, function)
    };
    if held.kind != kind || held.shared != (mode == Mode::Shared) {
        locks::release_mismatch(k, &held, function);
    }
    let freed = match k.ex.shared_locks.get_mut(&lock) {
        Some(Holders::Shared(holders)) => {
            if let Some(index) = holders.iter().position(|holder| *holder == me) {
                holders.remove(index);
            }
            holders.is_empty()
        }
        _ => true,
    };
    if freed {
        k.ex.shared_locks.remove(&lock);
        sleep::wake(k, lock);
    }
    held
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

/// Faults here if the memory is bad; gives the address. A lock that was initialised
/// is 0, which the simulator leaves it.
fn touch<T: Copy + PartialEq + Default>(lock: *mut T, kind: Kind, function: &str) -> usize {
    let value = peek(lock);
    poke(lock, value);
    if value != T::default() {
        kernel(|k| locks::uninitialized(k, lock as usize, kind, function));
    }
    lock as usize
}

// ---- push locks ---------------------------------------------------------

/// `ExInitializePushLock`.
pub(crate) fn ex_initialize_push_lock(lock: *mut usize) {
    poke(lock, 0);
    kernel(|k| {
        locks::initialized(k, lock as usize, Kind::Push, "ExInitializePushLock");
        k.ex.shared_locks.remove(&(lock as usize));
        k.name(lock as usize, "pushlock");
    });
}

/// `EX_PUSH_LOCK_FLAGS` that there are: `EX_DISABLE_ABANDON_DETECTION` is 1.
const PUSH_LOCK_FLAGS: u32 = 3;

fn push_lock(
    lock: *mut usize,
    flags: u32,
    apcs: &'static Rule,
    function: &'static str,
) -> (usize, How) {
    let address = touch(lock, Kind::Push, function);
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
            k.broken(
                apcs,
                &[u64::from(irql), 0, address as u64],
                format!("{function} was called with normal kernel APCs enabled; it needs KeEnterCriticalRegion before it"),
            );
        }
        if flags & !PUSH_LOCK_FLAGS != 0 {
            k.broken(
                &rules::lock::PUSH_LOCK_FLAGS,
                &[],
                format!("{function} was given flags {flags:#x}"),
            );
        }
    });
    let how = How {
        kind: Kind::Push,
        old_irql: None,
        function,
    };
    (address, how)
}

/// `ExAcquirePushLockExclusiveEx`.
pub(crate) fn ex_acquire_push_lock_exclusive_ex(lock: *mut usize, flags: u32) {
    let rule = &rules::lock::PUSH_LOCK_ACQUIRE_APC;
    let (address, how) = push_lock(lock, flags, rule, "ExAcquirePushLockExclusiveEx");
    acquire(address, Mode::Exclusive, how);
}

/// `ExAcquirePushLockSharedEx`.
pub(crate) fn ex_acquire_push_lock_shared_ex(lock: *mut usize, flags: u32) {
    let rule = &rules::lock::PUSH_LOCK_ACQUIRE_APC;
    let (address, how) = push_lock(lock, flags, rule, "ExAcquirePushLockSharedEx");
    acquire(address, Mode::Shared, how);
}

/// `ExReleasePushLockExclusiveEx`.
pub(crate) fn ex_release_push_lock_exclusive_ex(lock: *mut usize, flags: u32) {
    let rule = &rules::lock::PUSH_LOCK_RELEASE_APC;
    let (address, how) = push_lock(lock, flags, rule, "ExReleasePushLockExclusiveEx");
    kernel(|k| release(k, address, Mode::Exclusive, how.kind, how.function));
}

/// `ExReleasePushLockSharedEx`.
pub(crate) fn ex_release_push_lock_shared_ex(lock: *mut usize, flags: u32) {
    let rule = &rules::lock::PUSH_LOCK_RELEASE_APC;
    let (address, how) = push_lock(lock, flags, rule, "ExReleasePushLockSharedEx");
    kernel(|k| release(k, address, Mode::Shared, how.kind, how.function));
}

// ---- spin locks ---------------------------------------------------------

fn at_dpc_level(function: &'static str) -> How {
    How {
        kind: Kind::SharedSpin,
        old_irql: None,
        function,
    }
}

fn raise_and_acquire(lock: *mut i32, mode: Mode, function: &'static str) -> u8 {
    let address = touch(lock, Kind::SharedSpin, function);
    let old = kernel(|k| {
        let old = k.irql();
        k.set_irql(DISPATCH_LEVEL);
        old
    });
    let how = How {
        old_irql: Some(old),
        ..at_dpc_level(function)
    };
    acquire(address, mode, how);
    old
}

fn at_dispatch(lock: *mut i32, function: &str) -> usize {
    let address = touch(lock, Kind::SharedSpin, function);
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
        let held = release(k, address, mode, Kind::SharedSpin, function);
        if new_irql > DISPATCH_LEVEL {
            k.bug_check(BugCheck::verifier(
                0x31,
                [u64::from(k.irql()), u64::from(new_irql), 0],
                format!("{function} was given the IRQL {new_irql} to return to"),
            ));
        }
        locks::lowers(k, &held, new_irql, function);
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
        at_dpc_level("ExAcquireSpinLockSharedAtDpcLevel"),
    );
}

/// `ExAcquireSpinLockExclusiveAtDpcLevel`.
pub(crate) fn ex_acquire_spin_lock_exclusive_at_dpc_level(lock: *mut i32) {
    let address = at_dispatch(lock, "ExAcquireSpinLockExclusiveAtDpcLevel");
    acquire(
        address,
        Mode::Exclusive,
        at_dpc_level("ExAcquireSpinLockExclusiveAtDpcLevel"),
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
            Kind::SharedSpin,
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
            Kind::SharedSpin,
            "ExReleaseSpinLockExclusiveFromDpcLevel",
        );
    });
}

/// `ExTryAcquireSpinLockSharedAtDpcLevel`.
pub(crate) fn ex_try_acquire_spin_lock_shared_at_dpc_level(lock: *mut i32) -> i32 {
    let how = at_dpc_level("ExTryAcquireSpinLockSharedAtDpcLevel");
    let address = at_dispatch(lock, how.function);
    kernel(|k| i32::from(attempt(k, address, Mode::Shared, how)))
}

/// `ExTryAcquireSpinLockExclusiveAtDpcLevel`.
pub(crate) fn ex_try_acquire_spin_lock_exclusive_at_dpc_level(lock: *mut i32) -> i32 {
    let how = at_dpc_level("ExTryAcquireSpinLockExclusiveAtDpcLevel");
    let address = at_dispatch(lock, how.function);
    kernel(|k| i32::from(attempt(k, address, Mode::Exclusive, how)))
}

/// `ExTryConvertSharedSpinLockExclusive`: works for the only reader.
pub(crate) fn ex_try_convert_shared_spin_lock_exclusive(lock: *mut i32) -> i32 {
    let address = at_dispatch(lock, "ExTryConvertSharedSpinLockExclusive");
    kernel(|k| {
        let me = k.running();
        let alone = k.ex.shared_locks.get(&address) == Some(&Holders::Shared(vec![me]));
        if alone {
            k.ex.shared_locks.insert(address, Holders::Exclusive(me));
            locks::set_shared(k, address, false);
        }
        i32::from(alone)
    })
}
