// SPDX-License-Identifier: MIT OR Apache-2.0

//! The functions that format, send and wait in one:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/sending-i-o-requests-synchronously>
//!
//! They need `PASSIVE_LEVEL`. The request may be NULL: the framework then takes
//! one of its own.

use crate::trap::kernel;

use super::super::raw::{MemoryDescriptor, SendOptions};
use super::super::{
    Globals, STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, object, request,
};
use super::flight::{self, End, Manner, Submitted};
use super::format::{self, Format, Part};
use object::Handle;

/// What all of them do.
fn send(
    target: Handle,
    own: Handle,
    options: *const SendOptions,
    transferred: *mut usize,
    function: &'static str,
    make: impl FnOnce() -> Result<Format, i32>,
) -> i32 {
    match try_send(target, own, options, function, make) {
        Ok((status, information)) => {
            super::give(transferred, information);
            status
        }
        Err(status) => {
            super::give(transferred, 0);
            status
        }
    }
}

fn try_send(
    target: Handle,
    own: Handle,
    options: *const SendOptions,
    function: &'static str,
    make: impl FnOnce() -> Result<Format, i32>,
) -> Result<(i32, usize), i32> {
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::io_target(k, target, function);
    });
    let options = super::options(options)?;
    if options.forget {
        return Err(STATUS_INVALID_PARAMETER);
    }
    let format = make()?;
    let own = (!own.is_null()).then_some(own);
    if let Some(own) = own {
        format::apply(target, own, format.clone(), function)?;
        kernel(|k| request::get(k, own).routine = (0, 0));
    } else if !kernel(|k| super::get(k, target).is_open()) {
        return Err(STATUS_INVALID_DEVICE_STATE);
    }
    let manner = Manner {
        end: End::Synchronous,
        ignores_state: options.ignores_state,
        timeout: options.timeout,
    };
    let submitted = kernel(|k| {
        let submitted = flight::submit(k, target, own, Some(format), manner);
        if let (Err(status), Some(own)) = (&submitted, own) {
            request::get(k, own).set_result(*status, 0);
        }
        submitted
    })?;
    let id = match submitted {
        Submitted::Queued(id) => id,
        Submitted::Send(id) => {
            flight::deliver(id);
            id
        }
    };
    let result = flight::wait(id, options.timeout);
    if let Some(own) = own {
        // The framework's record of the buffers was on this stack.
        format::set(own, None);
    }
    Ok(result)
}

/// `WdfIoTargetSendReadSynchronously`.
///
/// # Errors
/// As documented: `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER`,
/// `STATUS_INVALID_DEVICE_STATE` (the target takes no requests),
/// `STATUS_IO_TIMEOUT`, those of the descriptors, and the lower driver's.
pub(crate) fn send_read(
    _: Globals,
    target: Handle,
    own: Handle,
    output: *const MemoryDescriptor,
    offset: *const i64,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendReadSynchronously";
    send(target, own, options, transferred, function, || {
        Ok(format::read(format::described(output, function)?, offset))
    })
}

/// `WdfIoTargetSendWriteSynchronously`. Errors as for reads.
pub(crate) fn send_write(
    _: Globals,
    target: Handle,
    own: Handle,
    input: *const MemoryDescriptor,
    offset: *const i64,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendWriteSynchronously";
    send(target, own, options, transferred, function, || {
        Ok(format::write(format::described(input, function)?, offset))
    })
}

/// `WdfIoTargetSendIoctlSynchronously`. Errors as for reads.
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn send_ioctl(
    _: Globals,
    target: Handle,
    own: Handle,
    code: u32,
    input: *const MemoryDescriptor,
    output: *const MemoryDescriptor,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendIoctlSynchronously";
    send(target, own, options, transferred, function, || {
        let input = format::described(input, function)?;
        let output = format::described(output, function)?;
        Ok(format::control(code, false, input, output))
    })
}

/// `WdfIoTargetSendInternalIoctlSynchronously`. Errors as for reads.
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn send_internal_ioctl(
    _: Globals,
    target: Handle,
    own: Handle,
    code: u32,
    input: *const MemoryDescriptor,
    output: *const MemoryDescriptor,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendInternalIoctlSynchronously";
    send(target, own, options, transferred, function, || {
        let input = format::described(input, function)?;
        let output = format::described(output, function)?;
        Ok(format::control(code, true, input, output))
    })
}

/// `WdfIoTargetSendInternalIoctlOthersSynchronously`. Errors as for reads.
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn send_internal_ioctl_others(
    _: Globals,
    target: Handle,
    own: Handle,
    code: u32,
    first: *const MemoryDescriptor,
    second: *const MemoryDescriptor,
    fourth: *const MemoryDescriptor,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendInternalIoctlOthersSynchronously";
    send(target, own, options, transferred, function, || {
        let mut arguments = [Part::NONE; 3];
        for (argument, from) in arguments.iter_mut().zip([first, second, fourth]) {
            *argument = format::described(from, function)?;
        }
        Ok(format::others(code, arguments))
    })
}
