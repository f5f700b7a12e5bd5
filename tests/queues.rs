// SPDX-License-Identifier: MIT OR Apache-2.0

//! Queues of `dmf`: how many requests they deliver and when, what stopping,
//! draining and purging do, looking for requests, forwarding and requeuing,
//! power, and configurations that make no sense.

#[path = "support/probe.rs"]
mod probe;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::wdf::{
    Cancelable, DefaultQueue, Guid, InternalIoctl, IoStop, Ioctl, ManualQueue, Offer, Queue,
    QueueCallback, QueueConfig, Read, Request, RequestId, RequestType, Requestor, Taken, Write,
};
use ntsim::machine::Error;
use ntsim::{Completion, File, Pending};
use probe::Probe;

const SEEDS: u64 = 32;
const SUCCESS: u32 = 0;
const CANCELLED: u32 = 0xC000_0120;
const INVALID_DEVICE_REQUEST: u32 = 0xC000_0010;
const INVALID_DEVICE_STATE: u32 = 0xC000_0184;

const WDF_PAUSED: NtStatus = NtStatus::from_raw(0xC020_0203_u32.cast_signed());
const WDF_BUSY: NtStatus = NtStatus::from_raw(0xC020_0204_u32.cast_signed());
const WDF_NO_CALLBACK: NtStatus = NtStatus::from_raw(0xC020_020B_u32.cast_signed());

const DESK: Guid = Guid::parse("0b4a3c57-6f0e-4b77-a0a8-3b1b0b0a9f42");
/// Runs a test's own code in the driver: see [`Desk::run`].
const RUN: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x900, Access::Any);
const INTERNAL: IoctlCode<u32, u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x901, Access::Any);

type Setup = fn(&mut Modules<'_, Desk>) -> Result<Desk>;
type Job = Box<dyn FnOnce(&Desk, &Irql<'_, Passive>)>;

thread_local! {
    static SETUP: Cell<Setup> = const { Cell::new(holding) };
    static JOBS: RefCell<Vec<Option<Job>>> = const { RefCell::new(Vec::new()) };
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

fn journal() -> Vec<String> {
    JOURNAL.take()
}

dmf::driver!(Desk);

/// A device whose queues each test chooses. Its default queue is for [`RUN`].
#[derive(Default)]
struct Desk {
    writes: Option<Queue>,
    reads: Option<ManualQueue<Read>>,
    held: Mutex<Vec<Request<Write>>>,
    /// Taken out of `reads`.
    taken: Mutex<Vec<Request<Read>>>,
    kept: Mutex<Kept>,
}

/// What the driver keeps until it is told to stop.
#[derive(Default)]
struct Kept {
    requests: Vec<Cancelable<Write>>,
    stopped: bool,
}

impl Device for Desk {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel().not_power_managed())?;
        add.device_interface(DESK)?;
        SETUP.get()(add)
    }

    fn device_control(&self, cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request.on(RUN, |number| {
            let job = JOBS.with_borrow_mut(|jobs| jobs[number as usize].take());
            job.expect("each job is run once")(self, cx.irql());
            Ok(())
        })
    }

    fn internal_device_control(
        &self,
        _cx: &mut QueueCallback<'_>,
        request: Request<InternalIoctl>,
    ) -> Offer<InternalIoctl> {
        note(format!("internal, from {:?}", request.requestor()));
        request.on(INTERNAL, |number| Ok(number + 1))
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        match &self.reads {
            Some(reads) => {
                let _ = request.forward(reads);
                Offer::Handled
            }
            None => Offer::Declined(request),
        }
    }
}

impl Desk {
    fn hold(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) {
        note(format!("write {}", request.len()));
        self.held.lock().unwrap().push(request);
    }

    fn complete_oldest(&self) {
        let request = self.held.lock().unwrap().remove(0);
        let length = request.len();
        request.complete(Ok(length));
    }

    fn writes(&self) -> &Queue {
        self.writes.as_ref().unwrap()
    }

    fn reads(&self) -> &ManualQueue<Read> {
        self.reads.as_ref().unwrap()
    }

    fn ready(&self) {
        let mut count = 0;
        while let Ok(Some(read)) = self.reads().next() {
            self.taken.lock().unwrap().push(read);
            count += 1;
        }
        note(format!("ready, {count}"));
    }

    #[allow(
        clippy::unused_self,
        clippy::needless_pass_by_value,
        reason = "a handler is a function of the device, and dropping the request cancels it"
    )]
    fn canceled(&self, request: Request<Read>) {
        note(format!("canceled {}", request.len()));
    }
}

fn with_writes(add: &mut Modules<'_, Desk>, config: QueueConfig<Desk>) -> Result<Desk> {
    let config = config.for_requests(RequestType::Write);
    Ok(Desk {
        writes: Some(add.queue(config)?),
        ..Desk::default()
    })
}

fn holding(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    with_writes(add, QueueConfig::sequential().on_write(Desk::hold))
}

fn with_reads(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    let config = ManualQueue::config()
        .for_requests()
        .on_canceled(Desk::canceled);
    Ok(Desk {
        reads: Some(add.manual_queue(config)?),
        ..Desk::default()
    })
}

struct Bench {
    probe: Probe,
    file: File,
    seed: u64,
}

impl Bench {
    fn new(seed: u64, setup: Setup) -> Self {
        SETUP.set(setup);
        let mut probe = Probe::started(Desk::DRIVER_ENTRY, seed);
        let file = probe
            .machine
            .open(&DESK.to_string())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        journal();
        Self { probe, file, seed }
    }

    fn done<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Runs `body` in the driver, and gives what it returns.
    fn run<R: 'static>(
        &mut self,
        body: impl FnOnce(&Desk, &Irql<'_, Passive>) -> R + 'static,
    ) -> R {
        let (number, result) = job(body);
        let answer = self
            .probe
            .machine
            .ioctl(self.file, RUN.value(), &number.to_ne_bytes(), 0);
        assert_eq!(self.done(answer).status, SUCCESS);
        result.take().unwrap()
    }

    fn write(&mut self, length: usize) -> Pending {
        let pending = self.probe.machine.begin_write(self.file, &vec![0; length]);
        self.done(pending)
    }

    fn read(&mut self, length: usize) -> Pending {
        let pending = self.probe.machine.begin_read(self.file, length);
        self.done(pending)
    }

    fn cancel(&mut self, pending: Pending) {
        let result = self.probe.machine.cancel(pending);
        self.done(result);
    }

    /// How a request ended, if it did.
    fn ended(&mut self, pending: Pending) -> Option<Completion> {
        let ended = self.probe.machine.wait(pending, Duration::from_secs(1));
        self.done(ended)
    }

    fn status(&mut self, pending: Pending) -> u32 {
        let seed = self.seed;
        self.ended(pending)
            .unwrap_or_else(|| panic!("seed {seed}: a request is pending"))
            .status
    }

    /// Closes and removes: the simulator reports what is left behind.
    fn end(mut self) {
        let closed = self.probe.machine.close(self.file);
        self.done(closed);
        self.probe.remove();
    }
}

/// A job for [`RUN`], and where its result will be.
fn job<R: 'static>(
    body: impl FnOnce(&Desk, &Irql<'_, Passive>) -> R + 'static,
) -> (u32, Rc<Cell<Option<R>>>) {
    let result = Rc::new(Cell::new(None));
    let slot = result.clone();
    let job: Job = Box::new(move |desk, irql| slot.set(Some(body(desk, irql))));
    let number = JOBS.with_borrow_mut(|jobs| {
        jobs.push(Some(job));
        jobs.len() - 1
    });
    (u32::try_from(number).unwrap(), result)
}

fn each(setup: Setup, test: impl Fn(&mut Bench)) {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, setup);
        test(&mut bench);
        bench.end();
    }
}

// ---- how many and when --------------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/dispatching-methods-for-i-o-requests>
#[test]
fn a_sequential_queue_delivers_the_next_request_when_the_driver_has_none() {
    each(holding, |bench| {
        let writes = [1, 2, 3].map(|length| bench.write(length));
        for (at, write) in (0..).zip(writes) {
            assert_eq!(journal(), [format!("write {}", at + 1)]);
            let state = bench.run(|desk, _| desk.writes().state().unwrap());
            assert_eq!((state.in_driver(), state.waiting()), (1, 2 - at));
            bench.run(|desk, _| desk.complete_oldest());
            assert_eq!(bench.status(write), SUCCESS);
        }
    });
}

#[test]
fn a_parallel_queue_delivers_up_to_its_limit() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let limit = NonZeroU32::new(2).unwrap();
        let config = QueueConfig::parallel_up_to(limit).on_write(Desk::hold);
        with_writes(add, config)
    }
    each(setup, |bench| {
        let writes = [1, 2, 3].map(|length| bench.write(length));
        assert_eq!(journal(), ["write 1", "write 2"]);
        bench.run(|desk, _| desk.complete_oldest());
        assert_eq!(journal(), ["write 3"]);
        for _ in 0..2 {
            bench.run(|desk, _| desk.complete_oldest());
        }
        for write in writes {
            assert_eq!(bench.status(write), SUCCESS);
        }
    });
}

/// `AllowZeroLengthRequests`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/ns-wdfio-_wdf_io_queue_config>
#[test]
fn requests_without_bytes_come_only_to_who_wants_them() {
    fn wanting(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let config = QueueConfig::sequential().zero_length_requests();
        with_writes(add, config.on_write(Desk::hold))
    }
    each(holding, |bench| {
        let write = bench.write(0);
        assert_eq!(bench.status(write), SUCCESS);
        assert_eq!(journal(), [""; 0]);
    });
    each(wanting, |bench| {
        let write = bench.write(0);
        assert_eq!(journal(), ["write 0"]);
        bench.run(|desk, _| {
            assert!(desk.held.lock().unwrap()[0].is_empty());
            assert_eq!(desk.held.lock().unwrap()[0].input(), Ok(&[][..]));
            desk.complete_oldest();
        });
        assert_eq!(bench.status(write), SUCCESS);
    });
}

#[test]
fn a_queue_delivers_each_kind_to_its_own_handler_and_the_rest_is_invalid() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        for kind in [
            RequestType::Read,
            RequestType::Write,
            RequestType::InternalDeviceControl,
        ] {
            let config = QueueConfig::parallel().for_requests(kind);
            add.queue(match kind {
                RequestType::Read => config.on_read(|_, _, request| {
                    note("read");
                    request.complete_with_bytes(b"abc");
                }),
                RequestType::InternalDeviceControl => {
                    config.on_internal_device_control(|_, _, request| {
                        note("internal");
                        let _ = request.on(INTERNAL, |number| Ok(number * 2));
                    })
                }
                // No handler for what it gets.
                _ => config.on_device_control(|_, _, _| note("control")),
            })?;
        }
        Ok(Desk::default())
    }
    each(setup, |bench| {
        let read = bench.read(8);
        assert_eq!(bench.ended(read).unwrap().data, b"abc");
        let write = bench.write(1);
        assert_eq!(bench.status(write), INVALID_DEVICE_REQUEST);
        let file = bench.file;
        let number = 21_u32.to_ne_bytes();
        let internal = bench
            .probe
            .machine
            .begin_internal_ioctl(file, INTERNAL.value(), &number, 4)
            .unwrap();
        assert_eq!(bench.ended(internal).unwrap().data, 42_u32.to_ne_bytes());
        assert_eq!(journal(), ["read", "internal"]);
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_internal_device_control>
#[test]
fn a_driver_above_sends_internal_control_codes() {
    each(holding, |bench| {
        let file = bench.file;
        let machine = &mut bench.probe.machine;
        let sent = machine
            .begin_internal_ioctl(file, INTERNAL.value(), &1_u32.to_ne_bytes(), 4)
            .unwrap();
        assert_eq!(bench.ended(sent).unwrap().data, 2_u32.to_ne_bytes());
        assert_eq!(journal(), ["internal, from Kernel"]);
        // A program's code of the same number is something else.
        let machine = &mut bench.probe.machine;
        let answer = machine
            .ioctl(file, INTERNAL.value(), &1_u32.to_ne_bytes(), 4)
            .unwrap();
        assert_eq!(answer.status, 0xC000_00BB);
    });
    assert_ne!(Requestor::User, Requestor::Kernel);
}

// ---- configurations that make no sense ----------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuecreate>,
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfdevice/nf-wdfdevice-wdfdeviceconfigurerequestdispatching>
#[test]
fn second_default_queues_routes_that_are_taken_and_queues_without_handlers_are_refused() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let second = add.default_queue(DefaultQueue::sequential());
        assert_eq!(second.unwrap_err(), NtStatus::UNSUCCESSFUL);
        let desk = holding(add)?;
        let config = QueueConfig::parallel().on_write(Desk::hold);
        let taken = add.queue(config.for_requests(RequestType::Write));
        assert_eq!(taken.unwrap_err(), WDF_BUSY);
        let taken = add.manual_queue(ManualQueue::<Write>::config::<Desk>().for_requests());
        assert_eq!(taken.unwrap_err(), WDF_BUSY);
        let empty = add.queue(QueueConfig::parallel());
        assert_eq!(empty.unwrap_err(), WDF_NO_CALLBACK);
        Ok(desk)
    }
    each(setup, |bench| {
        let write = bench.write(1);
        bench.run(|desk, _| desk.complete_oldest());
        assert_eq!(bench.status(write), SUCCESS);
    });
}

// ---- start, stop, drain, purge ------------------------------------------

#[test]
fn a_stopped_queue_keeps_requests_until_it_is_started() {
    each(holding, |bench| {
        bench.run(|desk, irql| {
            desk.writes().stop(irql).unwrap();
            let state = desk.writes().state().unwrap();
            assert!(state.accepts() && !state.dispatches() && !state.is_held());
        });
        let write = bench.write(1);
        assert!(bench.ended(write).is_none());
        assert_eq!(journal(), [""; 0]);
        bench.run(|desk, _| desk.writes().start().unwrap());
        assert_eq!(journal(), ["write 1"]);
        bench.run(|desk, _| desk.complete_oldest());
        assert_eq!(bench.status(write), SUCCESS);
    });
}

/// `WdfIoQueueStopSynchronously`, `WdfIoQueueDrainSynchronously`:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuedrainsynchronously>
#[test]
fn stop_and_drain_wait_for_the_drivers_requests() {
    type Wait = fn(&Queue, &Irql<'_, Passive>) -> Result;
    for (wait, name) in [(|queue, irql| queue.stop(irql)) as Wait, |queue, irql| {
        queue.drain(irql)
    }]
    .into_iter()
    .zip(["stop", "drain"])
    {
        for seed in 0..SEEDS {
            let mut bench = Bench::new(seed, holding);
            let first = bench.write(1);
            let second = bench.write(2);
            journal();
            let (number, _) = job(move |desk, irql| {
                wait(desk.writes(), irql).unwrap();
                note("waited");
            });
            let file = bench.file;
            let waiter = bench.probe.machine.spawn_thread("waiter", move || {
                file.ioctl(RUN.value(), &number.to_ne_bytes(), 0).status
            });
            bench.probe.run_for(Duration::from_secs(1));
            assert_eq!(journal(), [""; 0], "{name}, seed {seed}");
            bench.run(|desk, _| desk.complete_oldest());
            if name == "drain" {
                bench.probe.run_for(Duration::from_secs(1));
                assert_eq!(journal(), ["write 2"], "seed {seed}");
                let third = bench.write(3);
                assert_eq!(bench.status(third), INVALID_DEVICE_STATE);
                bench.run(|desk, _| desk.complete_oldest());
            }
            let joined = bench.probe.machine.join(waiter);
            assert_eq!(bench.done(joined), SUCCESS);
            assert_eq!(journal(), ["waited"], "{name}, seed {seed}");
            if name == "stop" {
                bench.run(|desk, _| desk.writes().start().unwrap());
                bench.run(|desk, _| desk.complete_oldest());
            }
            for write in [first, second] {
                assert_eq!(bench.status(write), SUCCESS, "{name}, seed {seed}");
            }
            bench.end();
        }
    }
}

#[test]
fn the_forms_that_do_not_wait_may_be_called_where_a_request_is_handled() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let config = QueueConfig::sequential().on_write(|desk: &Desk, _, request| {
            match request.len() {
                1 => desk.writes().begin_stop(),
                2 => desk.writes().begin_drain(),
                _ => desk.writes().begin_purge(),
            }
            .unwrap();
            let length = request.len();
            request.complete(Ok(length));
        });
        with_writes(add, config)
    }
    each(setup, |bench| {
        for (length, dispatches) in [(1, false), (2, true), (3, true)] {
            let write = bench.write(length);
            assert_eq!(bench.status(write), SUCCESS);
            let state = bench.run(|desk, _| desk.writes().state().unwrap());
            assert_eq!(state.dispatches(), dispatches, "{length}");
            assert_eq!(state.accepts(), length == 1, "{length}");
            bench.run(|desk, _| desk.writes().start().unwrap());
        }
    });
}

/// It would wait for its own request for ever; the simulator says so.
#[test]
fn waiting_for_a_queue_in_its_own_handler_is_caught() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let config = QueueConfig::sequential().on_write(|desk: &Desk, cx, _request| {
            let _ = desk.writes().stop(cx.irql());
        });
        with_writes(add, config)
    }
    let mut bench = Bench::new(0, setup);
    match bench.probe.machine.write(bench.file, b"1") {
        Err(Error::Stop(stop)) => {
            assert!(
                stop.message.contains("WdfIoQueueStopSynchronously"),
                "{stop}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuepurgesynchronously>,
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuestopandpurgesynchronously>
#[test]
fn a_purge_cancels_what_waits_and_a_stop_with_purge_takes_new_requests() {
    each(with_reads, |bench| {
        let reads = [1, 2].map(|length| bench.read(length));
        bench.run(|desk, irql| desk.reads().purge(irql).unwrap());
        for read in reads {
            assert_eq!(bench.status(read), CANCELLED);
        }
        let refused = bench.read(3);
        assert_eq!(bench.status(refused), INVALID_DEVICE_STATE);
        bench.run(|desk, _| desk.reads().start().unwrap());

        let read = bench.read(1);
        bench.run(|desk, irql| desk.reads().stop_and_purge(irql).unwrap());
        assert_eq!(bench.status(read), CANCELLED);
        let kept = bench.read(4);
        bench.run(|desk, _| {
            assert_eq!(desk.reads().next().unwrap_err(), WDF_PAUSED);
            desk.reads().start().unwrap();
            desk.reads()
                .next()
                .unwrap()
                .unwrap()
                .complete_with_bytes(b"kept");
        });
        assert_eq!(bench.ended(kept).unwrap().data, b"kept");
        journal();
    });
}

// ---- looking for requests -----------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuefindrequest>
#[test]
fn a_request_is_found_by_what_it_says_and_the_others_stay() {
    each(with_reads, |bench| {
        let reads = [1, 2, 3, 2].map(|length| bench.read(length));
        let lengths = bench.run(|desk, _| {
            let mut seen = Vec::new();
            let found = desk.reads().next_where(|read| {
                seen.push(read.len());
                read.len() == 2
            });
            found.unwrap().unwrap().complete_with_bytes(b"ab");
            assert!(
                desk.reads()
                    .next_where(|read| read.len() == 9)
                    .unwrap()
                    .is_none()
            );
            seen
        });
        assert_eq!(lengths, [1, 2]);
        assert_eq!(bench.ended(reads[1]).unwrap().data, b"ab");
        assert_eq!(
            bench.run(|desk, _| desk.reads().state().unwrap().waiting()),
            3
        );
        bench.run(|desk, irql| desk.reads().purge(irql).unwrap());
        for read in [reads[0], reads[2], reads[3]] {
            assert_eq!(bench.status(read), CANCELLED);
        }
    });
}

#[test]
fn looking_for_requests_while_they_are_cancelled_finds_each_at_most_once() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, with_reads);
        let reads = [1, 2, 3, 4].map(|length| bench.read(length));
        let (number, found) = job(|desk, _| {
            let mut found = Vec::new();
            while let Some(read) = desk.reads().next_where(|read| read.len() % 2 == 0).unwrap() {
                found.push(read.len());
                read.complete(Ok(0));
            }
            found
        });
        let file = bench.file;
        let finder = bench.probe.machine.spawn_thread("finder", move || {
            file.ioctl(RUN.value(), &number.to_ne_bytes(), 0).status
        });
        let canceler = bench.probe.machine.spawn_thread("canceler", move || {
            for read in reads {
                read.cancel();
            }
        });
        let joined = bench.probe.machine.join(canceler);
        bench.done(joined);
        let joined = bench.probe.machine.join(finder);
        assert_eq!(bench.done(joined), SUCCESS);
        let found = found.take().unwrap();
        for (read, length) in reads.into_iter().zip([1, 2, 3, 4]) {
            let wanted = if found.contains(&length) {
                SUCCESS
            } else {
                CANCELLED
            };
            assert_eq!(bench.status(read), wanted, "seed {seed}: {length}");
        }
        bench.end();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueueretrieverequestbyfileobject>
#[test]
fn the_requests_of_one_file_are_taken_and_those_of_another_stay() {
    each(with_reads, |bench| {
        let other = bench.probe.machine.open(&DESK.to_string());
        let other = bench.done(other);
        let mine = bench.read(1);
        let theirs = bench.probe.machine.begin_read(other, 2).unwrap();
        let again = bench.read(3);
        bench.run(|desk, _| {
            let first = desk.reads().next().unwrap().unwrap();
            assert_eq!(first.len(), 1);
            let same = {
                let file = first.file().unwrap();
                desk.reads().next_of_file(file).unwrap().unwrap()
            };
            assert_eq!(same.len(), 3);
            assert!(
                desk.reads()
                    .next_of_file(first.file().unwrap())
                    .unwrap()
                    .is_none()
            );
            first.complete(Ok(0));
            same.complete(Ok(0));
        });
        for read in [mine, again] {
            assert_eq!(bench.status(read), SUCCESS);
        }
        let closed = bench.probe.machine.close(other);
        bench.done(closed);
        assert_eq!(bench.status(theirs), CANCELLED, "it goes with its file");
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nf-wdfio-wdfioqueuereadynotify>
#[test]
fn the_owner_hears_when_there_is_something_to_take_again() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let config = ManualQueue::config().for_requests().on_ready(Desk::ready);
        Ok(Desk {
            reads: Some(add.manual_queue(config)?),
            ..Desk::default()
        })
    }
    each(setup, |bench| {
        let mut reads = vec![bench.read(1)];
        assert_eq!(journal(), ["ready, 1"]);
        bench.run(|desk, _| desk.reads().begin_stop().unwrap());
        reads.push(bench.read(2));
        reads.push(bench.read(3));
        assert_eq!(journal(), [""; 0]);
        bench.run(|desk, _| desk.reads().start().unwrap());
        assert_eq!(journal(), ["ready, 2"]);
        bench.run(|desk, _| {
            for read in std::mem::take(&mut *desk.taken.lock().unwrap()) {
                read.complete(Ok(0));
            }
        });
        for read in reads {
            assert_eq!(bench.status(read), SUCCESS);
        }
    });
}

// ---- forwarding and requeuing -------------------------------------------

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestforwardtoioqueue>
#[test]
fn a_request_is_forwarded_to_a_queue_that_delivers_it() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let first = QueueConfig::parallel().on_write(|desk: &Desk, _, request| {
            note("first");
            let refused = request.forward(desk.writes()).err();
            assert!(refused.is_none());
        });
        add.queue(first.for_requests(RequestType::Write))?;
        let second = QueueConfig::sequential().on_write(|desk: &Desk, _, request| {
            note("second");
            // The queue that it came from is no destination.
            let refused = request.forward(desk.writes()).unwrap_err();
            assert_eq!(refused.status(), NtStatus::INVALID_DEVICE_REQUEST);
            let request = refused.into_request().unwrap();
            let length = request.len();
            request.complete(Ok(length));
        });
        Ok(Desk {
            writes: Some(add.queue(second)?),
            ..Desk::default()
        })
    }
    each(setup, |bench| {
        let write = bench.write(5);
        let end = bench.ended(write).unwrap();
        assert_eq!((end.status, end.information), (SUCCESS, 5));
        assert_eq!(journal(), ["first", "second"]);
        // One that is purged takes nothing, and the request is completed with that.
        bench.run(|desk, irql| desk.writes().purge(irql).unwrap());
    });
}

#[test]
fn a_queue_that_takes_nothing_gives_the_request_back() {
    each(manual_behind_default, |bench| {
        bench.run(|desk, irql| desk.reads().purge(irql).unwrap());
        let read = bench.read(4);
        // `STATUS_WDF_BUSY`, by dropping what `forward` refused.
        assert_eq!(bench.status(read), 0xC020_0204);
    });
}

fn manual_behind_default(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    let config = ManualQueue::config().on_canceled(Desk::canceled);
    Ok(Desk {
        reads: Some(add.manual_queue(config)?),
        ..Desk::default()
    })
}

/// Only for requests that the driver had before:
/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_canceled_on_queue>
#[test]
fn the_owner_hears_of_a_cancellation_in_the_queue_if_it_had_the_request_before() {
    each(manual_behind_default, |bench| {
        let read = bench.read(4);
        bench.cancel(read);
        assert_eq!(bench.status(read), CANCELLED, "the owner dropped it");
        assert_eq!(journal(), ["canceled 4"]);
    });
    each(with_reads, |bench| {
        let read = bench.read(4);
        bench.cancel(read);
        assert_eq!(bench.status(read), CANCELLED);
        assert_eq!(journal(), [""; 0], "it was never the driver's");
    });
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfrequest/nf-wdfrequest-wdfrequestrequeue>
#[test]
fn a_requeued_request_is_the_next_again() {
    each(with_reads, |bench| {
        let reads = [1, 2].map(|length| bench.read(length));
        bench.run(|desk, _| {
            let first = desk.reads().next().unwrap().unwrap();
            first.requeue().unwrap();
            for length in [1, 2] {
                let read = desk.reads().next().unwrap().unwrap();
                assert_eq!(read.len(), length);
                read.complete(Ok(0));
            }
        });
        for read in reads {
            assert_eq!(bench.status(read), SUCCESS);
        }
    });
    each(holding, |bench| {
        let write = bench.write(1);
        bench.run(|desk, _| {
            let request = desk.held.lock().unwrap().remove(0);
            // Only manual queues take requests back.
            let refused = request.requeue().unwrap_err();
            assert_eq!(refused.status(), NtStatus::INVALID_DEVICE_REQUEST);
        });
        assert_eq!(bench.status(write), INVALID_DEVICE_REQUEST);
    });
}

/// What the driver wrote before it put the request away is still there.
#[test]
fn output_survives_a_queue() {
    each(manual_behind_default, |bench| {
        let read = bench.read(8);
        bench.run(|desk, _| {
            let mut read = desk.reads().next().unwrap().unwrap();
            read.output().unwrap()[..3].copy_from_slice(b"abc");
            read.requeue().unwrap();
            desk.reads().next().unwrap().unwrap().complete(Ok(8));
        });
        assert_eq!(bench.ended(read).unwrap().data, b"abc\0\0\0\0\0");
    });
}

// ---- power ---------------------------------------------------------------

fn stopping(desk: &Desk, stop: &mut IoStop<'_>) {
    note(format!("stop {:?}", stop.reason()));
    let request = desk.held.lock().unwrap().pop().unwrap();
    assert_eq!(request.id(), stop.request());
    match request.len() {
        1 => {
            stop.acknowledge(&request).unwrap();
            // Once only.
            assert_eq!(stop.acknowledge(&request), Err(NtStatus::INVALID_PARAMETER));
            desk.held.lock().unwrap().push(request);
        }
        2 => stop.requeue(request).unwrap(),
        // Nothing: power waits.
        _ => desk.held.lock().unwrap().push(request),
    }
}

fn resumed(desk: &Desk, request: RequestId) {
    note("resume");
    assert_eq!(desk.held.lock().unwrap()[0].id(), request);
}

fn with_stop(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    let config = QueueConfig::sequential()
        .power_managed()
        .on_write(Desk::hold)
        .on_stop(stopping)
        .on_resume(resumed);
    with_writes(add, config)
}

/// <https://learn.microsoft.com/windows-hardware/drivers/ddi/wdfio/nc-wdfio-evt_wdf_io_queue_io_stop>
#[test]
fn a_request_is_acknowledged_or_requeued_when_power_goes() {
    for (length, after) in [(1, ["resume"].as_slice()), (2, &["write 2"])] {
        each(with_stop, |bench| {
            let write = bench.write(length);
            journal();
            bench.probe.power_down();
            assert_eq!(journal(), ["stop Suspend"]);
            assert!(bench.run(|desk, _| desk.writes().state().unwrap().is_held()));
            bench.probe.power_up();
            assert_eq!(journal(), after);
            bench.run(|desk, _| desk.complete_oldest());
            assert_eq!(bench.status(write), SUCCESS);
        });
    }
}

#[test]
fn a_request_without_an_answer_keeps_the_power_until_it_is_completed() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, with_stop);
        let write = bench.write(3);
        journal();
        let (number, _) = job(|desk, _| {
            note("late");
            desk.complete_oldest();
        });
        let file = bench.file;
        // Long after the driver was asked, and in its own time.
        let late = bench.probe.machine.spawn_thread("late", move || {
            let _ = write.wait(Duration::from_secs(30));
            file.ioctl(RUN.value(), &number.to_ne_bytes(), 0).status
        });
        bench.probe.power_down();
        assert_eq!(journal(), ["stop Suspend", "late"], "seed {seed}");
        let joined = bench.probe.machine.join(late);
        assert_eq!(bench.done(joined), SUCCESS);
        assert_eq!(bench.status(write), SUCCESS, "seed {seed}");
        bench.probe.power_up();
        bench.end();
    }
}

/// <https://learn.microsoft.com/windows-hardware/drivers/wdf/using-power-managed-i-o-queues>
#[test]
fn only_a_queue_that_is_not_power_managed_delivers_without_power() {
    fn setup(add: &mut Modules<'_, Desk>) -> Result<Desk> {
        let mut desk = holding(add)?;
        let config = ManualQueue::config().for_requests().not_power_managed();
        desk.reads = Some(add.manual_queue(config)?);
        Ok(desk)
    }
    each(setup, |bench| {
        bench.probe.power_down();
        let read = bench.read(1);
        let write = bench.write(1);
        bench.run(|desk, _| desk.reads().next().unwrap().unwrap().complete(Ok(0)));
        assert_eq!(bench.status(read), SUCCESS);
        assert_eq!(journal(), [""; 0]);
        bench.probe.power_up();
        assert_eq!(journal(), ["write 1"]);
        bench.run(|desk, _| desk.complete_oldest());
        assert_eq!(bench.status(write), SUCCESS);
    });
}

// ---- removal and races ----------------------------------------------------

/// A read waits in a manual queue, a write is the driver's and cancelable.
fn keeping(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    let config = QueueConfig::parallel()
        .on_write(|desk: &Desk, _, request| {
            let Ok(kept) = request.mark_cancelable() else {
                return;
            };
            // `on_stop` may have come while this was running.
            let late = {
                let mut state = desk.kept.lock().unwrap();
                if state.stopped {
                    Some(kept)
                } else {
                    state.requests.push(kept);
                    None
                }
            };
            drop(late);
        })
        .on_stop(|desk, _| {
            let kept = {
                let mut state = desk.kept.lock().unwrap();
                state.stopped = true;
                std::mem::take(&mut state.requests)
            };
            drop(kept);
        });
    let mut desk = with_writes(add, config)?;
    desk.reads = Some(add.manual_queue(ManualQueue::config().for_requests())?);
    Ok(desk)
}

#[test]
fn surprise_removal_ends_all_requests_under_every_schedule() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, keeping);
        let file = bench.file;
        let users: Vec<_> = (0..3)
            .map(|user| {
                bench.probe.machine.spawn_thread("user", move || {
                    [file.begin_read(4), file.begin_write(b"1")].map(|pending| {
                        if user == 1 {
                            pending.cancel();
                        }
                        pending
                    })
                })
            })
            .collect();
        if seed % 2 == 0 {
            bench.probe.run_for(Duration::from_millis(1));
        }
        let device = bench.probe.device.clone();
        let removed = bench.probe.machine.surprise_remove(&device);
        bench.done(removed);
        for user in users {
            let pending = bench.probe.machine.join(user);
            for pending in bench.done(pending) {
                let status = bench.status(pending);
                assert!(
                    [CANCELLED, INVALID_DEVICE_STATE].contains(&status),
                    "seed {seed}: {status:#x}"
                );
            }
        }
        let closed = bench.probe.machine.close(file);
        bench.done(closed);
    }
}

/// Writers, cancellations, and somebody who stops, starts and purges.
#[test]
fn every_request_ends_once_whatever_is_done_to_its_queue() {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, |add| {
            let config = QueueConfig::parallel().on_write(|_, _, request| {
                let length = request.len();
                if let Ok(kept) = request.mark_cancelable()
                    && let Taken::Request(request) = kept.take()
                {
                    request.complete(Ok(length));
                }
            });
            with_writes(add, config)
        });
        let file = bench.file;
        let jobs = [0, 1, 2, 3].map(|what| {
            job(move |desk, irql| match what {
                0 => desk.writes().stop(irql).unwrap(),
                1 => desk.writes().purge(irql).unwrap(),
                2 => desk.writes().begin_drain().unwrap(),
                _ => desk.writes().start().unwrap(),
            })
            .0
        });
        let keeper = bench.probe.machine.spawn_thread("keeper", move || {
            jobs.map(|number| file.ioctl(RUN.value(), &number.to_ne_bytes(), 0).status)
        });
        let writers: Vec<_> = (0..3)
            .map(|_| {
                bench.probe.machine.spawn_thread("writer", move || {
                    [1, 2, 3].map(|length| {
                        let pending = file.begin_write(&vec![0; length]);
                        if length == 2 {
                            pending.cancel();
                        }
                        pending
                    })
                })
            })
            .collect();
        let joined = bench.probe.machine.join(keeper);
        assert_eq!(bench.done(joined), [SUCCESS; 4]);
        for writer in writers {
            let pending = bench.probe.machine.join(writer);
            for pending in bench.done(pending) {
                let status = bench.status(pending);
                assert!(
                    [SUCCESS, CANCELLED, INVALID_DEVICE_STATE].contains(&status),
                    "seed {seed}: {status:#x}"
                );
            }
        }
        bench.end();
    }
}
