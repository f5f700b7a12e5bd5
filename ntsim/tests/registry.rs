// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registry tree and its text format.

use ntsim::registry::{
    Disposition, MAX_DEPTH, MAX_KEY_NAME, MAX_VALUE_NAME, REG_NONE, REG_SZ, RegFileError,
    RegString, Registry, RegistryError, Value, Volatility,
};
use proptest::prelude::*;

const SERVICES: &str = r"\Registry\Machine\SYSTEM\CurrentControlSet\Services";

/// What regedit exports, in UTF-8 for readability; the byte order mark and CRLF are added by `utf16`.
const EXPORT: &str = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Sensor]
@="the default"
"Start"=dword:00000003
"ImagePath"=hex(2):5c,00,53,00,79,00,73,00,74,00,65,00,6d,00,52,00,6f,00,6f,00,\
  74,00,5c,00,78,00,2e,00,73,00,79,00,73,00,00,00
"Owners"=hex(7):6f,00,65,00,6d,00,30,00,2e,00,69,00,6e,00,66,00,00,00,00,00
"Big"=hex(b):08,07,06,05,04,03,02,01
"Odd \"name\" in C:\\dir"="a \"quoted\" C:\\path"
"Raw"=hex:de,ad,be,ef
"Empty"=hex:
"Resource"=hex(8):01,02
"Vendor"=hex(cafe0001):ff

; a comment
[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Sensor\Parameters]

"#;

fn utf16(text: &str) -> Vec<u8> {
    let text = text.replace('\n', "\r\n");
    [0xFF, 0xFE]
        .into_iter()
        .chain(text.encode_utf16().flat_map(u16::to_le_bytes))
        .collect()
}

fn syntax(text: &str) -> String {
    match Registry::from_reg("machine/registry.reg", text.as_bytes()) {
        Err(error @ RegFileError::Syntax { .. }) => error.to_string(),
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn names_ignore_case_and_keep_it() {
    let mut registry = Registry::new();
    let key = registry
        .create(format!(r"{SERVICES}\SenSor"), Volatility::Persistent)
        .unwrap();
    assert_eq!(
        registry
            .open(r"hklm\system\controlset001\SERVICES\sensor")
            .unwrap(),
        key
    );
    assert_eq!(registry.name(key).unwrap().to_string(), "SenSor");
    assert_eq!(
        registry.nt_path(key).unwrap().to_string(),
        r"\Registry\Machine\SYSTEM\ControlSet001\Services\SenSor"
    );
    registry.set_value(key, "Größe", Value::dword(1)).unwrap();
    registry.set_value(key, "GRÖßE", Value::dword(2)).unwrap();
    assert_eq!(registry.value_count(key).unwrap(), 1);
    assert_eq!(
        registry.value_at(key, 0).unwrap(),
        Some((&RegString::from("Größe"), &Value::dword(2)))
    );
}

#[test]
fn an_unpaired_surrogate_is_an_ordinary_unit_and_survives_the_file() {
    let mut registry = Registry::new();
    let services = registry.create(SERVICES, Volatility::Persistent).unwrap();
    let name = RegString::from(vec![0xD800, u16::from(b'x')]);
    let (key, _) = registry
        .create_at(services, &name, Volatility::Persistent)
        .unwrap();
    registry
        .set_value(key, &name, Value::new(REG_SZ, vec![0x00, 0xDC, 0, 0]))
        .unwrap();
    let again = Registry::from_reg("r", &registry.to_reg()).unwrap();
    assert_eq!(again, registry);
    let again_key = again.open_at(again.open(SERVICES).unwrap(), &name).unwrap();
    assert_eq!(again.name(again_key).unwrap(), &name);
    assert_eq!(name.to_string(), r"\u{d800}x");
    assert_eq!(name.to_utf8(), None);
}

#[test]
fn subkeys_enumerate_by_name_and_values_in_the_order_they_were_set() {
    let mut registry = Registry::new();
    let services = registry.create(SERVICES, Volatility::Persistent).unwrap();
    for name in ["b", "C", "a"] {
        registry
            .create_at(services, name, Volatility::Persistent)
            .unwrap();
        registry.set_value(services, name, Value::dword(0)).unwrap();
    }
    registry.set_value(services, "B", Value::dword(1)).unwrap();
    let keys: Vec<String> = registry
        .subkeys(services)
        .unwrap()
        .map(|key| registry.name(key).unwrap().to_string())
        .collect();
    assert_eq!(keys, ["a", "b", "C"]);
    let values: Vec<String> = registry
        .values(services)
        .unwrap()
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(values, ["b", "C", "a"]);
    assert_eq!(registry.subkey_at(services, 3).unwrap(), None);
}

#[test]
fn a_deleted_key_is_gone_for_every_holder_of_its_id() {
    let mut registry = Registry::new();
    let key = registry
        .create(format!(r"{SERVICES}\Sensor"), Volatility::Persistent)
        .unwrap();
    let (child, made) = registry
        .create_at(key, "Parameters", Volatility::Persistent)
        .unwrap();
    assert_eq!(made, Disposition::Created);
    assert!(matches!(
        registry.delete(key),
        Err(RegistryError::CannotDelete(_))
    ));
    registry.delete(child).unwrap();
    registry.delete(key).unwrap();
    assert_eq!(
        registry.set_value(key, "x", Value::dword(0)),
        Err(RegistryError::Deleted)
    );
    let new = registry
        .create(format!(r"{SERVICES}\Sensor"), Volatility::Persistent)
        .unwrap();
    assert_ne!(new, key);
    assert!(!registry.is_alive(key));
    let hive = registry.open(r"\Registry\Machine").unwrap();
    assert!(matches!(
        registry.delete_tree(hive),
        Err(RegistryError::CannotDelete(_))
    ));
}

#[test]
fn a_rename_moves_the_key_in_the_order_and_refuses_a_name_in_use() {
    let mut registry = Registry::new();
    let services = registry.create(SERVICES, Volatility::Persistent).unwrap();
    let (a, _) = registry
        .create_at(services, "a", Volatility::Persistent)
        .unwrap();
    let (b, _) = registry
        .create_at(services, "b", Volatility::Persistent)
        .unwrap();
    assert!(matches!(
        registry.rename(a, "B"),
        Err(RegistryError::Exists(_))
    ));
    registry.rename(a, "A").unwrap();
    registry.rename(a, "z").unwrap();
    assert_eq!(
        registry.subkeys(services).unwrap().collect::<Vec<_>>(),
        [b, a]
    );
    assert_eq!(registry.open_at(services, "Z"), Ok(a));
}

#[test]
fn volatile_keys_hold_no_persistent_ones_and_are_not_saved() {
    let mut registry = Registry::new();
    let sensor = registry
        .create(format!(r"{SERVICES}\Sensor"), Volatility::Persistent)
        .unwrap();
    let (key, _) = registry
        .create_at(sensor, "Enum", Volatility::Volatile)
        .unwrap();
    assert!(matches!(
        registry.create_at(key, "x", Volatility::Persistent),
        Err(RegistryError::ChildMustBeVolatile(_))
    ));
    registry.create_at(key, "x", Volatility::Volatile).unwrap();
    let saved = Registry::from_reg("r", &registry.to_reg()).unwrap();
    assert!(saved.open(format!(r"{SERVICES}\Sensor\Enum")).is_err());
    registry.drop_volatile();
    assert!(!registry.is_alive(key));
    assert_eq!(
        registry.open(format!(r"{SERVICES}\Sensor")),
        Ok(sensor),
        "the link to the control set stays"
    );
}

#[test]
fn names_have_the_limits_of_windows() {
    let mut registry = Registry::new();
    let services = registry.create(SERVICES, Volatility::Persistent).unwrap();
    registry
        .create_at(services, "k".repeat(MAX_KEY_NAME), Volatility::Persistent)
        .unwrap();
    assert!(matches!(
        registry.create_at(
            services,
            "k".repeat(MAX_KEY_NAME + 1),
            Volatility::Persistent
        ),
        Err(RegistryError::NameTooLong {
            length: 256,
            limit: 255,
            ..
        })
    ));
    registry
        .set_value(services, "v".repeat(MAX_VALUE_NAME), Value::dword(0))
        .unwrap();
    assert!(matches!(
        registry.set_value(services, "v".repeat(MAX_VALUE_NAME + 1), Value::dword(0)),
        Err(RegistryError::NameTooLong { limit: 16_383, .. })
    ));
    let deep = vec!["d"; MAX_DEPTH].join("\\");
    let before = registry.clone();
    assert!(matches!(
        registry.create_at(services, deep, Volatility::Persistent),
        Err(RegistryError::TooDeep(_))
    ));
    assert_eq!(registry, before, "nothing of the path was created");
    for path in [
        "",
        "Sensor",
        r"\Device\Null",
        r"\Registry\\x",
        "HKEY_CURRENT_USER\\x",
    ] {
        assert!(
            matches!(registry.open(path), Err(RegistryError::BadPath(_))),
            "{path:?}"
        );
    }
    assert!(matches!(
        registry.create(r"\Registry\Elsewhere\x", Volatility::Persistent),
        Err(RegistryError::BadPath(_))
    ));
}

#[test]
fn links_that_go_in_circles_are_an_error() {
    let mut registry = Registry::new();
    registry.create_link(r"HKLM\a", r"HKLM\b").unwrap();
    registry.create_link(r"HKLM\b", r"HKLM\a").unwrap();
    assert!(matches!(
        registry.open(r"HKLM\a\x"),
        Err(RegistryError::LinkLoop(_))
    ));
    assert!(matches!(
        registry.create_link(r"HKLM\a", r"HKLM\c"),
        Err(RegistryError::Exists(_))
    ));
}

#[test]
fn an_export_of_regedit_is_read_and_written_to_the_byte() {
    let bytes = utf16(EXPORT);
    let registry = Registry::from_reg("export.reg", &bytes).unwrap();
    let key = registry.open(format!(r"{SERVICES}\Sensor")).unwrap();
    let value = |name: &str| registry.value(key, name).unwrap();
    assert_eq!(value("").as_sz().unwrap().to_string(), "the default");
    assert_eq!(value("START").as_dword(), Some(3));
    assert_eq!(
        value("ImagePath").as_sz().unwrap().to_string(),
        r"\SystemRoot\x.sys"
    );
    assert_eq!(
        value("Owners").as_multi_sz().unwrap(),
        [RegString::from("oem0.inf")]
    );
    assert_eq!(value("Big").as_qword(), Some(0x0102_0304_0506_0708));
    assert_eq!(
        value(r#"Odd "name" in C:\dir"#)
            .as_sz()
            .unwrap()
            .to_string(),
        r#"a "quoted" C:\path"#
    );
    assert_eq!(value("Vendor"), &Value::new(0xcafe_0001, [0xff]));

    // Written, each of its lines is there again; the keys on the way are added, as regedit has them.
    let written = registry.to_reg();
    let units: Vec<u16> = written[2..]
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .collect();
    let text = String::from_utf16(&units).unwrap();
    for line in EXPORT.lines().filter(|line| !line.starts_with(';')) {
        assert!(text.contains(&format!("{line}\r\n")), "{line:?} in {text}");
    }
    assert_eq!(Registry::from_reg("again.reg", &written).unwrap(), registry);
    let utf8 = Registry::from_reg("utf8.reg", format!("\u{feff}{EXPORT}").as_bytes()).unwrap();
    assert_eq!(utf8, registry);
}

#[test]
fn deletions_in_a_file_delete() {
    let mut registry = Registry::from_reg("export.reg", &utf16(EXPORT)).unwrap();
    let file = "Windows Registry Editor Version 5.00\n\
        [-HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Sensor\\Parameters]\n\
        [-HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Nobody]\n\
        [HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Sensor]\n\
        \"Start\"=- ; gone\n\"Never\"=-\n@=\"two\nlines\"";
    registry.import("delete.reg", file.as_bytes()).unwrap();
    let key = registry.open(format!(r"{SERVICES}\Sensor")).unwrap();
    assert!(matches!(
        registry.value(key, "Start"),
        Err(RegistryError::NotFound(_))
    ));
    assert!(registry.open_at(key, "Parameters").is_err());
    assert_eq!(registry.value(key, "").unwrap(), &Value::sz("two\nlines"));
    assert!(
        String::from_utf8(
            registry
                .to_reg()
                .into_iter()
                .filter(|&byte| byte != 0)
                .collect::<Vec<u8>>()[2..]
                .to_vec()
        )
        .unwrap()
        .contains("@=hex(1):74,00,77,00,6f,00,0a,00")
    );
}

#[test]
fn a_damaged_file_names_its_line_its_value_and_the_way_out() {
    let head = "Windows Registry Editor Version 5.00\n\n";
    let key = "[HKEY_LOCAL_MACHINE\\SOFTWARE\\X]\n";
    for (text, parts) in [
        (
            String::new(),
            vec!["registry.reg:1:1", "not a registry file", "Version 5.00"],
        ),
        ("REGEDIT4\n".into(), vec![":1:1", "ANSI", "version 5.00"]),
        (format!("{head}\"a\"=\"b\"\n"), vec![":3:1", "no key"]),
        (
            format!("{head}[HKEY_LOCAL_MACHINE\\X\n"),
            vec![":3:1", "closing bracket"],
        ),
        (
            format!("{head}[HKEY_NOWHERE\\X]\n"),
            vec![":3:1", "HKEY_NOWHERE\\X", "HKEY_LOCAL_MACHINE"],
        ),
        (
            format!("{head}{key}\"Start\"=dword:3g\n"),
            vec![":4:16", "\"Start\"", "after the end of a value"],
        ),
        (
            format!("{head}{key}\"Start\"=dword:\n"),
            vec![":4:9", "\"Start\"", "dword:"],
        ),
        (
            format!("{head}{key}\"Start\"=dword:123456789\n"),
            vec![":4:9", "32-bit"],
        ),
        (
            format!("{head}{key}\"Data\"=hex:01,02,\n"),
            vec![":4:18", "\"Data\"", "comma"],
        ),
        (
            format!("{head}{key}\"Data\"=hex:01,0x2\n"),
            vec![":4:16", "\"Data\"", "x2"],
        ),
        (
            format!("{head}{key}\"Data\"=hex(z):01\n"),
            vec![":4:8", "value type"],
        ),
        (
            format!("{head}{key}\"Name\"=\"open\n"),
            vec![":4:8", "\"Name\"", "closing quote"],
        ),
        (
            format!("{head}{key}\"Name\"=\"C:\\dir\"\n"),
            vec![":4:11", "escape", "\\\\"],
        ),
        (
            format!("{head}{key}\"Name\"\n"),
            vec![":4:1", "without \"=\""],
        ),
        (format!("{head}{key}what\n"), vec![":4:1", "what"]),
    ] {
        let message = syntax(&text);
        for part in parts {
            assert!(
                message.contains(part),
                "{part:?} in {message:?} for {text:?}"
            );
        }
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let mut cut = utf16(EXPORT);
    cut.pop();
    let message = Registry::from_reg("r.reg", &cut).unwrap_err().to_string();
    assert!(message.contains("cut off"), "{message}");
    let message = Registry::from_reg("r.reg", b"Windows\xff")
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("0xff") && message.contains("1:8"),
        "{message}"
    );
}

#[test]
fn an_import_with_a_mistake_changes_nothing() {
    let mut registry = Registry::from_reg("export.reg", &utf16(EXPORT)).unwrap();
    let before = registry.clone();
    let file =
        "Windows Registry Editor Version 5.00\n[HKLM\\SOFTWARE\\New]\n\"a\"=dword:1\n\"b\"=what\n";
    assert!(registry.import("bad.reg", file.as_bytes()).is_err());
    assert_eq!(registry, before);
}

#[test]
fn a_failed_save_leaves_the_previous_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.reg");
    let registry = Registry::from_reg("export.reg", &utf16(EXPORT)).unwrap();
    registry.save(&file).unwrap();
    let before = std::fs::read(&file).unwrap();
    // A folder where the temporary file would go.
    std::fs::create_dir(folder.path().join("registry.reg.new")).unwrap();
    let message = Registry::new().save(&file).unwrap_err().to_string();
    assert!(
        message.contains("registry.reg") && message.contains("cannot write"),
        "{message}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert_eq!(Registry::load(&file).unwrap(), registry);
}

#[test]
fn damaged_values_have_no_typed_reading() {
    assert_eq!(Value::new(4, [1, 2, 3]).as_dword(), None);
    assert_eq!(Value::dword(1).as_qword(), None);
    assert_eq!(Value::new(REG_SZ, [b'a']).as_sz(), None);
    assert_eq!(Value::new(REG_SZ, [b'a', 0]).as_sz(), Some("a".into()));
    assert_eq!(Value::new(REG_NONE, []).as_sz(), None);
    assert_eq!(
        Value::multi_sz(["a", "b"]).data,
        [b'a', 0, 0, 0, b'b', 0, 0, 0, 0, 0]
    );
}

fn units(max: usize) -> impl Strategy<Value = Vec<u16>> {
    let unit = prop_oneof![
        Just(0u16),
        Just(u16::from(b'"')),
        Just(u16::from(b'\\')),
        Just(u16::from(b'\n')),
        Just(u16::from(b'\r')),
        Just(u16::from(b']')),
        Just(u16::from(b';')),
        Just(u16::from(b' ')),
        0x20u16..0x7f,
        any::<u16>(),
    ];
    prop::collection::vec(unit, 0..max)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        (
            prop_oneof![0u32..13, any::<u32>()],
            prop::collection::vec(any::<u8>(), 0..60)
        )
            .prop_map(|(kind, data)| Value::new(kind, data)),
        units(30).prop_map(|units| Value::sz(RegString::from(units))),
        any::<u32>().prop_map(Value::dword),
    ]
}

proptest! {
    #[test]
    fn what_is_saved_is_read_back_to_the_byte(
        keys in prop::collection::vec((prop::collection::vec(units(6), 1..4),
            prop::collection::vec((units(8), value()), 0..5)), 0..8)
    ) {
        let mut registry = Registry::new();
        let services = registry.create(SERVICES, Volatility::Persistent).unwrap();
        for (path, values) in keys {
            let mut key = services;
            for name in path {
                match registry.create_at(key, RegString::from(name), Volatility::Persistent) {
                    Ok((next, _)) => key = next,
                    Err(RegistryError::BadName(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            for (name, value) in values {
                registry.set_value(key, RegString::from(name), value).unwrap();
            }
        }
        let bytes = registry.to_reg();
        let again = Registry::from_reg("r.reg", &bytes).unwrap();
        prop_assert_eq!(&again, &registry);
        prop_assert_eq!(again.to_reg(), bytes);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Registry::from_reg("r.reg", &bytes);
        let headed = [b"Windows Registry Editor Version 5.00\n[HKLM\\x]\n", bytes.as_slice()].concat();
        let _ = Registry::from_reg("r.reg", &headed);
    }

    #[test]
    fn a_mutated_export_is_read_or_refused_and_what_is_read_can_be_saved(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
        wide in any::<bool>(),
    ) {
        let mut bytes = if wide { utf16(EXPORT) } else { EXPORT.as_bytes().to_vec() };
        for (index, byte, how) in edits {
            let index = index.index(bytes.len());
            match how {
                0 => bytes[index] = byte,
                1 => bytes.insert(index, byte),
                _ => { bytes.truncate(index + 1); }
            }
        }
        if let Ok(registry) = Registry::from_reg("r.reg", &bytes) {
            prop_assert_eq!(Registry::from_reg("again.reg", &registry.to_reg()).unwrap(), registry);
        }
    }
}
