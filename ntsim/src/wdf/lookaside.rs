// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFLOOKASIDE`:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfmemory/nf-wdfmemory-wdflookasidelistcreate>
//!
//! A buffer goes back to the pool at once, so that a use after its release is
//! found; what a driver can see of a lookaside list is the same.

use crate::access::poke;
use crate::trap::kernel;

use super::object::{self, Allow, Attributes, Data, Handle};
use super::raw::ObjectAttributes;
use super::{Globals, STATUS_INVALID_PARAMETER, memory, required};

/// What the framework keeps of a lookaside list.
pub(crate) struct Lookaside {
    size: usize,
    pool_type: i32,
    tag: u32,
    /// What its memory objects are given, but for the parent.
    attributes: Attributes,
}

/// `WdfLookasideListCreate`. Callable at `<= DISPATCH_LEVEL`, for paged pool at `<= APC_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for no bytes; those of the attributes.
pub(crate) fn create(
    g: Globals,
    from: *const ObjectAttributes,
    size: usize,
    pool_type: i32,
    memory_attributes: *const ObjectAttributes,
    tag: u32,
    out: *mut Handle,
) -> i32 {
    let function = "WdfLookasideListCreate";
    required(out, function, "Lookaside");
    poke(out, std::ptr::null_mut());
    if size == 0 {
        return STATUS_INVALID_PARAMETER;
    }
    let created = object::attributes(from, Allow::Parent, false).and_then(|own| {
        let attributes = object::attributes(memory_attributes, Allow::Parent, false)?;
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            let (slot, parent) = object::parent_or_driver(k, g, &own, function);
            let lookaside = Lookaside {
                size,
                pool_type,
                tag,
                attributes,
            };
            object::create(k, slot, Some(parent), &own, Data::Lookaside(lookaside))
        })
    });
    object::give(out, created)
}

/// `WdfMemoryCreateFromLookaside`. The memory's parent is that of the list's
/// memory attributes, or else the list.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn create_memory(g: Globals, lookaside: Handle, out: *mut Handle) -> i32 {
    let function = "WdfMemoryCreateFromLookaside";
    required(out, function, "Memory");
    poke(out, std::ptr::null_mut());
    let (mut attributes, pool_type, tag, size) = kernel(|k| {
        let list = object::lookaside(k, lookaside, function);
        (list.attributes.clone(), list.pool_type, list.tag, list.size)
    });
    attributes.parent = attributes.parent.or(Some(lookaside));
    let created = memory::allocate(g, &attributes, pool_type, tag, size, function);
    object::give(out, created.map(|(handle, _)| handle))
}
