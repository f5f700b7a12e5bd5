// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line: what bad input gets, and that it changes nothing.

#[path = "cli/explore.rs"]
mod explore;
#[path = "cli/page.rs"]
mod page;
#[path = "cli/pnputil.rs"]
mod pnputil;
#[path = "cli/reg.rs"]
mod reg;
#[path = "cli/verifier.rs"]
mod verifier;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A small image of ours, whose imports no kernel has; `fixtures/image/build` makes it.
fn fixture() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image/sample.sys"))
        .unwrap()
}

/// The same with imports that ntsim has.
fn sample() -> Vec<u8> {
    let mut image = fixture();
    for (from, to) in [
        (&b"ExAllocateSample"[..], &b"ExAllocatePool2\0"[..]),
        (b"KeSample\0", b"ZwClose\0\0"),
    ] {
        let at = image
            .windows(from.len())
            .position(|window| window == from)
            .expect("the sample imports it");
        image[at..at + to.len()].copy_from_slice(to);
    }
    image
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Every file below, with its bytes.
    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    found.push((path, bytes));
                }
            }
        }
        found.sort();
        found
    }
}

fn ntsim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Runs on the machine in `vm`.
fn in_machine(folder: &Folder, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ntsim"))
        .args(arguments)
        .current_dir(folder.0.path())
        .env("NTSIM_MACHINE", "vm")
        .output()
        .unwrap()
}

/// Runs on the machine in `vm`, expects exit code 0 and gives standard output.
#[track_caller]
fn done(folder: &Folder, arguments: &[&str]) -> String {
    ended(folder, arguments, 0).0
}

/// The same with another exit code, and standard error.
#[track_caller]
fn ended(folder: &Folder, arguments: &[&str], code: i32) -> (String, String) {
    let output = in_machine(folder, arguments);
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

/// Runs on the machine in `vm`, and expects exit code 1, one line that contains
/// `parts`, and every file as it was.
#[track_caller]
fn rejected(folder: &Folder, arguments: &[&str], parts: &[&str]) {
    let before = folder.contents();
    let (stdout, stderr) = ended(folder, arguments, 1);
    assert_eq!(stdout, "");
    let line = stderr.lines().next().unwrap_or_default();
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {stderr}");
    }
    assert!(
        stderr.trim_end().lines().count() == 1 || stderr.contains("try '--help'"),
        "{stderr}"
    );
    assert_eq!(folder.contents(), before, "{arguments:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs and expects exit code 1 and one line on standard error that contains `parts`.
#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = ntsim(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn a_missing_image_is_named() {
    let folder = Folder::new();
    let path = folder.path("none.sys");
    refused(
        &["run", text(&path)],
        &["none.sys", "cannot read the image"],
    );
}

#[test]
fn a_truncated_image_is_refused_with_what_is_cut_off() {
    let folder = Folder::new();
    let bytes = sample();
    for length in [0, 1, 63, 64, 200, 600, bytes.len() - 1] {
        let path = folder.file("cut.sys", &bytes[..length]);
        refused(&["run", text(&path)], &["cut.sys"]);
    }
}

/// The sample with its headers changed: offsets are from the PE signature.
fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = sample();
    let pe = u32::from_le_bytes(image[0x3C..0x40].try_into().unwrap()) as usize;
    image[pe + offset..pe + offset + bytes.len()].copy_from_slice(bytes);
    image
}

#[test]
fn an_image_for_another_machine_is_refused() {
    let folder = Folder::new();
    let path = folder.file("arm.sys", &patched(4, &0xAA64_u16.to_le_bytes()));
    refused(&["run", text(&path)], &["arm.sys", "ARM64"]);
}

#[test]
fn a_user_mode_program_is_refused() {
    let folder = Folder::new();
    // Subsystem, 68 bytes into the optional header.
    let path = folder.file("tool.exe", &patched(24 + 68, &3_u16.to_le_bytes()));
    refused(
        &["run", text(&path)],
        &["tool.exe", "user-mode", "subsystem 3"],
    );
}

#[test]
fn an_import_that_ntsim_does_not_have_is_named_with_its_module() {
    let folder = Folder::new();
    let path = folder.file("odd.sys", &fixture());
    refused(
        &["run", text(&path)],
        &["odd.sys", "ExAllocateSample", "KeSample", "ntoskrnl.exe"],
    );
}

/// A package in `folder`: the sample and an INF made of `inf`.
fn package(folder: &Folder, inf: &str) -> (PathBuf, PathBuf) {
    (
        folder.file("sample.sys", &sample()),
        folder.file("sample.inf", inf.as_bytes()),
    )
}

const INF: &str = "[Version]
Signature = \"$WINDOWS NT$\"
Class = System
ClassGuid = {4d36e97d-e325-11ce-bfc1-08002be10318}
Provider = %Us%
DriverVer = 01/01/2026,1.0.0.0
PnpLockdown = 1
[DestinationDirs]
DefaultDestDir = 13
[SourceDisksNames]
1 = %Us%
[SourceDisksFiles]
sample.sys = 1
[Manufacturer]
%Us% = Models,NTamd64
[Models.NTamd64]
%Us% = Install,Root\\Sample
[Install.NT]
CopyFiles = Files
[Files]
sample.sys
[Install.NT.Services]
AddService = Sample,2,Service
[Service]
ServiceType = 1
StartType = 3
ErrorControl = 1
ServiceBinary = %13%\\sample.sys
[Strings]
Us = \"us\"
";

#[test]
fn a_bad_inf_is_refused_and_the_machine_stays_as_it_was() {
    let cases: [(&str, &str, &[&str]); 6] = [
        ("DriverVer = 01/01/2026,1.0.0.0\n", "", &["DriverVer"]),
        ("[Version]\n", "[Versoin]\n", &["Version"]),
        (
            "[Strings]\n",
            "[Sevrice]\nStartType = 3\n[Strings]\n",
            &["[Sevrice]"],
        ),
        ("Models,NTamd64", "Models,NTarm64", &["NTarm64"]),
        (
            "sample.sys = 1\n",
            "sample.sys = 1\nfirmware.bin = 1\n",
            &["firmware.bin"],
        ),
        ("%Us% = Install", "%Them% = Install", &["%Them%"]),
    ];
    for (from, to, parts) in cases {
        let folder = Folder::new();
        let machine = folder.path("vm");
        ntsim::store::MachineDir::create(&machine).unwrap();
        assert!(INF.contains(from), "{from}");
        let (image, inf) = package(&folder, &INF.replacen(from, to, 1));
        let before = folder.contents();
        let arguments = [
            "run",
            text(&image),
            "--inf",
            text(&inf),
            "--machine",
            text(&machine),
        ];
        refused(&arguments, &[&["sample.inf"], parts].concat());
        assert_eq!(folder.contents(), before, "{to}");
    }
}

#[test]
fn a_damaged_registry_is_refused_with_its_line_and_stays_as_it_was() {
    let folder = Folder::new();
    let machine = folder.path("vm");
    drop(ntsim::store::MachineDir::create(&machine).unwrap());
    std::fs::write(
        machine.join("registry.reg"),
        "Windows Registry Editor Version 5.00\r\n\r\n[HKEY_LOCAL_MACHINE\\A]\r\n\"x\"=dword:zz\r\n",
    )
    .unwrap();
    let (image, inf) = package(&folder, INF);
    let before = folder.contents();
    refused(
        &[
            "run",
            text(&image),
            "--inf",
            text(&inf),
            "--machine",
            text(&machine),
        ],
        &["registry.reg", "4", "dword", "zz"],
    );
    assert_eq!(folder.contents(), before);
}

#[test]
fn a_folder_that_is_no_machine_is_refused() {
    let folder = Folder::new();
    let other = folder.path("photos");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("cat.jpg"), "meow").unwrap();
    let image = folder.file("sample.sys", &sample());
    refused(
        &["run", text(&image), "--machine", text(&other)],
        &["photos", "not the folder of a simulated machine"],
    );
}

#[test]
fn bad_steps_are_refused_before_anything_is_made() {
    let folder = Folder::new();
    let image = folder.file("sample.sys", &sample());
    let story = folder.file("life.txt", b"start\nrun=soon\n");
    let machine = folder.path("vm");
    for (option, value, parts) in [
        (
            "--steps",
            "start,fly",
            &["--steps", "\"fly\"", "reboot"][..],
        ),
        ("--story", text(&story), &["life.txt", "line 2", "run=30s"]),
        (
            "--story",
            "none.txt",
            &["none.txt", "cannot read the story"],
        ),
    ] {
        let arguments = [
            "run",
            text(&image),
            option,
            value,
            "--machine",
            text(&machine),
        ];
        refused(&arguments, parts);
        assert!(!machine.exists());
    }
}

#[test]
fn the_steps_on_the_command_line_are_what_happens() {
    let folder = pnputil::package();
    let run = |words: &[&str]| {
        done(
            &folder,
            &[
                &["run", "package/lamp.sys", "--inf", "package/lamp.inf"],
                words,
            ]
            .concat(),
        )
    };
    let steps = "start,run=2s,sleep=s3,run=1m,wake,reboot,start,surprise-remove";
    let told = run(&["--steps", steps]);
    folder.file("life.txt", steps.replace(',', "\n").as_bytes());
    assert_eq!(run(&["--story", "life.txt"]), told);
    let order = [
        "lamp: on",
        "S3",
        "lamp: off",
        "62.000 s",
        "lamp: on",
        "boots",
        "surprise removal",
    ];
    let mut rest = told.as_str();
    for part in order {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part} is not next in {told}"));
        rest = &rest[at + part.len()..];
    }
    for strategy in ["round-robin", "random", "pct", "pct:2:50"] {
        let words = [
            "--steps",
            steps,
            "--strategy",
            strategy,
            "--processors",
            "1",
        ];
        assert!(run(&words).contains("nothing found"));
    }
    // A step that does not fit is told, with the line that leads there.
    let words = [
        "run",
        "package/lamp.sys",
        "--inf",
        "package/lamp.inf",
        "--steps",
        "start,power-up",
    ];
    let (_, told) = ended(&folder, &words, 1);
    assert!(
        told.contains("power up") && told.contains("--steps"),
        "{told}"
    );
    assert!(
        !folder.path("vm").exists(),
        "NTSIM_MACHINE is not for throw-away runs"
    );
}

#[test]
fn colours_are_left_out_when_they_are_not_wanted() {
    let shown = |name: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ntsim"));
        command.args(["pnputil", "--fly"]).env_remove("NO_COLOR");
        let output = command
            .env("CLICOLOR_FORCE", "1")
            .env(name, value)
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(shown("CLICOLOR_FORCE", "1").contains('\u{1b}'));
    assert!(!shown("NO_COLOR", "1").contains('\u{1b}'));
    assert!(
        !String::from_utf8(ntsim(&["pnputil", "--fly"]).stderr)
            .unwrap()
            .contains('\u{1b}')
    );
}

#[test]
fn every_command_has_examples_and_names_its_place() {
    for words in [
        &["pnputil"][..],
        &["devgen"],
        &["verifier"],
        &["reg"],
        &["reg", "query"],
        &["reg", "add"],
        &["reg", "delete"],
        &["reg", "export"],
        &["reg", "import"],
        &["completions"],
    ] {
        let words = [words, &["--help"]].concat();
        let output = ntsim(&words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Examples:"), "{words:?}");
        assert!(
            words[0] == "completions" || help.contains("NTSIM_MACHINE"),
            "{words:?}"
        );
    }
    for word in ["/?", "-?", "/HELP"] {
        let output = ntsim(&["pnputil", word]);
        assert_eq!(output.status.code(), Some(0), "{word}");
    }
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = ntsim(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        for word in [
            "completions",
            "run",
            "strategy",
            "add-driver",
            "hardwareid",
            "querysettings",
            "import",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn an_unknown_command_or_option_exits_with_1() {
    for arguments in [
        &["fly"][..],
        &["run", "x.sys", "--sed", "1"],
        &["run"],
        &["run", "x.sys", "--seed", "many"],
        &["run", "x.sys", "--strategy", "pct:0"],
        &["run", "x.sys", "--processors", "0"],
        &["run", "x.sys", "--steps", "start", "--story", "x"],
        &["completions", "tcsh"],
        &["rules", "--class", "Poool"],
    ] {
        let output = ntsim(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .starts_with("error: "),
            "{arguments:?}"
        );
    }
}

#[test]
fn help_shows_examples_and_exit_codes() {
    let help = |arguments: &[&str]| {
        let output = ntsim(arguments);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(help(&["--help"]).contains("Exit codes"));
    assert!(help(&["run", "--help"]).contains("Examples"));
}

/// A trace of two lines.
const TRACE: &str = r#"{"ntsim_trace":1,"title":"x","seed":7,"strategy":"random","lines":2}
{"time":0,"context":1,"who":"thread#1","irql":0,"depth":0,"event":"call","name":"KeGetCurrentIrql","args":"","result":"0"}
{"time":20000000,"context":0,"who":"machine","irql":0,"depth":0,"event":"machine","text":"the machine shuts down"}
"#;

#[test]
fn a_saved_trace_is_shown_in_each_format_and_filtered() {
    let folder = Folder::new();
    let path = folder.file("t.json", TRACE.as_bytes());
    let shown = |more: &[&str]| {
        let output = ntsim(&[&["trace", text(&path)], more].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(shown(&["--to", "json"]), TRACE);
    assert_eq!(
        shown(&[]),
        "    0.0000000 thread#1         0 KeGetCurrentIrql() = 0\n    2.0000000 machine          0 ** the machine shuts down\n"
    );
    for filter in ["shuts", "who=MACH", "event=machine", "time=1.5.."] {
        assert!(
            shown(&["--filter", filter]).starts_with("    2.0000000"),
            "{filter}"
        );
    }
    assert_eq!(shown(&["--filter", "name=Ke", "--filter", "time=1.."]), "");
    let page = folder.path("t.html");
    assert_eq!(shown(&["-o", text(&page)]), "");
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("KeGetCurrentIrql")
    );
    let events: serde_json::Value = serde_json::from_str(&shown(&["--to", "perfetto"])).unwrap();
    assert!(events["traceEvents"].is_array());
}

#[test]
fn a_trace_that_is_none_is_refused_with_its_line_and_field() {
    let folder = Folder::new();
    let damaged = TRACE.replace("20000000", "\"soon\"");
    let path = folder.file("t.json", damaged.as_bytes());
    refused(
        &["trace", text(&path)],
        &["t.json: line 3: field \"time\"", "\"soon\""],
    );
    let path = folder.file("t.txt", b"    0.0000000 thread#1");
    refused(&["trace", text(&path)], &["t.txt: line 1: no JSON"]);
    let path = folder.file("t.bin", b"{\n\xFF");
    refused(&["trace", text(&path)], &["t.bin: line 2: no UTF-8"]);
    refused(
        &["trace", text(&folder.path("none.json"))],
        &["none.json: cannot read"],
    );
    assert_eq!(folder.contents().len(), 3, "nothing was written");
}

#[test]
fn a_filter_and_a_format_that_do_not_exist_are_named() {
    let folder = Folder::new();
    let path = folder.file("t.json", TRACE.as_bytes());
    for (option, value, parts) in [
        ("--filter", "event=cull", ["--filter", "\"cull\""]),
        ("--filter", "time=1", ["--filter", "A..B"]),
        ("--filter", "time=2..1", ["--filter", "ends before"]),
        ("--filter", "time=x..", ["--filter", "\"x\""]),
        ("--to", "pdf", ["--to", "perfetto"]),
    ] {
        let output = ntsim(&["trace", text(&path), option, value]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in parts {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
    }
}

#[test]
fn the_rules_are_listed_by_class_for_people_and_for_programs() {
    let listed = |arguments: &[&str]| {
        let output = ntsim(&[&["rules"], arguments].concat());
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(listed(&[]).contains("0xC2/0x07 BAD_POOL_CALLER"));
    assert!(listed(&["--markdown"]).contains("[PoolDoubleFree](https://"));
    let names = |arguments: &[&str]| -> Vec<String> {
        let rules: Vec<serde_json::Value> = serde_json::from_str(&listed(arguments)).unwrap();
        rules
            .iter()
            .map(|rule| rule["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let all: Vec<_> = ntsim::rules::all().map(|rule| rule.name).collect();
    assert_eq!(names(&["--json"]), all);
    let pool: Vec<_> = ntsim::rules::pool::ALL
        .iter()
        .map(|rule| rule.name)
        .collect();
    assert_eq!(names(&["--json", "--class", "pool"]), pool);
}
