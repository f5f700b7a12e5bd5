// SPDX-License-Identifier: MIT OR Apache-2.0

//! The IRQL that functions are called at.

#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
use ntsim::machine::Error;
use ntsim::rules::{irql, object, pool, wait};
use ntsim::{Machine, Settings};

use crate::io_driver::raw::Bench;
use crate::{Case, without};

#[allow(non_snake_case, reason = "the kernel's names")]
#[allow(
    clashing_extern_declarations,
    reason = "every object is a pointer to some words here"
)]
mod nt {
    use std::ffi::c_void;

    unsafe extern "C-unwind" {
        pub safe fn ExAcquireFastMutex(mutex: *mut u64);
        pub safe fn ExAllocatePoolWithTag(kind: i32, size: usize, tag: u32) -> *mut u8;
        pub safe fn ExFreePool(block: *mut u8);
        pub safe fn ExReleaseFastMutex(mutex: *mut u64);
        pub safe fn ExUuidCreate(uuid: *mut u64) -> i32;
        pub safe fn ExWaitForRundownProtectionRelease(reference: *mut usize);
        pub safe fn KeAcquireSpinLockAtDpcLevel(lock: *mut usize);
        pub safe fn KeAcquireSpinLockRaiseToDpc(lock: *mut usize) -> u8;
        pub safe fn KeDelayExecutionThread(mode: i8, alertable: u8, interval: *const i64) -> i32;
        pub safe fn KeEnterCriticalRegion();
        pub safe fn KeFlushQueuedDpcs();
        pub safe fn KeInitializeDpc(dpc: *mut u64, routine: usize, context: *const c_void);
        pub safe fn KeInitializeEvent(event: *mut u64, kind: i32, state: u8);
        pub safe fn KeInitializeSemaphore(semaphore: *mut u64, count: i32, limit: i32);
        pub safe fn KeInitializeTimer(timer: *mut u64);
        pub safe fn KeInsertQueueDpc(dpc: *mut u64, a: usize, b: usize) -> u8;
        pub safe fn KeLeaveCriticalRegion();
        pub safe fn KeLowerIrql(irql: u8);
        pub safe fn KeReleaseSemaphore(
            semaphore: *mut u64,
            increment: i32,
            count: i32,
            wait: u8,
        ) -> i32;
        pub safe fn KeReleaseSpinLock(lock: *mut usize, irql: u8);
        pub safe fn KeReleaseSpinLockFromDpcLevel(lock: *mut usize);
        pub safe fn KeSetEvent(event: *mut u64, increment: i32, wait: u8) -> i32;
        pub safe fn KfRaiseIrql(irql: u8) -> u8;
        pub safe fn ObReferenceObjectByHandle(
            handle: usize,
            access: u32,
            kind: usize,
            mode: i8,
            object: *mut usize,
            info: *mut u8,
        ) -> i32;
        pub safe fn PsCreateSystemThread(
            handle: *mut usize,
            access: u32,
            attributes: *mut u8,
            process: usize,
            client: *mut u8,
            routine: usize,
            context: *const c_void,
        ) -> i32;
        pub safe fn RtlDeleteRegistryValue(
            relative_to: u32,
            path: *const u16,
            name: *const u16,
        ) -> i32;
        pub safe fn RtlWriteRegistryValue(
            relative_to: u32,
            path: *const u16,
            name: *const u16,
            kind: u32,
            data: *const u8,
            length: u32,
        ) -> i32;
        pub safe fn ZwFlushKey(handle: usize) -> i32;
    }
}
#[allow(clippy::wildcard_imports, reason = "the functions that are called")]
use nt::*;

const APC: u8 = 1;
const DISPATCH: u8 = 2;
const DEVICE: u8 = 5;

/// Room for any object of the kernel's, which no one frees.
pub fn room() -> *mut u64 {
    Box::leak(Box::new([0_u64; 16])).as_mut_ptr()
}

fn lock() -> *mut usize {
    Box::leak(Box::new(0_usize))
}

fn wide(text: &str) -> *const u16 {
    let units: Vec<u16> = text.encode_utf16().chain([0]).collect();
    units.leak().as_ptr()
}

/// What `body` does on a thread of the driver's.
pub fn run(settings: Settings, body: impl FnOnce() + 'static) -> Result<(), Error> {
    Machine::new(settings).run_thread("driver", body)?;
    Ok(())
}

/// What `body` does at `irql`.
pub fn at(settings: Settings, irql: u8, body: impl FnOnce() + 'static) -> Result<(), Error> {
    run(settings, move || {
        let old = KfRaiseIrql(irql);
        body();
        KeLowerIrql(old);
    })
}

fn acquire_and_release_at(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        let lock = lock();
        KeAcquireSpinLockAtDpcLevel(lock);
        KeReleaseSpinLockFromDpcLevel(lock);
    })
}

fn set_event(settings: Settings, irql: u8, wait: u8) -> Result<(), Error> {
    run(settings, move || {
        let event = room();
        KeInitializeEvent(event, 0, 0);
        let old = KfRaiseIrql(irql);
        KeSetEvent(event, 0, wait);
        KeLowerIrql(old);
    })
}

fn allocate(settings: Settings, irql: u8, kind: i32) -> Result<(), Error> {
    run(settings, move || {
        let old = KfRaiseIrql(irql);
        let block = ExAllocatePoolWithTag(kind, 8, u32::from_le_bytes(*b"tseT"));
        KeLowerIrql(old);
        ExFreePool(block);
    })
}

/// A DPC that does `body`.
pub fn dpc(settings: Settings, body: extern "C-unwind" fn()) -> Result<(), Error> {
    run(settings, move || {
        let dpc = room();
        KeInitializeDpc(dpc, body as *const () as usize, std::ptr::null());
        KeInsertQueueDpc(dpc, 0, 0);
        KeFlushQueuedDpcs();
    })
}

extern "C-unwind" fn raises_and_returns() {
    KfRaiseIrql(DEVICE);
}

extern "C-unwind" fn raises_and_lowers() {
    let old = KfRaiseIrql(DEVICE);
    KeLowerIrql(old);
}

extern "C-unwind" fn lowers_to_passive() {
    KeLowerIrql(0);
    KfRaiseIrql(DISPATCH);
}

/// A semaphore that is released at `irql`.
fn release_semaphore(settings: Settings, irql: u8) -> Result<(), Error> {
    run(settings, move || {
        let semaphore = room();
        KeInitializeSemaphore(semaphore, 0, 1);
        let old = KfRaiseIrql(irql);
        KeReleaseSemaphore(semaphore, 0, 1, 0);
        KeLowerIrql(old);
    })
}

fn create_thread(settings: Settings, irql: u8) -> Result<(), Error> {
    extern "C-unwind" fn routine() {}
    at(settings, irql, || {
        let mut handle = 0;
        let none = std::ptr::null_mut();
        PsCreateSystemThread(
            &raw mut handle,
            0,
            none,
            0,
            none,
            routine as *const () as usize,
            std::ptr::null(),
        );
    })
}

fn release_spin_lock_at(settings: Settings, irql: u8) -> Result<(), Error> {
    run(settings, move || {
        let lock = lock();
        let old = KeAcquireSpinLockRaiseToDpc(lock);
        let raised = KfRaiseIrql(irql);
        if irql == DISPATCH {
            KeLowerIrql(raised);
        }
        KeReleaseSpinLock(lock, old);
    })
}

pub const CASES: &[Case] = &[
    Case {
        rule: &irql::DISPATCH,
        breaks: |settings| acquire_and_release_at(settings, APC),
        comes_close: |settings| acquire_and_release_at(settings, DISPATCH),
    },
    Case {
        rule: &irql::EX_ALLOCATE_POOL,
        breaks: |settings| allocate(without(settings, &pool::ALLOCATE_PAGED_IRQL), DISPATCH, 1),
        comes_close: |settings| {
            allocate(settings, APC, 1).and(allocate(Settings::default(), DISPATCH, 0))
        },
    },
    Case {
        rule: &irql::EX_APC_LTE_1,
        breaks: |settings| fast_mutex(settings, DISPATCH),
        comes_close: |settings| fast_mutex(settings, APC),
    },
    Case {
        rule: &irql::EX_PASSIVE,
        breaks: |settings| {
            at(settings, APC, || {
                ExUuidCreate(room());
            })
        },
        comes_close: |settings| {
            run(settings, || {
                ExUuidCreate(room());
            })
        },
    },
    Case {
        rule: &irql::KE_APC_LTE_1,
        breaks: |settings| delay(settings, DISPATCH),
        comes_close: |settings| delay(settings, APC),
    },
    Case {
        rule: &irql::KE_APC_LTE_2,
        breaks: |settings| critical_region(settings, DISPATCH),
        comes_close: |settings| critical_region(settings, APC),
    },
    Case {
        rule: &irql::KE_DISPATCH_LTE,
        breaks: |settings| at(settings, DISPATCH + 1, || KeInitializeTimer(room())),
        comes_close: |settings| at(settings, DISPATCH, || KeInitializeTimer(room())),
    },
    Case {
        rule: &irql::KE_SET_EVENT,
        breaks: |settings| set_event(settings, DISPATCH, 1),
        comes_close: |settings| set_event(settings, DISPATCH, 0),
    },
    Case {
        rule: &irql::OB_PASSIVE,
        breaks: |settings| reference(settings, APC),
        comes_close: |settings| reference(without(settings, &object::BAD_HANDLE), 0),
    },
    Case {
        rule: &irql::PS_PASSIVE,
        breaks: |settings| create_thread(settings, APC),
        comes_close: |settings| create_thread(settings, 0),
    },
    Case {
        rule: &irql::RTL_PASSIVE,
        breaks: |settings| delete_value(settings, APC),
        comes_close: |settings| delete_value(settings, 0),
    },
    Case {
        rule: &irql::ZW_PASSIVE,
        breaks: |settings| {
            at(settings, APC, || {
                ZwFlushKey(4);
            })
        },
        comes_close: |settings| {
            run(settings, || {
                ZwFlushKey(4);
            })
        },
    },
    Case {
        rule: &irql::IO_RTL_ZW_PASSIVE,
        breaks: |settings| write_value(settings, APC),
        comes_close: |settings| write_value(settings, 0),
    },
    Case {
        rule: &irql::KERNEL_API_PASSIVE,
        breaks: |settings| at(settings, APC, || KeFlushQueuedDpcs()),
        comes_close: |settings| run(settings, || KeFlushQueuedDpcs()),
    },
    Case {
        rule: &irql::KERNEL_API_APC,
        breaks: |settings| {
            at(settings, DISPATCH, || {
                ExWaitForRundownProtectionRelease(lock());
            })
        },
        comes_close: |settings| at(settings, APC, || ExWaitForRundownProtectionRelease(lock())),
    },
    Case {
        rule: &irql::KERNEL_API_DISPATCH,
        breaks: |settings| release_semaphore(settings, DEVICE),
        comes_close: |settings| release_semaphore(settings, DISPATCH),
    },
    Case {
        rule: &irql::RAISE,
        breaks: |settings| {
            at(settings, DISPATCH, || {
                KfRaiseIrql(APC);
                KfRaiseIrql(DISPATCH);
            })
        },
        comes_close: |settings| {
            at(settings, DISPATCH, || {
                KfRaiseIrql(DISPATCH);
            })
        },
    },
    Case {
        rule: &irql::LOWER,
        breaks: |settings| dpc(settings, lowers_to_passive),
        comes_close: |settings| dpc(settings, raises_and_lowers),
    },
    Case {
        rule: &irql::RELEASE_SPIN_LOCK,
        breaks: |settings| release_spin_lock_at(settings, DEVICE),
        comes_close: |settings| release_spin_lock_at(settings, DISPATCH),
    },
    Case {
        rule: &irql::ACQUIRE_AT_DPC_LEVEL,
        breaks: |settings| acquire_and_release_at(without(settings, &irql::DISPATCH), APC),
        comes_close: |settings| acquire_and_release_at(without(settings, &irql::DISPATCH), DEVICE),
    },
    Case {
        rule: &irql::RELEASE_FROM_DPC_LEVEL,
        breaks: |settings| release_low(without(settings, &irql::DISPATCH), APC),
        comes_close: |settings| release_low(without(settings, &irql::DISPATCH), DEVICE),
    },
    Case {
        rule: &irql::ACQUIRE_SPIN_LOCK,
        breaks: |settings| acquire_at(without(settings, &irql::KE_DISPATCH_LTE), DEVICE),
        comes_close: |settings| acquire_at(without(settings, &irql::KE_DISPATCH_LTE), DISPATCH),
    },
    Case {
        rule: &irql::UNEXPECTED_VALUE,
        breaks: |settings| dpc(settings, raises_and_returns),
        comes_close: |settings| dpc(settings, raises_and_lowers),
    },
    Case {
        rule: &irql::KMDF,
        breaks: |settings| open_parameters_key(settings, APC),
        comes_close: |settings| open_parameters_key(settings, 0),
    },
];

/// Kept here, since the rule that comes first is of this family.
pub const SET_EVENT: Case = Case {
    rule: &wait::SET_EVENT_IRQL,
    breaks: |settings| set_event(without(settings, &irql::KE_SET_EVENT), DEVICE, 0),
    comes_close: |settings| set_event(without(settings, &irql::KE_SET_EVENT), DISPATCH, 1),
};

fn fast_mutex(settings: Settings, irql: u8) -> Result<(), Error> {
    run(settings, move || {
        // `ExInitializeFastMutex` is inline: a count of 1, and an event at offset 24.
        let mutex = room();
        // SAFETY: the memory is ours.
        unsafe { mutex.write(1) };
        KeInitializeEvent(mutex.wrapping_add(3), 1, 0);
        let old = KfRaiseIrql(irql);
        ExAcquireFastMutex(mutex);
        ExReleaseFastMutex(mutex);
        KeLowerIrql(old);
    })
}

fn delay(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        KeDelayExecutionThread(0, 0, &-1);
    })
}

fn critical_region(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        KeEnterCriticalRegion();
        KeLeaveCriticalRegion();
    })
}

fn reference(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        let mut object = 0;
        ObReferenceObjectByHandle(4, 0, 0, 0, &raw mut object, std::ptr::null_mut());
    })
}

fn delete_value(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        RtlDeleteRegistryValue(1, wide("Test"), wide("Value"));
    })
}

fn write_value(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        RtlWriteRegistryValue(1, wide("Test"), wide("Value"), 4, [0; 4].as_ptr(), 4);
    })
}

/// A function of the framework's that needs `PASSIVE_LEVEL`.
fn open_parameters_key(settings: Settings, irql: u8) -> Result<(), Error> {
    let mut bench = Bench::scripted(settings).on("DeviceAdd", move |_| {
        let old = KfRaiseIrql(irql);
        let mut key = std::ptr::null_mut();
        // SAFETY: the framework has bound the driver, whose callback this is.
        let globals = unsafe { ntsim_sys::WdfDriverGlobals };
        // SAFETY: as above.
        let driver = unsafe { (*globals).Driver };
        let status = wdf!(WdfDriverOpenParametersRegistryKey: WdfDriverOpenParametersRegistryKeyTableIndex
            as PFN_WDFDRIVEROPENPARAMETERSREGISTRYKEY(driver, 0x2_0019, std::ptr::null_mut(), &raw mut key));
        KeLowerIrql(old);
        status
    });
    bench.try_start()
}

/// A lock that is acquired at `DISPATCH_LEVEL` and released elsewhere.
fn release_low(settings: Settings, irql: u8) -> Result<(), Error> {
    run(settings, move || {
        let lock = lock();
        KfRaiseIrql(DISPATCH);
        KeAcquireSpinLockAtDpcLevel(lock);
        if irql < DISPATCH {
            KeLowerIrql(irql);
        } else {
            KfRaiseIrql(irql);
        }
        KeReleaseSpinLockFromDpcLevel(lock);
        KeLowerIrql(0);
    })
}

fn acquire_at(settings: Settings, irql: u8) -> Result<(), Error> {
    at(settings, irql, || {
        let lock = lock();
        let old = KeAcquireSpinLockRaiseToDpc(lock);
        KeReleaseSpinLock(lock, DISPATCH);
        KfRaiseIrql(old);
    })
}
