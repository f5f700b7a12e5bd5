// SPDX-License-Identifier: MIT OR Apache-2.0

//! DPCs: <https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-dpcs>

use crate::abi::param;
use crate::access::{Addr, peek, poke};
use crate::kernel::{Dpc, Kernel};
use crate::rules;
use crate::trap::kernel;

/// A DPC routine, as an address: its calling convention is the driver's.
type Routine = usize;

/// The part of `KDPC` that the simulator reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KDpc {
    kind: u8,
    importance: u8,
    number: u16,
    reserved: u32,
    list: usize,
    history: usize,
    routine: Routine,
    context: usize,
    argument1: usize,
    argument2: usize,
    data: usize,
}

/// `DpcObject` in the kernel's object type list.
const DPC_OBJECT: u8 = 19;

/// `KeInitializeDpc`.
pub(crate) fn ke_initialize_dpc(dpc: *mut KDpc, routine: Addr, context: Addr) {
    poke(
        dpc,
        KDpc {
            kind: DPC_OBJECT,
            importance: 1,
            number: 0,
            reserved: 0,
            list: 0,
            history: 0,
            routine: routine.0,
            context: context.0,
            argument1: 0,
            argument2: 0,
            data: 0,
        },
    );
    kernel(|k| k.name(dpc as usize, "dpc"));
}

/// A DPC ready to be queued, read from the driver's memory in the driver's context.
#[derive(Clone, Copy)]
pub(crate) struct Prepared {
    pub(crate) address: usize,
    pub(crate) routine: usize,
    context: usize,
}

/// Reads a `KDPC` for later.
pub(crate) fn prepare(dpc: *mut KDpc) -> Option<Prepared> {
    (!dpc.is_null()).then(|| {
        let read = peek(dpc);
        Prepared {
            address: dpc as usize,
            routine: read.routine,
            context: read.context,
        }
    })
}

/// Queues `dpc`; false if it is in the queue already.
pub(crate) fn queue(k: &mut Kernel, dpc: Prepared, argument1: usize, argument2: usize) -> bool {
    let name = k.name_of(dpc.address).unwrap_or("dpc").to_owned();
    k.queue_dpc(Dpc {
        key: dpc.address,
        name,
        routine: dpc.routine,
        run: Box::new(move || {
            crate::abi::callback_returning_at::<()>(
                "DeferredRoutine",
                dpc.routine,
                &[
                    param("Dpc", &Addr(dpc.address)),
                    param("DeferredContext", &Addr(dpc.context)),
                    param("SystemArgument1", &Addr(argument1)),
                    param("SystemArgument2", &Addr(argument2)),
                ],
                |k, before, after| super::irql::unexpected(k, before, after, "DeferredRoutine"),
            );
        }),
    })
}

/// `KeInsertQueueDpc`.
pub(crate) fn ke_insert_queue_dpc(dpc: *mut KDpc, argument1: Addr, argument2: Addr) -> u8 {
    let prepared = prepare(dpc).expect("peek faults on NULL");
    let processor = peek(dpc).number;
    kernel(|k| {
        let processors = k.settings.processors;
        if u32::from(processor) >= processors {
            k.broken(
                &rules::deferred::DPC_PROCESSOR,
                &[dpc as u64, u64::from(processor), u64::from(processors)],
                format!("KeInsertQueueDpc was given a DPC for processor {processor}; there are {processors}"),
            );
        }
        u8::from(queue(k, prepared, argument1.0, argument2.0))
    })
}

/// Memory with a DPC in it that is queued, or that a set timer queues, may not be freed.
pub(crate) fn memory_freed(k: &mut Kernel, range: &std::ops::Range<usize>) {
    let queued = k.dpc_queue().map(|dpc| (dpc.key, "is queued"));
    let of_timers =
        k.ke.set_timers
            .values()
            .filter_map(|set| Some((set.dpc()?.address, "is queued by a timer that is set")));
    let found = queued.chain(of_timers).find(|(dpc, _)| range.contains(dpc));
    if let Some((dpc, why)) = found {
        let name = k.name_of(dpc).unwrap_or("a DPC").to_owned();
        k.broken(
            &rules::deferred::DPC_FREED,
            &[dpc as u64, range.start as u64, range.end as u64],
            format!("memory is freed that holds {name}, which {why}"),
        );
    }
}

/// `KeRemoveQueueDpc`.
pub(crate) fn ke_remove_queue_dpc(dpc: *mut KDpc) -> u8 {
    let _ = peek(dpc);
    kernel(|k| u8::from(k.remove_dpc(dpc as usize)))
}

/// `KeFlushQueuedDpcs`: returns when every DPC that was queued has run.
pub(crate) fn ke_flush_queued_dpcs() {
    while kernel(|k| k.has_dpcs()) {
        crate::trap::preempt();
    }
}

/// `KeSetImportanceDpc`. ntsim's queue is one, so it has no effect to see.
pub(crate) fn ke_set_importance_dpc(dpc: *mut KDpc, importance: i32) {
    let importance = u8::try_from(importance).unwrap_or(1);
    poke(
        dpc,
        KDpc {
            importance,
            ..peek(dpc)
        },
    );
}

/// `KeSetTargetProcessorDpc`. A DPC runs on whichever processor is free.
pub(crate) fn ke_set_target_processor_dpc(dpc: *mut KDpc, number: i8) {
    poke(
        dpc,
        KDpc {
            number: u16::from(number.cast_unsigned()),
            ..peek(dpc)
        },
    );
}

/// `KeSetTargetProcessorDpcEx`.
pub(crate) fn ke_set_target_processor_dpc_ex(
    dpc: *mut KDpc,
    processor: *const super::processor::ProcessorNumber,
) -> i32 {
    const STATUS_INVALID_PARAMETER: i32 = 0xC000_000D_u32.cast_signed();
    let target = peek(processor);
    let known = target.group == 0
        && target.reserved == 0
        && u32::from(target.number) < kernel(|k| k.settings.processors);
    if !known {
        return STATUS_INVALID_PARAMETER;
    }
    poke(
        dpc,
        KDpc {
            number: u16::from(target.number),
            ..peek(dpc)
        },
    );
    0
}
