// SPDX-License-Identifier: MIT OR Apache-2.0

//! Typed IOCTL codes of `dmf` against callers that send anything: every method,
//! every length, known and unknown codes. What comes back is right or an error,
//! and no byte of old kernel memory.

#[path = "support/probe.rs"]
mod probe;

use dmf::ioctl::{Access, DeviceType, DirectIoctlCode, FromCaller, IoctlCode, ToCaller};
use dmf::prelude::*;
use dmf::wdf::{DefaultQueue, Guid, Ioctl, Offer, QueueCallback, Read, Request, Write};
use ntsim::Completion;
use probe::Probe;

const SUCCESS: u32 = 0;
const BUFFER_TOO_SMALL: u32 = 0xC000_0023;
const NOT_SUPPORTED: u32 = 0xC000_00BB;

const CALCULATOR: Guid = Guid::parse("8c1b2f5e-0a55-4a86-b90a-7f1d2d6f9f10");

dmf::ioctl_struct! {
    struct Terms {
        left: u32,
        right: u32,
    }
}

const ADD: IoctlCode<Terms, u64> = IoctlCode::new(DeviceType::UNKNOWN, 0x800, Access::Any);
const REVERSE: IoctlCode<[u8; 5], [u8; 5]> =
    IoctlCode::new(DeviceType::UNKNOWN, 0x801, Access::Any);
const NOTHING: IoctlCode<(), ()> = IoctlCode::from_value(0x0022_2008);
/// Says that it has written all of its output, and has written nothing.
const LAZY: IoctlCode<(), ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x803, Access::Any);
const FILL: DirectIoctlCode<u16, ToCaller> =
    DirectIoctlCode::new(DeviceType::UNKNOWN, 0x804, Access::Any);
const COUNT: DirectIoctlCode<u32, FromCaller> =
    DirectIoctlCode::new(DeviceType::UNKNOWN, 0x805, Access::Any);

dmf::driver!(Calculator);

struct Calculator;

impl Device for Calculator {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.device_interface(CALCULATOR)?;
        Ok(Self)
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        // Says that it has read everything, and never looked at the buffer.
        let length = request.len();
        request.complete(Ok(length));
        Offer::Handled
    }

    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        request.complete(Ok(usize::MAX));
        Offer::Handled
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request
            .on(ADD, |terms| {
                Ok(u64::from(terms.left) + u64::from(terms.right))
            })
            .on(REVERSE, |mut bytes| {
                bytes.reverse();
                Ok(bytes)
            })
            .on(NOTHING, |()| Ok(()))
            .on_request(LAZY, |(), request| {
                request.into_untyped().complete(Ok(usize::MAX));
            })
            .on_direct(FILL, |value, request| {
                let result = request.buffer().and_then(|buffer| {
                    let bytes = value.to_ne_bytes();
                    for at in (0..buffer.len() / 2 * 2).step_by(2) {
                        buffer.copy_from(at, &bytes)?;
                    }
                    Ok(buffer.len() / 2 * 2)
                });
                request.complete(result);
            })
            .on_direct(COUNT, |wanted, request| {
                let result = match request.buffer().map(dmf::wdf::DirectInput::len) {
                    Ok(length) if length == wanted as usize => Ok(0),
                    Ok(_) => Err(NtStatus::INVALID_PARAMETER),
                    Err(status) => Err(status),
                };
                request.complete(result);
            })
    }
}

/// A generator of numbers, each test's own.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// Around what the codes want, and sometimes far off.
    fn length(&mut self) -> usize {
        match self.next() % 8 {
            0 => 0,
            7 => usize::try_from(self.next() % 9000).unwrap(),
            _ => usize::try_from(self.next() % 12).unwrap(),
        }
    }
}

/// What must come of it.
fn expected(code: u32, input: &[u8], output: usize) -> Result<Vec<u8>, u32> {
    let enough = |needs_in: usize, needs_out: usize| input.len() >= needs_in && output >= needs_out;
    let number = |at: usize| u32::from_ne_bytes(input[at..at + 4].try_into().unwrap());
    if code == ADD.value() {
        if !enough(8, 8) {
            return Err(BUFFER_TOO_SMALL);
        }
        let sum = u64::from(number(0)) + u64::from(number(4));
        Ok(sum.to_ne_bytes().to_vec())
    } else if code == REVERSE.value() {
        if !enough(5, 5) {
            return Err(BUFFER_TOO_SMALL);
        }
        Ok(input[..5].iter().rev().copied().collect())
    } else if code == NOTHING.value() {
        Ok(Vec::new())
    } else if code == LAZY.value() {
        let mut whole = input[..input.len().min(output)].to_vec();
        whole.resize(output, 0);
        Ok(whole)
    } else if code == FILL.value() {
        if !enough(2, 0) {
            return Err(BUFFER_TOO_SMALL);
        }
        Ok(input[..2].repeat(output / 2))
    } else if code == COUNT.value() {
        if !enough(4, 0) {
            return Err(BUFFER_TOO_SMALL);
        }
        if number(0) as usize == output {
            Ok(Vec::new())
        } else {
            Err(0xC000_000D)
        }
    } else {
        Err(NOT_SUPPORTED)
    }
}

fn bytes(answer: Completion) -> Result<Vec<u8>, u32> {
    assert_eq!(
        answer.is_success(),
        answer.status == SUCCESS,
        "{:#x}",
        answer.status
    );
    answer.bytes()
}

#[test]
fn whatever_a_program_sends_the_answer_is_right_or_an_error() {
    let known = [
        ADD.value(),
        REVERSE.value(),
        NOTHING.value(),
        LAZY.value(),
        FILL.value(),
        COUNT.value(),
    ];
    let mut successes = 0;
    for seed in 1..8 {
        let mut probe = Probe::started(Calculator::DRIVER_ENTRY, seed);
        let file = probe.machine.open(&CALCULATOR.to_string()).unwrap();
        let mut random = Random(seed * 0x9E37_79B9);
        for round in 0..400 {
            // Also known functions with another method, access or device.
            let code = known[usize::from(random.byte()) % known.len()]
                ^ match random.next() % 4 {
                    0 => 1 << (random.next() % 32),
                    1 => u32::from(random.byte() % 4),
                    _ => 0,
                };
            let output = random.length();
            let mut input: Vec<u8> = (0..random.length()).map(|_| random.byte()).collect();
            if code == COUNT.value() && input.len() >= 4 && random.next().is_multiple_of(2) {
                input[..4].copy_from_slice(&u32::try_from(output).unwrap().to_ne_bytes());
            }
            let answer = probe
                .machine
                .ioctl(file, code, &input, output)
                .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            let answer = bytes(answer);
            successes += u32::from(answer.is_ok());
            assert_eq!(
                answer,
                expected(code, &input, output),
                "seed {seed}, round {round}: {code:#x} with {} bytes in, {output} out",
                input.len()
            );
        }
        probe.machine.close(file).unwrap();
        probe.remove();
    }
    assert!(successes > 500, "{successes}");
}

/// Windows does not clear the buffers of buffered requests, so a driver that
/// says more than it wrote would give kernel memory away.
#[test]
fn output_that_the_driver_never_touched_is_zero() {
    let mut probe = Probe::started(Calculator::DRIVER_ENTRY, 0);
    let file = probe.machine.open(&CALCULATOR.to_string()).unwrap();
    for length in [1, 100, 5000] {
        let read = probe.machine.read(file, length).unwrap();
        assert_eq!((read.status, read.data), (SUCCESS, vec![0; length]));
        let write = probe.machine.write(file, &vec![1; length]).unwrap();
        assert_eq!((write.status, write.information), (SUCCESS, length));
    }
}
