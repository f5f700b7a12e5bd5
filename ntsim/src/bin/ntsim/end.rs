// SPDX-License-Identifier: MIT OR Apache-2.0

//! How a command ends, and the exit code that says so.
//!
//! The tools of Windows end with Windows's error numbers. A shell elsewhere sees
//! eight bits of an exit code, so ours are few and small, and alike for every
//! command. pnputil's 259 (`ERROR_NO_MORE_ITEMS`) is 3 here, which is also what
//! eight bits leave of it; its 3010 (`ERROR_SUCCESS_REBOOT_REQUIRED`) and
//! verifier's 2 (a reboot is needed) do not come up, since each command that
//! needs the machine running boots it. See [pnputil's return values][values].
//!
//! [values]: https://learn.microsoft.com/windows-hardware/drivers/devtest/pnputil-return-values

use std::process::ExitCode;

/// Bad input: a file, an option, a value.
pub(crate) const BAD_INPUT: u8 = 1;
/// The simulation found something.
pub(crate) const FOUND: u8 = 2;
/// There was nothing to do it to.
pub(crate) const NOTHING: u8 = 3;
/// What `--help` says about it.
pub(crate) const CODES: &str = "Exit codes, of every command:
  0  all went well
  1  bad input: a file, an option or a value; nothing has changed
  2  the simulation ended early: bug check, deadlock, leak, failed driver
  3  nothing to do: no device matches the driver (where pnputil has 259)";

/// An end in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was done.
    Done,
    /// There was nothing to do it to.
    Nothing,
}

/// Another end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One line about what was given.
    Input(String),
    /// The report of what was found.
    Found(String),
}

/// What a command's `execute` gives.
pub(crate) type Ended = Result<End, Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Input(error.to_string())
    }
}

/// Tells what has to be told, and gives the exit code.
pub(crate) fn exit(ended: Ended) -> ExitCode {
    match ended {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Nothing) => ExitCode::from(NOTHING),
        Err(Failure::Input(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(BAD_INPUT)
        }
        Err(Failure::Found(report)) => {
            // Colours are left out where they would be noise.
            anstream::eprintln!("{report}");
            ExitCode::from(FOUND)
        }
    }
}
