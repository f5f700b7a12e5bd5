// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFKEY`: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/>
//!
//! All functions need `PASSIVE_LEVEL`. Access rights are checked as the kernel
//! does: a key that was opened for reading cannot be written.

use crate::access::{UnicodeString, peek, peek_bytes, peek_unicode, poke, poke_bytes};
use crate::kernel::Kernel;
use crate::registry::{
    Disposition, KeyId, REG_DWORD, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, RegString, Value,
    Volatility,
};
use crate::trap::kernel;
use crate::zw::key::{
    DELETE, KEY_CREATE_SUB_KEY, KEY_QUERY_VALUE, KEY_SET_VALUE, STATUS_ACCESS_DENIED, rights,
};

use super::memory;
use super::object::{self, Allow, Attributes, Data, Handle};
use super::raw::{MemoryOffset, ObjectAttributes};
use super::{
    Globals, STATUS_BUFFER_OVERFLOW, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER,
    STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS, required, status,
};

/// What the framework keeps of a key.
pub(crate) struct Key {
    id: KeyId,
    access: u32,
    /// The kernel's handle, once the driver asked for it.
    handle: Option<usize>,
}

impl Key {
    /// Closes the kernel's handle, when the object is destroyed.
    pub(crate) fn free(&self, k: &mut Kernel) {
        if let Some(handle) = self.handle {
            crate::ob::close(k, handle);
        }
    }
}

/// Makes the object for a key of the registry. Its parent is the driver unless
/// the attributes name one.
pub(crate) fn create_object(
    k: &mut Kernel,
    g: Globals,
    attributes: &Attributes,
    id: KeyId,
    access: u32,
    function: &str,
) -> Result<Handle, i32> {
    let (slot, parent) = object::parent_or_driver(k, g, attributes, function);
    object::create(
        k,
        slot,
        Some(parent),
        attributes,
        Data::Key(Key {
            id,
            access: rights(access),
            handle: None,
        }),
    )
}

/// The key of a handle, if it was opened with the right that is needed.
fn key(k: &mut Kernel, handle: Handle, need: u32, function: &'static str) -> Result<KeyId, i32> {
    crate::ke::irql::passive(k, function);
    let key = object::key(k, handle, function);
    if key.access & need == need {
        Ok(key.id)
    } else {
        Err(STATUS_ACCESS_DENIED)
    }
}

fn name(from: *const UnicodeString, function: &'static str, parameter: &str) -> RegString {
    required(from, function, parameter);
    RegString::from(peek_unicode(from))
}

fn failed(error: &crate::registry::RegistryError) -> i32 {
    crate::zw::status(error)
}

/// Where a path starts: at the parent, or at the registry's root if there is none.
/// Below a parent the object manager wants a path without a backslash in front.
fn base(
    k: &mut Kernel,
    parent: Handle,
    path: &RegString,
    need: u32,
    function: &'static str,
) -> Result<Option<KeyId>, i32> {
    const STATUS_OBJECT_PATH_SYNTAX_BAD: i32 = status(0xC000_003B);
    crate::ke::irql::passive(k, function);
    if parent.is_null() {
        return Ok(None);
    }
    let parent = key(k, parent, need, function)?;
    if path.units().first() == Some(&u16::from(b'\\')) {
        return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
    }
    Ok(Some(parent))
}

/// `WdfRegistryOpenKey`.
///
/// # Errors
/// `STATUS_OBJECT_NAME_NOT_FOUND`; those of the attributes.
pub(crate) fn open_key(
    g: Globals,
    parent: Handle,
    path: *const UnicodeString,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfRegistryOpenKey";
    required(out, function, "Key");
    let path = name(path, function, "KeyName");
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            let id = match base(k, parent, &path, 0, function)? {
                Some(parent) => k.zw.registry.open_at(parent, path),
                None => k.zw.registry.open(path),
            }
            .map_err(|error| failed(&error))?;
            create_object(k, g, &attributes, id, access, function)
        })
    });
    object::give(out, created)
}

/// `WdfRegistryCreateKey`.
///
/// # Errors
/// `STATUS_ACCESS_DENIED` if the parent was not opened for it; those of the attributes.
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn create_key(
    g: Globals,
    parent: Handle,
    path: *const UnicodeString,
    access: u32,
    options: u32,
    disposition: *mut u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    const REG_OPTION_VOLATILE: u32 = 1;
    let function = "WdfRegistryCreateKey";
    required(out, function, "Key");
    let path = name(path, function, "KeyName");
    poke(out, std::ptr::null_mut());
    let volatility = if options & REG_OPTION_VOLATILE == 0 {
        Volatility::Persistent
    } else {
        Volatility::Volatile
    };
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            let (id, made) =
                if let Some(parent) = base(k, parent, &path, KEY_CREATE_SUB_KEY, function)? {
                    k.zw.registry.create_at(parent, path, volatility)
                } else {
                    let made = if k.zw.registry.open(&path).is_ok() {
                        Disposition::Opened
                    } else {
                        Disposition::Created
                    };
                    k.zw.registry.create(path, volatility).map(|id| (id, made))
                }
                .map_err(|error| failed(&error))?;
            Ok((
                create_object(k, g, &attributes, id, access, function)?,
                made,
            ))
        })
    });
    if let Ok((_, made)) = &created
        && !disposition.is_null()
    {
        // REG_CREATED_NEW_KEY, REG_OPENED_EXISTING_KEY.
        poke(
            disposition,
            if *made == Disposition::Created { 1 } else { 2 },
        );
    }
    object::give(out, created.map(|(handle, _)| handle))
}

/// `WdfRegistryClose`: deletes the object.
pub(crate) fn close(_: Globals, handle: Handle) {
    kernel(|k| {
        crate::ke::irql::passive(k, "WdfRegistryClose");
        object::key(k, handle, "WdfRegistryClose");
    });
    object::delete(handle);
}

/// `WdfRegistryWdmGetHandle`: a handle that lives as long as the object.
pub(crate) fn wdm_get_handle(_: Globals, handle: Handle) -> usize {
    let function = "WdfRegistryWdmGetHandle";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let Key {
            id,
            access,
            handle: known,
        } = *object::key(k, handle, function);
        known.unwrap_or_else(|| {
            let opened = crate::ob::open(k, crate::ob::Handle::Key(id, access));
            object::key(k, handle, function).handle = Some(opened);
            opened
        })
    })
}

/// `WdfRegistryRemoveKey`: deletes the key and the object.
pub(crate) fn remove_key(_: Globals, handle: Handle) -> i32 {
    let removed = kernel(|k| {
        let id = key(k, handle, DELETE, "WdfRegistryRemoveKey")?;
        k.zw.registry.delete(id).map_err(|error| failed(&error))
    });
    match removed {
        Ok(()) => {
            object::delete(handle);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// `WdfRegistryRemoveValue`.
pub(crate) fn remove_value(_: Globals, handle: Handle, value: *const UnicodeString) -> i32 {
    let function = "WdfRegistryRemoveValue";
    let value = name(value, function, "ValueName");
    kernel(|k| {
        let removed = key(k, handle, KEY_SET_VALUE, function).and_then(|id| {
            k.zw.registry
                .delete_value(id, value)
                .map_err(|error| failed(&error))
        });
        removed.map_or_else(|status| status, |_| STATUS_SUCCESS)
    })
}

/// Reads a value.
fn query(
    handle: Handle,
    value: *const UnicodeString,
    function: &'static str,
) -> Result<Value, i32> {
    let value = name(value, function, "ValueName");
    kernel(|k| {
        crate::inject::check(k, function)?;
        let id = key(k, handle, KEY_QUERY_VALUE, function)?;
        k.zw.registry
            .value(id, value)
            .cloned()
            .map_err(|error| failed(&error))
    })
}

fn length_of(value: &Value) -> u32 {
    u32::try_from(value.data.len()).unwrap_or(u32::MAX)
}

/// `WdfRegistryQueryValue`.
///
/// # Errors
/// `STATUS_OBJECT_NAME_NOT_FOUND`; `STATUS_BUFFER_OVERFLOW` if the buffer is too
/// small, with the length that is needed.
pub(crate) fn query_value(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    length: u32,
    buffer: *mut u8,
    queried: *mut u32,
    kind: *mut u32,
) -> i32 {
    let value = match query(handle, value_name, "WdfRegistryQueryValue") {
        Ok(value) => value,
        Err(status) => return status,
    };
    if !queried.is_null() {
        poke(queried, length_of(&value));
    }
    if !kind.is_null() {
        poke(kind, value.kind);
    }
    if buffer.is_null() && length != 0 {
        return STATUS_INVALID_PARAMETER;
    }
    if length < length_of(&value) {
        return STATUS_BUFFER_OVERFLOW;
    }
    poke_bytes(buffer, &value.data);
    STATUS_SUCCESS
}

/// `WdfRegistryQueryMemory`: the value in a new `WDFMEMORY`.
pub(crate) fn query_memory(
    g: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    pool_type: i32,
    from: *const ObjectAttributes,
    out: *mut Handle,
    kind: *mut u32,
) -> i32 {
    let function = "WdfRegistryQueryMemory";
    required(out, function, "Memory");
    poke(out, std::ptr::null_mut());
    let created = query(handle, value_name, function).and_then(|value| {
        let attributes = object::attributes(from, Allow::Parent, false)?;
        let created = memory::create_filled(g, &attributes, pool_type, &value.data, function)?;
        if !kind.is_null() {
            poke(kind, value.kind);
        }
        Ok(created)
    });
    object::give(out, created)
}

fn text(value: &Value) -> Result<RegString, i32> {
    match value.kind {
        REG_SZ | REG_EXPAND_SZ => value.as_sz().ok_or(STATUS_OBJECT_TYPE_MISMATCH),
        _ => Err(STATUS_OBJECT_TYPE_MISMATCH),
    }
}

/// `WdfRegistryQueryUnicodeString`, for values of type `REG_SZ`.
///
/// # Errors
/// `STATUS_OBJECT_TYPE_MISMATCH`; `STATUS_BUFFER_OVERFLOW` with the length in
/// bytes that is needed, terminator included.
pub(crate) fn query_unicode_string(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    byte_length: *mut u16,
    out: *mut UnicodeString,
) -> i32 {
    let units = match query(handle, value_name, "WdfRegistryQueryUnicodeString")
        .and_then(|value| text(&value))
    {
        Ok(text) => text.units().to_vec(),
        Err(status) => return status,
    };
    let Ok(bytes) = u16::try_from(units.len() * 2) else {
        return STATUS_INVALID_DEVICE_REQUEST;
    };
    let needed = bytes.saturating_add(2);
    if !byte_length.is_null() {
        poke(byte_length, needed);
    }
    if out.is_null() {
        return STATUS_SUCCESS;
    }
    let string = peek(out);
    if string.maximum_length < bytes {
        return STATUS_BUFFER_OVERFLOW;
    }
    for (index, unit) in units.iter().enumerate() {
        poke(string.buffer.wrapping_add(index), *unit);
    }
    if string.maximum_length >= needed {
        poke(string.buffer.wrapping_add(units.len()), 0);
    }
    poke(
        out,
        UnicodeString {
            length: bytes,
            ..string
        },
    );
    STATUS_SUCCESS
}

/// `WdfRegistryQueryString`, for values of type `REG_SZ`.
pub(crate) fn query_string(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    string: Handle,
) -> i32 {
    let function = "WdfRegistryQueryString";
    match query(handle, value_name, function).and_then(|value| text(&value)) {
        Ok(text) => memory::assign_string_units(string, text.units(), function),
        Err(status) => status,
    }
}

/// `WdfRegistryQueryMultiString`: adds a `WDFSTRING` for each string to the collection.
pub(crate) fn query_multi_string(
    g: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    from: *const ObjectAttributes,
    collection: Handle,
) -> i32 {
    let function = "WdfRegistryQueryMultiString";
    kernel(|k| {
        object::collection(k, collection, function);
    });
    let result = query(handle, value_name, function).and_then(|value| {
        let strings = if value.kind == REG_MULTI_SZ {
            value.as_multi_sz()
        } else {
            None
        };
        let strings = strings.ok_or(STATUS_OBJECT_TYPE_MISMATCH)?;
        let mut attributes = object::attributes(from, Allow::Parent, false)?;
        // The strings live as long as the collection, unless the driver says otherwise.
        attributes.parent = attributes.parent.or(Some(collection));
        for text in strings {
            let string = memory::create_string(g, &attributes, text.units(), function)?;
            memory::add_to_collection(collection, string);
        }
        Ok(STATUS_SUCCESS)
    });
    result.unwrap_or_else(|status| status)
}

/// `WdfRegistryQueryULong`, for values of type `REG_DWORD`.
///
/// Of a `REG_DWORD` with fewer than four bytes KMDF hands out the rest of a buffer
/// on its stack that nobody wrote; here that is 0xCC.
///
/// # Errors
/// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_OBJECT_TYPE_MISMATCH`,
/// `STATUS_BUFFER_OVERFLOW` for a `REG_DWORD` of more than four bytes.
pub(crate) fn query_ulong(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    out: *mut u32,
) -> i32 {
    let function = "WdfRegistryQueryULong";
    required(out, function, "Value");
    match query(handle, value_name, function) {
        Ok(value) if value.kind != REG_DWORD => STATUS_OBJECT_TYPE_MISMATCH,
        Ok(value) if value.data.len() > 4 => STATUS_BUFFER_OVERFLOW,
        Ok(value) => {
            let mut bytes = [0xCC; 4];
            bytes[..value.data.len()].copy_from_slice(&value.data);
            poke(out, u32::from_le_bytes(bytes));
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

/// Writes a value.
fn assign(
    handle: Handle,
    value_name: *const UnicodeString,
    value: Value,
    function: &'static str,
) -> i32 {
    let value_name = name(value_name, function, "ValueName");
    kernel(|k| {
        let checked = crate::inject::check(k, function);
        let assigned = checked
            .and_then(|()| key(k, handle, KEY_SET_VALUE, function))
            .and_then(|id| {
                k.zw.registry
                    .set_value(id, value_name, value)
                    .map_err(|error| failed(&error))
            });
        assigned.map_or_else(|status| status, |()| STATUS_SUCCESS)
    })
}

/// `WdfRegistryAssignValue`.
pub(crate) fn assign_value(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    kind: u32,
    length: u32,
    data: *const u8,
) -> i32 {
    let function = "WdfRegistryAssignValue";
    required(data, function, "Value");
    assign(
        handle,
        value_name,
        Value::new(kind, peek_bytes(data, length as usize)),
        function,
    )
}

/// `WdfRegistryAssignMemory`.
pub(crate) fn assign_memory(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    kind: u32,
    source: Handle,
    offsets: *const MemoryOffset,
) -> i32 {
    let function = "WdfRegistryAssignMemory";
    let (buffer, size) = kernel(|k| object::memory(k, source, function).buffer());
    let (start, length) = if offsets.is_null() {
        (0, size)
    } else {
        let offsets = peek(offsets);
        let length = if offsets.buffer_length == 0 {
            size.saturating_sub(offsets.buffer_offset)
        } else {
            offsets.buffer_length
        };
        (offsets.buffer_offset, length)
    };
    if start.checked_add(length).is_none_or(|end| end > size) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    let data = peek_bytes((buffer + start) as *const u8, length);
    assign(handle, value_name, Value::new(kind, data), function)
}

/// `WdfRegistryAssignUnicodeString`.
pub(crate) fn assign_unicode_string(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    value: *const UnicodeString,
) -> i32 {
    let function = "WdfRegistryAssignUnicodeString";
    let value = name(value, function, "Value");
    assign(handle, value_name, Value::sz(value), function)
}

/// `WdfRegistryAssignString`.
pub(crate) fn assign_string(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    string: Handle,
) -> i32 {
    let function = "WdfRegistryAssignString";
    let units = kernel(|k| object::string(k, string, function).units().to_vec());
    assign(
        handle,
        value_name,
        Value::sz(RegString::from(units)),
        function,
    )
}

/// `WdfRegistryAssignMultiString`: the strings of a collection of `WDFSTRING`s.
pub(crate) fn assign_multi_string(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    collection: Handle,
) -> i32 {
    let function = "WdfRegistryAssignMultiString";
    let strings: Vec<RegString> = kernel(|k| {
        let items = object::collection(k, collection, function).clone();
        items
            .into_iter()
            .map(|item| RegString::from(object::string(k, item, function).units().to_vec()))
            .collect()
    });
    assign(handle, value_name, Value::multi_sz(strings), function)
}

/// `WdfRegistryAssignULong`.
pub(crate) fn assign_ulong(
    _: Globals,
    handle: Handle,
    value_name: *const UnicodeString,
    value: u32,
) -> i32 {
    assign(
        handle,
        value_name,
        Value::dword(value),
        "WdfRegistryAssignULong",
    )
}
