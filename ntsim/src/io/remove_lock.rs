// SPDX-License-Identifier: MIT OR Apache-2.0

//! Remove locks: a device that is not removed while an operation uses it.
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/using-remove-locks>
//!
//! The count is in the driver's `IO_REMOVE_LOCK`; the tags of who holds it are
//! in the simulator, which compares them as Driver Verifier does.

use std::collections::HashMap;

use crate::access::{Addr, peek, poke};
use crate::ke::sleep;
use crate::kernel::Kernel;
use crate::rules::{self, Rule};
use crate::trap::kernel;

const STATUS_SUCCESS: i32 = 0;
const STATUS_DELETE_PENDING: i32 = 0xC000_0056_u32.cast_signed();

/// The part of `IO_REMOVE_LOCK` that counts; an event is behind it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RemoveLock {
    removed: u8,
    reserved: [u8; 3],
    count: i32,
}

/// `sizeof(IO_REMOVE_LOCK)`, free and checked.
const SIZES: [u32; 2] = [32, 120];

/// The tags with which each lock is held.
pub(crate) type Tags = HashMap<usize, Vec<usize>>;

/// `IoInitializeRemoveLockEx`.
pub(crate) fn io_initialize_remove_lock_ex(
    lock: *mut RemoveLock,
    _allocate_tag: u32,
    _max_locked_minutes: u32,
    _high_watermark: u32,
    size: u32,
) {
    poke(
        lock,
        RemoveLock {
            removed: 0,
            reserved: [0; 3],
            count: 1,
        },
    );
    kernel(|k| {
        if k.io.remove_locks.contains_key(&(lock as usize)) {
            let name = k.name_of(lock as usize).unwrap_or("the lock").to_owned();
            k.broken(
                &rules::lock::REMOVE_LOCK_INITIALIZED_TWICE,
                &[0, lock as u64],
                format!("IoInitializeRemoveLock was given {name}, which is initialised; it may be in use until its memory is freed"),
            );
        }
        k.name(lock as usize, "removelock");
        check_size(k, size, "IoInitializeRemoveLock");
        k.io.remove_locks.insert(lock as usize, Vec::new());
    });
}

fn check_size(k: &mut Kernel, size: u32, function: &str) {
    if !SIZES.contains(&size) {
        k.broken(
            &rules::lock::REMOVE_LOCK_MISUSED,
            &[],
            format!("{function} was given a lock of {size} bytes; IO_REMOVE_LOCK has 32"),
        );
    }
}

fn tags<'k>(k: &'k mut Kernel, lock: *mut RemoveLock, function: &str) -> &'k mut Vec<usize> {
    if !k.io.remove_locks.contains_key(&(lock as usize)) {
        k.fatal(
            &rules::lock::REMOVE_LOCK_MISUSED,
            &[],
            format!(
                "{function} was given a remove lock that IoInitializeRemoveLock has not initialised"
            ),
        );
    }
    k.io.remove_locks
        .get_mut(&(lock as usize))
        .expect("checked")
}

/// `IoAcquireRemoveLockEx`.
pub(crate) fn io_acquire_remove_lock_ex(
    lock: *mut RemoveLock,
    Addr(tag): Addr,
    _file: *const u8,
    _line: u32,
    size: u32,
) -> i32 {
    let state = peek(lock);
    kernel(|k| {
        check_size(k, size, "IoAcquireRemoveLock");
        let tags = tags(k, lock, "IoAcquireRemoveLock");
        if state.removed == 0 {
            tags.push(tag);
        }
    });
    if state.removed != 0 {
        return STATUS_DELETE_PENDING;
    }
    poke(
        lock,
        RemoveLock {
            count: state.count + 1,
            ..state
        },
    );
    STATUS_SUCCESS
}

/// Forgets the locks in memory that is given back.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    if !k.io.remove_locks.is_empty() {
        let range = address..address + size;
        k.io.remove_locks.retain(|lock, _| !range.contains(lock));
    }
}

/// Gives back one acquisition; `rule` is for a tag that nobody acquired with.
fn release(lock: *mut RemoveLock, tag: usize, size: u32, rule: &'static Rule, function: &str) {
    let state = peek(lock);
    kernel(|k| {
        check_size(k, size, function);
        let tags = tags(k, lock, function);
        if let Some(index) = tags.iter().position(|held| *held == tag) {
            tags.remove(index);
        } else {
            let other = tags.first().copied().unwrap_or(0);
            let (lock_name, tag_name) = (
                k.name_of(lock as usize).unwrap_or("the lock").to_owned(),
                k.name_of(tag)
                    .map_or_else(|| format!("{tag:#x}"), str::to_owned),
            );
            k.fatal(
                rule,
                &[lock as u64, tag as u64, other as u64],
                format!("{function} releases {lock_name} with the tag {tag_name}, with which it was not acquired"),
            );
        }
        if state.count <= 2 && state.removed != 0 {
            sleep::wake(k, lock as usize);
        }
    });
    poke(
        lock,
        RemoveLock {
            count: state.count - 1,
            ..state
        },
    );
}

/// `IoReleaseRemoveLockEx`.
pub(crate) fn io_release_remove_lock_ex(lock: *mut RemoveLock, Addr(tag): Addr, size: u32) {
    release(
        lock,
        tag,
        size,
        &rules::lock::REMOVE_LOCK_TAG,
        "IoReleaseRemoveLock",
    );
}

/// `IoReleaseRemoveLockAndWaitEx`: nobody acquires the lock from now on;
/// returns when the last acquisition is back.
pub(crate) fn io_release_remove_lock_and_wait_ex(
    lock: *mut RemoveLock,
    Addr(tag): Addr,
    size: u32,
) {
    poke(
        lock,
        RemoveLock {
            removed: 1,
            ..peek(lock)
        },
    );
    release(
        lock,
        tag,
        size,
        &rules::lock::REMOVE_LOCK_WAIT_TAG,
        "IoReleaseRemoveLockAndWait",
    );
    // The one that initialising counted is the device's own.
    while peek(lock).count > 1 {
        sleep::sleep(lock as usize);
    }
    poke(
        lock,
        RemoveLock {
            count: 0,
            ..peek(lock)
        },
    );
}
