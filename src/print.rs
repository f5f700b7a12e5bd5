// SPDX-License-Identifier: MIT OR Apache-2.0

//! Text for the kernel debugger: [`print!`](crate::print!) and
//! [`println!`](crate::println!).
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

/// What `DbgPrint` takes in one call, with the NUL at the end.
const PIECE: usize = 512;

/// Text on its way to the debugger.
struct Writer {
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
        // SAFETY: both strings end in NUL, and the format takes one string.
        unsafe { sys::ntddk::DbgPrint(c"%s".as_ptr(), self.piece.as_ptr()) };
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
    let mut writer = Writer {
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
