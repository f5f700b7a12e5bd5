// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who holds which lock, in what order locks are taken, and who waits for whom.
//!
//! What Driver Verifier's deadlock detection does:
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/deadlock-detection>.
//! The locks themselves are elsewhere ([`crate::ke::spin_lock`] and others); they
//! tell this module what happens to them.
//!
//! # Vocabulary
//! - *held*: each context has a list of the locks it holds, oldest first.
//! - *order*: lock `a` comes before `b` when `b` was once asked for, by somebody
//!   who would have waited, while `a` was held. A circle in the order is a
//!   deadlock that some schedule has, whether or not this one had it.
//! - *wanted*: the lock that a context waits for, or would.
//!
//! ```text
//!   wants ──► (waits) ──► taken ──► given_back
//!     │          │
//!     │          └ who waits for whom: a circle is a deadlock now
//!     └ the order: a circle is one in some schedule
//! ```
//!
//! A lock that is taken while none is held costs an entry in a list; the
//! order is looked at only when locks nest, and it is forgotten with the lock's memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use crate::ke::dispatcher::{Object, ThreadId};
use crate::kernel::{ContextId, DISPATCH_LEVEL, Kernel};
use crate::origin::{Origin, Related};
use crate::rules::{deadlock, lock as rules};

/// What sort of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `KSPIN_LOCK`.
    Spin,
    /// `KSPIN_LOCK`, taken through a queue.
    QueuedSpin,
    /// `EX_SPIN_LOCK`.
    SharedSpin,
    /// `FAST_MUTEX`, `KGUARDED_MUTEX`.
    FastMutex,
    /// `KMUTEX`.
    Mutex,
    /// `EX_PUSH_LOCK`.
    Push,
    /// `ERESOURCE`.
    Resource,
    /// The framework's locks, which it looks after itself.
    Framework,
}

impl Kind {
    /// Whether its holder is at `DISPATCH_LEVEL`.
    fn spins(self) -> bool {
        matches!(self, Self::Spin | Self::QueuedSpin | Self::SharedSpin)
    }

    fn what(self) -> &'static str {
        match self {
            Self::Spin | Self::QueuedSpin | Self::SharedSpin => "a spin lock",
            Self::FastMutex => "a fast mutex",
            Self::Mutex => "a mutex",
            Self::Push => "a push lock",
            Self::Resource => "a resource",
            Self::Framework => "a lock of the framework",
        }
    }
}

/// A lock that a context holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) lock: usize,
    pub(crate) kind: Kind,
    pub(crate) shared: bool,
    /// The IRQL that its release is to go back to, if it raised that.
    pub(crate) old_irql: Option<u8>,
    /// The function that took it.
    function: &'static str,
    origin: Option<Origin>,
}

/// How a lock was taken once.
#[derive(Clone, Debug)]
struct Taken {
    who: String,
    function: &'static str,
    origin: Option<Origin>,
}

/// That one lock was asked for while another was held.
#[derive(Clone, Debug)]
struct Edge {
    to: usize,
    first: Taken,
    second: Taken,
}

/// The order in which locks are taken.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// By lock, what was asked for while it was held.
    after: BTreeMap<usize, Vec<Edge>>,
    /// By lock, what was held when it was asked for.
    before: BTreeMap<usize, BTreeSet<usize>>,
}

impl Order {
    /// The edges of a way from `from` to `to`, if there is one.
    fn way(&self, from: usize, to: usize) -> Option<Vec<(usize, &Edge)>> {
        let mut seen = BTreeSet::from([from]);
        let mut way: Vec<(usize, &Edge)> = Vec::new();
        let mut open = vec![(from, 0)];
        while let Some((at, next)) = open.pop() {
            way.truncate(open.len());
            let Some(edge) = self.after.get(&at).and_then(|edges| edges.get(next)) else {
                continue;
            };
            open.push((at, next + 1));
            if edge.to == to {
                way.push((at, edge));
                return Some(way);
            }
            if seen.insert(edge.to) {
                way.push((at, edge));
                open.push((edge.to, 0));
            }
        }
        None
    }

    fn has(&self, from: usize, to: usize) -> bool {
        self.after
            .get(&from)
            .is_some_and(|edges| edges.iter().any(|edge| edge.to == to))
    }

    fn insert(&mut self, from: usize, edge: Edge) {
        self.before.entry(edge.to).or_default().insert(from);
        self.after.entry(from).or_default().push(edge);
    }

    /// Forgets the locks in a piece of memory.
    pub(crate) fn forget(&mut self, range: Range<usize>) {
        if self.after.is_empty() {
            return;
        }
        let gone: Vec<_> = self
            .after
            .range(range.clone())
            .map(|(lock, _)| *lock)
            .collect();
        for lock in gone {
            for edge in self.after.remove(&lock).unwrap_or_default() {
                if let Some(before) = self.before.get_mut(&edge.to) {
                    before.remove(&lock);
                }
            }
        }
        let gone: Vec<_> = self.before.range(range).map(|(lock, _)| *lock).collect();
        for lock in gone {
            for from in self.before.remove(&lock).unwrap_or_default() {
                if let Some(edges) = self.after.get_mut(&from) {
                    edges.retain(|edge| edge.to != lock);
                }
            }
        }
    }
}

/// A lock's name, or what is known of one that has none.
pub(crate) fn show(k: &Kernel, lock: usize, kind: Kind) -> String {
    if let Some(name) = k.name_of(lock) {
        return name.to_owned();
    }
    match k.ex.pool.blocks.describe(lock) {
        Some(block) => format!(
            "{} at offset {} of {block}",
            kind.what(),
            lock - block.address
        ),
        None => kind.what().to_owned(),
    }
}

/// The running context is about to take `lock`, and will wait for it if it must.
pub(crate) fn wants(k: &mut Kernel, lock: usize, kind: Kind, function: &'static str) {
    let me = k.running();
    k.context_mut(me).wants = Some(lock);
    order(k, lock, kind, function);
}

/// Checks the order of a lock that is asked for and those that the context holds.
pub(crate) fn order(k: &mut Kernel, lock: usize, kind: Kind, function: &'static str) {
    let me = k.running();
    if k.context(me).held.is_empty() || !k.checks(&deadlock::ORDER) {
        return;
    }
    let held: Vec<_> = k
        .context(me)
        .held
        .iter()
        .filter(|held| held.lock != lock)
        .map(|held| (held.lock, held.kind))
        .collect();
    for (first, first_kind) in held {
        if k.locks.has(first, lock) {
            continue;
        }
        if k.locks.way(lock, first).is_some() {
            out_of_order(k, (first, first_kind), (lock, kind), function);
        }
        let who = k.context(me).name.clone();
        let taken = k.context(me).held.iter().find(|held| held.lock == first);
        let taken = taken.expect("it was looked up");
        let edge = Edge {
            to: lock,
            first: Taken {
                who: who.clone(),
                function: taken.function,
                origin: taken.origin.clone(),
            },
            second: Taken {
                who,
                function,
                origin: Origin::here(k),
            },
        };
        k.locks.insert(first, edge);
    }
}

/// Reports a circle in the order: `lock` is asked for under `first`, and there is a
/// way in the order from `lock` to `first`.
fn out_of_order(
    k: &mut Kernel,
    (first, first_kind): (usize, Kind),
    (lock, kind): (usize, Kind),
    function: &'static str,
) {
    let me = k.context(k.running());
    let taken = me.held.iter().find(|held| held.lock == first);
    let taken = taken.expect("it is held");
    let (lock_name, first_name) = (show(k, lock, kind), show(k, first, first_kind));
    let mut message = format!(
        "{} takes {lock_name} ({function}) while it holds {first_name} ({})",
        me.name, taken.function
    );
    let mut related = vec![Related::new(
        k,
        format!("{} took {first_name} ({})", me.name, taken.function),
        taken.origin.as_ref(),
    )];
    let way = k.locks.way(lock, first).unwrap_or_default();
    for (from, edge) in way {
        let name = |lock| show(k, lock, kind);
        let (from, to) = (name(from), name(edge.to));
        let _ = write!(
            message,
            "; before, {} took {to} ({}) while it held {from} ({})",
            edge.second.who, edge.second.function, edge.first.function
        );
        for (lock, taken) in [(&from, &edge.first), (&to, &edge.second)] {
            related.push(Related::new(
                k,
                format!("{} took {lock} ({})", taken.who, taken.function),
                taken.origin.as_ref(),
            ));
        }
    }
    message.push_str(": in another schedule each waits for what the other holds");
    k.broken_with(&deadlock::ORDER, &[lock as u64], message, related);
}

/// `context` has the lock now.
pub(crate) fn taken(
    k: &mut Kernel,
    context: ContextId,
    lock: usize,
    kind: Kind,
    shared: bool,
    old_irql: Option<u8>,
    function: &'static str,
) {
    let origin = Origin::of(k, context);
    let context = k.context_mut(context);
    context.wants = None;
    context.held.push(Held {
        lock,
        kind,
        shared,
        old_irql,
        function,
        origin,
    });
}

/// `context` gives the lock back: the last of its acquisitions, if it is held at all.
pub(crate) fn given_back(k: &mut Kernel, context: ContextId, lock: usize) -> Option<Held> {
    if !k.is_alive(context) {
        return None;
    }
    let held = &mut k.context_mut(context).held;
    let index = held.iter().rposition(|held| held.lock == lock)?;
    Some(held.remove(index))
}

/// The running context, which holds the lock, holds it in another way now.
pub(crate) fn set_shared(k: &mut Kernel, lock: usize, shared: bool) {
    let me = k.running();
    for held in &mut k.context_mut(me).held {
        if held.lock == lock {
            held.shared = shared;
        }
    }
}

/// What the running context holds of `lock`.
pub(crate) fn held(k: &Kernel, lock: usize) -> Option<&Held> {
    let held = &k.context(k.running()).held;
    held.iter().rfind(|held| held.lock == lock)
}

/// The holders of a lock.
pub(crate) fn holders(k: &Kernel, lock: usize) -> Vec<ContextId> {
    k.contexts()
        .filter(|(_, context)| context.held.iter().any(|held| held.lock == lock))
        .map(|(id, _)| id)
        .collect()
}

/// What a context that waits cannot go on without, and who has it.
fn waits_for(k: &Kernel, id: ContextId) -> Vec<(usize, Vec<ContextId>)> {
    let context = k.context(id);
    if let Some(lock) = context.wants {
        return vec![(lock, holders(k, lock))];
    }
    let Some(wait) = context
        .thread
        .and_then(|thread| k.threads[&thread].wait.as_ref())
    else {
        return Vec::new();
    };
    if !wait.needs_all() {
        return Vec::new();
    }
    wait.objects
        .iter()
        .filter_map(|object| {
            let thread = match ThreadId::from_address(*object) {
                Some(thread) => thread,
                None => match k.ke.objects.get(object) {
                    Some(Object::Mutex { owner, .. }) => (*owner)?,
                    _ => return None,
                },
            };
            let context = k.threads.get(&thread)?.context?;
            Some((*object, vec![context]))
        })
        .collect()
}

/// The running context is about to wait: if those that it waits for wait for it, this
/// is a deadlock.
pub(crate) fn waits(k: &mut Kernel) {
    let me = k.running();
    let mut seen = BTreeSet::new();
    let mut way = Vec::new();
    if circle(k, me, me, &mut seen, &mut way) {
        deadlocked(k, &way);
    }
}

/// Whether `at` waits for `target`, perhaps through others; `way` is how.
fn circle(
    k: &Kernel,
    at: ContextId,
    target: ContextId,
    seen: &mut BTreeSet<ContextId>,
    way: &mut Vec<(ContextId, usize, ContextId)>,
) -> bool {
    for (what, holders) in waits_for(k, at) {
        for holder in holders {
            way.push((at, what, holder));
            if holder == target || (seen.insert(holder) && circle(k, holder, target, seen, way)) {
                return true;
            }
            way.pop();
        }
    }
    false
}

fn deadlocked(k: &mut Kernel, way: &[(ContextId, usize, ContextId)]) {
    if !k.checks(&deadlock::CIRCLE) {
        return;
    }
    let mut parts = Vec::new();
    let mut related = Vec::new();
    for (waiter, what, holder) in way {
        let (waiter, holder) = (k.context(*waiter), k.context(*holder));
        let held = holder.held.iter().find(|held| held.lock == *what);
        match held {
            Some(held) => {
                let name = show(k, *what, held.kind);
                parts.push(format!(
                    "{} waits for {name}, which {} holds",
                    waiter.name, holder.name
                ));
                related.push(Related::new(
                    k,
                    format!("{} took {name} ({})", holder.name, held.function),
                    held.origin.as_ref(),
                ));
            }
            None => parts.push(format!("{} waits for {} to end", waiter.name, holder.name)),
        }
    }
    k.broken_with(
        &deadlock::CIRCLE,
        &[],
        format!("deadlock: {}", parts.join("; ")),
        related,
    );
}

/// A lock in memory that is freed must not be held.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    gone(k, address..address + size, "memory is freed that holds");
}

/// Locks that are given up, for the reason `why`, must not be held.
pub(crate) fn gone(k: &mut Kernel, range: Range<usize>, why: &str) {
    let found = k.contexts().find_map(|(id, context)| {
        let held = context
            .held
            .iter()
            .find(|held| range.contains(&held.lock))?;
        Some((id, held.lock, held.kind))
    });
    if let Some((id, lock, kind)) = found {
        let (what, who) = (show(k, lock, kind), k.context(id).name.clone());
        let owner = k.context(id).thread.map_or(0, ThreadId::address);
        let related = taken_by(k, id, lock);
        k.broken_with(
            &deadlock::FREED_WHILE_HELD,
            &[lock as u64, owner as u64],
            format!("{why} {what}, which {who} holds"),
            related,
        );
    }
    if !k.ke.queued_spin_locks.is_empty() {
        k.ke.queued_spin_locks.retain(|lock| !range.contains(lock));
    }
    k.locks.forget(range);
}

/// Where `context` took `lock`.
fn taken_by(k: &Kernel, context: ContextId, lock: usize) -> Vec<Related> {
    let context = k.context(context);
    context
        .held
        .iter()
        .rfind(|held| held.lock == lock)
        .map(|held| {
            let name = show(k, lock, held.kind);
            Related::new(
                k,
                format!("{} took {name} ({})", context.name, held.function),
                held.origin.as_ref(),
            )
        })
        .into_iter()
        .collect()
}

/// A lock is initialised: nobody may hold it, and its order begins anew.
pub(crate) fn initialized(k: &mut Kernel, lock: usize, kind: Kind, function: &str) {
    if let Some(holder) = holders(k, lock).first().copied() {
        let (what, who) = (show(k, lock, kind), k.context(holder).name.clone());
        let related = taken_by(k, holder, lock);
        k.broken_with(
            &deadlock::INITIALIZED_TWICE,
            &[lock as u64],
            format!("{function} was given {what}, which {who} holds"),
            related,
        );
    }
    k.locks.forget(lock..lock + 1);
}

/// The caller asks for a lock that it holds already, and would wait for itself.
pub(crate) fn self_deadlock(k: &mut Kernel, lock: usize, kind: Kind, function: &str) -> ! {
    let what = show(k, lock, kind);
    let me = k.running();
    let related = taken_by(k, me, lock);
    let message = format!("{function}: the caller holds {what} already and would wait for itself");
    k.broken_with(&deadlock::SELF, &[lock as u64], message.clone(), related);
    k.unchecked(message)
}

/// The lock's memory is not as initialising it leaves it.
pub(crate) fn uninitialized(k: &mut Kernel, lock: usize, kind: Kind, function: &str) {
    let what = show(k, lock, kind);
    k.broken(
        &deadlock::UNINITIALIZED,
        &[lock as u64],
        format!("{function} was given {what}, which was never initialised: its memory says so"),
    );
}

/// The caller gives back a lock that it does not hold.
pub(crate) fn not_held(k: &mut Kernel, lock: usize, kind: Kind, function: &str) -> ! {
    let what = show(k, lock, kind);
    let message = if let Some(holder) = holders(k, lock).first().copied() {
        let related = taken_by(k, holder, lock);
        let who = k.context(holder).name.clone();
        let message = format!("{function} releases {what}, which {who} holds");
        let address = |id| k.context(id).thread.map_or(0, ThreadId::address) as u64;
        let parameters = [lock as u64, address(holder), address(k.running())];
        k.broken_with(
            &deadlock::OTHER_THREAD,
            &parameters,
            message.clone(),
            related,
        );
        message
    } else {
        let message = format!("{function} releases {what}, which nobody holds");
        k.broken(&deadlock::NOT_ACQUIRED, &[lock as u64], message.as_str());
        message
    };
    k.unchecked(message)
}

/// A lock is given back by a function that does not fit the one that took it.
pub(crate) fn release_mismatch(k: &mut Kernel, held: &Held, function: &str) {
    let what = show(k, held.lock, held.kind);
    let related = vec![Related::new(
        k,
        format!("{what} was taken ({})", held.function),
        held.origin.as_ref(),
    )];
    k.broken_with(
        &deadlock::RELEASE_MISMATCH,
        &[held.lock as u64],
        format!(
            "{function} releases {what}, which was taken by {}",
            held.function
        ),
        related,
    );
}

/// A spin lock is released to `new_irql`: that has to be the level that it was taken
/// at, and no spin lock may be held below `DISPATCH_LEVEL`. `held` was given back.
pub(crate) fn lowers(k: &mut Kernel, held: &Held, new_irql: u8, function: &str) {
    let me = k.running();
    if new_irql < DISPATCH_LEVEL {
        let kept = k.context(me).held.iter().rfind(|kept| kept.kind.spins());
        if let Some((kept, kind)) = kept.map(|kept| (kept.lock, kept.kind)) {
            let related = taken_by(k, me, kept);
            let lock = show(k, held.lock, held.kind);
            let kept_name = show(k, kept, kind);
            k.broken_with(
                &deadlock::RELEASE_ORDER,
                &[held.lock as u64, kept as u64],
                format!("{function} releases {lock} and goes back to IRQL {new_irql} while {kept_name} is still held, which was taken after it and must be released first"),
                related,
            );
        }
    }
    match held.old_irql {
        Some(old) if old != new_irql => {
            let lock = show(k, held.lock, held.kind);
            let related = vec![Related::new(
                k,
                format!("{lock} was taken at IRQL {old} ({})", held.function),
                held.origin.as_ref(),
            )];
            k.broken_with(
                &rules::RELEASE_IRQL,
                &[],
                format!(
                    "{function} releases {lock} to IRQL {new_irql}; it was taken at {old} ({})",
                    held.function
                ),
                related,
            );
        }
        _ => {}
    }
}

/// A function of the driver's returned and holds spin locks that it did not hold when
/// it was called: `before` is how many locks were held then.
pub(crate) fn callback_returned(k: &mut Kernel, name: &str, before: usize) {
    let me = k.running();
    let kept = k.context(me).held.get(before..).and_then(|new| {
        new.iter()
            .find(|held| matches!(held.kind, Kind::Spin | Kind::QueuedSpin | Kind::SharedSpin))
    });
    let Some((lock, kind)) = kept.map(|held| (held.lock, held.kind)) else {
        return;
    };
    let rule = if kind == Kind::QueuedSpin {
        &rules::QUEUED_SPIN_LOCK
    } else {
        &rules::SPIN_LOCK
    };
    let what = show(k, lock, kind);
    let related = taken_by(k, me, lock);
    k.broken_with(
        rule,
        &[],
        format!("{name} returned and holds {what} still"),
        related,
    );
}

/// A thread or DPC ends: it may hold nothing.
pub(crate) fn context_ends(k: &mut Kernel, id: ContextId) {
    let context = k.context(id);
    let Some((lock, kind)) = context
        .held
        .iter()
        // Of a `KMUTEX` the dispatcher tells, which has a bug check of its own.
        .find(|held| held.kind != Kind::Mutex)
        .map(|held| (held.lock, held.kind))
    else {
        return;
    };
    let owner = context.thread.map_or(0, ThreadId::address);
    let message = format!(
        "{} ends while it holds {}",
        context.name,
        show(k, lock, kind)
    );
    let related = taken_by(k, id, lock);
    k.broken_with(&deadlock::OWNER_ENDED, &[owner as u64], message, related);
}
