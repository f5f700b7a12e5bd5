// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keys and values of the registry, as a driver reads and writes them.

#[path = "support/probe.rs"]
mod probe;

use std::collections::BTreeMap;

use dmf::prelude::*;
use dmf::registry::{Access, Key, Lifetime, QueryError, ValueType};
use dmf::string::UnicodeStr;
use dmf::unicode_string;
use ntsim::registry::Value;
use probe::Probe;
use proptest::prelude::*;

dmf::driver!(Idle);

/// A driver that does nothing by itself.
struct Idle;

impl Device for Idle {
    fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
        Ok(Idle)
    }
}

/// Runs `body` while the driver is loaded, and removes it: whatever is left
/// behind is found.
fn in_driver<R: 'static>(body: impl FnOnce(&mut Irql<'_, Passive>) -> R + 'static) -> R {
    let mut probe = Probe::started(Idle::DRIVER_ENTRY, 0);
    let value = probe.thread(body);
    probe.remove();
    value
}

#[test]
fn each_type_of_value_is_read_as_it_was_written() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        assert_eq!(key.query_u64(name), Err(QueryError::NotFound));

        key.assign_u32(name, 7).unwrap();
        assert_eq!(key.query_u32(name), Ok(7));
        key.assign_u64(name, 1 << 40).unwrap();
        assert_eq!(key.query_u64(name), Ok(1 << 40));
        key.assign_binary(name, &[1, 2, 3]).unwrap();
        assert_eq!(*key.query_binary(name).unwrap(), [1, 2, 3]);
        key.assign_string(name, unicode_string!("héllo")).unwrap();
        assert_eq!(*key.query_string(name).unwrap(), *dmf::utf16!("héllo"));
        assert_eq!(key.query(name).unwrap().1.len(), 12);
        key.assign_expand_string(name, unicode_string!("%a%"))
            .unwrap();
        assert_eq!(key.query(name).unwrap().0, ValueType::EXPAND_STRING);
        assert_eq!(*key.query_string(name).unwrap(), *dmf::utf16!("%a%"));

        let strings = [unicode_string!("one"), unicode_string!("two")];
        key.assign_strings(name, &strings).unwrap();
        let read = key.query_strings(name).unwrap();
        assert!(read.iter().eq(strings));
        key.assign_strings(name, &[]).unwrap();
        assert_eq!(key.query_strings(name).unwrap().iter().count(), 0);

        key.delete_value(name).unwrap();
        assert_eq!(key.delete_value(name), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    });
}

#[test]
fn a_value_of_another_type_or_size_is_an_error() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        key.assign_string(name, unicode_string!("7")).unwrap();
        assert_eq!(key.query_u64(name), Err(QueryError::WrongType));
        assert_eq!(key.query_binary(name).err(), Some(QueryError::WrongType));
        assert_eq!(key.query_strings(name).err(), Some(QueryError::WrongType));
        key.assign(name, ValueType::U64, &[1, 2, 3]).unwrap();
        assert_eq!(key.query_u64(name), Err(QueryError::WrongType));
        let empty = [unicode_string!("a"), unicode_string!("")];
        assert_eq!(
            key.assign_strings(name, &empty),
            Err(NtStatus::INVALID_PARAMETER)
        );
        key.delete_value(name).unwrap();
    });
}

#[test]
fn a_string_without_its_nul_is_read_whole() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        key.assign(name, ValueType::STRING, b"a\0b\0").unwrap();
        assert_eq!(*key.query_string(name).unwrap(), *dmf::utf16!("ab"));
        key.assign(name, ValueType::STRING, b"").unwrap();
        assert!(key.query_string(name).unwrap().is_empty());
        key.delete_value(name).unwrap();
    });
}

#[test]
fn keys_are_made_opened_and_deleted_below_others() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Ports");
        assert_eq!(
            key.open(name, Access::Read).err(),
            Some(NtStatus::OBJECT_NAME_NOT_FOUND)
        );
        let ports = key.create(name, Access::All, Lifetime::Volatile).unwrap();
        ports.assign_u32(unicode_string!("Count"), 2).unwrap();
        let read = key.open(name, Access::Read).unwrap();
        assert_eq!(read.query_u32(unicode_string!("Count")), Ok(2));
        assert_eq!(
            read.assign_u32(unicode_string!("Count"), 3),
            Err(NtStatus::ACCESS_DENIED)
        );
        drop(read);
        ports.delete().unwrap();
        assert!(key.open(name, Access::Read).is_err());
    });
}

#[test]
fn a_number_of_another_length_is_an_error() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        for length in [0, 1, 3, 5, 8] {
            key.assign(name, ValueType::U32, &vec![1; length]).unwrap();
            assert_eq!(key.query_u32(name), Err(QueryError::WrongType));
        }
        for length in [0, 4, 7, 9] {
            key.assign(name, ValueType::U64, &vec![1; length]).unwrap();
            assert_eq!(key.query_u64(name), Err(QueryError::WrongType));
        }
        key.assign(name, ValueType::U32_BIG_ENDIAN, &[0, 0, 0, 1])
            .unwrap();
        assert_eq!(key.query_u32(name), Err(QueryError::WrongType));
    });
}

#[test]
fn a_list_without_its_end_or_with_an_odd_byte_is_read_as_far_as_it_goes() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        let list = |bytes: &[u8]| {
            key.assign(name, ValueType::STRINGS, bytes).unwrap();
            let read = key.query_strings(name).unwrap();
            let list: Vec<_> = read.iter().map(|text| text.to_string()).collect();
            list
        };
        assert_eq!(list(b"a\0\0\0b\0\0\0\0\0"), ["a", "b"]);
        assert_eq!(list(b"a\0\0\0b\0"), ["a", "b"]);
        assert_eq!(list(b"a\0\0\0b\0\0"), ["a", "b"]);
        assert_eq!(list(b"\0\0b\0"), [""; 0]);
        assert_eq!(list(b"\0"), [""; 0]);
        assert_eq!(list(b""), [""; 0]);
    });
}

/// <https://learn.microsoft.com/windows/win32/sysinfo/registry-element-size-limits>
#[test]
fn names_that_are_too_long_or_malformed_are_errors() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let units = vec![u16::from(b'n'); 16_384];
        let name = |length| UnicodeStr::new(&units[..length]).unwrap();

        key.assign_u32(name(16_383), 1).unwrap();
        assert_eq!(key.query_u32(name(16_383)), Ok(1));
        let listed: Vec<_> = key.values().map(Result::unwrap).collect();
        assert_eq!(listed[0].0.as_str(), name(16_383));
        assert_eq!(
            key.assign_u32(name(16_384), 1),
            Err(NtStatus::OBJECT_NAME_INVALID)
        );
        assert!(key.query_u32(name(16_384)).is_err());

        let make = |name| key.create(name, Access::All, Lifetime::Volatile);
        make(name(255)).unwrap();
        assert_eq!(make(name(256)).err(), Some(NtStatus::INVALID_PARAMETER));
        assert_eq!(
            make(unicode_string!(r"\Ports")).err(),
            Some(NtStatus::OBJECT_PATH_SYNTAX_BAD)
        );
        let nul = [u16::from(b'a'), 0, u16::from(b'b')];
        assert_eq!(
            make(UnicodeStr::new(&nul).unwrap()).err(),
            Some(NtStatus::OBJECT_NAME_INVALID)
        );
    });
}

#[test]
fn a_string_in_a_list_that_is_empty_or_has_a_nul_is_refused() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Value");
        let nul = [u16::from(b'a'), 0];
        for bad in [&nul[..], &[]] {
            let list = [unicode_string!("a"), UnicodeStr::new(bad).unwrap()];
            assert_eq!(
                key.assign_strings(name, &list),
                Err(NtStatus::INVALID_PARAMETER)
            );
        }
        assert_eq!(key.query(name).err(), Some(QueryError::NotFound));
    });
}

#[test]
fn a_key_does_what_it_was_opened_for() {
    in_driver(|irql| {
        let name = unicode_string!("Value");
        let denied = NtStatus::ACCESS_DENIED;

        let write = Key::parameters(irql, Access::Write).unwrap();
        write.assign_u64(name, 1).unwrap();
        assert_eq!(write.query_u64(name), Err(QueryError::Failed(denied)));
        assert_eq!(write.delete(), Err(denied));

        let read = Key::parameters(irql, Access::Read).unwrap();
        assert_eq!(read.query_u64(name), Ok(1));
        assert_eq!(read.assign_u64(name, 2), Err(denied));
        assert_eq!(read.assign_binary(name, &[]), Err(denied));
        assert_eq!(read.delete_value(name), Err(denied));
        let below = read.create(name, Access::Read, Lifetime::Persistent);
        assert_eq!(below.err(), Some(denied));
    });
}

#[test]
fn a_key_with_keys_below_it_stays() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let (outer, inner) = (unicode_string!("Outer"), unicode_string!("Inner"));
        let ports = key.create(outer, Access::All, Lifetime::Volatile).unwrap();
        let persistent = ports.create(inner, Access::All, Lifetime::Persistent);
        assert_eq!(persistent.err(), Some(NtStatus::CHILD_MUST_BE_VOLATILE));
        let port = ports
            .create(inner, Access::All, Lifetime::Volatile)
            .unwrap();
        assert_eq!(ports.delete(), Err(NtStatus::CANNOT_DELETE));
        port.delete().unwrap();
        let ports = key.open(outer, Access::All).unwrap();
        ports.delete().unwrap();
    });
}

#[test]
fn what_is_in_a_key_is_listed() {
    in_driver(|irql| {
        let parameters = Key::parameters(irql, Access::All).unwrap();
        let key = parameters
            .create(unicode_string!("Empty"), Access::All, Lifetime::Volatile)
            .unwrap();
        assert_eq!(key.subkeys().count(), 0);
        assert_eq!(key.values().count(), 0);
        // The third name is longer than the room that the first two took.
        let long = "long".repeat(50);
        for name in ["a", "b", &long] {
            let name: Vec<_> = name.encode_utf16().collect();
            let name = UnicodeStr::new(&name).unwrap();
            drop(key.create(name, Access::Read, Lifetime::Volatile).unwrap());
            key.assign_u64(name, 1).unwrap();
        }
        key.assign_binary(unicode_string!(""), &[1]).unwrap();
        let keys: Vec<_> = key
            .subkeys()
            .map(|name| name.unwrap().to_string())
            .collect();
        assert_eq!(keys, ["a", "b", &long]);
        let values: Vec<_> = key
            .values()
            .map(|value| value.map(|(name, kind)| (name.to_string(), kind)).unwrap())
            .collect();
        let expected = [
            ("a", ValueType::U64),
            ("b", ValueType::U64),
            (&long, ValueType::U64),
            ("", ValueType::BINARY),
        ];
        assert_eq!(values, expected.map(|(name, kind)| (name.to_owned(), kind)));
    });
}

#[test]
fn a_listing_of_a_key_that_was_deleted_ends_in_an_error() {
    in_driver(|irql| {
        let key = Key::parameters(irql, Access::All).unwrap();
        let name = unicode_string!("Ports");
        let ports = key.create(name, Access::All, Lifetime::Volatile).unwrap();
        let mut subkeys = ports.subkeys();
        let again = key.open(name, Access::All).unwrap();
        again.delete().unwrap();
        assert_eq!(subkeys.next(), Some(Err(NtStatus::KEY_DELETED)));
        assert_eq!(subkeys.next(), None);
        let mut values = ports.values();
        assert_eq!(values.next().unwrap().err(), Some(NtStatus::KEY_DELETED));
        assert!(values.next().is_none());
        assert_eq!(ports.assign_u32(name, 1), Err(NtStatus::KEY_DELETED));
    });
}

// ---- where keys are ------------------------------------------------------

dmf::driver!(Keys);

/// A driver that leaves a mark in each of its keys.
struct Keys;

impl Keys {
    fn mark(key: &Key<'_>, mark: u32) -> Result {
        key.assign_u32(unicode_string!("Mark"), mark)
    }
}

impl Device for Keys {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        let irql = add.irql();
        Self::mark(&Key::parameters(irql, Access::Write)?, 1)?;
        Self::mark(&Key::persistent_state(irql, Access::Write)?, 2)?;
        Self::mark(&Key::device(add, Access::Write)?, 3)?;
        Self::mark(&Key::driver(add, Access::Write)?, 4)?;
        Ok(Keys)
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/install/registry-trees-and-keys>
#[test]
fn each_key_lies_where_windows_has_it() {
    let probe = Probe::started(Keys::DRIVER_ENTRY, 0);
    let registry = probe.machine.registry();
    let control_set = r"\Registry\Machine\SYSTEM\CurrentControlSet";
    let value = |path: String, name: &str| {
        let key = registry.open(path.as_str()).expect("the key is there");
        registry.value(key, name).cloned()
    };
    let enumerated = format!(r"{control_set}\Enum\{}", probe.device);
    let software = value(enumerated.clone(), "Driver").unwrap();
    let software = software.as_sz().unwrap();
    for (path, mark) in [
        (format!(r"{control_set}\Services\Probe\Parameters"), 1),
        (format!(r"{enumerated}\Device Parameters"), 3),
        (format!(r"{control_set}\Control\Class\{software}"), 4),
    ] {
        assert_eq!(value(path, "Mark"), Ok(Value::dword(mark)));
    }
}

// ---- everything that can fail --------------------------------------------

/// Reads and writes one of each.
fn use_all(irql: &Irql<'_, Passive>) -> Result {
    let key = Key::parameters(irql, Access::All)?;
    let name = unicode_string!("Value");
    let below = key.create(name, Access::All, Lifetime::Volatile)?;
    below.assign_u32(name, 1)?;
    below.query_u32(name)?;
    below.assign_string(name, name)?;
    below.query_string(name)?;
    below.assign_strings(name, &[name, name])?;
    below.query_strings(name)?;
    below.assign_binary(name, &[1; 100])?;
    below.query_binary(name)?;
    below.values().try_for_each(|value| value.map(drop))?;
    key.subkeys().try_for_each(|value| value.map(drop))?;
    drop(key.open(name, Access::Read)?);
    below.delete()
}

#[test]
fn each_call_that_fails_is_an_error_and_leaves_nothing() {
    let mut points = 0;
    for point in 1.. {
        let mut probe = Probe::started(Idle::DRIVER_ENTRY, 0);
        probe.machine.fail_nth(Some(point));
        let result = probe.thread(|irql| use_all(irql));
        probe.machine.fail_nth(None);
        assert_eq!(probe.thread(|irql| use_all(irql)), Ok(()), "point {point}");
        probe.remove();
        match result {
            Ok(()) => break,
            Err(status) => assert_eq!(status, NtStatus::INSUFFICIENT_RESOURCES, "point {point}"),
        }
        points += 1;
    }
    assert!(points >= 20, "only {points} points failed");
}

// ---- any values ----------------------------------------------------------

#[derive(Clone, Debug)]
enum Op {
    Assign(Vec<u16>, u32, Vec<u8>),
    Delete(Vec<u16>),
}

/// Names of which some are the same but for their case, and some not well-formed.
fn names() -> impl Strategy<Value = Vec<u16>> {
    let unit = prop_oneof![
        4 => prop::sample::select(&b"abAB"[..]).prop_map(u16::from),
        1 => prop::sample::select(&[0xD800_u16, 0xDFFF, 0x5C][..]),
    ];
    prop::collection::vec(unit, 0..4)
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let kind = prop_oneof![0_u32..12, any::<u32>()];
    let assign = (names(), kind, prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(name, kind, bytes)| Op::Assign(name, kind, bytes));
    let delete = names().prop_map(Op::Delete);
    prop::collection::vec(prop_oneof![3 => assign, 1 => delete], 0..20)
}

/// A name as the registry compares it.
fn folded(name: &[u16]) -> Vec<u16> {
    let upper = |unit: u16| match u8::try_from(unit) {
        Ok(byte) => u16::from(byte.to_ascii_uppercase()),
        Err(_) => unit,
    };
    name.iter().copied().map(upper).collect()
}

/// Plays `ops` against a map, and compares after each.
fn play(irql: &Irql<'_, Passive>, ops: Vec<Op>) {
    let key = Key::parameters(irql, Access::All).unwrap();
    let mut model = BTreeMap::new();
    for op in ops {
        match op {
            Op::Assign(name, kind, bytes) => {
                let text = UnicodeStr::new(&name).unwrap();
                key.assign(text, ValueType(kind), &bytes).unwrap();
                model.insert(folded(&name), (ValueType(kind), bytes));
            }
            Op::Delete(name) => {
                let deleted = key.delete_value(UnicodeStr::new(&name).unwrap());
                assert_eq!(deleted.is_ok(), model.remove(&folded(&name)).is_some());
            }
        }
        let listed: BTreeMap<_, _> = key
            .values()
            .map(Result::unwrap)
            .map(|(name, kind)| (folded(name.as_str().units()), kind))
            .collect();
        let kinds = model.iter().map(|(name, (kind, _))| (name.clone(), *kind));
        assert!(listed.into_iter().eq(kinds));
        for (name, (kind, bytes)) in &model {
            let name = UnicodeStr::new(name).unwrap();
            let (found, read) = key.query(name).unwrap();
            assert_eq!((found, &*read), (*kind, bytes.as_slice()));
            check_typed(&key, name, *kind, bytes);
        }
    }
}

/// A typed read gives what is there, or says that it is something else.
fn check_typed(key: &Key<'_>, name: UnicodeStr<'_>, kind: ValueType, bytes: &[u8]) {
    let other = QueryError::WrongType;
    let number = bytes.try_into().ok().filter(|_| kind == ValueType::U32);
    let number = number.map(u32::from_le_bytes).ok_or(other);
    assert_eq!(key.query_u32(name), number);
    let number = bytes.try_into().ok().filter(|_| kind == ValueType::U64);
    let number = number.map(u64::from_le_bytes).ok_or(other);
    assert_eq!(key.query_u64(name), number);
    let binary = key.query_binary(name).map(|read| read.to_vec());
    if kind == ValueType::BINARY {
        assert_eq!(binary, Ok(bytes.to_vec()));
    } else {
        assert_eq!(binary, Err(other));
    }
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let text = key.query_string(name);
    if [ValueType::STRING, ValueType::EXPAND_STRING].contains(&kind) {
        let expected = units.split(|unit| *unit == 0).next().unwrap();
        assert_eq!(*text.unwrap(), *expected);
    } else {
        assert_eq!(text.err(), Some(other));
    }
    let list = key.query_strings(name);
    if kind == ValueType::STRINGS {
        let strings = units.split(|unit| *unit == 0);
        let expected = strings.take_while(|text| !text.is_empty());
        assert!(list.unwrap().iter().map(UnicodeStr::units).eq(expected));
    } else {
        assert_eq!(list.err(), Some(other));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn values_of_any_type_name_and_length_are_kept(ops in ops()) {
        in_driver(move |irql| play(irql, ops));
    }
}
