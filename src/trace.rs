// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tracing with levels: [`error!`](crate::error!), [`warn!`](crate::warn!),
//! [`info!`](crate::info!), [`debug!`](crate::debug!), [`trace!`](crate::trace!).
//!
//! A line goes to `DbgPrintEx` with the component `DPFLTR_IHVDRIVER_ID`, so the
//! debugger's mask filters it (`ed nt!Kd_IHVDRIVER_Mask 0xF`), and starts with
//! its level and the Rust module that it comes from.
//!
//! What is below the level that the driver is built with costs nothing: the
//! arguments are not evaluated, and neither code nor text is in the image. The
//! level is the environment variable `DMF_TRACE` during the build: `off`,
//! `error`, `warn`, `info`, `debug` or `trace`; `info` if it is not set. Another
//! word fails the build.
//!
//! ```sh
//! DMF_TRACE=debug cargo build
//! ```
//!
//! ```
//! # ntsim::run(|| {
//! dmf::warn!("reading {} is late", 3);
//! // WARN rust_out: reading 3 is late
//! # });
//! ```
//!
//! For output that is no trace use [`println!`](crate::println!).
//!
//! See [`DbgPrintEx`][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprintex

use core::fmt;

use crate::sys;

/// How much a line matters. The first is the most important.
///
/// C counterpart: the `Level` of [`DbgPrintEx`][ms].
///
/// [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprintex
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The driver cannot do what it should.
    Error = 1,
    /// It can, and something is wrong all the same.
    Warn,
    /// What an administrator would want to know.
    Info,
    /// What its developer wants to know.
    Debug,
    /// Each step.
    Trace,
}

/// The least important level that is compiled in, as a number; 0 is none.
const MOST: u8 = parse(option_env!("DMF_TRACE"));

impl Level {
    /// Whether lines of this level are compiled in.
    ///
    /// ```
    /// use dmf::trace::Level;
    /// if Level::Debug.is_enabled() {
    ///     // what only a debug line needs
    /// }
    /// ```
    #[must_use]
    pub const fn is_enabled(self) -> bool {
        self as u8 <= MOST
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }

    /// The bit of the debugger's mask.
    const fn filter(self) -> u32 {
        match self {
            Self::Error => sys::DPFLTR_ERROR_LEVEL,
            Self::Warn => sys::DPFLTR_WARNING_LEVEL,
            Self::Info => sys::DPFLTR_INFO_LEVEL,
            Self::Debug | Self::Trace => sys::DPFLTR_TRACE_LEVEL,
        }
    }
}

/// The number of a level's name.
const fn parse(name: Option<&str>) -> u8 {
    let Some(name) = name else {
        return Level::Info as u8;
    };
    match name.as_bytes() {
        b"off" => 0,
        b"error" => Level::Error as u8,
        b"warn" => Level::Warn as u8,
        b"" | b"info" => Level::Info as u8,
        b"debug" => Level::Debug as u8,
        b"trace" => Level::Trace as u8,
        _ => panic!("DMF_TRACE: the levels are off, error, warn, info, debug and trace"),
    }
}

/// Prints a line of a level that is enabled.
#[doc(hidden)]
pub fn line(level: Level, module: &str, text: fmt::Arguments<'_>) {
    let name = level.name();
    crate::print::print_filtered(level.filter(), format_args!("{name} {module}: {text}\n"));
}

/// What the macros of the levels expand to.
#[doc(hidden)]
#[macro_export]
macro_rules! trace_line {
    ($level:ident, $($arg:tt)*) => {
        if const { $crate::trace::Level::$level.is_enabled() } {
            $crate::trace::line(
                $crate::trace::Level::$level,
                ::core::module_path!(),
                ::core::format_args!($($arg)*),
            );
        }
    };
}

/// Traces that the driver cannot do what it should. The syntax is that of
/// [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::trace_line!(Error, $($arg)*) };
}

/// Traces that something is wrong. The syntax is that of [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::trace_line!(Warn, $($arg)*) };
}

/// Traces what an administrator would want to know. The syntax is that of
/// [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::trace_line!(Info, $($arg)*) };
}

/// Traces what the driver's developer wants to know. The syntax is that of
/// [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! debug {
    ($($arg:tt)*) => { $crate::trace_line!(Debug, $($arg)*) };
}

/// Traces a step. The syntax is that of [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! trace {
    ($($arg:tt)*) => { $crate::trace_line!(Trace, $($arg)*) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_lets_through_what_is_at_least_as_important() {
        assert_eq!(parse(None), Level::Info as u8);
        assert_eq!(parse(Some("off")), 0);
        assert_eq!(parse(Some("trace")), Level::Trace as u8);
        assert!(Level::Error < Level::Trace);
    }

    #[test]
    #[should_panic(expected = "DMF_TRACE: the levels are off")]
    fn a_misspelt_level_is_refused() {
        parse(Some("verbose"));
    }
}
