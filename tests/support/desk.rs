// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device whose queues each test chooses, and a program that uses it.

#![allow(dead_code, reason = "each test program uses some of it")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use dmf::ioctl::{Access, DeviceType, IoctlCode};
use dmf::prelude::*;
use dmf::wdf::{
    Cancelable, DefaultQueue, Guid, InternalIoctl, Ioctl, ManualQueue, Offer, Queue, QueueCallback,
    QueueConfig, Read, Request, RequestType, Write,
};
use ntsim::{Completion, File, Pending};

use crate::probe::Probe;

pub const SEEDS: u64 = 32;
pub const SUCCESS: u32 = 0;
pub const CANCELLED: u32 = 0xC000_0120;
pub const INVALID_DEVICE_REQUEST: u32 = 0xC000_0010;
pub const INVALID_DEVICE_STATE: u32 = 0xC000_0184;

pub const WDF_PAUSED: NtStatus = NtStatus::from_raw(0xC020_0203_u32.cast_signed());
pub const WDF_BUSY: NtStatus = NtStatus::from_raw(0xC020_0204_u32.cast_signed());
pub const WDF_NO_CALLBACK: NtStatus = NtStatus::from_raw(0xC020_020B_u32.cast_signed());

pub const DESK: Guid = Guid::parse("0b4a3c57-6f0e-4b77-a0a8-3b1b0b0a9f42");
/// Runs a test's own code in the driver: see [`Desk::run`].
pub const RUN: IoctlCode<u32, ()> = IoctlCode::new(DeviceType::UNKNOWN, 0x900, Access::Any);
pub const INTERNAL: IoctlCode<u32, u32> = IoctlCode::new(DeviceType::UNKNOWN, 0x901, Access::Any);

pub type Setup = fn(&mut Modules<'_, Desk>) -> Result<Desk>;
pub type Job = Box<dyn FnOnce(&Desk, &Irql<'_, Passive>)>;

thread_local! {
    static SETUP: Cell<Setup> = const { Cell::new(holding) };
    static JOBS: RefCell<Vec<Option<Job>>> = const { RefCell::new(Vec::new()) };
    static JOURNAL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub fn note(what: impl Into<String>) {
    JOURNAL.with_borrow_mut(|journal| journal.push(what.into()));
}

pub fn journal() -> Vec<String> {
    JOURNAL.take()
}

dmf::driver!(Desk);

/// A device whose queues each test chooses. Its default queue is for [`RUN`].
#[derive(Default)]
pub struct Desk {
    pub writes: Option<Queue>,
    pub reads: Option<ManualQueue<Read>>,
    pub held: Mutex<Vec<Request<Write>>>,
    /// Taken out of `reads`.
    pub taken: Mutex<Vec<Request<Read>>>,
    pub kept: Mutex<Kept>,
}

/// What the driver keeps until it is told to stop.
#[derive(Default)]
pub struct Kept {
    pub requests: Vec<Cancelable<Write>>,
    pub stopped: bool,
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
    pub fn hold(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) {
        note(format!("write {}", request.len()));
        self.held.lock().unwrap().push(request);
    }

    pub fn complete_oldest(&self) {
        let request = self.held.lock().unwrap().remove(0);
        let length = request.len();
        request.complete(Ok(length));
    }

    pub fn writes(&self) -> &Queue {
        self.writes.as_ref().unwrap()
    }

    pub fn reads(&self) -> &ManualQueue<Read> {
        self.reads.as_ref().unwrap()
    }

    pub fn ready(&self) {
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
    pub fn canceled(&self, request: Request<Read>) {
        note(format!("canceled {}", request.len()));
    }
}

pub fn with_writes(add: &mut Modules<'_, Desk>, config: QueueConfig<Desk>) -> Result<Desk> {
    let config = config.for_requests(RequestType::Write);
    Ok(Desk {
        writes: Some(add.queue(config)?),
        ..Desk::default()
    })
}

pub fn holding(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    with_writes(add, QueueConfig::sequential().on_write(Desk::hold))
}

pub fn with_reads(add: &mut Modules<'_, Desk>) -> Result<Desk> {
    let config = ManualQueue::config()
        .for_requests()
        .on_canceled(Desk::canceled);
    Ok(Desk {
        reads: Some(add.manual_queue(config)?),
        ..Desk::default()
    })
}

pub struct Bench {
    pub probe: Probe,
    pub file: File,
    pub seed: u64,
}

impl Bench {
    pub fn new(seed: u64, setup: Setup) -> Self {
        SETUP.set(setup);
        let mut probe = Probe::started(Desk::DRIVER_ENTRY, seed);
        let file = probe
            .machine
            .open(&DESK.to_string())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        journal();
        Self { probe, file, seed }
    }

    pub fn done<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Runs `body` in the driver, and gives what it returns.
    pub fn run<R: 'static>(
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

    pub fn write(&mut self, length: usize) -> Pending {
        let pending = self.probe.machine.begin_write(self.file, &vec![0; length]);
        self.done(pending)
    }

    pub fn read(&mut self, length: usize) -> Pending {
        let pending = self.probe.machine.begin_read(self.file, length);
        self.done(pending)
    }

    pub fn cancel(&mut self, pending: Pending) {
        let result = self.probe.machine.cancel(pending);
        self.done(result);
    }

    /// How a request ended, if it did.
    pub fn ended(&mut self, pending: Pending) -> Option<Completion> {
        let ended = self.probe.machine.wait(pending, Duration::from_secs(1));
        self.done(ended)
    }

    pub fn status(&mut self, pending: Pending) -> u32 {
        let seed = self.seed;
        self.ended(pending)
            .unwrap_or_else(|| panic!("seed {seed}: a request is pending"))
            .status
    }

    /// Closes and removes: the simulator reports what is left behind.
    pub fn end(mut self) {
        let closed = self.probe.machine.close(self.file);
        self.done(closed);
        self.probe.remove();
    }
}

/// A job for [`RUN`], and where its result will be.
pub fn job<R: 'static>(
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

pub fn each(setup: Setup, test: impl Fn(&mut Bench)) {
    for seed in 0..SEEDS {
        let mut bench = Bench::new(seed, setup);
        test(&mut bench);
        bench.end();
    }
}
