// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFDEVICE` and `WDFDEVICE_INIT`:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-a-framework-device-object>
//!
//! What becomes of a device afterwards is [`super::pnp`]'s part.

use std::collections::BTreeMap;

use crate::access::{UnicodeString, peek, peek_unicode, poke};
use crate::kernel::Kernel;
use crate::registry::{RegString, Volatility};
use crate::rules::kmdf;
use crate::trap::kernel;

use super::control::Control;
use super::object::{self, Allow, Attributes, Data, Handle};
use super::pnp::Pnp;
use super::power_policy::PowerPolicy;
use super::raw::{
    DeviceState, FileObjectConfig, ObjectAttributes, PnpPowerCallbacks, PowerPolicyCallbacks,
};
use super::{
    Globals, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER,
    STATUS_INVALID_SECURITY_DESCR, STATUS_OBJECT_NAME_COLLISION, STATUS_OBJECT_NAME_INVALID,
    STATUS_OBJECT_PATH_NOT_FOUND, STATUS_SUCCESS, interface, memory, registry, required, security,
};

/// What a `PWDFDEVICE_INIT` points at, if it pointed at anything.
pub(crate) enum OpaqueInit {}

/// `PWDFDEVICE_INIT`.
pub(crate) type InitHandle = *mut OpaqueInit;

/// Their addresses are nobody's, as handles' are.
const INIT_BASE: usize = 0xFFFF_D00E_0000_0000;

/// What the driver says of a device before it creates it.
pub(crate) struct DeviceInit {
    /// The driver's place.
    driver: usize,
    instance: String,
    /// `PDEVICE_OBJECT` of the bus driver.
    physical: usize,
    settings: Settings,
    /// The device that was made of it.
    created: Option<Handle>,
    /// `WdfControlDeviceInitAllocate` made it.
    is_control: bool,
}

/// What a device was created with.
#[derive(Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is what one function of the framework sets"
)]
pub(crate) struct Settings {
    pub(crate) callbacks: PnpPowerCallbacks,
    power_policy: PowerPolicyCallbacks,
    power_policy_owner: bool,
    is_filter: bool,
    io_type: u32,
    exclusive: bool,
    power_pageable: bool,
    device_type: u32,
    characteristics: u32,
    name: Vec<u16>,
    /// The text of the security descriptor.
    sddl: Option<String>,
    has_class: bool,
    /// `EvtDeviceShutdownNotification` of a control device.
    pub(crate) shutdown: super::control::Shutdown,
    /// `EvtIoInCallerContext`.
    pub(crate) io_in_caller_context: usize,
    file_object: Option<FileObjectConfig>,
    file_object_attributes: Attributes,
    request_attributes: Attributes,
}

impl Settings {
    pub(crate) fn is_filter(&self) -> bool {
        self.is_filter
    }

    pub(crate) fn is_power_pageable(&self) -> bool {
        self.power_pageable
    }

    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    pub(crate) fn io_type(&self) -> u32 {
        self.io_type
    }

    pub(crate) fn name(&self) -> &[u16] {
        &self.name
    }

    /// Whether its security descriptor keeps administrators out.
    pub(crate) fn denies_administrators(&self) -> bool {
        let descriptor = self.sddl.as_deref().and_then(security::parse);
        descriptor.is_some_and(|descriptor| !descriptor.administrators)
    }

    pub(crate) fn file_object(&self) -> Option<FileObjectConfig> {
        self.file_object
    }

    pub(crate) fn file_object_attributes(&self) -> &Attributes {
        &self.file_object_attributes
    }

    pub(crate) fn request_attributes(&self) -> &Attributes {
        &self.request_attributes
    }
}

/// The I/O side of a device.
#[derive(Default)]
pub(crate) struct DeviceIo {
    pub(crate) queues: Vec<Handle>,
    pub(crate) default_queue: Option<Handle>,
    /// Queues of request types that have one of their own.
    pub(crate) dispatch: BTreeMap<u32, Handle>,
    pub(crate) names: super::interface::Names,
    /// Its default I/O target, once the driver asked for it.
    pub(crate) target: Option<Handle>,
    /// What only a control device has.
    pub(crate) control: Option<Control>,
}

/// What the framework keeps of a device.
pub(crate) struct Device {
    pub(crate) instance: String,
    /// Its own `PDEVICE_OBJECT`.
    object: usize,
    physical: usize,
    pub(crate) settings: Settings,
    pub(crate) pnp: Pnp,
    pub(crate) io: DeviceIo,
    pub(crate) policy: PowerPolicy,
    /// `WDF_DEVICE_STATE`'s flags.
    state: [u32; 7],
    stoppable: bool,
    /// The IRQL at which the holder of the device's lock took it.
    pub(crate) lock_irql: u8,
}

impl Device {
    pub(crate) fn is_power_policy_owner(&self) -> bool {
        self.settings.power_policy_owner
    }

    pub(crate) fn power_policy_callbacks(&self) -> &PowerPolicyCallbacks {
        &self.settings.power_policy
    }

    /// Its bus driver's `PDEVICE_OBJECT`.
    pub(crate) fn physical(&self) -> usize {
        self.physical
    }

    pub(crate) fn is_stoppable(&self) -> bool {
        self.stoppable
    }
}

/// Bytes of a `DEVICE_OBJECT` on x64.
const DEVICE_OBJECT_SIZE: usize = 0x150;

fn device_object(k: &mut Kernel, driver_object: usize, name: String) -> usize {
    let address = crate::io::system_memory(k, DEVICE_OBJECT_SIZE);
    // Type, Size, ReferenceCount, DriverObject.
    crate::access::poke(address as *mut [u16; 2], [3, 0x150]);
    crate::access::poke((address + 4) as *mut i32, 1);
    crate::access::poke((address + 8) as *mut usize, driver_object);
    k.name_as(address, name);
    address
}

/// Makes the record that `EvtDriverDeviceAdd` is given.
pub(crate) fn new_init(k: &mut Kernel, driver: usize, instance: &str) -> InitHandle {
    k.wdf.next_init += 1;
    let handle = (INIT_BASE | (k.wdf.next_init << 4)) as InitHandle;
    k.name(handle as usize, "WDFDEVICE_INIT");
    let physical = device_object(k, 0, format!("PDO of {instance}"));
    let settings = Settings {
        power_policy_owner: true,
        power_pageable: true,
        device_type: 0x22,
        ..Settings::default()
    };
    k.wdf.inits.insert(
        handle,
        DeviceInit {
            driver,
            instance: instance.to_owned(),
            physical,
            settings,
            created: None,
            is_control: false,
        },
    );
    handle
}

/// Makes the record that `WdfControlDeviceInitAllocate` gives.
pub(crate) fn new_control_init(k: &mut Kernel, driver: usize, sddl: String) -> InitHandle {
    k.wdf.next_init += 1;
    let handle = (INIT_BASE | (k.wdf.next_init << 4)) as InitHandle;
    k.name(handle as usize, "WDFDEVICE_INIT");
    let settings = Settings {
        device_type: 0x22,
        characteristics: AUTOGENERATED_NAME,
        sddl: Some(sddl),
        ..Settings::default()
    };
    k.wdf.inits.insert(
        handle,
        DeviceInit {
            driver,
            instance: String::new(),
            physical: 0,
            settings,
            created: None,
            is_control: true,
        },
    );
    handle
}

/// The settings of a record that `WdfControlDeviceInitAllocate` made.
pub(crate) fn control_init<'k>(
    k: &'k mut Kernel,
    handle: InitHandle,
    function: &'static str,
) -> &'k mut Settings {
    crate::ke::irql::passive(k, function);
    if !init(k, handle, function).is_control {
        let name = k.name_of(handle as usize).unwrap_or("a record").to_owned();
        super::verifier_break(
            k,
            &kmdf::CONTROL_DEVICE,
            format!("{function} was given {name}, which is no record for a control device"),
        );
    }
    &mut init(k, handle, function).settings
}

/// Takes the record back after `EvtDriverDeviceAdd`. Gives the device that was made of it.
pub(crate) fn end_init(k: &mut Kernel, handle: InitHandle) -> Option<Handle> {
    k.wdf.inits.remove(&handle).and_then(|init| init.created)
}

/// The record of a pointer that the driver gave.
fn init<'k>(k: &'k mut Kernel, handle: InitHandle, function: &str) -> &'k mut DeviceInit {
    let usable = k
        .wdf
        .inits
        .get(&handle)
        .is_some_and(|init| init.created.is_none());
    if !usable {
        let message = match k.name_of(handle as usize) {
            None if handle.is_null() => {
                let message = format!(
                    "{function} was given NULL for DeviceInit, which it needs; WdfDeviceCreate sets it to NULL"
                );
                k.fatal(&kmdf::NULL_PARAMETER, &[], message)
            }
            None => format!("{function} was given an address that is no WDFDEVICE_INIT"),
            Some(name) => {
                let message =
                    format!("{function} was given {name}, of which a device was made already");
                k.fatal(&kmdf::DEVICE_INIT_USED, &[handle as u64], message)
            }
        };
        object::invalid(k, handle.cast(), message);
    }
    k.wdf.inits.get_mut(&handle).expect("checked above")
}

/// The same, for what control devices do not have.
fn pnp_init(k: &mut Kernel, handle: InitHandle, function: &str) {
    if init(k, handle, function).is_control {
        let message =
            format!("{function} was called for a control device, which has neither PnP nor power");
        super::verifier_break(k, &kmdf::CONTROL_DEVICE, message);
    }
}

/// The instance id of the device that a record is for.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for a control device, which has none.
pub(crate) fn instance_of_init(
    k: &mut Kernel,
    handle: InitHandle,
    function: &str,
) -> Result<String, i32> {
    let init = init(k, handle, function);
    if init.is_control {
        return Err(STATUS_INVALID_DEVICE_REQUEST);
    }
    Ok(init.instance.clone())
}

/// Changes what an init record says.
fn set(handle: InitHandle, function: &'static str, change: impl FnOnce(&mut Settings)) {
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        change(&mut init(k, handle, function).settings);
    });
}

/// Reads a record that begins with its size; a wrong size ends the simulation,
/// since these functions have no way to say so.
fn sized<T: Copy>(from: *const T, function: &'static str, parameter: &str) -> T {
    required(from, function, parameter);
    let size = peek(from.cast::<u32>());
    if size as usize != size_of::<T>() {
        kernel(|k| {
            let message = format!(
                "{function} was given a {parameter} of {size} bytes; it has {}",
                size_of::<T>()
            );
            super::verifier_break(k, &kmdf::RECORD_SIZE, message)
        });
    }
    peek(from)
}

/// `WdfDeviceInitFree`, which is for records that the driver allocated itself.
/// Callable at `<= DISPATCH_LEVEL`.
pub(crate) fn init_free(_: Globals, handle: InitHandle) {
    let function = "WdfDeviceInitFree";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if !init(k, handle, function).is_control {
            let message = "WdfDeviceInitFree was called on the record that EvtDriverDeviceAdd was given, which is the framework's";
            super::verifier_break(k, &kmdf::INIT_FREE, message.to_owned())
        }
        k.wdf.inits.remove(&handle);
    });
}

/// `WdfDeviceInitSetPnpPowerEventCallbacks`.
pub(crate) fn init_set_pnp_power_event_callbacks(
    _: Globals,
    handle: InitHandle,
    from: *const PnpPowerCallbacks,
) {
    let function = "WdfDeviceInitSetPnpPowerEventCallbacks";
    kernel(|k| pnp_init(k, handle, function));
    let callbacks = sized(from, function, "PnpPowerEventCallbacks");
    set(handle, function, |settings| settings.callbacks = callbacks);
}

/// `WdfDeviceInitSetPowerPolicyEventCallbacks`.
pub(crate) fn init_set_power_policy_event_callbacks(
    _: Globals,
    handle: InitHandle,
    from: *const PowerPolicyCallbacks,
) {
    let function = "WdfDeviceInitSetPowerPolicyEventCallbacks";
    kernel(|k| pnp_init(k, handle, function));
    let callbacks = sized(from, function, "PowerPolicyEventCallbacks");
    set(handle, function, |settings| {
        settings.power_policy = callbacks;
    });
}

/// `WdfDeviceInitSetPowerPolicyOwnership`.
pub(crate) fn init_set_power_policy_ownership(_: Globals, handle: InitHandle, owner: u8) {
    let function = "WdfDeviceInitSetPowerPolicyOwnership";
    kernel(|k| pnp_init(k, handle, function));
    set(handle, function, |settings| {
        settings.power_policy_owner = owner != 0;
    });
}

/// `WdfDeviceInitSetIoType`.
pub(crate) fn init_set_io_type(_: Globals, handle: InitHandle, io_type: u32) {
    // WdfDeviceIoUndefined, Neither, Buffered, Direct, BufferedOrDirect.
    const LAST_IO_TYPE: u32 = 4;
    let function = "WdfDeviceInitSetIoType";
    if !(1..=LAST_IO_TYPE).contains(&io_type) {
        kernel(|k| {
            init(k, handle, function);
            super::verifier_break(
                k,
                &kmdf::ENUMERATION,
                format!("{function} was given IoType {io_type}; it is 1 to {LAST_IO_TYPE}"),
            )
        });
    }
    set(handle, function, |settings| {
        settings.io_type = io_type;
    });
}

/// `WdfDeviceInitSetExclusive`.
pub(crate) fn init_set_exclusive(_: Globals, handle: InitHandle, exclusive: u8) {
    set(handle, "WdfDeviceInitSetExclusive", |settings| {
        settings.exclusive = exclusive != 0;
    });
}

/// `WdfDeviceInitSetPowerNotPageable`.
pub(crate) fn init_set_power_not_pageable(_: Globals, handle: InitHandle) {
    let function = "WdfDeviceInitSetPowerNotPageable";
    kernel(|k| pnp_init(k, handle, function));
    set(handle, function, |settings| {
        settings.power_pageable = false;
    });
}

/// `WdfDeviceInitSetPowerPageable`.
pub(crate) fn init_set_power_pageable(_: Globals, handle: InitHandle) {
    let function = "WdfDeviceInitSetPowerPageable";
    kernel(|k| pnp_init(k, handle, function));
    set(handle, function, |settings| {
        settings.power_pageable = true;
    });
}

/// `WdfDeviceInitSetDeviceType`.
pub(crate) fn init_set_device_type(_: Globals, handle: InitHandle, device_type: u32) {
    set(handle, "WdfDeviceInitSetDeviceType", |settings| {
        settings.device_type = device_type;
    });
}

/// `WdfDeviceInitAssignName`. Needs `PASSIVE_LEVEL`.
///
/// What the name is good for is looked at by `WdfDeviceCreate`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a name that is no absolute path, or no string;
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn init_assign_name(_: Globals, handle: InitHandle, name: *const UnicodeString) -> i32 {
    let function = "WdfDeviceInitAssignName";
    let name = match optional_text(name) {
        Ok(name) => name.unwrap_or_default(),
        Err(status) => return status,
    };
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        init(k, handle, function);
        if name.first().is_some_and(|unit| *unit != u16::from(b'\\')) {
            return STATUS_INVALID_PARAMETER;
        }
        if let Err(status) = crate::inject::check(k, function) {
            return status;
        }
        init(k, handle, function).settings.name = name;
        STATUS_SUCCESS
    })
}

/// A string that may be missing.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for one that is none, as `FxValidateUnicodeString` has it.
pub(crate) fn optional_text(from: *const UnicodeString) -> Result<Option<Vec<u16>>, i32> {
    if from.is_null() {
        return Ok(None);
    }
    let string = peek(from);
    let is_one = string.length.is_multiple_of(2)
        && string.maximum_length.is_multiple_of(2)
        && string.length <= string.maximum_length
        && (string.length == 0 || !string.buffer.is_null());
    if is_one {
        Ok(Some(peek_unicode(from)))
    } else {
        Err(STATUS_INVALID_PARAMETER)
    }
}

/// `WdfDeviceInitAssignSDDLString`. Needs `PASSIVE_LEVEL`. NULL takes the text back.
///
/// What it says is looked at by `WdfDeviceCreate`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for what is no string; `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn init_assign_sddl_string(
    _: Globals,
    handle: InitHandle,
    text: *const UnicodeString,
) -> i32 {
    let function = "WdfDeviceInitAssignSDDLString";
    let text = match optional_text(text) {
        Ok(text) => text.map(|units| String::from_utf16_lossy(&units)),
        Err(status) => return status,
    };
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        init(k, handle, function);
        if let Err(status) = crate::inject::check(k, function) {
            return status;
        }
        init(k, handle, function).settings.sddl = text;
        STATUS_SUCCESS
    })
}

/// `WdfDeviceInitSetDeviceClass`. What the registry says of the class is not looked at.
pub(crate) fn init_set_device_class(_: Globals, handle: InitHandle, class: *const interface::Guid) {
    let function = "WdfDeviceInitSetDeviceClass";
    required(class, function, "DeviceClassGuid");
    let _ = peek(class);
    set(handle, function, |settings| settings.has_class = true);
}

/// `WdfDeviceInitSetIoInCallerContextCallback`.
pub(crate) fn init_set_io_in_caller_context_callback(
    _: Globals,
    handle: InitHandle,
    evt: crate::access::Addr,
) {
    let function = "WdfDeviceInitSetIoInCallerContextCallback";
    required(evt.0 as *const u8, function, "EvtIoInCallerContext");
    set(handle, function, |settings| {
        settings.io_in_caller_context = evt.0;
    });
}

/// `WdfDeviceInitSetCharacteristics`.
pub(crate) fn init_set_characteristics(
    _: Globals,
    handle: InitHandle,
    characteristics: u32,
    or_in: u8,
) {
    set(handle, "WdfDeviceInitSetCharacteristics", |settings| {
        if or_in == 0 {
            settings.characteristics = characteristics;
        } else {
            settings.characteristics |= characteristics;
        }
    });
}

/// Attributes that a record takes along; wrong ones end the simulation.
fn kept_attributes(from: *const ObjectAttributes, function: &'static str) -> Attributes {
    match object::attributes(from, Allow::NoParent, true) {
        Ok(attributes) => attributes,
        Err(status) => kernel(|k| {
            let message = format!(
                "{function} was given object attributes that are refused with {:#010x}",
                status.cast_unsigned()
            );
            super::verifier_break(k, &kmdf::ATTRIBUTES, message)
        }),
    }
}

/// `WdfDeviceInitSetFileObjectConfig`.
pub(crate) fn init_set_file_object_config(
    _: Globals,
    handle: InitHandle,
    from: *const FileObjectConfig,
    attributes: *const ObjectAttributes,
) {
    let function = "WdfDeviceInitSetFileObjectConfig";
    kernel(|k| {
        init(k, handle, function);
    });
    let config = sized(from, function, "FileObjectConfig");
    let attributes = kept_attributes(attributes, function);
    set(handle, function, |settings| {
        settings.file_object = Some(config);
        settings.file_object_attributes = attributes;
    });
}

/// `WdfDeviceInitSetRequestAttributes`.
pub(crate) fn init_set_request_attributes(
    _: Globals,
    handle: InitHandle,
    from: *const ObjectAttributes,
) {
    let function = "WdfDeviceInitSetRequestAttributes";
    kernel(|k| {
        init(k, handle, function);
    });
    required(from, function, "RequestAttributes");
    let attributes = kept_attributes(from, function);
    set(handle, function, |settings| {
        settings.request_attributes = attributes;
    });
}

/// `WdfFdoInitSetFilter`: a filter does not own the power policy.
pub(crate) fn fdo_init_set_filter(_: Globals, handle: InitHandle) {
    let function = "WdfFdoInitSetFilter";
    kernel(|k| pnp_init(k, handle, function));
    set(handle, function, |settings| {
        settings.is_filter = true;
        settings.power_policy_owner = false;
    });
}

/// `WdfFdoInitWdmGetPhysicalDevice`.
pub(crate) fn fdo_init_wdm_get_physical_device(_: Globals, handle: InitHandle) -> *mut u8 {
    kernel(|k| init(k, handle, "WdfFdoInitWdmGetPhysicalDevice").physical as *mut u8)
}

/// `FILE_AUTOGENERATED_DEVICE_NAME`.
const AUTOGENERATED_NAME: u32 = 0x80;

/// Whether a device can have this name; nothing is said of one without.
///
/// # Errors
/// `STATUS_OBJECT_PATH_NOT_FOUND` outside of the directories that there are,
/// `STATUS_OBJECT_NAME_INVALID` for one without a last part,
/// `STATUS_OBJECT_NAME_COLLISION` for one that is taken.
fn check_name(k: &Kernel, name: &[u16]) -> Result<(), i32> {
    const DIRECTORIES: [&str; 4] = ["device", "??", "dosdevices", "global??"];
    if name.is_empty() {
        return Ok(());
    }
    let name = String::from_utf16_lossy(name).to_lowercase();
    let parts: Vec<_> = name.split('\\').skip(1).collect();
    match parts.as_slice() {
        [name] | [_, name] if name.is_empty() => return Err(STATUS_OBJECT_NAME_INVALID),
        [_] => {}
        [directory, _] if DIRECTORIES.contains(directory) => {}
        _ => return Err(STATUS_OBJECT_PATH_NOT_FOUND),
    }
    let taken = k.wdf.objects.values().any(|object| match &object.data {
        Data::Device(device) => {
            String::from_utf16_lossy(device.settings.name()).to_lowercase() == name
                && !device.io.control.is_some_and(|control| control.deleted)
        }
        _ => false,
    });
    if taken {
        Err(STATUS_OBJECT_NAME_COLLISION)
    } else {
        Ok(())
    }
}

/// Whether the record's security descriptor can be applied.
///
/// # Errors
/// `STATUS_INVALID_SECURITY_DESCR` for a device without a name,
/// `STATUS_INVALID_PARAMETER` for one that cannot be read.
fn check_security(settings: &Settings) -> Result<(), i32> {
    let named = !settings.name.is_empty() || settings.characteristics & AUTOGENERATED_NAME != 0;
    if (settings.sddl.is_some() || settings.has_class) && !named {
        return Err(STATUS_INVALID_SECURITY_DESCR);
    }
    match &settings.sddl {
        Some(sddl) if security::parse(sddl).is_none() => Err(STATUS_INVALID_PARAMETER),
        _ => Ok(()),
    }
}

/// `WdfDeviceCreate`. Needs `PASSIVE_LEVEL`. Sets the driver's pointer to the
/// init record to NULL; after a failure the record can be changed and used again.
///
/// # Errors
/// Those of the attributes; the parent may not be given.
/// `STATUS_INVALID_DEVICE_STATE` if a device was made of the record,
/// `STATUS_INVALID_SECURITY_DESCR` for security without a name,
/// `STATUS_INVALID_PARAMETER` for a descriptor that cannot be read, and
/// `STATUS_OBJECT_NAME_COLLISION` for a name that is taken.
pub(crate) fn create(
    _: Globals,
    init_at: *mut InitHandle,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfDeviceCreate";
    kernel(|k| crate::ke::irql::passive(k, function));
    required(init_at, function, "DeviceInit");
    required(out, function, "Device");
    let handle = peek(init_at);
    let used = kernel(|k| {
        let used = k
            .wdf
            .inits
            .get(&handle)
            .is_some_and(|init| init.created.is_some());
        if !used {
            init(k, handle, function);
        }
        used
    });
    poke(out, std::ptr::null_mut());
    if used {
        return STATUS_INVALID_DEVICE_STATE;
    }
    let created = object::attributes(from, Allow::NoParent, true).and_then(|attributes| {
        kernel(|k| {
            let init = init(k, handle, function);
            let (slot, instance, physical, is_control, settings) = (
                init.driver,
                init.instance.clone(),
                init.physical,
                init.is_control,
                init.settings.clone(),
            );
            check_security(&settings)?;
            check_name(k, &settings.name)?;
            let driver_object = super::driver::bound(k, slot).object;
            let what = if is_control {
                let name = String::from_utf16_lossy(&settings.name);
                format!("control device {name}").trim_end().to_owned()
            } else {
                format!("FDO of {instance}")
            };
            let own = device_object(k, driver_object, what);
            let control = is_control.then(|| Control::new(settings.shutdown));
            let device = Device {
                instance,
                object: own,
                physical,
                settings,
                pnp: Pnp::default(),
                io: DeviceIo {
                    control,
                    ..DeviceIo::default()
                },
                policy: PowerPolicy::default(),
                state: [2; 7],
                stoppable: true,
                lock_irql: 0,
            };
            let created = object::create(
                k,
                slot,
                Some(object::driver_handle(slot)),
                &attributes,
                Data::Device(Box::new(device)),
            )?;
            if is_control {
                k.wdf.inits.remove(&handle);
            } else {
                self::init(k, handle, function).created = Some(created);
            }
            Ok(created)
        })
    });
    if created.is_ok() {
        poke(init_at, std::ptr::null_mut());
    }
    object::give(out, created)
}

/// `WdfDeviceRetrieveDeviceName`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` if the driver gave the device no name.
pub(crate) fn retrieve_device_name(_: Globals, handle: Handle, string: Handle) -> i32 {
    let function = "WdfDeviceRetrieveDeviceName";
    let name = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let name = object::device(k, handle, function).settings.name().to_vec();
        object::string(k, string, function);
        name
    });
    if name.is_empty() {
        return STATUS_INVALID_PARAMETER;
    }
    memory::assign_string(string, &String::from_utf16_lossy(&name), function)
}

/// Which of a device's two device objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Its driver's own.
    Own,
    /// The bus driver's, below.
    Below,
}

/// The device of a `DEVICE_OBJECT`.
pub(crate) fn by_address(k: &Kernel, address: usize) -> Option<(Handle, Layer)> {
    k.wdf.objects.values().find_map(|object| {
        let Data::Device(device) = &object.data else {
            return None;
        };
        if object.is_deleted() {
            None
        } else if device.object == address {
            Some((object.handle, Layer::Own))
        } else if device.physical == address {
            Some((object.handle, Layer::Below))
        } else {
            None
        }
    })
}

/// `WdfDeviceGetDriver`.
pub(crate) fn get_driver(_: Globals, handle: Handle) -> Handle {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceGetDriver");
        object::driver_handle(object::get(k, handle).driver)
    })
}

/// `WdfDeviceWdmGetDeviceObject`.
pub(crate) fn wdm_get_device_object(_: Globals, handle: Handle) -> *mut u8 {
    kernel(|k| object::device(k, handle, "WdfDeviceWdmGetDeviceObject").object as *mut u8)
}

/// `WdfDeviceWdmGetAttachedDevice`: the device below, which is the bus driver's.
pub(crate) fn wdm_get_attached_device(_: Globals, handle: Handle) -> *mut u8 {
    kernel(|k| object::device(k, handle, "WdfDeviceWdmGetAttachedDevice").physical as *mut u8)
}

/// `WdfDeviceWdmGetPhysicalDevice`.
pub(crate) fn wdm_get_physical_device(_: Globals, handle: Handle) -> *mut u8 {
    kernel(|k| object::device(k, handle, "WdfDeviceWdmGetPhysicalDevice").physical as *mut u8)
}

/// `WdfDeviceGetDeviceState`.
pub(crate) fn get_device_state(_: Globals, handle: Handle, out: *mut DeviceState) {
    let function = "WdfDeviceGetDeviceState";
    let flags = kernel(|k| object::device(k, handle, function).state);
    let read = sized(out.cast_const(), function, "DeviceState");
    poke(out, DeviceState { flags, ..read });
}

/// `WdfDeviceSetDeviceState`.
pub(crate) fn set_device_state(_: Globals, handle: Handle, from: *const DeviceState) {
    let function = "WdfDeviceSetDeviceState";
    kernel(|k| {
        object::device(k, handle, function);
    });
    let read = sized(from, function, "DeviceState");
    kernel(|k| {
        if let Some(at) = read.flags.iter().position(|flag| *flag > WDF_USE_DEFAULT) {
            let message = format!(
                "{function} was given {} in field {at} of DeviceState, which is no WDF_TRI_STATE",
                read.flags[at]
            );
            super::verifier_break(k, &kmdf::ENUMERATION, message);
        }
        let device = object::device(k, handle, function);
        device.state = read.flags;
        // PnP asks for the state, and takes such a device away.
        if read.flags[FAILED] == TRUE || read.flags[REMOVED] == TRUE {
            device.pnp.set_failed(NO_RESTART);
        }
    });
}

/// `WdfDeviceGetDevicePnpState`.
pub(crate) fn get_pnp_state(_: Globals, handle: Handle) -> i32 {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceGetDevicePnpState")
            .pnp
            .state()
            .pnp_state()
    })
}

/// `WdfDeviceGetDevicePowerState`.
pub(crate) fn get_power_state(_: Globals, handle: Handle) -> i32 {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceGetDevicePowerState")
            .pnp
            .state()
            .power_state()
    })
}

/// `WdfDeviceGetSystemPowerAction`: `PowerActionNone` but during a system power change.
pub(crate) fn get_system_power_action(_: Globals, handle: Handle) -> i32 {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceGetSystemPowerAction")
            .pnp
            .power_action()
            .number()
    })
}

/// Places in `WDF_DEVICE_STATE`, and what is in them.
const FAILED: usize = 2;
const REMOVED: usize = 4;
const TRUE: u32 = 1;
/// The largest `WDF_TRI_STATE`.
const WDF_USE_DEFAULT: u32 = 2;
/// `WdfDeviceFailedNoRestart`.
const NO_RESTART: u32 = 2;

/// `WdfDeviceSetFailed`: the machine takes the device away as if it were
/// surprise-removed, and perhaps starts it again:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetfailed>
pub(crate) fn set_failed(_: Globals, handle: Handle, action: u32) {
    let function = "WdfDeviceSetFailed";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if !(1..=2).contains(&action) {
            object::device(k, handle, function);
            super::verifier_break(
                k,
                &kmdf::ENUMERATION,
                format!(
                    "{function} was given FailedAction {action}; it is 1 (restart) or 2 (no restart)"
                ),
            );
        }
        // KMDF has no PnP state for one, and would follow a null pointer.
        if object::device(k, handle, function).io.control.is_some() {
            let name = k.name_of(handle as usize).unwrap_or("it").to_owned();
            super::verifier_break(
                k,
                &kmdf::CONTROL_DEVICE,
                format!("{function} was given {name}, a control device, which has no PnP"),
            );
        }
        let device = object::device(k, handle, function);
        device.state[FAILED] = TRUE;
        device.pnp.set_failed(action);
    });
}

/// `WdfDeviceGetCharacteristics`.
pub(crate) fn get_characteristics(_: Globals, handle: Handle) -> u32 {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceGetCharacteristics")
            .settings
            .characteristics
    })
}

/// `WdfDeviceSetCharacteristics`.
pub(crate) fn set_characteristics(_: Globals, handle: Handle, characteristics: u32) {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceSetCharacteristics")
            .settings
            .characteristics = characteristics;
    });
}

/// `WdfDeviceSetStaticStopRemove`.
pub(crate) fn set_static_stop_remove(_: Globals, handle: Handle, stoppable: u8) {
    kernel(|k| {
        object::device(k, handle, "WdfDeviceSetStaticStopRemove").stoppable = stoppable != 0;
    });
}

/// `PLUGPLAY_REGKEY_DEVICE`, `PLUGPLAY_REGKEY_DRIVER`, `PLUGPLAY_REGKEY_CURRENT_HWPROFILE`.
const PLUGPLAY_REGKEY_DEVICE: u32 = 1;
const PLUGPLAY_REGKEY_DRIVER: u32 = 2;
const PLUGPLAY_REGKEY_CURRENT_HWPROFILE: u32 = 4;

/// `WdfDeviceOpenRegistryKey`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_REQUEST` for a control device, and those of
/// [`open_key_of`].
pub(crate) fn open_registry_key(
    g: Globals,
    handle: Handle,
    kind: u32,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfDeviceOpenRegistryKey";
    let instance = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let device = object::device(k, handle, function);
        device.io.control.is_none().then(|| device.instance.clone())
    });
    match instance {
        Some(instance) => open_key_of(g, &instance, kind, access, from, out, function),
        None => STATUS_INVALID_DEVICE_REQUEST,
    }
}

/// `WdfFdoInitOpenRegistryKey`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// Those of [`open_key_of`].
pub(crate) fn fdo_init_open_registry_key(
    g: Globals,
    handle: InitHandle,
    kind: u32,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfFdoInitOpenRegistryKey";
    let instance = kernel(|k| {
        crate::ke::irql::passive(k, function);
        pnp_init(k, handle, function);
        init(k, handle, function).instance.clone()
    });
    open_key_of(g, &instance, kind, access, from, out, function)
}

/// Opens the hardware key, `Enum\<instance>\Device Parameters`, or the software
/// key, `Control\Class\<class>\<number>`:
/// <https://learn.microsoft.com/windows-hardware/drivers/install/registry-trees-and-keys>
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a kind that is none;
/// `STATUS_OBJECT_NAME_NOT_FOUND` if the device has no software key; those of
/// the attributes, which must not name a parent.
fn open_key_of(
    g: Globals,
    instance: &str,
    kind: u32,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
    function: &'static str,
) -> i32 {
    required(out, function, "Key");
    poke(out, std::ptr::null_mut());
    if kind & PLUGPLAY_REGKEY_CURRENT_HWPROFILE != 0 {
        kernel(|k| {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                "WdfDeviceOpenRegistryKey for the current hardware profile",
            );
            k.stop(stop)
        });
    }
    let device = format!(r"\Registry\Machine\SYSTEM\CurrentControlSet\Enum\{instance}");
    let created = object::attributes(from, Allow::NoParent, false).and_then(|attributes| {
        kernel(|k| {
            let opened = match kind {
                PLUGPLAY_REGKEY_DEVICE => k.zw.registry.create(
                    RegString::from(format!(r"{device}\Device Parameters")),
                    Volatility::Persistent,
                ),
                PLUGPLAY_REGKEY_DRIVER => {
                    let driver = super::property::registry_text(k, instance, "Driver");
                    let driver = driver.ok_or(super::STATUS_OBJECT_NAME_NOT_FOUND)?;
                    k.zw.registry.create(
                        RegString::from(format!(
                            r"\Registry\Machine\SYSTEM\CurrentControlSet\Control\Class\{driver}"
                        )),
                        Volatility::Persistent,
                    )
                }
                _ => return Err(STATUS_INVALID_PARAMETER),
            };
            let id = opened.map_err(|error| crate::zw::status(&error))?;
            registry::create_object(k, g, &attributes, id, access, function)
        })
    });
    object::give(out, created)
}
