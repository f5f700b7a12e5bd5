// SPDX-License-Identifier: MIT OR Apache-2.0

//! I/O requests: Driver Verifier's I/O verification.
//!
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/i-o-verification>

use super::Report::BugCheckWith;

rules! { Io;
    /// A request was completed with `STATUS_PENDING`.
    COMPLETED_PENDING = "IoCompletedPending", BugCheckWith(0xC9, 0x06), ["IRP status", "IRP being completed"],
        apis: ["WdfRequestComplete", "WdfRequestCompleteWithInformation", "WdfRequestCompleteWithPriorityBoost"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc9--driver-verifier-iomanager-violation";
}
