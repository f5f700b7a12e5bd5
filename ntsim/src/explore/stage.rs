// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where schedules are played: on a machine each, or all on one.

use std::sync::Arc;

use super::failure::{Difference, Failure, Signature, caught};
use super::schedule::Schedule;
use super::tape::{Steer, Step, Tape};
use crate::kernel::Settings;
use crate::machine::{Error, Machine};
use crate::strategy::Strategy;

/// Plays a scenario under the settings that it is given.
pub(crate) trait Scenario {
    fn play(&mut self, settings: Settings) -> Result<(), Failure>;

    /// Throws away what is left of earlier schedules.
    fn renew(&mut self) {}
}

/// A machine for each schedule, which the scenario makes itself.
pub(crate) struct Fresh<F>(pub(crate) F);

impl<F: FnMut(Settings) -> Result<(), Error>> Scenario for Fresh<F> {
    fn play(&mut self, settings: Settings) -> Result<(), Failure> {
        caught(|| (self.0)(settings))
    }
}

/// One machine for all schedules, until one fails.
pub(crate) struct Kept<M, F> {
    pub(crate) make: M,
    pub(crate) scenario: F,
    pub(crate) machine: Option<Machine>,
}

impl<M, F> Scenario for Kept<M, F>
where
    M: FnMut(Settings) -> Result<Machine, Error>,
    F: FnMut(&mut Machine) -> Result<(), Error>,
{
    fn play(&mut self, settings: Settings) -> Result<(), Failure> {
        let (strategy, seed) = (settings.strategy.clone(), settings.seed);
        caught(|| {
            let mut machine = match self.machine.take() {
                Some(machine) => machine,
                // Made under a schedule that is always the same.
                None => (self.make)(Settings {
                    tape: None,
                    strategy: Strategy::RoundRobin,
                    ..settings.clone()
                })?,
            };
            machine.use_tape(settings.tape.clone());
            machine.reschedule(strategy, seed);
            let result = (self.scenario)(&mut machine);
            if let Some(tape) = &settings.tape {
                tape.add_trace(machine.trace());
            }
            machine.use_tape(None);
            machine.reschedule(Strategy::RoundRobin, 0);
            if result.is_ok() {
                self.machine = Some(machine);
            }
            result
        })
    }

    fn renew(&mut self) {
        self.machine = None;
    }
}

/// A scenario with the settings and the tape that it is played with.
pub(crate) struct Stage<'a> {
    scenario: &'a mut dyn Scenario,
    settings: Settings,
    pub(crate) tape: Tape,
}

impl<'a> Stage<'a> {
    /// Without traces and backtraces, which a search has no use for.
    pub(crate) fn new(scenario: &'a mut dyn Scenario, settings: &Settings) -> Self {
        Self {
            scenario,
            tape: Tape::new(),
            settings: Settings {
                trace: false,
                backtraces: false,
                ..settings.clone()
            },
        }
    }

    /// The steps of the schedule that was played last.
    pub(crate) fn steps<R>(&self, look: impl FnOnce(&[Step]) -> R) -> R {
        self.tape.with(|recording| look(&recording.steps))
    }

    fn with(&mut self, settings: Settings) -> Result<(), Failure> {
        self.scenario.play(Settings {
            tape: Some(self.tape.clone()),
            ..settings
        })
    }

    pub(crate) fn play(&mut self, strategy: Strategy, seed: u64) -> Result<(), Failure> {
        let settings = self.settings.clone();
        self.with(Settings {
            seed,
            strategy,
            ..settings
        })
    }

    /// Plays what `steer` says, and then runs on.
    pub(crate) fn steered(&mut self, steer: Steer) -> Result<(), Failure> {
        self.tape.steer(steer);
        let result = self.play(Strategy::RunOn, 0);
        self.tape.steer(Steer::Strategy);
        result
    }

    /// Plays a schedule on a machine of its own, with its trace and the report of a
    /// failure in full.
    pub(crate) fn replay(
        &mut self,
        schedule: &Schedule,
        replay: Option<String>,
    ) -> Result<(), Failure> {
        self.scenario.renew();
        let settings = self.settings.clone();
        let result = self.with(Settings {
            strategy: Strategy::Replay(Arc::new(schedule.clone())),
            trace: true,
            backtraces: true,
            replay,
            ..settings
        });
        self.scenario.renew();
        let choices = |steps: &[Step]| steps.iter().filter(|step| step.options > 1).count();
        let (played, of) = (self.steps(choices), schedule.len());
        if result.is_ok() && played < of {
            return Err(Failure::Unfinished { played, of });
        }
        result
    }

    /// Plays the same twice, each time on a machine of its own.
    ///
    /// # Errors
    /// Where the two differ.
    pub(crate) fn twice(&mut self, strategy: &Strategy, seed: u64) -> Result<(), Difference> {
        let mut once = || {
            self.scenario.renew();
            let settings = self.settings.clone();
            self.tape.keep_trace();
            let result = self.with(Settings {
                strategy: strategy.clone(),
                seed,
                trace: true,
                ..settings
            });
            self.scenario.renew();
            let signature = result.err().map(|failure| failure.signature());
            (self.tape.take_trace(), signature)
        };
        let (first, second) = (once(), once());
        compare(first, second)
    }
}

type Run = (Vec<String>, Option<Signature>);

fn compare((first, how): Run, (second, how_too): Run) -> Result<(), Difference> {
    let lines = first.len().max(second.len());
    let at = (0..lines).find(|at| first.get(*at) != second.get(*at));
    match at {
        Some(at) => Err(Difference {
            line: Some(at + 1),
            first: first.get(at).cloned(),
            second: second.get(at).cloned(),
        }),
        None if how == how_too => Ok(()),
        None => Err(Difference {
            line: None,
            first: how.map(|how| how.to_string()),
            second: how_too.map(|how| how.to_string()),
        }),
    }
}
