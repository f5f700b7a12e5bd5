// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registry as drivers see it (`Zw*Key`).

mod information;
pub(crate) mod key;
pub(crate) mod path;

use crate::registry::{MAX_VALUE_NAME, Registry, RegistryError};

pub(crate) const STATUS_OBJECT_NAME_NOT_FOUND: i32 = 0xC000_0034_u32.cast_signed();

/// The registry of the machine.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) registry: Registry,
}

/// The status with which the kernel reports a registry error.
pub(crate) fn status(error: &RegistryError) -> i32 {
    let status: u32 = match error {
        RegistryError::NotFound(_) => return STATUS_OBJECT_NAME_NOT_FOUND,
        RegistryError::BadPath(_) => 0xC000_003B,
        RegistryError::BadName(_) => 0xC000_0033,
        RegistryError::ChildMustBeVolatile(_) => 0xC000_0181,
        RegistryError::Deleted => 0xC000_017C,
        RegistryError::CannotDelete(_) => 0xC000_0121,
        RegistryError::Exists(_) => 0xC000_0035,
        RegistryError::NameTooLong { limit, .. } if *limit == MAX_VALUE_NAME => 0xC000_0033,
        RegistryError::LinkLoop(_) => 0xC000_0280,
        _ => 0xC000_000D,
    };
    status.cast_signed()
}
