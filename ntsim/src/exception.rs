// SPDX-License-Identifier: MIT OR Apache-2.0

//! What Windows makes of a processor exception in kernel mode.
//!
//! | what was touched | below `DISPATCH_LEVEL` | at `DISPATCH_LEVEL` or above |
//! |---|---|---|
//! | freed pool, or what is past a block | 0xD5, 0xD6 | 0xD1 |
//! | paged pool | nothing is wrong | 0xD1 |
//! | what may not be written, or executed | 0xBE, 0xFC | the same |
//! | no memory, at an address of the system's | 0x50 | 0xD1 |
//! | no memory, elsewhere | an exception: 0x7E, in a DPC 0x1E | 0xD1 |
//!
//! Where a function of the kernel's touches it for the driver, 0xD1 is 0x0A.

use crate::bugcheck::{BugCheck, Stop};
use crate::fault::{Access, Fault, FaultKind};
use crate::kernel::{CLOCK_TICK, DISPATCH_LEVEL, Kernel};
use crate::memory::{BlockInfo, BlockState, Place, peek};
use crate::origin::Related;
use crate::rules::{Rule, memory as rules};

/// The lowest address of the system's half of the address space.
const SYSTEM: u64 = 0xFFFF_8000_0000_0000;

/// A bug check for a rule, or for what no rule names.
struct Found {
    rule: Option<&'static Rule>,
    code: u32,
    parameters: [u64; 4],
}

/// The end of the simulation that a fault of the driver's is.
pub(crate) fn stop(k: &Kernel, fault: &Fault) -> Stop {
    let irql = k.irql();
    let rip = fault.registers.rip;
    let mut message = if fault.kind == FaultKind::Watchdog {
        format!("the driver keeps the processor at IRQL {irql}: {fault}")
    } else {
        format!("the driver faulted: {fault}")
    };
    let mut related = Vec::new();
    let found = match fault.kind {
        FaultKind::AccessViolation { address, access } => {
            let block = block(k, address);
            if let Some(block) = &block {
                message = told(k, access, block);
                related = history(k, block);
            }
            access_violation(k, address, access, block.as_ref(), rip)
        }
        FaultKind::Breakpoint | FaultKind::DebugService => {
            exception(k, Some(&rules::BREAKPOINT), 0x8000_0003, rip)
        }
        FaultKind::PrivilegedInstruction => {
            exception(k, Some(&rules::PRIVILEGED_INSTRUCTION), 0xC000_0096, rip)
        }
        FaultKind::Divide => exception(k, Some(&rules::DIVIDE), 0xC000_0094, rip),
        FaultKind::FloatingPoint => exception(k, None, 0xC000_0090, rip),
        FaultKind::Assertion => exception(k, Some(&rules::ASSERTION), 0xC000_0420, rip),
        FaultKind::Misaligned { .. } => exception(k, None, 0x8000_0002, rip),
        FaultKind::StackOverflow { address } => Found {
            rule: Some(&rules::STACK_OVERFLOW),
            code: 0x7F,
            parameters: [8, address, 0, rip],
        },
        FaultKind::FastFail { code } => Found {
            rule: Some(match code {
                2 => &rules::STACK_COOKIE,
                3 => &rules::LIST_ENTRY,
                _ => &rules::FAST_FAIL,
            }),
            code: 0x139,
            parameters: [code, 0, 0, 0],
        },
        // At DISPATCH_LEVEL or above: see `Kernel::finish` for the others.
        FaultKind::Watchdog => {
            let whole = u64::from(k.running_thread().is_some());
            Found {
                rule: None,
                code: 0x133,
                parameters: [whole, watchdog_ticks(k), watchdog_ticks(k), 0],
            }
        }
        FaultKind::IllegalInstruction => {
            exception(k, Some(&rules::ILLEGAL_INSTRUCTION), 0xC000_001D, rip)
        }
        // What has no status of its own.
        _ => exception(k, None, 0xC000_001D, rip),
    };
    let mut check = BugCheck::new(found.code, found.parameters, message);
    check.stack = (k.settings.backtraces).then(|| fault.backtrace(&k.io.loaded_images()));
    match found.rule {
        Some(rule) if !k.checks(rule) => Stop::here(k, crate::StopKind::Unchecked, check.message),
        rule => {
            let mut stop = Stop::bug_check(k, check);
            stop.rule = rule.map(|rule| rule.name);
            stop.related = related;
            stop
        }
    }
}

/// The block of pool, or of the framework's memory, at or near an address.
fn block(k: &Kernel, address: u64) -> Option<BlockInfo> {
    let address = usize::try_from(address).ok()?;
    let pool = k.ex.pool.blocks.describe(address);
    pool.or_else(|| k.wdf.memory.describe(address))
}

/// What was done to the block, and by whom.
fn told(k: &Kernel, access: Access, block: &BlockInfo) -> String {
    let who = match k.kernel_call() {
        Some(call) => format!("{call}, for the driver,"),
        None => "the driver".to_owned(),
    };
    let paged = if crate::ex::pool::is_paged(k, block.address) && block.state == BlockState::Live {
        ", which is paged and not to be used at this IRQL"
    } else {
        ""
    };
    format!("{who} {access} {block}{paged}")
}

/// Where the block was allocated, or freed.
fn history(k: &Kernel, block: &BlockInfo) -> Vec<Related> {
    let (origins, what) = match block.state {
        BlockState::Live => (&k.ex.pool.origins, "allocated"),
        BlockState::Freed => (&k.ex.pool.freed, "freed"),
    };
    let origin = origins.get(&block.address);
    origin
        .map(|origin| Related::new(k, format!("the block was {what}"), Some(origin)))
        .into_iter()
        .collect()
}

fn access_violation(
    k: &Kernel,
    address: u64,
    access: Access,
    block: Option<&BlockInfo>,
    rip: u64,
) -> Found {
    let irql = k.irql();
    let operation = match access {
        Access::Read => 0,
        Access::Write => 1,
        Access::Execute => 8,
    };
    let is_there = usize::try_from(address).is_ok_and(|address| peek(address, &mut [0]) == 1);
    if is_there && access != Access::Read {
        let (rule, code) = if access == Access::Write {
            (&rules::WRITE_READ_ONLY, 0xBE)
        } else {
            (&rules::EXECUTE_DATA, 0xFC)
        };
        return Found {
            rule: Some(rule),
            code,
            parameters: [address, 0, 0, 0],
        };
    }
    if irql >= DISPATCH_LEVEL {
        let paged = block.is_some_and(|block| {
            block.state == BlockState::Live && crate::ex::pool::is_paged(k, block.address)
        });
        let (rule, code) = if k.kernel_call().is_some() {
            (&rules::KERNEL_IRQL, 0x0A)
        } else if paged {
            (&rules::PAGED_IRQL, 0xD1)
        } else {
            (&rules::IRQL, 0xD1)
        };
        return Found {
            rule: Some(rule),
            code,
            parameters: [address, u64::from(irql), operation, rip],
        };
    }
    let (rule, code) = match block {
        Some(block)
            if block.state == BlockState::Freed && matches!(block.place, Place::Inside(_)) =>
        {
            (&rules::FREED, 0xD5)
        }
        Some(_) => (&rules::BEYOND_BLOCK, 0xD6),
        None if address >= SYSTEM => (&rules::SYSTEM, 0x50),
        None => return exception(k, Some(&rules::ACCESS_VIOLATION), 0xC000_0005, rip),
    };
    Found {
        rule: Some(rule),
        code,
        parameters: [address, operation, rip, 0],
    }
}

/// An exception that nobody handles: a system thread has a handler of last resort,
/// which a DPC has not.
fn exception(k: &Kernel, rule: Option<&'static Rule>, status: u64, rip: u64) -> Found {
    let (rule, code) = if k.running_thread().is_some() {
        (rule, 0x7E)
    } else {
        (Some(&rules::EXCEPTION_IN_DPC), 0x1E)
    };
    Found {
        rule,
        code,
        parameters: [status, rip, 0, 0],
    }
}

/// The watchdog's limit in ticks of the clock.
fn watchdog_ticks(k: &Kernel) -> u64 {
    let limit = k.settings.processor_limit.unwrap_or_default();
    u64::try_from(limit.as_nanos() / 100).unwrap_or(u64::MAX) / CLOCK_TICK
}
