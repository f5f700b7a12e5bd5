// SPDX-License-Identifier: MIT OR Apache-2.0

//! Remove locks: a device that is not removed while an operation uses it.
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/using-remove-locks>
//!
//! The count is in the driver's `IO_REMOVE_LOCK`; the tags of who holds it are
//! in the simulator, which compares them as Driver Verifier does.

use std::collections::HashMap;

use crate::access::{Addr, peek, poke};
use crate::bugcheck::BugCheck;
use crate::ke::{irql, sleep};
use crate::kernel::Kernel;
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
        irql::passive(k, "IoInitializeRemoveLock");
        k.name(lock as usize, "removelock");
        check_size(k, lock, size, "IoInitializeRemoveLock");
        k.io.remove_locks.insert(lock as usize, Vec::new());
    });
}

fn check_size(k: &mut Kernel, lock: *mut RemoveLock, size: u32, function: &str) {
    if !SIZES.contains(&size) {
        k.bug_check(BugCheck::verifier(
            0x1002,
            [lock as u64, u64::from(size), 0],
            format!("{function} was given a lock of {size} bytes; IO_REMOVE_LOCK has 32"),
        ));
    }
}

fn tags<'k>(k: &'k mut Kernel, lock: *mut RemoveLock, function: &str) -> &'k mut Vec<usize> {
    if !k.io.remove_locks.contains_key(&(lock as usize)) {
        k.bug_check(BugCheck::verifier(
            0x1002,
            [lock as u64, 0, 0],
            format!(
                "{function} was given a remove lock that IoInitializeRemoveLock has not initialised"
            ),
        ));
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
        irql::at_most_dispatch(k, "IoAcquireRemoveLock");
        check_size(k, lock, size, "IoAcquireRemoveLock");
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

/// Gives back one acquisition; `rule` is for a tag that nobody acquired with.
fn release(lock: *mut RemoveLock, tag: usize, size: u32, rule: u64, function: &str) {
    let state = peek(lock);
    kernel(|k| {
        check_size(k, lock, size, function);
        let tags = tags(k, lock, function);
        if let Some(index) = tags.iter().position(|held| *held == tag) {
            tags.remove(index);
        } else {
            let (lock_name, tag_name) = (
                k.name_of(lock as usize).unwrap_or("the lock").to_owned(),
                k.name_of(tag)
                    .map_or_else(|| format!("{tag:#x}"), str::to_owned),
            );
            k.bug_check(BugCheck::verifier(
                rule,
                [lock as u64, tag as u64, 0],
                format!("{function} releases {lock_name} with the tag {tag_name}, with which it was not acquired"),
            ));
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
    kernel(|k| irql::at_most_dispatch(k, "IoReleaseRemoveLock"));
    release(lock, tag, size, 0xD5, "IoReleaseRemoveLock");
}

/// `IoReleaseRemoveLockAndWaitEx`: nobody acquires the lock from now on;
/// returns when the last acquisition is back.
pub(crate) fn io_release_remove_lock_and_wait_ex(
    lock: *mut RemoveLock,
    Addr(tag): Addr,
    size: u32,
) {
    kernel(|k| irql::passive(k, "IoReleaseRemoveLockAndWait"));
    poke(
        lock,
        RemoveLock {
            removed: 1,
            ..peek(lock)
        },
    );
    release(lock, tag, size, 0xD6, "IoReleaseRemoveLockAndWait");
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
