// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the registry tells about keys and values, as drivers receive it.
//!
//! Each information class is a structure with a fixed part and one or two
//! variable ones behind it:
//!
//! | room in the buffer | written | status |
//! |---|---|---|
//! | less than the fixed part | nothing | `STATUS_BUFFER_TOO_SMALL` |
//! | less than everything | as much as fits | `STATUS_BUFFER_OVERFLOW` |
//! | everything | everything | `STATUS_SUCCESS` |

use crate::access::poke_bytes;
use crate::registry::{KeyId, RegString, Registry, RegistryError, Value};

const STATUS_SUCCESS: i32 = 0;
const STATUS_BUFFER_OVERFLOW: i32 = 0x8000_0005_u32.cast_signed();
const STATUS_BUFFER_TOO_SMALL: i32 = 0xC000_0023_u32.cast_signed();

/// The offset of something that is not there.
const NOWHERE: u32 = u32::MAX;

/// The bytes of an information structure.
pub(super) struct Information {
    bytes: Vec<u8>,
    fixed: usize,
}

/// Why there is no information of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadClass {
    /// Windows knows no such class here.
    Invalid,
    /// Windows does.
    NotSimulated,
    /// The key is deleted.
    Gone,
}

impl From<RegistryError> for BadClass {
    fn from(_: RegistryError) -> Self {
        Self::Gone
    }
}

impl Information {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            fixed: 0,
        }
    }

    fn u32(&mut self, number: u32) -> &mut Self {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Self {
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// Ends the part that a buffer must have room for.
    fn fixed(&mut self) -> &mut Self {
        self.fixed = self.bytes.len();
        self
    }

    fn text(&mut self, text: &RegString) -> &mut Self {
        self.bytes
            .extend(text.units().iter().flat_map(|unit| unit.to_le_bytes()));
        self
    }

    /// How many bytes all of it takes.
    pub(super) fn length(&self) -> u32 {
        size(self.bytes.len())
    }

    /// Writes it to a driver's buffer.
    pub(super) fn write(&self, buffer: *mut u8, length: u32) -> i32 {
        let length = length as usize;
        if length < self.fixed {
            return STATUS_BUFFER_TOO_SMALL;
        }
        let fits = length.min(self.bytes.len());
        poke_bytes(buffer, &self.bytes[..fits]);
        if fits < self.bytes.len() {
            STATUS_BUFFER_OVERFLOW
        } else {
            STATUS_SUCCESS
        }
    }
}

fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("what a registry holds is smaller than 4 GiB")
}

fn text_size(text: &RegString) -> u32 {
    size(text.units().len() * 2)
}

/// `KEY_VALUE_INFORMATION_CLASS`.
pub(super) fn of_value(
    name: &RegString,
    value: &Value,
    class: i32,
) -> Result<Information, BadClass> {
    let mut info = Information::new();
    let data = size(value.data.len());
    match class {
        // KeyValueBasicInformation
        0 => {
            info.u32(0)
                .u32(value.kind)
                .u32(text_size(name))
                .fixed()
                .text(name);
        }
        // KeyValueFullInformation and its Align64, which differ in where the data may start
        1 | 3 => {
            const FIXED: u32 = 20;
            let end = FIXED + text_size(name);
            let offset = end.next_multiple_of(if class == 1 { 4 } else { 8 });
            let at = if data == 0 { NOWHERE } else { offset };
            info.u32(0)
                .u32(value.kind)
                .u32(at)
                .u32(data)
                .u32(text_size(name))
                .fixed()
                .text(name);
            if data != 0 {
                info.bytes.resize(offset as usize, 0);
                info.bytes.extend(&value.data);
            }
        }
        // KeyValuePartialInformation
        2 => {
            info.u32(0).u32(value.kind).u32(data).fixed();
            info.bytes.extend(&value.data);
        }
        // KeyValuePartialInformationAlign64
        4 => {
            info.u32(value.kind).u32(data).fixed();
            info.bytes.extend(&value.data);
        }
        // KeyValueLayerInformation
        5 => return Err(BadClass::NotSimulated),
        _ => return Err(BadClass::Invalid),
    }
    Ok(info)
}

/// `KEY_INFORMATION_CLASS`.
pub(super) fn of_key(registry: &Registry, key: KeyId, class: i32) -> Result<Information, BadClass> {
    let mut info = Information::new();
    let name = registry.name(key)?;
    let written = registry.last_write_time(key)?;
    let subkeys = size(registry.subkey_count(key)?);
    let values = size(registry.value_count(key)?);
    let mut longest_name = 0;
    for child in registry.subkeys(key)? {
        longest_name = longest_name.max(text_size(registry.name(child)?));
    }
    let (mut longest_value, mut largest_data) = (0, 0);
    for (name, value) in registry.values(key)? {
        longest_value = longest_value.max(text_size(name));
        largest_data = largest_data.max(size(value.data.len()));
    }
    match class {
        // KeyBasicInformation
        0 => {
            info.u64(written)
                .u32(0)
                .u32(text_size(name))
                .fixed()
                .text(name);
        }
        // KeyNodeInformation; ntsim's keys have no class
        1 => {
            info.u64(written)
                .u32(0)
                .u32(NOWHERE)
                .u32(0)
                .u32(text_size(name))
                .fixed()
                .text(name);
        }
        // KeyFullInformation
        2 => {
            info.u64(written)
                .u32(0)
                .u32(NOWHERE)
                .u32(0)
                .u32(subkeys)
                .u32(longest_name)
                .u32(0);
            info.u32(values)
                .u32(longest_value)
                .u32(largest_data)
                .fixed();
        }
        // KeyNameInformation
        3 => {
            let path = registry.nt_path(key)?;
            info.u32(text_size(&path)).fixed().text(&path);
        }
        // KeyCachedInformation
        4 => {
            info.u64(written)
                .u32(0)
                .u32(subkeys)
                .u32(longest_name)
                .u32(values)
                .u32(longest_value);
            info.u32(largest_data).u32(text_size(name)).fixed();
        }
        5..=9 => return Err(BadClass::NotSimulated),
        _ => return Err(BadClass::Invalid),
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_information_has_its_data_behind_the_name_on_a_four_byte_boundary() {
        let info = of_value(&RegString::from("abc"), &Value::dword(7), 1).unwrap();
        assert_eq!(info.bytes[8..12], 28_u32.to_le_bytes());
        assert_eq!(info.bytes[28..], 7_u32.to_le_bytes());
        assert_eq!(info.fixed, 20);
    }

    #[test]
    fn a_value_without_data_has_it_nowhere() {
        let info = of_value(&RegString::from("a"), &Value::binary([]), 1).unwrap();
        assert_eq!(info.bytes[8..12], NOWHERE.to_le_bytes());
        assert_eq!(info.length(), 22);
    }
}
