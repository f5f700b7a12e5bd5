// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files of `dmf`: who may refuse one, what is attached to it and when that
//! goes, and the order of cleanup, close and requests, also around removal.

#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::sync::Mutex;
use std::time::Duration;

use dmf::prelude::*;
use dmf::wdf::{
    DefaultQueue, FileAnswer, FileCleanup, FileClose, FileCreate, ManualQueue, Offer,
    QueueCallback, Read, Request, Write,
};
use ntsim::machine::Error;
use ntsim::{File, Pending};
use probe::Probe;

const SEEDS: u64 = 32;
const CANCELLED: u32 = 0xC000_0120;
const ACCESS_DENIED: u32 = 0xC000_0022;

thread_local! {
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

fn journal() -> Vec<String> {
    JOURNAL.take()
}

dmf::driver!(Cabinet);

struct Cabinet {
    /// The driver's, until the next write.
    held: Mutex<Option<Request<Write>>>,
    reads: ManualQueue<Read>,
}

/// What was behind the device's name.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        note(format!("{} dropped", self.0));
    }
}

struct Other;

impl Device for Cabinet {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel().not_power_managed())?;
        add.symbolic_link(dmf::unicode_string!(r"\DosDevices\Cabinet"))?;
        let reads = add.manual_queue(ManualQueue::config().for_requests())?;
        Ok(Cabinet {
            held: Mutex::new(None),
            reads,
        })
    }

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        let name = cx.file().name(cx.irql()).to_string();
        note(format!("create {name}"));
        cx.attach(Name(name.clone())).unwrap();
        assert!(cx.file().context::<Other>().is_none());
        cx.attach(Other).unwrap();
        // One of each type.
        let twice = cx.attach(Other).unwrap_err();
        assert_eq!(twice, NtStatus::OBJECT_NAME_COLLISION);
        if name.contains("secret") {
            FileAnswer::Refused(NtStatus::ACCESS_DENIED)
        } else {
            FileAnswer::Accepted
        }
    }

    fn file_cleanup(&self, cx: &mut FileCleanup<'_>) {
        note(format!(
            "cleanup {}",
            cx.file().context::<Name>().unwrap().0
        ));
    }

    fn file_close(&self, cx: &mut FileClose<'_>) {
        note(format!("close {}", cx.file().context::<Name>().unwrap().0));
    }

    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        let before = self.held.lock().unwrap().take();
        if let Some(before) = before {
            // A request keeps its file, though its handle is closed.
            note(format!(
                "completing {}",
                before.file().unwrap().context::<Name>().unwrap().0
            ));
            before.complete(Ok(1));
            request.complete(Ok(1));
        } else {
            *self.held.lock().unwrap() = Some(request);
        }
        Offer::Handled
    }

    fn surprise_removal(&self, cx: &mut SurpriseRemoval<'_>) {
        let _ = self.reads.purge(cx.irql());
        let held = self.held.lock().unwrap().take();
        drop(held);
    }
}

fn open(probe: &mut Probe, name: &str) -> File {
    probe
        .machine
        .open(&format!(r"\\.\Cabinet\{name}"))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn status(probe: &mut Probe, pending: Pending) -> Option<u32> {
    let ended = probe.machine.wait(pending, Duration::from_secs(1));
    ended
        .unwrap_or_else(|error| panic!("{error}"))
        .map(|ended| ended.status)
}

fn each(test: impl Fn(u64, Probe)) {
    for seed in 0..SEEDS {
        let probe = Probe::started(Cabinet::DRIVER_ENTRY, seed);
        journal();
        test(seed, probe);
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_device_file_create>
#[test]
fn a_file_that_is_refused_is_neither_cleaned_up_nor_closed_and_loses_what_was_attached() {
    each(|seed, mut probe| {
        match probe.machine.open(r"\\.\Cabinet\secret") {
            Err(Error::Driver { status, .. }) => assert_eq!(status, ACCESS_DENIED, "seed {seed}"),
            other => panic!("seed {seed}: {other:?}"),
        }
        assert_eq!(
            journal(),
            [r"create \secret", r"\secret dropped"],
            "seed {seed}"
        );
        probe.remove();
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nc-wdfdevice-evt_wdf_file_close>
#[test]
fn a_file_is_closed_when_its_last_request_is_completed() {
    each(|seed, mut probe| {
        let first = open(&mut probe, "a");
        let second = open(&mut probe, "b");
        journal();
        let write = probe.machine.begin_write(first, b"1").unwrap();
        let read = probe.machine.begin_read(first, 1).unwrap();
        probe.machine.close(first).unwrap();
        assert_eq!(journal(), [r"cleanup \a"], "seed {seed}");
        assert_eq!(
            status(&mut probe, read),
            Some(CANCELLED),
            "seed {seed}: what waits in a queue goes with its file"
        );
        assert_eq!(status(&mut probe, write), None, "seed {seed}");
        assert!(probe.machine.write(second, b"2").unwrap().is_success());
        assert_eq!(
            journal(),
            [r"completing \a", r"close \a", r"\a dropped"],
            "seed {seed}"
        );
        assert_eq!(status(&mut probe, write), Some(0), "seed {seed}");
        probe.machine.close(second).unwrap();
        assert_eq!(
            journal(),
            [r"cleanup \b", r"close \b", r"\b dropped"],
            "seed {seed}"
        );
        probe.remove();
    });
}

/// A device that is pulled out stays until its files are closed:
/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/surprise-removal-sequence>
#[test]
fn files_outlive_a_surprise_removal_and_lose_what_was_attached_when_they_are_closed() {
    each(|seed, mut probe| {
        let file = open(&mut probe, "a");
        let write = probe.machine.begin_write(file, b"1").unwrap();
        let read = probe.machine.begin_read(file, 1).unwrap();
        journal();
        let device = probe.device.clone();
        probe
            .machine
            .surprise_remove(&device)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for pending in [write, read] {
            assert_eq!(status(&mut probe, pending), Some(CANCELLED), "seed {seed}");
        }
        assert!(!journal().iter().any(|line| line.contains("dropped")));
        probe
            .machine
            .close(file)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let journal = journal();
        assert_eq!(
            journal.last().map(String::as_str),
            Some(r"\a dropped"),
            "seed {seed}: {journal:?}"
        );
    });
}
