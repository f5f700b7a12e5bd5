// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tests of the kernel's functions share: threads, delays, stops.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(non_snake_case, reason = "the kernel's names")]

use std::ffi::c_void;

use ntsim::{Machine, Stop, StopKind};

/// Room for any object of the kernel's.
#[repr(C, align(8))]
pub struct Object(pub [u8; 64]);

impl Object {
    pub fn boxed() -> *mut Self {
        Box::into_raw(Box::new(Self([0; 64])))
    }
}

/// Memory for a `T` that no one frees.
pub fn leaked<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

unsafe extern "C-unwind" {
    pub safe fn KeInitializeEvent(event: *mut u8, kind: i32, state: u8);
    pub safe fn KeWaitForSingleObject(
        object: *mut Object,
        reason: i32,
        mode: i8,
        alertable: u8,
        timeout: *const i64,
    ) -> i32;
    pub safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> i32;
    pub safe fn KeGetCurrentIrql() -> u8;
    pub safe fn KfRaiseIrql(irql: u8) -> u8;
    pub safe fn KeLowerIrql(irql: u8);
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

pub fn delay(units: u64) {
    assert_eq!(KeDelayExecutionThread(0, 0, &-units.cast_signed()), 0);
}

/// Starts a system thread that runs `routine`; gives its object, referenced.
pub fn start_raw(routine: usize, context: *const c_void) -> *mut Object {
    let mut handle = 0;
    let none = std::ptr::null_mut();
    assert_eq!(
        PsCreateSystemThread(&raw mut handle, 0, none, 0, none, routine, context),
        0
    );
    let mut object = std::ptr::null_mut();
    assert_eq!(
        ObReferenceObjectByHandle(handle, 0, 0, 0, &raw mut object, none),
        0
    );
    assert_eq!(ZwClose(handle), 0);
    object
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
    start_raw(routine as *const () as usize, context.cast())
}

pub fn join(thread: *mut Object) {
    assert_eq!(KeWaitForSingleObject(thread, 0, 0, 0, std::ptr::null()), 0);
    ObfDereferenceObject(thread);
}

/// Runs `body` as a thread of a machine for each of many seeds.
pub fn every_schedule(body: impl Fn() + Clone + 'static) {
    for seed in 0..100 {
        Machine::with_seed(seed)
            .run_thread("main", body.clone())
            .unwrap_or_else(|stop| panic!("seed {seed}: {stop}"));
    }
}

/// The stop that `body` ends in.
pub fn stop(body: impl FnOnce() + 'static) -> Box<Stop> {
    Machine::with_seed(1)
        .run_thread("main", body)
        .expect_err("the simulation should have been stopped")
}

#[track_caller]
pub fn expect_bug_check(stop: &Stop, code: u32, first: u64) {
    match stop.kind {
        StopKind::BugCheck {
            code: found,
            parameters,
        } => {
            assert_eq!((found, parameters[0]), (code, first), "{stop}");
        }
        _ => panic!("{stop}"),
    }
}
