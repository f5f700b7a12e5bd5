// SPDX-License-Identifier: MIT OR Apache-2.0

//! Registry keys of the driver and of its devices, and their values.
//!
//! | Key | Where | For |
//! |---|---|---|
//! | [`Key::parameters`] | `<service>\Parameters` | settings; where DMF keeps its values |
//! | [`Key::persistent_state`] | chosen by Windows | state that the driver itself writes |
//! | [`Key::device`] | `Enum\<instance>\Device Parameters`, the *hardware* key | settings of one device |
//! | [`Key::open`], [`Key::create`] | below another key | |
//!
//! | Value | Read | Write |
//! |---|---|---|
//! | `REG_DWORD` | [`query_u32`](Key::query_u32) | [`assign_u32`](Key::assign_u32) |
//! | `REG_QWORD` | [`query_u64`](Key::query_u64) | [`assign_u64`](Key::assign_u64) |
//! | `REG_SZ`, `REG_EXPAND_SZ` | [`query_string`](Key::query_string) | [`assign_string`](Key::assign_string), [`assign_expand_string`](Key::assign_expand_string) |
//! | `REG_MULTI_SZ` | [`query_strings`](Key::query_strings) | [`assign_strings`](Key::assign_strings) |
//! | `REG_BINARY` | [`query_binary`](Key::query_binary) | [`assign_binary`](Key::assign_binary) |
//! | any | [`query`](Key::query) | [`assign`](Key::assign) |
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
use crate::module::Modules;
use crate::pool::Vec;
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
    /// `KEY_READ`, `KEY_WRITE` and `DELETE`, which [`Key::delete`] needs.
    All,
}

/// The type of a value, by its number in the WDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueType(pub u32);

impl ValueType {
    /// `REG_SZ`
    pub const STRING: Self = Self(1);
    /// `REG_EXPAND_SZ`
    pub const EXPAND_STRING: Self = Self(2);
    /// `REG_BINARY`
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`
    pub const U32: Self = Self(4);
    /// `REG_MULTI_SZ`
    pub const STRINGS: Self = Self(7);
    /// `REG_QWORD`
    pub const U64: Self = Self(11);
}

/// Whether a key that is created lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Across reboots.
    #[default]
    Persistent,
    /// Until the system shuts down.
    Volatile,
}

impl Access {
    const fn mask(self) -> u32 {
        match self {
            Self::Read => 0x0002_0019,
            Self::Write => 0x0002_0006,
            Self::All => 0x0003_001F,
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
        Self::open_own(irql, access, sys::kmdf::WdfDriverOpenParametersRegistryKey)
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
        Self::open_own(
            irql,
            access,
            sys::kmdf::WdfDriverOpenPersistentStateRegistryKey,
        )
    }

    fn open_own(_irql: &Irql<'_, Passive>, access: Access, open: Open) -> Result<Self> {
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

    /// Opens the device's hardware key, for settings of this one device.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// What KMDF returns.
    ///
    /// C counterpart: [`WdfDeviceOpenRegistryKey`][ms] with `PLUGPLAY_REGKEY_DEVICE`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceopenregistrykey
    pub fn device<O: Send + Sync + 'static>(add: &Modules<'_, O>, access: Access) -> Result<Self> {
        const PLUGPLAY_REGKEY_DEVICE: u32 = 1;
        let (_, device) = add.raw();
        let mut key = no_handle();
        // SAFETY: the device is valid while its modules are added, which is at
        // PASSIVE_LEVEL.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceOpenRegistryKey(
                device,
                PLUGPLAY_REGKEY_DEVICE,
                access.mask(),
                core::ptr::null_mut(),
                &raw mut key,
            )
        })
        .into_result()?;
        // INVARIANT: just opened.
        Ok(Self(key))
    }

    /// Opens a key below this one.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND` if there is none, and what KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryOpenKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryopenkey
    pub fn open(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        access: Access,
    ) -> Result<Self> {
        let name = name.to_raw();
        let mut key = no_handle();
        // SAFETY: the invariant; the token proves the level; the arguments are
        // valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryOpenKey(
                self.0,
                &raw const name,
                access.mask(),
                core::ptr::null_mut(),
                &raw mut key,
            )
        })
        .into_result()?;
        // INVARIANT: just opened.
        Ok(Self(key))
    }

    /// Opens a key below this one, and makes it if it is not there. This key
    /// must be open for writing.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED` if this key is not open for writing, and what KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryCreateKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistrycreatekey
    pub fn create(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        access: Access,
        lifetime: Lifetime,
    ) -> Result<Self> {
        let name = name.to_raw();
        let mut key = no_handle();
        // SAFETY: the invariant; the token proves the level; the arguments are
        // valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryCreateKey(
                self.0,
                &raw const name,
                access.mask(),
                // REG_OPTION_VOLATILE
                u32::from(lifetime == Lifetime::Volatile),
                core::ptr::null_mut(),
                core::ptr::null_mut(),
                &raw mut key,
            )
        })
        .into_result()?;
        // INVARIANT: just opened.
        Ok(Self(key))
    }

    /// Deletes the key, which must be open with [`Access::All`] and have no keys
    /// below it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED`, `STATUS_CANNOT_DELETE`: the key is closed, and
    /// still there.
    ///
    /// C counterpart: [`WdfRegistryRemoveKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryremovekey
    pub fn delete(self, _irql: &Irql<'_, Passive>) -> Result {
        // SAFETY: the invariant, and the token proves the level.
        let status = unsafe { sys::kmdf::WdfRegistryRemoveKey(self.0) };
        NtStatus::from_raw(status).into_result()?;
        // A success deleted the object, too.
        core::mem::forget(self);
        Ok(())
    }

    /// Deletes a value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND` if there is none, `STATUS_ACCESS_DENIED`.
    ///
    /// C counterpart: [`WdfRegistryRemoveValue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryremovevalue
    pub fn delete_value(&self, _irql: &Irql<'_, Passive>, name: UnicodeStr<'_>) -> Result {
        let name = name.to_raw();
        // SAFETY: the invariant; the token proves the level; the name is valid
        // for the length of the call.
        NtStatus::from_raw(unsafe { sys::kmdf::WdfRegistryRemoveValue(self.0, &raw const name) })
            .into_result()
    }

    /// Reads a value of any type: its bytes and what they are.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryValue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryvalue
    pub fn query(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<(ValueType, Vec<u8>), QueryError> {
        let name = name.to_raw();
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let (mut needed, mut kind) = (0, 0);
            let buffer: *mut u8 = if room == 0 {
                core::ptr::null_mut()
            } else {
                bytes.as_mut_ptr()
            };
            // SAFETY: the invariant; the token proves the level; the arguments
            // are valid for the length of the call, the buffer for `room` bytes.
            let status = NtStatus::from_raw(unsafe {
                sys::kmdf::WdfRegistryQueryValue(
                    self.0,
                    &raw const name,
                    room,
                    buffer.cast(),
                    &raw mut needed,
                    &raw mut kind,
                )
            });
            match status {
                status if status.is_success() => {
                    // It may have become shorter since its length was asked for.
                    while bytes.len() > needed as usize {
                        bytes.pop();
                    }
                    return Ok((ValueType(kind), bytes));
                }
                NtStatus::OBJECT_NAME_NOT_FOUND => return Err(QueryError::NotFound),
                // Somebody may make it longer between two calls; then again.
                NtStatus::BUFFER_OVERFLOW if needed > room => {
                    bytes = zeroed(needed as usize).map_err(QueryError::Failed)?;
                }
                status => return Err(QueryError::Failed(status)),
            }
        }
    }

    /// Reads a `REG_QWORD` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: `WdfRegistryQueryValue` with `REG_QWORD`.
    pub fn query_u64(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<u64, QueryError> {
        let bytes = self.query_typed(irql, name, &[ValueType::U64])?;
        let bytes: [u8; 8] = (*bytes).try_into().map_err(|_| QueryError::WrongType)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads a `REG_BINARY` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: `WdfRegistryQueryValue` with `REG_BINARY`.
    pub fn query_binary(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<Vec<u8>, QueryError> {
        self.query_typed(irql, name, &[ValueType::BINARY])
    }

    /// Reads a `REG_SZ` or `REG_EXPAND_SZ` value, up to its first NUL. Variables
    /// in it are not expanded.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryString`][ms], which does not read `REG_EXPAND_SZ`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryquerystring
    pub fn query_string(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<Vec<u16>, QueryError> {
        let kinds = [ValueType::STRING, ValueType::EXPAND_STRING];
        let bytes = self.query_typed(irql, name, &kinds)?;
        let mut units = to_units(&bytes).map_err(QueryError::Failed)?;
        // Whoever wrote it may have forgotten the NUL, or written more than one.
        let length = units.iter().position(|unit| *unit == 0);
        while length.is_some_and(|length| units.len() > length) {
            units.pop();
        }
        Ok(units)
    }

    /// Reads a `REG_MULTI_SZ` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryMultiString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryquerymultistring
    pub fn query_strings(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
    ) -> Result<Strings, QueryError> {
        let bytes = self.query_typed(irql, name, &[ValueType::STRINGS])?;
        to_units(&bytes).map(Strings).map_err(QueryError::Failed)
    }

    fn query_typed(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        kinds: &[ValueType],
    ) -> Result<Vec<u8>, QueryError> {
        let (kind, bytes) = self.query(irql, name)?;
        if kinds.contains(&kind) {
            Ok(bytes)
        } else {
            Err(QueryError::WrongType)
        }
    }

    /// Writes a value of any type, and makes it if it is not there.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED` if the key is not open for writing,
    /// `STATUS_INVALID_PARAMETER` for more bytes than a `u32` counts, and what
    /// KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryAssignValue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignvalue
    pub fn assign(
        &self,
        _irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        kind: ValueType,
        bytes: &[u8],
    ) -> Result {
        let name = name.to_raw();
        let length = u32::try_from(bytes.len()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        // SAFETY: the invariant; the token proves the level; the arguments are
        // valid for the length of the call, and only read.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryAssignValue(
                self.0,
                &raw const name,
                kind.0,
                length,
                bytes.as_ptr().cast_mut().cast(),
            )
        })
        .into_result()
    }

    /// Writes a `REG_QWORD` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub fn assign_u64(&self, irql: &Irql<'_, Passive>, name: UnicodeStr<'_>, value: u64) -> Result {
        self.assign(irql, name, ValueType::U64, &value.to_le_bytes())
    }

    /// Writes a `REG_BINARY` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    pub fn assign_binary(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        value: &[u8],
    ) -> Result {
        self.assign(irql, name, ValueType::BINARY, value)
    }

    /// Writes a `REG_SZ` value, with its final NUL.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`, and as [`assign`](Self::assign).
    ///
    /// C counterpart: [`WdfRegistryAssignUnicodeString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignunicodestring
    pub fn assign_string(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        value: UnicodeStr<'_>,
    ) -> Result {
        self.assign(irql, name, ValueType::STRING, &to_bytes(&[value], &[])?)
    }

    /// Writes a `REG_EXPAND_SZ` value, with its final NUL.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign_string`](Self::assign_string).
    pub fn assign_expand_string(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        value: UnicodeStr<'_>,
    ) -> Result {
        let bytes = to_bytes(&[value], &[])?;
        self.assign(irql, name, ValueType::EXPAND_STRING, &bytes)
    }

    /// Writes a `REG_MULTI_SZ` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` if a string is empty, which would end the list
    /// for its readers, or has a NUL; and as [`assign_string`](Self::assign_string).
    ///
    /// C counterpart: [`WdfRegistryAssignMultiString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignmultistring
    pub fn assign_strings(
        &self,
        irql: &Irql<'_, Passive>,
        name: UnicodeStr<'_>,
        values: &[UnicodeStr<'_>],
    ) -> Result {
        if values
            .iter()
            .any(|value| value.is_empty() || value.units().contains(&0))
        {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let end: &[u16] = if values.is_empty() { &[0, 0] } else { &[0] };
        self.assign(irql, name, ValueType::STRINGS, &to_bytes(values, end)?)
    }

    /// The handle, for calls that this crate does not have.
    #[must_use]
    pub const fn as_raw(&self) -> sys::WDFKEY {
        self.0
    }

    /// Gives up ownership. [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> sys::WDFKEY {
        core::mem::ManuallyDrop::new(self).0
    }

    /// Takes over a key.
    ///
    /// # Safety
    /// The handle is open, and nobody else closes it.
    #[must_use]
    pub const unsafe fn from_raw(key: sys::WDFKEY) -> Self {
        // INVARIANT: the caller's promise.
        Self(key)
    }
}

/// The strings of a `REG_MULTI_SZ` value.
#[derive(Debug)]
pub struct Strings(Vec<u16>);

impl Strings {
    /// The strings, in order; an empty one ends the list.
    pub fn iter(&self) -> impl Iterator<Item = UnicodeStr<'_>> {
        self.0
            .split(|unit| *unit == 0)
            .take_while(|units| !units.is_empty())
            .filter_map(|units| UnicodeStr::new(units).ok())
    }
}

fn zeroed(length: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length)?;
    for _ in 0..length {
        bytes.push(0)?;
    }
    Ok(bytes)
}

/// The UTF-16 units of a value; an odd byte at the end is left out.
fn to_units(bytes: &[u8]) -> Result<Vec<u16>> {
    let mut units = Vec::with_capacity(bytes.len() / 2)?;
    for pair in bytes.chunks_exact(2) {
        units.push(u16::from_le_bytes([pair[0], pair[1]]))?;
    }
    Ok(units)
}

/// The strings as the registry keeps them: each with its NUL, and the end.
fn to_bytes(strings: &[UnicodeStr<'_>], end: &[u16]) -> Result<Vec<u8>> {
    let units: usize = strings.iter().map(|string| string.units().len() + 1).sum();
    let mut bytes = Vec::with_capacity((units + end.len()) * 2)?;
    for string in strings {
        for unit in string.units().iter().chain(&[0]) {
            for byte in unit.to_le_bytes() {
                bytes.push(byte)?;
            }
        }
    }
    for unit in end {
        for byte in unit.to_le_bytes() {
            bytes.push(byte)?;
        }
    }
    Ok(bytes)
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
