// SPDX-License-Identifier: MIT OR Apache-2.0

//! A file object is referenced so that it stays while work on it is queued, and
//! dereferenced by the work; work that is refused does not dereference it.
//!
//! ntsim: leak; the driver is unloaded and leaves the file object.

use std::sync::atomic::{AtomicBool, Ordering};

use ntsim_sys::*;

use super::*;

struct Context {
    busy: AtomicBool,
    item: WDFWORKITEM,
    file: WDFFILEOBJECT,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"REFERENCES");

pub unsafe extern "C-unwind" fn entry<const FIXED: bool>(
    object: *mut DRIVER_OBJECT,
    path: PCUNICODE_STRING,
) -> NTSTATUS {
    create_driver(object, path, Some(device_add::<FIXED>), None)
}

unsafe extern "C-unwind" fn device_add<const FIXED: bool>(
    _: WDFDRIVER,
    init: PWDFDEVICE_INIT,
) -> NTSTATUS {
    status((|| {
        let mut files = WDF_FILEOBJECT_CONFIG {
            AutoForwardCleanupClose: 2,
            FileObjectClass: 2,
            ..sized()
        };
        wdf!(WdfDeviceInitSetFileObjectConfig: WdfDeviceInitSetFileObjectConfigTableIndex
            as PFN_WDFDEVICEINITSETFILEOBJECTCONFIG(init, &raw mut files, null_mut()));
        let device = create_device(init, CONTEXT.attributes())?;
        let context = CONTEXT.of::<Context>(device.cast());
        let mut config = WDF_WORKITEM_CONFIG {
            EvtWorkItemFunc: Some(on_work),
            ..sized()
        };
        let mut attributes = crate::raw::below(device.cast());
        check(
            wdf!(WdfWorkItemCreate: WdfWorkItemCreateTableIndex as PFN_WDFWORKITEMCREATE(
            &raw mut config, &raw mut attributes, &raw mut (*context).item)),
        )?;
        create_queue(device, PARALLEL, Some(on_control::<FIXED>), NO)?;
        Ok(())
    })())
}

fn dereference(object: WDFOBJECT) {
    wdf!(WdfObjectDereferenceActual: WdfObjectDereferenceActualTableIndex
        as PFN_WDFOBJECTDEREFERENCEACTUAL(object, null_mut(), 0, c"".as_ptr()));
}

unsafe extern "C-unwind" fn on_control<const FIXED: bool>(
    queue: WDFQUEUE,
    request: WDFREQUEST,
    _: usize,
    _: usize,
    _: u32,
) {
    let context = CONTEXT.of::<Context>(device_of(queue).cast());
    let file = wdf!(WdfRequestGetFileObject: WdfRequestGetFileObjectTableIndex
        as PFN_WDFREQUESTGETFILEOBJECT(request));
    wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex
        as PFN_WDFOBJECTREFERENCEACTUAL(file.cast(), null_mut(), 0, c"".as_ptr()));
    if unsafe { (*context).busy.swap(true, Ordering::AcqRel) } {
        if FIXED {
            dereference(file.cast());
        }
        complete(request, STATUS_DEVICE_BUSY);
        return;
    }
    unsafe { (*context).file = file };
    wdf!(WdfWorkItemEnqueue: WdfWorkItemEnqueueTableIndex
        as PFN_WDFWORKITEMENQUEUE((*context).item));
    complete(request, 0);
}

unsafe extern "C-unwind" fn on_work(item: WDFWORKITEM) {
    let device = wdf!(WdfWorkItemGetParentObject: WdfWorkItemGetParentObjectTableIndex
        as PFN_WDFWORKITEMGETPARENTOBJECT(item));
    let context = CONTEXT.of::<Context>(device);
    dereference(unsafe { (*context).file }.cast());
    unsafe { (*context).busy.store(false, Ordering::Release) };
}
