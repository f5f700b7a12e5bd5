// SPDX-License-Identifier: MIT OR Apache-2.0

//! The simulated machine, from the outside.
//!
//! A [`Machine`] is what a test holds: it loads drivers, plugs devices in and
//! out, lets virtual time pass, and tells what happened.

use std::time::Duration;

use crate::bugcheck::Stop;
use crate::ke::thread;
use crate::kernel::{Kernel, Ran, Settings};
use crate::strategy::Strategy;
use crate::trace::{Event, Line};

/// System time at the first boot: 2026-01-01 00:00 UTC, in 100 ns units since 1601.
pub(crate) const EPOCH: u64 = 134_116_992_000_000_000;

/// A simulated machine.
pub struct Machine {
    k: Box<Kernel>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

/// The result of what can end in a bug check.
pub type Result<T, E = Box<Stop>> = std::result::Result<T, E>;

impl Machine {
    /// A machine that has just booted, with nothing installed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { k: Box::new(Kernel::new(settings)) }
    }

    /// A machine whose every choice is decided by `seed`.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self::new(Settings { seed, strategy: Strategy::Random, ..Settings::default() })
    }

    /// Virtual time since the first boot.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos((self.k.boot_offset + self.k.now) * 100)
    }

    /// The trace so far.
    #[must_use]
    pub fn trace(&self) -> &[Line] {
        &self.k.trace
    }

    /// Runs `body` on a system thread until it returns, and gives its value.
    /// Other threads run as the schedule has it; virtual time passes as needed.
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation.
    pub fn run_thread<R: 'static>(&mut self, name: &str, body: impl FnOnce() -> R + 'static) -> Result<R> {
        let slot = std::rc::Rc::new(std::cell::RefCell::new(None));
        let result = slot.clone();
        let job = Box::new(move || {
            let value = body();
            *result.borrow_mut() = Some(value);
        });
        let thread = thread::spawn(&mut self.k, name.to_owned(), true, job);
        let ran = self.k.run(&mut |k| k.threads[&thread].exited)?;
        match ran {
            Ran::Until => Ok(slot.borrow_mut().take().expect("the thread returned its value")),
            Ran::Idle => Err(Box::new(Stop::deadlock(&self.k, name))),
        }
    }

    /// Lets virtual time pass, running what there is to run.
    ///
    /// # Errors
    /// The bug check or other stop that ended the simulation.
    pub fn run_for(&mut self, time: Duration) -> Result<()> {
        let units = u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX);
        let end = self.k.now.saturating_add(units);
        self.k.run(&mut |k| !k.is_busy() && k.next_timer().is_none_or(|due| due > end))?;
        let left = end.saturating_sub(self.k.now);
        self.k.advance(left);
        Ok(())
    }

    /// Writes a line of the machine's own into the trace.
    pub(crate) fn note(&mut self, text: String) {
        self.k.log(Event::Machine(text));
    }
}

/// Runs `body` on a thread of a fresh machine: for examples and small tests.
///
/// # Panics
/// If the simulation ends in a bug check or a deadlock; the report is the message.
pub fn run<R: 'static>(body: impl FnOnce() -> R + 'static) -> R {
    let mut machine = Machine::default();
    machine.run_thread("main", body).unwrap_or_else(|stop| panic!("{stop}"))
}
