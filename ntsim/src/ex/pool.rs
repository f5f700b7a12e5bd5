// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pool: <https://learn.microsoft.com/windows-hardware/drivers/kernel/memory-allocation-for-system-wide-use>
//!
//! Every block has a guard page behind it and is unmapped when freed, like
//! Driver Verifier's special pool, unless [`Settings::pool`](crate::Settings::pool)
//! says otherwise. While code at `DISPATCH_LEVEL` or above runs,
//! paged blocks are inaccessible, as when Driver Verifier trims the working set
//! (<https://learn.microsoft.com/windows-hardware/drivers/devtest/force-irql-checking>).

use std::ptr::NonNull;

use crate::access::Addr;
use crate::bugcheck::BugCheck;
use crate::kernel::{APC_LEVEL, DISPATCH_LEVEL, Kernel};
use crate::memory::{BlockInfo, Fill, FreeError, GuardedPool, Protection, tag_name};
use crate::rules;
use crate::trap::kernel;

/// The pool, and what the simulation is told to make of it.
#[derive(Default)]
pub(crate) struct Pool {
    pub(crate) blocks: GuardedPool,
    /// Where blocks were freed, of the last ones.
    pub(crate) freed: std::collections::HashMap<usize, crate::origin::Origin>,
    /// Where blocks were allocated.
    pub(crate) origins: std::collections::HashMap<usize, crate::origin::Origin>,
    /// Paged blocks by address, for the IRQL at which they are used and freed.
    paged: std::collections::BTreeSet<usize>,
    /// They are inaccessible now.
    paged_out: bool,
    /// Allocations so far, failed ones included.
    pub(crate) attempts: u64,
    /// Which attempt fails (`VerifierAllocateFailCount`).
    pub(crate) fail_at: Option<u64>,
}

const POOL_FLAG_UNINITIALIZED: u64 = 0x2;
const POOL_FLAG_RAISE_ON_FAILURE: u64 = 0x20;
const POOL_FLAG_NON_PAGED: u64 = 0x40;
const POOL_FLAG_NON_PAGED_EXECUTE: u64 = 0x80;
const POOL_FLAG_PAGED: u64 = 0x100;

/// Of so many freed blocks it is remembered where.
const MOST_FREED: usize = 1024;

/// `ExAllocatePool2`.
pub(crate) fn ex_allocate_pool2(flags: u64, size: usize, tag: u32) -> Addr {
    let kinds = flags & (POOL_FLAG_NON_PAGED | POOL_FLAG_NON_PAGED_EXECUTE | POOL_FLAG_PAGED);
    Addr(kernel(|k| {
        // Documented: an invalid flag combination or tag gives NULL.
        if kinds.count_ones() != 1 || tag == 0 || flags & POOL_FLAG_RAISE_ON_FAILURE != 0 {
            return 0;
        }
        check_tag(k, kinds == POOL_FLAG_PAGED, size, tag, "ExAllocatePool2");
        let fill = if flags & POOL_FLAG_UNINITIALIZED == 0 {
            Fill::Zero
        } else {
            Fill::Uninitialised
        };
        allocate(
            k,
            kinds == POOL_FLAG_PAGED,
            size,
            tag,
            fill,
            "ExAllocatePool2",
        )
    }))
}

/// `PagedPool` in `POOL_TYPE`.
const PAGED_POOL: i32 = 1;

/// `ExAllocatePoolWithTag`.
pub(crate) fn ex_allocate_pool_with_tag(kind: i32, size: usize, tag: u32) -> Addr {
    Addr(kernel(|k| {
        let paged = kind & 1 == PAGED_POOL;
        check_tag(k, paged, size, tag, "ExAllocatePoolWithTag");
        allocate(
            k,
            paged,
            size,
            tag,
            Fill::Uninitialised,
            "ExAllocatePoolWithTag",
        )
    }))
}

/// Allocates a block and names it; 0 when the pool is empty.
pub(crate) fn allocate(
    k: &mut Kernel,
    paged: bool,
    size: usize,
    tag: u32,
    fill: Fill,
    function: &'static str,
) -> usize {
    let irql = k.irql();
    if size == 0 {
        k.broken(
            &rules::pool::ZERO_BYTES,
            &[u64::from(irql), u64::from(paged), 0],
            format!("{function} was asked for 0 bytes"),
        );
    }
    let limit = if paged { APC_LEVEL } else { DISPATCH_LEVEL };
    if irql > limit {
        let (rule, kind) = if paged {
            (&rules::pool::ALLOCATE_PAGED_IRQL, "paged")
        } else {
            (&rules::pool::ALLOCATE_NON_PAGED_IRQL, "non-paged")
        };
        let message = format!(
            "{function} of {kind} pool was called at IRQL {irql}; it needs {limit} or below"
        );
        if rules::irql::EX_ALLOCATE_POOL.apis.contains(&function) {
            k.broken(&rules::irql::EX_ALLOCATE_POOL, &[0; 3], message.as_str());
        }
        k.broken(
            rule,
            &[u64::from(irql), u64::from(paged), size as u64],
            message,
        );
    }
    if crate::inject::allocation_fails(k, function, tag) {
        return 0;
    }
    let pool = &mut k.ex.pool;
    pool.attempts += 1;
    if pool.fail_at == Some(pool.attempts) {
        return 0;
    }
    let Some(block) = pool.blocks.allocate(size, tag, fill) else {
        return 0;
    };
    let address = block.as_ptr() as usize;
    if paged {
        pool.paged.insert(address);
    }
    let others = pool.origins.len();
    if let Some(origin) = crate::origin::Origin::of_one_of(k, others) {
        k.ex.pool.origins.insert(address, origin);
    }
    k.name(address, "pool");
    address
}

/// Makes paged blocks inaccessible to the code that runs now if it must not use
/// them at its IRQL, else accessible. Called before each context gets to run.
#[inline]
pub(crate) fn page(k: &mut Kernel) {
    if k.ex.pool.paged_out || !k.ex.pool.paged.is_empty() {
        page_for(k, k.irql());
    }
}

fn page_for(k: &mut Kernel, irql: u8) {
    let pool = &mut k.ex.pool;
    let out = irql >= DISPATCH_LEVEL;
    if out == pool.paged_out || (out && pool.paged.is_empty()) {
        return;
    }
    pool.paged_out = out;
    let protection = if out {
        Protection::None
    } else {
        Protection::ReadWrite
    };
    for address in &pool.paged {
        // A system that refuses leaves the blocks as they are: a rule less is checked.
        let _ = pool.blocks.protect(*address, protection);
    }
}

/// Whether `address` lies in a paged block.
pub(crate) fn is_paged(k: &Kernel, address: usize) -> bool {
    let pool = &k.ex.pool;
    !pool.paged.is_empty()
        && pool
            .blocks
            .describe(address)
            .is_some_and(|block| pool.paged.contains(&block.address))
}

/// `ExFreePool`.
pub(crate) fn ex_free_pool(Addr(address): Addr) {
    kernel(|k| free(k, address, None));
}

/// `ExFreePoolWithTag`.
pub(crate) fn ex_free_pool_with_tag(Addr(address): Addr, tag: u32) {
    kernel(|k| free(k, address, Some(tag)));
}

/// Stops the machine if a block was written after it was freed. Asked when a driver
/// is unloaded.
pub(crate) fn check_freed(k: &mut Kernel) {
    if let Some(written) = k.ex.pool.blocks.find_written_after_free() {
        written_after_free(k, written);
    }
}

/// `PAGE_FAULT_IN_FREED_SPECIAL_POOL`, without the instruction.
fn written_after_free(k: &mut Kernel, (block, offset): (BlockInfo, isize)) {
    let address = block.address.saturating_add_signed(offset);
    k.bug_check(BugCheck::new(
        0xCC,
        [address as u64, 1, 0, 0],
        format!(
            "{block}: the byte at offset {offset} was written after the block was freed; \
             guarded pool shows by whom"
        ),
    ));
}

/// Frees a block; anything wrong with it is a bug check.
pub(crate) fn free(k: &mut Kernel, address: usize, tag: Option<u32>) {
    let irql = k.irql();
    let Some(block) = NonNull::new(address as *mut u8) else {
        k.fatal(
            &rules::pool::FREE_NULL,
            &[0, 0, 0],
            "ExFreePool was given NULL",
        )
    };
    let paged = k.ex.pool.paged.contains(&address);
    let limit = if paged { APC_LEVEL } else { DISPATCH_LEVEL };
    if irql > limit {
        let rule = if paged {
            &rules::pool::FREE_PAGED_IRQL
        } else {
            &rules::pool::FREE_NON_PAGED_IRQL
        };
        k.broken(
            rule,
            &[u64::from(irql), u64::from(paged), address as u64],
            format!("pool is freed at IRQL {irql}; this block needs {limit} or below"),
        );
        if paged {
            // The bytes around the block are looked at.
            let _ = k.ex.pool.blocks.protect(address, Protection::ReadWrite);
        }
    }
    if let Some(info) = k.ex.pool.blocks.describe(address) {
        if let Some(tag) = tag
            && tag != 0
            && tag != info.tag
        {
            k.broken(
                &rules::pool::FREE_WRONG_TAG,
                &[address as u64, u64::from(info.tag), u64::from(tag)],
                format!("{info} is freed with the tag '{}'", tag_name(tag)),
            );
        }
        super::memory_freed(k, address, info.size);
    }
    match k.ex.pool.blocks.free(block) {
        Ok(_) => {
            forget(k, address);
            let written = k.ex.pool.blocks.take_written_after_free();
            if let Some(written) = written {
                written_after_free(k, written);
            }
        }
        Err(error @ FreeError::AlreadyFreed(_)) => k.broken(
            &rules::pool::DOUBLE_FREE,
            &[0, 0, address as u64],
            error.to_string(),
        ),
        Err(error @ FreeError::Unknown(_)) => k.broken(
            &rules::pool::FREE_BAD_ADDRESS,
            &[address as u64, 0, 0],
            error.to_string(),
        ),
        Err(error @ FreeError::NotTheStart(info)) => k.broken(
            &rules::pool::FREE_INSIDE,
            &[address as u64, info.size as u64, info.size as u64, 0x21],
            error.to_string(),
        ),
        Err(error @ FreeError::Damaged { block, offset }) => {
            forget(k, address);
            let at = address.wrapping_add_signed(offset) as u64;
            let message = error.to_string();
            if offset < 0 {
                k.broken(
                    &rules::pool::UNDERRUN,
                    &[address as u64, at, 0, 0x23],
                    message,
                );
            } else {
                k.broken(
                    &rules::pool::OVERRUN,
                    &[address as u64, at, 0, 0x24],
                    message.as_str(),
                );
                k.broken(
                    &rules::pool::OVERRUN_TRACKED,
                    &[address as u64, at, block.size as u64],
                    message,
                );
            }
        }
    }
}

/// A block is no more.
fn forget(k: &mut Kernel, address: usize) {
    k.ex.pool.paged.remove(&address);
    k.ex.pool.origins.remove(&address);
    if let Some(origin) = crate::origin::Origin::here(k) {
        let freed = &mut k.ex.pool.freed;
        if freed.len() >= MOST_FREED {
            freed.clear();
        }
        freed.insert(address, origin);
    }
    k.unname(address);
}

/// Holds the driver to tags by which pool can be tracked.
fn check_tag(k: &mut Kernel, paged: bool, size: usize, tag: u32, function: &str) {
    let bytes = tag.to_le_bytes();
    if bytes.iter().any(u8::is_ascii_alphanumeric) && !bytes.starts_with(b"BIG") {
        return;
    }
    let kind = u64::from(paged);
    let caller = k.caller();
    if tag == 0 {
        k.broken(
            &rules::pool::TAG_ZERO,
            &[kind, size as u64, caller],
            format!("{function} was given the tag 0"),
        );
    } else if matches!(&bytes, b"BIG\0" | b"BIG ") {
        k.broken(
            &rules::pool::TAG_BIG,
            &[kind, size as u64, caller],
            format!("{function} was given the tag 'BIG', which is the system's"),
        );
    } else if !bytes.iter().any(u8::is_ascii_alphanumeric) {
        k.broken(
            &rules::pool::TAG_TEXT,
            &[u64::from(tag), kind, caller],
            format!("{function} was given the tag {tag:#x}, which has no letter or digit"),
        );
    }
}
