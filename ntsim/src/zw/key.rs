// SPDX-License-Identifier: MIT OR Apache-2.0

//! Registry keys: <https://learn.microsoft.com/windows-hardware/drivers/kernel/using-the-registry-in-a-driver>
//!
//! Everything here is at `PASSIVE_LEVEL`. A handle must have been opened with the
//! rights that the routine's page asks for, or it says `STATUS_ACCESS_DENIED`: a
//! driver cannot rely on the kernel to be lenient with callers in kernel mode.

use crate::access::{Addr, UnicodeString, peek, peek_bytes, peek_unicode, poke};
use crate::bugcheck::Stop;
use crate::kernel::Kernel;
use crate::ob::{self, Handle, STATUS_INVALID_HANDLE, STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS};
use crate::registry::{Disposition, KeyId, RegString, Value, Volatility};
use crate::trap::kernel;

use super::information::{self, Information};

const STATUS_INVALID_PARAMETER: i32 = 0xC000_000D_u32.cast_signed();
pub(crate) const STATUS_ACCESS_DENIED: i32 = 0xC000_0022_u32.cast_signed();
const STATUS_OBJECT_NAME_INVALID: i32 = 0xC000_0033_u32.cast_signed();
const STATUS_OBJECT_PATH_SYNTAX_BAD: i32 = 0xC000_003B_u32.cast_signed();
const STATUS_NO_MORE_ENTRIES: i32 = 0x8000_001A_u32.cast_signed();

const REG_OPTION_VOLATILE: u32 = 1;
const REG_OPTION_CREATE_LINK: u32 = 2;
const REG_OPTION_BACKUP_RESTORE: u32 = 4;
const REG_OPTION_OPEN_LINK: u32 = 8;

const REG_CREATED_NEW_KEY: u32 = 1;
const REG_OPENED_EXISTING_KEY: u32 = 2;

pub(crate) const KEY_QUERY_VALUE: u32 = 0x1;
pub(crate) const KEY_SET_VALUE: u32 = 0x2;
pub(crate) const KEY_CREATE_SUB_KEY: u32 = 0x4;
const KEY_ENUMERATE_SUB_KEYS: u32 = 0x8;
pub(crate) const DELETE: u32 = 0x1_0000;
const GENERIC_READ: u32 = 0x8000_0000;
const GENERIC_WRITE: u32 = 0x4000_0000;
const GENERIC_ALL: u32 = 0x1000_0000;
const MAXIMUM_ALLOWED: u32 = 0x0200_0000;

/// The rights that a requested access amounts to.
pub(crate) fn rights(requested: u32) -> u32 {
    let mut rights = requested;
    if requested & GENERIC_READ != 0 {
        rights |= KEY_QUERY_VALUE | KEY_ENUMERATE_SUB_KEYS;
    }
    if requested & GENERIC_WRITE != 0 {
        rights |= KEY_SET_VALUE | KEY_CREATE_SUB_KEY;
    }
    if requested & (GENERIC_ALL | MAXIMUM_ALLOWED) != 0 {
        rights |=
            KEY_QUERY_VALUE | KEY_SET_VALUE | KEY_CREATE_SUB_KEY | KEY_ENUMERATE_SUB_KEYS | DELETE;
    }
    rights
}

/// `OBJ_VALID_ATTRIBUTES`.
const VALID_ATTRIBUTES: u32 = 0x1FF2;
const BACKSLASH: u16 = b'\\' as u16;

/// `OBJECT_ATTRIBUTES` on x64.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ObjectAttributes {
    length: u32,
    root_directory: usize,
    object_name: *const UnicodeString,
    attributes: u32,
    security_descriptor: usize,
    security_quality_of_service: usize,
}

/// Which key a call is about: a path, absolute or below an open key.
struct Target {
    root: Option<usize>,
    path: Vec<u16>,
}

/// Reads the driver's `OBJECT_ATTRIBUTES`.
fn target(attributes: *const ObjectAttributes, function: &str) -> Result<Target, i32> {
    let read = peek(attributes);
    if read.length as usize != size_of::<ObjectAttributes>()
        || read.attributes & !VALID_ATTRIBUTES != 0
    {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let root = (read.root_directory != 0).then_some(read.root_directory);
    ob::zw_string(read.object_name, function);
    let path = if read.object_name.is_null() {
        Vec::new()
    } else {
        if !peek(read.object_name).length.is_multiple_of(2) {
            return Err(STATUS_OBJECT_NAME_INVALID);
        }
        peek_unicode(read.object_name)
    };
    // A path starts at the root, or has none to start from.
    if (path.first() == Some(&BACKSLASH)) == root.is_some() {
        return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
    }
    Ok(Target { root, path })
}

/// The key that `handle` stands for, if it was opened with the rights that are needed.
fn key(k: &Kernel, handle: usize, need: u32) -> Result<KeyId, i32> {
    match ob::look_up(k, handle) {
        Some(Handle::Key(key, rights)) if rights & need == need => Ok(key),
        Some(Handle::Key(..)) => Err(STATUS_ACCESS_DENIED),
        Some(_) => Err(STATUS_OBJECT_TYPE_MISMATCH),
        None => Err(STATUS_INVALID_HANDLE),
    }
}

/// Opens the key at `target`; keys between must exist.
fn find(k: &Kernel, target: &Target) -> Result<KeyId, i32> {
    let path = RegString::from(target.path.as_slice());
    let registry = &k.zw.registry;
    match target.root {
        None => registry.open(path),
        Some(root) => registry.open_at(key(k, root, 0)?, path),
    }
    .map_err(|error| super::status(&error))
}

/// `ZwOpenKey`.
pub(crate) fn zw_open_key(
    handle: *mut usize,
    access: u32,
    attributes: *const ObjectAttributes,
) -> i32 {
    open(handle, access, attributes, "ZwOpenKey")
}

/// `ZwOpenKeyEx`.
pub(crate) fn zw_open_key_ex(
    handle: *mut usize,
    access: u32,
    attributes: *const ObjectAttributes,
    options: u32,
) -> i32 {
    if options & REG_OPTION_OPEN_LINK != 0 {
        kernel(|k| not_simulated(k, "ZwOpenKeyEx with REG_OPTION_OPEN_LINK"));
    }
    if options & !REG_OPTION_BACKUP_RESTORE != 0 {
        return STATUS_INVALID_PARAMETER;
    }
    open(handle, access, attributes, "ZwOpenKeyEx")
}

fn open(
    handle: *mut usize,
    access: u32,
    attributes: *const ObjectAttributes,
    function: &'static str,
) -> i32 {
    kernel(|k| ob::zw_call(k, function));
    let opened = target(attributes, function).and_then(|target| {
        kernel(|k| {
            crate::inject::check(k, function)?;
            let key = find(k, &target)?;
            Ok(ob::open(k, Handle::Key(key, rights(access))))
        })
    });
    give(handle, opened)
}

/// Hands out a handle, or the status that there is none.
fn give(to: *mut usize, opened: Result<usize, i32>) -> i32 {
    match opened {
        Ok(opened) => {
            poke(to, opened);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

fn not_simulated(k: &mut Kernel, what: &str) {
    let stop = Stop::not_simulated(k, what);
    k.stop(stop)
}

/// `ZwCreateKey`: creates the last key of the path only, or opens it.
pub(crate) fn zw_create_key(
    handle: *mut usize,
    access: u32,
    attributes: *const ObjectAttributes,
    _title_index: u32,
    _class: *const UnicodeString,
    options: u32,
    disposition: *mut u32,
) -> i32 {
    kernel(|k| ob::zw_call(k, "ZwCreateKey"));
    if options & REG_OPTION_CREATE_LINK != 0 {
        kernel(|k| not_simulated(k, "ZwCreateKey with REG_OPTION_CREATE_LINK"));
    }
    if options & !(REG_OPTION_VOLATILE | REG_OPTION_BACKUP_RESTORE) != 0 {
        return STATUS_INVALID_PARAMETER;
    }
    let volatility = if options & REG_OPTION_VOLATILE == 0 {
        Volatility::Persistent
    } else {
        Volatility::Volatile
    };
    let made = target(attributes, "ZwCreateKey").and_then(|target| {
        kernel(|k| {
            crate::inject::check(k, "ZwCreateKey")?;
            create(k, &target, access, volatility)
        })
    });
    match made {
        Ok((opened, found)) => {
            if !disposition.is_null() {
                poke(disposition, found);
            }
            poke(handle, opened);
            STATUS_SUCCESS
        }
        Err(status) => status,
    }
}

fn create(
    k: &mut Kernel,
    target: &Target,
    access: u32,
    volatility: Volatility,
) -> Result<(usize, u32), i32> {
    let (key, disposition) = match find(k, target) {
        Ok(key) => (key, Disposition::Opened),
        Err(super::STATUS_OBJECT_NAME_NOT_FOUND) => create_last(k, target, volatility)?,
        Err(status) => return Err(status),
    };
    let disposition = match disposition {
        Disposition::Created => REG_CREATED_NEW_KEY,
        Disposition::Opened => REG_OPENED_EXISTING_KEY,
    };
    Ok((ob::open(k, Handle::Key(key, rights(access))), disposition))
}

fn create_last(
    k: &mut Kernel,
    target: &Target,
    volatility: Volatility,
) -> Result<(KeyId, Disposition), i32> {
    let path = target
        .path
        .strip_suffix(&[BACKSLASH])
        .unwrap_or(&target.path);
    let (parent, name) = match path.iter().rposition(|unit| *unit == BACKSLASH) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    let parent = find(
        k,
        &Target {
            root: target.root,
            path: parent.to_vec(),
        },
    )?;
    set_clock(k);
    k.zw.registry
        .create_at(parent, name, volatility)
        .map_err(|error| super::status(&error))
}

/// Keys remember the time of their last write.
fn set_clock(k: &mut Kernel) {
    let now = k.system_time();
    k.zw.registry.set_clock(now);
}

/// `ZwDeleteKey`: the key is gone at once, its handles still want closing.
pub(crate) fn zw_delete_key(Addr(handle): Addr) -> i32 {
    kernel(|k| {
        ob::zw_call(k, "ZwDeleteKey");
        set_clock(k);
        ended(key(k, handle, DELETE).and_then(|key| {
            k.zw.registry
                .delete(key)
                .map_err(|error| super::status(&error))
        }))
    })
}

/// `ZwFlushKey`: ntsim writes the registry's file when the machine commits, so
/// there is nothing to do but to check the handle.
pub(crate) fn zw_flush_key(Addr(handle): Addr) -> i32 {
    kernel(|k| {
        ob::zw_call(k, "ZwFlushKey");
        ended(live_key(k, handle, 0).map(drop))
    })
}

/// The status of something that has no other result.
fn ended(result: Result<(), i32>) -> i32 {
    result.err().unwrap_or(STATUS_SUCCESS)
}

/// The key that `handle` stands for, unless it was deleted meanwhile.
fn live_key(k: &Kernel, handle: usize, need: u32) -> Result<KeyId, i32> {
    let key = key(k, handle, need)?;
    k.zw.registry
        .name(key)
        .map_err(|error| super::status(&error))?;
    Ok(key)
}

/// Reads the name of a value; NULs at its end do not count.
fn value_name(name: *const UnicodeString, function: &str) -> Result<RegString, i32> {
    ob::zw_string(name, function);
    if !peek(name).length.is_multiple_of(2) {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let mut units = peek_unicode(name);
    while units.last() == Some(&0) {
        units.pop();
    }
    Ok(RegString::from(units))
}

/// `ZwSetValueKey`.
pub(crate) fn zw_set_value_key(
    Addr(handle): Addr,
    name: *const UnicodeString,
    _title_index: u32,
    kind: u32,
    data: *const u8,
    size: u32,
) -> i32 {
    kernel(|k| ob::zw_call(k, "ZwSetValueKey"));
    let name = match value_name(name, "ZwSetValueKey") {
        Ok(name) => name,
        Err(status) => return status,
    };
    let data = if size == 0 {
        Vec::new()
    } else {
        peek_bytes(data, size as usize)
    };
    kernel(|k| {
        set_clock(k);
        let checked = crate::inject::check(k, "ZwSetValueKey");
        ended(
            checked
                .and_then(|()| key(k, handle, KEY_SET_VALUE))
                .and_then(|key| {
                    k.zw.registry
                        .set_value(key, name, Value::new(kind, data))
                        .map_err(|error| super::status(&error))
                }),
        )
    })
}

/// `ZwDeleteValueKey`.
pub(crate) fn zw_delete_value_key(Addr(handle): Addr, name: *const UnicodeString) -> i32 {
    kernel(|k| ob::zw_call(k, "ZwDeleteValueKey"));
    let name = match value_name(name, "ZwDeleteValueKey") {
        Ok(name) => name,
        Err(status) => return status,
    };
    kernel(|k| {
        set_clock(k);
        ended(key(k, handle, KEY_SET_VALUE).and_then(|key| {
            k.zw.registry
                .delete_value(key, name)
                .map(drop)
                .map_err(|error| super::status(&error))
        }))
    })
}

/// `ZwQueryValueKey`.
pub(crate) fn zw_query_value_key(
    Addr(handle): Addr,
    name: *const UnicodeString,
    class: i32,
    buffer: *mut u8,
    length: u32,
    result_length: *mut u32,
) -> i32 {
    kernel(|k| ob::zw_call(k, "ZwQueryValueKey"));
    let found = value_name(name, "ZwQueryValueKey").and_then(|name| {
        kernel(|k| {
            crate::inject::check(k, "ZwQueryValueKey")?;
            let key = key(k, handle, KEY_QUERY_VALUE)?;
            let registry = &k.zw.registry;
            let value = registry
                .value(key, &name)
                .map_err(|error| super::status(&error))?;
            // The name as it was set, which may differ in case.
            let values = registry
                .values(key)
                .map_err(|error| super::status(&error))?;
            let stored = values
                .map(|(stored, _)| stored)
                .find(|stored| stored.eq_ignore_case(&name));
            information::of_value(stored.unwrap_or(&name), value, class)
                .map_err(|error| refuse(k, "ZwQueryValueKey", class, error))
        })
    });
    answer(found, buffer, length, result_length)
}

/// `ZwEnumerateValueKey`.
pub(crate) fn zw_enumerate_value_key(
    Addr(handle): Addr,
    index: u32,
    class: i32,
    buffer: *mut u8,
    length: u32,
    result_length: *mut u32,
) -> i32 {
    let found = kernel(|k| {
        ob::zw_call(k, "ZwEnumerateValueKey");
        let key = key(k, handle, KEY_QUERY_VALUE)?;
        let value =
            k.zw.registry
                .value_at(key, index as usize)
                .map_err(|error| super::status(&error))?;
        let (name, value) = value.ok_or(STATUS_NO_MORE_ENTRIES)?;
        information::of_value(name, value, class)
            .map_err(|error| refuse(k, "ZwEnumerateValueKey", class, error))
    });
    answer(found, buffer, length, result_length)
}

/// `ZwQueryKey`.
pub(crate) fn zw_query_key(
    Addr(handle): Addr,
    class: i32,
    buffer: *mut u8,
    length: u32,
    result_length: *mut u32,
) -> i32 {
    let found = kernel(|k| {
        ob::zw_call(k, "ZwQueryKey");
        let key = live_key(k, handle, KEY_QUERY_VALUE)?;
        information::of_key(&k.zw.registry, key, class)
            .map_err(|error| refuse(k, "ZwQueryKey", class, error))
    });
    answer(found, buffer, length, result_length)
}

/// `ZwEnumerateKey`.
pub(crate) fn zw_enumerate_key(
    Addr(handle): Addr,
    index: u32,
    class: i32,
    buffer: *mut u8,
    length: u32,
    result_length: *mut u32,
) -> i32 {
    let found = kernel(|k| {
        ob::zw_call(k, "ZwEnumerateKey");
        let key = live_key(k, handle, KEY_ENUMERATE_SUB_KEYS)?;
        let child =
            k.zw.registry
                .subkey_at(key, index as usize)
                .map_err(|error| super::status(&error))?;
        let child = child.ok_or(STATUS_NO_MORE_ENTRIES)?;
        information::of_key(&k.zw.registry, child, class)
            .map_err(|error| refuse(k, "ZwEnumerateKey", class, error))
    });
    answer(found, buffer, length, result_length)
}

/// The status for a class that cannot be answered; ends the simulation for one
/// that Windows would have answered.
fn refuse(k: &mut Kernel, function: &str, class: i32, error: information::BadClass) -> i32 {
    if error == information::BadClass::NotSimulated {
        not_simulated(k, &format!("{function} with information class {class}"));
    }
    STATUS_INVALID_PARAMETER
}

/// Writes what fits of the information, and how much there is.
fn answer(
    found: Result<Information, i32>,
    buffer: *mut u8,
    length: u32,
    result_length: *mut u32,
) -> i32 {
    match found {
        Ok(found) => {
            poke(result_length, found.length());
            found.write(buffer, length)
        }
        Err(status) => status,
    }
}
