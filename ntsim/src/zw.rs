// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registry as drivers see it (`Zw*Key`).

use crate::registry::{Registry, RegistryError};

/// The registry of the machine.
pub(crate) struct State {
    pub(crate) registry: Registry,
}

impl Default for State {
    fn default() -> Self {
        Self { registry: Registry::new() }
    }
}

/// The status with which the kernel reports a registry error.
pub(crate) fn status(error: &RegistryError) -> i32 {
    let status: u32 = match error {
        RegistryError::NotFound(_) => 0xC000_0034,
        RegistryError::BadPath(_) => 0xC000_003B,
        RegistryError::BadName(_) => 0xC000_0033,
        RegistryError::ChildMustBeVolatile(_) => 0xC000_0181,
        RegistryError::Deleted => 0xC000_017C,
        RegistryError::CannotDelete(_) => 0xC000_0121,
        RegistryError::Exists(_) => 0xC000_0035,
        RegistryError::LinkLoop(_) => 0xC000_0280,
        _ => 0xC000_000D,
    };
    status.cast_signed()
}
