// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFMEMORY`, `WDFSTRING` and `WDFCOLLECTION`:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-memory-buffers>

use crate::access::{UnicodeString, peek_bytes, peek_unicode, poke, poke_bytes};
use crate::kernel::Kernel;
use crate::memory::Fill;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::object::{self, Allow, Attributes, Data, FRAMEWORK_TAG, Handle};
use super::raw::ObjectAttributes;
use super::{
    Globals, STATUS_BUFFER_TOO_SMALL, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_PARAMETER, STATUS_SUCCESS, required,
};

/// `PagedPool`.
const PAGED_POOL: i32 = 1;

/// What the framework keeps of a `WDFMEMORY`.
pub(crate) struct Memory {
    address: usize,
    size: usize,
    /// The block is the framework's to free.
    owned: bool,
    paged: bool,
}

impl Memory {
    /// The buffer of a request, which is the request's to free.
    pub(crate) fn of_request(address: usize, size: usize) -> Self {
        Self {
            address,
            size,
            owned: false,
            paged: false,
        }
    }

    pub(crate) fn is_paged(&self) -> bool {
        self.paged
    }

    /// Address and size of the buffer.
    pub(crate) fn buffer(&self) -> (usize, usize) {
        (self.address, self.size)
    }

    pub(crate) fn free(&self, k: &mut Kernel) {
        if self.owned {
            crate::ex::pool::free(k, self.address, None);
        }
    }
}

/// What the framework keeps of a `WDFSTRING`.
pub(crate) struct Text {
    units: Vec<u16>,
    /// The same with a terminator, where the driver may read it; 0 until asked for.
    address: usize,
}

impl Text {
    pub(crate) fn units(&self) -> &[u16] {
        &self.units
    }

    fn bytes(&self) -> usize {
        (self.units.len() + 1) * 2
    }

    pub(crate) fn free(&self, k: &mut Kernel) {
        if self.address != 0 {
            object::free_memory(k, self.address, self.bytes());
        }
    }
}

/// `WdfMemoryCreate`. Callable at `<= DISPATCH_LEVEL`, for paged pool at `<= APC_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for no bytes, `STATUS_INSUFFICIENT_RESOURCES`,
/// those of the attributes.
pub(crate) fn create(
    g: Globals,
    from: *const ObjectAttributes,
    pool_type: i32,
    tag: u32,
    size: usize,
    out: *mut Handle,
    buffer: *mut *mut u8,
) -> i32 {
    let function = "WdfMemoryCreate";
    required(out, function, "Memory");
    poke(out, std::ptr::null_mut());
    if size == 0 {
        return STATUS_INVALID_PARAMETER;
    }
    let created = object::attributes(from, Allow::Parent, false)
        .and_then(|attributes| allocate(g, &attributes, pool_type, tag, size, function));
    match created {
        Ok((handle, address)) => {
            poke(out, handle);
            if !buffer.is_null() {
                poke(buffer, address as *mut u8);
            }
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

pub(crate) fn allocate(
    g: Globals,
    attributes: &Attributes,
    pool_type: i32,
    tag: u32,
    size: usize,
    function: &'static str,
) -> Result<(Handle, usize), i32> {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let (slot, parent) = object::parent_or_driver(k, g, attributes, function);
        let paged = pool_type & PAGED_POOL != 0;
        let tag = if tag == 0 { FRAMEWORK_TAG } else { tag };
        // The driver's pool: it counts against the driver when it fails.
        let address = crate::ex::pool::allocate(k, paged, size, tag, Fill::Uninitialised, function);
        if address == 0 {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        let memory = Memory {
            address,
            size,
            owned: true,
            paged,
        };
        let handle = object::create(k, slot, Some(parent), attributes, Data::Memory(memory))
            .inspect_err(|_| crate::ex::pool::free(k, address, None))?;
        Ok((handle, address))
    })
}

/// A `WDFMEMORY` with these bytes in it.
pub(crate) fn create_filled(
    g: Globals,
    attributes: &Attributes,
    pool_type: i32,
    bytes: &[u8],
    function: &'static str,
) -> Result<Handle, i32> {
    let (handle, address) = allocate(g, attributes, pool_type, 0, bytes.len().max(1), function)?;
    poke_bytes(address as *mut u8, bytes);
    Ok(handle)
}

/// `WdfMemoryCreatePreallocated`.
pub(crate) fn create_preallocated(
    g: Globals,
    from: *const ObjectAttributes,
    buffer: *mut u8,
    size: usize,
    out: *mut Handle,
) -> i32 {
    let function = "WdfMemoryCreatePreallocated";
    required(out, function, "Memory");
    required(buffer, function, "Buffer");
    poke(out, std::ptr::null_mut());
    if size == 0 {
        return STATUS_INVALID_PARAMETER;
    }
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            let memory = Memory {
                address: buffer as usize,
                size,
                owned: false,
                paged: false,
            };
            object::create(k, slot, Some(parent), &attributes, Data::Memory(memory))
        })
    });
    object::give(out, created)
}

/// `WdfMemoryGetBuffer`.
pub(crate) fn get_buffer(_: Globals, handle: Handle, size: *mut usize) -> *mut u8 {
    let (address, bytes) = kernel(|k| object::memory(k, handle, "WdfMemoryGetBuffer").buffer());
    if !size.is_null() {
        poke(size, bytes);
    }
    address as *mut u8
}

/// `WdfMemoryAssignBuffer`, for memory that was created with a buffer of the driver's.
pub(crate) fn assign_buffer(_: Globals, handle: Handle, buffer: *mut u8, size: usize) -> i32 {
    let function = "WdfMemoryAssignBuffer";
    required(buffer, function, "Buffer");
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let memory = object::memory(k, handle, function);
        if memory.owned {
            return STATUS_INVALID_DEVICE_REQUEST;
        }
        if size == 0 {
            return STATUS_INVALID_PARAMETER;
        }
        memory.address = buffer as usize;
        memory.size = size;
        STATUS_SUCCESS
    })
}

/// The part of the buffer that a copy is about, or `STATUS_BUFFER_TOO_SMALL`.
fn part(
    handle: Handle,
    offset: usize,
    length: usize,
    function: &'static str,
) -> Result<usize, i32> {
    let (address, size) = kernel(|k| object::memory(k, handle, function).buffer());
    if length == 0 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(address + offset),
        _ => Err(STATUS_BUFFER_TOO_SMALL),
    }
}

/// `WdfMemoryCopyToBuffer`.
pub(crate) fn copy_to_buffer(
    _: Globals,
    handle: Handle,
    offset: usize,
    buffer: *mut u8,
    length: usize,
) -> i32 {
    let function = "WdfMemoryCopyToBuffer";
    required(buffer, function, "Buffer");
    match part(handle, offset, length, function) {
        Ok(source) => {
            poke_bytes(buffer, &peek_bytes(source as *const u8, length));
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `WdfMemoryCopyFromBuffer`.
pub(crate) fn copy_from_buffer(
    _: Globals,
    handle: Handle,
    offset: usize,
    buffer: *const u8,
    length: usize,
) -> i32 {
    let function = "WdfMemoryCopyFromBuffer";
    required(buffer, function, "Buffer");
    match part(handle, offset, length, function) {
        Ok(destination) => {
            poke_bytes(destination as *mut u8, &peek_bytes(buffer, length));
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

// ---- strings ----------------------------------------------------------

/// `WdfStringCreate`. Needs `PASSIVE_LEVEL`. The text is copied.
pub(crate) fn string_create(
    g: Globals,
    text: *const UnicodeString,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfStringCreate";
    kernel(|k| crate::ke::irql::passive(k, function));
    required(out, function, "String");
    poke(out, std::ptr::null_mut());
    let units = if text.is_null() {
        Vec::new()
    } else {
        peek_unicode(text)
    };
    let created = object::attributes(from, Allow::Parent, false)
        .and_then(|attributes| create_string(g, &attributes, &units, function));
    object::give(out, created)
}

/// A `WDFSTRING` with this text.
pub(crate) fn create_string(
    g: Globals,
    attributes: &Attributes,
    units: &[u16],
    function: &'static str,
) -> Result<Handle, i32> {
    kernel(|k| {
        let (slot, parent) = object::parent_or_driver(k, g, attributes, function);
        let text = Text {
            units: units.to_vec(),
            address: 0,
        };
        object::create(k, slot, Some(parent), attributes, Data::String(text))
    })
}

/// `WdfStringGetUnicodeString`. Needs `PASSIVE_LEVEL`. The buffer is the
/// object's and lives as long as its text.
pub(crate) fn string_get_unicode_string(_: Globals, handle: Handle, out: *mut UnicodeString) {
    let function = "WdfStringGetUnicodeString";
    required(out, function, "UnicodeString");
    let (address, units) = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let (address, bytes, units) = {
            let text = object::string(k, handle, function);
            (text.address, text.bytes(), text.units.clone())
        };
        if address != 0 {
            return (address, units);
        }
        let name = format!(
            "{}.Buffer",
            k.name_of(handle as usize).unwrap_or("WDFSTRING")
        );
        let address =
            object::allocate_memory(k, bytes, name).expect("the host has memory for a string");
        object::string(k, handle, function).address = address;
        (address, units)
    });
    for (index, unit) in units.iter().chain(&[0]).enumerate() {
        poke((address + index * 2) as *mut u16, *unit);
    }
    let length = u16::try_from(units.len() * 2).unwrap_or(u16::MAX - 1);
    poke(
        out,
        UnicodeString {
            length,
            maximum_length: length.saturating_add(2),
            buffer: address as *mut u16,
        },
    );
}

/// Gives a `WDFSTRING` another text.
pub(crate) fn assign_string_units(handle: Handle, units: &[u16], function: &'static str) -> i32 {
    kernel(|k| {
        let text = object::string(k, handle, function);
        let old = std::mem::replace(
            text,
            Text {
                units: units.to_vec(),
                address: 0,
            },
        );
        old.free(k);
    });
    STATUS_SUCCESS
}

/// The same for text of the simulator's own.
pub(crate) fn assign_string(handle: Handle, text: &str, function: &'static str) -> i32 {
    let units: Vec<u16> = text.encode_utf16().collect();
    assign_string_units(handle, &units, function)
}

// ---- collections ------------------------------------------------------

/// `WdfCollectionCreate`. Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn collection_create(
    g: Globals,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfCollectionCreate";
    required(out, function, "Collection");
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            crate::ke::irql::at_most_dispatch(k, function);
            let (slot, parent) = object::parent_or_driver(k, g, &attributes, function);
            object::create(
                k,
                slot,
                Some(parent),
                &attributes,
                Data::Collection(Vec::new()),
            )
        })
    });
    object::give(out, created)
}

/// `WdfCollectionGetCount`.
pub(crate) fn collection_get_count(_: Globals, handle: Handle) -> u32 {
    kernel(|k| {
        let count = object::collection(k, handle, "WdfCollectionGetCount").len();
        u32::try_from(count).unwrap_or(u32::MAX)
    })
}

/// Adds an object, on which the collection holds a reference.
pub(crate) fn add_to_collection(handle: Handle, item: Handle) {
    kernel(|k| {
        object::collection(k, handle, "the framework").push(item);
        object::reference(k, item);
    });
}

/// `WdfCollectionAdd`.
pub(crate) fn collection_add(_: Globals, handle: Handle, item: Handle) -> i32 {
    let function = "WdfCollectionAdd";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        object::collection(k, handle, function);
        object::any(k, item, function);
    });
    add_to_collection(handle, item);
    STATUS_SUCCESS
}

/// `WdfCollectionRemove`.
pub(crate) fn collection_remove(_: Globals, handle: Handle, item: Handle) {
    let function = "WdfCollectionRemove";
    let removed = kernel(|k| {
        object::any(k, item, function);
        let items = object::collection(k, handle, function);
        let index = items.iter().position(|found| *found == item)?;
        Some(items.remove(index))
    });
    release_removed(removed, handle, function);
}

/// `WdfCollectionRemoveItem`.
pub(crate) fn collection_remove_item(_: Globals, handle: Handle, index: u32) {
    let function = "WdfCollectionRemoveItem";
    let removed = kernel(|k| {
        let items = object::collection(k, handle, function);
        ((index as usize) < items.len()).then(|| items.remove(index as usize))
    });
    release_removed(removed, handle, function);
}

fn release_removed(removed: Option<Handle>, handle: Handle, function: &'static str) {
    match removed {
        Some(item) => object::release(item),
        None => kernel(|k| {
            let name = k
                .name_of(handle as usize)
                .unwrap_or("the collection")
                .to_owned();
            super::verifier_break(
                k,
                &kmdf::COLLECTION_ITEM,
                format!("{function} was asked for an item that {name} does not have"),
            )
        }),
    }
}

fn item(
    handle: Handle,
    function: &'static str,
    which: impl FnOnce(&[Handle]) -> Option<Handle>,
) -> Handle {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        which(object::collection(k, handle, function)).unwrap_or(std::ptr::null_mut())
    })
}

/// `WdfCollectionGetItem`: NULL beyond the end.
pub(crate) fn collection_get_item(_: Globals, handle: Handle, index: u32) -> Handle {
    item(handle, "WdfCollectionGetItem", |items| {
        items.get(index as usize).copied()
    })
}

/// `WdfCollectionGetFirstItem`: NULL if it is empty.
pub(crate) fn collection_get_first_item(_: Globals, handle: Handle) -> Handle {
    item(handle, "WdfCollectionGetFirstItem", |items| {
        items.first().copied()
    })
}

/// `WdfCollectionGetLastItem`: NULL if it is empty.
pub(crate) fn collection_get_last_item(_: Globals, handle: Handle) -> Handle {
    item(handle, "WdfCollectionGetLastItem", |items| {
        items.last().copied()
    })
}
