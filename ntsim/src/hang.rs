// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a thread never ends: nothing can run any more, or what runs does not help.
//!
//! # Vocabulary
//! - *given up*: it could still end, but took more steps or more virtual time than
//!   the settings let it.
//! - *deadlock*: threads that wait for each other in a circle, or for something
//!   whose owner cannot be told.
//! - *lost wake-up*: at the end of the chain somebody waits for an object that
//!   has no owner (an event, a semaphore, a timer that is not set) and that
//!   nobody is left to signal: most often it was signalled before, when nobody
//!   waited yet, or only one of several waiters was woken.

use crate::bugcheck::{Stop, StopKind};
use crate::ke::dispatcher::{Object, ThreadId};
use crate::kernel::{ContextId, Kernel, State};
use crate::rules;
use crate::wdf::request;

/// What keeps somebody from going on.
enum Blocker {
    /// Somebody else has it.
    Owner(ContextId),
    /// It would have to be signalled.
    Signal,
    Unknown,
}

/// The stop for `thread`, which never ends.
pub(crate) fn stop(k: &Kernel, thread: ThreadId) -> Stop {
    let name = &k.threads[&thread].name;
    let mut chain: Vec<ContextId> = Vec::new();
    let mut told = Vec::new();
    let mut next = k.threads[&thread].context;
    let kind = loop {
        let Some(id) = next else {
            break StopKind::Deadlock;
        };
        if chain.contains(&id) {
            break StopKind::Deadlock;
        }
        chain.push(id);
        let (what, blocker) = blocker(k, id);
        told.push(format!("{} waits for {what}", k.context(id).name));
        match blocker {
            Blocker::Owner(owner) => {
                if let Some(last) = told.last_mut() {
                    last.push_str(" of ");
                    last.push_str(&k.context(owner).name);
                }
                next = Some(owner);
            }
            Blocker::Signal => break StopKind::LostWakeUp,
            Blocker::Unknown => break StopKind::Deadlock,
        }
    };
    let end = if kind == StopKind::LostWakeUp {
        ", which nobody is left to signal"
    } else {
        ""
    };
    let mut message = format!(
        "{name} never finishes: nothing can run and no timer is set; {}{end}",
        told.join(", ")
    );
    // What a user waits for, and a queue that is to stop.
    for request in request::uncompleted(k) {
        message.push_str("; ");
        message.push_str(&request);
    }
    let rule = if kind == StopKind::LostWakeUp {
        &rules::deadlock::LOST_WAKE_UP
    } else {
        &rules::deadlock::NEVER_ENDS
    };
    if k.checks(rule) {
        rule.stop(k, &[], message)
    } else {
        Stop::here(k, StopKind::Unchecked, message)
    }
}

/// The stop for `thread`, which took too long since `begun`, in steps and virtual time.
pub(crate) fn gave_up(k: &Kernel, thread: ThreadId, begun: (u64, u64)) -> Stop {
    let name = &k.threads[&thread].name;
    let (steps, time) = (k.steps - begun.0, k.now - begun.1);
    let doing = match k.threads[&thread].context {
        Some(id) if k.context(id).state != State::Ready => {
            let (what, _) = blocker(k, id);
            if what.is_empty() {
                "it sleeps".to_owned()
            } else {
                format!("it waits for {what}")
            }
        }
        _ => "it runs".to_owned(),
    };
    let others: Vec<_> = k
        .contexts()
        .filter(|(_, context)| context.state == State::Ready && context.thread != Some(thread))
        .map(|(_, context)| context.name.as_str())
        .collect();
    let others = if others.is_empty() {
        String::new()
    } else {
        format!(", and {} run(s)", others.join(", "))
    };
    let message = format!(
        "{name} is not at its end after {steps} steps and {:.3} s of virtual time: {doing}{others}",
        std::time::Duration::from_nanos(time.saturating_mul(100)).as_secs_f64()
    );
    Stop::here(k, StopKind::Watchdog, message)
}

/// What a context that cannot run waits for, and who could end that.
fn blocker(k: &Kernel, id: ContextId) -> (String, Blocker) {
    let context = k.context(id);
    if let State::Spinning(key) = context.state {
        let owner = owner_of_lock(k, key).filter(|owner| *owner != id);
        let what = k.name_of(key).unwrap_or("a lock").to_owned();
        return (what, owner.map_or(Blocker::Unknown, Blocker::Owner));
    }
    let wait = context
        .thread
        .and_then(|thread| k.threads[&thread].wait.as_ref());
    let Some(wait) = wait else {
        return ("something".to_owned(), Blocker::Unknown);
    };
    let names: Vec<_> = wait
        .objects
        .iter()
        .map(|object| k.name_of(*object).unwrap_or("an object"))
        .collect();
    let owners: Vec<_> = wait
        .objects
        .iter()
        .map(|object| owner_of_object(k, *object))
        .collect();
    // Of several objects one that has no owner may have been forgotten.
    let blocker = match owners.iter().flatten().next() {
        Some(owner) if owners.iter().all(Option::is_some) => Blocker::Owner(*owner),
        _ => Blocker::Signal,
    };
    (names.join(", "), blocker)
}

fn owner_of_object(k: &Kernel, object: usize) -> Option<ContextId> {
    if let Some(thread) = ThreadId::from_address(object) {
        return k.threads.get(&thread)?.context;
    }
    match k.ke.objects.get(&object)? {
        Object::Mutex { owner, .. } => k.threads[&(*owner)?].context,
        Object::Event { .. } | Object::Semaphore { .. } | Object::Timer { .. } => None,
    }
}

fn owner_of_lock(k: &Kernel, lock: usize) -> Option<ContextId> {
    crate::locks::holders(k, lock).first().copied()
}
