// SPDX-License-Identifier: MIT OR Apache-2.0

//! Queues, requests and files: what programs ask of the device.

use core::num::NonZeroU32;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dmf::prelude::*;
use dmf::wdf::{
    Cancelable, File, IoStop, Ioctl, ManualQueue, Mdl, Queue, QueueCallback, QueueConfig, Read,
    Request, RequestId, RequestType, Taken, Write,
};

use crate::Surface;
use crate::tell::Teller;

/// What the device knows of each opening.
#[derive(Debug, Default)]
pub struct Opening {
    pub written: AtomicUsize,
}

/// The queues, and what the device keeps.
pub struct Queues {
    writes: Queue,
    bulk: Queue,
    pub reads: ManualQueue<Read>,
    kept: SpinLock<Option<Cancelable<Ioctl>>>,
    held: SpinLock<Option<Request<Write>>>,
}

impl Queues {
    pub fn new(add: &mut Modules<'_, Surface>) -> Result<Self> {
        let two = NonZeroU32::new(2).ok_or(NtStatus::INVALID_PARAMETER)?;
        Ok(Self {
            writes: add.queue(
                QueueConfig::sequential()
                    .for_requests(RequestType::Write)
                    .zero_length_requests()
                    .on_write(Surface::write)
                    .on_stop(Surface::stop)
                    .on_resume(Surface::resume),
            )?,
            bulk: add.queue(
                QueueConfig::parallel_up_to(two)
                    .not_power_managed()
                    .on_device_control(Surface::keep),
            )?,
            reads: add.manual_queue(
                ManualQueue::config()
                    .not_power_managed()
                    .on_ready(Surface::ready)
                    .on_canceled(Surface::canceled),
            )?,
            kept: SpinLock::new(None),
            held: SpinLock::new(None),
        })
    }

    /// Sends an IOCTL on to a queue of its own.
    pub fn forward(&self, request: Request<Ioctl>) {
        let result = request.forward(&self.bulk).map_err(NtStatus::from);
        dmf::println!("forwarded: {result:?}");
    }

    /// Gives up what it keeps.
    pub fn give_up(&self, irql: &mut Irql<'_, Passive>) {
        dmf::println!("purged: {:?}", self.reads.purge(irql));
        match self.kept.with(Option::take).map(Cancelable::take) {
            Some(Taken::Request(request)) => request.complete(Err(NtStatus::CANCELLED)),
            Some(Taken::Canceled) => dmf::println!("kept: was cancelled"),
            None => dmf::println!("kept: nothing"),
        }
        if let Some(write) = self.held.with(Option::take) {
            write.complete(Err(NtStatus::DELETE_PENDING));
        }
    }
}

impl Surface {
    /// Takes the caller's pages. A write that begins with `h` is held until the
    /// device loses power; one that begins with `p` is passed on to the driver below.
    fn write(&self, _: &mut QueueCallback<'_>, request: Request<Write>) {
        let mut first = [0; 3];
        let size = request.len().min(first.len());
        let read = request.direct_input().and_then(|pages| {
            dmf::println!("pages: {:?}", pages.mdl().map(Mdl::byte_count));
            pages.copy_to(0, &mut first[..size])
        });
        dmf::println!(
            "write {} at {}: {read:?} {first:?}, {:?}",
            request.len(),
            request.offset(),
            request.method(),
        );
        if let Some(opening) = request.file().and_then(File::context::<Opening>) {
            opening.written.fetch_add(request.len(), Relaxed);
        }
        match first[0] {
            b'h' => self.queues.held.with(|held| *held = Some(request)),
            b'p' => self.targets.pass(request),
            _ => {
                let length = request.len();
                request.complete(read.map(|()| length).or(Ok(0)));
            }
        }
    }

    fn stop(&self, cx: &mut IoStop<'_>) {
        let held = self.queues.held.with(Option::take);
        let mine = held.as_ref().is_some_and(|held| held.id() == cx.request());
        dmf::println!("stop: {:?}, mine: {mine}", cx.reason());
        if let Some(held) = held {
            dmf::println!("acknowledged: {:?}", cx.acknowledge(&held));
            self.queues.held.with(|slot| *slot = Some(held));
        }
    }

    fn resume(&self, request: RequestId) {
        if let Some(held) = self.queues.held.with(Option::take) {
            dmf::println!("resume: {}", held.id() == request);
            let length = held.len();
            held.complete(Ok(length));
        }
    }

    /// Keeps a request until it is cancelled.
    fn keep(&self, _: &mut QueueCallback<'_>, request: Request<Ioctl>) {
        dmf::println!("keep: {:#x}, {:?}", request.code(), request.is_canceled());
        match request.mark_cancelable() {
            Ok(kept) => {
                let before = self.queues.kept.with(|slot| slot.replace(kept));
                dmf::println!("kept: instead of another: {}", before.is_some());
            }
            Err(refused) => dmf::println!("keep: {:?}", refused.status()),
        }
    }

    /// Answers what waits, except reads of one byte.
    pub fn ready(&self) {
        let long = self.queues.reads.next_where(|read| read.len() > 1);
        if let Ok(Some(mut read)) = long {
            dmf::println!("read {} at {}", read.len(), read.offset());
            dmf::println!("no slice: {:?}", read.output().err());
            let written = read.direct_output().and_then(|pages| {
                dmf::println!("pages: {:?}", pages.mdl().map(Mdl::byte_count));
                pages.copy_from(read.len() - 1, b"x")
            });
            dmf::println!("written: {written:?}");
            read.complete_with_bytes(b"surface");
        }
    }

    fn canceled(&self, request: Request<Read>) {
        dmf::println!("canceled: a read of {}", request.len());
        request.complete(Err(NtStatus::CANCELLED));
    }
}

pub fn queues(me: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let Queues { writes, reads, .. } = &me.queues;
    let state = |tell: &mut Teller, what| {
        for queue in [&**writes, &**reads] {
            let state = queue.state();
            tell.value(
                what,
                state.map(|state| {
                    (
                        state.accepts(),
                        state.dispatches(),
                        state.is_held(),
                        state.waiting(),
                        state.in_driver(),
                    )
                }),
            );
        }
    };
    state(tell, "running");
    tell.value("stop", writes.stop(irql));
    tell.value("begin stop", reads.begin_stop());
    state(tell, "stopped");
    tell.value("start", (writes.start(), reads.start()));
    tell.value("drain", writes.drain(irql));
    tell.value("begin drain", reads.begin_drain());
    state(tell, "drained");
    tell.value("start", (writes.start(), reads.start()));
    tell.value("purge", writes.purge(irql));
    tell.value("begin purge", reads.begin_purge());
    state(tell, "purged");
    tell.value("start", (writes.start(), reads.start()));
    tell.value("stop and purge", writes.stop_and_purge(irql));
    state(tell, "stopped and purged");
    tell.value("start", writes.start());
    tell.value("nothing", reads.next().map(|read| read.is_none()));
    Ok(())
}
