// SPDX-License-Identifier: MIT OR Apache-2.0

//! The part of the kernel that the benchmarks call, as a driver in C sees it.

/// Room for any dispatcher object or DPC.
#[repr(C, align(8))]
pub struct Object([u8; 64]);

impl Object {
    /// One for ever.
    pub fn leaked() -> *mut Self {
        Box::into_raw(Box::new(Self([0; 64])))
    }

    /// Many beside each other, for ever.
    pub fn many(count: usize) -> Vec<*mut Self> {
        let objects: Vec<Self> = (0..count).map(|_| Self([0; 64])).collect();
        objects.leak().iter_mut().map(std::ptr::from_mut).collect()
    }
}

pub const PASSIVE_WAIT: (i32, i8, u8) = (0, 0, 0);

unsafe extern "C-unwind" {
    pub safe fn KeGetCurrentIrql() -> u8;
    pub safe fn KeInitializeEvent(event: *mut Object, kind: i32, state: u8);
    pub safe fn KeReadStateEvent(event: *mut Object) -> i32;
    pub safe fn KeSetEvent(event: *mut Object, increment: i32, wait: u8) -> i32;
    pub safe fn KeInitializeMutex(mutex: *mut Object, level: u32);
    pub safe fn KeReleaseMutex(mutex: *mut Object, wait: u8) -> i32;
    pub safe fn KeWaitForSingleObject(
        object: *mut Object,
        reason: i32,
        mode: i8,
        alertable: u8,
        timeout: *const i64,
    ) -> i32;
    pub safe fn KeInitializeTimer(timer: *mut Object);
    pub safe fn KeSetTimer(timer: *mut Object, due: i64, dpc: *mut Object) -> u8;
    pub safe fn KeCancelTimer(timer: *mut Object) -> u8;
    pub safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> i32;
}
