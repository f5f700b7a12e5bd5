// SPDX-License-Identifier: MIT OR Apache-2.0

//! Memory that the driver touches, its stack, and other exceptions of the processor.

use super::Report::{BugCheck, BugCheckWith, Misuse};

rules! { Memory;
    /// Paged memory is used at `DISPATCH_LEVEL` or above.
    PAGED_IRQL = "MemoryPagedIrql", BugCheck(0xD1), ["address", "IRQL", "0: read, 1: write, 8: execute", "address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xd1--driver-irql-not-less-or-equal";
    /// Memory that is not there is used at `DISPATCH_LEVEL` or above.
    IRQL = "MemoryIrql", BugCheck(0xD1), ["address", "IRQL", "0: read, 1: write, 8: execute", "address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xd1--driver-irql-not-less-or-equal";
    /// A function of the kernel's is given memory that may not be used at `DISPATCH_LEVEL` or above.
    KERNEL_IRQL = "MemoryKernelIrql", BugCheck(0x0A), ["address", "IRQL", "0: read, 1: write, 8: execute", "address of the instruction"],
        apis: ["every function that takes a pointer"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xa--irql-not-less-or-equal";
    /// Memory is used that was freed.
    FREED = "MemoryFreed", BugCheck(0xD5), ["address", "0: read, 1: write", "address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xd5--driver-page-fault-in-freed-special-pool";
    /// Memory is used past the end of a block of pool.
    BEYOND_BLOCK = "MemoryBeyondBlock", BugCheck(0xD6), ["address", "0: read, 1: write", "address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xd6--driver-page-fault-beyond-end-of-allocation";
    /// An address of the system's is used at which there is no memory.
    SYSTEM = "MemorySystem", BugCheck(0x50), ["address", "0: read, 1: write, 8: execute", "address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x50--page-fault-in-nonpaged-area";
    /// Memory is written that may only be read.
    WRITE_READ_ONLY = "MemoryReadOnly", BugCheck(0xBE), ["address"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xbe--attempted-write-to-readonly-memory";
    /// Memory is executed that is no code.
    EXECUTE_DATA = "MemoryNoExecute", BugCheck(0xFC), ["address"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xfc--attempted-execute-of-noexecute-memory";
    /// NULL or another address without memory is used.
    ACCESS_VIOLATION = "ExceptionAccessViolation", BugCheckWith(0x7E, 0xC000_0005), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// A number is divided by zero, or the quotient does not fit.
    DIVIDE = "ExceptionDivide", BugCheckWith(0x7E, 0xC000_0094), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// An instruction is run that only ntsim's absent ring 0 has.
    PRIVILEGED_INSTRUCTION = "ExceptionPrivilegedInstruction", BugCheckWith(0x7E, 0xC000_0096), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// An instruction is run that there is not.
    ILLEGAL_INSTRUCTION = "ExceptionIllegalInstruction", BugCheckWith(0x7E, 0xC000_001D), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// A breakpoint is hit, and nobody debugs.
    BREAKPOINT = "ExceptionBreakpoint", BugCheckWith(0x7E, 0x8000_0003), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// An assertion fails.
    ASSERTION = "ExceptionAssertion", BugCheckWith(0x7E, 0xC000_0420), ["address of the instruction"],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7e--system-thread-exception-not-handled";
    /// A DPC raises an exception.
    EXCEPTION_IN_DPC = "ExceptionInDpc", BugCheck(0x1E), ["status", "address of the instruction"],
        apis: ["DeferredRoutine"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x1e--kmode-exception-not-handled";
    /// The kernel stack is used up.
    STACK_OVERFLOW = "StackOverflow", BugCheckWith(0x7F, 8), [],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x7f--unexpected-kernel-mode-trap";
    /// A buffer on the stack is overrun: its cookie says so.
    STACK_COOKIE = "StackCookie", BugCheckWith(0x139, 2), [],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x139--kernel-security-check-failure";
    /// A doubly linked list is corrupt.
    LIST_ENTRY = "ListEntry", BugCheckWith(0x139, 3), [],
        apis: ["RemoveEntryList", "InsertHeadList", "InsertTailList", "ExInterlockedInsertHeadList", "ExInterlockedInsertTailList", "ExInterlockedRemoveHeadList"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x139--kernel-security-check-failure";
    /// The driver finds itself corrupt in another way.
    FAST_FAIL = "FastFail", BugCheck(0x139), ["kind of corruption"],
        apis: ["__fastfail", "RtlFailFast"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0x139--kernel-security-check-failure";
    /// A thread or DPC uses more of its stack than the settings let it.
    STACK_USE = "StackUse", Misuse, [],
        apis: ["driver code"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/kernel/using-the-kernel-stack";
}
