// SPDX-License-Identifier: MIT OR Apache-2.0

//! The run-time library's short ways to the registry, by path instead of handle:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-rtlwriteregistryvalue>

use crate::access::{peek, peek_bytes};
use crate::kernel::Kernel;
use crate::registry::{KeyId, RegString, RegistryError, Value, Volatility};
use crate::trap::kernel;

const STATUS_SUCCESS: i32 = 0;
const STATUS_INVALID_PARAMETER: i32 = 0xC000_000D_u32.cast_signed();
const STATUS_INVALID_HANDLE: i32 = 0xC000_0008_u32.cast_signed();

const RTL_REGISTRY_HANDLE: u32 = 0x4000_0000;
const RTL_REGISTRY_OPTIONAL: u32 = 0x8000_0000;

/// A path and what it is relative to: a key that is open, or the root.
struct Place {
    below: Option<KeyId>,
    path: RegString,
}

impl Place {
    fn open(&self, k: &Kernel) -> Result<KeyId, RegistryError> {
        match self.below {
            Some(key) => k.zw.registry.open_at(key, &self.path),
            None => k.zw.registry.open(&self.path),
        }
    }

    fn create(&self, k: &mut Kernel) -> Result<KeyId, RegistryError> {
        let now = k.system_time();
        k.zw.registry.set_clock(now);
        match self.below {
            Some(key) => {
                k.zw.registry
                    .create_at(key, &self.path, Volatility::Persistent)
                    .map(|(key, _)| key)
            }
            None => k.zw.registry.create(&self.path, Volatility::Persistent),
        }
    }
}

/// Reads a NUL-terminated string.
fn text(from: *const u16) -> Vec<u16> {
    (0..0x7FFF)
        .map(|index| peek(from.wrapping_add(index)))
        .take_while(|unit| *unit != 0)
        .collect()
}

/// Reads `RelativeTo` and `Path`.
fn place(relative_to: u32, path: *const u16) -> Result<Place, i32> {
    let relative_to = relative_to & !RTL_REGISTRY_OPTIONAL;
    if relative_to & RTL_REGISTRY_HANDLE != 0 {
        // The path is a handle then.
        let handle = path as usize;
        return match kernel(|k| crate::ob::look_up(k, handle)) {
            Some(crate::ob::Handle::Key(key, _)) => Ok(Place {
                below: Some(key),
                path: RegString::from(""),
            }),
            _ => Err(STATUS_INVALID_HANDLE),
        };
    }
    let root = match relative_to {
        0 => "",
        1 => r"\Registry\Machine\System\CurrentControlSet\Services",
        2 => r"\Registry\Machine\System\CurrentControlSet\Control",
        3 => r"\Registry\Machine\Software\Microsoft\Windows NT\CurrentVersion",
        4 => r"\Registry\Machine\Hardware\DeviceMap",
        5 => r"\Registry\User\.Default",
        _ => return Err(STATUS_INVALID_PARAMETER),
    };
    let mut units: Vec<u16> = root.encode_utf16().collect();
    let path = if path.is_null() {
        Vec::new()
    } else {
        text(path)
    };
    if !units.is_empty() && !path.is_empty() {
        units.push(u16::from(b'\\'));
    }
    units.extend(path);
    Ok(Place {
        below: None,
        path: RegString::from(units),
    })
}

/// The status of something that has no other result.
fn ended(result: Result<(), RegistryError>) -> i32 {
    result
        .err()
        .map_or(STATUS_SUCCESS, |error| super::status(&error))
}

/// `RtlCheckRegistryKey`: whether the key is there.
pub(crate) fn rtl_check_registry_key(relative_to: u32, path: *const u16) -> i32 {
    match place(relative_to, path) {
        Ok(place) => kernel(|k| ended(place.open(k).map(drop))),
        Err(status) => status,
    }
}

/// `RtlCreateRegistryKey`: makes the key and those on the way to it.
pub(crate) fn rtl_create_registry_key(relative_to: u32, path: *const u16) -> i32 {
    match place(relative_to, path) {
        Ok(place) => kernel(|k| ended(place.create(k).map(drop))),
        Err(status) => status,
    }
}

/// `RtlWriteRegistryValue`: makes the key if it has to.
pub(crate) fn rtl_write_registry_value(
    relative_to: u32,
    path: *const u16,
    name: *const u16,
    kind: u32,
    data: *const u8,
    length: u32,
) -> i32 {
    let place = match place(relative_to, path) {
        Ok(place) => place,
        Err(status) => return status,
    };
    let name = RegString::from(if name.is_null() {
        Vec::new()
    } else {
        text(name)
    });
    let data = if length == 0 {
        Vec::new()
    } else {
        peek_bytes(data, length as usize)
    };
    kernel(|k| {
        let written = place
            .create(k)
            .and_then(|key| k.zw.registry.set_value(key, name, Value::new(kind, data)));
        ended(written)
    })
}

/// `RtlDeleteRegistryValue`.
pub(crate) fn rtl_delete_registry_value(
    relative_to: u32,
    path: *const u16,
    name: *const u16,
) -> i32 {
    let place = match place(relative_to, path) {
        Ok(place) => place,
        Err(status) => return status,
    };
    let name = RegString::from(text(name));
    kernel(|k| {
        let now = k.system_time();
        k.zw.registry.set_clock(now);
        let deleted = place
            .open(k)
            .and_then(|key| k.zw.registry.delete_value(key, name));
        ended(deleted.map(drop))
    })
}
