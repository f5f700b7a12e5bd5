// SPDX-License-Identifier: MIT OR Apache-2.0

//! The steps of a device's life, and in which order each goes through the tree.
//!
//! [`STEPS`] is what the dispatcher reads, and what the table in the docs of
//! [`crate::device`] is made of: a test compares the two.

use crate::device::{FilePath, PowerState, Relation, Resources, SpecialFile, WakeReason};
use crate::hooks::Hook;

/// In which order a step goes through the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A node's children before the node, first to last.
    ChildrenFirst,
    /// A node before its children, last to first: the exact reverse.
    OwnerFirst,
}

impl Order {
    pub(crate) const fn reversed(self) -> Self {
        match self {
            Self::ChildrenFirst => Self::OwnerFirst,
            Self::OwnerFirst => Self::ChildrenFirst,
        }
    }
}

/// What a failure somewhere in the tree leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The step ends, and what it did is undone in reverse order.
    Undone,
    /// The step ends; there is nothing to undo.
    Ends,
    /// The callbacks cannot fail.
    Impossible,
}

/// What KMDF promises of a step and the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// One of these at a time.
    Own,
    /// It may come while one of the others runs, and runs beside it.
    Beside,
}

/// A step, as the docs show it.
#[derive(Debug)]
pub(crate) struct Row {
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the docs' table is checked by a test")
    )]
    pub(crate) name: &'static str,
    pub(crate) order: Order,
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the docs' table is checked by a test")
    )]
    pub(crate) turn: Turn,
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the docs' table is checked by a test")
    )]
    pub(crate) failure: Failure,
    /// What the framework does at a node besides calling the hook.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the docs' table is checked by a test")
    )]
    pub(crate) framework: &'static str,
}

macro_rules! steps {
    ($($name:ident $(($($arg:ty),*))? : $order:ident, $turn:ident, $failure:ident, $framework:literal;)*) => {
        /// A step through the tree.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Step {
            $($name $(($($arg),*))?,)*
        }

        #[derive(Clone, Copy)]
        enum Index { $($name,)* }

        /// All steps.
        pub(crate) static STEPS: &[Row] = &[$(Row {
            name: stringify!($name),
            order: Order::$order,
            turn: Turn::$turn,
            failure: Failure::$failure,
            framework: $framework,
        },)*];

        impl Step {
            /// How the step goes through the tree.
            pub(crate) fn row(self) -> &'static Row {
                let index = match self {
                    $(Self::$name { .. } => Index::$name,)*
                };
                &STEPS[index as usize]
            }
        }
    };
}

steps! {
    Create: ChildrenFirst, Own, Undone, "opens `Create`, registers `NotifyCreate`";
    PrepareHardware(Resources): ChildrenFirst, Own, Undone,
        "first `assign_resources`; after the hook opens `PrepareHardware`, registers `NotifyPrepareHardware`";
    D0Entry(PowerState): ChildrenFirst, Own, Undone,
        "after the hook opens `D0Entry` and, unless open, `D0EntrySystemPowerUp`; registers `NotifyD0Entry`";
    D0EntryPostInterruptsEnabled(PowerState): ChildrenFirst, Own, Undone, "";
    SelfManagedIoInit: ChildrenFirst, Own, Undone, "";
    SelfManagedIoRestart: ChildrenFirst, Own, Undone, "";
    SelfManagedIoSuspend: OwnerFirst, Own, Impossible, "";
    D0ExitPreInterruptsDisabled(PowerState): OwnerFirst, Own, Impossible, "";
    D0Exit(PowerState): OwnerFirst, Own, Impossible,
        "before the hook closes `D0Entry` and, if power is lost for good or for hibernation, `D0EntrySystemPowerUp`; unregisters `NotifyD0Entry`";
    ReleaseHardware(Resources): OwnerFirst, Own, Impossible,
        "before the hook closes `PrepareHardware` and `D0EntrySystemPowerUp`, unregisters `NotifyPrepareHardware`";
    SelfManagedIoFlush: OwnerFirst, Own, Impossible, "";
    SelfManagedIoCleanup: OwnerFirst, Own, Impossible, "";
    Close: OwnerFirst, Own, Impossible, "unregisters and closes whatever is left, dynamic modules first";
    SurpriseRemoval: OwnerFirst, Beside, Impossible, "";
    QueryRemove: OwnerFirst, Beside, Ends, "";
    QueryStop: OwnerFirst, Beside, Ends, "";
    RelationsQuery(Relation): ChildrenFirst, Beside, Impossible, "";
    UsageNotification(SpecialFile, FilePath): ChildrenFirst, Beside, Undone, "";
    ArmWakeFromS0: OwnerFirst, Own, Undone, "";
    DisarmWakeFromS0: ChildrenFirst, Own, Impossible, "";
    WakeFromS0Triggered: ChildrenFirst, Own, Impossible, "";
    ArmWakeFromSx(WakeReason): OwnerFirst, Own, Undone, "";
    DisarmWakeFromSx: ChildrenFirst, Own, Impossible, "";
    WakeFromSxTriggered: ChildrenFirst, Own, Impossible, "";
}

impl Step {
    /// What undoes the step.
    pub(crate) const fn undo(self) -> Option<Self> {
        Some(match self {
            Self::Create => Self::Close,
            Self::PrepareHardware(resources) => Self::ReleaseHardware(resources),
            Self::D0Entry(_) => Self::D0Exit(PowerState::D3Final),
            Self::D0EntryPostInterruptsEnabled(_) => {
                Self::D0ExitPreInterruptsDisabled(PowerState::D3Final)
            }
            Self::SelfManagedIoInit | Self::SelfManagedIoRestart => Self::SelfManagedIoSuspend,
            Self::ArmWakeFromS0 => Self::DisarmWakeFromS0,
            Self::ArmWakeFromSx(_) => Self::DisarmWakeFromSx,
            _ => return None,
        })
    }

    /// The hook of a step whose turn is [`Turn::Beside`], which is nothing else.
    pub(crate) const fn beside(self) -> Option<Hook> {
        Some(match self {
            Self::SurpriseRemoval => Hook::SurpriseRemoval,
            Self::QueryRemove => Hook::QueryRemove,
            Self::QueryStop => Hook::QueryStop,
            Self::RelationsQuery(relation) => Hook::RelationsQuery(relation),
            Self::UsageNotification(file, path) => Hook::UsageNotification(file, path),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;
    use std::string::String;

    /// The table of the docs.
    fn table() -> String {
        let mut text = String::from(
            "| step | order | beside the others | a failure | the framework, at each module |\n|---|---|---|---|---|\n",
        );
        for row in STEPS {
            let order = match row.order {
                Order::ChildrenFirst => "children first, first to last",
                Order::OwnerFirst => "owner first, last to first",
            };
            let failure = match row.failure {
                Failure::Undone => "ends it; undone in reverse order",
                Failure::Ends => "ends it",
                Failure::Impossible => "cannot be",
            };
            let beside = match row.turn {
                Turn::Own => "no",
                Turn::Beside => "yes",
            };
            writeln!(
                text,
                "| `{}` | {order} | {beside} | {failure} | {} |",
                row.name, row.framework
            )
            .unwrap();
        }
        text
    }

    #[test]
    fn the_docs_show_the_table_that_the_dispatcher_reads() {
        let docs = include_str!("../device/order.md");
        assert_eq!(
            docs.trim(),
            table().trim(),
            "src/device/order.md is to be:\n{}",
            table()
        );
    }

    #[test]
    fn a_step_runs_beside_the_others_only_if_it_is_nothing_but_a_hook() {
        for step in [
            Step::SurpriseRemoval,
            Step::QueryRemove,
            Step::QueryStop,
            Step::RelationsQuery(Relation::Bus),
            Step::UsageNotification(SpecialFile::Dump, FilePath::Joined),
        ] {
            assert!(step.beside().is_some(), "{step:?}");
            assert_eq!(step.row().turn, Turn::Beside, "{step:?}");
        }
        let beside = STEPS.iter().filter(|row| row.turn == Turn::Beside);
        assert_eq!(beside.count(), 5);
    }

    #[test]
    fn what_can_be_undone_is_undone_in_exactly_the_reverse_order() {
        let resources = Resources::none();
        for step in [
            Step::Create,
            Step::PrepareHardware(resources),
            Step::D0Entry(PowerState::D3),
            Step::D0EntryPostInterruptsEnabled(PowerState::D3),
            Step::SelfManagedIoInit,
            Step::SelfManagedIoRestart,
            Step::ArmWakeFromS0,
            Step::ArmWakeFromSx(WakeReason::DEVICE),
        ] {
            let undo = step.undo().unwrap();
            assert_eq!(undo.row().order, step.row().order.reversed(), "{step:?}");
            assert_eq!(step.row().failure, Failure::Undone, "{step:?}");
        }
    }
}
