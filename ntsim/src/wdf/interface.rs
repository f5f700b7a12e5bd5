// SPDX-License-Identifier: MIT OR Apache-2.0

//! The names by which users open a device: device interfaces and symbolic links.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-device-interfaces>
//!
//! An interface is enabled when its device has started, unless the driver said
//! otherwise, and disabled when the device goes.

use crate::access::{UnicodeString, peek, peek_unicode};
use crate::kernel::Kernel;
use crate::trap::kernel;

use super::object::{self, Handle};
use super::{
    Globals, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_OBJECT_NAME_COLLISION,
    STATUS_OBJECT_NAME_NOT_FOUND, STATUS_OBJECT_PATH_NOT_FOUND, STATUS_OBJECT_PATH_SYNTAX_BAD,
    STATUS_SUCCESS, device, memory, required,
};

/// `GUID`, as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guid {
    data1: u32,
    data2: u16,
    data3: u16,
    data4: [u8; 8],
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, rest @ ..] = self.data4;
        write!(
            f,
            "{{{:08x}-{:04x}-{:04x}-{a:02x}{b:02x}-",
            self.data1, self.data2, self.data3
        )?;
        for byte in rest {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("}")
    }
}

/// A device interface.
#[derive(Clone)]
pub(crate) struct Interface {
    guid: Guid,
    reference: String,
    enabled: bool,
    /// The driver wants it disabled when the device starts.
    kept_off: bool,
}

/// A device's names.
#[derive(Default)]
pub(crate) struct Names {
    interfaces: Vec<Interface>,
    links: Vec<String>,
    /// Interfaces are being enabled: the device has started.
    started: bool,
}

/// A device that was found by name.
pub(crate) struct Found {
    pub(crate) device: Handle,
    /// What follows the name.
    pub(crate) rest: String,
}

fn text(from: *const UnicodeString) -> String {
    if from.is_null() {
        String::new()
    } else {
        String::from_utf16_lossy(&peek_unicode(from))
    }
}

/// The name without the prefix of the Win32 name space, in lower case.
fn link_key(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    [
        r"\\.\",
        r"\\?\",
        r"\??\",
        r"\dosdevices\global\",
        r"\dosdevices\",
        r"\global??\",
    ]
    .iter()
    .find_map(|prefix| name.strip_prefix(prefix).map(str::to_owned))
}

/// The interface's path, as `SetupDiGetDeviceInterfaceDetail` gives it, less its prefix.
fn path(instance: &str, interface: &Interface) -> String {
    let name = format!("{}#{}", instance.replace('\\', "#"), interface.guid);
    if interface.reference.is_empty() {
        name
    } else {
        format!(r"{name}\{}", interface.reference)
    }
}

/// The device that a user means by `name`: an interface's GUID or path, a
/// symbolic link, a device's name, or its instance id.
pub(crate) fn find(k: &Kernel, name: &str) -> Option<Found> {
    let devices: Vec<_> = k
        .wdf
        .objects
        .values()
        .filter_map(|object| match &object.data {
            object::Data::Device(device) if !object.is_deleted() => Some((object.handle, device)),
            _ => None,
        })
        .collect();
    let lower = name.to_lowercase();
    for (handle, device) in devices {
        let names = &device.io.names;
        let enabled = names
            .interfaces
            .iter()
            .filter(|interface| interface.enabled);
        for interface in enabled {
            if interface.guid.to_string() == lower {
                let rest = if interface.reference.is_empty() {
                    String::new()
                } else {
                    format!(r"\{}", interface.reference)
                };
                return Some(Found {
                    device: handle,
                    rest,
                });
            }
            let full = path(&device.instance, interface).to_lowercase();
            if let Some(rest) =
                link_key(name).and_then(|key| key.strip_prefix(&full).map(str::to_owned))
            {
                return Some(Found {
                    device: handle,
                    rest: if rest.is_empty() && !interface.reference.is_empty() {
                        format!(r"\{}", interface.reference)
                    } else {
                        rest
                    },
                });
            }
        }
        let own = String::from_utf16_lossy(device.settings.name()).to_lowercase();
        let candidates = names
            .links
            .iter()
            .map(|link| (link_key(name), link.clone()))
            .chain([
                (Some(lower.clone()), own),
                (Some(lower.clone()), device.instance.to_lowercase()),
            ]);
        for (key, candidate) in candidates {
            let Some(key) = key.filter(|_| !candidate.is_empty()) else {
                continue;
            };
            match key.strip_prefix(&candidate) {
                Some(rest) if rest.is_empty() || rest.starts_with('\\') => {
                    // As the user wrote it.
                    let rest = name[name.len() - rest.len()..].to_owned();
                    return Some(Found {
                        device: handle,
                        rest,
                    });
                }
                _ => {}
            }
        }
    }
    None
}

/// The device has started.
pub(crate) fn enable(k: &mut Kernel, device: Handle) {
    let names = &mut object::device(k, device, "the framework").io.names;
    names.started = true;
    for interface in &mut names.interfaces {
        interface.enabled = !interface.kept_off;
    }
}

/// The device goes.
pub(crate) fn disable(k: &mut Kernel, device: Handle) {
    let names = &mut object::device(k, device, "the framework").io.names;
    names.started = false;
    for interface in &mut names.interfaces {
        interface.enabled = false;
    }
}

/// `WdfDeviceCreateDeviceInterface`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for a control device, which has none;
/// `STATUS_INVALID_PARAMETER` for a reference string with a separator in it;
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn create(
    _: Globals,
    handle: Handle,
    guid: *const Guid,
    reference: *const UnicodeString,
) -> i32 {
    let function = "WdfDeviceCreateDeviceInterface";
    required(guid, function, "InterfaceClassGUID");
    let (guid, reference) = (peek(guid), text(reference));
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let device = object::device(k, handle, function);
        if device.io.control.is_some() {
            return STATUS_INVALID_DEVICE_REQUEST;
        }
        // https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioregisterdeviceinterface
        if reference.contains(['\\', '/']) {
            return STATUS_INVALID_PARAMETER;
        }
        if let Err(status) = crate::inject::check(k, function) {
            return status;
        }
        let names = &mut object::device(k, handle, function).io.names;
        // Making one again gives the same one.
        let known = names
            .interfaces
            .iter()
            .any(|interface| interface.guid == guid && interface.reference == reference);
        if !known {
            names.interfaces.push(Interface {
                guid,
                reference,
                enabled: names.started,
                kept_off: false,
            });
        }
        STATUS_SUCCESS
    })
}

/// `WdfDeviceSetDeviceInterfaceState`. Needs `PASSIVE_LEVEL`. Without such an
/// interface nothing happens, as in KMDF. Before the device has started the
/// state is kept for then.
pub(crate) fn set_state(
    _: Globals,
    device: Handle,
    guid: *const Guid,
    reference: *const UnicodeString,
    enabled: u8,
) {
    let function = "WdfDeviceSetDeviceInterfaceState";
    required(guid, function, "InterfaceClassGUID");
    let (guid, reference) = (peek(guid), text(reference));
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let names = &mut object::device(k, device, function).io.names;
        let started = names.started;
        for interface in &mut names.interfaces {
            if interface.guid == guid && interface.reference == reference {
                interface.kept_off = enabled == 0;
                interface.enabled = started && enabled != 0;
            }
        }
    });
}

/// `WdfDeviceRetrieveDeviceInterfaceString`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_OBJECT_NAME_NOT_FOUND` if there is no such interface.
pub(crate) fn retrieve_string(
    _: Globals,
    device: Handle,
    guid: *const Guid,
    reference: *const UnicodeString,
    string: Handle,
) -> i32 {
    let function = "WdfDeviceRetrieveDeviceInterfaceString";
    required(guid, function, "InterfaceClassGUID");
    let (guid, reference) = (peek(guid), text(reference));
    let found = kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::string(k, string, function);
        let device = object::device(k, device, function);
        let mut interfaces = device.io.names.interfaces.iter();
        let found = interfaces
            .find(|interface| interface.guid == guid && interface.reference == reference)?;
        Some(format!(r"\??\{}", path(&device.instance, found)))
    });
    match found {
        Some(path) => memory::assign_string(string, &path, function),
        None => STATUS_OBJECT_NAME_NOT_FOUND,
    }
}

/// `WdfDeviceCreateSymbolicLink`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for an empty name, for a device that has a
/// link already, and for a control device whose driver gave it no name;
/// `STATUS_INVALID_PARAMETER` for what is no string;
/// `STATUS_OBJECT_PATH_SYNTAX_BAD` for a name that is no path,
/// `STATUS_OBJECT_PATH_NOT_FOUND` for one in a directory that there is not;
/// `STATUS_OBJECT_NAME_COLLISION` if there is one of that name;
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn create_symbolic_link(_: Globals, device: Handle, name: *const UnicodeString) -> i32 {
    let function = "WdfDeviceCreateSymbolicLink";
    required(name, function, "SymbolicLinkName");
    let name = match device::optional_text(name) {
        Ok(name) => String::from_utf16_lossy(&name.unwrap_or_default()),
        Err(status) => return status,
    };
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        let found = object::device(k, device, function);
        let nameless = found.io.control.is_some() && found.settings.name().is_empty();
        if name.is_empty() || nameless || !found.io.names.links.is_empty() {
            return STATUS_INVALID_DEVICE_REQUEST;
        }
        if !name.starts_with('\\') {
            return STATUS_OBJECT_PATH_SYNTAX_BAD;
        }
        // User mode's own prefixes are no directories of the kernel's.
        let key = if name.starts_with(r"\\") {
            None
        } else {
            link_key(&name)
        };
        let Some(key) = key.filter(|key| !key.is_empty() && !key.contains('\\')) else {
            return STATUS_OBJECT_PATH_NOT_FOUND;
        };
        let taken = k.wdf.objects.values().any(|object| match &object.data {
            object::Data::Device(device) => device.io.names.links.contains(&key),
            _ => false,
        });
        if taken {
            return STATUS_OBJECT_NAME_COLLISION;
        }
        if let Err(status) = crate::inject::check(k, function) {
            return status;
        }
        object::device(k, device, function).io.names.links.push(key);
        STATUS_SUCCESS
    })
}
