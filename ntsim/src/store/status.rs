// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a device is between two boots: enabled or not, and how its last start ended.
//!
//! ```text
//!               starts                        set_enabled
//!   Stopped ──────────────► Started ◄───────────────────────► Disabled
//!      ▲  │    does not                         (Stopped
//!      │  └───────────────► Problem              when enabled)
//!      └── another driver ── any
//! ```
//!
//! Windows keeps `ConfigFlags` in the device's key, and so does ntsim. A problem
//! Windows keeps in memory: ntsim's machine is off between two commands, so it is
//! in the device's key too, as `Problem` and `ProblemStatus`.
//!
//! See [device manager error messages][codes].
//!
//! [codes]: https://learn.microsoft.com/windows-hardware/drivers/install/device-manager-problem-codes

use super::install::ENUM;
use crate::registry::{KeyId, Registry, RegistryError, Value};

/// `CONFIGFLAG_DISABLED`.
const DISABLED: u32 = 0x1;
/// `CONFIGFLAG_REINSTALL`: the device needs a driver.
pub(super) const REINSTALL: u32 = 0x20;

/// Whether a device is to be started when the machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// How a device was when the machine ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It worked.
    Started,
    /// It has a driver and has not been started.
    Stopped,
    /// It is not to be started.
    Disabled,
    /// It did not start, or failed later.
    Problem(Problem),
}

/// What keeps a device from working.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `CM_PROB_*`.
    pub code: u32,
    /// The `NTSTATUS` that it came with.
    pub status: u32,
}

impl Problem {
    /// `CM_PROB_FAILED_START`.
    pub const FAILED_START: u32 = 10;
    /// `CM_PROB_DISABLED`.
    pub const DISABLED: u32 = 22;
    /// `CM_PROB_FAILED_INSTALL`: there is no driver for it.
    pub const FAILED_INSTALL: u32 = 28;
    /// `CM_PROB_FAILED_ADD`.
    pub const FAILED_ADD: u32 = 31;
    /// `CM_PROB_FAILED_DRIVER_ENTRY`.
    pub const FAILED_DRIVER_ENTRY: u32 = 37;
    /// `CM_PROB_DRIVER_FAILED_LOAD`.
    pub const DRIVER_FAILED_LOAD: u32 = 39;
    /// `CM_PROB_FAILED_POST_START`.
    pub const FAILED_POST_START: u32 = 43;

    /// A device without a driver, with `STATUS_PNP_NO_COMPAT_DRIVERS`.
    pub const NO_DRIVER: Self = Self {
        code: Self::FAILED_INSTALL,
        status: 0xC000_0490,
    };

    /// The code's symbolic name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.code {
            Self::FAILED_START => "CM_PROB_FAILED_START",
            Self::DISABLED => "CM_PROB_DISABLED",
            Self::FAILED_INSTALL => "CM_PROB_FAILED_INSTALL",
            Self::FAILED_ADD => "CM_PROB_FAILED_ADD",
            Self::FAILED_DRIVER_ENTRY => "CM_PROB_FAILED_DRIVER_ENTRY",
            Self::DRIVER_FAILED_LOAD => "CM_PROB_DRIVER_FAILED_LOAD",
            Self::FAILED_POST_START => "CM_PROB_FAILED_POST_START",
            _ => "CM_PROB_UNKNOWN",
        }
    }
}

/// What a device's key says.
pub(super) fn read(registry: &Registry, device: KeyId) -> Status {
    let number = |name: &str| registry.value(device, name).ok().and_then(Value::as_dword);
    if number("ConfigFlags").unwrap_or(0) & DISABLED != 0 {
        return Status::Disabled;
    }
    if registry.value(device, "Service").is_err() {
        return Status::Problem(Problem::NO_DRIVER);
    }
    match number("Problem") {
        None => Status::Stopped,
        Some(0) => Status::Started,
        Some(code) => Status::Problem(Problem {
            code,
            status: number("ProblemStatus").unwrap_or(0),
        }),
    }
}

/// Takes down how a device's start ended.
///
/// # Errors
/// [`RegistryError::NotFound`] if it is not there any more.
pub fn record(
    registry: &mut Registry,
    instance_id: &str,
    problem: Option<Problem>,
) -> Result<(), RegistryError> {
    let key = registry.open(format!(r"{ENUM}\{instance_id}"))?;
    let (code, status) = problem.map_or((0, 0), |problem| (problem.code, problem.status));
    registry.set_value(key, "Problem", Value::dword(code))?;
    registry.set_value(key, "ProblemStatus", Value::dword(status))
}

/// Begins anew with a device that got or lost its driver. It stays disabled if it is.
pub(super) fn forget(
    registry: &mut Registry,
    device: KeyId,
    flags: u32,
) -> Result<(), RegistryError> {
    for name in ["Problem", "ProblemStatus"] {
        drop(registry.delete_value(device, name));
    }
    let old = registry
        .value(device, "ConfigFlags")
        .ok()
        .and_then(Value::as_dword);
    let kept = old.unwrap_or(0) & DISABLED;
    registry.set_value(device, "ConfigFlags", Value::dword(kept | flags))
}

pub(super) fn enable(
    registry: &mut Registry,
    instance_id: &str,
    enabled: Enabled,
) -> Result<(), RegistryError> {
    let key = registry.open(format!(r"{ENUM}\{instance_id}"))?;
    let old = registry
        .value(key, "ConfigFlags")
        .ok()
        .and_then(Value::as_dword);
    let flags = old.unwrap_or(0) & !DISABLED;
    forget(registry, key, flags)?;
    let flags = match enabled {
        Enabled::Yes => flags,
        Enabled::No => flags | DISABLED,
    };
    registry.set_value(key, "ConfigFlags", Value::dword(flags))
}
