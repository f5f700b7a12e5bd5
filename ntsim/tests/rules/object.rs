// SPDX-License-Identifier: MIT OR Apache-2.0

//! Object references and handles.

use std::ffi::c_void;

use ntsim::Settings;
use ntsim::machine::Error;
use ntsim::rules::object;

use crate::irql::run;
use crate::{Case, without};

#[allow(non_snake_case, reason = "the kernel's names")]
#[allow(clashing_extern_declarations, reason = "an object is a number here")]
mod nt {
    use std::ffi::c_void;

    unsafe extern "C-unwind" {
        pub safe fn KeEnterCriticalRegion();
        pub safe fn KeEnterGuardedRegion();
        pub safe fn KeGetCurrentThread() -> usize;
        pub safe fn KeLeaveCriticalRegion();
        pub safe fn KeLeaveGuardedRegion();
        pub safe fn ObReferenceObjectByHandle(
            handle: usize,
            access: u32,
            kind: usize,
            mode: i8,
            object: *mut usize,
            info: *mut u8,
        ) -> i32;
        pub safe fn ObfDereferenceObject(object: usize) -> isize;
        pub safe fn ObfReferenceObject(object: usize) -> isize;
        pub safe fn PsCreateSystemThread(
            handle: *mut usize,
            access: u32,
            attributes: *mut u8,
            process: usize,
            client: *mut u8,
            routine: usize,
            context: *const c_void,
        ) -> i32;
        pub safe fn ZwClose(handle: usize) -> i32;
        pub safe fn ZwFlushKey(handle: usize) -> i32;
        pub safe fn ZwOpenKey(handle: *mut usize, access: u32, attributes: *const usize) -> i32;
    }
}
#[allow(clippy::wildcard_imports, reason = "the functions that are called")]
use nt::*;

extern "C-unwind" fn returns(_: *const c_void) {}

/// The handle of a new thread.
fn thread() -> usize {
    let mut handle = 0;
    let none = std::ptr::null_mut();
    let routine = returns as *const () as usize;
    PsCreateSystemThread(&raw mut handle, 0, none, 0, none, routine, std::ptr::null());
    handle
}

fn reference_by(settings: Settings, handle: fn() -> usize) -> Result<(), Error> {
    run(settings, move || {
        let handle = handle();
        let mut object = 0;
        let none = std::ptr::null_mut();
        if ObReferenceObjectByHandle(handle, 0, 0, 0, &raw mut object, none) == 0 {
            ObfDereferenceObject(object);
            ZwClose(handle);
        }
    })
}

fn dereference(settings: Settings, referenced: bool) -> Result<(), Error> {
    run(settings, move || {
        let thread = KeGetCurrentThread();
        if referenced {
            ObfReferenceObject(thread);
        }
        ObfDereferenceObject(thread);
    })
}

fn close(settings: Settings, times: u32) -> Result<(), Error> {
    run(settings, move || {
        let handle = thread();
        for _ in 0..times {
            ZwClose(handle);
        }
    })
}

/// Opens a key of a name with this length and maximum.
fn open(settings: Settings, length: u16, maximum: u16) -> Result<(), Error> {
    run(settings, move || {
        let text: Vec<u16> = r"\Registry\Machine".encode_utf16().collect();
        // `UNICODE_STRING` and `OBJECT_ATTRIBUTES`, as words.
        let sizes = usize::from(length) | usize::from(maximum) << 16;
        let name = [sizes, text.as_ptr() as usize];
        let attributes = [48, 0, name.as_ptr() as usize, 0x240, 0, 0];
        let mut handle = 0;
        if ZwOpenKey(&raw mut handle, 0x2_0019, attributes.as_ptr()) == 0 {
            ZwClose(handle);
        }
    })
}

pub const CASES: &[Case] = &[
    Case {
        rule: &object::ZW_CALL,
        breaks: |settings| {
            run(settings, || {
                KeEnterGuardedRegion();
                ZwFlushKey(4);
                KeLeaveGuardedRegion();
            })
        },
        comes_close: |settings| {
            run(settings, || {
                KeEnterCriticalRegion();
                ZwFlushKey(4);
                KeLeaveCriticalRegion();
            })
        },
    },
    Case {
        rule: &object::BAD_HANDLE,
        breaks: |settings| reference_by(settings, || 4),
        comes_close: |settings| reference_by(settings, thread),
    },
    Case {
        rule: &object::NULL_HANDLE,
        breaks: |settings| reference_by(settings, || 0),
        comes_close: |settings| reference_by(settings, thread),
    },
    Case {
        rule: &object::REFERENCE_ZERO,
        breaks: |settings| dereference(settings, false),
        comes_close: |settings| dereference(settings, true),
    },
    Case {
        rule: &object::REFERENCE_BY_POINTER,
        breaks: |settings| dereference(without(settings, &object::REFERENCE_ZERO), false),
        comes_close: |settings| dereference(settings, true),
    },
    Case {
        rule: &object::CLOSE_INVALID,
        breaks: |settings| close(settings, 2),
        comes_close: |settings| close(settings, 1),
    },
    Case {
        rule: &object::MALFORMED_STRING,
        breaks: |settings| open(settings, 33, 34),
        comes_close: |settings| open(settings, 34, 34),
    },
];

/// An odd length is the case above.
pub fn each_way_of_a_malformed_string_is_noticed() {
    let longer = open(Settings::default(), 34, 32);
    let no_buffer = run(Settings::default(), || {
        let name = [0x22 | 0x22 << 16, 0_usize];
        let attributes = [48, 0, name.as_ptr() as usize, 0x240, 0, 0];
        let mut handle = 0;
        ZwOpenKey(&raw mut handle, 0x2_0019, attributes.as_ptr());
    });
    for ended in [longer, no_buffer] {
        let Err(Error::Stop(stop)) = ended else {
            panic!("nothing was noticed")
        };
        assert_eq!(stop.rule, Some(object::MALFORMED_STRING.name), "{stop}");
    }
}
