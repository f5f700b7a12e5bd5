// SPDX-License-Identifier: MIT OR Apache-2.0

//! Interrupts as a driver in C sees them.

#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a driver in C would not be checked either; the machine checks this one"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "as above")]
#![allow(clippy::missing_safety_doc, reason = "as above")]

#[macro_use]
#[path = "support/raw.rs"]
mod raw;

use std::cell::Cell;
use std::ffi::c_void;

use ntsim::StopKind;
use ntsim::machine::{Hardware, Raised};
use ntsim_sys::{NTSTATUS, WDF_INTERRUPT_CONFIG, WDFDEVICE, WDFINTERRUPT, WDFOBJECT};
use raw::{Bench, attributes, below, delay, irql, sized};

const INFO_LENGTH_MISMATCH: NTSTATUS = 0xC000_0004_u32.cast_signed();
const INVALID_PARAMETER: NTSTATUS = 0xC000_000D_u32.cast_signed();
const INVALID_DEVICE_STATE: NTSTATUS = 0xC000_0184_u32.cast_signed();
const PARENT_ASSIGNMENT_NOT_ALLOWED: NTSTATUS = 0xC020_020F_u32.cast_signed();

const TIMEOUT: NTSTATUS = 0x102;

thread_local! {
    /// The interrupts of the test's device.
    static LINES: Cell<[WDFINTERRUPT; 2]> = const { Cell::new([std::ptr::null_mut(); 2]) };
    static SERVED: Cell<u32> = const { Cell::new(0) };
    /// How many ISRs run, and how many ran at once.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
    static OVERLAP: Cell<u32> = const { Cell::new(0) };
    static DEFERRED: Cell<u32> = const { Cell::new(0) };
}

fn line(index: usize) -> WDFINTERRUPT {
    LINES.get()[index]
}

unsafe extern "C-unwind" fn isr(interrupt: WDFINTERRUPT, _message: u32) -> u8 {
    SERVED.set(SERVED.get() + 1);
    INSIDE.set(INSIDE.get() + 1);
    OVERLAP.set(OVERLAP.get().max(INSIDE.get()));
    let status = raw::act("Isr", interrupt.cast());
    INSIDE.set(INSIDE.get() - 1);
    u8::from(status == 0)
}
unsafe extern "C-unwind" fn dpc(_: WDFINTERRUPT, _: WDFOBJECT) {
    DEFERRED.set(DEFERRED.get() + 1);
}
unsafe extern "C-unwind" fn enable(interrupt: WDFINTERRUPT, _: WDFDEVICE) -> NTSTATUS {
    raw::act("Enable", interrupt.cast())
}
unsafe extern "C-unwind" fn synchronized(_: WDFINTERRUPT, context: *mut c_void) -> u8 {
    assert_eq!(context as usize, 7);
    irql()
}

/// `WDF_INTERRUPT_CONFIG_INIT`.
fn config() -> WDF_INTERRUPT_CONFIG {
    WDF_INTERRUPT_CONFIG {
        EvtInterruptIsr: Some(isr),
        EvtInterruptDpc: Some(dpc),
        EvtInterruptEnable: Some(enable),
        ShareVector: 2,
        ReportInactiveOnPowerDown: 2,
        ..sized()
    }
}

fn create(device: WDFOBJECT, mut config: WDF_INTERRUPT_CONFIG) -> Result<WDFINTERRUPT, NTSTATUS> {
    let mut attributes = attributes();
    let mut interrupt = std::ptr::null_mut();
    let status = wdf!(WdfInterruptCreate: WdfInterruptCreateTableIndex as PFN_WDFINTERRUPTCREATE(
        device.cast(), &raw mut config, &raw mut attributes, &raw mut interrupt));
    if status < 0 {
        Err(status)
    } else {
        Ok(interrupt)
    }
}

fn acquire(interrupt: WDFINTERRUPT) {
    wdf!(WdfInterruptAcquireLock: WdfInterruptAcquireLockTableIndex
        as PFN_WDFINTERRUPTACQUIRELOCK(interrupt));
}

fn release(interrupt: WDFINTERRUPT) {
    wdf!(WdfInterruptReleaseLock: WdfInterruptReleaseLockTableIndex
        as PFN_WDFINTERRUPTRELEASELOCK(interrupt));
}

fn queue_dpc(interrupt: WDFINTERRUPT) -> bool {
    wdf!(WdfInterruptQueueDpcForIsr: WdfInterruptQueueDpcForIsrTableIndex
        as PFN_WDFINTERRUPTQUEUEDPCFORISR(interrupt))
        != 0
}

fn raise(bench: &mut Bench, line: u32) -> Raised {
    let device = bench.device.clone();
    bench.machine.raise_interrupt(&device, line).unwrap()
}

/// A device with two lines, whose interrupts are made with `change` on their config.
fn card(seed: u64, change: impl Fn(WDFOBJECT, &mut WDF_INTERRUPT_CONFIG) + 'static) -> Bench {
    SERVED.set(0);
    DEFERRED.set(0);
    let mut bench = Bench::new(seed).on("DeviceAdd", move |device| {
        let mut config = config();
        change(device, &mut config);
        LINES.set([(); 2].map(|()| create(device, config).unwrap()));
        0
    });
    let device = bench.device.clone();
    bench
        .machine
        .set_hardware(&device, Hardware::new().interrupt().interrupt());
    bench
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptcreate>
/// and <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config>
#[test]
fn a_config_that_does_not_fit_is_refused() {
    let mut bench = Bench::new(1).on("DeviceAdd", |device| {
        let refused = |status, change: fn(&mut WDF_INTERRUPT_CONFIG)| {
            let mut config = config();
            change(&mut config);
            assert_eq!(create(device, config), Err(status));
        };
        refused(INFO_LENGTH_MISMATCH, |config| config.Size -= 1);
        refused(INVALID_PARAMETER, |config| config.EvtInterruptIsr = None);
        // A DPC or a work item, not both.
        refused(INVALID_PARAMETER, |config| {
            config.EvtInterruptWorkItem = Some(dpc);
        });
        // A wait lock is for passive handling, a spin lock for the other.
        refused(INVALID_PARAMETER, |config| {
            config.WaitLock = std::ptr::dangling_mut();
        });
        refused(INVALID_PARAMETER, |config| {
            config.PassiveHandling = 1;
            config.SpinLock = std::ptr::dangling_mut();
        });
        // Both descriptors or none.
        refused(INVALID_PARAMETER, |config| {
            config.InterruptRaw = std::ptr::dangling_mut();
        });
        let mut attributes = below(device);
        let mut interrupt = std::ptr::null_mut();
        let mut good = config();
        let status = wdf!(WdfInterruptCreate: WdfInterruptCreateTableIndex
            as PFN_WDFINTERRUPTCREATE(device.cast(), &raw mut good, &raw mut attributes, &raw mut interrupt));
        assert_eq!(status, PARENT_ASSIGNMENT_NOT_ALLOWED);
        0
    });
    bench = bench.on("D0Entry", |device| {
        assert_eq!(create(device, config()), Err(INVALID_DEVICE_STATE));
        0
    });
    bench.start();
    bench.remove();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptacquirelock>
/// and <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptsynchronize>
#[test]
fn the_interrupts_lock_keeps_its_isr_out_and_raises_to_its_irql() {
    for seed in 0..32 {
        let mut bench = card(seed, |_, _| {});
        bench.start();
        let device = bench.device.clone();
        bench.run(|| {
            let at = wdf!(WdfInterruptSynchronize: WdfInterruptSynchronizeTableIndex
                as PFN_WDFINTERRUPTSYNCHRONIZE(line(1), Some(synchronized), 7 as *mut c_void));
            assert_eq!(at, 6, "the IRQL of the second line");
            assert_eq!(irql(), 0);
        });
        assert_eq!(
            bench.machine.raise_interrupt(&device, 0).unwrap(),
            Raised::Delivered
        );
        bench.run(|| {
            acquire(line(0));
            assert_eq!(irql(), 5);
            let before = SERVED.get();
            // A preemption point, at which the ISR would run if it could.
            assert!(queue_dpc(line(1)));
            assert_eq!(SERVED.get(), before);
            release(line(0));
            assert_eq!(irql(), 0);
        });
        bench.run_for(1);
        assert_eq!((SERVED.get(), DEFERRED.get()), (1, 1), "seed {seed}");
        bench.remove();
    }
}

/// The `SpinLock` of
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/ns-wdfinterrupt-_wdf_interrupt_config>
#[test]
fn interrupts_with_one_spin_lock_do_not_overlap() {
    for seed in 0..32 {
        let mut bench = card(seed, |device, config| {
            let mut attributes = below(device);
            let mut lock = std::ptr::null_mut();
            let status = wdf!(WdfSpinLockCreate: WdfSpinLockCreateTableIndex
                as PFN_WDFSPINLOCKCREATE(&raw mut attributes, &raw mut lock));
            assert_eq!(status, 0);
            config.SpinLock = lock;
        });
        OVERLAP.set(0);
        bench = bench.on("Isr", |interrupt| {
            // A preemption point.
            queue_dpc(interrupt.cast());
            0
        });
        bench.start();
        for round in 0..4 {
            assert_eq!(raise(&mut bench, round % 2), Raised::Delivered);
        }
        bench.run_for(1);
        assert_eq!((SERVED.get(), OVERLAP.get()), (4, 1), "seed {seed}");
        bench.remove();
    }
}

/// Whether the driver's lock, and the interrupt's, can be had at once.
fn try_both(lock: ntsim_sys::WDFWAITLOCK) -> (NTSTATUS, u8) {
    let mut at_once = 0_i64;
    let own = wdf!(WdfWaitLockAcquire: WdfWaitLockAcquireTableIndex
        as PFN_WDFWAITLOCKACQUIRE(lock, &raw mut at_once));
    if own == 0 {
        wdf!(WdfWaitLockRelease: WdfWaitLockReleaseTableIndex as PFN_WDFWAITLOCKRELEASE(lock));
    }
    let interrupts = wdf!(WdfInterruptTryToAcquireLock: WdfInterruptTryToAcquireLockTableIndex
        as PFN_WDFINTERRUPTTRYTOACQUIRELOCK(line(0)));
    if interrupts == 1 {
        release(line(0));
    }
    (own, interrupts)
}

/// The `WaitLock` of
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/supporting-passive-level-interrupts>
#[test]
fn a_passive_isr_runs_under_the_drivers_wait_lock() {
    thread_local! {
        static LOCK: Cell<ntsim_sys::WDFWAITLOCK> = const { Cell::new(std::ptr::null_mut()) };
    }
    for seed in 0..16 {
        let mut bench = card(seed, |device, config| {
            let mut attributes = below(device);
            let mut lock = std::ptr::null_mut();
            let status = wdf!(WdfWaitLockCreate: WdfWaitLockCreateTableIndex
                as PFN_WDFWAITLOCKCREATE(&raw mut attributes, &raw mut lock));
            assert_eq!(status, 0);
            LOCK.set(lock);
            config.PassiveHandling = 1;
            config.WaitLock = lock;
        });
        bench = bench.on("Isr", |_| {
            assert_eq!(irql(), 0);
            delay(50);
            0
        });
        bench.start();
        assert_eq!(raise(&mut bench, 0), Raised::Delivered);
        bench.run(|| {
            // The ISR has begun by then, and waits.
            delay(1);
            assert_eq!(try_both(LOCK.get()), (TIMEOUT, 0));
            delay(100);
            assert_eq!(try_both(LOCK.get()), (0, 1));
        });
        assert_eq!(SERVED.get(), 1, "seed {seed}");
        bench.remove();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptdisable>
#[test]
fn a_line_that_is_raised_while_it_is_disabled_is_served_later() {
    let mut bench = card(1, |_, _| {});
    bench.start();
    bench.run(|| {
        wdf!(WdfInterruptDisable: WdfInterruptDisableTableIndex as PFN_WDFINTERRUPTDISABLE(line(0)));
    });
    assert_eq!(raise(&mut bench, 0), Raised::Pending);
    bench.run_for(1);
    assert_eq!(SERVED.get(), 0);
    bench.run(|| {
        wdf!(WdfInterruptEnable: WdfInterruptEnableTableIndex as PFN_WDFINTERRUPTENABLE(line(0)));
    });
    bench.run_for(1);
    assert_eq!(SERVED.get(), 1);
    bench.remove();
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nf-wdfinterrupt-wdfinterruptqueuedpcforisr>
#[test]
fn queueing_a_dpc_that_the_interrupt_has_not_is_stopped_by_the_verifier() {
    let mut bench = card(1, |_, config| config.EvtInterruptDpc = None);
    bench.start();
    let stop = bench
        .machine
        .run_thread("test", || queue_dpc(line(0)))
        .unwrap_err();
    assert!(matches!(stop.kind, StopKind::BugCheck { .. }), "{stop}");
}
