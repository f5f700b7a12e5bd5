// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a schedule failed, and whether two failed in the same way.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::bugcheck::{Stop, StopKind, panic_message};
use crate::machine::Error;

/// Why a schedule failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The simulation ended early, or the scenario gave another error.
    Error(Error),
    /// The scenario panicked, outside of the simulation: an assertion of the test.
    Panic(String),
    /// A schedule was replayed, and the run ended in good order before it did.
    Unfinished {
        /// How many scheduling points there were.
        played: usize,
        /// How many the schedule has.
        of: usize,
    },
    /// The same schedule was played twice, and not the same happened.
    NotDeterministic(Difference),
}

/// Where two runs of the same schedule differ.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The line of the trace, counted from 1; without one the traces are the same,
    /// and the ends differ.
    pub line: Option<usize>,
    /// What the first run had there; nothing if its trace ended before.
    pub first: Option<String>,
    /// What the second run had there.
    pub second: Option<String>,
}

/// What two failures have in common if they are the same bug.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Signature(String);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())
    }
}

impl Failure {
    /// The report, if the simulation was stopped.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        match self {
            Self::Error(Error::Stop(stop)) => Some(stop),
            _ => None,
        }
    }

    /// Whether the run was not the one of the schedule that it replayed.
    #[must_use]
    pub fn diverged(&self) -> bool {
        let stopped = |stop: &Stop| stop.kind == StopKind::Diverged;
        matches!(self, Self::Unfinished { .. }) || self.stop().is_some_and(stopped)
    }

    /// The kind, the bug check with what says which rule, the rule; of an error or
    /// a panic the text. Numbers in a text do not count.
    pub(crate) fn signature(&self) -> Signature {
        let no_numbers = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        Signature(match self {
            Self::Error(Error::Stop(stop)) => {
                let first = match stop.kind {
                    // Of these the first parameter says which rule.
                    StopKind::BugCheck {
                        code: 0xC2 | 0xC4 | 0xC7 | 0xC9 | 0xE1 | 0xE4 | 0x10D,
                        parameters,
                    } if parameters[0] < 0x10_0000 => parameters[0],
                    _ => 0,
                };
                let code = stop.bug_check_code().unwrap_or(0);
                let (kind, name) = (stop.kind.name(), &stop.name);
                let rule = stop.rule.unwrap_or_default();
                // A panic is told by its text alone.
                let text = if code == crate::bugcheck::RUST_PANIC {
                    no_numbers(&stop.message)
                } else {
                    String::new()
                };
                format!("{kind} {code:x} {first:x} {name} {rule} {text}")
            }
            Self::Error(error) => no_numbers(&error.to_string()),
            Self::Panic(message) => format!("panic {}", no_numbers(message)),
            Self::Unfinished { .. } => "unfinished".to_owned(),
            Self::NotDeterministic(_) => "not deterministic".to_owned(),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panic(message) => write!(f, "the scenario panicked: {message}"),
            Self::Unfinished { played, of } => write!(
                f,
                "nothing was found, and the run ended after {played} of the schedule's {of} \
                 scheduling points: the schedule is of another driver, other settings or another \
                 version of one of them"
            ),
            Self::NotDeterministic(difference) => difference.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same schedule, played twice, does not do the same: ")?;
        match self.line {
            Some(line) => writeln!(f, "the traces differ from line {line} on")?,
            None => writeln!(f, "the traces are the same, but not the ends")?,
        }
        for (run, line) in [("first", &self.first), ("second", &self.second)] {
            writeln!(f, "  {run:<6} {}", line.as_deref().unwrap_or("(nothing)"))?;
        }
        f.write_str(
            "  something decides that is not the machine's: the host's clock, an address, \
             memory that was never written, a static of an earlier run",
        )
    }
}

/// Runs `scenario`, and makes a panic of its own a value.
pub(crate) fn caught(scenario: impl FnOnce() -> Result<(), Error>) -> Result<(), Failure> {
    match catch_unwind(AssertUnwindSafe(scenario)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Error(error)),
        Err(payload) => Err(Failure::Panic(panic_message(payload.as_ref()))),
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// While it is there, panics of this thread are not told on standard error: the
/// search for a smaller schedule fails hundreds of times in the same way.
pub(crate) struct Quiet(bool);

impl Quiet {
    pub(crate) fn new() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    before(info);
                }
            }));
        });
        Self(QUIET.replace(true))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        QUIET.set(self.0);
    }
}
