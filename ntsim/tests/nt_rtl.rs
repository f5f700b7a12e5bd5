// SPDX-License-Identifier: MIT OR Apache-2.0

//! The run-time library and other small functions, called as a linked-in driver calls them.

#[path = "nt/threads.rs"]
mod threads;

use ntsim::{Machine, Settings};
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    /// `UNICODE_STRING`, and `ANSI_STRING` with bytes.
    #[repr(C)]
    pub struct Counted<T> {
        pub length: u16,
        pub maximum_length: u16,
        pub buffer: *mut T,
    }

    #[allow(improper_ctypes, reason = "the strings are repr(C)")]
    unsafe extern "C-unwind" {
        pub safe fn RtlAppendUnicodeToString(to: *mut Counted<u16>, from: *const u16) -> i32;
        pub safe fn RtlInitAnsiString(to: *mut Counted<u8>, from: *const u8);
        pub safe fn RtlAnsiStringToUnicodeString(
            to: *mut Counted<u16>,
            from: *const Counted<u8>,
            allocate: u8,
        ) -> i32;
        pub safe fn RtlUnicodeStringToAnsiString(
            to: *mut Counted<u8>,
            from: *const Counted<u16>,
            allocate: u8,
        ) -> i32;
        pub safe fn RtlFreeUnicodeString(string: *mut Counted<u16>);
        pub safe fn RtlIntegerToUnicodeString(value: u32, base: u32, to: *mut Counted<u16>) -> i32;
        pub safe fn RtlPrefixUnicodeString(
            a: *const Counted<u16>,
            b: *const Counted<u16>,
            insensitive: u8,
        ) -> u8;
        pub safe fn RtlCompareMemory(a: *const u8, b: *const u8, length: usize) -> usize;
        pub safe fn RtlGetVersion(info: *mut [u32; 71]) -> i32;
        pub safe fn RtlRandomEx(seed: *mut u32) -> u32;
        pub safe fn ExUuidCreate(uuid: *mut [u8; 16]) -> i32;
        pub safe fn DbgBreakPoint();
        pub safe fn KeGetCurrentProcessorNumberEx(number: *mut u32) -> u32;
        pub safe fn KeQueryActiveProcessorCountEx(group: u16) -> u32;
        pub safe fn DbgPrint(format: *const u8, a: usize) -> i32;
    }
}
use nt::*;

const BUFFER_OVERFLOW: i32 = 0x8000_0005_u32.cast_signed();
const BUFFER_TOO_SMALL: i32 = 0xC000_0023_u32.cast_signed();

/// An empty string with room for `units`.
fn room(units: usize) -> Counted<u16> {
    let maximum_length = u16::try_from(units * 2).unwrap();
    Counted {
        length: 0,
        maximum_length,
        buffer: vec![0; units].leak().as_mut_ptr(),
    }
}

fn text(string: &Counted<u16>) -> String {
    // SAFETY: the kernel says that as much is there.
    let units =
        unsafe { std::slice::from_raw_parts(string.buffer, usize::from(string.length) / 2) };
    String::from_utf16(units).unwrap()
}

fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

#[test]
fn a_string_grows_only_as_far_as_its_buffer() {
    ntsim::run(|| {
        let mut string = room(5);
        assert_eq!(
            RtlAppendUnicodeToString(&raw mut string, wide("abc").as_ptr()),
            0
        );
        assert_eq!(
            RtlAppendUnicodeToString(&raw mut string, wide("def").as_ptr()),
            BUFFER_TOO_SMALL
        );
        assert_eq!(text(&string), "abc");
        assert_eq!(
            RtlAppendUnicodeToString(&raw mut string, wide("de").as_ptr()),
            0
        );
        assert_eq!(text(&string), "abcde");
        let prefix = Counted {
            length: 4,
            maximum_length: 4,
            buffer: wide("AB").leak().as_mut_ptr(),
        };
        assert_eq!(
            RtlPrefixUnicodeString(&raw const prefix, &raw const string, 1),
            1
        );
        assert_eq!(
            RtlPrefixUnicodeString(&raw const prefix, &raw const string, 0),
            0
        );
    });
}

#[test]
fn ansi_becomes_unicode_and_back() {
    ntsim::run(|| {
        let mut ansi = Counted {
            length: 0,
            maximum_length: 0,
            buffer: std::ptr::null_mut(),
        };
        RtlInitAnsiString(&raw mut ansi, c"Gr\xFC\x80".as_ptr().cast());
        assert_eq!((ansi.length, ansi.maximum_length), (4, 5));
        let mut unicode = Counted {
            length: 0,
            maximum_length: 0,
            buffer: std::ptr::null_mut(),
        };
        assert_eq!(
            RtlAnsiStringToUnicodeString(&raw mut unicode, &raw const ansi, 1),
            0
        );
        assert_eq!(text(&unicode), "Grü€");
        let mut back = [0xEE_u8; 5];
        let mut narrow = Counted {
            length: 0,
            maximum_length: 5,
            buffer: back.as_mut_ptr(),
        };
        assert_eq!(
            RtlUnicodeStringToAnsiString(&raw mut narrow, &raw const unicode, 0),
            0
        );
        assert_eq!(&back, b"Gr\xFC\x80\0");
        narrow.maximum_length = 3;
        assert_eq!(
            RtlUnicodeStringToAnsiString(&raw mut narrow, &raw const unicode, 0),
            BUFFER_OVERFLOW
        );
        assert_eq!((narrow.length, &back[..3]), (2, &b"Gr\0"[..]));
        RtlFreeUnicodeString(&raw mut unicode);
        assert!(unicode.buffer.is_null());
        let mut small = room(4);
        assert_eq!(
            RtlAnsiStringToUnicodeString(&raw mut small, &raw const ansi, 0),
            BUFFER_OVERFLOW
        );
    });
}

#[test]
fn an_integer_is_written_in_its_base() {
    ntsim::run(|| {
        let mut string = room(8);
        assert_eq!(RtlIntegerToUnicodeString(0x1F, 16, &raw mut string), 0);
        assert_eq!(text(&string), "1F");
        let mut string = room(2);
        assert_eq!(
            RtlIntegerToUnicodeString(1234, 10, &raw mut string),
            BUFFER_OVERFLOW
        );
    });
}

#[test]
fn memory_is_compared_up_to_the_first_difference() {
    ntsim::run(|| assert_eq!(RtlCompareMemory(b"abcd".as_ptr(), b"abXd".as_ptr(), 4), 2));
}

#[test]
fn the_version_is_windows_11_22h2() {
    ntsim::run(|| {
        let mut info = [0_u32; 71];
        info[0] = 276;
        assert_eq!(RtlGetVersion(&raw mut info), 0);
        assert_eq!(info[..5], [276, 10, 0, 22621, 2]);
    });
}

#[test]
fn uuids_follow_from_the_seed_and_differ() {
    let uuids = |seed| {
        Machine::with_seed(seed)
            .run_thread("main", || {
                [(); 2].map(|()| {
                    let mut uuid = [0; 16];
                    assert_eq!(ExUuidCreate(&raw mut uuid), 0);
                    assert_eq!((uuid[7] >> 4, uuid[8] >> 6), (4, 2), "a random UUID");
                    uuid
                })
            })
            .unwrap_or_else(|stop| panic!("{stop}"))
    };
    let [first, second] = uuids(1);
    assert_ne!(first, second);
    assert_eq!(uuids(1), [first, second]);
    assert_ne!(uuids(2)[0], first);
}

#[test]
fn random_numbers_move_their_seed() {
    ntsim::run(|| {
        let mut seed = 42;
        let first = RtlRandomEx(&raw mut seed);
        assert_ne!(seed, 42);
        assert_ne!(RtlRandomEx(&raw mut seed), first);
    });
}

#[test]
fn a_break_point_without_a_debugger_is_a_bug_check() {
    expect_bug_check(&stop(|| DbgBreakPoint()), 0x7E, 0x8000_0003);
}

#[test]
fn contexts_at_dispatch_level_have_processors_of_their_own() {
    for seed in 0..50 {
        let settings = Settings {
            seed,
            processors: 2,
            ..Settings::default()
        };
        Machine::new(settings)
            .run_thread("main", || {
                assert_eq!(KeQueryActiveProcessorCountEx(0xFFFF), 2);
                assert_eq!(KeQueryActiveProcessorCountEx(1), 0);
                let held = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
                let threads: Vec<_> = (0..3)
                    .map(|_| {
                        let held = held.clone();
                        start(move || {
                            let old = KfRaiseIrql(2);
                            let number = KeGetCurrentProcessorNumberEx(std::ptr::null_mut());
                            assert!(number < 2 && !held.borrow().contains(&number));
                            held.borrow_mut().push(number);
                            KeGetCurrentIrql();
                            assert_eq!(KeGetCurrentProcessorNumberEx(std::ptr::null_mut()), number);
                            held.borrow_mut().retain(|other| *other != number);
                            KeLowerIrql(old);
                        })
                    })
                    .collect();
                threads.into_iter().for_each(join);
            })
            .unwrap_or_else(|stop| panic!("seed {seed}: {stop}"));
    }
}

#[test]
fn printed_utf_8_is_not_garbled() {
    let mut machine = Machine::with_seed(0);
    machine
        .run_thread("main", || {
            DbgPrint(c"Wärme: %s °C\n".as_ptr().cast(), c"−5".as_ptr() as usize);
        })
        .unwrap_or_else(|stop| panic!("{stop}"));
    assert!(
        machine
            .trace()
            .iter()
            .any(|line| line.to_string().contains("Wärme: −5 °C"))
    );
}
