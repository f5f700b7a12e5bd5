// SPDX-License-Identifier: MIT OR Apache-2.0

//! Registry keys of the driver and of its devices, and their values.
//!
//! | Key | Where | For |
//! |---|---|---|
//! | [`Key::parameters`] | `<service>\Parameters` | settings; where DMF keeps its values |
//! | [`Key::persistent_state`] | chosen by Windows | state that the driver itself writes |
//! | [`Key::device`] | `Enum\<instance>\Device Parameters`, the *hardware* key | settings of one device, whatever its driver |
//! | [`Key::driver`] | `Control\Class\<class>\<number>`, the *software* key | what this driver keeps of one device |
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
//! [`subkeys`](Key::subkeys) and [`values`](Key::values) list what is in a key.
//!
//! A driver that reads a setting with a default, and counts its starts:
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::registry::{Access, Key, QueryError};
//! use dmf::unicode_string;
//!
//! dmf::driver!(Meter);
//!
//! pub struct Meter;
//!
//! fn start(irql: &Irql<'_, Passive>) -> Result<u32> {
//!     let key = Key::parameters(irql, Access::All)?;
//!     let interval = match key.query_u32(unicode_string!("IntervalMs")) {
//!         Ok(interval) => interval,
//!         Err(QueryError::NotFound) => 1_000,
//!         Err(error) => return Err(error.into()),
//!     };
//!     let starts = key.query_u32(unicode_string!("Starts")).unwrap_or(0);
//!     key.assign_u32(unicode_string!("Starts"), starts + 1)?;
//!     Ok(interval)
//! }
//!
//! impl Device for Meter {
//!     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Meter)
//!     }
//!
//!     fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
//!         assert_eq!(start(cx.irql())?, 1_000);
//!         Ok(())
//!     }
//! }
//! # ntsim::run_driver(Meter::DRIVER_ENTRY, |machine, _| {
//! #     let path = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services\Example\Parameters";
//! #     let key = machine.registry().open(path).unwrap();
//! #     let starts = machine.registry().value(key, "Starts").unwrap();
//! #     assert_eq!(starts.as_dword(), Some(1));
//! # });
//! ```
//!
//! See [Using the registry in WDF drivers][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/introduction-to-registry-keys-for-drivers

mod enumerate;

pub use enumerate::{Subkeys, Values};

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::pool::Vec;
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;
use crate::wdf::object::no_handle;
use enumerate::Entries;

/// What a key is opened for.
///
/// C counterpart: [`ACCESS_MASK`][ms], of which these are the combinations in use.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/access-mask
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `KEY_READ`
    Read,
    /// `KEY_WRITE`
    Write,
    /// `KEY_READ`, `KEY_WRITE` and `DELETE`, which [`Key::delete`] needs.
    All,
}

/// The type of a value, by its number in the WDK. Values of all types are read by
/// [`Key::query`] and written by [`Key::assign`].
///
/// C counterpart: [`REG_…`][ms].
///
/// [ms]: https://learn.microsoft.com/windows/win32/sysinfo/registry-value-types
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueType(pub u32);

impl ValueType {
    /// `REG_NONE`
    pub const NONE: Self = Self(0);
    /// `REG_SZ`
    pub const STRING: Self = Self(1);
    /// `REG_EXPAND_SZ`
    pub const EXPAND_STRING: Self = Self(2);
    /// `REG_BINARY`
    pub const BINARY: Self = Self(3);
    /// `REG_DWORD`
    pub const U32: Self = Self(4);
    /// `REG_DWORD_BIG_ENDIAN`
    pub const U32_BIG_ENDIAN: Self = Self(5);
    /// `REG_LINK`
    pub const LINK: Self = Self(6);
    /// `REG_MULTI_SZ`
    pub const STRINGS: Self = Self(7);
    /// `REG_RESOURCE_LIST`
    pub const RESOURCE_LIST: Self = Self(8);
    /// `REG_FULL_RESOURCE_DESCRIPTOR`
    pub const FULL_RESOURCE_DESCRIPTOR: Self = Self(9);
    /// `REG_RESOURCE_REQUIREMENTS_LIST`
    pub const RESOURCE_REQUIREMENTS_LIST: Self = Self(10);
    /// `REG_QWORD`
    pub const U64: Self = Self(11);
}

/// Whether a key that is created lasts.
///
/// C counterpart: `REG_OPTION_VOLATILE` of [`WdfRegistryCreateKey`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistrycreatekey
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
///
/// C counterpart: the statuses of [`WdfRegistryQueryValue`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryvalue
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// There is no value of that name.
    NotFound,
    /// The value has another type, or another size.
    WrongType,
    /// Something else.
    Failed(NtStatus),
}

impl QueryError {
    /// What a failed query has returned.
    #[cold]
    const fn of(status: NtStatus) -> Self {
        match status {
            NtStatus::OBJECT_NAME_NOT_FOUND => Self::NotFound,
            NtStatus::BUFFER_OVERFLOW => Self::WrongType,
            status => Self::Failed(status),
        }
    }
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
/// A key is opened, used and closed at `PASSIVE_LEVEL`, so it borrows the token
/// that it was opened with, and no other call asks for one. While a key is open
/// nothing that raises the level can be called:
///
/// ```compile_fail,E0502
/// use dmf::prelude::*;
/// use dmf::registry::{Access, Key};
///
/// fn refused(irql: &mut Irql<'_, Passive>, lock: &SpinLock<u32>) -> Result {
///     let key = Key::parameters(irql, Access::Read)?;
///     lock.lock(irql, |_, _| drop(key)); // closed at DISPATCH_LEVEL
///     Ok(())
/// }
/// ```
///
/// and it gets neither into [`with`](crate::sync::SpinLock::with) nor to another
/// thread:
///
/// ```compile_fail,E0277
/// use dmf::prelude::*;
/// use dmf::registry::{Access, Key};
///
/// fn refused(irql: &Irql<'_, Passive>, lock: &SpinLock<u32>) -> Result {
///     let key = Key::parameters(irql, Access::Read)?;
///     lock.with(|_| drop(key));
///     Ok(())
/// }
/// ```
///
/// So it is not for keeping: what a driver stores is the path, or the value.
///
/// C counterpart: [`WDFKEY`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/introduction-to-registry-keys-for-drivers
///
/// # Invariants
/// The handle is open and belongs to this value. As long as `'t` lasts the level
/// is `PASSIVE_LEVEL`, and the value stays in its thread.
pub struct Key<'t>(sys::WDFKEY, PhantomData<&'t Irql<'t, Passive>>);

type Open = unsafe fn(
    sys::WDFDRIVER,
    sys::ACCESS_MASK,
    sys::PWDF_OBJECT_ATTRIBUTES,
    *mut sys::WDFKEY,
) -> sys::NTSTATUS;

impl<'t> Key<'t> {
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
    pub fn parameters(irql: &'t Irql<'_, Passive>, access: Access) -> Result<Self> {
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
    pub fn persistent_state(irql: &'t Irql<'_, Passive>, access: Access) -> Result<Self> {
        Self::open_own(
            irql,
            access,
            sys::kmdf::WdfDriverOpenPersistentStateRegistryKey,
        )
    }

    fn open_own(_irql: &'t Irql<'_, Passive>, access: Access, open: Open) -> Result<Self> {
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
        Ok(Self(key, PhantomData))
    }

    /// Reads a `REG_DWORD` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryULong`][ms], which takes a value of fewer
    /// than four bytes for one of four.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryulong
    #[inline]
    pub fn query_u32(&self, name: UnicodeStr<'_>) -> Result<u32, QueryError> {
        self.query_number(name, ValueType::U32)
            .map(u32::from_le_bytes)
    }

    /// The bytes of a value that has this type and exactly `N` of them.
    #[inline]
    fn query_number<const N: usize>(
        &self,
        name: UnicodeStr<'_>,
        kind: ValueType,
    ) -> Result<[u8; N], QueryError> {
        let name = name.to_raw();
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        let (mut length, mut found) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the invariant; the arguments are
        // valid for the length of the call, the buffer for `N` bytes.
        let status = NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryQueryValue(
                self.0,
                &raw const name,
                u32::try_from(N).unwrap_or(0),
                bytes.as_mut_ptr().cast(),
                length.as_mut_ptr(),
                found.as_mut_ptr(),
            )
        });
        if !status.is_success() {
            return Err(QueryError::of(status));
        }
        // SAFETY: KMDF has written it, since it succeeded.
        let length = unsafe { length.assume_init() };
        // SAFETY: as above.
        let found = ValueType(unsafe { found.assume_init() });
        if found == kind && length as usize == N {
            // SAFETY: as above, all `N` bytes.
            Ok(unsafe { bytes.assume_init() })
        } else {
            Err(QueryError::WrongType)
        }
    }

    /// Writes a `REG_DWORD` value, and makes it if it is not there.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_ACCESS_DENIED` if the key is not open for writing.
    /// - `STATUS_OBJECT_NAME_INVALID` for a name of more than 16,383 UTF-16 units.
    /// - What KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryAssignULong`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignulong
    pub fn assign_u32(&self, name: UnicodeStr<'_>, value: u32) -> Result {
        let name = name.to_raw();
        // SAFETY: the invariant; the arguments are valid for
        // the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfRegistryAssignULong(self.0, &raw const name, value)
        })
        .into_result()
    }

    /// Opens the device's hardware key, for settings of this one device that
    /// outlast its driver.
    ///
    /// ```
    /// use dmf::prelude::*;
    /// use dmf::registry::{Access, Key};
    ///
    /// dmf::driver!(Meter);
    ///
    /// pub struct Meter;
    ///
    /// impl Device for Meter {
    ///     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
    ///         let settings = Key::device(add, Access::Read)?;
    ///         let state = Key::driver(add, Access::All)?;
    ///         Ok(Meter)
    ///     }
    /// }
    /// # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What KMDF returns.
    ///
    /// C counterpart: [`WdfDeviceOpenRegistryKey`][ms] with `PLUGPLAY_REGKEY_DEVICE`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceopenregistrykey
    pub fn device<O: Send + Sync + 'static>(
        add: &'t Modules<'_, O>,
        access: Access,
    ) -> Result<Self> {
        const PLUGPLAY_REGKEY_DEVICE: u32 = 1;
        Self::open_of_device(add, PLUGPLAY_REGKEY_DEVICE, access)
    }

    /// Opens the device's software key, for what this driver keeps of this one
    /// device. Another driver for the device gets another key.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What KMDF returns.
    ///
    /// C counterpart: [`WdfDeviceOpenRegistryKey`][ms] with `PLUGPLAY_REGKEY_DRIVER`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceopenregistrykey
    pub fn driver<O: Send + Sync + 'static>(
        add: &'t Modules<'_, O>,
        access: Access,
    ) -> Result<Self> {
        const PLUGPLAY_REGKEY_DRIVER: u32 = 2;
        Self::open_of_device(add, PLUGPLAY_REGKEY_DRIVER, access)
    }

    fn open_of_device<O: Send + Sync + 'static>(
        add: &'t Modules<'_, O>,
        kind: u32,
        access: Access,
    ) -> Result<Self> {
        let (_, device) = add.raw_pnp()?;
        let mut key = no_handle();
        // SAFETY: the device is valid while its modules are added, which is at
        // PASSIVE_LEVEL.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceOpenRegistryKey(
                device,
                kind,
                access.mask(),
                core::ptr::null_mut(),
                &raw mut key,
            )
        })
        .into_result()?;
        // INVARIANT: just opened.
        Ok(Self(key, PhantomData))
    }

    /// Opens a key below this one. `name` may be a path.
    ///
    /// ```
    /// # use dmf::prelude::*;
    /// # dmf::driver!(Meter);
    /// # pub struct Meter;
    /// # impl Device for Meter {
    /// #     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> { Ok(Meter) }
    /// #     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result { ports(cx.irql()) }
    /// # }
    /// use dmf::registry::{Access, Key, Lifetime};
    /// use dmf::unicode_string;
    ///
    /// fn ports(irql: &Irql<'_, Passive>) -> Result {
    ///     let parameters = Key::parameters(irql, Access::All)?;
    ///     let name = unicode_string!("Ports");
    ///     parameters.create(name, Access::All, Lifetime::Volatile)?;
    ///     parameters.open(name, Access::All)?.delete()
    /// }
    /// # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_OBJECT_NAME_NOT_FOUND` if there is none.
    /// - `STATUS_INVALID_PARAMETER` for a name of more than 255 UTF-16 units.
    /// - `STATUS_OBJECT_PATH_SYNTAX_BAD` for a path that starts with a backslash.
    /// - `STATUS_OBJECT_NAME_INVALID` for a name with a NUL in it.
    /// - What KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryOpenKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryopenkey
    pub fn open(&self, name: UnicodeStr<'_>, access: Access) -> Result<Self> {
        let name = name.to_raw();
        let mut key = no_handle();
        // SAFETY: the invariant; the arguments are valid for
        // the length of the call.
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
        Ok(Self(key, PhantomData))
    }

    /// Opens a key below this one, and makes it if it is not there. This key
    /// must be open for writing.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_ACCESS_DENIED` if this key is not open for writing.
    /// - `STATUS_CHILD_MUST_BE_VOLATILE` for a persistent key below a volatile one.
    /// - Those of [`open`](Self::open) for a bad name, and what KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryCreateKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistrycreatekey
    pub fn create(&self, name: UnicodeStr<'_>, access: Access, lifetime: Lifetime) -> Result<Self> {
        let name = name.to_raw();
        let mut key = no_handle();
        // SAFETY: the invariant; the arguments are valid for
        // the length of the call.
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
        Ok(Self(key, PhantomData))
    }

    /// Deletes the key, which must be open with [`Access::All`] and have no keys
    /// below it.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// In each case the key is closed, and still there.
    /// - `STATUS_ACCESS_DENIED` if it was not opened with [`Access::All`].
    /// - `STATUS_CANNOT_DELETE` if there are keys below it.
    ///
    /// C counterpart: [`WdfRegistryRemoveKey`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryremovekey
    pub fn delete(self) -> Result {
        // SAFETY: the invariant.
        let status = unsafe { sys::kmdf::WdfRegistryRemoveKey(self.0) };
        NtStatus::from_raw(status).into_result()?;
        // A success deleted the object, too.
        core::mem::forget(self);
        Ok(())
    }

    /// The names of the keys directly below this one.
    ///
    /// The key must be open for reading. If keys come or go meanwhile, some may
    /// be left out or listed twice.
    ///
    /// ```
    /// # use dmf::prelude::*;
    /// # dmf::driver!(Meter);
    /// # pub struct Meter;
    /// # impl Device for Meter {
    /// #     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> { Ok(Meter) }
    /// #     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result { list(cx.irql()) }
    /// # }
    /// use dmf::registry::{Access, Key};
    ///
    /// fn list(irql: &Irql<'_, Passive>) -> Result {
    ///     let key = Key::parameters(irql, Access::All)?;
    ///     key.assign_u32(dmf::unicode_string!("Gain"), 3)?;
    ///     for name in key.subkeys() {
    ///         dmf::println!("key {}", name?);
    ///     }
    ///     for value in key.values() {
    ///         let (name, kind) = value?;
    ///         dmf::println!("value {name}, {kind:?}"); // value Gain, ValueType(4)
    ///     }
    ///     Ok(())
    /// }
    /// # ntsim::run_driver(Meter::DRIVER_ENTRY, |machine, _| {
    /// #     let printed = format!("{:?}", machine.trace());
    /// #     assert!(printed.contains("value Gain, ValueType(4)"));
    /// # });
    /// ```
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Each item can be one, and is then the last: `STATUS_INSUFFICIENT_RESOURCES`,
    /// `STATUS_KEY_DELETED`, and what `ZwEnumerateKey` returns.
    ///
    /// C counterpart: [`ZwEnumerateKey`][ms] on [`WdfRegistryWdmGetHandle`][handle].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwenumeratekey
    /// [handle]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistrywdmgethandle
    pub fn subkeys(&self) -> Subkeys<'_> {
        Subkeys(Entries::new(self))
    }

    /// The names and types of the values of this key.
    ///
    /// What [`subkeys`](Self::subkeys) says is true here too.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// Each item can be one, and is then the last: `STATUS_INSUFFICIENT_RESOURCES`,
    /// `STATUS_KEY_DELETED`, and what `ZwEnumerateValueKey` returns.
    ///
    /// C counterpart: [`ZwEnumerateValueKey`][ms] on `WdfRegistryWdmGetHandle`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwenumeratevaluekey
    pub fn values(&self) -> Values<'_> {
        Values(Entries::new(self))
    }

    /// Deletes a value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// - `STATUS_OBJECT_NAME_NOT_FOUND` if there is none.
    /// - `STATUS_ACCESS_DENIED` if the key is not open for writing.
    ///
    /// C counterpart: [`WdfRegistryRemoveValue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryremovevalue
    pub fn delete_value(&self, name: UnicodeStr<'_>) -> Result {
        let name = name.to_raw();
        // SAFETY: the invariant; the name is valid
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
    pub fn query(&self, name: UnicodeStr<'_>) -> Result<(ValueType, Vec<u8>), QueryError> {
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
            // SAFETY: the invariant; the arguments
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
    /// C counterpart: [`WdfRegistryQueryValue`][ms] with `REG_QWORD`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryvalue
    pub fn query_u64(&self, name: UnicodeStr<'_>) -> Result<u64, QueryError> {
        self.query_number(name, ValueType::U64)
            .map(u64::from_le_bytes)
    }

    /// Reads a `REG_BINARY` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// See [`QueryError`].
    ///
    /// C counterpart: [`WdfRegistryQueryValue`][ms] with `REG_BINARY`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryqueryvalue
    pub fn query_binary(&self, name: UnicodeStr<'_>) -> Result<Vec<u8>, QueryError> {
        self.query_typed(name, &[ValueType::BINARY])
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
    pub fn query_string(&self, name: UnicodeStr<'_>) -> Result<Vec<u16>, QueryError> {
        let kinds = [ValueType::STRING, ValueType::EXPAND_STRING];
        let bytes = self.query_typed(name, &kinds)?;
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
    pub fn query_strings(&self, name: UnicodeStr<'_>) -> Result<Strings, QueryError> {
        let bytes = self.query_typed(name, &[ValueType::STRINGS])?;
        to_units(&bytes).map(Strings).map_err(QueryError::Failed)
    }

    fn query_typed(
        &self,
        name: UnicodeStr<'_>,
        kinds: &[ValueType],
    ) -> Result<Vec<u8>, QueryError> {
        let (kind, bytes) = self.query(name)?;
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
    /// - `STATUS_ACCESS_DENIED` if the key is not open for writing.
    /// - `STATUS_OBJECT_NAME_INVALID` for a name of more than 16,383 UTF-16 units.
    /// - `STATUS_INVALID_PARAMETER` for more bytes than a `u32` counts.
    /// - What KMDF returns.
    ///
    /// C counterpart: [`WdfRegistryAssignValue`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignvalue
    pub fn assign(&self, name: UnicodeStr<'_>, kind: ValueType, bytes: &[u8]) -> Result {
        let name = name.to_raw();
        let length = u32::try_from(bytes.len()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        // SAFETY: the invariant; the arguments are
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
    ///
    /// C counterpart: [`WdfRegistryAssignValue`][ms] with `REG_QWORD`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignvalue
    pub fn assign_u64(&self, name: UnicodeStr<'_>, value: u64) -> Result {
        self.assign(name, ValueType::U64, &value.to_le_bytes())
    }

    /// Writes a `REG_BINARY` value.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign`](Self::assign).
    ///
    /// C counterpart: [`WdfRegistryAssignValue`][ms] with `REG_BINARY`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignvalue
    pub fn assign_binary(&self, name: UnicodeStr<'_>, value: &[u8]) -> Result {
        self.assign(name, ValueType::BINARY, value)
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
    pub fn assign_string(&self, name: UnicodeStr<'_>, value: UnicodeStr<'_>) -> Result {
        self.assign(name, ValueType::STRING, &to_bytes(&[value], &[])?)
    }

    /// Writes a `REG_EXPAND_SZ` value, with its final NUL.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// As [`assign_string`](Self::assign_string).
    ///
    /// C counterpart: [`WdfRegistryAssignValue`][ms] with `REG_EXPAND_SZ`.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryassignvalue
    pub fn assign_expand_string(&self, name: UnicodeStr<'_>, value: UnicodeStr<'_>) -> Result {
        let bytes = to_bytes(&[value], &[])?;
        self.assign(name, ValueType::EXPAND_STRING, &bytes)
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
    pub fn assign_strings(&self, name: UnicodeStr<'_>, values: &[UnicodeStr<'_>]) -> Result {
        if values
            .iter()
            .any(|value| value.is_empty() || value.units().contains(&0))
        {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let end: &[u16] = if values.is_empty() { &[0, 0] } else { &[0] };
        self.assign(name, ValueType::STRINGS, &to_bytes(values, end)?)
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
    /// The handle is open, and nobody else closes it. As long as `'t` lasts the
    /// level is `PASSIVE_LEVEL`.
    #[must_use]
    pub const unsafe fn from_raw(key: sys::WDFKEY) -> Self {
        // INVARIANT: the caller's promise.
        Self(key, PhantomData)
    }
}

/// The strings of a `REG_MULTI_SZ` value.
///
/// C counterpart: the collection of [`WdfRegistryQueryMultiString`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfregistry/nf-wdfregistry-wdfregistryquerymultistring
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

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: the invariant; once.
        unsafe { sys::kmdf::WdfRegistryClose(self.0) };
    }
}

impl fmt::Debug for Key<'_> {
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
