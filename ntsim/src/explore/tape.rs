// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the scheduler writes down, and how an exploration steers it.
//!
//! A [`Tape`] is shared: the explorer keeps one end and gives the other to the
//! machine, as [`Settings::tape`](crate::Settings::tape). While a machine plays,
//! its scheduler owns the [`Recording`], so that a step costs no lock; it comes
//! back when the machine is gone or begins another schedule.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::schedule::Schedule;
use crate::kernel::ContextId;
use crate::trace::Line;

/// Records the choices of the machines that it is given to.
#[derive(Clone, Debug, Default)]
pub struct Tape(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    steer: Steer,
    recording: Recording,
    /// The lines of the machines that are gone, if somebody wants them.
    trace: Option<Vec<String>>,
}

impl Tape {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The schedule of the last machine that recorded here and is gone.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::of(&self.lock().recording.steps)
    }

    pub(crate) fn steer(&self, steer: Steer) {
        self.lock().steer = steer;
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Recording) -> R) -> R {
        look(&mut self.lock().recording)
    }

    /// What a new schedule begins with.
    pub(crate) fn begin(&self) -> (Steer, Recording) {
        let mut state = self.lock();
        let mut recording = std::mem::take(&mut state.recording);
        recording.steps.clear();
        (state.steer.clone(), recording)
    }

    /// Keeps the traces of machines, until they are taken.
    pub(crate) fn keep_trace(&self) {
        self.lock().trace = Some(Vec::new());
    }

    pub(crate) fn take_trace(&self) -> Vec<String> {
        self.lock().trace.take().unwrap_or_default()
    }

    /// The trace of a machine that goes.
    pub(crate) fn add_trace(&self, lines: &[Line]) {
        if let Some(trace) = &mut self.lock().trace {
            trace.extend(lines.iter().map(ToString::to_string));
        }
    }

    pub(crate) fn give_back(&self, recording: Recording) {
        self.lock().recording = recording;
    }

    /// A machine that is dropped while a test panics does not poison the rest.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who decides, if it is not the strategy.
#[derive(Clone, Debug, Default)]
pub(crate) enum Steer {
    /// The strategy does.
    #[default]
    Strategy,
    /// This schedule as far as it goes, then the default.
    Prefix(Arc<Schedule>),
    /// These in turn, each as far as it can, then the default.
    Plan(Arc<[Segment]>),
}

/// Somebody who runs for some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) who: Who,
    pub(crate) steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Context(ContextId),
    /// The DPC at the head of the queue begins.
    Dpc,
}

/// What one schedule left behind.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Of the last schedule.
    pub(crate) steps: Vec<Step>,
    /// Of all schedules.
    pub(crate) coverage: Coverage,
}

/// A decision of the scheduler, also one without a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) who: Who,
    pub(crate) options: u32,
    pub(crate) chosen: u32,
    pub(crate) default: u32,
    /// Whether another than the default would not have been a preemption: who
    /// ran cannot go on.
    pub(crate) free: bool,
}

impl Step {
    pub(crate) fn preempts(&self) -> bool {
        !self.free && self.chosen != self.default
    }
}

/// Which scheduling points were seen: after which call, with how many options.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// By the address of the name, which is faster to hash than the name. One
    /// name may have several addresses.
    seen: HashSet<Place, BuildHasherDefault<Mix>>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    call: &'static str,
    options: u32,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.call, other.call) && self.options == other.options
    }
}

impl Eq for Place {}

impl std::hash::Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.call.as_ptr() as usize ^ self.options as usize);
    }
}

/// A hash of one number.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, value: usize) {
        let mixed = (self.0 ^ value as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 29;
    }
}

impl Coverage {
    #[inline]
    pub(crate) fn add(&mut self, call: &'static str, options: u32) {
        self.seen.insert(Place { call, options });
    }

    /// How many scheduling points there are; a name with two addresses may count twice.
    pub(crate) fn count(&self) -> usize {
        self.seen.len()
    }

    /// The calls after which there was a choice, and among how many.
    #[must_use]
    pub fn points(&self) -> BTreeMap<&'static str, Vec<u32>> {
        let mut points: BTreeMap<_, Vec<u32>> = BTreeMap::new();
        for place in &self.seen {
            points.entry(place.call).or_default().push(place.options);
        }
        for options in points.values_mut() {
            options.sort_unstable();
            options.dedup();
        }
        points
    }
}
