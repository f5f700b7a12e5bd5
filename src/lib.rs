// SPDX-License-Identifier: MIT OR Apache-2.0

//! Windows kernel-mode (KMDF) drivers put together from modules, in safe Rust,
//! in the manner of Microsoft's [DMF] (Driver Module Framework).
//!
//! A driver is a type that implements [`Device`]. It names the modules that
//! the device is made of, and the framework creates, opens, closes and
//! destroys them from the device's PnP and power callbacks. Neither drivers
//! nor modules need `unsafe`.
//!
//! ```
//! #![no_std]
//! #![forbid(unsafe_code)]
//! use dmf::prelude::*;
//!
//! dmf::driver!(Hello);
//!
//! pub struct Hello;
//!
//! impl Device for Hello {
//!     fn modules(_add: &mut Modules<'_, Self>) -> Result<Self> {
//!         Ok(Hello)
//!     }
//!
//!     fn d0_entry(&self, cx: &mut D0Entry<'_>) -> Result {
//!         dmf::println!("hello: from {} to D0", cx.previous_state());
//!         Ok(())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! # Principles
//!
//! - **Two kernels, one source.** The same code runs on Windows (through the
//!   official `wdk-sys`) and on `ntsim`, a simulated kernel, on any host.
//!   Both builds make the same kernel and KMDF calls in the same order.
//! - **A rule that can be a type is a type.** An IRQL is a token ([`irql`]), a
//!   wait has an outcome that must be looked at ([`sync`]), memory that the
//!   kernel links into lists cannot move ([`pool`]).
//! - **Nothing panics when memory is short.** Each allocation returns a
//!   [`Result`]; the global allocator is not used.
//! - **Teardown cannot fail.** It runs in the reverse order of setup and undoes
//!   exactly what was done ([`module`]).
//!
//! [DMF]: https://github.com/microsoft/DMF

#![no_std]

// The host has an allocator and a panic handler in `std`; `dmf` uses nothing
// else of it, because both builds must make the same calls.
#[cfg(not(kernel))]
extern crate std;

// The panic handler of kernel builds: a panic is bug check "RPNC".
#[cfg(kernel)]
extern crate wdk_panic as _;

#[macro_use]
pub mod sys;
#[macro_use]
mod hooks;

pub mod device;
pub mod driver;
pub mod ioctl;
pub mod irql;
pub mod module;
pub mod pool;
pub mod print;
pub mod registry;
pub mod status;
pub mod string;
pub mod sync;
pub mod thread;
pub mod time;
pub mod trace;
pub mod wdf;

pub use device::Device;
pub use module::{Handle, Module, Modules};
pub use status::{NtStatus, Result};

/// What a driver or a module imports.
pub mod prelude {
    pub use core::time::Duration;

    pub use crate::device::{
        D0Entry, D0Exit, Device, PowerState, PrepareHardware, ReleaseHardware,
        SelfManagedIoCleanup, SelfManagedIoFlush, SelfManagedIoInit, SelfManagedIoRestart,
        SelfManagedIoSuspend, SurpriseRemoval,
    };
    pub use crate::irql::{Dispatch, Irql, Passive};
    pub use crate::module::{Handle, Module, Modules, Owner};
    pub use crate::status::{NtStatus, Result};
    pub use crate::sync::{Event, SpinLock};
    pub use crate::thread::Thread;
    pub use crate::time::{Instant, Timeout};
}

/// What the macros of this crate expand to. Not for use by hand.
#[doc(hidden)]
pub mod private {
    #[cfg(kernel)]
    pub use wdk_alloc::WdkAllocator;
}
