// SPDX-License-Identifier: MIT OR Apache-2.0

//! Blows at every moment: a scenario is played once to count its moments, then
//! once more for each of them, with the blow falling there.
//!
//! ```text
//!   count the moments ──► for each (or each k-th): a new machine
//!                           the scenario, struck by the blow
//!                           what is left is cleared away
//!                           the scenario again, undisturbed: has to succeed
//! ```

use std::time::Duration;

use crate::bugcheck::{Stop, StopKind};
use crate::ke::dispatcher::ThreadId;
use crate::kernel::Kernel;
use crate::machine::{Error, Machine, Written};
use crate::wdf::pnp::{self, DeviceId};

/// What befalls a device or the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blow {
    /// Before a scheduling step, the device is gone. The PnP manager tells the
    /// driver as soon as no other PnP request is under way; a power change may be.
    SurpriseRemoval,
    /// Before a scheduling step, the power is cut; so much of the registry had
    /// reached the disk.
    PowerCut(Written),
    /// One of the driver's PnP and power callbacks that return a status fails:
    /// it is not called, as if it had failed at its beginning; one that clears
    /// away (D0Exit, ReleaseHardware, SelfManagedIoSuspend) does and fails then.
    FailedCallback,
    /// The bus driver cannot start the device.
    FailedStart,
    /// Another driver of the device refuses that it is stopped or removed,
    /// after this one agreed.
    RefusedQuery,
}

impl Blow {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SurpriseRemoval,
        Self::PowerCut(Written::Everything),
        Self::PowerCut(Written::AsOfTheLastCommit),
        Self::FailedCallback,
        Self::FailedStart,
        Self::RefusedQuery,
    ];

    const fn is_at_a_step(self) -> bool {
        matches!(self, Self::SurpriseRemoval | Self::PowerCut(_))
    }
}

/// `STATUS_UNSUCCESSFUL`, with which callbacks, starts and queries fail.
const STATUS_UNSUCCESSFUL: i32 = 0xC000_0001_u32.cast_signed();

/// A blow that waits for its moment.
#[derive(Default)]
pub(crate) struct Ambush {
    armed: Option<Armed>,
    /// What was struck already.
    pub(crate) pending: Option<Pending>,
    struck: bool,
}

struct Armed {
    blow: Blow,
    /// The device's instance id.
    device: String,
    /// The moments so far that are no steps.
    moments: u64,
    /// The steps when it was armed.
    from: u64,
    at: Option<u64>,
}

/// A device that is gone while the machine is busy.
pub(crate) struct Pending {
    pub(crate) thread: ThreadId,
    pub(crate) device: String,
    /// The device is not there any more: nobody is to be told.
    pub(crate) is_called_off: bool,
    /// Who was told.
    pub(crate) told: Option<DeviceId>,
}

impl Ambush {
    pub(crate) fn arm(&mut self, blow: Blow, device: &str, at: Option<u64>, steps: u64) {
        self.armed = Some(Armed {
            blow,
            device: device.to_owned(),
            moments: 0,
            from: steps,
            at,
        });
        self.struck = false;
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    pub(crate) fn disarm(&mut self) {
        self.armed = None;
    }

    pub(crate) fn moments(&self, steps: u64) -> u64 {
        self.armed.as_ref().map_or(0, |armed| {
            if armed.blow.is_at_a_step() {
                steps - armed.from
            } else {
                armed.moments
            }
        })
    }
}

/// Before each scheduling step: the end of the simulation if the power is cut.
pub(crate) fn before_step(k: &mut Kernel) -> Option<Stop> {
    let steps = k.steps;
    let armed = k.ambush.armed.as_ref()?;
    if !armed.blow.is_at_a_step() || armed.at.is_none_or(|at| armed.from + at != steps) {
        return None;
    }
    let (blow, device) = (armed.blow, armed.device.clone());
    k.ambush.struck = true;
    if let Blow::PowerCut(_) = blow {
        return Some(Stop::power_cut(k));
    }
    let instance = device.clone();
    let job = Box::new(move || pnp::unplug(&instance));
    let thread = crate::ke::thread::spawn(k, "PnP".to_owned(), true, job);
    k.ambush.pending = Some(Pending {
        thread,
        device,
        is_called_off: false,
        told: None,
    });
    None
}

/// At a moment that is not a step.
///
/// # Errors
/// `STATUS_UNSUCCESSFUL` if this is where `blow` falls.
pub(crate) fn moment(k: &mut Kernel, blow: Blow, device: &str) -> Result<(), i32> {
    let Some(armed) = k.ambush.armed.as_mut() else {
        return Ok(());
    };
    if armed.blow != blow || !armed.device.eq_ignore_ascii_case(device) {
        return Ok(());
    }
    armed.moments += 1;
    if armed.at != Some(armed.moments) {
        return Ok(());
    }
    let moment = armed.moments;
    k.ambush.struck = true;
    k.log(crate::trace::Event::Machine(format!(
        "fault injection: {blow:?}, moment {moment}"
    )));
    Err(STATUS_UNSUCCESSFUL)
}

/// Plays a scenario with a [`Blow`] at each of its moments.
///
/// ```no_run
/// use ntsim::inject::{Blow, Walk};
/// use ntsim::Machine;
/// # fn fresh() -> (Machine, String) { unimplemented!() }
///
/// let walked = Walk::new(Blow::SurpriseRemoval, fresh, |machine, device| {
///     machine.start_device(device)?;
///     machine.power_down(device)?;
///     machine.power_up(device)?;
///     machine.remove_device(device)
/// })
/// .run()
/// .unwrap();
/// assert!(walked.broken.is_empty(), "{walked}");
/// ```
pub struct Walk<M, S> {
    blow: Blow,
    budget: u64,
    make: M,
    scenario: S,
}

/// What a [`Walk`] has found.
#[derive(Debug)]
pub struct Walked {
    /// How many moments the scenario has.
    pub moments: u64,
    /// How many were tried.
    pub tried: u64,
    /// At how many of these the blow fell.
    pub struck: u64,
    /// Where something broke.
    pub broken: Vec<Broken>,
}

/// A moment at which a blow broke something.
#[derive(Debug)]
pub struct Broken {
    /// Which, counted from 1.
    pub moment: u64,
    /// When it was noticed.
    pub when: &'static str,
    /// What happened.
    pub error: Error,
}

impl std::fmt::Display for Walked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tried, moments, struck) = (self.tried, self.moments, self.struck);
        writeln!(f, "{tried} of {moments} moments tried, struck at {struck}")?;
        for broken in &self.broken {
            writeln!(f, "moment {}, {}:", broken.moment, broken.when)?;
            writeln!(f, "{}", broken.error)?;
        }
        Ok(())
    }
}

impl<M, S> Walk<M, S>
where
    M: Fn() -> (Machine, String),
    S: Fn(&mut Machine, &str) -> Result<(), Error>,
{
    /// A walk through `scenario`, each time on a machine that `make` gives, with
    /// the instance id of the device that the blow is for. The scenario begins
    /// with the device not started, and leaves it so; it gives up at the first error.
    pub fn new(blow: Blow, make: M, scenario: S) -> Self {
        Self {
            blow,
            budget: u64::MAX,
            make,
            scenario,
        }
    }

    /// So many moments at most, evenly spread.
    #[must_use]
    pub fn budget(mut self, moments: u64) -> Self {
        self.budget = moments.max(1);
        self
    }

    /// Walks.
    ///
    /// # Errors
    /// The scenario's own, without any blow.
    pub fn run(&self) -> Result<Walked, Error> {
        let (mut machine, device) = (self.make)();
        machine.ambush(self.blow, &device, None);
        (self.scenario)(&mut machine, &device)?;
        let moments = machine.moments();
        let stride = moments.div_ceil(self.budget).max(1);
        let mut walked = Walked {
            moments,
            tried: 0,
            struck: 0,
            broken: Vec::new(),
        };
        let mut moment = 1;
        while moment <= moments {
            walked.tried += 1;
            match self.play(moment) {
                Ok(struck) => walked.struck += u64::from(struck),
                Err((when, error)) => walked.broken.push(Broken {
                    moment,
                    when,
                    error,
                }),
            }
            moment += stride;
        }
        Ok(walked)
    }

    fn play(&self, moment: u64) -> Result<bool, (&'static str, Error)> {
        let (mut machine, device) = (self.make)();
        machine.ambush(self.blow, &device, Some(moment));
        let result = (self.scenario)(&mut machine, &device);
        let struck = machine.kernel().ambush.struck;
        machine.kernel().ambush.disarm();
        match (self.blow, result) {
            (Blow::PowerCut(written), Err(Error::Stop(stop)))
                if stop.kind == StopKind::PowerCut =>
            {
                machine
                    .boot_after_power_cut(written)
                    .map_err(|error| ("booting again", error))?;
            }
            (_, Err(Error::Stop(stop))) => return Err(("while it happened", stop.into())),
            // What the scenario makes of its device's end is its own affair.
            _ => machine
                .clear_away(&device)
                .map_err(|error| ("while the device was removed", error))?,
        }
        let again = (self.scenario)(&mut machine, &device);
        again.map_err(|error| ("afterwards, undisturbed", error))?;
        Ok(struck)
    }
}

impl Machine {
    /// Lets `blow` fall on this device at its n-th moment from now, counted from
    /// 1; with `None` the moments are only counted. What a moment is depends on
    /// the blow: a scheduling step, or a callback, a start, a query.
    pub fn ambush(&mut self, blow: Blow, device: &str, moment: Option<u64>) {
        let k = self.kernel();
        let steps = k.steps;
        k.ambush.arm(blow, device, moment, steps);
    }

    /// The moments since [`ambush`](Self::ambush).
    pub fn moments(&mut self) -> u64 {
        let k = self.kernel();
        k.ambush.moments(k.steps)
    }

    /// Lets the machine come to rest after a blow, and takes the device away if
    /// it is there still.
    fn clear_away(&mut self, device: &str) -> Result<(), Error> {
        self.settle()?;
        self.close_all()?;
        self.run_for(Duration::ZERO)?;
        if self.started_devices().iter().any(|other| other == device) {
            self.remove_device(device)?;
        }
        Ok(())
    }
}
