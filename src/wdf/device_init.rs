// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`DeviceInit`]: what a driver says of a device before there is one.

use core::fmt;
use core::marker::PhantomData;

use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;

/// A device's type, by its number: `FILE_DEVICE_…`.
///
/// C counterpart: [`FILE_DEVICE_XXX`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/specifying-device-types
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceType(pub u32);

impl DeviceType {
    /// `FILE_DEVICE_UNKNOWN`, the default.
    pub const UNKNOWN: Self = Self(0x22);
}

/// Whether the device may be powered up and down from pageable code.
///
/// C counterpart: the choice of [`WdfDeviceInitSetPowerNotPageable`][ms] or
/// `WdfDeviceInitSetPowerPageable`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetpowernotpageable
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerPaging {
    /// Yes. The default.
    Pageable,
    /// No: the paging file may be behind it.
    NotPageable,
}

/// How reads and writes get at their callers' bytes.
///
/// C counterpart: [`WDF_DEVICE_IO_TYPE`][ms]. `WdfDeviceIoNeither` does not
/// exist here: it gives the driver addresses of a process that may not be the
/// current one.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/ne-wdfdevice-_wdf_device_io_type
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoType {
    /// Through a buffer of the kernel, which is copied in or out:
    /// [`Request::input`](super::Request::input) and
    /// [`Request::output`](super::Request::output). The default.
    #[default]
    Buffered,
    /// In the caller's own pages, which are locked and mapped:
    /// [`Request::direct_input`](super::Request::direct_input) and
    /// [`Request::direct_output`](super::Request::direct_output).
    Direct,
}

/// What a driver says of a device before there is one.
///
/// Each function takes the value and returns it; making the device takes it for
/// good, so nothing can be said too late:
///
/// ```compile_fail,E0382
/// use dmf::wdf::DeviceInit;
///
/// fn refused(init: DeviceInit<'_>, create: fn(DeviceInit<'_>)) {
///     create(init);
///     let _ = init.exclusive();
/// }
/// ```
///
/// ```no_run
/// use dmf::wdf::DeviceInit;
///
/// fn describe(init: DeviceInit<'_>) -> dmf::Result<DeviceInit<'_>> {
///     init.exclusive()
///         .name(dmf::unicode_string!(r"\Device\Meter"))
/// }
/// ```
///
/// # IRQL
/// `PASSIVE_LEVEL`: it exists during `EvtDriverDeviceAdd` only.
///
/// C counterpart: [`WDFDEVICE_INIT`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/wdfdevice_init
///
/// # Invariants
/// KMDF gave the pointer for `'a`, and no device was made of it yet.
#[must_use]
pub struct DeviceInit<'a> {
    raw: sys::PWDFDEVICE_INIT,
    io_type: IoType,
    callback: PhantomData<(&'a mut (), *mut ())>,
}

impl DeviceInit<'_> {
    /// Takes over what `EvtDriverDeviceAdd` was given.
    ///
    /// # Safety
    /// The pointer is that, no device was made of it, the callback lasts for
    /// the value's lifetime, and the level is `PASSIVE_LEVEL`.
    pub const unsafe fn from_raw(raw: sys::PWDFDEVICE_INIT) -> Self {
        // INVARIANT: the caller's promise.
        Self {
            raw,
            io_type: IoType::Buffered,
            callback: PhantomData,
        }
    }

    /// The pointer, for the one who makes the device of it.
    #[must_use]
    pub fn into_raw(self) -> sys::PWDFDEVICE_INIT {
        self.raw
    }

    /// The pointer, for calls that this crate does not have.
    #[must_use]
    pub const fn as_raw(&self) -> sys::PWDFDEVICE_INIT {
        self.raw
    }

    /// Says how reads and writes get at their callers' bytes.
    ///
    /// C counterpart: [`WdfDeviceInitSetIoType`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetiotype
    pub fn io_type(mut self, io_type: IoType) -> Self {
        use sys::_WDF_DEVICE_IO_TYPE as Raw;
        let raw = match io_type {
            IoType::Buffered => Raw::WdfDeviceIoBuffered,
            IoType::Direct => Raw::WdfDeviceIoDirect,
        };
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfDeviceInitSetIoType(self.raw, raw) };
        self.io_type = io_type;
        self
    }

    /// What [`io_type`](Self::io_type) said last.
    pub(crate) const fn chosen_io_type(&self) -> IoType {
        self.io_type
    }

    /// Sets the device's type.
    ///
    /// C counterpart: [`WdfDeviceInitSetDeviceType`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetdevicetype
    pub fn device_type(self, kind: DeviceType) -> Self {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfDeviceInitSetDeviceType(self.raw, kind.0) };
        self
    }

    /// Lets one handle at a time be open.
    ///
    /// C counterpart: [`WdfDeviceInitSetExclusive`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetexclusive
    pub fn exclusive(self) -> Self {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfDeviceInitSetExclusive(self.raw, 1) };
        self
    }

    /// Adds to the device's characteristics, `FILE_…`.
    ///
    /// C counterpart: [`WdfDeviceInitSetCharacteristics`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetcharacteristics
    pub fn characteristics(self, flags: u32) -> Self {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfDeviceInitSetCharacteristics(self.raw, flags, 1) };
        self
    }

    /// Says from what code the device is powered.
    ///
    /// C counterpart: [`WdfDeviceInitSetPowerNotPageable`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetpowernotpageable
    pub fn power(self, paging: PowerPaging) -> Self {
        match paging {
            // SAFETY: the invariant.
            PowerPaging::Pageable => unsafe {
                sys::kmdf::WdfDeviceInitSetPowerPageable(self.raw);
            },
            // SAFETY: the invariant.
            PowerPaging::NotPageable => unsafe {
                sys::kmdf::WdfDeviceInitSetPowerNotPageable(self.raw);
            },
        }
        self
    }

    /// Makes the driver a filter: requests that it does not handle go to the
    /// driver below, and it does not own the power policy.
    ///
    /// C counterpart: [`WdfFdoInitSetFilter`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdffdo/nf-wdffdo-wdffdoinitsetfilter
    pub fn filter(self) -> Self {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfFdoInitSetFilter(self.raw) };
        self
    }

    /// Names the device object. Without it a device is reached by its interfaces.
    ///
    /// # Errors
    /// `STATUS_INVALID_PARAMETER` for a name that is not an absolute path;
    /// `STATUS_INSUFFICIENT_RESOURCES`. The init is gone then: device-add is to fail.
    ///
    /// C counterpart: [`WdfDeviceInitAssignName`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitassignname
    pub fn name(self, name: UnicodeStr<'_>) -> Result<Self> {
        let name = name.to_raw();
        // SAFETY: the invariant; the name is valid for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceInitAssignName(self.raw, &raw const name)
        })
        .into_result()?;
        Ok(self)
    }
}

impl fmt::Debug for DeviceInit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceInit").finish_non_exhaustive()
    }
}
