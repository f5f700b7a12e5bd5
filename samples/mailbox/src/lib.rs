// SPDX-License-Identifier: MIT OR Apache-2.0

//! A KMDF function driver for a mailbox in memory, in safe Rust.
//!
//! Programs find it by its device interface, [`interface::MAILBOX`]:
//!
//! - A *write* posts a message; a *read* gets the oldest one. A read of an
//!   empty box waits in a manual queue, where its caller can cancel it.
//! - *IOCTLs* with typed input and output ask for statistics, clear the box,
//!   limit it, and wait until it is empty.
//! - A *work item* brings messages and waiting reads together.
//! - When nobody has asked for anything for a while the mailbox *sleeps*, also
//!   while reads wait; the next request wakes it.
//!
//! ```text
//!   write ──► sequential queue ──► box ──┐
//!                                        ├──► deliver (work item) ──► the read is completed
//!   read ──► default queue ──► waiting ──┘
//! ```
//!
//! The queues that requests come to are power-managed: what is in them brings
//! the device to D0 and keeps it there. Those in which requests wait are not.
//!
//! Messages survive D3; the counters do not. On removal what waits is cancelled:
//! by KMDF, and by the driver if the mailbox was pulled out.

#![no_std]
#![forbid(unsafe_code)]

mod hardware;
pub mod interface;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use dmf::prelude::*;
use dmf::wdf::{
    DefaultQueue, File, FileAnswer, FileClose, FileCreate, IdleSettings, Ioctl, ManualQueue, Offer,
    PowerPolicy, QueueCallback, QueueConfig, Read, Request, RequestType, WorkItem, WorkItemRun,
    Write,
};
use hardware::{Hardware, Message};

dmf::driver!(Mailbox);

/// How long nobody must have asked for anything until the mailbox sleeps.
const IDLE_AFTER: Duration = Duration::from_secs(10);

/// One mailbox.
#[derive(Debug)]
pub struct Mailbox {
    hardware: SpinLock<Hardware>,
    /// Reads that wait for a message.
    waiting: ManualQueue<Read>,
    /// Flushes that wait for the box to be empty.
    flushes: ManualQueue<Ioctl>,
    deliver: WorkItem,
    power: PowerPolicy,
}

/// What the driver knows of each opening of the device.
#[derive(Debug, Default)]
struct Opening {
    /// Messages posted through it.
    posted: AtomicU32,
}

impl Device for Mailbox {
    fn modules(add: &mut Modules<'_, Self>) -> Result<Self> {
        add.default_queue(DefaultQueue::parallel())?;
        add.queue(
            QueueConfig::sequential()
                .for_requests(RequestType::Write)
                .on_write(Mailbox::write),
        )?;
        add.device_interface(interface::MAILBOX)?;
        Ok(Mailbox {
            hardware: SpinLock::new(Hardware::new()),
            waiting: add.manual_queue(
                ManualQueue::config()
                    .not_power_managed()
                    .on_ready(Mailbox::enqueue_deliver),
            )?,
            flushes: add.manual_queue(
                ManualQueue::config()
                    .not_power_managed()
                    .on_ready(Mailbox::enqueue_deliver)
                    .on_canceled(Mailbox::flush_canceled),
            )?,
            deliver: add.work_item(Mailbox::deliver)?,
            power: PowerPolicy::new(add),
        })
    }

    fn self_managed_io_init(&self, cx: &mut SelfManagedIoInit<'_>) -> Result {
        let idle = IdleSettings::cannot_wake().timeout(IDLE_AFTER);
        self.power.assign_idle(cx.irql(), &idle)
    }

    fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
        dmf::println!("mailbox: awake, from {}", cx.previous_state());
        self.hardware.with(Hardware::power_up);
        // Messages and reads may have met while there was no power.
        self.deliver.enqueue()
    }

    fn d0_exit(&self, cx: &mut D0Exit<'_>) {
        self.hardware.with(Hardware::power_down);
        dmf::println!("mailbox: going to {}", cx.target_state());
    }

    fn surprise_removal(&self, cx: &mut SurpriseRemoval<'_>) {
        dmf::println!("mailbox: gone");
        // KMDF cancels what is in queues that are not power-managed only when
        // the last handle is closed, and programs wait for their reads until then.
        let _ = self.waiting.purge(cx.irql());
        let _ = self.flushes.purge(cx.irql());
    }

    fn file_create(&self, cx: &mut FileCreate<'_>) -> FileAnswer {
        let file = cx.file();
        if !file.name(cx.irql()).is_empty() {
            return FileAnswer::Refused(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        match cx.attach(Opening::default()) {
            Ok(()) => FileAnswer::Accepted,
            Err(status) => FileAnswer::Refused(status),
        }
    }

    fn file_close(&self, cx: &mut FileClose<'_>) {
        if let Some(opening) = cx.file().context::<Opening>() {
            let posted = opening.posted.load(Ordering::Relaxed);
            dmf::println!("mailbox: closed, posted {posted}");
        }
    }

    fn io_read(&self, _cx: &mut QueueCallback<'_>, request: Request<Read>) -> Offer<Read> {
        // A queue that takes no more completes it with its reason.
        let _ = request.forward(&self.waiting);
        Offer::Handled
    }

    fn device_control(&self, _cx: &mut QueueCallback<'_>, request: Request<Ioctl>) -> Offer<Ioctl> {
        request
            .on(interface::GET_STATISTICS, |()| {
                Ok(self.hardware.with(|hardware| hardware.statistics()))
            })
            .on(interface::SET_LIMIT, |limit| {
                self.hardware.with(|hardware| hardware.set_limit(limit))
            })
            .on(interface::CLEAR, |()| {
                let count = self.hardware.with(Hardware::clear);
                self.deliver.enqueue()?;
                Ok(count)
            })
            .on_request(interface::FLUSH, |(), request| {
                let _ = request.into_untyped().forward(&self.flushes);
            })
    }
}

impl Mailbox {
    fn write(&self, _cx: &mut QueueCallback<'_>, request: Request<Write>) {
        let result = self.post(&request);
        request.complete(result);
    }

    /// Something has come to wait where nothing did.
    fn enqueue_deliver(&self) {
        let _ = self.deliver.enqueue();
    }

    /// Posts what a write brings.
    fn post(&self, request: &Request<Write>) -> Result<usize> {
        let message = Message::new(request.input()?).ok_or(NtStatus::INVALID_PARAMETER)?;
        self.hardware.with(|hardware| hardware.post(message))?;
        if let Some(opening) = request.file().and_then(File::context::<Opening>) {
            opening.posted.fetch_add(1, Ordering::Relaxed);
        }
        self.deliver.enqueue()?;
        Ok(request.len())
    }

    /// Brings messages and reads together, oldest first, and completes flushes
    /// when the box is empty.
    fn deliver(&self, _run: &mut WorkItemRun<'_>) {
        // Message and read are taken under the lock, so that two runs at once
        // do not leave one without the other.
        while let Some((request, message)) = self.hardware.with(|hardware| {
            if !hardware.can_deliver() {
                return None;
            }
            let request = self.waiting.next().ok().flatten()?;
            Some((request, hardware.take()?))
        }) {
            request.complete_with_bytes(message.bytes());
        }
        while self.hardware.with(|hardware| hardware.is_empty())
            && let Ok(Some(flush)) = self.flushes.next()
        {
            flush.complete(Ok(0));
        }
    }

    /// Somebody no longer wants to know when the box is empty.
    #[allow(clippy::unused_self, reason = "a handler is a function of the device")]
    fn flush_canceled(&self, request: Request<Ioctl>) {
        dmf::println!("mailbox: a flush was cancelled");
        request.complete(Err(NtStatus::CANCELLED));
    }
}
