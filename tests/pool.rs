// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory of the kernel's pools on a simulated machine.

#[path = "kernel/machine.rs"]
mod kernel;

use std::cell::Cell;
use std::rc::Rc;

use dmf::pool::{self, PagedBox, PagedVec, Tag, tag};
use dmf::prelude::*;
use dmf::string::UnicodeString;
use dmf::sync::{EventKind, FastMutex, Mutex, Semaphore, Wait, Waitable, delay};
use kernel::{machine, passive, run, stop};
use ntsim::trace::Event as Traced;
use proptest::prelude::*;

#[test]
fn a_value_that_needs_more_than_16_bytes_of_alignment_gets_it() {
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line([u8; 64]);
    #[repr(align(4096))]
    struct Page(u8);
    run(|irql| {
        for round in 0..20_u8 {
            let line = pool::Box::new(Line([round; 64])).unwrap();
            assert!(std::ptr::from_ref(&*line).addr().is_multiple_of(64));
            assert_eq!(line.0[63], round);
            let page = pool::Box::new(Page(round)).unwrap();
            assert!(std::ptr::from_ref(&*page).addr().is_multiple_of(4096));
            assert_eq!(page.0, round);
            let paged = PagedVec::new(irql, 3, Line([1; 64])).unwrap();
            assert!(paged.get(irql).as_ptr().addr().is_multiple_of(64));
        }
    });
}

#[test]
fn a_type_without_size_takes_no_pool() {
    let mut machine = machine(1);
    machine.fail_nth(Some(1));
    machine
        .run_thread("main", || {
            assert!(pool::Box::new(()).is_ok());
            assert_eq!(pool::Vec::<()>::with_capacity(5).unwrap().len(), 0);
            assert!(PagedVec::new(&passive(), 0, 1_u8).is_ok());
        })
        .unwrap_or_else(|stop| panic!("{stop}"));
}

/// Counts its drops.
#[derive(Clone, Debug)]
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn what_the_pool_types_own_is_dropped_once() {
    run(|_| {
        let drops = Rc::new(Cell::new(0));
        let mut array = pool::Vec::new();
        for _ in 0..5 {
            array.push(Counted(drops.clone())).unwrap();
        }
        drop(array.pop());
        drop(array.remove(0));
        assert!(array.remove(3).is_none());
        assert_eq!(drops.take(), 2);
        array.truncate(2);
        assert_eq!(drops.take(), 1);
        array.resize(4, &Counted(drops.clone())).unwrap();
        assert_eq!(drops.take(), 1); // the argument
        drop(array);
        assert_eq!(drops.take(), 4);

        let first = pool::Arc::new(Counted(drops.clone())).unwrap();
        let second = first.clone();
        assert_eq!(pool::Arc::count(&first), 2);
        let mut first = pool::Arc::try_unwrap(first).unwrap_err();
        assert!(pool::Arc::get_mut(&mut first).is_none());
        drop(second);
        assert!(pool::Arc::get_mut(&mut first).is_some());
        assert_eq!(drops.take(), 0);
        drop(pool::Arc::try_unwrap(first).ok());
        assert_eq!(drops.take(), 1);
    });
}

#[test]
fn an_array_that_cannot_grow_stays_as_it_was() {
    run(|_| {
        let mut array = pool::Vec::new();
        array.extend_from_slice(&[1_u64, 2]).unwrap();
        for more in [usize::MAX, usize::MAX / 8, isize::MAX.unsigned_abs()] {
            assert_eq!(array.reserve(more), Err(NtStatus::INSUFFICIENT_RESOURCES));
        }
        assert_eq!(*array, [1, 2]);
    });
}

#[test]
fn memory_is_listed_under_the_tag_of_its_type() {
    struct Mine;
    impl Tag for Mine {
        const TAG: u32 = tag(b"Mine");
    }
    let mut machine = ntsim::Machine::with_seed(1);
    let body = || {
        drop(pool::Box::<u32, Mine>::new_tagged(1).unwrap());
        drop(PagedBox::<u32, Mine>::new_tagged(&passive(), 1).unwrap());
        drop(pool::Box::new(1_u32).unwrap());
    };
    machine.run_thread("main", body).unwrap();
    let tags: Vec<_> = calls(&machine, "ExAllocatePool2")
        .into_iter()
        .map(|(args, _)| args.split("Tag=").nth(1).unwrap().to_owned())
        .collect();
    let (mine, dmf) = (Mine::TAG.to_string(), pool::TAG.to_string());
    assert_eq!(tags, [mine.clone(), mine, dmf]);
}

/// The arguments and results of all calls of a function.
fn calls(machine: &ntsim::Machine, function: &str) -> Vec<(String, String)> {
    let lines = machine.trace().iter().filter_map(|line| match &line.what {
        Traced::Call { name, args, result } if *name == function => {
            Some((args.clone(), result.clone()))
        }
        _ => None,
    });
    lines.collect()
}

/// <https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xd1--driver-irql-not-less-or-equal>
#[test]
fn paged_memory_that_is_used_at_dispatch_level_stops_the_machine() {
    kernel::bug_check(0xD1, None, |irql| {
        let mut report = PagedBox::new(irql, [1_u32; 8]).unwrap();
        let lock = SpinLock::new(0);
        lock.with(|value| *value += 1);
        // At PASSIVE_LEVEL it is as it was.
        report.get_mut(irql)[7] = 2;
        assert_eq!(report.get(irql)[7], 2);
        // The types let a reference in, and the machine does not.
        let hidden = report.get(irql);
        lock.with(|value| *value += hidden[0]);
    });
}

#[test]
fn paged_memory_that_is_dropped_at_dispatch_level_stops_the_machine() {
    let report = stop(|irql| {
        let report = PagedBox::new(irql, 1).unwrap();
        SpinLock::new(()).with(|()| drop(report));
    });
    let message = "a PagedBox was dropped at IRQL 2";
    assert!(report.message.contains(message), "{report}");
    let report = stop(|irql| {
        let log = PagedVec::new(irql, 2, 1).unwrap();
        SpinLock::new(()).with(|()| drop(log));
    });
    let message = "a PagedVec was dropped at IRQL 2";
    assert!(report.message.contains(message), "{report}");
}

#[test]
fn each_allocation_that_fails_is_an_error_and_leaves_nothing() {
    /// Makes one of each thing that allocates.
    fn make(irql: &Irql<'_, Passive>) -> Result {
        let event = Event::new(EventKind::Notification)?;
        let semaphore = Semaphore::new(1, 1)?;
        let mutex = Mutex::new(1)?;
        let fast = FastMutex::new(1)?;
        let other = Event::new(EventKind::Synchronization)?;
        mutex.claim(irql, |claim| {
            let objects: [&dyn Waitable; 4] = [&event, &semaphore, claim, &other];
            Wait::ADVISED.any(irql, &objects, Timeout::Poll).map(drop)
        })?;
        let _arc = pool::Arc::pin(1)?;
        let _paged = PagedBox::new(irql, 1)?;
        let _array = PagedVec::new(irql, 2, 1)?;
        let _string = UnicodeString::format(format_args!("{}", 1))?;
        Thread::spawn(irql, |irql| delay(irql, Duration::from_millis(1)))?.join(irql);
        drop(fast);
        Ok(())
    }
    let mut failed = 0;
    for point in 1.. {
        let mut machine = ntsim::Machine::with_seed(point);
        machine.fail_nth(Some(point));
        let result = machine.run_thread("main", || make(&passive()));
        match result.unwrap_or_else(|stop| panic!("point {point}: {stop}")) {
            Ok(()) => break,
            Err(status) => assert_eq!(status, NtStatus::INSUFFICIENT_RESOURCES, "point {point}"),
        }
        failed += 1;
        machine.fail_nth(None);
        let again = machine.run_thread("main", || make(&passive()));
        assert_eq!(
            again.unwrap_or_else(|stop| panic!("point {point}: {stop}")),
            Ok(())
        );
        let allocated = calls(&machine, "ExAllocatePool2");
        let refused = allocated
            .iter()
            .filter(|(_, result)| result == "NULL")
            .count();
        let freed = calls(&machine, "ExFreePoolWithTag").len();
        assert_eq!(
            allocated.len() - refused,
            freed,
            "point {point}: {allocated:?}"
        );
    }
    assert!(failed >= 10, "only {failed} points failed");
}

#[test]
fn an_array_of_more_than_there_is_memory_is_an_error() {
    run(|irql| {
        for length in [usize::MAX, usize::MAX / 8, 1 << 60] {
            let refused = Some(NtStatus::INSUFFICIENT_RESOURCES);
            assert_eq!(pool::Vec::<u64>::with_capacity(length).err(), refused);
            assert_eq!(PagedVec::new(irql, length, 0_u64).err(), refused);
            let mut array = pool::Vec::new();
            array.push(7_u64).unwrap();
            assert_eq!(array.resize(length, &0).err(), refused);
            assert_eq!(*array, [7]);
        }
    });
}

// ---- any use of an array -------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Pop,
    Remove(usize),
    Truncate(usize),
    Extend(Vec<u8>),
    Resize(usize, u8),
    Reserve(usize),
    Clear,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => any::<u8>().prop_map(Op::Push),
        1 => Just(Op::Pop),
        1 => (0..20_usize).prop_map(Op::Remove),
        1 => (0..20_usize).prop_map(Op::Truncate),
        1 => prop::collection::vec(any::<u8>(), 0..10).prop_map(Op::Extend),
        1 => (0..30_usize, any::<u8>()).prop_map(|(length, value)| Op::Resize(length, value)),
        1 => (0..50_usize).prop_map(Op::Reserve),
        1 => Just(Op::Clear),
    ];
    prop::collection::vec(op, 0..40)
}

/// Plays `ops` on an array of `T` and on one of the standard library.
fn play<T: Clone + PartialEq + std::fmt::Debug>(ops: &[Op], value: impl Fn(u8) -> T) {
    let (mut array, mut model) = (pool::Vec::new(), Vec::new());
    for op in ops {
        match op {
            Op::Push(byte) => {
                array.push(value(*byte)).unwrap();
                model.push(value(*byte));
            }
            Op::Pop => assert_eq!(array.pop(), model.pop()),
            Op::Remove(index) => {
                let expected = (*index < model.len()).then(|| model.remove(*index));
                assert_eq!(array.remove(*index), expected);
            }
            Op::Truncate(length) => {
                array.truncate(*length);
                model.truncate(*length);
            }
            Op::Extend(bytes) => {
                let values: Vec<_> = bytes.iter().map(|byte| value(*byte)).collect();
                array.extend_from_slice(&values).unwrap();
                model.extend_from_slice(&values);
            }
            Op::Resize(length, byte) => {
                array.resize(*length, &value(*byte)).unwrap();
                model.resize(*length, value(*byte));
            }
            Op::Reserve(more) => {
                array.reserve(*more).unwrap();
                assert!(array.capacity() >= array.len() + more);
            }
            Op::Clear => {
                array.clear();
                model.clear();
            }
        }
        assert_eq!(*array, *model);
        assert!(array.capacity() >= array.len());
    }
}

/// A value with an alignment beyond that of the pool.
#[derive(Clone, Debug, PartialEq)]
#[repr(align(64))]
struct Aligned(u8);

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn an_array_behaves_as_that_of_the_standard_library(ops in ops()) {
        run(move |_| {
            play(&ops, |byte| byte);
            play(&ops, |_| ());
            play(&ops, Aligned);
            play(&ops, Rc::new);
        });
    }
}
