// SPDX-License-Identifier: MIT OR Apache-2.0

//! Locks that threads could wait for in a circle.

#![allow(
    clippy::wildcard_imports,
    clippy::cast_ptr_alignment,
    clashing_extern_declarations,
    reason = "the kernel's functions and objects, as a driver in C has them; pool is aligned to 16 bytes"
)]

use ntsim::machine::Error;
use ntsim::rules::deadlock;
use ntsim::{MILLISECOND, Settings};

use crate::Case;
use crate::locks::*;

pub const CASES: &[Case] = &[
    Case {
        rule: &deadlock::SELF,
        breaks: |settings| {
            play(settings, || {
                let lock = spin_lock();
                KeAcquireSpinLockRaiseToDpc(lock);
                KeAcquireSpinLockAtDpcLevel(lock);
            })
        },
        // A mutex may be owned several times.
        comes_close: |settings| {
            play(settings, || {
                let mutex = mutex();
                wait(mutex);
                wait(mutex);
                KeReleaseMutex(mutex, 0);
                KeReleaseMutex(mutex, 0);
            })
        },
    },
    Case {
        rule: &deadlock::ORDER,
        breaks: |settings| nested(settings, [0, 1], [1, 0]),
        comes_close: |settings| nested(settings, [0, 1], [0, 1]),
    },
    Case {
        rule: &deadlock::UNINITIALIZED,
        // What `ExAllocatePoolWithTag` returns is not zero.
        breaks: |settings| {
            play(settings, || {
                let lock = leaked(0xCDCD_CDCD);
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
            })
        },
        // `KeInitializeSpinLock` is inline in the WDK: it writes 0 and calls nobody.
        comes_close: |settings| {
            play(settings, || {
                let lock = leaked(0);
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
            })
        },
    },
    Case {
        rule: &deadlock::RELEASE_ORDER,
        breaks: |settings| {
            play(settings, || {
                let (first, second) = (spin_lock(), spin_lock());
                let old = KeAcquireSpinLockRaiseToDpc(first);
                KeAcquireSpinLockAtDpcLevel(second);
                KeReleaseSpinLock(first, old);
            })
        },
        // Hand over hand, and the IRQL stays.
        comes_close: |settings| {
            play(settings, || {
                let (first, second) = (spin_lock(), spin_lock());
                let old = KeAcquireSpinLockRaiseToDpc(first);
                KeAcquireSpinLockAtDpcLevel(second);
                KeReleaseSpinLockFromDpcLevel(first);
                KeReleaseSpinLock(second, old);
            })
        },
    },
    Case {
        rule: &deadlock::OTHER_THREAD,
        breaks: |settings| {
            play(settings, || {
                let mutex = fast_mutex();
                ExAcquireFastMutex(mutex);
                KeLowerIrql(0);
                join(start(move || {
                    KfRaiseIrql(1);
                    ExReleaseFastMutex(mutex);
                }));
            })
        },
        comes_close: |settings| in_turn(settings),
    },
    Case {
        rule: &deadlock::INITIALIZED_TWICE,
        breaks: |settings| {
            play(settings, || {
                let lock = spin_lock();
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeInitializeSpinLock(lock);
                KeReleaseSpinLock(lock, old);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let lock = spin_lock();
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
                KeInitializeSpinLock(lock);
            })
        },
    },
    Case {
        rule: &deadlock::NOT_ACQUIRED,
        breaks: |settings| {
            play(settings, || {
                let mutex = fast_mutex();
                KfRaiseIrql(1);
                ExReleaseFastMutex(mutex);
            })
        },
        comes_close: |settings| in_turn(settings),
    },
    Case {
        rule: &deadlock::ACQUIRE_MISMATCH,
        breaks: |settings| {
            play(settings, || {
                let (lock, mut handle) = (spin_lock(), [0; 3]);
                KeAcquireInStackQueuedSpinLock(lock, &raw mut handle);
                KeReleaseInStackQueuedSpinLock(&raw mut handle);
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
            })
        },
        // A lock that is initialised again is another one.
        comes_close: |settings| {
            play(settings, || {
                let (lock, mut handle) = (spin_lock(), [0; 3]);
                KeAcquireInStackQueuedSpinLock(lock, &raw mut handle);
                KeReleaseInStackQueuedSpinLock(&raw mut handle);
                KeInitializeSpinLock(lock);
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
            })
        },
    },
    Case {
        rule: &deadlock::RELEASE_MISMATCH,
        breaks: |settings| {
            play(settings, || {
                let lock = leaked(0);
                let old = ExAcquireSpinLockShared(lock);
                ExReleaseSpinLockExclusive(lock, old);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let lock = leaked(0);
                let old = ExAcquireSpinLockShared(lock);
                ExReleaseSpinLockShared(lock, old);
            })
        },
    },
    Case {
        rule: &deadlock::OWNER_ENDED,
        breaks: |settings| {
            play(settings, || {
                let mutex = fast_mutex();
                join(start(move || {
                    ExAcquireFastMutex(mutex);
                    KeLowerIrql(0);
                }));
            })
        },
        comes_close: |settings| in_turn(settings),
    },
    Case {
        rule: &deadlock::FREED_WHILE_HELD,
        breaks: |settings| {
            play(settings, || {
                let block = pool(64);
                let lock = block.cast::<usize>();
                KeInitializeSpinLock(lock);
                KeAcquireSpinLockRaiseToDpc(lock);
                ExFreePool(block);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let block = pool(64);
                let lock = block.cast::<usize>();
                KeInitializeSpinLock(lock);
                let old = KeAcquireSpinLockRaiseToDpc(lock);
                KeReleaseSpinLock(lock, old);
                ExFreePool(block);
            })
        },
    },
    Case {
        rule: &deadlock::CIRCLE,
        // The thread needs the mutex that its stopper holds: no order of locks shows it.
        breaks: |settings| stop_a_thread(settings, true),
        comes_close: |settings| stop_a_thread(settings, false),
    },
    Case {
        rule: &deadlock::LOST_WAKE_UP,
        breaks: |settings| {
            play(settings, || {
                let event = Object::boxed();
                KeInitializeEvent(event.cast(), 0, 0);
                wait(event);
            })
        },
        comes_close: |settings| {
            play(settings, || {
                let event = Object::boxed();
                KeInitializeEvent(event.cast(), 0, 1);
                wait(event);
            })
        },
    },
    Case {
        rule: &deadlock::NEVER_ENDS,
        breaks: |settings| run_down(settings, 0),
        comes_close: |settings| run_down(settings, 1),
    },
];

/// A thread that takes two of three locks in the first order, then another that does in the
/// second. They never run at the same time.
fn nested(settings: Settings, first: [usize; 2], second: [usize; 2]) -> Result<(), Error> {
    play(settings, move || {
        let locks = [fast_mutex(), fast_mutex()];
        for [outer, inner] in [first, second] {
            join(start(move || {
                ExAcquireFastMutex(locks[outer]);
                ExAcquireFastMutex(locks[inner]);
                ExReleaseFastMutex(locks[inner]);
                ExReleaseFastMutex(locks[outer]);
            }));
        }
    })
}

/// Waits until what was acquired once has been released.
fn run_down(settings: Settings, releases: u32) -> Result<(), Error> {
    play(settings, move || {
        let reference = leaked(0);
        ExInitializeRundownProtection(reference);
        assert_eq!(ExAcquireRundownProtection(reference), 1);
        for _ in 0..releases {
            ExReleaseRundownProtection(reference);
        }
        ExWaitForRundownProtectionRelease(reference);
    })
}

/// Two threads that use a mutex as it is meant.
fn in_turn(settings: Settings) -> Result<(), Error> {
    play(settings, || {
        let mutex = fast_mutex();
        let threads = [(), ()].map(|()| {
            start(move || {
                ExAcquireFastMutex(mutex);
                delay(MILLISECOND);
                ExReleaseFastMutex(mutex);
            })
        });
        threads.into_iter().for_each(join);
    })
}

fn stop_a_thread(settings: Settings, under_the_mutex: bool) -> Result<(), Error> {
    play(settings, move || {
        let mutex = mutex();
        wait(mutex);
        let thread = start(move || {
            wait(mutex);
            KeReleaseMutex(mutex, 0);
        });
        if under_the_mutex {
            join(thread);
            KeReleaseMutex(mutex, 0);
        } else {
            KeReleaseMutex(mutex, 0);
            join(thread);
        }
    })
}
