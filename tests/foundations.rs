// SPDX-License-Identifier: MIT OR Apache-2.0

//! Statuses, strings, pool, time, printing and tracing on a simulated machine.

#[path = "kernel/machine.rs"]
mod kernel;

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::rc::Rc;

use dmf::pool::{self, PagedBox, PagedVec, Tag, tag};
use dmf::prelude::*;
use dmf::string::{MAXIMUM_UNITS, UnicodeStr, UnicodeString};
use dmf::sync::{EventKind, FastMutex, Mutex, Semaphore, Wait, Waitable, delay};
use dmf::time::{PerformanceCounter, SystemTime, tick};
use dmf::trace::Level;
use dmf::unicode_string;
use kernel::{machine, passive, run, stop};
use ntsim::Settings;
use ntsim::trace::Event as Traced;

// ---- statuses --------------------------------------------------------------

#[test]
fn every_named_status_has_the_code_of_the_metadata() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openwdk/abi/ntstatus.tsv");
    let table = std::fs::read_to_string(file).unwrap();
    let mut named = std::collections::BTreeSet::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (name, code) = line.split_once('\t').unwrap();
        let code = u32::from_str_radix(code.trim_start_matches("0x"), 16).unwrap();
        let status = NtStatus::from_raw(code.cast_signed());
        assert_eq!(status.to_raw().cast_unsigned(), code);
        if status.name() == Some(name) {
            named.insert(code);
            assert_eq!(format!("{status:?}"), format!("{name} (0x{code:08X})"));
        }
    }
    // Each name is one of the metadata's for its code, or it would not be here.
    assert!(named.len() > 300, "{} names", named.len());
    for code in [0x102_u32, 0xC000_000D, 0xC000_009A, 0x8000_0011] {
        assert!(named.contains(&code));
    }
}

// ---- strings ---------------------------------------------------------------

#[test]
fn strings_are_compared_as_the_kernel_does() {
    run(|irql| {
        let name = unicode_string!("Straße");
        assert!(name.eq_ignore_case(irql, unicode_string!("STRAßE")));
        assert!(!name.eq_ignore_case(irql, unicode_string!("strasse")));
        assert!(name.starts_with_ignore_case(irql, unicode_string!("STR")));
        assert!(!name.starts_with_ignore_case(irql, unicode_string!("straßen")));
        let (a, b) = (unicode_string!("alpha"), unicode_string!("BETA"));
        assert_eq!(a.compare_ignore_case(irql, b), Ordering::Less);
        assert_eq!(b.compare_ignore_case(irql, a), Ordering::Greater);
        assert_eq!(a.compare_ignore_case(irql, a), Ordering::Equal);
        assert!(a.eq_str("alpha") && !a.eq_str("Alpha") && !a.eq_str("alph"));
    });
}

#[test]
fn an_owned_string_grows_and_is_formatted() {
    run(|_| {
        let mut string = UnicodeString::try_from("a😀").unwrap();
        write!(string, "-{}", 7).unwrap();
        assert_eq!(string.as_str().units(), dmf::utf16!("a😀-7"));
        assert_eq!(format!("{string} {string:?}"), "a😀-7 \"a😀-7\"");
        let copy = UnicodeString::try_from(string.as_str()).unwrap();
        assert_eq!(copy, string);
        string.clear();
        assert!(string.as_str().is_empty());
        assert_ne!(copy, string);
    });
}

#[test]
fn an_owned_string_does_not_grow_beyond_what_the_kernel_counts() {
    run(|_| {
        let mut string = UnicodeString::from_units(&vec![0x61; MAXIMUM_UNITS]).unwrap();
        assert_eq!(string.push_str("b"), Err(NtStatus::OBJECT_NAME_INVALID));
        assert_eq!(string.as_str().units().len(), MAXIMUM_UNITS);
        assert_eq!(string.as_str().to_raw().Length, 65_534);
        let long = "x".repeat(MAXIMUM_UNITS + 1);
        assert_eq!(
            UnicodeString::format(format_args!("{long}")).err(),
            Some(NtStatus::OBJECT_NAME_INVALID)
        );
    });
}

#[test]
fn a_raw_string_that_cannot_be_is_refused() {
    let mut units = [0x61_u16, 0x62];
    let mut raw = dmf::sys::UNICODE_STRING {
        Length: 4,
        MaximumLength: 4,
        Buffer: units.as_mut_ptr(),
    };
    // SAFETY: the buffer is valid for its length.
    let view = unsafe { UnicodeStr::from_raw(&raw) }.unwrap();
    assert!(view.eq_str("ab"));
    raw.Length = 3;
    // SAFETY: as above.
    let odd = unsafe { UnicodeStr::from_raw(&raw) };
    assert_eq!(odd, Err(NtStatus::INVALID_PARAMETER));
    raw.Length = 4;
    raw.Buffer = std::ptr::null_mut();
    // SAFETY: a null buffer is not looked at.
    let null = unsafe { UnicodeStr::from_raw(&raw) };
    assert_eq!(null, Err(NtStatus::INVALID_PARAMETER));
}

// ---- pool ------------------------------------------------------------------

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

// ---- time ------------------------------------------------------------------

#[test]
fn all_clocks_measure_the_same_delay() {
    run(|irql| {
        let second = Duration::from_secs(1);
        let (system, interrupt, counter) =
            (SystemTime::now(), Instant::now(), PerformanceCounter::now());
        let unbiased = Instant::unbiased();
        delay(irql, second);
        let most = second + 2 * tick();
        for measured in [
            SystemTime::now().since(system),
            interrupt.elapsed(),
            counter.elapsed(),
            Instant::unbiased().checked_sub(unbiased).unwrap() + tick(),
        ] {
            assert!((second..=most).contains(&measured), "{measured:?}");
        }
        assert_eq!(tick(), Duration::from_micros(15_625));
        assert_eq!(PerformanceCounter::frequency(), 10_000_000);
    });
}

// ---- printing and tracing --------------------------------------------------

/// What `body` prints, line by line.
fn printed(body: fn()) -> Vec<String> {
    let mut machine = ntsim::Machine::new(Settings::default());
    machine.run_thread("main", body).unwrap();
    let lines = machine.trace().iter().filter_map(|line| match &line.what {
        Traced::Print(text) => Some(text.clone()),
        _ => None,
    });
    lines.collect()
}

#[test]
fn text_longer_than_one_call_takes_is_printed_in_pieces() {
    let lines = printed(|| dmf::println!("{:>600}", "end"));
    assert_eq!(lines.concat(), format!("{:>600}", "end"));
    assert_eq!(lines[0].len(), 511);
}

#[test]
fn dbg_prints_the_expression_and_gives_its_value() {
    let lines = printed(|| {
        let (two, text) = dmf::dbg!(1 + 1, String::from("a"));
        assert_eq!((two, text.as_str()), (2, "a"));
    });
    assert!(lines[0].contains("tests/foundations.rs:"), "{lines:?}");
    assert!(lines[0].ends_with("] 1 + 1 = 2"), "{lines:?}");
    assert!(
        lines[1].ends_with("] String::from(\"a\") = \"a\""),
        "{lines:?}"
    );
}

thread_local! {
    static EVALUATED: Cell<u32> = const { Cell::new(0) };
}

fn evaluated() -> u32 {
    EVALUATED.set(EVALUATED.get() + 1);
    EVALUATED.get()
}

#[test]
fn a_level_that_is_off_does_not_even_evaluate() {
    let lines = printed(|| {
        dmf::error!("{}", evaluated());
        dmf::warn!("{}", evaluated());
        dmf::info!("{}", evaluated());
        dmf::debug!("{}", evaluated());
        dmf::trace!("{}", evaluated());
    });
    // `info` unless DMF_TRACE was set when the crate was built.
    let levels = [
        Level::Error,
        Level::Warn,
        Level::Info,
        Level::Debug,
        Level::Trace,
    ];
    let names = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
    let expected: Vec<_> = (1..)
        .zip(levels.iter().zip(names))
        .filter(|(_, (level, _))| level.is_enabled())
        .map(|(number, (_, name))| format!("{name} foundations: {number}"))
        .collect();
    assert_eq!(lines, expected);
    assert_eq!(EVALUATED.get() as usize, expected.len());
}
