// SPDX-License-Identifier: MIT OR Apache-2.0

//! The steps of a device's life, and in which order each goes through the tree.
//!
//! [`STEPS`] is what the dispatcher reads, and what the table in the docs of
//! [`crate::device`] is made of: a test compares the two.

use crate::device::{FilePath, PowerState, Relation, Resources, SpecialFile, WakeReason};

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
    pub(crate) failure: Failure,
    /// What the framework does at a node besides calling the hook.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the docs' table is checked by a test")
    )]
    pub(crate) framework: &'static str,
}

macro_rules! steps {
    ($($name:ident $(($($arg:ty),*))? : $order:ident, $failure:ident, $framework:literal;)*) => {
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
    Create: ChildrenFirst, Undone, "opens `Create`, registers `NotifyCreate`";
    PrepareHardware(Resources): ChildrenFirst, Undone,
        "first `assign_resources`; after the hook opens `PrepareHardware`, registers `NotifyPrepareHardware`";
    D0Entry(PowerState): ChildrenFirst, Undone,
        "after the hook opens `D0Entry` and, unless open, `D0EntrySystemPowerUp`; registers `NotifyD0Entry`";
    D0EntryPostInterruptsEnabled(PowerState): ChildrenFirst, Undone, "";
    SelfManagedIoInit: ChildrenFirst, Undone, "";
    SelfManagedIoRestart: ChildrenFirst, Undone, "";
    SelfManagedIoSuspend: OwnerFirst, Impossible, "";
    D0ExitPreInterruptsDisabled(PowerState): OwnerFirst, Impossible, "";
    D0Exit(PowerState): OwnerFirst, Impossible,
        "before the hook closes `D0Entry` and, if power is lost for good or for hibernation, `D0EntrySystemPowerUp`; unregisters `NotifyD0Entry`";
    ReleaseHardware(Resources): OwnerFirst, Impossible,
        "before the hook closes `PrepareHardware` and `D0EntrySystemPowerUp`, unregisters `NotifyPrepareHardware`";
    SelfManagedIoFlush: OwnerFirst, Impossible, "";
    SelfManagedIoCleanup: OwnerFirst, Impossible, "";
    Close: OwnerFirst, Impossible, "unregisters and closes whatever is left, dynamic modules first";
    SurpriseRemoval: OwnerFirst, Impossible, "";
    QueryRemove: OwnerFirst, Ends, "";
    QueryStop: OwnerFirst, Ends, "";
    RelationsQuery(Relation): ChildrenFirst, Impossible, "";
    UsageNotification(SpecialFile, FilePath): ChildrenFirst, Undone, "";
    ArmWakeFromS0: OwnerFirst, Undone, "";
    DisarmWakeFromS0: ChildrenFirst, Impossible, "";
    WakeFromS0Triggered: ChildrenFirst, Impossible, "";
    ArmWakeFromSx(WakeReason): OwnerFirst, Undone, "";
    DisarmWakeFromSx: ChildrenFirst, Impossible, "";
    WakeFromSxTriggered: ChildrenFirst, Impossible, "";
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
            Self::UsageNotification(file, path) => Self::UsageNotification(file, path.opposite()),
            Self::ArmWakeFromS0 => Self::DisarmWakeFromS0,
            Self::ArmWakeFromSx(_) => Self::DisarmWakeFromSx,
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
            "| step | order | a failure | the framework, at each module |\n|---|---|---|---|\n",
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
            writeln!(
                text,
                "| `{}` | {order} | {failure} | {} |",
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
