// SPDX-License-Identifier: MIT OR Apache-2.0

//! Where a task's "has run" is kept.

use core::fmt;

use dmf::irql::{Irql, Passive};
use dmf::module::Signature;
use dmf::registry::{Access, Key, QueryError};
use dmf::string::UnicodeStr;
use dmf::{NtStatus, Result};

/// The value, and what to do if it cannot be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Persistence {
    pub(super) name: UnicodeStr<'static>,
    pub(super) place: Place,
    pub(super) policy: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Parameters,
    PersistentState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// What cannot be read has not run.
    FailOpen,
    /// What cannot be read has run.
    FailClosed,
}

impl Persistence {
    pub(super) const fn new() -> Self {
        Self {
            name: dmf::unicode_string!("TimesRun"),
            place: Place::Parameters,
            policy: Policy::FailOpen,
        }
    }

    /// The most characters that the registry lets a value's name have.
    ///
    /// See [Registry Element Size Limits][ms].
    ///
    /// [ms]: https://learn.microsoft.com/windows/win32/sysinfo/registry-element-size-limits
    const LONGEST_NAME: usize = 16_383;

    /// Whether the registry would take the name.
    pub(super) fn check_name(&self) -> Result {
        let length = self.name.units().len();
        if length == 0 {
            dmf::println!("ScheduledTask: persistence_name is empty: a value needs a name");
            Err(NtStatus::OBJECT_NAME_INVALID)
        } else if length > Self::LONGEST_NAME {
            dmf::println!(
                "ScheduledTask: persistence_name has {length} characters: the registry's \
                 longest is {}",
                Self::LONGEST_NAME
            );
            Err(NtStatus::OBJECT_NAME_INVALID)
        } else {
            Ok(())
        }
    }

    fn open<'t>(&self, irql: &'t Irql<'_, Passive>, access: Access) -> Result<Key<'t>> {
        match self.place {
            Place::Parameters => Key::parameters(irql, access),
            Place::PersistentState => Key::persistent_state(irql, access),
        }
    }

    /// The value; zero if it is not there.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "each attempt of a persistent task goes through it"
    )]
    pub(super) fn read(&self, irql: &Irql<'_, Passive>) -> Result<u32, QueryError> {
        let key = match self.open(irql, Access::Read) {
            Ok(key) => key,
            Err(NtStatus::OBJECT_NAME_NOT_FOUND) => return Ok(0),
            Err(status) => return Err(QueryError::Failed(status)),
        };
        match key.query_u32(self.name) {
            Err(QueryError::NotFound) => Ok(0),
            result => result,
        }
    }

    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "each success of a persistent task goes through it"
    )]
    pub(super) fn write(&self, irql: &Irql<'_, Passive>, times: u32) -> Result {
        self.open(irql, Access::Write)?.assign_u32(self.name, times)
    }
}

/// What could not be done with the persistent value.
///
/// No C counterpart: there a failure is not reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PersistenceOperation {
    /// It could not be read before the task.
    Read,
    /// It could not be written after the task's success: after the next start
    /// of the driver the task runs again.
    Write,
}

impl fmt::Display for PersistenceOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// What a driver is told when the persistent value cannot be read or written.
///
/// No C counterpart: there a failure is not reported.
#[derive(Debug)]
pub struct PersistenceFailure<'a> {
    irql: &'a Irql<'a, Passive>,
    operation: PersistenceOperation,
    name: UnicodeStr<'a>,
    status: NtStatus,
}

impl<'a> PersistenceFailure<'a> {
    pub(super) const fn new(
        irql: &'a Irql<'a, Passive>,
        operation: PersistenceOperation,
        name: UnicodeStr<'a>,
        status: NtStatus,
    ) -> Self {
        Self {
            irql,
            operation,
            name,
            status,
        }
    }

    /// The proof that the function runs at `PASSIVE_LEVEL`.
    #[must_use]
    pub const fn irql(&self) -> &Irql<'_, Passive> {
        self.irql
    }

    /// What was tried.
    #[must_use]
    pub const fn operation(&self) -> PersistenceOperation {
        self.operation
    }

    /// The value's name.
    #[must_use]
    pub const fn name(&self) -> UnicodeStr<'_> {
        self.name
    }

    /// Why it failed.
    pub const fn status(&self) -> NtStatus {
        self.status
    }
}

#[derive(Debug)]
pub(super) enum OnPersistenceFailure {}

impl Signature for OnPersistenceFailure {
    type Arguments<'a> = PersistenceFailure<'a>;
    type Output = ();
}
