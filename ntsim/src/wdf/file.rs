// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFFILEOBJECT`: <https://learn.microsoft.com/windows-hardware/drivers/wdf/framework-file-objects>
//!
//! ```text
//!   open ── EvtDeviceFileCreate ──► open ── the last handle goes: EvtFileCleanup ──►
//!                │ the request fails                                               │
//!                ▼                              the last request is completed:     │
//!             (deleted) ◄──────────────────────────── EvtFileClose ◄───────────────┘
//! ```

use crate::abi::{callback, param};
use crate::access::{UnicodeString, poke};
use crate::io::irp::{self, Ask, Completion, FileId, IrpId, Kind};
use crate::kernel::{Expiry, Kernel};
use crate::trace::Event;
use crate::trap::kernel;

use super::object::{self, Data, Handle};
use super::{
    Globals, STATUS_ACCESS_DENIED, STATUS_INVALID_DEVICE_REQUEST, STATUS_NO_SUCH_DEVICE,
    STATUS_OBJECT_NAME_NOT_FOUND, STATUS_SUCCESS, control, interface, io_target, pnp, queue,
    request,
};

/// `WdfDeviceIoDirect`.
const IO_DIRECT: u32 = 3;

/// `WdfFileObjectNotRequired`.
const NOT_REQUIRED: u32 = 1;

/// What the framework keeps of a file object.
pub(crate) struct File {
    device: Handle,
    name: Vec<u16>,
    /// Its name as a `UNICODE_STRING`; 0 until asked for.
    address: usize,
}

/// Opens a device by one of its names, on the caller's thread.
///
/// # Errors
/// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_NO_SUCH_DEVICE` for a device that is
/// gone, `STATUS_ACCESS_DENIED` for the second file of an exclusive device, and
/// the driver's status.
pub(crate) fn open(path: &str) -> Result<FileId, i32> {
    let (file, device) = kernel(|k| {
        let found = interface::find(k, path).ok_or(STATUS_OBJECT_NAME_NOT_FOUND)?;
        let device = found.device;
        let settings = object::device(k, device, "the I/O manager");
        let closed = settings
            .io
            .control
            .is_some_and(|control| control.deleted || !control.finished);
        if closed || settings.pnp.state() == pnp::State::Failed {
            return Err(STATUS_NO_SUCH_DEVICE);
        }
        if settings.settings.denies_administrators() {
            return Err(STATUS_ACCESS_DENIED);
        }
        let exclusive = settings.settings.is_exclusive();
        let config = settings.settings.file_object();
        let attributes = settings.settings.file_object_attributes().clone();
        if exclusive && k.io.irps.open_files(device) > 0 {
            return Err(STATUS_ACCESS_DENIED);
        }
        let file = k.io.irps.add_file(device);
        if config.is_none_or(|config| config.class & 0xFF != NOT_REQUIRED) {
            let slot = object::get(k, device).driver;
            let data = File {
                device,
                name: found.rest.encode_utf16().collect(),
                address: 0,
            };
            match object::create(k, slot, Some(device), &attributes, Data::File(data)) {
                Ok(handle) => k.io.irps.file_mut(file).object = Some(handle),
                Err(status) => {
                    k.io.irps.forget_file(file);
                    return Err(status);
                }
            }
        }
        Ok((file, device))
    })?;
    let status = ask_driver(file, device);
    if status < 0 {
        forget(file);
        return Err(status);
    }
    Ok(file)
}

/// The driver's part of an open: `EvtDeviceFileCreate`, or the queue of create requests.
fn ask_driver(file: FileId, device: Handle) -> i32 {
    let (evt, queue, object) = kernel(|k| {
        let config = object::device(k, device, "the framework")
            .settings
            .file_object();
        let queue = queue::queue_for(k, device, Kind::Create);
        let object = k.io.irps.file(file).and_then(|file| file.object);
        (
            config.map_or(0, |config| config.evt_create),
            queue,
            object.unwrap_or(std::ptr::null_mut()),
        )
    });
    if evt == 0 && queue.is_none() {
        return STATUS_SUCCESS;
    }
    let irp = kernel(|k| irp::begin(k, file, &Ask::Create, false));
    if evt != 0
        && let Some(request) = make_request(irp, device, "opens the device")
    {
        kernel(|k| request::get(k, request).presented = true);
        callback::<()>(
            "EvtDeviceFileCreate",
            evt,
            &[
                param("Device", &device),
                param("Request", &request),
                param("FileObject", &object),
            ],
        );
    } else if evt == 0 {
        submit(irp, "opens the device");
    }
    wait(irp, None).map_or(STATUS_SUCCESS, |completion| completion.status)
}

fn forget(file: FileId) {
    let object = kernel(|k| {
        let object = k.io.irps.file(file).and_then(|file| file.object);
        k.io.irps.forget_file(file);
        object
    });
    if let Some(object) = object {
        object::delete(object);
    }
}

/// Makes a request's `WDFREQUEST`; if that fails the request ends with the status.
fn make_request(irp: IrpId, device: Handle, what: &str) -> Option<Handle> {
    kernel(|k| {
        let attributes = object::device(k, device, "the framework")
            .settings
            .request_attributes()
            .clone();
        match request::create(k, irp, &attributes) {
            Ok(request) => {
                let name = k
                    .name_of(request as usize)
                    .unwrap_or("WDFREQUEST")
                    .to_owned();
                k.log(Event::Machine(format!("{name} {what}")));
                Some(request)
            }
            Err(status) => {
                irp::complete(k, irp, status, 0);
                None
            }
        }
    })
}

/// Hands a request to its queue; it may be completed when this returns.
pub(crate) fn submit(irp: IrpId, what: &str) {
    let (device, kind, empty) = kernel(|k| {
        let irp = k.io.irps.get(irp);
        let empty = match irp.kind {
            Kind::Read => irp.output.length == 0,
            Kind::Write => irp.input.length == 0,
            _ => false,
        };
        (irp.device, irp.kind, empty)
    });
    // https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_io_in_caller_context
    let evt = kernel(|k| {
        let settings = &object::device(k, device, "the framework").settings;
        settings.io_in_caller_context
    });
    if evt != 0 {
        if let Some(request) = make_request(irp, device, what) {
            kernel(|k| request::get(k, request).presented = true);
            callback::<()>(
                "EvtIoInCallerContext",
                evt,
                &[param("Device", &device), param("Request", &request)],
            );
        }
        return;
    }
    let queue = kernel(|k| queue::queue_for(k, device, kind));
    let Some(queue) = queue else {
        let is_filter = kernel(|k| {
            object::device(k, device, "the framework")
                .settings
                .is_filter()
        });
        if !is_filter {
            kernel(|k| irp::complete(k, irp, STATUS_INVALID_DEVICE_REQUEST, 0));
        } else if let Some(request) = make_request(irp, device, what) {
            io_target::pass_down(request);
        }
        return;
    };
    // https://learn.microsoft.com/windows-hardware/drivers/wdf/managing-i-o-queues
    if empty && kernel(|k| queue::get(k, queue).config.allow_zero_length_requests) == 0 {
        kernel(|k| irp::complete(k, irp, STATUS_SUCCESS, 0));
        return;
    }
    let Some(request) = make_request(irp, device, what) else {
        return;
    };
    if let Err(status) = queue::insert(queue, request) {
        request::finish(request, status, 0);
    }
}

/// Begins a request on a file, on the caller's thread.
///
/// # Panics
/// If the file was closed.
pub(crate) fn begin(file: FileId, ask: &Ask) -> IrpId {
    let (irp, what) = prepare(file, ask);
    submit(irp, &what);
    close_if_last(file);
    irp
}

/// Makes a request that is to be [submitted](submit), and says what it does.
///
/// # Panics
/// If the file was closed.
pub(crate) fn prepare(file: FileId, ask: &Ask) -> (IrpId, String) {
    let irp = kernel(|k| {
        let open = k.io.irps.file(file).filter(|file| !file.cleaned_up);
        let device = open
            .expect("the file is open: it was closed, or its device deleted")
            .device;
        let settings = object::device(k, device, "the I/O manager");
        let direct = settings.settings.io_type() == IO_DIRECT;
        irp::begin(k, file, ask, direct)
    });
    let what = match ask {
        Ask::Create => "opens the device".to_owned(),
        Ask::Read(length) => format!("reads {length} bytes"),
        Ask::Write(bytes) => format!("writes {} bytes", bytes.len()),
        Ask::Control {
            code,
            input,
            output,
            internal,
        } => {
            format!(
                "asks for {}{code:#x} with {} bytes in, {} out",
                if *internal { "internal " } else { "" },
                input.len(),
                output.len()
            )
        }
    };
    (irp, what)
}

/// Waits for a request, for at most so many 100 ns units. Gives its completion once.
pub(crate) fn wait(irp: IrpId, timeout: Option<u64>) -> Option<Completion> {
    let end = kernel(|k| {
        timeout.map(|timeout| {
            let end = k.now.saturating_add(timeout);
            k.insert_timer_with_period(end, 1, Expiry::Host(Box::new(super::wake)));
            end
        })
    });
    super::wait_until(|k| {
        let done =
            k.io.irps
                .find(irp)
                .is_none_or(|irp| irp.completion.is_some());
        done || end.is_some_and(|end| k.now >= end)
    });
    kernel(|k| k.io.irps.take(irp))
}

/// Closes a file: `EvtFileCleanup` now, `EvtFileClose` when its last request is completed.
pub(crate) fn close(file: FileId) {
    let Some((device, object)) = kernel(|k| {
        let open = k.io.irps.file(file)?;
        if open.cleaned_up {
            return None;
        }
        let (device, object) = (open.device, open.object);
        k.io.irps.file_mut(file).cleaned_up = true;
        Some((device, object))
    }) else {
        return;
    };
    let evt = kernel(|k| {
        let config = object::device(k, device, "the framework")
            .settings
            .file_object();
        config.map_or(0, |config| config.evt_cleanup)
    });
    if let Some(object) = object
        && evt != 0
    {
        callback::<()>("EvtFileCleanup", evt, &[param("FileObject", &object)]);
    }
    queue::cancel_of_file(device, file);
    close_if_last(file);
}

/// Ends a file that was closed and has no request left.
pub(crate) fn close_if_last(file: FileId) {
    let due = kernel(|k| {
        let Some(open) = k.io.irps.file(file) else {
            return false;
        };
        let due = open.cleaned_up && !open.closed && open.outstanding == 0;
        if due {
            k.io.irps.file_mut(file).closed = true;
        }
        due
    });
    if !due {
        return;
    }
    if kernel(|k| k.irql()) > crate::kernel::PASSIVE_LEVEL {
        kernel(|k| crate::ex::queue_work(k, Box::new(move || finish_close(file))));
    } else {
        finish_close(file);
    }
}

fn finish_close(file: FileId) {
    let (device, evt, object) = kernel(|k| {
        let open = k.io.irps.file(file).expect("it is forgotten below");
        let (device, object) = (open.device, open.object);
        let config = object::device(k, device, "the framework")
            .settings
            .file_object();
        (device, config.map_or(0, |config| config.evt_close), object)
    });
    if let Some(object) = object
        && evt != 0
    {
        callback::<()>("EvtFileClose", evt, &[param("FileObject", &object)]);
    }
    forget(file);
    kernel(super::wake);
    control::file_closed(device);
}

/// `WdfFileObjectGetDevice`.
pub(crate) fn get_device(_: Globals, handle: Handle) -> Handle {
    kernel(|k| object::file(k, handle, "WdfFileObjectGetDevice").device)
}

/// `WdfFileObjectGetFlags`: none that the simulation knows.
pub(crate) fn get_flags(_: Globals, handle: Handle) -> u32 {
    kernel(|k| {
        object::file(k, handle, "WdfFileObjectGetFlags");
    });
    0
}

/// `WdfFileObjectGetFileName`: what follows the device's name. Needs `PASSIVE_LEVEL`.
pub(crate) fn get_file_name(_: Globals, handle: Handle) -> *const UnicodeString {
    let function = "WdfFileObjectGetFileName";
    let (address, units) = kernel(|k| {
        crate::ke::irql::passive(k, function);
        let file = object::file(k, handle, function);
        if file.address != 0 {
            return (file.address, None);
        }
        let units = file.name.clone();
        let name = format!(
            "{}.FileName",
            k.name_of(handle as usize).unwrap_or("WDFFILEOBJECT")
        );
        let address =
            object::allocate_memory(k, size_of::<UnicodeString>() + units.len() * 2, name)
                .expect("the host has memory for a name");
        object::file(k, handle, function).address = address;
        (address, Some(units))
    });
    if let Some(units) = units {
        let buffer = (address + size_of::<UnicodeString>()) as *mut u16;
        for (index, unit) in units.iter().enumerate() {
            poke(buffer.wrapping_add(index), *unit);
        }
        let length = u16::try_from(units.len() * 2).unwrap_or(u16::MAX - 1);
        poke(
            address as *mut UnicodeString,
            UnicodeString {
                length,
                maximum_length: length,
                buffer,
            },
        );
    }
    address as *const UnicodeString
}

impl File {
    pub(crate) fn free(&self, k: &mut Kernel) {
        if self.address != 0 {
            object::free_memory(
                k,
                self.address,
                size_of::<UnicodeString>() + self.name.len() * 2,
            );
        }
    }
}
