// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processors. A context at `DISPATCH_LEVEL` has one to itself; which number
//! it has is decided when somebody asks. Below that level a thread can be on
//! another processor by the next instruction, and the answer is 0.

use crate::access::poke;
use crate::kernel::{ContextId, DISPATCH_LEVEL, Kernel};
use crate::trap::kernel;

/// `PROCESSOR_NUMBER`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ProcessorNumber {
    pub(crate) group: u16,
    pub(crate) number: u8,
    pub(crate) reserved: u8,
}

/// `ALL_PROCESSOR_GROUPS`.
const ALL_GROUPS: u16 = 0xFFFF;

fn current(k: &mut Kernel) -> u32 {
    if k.irql() < DISPATCH_LEVEL {
        return 0;
    }
    let me = k.running();
    let count = k.settings.processors as usize;
    let mut holders = std::mem::take(&mut k.ke.processors);
    holders.resize(count, None);
    let holds = |id: &ContextId| k.is_alive(*id) && k.context(*id).irql >= DISPATCH_LEVEL;
    let number = holders
        .iter()
        .position(|holder| *holder == Some(me))
        .or_else(|| {
            holders
                .iter()
                .position(|holder| !holder.as_ref().is_some_and(holds))
        })
        .unwrap_or(0);
    if let Some(holder) = holders.get_mut(number) {
        *holder = Some(me);
    }
    k.ke.processors = holders;
    u32::try_from(number).expect("as many as the settings say")
}

/// `KeGetCurrentProcessorNumberEx`.
pub(crate) fn ke_get_current_processor_number_ex(number: *mut ProcessorNumber) -> u32 {
    let current = kernel(current);
    if !number.is_null() {
        let number_in_group = u8::try_from(current % 64).expect("below 64");
        poke(
            number,
            ProcessorNumber {
                group: 0,
                number: number_in_group,
                reserved: 0,
            },
        );
    }
    current
}

/// `KeQueryActiveProcessorCountEx`, `KeQueryMaximumProcessorCountEx`: 0 for a
/// group that there is not.
pub(crate) fn ke_query_processor_count_ex(group: u16) -> u32 {
    if group == 0 || group == ALL_GROUPS {
        kernel(|k| k.settings.processors)
    } else {
        0
    }
}

/// `KeQueryActiveProcessorCount`.
pub(crate) fn ke_query_active_processor_count(affinity: *mut usize) -> u32 {
    let count = kernel(|k| k.settings.processors);
    if !affinity.is_null() {
        poke(
            affinity,
            1_usize.checked_shl(count).map_or(usize::MAX, |bit| bit - 1),
        );
    }
    count
}

/// `KeQueryMaximumProcessorCount`.
pub(crate) fn ke_query_maximum_processor_count() -> u32 {
    kernel(|k| k.settings.processors)
}
