// SPDX-License-Identifier: MIT OR Apache-2.0

//! Binding a driver to the framework: `WdfVersionBind`, `WdfVersionUnbind`, and
//! what an image's entry stub does around them, for drivers that are linked
//! into the host program.
//!
//! ```text
//!   FxDriverEntry ── WdfVersionBind ── DriverEntry ──┬─ fails ── WdfVersionUnbind
//!                                                    └─ succeeds; at unload:
//!   DriverUnload ─── EvtDriverUnload ── deletion ───── WdfVersionUnbind
//! ```
//!
//! The same calls are traced for both, by the same names.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32};

use crate::abi::{callback, param};
use crate::access::{Addr, UnicodeString, peek, peek_bytes, peek_unicode, poke};
use crate::bugcheck::Stop;
use crate::io::{DriverObject, Entry};
use crate::kernel::Kernel;
use crate::rules::irql::Range;
use crate::trace::Event;
use crate::trap::kernel;
use crate::verifier::Kmdf;

use super::driver::{self, Driver};
use super::object::driver_handle;
use super::raw::DriverGlobals;
use super::{STATUS_INVALID_PARAMETER, STATUS_REVISION_MISMATCH, STATUS_SUCCESS, required};

/// `WDF_BIND_INFO`, with the part that stubs of KMDF 1.25 and later add.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct BindInfo {
    size: u32,
    component: *const u16,
    major: u32,
    minor: u32,
    build: u32,
    function_count: u32,
    function_table: *mut usize,
    module: usize,
    minimum_version: *const u32,
    client_version_higher: *mut u8,
    function_count_pointer: *mut u32,
    struct_count_pointer: *mut u32,
    struct_table: *mut usize,
}

/// Size of the record without the later part.
const V1_SIZE: usize = std::mem::offset_of!(BindInfo, minimum_version);
/// The framework's own version: 1.33.
const MINOR_VERSION: u32 = 33;
/// `FunctionCount`.
const FUNCTION_COUNT: u32 = 458;
/// `WDF_DRIVER_GLOBALS`'s tag before the driver chooses one.
const DEFAULT_TAG: u32 = u32::from_le_bytes(*b"FxDr");

// What an image's entry stub has for itself, a driver in the host program finds
// here. These are the same for every machine of the process, and do not change
// after they were set first.

// SAFETY: the name is that of KMDF's import library; no other crate of a host program defines it.
#[unsafe(no_mangle)]
static WdfFunctions_01033: AtomicPtr<usize> = AtomicPtr::new(std::ptr::null_mut());
// SAFETY: as above.
#[unsafe(no_mangle)]
static WdfDriverGlobals: AtomicPtr<DriverGlobals> = AtomicPtr::new(std::ptr::null_mut());
// SAFETY: as above.
#[unsafe(no_mangle)]
static WdfFunctionCount: AtomicU32 = AtomicU32::new(FUNCTION_COUNT);
// SAFETY: as above.
#[unsafe(no_mangle)]
static WdfStructureCount: AtomicU32 = AtomicU32::new(0);
// SAFETY: as above.
#[unsafe(no_mangle)]
static WdfStructures: AtomicPtr<usize> = AtomicPtr::new(std::ptr::null_mut());
// SAFETY: as above.
#[unsafe(no_mangle)]
static WdfClientVersionHigherThanFramework: AtomicU8 = AtomicU8::new(0);

/// The globals of the driver that is linked into the host program.
///
/// One record serves all machines of the process, so that machines on several
/// operating-system threads do not disturb each other: it says that its driver
/// is the first one that was bound, which its machine makes sure of.
struct HostGlobals {
    #[expect(dead_code, reason = "drivers read it, by its address")]
    record: DriverGlobals,
}

// SAFETY: the record is never written; its pointers are numbers that no code follows.
unsafe impl Sync for HostGlobals {}

static HOST_GLOBALS: HostGlobals = HostGlobals {
    record: globals_record(b"host", driver_handle(0), 1),
};

const fn globals_record(name: &[u8], driver: super::object::Handle, displace: u8) -> DriverGlobals {
    let mut driver_name = [0; 32];
    let mut index = 0;
    while index < name.len() && index < driver_name.len() - 1 {
        driver_name[index] = name[index];
        index += 1;
    }
    DriverGlobals {
        driver,
        driver_flags: 0,
        driver_tag: DEFAULT_TAG,
        driver_name,
        displace_driver_unload: displace,
    }
}

/// The address of the globals of drivers in the host program.
fn host_globals() -> usize {
    (&raw const HOST_GLOBALS) as usize
}

/// Why a driver cannot be bound.
struct Refused {
    status: i32,
    why: String,
}

fn refuse<T>(status: i32, why: String) -> Result<T, Refused> {
    Err(Refused { status, why })
}

/// Reads and checks the record that the driver's stub passes.
fn read_info(info: *const BindInfo) -> Result<BindInfo, Refused> {
    let size = peek(info.cast::<u32>());
    if size as usize != V1_SIZE && size as usize != size_of::<BindInfo>() {
        let why = format!(
            "the bind record has {size} bytes; ntsim knows those of {V1_SIZE} and {}",
            size_of::<BindInfo>()
        );
        return refuse(STATUS_INVALID_PARAMETER, why);
    }
    let bytes = peek_bytes(info.cast(), size as usize);
    let mut whole = [0_u64; size_of::<BindInfo>() / 8];
    for (word, bytes) in whole.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("both sizes are multiples of 8"));
    }
    let info: BindInfo = peek(whole.as_ptr().cast());
    let component = String::from_utf16_lossy(&component_name(info.component));
    if component != "KmdfLibrary" {
        return refuse(
            STATUS_INVALID_PARAMETER,
            format!("the driver binds to component \"{component}\"; ntsim has \"KmdfLibrary\""),
        );
    }
    if info.major != 1 || info.minor > MINOR_VERSION {
        let why = format!(
            "the driver needs KMDF {}.{}; ntsim has 1.{MINOR_VERSION}",
            info.major, info.minor
        );
        return refuse(STATUS_REVISION_MISMATCH, why);
    }
    if info.function_count > FUNCTION_COUNT {
        let why = format!(
            "the driver expects {} framework functions; KMDF 1.33 has {FUNCTION_COUNT}",
            info.function_count
        );
        return refuse(STATUS_INVALID_PARAMETER, why);
    }
    Ok(info)
}

fn component_name(name: *const u16) -> Vec<u16> {
    (0..64)
        .map(|index| peek(name.wrapping_add(index)))
        .take_while(|unit| *unit != 0)
        .collect()
}

/// `WdfVersionBind`.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a record that is not one,
/// `STATUS_REVISION_MISMATCH` for a version that the framework does not have;
/// the reason is a line of the trace.
pub(crate) fn wdf_version_bind(
    object: *mut DriverObject,
    path: *mut UnicodeString,
    info: *mut BindInfo,
    globals: *mut usize,
) -> i32 {
    let function = "WdfVersionBind";
    kernel(|k| crate::ke::irql::passive(k, function));
    required(object, function, "DriverObject");
    required(path, function, "RegistryPath");
    required(info, function, "BindInfo");
    required(globals, function, "ComponentGlobals");
    let info = match read_info(info) {
        Ok(info) => info,
        Err(refused) => {
            kernel(|k| k.log(Event::Machine(refused.why)));
            return refused.status;
        }
    };
    let registry_path = String::from_utf16_lossy(&peek_unicode(path));
    let address = kernel(|k| enter(k, object as usize, registry_path));
    let image = kernel(|k| k.calls_from_image());
    if image {
        let service = kernel(|k| {
            let slot = driver::slot_of_object(k, object as usize).expect("it was just entered");
            driver::bound(k, slot).service().to_owned()
        });
        poke(
            address as *mut DriverGlobals,
            globals_record(service.as_bytes(), std::ptr::null_mut(), 0),
        );
    }
    let tables = super::tables();
    let table = if image { &tables.image } else { &tables.host };
    poke(info.function_table, table.as_ptr() as usize);
    if info.size as usize == size_of::<BindInfo>() {
        if !info.client_version_higher.is_null() {
            poke(info.client_version_higher, 0);
        }
        if !info.function_count_pointer.is_null() {
            poke(info.function_count_pointer, FUNCTION_COUNT);
        }
    }
    poke(globals, address);
    STATUS_SUCCESS
}

/// Gives the driver a place and globals. Returns the globals' address.
fn enter(k: &mut Kernel, object: usize, registry_path: String) -> usize {
    let slot = k
        .wdf
        .drivers
        .iter()
        .position(Option::is_none)
        .unwrap_or(k.wdf.drivers.len());
    let globals = if k.calls_from_image() {
        let address = crate::io::system_memory(k, size_of::<DriverGlobals>());
        k.name_as(address, "globals".to_owned());
        address
    } else {
        if slot != 0 {
            let stop = Stop::not_simulated(
                k,
                "WdfVersionBind for a second driver that is linked into the host program",
            );
            k.stop(stop);
        }
        k.name_as(host_globals(), "globals".to_owned());
        host_globals()
    };
    if slot == k.wdf.drivers.len() {
        k.wdf.drivers.push(None);
    }
    let service = registry_path.rsplit('\\').next().unwrap_or_default();
    let verifier = Kmdf::read(&k.zw.registry, service);
    k.wdf.drivers[slot] = Some(Driver::new(globals, object, registry_path, verifier));
    globals
}

/// `WdfVersionUnbind`. What the driver has left is deleted first.
pub(crate) fn wdf_version_unbind(_: *mut UnicodeString, _: *mut BindInfo, globals: Addr) -> i32 {
    let slot = kernel(|k| {
        crate::ke::irql::passive(k, "WdfVersionUnbind");
        k.wdf.drivers.iter().position(|driver| {
            driver
                .as_ref()
                .is_some_and(|driver| driver.globals == globals.0)
        })
    });
    let Some(slot) = slot else {
        return STATUS_INVALID_PARAMETER;
    };
    // A DriverEntry that failed after WdfDriverCreate leaves the driver object behind.
    driver::delete(slot);
    kernel(|k| k.wdf.drivers[slot] = None);
    STATUS_SUCCESS
}

// ---- the entry stub of drivers in the host program --------------------

/// Calls a linked-in driver's entry point the way an image's stub does.
pub(crate) fn host_driver_entry(
    object: *mut DriverObject,
    path: *mut UnicodeString,
    _entry: usize,
) -> i32 {
    callback::<i32>(
        "FxDriverEntry",
        host_stub_entry as *const () as usize,
        &[param("DriverObject", &object), param("RegistryPath", &path)],
    )
}

/// Calls a linked-in driver's unload routine the way an image's stub does.
pub(crate) fn host_driver_unload(object: *mut DriverObject, unload: usize) {
    callback::<()>("DriverUnload", unload, &[param("DriverObject", &object)]);
}

/// What the stub keeps between entry and unload.
pub(crate) struct HostStub {
    /// Its copy of the registry path.
    path: usize,
    info: usize,
    /// The `DriverUnload` that it displaced.
    displaced: usize,
}

impl HostStub {
    const PATH_BYTES: u16 = 260 * 2;

    /// Lays the stub's variables out in memory of the system. They are fresh for
    /// each load, as an image's are.
    fn new() -> Self {
        let (path, buffer, info, name) = kernel(|k| {
            let path = crate::io::system_memory(k, size_of::<UnicodeString>());
            let buffer = crate::io::system_memory(k, usize::from(Self::PATH_BYTES));
            let info = crate::io::system_memory(k, size_of::<BindInfo>());
            let name = crate::io::system_memory(k, 2 * "KmdfLibrary\0".len());
            (path, buffer, info, name)
        });
        let string = UnicodeString {
            length: 0,
            maximum_length: Self::PATH_BYTES,
            buffer: buffer as *mut u16,
        };
        poke(path as *mut UnicodeString, string);
        for (index, unit) in "KmdfLibrary\0".encode_utf16().enumerate() {
            poke((name + index * 2) as *mut u16, unit);
        }
        let record = BindInfo {
            size: u32::try_from(size_of::<BindInfo>()).expect("88 bytes"),
            component: name as *const u16,
            major: 1,
            minor: MINOR_VERSION,
            build: 0,
            function_count: FUNCTION_COUNT,
            function_table: (&raw const WdfFunctions_01033) as *mut usize,
            module: 0,
            minimum_version: std::ptr::null(),
            client_version_higher: std::ptr::null_mut(),
            function_count_pointer: std::ptr::null_mut(),
            struct_count_pointer: std::ptr::null_mut(),
            struct_table: std::ptr::null_mut(),
        };
        poke(info as *mut BindInfo, record);
        Self {
            path,
            info,
            displaced: 0,
        }
    }

    fn unbind(&self) {
        let path = self.path as *mut UnicodeString;
        let info = self.info as *mut BindInfo;
        let globals = Addr(host_globals());
        crate::trap::call(
            "WdfVersionUnbind",
            Range::ANY,
            &[
                ("RegistryPath", &path),
                ("BindInfo", &info),
                ("ComponentGlobals", &globals),
            ],
            || wdf_version_unbind(path, info, globals),
        );
    }
}

/// The stub's `FxDriverEntry`. Its calls are those of `openwdk/lib/WdfDriverEntry.c`.
extern "C-unwind" fn host_stub_entry(object: *mut DriverObject, path: *mut UnicodeString) -> i32 {
    type DriverEntry = unsafe extern "C-unwind" fn(*mut DriverObject, *mut UnicodeString) -> i32;
    let stub = HostStub::new();
    let (copy, info) = (stub.path as *mut UnicodeString, stub.info as *mut BindInfo);
    let source = path.cast_const();
    crate::trap::call(
        "RtlCopyUnicodeString",
        Range::ANY,
        &[("DestinationString", &copy), ("SourceString", &source)],
        || crate::rtl::rtl_copy_unicode_string(copy, source),
    );
    let globals = (&raw const WdfDriverGlobals) as *mut usize;
    let status = crate::trap::call(
        "WdfVersionBind",
        Range::ANY,
        &[
            ("DriverObject", &object),
            ("RegistryPath", &copy),
            ("BindInfo", &info),
            ("ComponentGlobals", &globals),
        ],
        || wdf_version_bind(object, copy, info, globals),
    );
    if status < 0 {
        return status;
    }
    let entry = kernel(|k| {
        k.io.drivers
            .iter()
            .find(|driver| driver.object == object as usize)
            .map_or(0, |driver| match driver.entry {
                Entry::Image(address) | Entry::Host(address) => address,
            })
    });
    // SAFETY: the address is the `DriverEntry` that the host program gave the machine.
    let entry = unsafe { std::mem::transmute::<usize, DriverEntry>(entry) };
    // SAFETY: the arguments are what a `DriverEntry` is given.
    let status = unsafe { entry(object, path) };
    if status < 0 {
        stub.unbind();
        return status;
    }
    let mut record = peek(object);
    let displaced = std::mem::replace(&mut record.driver_unload, 0);
    if displaced != 0 {
        record.driver_unload = host_stub_unload as *const () as usize;
        poke(object, record);
    }
    kernel(|k| k.wdf.host_stub = Some(HostStub { displaced, ..stub }));
    STATUS_SUCCESS
}

/// The stub's `DriverUnload`.
extern "C-unwind" fn host_stub_unload(object: *mut DriverObject) {
    type DriverUnload = unsafe extern "C-unwind" fn(*mut DriverObject);
    let Some(stub) = kernel(|k| k.wdf.host_stub.take()) else {
        return;
    };
    // SAFETY: the driver, or `WdfDriverCreate` for it, put this address into the
    // driver object as its unload routine.
    let unload = unsafe { std::mem::transmute::<usize, DriverUnload>(stub.displaced) };
    // SAFETY: the argument is what an unload routine is given.
    unsafe { unload(object) };
    stub.unbind();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::super::NAMES;
    use super::*;

    #[test]
    fn the_bind_record_is_the_one_of_kmdf() {
        assert_eq!(V1_SIZE, 0x30);
        assert_eq!(size_of::<BindInfo>(), 0x58);
        assert_eq!(NAMES.len(), FUNCTION_COUNT as usize);
    }

    #[test]
    fn the_exported_variables_are_what_they_are_at_first() {
        assert_eq!(WdfFunctionCount.load(Ordering::Relaxed), 458);
        assert_eq!(WdfStructureCount.load(Ordering::Relaxed), 0);
        assert_eq!(
            WdfClientVersionHigherThanFramework.load(Ordering::Relaxed),
            0
        );
    }
}
