// SPDX-License-Identifier: MIT OR Apache-2.0

//! PnP and power as modules see them: each hook on a tree, each open policy at
//! its moments, and what follows a failure anywhere.

#![expect(
    clippy::needless_range_loop,
    reason = "a policy's place is what the driver is told"
)]

#[path = "support/hooks.rs"]
#[allow(dead_code, reason = "each test program uses some of it")]
mod hooks;
#[path = "support/probe.rs"]
mod probe;

use dmf::module::OpenPolicy;
use dmf::prelude::*;
use hooks::{Hooks, POLICIES, choose, fail_at, journal, let_idle, overlaps, slow_down};
use ntsim::machine::{Error, Hardware, PowerChange, Relation, Sleep, SpecialFile};
use probe::Probe;

const CREATE: usize = 0;
const PREPARE_HARDWARE: usize = 1;
const SYSTEM_POWER_UP: usize = 2;
const D0_ENTRY: usize = 3;
const NOTIFY_PREPARE_HARDWARE: usize = 4;
const NOTIFY_D0_ENTRY: usize = 5;
const NOTIFY_CREATE: usize = 6;

const FAILED: u32 = NtStatus::DEVICE_DATA_ERROR.to_raw().cast_unsigned();

/// A started device whose modules open by these policies; the journal is empty.
fn started(outer: usize, inner: usize) -> Probe {
    choose(outer, inner);
    let probe = Probe::started(Hooks::DRIVER_ENTRY, 0);
    journal();
    probe
}

fn status(result: Result<(), Error>) -> Option<u32> {
    match result {
        Ok(()) => None,
        Err(Error::Driver { status, .. }) => Some(status),
        Err(error) => panic!("{error}"),
    }
}

/// What the journal says of opening, closing and notifications.
fn openings() -> Vec<String> {
    let kinds = [" open", " close", " register", " unregister"];
    journal()
        .into_iter()
        .filter(|line| kinds.iter().any(|kind| line.ends_with(kind)))
        .collect()
}

// ---- hooks beside the others ---------------------------------------------

#[test]
fn a_stop_is_asked_of_the_device_first_and_of_the_innermost_module_last() {
    let mut probe = started(CREATE, CREATE);
    probe.machine.stop_device(&probe.device).unwrap();
    assert_eq!(
        journal()[..3],
        ["device query stop", "outer query stop", "inner query stop"]
    );
    probe.machine.restart_device(&probe.device).unwrap();
    probe.remove();
}

#[test]
fn whoever_refuses_a_stop_ends_the_asking_and_nothing_has_changed() {
    for who in ["device", "outer", "inner"] {
        let mut probe = started(D0_ENTRY, PREPARE_HARDWARE);
        let entry = format!("{who} query stop");
        fail_at(Some(&entry));
        assert_eq!(
            status(probe.machine.stop_device(&probe.device)),
            Some(FAILED)
        );
        assert_eq!(journal().last(), Some(&entry));
        assert!(probe.machine.is_in_d0(&probe.device).unwrap());
        fail_at(None);
        probe.remove();
        journal();
    }
}

#[test]
fn whoever_refuses_the_removal_ends_the_asking_and_nothing_has_changed() {
    for who in ["device", "outer", "inner"] {
        let mut probe = started(D0_ENTRY, PREPARE_HARDWARE);
        let entry = format!("{who} query remove");
        fail_at(Some(&entry));
        assert_eq!(
            status(probe.machine.remove_device(&probe.device)),
            Some(FAILED)
        );
        assert_eq!(journal().last(), Some(&entry));
        fail_at(None);
        probe.remove();
        journal();
    }
}

#[test]
fn a_device_that_is_started_again_prepares_its_new_hardware() {
    choose(PREPARE_HARDWARE, NOTIFY_PREPARE_HARDWARE);
    let mut probe = Probe::new(Hooks::DRIVER_ENTRY, 0);
    let hardware = Hardware::new().memory(0x1000, 0x10);
    probe.machine.set_hardware(&probe.device, hardware.clone());
    probe.start().unwrap();
    probe.machine.stop_device(&probe.device).unwrap();
    probe
        .machine
        .set_hardware(&probe.device, hardware.port(0x3F8, 8));
    probe.machine.restart_device(&probe.device).unwrap();
    probe.remove();
    let prepared: Vec<_> = journal()
        .into_iter()
        .filter(|line| {
            ["prepare", "open", "close", "release"]
                .iter()
                .any(|kind| line.starts_with("inner ") && line.contains(kind))
        })
        .collect();
    let life = |count| {
        [
            format!("inner prepare {count}"),
            "inner open".to_owned(),
            "inner close".to_owned(),
            "inner release".to_owned(),
        ]
    };
    assert_eq!(prepared, [life(1), life(2)].concat());
}

#[test]
fn relations_are_told_to_children_first() {
    let mut probe = started(CREATE, CREATE);
    for (asked, told) in [
        (Relation::Bus, "Bus"),
        (Relation::Ejection, "Ejection"),
        (Relation::Removal, "Removal"),
        (Relation::TargetDevice, "TargetDevice"),
    ] {
        probe.machine.query_relations(&probe.device, asked).unwrap();
        let expected = ["inner", "outer", "device"].map(|who| format!("{who} relations {told}"));
        assert_eq!(journal(), expected);
    }
    probe.remove();
}

#[test]
fn who_agreed_to_a_special_file_hears_that_another_refused_it() {
    let mut probe = started(CREATE, CREATE);
    let device = probe.device.clone();
    fail_at(Some("outer usage Paging Joined"));
    let refused = probe
        .machine
        .place_special_file(&device, SpecialFile::Paging);
    assert_eq!(status(refused), Some(FAILED));
    assert_eq!(
        journal(),
        [
            "inner usage Paging Joined",
            "outer usage Paging Joined",
            "inner usage Paging Left"
        ]
    );
    fail_at(None);
    probe
        .machine
        .place_special_file(&device, SpecialFile::Paging)
        .unwrap();
    journal();
    // That a file has gone cannot be refused.
    fail_at(Some("inner usage Paging Left"));
    probe
        .machine
        .remove_special_file(&device, SpecialFile::Paging)
        .unwrap();
    assert_eq!(journal().len(), 3);
    fail_at(None);
    // The driver supports no dump file.
    let refused = probe.machine.place_special_file(&device, SpecialFile::Dump);
    assert_eq!(
        status(refused),
        Some(NtStatus::NOT_IMPLEMENTED.to_raw().cast_unsigned())
    );
    assert!(journal().is_empty());
    probe.remove();
}

#[test]
fn a_surprise_removal_is_told_to_the_whole_tree_before_the_way_down() {
    for policy in 0..POLICIES.len() {
        let mut probe = started(policy, CREATE);
        probe.machine.surprise_remove(&probe.device).unwrap();
        let lines = journal();
        assert_eq!(
            lines[..3],
            ["device surprise", "outer surprise", "inner surprise"]
        );
        let ups_and_downs = |kind| lines.iter().filter(|line| line.ends_with(kind)).count();
        assert_eq!(ups_and_downs(" close"), 2, "{:?}", POLICIES[policy]);
        assert_eq!(ups_and_downs(" drop"), 2);
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_surprise_removal>
#[test]
fn a_surprise_removal_may_run_beside_power_callbacks() {
    slow_down(Duration::from_millis(1));
    for seed in 0..200 {
        let policies = usize::try_from(seed).unwrap();
        choose(policies % 7, CREATE);
        let mut probe = Probe::started(Hooks::DRIVER_ENTRY, seed);
        let change = if seed % 2 == 0 {
            PowerChange::Down
        } else {
            probe.power_down();
            PowerChange::Up
        };
        journal();
        probe
            .machine
            .surprise_remove_during(&probe.device, change)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let lines = journal();
        for who in ["device", "outer", "inner"] {
            let told = format!("{who} surprise");
            let count = lines.iter().filter(|line| **line == told).count();
            assert_eq!(count, 1, "seed {seed}: {lines:?}");
        }
        assert_eq!(lines.last().unwrap(), "inner drop");
    }
    let overlaps = overlaps();
    assert!(overlaps > 100, "{overlaps} overlaps in 200 schedules");
}

// ---- waking up -------------------------------------------------------------

#[test]
fn an_idle_device_is_armed_owner_first_and_disarmed_children_first() {
    let_idle();
    let mut probe = started(CREATE, CREATE);
    probe.run_for(Duration::from_secs(2));
    assert!(!probe.machine.is_in_d0(&probe.device).unwrap());
    let arms = |lines: Vec<String>| -> Vec<String> {
        lines
            .into_iter()
            .filter(|line| line.contains("s0") || line.contains("sx"))
            .collect()
    };
    let all = |what: &str, order: [&str; 3]| order.map(|who| format!("{who} {what}"));
    let down = ["device", "outer", "inner"];
    let up = ["inner", "outer", "device"];
    assert_eq!(arms(journal()), all("arm s0", down));
    assert!(probe.machine.signal_wake(&probe.device).unwrap());
    probe.run_for(Duration::from_millis(10));
    assert!(probe.machine.is_in_d0(&probe.device).unwrap());
    assert_eq!(
        arms(journal()),
        [all("woke s0", up), all("disarm s0", up)].concat()
    );
    // And with the system.
    probe.machine.sleep(Sleep::S3).unwrap();
    assert_eq!(arms(journal()), all("arm sx true false", down));
    assert!(probe.machine.signal_wake(&probe.device).unwrap());
    probe.machine.wake().unwrap();
    assert_eq!(
        arms(journal()),
        [all("woke sx", up), all("disarm sx", up)].concat()
    );
    // One that idles is brought back before the system sleeps.
    probe.run_for(Duration::from_secs(2));
    assert_eq!(arms(journal()), all("arm s0", down));
    probe.machine.sleep(Sleep::Hibernate).unwrap();
    assert_eq!(
        arms(journal()),
        [all("disarm s0", up), all("arm sx true false", down)].concat()
    );
    probe.machine.wake().unwrap();
    assert_eq!(arms(journal()), all("disarm sx", up));
    probe.remove();
}

#[test]
fn who_was_armed_is_disarmed_when_another_cannot_be() {
    let_idle();
    let mut probe = started(CREATE, CREATE);
    fail_at(Some("inner arm s0"));
    probe.run_for(Duration::from_millis(1500));
    // A device that cannot wake itself stays in D0.
    assert!(probe.machine.is_in_d0(&probe.device).unwrap());
    let lines: Vec<_> = journal()
        .into_iter()
        .filter(|line| line.contains("s0"))
        .collect();
    assert_eq!(
        lines[..5],
        [
            "device arm s0",
            "outer arm s0",
            "inner arm s0",
            "outer disarm s0",
            "device disarm s0"
        ]
    );
    fail_at(Some("inner arm sx true false"));
    probe.machine.sleep(Sleep::S3).unwrap();
    assert!(!probe.machine.signal_wake(&probe.device).unwrap());
    probe.machine.wake().unwrap();
    let lines: Vec<_> = journal()
        .into_iter()
        .filter(|line| line.contains("sx"))
        .collect();
    assert_eq!(
        lines,
        [
            "device arm sx true false",
            "outer arm sx true false",
            "inner arm sx true false",
            "outer disarm sx",
            "device disarm sx"
        ]
    );
    fail_at(None);
    probe.remove();
}

// ---- open policies ----------------------------------------------------------

#[test]
fn a_module_of_policy_system_power_up_is_closed_when_power_is_lost_and_only_then() {
    let mut probe = started(SYSTEM_POWER_UP, CREATE);
    for (how, expected) in [
        (Sleep::S1, [].as_slice()),
        (Sleep::S2, &[]),
        (Sleep::S3, &[]),
        (Sleep::Hibernate, &["outer close", "outer open"]),
    ] {
        probe.machine.sleep(how).unwrap();
        probe.machine.wake().unwrap();
        assert_eq!(openings(), expected, "{how:?}");
    }
    // Also if the device carries the hibernation file, and is powered until the end.
    let device = probe.device.clone();
    let file = SpecialFile::Hibernation;
    probe.machine.place_special_file(&device, file).unwrap();
    journal();
    probe.machine.sleep(Sleep::Hibernate).unwrap();
    let lines = journal();
    assert!(lines.contains(&"outer d0 exit PrepareForHibernation".to_owned()));
    assert!(lines.contains(&"outer close".to_owned()));
    probe.machine.wake().unwrap();
    let lines = journal();
    assert!(lines.contains(&"outer d0 entry PrepareForHibernation".to_owned()));
    assert!(lines.contains(&"outer open".to_owned()));
    probe.machine.remove_special_file(&device, file).unwrap();
    probe.remove();
}

#[test]
fn each_policy_opens_and_closes_at_its_moments() {
    // (policy, at the start, over S3, over a stop, at the removal)
    type Lines = &'static [&'static str];
    let registers: Lines = &["outer register", "outer open"];
    let unregisters: Lines = &["outer unregister", "outer close"];
    let both: Lines = &[
        "outer unregister",
        "outer close",
        "outer register",
        "outer open",
    ];
    let again: Lines = &["outer close", "outer open"];
    let cases: [(usize, Lines, Lines, Lines, Lines); 7] = [
        (CREATE, &["outer open"], &[], &[], &["outer close"]),
        (
            PREPARE_HARDWARE,
            &["outer open"],
            &[],
            again,
            &["outer close"],
        ),
        (
            SYSTEM_POWER_UP,
            &["outer open"],
            &[],
            again,
            &["outer close"],
        ),
        (D0_ENTRY, &["outer open"], again, again, &["outer close"]),
        (NOTIFY_PREPARE_HARDWARE, registers, &[], both, unregisters),
        (NOTIFY_D0_ENTRY, registers, both, both, unregisters),
        (NOTIFY_CREATE, registers, &[], &[], unregisters),
    ];
    for (policy, start, sleep, stop, removal) in cases {
        choose(policy, CREATE);
        let outer = || -> Vec<String> {
            let mut lines = openings();
            lines.retain(|line| line.starts_with("outer"));
            lines
        };
        let mut probe = Probe::new(Hooks::DRIVER_ENTRY, 0);
        probe.start().unwrap();
        let policy = POLICIES[policy];
        assert_eq!(outer(), start, "{policy:?}: start");
        probe.machine.sleep(Sleep::S3).unwrap();
        probe.machine.wake().unwrap();
        assert_eq!(outer(), sleep, "{policy:?}: sleep");
        probe.machine.stop_device(&probe.device).unwrap();
        probe.machine.restart_device(&probe.device).unwrap();
        assert_eq!(outer(), stop, "{policy:?}: stop");
        probe.remove();
        assert_eq!(outer(), removal, "{policy:?}: removal");
    }
}

#[test]
fn a_child_that_would_open_later_than_its_parent_is_refused() {
    let moment = |place: usize| match POLICIES[place] {
        OpenPolicy::Create | OpenPolicy::NotifyCreate => 0,
        OpenPolicy::PrepareHardware | OpenPolicy::NotifyPrepareHardware => 1,
        OpenPolicy::D0EntrySystemPowerUp => 2,
        OpenPolicy::D0Entry | OpenPolicy::NotifyD0Entry => 3,
    };
    for outer in 0..POLICIES.len() {
        for inner in 0..POLICIES.len() {
            choose(outer, inner);
            let mut probe = Probe::new(Hooks::DRIVER_ENTRY, 0);
            let expected = (moment(inner) > moment(outer))
                .then_some(NtStatus::INVALID_PARAMETER.to_raw().cast_unsigned());
            let pair = (POLICIES[outer], POLICIES[inner]);
            assert_eq!(status(probe.start()), expected, "{pair:?}");
            if expected.is_none() {
                probe.remove();
            }
        }
    }
}

// ---- failures ---------------------------------------------------------------

/// Whether everything that the journal says was done was undone, once.
fn check_undone(what: &str, lines: &[String]) {
    for who in ["device", "outer", "inner"] {
        let count = |kind: &str| {
            let entry = format!("{who} {kind}");
            lines.iter().filter(|line| line.starts_with(&entry)).count()
        };
        for (up, down) in [
            ("prepare", "release"),
            ("d0 entry", "d0 exit"),
            ("interrupts enabled", "interrupts disabled"),
            ("register", "unregister"),
            ("open", "close"),
        ] {
            let (ups, downs) = (count(up), count(down));
            // The one that failed has nothing to undo.
            let failed = usize::from(what.starts_with(&format!("{who} {up}")));
            assert_eq!(ups - failed, downs, "{what}: {who} {up}, {down}: {lines:?}");
        }
    }
}

#[test]
fn whatever_fails_on_the_way_up_all_that_was_done_is_undone_and_a_second_try_succeeds() {
    for policy in 0..POLICIES.len() {
        for who in ["inner", "outer", "device"] {
            let mut points = vec![
                "prepare 0",
                "d0 entry D3Final",
                "interrupts enabled",
                "io init",
            ];
            if who != "device" {
                points.push("assign");
                points.push("open");
                if OPENS_ITSELF.contains(&policy) {
                    points.push("register");
                }
            }
            for point in points {
                choose(policy, policy);
                let entry = format!("{who} {point}");
                let mut probe = Probe::new(Hooks::DRIVER_ENTRY, 0);
                fail_at(Some(&entry));
                let what = format!("{entry}, {:?}", POLICIES[policy]);
                assert_eq!(status(probe.start()), Some(FAILED), "{what}");
                let lines = journal();
                assert!(lines.contains(&entry), "{what}: {lines:?}");
                check_undone(&entry, &lines_but_open_in_register(lines, &entry, policy));
                fail_at(None);
                probe
                    .start()
                    .unwrap_or_else(|error| panic!("{what}: second try: {error}"));
                probe.remove();
                journal();
            }
        }
    }
}

const OPENS_ITSELF: [usize; 3] = [NOTIFY_PREPARE_HARDWARE, NOTIFY_D0_ENTRY, NOTIFY_CREATE];

/// A module whose `open` fails within its `register` fails there, too: it has
/// registered nothing.
fn lines_but_open_in_register(mut lines: Vec<String>, entry: &str, policy: usize) -> Vec<String> {
    if let Some(who) = entry.strip_suffix(" open")
        && OPENS_ITSELF.contains(&policy)
    {
        let register = format!("{who} register");
        let at = lines.iter().rposition(|line| *line == register).unwrap();
        lines.remove(at);
    }
    lines
}

#[test]
fn a_device_that_fails_to_wake_up_is_undone_and_tried_again() {
    for policy in 0..POLICIES.len() {
        for who in ["inner", "outer", "device"] {
            for point in ["d0 entry D3", "interrupts enabled", "io restart"] {
                choose(policy, CREATE);
                let mut probe = Probe::started(Hooks::DRIVER_ENTRY, 0);
                probe.power_down();
                let entry = format!("{who} {point}");
                fail_at(Some(&entry));
                let woken = probe.machine.power_up(&probe.device);
                assert_eq!(status(woken), Some(FAILED), "{entry}");
                fail_at(None);
                // PnP removes it, and starts it again.
                probe.run_for(Duration::from_secs(1));
                assert!(probe.machine.is_in_d0(&probe.device).unwrap());
                probe.remove();
                check_undone(&entry, &journal());
            }
        }
    }
}

/// What every device goes through sooner or later.
fn whole_life(machine: &mut ntsim::Machine, device: &str) -> Result<(), Error> {
    machine.start_device(device)?;
    machine.run_for(Duration::from_millis(500))?;
    machine.stop_device(device)?;
    machine.restart_device(device)?;
    machine.sleep(Sleep::Hibernate)?;
    machine.wake()?;
    machine.place_special_file(device, SpecialFile::Paging)?;
    machine.remove_special_file(device, SpecialFile::Paging)?;
    machine.power_down(device)?;
    machine.power_up(device)?;
    machine.remove_device(device)
}

#[test]
fn every_fallible_call_may_fail_under_every_policy_and_schedule() {
    let mut points = 0;
    for policy in 0..POLICIES.len() {
        for seed in 0..5 {
            for point in 1.. {
                choose(policy, policy);
                let what = format!("{:?}, seed {seed}, point {point}", POLICIES[policy]);
                let Probe {
                    mut machine,
                    device,
                } = Probe::new(Hooks::DRIVER_ENTRY, seed);
                machine.fail_nth(Some(point));
                let result = whole_life(&mut machine, &device);
                let failed = machine.fallible_calls().failed;
                machine.fail_nth(None);
                let Some(failed) = failed else {
                    result.unwrap_or_else(|error| panic!("{what}: {error}"));
                    break;
                };
                points += 1;
                assert_eq!(
                    status(result),
                    Some(NtStatus::INSUFFICIENT_RESOURCES.to_raw().cast_unsigned()),
                    "{what} ({failed})"
                );
                if machine.started_devices().contains(&device) {
                    machine
                        .remove_device(&device)
                        .unwrap_or_else(|error| panic!("{what} ({failed}): {error}"));
                }
                check_undone(&what, &journal());
                whole_life(&mut machine, &device)
                    .unwrap_or_else(|error| panic!("{what} ({failed}): second try: {error}"));
                journal();
            }
            journal();
        }
    }
    assert!(points > 7 * 5 * 8, "{points}: is anything injected?");
}
