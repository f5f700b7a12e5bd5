// SPDX-License-Identifier: MIT OR Apache-2.0

//! Statuses, time, printing and tracing on a simulated machine.

#[path = "kernel/machine.rs"]
mod kernel;

use std::cell::Cell;

use dmf::prelude::*;
use dmf::sync::delay;
use dmf::time::{PerformanceCounter, SystemTime, Tenths, tick};
use dmf::trace::Level;
use kernel::run;
use ntsim::Settings;
use ntsim::trace::Event as Traced;
use proptest::prelude::*;

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

/// The spans of time that anything here can be given, the extremes among them.
fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
        (0..10_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n)),
        Just(Duration::ZERO),
        Just(Duration::MAX),
    ]
}

proptest! {
    #[test]
    fn a_relative_timeout_is_never_too_short_and_less_than_a_unit_too_long(span in durations()) {
        let due = Timeout::After(span).to_due_time().unwrap();
        prop_assert!(due <= 0);
        let waited = u128::from(due.unsigned_abs()) * 100;
        let asked = span.as_nanos();
        if due == -i64::MAX {
            prop_assert!(asked + 100 > waited);
        } else {
            prop_assert!((asked..asked + 100).contains(&waited));
        }
    }

    #[test]
    fn an_absolute_timeout_is_never_taken_for_a_relative_one(units: i64, span in durations()) {
        let time = SystemTime::from_units(units);
        prop_assert_eq!(Timeout::At(time).to_due_time(), Some(units.max(0)));
        let later = time.after(span);
        prop_assert!(later >= time);
        prop_assert!(later.since(time) >= span || later.units() == i64::MAX);
        prop_assert_eq!(time.since(later), Duration::ZERO);
    }

    #[test]
    fn unix_time_comes_back_to_the_unit(seconds in 0..100_000_000_000_u64, units in 0..10_000_000_u32) {
        let since = Duration::new(seconds, units * 100);
        prop_assert_eq!(SystemTime::from_unix(since).to_unix(), since);
    }

    #[test]
    fn tenths_are_shown_for_any_span(span in durations()) {
        let shown = Tenths(span).to_string();
        prop_assert!(shown.ends_with(" s"), "{}", shown);
    }
}

#[test]
fn clocks_are_read_at_any_level() {
    run(|_| {
        SpinLock::new(()).with(|()| {
            let before = Instant::now();
            assert!(SystemTime::now().units() > 0);
            assert!(PerformanceCounter::now().ticks() >= 0);
            assert!(Instant::unbiased() <= Duration::from_nanos(before.units() * 100) + tick());
            assert!(before.elapsed() < tick());
        });
    });
}

#[test]
fn a_thread_knows_itself_from_others() {
    use dmf::thread::ThreadId;
    run(|irql| {
        let main = ThreadId::current();
        assert_eq!(main, ThreadId::current());
        Thread::spawn(irql, move |_| assert_ne!(ThreadId::current(), main))
            .unwrap()
            .join(irql);
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
fn text_is_not_taken_for_a_format_and_ends_at_a_nul() {
    let lines = printed(|| {
        dmf::println!("%s %d {}", "100 %");
        dmf::println!("before\0after");
        dmf::print!("");
        SpinLock::new(()).with(|()| dmf::println!("under a lock"));
    });
    assert_eq!(lines, ["%s %d 100 %", "before", "under a lock"]);
}

#[test]
fn what_a_display_wrote_before_it_failed_is_printed() {
    struct Broken;
    impl std::fmt::Display for Broken {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half")?;
            Err(std::fmt::Error)
        }
    }
    assert_eq!(printed(|| dmf::println!("a {}, b", Broken)), ["a half"]);
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
