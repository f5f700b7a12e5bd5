// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a simulated device is made of: the resources that PnP assigns to it,
//! and `WDFCMRESLIST`, by which its driver learns of them:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/raw-and-translated-resources>
//!
//! On this machine raw and translated addresses are the same; an interrupt's raw
//! level and vector are those of its line, the translated ones its IRQL and the
//! vector in the processor's table.

use crate::access::poke;
use crate::kernel::Kernel;
use crate::trap::kernel;

use super::Globals;
use super::object::{self, Data, Handle};

/// The resources of one device, as a test describes them.
///
/// ```
/// use ntsim::machine::Hardware;
///
/// let hardware = Hardware::new().memory(0xFEB0_0000, 0x1000).port(0x3F8, 8).interrupt();
/// assert_eq!(hardware.interrupt_count(), 1);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware(Vec<Resource>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Memory {
        start: u64,
        length: u32,
    },
    Port {
        start: u64,
        length: u32,
    },
    Interrupt {
        /// The line's number among those of the device.
        line: u32,
        /// The number among the device's messages, for a message-signaled one.
        message: Option<u32>,
    },
}

impl Hardware {
    /// No resources.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a range of device memory.
    #[must_use]
    pub fn memory(mut self, start: u64, length: u32) -> Self {
        self.0.push(Resource::Memory { start, length });
        self
    }

    /// Adds a range of I/O ports.
    #[must_use]
    pub fn port(mut self, start: u64, length: u32) -> Self {
        self.0.push(Resource::Port { start, length });
        self
    }

    /// Adds a level-triggered interrupt line. The first one is number 0.
    #[must_use]
    pub fn interrupt(self) -> Self {
        self.add_interrupt(None)
    }

    /// Adds a message-signaled interrupt, as MSI-X has them: each message is a
    /// line of its own. The first message is number 0.
    #[must_use]
    pub fn message_interrupt(self) -> Self {
        let messages = self.0.iter().filter(|resource| {
            matches!(
                resource,
                Resource::Interrupt {
                    message: Some(_),
                    ..
                }
            )
        });
        let message = u32::try_from(messages.count()).unwrap_or(u32::MAX);
        self.add_interrupt(Some(message))
    }

    fn add_interrupt(mut self, message: Option<u32>) -> Self {
        let line = u32::try_from(self.interrupt_count()).unwrap_or(u32::MAX);
        self.0.push(Resource::Interrupt { line, message });
        self
    }

    /// The number of the message that comes in on a line, if it is no wire.
    pub(crate) fn message_of(&self, wanted: u32) -> Option<u32> {
        self.0.iter().find_map(|resource| match resource {
            Resource::Interrupt { line, message } if *line == wanted => *message,
            _ => None,
        })
    }

    /// How many interrupt lines there are.
    #[must_use]
    pub fn interrupt_count(&self) -> usize {
        self.0
            .iter()
            .filter(|resource| matches!(resource, Resource::Interrupt { .. }))
            .count()
    }
}

/// The IRQL of an interrupt line: device levels begin at 3.
pub(crate) fn irql_of_line(line: u32) -> u8 {
    u8::try_from(5 + line.min(6)).unwrap_or(11)
}

/// The vector of an interrupt line.
pub(crate) fn vector_of_line(line: u32) -> u32 {
    0x50 + line * 0x10
}

/// `CM_PARTIAL_RESOURCE_DESCRIPTOR`, packed to four bytes.
pub(crate) type Descriptor = [u8; 20];

const TYPE_PORT: u8 = 1;
const TYPE_INTERRUPT: u8 = 2;
const TYPE_MEMORY: u8 = 3;

fn descriptor(resource: Resource, translated: bool) -> Descriptor {
    // Type, ShareDisposition, Flags, then the union at offset 4.
    let range = |kind: u8, flags: u16, start: u64, length: u32| {
        let mut bytes = [0; 20];
        bytes[0] = kind;
        bytes[1] = 1; // CmResourceShareDeviceExclusive
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[4..12].copy_from_slice(&start.to_le_bytes());
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    match resource {
        Resource::Memory { start, length } => range(TYPE_MEMORY, 0, start, length),
        // CM_RESOURCE_PORT_IO
        Resource::Port { start, length } => range(TYPE_PORT, 1, start, length),
        Resource::Interrupt { line, message } => {
            let (level, vector) = if translated {
                (u16::from(irql_of_line(line)), vector_of_line(line))
            } else {
                let line = 16 + line;
                (u16::try_from(line).unwrap_or(0), line)
            };
            let mut bytes = [0; 20];
            bytes[0] = TYPE_INTERRUPT;
            bytes[1] = 3; // CmResourceShareShared
            if message.is_some() {
                bytes[1] = 1; // CmResourceShareDeviceExclusive
                bytes[2] = 3; // CM_RESOURCE_INTERRUPT_LATCHED | CM_RESOURCE_INTERRUPT_MESSAGE
            }
            if message.is_some() && !translated {
                // MessageInterrupt.Raw: a group, and how many messages.
                bytes[6..8].copy_from_slice(&1_u16.to_le_bytes());
            } else {
                bytes[4..6].copy_from_slice(&level.to_le_bytes());
            }
            bytes[8..12].copy_from_slice(&vector.to_le_bytes());
            bytes[12..20].copy_from_slice(&1_u64.to_le_bytes());
            bytes
        }
    }
}

/// Which line a translated interrupt descriptor is of.
pub(crate) fn line_of(translated: &Descriptor) -> Option<u32> {
    let vector = u32::from_le_bytes(translated[8..12].try_into().ok()?);
    (translated[0] == TYPE_INTERRUPT && vector >= 0x50).then(|| (vector - 0x50) / 0x10)
}

/// What the framework keeps of a `WDFCMRESLIST`.
#[derive(Default)]
pub(crate) struct ResourceList {
    /// Where the driver can read the descriptors; 0 if there are none.
    address: usize,
    count: usize,
}

impl ResourceList {
    /// The list of a device's resources.
    pub(crate) fn new(k: &mut Kernel, instance: &str, translated: bool) -> Self {
        let resources = k
            .wdf
            .hardware
            .get(&instance.to_lowercase())
            .map(|hardware| hardware.0.clone())
            .unwrap_or_default();
        if resources.is_empty() {
            return Self::default();
        }
        let count = resources.len();
        let address =
            object::allocate_memory(k, count * size_of::<Descriptor>(), "resources".to_owned())
                .expect("the host has memory for a resource list");
        for (index, resource) in resources.into_iter().enumerate() {
            let at = address + index * size_of::<Descriptor>();
            poke(at as *mut Descriptor, descriptor(resource, translated));
        }
        Self { address, count }
    }

    pub(crate) fn free(&self, k: &mut Kernel) {
        if self.address != 0 {
            object::free_memory(k, self.address, self.count * size_of::<Descriptor>());
        }
    }
}

/// `WdfCmResourceListGetCount`.
pub(crate) fn get_count(_: Globals, list: Handle) -> u32 {
    with(list, "WdfCmResourceListGetCount", |list| {
        u32::try_from(list.count).unwrap_or(u32::MAX)
    })
}

/// `WdfCmResourceListGetDescriptor`: NULL beyond the end of the list.
pub(crate) fn get_descriptor(_: Globals, list: Handle, index: u32) -> *const u8 {
    with(list, "WdfCmResourceListGetDescriptor", |list| {
        if (index as usize) < list.count {
            (list.address + index as usize * size_of::<Descriptor>()) as *const u8
        } else {
            std::ptr::null()
        }
    })
}

fn with<R>(handle: Handle, function: &'static str, look: impl FnOnce(&ResourceList) -> R) -> R {
    kernel(|k| {
        if let Data::ResourceList(list) = &object::any(k, handle, function).data {
            return look(list);
        }
        let name = k.name_of(handle as usize).unwrap_or("an object").to_owned();
        object::invalid(
            k,
            handle,
            format!("{function} was given {name}, which is no WDFCMRESLIST"),
        )
    })
}
