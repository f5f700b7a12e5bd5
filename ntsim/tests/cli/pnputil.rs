// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim pnputil` and `ntsim devgen`, with a driver that makes trouble on demand.
//!
//! - <https://learn.microsoft.com/windows-hardware/drivers/devtest/pnputil-command-syntax>
//! - <https://learn.microsoft.com/windows-hardware/drivers/devtest/pnputil-return-values>
//! - <https://learn.microsoft.com/windows-hardware/drivers/devtest/devgen-command-syntax>

use std::path::Path;

use ntsim::store::MachineDir;

use crate::{Folder, done, ended, rejected};

/// What `lamp.c` does for a value of `Trouble`.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Trouble {
    None,
    EntryFails,
    AddFails,
    StartFails,
    StartFaults,
    StartHangs,
    Leaks,
    Stays,
    StopFaults,
    NoBytes,
    FailsLater,
}

pub const LAMP: &str = r"ROOT\LAMP\0000";
pub const PARAMETERS: &str = r"HKLM\SYSTEM\CurrentControlSet\Services\Lamp\Parameters";

/// A folder with the lamp's package in `package`.
pub fn package() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("package")).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lamp");
    for name in ["lamp.inf", "lamp.sys"] {
        let bytes = std::fs::read(fixtures.join(name)).unwrap();
        folder.file(&format!("package/{name}"), &bytes);
    }
    folder
}

/// The same with a machine in which a lamp is lit.
pub fn lit() -> Folder {
    let folder = package();
    done(&folder, &["pnputil", "/add-driver", "package/lamp.inf"]);
    done(&folder, &["devgen", "/add", "/hardwareid", r"Root\Lamp"]);
    folder
}

pub fn make(folder: &Folder, trouble: Trouble) {
    let number = (trouble as u32).to_string();
    let value = ["/v", "Trouble", "/t", "REG_DWORD", "/d", &number, "/f"];
    done(folder, &[&["reg", "add", PARAMETERS], &value[..]].concat());
}

pub fn status(folder: &Folder) -> String {
    let shown = done(folder, &["pnputil", "/enum-devices", "/instanceid", LAMP]);
    let lines = shown
        .lines()
        .filter(|line| line.starts_with("Status:") || line.starts_with("Problem"));
    let words: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    words
        .iter()
        .map(|(_, value)| value.trim())
        .collect::<Vec<_>>()
        .join(" ")
}

fn starts(folder: &Folder) -> String {
    let shown = done(folder, &["reg", "query", PARAMETERS, "/v", "Starts"]);
    shown.split_whitespace().last().unwrap().to_owned()
}

#[test]
fn a_driver_lives_on_a_machine_from_command_to_command() {
    let folder = package();
    let (added, _) = ended(
        &folder,
        &["pnputil", "/Add-Driver", "package/lamp.inf", "/INSTALL"],
        3,
    );
    assert!(
        added.contains("Published Name:         oem0.inf"),
        "{added}"
    );
    assert!(added.contains("No device matches"), "{added}");

    let made = done(
        &folder,
        &[
            "devgen",
            "/add",
            "/bus",
            "root",
            "/hardwareid",
            r"Root\Lamp",
        ],
    );
    assert_eq!(
        made,
        "Device made: ROOT\\LAMP\\0000\nDevice started: ntsim test lamp\n"
    );
    assert_eq!(
        done(&folder, &["pnputil", "--enum-devices", "--ids"]),
        r"Instance ID:                ROOT\LAMP\0000
Device Description:         ntsim test lamp
Class Name:                 Sample
Class GUID:                 {78a1c341-4539-11d3-b88d-00c04fad5171}
Manufacturer Name:          ntsim tests
Status:                     Started
Driver Name:                oem0.inf
Hardware IDs:               Root\Lamp

"
    );
    assert_eq!(
        done(&folder, &["pnputil", "/enum-drivers"]),
        "Published Name:     oem0.inf
Original Name:      lamp.inf
Provider Name:      ntsim tests
Class Name:         Sample
Class GUID:         {78a1c341-4539-11d3-b88d-00c04fad5171}
Driver Version:     01/01/2026 0.1.0.0
Signer Name:        not checked

"
    );
    assert_eq!(starts(&folder), "0x1");

    // It starts at boot, and again.
    let told = done(
        &folder,
        &["pnputil", "/restart-device", r"root\lamp\0000", "/verbose"],
    );
    assert_eq!(told.matches("lamp: on").count(), 2, "{told}");
    assert_eq!(told.matches("lamp: off").count(), 2, "{told}");
    assert!(told.contains("nothing is left behind"), "{told}");
    assert_eq!(starts(&folder), "0x3");

    done(&folder, &["pnputil", "/disable-device", LAMP]);
    assert_eq!(status(&folder), "Disabled");
    let told = done(&folder, &["pnputil", "/scan-devices", "/verbose"]);
    assert!(!told.contains("lamp: on"), "{told}");
    rejected(
        &folder,
        &["pnputil", "/restart-device", LAMP],
        &[LAMP, "disabled", "/enable-device"],
    );
    done(&folder, &["pnputil", "/enable-device", LAMP]);
    assert_eq!(status(&folder), "Started");

    rejected(
        &folder,
        &["pnputil", "/delete-driver", "oem0.inf"],
        &["oem0.inf", LAMP, "/uninstall"],
    );
    let told = done(
        &folder,
        &[
            "pnputil",
            "/delete-driver",
            "oem0.inf",
            "/uninstall",
            "/verbose",
        ],
    );
    assert!(told.contains("nothing is left behind"), "{told}");
    assert_eq!(
        status(&folder),
        "Problem 28 (0x1C) [CM_PROB_FAILED_INSTALL] 0xC0000490"
    );
    rejected(
        &folder,
        &["pnputil", "/restart-device", LAMP],
        &[LAMP, "no driver"],
    );
    assert!(done(&folder, &["pnputil", "/enum-drivers"]).contains("No driver packages"));
    done(&folder, &["pnputil", "/remove-device", LAMP]);
    assert_eq!(
        done(&folder, &["pnputil", "/enum-devices"]),
        "No devices were found.\n"
    );
}

#[test]
fn installing_starts_the_devices_that_wait_for_a_driver() {
    let folder = package();
    ended(&folder, &["devgen", "/add", "/hardwareid", r"Root\Lamp"], 3);
    assert!(status(&folder).contains("CM_PROB_FAILED_INSTALL"));
    let told = done(
        &folder,
        &["pnputil", "/add-driver", "package/lamp.inf", "/install"],
    );
    assert!(
        told.contains(&format!("Installed on device:    {LAMP}")),
        "{told}"
    );
    assert_eq!(status(&folder), "Started");
}

#[test]
fn a_disabled_device_stays_disabled_with_another_driver() {
    let folder = lit();
    done(&folder, &["pnputil", "/disable-device", LAMP]);
    let mut image = std::fs::read(folder.path("package/lamp.sys")).unwrap();
    image.push(0);
    folder.file("package/lamp.sys", &image);
    let words = [
        "pnputil",
        "/add-driver",
        "package/lamp.inf",
        "/install",
        "/verbose",
    ];
    let told = done(&folder, &words);
    assert!(told.contains(LAMP) && !told.contains("lamp: on"), "{told}");
    assert_eq!(status(&folder), "Disabled");
    done(
        &folder,
        &["pnputil", "/delete-driver", "oem1.inf", "/uninstall"],
    );
    assert_eq!(status(&folder), "Disabled");
}

#[test]
fn a_scan_installs_what_the_store_has() {
    let folder = package();
    ended(&folder, &["devgen", "/add", "/hardwareid", r"Root\Lamp"], 3);
    done(&folder, &["pnputil", "/add-driver", "package/lamp.inf"]);
    assert!(status(&folder).contains("CM_PROB_FAILED_INSTALL"));
    let told = done(&folder, &["pnputil", "/scan-devices"]);
    assert!(told.contains(LAMP), "{told}");
    assert_eq!(status(&folder), "Started");
}

#[test]
fn a_newly_added_build_of_the_same_version_is_installed() {
    let folder = lit();
    let mut image = std::fs::read(folder.path("package/lamp.sys")).unwrap();
    image.push(0);
    folder.file("package/lamp.sys", &image);
    let told = done(
        &folder,
        &["pnputil", "/add-driver", "package/lamp.inf", "/install"],
    );
    assert!(told.contains("oem1.inf") && told.contains(LAMP), "{told}");
    // The same once more is no news.
    ended(
        &folder,
        &["pnputil", "/add-driver", "package/lamp.inf", "/install"],
        3,
    );
    // Without it, the other one is there again.
    done(
        &folder,
        &["pnputil", "/delete-driver", "oem1.inf", "/uninstall"],
    );
    done(&folder, &["pnputil", "/scan-devices"]);
    assert!(done(&folder, &["pnputil", "/enum-devices"]).contains("oem0.inf"));
}

#[test]
fn a_device_that_does_not_start_has_a_problem_and_can_be_removed() {
    for (trouble, problem) in [
        (
            Trouble::EntryFails,
            "Problem 37 (0x25) [CM_PROB_FAILED_DRIVER_ENTRY] 0xC00000BB",
        ),
        (
            Trouble::AddFails,
            "Problem 31 (0x1F) [CM_PROB_FAILED_ADD] 0xC000000E",
        ),
        (
            Trouble::StartFails,
            "Problem 10 (0x0A) [CM_PROB_FAILED_START] 0xC0000483",
        ),
        (
            Trouble::FailsLater,
            "Problem 43 (0x2B) [CM_PROB_FAILED_POST_START] 0xC0000001",
        ),
    ] {
        let folder = lit();
        make(&folder, trouble);
        let (_, told) = ended(&folder, &["pnputil", "/scan-devices"], 2);
        assert!(told.starts_with(LAMP), "{told}");
        assert_eq!(status(&folder), problem);
        let code = problem.split_whitespace().nth(1).unwrap();
        let with = |filter: &[&str]| {
            done(
                &folder,
                &[&["pnputil", "/enum-devices", "/problem"], filter].concat(),
            )
            .contains(LAMP)
        };
        assert!(with(&[]) && with(&[code]) && !with(&["99"]));
        // Others are not to blame for it.
        ended(
            &folder,
            &["devgen", "/add", "/hardwareid", r"Root\Other"],
            3,
        );
        done(&folder, &["pnputil", "/remove-device", LAMP]);
        make(&folder, Trouble::None);
        done(&folder, &["devgen", "/add", "/hardwareid", r"Root\Lamp"]);
        assert_eq!(status(&folder), "Started");
    }
}

#[test]
fn a_stop_is_reported_and_dumped_and_leaves_the_registry_as_it_was() {
    for (trouble, command, name) in [
        (
            Trouble::StartFaults,
            "/scan-devices",
            "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED",
        ),
        (Trouble::StartHangs, "/scan-devices", "LOST_WAKE_UP"),
        (
            Trouble::StopFaults,
            "/restart-device",
            "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED",
        ),
        (
            Trouble::Leaks,
            "/remove-device",
            "DRIVER_VERIFIER_DETECTED_VIOLATION",
        ),
    ] {
        let folder = lit();
        make(&folder, trouble);
        let registry = || std::fs::read(folder.path("vm/registry.reg")).unwrap();
        let before = registry();
        let mut words = vec!["pnputil", command, "--seed", "7"];
        if command != "/scan-devices" {
            words.insert(2, LAMP);
        }
        let (_, report) = ended(&folder, &words, 2);
        assert!(report.contains(name), "{report}");
        assert_eq!(registry(), before, "{name}");
        let dump = std::fs::read_to_string(folder.path("vm/Minidump/0001.txt")).unwrap();
        assert!(report.starts_with(dump.trim_end()), "{report}\n{dump}");
        let json = std::fs::read(folder.path("vm/Minidump/0001.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["name"], name);

        // The line that the report gives leads to the same report.
        let replay = json["replay"].as_str().unwrap().replace('\'', "");
        let replay: Vec<_> = replay.split_whitespace().skip(1).collect();
        let (_, again) = ended(&folder, &replay, 2);
        assert_eq!(
            without_addresses(&again),
            without_addresses(&report.replace("0001.txt", "0002.txt"))
        );

        // The way out needs no boot.
        done(&folder, &["pnputil", "/remove-device", LAMP, "/force"]);
        done(
            &folder,
            &["pnputil", "/delete-driver", "oem0.inf", "/force"],
        );
        done(&folder, &["pnputil", "/scan-devices"]);
    }
}

#[test]
fn a_run_on_a_kept_machine_leaves_a_dump_as_well() {
    let folder = lit();
    make(&folder, Trouble::StartFaults);
    let image = ["run", "package/lamp.sys", "--inf", "package/lamp.inf"];
    let (_, report) = ended(
        &folder,
        &[&image[..], &["--machine", "vm", "--steps", "start"]].concat(),
        2,
    );
    assert!(report.contains("dump: Minidump/0001.txt"), "{report}");
    assert!(folder.path("vm/Minidump/0001.json").exists());
    // It is as before the boot.
    assert_eq!(starts(&folder), "0x1");
    let (_, report) = ended(&folder, &[&image[..], &["--steps", "start"]].concat(), 0);
    assert!(!report.contains("dump"), "{report}");
}

/// Where code and data lie differs from process to process.
fn without_addresses(text: &str) -> String {
    let words = text.split_inclusive([' ', ',', ')', '\n', ':']);
    words
        .filter(|word| !word.starts_with("0x7") && !word.starts_with("(0x7"))
        .collect()
}

#[test]
fn a_driver_may_refuse_to_go() {
    let folder = lit();
    make(&folder, Trouble::Stays);
    for words in [
        &["pnputil", "/remove-device", LAMP][..],
        &["pnputil", "/disable-device", LAMP],
        &["pnputil", "/delete-driver", "oem0.inf", "/uninstall"],
        &["pnputil", "/restart-device", LAMP],
    ] {
        let (_, told) = ended(&folder, words, 2);
        assert!(told.contains("0x80000011"), "{told}");
        assert_eq!(status(&folder), "Started");
        assert!(done(&folder, &["pnputil", "/enum-drivers"]).contains("oem0.inf"));
    }
    done(
        &folder,
        &["pnputil", "/delete-driver", "oem0.inf", "/force"],
    );
}

#[test]
fn a_device_that_is_not_there_is_named_with_the_near_ones() {
    let folder = package();
    for name in ["Fan", "Pump", "Valve", "Motor", "Lamp", "Horn", "Bell"] {
        ended(
            &folder,
            &["devgen", "/add", "/hardwareid", &format!(r"Root\{name}")],
            3,
        );
    }
    for command in [
        "/remove-device",
        "/disable-device",
        "/enable-device",
        "/restart-device",
    ] {
        rejected(
            &folder,
            &["pnputil", command, r"ROOT\LAMB\0000"],
            &[r"ROOT\LAMB\0000", "7, the nearest ROOT\\LAMP\\0000"],
        );
    }
    rejected(
        &folder,
        &["pnputil", "/enum-devices", "/instanceid", "X"],
        &["\"X\""],
    );
    rejected(
        &folder,
        &["pnputil", "/delete-driver", "oem7.inf"],
        &["oem7.inf", "none"],
    );
}

#[test]
fn packages_are_found_in_folders_and_added_all_or_none() {
    let folder = package();
    std::fs::create_dir_all(folder.path("more/deep")).unwrap();
    let inf = std::fs::read_to_string(folder.path("package/lamp.inf")).unwrap();
    for (file, name) in [("more/a.inf", "Lamp"), ("more/deep/b.inf", "Lamp")] {
        folder.file(
            file,
            inf.replace("Root\\Lamp", &format!("Root\\{name}"))
                .as_bytes(),
        );
    }
    // An INF without its image is no package.
    rejected(
        &folder,
        &["pnputil", "/add-driver", "package/lamp.inf", "more/a.inf"],
        &["a.inf", "lamp.sys"],
    );
    assert!(!folder.path("vm").exists());
    let image = std::fs::read(folder.path("package/lamp.sys")).unwrap();
    folder.file("more/lamp.sys", &image);
    folder.file("more/deep/lamp.sys", &image);
    let count = |words: &[&str]| {
        let told = done(&folder, words);
        told.lines()
            .last()
            .unwrap()
            .split_whitespace()
            .last()
            .unwrap()
            .to_owned()
    };
    assert_eq!(count(&["pnputil", "/add-driver", "more/*.inf"]), "1");
    assert_eq!(count(&["pnputil", "/add-driver", "more", "/subdirs"]), "2");
    assert_eq!(
        count(&["pnputil", "/add-driver", "lamp.inf", "/subdirs"]),
        "1"
    );
    rejected(
        &folder,
        &["pnputil", "/add-driver", "none.inf"],
        &["none.inf"],
    );
    rejected(
        &folder,
        &["pnputil", "/add-driver", "vm/drivers"],
        &["vm/drivers", "no INF file"],
    );
    rejected(
        &folder,
        &["pnputil", "/add-driver", "none/*.inf"],
        &["none"],
    );
}

#[test]
fn a_machine_in_use_is_left_alone() {
    let folder = lit();
    let held = MachineDir::open(&folder.path("vm")).unwrap();
    for words in [
        &["pnputil", "/enum-devices"][..],
        &["pnputil", "/scan-devices"],
        &["devgen", "/add", "/hardwareid", r"Root\Lamp"],
        &["pnputil", "/add-driver", "package/lamp.inf"],
        &["reg", "query", "HKLM"],
        &["reg", "add", r"HKLM\SOFTWARE\X"],
    ] {
        rejected(&folder, words, &["vm", "in use"]);
    }
    drop(held);
    // Those who only look do not mind each other, but nobody changes what they see.
    let held = MachineDir::look(&folder.path("vm")).unwrap();
    done(&folder, &["pnputil", "/enum-devices"]);
    rejected(
        &folder,
        &["reg", "add", r"HKLM\SOFTWARE\X"],
        &["vm", "in use"],
    );
    drop(held);
    done(&folder, &["reg", "add", r"HKLM\SOFTWARE\X"]);
}

#[test]
fn many_commands_at_once_leave_a_whole_machine() {
    let folder = lit();
    let add = |index: usize| {
        let key = format!(r"HKLM\SOFTWARE\K{index}");
        crate::in_machine(&folder, &["reg", "add", &key])
            .status
            .code()
    };
    let codes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..8)
            .map(|index| scope.spawn(move || add(index)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(codes.contains(&Some(0)), "{codes:?}");
    for (index, code) in codes.iter().enumerate() {
        let key = format!(r"HKLM\SOFTWARE\K{index}");
        match code {
            Some(0) => drop(done(&folder, &["reg", "query", &key])),
            Some(1) => rejected(&folder, &["reg", "query", &key], &["no such key"]),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_folder_that_cannot_be_written_can_be_looked_at() {
    let folder = lit();
    // Where a change is prepared there is something else; it works for root, too.
    folder.file("vm/.txn", b"");
    for words in [
        &["devgen", "/add", "/hardwareid", r"Root\Lamp"][..],
        &["pnputil", "/restart-device", LAMP],
        &["pnputil", "/delete-driver", "oem0.inf", "/force"],
    ] {
        rejected(&folder, words, &["vm/.txn"]);
    }
    assert_eq!(status(&folder), "Started");
    std::fs::remove_file(folder.path("vm/machine.lock")).unwrap();
    let before = folder.contents();
    assert_eq!(status(&folder), "Started");
    assert_eq!(folder.contents(), before);
}

#[test]
fn a_damaged_machine_is_refused_as_it_is() {
    let folder = lit();
    std::fs::remove_file(folder.path("vm/registry.reg")).unwrap();
    for command in ["/enum-devices", "/scan-devices"] {
        rejected(&folder, &["pnputil", command], &["vm", "registry.reg"]);
    }
    let folder = lit();
    let stored = std::fs::read_dir(folder.path("vm/DriverStore")).unwrap();
    let stored = stored.map(|entry| entry.unwrap().path()).next().unwrap();
    std::fs::write(stored.join("lamp.inf"), "[Version").unwrap();
    rejected(&folder, &["pnputil", "/enum-drivers"], &["lamp.inf"]);
    std::fs::write(stored.join("lamp.sys"), "MZ").unwrap();
    let (_, told) = ended(&folder, &["pnputil", "/restart-device", LAMP], 2);
    assert!(told.contains("lamp.sys"), "{told}");
    assert_eq!(
        status(&folder),
        "Problem 39 (0x27) [CM_PROB_DRIVER_FAILED_LOAD] 0xC000007B"
    );
}

#[test]
fn options_that_do_not_belong_together_are_refused() {
    let folder = lit();
    for (words, parts) in [
        (&["pnputil"][..], &["required"][..]),
        (
            &["pnputil", "/enum-devices", "/enum-drivers"],
            &["cannot be used with"],
        ),
        (
            &["pnputil", "/enum-drivers", "/subdirs"],
            &["/subdirs", "/add-driver"],
        ),
        (
            &["pnputil", "/enum-devices", "/connected", "/disconnected"],
            &["cannot be used with"],
        ),
        (
            &["pnputil", "/enum-devices", "/problem", "bad"],
            &["bad", "problem code"],
        ),
        (&["pnputil", "/enum-devices", "/force"], &["/force"]),
        (&["pnputil", "/scan-device"], &["--scan-device"]),
        (&["pnputil", "/scan-devices", "/run-for", "soon"], &["soon"]),
        (&["pnputil", "/scan-devices", "/seed", "-1"], &["-1"]),
        (
            &["pnputil", "/scan-devices", "/strategy", "luck"],
            &["luck", "round-robin"],
        ),
        (&["devgen", "/add"], &["required"]),
        (
            &["devgen", "/add", "/bus", "SWD", "/hardwareid", "X"],
            &["SWD", "--bus"],
        ),
        (
            &["devgen", "/add", "/hardwareid", "a b"],
            &["a b", "printable"],
        ),
        (&["devgen", "/remove", "X"], &["\"X\""]),
        (&["devgen", "/remove", LAMP, "/bus", "root"], &["/bus"]),
    ] {
        rejected(&folder, words, parts);
    }
}
