// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocating and freeing pool.
//!
//! Driver Verifier's special pool and pool tracking:
//! <https://learn.microsoft.com/windows-hardware/drivers/devtest/special-pool>

use super::Report::{BugCheck, BugCheckWith};

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
    /// An address was freed that no allocation has returned.
    FREE_BAD_ADDRESS = "PoolFreeBadAddress", BugCheckWith(0xC4, 0x10), ["bad address", "0", "0"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Paged pool was freed above `APC_LEVEL`.
    FREE_PAGED_IRQL = "PoolFreePagedIrql", BugCheckWith(0xC4, 0x11), ["current IRQL", "pool type", "address of pool"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: Some((0, 1)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Non-paged pool was freed above `DISPATCH_LEVEL`.
    FREE_NON_PAGED_IRQL = "PoolFreeNonPagedIrql", BugCheckWith(0xC4, 0x12), ["current IRQL", "pool type", "address of pool"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: Some((0, 2)),
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
    /// Pool was freed with another tag than it was allocated with.
    FREE_WRONG_TAG = "PoolFreeWrongTag", BugCheckWith(0xC2, 0x0A), ["address of pool", "allocator's tag", "tag being used in the attempted free"],
        apis: ["ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
    /// Pool was asked for with a tag of 0.
    TAG_ZERO = "PoolTagZero", BugCheckWith(0xC2, 0x9B), ["pool type", "number of bytes requested", "caller's address"],
        apis: ["ExAllocatePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
    /// Pool was asked for with the tag "BIG".
    TAG_BIG = "PoolTagBig", BugCheckWith(0xC2, 0x9C), ["pool type", "number of bytes requested", "caller's address"],
        apis: ["ExAllocatePool2", "ExAllocatePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
    /// Pool was asked for with a tag without any letter or digit.
    TAG_TEXT = "PoolTagText", BugCheckWith(0xC2, 0x9D), ["incorrect pool tag used", "pool type", "caller's address"],
        apis: ["ExAllocatePool2", "ExAllocatePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc2--bad-pool-caller";
    /// An address inside a block was freed.
    FREE_INSIDE = "PoolFreeInside", BugCheck(0xC1), ["address that the driver tried to free", "bytes requested", "bytes calculated", "0x21"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc1--special-pool-detected-memory-corruption";
    /// A block was freed after the bytes before it were written to.
    UNDERRUN = "PoolUnderrun", BugCheck(0xC1), ["address that the driver tried to free", "address where bits are corrupted", "reserved", "0x23"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc1--special-pool-detected-memory-corruption";
    /// A block was freed after the bytes behind it were written to.
    OVERRUN = "PoolOverrun", BugCheck(0xC1), ["address that the driver tried to free", "address where bits are corrupted", "reserved", "0x24"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc1--special-pool-detected-memory-corruption";
    /// The same, where special pool is off and pool tracking is on.
    OVERRUN_TRACKED = "PoolOverrunTracked", BugCheckWith(0xC4, 0x51), ["base address of allocation", "address of the reference beyond the allocation", "number of charged bytes"],
        apis: ["ExFreePool", "ExFreePoolWithTag"], irql: None,
        link: "https://learn.microsoft.com/windows-hardware/drivers/debugger/bug-check-0xc4--driver-verifier-detected-violation";
}
