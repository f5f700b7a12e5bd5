// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dispatcher objects: what a thread can wait for.
//!
//! The driver owns the memory of a `KEVENT`; the simulator keeps the object's
//! state itself, keyed by the address, and only touches the memory from the
//! driver's own context. So a stray pointer faults where the driver used it,
//! and an object that was moved, or used before it was initialised, is
//! noticed: there is no object at that address.
//!
//! | object | signalled when | a satisfied wait |
//! |---|---|---|
//! | notification event, notification timer | set | leaves it |
//! | synchronization event or timer | set | resets it |
//! | semaphore | count above 0 | takes one |
//! | mutex | free, or owned by the waiter | takes ownership |
//! | thread | it has ended | leaves it |

use std::ops::Range;

use crate::kernel::{ContextId, Kernel};
use crate::locks::{self, Kind};
use crate::rules;

/// The head of every dispatcher object (`DISPATCHER_HEADER`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) size: u8,
    pub(crate) reserved: u8,
    pub(crate) signal_state: i32,
    pub(crate) wait_list: [usize; 2],
}

/// Names a thread for as long as the machine runs; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ThreadId(pub(crate) u32);

/// Thread objects live at addresses that nothing can be mapped at.
const THREAD_BASE: usize = 0xFFFF_E00D_0000_0000;

impl ThreadId {
    /// The thread's `PKTHREAD`.
    pub(crate) fn address(self) -> usize {
        THREAD_BASE + ((self.0 as usize) << 12)
    }

    /// The thread whose `PKTHREAD` this is.
    pub(crate) fn from_address(address: usize) -> Option<Self> {
        let offset = address.checked_sub(THREAD_BASE)?;
        let id = u32::try_from(offset >> 12).ok()?;
        (offset.is_multiple_of(0x1000) && id != 0).then_some(Self(id))
    }
}

/// A thread and what it waits for.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each stands for a flag of its own in KTHREAD"
)]
pub(crate) struct Thread {
    pub(crate) name: String,
    pub(crate) context: Option<ContextId>,
    pub(crate) exited: bool,
    pub(crate) exit_status: i32,
    pub(crate) wait: Option<super::wait::Wait>,
    /// What the last wait ended with.
    pub(crate) wait_status: i32,
    /// Nesting of `KeEnterCriticalRegion`.
    pub(crate) critical_regions: u32,
    pub(crate) alerted: bool,
    pub(crate) user_apc: bool,
    pub(crate) priority: i32,
    /// References by pointer and handle; a driver's thread is kept while it runs.
    pub(crate) references: u32,
    /// Where the driver started it.
    pub(crate) origin: Option<crate::origin::Origin>,
    /// Whether the simulator started it for itself.
    pub(crate) system: bool,
}

/// The state of a dispatcher object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Event {
        notification: bool,
        set: bool,
    },
    Semaphore {
        count: i32,
        limit: i32,
    },
    Mutex {
        owner: Option<ThreadId>,
        depth: i32,
        abandoned: bool,
    },
    Timer {
        notification: bool,
        set: bool,
    },
}

impl Object {
    /// How the trace names objects of this kind.
    fn kind(self) -> &'static str {
        match self {
            Self::Event { .. } => "event",
            Self::Semaphore { .. } => "semaphore",
            Self::Mutex { .. } => "mutex",
            Self::Timer { .. } => "timer",
        }
    }

    fn header(self, address: usize) -> Header {
        let (kind, size, signal_state) = match self {
            Self::Event { notification, set } => (u8::from(!notification), 24 / 4, i32::from(set)),
            Self::Mutex { .. } => (2, 56 / 4, 1),
            Self::Semaphore { count, .. } => (5, 32 / 4, count),
            Self::Timer { notification, set } => {
                (if notification { 8 } else { 9 }, 64 / 4, i32::from(set))
            }
        };
        let list = address + std::mem::offset_of!(Header, wait_list);
        Header {
            kind,
            flags: 0,
            size,
            reserved: 0,
            signal_state,
            wait_list: [list, list],
        }
    }
}

/// Makes `object` the state of the memory at `header`.
pub(crate) fn initialize(header: *mut Header, object: Object) {
    crate::access::poke(header, object.header(header as usize));
    crate::trap::kernel(|k| {
        if matches!(object, Object::Mutex { .. }) {
            locks::initialized(k, header as usize, Kind::Mutex, "KeInitializeMutex");
        }
        check_place(k, header as usize, object);
        k.ke.objects.insert(header as usize, object);
        k.name(header as usize, object.kind());
    });
}

/// The object at `address`, or the bug check for a bad one.
pub(crate) fn get(k: &mut Kernel, address: usize, function: &str) -> Object {
    match k.ke.objects.get(&address) {
        Some(object) => *object,
        None => k.fatal(
            &rules::wait::NOT_INITIALIZED,
            &[address as u64, 0, 0],
            format!(
                "{function} was given an object that was never initialised at this address: it was not \
                 initialised, was moved afterwards, or its memory is gone"
            ),
        ),
    }
}

/// `function` was given an object of another kind than it is for.
pub(crate) fn wrong_kind(k: &mut Kernel, address: usize, kind: &str, function: &str) -> ! {
    let name = k.name_of(address).unwrap_or("it").to_owned();
    k.fatal(
        &rules::wait::WRONG_KIND,
        &[address as u64, 0, 0],
        format!("{function} was given {name}, which is no {kind}"),
    )
}

/// Looks at where an object is about to be initialised.
fn check_place(k: &mut Kernel, address: usize, object: Object) {
    if crate::ex::pool::is_paged(k, address) {
        k.broken(
            &rules::wait::PAGEABLE,
            &[address as u64, 0, 0],
            format!(
                "{} is initialised in paged pool, where the kernel cannot use it at DISPATCH_LEVEL",
                object.kind()
            ),
        );
    }
    if k.ke.objects.contains_key(&address)
        && let Some((object, thread)) = waited_for(k, &(address..address + 1))
    {
        let name = k.name_of(object).unwrap_or("an object").to_owned();
        k.broken(
            &rules::wait::INITIALIZED_AGAIN,
            &[0; 3],
            format!("{name} is initialised, while {thread} waits for it and is lost"),
        );
    }
    if k.context(k.running()).stack.contains(&address) {
        k.ke.on_stacks.push(address);
    }
}

/// An object in this memory that is waited for, and by whom.
fn waited_for(k: &Kernel, range: &Range<usize>) -> Option<(usize, String)> {
    k.ke.waiters.iter().find_map(|thread| {
        let wait = k.threads[thread].wait.as_ref()?;
        let object = wait.objects.iter().find(|object| range.contains(object))?;
        Some((*object, k.threads[thread].name.clone()))
    })
}

/// The stack of a context that ends is gone, with what it has on it.
pub(crate) fn stack_ends(k: &mut Kernel, stack: &Range<usize>) {
    if k.ke.on_stacks.is_empty() {
        return;
    }
    let mut objects = std::mem::take(&mut k.ke.on_stacks);
    let gone = objects.extract_if(.., |object| stack.contains(object));
    for object in gone.collect::<Vec<_>>() {
        k.ke.objects.remove(&object);
    }
    k.ke.on_stacks = objects;
    lost_waiter(k, stack, "the stack of a thread that ended");
}

/// Nobody may wait for what is in memory that is gone.
fn lost_waiter(k: &mut Kernel, range: &Range<usize>, what: &str) {
    if let Some((object, thread)) = waited_for(k, range) {
        let name = k.name_of(object).unwrap_or("an object").to_owned();
        k.broken(
            &rules::wait::FREED,
            &[object as u64, 0, 0],
            format!("{what} holds {name}, for which {thread} waits"),
        );
    }
}

/// Forgets the objects in a piece of memory that is given back.
///
/// Memory with a set timer or a waiter in it may not be freed.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    locks::memory_freed(k, address, size);
    let range = address..address + size;
    if let Some(timer) =
        k.ke.set_timers
            .range(range.clone())
            .next()
            .map(|(timer, _)| *timer)
    {
        let name = k.name_of(timer).unwrap_or("a timer").to_owned();
        let related = super::timer::where_set(k, timer);
        let paged = u64::from(crate::ex::pool::is_paged(k, address));
        k.broken_with(
            &rules::deferred::TIMER_FREED,
            &[timer as u64, paged, address as u64],
            format!("memory is freed that holds {name}, which is still set"),
            related,
        );
    }
    super::dpc::memory_freed(k, &range);
    lost_waiter(k, &range, "memory that is freed");
    while let Some(object) = k.ke.objects.range(range.clone()).next().map(|(at, _)| *at) {
        k.ke.objects.remove(&object);
    }
}

/// Whether a wait of `thread` for the object at `address` would be satisfied.
pub(crate) fn is_signaled(k: &Kernel, address: usize, thread: ThreadId) -> bool {
    if let Some(target) = ThreadId::from_address(address) {
        // One whose object is gone had ended.
        return (k.threads.get(&target)).is_none_or(|thread| thread.exited);
    }
    match k.ke.objects[&address] {
        Object::Event { set, .. } | Object::Timer { set, .. } => set,
        Object::Semaphore { count, .. } => count > 0,
        Object::Mutex { owner, .. } => owner.is_none_or(|owner| owner == thread),
    }
}

/// Satisfies a wait of `thread`; tells whether a mutex had been abandoned.
pub(crate) fn acquire(k: &mut Kernel, address: usize, thread: ThreadId) -> bool {
    if ThreadId::from_address(address).is_some() {
        return false;
    }
    let object =
        k.ke.objects
            .get_mut(&address)
            .expect("only signalled objects are acquired");
    match object {
        Object::Event { notification, set } | Object::Timer { notification, set } => {
            *set &= *notification;
            false
        }
        Object::Semaphore { count, .. } => {
            *count -= 1;
            false
        }
        Object::Mutex {
            owner,
            depth,
            abandoned,
        } => {
            *owner = Some(thread);
            *depth += 1;
            let abandoned = std::mem::take(abandoned);
            if let Some(context) = k.threads.get(&thread).and_then(|thread| thread.context) {
                locks::taken(k, context, address, Kind::Mutex, false, None, "a wait");
            }
            abandoned
        }
    }
}

/// A thread's function returned or it terminated itself.
pub(crate) fn thread_exits(k: &mut Kernel, id: ThreadId) {
    let held = k.ke.objects.iter().find_map(|(address, object)| {
        matches!(object, Object::Mutex { owner: Some(owner), .. } if *owner == id)
            .then_some(*address)
    });
    if let Some(mutex) = held {
        let name = k.name_of(mutex).unwrap_or("a mutex").to_owned();
        let thread = k.threads[&id].name.clone();
        k.broken(
            &rules::lock::MUTEX_OWNER_ENDED,
            &[],
            format!("{thread} ends while it owns {name}"),
        );
    }
    if let Some(depth) = k.ke.guarded_regions.get(&id).copied() {
        let message = format!(
            "{} ends inside {depth} guarded region(s)",
            k.threads[&id].name
        );
        k.broken(
            &rules::lock::APC_COUNT_AT_END,
            &[0, 0, u64::from(depth) << 16],
            message,
        );
    }
    let thread = k.threads.get_mut(&id).expect("a thread stays in the table");
    if thread.critical_regions != 0 {
        let message = format!(
            "{} ends inside {} critical region(s)",
            thread.name, thread.critical_regions
        );
        let disable = u64::from(thread.critical_regions);
        k.broken(&rules::lock::APC_COUNT_AT_END, &[0, 0, disable], message);
    }
    let thread = k.threads.get_mut(&id).expect("it is in the table");
    thread.exited = true;
    thread.context = None;
    super::wait::signaled(k, id.address());
    crate::ob::thread_changed(k, id);
}
