// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel's core (`Ke`): dispatcher objects and waits, timers and DPCs,
//! threads, spin locks, IRQL and time.

pub(crate) mod dispatcher;
pub(crate) mod dpc;
pub(crate) mod event;
pub(crate) mod guarded_region;
pub(crate) mod irql;
pub(crate) mod mutex;
pub(crate) mod processor;
pub(crate) mod semaphore;
pub(crate) mod sleep;
pub(crate) mod spin_lock;
pub(crate) mod thread;
pub(crate) mod time;
pub(crate) mod timer;
pub(crate) mod wait;

use std::collections::{BTreeMap, HashMap};

use rustc_hash::FxHashMap;

use crate::kernel::{ContextId, DISPATCH_LEVEL, Kernel, PASSIVE_LEVEL};

/// What the kernel's core remembers.
#[derive(Default)]
pub(crate) struct State {
    /// Dispatcher objects by the address that the driver gave them.
    pub(crate) objects: BTreeMap<usize, dispatcher::Object>,
    /// Threads in the order in which their waits began.
    pub(crate) waiters: Vec<dispatcher::ThreadId>,
    pub(crate) wait_serial: u64,
    pub(crate) next_thread: u32,
    /// Threads that the driver created, for their names.
    pub(crate) driver_threads: u32,
    /// Spin locks that are held, by address, with their holder.
    pub(crate) spin_locks: FxHashMap<usize, ContextId>,
    /// Spin locks that are taken through a queue.
    pub(crate) queued_spin_locks: std::collections::BTreeSet<usize>,
    /// Objects that were initialised on a stack that is still there.
    pub(crate) on_stacks: Vec<usize>,
    /// Virtual time at `DISPATCH_LEVEL` or above since time last moved otherwise.
    pub(crate) dispatch_time: u64,
    /// Who spins on in-stack queued spin locks, in order.
    pub(crate) spin_queues: HashMap<usize, std::collections::VecDeque<ContextId>>,
    /// Nesting of guarded regions, of threads that are in one.
    pub(crate) guarded_regions: HashMap<dispatcher::ThreadId, u32>,
    /// Which context holds which processor, as far as anybody has asked.
    pub(crate) processors: Vec<Option<ContextId>>,
    /// The kernel timers that are set, by address.
    pub(crate) set_timers: BTreeMap<usize, timer::Set>,
}

/// Looks after what a context leaves behind when its function returns.
pub(crate) fn context_ends(k: &mut Kernel, id: ContextId, irql: u8) {
    let is_thread = k.context(id).thread.is_some();
    let expected = if is_thread {
        PASSIVE_LEVEL
    } else {
        DISPATCH_LEVEL
    };
    if irql != expected {
        let name = k.context(id).name.clone();
        irql::unexpected(k, expected, irql, &name);
    }
    crate::locks::context_ends(k, id);
    crate::stack_use::check(k, id);
    let stack = k.context(id).stack.clone();
    dispatcher::stack_ends(k, &stack);
    if let Some(thread) = k.context(id).thread {
        dispatcher::thread_exits(k, thread);
    }
}
