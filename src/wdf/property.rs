// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Property`]: what the INF and the bus say of a device.
//!
//! ```
//! use dmf::prelude::*;
//! use dmf::wdf::Property;
//!
//! # dmf::driver!(Meter);
//! struct Meter;
//!
//! impl Device for Meter {
//!     fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
//!         let class = add.property(Property::CLASS)?;
//!         assert!(class.as_str().eq_str("Sample"));
//!         let ids = add.property(Property::HARDWARE_IDS)?;
//!         assert!(ids.iter().any(|id| id.eq_str(r"Root\Example")));
//!         assert_eq!(
//!             add.property(Property::FRIENDLY_NAME).err(),
//!             Some(NtStatus::OBJECT_NAME_NOT_FOUND)
//!         );
//!         Ok(Meter)
//!     }
//! }
//! # ntsim::run_driver(Meter::DRIVER_ENTRY, |_, _| {});
//! ```
//!
//! See [`WdfDeviceQueryProperty`][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicequeryproperty

use core::marker::PhantomData;

use crate::module::Modules;
use crate::pool::Vec;
use crate::status::{NtStatus, Result};
use crate::string::{UnicodeStr, UnicodeString};
use crate::sys;

/// A property of a device whose value is a `T`.
///
/// C counterpart: [`DEVICE_REGISTRY_PROPERTY`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ne-wdm-device_registry_property
#[derive(Debug)]
pub struct Property<T>(sys::DEVICE_REGISTRY_PROPERTY::Type, PhantomData<fn() -> T>);

macro_rules! properties {
    ($($ty:ty { $($(#[$meta:meta])* $name:ident = $raw:ident;)* })*) => {$(
        impl Property<$ty> {
            $($(#[$meta])*
            pub const $name: Self =
                Self(sys::DEVICE_REGISTRY_PROPERTY::$raw, PhantomData);)*
        }
    )*};
}

properties! {
    UnicodeString {
        /// What the INF calls the device.
        DESCRIPTION = DevicePropertyDeviceDescription;
        /// The name of its setup class.
        CLASS = DevicePropertyClassName;
        /// The GUID of its setup class, in braces.
        CLASS_GUID = DevicePropertyClassGuid;
        /// Its software key, below `Control\Class`.
        DRIVER_KEY = DevicePropertyDriverKeyName;
        /// Who made it.
        MANUFACTURER = DevicePropertyManufacturer;
        /// What a user calls it.
        FRIENDLY_NAME = DevicePropertyFriendlyName;
        /// Where it is, for people.
        LOCATION = DevicePropertyLocationInformation;
        /// The name of the bus driver's device object.
        PHYSICAL_NAME = DevicePropertyPhysicalDeviceObjectName;
        /// What found it: `ROOT`, `PCI`, ...
        ENUMERATOR = DevicePropertyEnumeratorName;
    }
    Strings {
        /// Its hardware ids, the best first.
        HARDWARE_IDS = DevicePropertyHardwareID;
        /// Its compatible ids, the best first.
        COMPATIBLE_IDS = DevicePropertyCompatibleIDs;
    }
    u32 {
        /// The number of its bus.
        BUS_NUMBER = DevicePropertyBusNumber;
        /// Its address on the bus.
        ADDRESS = DevicePropertyAddress;
        /// Its slot, as printed on the machine.
        UI_NUMBER = DevicePropertyUINumber;
    }
}

/// Strings of a property, one after the other.
///
/// C counterpart: the `REG_MULTI_SZ` of [`WdfDeviceQueryProperty`][c].
///
/// [c]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicequeryproperty
#[derive(Debug)]
pub struct Strings(Vec<u16>);

impl Strings {
    /// The strings, in order.
    pub fn iter(&self) -> impl Iterator<Item = UnicodeStr<'_>> {
        self.0
            .split(|unit| *unit == 0)
            .take_while(|text| !text.is_empty())
            .filter_map(|text| UnicodeStr::new(text).ok())
    }
}

/// A type that the value of a [`Property`] can have. Not for use by hand.
///
/// No C counterpart: there each property's page names its type.
pub trait PropertyValue: Sized + sealed::Sealed {
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Result<Self>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for super::Strings {}
    impl Sealed for crate::string::UnicodeString {}
}

fn units(bytes: &[u8]) -> Result<Vec<u16>> {
    let mut units = Vec::new();
    for pair in bytes.chunks_exact(2) {
        units.push(u16::from_le_bytes([pair[0], pair[1]]))?;
    }
    Ok(units)
}

impl PropertyValue for u32 {
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.try_into();
        bytes
            .map(Self::from_le_bytes)
            .map_err(|_| NtStatus::OBJECT_TYPE_MISMATCH)
    }
}

impl PropertyValue for UnicodeString {
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let units = units(bytes)?;
        let end = units.iter().position(|unit| *unit == 0);
        Self::from_units(&units[..end.unwrap_or(units.len())])
    }
}

impl PropertyValue for Strings {
    fn from_bytes(bytes: &[u8]) -> Result<Self> {
        units(bytes).map(Self)
    }
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// Reads a property of the device.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND` if the device does not have it;
    /// `STATUS_OBJECT_TYPE_MISMATCH` if it is no `T`;
    /// `STATUS_INVALID_DEVICE_REQUEST` for a control device;
    /// `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfDeviceQueryProperty`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicequeryproperty
    #[expect(
        clippy::needless_pass_by_value,
        reason = "properties are constants, and mostly named where they are used"
    )]
    pub fn property<T: PropertyValue>(&self, property: Property<T>) -> Result<T> {
        let (_, device) = self.raw_pnp()?;
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            let mut needed = 0;
            let length = u32::try_from(bytes.len()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
            // SAFETY: the device is valid while its modules are added, which is
            // at PASSIVE_LEVEL; the buffer has that length.
            let status = NtStatus::from_raw(unsafe {
                sys::kmdf::WdfDeviceQueryProperty(
                    device,
                    property.0,
                    length,
                    bytes.as_mut_ptr().cast(),
                    &raw mut needed,
                )
            });
            let needed = usize::try_from(needed).map_err(|_| NtStatus::INVALID_PARAMETER)?;
            if status != NtStatus::BUFFER_TOO_SMALL {
                status.into_result()?;
                return T::from_bytes(bytes.get(..needed).unwrap_or(&bytes));
            }
            // It may have grown meanwhile; then it is asked again.
            if needed <= bytes.len() {
                return Err(status);
            }
            while bytes.len() < needed {
                bytes.push(0)?;
            }
        }
    }
}
