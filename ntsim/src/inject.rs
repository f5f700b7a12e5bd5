// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fault injection: calls that can fail are made to fail, and devices vanish
//! or lose their power at a bad moment.
//!
//! # Vocabulary
//! - *fallible call*: a pool allocation, the creation of a KMDF object or a
//!   thread, a reference by handle, the opening, reading or writing of a
//!   registry key. Each counts once, whether it then succeeds or not.
//! - *point*: the number of a fallible call, from 1, counted from
//!   [`Machine::inject`](crate::Machine::inject). What the filters of [`Faults`]
//!   leave out has no number.
//! - *stack*: where in the driver a fallible call comes from, by its callers,
//!   wherever the driver is loaded ([`Stacks`]).
//! - *blow*: what befalls a device or the machine before a scheduling step ([`Blow`]).
//!
//! # Which calls fail
//! | [`Faults`] | fails | in Windows |
//! |---|---|---|
//! | `nth` | one call, by its number | |
//! | `each_stack` | the first call from each place that was not seen before | [systematic low resources simulation][19], `verifier /rc 19 36` |
//! | `at_random` | calls by chance | [low resources simulation][3], `verifier /faults` |
//! | registry value `VerifierAllocateFailCount` | all of a driver's KMDF objects after the n-th | [KMDF verifier][kmdf] |
//!
//! A test walks all points: fail the first, then the second, until a run comes
//! to its end before the point does. It gets through faster with each stack
//! once, since a call that comes from the same place in the same way fails in the
//! same way:
//!
//! ```
//! use ntsim::Machine;
//! use ntsim::inject::{Faults, Stacks};
//!
//! let mut seen = Stacks::default();
//! loop {
//!     let mut machine = Machine::default();
//!     machine.inject(Faults::each_stack(seen));
//!     machine.run_thread("driver", || ()).unwrap(); // the life of a driver
//!     let report = machine.faults();
//!     seen = report.stacks.clone();
//!     if report.failures == 0 {
//!         break;
//!     }
//! }
//! ```
//!
//! Moments are walked through by [`Walk`].
//!
//! [3]: https://learn.microsoft.com/windows-hardware/drivers/devtest/low-resources-simulation
//! [19]: https://learn.microsoft.com/windows-hardware/drivers/devtest/systematic-low-resource-simulation
//! [kmdf]: https://learn.microsoft.com/windows-hardware/drivers/wdf/registry-values-for-debugging-kmdf-drivers

mod stacks;
mod walk;

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::io::Entry;
use crate::kernel::Kernel;
use crate::memory::tag_name;
use crate::trace::Event;

pub use stacks::Stacks;
pub use walk::{Blow, Broken, Walk, Walked};

pub(crate) use walk::{Ambush, before_step, moment};

/// `STATUS_INSUFFICIENT_RESOURCES`, with which injected failures fail.
pub(crate) const STATUS_INSUFFICIENT_RESOURCES: i32 = 0xC000_009A_u32.cast_signed();

/// Of how many chances [`Faults::at_random`] counts, as `verifier /faults` does.
const CHANCES: u64 = 10_000;

/// Which fallible calls fail. For [`Machine::inject`](crate::Machine::inject).
///
/// The filters narrow down what a fault may hit; with several of one sort,
/// any of them.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    which: Which,
    functions: Vec<String>,
    tags: Vec<u32>,
    services: Vec<String>,
    after: u64,
    most: Option<u64>,
}

#[derive(Clone, Debug, Default)]
enum Which {
    #[default]
    None,
    Nth(u64),
    EachStack(Stacks),
    AtRandom {
        chances: u32,
        seed: Option<u64>,
    },
}

impl Faults {
    /// No call fails. They are counted.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    fn new(which: Which) -> Self {
        Self {
            which,
            ..Self::default()
        }
    }

    /// The call with this number fails, counted from 1.
    #[must_use]
    pub fn nth(point: u64) -> Self {
        Self::new(Which::Nth(point))
    }

    /// The first call from each stack that is not among `seen` fails.
    #[must_use]
    pub fn each_stack(seen: Stacks) -> Self {
        Self::new(Which::EachStack(seen))
    }

    /// Each call fails with so many chances in 10,000; `verifier /faults` has
    /// 600 unless it is told otherwise. The machine's seed decides which, or
    /// [`seed`](Self::seed).
    #[must_use]
    pub fn at_random(chances: u32) -> Self {
        Self::new(Which::AtRandom {
            chances,
            seed: None,
        })
    }

    /// Decides which calls fail [at random](Self::at_random) by a seed of its own.
    #[must_use]
    pub fn seed(mut self, number: u64) -> Self {
        if let Which::AtRandom { seed, .. } = &mut self.which {
            *seed = Some(number);
        }
        self
    }

    /// Only calls to this function, or creations of this type of KMDF object
    /// (`WDFTIMER`).
    #[must_use]
    pub fn only_function(mut self, name: impl Into<String>) -> Self {
        self.functions.push(name.into());
        self
    }

    /// Only allocations with this pool tag.
    #[must_use]
    pub fn only_tag(mut self, tag: u32) -> Self {
        self.tags.push(tag);
        self
    }

    /// Only calls of this service's driver.
    #[must_use]
    pub fn only_service(mut self, service: impl Into<String>) -> Self {
        self.services.push(service.into());
        self
    }

    /// Only calls from this virtual time after booting on; `verifier /faults`
    /// leaves the system eight minutes to start up.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX);
        self
    }

    /// So many calls at most.
    #[must_use]
    pub fn at_most(mut self, failures: u64) -> Self {
        self.most = Some(failures);
        self
    }

    fn may_hit(&self, k: &Kernel, name: &str, tag: Option<u32>) -> bool {
        (self.functions.is_empty() || self.functions.iter().any(|only| only == name))
            && (self.tags.is_empty() || tag.is_some_and(|tag| self.tags.contains(&tag)))
            && k.now >= self.after
            && (self.services.is_empty() || {
                let caller = calling_service(k);
                self.services
                    .iter()
                    .any(|only| caller.is_some_and(|caller| only.eq_ignore_ascii_case(caller)))
            })
    }
}

/// What is counted, and what is to fail.
#[derive(Default)]
pub(crate) struct State {
    faults: Faults,
    rng: Option<ChaCha8Rng>,
    walker: stacks::Walker,
    report: Report,
}

/// What [`Machine::faults`](crate::Machine::faults) tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many fallible calls there were that a fault may hit.
    pub calls: u64,
    /// How many of each name.
    pub by_name: BTreeMap<&'static str, u64>,
    /// The first one that was made to fail.
    pub failed: Option<&'static str>,
    /// How many were made to fail.
    pub failures: u64,
    /// With [`Faults::each_stack`]: all stacks that were seen, those of earlier
    /// runs included.
    pub stacks: Stacks,
}

impl State {
    pub(crate) fn arm(&mut self, mut faults: Faults, seed: u64) {
        let (mut rng, mut report) = (None, Report::default());
        match &mut faults.which {
            Which::EachStack(known) => report.stacks = std::mem::take(known),
            Which::AtRandom { seed: own, .. } => {
                rng = Some(ChaCha8Rng::seed_from_u64(own.unwrap_or(seed)));
            }
            Which::None | Which::Nth(_) => {}
        }
        *self = Self {
            faults,
            rng,
            walker: stacks::Walker::default(),
            report,
        };
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }
}

/// Counts a fallible call, and tells whether it is to fail.
pub(crate) fn fails(k: &mut Kernel, name: &'static str) -> bool {
    decide(k, name, None)
}

/// The same for an allocation with this tag.
pub(crate) fn allocation_fails(k: &mut Kernel, name: &'static str, tag: u32) -> bool {
    decide(k, name, Some(tag))
}

fn decide(k: &mut Kernel, name: &'static str, tag: Option<u32>) -> bool {
    if !k.inject.faults.may_hit(k, name, tag) {
        return false;
    }
    let report = &mut k.inject.report;
    report.calls += 1;
    *report.by_name.entry(name).or_default() += 1;
    let (call, failures) = (report.calls, report.failures);
    if k.inject.faults.most.is_some_and(|most| failures >= most) {
        return false;
    }
    let fails = match k.inject.faults.which {
        Which::None => false,
        Which::Nth(point) => call == point,
        Which::EachStack(_) => {
            let stack = stacks::here(k, name);
            k.inject.report.stacks.insert(stack)
        }
        Which::AtRandom { chances, .. } => {
            let rng = k.inject.rng.as_mut().expect("arm made it");
            // The bias of the remainder is below 2^-50.
            rng.next_u64() % CHANCES < u64::from(chances)
        }
    };
    if !fails {
        return false;
    }
    let report = &mut k.inject.report;
    report.failures += 1;
    report.failed.get_or_insert(name);
    let tag = tag.map_or_else(String::new, |tag| format!(", tag '{}'", tag_name(tag)));
    let text = format!("fault injection: fallible call {call} ({name}{tag}) fails");
    k.log(Event::Machine(text));
    true
}

/// The same as [`fails`] as a result, for functions that end with the status of failure.
pub(crate) fn check(k: &mut Kernel, name: &'static str) -> Result<(), i32> {
    if fails(k, name) {
        Err(STATUS_INSUFFICIENT_RESOURCES)
    } else {
        Ok(())
    }
}

/// The service of the driver whose call is being served.
pub(crate) fn calling_service(k: &Kernel) -> Option<&str> {
    if !k.calls_from_image() {
        // One driver can be linked into the host program.
        let linked = k.io.drivers.iter().rev();
        return linked
            .filter(|driver| matches!(driver.entry, Entry::Host(_)))
            .map(|driver| driver.name.as_str())
            .next();
    }
    let addresses = stacks::addresses(k);
    addresses.iter().find_map(|address| {
        let address = usize::try_from(*address).ok()?;
        let of = |driver: &&crate::io::Driver| {
            let image = driver.image.as_ref();
            image.is_some_and(|image| image.addresses().contains(&address))
        };
        Some(k.io.drivers.iter().find(of)?.name.as_str())
    })
}
