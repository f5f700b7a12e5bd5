// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Driver`]: what the driver can ask of its own framework object.

use super::collection::WdfString;
use super::object::KmdfObject;
use crate::irql::{Irql, Passive};
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;

/// The driver's framework object, which is there as long as the driver's code.
///
/// ```
/// # use dmf::prelude::*;
/// # dmf::driver!(Example);
/// # struct Example;
/// # impl Device for Example {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Example) }
/// #     fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
/// # let irql = cx.irql();
/// use dmf::wdf::Driver;
///
/// dmf::println!("on KMDF {}", Driver::get().version(irql)?.text(irql));
/// assert!(Driver::get().is_version_available(irql, 1, 33));
/// # Ok(())
/// #     }
/// # }
/// # ntsim::run_driver(Example::DRIVER_ENTRY, |_, _| ());
/// ```
///
/// Its keys are [`Key::parameters`](crate::registry::Key::parameters) and
/// [`Key::persistent_state`](crate::registry::Key::persistent_state).
///
/// C counterpart: [`WDFDRIVER`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-a-framework-driver-object
///
/// # Invariants
/// The handle is valid.
#[derive(Clone, Copy, Debug)]
pub struct Driver(sys::WDFDRIVER);

impl Driver {
    /// The driver that this code is part of.
    #[must_use]
    pub fn get() -> Self {
        // SAFETY: KMDF set the globals before it called DriverEntry.
        let globals = unsafe { sys::WdfDriverGlobals };
        // SAFETY: as above. INVARIANT: callbacks come after the driver object was made.
        Self(unsafe { (*globals).Driver })
    }

    /// The driver of this handle, which stays the framework's.
    ///
    /// # Safety
    /// The handle is that of the driver which this code is part of.
    #[must_use]
    pub const unsafe fn from_raw(driver: sys::WDFDRIVER) -> Self {
        // INVARIANT: the caller's promise: the object is there as long as the code.
        Self(driver)
    }

    /// The handle, for calls that this crate does not have.
    #[must_use]
    pub const fn as_raw(self) -> sys::WDFDRIVER {
        self.0
    }

    /// KMDF's name and version as text, for people.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES`
    ///
    /// C counterpart: [`WdfDriverRetrieveVersionString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nf-wdfdriver-wdfdriverretrieveversionstring
    pub fn version(self, irql: &Irql<'_, Passive>) -> Result<WdfString> {
        let string = WdfString::new(irql, UnicodeStr::literal(&[]))?;
        // SAFETY: both are valid, and the token proves the level.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDriverRetrieveVersionString(self.0, string.as_raw())
        })
        .into_result()?;
        Ok(string)
    }

    /// Whether KMDF is at least this version.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// C counterpart: [`WdfDriverIsVersionAvailable`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/nf-wdfdriver-wdfdriverisversionavailable
    #[must_use]
    pub fn is_version_available(self, _irql: &Irql<'_, Passive>, major: u32, minor: u32) -> bool {
        let mut parameters = sys::WDF_DRIVER_VERSION_AVAILABLE_PARAMS {
            Size: sys::size_field::<sys::WDF_DRIVER_VERSION_AVAILABLE_PARAMS>(),
            MajorVersion: major,
            MinorVersion: minor,
        };
        // SAFETY: the driver is valid, the token proves the level, and the
        // structure is valid for the length of the call.
        unsafe { sys::kmdf::WdfDriverIsVersionAvailable(self.0, &raw mut parameters) != 0 }
    }
}

// SAFETY: the driver object is there as long as the driver's code.
unsafe impl KmdfObject for Driver {
    fn object(&self) -> sys::WDFOBJECT {
        self.0.cast()
    }
}
