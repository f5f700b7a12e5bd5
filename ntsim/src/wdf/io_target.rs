// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFIOTARGET`: a device's default target, which is the next lower driver:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-i-o-targets>
//!
//! The lower driver is a closure of the test's
//! ([`Machine::set_lower_driver`](crate::Machine::set_lower_driver)); without
//! one, requests fail with `STATUS_INVALID_DEVICE_REQUEST`, as a bus driver's
//! PDO does with what it does not know.
//!
//! Simulated are the synchronous sends with buffers or `WDFMEMORY` in their
//! descriptors. What a driver sends through a `WDFREQUEST` of its own is not.

use std::rc::Rc;
use std::time::Duration;

use crate::access::{peek, peek_bytes, poke, poke_bytes};
use crate::bugcheck::Stop;
use crate::kernel::{Expiry, Kernel};
use crate::trace::Event;
use crate::trap::kernel;

use super::object::{self, Attributes, Data, Handle};
use super::raw::{MemoryDescriptor, SendOptions};
use super::{Globals, STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_PARAMETER, STATUS_SUCCESS};

/// `STATUS_IO_TIMEOUT`.
const STATUS_IO_TIMEOUT: i32 = 0xC000_00B5_u32.cast_signed();

/// What a driver asks of the driver below it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LowerRequest {
    /// A read of so many bytes.
    Read {
        /// The buffer's size.
        length: usize,
    },
    /// A write.
    Write {
        /// What to write.
        bytes: Vec<u8>,
    },
    /// A device control code, or an internal one.
    Control {
        /// The code.
        code: u32,
        /// Its input.
        input: Vec<u8>,
        /// The output buffer's size.
        output: usize,
        /// Whether it is `IRP_MJ_INTERNAL_DEVICE_CONTROL`.
        internal: bool,
    },
}

/// What the driver below answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// At once, with a status and the bytes that were read or given out; what
    /// the buffer has no room for is cut off.
    Now(u32, Vec<u8>),
    /// The same, after so much virtual time.
    After(Duration, u32, Vec<u8>),
    /// Never: the request times out, or its sender waits for ever.
    Never,
}

/// The driver below a device.
pub(crate) type Lower = Rc<dyn Fn(&LowerRequest) -> Answer>;

/// What the framework keeps of a target.
pub(crate) struct Target {
    device: Handle,
}

/// `WdfDeviceGetIoTarget`: the default target.
pub(crate) fn of_device(_: Globals, device: Handle) -> Handle {
    let function = "WdfDeviceGetIoTarget";
    kernel(|k| {
        if let Some(target) = object::device(k, device, function).io.target {
            return target;
        }
        let slot = object::get(k, device).driver;
        let data = Data::IoTarget(Target { device });
        let target = object::create(k, slot, Some(device), &Attributes::default(), data)
            .unwrap_or(std::ptr::null_mut());
        if !target.is_null() {
            object::device(k, device, function).io.target = Some(target);
        }
        target
    })
}

/// `WdfIoTargetGetDevice`.
pub(crate) fn get_device(_: Globals, target: Handle) -> Handle {
    kernel(|k| object::io_target(k, target, "WdfIoTargetGetDevice").device)
}

/// The memory that a `WDF_MEMORY_DESCRIPTOR` stands for; none for NULL.
fn memory(from: *const MemoryDescriptor, function: &'static str) -> Result<(usize, usize), i32> {
    const BUFFER: u32 = 1;
    const HANDLE: u32 = 3;
    if from.is_null() {
        return Ok((0, 0));
    }
    let descriptor = peek(from);
    match descriptor.kind {
        BUFFER => Ok((descriptor.first, descriptor.second & 0xFFFF_FFFF)),
        HANDLE => {
            let (address, size) =
                kernel(|k| object::memory(k, descriptor.first as Handle, function).buffer());
            if descriptor.second == 0 {
                return Ok((address, size));
            }
            let offset = peek(descriptor.second as *const super::raw::MemoryOffset);
            let length = if offset.buffer_length == 0 {
                size.saturating_sub(offset.buffer_offset)
            } else {
                offset.buffer_length
            };
            match offset.buffer_offset.checked_add(length) {
                Some(end) if end <= size => Ok((address + offset.buffer_offset, length)),
                _ => Err(STATUS_INVALID_PARAMETER),
            }
        }
        _ => kernel(|k| {
            let stop = Stop::not_simulated(k, "a memory descriptor of an MDL");
            k.stop(stop)
        }),
    }
}

fn bytes((address, length): (usize, usize)) -> Vec<u8> {
    if length == 0 {
        Vec::new()
    } else {
        peek_bytes(address as *const u8, length)
    }
}

/// How long the sender waits, in 100 ns units.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for send-and-forget.
fn timeout(options: *const SendOptions) -> Result<Option<u64>, i32> {
    const TIMEOUT: u32 = 1;
    const SEND_AND_FORGET: u32 = 8;
    if options.is_null() {
        return Ok(None);
    }
    let options = peek(options);
    if options.size as usize != size_of::<SendOptions>() {
        return Err(super::STATUS_INFO_LENGTH_MISMATCH);
    }
    if options.flags & SEND_AND_FORGET != 0 {
        return Err(STATUS_INVALID_PARAMETER);
    }
    if options.flags & TIMEOUT == 0 || options.timeout == 0 {
        return Ok(None);
    }
    Ok(Some(kernel(|k| {
        k.due_time(options.timeout).saturating_sub(k.now)
    })))
}

fn sleep(time: u64) {
    let end = kernel(|k| {
        let end = k.now.saturating_add(time);
        k.insert_timer(end, Expiry::Host(Box::new(super::wake)));
        end
    });
    super::wait_until(|k| k.now >= end);
}

/// Sends a request and waits for its answer.
fn send(
    target: Handle,
    own: Handle,
    asked: &LowerRequest,
    output: (usize, usize),
    timeout: Option<u64>,
    transferred: *mut usize,
    function: &'static str,
) -> i32 {
    let lower = kernel(|k| {
        crate::ke::irql::passive(k, function);
        if !own.is_null() {
            let stop =
                Stop::not_simulated(k, "a synchronous send with a WDFREQUEST of the driver's");
            k.stop(stop);
        }
        let device = object::io_target(k, target, function).device;
        let instance = object::device(k, device, function).instance.to_lowercase();
        k.log(Event::Machine(format!(
            "the lower driver is asked: {asked:?}"
        )));
        k.wdf.lower.get(&instance).cloned()
    });
    let answer = match lower {
        // A closure of the host's: it may not call into the simulation.
        Some(lower) => kernel(|_: &mut Kernel| lower(asked)),
        None => Answer::Now(STATUS_INVALID_DEVICE_REQUEST.cast_unsigned(), Vec::new()),
    };
    let (after, status, data) = match answer {
        Answer::Now(status, data) => (0, status, data),
        Answer::After(time, status, data) => (
            u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX),
            status,
            data,
        ),
        Answer::Never => (u64::MAX, 0, Vec::new()),
    };
    if let Some(timeout) = timeout
        && timeout < after
    {
        sleep(timeout);
        return STATUS_IO_TIMEOUT;
    }
    match after {
        0 => {}
        u64::MAX => super::wait_until(|_| false),
        time => sleep(time),
    }
    let written = match asked {
        LowerRequest::Write { bytes } if data.is_empty() && status.cast_signed() >= 0 => {
            bytes.len()
        }
        _ => {
            let length = data.len().min(output.1);
            if length != 0 {
                poke_bytes(output.0 as *mut u8, &data[..length]);
            }
            length
        }
    };
    if !transferred.is_null() {
        poke(transferred, written);
    }
    debug_assert_eq!(STATUS_SUCCESS, 0);
    status.cast_signed()
}

/// `WdfIoTargetSendReadSynchronously`. Needs `PASSIVE_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INFO_LENGTH_MISMATCH`, `STATUS_INVALID_PARAMETER`,
/// `STATUS_IO_TIMEOUT`, and the lower driver's.
pub(crate) fn send_read(
    _: Globals,
    target: Handle,
    own: Handle,
    output: *const MemoryDescriptor,
    _offset: *const i64,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendReadSynchronously";
    let checked = memory(output, function).and_then(|output| Ok((output, timeout(options)?)));
    match checked {
        Ok((output, timeout)) => {
            let asked = LowerRequest::Read { length: output.1 };
            send(target, own, &asked, output, timeout, transferred, function)
        }
        Err(status) => status,
    }
}

/// `WdfIoTargetSendWriteSynchronously`. Needs `PASSIVE_LEVEL`. Errors as for reads.
pub(crate) fn send_write(
    _: Globals,
    target: Handle,
    own: Handle,
    input: *const MemoryDescriptor,
    _offset: *const i64,
    options: *const SendOptions,
    transferred: *mut usize,
) -> i32 {
    let function = "WdfIoTargetSendWriteSynchronously";
    let checked = memory(input, function).and_then(|input| Ok((input, timeout(options)?)));
    match checked {
        Ok((input, timeout)) => {
            let asked = LowerRequest::Write {
                bytes: bytes(input),
            };
            send(target, own, &asked, (0, 0), timeout, transferred, function)
        }
        Err(status) => status,
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the framework's own signature, and which of two functions it is"
)]
fn control(
    target: Handle,
    own: Handle,
    code: u32,
    input: *const MemoryDescriptor,
    output: *const MemoryDescriptor,
    options: *const SendOptions,
    transferred: *mut usize,
    function: &'static str,
) -> i32 {
    let checked = memory(input, function)
        .and_then(|input| Ok((input, memory(output, function)?, timeout(options)?)));
    match checked {
        Ok((input, output, timeout)) => {
            let internal = function == "WdfIoTargetSendInternalIoctlSynchronously";
            let asked = LowerRequest::Control {
                code,
                input: bytes(input),
                output: output.1,
                internal,
            };
            send(target, own, &asked, output, timeout, transferred, function)
        }
        Err(status) => status,
    }
}

/// `WdfIoTargetSendIoctlSynchronously`. Needs `PASSIVE_LEVEL`. Errors as for reads.
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
    control(
        target,
        own,
        code,
        input,
        output,
        options,
        transferred,
        "WdfIoTargetSendIoctlSynchronously",
    )
}

/// `WdfIoTargetSendInternalIoctlSynchronously`. Needs `PASSIVE_LEVEL`. Errors as for reads.
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
    control(
        target,
        own,
        code,
        input,
        output,
        options,
        transferred,
        "WdfIoTargetSendInternalIoctlSynchronously",
    )
}
