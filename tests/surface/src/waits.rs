// SPDX-License-Identifier: MIT OR Apache-2.0

//! The wait family, locks, threads.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dmf::pool::Arc;
use dmf::prelude::*;
use dmf::sync::{
    Alertability, EventKind, FastMutex, Mutex, MutexOutcome, PushLock, QueuedSpinLock,
    RundownProtection, Semaphore, Wait, WaitMode, Waitable, try_wait, wait, wait_all, wait_any,
};
use dmf::thread::ThreadId;
use dmf::time::SystemTime;
use dmf::{sync, wdf};

use crate::Surface;
use crate::tell::Teller;

const SOON: Duration = Duration::from_millis(40);

pub fn waits(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let latch = Event::new(EventKind::Notification)?;
    let pulse = Event::new(EventKind::Synchronization)?;
    tell.value("polled", latch.try_wait());
    tell.value("was set", latch.set());
    tell.value("is set", latch.is_signaled());
    tell.value("waited", latch.wait(irql, Timeout::Never));
    tell.value("was reset", latch.reset());
    tell.value("timed out", latch.wait(irql, SOON));
    tell.value(
        "timed out at",
        latch.wait(irql, Timeout::At(SystemTime::now().after(SOON))),
    );
    tell.value("not alerted", pulse.wait_alertable(irql, SOON));
    pulse.set();
    tell.value("taken", pulse.wait(irql, Timeout::Poll));
    tell.value("taken once", pulse.try_wait());
    latch.clear();

    let tokens = Semaphore::new(1, 3)?;
    tell.value("token", tokens.acquire(irql, SOON));
    tell.value("no token", tokens.try_acquire());
    tell.value("released", tokens.release(2));
    tell.value("too many", tokens.release(2));
    tell.value("tokens", tokens.count());
    tell.value("no limit", Semaphore::new(2, 1).err());

    let mutex = Mutex::new(1_u32)?;
    tell.value(
        "locked",
        mutex.lock(irql, Timeout::Never, |value| {
            *value += 1;
            *value
        }),
    );
    tell.value("owned", mutex.is_owned());
    tell.value(
        "claimed",
        mutex.claim(irql, |claim| {
            let outcome = wait(irql, claim, SOON);
            (outcome, claim.lock(|value| *value))
        }),
    );

    tell.value("one", wait(irql, &tokens, Timeout::Poll));
    tell.value("at once", try_wait(&latch));
    tell.value("any", wait_any(irql, [&latch, &pulse, &tokens], SOON));
    tell.value("none", wait_any(irql, [&latch, &pulse, &tokens], SOON));
    latch.set();
    pulse.set();
    tokens.release(1)?;
    tell.value("all", wait_all(irql, [&latch, &pulse, &tokens], SOON));
    let more = [(); 3].map(|()| Event::new(EventKind::Notification));
    let [Ok(a), Ok(b), Ok(c)] = more else {
        return Err(NtStatus::INSUFFICIENT_RESOURCES);
    };
    tell.value("any of four", wait_any(irql, [&a, &b, &c, &latch], SOON));
    tell.value("all of four", wait_all(irql, [&a, &b, &c, &latch], SOON));
    tell.value("twice", wait_all(irql, [&a, &b, &c, &a], SOON));
    let chosen = Wait {
        mode: WaitMode::User,
        alertability: Alertability::Alertable,
    };
    let objects: [&dyn Waitable; 4] = [&a, &b, &c, &latch];
    tell.value("chosen", chosen.one(irql, &latch, SOON));
    tell.value("chosen any", chosen.any(irql, &objects, SOON));
    tell.value("chosen all", chosen.all(irql, &objects, SOON));
    tell.value("of none", chosen.any(irql, &[], SOON));
    tell.value("delayed", chosen.delay(irql, SOON));
    tell.value("advised", Wait::ADVISED.delay(irql, SOON));
    Ok(())
}

pub fn locks(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let spin = SpinLock::new(1_u32);
    spin.lock(irql, |value, held| {
        *value += 1;
        let inner = QueuedSpinLock::new(2_u32);
        inner.lock(held, |inner, _| *inner += *value);
        *value = inner.with(|inner| *inner);
    });
    tell.value("spin", spin.with(|value| *value));
    let fast = FastMutex::new(3_u32)?;
    tell.value("fast", fast.lock(irql, |value, _| *value));
    tell.value("fast at once", fast.try_lock(irql, |value, _| *value));
    let push = PushLock::new(4_u32);
    push.write(irql, |value| *value += 1);
    tell.value("push", push.read(irql, |value| *value));
    let framework = wdf::SpinLock::new(6_u32)?;
    tell.value("framework spin", framework.lock(irql, |value, _| *value));
    let slow = wdf::WaitLock::new(7_u32)?;
    tell.value("framework wait", slow.lock(irql, |value| *value));
    tell.value(
        "framework wait for",
        slow.lock_for(irql, SOON, |value| *value),
    );
    let mut rundown = RundownProtection::new(8_u32);
    tell.value("protected", rundown.acquire().map(|value| *value));
    tell.value("run down", rundown.run_down(irql));
    tell.value("refused", rundown.acquire().is_none());
    tell.value("run down again", rundown.run_down(irql));
    rundown.reinitialize();
    tell.value("protected again", rundown.acquire().is_some());
    Ok(())
}

/// What the threads share.
struct Shared {
    spin: SpinLock<u32>,
    queued: QueuedSpinLock<u32>,
    fast: FastMutex<u32>,
    push: PushLock<u32>,
    mutex: Mutex<u32>,
    wait: wdf::WaitLock<u32>,
    go: Event,
    tokens: Semaphore,
    order: AtomicU32,
}

pub fn threads(_: &Surface, irql: &mut Irql<'_, Passive>, tell: &mut Teller) -> Result {
    let shared = Arc::new(Shared {
        spin: SpinLock::new(0),
        queued: QueuedSpinLock::new(0),
        fast: FastMutex::new(0)?,
        push: PushLock::new(0),
        mutex: Mutex::new(0)?,
        wait: wdf::WaitLock::new(0)?,
        go: Event::new(EventKind::Notification)?,
        tokens: Semaphore::new(1, 1)?,
        order: AtomicU32::new(0),
    })?;
    let spawn = |number: u32| {
        let shared = shared.clone();
        Thread::spawn(irql, move |irql| {
            let _ = shared.go.wait(irql, Timeout::Never);
            for _ in 0..3 {
                shared.spin.lock(irql, |value, _| *value += 1);
                shared.queued.lock(irql, |value, _| *value += 1);
                shared.fast.lock(irql, |value, _| *value += 1);
                shared.push.write(irql, |value| *value += 1);
                if let MutexOutcome::Locked(()) =
                    shared.mutex.lock(irql, Timeout::Never, |value| *value += 1)
                {
                    shared.wait.lock(irql, |value| *value += 1);
                }
                let _ = shared.tokens.acquire(irql, Timeout::Never);
                sync::delay(irql, Duration::from_millis(u64::from(number)));
                let _ = shared.tokens.release(1);
            }
            let order = shared.order.fetch_add(1, Relaxed);
            dmf::println!("thread {number} ends as number {order}");
        })
    };
    let [one, two, three] = [spawn(1)?, spawn(2)?, spawn(3)?];
    tell.value("finished", one.is_finished(irql));
    tell.value("another", ThreadId::current() == ThreadId::current());
    let one = match one.join_timeout(irql, SOON) {
        Ok(()) => return Err(NtStatus::UNSUCCESSFUL),
        Err(one) => one,
    };
    shared.go.set();
    if let (Some(one), Some(two)) = (one.exit(), two.exit()) {
        tell.value("both ended", wait_all(irql, [&one, &two], Timeout::Never));
    }
    one.join(irql);
    two.join(irql);
    three.join(irql);
    tell.value(
        "counted",
        (
            shared.spin.with(|value| *value),
            shared.queued.with(|value| *value),
            shared.fast.lock(irql, |value, _| *value),
            shared.push.read(irql, |value| *value),
            shared.mutex.lock(irql, Timeout::Poll, |value| *value),
            shared.wait.lock(irql, |value| *value),
            shared.order.load(Relaxed),
        ),
    );
    Ok(())
}
