// SPDX-License-Identifier: MIT OR Apache-2.0

//! The executive (`Ex`): pool, work items and locks.

pub(crate) mod fast_mutex;
pub(crate) mod list;
pub(crate) mod pool;
pub(crate) mod resource;
pub(crate) mod rundown;
pub(crate) mod shared_lock;
pub(crate) mod uuid;
pub(crate) mod work_item;

use std::collections::{BTreeSet, VecDeque};

use crate::ke::dispatcher::ThreadId;
use crate::ke::thread;
use crate::kernel::{Job, Kernel};
use crate::trap::kernel;

/// What the executive remembers.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) pool: pool::Pool,
    /// The driver's queued work items.
    work_items: work_item::Queued,
    pub(crate) fast_mutexes: fast_mutex::Held,
    pub(crate) shared_locks: shared_lock::Held,
    pub(crate) resources: resource::Resources,
    /// UUIDs handed out so far.
    uuids: u64,
    work: VecDeque<Job>,
    /// Numbers of worker threads that are busy.
    busy: BTreeSet<usize>,
    /// The worker threads that ran last.
    workers: Vec<ThreadId>,
}

/// How many work items run at once; more wait in the queue.
const WORKERS: usize = 16;

/// Queues `job` for a system worker thread.
pub(crate) fn queue_work(k: &mut Kernel, job: Job) {
    k.ex.work.push_back(job);
}

pub(crate) fn has_work(k: &Kernel) -> bool {
    !k.ex.work.is_empty() && k.ex.busy.len() < WORKERS
}

/// Gives queued work to worker threads.
pub(crate) fn dispatch_work(k: &mut Kernel) {
    while has_work(k) {
        let job = k.ex.work.pop_front().expect("checked");
        let number = (1..=WORKERS)
            .find(|number| !k.ex.busy.contains(number))
            .expect("a worker is idle");
        k.ex.busy.insert(number);
        forget_workers(k);
        let worker = thread::spawn(
            k,
            format!("worker#{number}"),
            true,
            Box::new(move || {
                job();
                kernel(|k| k.ex.busy.remove(&number));
            }),
        );
        k.ex.workers.push(worker);
    }
}

/// Looks whether memory that is to be freed holds something that is in use.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    resource::memory_freed(k, address, size);
    crate::ke::dispatcher::memory_freed(k, address, size);
    work_item::memory_freed(k, address, size);
    crate::io::work_item::memory_freed(k, address, size);
    crate::io::remove_lock::memory_freed(k, address, size);
}

/// Forgets the worker threads that have ended.
fn forget_workers(k: &mut Kernel) {
    let mut workers = std::mem::take(&mut k.ex.workers);
    workers.retain(|id| {
        let gone = (k.threads.get(id)).is_none_or(|thread| thread.exited && thread.references == 0);
        if gone {
            k.forget_thread(*id);
        }
        !gone
    });
    k.ex.workers = workers;
}
