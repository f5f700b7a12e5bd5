// SPDX-License-Identifier: MIT OR Apache-2.0

//! The driver's own registry keys.
//!
//! | Key | Where | For |
//! |---|---|---|
//! | [`Key::parameters`] | `<service>\Parameters` | settings; where DMF keeps its values |
//! | [`Key::persistent_state`] | chosen by Windows | state that the driver itself writes |
//!
//! ```no_run
//! use dmf::prelude::*;
//! use dmf::registry::{Access, Key, QueryError};
//!
//! fn interval(irql: &Irql<'_, Passive>) -> Result<u32> {
//!     let key = Key::parameters(irql, Access::Read)?;
//!     match key.query_u32(irql, dmf::unicode_string!("IntervalMs")) {
//!         Ok(interval) => Ok(interval),
//!         Err(QueryError::NotFound) => Ok(1_000),
//!         Err(error) => Err(error.into()),
//!     }
//! }
//! ```
//!
//! See [Using the registry in WDF drivers][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/introduction-to-registry-keys-for-drivers

use core::fmt;

use crate::irql::{Irql, Passive};
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;
use crate::wdf::object::no_handle;

/// What a key is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `KEY_READ`
    Read,
    /// `KEY_WRITE`
    Write,
}

impl Access {
    const fn mask(self) -> u32 {
        match self {
            Self::Read => 0x0002_0019,
            Self::Write => 0x0002_0006,
        }
    }
}

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// There is no value of that name.
    NotFound,
    /// The value has another type, or another size.
    WrongType,
    /// Something else.
    Failed(NtStatus),
}

impl From<QueryError> for NtStatus {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound => Self::OBJECT_NAME_NOT_FOUND,
            QueryError::WrongType => Self::OBJECT_TYPE_MISMATCH,
            QueryError::Failed(status) => status,
        }
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such value"),
            Self::WrongType => f.write_str("the value has another type"),
            Self::Failed(status) => write!(f, "{status}"),
        }
    }
}

impl core::error::Error for QueryError {}

/// An open registry key. Dropping it closes it.
///
/// A token is asked for where a key is opened, and at each use.
///
/// C counterpart: `WDFKEY`.
///
/// # Invariants
/// The handle is open and belongs to this value.
pub struct Key(sys::WDFKEY);

type Open = unsafe fn(
    sys::WDFDRIVER,
    sys::ACCESS_MASK,
    sys::PWDF_OBJECT_ATTRIBUTES,
    *mut sys::WDFKEY,
) -> sys::NTSTATUS;

impl Key {
    /// Opens the driver's `Parameters` key.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND` if there is none, and what KMDF returns.
    ///
    /// C counterpart: [`WdfDriverOpenParametersRegistryKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nf-wdfdriver-wdfdriveropenparametersregistrykey
    pub fn parameters(irql: &Irql<'_, Passive>, access: Access) -> Result<Self> {
        Self::open(irql, access, sys::kmdf::WdfDriverOpenParametersRegistryKey)
    }

    /// Opens the key for state that the driver writes. It lasts across
    /// reboots, and driver updates.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What KMDF returns.
    ///
    /// C counterpart: [`WdfDriverOpenPersistentStateRegistryKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nf-wdfdriver-wdfdriveropenpersistentstateregistrykey
    pub fn persistent_state(irql: &Irql<'_, Passive>, access: Access) -> Result<Self> {
        Self::open(
            irql,
            access,
            sys::kmdf::WdfDriverOpenPersistentStateRegistryKey,
        )
    }

    fn open(_irql: &Irql<'_, Passive>, access: Access, open: Open) -> Result<Self> {
        // SAFETY: KMDF set the globals before it called DriverEntry.
        let globals = unsafe { sys::WdfDriverGlobals };
        // SAFETY: as above; the driver object is there while the driver is loaded.
        let driver = unsafe { (*globals).Driver };
        let mut key = no_handle();
        // SAFETY: the driver is valid, and the token proves the level.
        NtStatus::from_raw(unsafe {
            open(driver, access.mask(), core::ptr::null_mut(), &raw mut key)
        })
        .into_result()?;
        // INVARIANT: just opened.
        Ok(Self(key))
    }

    /// Reads a `REG_DWORD` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryULong`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryulong
    pub fn query_u32(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<u32, QueryError> {
        let name = name.to_raw();
        let mut value = 0;
        // SAFETY: the invariant; the token proves the level; the arguments are
        // valid for the length of the call.
        let status = NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryQueryULong(self.0, &raw const name, &raw mut value)
        });
        match status {
            status if status.is_success() => Ok(value),
            NtStatus::OBJECT_NAME_NOT_FOUND => Err(QueryError::NotFound),
            // A value that is larger than four bytes is not looked at any closer.
            NtStatus::OBJECT_TYPE_MISMATCH | NtStatus::BUFFER_OVERFLOW => {
                Err(QueryError::WrongType)
            }
            status => Err(QueryError::Failed(status)),
        }
    }

    /// Writes a `REG_DWORD` value, and makes it if it is not there.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_REQUEST` if the key is not open for writing, and
    /// what KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryAssignULong`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignulong
    pub fn assign_u32(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        value: u32,
    ) -> Result {
        let name = name.to_raw();
        // SAFETY: the invariant; the token proves the level; the arguments are
        // valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryAssignULong(self.0, &raw const name, value)
        })
        .into_result()
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: the invariant. Keys are not `Send`, so this is the thread
        // that opened it, at a level at which the key could be used.
        unsafe { sys::kmdf::WdfRegistryClose(self.0) };
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_error_becomes_the_kernels_status() {
        assert_eq!(
            NtStatus::from(QueryError::NotFound),
            NtStatus::OBJECT_NAME_NOT_FOUND
        );
        assert_eq!(
            NtStatus::from(QueryError::WrongType),
            NtStatus::OBJECT_TYPE_MISMATCH
        );
        assert_eq!(
            NtStatus::from(QueryError::Failed(NtStatus::ACCESS_DENIED)),
            NtStatus::ACCESS_DENIED
        );
    }
}
