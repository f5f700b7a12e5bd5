// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Guid`] and [`DeviceInterface`]: how programs find the device.
//!
//! ```
//! use dmf::wdf::Guid;
//!
//! const CLASS: Guid = Guid::parse("2e34d650-5819-42ca-84d8-b0f2b1dd14a5");
//! assert_eq!(format!("{CLASS}"), "{2e34d650-5819-42ca-84d8-b0f2b1dd14a5}");
//! ```
//!
//! A literal that is not a GUID does not compile:
//!
//! ```compile_fail,E0080
//! const CLASS: dmf::wdf::Guid = dmf::wdf::Guid::parse("2e34d650-5819-42ca-84d8");
//! ```
//!
//! See [Using device interfaces][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/using-device-interfaces

use core::fmt;
use core::ptr;

use super::collection::WdfString;
use crate::irql::{Irql, Passive};
use crate::module::Modules;
use crate::module::node::{self, Reference};
use crate::status::{NtStatus, Result};
use crate::string::UnicodeStr;
use crate::sys;

/// A globally unique identifier.
///
/// C counterpart: [`GUID`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/kernel/using-guids-in-drivers
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guid {
    data1: u32,
    data2: u16,
    data3: u16,
    data4: [u8; 8],
}

impl Guid {
    /// The identifier that `text` spells, with braces or without.
    ///
    /// # Panics
    /// If it is none; in a constant that is a compile error.
    #[must_use]
    #[allow(clippy::many_single_char_names, reason = "bytes in order")]
    pub const fn parse(text: &str) -> Self {
        let bytes = text.as_bytes();
        let start = match bytes.len() {
            36 => 0,
            38 => {
                assert!(
                    bytes[0] == b'{' && bytes[37] == b'}',
                    "a GUID's braces are {{ and }}"
                );
                1
            }
            _ => panic!("a GUID is 8-4-4-4-12 hexadecimal digits"),
        };
        let mut digits = [0_u8; 32];
        let mut at = 0;
        let mut count = 0;
        while at < 36 {
            let byte = bytes[start + at];
            if at == 8 || at == 13 || at == 18 || at == 23 {
                assert!(byte == b'-', "a GUID is 8-4-4-4-12 hexadecimal digits");
            } else {
                digits[count] = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'f' => byte - b'a' + 10,
                    b'A'..=b'F' => byte - b'A' + 10,
                    _ => panic!("a GUID is 8-4-4-4-12 hexadecimal digits"),
                };
                count += 1;
            }
            at += 1;
        }
        let mut octets = [0_u8; 16];
        let mut at = 0;
        while at < 16 {
            octets[at] = digits[2 * at] << 4 | digits[2 * at + 1];
            at += 1;
        }
        let [a, b, c, d, tail @ ..] = octets;
        let [e, f, g, h, data4 @ ..] = tail;
        Self {
            data1: u32::from_be_bytes([a, b, c, d]),
            data2: u16::from_be_bytes([e, f]),
            data3: u16::from_be_bytes([g, h]),
            data4,
        }
    }

    /// The kernel's view.
    #[must_use]
    pub const fn to_raw(self) -> sys::GUID {
        sys::GUID {
            Data1: self.data1,
            Data2: self.data2,
            Data3: self.data3,
            Data4: self.data4,
        }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, rest @ ..] = &self.data4;
        write!(
            f,
            "{{{:08x}-{:04x}-{:04x}-{a:02x}{b:02x}-",
            self.data1, self.data2, self.data3
        )?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("}")
    }
}

/// An interface of the device. KMDF enables it when the device has started, and
/// disables it when it is removed.
///
/// It may be dropped; the interface stays.
///
/// C counterpart: what [`WdfDeviceCreateDeviceInterface`][ms] registers.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreatedeviceinterface
///
/// # Invariants
/// `device` is valid as long as the node of `owner` is alive.
pub struct DeviceInterface {
    owner: Reference,
    device: sys::WDFDEVICE,
    class: Guid,
}

// SAFETY: KMDF synchronizes what it does with interfaces.
unsafe impl Send for DeviceInterface {}
// SAFETY: as above.
unsafe impl Sync for DeviceInterface {}

impl DeviceInterface {
    /// Lets programs find the interface, or hides it. Handles that are open
    /// stay so. Before the device has started it says what happens then.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is gone.
    ///
    /// C counterpart: [`WdfDeviceSetDeviceInterfaceState`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetdeviceinterfacestate
    pub fn set_state(&self, _irql: &Irql<'_, Passive>, state: InterfaceState) -> Result {
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        let class = self.class.to_raw();
        // SAFETY: the invariant, and the class is valid for the length of the call.
        unsafe {
            sys::kmdf::WdfDeviceSetDeviceInterfaceState(
                self.device,
                &raw const class,
                ptr::null(),
                u8::from(state == InterfaceState::Enabled),
            );
        };
        Ok(())
    }

    /// The path by which programs open the interface.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`
    ///
    /// # Errors
    /// `STATUS_INVALID_DEVICE_STATE` if the owner has not been made yet, or is
    /// gone; `STATUS_INSUFFICIENT_RESOURCES`.
    ///
    /// C counterpart: [`WdfDeviceRetrieveDeviceInterfaceString`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceretrievedeviceinterfacestring
    pub fn path(&self, irql: &Irql<'_, Passive>) -> Result<WdfString> {
        let string = WdfString::new(irql, UnicodeStr::literal(&[]))?;
        // SAFETY: the reference keeps the memory valid.
        let _alive = unsafe { node::enter_alive_erased(self.owner.node()) }?;
        let class = self.class.to_raw();
        // SAFETY: the invariant; the string and the class are valid for the
        // length of the call; the token proves the level.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceRetrieveDeviceInterfaceString(
                self.device,
                &raw const class,
                ptr::null(),
                string.as_raw(),
            )
        })
        .into_result()?;
        Ok(string)
    }
}

impl fmt::Debug for DeviceInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceInterface")
            .field("class", &self.class)
            .finish_non_exhaustive()
    }
}

/// Whether programs find an interface.
///
/// C counterpart: the `BOOLEAN` of [`WdfDeviceSetDeviceInterfaceState`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetdeviceinterfacestate
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceState {
    /// They do.
    Enabled,
    /// They do not.
    Disabled,
}

impl<O: Send + Sync + 'static> Modules<'_, O> {
    /// Registers an interface of this class for the device.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What [`WdfDeviceCreateDeviceInterface`][ms] returns:
    /// `STATUS_INVALID_DEVICE_REQUEST` for a control device, which has none.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreatedeviceinterface
    pub fn device_interface(&mut self, class: Guid) -> Result<DeviceInterface> {
        let (owner, device) = self.raw_pnp()?;
        let raw = class.to_raw();
        // SAFETY: this is device-add for this device, and the class is valid
        // for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceCreateDeviceInterface(device, &raw const raw, ptr::null())
        })
        .into_result()?;
        // INVARIANT: a node is destroyed before its device is.
        Ok(DeviceInterface {
            // SAFETY: the node is valid.
            owner: unsafe { Reference::to(owner) },
            device,
            class,
        })
    }

    /// Gives the device a name, `\DosDevices\...`, by which programs open it as
    /// `\\.\...`.
    ///
    /// A device has one link at most.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`: where modules are added.
    ///
    /// # Errors
    /// What [`WdfDeviceCreateSymbolicLink`][ms] returns:
    /// `STATUS_OBJECT_NAME_COLLISION` if the name is taken,
    /// `STATUS_INVALID_DEVICE_REQUEST` for an empty name and a second link,
    /// `STATUS_OBJECT_PATH_SYNTAX_BAD` and `STATUS_OBJECT_PATH_NOT_FOUND` for a
    /// name that is no path or in no directory.
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreatesymboliclink
    pub fn symbolic_link(&mut self, name: UnicodeStr<'_>) -> Result {
        let (_, device) = self.raw();
        let name = name.to_raw();
        // SAFETY: this is device-add for this device, and the name is valid
        // for the length of the call.
        NtStatus::from_raw(unsafe {
            sys::kmdf::WdfDeviceCreateSymbolicLink(device, &raw const name)
        })
        .into_result()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_laid_out_as_in_c() {
        let guid = Guid::parse("{78A1C341-4539-11d3-B88D-00C04FAD5171}").to_raw();
        assert_eq!(
            (guid.Data1, guid.Data2, guid.Data3),
            (0x78A1_C341, 0x4539, 0x11D3)
        );
        assert_eq!(guid.Data4, [0xB8, 0x8D, 0x00, 0xC0, 0x4F, 0xAD, 0x51, 0x71]);
    }
}
