// SPDX-License-Identifier: MIT OR Apache-2.0

//! `ntsim explore` and `ntsim replay`, with the lamp that makes trouble on demand.

use ntsim::explore::Schedule;
use serde_json::Value;

use crate::{Folder, ntsim, pnputil, refused, text};

/// The lamp's package, whose INF sets the value `Trouble`.
fn lamp(trouble: u32) -> Folder {
    let folder = pnputil::package();
    let path = folder.path("package/lamp.inf");
    let inf = std::fs::read_to_string(&path).unwrap();
    let inf = inf.replace(
        "ServiceBinary = %13%\\lamp.sys",
        "ServiceBinary = %13%\\lamp.sys\nAddReg = Lamp_Parameters\n\n[Lamp_Parameters]\n\
         HKR,Parameters,Trouble,0x00010001,@",
    );
    std::fs::write(&path, inf.replace('@', &trouble.to_string())).unwrap();
    folder
}

const NO_TROUBLE: u32 = 0;
/// It waits for an event that nobody sets.
const START_HANGS: u32 = 5;
/// It leaves pool behind.
const LEAKS: u32 = 6;
/// A timer's DPC, beside the thread, reports a failure.
const FAILS_LATER: u32 = 10;

/// `ntsim COMMAND lamp.sys --inf lamp.inf ...`: the exit code, what it printed.
fn run(folder: &Folder, command: &str, more: &[&str]) -> (i32, String, String) {
    let image = folder.path("package/lamp.sys");
    let inf = folder.path("package/lamp.inf");
    let mut arguments = vec![command, text(&image), "--inf", text(&inf)];
    arguments.extend(more);
    let output = ntsim(&arguments);
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Exit code 1, nothing done, and what is wrong in the first line.
#[track_caller]
fn bad(arguments: &[&str], parts: &[&str]) {
    let output = ntsim(arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(output.stdout.is_empty());
    let line = told.lines().next().unwrap_or_default();
    for part in parts {
        assert!(line.contains(part), "no {part:?} in: {told}");
    }
}

#[test]
fn a_driver_without_fault_is_told_to_have_none() {
    let folder = lamp(NO_TROUBLE);
    let before = folder.contents();
    let (code, told, _) = run(&folder, "explore", &["--schedules", "20", "--jobs", "1"]);
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("nothing found"), "{told}");
    assert!(told.contains("these are all schedules"), "{told}");
    assert_eq!(folder.contents(), before);
}

#[test]
fn what_is_found_is_told_with_a_line_that_plays_it_again() {
    for (trouble, sign) in [(START_HANGS, "LOST_WAKE_UP"), (LEAKS, "tag 'Lamp'")] {
        let folder = lamp(trouble);
        let (code, _, report) = run(&folder, "explore", &["--schedules", "8", "--jobs", "1"]);
        assert_eq!(code, 2, "{report}");
        assert!(report.contains(sign), "{report}");
        let line = report
            .lines()
            .map(str::trim)
            .find_map(|line| line.strip_prefix("replay"))
            .expect("a line that replays it")
            .trim_start_matches([':', ' ']);
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            program,
            "replay",
            image,
            "--inf",
            inf,
            "--schedule",
            schedule,
        ] = words[..]
        else {
            panic!("{line}");
        };
        assert_eq!(program, "ntsim");
        let output = ntsim(&["replay", image, "--inf", inf, "--schedule", schedule]);
        assert_eq!(output.status.code(), Some(2));
        let again = String::from_utf8(output.stderr).unwrap();
        assert!(again.contains(sign), "{again}");
        assert!(again.contains(line), "{again}");
    }
}

#[test]
fn processes_share_a_campaign_and_put_it_together() {
    let folder = lamp(FAILS_LATER);
    let arguments = [
        "--schedules",
        "30",
        "--strategy",
        "random",
        "--json",
        "--jobs",
    ];
    let outcome = |jobs| -> Value {
        let (code, told, report) = run(&folder, "explore", &[&arguments[..], &[jobs]].concat());
        assert_eq!(code, 0, "{report}");
        serde_json::from_str(&told).unwrap()
    };
    let (one, three) = (outcome("1"), outcome("3"));
    assert_eq!(one["schedules"], three["schedules"]);
    assert_eq!(one["points"], three["points"]);
    assert_eq!(one["finding"], Value::Null);
    let jobs: Vec<_> = [one, three].iter().map(|it| it["jobs"].clone()).collect();
    assert_eq!(jobs, [1, 3]);
}

#[test]
fn a_process_that_finds_something_ends_the_campaign_and_the_schedule_is_saved() {
    let folder = lamp(LEAKS);
    let file = folder.path("found.txt");
    let more = [
        "--seeds",
        "5..5000000",
        "--jobs",
        "2",
        "--json",
        "--save",
        text(&file),
    ];
    let (code, told, report) = run(&folder, "explore", &more);
    assert_eq!(code, 2, "{report}");
    let outcome: Value = serde_json::from_str(&told).unwrap();
    let finding = &outcome["finding"];
    assert_eq!(finding["stop"]["kind"], "BUG_CHECK");
    assert_eq!(finding["preemptions"], 0);
    let saved = std::fs::read_to_string(&file).unwrap();
    assert_eq!(finding["schedule"], saved.trim());
    assert!(saved.parse::<Schedule>().is_ok(), "{saved}");
    let trace = folder.path("trace.txt");
    let more = ["--schedule-file", text(&file), "--trace", text(&trace)];
    let (code, _, report) = run(&folder, "replay", &more);
    assert_eq!(code, 2, "{report}");
    assert!(report.contains("tag 'Lamp'"), "{report}");
    assert!(
        std::fs::read_to_string(&trace)
            .unwrap()
            .contains("ExAllocatePool2")
    );
}

#[test]
fn a_campaign_ends_when_its_time_is_over() {
    let folder = lamp(FAILS_LATER);
    let begun = std::time::Instant::now();
    let (code, told, _) = run(
        &folder,
        "explore",
        &["--time-limit", "300ms", "--jobs", "1"],
    );
    assert_eq!(code, 0, "{told}");
    // Not the ten seconds that it takes untold, nor as many schedules as there are.
    assert!(begun.elapsed().as_secs() < 9, "{told}");
}

#[test]
fn bad_options_of_a_campaign_are_refused() {
    let folder = lamp(NO_TROUBLE);
    let image = folder.path("package/lamp.sys");
    for (more, parts) in [
        (&["--seeds", "7"][..], &["--seeds", "7", "FIRST..END"][..]),
        (&["--seeds", "9..9"], &["there is no seed in 9..9"]),
        (&["--schedules", "0"], &["--schedules", "0"]),
        (&["--jobs", "0"], &["--jobs", "0"]),
        (
            &["--strategy", "luck"],
            &["--strategy", "luck", "portfolio"],
        ),
        (&["--strategy", "pct:0"], &["pct:0", "from 1"]),
        (&["--strategy", "pct", "--depth", "0"], &["--depth 0"]),
        (&["--depth", "3"], &["--depth 3", "portfolio"]),
        (&["--time-limit", "0s"], &["--time-limit", "no time"]),
        (&["--time-limit", "soon"], &["--time-limit", "soon"]),
        (&["--shard", "5/4"], &["--shard", "no part 5 of 4"]),
        (&["--shard", "slice:1/4"], &["--shard", "count:K/N"]),
        (&["--processors", "0"], &["--processors", "0"]),
        (&["--steps", "fly"], &["--steps", "fly"]),
        (&["--seed", "1", "--seeds", "1..2"], &["--seed", "--seeds"]),
    ] {
        bad(&[&["explore", text(&image)], more].concat(), parts);
    }
    let none = folder.path("none.sys");
    refused(
        &["explore", text(&none)],
        &["none.sys", "cannot read the image"],
    );
    let nowhere = folder.path("no/found.txt");
    let leaks = lamp(LEAKS);
    let inf = leaks.path("package/lamp.inf");
    let image = leaks.path("package/lamp.sys");
    let more = [
        "explore",
        text(&image),
        "--inf",
        text(&inf),
        "--save",
        text(&nowhere),
    ];
    refused(
        &[&more[..], &["--jobs", "1"]].concat(),
        &["found.txt", "cannot write the schedule"],
    );
}

#[test]
fn bad_schedules_are_refused() {
    let folder = lamp(NO_TROUBLE);
    let image = folder.path("package/lamp.sys");
    // Three points, and the lamp has none.
    let other = "nts1-eNpjZmJiZmBiAAAAQgAN";
    for (schedule, parts) in [
        ("seven", &["--schedule", "begins with nts1-"][..]),
        ("nts9-AAAA", &["nts9-"]),
        (&other[..20], &["damaged"]),
        ("nts1-eNpjZmJiZmBiAAAAQgAM", &["damaged"]),
    ] {
        bad(&["replay", text(&image), "--schedule", schedule], parts);
    }
    bad(&["replay", text(&image)], &["required"]);
    let file = folder.file("other.txt", b"not one\n");
    refused(
        &["replay", text(&image), "--schedule-file", text(&file)],
        &["other.txt", "begins with nts1-"],
    );
    let missing = folder.path("missing.txt");
    refused(
        &["replay", text(&image), "--schedule-file", text(&missing)],
        &["missing.txt", "cannot read the schedule"],
    );
    let both = ["replay", text(&image), "--schedule", other, "--seed", "1"];
    bad(&both, &["--schedule", "--seed"]);
    // A schedule of something else: said in one line, after the story.
    let output = ntsim(&["replay", text(&image), "--schedule", other]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("ended after 0 of the schedule's 3"), "{told}");
}

#[test]
fn a_seed_can_be_replayed_without_its_schedule() {
    let folder = lamp(LEAKS);
    let (code, _, report) = run(
        &folder,
        "replay",
        &["--seed", "3", "--strategy", "pct:2:64"],
    );
    assert_eq!(code, 2, "{report}");
    assert!(report.contains("--seed 3"), "{report}");
}
