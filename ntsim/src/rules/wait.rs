// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events, waits and threads.

use super::Report::BugCheckWith;

rules! { Wait;
    /// An event was set above `DISPATCH_LEVEL`.
    SET_EVENT_IRQL = "KeSetEventIrql", BugCheckWith(0xC4, 0x80), ["current IRQL", "event address", "0"],
        apis: ["KeSetEvent"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
}
