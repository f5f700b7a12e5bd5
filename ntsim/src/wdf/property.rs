// SPDX-License-Identifier: MIT OR Apache-2.0

//! Properties of devices: what the INF and the bus said of them, by number
//! (`DEVICE_REGISTRY_PROPERTY`), and all of them, with those that drivers assign,
//! by key (`DEVPROPKEY`).
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-iogetdeviceproperty>,
//! <https://learn.microsoft.com/windows-hardware/drivers/install/unified-device-property-model--windows-vista-and-later->
//!
//! Properties that drivers assign are values of
//! `Enum\<instance>\Properties\<category>`, named by their number; those that
//! need not last are in `Properties\<category>\Volatile`.

use crate::access::{peek, peek_bytes, poke, poke_bytes};
use crate::kernel::Kernel;
use crate::registry::{KeyId, Registry, RegistryError, Value, Volatility};
use crate::trap::kernel;

use super::device::{self, InitHandle};
use super::interface::Guid;
use super::object::{self, Allow, Handle};
use super::raw::ObjectAttributes;
use super::{
    Globals, STATUS_BUFFER_TOO_SMALL, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_PARAMETER, STATUS_INVALID_PARAMETER_2, STATUS_OBJECT_NAME_NOT_FOUND,
    STATUS_SUCCESS, memory, required,
};

/// `WDF_DEVICE_PROPERTY_DATA`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PropertyData {
    size: u32,
    key: *const PropertyKey,
    lcid: u32,
    flags: u32,
}

/// `DEVPROPKEY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PropertyKey {
    category: Guid,
    id: u32,
}

/// `DEVPROPID_FIRST_USABLE`: numbers below this are not for properties.
const FIRST_USABLE: u32 = 2;

/// `PLUGPLAY_PROPERTY_PERSISTENT`.
const PERSISTENT: u32 = 1;

/// `DEVPROP_TYPE_…`.
const TYPE_UINT32: u32 = 0x7;
const TYPE_GUID: u32 = 0xD;
const TYPE_STRING: u32 = 0x12;
const TYPE_STRING_LIST: u32 = 0x2012;
/// The registry keeps a property's type in its value's.
const VALUE_TYPE: u32 = 0xFFFF_0000;

/// The category of what the INF and the bus say.
const DEVICE: &str = "{a45c254e-df1c-4efd-8020-67d146a850e0}";
/// That of `DEVPKEY_Device_InstanceId`.
const INSTANCE: (&str, u32) = ("{78c34fc8-104a-4aca-9ea4-524d52996e57}", 256);

fn device_key(instance: &str) -> String {
    format!(r"\Registry\Machine\SYSTEM\CurrentControlSet\Enum\{instance}")
}

fn value(registry: &Registry, instance: &str, name: &str) -> Option<Value> {
    let key = registry.open(device_key(instance)).ok()?;
    registry.value(key, name).ok().cloned()
}

/// A string value of the device's own key.
pub(crate) fn registry_text(k: &Kernel, instance: &str, name: &str) -> Option<String> {
    let text = value(&k.zw.registry, instance, name)?.as_sz()?;
    Some(text.to_string())
}

fn string(text: &str) -> Vec<u8> {
    Value::sz(text).data
}

/// What the system knows of a device.
#[derive(Clone, Copy)]
enum Known {
    /// A value of its key in the registry.
    Registry(&'static str),
    ClassName,
    PhysicalName,
    Enumerator,
    /// A number that is the same for all devices of the simulation.
    Number(u32),
    /// It is not known of devices without a bus.
    Nothing,
    NotSimulated,
}

/// `DEVICE_REGISTRY_PROPERTY`, by number.
const BY_NUMBER: [Known; 23] = [
    Known::Registry("DeviceDesc"),
    Known::Registry("HardwareID"),
    Known::Registry("CompatibleIDs"),
    Known::NotSimulated, // BootConfiguration
    Known::NotSimulated, // BootConfigurationTranslated
    Known::ClassName,
    Known::Registry("ClassGUID"),
    Known::Registry("Driver"),
    Known::Registry("Mfg"),
    Known::Registry("FriendlyName"),
    Known::Registry("LocationInformation"),
    Known::PhysicalName,
    Known::Nothing, // BusTypeGuid
    Known::Nothing, // LegacyBusType
    Known::Nothing, // BusNumber
    Known::Enumerator,
    Known::Nothing,      // Address
    Known::Nothing,      // UINumber
    Known::Number(0),    // InstallState: installed
    Known::Number(1),    // RemovalPolicy: no removal is expected
    Known::NotSimulated, // ResourceRequirements
    Known::NotSimulated, // AllocatedResources
    Known::Registry("ContainerID"),
];

/// The numbers of the category [`DEVICE`] that stand for the same, with their types.
const BY_KEY: [(u32, usize, u32); 12] = [
    (2, 0, TYPE_STRING),
    (3, 1, TYPE_STRING_LIST),
    (4, 2, TYPE_STRING_LIST),
    (9, 5, TYPE_STRING),
    (10, 6, TYPE_GUID),
    (11, 7, TYPE_STRING),
    (13, 8, TYPE_STRING),
    (14, 9, TYPE_STRING),
    (15, 10, TYPE_STRING),
    (16, 11, TYPE_STRING),
    (24, 15, TYPE_STRING),
    (36, 18, TYPE_UINT32),
];

fn known(k: &mut Kernel, instance: &str, which: Known) -> Result<Vec<u8>, i32> {
    let registry = &k.zw.registry;
    let found = match which {
        Known::Registry(name) => value(registry, instance, name).map(|value| value.data),
        Known::ClassName => registry_text(k, instance, "ClassGUID").and_then(|class| {
            let key = format!(r"\Registry\Machine\SYSTEM\CurrentControlSet\Control\Class\{class}");
            let key = k.zw.registry.open(key).ok()?;
            Some(k.zw.registry.value(key, "Class").ok()?.data.clone())
        }),
        Known::PhysicalName => {
            // The bus driver numbers its devices; here their names do.
            let number = instance.bytes().fold(0_u32, |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(byte.into())
            });
            Some(string(&format!(r"\Device\{number:08x}")))
        }
        Known::Enumerator => instance.split('\\').next().map(string),
        Known::Number(number) => Some(number.to_le_bytes().to_vec()),
        Known::Nothing => None,
        Known::NotSimulated => {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                "WdfDeviceQueryProperty for the resources of a device",
            );
            k.stop(stop)
        }
    };
    found.ok_or(STATUS_OBJECT_NAME_NOT_FOUND)
}

fn by_number(k: &mut Kernel, instance: &str, property: u32) -> Result<Vec<u8>, i32> {
    let which = usize::try_from(property)
        .ok()
        .and_then(|property| BY_NUMBER.get(property).copied())
        .ok_or(STATUS_INVALID_PARAMETER_2)?;
    known(k, instance, which)
}

/// The instance id of a PnP device.
fn instance_of(k: &mut Kernel, handle: Handle, function: &'static str) -> Result<String, i32> {
    crate::ke::irql::passive(k, function);
    let device = object::device(k, handle, function);
    if device.io.control.is_some() {
        return Err(STATUS_INVALID_DEVICE_REQUEST);
    }
    Ok(device.instance.clone())
}

/// Gives bytes to a driver's buffer, and says how many there are.
fn fill(bytes: &[u8], length: u32, buffer: *mut u8, needed: *mut u32, function: &str) -> i32 {
    let size = u32::try_from(bytes.len()).expect("properties are small");
    poke(needed, size);
    if length < size {
        return STATUS_BUFFER_TOO_SMALL;
    }
    if size != 0 {
        required(buffer, function, "PropertyBuffer");
        poke_bytes(buffer, bytes);
    }
    STATUS_SUCCESS
}

/// `WdfDeviceQueryProperty`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_BUFFER_TOO_SMALL` with the size that is needed,
/// `STATUS_INVALID_PARAMETER_2` for a property that there is not,
/// `STATUS_OBJECT_NAME_NOT_FOUND` for one that the device has not, and
/// `STATUS_INVALID_DEVICE_REQUEST` for a control device.
pub(crate) fn query(
    _: Globals,
    handle: Handle,
    property: u32,
    length: u32,
    buffer: *mut u8,
    needed: *mut u32,
) -> i32 {
    let function = "WdfDeviceQueryProperty";
    required(needed, function, "ResultLength");
    let found = kernel(|k| {
        let instance = instance_of(k, handle, function)?;
        by_number(k, &instance, property)
    });
    match found {
        Ok(bytes) => fill(&bytes, length, buffer, needed, function),
        Err(status) => status,
    }
}

/// `WdfFdoInitQueryProperty`. As [`query`].
pub(crate) fn fdo_init_query(
    _: Globals,
    init: InitHandle,
    property: u32,
    length: u32,
    buffer: *mut u8,
    needed: *mut u32,
) -> i32 {
    let function = "WdfFdoInitQueryProperty";
    required(needed, function, "ResultLength");
    let found = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let instance = device::instance_of_init(k, init, function)?;
        by_number(k, &instance, property)
    });
    match found {
        Ok(bytes) => fill(&bytes, length, buffer, needed, function),
        Err(status) => status,
    }
}

/// `WdfDeviceAllocAndQueryProperty`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// As [`query`], and those of `WdfMemoryCreate`.
pub(crate) fn alloc_and_query(
    g: Globals,
    handle: Handle,
    property: u32,
    pool_type: i32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfDeviceAllocAndQueryProperty";
    required(out, function, "PropertyMemory");
    poke(out, std::ptr::null_mut());
    let created = kernel(|k| {
        let instance = instance_of(k, handle, function)?;
        by_number(k, &instance, property)
    })
    .and_then(|bytes| {
        let attributes = object::attributes(from, Allow::Parent, false)?;
        memory::create_filled(g, &attributes, pool_type, &bytes, function)
    });
    object::give(out, created)
}

/// Reads the driver's description of a property.
fn description(from: *const PropertyData, function: &str) -> Result<(PropertyKey, u32), i32> {
    required(from, function, "DeviceProperty");
    let data = peek(from);
    if data.size as usize != size_of::<PropertyData>() {
        return Err(STATUS_INFO_LENGTH_MISMATCH);
    }
    required(data.key, function, "DeviceProperty->PropertyKey");
    let key = peek(data.key);
    if key.id < FIRST_USABLE {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if data.lcid != 0 {
        kernel(|k| {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                &format!("{function} for a property in another language"),
            );
            k.stop(stop)
        });
    }
    Ok((key, data.flags))
}

fn by_key(k: &mut Kernel, instance: &str, key: PropertyKey) -> Result<(u32, Vec<u8>), i32> {
    let category = key.category.to_string();
    if (category.as_str(), key.id) == INSTANCE {
        return Ok((TYPE_STRING, string(instance)));
    }
    if category == DEVICE {
        let (_, number, kind) = BY_KEY
            .into_iter()
            .find(|(id, ..)| *id == key.id)
            .ok_or(STATUS_OBJECT_NAME_NOT_FOUND)?;
        let bytes = known(k, instance, BY_NUMBER[number])?;
        if kind == TYPE_GUID {
            let text = registry_text(k, instance, "ClassGUID").unwrap_or_default();
            let guid = guid_bytes(&text).ok_or(STATUS_OBJECT_NAME_NOT_FOUND)?;
            return Ok((kind, guid));
        }
        return Ok((kind, bytes));
    }
    let registry = &k.zw.registry;
    let found = [r"\Volatile", ""].iter().find_map(|place| {
        let path = format!(r"{}\Properties\{category}{place}", device_key(instance));
        let at = registry.open(path).ok()?;
        registry.value(at, format!("{:04x}", key.id)).ok().cloned()
    });
    let found = found.ok_or(STATUS_OBJECT_NAME_NOT_FOUND)?;
    Ok((found.kind & !VALUE_TYPE, found.data))
}

/// A GUID in text, as it lies in memory.
fn guid_bytes(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = number.to_be_bytes().to_vec();
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

/// `WdfDeviceQueryPropertyEx`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH` for a wrong size, `STATUS_INVALID_PARAMETER` for
/// a key that cannot be, and those of [`query`].
pub(crate) fn query_ex(
    _: Globals,
    handle: Handle,
    from: *const PropertyData,
    length: u32,
    buffer: *mut u8,
    needed: *mut u32,
    kind: *mut u32,
) -> i32 {
    let function = "WdfDeviceQueryPropertyEx";
    required(needed, function, "RequiredSize");
    required(kind, function, "Type");
    let found = description(from, function).and_then(|(key, _)| {
        kernel(|k| {
            let instance = instance_of(k, handle, function)?;
            by_key(k, &instance, key)
        })
    });
    match found {
        Ok((found, bytes)) => {
            poke(kind, found);
            fill(&bytes, length, buffer, needed, function)
        }
        Err(status) => status,
    }
}

/// `WdfDeviceAllocAndQueryPropertyEx`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// As [`query_ex`], and those of `WdfMemoryCreate`.
pub(crate) fn alloc_and_query_ex(
    g: Globals,
    handle: Handle,
    from: *const PropertyData,
    pool_type: i32,
    attributes: *const ObjectAttributes,
    out: *mut Handle,
    kind: *mut u32,
) -> i32 {
    let function = "WdfDeviceAllocAndQueryPropertyEx";
    required(out, function, "PropertyMemory");
    required(kind, function, "Type");
    poke(out, std::ptr::null_mut());
    let created = description(from, function)
        .and_then(|(key, _)| {
            kernel(|k| {
                let instance = instance_of(k, handle, function)?;
                by_key(k, &instance, key)
            })
        })
        .and_then(|(found, bytes)| {
            let attributes = object::attributes(attributes, Allow::Parent, false)?;
            poke(kind, found);
            memory::create_filled(g, &attributes, pool_type, &bytes, function)
        });
    object::give(out, created)
}

/// `WdfDeviceAssignProperty`. Needs `PASSIVE_LEVEL`. No bytes remove the property.
///
/// # Errors
/// As [`query_ex`]; `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn assign(
    _: Globals,
    handle: Handle,
    from: *const PropertyData,
    kind: u32,
    size: u32,
    data: *const u8,
) -> i32 {
    let function = "WdfDeviceAssignProperty";
    let (key, flags) = match description(from, function) {
        Ok(described) => described,
        Err(status) => return status,
    };
    if size != 0 {
        required(data, function, "Data");
    }
    let bytes = if size == 0 {
        Vec::new()
    } else {
        peek_bytes(data, size as usize)
    };
    kernel(|k| {
        let instance = match instance_of(k, handle, function) {
            Ok(instance) => instance,
            Err(status) => return status,
        };
        if let Err(status) = crate::inject::check(k, function) {
            return status;
        }
        let category = key.category.to_string();
        if category == DEVICE || category == INSTANCE.0 {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                "WdfDeviceAssignProperty for a property of the system's own",
            );
            k.stop(stop);
        }
        let place = format!(r"{}\Properties\{category}", device_key(&instance));
        let name = format!("{:04x}", key.id);
        let change = Change {
            place: &place,
            name: &name,
            persistent: flags & PERSISTENT != 0,
            value: (!bytes.is_empty()).then(|| Value::new(VALUE_TYPE | kind, bytes)),
        };
        match change.apply(&mut k.zw.registry) {
            Ok(()) => STATUS_SUCCESS,
            Err(error) => crate::zw::status(&error),
        }
    })
}

/// A property that is to be set, or removed.
struct Change<'a> {
    place: &'a str,
    name: &'a str,
    persistent: bool,
    value: Option<Value>,
}

impl Change<'_> {
    fn apply(self, registry: &mut Registry) -> Result<(), RegistryError> {
        let lasting = registry.create(self.place, Volatility::Persistent)?;
        let (volatile, _) = registry.create_at(lasting, "Volatile", Volatility::Volatile)?;
        let remove = |registry: &mut Registry, at: KeyId| {
            if registry.value(at, self.name).is_ok() {
                registry.delete_value(at, self.name)?;
            }
            Ok(())
        };
        let Some(value) = self.value else {
            remove(registry, lasting)?;
            return remove(registry, volatile);
        };
        let (to, from) = if self.persistent {
            (lasting, volatile)
        } else {
            (volatile, lasting)
        };
        remove(registry, from)?;
        registry.set_value(to, self.name, value)
    }
}
