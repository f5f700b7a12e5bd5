// SPDX-License-Identifier: MIT OR Apache-2.0

//! I/O targets and the driver's own requests, of `dmf`: sent, cancelled, timed
//! out, used again, and what filters pass on.

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::string::UnicodeStr;
use dmf::wdf::{
    Canceller, DefaultQueue, DeviceInit, IoTarget, Memory, Offer, OwnRequest, OwnSender,
    QueueCallback, Read, RemoteTarget, Request, Sender, Sent, SentIo, TargetAccess, TargetState,
    Write,
};
use ntsim::{Answer, LowerRequest};
use probe::Probe;

const SEEDS: u64 = 64;
const DOUBLE: IoctlCode<u32, u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x900, Access::Any);

/// What the device does with reads of its users.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Answers them.
    Serve,
    /// Sends them down, and completes them when they are back.
    Send(Timeout),
    /// Passes them on for good.
    Forward,
    /// Is a filter, and declines them.
    Filter,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Landed {
    status: NtStatus,
    information: usize,
    output: Vec<u8>,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Serve) };
    /// The first device.
    static LAB: RefCell<Option<Owner<Lab>>> = const { RefCell::new(None) };
    static LANDED: RefCell<Vec<Landed>> = const { RefCell::new(Vec::new()) };
    /// Send what lands once more, so many times.
    static AGAIN: Cell<u32> = const { Cell::new(0) };
    /// Where a request is kept that landed.
    static KEPT: RefCell<Option<OwnRequest>> = const { RefCell::new(None) };
}

dmf::driver!(Lab);

struct Lab {
    lower: IoTarget,
    remote: RemoteTarget,
    sender: OwnSender,
    passer: Sender<Read>,
}

impl Device for Lab {
    fn describe(init: DeviceInit<'_>) -> Result<DeviceInit<'_>> {
        Ok(match ROLE.get() {
            Role::Filter => init.filter(),
            _ => init,
        })
    }

    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        let owner = add.owner();
        LAB.with_borrow_mut(|lab| lab.get_or_insert(owner).enter().is_ok());
        Ok(Lab {
            lower: add.io_target(),
            remote: add.remote_target()?,
            sender: add.own_sender(Lab::landed),
            passer: add.sender(Lab::passed),
        })
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        match ROLE.get() {
            Role::Serve => request.complete_with_bytes(b"served"),
            Role::Send(timeout) => drop(self.passer.send(request, timeout)),
            Role::Forward => drop(self.lower.forward(request)),
            Role::Filter => return Offer::Declined(request),
        }
        Offer::Handled
    }

    /// A filter takes writes itself.
    fn io_write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) -> Offer<Write> {
        let length = request.len();
        request.complete(Ok(length));
        Offer::Handled
    }
}

impl Lab {
    fn landed(&self, request: OwnRequest, sent: Sent) {
        LANDED.with_borrow_mut(|landed| {
            landed.push(Landed {
                status: sent.status(),
                information: sent.information(),
                output: request.output().to_vec(),
            });
        });
        let again = AGAIN.get();
        if again > 0 {
            AGAIN.set(again - 1);
            self.sender
                .send(&self.lower, request, Timeout::Never)
                .unwrap();
        } else {
            KEPT.set(Some(request));
        }
    }

    #[expect(clippy::unused_self, reason = "a function of the device")]
    fn passed(&self, request: Request<Read>, sent: Sent) {
        note_status(sent.status());
        request.complete_with(sent.status(), sent.information());
    }
}

fn note_status(status: NtStatus) {
    LANDED.with_borrow_mut(|landed| {
        landed.push(Landed {
            status,
            information: 0,
            output: Vec::new(),
        });
    });
}

fn landed() -> Vec<Landed> {
    LANDED.take()
}

fn statuses() -> Vec<NtStatus> {
    landed().into_iter().map(|landed| landed.status).collect()
}

fn lab() -> Owner<Lab> {
    LAB.with_borrow(Clone::clone).unwrap()
}

fn started(seed: u64, role: Role, answer: impl Fn(&LowerRequest) -> Answer + 'static) -> Probe {
    LAB.set(None);
    LANDED.take();
    AGAIN.set(0);
    ROLE.set(role);
    let mut probe = Probe::new(Lab::DRIVER_ENTRY, seed);
    let device = probe.device.clone();
    probe.machine.set_lower_driver(&device, answer);
    probe.start().unwrap();
    probe
}

/// Removes the device. The simulator reports what is left behind.
fn end(mut probe: Probe) {
    probe.thread(|_| KEPT.set(None));
    LAB.set(None);
    probe.remove();
}

fn read_of(length: usize) -> OwnRequest {
    let mut request = OwnRequest::new().unwrap();
    request.set_read(Memory::new(length).unwrap(), 0x100);
    request
}

fn after(milliseconds: u64, bytes: &[u8]) -> Answer {
    Answer::After(Duration::from_millis(milliseconds), 0, bytes.to_vec())
}

// ---- own requests ---------------------------------------------------------

#[test]
fn an_own_request_comes_back_with_its_buffer_and_is_sent_again() {
    let mut probe = started(1, Role::Serve, |asked| match asked {
        LowerRequest::Read {
            length: 4,
            offset: 0x100,
        } => after(20, b"abc"),
        other => panic!("{other:?}"),
    });
    AGAIN.set(2);
    probe.thread(|_| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        lab.sender
            .send(&lab.lower, read_of(4), Timeout::Never)
            .unwrap();
        assert_eq!(landed(), []);
    });
    probe.run_for(Duration::from_secs(1));
    let one = Landed {
        status: NtStatus::SUCCESS,
        information: 3,
        output: b"abc\0".to_vec(),
    };
    assert_eq!(landed(), [one.clone(), one.clone(), one]);
    end(probe);
}

#[test]
fn a_typed_ioctl_gives_its_answer_or_says_what_was_wrong() {
    let mut probe = started(1, Role::Serve, |asked| match asked {
        LowerRequest::Control { input, .. } => {
            let value = u32::from_le_bytes(input[..4].try_into().unwrap());
            match value {
                0 => Answer::Now(NtStatus::NOT_FOUND.to_raw().cast_unsigned(), Vec::new()),
                1 => Answer::Now(0, vec![1]),
                value => Answer::Now(0, (value * 2).to_le_bytes().to_vec()),
            }
        }
        other => panic!("{other:?}"),
    });
    probe.thread(|irql| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        let mut request = OwnRequest::new().unwrap();
        let mut ask = |value| {
            request.set_ioctl(DOUBLE, value)?;
            let sent = request.send_and_wait(irql, &lab.lower, Timeout::Never)?;
            request.answer(DOUBLE, sent)
        };
        assert_eq!(ask(21), Ok(42));
        assert_eq!(ask(0), Err(NtStatus::NOT_FOUND));
        assert_eq!(ask(1), Err(NtStatus::INFO_LENGTH_MISMATCH), "too short");
        assert_eq!(ask(4), Ok(8));
    });
    end(probe);
}

#[test]
fn waiting_ends_with_the_timeout_and_the_request_is_good_for_more() {
    let mut probe = started(1, Role::Serve, |_| Answer::Never);
    probe.thread(|irql| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        let mut request = read_of(1);
        for _ in 0..3 {
            let sent = request.send_and_wait(irql, &lab.lower, Duration::from_millis(50));
            assert_eq!(sent.unwrap().status(), NtStatus::IO_TIMEOUT);
        }
        lab.sender
            .send(&lab.lower, request, Duration::from_millis(50))
            .unwrap();
    });
    probe.run_for(Duration::from_secs(1));
    assert_eq!(statuses(), [NtStatus::IO_TIMEOUT]);
    end(probe);
}

#[test]
fn what_is_not_sent_comes_back_with_its_buffers_and_the_reason() {
    let mut probe = started(1, Role::Serve, |asked| panic!("{asked:?}"));
    probe.thread(|irql| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        let begin = |request| lab.sender.send(&lab.lower, request, Timeout::Never);
        let nothing = begin(OwnRequest::new().unwrap()).unwrap_err();
        assert_eq!(nothing.status(), NtStatus::INVALID_DEVICE_REQUEST);
        lab.lower.purge(irql).unwrap();
        assert_eq!(lab.lower.state(), Ok(TargetState::Purged));
        let refused = begin(read_of(3)).unwrap_err();
        assert_eq!(refused.status(), NtStatus::INVALID_DEVICE_STATE);
        let mut request = refused.into_request();
        assert_eq!(request.output(), [0; 3]);
        let sent = request.send_and_wait(irql, &lab.lower, Timeout::Never);
        assert_eq!(sent.unwrap_err(), NtStatus::INVALID_DEVICE_STATE);
        assert_eq!(request.take_output().unwrap().len(), 3);
        let taken = request.send_and_wait(irql, &lab.lower, Timeout::Never);
        assert_eq!(taken.unwrap_err(), NtStatus::INVALID_DEVICE_REQUEST);
    });
    assert_eq!(landed(), []);
    end(probe);
}

#[test]
fn each_call_that_fails_is_an_error_and_loses_nothing() {
    let mut failed = 0;
    for point in 1.. {
        let mut probe = started(1, Role::Serve, |_| Answer::Now(0, b"abcd".to_vec()));
        probe.machine.fail_nth(Some(point));
        let result = probe.thread(|_| {
            let lab = lab();
            let lab = lab.enter().unwrap();
            let mut request = OwnRequest::new()?;
            request.set_ioctl(DOUBLE, 1)?;
            let canceller = lab
                .sender
                .send_cancelable(&lab.lower, request, Timeout::Never)?;
            // It is somewhere: the next sending needs an object of its own.
            let request = KEPT.take().unwrap();
            lab.sender.send(&lab.lower, request, Timeout::Never)?;
            drop(canceller);
            Ok(())
        });
        let injected = probe.machine.fallible_calls().failed.is_some();
        probe.machine.fail_nth(None);
        assert_eq!(
            result.err(),
            injected.then_some(NtStatus::INSUFFICIENT_RESOURCES)
        );
        end(probe);
        if !injected {
            break;
        }
        failed += 1;
    }
    assert!(failed >= 4, "{failed}: is anything injected?");
}

// ---- cancelling -------------------------------------------------------------

#[test]
fn cancelling_asks_the_target_and_comes_too_late_for_another_sending() {
    let mut probe = started(1, Role::Serve, |_| Answer::Never);
    probe.thread(|_| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        let send = |request| {
            lab.sender
                .send_cancelable(&lab.lower, request, Timeout::Never)
                .unwrap()
        };
        let first = send(read_of(1));
        assert!(first.clone().cancel());
        assert_eq!(statuses(), [NtStatus::CANCELLED]);
        assert!(!first.cancel(), "it is back");
        let second = send(KEPT.take().unwrap());
        assert!(!first.cancel(), "not the one that it was for");
        assert_eq!(statuses(), []);
        drop(first);
        assert!(second.cancel());
        assert_eq!(statuses(), [NtStatus::CANCELLED]);
        KEPT.set(None);
        assert!(!second.cancel(), "the request is gone");
    });
    end(probe);
}

#[test]
fn cancellation_answer_and_timeout_race_and_the_request_lands_once() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut probe = started(seed, Role::Serve, |_| after(31, b"data"));
        let timeout = match seed % 2 {
            0 => Timeout::After(Duration::from_millis(31)),
            _ => Timeout::Never,
        };
        let [one, two]: [Canceller; 2] = probe.thread(move |_| {
            let lab = lab();
            let lab = lab.enter().unwrap();
            let sent = lab.sender.send_cancelable(&lab.lower, read_of(4), timeout);
            let canceller = sent.unwrap();
            [canceller.clone(), canceller]
        });
        let threads = [("one", one), ("two", two)].map(|(name, canceller)| {
            probe.machine.spawn_thread(name, move || {
                let irql = probe::passive();
                dmf::sync::delay(&irql, Duration::from_millis(31));
                canceller.cancel();
            })
        });
        for thread in threads {
            probe.machine.join(thread).unwrap();
        }
        probe.run_for(Duration::from_secs(1));
        let [one] = &statuses()[..] else {
            panic!("seed {seed}: not once");
        };
        seen.insert(one.to_raw());
        end(probe);
    }
    for status in [NtStatus::SUCCESS, NtStatus::CANCELLED, NtStatus::IO_TIMEOUT] {
        assert!(seen.contains(&status.to_raw()), "never {status}: {seen:x?}");
    }
}

#[test]
fn a_request_that_is_sent_does_not_keep_the_device_from_its_removal() {
    for seed in 0..8 {
        let mut probe = started(seed, Role::Serve, |_| Answer::Never);
        let canceller = probe.thread(|_| {
            let lab = lab();
            let lab = lab.enter().unwrap();
            lab.sender
                .send_cancelable(&lab.lower, read_of(4), Timeout::Never)
                .unwrap()
        });
        probe.thread(move |_| drop(canceller));
        end(probe);
        KEPT.set(None);
    }
}

// ---- the target's state -------------------------------------------------------

#[test]
fn a_stopped_target_keeps_requests_until_it_is_started() {
    let mut probe = started(1, Role::Serve, |_| after(20, b"late"));
    probe.thread(|irql| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        assert_eq!(lab.lower.state(), Ok(TargetState::Started));
        lab.lower.stop(irql, SentIo::Leave).unwrap();
        let sent = lab.sender.send(&lab.lower, read_of(4), Timeout::Never);
        sent.unwrap();
        dmf::sync::delay(irql, Duration::from_millis(100));
        assert_eq!(lab.lower.state(), Ok(TargetState::Stopped));
        assert_eq!(landed(), []);
        lab.lower.start(irql).unwrap();
        lab.lower.stop(irql, SentIo::Wait).unwrap();
        assert_eq!(statuses(), [NtStatus::SUCCESS]);
        lab.lower.start(irql).unwrap();
        let sent = lab.sender.send(&lab.lower, read_of(4), Timeout::Never);
        sent.unwrap();
        lab.lower.stop(irql, SentIo::Cancel).unwrap();
        assert_eq!(statuses(), [NtStatus::CANCELLED]);
        lab.lower.start(irql).unwrap();
    });
    end(probe);
}

// ---- remote targets --------------------------------------------------------------

#[test]
fn a_remote_target_reaches_another_device_until_that_is_removed() {
    let mut probe = started(1, Role::Serve, |asked| panic!("{asked:?}"));
    let other = probe.machine.plug_in(r"Root\Probe").unwrap();
    probe.machine.start_device(&other).unwrap();
    let name: Vec<u16> = other.encode_utf16().collect();
    probe.thread(move |irql| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        let name = UnicodeStr::new(&name).unwrap();
        assert_eq!(
            lab.remote.reopen(irql),
            Err(NtStatus::INVALID_DEVICE_REQUEST)
        );
        let closed = lab.sender.send(&lab.remote, read_of(8), Timeout::Never);
        assert_eq!(closed.unwrap_err().status(), NtStatus::INVALID_DEVICE_STATE);
        let open = || lab.remote.open(irql, name, TargetAccess::ReadWrite);
        open().unwrap();
        assert_eq!(open(), Err(NtStatus::INVALID_DEVICE_STATE));
        assert_eq!(lab.remote.state(), Ok(TargetState::Started));
        lab.sender
            .send(&lab.remote, read_of(8), Timeout::Never)
            .unwrap();
        let mut buffer = [0; 8];
        let count = lab.remote.read(irql, &mut buffer, 0, Timeout::Never);
        assert_eq!(&buffer[..count.unwrap()], b"served");
        assert_eq!(landed()[0].output, b"served\0\0");
        lab.remote.close(irql).unwrap();
        assert_eq!(lab.remote.state(), Ok(TargetState::Closed));
        lab.remote.reopen(irql).unwrap();
    });
    probe.machine.remove_device(&other).unwrap();
    probe.thread(|_| {
        let lab = lab();
        let lab = lab.enter().unwrap();
        assert_eq!(lab.remote.state(), Ok(TargetState::Closed));
    });
    end(probe);
}

// ---- requests of users ------------------------------------------------------------

fn user_read(probe: &mut Probe) -> ntsim::Completion {
    let device = probe.device.clone();
    let file = probe.machine.open(&device).unwrap();
    let read = probe.machine.read(file, 8).unwrap();
    probe.machine.close(file).unwrap();
    read
}

#[test]
fn a_received_request_is_sent_down_and_completed_when_it_is_back() {
    for (answer, status) in [
        (after(20, b"low"), NtStatus::SUCCESS),
        (Answer::Never, NtStatus::IO_TIMEOUT),
    ] {
        let role = Role::Send(Duration::from_millis(100).into());
        let mut probe = started(1, role, move |_| answer.clone());
        let read = user_read(&mut probe);
        assert_eq!(read.status, status.to_raw().cast_unsigned());
        assert_eq!(statuses(), [status]);
        if status.is_success() {
            assert_eq!(read.data, b"low");
        }
        end(probe);
    }
}

#[test]
fn a_received_request_is_passed_on_for_good() {
    let mut probe = started(1, Role::Forward, |_| after(20, b"low"));
    assert_eq!(user_read(&mut probe).bytes(), Ok(b"low".to_vec()));
    end(probe);
}

#[test]
fn a_filter_passes_on_what_nobody_takes_and_handles_the_rest() {
    let mut probe = started(1, Role::Filter, |asked| match asked {
        LowerRequest::Write { .. } => panic!("the filter takes writes"),
        LowerRequest::Control { input, .. } => Answer::Now(0, input.clone()),
        _ => after(20, b"below"),
    });
    assert_eq!(user_read(&mut probe).bytes(), Ok(b"below".to_vec()));
    let device = probe.device.clone();
    let file = probe.machine.open(&device).unwrap();
    let written = probe.machine.write(file, b"123").unwrap();
    assert_eq!((written.status, written.information), (0, 3));
    let echoed = probe
        .machine
        .ioctl(file, DOUBLE.value(), b"echo", 8)
        .unwrap();
    assert_eq!(echoed.bytes(), Ok(b"echo".to_vec()));
    // What is passed on can be cancelled by its user.
    probe.machine.close(file).unwrap();
    end(probe);
}

#[test]
fn a_driver_that_is_no_filter_refuses_what_nobody_takes() {
    let mut probe = started(1, Role::Serve, |asked| panic!("{asked:?}"));
    let device = probe.device.clone();
    let file = probe.machine.open(&device).unwrap();
    let refused = probe
        .machine
        .ioctl(file, DOUBLE.value(), b"echo", 8)
        .unwrap();
    assert_eq!(
        refused.status,
        NtStatus::NOT_SUPPORTED.to_raw().cast_unsigned()
    );
    probe.machine.close(file).unwrap();
    end(probe);
}
