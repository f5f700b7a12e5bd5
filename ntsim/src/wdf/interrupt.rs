// SPDX-License-Identifier: MIT OR Apache-2.0

//! `WDFINTERRUPT`:
//! <https://learn.microsoft.com/windows-hardware/drivers/wdf/creating-an-interrupt-object>
//!
//! # Vocabulary
//! - *line*: what the device raises; [`raise`] is the machine's hand on it.
//! - *connected*: the kernel calls the ISR. True from before
//!   `EvtInterruptEnable` until after `EvtInterruptDisable`.
//! - *interrupt lock*: the spin lock that the ISR, the enable and disable
//!   callbacks, `WdfInterruptSynchronize` and `WdfInterruptAcquireLock` share.
//!   For a passive interrupt it is a lock for waiting.
//!
//! ```text
//!   D0Entry ─► connect ─► EvtInterruptEnable ─► D0EntryPostInterruptsEnabled
//!                 │ raise
//!                 ├──────► ISR at the line's IRQL ──► queued ──► EvtInterruptDpc
//!                 ▼
//!   D0ExitPreInterruptsDisabled ─► EvtInterruptDisable ─► disconnect, DPCs flushed ─► D0Exit
//! ```
//!
//! An ISR is a context of its own, so it runs between any two instructions of
//! other processors' code, and in the midst of its own processor's: while it is
//! ready, contexts at a lower IRQL run only on processors that are left.
//!
//! A line that is raised while disconnected, or reported as inactive, stays raised, as a level-triggered
//! one does, and its ISR runs once it is connected.
//!
//! Orders: <https://learn.microsoft.com/windows-hardware/drivers/wdf/enabling-and-disabling-interrupts>;
//! the levels and locks of each callback are those of its page, e.g.
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfinterrupt/nc-wdfinterrupt-evt_wdf_interrupt_enable>.

use crate::abi::{callback, param};
use crate::access::{Addr, peek, poke};
use crate::kernel::{self, DISPATCH_LEVEL, Kernel};
use crate::locks::Kind;
use crate::rules::kmdf;
use crate::trap::kernel;

use super::hardware::{self, Descriptor};
use super::object::{self, Allow, Data, Handle};
use super::raw::ObjectAttributes;
use super::{
    Globals, STATUS_INFO_LENGTH_MISMATCH, STATUS_INVALID_DEVICE_REQUEST,
    STATUS_INVALID_DEVICE_STATE, STATUS_INVALID_PARAMETER, lock, required,
};

/// `WDF_INTERRUPT_CONFIG`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Config {
    size: u32,
    spin_lock: Handle,
    share_vector: u32,
    floating_save: u8,
    automatic_serialization: u8,
    evt_isr: usize,
    evt_dpc: usize,
    evt_enable: usize,
    evt_disable: usize,
    evt_work_item: usize,
    raw: *const Descriptor,
    translated: *const Descriptor,
    wait_lock: Handle,
    passive: u8,
    report_inactive: u32,
    can_wake: u8,
}

/// `WDF_INTERRUPT_INFO`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Info {
    size: u32,
    reserved1: u64,
    target_processor_set: u64,
    reserved2: u32,
    message_number: u32,
    vector: u32,
    irql: u8,
    mode: u32,
    polarity: u32,
    message_signaled: u8,
    share_disposition: u8,
    // The group is aligned to 8 bytes.
    reserved3: [u8; 6],
    group: u16,
}

/// What the framework keeps of an interrupt.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that are independent of each other"
)]
pub(crate) struct Interrupt {
    device: Handle,
    evt_isr: usize,
    evt_dpc: usize,
    evt_enable: usize,
    evt_disable: usize,
    evt_work_item: usize,
    passive: bool,
    /// The device's line, once resources are assigned.
    line: Option<u32>,
    /// It was created in PrepareHardware, for one start of the device.
    from_descriptor: bool,
    connected: bool,
    /// Raised while it was not connected.
    pending: bool,
    /// The DPC, or the work item of a passive interrupt, is in the queue.
    queued: bool,
    /// DPCs, work items and ISRs that run or are about to.
    running: u32,
    /// The IRQL at which the holder of the lock took it.
    old_irql: u8,
    /// The driver's own lock: a `WDFSPINLOCK`, or a `WDFWAITLOCK` of a passive interrupt.
    lock: Option<Handle>,
    /// Not reported as inactive.
    active: bool,
}

impl Interrupt {
    fn irql(&self) -> u8 {
        hardware::irql_of_line(self.line.unwrap_or(0))
    }

    /// Whether the kernel calls the ISR.
    fn is_heard(&self) -> bool {
        self.connected && self.active
    }
}

/// `WdfInterruptCreate`. Needs `PASSIVE_LEVEL`, in `EvtDriverDeviceAdd` or
/// `EvtDevicePrepareHardware`; in the latter with the resource descriptors.
///
/// # Errors
/// `STATUS_INFO_LENGTH_MISMATCH`; `STATUS_INVALID_PARAMETER` without an ISR,
/// with a DPC and a work item, with a work item or wait lock for an interrupt
/// that is not passive, or with one descriptor of the two;
/// `STATUS_INVALID_DEVICE_STATE` once the device has started; those of the attributes.
pub(crate) fn create(
    _: Globals,
    device: Handle,
    config: *const Config,
    from: *const ObjectAttributes,
    out: *mut Handle,
) -> i32 {
    let function = "WdfInterruptCreate";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::device(k, device, function);
    });
    required(config, function, "Configuration");
    required(out, function, "Interrupt");
    poke(out, std::ptr::null_mut());
    if peek(config.cast::<u32>()) as usize != size_of::<Config>() {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    let config = peek(config);
    let wrong = config.evt_isr == 0
        || (config.evt_dpc != 0 && config.evt_work_item != 0)
        || (config.passive == 0 && !config.wait_lock.is_null())
        || (config.passive != 0 && !config.spin_lock.is_null())
        || config.raw.is_null() != config.translated.is_null();
    if wrong {
        return STATUS_INVALID_PARAMETER;
    }
    let lock = [config.spin_lock, config.wait_lock]
        .into_iter()
        .find(|lock| !lock.is_null());
    kernel(|k| match lock {
        Some(lock) if config.passive != 0 => {
            object::wait_lock(k, lock, function);
        }
        Some(lock) => {
            object::spin_lock(k, lock, function);
        }
        None => {}
    });
    let line = if config.translated.is_null() {
        None
    } else {
        match hardware::line_of(&peek(config.translated)) {
            Some(line) => Some(line),
            None => return STATUS_INVALID_PARAMETER,
        }
    };
    let created = object::attributes(from, Allow::NoParent, false).and_then(|attributes| {
        kernel(|k| {
            if object::device(k, device, function).io.control.is_some() {
                return Err(STATUS_INVALID_DEVICE_REQUEST);
            }
            if object::device(k, device, function).pnp.is_past_hardware() {
                return Err(STATUS_INVALID_DEVICE_STATE);
            }
            let slot = object::get(k, device).driver;
            let interrupt = Interrupt {
                device,
                evt_isr: config.evt_isr,
                evt_dpc: config.evt_dpc,
                evt_enable: config.evt_enable,
                evt_disable: config.evt_disable,
                evt_work_item: config.evt_work_item,
                passive: config.passive != 0,
                line,
                from_descriptor: line.is_some(),
                connected: false,
                pending: false,
                queued: false,
                running: 0,
                old_irql: 0,
                lock,
                active: true,
            };
            object::create(
                k,
                slot,
                Some(device),
                &attributes,
                Data::Interrupt(interrupt),
            )
        })
    });
    object::give(out, created)
}

fn interrupt(k: &mut Kernel, handle: Handle) -> &mut Interrupt {
    object::interrupt(k, handle, "the framework")
}

/// The interrupts of a device, in the order of their creation.
fn of_device(k: &mut Kernel, device: Handle) -> Vec<Handle> {
    let children = object::get(k, device).children.clone();
    children
        .into_iter()
        .filter(|child| matches!(object::get(k, *child).data, Data::Interrupt(_)))
        .collect()
}

/// Gives the device's lines to the interrupts that were created without
/// descriptors, first come first served. Part of the device's start.
pub(crate) fn assign_resources(k: &mut Kernel, device: Handle) {
    let instance = object::device(k, device, "the PnP manager")
        .instance
        .to_lowercase();
    let lines = k
        .wdf
        .hardware
        .get(&instance)
        .map_or(0, hardware::Hardware::interrupt_count);
    let mut free = 0..u32::try_from(lines).unwrap_or(0);
    for handle in of_device(k, device) {
        if !interrupt(k, handle).from_descriptor {
            interrupt(k, handle).line = free.next();
        }
    }
}

/// Connects the device's interrupts, and lets the driver enable them. Part of
/// the way to D0, after D0Entry.
///
/// # Errors
/// The status of `EvtInterruptEnable`.
pub(crate) fn enable_all(device: Handle) -> Result<(), i32> {
    for handle in kernel(|k| of_device(k, device)) {
        connect(handle)?;
    }
    Ok(())
}

/// Disables and disconnects them, last first, and waits for their DPCs.
///
/// # Errors
/// The first bad status of `EvtInterruptDisable`.
pub(crate) fn disable_all(device: Handle) -> Result<(), i32> {
    let mut result = Ok(());
    for handle in kernel(|k| of_device(k, device)).into_iter().rev() {
        result = result.and(disconnect(handle));
    }
    result
}

fn connect(handle: Handle) -> Result<(), i32> {
    let (device, evt) = kernel(|k| {
        let interrupt = interrupt(k, handle);
        if interrupt.line.is_none() || interrupt.connected {
            return (interrupt.device, None);
        }
        interrupt.connected = true;
        interrupt.active = true;
        (interrupt.device, Some(interrupt.evt_enable))
    });
    let Some(evt) = evt else { return Ok(()) };
    let status = if evt == 0 {
        0
    } else {
        locked(handle, || {
            callback::<i32>(
                "EvtInterruptEnable",
                evt,
                &[
                    param("Interrupt", &handle),
                    param("AssociatedDevice", &device),
                ],
            )
        })
    };
    if status < 0 {
        kernel(|k| interrupt(k, handle).connected = false);
        return Err(status);
    }
    kernel(|k| deliver_pending(k, handle));
    Ok(())
}

fn disconnect(handle: Handle) -> Result<(), i32> {
    let (device, evt) = kernel(|k| {
        let interrupt = interrupt(k, handle);
        (
            interrupt.device,
            interrupt.connected.then_some(interrupt.evt_disable),
        )
    });
    let Some(evt) = evt else { return Ok(()) };
    let status = if evt == 0 {
        0
    } else {
        locked(handle, || {
            callback::<i32>(
                "EvtInterruptDisable",
                evt,
                &[
                    param("Interrupt", &handle),
                    param("AssociatedDevice", &device),
                ],
            )
        })
    };
    kernel(|k| interrupt(k, handle).connected = false);
    super::wait_until(|k| is_idle(k, handle));
    if status < 0 { Err(status) } else { Ok(()) }
}

/// The interrupts that the driver created in PrepareHardware, which go with the hardware.
pub(crate) fn of_one_start(k: &mut Kernel, device: Handle) -> Vec<Handle> {
    of_device(k, device)
        .into_iter()
        .filter(|handle| interrupt(k, *handle).from_descriptor)
        .collect()
}

fn is_idle(k: &mut Kernel, handle: Handle) -> bool {
    let interrupt = interrupt(k, handle);
    !interrupt.queued && interrupt.running == 0
}

/// Part of the interrupt's deletion.
pub(crate) fn dispose(handle: Handle) {
    kernel(|k| interrupt(k, handle).connected = false);
    super::wait_until(|k| is_idle(k, handle));
}

// ---- the lock --------------------------------------------------------

/// Runs `body` as an ISR runs: under the lock, at the interrupt's IRQL.
fn locked<R>(handle: Handle, body: impl FnOnce() -> R) -> R {
    let (passive, irql) = kernel(|k| {
        let interrupt = interrupt(k, handle);
        (interrupt.passive, interrupt.irql())
    });
    if passive {
        take_passive(handle);
        let result = body();
        give_passive(handle);
        return result;
    }
    let old = raise_irql(irql);
    let lock = kernel(|k| spin_lock_of(k, handle));
    crate::ke::spin_lock::acquire(lock, Kind::Framework, None, "the framework");
    let result = body();
    kernel(|k| {
        crate::ke::spin_lock::release(k, lock, Kind::Framework, "the framework");
        k.set_irql(old);
    });
    result
}

/// The identity of the spin lock that the ISR runs under: several interrupts
/// can have the same one of the driver's.
fn spin_lock_of(k: &mut Kernel, handle: Handle) -> usize {
    interrupt(k, handle).lock.unwrap_or(handle) as usize
}

/// Takes the lock of a passive interrupt, the driver's own if it gave one.
fn take_passive(handle: Handle) {
    match kernel(|k| interrupt(k, handle).lock) {
        // Without a time-out it always succeeds.
        Some(own) => drop(lock::wait_acquire(Globals(0), own, std::ptr::null())),
        None => lock::acquire_passive(handle),
    }
}

fn give_passive(handle: Handle) {
    match kernel(|k| interrupt(k, handle).lock) {
        Some(own) => lock::wait_release(Globals(0), own),
        None => kernel(|k| lock::release_passive(k, handle)),
    }
}

fn raise_irql(irql: u8) -> u8 {
    kernel(|k| {
        let old = k.irql();
        k.set_irql(irql.max(old));
        old
    })
}

/// The interrupt of a lock function, which must not be called above the interrupt's IRQL.
fn of_lock(handle: Handle, function: &'static str) -> (bool, u8) {
    kernel(|k| {
        let interrupt = object::interrupt(k, handle, function);
        let (passive, irql) = (interrupt.passive, interrupt.irql());
        if passive {
            crate::ke::irql::passive(k, function);
        } else if k.irql() > irql {
            let at = k.irql();
            k.broken(
                &kmdf::INTERRUPT_LOCK_IRQL,
                &[],
                format!("{function} was called at IRQL {at}, above the interrupt's {irql}"),
            );
        }
        (passive, irql)
    })
}

/// `WdfInterruptAcquireLock`. Raises to the interrupt's IRQL.
pub(crate) fn acquire_lock(_: Globals, handle: Handle) {
    let (passive, irql) = of_lock(handle, "WdfInterruptAcquireLock");
    if passive {
        take_passive(handle);
        return;
    }
    let old = raise_irql(irql);
    let lock = kernel(|k| spin_lock_of(k, handle));
    crate::ke::spin_lock::acquire(lock, Kind::Framework, None, "WdfInterruptAcquireLock");
    kernel(|k| interrupt(k, handle).old_irql = old);
}

/// `WdfInterruptReleaseLock`.
pub(crate) fn release_lock(_: Globals, handle: Handle) {
    let function = "WdfInterruptReleaseLock";
    let passive = kernel(|k| object::interrupt(k, handle, function).passive);
    if passive {
        give_passive(handle);
        return;
    }
    kernel(|k| {
        let old = interrupt(k, handle).old_irql;
        let lock = spin_lock_of(k, handle);
        crate::ke::spin_lock::release(k, lock, Kind::Framework, function);
        k.set_irql(old);
    });
}

/// `WdfInterruptTryToAcquireLock`, for passive interrupts. Needs `PASSIVE_LEVEL`.
pub(crate) fn try_to_acquire_lock(_: Globals, handle: Handle) -> u8 {
    let function = "WdfInterruptTryToAcquireLock";
    kernel(|k| {
        if !object::interrupt(k, handle, function).passive {
            let message = format!(
                "{function} was called for an interrupt that is not handled at passive level"
            );
            super::verifier_break(k, &kmdf::INTERRUPT_TRY_LOCK, message);
        }
        crate::ke::irql::passive(k, function);
    });
    if let Some(own) = kernel(|k| interrupt(k, handle).lock) {
        let at_once = 0_i64;
        let status = lock::wait_acquire(Globals(0), own, &raw const at_once);
        return u8::from(status == super::STATUS_SUCCESS);
    }
    kernel(|k| {
        let me = k.running();
        let free = !k.wdf.object_locks.contains_key(&handle);
        if free {
            k.wdf.object_locks.insert(handle, me);
        }
        u8::from(free)
    })
}

/// `WdfInterruptSynchronize`.
pub(crate) fn synchronize(_: Globals, handle: Handle, routine: Addr, context: Addr) -> u8 {
    of_lock(handle, "WdfInterruptSynchronize");
    locked(handle, || {
        callback::<u8>(
            "EvtInterruptSynchronize",
            routine.0,
            &[param("Interrupt", &handle), param("Context", &context)],
        )
    })
}

// ---- interrupts happen -----------------------------------------------

/// What became of a raised line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// An ISR was started; it runs when the schedule has it.
    Delivered,
    /// The driver has not enabled the interrupt: the ISR runs once it has.
    Pending,
    /// No interrupt object of the driver is for this line.
    Unconnected,
}

/// Raises line `line` of a device.
pub(crate) fn raise(k: &mut Kernel, device: Handle, line: u32) -> Raised {
    let found = of_device(k, device)
        .into_iter()
        .find(|handle| interrupt(k, *handle).line == Some(line));
    let Some(handle) = found else {
        return Raised::Unconnected;
    };
    if !interrupt(k, handle).is_heard() {
        interrupt(k, handle).pending = true;
        return Raised::Pending;
    }
    deliver(k, handle);
    Raised::Delivered
}

/// Starts the ISR for what was raised while nobody listened.
fn deliver_pending(k: &mut Kernel, handle: Handle) {
    let interrupt = interrupt(k, handle);
    if interrupt.is_heard() && std::mem::take(&mut interrupt.pending) {
        deliver(k, handle);
    }
}

/// The number of the interrupt's message, if it is message-signaled.
fn message_of(k: &mut Kernel, handle: Handle) -> Option<u32> {
    let (device, line) = {
        let interrupt = interrupt(k, handle);
        (interrupt.device, interrupt.line?)
    };
    let instance = object::device(k, device, "the PnP manager")
        .instance
        .to_lowercase();
    k.wdf.hardware.get(&instance)?.message_of(line)
}

/// Starts the ISR.
fn deliver(k: &mut Kernel, handle: Handle) {
    let (passive, irql) = {
        let interrupt = interrupt(k, handle);
        interrupt.running += 1;
        (interrupt.passive, interrupt.irql())
    };
    let job = Box::new(move || {
        serve(handle);
        if !passive {
            // What the interrupted code does is its own context's; this one ends as a DPC does.
            kernel(|k| k.set_irql(DISPATCH_LEVEL));
        }
    });
    if passive {
        crate::ex::queue_work(k, job);
    } else {
        let name = format!(
            "{}.isr",
            k.name_of(handle as usize).unwrap_or("WDFINTERRUPT")
        );
        k.spawn(name, irql, None, job);
    }
}

fn serve(handle: Handle) {
    locked(handle, || {
        let (evt, heard, message) = kernel(|k| {
            let message = message_of(k, handle).unwrap_or(0);
            let interrupt = interrupt(k, handle);
            (interrupt.evt_isr, interrupt.is_heard(), message)
        });
        // It was disconnected while this context waited for the lock or a processor.
        if heard {
            callback::<u8>(
                "EvtInterruptIsr",
                evt,
                &[param("Interrupt", &handle), param("MessageID", &message)],
            );
        } else {
            kernel(|k| interrupt(k, handle).pending = true);
        }
    });
    done(handle);
}

fn done(handle: Handle) {
    kernel(|k| {
        interrupt(k, handle).running -= 1;
        super::wake(k);
    });
}

/// `WdfInterruptQueueDpcForIsr`. Callable at any IRQL. Returns whether it was
/// not in the queue.
pub(crate) fn queue_dpc_for_isr(_: Globals, handle: Handle) -> u8 {
    let function = "WdfInterruptQueueDpcForIsr";
    kernel(|k| {
        if object::interrupt(k, handle, function).evt_dpc == 0 {
            let message = format!("{function} was called for an interrupt without EvtInterruptDpc");
            super::verifier_break(k, &kmdf::INTERRUPT_CALLBACK, message);
        }
        let name = format!(
            "{}.dpc",
            k.name_of(handle as usize).unwrap_or("WDFINTERRUPT")
        );
        let queued = k.queue_dpc(kernel::Dpc {
            routine: 0,
            key: handle as usize,
            name,
            run: Box::new(move || {
                deferred(handle, "EvtInterruptDpc", |interrupt| interrupt.evt_dpc);
            }),
        });
        interrupt(k, handle).queued |= queued;
        u8::from(queued)
    })
}

/// `WdfInterruptQueueWorkItemForIsr`. Callable at any IRQL. Returns whether it
/// was not in the queue.
pub(crate) fn queue_work_item_for_isr(_: Globals, handle: Handle) -> u8 {
    let function = "WdfInterruptQueueWorkItemForIsr";
    kernel(|k| {
        if object::interrupt(k, handle, function).evt_work_item == 0 {
            let message =
                format!("{function} was called for an interrupt without EvtInterruptWorkItem");
            super::verifier_break(k, &kmdf::INTERRUPT_CALLBACK, message);
        }
        if std::mem::replace(&mut interrupt(k, handle).queued, true) {
            return 0;
        }
        crate::ex::queue_work(
            k,
            Box::new(move || {
                deferred(handle, "EvtInterruptWorkItem", |interrupt| {
                    interrupt.evt_work_item
                });
            }),
        );
        1
    })
}

fn deferred(handle: Handle, name: &'static str, which: fn(&Interrupt) -> usize) {
    let (evt, device) = kernel(|k| {
        let interrupt = interrupt(k, handle);
        interrupt.queued = false;
        interrupt.running += 1;
        (which(interrupt), interrupt.device)
    });
    callback::<()>(
        name,
        evt,
        &[
            param("Interrupt", &handle),
            param("AssociatedObject", &device),
        ],
    );
    done(handle);
}

/// `WdfInterruptEnable`: connects by hand. Needs `PASSIVE_LEVEL`.
pub(crate) fn enable(_: Globals, handle: Handle) {
    let function = "WdfInterruptEnable";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::interrupt(k, handle, function);
    });
    // The framework's function has no way to tell the status.
    connect(handle).unwrap_or_default();
}

/// `WdfInterruptDisable`. Needs `PASSIVE_LEVEL`.
pub(crate) fn disable(_: Globals, handle: Handle) {
    let function = "WdfInterruptDisable";
    kernel(|k| {
        crate::ke::irql::passive(k, function);
        object::interrupt(k, handle, function);
    });
    disconnect(handle).unwrap_or_default();
}

/// `WdfInterruptGetDevice`.
pub(crate) fn get_device(_: Globals, handle: Handle) -> Handle {
    kernel(|k| object::interrupt(k, handle, "WdfInterruptGetDevice").device)
}

/// `WdfInterruptGetInfo`. All zero before resources are assigned.
pub(crate) fn get_info(_: Globals, handle: Handle, out: *mut Info) {
    let function = "WdfInterruptGetInfo";
    required(out, function, "Info");
    let (line, irql, message) = kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let interrupt = object::interrupt(k, handle, function);
        let (line, irql) = (interrupt.line, interrupt.irql());
        (line, irql, message_of(k, handle))
    });
    let info = peek(out);
    if info.size as usize != size_of::<Info>() {
        kernel(|k| {
            super::verifier_break(
                k,
                &kmdf::RECORD_SIZE,
                format!("{function} was given an Info of {} bytes", info.size),
            )
        });
    }
    poke(
        out,
        Info {
            size: info.size,
            reserved1: 0,
            target_processor_set: 1,
            reserved2: 0,
            message_number: message.unwrap_or(0),
            vector: line.map_or(0, hardware::vector_of_line),
            irql: line.map_or(0, |_| irql),
            // LevelSensitive, or Latched.
            mode: u32::from(message.is_some()),
            polarity: 0,
            message_signaled: u8::from(message.is_some()),
            share_disposition: if message.is_some() { 1 } else { 3 },
            reserved3: [0; 6],
            group: 0,
        },
    );
}

/// `WdfInterruptSetPolicy`. What the driver asks for shows in the trace; this
/// machine's PnP manager gives interrupts to processor 0 whatever it is.
pub(crate) fn set_policy(_: Globals, handle: Handle, policy: u32, priority: u32, _set: u64) {
    let function = "WdfInterruptSetPolicy";
    kernel(|k| {
        object::interrupt(k, handle, function);
        // Beyond WdfIrqPolicySpreadMessagesAcrossAllProcessors and WdfIrqPriorityHigh.
        if policy > 5 || priority > 3 {
            super::verifier_break(
                k,
                &kmdf::ENUMERATION,
                format!("{function} was given policy {policy} and priority {priority}"),
            );
        }
    });
}

/// `WdfInterruptReportActive`. Callable at `<= DISPATCH_LEVEL`, as
/// [`IoReportInterruptActive`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-ioreportinterruptactive),
/// which it calls, and which an interrupt needs a connection for; without one
/// the framework does nothing.
pub(crate) fn report_active(_: Globals, handle: Handle) {
    report(handle, true, "WdfInterruptReportActive");
}

/// `WdfInterruptReportInactive`, likewise. The ISR is not called until the
/// interrupt is reported as active again.
pub(crate) fn report_inactive(_: Globals, handle: Handle) {
    report(handle, false, "WdfInterruptReportInactive");
}

fn report(handle: Handle, active: bool, function: &'static str) {
    kernel(|k| {
        crate::ke::irql::at_most_dispatch(k, function);
        let interrupt = object::interrupt(k, handle, function);
        if interrupt.connected {
            interrupt.active = active;
            deliver_pending(k, handle);
        }
    });
}
