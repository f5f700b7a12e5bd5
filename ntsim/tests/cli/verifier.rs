// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim verifier`, and what its settings do to a driver.
//!
//! - <https://learn.microsoft.com/windows-hardware/drivers/devtest/verifier-command-line>
//! - <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-kmdf-verifier>

use crate::pnputil::{LAMP, PARAMETERS, Trouble, lit, make, status};
use crate::{Folder, done, ended, rejected};

const KEY: &str = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management";

fn verifier(folder: &Folder, words: &[&str]) -> String {
    done(folder, &[&["verifier"], words].concat())
}

/// Boots, and gives what ended it, if anything.
fn found(folder: &Folder, code: i32) -> String {
    let (story, report) = ended(folder, &["pnputil", "/scan-devices", "/verbose"], code);
    story + &report
}

#[test]
fn settings_are_in_the_registry_where_windows_has_them() {
    let folder = lit();
    let shown = verifier(&folder, &["/Standard", "/driver", "lamp.sys", "other.sys"]);
    assert!(shown.contains("Verifier Flags: 0x000209bb"), "{shown}");
    assert!(shown.contains("    lamp.sys\n    other.sys\n"), "{shown}");
    let registry = done(&folder, &["reg", "query", KEY]);
    assert!(
        registry.contains("VerifyDrivers    REG_SZ    lamp.sys other.sys"),
        "{registry}"
    );
    assert!(
        registry.contains("VerifyDriverLevel    REG_DWORD    0x209bb"),
        "{registry}"
    );
    assert_eq!(verifier(&folder, &["/querysettings"]), shown);

    // What reg writes, verifier reads.
    let level = [
        "/v",
        "VerifyDriverLevel",
        "/t",
        "REG_DWORD",
        "/d",
        "0x28",
        "/f",
    ];
    done(&folder, &[&["reg", "add", KEY], &level[..]].concat());
    let shown = verifier(&folder, &["/querysettings"]);
    assert!(
        shown.contains("[X] 0x00000020 ( 6) Deadlock detection"),
        "{shown}"
    );
    assert!(
        shown.contains("[ ] 0x00000010 ( 5) I/O verification"),
        "{shown}"
    );

    let shown = verifier(&folder, &["/rc", "4", "34", "/all"]);
    assert!(
        shown.contains("[X]            (34) WDF verification"),
        "{shown}"
    );
    assert!(
        shown.contains("Verifier Flags: 0x00000008") && shown.contains("    All\n"),
        "{shown}"
    );
    assert!(verifier(&folder, &["-flags", "8"]).contains("0x00000008"));

    let shown = verifier(&folder, &["/reset"]);
    assert!(shown.contains("every rule is checked"), "{shown}");
    assert!(!done(&folder, &["reg", "query", KEY]).contains("Verif"));
    assert_eq!(verifier(&folder, &["/querysettings"]), shown);
}

#[test]
fn a_rule_is_checked_for_the_drivers_and_classes_that_the_settings_name() {
    let folder = lit();
    make(&folder, Trouble::NoBytes);
    let broken = |folder: &Folder| {
        let report = found(folder, 2);
        assert!(report.contains("0xC4"), "{report}");
        done(folder, &["pnputil", "/enum-drivers"]);
    };
    let not_broken = |folder: &Folder| {
        found(folder, 0);
        assert_eq!(status(folder), "Started");
    };
    // Without settings everything is checked, unlike in Windows.
    broken(&folder);
    verifier(&folder, &["/standard", "/driver", "other.sys"]);
    not_broken(&folder);
    let query = verifier(&folder, &["/query"]);
    assert!(
        query.contains("lamp.sys                not verified"),
        "{query}"
    );
    verifier(&folder, &["/standard", "/driver", "LAMP.sys"]);
    broken(&folder);
    verifier(&folder, &["/flags", "0", "/all"]);
    not_broken(&folder);
    let query = verifier(&folder, &["/query"]);
    assert!(
        query.contains("  0 of ") && query.contains("lamp.sys                verified"),
        "{query}"
    );
    verifier(&folder, &["/reset"]);
    broken(&folder);
    // What Windows finds without Driver Verifier cannot be switched off.
    verifier(&folder, &["/flags", "0", "/all"]);
    make(&folder, Trouble::StartFaults);
    assert!(found(&folder, 2).contains("SYSTEM_THREAD_EXCEPTION_NOT_HANDLED"));
}

#[test]
fn low_resources_are_simulated_by_chance_after_a_while() {
    let folder = lit();
    let shown = verifier(
        &folder,
        &["/faults", "0x2710", "", "", "", "/driver", "lamp.sys"],
    );
    assert!(shown.contains("Probability: 10000 of 10000"), "{shown}");
    assert!(shown.contains("Begins: 8 virtual minutes"), "{shown}");
    // The lamp asks for nothing any more when they begin.
    found(&folder, 0);
    verifier(&folder, &["/faults", "10000", "*", "", "0"]);
    let told = found(&folder, 2);
    assert!(told.contains("fallible call 1 (WDFDRIVER) fails"), "{told}");
    assert!(status(&folder).contains("CM_PROB_FAILED_DRIVER_ENTRY] 0xC000009A"));
    // The lamp allocates no pool of this tag, or at all.
    verifier(&folder, &["/faults", "10000", "Ring Sens", "", "0"]);
    found(&folder, 0);
    // One seed, one story.
    verifier(&folder, &["/faults", "5000", "", "", "0"]);
    let stories: Vec<_> = (0..8)
        .map(|seed: u32| {
            let seed = seed.to_string();
            let run = || {
                let words = ["pnputil", "/scan-devices", "/verbose", "/seed", &seed];
                let output = crate::in_machine(&folder, &words);
                String::from_utf8(output.stdout).unwrap()
            };
            let told = run();
            assert_eq!(told, run());
            told
        })
        .collect();
    assert!(stories.iter().any(|told| *told != stories[0]));
}

#[test]
fn each_stack_fails_once_until_all_have() {
    let folder = lit();
    let known = || verifier(&folder, &["/faultssystematic", "querystatistics"]);
    assert_eq!(known(), "Stacks that have failed: 0\n");
    verifier(
        &folder,
        &["/faultssystematic", "EnableBootTime", "/driver", "lamp.sys"],
    );
    let mut boots = 0;
    let (mut before, mut after) = (String::new(), known());
    while before != after {
        before = after;
        // Whether it starts depends on which call fails.
        let _ = crate::in_machine(&folder, &["pnputil", "/scan-devices"]);
        after = known();
        boots += 1;
        assert!(boots < 20, "{after}");
    }
    assert!(boots > 2, "{boots}");
    found(&folder, 0);
    assert_eq!(status(&folder), "Started");
    verifier(&folder, &["/faultssystematic", "resetboottime"]);
    assert_eq!(known(), "Stacks that have failed: 0\n");
    found(&folder, 0);
}

#[test]
fn kmdf_reads_its_own_values_from_the_services_key() {
    let folder = lit();
    let wdf = format!(r"{PARAMETERS}\Wdf");
    let set = |name: &str, value: &str| {
        let words = ["/v", name, "/t", "REG_DWORD", "/d", value, "/f"];
        done(&folder, &[&["reg", "add", &wdf], &words[..]].concat());
    };
    set("VerifierAllocateFailCount", "2");
    let told = found(&folder, 2);
    assert!(
        told.contains("VerifierAllocateFailCount 2: framework object 3 (WDFDEVICE) fails"),
        "{told}"
    );
    assert!(status(&folder).contains("CM_PROB_FAILED_ADD] 0xC000009A"));
    let query = verifier(&folder, &["/query"]);
    assert!(query.contains("VerifierAllocateFailCount = 2"), "{query}");
    set("VerifierAllocateFailCount", "100");
    found(&folder, 0);
    set("VerifierAllocateFailCount", "0");
    found(&folder, 2);
    set("VerifierOn", "0");
    found(&folder, 0);
    assert!(verifier(&folder, &["/query"]).contains("VerifierOn = 0"));
}

#[test]
fn a_bad_setting_is_named_and_changes_nothing() {
    let folder = lit();
    for (words, parts) in [
        (&["/standard"][..], &["/all", "/driver"][..]),
        (
            &["/standard", "/all", "/driver", "x.sys"],
            &["cannot be used with"],
        ),
        (
            &["/standard", "/flags", "1", "/all"],
            &["cannot be used with"],
        ),
        (
            &["/flags", "0x200", "/all"],
            &["0x200", "Force pending I/O requests"],
        ),
        (&["/flags", "4294967296", "/all"], &["4294967296"]),
        (&["/flags", "-1", "/all"], &["-1"]),
        (
            &["/flags", "0x1000", "/all"],
            &["0x1000", "no rule class 13"],
        ),
        (&["/rc", "7", "/all"], &["no rule class 7"]),
        (&["/rc", "22", "/all"], &["22", "does not simulate"]),
        (&["/rc", "3", "19", "/all"], &["3 and 19"]),
        (&["/driver", "n*.sys"], &["n*.sys", "wildcards"]),
        (&["/faults", "10001", "/all"], &["10001", "10000"]),
        (&["/faults", "1", "S*", "/all"], &["S*"]),
        (&["/faults", "1", "Tag01", "/all"], &["Tag01"]),
        (
            &["/faults", "1", "", "notepad.exe", "/all"],
            &["notepad.exe"],
        ),
        (
            &["/faults", "1", "", "", "soon", "/all"],
            &["soon", "minutes"],
        ),
        (
            &["/faultssystematic", "enableruntime", "/all"],
            &["enableruntime"],
        ),
        (&["/query", "/reset"], &["one at a time"]),
        (&["/log", "x"], &["--log"]),
    ] {
        rejected(&folder, &[&["verifier"], words].concat(), parts);
    }
    let empty = Folder::new();
    for words in [&["/querysettings"][..], &["/query"], &["/reset"]] {
        rejected(
            &empty,
            &[&["verifier"], words].concat(),
            &["vm", "no such folder"],
        );
    }
    assert!(!empty.path("vm").exists());
    let (_, note) = ended(&empty, &["verifier", "/standard", "/driver", "lamp.sys"], 0);
    assert!(
        note.contains("lamp.sys") && empty.path("vm").exists(),
        "{note}"
    );
    assert!(status(&folder).contains("Started"), "{LAMP}");
}
