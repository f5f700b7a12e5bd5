// SPDX-License-Identifier: MIT OR Apache-2.0

//! A deterministic simulation of the NT kernel and KMDF 1.33.
//!
//! `ntsim` runs Windows drivers where there is no Windows: the `.sys` image
//! itself, or the same source linked into a test program. Threads, timers,
//! DPCs and PnP events interleave as a seed decides; time is virtual; a bug
//! check is a value with a report.
//!
//! # What it is not
//! - Not an emulator: the driver's code runs on this machine's processor.
//! - Not a memory model: threads interleave at kernel calls, so a data race
//!   between two plain loads is not found.
//! - Not complete: what it does not simulate it names, and stops.
//!
//! # Principles
//! 1. One operating-system thread. Every interleaving is the scheduler's choice.
//! 2. One seed decides everything; the same seed gives the same trace, byte for byte.
//! 3. Nothing succeeds silently: an unknown function, a broken rule, a leak is reported.
//! 4. The driver's faults are the driver's: they end the simulation, not the process.

mod abi;
mod access;
pub mod bugcheck;
pub mod count;
mod crt;
mod ex;
mod exception;
pub mod explore;
mod exports;
pub mod fault;
mod hang;
pub mod image;
pub mod inf;
pub mod inject;
mod io;
mod ke;
mod kernel;
mod locks;
pub mod machine;
pub mod memory;
mod ob;
mod origin;
pub mod registry;
pub mod report;
mod rtl;
pub mod rules;
mod stack_use;
mod stacks;
pub mod store;
pub mod story;
mod strategy;
pub mod trace;
mod trap;
mod unload;
pub mod verifier;
mod wdf;
mod zw;

pub use bugcheck::{Stop, StopKind};
pub use kernel::{CLOCK_TICK, MILLISECOND, SECOND, Settings};
pub use machine::user::{Answer, Completion, File, LowerRequest, Pending, Thread};
pub use machine::{Machine, Written, run, run_driver};
pub use origin::Related;
pub use strategy::Strategy;
pub use trap::inside_simulation;
