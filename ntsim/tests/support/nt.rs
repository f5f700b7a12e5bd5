// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of `ntoskrnl` that tests of schedules call.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::ffi::c_void;

#[repr(C, align(8))]
pub struct Object([u8; 64]);

impl Object {
    /// Memory for one. It is never freed: a schedule that is stopped leaves it too.
    pub fn boxed() -> *mut Self {
        Box::into_raw(Box::new(Self([0; 64])))
    }
}

#[allow(non_snake_case, reason = "the kernel's names")]
mod functions {
    use super::{Object, c_void};

    unsafe extern "C-unwind" {
        pub safe fn KeInitializeEvent(event: *mut Object, kind: i32, state: u8);
        pub safe fn KeSetEvent(event: *mut Object, increment: i32, wait: u8) -> i32;
        pub safe fn KeResetEvent(event: *mut Object) -> i32;
        pub safe fn KeReadStateEvent(event: *mut Object) -> i32;
        pub safe fn KeWaitForSingleObject(
            object: *mut Object,
            reason: i32,
            mode: i8,
            alertable: u8,
            timeout: *const i64,
        ) -> i32;
        pub safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> i32;
        pub safe fn KeInitializeMutex(mutex: *mut Object, level: u32);
        pub safe fn KeReleaseMutex(mutex: *mut Object, wait: u8) -> i32;
        pub safe fn KeInitializeDpc(dpc: *mut Object, routine: usize, context: *const c_void);
        pub safe fn KeInsertQueueDpc(dpc: *mut Object, a: usize, b: usize) -> u8;
        pub safe fn KeGetCurrentIrql() -> u8;
        pub safe fn KfRaiseIrql(irql: u8) -> u8;
        pub safe fn KeStallExecutionProcessor(microseconds: u32);
        pub safe fn KeBugCheckEx(code: u32, a: usize, b: usize, c: usize, d: usize);
        pub safe fn PsCreateSystemThread(
            handle: *mut usize,
            access: u32,
            attributes: *mut u8,
            process: usize,
            client: *mut u8,
            routine: usize,
            context: *const c_void,
        ) -> i32;
        pub safe fn PsTerminateSystemThread(status: i32) -> i32;
        pub safe fn ObReferenceObjectByHandle(
            handle: usize,
            access: u32,
            kind: usize,
            mode: i8,
            object: *mut *mut Object,
            info: *mut u8,
        ) -> i32;
        pub safe fn ObfDereferenceObject(object: *mut Object) -> isize;
        pub safe fn ZwClose(handle: usize) -> i32;
    }
}
pub use functions::*;

pub const NOTIFICATION: i32 = 0;
pub const SYNCHRONIZATION: i32 = 1;

fn relative(units: u64) -> i64 {
    -units.cast_signed()
}

/// Waits; without a time-out for ever.
pub fn wait(object: *mut Object, timeout: Option<u64>) -> i32 {
    let timeout = timeout.map(relative);
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    KeWaitForSingleObject(object, 0, 0, 0, timeout)
}

pub fn delay(units: u64) {
    assert_eq!(KeDelayExecutionThread(0, 0, &relative(units)), 0);
}

pub fn event(kind: i32) -> *mut Object {
    let event = Object::boxed();
    KeInitializeEvent(event, kind, 0);
    event
}

pub fn mutex() -> *mut Object {
    let mutex = Object::boxed();
    KeInitializeMutex(mutex, 0);
    mutex
}

/// Starts a system thread that runs `body`; gives its object, referenced.
pub fn start(body: impl FnOnce() + 'static) -> *mut Object {
    extern "C-unwind" fn routine(context: *mut Box<dyn FnOnce()>) {
        // SAFETY: made by `Box::into_raw` below, and only this thread takes it.
        let body = unsafe { Box::from_raw(context) };
        body();
        PsTerminateSystemThread(0);
    }
    let context: *mut Box<dyn FnOnce()> = Box::into_raw(Box::new(Box::new(body)));
    let mut handle = 0;
    let none = std::ptr::null_mut();
    let routine = routine as *const () as usize;
    let status = PsCreateSystemThread(&raw mut handle, 0, none, 0, none, routine, context.cast());
    assert_eq!(status, 0);
    let mut object = std::ptr::null_mut();
    let status = ObReferenceObjectByHandle(handle, 0, 0, 0, &raw mut object, none);
    assert_eq!(status, 0);
    assert_eq!(ZwClose(handle), 0);
    object
}

/// Waits for the end of a thread.
pub fn join(thread: *mut Object) {
    assert_eq!(wait(thread, None), 0);
    ObfDereferenceObject(thread);
}
