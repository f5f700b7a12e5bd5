// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rules that drivers are held to, as a table.
//!
//! # Vocabulary
//! - *rule*: something that a driver must not do, under a name: Windows's own where
//!   Driver Verifier or the DDI compliance checks have one.
//! - *broken*: it was done. The simulation ends with a [`Stop`] that
//!   names the rule, with the bug check and the parameters that Windows reports.
//! - *off*: not checked ([`Settings::without_rules`]). What the kernel cannot go on
//!   after ends the simulation all the same, as [`StopKind::Unchecked`].
//!
//! All rules are on unless the settings say otherwise. To add one: a row in the file of its
//! family, a call of `Kernel::broken` (or `Kernel::fatal`) where it can be
//! broken, and a case in `tests/rules/`, which gives it three tests: a driver
//! that breaks it, one that comes close and does not, and the first again with
//! the rule off, which must be noticed.
//!
//! ```
//! use ntsim::rules;
//!
//! let rule = rules::find("PoolZeroBytes").unwrap();
//! assert_eq!(rule.report, rules::Report::BugCheckWith(0xC4, 0x00));
//! ```
//!
//! [`Settings::without_rules`]: crate::Settings::without_rules
//! [`StopKind::Unchecked`]: crate::StopKind::Unchecked

use crate::bugcheck::{BugCheck, Stop, StopKind, bug_check_name};
use crate::kernel::Kernel;
use crate::origin::Related;

/// A rule.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rule {
    /// Its name, e.g. `IrqlKeSetEvent`.
    pub name: &'static str,
    /// Its family.
    pub class: Class,
    /// What must not be done, in one sentence.
    pub what: &'static str,
    /// How it is reported.
    pub report: Report,
    /// What the parameters mean that follow the fixed one, if there is a fixed one.
    pub parameters: &'static [&'static str],
    /// The functions or callbacks at which it is checked.
    pub apis: &'static [&'static str],
    /// The lowest and the highest IRQL allowed, if the rule is about that.
    pub irql: Option<(u8, u8)>,
    /// The page that says so.
    pub link: &'static str,
}

/// How Windows, or only the simulator, reports that a rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Report {
    /// A bug check with this code.
    BugCheck(u32),
    /// A bug check with this code and first parameter.
    BugCheckWith(u32, u64),
    /// Something is left behind, for which Windows has no bug check.
    Leak,
    /// Against the documentation, and Windows does not notice.
    Misuse,
    /// Nothing can run any more.
    Deadlock,
    /// The same, because nobody is left to signal what is waited for.
    LostWakeUp,
    /// Everything runs and nothing comes of it.
    Livelock,
}

/// The families of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[non_exhaustive]
pub enum Class {
    /// Allocating and freeing pool.
    Pool,
    /// The IRQL that functions are called at.
    Irql,
    /// Events, waits and threads.
    Wait,
    /// Locks of every kind.
    Lock,
    /// Locks that threads could wait for in a circle.
    Deadlock,
    /// Object references and handles.
    Object,
    /// Timers, DPCs and work items.
    Deferred,
    /// What is left when a driver is unloaded.
    Unload,
    /// KMDF's own verifier.
    Kmdf,
    /// Plug and Play and power.
    PnpPower,
    /// I/O requests.
    Io,
    /// Memory that the driver touches, and its stack.
    Memory,
}

impl Class {
    /// All, in the order of the page.
    pub const ALL: &[Self] = &[
        Self::Pool,
        Self::Irql,
        Self::Wait,
        Self::Lock,
        Self::Deadlock,
        Self::Object,
        Self::Deferred,
        Self::Unload,
        Self::Kmdf,
        Self::PnpPower,
        Self::Io,
        Self::Memory,
    ];
}

impl std::str::FromStr for Class {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = |class: &Self| format!("{class:?}").eq_ignore_ascii_case(name);
        Self::ALL.iter().copied().find(named).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|class| format!("{class:?}")).collect();
            format!("no such class of rules; there are {}", known.join(", "))
        })
    }
}

/// Declares the rules of a family, and `ALL` with all of them.
macro_rules! rules {
    ($class:ident; $(
        $(#[doc = $what:literal])+
        $id:ident = $name:literal, $report:expr, [$($parameter:literal),* $(,)?],
            apis: [$($api:literal),* $(,)?], irql: $irql:expr, link: $link:literal;
    )*) => {
        $(
            $(#[doc = $what])+
            pub static $id: $crate::rules::Rule = $crate::rules::Rule {
                name: $name,
                class: $crate::rules::Class::$class,
                what: concat!($($what),+).trim_ascii_start(),
                report: $report,
                parameters: &[$($parameter),*],
                apis: &[$($api),*],
                irql: $irql,
                link: $link,
            };
        )*
        /// All of this family, as they stand above.
        pub const ALL: &[&$crate::rules::Rule] = &[$(&$id),*];
    };
}

pub mod deadlock;
pub mod deferred;
pub mod io;
pub mod irql;
pub mod kmdf;
pub mod lock;
pub mod memory;
pub mod object;
pub mod page;
pub mod pnp_power;
pub mod pool;
pub mod unload;
pub mod wait;

/// All rules, family by family.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    [
        pool::ALL,
        irql::ALL,
        wait::ALL,
        lock::ALL,
        deadlock::ALL,
        object::ALL,
        deferred::ALL,
        unload::ALL,
        memory::ALL,
        kmdf::ALL,
        pnp_power::ALL,
        io::ALL,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The rule of this name, in whatever case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.name.eq_ignore_ascii_case(name))
}

impl Rule {
    fn bug_check(&'static self, parameters: &[u64], message: String) -> Option<BugCheck> {
        let (code, fixed) = match self.report {
            Report::BugCheck(code) => (code, None),
            Report::BugCheckWith(code, fixed) => (code, Some(fixed)),
            Report::Leak
            | Report::Misuse
            | Report::Deadlock
            | Report::LostWakeUp
            | Report::Livelock => return None,
        };
        let mut all = [0; 4];
        for (place, value) in all
            .iter_mut()
            .zip(fixed.into_iter().chain(parameters.iter().copied()))
        {
            *place = value;
        }
        Some(BugCheck::new(code, all, message))
    }

    pub(crate) fn stop(&'static self, k: &Kernel, parameters: &[u64], message: String) -> Stop {
        let kind = match self.report {
            Report::BugCheck(_) | Report::BugCheckWith(..) => {
                let check = self.bug_check(parameters, message);
                let mut stop = Stop::bug_check(k, check.expect("these reports are bug checks"));
                stop.rule = Some(self.name);
                return stop;
            }
            Report::Leak => StopKind::Leak,
            Report::Misuse => StopKind::Misuse,
            Report::Deadlock => StopKind::Deadlock,
            Report::LostWakeUp => StopKind::LostWakeUp,
            Report::Livelock => StopKind::Livelock,
        };
        let mut stop = Stop::here(k, kind, message);
        stop.rule = Some(self.name);
        stop
    }

    /// The code and the symbolic name of its bug check, if it is one.
    #[must_use]
    pub fn bug_check_code(&self) -> Option<(u32, &'static str)> {
        match self.report {
            Report::BugCheck(code) | Report::BugCheckWith(code, _) => {
                Some((code, bug_check_name(code)))
            }
            Report::Leak
            | Report::Misuse
            | Report::Deadlock
            | Report::LostWakeUp
            | Report::Livelock => None,
        }
    }
}

impl Kernel {
    /// Whether `rule` is checked. Only where a check costs something; else
    /// [`broken`](Self::broken) asks.
    pub(crate) fn checks(&self, rule: &'static Rule) -> bool {
        !self
            .settings
            .without_rules
            .iter()
            .any(|off| off.name == rule.name)
    }

    /// Ends the simulation because `rule` is broken; returns if it is off.
    pub(crate) fn broken(
        &mut self,
        rule: &'static Rule,
        parameters: &[u64],
        message: impl Into<String>,
    ) {
        if self.checks(rule) {
            self.broken_with(rule, parameters, message, Vec::new());
        }
    }

    /// As [`broken`](Self::broken), with what happened before and explains it.
    pub(crate) fn broken_with(
        &mut self,
        rule: &'static Rule,
        parameters: &[u64],
        message: impl Into<String>,
        related: Vec<Related>,
    ) {
        if self.checks(rule) && crate::verifier::covers(self, rule) {
            let mut stop = rule.stop(self, parameters, message.into());
            stop.related = related;
            self.stop(stop);
        }
    }

    /// Ends the simulation because the kernel cannot go on.
    pub(crate) fn unchecked(&mut self, message: impl Into<String>) -> ! {
        let stop = Stop::here(self, StopKind::Unchecked, message.into());
        self.stop(stop)
    }

    /// The driver's address that made the current call: 0 for one that is linked into
    /// the host program, whose code looks like the simulator's own.
    pub(crate) fn caller(&self) -> u64 {
        let Some(registers) = self.current.and_then(|id| self.innermost_call(id)) else {
            return 0;
        };
        let frames =
            crate::image::unwind::Unwinder::new(&self.io.loaded_images()).walk_live(&registers);
        let in_image = |address: &u64| {
            usize::try_from(*address)
                .is_ok_and(|address| self.io.abi_of(address) == crate::abi::Abi::Image)
        };
        frames.into_iter().find(in_image).unwrap_or(0)
    }

    /// As [`broken`](Self::broken), where the kernel cannot go on: with the
    /// rule off, the simulation ends without naming it.
    pub(crate) fn fatal(
        &mut self,
        rule: &'static Rule,
        parameters: &[u64],
        message: impl Into<String>,
    ) -> ! {
        let message = message.into();
        self.broken(rule, parameters, message.as_str());
        self.unchecked(message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_rules_share_a_name() {
        let mut names = BTreeSet::new();
        for rule in all() {
            assert!(
                names.insert(rule.name.to_ascii_lowercase()),
                "{}",
                rule.name
            );
        }
    }

    #[test]
    fn every_row_is_complete() {
        for rule in all() {
            let Rule { name, .. } = rule;
            assert!(rule.what.ends_with('.'), "{name}: {}", rule.what);
            assert!(
                rule.link.starts_with("https://learn.microsoft.com/"),
                "{name}"
            );
            assert!(!rule.apis.is_empty(), "{name}");
            let most = match rule.report {
                Report::BugCheck(_) => 4,
                Report::BugCheckWith(..) => 3,
                _ => 0,
            };
            assert!(rule.parameters.len() <= most, "{name}");
            if let Some((_, symbol)) = rule.bug_check_code() {
                assert_ne!(symbol, "BUG_CHECK", "{name}: its code has no name");
            }
        }
    }
}
