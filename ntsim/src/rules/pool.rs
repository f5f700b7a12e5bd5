// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocating and freeing pool.
//!
//! Driver Verifier's special pool and pool tracking:
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/special-pool>

use super::Report::BugCheckWith;

rules! { Pool;
    /// Zero bytes of pool were asked for.
    ZERO_BYTES = "PoolZeroBytes", BugCheckWith(0xC4, 0x00), ["current IRQL", "pool type", "number of bytes"],
        apis: ["ExAllocatePool2", "ExAllocatePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Paged pool was allocated above `APC_LEVEL`.
    ALLOCATE_PAGED_IRQL = "PoolAllocatePagedIrql", BugCheckWith(0xC4, 0x01), ["current IRQL", "pool type", "number of bytes"],
        apis: ["ExAllocatePool2", "ExAllocatePoolWithTag"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Non-paged pool was allocated above `DISPATCH_LEVEL`.
    ALLOCATE_NON_PAGED_IRQL = "PoolAllocateNonPagedIrql", BugCheckWith(0xC4, 0x02), ["current IRQL", "pool type", "number of bytes"],
        apis: ["ExAllocatePool2", "ExAllocatePoolWithTag"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Pool was freed twice.
    DOUBLE_FREE = "PoolDoubleFree", BugCheckWith(0xC2, 0x07), ["reserved", "pool header", "address of the block"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
    /// NULL was freed.
    FREE_NULL = "PoolFreeNull", BugCheckWith(0xC2, 0x46), ["address", "0", "0"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
}
