// SPDX-License-Identifier: MIT OR Apache-2.0

//! The registry's functions, called as a linked-in driver calls them.

#[path = "nt/threads.rs"]
mod threads;

use ntsim::Machine;
use threads::*;

#[allow(non_snake_case, reason = "the kernel's names")]
mod nt {
    #[repr(C)]
    pub struct UnicodeString {
        pub length: u16,
        pub maximum_length: u16,
        pub buffer: *const u16,
    }

    #[repr(C)]
    pub struct ObjectAttributes {
        pub length: u32,
        pub root: usize,
        pub name: *const UnicodeString,
        pub attributes: u32,
        pub security: [usize; 2],
    }

    unsafe extern "C-unwind" {
        pub safe fn ZwOpenKey(
            handle: *mut usize,
            access: u32,
            attributes: *const ObjectAttributes,
        ) -> i32;
        pub safe fn ZwCreateKey(
            handle: *mut usize,
            access: u32,
            attributes: *const ObjectAttributes,
            title: u32,
            class: *const UnicodeString,
            options: u32,
            disposition: *mut u32,
        ) -> i32;
        pub safe fn ZwDeleteKey(handle: usize) -> i32;
        pub safe fn ZwFlushKey(handle: usize) -> i32;
        pub safe fn ZwQueryKey(
            handle: usize,
            class: i32,
            buffer: *mut u8,
            length: u32,
            result: *mut u32,
        ) -> i32;
        pub safe fn ZwEnumerateKey(
            handle: usize,
            index: u32,
            class: i32,
            buffer: *mut u8,
            length: u32,
            result: *mut u32,
        ) -> i32;
        pub safe fn ZwSetValueKey(
            handle: usize,
            name: *const UnicodeString,
            title: u32,
            kind: u32,
            data: *const u8,
            size: u32,
        ) -> i32;
        pub safe fn ZwDeleteValueKey(handle: usize, name: *const UnicodeString) -> i32;
        pub safe fn ZwQueryValueKey(
            handle: usize,
            name: *const UnicodeString,
            class: i32,
            buffer: *mut u8,
            length: u32,
            result: *mut u32,
        ) -> i32;
        pub safe fn ZwEnumerateValueKey(
            handle: usize,
            index: u32,
            class: i32,
            buffer: *mut u8,
            length: u32,
            result: *mut u32,
        ) -> i32;
        pub safe fn RtlWriteRegistryValue(
            relative_to: u32,
            path: *const u16,
            name: *const u16,
            kind: u32,
            data: *const u8,
            size: u32,
        ) -> i32;
        pub safe fn RtlDeleteRegistryValue(
            relative_to: u32,
            path: *const u16,
            name: *const u16,
        ) -> i32;
        pub safe fn RtlCheckRegistryKey(relative_to: u32, path: *const u16) -> i32;
        pub safe fn RtlCreateRegistryKey(relative_to: u32, path: *const u16) -> i32;
    }
}
use nt::*;

const SERVICES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services";
const KERNEL_HANDLE: u32 = 0x240;
const REG_DWORD: u32 = 4;
const REG_BINARY: u32 = 3;

const fn status(code: u32) -> i32 {
    code.cast_signed()
}
const BUFFER_OVERFLOW: i32 = status(0x8000_0005);
const NO_MORE_ENTRIES: i32 = status(0x8000_001A);
const INVALID_HANDLE: i32 = status(0xC000_0008);
const INVALID_PARAMETER: i32 = status(0xC000_000D);
const ACCESS_DENIED: i32 = status(0xC000_0022);
const BUFFER_TOO_SMALL: i32 = status(0xC000_0023);
const NOT_FOUND: i32 = status(0xC000_0034);
const PATH_SYNTAX_BAD: i32 = status(0xC000_003B);
const CANNOT_DELETE: i32 = status(0xC000_0121);
const KEY_DELETED: i32 = status(0xC000_017C);
const CHILD_MUST_BE_VOLATILE: i32 = status(0xC000_0181);

fn wide(text: &str) -> *const u16 {
    text.encode_utf16()
        .chain([0])
        .collect::<Vec<_>>()
        .leak()
        .as_ptr()
}

fn string(text: &str) -> *const UnicodeString {
    let units: Vec<u16> = text.encode_utf16().collect();
    let length = u16::try_from(units.len() * 2).unwrap();
    leaked(UnicodeString {
        length,
        maximum_length: length,
        buffer: units.leak().as_ptr(),
    })
}

fn attributes(root: usize, path: &str) -> *const ObjectAttributes {
    leaked(ObjectAttributes {
        length: 48,
        root,
        name: string(path),
        attributes: KERNEL_HANDLE,
        security: [0; 2],
    })
}

fn open(root: usize, path: &str) -> Result<usize, i32> {
    // KEY_READ
    open_for(0x20019, root, path)
}

fn open_for(access: u32, root: usize, path: &str) -> Result<usize, i32> {
    let mut handle = 0;
    match ZwOpenKey(&raw mut handle, access, attributes(root, path)) {
        0 => Ok(handle),
        status => Err(status),
    }
}

fn create(root: usize, path: &str, options: u32) -> Result<(usize, u32), i32> {
    let (mut handle, mut disposition) = (0, 0);
    match ZwCreateKey(
        &raw mut handle,
        0xF003F,
        attributes(root, path),
        0,
        std::ptr::null(),
        options,
        &raw mut disposition,
    ) {
        0 => Ok((handle, disposition)),
        status => Err(status),
    }
}

/// The services' key, which an empty machine does not have.
fn services() -> usize {
    assert_eq!(RtlCreateRegistryKey(1, std::ptr::null()), 0);
    open(0, SERVICES).unwrap()
}

/// A fresh key below the services.
fn key() -> usize {
    let services = services();
    let (key, disposition) = create(services, "Test", 0).unwrap();
    assert_eq!(disposition, 1);
    ZwClose(services);
    key
}

fn set(key: usize, name: &str, kind: u32, data: &[u8]) -> i32 {
    ZwSetValueKey(
        key,
        string(name),
        0,
        kind,
        data.as_ptr(),
        u32::try_from(data.len()).unwrap(),
    )
}

/// What `query` writes to a buffer of `room` bytes, and its result length.
fn into(room: usize, query: impl FnOnce(*mut u8, u32, *mut u32) -> i32) -> (i32, Vec<u8>, u32) {
    let mut buffer = vec![0xEE; room];
    let mut result = 0;
    let status = query(
        buffer.as_mut_ptr(),
        u32::try_from(room).unwrap(),
        &raw mut result,
    );
    (status, buffer, result)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn text_at(bytes: &[u8], at: usize, length: u32) -> String {
    let units: Vec<_> = bytes[at..at + length as usize]
        .chunks(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    String::from_utf16(&units).unwrap()
}

#[test]
fn a_value_comes_back_as_it_was_set() {
    let mut machine = Machine::with_seed(0);
    machine
        .run_thread("main", || {
            let key = key();
            assert_eq!(set(key, "Period", REG_DWORD, &500_u32.to_le_bytes()), 0);
            let (status, bytes, length) = into(64, |buffer, room, result| {
                ZwQueryValueKey(key, string("PERIOD"), 2, buffer, room, result)
            });
            assert_eq!((status, length), (0, 16));
            assert_eq!(
                [u32_at(&bytes, 4), u32_at(&bytes, 8), u32_at(&bytes, 12)],
                [REG_DWORD, 4, 500]
            );
            assert_eq!(ZwFlushKey(key), 0);
            assert_eq!(ZwClose(key), 0);
        })
        .unwrap_or_else(|stop| panic!("{stop}"));
    let registry = machine.registry();
    let key = registry.open(format!(r"{SERVICES}\Test")).unwrap();
    assert_eq!(registry.value(key, "period").unwrap().as_dword(), Some(500));
}

#[test]
fn a_small_buffer_gets_what_fits_and_how_much_there_is() {
    ntsim::run(|| {
        let key = key();
        assert_eq!(set(key, "Blob", REG_BINARY, &[1, 2, 3, 4, 5, 6, 7, 8]), 0);
        let query = |class, room| {
            into(room, |buffer, room, result| {
                ZwQueryValueKey(key, string("Blob"), class, buffer, room, result)
            })
        };
        let (status, bytes, length) = query(2, 11);
        assert_eq!(
            (status, length, bytes),
            (BUFFER_TOO_SMALL, 20, vec![0xEE; 11]),
            "nothing is written"
        );
        let (status, bytes, length) = query(2, 14);
        assert_eq!((status, length), (BUFFER_OVERFLOW, 20));
        assert_eq!((u32_at(&bytes, 8), &bytes[12..]), (8, &[1, 2][..]));
        assert_eq!(query(2, 20).0, 0);
        // Basic: the name; full: the name and then the data.
        let (status, bytes, length) = query(0, 64);
        assert_eq!(
            (status, length, text_at(&bytes, 12, u32_at(&bytes, 8))),
            (0, 20, "Blob".to_owned())
        );
        assert_eq!(query(0, 15).0, BUFFER_OVERFLOW);
        let (status, bytes, length) = query(1, 64);
        assert_eq!(
            (status, length, u32_at(&bytes, 8), u32_at(&bytes, 12)),
            (0, 36, 28, 8)
        );
        assert_eq!(bytes[28..36], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(query(77, 64).0, INVALID_PARAMETER);
        // Without a buffer, to ask for the length.
        let mut length = 0;
        assert_eq!(
            ZwQueryValueKey(
                key,
                string("Blob"),
                2,
                std::ptr::null_mut(),
                0,
                &raw mut length
            ),
            BUFFER_TOO_SMALL
        );
        assert_eq!(length, 20);
    });
}

#[test]
fn values_are_enumerated_until_there_are_no_more() {
    ntsim::run(|| {
        let key = key();
        for name in ["b", "a", ""] {
            assert_eq!(set(key, name, REG_BINARY, &[]), 0);
        }
        let name = |index| {
            let (status, bytes, _) = into(64, |buffer, room, result| {
                ZwEnumerateValueKey(key, index, 0, buffer, room, result)
            });
            (status == 0)
                .then(|| text_at(&bytes, 12, u32_at(&bytes, 8)))
                .ok_or(status)
        };
        assert_eq!(
            [0, 1, 2].map(name),
            [Ok("b".to_owned()), Ok("a".to_owned()), Ok(String::new())]
        );
        assert_eq!(name(3), Err(NO_MORE_ENTRIES));
        assert_eq!(ZwDeleteValueKey(key, string("B")), 0);
        assert_eq!(ZwDeleteValueKey(key, string("B")), NOT_FOUND);
        assert_eq!(name(0), Ok("a".to_owned()));
    });
}

#[test]
fn subkeys_are_enumerated_and_counted() {
    ntsim::run(|| {
        let key = key();
        for name in ["Two", "One"] {
            ZwClose(create(key, name, 0).unwrap().0);
        }
        assert_eq!(set(key, "Value", REG_DWORD, &[0; 4]), 0);
        let (status, bytes, _) = into(64, |buffer, room, result| {
            ZwEnumerateKey(key, 0, 0, buffer, room, result)
        });
        assert_eq!(
            (status, text_at(&bytes, 16, u32_at(&bytes, 12))),
            (0, "One".to_owned())
        );
        assert_eq!(
            into(64, |buffer, room, result| ZwEnumerateKey(
                key, 2, 0, buffer, room, result
            ))
            .0,
            NO_MORE_ENTRIES
        );
        let (status, bytes, length) = into(64, |buffer, room, result| {
            ZwQueryKey(key, 2, buffer, room, result)
        });
        assert_eq!((status, length), (0, 44));
        // Subkeys, longest name; values, longest name, largest data.
        assert_eq!(
            [20, 24, 32, 36, 40].map(|at| u32_at(&bytes, at)),
            [2, 6, 1, 10, 4]
        );
        let (_, bytes, _) = into(256, |buffer, room, result| {
            ZwQueryKey(key, 3, buffer, room, result)
        });
        assert_eq!(
            text_at(&bytes, 4, u32_at(&bytes, 0)),
            r"\Registry\Machine\SYSTEM\ControlSet001\Services\Test"
        );
    });
}

#[test]
fn only_the_last_key_of_a_path_is_created() {
    ntsim::run(|| {
        let key = key();
        assert_eq!(create(key, r"A\B", 0), Err(NOT_FOUND));
        let (a, disposition) = create(key, "A", 0).unwrap();
        assert_eq!(disposition, 1);
        assert_eq!(
            create(key, r"A\B", 0).map(|(_, disposition)| disposition),
            Ok(1)
        );
        assert_eq!(
            create(0, &format!(r"{SERVICES}\Test\a"), 0).map(|(_, disposition)| disposition),
            Ok(2)
        );
        assert_eq!(ZwDeleteKey(a), CANNOT_DELETE, "it has a subkey");
        let (volatile, _) = create(key, "V", 1).unwrap();
        assert_eq!(create(volatile, "P", 0), Err(CHILD_MUST_BE_VOLATILE));
    });
}

#[test]
fn a_deleted_key_is_deleted_for_its_handles() {
    ntsim::run(|| {
        let key = key();
        assert_eq!(ZwDeleteKey(key), 0);
        assert_eq!(set(key, "x", REG_DWORD, &[0; 4]), KEY_DELETED);
        assert_eq!(
            into(64, |buffer, room, result| ZwQueryKey(
                key, 0, buffer, room, result
            ))
            .0,
            KEY_DELETED
        );
        assert_eq!(open(0, &format!(r"{SERVICES}\Test")), Err(NOT_FOUND));
        assert_eq!(ZwClose(key), 0);
    });
}

#[test]
fn bad_names_and_handles_have_their_statuses() {
    ntsim::run(|| {
        assert_eq!(open(0, "Services"), Err(PATH_SYNTAX_BAD));
        assert_eq!(open(0, r"HKLM\SYSTEM"), Err(PATH_SYNTAX_BAD));
        let services = services();
        assert_eq!(open(services, SERVICES), Err(PATH_SYNTAX_BAD));
        assert_eq!(open(services, "None"), Err(NOT_FOUND));
        assert!(open(services, "").is_ok(), "the same key again");
        assert_eq!(open(0x1234, "x"), Err(INVALID_HANDLE));
        assert_eq!(ZwDeleteKey(0x1234), INVALID_HANDLE);
        let mut handle = 0;
        let short = leaked(ObjectAttributes {
            length: 40,
            root: 0,
            name: string(SERVICES),
            attributes: 0,
            security: [0; 2],
        });
        assert_eq!(ZwOpenKey(&raw mut handle, 0, short), INVALID_PARAMETER);
    });
}

#[test]
fn the_registry_is_for_passive_level_only() {
    let stop = stop(|| {
        KfRaiseIrql(1);
        let _ = open(0, SERVICES);
    });
    expect_bug_check(&stop, 0xC4, 0x2_001F);
}

#[test]
fn values_are_written_by_path() {
    const RELATIVE_TO_SERVICES: u32 = 1;
    ntsim::run(|| {
        assert_eq!(
            RtlCheckRegistryKey(RELATIVE_TO_SERVICES, wide("ByPath")),
            NOT_FOUND
        );
        assert_eq!(
            RtlWriteRegistryValue(
                RELATIVE_TO_SERVICES,
                wide("ByPath"),
                wide("v"),
                REG_DWORD,
                [9, 0, 0, 0].as_ptr(),
                4
            ),
            0
        );
        assert_eq!(RtlCheckRegistryKey(RELATIVE_TO_SERVICES, wide("ByPath")), 0);
        let key = open(0, &format!(r"{SERVICES}\ByPath")).unwrap();
        assert_eq!(
            into(16, |buffer, room, result| ZwQueryValueKey(
                key,
                string("v"),
                2,
                buffer,
                room,
                result
            ))
            .1[12],
            9
        );
        assert_eq!(
            RtlDeleteRegistryValue(RELATIVE_TO_SERVICES, wide("ByPath"), wide("v")),
            0
        );
        assert_eq!(
            RtlDeleteRegistryValue(RELATIVE_TO_SERVICES, wide("ByPath"), wide("v")),
            NOT_FOUND
        );
        assert_eq!(
            RtlCreateRegistryKey(RELATIVE_TO_SERVICES, wide(r"ByPath\A\B")),
            0
        );
        assert!(open(key, r"A\B").is_ok());
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-zwenumeratekey>
/// and the pages of the others: which right the handle must have been opened with.
#[test]
fn a_handle_does_what_it_was_opened_for_and_nothing_else() {
    ntsim::run(|| {
        let made = key();
        assert_eq!(set(made, "Value", REG_BINARY, &[]), 0);
        ZwClose(create(made, "Below", 0).unwrap().0);
        // (the right, what it is for)
        let rights = [(0x1, "query"), (0x2, "set"), (0x8, "enumerate"), (0, "no")];
        for (access, what) in rights {
            let key = open_for(access, 0, &format!(r"{SERVICES}\Test")).unwrap();
            let query = |ask: &dyn Fn(*mut u8, u32, *mut u32) -> i32| into(64, ask).0;
            let expect = |needs| if what == needs { 0 } else { ACCESS_DENIED };
            let name = string("Value");
            assert_eq!(
                query(&|to, room, result| ZwQueryKey(key, 0, to, room, result)),
                expect("query"),
                "{what}"
            );
            assert_eq!(
                query(&|to, room, result| ZwQueryValueKey(key, name, 0, to, room, result)),
                expect("query"),
                "{what}"
            );
            assert_eq!(
                query(&|to, room, result| ZwEnumerateValueKey(key, 0, 0, to, room, result)),
                expect("query"),
                "{what}"
            );
            assert_eq!(
                query(&|to, room, result| ZwEnumerateKey(key, 0, 0, to, room, result)),
                expect("enumerate"),
                "{what}"
            );
            assert_eq!(set(key, "Value", REG_BINARY, &[1]), expect("set"), "{what}");
            assert_eq!(
                ZwDeleteValueKey(key, string("Other")),
                match what {
                    "set" => NOT_FOUND,
                    _ => ACCESS_DENIED,
                }
            );
            assert_eq!(ZwDeleteKey(key), ACCESS_DENIED, "{what}");
            ZwClose(key);
        }
        ZwClose(made);
    });
}
