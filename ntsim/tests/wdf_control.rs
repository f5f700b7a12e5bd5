// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control devices, what is said of devices before they are created, their names,
//! properties and keys, as a driver in C would see them.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of structures and of short strings"
)]

#[macro_use]
#[path = "support/raw.rs"]
mod raw;

use std::cell::RefCell;
use std::time::Duration;

use ntsim::machine::Error;
use ntsim::registry::Value;
use ntsim::{File, Machine, Stop, StopKind};
use ntsim_sys::{
    DEVPROPKEY, DRIVER_OBJECT, GUID, NTSTATUS, PCUNICODE_STRING, PWDFDEVICE_INIT, UNICODE_STRING,
    WDF_DEVICE_PROPERTY_DATA, WDF_DRIVER_CONFIG, WDF_FILEOBJECT_CONFIG, WDF_IO_QUEUE_CONFIG,
    WDFDEVICE, WDFDRIVER, WDFFILEOBJECT, WDFKEY, WDFMEMORY, WDFOBJECT, WDFQUEUE, WDFREQUEST,
};
use raw::attributes;

type Body<A> = Box<dyn FnMut(A) -> NTSTATUS>;

/// What the driver of this test does; each test runs on a thread of its own.
#[derive(Default)]
struct Script {
    entry: Option<Body<WDFDRIVER>>,
    unload: Option<Box<dyn FnMut()>>,
    /// Before `WdfDeviceCreate` in `EvtDriverDeviceAdd`.
    before: Option<Body<PWDFDEVICE_INIT>>,
    /// After it.
    after: Option<Body<WDFDEVICE>>,
    cleanup: Option<Box<dyn FnMut()>>,
    journal: Vec<String>,
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::default();
}

fn script(change: impl FnOnce(&mut Script)) {
    SCRIPT.with_borrow_mut(change);
}

fn note(what: impl Into<String>) {
    let what = what.into();
    script(|script| script.journal.push(what));
}

fn journal() -> Vec<String> {
    SCRIPT.with_borrow_mut(|script| std::mem::take(&mut script.journal))
}

fn create_driver(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
    configure: impl FnOnce(&mut WDF_DRIVER_CONFIG),
) -> NTSTATUS {
    let mut config: WDF_DRIVER_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_DRIVER_CONFIG>() as u32;
    configure(&mut config);
    let mut driver = std::ptr::null_mut();
    let status = wdf!(WdfDriverCreate: WdfDriverCreateTableIndex as PFN_WDFDRIVERCREATE(
        object, path, std::ptr::null_mut(), &raw mut config, &raw mut driver));
    if status < 0 {
        return status;
    }
    match SCRIPT.with_borrow_mut(|script| script.entry.take()) {
        Some(mut entry) => entry(driver),
        None => 0,
    }
}

/// `WdfDriverInitNonPnpDriver`.
const NON_PNP: u32 = 1;

unsafe extern "C-unwind" fn non_pnp(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    create_driver(object, path, |config| {
        config.DriverInitFlags = NON_PNP;
        config.EvtDriverUnload = Some(unload);
    })
}

unsafe extern "C-unwind" fn without_unload(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    create_driver(object, path, |config| config.DriverInitFlags = NON_PNP)
}

unsafe extern "C-unwind" fn confused(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    create_driver(object, path, |config| {
        config.DriverInitFlags = NON_PNP;
        config.EvtDriverDeviceAdd = Some(device_add);
    })
}

unsafe extern "C-unwind" fn pnp(object: *mut DRIVER_OBJECT, path: PCUNICODE_STRING) -> NTSTATUS {
    create_driver(object, path, |config| {
        config.EvtDriverDeviceAdd = Some(device_add);
        config.EvtDriverUnload = Some(unload);
    })
}

unsafe extern "C-unwind" fn unload(_: WDFDRIVER) {
    note("unload");
    if let Some(mut unload) = SCRIPT.with_borrow_mut(|script| script.unload.take()) {
        unload();
    }
}

unsafe extern "C-unwind" fn cleanup(_: WDFOBJECT) {
    note("cleanup");
    if let Some(mut cleanup) = SCRIPT.with_borrow_mut(|script| script.cleanup.take()) {
        cleanup();
    }
}

unsafe extern "C-unwind" fn device_add(_: WDFDRIVER, mut init: PWDFDEVICE_INIT) -> NTSTATUS {
    if let Some(mut before) = SCRIPT.with_borrow_mut(|script| script.before.take()) {
        let status = before(init);
        if status < 0 {
            return status;
        }
    }
    let device = match create_device(&mut init) {
        Ok(device) => device,
        Err(status) => return status,
    };
    match SCRIPT.with_borrow_mut(|script| script.after.take()) {
        Some(mut after) => {
            let status = after(device);
            script(|script| {
                script.after.get_or_insert(after);
            });
            status
        }
        None => 0,
    }
}

fn create_device(init: &mut PWDFDEVICE_INIT) -> Result<WDFDEVICE, NTSTATUS> {
    let mut attributes = attributes();
    attributes.EvtCleanupCallback = Some(cleanup);
    let mut device = std::ptr::null_mut();
    let status = wdf!(WdfDeviceCreate: WdfDeviceCreateTableIndex
        as PFN_WDFDEVICECREATE(init, &raw mut attributes, &raw mut device));
    if status < 0 {
        assert!(!init.is_null(), "the record is still the caller's");
        Err(status)
    } else {
        assert!(init.is_null(), "WdfDeviceCreate takes the record away");
        Ok(device)
    }
}

fn string(text: &str) -> UNICODE_STRING {
    let units: Vec<u16> = text.encode_utf16().collect();
    let bytes = (units.len() * 2) as u16;
    UNICODE_STRING {
        Length: bytes,
        MaximumLength: bytes,
        Buffer: units.leak().as_mut_ptr(),
    }
}

const ADMINISTRATORS: &str = "D:P(A;;GA;;;SY)(A;;GA;;;BA)";

fn the_driver() -> WDFDRIVER {
    unsafe { (*ntsim_sys::WdfDriverGlobals).Driver }
}

fn control_init(sddl: &str) -> PWDFDEVICE_INIT {
    let sddl = string(sddl);
    wdf!(WdfControlDeviceInitAllocate: WdfControlDeviceInitAllocateTableIndex
        as PFN_WDFCONTROLDEVICEINITALLOCATE(the_driver(), &raw const sddl))
}

fn free_init(init: PWDFDEVICE_INIT) {
    wdf!(WdfDeviceInitFree: WdfDeviceInitFreeTableIndex as PFN_WDFDEVICEINITFREE(init));
}

fn assign_name(init: PWDFDEVICE_INIT, name: &str) -> NTSTATUS {
    let name = string(name);
    wdf!(WdfDeviceInitAssignName: WdfDeviceInitAssignNameTableIndex
        as PFN_WDFDEVICEINITASSIGNNAME(init, &raw const name))
}

fn assign_sddl(init: PWDFDEVICE_INIT, sddl: &str) -> NTSTATUS {
    let sddl = string(sddl);
    wdf!(WdfDeviceInitAssignSDDLString: WdfDeviceInitAssignSDDLStringTableIndex
        as PFN_WDFDEVICEINITASSIGNSDDLSTRING(init, &raw const sddl))
}

fn symbolic_link(device: WDFDEVICE, name: &str) -> NTSTATUS {
    let name = string(name);
    wdf!(WdfDeviceCreateSymbolicLink: WdfDeviceCreateSymbolicLinkTableIndex
        as PFN_WDFDEVICECREATESYMBOLICLINK(device, &raw const name))
}

fn finish(device: WDFDEVICE) {
    wdf!(WdfControlFinishInitializing: WdfControlFinishInitializingTableIndex
        as PFN_WDFCONTROLFINISHINITIALIZING(device));
}

fn delete(object: WDFOBJECT) {
    wdf!(WdfObjectDelete: WdfObjectDeleteTableIndex as PFN_WDFOBJECTDELETE(object));
}

unsafe extern "C-unwind" fn io_default(_: WDFQUEUE, request: WDFREQUEST) {
    wdf!(WdfRequestCompleteWithInformation: WdfRequestCompleteWithInformationTableIndex
        as PFN_WDFREQUESTCOMPLETEWITHINFORMATION(request, 0, 0));
}

unsafe extern "C-unwind" fn in_caller_context(device: WDFDEVICE, request: WDFREQUEST) {
    note("in caller context");
    let status = wdf!(WdfDeviceEnqueueRequest: WdfDeviceEnqueueRequestTableIndex
        as PFN_WDFDEVICEENQUEUEREQUEST(device, request));
    assert_eq!(status, 0);
}

unsafe extern "C-unwind" fn file_close(_: WDFFILEOBJECT) {
    note("file close");
}

unsafe extern "C-unwind" fn shutdown(_: WDFDEVICE) {
    note("shutdown");
}

fn default_queue(device: WDFDEVICE) -> NTSTATUS {
    let mut config: WDF_IO_QUEUE_CONFIG = unsafe { std::mem::zeroed() };
    config.Size = size_of::<WDF_IO_QUEUE_CONFIG>() as u32;
    config.DispatchType = 2;
    config.PowerManaged = 2;
    config.DefaultQueue = 1;
    config.Settings.Parallel.NumberOfPresentedRequests = u32::MAX;
    config.EvtIoDefault = Some(io_default);
    let mut queue = std::ptr::null_mut();
    wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex as PFN_WDFIOQUEUECREATE(
        device, &raw mut config, std::ptr::null_mut(), &raw mut queue))
}

/// A control device `\Device\Lab` with a queue and the link `\\.\Lab`.
fn create_control() -> Result<WDFDEVICE, NTSTATUS> {
    let mut init = control_init(ADMINISTRATORS);
    let mut files: WDF_FILEOBJECT_CONFIG = unsafe { std::mem::zeroed() };
    files.Size = size_of::<WDF_FILEOBJECT_CONFIG>() as u32;
    files.EvtFileClose = Some(file_close);
    files.FileObjectClass = 2;
    files.AutoForwardCleanupClose = 2;
    wdf!(WdfDeviceInitSetFileObjectConfig: WdfDeviceInitSetFileObjectConfigTableIndex
        as PFN_WDFDEVICEINITSETFILEOBJECTCONFIG(init, &raw mut files, std::ptr::null_mut()));
    assert_eq!(assign_name(init, r"\Device\Lab"), 0);
    let device = create_device(&mut init)?;
    assert_eq!(default_queue(device), 0);
    assert_eq!(symbolic_link(device, r"\DosDevices\Lab"), 0);
    finish(device);
    Ok(device)
}

/// A machine on which the non-PnP driver did this in its `DriverEntry`.
fn started(body: impl FnMut(WDFDRIVER) -> NTSTATUS + 'static) -> Machine {
    let mut machine = Machine::default();
    machine.add_service("Lab", non_pnp).unwrap();
    script(|script| script.entry = Some(Box::new(body)));
    machine
        .start_service("Lab")
        .unwrap_or_else(|error| panic!("{error}"));
    machine
}

/// The same, and the driver is unloaded: nothing may be left behind.
fn in_driver(body: impl FnMut(WDFDRIVER) -> NTSTATUS + 'static) {
    let mut machine = started(body);
    machine
        .stop_service("Lab")
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The PnP driver with one device; `after` runs when it was created.
fn with_device(after: impl FnMut(WDFDEVICE) -> NTSTATUS + 'static) -> (Machine, String) {
    let mut machine = Machine::default();
    let device = machine.add_driver("Lab", pnp).unwrap();
    script(|script| script.after = Some(Box::new(after)));
    machine
        .start_device(&device)
        .unwrap_or_else(|error| panic!("{error}"));
    (machine, device)
}

fn status(result: Result<File, Error>) -> u32 {
    match result {
        Err(Error::Driver { status, .. }) => status,
        other => panic!("expected a status, found {other:?}"),
    }
}

fn stop<T>(result: Result<T, Error>) -> Box<Stop> {
    match result {
        Err(Error::Stop(stop)) => stop,
        Err(other) => panic!("expected a stop, found {other}"),
        Ok(_) => panic!("expected a stop"),
    }
}

fn bug_check<T>(result: Result<T, Error>) -> (u32, u64, String) {
    let stop = stop(result);
    match stop.kind {
        StopKind::BugCheck { code, parameters } => (code, parameters[0], stop.to_string()),
        _ => panic!("expected a bug check, found {stop}"),
    }
}

const ACCESS_DENIED: u32 = 0xC000_0022;
const NAME_NOT_FOUND: u32 = 0xC000_0034;
const NO_SUCH_DEVICE: u32 = 0xC000_000E;
const INVALID_PARAMETER: NTSTATUS = 0xC000_000D_u32.cast_signed();
const INVALID_DEVICE_REQUEST: NTSTATUS = 0xC000_0010_u32.cast_signed();
const NAME_COLLISION: NTSTATUS = 0xC000_0035_u32.cast_signed();
const NAME_INVALID: NTSTATUS = 0xC000_0033_u32.cast_signed();
const PATH_NOT_FOUND: NTSTATUS = 0xC000_003A_u32.cast_signed();
const PATH_SYNTAX_BAD: NTSTATUS = 0xC000_003B_u32.cast_signed();
const INVALID_SECURITY_DESCR: NTSTATUS = 0xC000_0079_u32.cast_signed();

// ---- control devices ---------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects>
#[test]
fn a_non_pnp_driver_is_used_through_its_control_device() {
    let mut machine = started(|_| create_control().map_or_else(|status| status, |_| 0));
    let file = machine.open(r"\\.\Lab").unwrap();
    assert!(machine.write(file, b"abc").unwrap().is_success());
    machine.close(file).unwrap();
    let file = machine.open(r"\Device\Lab").unwrap();
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();
    // "the framework deletes the control device objects after the driver's
    // EvtDriverUnload callback function returns"
    assert_eq!(journal(), ["file close", "file close", "unload", "cleanup"]);
    assert_eq!(status(machine.open(r"\\.\Lab")), NAME_NOT_FOUND);
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontrolfinishinitializing>
#[test]
fn a_control_device_cannot_be_opened_before_it_is_finished() {
    let mut machine = started(|_| {
        let mut init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, r"\Device\Lab"), 0);
        create_device(&mut init).unwrap();
        0
    });
    assert_eq!(status(machine.open(r"\Device\Lab")), NO_SUCH_DEVICE);
    machine.stop_service("Lab").unwrap();
}

#[test]
fn a_service_with_an_open_control_device_is_not_stopped() {
    let mut machine = started(|_| create_control().map_or_else(|status| status, |_| 0));
    let file = machine.open(r"\\.\Lab").unwrap();
    assert!(matches!(
        machine.stop_service("Lab"),
        Err(Error::State { state: "open", .. })
    ));
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();
    assert!(matches!(
        machine.stop_service("Lab"),
        Err(Error::State {
            state: "stopped",
            ..
        })
    ));
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdriver/ns-wdfdriver-_wdf_driver_config>
#[test]
fn a_non_pnp_driver_without_unload_stays_and_one_with_device_add_is_refused() {
    let mut machine = Machine::default();
    machine.add_service("Lab", without_unload).unwrap();
    machine.start_service("Lab").unwrap();
    assert!(machine.stop_service("Lab").is_err());
    assert_eq!(machine.loaded_drivers(), ["Lab"]);

    let mut machine = Machine::default();
    machine.add_service("Lab", confused).unwrap();
    assert!(matches!(
        machine.start_service("Lab"),
        Err(Error::Driver { status, .. }) if status == INVALID_PARAMETER.cast_unsigned()
    ));
}

/// "If the driver creates both types of device objects, the operating system
/// cannot unload your driver until the driver has deleted the control device objects."
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects>
#[test]
fn a_pnp_driver_that_keeps_its_control_device_cannot_be_unloaded() {
    let (mut machine, device) =
        with_device(|_| create_control().map_or_else(|status| status, |_| 0));
    match machine.remove_device(&device) {
        Err(Error::StaysLoaded { driver, controls }) => {
            assert_eq!(driver, "Lab");
            assert_eq!(controls.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(machine.loaded_drivers(), ["Lab"]);
    // It works still.
    let file = machine.open(r"\\.\Lab").unwrap();
    machine.close(file).unwrap();
}

#[test]
fn a_pnp_driver_that_deletes_its_control_device_is_unloaded() {
    let (mut machine, device) = with_device(|_| {
        let control = create_control().unwrap().addr();
        script(|script| {
            script.cleanup = Some(Box::new(move || {
                delete(std::ptr::without_provenance_mut(control));
            }));
        });
        0
    });
    machine.remove_device(&device).unwrap();
    assert_eq!(journal(), ["cleanup", "cleanup", "unload"]);
    assert!(machine.loaded_drivers().is_empty());
}

/// The object of a deleted control device goes with its last file; no new file is opened.
#[test]
fn a_deleted_control_device_waits_for_its_files() {
    let (mut machine, device) = with_device(|_| {
        let control = create_control().unwrap().addr();
        script(|script| {
            script.cleanup = Some(Box::new(move || {
                delete(std::ptr::without_provenance_mut(control));
            }));
        });
        0
    });
    let file = machine.open(r"\\.\Lab").unwrap();
    machine.remove_device(&device).unwrap();
    assert_eq!(machine.loaded_drivers(), ["Lab"], "a file is open");
    assert_eq!(status(machine.open(r"\\.\Lab")), NO_SUCH_DEVICE);
    assert!(machine.write(file, b"x").unwrap().is_success());
    assert_eq!(journal(), ["cleanup"]);
    machine.close(file).unwrap();
    assert_eq!(journal(), ["file close", "cleanup", "unload"]);
    assert!(machine.loaded_drivers().is_empty());
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfcontrol/nf-wdfcontrol-wdfcontroldeviceinitsetshutdownnotification>
#[test]
fn shutdown_is_told_before_and_after_the_flush() {
    for (flags, times) in [(1, 1), (2, 1), (3, 2)] {
        let mut machine = started(move |_| {
            let mut init = control_init(ADMINISTRATORS);
            wdf!(WdfControlDeviceInitSetShutdownNotification: WdfControlDeviceInitSetShutdownNotificationTableIndex
                as PFN_WDFCONTROLDEVICEINITSETSHUTDOWNNOTIFICATION(init, Some(shutdown), flags));
            finish(create_device(&mut init).unwrap());
            0
        });
        machine.reboot().unwrap();
        assert_eq!(journal(), vec!["shutdown"; times], "flags {flags}");
    }
}

#[test]
fn shutdown_flags_that_are_none_are_caught() {
    let mut machine = Machine::default();
    machine.add_service("Lab", non_pnp).unwrap();
    script(|script| {
        script.entry = Some(Box::new(|_| {
            let init = control_init(ADMINISTRATORS);
            wdf!(WdfControlDeviceInitSetShutdownNotification: WdfControlDeviceInitSetShutdownNotificationTableIndex
                as PFN_WDFCONTROLDEVICEINITSETSHUTDOWNNOTIFICATION(init, Some(shutdown), 4));
            0
        }));
    });
    let (code, _, text) = bug_check(machine.start_service("Lab"));
    assert_eq!(code, 0x1E);
    assert!(text.contains("Flags 0x4"), "{text}");
}

#[test]
fn a_record_for_a_control_device_is_freed_or_used_and_not_touched_again() {
    in_driver(|_| {
        free_init(control_init(ADMINISTRATORS));
        0
    });
    let misuses: [fn(); 3] = [
        || {
            let init = control_init(ADMINISTRATORS);
            free_init(init);
            free_init(init);
        },
        || {
            let mut init = control_init(ADMINISTRATORS);
            let used = init;
            create_device(&mut init).unwrap();
            assert_eq!(assign_name(used, r"\Device\Lab"), 0);
        },
        || {
            let init = control_init(ADMINISTRATORS);
            wdf!(WdfDeviceInitSetPowerNotPageable: WdfDeviceInitSetPowerNotPageableTableIndex
                as PFN_WDFDEVICEINITSETPOWERNOTPAGEABLE(init));
        },
    ];
    for (misuse, code) in misuses.into_iter().zip([0x10D, 0x10D, 0x1E]) {
        let mut machine = Machine::default();
        machine.add_service("Lab", non_pnp).unwrap();
        script(|script| {
            script.entry = Some(Box::new(move |_| {
                misuse();
                0
            }));
        });
        assert_eq!(bug_check(machine.start_service("Lab")).0, code);
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects>
#[test]
fn control_devices_have_no_interfaces_no_properties_no_keys_and_no_power_managed_queues() {
    in_driver(|_| {
        let device = create_control().unwrap();
        let class = guid();
        let status = wdf!(WdfDeviceCreateDeviceInterface: WdfDeviceCreateDeviceInterfaceTableIndex
            as PFN_WDFDEVICECREATEDEVICEINTERFACE(device, &raw const class, std::ptr::null()));
        assert_eq!(status, INVALID_DEVICE_REQUEST);
        assert_eq!(query(device, 0), Err(INVALID_DEVICE_REQUEST));
        assert_eq!(open_key(device, 1, KEY_READ), Err(INVALID_DEVICE_REQUEST));
        let mut config: WDF_IO_QUEUE_CONFIG = unsafe { std::mem::zeroed() };
        config.Size = size_of::<WDF_IO_QUEUE_CONFIG>() as u32;
        config.DispatchType = 3;
        config.PowerManaged = 1;
        let mut queue = std::ptr::null_mut();
        let status = wdf!(WdfIoQueueCreate: WdfIoQueueCreateTableIndex as PFN_WDFIOQUEUECREATE(
            device, &raw mut config, std::ptr::null_mut(), &raw mut queue));
        assert_eq!(status, INVALID_PARAMETER);
        0
    });
}

#[test]
fn a_device_of_pnp_is_no_control_device() {
    let mut machine = Machine::default();
    let device = machine.add_driver("Lab", pnp).unwrap();
    script(|script| {
        script.after = Some(Box::new(|device| {
            finish(device);
            0
        }));
    });
    assert_eq!(bug_check(machine.start_device(&device)).0, 0x1E);
}

#[test]
fn a_control_device_cannot_be_given_up() {
    let mut machine = Machine::default();
    machine.add_service("Lab", non_pnp).unwrap();
    script(|script| {
        script.entry = Some(Box::new(|_| {
            let device = create_control().unwrap();
            wdf!(WdfDeviceSetFailed: WdfDeviceSetFailedTableIndex
                as PFN_WDFDEVICESETFAILED(device, 2));
            0
        }));
    });
    assert_eq!(bug_check(machine.start_service("Lab")).0, 0x1E);
}

#[test]
fn memory_may_be_short_wherever_a_control_device_is_made() {
    for point in 1.. {
        let mut machine = Machine::default();
        machine.add_service("Lab", non_pnp).unwrap();
        machine.fail_nth(Some(point));
        script(|script| {
            script.entry = Some(Box::new(|_| {
                let mut init = control_init(ADMINISTRATORS);
                if init.is_null() {
                    return INSUFFICIENT_RESOURCES;
                }
                let status = assign_name(init, r"\Device\Lab");
                if status < 0 {
                    free_init(init);
                    return status;
                }
                match create_device(&mut init) {
                    Ok(device) => symbolic_link(device, r"\??\Lab"),
                    Err(status) => {
                        free_init(init);
                        status
                    }
                }
            }));
        });
        let result = machine.start_service("Lab");
        if machine.fallible_calls().failed.is_none() {
            result.unwrap();
            assert!(point > 4, "{:?}", machine.fallible_calls());
            return;
        }
        assert!(
            matches!(result, Err(Error::Driver { status, .. }) if status == INSUFFICIENT_RESOURCES.cast_unsigned()),
            "point {point}: {result:?}"
        );
        machine.fail_nth(None);
        script(|script| script.entry = None);
        machine.start_service("Lab").unwrap();
        machine.stop_service("Lab").unwrap();
    }
}

const INSUFFICIENT_RESOURCES: NTSTATUS = 0xC000_009A_u32.cast_signed();

// ---- names and security ------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreate>
#[test]
fn a_name_that_is_taken_is_refused_and_the_record_can_be_used_again() {
    in_driver(|_| {
        create_control().unwrap();
        let mut init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, r"\device\LAB"), 0);
        assert_eq!(create_device(&mut init), Err(NAME_COLLISION));
        assert_eq!(assign_name(init, r"\Device\Lab2"), 0);
        let device = create_device(&mut init).unwrap();
        assert_eq!(symbolic_link(device, r"\DosDevices\lab"), NAME_COLLISION);
        assert_eq!(symbolic_link(device, r"\DosDevices\Lab2"), 0);
        0
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitassignname>
#[test]
fn names_that_cannot_be_are_refused() {
    in_driver(|_| {
        let init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, "Lab"), INVALID_PARAMETER);
        let mut odd = string(r"\Device\Lab");
        odd.Length = 3;
        let status = wdf!(WdfDeviceInitAssignName: WdfDeviceInitAssignNameTableIndex
            as PFN_WDFDEVICEINITASSIGNNAME(init, &raw const odd));
        assert_eq!(status, INVALID_PARAMETER);
        free_init(init);
        for (name, expected) in [
            (r"\Device\", NAME_INVALID),
            (r"\", NAME_INVALID),
            (r"\Device\A\B", PATH_NOT_FOUND),
            (r"\Nowhere\Lab", PATH_NOT_FOUND),
        ] {
            let mut init = control_init(ADMINISTRATORS);
            assert_eq!(assign_name(init, name), 0, "{name}");
            assert_eq!(create_device(&mut init), Err(expected), "{name}");
            free_init(init);
        }
        0
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicecreatesymboliclink>
#[test]
fn links_that_cannot_be_are_refused() {
    in_driver(|_| {
        let mut init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, r"\Device\Lab"), 0);
        let device = create_device(&mut init).unwrap();
        assert_eq!(symbolic_link(device, ""), INVALID_DEVICE_REQUEST);
        assert_eq!(symbolic_link(device, "Lab"), PATH_SYNTAX_BAD);
        assert_eq!(symbolic_link(device, r"\Nowhere\Lab"), PATH_NOT_FOUND);
        assert_eq!(symbolic_link(device, r"\\.\Lab"), PATH_NOT_FOUND);
        assert_eq!(symbolic_link(device, r"\DosDevices\A\B"), PATH_NOT_FOUND);
        assert_eq!(symbolic_link(device, r"\DosDevices\Global\Lab"), 0);
        assert_eq!(
            symbolic_link(device, r"\DosDevices\More"),
            INVALID_DEVICE_REQUEST
        );
        // "but your driver cannot call WdfDeviceCreateSymbolicLink"
        // https://learn.microsoft.com/windows-hardware/drivers/wdf/using-control-device-objects
        let mut init = control_init(ADMINISTRATORS);
        let nameless = create_device(&mut init).unwrap();
        assert_eq!(
            symbolic_link(nameless, r"\??\Nameless"),
            INVALID_DEVICE_REQUEST
        );
        0
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/controlling-device-access-in-kmdf-drivers>
#[test]
fn a_security_descriptor_needs_a_name_and_has_to_be_one() {
    in_driver(|_| {
        let mut init = control_init("nonsense");
        assert_eq!(create_device(&mut init), Err(INVALID_PARAMETER));
        assert_eq!(assign_sddl(init, "D:P(A;;XX;;;SY)"), 0);
        assert_eq!(create_device(&mut init), Err(INVALID_PARAMETER));
        assert_eq!(assign_sddl(init, ADMINISTRATORS), 0);
        // Without FILE_AUTOGENERATED_DEVICE_NAME there is no name.
        wdf!(WdfDeviceInitSetCharacteristics: WdfDeviceInitSetCharacteristicsTableIndex
            as PFN_WDFDEVICEINITSETCHARACTERISTICS(init, 0, 0));
        assert_eq!(create_device(&mut init), Err(INVALID_SECURITY_DESCR));
        assert_eq!(assign_name(init, r"\Device\Lab"), 0);
        create_device(&mut init).unwrap();
        0
    });
    let mut machine = Machine::default();
    let device = machine.add_driver("Lab", pnp).unwrap();
    script(|script| {
        script.before = Some(Box::new(|init| {
            let class = guid();
            wdf!(WdfDeviceInitSetDeviceClass: WdfDeviceInitSetDeviceClassTableIndex
                as PFN_WDFDEVICEINITSETDEVICECLASS(init, &raw const class));
            0
        }));
    });
    assert!(matches!(
        machine.start_device(&device),
        Err(Error::Driver { status, .. }) if status == INVALID_SECURITY_DESCR.cast_unsigned()
    ));
}

/// <https://learn.microsoft.com/windows-hardware/drivers/kernel/sddl-for-device-objects>
#[test]
fn a_descriptor_without_administrators_keeps_the_user_out() {
    for (sddl, is_open) in [
        ("D:P", false),
        ("D:P(A;;GA;;;SY)", false),
        (ADMINISTRATORS, true),
    ] {
        let mut machine = started(move |_| {
            let mut init = control_init(sddl);
            assert_eq!(assign_name(init, r"\Device\Lab"), 0);
            finish(create_device(&mut init).unwrap());
            0
        });
        match machine.open(r"\Device\Lab") {
            Ok(file) if is_open => machine.close(file).unwrap(),
            result => assert_eq!(status(result), ACCESS_DENIED, "{sddl}"),
        }
        machine.stop_service("Lab").unwrap();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceinitsetexclusive>
#[test]
fn an_exclusive_device_is_opened_once() {
    let mut machine = started(|_| {
        let mut init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, r"\Device\Lab"), 0);
        wdf!(WdfDeviceInitSetExclusive: WdfDeviceInitSetExclusiveTableIndex
            as PFN_WDFDEVICEINITSETEXCLUSIVE(init, 1));
        finish(create_device(&mut init).unwrap());
        0
    });
    let file = machine.open(r"\Device\Lab").unwrap();
    assert_eq!(status(machine.open(r"\Device\Lab")), ACCESS_DENIED);
    machine.close(file).unwrap();
    let file = machine.open(r"\Device\Lab").unwrap();
    machine.close(file).unwrap();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceenqueuerequest>
#[test]
fn a_request_comes_in_the_callers_context_first() {
    let mut machine = started(|_| {
        let mut init = control_init(ADMINISTRATORS);
        assert_eq!(assign_name(init, r"\Device\Lab"), 0);
        wdf!(WdfDeviceInitSetIoInCallerContextCallback: WdfDeviceInitSetIoInCallerContextCallbackTableIndex
            as PFN_WDFDEVICEINITSETIOINCALLERCONTEXTCALLBACK(init, Some(in_caller_context)));
        let device = create_device(&mut init).unwrap();
        assert_eq!(default_queue(device), 0);
        finish(device);
        0
    });
    let file = machine.open(r"\Device\Lab").unwrap();
    assert!(machine.write(file, b"abc").unwrap().is_success());
    assert_eq!(journal(), ["in caller context"]);
    machine.close(file).unwrap();
    machine.stop_service("Lab").unwrap();
}

// ---- properties and keys -----------------------------------------------

fn guid() -> GUID {
    GUID {
        Data1: 0x78A1_C341,
        Data2: 0x4539,
        Data3: 0x11D3,
        Data4: [0xB8, 0x8D, 0, 0xC0, 0x4F, 0xAD, 0x51, 0x71],
    }
}

fn query(device: WDFDEVICE, property: i32) -> Result<Vec<u8>, NTSTATUS> {
    let mut needed = 0;
    let status = wdf!(WdfDeviceQueryProperty: WdfDeviceQueryPropertyTableIndex
        as PFN_WDFDEVICEQUERYPROPERTY(device, property, 0, std::ptr::null_mut(), &raw mut needed));
    assert!(status < 0);
    if status != BUFFER_TOO_SMALL {
        return Err(status);
    }
    let mut bytes = vec![0_u8; needed as usize];
    let status = wdf!(WdfDeviceQueryProperty: WdfDeviceQueryPropertyTableIndex
        as PFN_WDFDEVICEQUERYPROPERTY(device, property, needed, bytes.as_mut_ptr().cast(), &raw mut needed));
    assert_eq!(status, 0);
    Ok(bytes)
}

const BUFFER_TOO_SMALL: NTSTATUS = 0xC000_0023_u32.cast_signed();
const INVALID_PARAMETER_2: NTSTATUS = 0xC000_00F0_u32.cast_signed();

fn sz(text: &str) -> Vec<u8> {
    Value::sz(text).data
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicequeryproperty>
#[test]
fn properties_say_what_the_inf_said() {
    let (mut machine, device) = with_device(|device| {
        assert_eq!(query(device, 0), Ok(sz("Lab, part of the host program")));
        assert_eq!(query(device, 1), Ok(Value::multi_sz([r"Root\Lab"]).data));
        assert_eq!(query(device, 5), Ok(sz("Sample")));
        assert_eq!(
            query(device, 6).unwrap().to_ascii_lowercase(),
            sz("{78a1c341-4539-11d3-b88d-00c04fad5171}")
        );
        assert_eq!(
            query(device, 15).map(|name| name.to_ascii_lowercase()),
            Ok(sz("root"))
        );
        assert_eq!(query(device, 18), Ok(vec![0; 4]));
        assert_eq!(
            query(device, 9),
            Err(NAME_NOT_FOUND.cast_signed()),
            "FriendlyName"
        );
        assert_eq!(query(device, 23), Err(INVALID_PARAMETER_2));
        let mut memory: WDFMEMORY = std::ptr::null_mut();
        let status = wdf!(WdfDeviceAllocAndQueryProperty: WdfDeviceAllocAndQueryPropertyTableIndex
            as PFN_WDFDEVICEALLOCANDQUERYPROPERTY(device, 5, 512, std::ptr::null_mut(), &raw mut memory));
        assert_eq!(status, 0);
        let mut size = 0;
        let buffer = wdf!(WdfMemoryGetBuffer: WdfMemoryGetBufferTableIndex
            as PFN_WDFMEMORYGETBUFFER(memory, &raw mut size));
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), size) };
        assert_eq!(bytes, sz("Sample"));
        delete(memory.cast());
        0
    });
    machine.remove_device(&device).unwrap();
}

#[test]
fn the_resources_of_a_device_are_not_among_its_simulated_properties() {
    let mut machine = Machine::default();
    let device = machine.add_driver("Lab", pnp).unwrap();
    script(|script| {
        script.after = Some(Box::new(|device| {
            let _ = query(device, 3);
            0
        }));
    });
    let stop = stop(machine.start_device(&device));
    assert!(stop.to_string().contains("resources of a device"), "{stop}");
}

fn property_data(key: &DEVPROPKEY, flags: u32) -> WDF_DEVICE_PROPERTY_DATA {
    let mut data: WDF_DEVICE_PROPERTY_DATA = unsafe { std::mem::zeroed() };
    data.Size = size_of::<WDF_DEVICE_PROPERTY_DATA>() as u32;
    data.PropertyKey = &raw const *key;
    data.Flags = flags;
    data
}

fn assign(device: WDFDEVICE, key: &DEVPROPKEY, flags: u32, bytes: &[u8]) -> NTSTATUS {
    const TYPE_BYTES: u32 = 0x1003;
    let mut data = property_data(key, flags);
    wdf!(WdfDeviceAssignProperty: WdfDeviceAssignPropertyTableIndex as PFN_WDFDEVICEASSIGNPROPERTY(
        device, &raw mut data, TYPE_BYTES, bytes.len() as u32, bytes.as_ptr().cast_mut().cast()))
}

fn query_ex(device: WDFDEVICE, key: &DEVPROPKEY) -> Result<(u32, Vec<u8>), NTSTATUS> {
    let mut data = property_data(key, 0);
    let (mut needed, mut kind) = (0, 0);
    let mut bytes = vec![0_u8; 256];
    let status = wdf!(WdfDeviceQueryPropertyEx: WdfDeviceQueryPropertyExTableIndex
        as PFN_WDFDEVICEQUERYPROPERTYEX(
            device, &raw mut data, 256, bytes.as_mut_ptr().cast(), &raw mut needed, &raw mut kind));
    bytes.truncate(needed as usize);
    if status < 0 {
        Err(status)
    } else {
        Ok((kind, bytes))
    }
}

const OWN: DEVPROPKEY = DEVPROPKEY {
    fmtid: GUID {
        Data1: 1,
        Data2: 2,
        Data3: 3,
        Data4: [4; 8],
    },
    pid: 7,
};

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceassignproperty>
#[test]
fn a_property_that_is_to_last_outlives_a_reboot_and_others_do_not() {
    const PERSISTENT: u32 = 1;
    for (flags, lasts) in [(0, false), (PERSISTENT, true)] {
        let (mut machine, device) = with_device(move |device| {
            assert_eq!(query_ex(device, &OWN), Err(NAME_NOT_FOUND.cast_signed()));
            assert_eq!(assign(device, &OWN, flags, b"abc"), 0);
            assert_eq!(query_ex(device, &OWN), Ok((0x1003, b"abc".to_vec())));
            0
        });
        machine.reboot().unwrap();
        script(|script| {
            script.after = Some(Box::new(move |device| {
                assert_eq!(query_ex(device, &OWN).is_ok(), lasts);
                assert_eq!(assign(device, &OWN, flags, b""), 0);
                assert!(query_ex(device, &OWN).is_err());
                0
            }));
        });
        machine.start_device(&device).unwrap();
        machine.remove_device(&device).unwrap();
    }
}

#[test]
fn keys_of_properties_that_cannot_be_are_refused() {
    let (mut machine, device) = with_device(|device| {
        let reserved = DEVPROPKEY { pid: 1, ..OWN };
        assert_eq!(query_ex(device, &reserved), Err(INVALID_PARAMETER));
        let mut data = property_data(&OWN, 0);
        data.Size = 4;
        let (mut needed, mut kind) = (0, 0);
        let status = wdf!(WdfDeviceQueryPropertyEx: WdfDeviceQueryPropertyExTableIndex
            as PFN_WDFDEVICEQUERYPROPERTYEX(
                device, &raw mut data, 0, std::ptr::null_mut(), &raw mut needed, &raw mut kind));
        assert_eq!(status, 0xC000_0004_u32.cast_signed());
        0
    });
    machine.remove_device(&device).unwrap();
}

const KEY_READ: u32 = 0x0002_0019;
const KEY_WRITE: u32 = 0x0002_0006;

fn open_key(device: WDFDEVICE, kind: u32, access: u32) -> Result<WDFKEY, NTSTATUS> {
    let mut key = std::ptr::null_mut();
    let status = wdf!(WdfDeviceOpenRegistryKey: WdfDeviceOpenRegistryKeyTableIndex
        as PFN_WDFDEVICEOPENREGISTRYKEY(device, kind, access, std::ptr::null_mut(), &raw mut key));
    if status < 0 { Err(status) } else { Ok(key) }
}

fn assign_ulong(key: WDFKEY, name: &str, value: u32) -> NTSTATUS {
    let name = string(name);
    wdf!(WdfRegistryAssignULong: WdfRegistryAssignULongTableIndex
        as PFN_WDFREGISTRYASSIGNULONG(key, &raw const name, value))
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceopenregistrykey>
#[test]
fn a_device_has_a_hardware_key_and_a_software_key() {
    let (mut machine, device) = with_device(|device| {
        for kind in [1, 2] {
            let key = open_key(device, kind, KEY_WRITE).unwrap();
            assert_eq!(assign_ulong(key, "Kind", kind), 0);
            delete(key.cast());
            let key = open_key(device, kind, KEY_READ).unwrap();
            assert_eq!(assign_ulong(key, "Kind", 9), ACCESS_DENIED.cast_signed());
            delete(key.cast());
        }
        assert_eq!(open_key(device, 3, KEY_READ), Err(INVALID_PARAMETER));
        0
    });
    machine.remove_device(&device).unwrap();
    let registry = machine.registry();
    let read = |path: String| {
        let key = registry.open(path).unwrap();
        registry.value(key, "Kind").unwrap().as_dword()
    };
    let system = r"\Registry\Machine\SYSTEM\CurrentControlSet";
    assert_eq!(
        read(format!(r"{system}\Enum\{device}\Device Parameters")),
        Some(1)
    );
    assert_eq!(
        read(format!(
            r"{system}\Control\Class\{{78A1C341-4539-11d3-B88D-00C04FAD5171}}\0000"
        )),
        Some(2)
    );
}

// ---- devices that fail -------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdevicesetdevicestate>
#[test]
fn a_device_whose_state_says_failed_is_taken_away() {
    let (mut machine, _) = with_device(|device| {
        let mut state: ntsim_sys::WDF_DEVICE_STATE = unsafe { std::mem::zeroed() };
        state.Size = size_of::<ntsim_sys::WDF_DEVICE_STATE>() as u32;
        state.Failed = 1;
        wdf!(WdfDeviceSetDeviceState: WdfDeviceSetDeviceStateTableIndex
            as PFN_WDFDEVICESETDEVICESTATE(device, &raw mut state));
        0
    });
    machine.run_for(Duration::from_secs(1)).unwrap();
    assert!(machine.started_devices().is_empty());
    assert!(machine.loaded_drivers().is_empty());
}
