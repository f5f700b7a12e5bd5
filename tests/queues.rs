// SPDX-License-Identifier: MIT OR Apache-2.0

//! Queues of `dmf`: how many requests they deliver and when, what stopping,
//! draining and purging do, looking for requests, forwarding and requeuing, and
//! configurations that make no sense.

#[path = "support/desk.rs"]
mod desk;
#[path = "support/probe.rs"]
mod probe;

use std::cell::RefCell;
use std::mem::ManuallyDrop;
use std::num::NonZeroU32;
use std::time::Duration;

use desk::*;
use dmf::prelude::*;
use dmf::wdf::{
    DefaultQueue, ManualQueue, Queue, QueueConfig, Request, RequestType, Requestor, Write,
};
use ntsim::machine::Error;

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

thread_local! {
    /// Not dropped with the test's thread, where there is no kernel to free it.
    static OWNER: RefCell<Option<ManuallyDrop<Owner<Desk>>>> = const { RefCell::new(None) };
}

#[test]
fn a_request_that_is_handed_over_as_a_handle_is_completed_by_whoever_takes_it_back() {
    for seed in 0..5 {
        let mut bench = Bench::new(seed, |add| {
            assert!(!add.as_raw_device().is_null());
            OWNER.set(Some(ManuallyDrop::new(add.owner())));
            holding(add)
        });
        let write = bench.write(3);
        assert!(bench.ended(write).is_none());
        bench.run(|desk, _| {
            let request = desk.held.lock().unwrap().remove(0);
            let handle = request.into_raw();
            let owner = OWNER.take().map(ManuallyDrop::into_inner).unwrap();
            // SAFETY: a write of this device, and `into_raw` gave it up.
            let request = unsafe { Request::<Write>::from_raw(handle, &owner) }.unwrap();
            drop(owner);
            assert_eq!((request.as_raw(), request.len()), (handle, 3));
            request.complete(Ok(3));
        });
        assert_eq!(bench.status(write), SUCCESS);
        bench.end();
    }
}
