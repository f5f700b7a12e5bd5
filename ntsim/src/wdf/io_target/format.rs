// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a request asks of its target once it is formatted, and the functions that format:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/sending-i-o-requests-to-general-i-o-targets>

use crate::access::{peek, peek_bytes};
use crate::bugcheck::Stop;
use crate::io::irp::{Buffer, Kind};
use crate::kernel::Kernel;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::super::raw::{CompletionParams, MemoryDescriptor, MemoryOffset};
use super::super::request::{self, Holder};
use super::super::{
    Globals, STATUS_BUFFER_TOO_SMALL, STATUS_INTEGER_OVERFLOW, STATUS_INVALID_DEVICE_STATE,
    STATUS_INVALID_PARAMETER, STATUS_SUCCESS, object,
};
use super::LowerRequest;
use object::Handle;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Control { code: u32, internal: bool },
    Others { code: u32, arguments: [usize; 3] },
}

/// A piece of memory that a format is about, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) buffer: Buffer,
    /// The `WDFMEMORY`; NULL for a plain buffer.
    memory: Handle,
    offset: usize,
}

impl Part {
    pub(crate) const NONE: Self = Self::plain(Buffer {
        address: 0,
        length: 0,
    });

    /// A buffer that is no `WDFMEMORY`'s.
    pub(crate) const fn plain(buffer: Buffer) -> Self {
        Self {
            buffer,
            memory: std::ptr::null_mut(),
            offset: 0,
        }
    }

    /// What is in it.
    pub(crate) fn contents(&self) -> Vec<u8> {
        if self.buffer.address == 0 || self.buffer.length == 0 {
            Vec::new()
        } else {
            peek_bytes(self.buffer.address as *const u8, self.buffer.length)
        }
    }
}

/// A formatted request.
#[derive(Clone, Debug)]
pub(crate) struct Format {
    pub(crate) operation: Operation,
    pub(crate) input: Part,
    pub(crate) output: Part,
    pub(crate) offset: i64,
    /// As it came, for the next lower driver: nothing is told about it on completion.
    pub(crate) is_current: bool,
    /// The `WDFMEMORY` objects that it keeps.
    memories: Vec<Handle>,
}

impl Format {
    fn new(operation: Operation, input: Part, output: Part, offset: i64) -> Self {
        Self {
            operation,
            input,
            output,
            offset,
            is_current: false,
            memories: memories(&[input, output]),
        }
    }

    /// What the lower driver sees. Reads the driver's memory, so it is called on
    /// the context that sends.
    pub(crate) fn asked(&self) -> LowerRequest {
        match self.operation {
            Operation::Read => LowerRequest::Read {
                length: self.output.buffer.length,
                offset: self.offset,
            },
            Operation::Write => LowerRequest::Write {
                bytes: self.input.contents(),
                offset: self.offset,
            },
            Operation::Control { code, internal } => LowerRequest::Control {
                code,
                input: self.input.contents(),
                output: self.output.buffer.length,
                internal,
            },
            Operation::Others { code, arguments } => LowerRequest::Others { code, arguments },
        }
    }

    /// What the completion routine is told: `WDF_REQUEST_COMPLETION_PARAMS`.
    pub(crate) fn completion(&self, status: i32, information: usize) -> CompletionParams {
        const NO_FORMAT: u32 = 0xFF;
        let word = |handle: Handle| handle as u64;
        let count = information as u64;
        let (kind, parameters) = match self.operation {
            _ if self.is_current => (NO_FORMAT, [0; 6]),
            Operation::Read => (
                Kind::Read as u32,
                [
                    word(self.output.memory),
                    count,
                    self.output.offset as u64,
                    0,
                    0,
                    0,
                ],
            ),
            Operation::Write => (
                Kind::Write as u32,
                [
                    word(self.input.memory),
                    count,
                    self.input.offset as u64,
                    0,
                    0,
                    0,
                ],
            ),
            Operation::Control { code, internal } => (
                if internal {
                    Kind::InternalDeviceControl as u32
                } else {
                    Kind::DeviceControl as u32
                },
                [
                    u64::from(code),
                    word(self.input.memory),
                    self.input.offset as u64,
                    word(self.output.memory),
                    self.output.offset as u64,
                    count,
                ],
            ),
            Operation::Others { arguments, .. } => (
                Kind::InternalDeviceControl as u32,
                [
                    arguments[0] as u64,
                    arguments[1] as u64,
                    0,
                    arguments[2] as u64,
                    0,
                    0,
                ],
            ),
        };
        CompletionParams {
            size: CompletionParams::SIZE,
            kind,
            status,
            information,
            parameters,
        }
    }
}

fn memories(parts: &[Part]) -> Vec<Handle> {
    let all = parts.iter().map(|part| part.memory);
    all.filter(|memory| !memory.is_null()).collect()
}

/// The part of a `WDFMEMORY` that offsets name; nothing for NULL.
///
/// # Errors
/// As `IFxMemory::ValidateMemoryOffsets`: `STATUS_INTEGER_OVERFLOW`,
/// `STATUS_BUFFER_TOO_SMALL` if it is not within the memory.
fn part(memory: Handle, offsets: *const MemoryOffset, function: &'static str) -> Result<Part, i32> {
    if memory.is_null() {
        return Ok(Part::NONE);
    }
    let (address, size) = kernel(|k| object::memory(k, memory, function).buffer());
    let (offset, length) = if offsets.is_null() {
        (0, size)
    } else {
        let offsets = peek(offsets);
        let end = offsets
            .buffer_offset
            .checked_add(offsets.buffer_length)
            .ok_or(STATUS_INTEGER_OVERFLOW)?;
        if end > size {
            return Err(STATUS_BUFFER_TOO_SMALL);
        }
        let length = if offsets.buffer_length == 0 {
            size - offsets.buffer_offset
        } else {
            offsets.buffer_length
        };
        (offsets.buffer_offset, length)
    };
    Ok(Part {
        buffer: Buffer {
            address: address + offset,
            length,
        },
        memory,
        offset,
    })
}

/// What a `WDF_MEMORY_DESCRIPTOR` stands for; nothing for NULL.
///
/// # Errors
/// As [`part`]; `STATUS_INVALID_PARAMETER` for no sort of descriptor.
pub(super) fn described(
    from: *const MemoryDescriptor,
    function: &'static str,
) -> Result<Part, i32> {
    const BUFFER: u32 = 1;
    const MDL: u32 = 2;
    const HANDLE: u32 = 3;
    if from.is_null() {
        return Ok(Part::NONE);
    }
    let descriptor = peek(from);
    match descriptor.kind {
        BUFFER => Ok(Part::plain(Buffer {
            address: descriptor.first,
            length: descriptor.second & 0xFFFF_FFFF,
        })),
        HANDLE => part(
            descriptor.first as Handle,
            descriptor.second as *const MemoryOffset,
            function,
        ),
        MDL => kernel(|k| {
            let stop = Stop::not_simulated(k, "a memory descriptor of an MDL");
            k.stop(stop)
        }),
        _ => Err(STATUS_INVALID_PARAMETER),
    }
}

fn offset(from: *const i64) -> i64 {
    if from.is_null() { 0 } else { peek(from) }
}

/// A format for reads.
pub(super) fn read(output: Part, device_offset: *const i64) -> Format {
    Format::new(Operation::Read, Part::NONE, output, offset(device_offset))
}

/// A format for writes.
pub(super) fn write(input: Part, device_offset: *const i64) -> Format {
    Format::new(Operation::Write, input, Part::NONE, offset(device_offset))
}

/// A format for control codes.
pub(super) fn control(code: u32, internal: bool, input: Part, output: Part) -> Format {
    Format::new(Operation::Control { code, internal }, input, output, 0)
}

/// A format for the arguments of an internal control code that are no buffers.
pub(super) fn others(code: u32, arguments: [Part; 3]) -> Format {
    let addresses = arguments.map(|part| part.buffer.address);
    let operation = Operation::Others {
        code,
        arguments: addresses,
    };
    Format {
        memories: memories(&arguments),
        ..Format::new(operation, Part::NONE, Part::NONE, 0)
    }
}

/// Gives a request, which must be the driver's, its format.
///
/// # Errors
/// `STATUS_INVALID_DEVICE_STATE` if the target is closed.
pub(super) fn apply(
    target: Handle,
    request: Handle,
    format: Format,
    function: &'static str,
) -> Result<(), i32> {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let open = object::io_target(k, target, function).is_open();
        request::sendable(k, request, function);
        if !open {
            return Err(STATUS_INVALID_DEVICE_STATE);
        }
        Ok(())
    })?;
    set(request, Some(format));
    Ok(())
}

/// Changes a request's format; the memory of the old one is let go.
pub(crate) fn set(request: Handle, format: Option<Format>) {
    let old = kernel(|k| {
        for memory in format.iter().flat_map(|format| &format.memories) {
            object::reference(k, *memory);
        }
        let request = request::get(k, request);
        request.is_formatted = format.is_some();
        std::mem::replace(&mut request.format, format)
    });
    for memory in old.into_iter().flat_map(|format| format.memories) {
        object::release(memory);
    }
}

/// `WdfRequestFormatRequestUsingCurrentType`. Callable at `<= DISPATCH_LEVEL`.
/// A request of the driver's own has no type: bug check 0x10D/6.
pub(crate) fn using_current_type(_: Globals, request: Handle) {
    const NULL_IRP: u64 = 2;
    let function = "WdfRequestFormatRequestUsingCurrentType";
    let format = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        if request::sendable(k, request, function).holder == Holder::Maker {
            let name = k
                .name_of(request as usize)
                .unwrap_or("the request")
                .to_owned();
            k.fatal(
                &kmdf::REQUEST_NULL_IRP,
                &[NULL_IRP, request as u64],
                format!("{function} was called on {name}, which the driver made itself: it has no type yet"),
            )
        }
        of_received(k, request)
    });
    set(request, Some(format));
}

/// The format that passes a received request on as it is.
pub(crate) fn of_received(k: &mut Kernel, request: Handle) -> Format {
    let irp = request::get(k, request).irp;
    let irp = k.io.irps.get(irp);
    let operation = match irp.kind {
        Kind::Read => Operation::Read,
        Kind::Write => Operation::Write,
        Kind::DeviceControl => Operation::Control {
            code: irp.code,
            internal: false,
        },
        Kind::InternalDeviceControl => Operation::Control {
            code: irp.code,
            internal: true,
        },
        Kind::Create => {
            let stop = Stop::not_simulated(k, "passing a create request on to a lower driver");
            k.stop(stop)
        }
    };
    Format {
        is_current: true,
        ..Format::new(
            operation,
            Part::plain(irp.input),
            Part::plain(irp.output),
            0,
        )
    }
}

fn finish(
    target: Handle,
    request: Handle,
    format: Result<Format, i32>,
    function: &'static str,
) -> i32 {
    format
        .and_then(|format| apply(target, request, format, function))
        .err()
        .unwrap_or(STATUS_SUCCESS)
}

/// `WdfIoTargetFormatRequestForRead`. Callable at `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As documented: `STATUS_INVALID_DEVICE_STATE` for a target that is closed;
/// `STATUS_INTEGER_OVERFLOW`, `STATUS_BUFFER_TOO_SMALL` for the offsets.
pub(crate) fn for_read(
    _: Globals,
    target: Handle,
    request: Handle,
    memory: Handle,
    offsets: *const MemoryOffset,
    device_offset: *const i64,
) -> i32 {
    let function = "WdfIoTargetFormatRequestForRead";
    let format = part(memory, offsets, function).map(|output| read(output, device_offset));
    finish(target, request, format, function)
}

/// `WdfIoTargetFormatRequestForWrite`. As [`for_read`].
pub(crate) fn for_write(
    _: Globals,
    target: Handle,
    request: Handle,
    memory: Handle,
    offsets: *const MemoryOffset,
    device_offset: *const i64,
) -> i32 {
    let function = "WdfIoTargetFormatRequestForWrite";
    let format = part(memory, offsets, function).map(|input| write(input, device_offset));
    finish(target, request, format, function)
}

/// The memory and the offsets of one argument.
type Argument = (Handle, *const MemoryOffset);

fn for_control(
    target: Handle,
    request: Handle,
    code: u32,
    internal: bool,
    input: Argument,
    output: Argument,
    function: &'static str,
) -> i32 {
    let format = part(input.0, input.1, function).and_then(|input| {
        let output = part(output.0, output.1, function)?;
        Ok(control(code, internal, input, output))
    });
    finish(target, request, format, function)
}

/// `WdfIoTargetFormatRequestForIoctl`. As [`for_read`].
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn for_ioctl(
    _: Globals,
    target: Handle,
    request: Handle,
    code: u32,
    input: Handle,
    input_offsets: *const MemoryOffset,
    output: Handle,
    output_offsets: *const MemoryOffset,
) -> i32 {
    let function = "WdfIoTargetFormatRequestForIoctl";
    let (input, output) = ((input, input_offsets), (output, output_offsets));
    for_control(target, request, code, false, input, output, function)
}

/// `WdfIoTargetFormatRequestForInternalIoctl`. As [`for_read`].
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn for_internal_ioctl(
    _: Globals,
    target: Handle,
    request: Handle,
    code: u32,
    input: Handle,
    input_offsets: *const MemoryOffset,
    output: Handle,
    output_offsets: *const MemoryOffset,
) -> i32 {
    let function = "WdfIoTargetFormatRequestForInternalIoctl";
    let (input, output) = ((input, input_offsets), (output, output_offsets));
    for_control(target, request, code, true, input, output, function)
}

/// `WdfIoTargetFormatRequestForInternalIoctlOthers`. As [`for_read`].
#[expect(clippy::too_many_arguments, reason = "the framework's own signature")]
pub(crate) fn for_internal_ioctl_others(
    _: Globals,
    target: Handle,
    request: Handle,
    code: u32,
    first: Handle,
    first_offsets: *const MemoryOffset,
    second: Handle,
    second_offsets: *const MemoryOffset,
    fourth: Handle,
    fourth_offsets: *const MemoryOffset,
) -> i32 {
    let function = "WdfIoTargetFormatRequestForInternalIoctlOthers";
    let format = part(first, first_offsets, function).and_then(|first| {
        let second = part(second, second_offsets, function)?;
        Ok(others(
            code,
            [first, second, part(fourth, fourth_offsets, function)?],
        ))
    });
    finish(target, request, format, function)
}
