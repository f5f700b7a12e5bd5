// SPDX-License-Identifier: MIT OR Apache-2.0

//! [`Resources`]: what PnP assigned to the device.

use core::fmt;
use core::marker::PhantomData;

use crate::sys;

/// The hardware resources of a device, in the order in which its bus reported
/// them.
///
/// Each comes twice: *raw*, as the bus sees it, and *translated*, as the
/// processor does. Map and connect what is translated.
///
/// ```
/// use dmf::prelude::*;
/// use dmf::wdf::Resource;
///
/// dmf::driver!(Card);
///
/// struct Card;
///
/// impl Device for Card {
/// #     fn modules(_: &mut Modules<'_, Self>) -> Result<Self> { Ok(Card) }
///     fn prepare_hardware(&self, cx: &mut PrepareHardware<'_>) -> Result {
///         let registers = cx.assigned().iter().find_map(|assigned| match assigned.translated {
///             Resource::Memory { start, length, .. } => Some((start, length)),
///             _ => None,
///         });
///         assert_eq!(registers, Some((0xFEB0_0000, 0x1000)));
///         registers.map(|_| ()).ok_or(NtStatus::DEVICE_CONFIGURATION_ERROR)
///     }
/// }
/// # use ntsim::machine::{Hardware, Machine};
/// # let mut machine = Machine::default();
/// # let device = machine.add_driver("Card", Card::DRIVER_ENTRY).unwrap();
/// # machine.set_hardware(&device, Hardware::new().memory(0xFEB0_0000, 0x1000));
/// # machine.start_device(&device).unwrap();
/// # machine.remove_device(&device).unwrap();
/// ```
///
/// C counterpart: the two [`WDFCMRESLIST`][ms]s of `EvtDevicePrepareHardware`.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/wdf/raw-and-translated-resources
///
/// # Invariants
/// Both lists are valid for `'a`.
#[derive(Clone, Copy)]
pub struct Resources<'a> {
    raw: sys::WDFCMRESLIST,
    translated: sys::WDFCMRESLIST,
    callback: PhantomData<&'a ()>,
}

/// One resource as the bus and as the processor see it.
///
/// C counterpart: two [`CM_PARTIAL_RESOURCE_DESCRIPTOR`][ms] of one index.
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ns-wdm-_cm_partial_resource_descriptor
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// As the bus sees it.
    pub raw: Resource,
    /// As the processor sees it.
    pub translated: Resource,
}

/// A hardware resource.
///
/// C counterpart: [`CM_PARTIAL_RESOURCE_DESCRIPTOR`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/ns-wdm-_cm_partial_resource_descriptor
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resource {
    /// Device memory, in bytes.
    Memory {
        /// The first address.
        start: u64,
        /// How many bytes.
        length: u64,
        /// `CM_RESOURCE_MEMORY_…`
        flags: u16,
    },
    /// I/O ports.
    Port {
        /// The first port.
        start: u64,
        /// How many.
        length: u64,
        /// `CM_RESOURCE_PORT_…`
        flags: u16,
    },
    /// An interrupt line.
    Interrupt {
        /// The raw level, or the translated IRQL.
        level: u16,
        /// The vector.
        vector: u32,
        /// The processors that it may interrupt.
        affinity: u64,
        /// `CM_RESOURCE_INTERRUPT_…`
        flags: u16,
    },
    /// A connection to a controller, such as GPIO or I2C, by its number.
    Connection {
        /// `CM_RESOURCE_CONNECTION_CLASS_…`
        class: u8,
        /// The type within the class.
        kind: u8,
        /// What identifies it to the resource hub.
        id: u64,
    },
    /// Another type, by its number: `CmResourceType…`.
    Other(u8),
}

impl<'a> Resources<'a> {
    /// The resources of two lists.
    ///
    /// # Safety
    /// The lists are the two that KMDF gave to a callback that lasts for `'a`.
    #[must_use]
    pub const unsafe fn from_raw(raw: sys::WDFCMRESLIST, translated: sys::WDFCMRESLIST) -> Self {
        // INVARIANT: the caller's promise.
        Self {
            raw,
            translated,
            callback: PhantomData,
        }
    }

    /// How many there are.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`
    ///
    /// C counterpart: [`WdfCmResourceListGetCount`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfresource/nf-wdfresource-wdfcmresourcelistgetcount
    #[must_use]
    pub fn len(&self) -> u32 {
        // SAFETY: the invariant.
        unsafe { sys::kmdf::WdfCmResourceListGetCount(self.translated) }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The resource at `index`, or `None` beyond the end.
    ///
    /// C counterpart: [`WdfCmResourceListGetDescriptor`][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfresource/nf-wdfresource-wdfcmresourcelistgetdescriptor
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Assigned> {
        // SAFETY: the invariant.
        let raw = unsafe { read(self.raw, index) }?;
        // SAFETY: the invariant.
        let translated = unsafe { read(self.translated, index) }?;
        Some(Assigned { raw, translated })
    }

    /// KMDF's two descriptors of the resource at `index`; null beyond the end.
    pub(super) fn descriptors(
        &self,
        index: u32,
    ) -> (
        sys::PCM_PARTIAL_RESOURCE_DESCRIPTOR,
        sys::PCM_PARTIAL_RESOURCE_DESCRIPTOR,
    ) {
        // SAFETY: the invariant.
        let raw = unsafe { sys::kmdf::WdfCmResourceListGetDescriptor(self.raw, index) };
        // SAFETY: the invariant.
        let translated =
            unsafe { sys::kmdf::WdfCmResourceListGetDescriptor(self.translated, index) };
        (raw, translated)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Assigned> + use<'_, 'a> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

impl crate::device::PrepareHardware<'_> {
    /// The device's hardware resources, one after the other.
    #[must_use]
    pub fn assigned(&self) -> Resources<'_> {
        let lists = self.resources();
        // SAFETY: KMDF gave the lists to the callback, which outlives this context.
        unsafe { Resources::from_raw(lists.raw(), lists.translated()) }
    }
}

impl fmt::Debug for Resources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// # Safety
/// The list is valid.
unsafe fn read(list: sys::WDFCMRESLIST, index: u32) -> Option<Resource> {
    // SAFETY: the caller's promise.
    let at = unsafe { sys::kmdf::WdfCmResourceListGetDescriptor(list, index) };
    if at.is_null() {
        return None;
    }
    // The structure is packed: its fields are read as bytes.
    // SAFETY: KMDF's pointer is to a descriptor of 20 bytes, valid as long as the list.
    let bytes = unsafe { at.cast::<[u8; 20]>().read() };
    Some(Resource::from_bytes(&bytes))
}

impl Resource {
    /// Type, share disposition, flags, then a union of 16 bytes.
    fn from_bytes(bytes: &[u8; 20]) -> Self {
        let long = |at: usize| {
            u64::from_le_bytes([
                bytes[at],
                bytes[at + 1],
                bytes[at + 2],
                bytes[at + 3],
                bytes[at + 4],
                bytes[at + 5],
                bytes[at + 6],
                bytes[at + 7],
            ])
        };
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let flags = u16::from_le_bytes([bytes[2], bytes[3]]);
        match bytes[0] {
            PORT => Self::Port {
                start: long(4),
                length: word(12).into(),
                flags,
            },
            INTERRUPT => Self::Interrupt {
                level: u16::from_le_bytes([bytes[4], bytes[5]]),
                vector: word(8),
                affinity: long(12),
                flags,
            },
            MEMORY => Self::Memory {
                start: long(4),
                length: word(12).into(),
                flags,
            },
            // Large memory counts in units of 256 bytes, 64 KiB or 4 GiB.
            MEMORY_LARGE => {
                let shift = match flags & 0x0E00 {
                    0x0200 => 8,
                    0x0400 => 16,
                    0x0800 => 32,
                    _ => 0,
                };
                Self::Memory {
                    start: long(4),
                    length: u64::from(word(12)) << shift,
                    flags,
                }
            }
            CONNECTION => Self::Connection {
                class: bytes[4],
                kind: bytes[5],
                id: u64::from(word(8)) | u64::from(word(12)) << 32,
            },
            other => Self::Other(other),
        }
    }
}

/// `CmResourceTypePort` and its siblings.
const PORT: u8 = 1;
const INTERRUPT: u8 = 2;
const MEMORY: u8 = 3;
const MEMORY_LARGE: u8 = 7;
const CONNECTION: u8 = 132;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_counts_in_its_units() {
        let mut bytes = [0; 20];
        bytes[0] = MEMORY_LARGE;
        bytes[2..4].copy_from_slice(&0x0400_u16.to_le_bytes());
        bytes[12] = 3;
        assert_eq!(
            Resource::from_bytes(&bytes),
            Resource::Memory {
                start: 0,
                length: 3 << 16,
                flags: 0x0400
            }
        );
    }

    #[test]
    fn a_type_that_is_not_known_keeps_its_number() {
        assert_eq!(Resource::from_bytes(&[0x81; 20]), Resource::Other(0x81));
    }
}
