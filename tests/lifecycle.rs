// SPDX-License-Identifier: MIT OR Apache-2.0

//! The lives of devices and modules: order, policies, failures at every point.

#[path = "support/probe.rs"]
mod probe;
#[path = "support/tree.rs"]
#[allow(dead_code, reason = "each test program uses some of it")]
mod tree;

use dmf::prelude::*;
use ntsim::machine::{Error, Sleep};
use probe::Probe;
use tree::{GuestConfig, Tree, drop_kept, fail_at, journal, keep, kept};

const INSUFFICIENT_RESOURCES: u32 = 0xC000_009A;

/// What the journal says, but for the watcher and the client's callbacks.
fn tree_only(journal: Vec<String>) -> Vec<String> {
    let others = ["watcher", "post open", "pre close", "device query"];
    journal
        .into_iter()
        .filter(|line| !others.iter().any(|other| line.starts_with(other)))
        .collect()
}

#[test]
fn each_step_goes_through_the_tree_in_its_order_and_each_policy_opens_at_its_moment() {
    let mut probe = Probe::new(Tree::DRIVER_ENTRY, 0);
    probe.start().unwrap();
    assert_eq!(
        tree_only(journal()),
        [
            "top create",
            "middle create",
            "leaf create",
            "leaf assign",
            "leaf prepare",
            "leaf open",
            "middle assign",
            "middle prepare",
            "top assign",
            "top prepare",
            "device prepare",
            "leaf d0 entry",
            "middle d0 entry",
            "middle open",
            "top d0 entry",
            "top open",
            "device d0 entry",
        ]
    );
    probe.power_down();
    // The middle one stays open while the system does not lose power.
    assert_eq!(
        tree_only(journal()),
        [
            "device d0 exit",
            "top close",
            "top d0 exit",
            "middle d0 exit",
            "leaf d0 exit"
        ]
    );
    probe.power_up();
    assert_eq!(
        tree_only(journal()),
        [
            "leaf d0 entry",
            "middle d0 entry",
            "top d0 entry",
            "top open",
            "device d0 entry"
        ]
    );
    probe.remove();
    assert_eq!(
        tree_only(journal()),
        [
            "device d0 exit",
            "top close",
            "top d0 exit",
            "middle close",
            "middle d0 exit",
            "leaf d0 exit",
            "device release",
            "top release",
            "middle release",
            "leaf close",
            "leaf release",
            "top drop",
            "middle drop",
            "leaf drop",
        ]
    );
}

#[test]
fn a_module_that_sleeps_when_its_device_is_removed_is_closed_before_its_hardware_goes() {
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    probe.power_down();
    journal();
    probe.remove();
    assert_eq!(
        tree_only(journal())[..4],
        [
            "device release",
            "top release",
            "middle close",
            "middle release"
        ]
    );
}

#[test]
fn clients_find_the_module_open_after_it_opened_and_before_it_closes() {
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    probe.remove();
    let told: Vec<_> = journal()
        .into_iter()
        .filter(|line| line.contains("methods work"))
        .collect();
    assert_eq!(
        told,
        [
            "post open: methods work: true",
            "pre close: methods work: true"
        ]
    );
}

#[test]
fn what_opened_before_a_failure_is_closed_in_reverse_order() {
    // (who fails, what follows)
    let cases: [(&'static str, &[&str]); 4] = [
        ("leaf open", &["leaf release"]),
        ("middle open", &["middle d0 exit", "leaf d0 exit"]),
        (
            "top open",
            &[
                "top d0 exit",
                "middle close",
                "middle d0 exit",
                "leaf d0 exit",
            ],
        ),
        (
            "device d0 entry",
            &[
                "top close",
                "top d0 exit",
                "middle close",
                "middle d0 exit",
                "leaf d0 exit",
            ],
        ),
    ];
    for (fails, expected) in cases {
        let mut probe = Probe::new(Tree::DRIVER_ENTRY, 0);
        fail_at(Some(fails));
        let error = probe.start().unwrap_err();
        let Error::Driver { status, .. } = error else {
            panic!("{fails}: {error}")
        };
        assert_eq!(status, NtStatus::DEVICE_DATA_ERROR.to_raw().cast_unsigned());
        let lines = tree_only(journal());
        let at = lines.iter().position(|line| line == fails).unwrap();
        assert_eq!(lines[at + 1..][..expected.len()], *expected, "{fails}");
        fail_at(None);
        probe.start().unwrap();
        probe.remove();
        journal();
    }
}

#[test]
fn a_device_may_refuse_its_removal() {
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    fail_at(Some("device query remove"));
    assert!(probe.machine.remove_device(&probe.device).is_err());
    fail_at(None);
    probe.remove();
}

#[test]
fn a_module_opens_and_closes_itself_only_while_it_is_registered() {
    keep();
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    probe.thread(|irql| {
        let kept = kept();
        let opener = kept.opener.unwrap();
        assert_eq!(kept.watcher.look(), Err(NtStatus::INVALID_DEVICE_STATE));
        opener.open(irql).unwrap();
        opener.open(irql).unwrap(); // stays open
        kept.watcher.look().unwrap();
        opener.close(irql).unwrap();
        opener.close(irql).unwrap();
        assert_eq!(kept.watcher.look(), Err(NtStatus::INVALID_DEVICE_STATE));
        opener.open(irql).unwrap();
    });
    journal();
    probe.power_down();
    let lines = journal();
    let at = lines
        .iter()
        .position(|line| line == "watcher unregister")
        .unwrap();
    assert_eq!(lines[at + 1], "watcher close");
    probe.thread(|irql| {
        let opener = kept().opener.unwrap();
        assert_eq!(opener.open(irql), Err(NtStatus::INVALID_DEVICE_STATE));
        drop_kept();
    });
    probe.remove();
}

#[test]
fn a_dynamic_module_lives_until_dropped_or_until_its_owner_goes() {
    keep();
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    let left = probe.thread(|irql| {
        let owner = kept().device;
        let guest = owner.create(irql, GuestConfig).unwrap();
        let handle = guest.handle().clone();
        handle.look().unwrap();
        guest.close(irql);
        assert_eq!(handle.look(), Err(NtStatus::INVALID_DEVICE_STATE));
        drop(handle);
        journal();
        let left = owner.create(irql, GuestConfig).unwrap();
        left.look().unwrap();
        std::mem::ManuallyDrop::new(left)
    });
    probe.thread(|_| drop_kept());
    // The shell is dropped after the device has gone; the driver stays for another.
    journal();
    let device = probe.machine.plug_in(r"Root\Probe").unwrap();
    probe.machine.start_device(&device).unwrap();
    probe.machine.remove_device(&probe.device).unwrap();
    assert!(journal().iter().any(|line| line == "guest close"));
    probe.thread(|irql| {
        let left = std::mem::ManuallyDrop::into_inner(left);
        assert_eq!(left.look(), Err(NtStatus::INVALID_DEVICE_STATE));
        left.close(irql);
        drop_kept();
    });
    probe.machine.remove_device(&device).unwrap();
}

#[test]
fn a_dynamic_module_that_is_dropped_under_a_spin_lock_stops_the_machine() {
    keep();
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    let stop = probe.machine.run_thread("main", || {
        let guest = kept()
            .device
            .create(&probe::passive(), GuestConfig)
            .unwrap();
        SpinLock::new(()).with(|()| drop(guest));
    });
    let stop = stop.expect_err("the simulation should have been stopped");
    let message = "a Dynamic module was dropped at IRQL 2";
    assert!(stop.message.contains(message), "{stop}");
}

#[test]
fn a_thread_that_is_leaked_and_outlives_its_driver_stops_the_machine() {
    let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
    probe.thread(|irql| {
        let thread = Thread::spawn(irql, |irql| {
            dmf::sync::delay(irql, Duration::from_mins(1));
        });
        std::mem::forget(thread);
    });
    let error = probe.machine.remove_device(&probe.device).unwrap_err();
    // https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xce--driver-unloaded-without-cancelling-pending-operations
    assert!(error.to_string().contains("0xCE"), "{error}");
}

/// Fails every fallible call of `life`, one after the other, each on a new
/// machine; then the same machine has to succeed.
fn walk_every_point(
    what: &str,
    can_do_without: &[&str],
    make: impl Fn() -> (ntsim::Machine, String),
    life: impl Fn(&mut ntsim::Machine, &str) -> Result<(), Error>,
) -> u64 {
    for point in 1.. {
        let (mut machine, device) = make();
        machine.fail_nth(Some(point));
        let result = life(&mut machine, &device);
        let report = machine.fallible_calls().clone();
        let Some(failed) = report.failed else {
            result.unwrap_or_else(|error| panic!("{what} without a failure: {error}"));
            println!("{what}: {} points, {:?}", report.calls, report.by_name);
            return report.calls;
        };
        // Either it was told so, or it went on without.
        match result {
            Ok(()) => assert!(
                can_do_without.contains(&failed),
                "{what}, point {point}: {failed} failed, and nobody was told"
            ),
            Err(Error::Driver { status, .. }) => {
                assert_eq!(
                    status, INSUFFICIENT_RESOURCES,
                    "{what}, point {point} ({failed})"
                );
            }
            Err(error) => panic!("{what}, point {point} ({failed}): {error}"),
        }
        machine.fail_nth(None);
        if machine.started_devices().contains(&device) {
            // It failed on its way up or down, and is to be removed.
            machine.remove_device(&device).unwrap_or_else(|error| {
                panic!("{what}, point {point} ({failed}): removal: {error}")
            });
        }
        life(&mut machine, &device).unwrap_or_else(|error| {
            panic!("{what}, point {point} ({failed}): second try: {error}")
        });
    }
    unreachable!()
}

/// Load, add, start, sleep, wake, remove: the simulator reports what is left.
fn whole_life(machine: &mut ntsim::Machine, device: &str) -> Result<(), Error> {
    machine.start_device(device)?;
    machine.run_for(Duration::from_secs(1))?;
    machine.power_down(device)?;
    machine.power_up(device)?;
    machine.run_for(Duration::from_secs(1))?;
    machine.remove_device(device)
}

/// How many schedules the injection is walked under.
const SCHEDULES: u64 = 5;

#[test]
fn every_fallible_call_of_a_tree_of_modules_may_fail() {
    for seed in 0..SCHEDULES {
        let points = walk_every_point(
            &format!("tree, seed {seed}"),
            &[],
            || {
                let Probe { machine, device } = Probe::new(Tree::DRIVER_ENTRY, seed);
                (machine, device)
            },
            whole_life,
        );
        assert!(points >= 15, "{points}: is anything injected?");
    }
}

#[test]
fn a_dynamic_module_that_cannot_be_made_leaves_nothing_behind() {
    for point in 1.. {
        keep();
        let mut probe = Probe::started(Tree::DRIVER_ENTRY, 0);
        probe.machine.fail_nth(Some(point));
        let result = probe.thread(|irql| {
            let guest = kept().device.create(irql, GuestConfig);
            guest.map(drop)
        });
        let failed = probe.machine.fallible_calls().failed;
        probe.machine.fail_nth(None);
        probe.thread(|irql| {
            let guest = kept().device.create(irql, GuestConfig).unwrap();
            guest.look().unwrap();
            drop(guest);
            drop_kept();
        });
        probe.remove();
        if failed.is_none() {
            result.unwrap();
            assert!(point > 2, "is anything injected?");
            return;
        }
        assert_eq!(result, Err(NtStatus::INSUFFICIENT_RESOURCES), "{failed:?}");
    }
}

#[test]
fn every_fallible_call_of_the_sensor_may_fail() {
    for seed in 0..SCHEDULES {
        let points = walk_every_point(
            &format!("sensor, seed {seed}"),
            // A task whose record cannot be read runs, and one whose record cannot
            // be written is reported: `PersistenceFailure`. A thread without a
            // reference keeps its handle.
            &[
                "WDFKEY",
                "WdfRegistryQueryValue",
                "WdfRegistryAssignULong",
                "ObReferenceObjectByHandle",
            ],
            || {
                let Probe { machine, device } = Probe::new(sensor::Sensor::DRIVER_ENTRY, seed);
                (machine, device)
            },
            whole_life,
        );
        assert!(points >= 20, "{points}: is anything injected?");
    }
}

/// A program that reads what it wrote, then the mailbox sleeps and goes.
fn life_of_a_mailbox(machine: &mut ntsim::Machine, device: &str) -> Result<(), Error> {
    machine.start_device(device)?;
    machine.stop_device(device)?;
    machine.restart_device(device)?;
    let file = machine.open(&mailbox::interface::MAILBOX.to_string())?;
    let ends = [
        machine.write(file, b"hello")?.status,
        // One that stays unanswered must not hold the machine up.
        {
            let read = machine.begin_read(file, 16)?;
            machine.run_for(Duration::from_secs(1))?;
            machine.cancel(read)?;
            machine
                .wait(read, Duration::from_secs(1))?
                .expect("it was answered or cancelled")
                .status
        },
    ];
    machine.close(file)?;
    if let Some(status) = ends
        .into_iter()
        .find(|status| *status == INSUFFICIENT_RESOURCES)
    {
        let what = "a request".to_owned();
        return Err(Error::Driver { what, status });
    }
    machine.sleep(Sleep::Hibernate)?;
    machine.wake()?;
    machine.run_for(Duration::from_secs(20))?;
    machine.remove_device(device)
}

#[test]
fn every_fallible_call_of_the_mailbox_may_fail() {
    for seed in 0..SCHEDULES {
        let points = walk_every_point(
            &format!("mailbox, seed {seed}"),
            &[],
            || {
                let entry = mailbox::Mailbox::DRIVER_ENTRY;
                let Probe { machine, device } = Probe::new(entry, seed);
                (machine, device)
            },
            life_of_a_mailbox,
        );
        assert!(points >= 10, "{points}: is anything injected?");
    }
}
