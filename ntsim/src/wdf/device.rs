// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFDEVICE` and `WDFDEVICE_INIT`:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-a-framework-device-object>
//!
//! What becomes of a device afterwards is [`super::pnp`]'s part.

use std::collections::BTreeMap;

use crate::access::{UnicodeString, peek, peek_unicode, poke};
use crate::kernel::Kernel;
use crate::registry::{RegString, Volatility};
use crate::trap::kernel;

use super::object::{self, Allow, Attributes, Data, Handle};
use super::pnp::Pnp;
use super::power_policy::PowerPolicy;
use super::raw::{
    DeviceState, FileObjectConfig, ObjectAttributes, PnpPowerCallbacks, PowerPolicyCallbacks,
};
use super::{Globals, STATUS_INVALID_PARAMETER, registry, required};

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
    file_object: Option<FileObjectConfig>,
    file_object_attributes: Attributes,
    request_attributes: Attributes,
}

impl Settings {
    pub(crate) fn is_filter(&self) -> bool {
        self.is_filter
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
    /// It has no hardware: `WdfControlDeviceInitAllocate`.
    pub(crate) is_control: bool,
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
        },
    );
    handle
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
                let check = crate::bugcheck::BugCheck::wdf(
                    0x4,
                    [0; 3],
                    format!(
                        "{function} was given NULL for DeviceInit, which it needs; WdfDeviceCreate sets it to NULL"
                    ),
                );
                k.bug_check(check)
            }
            None => format!("{function} was given an address that is no WDFDEVICE_INIT"),
            Some(name) => {
                format!("{function} was given {name}, of which a device was made already")
            }
        };
        object::invalid(k, handle.cast(), message);
    }
    k.wdf.inits.get_mut(&handle).expect("checked above")
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
            super::verifier_break(k, message)
        });
    }
    peek(from)
}

/// `WdfDeviceInitFree`, which is for records that the driver allocated itself.
pub(crate) fn init_free(_: Globals, handle: InitHandle) {
    kernel(|k| {
        init(k, handle, "WdfDeviceInitFree");
        let message = "WdfDeviceInitFree was called on the record that EvtDriverDeviceAdd was given, which is the framework's";
        super::verifier_break(k, message.to_owned())
    });
}

/// `WdfDeviceInitSetPnpPowerEventCallbacks`.
pub(crate) fn init_set_pnp_power_event_callbacks(
    _: Globals,
    handle: InitHandle,
    from: *const PnpPowerCallbacks,
) {
    let function = "WdfDeviceInitSetPnpPowerEventCallbacks";
    kernel(|k| {
        init(k, handle, function);
    });
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
    kernel(|k| {
        init(k, handle, function);
    });
    let callbacks = sized(from, function, "PowerPolicyEventCallbacks");
    set(handle, function, |settings| {
        settings.power_policy = callbacks;
    });
}

/// `WdfDeviceInitSetPowerPolicyOwnership`.
pub(crate) fn init_set_power_policy_ownership(_: Globals, handle: InitHandle, owner: u8) {
    set(handle, "WdfDeviceInitSetPowerPolicyOwnership", |settings| {
        settings.power_policy_owner = owner != 0;
    });
}

/// `WdfDeviceInitSetIoType`.
pub(crate) fn init_set_io_type(_: Globals, handle: InitHandle, io_type: u32) {
    set(handle, "WdfDeviceInitSetIoType", |settings| {
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
    set(handle, "WdfDeviceInitSetPowerNotPageable", |settings| {
        settings.power_pageable = false;
    });
}

/// `WdfDeviceInitSetPowerPageable`.
pub(crate) fn init_set_power_pageable(_: Globals, handle: InitHandle) {
    set(handle, "WdfDeviceInitSetPowerPageable", |settings| {
        settings.power_pageable = true;
    });
}

/// `WdfDeviceInitSetDeviceType`.
pub(crate) fn init_set_device_type(_: Globals, handle: InitHandle, device_type: u32) {
    set(handle, "WdfDeviceInitSetDeviceType", |settings| {
        settings.device_type = device_type;
    });
}

/// `WdfDeviceInitAssignName`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a name that does not start with a backslash.
pub(crate) fn init_assign_name(_: Globals, handle: InitHandle, name: *const UnicodeString) -> i32 {
    let function = "WdfDeviceInitAssignName";
    let name = if name.is_null() {
        Vec::new()
    } else {
        peek_unicode(name)
    };
    if name.first().is_some_and(|unit| *unit != u16::from(b'\\')) {
        return STATUS_INVALID_PARAMETER;
    }
    set(handle, function, |settings| settings.name = name);
    super::STATUS_SUCCESS
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
            super::verifier_break(k, message)
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
    set(handle, "WdfFdoInitSetFilter", |settings| {
        settings.is_filter = true;
        settings.power_policy_owner = false;
    });
}

/// `WdfFdoInitWdmGetPhysicalDevice`.
pub(crate) fn fdo_init_wdm_get_physical_device(_: Globals, handle: InitHandle) -> *mut u8 {
    kernel(|k| init(k, handle, "WdfFdoInitWdmGetPhysicalDevice").physical as *mut u8)
}

/// `WdfDeviceCreate`. Needs `PASSIVE_LEVEL`. Sets the driver's pointer to the
/// init record to NULL.
///
/// # Errors
/// Those of the attributes; the parent may not be given.
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
    kernel(|k| {
        init(k, handle, function);
    });
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::NoParent, true).and_then(|attributes| {
        kernel(|k| {
            let init = init(k, handle, function);
            let (slot, instance, physical, settings) = (
                init.driver,
                init.instance.clone(),
                init.physical,
                init.settings.clone(),
            );
            let driver_object = super::driver::bound(k, slot).object;
            let own = device_object(k, driver_object, format!("FDO of {instance}"));
            let device = Device {
                instance,
                object: own,
                physical,
                settings,
                pnp: Pnp::default(),
                io: DeviceIo::default(),
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
            self::init(k, handle, function).created = Some(created);
            Ok(created)
        })
    });
    if created.is_ok() {
        poke(init_at, std::ptr::null_mut());
    }
    object::give(out, created)
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
    kernel(|k| object::device(k, handle, function).state = read.flags);
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

/// `WdfDeviceSetFailed`: the machine will treat the device as surprise-removed.
pub(crate) fn set_failed(_: Globals, handle: Handle, action: u32) {
    const FAILED: usize = 2;
    const TRUE: u32 = 1;
    let function = "WdfDeviceSetFailed";
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if !(1..=2).contains(&action) {
            object::device(k, handle, function);
            super::verifier_break(
                k,
                format!(
                    "{function} was given FailedAction {action}; it is 1 (restart) or 2 (no restart)"
                ),
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

/// The hardware key, which is the device's whatever its driver.
const PLUGPLAY_REGKEY_DEVICE: u32 = 1;
/// The software key, which is the driver's for this device.
const PLUGPLAY_REGKEY_DRIVER: u32 = 2;

/// `WdfDeviceOpenRegistryKey`. Needs `PASSIVE_LEVEL`.
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
        object::device(k, handle, function).instance.clone()
    });
    open_key_of(g, &instance, kind, access, from, out, function)
}

/// `WdfFdoInitOpenRegistryKey`. Needs `PASSIVE_LEVEL`.
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
        init(k, handle, function).instance.clone()
    });
    open_key_of(g, &instance, kind, access, from, out, function)
}

/// Opens `Enum\<instance>\Device Parameters` or `Control\Class\<class>\<number>`:
/// <https://learn.microsoft.com/windows-hardware/drivers/install/registry-trees-and-keys>.
fn open_key_of(
    g: Globals,
    instance: &str,
    kind: u32,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
    function: &'static str,
) -> i32 {
    const CONTROL_SET: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet";
    required(out, function, "Key");
    poke(out, std::ptr::null_mut());
    let path = match kind {
        PLUGPLAY_REGKEY_DEVICE => format!(r"{CONTROL_SET}\Enum\{instance}\Device Parameters"),
        PLUGPLAY_REGKEY_DRIVER => {
            let key = kernel(|k| {
                let registry = &k.zw.registry;
                let device = registry
                    .open(format!(r"{CONTROL_SET}\Enum\{instance}"))
                    .ok()?;
                registry.value(device, "Driver").ok()?.as_sz()?.to_utf8()
            });
            let Some(key) = key else {
                return super::STATUS_OBJECT_NAME_NOT_FOUND;
            };
            format!(r"{CONTROL_SET}\Control\Class\{key}")
        }
        _ => kernel(|k| {
            let stop = crate::bugcheck::Stop::not_simulated(
                k,
                &format!("{function} for the key type {kind:#x}"),
            );
            k.stop(stop)
        }),
    };
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            let id =
                k.zw.registry
                    .create(RegString::from(path), Volatility::Persistent)
                    .map_err(|error| crate::zw::status(&error))?;
            registry::create_object(k, g, &attributes, id, access, function)
        })
    });
    object::give(out, created)
}
