// SPDX-License-Identifier: MIT OR Apache-2.0

//! System threads: <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread>

use crate::abi::{callback_returning_at, param};
use crate::access::{Addr, poke};
use crate::kernel::{APC_LEVEL, Job, Kernel, PASSIVE_LEVEL};
use crate::ob::{self, Handle};
use crate::rules;
use crate::trap::{Blocking, block, kernel};

use super::dispatcher::{Thread, ThreadId};

/// `LOW_REALTIME_PRIORITY` is 16; system threads start at 8.
const DEFAULT_PRIORITY: i32 = 8;

/// Starts a thread that runs `job`.
pub(crate) fn spawn(k: &mut Kernel, name: String, system: bool, job: Job) -> ThreadId {
    k.ke.next_thread += 1;
    let id = ThreadId(k.ke.next_thread);
    let context = k.spawn(name.clone(), PASSIVE_LEVEL, Some(id), job);
    k.name_as(id.address(), name.clone());
    k.threads.insert(
        id,
        Thread {
            name,
            context: Some(context),
            exited: false,
            exit_status: 0,
            wait: None,
            wait_status: 0,
            critical_regions: 0,
            alerted: false,
            user_apc: false,
            priority: DEFAULT_PRIORITY,
            references: 0,
            origin: None,
            system,
        },
    );
    id
}

/// `PsCreateSystemThread`.
pub(crate) fn ps_create_system_thread(
    handle: *mut usize,
    _access: u32,
    _attributes: *mut u8,
    _process: Addr,
    _client: *mut u8,
    routine: Addr,
    context: Addr,
) -> i32 {
    poke(handle, 0);
    let created = kernel(|k| {
        crate::inject::check(k, "PsCreateSystemThread")?;
        k.ke.driver_threads += 1;
        let name = format!("thread#{}", k.ke.driver_threads);
        let id = spawn(
            k,
            name,
            false,
            Box::new(move || {
                callback_returning_at::<()>(
                    "StartRoutine",
                    routine.0,
                    &[param("StartContext", &context)],
                    |k, before, after| super::irql::unexpected(k, before, after, "StartRoutine"),
                );
            }),
        );
        let origin = crate::origin::Origin::of_one_of(k, k.threads.len());
        k.threads.get_mut(&id).expect("just started").origin = origin;
        Ok(ob::open(k, Handle::Thread(id)))
    });
    match created {
        Ok(created) => {
            poke(handle, created);
            0
        }
        Err(status) => status,
    }
}

/// `PsTerminateSystemThread`: does not return to a system thread.
pub(crate) fn ps_terminate_system_thread(status: i32) -> i32 {
    block(
        |k| {
            let Some(thread) = k.running_thread() else {
                k.unchecked("PsTerminateSystemThread was called in a DPC, which is no thread")
            };
            if k.threads[&thread].system {
                let name = k.threads[&thread].name.clone();
                k.broken(
                    &rules::wait::TERMINATED_WORKER,
                    &[],
                    format!("PsTerminateSystemThread was called in {name}, which the driver did not create"),
                );
            }
            k.threads.get_mut(&thread).expect("it runs").exit_status = status;
            k.tell_open_calls();
            k.end_current();
            Blocking::Wait
        },
        |_| status,
    )
}

/// `KeGetCurrentThread`, `PsGetCurrentThread`.
pub(crate) fn ke_get_current_thread() -> Addr {
    Addr(kernel(|k| {
        k.running_thread().unwrap_or(ThreadId(0)).address()
    }))
}

/// `PsGetCurrentThreadId`.
pub(crate) fn ps_get_current_thread_id() -> usize {
    kernel(|k| k.running_thread().map_or(0, |thread| thread.0 as usize * 4))
}

/// `KeSetPriorityThread`. Returns the old priority; the scheduler ignores it.
pub(crate) fn ke_set_priority_thread(thread: Addr, priority: i32) -> i32 {
    kernel(
        |k| match ThreadId::from_address(thread.0).and_then(|id| k.threads.get_mut(&id)) {
            Some(thread) => std::mem::replace(&mut thread.priority, priority),
            None => k.fatal(
                &rules::object::REFERENCE_BY_POINTER,
                &[0, thread.0 as u64, 0, 0],
                "KeSetPriorityThread was given no thread",
            ),
        },
    )
}

/// `KeEnterCriticalRegion`.
pub(crate) fn ke_enter_critical_region() {
    kernel(enter_critical_region);
}

/// Enters a critical region.
pub(crate) fn enter_critical_region(k: &mut Kernel) {
    let irql = k.irql();
    if irql > APC_LEVEL {
        k.broken(
            &rules::lock::CRITICAL_REGION_ENTER_IRQL,
            &[u64::from(irql)],
            format!("KeEnterCriticalRegion was called at IRQL {irql}; it needs APC_LEVEL or below"),
        );
    }
    if let Some(thread) = k.running_thread() {
        k.threads
            .get_mut(&thread)
            .expect("it runs")
            .critical_regions += 1;
    }
}

/// `KeLeaveCriticalRegion`.
pub(crate) fn ke_leave_critical_region() {
    kernel(|k| leave_critical_region(k, "KeLeaveCriticalRegion"));
}

/// Leaves a critical region.
pub(crate) fn leave_critical_region(k: &mut Kernel, function: &str) {
    let irql = k.irql();
    if irql > APC_LEVEL {
        k.broken(
            &rules::lock::CRITICAL_REGION_LEAVE_IRQL,
            &[u64::from(irql)],
            format!("{function} was called at IRQL {irql}; it needs APC_LEVEL or below"),
        );
    }
    let Some(thread) = k.running_thread() else {
        return;
    };
    let regions = &mut k
        .threads
        .get_mut(&thread)
        .expect("it runs")
        .critical_regions;
    match regions.checked_sub(1) {
        Some(left) => *regions = left,
        None => k.broken(
            &rules::lock::CRITICAL_REGION_LEAVE,
            &[0; 3],
            format!("{function} without KeEnterCriticalRegion"),
        ),
    }
}

/// `KeAreApcsDisabled`.
pub(crate) fn ke_are_apcs_disabled() -> u8 {
    kernel(|k| u8::from(super::guarded_region::apcs_disabled(k)))
}
