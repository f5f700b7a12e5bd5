// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interlocked lists: <https://learn.microsoft.com/windows-hardware/drivers/kernel/singly-and-doubly-linked-lists>
//!
//! The driver's list is changed in its own memory under its own spin lock, at
//! `DISPATCH_LEVEL`. A list whose links do not agree is the corruption that
//! the kernel's list macros stop for.

use crate::access::{peek, poke};
use crate::ke::spin_lock;
use crate::kernel::DISPATCH_LEVEL;
use crate::locks::Kind;
use crate::rules;
use crate::trap::kernel;

/// `LIST_ENTRY`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ListEntry {
    next: *mut ListEntry,
    previous: *mut ListEntry,
}

/// `SINGLE_LIST_ENTRY`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SingleListEntry {
    next: *mut SingleListEntry,
}

/// Runs `change` with the driver's lock held.
fn locked<R>(lock: *mut usize, change: impl FnOnce() -> R) -> R {
    let _ = peek(lock);
    let old = kernel(|k| {
        let old = k.irql();
        k.set_irql(old.max(DISPATCH_LEVEL));
        old
    });
    spin_lock::acquire(lock as usize, Kind::Spin, None, "ExInterlocked...List");
    let result = change();
    kernel(|k| {
        spin_lock::release(k, lock as usize, Kind::Spin, "ExInterlocked...List");
        k.set_irql(old);
    });
    result
}

fn corrupt(entry: *mut ListEntry) {
    kernel(|k| {
        let name = k.name_of(entry as usize).unwrap_or("an entry").to_owned();
        k.fatal(
            &rules::memory::LIST_ENTRY,
            &[],
            format!("a doubly linked list is corrupt: the links of {name} and its neighbours do not agree"),
        )
    });
}

/// Stops the machine unless `entry`'s neighbours point back at it.
fn check(entry: *mut ListEntry) -> ListEntry {
    let links = peek(entry);
    if peek(links.next).previous != entry || peek(links.previous).next != entry {
        corrupt(entry);
    }
    links
}

fn insert(entry: *mut ListEntry, previous: *mut ListEntry, next: *mut ListEntry) {
    poke(entry, ListEntry { next, previous });
    poke(
        previous,
        ListEntry {
            next: entry,
            ..peek(previous)
        },
    );
    poke(
        next,
        ListEntry {
            previous: entry,
            ..peek(next)
        },
    );
}

/// `ExInterlockedInsertHeadList`. Returns the entry that was first, NULL if there was none.
pub(crate) fn ex_interlocked_insert_head_list(
    head: *mut ListEntry,
    entry: *mut ListEntry,
    lock: *mut usize,
) -> *mut ListEntry {
    locked(lock, || {
        let links = check(head);
        insert(entry, head, links.next);
        if links.next == head {
            std::ptr::null_mut()
        } else {
            links.next
        }
    })
}

/// `ExInterlockedInsertTailList`. Returns the entry that was last, NULL if there was none.
pub(crate) fn ex_interlocked_insert_tail_list(
    head: *mut ListEntry,
    entry: *mut ListEntry,
    lock: *mut usize,
) -> *mut ListEntry {
    locked(lock, || {
        let links = check(head);
        insert(entry, links.previous, head);
        if links.previous == head {
            std::ptr::null_mut()
        } else {
            links.previous
        }
    })
}

/// `ExInterlockedRemoveHeadList`. Returns the first entry, NULL if there is none.
pub(crate) fn ex_interlocked_remove_head_list(
    head: *mut ListEntry,
    lock: *mut usize,
) -> *mut ListEntry {
    locked(lock, || {
        let first = check(head).next;
        if first == head {
            return std::ptr::null_mut();
        }
        let second = check(first).next;
        poke(
            head,
            ListEntry {
                next: second,
                ..peek(head)
            },
        );
        poke(
            second,
            ListEntry {
                previous: head,
                ..peek(second)
            },
        );
        first
    })
}

/// `ExInterlockedPushEntryList`. Returns the entry that was first.
pub(crate) fn ex_interlocked_push_entry_list(
    head: *mut SingleListEntry,
    entry: *mut SingleListEntry,
    lock: *mut usize,
) -> *mut SingleListEntry {
    locked(lock, || {
        let first = peek(head).next;
        poke(entry, SingleListEntry { next: first });
        poke(head, SingleListEntry { next: entry });
        first
    })
}

/// `ExInterlockedPopEntryList`. Returns the first entry, NULL if there is none.
pub(crate) fn ex_interlocked_pop_entry_list(
    head: *mut SingleListEntry,
    lock: *mut usize,
) -> *mut SingleListEntry {
    locked(lock, || {
        let first = peek(head).next;
        if !first.is_null() {
            poke(head, peek(first));
        }
        first
    })
}
