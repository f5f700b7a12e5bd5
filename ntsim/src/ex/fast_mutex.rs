// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fast mutexes and guarded mutexes:
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/fast-mutexes-and-guarded-mutexes>
//!
//! | | while held | `…Unsafe` needs |
//! |---|---|---|
//! | fast mutex | `APC_LEVEL` | APCs kept away by the caller |
//! | guarded mutex | a guarded region | the same |
//!
//! Neither is recursive. Both are a `FAST_MUTEX`; that its event was
//! initialised shows that the mutex was.

use std::collections::HashMap;

use crate::access::{peek, poke};
use crate::ke::dispatcher::{Header, Object, ThreadId};
use crate::ke::{dispatcher, guarded_region, sleep};
use crate::kernel::{APC_LEVEL, Kernel};
use crate::locks::{self, Kind};
use crate::rules::{self, Rule};
use crate::trap::kernel;

/// `FAST_MUTEX`, `KGUARDED_MUTEX`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct FastMutex {
    count: i32,
    owner: usize,
    contention: u32,
    event: Header,
    old_irql: u32,
}

/// The mutexes that are held, by address, with their owners.
pub(crate) type Held = HashMap<usize, ThreadId>;

/// Faults here if the memory is bad; gives the address.
fn touch(mutex: *mut FastMutex) -> usize {
    poke(mutex, peek(mutex));
    mutex as usize
}

/// Takes the mutex if it is free. A mutex that the caller owns already is a deadlock.
fn attempt(k: &mut Kernel, mutex: usize, function: &'static str) -> bool {
    let thread = caller(k, mutex, function);
    match k.ex.fast_mutexes.get(&mutex) {
        None => {
            k.ex.fast_mutexes.insert(mutex, thread);
            let me = k.running();
            locks::taken(k, me, mutex, Kind::FastMutex, false, None, function);
            true
        }
        Some(_) => false,
    }
}

/// The thread that calls, after the checks that all calls have.
fn caller(k: &mut Kernel, mutex: usize, function: &str) -> ThreadId {
    let event = mutex + std::mem::offset_of!(FastMutex, event);
    if !k.ke.objects.contains_key(&event) {
        locks::uninitialized(k, mutex, Kind::FastMutex, function);
    }
    if k.name_of(mutex).is_none() {
        k.name(mutex, "mutex");
    }
    k.running_thread()
        .expect("the IRQL was checked, and a DPC's is higher")
}

/// Takes the mutex, waiting for it.
fn acquire(mutex: usize, function: &'static str) {
    let mut asked = false;
    sleep::until(mutex, |k| {
        if !std::mem::replace(&mut asked, true) {
            locks::wants(k, mutex, Kind::FastMutex, function);
        }
        let thread = caller(k, mutex, function);
        if k.ex.fast_mutexes.get(&mutex) == Some(&thread) {
            locks::self_deadlock(k, mutex, Kind::FastMutex, function);
        }
        attempt(k, mutex, function).then_some(())
    });
}

/// Gives the mutex back.
fn release(k: &mut Kernel, mutex: usize, function: &str) {
    caller(k, mutex, function);
    let me = k.running();
    if locks::given_back(k, me, mutex).is_none() {
        locks::not_held(k, mutex, Kind::FastMutex, function);
    }
    k.ex.fast_mutexes.remove(&mutex);
    sleep::wake(k, mutex);
}

/// Stops the machine above `APC_LEVEL`.
fn at_most_apc(k: &mut Kernel, mutex: usize, function: &str) {
    let irql = k.irql();
    if irql > APC_LEVEL {
        k.broken(
            &rules::lock::FAST_MUTEX_IRQL,
            &[u64::from(irql), mutex as u64],
            format!("{function} was called at IRQL {irql}; it needs APC_LEVEL or below"),
        );
    }
}

/// Stops the machine unless APCs are kept away from the caller.
fn without_apcs(k: &mut Kernel, rule: &'static Rule, mutex: usize, function: &str) {
    at_most_apc(k, mutex, function);
    let irql = k.irql();
    if irql != APC_LEVEL && !guarded_region::apcs_disabled(k) {
        k.broken(
            rule,
            &[u64::from(irql), 0, mutex as u64],
            format!("{function} was called at IRQL {irql} outside of a critical region; APCs must be disabled"),
        );
    }
}

/// Remembers the IRQL to return to in the mutex, where the owner alone looks.
fn set_old_irql(mutex: *mut FastMutex, old: u8) {
    poke(
        mutex,
        FastMutex {
            old_irql: u32::from(old),
            ..peek(mutex)
        },
    );
}

/// `ExAcquireFastMutex`.
pub(crate) fn ex_acquire_fast_mutex(mutex: *mut FastMutex) {
    let address = touch(mutex);
    let old = kernel(|k| {
        at_most_apc(k, address, "ExAcquireFastMutex");
        let old = k.irql();
        k.set_irql(APC_LEVEL);
        old
    });
    acquire(address, "ExAcquireFastMutex");
    set_old_irql(mutex, old);
}

/// `ExTryToAcquireFastMutex`.
pub(crate) fn ex_try_to_acquire_fast_mutex(mutex: *mut FastMutex) -> u8 {
    let address = touch(mutex);
    let taken = kernel(|k| {
        at_most_apc(k, address, "ExTryToAcquireFastMutex");
        let old = k.irql();
        attempt(k, address, "ExTryToAcquireFastMutex").then(|| {
            k.set_irql(APC_LEVEL);
            old
        })
    });
    if let Some(old) = taken {
        set_old_irql(mutex, old);
    }
    u8::from(taken.is_some())
}

/// `ExReleaseFastMutex`.
pub(crate) fn ex_release_fast_mutex(mutex: *mut FastMutex) {
    let address = touch(mutex);
    let old = peek(mutex).old_irql;
    kernel(|k| {
        let irql = k.irql();
        if irql != APC_LEVEL {
            k.broken(
                &rules::lock::FAST_MUTEX_RELEASE_IRQL,
                &[u64::from(irql), address as u64],
                format!("ExReleaseFastMutex was called at IRQL {irql} instead of APC_LEVEL"),
            );
        }
        release(k, address, "ExReleaseFastMutex");
        k.set_irql(u8::try_from(old).unwrap_or(APC_LEVEL).min(APC_LEVEL));
    });
}

/// `ExAcquireFastMutexUnsafe`.
pub(crate) fn ex_acquire_fast_mutex_unsafe(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        without_apcs(
            k,
            &rules::lock::FAST_MUTEX_UNSAFE_ACQUIRE,
            address,
            "ExAcquireFastMutexUnsafe",
        );
    });
    acquire(address, "ExAcquireFastMutexUnsafe");
}

/// `ExReleaseFastMutexUnsafe`.
pub(crate) fn ex_release_fast_mutex_unsafe(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        without_apcs(
            k,
            &rules::lock::FAST_MUTEX_UNSAFE_RELEASE,
            address,
            "ExReleaseFastMutexUnsafe",
        );
        release(k, address, "ExReleaseFastMutexUnsafe");
    });
}

/// `KeInitializeGuardedMutex`.
pub(crate) fn ke_initialize_guarded_mutex(mutex: *mut FastMutex) {
    let address = mutex as usize;
    let event = (address + std::mem::offset_of!(FastMutex, event)) as *mut Header;
    dispatcher::initialize(
        event,
        Object::Event {
            notification: false,
            set: false,
        },
    );
    poke(
        mutex,
        FastMutex {
            count: 1,
            owner: 0,
            contention: 0,
            event: peek(event),
            old_irql: 0,
        },
    );
    kernel(|k| {
        locks::initialized(k, address, Kind::FastMutex, "KeInitializeGuardedMutex");
        k.ex.fast_mutexes.remove(&address);
        k.name(address, "mutex");
    });
}

/// `KeAcquireGuardedMutex`.
pub(crate) fn ke_acquire_guarded_mutex(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        at_most_apc(k, address, "KeAcquireGuardedMutex");
        guarded_region::enter(k);
    });
    acquire(address, "KeAcquireGuardedMutex");
}

/// `KeTryToAcquireGuardedMutex`.
pub(crate) fn ke_try_to_acquire_guarded_mutex(mutex: *mut FastMutex) -> u8 {
    let address = touch(mutex);
    kernel(|k| {
        at_most_apc(k, address, "KeTryToAcquireGuardedMutex");
        let taken = attempt(k, address, "KeTryToAcquireGuardedMutex");
        if taken {
            guarded_region::enter(k);
        }
        u8::from(taken)
    })
}

/// `KeReleaseGuardedMutex`.
pub(crate) fn ke_release_guarded_mutex(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        at_most_apc(k, address, "KeReleaseGuardedMutex");
        release(k, address, "KeReleaseGuardedMutex");
        guarded_region::leave(k, "KeReleaseGuardedMutex");
    });
}

/// `KeAcquireGuardedMutexUnsafe`.
pub(crate) fn ke_acquire_guarded_mutex_unsafe(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        without_apcs(
            k,
            &rules::lock::FAST_MUTEX_UNSAFE_ACQUIRE,
            address,
            "KeAcquireGuardedMutexUnsafe",
        );
    });
    acquire(address, "KeAcquireGuardedMutexUnsafe");
}

/// `KeReleaseGuardedMutexUnsafe`.
pub(crate) fn ke_release_guarded_mutex_unsafe(mutex: *mut FastMutex) {
    let address = touch(mutex);
    kernel(|k| {
        without_apcs(
            k,
            &rules::lock::FAST_MUTEX_UNSAFE_RELEASE,
            address,
            "KeReleaseGuardedMutexUnsafe",
        );
        release(k, address, "KeReleaseGuardedMutexUnsafe");
    });
}

/// The mutexes that are held, with their owners.
pub(crate) fn held(k: &Kernel) -> impl Iterator<Item = (usize, ThreadId)> {
    k.ex.fast_mutexes
        .iter()
        .map(|(mutex, owner)| (*mutex, *owner))
}
