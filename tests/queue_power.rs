// SPDX-License-Identifier: MIT OR Apache-2.0

//! Queues of `dmf` when power goes and comes, when the device is removed, and
//! when everybody does something to them at once.

#[path = "support/desk.rs"]
mod desk;
#[path = "support/probe.rs"]
mod probe;

use std::time::Duration;

use desk::*;
use dmf::prelude::*;
use dmf::wdf::{IoStop, ManualQueue, QueueConfig, RequestId, Taken};

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
