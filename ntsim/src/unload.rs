// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a driver may not leave behind when it is unloaded: what would still run its
//! code, and what nobody will ever give back.

use crate::kernel::Kernel;
use crate::memory::tag_name;
use crate::origin::{Origin, Related};
use crate::rules::unload as rules;

/// How many of the things left behind are told where they were made.
const TOLD: usize = 8;

/// Something that is left, with where it was made.
struct Left<'k> {
    name: String,
    origin: Option<&'k Origin>,
}

/// Names what is left, and where each was made; nothing if nothing is.
fn tell(k: &Kernel, left: &[Left<'_>], made: &str) -> Option<(String, Vec<Related>)> {
    if left.is_empty() {
        return None;
    }
    let names: Vec<_> = left.iter().map(|left| left.name.as_str()).collect();
    let related = left.iter().take(TOLD).filter_map(|left| {
        let what = format!("{} was {made}", left.name);
        Some(Related::new(k, what, Some(left.origin?)))
    });
    Some((names.join(", "), related.collect()))
}

/// Stops the machine if an unloaded driver left something behind.
pub(crate) fn check(k: &mut Kernel, driver: &str) {
    crate::ex::pool::check_freed(k);
    still_runs(k, driver);
    leaks(k, driver);
}

/// What would still call the driver.
fn still_runs(k: &mut Kernel, driver: &str) {
    let threads = k.threads.values();
    let threads = threads.filter(|thread| !thread.system && !thread.exited);
    let threads = threads.map(|thread| Left {
        name: thread.name.clone(),
        origin: thread.origin.as_ref(),
    });
    if let Some((names, related)) = tell(k, &threads.collect::<Vec<_>>(), "started") {
        k.broken_with(
            &rules::THREAD,
            &[],
            format!("driver {driver} is unloaded while its {names} still run(s)"),
            related,
        );
    }
    if let Some(timer) = k.ke.set_timers.keys().next().copied() {
        let name = k.name_of(timer).unwrap_or("a timer").to_owned();
        let related = crate::ke::timer::where_set(k, timer);
        k.broken_with(
            &rules::TIMER,
            &[timer as u64],
            format!("driver {driver} is unloaded while {name} is set"),
            related,
        );
    }
    let dpc = k.dpc_queue().find(|dpc| dpc.routine != 0);
    if let Some((name, routine)) = dpc.map(|dpc| (dpc.name.clone(), dpc.routine)) {
        k.broken(
            &rules::DPC,
            &[routine as u64],
            format!("driver {driver} is unloaded while {name} is queued"),
        );
    }
    if let Some(item) = crate::ex::work_item::first_queued(k) {
        let name = k.name_of(item).unwrap_or("a work item").to_owned();
        let related = crate::ex::work_item::where_queued(k, item);
        k.broken_with(
            &rules::WORK_ITEM,
            &[],
            format!("driver {driver} is unloaded while {name} is queued"),
            related,
        );
    }
}

/// What nobody will ever give back.
fn leaks(k: &mut Kernel, driver: &str) {
    let objects = crate::wdf::leaks(k);
    let objects = objects
        .into_iter()
        .map(|(name, origin)| Left { name, origin });
    if let Some((names, related)) = tell(k, &objects.collect::<Vec<_>>(), "created") {
        let message = format!("driver {driver} is unloaded and leaves {names}");
        k.broken_with(&rules::OBJECT, &[], message, related);
    }
    let handles = crate::ob::open_handles(k).map(|(name, origin)| Left { name, origin });
    if let Some((names, related)) = tell(k, &handles.collect::<Vec<_>>(), "opened") {
        let message = format!("driver {driver} is unloaded and leaves open {names}");
        k.broken_with(&rules::HANDLE, &[], message, related);
    }
    let threads = k.threads.values();
    let referenced = threads.filter(|thread| !thread.system && thread.references != 0);
    let referenced = referenced.map(|thread| Left {
        name: format!("{} ({} references)", thread.name, thread.references),
        origin: thread.origin.as_ref(),
    });
    if let Some((names, related)) = tell(k, &referenced.collect::<Vec<_>>(), "started") {
        let message = format!("driver {driver} is unloaded and leaves references to {names}");
        k.broken_with(&rules::REFERENCE, &[], message, related);
    }
    if let Some(resource) = k.ex.resources.keys().next().copied() {
        let name = k.name_of(resource).unwrap_or("a resource").to_owned();
        let message =
            format!("driver {driver} is unloaded and leaves {name}, which was not deleted");
        k.broken(&rules::RESOURCE, &[], message);
    }
    let pool = &k.ex.pool;
    let blocks = pool.blocks.live().map(|block| Left {
        name: format!(
            "#{} (tag '{}', {} bytes)",
            block.ordinal,
            tag_name(block.tag),
            block.size
        ),
        origin: pool.origins.get(&block.address),
    });
    let blocks: Vec<_> = blocks.collect();
    let count = blocks.len() as u64;
    if let Some((names, related)) = tell(k, &blocks, "allocated") {
        let items = crate::io::work_item::allocated(k);
        let items = match items {
            0 => String::new(),
            items => format!(" ({items} of them by IoAllocateWorkItem)"),
        };
        k.broken_with(
            &rules::POOL,
            &[0, 0, count],
            format!("driver {driver} is unloaded and leaves pool block(s) {names}{items}"),
            related,
        );
    }
}
