// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ERESOURCE`, called as a linked-in driver calls it. Who is given what, and when:
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquireresourcesharedlite>,
//! <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exacquiresharedwaitforexclusive>.

#[path = "nt/threads.rs"]
mod threads;

use std::cell::Cell;
use std::rc::Rc;

use ntsim::{MILLISECOND, StopKind};
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    type Resource = *mut [u64; 13];
    unsafe extern "C-unwind" {
        pub safe fn ExInitializeResourceLite(resource: Resource) -> i32;
        pub safe fn ExReinitializeResourceLite(resource: Resource) -> i32;
        pub safe fn ExDeleteResourceLite(resource: Resource) -> i32;
        pub safe fn ExAcquireResourceExclusiveLite(resource: Resource, wait: u8) -> u8;
        pub safe fn ExAcquireResourceSharedLite(resource: Resource, wait: u8) -> u8;
        pub safe fn ExAcquireSharedStarveExclusive(resource: Resource, wait: u8) -> u8;
        pub safe fn ExAcquireSharedWaitForExclusive(resource: Resource, wait: u8) -> u8;
        pub safe fn ExEnterCriticalRegionAndAcquireResourceExclusive(resource: Resource) -> usize;
        pub safe fn ExReleaseResourceLite(resource: Resource);
        pub safe fn ExReleaseResourceForThreadLite(resource: Resource, thread: usize);
        pub safe fn ExReleaseResourceAndLeaveCriticalRegion(resource: Resource);
        pub safe fn ExConvertExclusiveToSharedLite(resource: Resource);
        pub safe fn ExIsResourceAcquiredExclusiveLite(resource: Resource) -> u8;
        pub safe fn ExIsResourceAcquiredSharedLite(resource: Resource) -> u32;
        pub safe fn ExGetExclusiveWaiterCount(resource: Resource) -> u32;
        pub safe fn ExGetSharedWaiterCount(resource: Resource) -> u32;
        pub safe fn KeEnterCriticalRegion();
        pub safe fn KeLeaveCriticalRegion();
        pub safe fn KeAreApcsDisabled() -> u8;
        pub safe fn KeGetCurrentThread() -> usize;
    }
}
use nt::*;

fn resource() -> *mut [u64; 13] {
    let resource = leaked([0xCD; 13]);
    assert_eq!(ExInitializeResourceLite(resource), 0);
    resource
}

#[test]
fn one_alone_or_many_together_under_every_schedule() {
    let shared = Rc::new(Cell::new(0));
    let together = shared.clone();
    every_schedule(move || {
        let resource = resource();
        let writers = Rc::new(Cell::new(0));
        let readers = Rc::new(Cell::new(0));
        let most = Rc::new(Cell::new(0));
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let (writers, readers, most) = (writers.clone(), readers.clone(), most.clone());
                start(move || {
                    KeEnterCriticalRegion();
                    if number == 0 {
                        assert_eq!(ExAcquireResourceExclusiveLite(resource, 1), 1);
                        writers.set(writers.get() + 1);
                        delay(MILLISECOND);
                        assert_eq!((writers.get(), readers.get()), (1, 0));
                        writers.set(writers.get() - 1);
                    } else {
                        assert_eq!(ExAcquireResourceSharedLite(resource, 1), 1);
                        readers.set(readers.get() + 1);
                        most.set(most.get().max(readers.get()));
                        delay(MILLISECOND);
                        assert_eq!(writers.get(), 0);
                        readers.set(readers.get() - 1);
                    }
                    ExReleaseResourceLite(resource);
                    KeLeaveCriticalRegion();
                })
            })
            .collect();
        threads.into_iter().for_each(join);
        together.set(together.get() + u32::from(most.get() > 1));
        assert_eq!(ExDeleteResourceLite(resource), 0);
    });
    assert!(shared.get() > 50, "readers share it: {}", shared.get());
}

#[test]
fn its_owner_takes_it_again_and_asks_how_often_it_has_it() {
    ntsim::run(|| {
        let resource = resource();
        let counts = || {
            (
                ExIsResourceAcquiredExclusiveLite(resource),
                ExIsResourceAcquiredSharedLite(resource),
            )
        };
        assert_eq!(counts(), (0, 0));
        ExEnterCriticalRegionAndAcquireResourceExclusive(resource);
        assert_eq!((counts(), KeAreApcsDisabled()), ((1, 1), 1));
        assert_eq!(ExAcquireResourceExclusiveLite(resource, 0), 1);
        // Asking for it shared does not make it so.
        assert_eq!(ExAcquireResourceSharedLite(resource, 0), 1);
        assert_eq!(counts(), (1, 3));
        ExConvertExclusiveToSharedLite(resource);
        assert_eq!(counts(), (0, 3));
        // Who shares it does not get it alone.
        assert_eq!(ExAcquireResourceExclusiveLite(resource, 0), 0);
        ExReleaseResourceLite(resource);
        ExReleaseResourceLite(resource);
        ExReleaseResourceAndLeaveCriticalRegion(resource);
        assert_eq!((counts(), KeAreApcsDisabled()), ((0, 0), 0));
        assert_eq!(ExReinitializeResourceLite(resource), 0);
    });
}

#[test]
fn who_shares_it_and_waits_to_have_it_alone_waits_for_itself() {
    let stop = stop(|| {
        let resource = resource();
        KeEnterCriticalRegion();
        ExAcquireResourceSharedLite(resource, 1);
        ExAcquireResourceExclusiveLite(resource, 1);
    });
    expect_bug_check(&stop, 0xC4, 0x1000);
}

/// What the ways to share it give while it is shared and somebody waits to have it alone.
#[test]
fn a_waiter_for_it_alone_is_let_by_or_starved() {
    every_schedule(|| {
        let resource = resource();
        KeEnterCriticalRegion();
        assert_eq!(ExAcquireResourceSharedLite(resource, 1), 1);
        let had = Rc::new(Cell::new(false));
        let writer = {
            let had = had.clone();
            start(move || {
                KeEnterCriticalRegion();
                assert_eq!(ExAcquireResourceExclusiveLite(resource, 1), 1);
                had.set(true);
                ExReleaseResourceLite(resource);
                KeLeaveCriticalRegion();
            })
        };
        delay(MILLISECOND);
        assert_eq!(ExGetExclusiveWaiterCount(resource), 1);
        // The caller has it: it is given again, but not behind the waiter.
        assert_eq!(ExAcquireResourceSharedLite(resource, 0), 1);
        assert_eq!(ExAcquireSharedWaitForExclusive(resource, 0), 0);
        let others = start(move || {
            KeEnterCriticalRegion();
            assert_eq!(ExAcquireResourceSharedLite(resource, 0), 0);
            assert_eq!(ExAcquireSharedStarveExclusive(resource, 0), 1);
            ExReleaseResourceLite(resource);
            KeLeaveCriticalRegion();
        });
        join(others);
        let reader = start(move || {
            KeEnterCriticalRegion();
            assert_eq!(ExAcquireResourceSharedLite(resource, 1), 1);
            ExReleaseResourceLite(resource);
            KeLeaveCriticalRegion();
        });
        delay(MILLISECOND);
        assert_eq!(ExGetSharedWaiterCount(resource), 1);
        assert!(!had.get());
        ExReleaseResourceLite(resource);
        ExReleaseResourceLite(resource);
        KeLeaveCriticalRegion();
        join(writer);
        join(reader);
        assert!(had.get());
    });
}

#[test]
fn one_thread_releases_what_another_acquired() {
    ntsim::run(|| {
        let resource = resource();
        KeEnterCriticalRegion();
        assert_eq!(ExAcquireResourceExclusiveLite(resource, 1), 1);
        let me = KeGetCurrentThread();
        join(start(move || {
            KeEnterCriticalRegion();
            ExReleaseResourceForThreadLite(resource, me);
            assert_eq!(ExAcquireResourceExclusiveLite(resource, 0), 1);
            ExReleaseResourceLite(resource);
            KeLeaveCriticalRegion();
        }));
        KeLeaveCriticalRegion();
    });
}

#[test]
fn a_resource_takes_part_in_the_order_of_locks_and_in_reports() {
    let stop = stop(|| {
        let resources = [resource(), resource()];
        for [outer, inner] in [[0, 1], [1, 0]] {
            join(start(move || {
                KeEnterCriticalRegion();
                ExAcquireResourceSharedLite(resources[outer], 1);
                ExAcquireResourceExclusiveLite(resources[inner], 1);
                ExReleaseResourceLite(resources[inner]);
                ExReleaseResourceLite(resources[outer]);
                KeLeaveCriticalRegion();
            }));
        }
    });
    assert!(matches!(stop.kind, StopKind::BugCheck { .. }), "{stop}");
    assert_eq!(stop.rule, Some("DeadlockOrder"), "{stop}");
    assert_eq!(stop.locks[0].name, "resource#2");
    assert!(stop.locks[0].shared);
}
