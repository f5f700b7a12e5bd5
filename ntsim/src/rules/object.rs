// SPDX-License-Identifier: MIT OR Apache-2.0

//! Object references and handles.

use super::Report::BugCheckWith;

rules! { Object;
    /// A `Zw` function was called above `PASSIVE_LEVEL`, or with special kernel APCs disabled.
    ZW_CALL = "ZwCall", BugCheckWith(0xC4, 0xE6), ["address inside the driver", "current IRQL", "special kernel APCs"],
        apis: [
            "ZwClose", "ZwCreateKey", "ZwDeleteKey", "ZwDeleteValueKey", "ZwEnumerateKey", "ZwEnumerateValueKey", "ZwFlushKey",
            "ZwOpenKey", "ZwOpenKeyEx", "ZwQueryKey", "ZwQueryValueKey", "ZwSetValueKey", "ZwWaitForSingleObject",
        ],
        irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
}
