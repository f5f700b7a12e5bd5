// SPDX-License-Identifier: MIT OR Apache-2.0

//! A request of the driver's own is sent, and its completion routine deletes it.
//! Whoever sent it then asks it for its status: it may be gone by then.
//!
//! ntsim: 0x10D; a handle that is no object's, in `WdfRequestGetStatus`.

use ntsim_sys::*;

use super::*;

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
        let device = create_device(init, attributes())?;
        create_queue(device, PARALLEL, Some(on_control::<FIXED>), NO)?;
        Ok(())
    })())
}

unsafe extern "C-unwind" fn on_control<const FIXED: bool>(
    queue: WDFQUEUE,
    request: WDFREQUEST,
    _: usize,
    _: usize,
    _: u32,
) {
    complete(request, status(ask::<FIXED>(device_of(queue))));
}

fn reference(object: WDFOBJECT) {
    wdf!(WdfObjectReferenceActual: WdfObjectReferenceActualTableIndex
        as PFN_WDFOBJECTREFERENCEACTUAL(object, null_mut(), 0, c"".as_ptr()));
}

fn dereference(object: WDFOBJECT) {
    wdf!(WdfObjectDereferenceActual: WdfObjectDereferenceActualTableIndex
        as PFN_WDFOBJECTDEREFERENCEACTUAL(object, null_mut(), 0, c"".as_ptr()));
}

fn delete(object: WDFOBJECT) {
    wdf!(WdfObjectDelete: WdfObjectDeleteTableIndex as PFN_WDFOBJECTDELETE(object));
}

#[inline(never)]
fn ask<const FIXED: bool>(device: WDFDEVICE) -> Result<(), NTSTATUS> {
    let target = wdf!(WdfDeviceGetIoTarget: WdfDeviceGetIoTargetTableIndex
        as PFN_WDFDEVICEGETIOTARGET(device));
    let mut attributes = crate::raw::below(device.cast());
    let mut own: WDFREQUEST = null_mut();
    check(wdf!(WdfRequestCreate: WdfRequestCreateTableIndex
        as PFN_WDFREQUESTCREATE(&raw mut attributes, target, &raw mut own)))?;
    let formatted = wdf!(WdfIoTargetFormatRequestForIoctl: WdfIoTargetFormatRequestForIoctlTableIndex
        as PFN_WDFIOTARGETFORMATREQUESTFORIOCTL(
            target, own, control(7), null_mut(), null_mut(), null_mut(), null_mut()));
    if formatted < 0 {
        delete(own.cast());
        return Err(formatted);
    }
    wdf!(WdfRequestSetCompletionRoutine: WdfRequestSetCompletionRoutineTableIndex
        as PFN_WDFREQUESTSETCOMPLETIONROUTINE(own, Some(on_completion), null_mut()));
    if FIXED {
        reference(own.cast());
    }
    let sent = wdf!(WdfRequestSend: WdfRequestSendTableIndex
        as PFN_WDFREQUESTSEND(own, target, null_mut()));
    // Without a reference of the sender's the completion routine may have deleted it.
    let result = wdf!(WdfRequestGetStatus: WdfRequestGetStatusTableIndex
        as PFN_WDFREQUESTGETSTATUS(own));
    if sent == 0 {
        delete(own.cast());
    }
    if FIXED {
        dereference(own.cast());
    }
    check(result)
}

unsafe extern "C-unwind" fn on_completion(
    request: WDFREQUEST,
    _: WDFIOTARGET,
    _: PWDF_REQUEST_COMPLETION_PARAMS,
    _: WDFCONTEXT,
) {
    delete(request.cast());
}
