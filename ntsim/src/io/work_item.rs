// SPDX-License-Identifier: MIT OR Apache-2.0

//! The I/O manager's work items, which keep a device or driver object alive
//! while they are queued:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioallocateworkitem>

use std::collections::BTreeMap;

use crate::abi::param;
use crate::access::{Addr, peek, poke_bytes};
use crate::ex::{self, pool, work_item};
use crate::kernel::Kernel;
use crate::memory::Fill;
use crate::rules;
use crate::trap::kernel;

/// `IoSizeofWorkItem`; the structure is the system's own.
const SIZE: usize = 88;
/// The pool tag of work items: `IoWI`.
const TAG: u32 = u32::from_le_bytes(*b"IoWI");

/// A work item that was allocated or initialised.
#[derive(Clone, Copy)]
pub(crate) struct Item {
    /// The device or driver object it was made for.
    object: usize,
    /// The routine with which it is queued.
    queued: Option<usize>,
    /// Whether the system allocated it.
    allocated: bool,
}

/// The work items by address.
pub(crate) type Items = BTreeMap<usize, Item>;

fn check_object(k: &mut Kernel, item: usize, object: usize, function: &str) {
    if object == 0 {
        k.broken(
            &rules::deferred::WORK_ITEM_OBJECT,
            &[item as u64, 0, 0],
            format!("{function} was given no device object"),
        );
    }
}

/// `IoAllocateWorkItem`. NULL when the pool is empty.
pub(crate) fn io_allocate_work_item(Addr(object): Addr) -> Addr {
    Addr(kernel(|k| {
        check_object(k, 0, object, "IoAllocateWorkItem");
        let address = pool::allocate(k, false, SIZE, TAG, Fill::Zero, "IoAllocateWorkItem");
        if address != 0 {
            k.name(address, "workitem");
            k.io.work_items.insert(
                address,
                Item {
                    object,
                    queued: None,
                    allocated: true,
                },
            );
        }
        address
    }))
}

/// `IoSizeofWorkItem`.
pub(crate) fn io_sizeof_work_item() -> u32 {
    u32::try_from(SIZE).expect("a small structure")
}

/// `IoInitializeWorkItem`.
pub(crate) fn io_initialize_work_item(Addr(object): Addr, item: *mut u8) {
    poke_bytes(item, &[0; SIZE]);
    kernel(|k| {
        check_object(k, item as usize, object, "IoInitializeWorkItem");
        k.name(item as usize, "workitem");
        k.io.work_items.insert(
            item as usize,
            Item {
                object,
                queued: None,
                allocated: false,
            },
        );
    });
}

/// The item at `address`, or the bug check for one that is none.
fn get(k: &mut Kernel, address: usize, function: &str) -> Item {
    match k.io.work_items.get(&address) {
        Some(item) => *item,
        None => k.fatal(
            &rules::deferred::WORK_ITEM_UNINITIALIZED,
            &[],
            format!("{function} was given a work item that was never initialised at this address, or was freed"),
        ),
    }
}

/// Forgets an item, which must not be queued.
fn forget(k: &mut Kernel, address: usize, function: &str) -> Item {
    let item = get(k, address, function);
    if let Some(routine) = item.queued {
        let name = k.name_of(address).unwrap_or("the work item").to_owned();
        k.broken(
            &rules::deferred::WORK_ITEM_FREED,
            &[address as u64, routine as u64, 0],
            format!("{function} was given {name}, which is queued"),
        );
    }
    k.io.work_items.remove(&address);
    item
}

/// `IoUninitializeWorkItem`.
pub(crate) fn io_uninitialize_work_item(item: *mut u8) {
    let _ = peek(item);
    kernel(|k| {
        forget(k, item as usize, "IoUninitializeWorkItem");
    });
}

/// `IoFreeWorkItem`.
pub(crate) fn io_free_work_item(item: *mut u8) {
    let _ = peek(item);
    kernel(|k| {
        if !forget(k, item as usize, "IoFreeWorkItem").allocated {
            let name = k
                .name_of(item as usize)
                .unwrap_or("the work item")
                .to_owned();
            k.fatal(
                &rules::deferred::WORK_ITEM_NOT_ALLOCATED,
                &[],
                format!(
                    "IoFreeWorkItem was given {name}, which IoAllocateWorkItem did not allocate"
                ),
            );
        }
        pool::free(k, item as usize, Some(TAG));
    });
}

/// `IoQueueWorkItem`.
pub(crate) fn io_queue_work_item(item: *mut u8, Addr(routine): Addr, queue: i32, context: Addr) {
    enqueue(item, routine, queue, context, "IoQueueWorkItem", false);
}

/// `IoQueueWorkItemEx`, whose routine receives the item too.
pub(crate) fn io_queue_work_item_ex(item: *mut u8, Addr(routine): Addr, queue: i32, context: Addr) {
    enqueue(item, routine, queue, context, "IoQueueWorkItemEx", true);
}

fn enqueue(
    item: *mut u8,
    routine: usize,
    queue: i32,
    context: Addr,
    function: &'static str,
    with_item: bool,
) {
    let _ = peek(item);
    let address = item as usize;
    kernel(|k| {
        let Item { object, queued, .. } = get(k, address, function);
        work_item::check(k, address, routine, queue, function);
        if queued.is_some() {
            work_item::queued_twice(k, address, queue, function);
        }
        k.io.work_items.get_mut(&address).expect("looked up").queued = Some(routine);
        ex::queue_work(
            k,
            Box::new(move || run(address, object, routine, context, with_item)),
        );
    });
}

/// Calls the routine, in a worker thread.
fn run(address: usize, object: usize, routine: usize, context: Addr, with_item: bool) {
    kernel(|k| {
        if let Some(item) = k.io.work_items.get_mut(&address) {
            item.queued = None;
        }
    });
    let (object, item) = (Addr(object), Addr(address));
    let params = [
        param("IoObject", &object),
        param("Context", &context),
        param("IoWorkItem", &item),
    ];
    let params = if with_item { &params[..] } else { &params[..2] };
    work_item::run("WorkItem", routine, address, params, context.0);
}

/// How many items are allocated.
pub(crate) fn allocated(k: &Kernel) -> usize {
    k.io.work_items
        .values()
        .filter(|item| item.allocated)
        .count()
}

/// Memory with a queued item in it may not be freed; others in it are forgotten.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    let range = address..address + size;
    let queued =
        k.io.work_items
            .range(range.clone())
            .find(|(_, item)| item.queued.is_some())
            .map(|(item, _)| *item);
    if let Some(item) = queued {
        let name = k.name_of(item).unwrap_or("a work item").to_owned();
        k.broken(
            &rules::deferred::WORK_ITEM_MEMORY_FREED,
            &[item as u64, address as u64, (address + size) as u64],
            format!("memory is freed that holds {name}, which is queued"),
        );
    }
    k.io.work_items.retain(|item, _| !range.contains(item));
}
