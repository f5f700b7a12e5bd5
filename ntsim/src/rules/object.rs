// SPDX-License-Identifier: MIT OR Apache-2.0

//! Object references and handles.

use super::Report::{BugCheck, BugCheckWith};

rules! { Object;
    /// A `Zw` function was called above `PASSIVE_LEVEL`, or with special kernel APCs disabled.
    ZW_CALL = "ZwCall", BugCheckWith(0xC4, 0xE6), ["address inside the driver", "current IRQL", "special kernel APCs"],
        apis: [
            "ZwClose", "ZwCreateKey", "ZwDeleteKey", "ZwDeleteValueKey", "ZwEnumerateKey", "ZwEnumerateValueKey", "ZwFlushKey",
            "ZwOpenKey", "ZwOpenKeyEx", "ZwQueryKey", "ZwQueryValueKey", "ZwSetValueKey", "ZwWaitForSingleObject",
        ],
        irql: Some((0, 0)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// An object was referenced by a handle that is not open.
    BAD_HANDLE = "ObReferenceBadHandle", BugCheckWith(0xC4, 0x3C), ["handle passed to routine", "object type", "0"],
        apis: ["ObReferenceObjectByHandle"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// An object was referenced by a NULL handle.
    NULL_HANDLE = "ObReferenceNullHandle", BugCheckWith(0xC4, 0xF5), ["address of the NULL handle", "object type", "reserved"],
        apis: ["ObReferenceObjectByHandle"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// A reference was counted up or down on an object whose count is 0.
    REFERENCE_ZERO = "ObReferenceZero", BugCheckWith(0xC4, 0x3F), ["object address", "new object reference count; -1: dereference case, 1: reference case", "0"],
        apis: ["ObfReferenceObject", "ObfDereferenceObject"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// The reference count of an object went below 0, or of what is no object was changed.
    REFERENCE_BY_POINTER = "ObReferenceByPointer", BugCheck(0x18), ["object type", "object", "reserved", "reserved"],
        apis: ["ObfReferenceObject", "ObfDereferenceObject", "KeSetPriorityThread"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x18--reference-by-pointer";
    /// A handle was closed that is not open, or twice.
    CLOSE_INVALID = "ZwCloseInvalidHandle", BugCheck(0x93), ["handle that NtClose was called with", "1", "0", "0"],
        apis: ["ZwClose"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x93--invalid-kernel-handle";
    /// A `Zw` function was given a malformed string: of an odd length, longer than its maximum, or without a buffer.
    MALFORMED_STRING = "ZwMalformedString", BugCheckWith(0xC4, 0xE4), ["address of the call to the API", "address of the malformed UNICODE_STRING structure", "reserved"],
        apis: ["ZwOpenKey", "ZwOpenKeyEx", "ZwCreateKey", "ZwSetValueKey", "ZwDeleteValueKey", "ZwQueryValueKey"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
}
