// SPDX-License-Identifier: MIT OR Apache-2.0

//! Direct I/O of `dmf`: the caller's own pages, which change under the driver,
//! for reads, writes and the direct methods of IOCTLs; and what each method
//! refuses.

#[path = "support/probe.rs"]
mod probe;

use std::sync::Mutex;
use std::time::Duration;

use dmf::ioctl::{
    Access, DeviceType, DirectIoctlCode, FromCaller, IoctlCode, Method, ToCaller, ctl_code,
};
use dmf::prelude::*;
use dmf::wdf::{
    DefaultQueue, DeviceInit, Guid, IoType, Ioctl, Offer, QueueCallback, Read, Request, Write,
};
use ntsim::{Completion, File, Pending};
use probe::Probe;

const SUCCESS: u32 = 0;
const BUFFER_OVERFLOW: u32 = 0x8000_0005;
const BUFFER_TOO_SMALL: u32 = 0xC000_0023;
const NOT_SUPPORTED: u32 = 0xC000_00BB;
const INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;

const PAGES: Guid = Guid::parse("5a7ce1f4-33a7-4e8e-93f5-7f0f6f8f1b6d");
/// Writes the input to each byte of the second buffer.
const FILL: DirectIoctlCode<u8, ToCaller> = direct(0x900);
/// Adds up the second buffer; the sum must be the input.
const SUM: DirectIoctlCode<u32, FromCaller> = direct(0x901);
/// Completes the oldest write, if the bytes that it began with are `abc` still.
const CHECK: IoctlCode<(), u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x902, Access::Any);
/// Wants nothing of its caller's addresses.
const NEITHER: u32 = ctl_code(DeviceType::UNKNOWN, 0x903, Method::Neither, Access::Any);

const fn direct<In: dmf::ioctl::IoctlData, D: dmf::ioctl::Direction>(
    function: u16,
) -> DirectIoctlCode<In, D> {
    DirectIoctlCode::new(DeviceType::UNKNOWN, function, Access::Any)
}

dmf::driver!(Direct);

#[derive(Default)]
struct Direct {
    held: Mutex<Vec<Request<Write>>>,
}

impl Device for Direct {
    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        Ok(init.io_type(IoType::Direct))
    }

    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(PAGES)?;
        Ok(Self::default())
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, mut request: Request<Read>) -> Offer<Read> {
        assert_eq!(request.method(), Method::OutDirect);
        // There is no slice of pages that are the caller's.
        assert_eq!(request.output(), Err(NtStatus::INVALID_DEVICE_REQUEST));
        if request.len() == 5 {
            request.complete_with_bytes(b"hello, world");
            return Offer::Handled;
        }
        let result = read(&request);
        request.complete(result);
        Offer::Handled
    }

    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        assert_eq!(request.method(), Method::InDirect);
        assert_eq!(request.input(), Err(NtStatus::INVALID_DEVICE_REQUEST));
        self.held.lock().unwrap().push(request);
        Offer::Handled
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        if request.code() == NEITHER {
            let mut request = request;
            assert_eq!(request.input(), Err(NtStatus::INVALID_DEVICE_REQUEST));
            assert_eq!(request.output(), Err(NtStatus::INVALID_DEVICE_REQUEST));
            assert!(request.direct_input().is_err() && request.direct_output().is_err());
            return Offer::Declined(request);
        }
        request
            .on_direct(FILL, |byte, request| {
                let result = request.buffer().and_then(|buffer| {
                    for at in 0..buffer.len() {
                        buffer.copy_from(at, &[byte])?;
                    }
                    Ok(buffer.len())
                });
                request.complete(result);
            })
            .on_direct(SUM, |wanted, request| {
                let result = request.buffer().and_then(|buffer| {
                    let mut sum = 0;
                    for at in 0..buffer.len() {
                        let mut byte = [0];
                        buffer.copy_to(at, &mut byte)?;
                        sum += u32::from(byte[0]);
                    }
                    if sum == wanted {
                        Ok(0)
                    } else {
                        Err(NtStatus::DATA_ERROR)
                    }
                });
                request.complete(result);
            })
            .on(CHECK, |()| {
                let write = self.held.lock().unwrap().remove(0);
                let mut now = [0; 3];
                write.direct_input()?.copy_to(0, &mut now)?;
                write.complete(Ok(3));
                Ok(u32::from(&now == b"abc"))
            })
    }
}

/// What direct output can and cannot do.
fn read(request: &Request<Read>) -> Result<usize> {
    let output = request.direct_output()?;
    let length = output.len();
    assert_eq!(length, request.len());
    output.copy_from(0, b"ab")?;
    output.copy_from(length, b"")?;
    let beyond = [
        output.copy_from(length - 1, b"xy"),
        output.copy_from(length + 1, b""),
        output.copy_from(usize::MAX, b"x"),
        output.copy_to(length, &mut [0]),
    ];
    assert_eq!(beyond, [Err(NtStatus::BUFFER_TOO_SMALL); 4]);
    let mut back = [0; 2];
    output.copy_to(0, &mut back)?;
    assert_eq!(&back, b"ab");
    let mdl = output.mdl()?;
    assert_eq!(mdl.byte_count(), length);
    assert!(mdl.byte_offset() < 4096 && !mdl.as_raw().is_null());
    Ok(2)
}

fn opened(seed: u64) -> (Probe, File) {
    let mut probe = Probe::started(Direct::DRIVER_ENTRY, seed);
    let file = probe
        .machine
        .open(&PAGES.to_string())
        .unwrap_or_else(|error| panic!("{error}"));
    (probe, file)
}

fn end(probe: &mut Probe, pending: Pending) -> Completion {
    probe
        .machine
        .wait(pending, Duration::from_secs(1))
        .unwrap_or_else(|error| panic!("{error}"))
        .expect("it is completed")
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/accessing-data-buffers-in-wdf-drivers>
#[test]
fn a_direct_read_is_written_in_the_callers_pages_within_their_bounds() {
    let (mut probe, file) = opened(0);
    for length in [2, 3, 4096, 10_000] {
        let read = probe.machine.read(file, length).unwrap();
        assert_eq!((read.status, read.data.as_slice()), (SUCCESS, &b"ab"[..]));
    }
    let read = probe.machine.read(file, 5).unwrap();
    assert_eq!(
        (read.status, read.data.as_slice()),
        (BUFFER_OVERFLOW, &b"hello"[..])
    );
}

/// What a driver has checked in the caller's pages can be something else the
/// next time: <https://learn.microsoft.com/windows-hardware/drivers/kernel/methods-for-accessing-data-buffers>.
#[test]
fn the_caller_changes_its_pages_while_the_driver_has_the_request() {
    for changes in [false, true] {
        let (mut probe, file) = opened(0);
        let write = probe.machine.begin_write(file, b"abc").unwrap();
        let scribbled = probe
            .machine
            .run_thread("another thread of the program", move || {
                changes && write.scribble(1, b"X") && !write.scribble(3, b"X")
            })
            .unwrap();
        assert_eq!(scribbled, changes);
        let answer = probe.machine.ioctl(file, CHECK.value(), &[], 4).unwrap();
        assert_eq!(answer.data, u32::from(!changes).to_ne_bytes());
        assert_eq!(end(&mut probe, write).status, SUCCESS);
    }
}

#[test]
fn direct_codes_have_their_input_copied_and_their_second_buffer_shared() {
    let (mut probe, file) = opened(0);
    let answer = probe.machine.ioctl(file, FILL.value(), &[7], 3).unwrap();
    assert_eq!((answer.status, answer.data), (SUCCESS, vec![7; 3]));
    // No second buffer is one of no bytes.
    let answer = probe.machine.ioctl(file, FILL.value(), &[7], 0).unwrap();
    assert_eq!((answer.status, answer.information), (SUCCESS, 0));
    let answer = probe.machine.ioctl(file, FILL.value(), &[], 3).unwrap();
    assert_eq!(answer.status, BUFFER_TOO_SMALL);
    let sum = probe
        .machine
        .begin_ioctl_with(file, SUM.value(), &6_u32.to_ne_bytes(), &[1, 2, 3])
        .unwrap();
    assert_eq!(end(&mut probe, sum).status, SUCCESS);
}

#[test]
fn the_addresses_of_method_neither_reach_nobody() {
    let (mut probe, file) = opened(0);
    let answer = probe.machine.ioctl(file, NEITHER, b"abc", 3).unwrap();
    assert_eq!(answer.status, NOT_SUPPORTED);
}

/// Mapping the caller's pages can fail:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestretrieveoutputbuffer>
#[test]
fn pages_that_cannot_be_mapped_or_described_are_an_error_of_the_request() {
    let (mut probe, file) = opened(0);
    let mut failed = Vec::new();
    for point in 1.. {
        probe.machine.fail_nth(Some(point));
        let read = probe.machine.read(file, 8).unwrap();
        let Some(name) = probe.machine.fallible_calls().failed else {
            assert_eq!(read.status, SUCCESS);
            break;
        };
        assert_eq!(read.status, INSUFFICIENT_RESOURCES, "{name}");
        failed.push(name);
    }
    for name in [
        "WdfRequestRetrieveOutputBuffer",
        "WdfRequestRetrieveOutputWdmMdl",
    ] {
        assert!(failed.contains(&name), "{failed:?}");
    }
    probe.machine.fail_nth(None);
    probe.machine.close(file).unwrap();
    probe.remove();
}
