// SPDX-License-Identifier: MIT OR Apache-2.0

//! D0Exit stops the timer, does not wait for its callback, and takes the hardware
//! away. A callback that is under way reads registers that are not there any more.
//!
//! ntsim: 0xD1; the driver reads a freed block at `DISPATCH_LEVEL`, in `on_timer`.

use ntsim_sys::ntddk::{ExAllocatePool2, ExFreePoolWithTag};
use ntsim_sys::*;

use super::*;

struct Context {
    /// In place of a mapping of the device's registers.
    registers: *mut u32,
    timer: WDFTIMER,
    last: u32,
}

static CONTEXT: ContextType = ContextType::new::<Context>(c"D0EXIT_RACE");

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
        set_callbacks(
            init,
            WDF_PNPPOWER_EVENT_CALLBACKS {
                EvtDeviceD0Entry: Some(d0_entry),
                EvtDeviceD0Exit: Some(d0_exit::<FIXED>),
                ..sized()
            },
        );
        let device = create_device(init, CONTEXT.attributes())?;
        let context = CONTEXT.of::<Context>(device.cast());
        unsafe { (*context).timer = create_timer(device, on_timer, 10)? };
        Ok(())
    })())
}

unsafe extern "C-unwind" fn d0_entry(device: WDFDEVICE, _: WDF_POWER_DEVICE_STATE) -> NTSTATUS {
    let context = CONTEXT.of::<Context>(device.cast());
    let registers = unsafe { ExAllocatePool2(NON_PAGED, 64, TAG) };
    if registers.is_null() {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    unsafe { (*context).registers = registers.cast() };
    start_timer(unsafe { (*context).timer }, 10);
    0
}

unsafe extern "C-unwind" fn d0_exit<const FIXED: bool>(
    device: WDFDEVICE,
    _: WDF_POWER_DEVICE_STATE,
) -> NTSTATUS {
    let context = CONTEXT.of::<Context>(device.cast());
    stop_timer(unsafe { (*context).timer }, FIXED);
    unsafe { ExFreePoolWithTag((*context).registers.cast(), TAG) };
    0
}

unsafe extern "C-unwind" fn on_timer(timer: WDFTIMER) {
    let device = wdf!(WdfTimerGetParentObject: WdfTimerGetParentObjectTableIndex
        as PFN_WDFTIMERGETPARENTOBJECT(timer));
    let context = CONTEXT.of::<Context>(device);
    let _ = now();
    unsafe { (*context).last = (*context).registers.add(3).read_volatile() };
}
