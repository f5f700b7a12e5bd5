// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFDRIVER`: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/>

use crate::abi::{callback, param};
use crate::access::{UnicodeString, peek, peek_unicode, poke};
use crate::bugcheck::BugCheck;
use crate::io::DriverObject;
use crate::kernel::Kernel;
use crate::registry::{RegString, Volatility};
use crate::rules::kmdf;
use crate::trace::Event;
use crate::trap::kernel;
use crate::verifier::Kmdf;

use super::object::{self, Allow, Data, Handle};
use super::raw::{DriverConfig, DriverGlobals, ObjectAttributes, VersionAvailableParams};
use super::{
    Globals, STATUS_DRIVER_INTERNAL_ERROR, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_PARAMETER,
    memory, registry, required,
};

/// A driver that is bound to the framework.
pub(crate) struct Driver {
    /// Address of its `WDF_DRIVER_GLOBALS`.
    pub(crate) globals: usize,
    /// Its `PDRIVER_OBJECT`.
    pub(crate) object: usize,
    /// `\Registry\Machine\...\Services\name`.
    pub(crate) registry_path: String,
    /// The same, with a terminator, in memory that the driver may read; 0 until asked for.
    path_memory: usize,
    pub(crate) evt_device_add: usize,
    evt_unload: usize,
    /// What KMDF's verifier does with it.
    pub(crate) verifier: Kmdf,
    /// Framework objects that were to be made so far.
    pub(crate) allocations: u32,
}

impl Driver {
    pub(crate) fn new(
        globals: usize,
        object: usize,
        registry_path: String,
        verifier: Kmdf,
    ) -> Self {
        Self {
            globals,
            object,
            registry_path,
            path_memory: 0,
            evt_device_add: 0,
            evt_unload: 0,
            verifier,
            allocations: 0,
        }
    }

    /// The service's name.
    pub(crate) fn service(&self) -> &str {
        self.registry_path.rsplit('\\').next().unwrap_or_default()
    }
}

impl super::State {
    /// Whether KMDF's verifier is switched off for any driver.
    pub(crate) fn verifier_is_off_somewhere(&self) -> bool {
        let mut drivers = self.drivers.iter().flatten();
        drivers.any(|driver| driver.verifier.is_off)
    }

    /// Whether it is for this service.
    pub(crate) fn verifier_is_off(&self, service: &str) -> bool {
        let mut drivers = self.drivers.iter().flatten();
        drivers
            .any(|driver| driver.verifier.is_off && driver.service().eq_ignore_ascii_case(service))
    }
}

/// Counts an object that is to be made, and fails it if `VerifierAllocateFailCount`
/// says so.
pub(crate) fn count_allocation(k: &mut Kernel, slot: usize, kind: &str) -> Result<(), i32> {
    let Some(driver) = k.wdf.drivers.get_mut(slot).and_then(Option::as_mut) else {
        return Ok(());
    };
    let Some(most) = driver.verifier.fail_after else {
        return Ok(());
    };
    driver.allocations = driver.allocations.saturating_add(1);
    if driver.allocations <= most {
        return Ok(());
    }
    let count = driver.allocations;
    let text = format!("VerifierAllocateFailCount {most}: framework object {count} ({kind}) fails");
    k.log(Event::Machine(text));
    Err(crate::inject::STATUS_INSUFFICIENT_RESOURCES)
}

/// The place of the driver whose globals these are.
pub(crate) fn slot_of(k: &Kernel, globals: Globals) -> Option<usize> {
    k.wdf.drivers.iter().position(|driver| {
        driver
            .as_ref()
            .is_some_and(|driver| driver.globals == globals.0)
    })
}

/// The place of the driver with this driver object.
pub(crate) fn slot_of_object(k: &Kernel, object: usize) -> Option<usize> {
    k.wdf.drivers.iter().position(|driver| {
        driver
            .as_ref()
            .is_some_and(|driver| driver.object == object)
    })
}

pub(crate) fn bound(k: &mut Kernel, slot: usize) -> &mut Driver {
    k.wdf.drivers[slot]
        .as_mut()
        .expect("a driver is bound while it has objects")
}

/// `WdfDriverInitNoDispatchOverride`.
const NO_DISPATCH_OVERRIDE: u32 = 2;
/// `WdfDriverInitNonPnpDriver`.
const NON_PNP_DRIVER: u32 = 1;

/// `WdfDriverCreate`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH` for a wrong size, `STATUS_INVALID_PARAMETER`
/// for a non-PnP driver with `EvtDriverDeviceAdd`, and
/// `STATUS_DRIVER_INTERNAL_ERROR` when called a second time.
pub(crate) fn create(
    g: Globals,
    driver_object: *mut DriverObject,
    path: *const UnicodeString,
    from: *const ObjectAttributes,
    config: *const DriverConfig,
    out: *mut Handle,
) -> i32 {
    let function = "WdfDriverCreate";
    kernel(|k| crate::ke::irql::passive(k, function));
    required(driver_object, function, "DriverObject");
    required(path, function, "RegistryPath");
    required(config, function, "DriverConfig");
    if !out.is_null() {
        poke(out, std::ptr::null_mut());
    }
    let config = peek(config);
    if config.size as usize != size_of::<DriverConfig>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    if config.init_flags & NON_PNP_DRIVER != 0 && config.evt_device_add != 0 {
        return STATUS_INVALID_PARAMETER;
    }
    let _ = peek_unicode(path);
    let attributes = match object::attributes(from, Allow::NoParent, true) {
        Ok(attributes) => attributes,
        Err(status) => return status,
    };
    let created = kernel(|k| {
        let Some(slot) = slot_of(k, g) else {
            object::invalid(
                k,
                std::ptr::null_mut(),
                format!("{function} was given driver globals that the framework did not make"),
            )
        };
        if k.wdf.objects.contains_key(&object::driver_handle(slot)) {
            return Err(STATUS_DRIVER_INTERNAL_ERROR);
        }
        let handle = object::create(k, slot, None, &attributes, Data::Driver(slot))?;
        let driver = bound(k, slot);
        driver.evt_device_add = config.evt_device_add;
        driver.evt_unload = config.evt_unload;
        Ok((handle, slot, k.calls_from_image()))
    });
    let (handle, _, image) = match created {
        Ok(created) => created,
        Err(status) => return status,
    };
    if image {
        // A driver in an image has globals of its own. Those of drivers in the
        // host program are one record for the process, which says this already.
        let globals = g.0 as *mut DriverGlobals;
        let mut record = peek(globals);
        record.driver = handle;
        record.driver_flags |= config.init_flags;
        record.displace_driver_unload = u8::from(config.init_flags & NO_DISPATCH_OVERRIDE == 0);
        if config.pool_tag != 0 {
            record.driver_tag = config.pool_tag;
        }
        poke(globals, record);
    }
    if config.init_flags & NO_DISPATCH_OVERRIDE == 0
        && (config.init_flags & NON_PNP_DRIVER == 0 || config.evt_unload != 0)
    {
        let mut record = peek(driver_object);
        record.driver_unload = if image {
            unload_for_images as *const () as usize
        } else {
            unload_for_hosts as *const () as usize
        };
        poke(driver_object, record);
    }
    if !out.is_null() {
        poke(out, handle);
    }
    super::STATUS_SUCCESS
}

extern "win64" fn unload_for_images(object: *mut DriverObject) {
    unload(object);
    crate::count::approach();
}

extern "C-unwind" fn unload_for_hosts(object: *mut DriverObject) {
    unload(object);
}

/// The framework's `DriverUnload`: `EvtDriverUnload`, then the driver object's deletion.
fn unload(object: *mut DriverObject) {
    let Some((slot, evt)) = kernel(|k| {
        let slot = slot_of_object(k, object as usize)?;
        Some((slot, bound(k, slot).evt_unload))
    }) else {
        return;
    };
    let handle = object::driver_handle(slot);
    if evt != 0 {
        callback::<()>("EvtDriverUnload", evt, &[param("Driver", &handle)]);
    }
    delete(slot);
}

/// Deletes the driver object in place `slot`, if there is one, with all that is left of it.
pub(crate) fn delete(slot: usize) {
    let handle = object::driver_handle(slot);
    if kernel(|k| k.wdf.objects.contains_key(&handle)) {
        object::delete(handle);
    }
    object::flush_deferred_deletions();
}

fn driver_slot(k: &mut Kernel, handle: Handle, function: &str) -> usize {
    *object::driver(k, handle, function)
}

/// `WdfDriverGetRegistryPath`. Needs `PASSIVE_LEVEL`.
pub(crate) fn registry_path(_: Globals, handle: Handle) -> *const u16 {
    let function = "WdfDriverGetRegistryPath";
    let (address, fresh) = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let slot = driver_slot(k, handle, function);
        let driver = bound(k, slot);
        if driver.path_memory != 0 {
            return (driver.path_memory, None);
        }
        let units: Vec<u16> = driver.registry_path.encode_utf16().chain([0]).collect();
        let name = k.name_of(handle as usize).unwrap_or("driver").to_owned();
        let address = crate::io::system_memory(k, units.len() * 2);
        k.name_as(address, format!("{name}.RegistryPath"));
        bound(k, slot).path_memory = address;
        (address, Some(units))
    });
    for (index, unit) in fresh.into_iter().flatten().enumerate() {
        poke((address + index * 2) as *mut u16, unit);
    }
    address as *const u16
}

/// `WdfDriverWdmGetDriverObject`.
pub(crate) fn wdm_driver_object(_: Globals, handle: Handle) -> *mut DriverObject {
    kernel(|k| {
        let slot = driver_slot(k, handle, "WdfDriverWdmGetDriverObject");
        bound(k, slot).object as *mut DriverObject
    })
}

/// `KEY_WRITE`'s rights that are not also `KEY_READ`'s.
const KEY_WRITE_RIGHTS: u32 = 0x6;

/// `WdfDriverOpenParametersRegistryKey`. Needs `PASSIVE_LEVEL`.
///
/// Opening for writing makes the key if it is not there, as KMDF does; opening
/// for reading gives `STATUS_OBJECT_NAME_NOT_FOUND`.
pub(crate) fn open_parameters_registry_key(
    g: Globals,
    handle: Handle,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    open(
        g,
        handle,
        access,
        from,
        out,
        "Parameters",
        "WdfDriverOpenParametersRegistryKey",
    )
}

/// `WdfDriverOpenPersistentStateRegistryKey`. Needs `PASSIVE_LEVEL`.
///
/// The state lies under the service's key in `PersistentState`, away from
/// `Parameters`; where it is, Windows does not promise.
pub(crate) fn open_persistent_state_registry_key(
    g: Globals,
    handle: Handle,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    open(
        g,
        handle,
        access,
        from,
        out,
        "PersistentState",
        "WdfDriverOpenPersistentStateRegistryKey",
    )
}

fn open(
    g: Globals,
    handle: Handle,
    access: u32,
    from: *const ObjectAttributes,
    out: *mut Handle,
    subkey: &str,
    function: &'static str,
) -> i32 {
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        driver_slot(k, handle, function);
    });
    required(out, function, "Key");
    poke(out, std::ptr::null_mut());
    let created = object::attributes(from, Allow::Parent, false).and_then(|attributes| {
        kernel(|k| {
            let slot = driver_slot(k, handle, function);
            let path = format!("{}\\{subkey}", bound(k, slot).registry_path);
            let always = subkey == "PersistentState";
            let opened = if always || access & KEY_WRITE_RIGHTS != 0 {
                k.zw.registry
                    .create(RegString::from(path), Volatility::Persistent)
            } else {
                k.zw.registry.open(RegString::from(path))
            };
            let id = opened.map_err(|error| crate::zw::status(&error))?;
            registry::create_object(k, g, &attributes, id, access, function)
        })
    });
    object::give(out, created)
}

/// `WdfDriverRetrieveVersionString`. Needs `PASSIVE_LEVEL`.
pub(crate) fn retrieve_version_string(_: Globals, handle: Handle, string: Handle) -> i32 {
    let function = "WdfDriverRetrieveVersionString";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        driver_slot(k, handle, function);
    });
    memory::assign_string(
        string,
        "Kernel Mode Driver Framework version 1.33 (ntsim)",
        function,
    )
}

/// `WdfDriverIsVersionAvailable`. Needs `PASSIVE_LEVEL`.
pub(crate) fn is_version_available(
    _: Globals,
    handle: Handle,
    params: *const VersionAvailableParams,
) -> u8 {
    let function = "WdfDriverIsVersionAvailable";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        driver_slot(k, handle, function);
    });
    required(params, function, "VersionAvailableParams");
    let params = peek(params);
    if params.size as usize != size_of::<VersionAvailableParams>() {
        kernel(|k| {
            let message = format!(
                "{function} was given a record of {} bytes; it has 12",
                params.size
            );
            super::verifier_break(k, &kmdf::RECORD_SIZE, message)
        });
    }
    u8::from(params.major == 1 && params.minor <= 33)
}

/// `WdfVerifierDbgBreakPoint`.
pub(crate) fn verifier_dbg_break_point(_: Globals) {
    const STATUS_BREAKPOINT: u64 = 0x8000_0003;
    let message = "the driver called WdfVerifierDbgBreakPoint";
    kernel(|k| k.bug_check(BugCheck::new(0x1E, [STATUS_BREAKPOINT, 0, 0, 0], message)));
}

/// `WdfVerifierKeBugCheck`.
pub(crate) fn verifier_ke_bug_check(_: Globals, code: u32, a: u64, b: u64, c: u64, d: u64) {
    kernel(|k| {
        k.bug_check(BugCheck::new(
            code,
            [a, b, c, d],
            "the driver called WdfVerifierKeBugCheck",
        ))
    });
}
