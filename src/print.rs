// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text for the kernel debugger: [`print!`](crate::print!),
//! [`println!`](crate::println!) and [`dbg!`](crate::dbg!).
//!
//! Use the macros of [`trace`](mod@crate::trace) for what is to stay in the driver:
//! they have levels.
//!
//! ```
//! # ntsim::run(|| {
//! dmf::println!("sensor: {} readings", 3);
//! let half = dmf::dbg!(42 / 2) + 1; // [src/lib.rs:7:12] 42 / 2 = 21
//! assert_eq!(half, 22);
//! # });
//! ```
//!
//! The text goes to `DbgPrint`, which takes at most 512 bytes at once, so
//! longer text is cut into several calls. Nothing is allocated. A NUL ends the
//! piece that it is in. Floating point is not formatted: the kernel keeps its
//! registers for others.
//!
//! See [`DbgPrint`][ms].
//!
//! [ms]: https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprint

use core::fmt;

use crate::sys;

/// `DPFLTR_IHVDRIVER_ID`: a macro in some headers, an enumerator in others.
const IHVDRIVER: u32 = 77;

/// What `DbgPrint` takes in one call, with the NUL at the end.
const PIECE: usize = 512;

/// Where text goes.
#[derive(Clone, Copy)]
enum Sink {
    /// `DbgPrint`: shown by default.
    Print,
    /// `DbgPrintEx` of the component for drivers, at this level (`DPFLTR_…`),
    /// which the debugger's mask lets through or not.
    Filtered(u32),
}

/// Text on its way to the debugger.
struct Writer {
    sink: Sink,
    /// A NUL follows the text.
    piece: [u8; PIECE],
    used: usize,
}

impl Writer {
    fn flush(&mut self) {
        if self.used == 0 {
            return;
        }
        self.piece[self.used] = 0;
        let (format, text) = (c"%s".as_ptr(), self.piece.as_ptr());
        match self.sink {
            // SAFETY: both strings end in NUL, and the format takes one string.
            Sink::Print => unsafe {
                sys::ntddk::DbgPrint(format, text);
            },
            // SAFETY: as above.
            Sink::Filtered(level) => unsafe {
                sys::ntddk::DbgPrintEx(IHVDRIVER, level, format, text);
            },
        }
        self.used = 0;
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.used == PIECE - 1 {
                self.flush();
            }
            self.piece[self.used] = byte;
            self.used += 1;
        }
        Ok(())
    }
}

/// Prints to the debugger.
#[doc(hidden)]
pub fn print(text: fmt::Arguments<'_>) {
    write(Sink::Print, text);
}

/// Prints to the debugger if its mask for drivers has the level (`DPFLTR_…`).
pub(crate) fn print_filtered(level: u32, text: fmt::Arguments<'_>) {
    write(Sink::Filtered(level), text);
}

fn write(sink: Sink, text: fmt::Arguments<'_>) {
    let mut writer = Writer {
        sink,
        piece: [0; PIECE],
        used: 0,
    };
    // Only a `Display` of the caller's can fail, and then what it wrote is all there is.
    let _ = fmt::Write::write_fmt(&mut writer, text);
    writer.flush();
}

/// Prints to the kernel debugger. The syntax is that of [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::print::print(::core::format_args!($($arg)*)) };
}

/// Prints a line to the kernel debugger. The syntax is that of [`format_args!`].
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", ::core::format_args!($($arg)*)) };
}

/// Prints an expression with its place and value, and gives the value.
///
/// For the search for an error, not for what is to stay. It takes what
/// [`std::dbg!`](https://doc.rust-lang.org/std/macro.dbg.html) takes, and prints
/// one line for each expression.
///
/// # IRQL
/// Any level up to `DIRQL`.
#[macro_export]
macro_rules! dbg {
    () => {
        $crate::println!("[{}:{}:{}]", ::core::file!(), ::core::line!(), ::core::column!())
    };
    ($value:expr $(,)?) => {
        // `match` keeps temporaries of the expression alive, as the standard macro does.
        match $value {
            value => {
                $crate::println!(
                    "[{}:{}:{}] {} = {:?}",
                    ::core::file!(), ::core::line!(), ::core::column!(),
                    ::core::stringify!($value), &value,
                );
                value
            }
        }
    };
    ($($value:expr),+ $(,)?) => { ($($crate::dbg!($value)),+,) };
}
