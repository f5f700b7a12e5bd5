// SPDX-License-Identifier: MIT OR Apache-2.0

//! UTF-16 strings on a simulated machine.

#[path = "kernel/machine.rs"]
mod kernel;

use std::cmp::Ordering;
use std::fmt::Write as _;

use dmf::NtStatus;
use dmf::string::{MAXIMUM_UNITS, UnicodeStr, UnicodeString};
use dmf::unicode_string;
use kernel::run;
use proptest::prelude::*;

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

#[test]
fn a_string_whose_formatting_fails_is_an_error() {
    struct Broken;
    impl std::fmt::Display for Broken {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }
    run(|_| {
        let failed = UnicodeString::format(format_args!("{Broken}"));
        assert_eq!(failed, Err(NtStatus::UNSUCCESSFUL));
    });
}

#[test]
fn a_string_that_cannot_grow_stays_as_it_was() {
    let mut machine = kernel::machine(1);
    machine.fail_nth(Some(2));
    let body = || {
        let mut string = UnicodeString::try_from("ab").unwrap();
        let refused = Err(NtStatus::INSUFFICIENT_RESOURCES);
        assert_eq!(string.push_str(&"c".repeat(100)), refused);
        assert!(string.as_str().eq_str("ab"));
        assert_eq!(string.push_str("d"), Ok(()));
        assert!(write!(string, "{}", 1).is_ok());
        assert!(string.as_str().eq_str("abd1"));
    };
    machine.run_thread("main", body).unwrap();
}

// ---- any string ----------------------------------------------------------

/// Any units, lone surrogates and NULs among them.
fn units() -> impl Strategy<Value = Vec<u16>> {
    let unit = prop_oneof![
        4 => any::<u16>(),
        2 => 0x61..0x64_u16,
        1 => 0xD800..0xE000_u16,
        1 => Just(0),
    ];
    prop::collection::vec(unit, 0..60)
}

/// Letters of which some are the same but for their case.
fn letters() -> impl Strategy<Value = Vec<u16>> {
    let unit = prop::sample::select(&[0x61_u16, 0x41, 0x62, 0xE9, 0xC9, 0xD800][..]);
    prop::collection::vec(unit, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn text_is_kept_whatever_pieces_it_comes_in(pieces in prop::collection::vec(any::<String>(), 0..6)) {
        run(move |_| {
            let mut string = UnicodeString::new();
            for piece in &pieces {
                string.push_str(piece).unwrap();
            }
            let whole = pieces.concat();
            assert!(string.as_str().eq_str(&whole));
            assert!(string.as_str().units().iter().copied().eq(whole.encode_utf16()));
            assert_eq!(string.to_string(), whole);
            assert_eq!(UnicodeString::format(format_args!("{whole}")), Ok(string));
        });
    }

    #[test]
    fn any_units_are_kept_and_shown_as_the_standard_library_does(units in units()) {
        run(move |_| {
            let text = UnicodeStr::new(&units).unwrap();
            assert_eq!(text.to_string(), String::from_utf16_lossy(&units));
            let owned = UnicodeString::from_units(&units).unwrap();
            assert_eq!(owned.as_str(), text);
            assert_eq!(owned.as_str().units(), units);
            let raw = text.to_raw();
            // SAFETY: `units` outlives the view.
            let back = unsafe { UnicodeStr::from_raw(&raw) };
            assert_eq!(back, Ok(text));
        });
    }

    #[test]
    fn a_string_is_never_longer_than_the_kernel_counts(pieces in prop::collection::vec(0..20_000_usize, 1..6)) {
        run(move |_| {
            let mut string = UnicodeString::new();
            let mut length = 0;
            for more in pieces {
                let pushed = string.push_units(&vec![0x61; more]);
                if length + more <= MAXIMUM_UNITS {
                    assert_eq!(pushed, Ok(()));
                    length += more;
                } else {
                    assert_eq!(pushed, Err(NtStatus::OBJECT_NAME_INVALID));
                }
                assert_eq!(string.as_str().units().len(), length);
                assert_eq!(usize::from(string.as_str().to_raw().Length), length * 2);
            }
        });
    }

    #[test]
    fn the_ways_to_compare_agree(a in letters(), b in letters()) {
        run(move |irql| {
            let (a, b) = (UnicodeStr::new(&a).unwrap(), UnicodeStr::new(&b).unwrap());
            let order = a.compare_ignore_case(irql, b);
            assert_eq!(b.compare_ignore_case(irql, a), order.reverse());
            assert_eq!(a.eq_ignore_case(irql, b), order == Ordering::Equal);
            if a == b {
                assert_eq!(order, Ordering::Equal);
            }
            let start = a.units().get(..b.units().len()).map(UnicodeStr::new);
            let starts = start.is_some_and(|start| start.unwrap().eq_ignore_case(irql, b));
            assert_eq!(a.starts_with_ignore_case(irql, b), starts);
        });
    }
}
