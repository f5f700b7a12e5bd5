// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ERESOURCE`: a lock that many may share and one have alone, as often as it likes.
//! <https://learn.microsoft.com/windows-hardware/drivers/kernel/introduction-to-eresource-routines>
//!
//! | asked for | nobody has it | the caller has it | others share it | another has it alone |
//! |---|---|---|---|---|
//! | exclusively | given | given if exclusively | waits | waits |
//! | shared | given | given | given, unless somebody waits to have it alone | waits |
//! | shared, starving | given | given | given | waits |
//! | shared, after waiters | given | given if exclusively | given, unless somebody waits to have it alone | waits |
//!
//! Who waits does so in no particular order, but shared requests wait behind exclusive ones.

use std::collections::BTreeMap;

use crate::access::{Addr, peek, poke};
use crate::ke::dispatcher::ThreadId;
use crate::ke::{guarded_region, sleep, thread};
use crate::kernel::{APC_LEVEL, ContextId, Kernel};
use crate::locks::{self, Kind};
use crate::rules::{self, Rule};
use crate::trap::kernel;

/// `ERESOURCE`: its contents are the system's own.
pub(crate) type EResource = [u64; 13];

/// An initialised resource.
#[derive(Default)]
pub(crate) struct Resource {
    exclusive: bool,
    /// Who has it, and how often.
    owners: Vec<(ThreadId, u32)>,
    exclusive_waiters: u32,
    shared_waiters: u32,
}

/// The resources by address.
pub(crate) type Resources = BTreeMap<usize, Resource>;

/// Which way a resource is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Exclusive,
    Shared,
    /// Before those who wait to have it alone.
    Starve,
    /// After them, even if the caller shares it already.
    AfterExclusive,
}

/// Faults here if the memory is bad; gives the address.
fn touch(resource: *mut EResource) -> usize {
    poke(resource, peek(resource));
    resource as usize
}

fn name(k: &Kernel, resource: usize) -> String {
    locks::show(k, resource, Kind::Resource)
}

fn at_most_apc(k: &mut Kernel, function: &str) {
    let irql = k.irql();
    if irql > APC_LEVEL {
        k.broken(
            &rules::lock::RESOURCE_IRQL,
            &[],
            format!("{function} was called at IRQL {irql}; it needs APC_LEVEL or below"),
        );
    }
}

/// `ExInitializeResourceLite`.
pub(crate) fn ex_initialize_resource_lite(resource: *mut EResource) -> i32 {
    let address = touch(resource);
    kernel(|k| {
        if k.ex.resources.contains_key(&address) {
            let name = name(k, address);
            k.broken(
                &rules::lock::RESOURCE_INITIALIZED_TWICE,
                &[address as u64],
                format!(
                    "ExInitializeResourceLite was given {name}, which ExDeleteResourceLite has not deleted"
                ),
            );
        }
        k.ex.resources.insert(address, Resource::default());
        k.name(address, "resource");
    });
    poke(resource, [0; 13]);
    0
}

/// `ExReinitializeResourceLite`: as if it was new.
pub(crate) fn ex_reinitialize_resource_lite(resource: *mut EResource) -> i32 {
    let address = touch(resource);
    kernel(|k| {
        get(k, address, "ExReinitializeResourceLite");
        locks::initialized(k, address, Kind::Resource, "ExReinitializeResourceLite");
        k.ex.resources.insert(address, Resource::default());
    });
    0
}

/// `ExDeleteResourceLite`.
pub(crate) fn ex_delete_resource_lite(resource: *mut EResource) -> i32 {
    let address = touch(resource);
    kernel(|k| {
        if !k.ex.resources.contains_key(&address) {
            k.fatal(
                &rules::lock::RESOURCE_DELETED_UNINITIALIZED,
                &[address as u64],
                "ExDeleteResourceLite was given a resource that was not initialised, or was deleted",
            );
        }
        let range = address..address + size_of::<EResource>();
        locks::gone(k, range, "ExDeleteResourceLite deletes");
        k.ex.resources.remove(&address);
        k.unname(address);
    });
    0
}

/// The resource at `address`, or the end for what is none.
fn get<'k>(k: &'k mut Kernel, address: usize, function: &str) -> &'k mut Resource {
    if !k.ex.resources.contains_key(&address) {
        locks::uninitialized(k, address, Kind::Resource, function);
        k.unchecked(format!("{function} was given what is no resource"));
    }
    k.ex.resources.get_mut(&address).expect("checked")
}

/// What all calls check that use a resource: `rule` is for one with APCs enabled.
fn check(k: &mut Kernel, address: usize, rule: &'static Rule, function: &str) {
    at_most_apc(k, function);
    if !address.is_multiple_of(8) {
        k.broken(
            &rules::lock::RESOURCE_UNALIGNED,
            &[0, 0, address as u64],
            format!("{function} was given a resource at an address that is no multiple of 8"),
        );
    }
    get(k, address, function);
    if !guarded_region::apcs_disabled(k) {
        let irql = u64::from(k.irql());
        k.broken(
            rule,
            &[irql, 0, address as u64],
            format!("{function} was called with normal kernel APCs enabled; it needs KeEnterCriticalRegion before it"),
        );
    }
}

/// Takes the resource if its owners let.
fn attempt(k: &mut Kernel, address: usize, mode: Mode, function: &'static str) -> bool {
    let me = k.running_thread().expect("the IRQL was checked");
    let resource = get(k, address, function);
    let mine = resource.owners.iter().any(|(owner, _)| *owner == me);
    let waiters = resource.exclusive_waiters != 0;
    let given = match (mode, mine) {
        (_, false) if resource.owners.is_empty() => true,
        (Mode::Exclusive, true) => resource.exclusive,
        (Mode::Exclusive, false) => false,
        (Mode::Shared | Mode::Starve, true) => true,
        (Mode::Starve, false) => !resource.exclusive,
        (Mode::AfterExclusive, true) => resource.exclusive || !waiters,
        (Mode::Shared | Mode::AfterExclusive, false) => !resource.exclusive && !waiters,
    };
    if !given {
        return false;
    }
    let owner = resource.owners.iter_mut().find(|(owner, _)| *owner == me);
    if let Some((_, count)) = owner {
        *count += 1;
    } else {
        resource.exclusive = mode == Mode::Exclusive;
        resource.owners.push((me, 1));
    }
    let shared = !resource.exclusive;
    let context = k.running();
    locks::taken(k, context, address, Kind::Resource, shared, None, function);
    true
}

fn acquire(resource: *mut EResource, wait: u8, mode: Mode, function: &'static str) -> u8 {
    let address = touch(resource);
    let taken = kernel(|k| {
        check(k, address, &rules::lock::RESOURCE_ACQUIRE_APC, function);
        if wait != 0 {
            locks::wants(k, address, Kind::Resource, function);
        }
        let taken = attempt(k, address, mode, function);
        if !taken && wait != 0 {
            let shares = locks::held(k, address).is_some();
            if shares && mode == Mode::Exclusive {
                locks::self_deadlock(k, address, Kind::Resource, function);
            }
            waiters(k, address, mode, 1);
        }
        taken
    });
    if taken || wait == 0 {
        return u8::from(taken);
    }
    sleep::until(address, |k| {
        // It does not wait for itself any more when it looks.
        waiters(k, address, mode, -1);
        let taken = attempt(k, address, mode, function);
        if !taken {
            waiters(k, address, mode, 1);
        }
        taken.then_some(1)
    })
}

fn waiters(k: &mut Kernel, address: usize, mode: Mode, by: i32) {
    let Some(resource) = k.ex.resources.get_mut(&address) else {
        return;
    };
    let count = if mode == Mode::Exclusive {
        &mut resource.exclusive_waiters
    } else {
        &mut resource.shared_waiters
    };
    *count = count.saturating_add_signed(by);
}

/// `ExAcquireResourceExclusiveLite`. Returns whether the caller has the resource.
pub(crate) fn ex_acquire_resource_exclusive_lite(resource: *mut EResource, wait: u8) -> u8 {
    acquire(
        resource,
        wait,
        Mode::Exclusive,
        "ExAcquireResourceExclusiveLite",
    )
}

/// `ExAcquireResourceSharedLite`. Returns whether the caller has the resource.
pub(crate) fn ex_acquire_resource_shared_lite(resource: *mut EResource, wait: u8) -> u8 {
    acquire(resource, wait, Mode::Shared, "ExAcquireResourceSharedLite")
}

/// `ExAcquireSharedStarveExclusive`. Returns whether the caller has the resource.
pub(crate) fn ex_acquire_shared_starve_exclusive(resource: *mut EResource, wait: u8) -> u8 {
    acquire(
        resource,
        wait,
        Mode::Starve,
        "ExAcquireSharedStarveExclusive",
    )
}

/// `ExAcquireSharedWaitForExclusive`. Returns whether the caller has the resource.
pub(crate) fn ex_acquire_shared_wait_for_exclusive(resource: *mut EResource, wait: u8) -> u8 {
    acquire(
        resource,
        wait,
        Mode::AfterExclusive,
        "ExAcquireSharedWaitForExclusive",
    )
}

/// `ExEnterCriticalRegionAndAcquireResourceExclusive`.
pub(crate) fn ex_enter_critical_region_and_acquire_resource_exclusive(
    resource: *mut EResource,
) -> usize {
    kernel(thread::enter_critical_region);
    acquire(
        resource,
        1,
        Mode::Exclusive,
        "ExEnterCriticalRegionAndAcquireResourceExclusive",
    );
    0
}

/// `ExEnterCriticalRegionAndAcquireResourceShared`.
pub(crate) fn ex_enter_critical_region_and_acquire_resource_shared(
    resource: *mut EResource,
) -> usize {
    kernel(thread::enter_critical_region);
    acquire(
        resource,
        1,
        Mode::Shared,
        "ExEnterCriticalRegionAndAcquireResourceShared",
    );
    0
}

/// Gives back one acquisition of `thread`.
fn release(k: &mut Kernel, address: usize, thread: ThreadId, function: &str) {
    check(k, address, &rules::lock::RESOURCE_RELEASE_APC, function);
    let resource = get(k, address, function);
    let Some(index) = resource
        .owners
        .iter()
        .position(|(owner, _)| *owner == thread)
    else {
        let name = name(k, address);
        k.fatal(
            &rules::lock::RESOURCE_NOT_OWNED,
            &[address as u64, thread.address() as u64],
            format!("{function} was called on {name}, which the thread does not own"),
        )
    };
    resource.owners[index].1 -= 1;
    if resource.owners[index].1 == 0 {
        resource.owners.remove(index);
    }
    if resource.owners.is_empty() {
        resource.exclusive = false;
    }
    if let Some(context) = k.threads.get(&thread).and_then(|thread| thread.context) {
        locks::given_back(k, context, address);
    }
    sleep::wake(k, address);
}

/// `ExReleaseResourceLite`.
pub(crate) fn ex_release_resource_lite(resource: *mut EResource) {
    release_own(resource, "ExReleaseResourceLite");
}

fn release_own(resource: *mut EResource, function: &str) {
    let address = touch(resource);
    kernel(|k| {
        at_most_apc(k, function);
        let me = k.running_thread().unwrap_or(ThreadId(0));
        release(k, address, me, function);
    });
}

/// `ExReleaseResourceForThreadLite`: on behalf of another thread.
pub(crate) fn ex_release_resource_for_thread_lite(resource: *mut EResource, owner: Addr) {
    let address = touch(resource);
    kernel(|k| {
        let owner = ThreadId::from_address(owner.0).unwrap_or(ThreadId(0));
        release(k, address, owner, "ExReleaseResourceForThreadLite");
    });
}

/// `ExReleaseResourceAndLeaveCriticalRegion`.
pub(crate) fn ex_release_resource_and_leave_critical_region(resource: *mut EResource) {
    let function = "ExReleaseResourceAndLeaveCriticalRegion";
    release_own(resource, function);
    kernel(|k| thread::leave_critical_region(k, function));
}

/// `ExConvertExclusiveToSharedLite`: others may share it from now on.
pub(crate) fn ex_convert_exclusive_to_shared_lite(resource: *mut EResource) {
    let address = touch(resource);
    let function = "ExConvertExclusiveToSharedLite";
    kernel(|k| {
        at_most_apc(k, function);
        let me = k.running_thread().unwrap_or(ThreadId(0));
        let resource = get(k, address, function);
        let mine = resource.exclusive && resource.owners.iter().any(|(owner, _)| *owner == me);
        resource.exclusive = false;
        if !mine {
            let name = name(k, address);
            k.fatal(
                &rules::lock::RESOURCE_CONVERT,
                &[],
                format!(
                    "{function} was called on {name}, which the caller does not own exclusively"
                ),
            );
        }
        locks::set_shared(k, address, true);
        sleep::wake(k, address);
    });
}

/// `ExIsResourceAcquiredExclusiveLite`.
pub(crate) fn ex_is_resource_acquired_exclusive_lite(resource: *mut EResource) -> u8 {
    let address = touch(resource);
    kernel(|k| {
        let mine = acquisitions(k, address, "ExIsResourceAcquiredExclusiveLite") != 0;
        u8::from(mine && k.ex.resources[&address].exclusive)
    })
}

/// `ExIsResourceAcquiredSharedLite`: how often the caller has acquired it, shared or not.
pub(crate) fn ex_is_resource_acquired_shared_lite(resource: *mut EResource) -> u32 {
    let address = touch(resource);
    kernel(|k| acquisitions(k, address, "ExIsResourceAcquiredSharedLite"))
}

fn acquisitions(k: &mut Kernel, address: usize, function: &str) -> u32 {
    let me = k.running_thread();
    let resource = get(k, address, function);
    let mine = resource.owners.iter().find(|(owner, _)| Some(*owner) == me);
    mine.map_or(0, |(_, count)| *count)
}

/// `ExGetExclusiveWaiterCount`.
pub(crate) fn ex_get_exclusive_waiter_count(resource: *mut EResource) -> u32 {
    let address = touch(resource);
    kernel(|k| get(k, address, "ExGetExclusiveWaiterCount").exclusive_waiters)
}

/// `ExGetSharedWaiterCount`.
pub(crate) fn ex_get_shared_waiter_count(resource: *mut EResource) -> u32 {
    let address = touch(resource);
    kernel(|k| get(k, address, "ExGetSharedWaiterCount").shared_waiters)
}

/// `ExDisableResourceBoostLite`. Nobody's priority matters here.
pub(crate) fn ex_disable_resource_boost_lite(resource: *mut EResource) {
    let address = touch(resource);
    kernel(|k| {
        get(k, address, "ExDisableResourceBoostLite");
    });
}

/// The resources that are held, by whom, and whether shared.
pub(crate) fn held(k: &Kernel) -> impl Iterator<Item = (usize, Vec<ContextId>, bool)> {
    k.ex.resources
        .iter()
        .filter(|(_, resource)| !resource.owners.is_empty())
        .map(|(address, resource)| {
            let owners = resource.owners.iter();
            let contexts = owners.filter_map(|(owner, _)| k.threads.get(owner)?.context);
            (*address, contexts.collect(), !resource.exclusive)
        })
}

/// Memory with a resource in it may not be freed.
pub(crate) fn memory_freed(k: &mut Kernel, address: usize, size: usize) {
    let range = address..address + size;
    let Some((resource, _)) = k.ex.resources.range(range.clone()).next() else {
        return;
    };
    let resource = *resource;
    let name = name(k, resource);
    k.broken(
        &rules::lock::RESOURCE_FREED,
        &[resource as u64, address as u64, size as u64],
        format!("memory is freed that holds {name}, which ExDeleteResourceLite has not deleted"),
    );
    k.ex.resources
        .retain(|resource, _| !range.contains(resource));
}
