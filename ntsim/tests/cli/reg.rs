// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim reg`, in the manner of reg.exe:
//! <https://learn.microsoft.com/windows-server/administration/windows-commands/reg>.

use crate::{Folder, done, rejected};

fn machine() -> Folder {
    let folder = Folder::new();
    for words in [
        &["/v", "Depth", "/t", "REG_DWORD", "/d", "0x10"][..],
        &["/v", "Big", "/t", "reg_qword", "/d", "4294967296"],
        &["/v", "Names", "/t", "REG_MULTI_SZ", "/d", r"a\0b"],
        &["/v", "Path", "/t", "REG_EXPAND_SZ", "/d", "%SystemRoot%"],
        &["/v", "Raw", "/t", "REG_BINARY", "/d", "00ffA0"],
        &["/ve", "/d", "-5 /f"],
    ] {
        let key = r"HKLM\SOFTWARE\Sensor";
        done(&folder, &[&["reg", "add", key], words].concat());
    }
    done(
        &folder,
        &["reg", "add", r"HKLM\SOFTWARE\Sensor\Below", "/v", "Depth"],
    );
    folder
}

#[test]
fn what_was_added_is_shown_as_reg_exe_shows_it() {
    let folder = machine();
    let shown = done(&folder, &["REG", "QUERY", r"hklm\Software\sensor"]);
    let expected = r"
HKEY_LOCAL_MACHINE\Software\sensor
    Depth    REG_DWORD    0x10
    Big    REG_QWORD    0x100000000
    Names    REG_MULTI_SZ    a\0b
    Path    REG_EXPAND_SZ    %SystemRoot%
    Raw    REG_BINARY    00FFA0
    (Default)    REG_SZ    -5 /f

HKEY_LOCAL_MACHINE\Software\sensor\Below
";
    assert_eq!(shown, expected);
}

#[test]
fn one_value_is_shown_or_its_name_in_every_key_below() {
    let folder = machine();
    let key = r"HKEY_LOCAL_MACHINE\SOFTWARE\Sensor";
    let one = done(&folder, &["reg", "query", key, "-v", "depth"]);
    assert_eq!(one, format!("\n{key}\n    Depth    REG_DWORD    0x10\n\n"));
    let all = done(&folder, &["reg", "query", key, "/s", "/v", "depth"]);
    assert_eq!(
        all,
        format!("{one}{key}\\Below\n    Depth    REG_SZ    \n\nEnd of search: 2 found.\n")
    );
    let default = done(&folder, &["reg", "query", &format!(r"{key}\Below"), "/ve"]);
    assert!(default.contains("(value not set)"), "{default}");
}

#[test]
fn deleting_takes_a_value_or_all_of_them_or_the_key() {
    let folder = machine();
    let key = r"HKLM\SOFTWARE\Sensor";
    done(&folder, &["reg", "delete", key, "/v", "Depth", "/f"]);
    rejected(
        &folder,
        &["reg", "query", key, "/v", "Depth"],
        &["no value Depth"],
    );
    done(&folder, &["reg", "delete", key, "/va", "/f"]);
    let left = done(&folder, &["reg", "query", key]);
    assert!(!left.contains("REG_") && left.contains("Below"), "{left}");
    done(&folder, &["reg", "delete", key, "/f"]);
    rejected(
        &folder,
        &["reg", "query", key],
        &["no such key", r"HKEY_LOCAL_MACHINE\SOFTWARE has no subkeys"],
    );
}

#[test]
fn an_exported_key_is_imported_as_it_was() {
    let folder = machine();
    let key = r"HKLM\SOFTWARE\Sensor";
    let before = done(&folder, &["reg", "query", key, "/s"]);
    done(&folder, &["reg", "export", key, "out.reg"]);
    rejected(
        &folder,
        &["reg", "export", key, "out.reg"],
        &["out.reg", "/y"],
    );
    done(&folder, &["reg", "export", key, "out.reg", "/y"]);
    done(&folder, &["reg", "delete", key, "/f"]);
    done(&folder, &["reg", "import", "out.reg"]);
    assert_eq!(done(&folder, &["reg", "query", key, "/s"]), before);
}

#[test]
fn the_control_set_is_one_by_either_name() {
    let folder = machine();
    done(
        &folder,
        &[
            "reg",
            "add",
            r"HKLM\SYSTEM\CurrentControlSet\Services\X",
            "/v",
            "A",
        ],
    );
    let shown = done(
        &folder,
        &["reg", "query", r"HKLM\SYSTEM\ControlSet001\Services\X"],
    );
    assert!(shown.contains("    A    REG_SZ"), "{shown}");
    done(
        &folder,
        &[
            "reg",
            "export",
            r"HKLM\SYSTEM\CurrentControlSet\Services",
            "s.reg",
        ],
    );
    let file = std::fs::read(folder.path("s.reg")).unwrap();
    let name: Vec<u8> = r"[HKEY_LOCAL_MACHINE\SYSTEM\CurrentControlSet\Services\X]"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(file.windows(name.len()).any(|part| part == name));
}

#[test]
fn a_bad_value_is_named_and_nothing_changes() {
    let folder = machine();
    folder.file(
        "bad.reg",
        b"Windows Registry Editor Version 5.00\n[HKEY_LOCAL_MACHINE\\A]\n\"x\"=dword:zz\n",
    );
    let add = |words: &[&str], parts: &[&str]| {
        rejected(
            &folder,
            &[&["reg", "add", r"HKLM\SOFTWARE\Sensor"], words].concat(),
            parts,
        );
    };
    add(
        &["/v", "x", "/t", "REG_DWORD", "/d", "4294967296"],
        &["/d", "4294967296", "4294967295"],
    );
    add(&["/v", "x", "/t", "REG_DWORD", "/d", "-1"], &["/d \"-1\""]);
    add(&["/v", "x", "/t", "REG_DWORD", "/d", "+1"], &["/d \"+1\""]);
    add(
        &["/v", "x", "/t", "REG_BINARY", "/d", "abc"],
        &["two hexadecimal digits"],
    );
    add(
        &["/v", "x", "/t", "REG_MULTI_SZ", "/d", r"a\0\0b"],
        &["empty string"],
    );
    add(
        &["/v", "x", "/t", "REG_MULTI_SZ", "/s", "", "/d", "a"],
        &["separator"],
    );
    add(&["/v", "x", "/t", "REG_SIZE"], &["REG_SIZE", "REG_DWORD"]);
    add(&["/v", "Depth", "/d", "1"], &["Depth", "/f"]);
    add(&["/d", "1"], &["/v"]);
    add(&["/v", "x", "/ve"], &["cannot be used with"]);
    rejected(
        &folder,
        &["reg", "add", r"HKLM\SOFTWARE\\x"],
        &[r"HKLM\SOFTWARE\\x"],
    );
    rejected(
        &folder,
        &["reg", "add", r"HKCU\x"],
        &["HKCU", "HKEY_LOCAL_MACHINE"],
    );
    rejected(&folder, &["reg", "delete", r"HKLM\SOFTWARE"], &["/f"]);
    rejected(
        &folder,
        &["reg", "delete", "HKLM", "/f"],
        &["cannot be deleted"],
    );
    rejected(
        &folder,
        &["reg", "import", "bad.reg"],
        &["bad.reg", "3", "zz"],
    );
    rejected(&folder, &["reg", "import", "none.reg"], &["none.reg"]);
    rejected(&folder, &["reg", "query", r"HKLM\SOFTWARE", "/z"], &["--z"]);
}

#[test]
fn looking_makes_no_machine_and_neither_does_a_mistake() {
    let folder = Folder::new();
    rejected(
        &folder,
        &["reg", "query", "HKLM"],
        &["vm", "no such folder"],
    );
    rejected(
        &folder,
        &["reg", "delete", r"HKLM\A", "/f"],
        &["vm", "no such folder"],
    );
    rejected(&folder, &["reg", "add", r"HKCU\A"], &["HKCU"]);
    assert!(!folder.path("vm").exists());
}
