// SPDX-License-Identifier: MIT OR Apache-2.0

//! What happened, line by line, without a single address in it.
//!
//! A line is one driver-visible event: a call that returned, a callback that
//! was made, a message, a state change. Addresses differ from run to run, so
//! pointers are printed as the *names* of what they point at (`WDFDEVICE#1`,
//! `event#3`), given in order of creation; the same seed therefore gives the
//! same bytes.
//!
//! A trace is kept and shown in four formats ([`Format`]): text, JSON lines that
//! can be [read back](mod@file), Chrome's and Perfetto's [trace events](perfetto),
//! and a [page](html) with a timeline.
//!
//! ```
//! use ntsim::trace::{Format, Trace};
//! use ntsim::Machine;
//!
//! let mut machine = Machine::with_seed(7);
//! machine.run_thread("main", || ())?;
//! let trace = Trace::of(&machine, None);
//! let kept = trace.to_json();
//! assert_eq!(Trace::read(&kept).unwrap().lines, trace.lines);
//! assert!(trace.show(Format::Html).starts_with("<!doctype html>"));
//! # Ok::<(), Box<ntsim::Stop>>(())
//! ```

pub mod file;
pub mod html;
pub mod perfetto;
pub mod timeline;

use std::ffi::c_void;
use std::fmt::Write as _;

use crate::kernel::Kernel;

pub use file::{Format, ReadError, StopMark, Trace};

/// One line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Virtual time since the first boot, in 100 ns units.
    pub time: u64,
    /// The number of the thread or DPC, by which those of one name are told
    /// apart; 0 for the machine.
    pub context: u32,
    /// Who: a thread's or DPC's name, or `machine`.
    pub who: String,
    /// The IRQL it ran at.
    pub irql: u8,
    /// Nesting depth of calls and callbacks.
    pub depth: usize,
    /// What happened.
    pub what: Event,
}

/// What a [`Line`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The driver called a kernel or framework function and it returned.
    Call {
        /// The function's name.
        name: &'static str,
        /// Its arguments as `name=value`, comma separated.
        args: String,
        /// Its result; empty for none.
        result: String,
    },
    /// A call that has not returned yet when something else was traced.
    Enter {
        /// The function's name.
        name: &'static str,
        /// Its arguments.
        args: String,
    },
    /// The kernel or framework called the driver.
    Callback {
        /// The callback's documented name, e.g. `EvtDeviceD0Entry`.
        name: &'static str,
        /// Its arguments.
        args: String,
    },
    /// The driver's callback returned.
    Return {
        /// The callback's documented name.
        name: &'static str,
        /// Its result; empty for none.
        result: String,
    },
    /// The driver printed something (`DbgPrint`).
    Print(String),
    /// The machine did something: install, boot, power, removal.
    Machine(String),
    /// A framework device came into another state.
    Device {
        /// Its handle's name.
        device: String,
        /// `added`, `D0`, `Dx`, `off`, `stopped`, `failed` or `removed`.
        state: &'static str,
    },
}

impl Event {
    /// What the kinds are called, in the order in which they are declared.
    pub const KINDS: [&str; 7] = [
        "call", "enter", "callback", "return", "print", "machine", "device",
    ];

    /// The one that this is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        Self::KINDS[self.kind_number()]
    }

    pub(crate) const fn kind_number(&self) -> usize {
        match self {
            Self::Call { .. } => 0,
            Self::Enter { .. } => 1,
            Self::Callback { .. } => 2,
            Self::Return { .. } => 3,
            Self::Print(_) => 4,
            Self::Machine(_) => 5,
            Self::Device { .. } => 6,
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tail = |result: &str| {
            if result.is_empty() {
                String::new()
            } else {
                format!(" = {result}")
            }
        };
        match self {
            Self::Call { name, args, result } => write!(f, "{name}({args}){}", tail(result)),
            Self::Enter { name, args } => write!(f, "{name}({args}) ..."),
            Self::Callback { name, args } => write!(f, "-> {name}({args})"),
            Self::Return { name, result } => write!(f, "<- {name}{}", tail(result)),
            Self::Print(text) => write!(f, "\"{text}\""),
            Self::Machine(text) => write!(f, "** {text}"),
            Self::Device { device, state } => write!(f, "** {device} is {state}"),
        }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {:<16} {} {:indent$}{}",
            Stamp(self.time),
            self.who,
            self.irql,
            "",
            self.what,
            indent = self.depth * 2
        )
    }
}

/// A time in 100 ns units, shown as seconds with seven decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(pub u64);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>5}.{:07}", self.0 / 10_000_000, self.0 % 10_000_000)
    }
}

/// The same without the space before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:07}", self.0 / 10_000_000, self.0 % 10_000_000)
    }
}

/// A value that can stand in a trace line.
pub(crate) trait Arg {
    /// Writes the value as the trace shows it.
    fn show(&self, k: &Kernel, out: &mut String);
}

macro_rules! show_integer {
    ($($ty:ty),*) => {$(
        impl Arg for $ty {
            fn show(&self, _: &Kernel, out: &mut String) {
                let _ = write!(out, "{self}");
            }
        }
    )*};
}
show_integer!(u8, i8, u16, i16, u32, i64, u64, usize);

impl Arg for i32 {
    /// 32-bit results are statuses far more often than not; those below zero
    /// are shown as one.
    fn show(&self, _: &Kernel, out: &mut String) {
        if *self < -0x1000 {
            let _ = write!(out, "{:#010x}", self.cast_unsigned());
        } else {
            let _ = write!(out, "{self}");
        }
    }
}

impl Arg for () {
    fn show(&self, _: &Kernel, _: &mut String) {}
}

/// Shows a pointer to a `T`.
///
/// Nobody tells the kernel that a lock of one word is gone, so its name stays with
/// an address where later, on a stack, something else may be. It is shown only
/// where such a word is meant.
fn show_pointer<T>(address: usize, k: &Kernel, out: &mut String) {
    let is_word = ["usize", "i32"].contains(&std::any::type_name::<T>());
    let kind = k.name_of(address).and_then(|name| name.split('#').next());
    if !is_word && matches!(kind, Some("spinlock" | "pushlock" | "rundown")) {
        out.push_str("ptr");
    } else {
        k.show_address(address, out);
    }
}

impl<T> Arg for *mut T {
    fn show(&self, k: &Kernel, out: &mut String) {
        show_pointer::<T>(self.cast::<c_void>() as usize, k, out);
    }
}

impl<T> Arg for *const T {
    fn show(&self, k: &Kernel, out: &mut String) {
        show_pointer::<T>(self.cast::<c_void>() as usize, k, out);
    }
}

impl<T> Arg for Option<T> {
    /// Optional function pointers.
    fn show(&self, _: &Kernel, out: &mut String) {
        out.push_str(if self.is_some() { "fn" } else { "NULL" });
    }
}

impl Arg for isize {
    fn show(&self, _: &Kernel, out: &mut String) {
        let _ = write!(out, "{self}");
    }
}
